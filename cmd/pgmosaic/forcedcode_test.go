package main

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// What a function sets where its client has named the shard, or runs it by EXPLAIN ANALYZE EXECUTE, is its session's, and nobody else's.
func TestWhatCodeSetsOnANamedShardIsItsSessions(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 3, nil)
	one, two := connectTo(t, a.dsn()), connectTo(t, a.dsn())
	mustExec(t, one, "create schema forced_code; create function forced_code.sets(v text) returns text stable language plpgsql as $$begin return set_config('work_mem', v, false); end$$")
	defer mustExec(t, one, "drop schema forced_code cascade")
	const mode = pgx.QueryExecModeSimpleProtocol
	for _, x := range []struct{ first, sql, mem string }{
		{"set pgmosaic.shard = 's1'", "select forced_code.sets('7MB')", "7MB"},
		{"reset pgmosaic.shard; prepare p as select forced_code.sets('8MB')", "explain analyze execute p", "8MB"},
	} {
		mustExec(t, one, x.first)
		mustExec(t, one, x.sql)
		if got := queryOne[string](t, two, "select current_setting('work_mem')", mode); got != "4MB" {
			t.Errorf("%s: another client has %s", x.sql, got)
		}
		if got := queryOne[string](t, one, "select current_setting('work_mem')", mode); got != x.mem {
			t.Errorf("%s: it has %s", x.sql, got)
		}
	}
}
