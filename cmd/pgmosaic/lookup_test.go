package main

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap/schema"
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

// Who a session is until it says SET ROLE, ALTER ROLE may have said.
func TestNamesAreLookedUpAsTheRoleThatALoginBegins(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "begins")
	freshDatabase(t, d.cluster.Node("s1-a"), "begins_one")
	alone := strings.Replace(d.cluster.Node("s1-a").DSN("begins_one"), "postgres:"+d.cluster.Password, "app:app", 1)
	one := connectTo(t, alone)
	for _, node := range []string{"s1-a", "s2-a"} {
		su := connectTo(t, d.cluster.Node(node).DSN("postgres"))
		for _, role := range []string{"begins_other", "begins_group"} {
			mustExec(t, su, "do $$ begin if to_regrole('"+role+"') is null then create role "+role+"; grant "+role+" to app; end if; end $$")
		}
	}
	for _, w := range []*pgx.Conn{c, one} {
		for _, sql := range []string{
			"create table things (id bigint primary key, v int)", "insert into things select i, i from generate_series(1, 30) i", "grant all on things to public", "grant usage on schema public to public",
			"create schema begins_other", "create table begins_other.things (id bigint, v int)", "insert into begins_other.things values (1, 100)", "grant usage on schema begins_other to begins_other", "grant all on begins_other.things to public",
		} {
			mustExec(t, w, sql)
		}
	}
	d.adminExec(t, "CREATE GROUP ids IN begins KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE begins.public.things IN GROUP ids KEY (id)")
	for name, node := range map[string]string{"begins_0": "s1-a", "begins_1": "s2-a", "begins_2": "s1-a", "begins_one": "s1-a"} {
		su := connectTo(t, d.cluster.Node(node).DSN("postgres"))
		mustExec(t, su, "alter role app in database "+name+" set role to begins_other")
		t.Cleanup(func() { _, _ = su.Exec(context.Background(), "alter role app in database "+name+" reset role") })
	}
	mustExec(t, c, "alter role app reset geqo") // behind that servers are opened anew
	const who = "select current_user, count(*), sum(v) from things"
	direct := connectTo(t, alone)
	var through *pgx.Conn
	eventually(t, "sessions begin as the other role", func() bool {
		through = connectTo(t, dsnFor("app", "app", d.Server.Addr(), "begins"))
		return queryOne[string](t, through, "select current_user") == "begins_other"
	})
	for _, sql := range []string{
		who, "set role begins_group", who, "reset role", who, "set role none", who, "begin", "set local role default", who, "set local role none", who, "rollback", who, "reset all", who, "discard all", who,
		"begin", "savepoint a", "set role app", who, "rollback to a", who, "commit", who,
	} {
		want, got := ask2(t, direct, sql, pgx.QueryExecModeSimpleProtocol), ask2(t, through, sql, pgx.QueryExecModeSimpleProtocol)
		if why := differs(sql, want, got); why != "" {
			t.Errorf("%s: %s", sql, why)
		}
	}
}

// What is read of who may use which schema grows with the schemas and with the members of a group, not with the one times the other.
func TestAGroupThatWasGivenManySchemas(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "grouped")
	su := connectTo(t, d.cluster.Node("s1-a").DSN("grouped_0"))
	tx, err := su.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	mustExec(t, su, `do $$ begin create role grouped_all; create role grouped_none noinherit in role grouped_all; create role grouped_out; create role grouped_below;
	  for i in 1..50 loop execute 'create role grouped_' || i || ' in role grouped_all'; execute 'create schema grouped_' || i; execute 'grant usage on schema grouped_' || i || ' to grouped_all'; end loop; grant grouped_1 to grouped_below; end $$`)
	mustExec(t, su, "set local search_path = pg_catalog")
	s, err := schema.ReadBy(t.Context(), func(sql string) (types []uint32, rows [][][]byte, err error) {
		results, err := su.PgConn().Exec(t.Context(), sql).ReadAll()
		if err != nil {
			return nil, nil, err
		}
		for _, f := range results[0].FieldDescriptions {
			types = append(types, f.DataTypeOID)
		}
		return types, results[0].Rows, nil
	}, 1)
	if err != nil {
		t.Fatal(err)
	}
	roles := 0
	for _, given := range s.Closed {
		roles += len(given)
	}
	for _, in := range s.In {
		roles += len(in)
	}
	if roles > 250 {
		t.Errorf("%d roles are kept for 50 schemas and 50 members", roles)
	}
	for role, barred := range map[string]bool{"grouped_all": false, "grouped_7": false, "grouped_below": false, "grouped_none": true, "grouped_out": true, "postgres": false} {
		if s.Barred("grouped_3", role) != barred {
			t.Errorf("%s is barred: %v", role, !barred)
		}
	}
}
