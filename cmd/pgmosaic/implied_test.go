package main

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// What SQL implies without a name is looked at as what is named: operators behind BETWEEN, CASE and USING, defaults of a function's
// arguments, keys of partitions, queries of materialized views, and all that temporary tables have.
func TestImpliedCodeReachesNoDistributedTables(t *testing.T) {
	t.Parallel()
	_, c := temporaryWorld(t, "implied")
	for _, sql := range []string{
		"create type mood as enum ('a', 'b')", "create function eq(mood, int) returns bool language plpgsql as 'begin perform count(*) from parts; return true; end'", "create operator = (function = eq, leftarg = mood, rightarg = int)",
		"create operator >= (function = eq, leftarg = mood, rightarg = int)", "create operator < (function = eq, leftarg = mood, rightarg = int)", "create function yes(mood, int) returns bool language sql as 'select true'", "create operator <= (function = yes, leftarg = mood, rightarg = int)", "create operator > (function = yes, leftarg = mood, rightarg = int)",
		"create function same(mood, mood) returns bool language plpgsql as 'begin perform count(*) from parts; return true; end'", "create operator = (function = same, leftarg = mood, rightarg = mood)", "create table moods (m mood)", "create table others (m mood)", "create table ints (m int)", "insert into moods values ('a')", "insert into ints values (1)",
		"create function counts() returns int language plpgsql as 'begin return 1; end'", "create function by_default(a int default counts()) returns int language sql as 'select a'", "create function bodies(mood) returns bool language plpgsql as 'begin return $1 between 1 and 2; end'", "create function cases(mood) returns int immutable language sql as 'select case $1 when 1 then 1 end'",
		"create function lie(int) returns int immutable language plpgsql as 'begin return $1; end'", "create table keyed (a int) partition by range (lie(a))", "create table keyed_1 partition of keyed for values from (0) to (9)", "create table keyed_2 partition of keyed for values from (10) to (99) partition by range (lie(a))", "create table keyed_21 partition of keyed_2 for values from (10) to (19)",
		"create function judge(int) returns bool language plpgsql as 'begin return true; end'", "create domain judged as int check (judge(value))", "create materialized view kept as select counts() as n",
		"create temp table temp_check (a int check (judge(a)))", "create temp table temp_domain (a judged)", "create temp table temp_made (a int, b int generated always as (lie(a)) stored)", "create temp table temp_index (a int)", "create index on temp_index (lie(a))", "create temp table temp_parted (a int) partition by range (a)", "create temp table temp_parted_1 partition of temp_parted (check (judge(a))) for values from (0) to (9)",
		"create function row_() returns trigger language plpgsql as 'begin return new; end'", "create temp table temp_fired (a int)", "create trigger tr before insert on temp_fired for each row when (judge(new.a)) execute function row_()", "create temp table temp_plain (a int, b int generated always as (a + 1) stored)",
		// and now they look at parts
		"create or replace function counts() returns int language plpgsql as 'begin return (select count(*) from parts); end'", "create or replace function lie(int) returns int immutable language plpgsql as 'begin perform count(*) from parts; return $1; end'",
		"create or replace function judge(int) returns bool language plpgsql as 'begin perform count(*) from parts; return true; end'",
	} {
		mustExec(t, c, sql)
	}
	time.Sleep(1200 * time.Millisecond)
	for _, x := range []struct{ sql, want string }{
		{"select m = 1 from moods", "0A000"},
		{"select case m when 1 then 'x' end from moods", "0A000"},
		{"select m between 1 and 2 from moods", "0A000"},
		{"select m not between 1 and 2 from moods", "0A000"},
		{"select m between symmetric 1 and 2 from moods", "0A000"},
		{"select 1 from moods join others using (m)", "0A000"},
		{"select 1 from moods natural join others", "0A000"},
		{"select m in (1, 2) from moods", "0A000"},
		{"select m = any (array[1]) from moods", "0A000"},
		{"select m in (select m from ints) from moods", "0A000"},
		{"select nullif(m, 1) from moods", "0A000"},
		{"select m is distinct from 1 from moods", "0A000"},
		{"select (m, 1) = (1, 1) from moods", "0A000"},
		{"select m <= 1 from moods", "true"},
		{"select bodies('a')", "0A000"},
		{"select cases('a')", "0A000"},
		{"select by_default()", "0A000"},
		{"select by_default(3)", "0A000"},
		{"insert into keyed values (1)", "0A000"},
		{"insert into keyed_1 values (1)", "0A000"},
		{"insert into keyed_21 values (11)", "0A000"},
		{"refresh materialized view kept", "0A000"},
		{"select n from kept", "1"},
		{"insert into temp_check values (1)", "0A000"},
		{"insert into temp_domain values (1)", "0A000"},
		{"insert into temp_made values (1)", "0A000"},
		{"insert into temp_index values (1)", "0A000"},
		{"insert into temp_parted values (1)", "0A000"},
		{"insert into temp_fired values (1)", "0A000"},
		{"insert into temp_plain values (1)", "INSERT 0 1"},
		{"prepare p as select counts()", "0A000"},
		{"select b from temp_plain", "2"},
		{"select a from temp_domain", "SELECT 0"},
	} {
		if got := says(t, c, x.sql, pgx.QueryExecModeSimpleProtocol); got != x.want {
			t.Errorf("%s: %s, want %s", x.sql, got, x.want)
		}
	}
}
