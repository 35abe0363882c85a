package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
)

// Transactions that wait for one another on different shards: the youngest is told of a deadlock, the others go on.
func TestDeadlockOverShards(t *testing.T) {
	t.Parallel()
	d := shop(t)
	k1, k2 := keysOn(t, d, 700000)
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "set lock_timeout = '10s'") // a failed test's transactions are open still
	mustExec(t, c, "insert into customers values ($1, 'a', 'x', 'DE', '2026-01-01'), ($2, 'b', 'x', 'DE', '2026-01-01')", k1, k2)
	defer mustExec(t, c, "delete from customers where customer_id in ($1, $2)", k1, k2)
	for _, stmt := range []string{
		"update customers set name = 'x' where customer_id = %d",
		"select name from customers where customer_id = %d for update",
		"update customers set name = name || 'y' where customer_id in (%d, 0) and customer_id > 5", // over both shards
	} {
		ringIsBroken(t, connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN()), stmt, k1, k2)
	}
}

// ringIsBroken has two sessions wait for one another by a statement for each of two keys: a, which is older, goes on.
func ringIsBroken(t *testing.T, a, b *pgx.Conn, stmt string, k1, k2 int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	mustExec(t, a, "begin")
	mustExec(t, a, fmt.Sprintf(stmt, k1))
	mustExec(t, b, "begin")
	mustExec(t, b, fmt.Sprintf(stmt, k2))
	done := make(chan error, 1)
	go func() {
		_, err := a.Exec(ctx, fmt.Sprintf(stmt, k2))
		done <- err
	}()
	_, err := b.Exec(ctx, fmt.Sprintf(stmt, k1))
	wantCode(t, err, "40P01")
	mustExec(t, b, "rollback")
	if err := <-done; err != nil {
		t.Fatalf("the older transaction: %v", err)
	}
	mustExec(t, a, "commit")
}

// twoCustomers makes a customer on each shard, for as long as the test lasts.
func twoCustomers(t *testing.T, d *demo, from int) (k1, k2 int) {
	k1, k2 = keysOn(t, d, from)
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "insert into customers values ($1, 'a', 'x', 'DE', '2026-01-01'), ($2, 'b', 'x', 'DE', '2026-01-01')", k1, k2)
	t.Cleanup(func() {
		if _, err := c.Exec(context.Background(), "delete from customers where customer_id in ($1, $2)", k1, k2); err != nil {
			t.Error(err)
		}
	})
	return k1, k2
}

// A transaction that begins with a long request is as old as that request's beginning.
func TestDeadlockOfALongBeginning(t *testing.T) {
	t.Parallel()
	d := shop(t)
	k1, k2 := twoCustomers(t, d, 740000)
	old, young := connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN())
	began := make(chan error, 1)
	go func() {
		_, err := old.PgConn().Exec(t.Context(), fmt.Sprintf("begin; update customers set name = 'x' where customer_id = %d; select pg_sleep(3) from customers where customer_id = %[1]d", k1)).ReadAll()
		began <- err
	}()
	eventually(t, "the long request is under way", func() bool {
		return queryOne[bool](t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "select exists (select from pg_stat_activity where datname = 'shop' and wait_event = 'PgSleep' and query like '%pg_sleep(3) from customers%')")
	})
	mustExec(t, young, "begin")
	mustExec(t, young, "update customers set name = 'y' where customer_id = $1", k2)
	if err := <-began; err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := young.Exec(t.Context(), "update customers set name = 'y' where customer_id = $1", k1)
		ended <- err
	}()
	if _, err := old.Exec(t.Context(), "update customers set name = 'x' where customer_id = $1", k2); err != nil {
		t.Errorf("the older transaction: %v", err)
	}
	wantCode(t, <-ended, "40P01")
	simply(t, old, "rollback")
	simply(t, young, "rollback")
}

// What comes behind the end of a transaction in the same message is as old as that end, whatever its session did before it.
func TestDeadlockBehindACommitInOneMessage(t *testing.T) {
	t.Parallel()
	d := shop(t)
	k1, k2 := twoCustomers(t, d, 750000)
	k3, _ := twoCustomers(t, d, 760000)
	update := func(by string, k int) string {
		return fmt.Sprintf("update customers set name = '%s' where customer_id = %d", by, k)
	}
	nodes := []*pgx.Conn{connectTo(t, d.cluster.Node("s1-a").DSN("shop")), connectTo(t, d.cluster.Node("s2-a").DSN("shop"))}
	waits := func(by string) {
		t.Helper()
		eventually(t, by+" waits", func() bool {
			return slices.ContainsFunc(nodes, func(c *pgx.Conn) bool {
				return queryOne[bool](t, c, "select exists (select from pg_locks l join pg_stat_activity a using (pid) where not l.granted and a.datname = 'shop' and a.query like $1)", "%name = '"+by+"'%")
			})
		})
	}
	for _, x := range []struct{ before, message, then string }{
		{"begin; select 1", "commit; begin; " + update("renewed", k1), update("renewed", k2)},
		{"begin; select 1", "rollback and chain; " + update("renewed", k1), update("renewed", k2)},
		{"begin; select 1", "commit; begin; " + update("renewed", k1) + "; " + update("renewed", k2), ""},
		{"begin; select 1", "commit; " + update("renewed", k1) + "; " + update("renewed", k2), ""},
		{"select 1", "begin; " + update("first", k3) + "; rollback; begin; " + update("renewed", k1) + "; " + update("renewed", k2), ""},
	} {
		renewed, older, holder := connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN())
		simply(t, renewed, x.before)
		simply(t, holder, "begin; "+update("holder", k3))
		during := strings.Contains(x.message, "'first'") // the other one begins when the message is on its way
		if !during {
			simply(t, older, "begin; "+update("older", k2))
		}
		ended := make(chan error, 1)
		go func() {
			_, err := renewed.PgConn().Exec(t.Context(), x.message).ReadAll()
			if err == nil && x.then != "" {
				_, err = renewed.PgConn().Exec(t.Context(), x.then).ReadAll()
			}
			ended <- err
		}()
		if during {
			waits("first")
			simply(t, older, "begin; "+update("older", k2))
		}
		simply(t, holder, "rollback")
		waits("renewed")
		if _, err := older.Exec(t.Context(), update("older", k1)); err != nil {
			t.Errorf("%s: the older transaction: %v", x.message, err)
		}
		wantCode(t, <-ended, "40P01")
		simply(t, older, "rollback")
		simply(t, renewed, "rollback")
	}
}

// A statement outside a transaction is as old as itself, whatever its session did before it.
func TestDeadlockWithAStatementOfItsOwn(t *testing.T) {
	t.Parallel()
	d := shop(t)
	k1, k2 := twoCustomers(t, d, 730000)
	for _, before := range []string{"select 1", "begin; commit"} {
		old, lone := connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN())
		simply(t, lone, before)
		mustExec(t, old, "begin")
		mustExec(t, old, "update customers set name = 'x' where customer_id = $1", k1)
		ended := make(chan error, 1)
		go func() {
			_, err := lone.Exec(t.Context(), "update customers set name = 'y' where customer_id in ($1, $2)", k1, k2)
			ended <- err
		}()
		eventually(t, "the statement waits", func() bool {
			return queryOne[bool](t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "select exists (select from pg_locks l join pg_stat_activity a using (pid) where not l.granted and a.datname = 'shop' and a.query like '%name = ''y''%')")
		})
		if _, err := old.Exec(t.Context(), "update customers set name = 'x' where customer_id = $1", k2); err != nil {
			t.Errorf("the older transaction: %v", err)
		}
		wantCode(t, <-ended, "40P01")
		simply(t, old, "rollback")
	}
}

// A transaction that has failed on one shard holds no locks on the others, although its client has not ended it yet.
func TestAFailedTransactionHoldsNoLocks(t *testing.T) {
	t.Parallel()
	d := shop(t)
	k1, k2 := keysOn(t, d, 720000)
	c, other := connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN())
	mustExec(t, c, "insert into customers values ($1, 'a', 'x', 'DE', '2026-01-01'), ($2, 'b', 'x', 'DE', '2026-01-01')", k1, k2)
	defer mustExec(t, c, "delete from customers where customer_id in ($1, $2)", k1, k2)
	mustExec(t, other, "set lock_timeout = '10s'")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
		for _, fails := range []string{"update customers set name = repeat('x', 1 / 0) where customer_id = %d", "update customers set name = (1 / (customer_id - %d))::text where customer_id > 719999"} {
			mustExec(t, c, "begin")
			for _, k := range []int{k1, k2} {
				if _, err := c.Exec(t.Context(), "update customers set name = 'lost' where customer_id = $1", mode, k); err != nil {
					t.Fatal(err)
				}
			}
			_, err := c.Exec(t.Context(), fmt.Sprintf(fails, k2), mode)
			wantCode(t, err, "22012")
			for _, k := range []int{k1, k2} {
				mustExec(t, other, "update customers set name = 'kept' where customer_id = $1", k)
			}
			_, err = c.Exec(t.Context(), "select 1", mode)
			wantCode(t, err, "25P02")
			mustExec(t, c, "rollback")
			if n := queryOne[int](t, c, "select count(*) from customers where customer_id in ($1, $2) and name = 'kept'", k1, k2); n != 2 {
				t.Errorf("%d rows are as the other left them", n)
			}
		}
	}
	mustExec(t, c, "begin") // a savepoint brings it back, with what it had
	mustExec(t, c, "update customers set name = 'back' where customer_id = $1", k1)
	mustExec(t, c, "savepoint s")
	_, err := c.Exec(t.Context(), "update customers set name = repeat('x', 1 / 0) where customer_id = $1", k2)
	wantCode(t, err, "22012")
	mustExec(t, c, "rollback to s")
	mustExec(t, c, "update customers set name = 'back' where customer_id = $1", k2)
	mustExec(t, c, "commit")
	if n := queryOne[int](t, c, "select count(*) from customers where customer_id in ($1, $2) and name = 'back'", k1, k2); n != 2 {
		t.Errorf("%d rows are back", n)
	}
}

// A ring of waits that goes through clients of two processes is found by both, and broken by the one whose client is the youngest.
func TestDeadlockOverProcesses(t *testing.T) {
	t.Parallel()
	d := shop(t)
	addrs := [2]string{freeAddress(t), freeAddress(t)}
	doc, err := json.Marshal(d.Catalog.Current().Document)
	if err != nil {
		t.Fatal(err)
	}
	var apps [2]*app
	for i := range apps {
		apps[i] = small(t, d, 2, func(c *config.Config) {
			c.PeerID, c.PeerListen, c.PeerKey = i+1, addrs[i], "0123456789 shared"
			c.Peers = []config.Peer{{ID: 2 - i, Address: addrs[1-i]}}
			if err := os.WriteFile(c.Store, doc, 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
	if shown := fmt.Sprint(apps[0].cfg.Settings()); strings.Contains(shown, "shared") {
		t.Error("SHOW CONFIG shows the key")
	}
	k1, k2 := keysOn(t, d, 710000)
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "set lock_timeout = '10s'") // a failed test's transactions are open still
	mustExec(t, c, "insert into customers values ($1, 'a', 'x', 'DE', '2026-01-01'), ($2, 'b', 'x', 'DE', '2026-01-01')", k1, k2)
	defer mustExec(t, c, "delete from customers where customer_id in ($1, $2)", k1, k2)
	for _, older := range []int{0, 1} {
		ringIsBroken(t, connectTo(t, apps[older].dsn()), connectTo(t, apps[1-older].dsn()), "update customers set name = 'x' where customer_id = %d", k1, k2)
	}
}

// Two clients that wait for one another again and again, but never at the same time, look like a ring to who asks one shard after
// the other. They are left alone. The same waits, once they go on, are a deadlock.
func TestWaitsThatCameAndWentAreNoDeadlock(t *testing.T) {
	t.Parallel()
	d := shop(t)
	type side struct{ holder, waiter, watch *pgx.Conn }
	var sides [2]side
	var shards []txn.Shard
	clients := map[txn.Server]uint32{}
	for i, name := range []string{"s1", "s2"} {
		dsn := d.cluster.Node(name + "-a").DSN("shop")
		shards = append(shards, txn.Shard{Whose: anybodys, Name: name, Node: name + "-a", DSN: dsn})
		sides[i] = side{connectTo(t, dsn), connectTo(t, dsn), connectTo(t, dsn)}
		clients[txn.Server{Shard: name, PID: sides[i].holder.PgConn().PID()}] = uint32(1 + i)
		clients[txn.Server{Shard: name, PID: sides[i].waiter.PgConn().PID()}] = uint32(2 - i)
	}
	const lock = 77123
	var waiting [2]chan error
	wait := func() { // on each side the waiter waits for its holder
		for i, s := range sides {
			mustExec(t, s.holder, "begin")
			mustExec(t, s.holder, "select pg_advisory_xact_lock($1)", lock)
			waiting[i] = make(chan error, 1)
			go func() {
				_, err := s.waiter.Exec(t.Context(), "select pg_advisory_xact_lock($1)", lock)
				waiting[i] <- err
			}()
			eventually(t, "the waiter waits", func() bool {
				return queryOne[int](t, s.watch, "select count(*) from pg_stat_activity where pid = $1 and wait_event_type = 'Lock'", s.waiter.PgConn().PID()) == 1
			})
		}
	}
	end := func() {
		for i, s := range sides {
			mustExec(t, s.holder, "commit")
			if err := <-waiting[i]; err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, standing := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		rounds, victims := 0, 0
		wait()
		err := (&txn.Deadlocks{
			Shards: func() [][]txn.Shard { return [][]txn.Shard{shards} },
			Suspect: func() bool {
				if rounds++; rounds == 6 {
					cancel()
				} else if !standing {
					end()
					wait()
				}
				return true
			},
			Client:  func(_ int, shard string, pid uint32) uint32 { return clients[txn.Server{Shard: shard, PID: pid}] },
			Younger: func(a, b uint32) bool { return a > b },
			Cancel:  func(uint32) { victims++ },
		}).Run(ctx, 20*time.Millisecond, func(err error) { t.Error(err) })
		cancel()
		end()
		if err != nil || rounds != 6 || standing != (victims > 0) {
			t.Errorf("standing %v: %d victims in %d rounds: %v", standing, victims, rounds, err)
		}
	}
}
