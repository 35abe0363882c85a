package fresh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// database is a map with n shards of one node each.
func database(t testing.TB, n int) *shardmap.Snapshot {
	doc := &shardmap.Document{Version: 1, Databases: []*shardmap.Database{{Name: "d", Home: "s0"}}}
	for i := range n {
		name := fmt.Sprintf("s%d", i)
		doc.Shards = append(doc.Shards, &shardmap.Shard{Database: "d", Name: name, Ordinal: i})
		doc.Nodes = append(doc.Nodes, &shardmap.Node{Database: "d", Shard: name, Name: name, DSN: "postgres://127.0.0.1:1/" + name})
	}
	s, err := shardmap.Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sources() *Sources {
	return &Sources{Horizon: replication.NewHorizons(time.Now()), Pools: pool.NewManager(pool.Options{Verify: pool.Unasked("a test")}), Metrics: metrics.New(time.Now())}
}

// What a session knows of shards goes along when the map changes, by their names; of others it knows that what is there by then must be seen.
func TestShardsKeepWhatTheSessionKnows(t *testing.T) {
	e, m := sources(), database(t, 200)
	m.At = time.Now()
	none := e.Open("d", "r")
	s := none.By(m, m.Databases["d"].Shards)
	if s.Uses(150) {
		t.Fatal("a shard is used before it is")
	}
	seen := time.Now().Add(time.Minute)
	s.At(150).seen, s.At(150).at = seen, 7
	s.At(3).wrote = seen
	fewer := database(t, 151)
	d := fewer.Databases["d"]
	d.Shards = d.Shards[1:] // each has another place
	fewer.At = m.At.Add(time.Second)
	next := s.By(fewer, d.Shards)
	if st := next.At(149); st.Info.Name != "s150" || !st.seen.Equal(seen) || st.at != 7 || !st.floor.Equal(fewer.At) {
		t.Errorf("of s150 is known: %+v", st)
	}
	if st := next.At(2); !st.wrote.Equal(seen) {
		t.Errorf("of s3 is known: %+v", st)
	}
	if next.Uses(4) {
		t.Error("a shard is used that never was")
	}
	if st := next.At(4); !st.seen.IsZero() || !st.floor.Equal(fewer.At) || len(st.Pools) != 1 {
		t.Errorf("of a shard that was not used is known: %+v", st)
	}
	now := time.Now().Add(2 * time.Minute)
	next.SeeAll(now)
	for _, i := range []int{2, 77, 149} {
		if st := next.At(i); !next.Uses(i) || !st.seen.Equal(now) || !st.floor.Equal(now) {
			t.Errorf("shard %d: %+v", i, st)
		}
	}
	last := next.By(m, m.Databases["d"].Shards)
	if st := last.At(199); !last.Uses(199) || !st.seen.Equal(now) || !st.floor.Equal(now) {
		t.Errorf("behind the next map: %+v", st)
	}
}

// watched is a monitor, with the map that it follows.
type watched struct {
	t   *testing.T
	c   *shardmap.Catalog
	src *Sources
	mon *replication.Monitor
}

// watch begins with home and a shard s of some nodes. None of them answers.
func watch(t *testing.T, nodes ...string) *watched {
	c, err := shardmap.Open(t.Context(), filestore.New(filepath.Join(t.TempDir(), "map.json")), "i")
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{t: t, c: c, src: sources()}
	w.change(func(tx *shardmap.Tx) error {
		return errors.Join(tx.PutDatabase(shardmap.Database{Name: "d", Home: "home"}), putShard(tx, "home", 0, "h"), putShard(tx, "s", 1, nodes...))
	})
	w.mon = replication.NewMonitor(replication.DefaultPolicy(), c, replication.Events{}, slog.New(slog.DiscardHandler))
	w.src.Monitor = w.mon
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- w.mon.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ran; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	w.until(func() bool { return w.mon.View("d", "s") != nil })
	return w
}

func putShard(tx *shardmap.Tx, name string, ordinal int, nodes ...string) error {
	err := tx.PutShard(shardmap.Shard{Database: "d", Name: name, Ordinal: ordinal})
	for i, n := range nodes {
		err = errors.Join(err, tx.PutNode(shardmap.Node{Database: "d", Shard: name, Name: n, DSN: "postgres://127.0.0.1:1/" + n, Ordinal: i}))
	}
	return err
}

func (w *watched) change(edit func(tx *shardmap.Tx) error) {
	w.t.Helper()
	if _, err := w.c.Change(w.t.Context(), false, edit); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watched) until(done func() bool) {
	w.t.Helper()
	for range 10000 {
		if done() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	w.t.Fatal("the monitor has not taken the map over")
}

// session is what a session knows of the shard that begins now.
func (w *watched) session() *Shard {
	none := w.src.Open("d", "r")
	m := w.c.Current()
	s := none.By(m, m.Databases["d"].Shards)
	return s.At(1)
}

// A shard that is dropped and made again is seen in its new place, also by a session that has the newest map before the monitor has it.
func TestAShardMadeAgainIsSeenWhereItIs(t *testing.T) {
	w := watch(t, "a")
	st := w.session()
	old := st.View() // by the place that is the shard's then
	if old == nil {
		t.Fatal("no view")
	}
	w.change(func(tx *shardmap.Tx) error {
		return errors.Join(tx.Delete("nodes", "d", "s", "a"), tx.Delete("shards", "d", "s"))
	})
	w.until(func() bool { return w.src.Monitor.Slot("d", "s") == nil })
	if v := st.View(); v != nil {
		t.Errorf("a shard that was dropped has a view: %+v", v)
	}
	w.change(func(tx *shardmap.Tx) error { return putShard(tx, "s", 1, "a") })
	w.until(func() bool { return w.mon.View("d", "s") != nil })
	if v := st.View(); v == nil || v.Changed() == old.Changed() {
		t.Errorf("the shard that was made again is not seen: %+v", v)
	}
}

// A view of as many nodes as the map in use names is not one that fits it: the numbers of others would be taken for theirs, and what is
// written would go to a node that is none of the shard's any more.
func TestAViewOfOtherNodesDoesNotFit(t *testing.T) {
	for what, edit := range map[string]func(tx *shardmap.Tx) error{
		"a node goes and another comes": func(tx *shardmap.Tx) error {
			return errors.Join(tx.Delete("nodes", "d", "s", "a"), tx.PutNode(shardmap.Node{Database: "d", Shard: "s", Name: "c", DSN: "postgres://127.0.0.1:1/c", Ordinal: 2}))
		},
		"a node is another server": func(tx *shardmap.Tx) error {
			return tx.PutNode(shardmap.Node{Database: "d", Shard: "s", Name: "a", DSN: "postgres://127.0.0.1:1/c", Ordinal: 0})
		},
	} {
		w := watch(t, "a", "b")
		st := w.session()
		if st.View() == nil {
			t.Fatal("no view")
		}
		before := w.mon.View("d", "s").Nodes[0]
		w.change(edit)
		w.until(func() bool { return w.mon.View("d", "s").Nodes[0].DSN != before.DSN })
		if v := st.View(); v != nil {
			t.Errorf("%s: %q is taken for %q", what, v.Nodes[0].DSN, st.Info.Nodes[0].DSN)
		}
		if v := w.session().View(); v == nil {
			t.Errorf("%s: a session that begins has no view", what)
		}
	}
	w := watch(t, "a", "b")
	st := w.session()
	w.change(func(tx *shardmap.Tx) error {
		return tx.PutNode(shardmap.Node{Database: "d", Shard: "s", Name: "a", DSN: "postgres://127.0.0.1:1/a", Ordinal: 0, Zone: "z"})
	})
	w.until(func() bool { return w.mon.View("d", "s").Nodes[0].Zone == "z" })
	if st.View() == nil {
		t.Error("a node in another zone is another node")
	}
}

// A session costs what it uses: of a thousand shards hardly more than of two.
func TestUnusedShardsCostNothing(t *testing.T) {
	cost := func(n int) int {
		e, m := sources(), database(t, n)
		const sessions = 500
		all := make([]Shards, sessions)
		none := e.Open("d", "r")
		for i := range n { // what all sessions share
			s := none.By(m, m.Databases["d"].Shards)
			s.At(i)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range all {
			all[i] = none.By(m, m.Databases["d"].Shards)
			all[i].At(i % n)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(all)
		return int(after.HeapAlloc-before.HeapAlloc) / sessions
	}
	few, many := cost(2), cost(1000)
	t.Logf("a session that has used one shard: %d bytes of 2, %d of 1000", few, many)
	if many > few+2<<10 {
		t.Errorf("a session that has used one shard holds %d bytes where there are 2, and %d where there are 1000", few, many)
	}
}
