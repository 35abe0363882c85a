package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// A prepared statement may itself be an EXECUTE, also of itself: what runs without end is refused as PostgreSQL refuses it, and the session goes on.
func TestStatementsThatExecuteThemselves(t *testing.T) {
	t.Parallel()
	d := shop(t)
	targets := []struct{ name, dsn string }{{"PostgreSQL", d.cluster.Node("s1-a").DSN("shop")}, {"one shard", small(t, d, 1, nil).dsn()}, {"two shards", d.shopDSN()}}
	chain := func(n int) string {
		steps := "x0: select 7"
		for i := range n {
			steps += fmt.Sprintf("; x%d: execute x%d", i+1, i)
		}
		return steps
	}
	for _, script := range []string{
		"m: execute m; query execute m",
		"m: execute m; bind m",
		"m: execute m; unnamed execute m",
		"m: execute m; query begin; query execute m; query select 1",
		"m: execute m; query select 1\\;execute m",
		"a: execute b; b: execute a; query execute a; query execute b; bind a; unnamed execute b",
		"a: execute b; b: execute c; c: execute b; query execute a; unnamed execute a; bind a",
		"m: execute n; query execute m; bind m",
		"m: explain (costs off) execute m; query execute m; query explain execute m",
		"m: create temporary table ringed_own as execute m; query execute m; bind m",
		"m: create temporary table ringed_own as execute m; query create temporary table ringed_other as execute m",
		"m: deallocate m; query execute m; query execute m",
		chain(20) + "; query execute x20; bind x20; unnamed execute x20",
		"v: select $1::int + 1; m: execute v(5); n: execute m; query execute m; query execute n; query execute n(3); unnamed execute n; bind n",
		"a: commit; b: execute a; c: execute b; query begin; query execute c; query begin; unnamed execute c",
	} {
		want := ""
		for i, x := range targets {
			if i == 2 && (strings.HasPrefix(script, "m: explain") || strings.HasPrefix(script, "m: create")) {
				continue // refused, as what those execute is not home's
			}
			r := rawTo(t, x.dsn)
			told := ""
			for _, step := range strings.Split(script, "; ") {
				step = strings.ReplaceAll(step, "\\", "")
				what, sql, _ := strings.Cut(step, " ")
				switch what {
				case "query":
					r.SendQuery(sql)
				case "bind":
					r.Send(&wire.Bind{PreparedStatement: sql})
					r.SendExecute()
					r.SendSync()
				case "unnamed":
					r.run(sql)
					r.SendSync()
				default:
					r.SendParse(strings.TrimSuffix(what, ":"), sql, nil)
					r.SendSync()
				}
				now := r.answer()
				if len(script) < 200 {
					told += step + ": "
				}
				told += now + "\n"
			}
			_ = r.Close()
			if i == 0 {
				want = told
			} else if told != want {
				t.Errorf("%s:\ngot  %s\nwant %s", x.name, told, want)
			}
		}
	}
	told := []string{}
	for _, x := range targets[:2] { // the columns of an EXPLAIN EXECUTE are told by Describe alone
		r := rawTo(t, x.dsn)
		r.SendParse("q", "select 1", nil)
		for _, describes := range []bool{false, true} {
			r.SendParse("", "explain (costs off) execute q", nil)
			r.SendBindParts("", nil, nil, nil)
			if describes {
				r.SendDescribe('P', "")
			}
			r.SendExecute()
			r.SendSync()
			told = append(told, r.answer())
		}
		_ = r.Close()
	}
	if !slices.Equal(told[:2], told[2:]) {
		t.Errorf("EXPLAIN EXECUTE: got %q, want %q", told[2:], told[:2])
	}
	for _, x := range targets[1:] { // one PostgreSQL crashes
		r := rawTo(t, x.dsn)
		r.SendParse("m", "execute m", nil)
		r.SendSync()
		r.want('Z', "1ZI")
		r.SendQuery("explain execute m")
		r.want('Z', "E[0A000]ZI")
		r.SendQuery("create temporary table ringed_own as execute m")
		r.want('Z', "E[0A000]ZI")
		_ = r.Close()
	}
}
