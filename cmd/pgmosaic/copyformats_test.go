package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// COPY of a sharded table in every format and with options: what comes out of one PostgreSQL goes in and comes out the same.
func TestCopyFormatsOverShards(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "copied")
	one := connectTo(t, d.cluster.Node("s1-a").DSN("copied_0"))
	make := "(k bigint not null, day date not null, name text, price numeric, mark double precision, tags text[], primary key (k, day))"
	mustExec(t, c, "create table rows_ "+make)
	mustExec(t, one, "create table public.oracle "+make)
	mustExec(t, one, "insert into oracle select i, date '2026-01-01' + i % 7, case i % 5 when 0 then null when 1 then '' when 2 then E'a\\tb\\n\\\\c \"quoted\"' else 'n' || i end, i / 7.0, case when i % 3 > 0 then i / 3.0 end, array['x', 'y' || i] from generate_series(1, 500) i")
	d.adminExec(t, "CREATE GROUP g IN copied KEY (bigint, date) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE copied.public.rows_ IN GROUP g KEY (k, day)")
	sum := func(conn *pgx.Conn, table string) string {
		return queryOne[string](t, conn, "select count(*) || ' ' || sum(hashtext(k || day::text || coalesce(name, '-') || price || coalesce(mark, -1) || tags::text)) from "+table)
	}
	want := sum(one, "oracle")
	for _, opts := range []string{
		"(format binary)", "(format text)", "(format csv, header)", "(format csv, force_quote *, null 'NULL')", "(format text, header true, delimiter '|', null 'nil')", "(format csv, quote '''', escape '!')", "(format csv, header, force_null (name))",
	} {
		out, in := opts, opts
		if strings.Contains(opts, "force_quote") {
			in = "(format csv, null 'NULL')"
		}
		if strings.Contains(opts, "force_null") {
			out = "(format csv, header)"
		}
		var data bytes.Buffer
		if _, err := one.PgConn().CopyTo(t.Context(), &data, "copy oracle to stdout "+out); err != nil {
			t.Fatal(opts, err)
		}
		mustExec(t, c, "truncate rows_")
		tag, err := c.PgConn().CopyFrom(t.Context(), &data, "copy rows_ from stdin "+in)
		if err != nil || tag.RowsAffected() != 500 {
			t.Fatal(opts, tag, err)
		}
		if got := sum(c, "rows_"); got != want && !strings.Contains(opts, "force_null") {
			t.Errorf("%s: in: %s, want %s", opts, got, want)
		}
		before := sum(c, "rows_")
		for i := range 3 {
			if n := queryOne[int](t, d.on(t, "copied", i), "select count(*) from rows_"); n < 100 {
				t.Errorf("%s: shard %d has %d rows", opts, i, n)
			}
		}
		if tag, err = c.PgConn().CopyTo(t.Context(), &data, "copy rows_ to stdout "+out); err != nil || tag.RowsAffected() != 500 {
			t.Fatal(opts, tag, err)
		}
		mustExec(t, one, "create temp table back (like oracle)")
		if _, err := one.PgConn().CopyFrom(t.Context(), &data, "copy back from stdin "+in); err != nil {
			t.Fatal(opts, err)
		}
		if got := sum(one, "back"); got != before {
			t.Errorf("%s: out: %s, want %s", opts, got, before)
		}
		mustExec(t, one, "drop table back")
	}
	// pgx's own way, which is binary; an empty one; one of many rows in small pieces.
	mustExec(t, c, "truncate rows_")
	n, err := c.CopyFrom(t.Context(), pgx.Identifier{"rows_"}, []string{"day", "price", "k", "name"}, pgx.CopyFromSlice(20000, func(i int) ([]any, error) {
		return []any{"2026-01-0" + fmt.Sprint(1+i%9), float64(i) / 4, int64(i), strings.Repeat("x", i%90)}, nil
	}))
	if err != nil || n != 20000 {
		t.Fatal(n, err)
	}
	if got := queryOne[string](t, c, "select count(*) || ' ' || sum(k) || ' ' || sum(length(name)) from rows_"); got != "20000 199990000 889300" {
		t.Error(got)
	}
	if n, err := c.CopyFrom(t.Context(), pgx.Identifier{"rows_"}, []string{"k", "day"}, pgx.CopyFromRows(nil)); err != nil || n != 0 {
		t.Error(n, err)
	}
	// Mistakes: none leaves a row, each has its line in the input.
	mustExec(t, c, "truncate rows_")
	csv := "k,day,name,price\n1,2026-01-01,a,1\n2,2026-01-02,\"two\nlines\",2\n3,2026-01-03,c,3\n4,2026-01-04,d,bad\n5,2026-01-05,e,5\n"
	for _, bad := range []struct{ data, sql, code, says string }{
		{csv, "copy rows_ (k, day, name, price) from stdin (format csv, header)", "22P02", "line 6"},
		{"1\t2026-01-01\n2\t2026-01-02\n1\t2026-01-01\n", "copy rows_ (k, day) from stdin", "23505", "line 3"},
		{"1\t2026-01-01\n\\N\t2026-01-02\n", "copy rows_ (k, day) from stdin", "23502", "line 2"},
		{"1\t2026-01-01\n2\tx\n", "copy rows_ (k, day) from stdin", "22P02", "line 2"},
		{"1\t2026-01-01\n2\n", "copy rows_ (k, day) from stdin", "22P04", "line 2"},
		{"nonsense", "copy rows_ (k, day) from stdin (format binary)", "22P04", "signature"},
		{"PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x08\x00", "copy rows_ (k, day) from stdin (format binary)", "22P04", "unexpected EOF"},
		{"PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00", "copy rows_ (k, day) from stdin (format binary)", "22P04", "EOF marker"},
		{"PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff", "copy rows_ (k, day) from stdin (format binary)", "22P04", "day"},
	} {
		_, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(bad.data), bad.sql)
		pe := &pgconn.PgError{}
		if !errors.As(err, &pe) || pe.Code != bad.code || !strings.Contains(pe.Message+pe.Detail+pe.Where, bad.says) {
			t.Errorf("%s %q: %v (%+v), want %s %q", bad.sql, bad.data, err, pe, bad.code, bad.says)
		}
	}
	if n := queryOne[int](t, c, "select count(*) from rows_"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	// What is null by FORCE_NULL and FORCE_NOT_NULL is so for keys too.
	mustExec(t, c, "create table words (word text, n int)")
	mustExec(t, one, "create table public.oracle2 (word text not null, n int)")
	d.adminExec(t, "CREATE GROUP w IN copied KEY (text) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE copied.public.words IN GROUP w KEY (word)")
	for _, x := range []struct{ data, opts string }{
		{"\"\",1\n", "force_null (word)"},
		{"\"\",1\n", "force_not_null (word)"},
		{"\"\",1\n", "null ''"},
		{",1\n", "force_null (word)"},
		{",1\n", "force_not_null (word)"},
		{",1\n", "null ''"},
		{"\"-\",1\n", "null '-', force_null (word)"},
		{"-,1\n", "null '-', force_not_null (word)"},
		{"-,1\n", "null '-', force_not_null (word), force_null (word)"},
	} {
		_, there := one.PgConn().CopyFrom(t.Context(), strings.NewReader(x.data), "copy oracle2 from stdin (format csv, "+x.opts+")")
		_, here := c.PgConn().CopyFrom(t.Context(), strings.NewReader(x.data), "copy words from stdin (format csv, "+x.opts+")")
		if pgCode(there) != pgCode(here) {
			t.Errorf("%q (%s): %v, and PostgreSQL says %v", x.data, x.opts, here, there)
		}
	}
	words := "select count(*) || ' ' || string_agg(word, '|' order by word) from "
	if got, want := queryOne[string](t, c, words+"words"), queryOne[string](t, one, words+"oracle2"); got != want {
		t.Errorf("the keys are %q, want %q", got, want)
	}
	if tag, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("k,day\n1,2026-01-01\n2,2026-01-01\n"), "copy rows_ (k, day) from stdin (format csv, header match) where k > 1"); err != nil || tag.RowsAffected() != 1 {
		t.Error(tag, err)
	}
}

// A header that is a record of several lines, and what comes behind \., are not taken for rows: every shard loads what one PostgreSQL does.
func TestCopyOfHeadersOfSeveralLines(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "copyhead")
	one := connectTo(t, d.cluster.Node("s1-a").DSN("copyhead_0"))
	mustExec(t, c, "create table rows_ (k text primary key, name text)")
	mustExec(t, one, "create table public.oracle (k text primary key, name text)")
	d.adminExec(t, "CREATE GROUP g IN copyhead KEY (text) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE copyhead.public.rows_ IN GROUP g KEY (k)")
	var csv, text strings.Builder
	for i := range 30 {
		fmt.Fprintf(&csv, "%d,\"n\n%d\"\n", i, i)
		fmt.Fprintf(&text, "%d\tn%d\n", i, i)
	}
	for _, x := range []struct{ data, opts string }{
		{"\"the\nkey\",name\n" + csv.String(), "(format csv, header)"},
		{"k,name\r\n" + strings.ReplaceAll(csv.String(), "\"\n", "\"\r\n"), "(format csv, header)"},
		{"k,name\n" + csv.String(), "(format csv, header match)"},
		{csv.String() + "\\.\n" + "77,x\nno row\n", "(format csv)"},
		{text.String() + "\\.\n" + "77\tx\nno row\n", "(format text)"},
		{text.String() + "88\ty\\.\n" + "77\tx\nno row\n", "(format text)"},
		{"5\tgood\nno row\n", "(format text)"},
	} {
		there, why := one.PgConn().CopyFrom(t.Context(), strings.NewReader(x.data), "copy oracle from stdin "+x.opts)
		here, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(x.data), "copy rows_ from stdin "+x.opts)
		if pgCode(err) != pgCode(why) || here.String() != there.String() {
			t.Errorf("%s %.20q: %s %v, and PostgreSQL says %s %v", x.opts, x.data, here, err, there, why)
		}
		sum := "select count(*) || ' ' || coalesce(sum(hashtext(k || name)), 0) from "
		if got, want := queryOne[string](t, c, sum+"rows_"), queryOne[string](t, one, sum+"oracle"); got != want {
			t.Errorf("%s %.20q: rows %s, want %s", x.opts, x.data, got, want)
		}
		mustExec(t, c, "truncate rows_")
		mustExec(t, one, "truncate oracle")
	}
}

// A reference table takes COPY in every format, with and without columns whose defaults are drawn once for all copies.
func TestCopyFormatsOfReferenceTables(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "copyref")
	mustExec(t, c, "create table codes (k int primary key, name text)")
	mustExec(t, c, "create table drawn (k int primary key, n int default (random() * 1e9)::int)")
	for _, table := range []string{"codes", "drawn"} {
		d.adminExec(t, "DISTRIBUTE TABLE copyref.public."+table+" AS REFERENCE")
	}
	rows := func(from int) pgx.CopyFromSource {
		return pgx.CopyFromSlice(3000, func(i int) ([]any, error) { return []any{int32(from + i)}, nil })
	}
	for _, table := range []string{"codes", "drawn"} {
		if n, err := c.CopyFrom(t.Context(), pgx.Identifier{table}, []string{"k"}, rows(0)); err != nil || n != 3000 {
			t.Errorf("%s: %d rows, %v", table, n, err)
		}
		var data bytes.Buffer
		for _, opts := range []string{"(format binary)", "(format text)", "(format csv, header)"} {
			data.Reset()
			if _, err := c.PgConn().CopyTo(t.Context(), &data, "copy "+table+" (k) to stdout "+opts); err != nil {
				t.Fatal(opts, err)
			}
			mustExec(t, c, "delete from "+table)
			if tag, err := c.PgConn().CopyFrom(t.Context(), &data, "copy "+table+" (k) from stdin "+opts); err != nil || tag.RowsAffected() != 3000 {
				t.Errorf("%s %s: %s, %v", table, opts, tag, err)
			}
		}
		if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("nonsense"), "copy "+table+" (k) from stdin (format binary)"); pgCode(err) != "22P04" {
			t.Errorf("%s: nonsense: %v", table, err)
		}
	}
	alikeOn(t, d, "copyref", "after COPY", nil, "codes", "drawn")
}
