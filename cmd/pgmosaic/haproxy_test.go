package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// haproxyConf is the documented configuration.
func haproxyConf(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "operating", "haproxy", "haproxy.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// startHAProxy runs HAProxy until the test ends.
func startHAProxy(t *testing.T, conf string) {
	t.Helper()
	haproxy := tool(t, "haproxy", "haproxy")
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(haproxy, "-c", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("haproxy -c: %v\n%s", err, out)
	}
	cmd := exec.Command(haproxy, "-db", "-f", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// The documented HAProxy configuration in front of two processes: one is killed under load, then comes back. Whoever was
// connected through it is cut off; whoever connects sees nothing.
func TestBehindHAProxy(t *testing.T) {
	t.Parallel()
	d := shop(t)
	conf := haproxyConf(t)
	port := func(old string) string {
		p, err := cluster.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		named := regexp.MustCompile(`\b` + old + `\b`)
		if !named.MatchString(conf) {
			t.Fatalf("the configuration does not name port %s", old)
		}
		conf = named.ReplaceAllString(conf, fmt.Sprint(p))
		return fmt.Sprint(p)
	}
	front := "127.0.0.1:" + port("5432")
	var proxies []*served
	var pages []string
	for i, ports := range [][2]string{{"6432", "8432"}, {"6433", "8433"}} {
		cfg := crashConfig(t, mapOf(d, "shop"))
		p := &served{addr: "127.0.0.1:" + port(ports[0]), file: t.TempDir() + "/pgmosaic.yaml"}
		pages = append(pages, "http://127.0.0.1:"+port(ports[1]))
		text := fmt.Sprintf("listen: %s\nhttp: %s\nstore: %s\npeer_id: %d\nproxy_protocol: [127.0.0.1]\nusers: [{name: app, password: app}]\n", p.addr, strings.TrimPrefix(pages[i], "http://"), cfg.Store, i+1)
		if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p.start(t)
		t.Cleanup(p.kill)
		proxies = append(proxies, p)
	}
	startHAProxy(t, conf)
	dsn := dsnFor("app", "app", front, "shop") + "?sslmode=disable" // one connection for each login: else every second one is a question for TLS
	eventually(t, "HAProxy lets clients through", func() bool {
		c, err := pgx.Connect(t.Context(), dsn)
		if err == nil {
			_ = c.Close(t.Context())
		}
		return err == nil
	})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var reads, connects, cut atomic.Int64
	var killing atomic.Bool // the kill has begun
	var killed atomic.Int64 // when it was over, in nanoseconds; 0 until then
	for n := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(5, uint64(n)))
			var c *pgx.Conn
			for ctx.Err() == nil {
				if c == nil || c.IsClosed() {
					var err error
					begun := time.Now().UnixNano()
					if c, err = pgx.Connect(context.Background(), dsn); err != nil {
						if over := killed.Load(); killing.Load() && (over == 0 || begun < over) { // it was logging in to the one that was killed
							cut.Add(1)
							c = nil
							continue
						}
						t.Errorf("a client that connects: %v", err)
						return
					}
					connects.Add(1)
				}
				for range 1 + rng.IntN(30) {
					var n int
					if err := c.QueryRow(context.Background(), "select count(*) from orders where customer_id = $1", 1+rng.IntN(2000)).Scan(&n); err != nil {
						if !c.IsClosed() {
							t.Errorf("a statement: %v", err)
						}
						cut.Add(1)
						break
					}
					reads.Add(1)
					time.Sleep(time.Millisecond)
				}
				if rng.IntN(3) == 0 && !c.IsClosed() {
					_ = c.Close(context.Background())
				}
			}
			if c != nil {
				_ = c.Close(context.Background())
			}
		})
	}
	logins := regexp.MustCompile(`pgmosaic_logins_total\{database="shop"\} (\d+)`)
	for i, page := range pages {
		eventually(t, fmt.Sprintf("process %d has had clients", i), func() bool {
			_, metrics, _ := get(t, page+"/metrics")
			m := logins.FindStringSubmatch(metrics)
			return m != nil && m[1] != "0"
		})
	}
	eventually(t, "the clients have connected", func() bool { return connects.Load() >= 32 })
	was := connects.Load()
	killing.Store(true)
	proxies[0].kill()
	killed.Store(time.Now().UnixNano())
	alone := connects.Load()
	eventually(t, "clients connect while one process is dead", func() bool { return connects.Load() >= alone+50 })
	alone = connects.Load()
	proxies[0].start(t)
	eventually(t, "the process that is back gets clients", func() bool {
		res, err := http.Get(pages[0] + "/metrics")
		if err != nil {
			return false // it does not listen yet
		}
		defer func() { _ = res.Body.Close() }()
		b, _ := io.ReadAll(res.Body)
		m := logins.FindSubmatch(b)
		return m != nil && string(m[1]) != "0"
	})
	stop()
	wg.Wait()
	t.Logf("%d reads, %d connections (%d while one process was dead), %d cut off by the kill", reads.Load(), connects.Load(), alone-was, cut.Load())
	if cut.Load() == 0 || cut.Load() > 16 {
		t.Errorf("%d were cut off; there are 16 clients", cut.Load())
	}
}

// Behind HAProxy each client keeps its own address, in both versions of the PROXY protocol, with TLS, too: it is shown, rules
// match it, failed logins are counted by it, and a cancel request finds its way.
func TestClientsKeepTheirAddressBehindHAProxy(t *testing.T) {
	t.Parallel()
	d := shop(t)
	cert, key := certificate(t, t.TempDir())
	for _, version := range []string{"send-proxy", "send-proxy-v2"} {
		t.Run(version, func(t *testing.T) {
			a := small(t, d, 2, func(c *config.Config) {
				c.Proxied, c.AuthTries, c.TLSCert, c.TLSKey = []string{"127.0.0.1"}, 3, cert, key
				c.AuthRules = []config.Rule{{User: "app", Address: "127.0.0.9/32", Method: "reject"}, {Method: "scram-sha-256"}}
			})
			front := freeAddress(t)
			conf := strings.NewReplacer("bind 127.0.0.1:5432", "bind "+front, "server p1 127.0.0.1:6432 port 8432", "server p1 "+a.Server.Addr(),
				"server p2 127.0.0.1:6433 port 8433", "", "send-proxy-v2", version, "check inter 500ms fall 2 rise 1 ", "", "option httpchk GET /readyz", "", "http-check expect status 200", "").Replace(haproxyConf(t))
			startHAProxy(t, conf)
			from := func(addr, user, password, db, more string) (*pgx.Conn, error) {
				cfg, err := pgx.ParseConfig(dsnFor(user, password, front, db) + "?default_query_exec_mode=simple_protocol&" + more)
				if err != nil {
					t.Fatal(err)
				}
				cfg.DialFunc = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}).DialContext
				c, err := pgx.ConnectConfig(t.Context(), cfg)
				if err == nil {
					t.Cleanup(func() { _ = c.Close(context.Background()) })
				}
				return c, err
			}
			eventually(t, "HAProxy listens", func() bool {
				_, err := from("127.0.0.2", "app", "app", "shop", "sslmode=disable")
				return err == nil
			})
			for _, mode := range []string{"disable", "require"} {
				c, err := from("127.0.0.3", "app", "app", "shop", "sslmode="+mode)
				if err != nil {
					t.Fatal(err)
				}
				shown := ""
				for _, x := range a.Clients() {
					if x.ID == c.PgConn().PID() {
						shown = x.Addr
					}
				}
				if shown != "127.0.0.3" {
					t.Errorf("sslmode=%s: SHOW CLIENTS says %q", mode, shown)
				}
				done := make(chan error, 1)
				go func() { _, err := c.Exec(t.Context(), "select pg_sleep(60)"); done <- err }()
				eventually(t, "it runs", func() bool {
					return slices.ContainsFunc(a.Clients(), func(x admin.Client) bool { return x.ID == c.PgConn().PID() && x.Servers > 0 })
				})
				for cancelled := false; !cancelled; { // one that meets a server before its statement does is for none
					if err := c.PgConn().CancelRequest(t.Context()); err != nil {
						t.Fatalf("sslmode=%s: %v", mode, err)
					}
					select {
					case err := <-done:
						wantCode(t, err, "57014")
						cancelled = true
					case <-time.After(100 * time.Millisecond):
					}
				}
			}
			_, err := from("127.0.0.9", "app", "app", "shop", "sslmode=disable")
			wantCode(t, err, "28000")
			for range 3 {
				_, err := from("127.0.0.4", "app", "wrong", "shop", "sslmode=disable")
				wantCode(t, err, "28P01")
			}
			_, err = from("127.0.0.4", "app", "app", "shop", "sslmode=disable")
			wantCode(t, err, "28000")
			if _, err := from("127.0.0.5", "app", "app", "shop", "sslmode=disable"); err != nil {
				t.Errorf("from another address: %v", err)
			}
		})
	}
}

// Whom a header is taken from is the configuration's alone: elsewhere it is no startup packet, and where one is due a client
// without it is told so.
func TestProxyProtocolIsTakenFromListedAddressesOnly(t *testing.T) {
	t.Parallel()
	d := shop(t)
	log := &lines{}
	a := startLogging(t, smallConfig(t, d, 2, func(c *config.Config) { c.Proxied = []string{"127.0.0.1", "10.0.0.0/8"} }), log)
	say := func(from string, pieces ...string) string {
		nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", a.Server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		for _, p := range pieces {
			if _, err := nc.Write([]byte(p)); err != nil {
				t.Fatal(err)
			}
		}
		_ = nc.(*net.TCPConn).CloseWrite()
		_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
		b, _ := io.ReadAll(nc) // what came until the end
		return string(b)
	}
	startup := "\x00\x00\x00\x1b\x00\x03\x00\x00user\x00app\x00database\x00\x00\x00"
	startup = "\x00\x00\x00" + string(rune(len(startup))) + startup[4:]
	header := "PROXY TCP4 198.51.100.7 198.51.100.8 1111 2222\r\n"
	asks := "R\x00\x00\x00" // for a password
	for _, c := range []struct {
		name, from string
		pieces     []string
		want       string
	}{
		{"listed, in one piece", "127.0.0.1", []string{header + startup}, asks},
		{"listed, byte by byte", "127.0.0.1", strings.Split(header+startup, ""), asks},
		{"listed, the balancer's own", "127.0.0.1", []string{"PROXY UNKNOWN\r\n" + startup}, asks},
		{"listed, without a header", "127.0.0.1", []string{startup}, "connections from 127.0.0.1 must begin with a PROXY protocol header"},
		{"listed, two headers", "127.0.0.1", []string{header + header + startup}, ""},
		{"listed, another protocol", "127.0.0.1", []string{header + "\x00\x00\x00\x08\x00\x02\x00\x00"}, "unsupported frontend protocol"},
		{"listed, nothing", "127.0.0.1", nil, ""},
		{"not listed", "127.0.0.2", []string{header + startup}, "taken from the addresses of proxy_protocol only"},
		{"not listed, without a header", "127.0.0.2", []string{startup}, asks},
	} {
		got := say(c.from, c.pieces...)
		if !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	eventually(t, "the log names the client", func() bool {
		return slices.ContainsFunc(log.with("client gone"), func(l map[string]any) bool { return l["from"] == "198.51.100.7:1111" })
	})
	cfg := a.Config()
	cfg.Proxied = nil
	if err := a.Apply(&cfg); err != nil {
		t.Fatal(err)
	}
	if got := say("127.0.0.1", startup); !strings.Contains(got, asks) {
		t.Errorf("after RELOAD: %q", got)
	}
}
