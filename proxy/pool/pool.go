// Package pool keeps server connections ready for use.
//
// A Server is in a pool only when PostgreSQL has reported it idle outside a transaction and every byte
// that it sent has been read. Everything else here follows from that rule. There is one pool for each
// node, logical database and login role: servers are never shared between roles.
package pool

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/cond"
	"github.com/pgmosaic/pgmosaic/proxy/tcp"
)

// Options are the limits of all pools. The names in the comments are PgBouncer's; a zero value means the
// default there, or no limit where none is named.
type Options struct {
	Size           int           // default_pool_size, 20: servers per pool
	Min            int           // min_pool_size: servers kept open while anybody uses the pool
	Gather         int           // gather_pool_size, 5: servers per pool of those that gather rows
	Reserve        int           // reserve_pool_size: servers beyond Size for those who waited too long
	ReserveAfter   time.Duration // reserve_pool_timeout, 5 s
	MaxDatabase    int           // max_db_connections: servers of one database, over all nodes and roles
	MaxUser        int           // max_user_connections: servers of one role
	MaxPrepared    int           // max_prepared_statements, 200: kept per server
	WaitTimeout    time.Duration // query_wait_timeout, 120 s
	ConnectTimeout time.Duration // server_connect_timeout, 15 s
	Lifetime       time.Duration // server_lifetime, 3600 s; of one pool at most one server in Lifetime/Size is closed for its age
	IdleTimeout    time.Duration // server_idle_timeout, 600 s
	LoginRetry     time.Duration // server_login_retry, 15 s: how long a refused login is remembered
	DNSTTL         time.Duration // dns_max_ttl, 15 s: how often the nodes' names are looked up
	Dials          int           // connections opened to one node at the same time, 8
	TCP            tcp.Options   // of new servers
	// Password returns what a role logs in to the shards of a database with. Nil: roles other than the
	// node's own have none.
	Password func(database, role string) (string, error)
	// Led is told, each time that a node's names are looked up, which addresses they mean. It may not block. Nil: nobody is told.
	Led func(dsn string, means func(addr string) bool)
	// Primary is the connection string of a shard's primary, empty if it is not known. Nil: each shard has one node.
	Primary func(database, shard string) (dsn string)
	Verify  Whose // asks a new server whether it is the shard's; without one there is no manager
}

// connectRetry is how long a node that cannot be reached at all is left alone.
const connectRetry = time.Second

// WithDefaults fills what was left zero.
func (o Options) WithDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	num := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	num(&o.Size, 20)
	num(&o.Gather, 5)
	num(&o.MaxPrepared, 200)
	num(&o.Dials, 8)
	def(&o.ReserveAfter, 5*time.Second)
	def(&o.WaitTimeout, 120*time.Second)
	def(&o.ConnectTimeout, 15*time.Second)
	def(&o.Lifetime, time.Hour)
	def(&o.IdleTimeout, 10*time.Minute)
	def(&o.LoginRetry, 15*time.Second)
	def(&o.DNSTTL, 15*time.Second)
	return o
}

type poolKey struct {
	database, shard, node, dsn, role string
	gather                           bool
}

// Manager owns every pool.
type Manager struct {
	opts  atomic.Pointer[Options]
	start time.Time

	mu     sync.Mutex // guards the maps; never held while dialling
	pools  map[poolKey]*Pool
	gates  map[[2]string]*gate      // by database and shard
	keys   map[[2]string]auth.Keys  // by database and role: what its last client proved to know
	dials  map[string]chan struct{} // by dsn: one for each connection being opened
	counts map[string]int           // servers by database and role, where they are limited

	stray atomic.Int64 // servers that an inspection found changed
	ended cond.Var     // a condemned server has been closed: see AwaitOld
}

// gate holds back new leases of one database, or of one of its shards, while it is paused.
type gate struct {
	paused   atomic.Bool
	disabled atomic.Bool // new clients are refused
	left     cond.Var    // a lease has ended while it was paused, or the pause has

	mu   sync.Mutex    // guards the rest, and changes of paused
	open chan struct{} // closed when work may go on
	turn uint64        // how often it has been shut
	kept bool          // who has shut it may not open it because of an error
}

// NewManager returns a manager without pools.
func NewManager(opts Options) *Manager {
	m := &Manager{
		start: time.Now(), pools: map[poolKey]*Pool{}, gates: map[[2]string]*gate{}, keys: map[[2]string]auth.Keys{}, dials: map[string]chan struct{}{}, counts: map[string]int{},
	}
	m.SetOptions(opts)
	return m
}

// Options are the limits in force.
func (m *Manager) Options() Options { return *m.opts.Load() }

// SetOptions replaces the limits. What is over a new limit goes as it comes back.
func (m *Manager) SetOptions(opts Options) {
	opts.Verify.must()
	opts = opts.WithDefaults()
	m.opts.Store(&opts)
}

// Strays is how many servers an inspection found to carry state that nobody had announced.
func (m *Manager) Strays() int64 { return m.stray.Load() }

// Learn keeps the keys that a client of a role has proved to know: its servers log in with them where there
// is no password.
func (m *Manager) Learn(database, role string, k auth.Keys) {
	if !k.Known() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys[[2]string{database, role}] = k
}

func (m *Manager) keysOf(database, role string) auth.Keys {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keys[[2]string{database, role}]
}

// dialSlot waits for leave to open one more connection to a node.
func (m *Manager) dialSlot(ctx context.Context, dsn string) (done func(), err error) {
	m.mu.Lock()
	ch := m.dials[dsn]
	if ch == nil {
		ch = make(chan struct{}, m.opts.Load().Dials)
		m.dials[dsn] = ch
	}
	m.mu.Unlock()
	select {
	case ch <- struct{}{}:
		return func() { <-ch }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// room counts one more server of a pool, unless a limit of its database or role is reached.
func (m *Manager) room(p *Pool) bool {
	o := m.opts.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	db, role := "d"+p.Database, "u"+p.Role
	if o.MaxDatabase > 0 && m.counts[db] >= o.MaxDatabase || o.MaxUser > 0 && m.counts[role] >= o.MaxUser {
		return false
	}
	m.counts[db]++
	m.counts[role]++
	return true
}

// gone takes a server that room has counted off the books.
func (m *Manager) gone(p *Pool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts["d"+p.Database]--
	m.counts["u"+p.Role]--
}

// Pool returns the pool of a node for a database and role, which it makes if need be. The pointer may be
// kept: it stays the right one as long as the node's name, shard and connection string do.
func (m *Manager) Pool(database, shard, node, dsn, role string) *Pool {
	return m.pool(node, poolKey{database, shard, node, dsn, role, false})
}

// Gatherers is Pool for the servers that rows of other shards are gathered on. They have a pool of their own: a session
// that holds servers of all others may need one of these, and must not wait for a session like itself.
func (m *Manager) Gatherers(database, shard, node, dsn, role string) *Pool {
	return m.pool(node+" (gather)", poolKey{database, shard, node, dsn, role, true})
}

// pool is that of a key; node is what it is called.
func (m *Manager) pool(node string, k poolKey) *Pool {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pools[k]
	if p == nil {
		p = &Pool{mgr: m, key: k, Database: k.database, Shard: k.shard, Node: node, Role: k.role, gates: [2]*gate{m.gateLocked(k.database, ""), m.gateLocked(k.database, k.shard)}, all: map[*Server]struct{}{}}
		m.pools[k] = p
	}
	return p
}

// gateLocked is the gate of a shard, or of the whole database for "".
func (m *Manager) gateLocked(database, shard string) *gate {
	k := [2]string{database, shard}
	g := m.gates[k]
	if g == nil {
		g = &gate{}
		m.gates[k] = g
	}
	return g
}

func (m *Manager) gateOf(database, shard string) *gate {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gateLocked(database, shard)
}

// To says whether the pool's servers are those of a connection string.
func (p *Pool) To(dsn string) bool { return p.key.dsn == dsn }

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

// Pause holds back new leases of a database, or of one of its shards unless that is "", and waits until none is left.
// Leases of a session that has another in use are let through. On an error it is resumed, unless it has been held by another
// since; so it is an error that it was resumed meanwhile.
// undo takes the pause back, unless another has had a say since.
func (m *Manager) Pause(ctx context.Context, database, shard string) (undo func(), err error) {
	what := fmt.Sprintf("database %q", database)
	if shard != "" {
		what = fmt.Sprintf("shard %q of %s", shard, what)
	}
	g := m.gateOf(database, shard)
	turn, shut := g.shut(false)
	if !shut {
		return nil, fmt.Errorf("%s is already paused", what)
	}
	busy, resumed := 0, false
	err = g.left.Wait(ctx, func() bool {
		busy = m.busy(database, shard)
		resumed = !g.holds(turn)
		return resumed || busy == 0
	})
	switch {
	case err != nil:
		g.reopen(turn)
		return nil, fmt.Errorf("%d transactions of %s are still running: %w", busy, what, err)
	case resumed:
		return nil, fmt.Errorf("%s was resumed meanwhile", what)
	}
	return func() { g.reopen(turn) }, nil
}

// busy is the number of leases of a database, or of one of its shards unless that is "".
func (m *Manager) busy(database, shard string) (n int) {
	for _, p := range m.All() {
		if p.Database == database && (shard == "" || p.Shard == shard) {
			n += p.Busy()
		}
	}
	return n
}

// Paused says whether new leases of a database, or of one of its shards unless that is "", are held back.
func (m *Manager) Paused(database, shard string) bool {
	return m.gateOf(database, "").paused.Load() || m.gateOf(database, shard).paused.Load()
}

// Hold holds back new leases of a database and waits for nothing. A pause that waits may fail: the database is held all the same.
func (m *Manager) Hold(database string) { m.gateOf(database, "").shut(true) }

// shut closes the gate, and tells which turn that is. It is false if the gate is closed already: then nothing is done, or the gate is kept
// closed whatever becomes of who has closed it.
func (g *gate) shut(keep bool) (turn uint64, shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused.Load() {
		g.kept = g.kept || keep
		return g.turn, false
	}
	g.turn++
	g.kept = keep
	g.open = make(chan struct{})
	g.paused.Store(true)
	return g.turn, true
}

// holds says whether the gate has been closed since that turn.
func (g *gate) holds(turn uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.turn == turn && g.paused.Load()
}

// reopen opens the gate if nobody else has had a say since that turn.
func (g *gate) reopen(turn uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.turn == turn && !g.kept {
		g.openLocked()
	}
}

// openLocked opens the gate.
func (g *gate) openLocked() {
	if g.paused.CompareAndSwap(true, false) {
		close(g.open)
		g.left.Changed()
	}
}

// Disable refuses new clients of a database, or lets them in again.
func (m *Manager) Disable(database string, yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gateLocked(database, "").disabled.Store(yes)
}

// Disabled says whether new clients of a database are refused.
func (m *Manager) Disabled(database string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gateLocked(database, "").disabled.Load()
}

// Resume lets the work of a database or shard go on.
func (m *Manager) Resume(database, shard string) {
	g := m.gateOf(database, shard)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.openLocked()
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
