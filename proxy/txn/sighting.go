package txn

import (
	"crypto/sha256"
	"maps"
	"sync"
	"time"
)

// A node's clock may jump: an hour back, and nothing there grows old for an hour; an hour forward, and all of it is old at once. So what
// must wait for a time waits by this process's own clock, which never jumps, from when it was seen first. A node's clock may only make
// the wait shorter where that is harmless.

// mostSighted is how many things a list remembers.
const mostSighted = 1 << 18

// sightings remember when things on nodes were seen. The zero value is ready for use. All methods are safe for any goroutine.
//
// A list is outside memory_limit, and bounded: it has mostSighted things, of 80 bytes or so whatever they are called, and the open
// transactions of each shard once, as many as its servers take connections. What is new when it is full is seen for the first time each
// time, so what waits for its age waits until there is room: that is put off, and nothing is done too early.
type sightings struct {
	mu    sync.Mutex // guards the rest
	began time.Time  // times are kept as those since
	seen  map[[16]byte]sighting
	open  map[string]map[string]time.Duration // by shard: transactions that were open when somebody looked last, and since when they are known
}

type sighting struct{ first, last time.Duration }

// age notes that something is there, and tells how long ago it was seen first.
func (s *sightings) age(what string, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.since(now)
	return at - s.see(what, at).first
}

// opened notes which transactions are open on a shard.
func (s *sightings) opened(shard string, now time.Time, open map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.since(now)
	if s.open == nil {
		s.open = map[string]map[string]time.Duration{}
	}
	known := make(map[string]time.Duration, len(open))
	for t := range open {
		known[t] = at
		if first, was := s.open[shard][t]; was {
			known[t] = first
		}
	}
	s.open[shard] = known
}

// outlived is age. It says besides whether every transaction of the shard has ended that was open when the thing was seen first. Call
// opened before the first look at each time.
func (s *sightings) outlived(shard, what string, now time.Time) (age time.Duration, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.since(now)
	x := s.see(what, at)
	for _, first := range s.open[shard] {
		if first <= x.first {
			return at - x.first, false
		}
	}
	return at - x.first, true
}

// since is a time as it is kept.
func (s *sightings) since(now time.Time) time.Duration {
	if s.seen == nil {
		s.began, s.seen = now, map[[16]byte]sighting{}
	}
	return now.Sub(s.began)
}

// see is the sighting of a thing that is there now.
func (s *sightings) see(what string, at time.Duration) sighting {
	key := digest(what)
	x, known := s.seen[key]
	if !known {
		if len(s.seen) >= mostSighted {
			return sighting{at, at}
		}
		x.first = at
	}
	x.last = at
	s.seen[key] = x
	return x
}

// digest stands for a thing's name: no two have the same.
func digest(what string) [16]byte {
	sum := sha256.Sum256([]byte(what))
	return [16]byte(sum[:16])
}

// gone drops things that are not there any more.
func (s *sightings) gone(what []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range what {
		delete(s.seen, digest(w))
	}
}

// forget has lists drop what has not been seen for a time, nor when somebody looked last: that may be longer ago. It returns when that is
// the next time.
func forget(looked, now time.Time, after time.Duration, lists ...*sightings) time.Time {
	since := now.Add(-after)
	if looked.Before(since) {
		since = looked
	}
	for _, s := range lists {
		s.forget(since)
	}
	return now
}

// forget drops what has not been seen since a moment.
func (s *sightings) forget(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := since.Sub(s.began)
	maps.DeleteFunc(s.seen, func(_ [16]byte, x sighting) bool { return x.last < at })
}
