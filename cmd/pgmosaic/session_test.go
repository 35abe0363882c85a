package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
)

func itoa(i int) string { return strconv.Itoa(i) }

// keysOn finds a key on each of the two shards.
func keysOn(t testing.TB, d *demo, from int) (k1, k2 int) {
	t.Helper()
	for i := from; k1 == 0 || k2 == 0; i++ {
		if d.adminExec(t, "LOCATE KEY ("+itoa(i)+") OF shop.customers")[0][4] == "s1" {
			k1 = i
		} else {
			k2 = i
		}
	}
	return k1, k2
}

const insertCustomer = "insert into customers values ($1, $2, 'x', 'DE', '2026-01-01')"

func TestTransactionsOverShardsAreAtomic(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	k1, k2 := keysOn(t, d, 500000)
	count := func() int {
		t.Helper()
		return queryOne[int](t, c, "select count(*) from customers where customer_id in ($1, $2)", k1, k2)
	}
	ctx := t.Context()
	begin := func() pgx.Tx {
		tx, err := c.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	tx := begin()
	for _, k := range []int{k1, k2} {
		if _, err := tx.Exec(ctx, insertCustomer, k, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Rollback(ctx); err != nil || count() != 0 {
		t.Fatalf("rolled back: %v, %d rows", err, count())
	}
	tx = begin()
	_, _ = tx.Exec(ctx, insertCustomer, k1, "x")
	sp, err := tx.Begin(ctx) // a savepoint, before the second shard is reached
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sp.Exec(ctx, insertCustomer, k2, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := sp.Exec(ctx, insertCustomer, k2, "x"); err == nil {
		t.Fatal("the same key twice")
	}
	if _, err := tx.Exec(ctx, "select 1"); err == nil {
		t.Error("a failed transaction went on")
	} else {
		wantCode(t, err, "25P02")
	}
	if err := sp.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, insertCustomer, k2, "y"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil || count() != 2 {
		t.Fatalf("committed: %v, %d rows", err, count())
	}
	tx = begin()
	_, _ = tx.Exec(ctx, "delete from customers where customer_id in ($1, $2)", k1, k2)
	_, _ = tx.Exec(ctx, "select 1/0")
	if err := tx.Commit(ctx); !errors.Is(err, pgx.ErrTxCommitRollback) || count() != 2 {
		t.Errorf("COMMIT of a failed transaction: %v, %d rows", err, count())
	}
	mustExec(t, c, "delete from customers where customer_id in ($1, $2)", k1, k2)
	if count() != 0 {
		t.Error("the rows were not deleted")
	}
	for _, n := range []string{"s1-a", "s2-a"} {
		if left := queryOne[int](t, connectTo(t, d.cluster.Node(n).DSN("shop")), "select count(*) from pg_prepared_xacts"); left != 0 {
			t.Errorf("%d prepared transactions are left on %s", left, n)
		}
	}
	for _, iso := range []string{"repeatable read", "serializable"} {
		tx, err := c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.TxIsoLevel(iso)})
		if err != nil {
			t.Fatal(err)
		}
		_, err1 := tx.Exec(ctx, "select * from customers where customer_id = $1", k1)
		_, err2 := tx.Exec(ctx, "select * from customers where customer_id = $1", k2)
		if err1 != nil {
			t.Errorf("%s on one shard: %v", iso, err1)
		}
		wantCode(t, err2, "0A000")
		_ = tx.Rollback(ctx)
	}
	for _, how := range []string{"set default_transaction_isolation = 'repeatable read'", "set session characteristics as transaction isolation level serializable", ""} { // the session's, the role's
		if how == "" {
			mustExec(t, c, "alter role app set default_transaction_isolation = 'serializable'")
			defer func() {
				mustExec(t, c, "alter role app reset default_transaction_isolation")
				d.Pools.Reconnect("shop")
			}()
			d.Pools.Reconnect("shop")
			how = "select 1"
		}
		x := connectTo(t, d.shopDSN())
		mustExec(t, x, how)
		mustExec(t, x, "begin")
		_, err1 := x.Exec(ctx, "select * from customers where customer_id = $1", k1)
		_, err2 := x.Exec(ctx, "select * from customers where customer_id = $1", k2)
		if err1 != nil {
			t.Errorf("%s on one shard: %v", how, err1)
		}
		wantCode(t, err2, "0A000")
	}
}

func TestPipelineOverShardsIsOneTransaction(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	k1, k2 := keysOn(t, d, 600000)
	send := func(keys ...int) error {
		b := &pgx.Batch{}
		for _, k := range keys {
			b.Queue(insertCustomer, k, "batch")
		}
		b.Queue("select count(*) from customers where customer_id in ($1, $2)", k1, k2)
		return c.SendBatch(t.Context(), b).Close()
	}
	if err := send(k1, k2, k1); err == nil {
		t.Fatal("a pipeline with a duplicate key succeeded")
	} else {
		wantCode(t, err, "23505")
	}
	if n := queryOne[int](t, c, "select count(*) from customers where customer_id in ($1, $2)", k1, k2); n != 0 {
		t.Fatalf("%d rows of a failed pipeline are there", n)
	}
	if err := send(k1, k2); err != nil {
		t.Fatal(err)
	}
	if n := queryOne[int](t, c, "select count(*) from customers where customer_id in ($1, $2)", k1, k2); n != 2 {
		t.Fatalf("%d rows of a pipeline are there", n)
	}
	b := &pgx.Batch{}
	b.Queue("delete from customers where customer_id = $1", k1)
	b.Queue("selec nonsense")
	if err := c.SendBatch(t.Context(), b).Close(); err == nil {
		t.Fatal("nonsense succeeded")
	}
	if n := queryOne[int](t, c, "select count(*) from customers where customer_id = $1", k1); n != 1 {
		t.Error("a pipeline that failed to parse deleted a row")
	}
	mustExec(t, c, "delete from customers where customer_id in ($1, $2)", k1, k2)
}

// Raw pipelines, with a mistake of ours behind a statement that ran: it must be undone.
func TestPipelineErrorUndoesEarlierStatements(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	k1, _ := keysOn(t, d, 610000)
	b := &pgconn.Batch{}
	b.ExecParams(fmt.Sprintf("insert into customers values (%d, 'x', 'x', 'DE', '2026-01-01')", k1), nil, nil, nil, nil)
	b.ExecParams("select * from customers order by name limit 1 for update", nil, nil, nil, nil) // refused by us
	_, err := c.PgConn().ExecBatch(t.Context(), b).ReadAll()
	wantCode(t, err, "0A000")
	if n := queryOne[int](t, c, "select count(*) from customers where customer_id = $1", k1); n != 0 {
		t.Error("the row of a failed pipeline is there")
	}
}

func TestPreparedStatementsOverRotatingServers(t *testing.T) {
	t.Parallel()
	d := shop(t)
	var wg sync.WaitGroup
	for w := range 30 { // more clients than servers of a pool
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := pgx.Connect(context.Background(), d.shopDSN())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close(context.Background())
			for i := range 40 {
				var id int64
				var name string
				key := 1 + (w*40+i)%2000
				if err := c.QueryRow(context.Background(), "select customer_id, name from customers where customer_id = $1", key).Scan(&id, &name); err != nil || id != int64(key) {
					t.Errorf("key %d: %d %v", key, id, err)
					return
				}
			}
		}()
	}
	wg.Wait()
	c := connectTo(t, d.shopDSN())
	if _, err := c.Prepare(t.Context(), "p", "select 1"); err != nil {
		t.Fatal(err)
	}
	res := c.PgConn().ExecPrepared(t.Context(), "nosuch", nil, nil, nil).Read()
	wantCode(t, res.Err, "26000")
	if _, err := c.Exec(t.Context(), "p"); err != nil {
		t.Errorf("the session did not survive: %v", err)
	}
	mustExec(t, c, "deallocate all")
}

func TestSettingsFollowTheSessionAndNobodyElse(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a, b := connectTo(t, d.shopDSN()+"?application_name=first"), connectTo(t, d.shopDSN())
	mustExec(t, a, "set work_mem = '7MB'")
	mustExec(t, a, "set time zone 'Asia/Tokyo'")
	for range 20 {
		if v := queryOne[string](t, a, "select current_setting('work_mem') || current_setting('TimeZone') || current_setting('application_name')"); v != "7MBAsia/Tokyofirst" {
			t.Fatalf("a: %s", v)
		}
		if v := queryOne[string](t, b, "select current_setting('work_mem')"); v == "7MB" {
			t.Fatal("b has the setting of a")
		}
	}
	mustExec(t, a, "begin")
	mustExec(t, a, "set work_mem = '9MB'")
	mustExec(t, a, "set local statement_timeout = '12s'")
	if v := queryOne[string](t, a, "select current_setting('work_mem') || current_setting('statement_timeout')"); v != "9MB12s" {
		t.Errorf("in the transaction: %s", v)
	}
	mustExec(t, a, "rollback")
	if v := queryOne[string](t, a, "select current_setting('work_mem') || current_setting('statement_timeout')"); v != "7MB0" {
		t.Errorf("after ROLLBACK: %s", v)
	}
	mustExec(t, a, "reset all")
	if v := queryOne[string](t, a, "select current_setting('work_mem') || current_setting('application_name')"); v != "4MBfirst" {
		t.Errorf("after RESET ALL: %s", v)
	}
	_, err := a.Exec(t.Context(), "set work_mem = 'lots'")
	wantCode(t, err, "22023")
	mustExec(t, a, "create temp table mine (x int)")
	mustExec(t, a, "insert into mine values (1)")
	if n := queryOne[int](t, a, "select count(*) from mine"); n != 1 {
		t.Error("the temporary table is not there")
	}
	_, err = b.Exec(t.Context(), "select * from mine")
	wantCode(t, err, "42P01")
	mustExec(t, a, "set app.tenant = 'seven'")
	if v := queryOne[string](t, a, "select current_setting('app.tenant')"); v != "seven" {
		t.Error("the custom parameter is lost")
	}
	for range 30 {
		if v := queryOne[*string](t, b, "select current_setting('app.tenant', true)"); v != nil {
			t.Fatalf("b sees a's custom parameter as %q", *v)
		}
	}
}

func TestCancelStopsTheRightStatement(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c, other := connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN())
	for _, sql := range []string{"select pg_sleep(20)", "select pg_sleep(20) from customers where customer_id = 1", "begin; select pg_sleep(20)"} {
		done := make(chan error, 1)
		go func() { _, err := c.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); done <- err }()
		eventually(t, sql+" runs", func() bool { return d.clientServers(c.PgConn().PID()) > 0 })
		bystander := make(chan error, 1)
		go func() { _, err := other.Exec(context.Background(), "select pg_sleep(0.3)"); bystander <- err }()
		if err := c.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			wantCode(t, err, "57014")
		case <-time.After(15 * time.Second): // before the statement would end
			t.Fatalf("%s was not cancelled", sql)
		}
		if err := <-bystander; err != nil {
			t.Errorf("another client was hit: %v", err)
		}
		mustExec(t, c, "rollback")
	}
}

func TestVanishedClientLeavesNothingOpen(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for i := range 30 {
		c := connectTo(t, d.shopDSN())
		mustExec(t, c, "begin")
		mustExec(t, c, "update customers set name = name where customer_id = $1", 1+i)
		_ = c.PgConn().Conn().Close() // no Terminate
	}
	c := connectTo(t, d.shopDSN())
	eventually(t, "no lock is left", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, err := c.Exec(ctx, "update customers set name = name where customer_id <= 30")
		return err == nil
	})
	eventually(t, "every server is back", func() bool {
		for _, p := range d.Pools.All() {
			if p.Stats().Active > 0 {
				return false
			}
		}
		return true
	})
}

// A shard whose decisions somebody has locked does not stop the resolver: it tells, and goes on to the others.
func TestResolverPassesALockedShard(t *testing.T) {
	t.Parallel()
	d := shop(t)
	hold := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	mustExec(t, hold, "begin")
	mustExec(t, hold, "lock table pgmosaic.decision in access exclusive mode")
	defer mustExec(t, hold, "rollback")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := d.Resolver().List(ctx, d.ShardsOf(d.Catalog.Current().Databases["shop"]))
	if !errors.Is(err, context.DeadlineExceeded) && pgCode(err) != "57014" || ctx.Err() != nil { // which of the two clocks is first is chance
		t.Errorf("the answer is %v, the caller's time is over: %v", err, ctx.Err())
	}
}

// A part that a crash left prepared is committed if the decider has decided so, else rolled back.
func TestResolverFinishesWhatACrashLeft(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, NoLoad: true})
	mustExec(t, connectTo(t, d.shopDSN()), "insert into countries values ('DE', 'Germany')")
	_, k2 := keysOn(t, d, 1)
	install := d.Catalog.Current().Install
	s2, s1 := connectTo(t, d.cluster.Node("s2-a").DSN("shop")), connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	for i, outcome := range []string{"commit", ""} {
		gid := fmt.Sprintf("pgmosaic:%s:s1:%032d", install, i)
		mustExec(t, s2, "begin")
		mustExec(t, s2, "set local role app")
		key := k2
		for d.adminExec(t, "LOCATE KEY ("+itoa(key)+") OF shop.customers")[0][4] != "s2" || key == k2 && i == 1 {
			key++
		}
		mustExec(t, s2, insertCustomer, key, "left "+outcome)
		mustExec(t, s2, "prepare transaction '"+gid+"'")
		if outcome != "" {
			mustExec(t, s1, "insert into pgmosaic.decision values ($1, $2)", gid, outcome)
		}
	}
	if committed, err := d.Engine.Settle(t.Context(), "shop", fmt.Sprintf("pgmosaic:%s:s1:%032d", install, 7)); !errors.Is(err, txn.ErrForgotten) || committed {
		t.Errorf("a transaction that nobody knows: %v %v", committed, err)
	}
	if rows := d.adminExec(t, "SHOW TRANSACTIONS"); len(rows) != 2 {
		t.Errorf("SHOW TRANSACTIONS has %d rows", len(rows))
	}
	eventually(t, "nothing is prepared any more", func() bool {
		return queryOne[int](t, s2, "select count(*) from pg_prepared_xacts") == 0
	})
	if got := queryOne[string](t, s2, "select coalesce(string_agg(name, ','), '') from customers where name like 'left%'"); got != "left commit" {
		t.Errorf("what is there: %q", got)
	}
}

func TestDemoKeepsItsDataAndStopsItsServers(t *testing.T) {
	t.Parallel()
	needServers(t)
	dir, err := testDir()
	if err != nil {
		t.Fatal(err)
	}
	defer cleanTestDir(dir)
	o := showcase.Options{Dir: dir, Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", Shards: 2, Replicas: 1, Customers: 50, Orders: 100, PoolSize: 5}
	var pids []int
	for round := range 2 {
		d, err := startDemo(t.Context(), o, testWriter{t})
		if err != nil {
			t.Fatal(err)
		}
		c, err := pgx.Connect(t.Context(), d.shopDSN())
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			mustExec(t, c, "insert into settings values ('mine', 'kept')")
		} else if v := queryOne[string](t, c, "select value from settings where name = 'mine'"); v != "kept" {
			t.Error("the second start lost the data")
		}
		if n := queryOne[int](t, c, "select count(*) from customers"); n != 50 {
			t.Errorf("%d customers", n)
		}
		for _, n := range d.cluster.Nodes() {
			pids = append(pids, n.PID())
		}
		_ = c.Close(t.Context())
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	}
	for _, pid := range pids {
		if processLives(pid) {
			t.Errorf("process %d still lives", pid)
		}
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) { w.t.Log(string(b)); return len(b), nil }

// A write whose second shard cannot join the transaction is refused before the first was asked: no answer is left behind
// that a later statement would take for its own.
func TestShardThatCannotJoinLeavesNoAnswerBehind(t *testing.T) {
	t.Parallel()
	d := shop(t)
	k1, k2 := keysOn(t, d, 810000)
	for _, sql := range []string{
		"update customers set name = name || 'zz' where customer_id in (%d, %d)", "insert into customers values (%d, 'zz', 'x', 'DE', '2026-01-01'), (%d, 'zz', 'x', 'DE', '2026-01-01') returning customer_id",
		"update customers set customer_id = customer_id + 1 where customer_id in (%d, %d) returning name", "select name from customers where customer_id in (%d, %d) for update",
		"select name from customers where customer_id in (%d, %d)", "select rank() over (order by name) from customers where customer_id in (%d, %d)", "select count(distinct name) from customers where customer_id in (%d, %d)",
		"insert into orders (customer_id, order_id, status, total, created_at) select order_id, customer_id, '', 1, now() from orders where customer_id in (%d, %d)",
	} {
		c := connectTo(t, d.shopDSN())
		mustExec(t, c, "begin isolation level repeatable read")
		mustExec(t, c, "savepoint s")
		_, err := c.Exec(t.Context(), fmt.Sprintf(sql, k1, k2))
		wantCode(t, err, "0A000")
		mustExec(t, c, "rollback to s")
		for i := range 3 {
			for _, k := range []int{k1, k2} {
				var n int
				err := c.QueryRow(t.Context(), "select $1::int where not exists (select from customers where customer_id = $2)", i, k).Scan(&n)
				if err == nil && n != i || err != nil && pgCode(err) != "0A000" {
					t.Errorf("%s: %d, want %d, %v", sql, n, i, err)
				}
				if err != nil {
					mustExec(t, c, "rollback to s")
				}
			}
		}
		mustExec(t, c, "rollback")
	}
}
