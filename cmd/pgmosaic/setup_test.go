package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// init_sql that cannot be done is not done by half: the process does not start, and the next start goes on where it stopped.
func TestInitSQLIsDoneWholly(t *testing.T) {
	t.Parallel()
	d := shop(t)
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "setup_a")
	cfg := config.Default()
	cfg.Store, cfg.Listen, cfg.HTTP = t.TempDir()+"/map.json", "127.0.0.1:0", "off"
	cfg.AdminUsers, cfg.Users = []string{"admin"}, []config.User{{Name: "app", Password: "app"}, {Name: "admin", Password: "admin"}}
	cfg.InitSQL = fmt.Sprintf("CREATE DATABASE setup; CREATE SHARD a IN setup NODE '%s'; CREATE SHARD b IN setup NODE '%s'; CREATE GROUP g IN setup KEY (int) BY HASH;", node.DSN("setup_a"), node.DSN("setup_b"))
	open := func() (*app, error) {
		return startWith(t.Context(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	}
	for range 2 {
		if a, err := open(); err == nil {
			ok, why := a.Ready()
			a.stop(0)
			t.Fatalf("it started without its second shard (ready: %t, %s)", ok, why)
		}
	}
	freshDatabase(t, node, "setup_b")
	was := cfg.InitSQL
	cfg.InitSQL = strings.Replace(was, "DATABASE setup;", "DATABASE another;", 1)
	if a, err := open(); err == nil || !strings.Contains(err.Error(), "are not what they were") {
		if a != nil {
			a.stop(0)
		}
		t.Errorf("another init_sql on the half of this one: %v", err)
	}
	cfg.InitSQL = was
	for range 2 { // the second finds it done
		a, err := open()
		if err != nil {
			t.Fatal(err)
		}
		db := a.Catalog.Current().Databases["setup"]
		if db == nil || len(db.Shards) != 2 || db.Groups["g"] == nil || a.Catalog.Current().Document.Setup != nil {
			t.Errorf("the map is %+v", a.Catalog.Current().Document)
		}
		eventually(t, "it is ready", func() bool { ok, _ := a.Ready(); return ok })
		a.stop(0)
	}
}

// A process that dies when a statement of init_sql is done, and that is not noted yet, does not do it again; nor does it take a second
// statement of the same name for one that is done.
func TestInitSQLIsDoneOnce(t *testing.T) {
	t.Parallel()
	d := shop(t)
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "once_a")
	freshDatabase(t, d.cluster.Node("s1-a"), "once_b")
	mustExec(t, connectTo(t, node.DSN("once_a")), "create table things (k text primary key, v int); insert into things values ('a', 1), ('b', 2), ('c', 3); create table whole (k int primary key)")
	steps := []string{
		"CREATE DATABASE once", "CREATE SHARD a IN once NODE '" + node.DSN("once_a") + "'", "CREATE SHARD b IN once NODE '" + d.cluster.Node("s1-a").DSN("once_b") + "'",
		"CREATE GROUP g IN once KEY (text) BY LIST (('a') ON a, ('b') ON b)", "ALTER GROUP g IN once ADD VALUES ('c') ON b", "DISTRIBUTE TABLE once.public.things IN GROUP g KEY (k)",
		"DISTRIBUTE TABLE once.public.whole AS REFERENCE", "PIN KEY ('z') OF once.g ON a", "UNDISTRIBUTE TABLE once.public.whole", "SHOW TABLES",
	}
	cfg := config.Default()
	cfg.Store, cfg.Listen, cfg.HTTP = t.TempDir()+"/map.json", "127.0.0.1:0", "off"
	cfg.AdminUsers, cfg.Users = []string{"admin"}, []config.User{{Name: "app", Password: "app"}, {Name: "admin", Password: "admin"}}
	store := filestore.New(cfg.Store)
	stops := func(sql []string, code string) *shardmap.Document {
		t.Helper()
		cfg.InitSQL = strings.Join(sql, "; ")
		a, err := startWith(t.Context(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err == nil {
			a.stop(0)
		}
		if e := (interface{ SQLState() string })(nil); !errors.As(err, &e) || e.SQLState() != code {
			t.Fatalf("%s: %v, want %s", sql[len(sql)-1], err, code)
		}
		doc, err := store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	const missing = "DROP GROUP missing IN once"
	note := stops([]string{missing}, "3D000").Setup
	for i := range steps {
		doc := stops(append(slices.Clone(steps[:i+1]), missing), "42704")
		next := doc.Setup
		doc.Setup = note // as it is when the process is killed before it notes that the step is done
		doc.Version++
		if err := store.Save(t.Context(), doc.Version-1, doc); err != nil {
			t.Fatal(err)
		}
		note = next
	}
	for range 2 {
		stops(append(slices.Clone(steps), "CREATE GROUP g IN once KEY (int) BY HASH"), "42710")
	}
	cfg.InitSQL = strings.Join(steps, "; ")
	a, err := startWith(t.Context(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer a.stop(0)
	if db := a.Catalog.Current().Databases["once"]; len(db.Shards) != 2 || len(db.Tables) != 1 || len(db.Placement(db.Groups["g"]).Lists) != 3 || a.Catalog.Current().Document.Setup != nil {
		t.Errorf("the map is %+v", a.Catalog.Current().Document)
	}
}

// A process whose databases have no shard is not ready: every client would be refused.
func TestDatabaseWithoutAShardIsNotReady(t *testing.T) {
	t.Parallel()
	needServers(t)
	a, err := stranger(t, nil, "CREATE DATABASE empty")
	if err != nil {
		t.Fatal(err)
	}
	if ok, why := a.Ready(); ok || why != "database empty has no shard" {
		t.Errorf("ready: %t, %s", ok, why)
	}
}
