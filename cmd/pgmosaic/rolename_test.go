package main

import (
	"strings"
	"testing"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// A role's name may be a superuser's on another server, or that of the role which the proxy works as there. Nobody on home, where it is
// an ordinary role's, comes by its rights so: neither by a membership nor by a function of its own.
func TestARoleOfHomesIsNoSuperuserElsewhere(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, NoLoad: true})
	s1, s2 := d.cluster.Node("s1-a"), d.cluster.Node("s2-a")
	freshDatabase(t, s1, "named_1")
	freshDatabase(t, s2, "named_2")
	home, there := connectTo(t, s1.DSN("named_1")), connectTo(t, s2.DSN("named_2"))
	d.adminExec(t, "CREATE DATABASE named")
	d.adminExec(t, "CREATE SHARD named_s1 IN named NODE '"+s1.DSN("named_1")+"' NAME named_n1")
	boss := strings.Replace(s2.DSN("named_2"), "postgres:"+d.cluster.Password, "worker:worker", 1)
	for _, x := range []struct{ there, dsn string }{
		{"create role boss superuser login", s2.DSN("named_2")},
		{"create role worker superuser login password 'worker'; create role boss", boss},
		{"create role chief superuser; create role deputy in role chief; create role boss in role deputy", s2.DSN("named_2")},
		{"create role boss in role pg_execute_server_program", s2.DSN("named_2")},
		{"create role boss createrole", s2.DSN("named_2")},
		{"create role chief createrole; create role boss in role chief", s2.DSN("named_2")},
	} {
		if strings.Contains(x.there, "createrole") && queryOne[int](t, there, "select current_setting('server_version_num')::int") >= 160000 {
			continue // it gives away what it has, and no more
		}
		mustExec(t, there, x.there)
		name := "boss"
		if x.dsn == boss {
			name = "worker"
		}
		for _, sql := range []string{"create role " + name, "create role climber login", "grant " + name + " to climber"} {
			mustExec(t, home, sql)
		}
		for _, sql := range []string{" DRY RUN", ""} {
			d.adminFails(t, "CREATE SHARD named_s2 IN named NODE '"+x.dsn+"' NAME named_n2"+sql, "55000", name)
		}
		if n := queryOne[int](t, there, "select count(*) from pg_auth_members where roleid = '"+name+"'::regrole and roleid::regrole::text = '"+name+"'"); n != 0 {
			t.Errorf("%d roles have got in %s", n, name)
		}
		for _, c := range []string{"drop role if exists climber"} {
			mustExec(t, there, c)
			mustExec(t, home, c)
		}
		mustExec(t, home, "drop role "+name)
		mustExec(t, there, "drop role if exists boss, deputy, chief")
	}
}
