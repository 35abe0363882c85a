package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func newCluster(t *testing.T) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts servers, and -short was asked for")
	}
	RemoveStale(filepath.Join(os.TempDir(), "pgmosaic-cluster-*"))
	dir, err := os.MkdirTemp("", "pgmosaic-cluster-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func one[T any](t *testing.T, n *Node, sql string) T {
	t.Helper()
	var v T
	conn, err := pgx.Connect(t.Context(), n.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestReplicasStreamPausePromoteAndDie(t *testing.T) {
	c := newCluster(t)
	ctx := t.Context()
	p, err := c.Primary(ctx, "p")
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Replica(ctx, p, "r", 0)
	if err != nil {
		t.Fatal(err)
	}
	// A server that came without pg_basebackup copies its files itself.
	byCopy, err := c.add("copied", "p")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(byCopy.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if uid, gid, ok := serverUser(); ok {
		if err := os.Chown(byCopy.dir, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := byCopy.copyBackup(ctx, p, "host=127.0.0.1 port="+itoa(p.Port)+" user="+Superuser+" password="+c.Password+" application_name=copied"); err != nil {
		t.Fatal(err)
	}
	if err := byCopy.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := byCopy.waitStreaming(ctx, p, true); err != nil {
		t.Fatal(err)
	}
	if err := r.PauseReplay(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.Exec(ctx, "postgres", "create table t as select 1 as a"); err != nil {
		t.Fatal(err)
	}
	arrived := func(n *Node) bool { return one[bool](t, n, "select to_regclass('t') is not null") }
	for end := time.Now().Add(10 * time.Second); !arrived(byCopy); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the write does not arrive at the copied replica")
		}
	}
	if arrived(r) {
		t.Error("a paused replica replays")
	}
	if err := r.ResumeReplay(ctx); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if p.Running() || alive(p.PID()) {
		t.Error("the primary lives")
	}
	if err := r.Promote(ctx); err != nil || one[bool](t, r, "select pg_is_in_recovery()") || !arrived(r) {
		t.Errorf("promotion: %v", err)
	}
	if err := p.Start(ctx); err != nil {
		t.Errorf("the killed node does not come back: %v", err)
	}
	if _, err := Open(t.Context(), Options{Dir: c.Dir}); err == nil {
		t.Error("a folder that is in use was opened")
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

// Clusters from one template are made without initdb, know the same password, and are different systems for PostgreSQL.
func TestServersFromATemplateAreSystemsOfTheirOwn(t *testing.T) {
	opts := Options{Template: filepath.Join(newCluster(t).Dir, "template"), Auth: "md5"}
	seen := map[string]string{}
	for _, name := range []string{"a", "b"} {
		opts.Dir = filepath.Join(filepath.Dir(opts.Template), "of "+name)
		c, err := Open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // the folder goes with the cluster that it is in
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		n, err := c.Primary(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		id := one[string](t, n, "select system_identifier from pg_control_system()")
		if other, twice := seen[id]; twice {
			t.Errorf("%s and %s are one system, %s", name, other, id)
		}
		seen[id] = name
		r, err := c.Replica(t.Context(), n, "r", 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := one[string](t, r, "select system_identifier from pg_control_system()"); got != id {
			t.Errorf("the replica is of system %s, its primary of %s", got, id)
		}
		made, err := filepath.Glob(filepath.Join(c.Dir, "*.pw"))
		if err != nil || len(made) > 0 {
			t.Errorf("left behind: %v, %v", made, err)
		}
		if err := n.Stop(); err != nil { // what it has written is whole: it starts again
			t.Fatal(err)
		}
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A node that is copied from a stopped one has its rows and is another system for PostgreSQL, with replicas that are copied from it.
func TestNodesAreCopied(t *testing.T) {
	ctx := t.Context()
	from := newCluster(t)
	of, err := from.Primary(ctx, "p")
	if err != nil {
		t.Fatal(err)
	}
	if err := of.Exec(ctx, "postgres", "create table t as select 1 as a"); err != nil {
		t.Fatal(err)
	}
	const system = "select system_identifier from pg_control_system()"
	seen := map[string]bool{one[string](t, of, system): true}
	refused := func(why, password string) {
		c := newCluster(t)
		c.Password = password
		if _, err := c.Copy(of); err == nil {
			t.Errorf("a node %s was copied", why)
		}
	}
	refused("that runs", from.Password)
	of.Kill()
	refused("that was killed", from.Password)
	if err := errors.Join(of.Start(ctx), of.Stop()); err != nil {
		t.Fatal(err)
	}
	refused("with another password", "another")
	for range 2 {
		c := newCluster(t)
		c.Password = from.Password
		p, err := c.Copy(of)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Replica(ctx, p, "r", 0)
		if err != nil {
			t.Fatal(err)
		}
		if p.Running() || r.Running() {
			t.Error("a copy was started")
		}
		if err := errors.Join(p.Start(ctx), r.Start(ctx)); err != nil {
			t.Fatal(err)
		}
		id := one[string](t, p, system)
		if seen[id] {
			t.Errorf("system %s is there twice", id)
		}
		seen[id] = true
		if got, err := p.System(); err != nil || got != id {
			t.Errorf("the node says that it is of system %s, its server that it is of %s: %v", got, id, err)
		}
		if got := one[string](t, r, system); got != id {
			t.Errorf("the replica is of system %s, its primary of %s", got, id)
		}
		if err := p.Exec(ctx, "postgres", "insert into t values (2)"); err != nil {
			t.Fatal(err)
		}
		if err := r.waitStreaming(ctx, p, true); err != nil {
			t.Fatal(err)
		}
		if n := one[int](t, r, "select count(*)::int from t"); n != 2 {
			t.Errorf("the replica has %d rows", n)
		}
		if err := r.Promote(ctx); err != nil {
			t.Error(err)
		}
	}
}
