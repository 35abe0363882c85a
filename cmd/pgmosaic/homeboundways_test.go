package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A column's default is run where its row is, too: on home it had found home's table, on other shards none, or another one of its name.
func TestDefaultsOfShardedTablesUseNothingOfHomes(t *testing.T) {
	t.Parallel()
	d, c := homeboundWorld(t, "hbdefault")
	for _, sql := range []string{
		"create table valued (k int primary key, note text default count_audit()::text)", "create table plain (k int primary key, note text default upper('x'))",
		"create table later (k int primary key, note text)", "insert into audit values ('one')",
	} {
		mustExec(t, c, sql)
	}
	d.adminFails(t, "DISTRIBUTE TABLE hbdefault.public.valued IN GROUP g KEY (k)", "0A000", "function count_audit, which table public.valued runs on the shards of its rows, may use public.audit")
	d.adminExec(t, "DISTRIBUTE TABLE hbdefault.public.plain IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE hbdefault.public.later IN GROUP g KEY (k)")
	mustExec(t, c, "insert into plain (k) select generate_series(1, 20)")
	mustExec(t, c, "insert into later (k) select generate_series(1, 20)")
	mustExec(t, c, "alter table later alter note set default count_audit()::text")
	for _, sql := range []string{
		"insert into later (k) values (101)", "insert into later (k) values (102)", "insert into later (k) values (103)", "insert into later (k) select a from local",
		"update later set note = default where k = 12", "merge into later using (values (104)) v (a) on k = a when not matched then insert (k) values (a)",
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
			_, err := c.Exec(t.Context(), sql, mode)
			wantRule(t, err, "home-bound", "0A000")
		}
	}
	_, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("900\n"), "copy later (k) from stdin")
	wantRule(t, err, "home-bound", "0A000")
	mustExec(t, c, "update later set note = 'x' where k = 12")
	mustExec(t, c, "delete from later where k = 12")
	mustExec(t, c, "alter table later alter note drop default")
	mustExec(t, c, "insert into later (k) values (101)")
}

// Names are compared in letters that one hand has made small: a server's locale may know no others than ASCII's.
func TestBodiesNameTablesInLettersOfAnyKind(t *testing.T) {
	t.Parallel()
	d, c := homeboundWorld(t, "hbletters")
	for _, sql := range []string{
		`create table "Überblick" (what text)`, `create table "ÄRGER" (k int primary key)`, "create table things (k int primary key, note text)",
		`create function views() returns trigger language plpgsql as $$ begin insert into "Überblick" values (tg_op); return new; end $$`,
		`create function sum_all() returns bigint language sql as 'select count(*) from "ÄRGER"'`, `create function sum_bare() returns bigint language sql as 'select count(*) from "ÄRGER" x'`,
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, `DISTRIBUTE TABLE hbletters.public."ÄRGER" IN GROUP g KEY (k)`)
	d.adminExec(t, "DISTRIBUTE TABLE hbletters.public.things IN GROUP g KEY (k)")
	mustExec(t, c, `insert into "ÄRGER" select generate_series(1, 20)`)
	for _, sql := range []string{"select sum_all()", "select sum_bare() from local"} { // of which a shard holds a part
		_, err := c.Exec(t.Context(), sql)
		wantRule(t, err, "function-body", "0A000")
	}
	mustExec(t, c, "create trigger x before insert on things for each row execute function views()")
	_, err := c.Exec(t.Context(), "insert into things values (12)")
	wantRule(t, err, "home-bound", "0A000")
}
