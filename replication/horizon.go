package replication

import (
	"hash/maphash"
	"sync/atomic"
	"time"
)

const horizonSlots = 4096

// Horizons remembers when this process last acknowledged a write to each table of each shard. Keys that
// collide share a slot, which can only make a read more careful. All methods are safe for any goroutine
// and allocate nothing.
type Horizons struct {
	seed  maphash.Seed
	start time.Time
	slots [horizonSlots]slot
}

type slot struct {
	acked    atomic.Int64 // nanoseconds since start
	inFlight atomic.Int32 // writes sent and not yet acknowledged
}

// NewHorizons begins at start: what was acknowledged before it, by whoever, counts as acknowledged then.
func NewHorizons(start time.Time) *Horizons {
	return &Horizons{seed: maphash.MakeSeed(), start: start}
}

// Key is the slot of a table of a shard; the empty table stands for the shard as a whole.
func (h *Horizons) Key(database, shard, table string) uint32 {
	return uint32(maphash.String(h.seed, database+"\x00"+shard+"\x00"+table) % horizonSlots)
}

// Sent notes that a write is on its way: from here on it may be visible on the primary.
func (h *Horizons) Sent(key uint32) { h.slots[key].inFlight.Add(1) }

// Acked notes its end, whatever the outcome: an unknown one may have been a commit.
func (h *Horizons) Acked(key uint32, now time.Time) {
	s := &h.slots[key]
	n := int64(now.Sub(h.start))
	for {
		old := s.acked.Load()
		if n <= old || s.acked.CompareAndSwap(old, n) {
			break
		}
	}
	s.inFlight.Add(-1)
}

// Horizon is the time up to which a replica must be fresh to be read for this key. A write in flight
// makes that the future.
func (h *Horizons) Horizon(key uint32) time.Time {
	s := &h.slots[key]
	if s.inFlight.Load() > 0 {
		return h.start.Add(1 << 60)
	}
	return h.start.Add(time.Duration(s.acked.Load()))
}
