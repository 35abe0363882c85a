package main

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/txn"
)

// What shows that the proxy writes a copy of a reference table holds in one transaction: seen there and sent again, it writes nothing, not even
// from a server process that has the same id.
func TestMarksHoldInOneTransaction(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "replayed")
	secret, err := (&txn.Secrets{}).Of(t.Context(), "replayed", txn.Shard{Whose: anybodys, Name: "replayed_s0", DSN: d.cluster.Node("s1-a").DSN("replayed_0")})
	if err != nil {
		t.Fatal(err)
	}
	app := connectTo(t, d.asApp("s1-a", "replayed_0"))
	turn := func() (transaction string) {
		t.Helper()
		sql, params := secret.Turn(txn.TurnOf("public.codes"), app.PgConn().PID())
		r := app.PgConn().ExecParams(t.Context(), sql, params, nil, nil, nil).Read()
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		return string(r.Rows[0][0])
	}
	const text = "insert into codes values ('seen' || clock_timestamp())"
	write := func(text string) string { t.Helper(); return says(t, app, text, pgx.QueryExecModeSimpleProtocol) }
	mustExec(t, app, "begin")
	mustExec(t, app, "savepoint a")
	transaction := turn()
	mustExec(t, app, "savepoint b")
	mark := secret.Marked(text, transaction, app.PgConn().PID())
	if got := write(mark); got != "INSERT 0 1" {
		t.Fatalf("the proxy's own: %s", got)
	}
	mustExec(t, app, "rollback to a")
	if again := turn(); again != transaction {
		t.Errorf("one transaction has the ids %s and %s", transaction, again)
	}
	if got := write(mark); got != "INSERT 0 1" {
		t.Fatalf("the proxy's own, behind a savepoint: %s", got)
	}
	mustExec(t, app, "commit")
	if got := write(mark); got != "0A000" {
		t.Errorf("after its transaction: %s", got)
	}
	mustExec(t, app, "begin")
	turn()
	if got := write(mark); got != "0A000" {
		t.Errorf("in another transaction: %s", got)
	}
	mustExec(t, app, "rollback")

	// What an older version has made gives no id: that is said, and mended by whoever brings the shard up to date.
	su := d.on(t, "replayed", 0)
	mustExec(t, su, "drop function pgmosaic.take_turn(text, bytea); drop function pgmosaic.take_turn(text, bytea, int)")
	mustExec(t, su, "create function pgmosaic.take_turn(name text, token bytea) returns void language plpgsql as 'begin end'")
	if queryOne[bool](t, su, txn.Complete) {
		t.Error("what an older version made is taken for complete")
	}
	if got := says(t, c, "insert into codes values ('older')", pgx.QueryExecModeExec); got != "55000" {
		t.Errorf("on a shard of an older version: %s", got)
	}
	mustExec(t, su, txn.Schema(0, 1))
	if got := says(t, c, "insert into codes values ('newer')", pgx.QueryExecModeExec); got != "INSERT 0 1" {
		t.Errorf("on a shard of this version: %s", got)
	}
}
