//go:build attack

package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// tally is a table of counters with clients that count in it, and know what each was told.
type tally struct {
	acked, unknown [64]atomic.Int64
	errors         atomic.Int64
	codes          sync.Map
	stop           context.CancelFunc
	wg             sync.WaitGroup
}

// unknown are the codes that leave open what was done.
var unknown = map[string]bool{"08006": true, "08007": true, "40003": true}

// count has clients count until stopped: each its own counters, by statements, transactions over two counters, and reads that must show
// what was acknowledged. A bounded session reads a clock that nobody may see older than its bound.
func count(t *testing.T, d *demo) *tally {
	k := &tally{}
	ctx, stop := context.WithCancel(t.Context())
	k.stop = stop
	const clients = 8
	for n := range clients {
		k.wg.Go(func() {
			var c *pgx.Conn
			for i := 0; ctx.Err() == nil; i++ {
				one, done := context.WithTimeout(context.Background(), 90*time.Second)
				if c == nil || c.IsClosed() {
					var err error
					if c, err = pgx.Connect(one, d.shopDSN()); err != nil {
						k.errors.Add(1)
						done()
						time.Sleep(20 * time.Millisecond)
						continue
					}
				}
				a, b := n+clients*(i%4), n+clients*(i%4)+4*clients
				var err error
				if i%3 == 0 {
					err = pgx.BeginFunc(one, c, func(tx pgx.Tx) error {
						for _, id := range []int{a, b} {
							if _, err := tx.Exec(one, "update tally set n = n + 1 where id = $1", id); err != nil {
								return err
							}
						}
						return nil
					})
				} else {
					_, err = c.Exec(one, "update tally set n = n + 1 where id = any ($1)", []int{a, b})
				}
				told := &k.acked
				if err != nil {
					code := pgCode(err)
					told = nil
					if len(code) != 5 || unknown[code] { // else nothing was done
						told = &k.unknown
					}
					k.errors.Add(1)
					nth, _ := k.codes.LoadOrStore(code, new(atomic.Int64))
					nth.(*atomic.Int64).Add(1)
				}
				if told != nil {
					told[a].Add(1)
					told[b].Add(1)
				}
				if c.PgConn().TxStatus() != 'I' {
					_, _ = c.Exec(one, "rollback")
				}
				var got int64
				if err := c.QueryRow(one, "select n from tally where id = $1", a).Scan(&got); err == nil && got < k.acked[a].Load() {
					t.Errorf("stale: counter %d is %d, %d was acknowledged", a, got, k.acked[a].Load())
				}
				done()
			}
			if c != nil {
				_ = c.Close(context.Background())
			}
		})
	}
	return k
}

// finish stops the clients, and compares.
func (k *tally) finish(t *testing.T, what string, d *demo) {
	t.Helper()
	k.stop()
	k.wg.Wait()
	c := connectTo(t, d.shopDSN())
	eventually(t, what+": nothing is prepared any more", func() bool { return len(d.adminExec(t, "SHOW TRANSACTIONS")) == 0 })
	rows, _ := c.Query(t.Context(), "select id, n from tally")
	seen := map[int]int64{}
	var id int
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &n}, func() error {
		if _, twice := seen[id]; twice {
			t.Errorf("%s: counter %d is there twice", what, id)
		}
		seen[id] = n
		return nil
	}); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if len(seen) != 64 {
		t.Errorf("%s: %d counters", what, len(seen))
	}
	var total int64
	for id := range 64 {
		a, u := k.acked[id].Load(), k.unknown[id].Load()
		total += a
		if seen[id] < a || seen[id] > a+u {
			t.Errorf("%s: counter %d is %d; %d acknowledged, %d not known", what, id, seen[id], a, u)
		}
		if id < 32 && seen[id] != seen[id+32] {
			t.Errorf("%s: torn: counters %d and %d are %d and %d", what, id, id+32, seen[id], seen[id+32])
		}
	}
	codes := map[any]int64{}
	k.codes.Range(func(c, n any) bool { codes[c] = n.(*atomic.Int64).Load(); return true })
	t.Logf("%s: %d acknowledged, %d errors %v", what, total, k.errors.Load(), codes)
	if total == 0 {
		t.Errorf("%s: nothing was counted", what)
	}
}

func (d *demo) isPaused(t *testing.T) string {
	return fmt.Sprint(d.adminExec(t, "SHOW DATABASES WHERE name = 'shop'")[0][16])
}

// moveWorld is two shards, each with a synchronous standby, and a table of counters on home.
func moveWorld(t *testing.T) *demo {
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 1, NoLoad: true})
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "create table tally (id int primary key, n bigint not null, note text)")
	mustExec(t, c, "insert into tally select i, 0 from generate_series(0, 63) i")
	d.adminExec(t, "CREATE GROUP tallied IN shop KEY (int) BY HASH")
	for _, s := range []string{"s1", "s2"} {
		synchronous(t, d.cluster.Node(s+"-a"), s+"-b")
	}
	return d
}

// primaryOf is the node that serves a shard now.
func primaryNow(d *demo, shard string) *cluster.Node {
	v := d.Monitor.View("shop", shard)
	if v == nil || v.Primary < 0 {
		return nil
	}
	return d.cluster.Node(v.Nodes[v.Primary].Name)
}

// failOver kills the primary of a shard and promotes the other node; or starts the killed one again.
func failOver(t *testing.T, d *demo, shard string, promote bool) {
	old := primaryNow(d, shard)
	old.Kill()
	if !promote {
		if err := old.Start(t.Context()); err != nil {
			t.Error(err)
		}
		return
	}
	next := d.cluster.Node(map[bool]string{true: shard + "-b", false: shard + "-a"}[strings.HasSuffix(old.Name, "-a")])
	if err := next.Promote(t.Context()); err != nil {
		t.Error(err)
	}
}

// rebuild gives a shard its synchronous standby again.
func rebuild(t *testing.T, d *demo, shard string) {
	t.Helper()
	p := primaryNow(d, shard)
	name := map[bool]string{true: shard + "-b", false: shard + "-a"}[strings.HasSuffix(p.Name, "-a")]
	n := d.cluster.Node(name)
	if n.Running() {
		return
	}
	if err := n.Forget(); err != nil {
		t.Fatal(err)
	}
	again, err := d.cluster.Replica(t.Context(), p, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	d.adminExec(t, "ALTER SHARD "+shard+" IN shop ALTER NODE \""+name+"\" '"+again.DSN("shop")+"'")
	synchronous(t, p, name)
}

// Primaries die, and are promoted or come back, in each phase of DISTRIBUTE and UNDISTRIBUTE of a table that clients write. Each statement
// ends, with a word on how; nothing is lost, doubled, torn or stale; the table is not left moving, nor the database paused.
func TestAttackFailoversUnderMoves(t *testing.T) {
	d := moveWorld(t)
	phases := map[string][]string{"DISTRIBUTE": {"copying", "catching up", "switching", ""}, "UNDISTRIBUTE": {"", "", "moving"}}
	for _, shard := range []string{"s1", "s2"} {
		for _, promote := range []bool{true, false} {
			for _, verb := range []string{"DISTRIBUTE", "UNDISTRIBUTE"} {
				for nth, phase := range phases[verb] {
					what := fmt.Sprintf("%s, %s dies at %q (%d), promoted: %t", verb, shard, phase, nth, promote)
					sql := "DISTRIBUTE TABLE shop.public.tally IN GROUP tallied KEY (id)"
					back := "UNDISTRIBUTE TABLE shop.public.tally"
					if verb == "UNDISTRIBUTE" {
						sql, back = back, sql
						if err := adminErr(d, back); err != nil && !strings.Contains(err.Error(), "already") {
							t.Fatalf("%s: before: %v", what, err)
						}
					}
					mustExec(t, connectTo(t, d.shopDSN()), "update tally set n = 0")
					mustExec(t, connectTo(t, d.shopDSN()), "insert into tally select i, 0, repeat('x', 200) from generate_series(1000, 20000) i on conflict do nothing")
					k := count(t, d)
					time.Sleep(200 * time.Millisecond)
					ended := make(chan error, 1)
					go func() { ended <- adminErr(d, sql) }()
					over := false
					var err error
					if phase == "" {
						time.Sleep(time.Duration(30+60*nth) * time.Millisecond)
					} else {
						for !over {
							jobs := fmt.Sprint(d.adminExec(t, "SHOW JOBS WHERE database = 'shop' ORDER BY id DESC LIMIT 1"))
							if strings.Contains(jobs, phase) {
								break
							}
							select {
							case err = <-ended:
								over = true
							case <-time.After(time.Millisecond):
							}
						}
					}
					failOver(t, d, shard, promote)
					if !over {
						select {
						case err = <-ended:
						case <-time.After(2 * time.Minute):
							t.Fatalf("%s: it does not end", what)
						}
					}
					t.Logf("%s: after its end: %t: %v", what, over, err)
					eventually(t, what+": the shard is served", func() bool {
						v := d.Monitor.View("shop", shard)
						return v != nil && v.Up()
					})
					time.Sleep(200 * time.Millisecond)
					mustExec(t, connectTo(t, d.shopDSN()), "delete from tally where id >= 1000")
					k.finish(t, what, d)
					if p := d.isPaused(t); p != "0" {
						t.Errorf("%s: the database is paused: %s", what, p)
					}
					// It can be done, or undone, right afterwards.
					for _, sql := range []string{sql, back} {
						err := adminErr(d, sql)
						if err != nil && !strings.Contains(err.Error(), "already") && !strings.Contains(err.Error(), "not distributed") {
							t.Errorf("%s: %s afterwards: %v", what, sql, err)
						}
					}
					if err := adminErr(d, "UNDISTRIBUTE TABLE shop.public.tally"); err != nil && !strings.Contains(err.Error(), "not distributed") {
						t.Errorf("%s: at the end: %v", what, err)
					}
					if n := queryOne[int](t, connectTo(t, d.shopDSN()), "select count(*) from tally"); n != 64 {
						t.Fatalf("%s: %d rows at the end", what, n)
					}
					rebuild(t, d, shard)
					if t.Failed() {
						return
					}
				}
			}
		}
	}
}

// Primaries die under PAUSE of a database and of a shard, under RECONNECT and under RELOAD, while clients write.
func TestAttackFailoversUnderPauseAndReload(t *testing.T) {
	d := moveWorld(t)
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.tally IN GROUP tallied KEY (id)")
	for _, x := range []struct{ sql, after string }{
		{"PAUSE shop", "RESUME shop"}, {"PAUSE shop SHARD s2", "RESUME shop SHARD s2"}, {"PAUSE shop SHARD s1", "RESUME shop SHARD s1"}, {"RELOAD", ""}, {"RECONNECT shop", ""},
	} {
		for _, promote := range []bool{true, false} {
			for _, when := range []string{"before", "beside", "amid"} {
				what := fmt.Sprintf("%s, s2 dies %s, promoted: %t", x.sql, when, promote)
				mustExec(t, connectTo(t, d.shopDSN()), "update tally set n = 0")
				k := count(t, d)
				time.Sleep(200 * time.Millisecond)
				ended := make(chan error, 1)
				run := func() {
					go func() {
						ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
						defer cancel()
						_, err := d.Admin.Exec(ctx, x.sql, false)
						ended <- err
					}()
				}
				switch when {
				case "before":
					primaryNow(d, "s2").Kill()
					run()
					old := primaryNow(d, "s2")
					if promote {
						failOver(t, d, "s2", true)
					} else if err := old.Start(t.Context()); err != nil {
						t.Fatal(err)
					}
				case "beside":
					run()
					failOver(t, d, "s2", promote)
				case "amid":
					run()
					if err := <-ended; err != nil {
						t.Logf("%s: %v", what, err)
					}
					ended <- nil
					failOver(t, d, "s2", promote)
				}
				select {
				case err := <-ended:
					t.Logf("%s: %v", what, err)
				case <-time.After(2 * time.Minute):
					t.Fatalf("%s: it does not end", what)
				}
				if x.after != "" {
					if err := adminErr(d, x.after); err != nil {
						t.Logf("%s: %s: %v", what, x.after, err)
					}
				}
				eventually(t, what+": the shard is served", func() bool {
					v := d.Monitor.View("shop", "s2")
					return v != nil && v.Up()
				})
				c := connectTo(t, d.shopDSN())
				mustExec(t, c, "select count(*) from tally")
				time.Sleep(200 * time.Millisecond)
				k.finish(t, what, d)
				if p := d.isPaused(t); p != "0" {
					t.Errorf("%s: the database is paused: %s", what, p)
				}
				rebuild(t, d, "s2")
			}
		}
	}
}
