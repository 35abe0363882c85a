package main

import (
	"fmt"
	"net/url"
	"testing"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// The role of the nodes' connection strings may have any name, and is not taken for another one whose name PostgreSQL reads there.
func TestTheProxysRoleMayHaveAnyName(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, NoLoad: true})
	for i, role := range []string{"App", "the.boss", `it's "one"`} { // app is an ordinary role
		name := fmt.Sprintf("capital_%d", i)
		d.adminExec(t, "CREATE DATABASE "+name)
		for j, node := range []string{"s1-a", "s2-a"} {
			n := d.cluster.Node(node)
			phys := fmt.Sprintf("%s_%d", name, j)
			freshDatabase(t, n, phys)
			root := connectTo(t, n.DSN(phys))
			var sql string
			if err := root.QueryRow(t.Context(), "select format('create role %I superuser login password %L', $1::text, 'secret')", role).Scan(&sql); err != nil {
				t.Fatal(err)
			}
			mustExec(t, root, sql)
			dsn := url.URL{Scheme: "postgres", User: url.UserPassword(role, "secret"), Host: fmt.Sprintf("127.0.0.1:%d", n.Port), Path: phys, RawQuery: "sslmode=disable"}
			if _, err := d.Admin.Exec(t.Context(), fmt.Sprintf("CREATE SHARD %s_s%d IN %s NODE %s NAME %s_n%[2]d", name, j, name, "'"+dsn.String()+"'", name), false); err != nil {
				t.Errorf("%s: %v", role, err)
			}
		}
		if t.Failed() {
			continue
		}
		d.adminExec(t, "CREATE GROUP g IN "+name+" KEY (int) BY HASH")
		home := connectTo(t, d.cluster.Node("s1-a").DSN(name+"_0"))
		app := connectTo(t, asRole(d, home, "app"))
		mustExec(t, app, "create schema priv; create schema code; "+climb)
		d.adminExec(t, "ALTER ROUTINE "+name+".code.put SHARD SAFE") // which names a table of home's
		mustExec(t, app, "create table priv.t (id int primary key, v int); create index on priv.t (code.f(v)); insert into priv.t select i, i from generate_series(1, 30) i")
		if queryOne[bool](t, home, "select rolsuper from pg_roles where rolname = 'app'") {
			t.Fatal("app is a superuser by its own statements")
		}
		if _, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE "+name+".priv.t IN GROUP g KEY (id)", false); err != nil {
			t.Errorf("%s: %v", role, err)
		}
		for _, node := range []string{"s1-a", "s2-a"} {
			c := connectTo(t, d.cluster.Node(node).DSN("postgres"))
			if queryOne[bool](t, c, "select rolsuper from pg_roles where rolname = 'app'") {
				t.Errorf("%s: app is a superuser on the server of %s", role, node)
				mustExec(t, c, "alter role app nosuperuser")
			}
		}
	}
}
