package main

import (
	"strings"
	"testing"
)

// A literal of a composite, array or range type is read where a definition is parsed, and a domain in it runs its CHECK then, as whoever
// defines. What users define on home does not run so on a shard, as the role of its node.
func TestNoLiteralInADefinitionRunsAUsersCode(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "literal")
	home := d.on(t, "literal", 0)
	for _, sql := range []string{
		"create table codes (k int primary key)",
		"create function seize() returns boolean language plpgsql as $$ begin execute 'alter role app superuser'; return true; exception when insufficient_privilege then return true; end $$",
		"create domain bad as int check (public.seize())", "create type pair as (x bad)",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN literal KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE literal.public.codes AS REFERENCE")
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "literal_3")
	create := "CREATE SHARD literal_s3 IN literal NODE '" + node.DSN("literal_3") + "' NAME literal_n3"
	seized := func(what string) {
		t.Helper()
		for i := range 3 {
			if queryOne[bool](t, d.on(t, "literal", i), "select rolsuper from pg_roles where rolname = 'app'") {
				mustExec(t, d.on(t, "literal", i), "alter role app nosuperuser")
				t.Errorf("%s: app is a superuser by shard %d", what, i)
			}
		}
	}
	asApp := func(sql string) {
		t.Helper()
		for _, s := range []string{"set role app", sql, "reset role"} {
			mustExec(t, home, s)
		}
	}
	for _, x := range []struct{ plant, undo string }{
		{"create function f(a pair default '(1)') returns int language sql as 'select 1'", "drop function f"},
		{"create function f(a bad[] default '{1}') returns int language sql as 'select 1'", "drop function f"},
		{"create function f() returns int language sql return ('(1)'::pair).x::int", "drop function f"},
		{"create domain dear as pair default '(1)'", "drop domain dear"},
		{"create domain dear as int check (value <> ('(1)'::pair).x)", "drop domain dear"},
		{"create function g(a pair, b int) returns pair language sql as 'select a'; create aggregate f(int) (sfunc = g, stype = pair, initcond = '(1)')", "drop aggregate f(int); drop function g"},
	} {
		asApp(x.plant)
		d.adminExec(t, create+" DRY RUN") // it is made as its owner
		seized(x.plant)
		mustExec(t, home, "alter "+strings.Split(strings.TrimPrefix(x.undo, "drop "), ";")[0]+" owner to postgres") // it would be made as a superuser
		d.adminFails(t, create+" DRY RUN", "0A000", "holds a literal")
		seized(x.plant)
		mustExec(t, home, x.undo)
	}
	mustExec(t, c, "create function nothing() returns trigger language plpgsql as 'begin return new; end'")
	for _, x := range []string{
		"create table later (k int primary key, x int default ('(1)'::pair).x)",
		"create table later (k int primary key, x int); create policy p on later using (k <> ('(1)'::pair).x)",
		"create table later (k int primary key, x int); create trigger w before insert on later for each row when (new.k <> ('(1)'::pair).x) execute function nothing()",
		"create table later (k int primary key, x int); create index on later (k) where k <> ('(1)'::pair).x",
		"create table later (k int primary key, x int); create statistics s on (k + ('(1)'::pair).x), x from later",
	} {
		asApp(x)
		for _, verb := range []string{" IN GROUP g KEY (k)", " AS REFERENCE"} {
			d.adminFails(t, "DISTRIBUTE TABLE literal.public.later"+verb, "0A000", "holds a literal")
			seized(x + verb)
		}
		mustExec(t, home, "drop table later")
	}
	// Where it is nobody's to abuse, or runs as its owner, it stays.
	asApp("create type point2 as (x int, y int)")
	asApp("create table placed (k int primary key, at point2 default '(0,0)', check (at <> '(1,1)'::point2))")
	asApp("create function nulls(a pair default null, b int[] default '{1}') returns int language sql as 'select 1'")
	for i := 1; i < 3; i++ {
		for _, sql := range []string{"create type point2 as (x int, y int)", "alter type point2 owner to app"} {
			mustExec(t, d.on(t, "literal", i), sql)
		}
	}
	asApp("create function kept(a pair default '(1)', b bad[] default '{1}') returns int language sql as 'select 1'")
	d.adminExec(t, "DISTRIBUTE TABLE literal.public.placed AS REFERENCE")
	d.adminExec(t, create)
	seized("in the end")
}
