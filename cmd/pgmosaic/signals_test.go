package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/replication/cluster"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// lineLog is what a process has said so far.
type lineLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lineLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lineLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// told is a process that is sent signals.
type told struct {
	dir, addr string
	cmd       *exec.Cmd
	log       *lineLog
	ended     chan error
}

// tell starts a process; more is added to its configuration, in which {dir} is a folder of its own.
func tell(t *testing.T, more string) *told {
	t.Helper()
	dir, err := os.MkdirTemp("", "p") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &told{dir: dir, addr: freeAddress(t), log: &lineLog{}, ended: make(chan error, 1)}
	text := fmt.Sprintf("listen: %s\nhttp: \"off\"\nstore: {dir}/map.json\nunix_socket_dir: {dir}\nadmin_users: [admin]\nusers: [{name: app, password: app}, {name: admin, password: \"file:{dir}/secret\"}]\n%s", p.addr, more)
	for name, s := range map[string]string{"pgmosaic.yaml": strings.ReplaceAll(text, "{dir}", p.dir), "secret": "admin"} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.cmd = serving(filepath.Join(p.dir, "pgmosaic.yaml"), p.log)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

func (p *told) signal(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// says waits for a text in the log.
func (p *told) says(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the log says "+text, func() bool { return strings.Contains(p.log.String(), text) })
}

// ends makes sure that the process ends by itself, and leaves nothing behind but a map that can be loaded.
func (p *told) ends(t *testing.T) {
	t.Helper()
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("it has not ended:\n%s", p.log)
	}
	if s := p.log.String(); strings.Contains(s, "panic") || strings.Contains(s, "goroutine ") || strings.Contains(s, "level=ERROR") {
		t.Errorf("its log:\n%s", s)
	}
	if left, _ := filepath.Glob(filepath.Join(p.dir, ".s.PGSQL.*")); slices.ContainsFunc(left, func(s string) bool { return !strings.HasSuffix(s, "~lock") }) {
		t.Errorf("left: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(p.dir, ".tmp-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	doc, err := filestore.New(filepath.Join(p.dir, "map.json")).Load(t.Context())
	if err == nil && doc != nil {
		_, err = shardmap.Compile(doc)
	}
	if err != nil {
		t.Error(err)
	}
}

// silentNode takes connections and says nothing.
func silentNode(t *testing.T) (addr string, asked chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	asked = make(chan struct{}, 100)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = nc.Close() })
			select {
			case asked <- struct{}{}:
			default:
			}
		}
	}()
	return l.Addr().String(), asked
}

// heldNode is a node that takes connections, and answers none of them before it is let.
func heldNode(t *testing.T, n *cluster.Node) (addr string, asked chan struct{}, let func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	asked, open := make(chan struct{}, 100), make(chan struct{})
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = nc.Close() })
			select {
			case asked <- struct{}{}:
			default:
			}
			go func() {
				<-open
				to, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", n.Port))
				if err != nil {
					_ = nc.Close()
					return
				}
				go func() { _, _ = io.Copy(nc, to); _ = nc.Close() }()
				_, _ = io.Copy(to, nc)
				_ = to.Close()
			}()
		}
	}()
	return l.Addr().String(), asked, sync.OnceFunc(func() { close(open) })
}

// A signal ends the process as documented at each moment of its life.
func TestSignalsAtEachMoment(t *testing.T) {
	t.Parallel()
	d := shop(t)
	db := fmt.Sprintf("init_sql: \"CREATE DATABASE shop; CREATE SHARD s1 IN shop NODE '%s'\"\n", d.cluster.Node("s1-a").DSN("shop"))
	enders := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT}
	for _, sig := range enders {
		t.Run(fmt.Sprint("in init_sql, ", sig), func(t *testing.T) {
			addr, asked := silentNode(t)
			p := tell(t, "init_sql: \"CREATE DATABASE shop; CREATE SHARD s1 IN shop NODE 'postgres://app@"+addr+"/shop'\"\n")
			<-asked
			p.signal(t, sig)
			p.ends(t)
			if !strings.Contains(p.log.String(), "stopped before it was ready") {
				t.Errorf("its log:\n%s", p.log)
			}
		})
		t.Run(fmt.Sprint("when it is ready, ", sig), func(t *testing.T) {
			p := tell(t, db)
			p.says(t, "msg=ready")
			p.signal(t, syscall.SIGUSR1)
			p.says(t, "PAUSE and RESUME")
			p.signal(t, sig)
			p.ends(t)
		})
		t.Run(fmt.Sprint("while it drains, ", sig), func(t *testing.T) {
			p := tell(t, db)
			p.says(t, "msg=ready")
			c := connectTo(t, dsnFor("app", "app", p.addr, "shop"))
			mustExec(t, c, "begin")
			mustExec(t, c, "select 1")
			p.signal(t, syscall.SIGTERM)
			p.says(t, "msg=draining")
			p.signal(t, syscall.SIGHUP)
			if n := queryOne[int](t, c, "select 1"); n != 1 {
				t.Error("the transaction does not go on")
			}
			p.signal(t, sig)
			p.ends(t)
			_, err := c.Exec(t.Context(), "commit")
			wantCode(t, err, "57P01")
		})
		t.Run(fmt.Sprint("while RELOAD reads a file that does not answer, ", sig), func(t *testing.T) {
			p := tell(t, db)
			p.says(t, "msg=ready")
			secret := filepath.Join(p.dir, "secret")
			if err := os.Remove(secret); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(secret, 0o600); err != nil {
				t.Fatal(err)
			}
			p.signal(t, syscall.SIGHUP)
			f, err := os.OpenFile(secret, os.O_WRONLY, 0) // returns when it is read
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			p.signal(t, sig)
			p.ends(t)
		})
	}
	// SIGHUP in init_sql: what it asks for is done once the process is ready, and a signal to end is obeyed as without it.
	for _, sig := range append([]syscall.Signal{0}, enders...) {
		t.Run(fmt.Sprint("in init_sql, SIGHUP and then ", sig), func(t *testing.T) {
			node := d.cluster.Node("s1-a")
			addr, asked, let := heldNode(t, node)
			defer let()
			p := tell(t, fmt.Sprintf("init_sql: \"CREATE DATABASE shop; CREATE SHARD s1 IN shop NODE '%s'\"\n", strings.Replace(node.DSN("shop"), fmt.Sprint("127.0.0.1:", node.Port), addr, 1)))
			<-asked
			if err := os.WriteFile(filepath.Join(p.dir, "secret"), []byte("changed"), 0o600); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				p.signal(t, syscall.SIGHUP)
			}
			if sig != 0 {
				p.signal(t, sig)
				p.ends(t)
				if !strings.Contains(p.log.String(), "stopped before it was ready") || strings.Contains(p.log.String(), "read again") {
					t.Errorf("its log:\n%s", p.log)
				}
				return
			}
			let()
			p.says(t, "msg=ready")
			p.says(t, "configuration read again")
			mustExec(t, connectTo(t, dsnFor("admin", "changed", p.addr, "pgmosaic")+"?default_query_exec_mode=simple_protocol"), "SHOW VERSION")
			p.signal(t, syscall.SIGTERM)
			p.ends(t)
		})
	}
	t.Run("a transaction is let finish", func(t *testing.T) {
		p := tell(t, db)
		p.says(t, "msg=ready")
		c := connectTo(t, dsnFor("app", "app", p.addr, "shop"))
		mustExec(t, c, "begin")
		mustExec(t, c, "select 1")
		p.signal(t, syscall.SIGTERM)
		p.says(t, "msg=draining")
		mustExec(t, c, "commit")
		p.ends(t)
	})
	t.Run("after SHUTDOWN WAIT_FOR_CLIENTS", func(t *testing.T) {
		p := tell(t, db)
		p.says(t, "msg=ready")
		c := connectTo(t, dsnFor("app", "app", p.addr, "shop"))
		console := connectTo(t, dsnFor("admin", "admin", p.addr, "pgmosaic")+"?default_query_exec_mode=simple_protocol")
		mustExec(t, console, "SHUTDOWN WAIT_FOR_CLIENTS")
		p.says(t, "msg=draining")
		mustExec(t, c, "select 1")
		p.signal(t, syscall.SIGTERM)
		p.ends(t)
	})
	t.Run("when nobody reads the log", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p := tell(t, db+"log_min_duration_statement: 1ns\n")
		p.says(t, "msg=ready")
		_ = p.cmd.Process.Kill()
		if err := <-p.ended; err == nil {
			t.Error("killed, it says that all is well")
		}
		again := &told{dir: p.dir, addr: p.addr, log: &lineLog{}, ended: make(chan error, 1)}
		again.cmd = serving(filepath.Join(p.dir, "pgmosaic.yaml"), w)
		if err := again.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { again.ended <- again.cmd.Wait() }()
		t.Cleanup(func() { _ = again.cmd.Process.Kill() })
		_ = w.Close()
		ask := func(n int) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			var c *pgx.Conn
			eventually(t, "it lets clients in", func() (ok bool) {
				c, err = pgx.Connect(ctx, dsnFor("app", "app", p.addr, "shop"))
				return err == nil
			})
			defer func() { _ = c.Close(ctx) }()
			for range n {
				if _, err := c.Exec(ctx, "select 1"); err != nil {
					t.Fatal(err)
				}
			}
		}
		ask(2000) // more than a pipe holds, which is full now
		if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
			t.Error(err)
		}
		_ = r.Close() // and now it has no reader
		ask(10)
		again.signal(t, syscall.SIGTERM)
		again.ends(t)
	})
}
