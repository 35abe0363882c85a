package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// unresolved is a proxy over a database of its own, on these nodes, whose resolver does not come.
func unresolved(t *testing.T, d *demo, name string, nodes ...*cluster.Node) (*app, *taps) {
	t.Helper()
	doc, ts := crashWorld(t, d, name, nodes)
	t.Cleanup(func() { d.forget(t, name) })
	cfg := crashConfig(t, doc)
	cfg.Resolve = config.Duration(time.Hour)
	return startApp(t, cfg), ts
}

// What was acknowledged is there, too, for who has a server of the shard already, in a transaction or for the session.
func TestDecidedCommitIsFinishedForWhoHasAServer(t *testing.T) {
	t.Parallel()
	d := shop(t)
	one, two := d.cluster.Node("s1-a"), d.cluster.Node("s2-a")
	a, ts := unresolved(t, d, "owedto", one, two, one)
	a.Engine.SettleWithin = time.Millisecond
	a.Engine.Settle = func(context.Context, string, string) (bool, error) { return false, errors.New("nobody knows") }
	dsn := dsnFor("app", "app", a.Server.Addr(), "owedto")
	c := connectTo(t, dsn)
	for i, begin := range []string{"begin", "create temporary table mine (n int)"} {
		reader := connectTo(t, dsn)
		mustExec(t, reader, begin)
		const count = "select count(*) from moves where shard = 0"
		if n := queryOne[int](t, reader, count); n != i {
			t.Errorf("%s: %d rows before", begin, n)
		}
		ts.arm(step{"commit prepared", 0}, before, func(int) bool { return false })
		for _, sql := range []string{"begin", fmt.Sprintf("insert into moves values (1, %d)", i), fmt.Sprintf("insert into moves values (0, %d)", i), "commit"} {
			mustExec(t, c, sql)
		}
		if n := queryOne[int](t, reader, count); n != i+1 {
			t.Errorf("%s: %d rows of what was acknowledged", begin, n)
		}
	}
}

// Who waits for what is to be finished first can be cancelled.
func TestPaymentsCanBeCancelled(t *testing.T) {
	t.Parallel()
	d := shop(t)
	one, two := d.cluster.Node("s1-a"), d.cluster.Node("s2-a")
	a, ts := unresolved(t, d, "impatient", one, two, one)
	a.Engine.SettleWithin = time.Millisecond
	a.Engine.Settle = func(context.Context, string, string) (bool, error) { return false, errors.New("nobody knows") }
	finish := a.Engine.FinishOn
	asked := make(chan bool, 9)
	a.Engine.FinishOn = func(ctx context.Context, _, _, _ string) error { // its shard is frozen
		asked <- true
		<-ctx.Done()
		return ctx.Err()
	}
	c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "impatient"))
	ts.arm(step{"commit prepared", 1}, before, func(int) bool { return false })
	for _, sql := range []string{"begin", "insert into moves values (0, 1)", "insert into moves values (1, 1)", "commit"} {
		mustExec(t, c, sql)
	}
	go func() {
		<-asked
		_ = c.PgConn().CancelRequest(context.Background())
	}()
	began := time.Now()
	_, err := c.Exec(t.Context(), "select count(*) from moves where shard = 1")
	if took := time.Since(began); pgCode(err) != "57014" || took > 3*time.Second {
		t.Errorf("it is told %v after %s", err, took)
	}
	a.Engine.FinishOn = finish
	eventually(t, "it is there", func() bool {
		var n int
		return c.QueryRow(t.Context(), "select count(*) from moves where shard = 1").Scan(&n) == nil && n == 1
	})
}

// What another process has finished meanwhile counts as written when this one finds it so: no replica may answer that was asked before.
func TestWhatOthersHaveFinishedIsWrittenNow(t *testing.T) {
	t.Parallel()
	d := shop(t)
	install := d.Catalog.Current().Install
	begun, done := 0, 0
	s := txn.Shard{Whose: anybodys, Name: "s1", DSN: d.cluster.Node("s1-a").DSN("shop"), Writes: func() func() { begun++; return func() { done++ } }}
	r := txn.Resolver{Install: install}
	if err := r.FinishOn(t.Context(), s, txn.GID(install, "s2")); err != nil || begun != 1 || done != 1 {
		t.Errorf("%v, begun %d, done %d times", err, begun, done)
	}
}
