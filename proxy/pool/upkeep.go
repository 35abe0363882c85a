package pool

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// Reconnect closes the idle servers of a database, or of all for "", and the others as they come back.
func (m *Manager) Reconnect(database string) {
	for _, p := range m.All() {
		if database == "" || p.Database == database {
			p.drop()
		}
	}
}

// DropNode does the same for one node, which was restarted.
func (m *Manager) DropNode(dsn string) {
	for _, p := range m.All() {
		if p.key.dsn == dsn {
			p.drop()
		}
	}
}

// CutNode closes every server of one node at once, whoever uses it: the node is no longer to be trusted with work.
func (m *Manager) CutNode(dsn string) {
	for _, p := range m.All() {
		if p.key.dsn == dsn {
			p.cut()
		}
	}
}

// Kill closes every server of a database at once, whoever uses it.
func (m *Manager) Kill(database string) {
	for _, p := range m.All() {
		if database == "" || p.Database == database {
			p.cut()
		}
	}
}

// cut closes all servers at once.
func (p *Pool) cut() {
	p.drop()
	for _, s := range p.Servers() {
		s.server.Cut()
	}
}

// Old counts the servers of a database, or of all for "", that RECONNECT or RELOAD has condemned and that
// are still in use.
func (m *Manager) Old(database string) int {
	n := 0
	for _, p := range m.All() {
		if database == "" || p.Database == database {
			p.mu.Lock()
			for s := range p.all {
				if s.gen != p.gen {
					n++
				}
			}
			p.mu.Unlock()
		}
	}
	return n
}

// AwaitOld waits until Old is 0, or the context ends: then it is an error.
func (m *Manager) AwaitOld(ctx context.Context, database string) error {
	return m.ended.Wait(ctx, func() bool { return m.Old(database) == 0 })
}

// upkeep is how often pools are looked after.
const upkeep = 100 * time.Millisecond

// Run looks after the pools until ctx ends, then closes all idle servers.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(upkeep)
	defer tick.Stop()
	looked := time.Now()
	resolved := map[string]string{} // of the one look-up that is under way
	var looking atomic.Bool
	var refills sync.WaitGroup
	for {
		select {
		case <-ctx.Done():
			refills.Wait()
			m.Reconnect("")
			return nil
		case now := <-tick.C:
			for _, p := range m.All() {
				p.expire(now)
				p.tooLate(now)
				p.poke()
				p.relieve(now)
				p.refill(ctx, now, &refills)
			}
			if o := m.opts.Load(); now.Sub(looked) >= o.DNSTTL && !looking.Swap(true) {
				looked = now
				refills.Go(func() { // a resolver that does not answer holds up no pool
					defer looking.Store(false)
					_ = panics.Catch(panics.Background, func() error { m.resolve(ctx, resolved); return nil }, nil)
				})
			}
		}
	}
}

// Host is the name that the pool's node is connected to by, the first of several; empty for an address or a Unix socket.
func (p *Pool) Host() string {
	if hosts := p.hosts(); len(hosts) > 0 && isName(hosts[0]) {
		return hosts[0]
	}
	return ""
}

func isName(host string) bool { return !strings.HasPrefix(host, "/") && net.ParseIP(host) == nil }

// hosts are all that the node's connection string names.
func (p *Pool) hosts() (out []string) {
	cfg, err := pgconn.ParseConfig(p.key.dsn)
	if err != nil {
		return nil
	}
	out = []string{cfg.Host}
	for _, f := range cfg.Fallbacks {
		out = append(out, f.Host)
	}
	slices.Sort(out[1:])
	return slices.Compact(out)
}

// resolve looks the nodes' names up again. Servers at an address that none of their names means any more are condemned: each by its own address, for
// one may have been on its way there while the names were looked up last. Who has other connections to the node is told, and judges them likewise.
func (m *Manager) resolve(ctx context.Context, known map[string]string) {
	type answer struct {
		addrs   []string // nil: a resolver that fails tells nothing
		changed bool
	}
	answers := map[string]answer{}
	look := func(name string) answer {
		a, ok := answers[name]
		if ok {
			return a
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if found, err := net.DefaultResolver.LookupHost(ctx, name); err == nil {
			sort.Strings(found)
			now := strings.Join(found, " ")
			a = answer{found, known[name] != now}
			known[name] = now
		}
		answers[name] = a
		return a
	}
	told := map[string]bool{}
	for _, p := range m.All() {
		addrs := p.follow(func(name string) ([]string, bool) { a := look(name); return a.addrs, a.changed })
		if led := m.opts.Load().Led; led != nil && addrs != nil && !told[p.key.dsn] {
			told[p.key.dsn] = true
			led(p.key.dsn, func(addr string) bool { return !elsewhere(addr, addrs) })
		}
	}
}

// follow condemns servers that are at none of the addresses of the pool's hosts, and returns those; nil if they are not known, or none is a
// name's. look tells a name's addresses, none if they are not known now, and whether they have changed.
func (p *Pool) follow(look func(name string) (addrs []string, changed bool)) map[netip.Addr]bool {
	var all []string
	names, changed := 0, false
	for _, h := range p.hosts() {
		if !isName(h) {
			all = append(all, h)
			continue
		}
		addrs, other := look(h)
		if len(addrs) == 0 {
			return nil
		}
		all, changed = append(all, addrs...), changed || other
		names++
	}
	if names == 0 {
		return nil
	}
	addrs := addresses(all)
	p.vacate(addrs, changed)
	return addrs
}

func addresses(list []string) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			out[a.Unmap().WithZone("")] = true
		}
	}
	return out
}

// elsewhere says whether the address of a connection is none of these. A Unix socket is where it was.
func elsewhere(addr string, addrs map[netip.Addr]bool) bool {
	at, err := netip.ParseAddrPort(addr)
	return err == nil && !addrs[at.Addr().Unmap().WithZone("")]
}

// vacate closes idle servers at other addresses than these, and leased ones as they come back. If the name has changed its meaning, a refusal that
// is remembered was another server's.
func (p *Pool) vacate(addrs map[netip.Addr]bool, changed bool) {
	var idle []*Server
	p.mu.Lock()
	for s := range p.all {
		if elsewhere(s.addr, addrs) {
			s.gen = ofNone
		}
	}
	p.idle = slices.DeleteFunc(p.idle, func(s *Server) bool {
		if s.gen == ofNone {
			idle = append(idle, s)
		}
		return s.gen == ofNone
	})
	if changed {
		p.failed = nil
	}
	p.mu.Unlock()
	for _, s := range idle {
		p.discard(s)
	}
}

// ofNone is the generation of servers that are to be closed, whatever the pool's is.
const ofNone = ^uint64(0)

// drop closes idle servers, and the leased ones as they come back.
func (p *Pool) drop() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.gen++
	p.failed = nil
	p.mu.Unlock()
	for _, s := range idle {
		p.discard(s)
	}
}

// expire closes servers that have been idle for too long, and one that is too old.
func (p *Pool) expire(now time.Time) {
	o := p.mgr.opts.Load()
	var old []*Server
	p.mu.Lock()
	keep := p.idle[:0]
	spare := len(p.all) - o.Min
	for _, s := range p.idle {
		switch {
		case spare > 0 && now.Sub(s.since) > o.IdleTimeout, len(p.all)-len(old) > p.size(o)+o.Reserve:
			old = append(old, s)
			spare--
		case p.agedLocked(s, now):
			old = append(old, s)
		default:
			keep = append(keep, s)
		}
	}
	clear(p.idle[len(keep):])
	p.idle = keep
	p.mu.Unlock()
	for _, s := range old {
		p.discard(s)
	}
}

// agedLocked says whether a server is to be closed for its age. Servers that were opened together are not
// closed together.
func (p *Pool) agedLocked(s *Server, now time.Time) bool {
	o := p.mgr.opts.Load()
	if now.Sub(s.dialed) < o.Lifetime || now.Sub(p.lastAged) < o.Lifetime/time.Duration(p.size(o)) {
		return false
	}
	p.lastAged = now
	return true
}

// relieve lets those who have waited too long use the reserve, and those whom another pool's servers kept out
// try again.
func (p *Pool) relieve(now time.Time) {
	o := p.mgr.opts.Load()
	for {
		p.mu.Lock()
		if len(p.waiters) == 0 {
			p.mu.Unlock()
			return
		}
		w := p.waiters[0]
		limit := p.size(o)
		if now.Sub(w.since) > o.ReserveAfter {
			limit += o.Reserve
		}
		free := p.active < limit
		p.mu.Unlock()
		if !free || !p.mgr.room(p) && !p.mgr.evict(p) {
			return
		}
		p.mu.Lock()
		if len(p.waiters) == 0 || p.active >= limit {
			p.mu.Unlock()
			p.mgr.gone(p)
			return
		}
		w = p.waiters[0]
		p.waiters = p.waiters[1:]
		p.active++
		w.hand(nil)
		p.mu.Unlock()
	}
}

// evict closes an idle server of another pool under the same limit and takes its place.
func (m *Manager) evict(p *Pool) bool {
	for _, q := range m.All() {
		if q == p || q.Database != p.Database && q.Role != p.Role {
			continue
		}
		q.mu.Lock()
		var s *Server
		if len(q.idle) > 0 && len(q.waiters) == 0 {
			s = q.idle[0]
			q.idle = q.idle[1:]
		}
		q.mu.Unlock()
		if s != nil {
			q.discard(s)
			if m.room(p) {
				return true
			}
		}
	}
	return false
}

// refill keeps min_pool_size servers open in a pool that was used lately.
func (p *Pool) refill(ctx context.Context, now time.Time, refills *sync.WaitGroup) {
	o := p.mgr.opts.Load()
	p.mu.Lock()
	need := !p.key.gather && len(p.all)+p.dialing < min(o.Min, o.Size) && now.Sub(p.used) < o.IdleTimeout && now.After(p.until)
	if need {
		p.active++
	}
	p.mu.Unlock()
	if !need {
		return
	}
	if !p.mgr.room(p) {
		p.give(nil)
		return
	}
	refills.Go(func() { // ends by server_connect_timeout at the latest
		_ = panics.Catch(panics.Background, func() error {
			s, err := p.dial(ctx)
			if err == nil {
				p.release(s, time.Now())
			}
			return err
		}, nil)
	})
}
