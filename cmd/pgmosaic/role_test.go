package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// modestWorld is a database of two shards on the shop's servers, where the role of the nodes' connection strings, NAME_proxy, is what
// docs/security.md has. The connections are a superuser's, to the shards' databases.
func modestWorld(t *testing.T, name string) (*demo, []*pgx.Conn) {
	t.Helper()
	d := shop(t)
	d.adminExec(t, "CREATE DATABASE "+name)
	role := name + "_proxy"
	var shards []*pgx.Conn
	for i, at := range []string{"s1-a", "s2-a"} {
		node := d.cluster.Node(at)
		c := connectTo(t, node.DSN("postgres"))
		clean := []string{"drop database if exists " + name + " with (force)", "drop role if exists " + role}
		for _, sql := range append(clean, "create role "+role+" login password 'modest' createrole", "grant pg_monitor, pg_signal_backend to "+role,
			"grant app to "+role+" with admin option", "create database "+name+" owner app", "grant create on database "+name+" to "+role) {
			mustExec(t, c, sql)
		}
		t.Cleanup(func() {
			ctx := context.Background()
			c, err := pgx.Connect(ctx, node.DSN("postgres"))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close(ctx)
			for _, sql := range clean {
				if _, err := c.Exec(ctx, sql); err != nil {
					t.Error(err)
				}
			}
		})
		d.adminExec(t, fmt.Sprintf("CREATE SHARD %[1]s_s%[2]d IN %[1]s NODE 'postgres://%[3]s:modest@127.0.0.1:%[4]d/%[1]s?sslmode=disable'", name, i+1, role, node.Port))
		shards = append(shards, connectTo(t, node.DSN(name)))
	}
	t.Cleanup(func() { d.forget(t, name) })
	return d, shards
}

// The role of the nodes' connection strings need not be a superuser. docs/security.md has these grants.
func TestTheProxysRoleNeedsNoSuperuser(t *testing.T) {
	t.Parallel()
	d, _ := modestWorld(t, "modest")
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "modest"))
	mustExec(t, c, "create table orders (customer_id bigint, n int, primary key (customer_id, n))")
	mustExec(t, c, "insert into orders select g, 1 from generate_series(1, 100) g")
	d.adminExec(t, "CREATE GROUP customers IN modest KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE modest.public.orders IN GROUP customers KEY (customer_id)")
	mustExec(t, c, "update orders set n = 2") // in two phases
	mustExec(t, c, "alter table orders add total numeric")
	if n := queryOne[int](t, c, "select sum(n) from orders"); n != 200 {
		t.Errorf("%d", n)
	}
	if n := queryOne[int](t, c, "select count(*) from (select customer_id from orders order by random() limit 10) x join orders using (customer_id)"); n != 10 {
		t.Errorf("%d rows of a gather", n)
	}
}

// Nor does it for the rest of what the admin and clients ask: each statement works, or says what to grant.
func TestAnOrdinaryRoleDoesTheRest(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 1, NoLoad: true})
	third, err := d.cluster.Primary(t.Context(), "s3-a")
	if err != nil {
		t.Fatal(err)
	}
	modest := func(n *cluster.Node, database string) string {
		return fmt.Sprintf("postgres://modest_proxy:modest@127.0.0.1:%d/%s?sslmode=disable", n.Port, database)
	}
	root := map[string]*pgx.Conn{}
	as := func(node string, list ...string) {
		t.Helper()
		for _, sql := range list {
			mustExec(t, root[node], sql)
		}
	}
	for _, name := range []string{"s1-a", "s2-a", "s3-a"} { // docs/security.md
		root[name] = connectTo(t, d.cluster.Node(name).DSN("postgres"))
		as(name, "create role modest_proxy login password 'modest' createrole", "grant pg_monitor, pg_signal_backend to modest_proxy")
		if name != "s3-a" {
			as(name, "alter role app createrole", "grant app to modest_proxy with admin option", "create database modest owner app", "grant create on database modest to modest_proxy")
		}
	}
	d.adminExec(t, "CREATE DATABASE modest")
	eventually(t, "the replica has the database", func() bool {
		c, err := pgx.Connect(t.Context(), modest(d.cluster.Node("s1-b"), "modest"))
		if err == nil {
			_ = c.Close(t.Context())
		}
		return err == nil
	})
	d.adminExec(t, "CREATE SHARD m1 IN modest NODE '"+modest(d.cluster.Node("s1-a"), "modest")+"' NAME ma")
	d.adminExec(t, "ALTER SHARD m1 IN modest ADD NODE '"+modest(d.cluster.Node("s1-b"), "modest")+"' NAME mb")
	d.adminExec(t, "CREATE SHARD m2 IN modest NODE '"+modest(d.cluster.Node("s2-a"), "modest")+"' NAME mc")
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "modest")+"?default_query_exec_mode=simple_protocol")
	for _, sql := range []string{
		"create table codes (code text primary key, n int check (n > 0))", "create table orders (id bigint primary key, code text)", "create schema apart", "create table apart.things (a int primary key)",
		"insert into codes values ('a', 1), ('b', 2)", "insert into orders select g, 'a' from generate_series(1, 100) g", "insert into apart.things values (1)",
		"create function tens(int) returns int immutable language sql as 'select $1 / 10'", "create table own (id bigint primary key, n int)", "create index on own (tens(n))", "insert into own select g, g from generate_series(1, 20) g",
		"create role clerk login password 'clerk'", "alter role clerk connection limit 5", "grant select on codes to clerk", "create role staff", "grant staff to clerk",
	} {
		mustExec(t, c, sql)
	}
	for _, sql := range []string{
		"CREATE GROUP g IN modest KEY (bigint) BY HASH", "DISTRIBUTE TABLE modest.public.codes AS REFERENCE", "DISTRIBUTE TABLE modest.public.orders IN GROUP g KEY (id)", "DISTRIBUTE TABLE modest.public.own IN GROUP g KEY (id)",
		"DISTRIBUTE SCHEMA modest.apart ON m2",
	} {
		d.adminExec(t, sql)
	}
	for _, sql := range []string{
		"insert into codes values ('c', 3)", "update codes set n = n + 1", "update orders set code = 'c'", "alter table codes add column more text default 'x'", "begin; insert into codes values ('d', 4); update orders set code = 'd'; commit",
		"grant insert on orders to clerk", "alter role clerk password 'other'", "revoke staff from clerk", "create role later", "drop role later", "truncate codes", "insert into codes values ('a', 1)",
	} {
		mustExec(t, c, sql)
	}
	verified := func(list ...string) {
		t.Helper()
		for _, sql := range append(list, "VERIFY SCHEMA IN modest") {
			if rows := d.adminExec(t, sql); strings.HasPrefix(sql, "VERIFY SCHEMA") && len(rows) > 0 {
				t.Errorf("%s: %v", sql, rows)
			}
		}
	}
	tables := []string{"VERIFY TABLE modest.public.codes", "VERIFY TABLE modest.public.orders", "VERIFY TABLE modest.public.own", "VERIFY TABLE modest.apart.things"}
	verified(tables...)
	for _, shard := range []string{"m1", "m2"} {
		d.adminExec(t, "ALTER SHARD "+shard+" IN modest ADOPT")
	}

	// A third shard: first of the server of the second, where all roles are, then of one that has none of them.
	as("s2-a", "create database modest_3 owner app", "grant create on database modest_3 to modest_proxy")
	d.adminExec(t, "CREATE SHARD m3 IN modest NODE '"+modest(d.cluster.Node("s2-a"), "modest_3")+"' NAME md")
	verified(tables...)
	as("s3-a", "create database modest", "grant create on database modest to modest_proxy")
	create := "CREATE SHARD m4 IN modest NODE '" + modest(third, "modest") + "' NAME me"
	d.refused(t, create, "42501", "GRANT SELECT ON pg_authid")
	mustExec(t, connectTo(t, d.cluster.Node("s1-a").DSN("modest")), "grant select on pg_authid to modest_proxy")
	d.refused(t, create, "42501", "schema public", "belongs to app")
	as("s3-a", "create role app login createrole", "grant app to modest_proxy with admin option", "alter database modest owner to app")
	d.adminExec(t, create)
	verified(tables...)
	for _, sql := range []string{"DROP SHARD m4 IN modest", "DROP SHARD m3 IN modest"} {
		d.adminExec(t, sql)
	}

	// The first shard's primary dies, and its replica takes over.
	d.cluster.Node("s1-a").Kill()
	if err := d.cluster.Node("s1-b").Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the replica is the primary", func() bool {
		v := d.Monitor.View("modest", "m1")
		return v.Up() && v.Nodes[v.Primary].Name == "mb"
	})
	c = connectTo(t, dsnFor("app", "app", d.Server.Addr(), "modest")+"?default_query_exec_mode=simple_protocol")
	for _, sql := range []string{"update orders set code = 'a'", "update codes set n = n + 1", "create index on orders (code)", "alter role clerk nologin"} {
		mustExec(t, c, sql)
	}
	verified(tables...)
	for _, sql := range []string{
		"UNDISTRIBUTE TABLE modest.public.codes", "UNDISTRIBUTE TABLE modest.public.own", "UNDISTRIBUTE TABLE modest.public.orders", "UNDISTRIBUTE SCHEMA modest.apart", "DROP GROUP g IN modest", "DROP SHARD m2 IN modest", "DROP SHARD m1 IN modest", "DROP DATABASE modest",
	} {
		d.adminExec(t, sql)
	}
}
