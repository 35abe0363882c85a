package main

import (
	"context"
	"testing"
	"time"
)

// What comes between the decision of a commit and its last part is told: a decision that is lost behind its answer is no COMMIT, and of a part
// that nobody could ask for it is not said that it was finished.
func TestCommitsThatAreDecidedAndNotWhole(t *testing.T) {
	t.Parallel()
	d := shop(t)
	one, two := d.cluster.Node("s1-a"), d.cluster.Node("s2-a")
	a, ts := unresolved(t, d, "notwhole", one, two, one)
	a.Engine.SettleWithin = time.Minute // or it is settled while the decider still knows
	dsn := dsnFor("app", "app", a.Server.Addr(), "notwhole")
	c, reader := connectTo(t, dsn), connectTo(t, dsn)
	decider, other := connectTo(t, one.DSN("notwhole_0")), connectTo(t, two.DSN("notwhole_1"))
	left := func() int {
		return queryOne[int](t, other, "select count(*) from pg_prepared_xacts where database = current_database()")
	}

	// The decider has said COMMIT, and is then one that does not know of it.
	ts.arm(step{"commit prepared", 1}, before, func(int) bool {
		mustExec(t, decider, "delete from moves")
		mustExec(t, decider, "delete from pgmosaic.decision")
		return false
	})
	for _, sql := range []string{"begin", "insert into moves values (0, 1)", "insert into moves values (1, 1)"} {
		mustExec(t, c, sql)
	}
	_, err := c.Exec(t.Context(), "commit")
	wantCode(t, err, "08007")
	if n, prepared := queryOne[int](t, reader, "select count(*) from moves"), left(); n != 0 || prepared != 0 {
		t.Errorf("%d rows, %d parts, and %v", n, prepared, err)
	}

	// A part without a row of its own is left on a shard that has no primary for a while.
	ts.arm(step{"commit prepared", 1}, before, func(int) bool { return false })
	a.Engine.SettleWithin = time.Second
	a.Engine.Settle = func(ctx context.Context, db, gid string) (bool, error) {
		shards := a.ShardsOf(a.Catalog.Current().Databases[db])
		shards[1].DSN = ""
		return a.Resolver().Settle(ctx, shards, gid)
	}
	for _, sql := range []string{"begin", "insert into moves values (0, 2)", "insert into moves values (1, 2)", "set transaction read only", "commit"} {
		mustExec(t, c, sql)
	}
	if prepared := left(); prepared != 1 {
		t.Errorf("%d parts are left", prepared)
	}
	if n := queryOne[int](t, reader, "select count(*) from moves where shard = 1"); n != 1 {
		t.Errorf("%d rows of what was acknowledged", n)
	}
}
