package main

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// What a statement changes without naming it, by foreign keys, partitions, children, views and rules, makes no copies of a reference
// table differ: it does the same on each shard, or the statement is refused.
func TestCascadesMakeNoCopiesDiffer(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "cascading")
	for _, sql := range []string{
		"create table kinds (k int primary key, name text)", "create table pets (k int primary key, kind int references kinds on update cascade on delete cascade, at timestamptz, n float8)", "create table toys (k int primary key, pet int references pets on delete set null, n float8)",
		"create table tame (k int primary key, kind int references kinds on update cascade on delete set null, note text, n int default 0)", "create table random_default (k int primary key, kind int default 7 references kinds on update set default)",
		"create table parted (k int, n float8, primary key (k)) partition by range (k)", "create table parted_1 partition of parted for values from (0) to (100)", "create table parted_2 partition of parted for values from (100) to (200)",
		"create table calm (k int, n text, primary key (k)) partition by range (k)", "create table calm_1 partition of calm for values from (0) to (100)",
		"create function stamps() returns trigger language plpgsql as $$ begin new.n = random(); return new; end $$", "create function notes() returns trigger language plpgsql as $$ begin new.n = upper(new.n); return new; end $$",
		"create function counts() returns trigger language plpgsql as $$ begin new.n = old.n + 1; new.note = coalesce(new.note, '') || tg_op; return new; end $$", "create function deletes() returns trigger language plpgsql as $$ begin if random() < 0.5 then return null; end if; return old; end $$",
		"create function dice() returns int language sql as 'select 1 + floor(random() * 2)::int'",
	} {
		mustExec(t, c, sql)
	}
	tables := []string{"kinds", "pets", "toys", "tame", "random_default", "parted", "calm"}
	for _, n := range tables {
		d.adminExec(t, "DISTRIBUTE TABLE cascading.public."+n+" AS REFERENCE")
	}
	for _, sql := range []string{
		"insert into kinds values (1), (2), (3), (4), (7)", "insert into pets values (1, 1), (2, 2)", "insert into toys values (1, 1), (2, 2)", "insert into tame values (1, 3), (2, 4)", "insert into parted values (1), (2)", "insert into calm values (1, 'a')",
		"create trigger st before update on pets for each row execute function stamps()", "create trigger de before delete on toys for each row execute function deletes()", "create trigger tu before update on toys for each row execute function stamps()", "create trigger ta before update on tame for each row execute function counts()",
		"create trigger st before insert or update on parted_1 for each row execute function stamps()", "create trigger ca before insert on calm_1 for each row execute function notes()",
	} {
		mustExec(t, c, sql)
	}
	time.Sleep(1200 * time.Millisecond)
	shards := []*pgx.Conn{d.on(t, "cascading", 0), d.on(t, "cascading", 1), d.on(t, "cascading", 2)}
	for _, x := range []struct{ sql, want string }{
		{"update pets set kind = 1 where k = 1", "0A000"},
		{"update kinds set k = 20 where k = 2", "0A000"},
		{"update kinds set name = 'x'", "UPDATE 5"},
		{"insert into kinds values (2) on conflict (k) do update set k = 30", "0A000"},
		{"insert into kinds values (2) on conflict (k) do update set name = 'y'", "INSERT 0 1"},
		{"delete from kinds where k = 2", "0A000"},
		{"delete from pets where k = 1", "0A000"},
		{"with w as (update kinds set k = 20 where k = 2 returning k) select * from w", "0A000"},
		{"explain analyze update kinds set k = 20 where k = 2", "0A000"},
		{"insert into parted values (3), (4)", "0A000"},
		{"insert into parted select 3", "0A000"},
		{"update parted set k = 3 where k = 1", "0A000"},
		{"insert into parted values (150)", "0A000"},
		{"delete from parted where k = 2", "DELETE 1"},
		{"insert into calm values (5, 'abc')", "INSERT 0 1"},
		{"select n from calm where k = 5", "ABC"},
		{"update calm set n = 'z' where k = 5", "UPDATE 1"},
		{"insert into calm select 6, 'd'", "0A000"},
		// nothing is left that differs
		{"drop trigger st on pets", "DROP TRIGGER"},
		{"drop trigger de on toys", "DROP TRIGGER"},
		{"drop trigger tu on toys", "DROP TRIGGER"},
		{"alter table random_default alter kind set default dice()", "ALTER TABLE"},
		{"update kinds set k = 33 where k = 3", "0A000"},
		{"alter table random_default alter kind set default 7", "ALTER TABLE"},
		{"update kinds set k = 33 where k = 3", "UPDATE 1"},
		{"select kind || note || n from tame where k = 1", "33UPDATE1"},
		{"delete from kinds where k = 33", "DELETE 1"},
		{"select coalesce(kind, 0) || note || n from tame where k = 1", "0UPDATEUPDATE2"},
		{"delete from kinds where k = 2", "DELETE 1"},
		{"select count(*) from pets", "1"},
	} {
		if got := says(t, c, x.sql, pgx.QueryExecModeSimpleProtocol); got != x.want {
			t.Errorf("%s: %s, want %s", x.sql, got, x.want)
		}
		for _, n := range tables {
			var all []string
			for _, s := range shards {
				all = append(all, queryOne[string](t, s, "select coalesce(string_agg(x::text, E'\n' order by x::text), '') from "+n+" x"))
			}
			if all[0] != all[1] || all[1] != all[2] {
				t.Fatalf("%s: the copies of %s differ: %q", x.sql, n, all)
			}
		}
	}
	if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("9\n"), "copy parted (k) from stdin"); pgCode(err) != "0A000" {
		t.Errorf("COPY: %v", err)
	}
	_, err := c.Exec(t.Context(), "insert into parted values (3)")
	wantRule(t, err, "reference-write", "0A000")
}

// What tables of home's run that nobody names counts the rows of sharded tables as a trigger of a named table does: it is refused.
func TestCascadesReadNoPartOfTables(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "homecasc")
	for _, sql := range []string{
		"create table seen (what text, n bigint)", "create function looks() returns trigger language plpgsql as $$ begin insert into seen select tg_table_name, count(*) from parts; return coalesce(new, old); end $$",
		"create table hp (a int primary key, note text)", "create table hc (a int references hp on delete cascade on update cascade)", "create table hd (a int references hp on delete set null)", "create trigger lo after delete or truncate on hc for each statement execute function looks()", "create trigger lo after update on hd for each row execute function looks()",
		"create table top (a int primary key)", "create table mid (a int primary key references top on delete cascade)", "create table low (a int references mid on delete cascade)", "create trigger lo after delete on low for each row execute function looks()",
		"create table hpt (a int) partition by range (a)", "create table hpt_1 partition of hpt for values from (0) to (9)", "create table hpt_2 partition of hpt for values from (10) to (19)", "create trigger lo after insert on hpt_1 for each row execute function looks()",
		"create table st (a int) partition by range (a)", "create table st_1 partition of st for values from (0) to (9)", "create trigger lo after insert on st_1 for each statement execute function looks()",
		"create table inh (a int)", "create table inh_1 (b int) inherits (inh)", "create trigger lo after update on inh_1 for each row execute function looks()",
		"create table hv0 (a int)", "create trigger lo after insert on hv0 for each row execute function looks()", "create view hv as select a from hv0", "create view hvv as select a from hv",
		"create table hr (a int)", "create rule ru as on insert to hr do also insert into hv0 values (new.a)", "create view hrv as select 1 as a", "create rule ru as on insert to hrv do instead insert into hv0 values (new.a)",
		"create view hi as select 1 as a", "create function instead() returns trigger language plpgsql as $$ begin return new; end $$", "create function instead_looks() returns trigger language plpgsql as $$ begin perform count(*) from parts; return new; end $$", "create trigger i instead of insert on hi for each row execute function instead()",
		"create view hj as select 1 as a", "create trigger i instead of insert on hj for each row execute function instead_looks()", "create view hk as select a from hv0", "create trigger i instead of insert on hk for each row execute function instead()",
		"create table hw (a int)", "create function two(a int, b int) returns int language plpgsql as $$ begin return (select count(*) from parts); end $$", "create operator <?!> (function = two, leftarg = int, rightarg = int)", "create function plain_t() returns trigger language plpgsql as $$ begin return new; end $$",
		"create function writes_hv0() returns int language plpgsql as $$ begin insert into hv0 values (1); return 1; end $$", "create function reads_hv0() returns bigint language plpgsql as $$ begin return (select count(*) from hv0); end $$", "create function deletes_hp() returns int language sql as 'delete from hp; select 1'",
		"create table chain (a int)", "create function chained() returns trigger language plpgsql as $$ begin insert into hv0 values (1); return new; end $$", "create trigger ch after insert on chain for each row execute function chained()",
		"create table counted (a int)", "create function check_it(int) returns bool language plpgsql as $$ begin return true; end $$", "create table cc (a int references hp on update cascade check (a is null or check_it(a)))", "create table de (a int primary key)", "create function dflt() returns int language plpgsql as $$ begin return null; end $$",
		"create table dd (a int default dflt() references de on delete set default)", "create table quiet (a int primary key)", "create table quiet_kid (a int references quiet on delete cascade)", "create trigger pl after insert or delete on quiet_kid for each row execute function plain_t()",
		"create or replace function check_it(int) returns bool language plpgsql as $$ begin perform count(*) from parts; return true; end $$", "create or replace function dflt() returns int language plpgsql as $$ begin perform count(*) from parts; return null; end $$",
		"insert into hp values (1), (2)", "insert into quiet values (1)",
	} {
		mustExec(t, c, sql)
	}
	mustExec(t, d.on(t, "homecasc", 0), "create trigger lo before insert on hw for each row when ((new.a <?!> 1) < 90) execute function plain_t()") // the proxy refuses it
	eventually(t, "the trigger is seen", func() bool {
		return says(t, c, "insert into hw values (1)", pgx.QueryExecModeSimpleProtocol) == "0A000"
	})
	for _, x := range []struct{ sql, want string }{
		{"delete from hp where a = 1", "0A000"},
		{"update hp set a = 5 where a = 1", "0A000"},
		{"update hp set note = 'x'", "UPDATE 2"},
		{"insert into hp values (3)", "INSERT 0 1"},
		{"insert into hc values (3)", "INSERT 0 1"},
		{"truncate hp", "0A000"},
		{"truncate hp cascade", "0A000"},
		{"with w as (delete from hp returning a) select * from w", "0A000"},
		{"explain analyze delete from hp", "0A000"},
		{"merge into hp using (values (1)) v (x) on a = x when matched then delete", "0A000"},
		{"delete from top", "0A000"},
		{"delete from mid", "0A000"},
		{"insert into top values (1)", "INSERT 0 1"},
		{"insert into hpt values (1)", "0A000"},
		{"insert into hpt_1 values (1)", "0A000"},
		{"insert into hpt_2 values (11)", "INSERT 0 1"},
		{"update hpt set a = 2", "0A000"},
		{"delete from hpt", "DELETE 1"},
		{"insert into st values (1)", "INSERT 0 1"},
		{"insert into st_1 values (1)", "0A000"},
		{"update inh set a = 1", "0A000"},
		{"update only inh set a = 1", "UPDATE 0"},
		{"insert into inh values (1)", "INSERT 0 1"},
		{"insert into hv0 values (1)", "0A000"},
		{"insert into hv values (1)", "0A000"},
		{"insert into hvv values (1)", "0A000"},
		{"update hv set a = 1", "UPDATE 0"},
		{"with w as (insert into hv0 values (1) returning a) select * from w", "0A000"},
		{"insert into hr values (1)", "0A000"},
		{"insert into hrv values (1)", "0A000"},
		{"insert into hi values (1)", "INSERT 0 1"},
		{"insert into hj values (1)", "0A000"},
		{"insert into hk values (1)", "INSERT 0 1"},
		{"insert into hw values (1)", "0A000"},
		{"select writes_hv0()", "0A000"},
		{"select reads_hv0()", "0"},
		{"select deletes_hp()", "0A000"},
		{"do $$ begin insert into hv0 values (1); end $$", "0A000"},
		{"do $$ begin delete from hp; end $$", "0A000"},
		{"insert into chain values (1)", "0A000"},
		{"update hp set a = 7 where a = 2", "0A000"},
		{"delete from de", "0A000"},
		{"insert into de values (1)", "INSERT 0 1"},
		{"copy hv0 from program 'echo 1'", "0A000"},
		{"insert into quiet_kid values (1)", "INSERT 0 1"},
		{"delete from quiet", "DELETE 1"},
		{"select count(*) from seen", "0"},
		{"create temp table tp (a int primary key)", "CREATE TABLE"},
		{"create temp table tc (a int references tp on delete cascade)", "CREATE TABLE"},
		{"create trigger lo after delete on tc for each row execute function looks()", "CREATE TRIGGER"},
		{"insert into tp values (1)", "INSERT 0 1"},
		{"insert into tc values (1)", "INSERT 0 1"},
		{"delete from tp", "0A000"},
	} {
		if got := says(t, c, x.sql, pgx.QueryExecModeSimpleProtocol); got != x.want {
			t.Errorf("%s: %s, want %s", x.sql, got, x.want)
		}
	}
}

// Sharded tables cascade and have partitions on their own shards: what fires there is looked at as well, and does not stand in the way of
// what it does not fire for.
func TestCascadesOfShardedTables(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "shardcasc")
	for _, sql := range []string{
		"create table owners (k int primary key, name text)", "create table things (k int, n int, primary key (k, n))", "create table days (k int, n int, note text, primary key (k, n)) partition by range (n)", "create table days_1 partition of days for values from (0) to (100)",
		"create function looks() returns trigger language plpgsql as $$ begin perform count(*) from parts; return coalesce(new, old); end $$", "create function notes() returns trigger language plpgsql as $$ begin new.note = tg_op; return new; end $$",
	} {
		mustExec(t, c, sql)
	}
	for _, n := range []string{"owners", "things", "days"} {
		d.adminExec(t, "DISTRIBUTE TABLE shardcasc.public."+n+" IN GROUP g KEY (k)")
	}
	for _, sql := range []string{
		"alter table things add foreign key (k) references owners on delete cascade", "insert into owners select g, 'x' from generate_series(1, 20) g", "insert into things select g, 1 from generate_series(1, 20) g", "insert into days select g, 1, 'x' from generate_series(1, 20) g",
		"create trigger lo before delete on things for each row execute function looks()", "create trigger no before insert or update on days_1 for each row execute function notes()",
	} {
		mustExec(t, c, sql)
	}
	time.Sleep(1200 * time.Millisecond)
	for _, x := range []struct{ sql, want string }{
		{"delete from owners where k = 3", "0A000"},
		{"delete from owners", "0A000"},
		{"update owners set name = 'y'", "UPDATE 20"},
		{"update owners set name = 'z' where k = 3", "UPDATE 1"},
		{"insert into owners values (30, 'a')", "INSERT 0 1"},
		{"insert into things values (30, 1)", "INSERT 0 1"},
		{"update days set n = 2 where k = 5", "UPDATE 1"},
		{"select note from days where k = 5", "UPDATE"},
		{"insert into days values (40, 1)", "INSERT 0 1"},
		{"select note from days where k = 40", "INSERT"},
		{"update days set note = 'v' where k = 40", "UPDATE 1"},
		{"create trigger lo before insert on days_1 for each row execute function looks()", "CREATE TRIGGER"},
		{"insert into days values (41, 1)", "0A000"},
		{"update days set n = 3 where k = 5", "0A000"},
		{"delete from days where k = 6", "DELETE 1"},
	} {
		if got := says(t, c, x.sql, pgx.QueryExecModeSimpleProtocol); got != x.want {
			t.Errorf("%s: %s, want %s", x.sql, got, x.want)
		}
	}
}
