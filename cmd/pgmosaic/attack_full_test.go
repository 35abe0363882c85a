//go:build attack && linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// The disk of one node fills up under transactions over two shards, as their parts are prepared: each is there wholly or not at all, as
// its client is told, the shards go on serving, and with room again all goes on.
func TestAttackFullDiskOfANode(t *testing.T) {
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, NoLoad: true}) // a replica here would have its tablespace at the same place
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s1-a")}
	doc, _ := crashWorld(t, d, "full", nodes)
	defer d.forget(t, "full")
	a := startApp(t, crashConfig(t, doc))
	dir, err := testDir()
	if err != nil {
		t.Fatal(err)
	}
	defer cleanTestDir(dir)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatalf("a disk that can be filled needs a mount, which root may: %v", err)
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	fi, err := os.Stat(filepath.Join(d.cluster.Dir, "s2-a"))
	if err != nil {
		t.Fatal(err)
	}
	space := filepath.Join(dir, "space")
	owner := fi.Sys().(*syscall.Stat_t)
	if err := os.Mkdir(space, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(space, int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
	direct := connectTo(t, nodes[1].DSN("full_1"))
	other := connectTo(t, nodes[0].DSN("full_0"))
	for _, sql := range []string{
		"create tablespace small location '" + space + "'", "create table ballast (t text) tablespace small", "alter table ballast alter t set storage external",
		`create function weigh() returns trigger language plpgsql security definer as $$ begin insert into ballast values (repeat('x', 300000)); return null; end $$`,
		"create constraint trigger weigh after insert on moves deferrable initially deferred for each row execute function weigh()",
	} {
		mustExec(t, direct, sql)
	}
	defer func() {
		mustExec(t, direct, "drop trigger weigh on moves")
		mustExec(t, direct, "drop table ballast")
		mustExec(t, direct, "drop tablespace small")
	}()
	c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "full"))
	check := func(id int, told error) {
		t.Helper()
		n := queryOne[int](t, other, "select count(*) from moves where id = $1", id) + queryOne[int](t, direct, "select count(*) from moves where id = $1", id)
		if told == nil && n != 2 || told != nil && n != 0 {
			t.Errorf("transaction %d: told %v, %d of two rows are there", id, told, n)
		}
	}
	commit := func(id int) error {
		mustExec(t, c, "begin")
		for s := range 2 {
			mustExec(t, c, fmt.Sprintf("insert into moves values (%d, %d)", s, id))
		}
		_, err := c.Exec(t.Context(), "commit")
		if err != nil {
			wantCode(t, err, "53100")
		}
		return err
	}
	failed := 0
	for id := 1; failed < 3; id++ {
		if id > 40 {
			t.Fatal("the disk does not fill up")
		}
		err := commit(id)
		if err != nil {
			failed++
		}
		check(id, err)
		if n := queryOne[int](t, c, "select count(*) from moves"); n != 2*(id-failed) {
			t.Errorf("%d rows after %d transactions, of which %d failed", n, id, failed)
		}
	}
	for _, x := range []string{"full_0", "full_1"} {
		if n := queryOne[int](t, direct, "select count(*) from pg_prepared_xacts where database = $1", x); n != 0 {
			t.Errorf("%d parts are prepared in %s", n, x)
		}
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if err := commit(100); err != nil {
		t.Errorf("with room again: %v", err)
	}
	check(100, nil)
}
