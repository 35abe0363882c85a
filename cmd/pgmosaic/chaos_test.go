package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// middleman stands between a client and the proxy, or the proxy and a server, and can cut, stall and spoil what
// passes.
type middleman struct {
	net.Listener

	mu      sync.Mutex
	to      string // where connections go from now on
	conns   []net.Conn
	live    int // of them
	stalled bool
	swallow int // connections from now on that are closed at once
	spoil   int // bytes from now on in which one is turned around; 0: none
}

func newMiddleman(t testing.TB, to string) *middleman {
	t.Helper()
	return middlemanAt(t, "127.0.0.1:0", to)
}

// middlemanAt is one that stands at an address.
func middlemanAt(t testing.TB, at, to string) *middleman {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	m := &middleman{Listener: l, to: to}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			swallow := m.swallow > 0
			m.swallow = max(0, m.swallow-1)
			to := m.to
			m.mu.Unlock()
			if swallow {
				_ = in.Close()
				continue
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			m.mu.Lock()
			m.conns = append(m.conns, in, out)
			m.live++
			m.mu.Unlock()
			ends := sync.OnceFunc(func() { m.set(func() { m.live-- }) })
			for _, p := range [][2]net.Conn{{in, out}, {out, in}} {
				wg.Add(1)
				go func() {
					defer wg.Done()
					defer ends()
					m.pass(p[0], p[1])
				}()
			}
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		m.cut()
		wg.Wait()
	})
	return m
}

func (m *middleman) pass(from, to net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		m.mu.Lock()
		if m.spoil > 0 {
			if m.spoil <= n {
				buf[m.spoil-1] ^= 0xff
				m.spoil = 0
			} else {
				m.spoil -= n
			}
		}
		stalled := m.stalled
		m.mu.Unlock()
		for stalled { // half open: nothing passes, and nobody is told
			time.Sleep(10 * time.Millisecond)
			m.mu.Lock()
			stalled = m.stalled && len(m.conns) > 0
			m.mu.Unlock()
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// open is how many connections there are.
func (m *middleman) open() (n int) {
	m.set(func() { n = m.live })
	return n
}

// cut closes every connection.
func (m *middleman) cut() {
	m.mu.Lock()
	conns := m.conns
	m.conns = nil
	m.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

func (m *middleman) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// behind is a proxy whose node is reached through a middleman.
func behind(t testing.TB, d *demo) (*app, *middleman) {
	t.Helper()
	cfg, err := pgconn.ParseConfig(d.cluster.Node("s1-a").DSN("shop"))
	if err != nil {
		t.Fatal(err)
	}
	m := newMiddleman(t, net.JoinHostPort(cfg.Host, itoa(int(cfg.Port))))
	a := small(t, d, 3, func(c *config.Config) {
		c.Users = append(c.Users, config.User{Name: cfg.User, Password: config.Secret(cfg.Password)})
		c.Direct.Setup = []string{"CREATE DATABASE shop", "CREATE SHARD s1 IN shop NODE '" + dsnFor(cfg.User, cfg.Password, m.Addr().String(), "shop") + "'"}
	})
	return a, m
}

// Who asks for a cancel waits until its connection is closed, as PostgreSQL's clients do. It is, when the servers have been asked: a request that were
// still on its way would hit the client's next statement.
func TestACancelRequestIsDoneWhenItsConnectionCloses(t *testing.T) {
	t.Parallel()
	a, m := behind(t, shop(t))
	c := connectTo(t, a.dsn())
	mustExec(t, c, "begin")
	mustExec(t, c, "select 1")
	m.set(func() { m.stalled = true })
	nc, err := net.Dial("tcp", a.Server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := wire.WriteAll(nc, wire.CancelRequest(c.PgConn().PID(), c.PgConn().SecretKey())); err != nil {
		t.Fatal(err)
	}
	_ = nc.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := nc.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("while the server is being asked: %d bytes, %v", n, err)
	}
	m.set(func() { m.stalled = false })
	_ = nc.SetReadDeadline(time.Time{})
	if n, err := nc.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		t.Errorf("when the server has been asked: %d bytes, %v", n, err)
	}
	mustExec(t, c, "select 1")
	mustExec(t, c, "rollback")
}

// A session that is terminated ends, though the cancel request that was to stop its statement got lost.
func TestTerminateOutlivesALostCancel(t *testing.T) {
	t.Parallel()
	a, m := behind(t, shop(t))
	c, other := connectTo(t, a.dsn()), connectTo(t, a.dsn())
	mustExec(t, other, "select 1")
	ended := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "select pg_sleep(20)")
		ended <- err
	}()
	eventually(t, "the statement runs", func() bool {
		return simply(t, other, "select count(*) from pg_stat_activity where query = 'select pg_sleep(20)' and state = 'active'") == "1"
	})
	m.set(func() { m.swallow = 1 })
	begun := time.Now()
	mustExec(t, other, "select pg_terminate_backend($1)", c.PgConn().PID())
	wantCode(t, <-ended, "57P01")
	if took := time.Since(begun); took > 10*time.Second { // the statement takes 20
		t.Errorf("it ended after %s", took)
	}
}

// Servers are lost at every kind of moment. Each error has its SQLSTATE, the session lives on, and nothing is
// left behind.
func TestServersLostAtEveryMoment(t *testing.T) {
	d := shop(t)
	a, m := behind(t, d)
	check := leaks(t, a)
	isLoss := func(what string, err error) {
		t.Helper()
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "08006" && pe.Code != "57P01" && pe.Code != "57P03" {
			t.Errorf("%s: %v", what, err)
		}
	}
	session := func() *pgx.Conn {
		t.Helper()
		c, err := pgx.Connect(t.Context(), a.dsn()+"?default_query_exec_mode=simple_protocol")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	lives := func(what string, c *pgx.Conn) {
		t.Helper()
		eventually(t, what+": the session lives on", func() bool {
			_, err := c.Exec(context.Background(), "select 1")
			var pe *pgconn.PgError
			if err != nil && !errors.As(err, &pe) {
				t.Fatalf("%s: the session is dead: %v", what, err)
			}
			return err == nil
		})
	}
	server := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	cutOnce := func(what string, there func(), run func() error) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- run() }()
		there()
		m.cut()
		isLoss(what, <-done)
	}
	for what, sql := range map[string]string{"mid-query": "select pg_sleep(30)", "mid-transaction": "begin; select pg_sleep(30)"} {
		c, sign := session(), fmt.Sprintf("%s %d", what, rand.Int64()) // PostgreSQL sleeps on, cut off
		cutOnce(what, func() { begun(t, server, what, sign) }, func() error {
			_, err := c.PgConn().Exec(t.Context(), sql+" /* "+sign+" */").ReadAll()
			return err
		})
		if what == "mid-transaction" {
			mustExec(t, c, "rollback")
		}
		lives(what, c)
		_ = c.Close(t.Context())
	}
	const many = "select repeat('x', 10000) from generate_series(1, 20000)" // more than all buffers on the way take
	c := session()
	rows := c.PgConn().Exec(t.Context(), many)
	if !rows.NextResult() || !rows.ResultReader().NextRow() {
		t.Fatal("mid-rows: no row came")
	}
	m.cut()
	isLoss("mid-rows", rows.Close())
	lives("mid-rows", c)
	var once sync.Once
	_, err := c.PgConn().CopyTo(t.Context(), writerFunc(func(b []byte) (int, error) {
		once.Do(m.cut)
		return len(b), nil
	}), "copy ("+many+") to stdout")
	isLoss("mid-copy-out", err)
	lives("mid-copy-out", c)
	mustExec(t, c, "create temp table chaos (a text)")
	pr, pw := io.Pipe()
	go func() {
		for {
			if _, err := pw.Write([]byte(strings.Repeat("y", 999) + "\n")); err != nil {
				return
			}
		}
	}()
	cutOnce("mid-copy-in", func() {
		eventually(t, "rows are copied", func() bool {
			return queryOne[bool](t, server, "select exists (select from pg_stat_progress_copy p join pg_stat_activity a using (pid) where a.query like 'copy chaos%' and p.tuples_processed > 0)")
		})
	}, func() error {
		_, err := c.PgConn().CopyFrom(t.Context(), pr, "copy chaos from stdin")
		return err
	})
	_ = pr.Close()
	lives("mid-copy-in", c)
	b := &pgconn.Batch{}
	sign := fmt.Sprintf("mid-pipeline %d", rand.Int64())
	for i := range 100 {
		b.ExecParams(fmt.Sprintf("select pg_sleep(%d) /* %s */", i/50*30, sign), nil, nil, nil, nil)
	}
	cutOnce("mid-pipeline", func() { begun(t, server, "the fiftieth statement", "pg_sleep(30) /* "+sign) }, func() error {
		_, err := c.PgConn().ExecBatch(t.Context(), b).ReadAll()
		return err
	})
	lives("mid-pipeline", c)
	mustExec(t, c, "begin") // between statements
	mustExec(t, c, "select 1")
	m.cut()
	_, err = c.Exec(t.Context(), "select 1")
	isLoss("idle in a transaction", err)
	mustExec(t, c, "rollback")
	m.cut() // idle: nobody need know
	lives("idle", c)
	for i := range 30 { // bytes that are not what the server sent
		m.set(func() { m.spoil = 1 + rand.IntN(400) })
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := c.PgConn().Exec(ctx, "select generate_series(1, 20), 'some text'").ReadAll()
		cancel()
		var pe *pgconn.PgError
		if err != nil && !errors.As(err, &pe) || c.IsClosed() { // a byte of a row may reach the client, which may give up on it
			_ = c.Close(t.Context())
			c = session()
		}
		m.set(func() { m.spoil = 0 })
		m.cut()
		lives("garbage "+itoa(i), c)
	}
	_ = c.Close(t.Context())
	check()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// Clients vanish at every kind of moment: what they held is free again.
func TestClientsLostAtEveryMoment(t *testing.T) {
	d := shop(t)
	a := small(t, d, 2, nil)
	direct := dsnFor("app", "app", strings.Split(strings.SplitN(d.cluster.Node("s1-a").DSN("shop"), "@", 2)[1], "/")[0], "shop")
	mustExec(t, connectTo(t, direct), "create table if not exists kept (a int)")
	defer func() { mustExec(t, connectTo(t, direct), "drop table kept") }()
	check := leaks(t, a)
	server := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	for what, f := range map[string]func(r *raw){
		"before anything":  func(*raw) {},
		"idle":             func(r *raw) { r.SendQuery("select 1"); r.until('Z') },
		"in a transaction": func(r *raw) { r.SendQuery("begin; select 1"); r.until('Z') },
		"in a failed one":  func(r *raw) { r.SendQuery("begin; select 1/0"); r.until('Z') },
		"mid-query": func(r *raw) {
			r.SendQuery("select pg_sleep(30) /* its client leaves */")
			_ = r.Flush()
			begun(t, server, "the statement", "its client leaves")
		},
		"mid-rows":          func(r *raw) { r.SendQuery("select repeat('x', 100000) from generate_series(1, 100000)"); r.until('D') },
		"mid-message":       func(r *raw) { _ = wire.WriteAll(r.NetConn(), []byte("Q\x00\x00\x01\x00select")) },
		"mid-pipeline":      func(r *raw) { r.run("insert into kept values (1)"); r.SendFlush(); r.until('C') },
		"pipeline not sent": func(r *raw) { r.run("insert into kept values (1)"); _ = r.Flush() },
		"mid-copy-in": func(r *raw) {
			r.SendQuery("copy kept from stdin")
			r.until('G')
			r.SendFrame('d', []byte("1\n"))
			_ = r.Flush()
		},
		"mid-copy-out": func(r *raw) {
			r.SendQuery("copy (select repeat('x', 100000) from generate_series(1, 100000)) to stdout")
			r.until('d')
		},
		"with a portal": func(r *raw) {
			r.SendQuery("begin")
			r.until('Z')
			r.SendParse("", "select generate_series(1, 100)", nil)
			r.SendBind("p", "", []byte{0, 0, 0, 0, 0, 0})
			r.executeLimited("p", 5)
			r.SendSync()
			r.until('Z')
		},
		"pinned":              func(r *raw) { r.SendQuery("create temp table tt (a int)"); r.until('Z') },
		"garbage":             func(r *raw) { _ = wire.WriteAll(r.NetConn(), []byte("\x00\x01\x02\x03garbage that is no message")) },
		"a claimed length":    func(r *raw) { _ = wire.WriteAll(r.NetConn(), []byte("Q\x7f\xff\xff\xffselect")) },
		"a length below four": func(r *raw) { _ = wire.WriteAll(r.NetConn(), []byte("Q\x00\x00\x00\x00")) },
		"garbage in a batch": func(r *raw) {
			_ = wire.WriteAll(r.NetConn(), []byte("P\x00\x00\x00\x06xx"+"B\x00\x00\x00\x05x"+"D\x00\x00\x00\x04"+"S\x00\x00\x00\x04"))
			r.until('Z')
		},
		"waiting": func(r *raw) {
			var held []*raw
			for range 2 {
				h := rawTo(t, a.dsn())
				h.SendQuery("begin; select 1")
				h.until('Z')
				held = append(held, h)
			}
			r.SendQuery("select 1")
			_ = r.Flush()
			eventually(t, "it waits", func() bool {
				res, err := a.Admin.Exec(t.Context(), "SHOW POOLS WHERE database = 'shop' AND cl_waiting = 1", false)
				return err == nil && len(res.Rows) == 1
			})
			for _, h := range held {
				_ = h.Close()
			}
		},
	} {
		for _, hard := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hard %v", what, hard), func(t *testing.T) {
				r := rawTo(t, a.dsn())
				f(r)
				if tc, ok := r.NetConn().(*net.TCPConn); ok && hard {
					_ = tc.SetLinger(0) // RST
				}
				_ = r.Close()
				eventually(t, "the session ends", func() bool { return len(a.Server.Sessions()) == 0 })
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				c, err := pgx.Connect(ctx, a.dsn())
				if err == nil {
					_, err = c.Exec(ctx, "select 1")
					_ = c.Close(ctx)
				}
				if err != nil {
					t.Errorf("the next client: %v", err)
				}
			})
		}
	}
	if n := queryOne[int](t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "select count(*) from kept"); n != 0 {
		t.Errorf("%d rows of clients that vanished before they committed", n)
	}
	check()
}

// A peer that says nothing more, without closing: the proxy's own limits end the wait.
func TestHalfOpenConnections(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a, m := behind(t, d)
	c := connectTo(t, a.dsn())
	mustExec(t, c, "select 1")
	m.set(func() { m.stalled = true })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	_, err := c.Exec(ctx, "select 1")
	cancel()
	if err == nil {
		t.Error("an answer came through a stalled connection")
	}
	m.set(func() { m.stalled = false })
	m.cut()
	eventually(t, "the sessions of clients that gave up end", func() bool { return len(a.Server.Sessions()) == 0 })
	mustExec(t, connectTo(t, a.dsn()), "select 1")
}

// Whatever bytes come before the login, the process lives, and nothing of them is kept.
func TestGarbageBeforeTheLogin(t *testing.T) {
	d := shop(t)
	a := small(t, d, 2, nil)
	check := leaks(t, a)
	rng := rand.New(rand.NewPCG(1, 2))
	before := processMemory()
	for range 300 {
		nc, err := net.Dial("tcp", a.Server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, rng.IntN(300))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		switch rng.IntN(3) {
		case 0: // a startup packet of a kind
			b = append([]byte{0, 0, byte(len(b) / 256), byte(len(b)), 0, 3, 0, 0}, b...)
		case 1: // a login, then garbage in place of the password
			c := wire.New(nc, 1000)
			c.Send(&wire.Startup{ProtocolVersion: wire.Version3, Parameters: map[string]string{"user": "app", "database": "shop"}})
			_ = c.Flush()
		}
		_ = wire.WriteAll(nc, b)
		_ = nc.Close()
	}
	check()
	mustExec(t, connectTo(t, a.dsn()), "select 1")
	if grown := processMemory() - before; grown > 16<<20 {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
}
