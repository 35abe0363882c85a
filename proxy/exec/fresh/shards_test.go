package fresh

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/shardmap"
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
	return &Sources{Horizon: replication.NewHorizons(time.Now()), Pools: pool.NewManager(pool.Options{}), Metrics: metrics.New(time.Now())}
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
