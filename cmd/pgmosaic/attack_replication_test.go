//go:build attack

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// replicaSays waits until SHOW REPLICAS gives a node a reason with some words, and not a word that it may be read.
func replicaSays(t *testing.T, d *demo, node, words string) {
	t.Helper()
	why := ""
	defer func() {
		if t.Failed() {
			t.Logf("%s: %q", node, why)
		}
	}()
	eventually(t, node+": "+words, func() bool {
		r := replicaRow(t, d, node)
		why, _ = r["reason"].(string)
		return r["eligible"] == false && strings.Contains(why, words)
	})
}

func follow(t *testing.T, d *demo, n, of *cluster.Node) {
	t.Helper()
	if err := errors.Join(n.Set("primary_conninfo", conninfo(d, of, n.Name)), n.Exec(t.Context(), "postgres", "select pg_reload_conf()")); err != nil {
		t.Fatal(err)
	}
	up := connectTo(t, of.DSN("postgres"))
	eventually(t, n.Name+" follows "+of.Name, func() bool {
		return queryOne[int](t, up, "select count(*) from pg_stat_replication where application_name = $1 and state = 'streaming'", n.Name) == 1
	})
}

func readsOf(d *demo, node string) int64 {
	return d.Metrics.Node("shop", "s1", node).Reads[replication.ToReplica].Load()
}

// levels opens a session for each level.
func levels(t *testing.T, dsn string, names ...string) map[string]*pgx.Conn {
	out := map[string]*pgx.Conn{}
	for _, l := range names {
		out[l] = connectTo(t, dsn)
		mustExec(t, out[l], "set pgmosaic.read_consistency = "+l)
		mustExec(t, out[l], "set pgmosaic.max_staleness = '500ms'")
	}
	return out
}

// A replica of a replica is as fresh as it is, whatever the one above does, and follows it to a new timeline. Then: a replica that stays
// behind a dead primary; two that are promoted by accident, to the same timeline, with a replica behind the loser.
func TestAttackWrongReplicas(t *testing.T) {
	d := newDemo(t, showcase.Options{Shards: 1, Replicas: 4, NoLoad: true})
	a, b, c, e, f := d.cluster.Node("s1-a"), d.cluster.Node("s1-b"), d.cluster.Node("s1-c"), d.cluster.Node("s1-d"), d.cluster.Node("s1-e")
	w := connectTo(t, d.shopDSN())
	mustExec(t, w, "create table marks (n int not null)")
	mustExec(t, w, "insert into marks values (0)")
	mustExec(t, w, "insert into countries values ('DE', 'Germany')")
	for i := 1; i <= 8; i++ {
		mustExec(t, w, "insert into customers values ($1, '0', 'x', 'DE', '2026-01-01')", i)
	}
	follow(t, d, c, b) // c is behind b, e behind c
	follow(t, d, e, c)
	pairs := func(what string) {
		t.Helper()
		errs := make(chan error, 4)
		for n := range 4 {
			go func() { errs <- writeThenRead(t.Context(), d.shopDSN(), n+1, 100) }()
		}
		for range 4 {
			if err := <-errs; err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	for _, n := range []*cluster.Node{b, c, e} {
		eventually(t, n.Name+" may be read", func() bool { return replicaRow(t, d, n.Name)["eligible"] == true })
	}
	pairs("a chain of replicas")
	t.Logf("a chain of replicas: %d reads of the last", readsOf(d, "s1-d"))
	if err := b.PauseReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
	pairs("the first of the chain is paused")
	// A replica's lag is measured against the primary, not against the one that it follows.
	if err := errors.Join(b.ResumeReplay(t.Context()), b.Set("recovery_min_apply_delay", "1h"), b.Exec(t.Context(), "postgres", "select pg_reload_conf()")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.StopImmediate(), b.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	pairs("the first of the chain is an hour behind")
	if err := errors.Join(b.Set("recovery_min_apply_delay", "0"), b.Exec(t.Context(), "postgres", "select pg_reload_conf()")); err != nil {
		t.Fatal(err)
	}
	follow(t, d, f, a) // it stays behind a
	synchronous(t, a, "s1-b")
	bounded := levels(t, d.shopDSN(), "strong", "causal", "session", "bounded", "eventual")
	mustExec(t, w, "update marks set n = 1")
	a.Kill()
	if err := b.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	replicaSays(t, d, f.Name, "on timeline 1, the primary is on 2")
	eventually(t, "the chain follows", func() bool { return replicaRow(t, d, e.Name)["eligible"] == true })
	pairs("after the failover")
	mustExec(t, w, "update marks set n = 2")
	time.Sleep(time.Second) // more than the bound
	stray := readsOf(d, f.Name)
	for level, x := range bounded {
		for range 20 {
			if n := queryOne[int](t, x, "select n from marks"); n != 2 && level != "eventual" {
				t.Fatalf("%s: read %d", level, n)
			}
		}
	}
	if readsOf(d, f.Name) != stray {
		t.Error("a replica of a dead timeline was read")
	}
	// The old primary is back, with its replica behind it, and both think that all is well.
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	replicaSays(t, d, a.Name, "an old primary, on timeline 1")
	if err := a.Exec(t.Context(), "postgres", "alter system set synchronous_standby_names = ''; "); err != nil {
		t.Fatal(err)
	}
	mustExec(t, connectTo(t, a.DSN("postgres")), "select pg_reload_conf()")
	mustExec(t, connectTo(t, a.DSN("shop")), "update marks set n = 77")
	for level, x := range bounded {
		for range 20 {
			if n := queryOne[int](t, x, "select n from marks"); n != 2 {
				t.Fatalf("%s: read %d beside a zombie", level, n)
			}
		}
	}
	a.Kill()
	f.Kill()
	// b dies, c is promoted, and e is promoted by accident: both begin timeline 3. f is made anew, behind e.
	if err := f.Forget(); err != nil {
		t.Fatal(err)
	}
	g, err := d.cluster.Replica(t.Context(), b, "s1-f", 0)
	if err != nil {
		t.Fatal(err)
	}
	follow(t, d, g, e)
	d.adminExec(t, "ALTER SHARD s1 IN shop ADD NODE '"+g.DSN("shop")+"' NAME \"s1-f\"")
	follow(t, d, e, b)
	eventually(t, "the replica behind e may be read", func() bool { return replicaRow(t, d, "s1-f")["eligible"] == true })
	b.Kill()
	if err := errors.Join(c.Promote(t.Context()), e.Promote(t.Context())); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two primaries are fenced", func() bool { return d.adminExec(t, "SHOW SHARDS WHERE shard = 's1'")[0][5] == "fenced" })
	d.adminExec(t, `ALTER SHARD s1 IN shop SET PRIMARY "s1-c"`)
	eventually(t, "it is served", func() bool { return d.adminExec(t, "SHOW SHARDS WHERE shard = 's1'")[0][4] == "s1-c" })
	mustExec(t, w, "update marks set n = 3")
	x := connectTo(t, e.DSN("shop"))
	mustExec(t, x, "update marks set n = 88")
	mustExec(t, x, "create table filler as select i from generate_series(1, 20000) i") // it is ahead by far
	onG := connectTo(t, g.DSN("shop"))
	eventually(t, "the loser's replica has the loser's rows", func() bool { return queryOne[int](t, onG, "select n from marks") == 88 })
	replicaSays(t, d, "s1-f", "have begun timeline 3")
	for level, x := range bounded {
		for range 20 {
			if n := queryOne[int](t, x, "select n from marks"); n != 3 {
				t.Fatalf("%s: read %d, of the primary that lost", level, n)
			}
		}
	}
	// A process that starts now sees only that the loser's replica has what the primary has not.
	mustExec(t, x, "select pg_switch_wal()")
	other := otherProcess(t, d)
	o := levels(t, other.dsn(), "causal", "session", "bounded", "eventual")
	for range 50 {
		for level, x := range o {
			if n := queryOne[int](t, x, "select n from marks"); n != 3 {
				t.Fatalf("%s, a process that has just started: read %d, of the primary that lost", level, n)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A replica's name leads to several servers, as a load balancer's does: the monitor watches one of them, reads arrive at another that is
// paused. What a level promises is kept.
func TestAttackReplicasBehindOneName(t *testing.T) {
	d := newDemo(t, showcase.Options{Shards: 1, Replicas: 2, NoLoad: true})
	b, c := d.cluster.Node("s1-b"), d.cluster.Node("s1-c")
	at := func(n *cluster.Node) string { return fmt.Sprintf("127.0.0.1:%d", n.Port) }
	via := newMiddleman(t, at(b))
	w := connectTo(t, d.shopDSN())
	mustExec(t, w, "create table marks (n int not null)")
	mustExec(t, w, "insert into marks values (0)")
	d.adminExec(t, `ALTER SHARD s1 IN shop DROP NODE "s1-c"`)
	d.adminExec(t, `ALTER SHARD s1 IN shop ALTER NODE "s1-b" '`+through(b, via.Addr(), "shop")+"'")
	eventually(t, "the replica may be read", func() bool { return replicaRow(t, d, "s1-b")["eligible"] == true })
	if err := c.PauseReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
	via.set(func() { via.to = at(c) })
	xs := levels(t, d.shopDSN(), "causal", "session", "bounded")
	for i := 1; i <= 8; i++ {
		mustExec(t, w, "update marks set n = $1", i)
		mustExec(t, xs["session"], "update marks set n = $1", i)
		time.Sleep(900 * time.Millisecond) // more than the bound and an interval; the monitor believes that all is there
		for level, x := range xs {
			for range 5 {
				if n := queryOne[int](t, x, "select n from marks"); n != i {
					t.Fatalf("%s: read %d, not %d", level, n, i)
				}
			}
		}
	}
	if err := c.ResumeReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := readsOf(d, "s1-b")
	eventually(t, "it is read again when it has everything", func() bool {
		queryOne[int](t, xs["bounded"], "select n from marks")
		return readsOf(d, "s1-b") > before
	})
}

// The servers of a standby crash, and its postmaster starts them anew: it is behind itself, at the same address, with the same start.
func TestAttackStandbyWhoseServersCrash(t *testing.T) {
	d := newDemo(t, showcase.Options{Shards: 1, Replicas: 1, NoLoad: true})
	w := connectTo(t, d.shopDSN())
	mustExec(t, w, "create table past (n int); insert into past values (0)")
	b := d.cluster.Node("s1-b")
	c, other := connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN())
	mustExec(t, c, "set pgmosaic.read_consistency = session")
	mustExec(t, other, "set pgmosaic.read_consistency = eventual")
	for _, n := range []string{"s1-a", "s1-b"} {
		time.Sleep(300 * time.Millisecond)
		if err := d.cluster.Node(n).Exec(t.Context(), "postgres", "checkpoint"); err != nil {
			t.Fatal(err)
		}
	}
	behind := 0
	for i := 1; i <= 4; i++ {
		eventually(t, "the replica is eligible", func() bool { return replicaRow(t, d, "s1-b")["eligible"] == true })
		mustExec(t, w, "update past set n = $1", i)
		eventually(t, "the session has read it from the replica", func() bool {
			before := readsOf(d, "s1-b")
			return queryOne[int](t, c, "select n from past") == i && readsOf(d, "s1-b") > before
		})
		victim, err := pgx.Connect(t.Context(), b.DSN("shop"))
		if err != nil {
			t.Fatal(err)
		}
		pid := queryOne[int](t, victim, "select pg_backend_pid()")
		if err := errors.Join(b.Set("recovery_min_apply_delay", "3s"), b.Exec(t.Context(), "postgres", "select pg_reload_conf()"), syscall.Kill(pid, syscall.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			if n := queryOne[int](t, other, "select n from past"); n < i {
				behind++
			}
			if got := queryOne[int](t, c, "select n from past"); got < i {
				t.Fatalf("round %d: the session saw %d, and before that %d", i, got, i)
			}
			time.Sleep(10 * time.Millisecond)
		}
		eventually(t, "it is up", func() bool {
			return errors.Join(b.Set("recovery_min_apply_delay", "0"), b.Exec(t.Context(), "postgres", "select pg_reload_conf()")) == nil
		})
	}
	t.Logf("the replica was behind itself in %d reads", behind)
}

// A standby cancels queries, and ends sessions, that are in the way of recovery. Reads are right all the same: run again on the primary,
// or, when rows have gone out already, ended with 40001.
func TestAttackRecoveryConflicts(t *testing.T) {
	d := newDemo(t, showcase.Options{Shards: 1, Replicas: 1, NoLoad: true})
	b := d.cluster.Node("s1-b")
	if err := errors.Join(b.Set("hot_standby_feedback", "off"), b.Set("max_standby_streaming_delay", "0"), b.Exec(t.Context(), "postgres", "select pg_reload_conf()")); err != nil {
		t.Fatal(err)
	}
	w := connectTo(t, d.shopDSN())
	mustExec(t, w, "create table churn (id int primary key, n int not null)")
	mustExec(t, w, "insert into churn select i, 0 from generate_series(1, 2000) i")
	direct := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			for _, sql := range []string{"update churn set n = n + 1", "vacuum (freeze, truncate) churn", "alter table churn alter n set statistics 100", "vacuum full churn"} {
				if _, err := direct.Exec(context.Background(), sql); err != nil {
					t.Error(err)
					return
				}
			}
			time.Sleep(30 * time.Millisecond)
		}
	})
	var reads, told atomic.Int64
	for n := range 8 {
		mode := []string{"", "?default_query_exec_mode=simple_protocol", "?default_query_exec_mode=exec"}[n%3]
		c := connectTo(t, d.shopDSN()+mode)
		mustExec(t, c, "set pgmosaic.read_consistency = "+[]string{"causal", "bounded", "session", "eventual"}[n%4])
		wg.Go(func() {
			for ctx.Err() == nil {
				var count, kinds int
				var err error
				if n%2 == 0 {
					err = c.QueryRow(context.Background(), "select count(*), count(distinct n) from (select id, n from churn, (select 1 from generate_series(1, 200)) x) y").Scan(&count, &kinds)
					count /= 200
				} else {
					err = pgx.BeginTxFunc(context.Background(), c, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
						for range 3 {
							if err := tx.QueryRow(context.Background(), "select count(*), count(distinct n) from churn").Scan(&count, &kinds); err != nil {
								return err
							}
							time.Sleep(10 * time.Millisecond)
						}
						return nil
					})
				}
				reads.Add(1)
				switch {
				case err != nil && pgCode(err) == "40001":
					told.Add(1)
				case err != nil:
					t.Errorf("session %d: %s: %v", n, pgCode(err), err)
					return
				case count != 2000 || kinds != 1:
					t.Errorf("session %d: %d rows, %d states", n, count, kinds)
					return
				}
			}
		})
	}
	time.Sleep(10 * time.Second)
	stop()
	wg.Wait()
	onB := connectTo(t, b.DSN("shop"))
	t.Logf("%d reads, %d told 40001, %d run again, %d of the replica; the standby counts %s", reads.Load(), told.Load(), d.Metrics.Database("shop").Repeated.Load(), readsOf(d, "s1-b"),
		queryOne[string](t, onB, "select c::text from pg_stat_database_conflicts c where datname = 'shop'"))
	if readsOf(d, "s1-b") == 0 || d.Metrics.Database("shop").Repeated.Load() == 0 {
		t.Error("nothing was tried")
	}
}
