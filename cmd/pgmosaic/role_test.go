package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// The role of the nodes' connection strings need not be a superuser. docs/security.md has these grants.
func TestTheProxysRoleNeedsNoSuperuser(t *testing.T) {
	t.Parallel()
	d := shop(t)
	d.adminExec(t, "CREATE DATABASE modest")
	for i, name := range []string{"s1-a", "s2-a"} {
		node := d.cluster.Node(name)
		c := connectTo(t, node.DSN("postgres"))
		mustExec(t, c, "drop database if exists modest with (force)")
		mustExec(t, c, "drop role if exists modest_proxy")
		mustExec(t, c, "create role modest_proxy login password 'modest' createrole")
		mustExec(t, c, "grant pg_monitor, pg_signal_backend to modest_proxy")
		mustExec(t, c, "grant app to modest_proxy with admin option")
		mustExec(t, c, "create database modest owner app")
		mustExec(t, c, "grant create on database modest to modest_proxy")
		t.Cleanup(func() {
			ctx := context.Background()
			c, err := pgx.Connect(ctx, node.DSN("postgres"))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close(ctx)
			for _, sql := range []string{"drop database if exists modest with (force)", "drop role if exists modest_proxy"} {
				if _, err := c.Exec(ctx, sql); err != nil {
					t.Error(err)
				}
			}
		})
		d.adminExec(t, fmt.Sprintf("CREATE SHARD m%d IN modest NODE 'postgres://modest_proxy:modest@127.0.0.1:%d/modest?sslmode=disable'", i+1, node.Port))
	}
	t.Cleanup(func() { d.forget(t, "modest") })
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
