package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Rows that are made on home, by COPY or INSERT .. SELECT, are on every copy what one PostgreSQL stores, or are refused.
func TestRowsMadeOnHomeAreThoseOfOnePostgreSQL(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "exactrows")
	freshDatabase(t, d.cluster.Node("s1-a"), "exactrows_alone")
	one := connectTo(t, d.cluster.Node("s1-a").DSN("exactrows_alone"))
	both := func(sql string) {
		t.Helper()
		mustExec(t, one, sql, pgx.QueryExecModeSimpleProtocol)
		mustExec(t, c, sql, pgx.QueryExecModeSimpleProtocol)
	}
	const columns = "k int primary key, x xml, m money, s interval, ch char(8), b bit(8), f float8, at timestamptz, a text[], r tstzrange"
	for _, sql := range []string{
		"create function code() returns char(8) volatile language sql as $$select 'abcdefgh'::char(8)$$", "create domain page as xml",
		"create table plain (" + columns + ")", "create table rows (" + columns + ", d char(8) default code(), settings text default concat_ws('|', current_setting('datestyle'), current_setting('search_path'), clock_timestamp() is null), p page)",
		"create table classes (k int primary key, c regclass, d float8 default random())", "create table class_lists (k int primary key, c regclass[], d float8 default random())", "create table classes_from (k int, c regclass)",
		"insert into plain select g, '<?xml version=\"1.0\"?><a>b</a>', (-1234.56)::numeric::money, make_interval(days => -1, mins => 5), 'abc', B'10101010', 1.0::float8 / g, to_timestamp(1700000000.123456 + g), array['NULL', null], tstzrange(to_timestamp(g), null) from generate_series(1, 9) g",
	} {
		both(sql)
	}
	for _, n := range []string{"rows", "classes", "class_lists"} {
		d.adminExec(t, "DISTRIBUTE TABLE exactrows.public."+n+" AS REFERENCE")
	}
	same := func(what string) {
		t.Helper()
		const sql = "select string_agg(concat_ws(' ', r.*::text, x::text, p::text, pg_column_size(r.*), float8send(f)), E'\\n' order by k) from rows r"
		want := queryOne[string](t, one, sql)
		for i := range 3 {
			if got := queryOne[string](t, d.on(t, "exactrows", i), sql); got != want {
				t.Errorf("%s: shard %d holds\n%s\none PostgreSQL\n%s", what, i, got, want)
			}
		}
	}
	for _, set := range []string{"select 1", "set datestyle = 'SQL, DMY'; set timezone = 'Asia/Kolkata'; set intervalstyle = sql_standard; set extra_float_digits = -9; set array_nulls = off", "set datestyle = 'Postgres'; set timezone = 'Asia/Manila'; set intervalstyle = 'iso_8601'"} {
		both(set)
		both("insert into rows (k, x, m, s, ch, b, f, at, a, r) select * from plain")
		both("insert into rows (k, x, p) select k + 100, x, x from plain where k < 4")
		for _, x := range []*pgx.Conn{one, c} {
			const data = "300\t<?xml version=\"1.0\"?><a/>\t-1 days +02:03:00\t{a,NULL}\t02/03/2026 04:05:06\tab\n301\t<b/>\t-1-2 3 04:05\t{}\t02/03/2026 04:05:06\tc\n"
			if _, err := x.PgConn().CopyFrom(t.Context(), strings.NewReader(data), "copy rows (k, x, s, a, at, ch) from stdin"); err != nil {
				t.Errorf("%s: COPY: %v", set, err)
			}
		}
		both("reset all")
		same(set)
		both("delete from rows")
	}
	mustExec(t, c, "insert into classes_from select k, 'pg_class'::regclass from plain")
	mustExec(t, c, "insert into classes (k, c) select k, c from classes_from")
	mustExec(t, c, "update classes_from set c = ('ro' || 'ws')::regclass")
	if n := queryOne[int](t, d.on(t, "exactrows", 1), "select count(*) from classes where c = 'pg_class'::regclass"); n != 9 {
		t.Errorf("%d rows name pg_class", n)
	}
	for _, sql := range []string{"insert into classes (k, c) select k + 10, c from classes_from", "insert into class_lists (k, c) select k, array[c] from classes_from"} {
		_, err := c.Exec(t.Context(), sql)
		wantCode(t, err, "0A000")
	}
	_, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("50\trows\n"), "copy classes (k, c) from stdin")
	wantRule(t, err, "names-object", "0A000")
	if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("51\tpg_type\n52\t\\N\n"), "copy classes (k, c) from stdin"); err != nil {
		t.Error(err)
	}
	_, err = c.PgConn().CopyFrom(t.Context(), strings.NewReader("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff"), "copy classes from stdin (format binary)")
	wantRule(t, err, "names-object", "0A000")
	oid := queryOne[uint32](t, d.on(t, "exactrows", 0), "select 'rows'::regclass::oid")
	for _, v := range []uint32{oid, 1259} {
		r := c.PgConn().ExecParams(t.Context(), "insert into classes (k, c) values (60, $1)", [][]byte{{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}}, nil, []int16{1}, nil).Read()
		if v == oid {
			wantRule(t, r.Err, "names-object", "0A000")
		} else if r.Err != nil {
			t.Error(r.Err)
		}
	}
	if rows := d.adminExec(t, "VERIFY TABLE exactrows.public.classes"); len(rows) > 0 {
		t.Errorf("the copies differ: %v", rows)
	}
}

// In a transaction that has begun, what rows leave to now() and its kin is the transaction's.
func TestRowsMadeOnHomeHaveTheTransactionsTime(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "exacttime")
	for _, sql := range []string{"create table stamps (k int primary key, at timestamptz default now(), made timestamptz default clock_timestamp())", "create table plain (k int)", "insert into plain values (1), (2)"} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "DISTRIBUTE TABLE exacttime.public.stamps AS REFERENCE")
	mustExec(t, c, "set datestyle = 'SQL, DMY'; set timezone = 'Asia/Shanghai'", pgx.QueryExecModeSimpleProtocol)
	mustExec(t, c, "begin")
	began := queryOne[string](t, c, "insert into stamps (k) values (10) returning extract(epoch from at)::text")
	mustExec(t, c, "select pg_sleep(0.01)")
	mustExec(t, c, "insert into stamps (k) select k from plain")
	if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("3\n4\n"), "copy stamps (k) from stdin"); err != nil {
		t.Fatal(err)
	}
	mustExec(t, c, "update stamps set at = default where k = 4")
	mustExec(t, c, "commit")
	for i := range 3 {
		got := queryOne[string](t, d.on(t, "exacttime", i), "select string_agg(extract(epoch from at)::text, ' ' order by k) from stamps")
		if want := strings.TrimSpace(strings.Repeat(began+" ", 5)); got != want {
			t.Errorf("shard %d has %s, the transaction began at %s", i, got, began)
		}
		if off := queryOne[float64](t, d.on(t, "exacttime", i), "select max(abs(extract(epoch from clock_timestamp() - made)))::float8 from stamps"); off > 60 {
			t.Errorf("shard %d: clock_timestamp() is off by %s s", i, fmt.Sprint(off))
		}
	}
}

// A row whose key changes is on its new shard what one PostgreSQL has.
func TestRowsThatMoveKeepTheirValues(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "exactmove")
	freshDatabase(t, d.cluster.Node("s1-a"), "exactmove_alone")
	one := connectTo(t, d.cluster.Node("s1-a").DSN("exactmove_alone"))
	both := func(sql string) {
		t.Helper()
		mustExec(t, one, sql, pgx.QueryExecModeSimpleProtocol)
		mustExec(t, c, sql, pgx.QueryExecModeSimpleProtocol)
	}
	both("create table plain (k int, x xml); create table spread (k int primary key, x xml, cs char(4)[], m money, at timestamptz, c regclass)")
	mustExec(t, one, "create table other (a int)")
	both("insert into plain select g, '<?xml version=\"1.0\"?><a/>' from generate_series(1, 20) g")
	d.adminExec(t, "CREATE GROUP g IN exactmove KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE exactmove.public.spread IN GROUP g KEY (k)")
	same := func(what string) {
		t.Helper()
		const sql = "select concat_ws(' ', s.*::text, x::text, pg_column_size(s.*)) from spread s order by k"
		list := func(c *pgx.Conn) string {
			rows, err := c.Query(t.Context(), sql)
			if err != nil {
				t.Fatal(err)
			}
			all, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			return strings.Join(all, "\n")
		}
		if want, got := list(one), list(c); got != want {
			t.Errorf("%s: the shards hold\n%s\none PostgreSQL\n%s", what, got, want)
		}
	}
	both("insert into spread (k, x) select k, x from plain")
	same("INSERT .. SELECT")
	both("set datestyle = 'SQL, DMY'; set timezone = 'Asia/Manila'")
	both("update spread set k = k + 1000, cs = array['abcd', 'e'], m = 5.5::numeric::money, at = '02/03/2026 04:05', c = 'pg_class' where k <= 20")
	both("reset all")
	same("UPDATE of keys")
	both("update spread set k = k + 1000, x = '<?xml version=\"1.0\"?><b/>'")
	same("UPDATE of keys and xml")
	mustExec(t, c, "create table made (k, x, l, n) as select k, xmlconcat(x) as x, '<?xml version=\"1.0\"?><c/>'::xml as x, count(*) over () from spread")
	if n := queryOne[int](t, c, "select count(*) from made where n = 20 and xpath_exists('/b', x) and l::text = '<?xml version=\"1.0\"?><c/>'"); n != 20 {
		t.Errorf("CREATE TABLE AS has %d rows with what was made", n)
	}
	mustExec(t, c, "update spread set c = 'spread'")
	_, err := c.Exec(t.Context(), "update spread set k = k + 1000")
	wantRule(t, err, "names-object", "0A000")
}
