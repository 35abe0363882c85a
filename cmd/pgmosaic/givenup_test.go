package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// A transaction that has lost one of its servers, which could not follow it, goes on from no savepoint: that server is in no transaction, and what it
// has still to say is no answer to what comes.
func TestTransactionThatHasLostAServerEnds(t *testing.T) {
	t.Parallel()
	d, _ := threeKeys(t, "givenup")
	su := connectTo(t, d.cluster.Node("s1-a").DSN("postgres"))
	mustExec(t, su, "create role givenup_only; grant givenup_only to app") // the server of shard 1 has none of this name
	defer mustExec(t, su, "drop role givenup_only")
	for _, x := range []struct {
		name  string
		fails func(r *raw)
	}{
		{"extended", func(r *raw) { r.run("select s from b where s = 1"); r.SendSync() }},
		{"split", func(r *raw) { r.SendQuery("insert into a values (1, 1), (2, 1)") }},
		{"scattered", func(r *raw) { r.SendQuery("select count(*) from b") }},
		{"simple", func(r *raw) { r.SendQuery("select s from b where s = 1") }},
	} {
		r := rawTo(t, dsnFor("app", "app", d.Server.Addr(), "givenup"))
		for _, sql := range []string{"begin", "select count(*) from own", "savepoint x", "set local role givenup_only"} {
			r.SendQuery(sql)
			r.until('Z')
		}
		x.fails(r)
		if got := r.until('Z'); !strings.HasSuffix(got, "E[22023]ZE") {
			t.Errorf("%s: %s", x.name, got)
		}
		for _, y := range []struct{ sql, want string }{
			{"rollback to x", "E[08006]ZE"}, {"select 1", "E[25P02]ZE"}, {"rollback", "C<ROLLBACK>ZI"}, {"select id from b where s = 1 and id = 4", "TD(4)C<SELECT 1>ZI"},
		} {
			r.SendQuery(y.sql)
			if got := r.until('Z'); got != y.want {
				t.Errorf("%s: %s: got %s, want %s", x.name, y.sql, got, y.want)
			}
		}
	}
}

// What a pipeline has written is undone where a statement of it is refused because its columns are others than its client was told.
func TestRefusedStatementUndoesItsPipeline(t *testing.T) {
	t.Parallel()
	d := shop(t)
	direct := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	mustExec(t, direct, "create table undone_by (n int); insert into undone_by values (1); create table undone_rows (n int); grant all on undone_by, undone_rows to public")
	defer mustExec(t, direct, "drop table undone_by, undone_rows")
	r := rawTo(t, small(t, d, 2, nil).dsn())
	r.SendParse("s", "select * from undone_by", nil)
	r.SendDescribe('S', "s")
	r.SendSync()
	r.until('Z')
	mustExec(t, direct, "alter table undone_by add column m int")
	for _, first := range []bool{true, false} {
		if first {
			r.run("insert into undone_rows values (1)")
		}
		r.SendBind("", "s", []byte{0, 0, 0, 0, 0, 0})
		r.SendExecute()
		if !first {
			r.run("insert into undone_rows values (2)")
		}
		r.SendSync()
		if got := r.until('Z'); !strings.HasSuffix(got, "E[0A000]ZI") {
			t.Errorf("the write is first: %t: %s", first, got)
		}
	}
	if n := queryOne[int](t, direct, "select count(*) from undone_rows"); n != 0 {
		t.Errorf("%d rows are committed", n)
	}
}

// Of a statement that is refused because its columns are others than its client was told, the rest is read: its server, which the session may
// keep, has no more to say of it when the next one comes.
func TestRefusedStatementLeavesNoAnswer(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	c, direct := connectTo(t, a.dsn()), connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	mustExec(t, direct, "create table refused (n int); insert into refused values (1), (2); grant all on refused to public")
	defer mustExec(t, direct, "drop table if exists refused")
	mustExec(t, c, "select pg_advisory_lock(4712)")
	for _, name := range []string{"alone", "inside"} {
		if _, err := c.PgConn().Prepare(t.Context(), name, "select * from refused -- "+name, nil); err != nil {
			t.Fatal(err)
		}
	}
	mustExec(t, direct, "alter table refused add column m int")
	refused := func(name string) {
		t.Helper()
		wantCode(t, c.PgConn().ExecPrepared(t.Context(), name, nil, nil, nil).Read().Err, "0A000")
	}
	for range 2 {
		refused("alone")
		if got := simply(t, c, "select 42"); got != "42" {
			t.Errorf("the next answer is %s", got)
		}
	}
	mustExec(t, c, "begin; savepoint x")
	refused("inside")
	mustExec(t, c, "rollback to x")
	if got := simply(t, c, "select 43"); got != "43" {
		t.Errorf("the next answer in the transaction is %s", got)
	}
	mustExec(t, c, "commit")
	mustExec(t, direct, "drop table refused")
	simplyFails(t, c, "select count(*) from pg_prepared_statements", "42P01")
	if got := simply(t, c, "select 44"); got != "44" {
		t.Errorf("the next answer is %s", got)
	}
	if p := pins(a); len(p) != 1 {
		t.Errorf("pins %v", p)
	}
	if !queryOne[bool](t, c, "select pg_advisory_unlock(4712)") {
		t.Error("the lock was gone")
	}
}

// What stands in a pipeline in front of a statement that is refused because its columns are others than its client was told is undone, and what stands
// behind it is skipped, as on PostgreSQL, on the client's side and on the server's: also what no rollback would undo.
func TestRefusedStatementEndsItsPipelineLikePostgreSQL(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 1, nil)
	direct := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	mustExec(t, direct, "create table skipped_of (n int); create table skipped_rows (a int); create sequence skipped_seq; grant all on skipped_of, skipped_rows, skipped_seq to public")
	defer mustExec(t, direct, "drop table skipped_of, skipped_rows; drop sequence skipped_seq")
	named := func(r *raw, name, sql string) {
		r.SendParse(name, sql, nil)
		r.Send(&wire.Bind{PreparedStatement: name})
		r.SendExecute()
	}
	const left = "select concat_ws(' ', coalesce(current_setting('skipped.x', true), 'null'), current_setting('work_mem'), (select last_value from skipped_seq), (select count(*) from skipped_rows), (select count(*) from pg_locks where locktype = 'advisory' and objid = 4713))"
	for _, x := range []struct {
		name          string
		before, after func(r *raw)
	}{
		{name: "nothing"},
		{name: "statements", after: func(r *raw) {
			named(r, "bad", "select skipped_nosuch(1)")
			named(r, "good", "select a + 7 from skipped_rows")
		}},
		{name: "set_config behind", after: func(r *raw) { r.run("select set_config('skipped.x', '7', false)") }},
		{name: "set_config in front", before: func(r *raw) { r.run("select set_config('work_mem', '9MB', false)") }},
		{name: "a custom one in front", before: func(r *raw) { r.run("select set_config('skipped.x', '7', false)") }},
		{name: "a lock", after: func(r *raw) { r.run("select pg_advisory_lock(4713)") }},
		{name: "setval", after: func(r *raw) { r.run("select setval('skipped_seq', 1000)") }},
		{name: "rows", before: func(r *raw) { r.run("insert into skipped_rows values (1)") }, after: func(r *raw) { r.run("insert into skipped_rows values (2)") }},
		{name: "a COPY", after: func(r *raw) { r.run("copy skipped_rows from stdin") }},
		{name: "a named INSERT", after: func(r *raw) { named(r, "ins", "insert into skipped_rows values (3)") }},
	} {
		for _, begin := range []bool{false, true} {
			var told [2]string
			for i, dsn := range []string{d.cluster.Node("s1-a").DSN("shop"), a.dsn()} {
				mustExec(t, direct, "alter table skipped_of alter n type int using 1")
				r := rawTo(t, dsn)
				_ = r.SetDeadline(time.Now().Add(20 * time.Second))
				r.SendParse("s", "select * from skipped_of", nil)
				r.SendDescribe('S', "s")
				r.SendSync()
				r.until('Z')
				a.Pools.Reconnect("") // its next server has not got the statement
				mustExec(t, direct, "alter table skipped_of alter n type text")
				status := "I"
				if begin {
					r.SendQuery("begin")
					r.until('Z')
					status = "E"
				}
				if x.before != nil {
					x.before(r)
				}
				r.Send(&wire.Bind{PreparedStatement: "s"})
				r.SendExecute()
				if x.after != nil {
					x.after(r)
				}
				r.SendSync()
				told[i] = r.toldUpTo("Z"+status) + ", "
				if begin {
					r.SendQuery("rollback")
					told[i] += r.toldUpTo("ZI") + ", "
				}
				for _, name := range []string{"bad", "good", "ins"} { // free again
					r.SendParse(name, "select 5", nil)
					r.SendSync()
					told[i] += r.toldUpTo("ZI") + ", "
				}
				o := rawTo(t, dsn)
				_ = o.SetDeadline(time.Now().Add(20 * time.Second))
				o.SendQuery(left)
				told[i] += o.toldUpTo("ZI") + ", "
				named(o, "other", "select a + 7 from skipped_rows")
				o.SendSync()
				told[i] += o.toldUpTo("ZI")
				if i == 1 && len(pins(a)) > 0 {
					t.Errorf("%s, begin %t: pins %v", x.name, begin, pins(a))
				}
				_, _ = o.Close(), r.Close()
				mustExec(t, direct, "delete from skipped_rows; select setval('skipped_seq', 1, false)")
			}
			if told[1] != told[0] {
				t.Errorf("%s, begin %t:\ngot  %s\nwant %s", x.name, begin, told[1], told[0])
			}
		}
	}
}

// A server that is lost while a pipeline is open is given back once, whatever request ends the pipeline, and the session goes on.
func TestServerLostBehindAnOpenPipeline(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	node := d.cluster.Node("s1-a").DSN("shop")
	killer := connectTo(t, node)
	mustExec(t, killer, "create table lost_rows (a int); grant all on lost_rows to public")
	defer mustExec(t, killer, "drop table lost_rows")
	for _, begin := range []bool{false, true} {
		for how, lose := range map[string]func(pid int){"ended": func(pid int) { ends(t, killer, pid) }, "cut off": func(int) { a.Pools.CutNode(node) }} {
			for name, request := range map[string]func(r *raw){"Query": func(r *raw) { r.SendQuery("select 1") }, "FunctionCall": func(r *raw) { r.call(absInt4, "-1") }} {
				r := rawTo(t, a.dsn())
				_ = r.SetDeadline(time.Now().Add(20 * time.Second))
				status := "I"
				if begin {
					r.SendQuery("begin")
					r.until('Z')
					status = "E"
				}
				r.run("insert into lost_rows values (1)")
				r.SendFlush()
				r.until('C')
				lose(queryOne[int](t, killer, "select pid from pg_stat_activity where query like 'insert into lost_rows%' and pid <> pg_backend_pid() order by query_start desc limit 1"))
				request(r)
				got := r.toldUpTo("Z" + status)
				for range 2 {
					r.SendQuery("rollback")
					got += r.toldUpTo("ZI")
				}
				if got = strings.ReplaceAll(got, "57P01", "08006"); got != "E[08006]Z"+status+"C<ROLLBACK>ZIC<ROLLBACK>ZI" {
					t.Errorf("begin %t, %s, %s: %s", begin, how, name, got)
				}
				r.SendQuery("select 2")
				if got := r.toldUpTo("ZI"); got != "TD(2)C<SELECT 1>ZI" {
					t.Errorf("begin %t, %s, %s, and then: %s", begin, how, name, got)
				}
				_ = r.Close()
			}
		}
	}
	if n := queryOne[int](t, killer, "select count(*) from lost_rows"); n != 0 {
		t.Errorf("%d rows are committed", n)
	}
	eventually(t, "no lease is left", func() bool {
		for _, p := range a.Pools.All() {
			if p.Database == "shop" && p.Busy() > 0 {
				return false
			}
		}
		return true
	})
}

// A pipeline that has set more than its session may keep fails behind its Sync. Its server is given back there and then, also where the session keeps another.
func TestServerOfAPipelineThatHasSetTooMuchIsGivenBack(t *testing.T) {
	t.Parallel()
	d := shop(t)
	doc := mapOf(d, "shop")
	doc.Nodes = slices.DeleteFunc(doc.Nodes, func(n *shardmap.Node) bool { return strings.HasSuffix(n.Name, "-b") })
	a := small(t, d, 2, func(cfg *config.Config) {
		cfg.Direct.Setup, cfg.SessionMemory = nil, 64<<10
		if err := filestore.New(cfg.Store).Save(t.Context(), 0, doc); err != nil {
			t.Fatal(err)
		}
	})
	r := rawTo(t, a.dsn())
	r.SendQuery("select pg_advisory_lock(4714)") // it keeps home's server
	r.until('Z')
	r.SendQuery("set pgmosaic.shard = 's2'")
	r.want('Z', "C<SET>ZI")
	for _, name := range []string{"a", "b"} { // each would fit
		r.run(fmt.Sprintf("select set_config('toomuch.%s', '%s', false)", name, strings.Repeat("x", 40000)))
	}
	r.SendSync()
	if got := r.until('Z'); !strings.HasSuffix(got, "E[53200]ZI") {
		t.Errorf("it is told .. %s", got[max(0, len(got)-40):])
	}
	for _, p := range a.Pools.All() {
		if p.Database == "shop" && p.Shard == "s2" && p.Busy() > 0 {
			t.Errorf("%d servers are leased", p.Busy())
		}
	}
}

// A pipeline that has written and was ended by a simple query is over: the next one, which only reads, is run again where its server is lost.
func TestAPipelineBeginsAnewBehindASimpleQuery(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 1, nil)
	node := d.cluster.Node("s1-a").DSN("shop")
	direct, holder := connectTo(t, node), connectTo(t, node)
	mustExec(t, direct, "create table anew_rows (a int); insert into anew_rows values (7); grant all on anew_rows to public")
	defer mustExec(t, direct, "drop table anew_rows")
	r := rawTo(t, a.dsn())
	for _, wrote := range []bool{false, true} {
		if wrote {
			r.run("delete from anew_rows where a = 1")
			r.SendFlush()
			r.until('C')
		}
		r.SendQuery("select 1")
		r.want('Z', "TD(1)C<SELECT 1>ZI")
		mustExec(t, holder, "begin; lock table anew_rows in access exclusive mode")
		r.run("select a from anew_rows")
		r.SendSync()
		if err := r.Flush(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it waits for the lock", func() bool {
			return queryOne[bool](t, direct, "select exists (select from pg_locks where relation = 'anew_rows'::regclass and not granted)")
		})
		a.Pools.CutNode(node)
		mustExec(t, holder, "rollback")
		if got := r.until('Z'); got != "12D(7)C<SELECT 1>ZI" {
			t.Errorf("behind a write %t: %s", wrote, got)
		}
	}
}
