package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// stopping passes on what a server is sent. The next simple query there that begins with a text meets a cancel request.
type stopping struct {
	io.Writer
	at *atomic.Pointer[string]
}

func (x stopping) Write(b []byte) (int, error) {
	if at := x.at.Load(); at != nil && b[0] == 'Q' && bytes.HasPrefix(b[5:], []byte(*at)) && x.at.CompareAndSwap(at, nil) {
		q := append([]byte("Q\x00\x00\x00\x00select pg_cancel_backend(pg_backend_pid()), pg_sleep(60)"), 0)
		binary.BigEndian.PutUint32(q[1:], uint32(len(q)-1))
		_, err := x.Writer.Write(q)
		return len(b), err
	}
	return x.Writer.Write(b)
}

// A transaction goes back to one place on all its shards, also where some of them have not done the SAVEPOINT, RELEASE or ROLLBACK TO before. Where
// some are behind it already nobody is told that it has gone back there.
func TestSavepointsAreOnePlaceOnAllShards(t *testing.T) {
	t.Parallel()
	d, _ := threeKeys(t, "oneplace")
	doc := mapOf(d, "oneplace")
	var at atomic.Pointer[string]
	changing(t, doc, 1, func(to io.Writer) io.Writer { return stopping{to, &at} })
	cfg := crashConfig(t, doc)
	a := startApp(t, cfg)
	c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "oneplace"))
	shards := []*pgx.Conn{d.on(t, "oneplace", 0), d.on(t, "oneplace", 1)}
	for _, x := range []struct {
		name, stops string
		script      string // n writes n rows more; the statement behind ! is stopped on one shard, the one behind a code gets that
		want        int
	}{
		{"a second SAVEPOINT", "SAVEPOINT", "1; savepoint s; 2; !savepoint s; rollback to s", 1},
		{"a second SAVEPOINT, between others", "SAVEPOINT", "1; savepoint s; 2; savepoint t; 3; !savepoint s; rollback to s; 1", 2},
		{"the same again", "SAVEPOINT", "1; savepoint s; 2; !savepoint s; rollback to s; 1; savepoint s; 2; rollback to s; release s; 1; rollback to s", 1},
		{"RELEASE", "RELEASE", "1; savepoint s; 2; savepoint s; 3; !release s; 3B001 rollback to s; 25P02 select 1; rollback", 0},
		{"RELEASE, inside another", "RELEASE", "1; savepoint o; 2; savepoint s; 3; savepoint s; 4; !release s; 3B001 rollback to s; rollback to o; 1; 3B001 release s; rollback to o", 1},
		{"RELEASE of one that has others inside", "RELEASE", "1; savepoint o; 2; savepoint s; 3; savepoint i; 4; !release s; 3B001 rollback to i; 3B001 rollback to s; rollback to o; release o", 1},
		{"RELEASE of the only one", "RELEASE", "1; savepoint s; 2; !release s; 3B001 rollback to s", 0},
		{"ROLLBACK TO", "ROLLBACK TO", "1; savepoint o; 2; savepoint s; 3; !rollback to o; 3B001 rollback to s; rollback to o; 1", 2},
		{"ROLLBACK TO, inside another", "ROLLBACK TO", "1; savepoint s; 1; savepoint o; 2; savepoint s; 3; !rollback to o; 3B001 rollback to s; rollback to o; rollback to s; release s", 1},
	} {
		for _, first := range []int{0, 1} { // the shard that is asked first; where it is the one that is stopped, the other has done nothing
			if first == 1 && x.stops != "SAVEPOINT" {
				continue
			}
			mustExec(t, c, "delete from a")
			mustExec(t, c, "begin")
			id := 0
			for _, sql := range strings.Split(x.script, "; ") {
				want := ""
				n := 0
				switch {
				case len(sql) == 1:
					n = int(sql[0] - '0')
				case sql[0] == '!':
					want, sql = "57014", sql[1:]
					at.Store(&x.stops)
				case sql[0] >= '0' && sql[0] <= '9':
					want, sql, _ = strings.Cut(sql, " ")
				}
				for range n {
					id++
					for i := range 2 {
						mustExec(t, c, fmt.Sprintf("insert into a values (%d, %d)", (i+first)%2, id))
					}
				}
				if n > 0 {
					continue
				}
				if _, err := c.Exec(t.Context(), sql); want != "" {
					wantCode(t, err, want)
				} else if err != nil {
					t.Errorf("%s: %s: %v", x.name, sql, err)
				}
			}
			if at.Swap(nil) != nil {
				t.Errorf("%s: nothing was stopped", x.name)
			}
			mustExec(t, c, "commit")
			for i, s := range shards {
				if n := queryOne[int](t, s, "select count(*) from a"); n != x.want {
					t.Errorf("%s, shard %d first: shard %d has %d rows, want %d", x.name, first, i, n, x.want)
				}
			}
		}
	}
}

// Savepoints over shards go by their names as on PostgreSQL, whatever they are called on the servers. A client, and who looks at the servers, sees its own names.
func TestSavepointsGoByTheirNames(t *testing.T) {
	t.Parallel()
	d, c := threeKeys(t, "bynames")
	pg := connectTo(t, d.cluster.Node("s1-a").DSN("postgres"))
	mustExec(t, pg, "create temporary table a (s int, id int)")
	const rows = "select coalesce(string_agg(distinct id::text, ','), '') from a"
	long := strings.Repeat("ü", 31)
	for _, script := range []string{
		"1; savepoint s; 2; savepoint s; 3; rollback to s; release s; 4; rollback to s; 5; release s; rollback to s",
		"1; savepoint s; 2; savepoint t; 3; savepoint s; 4; release t; 5; rollback to s; 6; rollback to t",
		"release nosuch; rollback to nosuch; rollback to nosuch",
		`rollback to "No""such\"`,
		`1; savepoint "1 s"; 2; savepoint "s"; 3; savepoint "2 s"; 4; rollback to "1 s"; 5; rollback to "s"`,
		`1; savepoint "S'` + long[:40] + `""x"; 2; rollback to "S'` + long[:40] + `""x"; 3; release "S'` + long[:40] + `""X"`,
		"1; savepoint " + long + "; 2; savepoint " + long + "; 3; rollback to " + long + "; release " + long + "; 4; rollback to " + long + "xx; 5",
		"1; savepoint s; 2; select 1/0; release s; rollback to t; rollback to s; 3; savepoint s; 4; release s; select 1/0; rollback to s; 5",
		"savepoint s; 1; savepoint s; select 1/0; rollback to s; 2; release s; release s; release s",
	} {
		var told [2]string
		for i, conn := range []*pgx.Conn{pg, c} {
			mustExec(t, conn, "delete from a")
			mustExec(t, conn, "begin")
			for k, sql := range strings.Split(script, "; ") {
				list := []string{sql}
				if len(sql) == 1 { // on another shard from time to time: servers that join late have the savepoints before
					list = []string{fmt.Sprintf("insert into a values (%d, %[2]s)", k%3, sql)}
					if sql > "2" {
						list = append(list, fmt.Sprintf("insert into a values (%d, %[2]s)", (k+1)%3, sql))
					}
				}
				for _, sql := range list {
					tag, err := conn.Exec(t.Context(), sql)
					said := tag.String()
					if err != nil {
						_, said, _ = strings.Cut(err.Error(), ": ")
					}
					told[i] += said + "; "
				}
			}
			mustExec(t, conn, "commit")
			told[i] += queryOne[string](t, conn, rows)
		}
		if told[1] != told[0] {
			t.Errorf("%s:\ngot  %s\nwant %s", script, told[1], told[0])
		}
	}
	mustExec(t, c, `begin; insert into a values (0, 7); savepoint x; savepoint pgmosaic_define; savepoint "Seen"`)
	if n := queryOne[int](t, pg, "select count(*) from pg_stat_activity where datname like 'bynames%' and query like 'SAVEPOINT%Seen\"'"); n == 0 {
		t.Error("who looks at the servers does not see what the client calls its savepoint")
	}
	mustExec(t, c, "create table defined (n int)") // what the proxy calls savepoints of its own is nobody else's
	mustExec(t, c, "drop function if exists nosuch_function(int)")
	mustExec(t, c, "rollback to pgmosaic_define; insert into a values (2, 8); release x; commit")
	simplyFails(t, c, "select from defined", "42P01")
	if got := queryOne[string](t, c, "select string_agg(id::text, ',' order by id) from a where id > 6"); got != "7,8" {
		t.Errorf("rows %s", got)
	}
}

// Portals live and die with savepoints as on PostgreSQL: one that was bound before a savepoint is there when the transaction has gone back to that, one
// that was bound behind it is not, and its name is free.
func TestPortalsAndSavepointsLikePostgreSQL(t *testing.T) {
	t.Parallel()
	d, c := threeKeys(t, "portalsaves")
	one := d.on(t, "portalsaves", 0)
	mustExec(t, one, "create table pg_b as select i % 3 as s, i as id from generate_series(0, 29) i; create table pg_a (s int, id int)")
	targets := []struct{ name, dsn, prefix string }{{"PostgreSQL", d.cluster.Node("s1-a").DSN("portalsaves_0"), "pg_"}, {"shards", dsnFor("app", "app", d.Server.Addr(), "portalsaves"), ""}}
	const fails = "select 1 / (id - id) from @b where id < 7 order by id"
	queries := map[string]string{
		"own": "select generate_series(1, 6)", "one shard": "select id from @b where s = 1 order by id", "over shards": "select id from @b where id < 7 order by id",
	}
	for _, script := range []string{ // each | is a Sync; of a pipeline's messages B is Bind, F of one that fails when it is run, E Execute, D Describe, C Close of a portal; Q is a simple query; others run by a portal that is closed
		"B np, E np 1 | savepoint s | error | E np 1 | D np | rollback to s | E np 1, D np | E np 0",
		"B np, E np 1 | Q savepoint s | Q error | E np 1 | Q rollback to s | E np 1 | E np 0",
		"B np | savepoint s | error | rollback to s | E np 2 | savepoint s | error, E np 1 | rollback to s | E np 2",
		"savepoint s | B np, E np 1 | rollback to s | E np 1 | B np, E np 2 | rollback to s | B np, E np 0",
		"savepoint s | B np, E np 1 | error | B np | rollback to s | E np 1 | B np, E np 2",
		"savepoint s | B np, E np 1 | release s | savepoint s | E np 1 | error | rollback to s | E np 1 | B np",
		"savepoint o | savepoint s | B np, E np 1 | release s | rollback to o | E np 1 | B np, E np 1",
		"savepoint o | B np, E np 1 | savepoint s | B nq, E nq 1 | error | rollback to s | E np 1 | E nq 1 | B nq, E nq 1 | rollback to o | E np 1 | B np, E np 1",
		"B np, E np 1 | savepoint s | C np | rollback to s | E np 1 | B np, E np 1",
		"B np, E np 1 | savepoint s | error | C np | rollback to s | E np 1 | B np, E np 1",
		"B np, E np 1 | savepoint s | C np, B np, E np 2 | rollback to s | E np 1 | B np, E np 1",
		"B np, E np 1 | savepoint s | error, E np 1, C np | rollback to s, E np 1 | E np 1",
		"B , E  1 | Q savepoint s | Q error | Q rollback to s | E  1",
		"B , E  1 | savepoint s | error | E  1 | rollback to s | E  1 | B , E  1 | E  0",
		"B , E  1 | savepoint s | error, B , E  0 | rollback to s | B , E  1 | E  1 | E  0",
		"B , E  1 | savepoint s | error 1, B , E  0 | rollback to s | B , E  1 | E  1 | E  0",
		"B np, E np 1 | savepoint s | error 1, C np, B np, E np 1 | E np 1 | rollback to s | E np 1 | C np, B np, E np 1",
		"B , E  1 | savepoint s | B , E  1 | E  1 | rollback to s | E  1 | B , E  1 | E  0",
		"B , E  1 | savepoint s, error, C  | rollback to s | E  1 | C  | E  1 | B , E  1",
		"savepoint s | B , E  1 | error | rollback to s | E  1 | B , E  1 | E  1",
		"B np, E np 1 | error | E np 1 | D np | C np",
		"K kp rollback to s | savepoint s | B np | error | E kp 0 | E np 1 | E kp 0 | B np, E np 1",
		"savepoint s | K kp rollback to s | error | E kp 0 | rollback to s | K kp rollback to s, E kp 0 | E kp 0 | K kp rollback to s, E kp 0",
		"savepoint s | error | K kp rollback to s | E kp 0 | E kp 0",
		"F fp | savepoint s | E fp 0 | rollback to s | E fp 0 | rollback to s, C fp, B fp, E fp 1",
		"write 0 | B np, E np 1 | savepoint s | write 1 | error | rollback to s | E np 1 | write 2 | E np 0 | count",
	} {
		for kind, query := range queries {
			var told [2]string
			for i, x := range targets {
				r := rawTo(t, x.dsn)
				r.SendParse("g", strings.ReplaceAll(query, "@", x.prefix), nil)
				r.SendDescribe('S', "g")
				r.SendSync()
				r.until('Z')
				r.SendQuery("begin")
				r.until('Z')
				for _, pipeline := range strings.Split(script, " | ") {
					simple := false
					for _, m := range strings.Split(pipeline, ", ") {
						what, arg, _ := strings.Cut(m, " ")
						portal, more, _ := strings.Cut(arg, " ")
						sql := func(s string) string {
							switch {
							case strings.HasPrefix(s, "error"): // on a server of its own, or on that of one shard's portal
								return "select 1/0 from " + x.prefix + "b where s = " + cmp.Or(strings.TrimPrefix(strings.TrimPrefix(s, "error"), " "), "2")
							case s == "count":
								return "select count(*) from " + x.prefix + "a"
							case strings.HasPrefix(s, "write "):
								return "insert into " + x.prefix + "a values (" + strings.TrimPrefix(s, "write ") + ", 1)"
							}
							return s
						}
						switch what {
						case "B":
							r.Send(&wire.Bind{PreparedStatement: "g", DestinationPortal: portal})
						case "F":
							r.SendParse("f", strings.ReplaceAll(fails, "@", x.prefix), nil)
							r.Send(&wire.Bind{PreparedStatement: "f", DestinationPortal: portal})
						case "E":
							r.executeLimited(portal, uint32(more[0]-'0'))
						case "D":
							r.SendDescribe('P', portal)
						case "C":
							r.SendFrame('C', []byte("P"+portal+"\x00"))
						case "K":
							r.SendParse("k", more, nil)
							r.Send(&wire.Bind{PreparedStatement: "k", DestinationPortal: portal})
							r.SendFrame('C', []byte("Sk\x00"))
						case "Q":
							r.SendQuery(sql(arg))
							simple = true
						default:
							r.SendFrame('C', []byte("Pp\x00")) // of one that has failed
							r.SendFrame('C', []byte("Sn\x00"))
							r.named(sql(m))
						}
					}
					if !simple {
						r.SendSync()
					}
					told[i] += r.answer() + " | "
				}
				r.SendQuery("rollback")
				r.until('Z')
				_ = r.Close()
			}
			if told[1] != told[0] {
				t.Errorf("%s, %s:\ngot  %s\nwant %s", kind, script, told[1], told[0])
			}
		}
	}
	if got := queryOne[int](t, c, "select count(*) from a"); got != 0 {
		t.Errorf("%d rows", got)
	}
}
