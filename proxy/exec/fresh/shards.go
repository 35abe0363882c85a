// Package fresh knows, for a session, what it has seen of each shard, and so which node may answer its next read: none that would
// show it less than it must see. It sends nothing to servers.
package fresh

import (
	"iter"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Sources are what all sessions share.
type Sources struct {
	Horizon *replication.Horizons
	Monitor Views
	Pools   *pool.Manager
	Metrics *metrics.Metrics
}

// Views are what is known of nodes: a replication.Monitor's.
type Views interface {
	Policy() replication.Policy
	Slot(database, shard string) *atomic.Pointer[replication.View] // nil while there is none
}

// Shards are what a session knows of the shards of its database, by their index in the map. One that it has not used costs a pointer
// at most: a database may have a thousand, and a process many sessions. Only the session's own goroutine uses them.
type Shards struct {
	Infos []*shardmap.ShardInfo

	from     *Sources
	db, role string
	pages    [][]*Shard
	seen     time.Time // what was there then it must see on all of them
	floor    time.Time // rows that have moved to a shard are on its primary
}

// Shard is what a session knows of one shard.
type Shard struct {
	Info   *shardmap.ShardInfo
	Pools  []*pool.Pool    // by node
	Counts []*metrics.Node // by node

	from    *Sources
	db      string
	view    *atomic.Pointer[replication.View]
	hash    uint64          // of the shard's name, for the horizons
	whole   uint32          // their slot of what may have written to any of its tables
	any     uint32          // their slot of whatever is written on the shard
	seen    time.Time       // when this session last had an answer of any node
	horizon time.Time       // when it last had one of the primary
	wrote   time.Time       // when it last wrote
	owed    bool            // a write of its was told before it was committed here: see Owed
	floor   time.Time       // what was there then must be seen, whoever wrote it: moved rows, and pgmosaic.horizon
	at      replication.LSN // what a node must have replayed: of pgmosaic.horizon
	last    int             // the node that answered last, a replica; -1: none
	epoch   uint32          // of that node then
	vouched bool            // last was shown to have all that the session saw, by its own word
	tryAt   time.Time       // not before then is a replica asked for its word again
	load    []int32
	keys    []uint32

	Drawn uint64 // which of the session's draws from sequences was the last there; 0: none
}

// pageShards is how many shards have a page: a session that has used one of them has a pointer for each.
const pageShards = 64

// Open is what a session knows that begins: nothing. It has shards when By was called.
func (f *Sources) Open(db, role string) Shards { return Shards{from: f, db: db, role: role} }

// By are the shards of a newer map. What the session knows of those that it has used goes along.
func (s *Shards) By(m *shardmap.Snapshot, infos []*shardmap.ShardInfo) Shards {
	next := Shards{from: s.from, db: s.db, role: s.role, Infos: infos, pages: make([][]*Shard, (len(infos)+pageShards-1)/pageShards), seen: s.seen, floor: m.At}
	for _, o := range s.used() {
		for i, info := range infos {
			if info.Name == o.Info.Name {
				st := next.At(i)
				st.seen, st.horizon, st.wrote, st.owed, st.floor, st.at = o.seen, o.horizon, o.wrote, o.owed, later(o.floor, st.floor), o.at
				st.Drawn = o.Drawn
			}
		}
	}
	return next
}

// At is what the session knows of a shard. It is good until the next map.
func (s *Shards) At(i int) *Shard {
	page := s.pages[i/pageShards]
	if page == nil {
		page = make([]*Shard, min(pageShards, len(s.Infos)-i/pageShards*pageShards))
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
func (s *Shards) begin(i int) *Shard {
	info, h := s.Infos[i], s.from.Horizon
	st := &Shard{Info: info, from: s.from, db: s.db, hash: h.Shard(s.db, info.Name), last: -1, seen: s.seen, floor: later(s.seen, s.floor)}
	st.whole, st.any = h.Slot(st.hash, "", anyRow), h.Slot(st.hash, "", anyWrite)
	for _, n := range info.Nodes {
		st.Pools = append(st.Pools, s.from.Pools.Pool(s.db, info.Name, n.Name, n.DSN, s.role))
		st.Counts = append(st.Counts, s.from.Metrics.Node(s.db, info.Name, n.Name))
	}
	return st
}

// Uses says whether the session has used a shard, or must see what was there when it was told of all.
func (s *Shards) Uses(i int) bool {
	page := s.pages[i/pageShards]
	return !s.seen.IsZero() || page != nil && page[i%pageShards] != nil
}

// Whole is the slot, in the horizons, of what may have written to any table of a shard. The shard is not used by it.
func (s *Shards) Whole(i int) uint32 {
	return s.from.Horizon.Slot(s.from.Horizon.Shard(s.db, s.Infos[i].Name), "", anyRow)
}

// Name is a shard's.
func (s *Shards) Name(i int) string { return s.Infos[i].Name }

// used are those that the session has used, by index.
func (s *Shards) used() iter.Seq2[int, *Shard] {
	return func(yield func(int, *Shard) bool) {
		for p, page := range s.pages {
			for i, st := range page {
				if st != nil && !yield(p*pageShards+i, st) {
					return
				}
			}
		}
	}
}

// SeeAll has the session see on every shard what is there now.
func (s *Shards) SeeAll(now time.Time) {
	s.seen = now
	for _, st := range s.used() {
		st.seen, st.floor = now, now
	}
}

// View is the shard's newest view, nil while there is none that fits the map in use.
func (s *Shard) View() *replication.View {
	var v *replication.View
	if s.view != nil {
		v = s.view.Load()
	}
	if v == nil { // not looked for yet, or that place is of a shard of the same name that was dropped
		if s.view = s.from.Monitor.Slot(s.db, s.Info.Name); s.view == nil {
			return nil
		}
		v = s.view.Load()
	}
	if v == nil || !s.fits(v) {
		return nil
	}
	return v
}

// fits says whether a view is of the nodes that the map in use names: what is chosen by their numbers in the view would be others' else.
func (s *Shard) fits(v *replication.View) bool {
	if len(v.Nodes) != len(s.Info.Nodes) {
		return false
	}
	for i, n := range s.Info.Nodes {
		if x := &v.Nodes[i]; x.DSN != n.DSN || x.Name != n.Name {
			return false
		}
	}
	return true
}

// Settled notes that what the session did on a node has an outcome.
func (s *Shard) Settled(now time.Time, wrote, replica bool) {
	s.seen = now // what was seen must be seen again, on whatever node
	if wrote {
		s.wrote = now
	}
	if wrote || !replica {
		s.horizon, s.vouched = now, false
	}
}

// Owed notes that a commit of the session's was told, and is to be finished on the shard: later than the session takes it to have written. Whoever
// finishes it says that he has written, to whatever table. Ask no replica before that.
func (s *Shard) Owed() { s.owed = true }

// Reach has the session see all that lies before a position of the shard's present primary.
func (s *Shard) Reach(at replication.LSN) { s.at = max(s.at, at) }

// Seen says whether the session has seen anything of the shard, and a position that a node must have replayed.
func (s *Shard) Seen() (at replication.LSN, any bool) { return s.at, !s.seen.IsZero() || s.at != 0 }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
