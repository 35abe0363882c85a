package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

var bankFor = flag.Duration("bank.for", 12*time.Second, "how long the bank of the crash test is open")

// Clients move money between accounts on eight shards while proxies and primaries are killed. In the end the total is what
// it was, each account is what its history says, and every transfer that was acknowledged is there, wholly.
func TestBankWithKilledProxiesAndPrimaries(t *testing.T) {
	d := newDemo(t, demoOptions{shards: 2, replicas: 0, noLoad: true})
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a")}
	d.adminExec(t, "CREATE DATABASE bank")
	for i := range 8 {
		phys := fmt.Sprintf("bank_%d", i)
		freshDatabase(t, nodes[i%2], phys)
		d.adminExec(t, fmt.Sprintf("CREATE SHARD b%d IN bank NODE '%s' NAME n%d", i, nodes[i%2].DSN(phys), i))
	}
	const accounts, start, clients = 200, 1000, 12
	c := connectTo(t, dsnFor("app", "app", d.server.Addr(), "bank"))
	mustExec(t, c, "create table accounts (id int primary key, balance int not null)")
	mustExec(t, c, "create table history (account int not null, tx text not null, delta int not null, primary key (account, tx))")
	mustExec(t, c, fmt.Sprintf("insert into accounts select i, %d from generate_series(1, %d) i", start, accounts))
	d.adminExec(t, "CREATE GROUP g IN bank KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE bank.public.accounts IN GROUP g KEY (id)")
	d.adminExec(t, "DISTRIBUTE TABLE bank.public.history IN GROUP g KEY (account)")
	a1, taps1 := tapped(t, d, "bank")
	a2, taps2 := tapped(t, d, "bank")

	ctx, stop := context.WithTimeout(t.Context(), *bankFor)
	defer stop()
	var wg sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[string]int{} // transfer: accounts in it
	var failed, doubtful atomic.Int64
	for n := range clients {
		a := []*app{a1, a2}[n%2]
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(2026, uint64(n)))
			var c *pgx.Conn
			for i := 0; ctx.Err() == nil; i++ {
				one, done := context.WithTimeout(t.Context(), 8*time.Second)
				if c == nil || c.IsClosed() {
					var err error
					if c, err = pgx.Connect(one, dsnFor("app", "app", a.server.Addr(), "bank")+"?default_query_exec_mode=exec"); err != nil {
						c = nil
						done()
						time.Sleep(50 * time.Millisecond)
						continue
					}
					_, _ = c.Exec(one, "set lock_timeout = '2s'")
				}
				tx := fmt.Sprintf("%d-%d", n, i)
				width, err := transfer(one, c, rng, tx, accounts)
				switch {
				case err == nil:
					mu.Lock()
					acknowledged[tx] = width
					mu.Unlock()
				case pgCode(err) == "08007":
					doubtful.Add(1)
				default:
					failed.Add(1)
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
	kills := 0
	rng := rand.New(rand.NewPCG(7, 7))
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(500+rng.IntN(1500)) * time.Millisecond):
			kills++
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
				ts := []*taps{taps1, taps2}[rng.IntN(2)]
				ts.die()
				time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
				ts.arm(step{}, before, nil)
			}
		}
	}
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
	for i, c := range shards {
		total += queryOne[int](t, c, "select coalesce(sum(balance), 0) from accounts")
		if n := queryOne[int](t, c, fmt.Sprintf("select count(*) from accounts a where balance <> %d + (select coalesce(sum(delta), 0) from history h where h.account = a.id)", start)); n != 0 {
			t.Errorf("shard %d: %d accounts are not what their history says", i, n)
		}
		rows, _ := c.Query(t.Context(), "select tx, count(*)::int from history group by tx")
		var tx string
		var n int
		if _, err := pgx.ForEachRow(rows, []any{&tx, &n}, func() error { parts[tx] += n; return nil }); err != nil {
			t.Fatal(err)
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
	t.Logf("%d kills; %d transfers acknowledged, %d failed, %d in doubt; %d are there", kills, len(acknowledged), failed.Load(), doubtful.Load(), len(parts))
	if len(acknowledged) < 50 || kills < 3 {
		t.Error("hardly anything was tried")
	}
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
	var err error
	switch rng.IntN(3) {
	case 0: // both rows by one statement
		if _, err = c.Exec(ctx, "update accounts set balance = balance + case when id = $1 then $3 else -$3 end where id in ($1, $2)", a, b, sum); err != nil {
			return 0, err
		}
		_, err = c.Exec(ctx, "insert into history values ($1, $4, $3), ($2, $4, -$3::int)", a, b, sum, tx)
	default:
		for _, m := range [][2]int{{a, sum}, {b, -sum}} {
			if _, err = c.Exec(ctx, "update accounts set balance = balance + $2 where id = $1", m[0], m[1]); err != nil {
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
