package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// lent are tables of a superuser's in schema mine that use what app has made in schema code. Each has the columns id and v.
var lent = []struct{ name, sql, what string }{
	{"bounded", "create table mine.bounded (id int primary key, v code.positive)", "code.f(integer)"},
	{"checked", "create table mine.checked (id int primary key, v int check (code.f(v) > 0))", "code.f(integer)"},
	{"indexed", "create table mine.indexed (id int primary key, v int); create index on mine.indexed (code.f(v))", "code.f(integer)"},
	{"generated", "create table mine.generated (id int primary key, v int, g int generated always as (code.f(v)) stored)", "code.f(integer)"},
	{"parted", "create table mine.parted (id int, v int) partition by range (id); create table mine.parted_1 partition of mine.parted for values from (minvalue) to (maxvalue); create index on mine.parted_1 (code.f(v))", "code.f(integer)"},
	{"refers", "create table mine.refers (id int primary key, v int references code.pointed)", "code.f(integer)"},
	{"composed", "create table mine.composed (id int primary key, v int, p code.pair)", "code.pair"},
	{"rows", "create table mine.rows (id int primary key, v int, p code.pointed[])", "code.pointed"},
	{"doubled", "create domain mine.half as code.positive; create table mine.doubled (id int primary key, v mine.half)", "code.f(integer)"},
	{"spanned", "create table mine.spanned (id int primary key, v int, s code.span)", "code.f(integer)"},
	{"folded", "create table mine.folded (id int, v int) partition by range ((v + code.f(7))); create table mine.folded_1 partition of mine.folded for values from (minvalue) to (maxvalue)", "code.f(integer)"},
	{"operated", "create table mine.operated (id int primary key, v int); create index on mine.operated ((v operator(code.-) 1))", "code.minus(integer,integer)"},
	{"described", "create table mine.described (id int primary key, v int); create statistics mine.described_stat on (v + code.f(v)), v from mine.described", "code.f(integer)"},
	{"excluded", "create table mine.excluded (id int primary key, v int, exclude using btree (id with =, code.f(v) with =))", "code.f(integer)"},
	{"sorted", "create operator class mine.turned for type int using btree as operator 1 <, operator 3 =, operator 5 >, function 1 code.compare(int, int); " +
		"create table mine.sorted (id int primary key, v int); create index on mine.sorted (v mine.turned)", "code.compare(integer,integer)"},
	{"matched", "create operator class mine.alike for type int using hash as operator 1 code.~~, function 1 hashint4(int); " +
		"create table mine.matched (id int primary key, v int); create index on mine.matched using hash (v mine.alike)", "code.same(integer,integer)"},
	{"enclosed", "create type mine.box as (a code.positive); create table mine.enclosed (id int primary key, v int, p mine.box)", "code.f(integer)"},
}

// A table of a superuser's that uses what an ordinary role has made is left alone: nobody's rights are right for that.
func TestAdminStatementsRunNothingOfOthersAsASuperuser(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "lent")
	d.adminExec(t, "CREATE GROUP g IN lent KEY (int) BY HASH")
	super := d.on(t, "lent", 0)
	home := connectTo(t, asRole(d, super, "app"))
	mustExec(t, home, "create schema code; create function code.f(int) returns int language sql immutable as 'select $1'; create type code.pair as (a int, b int); create domain code.positive as int check (code.f(value) > 0); create type code.span as range (subtype = code.positive); "+
		"create function code.minus(int, int) returns int language sql immutable as 'select $1 - $2'; create operator code.- (leftarg = int, rightarg = int, function = code.minus); create function code.compare(int, int) returns int language sql immutable as 'select $1 - $2'; "+
		"create function code.same(int, int) returns boolean language sql immutable as 'select $1 = $2'; create operator code.~~ (leftarg = int, rightarg = int, function = code.same); "+
		"create table code.pointed (id int primary key, v int); create index on code.pointed ((v + code.f(7))); insert into code.pointed select i, i from generate_series(1, 30) i; grant select, references on code.pointed to public")
	mustExec(t, super, "create schema mine; grant all on schema mine to app")
	for _, x := range lent {
		mustExec(t, super, x.sql)
		mustExec(t, super, "insert into mine."+x.name+" (id, v) select i, i from generate_series(1, 30) i")
	}
	mustExec(t, home, strings.Replace(climb, "create function code.f(", "create or replace function code.f(", 1)) // now that the tables are there
	d.adminExec(t, "ALTER ROUTINE lent.code.put SHARD SAFE")                                                      // which names a table of home's
	supers := []*pgx.Conn{connectTo(t, d.cluster.Node("s1-a").DSN("postgres")), connectTo(t, d.cluster.Node("s2-a").DSN("postgres"))}
	refused := func(sql, what string) {
		t.Helper()
		d.adminFails(t, sql, "0A000", what+` of role "app"`)
		for i, c := range supers {
			if queryOne[bool](t, c, "select rolsuper from pg_roles where rolname = 'app'") {
				t.Errorf("app is a superuser on server %d: %s", i+1, sql)
				mustExec(t, c, "alter role app nosuperuser")
			}
		}
		if n := len(mapOf(d, "lent").Attempts); n > 0 {
			t.Errorf("%d attempts are left by %s", n, sql)
		}
	}
	for _, x := range lent {
		refused("DISTRIBUTE TABLE lent.mine."+x.name+" IN GROUP g KEY (id)", x.what)
		refused("DISTRIBUTE TABLE lent.mine."+x.name+" AS REFERENCE", x.what)
		refused("DISTRIBUTE TABLE lent.mine."+x.name+" AS REFERENCE DRY RUN", x.what)
	}
	refused("DISTRIBUTE SCHEMA lent.mine ON lent_s1", "")
	for i := range 2 {
		if queryOne[bool](t, d.on(t, "lent", i+1), "select exists (select from pg_namespace where nspname = 'mine')") {
			t.Errorf("something was made on shard %d", i+1)
		}
	}
	const statement = "lent.mine.indexed"
	mustExec(t, super, "alter table mine.indexed owner to app") // who wrote the code may run it
	d.adminExec(t, "DISTRIBUTE TABLE "+statement+" AS REFERENCE")
	for i := range 3 {
		mustExec(t, d.on(t, "lent", i), "alter table mine.indexed owner to postgres")
	}
	refused("UNDISTRIBUTE TABLE "+statement, "code.f(integer)")
	refused("VERIFY TABLE "+statement, "code.f(integer)")
	freshDatabase(t, d.cluster.Node("s2-a"), "lent_9")
	refused("CREATE SHARD lent_s9 IN lent NODE '"+d.cluster.Node("s2-a").DSN("lent_9")+"' NAME lent_n9", "code.f(integer)")
	for i := range 3 {
		mustExec(t, d.on(t, "lent", i), "alter table mine.indexed owner to app")
	}
	d.adminExec(t, "UNDISTRIBUTE TABLE "+statement)
	mustExec(t, super, "create table mine.said (id code.mood primary key, v int); insert into mine.said values ('good', 1)")
	d.adminExec(t, "DISTRIBUTE TABLE lent.mine.said AS REFERENCE") // values of it are copied as they are
	refused("VERIFY TABLE lent.mine.said", "code.mood")            // but become text by its owner's cast
	d.adminExec(t, "UNDISTRIBUTE TABLE lent.mine.said")
	mustExec(t, super, "create schema whole; grant all on schema whole to app; create table whole.t (id int, v int); create index on whole.t (code.f(v)); alter table whole.t owner to app")
	d.adminExec(t, "DISTRIBUTE SCHEMA lent.whole ON lent_s1")
	for i := range 2 {
		mustExec(t, d.on(t, "lent", i), "alter table whole.t owner to postgres")
	}
	refused("UNDISTRIBUTE SCHEMA lent.whole", "code.f(integer)")
	for i := range 2 {
		mustExec(t, d.on(t, "lent", i), "alter table whole.t owner to app")
	}
}

// planted are definitions that a shard has before home's come to it, what takes them away, and whose they are.
var planted = []struct{ name, role, sql, undo string }{
	{"type priv.d", "app", "create domain priv.d as int check (value < 1000)", "drop domain priv.d"},
	{"type priv.e", "app", "create type priv.e as enum ('b', 'a')", "drop type priv.e"},
	{"type priv.e", "postgres", "create type priv.e as enum ('a', 'b')", "drop type priv.e"},
	{"type priv.c", "app", "create type priv.c as (x int, y int)", "drop type priv.c"},
	{"function priv.f(integer)", "app", "create function priv.f(int) returns int language sql immutable as 'select $1 + 1'", "drop function priv.f"},
	{"function priv.f(integer)", "postgres", "create function priv.f(int) returns int language sql immutable as 'select $1'", "drop function priv.f"},
	{"function priv.a(integer)", "app", "create aggregate priv.a(int) (sfunc = int4mi, stype = int, initcond = '0')", "drop aggregate priv.a(int)"},
	{"operator priv.+(integer,integer)", "app", "create operator priv.+ (leftarg = int, rightarg = int, function = int4mi)", "drop operator priv.+ (int, int)"},
	{"cast (priv.c AS text)", "app", "create type priv.c as (x int); create cast (priv.c as text) with inout as assignment", "drop type priv.c cascade"},
}

// What is on a shard by the name of something of home's must be the same: tables would be made with it.
func TestDefinitionsOnAShardAreHomes(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "planted")
	mustExec(t, connectTo(t, asRole(d, d.on(t, "planted", 0), "app")), "create schema priv; create function priv.f(int) returns int language sql immutable as 'select $1'; create domain priv.d as int check (priv.f(value) > 0); create type priv.e as enum ('a', 'b'); "+
		"create type priv.c as (x int); create aggregate priv.a(int) (sfunc = int4pl, stype = int, initcond = '0'); create operator priv.+ (leftarg = int, rightarg = int, function = int4pl); create cast (priv.c as text) with inout; "+
		"create table priv.t (id int primary key, v priv.d); insert into priv.t select i, i from generate_series(1, 30) i")
	shard := d.on(t, "planted", 1)
	as := map[string]*pgx.Conn{"app": connectTo(t, asRole(d, shard, "app")), "postgres": shard}
	mustExec(t, as["app"], "create schema priv")
	for _, x := range planted {
		mustExec(t, as[x.role], x.sql)
		for _, sql := range []string{"DISTRIBUTE TABLE planted.priv.t AS REFERENCE", "DISTRIBUTE SCHEMA planted.priv ON planted_s1"} {
			d.adminFails(t, sql, "55000", x.name+` on shard "planted_s1" is not what home has`)
		}
		if n := queryOne[int](t, shard, "select count(*) from pg_class where relnamespace = 'priv'::regnamespace and relkind <> 'c'"); n > 0 {
			t.Errorf("%s: something was made on the shard", x.name)
		}
		mustExec(t, shard, x.undo)
	}
	for range 2 { // the second finds there what the first has brought
		d.adminExec(t, "DISTRIBUTE TABLE planted.priv.t AS REFERENCE")
		d.adminExec(t, "UNDISTRIBUTE TABLE planted.priv.t")
	}
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "planted_9")
	mustExec(t, connectTo(t, strings.Replace(node.DSN("planted_9"), "postgres:"+d.cluster.Password, "app:app", 1)), "create schema priv; "+planted[0].sql)
	d.adminFails(t, "CREATE SHARD planted_s9 IN planted NODE '"+node.DSN("planted_9")+"' NAME planted_n9", "55000", "type priv.d")
}

// alone is one definition of each kind, on home and, of the same name, on a shard.
var alone = []struct{ home, shard, undo string }{
	{"create function f(int) returns int language sql as 'select $1'", "create function f(int) returns int language sql as 'select $1 + 1'", "drop function f(int)"},
	{"create aggregate f(int) (sfunc = int4pl, stype = int)", "create aggregate f(int) (sfunc = int4mi, stype = int)", "drop aggregate f(int)"},
	{"create domain f as int", "create domain f as int check (value > 0)", "drop domain f"},
	{"create type f as enum ('a')", "create type f as enum ('b')", "drop type f"},
	{"create type f as (a int)", "create type f as (b int)", "drop type f"},
	{"create type f as range (subtype = int)", "create type f as range (subtype = bigint)", "drop type f"},
	{"create operator @@@@ (leftarg = int, rightarg = int, function = int4pl)", "create operator @@@@ (leftarg = int, rightarg = int, function = int4mi)", "drop operator @@@@ (int, int)"},
	{"create cast (int as point) with inout", "create cast (int as point) with inout as implicit", "drop cast (int as point)"},
	{"create collation f (locale = 'C')", "create collation f (locale = 'POSIX')", "drop collation f"},
	{"create text search dictionary f (template = simple)", "create text search dictionary f (template = simple, accept = false)", "drop text search dictionary f"},
	{"create text search configuration f (parser = default)", "create text search configuration f (copy = english)", "drop text search configuration f"},
}

// Where home has nothing that users have defined nothing is compared. One thing of any kind is something.
func TestEachKindOfDefinitionIsCompared(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "alone")
	mustExec(t, c, "create table t (id int primary key)")
	home, shard := d.on(t, "alone", 0), d.on(t, "alone", 1)
	for _, x := range alone {
		mustExec(t, home, x.home)
		mustExec(t, shard, x.shard)
		d.adminFails(t, "DISTRIBUTE TABLE alone.public.t AS REFERENCE DRY RUN", "55000", "is not what home has")
		mustExec(t, shard, x.undo)
		mustExec(t, home, x.undo)
	}
	mustExec(t, shard, "create domain f as int") // which home has not
	d.adminExec(t, "DISTRIBUTE TABLE alone.public.t AS REFERENCE DRY RUN")
}
