package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A name means what it means to PostgreSQL: "$user" is the role that SET ROLE names, and schemas that this may not use are passed over.
func TestNamesAreLookedUpAsTheRoleThatIsSet(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "lookup")
	for _, node := range []string{"s1-a", "s2-a"} {
		su := connectTo(t, d.cluster.Node(node).DSN("postgres"))
		for _, role := range []string{"lookup_other", "lookup_group"} {
			mustExec(t, su, "do $$ begin if to_regrole('"+role+"') is null then create role "+role+"; grant "+role+" to app; end if; end $$")
		}
	}
	freshDatabase(t, d.cluster.Node("s1-a"), "lookup_one")
	one := connectTo(t, strings.Replace(d.cluster.Node("s1-a").DSN("lookup_one"), "postgres:"+d.cluster.Password, "app:app", 1))
	both := func(sql string) {
		t.Helper()
		mustExec(t, c, sql)
		mustExec(t, one, sql)
	}
	for _, sql := range []string{
		"create table things (id bigint primary key, v int)", "insert into things select i, i from generate_series(1, 30) i", "grant all on things to lookup_other, lookup_group", "grant usage on schema public to public",
		"create schema lookup_other", "create table lookup_other.things (id bigint, v int)", "insert into lookup_other.things values (1, 100)", "grant usage on schema lookup_other to lookup_other", "grant all on lookup_other.things to lookup_other",
		"create schema closed", "create table closed.things (id bigint, v int)", "insert into closed.things values (2, 200), (3, 300)", "grant select on closed.things to public", "revoke usage on schema closed from app",
	} {
		both(sql)
	}
	d.adminExec(t, "CREATE GROUP ids IN lookup KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE lookup.public.things IN GROUP ids KEY (id)")
	ask := func(lines ...string) {
		t.Helper()
		for _, sql := range lines {
			want, got := ask2(t, one, sql, pgx.QueryExecModeSimpleProtocol), ask2(t, c, sql, pgx.QueryExecModeSimpleProtocol)
			if why := differs(sql, want, got); why != "" {
				t.Errorf("%s in %q: %s", sql, lines, why)
			}
		}
		for _, sql := range []string{"rollback", "reset role", "reset search_path"} {
			both(sql)
		}
	}
	const count, key = "select count(*), sum(v) from things", "select v from things where id = 3"
	ask(count, key)
	ask("set search_path = closed, public", count, key, "begin", "update things set v = v + 1", count, "rollback")
	ask("begin", "set local search_path = closed, public", count, "set local search_path to default", count, key, "set local search_path = closed", "rollback", count)
	ask("set role lookup_other", count, "reset role", count, "set role lookup_other", "set role none", count)
	ask("begin", "set local role lookup_other", count, "rollback", count)
	ask("begin", "savepoint a", "set local role lookup_other", count, "rollback to a", count, key, "set role lookup_other", count, "commit", count)
	ask("begin", "set local role lookup_other", "set local role to default", count, "set local role lookup_other", "set local role none", count)
	ask("select set_config('role', 'lookup_other', false)", count, "select set_config('role', 'none', false)", count)
	ask("begin", "select set_config('role', 'lookup_other', true)", count, "commit", count)
	ask("do $$ begin set role lookup_other; end $$", count)
	ask("begin", "do $$ begin set local role lookup_other; end $$", count, "rollback", count)
	for _, sql := range []string{"grant usage on schema closed to lookup_group", "grant usage on schema closed to app", "revoke usage on schema closed from app", "grant usage on schema closed to public", "revoke usage on schema closed from public", "revoke usage on schema public from public"} { // that the last leaves to who owns the database
		both(sql)
		ask("set search_path = closed, public", count, key)
		ask("set role lookup_other", "set search_path = closed, public", count, key)
	}
}
