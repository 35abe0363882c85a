//go:build attack && linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// walDisk is a small disk that holds what a node writes ahead.
type walDisk struct {
	t   *testing.T
	n   *cluster.Node
	dir string
}

// smallWAL gives a node such a disk, with segments that are not kept.
func smallWAL(t *testing.T, d *demo, n *cluster.Node) *walDisk {
	t.Helper()
	w := &walDisk{t: t, n: n, dir: filepath.Join(d.cluster.Dir, n.Name, "pg_wal")}
	for name, value := range map[string]string{"wal_keep_size": "0", "min_wal_size": "32MB", "max_wal_size": "32MB", "wal_recycle": "off"} {
		if err := n.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(n.Stop(), n.Start(t.Context()), n.Exec(t.Context(), "postgres", "checkpoint"), n.Stop()); err != nil {
		t.Fatal(err)
	}
	kept := w.dir + ".kept"
	if err := os.Rename(w.dir, kept); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", w.dir, "tmpfs", 0, "size=160m,mode=700"); err != nil {
		t.Fatalf("a disk that can be filled needs a mount, which root may: %v", err)
	}
	t.Cleanup(func() {
		n.Kill()
		_ = syscall.Unmount(w.dir, syscall.MNT_DETACH)
	})
	if out, err := exec.Command("sh", "-c", fmt.Sprintf("cp -a %s/. %s/ && chown --reference=%[1]s %[2]s && rm -rf %[1]s", kept, w.dir)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *walDisk) ballast() string { return filepath.Join(w.dir, "ballast") }

// fill leaves no room, and has the node need some with the next thing that it writes.
func (w *walDisk) fill() {
	c, err := pgx.Connect(context.Background(), w.n.DSN("postgres"))
	if err != nil {
		w.t.Error(err)
		return
	}
	defer c.Close(context.Background())
	f, err := os.Create(w.ballast())
	if err != nil {
		w.t.Error(err)
		return
	}
	defer f.Close()
	for block := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		w.t.Error(err)
	}
	if _, err := c.Exec(context.Background(), "select pg_switch_wal()"); err != nil {
		w.t.Logf("switching: %v", err)
	}
}

// room makes room again, and starts the node if it has not stayed up.
func (w *walDisk) room() (stayed bool) {
	w.t.Helper()
	if err := os.Remove(w.ballast()); err != nil {
		w.t.Fatal(err)
	}
	stayed = w.n.Running()
	eventually(w.t, "the node runs again", func() bool { // one that has not noticed yet that it cannot, ends first
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		return w.n.Start(w.t.Context()) == nil && w.n.Exec(ctx, "postgres", "create table if not exists room ()") == nil
	})
	return stayed
}

// The disk of one node's write-ahead log is full at each step of commits on one shard and over two, and as a table is distributed: the
// node ends. Clients are told so, others go on; with room again nothing is lost or half committed, and nothing stays prepared.
func TestAttackFullWAL(t *testing.T) {
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, NoLoad: true})
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s1-a")}
	doc, ts := crashWorld(t, d, "fullwal", nodes)
	defer d.forget(t, "fullwal")
	disk := smallWAL(t, d, nodes[1])
	a := startApp(t, crashConfig(t, doc))
	addr := dsnFor("app", "app", a.Server.Addr(), "fullwal")
	other := connectTo(t, nodes[0].DSN("fullwal_0"))
	id := 0
	for _, x := range []struct {
		what string
		rows []int // of which shards, the first decides
		at   step  // where the disk is full; none: before the statement
	}{
		{"one shard", []int{1}, step{}},
		{"one shard, in a transaction", []int{1}, step{}},
		{"prepare", []int{0, 1}, step{"prepare", 1}},
		{"commit prepared", []int{0, 1}, step{"commit prepared", 1}},
		{"decide", []int{1, 0}, step{"decide", 1}},
		{"commit", []int{1, 0}, step{"commit", 1}},
	} {
		for range 3 {
			id++
			what := fmt.Sprintf("%s (%d)", x.what, id)
			c, err := pgx.Connect(t.Context(), addr)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range x.rows { // the shards are well
				eventually(t, what+": the shard answers", func() bool {
					_, err := c.Exec(t.Context(), "delete from moves where shard = $1 and id = -1", s)
					return err == nil
				})
			}
			many := x.at.what != "" || strings.Contains(x.what, "transaction")
			if many {
				mustExec(t, c, "begin")
			}
			insert := func(s int) error {
				_, err := c.Exec(t.Context(), "insert into moves values ($1, $2)", s, id)
				return err
			}
			if many {
				for _, s := range x.rows {
					if err := insert(s); err != nil {
						t.Fatalf("%s: %v", what, err)
					}
				}
			}
			var once sync.Once
			ts.mu.Lock()
			ts.comes = func(s step) {
				if s == x.at && s.what != "" {
					once.Do(disk.fill)
				}
			}
			ts.mu.Unlock()
			if x.at.what == "" {
				disk.fill()
			}
			done := make(chan error, 1)
			go func() {
				if many {
					_, err := c.Exec(context.Background(), "commit")
					done <- err
					return
				}
				done <- insert(x.rows[0])
			}()
			var told error
			select {
			case told = <-done:
			case <-time.After(time.Minute):
				t.Fatalf("%s: the client is not told", what)
			}
			ts.mu.Lock()
			ts.comes = nil
			ts.mu.Unlock()
			once.Do(func() {
				if x.at.what != "" {
					t.Fatalf("%s: the step did not come", what)
				}
			})
			if c2, err := pgx.Connect(t.Context(), addr); err != nil {
				t.Errorf("%s: a client is not let in: %v", what, err)
			} else {
				if _, err := c2.Exec(t.Context(), "select from moves where shard = 0 and id = 0"); err != nil {
					t.Errorf("%s: the other shard: %v", what, err)
				}
				_ = c2.Close(t.Context())
			}
			stayed := disk.room()
			t.Logf("%s: the node's process stayed: %t, the client is told %v", what, stayed, told)
			code := pgCode(told)
			if told != nil && (len(code) != 5 || code == "XX000") {
				t.Errorf("%s: the client is told %v", what, told)
			}
			direct := connectTo(t, nodes[1].DSN("fullwal_1"))
			within(t, time.Minute, what+": nothing is prepared", func() bool {
				return queryOne[int](t, direct, "select count(*) from pg_prepared_xacts") == 0 && queryOne[int](t, other, "select count(*) from pg_prepared_xacts") == 0
			})
			found := 0
			for i, s := range []*pgx.Conn{other, direct} {
				found += queryOne[int](t, s, "select count(*) from moves where shard = $1 and id = $2", i, id)
			}
			switch {
			case found != 0 && found != len(x.rows):
				t.Errorf("%s: %d of %d rows are there", what, found, len(x.rows))
			case told == nil && found == 0:
				t.Errorf("%s: the client was told that it is committed, and it is not", what)
			case told != nil && !unknown[code] && found != 0:
				t.Errorf("%s: the client was told %v, and it is committed", what, told)
			}
			_, _ = c.Close(t.Context()), direct.Close(t.Context())
		}
	}

	// A table is distributed.
	setup := connectTo(t, addr)
	eventually(t, "the shards answer", func() bool { _, err := setup.Exec(t.Context(), "delete from moves where id = -1"); return err == nil })
	mustExec(t, setup, "create table big (id int primary key, t text)")
	mustExec(t, setup, "insert into big select i, repeat('x', 200) from generate_series(0, 199999) i")
	console := func(sql string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		_, err := d.Admin.Exec(ctx, sql, false)
		return err
	}
	if err := console("CREATE GROUP w IN fullwal KEY (int) BY HASH"); err != nil {
		t.Fatal(err)
	}
	direct := connectTo(t, nodes[1].DSN("fullwal_1"))
	ended := make(chan error, 1)
	go func() { ended <- console("DISTRIBUTE TABLE fullwal.public.big IN GROUP w KEY (id)") }()
	within(t, time.Minute, "rows are copied", func() bool {
		return queryOne[bool](t, direct, "select exists (select from pg_stat_progress_copy where tuples_processed > 0)")
	})
	disk.fill()
	err := <-ended
	t.Logf("DISTRIBUTE: %v", err)
	if err == nil {
		t.Error("a table was distributed to a node without room")
	}
	disk.room()
	within(t, time.Minute, "the table is distributed after all", func() bool {
		err := console("DISTRIBUTE TABLE fullwal.public.big IN GROUP w KEY (id)")
		if err != nil {
			t.Logf("again: %v", err)
		}
		return err == nil
	})
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "fullwal"))
	if n := queryOne[int](t, c, "select count(distinct id) from big"); n != 200000 || queryOne[int](t, c, "select count(*) from big") != n {
		t.Errorf("%d rows", n)
	}
}
