package pool

import (
	"context"
	"errors"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/loop"
)

// Wait is what a session waits for servers with: for one at a time, again and again, so that nothing is made for a wait. The
// zero value is not ready.
type Wait struct {
	got   chan *Server // a server, or nil for leave to dial one
	stop  chan struct{}
	since time.Time
	task  *loop.Task // who waits
	late  bool       // nil is no leave: query_wait_timeout has passed. Set before it is sent
}

// NewWait makes one for a task; nil is any goroutine.
func NewWait(t *loop.Task) *Wait {
	return &Wait{got: make(chan *Server, 1), stop: make(chan struct{}, 1), task: t}
}

// hand ends a wait in the queue with a server, or with nil. The wait is in no queue any more.
func (w *Wait) hand(s *Server) {
	w.got <- s
	w.task.Resume()
}

// The ways in which a wait ends without a server or a fault.
var (
	ErrStopped = errors.New("pool: the wait was stopped")
	ErrMoved   = errors.New("pool: the node is no longer the one that is wanted")
)

// Stop ends the wait that has begun, with ErrStopped. Any goroutine may call it.
func (w *Wait) Stop() {
	select {
	case w.stop <- struct{}{}:
		w.task.Resume()
	default:
	}
}

// Begin is called before each wait: it forgets a Stop that came too late for the last.
func (w *Wait) Begin() {
	select {
	case <-w.stop:
	default:
	}
}

// during runs what waits in another way than in the queue. Its context ends when the wait is to end.
func (w *Wait) during(ctx context.Context, moved <-chan struct{}, f func(context.Context) error) error {
	w.task.Leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with the wait
		select {
		case <-w.stop:
			cancel(ErrStopped)
		case <-moved:
			cancel(ErrMoved)
		case <-ctx.Done():
		}
	}()
	err := f(ctx)
	if why := context.Cause(ctx); err != nil && (errors.Is(why, ErrStopped) || errors.Is(why, ErrMoved)) {
		return why
	}
	return err
}

// shortWait is the query_wait_timeout from which on no timer is made for a wait: the pools are looked after often enough.
const shortWait = 5 * time.Second

// await waits in the queue, where w is.
func (p *Pool) await(ctx context.Context, w *Wait, moved <-chan struct{}) (*Server, error) {
	var tooLong <-chan time.Time
	if d := p.mgr.opts.Load().WaitTimeout; d < shortWait {
		w.task.Leave()
		t := time.NewTimer(d)
		defer t.Stop()
		tooLong = t.C
	}
	for w.task.CanPause() && len(w.got) == 0 && len(w.stop) == 0 && !closed(ctx.Done()) && !closed(moved) { // a task of a loop is woken to look, as often as pools are looked after
		w.task.Pause()
	}
	select {
	case s := <-w.got:
		if s == nil && w.late {
			return nil, p.waitError(ctx, context.DeadlineExceeded)
		}
		p.mu.Lock()
		p.waited += time.Since(w.since)
		p.mu.Unlock()
		return s, nil
	case <-ctx.Done():
		return nil, p.leave(w, p.waitError(ctx, ctx.Err()))
	case <-w.stop:
		return nil, p.leave(w, ErrStopped)
	case <-moved:
		return nil, p.leave(w, ErrMoved)
	case <-tooLong:
		return nil, p.leave(w, p.waitError(ctx, context.DeadlineExceeded))
	}
}

// closed says whether a channel on which nothing is sent is closed. A nil one is not.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// poke has all who wait look at what they wait for besides a server.
func (p *Pool) poke() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.waiters {
		w.task.Resume()
	}
}

// leave gives up a place in the queue, or what was handed over just now.
func (p *Pool) leave(w *Wait, err error) error {
	p.mu.Lock()
	for i, x := range p.waiters {
		if x == w {
			p.waiters = append(p.waiters[:i], p.waiters[i+1:]...)
			p.mu.Unlock()
			return err
		}
	}
	p.mu.Unlock()
	switch s := <-w.got; {
	case s != nil:
		p.release(s, time.Now())
	case !w.late:
		p.back(nil)
	}
	return err
}

// tooLate sends those away who have waited for query_wait_timeout.
func (p *Pool) tooLate(now time.Time) {
	d := p.mgr.opts.Load().WaitTimeout
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.waiters) > 0 && now.Sub(p.waiters[0].since) >= d { // first come, first in the queue
		w := p.waiters[0]
		p.waiters = p.waiters[1:]
		w.late = true
		w.hand(nil)
	}
}
