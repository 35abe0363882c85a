package main

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// t.f and (x).f call functions as f(t) and f(x) do. What they do is seen as if they were written so: nothing reads a part of a sharded
// table, makes copies of a reference table differ, or writes on one shard what all have in common.
func TestAttributesAreCalls(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "attributes")
	for _, sql := range []string{
		"create table plain (k int primary key, x float8, note text)", "create type pair as (x int, y int)", "create table composed (k int, p pair)", "create table numbers (k int primary key, i int, cnt bigint)",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "DISTRIBUTE TABLE attributes.public.plain AS REFERENCE")
	d.adminExec(t, "DISTRIBUTE TABLE attributes.public.numbers IN GROUP g KEY (k)")
	for _, sql := range []string{
		"insert into plain values (1, 1, 'a'), (2, 2, 'b')", "insert into codes values ('a')", "insert into local values (5)", "insert into composed values (1, (3, 4))", "insert into numbers select g, g, g from generate_series(1, 50) g",
		"create function rnd(plain) returns float8 volatile language plpgsql as 'begin return random(); end'", "create function rnd(int) returns float8 volatile language plpgsql as 'begin return random(); end'",
		"create function lies(plain) returns float8 immutable language plpgsql as 'begin return random(); end'", "create function when_(plain) returns text stable language sql as 'select now()::text'",
		"create function cnt(codes) returns bigint stable language plpgsql as 'begin return (select count(*) from parts); end'", "create function cntl(local) returns bigint stable language sql as 'select count(*) from parts'",
		"create function anyone(anyelement) returns bigint stable language plpgsql as 'begin return (select count(*) from parts); end'", "create function inside(pair) returns bigint stable language sql as 'select count(*) from parts'",
		"create function with_default(local, int default 1) returns bigint stable language plpgsql as 'begin return (select count(*) from parts); end'", "create function several(variadic int[]) returns bigint stable language plpgsql as 'begin return (select count(*) from parts); end'",
		"create function by_attribute(local) returns bigint stable language plpgsql as 'begin return $1.cntl; end'", "create function twice(local) returns bigint immutable language plpgsql as 'begin return $1.cntl; end'",
		"create function nice(local) returns int immutable language sql as 'select $1.a * 2'", "create function sum2(pair) returns int immutable language sql as 'select $1.x + $1.y'", "create function label(codes) returns text immutable language sql as 'select $1.code || ''!'''", "create function word(plain) returns text immutable language sql as 'select upper($1.note)'",
		"create function sneak(codes) returns int language plpgsql as 'begin create table sneaked (a int); return 1; end'", "create function looks(int) returns bool language plpgsql as 'begin perform count(*) from parts; return true; end'",
		"create domain looked as int check (looks(value))", "create sequence counted", "create view seen as select l.nice from local l", "create function \"Mixed\"(local) returns bigint stable language sql as 'select count(*) from parts'", "create function calls_mixed() returns bigint stable language plpgsql as 'begin return (select \"Mixed\"(l) from local l); end'",
	} {
		mustExec(t, c, sql)
	}
	time.Sleep(1200 * time.Millisecond)
	for _, x := range []struct{ sql, want string }{
		// what reads a part of the rows where it runs
		{"select c.cnt from codes c", "0A000"},
		{"select (c).cnt from codes c", "0A000"},
		{"select public.codes.cnt from public.codes", "0A000"},
		{"select l.cntl from local l", "0A000"},
		{"select local.cntl from local", "0A000"},
		{"select 1 from codes c order by c.cnt", "0A000"},
		{"select 1 from codes c where c.cnt > 3", "0A000"},
		{"select 1 from codes c group by c.cnt", "0A000"},
		{"select 1 from codes c join local l on l.cntl > 1", "0A000"},
		{"select q.cntl from (select * from local) q", "0A000"},
		{"select (select l.cntl) from local l", "0A000"},
		{"with q as (select l.cntl from local l) select * from q", "0A000"},
		{"select l.anyone from local l", "0A000"},
		{"select (5).anyone", "0A000"},
		{"select (p).inside from composed", "0A000"},
		{"select (row(1, 2)::pair).inside", "0A000"},
		{"select l.with_default from local l", "0A000"},
		{"select (4).several", "0A000"},
		{"select by_attribute(l) from local l", "0A000"},
		{"select l.by_attribute from local l", "0A000"},
		{"select l.twice from local l", "0A000"},
		{"select twice(l) from local l", "0A000"},
		{"update local set a = local.cntl", "0A000"},
		{"insert into local values ((7).anyone)", "0A000"},
		{"insert into local as l values (1) returning l.cntl", "0A000"},
		{"delete from local l where l.cntl > 7", "0A000"},
		{"explain select l.cntl from local l", "0A000"},
		{"copy (select l.cntl from local l) to stdout", "0A000"},
		{"select (5).looked", "0A000"},
		{"select looked(5)", "0A000"},
		{"select \"Mixed\"(l) from local l", "0A000"},
		{"select l.\"Mixed\" from local l", "0A000"},
		{"select calls_mixed()", "0A000"},
		// aggregates and sets
		{"select p.count from parts p", "101"},
		{"select (p.k).count from parts p", "101"},
		{"select (p.k).max from parts p", "101"},
		{"select (array[p.k, 2]).unnest from parts p order by 1 limit 1", "0A000"},
		{"select p.count from parts p limit 1", "101"},
		{"select p.count from parts p order by 1 limit 1", "101"},
		{"select count(*) from (select p.count from parts p) q", "1"},
		{"select q.c from (select p.count as c from parts p) q where q.c > 50", "101"},
		{"select q.c from (select (p.k).count as c from parts p) q where q.c > 50", "101"},
		{"select (select p.count from parts p)", "101"},
		{"select count(*) from codes c where exists (select p.count from parts p where p.k < 0)", "1"},
		{"select count(*) from parts where k in (select (p.k).max from parts p)", "1"},
		{"select (p.i).sum from parts p where i < 3", "3"},
		{"with q as (select p.count from parts p) select * from q", "101"},
		{"select p.count from parts p group by p.k having (p.i).count > 1", "SELECT 0"},
		{"select count(*) from (select (p.i).max from parts p group by p.k) q", "101"},
		{"select count(*) from (select (p.k).max from parts p group by p.i % 2) q", "2"},
		{"select distinct p.count from parts p", "101"},
		{"select p.count from parts p union all select 1", "101;1"},
		{"delete from parts p where p.k = 5 and p.count > 1", "42803"},
		{"insert into numbers select 1000 + (p.k).max, 1, 1 from parts p", "INSERT 0 1"},
		{"select count(*) from numbers where k > 1000", "1"},
		{"delete from numbers where k > 1000", "DELETE 1"},
		{"select p.count from parts p where k = 7", "1"},
		{"select q.count from (select count(*) from parts) q", "101"},
		{"with q as (select count(*) from parts) select q.count from q", "101"},
		{"select c.count from codes c", "1"},
		{"select q.max from (select i, max(k) from parts group by i) q where q.i = 3", "3"},
		{"select n.cnt from numbers n where n.k = 7", "7"},
		{"select sum(n.cnt)::int from numbers n", "1275"},
		// what is harmless
		{"select l.nice from local l", "10"},
		{"select (l).nice from local l", "10"},
		{"select nice from seen", "10"},
		{"select (p).sum2 from composed", "7"},
		{"select (composed.p).x from composed", "3"},
		{"select (p).y from composed", "4"},
		{"select c.label from codes c", "a!"},
		{"select (-4).abs", "4"},
		{"select ('parts'::text).length", "5"},
		{"select (row(7, 8)::pair).x", "7"},
		{"select (json_each('{\"a\": 1}')).key", "a"},
		{"select c.relname from pg_class c where c.relname = 'counted'", "counted"},
		{"select p.k from parts p where p.k = 3", "3"},
		{"select count(*) from parts p where p.i > 3", "98"},
		// copies
		{"update plain set x = plain.rnd", "0A000"},
		{"update plain p set x = p.rnd where k = 1", "0A000"},
		{"update plain set x = (k).rnd", "0A000"},
		{"update plain set x = 5 where plain.rnd < 0.5", "0A000"},
		{"update plain set x = plain.lies", "0A000"},
		{"update plain set note = plain.when_", "0A000"},
		{"delete from plain where plain.rnd < 0.5", "0A000"},
		{"insert into plain as p values (3, (4).rnd, 'c')", "0A000"},
		{"insert into plain as p values (1, 1, 'c') on conflict (k) do update set x = p.rnd", "0A000"},
		{"insert into plain values (1, 1, 'c') on conflict (k) do update set x = excluded.rnd", "0A000"},
		{"update plain set x = 9 where k = 2 returning plain.rnd", "0A000"},
		{"update plain set x = (plain).rnd", "0A000"},
		{"update plain set x = (array[1.5::float8])[1]", "UPDATE 2"},
		{"update plain set note = plain.word where k = 1", "UPDATE 1"},
		{"update plain set note = (note).upper", "UPDATE 2"},
		{"update plain set x = ('plain'::regclass).pg_relation_size", "0A000"},
		{"update plain set x = ('counted'::regclass).nextval", "0A000"},
		{"update plain set note = timestamptz('now')::text", "0A000"},
		{"update plain set note = ('now').timestamptz::text", "0A000"},
		{"update plain set note = date('2020-01-01')::text", "UPDATE 2"},
		{"update plain set note = ('2020-01-01').date::text", "UPDATE 2"},
		{"alter table plain add column y float8 default (1).rnd", "0A000"},
		{"alter table plain alter column x type float8 using plain.rnd", "0A000"},
	} {
		if got := says(t, c, x.sql, pgx.QueryExecModeSimpleProtocol); got != x.want {
			t.Errorf("%s: %s, want %s", x.sql, got, x.want)
		}
		if all := copiesOf(t, d, "attributes", "plain"); all[0] != all[1] || all[1] != all[2] {
			t.Fatalf("%s: the copies differ: %q", x.sql, all)
		}
	}
	s := connectTo(t, c.Config().ConnString())
	mustExec(t, s, "set pgmosaic.shard = 'attributes_s1'")
	for _, sql := range []string{"select codes.sneak from codes", "select (c).sneak from codes c", "select 1 from codes c where c.sneak = 1", "select ('counted'::regclass).nextval", "select (0::oid).lo_create", "insert into parts values (((1)).nextval, 1)"} {
		if got := says(t, s, sql, pgx.QueryExecModeSimpleProtocol); got != "0A000" {
			t.Errorf("%s on one shard: %s", sql, got)
		}
	}
	for i := range 3 {
		if queryOne[bool](t, d.on(t, "attributes", i), "select to_regclass('sneaked') is not null") {
			t.Errorf("table sneaked is on shard %d", i)
		}
	}
}

// What a function leaves on a server ties its session to it, as an attribute as by name: nobody else gets the lock.
func TestAttributesTieSessions(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 1, nil)
	for sql, want := range map[string]string{"select (4711::bigint).pg_advisory_lock": "advisory lock", "select (4712::bigint).pg_try_advisory_lock_shared": tryLockPin, "select (0.5::float8).setseed": "setseed"} {
		c := connectTo(t, a.dsn())
		mustExec(t, c, sql)
		if got := strings.Join(pins(a), ", "); got != want {
			t.Errorf("%s: pins %q, want %q", sql, got, want)
		}
		_ = c.Close(t.Context())
		eventually(t, "the pin goes with its session", func() bool { return len(pins(a)) == 0 })
	}
	for i := range 2 {
		node := connectTo(t, d.cluster.Node([]string{"s1-a", "s2-a"}[i]).DSN("shop"))
		eventually(t, "the locks are gone", func() bool {
			return queryOne[int](t, node, "select count(*) from pg_locks where locktype = 'advisory' and objid in (4711, 4712)") == 0
		})
	}
}

// tryLockPin is how a lock is shown that may not have been taken.
const tryLockPin = "advisory lock, tried"
