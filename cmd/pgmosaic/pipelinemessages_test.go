package main

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

const ended = " and the connection ends"

// toldUpTo is what comes until it ends with a text, or the connection does: types, errors' codes, rows' first columns, tags.
func (r *raw) toldUpTo(end string) string {
	r.t.Helper()
	_ = r.Flush() // that it is gone shows below
	var b strings.Builder
	for !strings.HasSuffix(b.String(), end) {
		m, err := r.Next()
		if err != nil {
			return b.String() + ended
		}
		switch m.Type {
		case 'S', 'N':
			continue
		case 'E':
			b.WriteString("E[" + wire.ParseError(m.Body()).Code + "]")
		case 'D':
			if vals, err := wire.RowValues(nil, m.Body()); err == nil && len(vals) > 0 {
				b.WriteString("D(" + string(vals[0]) + ")")
			}
		case 'C':
			b.WriteString("C<" + strings.TrimRight(string(m.Body()), "\x00") + ">")
		case 'Z':
			b.WriteString("Z" + string(m.Body()))
		default:
			b.WriteByte(m.Type)
		}
	}
	return b.String()
}

// call sends a FunctionCall with one argument in text.
func (r *raw) call(function uint32, arg string) {
	call := append(binary.BigEndian.AppendUint32(nil, function), 0, 1, 0, 0, 0, 1)
	call = append(binary.BigEndian.AppendUint32(call, uint32(len(arg))), arg...)
	r.SendFrame('F', append(call, 0, 0))
}

const absInt4 = 1397 // PostgreSQL's abs(int4)

// messages sends what a script of steps says, and returns what is told meanwhile and up to the end of a query behind it.
func (r *raw) messages(script, prefix string) string {
	told := ""
	for _, step := range strings.Split(script, "; ") {
		what, arg, _ := strings.Cut(step, " ")
		switch what {
		case "copy":
			r.run("copy " + prefix + arg + " from stdin")
		case "copy-limited":
			r.SendParse("", "copy "+prefix+arg+" from stdin", nil)
			r.SendBindParts("", nil, nil, nil)
			r.SendExecuteRows(1)
		case "query-copy":
			r.SendQuery("copy " + prefix + arg + " from stdin")
		case "insert":
			r.run("insert into " + prefix + "rows values (5)")
		case "query-insert":
			r.SendQuery("insert into " + prefix + "rows values (6)")
		case "wrong":
			r.SendParse("", "selec 1", nil)
		case "begin":
			r.SendQuery("begin")
		case "call":
			r.call(absInt4, arg)
		case "rows":
			r.SendFrame('d', []byte(strings.ReplaceAll(arg, ",", "\n")+"\n"))
		case "done":
			r.SendFrame('c', nil)
		case "fail":
			r.SendFrame('f', []byte("no\x00"))
		case "Flush":
			r.SendFlush()
		case "Sync":
			r.SendSync()
		case "await":
			told += r.toldUpTo(arg) + " .. "
		default:
			r.t.Fatalf("what is %q?", step)
		}
	}
	r.SendSync()
	r.SendQuery("rollback")
	r.SendQuery("select 'the end'")
	return told + r.toldUpTo("D(the end)C<SELECT 1>ZI")
}

// sameMessages has scripts of messages answered by one PostgreSQL, by a proxy over one shard that has a single server, and by one over two shards: what is
// told, and which rows are there afterwards, is the same. %srows is a table; %sbefore has a trigger that fails before any row, %safter one that
// fails behind them.
func sameMessages(t *testing.T, name string, scripts []string) {
	t.Helper()
	d := shop(t)
	sameMessagesOn(t, name, []messaged{{"one shard", small(t, d, 1, nil).dsn(), name + "_one_", nil}, {"two shards", d.shopDSN(), name + "_two_", nil}}, scripts)
}

// sameMessagesOverShards is sameMessages for tables over two shards.
func sameMessagesOverShards(t *testing.T, name string, scripts []string) {
	t.Helper()
	d, _ := schemesWorld(t, name)
	d.adminExec(t, "CREATE GROUP g IN "+name+" KEY (int) BY HASH")
	sameMessagesOn(t, name, []messaged{{"over shards", dsnFor("app", "app", d.Server.Addr(), name), "", func(table string) {
		d.adminExec(t, "DISTRIBUTE TABLE "+name+".public."+table+" IN GROUP g KEY (a)")
	}}}, scripts)
}

// messaged is who answers as one PostgreSQL does, and how its tables are distributed, if they are.
type messaged struct {
	name, dsn, prefix string
	distribute        func(table string)
}

func sameMessagesOn(t *testing.T, name string, others []messaged, scripts []string) {
	t.Helper()
	targets := append([]messaged{{"PostgreSQL", shop(t).cluster.Node("s1-a").DSN("shop"), name + "_direct_", nil}}, others...)
	conns := make([]*pgx.Conn, len(targets))
	defer func() {
		for i, x := range targets {
			mustExec(t, conns[i], strings.ReplaceAll("drop table if exists %srows, %sbefore, %safter", "%s", x.prefix))
			mustExec(t, conns[i], "drop function if exists "+x.prefix+"refuse()")
		}
	}()
	for i, x := range targets {
		conns[i] = connectTo(t, x.dsn)
		for _, sql := range []string{
			"create table %srows (a int)", "create table %sbefore (a int)", "create table %safter (a int)",
			"create function %srefuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$",
			"create trigger refuses before insert on %sbefore for each statement execute function %srefuse()",
			"create trigger refuses after insert on %safter for each statement execute function %srefuse()",
		} {
			mustExec(t, conns[i], strings.ReplaceAll(sql, "%s", x.prefix))
		}
		for _, table := range []string{"rows", "before", "after"} {
			if x.distribute != nil {
				x.distribute(x.prefix + table)
			}
		}
	}
	raws := make([]*raw, len(targets)) // nil: there is none, or it has ended
	for _, script := range scripts {
		want := ""
		for i, x := range targets {
			if raws[i] == nil {
				raws[i] = rawTo(t, x.dsn)
			}
			_ = raws[i].SetDeadline(time.Now().Add(30 * time.Second))
			got := raws[i].messages(script, x.prefix)
			if strings.HasSuffix(got, ended) {
				_ = raws[i].Close()
				raws[i] = nil
			}
			got += fmt.Sprint(" rows ", queryOne[string](t, conns[i], "select coalesce(string_agg(a::text, ',' order by a), 'none') from "+x.prefix+"rows"))
			mustExec(t, conns[i], "delete from "+x.prefix+"rows")
			switch {
			case i == 0:
				want = got
			case got != want:
				t.Errorf("%s, %s:\ngot  %s\nwant %s", x.name, script, got, want)
			}
		}
	}
}

// A COPY FROM of the extended protocol is answered as PostgreSQL answers it, message by message: whatever of the data, Syncs and Flushes comes along
// with it, and wherever it fails. A Sync that the COPY has not read when it fails is answered; one that it has read is not.
func TestCopyAmidAPipelineLikePostgreSQL(t *testing.T) {
	t.Parallel()
	var scripts []string
	for _, table := range []string{"rows", "before", "after"} {
		for _, s := range []string{
			"query-copy T; await G; rows 1; done", "query-copy T; rows 1,2; done", "query-copy T; fail",
			"copy T; Sync; await G; rows 1; done; Sync", "copy T; Sync; rows 1,2; done; Sync", "copy T; rows 1; done; Sync", "copy T; rows 1; Sync; done; Sync",
			"copy T; Flush; await G; rows 1; done; Sync", "copy T; Flush; await G; Sync; rows 1; done; Sync", "copy T; Sync; await G; rows 1; Sync; done; Sync",
			"copy T; Sync; await G; fail; Sync", "copy T; Sync; fail; Sync", "copy T; Flush; Sync; rows 1; done", "copy T; Sync; Sync; Sync; rows 1; done",
			"begin; await ZT; copy T; Sync; await G; rows 1; done; Sync", "begin; copy T; Sync; rows 1; done; Sync", "insert; copy T; Sync; await G; rows 1; done; Sync",
			"copy T; Sync; await G; rows x; done; Sync", "copy T; Sync; rows x; done; Sync", "copy T; rows 1,x,2; rows 3; Sync; done; Sync; insert",
			"begin; copy T; Flush; await G; rows x; await ]; Sync", "copy nosuch; Sync; rows 1; done; Sync", "copy nosuch; rows 1; done; insert; Sync",
			"query-copy T; Sync; rows 1; done", "query-copy T; rows 1; Sync; done", "query-copy T; await G; Sync; rows 1; Sync; done; Sync", "query-copy T; Sync; Sync; fail", "query-copy T; Flush; Sync; rows 1; done",
			"query-copy T; rows x; Sync; done", "query-copy T; Sync; rows x; Sync; rows 1; done", "begin; query-copy T; Sync; rows 1; done", "begin; query-copy T; Sync; rows x; Sync; done; query-insert",
			"query-copy T; Sync; insert; Sync", "query-copy T; Sync; Sync; query-insert", "insert; query-copy T; Sync; rows 1; done", "query-copy nosuch; Sync; rows 1; done",
		} {
			scripts = append(scripts, strings.ReplaceAll(s, " T;", " "+table+";"))
		}
	}
	sameMessages(t, "copied", scripts)
}

// So is one that goes to several shards. It is told what they say against its rows when the client has sent all of them.
func TestCopyOverShardsAmidAPipelineLikePostgreSQL(t *testing.T) {
	t.Parallel()
	var scripts []string
	for _, table := range []string{"rows", "after"} {
		for _, s := range []string{
			"copy T; Sync; await G; rows 1,2,3; done; Sync", "copy T; Sync; rows 1,2; done; Sync", "copy T; rows 1; done; Sync", "copy T; rows 1; Sync; done; Sync",
			"copy T; Flush; await G; rows 1,2,3,4; done; Sync", "copy T; Flush; await G; Sync; rows 1; done; Sync", "copy T; Sync; await G; rows 1; Sync; rows 2; done; Sync",
			"copy T; Sync; await G; fail; Sync", "copy T; Sync; fail; Sync", "copy T; Flush; Sync; rows 1; done", "copy T; Sync; Sync; Sync; rows 1; done",
			"begin; await ZT; copy T; Sync; await G; rows 1,2,3; done; Sync", "begin; copy T; Sync; rows 1; done; Sync", "insert; copy T; Sync; await G; rows 1,2,3; done; Sync",
			"copy T; Sync; await G; rows 1,2,3; done; insert; Sync", "copy T; Sync; await G; rows 1; done; wrong; Sync; insert",
			"insert; copy T; Sync; await G; rows 1,x; done; Sync; insert", "insert; copy T; Sync; await G; fail; Sync",
			"copy T; Sync; await G; rows x; done; Sync", "copy T; Sync; rows 1,2,3,x; done; Sync", "begin; copy T; Sync; await G; rows 1,x; done; Sync; insert",
			"copy T; Sync; await G; rows 1,x; fail; Sync", "copy T; Sync; await G; rows 1,x,2; rows y; fail; Sync; insert", "query-copy T; rows x; fail",
			"copy nosuch; Sync; rows 1; done; Sync", "copy nosuch; rows 1; done; insert; Sync",
			"query-copy T; rows 1,2,3; done", "query-copy T; Sync; rows 1; done", "insert; query-copy T; Sync; rows 1; done",
		} {
			scripts = append(scripts, strings.ReplaceAll(s, " T;", " "+table+";"))
		}
	}
	scripts = append(
		scripts,
		"copy rows; Flush; await G; rows 1,2,3; done; copy rows; Sync; await G; rows 7; done; Sync", "copy rows; Sync; await G; rows 1,2; done; copy rows; Flush; await G; rows 3; done; insert; Sync",
		"copy rows; query-insert", "copy rows; call -1", "copy rows; insert; Sync", "copy rows; Sync; await G; query-insert", "copy rows; Sync; await G; rows 1; call -1", "insert; copy rows; query-insert",
		"copy before; insert; Sync", "copy before; insert; Sync; insert; Sync", "copy before; Sync; insert; Sync", "query-copy rows; await G; rows 1; insert; Sync",
		"copy before; Flush; await G; rows x; done; Sync", "copy before; Flush; await G; rows 1; fail; Sync", "query-copy before; rows x; fail",
		"copy-limited rows; Sync; await G; rows 1,2,3; done; Sync", "insert; copy-limited rows; Flush; await G; rows 1,2; done; insert; Sync", "copy-limited after; Sync; await G; rows 1,2; done; Sync",
	)
	sameMessagesOverShards(t, "copiedover", scripts)
}

// What a COPY cannot take ends the session as it does on PostgreSQL, and is not run: not from where it stood, which holds another client's messages by then.
func TestWhatCopyCannotTakeIsNotRun(t *testing.T) {
	t.Parallel()
	sameMessages(t, "behind", []string{
		"copy rows; query-insert", "copy rows; call -1", "copy rows; insert; Sync", "copy rows; Sync; await G; query-insert", "copy rows; Sync; await G; rows 1; call -1",
		"query-copy rows; await G; query-insert", "query-copy rows; query-insert", "query-copy rows; await G; rows 1; insert; Sync", "insert; copy rows; query-insert",
	})
	r := rawTo(t, shop(t).shopDSN())
	r.SendQuery("copy customers from stdin")
	r.want('G', "G")
	r.SendQuery("select 1")
	if got := r.toldUpTo("ZI"); got != "E[08P01]E[08P01]"+ended {
		t.Errorf("over shards: %s", got)
	}
}

// What no COPY takes is no part of one that has failed by itself before it read anything: as on PostgreSQL it is run, or skipped with its pipeline, and the
// session goes on. A COPY that fails behind its rows would have read it.
func TestWhatComesBehindACopyThatFailsByItself(t *testing.T) {
	t.Parallel()
	var scripts []string
	for _, table := range []string{"before", "after"} {
		for _, s := range []string{
			"copy T; insert; Sync", "copy T; insert; Sync; insert; Sync", "copy T; query-insert", "copy T; query-insert; Sync; query-insert", "copy T; call -1; Sync; call -1",
			"copy T; Sync; query-insert", "copy T; Sync; insert; Sync", "copy T; Sync; await G; insert; Sync", "copy T; Flush; insert; Sync", "copy T; Flush; Sync; insert; Sync; insert; Sync",
			"query-copy T; query-insert", "query-copy T; insert; Sync", "query-copy T; call -1", "query-copy T; rows 1; query-insert",
			"begin; copy T; insert; Sync; insert", "begin; query-copy T; query-insert", "insert; copy T; insert; Sync", "insert; copy T; query-insert", "copy T; rows 1; insert; Sync",
		} {
			scripts = append(scripts, strings.ReplaceAll(s, " T;", " "+table+";"))
		}
	}
	sameMessages(t, "itself", scripts)
	d, c := schemesWorld(t, "itselfover")
	d.adminExec(t, "CREATE GROUP g IN itselfover KEY (int) BY HASH")
	mustExec(t, c, "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$")
	for _, when := range []string{"before", "after"} {
		mustExec(t, c, "create table "+when+"wards (id int primary key)")
		mustExec(t, c, "create trigger refuses "+when+" insert on "+when+"wards for each statement execute function refuse()")
		d.adminExec(t, "DISTRIBUTE TABLE itselfover.public."+when+"wards IN GROUP g KEY (id)")
	}
	for _, x := range []struct{ table, want string }{{"beforewards", "GE[P0001]ZITD(1)C<SELECT 1>ZI"}, {"afterwards", "GE[08P01]E[08P01]" + ended}} {
		for _, first := range []string{"", "1\n"} {
			r := rawTo(t, dsnFor("app", "app", d.Server.Addr(), "itselfover"))
			r.SendQuery("copy " + x.table + " from stdin")
			if first != "" {
				r.SendFrame('d', []byte(first))
			}
			r.SendQuery("select 1")
			if got := r.toldUpTo("C<SELECT 1>ZI"); got != x.want {
				t.Errorf("over shards, %s, %q: %s, not %s", x.table, first, got, x.want)
			}
		}
	}
}

// A simple query and a call by number are part of the pipeline before them, which they end, and behind an error they are skipped up to Sync.
func TestRequestsAmidAPipelineLikePostgreSQL(t *testing.T) {
	t.Parallel()
	sameMessages(t, "amid", []string{
		"insert; Flush; await C<INSERT 0 1>; call -1", "insert; Flush; await C<INSERT 0 1>; call x", "insert; call -1; insert; call x", "begin; insert; call x; insert; Sync",
		"wrong; query-insert", "wrong; call -1", "wrong; query-insert; insert; Sync; query-insert", "insert; wrong; query-insert; call -1; Sync; insert", "begin; wrong; query-insert; Sync; insert",
		"insert; Flush; await C<INSERT 0 1>; wrong; Flush; await E[42601]; query-insert; call -1",
	})
}

// What a pipeline has set that is still open is its session's, also where a simple query of the same transaction comes before its Sync.
func TestAnOpenPipelineKeepsWhatItHasSet(t *testing.T) {
	t.Parallel()
	a := small(t, shop(t), 1, nil)
	other, r := connectTo(t, a.dsn()), rawTo(t, a.dsn())
	was := queryOne[string](t, other, "select current_setting('datestyle')")
	r.SendQuery("begin")
	r.until('Z')
	r.run("select set_config('datestyle', 'German', false)")
	r.SendFlush()
	r.until('C')
	r.SendQuery("commit")
	r.until('Z')
	if got := queryOne[string](t, other, "select current_setting('datestyle')"); got != was {
		t.Errorf("another session has %s", got)
	}
	r.SendQuery("select '2026-02-01'::date")
	r.want('Z', "TD(01.02.2026)C<SELECT 1>ZI")
}

// A custom parameter that a pipeline has set, and that is undone with it, is NULL for others: whether a message of the pipeline is wrong that no server
// has seen, or its end fails.
func TestACustomParameterOfAPipelineIsNobodyElses(t *testing.T) {
	t.Parallel()
	a := small(t, shop(t), 1, nil)
	c := connectTo(t, a.dsn())
	mustExec(t, c, "create table pipeline_to (a int primary key)")
	mustExec(t, c, "create table pipeline_from (a int references pipeline_to deferrable initially deferred)")
	defer mustExec(t, c, "drop table pipeline_from, pipeline_to")
	for i, fails := range []func(r *raw){
		func(r *raw) { r.SendBindParts("nosuch", nil, nil, nil) },
		func(r *raw) { r.run("insert into pipeline_from values (1)") },
		func(r *raw) { r.SendFlush(); r.until('C'); r.SendBindParts("nosuch", nil, nil, nil) },
	} {
		for _, begin := range []string{"", "begin"} {
			name := fmt.Sprintf("piped.s%d%s", i, begin)
			r := rawTo(t, a.dsn())
			r.SendQuery(begin)
			r.until('Z')
			r.run("select set_config('" + name + "', '7', false)")
			fails(r)
			r.SendSync()
			r.until('Z')
			r.SendQuery("rollback")
			r.until('Z')
			if !queryOne[bool](t, c, "select current_setting($1, true) is null", name) {
				t.Errorf("%s is not NULL for another session", name)
			}
			_ = r.Close()
		}
	}
}

// A call by number is a request like others: the time that it takes is counted.
func TestCallsByNumberAreTimed(t *testing.T) {
	t.Parallel()
	a := small(t, shop(t), 1, nil)
	r := rawTo(t, a.dsn())
	nanos := func() time.Duration { return time.Duration(a.Metrics.Database("shop").QueryNanos.Load()) }
	before := nanos()
	r.call(2626, "0.2") // pg_sleep
	r.until('Z')
	if d := nanos() - before; d < 200*time.Millisecond {
		t.Errorf("a call that sleeps for 200 ms counts as %s", d)
	}
}
