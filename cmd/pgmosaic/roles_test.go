package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Roles are made, changed and dropped on every server, once on each, with one verifier everywhere; a server that refuses undoes
// it on all.
func TestRolesReachEveryServer(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "roled") // three shards on two servers
	servers := []*pgx.Conn{connectTo(t, d.cluster.Node("s1-a").DSN("postgres")), connectTo(t, d.cluster.Node("s2-a").DSN("postgres"))}
	for _, s := range servers {
		mustExec(t, s, "alter role app createrole createdb")
		defer mustExec(t, s, "alter role app nocreaterole nocreatedb")
	}
	const rolesAre = `select coalesce(string_agg(r.rolname || ' ' || r.rolcanlogin || r.rolcreatedb || coalesce(r.rolpassword, '-') || coalesce(s.setconfig::text, '')
		|| coalesce((select string_agg(m.roleid::regrole::text, ',') from pg_auth_members m where m.member = r.oid), ''), e'\n' order by r.rolname), '')
		from pg_authid r left join pg_db_role_setting s on s.setrole = r.oid where r.rolname like 'x\_%'`
	same := func(what string) string {
		t.Helper()
		a, b := queryOne[string](t, servers[0], rolesAre), queryOne[string](t, servers[1], rolesAre)
		if a != b {
			t.Errorf("%s: the servers have\n%s\nand\n%s", what, a, b)
		}
		return a
	}
	for _, x := range []struct{ sql, has string }{
		{"create role x_group", "x_group falsefalse-"},
		{"create role x_user login password 'it''s secret' in role x_group", "x_user truefalseSCRAM-SHA-256$4096:"},
		{"alter role x_user createdb password 'another'", "x_user truetrueSCRAM"},
		{"alter role x_user set work_mem = '8MB'", "work_mem=8MB"},
		{"create user x_raw password 'SCRAM-SHA-256$4096:AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='", "x_raw truefalseSCRAM-SHA-256$4096:AAAA"},
		{"grant x_group to x_raw", "x_group"},
		{"alter role x_raw rename to x_renamed", "x_renamed"},
		{"begin; create role x_tx; grant x_tx to x_group; commit", "x_tx"},
		{"begin; create role x_never; rollback", ""},
	} {
		mustExec(t, c, x.sql)
		if now := same(x.sql); !strings.Contains(now, x.has) || strings.Contains(now, "x_never") {
			t.Errorf("%s: %s", x.sql, now)
		}
	}
	// The keys of one login are good for every server.
	for _, n := range []string{"s1-a", "s2-a"} {
		dsn := strings.Replace(d.cluster.Node(n).DSN("postgres"), "postgres:"+d.cluster.Password, "x_user:another", 1)
		if who := queryOne[string](t, connectTo(t, dsn), "select current_user"); who != "x_user" {
			t.Error(who)
		}
	}
	mustExec(t, servers[1], "create role x_taken")
	_, err := c.Exec(t.Context(), "create role x_taken login")
	wantCode(t, err, "42710")
	if !strings.Contains(err.Error(), "on shard") {
		t.Errorf("it does not say where: %v", err)
	}
	if n := queryOne[int](t, servers[0], "select count(*) from pg_roles where rolname = 'x_taken'"); n != 0 {
		t.Error("the first server has kept it")
	}
	mustExec(t, c, "drop role if exists x_taken")
	mustExec(t, c, "drop role x_user, x_renamed, x_tx, x_group")
	if left := same("dropped"); left != "" {
		t.Errorf("left: %s", left)
	}
}
