//go:build attack && linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// clocks are those of nodes, which jump when they are told to.
type clocks struct {
	t   *testing.T
	dir string
}

// fakeClocks starts every node of a demo again, with a clock of its own. A timer that goes off while a server waits sees this machine's
// time: with a clock that is ahead, lock_timeout and its like seem far from over, and begin anew, as after a jump back in the middle of the
// wait; with one that is behind, the first timer that goes off ends all of them. So that for deadlocks is the last.
func fakeClocks(t *testing.T, d *demo) *clocks {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1") // the pattern is well-formed
	if len(found) == 0 {
		t.Fatal("libfaketime is missing: .ci/install faketime, or apt-get install faketime")
	}
	dir, err := testDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cleanTestDir(dir) })
	c := &clocks{t, dir}
	for _, n := range d.cluster.Nodes() {
		c.set("+0s", n)
		if err := errors.Join(n.Stop(), n.Set("deadlock_timeout", "1min")); err != nil {
			t.Fatal(err)
		}
		n.Env = []string{
			"LD_PRELOAD=" + found[0], "FAKETIME_TIMESTAMP_FILE=" + c.file(n), "FAKETIME_NO_CACHE=1",
			"FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1", "FAKETIME_DONT_RESET=1",
		}
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		conn := connectTo(t, n.DSN("postgres"))
		for _, by := range []time.Duration{time.Hour, -time.Hour, 0} {
			c.set(fmt.Sprintf("%+ds", int(by.Seconds())), n)
			if off := time.Until(queryOne[time.Time](t, conn, "select clock_timestamp()")) - by; off.Abs() > time.Minute {
				t.Fatalf("the clock of %s is wrong by %s", n.Name, off)
			}
		}
	}
	return c
}

func (c *clocks) file(n *cluster.Node) string { return filepath.Join(c.dir, n.Name) }

// set has the clocks of nodes differ from this machine's from now on.
func (c *clocks) set(by string, nodes ...*cluster.Node) {
	c.t.Helper()
	for _, n := range nodes {
		if err := os.WriteFile(c.file(n)+".new", []byte(by+"\n"), 0o644); err != nil {
			c.t.Fatal(err)
		}
		if err := os.Rename(c.file(n)+".new", c.file(n)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// Clocks of nodes jump, forwards and back, by an hour and by ten years, under clients that write one shard and two, read fresh and
// within bounds, while a table is distributed and taken back. Nothing is lost, doubled, torn or stale, all ends, and the figures of lag
// make sense.
func TestAttackClocksOfNodesJump(t *testing.T) {
	d := moveWorld(t)
	c := fakeClocks(t, d)
	nodes := d.cluster.Nodes()
	eligible := func(what string) {
		t.Helper()
		for _, name := range []string{"s1-b", "s2-b"} {
			eventually(t, what+": "+name+" is eligible", func() bool { return replicaRow(t, d, name)["eligible"] == true })
			if lag := replicaRow(t, d, name)["lag_ms"]; lag != nil && (lag.(int64) < 0 || lag.(int64) > 60000) {
				t.Errorf("%s: the lag of %s is %v ms", what, name, lag)
			}
		}
	}
	eligible("before")
	_, over := boundedClock(t, d)
	k := count(t, d)
	moved := false
	move := func(what string) {
		t.Helper()
		sql := map[bool]string{false: "DISTRIBUTE TABLE shop.public.tally IN GROUP tallied KEY (id)", true: "UNDISTRIBUTE TABLE shop.public.tally"}[moved]
		ended := make(chan error, 1)
		go func() { ended <- adminErr(d, sql) }()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s: %s: %v", what, sql, err)
				return
			}
			moved = !moved
		case <-time.After(2 * time.Minute):
			t.Fatalf("%s: %s does not end", what, sql)
		}
	}
	for _, who := range [][]*cluster.Node{{d.cluster.Node("s1-a")}, {d.cluster.Node("s2-a")}, {d.cluster.Node("s1-b")}, nodes} {
		for _, by := range []string{"+1h", "+0s", "-1h", "+10y", "-10y", "+0s"} {
			what := fmt.Sprintf("%s and %d more by %s", who[0].Name, len(who)-1, by)
			before := k.counted()
			c.set(by, who...)
			move(what)
			eligible(what)
			eventually(t, what+": clients go on", func() bool { return k.counted() > before+20 })
		}
	}
	var wg sync.WaitGroup // and at any moment
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(70 * time.Millisecond):
				c.set([]string{"+1h", "-1h", "+0s", "-10y", "+10y"}[i%5], nodes[i%len(nodes)])
			}
		}
	})
	for range 6 {
		move("clocks that jump all the time")
	}
	close(stop)
	wg.Wait()
	c.set("+0s", nodes...)
	eligible("after")
	over()
	k.finish(t, "clocks of nodes", d)
	if moved {
		d.adminExec(t, "UNDISTRIBUTE TABLE shop.public.tally")
	}
}

// counted is how much has been acknowledged.
func (k *tally) counted() (n int64) {
	for i := range k.acked {
		n += k.acked[i].Load()
	}
	return n
}

// With clocks that have gone back by an hour, what a dead process has left is finished as soon as ever: parts that are prepared, and a
// decision in flight of a server process that nobody talks to any more. And who waits for a lock for so long at most gives up in time.
func TestAttackClocksGoBackUnderWhatIsLeft(t *testing.T) {
	d := moveWorld(t)
	c := fakeClocks(t, d)
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a")}
	install := d.Catalog.Current().Install + "-clocks" // no other resolver's
	var shards []txn.Shard
	var direct []*pgx.Conn
	for i, n := range nodes {
		db := fmt.Sprintf("clocks_%d", i)
		freshDatabase(t, n, db)
		shards = append(shards, txn.Shard{Whose: anybodys, Name: fmt.Sprintf("r%d", i), DSN: n.DSN(db)})
		direct = append(direct, connectTo(t, n.DSN(db)))
		mustExec(t, direct[i], txn.Schema(i, 1))
	}
	for _, by := range []string{"-1h", "-10y", "+1h", "+10y"} {
		for _, decides := range []bool{false, true} {
			what := fmt.Sprintf("by %s, a decision in flight: %t", by, decides)
			r := &txn.Resolver{Install: install, Grace: 300 * time.Millisecond}
			gid := txn.GID(install, "r0")
			mustExec(t, direct[1], "begin; insert into pgmosaic.decision values ('"+txn.PartGID(gid, 0)+"', 'part'); prepare transaction '"+txn.PartGID(gid, 0)+"'")
			decider := connectTo(t, nodes[0].DSN("clocks_0"))
			if decides {
				mustExec(t, decider, "begin; insert into pgmosaic.decision values ('"+gid+"', 'commit', '{r1}')")
			}
			c.set(by, nodes...)
			eventually(t, what+": the part is finished", func() bool {
				_ = r.Resolve(t.Context(), shards)
				return queryOne[int](t, direct[1], "select count(*) from pg_prepared_xacts where database = current_database()") == 0
			})
			if parts, err := r.List(t.Context(), shards); err != nil || len(parts) != 0 {
				t.Errorf("%s: %v, %v", what, parts, err)
			}
			if decides && decider.Ping(t.Context()) == nil {
				t.Errorf("%s: the decider lives", what)
			}
			if got := queryOne[string](t, direct[0], "select outcome from pgmosaic.decision where gid = $1", gid); got != "abort" {
				t.Errorf("%s: %s", what, got)
			}
			c.set("+0s", nodes...)
		}
	}
	holder := connectTo(t, nodes[0].DSN("shop"))
	mustExec(t, holder, "begin; lock table tally in row exclusive mode")
	c.set("+1h", nodes[0])
	ended := make(chan error, 1)
	go func() { ended <- adminErr(d, "DISTRIBUTE TABLE shop.public.tally IN GROUP tallied KEY (id)") }()
	select {
	case err := <-ended:
		t.Logf("with a lock that is held: %v", err)
		if err == nil {
			t.Error("a table that somebody holds was moved")
		}
	case <-time.After(90 * time.Second):
		t.Fatal("DISTRIBUTE waits for a lock without an end")
	}
	mustExec(t, holder, "rollback")
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.tally IN GROUP tallied KEY (id)")
}
