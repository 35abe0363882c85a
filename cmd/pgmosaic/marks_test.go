package main

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// What copies are shown with a statement that writes all of them is of no use to who has seen it on a server and sends it again.
func TestMarksAreNotSentAgain(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "marks")
	mustExec(t, c, "create table codes (code text)")
	d.adminExec(t, "DISTRIBUTE TABLE marks.public.codes AS REFERENCE")
	for _, sql := range []string{"create function pg_temp.hid(a int, b int) returns int language plpgsql as $$ begin execute 'insert into public.co' || 'des values (''one copy'')'; return a; end $$", "create operator pg_temp.<~> (function = pg_temp.hid, leftarg = int, rightarg = int)"} {
		mustExec(t, c, sql)
	}
	mustExec(t, c, "begin")
	mustExec(t, c, "savepoint s")
	if got := says(t, c, "insert into codes values (1 operator(pg_temp.<~>) 2)", pgx.QueryExecModeExec); got != "3F000" { // another shard has no such operator
		t.Fatal(got)
	}
	app := connectTo(t, d.asApp("s1-a", "marks_0"))
	seen := queryOne[string](t, app, "select query from pg_stat_activity where query like 'insert into codes%pgmosaic:%' and datname = 'marks_0'")
	mustExec(t, c, "rollback to s")
	mustExec(t, c, "create temp table codes (code text)")
	mustExec(t, c, "savepoint s")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeDescribeExec} {
		if got := says(t, c, seen, mode); got != "42501" {
			t.Errorf("%s: %s", mode, got)
		}
		mustExec(t, c, "rollback to s")
	}
	if got := says(t, c, "select 1; "+seen, pgx.QueryExecModeSimpleProtocol); got != "42501" {
		t.Errorf("behind another: %s", got)
	}
	mustExec(t, c, "rollback to s")
	if got := says(t, c, "select '/* pgmosaic:x */'", pgx.QueryExecModeExec); got != "/* pgmosaic:x */" {
		t.Error(got)
	}
	mustExec(t, c, "commit")
	alikeOn(t, d, "marks", "a replayed mark", nil, "public.codes")
}
