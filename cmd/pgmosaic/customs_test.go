package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// scripts runs statements over three shards and on one PostgreSQL, each script in a session of its own that NEW replaces by another,
// and holds that both say the same. GATHER is a statement whose rows are gathered, ALONE one for one shard, HOME one for home; all say what is set.
func scripts(t *testing.T, name string, list []string) {
	t.Helper()
	d, _ := temporaryWorld(t, name)
	node := d.cluster.Node("s1-a")
	freshDatabase(t, node, name+"_one")
	dsns := []string{strings.Replace(d.shopDSN(), "/shop", "/"+name, 1), dsnFor("app", "app", fmt.Sprintf("127.0.0.1:%d", node.Port), name+"_one")}
	one := connectTo(t, dsns[1])
	mustExec(t, one, "create table local (a int)")
	mustExec(t, one, "create table parts (k int primary key, i int)")
	mustExec(t, one, "insert into parts select g, g from generate_series(1, 101) g")
	for _, dsn := range dsns {
		c := connectTo(t, dsn)
		mustExec(t, c, "create function sets() returns void language plpgsql as $$ begin perform set_config('datestyle', 'German', true); perform set_config('app.word', 'f', true); end $$")
	}
	const what = "concat_ws('|', current_setting('datestyle'), coalesce(current_setting('app.word', true), 'NULL'))"
	words := strings.NewReplacer("GATHER", "select "+what+" from (select k from parts order by k limit 3) a join parts b on a.k = b.k + 1 limit 1", "ALONE", "select "+what+" from parts where k = 1", "HOME", "select "+what+", count(*) from local")
	if route := queryOne[string](t, connectTo(t, dsns[0]), "explain (route) "+words.Replace("GATHER")); !strings.HasPrefix(route, "Gather") {
		t.Fatal(route)
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
		for _, script := range list {
			var got [2][]string
			for i, dsn := range dsns {
				c := connectTo(t, dsn)
				for _, sql := range strings.Split(script, "; ") {
					if sql == "NEW" {
						_ = c.Close(t.Context())
						c = connectTo(t, dsn)
						continue
					}
					got[i] = append(got[i], says(t, c, words.Replace(sql), mode))
				}
				_ = c.Close(t.Context())
			}
			if !slices.Equal(got[0], got[1]) {
				t.Errorf("%v: %s\nover shards %q\non one      %q", mode, script, got[0], got[1])
			}
		}
	}
}

// Rows that are gathered are written by what was set last, be it for the session or for the transaction only.
func TestGatheredRowsAreReadByWhatWasSetLast(t *testing.T) {
	t.Parallel()
	scripts(t, "set_last", []string{
		"begin; set local datestyle to German; set datestyle to SQL; GATHER; ALONE; commit; GATHER",
		"begin; set datestyle to German; set local datestyle to SQL; GATHER; ALONE; commit; GATHER; ALONE",
		"begin; set local datestyle to German; reset datestyle; GATHER; rollback; GATHER",
		"set datestyle to SQL; begin; set local datestyle to German; reset datestyle; GATHER; ALONE; rollback; GATHER; ALONE",
		"begin; select sets(); set datestyle to SQL; GATHER; ALONE; commit; GATHER",
		"begin; set datestyle to SQL; select sets(); GATHER; ALONE; rollback; GATHER",
		"begin; set local datestyle to German; set datestyle to SQL; declare c cursor for GATHER; fetch c; commit; GATHER",
	})
}

// A custom parameter that was set for a transaction, or in one that was rolled back, is an empty text for its session from then on, and
// for nobody else: policies tell that from one that was never set.
func TestACustomParameterOfATransactionIsNobodyElses(t *testing.T) {
	t.Parallel()
	after := "; GATHER; ALONE; NEW; ALONE; ALONE; GATHER; NEW; GATHER; ALONE"
	var list []string
	for _, set := range []string{"set local app.word to 'x'", "set app.word to 'x'", "select set_config('app.word', 'x', true)", "select set_config('app.word', 'x', false)", "select sets()", "savepoint a; set local app.word to 'x'; rollback to a"} {
		for _, end := range []string{"commit", "rollback"} {
			list = append(list, "begin; "+set+"; "+end+after, "begin; "+set+"; ALONE; update parts set i = i; GATHER; "+end+after)
		}
	}
	scripts(t, "customs", append(list,
		"set local app.word to 'x'"+after,
		"select set_config('app.word', 'x', true)"+after,
		"select set_config('app.word', 'x', true), set_config('datestyle', 'none', false)"+after,
		"begin; select set_config('app.word', 'x', true), set_config('datestyle', 'none', false); rollback"+after,
		"create temp table t (a int); begin; set local app.word to 'x'; commit; HOME; discard all; HOME; NEW; HOME; HOME; GATHER; ALONE",
		"set app.word to 'y'; begin; set local app.word to 'x'; commit"+after,
	))
}
