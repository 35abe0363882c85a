package exec

import (
	"iter"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// shard is what a session knows of one shard.
type shard struct {
	info    *shardmap.ShardInfo
	view    *atomic.Pointer[replication.View]
	pools   []*pool.Pool    // by node
	counts  []*metrics.Node // by node
	whole   uint32          // their slot of what may have written to any of its tables
	seen    time.Time       // when this session last had an answer of any node
	horizon time.Time       // when it last had one of the primary
	wrote   time.Time       // when it last wrote
	floor   time.Time       // what was there then must be seen, whoever wrote it: moved rows, and pgmosaic.horizon
	at      replication.LSN // what a node must have replayed: of pgmosaic.horizon
	last    int             // the node that answered last
	epoch   uint32          // of that node then
	load    []int32
	hash    uint64    // of the shard's name, for the horizons
	any     uint32    // their slot of whatever is written on the shard
	vouched bool      // last was shown to have all that the session saw, by its own word
	tryAt   time.Time // not before then is a replica asked for its word again
}

// shards are what a session knows of the shards of its database, by their index in the map. One that it has not used costs a pointer
// at most: a database may have a thousand, and a process many sessions.
type shards struct {
	e        *Engine
	db, role string

	infos []*shardmap.ShardInfo
	pages [][]*shard
	seen  time.Time // what was there then it must see on all of them
	floor time.Time // rows that have moved to a shard are on its primary
}

// pageShards is how many shards have a page: a session that has used one of them has a pointer for each.
const pageShards = 64

// by are the shards of a newer map. What the session knows of those that it has used goes along.
func (s *shards) by(m *shardmap.Snapshot, infos []*shardmap.ShardInfo) shards {
	next := shards{e: s.e, db: s.db, role: s.role, infos: infos, pages: make([][]*shard, (len(infos)+pageShards-1)/pageShards), seen: s.seen, floor: m.At}
	for _, o := range s.used() {
		for i, info := range infos {
			if info.Name == o.info.Name {
				st := next.at(i)
				st.seen, st.horizon, st.wrote, st.floor, st.at = o.seen, o.horizon, o.wrote, later(o.floor, st.floor), o.at
			}
		}
	}
	return next
}

// at is what the session knows of a shard. It is the session's, until the next map.
func (s *shards) at(i int) *shard {
	page := s.pages[i/pageShards]
	if page == nil {
		page = make([]*shard, min(pageShards, len(s.infos)-i/pageShards*pageShards))
		s.pages[i/pageShards] = page
	}
	st := page[i%pageShards]
	if st == nil {
		st = s.begin(i)
		page[i%pageShards] = st
	}
	return st
}

// begin is what is known of a shard that has not been used.
func (s *shards) begin(i int) *shard {
	info, h := s.infos[i], s.e.Horizon
	st := &shard{info: info, hash: h.Shard(s.db, info.Name), last: -1, seen: s.seen, floor: later(s.seen, s.floor)}
	st.whole, st.any = h.Slot(st.hash, "", 0), h.Slot(st.hash, "", anyWrite)
	for _, n := range info.Nodes {
		st.pools = append(st.pools, s.e.Pools.Pool(s.db, info.Name, n.Name, n.DSN, s.role))
		st.counts = append(st.counts, s.e.Metrics.Node(s.db, info.Name, n.Name))
	}
	return st
}

// uses says whether the session has used a shard, or must see what was there when it was told of all.
func (s *shards) uses(i int) bool {
	page := s.pages[i/pageShards]
	return !s.seen.IsZero() || page != nil && page[i%pageShards] != nil
}

// whole is the slot, in the horizons, of what may have written to any table of a shard.
func (s *shards) whole(i int) uint32 {
	return s.e.Horizon.Slot(s.e.Horizon.Shard(s.db, s.infos[i].Name), "", 0)
}

// name is a shard's.
func (s *shards) name(i int) string { return s.infos[i].Name }

// used are those that the session has used, by index.
func (s *shards) used() iter.Seq2[int, *shard] {
	return func(yield func(int, *shard) bool) {
		for p, page := range s.pages {
			for i, st := range page {
				if st != nil && !yield(p*pageShards+i, st) {
					return
				}
			}
		}
	}
}

// seeAll has the session see on every shard what is there now.
func (s *shards) seeAll(now time.Time) {
	s.seen = now
	for _, st := range s.used() {
		st.seen, st.floor = now, now
	}
}
