package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// Two processes have one store, and an administrator each. What each is told is what happened, and the map is one that fits the shards.

// twoAdmins are two processes with one map: a database of two shards, a and b, with a table of each kind on home, and a group in which
// keys 1 to 3 are a's and the others b's.
type twoAdmins struct {
	name   string
	apps   [2]*app
	shards []*pgx.Conn // direct; the last is of a database that is no shard yet
	dsns   []string
}

func newTwoAdmins(t *testing.T, name string) *twoAdmins {
	t.Helper()
	d := shop(t)
	w := &twoAdmins{name: name}
	for i, node := range []string{"s1-a", "s2-a", "s2-a"} {
		phys := fmt.Sprintf("%s_%d", name, i)
		freshDatabase(t, d.cluster.Node(node), phys)
		w.dsns = append(w.dsns, d.cluster.Node(node).DSN(phys))
		w.shards = append(w.shards, connectTo(t, w.dsns[i]))
	}
	for _, sql := range []string{
		"create table keyed (k int primary key, v text)", "create table keyless (k int not null, v text)", "create table codes (k int primary key, v text)", "create schema tenant", "create table tenant.one (k int primary key, v text)",
	} {
		mustExec(t, w.shards[0], sql)
	}
	for _, table := range []string{"keyed", "keyless", "codes", "tenant.one"} {
		mustExec(t, w.shards[0], fmt.Sprintf("insert into %s select i, 'v' || i from generate_series(1, 6) i", table))
		mustExec(t, w.shards[0], "alter table "+table+" owner to app")
	}
	mustExec(t, w.shards[0], "grant usage on schema tenant to app")
	first, err := stranger(t, nil, "CREATE DATABASE "+name, fmt.Sprintf("CREATE SHARD a IN %s NODE '%s'", name, w.dsns[0]), fmt.Sprintf("CREATE SHARD b IN %s NODE '%s'", name, w.dsns[1]),
		"CREATE GROUP g IN "+name+" KEY (int) BY LIST ((1, 2, 3) ON a, (4, 5, 6) ON b)")
	if err != nil {
		t.Fatal(err)
	}
	cfg := first.cfg
	cfg.Direct.Setup = nil
	second, err := startWith(t.Context(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.stop(0) })
	w.apps = [2]*app{first, second}
	for _, a := range w.apps {
		eventually(t, "both reach the shards", func() bool { ok, _ := a.Ready(); return ok })
	}
	return w
}

// exec runs an admin statement on one of the processes; %s is the database.
func (w *twoAdmins) exec(t *testing.T, on int, sql string) error {
	t.Helper()
	_, err := w.apps[on].Admin.Exec(t.Context(), strings.ReplaceAll(sql, "%s", w.name), false)
	return err
}

// agree waits until both processes have the newest map.
func (w *twoAdmins) agree(t *testing.T) *shardmap.Document {
	t.Helper()
	var doc *shardmap.Document
	eventually(t, "both have the newest map", func() bool {
		var err error
		if doc, err = filestore.New(w.apps[0].cfg.Store).Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		return w.apps[0].Catalog.Current().Version == doc.Version && w.apps[1].Catalog.Current().Version == doc.Version
	})
	if _, err := shardmap.Compile(doc); err != nil {
		t.Fatalf("no process can take the map into use: %v", err)
	}
	return doc
}

// whole makes sure that each table has its six rows, for whoever asks for one or for all, through either process.
func (w *twoAdmins) whole(t *testing.T) {
	t.Helper()
	w.agree(t)
	for i, a := range w.apps {
		c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), w.name))
		for _, table := range []string{"keyed", "keyless", "codes", "tenant.one"} {
			if n := queryOne[int](t, c, "select count(*) from "+table); n != 6 {
				t.Errorf("process %d: %s has %d rows", i, table, n)
			}
			for k := 1; k <= 6; k++ {
				if n := queryOne[int](t, c, fmt.Sprintf("select count(*) from %s where k = %d and v = 'v%[2]d'", table, k)); n != 1 {
					t.Errorf("process %d: %s has key %d %d times", i, table, k, n)
				}
			}
		}
		_ = c.Close(t.Context())
	}
	for _, x := range w.agree(t).Tables {
		res, err := w.apps[0].Admin.Exec(t.Context(), fmt.Sprintf("VERIFY TABLE %s.%s.%s", w.name, x.Schema, x.Name), false)
		if err != nil {
			t.Errorf("VERIFY TABLE %s: %v", x.Name, err)
		} else if s := fmt.Sprint(res.Rows); strings.Contains(s, "differs") || strings.Contains(s, "missing") || strings.Contains(s, "wrong") {
			t.Errorf("VERIFY TABLE %s: %s", x.Name, s)
		}
	}
}

// underAMove is a statement that moves rows, which has looked at the map and at the shards when another process changes what it goes by.
type underAMove struct{ move, table, change string }

func TestKeyIsPinnedUnderAMove(t *testing.T) {
	t.Parallel()
	mapChanges(t, "pinned", underAMove{"DISTRIBUTE TABLE %s.public.keyed IN GROUP g KEY (k)", "keyed", "PIN KEY (1) OF %s.g ON b"})
}

func mapChanges(t *testing.T, name string, x underAMove) {
	t.Helper()
	w := newTwoAdmins(t, name)
	tx, err := w.shards[0].Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "lock table "+x.table+" in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	var moved, changed error
	var both sync.WaitGroup
	both.Go(func() { moved = w.exec(t, 0, x.move) })
	watch := connectTo(t, w.dsns[0])
	eventually(t, "the move waits for the table", func() bool {
		return queryOne[bool](t, watch, "select exists (select from pg_locks where not granted and relation = $1::regclass)", x.table)
	})
	changed = w.exec(t, 1, strings.ReplaceAll(x.change, "{c}", w.dsns[2]))
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	both.Wait()
	t.Logf("the move: %v; the change: %v", moved, changed)
	if moved != nil && changed != nil {
		t.Error("neither was done")
	}
	w.whole(t)
	if moved != nil { // it can be done again, by either
		if err := w.exec(t, 1, x.move); err != nil && !strings.HasPrefix(x.change, "DROP GROUP") {
			t.Errorf("once more: %v", err)
		}
		w.whole(t)
	}
}
