package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// What a statement runs without naming it writes no copy of a reference table, and reads no part of a sharded one: operators, casts,
// aggregates, domains, defaults, CHECKs, indexes, rules, policies, and functions that lie about what they do.
func TestNothingUnseenReachesDistributedTables(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "unseen")
	home := connectTo(t, d.asApp("s1-a", "unseen_0"))
	mustExec(t, c, "insert into local values (5)")
	for _, sql := range []string{
		"create type mood as enum ('a', 'b')", "create type pair as (x int, y int)",
	} {
		mustExec(t, c, sql)
	}
	for _, x := range []struct{ p, body string }{
		{"w", "insert into codes values ('w' || gen_random_uuid())"}, // writes a copy
		{"r", "perform count(*) from parts"},                         // reads a part
	} {
		p := x.p
		for _, sql := range []string{
			"create function $two(a int, b int) returns int language plpgsql as $$ begin BODY; return a; end $$",
			"create function $one(a int) returns int language plpgsql as $$ begin BODY; return a; end $$",
			"create function $mood(a mood) returns int language plpgsql as $$ begin BODY; return 1; end $$",
			"create function $check(a int) returns bool language plpgsql as $$ begin BODY; return true; end $$",
			"create function $lie(a int) returns int immutable language plpgsql as $$ begin return $one(a); end $$",
			"create function $row() returns trigger language plpgsql as $$ begin BODY; return new; end $$",
			"create operator <$+> (function = $two, leftarg = int, rightarg = int)", "create operator !$ (function = $one, rightarg = int)",
			"create aggregate $agg(int) (sfunc = $two, stype = int, initcond = '0')", "create domain $dom as int check ($check(value))", "create domain $def as int default $one(7)",
			"create table $doms (a int, d $dom)", "create table $defs (a int, d $def)", "create table $cols (a int, d int default (1 <$+> 2))", "create table $arrays (a $dom[])",
			"create table $checks (a int check ($lie(a) > 0))", "create table $indexed (a int)", "create index on $indexed ($lie(a))", "create table $made (a int, b int generated always as ($lie(a)) stored)",
			"create table $fired (a int)", "create trigger fires before insert on $fired for each row execute function $row()", "create view $seen as select a <$+> 1 as a from local",
			"create table $guarded (a int)", "insert into $guarded values (1)", "create policy p on $guarded using ((a <$+> 1) > 0)", "alter table $guarded enable row level security", "alter table $guarded force row level security",
			"create function $wraps(a int) returns int language sql as 'select a <$+> 1'", "create function $casts(a int) returns int language plpgsql as $$ declare x $dom; begin x := a; return x; end $$",
			"create table $ruled (a int)", "create rule r as on insert to $ruled do also select $one(1)",
			"create table $counted (a int)", "create rule r as on insert to $counted do also select count(*) from parts",
		} {
			sql = strings.ReplaceAll(unseen(sql, p), "BODY", x.body)
			if _, err := c.Exec(t.Context(), sql); pgCode(err) == "0A000" { // it names what it runs
				mustExec(t, home, sql)
			} else if err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
	}
	for _, sql := range []string{"create table moods (m mood)", "insert into moods values ('a')", "create table ints (a int)", "create cast (mood as int) with function wmood(mood) as implicit"} {
		mustExec(t, c, sql)
	}
	copies := [3]*pgx.Conn{d.on(t, "unseen", 0), d.on(t, "unseen", 1), d.on(t, "unseen", 2)}
	before := [3]string{}
	same := func(what string) {
		t.Helper()
		for i, c := range copies {
			if s := queryOne[string](t, c, "select coalesce(string_agg(code, ',' order by code), '') from codes"); s != before[i] {
				t.Errorf("%s: shard %d holds %q, it held %q", what, i, s, before[i])
				before[i] = s
			}
		}
	}
	sessions := map[string]*pgx.Conn{"": c}
	for _, shard := range []string{"unseen_s0", "unseen_s1"} {
		s := connectTo(t, c.Config().ConnString())
		mustExec(t, s, "set pgmosaic.shard = '"+shard+"'")
		sessions[shard] = s
	}
	for _, p := range []string{"w", "r"} {
		for _, sql := range []string{
			"select 1 <$+> 2", "select 1 operator(public.<$+>) 2", "select !$ 1", "select a <$+> 1 from local", "select k from parts where (i <$+> 1) = 5", "select k from parts where k = 5 and (i <$+> 1) = 5", "update parts set i = i <$+> 1 where k = 5",
			"update local set a = !$ a", "insert into local values (1 <$+> 2)", "delete from local where (a <$+> 1) = -9", "select a from local order by a <$+> 1", "select case when true then 1 <$+> 2 end", "select 5 <$+> any (array[1, 2])",
			"select $agg(a) from local", "select $agg(i) from parts", "select $agg(a) over () from local", "select 5::$dom", "select cast(5 as $dom)", "insert into $doms values (1, 2)", "update $doms set d = 1", "select '{1}'::$dom[]", "insert into $arrays values ('{1}')",
			"insert into $defs (a) values (1)", "insert into $defs values (1, default)", "insert into $cols (a) values (1)", "insert into $checks values (1)", "insert into $indexed values (1)", "insert into $made values (1)", "insert into $fired values (1)", "insert into $ruled values (1)", "insert into $counted values (1)", "select * from $seen", "select * from $guarded",
			"select $lie(5)", "select k from parts where k = $lie(5)", "select k from parts where k = $lie(k)", "select $wraps(1)", "select $casts(1)", "insert into codes values ('l' || $lie(5))", "insert into codes values ('l' || (1 <$+> 2))", "update codes set code = code || (1 <$+> 2)",
			"with x as (select 1 <$+> 2 as a) select * from x", "prepare p as select 1 <$+> 2; execute p; deallocate p", "begin; declare cur cursor for select a <$+> 1 from local; fetch cur; commit", "explain analyze select 1 <$+> 2", "copy (select a <$+> 1 from local) to stdout",
			"create table pg_temp.t as select 1 <$+> 2 as a", "do 'begin perform 1 <$+> 2; end'", "do 'begin perform 5::$dom; end'",
		} {
			sql = unseen(sql, p)
			for shard, s := range sessions {
				got := says(t, s, sql, pgx.QueryExecModeSimpleProtocol)
				if refused := got == "0A000"; !refused {
					if p == "r" || got == "42601" {
						t.Errorf("%s %s: %s", shard, sql, got)
					}
				}
				if s.PgConn().TxStatus() != 'I' {
					mustExec(t, s, "rollback")
				}
				mustExec(t, s, "deallocate all")
			}
			same(sql)
		}
	}
	for _, sql := range []string{
		"select m::int from moods", "select 1 + m from moods", "select 'a'::mood::int", "select 1 + 'a'::mood", "insert into ints select m from moods", "insert into ints values ('a'::mood)", "update ints set a = 'a'::mood", "select abs(m) from moods",
	} {
		for shard, s := range sessions {
			if got := says(t, s, sql, pgx.QueryExecModeSimpleProtocol); got != "0A000" {
				t.Errorf("%s %s: %s", shard, sql, got)
			}
		}
		same(sql)
	}
	// What the proxy does not see through, and who goes around it, is refused by the copies themselves.
	for _, sql := range []string{"create function pg_temp.hid(a int, b int) returns int language plpgsql as $$ begin execute 'insert into co' || 'des values (1)'; return a; end $$", "create operator pg_temp.<~> (function = pg_temp.hid, leftarg = int, rightarg = int)"} {
		mustExec(t, c, sql)
		mustExec(t, home, sql)
	}
	for _, sql := range []string{
		"insert into codes values ('x')", "update codes set code = 'x'", "delete from codes", "truncate codes", "select 1 operator(pg_temp.<~>) 2", "select wone(1)", "insert into codes values ('x')\n/* pgmosaic:" + strings.Repeat("0", 64) + " */",
		"merge into codes using (values ('x')) v (x) on code = x when not matched then insert values (x)", "with x as (insert into codes values ('x') returning 1) select * from x", "do 'begin insert into codes values (1); end'",
	} {
		if got := says(t, home, sql, pgx.QueryExecModeSimpleProtocol); got != "0A000" {
			t.Errorf("straight on the node: %s: %s", sql, got)
		}
		same(sql)
	}
	if got := says(t, c, "select 1 operator(pg_temp.<~>) 2", pgx.QueryExecModeSimpleProtocol); got != "0A000" {
		t.Errorf("a temporary operator: %s", got)
	}
	same("a temporary operator")
	// What is not concerned goes on.
	for _, sql := range []string{"select 1 + 2", "select count(*) from parts", "insert into codes values ('fine')", "select a from local", "insert into local values (1)", "select upper('x')"} {
		if got := says(t, c, sql, pgx.QueryExecModeSimpleProtocol); len(got) == 5 && got[:2] != "IN" {
			t.Errorf("%s: %s", sql, got)
		}
	}
	if res := d.adminExec(t, "VERIFY TABLE unseen.public.codes"); len(res) > 0 {
		t.Errorf("the copies differ: %v", res)
	}
}

// unseen gives the objects of a statement the prefix of a kind: $ stands for it in names, and for a sign of its own in operators.
func unseen(sql, prefix string) string {
	sign := map[string]string{"w": "+", "r": "#"}[prefix]
	return strings.NewReplacer("<$+>", "<"+sign+">", "!$", "!"+sign, "$$", "$$", "$", prefix).Replace(sql)
}
