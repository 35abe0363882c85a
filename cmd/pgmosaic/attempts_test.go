package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// A statement may drop, empty or alter on the shards only what it has made itself. These tests let processes loose on shards that
// have another map than the process that distributed the tables: none, an older one, one that was copied while a table moved.

// shardState is all that the shards of a database hold besides pgmosaic's own schema: of each table its rows, columns, constraints,
// indexes, triggers and owner.
func shardState(t testing.TB, conns ...*pgx.Conn) string {
	t.Helper()
	var b strings.Builder
	for i, c := range conns {
		rows, err := c.Query(t.Context(), `select format('%I.%I', n.nspname, r.relname), r.relkind::text, concat_ws(' | ', r.oid, r.relowner::regrole, r.relrowsecurity,
			  (select string_agg(conname || ' ' || pg_get_constraintdef(oid), ', ' order by conname) from pg_constraint where conrelid = r.oid),
			  (select string_agg(indexrelid::regclass::text, ', ' order by 1) from pg_index where indrelid = r.oid),
			  (select string_agg(tgname || tgenabled::text, ', ' order by 1) from pg_trigger where tgrelid = r.oid and not tgisinternal))
			from pg_class r join pg_namespace n on n.oid = r.relnamespace where r.relkind in ('r', 'p', 'S') and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmosaic') order by 1`)
		if err != nil {
			t.Fatal(err)
		}
		type table struct{ Name, Kind, Form string }
		list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			count := "select count(*) || ' ' || coalesce(md5(string_agg(x::text, ',' order by x::text)), '') from %s x"
			if x.Kind == "S" {
				count = "select format('%%s %%s', last_value, is_called) from %s"
			}
			sum := queryOne[string](t, c, fmt.Sprintf(count, x.Name))
			fmt.Fprintf(&b, "shard %d: %s: %s: %s\n", i, x.Name, x.Form, sum)
		}
	}
	return b.String()
}

// diffLines are the lines that only one of two texts has.
func diffLines(was, is string) string {
	var out []string
	for _, x := range []struct{ sign, text, other string }{{"- ", was, is}, {"+ ", is, was}} {
		for line := range strings.Lines(x.text) {
			if !strings.Contains(x.other, line) {
				out = append(out, x.sign+line)
			}
		}
	}
	return strings.Join(out, "")
}

// stranger starts a process of its own over a map: doc, or none for nil, and steps that make one.
func stranger(t testing.TB, doc *shardmap.Document, steps ...string) (*app, error) {
	t.Helper()
	return strangerTelling(t, io.Discard, doc, steps...)
}

// strangerTelling is stranger with a log.
func strangerTelling(t testing.TB, log io.Writer, doc *shardmap.Document, steps ...string) (*app, error) {
	t.Helper()
	cfg := config.Default()
	cfg.Store, cfg.Listen, cfg.HTTP = t.TempDir()+"/map.json", "127.0.0.1:0", "off"
	cfg.AdminUsers, cfg.Users = []string{"admin"}, []config.User{{Name: "app", Password: "app"}, {Name: "admin", Password: "admin"}}
	cfg.Direct.Setup = steps
	if doc != nil {
		if err := filestore.New(cfg.Store).Save(t.Context(), 0, doc); err != nil {
			t.Fatal(err)
		}
	}
	a, err := startWith(t.Context(), cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err == nil {
		t.Cleanup(func() { a.stop(0) })
	}
	return a, err
}

// undistributed is the map of a database as it was before anything was distributed.
func undistributed(d *demo, name string) *shardmap.Document {
	doc := mapOf(d, name)
	doc.Tables, doc.Tenants, doc.Attempts = nil, nil, nil
	return doc
}

// distributedWorld is a database of three shards with a table of each kind, some of them distributed, and its connections.
func distributedWorld(t *testing.T, name string) (d *demo, c *pgx.Conn, shards []*pgx.Conn) {
	t.Helper()
	d, c = schemesWorld(t, name)
	for _, sql := range []string{
		"create table keyed (k int primary key, v text, n serial)", "create table keyless (k int, v text)", "create table codes (code text primary key)", "create table parts (k int, at int, primary key (k, at)) partition by range (at)",
		"create table parts_1 partition of parts for values from (0) to (50)", "create table parts_2 partition of parts for values from (50) to (100)", "create schema tenant", "create table tenant.one (a int primary key)", "create table tenant.two (a int references tenant.one)",
		"insert into keyed select i, 'v' || i from generate_series(1, 90) i", "insert into keyless select i, 'v' || i from generate_series(1, 90) i", "insert into codes select 'c' || i from generate_series(1, 20) i",
		"insert into parts select i, i % 100 from generate_series(1, 90) i", "insert into tenant.one select generate_series(1, 5)", "insert into tenant.two select generate_series(1, 5)",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN "+name+" KEY (int) BY HASH")
	for i := range 3 {
		shards = append(shards, d.on(t, name, i))
	}
	return d, c, shards
}

var distributions = []string{
	"DISTRIBUTE TABLE %s.public.keyed IN GROUP g KEY (k)", "DISTRIBUTE TABLE %s.public.keyless IN GROUP g KEY (k)", "DISTRIBUTE TABLE %s.public.parts IN GROUP g KEY (k)",
	"DISTRIBUTE TABLE %s.public.codes AS REFERENCE", "DISTRIBUTE SCHEMA %s.tenant ON %[1]s_s1",
}

// A process without the map is told by its init_sql to distribute what is distributed, as after the loss of a map file: it is
// refused, and nothing is gone.
func TestProcessWithoutTheMapThatSetsItUpAgain(t *testing.T) {
	t.Parallel()
	d := shop(t)
	node := d.cluster.Node("s2-a")
	var shards []*pgx.Conn
	for _, phys := range []string{"again_a", "again_b"} {
		freshDatabase(t, node, phys)
		shards = append(shards, connectTo(t, node.DSN(phys)))
	}
	mustExec(t, shards[0], "create table t (id bigint primary key)")
	mustExec(t, shards[0], "insert into t select generate_series(1, 1000)")
	steps := []string{
		"CREATE DATABASE big", fmt.Sprintf("CREATE SHARD a IN big NODE '%s'", node.DSN("again_a")), fmt.Sprintf("CREATE SHARD b IN big NODE '%s'", node.DSN("again_b")),
		"CREATE GROUP g IN big KEY (bigint) BY HASH", "DISTRIBUTE TABLE big.public.t IN GROUP g KEY (id)",
	}
	first, err := stranger(t, nil, steps...)
	if err != nil {
		t.Fatal(err)
	}
	first.stop(0)
	was := shardState(t, shards...)
	if strings.Count(was, "public.t:") != 2 {
		t.Fatalf("it was not distributed:\n%s", was)
	}
	for range 2 {
		if _, err := stranger(t, nil, steps...); err == nil || !strings.Contains(err.Error(), "is in use") {
			t.Errorf("the second set-up ended with %v", err)
		}
		if after := shardState(t, shards...); after != was {
			t.Fatalf("changed:\n%s", diffLines(was, after))
		}
	}
}

// No verb of a process with a map of its own touches what another one has distributed.
func TestVerbsOfAProcessWithAnotherMap(t *testing.T) {
	t.Parallel()
	d, _, shards := distributedWorld(t, "foreign")
	for _, verb := range distributions {
		d.adminExec(t, fmt.Sprintf(verb, "foreign"))
	}
	for i, c := range shards { // each gives ids of its own still
		if n := queryOne[int](t, c, "select (pgmosaic.next_id() >> 22) & 1023"); n != i {
			t.Errorf("shard %d gives the ids of shard %d", i, n)
		}
	}
	was := shardState(t, shards...)
	same := func(after string) {
		t.Helper()
		if now := shardState(t, shards...); now != was {
			t.Fatalf("changed by %s:\n%s", after, diffLines(was, now))
		}
	}
	refused := func(a *app, verb string) {
		t.Helper()
		_, err := a.Admin.Exec(t.Context(), verb, false)
		var e interface{ SQLState() string }
		if !errors.As(err, &e) || e.SQLState() != "55000" && e.SQLState() != "0A000" {
			t.Errorf("%s: %v, want a refusal", verb, err)
		}
		same(verb)
	}
	bare, err := stranger(t, undistributed(d, "foreign"))
	if err != nil {
		t.Fatal(err)
	}
	same("its set-up")
	for _, verb := range distributions {
		for _, dry := range []string{" DRY RUN", ""} {
			refused(bare, fmt.Sprintf(verb, "foreign")+dry)
		}
	}
	for _, verb := range []string{
		"DISTRIBUTE TABLE foreign.public.keyed AS REFERENCE", "DISTRIBUTE TABLE foreign.public.codes IN GROUP t KEY (code)", "DISTRIBUTE SCHEMA foreign.tenant ON foreign_s2", "DISTRIBUTE SCHEMA foreign.tenant ON foreign_s0",
	} {
		if strings.Contains(verb, "GROUP t") {
			if _, err := bare.Admin.Exec(t.Context(), "CREATE GROUP t IN foreign KEY (text) BY HASH", false); err != nil {
				t.Fatal(err)
			}
		}
		refused(bare, verb)
	}
	if err := bare.Mover.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	same("its recovery")
	// One that declares the same tables, by another distribution.
	doc := mapOf(d, "foreign")
	doc.Tables, doc.Tenants = nil, nil
	for _, x := range d.Catalog.Current().Document.Tables {
		if x.Database == "foreign" {
			y := *x
			y.Made = "another"
			doc.Tables = append(doc.Tables, &y)
		}
	}
	doc.Tenants = []*shardmap.Tenant{{Database: "foreign", Schema: "tenant", Shard: "foreign_s1", Made: "another"}}
	other, err := stranger(t, doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{
		"UNDISTRIBUTE TABLE foreign.public.keyed", "UNDISTRIBUTE TABLE foreign.public.keyless", "UNDISTRIBUTE TABLE foreign.public.parts", "UNDISTRIBUTE TABLE foreign.public.codes", "UNDISTRIBUTE SCHEMA foreign.tenant",
		"PIN KEY (1000) OF foreign.g ON foreign_s2",
	} {
		refused(other, verb)
	}
	// A shard is created on a database that is another map's shard.
	doc = mapOf(d, "foreign")
	doc.Tenants, doc.Attempts = nil, nil
	doc.Shards, doc.Nodes = doc.Shards[:2], doc.Nodes[:2]
	doc.Groups, doc.Placements, doc.Tables = nil, nil, only(doc.Tables, func(x *shardmap.Table) bool { return x.Name == "codes" })
	two, err := stranger(t, doc)
	if err != nil {
		t.Fatal(err)
	}
	refused(two, fmt.Sprintf("CREATE SHARD foreign_s2 IN foreign NODE '%s' NAME n", shards[2].Config().ConnString()))
}

// What a shard has of its own is not taken for a copy, nor what a copy needs: tables, empty ones too, and sequences.
func TestWhatAShardHasOfItsOwnStays(t *testing.T) {
	t.Parallel()
	d, c, shards := distributedWorld(t, "own")
	mustExec(t, c, "delete from keyless; delete from codes; alter table keyless add foreign key (v) references codes")
	for _, x := range []struct{ own, drop, verb, code string }{
		{"create table keyed (other text)", "table keyed", distributions[0], "55000"},
		{"create sequence keyed_n_seq start with 77", "sequence keyed_n_seq", distributions[0], "55000"},
		{"create view codes as select 1", "view codes", distributions[3], "55000"},
		{"create table parts_2 (n int)", "table parts_2", distributions[2], "42P07"},
		{"create schema if not exists tenant; create table tenant.two (n int)", "table tenant.two", distributions[4], "55000"},
	} {
		mustExec(t, shards[1], x.own)
		was := shardState(t, shards...)
		_, err := d.Admin.Exec(t.Context(), fmt.Sprintf(x.verb, "own"), false)
		var e interface{ SQLState() string }
		if !errors.As(err, &e) || e.SQLState() != x.code {
			t.Errorf("%s beside %s: %v", x.verb, x.own, err)
		}
		if now := shardState(t, shards...); now != was {
			t.Errorf("%s beside %s changed:\n%s", x.verb, x.own, diffLines(was, now))
		}
		mustExec(t, shards[1], "drop "+x.drop)
	}
	// A table that has the name of a copy, and not its OID, is nobody's to drop.
	d.adminExec(t, fmt.Sprintf(distributions[3], "own"))
	mustExec(t, shards[1], "alter table codes rename to moved; create table codes (code text); insert into codes values ('mine')")
	was := shardState(t, shards...)
	if _, err := d.Admin.Exec(t.Context(), "UNDISTRIBUTE TABLE own.public.codes", false); err == nil {
		t.Error("a table of the name of a copy was taken for it")
	}
	if now := shardState(t, shards...); now != was {
		t.Errorf("changed:\n%s", diffLines(was, now))
	}
	mustExec(t, shards[1], "drop table codes; alter table moved rename to codes")
	// A copy that others refer to is not taken away in the middle.
	d.adminExec(t, fmt.Sprintf(distributions[1], "own"))
	was = shardState(t, shards...)
	_, err := d.Admin.Exec(t.Context(), "UNDISTRIBUTE TABLE own.public.codes", false)
	var e interface{ SQLState() string }
	if !errors.As(err, &e) || e.SQLState() != "2BP01" {
		t.Errorf("the table that others refer to: %v", err)
	}
	if now := shardState(t, shards...); now != was {
		t.Errorf("changed:\n%s", diffLines(was, now))
	}
	d.adminExec(t, "UNDISTRIBUTE TABLE own.public.keyless")
	d.adminExec(t, "UNDISTRIBUTE TABLE own.public.codes")
}

// Processes that start with any map that there ever was, or with one that a live process is about to leave, change nothing: not by
// what they find unfinished in it, and not by their verbs.
func TestProcessesWithOlderMaps(t *testing.T) {
	t.Parallel()
	d, c, shards := distributedWorld(t, "stale")
	var mu sync.Mutex
	var maps []*shardmap.Document
	d.Catalog.OnChange(func(s *shardmap.Snapshot) {
		mu.Lock()
		defer mu.Unlock()
		maps = append(maps, ofDatabase(s.Document, "stale"))
	})
	rows := func() string {
		var out []string
		for _, table := range []string{"keyed", "keyless", "codes", "parts", "tenant.one", "tenant.two"} {
			out = append(out, table+" "+queryOne[string](t, c, "select count(*) || ' ' || coalesce(md5(string_agg(x::text, ',' order by x::text)), '') from "+table+" x"))
		}
		return strings.Join(out, ", ")
	}
	want := rows()
	all := func(step string) {
		t.Helper()
		mu.Lock()
		docs := slices.Clone(maps)
		mu.Unlock()
		was := shardState(t, shards...)
		for _, doc := range docs {
			if len(doc.Attempts) == 0 {
				continue // nothing is unfinished in it
			}
			a, err := stranger(t, doc)
			if err != nil {
				t.Fatal(err)
			}
			upgrade, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // it would go on as long as a shard is not of its map
			_ = a.Mover.RunUpgrade(upgrade, 50*time.Millisecond)
			cancel()
			if now := shardState(t, shards...); now != was {
				t.Fatalf("after %s a process that began with version %d changed:\n%s", step, doc.Version, diffLines(was, now))
			}
			a.stop(0)
		}
	}
	home := func(verbs ...string) {
		for _, verb := range verbs {
			d.adminExec(t, "UNDISTRIBUTE "+verb)
		}
	}
	for _, verb := range distributions {
		d.adminExec(t, fmt.Sprintf(verb, "stale"))
	}
	home("TABLE stale.public.keyed", "TABLE stale.public.codes", "SCHEMA stale.tenant")
	for _, verb := range distributions {
		if !strings.Contains(verb, "keyless") && !strings.Contains(verb, "parts") { // the others under their names once more
			d.adminExec(t, fmt.Sprintf(verb, "stale"))
		}
	}
	freshDatabase(t, d.cluster.Node("s2-a"), "stale_3")
	d.adminExec(t, "CREATE SHARD stale_s3 IN stale NODE '"+d.cluster.Node("s2-a").DSN("stale_3")+"' NAME stale_n3")
	shards = append(shards, connectTo(t, d.cluster.Node("s2-a").DSN("stale_3")))
	all("the distribution")
	home("TABLE stale.public.keyed", "TABLE stale.public.keyless", "TABLE stale.public.codes", "TABLE stale.public.parts", "SCHEMA stale.tenant")
	all("all are home")
	if now := rows(); now != want {
		t.Errorf("rows were %s and are %s", want, now)
	}
}

// A process that starts while another one moves a table leaves the move alone, and so do its verbs.
func TestProcessThatStartsWhileATableMoves(t *testing.T) {
	t.Parallel()
	d, _, shards := distributedWorld(t, "twin")
	bare, err := stranger(t, undistributed(d, "twin"))
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"DISTRIBUTE TABLE twin.public.keyed IN GROUP g KEY (k)", "DISTRIBUTE TABLE twin.public.keyless IN GROUP g KEY (k)"} {
		table := strings.Fields(strings.ReplaceAll(verb, ".", " "))[4]
		hold, err := shards[2].Begin(t.Context()) // a table of that name, not yet committed: the last copy waits for it
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hold.Exec(t.Context(), "create table "+table+" (id int)"); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := d.Admin.Exec(t.Context(), verb, false)
			done <- err
		}()
		eventually(t, "a copy is made", func() bool {
			return queryOne[bool](t, shards[1], "select to_regclass($1) is not null", "public."+table)
		})
		was := shardState(t, shards[1]) // home may be locked
		twin, err := stranger(t, mapOf(d, "twin"))
		if err != nil {
			t.Fatal(err)
		}
		var told [2]error
		var tries sync.WaitGroup
		for i, other := range []*app{twin, bare} { // at once: the move waits for its last copy for a bounded time
			tries.Go(func() { _, told[i] = other.Admin.Exec(t.Context(), verb, false) })
		}
		tries.Wait()
		var e interface{ SQLState() string }
		if !errors.As(told[0], &e) || e.SQLState() != "55006" {
			t.Errorf("%s on the other process: %v", verb, told[0])
		}
		if !errors.As(told[1], &e) || e.SQLState() != "55006" && e.SQLState() != "55000" {
			t.Errorf("%s on a process without the map: %v", verb, told[1])
		}
		if now := shardState(t, shards[1]); now != was {
			t.Fatalf("changed beside %s:\n%s", verb, diffLines(was, now))
		}
		if err := hold.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", verb, err)
		}
		twin.stop(0)
	}
	if n := queryOne[int](t, connectTo(t, dsnFor("app", "app", d.Server.Addr(), "twin")), "select (select count(*) from keyed) + (select count(*) from keyless)"); n != 180 {
		t.Errorf("%d rows, want 180", n)
	}
}

// fuse is a network to the shards that goes down for good before a statement that changes something: for them it is the same as
// if the process had been killed then, and behind the statement before.
type fuse struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
	dead  bool
	left  int // statements to come before it blows; negative: it does not

	others func(net.Conn) bool // whether a client's statements are counted; nil: everybody's
	stop   func()              // is called in place of blowing
	held   chan bool           // whether the statement at which it was goes on
}

var changes = regexp.MustCompile(`(?i)^\s*(create|alter|drop|insert|update|delete|truncate|lock|copy|commit|grant|revoke|select pg_advisory_lock)`)

// set makes it whole, and has it blow at the n-th statement.
func (f *fuse) set(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead, f.left = false, n
}

func (f *fuse) blown() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// at says whether a statement is the one.
func (f *fuse) at(typ byte, msg []byte) bool {
	var text []byte
	switch typ {
	case 'Q':
		text = msg[5:]
	case 'P':
		_, text, _ = bytes.Cut(msg[5:], []byte{0})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !changes.Match(text) || f.left < 0 {
		return false
	}
	f.left--
	return f.left < 0
}

func (f *fuse) blow() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = true
	for c := range f.conns {
		_ = c.Close()
	}
	clear(f.conns)
}

func (f *fuse) listen(t testing.TB, to string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			f.mu.Lock()
			if err != nil || f.dead {
				f.mu.Unlock()
				_ = c.Close()
				if s != nil {
					_ = s.Close()
				}
				continue
			}
			f.conns[c], f.conns[s] = true, true
			f.mu.Unlock()
			counted := f.others == nil || f.others(c)
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, s)
			})
			wg.Go(func() {
				defer s.Close()
				for first := true; ; first = false {
					typ, msg, err := readMessage(c, first)
					if err != nil {
						return
					}
					if !first && counted && f.at(typ, msg) {
						if f.stop == nil {
							f.blow()
							return
						}
						f.stop()
						select {
						case on := <-f.held:
							if !on {
								return
							}
						case <-t.Context().Done():
							return
						}
					}
					if _, err := s.Write(msg); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		f.blow()
		wg.Wait()
	})
	return l.Addr().String()
}

// killing has verbs of a process cut off at each of their statements, and checks what the next start makes of it.
type killing struct {
	shards     []*pgx.Conn
	last       string // the address of a shard's node that the map does not have
	distribute func(verb string)

	// steps cuts verb off at each statement. declared says whether the map has what it makes, back undoes it; with copies each shard that has
	// the table has all its rows.
	steps func(verb, back, table string, copies bool, declared func(*shardmap.DB) bool, undone func())
}

// killEvery is the distance between the changes that a verb is cut off at.
var killEvery = flag.Int("kill.every", 15, "TestKilledWhileTables..: cut off at each so manieth change")

// killedWhile lets verbs loose on a database of two shards.
func killedWhile(t *testing.T, verbs func(k *killing)) {
	t.Helper()
	d, _, shards := distributedWorld(t, "killed")
	f := &fuse{conns: map[net.Conn]bool{}, left: -1}
	doc := mapOf(d, "killed")
	for i, x := range doc.Nodes {
		n := *x
		cfg, err := pgx.ParseConfig(n.DSN)
		if err != nil {
			t.Fatal(err)
		}
		n.DSN = dsnFor(cfg.User, cfg.Password, f.listen(t, net.JoinHostPort(cfg.Host, itoa(int(cfg.Port)))), cfg.Database) + "?sslmode=disable"
		doc.Nodes[i] = &n
	}
	last := doc.Nodes[2].DSN
	doc.Shards, doc.Nodes = doc.Shards[:2], doc.Nodes[:2]
	doc.Placements = []*shardmap.Placement{{Database: "killed", Group: "g", Slots: shardmap.SpreadSlots([]string{"killed_s0", "killed_s1"})}}
	doc.Version = 1
	store := t.TempDir() + "/map.json"
	if err := filestore.New(store).Save(t.Context(), 0, doc); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Store, cfg.Listen, cfg.HTTP, cfg.Resolve = store, "127.0.0.1:0", "off", config.Duration(time.Hour)
	cfg.AdminUsers, cfg.Users = []string{"admin"}, []config.User{{Name: "app", Password: "app"}, {Name: "admin", Password: "admin"}}
	begin := func() *app {
		a, err := startWith(t.Context(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	reached := func(a *app) { // a statement waits for a primary for seconds, which is little on a busy machine
		t.Helper()
		eventually(t, "the shards are reached", func() bool { _, why := a.Ready(); return why == "" })
	}
	union := func(table string) string {
		var all []string
		for _, c := range shards {
			if queryOne[bool](t, c, "select to_regclass($1) is not null", table) {
				all = append(all, queryOne[string](t, c, "select coalesce(string_agg(x::text, ',' order by x::text), '') from "+table+" x"))
			}
		}
		list := strings.FieldsFunc(strings.Join(all, ","), func(r rune) bool { return r == '(' || r == ')' })
		list = slices.DeleteFunc(list, func(x string) bool { return x == "," })
		slices.Sort(list)
		return strings.Join(list, " ")
	}
	points := 0
	check := func(what, table string, copies bool, want string) {
		t.Helper()
		got := union(table)
		if copies { // each shard that has it has all
			list := strings.Fields(got)
			got = strings.Join(slices.Compact(list), " ")
		}
		if got != want {
			t.Fatalf("%s: the rows are\n%s\nnot\n%s", what, got, want)
		}
		for i, c := range shards {
			if n := queryOne[int](t, c, "select (select count(*) from pg_trigger where tgname ~ '^pgmosaic_' and tgname not in ('pgmosaic_copy', 'pgmosaic_kept')) + (select count(*) from pg_class where relname ~ '^changed_') + (select count(*) from pg_proc where proname ~ '^changed_')"); n != 0 {
				t.Errorf("%s: %d things are left on shard %d", what, n, i)
			}
		}
	}
	steps := func(verb, back, table string, copies bool, declared func(*shardmap.DB) bool, undone func()) {
		t.Helper()
		want := union(table)
		if copies {
			want = strings.Join(slices.Compact(strings.Fields(want)), " ")
		}
		a := begin()
		wasThere := declared(a.Catalog.Current().Databases["killed"])
		for n := 0; ; n += *killEvery {
			reached(a)
			f.set(n)
			_, err := a.Admin.Exec(t.Context(), verb, false)
			blown := f.blown()
			what := fmt.Sprintf("%s cut off at its change %d", verb, n)
			if blown && n == *killEvery { // the shards come back while the process lives: nobody has to run another statement
				f.set(-1)
			} else {
				a.stop(0)
				f.set(-1)
				a = begin()
			}
			// A start that comes before a server has noticed that its client is gone leaves the attempt to those behind it.
			eventually(t, what+": it is settled", func() bool { return len(a.Catalog.Current().Document.Attempts) == 0 })
			if !blown && err != nil {
				t.Fatalf("%s: %v", verb, err)
			}
			check(what, table, copies, want)
			there := declared(a.Catalog.Current().Databases["killed"])
			if !blown && there == wasThere {
				t.Fatalf("%s is done, and the map does not say so", verb)
			}
			if there != wasThere {
				reached(a)
				if _, err := a.Admin.Exec(t.Context(), back, false); err != nil {
					t.Fatalf("%s: %s: %v", what, back, err)
				}
				check(what+", and undone", table, copies, want)
			}
			undone()
			if !blown {
				points += n
				break
			}
		}
		a.stop(0)
	}
	distribute := func(verb string) {
		a := begin()
		defer a.stop(0)
		reached(a)
		if _, err := a.Admin.Exec(t.Context(), verb, false); err != nil {
			t.Fatalf("%s: %v", verb, err)
		}
	}
	verbs(&killing{shards, last, distribute, steps})
	t.Logf("%d points", points)
}

func distributed(name string) func(*shardmap.DB) bool {
	return func(db *shardmap.DB) bool { return db.Tables[shardmap.TableName{Schema: "public", Name: name}] != nil }
}

// Whatever statement an attempt is cut off at, the next start of its process finishes it or undoes it whole: no row is lost or
// twice, nothing is left behind.
func TestKilledWhileTablesAreDistributed(t *testing.T) {
	t.Parallel()
	killedWhile(t, func(k *killing) {
		k.steps("DISTRIBUTE TABLE killed.public.keyed IN GROUP g KEY (k)", "UNDISTRIBUTE TABLE killed.public.keyed", "public.keyed", false, distributed("keyed"), func() {})
		k.steps("DISTRIBUTE TABLE killed.public.keyless IN GROUP g KEY (k)", "UNDISTRIBUTE TABLE killed.public.keyless", "public.keyless", false, distributed("keyless"), func() {})
		k.steps("DISTRIBUTE SCHEMA killed.tenant ON killed_s1", "UNDISTRIBUTE SCHEMA killed.tenant", "tenant.one", false, func(db *shardmap.DB) bool { return db.Tenant("tenant") != nil }, func() {})
	})
}

// So it is on the way home, and when a shard is added.
func TestKilledWhileTablesGoHome(t *testing.T) {
	t.Parallel()
	killedWhile(t, func(k *killing) {
		k.distribute("DISTRIBUTE TABLE killed.public.codes AS REFERENCE")
		k.distribute("DISTRIBUTE TABLE killed.public.keyed IN GROUP g KEY (k)")
		k.distribute("DISTRIBUTE SCHEMA killed.tenant ON killed_s1")
		k.steps("UNDISTRIBUTE TABLE killed.public.keyed", "DISTRIBUTE TABLE killed.public.keyed IN GROUP g KEY (k)", "public.keyed", false, distributed("keyed"), func() {})
		k.steps("UNDISTRIBUTE TABLE killed.public.codes", "DISTRIBUTE TABLE killed.public.codes AS REFERENCE", "public.codes", true, distributed("codes"), func() {})
		k.steps("UNDISTRIBUTE SCHEMA killed.tenant", "DISTRIBUTE SCHEMA killed.tenant ON killed_s1", "tenant.two", false, func(db *shardmap.DB) bool { return db.Tenant("tenant") != nil }, func() {})
		k.steps(fmt.Sprintf("CREATE SHARD killed_s2 IN killed NODE '%s' NAME killed_n2", k.last), "DROP SHARD killed_s2 IN killed", "public.codes", true,
			func(db *shardmap.DB) bool { return len(db.Shards) == 3 }, func() { // a shard that is dropped keeps what it has
				if queryOne[bool](t, k.shards[2], "select to_regclass('codes') is not null and exists (select from pgmosaic.made where relation = to_regclass('codes'))") {
					mustExec(t, k.shards[2], "drop table codes, keyed")
				}
				if left := shardState(t, k.shards[2]); left != "" {
					t.Fatalf("left on the shard: %s", left)
				}
			})
	})
}

// An interrupted statement's table has lost its name to another distributed one: the map keeps that.
func TestAnUndoneMoveForgetsNoOtherTable(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "swapped")
	for _, sql := range []string{
		"create table t_new (k int primary key, v text)", "insert into t_new select i, 'v' || i from generate_series(1, 90) i", "create table t_now (k int primary key, v text)", "insert into t_now select i, 'w' || i from generate_series(1, 20) i",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN swapped KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE swapped.public.t_new IN GROUP g KEY (k)")
	hold, watch, home := d.on(t, "swapped", 1), d.on(t, "swapped", 1), d.on(t, "swapped", 0)
	mustExec(t, hold, "begin; lock table pgmosaic.made")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(ctx, "DISTRIBUTE TABLE swapped.public.t_now IN GROUP g KEY (k)", false)
		done <- err
	}()
	eventually(t, "its copy is about to be noted", func() bool {
		return len(mapOf(d, "swapped").Attempts) == 1 && queryOne[bool](t, watch, "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query ~ 'pgmosaic.made')")
	})
	swapped := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "begin; alter table t_now rename to t_old; alter table t_new rename to t_now; commit", pgx.QueryExecModeSimpleProtocol)
		swapped <- err
	}()
	eventually(t, "the owner waits for it", func() bool {
		return len(swapped) > 0 || queryOne[bool](t, home, "select exists (select from pg_locks where relation = to_regclass('t_now') and not granted)")
	})
	cancel()
	if err := <-swapped; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the table has its new name", func() bool { return declared(d, "swapped") == "public.t_now k" })
	mustExec(t, hold, "commit")
	if err := <-done; err == nil {
		t.Error("the table was distributed")
	}
	eventually(t, "what it has begun is undone", func() bool { return len(mapOf(d, "swapped").Attempts) == 0 })
	if got := declared(d, "swapped"); got != "public.t_now k" {
		t.Errorf("the map has %s", got)
	}
	if got := queryOne[string](t, c, "select (select count(*) from t_now) || ' ' || (select count(*) from t_old)"); got != "90 20" {
		t.Errorf("%s rows", got)
	}
	wantVerified(t, d, "swapped.public.t_now")
}
