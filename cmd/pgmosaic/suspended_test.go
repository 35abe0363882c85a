package main

import (
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// named runs a statement that has a name by a portal that has one, and closes both.
func (r *raw) named(sql string) {
	r.SendParse("n", sql, nil)
	r.Send(&wire.Bind{PreparedStatement: "n", DestinationPortal: "p"})
	r.executeLimited("p", 0)
	r.SendFrame('C', []byte("Pp\x00"))
	r.SendFrame('C', []byte("Sn\x00"))
}

// What a client's statements have the proxy tell a server by simple queries, which would destroy its unnamed portal, leaves that alone: SET, SAVEPOINT and what is
// asked behind functions. It goes as on PostgreSQL: by the next Bind of the unnamed one, a simple query, Close, or the transaction's end.
func TestSuspendedUnnamedPortalOutlivesSimpleQueriesOfOurs(t *testing.T) {
	t.Parallel()
	d := shop(t)
	targets := []struct{ name, dsn string }{{"PostgreSQL", d.cluster.Node("s1-a").DSN("shop")}, {"one shard", small(t, d, 1, nil).dsn()}, {"two shards", d.shopDSN()}}
	for _, between := range [][]string{
		{"set work_mem = '5MB'"},
		{"set local work_mem = '5MB'"},
		{"reset work_mem"},
		{"show work_mem"},
		{"set transaction read only"},
		{"set constraints all deferred"},
		{"savepoint s"},
		{"savepoint s", "release savepoint s"},
		{"savepoint s", "set work_mem = '6MB'", "rollback to savepoint s"},
		{"select set_config('datestyle', 'German', true)"},
		{"select set_config('work_mem', '7MB', false)", "set work_mem = '8MB'"},
		{"do $$ begin set local work_mem = '9MB'; end $$", "set enable_sort = off"},
		{"create temporary table suspended_own (a int)", "insert into suspended_own values (1)"},
		{"explain (costs off) select 1"},
		{"listen suspended"},
		{"declare c cursor for select 7", "fetch c"},
		{"rollback"},
		{"commit"},
		{"close all"},
		{"unnamed"},
		{"closed"},
		{"simple"},
	} {
		for _, begin := range []bool{true, false} {
			for _, stops := range []bool{false, true} {
				if !begin && between[0] == "simple" {
					continue
				}
				want := ""
				for i, x := range targets {
					r := rawTo(t, x.dsn)
					told := ""
					if i == 2 { // what a replica has read, a portal is not left on it
						r.SendQuery("set pgmosaic.read_consistency = strong")
						r.until('Z')
					}
					if begin {
						r.SendQuery("begin")
						r.until('Z')
					}
					r.SendParse("", "select generate_series(1, 4)", nil)
					r.SendBindParts("", nil, nil, nil)
					if stops {
						r.SendFlush()
						told += r.toldUpTo("2") + " .. "
					}
					r.executeLimited("", 1)
					if stops {
						r.SendFlush()
						told += r.toldUpTo("s") + " .. "
					}
					for _, sql := range between {
						switch sql {
						case "unnamed":
							r.run("select 42")
						case "closed":
							r.SendFrame('C', []byte("P\x00"))
						case "simple":
							r.SendSync()
							told += r.toldUpTo("ZT") + " .. "
							r.SendQuery("select 43")
							told += r.toldUpTo("ZT") + " .. "
						default:
							r.named(sql)
						}
					}
					r.SendDescribe('P', "")
					r.executeLimited("", 2)
					if between[0] == "set work_mem = '5MB'" {
						r.named("set work_mem = '10MB'")
						r.executeLimited("", 1)
					}
					r.executeLimited("", 0)
					r.SendSync()
					told += r.answer()
					_ = r.Close()
					if i == 0 {
						want = told
					} else if told != want {
						t.Errorf("%s, %s, begin %t, with a pause %t:\ngot  %s\nwant %s", x.name, strings.Join(between, "; "), begin, stops, told, want)
					}
				}
			}
		}
	}
}
