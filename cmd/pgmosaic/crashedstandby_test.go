package main

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// The servers of a standby crash, and its postmaster, which goes on, starts others: they may be behind what it has replayed when it was asked last.
func TestAStandbyWhoseServersCrashIsBehindWhatItHasSaid(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 1, Replicas: 1, NoLoad: true, Monitor: 4 * time.Second})
	w := connectTo(t, d.shopDSN())
	mustExec(t, w, "create table past (n int); insert into past values (0)")
	b := d.cluster.Node("s1-b")
	replayed(t, d, "s1-a", "s1-b")
	for _, n := range []string{"s1-a", "s1-b"} { // so that it does not fall behind the table's making
		if err := d.cluster.Node(n).Exec(t.Context(), "postgres", "checkpoint"); err != nil {
			t.Fatal(err)
		}
	}
	c := connectTo(t, d.shopDSN())
	for n := 1; n <= 5; n++ { // what it has written to its files it replays at once
		mustExec(t, w, "update past set n = $1", n)
		eventually(t, "the session has read it from the replica", func() bool {
			before := readsOfReplicas(d)
			return queryOne[int](t, c, "select n from past") == n && readsOfReplicas(d) > before
		})
		victim, err := pgx.Connect(t.Context(), b.DSN("shop"))
		if err != nil {
			t.Fatal(err)
		}
		pid := queryOne[int](t, victim, "select pg_backend_pid()")
		if err := errors.Join(b.Set("recovery_min_apply_delay", "1h"), b.Exec(t.Context(), "postgres", "select pg_reload_conf()"), syscall.Kill(pid, syscall.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		var has int
		eventually(t, "it is up again", func() bool {
			direct, err := pgx.Connect(t.Context(), b.DSN("shop"))
			if err != nil {
				return false
			}
			defer direct.Close(t.Context())
			return direct.QueryRow(t.Context(), "select n from past").Scan(&has) == nil
		})
		for range 50 {
			if got := queryOne[int](t, c, "select n from past"); got != n {
				t.Fatalf("%d is read, and before that %d", got, n)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if has < n {
			return
		}
		if err := errors.Join(b.Set("recovery_min_apply_delay", "0"), b.Exec(t.Context(), "postgres", "select pg_reload_conf()")); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the standby was never behind what it had said: nothing was tested")
}
