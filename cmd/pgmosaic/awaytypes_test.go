package main

import (
	"testing"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/replication"
)

// A shard whose primary went before anybody asked this database for anything is read from its replica all the same.
func TestAReplicaAnswersThoughNobodyAskedBeforeItsPrimaryWent(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 1, Customers: 200, Orders: 400})
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
}
