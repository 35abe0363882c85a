package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

func TestLoginsThatMustFail(t *testing.T) {
	t.Parallel()
	d := shop(t)
	addr := d.Server.Addr()
	for _, bad := range []struct{ name, dsn, code string }{
		{"wrong password", dsnFor("app", "wrong", addr, "shop"), "28P01"},
		{"unknown user", dsnFor("nobody", "x", addr, "shop"), "28P01"},
		{"unknown database", dsnFor("app", "app", addr, "nosuch"), "3D000"},
		{"unknown user of an unknown database", dsnFor("nobody", "x", addr, "nosuch"), "28P01"},
		{"admin console for a client", dsnFor("app", "app", addr, "pgmosaic"), "42501"},
		{"empty password", dsnFor("app", "", addr, "shop"), ""},
		{"unknown parameter", dsnFor("app", "app", addr, "shop") + "?nosuch_parameter=1", "42704"},
		{"bad value of a parameter", dsnFor("app", "app", addr, "shop") + "?statement_timeout=soon", "22023"},
		{"misspelt setting of ours", dsnFor("app", "app", addr, "shop") + "?options=-c%20pgmosaic.read_consistncy%3Dstrong", "42704"},
		{"replication", dsnFor("app", "app", addr, "shop") + "?replication=database", "0A000"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			c, err := pgx.Connect(t.Context(), bad.dsn)
			if err == nil {
				_ = c.Close(t.Context())
				t.Fatal("it was let in")
			}
			var pe *pgconn.PgError
			if bad.code != "" && (!errors.As(err, &pe) || pe.Code != bad.code) {
				t.Errorf("error %v, want SQLSTATE %s", err, bad.code)
			}
		})
	}
	connectTo(t, d.shopDSN()) // and it still lives
}

func TestGarbageOnTheWireIsRefused(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for name, bytes := range map[string]string{
		"http":                   "GET / HTTP/1.1\r\n\r\n",
		"huge startup":           "\x7f\xff\xff\xff\x00\x03\x00\x00",
		"tiny startup":           "\x00\x00\x00\x01\x00\x03\x00\x00",
		"protocol 2":             "\x00\x00\x00\x0c\x00\x02\x00\x00abc\x00",
		"no user":                "\x00\x00\x00\x09\x00\x03\x00\x00\x00",
		"no terminator":          "\x00\x00\x00\x0d\x00\x03\x00\x00user\x00",
		"data behind SSLRequest": "\x00\x00\x00\x08\x04\xd2\x16\x2f\x00\x00\x00\x09",
		"nothing":                "",
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := net.Dial("tcp", d.Server.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			_, _ = nc.Write([]byte(bytes))
			if bytes == "" {
				return
			}
			_ = nc.SetReadDeadline(time.Now().Add(30 * time.Second))
			buf := make([]byte, 4096)
			n := 0
			for {
				m, err := nc.Read(buf[n:])
				n += m
				if err != nil {
					break
				}
			}
			if n > 0 && buf[0] != 'E' && buf[0] != 'N' {
				t.Errorf("answered %q", buf[:n])
			}
			if n > 0 && buf[0] == 'E' && !strings.Contains(string(buf[:n]), "FATAL") {
				t.Errorf("answered %q", buf[:n])
			}
		})
	}
	connectTo(t, d.shopDSN())
}

func TestConfigurationMistakesAreExplained(t *testing.T) {
	t.Parallel()
	for _, bad := range []struct{ yaml, want string }{
		{"lisen: 127.0.0.1:1\n", `Did you mean "listen"?`},
		{"users:\n  - nme: app\n", `Did you mean "name"?`},
		{"pool_size: many\n", "pool_size"},
		{"read_consistency: sometimes\n", "read_consistency"},
		{"query_wait_timeout: 5 parsecs\n", "is no time"},
		{"users:\n  - name: app\n", "neither password nor scram_verifier"},
		{"auth_rules:\n  - method: trust\n", "loopback"},
		{"auth_rules:\n  - {method: trust, address: 10.0.0.0/8}\n", "loopback"},
		{"auth_rules:\n  - {method: trust, address: 127.0.0.1/0}\n", "loopback"},
		{"auth_rules:\n  - {method: trust, address: '::1/0'}\n", "loopback"},
		{"tls_cert_file: x\n", "tls_key_file"},
		{"max_statement_size: big\n", "is no size"},
		{"resolver_grace: 0s\n", "at least 100ms"},
		{"unix_socket_dir: /" + strings.Repeat("d", 100) + "\n", "maximum 107 bytes"},
		{"listen: [\n", "[1:"},
	} {
		file := filepath.Join(t.TempDir(), "pgmosaic.yaml")
		if err := os.WriteFile(file, []byte(bad.yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := config.Load(file)
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%q: %v, want something with %q", bad.yaml, err, bad.want)
		}
	}
	if _, err := config.Load("/nonexistent/pgmosaic.yaml"); err == nil {
		t.Error("a missing file was accepted")
	}
}

func TestDeadShardIsToldAndTheOthersLive(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, NoLoad: true})
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "insert into countries values ('DE', 'Germany')")
	on := map[string]int{}
	for i := 1; len(on) < 2; i++ {
		on[d.adminExec(t, "LOCATE KEY ("+itoa(i)+") OF shop.customers")[0][4].(string)] = i
	}
	for _, id := range on {
		mustExec(t, c, "insert into customers values ($1, 'x', 'x', 'DE', '2026-01-01')", id)
	}
	opened := connectTo(t, d.shopDSN())
	mustExec(t, opened, "begin")
	mustExec(t, opened, "update customers set name = 'lost' where customer_id = $1", on["s2"])
	server := queryOne[int](t, opened, "select pg_backend_pid() from customers where customer_id = $1", on["s2"])
	_ = syscall.Kill(d.cluster.Node("s2-a").PID(), syscall.SIGKILL) // the postmaster alone: its servers say FATAL 57P01
	eventually(t, "its servers end", func() bool { return errors.Is(syscall.Kill(server, 0), syscall.ESRCH) })
	_, err := opened.Exec(t.Context(), "select 1 from customers where customer_id = $1", on["s2"])
	wantCode(t, err, "08006")
	d.cluster.Node("s2-a").Kill()
	_, err = c.Exec(t.Context(), "select * from customers where customer_id = $1", on["s2"])
	pe := &pgconn.PgError{}
	if !errors.As(err, &pe) || pe.Code != "57P03" { // it has waited for another primary
		t.Errorf("error %v", err)
	}
	if !strings.Contains(pe.Message+pe.Detail, "s2") {
		t.Errorf("the message does not name the shard: %s", pe.Message)
	}
	if n := queryOne[int](t, c, "select count(*) from customers where customer_id = $1", on["s1"]); n != 1 {
		t.Error("the other shard is gone as well")
	}
	eventually(t, "SHOW SHARDS says so", func() bool {
		return d.adminExec(t, "SHOW SHARDS WHERE shard = 's2'")[0][5] == "primary down"
	})
	if ok, why := d.Ready(); !ok || !strings.Contains(why, "s2") { // clients of the other shard are served
		t.Errorf("ready: %v %q", ok, why)
	}
	_, err = c.Exec(t.Context(), "insert into customers values ($1, 'a', 'x', 'DE', '2026-01-01'), ($2, 'b', 'x', 'DE', '2026-01-01')", 1000+on["s1"], on["s2"])
	if err == nil {
		t.Error("a write over a dead shard succeeded")
	}
	if n := queryOne[int](t, c, "select count(*) from customers where customer_id = $1", 1000+on["s1"]); n != 0 {
		t.Error("half of the write is there")
	}
	_, err = d.Admin.Exec(t.Context(), "CREATE GROUP g IN shop KEY (int) BY HASH", false)
	if err != nil {
		t.Errorf("the admin console does not live: %v", err)
	}
	if err := d.cluster.Node("s2-a").Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shard serves again in the same session", func() bool {
		var n int
		return c.QueryRow(context.Background(), "select count(*) from customers").Scan(&n) == nil && n == 2
	})
}

// A primary dies in the middle of a statement: the client is told, and the session lives on.
func TestServerKilledMidQuery(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, NoLoad: true})
	c := connectTo(t, d.shopDSN())
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "select pg_sleep(30) from settings right join (values (1)) v on true")
		done <- err
	}()
	begun(t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "the statement", "pg_sleep(30)")
	if err := d.cluster.Node("s1-a").StopImmediate(); err != nil {
		t.Fatal(err)
	}
	err := <-done
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "08006" || pe.Severity != "ERROR" {
		t.Fatalf("error %v", err)
	}
	if err := d.cluster.Node("s1-a").Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session works again", func() bool { _, err := c.Exec(context.Background(), "select * from settings"); return err == nil })
}
