package main

import (
	"fmt"
	"testing"
)

// An aggregate that an extension brings makes one value of the rows of all shards, though no list of ours has its name.
func TestAggregatesOfExtensionsSeeAllShards(t *testing.T) {
	t.Parallel()
	d := shop(t)
	t.Cleanup(func() { d.forget(t, "intagg") })
	d.adminExec(t, "CREATE DATABASE intagg")
	for i, n := range []string{"s1-a", "s2-a"} {
		node, phys := d.cluster.Node(n), fmt.Sprintf("intagg_%d", i)
		freshDatabase(t, node, phys)
		mustExec(t, connectTo(t, node.DSN(phys)), "create extension intagg")
		d.adminExec(t, fmt.Sprintf("CREATE SHARD intagg_d%d IN intagg NODE '%s' NAME intagg_n%[1]d", i, node.DSN(phys)))
	}
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "intagg"))
	mustExec(t, c, "create table numbers (k bigint primary key, v int)")
	mustExec(t, c, "insert into numbers select i, i from generate_series(1, 20) i")
	d.adminExec(t, "CREATE GROUP ids IN intagg KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE intagg.public.numbers IN GROUP ids KEY (k)")
	for sql, want := range map[string]int{
		"select array_length(int_array_aggregate(v), 1) from numbers":                         20,
		"select count(*) from (select int_array_aggregate(v) as a from numbers) s":            1,
		"select count(*) from (select k, int_array_aggregate(v) from numbers group by k) s":   20,
		"select array_length((select int_array_aggregate(v) from numbers), 1)":                20,
		"select count(distinct a) from (select int_array_aggregate(v) as a from numbers) s":   1,
		"select array_length(int_array_aggregate(v), 1) from numbers where k in (1, 2, 3, 4)": 4,
	} {
		rows, err := c.Query(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for rows.Next() {
			var n int
			if err := rows.Scan(&n); err != nil {
				t.Fatal(err)
			}
			got = append(got, n)
		}
		if err := rows.Err(); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v, %v; want %d", sql, got, err, want)
		}
	}
}
