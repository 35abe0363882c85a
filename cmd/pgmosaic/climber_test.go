package main

import (
	"fmt"
	"testing"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// A role that is in the proxy's own role on home, where that is an ordinary one, does not get into a superuser of that name: not by being
// made on the shard's server either.
func TestARoleThatIsMadeIsNoSuperuser(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, NoLoad: true})
	s1, s2 := d.cluster.Node("s1-a"), d.cluster.Node("s2-a")
	freshDatabase(t, s1, "climbing_1")
	freshDatabase(t, s2, "climbing_2")
	home, there := connectTo(t, s1.DSN("climbing_1")), connectTo(t, s2.DSN("climbing_2"))
	for _, sql := range []string{
		"create role worker login password 'worker' createrole", "grant pg_monitor, pg_signal_backend to worker", "grant app to worker with admin option", "grant select on pg_authid to worker",
		"alter database climbing_1 owner to app", "grant create on database climbing_1 to worker", "create role climber login in role worker",
	} {
		mustExec(t, home, sql)
	}
	mustExec(t, there, "create role worker superuser login password 'worker'")
	d.adminExec(t, "CREATE DATABASE climbing")
	create := func(i, port int) string {
		return fmt.Sprintf("CREATE SHARD climbing_s%d IN climbing NODE 'postgres://worker:worker@127.0.0.1:%d/climbing_%d?sslmode=disable' NAME climbing_n%[1]d", i, port, i)
	}
	d.adminExec(t, create(1, s1.Port))
	d.adminFails(t, create(2, s2.Port), "55000", "climber")
	if queryOne[bool](t, there, "select exists (select from pg_roles where rolname = 'climber')") {
		t.Error("climber is there, and in a superuser")
	}
}
