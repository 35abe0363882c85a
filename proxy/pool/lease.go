package pool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Pool is the servers of one node, database and role.
type Pool struct {
	Database, Shard, Node, Role string

	mgr   *Manager
	key   poolKey
	gates [2]*gate // the database's and the shard's

	suspect atomic.Int64 // until then, since the manager's start, every server is asked whether it lives
	recalls atomic.Bool  // see Recall

	mu       sync.Mutex           // guards the rest; slow work never happens under it
	all      map[*Server]struct{} // open ones, in whatever state
	idle     []*Server            // last used last
	waiters  []*Wait              // first come first
	active   int                  // leases, with and without a server yet
	dialing  int
	testing  int // being inspected
	gen      uint64
	failed   error // the last login's failure
	until    time.Time
	used     time.Time
	lastAged time.Time
	served   uint64
	waited   time.Duration
}

// Stats is one moment of a pool.
type Stats struct {
	Active, Idle, Dialing, Testing, Waiting int
	Cancelling                              int           // in use, with a cancel request on its way
	MaxWait                                 time.Duration // of those still waiting
	Served                                  uint64
	Waited                                  time.Duration // in all
	LastError                               error
}

// Stats counts. Any goroutine may call it.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{
		Active: p.active - p.dialing - p.testing, Idle: len(p.idle), Dialing: p.dialing, Testing: p.testing, Waiting: len(p.waiters), Served: p.served, Waited: p.waited,
	}
	for x := range p.all {
		if x.pendingCancels.Load() > 0 {
			s.Cancelling++
		}
	}
	if len(p.waiters) > 0 {
		s.MaxWait = time.Since(p.waiters[0].since)
	}
	if time.Now().Before(p.until) {
		s.LastError = p.failed
	}
	return s
}

// Busy is the number of leases, those that are still dialling included, and those of parked servers not.
func (p *Pool) Busy() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.active - p.testing
	for s := range p.all {
		if s.Parked() {
			n--
		}
	}
	return n
}

// LimitError means that no server came free in time.
type LimitError struct{ Message, Hint string }

func (e *LimitError) Error() string { return e.Message }

// SQLState is PostgreSQL's too_many_connections.
func (e *LimitError) SQLState() string { return pgsql.TooManyConnections }

// ErrorHint says what to do.
func (e *LimitError) ErrorHint() string { return e.Hint }

// Acquire leases a server, preferably one that carries the settings want. inTx lets a session that
// has another server in use pass a pause. waited says that the call had to wait for a pause: what was decided
// before it must be decided again. w is the session's, and has begun; the wait ends with ErrStopped after its
// Stop, and with ErrMoved when moved is closed, which nil never is.
func (p *Pool) Acquire(ctx context.Context, want *Settings, inTx bool, w *Wait, moved <-chan struct{}) (s *Server, waited bool, err error) {
	dial := func() (s *Server, err error) {
		err = w.during(ctx, moved, func(ctx context.Context) error {
			s, err = p.dial(ctx)
			return err
		})
		if err == nil && closed(moved) { // while it was dialled
			p.discard(s)
			p.give(nil)
			return nil, ErrMoved
		}
		return s, err
	}
	for {
		if !inTx && p.Paused() {
			waited = true
			if err := w.during(ctx, moved, p.pass); err != nil {
				return nil, true, err
			}
		}
		s, queued, err := p.take(want, w)
		if err == nil && queued {
			s, err = p.await(ctx, w, moved)
		}
		if err != nil {
			return nil, waited, err
		}
		if !inTx && p.Paused() { // shut since. Who shuts a gate and then counts, counts this lease or holds it back
			p.back(s)
			continue
		}
		if s == nil {
			s, err = dial()
			return s, waited, err
		}
		if leavesCustom(s.settings, want) { // it cannot be undone: another one is dialled in its place
			p.shut(s) // its place on the books is the other's
			s, err = dial()
			return s, waited, err
		}
		now := time.Now()
		if p.alive(s, now) {
			s.since = now
			return s, waited, nil
		}
		p.discard(s) // it died while it was idle: nobody need know
		p.give(nil)
	}
}

// Try leases an idle server that nobody waits for, if there is one that is surely alive; else nil, and Acquire
// must be called. now may be a little old.
func (p *Pool) Try(want *Settings, inTx bool, now time.Time) *Server {
	return p.try(want, drawn{}, inTx, now)
}

// TryKnowing is Try of the server that knows what a session has drawn from sequences, up to its last draw, if there is such a one.
func (p *Pool) TryKnowing(want *Settings, by, last uint64, inTx bool, now time.Time) *Server {
	return p.try(want, drawn{by, last}, inTx, now)
}

func (p *Pool) try(want *Settings, knows drawn, inTx bool, now time.Time) *Server {
	if !inTx && p.Paused() {
		return nil
	}
	s := p.pick(want, knows)
	if s == nil {
		return nil
	}
	if !inTx && p.Paused() { // as in Acquire
		p.back(s)
		return nil
	}
	if p.alive(s, now) {
		return s
	}
	p.discard(s)
	p.give(nil)
	return nil
}

// pick leases an idle server that carries nothing that the settings would have to undo, where nobody waits for one.
func (p *Pool) pick(want *Settings, knows drawn) *Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 || len(p.waiters) > 0 {
		return nil
	}
	at := p.bestLocked(want)
	if knows.by != 0 {
		at = p.knowingLocked(knows, at)
	}
	if leavesCustom(p.idle[at].settings, want) {
		return nil
	}
	p.served++
	return p.leaseLocked(at)
}

// pass waits until the pool is not paused.
func (p *Pool) pass(ctx context.Context) error {
	wctx, cancel := context.WithTimeout(ctx, p.mgr.opts.Load().WaitTimeout)
	defer cancel()
	if err := errors.Join(p.gates[0].wait(wctx), p.gates[1].wait(wctx)); err != nil {
		return p.waitError(ctx, err)
	}
	return nil
}

// Paused says whether the pool's work is held back. Any goroutine may call it.
func (p *Pool) Paused() bool { return p.gates[0].paused.Load() || p.gates[1].paused.Load() }

// size is how many servers the pool may have, reserve aside.
func (p *Pool) size(o *Options) int {
	if p.key.gather {
		return o.Gather
	}
	return o.Size
}

// surelyAlive is how long a server that was alive is not asked again, unless another of its pool has just been lost.
const surelyAlive = 2 * time.Millisecond

// alive says whether an idle server's connection still stands.
func (p *Pool) alive(s *Server, now time.Time) bool {
	if now.Sub(s.since) < surelyAlive && int64(now.Sub(p.mgr.start)) > p.suspect.Load() {
		return true
	}
	return s.Quiet()
}

// suspicion is how long the servers of a pool that has lost one are all asked whether they live.
const suspicion = time.Second

// Suspect notes that a server of the pool was lost: the others may be as well. Any goroutine may call it.
func (p *Pool) Suspect() { p.suspect.Store(int64(time.Since(p.mgr.start) + suspicion)) }

// bestLocked picks an idle server, of those used last one that carries the settings.
func (p *Pool) bestLocked(want *Settings) int {
	n := len(p.idle)
	for i := n - 1; i >= 0 && i >= n-8; i-- {
		if p.idle[i].settings.Same(want) {
			return i
		}
	}
	return n - 1
}

// knowingLocked picks an idle server that knows what was drawn, else another one.
func (p *Pool) knowingLocked(knows drawn, other int) int {
	for i, s := range p.idle {
		if s.drawn == knows {
			return i
		}
	}
	return other
}

// leaseLocked leases an idle server.
func (p *Pool) leaseLocked(at int) *Server {
	s, n := p.idle[at], len(p.idle)
	copy(p.idle[at:], p.idle[at+1:])
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	p.active++
	become(s, Leased)
	return s
}

// idleLocked gives a lease up, and has the server wait for the next.
func (p *Pool) idleLocked(s *Server, now time.Time) {
	become(s, Idle)
	p.active--
	s.since, p.used = now, now
	p.idle = append(p.idle, s)
}

// take returns an idle server, or nothing for leave to dial, or puts w into the queue.
func (p *Pool) take(want *Settings, w *Wait) (s *Server, queued bool, err error) {
	o := p.mgr.opts.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.served++
	if n := len(p.idle); n > 0 && len(p.waiters) == 0 {
		return p.leaseLocked(p.bestLocked(want)), false, nil
	}
	if p.active < p.size(o) && len(p.waiters) == 0 {
		if p.failed != nil && time.Now().Before(p.until) {
			return nil, false, p.failed
		}
		p.used = time.Now()
		if p.mgr.room(p) {
			p.active++
			return nil, false, nil
		}
	}
	w.since, w.late = time.Now(), false
	p.waiters = append(p.waiters, w)
	return nil, true, nil
}

func (p *Pool) waitError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		o := p.mgr.opts.Load()
		name := "default_pool_size"
		if p.key.gather {
			name = "gather_pool_size"
		}
		return &LimitError{
			fmt.Sprintf("query_wait_timeout: no server of node %s for role %s came free within %s (%s = %d)", p.Node, p.Role, o.WaitTimeout, name, p.size(o)),
			"SHOW POOLS and SHOW SERVERS on the admin database show who holds them.",
		}
	}
	return err
}

// dial opens a server for a lease that the caller holds. On an error the lease is gone. It is ErrMoved where the pool's servers were condemned
// meanwhile: whoever did that could not reach one that was on its way.
func (p *Pool) dial(ctx context.Context) (*Server, error) {
	p.mu.Lock()
	p.dialing++
	gen := p.gen
	p.mu.Unlock()
	var s *Server
	done, err := p.mgr.dialSlot(ctx, p.key.dsn)
	if err == nil {
		err = panics.Catch(panics.Session, func() error {
			defer done()
			panics.Point("dial")
			if s, err = dial(ctx, p); err == nil {
				err = p.verify(ctx, s)
			}
			return err
		}, nil)
	}
	now := time.Now()
	p.mu.Lock()
	p.dialing--
	p.used = now
	if err == nil && gen != p.gen {
		_ = s.Close() // nobody has used it
		err = ErrMoved
	}
	if err != nil && ctx.Err() == nil && !panics.Is(err) && !errors.Is(err, ErrMoved) {
		p.failed, p.until = err, now.Add(connectRetry)
		var de *DialError
		if errors.As(err, &de) {
			switch {
			case de.Code == pgsql.CannotConnectNow: // starting up: ask again at once
				p.until = time.Time{}
			case de.Code[:2] == "28" || de.Code == pgsql.InvalidCatalogName:
				p.until = now.Add(p.mgr.opts.Load().LoginRetry)
			}
		}
	} else if err == nil {
		p.failed = nil
		s.gen = gen
		p.all[s] = struct{}{}
	}
	p.mu.Unlock()
	if err != nil {
		p.mgr.gone(p)
		p.give(nil)
		return nil, err
	}
	return s, nil
}

// release puts a leased server back. See Server.Release.
func (p *Pool) release(s *Server, now time.Time) {
	s.client.Store(0)
	s.SetTask(nil)
	switch fit, idle := p.takeBack(s, now); {
	case idle:
		p.left()
	case !fit:
		p.discard(s)
		p.give(nil)
	default:
		s.Conn.Release()
		if !s.suspect && s.pendingCancels.Load() == 0 {
			p.give(s)
			return
		}
		p.left()
		panics.Go(panics.Background, func() { p.giveLater(s) }) // ends when the cancel requests have, and by inspectTimeout
	}
}

// takeBack has a leased server wait for the next session, as nearly always: then idle is true. fit is whether another session may have it,
// once the cancel requests have ended that are on their way, and what it may carry was looked at.
func (p *Pool) takeBack(s *Server, now time.Time) (fit, idle bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fit = !s.Dirty && !s.cutOff.Load() && s.TxStatus == 'I' && s.Itself() && s.gen == p.gen && inStep(s) && s.settings.Size() <= mostBooked && (now.Sub(s.dialed) < p.mgr.opts.Load().Lifetime || !p.agedLocked(s, now))
	switch {
	case fit && s.suspect:
		become(s, Tested)
		p.testing++
	case fit && s.pendingCancels.Load() == 0 && len(p.waiters) == 0:
		s.Conn.Release()
		p.idleLocked(s, now)
		return true, true
	}
	return fit, false
}

// left tells a pause that waits that there may be one lease less. It is called after each change by which Busy may fall, without the
// pool's lock.
func (p *Pool) left() {
	if p.Paused() {
		p.gates[0].left.Changed()
		p.gates[1].left.Changed()
	}
}

// giveLater gives a server on whose cancel requests have ended, and that has nothing left of its client.
func (p *Pool) giveLater(s *Server) {
	s.cancels.Wait()
	if !s.suspect {
		p.give(s)
		return
	}
	clean := false
	_ = panics.Catch(panics.Background, func() error {
		panics.Point("inspect")
		clean = s.inspect()
		return nil
	}, nil)
	p.mu.Lock()
	p.testing--
	p.mu.Unlock()
	if !clean {
		p.mgr.stray.Add(1)
		p.discard(s)
		s = nil
	}
	p.give(s)
}

// discard closes a server and takes it off the books.
func (p *Pool) discard(s *Server) {
	p.shut(s)
	p.mgr.gone(p)
}

// shut closes a server, which stays on the books: the caller owns its place there. One that still works on something is told to stop.
func (p *Pool) shut(s *Server) {
	if p.strike(s) {
		p.mgr.ended.Changed()
	}
	if s.running {
		panics.Go(panics.Background, func() { // bounded by its own deadline
			ctx, cancel := context.WithTimeout(context.Background(), inspectTimeout)
			defer cancel()
			_ = s.BeginCancel()(ctx) // if it fails, the server notices when it next writes
			_ = s.Close()
		})
		return
	}
	_ = s.Close()
}

// strike takes a server that is closed off the list. old says that it was condemned.
func (p *Pool) strike(s *Server) (old bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	become(s, Closed)
	delete(p.all, s)
	return s.gen != p.gen
}

// back gives up a lease with which nothing was done: of a server, or for nil the right to dial one.
func (p *Pool) back(s *Server) {
	if s == nil {
		p.mgr.gone(p)
	}
	p.give(s)
}

// give hands a server, or for nil the right to dial one, to the first waiter, or gives the lease up.
func (p *Pool) give(s *Server) {
	defer p.left()
	p.mu.Lock()
	if s != nil && s.gen != p.gen {
		p.mu.Unlock()
		p.discard(s)
		s = nil
		p.mu.Lock()
	}
	defer p.mu.Unlock()
	// Without a server there must be room for one: else another pool has taken the place, and relieve sees to it.
	if len(p.waiters) > 0 && (s != nil || p.mgr.room(p)) {
		w := p.waiters[0]
		p.waiters = p.waiters[1:]
		if s != nil && s.State() == Tested {
			become(s, Leased)
		}
		w.hand(s)
		return
	}
	if s != nil {
		p.idleLocked(s, time.Now())
		return
	}
	p.active--
}
