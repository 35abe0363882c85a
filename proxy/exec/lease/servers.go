// Package lease is what a session holds of servers, and how it is stopped: a cancel request reaches the servers that it holds at that
// moment, and the wait for one that it does not hold yet.
package lease

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/loop"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

// Servers are those that a session holds. Methods that say so may be called by any goroutine, the others by the session's own.
type Servers struct {
	pid    uint32
	log    *slog.Logger
	waited func(time.Duration)

	wait     *pool.Wait // for servers; none before the first
	stopWait func()

	asked  atomic.Bool                 // a cancel request has come since the request began
	why    atomic.Pointer[pgsql.Error] // why the request was cancelled, if not by the client
	ending atomic.Bool                 // it was because the session ends

	mu       sync.Mutex // guards the rest
	held     []*pool.Server
	noCancel bool      // see Heed
	waiting  func()    // ends a wait for a server
	since    time.Time // of that wait
	cause    string    // why the session keeps a server
	kept     time.Time // since when
}

// Open makes the servers those of a session that begins, with the number that its client has. Each wait is told to waited.
func (l *Servers) Open(pid uint32, log *slog.Logger, waited func(time.Duration)) {
	l.pid, l.log, l.waited = pid, log, waited
}

// Track notes a server that was leased. Whoever waits for it meanwhile does it as task, or as any goroutine if that is nil.
func (l *Servers) Track(s *pool.Server, task *loop.Task) {
	s.Lend(l.pid)
	s.SetTask(task)
	l.mu.Lock()
	l.held = append(l.held, s)
	l.mu.Unlock()
}

// Free gives a server back. It panics where the session does not hold it: it may be another's by now.
func (l *Servers) Free(s *pool.Server, now time.Time) {
	if !l.forget(s) {
		panic("lease: the session gives a server of node " + s.Pool.Node + " back that it does not hold")
	}
	s.Release(now)
}

// forget takes a server off the list, if it is there.
func (l *Servers) forget(s *pool.Server) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.held, s)
	if i < 0 {
		return false
	}
	l.held[i] = l.held[len(l.held)-1]
	l.held = l.held[:len(l.held)-1]
	return true
}

// Rest lets go of what a session that holds nothing does not need.
func (l *Servers) Rest() {
	l.mu.Lock()
	if len(l.held) == 0 {
		l.held = nil
	}
	l.mu.Unlock()
}

// All are those that the session holds.
func (l *Servers) All() []*pool.Server {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.held)
}

// Count is how many there are. Any goroutine may call it.
func (l *Servers) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.held)
}

// Any says whether there are any. Only the session changes that, so it needs no lock.
func (l *Servers) Any() bool { return len(l.held) > 0 }

// InUse says whether the session has a server in use. A pause waits for that one, so it must not wait for the pause's end in turn: what a
// statement over shards began before the pause it ends, as a transaction does.
func (l *Servers) InUse() bool {
	return slices.ContainsFunc(l.held, func(s *pool.Server) bool { return !s.Parked() })
}

// Link is the process of the first of them, 0 for none. Any goroutine may call it.
func (l *Servers) Link() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held) == 0 {
		return 0
	}
	return l.held[0].PID
}

// Keep says why the session keeps a server from now on; empty: it keeps none.
func (l *Servers) Keep(cause string) {
	l.mu.Lock()
	l.cause, l.kept = cause, time.Now()
	l.mu.Unlock()
}

// Kept says why the session keeps a server, and since when; empty if it does not. Any goroutine may call it.
func (l *Servers) Kept() (cause string, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause, l.kept
}

// Waiting says since when the session has waited for a server; zero if it does not. Any goroutine may call it.
func (l *Servers) Waiting() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == nil {
		return time.Time{}
	}
	return l.since
}

// Waits makes a context that the client's cancel request ends. done must be called.
func (l *Servers) Waits(ctx context.Context) (wctx context.Context, done func()) {
	wctx, cancel := context.WithCancel(ctx)
	start := l.waitBegins(cancel)
	return wctx, func() {
		l.waitEnds(start)
		cancel()
	}
}

// waitBegins notes that the session waits, and what ends that.
func (l *Servers) waitBegins(stop func()) (start time.Time) {
	start = time.Now()
	l.mu.Lock()
	l.waiting, l.since = stop, start
	l.mu.Unlock()
	return start
}

func (l *Servers) waitEnds(start time.Time) {
	l.mu.Lock()
	l.waiting = nil
	l.mu.Unlock()
	l.waited(time.Since(start))
}
