package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// refused runs admin SQL that must fail with a code, and a message and hint with these words.
func (d *demo) refused(t *testing.T, sql, code string, words ...string) {
	t.Helper()
	c := connectTo(t, d.adminDSN()+"?default_query_exec_mode=simple_protocol")
	_, err := c.Exec(t.Context(), sql)
	wantCode(t, err, code)
	var pe *pgconn.PgError
	for _, w := range words {
		if errors.As(err, &pe) && !strings.Contains(pe.Message+" "+pe.Hint, w) {
			t.Errorf("%s: %s (%s) lacks %q", sql, pe.Message, pe.Hint, w)
		}
	}
}

func nodeRow(t *testing.T, d *demo, node string) (state, reason string) {
	t.Helper()
	for _, r := range d.adminExec(t, "SHOW NODES") {
		if r[2] == node {
			return fmt.Sprint(r[6]), fmt.Sprint(r[7])
		}
	}
	t.Fatalf("no node %s", node)
	return "", ""
}

// ownShards declares a database of two shards on databases of its own, and fills it.
func ownShards(t *testing.T, d *demo, name string) (nodes [2]*cluster.Node, c *pgx.Conn) {
	t.Helper()
	nodes = [2]*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a")}
	d.adminExec(t, "CREATE DATABASE "+name)
	for i, n := range nodes {
		freshDatabase(t, n, name)
		d.adminExec(t, fmt.Sprintf("CREATE SHARD %s%d IN %s NODE '%s' NAME %s%d", name, i+1, name, n.DSN(name), name, i+1))
	}
	c = connectTo(t, dsnFor("app", "app", d.Server.Addr(), name))
	mustExec(t, c, "create table t (id bigint primary key)")
	d.adminExec(t, "CREATE GROUP g IN "+name+" KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE "+name+".public.t IN GROUP g KEY (id)")
	mustExec(t, c, "insert into t select generate_series(1, 1000)")
	return nodes, c
}

// A slip in an admin statement does not put one shard's database in the place of another's, nor take away the node that serves.
func TestSlipsWithNodesAreRefused(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 1, NoLoad: true})
	s1, s2 := d.cluster.Node("s1-a"), d.cluster.Node("s2-a")
	// Nothing is written in the database of an only shard: another database of the same cluster is none of its copies all the same.
	d.adminExec(t, "CREATE DATABASE lone")
	freshDatabase(t, s1, "alien")
	eventually(t, "the replica has it", func() bool {
		return queryOne[bool](t, connectTo(t, d.cluster.Node("s1-b").DSN("postgres")), "select exists (select from pg_database where datname = 'alien')")
	})
	other := d.cluster.Node("s1-b").DSN("alien")
	d.refused(t, "CREATE SHARD main IN lone NODE '"+s1.DSN("postgres")+"' NAME a NODE '"+other+"' NAME b", "22023", `node "b" is database "alien"`)
	d.adminExec(t, "CREATE SHARD main IN lone NODE '"+s1.DSN("postgres")+"' NAME a")
	d.refused(t, "ALTER SHARD main IN lone ADD NODE '"+other+"' NAME b", "22023", `node "b" is database "alien"`)
	d.adminExec(t, "ALTER SHARD main IN lone ADD NODE '"+d.cluster.Node("s1-b").DSN("postgres")+"' NAME b")
	d.refused(t, "ALTER SHARD main IN lone ALTER NODE b '"+other+"'", "22023", `node "b" is database "alien"`)
	d.refused(t, `ALTER SHARD s2 IN shop DROP NODE "s2-a"`, "55006", "s2-a", "serves", "Promote")
	d.refused(t, "CREATE SHARD s3 IN shop NODE '"+s1.DSN("shop")+"' NAME x", "55006", "shard s1 of database shop")
	d.refused(t, "CREATE SHARD s3 IN shop NODE '"+strings.Replace(s1.DSN("shop"), "127.0.0.1", "localhost", 1)+"' NAME x", "55006", "shard s1 of database shop")
	d.refused(t, "ALTER SHARD s2 IN shop ADD NODE '"+s1.DSN("shop")+"' NAME x", "55006", "shard s1 of database shop")
	d.refused(t, `ALTER SHARD s2 IN shop ALTER NODE "s2-b" '`+s1.DSN("shop")+"'", "55006", "shard s1 of database shop")
	// With the shard's other node down there is nobody to compare with: the database itself says whose it is.
	d.adminExec(t, "ALTER SHARD s2 IN shop DROP NODE \"s2-b\"")
	s2.Kill()
	eventually(t, "the shard is down", func() bool { return !d.Monitor.View("shop", "s2").Up() })
	d.refused(t, "ALTER SHARD s2 IN shop ADD NODE '"+s1.DSN("shop")+"' NAME x", "55006", "shard s1 of database shop")
	if err := s2.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shard is up", func() bool { return d.Monitor.View("shop", "s2").Up() })
	// The last node that answers stays, though it is no primary.
	s1.Kill()
	eventually(t, "the primary is down", func() bool { return !d.Monitor.View("shop", "s1").Up() })
	d.refused(t, `ALTER SHARD s1 IN shop DROP NODE "s1-b"`, "55006", "the last of shard")
	d.adminExec(t, `ALTER SHARD s1 IN shop DROP NODE "s1-a"`)
}

// A connection string that means another shard's database by now gives no wrong answer: neither the monitor nor a server that is
// dialled takes it for the shard's, and both say why.
func TestANodeThatIsAnotherShardsIsNotUsed(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, NoLoad: true})
	nodes, _ := ownShards(t, d, "moved")
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", nodes[i].Port) }
	via := newMiddleman(t, at(1))
	dsn := strings.Replace(nodes[1].DSN("moved"), at(1), via.Addr().String(), 1)
	d.adminExec(t, "ALTER SHARD moved2 IN moved ALTER NODE moved2 '"+dsn+"'")
	eventually(t, "the shard is up", func() bool { return d.Monitor.View("moved", "moved2").Up() })
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "moved"))
	if n := queryOne[int](t, c, "select count(*) from t"); n != 1000 {
		t.Fatalf("%d rows", n)
	}
	// New connections arrive at shard 1's server. The monitor's own stays where it is for the moment, so it notices nothing.
	via.set(func() { via.to = at(0) })
	d.adminExec(t, "RECONNECT moved")
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	var n int
	err := c.QueryRow(ctx, "select count(*) from t").Scan(&n)
	if err == nil || !strings.Contains(err.Error(), "it is shard moved1 of database moved, not shard moved2 of database moved") {
		t.Errorf("count %d, error %v", n, err)
	}
	via.cut() // now the monitor is led astray as well
	eventually(t, "the monitor sees it", func() bool {
		state, reason := nodeRow(t, d, "moved2")
		return state == "stranger" && strings.Contains(reason, "it is shard moved1 of database moved, not shard moved2")
	})
	if d.Monitor.View("moved", "moved2").Up() {
		t.Error("the shard is served")
	}
	file := filepath.Join(t.TempDir(), "pgmosaic.yaml")
	if err := os.WriteFile(file, []byte("store: "+d.cfg.Store+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := check(t.Context(), file, false, &out); err == nil || !strings.Contains(out.String(), "moved/moved2/moved2: it is shard moved1 of database moved") {
		t.Errorf("check: %v\n%s", err, out.String())
	}
	log, err := os.ReadFile(filepath.Join(d.whole.Dir, "pgmosaic.log"))
	if err != nil || !strings.Contains(string(log), "a node is not the shard's, and is not used") {
		t.Errorf("the log does not say it: %v", err)
	}
	via.set(func() { via.to = at(1) })
	via.cut()
	eventually(t, "all is well again", func() bool { return d.Monitor.View("moved", "moved2").Up() })
	if n := queryOne[int](t, connectTo(t, dsnFor("app", "app", d.Server.Addr(), "moved")), "select count(*) from t"); n != 1000 {
		t.Errorf("%d rows", n)
	}
}

// A map of an older version is taken over: its shards are told whose they are. A shard that was restored without what the proxy keeps
// there is used when the admin says so, and another installation's is not.
func TestShardsAreAdopted(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes, _ := ownShards(t, d, "older")
	t.Cleanup(func() {
		for _, n := range nodes {
			if err := n.Exec(context.Background(), "postgres", "drop database older with (force)"); err != nil {
				t.Error(err)
			}
		}
	})
	says := func(i int) string {
		return queryOne[string](t, connectTo(t, nodes[i].DSN("older")), "select coalesce((select database || ' ' || shard from pgmosaic.identity), '')")
	}
	if says(0) != "older older1" || says(1) != "older older2" {
		t.Fatalf("%q, %q", says(0), says(1))
	}
	for _, sql := range []string{"delete from pgmosaic.identity", "update pgmosaic.identity set shard = 'x'", "insert into pgmosaic.identity values (true, 'a', 'b', 'c')"} {
		_, err := connectTo(t, dsnFor("app", "app", fmt.Sprintf("127.0.0.1:%d", nodes[0].Port), "older")).Exec(t.Context(), sql)
		wantCode(t, err, "42501")
	}
	// An older version's map: nothing is marked, nothing is said.
	for _, n := range nodes {
		if err := n.Exec(t.Context(), "older", "drop table pgmosaic.identity"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "shards that say nothing any more are not used", func() bool {
		return !d.Monitor.View("older", "older1").Up() && !d.Monitor.View("older", "older2").Up()
	})
	if _, err := d.Catalog.Change(t.Context(), false, func(tx *shardmap.Tx) error {
		for _, s := range d.Catalog.Current().Databases["older"].Shards {
			if err := tx.PutShard(shardmap.Shard{Database: "older", Name: s.Name, Ordinal: s.Ordinal}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := d.Mover.RunUpgrade(ctx, 50*time.Millisecond); err != nil || ctx.Err() != nil {
		t.Fatal(err, ctx.Err())
	}
	if says(0) != "older older1" || says(1) != "older older2" {
		t.Fatalf("after the upgrade: %q, %q", says(0), says(1))
	}
	if s := d.Catalog.Current().Databases["older"].Shards[1]; !s.Marked {
		t.Error("the map does not know it")
	}
	// Restored without the schema pgmosaic.
	if err := nodes[1].Exec(t.Context(), "older", "drop schema pgmosaic cascade"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is not used", func() bool {
		state, reason := nodeRow(t, d, "older2")
		return state == "stranger" && strings.Contains(reason, "does not say that it is shard older2")
	})
	d.adminExec(t, "ALTER SHARD older2 IN older ADOPT DRY RUN")
	if queryOne[bool](t, connectTo(t, nodes[1].DSN("older")), "select to_regnamespace('pgmosaic') is not null") {
		t.Error("a dry run has done something")
	}
	d.adminExec(t, "ALTER SHARD older2 IN older ADOPT")
	eventually(t, "it is used", func() bool { return d.Monitor.View("older", "older2").Up() })
	// Another installation: a process without the map, or with a staging copy.
	other := small(t, d, 2, func(c *config.Config) {
		c.Direct.Setup = []string{"CREATE DATABASE older", fmt.Sprintf("CREATE SHARD older1 IN older NODE '%s'", nodes[0].DSN("older"))}
	})
	_, err := other.Admin.Exec(t.Context(), fmt.Sprintf("CREATE SHARD older2 IN older NODE '%s' NAME o2", nodes[1].DSN("older")), false)
	if err == nil || !strings.Contains(err.Error(), "shard older2 of database older of the installation "+d.Catalog.Current().Install) {
		t.Errorf("another installation: %v", err)
	}
	// A shard that is dropped lets go of its database.
	d.adminExec(t, "UNDISTRIBUTE TABLE older.public.t")
	for _, sql := range []string{"DROP GROUP g IN older", "DROP SHARD older2 IN older"} {
		d.adminExec(t, sql)
	}
	if says(1) != "" {
		t.Errorf("a dropped shard's database says %q", says(1))
	}
	for _, sql := range []string{"DROP SHARD older1 IN older", "DROP DATABASE older"} {
		d.adminExec(t, sql)
	}
}

// A second process with the same map is no stranger to its shards.
func TestProcessesWithOneMapShareItsShards(t *testing.T) {
	t.Parallel()
	d := shop(t)
	doc, err := json.Marshal(d.Catalog.Current().Document)
	if err != nil {
		t.Fatal(err)
	}
	a := small(t, d, 2, func(c *config.Config) {
		if err := os.WriteFile(c.Store, doc, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if n := queryOne[int](t, connectTo(t, a.dsn()), "select count(*) from countries"); n == 0 {
		t.Error("no rows")
	}
}

// What a newer version adds to the table that says whose a database is waits for nobody: all new connections would wait behind it, and the
// monitor, which would take the shard for dead.
func TestAnUpgradeHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	d := shop(t)
	node := d.cluster.Node("s1-a")
	freshDatabase(t, node, "dumped")
	c, dump := connectTo(t, node.DSN("dumped")), connectTo(t, node.DSN("dumped"))
	mustExec(t, c, txn.Schema(0, 0))
	mustExec(t, c, "alter table pgmosaic.identity drop column attempt") // as an older version made it
	mustExec(t, dump, "begin; select * from pgmosaic.identity")
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.Exec(soon, txn.Schema(0, 0)); err != nil {
		t.Fatalf("beside a pg_dump: %v", err)
	}
	mustExec(t, dump, "commit")
	mustExec(t, c, txn.Schema(0, 0))
	if !queryOne[bool](t, c, txn.Complete) {
		t.Error("it is not made afterwards")
	}
}

// Nor can who has named what an older version has made, in a view or as a type, keep a newer one from making its own, or go on with the old.
func TestNobodysViewStopsAnUpgrade(t *testing.T) {
	t.Parallel()
	d := shop(t)
	node := d.cluster.Node("s1-a")
	freshDatabase(t, node, "viewed")
	c := connectTo(t, node.DSN("viewed"))
	for _, sql := range []string{
		txn.Schema(0, 0), "grant create on schema public to app",
		"drop function pgmosaic.take_turn(text, bytea); drop function pgmosaic.take_turn(text, bytea, int)", // as older versions made them
		"create function pgmosaic.take_turn(name text, token bytea) returns void language sql as ''", "create function pgmosaic.take_turn(name text, token bytea, shards int) returns void language sql as ''",
		"create function pgmosaic.decide(gid text, outcome text) returns void language sql security definer as 'insert into pgmosaic.decision values ($1, $2)'",
		"create function pgmosaic.decide(gid text, outcome text, parts text[]) returns void language sql security definer as 'insert into pgmosaic.decision values ($1, $2, $3)'",
		"create function pgmosaic.forget(gid text) returns void language sql security definer as 'delete from pgmosaic.decision where gid = $1'",
		"create table pgmosaic.copy (schema text, name text); create table pgmosaic.tenant (schema text); insert into pgmosaic.copy values ('public', 'mine')",
		"grant execute on all functions in schema pgmosaic to app with grant option", "grant select on pgmosaic.decision to app with grant option",
		"set role app", "grant execute on all functions in schema pgmosaic to pg_monitor", "grant select on pgmosaic.decision to public",
		"create view public.turns as select pgmosaic.take_turn('', '') is null as a, pgmosaic.take_turn('', '', 1) is null as b", "create view public.decides as select pgmosaic.decide('', '') is null as a, pgmosaic.decide('', '', '{}') is null as b, pgmosaic.forget('') is null as c",
		"create view public.copies as select * from pgmosaic.copy", "create table public.mine (c pgmosaic.tenant)", "reset role", txn.Schema(0, 0), txn.Schema(0, 0),
	} {
		if _, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	if !queryOne[bool](t, c, txn.Complete) {
		t.Error("something is missing")
	}
	if n := queryOne[int](t, c, "select count(*) from pgmosaic.made where relation = 'public.mine'::regclass"); n != 1 {
		t.Error("what an older version has noted is lost")
	}
	if got := queryOne[string](t, c, `select coalesce(string_agg(p.oid::regprocedure || ' ' || r, ', '), '') from pg_proc p, unnest('{app,pg_monitor}'::name[]) r
		where pronamespace = 'pgmosaic'::regnamespace and proname ~ '^older_' and has_function_privilege(r, p.oid, 'execute')`); got != "" {
		t.Errorf("an older version's functions can be called: %s", got)
	}
	if queryOne[bool](t, c, "select has_table_privilege('pg_monitor', 'pgmosaic.decision', 'select')") {
		t.Error("all may read what was granted by name to one")
	}
}

// A database from before this version is adopted beside a pg_dump, which keeps what is new in the table that says whose it is from being
// added: it is added later.
func TestAdoptNeedsNoNewColumn(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "adopted")
	for i, n := range []string{"adopted_s0", "adopted_s1"} {
		own, dump := d.on(t, "adopted", i), d.on(t, "adopted", i)
		mustExec(t, own, "alter table pgmosaic.identity drop column attempt") // as an older version made it
		mustExec(t, dump, "begin; select * from pgmosaic.identity")
		d.adminExec(t, "ALTER SHARD "+n+" IN adopted ADOPT")
		if queryOne[bool](t, own, txn.Complete) {
			t.Error("the column was added beside a dump: the test shows nothing")
		}
		mustExec(t, own, "update pgmosaic.identity set shard = 'other'")
		d.adminExec(t, "ALTER SHARD "+n+" IN adopted ADOPT")
		mustExec(t, dump, "commit")
		d.adminExec(t, "ALTER SHARD "+n+" IN adopted ADOPT")
		if !queryOne[bool](t, own, txn.Complete) {
			t.Error("the column is not made afterwards")
		}
	}
	eventually(t, "the shards are up", func() bool {
		return d.Monitor.View("adopted", "adopted_s0").Up() && d.Monitor.View("adopted", "adopted_s1").Up()
	})
	if n := queryOne[int](t, c, "select count(*) from parts"); n != 101 {
		t.Errorf("%d rows", n)
	}
	// A new shard's database cannot be told whose it is without a note that an attempt did so: the statement says what to wait for.
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "adopted_3")
	own, dump := connectTo(t, node.DSN("adopted_3")), connectTo(t, node.DSN("adopted_3"))
	mustExec(t, own, txn.Schema(0, 0))
	mustExec(t, own, "alter table pgmosaic.identity drop column attempt")
	mustExec(t, dump, "begin; select * from pgmosaic.identity")
	create := "CREATE SHARD adopted_s3 IN adopted NODE '" + node.DSN("adopted_3") + "' NAME adopted_n3"
	d.refused(t, create, "55006", "adopted_n3", "pgmosaic.identity")
	mustExec(t, dump, "commit")
	d.adminExec(t, create)
}

// Who was at a server that the admin has taken a shard from is cut off: a COMMIT there would be lost.
func TestWhoIsAtADisownedPrimaryIsCutOff(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "disowned")
	old := d.cluster.Node("s1-a").DSN("disowned_0")
	other := d.cluster.Node("s2-a")
	freshDatabase(t, other, "disowned_0")
	restored := connectTo(t, other.DSN("disowned_0"))
	mustExec(t, restored, txn.Schema(0, 1))
	mustExec(t, restored, "create table local (a int); create table codes (code text primary key); create table parts (k int primary key, i int); insert into local values (42); grant all on all tables in schema public to app")
	mustExec(t, c, "begin")
	mustExec(t, c, "insert into local values (1)")
	d.adminExec(t, "ALTER SHARD disowned_s0 IN disowned ALTER NODE disowned_n0 '"+other.DSN("disowned_0")+"'")
	d.adminExec(t, "ALTER SHARD disowned_s0 IN disowned ADOPT")
	before := connectTo(t, old)
	eventually(t, "nobody is at the old server", func() bool {
		return queryOne[int](t, before, "select count(*) from pg_stat_activity where datname = current_database() and usename = 'app'") == 0
	})
	if tag, err := c.Exec(t.Context(), "commit"); err == nil && tag.String() == "COMMIT" {
		t.Error("a transaction on the old server was committed")
	}
	eventually(t, "the shard is up", func() bool { return d.Monitor.View("disowned", "disowned_s0").Up() })
	if got := says(t, connectTo(t, dsnFor("app", "app", d.Server.Addr(), "disowned")), "select a from local", pgx.QueryExecModeExec); got != "42" {
		t.Errorf("it holds %s", got)
	}
	d.adminExec(t, "ALTER SHARD disowned_s0 IN disowned ALTER NODE disowned_n0 '"+old+"'")
	d.adminExec(t, "ALTER SHARD disowned_s0 IN disowned ADOPT")
	eventually(t, "the old one is back", func() bool { return d.Monitor.View("disowned", "disowned_s0").Up() })
}

// What a shard lacks of the proxy's own, or has open to others, is put right before a statement begins to work there.
func TestAStatementMakesWhatShardsLack(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "lacking")
	mustExec(t, c, "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 30) i")
	mustExec(t, c, "create schema whole; create table whole.t (id int primary key, v int)")
	for _, sql := range []string{"DISTRIBUTE TABLE lacking.public.t AS REFERENCE", "UNDISTRIBUTE TABLE lacking.public.t", "DISTRIBUTE SCHEMA lacking.whole ON lacking_s1", "UNDISTRIBUTE SCHEMA lacking.whole"} {
		for i := range 3 {
			mustExec(t, d.on(t, "lacking", i), "drop table pgmosaic.holder; drop function pgmosaic.next_id(); grant insert on pgmosaic.made to app")
		}
		d.adminExec(t, sql)
		for i := range 3 {
			if !queryOne[bool](t, d.on(t, "lacking", i), txn.Complete) {
				t.Errorf("%s: shard %d lacks something, or has it open to others", sql, i)
			}
		}
	}
}
