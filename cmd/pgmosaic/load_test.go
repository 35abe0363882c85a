//go:build load || attack

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// 'make test-load' measures a proxy that is a process of its own, so that only its memory counts.

type process struct {
	*exec.Cmd
	addr string
}

func (p *process) rss(t testing.TB) int64 {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kb int64
		if _, err := fmt.Sscanf(s.Text(), "VmRSS: %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// overShop starts the binary over one node of the shop, with these lines of configuration.
func overShop(t testing.TB, d *demo, lines string) *process {
	t.Helper()
	return launch(t, t.TempDir(), lines+fmt.Sprintf("init_sql: |\n  CREATE DATABASE shop;\n  CREATE SHARD s1 IN shop NODE '%s';\n", d.cluster.Node("s1-a").DSN("shop")))
}

// launch starts the binary with its map in a folder.
func launch(t testing.TB, dir, lines string) *process {
	t.Helper()
	port, err := cluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	file := dir + "/pgmosaic.yaml"
	yaml := fmt.Sprintf("listen: %s\nhttp: \"off\"\nstore: %s/map.json\nmax_client_conn: 20000\nusers: [{name: app, password: app}]\nauth_rules: [{address: 127.0.0.0/8, method: trust}]\n%s",
		addr, dir, lines)
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(cmp.Or(os.Getenv("PGMOSAIC_BINARY"), "../../bin/pgmosaic"), "serve", "-c", file), addr: addr}
	var said bytes.Buffer
	p.Stderr = &said
	if err := p.Start(); err != nil {
		t.Fatalf("%v: make build first", err)
	}
	t.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGTERM)
		_ = p.Process.Signal(syscall.SIGTERM)
		_ = p.Wait()
		if i := strings.Index(said.String(), "fdcheck:"); i >= 0 {
			t.Error(said.String()[i:])
		}
	})
	eventually(t, "it listens", func() bool {
		c, err := pgconn.Connect(context.Background(), "postgres://app:app@"+addr+"/shop")
		if err == nil {
			_ = c.Close(context.Background())
		}
		return err == nil
	})
	return p
}

// enter logs in by hand, with as little memory as may be.
func enter(addr string) (*wire.Conn, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := wire.New(nc, 1<<20)
	c.Frugal()
	c.Send(&wire.Startup{ProtocolVersion: wire.Version3, Parameters: map[string]string{"user": "app", "database": "shop"}})
	if err := c.Flush(); err != nil {
		return nil, err
	}
	return c, toReady(c)
}

func toReady(c *wire.Conn) error {
	for {
		m, err := c.Next()
		if err != nil {
			return err
		}
		switch m.Type {
		case 'E':
			return fmt.Errorf("%s", wire.ParseError(m.Body()).Message)
		case 'Z':
			return nil
		}
	}
}

func wireAsk(c *wire.Conn, sql string) error {
	c.SendQuery(sql)
	if err := c.Flush(); err != nil {
		return err
	}
	return toReady(c)
}

func quantile(d []time.Duration, q float64) time.Duration {
	sort.Slice(d, func(i, j int) bool { return d[i] < d[j] })
	return d[int(float64(len(d)-1)*q)]
}

func TestLoadIdleClientsAreCheap(t *testing.T) {
	p := overShop(t, shop(t), "")
	const n = 10000
	before := p.rss(t)
	conns := make([]*wire.Conn, n)
	for i := range conns {
		c, err := enter(p.addr)
		if err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		defer c.Close()
		conns[i] = c
	}
	fresh := (p.rss(t) - before) / n
	for _, c := range conns { // each has worked, and rests again
		if err := wireAsk(c, "select 1"); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(6 * time.Second) // they rest
	used := (p.rss(t) - before) / n
	t.Logf("%d idle clients cost %d bytes each when they have logged in, %d when each has run a query", n, fresh, used)
	if used > 8<<10 {
		t.Errorf("an idle client costs %d bytes, at most %d were promised", used, 8<<10)
	}
}

func TestLoadActiveClientsMakeProgressEvenly(t *testing.T) {
	p := overShop(t, shop(t), "default_pool_size: 20\n")
	const n, each = 1000, 20
	total := make([]time.Duration, n)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		c, err := enter(p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		wg.Add(1)
		go func() {
			defer wg.Done()
			<-start
			began := time.Now()
			for range each {
				if err := wireAsk(c, "select pg_sleep(0.0005)"); err != nil {
					t.Error(err)
					return
				}
			}
			total[i] = time.Since(began)
		}()
	}
	close(start)
	wg.Wait()
	median, worst := quantile(total, 0.5), quantile(total, 1)
	t.Logf("%d clients on 20 servers, %d statements each: median %s, slowest %s", n, each, median, worst)
	if worst > 3*median {
		t.Errorf("the slowest client took %s, the median %s", worst, median)
	}
}

func TestLoadStormOfLogins(t *testing.T) {
	p := overShop(t, shop(t), "")
	const n = 2000
	errs := make(chan error, n)
	start := make(chan struct{})
	for range n {
		go func() {
			<-start
			c, err := enter(p.addr)
			if err == nil {
				err = wireAsk(c, "select 1")
				_ = c.Close()
			}
			errs <- err
		}()
	}
	began := time.Now()
	close(start)
	for range n {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d logins at once, each with a query, in %s", n, time.Since(began))
}

func TestLoadSlowReadersHinderNobody(t *testing.T) {
	p := overShop(t, shop(t), "default_pool_size: 40\n")
	measure := func() time.Duration {
		var mu sync.Mutex
		var all []time.Duration
		var wg sync.WaitGroup
		for range 8 {
			c, err := enter(p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			wg.Add(1)
			go func() {
				defer wg.Done()
				var own []time.Duration
				for range 2000 {
					began := time.Now()
					if err := wireAsk(c, "select 1"); err != nil {
						t.Error(err)
						return
					}
					own = append(own, time.Since(began))
				}
				mu.Lock()
				all = append(all, own...)
				mu.Unlock()
			}()
		}
		wg.Wait()
		return quantile(all, 0.99)
	}
	measure()
	alone := measure()
	before := p.rss(t)
	for range 20 { // each takes a little of a big result now and then
		c, err := enter(p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SendQuery("select repeat('x', 100000) from generate_series(1, 10000)")
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(200 * time.Millisecond):
					if c.Skip() != nil {
						return
					}
				}
			}
		}()
	}
	time.Sleep(300 * time.Millisecond)
	beside := measure()
	t.Logf("p99 %s alone, %s beside 20 slow readers; memory grew by %d kB", alone, beside, (p.rss(t)-before)>>10)
	if beside > 3*alone {
		t.Errorf("p99 %s beside slow readers, %s without", beside, alone)
	}
	if grown := p.rss(t) - before; grown > 64<<20 {
		t.Errorf("slow readers cost %d MB", grown>>20)
	}
}

// One big result: as fast as without us, nearly, and in little memory.
func TestLoadBigResult(t *testing.T) {
	d := shop(t)
	p := overShop(t, d, "")
	const size = 1 << 30
	read := func(dsn string) time.Duration {
		w := rawTo(t, dsn)
		defer w.Close()
		began := time.Now()
		w.SendQuery("select repeat('x', 1000) from generate_series(1, 1100000)")
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 256<<10)
		n := 0
		for n < size {
			m, err := w.NetConn().Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		return time.Since(began)
	}
	through, direct := "postgres://app:app@"+p.addr+"/shop", d.cluster.Node("s1-a").DSN("shop")
	read(through)
	var ours, theirs []time.Duration
	for range 5 {
		theirs = append(theirs, read(direct))
		ours = append(ours, read(through))
	}
	ratio := float64(quantile(theirs, 0.5)) / float64(quantile(ours, 0.5))
	mb := p.rss(t) >> 20
	t.Logf("1 GB: %s direct, %s through the proxy (%.2f of the throughput); resident %d MB", quantile(theirs, 0.5), quantile(ours, 0.5), ratio, mb)
	if mb > 64 {
		t.Errorf("resident memory is %d MB", mb)
	}
}
