package pool

import (
	"slices"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// A server at an address that its name does not mean is closed, or closed when it comes back, whenever it was opened: it may have been on its
// way there when the name was looked up.
func TestServersAtOtherAddressesAreVacated(t *testing.T) {
	m := NewManager(Options{Verify: Unasked("a test")})
	p := m.Pool("shop", "s1", "s1-a", "host=node.test", "app")
	at := func(addr string, idle bool) *Server {
		s := saying(t)
		s.Pool, s.addr = p, addr
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all[s] = struct{}{}
		if idle {
			p.idle = append(p.idle, s)
		}
		return s
	}
	stay, mapped, socket := at("192.0.2.1:5432", true), at("[::ffff:192.0.2.1]:5432", true), at("/tmp/.s.PGSQL.5432", true)
	gone, leased := at("192.0.2.2:5432", true), at("[2001:db8::1]:5432", false)
	p.failed = wire.ErrMalformed
	p.vacate(addresses([]string{"192.0.2.1"}), false)
	if _, open := p.all[gone]; open || slices.Contains(p.idle, gone) {
		t.Error("an idle server at another address stays")
	}
	if _, open := p.all[leased]; !open || m.Old("shop") != 1 {
		t.Errorf("a leased server at another address: open %v, %d to be closed", open, m.Old("shop"))
	}
	if !slices.Equal(p.idle, []*Server{stay, mapped, socket}) {
		t.Errorf("%d servers are idle", len(p.idle))
	}
	if p.failed == nil {
		t.Error("a refusal of the same server is forgotten")
	}
	p.vacate(addresses([]string{"192.0.2.1"}), true)
	if p.failed != nil {
		t.Error("another server's refusal is remembered")
	}
	p.give(leased)
	if len(p.all) != 3 {
		t.Errorf("%d servers are open", len(p.all))
	}
}

// A node with several names is at the addresses of all of them, and at those that its connection string has itself; while one of them cannot be
// looked up, nothing is closed.
func TestServersOfSeveralNamesStay(t *testing.T) {
	m := NewManager(Options{Verify: Unasked("a test")})
	p := m.Pool("shop", "s1", "s1-a", "host=one.test,192.0.2.7,two.test sslmode=prefer", "app")
	for _, addr := range []string{"192.0.2.1:5432", "192.0.2.2:5432", "192.0.2.7:5432", "192.0.2.9:5432"} {
		s := saying(t)
		s.Pool, s.addr = p, addr
		p.mu.Lock()
		p.all[s], p.idle = struct{}{}, append(p.idle, s)
		p.mu.Unlock()
	}
	names := map[string][]string{"one.test": {"192.0.2.1"}}
	look := func(name string) ([]string, bool) { return names[name], false }
	if p.follow(look); len(p.idle) != 4 {
		t.Errorf("%d servers stay while a name is not known", len(p.idle))
	}
	names["two.test"] = []string{"192.0.2.2"}
	if p.follow(look); len(p.idle) != 3 {
		t.Errorf("%d servers stay", len(p.idle))
	}
	if h := p.Host(); h != "one.test" {
		t.Errorf("the host is %q", h)
	}
}

// Who has other connections to a node than the pool's is told which addresses its names mean, once for each look-up, and not what is not known.
func TestOthersAreToldWhereANameLeads(t *testing.T) {
	var told []string
	m := NewManager(Options{Verify: Unasked("a test"), Led: func(dsn string, means func(string) bool) {
		for _, ip := range []string{"127.0.0.1", "192.0.2.1"} {
			if means(ip + ":5432") {
				told = append(told, dsn+" "+ip)
			}
		}
		if !means("/tmp/.s.PGSQL.5432") {
			t.Error("a Unix socket is elsewhere")
		}
	}})
	for _, role := range []string{"app", "other"} {
		m.Pool("shop", "s1", "s1-a", "host=localhost", role)
		m.Pool("shop", "s2", "s2-a", "host=192.0.2.1", role)
		m.Pool("shop", "s3", "s3-a", "host=nosuch.invalid", role)
	}
	m.resolve(t.Context(), map[string]string{})
	if !slices.Equal(told, []string{"host=localhost 127.0.0.1"}) {
		t.Errorf("told %q", told)
	}
}
