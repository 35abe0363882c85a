package main

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// With home's shard down whoever has an account logs in, to a process that was there before and to one that starts now, and
// reaches the other shards. What only home knows is refused, and is there again when home is.
func TestOtherShardsAreReachedWhileHomeIsAway(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Customers: 200, Orders: 400})
	home, other := d.cluster.Node("s1-a"), d.cluster.Node("s2-a")
	for _, n := range []*cluster.Node{home, other} {
		mustExec(t, connectTo(t, n.DSN("shop")), "alter role postgres password '"+d.cluster.Password+"'") // by SCRAM
	}
	begin := func() *app {
		cfg := crashConfig(t, mapOf(d, "shop"))
		cfg.Users, cfg.Buffer = nil, 0 // all are looked up; what needs home fails at once
		cfg.AuthQuery = "select rolname, rolpassword from pg_authid where rolname = $1"
		return startApp(t, cfg)
	}
	login := func(a *app, user, more string) (*pgx.Conn, error) {
		c, err := pgx.Connect(t.Context(), dsnFor(user, user, a.Server.Addr(), "shop")+"?sslmode=disable"+more)
		if err == nil {
			t.Cleanup(func() { _ = c.Close(context.Background()) })
		}
		return c, err
	}
	here, there := queryOne[int](t, connectTo(t, home.DSN("shop")), "select min(customer_id) from customers"), queryOne[int](t, connectTo(t, other.DSN("shop")), "select min(customer_id) from customers")
	old := begin()
	super := connectTo(t, dsnFor("postgres", d.cluster.Password, old.Server.Addr(), "shop"))
	mustExec(t, super, "create role fresh login password 'fresh'") // to all shards, with one verifier
	mustExec(t, super, "grant select on customers to fresh")
	mustExec(t, super, "alter role fresh set timezone to 'Asia/Tokyo'")
	mustExec(t, super, "create schema priv; create table priv.customers (customer_id bigint, name text); create table priv.own (a int); grant usage on schema priv to fresh")
	_ = super.Close(t.Context())

	home.Kill()
	eventually(t, "home is seen to be away", func() bool { v := old.Monitor.View("shop", "s1"); return v != nil && !v.Serves() })
	var late *pgx.Conn
	fresh := begin()
	for name, a := range map[string]*app{"a process that was there": old, "a new process": fresh} {
		c, err := login(a, "fresh", "")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if zone := c.PgConn().ParameterStatus("TimeZone"); zone != "Asia/Tokyo" {
			t.Errorf("%s: the role's own time zone is %q", name, zone)
		}
		if n := queryOne[int](t, c, "select count(*) from customers where customer_id = $1", there); n != 1 {
			t.Errorf("%s: %d rows on the other shard", name, n)
		}
		_, err = c.Exec(t.Context(), "select count(*) from customers where customer_id = $1", here)
		wantCode(t, err, "57P03")
		_, err = c.Exec(t.Context(), "select * from priv.own")
		wantCode(t, err, "57P03")
		if a == fresh {
			late = c
		}
		_, err = login(a, "nobody", "")
		wantCode(t, err, "28P01")
	}
	// Home has priv.customers, which comes first, and nobody else knows it.
	hidden, err := login(fresh, "fresh", "&search_path=priv,public")
	if err != nil {
		t.Fatal(err)
	}
	_, err = hidden.Exec(t.Context(), "select count(*) from customers where customer_id = $1", there)
	wantRule(t, err, "home-away", "57P03")
	if n := queryOne[int](t, hidden, "select count(*) from public.customers where customer_id = $1", there); n != 1 {
		t.Errorf("%d rows by the name with its schema", n)
	}

	if err := home.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "home's own schema is in use", func() bool {
		sch, err := fresh.Engine.Planner.Schemas.Get(t.Context(), fresh.Catalog.Current().Databases["shop"])
		return err == nil && sch.StandIn == ""
	})
	_, err = late.Exec(t.Context(), "select count(*) from customers where customer_id = $1", there)
	wantCode(t, err, "57P01") // it was told OIDs of the other shard
	c, err := login(fresh, "fresh", "&search_path=priv,public")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Exec(t.Context(), "select count(*) from customers")
	wantCode(t, err, "42501") // of priv.customers
	if n := queryOne[int](t, c, "select count(*) from public.customers"); n != 200 {
		t.Errorf("%d rows", n)
	}
}
