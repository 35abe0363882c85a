package main

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/jackc/pgx/v5"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// A shard whose primary went before anybody asked this database for anything is read from its replica all the same.
func TestAReplicaAnswersThoughNobodyAskedBeforeItsPrimaryWent(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 1, Customers: 200, Orders: 400})
	otherMoods(t, d)
	a := startApp(t, crashConfig(t, mapOf(d, "shop")))
	eventually(t, "the replicas are fresh", func() bool {
		for _, s := range []string{"s1", "s2"} {
			v := a.Monitor.View("shop", s)
			if v == nil || !v.Serves() || len(v.Nodes) != 2 || v.Nodes[1].Verdict.Health != replication.Eligible || v.Nodes[1].FreshUntil.IsZero() {
				return false
			}
		}
		return true
	})
	d.cluster.Node("s2-a").Kill()
	eventually(t, "its primary is seen to be away", func() bool { return !a.Monitor.View("shop", "s2").Serves() })
	c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "shop"))
	if n := queryOne[int](t, c, "select count(*) from customers"); n != 200 {
		t.Errorf("%d rows", n)
	}
	moodsAreHomes(t, d, c)
}

// moodsAreHomes reads an array of a type that has another OID on the other shard.
func moodsAreHomes(t *testing.T, d *demo, c *pgx.Conn) {
	t.Helper()
	want := queryOne[uint32](t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "select 'mood'::regtype::oid")
	rows, err := c.Query(t.Context(), "select array[mood] from customers", pgx.QueryResultFormats{1})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		if of := binary.BigEndian.Uint32(rows.RawValues()[0][8:]); of != want {
			t.Fatalf("an array of type %d, which is %d at home", of, want)
		}
	}
	if rows.Err() != nil || rows.CommandTag().RowsAffected() != 200 {
		t.Errorf("%d rows: %v", rows.CommandTag().RowsAffected(), rows.Err())
	}
}

// A shard that did not answer when the types were read is asked for them before anything is sent to it: home's would mean others there.
func TestNothingIsAskedOfAShardWhoseTypesAreNotKnown(t *testing.T) {
	t.Parallel()
	d, a := begunWithout(t)
	var all []*pgx.Conn
	for range 3 {
		c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "shop"))
		mustExec(t, c, "select 1")
		all = append(all, c)
	}
	if sch, err := a.Engine.Planner.Schemas.Get(t.Context(), a.Catalog.Current().Databases["shop"]); err != nil || sch.Doubts["s2"] != schema.Unread {
		t.Fatalf("the types of a shard that is away are known: %v", err)
	}
	begun := all[2]
	mustExec(t, begun, "begin")
	queryOne[int](t, begun, "select count(*) from pg_class")
	if err := d.cluster.Node("s2-a").Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shard is back", func() bool { return a.Monitor.View("shop", "s2").Serves() })
	moodsAreHomes(t, d, all[0])
	_, err := begun.Exec(t.Context(), "update customers set mood = 'fine'")
	if err == nil {
		t.Log("the transaction goes on")
	} else {
		wantCode(t, err, "40001")
	}
	mustExec(t, begun, "rollback")
	moodsAreHomes(t, d, begun)
	home := queryOne[uint32](t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "select 'mood'::regtype::oid")
	res := all[1].PgConn().ExecParams(t.Context(), "select count(*) from customers where mood = $1", [][]byte{[]byte("sad")}, []uint32{home}, nil, nil).Read()
	if res.Err != nil || string(res.Rows[0][0]) != "200" {
		t.Errorf("a parameter of home's type: %v", res.Err)
	}
}

// The schema was to be read anew, and could not be: a shard whose types are not known is asked for them all the same.
func TestTypesAreAskedForBehindAReadThatHasFailed(t *testing.T) {
	t.Parallel()
	d, a := begunWithout(t)
	c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "shop"))
	mustExec(t, c, "select 1")
	schemas, db := &a.Engine.Planner.Schemas, a.Catalog.Current().Databases["shop"]
	if sch, err := schemas.Get(t.Context(), db); err != nil || sch.Doubts["s2"] != schema.Unread {
		t.Fatalf("the types of a shard that is away are known: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := schemas.Refresh(gone, db); err == nil {
		t.Fatal("it was read for nobody")
	}
	if err := d.cluster.Node("s2-a").Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shard is back", func() bool { return a.Monitor.View("shop", "s2").Serves() })
	_ = schemas.Resolve(gone, db, "") // it is served, and could not be read all the same
	moodsAreHomes(t, d, c)
}

// begunWithout is a process that has begun while the second shard was away.
func begunWithout(t *testing.T) (*demo, *app) {
	t.Helper()
	d := newDemo(t, showcase.Options{Shards: 2, Customers: 200, Orders: 400})
	otherMoods(t, d)
	d.cluster.Node("s2-a").Kill()
	a := startApp(t, crashConfig(t, mapOf(d, "shop")))
	eventually(t, "home has answered", func() bool { return a.Monitor.View("shop", "s1").Up() })
	return d, a
}

// otherMoods makes a type that has another OID on the second shard, and a column of it.
func otherMoods(t *testing.T, d *demo) {
	t.Helper()
	mustExec(t, connectTo(t, d.cluster.Node("s2-a").DSN("shop")), "create type of_its_own as enum ('a')")
	a := startApp(t, crashConfig(t, mapOf(d, "shop")))
	mustExec(t, connectTo(t, dsnFor("app", "app", a.Server.Addr(), "shop")), "create type mood as enum ('fine', 'sad'); alter table customers add mood mood default 'sad'")
}
