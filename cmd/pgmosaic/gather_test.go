package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// gathered joins customers on something that is not their key.
const gathered = "select count(*) from customers a join customers b on a.name = b.name and a.customer_id < b.customer_id"

// leftovers counts what is left on the server that rows are gathered on.
func leftovers(t testing.TB, d *demo) int {
	t.Helper()
	return queryOne[int](t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "select count(*) from pg_class where relname ~ '^pgmosaic_(gather|part|moved)'") +
		queryOne[int](t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "select count(*) from pg_stat_activity where state like 'idle in transaction%' and datname = 'shop' and usename = 'app'")
}

func TestGatherLimit(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	want := queryOne[int](t, c, gathered)
	for _, limit := range []string{"1kB", "20kB"} {
		mustExec(t, c, "set pgmosaic.gather_limit = '"+limit+"'")
		_, err := c.Exec(t.Context(), gathered)
		wantCode(t, err, "54000")
		if !strings.Contains(err.Error(), "pgmosaic.gather_limit ("+limit+")") {
			t.Errorf("the limit is not named: %v", err)
		}
	}
	mustExec(t, c, "set pgmosaic.gather_limit = '20kB'") // the groups of a merge count as well
	_, err := c.Exec(t.Context(), "select name || customer_id, count(*) from customers group by 1 order by 2")
	wantCode(t, err, "54000")
	many := make([]string, 40)
	for i := range many {
		many[i] = fmt.Sprintf("(%d, 1, 'x', 1, now())", 1000001+i)
	}
	for _, sql := range []string{ // and what a write returns
		"update customers set name = name returning repeat(name, 100)", "insert into orders select 1000000 + i, 1, 'x', 1, now() from generate_series(1, 300) i returning repeat(status, 1000)",
		"insert into orders values " + strings.Join(many, ", ") + " returning repeat(status, 1000)",
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			_, err := c.Exec(t.Context(), sql, mode)
			wantCode(t, err, "54000")
		}
	}
	if n := queryOne[int](t, c, "select count(*) from orders where customer_id > 1000000"); n != 0 {
		t.Errorf("%d rows are left of writes that were refused", n)
	}
	mustExec(t, c, "set pgmosaic.gather_limit = 0")
	held := d.Engine.MergeMemory.Swap(100 << 10)
	_, err = c.Exec(t.Context(), "select name || customer_id, count(*) from customers group by 1 order by 2")
	wantCode(t, err, "53200")
	d.Engine.MergeMemory.Store(held)
	mustExec(t, c, "select name || customer_id, count(*) from customers group by 1 order by 2") // what was held is given back
	if got := queryOne[int](t, c, gathered); got != want || want == 0 {
		t.Errorf("%d rows, want %d", got, want)
	}
	mustExec(t, c, "reset pgmosaic.gather_limit")
	if got := queryOne[string](t, c, "show pgmosaic.gather_limit"); got != "64MB" {
		t.Errorf("gather_limit is %s", got)
	}
	_, err = c.Exec(t.Context(), "set pgmosaic.gather_limit = 'much'")
	wantCode(t, err, "22023")
	if n := leftovers(t, d); n != 0 {
		t.Errorf("%d things are left on home", n)
	}
}

// In a transaction a gathered SELECT sees what the transaction wrote, to sharded, reference and home tables alike, and
// its failure is the transaction's.
func TestGatherSeesOwnWrites(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	ctx := t.Context()
	tx, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"insert into settings values ('gather', '900001')",
		"insert into countries values ('ZZ', 'Gatherland')",
		"insert into customers values (900001, 'g1', 'e', 'ZZ', now())",
		"insert into customers values (900002, 'g1', 'e', 'ZZ', now())",
		"insert into customers values (900003, 'g1', 'e', 'ZZ', now())",
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	const sql = "select count(*) from settings s, countries k, customers a join customers b on a.name = b.name where s.name = 'gather' and k.name = 'Gatherland' and a.country = k.code and b.customer_id = s.value::bigint"
	var n int
	if err := tx.QueryRow(ctx, sql).Scan(&n); err != nil || n != 3 {
		t.Errorf("inside the transaction: %d, %v; want 3", n, err)
	}
	if other := queryOne[int](t, connectTo(t, d.shopDSN()), sql); other != 0 {
		t.Errorf("others see %d", other)
	}
	if _, err := tx.Exec(ctx, "savepoint s"); err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec(ctx, "select 1 / (a.customer_id - a.customer_id) from customers a join customers b on a.name = b.name")
	wantCode(t, err, "22012")
	_, err = tx.Exec(ctx, "select 1")
	wantCode(t, err, "25P02")
	if _, err := tx.Exec(ctx, "rollback to s"); err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRow(ctx, sql).Scan(&n); err != nil || n != 3 {
		t.Errorf("behind the savepoint: %d, %v", n, err)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if n := queryOne[int](t, c, sql); n != 0 {
		t.Errorf("%d after the rollback", n)
	}
}

func TestGatherNeedsTemporaryTables(t *testing.T) {
	t.Parallel()
	d := shop(t)
	super := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	mustExec(t, super, "revoke temporary on database shop from public")
	mustExec(t, super, "alter database shop owner to postgres")
	defer mustExec(t, super, "grant temporary on database shop to public")
	defer mustExec(t, super, "alter database shop owner to app")
	c := connectTo(t, d.shopDSN())
	_, err := c.Exec(t.Context(), gathered)
	wantRule(t, err, "gather-right", "0A000")
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || !strings.Contains(pe.Hint, "GRANT TEMPORARY ON DATABASE") {
		t.Errorf("the hint is missing: %v", err)
	}
	if n := queryOne[int](t, c, "select count(*) from customers"); n == 0 {
		t.Error("the session did not go on")
	}
}

// A cancel ends a gathered SELECT while it loads and while it runs, and every server is clean after it.
func TestGatherCancelled(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for name, sql := range map[string]string{
		"running": "select pg_sleep(20) from customers a join customers b on a.name = b.email or a.customer_id = b.customer_id + 1 limit 1",
		"loading": "select count(*) from slow_customers a join orders b on a.customer_id = b.order_id",
	} {
		t.Run(name, func(t *testing.T) {
			c := connectTo(t, d.shopDSN())
			if name == "loading" {
				mustExec(t, c, "create view slow_customers as select * from customers where length(repeat(md5(name), 200000)) > customer_id")
				defer mustExec(t, c, "drop view slow_customers")
			}
			done := make(chan error, 1)
			go func() { _, err := c.Exec(context.Background(), sql); done <- err }()
			if name == "running" {
				begun(t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "it", "pg_sleep(20)")
			} else {
				eventually(t, "it loads", func() bool { return d.atWork(c) && d.clientServers(c.PgConn().PID()) > 1 })
			}
			if err := c.PgConn().CancelRequest(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantCode(t, <-done, "57014")
			if n := queryOne[int](t, c, gathered); n == 0 {
				t.Error("the session did not go on")
			}
		})
	}
	eventually(t, "home is clean", func() bool { return leftovers(t, d) == 0 })
}

// A server is killed while a statement over shards runs on it, merged or gathered: an error, and the session lives.
func TestKilledUnderAStatementOverShards(t *testing.T) {
	t.Parallel()
	d := shop(t)
	super := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	slow := "length(repeat(md5(a.name), 200000)) > a.customer_id" // some seconds
	for name, c := range map[string]struct{ sql, runs string }{
		"run":   {"select pg_sleep(20) from customers a join customers b on a.name = b.name limit 1", "SELECT pg_sleep(20) FROM pg_temp.%"},
		"load":  {"select count(*) from customers a join orders b on b.order_id = a.customer_id where " + slow, "SELECT %repeat(md5(name)%"},
		"merge": {"select a.country, count(*) from customers a where " + slow + " group by 1", "SELECT %repeat(md5(a.name)%"},
	} {
		t.Run(name, func(t *testing.T) {
			x := connectTo(t, d.shopDSN())
			mustExec(t, x, "set pgmosaic.read_consistency = strong") // on the primaries
			done := make(chan error, 1)
			go func() {
				_, err := x.Exec(context.Background(), c.sql)
				done <- err
			}()
			eventually(t, "it runs", func() bool {
				return queryOne[int](t, super, "select count(pg_terminate_backend(pid)) from pg_stat_activity where query like $1 and state = 'active'", c.runs) > 0
			})
			var pe *pgconn.PgError
			if err := <-done; !errors.As(err, &pe) || pe.Code != "57P01" && pe.Code != "08006" || pe.Severity != "ERROR" {
				t.Errorf("the client was told %v", err)
			}
			if n := queryOne[int](t, x, gathered); n == 0 {
				t.Error("the session did not go on")
			}
		})
	}
	eventually(t, "home is clean", func() bool { return leftovers(t, d) == 0 })
}

// Rows that one transaction wrote to two tables of a shard are both seen or neither, though each table is copied by a
// query of its own.
func TestGatherReadsOneSnapshotOfEachShard(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
		mustExec(t, c, "delete from order_items where quantity = -7")
		mustExec(t, c, "delete from orders where status = 'pair'")
	}()
	for w := range 3 {
		x := connectTo(t, d.shopDSN())
		wg.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				tx, err := x.Begin(context.Background())
				if err != nil {
					return
				}
				id := int64(1 + (i*3+w)%2000)
				_, e1 := tx.Exec(context.Background(), "insert into orders values ($1, $2, 'pair', 1, now())", id, 5_000_000+i*3+w)
				_, e2 := tx.Exec(context.Background(), "insert into order_items values ($1, $2, 1, 1, -7, 1)", id, 5_000_000+i*3+w)
				if err := errors.Join(e1, e2, tx.Commit(context.Background())); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var seen int
	for i := 0; i < 60; i++ {
		var orders, items int
		if err := c.QueryRow(t.Context(), "select (select count(*) from orders where status = 'pair'), (select count(*) from order_items where quantity = -7)").Scan(&orders, &items); err != nil {
			t.Fatal(err)
		}
		if orders != items {
			t.Fatalf("%d orders and %d of their items", orders, items)
		}
		seen = orders
	}
	if seen == 0 {
		t.Error("nothing was written meanwhile")
	}
}

// More clients than servers, each in a transaction that holds servers of both shards: none waits for ever.
func TestGathersDoNotBlockEachOther(t *testing.T) {
	t.Parallel()
	d := shop(t)
	var wg sync.WaitGroup
	for i := range 18 {
		c := connectTo(t, d.shopDSN())
		wg.Go(func() {
			for range 3 {
				err := pgx.BeginFunc(context.Background(), c, func(tx pgx.Tx) error {
					if _, err := tx.Exec(context.Background(), fmt.Sprintf("update customers set name = name where customer_id = %d", 1+i)); err != nil {
						return err
					}
					var n int
					return tx.QueryRow(context.Background(), gathered).Scan(&n)
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "home is clean", func() bool { return leftovers(t, d) == 0 })
}

// Settings of our own follow a transaction as PostgreSQL's do.
func TestOwnSettingsFollowTransactions(t *testing.T) {
	t.Parallel()
	d := shop(t)
	cfg, err := pgx.ParseConfig(d.shopDSN())
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["pgmosaic.gather_limit"] = "7MB"
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	is := func(want string) {
		t.Helper()
		if got := queryOne[string](t, c, "show pgmosaic.gather_limit", pgx.QueryExecModeSimpleProtocol); got != want {
			t.Errorf("gather_limit is %s, want %s", got, want)
		}
	}
	for _, step := range []struct{ sql, want string }{
		{"begin", "7MB"},
		{"set local pgmosaic.gather_limit = '1MB'", "1MB"},
		{"commit", "7MB"},
		{"begin", "7MB"},
		{"set pgmosaic.gather_limit = '2MB'", "2MB"},
		{"rollback", "7MB"},
		{"begin", "7MB"},
		{"set pgmosaic.gather_limit = '3MB'", "3MB"},
		{"savepoint a", "3MB"},
		{"set pgmosaic.gather_limit = '4MB'", "4MB"},
		{"set local pgmosaic.gather_limit = '5MB'", "5MB"},
		{"rollback to a", "3MB"},
		{"set local pgmosaic.gather_limit = '6MB'", "6MB"},
		{"commit", "3MB"},
		{"set local pgmosaic.gather_limit = '1MB'", "3MB"},
		{"reset pgmosaic.gather_limit", "7MB"},
		{"set pgmosaic.gather_limit = '2MB'", "2MB"},
		{"reset all", "7MB"},
		{"set pgmosaic.gather_limit = '2MB'", "2MB"},
		{"discard all", "7MB"},
	} {
		mustExec(t, c, step.sql, pgx.QueryExecModeSimpleProtocol)
		is(step.want)
	}
}

// A session may forbid statements that are wider than it means.
func TestFanout(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	k1, k2 := keysOn(t, d, 1)
	both := fmt.Sprintf("select count(*) from customers where customer_id in (%d, %d)", k1, k2)
	for _, x := range []struct {
		fanout, sql string
		ok          bool
	}{
		{"single", fmt.Sprintf("select * from customers where customer_id = %d", k1), true},
		{"single", "select * from countries", true},
		{"single", both, false},
		{"single", "select count(*) from customers", false},
		{"single", gathered, false},
		{"single", "update customers set name = name where customer_id < 0", false},
		{"multi", "select count(*) from customers", false},
		{"scatter", gathered, true},
		{"single", "update countries set name = name", true},
	} {
		mustExec(t, c, "set pgmosaic.fanout = "+x.fanout)
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			_, err := c.Exec(t.Context(), x.sql, mode)
			if x.ok && err != nil {
				t.Errorf("%s, %s: %v", x.fanout, x.sql, err)
			}
			if !x.ok {
				wantRule(t, err, "fanout", "0A000")
			}
		}
	}
	_, err := c.Exec(t.Context(), "set pgmosaic.fanout = wide")
	wantCode(t, err, "22023")
}

// The server of the copies would wait for ever for what its own transaction has locked.
func TestGatherBehindLocks(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	for _, sql := range []string{"alter table customers add column later int", "lock table settings in access exclusive mode", "truncate settings", "create table brand_new (id int)"} {
		mustExec(t, c, "begin")
		mustExec(t, c, sql)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := c.Exec(ctx, "select count(*) from customers a join customers b on a.name = b.name, settings s")
		cancel()
		wantRule(t, err, "gather-lock", "0A000")
		mustExec(t, c, "rollback")
	}
	if n := queryOne[int](t, c, gathered); n == 0 {
		t.Error("the session did not go on")
	}
}

// A variance put together from the shards' sums has PostgreSQL's own digits: the same over copies of the rows is the
// measure, which an expression in place of the column asks for.
func TestSpreadsHaveTheSameDigits(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "create table spread (id bigint, g int, n numeric, i int, b bigint, primary key (id))")
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.spread IN GROUP customers KEY (id)")
	mustExec(t, c, `insert into spread select i, i % 40, case when i % 40 = 7 and i > 1990 then 'NaN' when i % 40 = 8 and i > 1990 then 'Infinity' when i % 40 = 9 then 12.50 when i % 40 = 10 then null
		else round((sin(i) * power(10, i % 40 - 20))::numeric, i % 29) end, (i * 7919 % 1000003) * (i % 40 - 20), (i * 7919 % 1000003) * 9000000000 * (i % 3 - 1) from generate_series(1, 2000) i`)
	var lists [2][]string
	for _, x := range []string{"n", "i", "b"} {
		for _, f := range []string{"variance", "var_pop", "stddev", "stddev_pop", "var_samp", "stddev_samp"} {
			lists[0] = append(lists[0], f+"("+x+")::text")
			lists[1] = append(lists[1], f+"("+x+" + 0)::text")
		}
	}
	for _, rest := range []string{" from spread", " from spread group by g order by g", " from spread where id < 90 group by g order by g", " from spread where id < 0"} {
		var got [2]string
		for i, list := range lists {
			got[i] = strings.Join(queryOne[[]string](t, c, "select array_agg(x::text) from (select "+strings.Join(list, ", ")+rest+") x"), "\n")
		}
		if got[0] != got[1] {
			t.Errorf("of%s:\n%s\nwant\n%s", rest, got[0], got[1])
		}
	}
	for i, want := range []string{"Part: SELECT pg_catalog.count(n)", "Copy: "} {
		rows, err := c.Query(t.Context(), "explain (route) select "+lists[i][0]+" from spread")
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if route := strings.Join(lines, "\n"); err != nil || !strings.Contains(route, want) {
			t.Errorf("not by %q: %s", want, route)
		}
	}
}

// A SELECT in two steps whose types do not allow them falls back to copies, in a transaction to those of what it wrote itself.
func TestFallbackSeesOwnWrites(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	defer func() { mustExec(t, c, "rollback") }()
	mustExec(t, c, "begin")
	mustExec(t, c, "insert into countries values ('FB', 'Fallbackland')")
	for i := range 4 {
		mustExec(t, c, insertCustomer, 910000+i, "x")
	}
	mustExec(t, c, "update customers set country = 'FB' where customer_id between 910000 and 910003")
	const avg = "select k.name || avg(c.customer_id::float4) from customers c join countries k on k.code = c.country where k.code = 'FB' group by k.name"
	if got := queryOne[string](t, c, avg); !strings.HasPrefix(got, "Fallbackland9100") {
		t.Errorf("it sees %q", got)
	}
}
