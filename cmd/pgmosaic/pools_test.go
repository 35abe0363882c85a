package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pgmosaic/pgmosaic/proxy/config"
)

func consoleOf(t testing.TB, a *app) *pgx.Conn {
	return connectTo(t, a.consoleDSN()+"?default_query_exec_mode=simple_protocol")
}

// shown runs a SHOW and returns its rows as maps from column to text.
func shown(t testing.TB, c *pgx.Conn, sql string) (out []map[string]string) {
	t.Helper()
	res, err := c.PgConn().Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	for _, r := range res[0].Rows {
		m := map[string]string{}
		for i, f := range res[0].FieldDescriptions {
			m[f.Name] = string(r[i])
		}
		out = append(out, m)
	}
	return out
}

func TestConsoleHasPgBouncersColumns(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 3, nil)
	c := connectTo(t, a.dsn())
	mustExec(t, c, "select 1")
	console := consoleOf(t, a)
	sockets := "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us close_needed ptr link remote_pid tls application_name prepared_statements id"
	stat := func(prefix string, received, sent string) string {
		var out []string
		for _, n := range strings.Fields("server_assignment_count xact_count query_count " + received + " " + sent + " xact_time query_time wait_time client_parse_count server_parse_count bind_count client_login_count") {
			out = append(out, prefix+n)
		}
		return strings.Join(out, " ")
	}
	for view, want := range map[string]string{
		"pools":          "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts",
		"databases":      "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime pool_mode load_balance_hosts max_connections current_connections max_client_connections current_client_connections paused disabled",
		"clients":        sockets,
		"servers":        sockets,
		"stats":          "database " + stat("total_", "received", "sent") + " " + stat("avg_", "recv", "sent"),
		"stats_totals":   "database " + stat("", "bytes_received", "bytes_sent"),
		"stats_averages": "database " + stat("", "bytes_received", "bytes_sent"),
		"totals":         "name value",
		"lists":          "list items",
		"config":         "key value default changeable",
		"users":          "name pool_size reserve_pool_size pool_mode max_user_connections current_connections max_user_client_connections current_client_connections",
		"state":          "key value",
		"version":        "version",
	} {
		res, err := console.PgConn().Exec(t.Context(), "show "+view).ReadAll()
		if err != nil {
			t.Errorf("show %s: %v", view, err)
			continue
		}
		var got []string
		for _, f := range res[0].FieldDescriptions {
			got = append(got, f.Name)
		}
		if !strings.HasPrefix(strings.Join(got, " ")+" ", want+" ") {
			t.Errorf("show %s:\n got %s\nwant %s ...", view, strings.Join(got, " "), want)
		}
		seen := map[string]bool{}
		for _, r := range res[0].Rows { // exporters want one row for each database and user
			if view == "pools" {
				k := string(r[0]) + " " + string(r[1])
				if seen[k] {
					t.Errorf("show pools has %s twice", k)
				}
				seen[k] = true
			}
		}
	}
	var me map[string]string
	for _, r := range shown(t, console, "show clients") {
		if r["user"] == "app" {
			me = r
		}
	}
	if me["database"] != "shop" || me["state"] != "active" || me["addr"] != "127.0.0.1" || me["id"] != fmt.Sprint(c.PgConn().PID()) {
		t.Errorf("show clients: %v", me)
	}
	if s := shown(t, console, "show servers where database = 'shop' limit 1"); len(s) != 1 || s[0]["state"] != "idle" || s[0]["remote_pid"] == "0" {
		t.Errorf("show servers: %v", s)
	}
	if s := shown(t, console, "show stats where database = 'shop'"); s[0]["total_query_count"] == "0" || s[0]["total_received"] == "0" || s[0]["total_xact_time"] == "0" {
		t.Errorf("show stats: %v", s)
	}
	// By the extended protocol too, as drivers ask.
	ext := connectTo(t, a.consoleDSN()+"?default_query_exec_mode=exec")
	rows, err := ext.Query(t.Context(), "show lists")
	if err != nil {
		t.Fatal(err)
	}
	rows.Close()
	if rows.Err() != nil {
		t.Error(rows.Err())
	}
	if s := shown(t, connectTo(t, strings.Replace(a.consoleDSN(), "/pgmosaic", "/pgbouncer", 1)+"?default_query_exec_mode=simple_protocol"), "show version"); !strings.Contains(s[0]["version"], "PgBouncer 1.25") {
		t.Errorf("show version: %v", s)
	}
}

func TestConsoleVerbs(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	console := consoleOf(t, a)
	c := connectTo(t, a.dsn())
	pid := func() int { return queryOne[int](t, c, "select pg_backend_pid()") }
	run := func(sql string) { t.Helper(); simply(t, console, sql) }

	before := pid()
	run("reconnect shop")
	run("wait_close shop")
	if pid() == before {
		t.Error("RECONNECT kept the server")
	}

	run("pause shop")
	done := make(chan error, 1)
	go func() { _, err := c.Exec(context.Background(), "select 1"); done <- err }()
	eventually(t, "the client waits", func() bool { return shown(t, console, "show clients where user = 'app'")[0]["state"] == "waiting" })
	if s := shown(t, console, "show databases where name = 'shop'"); s[0]["paused"] != "1" {
		t.Errorf("%v", s)
	}
	run("resume shop")
	if err := <-done; err != nil {
		t.Error(err)
	}

	run("disable shop")
	_, err := pgx.Connect(t.Context(), a.dsn())
	wantCode(t, err, "57P03")
	mustExec(t, c, "select 1") // who is in stays in
	run("enable shop")
	mustExec(t, connectTo(t, a.dsn()), "select 1")

	mustExec(t, c, "begin")
	mustExec(t, c, "select 1")
	run("kill shop")
	_, err = c.Exec(t.Context(), "select 1")
	if err == nil {
		t.Error("KILL left the server alive")
	}
	mustExec(t, c, "rollback")
	run("resume shop")
	mustExec(t, c, "select 1")

	run(fmt.Sprintf("kill_client %d", c.PgConn().PID()))
	eventually(t, "the client is gone", func() bool { return c.Ping(context.Background()) != nil })

	run("set query_timeout = '250ms'")
	c = connectTo(t, a.dsn())
	_, err = c.Exec(t.Context(), "select pg_sleep(20)")
	wantCode(t, err, "57014")
	if err == nil || !strings.Contains(err.Error(), "query_timeout = 250ms") {
		t.Errorf("the message does not name the limit: %v", err)
	}
	run("set query_timeout = 0")
	mustExec(t, c, "select 1") // and the session lives on
	for sql, code := range map[string]string{
		"set listen = '1.2.3.4:5'": "55P02", "set nosuch = 1": "42704", "set default_pool_size = 'many'": "22023", "suspend": "0A000", "reload": "F0000", "kill_client 1": "42704",
		"disable": "42601", "pause nosuch": "3D000", "show nosuch": "42704", "show pools where nosuch = 1": "42703", "show pools order by": "42601", "frobnicate": "42601",
	} {
		simplyFails(t, console, sql, code)
	}
	stats := small(t, d, 2, func(c *config.Config) {
		c.StatsUsers = []string{"app"}
	})
	looker := connectTo(t, dsnFor("app", "app", stats.Server.Addr(), "pgmosaic")+"?default_query_exec_mode=simple_protocol")
	simply(t, looker, "show pools")
	for _, sql := range []string{"pause", "kill", "kill_client 1", "reload", "shutdown", "disable shop", "set query_timeout = 1", "reconnect", "wait_close"} {
		simplyFails(t, looker, sql, "42501")
	}
	run("shutdown")
	select {
	case <-a.Ended():
	case <-time.After(time.Minute):
		t.Error("SHUTDOWN ended nothing")
	}
}

func TestLimitsAreToldByName(t *testing.T) {
	t.Parallel()
	d := shop(t)
	fails := func(t *testing.T, err error, code, words string) {
		t.Helper()
		wantCode(t, err, code)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("the message does not say %q: %v", words, err)
		}
	}
	t.Run("max_client_conn", func(t *testing.T) {
		a := small(t, d, 2, func(c *config.Config) { c.MaxClients = 2 })
		plain := a.dsn() + "?sslmode=disable"
		connectTo(t, plain)
		connectTo(t, plain)
		_, err := pgx.Connect(t.Context(), plain)
		fails(t, err, "53300", "max_client_conn = 2")
		simply(t, consoleOf(t, a), "show version") // administrators are let in
	})
	t.Run("max_db_client_connections", func(t *testing.T) {
		a := small(t, d, 2, func(c *config.Config) { c.MaxDBClient = 1 })
		connectTo(t, a.dsn())
		_, err := pgx.Connect(t.Context(), a.dsn())
		fails(t, err, "53300", "max_db_client_connections = 1")
	})
	t.Run("max_user_client_connections", func(t *testing.T) {
		a := small(t, d, 2, func(c *config.Config) { c.MaxUsrClient = 1 })
		connectTo(t, a.dsn())
		_, err := pgx.Connect(t.Context(), a.dsn())
		fails(t, err, "53300", "max_user_client_connections = 1")
	})
	hold := func(t *testing.T, a *app) *pgx.Conn {
		c := connectTo(t, a.dsn())
		mustExec(t, c, "begin")
		mustExec(t, c, "select 1")
		return c
	}
	t.Run("query_wait_timeout", func(t *testing.T) {
		for _, wait := range []time.Duration{time.Second, 5 * time.Second} { // by a timer, by the pools' upkeep
			a := small(t, d, 1, func(c *config.Config) { c.QueryWait = config.Duration(wait) })
			waiter := connectTo(t, a.dsn())
			holder := hold(t, a)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			_, err := waiter.Exec(ctx, "select 1")
			cancel()
			fails(t, err, "53300", "query_wait_timeout")
			mustExec(t, holder, "commit")
			mustExec(t, waiter, "select 1")
		}
	})
	t.Run("cancel while waiting", func(t *testing.T) {
		a := small(t, d, 1, nil)
		waiter := connectTo(t, a.dsn())
		holder := hold(t, a)
		done := make(chan error, 1)
		go func() { _, err := waiter.Exec(context.Background(), "select 1"); done <- err }()
		eventually(t, "it waits", func() bool {
			return shown(t, consoleOf(t, a), "show pools where database = 'shop'")[0]["cl_waiting"] == "1"
		})
		if err := waiter.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		fails(t, <-done, "57014", "user request")
		mustExec(t, holder, "commit")
		mustExec(t, waiter, "select 1")
	})
	t.Run("max_db_connections and reserve_pool_size", func(t *testing.T) {
		a := small(t, d, 1, func(c *config.Config) {
			c.Reserve, c.ReserveAfter, c.QueryWait = 1, config.Duration(100*time.Millisecond), config.Duration(30*time.Second)
		})
		waiter := connectTo(t, a.dsn())
		hold(t, a)
		mustExec(t, waiter, "select 1") // the reserve lets it through
		b := small(t, d, 5, func(c *config.Config) { c.MaxDB, c.QueryWait = 1, config.Duration(time.Second) })
		w := connectTo(t, b.dsn())
		hold(t, b)
		_, err := w.Exec(t.Context(), "select 1")
		fails(t, err, "53300", "query_wait_timeout")
	})
	t.Run("min_pool_size", func(t *testing.T) {
		a := small(t, d, 5, func(c *config.Config) { c.MinPool = 3 })
		mustExec(t, connectTo(t, a.dsn()), "select 1")
		eventually(t, "three servers are open", func() bool { return len(shown(t, consoleOf(t, a), "show servers where database = 'shop'")) == 3 })
	})
	t.Run("idle_transaction_timeout", func(t *testing.T) {
		a := small(t, d, 1, func(c *config.Config) { c.IdleTx = config.Duration(300 * time.Millisecond) })
		c := hold(t, a)
		other := connectTo(t, a.dsn())
		mustExec(t, other, "select 1") // it gets the server
		_, err := c.Exec(t.Context(), "select 1")
		fails(t, err, "25P03", "idle transaction timeout")
	})
	t.Run("client_idle_timeout", func(t *testing.T) {
		a := small(t, d, 1, func(c *config.Config) { c.ClientIdle = config.Duration(300 * time.Millisecond) })
		c := connectTo(t, a.dsn())
		eventually(t, "it is sent away", func() bool { return len(a.Server.Sessions()) == 0 })
		_, err := c.Exec(t.Context(), "select 1")
		fails(t, err, "57P05", "client_idle_timeout")
	})
	t.Run("transaction_timeout", func(t *testing.T) {
		a := small(t, d, 1, func(c *config.Config) { c.Transaction = config.Duration(2 * time.Second) })
		c := hold(t, a)
		_, err := c.Exec(t.Context(), "select pg_sleep(20)")
		fails(t, err, "25P04", "transaction timeout")
	})
	t.Run("client_login_timeout", func(t *testing.T) {
		a := small(t, d, 1, func(c *config.Config) { c.Login = config.Duration(300 * time.Millisecond) })
		nc, err := net.Dial("tcp", a.Server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := nc.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("a client that says nothing keeps its slot: %v", err)
		}
		eventually(t, "its slot is free", func() bool { return len(a.Server.Sessions()) == 0 })
	})
}

// A client that vanishes while its query runs gives its server up.
func TestVanishedClientIsNoticedWhileItsQueryRuns(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 1, nil)
	c := connectTo(t, a.dsn())
	nc := c.PgConn().Conn()
	go func() { _, _ = c.PgConn().Exec(context.Background(), "select pg_sleep(60)").ReadAll() }()
	watcher := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	running := func() int {
		return queryOne[int](t, watcher, "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'")
	}
	eventually(t, "it runs", func() bool { return running() == 1 })
	_ = nc.Close()
	eventually(t, "it is cancelled", func() bool { return running() == 0 })
	mustExec(t, connectTo(t, a.dsn()), "select 1")
}

func TestReloadDropsNobody(t *testing.T) {
	t.Parallel()
	d := shop(t)
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	file := filepath.Join(dir, "pgmosaic.yaml")
	write := func(more string) {
		t.Helper()
		yaml := fmt.Sprintf("store: %s/map.json\nadmin_users: [admin]\ntls_cert_file: %s\ntls_key_file: %s\n%s", dir, cert, key, more)
		if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	users := "users: [{name: app, password: app}, {name: admin, password: admin}]\n"
	write(users + "default_pool_size: 2\n")
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Direct.Setup = []string{"CREATE DATABASE shop", fmt.Sprintf("CREATE SHARD s1 IN shop NODE '%s'", d.cluster.Node("s1-a").DSN("shop"))}
	a := startApp(t, cfg)
	secure := connectTo(t, a.dsn()+"?sslmode=require")
	first := peerSerial(t, a)
	console := consoleOf(t, a)

	write(users + "nosuch_key: 1\n")
	simplyFails(t, console, "reload", "F0000") // the old stays in force
	connectTo(t, a.dsn())
	write("users: [{name: admin, password: admin}, {name: app, password: changed}]\ndefault_pool_size: 7\n")
	cert2, key2 := certificate(t, t.TempDir())
	for from, to := range map[string]string{cert2: cert, key2: key} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	simply(t, console, "reload")
	mustExec(t, secure, "select 1") // nobody was dropped
	if _, err := pgx.Connect(t.Context(), a.dsn()); err == nil {
		t.Error("the old password still works")
	}
	connectTo(t, dsnFor("app", "changed", a.Server.Addr(), "shop"))
	if peerSerial(t, a) == first {
		t.Error("the new certificate is not in use")
	}
	if s := shown(t, console, "show config where key = 'default_pool_size'"); s[0]["value"] != "7" || s[0]["changeable"] != "yes" {
		t.Errorf("%v", s)
	}
}

func TestPoolsShareFairly(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	const clients, each = 40, 25
	var wg sync.WaitGroup
	waits := make([]time.Duration, clients)
	start := make(chan struct{})
	for i := range clients {
		c := connectTo(t, a.dsn())
		wg.Add(1)
		go func() {
			defer wg.Done()
			<-start
			for range each {
				if _, err := c.Exec(context.Background(), "select pg_sleep(0.001)"); err != nil {
					t.Error(err)
					return
				}
			}
			waits[i] = time.Since(began)
		}()
	}
	began = time.Now()
	close(start)
	wg.Wait()
	lo, hi := waits[0], waits[0]
	for _, w := range waits {
		lo, hi = min(lo, w), max(hi, w)
	}
	if hi > 3*lo { // first come, first served: nobody is left behind
		t.Errorf("the first client was done after %s, the last after %s", lo, hi)
	}
	if s := shown(t, consoleOf(t, a), "show servers where database = 'shop'"); len(s) != 2 {
		t.Errorf("%d servers", len(s))
	}
}

var began time.Time
