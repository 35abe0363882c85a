package main

import (
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// The last shard of a database stays while the map has something of the database that it has to decide or has the rows of.
func TestTheLastShardStaysWhileSomethingIsUnfinished(t *testing.T) {
	t.Parallel()
	d := shop(t)
	d.adminExec(t, "CREATE DATABASE lastone")
	t.Cleanup(func() { d.forget(t, "lastone") })
	node := d.cluster.Node("s1-a")
	freshDatabase(t, node, "lastone_0")
	d.adminExec(t, "CREATE SHARD lastone_s0 IN lastone NODE '"+node.DSN("lastone_0")+"' NAME lastone_n0")
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "lastone"))
	mustExec(t, c, "create table codes (id int primary key)")
	d.adminExec(t, "DISTRIBUTE TABLE lastone.public.codes AS REFERENCE")
	d.adminFails(t, "DROP SHARD lastone_s0 IN lastone", "55006", "has all of table public.codes")
	d.adminExec(t, "UNDISTRIBUTE TABLE lastone.public.codes")
	left := shardmap.Attempt{
		ID: "left", Database: "lastone", Statement: "CREATE SHARD lastone_s1", Shard: &shardmap.Shard{Database: "lastone", Name: "lastone_s1", Ordinal: 1},
		Nodes: []*shardmap.Node{{Database: "lastone", Shard: "lastone_s1", Name: "away", DSN: "postgres://app@127.0.0.1:1/lastone"}},
	}
	if err := d.Catalog.Retry(t.Context(), func(tx *shardmap.Tx) error { return tx.PutAttempt(left) }); err != nil {
		t.Fatal(err)
	}
	d.adminFails(t, "DROP SHARD lastone_s0 IN lastone", "55006", "is the home of what is unfinished: CREATE SHARD lastone_s1")
	if err := d.Catalog.Retry(t.Context(), func(tx *shardmap.Tx) error { return tx.Delete("attempts", "left") }); err != nil {
		t.Fatal(err)
	}
	d.adminExec(t, "DROP SHARD lastone_s0 IN lastone")
}

// A process whose map has an attempt of a database without a shard, as an older version could leave it, starts, and makes do.
func TestAnAttemptWithoutAHomeStopsNoStart(t *testing.T) {
	t.Parallel()
	d := shop(t)
	node := d.cluster.Node("s1-a")
	freshDatabase(t, node, "homeless")
	t.Cleanup(func() { dropBehind(node.DSN("homeless")) })
	a, err := stranger(t, &shardmap.Document{
		Version: 1, Install: "homeless", Databases: []*shardmap.Database{{Name: "homeless"}}, Attempts: []*shardmap.Attempt{{ID: "left", Database: "homeless", Statement: "DISTRIBUTE TABLE public.t", Schema: "public", Name: "t"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Mover.Recover(t.Context()); err == nil || !strings.Contains(err.Error(), `database "homeless" has no shard`) {
		t.Errorf("settled: %v", err)
	}
	if _, err := a.Admin.Exec(t.Context(), "CREATE SHARD s IN homeless NODE '"+node.DSN("homeless")+"' NAME n", false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is settled", func() bool {
		_ = a.Mover.Recover(t.Context())
		return len(a.Catalog.Current().Document.Attempts) == 0
	})
}
