package main

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// A view over a reference table is home's, and PostgreSQL writes through it: what is written so would be in one copy only.
func TestCopiesAreNotWrittenThroughViews(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "through")
	for _, sql := range []string{
		"insert into codes values ('a'), ('b')", "create view plain as select code from codes", "create view upon as select code from plain where code > ''", "create temp view passing as select code from codes",
		"create table homely (a text)", "create view known as select a from homely where a in (select code from codes)", "create table noted (a text)",
		"create function note() returns trigger language plpgsql as $$ begin insert into upon values (new.a); return new; end $$", "create trigger note before insert on noted for each row execute function note()",
		"create function add_code(text) returns void language sql as 'insert into plain values ($1)'",
	} {
		mustExec(t, c, sql)
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		for _, sql := range []string{
			"insert into plain values ('x')", "update upon set code = 'x' where code = 'a'", "delete from passing", "with w as (delete from upon returning code) select * from w", "explain analyze delete from plain",
			"insert into noted values ('x')", "select add_code('x')", "merge into plain p using (values ('x')) v (x) on p.code = x when not matched then insert values (x)", "insert into plain select 'x' || k from parts",
		} {
			if got := says(t, c, sql, mode); got != "0A000" {
				t.Errorf("%s: %s", sql, got)
			}
		}
		for _, x := range [][2]string{{"select count(*) from upon", "2"}, {"select count(*) from passing", "2"}, {"insert into known values ('a')", "INSERT 0 1"}, {"delete from known", "DELETE 1"}} {
			if got := says(t, c, x[0], mode); got != x[1] {
				t.Errorf("%s: %s, want %s", x[0], got, x[1])
			}
		}
	}
	mustExec(t, c, "set pgmosaic.shard = 'through_s0'")
	if got := says(t, c, "insert into plain values ('x')", pgx.QueryExecModeExec); got != "0A000" {
		t.Errorf("on home alone: %s", got)
	}
	for i := range 3 {
		if n := queryOne[string](t, d.on(t, "through", i), "select string_agg(code, ',' order by code) from codes"); n != "a,b" {
			t.Errorf("shard %d has %s", i, n)
		}
	}
}
