package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

var bankKills = flag.Int("bank.kills", 8, "how often something is killed while the bank of the crash test is open")

// Clients move money between accounts on eight shards while proxies and primaries are killed. In the end the total is what
// it was, each account is what its history says, and every transfer that was acknowledged is there, wholly.
func TestBankWithKilledProxiesAndPrimaries(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, NoLoad: true})
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a")}
	d.adminExec(t, "CREATE DATABASE bank")
	for i := range 8 {
		phys := fmt.Sprintf("bank_%d", i)
		freshDatabase(t, nodes[i%2], phys)
		d.adminExec(t, fmt.Sprintf("CREATE SHARD b%d IN bank NODE '%s' NAME n%d", i, nodes[i%2].DSN(phys), i))
	}
	const accounts, start, clients = 200, 1000, 32
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "bank"))
	mustExec(t, c, "create table accounts (id int primary key, account int not null, balance int not null)") // id is account, or account + 1000
	mustExec(t, c, "create table history (account int not null, tx text not null, delta int not null, primary key (account, tx))")
	mustExec(t, c, fmt.Sprintf("insert into accounts select i, i, %d from generate_series(1, %d) i", start, accounts))
	d.adminExec(t, "CREATE GROUP g IN bank KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE bank.public.accounts IN GROUP g KEY (id)")
	d.adminExec(t, "DISTRIBUTE TABLE bank.public.history IN GROUP g KEY (account)")
	proxies := []*served{serveProcess(t, crashConfig(t, mapOf(d, "bank"))), serveProcess(t, crashConfig(t, mapOf(d, "bank")))}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[string]int{} // transfer: accounts in it
	why := map[string]int{}          // failures by SQLSTATE
	var failed, doubtful, moved atomic.Int64
	for n := range clients {
		addr := proxies[n%2].addr
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(2026, uint64(n)))
			var c *pgx.Conn
			for i := 0; ctx.Err() == nil; i++ {
				one, done := context.WithTimeout(t.Context(), 8*time.Second)
				if c == nil || c.IsClosed() {
					var err error
					if c, err = pgx.Connect(one, dsnFor("app", "app", addr, "bank")+"?default_query_exec_mode=exec"); err != nil {
						c = nil
						done()
						time.Sleep(50 * time.Millisecond)
						continue
					}
					_, _ = c.Exec(one, "set lock_timeout = '2s'")
				}
				tx := fmt.Sprintf("%d-%d", n, i)
				var width int
				var err error
				if rng.IntN(8) == 0 {
					err = rename(one, c, rng, accounts)
				} else {
					width, err = transfer(one, c, rng, tx, accounts)
				}
				switch {
				case err == nil && width == 0:
					moved.Add(1)
				case err == nil:
					mu.Lock()
					acknowledged[tx] = width
					mu.Unlock()
				case pgCode(err) == "08007":
					doubtful.Add(1)
				default:
					failed.Add(1)
					mu.Lock()
					if len(pgCode(err)) == 5 {
						why[pgCode(err)]++
					}
					mu.Unlock()
					time.Sleep(20 * time.Millisecond) // a primary may be down
				}
				if err != nil && c.PgConn().TxStatus() != 'I' {
					if _, err := c.Exec(one, "rollback"); err != nil {
						_ = c.Close(one)
					}
				}
				done()
			}
			if c != nil {
				_ = c.Close(context.Background())
			}
		})
	}
	rng := rand.New(rand.NewPCG(7, 7))
	done := func() int64 {
		mu.Lock()
		defer mu.Unlock()
		return int64(len(acknowledged)) + moved.Load()
	}
	work := func(n int64) { // so much is done since the last kill
		t.Helper()
		before := done()
		within(t, 2*time.Minute, "the bank's clients get on", func() bool { return done() >= before+n })
	}
	for range *bankKills {
		work(10 + rng.Int64N(50))
		switch rng.IntN(3) {
		case 0:
			n := nodes[rng.IntN(2)]
			if err := n.StopImmediate(); err != nil {
				t.Error(err)
			}
			if err := n.Start(context.Background()); err != nil {
				t.Fatal(err)
			}
		default:
			p := proxies[rng.IntN(2)]
			p.kill()
			time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
			p.start(t)
		}
	}
	work(50)
	stop()
	wg.Wait()
	var shards []*pgx.Conn
	for i := range 8 {
		shards = append(shards, connectTo(t, nodes[i%2].DSN(fmt.Sprintf("bank_%d", i))))
	}
	eventually(t, "nothing is prepared", func() bool {
		n := 0
		for _, c := range shards {
			n += queryOne[int](t, c, "select count(*) from pg_prepared_xacts where database = current_database()")
		}
		return n == 0
	})
	total := 0
	parts := map[string]int{}
	balance, says := map[int]int{}, map[int]int{}
	for _, c := range shards {
		rows, _ := c.Query(t.Context(), "select account, balance from accounts")
		var account, n int
		if _, err := pgx.ForEachRow(rows, []any{&account, &n}, func() error {
			if _, twice := balance[account]; twice {
				t.Errorf("account %d is there twice", account)
			}
			balance[account] = n
			total += n
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		rows, _ = c.Query(t.Context(), "select account, tx, delta from history")
		var tx string
		if _, err := pgx.ForEachRow(rows, []any{&account, &tx, &n}, func() error { parts[tx]++; says[account] += n; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for a := 1; a <= accounts; a++ {
		if n, there := balance[a]; !there || n != start+says[a] {
			t.Errorf("account %d holds %d (there: %t), by its history %d", a, n, there, start+says[a])
		}
	}
	if total != accounts*start {
		t.Errorf("the total is %d, it was %d", total, accounts*start)
	}
	for tx, width := range acknowledged {
		if parts[tx] != width {
			t.Errorf("transfer %s was acknowledged and has %d of %d parts", tx, parts[tx], width)
		}
	}
	t.Logf("%d kills; %d transfers acknowledged, %d failed %v, %d in doubt; %d are there; %d accounts moved", *bankKills, len(acknowledged), failed.Load(), why, doubtful.Load(), len(parts), moved.Load())
	if len(acknowledged) < 50 || moved.Load() < 5 {
		t.Error("hardly anything was tried")
	}
}

// errElsewhere means that a row is on its way to another shard.
var errElsewhere = errors.New("the account has just moved")

// rename gives an account its other id, which may be another shard's.
func rename(ctx context.Context, c *pgx.Conn, rng *rand.Rand, accounts int) error {
	a := 1 + rng.IntN(accounts)
	_, err := c.Exec(ctx, []string{"update accounts set id = id + 1000 where id = $1", "update accounts set id = account where id = $1 + 1000"}[rng.IntN(2)], a)
	return err
}

// transfer moves money in one transaction, or by one statement over several shards. It says how many accounts took part.
func transfer(ctx context.Context, c *pgx.Conn, rng *rand.Rand, tx string, accounts int) (int, error) {
	a, b := 1+rng.IntN(accounts), 1+rng.IntN(accounts)
	if a == b {
		b = a%accounts + 1
	}
	if a > b { // all lock in one order
		a, b = b, a
	}
	sum := 1 + rng.IntN(20)
	if _, err := c.Exec(ctx, "begin"); err != nil {
		return 0, err
	}
	one := func(want int64, sql string, args ...any) error {
		tag, err := c.Exec(ctx, sql, args...)
		if err == nil && tag.RowsAffected() != want {
			err = errElsewhere
		}
		return err
	}
	var err error
	switch rng.IntN(3) {
	case 0: // both rows by one statement
		if err = one(2, "update accounts set balance = balance + case when account = $1 then $3::int else -$3::int end where id in ($1, $2, $1 + 1000, $2 + 1000)", a, b, sum); err != nil {
			return 0, err
		}
		_, err = c.Exec(ctx, "insert into history values ($1, $4, $3), ($2, $4, -$3::int)", a, b, sum, tx)
	default:
		for _, m := range [][2]int{{a, sum}, {b, -sum}} {
			if err = one(1, "update accounts set balance = balance + $2 where id in ($1, $3)", m[0], m[1], m[0]+1000); err != nil {
				return 0, err
			}
			if _, err = c.Exec(ctx, "insert into history values ($1, $2, $3)", m[0], tx, m[1]); err != nil {
				return 0, err
			}
		}
	}
	if err != nil {
		return 0, err
	}
	tag, err := c.Exec(ctx, "commit")
	if err == nil && tag.String() != "COMMIT" {
		err = fmt.Errorf("commit said %s", tag)
	}
	return 2, err
}
