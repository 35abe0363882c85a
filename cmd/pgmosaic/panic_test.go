package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/replication"
)

// provoked makes the next work that comes to a stage panic, once.
type provoked struct {
	stage  atomic.Pointer[string]
	passed atomic.Int32 // how many more come to the stage before
	said   lockedBuffer
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// take returns what was logged since the last time.
func (l *lockedBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.b.String()
	l.b.Reset()
	return s
}

func provoke(t *testing.T, a *app) *provoked {
	t.Helper()
	f := &provoked{}
	panics.LogTo(slog.New(slog.NewTextHandler(&f.said, nil)))
	t.Cleanup(func() { panics.LogTo(a.log) })
	panics.Provoke(t, func(stage string) {
		if s := f.stage.Load(); s != nil && *s == stage && f.passed.Add(-1) < 0 && f.stage.CompareAndSwap(s, nil) {
			panic("provoked at " + stage)
		}
	})
	return f
}

func (f *provoked) at(stage string) { f.after(stage, 0) }

// after has the work panic that comes to a stage when so many have passed it.
func (f *provoked) after(stage string, passed int) {
	f.passed.Store(int32(passed))
	f.stage.Store(&stage)
}

// happened waits for the panic, and returns what was logged of it.
func (f *provoked) happened(t *testing.T, stage string) string {
	t.Helper()
	eventually(t, "a panic at "+stage, func() bool { return f.stage.Load() == nil })
	var said string
	eventually(t, "the log tells of it", func() bool {
		said += f.said.take()
		return strings.Contains(said, "provoked at "+stage)
	})
	if !strings.Contains(said, "goroutine") || !strings.Contains(said, "panics.Point") {
		t.Errorf("%s: no stack in %s", stage, said)
	}
	return said
}

// openFiles counts the process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A panic in the work of one session ends that one. Its servers serve nobody any more, and others go on: one in a transaction, one amid a
// statement, and those that come.
func TestPanicEndsOneSession(t *testing.T) {
	d := shop(t)
	f := provoke(t, d.app)
	simple := pgx.QueryExecModeSimpleProtocol
	const rounds = 4
	for _, stage := range []struct {
		name string
		run  []string
	}{
		{"loop", []string{"begin", "update customers set name = name where customer_id = 1", "select 'literal'"}},
		{"planner", []string{"begin", "update customers set name = name where customer_id = 1", "select 'literal', name as planned_%d from customers where customer_id = 1"}},
		{"executor", []string{"begin", "update customers set name = name where customer_id = 1", "select 'literal' from customers where customer_id = 1"}},
		{"merge", []string{"begin", "update customers set name = name where customer_id = 1", "select name from customers where name <> 'literal' order by name limit 5"}},
		{"commit", []string{"begin", "update customers set name = name where customer_id in (1, 2, 3, 4, 5, 6, 7, 8)", "commit"}},
		{"executor", []string{"update customers set name = name where customer_id = 1 and name <> 'literal'"}},
		{"executor", []string{"create temp table panicked (a int)", "select 'literal' from panicked"}},
	} {
		t.Run(stage.name+" "+stage.run[0][:5], func(t *testing.T) {
			noServers := func() {
				d.Pools.Reconnect("")
				eventually(t, "no server is left", func() bool {
					for _, p := range d.Pools.All() {
						if len(p.Servers()) > 0 {
							return false
						}
					}
					return true
				})
			}
			var files, goroutines int
			for round := range 1 + rounds {
				if round < 2 { // behind the first, what goes on in the background has the connections that it keeps
					noServers()
					files, goroutines = openFiles(t), runtime.NumGoroutine()
				}
				inTx, amid := connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN())
				mustExec(t, inTx, "set lock_timeout = '10s'")
				mustExec(t, inTx, "begin")
				mustExec(t, inTx, "update customers set name = name where customer_id = 100")
				done := make(chan error, 1)
				go func() { _, err := amid.Exec(context.Background(), "select pg_sleep(0.3)", simple); done <- err }()
				eventually(t, "it runs", func() bool { return d.atWork(amid) && d.clientServers(amid.PgConn().PID()) > 0 })

				victim := connectTo(t, d.shopDSN())
				for _, sql := range stage.run[:len(stage.run)-1] {
					if _, err := victim.Exec(t.Context(), sql, simple); err != nil {
						t.Fatal(err)
					}
				}
				held := d.serversOf(victim.PgConn().PID())
				before := panics.Count(panics.Session)
				f.at(stage.name)
				_, err := victim.Exec(t.Context(), strings.ReplaceAll(stage.run[len(stage.run)-1], "%d", itoa(round)), simple) // each is planned anew
				var pe *pgconn.PgError
				if !errors.As(err, &pe) || pe.Code != "XX000" || pe.Severity != "FATAL" {
					t.Errorf("the client is told %v", err)
				}
				if _, err := victim.Exec(t.Context(), "select 1", simple); err == nil {
					t.Error("the session goes on")
				}
				said := f.happened(t, stage.name)
				if n := panics.Count(panics.Session); n != before+1 {
					t.Errorf("%d panics were counted", n-before)
				}
				for _, want := range []string{fmt.Sprintf("client=%d", victim.PgConn().PID()), "user=app", "database=shop", "statement="} {
					if !strings.Contains(said, want) {
						t.Errorf("the log says no %s: %s", want, said)
					}
				}
				if strings.Contains(said, "literal") {
					t.Error("the log tells literals: " + said)
				}
				eventually(t, "its servers are closed", func() bool {
					for _, p := range d.Pools.All() {
						for _, s := range p.Servers() {
							if held[fmt.Sprint(p.Node, s.PID)] {
								return false
							}
						}
					}
					return true
				})

				if err := <-done; err != nil {
					t.Errorf("one amid a statement: %v", err)
				}
				mustExec(t, inTx, "commit")
				if err := visitShop(d, "select count(*) from customers where customer_id between 1 and 8", "8"); err != nil {
					t.Error(err)
				}
				// What the victim has locked is free: in doubt is nothing that had not been prepared.
				mustExec(t, inTx, "update customers set name = name where customer_id = 1")
				_, _ = inTx.Close(context.Background()), amid.Close(context.Background())
			}
			leaks(t, d.app)()
			d.Pools.Reconnect("")
			const others = rounds - 1 // what goes on in the background may have opened meanwhile
			eventually(t, "the descriptors and goroutines are those before", func() bool { return openFiles(t) <= files+others && runtime.NumGoroutine() <= goroutines+others })
		})
	}
	if _, metrics, _ := get(t, d.url("/metrics")); !strings.Contains(metrics, `pgmosaic_panics_total{part="session"}`) || strings.Contains(metrics, `pgmosaic_panics_total{part="session"} 0`) {
		t.Error("the metric does not tell")
	}
	c := connectTo(t, d.shopDSN())
	eventually(t, "replicas are read again: no write is on its way for ever", func() bool {
		before := readsOfReplicas(d)
		mustExec(t, c, "select name from customers where customer_id = 1")
		return readsOfReplicas(d) > before
	})
}

// readsOfReplicas counts what replicas have answered.
func readsOfReplicas(d *demo) (n int64) {
	for _, s := range d.Catalog.Current().Databases["shop"].Shards {
		for _, x := range s.Nodes {
			n += d.Metrics.Node("shop", s.Name, x.Name).Reads[replication.ToReplica].Load()
		}
	}
	return n
}

// serversOf are the servers that a client holds.
func (d *demo) serversOf(client uint32) map[string]bool {
	out := map[string]bool{}
	for _, p := range d.Pools.All() {
		for _, s := range p.Servers() {
			if s.Client == client {
				out[fmt.Sprint(p.Node, s.PID)] = true
			}
		}
	}
	return out
}

// atWork says whether the proxy is at a statement of a client.
func (a *app) atWork(c *pgx.Conn) bool {
	for _, s := range a.Server.Sessions() {
		if i := s.Info(); i.PID == c.PgConn().PID() && i.State.String() == "busy" {
			return true
		}
	}
	return false
}

func (d *demo) clientServers(client uint32) int { return len(d.serversOf(client)) }

func visitShop(d *demo, sql, want string) error {
	c, err := pgx.Connect(context.Background(), d.shopDSN())
	if err != nil {
		return err
	}
	defer c.Close(context.Background())
	var got string
	if err := c.QueryRow(context.Background(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&got); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s: %q", sql, got)
	}
	return nil
}

func TestPanicBeforeTheLoginEnds(t *testing.T) {
	d := shop(t)
	f := provoke(t, d.app)
	f.at("login")
	_, err := pgx.Connect(t.Context(), d.shopDSN())
	wantCode(t, err, "XX000")
	f.happened(t, "login")
	c := connectTo(t, d.shopDSN())
	d.Pools.Reconnect("")
	f.at("dial")
	if _, err := c.Exec(t.Context(), "select pg_sleep(0)"); err == nil {
		t.Error("a connection whose making panicked was used")
	}
	f.happened(t, "dial")
	eventually(t, "it is made at last", func() bool { _, err := c.Exec(t.Context(), "select 1"); return err == nil })
	eventually(t, "no lease is left", func() bool {
		for _, p := range d.Pools.All() {
			if p.Busy() != 0 || p.Stats().Dialing != 0 {
				return false
			}
		}
		return true
	})
}

func TestPanicOfTheAdminOrTheDashboard(t *testing.T) {
	d := shop(t)
	f := provoke(t, d.app)
	client, console := connectTo(t, d.shopDSN()), connectTo(t, d.adminDSN())
	f.at("admin")
	_, err := console.Exec(t.Context(), "show pools", pgx.QueryExecModeSimpleProtocol)
	wantCode(t, err, "XX000")
	f.happened(t, "admin")
	f.at("dashboard")
	before := panics.Count(panics.Dashboard)
	if code, body, _ := get(t, d.url("/api/view/pools")); code != 500 || strings.Contains(body, "provoked") {
		t.Errorf("the page is answered %d %q", code, body)
	}
	f.happened(t, "dashboard")
	if n := panics.Count(panics.Dashboard); n != before+1 {
		t.Errorf("%d panics were counted", n-before)
	}
	mustExec(t, client, "select 1")
	if code, _, _ := get(t, d.url("/api/view/pools")); code != 200 {
		t.Errorf("the page is answered %d afterwards", code)
	}
	mustExec(t, connectTo(t, d.adminDSN()), "show pools")
}

// What goes on in the background goes on after a panic.
func TestPanicInTheBackground(t *testing.T) {
	d := shop(t)
	f := provoke(t, d.app)
	c := connectTo(t, d.shopDSN())
	for _, stage := range []string{"monitor", "resolver", "schema watch"} {
		for range 2 { // the second shows that it has begun again
			before := panics.Count(panics.Background)
			f.at(stage)
			if said := f.happened(t, stage); !strings.Contains(said, "task=") {
				t.Errorf("%s: the log does not say what it was: %s", stage, said)
			}
			if n := panics.Count(panics.Background); n < before+1 {
				t.Errorf("%s: %d panics were counted", stage, n-before)
			}
			if _, err := c.Exec(t.Context(), "select count(*) from customers"); err != nil {
				t.Fatalf("%s: %v: %s", stage, err, f.said.take())
			}
		}
	}
	listener := connectTo(t, d.shopDSN())
	mustExec(t, listener, "listen panicking")
	f.at("notify")
	mustExec(t, c, "notify panicking")
	f.happened(t, "notify")
	if _, err := listener.WaitForNotification(t.Context()); err == nil {
		t.Error("a session that may have missed notifications goes on")
	}
	listener = connectTo(t, d.shopDSN())
	eventually(t, "it can listen again", func() bool { _, err := listener.Exec(t.Context(), "listen panicking"); return err == nil })
	mustExec(t, c, "notify panicking, 'again'")
	if n, err := listener.WaitForNotification(t.Context()); err != nil || n.Payload != "again" {
		t.Error(n, err)
	}
}
