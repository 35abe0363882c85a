package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// ownPool is a process of its own with one server for each shard of a database, which setUp has been run on at home: each of it as app, over a
// connection of its own.
func ownPool(t *testing.T, name string, setUp []string, nodes ...string) (dsn string) {
	t.Helper()
	d := shop(t)
	cfg := smallConfig(t, d, 1, nil)
	cfg.Direct.Setup = []string{"CREATE DATABASE " + name}
	for i, n := range nodes {
		phys := fmt.Sprintf("%s_%d", name, i)
		freshDatabase(t, d.cluster.Node(n), phys)
		cfg.Direct.Setup = append(cfg.Direct.Setup, fmt.Sprintf("CREATE SHARD %s_s%d IN %[1]s NODE '%[3]s'", name, i, d.cluster.Node(n).DSN(phys)))
	}
	home := strings.Replace(d.cluster.Node(nodes[0]).DSN(name+"_0"), "postgres:"+d.cluster.Password, "app:app", 1)
	for _, sql := range setUp {
		mustExec(t, connectTo(t, home), sql, pgx.QueryExecModeSimpleProtocol)
	}
	return dsnFor("app", "app", startApp(t, cfg).Server.Addr(), name)
}

// changesAll is what code does that leaves its session another role, memory and path.
const changesAll = "perform set_config('work_mem', '777kB', false); perform set_config('role', 'unnamed_other', false); perform set_config('search_path', 'nowhere', false);"

// unnamed are statements that run code of a database where they do not name it, with what makes it.
var unnamed = []struct{ name, setup, run string }{
	{"an operator", "create function f1(a int, b int) returns int language plpgsql as $$ begin BODY return a; end $$; create operator <!!> (function = f1, leftarg = int, rightarg = int)", "select 1 <!!> 2"},
	{"a function's operator", "create function f1b(a int) returns int language sql as 'select a <!!> 1'", "select f1b(2)"},
	{"a view's operator", "create view v1 as select 1 <!!> 2 as x", "select * from v1"},
	{"an attribute", "create table t2 (a int); insert into t2 values (1); create function f2(t2) returns int language plpgsql as $$ begin BODY return 1; end $$", "select t2.f2 from t2"},
	{"an attribute of a value", "", "select (row(1)::t2).f2"},
	{"a domain", "create function f3(a int) returns bool language plpgsql as $$ begin BODY return true; end $$; create domain d3 as int check (f3(value))", "select 5::d3"},
	{"a column of a domain", "create table t3 (a d3)", "insert into t3 values (1)"},
	{"an array of a domain", "", "select '{5}'::d3[]"},
	{"a composite type with a domain", "create type c3 as (x d3)", "select '(5)'::c3"},
	{"a record of JSON", "", "select jsonb_populate_record(null::c3, '{\"x\": 5}')"},
	{"a cast", "create type m4 as enum ('a'); create function f4(m4) returns int language plpgsql as $$ begin BODY return 1; end $$; create cast (m4 as int) with function f4(m4) as implicit", "select 'a'::m4::int"},
	{"an aggregate", "create function f5(a int, b int) returns int language plpgsql as $$ begin BODY return a; end $$; create aggregate ag5(int) (sfunc = f5, stype = int, initcond = '0')", "select ag5(a) from t2"},
	{"a policy", "create function f6(a int) returns bool language plpgsql as $$ begin BODY return true; end $$; create table t6 (a int); insert into t6 values (1); alter table t6 enable row level security; alter table t6 force row level security; create policy p on t6 using (f6(a))", "select * from t6"},
	{"a CHECK", "create function f7(a int) returns bool language plpgsql as $$ begin BODY return true; end $$; create table t7 (a int check (f7(a)))", "insert into t7 values (1)"},
	{"a CHECK, by COPY", "", "copy t7 from stdin"},
	{"a CHECK behind a view", "create view v7 as select a from t7", "insert into v7 values (1)"},
	{"a new CHECK", "create table t7b (a int); insert into t7b values (1)", "alter table t7b add constraint ck check (f7(a))"},
	{"a generated column", "create function f8(a int) returns int language plpgsql immutable as $$ begin BODY return 1; end $$; create table t8 (a int, b int generated always as (f8(a)) stored)", "insert into t8 values (1)"},
	{"an index", "create function f9(a int) returns int language plpgsql immutable as $$ begin BODY return 1; end $$; create table t9 (a int); create index on t9 (f9(a))", "insert into t9 values (1)"},
	{"a cascade's trigger", "create table p10 (a int primary key); create table c10 (a int references p10 on delete cascade); insert into p10 values (1), (2); insert into c10 values (1), (2); create function f10() returns trigger language plpgsql as $$ begin BODY return old; end $$; create trigger tr after delete on c10 for each row execute function f10()", "delete from p10 where a = (select min(a) from p10)"},
	{"a partition's trigger", "create table p11 (a int) partition by range (a); create table p11_1 partition of p11 for values from (0) to (10); create function f11() returns trigger language plpgsql as $$ begin BODY return new; end $$; create trigger tr after insert on p11_1 for each row execute function f11()", "insert into p11 values (1)"},
	{"a trigger's condition", "create table t12 (a int); create function f12() returns trigger language plpgsql as $$ begin return new; end $$; create trigger tr before insert on t12 for each row when ((new.a <!!> 1) = 5) execute function f12()", "insert into t12 values (1)"},
	{"a trigger below a view", "create table t16 (a int); create trigger tr before insert on t16 for each row execute function f11(); create view v16 as select a from t16", "insert into v16 values (1)"},
	{"a trigger below a WITH", "", "with x as (insert into t16 values (1) returning a) select * from x"},
	{"a trigger behind a function", "create function f17() returns void language sql as 'insert into t16 values (1)'", "select f17()"},
	{"a view behind a function", "create function f19() returns int language plpgsql as $$ begin BODY return 1; end $$; create view v19 as select f19() as x; create function g19() returns bigint language sql as 'select count(x) from v19'", "select g19()"},
	{"a rule", "create function f13() returns int language plpgsql as $$ begin BODY return 1; end $$; create table t13 (a int); create rule r as on insert to t13 do also select f13()", "insert into t13 values (1)"},
	{"a domain's default", "create domain d14 as int default f13(); create table t14 (a int, b d14)", "insert into t14 (a) values (1)"},
	{"a new column's default", "", "alter table t2 add column b d3 default 5"},
	{"a table made of a query", "", "create table w18 as select 5::d3 as x"},
}

// What runs nobody's code leaves the isolation of its transaction to be chosen, whatever code of the database could run: to look what such code
// has set takes a snapshot.
func TestTheIsolationIsChosenBehindWhatRunsNoCode(t *testing.T) {
	t.Parallel()
	c := connectTo(t, ownPool(t, "chosenlate", []string{
		"create function sets(v text) returns bool language plpgsql as $$ begin perform set_config('search_path', v, true); return true; end $$; create domain late as text check (sets(value)); create table t (a int)",
	}, "s1-a", "s2-a"))
	for _, first := range []string{"show transaction_read_only", "lock table t in share mode", "notify late", "set constraints all deferred", "set constraints all immediate"} {
		for _, then := range []string{"begin isolation level repeatable read", "set transaction isolation level repeatable read"} {
			for _, sql := range []string{"begin", first, then} {
				mustExec(t, c, sql, pgx.QueryExecModeSimpleProtocol)
			}
			if got := simply(t, c, "show transaction_isolation"); got != "repeatable read" {
				t.Errorf("behind %s and %s: %s", first, then, got)
			}
			mustExec(t, c, "rollback")
		}
	}
}

// What code of a database sets that runs where no statement names it is the session's, and nobody else's.
func TestUnnamedCodeLeavesNothingToOthers(t *testing.T) {
	t.Parallel()
	node := connectTo(t, shop(t).cluster.Node("s1-a").DSN("postgres"))
	mustExec(t, node, "drop role if exists unnamed_other")
	mustExec(t, node, "create role unnamed_other")
	mustExec(t, node, "grant unnamed_other to app")
	var setUp []string
	for _, x := range unnamed {
		setUp = append(setUp, strings.ReplaceAll(x.setup, "BODY", changesAll))
	}
	dsn := ownPool(t, "unnamed", setUp, "s1-a")
	const who = "select current_user || ' ' || current_setting('work_mem') || ' ' || current_setting('search_path')"
	for _, x := range unnamed {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeDescribeExec} {
			what := fmt.Sprintf("%s (%s)", x.name, mode)
			c, other := connectTo(t, dsn), connectTo(t, dsn)
			run := x.run
			var err error
			if strings.HasPrefix(run, "copy") {
				_, err = c.PgConn().CopyFrom(t.Context(), strings.NewReader("1\n"), run)
			} else {
				_, err = c.Exec(t.Context(), run, mode)
			}
			if err != nil && (mode == pgx.QueryExecModeSimpleProtocol || !strings.Contains(err.Error(), "exists")) {
				t.Errorf("%s: %v", what, err)
			}
			if got := says(t, other, who, mode); got != `app 4MB "$user", public` {
				t.Errorf("%s: another client is %s", what, got)
			}
			if got := says(t, c, "select current_setting('work_mem')", mode); err == nil && got != "777kB" {
				t.Errorf("%s: the session has work_mem %s", what, got)
			}
			_, _ = c.Close(t.Context()), other.Close(t.Context())
		}
	}
}

// To parse a literal of a type runs the checks of its parts: what they set is nobody else's, whatever comes of the statement.
func TestParsingLeavesNothingToOthers(t *testing.T) {
	t.Parallel()
	dsn := ownPool(t, "unparsed", []string{
		"create function v(a int) returns bool immutable language plpgsql as $$ begin perform set_config('work_mem', '777kB', false); return true; end $$; create domain dm as int check (v(value)); create type pr as (x dm)",
	}, "s1-a")
	for what, send := range map[string]func(r *raw){
		"Parse":              func(r *raw) { r.SendParse("", "select '(5)'::pr", nil); r.SendSync() },
		"Parse, named":       func(r *raw) { r.SendParse("named", "select '(5)'::pr", nil); r.SendSync() },
		"Parse, Describe":    func(r *raw) { r.SendParse("", "select '(5)'::pr", nil); r.SendDescribe('S', ""); r.SendSync() },
		"Parse, Bind":        func(r *raw) { r.SendParse("", "select '(5)'::pr", nil); r.Send(&wire.Bind{}); r.SendSync() },
		"PREPARE":            func(r *raw) { r.SendQuery("prepare p as select '(5)'::pr") },
		"EXPLAIN":            func(r *raw) { r.SendQuery("explain select '(5)'::pr") },
		"an error behind it": func(r *raw) { r.SendQuery("select '(5)'::pr, 1/0") },
	} {
		r := rawTo(t, dsn)
		send(r)
		said := r.until('Z')
		other := connectTo(t, dsn)
		if got := says(t, other, "select current_setting('work_mem')", pgx.QueryExecModeSimpleProtocol); got != "4MB" {
			t.Errorf("%s (%s): another client has %s", what, said, got)
		}
		_, _ = r.Close(), other.Close(t.Context())
	}
}

// What only seems to read, and writes in code that it does not name, commits with the other shards or not at all.
func TestUnnamedWritesCommitWithTheOthers(t *testing.T) {
	t.Parallel()
	tables := []string{
		"create table audit (a int); create function refuses() returns trigger language plpgsql as $$ begin raise 'not at all'; end $$; create constraint trigger late after insert on audit deferrable initially deferred for each row execute function refuses()",
		"create table parts (k int primary key, v int)",
		"create function noted(a int) returns bool language plpgsql as $$ begin insert into audit values (a); return true; end $$",
	}
	untorn(t, "untorn", append(slices.Clip(tables),
		"create function noted2(a int, b int) returns bool language plpgsql as $$ begin insert into audit values (a); return true; end $$; create operator <!!> (function = noted2, leftarg = int, rightarg = int)",
		"create domain dm as int check (noted(value)); create view vop as select 1 <!!> 2 as x",
		"create table guarded (a int); insert into guarded values (1); alter table guarded enable row level security; alter table guarded force row level security; create policy p on guarded using (noted(a))",
	), "select noted(1)", "select a from guarded", "select 5::dm", "select * from vop", "select 1 <!!> 2")
	untorn(t, "asked", append(slices.Clip(tables), "create function quietly() returns bool stable language sql as 'select noted(1)'"),
		"select quietly()", "select att.w from att", "select noted(1)", "select (1).noted", "select replaced()")
}

// untorn has each of some statements, which write on home, in one transaction with a write on another shard; home refuses at COMMIT.
func untorn(t *testing.T, name string, setUp []string, statements ...string) {
	t.Helper()
	dsn := ownPool(t, name, setUp, "s1-a", "s2-a")
	d := shop(t)
	admin := connectTo(t, strings.Replace(strings.Replace(dsn, "app:app", "admin:admin", 1), "/"+name, "/pgmosaic", 1)+"?default_query_exec_mode=simple_protocol")
	mustExec(t, admin, "CREATE GROUP g IN "+name+" KEY (int) BY HASH")
	mustExec(t, admin, "DISTRIBUTE TABLE "+name+".public.parts IN GROUP g KEY (k)")
	c := connectTo(t, dsn)
	for _, sql := range []string{
		"create table att (a int)", "insert into att values (1)", "create function w(att) returns bool stable language sql as 'select noted(1)'",
		"insert into parts select i, 0 from generate_series(1, 40) i", "create function replaced() returns bool stable language sql as 'select true'",
	} {
		mustExec(t, c, sql)
	}
	away, home := connectTo(t, d.cluster.Node("s2-a").DSN(name+"_1")), connectTo(t, d.cluster.Node("s1-a").DSN(name+"_0"))
	mustExec(t, home, "create or replace function replaced() returns bool stable language sql as 'select noted(1)'") // around the process, which goes on by what it knows
	key := queryOne[int](t, away, "select min(k) from parts")
	write := fmt.Sprintf("update parts set v = v + 1 where k = %d", key)
	for _, sql := range statements {
		for _, order := range [][]string{{sql, write}, {write, sql}, {sql, write, "set transaction read only"}, {"set default_transaction_read_only = on", write, sql}} {
			mustExec(t, c, "begin")
			for _, s := range order {
				mustExec(t, c, s, pgx.QueryExecModeSimpleProtocol)
			}
			tag, err := c.Exec(t.Context(), "commit")
			if err == nil {
				t.Errorf("%s: %s, and its shard refuses it", order, tag)
			}
			if v, n := queryOne[int](t, away, "select v from parts where k = $1", key), queryOne[int](t, home, "select count(*) from audit"); v != 0 || n != 0 {
				t.Fatalf("%s: a part of it is there: %d, %d", order, v, n)
			}
		}
	}
}

// What functions of extensions set or keep for a session is nobody else's.
func TestExtensionsKeepNothingForOthers(t *testing.T) {
	t.Parallel()
	node := shop(t).cluster.Node("s1-a")
	dsn := ownPool(t, "extended", []string{"create extension pg_trgm"}, "s1-a")
	mustExec(t, connectTo(t, node.DSN("extended_0")), "create extension dblink")
	for run, asks := range map[string]string{
		"select set_limit(0.9)": "select show_limit()::text",
		fmt.Sprintf("select dblink_connect('secret', 'host=127.0.0.1 port=%d user=app password=app dbname=extended_0')", node.Port): "select coalesce(array_to_string(dblink_get_connections(), ','), 'none')",
	} {
		for _, inside := range []bool{false, true} {
			c := connectTo(t, dsn)
			want := says(t, c, asks, pgx.QueryExecModeSimpleProtocol)
			if inside {
				run = "do $$begin perform" + strings.TrimPrefix(run, "select") + "; end$$"
			}
			mustExec(t, c, run, pgx.QueryExecModeSimpleProtocol)
			if got := says(t, c, asks, pgx.QueryExecModeSimpleProtocol); got == want {
				t.Errorf("%s: the session has %s", run, got)
			}
			_ = c.Close(t.Context())
			if got := says(t, connectTo(t, dsn), asks, pgx.QueryExecModeSimpleProtocol); got != want {
				t.Errorf("%s: another client has %s, not %s", run, got, want)
			}
		}
	}
}
