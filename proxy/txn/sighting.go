package txn

import (
	"maps"
	"sync"
	"time"
)

// A node's clock may jump: an hour back, and nothing there grows old for an hour; an hour forward, and all of it is old at once. So what
// must wait for a time waits by this process's own clock, which never jumps, from when it was seen first. A node's clock may only make
// the wait shorter where that is harmless.

// sightings remember when things on nodes were seen. The zero value is ready for use. All methods are safe for any goroutine.
type sightings struct {
	mu   sync.Mutex // guards seen
	seen map[string]sighting
}

type sighting struct {
	first, last time.Time
	open        map[string]bool // transactions that had begun then, and have not ended since; nil if none matter
}

// age notes that something is there, and tells how long ago it was seen first.
func (s *sightings) age(what string, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Sub(s.see(what, now).first)
}

// outlived is age. ended says besides that every transaction has ended that was open when the thing was seen first; open are those that are now.
func (s *sightings) outlived(what string, now time.Time, open map[string]bool) (age time.Duration, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.see(what, now)
	if x.open == nil {
		x.open = maps.Clone(open)
	}
	maps.DeleteFunc(x.open, func(t string, _ bool) bool { return !open[t] })
	s.seen[what] = x
	return now.Sub(x.first), len(x.open) == 0
}

// see is the sighting of a thing that is there now.
func (s *sightings) see(what string, now time.Time) sighting {
	x, known := s.seen[what]
	if !known {
		x.first = now
	}
	x.last = now
	if s.seen == nil {
		s.seen = map[string]sighting{}
	}
	s.seen[what] = x
	return x
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
	maps.DeleteFunc(s.seen, func(_ string, x sighting) bool { return x.last.Before(since) })
}
