package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// likeOne has scripts answered by one PostgreSQL, by a proxy over one shard and by one over two: what is told is the same. In a script %s is a prefix of the
// tables rows (k, n), whose key k has its shards, late, likewise, where (k, n) is unique but put off, and homes, which home alone has.
func likeOne(t *testing.T, name string, scripts []string) {
	t.Helper()
	d := shop(t)
	targets := []struct{ name, dsn, prefix string }{
		{"PostgreSQL", d.cluster.Node("s1-a").DSN("shop"), name + "_direct_"}, {"one shard", small(t, d, 3, nil).dsn(), name + "_one_"}, {"two shards", d.shopDSN(), name + "_two_"},
	}
	conns := make([]*pgx.Conn, len(targets))
	defer func() {
		for i, x := range targets {
			mustExec(t, conns[i], strings.ReplaceAll("drop table if exists %srows, %slate", "%s", x.prefix))
			mustExec(t, conns[i], "drop table if exists "+x.prefix+"homes")
			mustExec(t, conns[i], "drop function if exists "+x.prefix+"refuse()")
		}
		d.adminExec(t, "DROP GROUP "+name+" IN shop")
	}()
	d.adminExec(t, "CREATE GROUP "+name+" IN shop KEY (int) BY HASH")
	for i, x := range targets {
		conns[i] = connectTo(t, x.dsn)
		for _, sql := range []string{
			"create table %srows (k int, n int)", "create table %slate (k int, n int, constraint %slate_key unique (k, n) deferrable initially deferred)",
			"create table %shomes (n int, constraint %shomes_n unique (n) deferrable initially deferred)",
			"create function %srefuse() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '42704'; end $$",
		} {
			mustExec(t, conns[i], strings.ReplaceAll(sql, "%s", x.prefix))
		}
		if i == 2 {
			d.adminExec(t, "DISTRIBUTE TABLE shop.public."+x.prefix+"rows IN GROUP "+name+" KEY (k)")
			d.adminExec(t, "DISTRIBUTE TABLE shop.public."+x.prefix+"late IN GROUP "+name+" KEY (k)")
		}
		mustExec(t, conns[i], strings.ReplaceAll("create constraint trigger %slate_refuse after insert on %slate deferrable initially deferred for each row when (new.n = 9) execute function %srefuse()", "%s", x.prefix))
	}
	for _, script := range scripts {
		want, most := "", 0
		for i, x := range targets {
			mustExec(t, conns[i], strings.ReplaceAll("truncate %srows, %slate", "%s", x.prefix))
			r := rawTo(t, x.dsn)
			told := r.steps(strings.ReplaceAll(script, "%s", x.prefix))
			_ = r.Close()
			rows, leaves := -1, strings.Contains(script, "; leave") // nobody waits then for what is still being done, part by part
			wait := time.Second
			if most > 0 {
				wait = 10 * time.Second
			}
			for end := time.Now().Add(wait); rows < 0 || leaves && (rows == 0 || rows < most) && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				if err := conns[i].QueryRow(t.Context(), strings.ReplaceAll("select (select count(*) from %srows) + (select count(*) from %slate)", "%s", x.prefix)).Scan(&rows); err != nil {
					t.Fatal(err)
				}
			}
			told = strings.ReplaceAll(fmt.Sprintf("%srows: %d", told, rows), x.prefix, "")
			if i == 0 {
				want, most = told, rows
			} else if told != want {
				t.Errorf("%s, %s:\ngot  %s\nwant %s", x.name, script, told, want)
			}
		}
	}
}

// steps does what a script says, and returns what is told.
func (r *raw) steps(script string) string {
	told := ""
	for _, step := range strings.Split(script, "; ") {
		what, arg, _ := strings.Cut(strings.ReplaceAll(step, "\\", ""), " ")
		switch what {
		case "query":
			r.SendQuery(arg)
			told += r.answer() + "\n"
		case "run":
			r.run(arg)
		case "bound": // by a portal that stays
			portal, sql, _ := strings.Cut(arg, " ")
			r.SendParse("", sql, nil)
			r.Send(&wire.Bind{DestinationPortal: portal})
		case "one":
			r.executeLimited(arg, 1)
		case "formats":
			var params, results int
			var sql string
			_, _ = fmt.Sscanf(arg, "%d %d", &params, &results)
			sql = strings.SplitN(arg, " ", 3)[2]
			r.SendParse("", sql, nil)
			b := &wire.Bind{ParameterFormatCodes: make([]int16, params), ResultFormatCodes: make([]int16, results)}
			if strings.Contains(sql, "$1") {
				b.Parameters = [][]byte{[]byte("1")}
			}
			r.Send(b)
			r.SendFlush()
			told += r.toldUpToOne("2E") + " .. "
			r.SendExecute()
		case "sync":
			r.SendSync()
			told += r.answer() + "\n"
		case "leave":
			if arg == "politely" {
				r.SendFrame('X', nil)
			}
			_ = r.Flush()
		default:
			r.t.Fatalf("what is %q?", step)
		}
	}
	return told
}

// toldUpToOne is what is told up to one of some types.
func (r *raw) toldUpToOne(ends string) (told string) {
	r.t.Helper()
	_ = r.Flush()
	for {
		m, err := r.Next()
		if err != nil {
			return told + ended
		}
		if m.Type == 'S' || m.Type == 'N' {
			continue
		}
		told += string(m.Type)
		if m.Type == 'E' {
			told += "[" + wire.ParseError(m.Body()).Code + "]"
		}
		if strings.IndexByte(ends, m.Type) >= 0 {
			return told
		}
	}
}

// What PostgreSQL takes in a transaction block only is refused outside of one, before anything that came before it in a pipeline is committed.
func TestOutsideTransactionBlocks(t *testing.T) {
	t.Parallel()
	var scripts []string
	for _, sql := range []string{"commit and chain", "rollback and chain", "discard plans", "discard sequences", "discard temp", "savepoint s", "lock table %srows", "deallocate all", "listen outside", "set work_mem = '5MB'"} {
		scripts = append(
			scripts, "run insert into %srows values (1, 1); run "+sql+"; sync; query rollback",
			"run insert into %srows values (1, 1); run "+sql+"; run selec; sync; query rollback",
			"run insert into %srows values (1, 1), (2, 2), (3, 3), (4, 4); run "+sql+"; run selec; sync; query rollback",
		)
	}
	likeOne(t, "outside", append(
		scripts,
		"query lock table %srows",
		"query lock table %srows in share mode\\;select 1",
		"query begin; query lock table %srows; query commit",
		"run lock table %srows; sync",
		"query lock table %srows, %slate; query select 1",
	))
}

// CLOSE ALL closes what the session has open on any shard.
func TestCloseAllClosesOnEveryShard(t *testing.T) {
	t.Parallel()
	var scripts []string
	for k := 1; k < 5; k++ {
		declare := fmt.Sprintf("query insert into %%srows values (1, 1), (2, 2), (3, 3), (4, 4); query begin; query declare c1 cursor for select n from %%srows where k = %d; query declare c2 cursor for select n from %%srows where k = %d", k, k%4+1)
		scripts = append(
			scripts, declare+"; query fetch c1; query close all; query fetch c1",
			declare+"; query close all; query declare c1 cursor for select 7; query fetch c1; query fetch c2",
			declare+"; run close all; sync; query fetch c2",
			declare+fmt.Sprintf("; bound p select n, generate_series(1, 3) from %%srows where k = %d; one p; sync; run close all; sync; bound p select 8; one p; sync", k),
			declare+fmt.Sprintf("; bound p select n, generate_series(1, 3) from %%srows where k = %d; one p; sync; run close all; one p; sync", k),
			declare+"; query savepoint s; query close all; query rollback to s; query fetch c1",
			declare+"; bound p select k from %srows order by k; one p; sync; query close all; one p; sync",
		)
	}
	likeOne(t, "closeall", append(scripts, "query close all", "run close all; sync"))
}

// SET CONSTRAINTS of several names sets each where it is, also where another of them is not; what triggers say is no missing name.
func TestPutOffByNames(t *testing.T) {
	t.Parallel()
	var scripts []string
	for k := 1; k < 5; k++ {
		row := fmt.Sprintf("query insert into %%slate values (%d, 1)", k)
		nine := fmt.Sprintf("query insert into %%slate values (%d, 9)", k)
		scripts = append(
			scripts, "query begin; "+row+"; query set constraints %shomes_n, %slate_key immediate; "+row+"; query commit",
			"query begin; "+row+"; "+row+"; query set constraints %shomes_n, %slate_key immediate; query commit",
			"query begin; query set constraints %shomes_n, public.%slate_key immediate; "+row+"; "+row+"; query commit",
			"query begin; "+row+"; "+row+"; query set constraints %slate_key immediate -- now; query commit",
			"query begin; query set constraints %slate_key immediate -- now; "+row+"; "+row+"; query commit",
			"query begin; query set constraints %slate_key, %shomes_n immediate; query savepoint s; "+row+"; query set constraints %slate_key deferred; "+row+"; query rollback to s; "+row+"; "+row,
			"query begin; "+nine+"; query set constraints %slate_refuse immediate; query commit",
			"query begin; "+nine+"; query set constraints %shomes_n immediate; query set constraints %slate_refuse, %shomes_n immediate",
			"query begin; "+row+"; query set constraints nowhere.%slate_key immediate; query rollback",
			"query begin; "+row+"; query set constraints %slate_none, %slate_key immediate; query rollback",
			"query begin; "+row+"; query savepoint pgmosaic_probe; query set constraints %slate_key, %shomes_n immediate; query release pgmosaic_probe; "+row,
		)
	}
	likeOne(t, "putoff", scripts)
}

// Where a part of a commit fails, the client is told why, and nothing about what is done behind it.
func TestNobodyHearsOfTheRollback(t *testing.T) {
	t.Parallel()
	var scripts []string
	for k := 1; k < 5; k++ {
		scripts = append(scripts, fmt.Sprintf("query begin; query insert into %%slate values (1, 1), (2, 1), (3, 1), (4, 1); query insert into %%slate values (%d, 1); query commit; query select 1", k))
	}
	likeOne(t, "unheard", scripts)
}

// What a client has sent before it leaves is done, as far as it needs no Sync.
func TestLeavingBehindMessages(t *testing.T) {
	t.Parallel()
	likeOne(t, "leaving", []string{
		"query begin; query insert into %srows values (1, 1), (2, 2); run commit; leave politely",
		"query begin; query insert into %srows values (1, 1), (2, 2); run commit; leave",
		"query begin; run insert into %srows values (1, 1); run commit; leave politely",
		"run insert into %srows values (1, 1); leave politely",
		"run insert into %srows values (1, 1); leave",
	})
}

// The formats of a Bind are as many as it has values, and its rows columns.
func TestFormatsOfBind(t *testing.T) {
	t.Parallel()
	var scripts []string
	for _, sql := range []string{"select k, n from %srows", "select k, n from %srows where k = $1", "select k, n from %srows order by n", "insert into %srows values (1, 1), (2, 2)", "insert into %srows values (1, 1), (2, 2), (3, 3) returning k, n", "show work_mem", "set work_mem = '5MB'", "explain (costs off) select 1"} {
		for params := range 3 {
			for results := range 4 {
				scripts = append(scripts, fmt.Sprintf("formats %d %d %s; sync", params, results, sql))
			}
		}
	}
	likeOne(t, "formats", scripts)
}

// Views may stand in a ring, by CREATE OR REPLACE VIEW. Who reads one is refused, however many ways lead around.
func TestViewsInARing(t *testing.T) {
	t.Parallel()
	make := ""
	for _, v := range "abc" {
		make += fmt.Sprintf("; query create view %%sview_%c as select 1 x", v)
	}
	for _, v := range "abc" {
		make += fmt.Sprintf("; query create or replace view %%sview_%c as select a.x from %%sview_a a, %%sview_b b, %%sview_c c", v)
	}
	likeOne(t, "ringed", []string{"query select 1" + make + "; query select * from %sview_a; query drop view %sview_a, %sview_b, %sview_c"})
}
