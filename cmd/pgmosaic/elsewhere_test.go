package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// What is defined on home around the proxy is not taken for home's alone: new names at once, others within seconds.
func TestDefinitionsMadeElsewhere(t *testing.T) {
	t.Parallel()
	d, gone := schemesWorld(t, "nowhere") // a database without a primary, which holds up no other's looks
	mustExec(t, gone, "select 1")
	port, err := cluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	d.adminExec(t, fmt.Sprintf("ALTER SHARD nowhere_s0 IN nowhere ALTER NODE nowhere_n0 'host=127.0.0.1 port=%d dbname=nowhere_0'", port))
	d, c := renameWorld(t, "elsewhere")
	home := d.on(t, "elsewhere", 0)
	if n := queryOne[int](t, c, "select count(*) from rows_"); n != 90 {
		t.Fatal(n)
	}
	mustExec(t, home, "create view made as select k from rows_ where k > 10")
	mustExec(t, home, "create function counted() returns bigint language sql stable as 'select count(*) from rows_'")
	mustExec(t, home, "grant select on made to app")
	time.Sleep(250 * time.Millisecond) // the schema is not read anew more often
	if n := queryOne[int](t, c, "select count(*) from made"); n != 80 {
		t.Errorf("a new view has %d rows", n)
	}
	mustExec(t, home, "create function counted2() returns bigint language sql stable as 'select count(*) from rows_'")
	time.Sleep(250 * time.Millisecond)
	_, err = c.Exec(t.Context(), "select counted2()")
	wantCode(t, err, "0A000")
	mustExec(t, c, "begin")
	mustExec(t, c, "select * from codes")
	mustExec(t, home, "create view done as select k from rows_ where k > 20")
	mustExec(t, home, "grant select on done to app")
	time.Sleep(250 * time.Millisecond)
	if n := queryOne[int](t, c, "select count(*) from done"); n != 70 { // in a transaction that began before
		t.Errorf("a new view has %d rows", n)
	}
	mustExec(t, c, "rollback")
	k2 := queryOne[int](t, d.on(t, "elsewhere", 1), "select min(k) from rows_")
	mustExec(t, c, "begin") // on another shard only
	mustExec(t, c, fmt.Sprintf("update rows_ set v = 'x' where k = %d", k2))
	mustExec(t, home, "create view done2 as select k from rows_ where k > 30")
	mustExec(t, home, "grant select on done2 to app")
	time.Sleep(250 * time.Millisecond)
	if n := queryOne[int](t, c, "select count(*) from done2"); n != 60 {
		t.Errorf("another new view has %d rows", n)
	}
	_, err = c.Exec(t.Context(), "select no_such_function()")
	wantCode(t, err, "42883")
	mustExec(t, c, "rollback")
	for _, k := range []int{30, 40} { // the second look comes no later for the first one's having met a database without a primary
		mustExec(t, home, fmt.Sprintf("create or replace view made as select k from rows_ where k > %d", k))
		eventually(t, "the changed view is noticed", func() bool { return queryOne[int](t, c, "select count(*) from made") == 90-k })
	}
}

// Names that do not exist cost a look, and not the plans of everybody.
func TestUnknownNamesKeepThePlans(t *testing.T) {
	t.Parallel()
	d, c := renameWorld(t, "unknown")
	version := func() uint64 { // a part of every plan's key
		snap, err := d.Engine.Planner.Schemas.Get(t.Context(), d.Catalog.Current().Databases["unknown"])
		if err != nil {
			t.Fatal(err)
		}
		return snap.Version
	}
	mustExec(t, c, "select v from rows_ where k = 1")
	was := version()
	for i := range 3 {
		time.Sleep(250 * time.Millisecond)
		_, err := c.Exec(t.Context(), fmt.Sprintf("select * from nothing%d", i))
		wantCode(t, err, "42P01")
		_, err = c.Exec(t.Context(), fmt.Sprintf("select nothing%d(1)", i))
		wantCode(t, err, "42883")
	}
	mustExec(t, c, "select v from rows_ where k = 1")
	if now := version(); now != was {
		t.Errorf("schema version %d, then %d", was, now)
	}
}

// The fingerprint of a schema changes with definitions that plans rest on, and not with what else touches catalogs.
func TestFingerprintOfASchema(t *testing.T) {
	t.Parallel()
	d, _ := renameWorld(t, "printed")
	home := d.past(t, "printed", 0)
	dsn := d.cluster.Node("s1-a").DSN("printed_0")
	r := schema.Reader{Conns: &nodeconn.Kept{}, Whose: func(string, string) nodeconn.Whose { return anybodys }}
	defer r.Conns.Drop(dsn)
	at := func() string {
		fp, err := r.Fingerprint(t.Context(), schema.Server{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		return fp
	}
	snap, _, err := r.Load(t.Context(), schema.Server{DSN: dsn}, 1, false)
	if err != nil || snap.Fingerprint != at() {
		t.Fatalf("the snapshot has %v, %v", snap, err)
	}
	defer func() { mustExec(t, home, "drop schema if exists s cascade; drop role printed_nobody, printed_club") }()
	was := at()
	for _, sql := range []string{
		"vacuum analyze rows_", "truncate codes", "reindex table rows_", "vacuum full rows_", "create temp table x (a int)", "insert into codes values ('q')", "select nextval('rows__n_seq')",
		"create role printed_group", "create role printed_nobody", "grant printed_group to printed_nobody",
	} { // while everybody may use each schema, who is in which role is nothing to it
		mustExec(t, home, sql)
		if now := at(); now != was {
			t.Errorf("%s changed it", sql)
			was = now
		}
	}
	for _, sql := range []string{
		"create table t (a int, b text)", "alter table t add column c int", "alter table t alter column c set not null", "alter table t alter column c set default 5", "alter table t drop column c", "alter table t rename to t2",
		"alter table t2 rename column b to bb", "create unique index i on t2 (a)", "drop index i", "create view v as select a from t2", "create or replace view v as select a + 1 as a from t2", "create function f() returns int language sql as 'select 1'",
		"create or replace function f() returns int language sql as 'select 2'", "alter function f() immutable", "create function g() returns trigger language plpgsql as 'begin return new; end'", "create trigger g before insert on t2 for each row execute function g()",
		"alter table t2 enable row level security", "create policy p on t2 using (true)", "alter table t2 add check (a > 0)", "create type e as enum ('a')", "alter type e add value 'b'", "alter view v set (security_invoker = true)", "create schema s", "alter table t2 set schema s",
		"grant usage on schema s to printed_group", "revoke printed_group from printed_nobody", "alter role printed_group rename to printed_club",
		"create rule r as on insert to s.t2 do also select 1", "create extension citext", "drop table s.t2 cascade",
	} {
		mustExec(t, home, sql)
		now := at()
		if now == was {
			t.Errorf("%s did not change it", sql)
		}
		was = now
	}
}
