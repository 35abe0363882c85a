package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// temporaryWorld is a database of three shards with rows on each: parts has 101 rows, view all_parts shows them, codes is a
// reference table and local is home's own.
func temporaryWorld(t *testing.T, name string) (*demo, *pgx.Conn) {
	d, c := schemesWorld(t, name)
	for _, sql := range []string{
		"create table parts (k int primary key, i int)", "create table codes (code text primary key)", "create table local (a int)",
		"create view all_parts as select k, i from parts",
		"create function touch() returns trigger language plpgsql as $$ begin update parts set i = -1; return new; end $$",
		"create function make_temp() returns void language plpgsql as $$ begin create temp table fresh as select 5 as five; end $$",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN "+name+" KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE "+name+".public.parts IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE "+name+".public.codes AS REFERENCE")
	mustExec(t, c, "insert into parts select g, g from generate_series(1, 101) g")
	return d, c
}

// says runs a statement and returns its only value, its tag if it gives no rows, or its SQLSTATE.
func says(t *testing.T, c *pgx.Conn, sql string, mode pgx.QueryExecMode) string {
	t.Helper()
	rows, err := c.Query(t.Context(), sql, mode)
	if err != nil {
		return pgCode(err)
	}
	defer rows.Close()
	out := ""
	for rows.Next() {
		vals, err := rows.Values()
		if err != nil {
			t.Fatal(sql, err)
		}
		out += strings.Trim(fmt.Sprint(vals), "[]") + ";"
	}
	if rows.Err() != nil {
		return pgCode(rows.Err())
	}
	if out == "" {
		return rows.CommandTag().String()
	}
	return strings.TrimSuffix(out, ";")
}

// What is temporary means what it means on one PostgreSQL, or is refused: a view over sharded tables shows all of their rows,
// what hides a sharded table hides it for as long as it is there, and nothing reaches home's part of the rows alone.
func TestTemporaryObjectsSeeWholeTables(t *testing.T) {
	t.Parallel()
	_, c := temporaryWorld(t, "temporary")
	type step struct{ sql, want string }
	for _, x := range []struct {
		name  string
		steps []step
	}{
		{"view", []step{
			{"create temporary view tv as select k, i from parts", "CREATE VIEW"},
			{"select count(*) from tv", "101"},
			{"select count(*) from pg_temp.tv", "101"},
			{"select count(*) from tv where k = 5", "1"},
			{"select count(*), sum(a.k + b.k) from tv a join tv b on a.i = b.k", "101 10302"},
			{"select count(*) from (select * from tv union all select * from all_parts) u", "202"},
			{"with x as (select * from tv) select count(*) from x", "101"},
			{"update tv set i = 99 where k in (1, 2, 3, 4, 5) returning k", "0A000"},
			{"insert into tv values (90003, 1)", "0A000"},
			{"delete from tv", "0A000"},
			{"insert into local select k from tv", "0A000"},
			{"create temp table copied as select k from parts", "SELECT 101"},
			{"select count(*) from copied", "101"},
			{"drop view tv", "DROP VIEW"},
			{"select count(*) from tv", "42P01"},
		}},
		{"view over views", []step{
			{"create temp view tv1 as select k, i from all_parts", "CREATE VIEW"},
			{"create temp view tv2 as select k + 0 as n from tv1", "CREATE VIEW"},
			{"select count(*), max(n) from tv2", "101 101"},
			{"create view tv3 as select n from tv2", "CREATE VIEW"},
			{"select count(*) from tv3", "101"},
			{"create or replace temp view tv2 as select 1 as n", "CREATE VIEW"},
			{"select count(*) from tv3", "1"},
			{"alter view tv1 rename to tv9", "ALTER VIEW"},
			{"select count(*) from tv9", "101"},
		}},
		{"view that hides a view", []step{
			{"create temp view all_parts as select 7 as k, 8 as i", "CREATE VIEW"},
			{"select k from all_parts", "7"},
			{"drop view pg_temp.all_parts", "DROP VIEW"},
			{"select count(*) from all_parts", "101"},
		}},
		{"view over temporary and sharded", []step{
			{"create temp table tt (a int)", "CREATE TABLE"},
			{"create view tv as select a, k from tt join parts on a = k", "CREATE VIEW"},
			{"select count(*) from tv", "0A000"},
			{"create view tv0 as select a from tt", "CREATE VIEW"},
			{"insert into tt values (3)", "INSERT 0 1"},
			{"select a from tv0", "3"},
		}},
		{"table that hides a sharded one", []step{
			{"create temp table parts (k int, i int)", "CREATE TABLE"},
			{"insert into parts values (1, 1)", "INSERT 0 1"},
			{"select count(*) from parts", "1"},
			{"select count(*) from public.parts", "101"},
			{"create temp table other (a int)", "CREATE TABLE"},
			{"drop table parts", "DROP TABLE"},
			{"select count(*) from parts", "101"},
		}},
		{"renamed", []step{
			{"create temp table parts (k int, i int)", "CREATE TABLE"},
			{"alter table parts rename to codes", "ALTER TABLE"},
			{"select count(*) from parts", "101"},
			{"select count(*) from codes", "0"},
		}},
		{"rolled back", []step{
			{"create temp table other (a int)", "CREATE TABLE"},
			{"begin", "BEGIN"},
			{"create temp table parts (k int, i int)", "CREATE TABLE"},
			{"select count(*) from parts", "0"},
			{"rollback", "ROLLBACK"},
			{"select count(*) from parts", "101"},
			{"begin", "BEGIN"},
			{"savepoint s", "SAVEPOINT"},
			{"create temp view parts as select 1 as k", "CREATE VIEW"},
			{"select count(*) from parts", "1"},
			{"rollback to s", "ROLLBACK"},
			{"select count(*) from parts", "101"},
			{"create temp view tv as select * from parts", "CREATE VIEW"},
			{"select count(*) from tv", "101"},
			{"savepoint s2", "SAVEPOINT"},
			{"drop view tv", "DROP VIEW"},
			{"rollback to s2", "ROLLBACK"},
			{"select count(*) from tv", "101"},
			{"commit", "COMMIT"},
			{"select count(*) from tv", "101"},
		}},
		{"on commit drop", []step{
			{"create temp table other (a int)", "CREATE TABLE"},
			{"begin", "BEGIN"},
			{"create temp table parts (k int, i int) on commit drop", "CREATE TABLE"},
			{"select count(*) from parts", "0"},
			{"commit", "COMMIT"},
			{"select count(*) from parts", "101"},
		}},
		{"made by a function", []step{
			{"select make_temp()", ""},
			{"select five from fresh", "5"},
			{"drop table fresh", "DROP TABLE"},
			{"select five from fresh", "42P01"},
			{"do $$ begin create temp table codes (code text); end $$", "0A000"}, // a word of its is a reference table's name
			{"do $$ begin create temp table fresh as select 6 as five; end $$", "DO"},
			{"select five from fresh", "6"},
		}},
		{"made by a function in a transaction", []step{
			{"begin", "BEGIN"},
			{"select make_temp()", ""},
			{"select five from fresh", "5"},
			{"rollback", "ROLLBACK"},
			{"select five from fresh", "42P01"},
		}},
		{"search_path", []step{
			{"set search_path = pg_temp, public", "SET"},
			{"create table parts (k int, i int)", "CREATE TABLE"},
			{"select count(*) from parts", "0"},
			{"create view tv as select * from public.parts", "CREATE VIEW"},
			{"select count(*) from tv", "101"},
			{"set search_path = public, pg_temp", "SET"},
			{"select count(*) from parts", "101"},
			{"select count(*) from pg_temp.parts", "0"},
		}},
		{"made in pg_temp", []step{
			{"create table pg_temp.parts (k int, i int)", "CREATE TABLE"},
			{"select count(*) from parts", "0"},
			{"create view pg_temp.tv as select * from public.parts", "CREATE VIEW"},
			{"select count(*) from tv", "101"},
		}},
		{"functions", []step{
			{"create function pg_temp.f() returns bigint language sql as 'select count(*) from parts'", "CREATE FUNCTION"},
			{"select pg_temp.f()", "0A000"},
			{"create function pg_temp.g() returns int language sql as 'select 4'", "CREATE FUNCTION"},
			{"select pg_temp.g()", "4"},
			{"create function pg_temp.e() returns bigint language plpgsql as $$ declare n bigint; begin execute 'select count(*) from par' || 'ts' into n; return n; end $$", "CREATE FUNCTION"},
			{"select pg_temp.e()", "0A000"},
			{"drop function pg_temp.f()", "DROP FUNCTION"},
			{"create temp view tv as select pg_temp.e() as n", "0A000"},
			{"create temp view tv as select pg_temp.g() as n", "CREATE VIEW"},
			{"create or replace function pg_temp.g() returns int language sql as 'select count(*)::int from parts'", "CREATE FUNCTION"},
			{"select n from tv", "0A000"},
		}},
		{"triggers and rules", []step{
			{"create temp table tt (a int)", "CREATE TABLE"},
			{"create trigger t after insert on tt for each row execute function touch()", "CREATE TRIGGER"},
			{"insert into tt values (1)", "0A000"},
			{"copy tt from program 'true'", "0A000"},
			{"drop trigger t on tt", "DROP TRIGGER"},
			{"insert into tt values (1)", "INSERT 0 1"},
			{"create rule r as on insert to tt do also update parts set i = -1", "0A000"},
			{"create temp table fk (k int references parts)", "0A000"},
			{"create temp table child () inherits (parts)", "0A000"},
			{"select count(*) from parts where i = -1", "0"},
		}},
		{"defaults", []step{
			{"create function pg_temp.n() returns bigint language sql as 'select count(*) from parts'", "CREATE FUNCTION"},
			{"create temp table tt (a int, n bigint default pg_temp.n())", "0A000"},
			{"create function pg_temp.m() returns bigint language sql as 'select 1::bigint'", "CREATE FUNCTION"},
			{"create temp table tt (a int, n bigint default pg_temp.m())", "CREATE TABLE"},
			{"insert into tt (a) values (1) returning n", "1"},
			{"create or replace function pg_temp.m() returns bigint language sql as 'select count(*) from parts'", "CREATE FUNCTION"},
			{"insert into tt (a) values (1)", "0A000"},
			{"update tt set n = default", "0A000"},
			{"insert into tt (a, n) values (1, 2)", "0A000"},
			{"update tt set n = 5", "UPDATE 1"},
		}},
		{"sequences", []step{
			{"create temp sequence sq", "CREATE SEQUENCE"},
			{"select nextval('sq')", "1"},
			{"select nextval('sq')", "2"},
			{"select count(*) from parts", "101"},
		}},
		{"select into", []step{
			{"select 5 as five into temp fives", "SELECT 1"},
			{"select five from fives", "5"},
			{"select k into temp six from parts where k = 6", "0A000"},
		}},
		{"prepared", []step{
			{"prepare p as select count(*) from parts", "PREPARE"},
			{"execute p", "101"},
			{"create temp view tv as select * from parts", "CREATE VIEW"},
			{"prepare p2 as select count(*) from tv", "PREPARE"},
			{"execute p2", "101"},
			{"create temp table parts (k int)", "CREATE TABLE"},
			{"select count(*) from parts", "0"},
			{"select count(*) from tv", "101"},
		}},
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheDescribe} {
			for _, inTx := range []bool{false, true} {
				if inTx && slices.ContainsFunc(x.steps, func(s step) bool {
					return s.want == "BEGIN" || len(s.want) == 5 && !strings.HasPrefix(s.want, "1")
				}) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%v", x.name, mode, inTx), func(t *testing.T) {
					c := connectTo(t, c.Config().ConnString())
					defer func() { _ = c.Close(t.Context()) }()
					if inTx {
						mustExec(t, c, "begin")
					}
					for _, s := range x.steps {
						if got := says(t, c, s.sql, mode); got != s.want {
							t.Fatalf("%s: %s, want %s", s.sql, got, s.want)
						}
					}
				})
			}
		}
	}
	if got := queryOne[string](t, c, "select count(*) || ' ' || sum(i) from parts"); got != "101 5151" {
		t.Errorf("the table is left as %s", got)
	}
	// Nothing is left on the servers that others get.
	fresh := connectTo(t, c.Config().ConnString())
	for range 20 {
		if got := says(t, fresh, "select count(*) from parts", pgx.QueryExecModeSimpleProtocol); got != "101" {
			t.Fatalf("another client counts %s", got)
		}
		if got := says(t, fresh, "select nextval('sq')", pgx.QueryExecModeSimpleProtocol); got != "42P01" {
			t.Fatalf("another client's sequence gives %s", got)
		}
	}
}

// A pipeline that makes a temporary object uses it in the same pipeline.
func TestTemporaryObjectsOfPipelines(t *testing.T) {
	t.Parallel()
	_, c := temporaryWorld(t, "temporaries")
	for _, x := range []struct{ name, make, ask, want string }{
		{"view", "create temp view tv as select * from parts", "select count(*) from tv", "101"},
		{"hidden", "create temp table parts (k int)", "select count(*) from parts", "0"},
		{"function", "select make_temp()", "select count(*) from fresh", "1"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := connectTo(t, c.Config().ConnString())
			b := &pgconn.Batch{}
			b.ExecParams(x.make, nil, nil, nil, nil)
			b.ExecParams(x.ask, nil, nil, nil, nil)
			res, err := c.PgConn().ExecBatch(t.Context(), b).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			if got := string(res[1].Rows[0][0]); got != x.want {
				t.Errorf("%s, want %s", got, x.want)
			}
		})
	}
}
