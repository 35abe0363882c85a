package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// unset is the configuration of a process that has no map yet.
func unset(t *testing.T) config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.Store, cfg.Listen, cfg.HTTP = t.TempDir()+"/map.json", "127.0.0.1:0", "off"
	cfg.AdminUsers, cfg.Users = []string{"admin"}, []config.User{{Name: "app", Password: "app"}, {Name: "admin", Password: "admin"}}
	return cfg
}

// init_sql that cannot be done is not done by half: the process does not start, and the next start goes on where it stopped.
func TestInitSQLIsDoneWholly(t *testing.T) {
	t.Parallel()
	d := shop(t)
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "setup_a")
	cfg := unset(t)
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
	cfg := unset(t)
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
		note.Next = next.Text
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

// What other statements of init_sql have done, and was wrong, is taken back by the start that has the right ones: in the map and on the servers.
func TestInitSQLBeginsAnewWithOtherStatements(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a")}
	for name, x := range map[string]struct {
		wrong       []string
		code, says  string
		data        bool // the right ones distribute a table
		interrupted bool // what is taken back is cut short, and the text is what it was once more
		afresh      bool // the map is removed, with what it has made on the servers
	}{
		"wrongsecond": {[]string{"CREATE DATABASE %s", "CREATE SHARD a IN %s NODE '{b}'", "CREATE SHARD b IN %s NODE '{b}' NAME other"}, "55006", "statement 3 of 3 of init_sql, CREATE SHARD b IN wrongsecond NODE 'postgres://", false, false, false},
		"wrongnames":  {[]string{"CREATE DATABASE x%s", "CREATE SHARD b IN x%s NODE '{b}'", "CREATE SHARD x IN x%s NODE '{a}'", "CREATE GROUP g IN x%s KEY (text) BY HASH", "PIN KEY ('z') OF x%s.g ON b", "CREATE GROUP h IN x%s KEY (int) BY HASH ON (nowhere)"}, "42704", "statement 6 of 6", true, false, false},
		"wronggroup":  {[]string{"CREATE DATABASE %s", "CREATE SHARD a IN %s NODE '{a}'", "CREATE SHARD b IN %s NODE '{b}'", "CREATE GROUP g IN %s KEY (text) BY HASH", "DISTRIBUTE TABLE %s.public.things IN GROUP g KEY (k)"}, "42804", "statement 5 of 5", true, false, false},
		"wrongtwice":  {[]string{"CREATE DATABASE %s", "CREATE SHARD b IN %s NODE '{a}'", "CREATE SHARD a IN %s NODE '{b}'", "CREATE GROUP g IN %s KEY (int) BY HASH ON (nowhere)"}, "42704", "statement 4 of 4", false, true, false},
		"wrongall":    {[]string{"CREATE DATABASE %s", "CREATE SHARD b IN %s NODE '{a}'", "CREATE SHARD a IN %s NODE '{b}'", "CREATE GROUP g IN %s KEY (int) BY HASH ON (nowhere)"}, "42704", "statement 4 of 4", true, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := func(steps []string) string {
				sql := strings.ReplaceAll(strings.Join(steps, ";"), "%s", name)
				for i, n := range nodes {
					sql = strings.ReplaceAll(sql, fmt.Sprintf("{%c}", 'a'+i), n.DSN(fmt.Sprintf("%s_%c", name, 'a'+i)))
				}
				return sql
			}
			for i, n := range nodes {
				freshDatabase(t, n, fmt.Sprintf("%s_%c", name, 'a'+i))
			}
			a, b := connectTo(t, nodes[0].DSN(name+"_a")), connectTo(t, nodes[1].DSN(name+"_b"))
			mustExec(t, a, "create function public.twice(int) returns int language sql as 'select 2 * $1'; create table things (k int primary key); insert into things select generate_series(1, 10)")
			cfg := unset(t)
			fails := func(sql, code, says string) {
				t.Helper()
				cfg.InitSQL = sql
				p, err := startWith(t.Context(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
				if err == nil {
					p.stop(0)
				}
				if e := (interface{ SQLState() string })(nil); !errors.As(err, &e) || e.SQLState() != code || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), d.cluster.Password) {
					t.Fatalf("%v, want %s", err, code)
				}
			}
			for range 2 { // the second finds all but the last done
				fails(text(x.wrong), x.code, x.says)
			}
			right := []string{"CREATE DATABASE %s", "CREATE SHARD a IN %s NODE '{a}'", "CREATE SHARD b IN %s NODE '{b}'", "CREATE GROUP g IN %s KEY (int) BY HASH"}
			if x.data {
				right = append(right, "DISTRIBUTE TABLE %s.public.things IN GROUP g KEY (k)")
			}
			if x.interrupted {
				fails(text(append(slices.Clone(right[:3]), "DROP GROUP h IN %s")), "42704", "statement 4 of 4")
				store := filestore.New(cfg.Store)
				doc, err := store.Load(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				prev := doc.Version
				doc.Version, doc.Setup = prev+1, &shardmap.Setup{Undo: true} // as it is when the process is killed before anything is dropped
				if err := store.Save(t.Context(), prev, doc); err != nil {
					t.Fatal(err)
				}
			}
			if x.afresh { // docs/operating/several.md
				cfg.Store = t.TempDir() + "/map.json"
				mustExec(t, a, "drop schema pgmosaic cascade")
				mustExec(t, b, "drop schema pgmosaic cascade")
			}
			cfg.InitSQL = text(right)
			p, err := startWith(t.Context(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
			if err != nil {
				t.Fatal(err)
			}
			defer p.stop(0)
			doc := p.Catalog.Current().Document
			if len(doc.Databases) != 1 || len(doc.Shards) != 2 || len(doc.Groups) != 1 || p.Catalog.Current().Databases[name].Groups["g"].TypeList() != "integer" || len(doc.Attempts) != 0 || doc.Setup != nil {
				t.Errorf("the map is %+v", doc)
			}
			for i, c := range []*pgx.Conn{a, b} {
				if says := queryOne[string](t, c, "select database || '.' || shard from pgmosaic.identity"); says != fmt.Sprintf("%s.%c", name, 'a'+i) {
					t.Errorf("server %d says that it is %s", i, says)
				}
			}
			eventually(t, "it is ready", func() bool { ok, _ := p.Ready(); return ok })
			if n := queryOne[int](t, connectTo(t, dsnFor("app", "app", p.Addr(), name)), "select count(*) from pg_proc where proname = 'twice'"); n != 1 {
				t.Errorf("%d functions", n)
			}
		})
	}
}

// init_sql that has moved data is not taken back: what is done stays, and the text must say so.
func TestInitSQLThatHasMovedDataIsNotTakenBack(t *testing.T) {
	t.Parallel()
	node := shop(t).cluster.Node("s2-a")
	freshDatabase(t, node, "moved_a")
	mustExec(t, connectTo(t, node.DSN("moved_a")), "create table things (k int primary key)")
	cfg := unset(t)
	steps := []string{"CREATE DATABASE moved", "CREATE SHARD a IN moved NODE '" + node.DSN("moved_a") + "'", "CREATE GROUP g IN moved KEY (int) BY HASH", "DISTRIBUTE TABLE moved.public.things IN GROUP g KEY (k)", "DROP GROUP h IN moved"}
	fails := func(says ...string) {
		t.Helper()
		cfg.InitSQL = strings.Join(steps, ";")
		a, err := startWith(t.Context(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err == nil {
			a.stop(0)
			t.Fatal("it started")
		}
		for _, w := range says {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("it says nothing of %q: %v", w, err)
			}
		}
	}
	fails("statement 5 of 5 of init_sql, DROP GROUP h IN moved:", "the 4 before it are done, and have moved data")
	was := steps[2]
	steps[2] = "CREATE GROUP g IN moved KEY (bigint) BY HASH"
	fails("the first 4 statements of init_sql are done", "UNDISTRIBUTE")
	steps[2] = was
	steps = append(steps[:4], "UNDISTRIBUTE TABLE moved.public.things", "DROP GROUP g IN moved", "CREATE GROUP g IN moved KEY (bigint) BY HASH")
	cfg.InitSQL = strings.Join(steps, ";")
	a, err := startWith(t.Context(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer a.stop(0)
	if db := a.Catalog.Current().Databases["moved"]; len(db.Tables) != 0 || db.Groups["g"].TypeList() != "bigint" {
		t.Errorf("the map is %+v", a.Catalog.Current().Document)
	}
}

// What cannot be read is found before anything is done.
func TestInitSQLIsReadBeforeItIsRun(t *testing.T) {
	t.Parallel()
	cfg := unset(t)
	cfg.InitSQL = "CREATE DATABASE read; CREATE SHARD a IN read 'postgres://u:hunter2@h/d'"
	a, err := startWith(t.Context(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err == nil {
		a.stop(0)
	}
	if err == nil || !strings.Contains(err.Error(), "statement 2 of 2 of init_sql, CREATE SHARD a IN read") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
	if doc, err := filestore.New(cfg.Store).Load(t.Context()); doc != nil || err != nil {
		t.Errorf("the map is %+v, %v", doc, err)
	}
}

// Of processes that start at the same moment with one file and one init_sql, one does what it says, and the others wait for that.
func TestInitSQLIsDoneByOneProcess(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes := []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a")}
	cfg := unset(t)
	cfg.InitSQL = "CREATE DATABASE many"
	for i, n := range nodes {
		db := fmt.Sprintf("many_%d", i)
		freshDatabase(t, n, db)
		cfg.InitSQL += fmt.Sprintf("; CREATE SHARD s%d IN many NODE '%s' NAME n%[1]d", i, n.DSN(db))
	}
	mustExec(t, connectTo(t, nodes[0].DSN("many_0")), "create table things (k int primary key); insert into things select generate_series(1, 10)")
	cfg.InitSQL += "; CREATE GROUP g IN many KEY (int) BY HASH; DISTRIBUTE TABLE many.public.things IN GROUP g KEY (k)"
	var wg sync.WaitGroup
	apps, errs := make([]*app, 3), make([]error, 3)
	for i := range apps {
		wg.Go(func() { apps[i], errs[i] = startWith(t.Context(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil))) })
	}
	wg.Wait()
	for i, a := range apps {
		if errs[i] != nil {
			t.Error(errs[i])
			continue
		}
		defer a.stop(0)
		db := a.Catalog.Current().Databases["many"]
		if db == nil || len(db.Shards) != 2 || len(db.Tables) != 1 || a.Catalog.Current().Document.Setup != nil {
			t.Errorf("the map of process %d is %+v", i, a.Catalog.Current().Document)
		}
	}
}

// Nobody is let into a map that is half done, but administrators are.
func TestNobodyUsesAMapThatIsBeingSetUp(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a, err := stranger(t, nil, "CREATE DATABASE half", "CREATE SHARD a IN half NODE '"+d.cluster.Node("s1-a").DSN("shop")+"'")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Catalog.SetUp(t.Context(), &shardmap.Setup{Done: 1}); err != nil {
		t.Fatal(err)
	}
	dsn := dsnFor("app", "app", a.Addr(), "half")
	_, err = pgx.Connect(t.Context(), dsn)
	wantCode(t, err, "57P03")
	mustExec(t, connectTo(t, dsnFor("admin", "admin", a.Addr(), "pgmosaic")+"?default_query_exec_mode=simple_protocol"), "SHOW MAP")
	if err := a.Catalog.SetUp(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	mustExec(t, connectTo(t, dsn), "select 1")
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
