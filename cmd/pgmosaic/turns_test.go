package main

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// No login can hold up writes of reference tables, definitions or the moving of tables: not by any advisory lock, nor by what it can do to
// the tables in which the proxy's own locks are.
func TestNobodyHoldsUpReferenceTables(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "turns")
	mustExec(t, c, "create table moved (k int primary key, v text)")
	mustExec(t, d.on(t, "turns", 0), "insert into pgmosaic.placed (relation, distribution, attempt, at) values ('moved', 'seen', 'seen', 'home')")
	var keys []string
	for _, name := range []string{"pgmosaic ddl", "pgmosaic public.codes", "pgmosaic codes", "table public.codes", "definitions", "seen"} {
		keys = append(keys, fmt.Sprintf("hashtext('%s')", name), fmt.Sprintf("hashtextextended('%s', 0)", name), fmt.Sprintf("0, hashtext('%s')", name), fmt.Sprintf("hashtext('%s'), 0", name))
	}
	through := connectTo(t, c.Config().ConnString())
	var straight []*pgx.Conn
	for i, node := range []string{"s1-a", "s2-a", "s1-a"} {
		straight = append(straight, connectTo(t, d.asApp(node, fmt.Sprintf("turns_%d", i))))
	}
	for _, a := range append(straight, through) {
		mustExec(t, a, "begin")
		for _, key := range keys {
			for _, f := range []string{"pg_advisory_lock", "pg_advisory_xact_lock", "pg_advisory_lock_shared", "pg_advisory_xact_lock_shared", "pg_try_advisory_lock"} {
				if a != through { // each on its own database
					mustExec(t, a, "select "+f+"("+key+")")
				}
			}
		}
		if a == through {
			for _, key := range keys { // others have them
				mustExec(t, a, "select pg_try_advisory_lock("+key+"), pg_try_advisory_xact_lock("+key+")")
			}
			mustExec(t, a, "commit")
			continue
		}
		mustExec(t, a, "savepoint s")
		if _, err := a.Exec(t.Context(), "prepare hold as update pgmosaic.turn set name = name; prepare look as select * from pgmosaic.turn for update", pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Error(err) // this takes the locks that parsing takes, and asks for no right
			mustExec(t, a, "rollback to s")
		}
		for _, sql := range []string{
			"lock table pgmosaic.turn", "lock table pgmosaic.turn in access share mode", "select pgmosaic.take_turn('table public.codes', null)", `select pgmosaic.take_turn('table public.codes', '\x00')`,
			"select name from pgmosaic.turn for update", "update pgmosaic.turn set name = name", "insert into pgmosaic.turn values ('table public.codes')", "delete from pgmosaic.holder", "select pgmosaic.shown('', '', '')",
		} {
			mustExec(t, a, "savepoint s")
			if _, err := a.Exec(t.Context(), sql); pgCode(err) != "42501" {
				t.Errorf("%s: %v", sql, err)
			}
			mustExec(t, a, "rollback to s")
		}
	}
	mustExec(t, c, "set lock_timeout = '3s'")
	for _, sql := range []string{
		"insert into codes values ('a')", "update codes set code = 'b'", "truncate codes", "create index on codes (code)", "alter table parts add column added int", "create table fresh (a int)",
		"begin; insert into codes values ('c'); alter table codes add column note text; commit",
	} {
		if _, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	d.adminExec(t, "VERIFY TABLE turns.public.codes")
	d.adminExec(t, "DISTRIBUTE TABLE turns.public.moved IN GROUP g KEY (k)")
	d.adminExec(t, "UNDISTRIBUTE TABLE turns.public.moved")

	// Who writes a reference table waits for who has written it and not ended yet, as long as it wants to.
	other := connectTo(t, c.Config().ConnString())
	mustExec(t, other, "begin")
	mustExec(t, other, "insert into codes values ('open')")
	mustExec(t, c, "set lock_timeout = '50ms'")
	if got := says(t, c, "insert into codes values ('waits')", pgx.QueryExecModeExec); got != "55P03" {
		t.Errorf("beside an open transaction: %s", got)
	}
	mustExec(t, other, "savepoint s")
	mustExec(t, other, "rollback")
	if got := says(t, c, "insert into codes values ('waits')", pgx.QueryExecModeExec); got != "INSERT 0 1" {
		t.Errorf("behind it: %s", got)
	}
	if got := says(t, c, "begin read only; insert into codes values ('x')", pgx.QueryExecModeSimpleProtocol); got != "25006" {
		t.Errorf("in a READ ONLY transaction: %s", got)
	}
	mustExec(t, c, "rollback")
}
