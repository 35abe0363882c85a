//go:build attack

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// Two processes have one map. One is killed, or stopped, in the middle of a statement of the operator's; the other does the same
// statement; the stopped one goes on. At each step that is one statement, done once, with nothing left of the other.

// twins are a process of its own, the first, which goes through a fuse, and the second, which runs in the test.
type twins struct {
	*testing.T
	name   string
	fuse   *fuse
	cfg    config.Config
	first  *served
	second *app
	shards []*pgx.Conn // direct; the third is of a shard that the map does not have
	last   string      // the address of its node
	says   bool        // a database that was a shard's may say so still
	back   func()      // run before a statement is undone; nil: nothing
}

func newTwins(t *testing.T, name string) *twins {
	t.Helper()
	d, _, shards := distributedWorld(t, name)
	w := &twins{T: t, name: name, fuse: &fuse{conns: map[net.Conn]bool{}, left: -1, others: notOurs}, shards: shards}
	doc := mapOf(d, name)
	for i, x := range doc.Nodes {
		n := *x
		cfg, err := pgx.ParseConfig(n.DSN)
		if err != nil {
			t.Fatal(err)
		}
		n.DSN = dsnFor(cfg.User, cfg.Password, w.fuse.listen(t, net.JoinHostPort(cfg.Host, itoa(int(cfg.Port)))), cfg.Database) + "?sslmode=disable"
		doc.Nodes[i] = &n
	}
	w.last = doc.Nodes[2].DSN
	doc.Shards, doc.Nodes = doc.Shards[:2], doc.Nodes[:2]
	doc.Placements = []*shardmap.Placement{{Database: name, Group: "g", Slots: shardmap.SpreadSlots([]string{name + "_s0", name + "_s1"})}}
	doc.Version = 1
	mustExec(t, shards[2], "delete from pgmosaic.identity")
	w.cfg = crashConfig(t, doc)
	w.cfg.Resolve, w.cfg.Listen, w.cfg.HTTP = config.Duration(time.Hour), "127.0.0.1:0", "off"
	var err error
	if w.second, err = startWith(t.Context(), w.cfg, slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.second.stop(0) })
	eventually(t, "it reaches the shards", func() bool { ok, _ := w.second.Ready(); return ok })
	w.first = serveProcess(t, w.cfg)
	return w
}

// exec runs a statement on the second process, for a minute at most.
func (w *twins) exec(sql string) error {
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	for {
		_, err := w.second.Admin.Exec(ctx, strings.ReplaceAll(sql, "%s", w.name), false)
		var e interface{ SQLState() string }
		if !errors.As(err, &e) || e.SQLState() != "40001" { // it has not seen the other's change yet
			return err
		}
	}
}

// begin runs one on the first process, in the background.
func (w *twins) begin(sql string) <-chan error {
	var c *pgx.Conn
	eventually(w, "the first process serves", func() bool {
		var err error
		c, err = pgx.Connect(w.Context(), dsnFor("admin", "admin", w.first.addr, "pgmosaic"))
		return err == nil
	})
	want, err := w.second.Admin.Exec(w.Context(), "SHOW MAP AS SQL", false)
	if err != nil {
		w.Fatal(err)
	}
	eventually(w, "the first process has the newest map", func() bool {
		rows, _ := c.Query(w.Context(), "SHOW MAP AS SQL", pgx.QueryExecModeSimpleProtocol)
		have, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) { v, err := r.Values(); return fmt.Sprint(v), err })
		if err != nil {
			w.Fatal(err)
		}
		return slices.Equal(have, rowTexts(want.Rows))
	})
	eventually(w, "the first process reaches all shards", func() bool {
		rows, _ := c.Query(w.Context(), "SHOW SHARDS WHERE state <> 'up'", pgx.QueryExecModeSimpleProtocol)
		away := 0
		for rows.Next() {
			away++
		}
		return rows.Err() == nil && away == 0
	})
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(w.Context(), strings.ReplaceAll(sql, "%s", w.name), pgx.QueryExecModeSimpleProtocol)
		_ = c.Close(context.WithoutCancel(w.Context()))
		done <- err
	}()
	return done
}

func rowTexts(rows [][]any) (out []string) {
	for _, r := range rows {
		out = append(out, fmt.Sprint(r))
	}
	return out
}

// doc is the map, when no attempt is in it any more.
func (w *twins) doc(what string) *shardmap.Document {
	w.Helper()
	var doc *shardmap.Document
	eventually(w, what+": all is settled", func() bool {
		var err error
		if doc, err = filestore.New(w.cfg.Store).Load(w.Context()); err != nil {
			w.Fatal(err)
		}
		return len(doc.Attempts) == 0 && w.second.Catalog.Current().Version == doc.Version
	})
	return doc
}

// whole makes sure that the shards have what the map says, all of it and nothing else.
func (w *twins) whole(what string) {
	w.Helper()
	doc := w.doc(what)
	var made []string
	tables := map[string]bool{}
	for _, x := range doc.Tables {
		made = append(made, x.Made)
		tables[x.Schema+"."+x.Name] = true
	}
	for _, x := range doc.Tenants {
		made = append(made, x.Made)
		tables["tenant.one"] = true // on its own shard: made has one
	}
	eventually(w, what+": nobody is at it", func() bool { // transactions that were cut off end by themselves
		return !slices.ContainsFunc(w.shards, func(c *pgx.Conn) bool {
			return queryOne[bool](w, c, "select exists (select from pg_stat_activity where datname = current_database() and application_name = 'pgmosaic admin' and state <> 'idle')")
		})
	})
	for i, c := range w.shards {
		in := slices.ContainsFunc(doc.Shards, func(s *shardmap.Shard) bool { return s.Name == fmt.Sprintf("%s_s%d", w.name, i) })
		says := queryOne[string](w, c, "select coalesce((select shard from pgmosaic.identity), '')")
		if want := fmt.Sprintf("%s_s%d", w.name, i); in && says != want || !in && says != "" && !w.says {
			w.Errorf("%s: database %d says that it is %q; it is in the map: %t", what, i, says, in)
		}
		if n := queryOne[int](w, c, "select (select count(*) from pg_trigger where tgname ~ '^pgmosaic_' and tgname not in ('pgmosaic_copy', 'pgmosaic_kept')) + (select count(*) from pg_class where relname ~ '^(changed|stage)_') + (select count(*) from pg_proc where proname ~ '^changed_')"); n != 0 {
			w.Errorf("%s: %d things are left on shard %d", what, n, i)
		}
		if left := queryOne[string](w, c, "select coalesce(string_agg(relation || ' of ' || attempt, ', '), '') from pgmosaic.made where attempt <> distribution or distribution <> all ($1)", made); in && left != "" {
			w.Errorf("%s: shard %d notes copies: %s", what, i, left)
		}
		for _, table := range []string{"keyed", "keyless", "codes", "tenant.one"} {
			if !strings.Contains(table, ".") {
				table = "public." + table
			}
			has := queryOne[bool](w, c, "select to_regclass($1) is not null", table)
			if want := i == 0 || in && tables[table]; has != want {
				w.Errorf("%s: shard %d has table %s: %t", what, i, table, has)
			}
		}
	}
	// What counts at home says what is so anyway: the next DISTRIBUTE takes the row over.
	if left := queryOne[string](w, w.shards[0], "select coalesce(string_agg(coalesce(relation::text, schema, shard) || ' at ' || at, ', '), '') from pgmosaic.placed where at <> 'home' and (attempt <> distribution or distribution <> all ($1))", made); left != "" {
		w.Errorf("%s: home notes placements: %s", what, left)
	}
	if n := queryOne[int](w, w.shards[0], "select count(*) from pg_trigger where tgname = 'pgmosaic_copy' and tgrelid = 'codes'::regclass"); (n == 1) != (tables["public.codes"] && len(doc.Shards) > 1) {
		w.Errorf("%s: home's copy has %d triggers that watch it", what, n)
	}
	c := connectTo(w, dsnFor("app", "app", w.second.Server.Addr(), w.name))
	if n := queryOne[string](w, c, "select (select count(*) from keyed) || ' ' || (select count(*) from keyless) || ' ' || (select count(*) from codes) || ' ' || (select count(*) from tenant.two)"); n != "90 90 20 5" {
		w.Errorf("%s: the tables have %s rows", what, n)
	}
	mustExec(w, c, "insert into keyed values (1000, 'new'); delete from keyed where k = 1000") // its shard takes it, wherever that is
	mustExec(w, c, "insert into codes values ('new'); delete from codes where code = 'new'")
	_ = c.Close(w.Context())
	for _, x := range doc.Tables {
		res, err := w.second.Admin.Exec(w.Context(), fmt.Sprintf("VERIFY TABLE %s.%s.%s", w.name, x.Schema, x.Name), false)
		if err != nil || len(res.Rows) != 0 {
			w.Errorf("%s: VERIFY TABLE %s: %v, %v", what, x.Name, res, err)
		}
	}
	if w.Failed() {
		w.FailNow()
	}
}

// steps has the first process do a statement that stops at each of its changes. done says whether the map has what it makes; back
// undoes that, clean what then stays on the shards by design.
func (w *twins) steps(verb, back string, done func(*shardmap.DB) bool, clean func()) {
	w.Helper()
	is := func() bool { return done(w.second.Catalog.Current().Databases[w.name]) }
	for n := 0; ; n += *killEvery {
		for _, mode := range []string{"killed", "stopped", "replaced", "undone"} {
			what := fmt.Sprintf("%.12s.., %s at its change %d", verb, mode, n)
			stopped := make(chan struct{})
			w.fuse.hold(n, func() {
				if mode == "killed" { // said first: the client hears of it at once
					close(stopped)
				}
				sig := map[bool]syscall.Signal{true: syscall.SIGKILL, false: syscall.SIGSTOP}[mode == "killed"]
				if err := w.first.cmd.Process.Signal(sig); err != nil {
					w.Error(err)
				}
				if mode != "killed" {
					close(stopped)
				}
			})
			answer := w.begin(verb)
			ended := make(chan error, 1)
			var goesOn func()
			select {
			case err := <-answer:
				ended <- err
			case <-stopped:
			}
			select {
			case <-stopped:
				goesOn = w.meanwhile(mode, what, verb, answer)
			default: // it has no such change
				if err := <-ended; err != nil {
					w.Fatalf("%s: %v", what, err)
				}
			}
			w.fuse.set(-1)
			undo := func() {
				if w.back != nil {
					w.back()
				}
				if goesOn == nil {
					w.whole(what)
				}
				if err := w.exec(back); err != nil {
					w.Fatalf("%s: %s: %v", what, back, err)
				}
				clean()
			}
			if goesOn != nil {
				undo()
				goesOn()
			}
			if w.doc(what); mode != "undone" && !is() {
				w.Fatalf("%s: it is not done", what)
			}
			if is() {
				undo()
			}
			w.whole(what + ", undone")
			select {
			case <-stopped:
			default:
				return
			}
		}
	}
}

// meanwhile is what happens to a statement that has stopped. If its process is to go on later, later has it do so.
func (w *twins) meanwhile(mode, what, verb string, answer <-chan error) (later func()) {
	w.Helper()
	done := []string{"42710", "42P01", "42704", "3F000"} // somebody has done it
	once := func(err error) {
		var e interface{ SQLState() string }
		if err != nil && (!errors.As(err, &e) || !slices.Contains(done, e.SQLState())) {
			for i, c := range w.shards {
				w.Logf("shard %d: %s", i, queryOne[string](w, c, "select coalesce(string_agg(format('%s %s %s %s [%s] %s', l.mode, l.granted, l.relation::regclass, a.application_name, a.state, left(a.query, 100)), E'\\n'), '') from pg_locks l join pg_stat_activity a using (pid) where l.relation is not null and l.pid <> pg_backend_pid() and l.database = (select oid from pg_database where datname = current_database())"))
			}
			w.Fatalf("%s: by the other process: %v", what, err)
		}
	}
	switch mode {
	case "killed":
		_ = w.first.cmd.Wait()
		w.fuse.held <- false
		once(w.exec(verb))
		w.first.start(w)
		return nil
	case "replaced", "undone": // its connection to home ends
		for {
			n := queryOne[int](w, w.shards[0], "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and application_name = 'pgmosaic admin'")
			if n == 0 {
				break
			}
		}
		once(w.exec(verb))
	case "stopped":
		err := w.exec(verb)
		var e interface{ SQLState() string }
		if err != nil && (!errors.As(err, &e) || !slices.Contains(append(done, "55006"), e.SQLState())) {
			w.Fatalf("%s: by the other process: %v", what, err)
		}
	}
	goOn := func() {
		if err := w.first.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			w.Fatal(err)
		}
		w.fuse.held <- true
		select {
		case err := <-answer:
			w.Logf("%s: it is told %v", what, err)
		case <-time.After(2 * time.Minute):
			w.Fatalf("%s: it has not ended", what)
		}
	}
	if mode == "undone" {
		return goOn
	}
	goOn()
	if mode == "stopped" {
		once(w.exec(verb))
	}
	return nil
}

func TestAttackTwinsCreateAShard(t *testing.T) {
	w := newTwins(t, "twins")
	for _, verb := range []string{"DISTRIBUTE TABLE %s.public.codes AS REFERENCE", "DISTRIBUTE TABLE %s.public.keyed IN GROUP g KEY (k)"} {
		if err := w.exec(verb); err != nil {
			t.Fatal(err)
		}
	}
	w.steps("CREATE SHARD %s_s2 IN %s NODE '"+w.last+"' NAME n2", "DROP SHARD %s_s2 IN %s", func(d *shardmap.DB) bool { return len(d.Shards) == 3 }, func() {
		mustExec(t, w.shards[2], "drop table codes, keyed") // a shard that is dropped keeps what it has
	})
}

func TestAttackTwinsMoveTables(t *testing.T) {
	w := newTwins(t, "twinmoves")
	w.steps("DISTRIBUTE TABLE %s.public.keyed IN GROUP g KEY (k)", "UNDISTRIBUTE TABLE %s.public.keyed", distributed("keyed"), func() {})
	w.steps("DISTRIBUTE TABLE %s.public.keyless IN GROUP g KEY (k)", "UNDISTRIBUTE TABLE %s.public.keyless", distributed("keyless"), func() {})
	w.steps("DISTRIBUTE SCHEMA %s.tenant ON %s_s1", "UNDISTRIBUTE SCHEMA %s.tenant", func(d *shardmap.DB) bool { return d.Tenant("tenant") != nil }, func() {})
}

func TestAttackTwinsBringTablesHome(t *testing.T) {
	w := newTwins(t, "twinhomes")
	for _, x := range []struct {
		there, home string
		done        func(*shardmap.DB) bool
	}{
		{"DISTRIBUTE TABLE %s.public.codes AS REFERENCE", "UNDISTRIBUTE TABLE %s.public.codes", distributed("codes")},
		{"DISTRIBUTE TABLE %s.public.keyed IN GROUP g KEY (k)", "UNDISTRIBUTE TABLE %s.public.keyed", distributed("keyed")},
		{"DISTRIBUTE SCHEMA %s.tenant ON %s_s1", "UNDISTRIBUTE SCHEMA %s.tenant", func(d *shardmap.DB) bool { return d.Tenant("tenant") != nil }},
	} {
		if err := w.exec(x.there); err != nil {
			t.Fatal(err)
		}
		w.steps(x.home, x.there, func(d *shardmap.DB) bool { return !x.done(d) }, func() {})
	}
}

func TestAttackTwinsPinAndAdopt(t *testing.T) {
	w := newTwins(t, "twinkeys")
	for _, verb := range []string{"DISTRIBUTE TABLE %s.public.codes AS REFERENCE", "DISTRIBUTE TABLE %s.public.keyed IN GROUP g KEY (k)"} {
		if err := w.exec(verb); err != nil {
			t.Fatal(err)
		}
	}
	pinned := func(d *shardmap.DB) bool { return len(d.Placement(d.Groups["g"]).Pins) > 0 }
	for _, s := range []string{"0", "1"} {
		w.steps("PIN KEY (1000) OF %s.g ON %s_s"+s, "UNPIN KEY (1000) OF %s.g", pinned, func() {})
	}
	w.steps("ALTER SHARD %s_s1 IN %s ADOPT", "ALTER SHARD %s_s1 IN %s ADOPT", func(*shardmap.DB) bool { return true }, func() {})
}

func TestAttackTwinsDropAShard(t *testing.T) {
	w := newTwins(t, "twindrop")
	for _, verb := range []string{"DISTRIBUTE TABLE %s.public.codes AS REFERENCE", "DISTRIBUTE TABLE %s.public.keyed IN GROUP g KEY (k)"} {
		if err := w.exec(verb); err != nil {
			t.Fatal(err)
		}
	}
	create := "CREATE SHARD %s_s2 IN %s NODE '" + w.last + "' NAME n2"
	if err := w.exec(create); err != nil {
		t.Fatal(err)
	}
	w.says = true // its process died before it could tell it
	w.back = func() {
		mustExec(t, w.shards[2], "drop table codes, keyed") // a shard that is dropped keeps what it has
	}
	w.steps("DROP SHARD %s_s2 IN %s", create, func(d *shardmap.DB) bool { return len(d.Shards) == 2 }, func() {})
}

func TestAttackTwinsDropTheSecondShard(t *testing.T) {
	w := newTwins(t, "twinlast")
	for _, verb := range []string{"DROP GROUP g IN %s", "DISTRIBUTE TABLE %s.public.codes AS REFERENCE"} {
		if err := w.exec(verb); err != nil {
			t.Fatal(err)
		}
	}
	var node string
	for _, n := range w.second.Catalog.Current().Databases["twinlast"].Shards[1].Nodes {
		node = n.DSN
	}
	w.says = true
	w.back = func() { mustExec(t, w.shards[1], "drop table codes") }
	w.steps("DROP SHARD %s_s1 IN %s", "CREATE SHARD %s_s1 IN %s NODE '"+node+"' NAME n1", func(d *shardmap.DB) bool { return len(d.Shards) == 1 }, func() {})
}

// notOurs says whether another process is at the client's end of a connection: what the second process does by itself, in the background,
// is not what the first is stopped at.
func notOurs(c net.Conn) bool {
	port := c.RemoteAddr().(*net.TCPAddr).Port
	table, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		return true
	}
	for _, line := range strings.Split(string(table), "\n") {
		f := strings.Fields(line)
		if len(f) < 10 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			continue
		}
		open, _ := filepath.Glob("/proc/self/fd/*")
		return !slices.ContainsFunc(open, func(fd string) bool {
			to, err := os.Readlink(fd)
			return err == nil && to == "socket:["+f[9]+"]"
		})
	}
	return true
}

// hold has it call stop at the n-th statement, and hold that back until f.held says whether it goes on.
func (f *fuse) hold(n int, stop func()) {
	f.set(n)
	f.stop, f.held = stop, make(chan bool)
}
