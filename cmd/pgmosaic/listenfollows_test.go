package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/token"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// hearsNext waits for the next notification.
func hearsNext(t *testing.T, c *pgx.Conn, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	n, err := c.WaitForNotification(ctx)
	if err != nil || n.Payload != want {
		t.Fatalf("%v, %v; want %s", n, err, want)
	}
}

// toldMissed waits until a session that listens is ended because it may have missed something.
func toldMissed(t *testing.T, c *pgx.Conn, why string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	n, err := c.WaitForNotification(ctx)
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "57P01" || !strings.Contains(pe.Message, "missed") {
		t.Fatalf("%s: %v, %v", why, n, err)
	}
}

// Who listens is not left with a node that is no longer the primary, and who listens from then on hears the new one.
func TestListenFollowsThePrimary(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 1, NoLoad: true})
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "listen x")
	a, b := connectTo(t, d.cluster.Node("s2-a").DSN("shop")), d.cluster.Node("s2-b")
	mustExec(t, a, "notify x, 'before'")
	hearsNext(t, c, "before")
	if err := b.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both are fenced", func() bool { return d.adminExec(t, "SHOW SHARDS WHERE shard = 's2'")[0][5] == "fenced" })
	d.adminExec(t, `ALTER SHARD s2 IN shop SET PRIMARY "s2-b"`)
	eventually(t, "the shard is served", func() bool { return d.Monitor.View("shop", "s2").Up() })
	onB := connectTo(t, b.DSN("shop"))
	mustExec(t, onB, "notify x, 'unheard'")
	toldMissed(t, c, "the primary has changed")
	c = connectTo(t, d.shopDSN())
	mustExec(t, c, "listen x")
	mustExec(t, a, "notify x, 'an old one'")
	mustExec(t, onB, "notify x, 'after'")
	hearsNext(t, c, "after")
	if n := queryOne[int](t, a, "select count(*) from pg_stat_activity where application_name = 'pgmosaic listen'"); n != 0 {
		t.Errorf("%d connections listen on the old primary still", n)
	}
}

// A shard that joins is heard from the first statement on that the new map sends there; who runs by the map of another process may have missed
// something, and is told so, as everybody is whose shard goes.
func TestListenFollowsTheMap(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes, _ := ownShards(t, d, "joined")
	t.Cleanup(func() { d.forget(t, "joined") })
	doc, err := json.Marshal(d.Catalog.Current().Document)
	if err != nil {
		t.Fatal(err)
	}
	store := ""
	elsewhere := small(t, d, 2, func(c *config.Config) {
		store = c.Store
		if err := os.WriteFile(c.Store, doc, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	c, other := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "joined")), connectTo(t, dsnFor("app", "app", elsewhere.Server.Addr(), "joined"))
	bystander := connectTo(t, elsewhere.dsn())
	mustExec(t, c, "listen x")
	mustExec(t, other, "listen x")
	mustExec(t, bystander, "listen x")
	has := func() bool {
		_, ok := d.Catalog.Current().Databases["joined"].Shard("joined3")
		return ok
	}
	for i := range 3 { // the same name again is another shard
		name := fmt.Sprintf("joined_%d", i)
		node := nodes[i%2]
		freshDatabase(t, node, name)
		server := connectTo(t, node.DSN(name))
		sent := make(chan error, 1)
		go func() { // as whoever works by the new map may, as soon as there is one
			for !has() {
				runtime.Gosched()
			}
			_, err := server.Exec(context.WithoutCancel(t.Context()), "notify x, 'at once'")
			sent <- err
		}()
		d.adminExec(t, fmt.Sprintf("CREATE SHARD joined3 IN joined NODE '%s' NAME joined3", node.DSN(name)))
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		hearsNext(t, c, "at once")
		eventually(t, "the shard is up", func() bool { return d.Monitor.View("joined", "joined3").Up() })
		mustExec(t, server, "notify x, 'by a trigger'")
		hearsNext(t, c, "by a trigger")
		fresh := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "joined"))
		mustExec(t, fresh, "listen y")
		mustExec(t, server, "notify y, 'another'")
		hearsNext(t, fresh, "another")
		if i == 0 {
			if doc, err = json.Marshal(d.Catalog.Current().Document); err == nil {
				err = os.WriteFile(store, doc, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			toldMissed(t, other, "another process's map has a shard more")
			mustExec(t, bystander, "notify x, 'of another database'")
			hearsNext(t, bystander, "of another database")
		}
		d.adminExec(t, "DROP SHARD joined3 IN joined")
		toldMissed(t, c, "the shard is gone")
		toldMissed(t, fresh, "the shard is gone")
		eventually(t, "nobody listens there any more", func() bool {
			return queryOne[int](t, server, "select count(*) from pg_stat_activity where application_name = 'pgmosaic listen' and datname = current_database()") == 0
		})
		c = connectTo(t, dsnFor("app", "app", d.Server.Addr(), "joined"))
		mustExec(t, c, "listen x")
	}
	// A CREATE SHARD that fails leaves those who listen as they were.
	freshDatabase(t, nodes[0], "joined_9")
	bad := connectTo(t, nodes[0].DSN("joined_9"))
	mustExec(t, bad, "create table t (id bigint)")
	if _, err := d.Admin.Exec(t.Context(), fmt.Sprintf("CREATE SHARD joined9 IN joined NODE '%s'", nodes[0].DSN("joined_9")), false); err == nil {
		t.Error("a database that is not vacant has joined")
	}
	mustExec(t, connectTo(t, nodes[1].DSN("joined")), "notify x, 'still'")
	hearsNext(t, c, "still")
}

// An address that leads to another shard's server by now is neither listened to nor asked for definitions.
func TestListenAndSchemasAskWhoseTheDatabaseIs(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes, _ := ownShards(t, d, "astray")
	t.Cleanup(func() { d.forget(t, "astray") })
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", nodes[i].Port) }
	var via [2]*middleman
	for i := range via {
		via[i] = newMiddleman(t, at(i))
		d.adminExec(t, fmt.Sprintf("ALTER SHARD astray%d IN astray ALTER NODE astray%d '%s'", i+1, i+1, strings.Replace(nodes[i].DSN("astray"), at(i), via[i].Addr().String(), 1)))
		eventually(t, "the shard is up", func() bool { return d.Monitor.View("astray", fmt.Sprintf("astray%d", i+1)).Up() })
	}
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "astray"))
	mustExec(t, c, "select count(*) from t")
	db := d.Catalog.Current().Databases["astray"]
	for i := range via {
		// The monitor's own connection stays where it is for the moment, so it notices nothing.
		via[i].set(func() { via[i].to = at(1 - i) })
		server := connectTo(t, nodes[i].DSN("postgres"))
		for _, purpose := range []string{"schema", "resolver"} {
			mustExec(t, server, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgmosaic ' || $1 and datname = 'astray'", purpose)
		}
		_, err := c.Exec(t.Context(), "listen x")
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("it is shard astray%d of database astray, not shard astray%d", 2-i, i+1)) {
			t.Errorf("LISTEN by way of shard %d: %v", i+1, err)
		}
		snap, err := d.Engine.Planner.Schemas.Refresh(t.Context(), db)
		if i == 0 && err == nil {
			t.Error("another shard was asked for home's definitions")
		} else if i == 1 && (err != nil || snap.Doubts["astray2"] != schema.Unread) {
			t.Errorf("another shard was asked for a shard's types: %v", err)
		}
		via[i].set(func() { via[i].to = at(i) })
		if _, err := d.Engine.Planner.Schemas.Refresh(t.Context(), db); err != nil {
			t.Errorf("all is well again: %v", err)
		}
	}
	mustExec(t, c, "listen x")
	for i := range nodes {
		mustExec(t, connectTo(t, nodes[i].DSN("astray")), fmt.Sprintf("notify x, '%d'", i))
		hearsNext(t, c, fmt.Sprint(i))
	}
}

// unasked are the functions that may open a connection to a database without asking it whose it is, with the reason.
var unasked = map[string]string{
	"replication/probe.go connect":                "each probe asks, once a second",
	"replication/reshard/nodes.go identify":       "it is who finds out",
	"replication/reshard/identity.go adopt":       "it tells the database another thing",
	"replication/reshard/identity.go part":        "it reads and deletes the row itself",
	"replication/reshard/recover.go recoverShard": "what is undone has the attempt's id",
	"replication/reshard/shards.go CreateShard":   "an only shard is told nothing",
}

// Every other connection of the proxy's own is asked whose it leads to before it is used.
func TestNothingElseTrustsAnAddress(t *testing.T) {
	t.Parallel()
	found := map[string]bool{}
	sources(t, func(path string, _ *token.FileSet, f *ast.File) {
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			name := path
			if ok {
				name += " " + fn.Name.Name
			}
			ast.Inspect(decl, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if !ok || s.Sel.Name != "Unasked" {
					return true
				}
				found[name] = true
				if unasked[name] == "" {
					t.Errorf("%s uses a connection that nobody has asked whose it is", name)
				}
				return true
			})
		}
	})
	for name := range unasked {
		if !found[name] {
			t.Errorf("%s asks: take it from the list", name)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a connection is opened without a word on whose it must be")
		}
	}()
	_, _ = nodeconn.Open(t.Context(), "postgres://127.0.0.1:1/x", nodeconn.Admin, nodeconn.Whose{})
}

// No pool is made whose servers nobody asks whose they are, and none is left without.
func TestNoPoolWithoutAskingWhoseItIs(t *testing.T) {
	t.Parallel()
	for what, f := range map[string]func(){
		"made":    func() { pool.NewManager(pool.Options{}) },
		"changed": func() { pool.NewManager(pool.Options{Verify: pool.Unasked("a test")}).SetOptions(pool.Options{}) },
		"of nil":  func() { pool.Asked(nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("one is %s", what)
				}
			}()
			f()
		}()
	}
}

// A connection beside another is at the address where that is, though the connection string has several and another one is tried first by now.
func TestAConnectionBesideAnotherIsWhereThatIs(t *testing.T) {
	t.Parallel()
	d := shop(t)
	cfg, err := pgconn.ParseConfig(d.cluster.Node("s1-a").DSN("shop"))
	if err != nil {
		t.Fatal(err)
	}
	to := net.JoinHostPort(cfg.Host, itoa(int(cfg.Port)))
	second := newMiddleman(t, to)
	host, port, _ := net.SplitHostPort(second.Addr().String())
	dsn := strings.Replace(dsnFor(cfg.User, cfg.Password, "127.0.0.3:"+port+","+host+":"+port, "shop"), "%2C", ",", 1)
	home, err := nodeconn.Open(t.Context(), dsn, nodeconn.Admin, nodeconn.Unasked("a test"))
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close(context.WithoutCancel(t.Context()))
	middlemanAt(t, "127.0.0.3:"+port, to)
	again, err := nodeconn.Open(t.Context(), dsn, nodeconn.Admin, nodeconn.Unasked("a test"))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close(context.WithoutCancel(t.Context()))
	beside, err := nodeconn.Beside(t.Context(), home)
	if err != nil {
		t.Fatal(err)
	}
	defer beside.Close(context.WithoutCancel(t.Context()))
	at := func(c *pgx.Conn) string { return c.PgConn().Conn().RemoteAddr().String() }
	if at(again) == at(home) || at(beside) != at(home) {
		t.Errorf("home is at %s, another one at %s, one beside it at %s", at(home), at(again), at(beside))
	}
	if says(t, beside, "show application_name", pgx.QueryExecModeSimpleProtocol) != "pgmosaic admin" || says(t, beside, "show search_path", pgx.QueryExecModeSimpleProtocol) != says(t, home, "show search_path", pgx.QueryExecModeSimpleProtocol) {
		t.Error("it is not set as the other")
	}
}
