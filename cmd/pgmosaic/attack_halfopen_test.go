//go:build attack

package main

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// A client that falls silent at any moment, without FIN or RST, is given up within the limit that is set for what it is at, and so are
// its servers. Nobody else waits for it.
func TestAttackHalfOpenClients(t *testing.T) {
	d := shop(t)
	a := small(t, d, 2, func(c *config.Config) {
		c.Login, c.ClientIdle, c.IdleTx, c.Query = config.Duration(time.Second), config.Duration(time.Second), config.Duration(time.Second), config.Duration(time.Second)
	})
	node := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	mustExec(t, node, "create table silent (n int); insert into silent values (1); alter table silent owner to app")
	defer mustExec(t, node, "drop table silent")
	begins := func(sql ...string) func(*testing.T, *pgx.Conn) {
		return func(t *testing.T, c *pgx.Conn) {
			for _, s := range sql {
				mustExec(t, c, s)
			}
		}
	}
	starts := func(sql string) func(*testing.T, *pgx.Conn) {
		return func(t *testing.T, c *pgx.Conn) {
			go func() { _, _ = c.PgConn().Exec(context.Background(), sql).ReadAll() }()
			begun(t, node, sql, sql)
		}
	}
	for _, x := range []struct {
		name  string
		raw   func(net.Conn)              // before the login
		state func(*testing.T, *pgx.Conn) // after it
	}{
		{name: "nothing was said", raw: func(net.Conn) {}},
		{name: "half a startup packet", raw: func(nc net.Conn) { _, _ = nc.Write([]byte{0, 0, 0, 50, 0, 3}) }},
		{name: "in the login", raw: func(nc net.Conn) {
			c := wire.New(nc, 1000)
			c.Send(&wire.Startup{ProtocolVersion: wire.Version3, Parameters: map[string]string{"user": "app", "database": "shop"}})
			_ = c.Flush()
		}},
		{name: "idle", state: begins("select 1")},
		{name: "in a transaction", state: begins("begin", "update silent set n = n + 1")},
		{name: "in a failed transaction", state: func(t *testing.T, c *pgx.Conn) {
			mustExec(t, c, "begin")
			_, _ = c.Exec(t.Context(), "select 1/0")
		}},
		{name: "listening", state: begins("listen somebody")},
		{name: "in a statement", state: starts("select pg_sleep(301)")},
		{name: "in a statement of a transaction", state: func(t *testing.T, c *pgx.Conn) {
			begins("begin", "update silent set n = n + 1")(t, c)
			starts("select pg_sleep(302)")(t, c)
		}},
		{name: "in a large result", state: starts("select repeat('x', 1000) from generate_series(1, 3000000)")},
		{name: "in COPY out", state: starts("copy (select repeat('y', 1000) from generate_series(1, 3000000)) to stdout")},
		{name: "in COPY in", state: func(t *testing.T, c *pgx.Conn) {
			send(t, c, "Q\x00\x00\x00\x1bcopy silent from stdin\x00")
			begun(t, node, "copy silent", "copy silent from stdin")
			send(t, c, "d\x00\x00\x00\x062\n")
		}},
		{name: "in a pipeline", state: func(t *testing.T, c *pgx.Conn) {
			send(t, c, "P\x00\x00\x00\x10\x00select 1\x00\x00\x00H\x00\x00\x00\x04")
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			m := newMiddleman(t, a.Server.Addr())
			nc, err := net.Dial("tcp", m.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if x.raw != nil {
				x.raw(nc)
				eventually(t, "the proxy has the connection", func() bool { return len(a.Server.Sessions()) > 0 })
			} else {
				_ = nc.Close()
				c, err := pgx.Connect(t.Context(), dsnFor("app", "app", m.Addr().String(), "shop"))
				if err != nil {
					t.Fatal(err)
				}
				x.state(t, c)
			}
			m.set(func() { m.stalled = true })
			from := time.Now()
			for range 5 {
				if err := visit(a, "select n from silent", "1"); err != nil {
					t.Errorf("another client: %v", err)
				}
			}
			eventually(t, "the session ends", func() bool { return len(a.Server.Sessions()) == 0 })
			t.Logf("its session ended after %s", time.Since(from).Round(100*time.Millisecond))
			eventually(t, "no server is in use", func() bool {
				for _, p := range a.Pools.All() {
					if p.Stats().Active > 0 {
						return false
					}
				}
				return true
			})
			if n := queryOne[int](t, node, "select n from silent"); n != 1 {
				t.Errorf("the row is %d", n)
			}
			if n := queryOne[int](t, node, "select count(*) from pg_stat_activity where usename = 'app' and state <> 'idle' and query ~ 'silent|pg_sleep|repeat' and pid <> pg_backend_pid() and datname = 'shop'"); n != 0 {
				t.Errorf("%d servers are at work still", n)
			}
		})
	}
}

// A node's connection falls silent at each step of a commit over shards: with query_timeout the client is told, nothing is torn, and
// nothing stays prepared.
func TestAttackHalfOpenServersInACommit(t *testing.T) {
	d := shop(t)
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s1-a")}
	crashes(t, d, "silence", crash{nodes: nodes, shards: 2, silence: make(chan struct{}), config: func(c *config.Config) { c.Query = config.Duration(300 * time.Millisecond) }})
}

// send sends bytes to the proxy, and reads nothing.
func send(t *testing.T, c *pgx.Conn, bytes string) {
	t.Helper()
	if _, err := c.PgConn().Conn().Write([]byte(bytes)); err != nil {
		t.Fatal(err)
	}
}
