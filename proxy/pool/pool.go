// Package pool keeps server connections ready for use.
//
// A Server is in a pool only when PostgreSQL has reported it idle outside a transaction and every byte
// that it sent has been read. Everything else here follows from that rule. There is one pool for each
// node, logical database and login role: servers are never shared between roles.
package pool

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// Options are the limits of all pools. Zero values mean the default in the comment.
type Options struct {
	Size           int           // servers per pool: 20
	MaxPrepared    int           // prepared statements kept per server: 200
	WaitTimeout    time.Duration // query_wait_timeout, 120 s
	ConnectTimeout time.Duration // server_connect_timeout, 15 s
	Lifetime       time.Duration // server_lifetime, 3600 s, spread by a tenth
	IdleTimeout    time.Duration // server_idle_timeout, 600 s
	LoginRetry     time.Duration // server_login_retry: how long a failed login is remembered, 1 s
	// Password returns what a role logs in to the shards of a database with. Nil: roles other than the
	// node's own have none.
	Password func(database, role string) (string, error)
}

// WithDefaults fills what was left zero.
func (o Options) WithDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if o.Size == 0 {
		o.Size = 20
	}
	if o.MaxPrepared == 0 {
		o.MaxPrepared = 200
	}
	def(&o.WaitTimeout, 120*time.Second)
	def(&o.ConnectTimeout, 15*time.Second)
	def(&o.Lifetime, time.Hour)
	def(&o.IdleTimeout, 10*time.Minute)
	def(&o.LoginRetry, time.Second)
	return o
}

type poolKey struct{ database, dsn, role string }

// Manager owns every pool.
type Manager struct {
	opts Options

	mu    sync.Mutex // guards pools and gates; never held while dialling
	pools map[poolKey]*Pool
	gates map[string]*gate
}

// gate holds back new leases of one database while it is paused.
type gate struct {
	paused atomic.Bool
	mu     sync.Mutex
	open   chan struct{} // closed when work may go on
}

// NewManager returns a manager without pools.
func NewManager(opts Options) *Manager {
	return &Manager{opts: opts.WithDefaults(), pools: map[poolKey]*Pool{}, gates: map[string]*gate{}}
}

// Options are the limits in force.
func (m *Manager) Options() Options { return m.opts }

// Pool returns the pool of a node for a database and role, which it makes if need be. The pointer may be
// kept: it stays the right one as long as the node's connection string does.
func (m *Manager) Pool(database, shard, node, dsn, role string) *Pool {
	k := poolKey{database, dsn, role}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pools[k]
	if p == nil {
		p = &Pool{mgr: m, key: k, Database: database, Shard: shard, Node: node, Role: role, gate: m.gateLocked(database)}
		m.pools[k] = p
	}
	return p
}

func (m *Manager) gateLocked(database string) *gate {
	g := m.gates[database]
	if g == nil {
		g = &gate{}
		m.gates[database] = g
	}
	return g
}

// All lists the pools in a stable order.
func (m *Manager) All() []*Pool {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*Pool, 0, len(m.pools))
	for _, p := range m.pools {
		out = append(out, p)
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		return a.Database+"\x00"+a.Node+"\x00"+a.Role < b.Database+"\x00"+b.Node+"\x00"+b.Role
	})
	return out
}

// Pause holds back new leases of a database and waits until none is left. Leases inside a transaction
// that already holds one are let through. On an error the database is resumed.
func (m *Manager) Pause(ctx context.Context, database string) error {
	m.mu.Lock()
	g := m.gateLocked(database)
	m.mu.Unlock()
	g.mu.Lock()
	if g.paused.Load() {
		g.mu.Unlock()
		return fmt.Errorf("database %q is already paused", database)
	}
	g.open = make(chan struct{})
	g.paused.Store(true)
	g.mu.Unlock()
	for {
		busy := 0
		for _, p := range m.All() {
			if p.Database == database {
				busy += p.Stats().Active
			}
		}
		if busy == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			m.Resume(database)
			return fmt.Errorf("%d transactions of database %q are still running: %w", busy, database, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Paused says whether new leases of a database are held back.
func (m *Manager) Paused(database string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gateLocked(database).paused.Load()
}

// Resume lets the work of a database go on.
func (m *Manager) Resume(database string) {
	m.mu.Lock()
	g := m.gateLocked(database)
	m.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused.CompareAndSwap(true, false) {
		close(g.open)
	}
}

func (g *gate) wait(ctx context.Context) error {
	for g.paused.Load() {
		g.mu.Lock()
		ch := g.open
		g.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Reconnect closes the idle servers of a database, or of all for "", and the others as they come back.
func (m *Manager) Reconnect(database string) {
	for _, p := range m.All() {
		if database == "" || p.Database == database {
			p.drop()
		}
	}
}

// DropNode does the same for one node, which has changed its role or gone.
func (m *Manager) DropNode(dsn string) {
	for _, p := range m.All() {
		if p.key.dsn == dsn {
			p.drop()
		}
	}
}

// Run closes servers past their idle time until ctx ends, then closes all idle ones.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			m.Reconnect("")
			return nil
		case <-tick.C:
			for _, p := range m.All() {
				p.expire(time.Now())
			}
		}
	}
}

// Pool is the servers of one node, database and role.
type Pool struct {
	Database, Shard, Node, Role string

	mgr  *Manager
	key  poolKey
	gate *gate

	mu      sync.Mutex // guards the rest; slow work never happens under it
	idle    []*Server  // last used last
	waiters []*waiter  // first come first
	active  int        // leased
	dialing int
	gen     uint64
	failed  error // the last login's failure
	until   time.Time
	served  uint64
	waited  time.Duration
}

type waiter struct {
	got   chan *Server // a server, or nil for leave to dial one
	since time.Time
}

// Stats is one moment of a pool.
type Stats struct {
	Active, Idle, Dialing, Waiting int
	MaxWait                        time.Duration // of those still waiting
	Served                         uint64
	Waited                         time.Duration // in all
	LastError                      error
}

// Stats counts. Any goroutine may call it.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Active: p.active, Idle: len(p.idle), Dialing: p.dialing, Waiting: len(p.waiters), Served: p.served, Waited: p.waited}
	if len(p.waiters) > 0 {
		s.MaxWait = time.Since(p.waiters[0].since)
	}
	if time.Now().Before(p.until) {
		s.LastError = p.failed
	}
	return s
}

// LimitError means that no server came free in time.
type LimitError struct{ Message string }

func (e *LimitError) Error() string { return e.Message }

// SQLState is PostgreSQL's too_many_connections.
func (e *LimitError) SQLState() string { return "53300" }

// Acquire leases a server, preferably one that carries the settings want. inTx lets a transaction that
// already holds a server pass a pause. waited says that the call had to wait for a pause: what was decided
// before it must be decided again.
func (p *Pool) Acquire(ctx context.Context, want *Settings, inTx bool) (s *Server, waited bool, err error) {
	if !inTx && p.gate.paused.Load() {
		waited = true
		wctx, cancel := context.WithTimeout(ctx, p.mgr.opts.WaitTimeout)
		err := p.gate.wait(wctx)
		cancel()
		if err != nil {
			return nil, true, p.waitError(ctx, err)
		}
	}
	for {
		s, w, err := p.take(want)
		if err != nil {
			return nil, waited, err
		}
		if w != nil {
			if s, err = p.await(ctx, w); err != nil {
				return nil, waited, err
			}
		}
		if s == nil {
			s, err = p.dial(ctx)
			return s, waited, err
		}
		if time.Since(s.since) < time.Second || s.Quiet() {
			s.since = time.Now()
			return s, waited, nil
		}
		p.discard(s) // it died while it was idle: nobody need know
		p.give(nil)
	}
}

// take returns an idle server, or nothing for leave to dial, or a place in the queue.
func (p *Pool) take(want *Settings) (*Server, *waiter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.served++
	if n := len(p.idle); n > 0 && len(p.waiters) == 0 {
		at := n - 1
		for i := n - 1; i >= 0 && i >= n-8; i-- {
			if p.idle[i].settings == want {
				at = i
				break
			}
		}
		s := p.idle[at]
		p.idle = append(p.idle[:at], p.idle[at+1:]...)
		p.active++
		if leavesCustom(s.settings, want) {
			go s.Close() // it is gone either way
			return nil, nil, nil
		}
		return s, nil, nil
	}
	if p.active < p.mgr.opts.Size {
		if p.failed != nil && time.Now().Before(p.until) {
			return nil, nil, p.failed
		}
		p.active++
		return nil, nil, nil
	}
	w := &waiter{got: make(chan *Server, 1), since: time.Now()}
	p.waiters = append(p.waiters, w)
	return nil, w, nil
}

func (p *Pool) await(ctx context.Context, w *waiter) (*Server, error) {
	t := time.NewTimer(p.mgr.opts.WaitTimeout)
	defer t.Stop()
	select {
	case s := <-w.got:
		p.mu.Lock()
		p.waited += time.Since(w.since)
		p.mu.Unlock()
		return s, nil
	case <-ctx.Done():
		return nil, p.leave(w, p.waitError(ctx, ctx.Err()))
	case <-t.C:
		return nil, p.leave(w, p.waitError(ctx, context.DeadlineExceeded))
	}
}

func (p *Pool) waitError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &LimitError{fmt.Sprintf("query_wait_timeout: no server of node %s for role %s came free within %s (pool_size = %d)",
			p.Node, p.Role, p.mgr.opts.WaitTimeout, p.mgr.opts.Size)}
	}
	return err
}

// leave gives up a place in the queue, or what was handed over just now.
func (p *Pool) leave(w *waiter, err error) error {
	p.mu.Lock()
	for i, x := range p.waiters {
		if x == w {
			p.waiters = append(p.waiters[:i], p.waiters[i+1:]...)
			p.mu.Unlock()
			return err
		}
	}
	p.mu.Unlock()
	if s := <-w.got; s != nil {
		p.release(s)
	} else {
		p.give(nil)
	}
	return err
}

func (p *Pool) dial(ctx context.Context) (*Server, error) {
	p.mu.Lock()
	p.dialing++
	gen := p.gen
	p.mu.Unlock()
	s, err := dial(ctx, p)
	p.mu.Lock()
	p.dialing--
	if err != nil && ctx.Err() == nil {
		p.failed, p.until = err, time.Now().Add(p.mgr.opts.LoginRetry)
		var de *DialError
		if errors.As(err, &de) && de.Code == "57P03" { // starting up: ask again at once
			p.until = time.Time{}
		}
	} else if err == nil {
		p.failed = nil
		s.gen = gen
		life := p.mgr.opts.Lifetime
		s.lifetime = life - life/10*time.Duration(s.PID%10)/10
	}
	p.mu.Unlock()
	if err != nil {
		p.give(nil)
		return nil, err
	}
	return s, nil
}

// release puts a leased server back. See Server.Release.
func (p *Pool) release(s *Server) {
	p.mu.Lock()
	fit := !s.Dirty && s.TxStatus == 'I' && s.gen == p.gen && s.Pending() == 0 && time.Since(s.dialed) < s.lifetime
	p.mu.Unlock()
	if !fit {
		p.discard(s)
		p.give(nil)
		return
	}
	s.Conn.Release()
	done := make(chan struct{})
	if waitCancels(s, done) {
		p.give(s)
		return
	}
	go func() { <-done; p.give(s) }()
}

// waitCancels says whether no cancel request is on its way; else done is closed when none is.
func waitCancels(s *Server, done chan struct{}) bool {
	if s.pendingCancels.Load() == 0 {
		return true
	}
	go func() { s.cancels.Wait(); close(done) }()
	return false
}

func (p *Pool) discard(s *Server) { _ = s.Close() }

// give hands a server, or for nil the right to dial one, to the first waiter, or gives the lease up.
func (p *Pool) give(s *Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s != nil && s.gen != p.gen {
		_ = s.Close()
		s = nil
	}
	if len(p.waiters) > 0 {
		w := p.waiters[0]
		p.waiters = p.waiters[1:]
		w.got <- s
		return
	}
	p.active--
	if s != nil {
		s.since = time.Now()
		p.idle = append(p.idle, s)
	}
}

// drop closes idle servers, and the leased ones as they come back.
func (p *Pool) drop() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.gen++
	p.failed = nil
	p.mu.Unlock()
	for _, s := range idle {
		_ = s.Close()
	}
}

func (p *Pool) expire(now time.Time) {
	var old []*Server
	p.mu.Lock()
	keep := p.idle[:0]
	for _, s := range p.idle {
		if now.Sub(s.since) > p.mgr.opts.IdleTimeout || now.Sub(s.dialed) > s.lifetime {
			old = append(old, s)
		} else {
			keep = append(keep, s)
		}
	}
	p.idle = keep
	p.mu.Unlock()
	for _, s := range old {
		_ = s.Close()
	}
}
