package main

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// A cursor WITH HOLD keeps its transaction from being prepared: its shard decides, also where another one was written first.
func TestCursorWithHoldDecides(t *testing.T) {
	t.Parallel()
	d, c := threeKeys(t, "holding")
	for _, sql := range []string{"begin", "insert into a values (1, 1)", "declare held cursor with hold for select id from b where s = 0 order by id", "insert into a values (0, 1)", "commit"} {
		mustExec(t, c, sql)
	}
	if n := queryOne[int](t, c, "fetch 1 from held", pgx.QueryExecModeSimpleProtocol); n != 0 {
		t.Errorf("the cursor gives %d", n)
	}
	mustExec(t, c, "close held")
	if h, o := queryOne[int](t, d.on(t, "holding", 0), "select count(*) from a"), queryOne[int](t, d.on(t, "holding", 1), "select count(*) from a"); h != 1 || o != 1 {
		t.Errorf("%d rows on home, %d on the other shard", h, o)
	}
}
