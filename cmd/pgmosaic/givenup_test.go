package main

import (
	"strings"
	"testing"
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
