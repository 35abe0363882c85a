package main

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
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

// A key that gets another shard costs no plan, and each kind of statement that was planned before goes where the key is now.
func TestPlansOutliveKeysThatGetAnotherShard(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "outlive")
	mustExec(t, c, "create table t (id int primary key, n int)")
	mustExec(t, c, "insert into t select i, i from generate_series(1, 100) i")
	mustExec(t, c, "create table source (id int, n int)")
	mustExec(t, c, "insert into source values (1000, 4)")
	d.adminExec(t, "CREATE GROUP g IN outlive KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE outlive.public.t IN GROUP g KEY (id)")
	mustExec(t, c, "prepare put as insert into t values ($1, 0)")
	mustExec(t, c, "prepare got as select n from t where id = $1")
	if _, err := c.Prepare(t.Context(), "upsert", "insert into t values ($1, $2) on conflict (id) do update set n = excluded.n"); err != nil {
		t.Fatal(err)
	}
	var on [3]*pgx.Conn
	for i := range on {
		on[i] = d.on(t, "outlive", i)
	}
	use := func(shard int) (planned int64) {
		t.Helper()
		before := d.Metrics.Database("outlive").PlanMisses.Load()
		for i, x := range []struct {
			sql  string
			args []any
		}{
			{sql: "insert into t values (1000, 0)"},
			{sql: "execute put(1000)"},
			{sql: "upsert", args: []any{1000, 2}},
			{sql: "insert into t values (1000, 3), (5000, 3)"},
			{sql: "insert into t select * from source"},
		} {
			mustExec(t, c, x.sql, x.args...)
			if n := queryOne[int](t, on[shard], "select count(*) from t where id = 1000"); n != 1 {
				t.Errorf("%s: %d rows on shard %d", x.sql, n, shard)
			}
			for _, sql := range []string{"select id from t where id = 1000", "select max(id) from t where id in (1000, 999)", "select a.id from t a join t b using (id) where a.id = 1000"} {
				if id := queryOne[int](t, c, sql); id != 1000 {
					t.Errorf("%d, %s: %d", i, sql, id)
				}
			}
			mustExec(t, c, "execute got(1000)")
			mustExec(t, c, "update t set n = n + 1 where id = 1000")
			mustExec(t, c, "update t set id = 5001 where id = 1000") // which moves it, or not
			mustExec(t, c, "update t set id = 1000 where id = 5001")
			if n := queryOne[int](t, on[shard], "select count(*) from t where id = 1000"); n != 1 {
				t.Errorf("%s: %d rows on shard %d after it had another key", x.sql, n, shard)
			}
			mustExec(t, c, "delete from t where id in (1000, 5000)")
			if n := queryOne[int](t, c, "select count(*) from t"); n != 100 {
				t.Errorf("%s: %d rows are left", x.sql, n)
			}
		}
		if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("1000\t7\n"), "copy t from stdin"); err != nil {
			t.Fatal(err)
		}
		if n := queryOne[int](t, on[shard], "select count(*) from t where id = 1000"); n != 1 {
			t.Errorf("copy: %d rows on shard %d", n, shard)
		}
		mustExec(t, c, "delete from t where id = 1000")
		return d.Metrics.Database("outlive").PlanMisses.Load() - before
	}
	home := d.adminExec(t, "LOCATE KEY (1000) OF outlive.g")[0][4].(string)
	at := int(home[len(home)-1] - '0')
	use(at)
	each := min(use(at), use(at)) // some are planned each time
	shape, least := d.Catalog.Current().Databases["outlive"].Shape, int64(math.MaxInt64)
	for _, shard := range []int{0, 1, 2, 1} {
		d.adminExec(t, fmt.Sprintf("PIN KEY (1000) OF outlive.g ON outlive_s%d", shard))
		if err := d.Engine.Planner.Schemas.Check(t.Context(), d.Catalog.Current().Databases["outlive"]); err != nil { // what PIN has written is seen now, and not amid the statements
			t.Fatal(err)
		}
		least = min(least, use(shard)) // a schema that is read anew meanwhile has all planned anew
		if now := d.Catalog.Current().Databases["outlive"].Shape; now != shape {
			t.Errorf("the shape is %d with the key on shard %d, and was %d", now, shard, shape)
		}
		d.adminExec(t, "UNPIN KEY (1000) OF outlive.g")
	}
	if least != each {
		t.Errorf("%d statements were planned anew each time that the key had another shard, and %d with it at its place", least, each)
	}
}
