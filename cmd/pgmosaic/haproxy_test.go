package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// The documented HAProxy configuration in front of two processes: one is killed under load, then comes back. Whoever was
// connected through it is cut off; whoever connects sees nothing.
func TestBehindHAProxy(t *testing.T) {
	d := shop(t)
	haproxy := tool(t, "haproxy", "haproxy")
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "operating", "haproxy", "haproxy.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	conf := string(b)
	port := func(old string) string {
		p, err := cluster.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(conf, old) {
			t.Fatalf("the configuration does not name port %s", old)
		}
		conf = strings.ReplaceAll(conf, old, fmt.Sprint(p))
		return fmt.Sprint(p)
	}
	front := "127.0.0.1:" + port("5432")
	var proxies []*served
	var pages []string
	for i, ports := range [][2]string{{"6432", "8432"}, {"6433", "8433"}} {
		cfg := crashConfig(t, mapOf(d, "shop"))
		p := &served{addr: "127.0.0.1:" + port(ports[0]), file: t.TempDir() + "/pgmosaic.yaml"}
		pages = append(pages, "http://127.0.0.1:"+port(ports[1]))
		text := fmt.Sprintf("listen: %s\nhttp: %s\nstore: %s\npeer_id: %d\nusers: [{name: app, password: app}]\n", p.addr, strings.TrimPrefix(pages[i], "http://"), cfg.Store, i+1)
		if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p.start(t)
		t.Cleanup(p.kill)
		proxies = append(proxies, p)
	}
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
	time.Sleep(1500 * time.Millisecond)
	was := connects.Load()
	logins := regexp.MustCompile(`pgmosaic_logins_total\{database="shop"\} (\d+)`)
	for i, page := range pages {
		_, metrics, _ := get(t, page+"/metrics")
		m := logins.FindStringSubmatch(metrics)
		if m == nil {
			t.Fatalf("process %d has had no client", i)
		}
		t.Logf("process %d has had %s clients", i, m[1])
	}
	killing.Store(true)
	proxies[0].kill()
	killed.Store(time.Now().UnixNano())
	time.Sleep(2 * time.Second)
	alone := connects.Load()
	proxies[0].start(t)
	time.Sleep(2 * time.Second)
	stop()
	wg.Wait()
	t.Logf("%d reads, %d connections (%d while one process was dead), %d cut off by the kill", reads.Load(), connects.Load(), alone-was, cut.Load())
	if cut.Load() == 0 || cut.Load() > 16 {
		t.Errorf("%d were cut off; there are 16 clients", cut.Load())
	}
	if alone == was {
		t.Error("nobody connected while one process was dead")
	}
	_, metrics, _ := get(t, pages[0]+"/metrics")
	if m := logins.FindStringSubmatch(metrics); m == nil || m[1] == "0" {
		t.Error("the process that is back got no clients")
	}
}
