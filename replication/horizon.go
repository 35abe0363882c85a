package replication

import (
	"hash/maphash"
	"sync/atomic"
	"time"
)

const horizonSlots = 1 << 16

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

// Shard stands for a shard of a database in Slot.
func (h *Horizons) Shard(database, shard string) uint64 {
	return maphash.String(h.seed, database+"\x00"+shard)
}

// Slot is the slot of a table of a shard, or for a key that is not 0 of its rows with that key. The empty table stands for
// the shard as a whole.
func (h *Horizons) Slot(shard uint64, table string, key uint64) uint32 {
	x := shard ^ maphash.String(h.seed, table)
	x = (x ^ key*0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9 // a step of SplitMix64: keys that are near each other are apart here
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return uint32((x ^ x>>31) % horizonSlots)
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
