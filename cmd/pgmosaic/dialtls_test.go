package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// withTLS makes a server whose certificate is for localhost.
func withTLS(t *testing.T, cert, key string) *cluster.Node {
	t.Helper()
	dir, err := testDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cleanTestDir(dir) })
	cl, err := cluster.Open(t.Context(), cluster.Options{Dir: filepath.Join(dir, "nodes")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Destroy() })
	n, err := cl.Primary(t.Context(), "tls")
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"server.crt": cert, "server.key": key} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := "select unnest(string_to_array('" + strings.TrimSpace(string(b)) + "', e'\\n'))"
		if err := n.Exec(t.Context(), "postgres", fmt.Sprintf("copy (%s) to program 'umask 077; cat > %s'", lines, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range []string{"alter system set ssl = on", "select pg_reload_conf()"} {
		if err := n.Exec(t.Context(), "postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the server offers TLS", func() bool {
		c, err := pgconn.Connect(t.Context(), strings.Replace(n.DSN("postgres"), "sslmode=disable", "sslmode=require", 1))
		if err == nil {
			_ = c.Close(t.Context())
		}
		return err == nil
	})
	return n
}

// doorman answers a request for TLS in its own way. Who asks for none is passed on to a server, if there is one.
func doorman(t *testing.T, to string, answer func(net.Conn)) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	serve := func(nc net.Conn) {
		defer nc.Close()
		if to == "" {
			answer(nc)
			return
		}
		var head [8]byte
		if _, err := io.ReadFull(nc, head[:]); err != nil {
			return
		}
		if binary.BigEndian.Uint32(head[4:]) == wire.SSLCode {
			answer(nc)
			return
		}
		srv, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer srv.Close()
		_, _ = srv.Write(head[:])
		go func() { _, _ = io.Copy(srv, nc); _ = srv.Close() }()
		_, _ = io.Copy(nc, srv)
	}
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go serve(nc)
		}
	}()
	return l.Addr().(*net.TCPAddr)
}

// Every kind of server, sslmode and secret: a server comes, with TLS or without, or an error does.
func TestServersWithAndWithoutTLS(t *testing.T) {
	t.Parallel()
	d := shop(t)
	cert, key := certificate(t, t.TempDir())
	plain, safe := d.cluster.Node("s1-a"), withTLS(t, cert, key)
	admin := connectTo(t, plain.DSN("postgres"))
	mustExec(t, admin, "create role keyed login password 'keyed'")
	defer mustExec(t, admin, "drop role keyed")
	stored := queryOne[string](t, admin, "select rolpassword from pg_authid where rolname = 'keyed'")
	if err := safe.Exec(t.Context(), "postgres", "create role keyed login password '"+stored+"'"); err != nil {
		t.Fatal(err)
	}
	a := small(t, d, 3, func(c *config.Config) {
		c.Users = append(c.Users, config.User{Name: "keyed", Verifier: stored})
	})
	mustExec(t, connectTo(t, dsnFor("keyed", "keyed", a.Server.Addr(), "shop")), "select 1") // so that the pools learn its keys

	port := func(n *cluster.Node) string { return fmt.Sprintf("127.0.0.1:%d", n.Port) }
	server := func(n *cluster.Node) *net.TCPAddr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: n.Port} }
	const (
		none = iota // no connection
		open        // one in plain
		tls         // one with TLS
	)
	modes := [...]string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
	onlyPlain, onlyTLS := [...]int{open, open, open, none, none, none}, [...]int{open, open, tls, tls, tls, tls}
	for _, srv := range []struct {
		name string
		addr *net.TCPAddr
		pw   string
		want [6]int
	}{
		{"without TLS", server(plain), d.cluster.Password, onlyPlain},
		{"with TLS", server(safe), passwordOf(t, safe), onlyTLS},
		{"closes when asked for TLS", doorman(t, port(plain), func(net.Conn) {}), d.cluster.Password, onlyPlain},
		{"closes behind its yes", doorman(t, port(plain), func(nc net.Conn) { _, _ = nc.Write([]byte("S")) }), d.cluster.Password, onlyPlain},
		{"closes behind its no", doorman(t, port(plain), func(nc net.Conn) { _, _ = nc.Write([]byte("N")) }), d.cluster.Password, onlyPlain},
		{"answers with an error", doorman(t, port(plain), func(nc net.Conn) { _, _ = nc.Write([]byte("E\x00\x00\x00\x04")) }), d.cluster.Password, onlyPlain},
		{"answers with garbage", doorman(t, port(plain), func(nc net.Conn) { _, _ = nc.Write([]byte("\x00HTTP/1.1 400\r\n")) }), d.cluster.Password, onlyPlain},
		{"speaks garbage behind its yes", doorman(t, port(plain), func(nc net.Conn) { _, _ = nc.Write([]byte("SHTTP/1.1 400\r\n\r\n")) }), d.cluster.Password, onlyPlain},
		{"closes whatever is asked", doorman(t, "", func(net.Conn) {}), d.cluster.Password, [6]int{}},
		{"speaks garbage to everybody", doorman(t, "", func(nc net.Conn) { _, _ = nc.Write([]byte("SSH-2.0-OpenSSH\r\n\r\n")) }), d.cluster.Password, [6]int{}},
		{"is ready without a login", doorman(t, "", func(nc net.Conn) { _, _ = nc.Write([]byte("Z\x00\x00\x00\x04")) }), d.cluster.Password, [6]int{}},
	} {
		for i, mode := range modes {
			for secret, role := range map[string]string{"password": "postgres", "keys": "keyed", "none": "guest"} {
				want := srv.want[i]
				if secret == "none" {
					want = none
				}
				// Each name has a pool of its own.
				dsn := fmt.Sprintf("host=localhost port=%d user=postgres password=%s dbname=postgres sslmode=%s", srv.addr.Port, srv.pw, mode)
				if strings.HasPrefix(mode, "verify") {
					dsn += " sslrootcert=" + cert
				}
				t.Run(strings.Join([]string{srv.name, mode, secret}, "/"), func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					s, _, err := a.Pools.Pool("shop", "s1", srv.name, dsn, role).Acquire(ctx, pool.NoSettings, false, pool.NewWait(nil), nil)
					if want == none {
						var de *pool.DialError
						if !errors.As(err, &de) {
							t.Errorf("%v, it should be an error of the connection", err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					defer s.Release(time.Now())
					rows, err := s.Rows("select current_user, (select ssl from pg_stat_ssl where pid = pg_backend_pid())")
					if err != nil {
						t.Fatal(err)
					}
					if who, got := string(rows[0][0]), string(rows[0][1]); who != role || (got == "t") != (want == tls) {
						t.Errorf("logged in as %s, TLS: %s", who, got)
					}
				})
			}
		}
	}
}

func passwordOf(t *testing.T, n *cluster.Node) string {
	t.Helper()
	cfg, err := pgconn.ParseConfig(n.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Password
}
