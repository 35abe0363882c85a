package main

import (
	"fmt"
	"testing"
)

// A node more or less, and what becomes of other databases, costs no plan. Whatever else changes in the map has all planned anew.
func TestNodesThatComeAndGoLeaveThePlansAlone(t *testing.T) {
	t.Parallel()
	d := shop(t)
	d.adminExec(t, "CREATE DATABASE shaped")
	for i := 1; i <= 2; i++ {
		n := d.cluster.Node(fmt.Sprintf("s%d-a", i))
		freshDatabase(t, n, fmt.Sprintf("shaped_%d", i))
		d.adminExec(t, fmt.Sprintf("CREATE SHARD shaped_s%d IN shaped NODE '%s' NAME a%d", i, n.DSN(fmt.Sprintf("shaped_%d", i)), i))
	}
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "shaped"))
	mustExec(t, c, "create table t (id int primary key, n int); insert into t select i, i from generate_series(1, 100) i")
	d.adminExec(t, "CREATE GROUP t IN shaped KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE shaped.public.t IN GROUP t KEY (id)")
	mustExec(t, c, "prepare p as select n from t where id = $1")
	queries := []string{"select n from t where id = 17", "select sum(n) - 5033 from t", "execute p(17)"}
	planned := func() int64 {
		t.Helper()
		before := d.Metrics.Database("shaped").PlanMisses.Load()
		for _, q := range queries {
			if n := queryOne[int](t, c, q); n != 17 {
				t.Errorf("%s: %d", q, n)
			}
		}
		return d.Metrics.Database("shaped").PlanMisses.Load() - before
	}
	planned()
	version := d.Catalog.Current().Version
	for _, x := range []struct {
		sql  string
		same bool
	}{
		{"ALTER SHARD shaped_s1 IN shaped ADD NODE '" + d.cluster.Node("s1-b").DSN("shaped_1") + "' NAME b", true},
		{"ALTER SHARD shaped_s1 IN shaped DROP NODE b", true},
		{"CREATE DATABASE shaped_other", true},
		{"DROP DATABASE shaped_other", true},
		{"CREATE GROUP other IN shaped KEY (int) BY HASH", false},
	} {
		d.adminExec(t, x.sql)
		if now := d.Catalog.Current().Version; now <= version {
			t.Errorf("%s: the map has version %d, as before", x.sql, now)
		} else {
			version = now
		}
		if n := planned(); (n == 0) != x.same {
			t.Errorf("%s: %d statements were planned anew", x.sql, n)
		}
		if n := planned(); n != 0 {
			t.Errorf("%s: %d statements were planned twice", x.sql, n)
		}
	}
}
