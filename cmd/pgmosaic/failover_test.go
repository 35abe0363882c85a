package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// attempt is one piece of work of a client: a statement of its own or a transaction.
type attempt struct {
	shard      string
	tx         bool
	begun, end time.Time
	err        error
	told       bool // the server's answer was an error, the connection stands
}

// crowd is many clients that count on both shards, by statements of their own and by transactions.
type crowd struct {
	d     *demo
	ids   map[string][]int // by shard
	acked []atomic.Int64
	mu    sync.Mutex
	all   []attempt
	wg    sync.WaitGroup
	stop  context.CancelFunc
}

func newCrowd(t *testing.T, clients int) *crowd {
	const ids = 128
	d, k := staleWorld(t, ids)
	c := &crowd{d: d, ids: map[string][]int{}, acked: k.acked}
	for i := range ids {
		shard := d.adminExec(t, "LOCATE KEY ("+itoa(i)+") OF shop.counted")[0][4].(string)
		c.ids[shard] = append(c.ids[shard], i)
	}
	ctx, stop := context.WithCancel(t.Context())
	c.stop = stop
	for n := range clients {
		c.wg.Go(func() { c.client(ctx, n) })
	}
	return c
}

func (c *crowd) client(ctx context.Context, n int) {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	shard := []string{"s1", "s2"}[n%2]
	mine := []int{} // counters are one client's each, so that what was acknowledged is known
	for i, id := range c.ids[shard] {
		if i%8 == n/2%8 {
			mine = append(mine, id)
		}
	}
	var conn *pgx.Conn
	for ctx.Err() == nil {
		one, done := context.WithTimeout(context.Background(), 30*time.Second)
		a := attempt{shard: shard, tx: n/16 == 1}
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgx.Connect(one, c.d.shopDSN()); err != nil {
				a.begun, a.end, a.err = time.Now(), time.Now(), err
				c.note(a)
				done()
				return
			}
		}
		id := mine[rng.IntN(len(mine))]
		a.begun = time.Now()
		if a.tx {
			a.err = pgx.BeginFunc(one, conn, func(tx pgx.Tx) error {
				for range 3 {
					if _, err := tx.Exec(one, "update counters set n = n + 1 where id = $1", id); err != nil {
						return err
					}
				}
				return nil
			})
		} else {
			_, a.err = conn.Exec(one, "update counters set n = n + 1 where id = $1", id)
		}
		a.end = time.Now()
		if a.err == nil {
			c.acked[id].Add(map[bool]int64{true: 3, false: 1}[a.tx])
		}
		var pe *pgconn.PgError
		a.told = errors.As(a.err, &pe) && !conn.IsClosed()
		c.note(a)
		if conn.PgConn().TxStatus() != 'I' {
			_, _ = conn.Exec(one, "rollback")
		}
		done()
		time.Sleep(time.Duration(rng.IntN(4)) * time.Millisecond)
	}
	if conn != nil {
		_ = conn.Close(context.Background())
	}
}

func (c *crowd) note(a attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, a)
}

// until waits for a number of attempts of a kind.
func (c *crowd) until(t *testing.T, n int, kind func(attempt) bool) {
	t.Helper()
	within(t, 2*time.Minute, fmt.Sprintf("%d attempts", n), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		got := 0
		for _, a := range c.all {
			if kind(a) {
				got++
			}
		}
		return got >= n
	})
}

// finish stops the crowd and checks that nothing that was acknowledged is missing.
func (c *crowd) finish(t *testing.T) []attempt {
	t.Helper()
	c.stop()
	c.wg.Wait()
	conn := connectTo(t, c.d.shopDSN())
	for id := range c.acked {
		if n := queryOne[int64](t, conn, "select n from counters where id = $1", id); n < c.acked[id].Load() {
			t.Errorf("counter %d is %d, %d was acknowledged", id, n, c.acked[id].Load())
		}
	}
	return c.all
}

// p99 of the attempts on a shard that began in a span.
func p99(all []attempt, shard string, from, to time.Time) time.Duration {
	var list []time.Duration
	for _, a := range all {
		if a.shard == shard && a.begun.After(from) && a.begun.Before(to) {
			list = append(list, a.end.Sub(a.begun))
		}
	}
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)*99/100]
}

// The primary of one of two shards is killed under load, and its synchronous replica promoted some seconds later. What had
// not begun waits; what was in flight is told; nothing that was acknowledged is lost; the other shard does not notice.
func TestFailoverUnderLoad(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, 32)
	begin := time.Now()
	c.until(t, 200, func(a attempt) bool { return true })
	old, next := c.d.cluster.Node("s1-a"), c.d.cluster.Node("s1-b")
	before := time.Now()
	old.Kill()
	killed := time.Now()
	const away = 2 * time.Second
	time.Sleep(away)
	if err := next.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	promoted := time.Now()
	c.until(t, 100, func(a attempt) bool { return a.shard == "s1" && a.begun.After(promoted) })
	all := c.finish(t)
	inFlight, waited, codes := 0, 0, map[string]int{}
	back := time.Duration(0)
	for _, a := range all {
		if a.shard == "s1" && a.err == nil && a.end.After(promoted) && a.begun.Before(killed.Add(away)) {
			waited++
			back = max(back, a.end.Sub(promoted))
		}
		if a.err == nil {
			continue
		}
		code := pgCode(a.err)
		switch {
		case a.shard != "s1":
			t.Errorf("an error on the other shard: %v", a.err)
		case a.begun.After(killed):
			t.Errorf("it began %s after the kill, in a transaction: %t: %v", a.begun.Sub(killed), a.tx, a.err)
		case !a.told || !slices.Contains([]string{"08006", "08007", "40001"}, code):
			t.Errorf("in flight, the session told: %t: %v", a.told, a.err)
		default:
			inFlight++
			codes[code]++
		}
	}
	t.Logf("promoted %s after the kill; %d attempts; %d in flight were told %v; %d waited, the last until %s after the promotion; p99 of the other shard %s, during the failover %s",
		promoted.Sub(killed), len(all), inFlight, codes, waited, back, p99(all, "s2", begin, before), p99(all, "s2", killed, promoted))
	if waited < 6 {
		t.Error("hardly anybody waited")
	}
	// The old primary comes back, on its old timeline: it gets nothing.
	if err := old.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old primary is seen", func() bool {
		why, _ := replicaRow(t, c.d, "s1-a")["reason"].(string)
		return strings.Contains(why, "an old primary, on timeline 1")
	})
	conn := connectTo(t, c.d.shopDSN())
	direct := connectTo(t, old.DSN("shop"))
	wrote := queryOne[int64](t, direct, "select sum(n) from counters")
	for range 20 {
		mustExec(t, conn, "update counters set n = n + 1 where id = $1", c.ids["s1"][0])
	}
	if n := queryOne[int64](t, direct, "select sum(n) from counters"); n != wrote {
		t.Error("the old primary was written to")
	}
	if c.d.adminExec(t, "SHOW SHARDS WHERE shard = 's1'")[0][4] != "s1-b" {
		t.Error("SHOW SHARDS does not name the new primary")
	}
}

// A planned switch-over: the shard is paused, the primary stopped, the replica promoted, the shard resumed. Nobody sees an
// error.
func TestSwitchOverWithoutErrors(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, 32)
	c.until(t, 200, func(a attempt) bool { return true })
	c.d.adminExec(t, "PAUSE shop SHARD s1")
	if err := c.d.cluster.Node("s1-a").Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.d.cluster.Node("s1-b").Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.d.adminExec(t, "RESUME shop SHARD s1")
	resumed := time.Now()
	c.until(t, 100, func(a attempt) bool { return a.shard == "s1" && a.begun.After(resumed) })
	for _, a := range c.finish(t) {
		if a.err != nil {
			t.Errorf("on %s, in a transaction: %t, %s after the end: %v", a.shard, a.tx, a.begun.Sub(resumed), a.err)
		}
	}
}

// A standby is promoted while the old primary still answers: no write is accepted until one is gone or the admin has said
// which is the primary. Both ways are tried.
func TestSplitBrainIsFenced(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"one goes", "the admin decides"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			d := newDemo(t, showcase.Options{Shards: 2, Replicas: 2, NoLoad: true})
			c := connectTo(t, d.shopDSN())
			mustExec(t, c, "create table marks (n int)")
			var acked atomic.Int64
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var wg sync.WaitGroup
			for range 8 {
				x := connectTo(t, d.shopDSN())
				wg.Go(func() {
					for ctx.Err() == nil {
						if _, err := x.Exec(ctx, "insert into marks values (1)"); err == nil {
							acked.Add(1)
						}
					}
				})
			}
			eventually(t, "the writers write", func() bool { return acked.Load() > 50 })
			// The third follows the second, also to its new timeline. Its word for that decides nothing.
			a, b, third := d.cluster.Node("s1-a"), d.cluster.Node("s1-b"), d.cluster.Node("s1-c")
			if err := errors.Join(third.Set("primary_conninfo", conninfo(d, b, third.Name)), third.Exec(t.Context(), "postgres", "select pg_reload_conf()")); err != nil {
				t.Fatal(err)
			}
			onB := connectTo(t, b.DSN("shop"))
			eventually(t, "the third follows the second", func() bool { return queryOne[int](t, onB, "select count(*) from pg_stat_replication") == 1 })
			if err := b.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "both are fenced", func() bool { return d.adminExec(t, "SHOW SHARDS WHERE shard = 's1'")[0][5] == "fenced" })
			eventually(t, "a replica follows the new one", func() bool { return fmt.Sprint(replicaRow(t, d, third.Name)["timeline"]) == "2" })
			onA := connectTo(t, a.DSN("shop"))
			for _, c := range []*pgx.Conn{onA, onB} {
				eventually(t, "what was in flight ends", func() bool {
					return queryOne[int](t, c, "select count(*) from pg_stat_activity where query ~ '^insert into marks' and state <> 'idle'") == 0
				})
			}
			count := func() [2]int {
				return [2]int{queryOne[int](t, onA, "select count(*) from marks"), queryOne[int](t, onB, "select count(*) from marks")}
			}
			before := count()
			for range 10 { // a second in which nothing happens
				time.Sleep(100 * time.Millisecond)
				if now := count(); now != before {
					t.Fatalf("writes were accepted: %v, then %v", before, now)
				}
			}
			winner := a
			if way == "one goes" {
				a.Kill()
				winner = b
			} else {
				if err := adminErr(d, "ALTER SHARD s1 IN shop SET PRIMARY nosuch"); pgOf(err) != "42704" {
					t.Errorf("a node that does not exist: %v", err)
				}
				d.adminExec(t, `ALTER SHARD s1 IN shop SET PRIMARY "s1-a"`)
			}
			eventually(t, "the shard is served", func() bool { return d.adminExec(t, "SHOW SHARDS WHERE shard = 's1'")[0][4] == winner.Name })
			mustExec(t, connectTo(t, d.shopDSN()), "insert into marks values (2)")
			stop()
			wg.Wait()
			w := connectTo(t, winner.DSN("shop"))
			if queryOne[int](t, w, "select count(*) from marks where n = 2") != 1 {
				t.Error("the write did not reach the primary")
			}
			if way == "one goes" {
				return
			}
			if n := queryOne[int64](t, w, "select count(*) from marks where n = 1"); n < acked.Load() {
				t.Errorf("%d rows, %d were acknowledged", n, acked.Load())
			}
			if row := replicaRow(t, d, "s1-b"); !strings.Contains(row["reason"].(string), "SET PRIMARY named another") {
				t.Errorf("SHOW REPLICAS: %v", row)
			}
			// The node that was named dies: the barred one does not take its place. It may again once it is a replica.
			a.Kill()
			eventually(t, "the primary is seen to be down", func() bool { return d.adminExec(t, "SHOW SHARDS WHERE shard = 's1'")[0][5] == "primary down" })
			time.Sleep(500 * time.Millisecond) // five looks at the nodes that change nothing
			if row := d.adminExec(t, "SHOW SHARDS WHERE shard = 's1'")[0]; row[4] != "s1-a" || row[5] != "primary down" {
				t.Errorf("the shard is %v", row)
			}
			if err := a.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			rejoin(t, d, a, b)
			eventually(t, "the node is let in again", func() bool { return replicaRow(t, d, "s1-b")["eligible"] == true })
		})
	}
}

// rejoin makes a node anew as a replica of another.
func rejoin(t *testing.T, d *demo, of, n *cluster.Node) {
	t.Helper()
	name := n.Name
	if err := n.Forget(); err != nil {
		t.Fatal(err)
	}
	again, err := d.cluster.Replica(t.Context(), of, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	d.adminExec(t, "ALTER SHARD s1 IN shop ALTER NODE \""+name+"\" '"+again.DSN("shop")+"'")
}

// pgOf is the SQLSTATE of an error of the admin.
func pgOf(err error) string {
	var s interface{ SQLState() string }
	if errors.As(err, &s) {
		return s.SQLState()
	}
	return ""
}

// The hook is told when a shard loses its primary, and when it has another.
func TestFailoverHook(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 1, Replicas: 1, NoLoad: true})
	cfg := crashConfig(t, mapOf(d, "shop"))
	file := t.TempDir() + "/told"
	cfg.Hook = "echo $PGMOSAIC_EVENT $PGMOSAIC_DATABASE $PGMOSAIC_SHARD $PGMOSAIC_NODE >> " + file
	a := startApp(t, cfg)
	told := func(want string) {
		t.Helper()
		eventually(t, want, func() bool { b, _ := os.ReadFile(file); return string(b) == want })
	}
	told("primary shop s1 s1-a\n")
	d.cluster.Node("s1-a").Kill()
	told("primary shop s1 s1-a\nprimary_lost shop s1\n")
	if err := d.cluster.Node("s1-b").Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	told("primary shop s1 s1-a\nprimary_lost shop s1\nprimary shop s1 s1-b\n")
	if _, err := a.Admin.Exec(t.Context(), "SET failover_hook = 'touch /tmp/owned'", false); pgOf(err) != "55P02" {
		t.Errorf("SET failover_hook: %v", err)
	}
}
