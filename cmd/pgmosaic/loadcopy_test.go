//go:build load

package main

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// COPY into four shards of one machine beside COPY into one table of one server, in turn.
func TestLoadCopy(t *testing.T) {
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, NoLoad: true})
	d.adminExec(t, "CREATE DATABASE copying")
	for i := range 4 {
		node := d.cluster.Node([]string{"s1-a", "s2-a"}[i%2])
		freshDatabase(t, node, fmt.Sprintf("copying_%d", i))
		d.adminExec(t, fmt.Sprintf("CREATE SHARD c%d IN copying NODE '%s' NAME k%d", i, node.DSN(fmt.Sprintf("copying_%d", i)), i))
	}
	freshDatabase(t, d.cluster.Node("s1-a"), "copying_one")
	const table = "create table lines (id bigint primary key, k int, name text, at timestamptz, amount numeric(12,2), note text)"
	many, one := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "copying")), connectTo(t, d.cluster.Node("s1-a").DSN("copying_one"))
	mustExec(t, many, table)
	mustExec(t, one, table)
	d.adminExec(t, "CREATE GROUP g IN copying KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE copying.public.lines IN GROUP g KEY (id)")
	var rows bytes.Buffer
	const n = 500000
	for i := range n {
		fmt.Fprintf(&rows, "%d\t%d\tname of %d\t2026-01-01 00:00:00+00\t%d.50\ta note that is neither long nor short\n", i, i%1000, i, i%100000)
	}
	load := func(c *pgx.Conn) float64 {
		mustExec(t, c, "truncate lines")
		start := time.Now()
		if tag, err := c.PgConn().CopyFrom(t.Context(), bytes.NewReader(rows.Bytes()), "copy lines from stdin"); err != nil || tag.RowsAffected() != n {
			t.Fatal(tag, err)
		}
		return time.Since(start).Seconds()
	}
	var ratios []float64
	var last [2]float64
	for range 5 {
		last = [2]float64{load(one), load(many)}
		ratios = append(ratios, last[0]/last[1])
	}
	slices.Sort(ratios)
	t.Logf("COPY of %d rows (%d MB): %.2f times the speed of one table (%.2f to %.2f); the last took %.2f and %.2f s", n, rows.Len()>>20, ratios[2], ratios[0], ratios[4], last[0], last[1])
	if ratios[2] < 0.8 {
		t.Errorf("COPY into 4 shards is %.2f times as fast as into one table", ratios[2])
	}
}
