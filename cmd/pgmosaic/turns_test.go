package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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

// Who has defined something and not ended holds up all other definitions of the database. They wait for as long as they want to, or a
// bounded time if they have not said, and are told whom for; and what ends sessions that idle in a transaction ends that wait.
func TestWhoHoldsUpDefinitionsIsNamed(t *testing.T) {
	t.Parallel()
	d, _ := temporaryWorld(t, "named")
	a := startApp(t, crashConfig(t, mapOf(d, "named")))
	a.Engine.Turns.Wait.Store(int64(50 * time.Millisecond))
	connect := func() *pgx.Conn { return connectTo(t, dsnFor("app", "app", a.Server.Addr(), "named")) }
	holder, c := connect(), connect()
	hold := func() {
		t.Helper()
		if _, err := holder.Exec(t.Context(), "begin; create function held() returns int language sql as 'select 1'", pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
	}
	held := func(via string) {
		t.Helper()
		for _, timeout := range []string{"0", "20ms"} {
			mustExec(t, c, "set lock_timeout = '"+timeout+"'")
			for _, sql := range []string{"create function other() returns int language sql as 'select 1'", "create type other as enum ('a')"} {
				_, err := c.Exec(t.Context(), sql)
				var pe *pgconn.PgError
				if !errors.As(err, &pe) || pe.Code != "55P03" || !strings.Contains(pe.Detail, fmt.Sprintf(via, holder.PgConn().PID())) || !strings.Contains(pe.Detail, "of user app") || !strings.Contains(pe.Detail, "idle in transaction") {
					t.Errorf("lock_timeout %s, %s: %v, %+v", timeout, sql, err, pe)
				}
				if got := queryOne[string](t, c, "show lock_timeout"); got != timeout {
					t.Errorf("lock_timeout is %s afterwards", got)
				}
			}
		}
	}
	hold()
	shown, err := a.Admin.Exec(t.Context(), "SHOW CLIENTS", false)
	if err != nil || !slices.ContainsFunc(shown.Rows, func(r []any) bool {
		return slices.Contains(r, any(int64(holder.PgConn().PID()))) || slices.Contains(r, any(holder.PgConn().PID()))
	}) {
		t.Errorf("SHOW CLIENTS does not list the holder by %d: %v, %v", holder.PgConn().PID(), shown, err)
	}
	held("client %d ")
	mustExec(t, holder, "rollback")
	for _, sql := range []string{"create function other() returns int language sql as 'select 1'", "begin", "create function another() returns int language sql as 'select 1'"} {
		mustExec(t, c, sql)
	}
	if got := queryOne[string](t, c, "show lock_timeout"); got != "20ms" {
		t.Errorf("in the transaction, lock_timeout is %s", got)
	}
	mustExec(t, c, "rollback")
	mustExec(t, c, "set lock_timeout = 0")
	mustExec(t, c, "begin")
	mustExec(t, c, "create function another() returns int language sql as 'select 1'")
	if got := queryOne[string](t, connectTo(t, d.cluster.Node("s1-a").DSN("named_0")), "select count(*)::text from pg_locks where relation = 'pgmosaic.turn'::regclass"); got == "0" {
		t.Error("no turn was taken")
	}
	if got := queryOne[string](t, c, "show lock_timeout"); got != "0" {
		t.Errorf("in the transaction, lock_timeout is %s", got)
	}
	mustExec(t, c, "rollback")

	// Without a bound of its own the next one gets its turn when the server has ended the session that idles.
	a.Engine.Turns.Wait.Store(int64(time.Minute))
	hold()
	mustExec(t, holder, "set local idle_in_transaction_session_timeout = '100ms'") // before, a slow machine would idle amid the definition
	mustExec(t, c, "create type other as enum ('a')")
	if _, err := holder.Exec(t.Context(), "commit"); err == nil {
		t.Error("the transaction that idled was committed")
	}
}
