//go:build attack

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgmosaic/pgmosaic/proxy/config"
)

// nameServer is a name server on loopback that this process asks until the test ends. It knows names of one address each; of others it says
// that they do not exist. While it is silent it says nothing.
type nameServer struct {
	mu     sync.Mutex
	addrs  map[string]net.IP
	silent bool
	asked  int
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServer{addrs: map[string]net.IP{}}
	go func() {
		b := make([]byte, 1500)
		for {
			size, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if a := n.answer(b[:size]); a != nil {
				_, _ = pc.WriteTo(a, from)
			}
		}
	}()
	was := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = was
		_ = pc.Close()
	})
	return n
}

func (n *nameServer) answer(q []byte) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	if n.silent || len(q) < 17 {
		return nil
	}
	var labels []string
	at := 12
	for q[at] != 0 {
		labels = append(labels, string(q[at+1:at+1+int(q[at])]))
		at += 1 + int(q[at])
	}
	at += 5
	ip := n.addrs[strings.Join(labels, ".")]
	a := append([]byte{q[0], q[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:at]...)
	switch {
	case ip == nil:
		a[3] |= 3 // no such name
	case binary.BigEndian.Uint16(q[at-4:]) == 1:
		a[7] = 1
		a = append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		a = append(a, ip.To4()...)
	}
	return a
}

func (n *nameServer) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// The name of a node means another address, then none, then no name server answers: what is connected goes on, what is not is told, new
// connections go where the name leads, and nobody waits for the name server.
func TestAttackNamesOfNodes(t *testing.T) {
	d := shop(t)
	n := newNameServer(t)
	cfg, err := pgconn.ParseConfig(d.cluster.Node("s1-a").DSN("shop"))
	if err != nil {
		t.Fatal(err)
	}
	one := newMiddleman(t, net.JoinHostPort(cfg.Host, itoa(int(cfg.Port))))
	_, port, _ := net.SplitHostPort(one.Addr().String())
	two := middlemanAt(t, "127.0.0.2:"+port, net.JoinHostPort(cfg.Host, itoa(int(cfg.Port))))
	n.set(func() { n.addrs["node.test"] = net.ParseIP("127.0.0.1") })
	a := small(t, d, 2, func(c *config.Config) {
		c.DNSTTL, c.QueryWait, c.Connect, c.LoginRetry = config.Duration(100*time.Millisecond), config.Duration(time.Second), config.Duration(time.Second), config.Duration(time.Millisecond)
		c.Direct.Setup = []string{"CREATE DATABASE shop", "CREATE SHARD s1 IN shop NODE '" + dsnFor(cfg.User, cfg.Password, "node.test:"+port, "shop") + "'"}
	})
	passed := func(m *middleman) int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.conns)
	}
	c := connectTo(t, a.dsn())
	mustExec(t, c, "select 1")
	mustExec(t, c, "begin")
	mustExec(t, c, "select 1")
	if passed(one) == 0 || passed(two) != 0 {
		t.Fatalf("%d and %d connections", passed(one), passed(two))
	}
	n.set(func() { n.addrs["node.test"] = net.ParseIP("127.0.0.2") })
	eventually(t, "new connections go to the new address", func() bool {
		if err := visit(a, "select 1", "1"); err != nil {
			t.Error(err)
		}
		return passed(two) > 0
	})
	mustExec(t, c, "select 1") // the transaction goes on where it is
	mustExec(t, c, "commit")
	console := consoleOf(t, a)
	eventually(t, "all servers are at the new address", func() bool {
		mustExec(t, c, "select 1")
		return !strings.Contains(fmt.Sprint(shown(t, console, "SHOW SERVERS")), "127.0.0.1:"+port) && !slices.ContainsFunc(shown(t, console, "SHOW SERVERS"), func(r map[string]string) bool { return r["addr"] == "127.0.0.1" })
	})

	eventually(t, "nothing of the proxy is left at the old address", func() bool { return one.open() == 0 })

	n.set(func() { delete(n.addrs, "node.test") })
	asked := n.asked
	eventually(t, "it was looked up", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.asked > asked+10 })
	one.cut()
	two.cut()
	_, _ = c.Exec(t.Context(), "select 1")
	eventually(t, "the loss is told", func() bool {
		err := visit(a, "select 1", "1")
		return err != nil
	})
	n.set(func() { n.addrs["node.test"] = net.ParseIP("127.0.0.1") })
	eventually(t, "it goes on where the name leads now", func() bool { return visit(a, "select 1", "1") == nil })

	// A name server that says nothing: clients that wait for a server are told in time all the same.
	var busy []*pgx.Conn
	for range 2 {
		b := connectTo(t, a.dsn())
		mustExec(t, b, "begin")
		mustExec(t, b, "select 1")
		busy = append(busy, b)
	}
	waiting := connectTo(t, a.dsn())
	n.set(func() { n.silent = true })
	for range 3 {
		if _, err := waiting.Exec(t.Context(), "select 1"); err == nil {
			t.Error("there was a third server")
		}
	}
	n.set(func() { n.silent = false })
	for _, b := range busy {
		_, _ = b.Exec(t.Context(), "commit")
	}
	eventually(t, "all is well", func() bool { return visit(a, "select 1", "1") == nil })
}

// Who listens is not left with the server that a node's name meant before and that lives on: he is told that something may be missed, and hears the
// other one from his next LISTEN on. A name that means the same again ends nobody.
func TestAttackListenFollowsNames(t *testing.T) {
	d := shop(t)
	n := newNameServer(t)
	cfg, err := pgconn.ParseConfig(d.cluster.Node("s1-a").DSN("shop"))
	if err != nil {
		t.Fatal(err)
	}
	to := net.JoinHostPort(cfg.Host, itoa(int(cfg.Port)))
	one := newMiddleman(t, to)
	_, port, _ := net.SplitHostPort(one.Addr().String())
	middlemanAt(t, "127.0.0.2:"+port, to)
	n.set(func() { n.addrs["node.test"] = net.ParseIP("127.0.0.1") })
	a := small(t, d, 2, func(c *config.Config) {
		c.DNSTTL = config.Duration(100 * time.Millisecond)
		c.Direct.Setup = []string{"CREATE DATABASE shop", "CREATE SHARD s1 IN shop NODE '" + dsnFor(cfg.User, cfg.Password, "node.test:"+port, "shop") + "'"}
	})
	c, server := connectTo(t, a.dsn()), connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	mustExec(t, c, "listen named")
	var asked int
	n.set(func() { asked = n.asked })
	eventually(t, "it was looked up", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.asked > asked+10 })
	mustExec(t, server, "notify named, 'before'")
	hearsNext(t, c, "before")
	n.set(func() { n.addrs["node.test"] = net.ParseIP("127.0.0.2") })
	toldMissed(t, c, "the name leads elsewhere")
	c = connectTo(t, a.dsn())
	mustExec(t, c, "listen named")
	one.cut()
	mustExec(t, server, "notify named, 'after'")
	hearsNext(t, c, "after")
}
