package main

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// through is a node's connection string by way of a middleman.
func through(n *cluster.Node, via net.Addr, database string) string {
	return strings.Replace(n.DSN(database), fmt.Sprintf("127.0.0.1:%d", n.Port), via.String(), 1)
}

// A replica's name leads new connections to another cluster's replica, with the same tables, while the monitor's own connection stays
// where it was. No read goes there, at any level.
func TestReplicasNameLeadsToAnotherCluster(t *testing.T) {
	t.Parallel()
	d := shop(t)
	own, alien := d.cluster.Node("s1-b"), d.cluster.Node("s2-b")
	at := func(n *cluster.Node) string { return fmt.Sprintf("127.0.0.1:%d", n.Port) }
	via := newMiddleman(t, at(own))
	a := small(t, d, 3, func(c *config.Config) {
		c.Direct.Setup = []string{
			"CREATE DATABASE shop",
			fmt.Sprintf("CREATE SHARD s1 IN shop NODE '%s' NAME a NODE '%s' NAME b", d.cluster.Node("s1-a").DSN("shop"), through(own, via.Addr(), "shop")),
		}
	})
	eventually(t, "the replica answers reads", func() bool {
		v := a.Monitor.View("shop", "s1")
		return v != nil && len(v.Nodes) == 2 && v.Nodes[1].Verdict.Health.String() == "eligible"
	})
	const sql = "select md5(string_agg(customer_id::text, ' ' order by customer_id)) from customers"
	of := func(n *cluster.Node) string { return queryOne[string](t, connectTo(t, n.DSN("shop")), sql) }
	right, wrong := of(own), of(alien)
	if right == wrong {
		t.Fatal("the clusters cannot be told apart")
	}
	via.set(func() { via.to = at(alien) })
	for _, level := range []string{"causal", "session", "bounded", "eventual"} {
		c := connectTo(t, a.dsn())
		mustExec(t, c, "set pgmosaic.read_consistency = "+level)
		for range 20 {
			if got := queryOne[string](t, c, sql); got != right {
				t.Errorf("%s: %q, and the shard's is %q", level, got, right)
				break
			}
		}
	}
	if n := a.Metrics.Node("shop", "s1", "b"); n.Reads[0].Load() > 0 {
		t.Errorf("%d reads went to the other cluster", n.Reads[0].Load())
	}
}
