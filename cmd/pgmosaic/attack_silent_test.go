//go:build attack

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// silencer is the way between a proxy and a node that falls silent: connections stay open and take bytes, and nothing arrives, as when a machine, or a
// firewall's memory of the connections, is gone.
type silencer struct {
	net.Listener
	to string

	mu    sync.Mutex
	pairs []*silenced
	all   bool // new ones are silent, too
	done  chan struct{}
}

type silenced struct {
	in, out net.Conn
	silent  bool
}

func newSilencer(t testing.TB, to string) *silencer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &silencer{Listener: l, to: to, done: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			s.mu.Lock()
			p := &silenced{in, out, s.all}
			s.pairs = append(s.pairs, p)
			s.mu.Unlock()
			wg.Go(func() { s.pass(p, in, out) })
			wg.Go(func() { s.pass(p, out, in) })
		}
	})
	t.Cleanup(func() {
		close(s.done)
		_ = l.Close()
		s.mu.Lock()
		for _, p := range s.pairs {
			_, _ = p.in.Close(), p.out.Close()
		}
		s.mu.Unlock()
		wg.Wait()
	})
	return s
}

func (s *silencer) pass(p *silenced, from, to net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		s.mu.Lock()
		silent := p.silent
		s.mu.Unlock()
		if silent { // who closes his end is not heard, either; what is sent stays in the buffers of the way
			<-s.done
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_, _ = from.Close(), to.Close()
}

// silence stops what there is. all: and what comes.
func (s *silencer) silence(all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = all
	for _, p := range s.pairs {
		p.silent = true
	}
}

// cut closes what has been silent, as TCP does in the end where nothing acknowledges what is sent.
func (s *silencer) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pairs {
		_, _ = p.in.Close(), p.out.Close()
	}
}

// hear lets new connections through again.
func (s *silencer) hear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = false
}

// silentWorld is a proxy of its own over the shop's two shards, each behind a silencer, which have customers of some keys.
func silentWorld(t *testing.T, d *demo, key, other string, change func(*config.Config)) (a *app, ways [2]*silencer) {
	t.Helper()
	doc := mapOf(d, "shop")
	doc.Nodes = only(doc.Nodes, func(n *shardmap.Node) bool { return strings.HasSuffix(n.Name, "-a") })
	for i, x := range doc.Nodes {
		n := *x
		cfg, err := pgx.ParseConfig(n.DSN)
		if err != nil {
			t.Fatal(err)
		}
		at := int(n.Name[1] - '1')
		ways[at] = newSilencer(t, net.JoinHostPort(cfg.Host, itoa(int(cfg.Port))))
		n.DSN = dsnFor(cfg.User, cfg.Password, ways[at].Addr().String(), cfg.Database) + "?sslmode=disable"
		doc.Nodes[i] = &n
	}
	path := t.TempDir() + "/map.json"
	if err := filestore.New(path).Save(t.Context(), 0, doc); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Store, cfg.PoolSize, cfg.Connect = path, 40, config.Duration(time.Second)
	cfg.AdminUsers, cfg.Users = []string{"admin"}, []config.User{{Name: "app", Password: "app"}, {Name: "admin", Password: "admin"}}
	if change != nil {
		change(&cfg)
	}
	a = startApp(t, cfg)
	for _, k := range []string{key, other} {
		eventually(t, "the shards answer", func() bool {
			return visit(a, "select customer_id::text from customers where customer_id = "+k, k) == nil
		})
	}
	return a, ways
}

// A node falls silent under whatever the proxy is at with it for clients. With query_timeout they are told in time, without it their end is
// enough; others go on meanwhile on the other shard, and if only connections are lost on this one, too; no dead server stays in the pool,
// and nothing is left behind.
func TestAttackHalfOpenServers(t *testing.T) {
	d := shop(t)
	type state struct {
		name  string
		ready string                                                    // run before
		run   func(ctx context.Context, c *pgx.Conn, wait func()) error // calls wait where the silence is to come
		fine  bool                                                      // it may succeed: nobody need know of the server that is silent
	}
	simple := func(ctx context.Context, c *pgx.Conn, sql string) error {
		_, err := c.PgConn().Exec(ctx, sql).ReadAll()
		return err
	}
	statement := func(sql string) func(context.Context, *pgx.Conn, func()) error {
		return func(ctx context.Context, c *pgx.Conn, wait func()) error {
			wait()
			return simple(ctx, c, sql)
		}
	}
	rows := func(sql string) func(context.Context, *pgx.Conn, func()) error {
		return func(ctx context.Context, c *pgx.Conn, wait func()) error {
			r := c.PgConn().Exec(ctx, sql)
			if !r.NextResult() || !r.ResultReader().NextRow() {
				return errors.Join(errors.New("no row came"), r.Close())
			}
			wait()
			return r.Close()
		}
	}
	node := connectTo(t, d.cluster.Node("s2-a").DSN("shop"))
	key := itoa(queryOne[int](t, node, "select min(customer_id) from customers"))
	other := itoa(queryOne[int](t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "select min(customer_id) from customers"))
	const update = "update customers set name = name where customer_id = "
	states := []state{
		{name: "idle in the pool", run: statement("select 1 from customers where customer_id = " + key), fine: true}, // it may be lent one that was opened since
		{name: "settings are replayed", ready: "set application_name = 'silent'", run: statement("select 1 from customers where customer_id = " + key), fine: true},
		{name: "a statement runs", run: func(ctx context.Context, c *pgx.Conn, wait func()) error {
			ended := make(chan error, 1)
			go func() {
				ended <- simple(ctx, c, "select pg_sleep(20) from customers where customer_id = "+key+" /* runs into silence */")
			}()
			begun(t, node, "the statement", "runs into silence")
			wait()
			return <-ended
		}},
		{name: "parse and describe", ready: "begin; select 1 from customers where customer_id = " + key, run: func(ctx context.Context, c *pgx.Conn, wait func()) error {
			wait()
			_, err := c.Prepare(ctx, "s", "select name, upper(email) from customers where customer_id = "+key)
			if err == nil {
				_, err = c.Exec(ctx, "s")
			}
			return err
		}},
		{name: "rows of one shard", run: rows("select repeat('x', 10000) from customers, generate_series(1, 20000) where customer_id = " + key)},
		{name: "rows of both shards", run: rows("select repeat('x', 150000), customer_id from customers")},
		{name: "sorted rows of both shards", run: rows("select repeat('x', 150000), customer_id from customers order by customer_id")},
		{name: "a gather", ready: "begin; select count(*) from customers", run: statement("select count(*) from customers a, customers b where a.name = b.name")},
		{name: "COPY out", run: func(ctx context.Context, c *pgx.Conn, wait func()) error {
			var once sync.Once
			_, err := c.PgConn().CopyTo(ctx, writerFunc(func(b []byte) (int, error) { once.Do(wait); return len(b), nil }),
				"copy (select repeat('x', 10000) from customers, generate_series(1, 20000) where customer_id = "+key+") to stdout")
			return err
		}},
		{name: "COPY in", run: func(ctx context.Context, c *pgx.Conn, wait func()) error {
			pr, pw := io.Pipe()
			defer func() { _ = pr.Close() }()
			go func() {
				for i := 0; ; i++ {
					if i == 1000 {
						wait()
					}
					if _, err := fmt.Fprintf(pw, "%d\t%s\te\tAA\t2026-01-01\n", 10000000+i, strings.Repeat("y", 1000)); err != nil {
						return
					}
				}
			}()
			_, err := c.PgConn().CopyFrom(ctx, pr, "copy customers (customer_id, name, email, country, created_at) from stdin")
			return err
		}},
		{name: "in a transaction", ready: "begin; " + update + key, run: statement(update + key)},
		{name: "in a transaction over both", ready: "begin; " + update + other + "; select 1 from customers where customer_id = " + key, run: statement(update + other + " + 1; select count(*) from customers")},
		{name: "rollback", ready: "begin; select 1 from customers where customer_id = " + key, run: statement("rollback"), fine: true},
		{name: "commit on one shard", ready: "begin; update orders set status = status where customer_id = " + key, run: statement("commit")},
		{name: "a cursor", ready: "begin; declare c cursor for select * from customers where customer_id = " + key + "; fetch c", run: statement("fetch c")},
	}
	for _, machine := range []bool{true, false} { // the node's machine is gone, or only what is connected
		for _, limit := range []bool{true, false} {
			t.Run(fmt.Sprintf("machine gone %t, limit %t", machine, limit), func(t *testing.T) {
				a, ways := silentWorld(t, d, key, other, func(c *config.Config) {
					if limit {
						c.Query = config.Duration(3 * time.Second)
					}
				})
				var idle []*pgx.Conn // servers in the pool
				for range 4 {
					c := connectTo(t, a.dsn())
					mustExec(t, c, "begin; select 1 from customers where customer_id = "+key, pgx.QueryExecModeSimpleProtocol)
					idle = append(idle, c)
				}
				for _, c := range idle {
					_ = c.Close(context.Background())
				}
				eventually(t, "the sessions end", func() bool { return len(a.Server.Sessions()) == 0 })
				defer leaks(t, a)()
				all, die := context.WithCancel(context.Background())
				defer die()
				var in, over sync.WaitGroup
				silent := make(chan struct{})
				var from time.Time
				for _, x := range states {
					c, err := pgx.Connect(t.Context(), a.dsn())
					if err != nil {
						t.Fatal(err)
					}
					if x.ready != "" {
						mustExec(t, c, x.ready, pgx.QueryExecModeSimpleProtocol)
					}
					in.Add(1)
					over.Go(func() {
						defer c.Close(context.Background())
						reached := sync.OnceFunc(in.Done)
						defer reached()
						done := make(chan error, 1)
						go func() { done <- x.run(all, c, func() { reached(); <-silent }) }()
						if !limit {
							<-silent
							_ = c.PgConn().Conn().Close() // the client dies
						}
						err := <-done
						if !limit {
							return
						}
						t.Logf("%s: after %s: %v", x.name, time.Since(from).Round(100*time.Millisecond), err)
						var pe *pgconn.PgError
						told := errors.As(err, &pe) && pe.Code != "XX000" || x.name == "COPY in" && errors.Is(err, net.ErrClosed) // its driver writes on, and may see that the session has ended before it reads why
						if err == nil && !x.fine || err != nil && !told {
							t.Errorf("%s: the client is told %v", x.name, err)
						}
					})
				}
				in.Wait()
				ways[1].silence(machine)
				from = time.Now()
				close(silent)
				for range 5 {
					if err := visit(a, "select customer_id::text from customers where customer_id = "+other, other); err != nil {
						t.Errorf("another client on the other shard: %v", err)
					}
				}
				ended := make(chan struct{})
				go func() { over.Wait(); close(ended) }()
				select {
				case <-ended:
				case <-time.After(time.Minute):
					t.Fatal("clients are not told")
				}
				within(t, time.Minute, "the sessions end", func() bool { return len(a.Server.Sessions()) == 0 })
				t.Logf("the sessions had ended after %s", time.Since(from).Round(100*time.Millisecond))
				ways[1].hear()
				within(t, time.Minute, "the shard answers again", func() bool {
					return visit(a, "select customer_id::text from customers where customer_id = "+key, key) == nil
				})
				for range 20 { // no dead server is left in the pool
					if err := visit(a, "select customer_id::text from customers where customer_id = "+key, key); err != nil {
						t.Errorf("afterwards: %v", err)
					}
				}
				within(t, time.Minute, "no server is in use", func() bool {
					for _, p := range a.Pools.All() {
						if p.Stats().Active > 0 {
							return false
						}
					}
					return true
				})
			})
		}
	}
}

// What the proxy has connections of its own for goes on when these fall silent: sessions that listen are told, definitions are noticed,
// parts of dead processes are finished, the monitor says which node does not answer; and an admin statement ends with its client.
func TestAttackHalfOpenServersOfTheProxysOwn(t *testing.T) {
	d := shop(t)
	home, node := connectTo(t, d.cluster.Node("s1-a").DSN("shop")), connectTo(t, d.cluster.Node("s2-a").DSN("shop"))
	key, other := itoa(queryOne[int](t, node, "select min(customer_id) from customers")), itoa(queryOne[int](t, home, "select min(customer_id) from customers"))
	a, ways := silentWorld(t, d, key, other, func(c *config.Config) {
		c.Grace, c.Resolve = config.Duration(300*time.Millisecond), config.Duration(200*time.Millisecond)
	})
	defer leaks(t, a)()
	defer func() { // what is cleaned up over such a connection has no other bound than TCP's
		for _, w := range ways {
			w.cut()
		}
	}()
	lost := func() { // every connection, of which nobody is told
		for _, w := range ways {
			w.silence(false)
		}
	}

	c, err := pgx.Connect(t.Context(), a.dsn())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	mustExec(t, c, "listen silent")
	lost()
	mustExec(t, node, "notify silent") // is missed
	from := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.WaitForNotification(ctx); ctx.Err() != nil {
		t.Errorf("who listens is not told: %v", err)
	} else {
		t.Logf("who listens is told after %s: %v", time.Since(from).Round(100*time.Millisecond), err)
	}

	db := a.Catalog.Current().Databases["shop"]
	fingerprint := func() string {
		s, err := a.Engine.Planner.Schemas.Get(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		return s.Fingerprint
	}
	before := fingerprint()
	lost()
	mustExec(t, home, "create table defined_in_silence (n int)")
	within(t, 2*time.Minute, "the definition is noticed", func() bool { return fingerprint() != before })
	mustExec(t, home, "drop table defined_in_silence")

	gid := txn.GID(a.Catalog.Current().Install, "s1")
	for i, c := range []*pgx.Conn{home, node} {
		lost()
		mustExec(t, c, "begin; prepare transaction '"+txn.PartGID(gid, i)+"'")
	}
	within(t, time.Minute, "parts of dead processes are finished", func() bool {
		return queryOne[int](t, home, "select count(*) from pg_prepared_xacts where gid like $1", gid+"%") == 0 && queryOne[int](t, node, "select count(*) from pg_prepared_xacts where gid like $1", gid+"%") == 0
	})

	ways[1].silence(true)
	eventually(t, "the monitor says so", func() bool { v := a.Monitor.View("shop", "s2"); return v.Nodes[0].Sample.Err != nil })
	ways[1].hear()
	eventually(t, "the monitor says that it is there again", func() bool { return a.Monitor.View("shop", "s2").Up() })

	mustExec(t, home, "create table quiet (id int primary key, t text); alter table quiet owner to app; insert into quiet select i, repeat('x', 100) from generate_series(1, 200000) i")
	console := func(ctx context.Context, sql string) error {
		c, err := pgx.Connect(ctx, a.consoleDSN())
		if err != nil {
			return err
		}
		defer c.Close(context.Background())
		_, err = c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		return err
	}
	if err := console(t.Context(), "CREATE GROUP quiet IN shop KEY (int) BY HASH"); err != nil {
		t.Fatal(err)
	}
	for _, way := range []int{1, 0} {
		ctx, die := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- console(ctx, "DISTRIBUTE TABLE shop.public.quiet IN GROUP quiet KEY (id)") }()
		within(t, time.Minute, "rows are copied", func() bool {
			return queryOne[bool](t, node, "select exists (select from pg_stat_progress_copy where tuples_processed > 0)")
		})
		ways[way].silence(false)
		die()
		t.Logf("DISTRIBUTE, its client gone: %v", <-ended)
		within(t, 2*time.Minute, "the statement ends", func() bool {
			res, err := a.Admin.Exec(t.Context(), "SHOW JOBS", true)
			return err == nil && !slices.ContainsFunc(res.Rows, func(r []any) bool { return slices.Contains(r, any("copying")) })
		})
		within(t, time.Minute, "the table is in use", func() bool { return visit(a, "select count(*)::text from quiet", "200000") == nil })
		if way == 1 { // the node has not noticed, and its server process may wait for rows still
			if err := console(t.Context(), "DISTRIBUTE TABLE shop.public.quiet IN GROUP quiet KEY (id)"); err != nil {
				wantCode(t, err, "55006")
			} else if err := console(t.Context(), "UNDISTRIBUTE TABLE shop.public.quiet"); err != nil { // all rows had been sent
				t.Error(err)
			}
		}
		a.Pools.Reconnect("")                       // without query_timeout a client would wait for an idle server that is silent
		for _, c := range []*pgx.Conn{home, node} { // as it does by itself when TCP tells it
			mustExec(t, c, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgmosaic admin' and datname = 'shop' and state <> 'idle'")
		}
	}
	if err := console(t.Context(), "DISTRIBUTE TABLE shop.public.quiet IN GROUP quiet KEY (id)"); err != nil {
		t.Error(err)
	}
	if err := visit(a, "select count(*)::text from quiet", "200000"); err != nil {
		t.Error(err)
	}
	for _, sql := range []string{"UNDISTRIBUTE TABLE shop.public.quiet", "DROP GROUP quiet IN shop"} {
		if err := console(t.Context(), sql); err != nil {
			t.Error(err)
		}
	}
	mustExec(t, home, "drop table quiet")
}

// Who listens for long and hears nothing, since nobody says anything, is left alone, and hears what is said then.
func TestAttackListenersOfSilence(t *testing.T) {
	d := shop(t)
	c, node := connectTo(t, d.shopDSN()), connectTo(t, d.cluster.Node("s2-a").DSN("shop"))
	mustExec(t, c, "listen silent")
	asked := func() int {
		return queryOne[int](t, node, "select count(*) from pg_stat_activity where application_name = 'pgmosaic listen' and datname = 'shop' and query = ''")
	}
	within(t, time.Minute, "its server is asked whether it is there", func() bool { return asked() > 0 })
	mustExec(t, node, "notify silent, 'at last'")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if n, err := c.WaitForNotification(ctx); err != nil || n.Payload != "at last" {
		t.Errorf("%v, %v", n, err)
	}
}
