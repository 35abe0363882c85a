package main

import (
	"fmt"
	"testing"
)

// What catalogs say of a sharded table's size is home's part, unless another shard is named; counting rows counts all of them.
func TestSizesAreOfOneShard(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	const size = "select pg_total_relation_size('orders') || ' ' || pg_relation_size('orders')"
	var rows, bytes int64
	for i, shard := range []string{"s1", "s2"} {
		node := connectTo(t, d.cluster.Node(shard+"-a").DSN("shop"))
		want := queryOne[string](t, node, size)
		mustExec(t, c, "set pgmosaic.shard = '"+shard+"'")
		if got := queryOne[string](t, c, size); got != want {
			t.Errorf("shard %s has %s by itself, and %s by its name", shard, want, got)
		}
		mustExec(t, c, "reset pgmosaic.shard")
		if got := queryOne[string](t, c, size); i == 0 && got != want {
			t.Errorf("home has %s, and %s is said", want, got)
		}
		rows += queryOne[int64](t, node, "select count(*) from orders")
		bytes += queryOne[int64](t, node, "select sum(pg_column_size(o.*)) from orders o")
	}
	if got := queryOne[string](t, c, "select count(*) || ' ' || sum(pg_column_size(o.*)) from orders o"); got != fmt.Sprint(rows, " ", bytes) {
		t.Errorf("all shards have %d rows of %d bytes, and %s is counted", rows, bytes, got)
	}
}
