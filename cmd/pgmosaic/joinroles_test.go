package main

import (
	"fmt"
	"testing"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// What is said of roles while a shard joins holds on its server, too.
func TestRolesThatChangeWhileAShardJoins(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, NoLoad: true})
	third, err := d.cluster.Primary(t.Context(), "s3-a")
	if err != nil {
		t.Fatal(err)
	}
	d.adminExec(t, "CREATE DATABASE joined")
	for i, name := range []string{"s1-a", "s2-a"} {
		freshDatabase(t, d.cluster.Node(name), fmt.Sprintf("joined_%d", i))
		d.adminExec(t, fmt.Sprintf("CREATE SHARD joined_s%d IN joined NODE '%s' NAME joined_n%[1]d", i, d.cluster.Node(name).DSN(fmt.Sprintf("joined_%d", i))))
	}
	mustExec(t, connectTo(t, third.DSN("postgres")), "create database joined_2")
	for _, name := range []string{"s1-a", "s2-a"} {
		mustExec(t, connectTo(t, d.cluster.Node(name).DSN("postgres")), "alter role app createrole")
	}
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "joined"))
	for _, sql := range []string{"create role staff", "create role clerk login password 'old'", "grant staff to clerk", "create role gone in role clerk", "create table codes (code int primary key)", "insert into codes values (1)"} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "DISTRIBUTE TABLE joined.public.codes AS REFERENCE")
	there := connectTo(t, third.DSN("joined_2"))
	hold, err := connectTo(t, third.DSN("joined_2")).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hold.Exec(t.Context(), "create table codes (a int)"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), "CREATE SHARD joined_s2 IN joined NODE '"+third.DSN("joined_2")+"' NAME joined_n2", false)
		done <- err
	}()
	eventually(t, "the roles are there, and a copy waits", func() bool {
		return queryOne[bool](t, there, "select exists (select from pg_roles where rolname = 'clerk') and exists (select from pg_locks where not granted)")
	})
	for _, sql := range []string{"revoke staff from clerk", "alter role clerk password 'new'", "alter role clerk nologin connection limit 7", "grant clerk to staff with admin option"} {
		mustExec(t, c, sql)
	}
	if err := hold.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	const form = "select concat_ws(' ', rolcanlogin, rolconnlimit, right(rolpassword, 8), (select string_agg(m.roleid::regrole || ' to ' || m.member::regrole || m.admin_option, ',' order by m.member::regrole::text) from pg_auth_members m where r.oid in (m.member, m.roleid))) from pg_authid r where rolname = 'clerk'"
	home := queryOne[string](t, connectTo(t, d.cluster.Node("s1-a").DSN("postgres")), form)
	if got := queryOne[string](t, there, form); got != home {
		t.Errorf("on the new server clerk is %s, on home %s", got, home)
	}
}
