package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// schemesWorld is a database of three shards on two servers, for what a test places there.
func schemesWorld(t *testing.T, name string) (*demo, *pgx.Conn) {
	d := shop(t)
	d.adminExec(t, "CREATE DATABASE "+name)
	for i := range 3 {
		node := d.cluster.Node([]string{"s1-a", "s2-a"}[i%2])
		phys := fmt.Sprintf("%s_%d", name, i)
		freshDatabase(t, node, phys)
		d.adminExec(t, fmt.Sprintf("CREATE SHARD %s_s%d IN %s NODE '%s' NAME %s_n%d", name, i, name, node.DSN(phys), name, i))
	}
	t.Cleanup(func() { d.forget(t, name) })
	return d, connectTo(t, dsnFor("app", "app", d.Server.Addr(), name))
}

// forget takes a database out of the map, as if it had never been there, and drops what its servers have of it, where they let it go.
func (d *demo) forget(t *testing.T, name string) {
	doc := d.Catalog.Current().Document
	err := d.Catalog.Retry(context.Background(), func(tx *shardmap.Tx) error {
		var errs []error
		remove := func(of, table string, names ...string) {
			if of == name {
				errs = append(errs, tx.Delete(table, names...))
			}
		}
		for _, x := range doc.Attempts {
			remove(x.Database, "attempts", x.ID)
		}
		for _, x := range doc.Tables {
			remove(x.Database, "tables", x.Database, x.Schema, x.Name)
		}
		for _, x := range doc.Tenants {
			remove(x.Database, "tenants", x.Database, x.Schema)
		}
		for _, x := range doc.Routines {
			remove(x.Database, "routines", x.Database, x.Schema, x.Name)
		}
		for _, x := range doc.Groups {
			if x.Database == name {
				errs = append(errs, tx.DropGroup(name, x.Name))
			}
		}
		for _, x := range doc.Nodes {
			remove(x.Database, "nodes", x.Database, x.Shard, x.Name)
		}
		for _, x := range doc.Shards {
			remove(x.Database, "shards", x.Database, x.Name)
		}
		return errors.Join(append(errs, tx.Delete("databases", name))...)
	})
	if err != nil {
		t.Errorf("forget %s: %v", name, err)
	}
	d.Pools.Reconnect(name)
	for _, x := range doc.Nodes {
		if x.Database == name {
			dropBehind(x.DSN)
		}
	}
}

// dropBehind drops the database of a connection string, unless its server is away, a standby, or has it in use: then it stays.
func dropBehind(dsn string) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil || cfg.Database == "shop" || cfg.Database == "postgres" {
		return
	}
	drop := "drop database if exists " + pgsql.Ident(cfg.Database) + " with (force)"
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	cfg.Database = "postgres"
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return
	}
	_, _ = c.Exec(ctx, drop) // it only takes room
	_ = c.Close(ctx)
}

// pgCode is an error's SQLSTATE.
func pgCode(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return fmt.Sprint(err)
}

// on connects to one shard of such a database.
func (d *demo) on(t *testing.T, name string, i int) *pgx.Conn {
	return connectTo(t, d.cluster.Node([]string{"s1-a", "s2-a"}[i%2]).DSN(fmt.Sprintf("%s_%d", name, i)))
}

// past is on for a superuser who writes past the proxy, copies of reference tables too.
func (d *demo) past(t *testing.T, name string, i int) *pgx.Conn {
	c := d.on(t, name, i)
	mustExec(t, c, "set session_replication_role = replica")
	return c
}

func (d *demo) adminFails(t *testing.T, sql, code, message string) {
	t.Helper()
	_, err := d.Admin.Exec(t.Context(), sql, false)
	var e interface{ SQLState() string }
	if !errors.As(err, &e) || e.SQLState() != code || !strings.Contains(err.Error(), message) {
		t.Errorf("%s: %v, want %s %q", sql, err, code, message)
	}
}

// Ranges: rows, COPY and INSERT go where the map says, the shards' constraints agree, a range is split.
func TestRangeGroups(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "ranged")
	mustExec(t, c, "create table readings (day date not null, sensor int not null, v int, primary key (day, sensor))")
	mustExec(t, c, "insert into readings select date '2025-12-30' + i % 5, i, i from generate_series(1, 50) i")
	d.adminFails(t, "CREATE GROUP g IN ranged KEY (date, int) BY RANGE (MINVALUE TO ('2026-01-01', 20) ON ranged_s0, ('2026-01-02', 20) TO MAXVALUE ON ranged_s1)", "42P17", "begins at")
	d.adminFails(t, "CREATE GROUP g IN ranged KEY (date, int) BY RANGE (MINVALUE TO ('2026-01-01') ON ranged_s0, ('2026-01-01') TO MAXVALUE ON ranged_s1)", "22023", "2 columns")
	d.adminFails(t, "CREATE GROUP g IN ranged KEY (date) BY RANGE (MINVALUE TO ('2026-02-01') ON ranged_s0, ('2026-02-01') TO ('2026-01-01') ON ranged_s1, ('2026-01-01') TO MAXVALUE ON ranged_s2)", "42P17", "overlap")
	d.adminFails(t, "CREATE GROUP g IN ranged KEY (date) BY RANGE (MINVALUE TO ('01/02/2026') ON ranged_s0, ('01/02/2026') TO MAXVALUE ON ranged_s1)", "22P02", "date")
	d.adminExec(t, "CREATE GROUP spans IN ranged KEY (date, int) BY RANGE (MINVALUE TO ('2026-01-01', 20) ON ranged_s0, ('2026-01-01', 20) TO MAXVALUE ON ranged_s1)")
	d.adminExec(t, "DISTRIBUTE TABLE ranged.public.readings IN GROUP spans KEY (day, sensor)")
	if n := queryOne[int](t, d.on(t, "ranged", 0), "select count(*) from readings where (day, sensor) < ('2026-01-01', 20)"); n != queryOne[int](t, d.on(t, "ranged", 0), "select count(*) from readings") || n == 0 {
		t.Errorf("%d rows below on shard 0", n)
	}
	if n := queryOne[int](t, d.on(t, "ranged", 1), "select count(*) from readings where (day, sensor) >= ('2026-01-01', 20)"); n == 0 || n+queryOne[int](t, d.on(t, "ranged", 0), "select count(*) from readings") != 50 {
		t.Errorf("%d rows above on shard 1", n)
	}
	if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("1\t19\t2026-01-01\n2\t20\t2026-01-01\n3\t1\t1999-01-01\n"), "copy readings (v, sensor, day) from stdin"); err != nil {
		t.Fatal(err)
	}
	mustExec(t, c, "insert into readings values ('2026-01-01', 21, 21), ('2026-01-01', 18, 18)")
	if a, b := queryOne[int](t, d.on(t, "ranged", 0), "select count(*) from readings where day = '2026-01-01' and sensor in (18, 19)"), queryOne[int](t, d.on(t, "ranged", 1), "select count(*) from readings where day = '2026-01-01' and sensor in (20, 21)"); a != 2 || b != 2 {
		t.Errorf("%d and %d rows where they belong", a, b)
	}
	if _, err := d.on(t, "ranged", 1).Exec(t.Context(), "insert into readings values ('1999-01-02', 1, 1)"); err == nil {
		t.Error("a misplaced row was taken")
	}
	d.adminExec(t, "ALTER GROUP spans IN ranged SPLIT AT ('2027-01-01', 0)")
	if rows := d.adminExec(t, "VERIFY TABLE ranged.public.readings"); len(rows) > 0 { // the constraints are right: no key has another shard
		t.Errorf("VERIFY TABLE behind SPLIT AT: %v", rows)
	}
	d.adminFails(t, "ALTER GROUP spans IN ranged SPLIT AT ('2027-01-01', 0)", "42P17", "empty")
	d.adminFails(t, "ALTER GROUP spans IN ranged ADD VALUES ('x') ON ranged_s1", "42809", "by range")
	if n := queryOne[int](t, c, "select count(*) from readings"); n != 55 {
		t.Errorf("%d rows", n)
	}
	// A shard that joins later brings the constraint of one that owns nothing.
	phys := d.cluster.Node("s2-a")
	freshDatabase(t, phys, "ranged_9")
	d.adminExec(t, "CREATE SHARD ranged_s9 IN ranged NODE '"+phys.DSN("ranged_9")+"' NAME ranged_n9")
	if _, err := connectTo(t, phys.DSN("ranged_9")).Exec(t.Context(), "insert into readings values ('2026-01-01', 1, 1)"); err == nil {
		t.Error("a shard without keys takes a row")
	}
	want := "CREATE GROUP spans IN ranged KEY (date, integer) BY RANGE (MINVALUE TO ('2026-01-01', '20') ON ranged_s0, ('2026-01-01', '20') TO ('2027-01-01', '0') ON ranged_s1, ('2027-01-01', '0') TO MAXVALUE ON ranged_s1);"
	if sql := fmt.Sprint(d.adminExec(t, "SHOW MAP AS SQL")); !strings.Contains(sql, want) || !strings.Contains(sql, "KEY (day, sensor)") {
		t.Errorf("%s\ndoes not hold %s", sql, want)
	}
}

// Lists: a key that no list names has no place until one does.
func TestListGroups(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "listed")
	mustExec(t, c, "create table offices (region text primary key, name text)")
	mustExec(t, c, "insert into offices values ('eu', 'a'), ('uk', 'b'), ('us', 'c'), ('jp', 'd')")
	d.adminFails(t, "CREATE GROUP g IN listed KEY (text, int) BY LIST (('a') ON listed_s0)", "42P16", "more than one")
	d.adminFails(t, "CREATE GROUP g IN listed KEY (text) BY LIST (('a') ON listed_s0, ('a') ON listed_s1)", "42P17", "twice")
	d.adminExec(t, "CREATE GROUP regions IN listed KEY (text) BY LIST (('eu', 'uk') ON listed_s1, ('us') ON listed_s2)")
	d.adminFails(t, "DISTRIBUTE TABLE listed.public.offices IN GROUP regions KEY (region)", "23514", `"jp"`)
	d.adminExec(t, "ALTER GROUP regions IN listed ADD VALUES ('jp') ON listed_s0")
	d.adminExec(t, "DISTRIBUTE TABLE listed.public.offices IN GROUP regions KEY (region)")
	for i, want := range []string{"jp", "eu,uk", "us"} {
		if got := queryOne[string](t, d.on(t, "listed", i), "select string_agg(region, ',' order by region) from offices"); got != want {
			t.Errorf("shard %d holds %s", i, got)
		}
	}
	if _, err := c.Exec(t.Context(), "insert into offices values ('br', 'e')"); pgCode(err) != "23514" {
		t.Errorf("a key without a place: %v", err)
	}
	if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("br\te\n"), "copy offices from stdin"); pgCode(err) != "23514" {
		t.Errorf("a key without a place by COPY: %v", err)
	}
	if _, err := c.Exec(t.Context(), "select * from offices where region = 'br'"); err != nil {
		t.Error(err)
	}
	d.adminExec(t, "ALTER GROUP regions IN listed ADD VALUES ('br') ON listed_s0")
	mustExec(t, c, "insert into offices values ('br', 'e')")
	if n := queryOne[int](t, d.on(t, "listed", 0), "select count(*) from offices"); n != 2 {
		t.Errorf("%d rows on shard 0", n)
	}
	if shard := d.adminExec(t, "LOCATE KEY ('br') OF listed.regions")[0][4]; shard != "listed_s0" {
		t.Errorf("br is on %v", shard)
	}
	if keys := d.adminExec(t, "SHOW KEYS WHERE database = 'listed'"); len(keys) != 5 {
		t.Errorf("%v", keys)
	}
}

// Pins: one key goes elsewhere, if it has no rows yet; the shards' constraints follow.
func TestPinnedKeys(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "pinned")
	mustExec(t, c, "create table accounts (id bigint not null, region text not null, v int, primary key (id, region))")
	mustExec(t, c, "insert into accounts select i, 'x', i from generate_series(1, 30) i")
	d.adminExec(t, "CREATE GROUP g IN pinned KEY (bigint, text) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE pinned.public.accounts IN GROUP g KEY (id, region)")
	at := d.adminExec(t, "LOCATE KEY (42, 'x') OF pinned.g")[0][4].(string)
	to := map[string]string{"pinned_s0": "pinned_s1", "pinned_s1": "pinned_s2", "pinned_s2": "pinned_s0"}[at]
	d.adminFails(t, "PIN KEY (42) OF pinned.g ON "+to, "22023", "2 columns")
	d.adminExec(t, fmt.Sprintf("PIN KEY (42, 'x') OF pinned.g ON %s DRY RUN", to))
	d.adminExec(t, "PIN KEY (42, 'x') OF pinned.g ON "+to)
	d.adminFails(t, "PIN KEY (42, 'x') OF pinned.g ON "+at, "42710", "pinned already")
	mustExec(t, c, "insert into accounts values (42, 'x', 1), (43, 'x', 2)")
	i := int(to[len(to)-1] - '0')
	if n := queryOne[int](t, d.on(t, "pinned", i), "select count(*) from accounts where id = 42"); n != 1 {
		t.Errorf("%d rows of the pinned key on %s", n, to)
	}
	if _, err := d.on(t, "pinned", int(at[len(at)-1]-'0')).Exec(t.Context(), "insert into accounts values (42, 'x', 9)"); pgCode(err) != "23514" {
		t.Errorf("the shard that gave the key up: %v", err)
	}
	if n := queryOne[int](t, c, "select v from accounts where id = $1 and region = $2", int64(42), "x"); n != 1 {
		t.Errorf("read %d", n)
	}
	d.adminFails(t, "UNPIN KEY (42, 'x') OF pinned.g", "55006", "holds rows with this key")
	mustExec(t, c, "insert into accounts values (44, 'x', 1)") // nothing was changed by what failed
	if n := queryOne[int](t, c, "select v from accounts where id = 42 and region = 'x'"); n != 1 {
		t.Errorf("read %d", n)
	}
	mustExec(t, c, "delete from accounts where id = 42 and region = 'x'")
	d.adminExec(t, "UNPIN KEY (42, 'x') OF pinned.g")
	mustExec(t, c, "insert into accounts values (42, 'x', 3)")
	if n := queryOne[int](t, d.on(t, "pinned", int(at[len(at)-1]-'0')), "select count(*) from accounts where id = 42"); n != 1 {
		t.Errorf("%d rows of the key where it belongs again", n)
	}
}

// A schema on one shard: statements, DDL and foreign keys of its own; it comes back whole.
func TestSchemaOnOneShard(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "housed")
	for _, sql := range []string{
		"create schema acme", "create table acme.z_things (id int primary key, name text)", "create table acme.parts (id int primary key, thing int references acme.z_things)",
		"insert into acme.z_things select i, 't' || i from generate_series(1, 10) i", "insert into acme.parts select i, i % 10 + 1 from generate_series(1, 30) i",
		"create table plain (id int primary key, part int)", "insert into plain values (1, 3)",
	} {
		mustExec(t, c, sql)
	}
	d.adminFails(t, "DISTRIBUTE SCHEMA housed.nothing ON housed_s1", "3F000", "does not exist")
	d.adminFails(t, "DISTRIBUTE SCHEMA housed.public ON housed_s1", "42939", "public")
	mustExec(t, c, "alter table plain add constraint plain_part_fkey foreign key (part) references acme.parts")
	d.adminFails(t, "DISTRIBUTE SCHEMA housed.acme ON housed_s1", "0A000", "plain_part_fkey")
	mustExec(t, c, "alter table plain drop constraint plain_part_fkey")
	d.adminExec(t, "DISTRIBUTE SCHEMA housed.acme ON housed_s1")
	home, there := d.on(t, "housed", 0), d.on(t, "housed", 1)
	if a, b := queryOne[int](t, home, "select count(*) from acme.parts"), queryOne[int](t, there, "select count(*) from acme.parts"); a != 0 || b != 30 {
		t.Errorf("%d rows at home, %d on the shard", a, b)
	}
	mustExec(t, c, "create table acme.fresh (id int primary key, thing int references acme.z_things)")
	mustExec(t, c, "insert into acme.fresh select id, id from acme.z_things")
	mustExec(t, c, "alter table acme.fresh add column note text default 'n'")
	mustExec(t, c, "create unique index on acme.parts (id, thing)")
	if _, err := c.Exec(t.Context(), "insert into acme.fresh values (99, 99)"); pgCode(err) != "23503" {
		t.Errorf("a foreign key: %v", err)
	}
	if n := queryOne[int](t, c, "select count(*) from acme.fresh f join acme.z_things z on z.id = f.thing where f.note = 'n'"); n != 10 {
		t.Errorf("%d rows", n)
	}
	if n := queryOne[int](t, c, "select count(*) from plain p join acme.parts a on a.id = p.part"); n != 1 {
		t.Errorf("%d rows joined with home's", n)
	}
	mustExec(t, c, "create view acme.used as select z.name, count(*) as n from acme.parts p join acme.z_things z on z.id = p.thing group by z.name")
	if n := queryOne[int](t, c, "select sum(n)::int from acme.used"); n != 30 {
		t.Errorf("%d rows behind a view of the schema", n)
	}
	mustExec(t, c, "drop view acme.used")
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "update acme.parts set thing = null; update plain set part = 4"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustExec(t, c, "truncate acme.fresh")
	mustExec(t, c, "drop table acme.fresh")
	d.adminFails(t, "DROP SHARD housed_s1 IN housed", "55006", "acme")
	if n := queryOne[int](t, there, "select count(*) from pg_class where relname = 'fresh'"); n != 0 {
		t.Error("the dropped table is there still")
	}
	mustExec(t, c, "update acme.parts set thing = 1")
	d.adminExec(t, "UNDISTRIBUTE SCHEMA housed.acme")
	if a, b := queryOne[int](t, home, "select count(*) from acme.parts where thing = 1"), queryOne[int](t, there, "select count(*) from pg_class where relname = 'parts'"); a != 30 || b != 0 {
		t.Errorf("%d rows at home again, %d tables left", a, b)
	}
	d.adminExec(t, "DISTRIBUTE SCHEMA housed.acme ON housed_s0") // home itself: nothing travels
	if n := queryOne[int](t, c, "select count(*) from acme.parts join acme.z_things z on z.id = thing"); n != 30 {
		t.Errorf("%d rows", n)
	}
	if rows := d.adminExec(t, "SHOW TENANTS WHERE database = 'housed'"); len(rows) != 1 || rows[0][2] != "housed_s0" {
		t.Errorf("%v", rows)
	}
}

// A move of a schema that a crash of an older version cut short is finished if home had decided, else undone, and no row is lost either
// way. What it had made on the shard is nobody's to drop.
func TestInterruptedMoveOfASchema(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "cut")
	for _, name := range []string{"decided", "begun"} {
		mustExec(t, c, "create schema "+name)
		mustExec(t, c, "create table "+name+".rows_ (id int primary key)")
		mustExec(t, c, "insert into "+name+".rows_ select generate_series(1, 5)")
	}
	d.adminExec(t, "DISTRIBUTE SCHEMA cut.decided ON cut_s1")
	there := d.on(t, "cut", 1)
	mustExec(t, there, "create schema if not exists begun") // what a crash before home's commit leaves on the shard
	mustExec(t, there, "create table begun.rows_ (id int primary key)")
	mustExec(t, there, "insert into begun.rows_ select generate_series(1, 5)")
	mustExec(t, there, "delete from pgmosaic.made")
	// That version's note on home, which is read when there is none of this one's.
	mustExec(t, d.on(t, "cut", 0), "drop table pgmosaic.placed; create table pgmosaic.tenant (schema text primary key); insert into pgmosaic.tenant values ('decided')")
	_, err := d.Catalog.Change(t.Context(), false, func(tx *shardmap.Tx) error {
		return errors.Join(tx.PutTenant(shardmap.Tenant{Database: "cut", Schema: "decided", Shard: "cut_s1", Moving: true}), tx.PutTenant(shardmap.Tenant{Database: "cut", Schema: "begun", Shard: "cut_s1", Moving: true}))
	})
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, c, "begin") // one that has a server does not wait for the move to end
	mustExec(t, c, "select from pg_class")
	_, err = c.Exec(t.Context(), "select * from decided.rows_")
	wantRule(t, err, "moving", "55006")
	mustExec(t, c, "rollback")
	nodeAt := func(port int) { // of home
		t.Helper()
		d.adminExec(t, fmt.Sprintf("ALTER SHARD cut_s0 IN cut ALTER NODE cut_n0 'host=127.0.0.1 port=%d dbname=cut_0 user=%s password=%s'", port, cluster.Superuser, d.cluster.Password))
	}
	closed, err := cluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	nodeAt(closed)
	if err := d.Mover.Recover(t.Context()); err == nil { // a start while home is away
		t.Error("home is away, and all is settled")
	}
	settled := make(chan error, 1)
	go func() { settled <- d.Mover.RunRecover(t.Context(), 10*time.Millisecond) }()
	nodeAt(d.cluster.Node("s1-a").Port)
	if err := <-settled; err != nil {
		t.Fatal(err)
	}
	if rows := d.adminExec(t, "SHOW TENANTS WHERE database = 'cut'"); len(rows) != 1 || rows[0][1] != "decided" || rows[0][3] != "serving" {
		t.Errorf("%v", rows)
	}
	for _, name := range []string{"decided", "begun"} {
		if n := queryOne[int](t, c, "select count(*) from "+name+".rows_"); n != 5 {
			t.Errorf("%s: %d rows", name, n)
		}
	}
	if n := queryOne[int](t, there, "select count(*) from pg_class where relname = 'rows_'"); n != 2 {
		t.Errorf("%d tables on the shard", n)
	}
}
