package main

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// A role that a shard gets is in the others as it is on home: with what PostgreSQL 16 lets a membership give and keep back, where there is that.
func TestMembershipsAreBroughtAsTheyAre(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, NoLoad: true})
	var on [2]*pgx.Conn
	for i, name := range []string{"s1-a", "s2-a"} {
		node := d.cluster.Node(name)
		freshDatabase(t, node, fmt.Sprintf("members_%d", i))
		on[i] = connectTo(t, node.DSN(fmt.Sprintf("members_%d", i)))
	}
	for _, sql := range []string{"create role pot", "create role plain", "create role keeper", "create role shy noinherit", "create role second"} {
		mustExec(t, on[0], sql)
	}
	grants := []string{"grant pot to plain", "grant pot to keeper with admin option", "grant pot to shy"}
	if queryOne[int](t, on[0], "select current_setting('server_version_num')::int") >= 160000 {
		grants = append(
			grants, "create role out; grant pot to out with inherit false, set false", "create role giver; grant pot to giver with admin true, inherit false, set false", "grant plain to shy with inherit true",
			"create role half; grant pot to half with set false", "grant pot to second with inherit false, set false; set role keeper; grant pot to second with inherit true, set false; reset role",
		)
	}
	for _, sql := range grants {
		mustExec(t, on[0], sql)
	}
	d.adminExec(t, "CREATE DATABASE members")
	for i, name := range []string{"s1-a", "s2-a"} {
		d.adminExec(t, fmt.Sprintf("CREATE SHARD members_s%d IN members NODE '%s'", i, d.cluster.Node(name).DSN(fmt.Sprintf("members_%d", i))))
	}
	const all = `select string_agg(x, '; ' order by x) from (select m.member::regrole || ' in ' || m.roleid::regrole || ' admin ' || bool_or(m.admin_option) ||
	  coalesce(' inherit ' || bool_or((to_jsonb(m) ->> 'inherit_option')::bool) || ' set ' || bool_or((to_jsonb(m) ->> 'set_option')::bool), '') x
	  from pg_auth_members m where m.roleid > 16383 group by m.member, m.roleid) x`
	want, got := queryOne[string](t, on[0], all), queryOne[string](t, on[1], all)
	if got != want || want == "" {
		t.Errorf("the shard has %s, home has %s", got, want)
	}
}
