// Package replication knows how fresh the copies of a shard are and chooses who answers a read.
//
// The rule: a write acknowledged at time T is on every replica that has replayed a position of the
// primary whose probe was sent after T. So a write costs one time stamp, and no query. Unknown lag never
// means zero: a node that has not been heard of is not eligible.
package replication

import (
	"fmt"
	"sort"
	"time"
)

// LSN is a position in the write-ahead log.
type LSN uint64

func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l)) }

const walPage, walSegment = 8192, 16 << 20

// Round takes back the page header that PostgreSQL adds to an insert position at a page boundary: no
// record ends there, so an idle replica never reaches it.
func (l LSN) Round() LSN {
	switch {
	case l%walSegment == 40:
		return l - 40
	case l%walPage == 24:
		return l - 24
	}
	return l
}

// Sample is what one probe of a node found.
type Sample struct {
	Sent     time.Time // when the probe was sent: what it says holds at least since then
	First    bool      // of its connection: what answers may be another server than before
	Err      error
	Alive    bool   // it answered, if only with a refusal to let the monitor in
	Slow     bool   // it has not answered in time
	Addr     string // where the monitor's connection went
	Primary  bool   // not in recovery
	SystemID string
	Timeline uint32
	Started  time.Time // of the postmaster
	LSN      LSN       // primary: insert position, rounded; replica: replayed
	Received LSN       // replica
	Paused   bool      // replica: replay is paused
}

// Position is a point of a primary's history.
type Position struct {
	Sent time.Time
	LSN  LSN
}

// History is a primary's recent positions, oldest first. Positions and times only grow.
type History struct{ list []Position }

const historyLength = 6000 // ten minutes at the default interval

// Add appends a position. A position below the last one means another timeline: the history begins anew.
func (h *History) Add(p Position) {
	if n := len(h.list); n > 0 && p.LSN < h.list[n-1].LSN {
		h.list = h.list[:0]
	}
	if len(h.list) >= historyLength {
		h.list = append(h.list[:0], h.list[len(h.list)/2:]...)
	}
	h.list = append(h.list, p)
}

// Reset forgets everything: the positions of another primary mean nothing.
func (h *History) Reset() { h.list = h.list[:0] }

// Newest is the last position.
func (h *History) Newest() (Position, bool) {
	if len(h.list) == 0 {
		return Position{}, false
	}
	return h.list[len(h.list)-1], true
}

// Since is the first position that was asked for at a moment or after it. What has replayed past it has all that was
// acknowledged before that moment.
func (h *History) Since(t time.Time) (Position, bool) {
	i := sort.Search(len(h.list), func(i int) bool { return !h.list[i].Sent.Before(t) })
	if i == len(h.list) {
		return Position{}, false
	}
	return h.list[i], true
}

// Reached is the newest position that a replica at l has replayed past.
func (h *History) Reached(l LSN) (Position, bool) {
	lo, hi := 0, len(h.list)
	for lo < hi {
		m := (lo + hi) / 2
		if h.list[m].LSN <= l {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo == 0 {
		return Position{}, false
	}
	return h.list[lo-1], true
}

// Lag is how old a replica's state is: the time since the newest position that it has replayed past. It
// is zero when that is the newest of all and the primary has been heard of lately. ok is false if it is
// not known: if the replica is older than all that is remembered, lag is what it is at least.
func (h *History) Lag(l LSN, now time.Time, maxAge time.Duration) (lag time.Duration, ok bool) {
	newest, any := h.Newest()
	if !any {
		return 0, false
	}
	at, ok := h.Reached(l)
	if !ok {
		return now.Sub(h.list[0].Sent), false
	}
	if at.Sent.Equal(newest.Sent) && now.Sub(at.Sent) <= maxAge {
		return 0, true
	}
	return now.Sub(at.Sent), true
}

// ParseLSN reads PostgreSQL's notation.
func ParseLSN(s string) (LSN, error) {
	var hi, lo uint32
	if _, err := fmt.Sscanf(s, "%X/%X", &hi, &lo); err != nil {
		return 0, fmt.Errorf("%q is no WAL position: %w", s, err)
	}
	return LSN(hi)<<32 | LSN(lo), nil
}
