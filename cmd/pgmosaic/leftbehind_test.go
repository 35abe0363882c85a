package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// noted is how many triggers, functions and tables that note changes are on home.
func noted(t *testing.T, home *pgx.Conn) int {
	t.Helper()
	return queryOne[int](t, home, "select (select count(*) from pg_trigger where tgname ~ '^pgmosaic' and tgname not in ('pgmosaic_copy', 'pgmosaic_kept'))::int + (select count(*) from pg_class where relname ~ '^changed_')::int + (select count(*) from pg_proc where proname ~ '^changed_')::int")
}

// A CREATE SHARD whose server is gone for good leaves nothing on home, and stands in no other one's way.
func TestAShardThatIsGoneForGoodWhileItJoins(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "goneshard")
	mustExec(t, c, "create table codes (id int primary key)")
	mustExec(t, c, "insert into codes select generate_series(1, 20)")
	d.adminExec(t, "DISTRIBUTE TABLE goneshard.public.codes AS REFERENCE")
	node := d.cluster.Node("s2-a")
	create := func(i int) string {
		freshDatabase(t, node, fmt.Sprintf("goneshard_%d", i))
		return fmt.Sprintf("CREATE SHARD goneshard_s%d IN goneshard NODE '%s' NAME goneshard_n%[1]d", i, node.DSN(fmt.Sprintf("goneshard_%d", i)))
	}
	sql := create(3)
	release := heldCopy(t, d, connectTo(t, node.DSN("goneshard_3")), "codes", sql)
	mustExec(t, connectTo(t, node.DSN("postgres")), "drop database goneshard_3 with (force)")
	if err := <-release(); err == nil {
		t.Error("the shard has joined")
	}
	if n := noted(t, d.on(t, "goneshard", 0)); n != 0 {
		t.Errorf("%d things are left on home", n)
	}
	mustExec(t, c, "insert into codes values (21)")
	d.adminExec(t, "DROP SHARD goneshard_s3 IN goneshard")
	if left := mapOf(d, "goneshard").Attempts; len(left) != 0 {
		t.Errorf("the map has %v", left)
	}
	d.adminFails(t, "DROP SHARD goneshard_s3 IN goneshard", "42704", "does not exist")
	d.adminExec(t, create(4))
	mustExec(t, c, "insert into codes values (22)")
	wantVerified(t, d, "goneshard.public.codes")
}

// A shard joins while what another one has left cannot go: a pg_dump has read the tables that have its triggers.
func TestAShardJoinsBesideWhatAnotherHasLeft(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "leftover")
	mustExec(t, c, "create table codes (id int primary key)")
	mustExec(t, c, "insert into codes select generate_series(1, 20)")
	d.adminExec(t, "DISTRIBUTE TABLE leftover.public.codes AS REFERENCE")
	dump := d.on(t, "leftover", 0)
	mustExec(t, dump, "begin; lock table codes in access share mode")
	node := d.cluster.Node("s2-a")
	for i := 3; i < 5; i++ {
		freshDatabase(t, node, fmt.Sprintf("leftover_%d", i))
		d.adminExec(t, fmt.Sprintf("CREATE SHARD leftover_s%d IN leftover NODE '%s' NAME leftover_n%[1]d", i, node.DSN(fmt.Sprintf("leftover_%d", i))))
		mustExec(t, c, fmt.Sprintf("insert into codes values (10%d)", i))
	}
	mustExec(t, dump, "commit")
	home := d.on(t, "leftover", 0)
	eventually(t, "nothing is left on home", func() bool { return noted(t, home) == 0 })
	wantVerified(t, d, "leftover.public.codes")
}

// aboutToTell begins to bring a table home, and holds the statement up when it is about to tell the map, until let is called.
func aboutToTell(t *testing.T, d *demo, database, table string) (let func(), done <-chan error) {
	t.Helper()
	hold, watch := d.on(t, database, 1), d.on(t, database, 1)
	mustExec(t, hold, "begin; select from pgmosaic.made for update") // which the statement changes before the map
	ended := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), "UNDISTRIBUTE TABLE "+database+".public."+table, false)
		ended <- err
	}()
	eventually(t, "the statement is about to tell the map", func() bool {
		return queryOne[bool](t, watch, "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query ~ 'pgmosaic.made')")
	})
	return func() { mustExec(t, hold, "commit") }, ended
}

// A transaction renames a table that is about to be brought home: it is under its new name what it was.
func TestATableThatIsRenamedBeforeItIsBroughtHome(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "underway")
	mustExec(t, c, "create table rows_ (k int primary key, v text)")
	mustExec(t, c, "insert into rows_ select i, 'v' || i from generate_series(1, 90) i")
	d.adminExec(t, "CREATE GROUP g IN underway KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE underway.public.rows_ IN GROUP g KEY (k)")
	let, done := aboutToTell(t, d, "underway", "rows_")
	mustExec(t, c, "begin; alter table rows_ rename to lines")
	let()
	eventually(t, "the map has been told, or has not", func() bool { return len(done) > 0 || d.moving("underway", "rows_") })
	mustExec(t, c, "commit")
	if err := <-done; err == nil || !strings.Contains(err.Error(), "the shard map was changed meanwhile") {
		t.Errorf("it ended with %v", err)
	}
	eventually(t, "what it has begun is undone", func() bool { return len(mapOf(d, "underway").Attempts) == 0 })
	eventually(t, "the table has its new name", func() bool { return declared(d, "underway") == "public.lines k" })
	if n := queryOne[int](t, c, "select count(*) from lines"); n != 90 {
		t.Errorf("%d rows", n)
	}
	wantVerified(t, d, "underway.public.lines")
	d.adminExec(t, "UNDISTRIBUTE TABLE underway.public.lines")
	if n := queryOne[int](t, d.on(t, "underway", 0), "select count(*) from lines"); n != 90 {
		t.Errorf("at home, %d rows", n)
	}
}

// A table that is dropped when it is about to be brought home is gone, and nothing of the statement stays.
func TestATableThatIsDroppedBeforeItIsBroughtHome(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "droppedfirst")
	for _, n := range []string{"rows_", "others"} {
		mustExec(t, c, "create table "+n+" (k int primary key, v text)")
		mustExec(t, c, "insert into "+n+" select i, 'v' || i from generate_series(1, 90) i")
	}
	d.adminExec(t, "CREATE GROUP g IN droppedfirst KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE droppedfirst.public.rows_ IN GROUP g KEY (k)")
	let, done := aboutToTell(t, d, "droppedfirst", "rows_")
	mustExec(t, c, "drop table rows_")
	eventually(t, "the map has it no more", func() bool { return declared(d, "droppedfirst") == "" })
	let()
	if err := <-done; err == nil {
		t.Error("it was brought home")
	}
	eventually(t, "nothing of it is left", func() bool { return len(mapOf(d, "droppedfirst").Attempts) == 0 })
	d.adminExec(t, "DISTRIBUTE TABLE droppedfirst.public.others IN GROUP g KEY (k)")
	wantVerified(t, d, "droppedfirst.public.others")
}

// What home notes of a table that is dropped while a statement is at it stays until that statement is settled: a process with another map, which
// distributes something else meanwhile, leaves it alone.
func TestADroppedTablesNoteStaysForWhoIsAtIt(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "notedfirst")
	for _, n := range []string{"rows_", "others"} {
		mustExec(t, c, "create table "+n+" (k int primary key, v text)")
		mustExec(t, c, "insert into "+n+" select i, 'v' || i from generate_series(1, 90) i")
	}
	d.adminExec(t, "CREATE GROUP g IN notedfirst KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE notedfirst.public.rows_ IN GROUP g KEY (k)")
	bare, err := stranger(t, undistributed(d, "notedfirst"))
	if err != nil {
		t.Fatal(err)
	}
	let, done := aboutToTell(t, d, "notedfirst", "rows_")
	mustExec(t, c, "drop table rows_")
	eventually(t, "the map has it no more", func() bool { return declared(d, "notedfirst") == "" })
	other := make(chan error, 1)
	go func() {
		_, err := bare.Admin.Exec(t.Context(), "DISTRIBUTE TABLE notedfirst.public.others IN GROUP g KEY (k)", false)
		other <- err
	}()
	home := d.on(t, "notedfirst", 0)
	eventually(t, "the other process is at its table", func() bool {
		return queryOne[bool](t, home, "select exists (select from pgmosaic.placed where relation = 'others'::regclass)")
	})
	let()
	if err := <-done; err == nil {
		t.Error("it was brought home")
	}
	t.Log("the other process says", <-other) // whatever has become of it
	eventually(t, "nothing of it is left", func() bool { return len(mapOf(d, "notedfirst").Attempts) == 0 })
}

// A shard that owns nothing, and whose server is gone for good, is dropped while a statement is unfinished there: what that has made goes with it.
func TestAShardThatIsGoneForGoodIsDropped(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "gonefirst")
	for _, n := range []string{"codes", "others"} {
		mustExec(t, c, "create table "+n+" (id int primary key)")
		mustExec(t, c, "insert into "+n+" select generate_series(1, 20)")
	}
	node := d.cluster.Node("s2-a")
	release := heldCopy(t, d, connectTo(t, node.DSN("gonefirst_1")), "codes", "DISTRIBUTE TABLE gonefirst.public.codes AS REFERENCE")
	mustExec(t, connectTo(t, node.DSN("postgres")), "drop database gonefirst_1 with (force)")
	if err := <-release(); err == nil {
		t.Error("the table was distributed")
	}
	eventually(t, "the shard is known to be away", func() bool { return !d.Monitor.View("gonefirst", "gonefirst_s1").Up() })
	if _, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE gonefirst.public.others AS REFERENCE", false); err == nil {
		t.Error("a table was distributed without one of the shards")
	}
	d.adminExec(t, "DROP SHARD gonefirst_s1 IN gonefirst DRY RUN")
	if n := len(mapOf(d, "gonefirst").Attempts); n != 1 {
		t.Errorf("a dry run has left %d attempts", n)
	}
	d.adminExec(t, "DROP SHARD gonefirst_s1 IN gonefirst")
	if left := mapOf(d, "gonefirst").Attempts; len(left) != 0 {
		t.Errorf("the map has %v", left)
	}
	for _, n := range []string{"codes", "others"} {
		d.adminExec(t, "DISTRIBUTE TABLE gonefirst.public."+n+" AS REFERENCE")
		wantVerified(t, d, "gonefirst.public."+n)
	}
}

// The last shard of a database stays while the map has something of the database that it has to decide or has the rows of.
func TestTheLastShardStaysWhileSomethingIsUnfinished(t *testing.T) {
	t.Parallel()
	d := shop(t)
	d.adminExec(t, "CREATE DATABASE lastone")
	t.Cleanup(func() { d.forget(t, "lastone") })
	node := d.cluster.Node("s1-a")
	freshDatabase(t, node, "lastone_0")
	d.adminExec(t, "CREATE SHARD lastone_s0 IN lastone NODE '"+node.DSN("lastone_0")+"' NAME lastone_n0")
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "lastone"))
	mustExec(t, c, "create table codes (id int primary key)")
	d.adminExec(t, "DISTRIBUTE TABLE lastone.public.codes AS REFERENCE")
	d.adminFails(t, "DROP SHARD lastone_s0 IN lastone", "55006", "has all of table public.codes")
	d.adminExec(t, "UNDISTRIBUTE TABLE lastone.public.codes")
	left := shardmap.Attempt{
		ID: "left", Database: "lastone", Statement: "CREATE SHARD lastone_s1", Shard: &shardmap.Shard{Database: "lastone", Name: "lastone_s1", Ordinal: 1},
		Nodes: []*shardmap.Node{{Database: "lastone", Shard: "lastone_s1", Name: "away", DSN: "postgres://app@127.0.0.1:1/lastone"}},
	}
	if err := d.Catalog.Retry(t.Context(), func(tx *shardmap.Tx) error { return tx.PutAttempt(left) }); err != nil {
		t.Fatal(err)
	}
	d.adminFails(t, "DROP SHARD lastone_s0 IN lastone", "55006", "is the home of what is unfinished: CREATE SHARD lastone_s1")
	d.adminExec(t, "DROP SHARD lastone_s1 IN lastone DRY RUN")
	d.adminExec(t, "DROP SHARD lastone_s1 IN lastone") // which gives it up
	d.adminExec(t, "DROP SHARD lastone_s0 IN lastone")
}

// A process whose map has an attempt of a database without a shard, as an older version could leave it, starts, and makes do.
func TestAnAttemptWithoutAHomeStopsNoStart(t *testing.T) {
	t.Parallel()
	d := shop(t)
	node := d.cluster.Node("s1-a")
	freshDatabase(t, node, "homeless")
	t.Cleanup(func() { dropBehind(node.DSN("homeless")) })
	a, err := stranger(t, &shardmap.Document{
		Version: 1, Install: "homeless", Databases: []*shardmap.Database{{Name: "homeless"}}, Attempts: []*shardmap.Attempt{{ID: "left", Database: "homeless", Statement: "DISTRIBUTE TABLE public.t", Schema: "public", Name: "t"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Mover.Recover(t.Context()); err == nil || !strings.Contains(err.Error(), `database "homeless" has no shard`) {
		t.Errorf("settled: %v", err)
	}
	if _, err := a.Admin.Exec(t.Context(), "CREATE SHARD s IN homeless NODE '"+node.DSN("homeless")+"' NAME n", false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is settled", func() bool {
		_ = a.Mover.Recover(t.Context())
		return len(a.Catalog.Current().Document.Attempts) == 0
	})
}

// A table does not come home without the one that its foreign key refers to: home would have a key that nobody keeps.
func TestForeignKeysToShardedTablesKeepTablesAway(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "keptaway")
	for _, sql := range []string{
		"create table codes (id int primary key)", "create table customers (k int primary key)", "create table orders (k int primary key, code int references codes)",
		"insert into codes values (1)", "insert into customers select generate_series(1, 20)",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN keptaway KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE keptaway.public.codes AS REFERENCE")
	for _, n := range []string{"customers", "orders"} {
		d.adminExec(t, "DISTRIBUTE TABLE keptaway.public."+n+" IN GROUP g KEY (k)")
	}
	mustExec(t, c, "alter table orders add foreign key (k) references customers")
	for _, dry := range []string{" DRY RUN", ""} {
		d.adminFails(t, "UNDISTRIBUTE TABLE keptaway.public.orders"+dry, "0A000", "refers to table public.customers, whose rows are on their shards")
		d.adminFails(t, "UNDISTRIBUTE TABLE keptaway.public.customers"+dry, "2BP01", "refers to it")
	}
	mustExec(t, c, "alter table orders drop constraint orders_k_fkey")
	for _, n := range []string{"orders", "customers"} {
		d.adminExec(t, "UNDISTRIBUTE TABLE keptaway.public."+n)
	}
	mustExec(t, c, "alter table orders add foreign key (k) references customers")
}

// An index that has the key and may still forbid rows of two shards beside each other, or ask for them, is one that no shard could enforce.
func TestIndexesThatCompareTheKeyOtherwise(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "otherwise")
	mustExec(t, c, "create extension btree_gist")
	mustExec(t, c, "create collation lax (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
	d.adminExec(t, "CREATE GROUP g IN otherwise KEY (int) BY HASH")
	d.adminExec(t, "CREATE GROUP s IN otherwise KEY (text) BY HASH")
	for i, x := range []struct {
		sql, group string
		may        bool
	}{
		{"room int, k int, exclude using gist (room with =, k with <>)", "g", false},
		{"room int, k int, exclude using gist (room with <>, k with =)", "g", true},
		{"room int, k int, exclude using gist (room with =)", "g", false},
		{"k text collate \"C\", unique (k)", "s", true},
		{"k text, room text collate lax, unique (k, room)", "s", true},
	} {
		table := fmt.Sprintf("otherwise.public.t_%d", i)
		mustExec(t, c, fmt.Sprintf("create table t_%d (%s)", i, x.sql))
		sql := fmt.Sprintf("DISTRIBUTE TABLE %s IN GROUP %s KEY (k)", table, x.group)
		if x.may {
			d.adminExec(t, sql+" DRY RUN")
			continue
		}
		d.adminFails(t, sql+" DRY RUN", "0A000", "no shard could enforce it")
		d.adminExec(t, sql+" ALLOW LOCAL UNIQUE DRY RUN")
	}
	mustExec(t, c, "create table folded (k text)")
	mustExec(t, c, "create unique index on folded (k collate lax)")
	d.adminFails(t, "DISTRIBUTE TABLE otherwise.public.folded IN GROUP s KEY (k)", "0A000", "no shard could enforce it")
}

// What an older version has distributed comes home, also if a statement that was to note it has failed in the middle; and a schema does when home was adopted.
func TestWhatIsNotedInPartComesHome(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "inpart")
	for _, sql := range []string{"create table keyed (k int primary key)", "insert into keyed select generate_series(1, 60)", "create schema tenant", "create table tenant.one (a int primary key)", "insert into tenant.one select generate_series(1, 7)"} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN inpart KEY (int) BY HASH")
	home := d.on(t, "inpart", 0)
	older := func() { // the map and the notes of a version that knew no distributions
		t.Helper()
		if err := d.Catalog.Retry(t.Context(), func(tx *shardmap.Tx) error {
			tables, err := tx.Tables("inpart")
			for _, x := range tables {
				x.Made = ""
				err = errors.Join(err, tx.PutTable(x))
			}
			schemas, serr := tx.Tenants("inpart")
			for _, x := range schemas {
				x.Made = ""
				err = errors.Join(err, tx.PutTenant(x))
			}
			return errors.Join(err, serr)
		}); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			mustExec(t, d.on(t, "inpart", i), "delete from pgmosaic.made where relation = to_regclass('tenant.one'); update pgmosaic.made set distribution = '', attempt = ''")
		}
		mustExec(t, home, "delete from pgmosaic.placed where relation is not null; update pgmosaic.placed set distribution = '', attempt = '' where schema is not null")
	}
	for _, failed := range []struct{ what, where string }{
		{"a shard was away behind the first", "shard"}, {"the map could not be written", "map"},
	} {
		d.adminExec(t, "DISTRIBUTE TABLE inpart.public.keyed IN GROUP g KEY (k)")
		d.adminExec(t, "DISTRIBUTE SCHEMA inpart.tenant ON inpart_s1")
		older()
		mustExec(t, d.on(t, "inpart", 1), "update pgmosaic.made set distribution = 'early', attempt = 'early' where relation = 'keyed'::regclass")
		if failed.where == "map" {
			mustExec(t, d.on(t, "inpart", 2), "update pgmosaic.made set distribution = 'early', attempt = 'early' where relation = 'keyed'::regclass")
			mustExec(t, home, "insert into pgmosaic.placed (relation, distribution, attempt, at) values ('keyed', 'early', 'early', 'shards')")
			mustExec(t, home, "update pgmosaic.placed set distribution = 'soon', attempt = 'soon' where schema = 'tenant'")
		}
		for _, sql := range []string{"UNDISTRIBUTE TABLE inpart.public.keyed", "UNDISTRIBUTE SCHEMA inpart.tenant"} {
			if _, err := d.Admin.Exec(t.Context(), sql, false); err != nil {
				t.Fatalf("%s: %s: %v", failed.what, sql, err)
			}
		}
		if got := queryOne[string](t, home, "select (select count(*) from keyed) || ' ' || (select count(*) from tenant.one)"); got != "60 7" {
			t.Errorf("%s: at home are %s rows", failed.what, got)
		}
	}
	d.adminExec(t, "DISTRIBUTE SCHEMA inpart.tenant ON inpart_s1")
	mustExec(t, home, "delete from pgmosaic.placed; delete from pgmosaic.identity") // as one from before
	d.adminExec(t, "ALTER SHARD inpart_s0 IN inpart ADOPT")
	eventually(t, "home is used", func() bool { return d.Monitor.View("inpart", "inpart_s0").Up() })
	d.adminExec(t, "UNDISTRIBUTE SCHEMA inpart.tenant")
	if n := queryOne[int](t, home, "select count(*) from tenant.one"); n != 7 {
		t.Errorf("%d rows", n)
	}
}

// A foreign key that is not valid moves with its table and comes home as it was: rows that were there need not meet it, new ones must.
func TestForeignKeysThatAreNotValidComeHome(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "notvalid")
	d.adminExec(t, "CREATE GROUP g IN notvalid KEY (int) BY HASH")
	home := d.on(t, "notvalid", 0)
	mustExec(t, c, "create table codes (code int primary key)")
	mustExec(t, c, "insert into codes select generate_series(0, 4)")
	d.adminExec(t, "DISTRIBUTE TABLE notvalid.public.codes AS REFERENCE")
	mustExec(t, c, "create table things (id int primary key, code int, above int)")
	mustExec(t, c, "insert into things select i, i % 10, i from generate_series(1, 50) i")
	mustExec(t, c, "alter table things add constraint known foreign key (code) references codes on delete restrict not valid")
	mustExec(t, c, "create table parts (id int primary key, code int) partition by hash (id)")
	mustExec(t, c, "create table parts_0 partition of parts for values with (modulus 1, remainder 0)")
	mustExec(t, c, "insert into parts select i, i % 10 from generate_series(1, 50) i")
	mustExec(t, c, "alter table parts_0 add constraint known foreign key (code) references codes not valid")
	for _, n := range []string{"things", "parts"} {
		d.adminExec(t, "DISTRIBUTE TABLE notvalid.public."+n+" IN GROUP g KEY (id)")
		_, err := c.Exec(t.Context(), "insert into "+n+" (id, code) values (99, 9)")
		wantCode(t, err, "23503")
		d.adminExec(t, "UNDISTRIBUTE TABLE notvalid.public."+n)
		_, err = c.Exec(t.Context(), "insert into "+n+" (id, code) values (99, 9)")
		wantCode(t, err, "23503")
	}
	if got := queryOne[string](t, home, "select (select count(*) from things) || ' ' || (select count(*) from parts) || ' ' || string_agg(pg_get_constraintdef(oid), ', ' order by conrelid::regclass::text desc) from pg_constraint where conname = 'known'"); got != "50 50 FOREIGN KEY (code) REFERENCES codes(code) ON DELETE RESTRICT NOT VALID, FOREIGN KEY (code) REFERENCES codes(code) NOT VALID" {
		t.Errorf("at home are %s", got)
	}
}

// What home has, and its rows need not meet, is no reason for copies to be refused: a CHECK that is not valid, and what an index that could not be built has left.
func TestRowsThatNeedNotMeetWhatHomeHas(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "unmet")
	d.adminExec(t, "CREATE GROUP g IN unmet KEY (int) BY HASH")
	home := d.on(t, "unmet", 0)
	for _, n := range []string{"codes", "loose"} {
		mustExec(t, c, "create table "+n+" (id int primary key, v int)")
		mustExec(t, c, "insert into "+n+" select i, i % 10 from generate_series(1, 50) i")
		mustExec(t, c, "alter table "+n+" add constraint most check (v < 5) not valid")
	}
	mustExec(t, c, "create schema tenant; create table tenant.one (v int); insert into tenant.one select generate_series(1, 9); alter table tenant.one add constraint most check (v < 5) not valid", pgx.QueryExecModeSimpleProtocol)
	d.adminExec(t, "DISTRIBUTE SCHEMA unmet.tenant ON unmet_s1")
	if _, err := home.Exec(t.Context(), "create unique index concurrently broken on codes (v)"); pgCode(err) != "23505" {
		t.Fatal(err)
	}
	d.adminExec(t, "DISTRIBUTE TABLE unmet.public.codes AS REFERENCE")
	mustExec(t, c, "alter table loose drop constraint loose_pkey") // so it moves under a lock
	d.adminExec(t, "DISTRIBUTE TABLE unmet.public.loose IN GROUP g KEY (id)")
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "unmet_3")
	d.adminExec(t, "CREATE SHARD unmet_s3 IN unmet NODE '"+node.DSN("unmet_3")+"' NAME unmet_n3")
	for i, s := range copiesOf(t, d, "unmet", "codes") {
		if n := strings.Count(s, "\n") + 1; n != 50 {
			t.Errorf("shard %d holds %d rows", i, n)
		}
	}
	if n := queryOne[int](t, c, "select count(*) from loose"); n != 50 {
		t.Errorf("%d rows", n)
	}
	for id := range 20 {
		_, err := c.Exec(t.Context(), fmt.Sprintf("insert into loose values (%d, 7)", 100+id)) // a new row must meet it
		wantCode(t, err, "23514")
	}
	d.adminExec(t, "UNDISTRIBUTE TABLE unmet.public.loose")
	d.adminExec(t, "UNDISTRIBUTE SCHEMA unmet.tenant")
	if got := queryOne[string](t, home, "select (select count(*) from loose) || ' ' || (select count(*) from tenant.one) || ' ' || count(*) from pg_constraint where conname = 'most' and not convalidated"); got != "50 9 3" {
		t.Errorf("at home are %s rows and constraints", got)
	}
}

// A CHECK that is taken away on the way home comes back as what it was: not by a function that somebody has added since, which fits its words better, and with its comment.
func TestChecksThatAreMadeAnewMeanWhatTheyDid(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "meant")
	d.adminExec(t, "CREATE GROUP g IN meant KEY (int) BY HASH")
	home := d.on(t, "meant", 0)
	mustExec(t, c, `create schema common; create function common.ok(anyelement) returns boolean language sql immutable as 'select true'; create schema tenant`, pgx.QueryExecModeSimpleProtocol)
	for _, n := range []string{"rows_", "tenant.one"} {
		mustExec(t, c, "create table "+n+" (k int primary key, v int)")
		mustExec(t, c, "insert into "+n+" select i, i from generate_series(1, 50) i")
		mustExec(t, c, "alter table "+n+" add constraint fine check (common.ok(v)) not valid")
		mustExec(t, home, "comment on constraint fine on "+n+" is 'looked at'")
	}
	d.adminExec(t, "DISTRIBUTE TABLE meant.public.rows_ IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE SCHEMA meant.tenant ON meant_s1")
	mustExec(t, home, "create function common.ok(int) returns boolean language sql immutable as 'select true'")
	for _, x := range []string{"TABLE meant.public.rows_", "SCHEMA meant.tenant"} {
		d.adminFails(t, "UNDISTRIBUTE "+x, "55000", "would use function common.ok(integer)")
	}
	const counts = "select (select count(*) from rows_) || ' ' || (select count(*) from tenant.one)"
	if got := queryOne[string](t, c, counts); got != "50 50" {
		t.Errorf("%s rows", got)
	}
	mustExec(t, home, "drop function common.ok(int)")
	for _, x := range []string{"TABLE meant.public.rows_", "SCHEMA meant.tenant"} {
		d.adminExec(t, "UNDISTRIBUTE "+x)
	}
	if got := queryOne[string](t, home, counts); got != "50 50" {
		t.Errorf("at home are %s rows", got)
	}
	if got := queryOne[int](t, home, "select count(*) from pg_constraint k where conname = 'fine' and not convalidated and obj_description(oid, 'pg_constraint') = 'looked at'"); got != 2 {
		t.Errorf("%d constraints are what they were", got)
	}
}
