package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A row that stands behind a notice is one like others: the first one of each shard, and those of COPY TO. What a server says while it runs comes behind the columns.
func TestRowsBehindNotices(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "noticed")
	d.adminExec(t, "CREATE GROUP g IN noticed KEY (int) BY HASH")
	mustExec(t, c, "create function noticed_says(int) returns int stable language plpgsql as $$begin raise notice 'says %', $1; return $1; end$$")
	mustExec(t, c, "create function noticed_plans(int) returns int immutable language plpgsql as $$begin raise notice 'plans %', $1; return $1; end$$")
	mustExec(t, c, "create table noticed (k int primary key)")
	d.adminExec(t, "DISTRIBUTE TABLE noticed.public.noticed IN GROUP g KEY (k)")
	for i := range 5 {
		mustExec(t, c, "insert into noticed values ($1)", i)
	}
	mustExec(t, c, "create policy says on noticed using (noticed_says(k) >= 0)")
	mustExec(t, c, "alter table noticed enable row level security, force row level security")
	r := rawTo(t, dsnFor("app", "app", d.Server.Addr(), "noticed"))
	for _, sql := range []string{
		"select 1 from noticed", "select 1, 2 from noticed", "select 1, noticed_plans(7) from noticed", "select noticed_plans(8), count(*) over (partition by k) from noticed", "select 1 from noticed limit 5",
		"begin; select 1, 3 from noticed; commit", "copy noticed to stdout", "copy noticed to stdout (header)", "set client_min_messages = debug5; copy noticed to stdout; reset client_min_messages",
	} {
		for _, run := range []string{"the first time", "again"} {
			r.SendQuery(sql)
			told := r.toldUpTo("ZI")
			rows, want := strings.Count(told, "D("), 5
			if strings.Contains(sql, "copy") {
				_, told, _ = strings.Cut(told, "H")
				rows = strings.Count(told, "d")
			}
			if strings.Contains(sql, "header") {
				want++
			}
			if rows != want {
				t.Errorf("%s, %s: %d rows, not %d: %s", sql, run, rows, want, told)
			}
		}
	}
	r.SendQuery("select 1, 4 from noticed")
	_ = r.Flush()
	for before := ""; ; {
		m, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if m.Type == 'T' {
			if before != "" {
				t.Errorf("columns behind %s", before)
			}
			break
		}
		before += string(m.Type)
	}
}

// What the server of a replica tells of columns is for who reads there. It may be behind the definitions by which statements are planned: others are told what
// holds by those.
func TestColumnsOfAReplicaAreNotKept(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "create table behind (k int primary key, v int)")
	d.adminExec(t, "CREATE GROUP behind IN shop KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.behind IN GROUP behind KEY (k)")
	defer func() {
		mustExec(t, c, "drop table behind")
		d.adminExec(t, "DROP GROUP behind IN shop")
	}()
	for i := range 5 {
		mustExec(t, c, "insert into behind values ($1, $1)", i)
	}
	for _, n := range []string{"s1", "s2"} {
		replayed(t, d, n+"-a", n+"-b")
		if err := d.cluster.Node(n + "-b").PauseReplay(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := d.cluster.Node(n + "-b").ResumeReplay(context.Background()); err != nil {
				t.Error(err)
			}
		}()
	}
	mustExec(t, c, "alter table behind alter v type text, add w int")
	there := connectTo(t, d.shopDSN())
	mustExec(t, there, "set pgmosaic.read_consistency = eventual")
	mustExec(t, there, "set pgmosaic.replica_fallback = error")
	mustExec(t, c, "set pgmosaic.read_consistency = strong")
	for _, sql := range []string{"select k, v from behind", "select * from behind"} {
		told := func(c *pgx.Conn) (types []uint32, rows int) {
			all, err := c.PgConn().Exec(t.Context(), sql).ReadAll()
			if err != nil || len(all) != 1 {
				t.Fatalf("%s: %v %v", sql, all, err)
			}
			for _, f := range all[0].FieldDescriptions {
				types = append(types, f.DataTypeOID)
			}
			return types, len(all[0].Rows)
		}
		const int4, text = 23, 25
		if types, rows := told(there); rows != 5 || !slices.Equal(types, []uint32{int4, int4}) {
			t.Fatalf("%s: a replica that is behind tells %v and %d rows", sql, types, rows)
		}
		want := []uint32{int4, text, int4}
		if types, rows := told(c); rows != 5 || !slices.Equal(types, want[:len(types)]) || len(types) < 2 {
			t.Errorf("%s: the primaries tell %v and %d rows", sql, types, rows)
		}
	}
}

// A statement of the simple protocol that nobody has run before tells its columns as it runs, where its rows are only passed on: they are what they are
// when they are known, of one shard's rows too that is not home, and so are its errors.
func TestColumnsThatARunTells(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "create type told_mood as enum ('sad', 'glad')")
	mustExec(t, c, "create table told (k int primary key, m told_mood, a told_mood[], v numeric(9,2))")
	d.adminExec(t, "CREATE GROUP told IN shop KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.told IN GROUP told KEY (k)")
	defer func() {
		mustExec(t, c, "drop table told")
		mustExec(t, c, "drop function told_boom; drop type told_mood")
		d.adminExec(t, "DROP GROUP told IN shop")
	}()
	for i := range 30 {
		mustExec(t, c, fmt.Sprintf("insert into told values (%d, 'glad', '{sad,glad}', %d / 7.0)", i, i))
	}
	mustExec(t, c, "create function told_boom(int) returns int immutable language plpgsql as $$begin raise notice 'before'; raise exception 'boom %', $1; end$$")

	pc, err := pgconn.Connect(t.Context(), d.shopDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close(context.Background()) }()
	run := func(sql string) (fields []pgconn.FieldDescription, rows []string, _ error) {
		all := pc.Exec(t.Context(), sql)
		for all.NextResult() {
			one := all.ResultReader()
			fields = append(fields, one.FieldDescriptions()...)
			for one.NextRow() {
				rows = append(rows, fmt.Sprintf("%q", one.Values()))
			}
			_, _ = one.Close()
		}
		err := all.Close()
		slices.Sort(rows)
		return fields, rows, err
	}
	for i, sql := range []string{
		"select k, m, a, v from told where v > %d - 100",
		"select k, m, a, v from told where k in (3, 4, 5) and v > %d - 100", // some shards, home among them or not
		"select * from told where v > 1000 + %d",
		"select from told where v > %d - 100",
		"select k as x, k + %d as x from told limit 2",
	} {
		told, rows, err := run(fmt.Sprintf(sql, i))
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		known, again, err := run(fmt.Sprintf(sql, i))
		if err != nil || !slices.EqualFunc(told, known, func(a, b pgconn.FieldDescription) bool { return a == b }) {
			t.Errorf("%s: columns %v, then %v %v", sql, told, known, err)
		}
		if len(rows) != len(again) || i < 3 && !slices.Equal(rows, again) {
			t.Errorf("%s: rows %v, then %v", sql, rows, again)
		}
		d, err := pc.Prepare(t.Context(), "", fmt.Sprintf(sql, i), nil)
		if err != nil || len(d.Fields) != len(told) {
			t.Fatalf("%s: %v %v", sql, d, err)
		}
		for j, f := range d.Fields {
			if f != told[j] {
				t.Errorf("%s: a Describe tells %v, the run told %v", sql, f, told[j])
			}
		}
	}
	for _, sql := range []string{"select told_boom(1), k from told", "begin; select told_boom(2) from told"} {
		_, _, err := run(sql)
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != "P0001" {
			t.Errorf("%s: %v, want P0001", sql, err)
		}
	}
	if _, _, err := run("rollback; select nosuch, k from told where k > 0"); err == nil || err.(interface{ SQLState() string }).SQLState() != "42703" {
		t.Errorf("an unknown column: %v", err)
	}
	if _, rows, err := run("select k from told where v < $1"); err == nil {
		t.Errorf("a parameter of no value gave %v", rows)
	}
}
