package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/replication"
)

// replicaWorld is one shard with one replica that answers reads.
func replicaWorld(t *testing.T) (*demo, func() (replica, primary int64)) {
	d := newDemo(t, showcase.Options{Shards: 1, Replicas: 1, NoLoad: true})
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "create table things (id int primary key, n int not null); insert into things select i, i from generate_series(1, 1000) i; create sequence s")
	replicaAnswers(t, d, c, "select n from things where id = 1")
	return d, func() (int64, int64) {
		return d.Metrics.Node("shop", "s1", "s1-b").Statements.Load(), d.Metrics.Node("shop", "s1", "s1-a").Statements.Load()
	}
}

// Transactions that only read run on a replica, those that may write do not, and one goes on on the primary when it must.
func TestReadOnlyTransactionsRunOnReplicas(t *testing.T) {
	t.Parallel()
	d, count := replicaWorld(t)
	for _, mode := range []string{"", "?default_query_exec_mode=simple_protocol"} {
		c := connectTo(t, d.shopDSN()+mode)
		begin := func(o pgx.TxOptions) pgx.Tx {
			t.Helper()
			tx, err := c.BeginTx(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			return tx
		}
		for _, x := range []struct {
			o       pgx.TxOptions
			replica bool
		}{
			{pgx.TxOptions{AccessMode: pgx.ReadOnly}, true},
			{pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead}, true},
			{pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.Serializable}, false},
			{pgx.TxOptions{}, false},
			{pgx.TxOptions{AccessMode: pgx.ReadWrite}, false},
		} {
			for try := 1; ; try++ {
				tx := begin(x.o)
				r0, _ := count()
				var n int
				if err := tx.QueryRow(t.Context(), "select count(*) from things").Scan(&n); err != nil || n != 1000 {
					t.Fatal(n, err)
				}
				r1, _ := count()
				if err := tx.Commit(t.Context()); err != nil {
					t.Error(err)
				}
				if (r1 > r0) == x.replica {
					break
				}
				if !x.replica || try == 5 { // a busy machine's replica may be out for a moment
					t.Errorf("%+v%s: on a replica: %t, want %t", x.o, mode, r1 > r0, x.replica)
					break
				}
				replicaAnswers(t, d, c, "select count(*) from things")
			}
		}
		// SET TRANSACTION decides as well, before the first statement.
		replicaAnswers(t, d, c, "select n from things where id = 7")
		tx := begin(pgx.TxOptions{})
		r0, _ := count()
		if _, err := tx.Exec(t.Context(), "set transaction read only"); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := tx.QueryRow(t.Context(), "select n from things where id = 7").Scan(&n); err != nil || n != 7 {
			t.Fatal(n, err)
		}
		if r1, _ := count(); r1 == r0 {
			t.Errorf("SET TRANSACTION READ ONLY%s: not on a replica", mode)
		}
		_, err := tx.Exec(t.Context(), "update things set n = 0")
		wantCode(t, err, "25006")
		_ = tx.Rollback(t.Context())
		// A transaction may be made READ WRITE again before its first statement, in any of the ways there are.
		for _, sql := range []string{"set transaction read write", "set local transaction_read_only = off", "set transaction_read_only = off"} {
			tx = begin(pgx.TxOptions{AccessMode: pgx.ReadOnly})
			for _, sql := range []string{sql, "update things set n = n where id = 7"} {
				if _, err := tx.Exec(t.Context(), sql); err != nil {
					t.Errorf("%s%s: %v", sql, mode, err)
				}
			}
			_ = tx.Rollback(t.Context())
		}
		replicaAnswers(t, d, c, "select n from things where id = 8") // it is fresh again
		// What a replica must not run goes on on the primary, in the same transaction.
		tx = begin(pgx.TxOptions{AccessMode: pgx.ReadOnly})
		for _, sql := range []string{"select n from things where id = 8", "savepoint a", "select pg_advisory_xact_lock(7)", "select n from things where id = 9", "rollback to a"} {
			if _, err := tx.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		direct := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
		if queryOne[bool](t, direct, "select pg_try_advisory_xact_lock(7)") == (queryOne[int](t, direct, "select count(*) from pg_locks where locktype = 'advisory' and granted") > 0) {
			t.Error("the lock is not the primary's")
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
		// With one snapshot it cannot go on elsewhere: a lock there would be no lock.
		tx = begin(pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead})
		if _, err := tx.Exec(t.Context(), "select n from things where id = 8"); err != nil {
			t.Fatal(err)
		}
		_, err = tx.Exec(t.Context(), "select pg_advisory_xact_lock(7)")
		wantCode(t, err, "0A000")
		_ = tx.Rollback(t.Context())
		mustExec(t, c, "select 1")
	}
}

// A read that a replica refuses, or that loses its replica, is run again on the primary, and its client sees nothing of it.
func TestReadsAreRepeatedOnThePrimary(t *testing.T) {
	t.Parallel()
	d, _ := replicaWorld(t)
	setup := connectTo(t, d.shopDSN())
	mustExec(t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "create function public.draw(regclass) returns bigint language internal stable as 'nextval_oid'") // a lie: it is volatile
	mustExec(t, setup, "create function draws() returns bigint language sql stable as $$ select draw('s') $$")
	mustExec(t, setup, "create view drawn as select draws() as n")
	replicaAnswers(t, d, setup, "select count(*) from things")
	again := func() int64 { return d.Metrics.Database("shop").Repeated.Load() }
	for _, mode := range []string{"", "?default_query_exec_mode=simple_protocol", "?default_query_exec_mode=exec"} {
		c := connectTo(t, d.shopDSN()+mode)
		before := again()
		for range 3 {
			if n := queryOne[int64](t, c, "select draws()"); n < 1 {
				t.Error(n)
			}
		}
		if again() == before {
			t.Errorf("%q: nothing was repeated", mode)
		}
		// A pipeline is repeated as a whole, and answered once.
		b := &pgx.Batch{}
		for i := range 5 {
			b.Queue("select n from things where id = $1", i+1)
		}
		b.Queue("select draws()")
		res := c.SendBatch(t.Context(), b)
		for i := range 5 {
			var n int
			if err := res.QueryRow().Scan(&n); err != nil || n != i+1 {
				t.Errorf("%q: answer %d is %d: %v", mode, i, n, err)
			}
		}
		if err := res.Close(); err != nil {
			t.Errorf("%q: %v", mode, err)
		}
		mustExec(t, c, "select 1")
	}
	// The replica dies under reads of many clients.
	ctx, stop := context.WithCancel(t.Context())
	errs := make(chan error, 12)
	for i := range 12 {
		c := connectTo(t, d.shopDSN()+[]string{"", "?default_query_exec_mode=simple_protocol"}[i%2])
		go func() {
			for ctx.Err() == nil {
				var n int
				if err := c.QueryRow(context.Background(), "select count(*) from things a where a.id in (select b.id from things b where b.n % 2 = $1)", i%2).Scan(&n); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	answers := func(node string) int64 { return d.Metrics.Node("shop", "s1", node).Statements.Load() }
	for range 3 {
		before := answers("s1-b")
		eventually(t, "the replica is read", func() bool { return answers("s1-b") >= before+50 })
		d.cluster.Node("s1-b").Kill()
		before = answers("s1-a")
		eventually(t, "the primary is read", func() bool { return answers("s1-a") >= before+50 })
		if err := d.cluster.Node("s1-b").Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	for range 12 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if d.Metrics.Node("shop", "s1", "s1-b").Reads[replication.ToReplica].Load() < 100 {
		t.Error("hardly anything was read from the replica")
	}
}

// Where no replica is fit a read may be refused instead; tokens of what was seen are read strictly.
func TestFallbackAndHorizon(t *testing.T) {
	t.Parallel()
	d, count := replicaWorld(t)
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "set pgmosaic.replica_fallback = error")
	r0, _ := count()
	if n := queryOne[int](t, c, "select n from things where id = 3"); n != 3 {
		t.Error(n)
	}
	if r1, _ := count(); r1 != r0+1 {
		t.Errorf("%d statements on the replica", r1-r0)
	}
	if err := d.cluster.Node("s1-b").PauseReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the replica is out", func() bool { return replicaRow(t, d, "s1-b")["eligible"] != true })
	_, err := c.Exec(t.Context(), "select n from things where id = 3")
	wantCode(t, err, "57P03")
	mustExec(t, c, "set pgmosaic.read_consistency = strong")
	mustExec(t, c, "select n from things where id = 3")
	mustExec(t, c, "reset pgmosaic.read_consistency; reset pgmosaic.replica_fallback")
	mustExec(t, c, "select n from things where id = 3")
	fresh := connectTo(t, d.shopDSN()) // what a transaction has seen counts before its end
	mustExec(t, fresh, "begin read only")
	mustExec(t, fresh, "select n from things where id = 3")
	if token := queryOne[string](t, fresh, "show pgmosaic.horizon"); !strings.HasPrefix(token, "s1:") {
		t.Errorf("token %q inside a transaction", token)
	}
	mustExec(t, fresh, "commit")
	token := queryOne[string](t, c, "show pgmosaic.horizon")
	if !strings.HasPrefix(token, "s1:") {
		t.Errorf("token %q", token)
	}
	other := connectTo(t, d.shopDSN()+"?options=-c%20pgmosaic.horizon%3D"+token)
	mustExec(t, other, "set pgmosaic.horizon = '"+token+"'")
	mustExec(t, other, "set pgmosaic.horizon = ''")
	mustExec(t, other, "set pgmosaic.horizon = 'nosuch:1:1:0/0'") // of another map: all up to now must be seen
	for _, bad := range []string{"s1", "s1:1:1", "s1:1:x:0/0", "s1:1:1:zz", "s1:1:1:0/0,", `"s1:1:1:0/0`, ":::", "s1:1:1:0/0:1"} {
		_, err := other.Exec(t.Context(), "set pgmosaic.horizon = '"+bad+"'")
		wantCode(t, err, "22023")
	}
	if _, err := pgx.Connect(t.Context(), d.shopDSN()+"?options=-c%20pgmosaic.horizon%3Dnonsense"); err == nil {
		t.Error("a token that cannot be read was taken at login")
	}
}

// What waits for a primary is bounded, can be cancelled, and goes when its client goes.
func TestWaitingForAPrimaryIsBounded(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 1, Replicas: 0, NoLoad: true})
	cfg := crashConfig(t, mapOf(d, "shop"))
	cfg.BufferRequests, cfg.BufferSize, cfg.Buffer = 2, 10<<10, config.Duration(5*time.Second)
	a := startApp(t, cfg)
	conns := make([]*pgx.Conn, 4)
	for i := range conns {
		conns[i] = connectTo(t, a.dsn())
		mustExec(t, conns[i], "select 1")
	}
	d.cluster.Node("s1-a").Kill()
	errs := make(chan error, 2)
	for i := range 2 {
		go func() { _, err := conns[i].Exec(context.Background(), "select 1"); errs <- err }()
	}
	waiting := func() int64 { n, _ := a.Engine.Waiting("shop", "s1"); return n }
	eventually(t, "two wait", func() bool { return waiting() == 2 })
	_, err := conns[2].Exec(t.Context(), "select 1")
	wantCode(t, err, "57P03")
	if n := waiting(); n != 2 || !strings.Contains(err.Error(), "failover_buffer_requests") { // it is told at once, not when their time is over
		t.Errorf("%d wait when the third was told: %v", n, err)
	}
	if err := conns[0].PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-errs, "57014")
	eventually(t, "one waits", func() bool { return waiting() == 1 })
	_, err = conns[2].Exec(t.Context(), "select '"+strings.Repeat("x", 20000)+"'") // there is a place, but not for so much
	wantCode(t, err, "57P03")
	if n := waiting(); n != 1 {
		t.Errorf("%d wait when the large one was told", n)
	}
	wantCode(t, <-errs, "57P03") // at the end of failover_buffer
	if err := d.cluster.Node("s1-a").Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range conns {
		eventually(t, "the session goes on", func() bool { _, err := c.Exec(t.Context(), "select 1"); return err == nil })
	}
	if n, bytes := a.Engine.Waiting("shop", "s1"); n != 0 || bytes != 0 {
		t.Errorf("%d still wait, with %d bytes", n, bytes)
	}
}
