package main

import (
	"slices"
	"strings"
	"testing"
)

// What columns and indexes are sorted, found and searched by comes to shards with the tables: collations, operator classes and
// families, what searches text, extensions. VERIFY SCHEMA compares it.
func TestShardsGetWhatIndexesNeed(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "sorted")
	home := d.on(t, "sorted", 0)
	for _, sql := range []string{ // past the proxy: the other shards have nothing of it
		`create schema "odd.one"`, `create collation "odd.one"."sorted, so" (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`, "create collation bytes (provider = libc, locale = 'C')", "alter collation bytes owner to app",
		`create text search dictionary "odd.one".heads (template = pg_catalog.simple, stopwords = english, accept = false)`, "create text search dictionary stems (template = snowball, language = 'german')",
		`create text search configuration said (parser = pg_catalog."default")`, `alter text search configuration said add mapping for asciiword, word, hword_asciipart with "odd.one".heads, stems`, "alter text search configuration said owner to app",
		"create function backwards(int, int) returns int immutable language sql as 'select $2 - $1'", "create function hashed(int) returns int immutable language sql as 'select $1 % 7'",
		"create operator class descending for type int using btree as operator 1 >, operator 2 >=, operator 3 =, operator 4 <=, operator 5 <, function 1 backwards(int, int)",
		"create operator class hashes for type int using hash as operator 1 =, function 1 hashed(int)",
		"create operator family wide using btree", "create operator class wide_int for type int using btree family wide as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 btint4cmp(int, int)",
		"alter operator family wide using btree add operator 3 = (int, bigint), function 1 (int, bigint) btint48cmp(int, bigint)",
		"create type span as range (subtype = int, subtype_opclass = descending)", "create extension pg_trgm",
		`create table words (k int primary key, w text collate "odd.one"."sorted, so", b text collate bytes, s span default '[3,1)', g tsvector generated always as (to_tsvector('said', b)) stored)`,
		"create index on words (k descending)", "create index on words using hash (k hashes)", "create index on words (k wide_int, b)", "create index on words using gin (b gin_trgm_ops)", "create index on words using gin (to_tsvector('public.said', b))",
		"alter table words owner to app", "insert into words (k, w, b) select i, 'W' || i % 7, 'Die Häuser ' || i from generate_series(1, 50) i", "create table codes (w text collate \"odd.one\".\"sorted, so\" primary key)", "insert into codes values ('x')",
	} {
		mustExec(t, home, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN sorted KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE sorted.public.words IN GROUP g KEY (k) DRY RUN")
	d.adminExec(t, "DISTRIBUTE TABLE sorted.public.words IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE sorted.public.codes AS REFERENCE")
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "sorted_3")
	d.adminExec(t, "CREATE SHARD sorted_s3 IN sorted NODE '"+node.DSN("sorted_3")+"' NAME sorted_n3")
	if rows := d.adminExec(t, "VERIFY SCHEMA IN sorted"); len(rows) != 0 {
		t.Errorf("VERIFY SCHEMA: %v", rows)
	}
	for i := range 4 {
		if n := queryOne[int](t, d.on(t, "sorted", i), "select count(*) from codes where w = 'X'"); n != 1 {
			t.Errorf("shard %d: %d rows by a collation", i, n)
		}
	}
	if n := queryOne[int](t, c, "select count(*) from words where w = 'w3' and g @@ to_tsquery('said', 'Haus') and b ~ 'Häuser'"); n != 7 {
		t.Errorf("%d rows are found", n)
	}
	shard := d.on(t, "sorted", 1)
	for _, x := range []struct{ plant, undo, want string }{
		{"create collation planted (provider = libc, locale = 'C')", "drop collation planted", "collation public.planted"},
		{"alter text search configuration said drop mapping for word", `alter text search configuration said add mapping for word with "odd.one".heads, stems`, "text search configuration public.said"},
		{"create operator class surplus for type bigint using btree as operator 3 =, function 1 btint8cmp(bigint, bigint)", "drop operator family surplus using btree", "operator class public.surplus of btree"},
		{"alter operator family wide using btree drop operator 3 (int, bigint)", "alter operator family wide using btree add operator 3 = (int, bigint)", "family member operator 3 =(integer,bigint) of public.wide of btree"},
	} {
		mustExec(t, shard, x.plant)
		kind := func(r []any) bool { return r[1].(string)+" "+r[2].(string) == x.want }
		if rows := d.adminExec(t, "VERIFY SCHEMA IN sorted"); !slices.ContainsFunc(rows, kind) {
			t.Errorf("%s: %v", x.plant, rows)
		}
		mustExec(t, shard, x.undo)
	}
	mustExec(t, home, "alter text search dictionary stems (language = 'english')")
	mustExec(t, home, "create table later (k int primary key)")
	d.adminFails(t, "DISTRIBUTE TABLE sorted.public.later AS REFERENCE", "55000", "text search dictionary public.stems on shard \"sorted_s1\" is not what home has")
	mustExec(t, home, "alter text search dictionary stems (language = 'german')")
}

// What a server cannot have is named before anything is changed: an extension that is not there, a role of a superuser's, a function
// over a table that stays at home.
func TestWhatAShardCannotHaveIsNamedFirst(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "lacked")
	home := d.on(t, "lacked", 0)
	mustExec(t, c, "create table codes (id int primary key)")
	d.adminExec(t, "DISTRIBUTE TABLE lacked.public.codes AS REFERENCE")
	mustExec(t, c, "create table later (id int primary key)")
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "lacked_3")
	there := connectTo(t, node.DSN("lacked_3"))
	create := "CREATE SHARD lacked_s3 IN lacked NODE '" + node.DSN("lacked_3") + "' NAME lacked_n3"
	mustExec(t, home, "create table apart (a int)")
	for _, x := range []struct{ plant, undo, want string }{
		{"insert into pg_extension select 1999999999, 'absent', 10, 'public'::regnamespace, true, '1.0'", "delete from pg_extension where extname = 'absent'", `extension absent, which home has, cannot be made on shard`},
		{"create function whole(apart) returns int language sql as 'select 1'", "drop function whole(apart)", "function public.whole(public.apart), which home has, cannot be made on shard"},
	} {
		mustExec(t, home, x.plant)
		version := d.Catalog.Current().Version
		for _, verb := range []string{create + " DRY RUN", create, "DISTRIBUTE TABLE lacked.public.later AS REFERENCE"} {
			_, err := d.Admin.Exec(t.Context(), verb, false)
			if err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%s beside %s: %v", verb, x.plant, err)
			}
		}
		if n := queryOne[int](t, there, "select count(*) from pg_namespace where nspname = 'pgmosaic'"); n != 0 {
			t.Errorf("%s: the server has been touched", x.plant)
		}
		if now := d.Catalog.Current().Version; now != version {
			t.Errorf("%s: the map has been changed", x.plant)
		}
		mustExec(t, home, x.undo)
	}
	d.adminExec(t, create)
	d.adminExec(t, "DISTRIBUTE TABLE lacked.public.later AS REFERENCE")
}

// A function that fits the words of a definition better than the one that home's means is no part of a copy: it would run as whoever
// the other is trusted to run as, and judge rows otherwise than home.
func TestOverloadsAreNotTakenForWhatHomeMeans(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "overloaded")
	home := d.on(t, "overloaded", 0)
	for i := range 3 {
		for _, sql := range []string{
			"create function fine(anyelement) returns boolean immutable language sql as 'select true'", "create function same(anyelement, anyelement) returns boolean immutable language sql as 'select true'",
			"create operator === (function = same, leftarg = anyelement, rightarg = anyelement)",
		} {
			mustExec(t, d.on(t, "overloaded", i), sql)
		}
	}
	for _, sql := range []string{
		"create table checked (k int primary key, v int check (fine(v)))", "create table computed (k int primary key, v int generated always as (fine(k)::int) stored)", "create table compared (k int primary key, v int check (v operator(public.===) 1))",
		"create table indexed (k int primary key)", "create index on indexed (fine(k))", "create table filled (k int primary key, v boolean default fine(1))", "create table watched (k int primary key)", "create policy p on watched using (fine(k))",
		"create domain judged as int check (fine(value))", "create table typed (k int primary key, v judged)",
	} {
		mustExec(t, home, sql)
	}
	tables := []string{"checked", "computed", "compared", "indexed", "filled", "watched", "typed"}
	for _, n := range tables {
		mustExec(t, home, "insert into "+n+" (k) values (1), (2), (3)")
		mustExec(t, home, "alter table "+n+" owner to app")
	}
	planted := []string{
		"create function seize() returns boolean language plpgsql as $$ begin execute 'alter role app superuser'; return false; exception when insufficient_privilege then return false; end $$",
		"create function fine(int) returns boolean immutable language plpgsql as 'begin return public.seize(); end'", "create function same(int, int) returns boolean immutable language plpgsql as 'begin return public.seize(); end'",
		"create operator public.=== (function = same, leftarg = int, rightarg = int)",
	}
	for _, sql := range planted {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN overloaded KEY (int) BY HASH")
	for _, n := range tables {
		for _, verb := range []string{" AS REFERENCE", " IN GROUP g KEY (k)"} {
			d.adminFails(t, "DISTRIBUTE TABLE overloaded.public."+n+verb, "55000", "by the same words")
		}
	}
	for i := range 3 {
		if queryOne[bool](t, d.on(t, "overloaded", i), "select rolsuper from pg_roles where rolname = 'app'") {
			mustExec(t, d.on(t, "overloaded", i), "alter role app nosuperuser")
			t.Errorf("app is a superuser by shard %d", i)
		}
	}
	mustExec(t, c, "drop operator public.=== (int, int); drop function same(int, int), fine(int), seize()")
	for _, n := range tables {
		d.adminExec(t, "DISTRIBUTE TABLE overloaded.public."+n+" AS REFERENCE")
	}
}
