package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy"
	"github.com/pgmosaic/pgmosaic/proxy/config"
)

// With so_reuseport and one configuration file a new process takes over from the old one, also from one that is still draining:
// whoever connects, by TCP, by the Unix socket, to the dashboard or as another process, is let in at every moment.
func TestOneProcessTakesOverFromAnother(t *testing.T) {
	t.Parallel()
	d := shop(t)
	cfg := crashConfig(t, mapOf(d, "shop"))
	dir := t.TempDir()
	addr, web, peers := freeAddress(t), freeAddress(t), freeAddress(t)
	_, port, _ := strings.Cut(addr, ":")
	file := filepath.Join(dir, "pgmosaic.yaml")
	text := fmt.Sprintf("listen: %s\nhttp: %s\npeer_listen: %s\npeer_id: 1\nunix_socket_dir: %s\nso_reuseport: true\nstore: %s\nusers: [{name: app, password: app}]\n", addr, web, peers, dir, cfg.Store)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := func() *served {
		log := &lines{}
		p := &served{addr: addr, file: file, log: log}
		p.start(t)
		t.Cleanup(p.kill)
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(log.buf.String())
			}
		})
		eventually(t, "the process is ready", func() bool {
			log.mu.Lock()
			defer log.mu.Unlock()
			return bytes.Contains(log.buf.Bytes(), []byte("msg=ready"))
		})
		return p
	}
	first := begin()

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var done atomic.Int64
	always := func(what string, try func() error) {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := try(); err != nil {
					t.Errorf("%s: %v", what, err)
					return
				}
				done.Add(1)
			}
		})
	}
	login := func(dsn string) func() error {
		return func() error {
			c, err := pgx.Connect(context.Background(), dsn)
			if err == nil {
				_ = c.Close(context.Background())
			}
			return err
		}
	}
	for range 4 {
		always("TCP", login(dsnFor("app", "app", addr, "shop")+"?sslmode=disable"))
	}
	always("Unix socket", login(fmt.Sprintf("host=%s port=%s user=app password=app dbname=shop", dir, port)))
	page := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	always("dashboard", func() error {
		res, err := page.Get("http://" + web + "/readyz")
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		if b, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", res.Status, b)
		}
		return nil
	})
	always("peers", func() error {
		nc, err := net.Dial("tcp", peers)
		if err == nil {
			_ = nc.Close()
		}
		return err
	})

	// The first is to drain until the transaction ends.
	held := connectTo(t, dsnFor("app", "app", addr, "shop")+"?sslmode=disable")
	mustExec(t, held, "begin")
	mustExec(t, held, "select 1 from customers where customer_id = 1")
	second := begin()
	more := func(n int64) {
		t.Helper()
		from := done.Load()
		eventually(t, "clients come and go", func() bool { return done.Load() >= from+n || t.Failed() })
	}
	more(50)
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	more(100)
	third := begin() // while the first still drains
	if err := second.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.cmd.Wait(); err != nil {
		t.Errorf("the second process: %v", err)
	}
	more(100)
	mustExec(t, held, "commit")
	if err := first.cmd.Wait(); err != nil {
		t.Errorf("the first process: %v", err)
	}
	more(50)
	stop()
	wg.Wait()
	t.Logf("%d were let in", done.Load())
	if err := third.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := third.cmd.Wait(); err != nil {
		t.Errorf("the third process: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".s.PGSQL."+port)); !os.IsNotExist(err) {
		t.Errorf("the last process left its Unix socket: %v", err)
	}
}

// Without so_reuseport a port or socket that is taken stays with whoever has it.
func TestAnAddressInUseIsRefused(t *testing.T) {
	t.Parallel()
	d := shop(t)
	dir := t.TempDir()
	a := small(t, d, 2, func(c *config.Config) { c.UnixDir = dir })
	_, port, _ := strings.Cut(a.Server.Addr(), ":")
	path := filepath.Join(dir, ".s.PGSQL."+port)
	for range 2 {
		l, err := proxy.Listen(path, 0o777, proxy.Sharing{})
		if err == nil || !strings.Contains(err.Error(), "another process listens there") {
			t.Errorf("%v, %v", l, err)
		}
	}
	c, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%s user=app password=app dbname=shop", dir, port))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close(t.Context())
	a.stop(time.Millisecond)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is there still: %v", err)
	}
}
