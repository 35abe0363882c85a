package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// alikeOn fails unless the tables have the same rows on all shards of a database, and, with a plain connection, the rows that one
// PostgreSQL has.
func alikeOn(t *testing.T, d *demo, database, what string, one *pgx.Conn, tables ...string) {
	t.Helper()
	var shards []*pgx.Conn
	for i := range d.Catalog.Current().Databases[database].Shards {
		c := d.on(t, database, i)
		defer c.Close(t.Context())
		shards = append(shards, c)
	}
	for _, n := range tables {
		var all []string
		for _, c := range shards {
			all = append(all, queryOne[string](t, c, "select coalesce(string_agg(x::text, E'\n' order by x::text), '') from "+n+" x"))
		}
		want := all[0]
		if one != nil {
			want = queryOne[string](t, one, "select coalesce(string_agg(x::text, E'\n' order by x::text), '') from "+n+" x")
		}
		for i, s := range all {
			if s != want {
				t.Errorf("%s: %s on shard %d holds\n%.300s\nwant\n%.300s", what, n, i, s, want)
			}
		}
	}
}

// A database of one shard, and one that has one again, writes its reference tables; a table that goes home keeps no trigger of ours, also
// if its owner has disabled it.
func TestReferenceTablesOfOneShard(t *testing.T) {
	t.Parallel()
	d := shop(t)
	d.adminExec(t, "CREATE DATABASE single")
	t.Cleanup(func() { d.forget(t, "single") })
	for i, node := range []string{"s1-a", "s2-a"} {
		freshDatabase(t, d.cluster.Node(node), fmt.Sprintf("single_%d", i))
	}
	shard := func(i int, node string) string {
		return fmt.Sprintf("CREATE SHARD single_s%d IN single NODE '%s' NAME single_n%d", i, d.cluster.Node(node).DSN(fmt.Sprintf("single_%d", i)), i)
	}
	d.adminExec(t, shard(0, "s1-a"))
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "single"))
	mustExec(t, c, "create table codes (k int primary key)")
	d.adminExec(t, "DISTRIBUTE TABLE single.public.codes AS REFERENCE")
	write := func(what string, k int) {
		t.Helper()
		for _, sql := range []string{fmt.Sprintf("insert into codes values (%d)", k), "update codes set k = k", "delete from codes where k = -1"} {
			if _, err := c.Exec(t.Context(), sql); err != nil {
				t.Errorf("%s: %s: %v", what, sql, err)
			}
		}
		if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(fmt.Sprintf("%d\n", 100+k)), "copy codes from stdin"); err != nil {
			t.Errorf("%s: copy: %v", what, err)
		}
		alikeOn(t, d, "single", what, nil, "codes")
	}
	write("one shard", 1)
	d.adminExec(t, shard(1, "s2-a"))
	write("two", 2)
	d.adminExec(t, "DROP SHARD single_s1 IN single")
	write("one again", 3)
	mustExec(t, c, "alter table codes disable trigger all")
	d.adminExec(t, "UNDISTRIBUTE TABLE single.public.codes")
	if n := queryOne[int](t, d.on(t, "single", 0), "select count(*) from pg_trigger where tgname like 'pgmosaic%' and tgname <> 'pgmosaic_kept'"); n != 0 {
		t.Errorf("%d triggers of ours are left", n)
	}
	mustExec(t, c, "alter table codes enable trigger all")
	if _, err := c.Exec(t.Context(), "insert into codes values (55)"); err != nil {
		t.Error(err)
	}
}
