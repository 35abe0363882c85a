package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// small is a pass-through proxy over one node of the shop, with a pool of so many servers.
func small(t testing.TB, d *demo, servers int, change func(*config.Config)) *app {
	t.Helper()
	return startApp(t, smallConfig(t, d, servers, change))
}

// smallConfig is the configuration of small.
func smallConfig(t testing.TB, d *demo, servers int, change func(*config.Config)) config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.Store, cfg.PoolSize = t.TempDir()+"/map.json", servers
	cfg.AdminUsers, cfg.Users = []string{"admin"}, []config.User{{Name: "app", Password: "app"}, {Name: "admin", Password: "admin"}}
	cfg.Direct.Setup = []string{"CREATE DATABASE shop", fmt.Sprintf("CREATE SHARD s1 IN shop NODE '%s'", d.cluster.Node("s1-a").DSN("shop"))}
	if change != nil {
		change(&cfg)
	}
	return cfg
}

func (a *app) dsn() string        { return dsnFor("app", "app", a.Server.Addr(), "shop") }
func (a *app) consoleDSN() string { return dsnFor("admin", "admin", a.Server.Addr(), "pgmosaic") }

// simply runs SQL by the simple protocol and returns the first column of its last result.
func simply(t testing.TB, c *pgx.Conn, sql string) string {
	t.Helper()
	res, err := c.PgConn().Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if len(res) == 0 || len(res[len(res)-1].Rows) == 0 {
		return ""
	}
	return string(res[len(res)-1].Rows[0][0])
}

func simplyFails(t testing.TB, c *pgx.Conn, sql, code string) {
	t.Helper()
	_, err := c.PgConn().Exec(t.Context(), sql).ReadAll()
	wantCode(t, err, code)
}

// pins asks the proxy why sessions hold servers.
func pins(a *app) (out []string) {
	for _, c := range a.Clients() {
		if c.Pin != "" {
			out = append(out, c.Pin)
		}
	}
	return out
}

// rotate makes the next statements run on other servers than the last ones.
func rotate(t testing.TB, a *app, n int) {
	t.Helper()
	var held []*pgx.Conn
	for range n {
		c := connectTo(t, a.dsn())
		mustExec(t, c, "begin")
		mustExec(t, c, "select 1")
		held = append(held, c)
	}
	for _, c := range held {
		_ = c.Close(context.Background())
	}
}

func TestPrepareBySQLFollowsTheSession(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 3, nil)
	c, other := connectTo(t, a.dsn()), connectTo(t, a.dsn())
	simply(t, c, "prepare add (int, int) as select $1 + $2")
	simply(t, c, `prepare "Mixed Name" as select $1::text || '!'`)
	for range 6 {
		rotate(t, a, 2)
		if got := simply(t, c, "execute add(2, 40)"); got != "42" {
			t.Fatalf("execute: %s", got)
		}
		if got := simply(t, c, `execute "Mixed Name"('a' || 'b')`); got != "ab!" {
			t.Fatalf("execute with an expression: %s", got)
		}
	}
	if len(pins(a)) > 0 {
		t.Errorf("pinned: %v", pins(a))
	}
	simplyFails(t, c, "prepare add as select 1", "42P05")
	simplyFails(t, other, "execute add(1, 2)", "26000")
	simplyFails(t, other, "deallocate add", "26000")
	simplyFails(t, c, "prepare broken as select nosuch", "42703")
	if got := simply(t, c, "explain (costs off) execute add(1, 2)"); got != "Result" {
		t.Errorf("explain execute: %s", got)
	}
	// One map for SQL and the protocol, as in PostgreSQL.
	res := c.PgConn().ExecPrepared(t.Context(), "add", [][]byte{[]byte("1"), []byte("2")}, nil, nil).Read()
	if res.Err != nil || string(res.Rows[0][0]) != "3" {
		t.Errorf("by the protocol: %v %v", res.Rows, res.Err)
	}
	if _, err := c.PgConn().Prepare(t.Context(), "viaproto", "select $1::int * 2", nil); err != nil {
		t.Fatal(err)
	}
	if got := simply(t, c, "execute viaproto(21)"); got != "42" {
		t.Errorf("of the protocol by SQL: %s", got)
	}
	res = c.PgConn().ExecParams(t.Context(), "execute add(4, 5)", nil, nil, nil, nil).Read()
	if res.Err != nil || string(res.Rows[0][0]) != "9" {
		t.Errorf("execute by the extended protocol: %v %v", res.Rows, res.Err)
	}
	if n := queryOne[int](t, c, "select count(*) from pg_prepared_statements where name in ('add', 'Mixed Name', 'viaproto')"); n != 3 {
		t.Errorf("pg_prepared_statements lists %d of its own", n)
	}
	if n := queryOne[int](t, other, "select count(*) from pg_prepared_statements where name in ('add', 'Mixed Name', 'viaproto')"); n != 0 {
		t.Errorf("pg_prepared_statements lists %d of another session", n)
	}
	simply(t, c, "deallocate add")
	simplyFails(t, c, "execute add(1, 2)", "26000")
	simply(t, c, "deallocate all")
	simplyFails(t, c, `execute "Mixed Name"('x')`, "26000")
	simplyFails(t, c, "begin; execute nosuch; commit", "26000")
}

func TestPrepareBySQLOverShards(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	k1, k2 := keysOn(t, d, 700000)
	simply(t, c, "prepare put (bigint, text) as insert into customers values ($1, $2, 'x', 'DE', '2026-01-01')")
	simply(t, c, "prepare get as select name from customers where customer_id = $1")
	simply(t, c, fmt.Sprintf("prepare total as select count(*) from customers where customer_id in (%d, %d)", k1, k2))
	for i, k := range []int{k1, k2} {
		simply(t, c, fmt.Sprintf("execute put(%d, 'n%d')", k, i))
		if got := simply(t, c, fmt.Sprintf("execute get(%d)", k)); got != fmt.Sprintf("n%d", i) {
			t.Errorf("get: %s", got)
		}
	}
	if got := simply(t, c, "execute total"); got != "2" {
		t.Errorf("over both shards: %s", got)
	}
	simplyFails(t, c, "execute get", "42601")
	mustExec(t, c, "delete from customers where customer_id in ($1, $2)", k1, k2)
}

func TestCachedPlanMustNotChangeItsResult(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 3, nil)
	c := connectTo(t, a.dsn())
	mustExec(t, c, "create table shape (a int, b int)")
	defer func() { mustExec(t, c, "drop table shape") }()
	mustExec(t, c, "insert into shape values (1, 2)")
	if _, err := c.PgConn().Prepare(t.Context(), "s", "select * from shape", nil); err != nil {
		t.Fatal(err)
	}
	read := func() *pgconn.Result { return c.PgConn().ExecPrepared(t.Context(), "s", nil, nil, nil).Read() }
	if r := read(); r.Err != nil || len(r.Rows[0]) != 2 {
		t.Fatalf("%v %v", r.Rows, r.Err)
	}
	mustExec(t, c, "alter table shape add column c int")
	for range 4 { // on servers that know the statement, and on others
		rotate(t, a, 2)
		r := read()
		wantCode(t, r.Err, "0A000")
	}
	if _, err := c.PgConn().Prepare(t.Context(), "s2", "select * from shape", nil); err != nil {
		t.Fatal(err)
	}
	if r := c.PgConn().ExecPrepared(t.Context(), "s2", nil, nil, nil).Read(); r.Err != nil || len(r.Rows[0]) != 3 {
		t.Errorf("prepared again: %v %v", r.Rows, r.Err)
	}
}

func TestSetConfigIsSet(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 3, nil)
	c, other := connectTo(t, a.dsn()), connectTo(t, a.dsn())
	mustExec(t, c, "select set_config('app.tenant', 'seven', false)")
	mustExec(t, c, "select set_config($1, $2, $3)", "app.user", "o'brien", false)
	for range 6 {
		rotate(t, a, 2)
		if got := queryOne[string](t, c, "select current_setting('app.tenant', true) || ' ' || current_setting('app.user', true)"); got != "seven o'brien" {
			t.Fatalf("%q", got)
		}
		// Not '': row-level security policies tell it from NULL.
		if n := queryOne[bool](t, other, "select current_setting('app.tenant', true) is null"); !n {
			t.Fatal("a setting of another session shows")
		}
	}
	if len(pins(a)) > 0 {
		t.Errorf("pinned: %v", pins(a))
	}
	mustExec(t, c, "begin")
	mustExec(t, c, "select set_config('app.tenant', 'local', true)")
	if got := queryOne[string](t, c, "select current_setting('app.tenant')"); got != "local" {
		t.Errorf("%q", got)
	}
	mustExec(t, c, "commit")
	if got := queryOne[string](t, c, "select current_setting('app.tenant')"); got != "seven" {
		t.Errorf("behind the transaction: %q", got)
	}
	mustExec(t, c, "begin")
	mustExec(t, c, "select set_config('app.tenant', 'gone', false)")
	mustExec(t, c, "rollback")
	if got := queryOne[string](t, c, "select current_setting('app.tenant')"); got != "seven" {
		t.Errorf("behind a rollback: %q", got)
	}
	simply(t, c, "select pg_catalog.set_config('search_path', '', false)") // as pg_dump's output says
	simplyFails(t, c, "select 1 from customers limit 1", "42P01")
	simply(t, c, "reset search_path; select 1 from customers limit 1")
}

func TestSettingsFollowTransactions(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	c := connectTo(t, a.dsn())
	show := func() string { return simply(t, c, "show work_mem") }
	mustExec(t, c, "set work_mem = '5MB'")
	for _, step := range []struct{ sql, want string }{
		{"begin; set work_mem = '6MB'; commit", "6MB"},
		{"begin; set work_mem = '7MB'; rollback", "6MB"},
		{"begin; set local work_mem = '8MB'; commit", "6MB"},
		{"begin; set work_mem = '9MB'; savepoint s; set work_mem = '10MB'; rollback to s; commit", "9MB"},
		{"set session characteristics as transaction read only", "9MB"},
	} {
		simply(t, c, step.sql)
		rotate(t, a, 1)
		if got := show(); got != step.want {
			t.Errorf("%s: %s, want %s", step.sql, got, step.want)
		}
	}
	simplyFails(t, c, "create table never (a int)", "25006")
	simply(t, c, "reset all")
	if got := show(); got == "9MB" {
		t.Error("RESET ALL left a setting")
	}
	simplyFails(t, c, "set nosuch = 1", "42704")
	simplyFails(t, c, "set work_mem = 'much'", "22023")
}

// What a function does to its session cannot be seen in the statement that calls it: it must follow the session
// all the same, and reach nobody else.
func TestStateLeftByFunctions(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	c, other := connectTo(t, a.dsn()), connectTo(t, a.dsn())
	mustExec(t, c, `create or replace function enter(name text) returns void language plpgsql as $$ begin perform set_config('app.who', name, false); end $$`)
	mustExec(t, c, `create or replace function hold() returns void language plpgsql as $$ begin perform pg_advisory_lock(4711); end $$`)
	mustExec(t, c, `create or replace function drop_hold() returns void language plpgsql as $$ begin perform pg_advisory_unlock(4711); end $$`)
	defer func() { mustExec(t, c, "drop function enter(text), hold(), drop_hold()") }()
	mustExec(t, c, "select enter('me')")
	mustExec(t, c, `do $$ begin perform set_config('work_mem', '3MB', false); end $$`)
	for range 6 {
		rotate(t, a, 1)
		if got := queryOne[string](t, c, "select current_setting('app.who') || current_setting('work_mem')"); got != "me3MB" {
			t.Fatalf("%q", got)
		}
		if got := queryOne[string](t, other, "select coalesce(current_setting('app.who', true), 'null') || current_setting('work_mem')"); strings.Contains(got, "me") || strings.Contains(got, "3MB") {
			t.Fatalf("another session sees %q", got)
		}
	}
	mustExec(t, c, "select hold()")
	if p := pins(a); len(p) != 1 {
		t.Fatalf("pins %v", p)
	}
	if got := queryOne[bool](t, other, "select pg_try_advisory_lock(4711)"); got {
		t.Error("the lock was not held")
	}
	mustExec(t, c, "select drop_hold()")
	mustExec(t, c, "select pg_advisory_unlock_all()")
	if p := pins(a); len(p) != 0 {
		t.Errorf("still pinned: %v", p)
	}
	if got := queryOne[bool](t, other, "select pg_try_advisory_lock(4711)"); !got {
		t.Error("the lock is still held")
	}
	mustExec(t, other, "select pg_advisory_unlock_all()")
}

func TestPinsEndWithTheirCause(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	c := connectTo(t, a.dsn())
	for _, s := range []struct{ pin, unpin, why string }{
		{"create temp table tt (a int)", "drop table tt", "temporary table"},
		{"create temp table tt (a int)", "discard temp", "temporary table"},
		{"create temp table tt (a int)", "discard all", "temporary table"},
		{"begin; create temp table tt (a int) on commit drop", "commit", "temporary table"},
		{"begin; create temp table tt (a int)", "rollback", "temporary table"},
		{"select pg_advisory_lock(99)", "select pg_advisory_unlock(99)", "advisory lock"},
		{"begin; declare hc cursor with hold for select generate_series(1, 10); commit", "close hc", "WITH HOLD"},
		{"load 'auto_explain'", "discard all", "LOAD"},
		{"select setseed(0.5)", "discard all", "setseed"},
	} {
		if s.why == "LOAD" { // for superusers only
			continue
		}
		simply(t, c, s.pin)
		if p := pins(a); len(p) != 1 || p[0] != s.why {
			t.Errorf("%s: pins %v, want %s", s.pin, p, s.why)
		}
		if s.why == "temporary table" && !strings.HasPrefix(s.pin, "begin") {
			mustExec(t, c, "insert into tt values (1)")
			rotate(t, a, 1)
			if n := queryOne[int](t, c, "select count(*) from tt"); n != 1 {
				t.Errorf("%d rows in the temporary table", n)
			}
		}
		simply(t, c, s.unpin)
		if p := pins(a); len(p) != 0 {
			t.Errorf("%s: still pinned by %v", s.unpin, p)
		}
	}
	x := connectTo(t, a.dsn()) // a pinned client that leaves frees its server
	mustExec(t, x, "create temp table tt (a int)")
	_ = x.Close(context.Background())
	eventually(t, "the pinned server is gone", func() bool { return len(pins(a)) == 0 })
	rotate(t, a, 2)
	if n := queryOne[int](t, connectTo(t, a.dsn()), "select count(*) from pg_class where relname = 'tt'"); n != 0 {
		t.Error("the temporary table outlived its session")
	}
}

func TestListenInTransactionPooling(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for _, dsn := range []string{small(t, d, 2, nil).dsn(), d.shopDSN()} {
		c, sender := connectTo(t, dsn), connectTo(t, dsn)
		wait := func() *pgconn.Notification {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			n, err := c.WaitForNotification(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		none := func() {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if n, err := c.WaitForNotification(ctx); err == nil {
				t.Errorf("unexpected: %v", n)
			}
		}
		mustExec(t, c, "listen news")
		mustExec(t, c, `listen "Mixed Case"`)
		mustExec(t, sender, "notify news, 'first'")
		if n := wait(); n.Channel != "news" || n.Payload != "first" || n.PID != sender.PgConn().PID() {
			t.Errorf("%+v, sender %d", n, sender.PgConn().PID())
		}
		mustExec(t, sender, `select pg_notify('Mixed Case', 'second')`)
		if n := wait(); n.Channel != "Mixed Case" || n.Payload != "second" {
			t.Errorf("%+v", n)
		}
		mustExec(t, c, "notify news, 'mine'") // one's own bears one's own pid
		if n := wait(); n.Payload != "mine" || n.PID != c.PgConn().PID() {
			t.Errorf("%+v, self %d", n, c.PgConn().PID())
		}
		mustExec(t, c, "begin") // not inside a transaction
		mustExec(t, c, "select 1")
		mustExec(t, sender, "notify news, 'held back'")
		none()
		mustExec(t, c, "commit")
		if n := wait(); n.Payload != "held back" {
			t.Errorf("%+v", n)
		}
		mustExec(t, c, "begin")
		mustExec(t, c, "listen rolled")
		mustExec(t, c, "rollback")
		mustExec(t, sender, "notify rolled")
		none()
		mustExec(t, c, "unlisten news")
		mustExec(t, sender, "notify news, 'unheard'")
		none()
		mustExec(t, c, "discard all")
		mustExec(t, sender, `select pg_notify('Mixed Case', 'unheard')`)
		none()
	}
}

func TestListenHearsTriggersOfEveryShard(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, NoLoad: true})
	for _, n := range []string{"s1-a", "s2-a"} {
		c := connectTo(t, d.cluster.Node(n).DSN("shop"))
		mustExec(t, c, "create function tell() returns trigger language plpgsql as $$ begin perform pg_notify('made', new.customer_id::text); return new; end $$")
		mustExec(t, c, "create trigger tell after insert on customers for each row execute function tell()")
	}
	c, w := connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN())
	mustExec(t, w, "insert into countries values ('DE', 'Germany')")
	mustExec(t, c, "listen made")
	k1, k2 := keysOn(t, d, 1)
	for _, k := range []int{k1, k2} {
		mustExec(t, w, insertCustomer, k, "x")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		n, err := c.WaitForNotification(ctx)
		cancel()
		if err != nil || n.Payload != itoa(k) {
			t.Errorf("key %d: %v %v", k, n, err)
		}
	}
	// When the connection that listens is lost, something may have been missed: the session is told so.
	d.cluster.Node("s2-a").Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := c.WaitForNotification(ctx)
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "57P01" || !strings.Contains(pe.Message, "missed") {
		t.Errorf("after the loss: %v", err)
	}
}

func TestSignalsBetweenClients(t *testing.T) {
	t.Parallel()
	d := shop(t)
	root := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	mustExec(t, root, "create role signalled login password 'signalled'")
	defer func() { mustExec(t, root, "drop role signalled") }()
	a := small(t, d, 3, func(c *config.Config) {
		c.Users = append(c.Users, config.User{Name: "signalled", Password: "signalled"})
	})
	c, victim := connectTo(t, a.dsn()), connectTo(t, a.dsn())
	done := make(chan error, 1)
	go func() { _, err := victim.Exec(context.Background(), "select pg_sleep(20)"); done <- err }()
	eventually(t, "the victim runs", func() bool {
		return queryOne[int](t, c, "select count(*) from pg_stat_activity where query = 'select pg_sleep(20)' and state = 'active'") == 1
	})
	mustExec(t, c, "select pg_cancel_backend($1)", int32(victim.PgConn().PID()))
	wantCode(t, <-done, "57014")
	mustExec(t, victim, "select 1")
	mustExec(t, c, "select pg_terminate_backend($1)", int32(victim.PgConn().PID()))
	eventually(t, "the victim is gone", func() bool { return victim.Ping(context.Background()) != nil })
	// Another user's session is out of reach, in the same database, too.
	other := connectTo(t, dsnFor("signalled", "signalled", a.Server.Addr(), "shop"))
	for _, f := range []string{"pg_cancel_backend", "pg_terminate_backend"} {
		go func() { _, err := other.Exec(context.Background(), "select pg_sleep(1)"); done <- err }()
		eventually(t, "the other role's statement runs", func() bool {
			return queryOne[int](t, root, "select count(*) from pg_stat_activity where query = 'select pg_sleep(1)' and state = 'active'") == 1
		})
		mustExec(t, c, "select "+f+"($1)", int32(other.PgConn().PID()))
		if err := <-done; err != nil {
			t.Errorf("%s reaches another role's session: %v", f, err)
		}
	}
	mustExec(t, other, "select 1")
	admin := connectTo(t, a.consoleDSN()+"?default_query_exec_mode=simple_protocol")
	mustExec(t, c, "select pg_terminate_backend($1)", int32(admin.PgConn().PID()))
	mustExec(t, admin, "show version")
}

// A function that is called by its number, as large objects are, may be set_config: what it sets stays with its session.
func TestWhatACallByNumberSetsStaysWithItsSession(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 1, nil)
	other := connectTo(t, a.dsn())
	number := queryOne[uint32](t, other, "select 'pg_catalog.set_config'::regproc::oid")
	r := rawTo(t, a.dsn())
	for _, x := range []struct{ name, value string }{{"datestyle", "German, DMY"}, {"app.by_number", "one"}} {
		call := binary.BigEndian.AppendUint32(nil, number)
		call = append(call, 0, 1, 0, 0, 0, 3)
		for _, arg := range []string{x.name, x.value, "false"} {
			call = append(binary.BigEndian.AppendUint32(call, uint32(len(arg))), arg...)
		}
		call = append(call, 0, 0)
		r.SendFrame('F', call)
		if got := r.until('Z'); !strings.HasSuffix(got, "ZI") || strings.Contains(got, "E") {
			t.Fatal(got)
		}
	}
	if got := simply(t, other, "select '2026-02-01'::date || coalesce(current_setting('app.by_number', true), ' null')"); got != "2026-02-01 null" {
		t.Errorf("another session sees %s", got)
	}
	r.SendQuery("select '2026-02-01'::date || current_setting('app.by_number')")
	r.want('Z', "TD(01.02.2026one)C<SELECT 1>ZI")
}

// A cancel request that comes behind a statement is none of the call by number that follows.
func TestACancelBehindAStatementIsNoneOfACall(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for _, begun := range []string{"begin", "begin; select 1 from customers where customer_id = 1", "select 1"} {
		pc, err := pgconn.Connect(t.Context(), d.shopDSN())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pc.Exec(t.Context(), begun).ReadAll(); err != nil {
			t.Fatal(err)
		}
		if err := pc.CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		h, err := pc.Hijack()
		if err != nil {
			t.Fatal(err)
		}
		r := &raw{t, wire.New(h.Conn, 1<<30), h.PID}
		call := append(binary.BigEndian.AppendUint32(nil, 1397), 0, 1, 0, 0, 0, 1, 0, 0, 0, 3) // abs(int4), in text
		r.SendFrame('F', append(append(call, "-42"...), 0, 0))
		if got := r.until('Z'); strings.Contains(got, "E[") {
			t.Errorf("behind %s and a cancel request: %s", begun, got)
		}
		_ = r.Close()
	}
}
