package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
)

// anybodys is for databases that tests have made.
var anybodys = nodeconn.Unasked("a test has made it")

// What the proxy reads schemas over is kept from one definition to the next, is replaced when it breaks, and is gone with the shard.
func TestConnectionsThatReadSchemasAreKept(t *testing.T) {
	t.Parallel()
	d := shop(t)
	d.adminExec(t, "CREATE DATABASE kept")
	var phys [2]*pgx.Conn // to the server of each shard
	for i, name := range []string{"s1-a", "s2-a"} {
		node := d.cluster.Node(name)
		freshDatabase(t, node, fmt.Sprintf("kept_%d", i))
		d.adminExec(t, fmt.Sprintf("CREATE SHARD kept_s%d IN kept NODE '%s'", i, node.DSN(fmt.Sprintf("kept_%d", i))))
		phys[i] = connectTo(t, node.DSN("postgres"))
	}
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "kept"))
	readers := func(shard int) []int {
		rows, err := phys[shard].Query(t.Context(), "select pid from pg_stat_activity where application_name = 'pgmosaic schema' and datname = $1 order by pid", fmt.Sprintf("kept_%d", shard))
		if err != nil {
			t.Fatal(err)
		}
		pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			t.Fatal(err)
		}
		return pids
	}
	define := func(from, to int) {
		for i := from; i < to; i++ {
			mustExec(t, c, fmt.Sprintf("create table t%d (id int)", i))
		}
	}
	define(0, 3)
	for shard, server := range phys {
		was := readers(shard)
		define(3+10*shard, 6+10*shard)
		now := readers(shard) // one, or two: the watch of definitions may have read at the same time
		if stayed := slices.ContainsFunc(was, func(pid int) bool { return slices.Contains(now, pid) }); !stayed || len(now) > 2 {
			t.Errorf("shard %d was read over %v, and then over %v", shard, was, now)
		}
		for _, pid := range now {
			mustExec(t, server, "select pg_terminate_backend($1)", pid)
		}
		eventually(t, "they are gone", func() bool {
			return !slices.ContainsFunc(readers(shard), func(pid int) bool { return slices.Contains(now, pid) })
		})
		define(6+10*shard, 9+10*shard)
		mustExec(t, c, fmt.Sprintf("insert into t%d values (1)", 8+10*shard))
	}
	mustExec(t, c, "drop schema public cascade")
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.adminExec(t, "DROP SHARD kept_s1 IN kept")
	within(t, 20*time.Second, "nobody is at a database that was let go", func() bool { return len(readers(1)) == 0 }) // it would be closed in one to one and a half minutes anyway
	d.adminExec(t, "DROP SHARD kept_s0 IN kept")
	d.adminExec(t, "DROP DATABASE kept")
}

// What is lent when its node is let go is not kept, nor what a transaction was left open on, or failed.
func TestOnlyWhatIsFitIsKept(t *testing.T) {
	t.Parallel()
	d := shop(t)
	dsn := d.cluster.Node("s1-a").DSN("shop")
	var k nodeconn.Kept
	defer k.Drop(dsn)
	use := func(f func(c *pgx.Conn) error) (pid uint32) {
		_ = k.Lend(t.Context(), dsn, nodeconn.Schema, anybodys, func(_ context.Context, c *pgx.Conn) error { pid = c.PgConn().PID(); return f(c) })
		return pid
	}
	fine := func(*pgx.Conn) error { return nil }
	was := use(fine)
	if now := use(fine); now != was {
		t.Errorf("server process %d, then %d", was, now)
	}
	var lent *pgx.Conn
	func() {
		defer func() { _ = recover() }()
		use(func(c *pgx.Conn) error { lent = c; panic("amid its use") })
	}()
	if !lent.IsClosed() {
		t.Error("it panicked, and left its connection open")
	}
	for what, f := range map[string]func(c *pgx.Conn) error{
		"its node was let go":         func(*pgx.Conn) error { k.Drop(dsn); return nil },
		"a transaction was left open": func(c *pgx.Conn) error { _, err := c.Exec(t.Context(), "begin"); return err },
		"it failed":                   func(*pgx.Conn) error { return errors.New("it failed") },
		"it was closed":               func(c *pgx.Conn) error { return c.Close(t.Context()) },
	} {
		was := use(f)
		if now := use(fine); now == was {
			t.Errorf("%s, and it was kept", what)
		}
	}
	borrow := func() *pgx.Conn {
		c, _, err := k.Borrow(t.Context(), dsn, nodeconn.Schema, anybodys)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	was = use(func(*pgx.Conn) error { k.Drop("another node's"); return nil })
	if now := use(fine); now != was {
		t.Errorf("another node was let go, and server process %d was replaced by %d", was, now)
	}
	var all []*pgx.Conn
	for range 4 {
		all = append(all, borrow())
	}
	kept := 0
	for _, c := range all {
		if k.Return(c); !c.IsClosed() {
			kept++
		}
	}
	if kept != 3 {
		t.Errorf("of four that were lent at once %d were kept", kept)
	}
	c := borrow()
	was = c.PgConn().PID()
	k.Return(c)
	if c = borrow(); c.PgConn().PID() != was {
		t.Errorf("server process %d was given back, and %d is lent", was, c.PgConn().PID())
	}
	nodeconn.Spoil(c)
	if k.Return(c); !c.IsClosed() {
		t.Error("somebody else's code has run on it, and it was kept")
	}
}

// Admin statements find a connection to a shard that an earlier one has left, working for nobody, and get on without it if it is gone.
func TestConnectionsOfAdminStatementsAreKept(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "keptadmin")
	d.adminExec(t, "CREATE GROUP g IN keptadmin KEY (int) BY HASH")
	shard := d.on(t, "keptadmin", 1)
	idle := func() (pids []int) {
		rows, err := shard.Query(t.Context(), "select pid from pg_stat_activity where application_name = 'pgmosaic admin' and datname = 'keptadmin_1' and state = 'idle' order by pid")
		if err != nil {
			t.Fatal(err)
		}
		if pids, err = pgx.CollectRows(rows, pgx.RowTo[int]); err != nil {
			t.Fatal(err)
		}
		return pids
	}
	alone := func() int {
		t.Helper()
		eventually(t, "one connection is kept", func() bool { return len(idle()) == 1 })
		pid := idle()[0]
		if n := queryOne[int](t, shard, "select count(*) from pgmosaic.holder where pid = $1", pid); n != 0 {
			t.Errorf("server process %d is idle, and noted for %d attempts", pid, n)
		}
		return pid
	}
	distribute := func(table string) {
		t.Helper()
		mustExec(t, c, "create table "+table+" (id int primary key)")
		mustExec(t, c, "insert into "+table+" select generate_series(1, 50)")
		d.adminExec(t, "DISTRIBUTE TABLE keptadmin.public."+table+" IN GROUP g KEY (id)")
		if n := queryOne[int](t, c, "select count(*) from "+table); n != 50 {
			t.Errorf("%s has %d rows", table, n)
		}
	}
	distribute("a")
	d.adminExec(t, "VERIFY SCHEMA IN keptadmin")
	first := alone()
	d.adminExec(t, "VERIFY SCHEMA IN keptadmin")
	if now := alone(); now != first {
		t.Errorf("server process %d, then %d", first, now)
	}
	mustExec(t, shard, "select pg_terminate_backend($1)", first)
	eventually(t, "it is gone", func() bool { return len(idle()) == 0 })
	distribute("b")
	d.adminExec(t, "UNDISTRIBUTE TABLE keptadmin.public.a")
	if now := alone(); now == first {
		t.Errorf("server process %d was ended", first)
	}
	d.adminExec(t, "UNDISTRIBUTE TABLE keptadmin.public.b")
	alone()
}
