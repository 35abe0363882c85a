package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// renameWorld is a database of three shards with a distributed table, rows_, of 90 rows with a view, a serial column and an index, and a
// reference table, codes.
func renameWorld(t *testing.T, name string) (*demo, *pgx.Conn) {
	t.Helper()
	d, c := schemesWorld(t, name)
	for _, sql := range []string{
		"create table rows_ (k int primary key, v text, n serial)", "create index rows_v on rows_ (v)", "create table codes (code text primary key)", "create schema apart",
		"create view seen as select k, v from rows_",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN "+name+" KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE "+name+".public.rows_ IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE "+name+".public.codes AS REFERENCE")
	mustExec(t, c, "insert into rows_ (k, v) select i, 'v' || i from generate_series(1, 90) i")
	mustExec(t, c, "insert into codes values ('a'), ('b')")
	return d, c
}

// declared are the tables of a database in the map, one with another name under way as "old>new".
func declared(d *demo, database string) string {
	var out []string
	for _, x := range d.Catalog.Current().Document.Tables {
		if x.Database == database {
			s := x.Schema + "." + x.Name + strings.Join(append([]string{""}, x.Key...), " ")
			if x.Renaming != nil {
				s += ">" + x.Renaming.Name
			}
			out = append(out, s)
		}
	}
	return strings.Join(out, ", ")
}

// A distributed table can be renamed, moved to another schema and given another key column name, in all ways that PostgreSQL has.
func TestRenameOfDistributedTables(t *testing.T) {
	t.Parallel()
	d, c := renameWorld(t, "renamed")
	other := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "renamed"))
	is := func(want string) {
		t.Helper()
		if got := declared(d, "renamed"); got != want {
			t.Errorf("declared: %s, want %s", got, want)
		}
	}
	counts := func(c *pgx.Conn, table string, want int) {
		t.Helper()
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
			var n int
			if err := c.QueryRow(t.Context(), "select count(*) from "+table, mode).Scan(&n); err != nil || n != want {
				t.Errorf("%s has %d rows (%v), want %d", table, n, err, want)
			}
		}
	}
	counts(other, "rows_", 90)
	mustExec(t, c, "alter table rows_ rename to lines")
	is("public.codes, public.lines k")
	counts(c, "lines", 90)
	counts(other, "lines", 90)
	counts(other, "seen", 90) // the view follows
	_, err := other.Exec(t.Context(), "select count(*) from rows_")
	wantCode(t, err, "42P01")
	_, err = other.Exec(t.Context(), "insert into rows_ values (1)")
	wantCode(t, err, "42P01")
	mustExec(t, other, "insert into lines (k, v) values (91, 'x'), (92, 'y')")
	mustExec(t, c, "alter table lines set schema apart")
	counts(other, "apart.lines", 92)
	mustExec(t, c, "alter table apart.lines rename column k to id")
	is("apart.lines id, public.codes")
	mustExec(t, other, "insert into apart.lines (id, v) values (93, 'z')")
	if got := queryOne[string](t, other, "select v from apart.lines where id = 93"); got != "z" {
		t.Error(got)
	}
	if plan := fmt.Sprint(queryOne[string](t, other, "explain (route) select v from apart.lines where id = 93")); !strings.Contains(strings.ToLower(plan), "single") {
		t.Errorf("by the new key: %s", plan)
	}
	mustExec(t, c, "alter table apart.lines rename column v to value")
	mustExec(t, c, "alter table codes rename to signs")
	is("apart.lines id, public.signs")
	counts(other, "signs", 2)
	mustExec(t, c, "insert into signs values ('c')")
	for i := range 3 {
		counts(d.on(t, "renamed", i), "signs", 3)
	}
	// In a transaction its own statements see it, others wait for it, and nothing is left of what is undone.
	mustExec(t, c, "begin")
	mustExec(t, c, "alter table apart.lines rename to l2")
	is("apart.lines id>l2, public.signs")
	counts(c, "apart.l2", 93)
	mustExec(t, c, "insert into apart.l2 (id, value) values (94, 'in'), (95, 'it')")
	mustExec(t, c, "alter table apart.l2 rename to l3")
	mustExec(t, c, "alter table apart.l3 rename column id to number")
	mustExec(t, c, "insert into apart.l3 (number, value) values (96, 'by its new key')")
	mustExec(t, c, "savepoint a")
	mustExec(t, c, "alter table apart.l3 rename to l4")
	mustExec(t, c, "rollback to a")
	counts(c, "apart.l3", 96)
	mustExec(t, c, "commit")
	is("apart.l3 number, public.signs")
	counts(other, "apart.l3", 96)
	mustExec(t, c, "begin")
	mustExec(t, c, "alter table apart.l3 rename to l5")
	mustExec(t, c, "savepoint a")
	mustExec(t, c, "alter table signs rename to marks")
	mustExec(t, c, "rollback")
	is("apart.l3 number, public.signs")
	counts(other, "apart.l3", 96)
	mustExec(t, c, "begin")
	mustExec(t, c, "alter table apart.l3 rename to l5")
	_, err = c.Exec(t.Context(), "select 1/0")
	wantCode(t, err, "22012")
	mustExec(t, c, "rollback")
	is("apart.l3 number, public.signs")
	for sql, code := range map[string]string{
		"alter table apart.l3 rename to l3": "42P07", "alter table signs set schema nowhere": "3F000", "alter table signs set schema pgmosaic": "42501", "alter table apart.l3 rename column number to value": "42701",
		"alter table apart.nothing rename to x": "42P01",
	} {
		_, err := c.Exec(t.Context(), sql)
		wantCode(t, err, code)
	}
	mustExec(t, c, "alter table if exists apart.nothing rename to x")
	is("apart.l3 number, public.signs")
	// Two tables change names: as when a new one takes the place of an old one.
	mustExec(t, c, "create table fresh (number int primary key, value text)")
	d.adminExec(t, "DISTRIBUTE TABLE renamed.public.fresh IN GROUP g KEY (number)")
	mustExec(t, c, "insert into fresh values (1, 'one')")
	mustExec(t, c, "alter table apart.l3 set schema public")
	mustExec(t, c, "begin; alter table l3 rename to old; alter table fresh rename to l3; commit")
	is("public.l3 number, public.old number, public.signs")
	counts(other, "l3", 1)
	counts(other, "old", 96)
	mustExec(t, c, "begin")
	mustExec(t, c, "drop table l3")
	mustExec(t, c, "alter table old rename to l3")
	mustExec(t, c, "commit")
	is("public.l3 number, public.signs")
	counts(other, "l3", 96)
	mustExec(t, c, "begin")
	mustExec(t, c, "alter table l3 rename to gone")
	mustExec(t, c, "drop table gone cascade")
	mustExec(t, c, "rollback")
	counts(other, "l3", 96)
	is("public.l3 number, public.signs")
	// A table of another kind takes the name of one that is dropped or has another name now.
	mustExec(t, c, "begin; drop table signs; create table signs (n int); insert into signs values (1), (2), (3), (4); commit")
	is("public.l3 number")
	counts(other, "signs", 4)
	mustExec(t, c, "begin; alter table l3 rename to l6; alter table signs rename to l3; commit")
	is("public.l6 number")
	counts(other, "l3", 4)
	mustExec(t, c, "begin; alter table l3 rename to signs; alter table l6 rename to l3; create table l6 (n int); drop table l6; commit")
	is("public.l3 number")
	counts(other, "l3", 96)
	mustExec(t, c, "drop table if exists nothing, signs")
	// It can be brought home, and what the shards had is gone.
	d.adminExec(t, "UNDISTRIBUTE TABLE renamed.public.l3")
	counts(other, "l3", 96)
	if left := queryOne[string](t, d.on(t, "renamed", 1), "select format('%s of %s', array(select relname from pg_class where relname in ('l3', 'rows_', 'old')), array(select relation from pgmosaic.made))"); left != "{} of {}" {
		t.Errorf("left on a shard: %s", left)
	}
}

// A table that is dropped and brought back by ROLLBACK TO is still declared.
func TestDropAndRollbackToKeepsTheDeclaration(t *testing.T) {
	t.Parallel()
	_, c := renameWorld(t, "undropped")
	mustExec(t, c, "begin; savepoint a; drop table rows_ cascade; rollback to a; commit")
	mustExec(t, c, "begin")
	mustExec(t, c, "savepoint a")
	mustExec(t, c, "drop table rows_ cascade")
	mustExec(t, c, "rollback to a")
	mustExec(t, c, "commit")
	if n := queryOne[int](t, c, "select count(*) from rows_"); n != 90 {
		t.Errorf("%d rows", n)
	}
}

// What a dead process left of a renaming is settled, whether its transaction was committed or not; while it is in doubt, both
// names are the table's and the admin is told so.
func TestRenamingLeftByADeadProcess(t *testing.T) {
	t.Parallel()
	d, c := renameWorld(t, "left")
	home := d.on(t, "left", 0)
	oid := queryOne[uint32](t, home, "select 'rows_'::regclass::oid")
	leave := func() {
		if _, err := d.Catalog.Change(t.Context(), false, func(tx *shardmap.Tx) error {
			tables, err := tx.Tables("left")
			for _, x := range tables {
				if x.Name == "rows_" {
					x.Renaming = &shardmap.Renaming{OID: oid, Schema: "public", Name: "lines", Key: []string{"k"}, Columns: []int16{1}}
					err = tx.PutTable(x)
				}
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	eventually(t, "it is found not to have been committed", func() bool { return declared(d, "left") == "public.codes, public.rows_ k" })
	tx, err := home.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "alter table rows_ rename to lines"); err != nil {
		t.Fatal(err)
	}
	leave()
	_, err = d.Admin.Exec(t.Context(), "UNDISTRIBUTE TABLE left.public.codes", false)
	if err == nil || !strings.Contains(err.Error(), "is renaming a table") {
		t.Errorf("while it is in doubt: %v", err)
	}
	for i := range 2 {
		mustExec(t, d.on(t, "left", i+1), "alter table rows_ rename to lines")
	}
	if err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is found to have been committed", func() bool { return declared(d, "left") == "public.codes, public.lines k" })
	if n := queryOne[int](t, c, "select count(*) from lines"); n != 90 {
		t.Errorf("%d rows", n)
	}
}

// A transaction that keeps an older map does not take a table's new name for one of home's.
func TestOldTransactionAndNewName(t *testing.T) {
	t.Parallel()
	_, c := renameWorld(t, "older")
	other := connectTo(t, c.Config().ConnString())
	mustExec(t, other, "begin")
	mustExec(t, other, "select * from codes")
	mustExec(t, c, "alter table rows_ rename to lines")
	_, err := other.Exec(t.Context(), "select count(*) from lines")
	wantCode(t, err, "40001")
	mustExec(t, other, "rollback")
	if n := queryOne[int](t, other, "select count(*) from lines"); n != 90 {
		t.Errorf("%d rows", n)
	}
}

// A transaction that defines something plans by what it sees itself.
func TestPlansBehindDefinitionsInATransaction(t *testing.T) {
	t.Parallel()
	d, c := renameWorld(t, "defining")
	for _, x := range []struct{ define, ask, want string }{
		{"create view seen2 as select k, v from rows_ where k <= 10", "select k from seen2 where k = 7", "0A000"},
		{"create or replace view seen as select k, v from rows_ where k <= 10", "select k from seen where k = 50", "0A000"},
		{"create or replace view seen as select k, v from rows_ where k <= 10", "select k from seen", "0A000"},
		{"create view seen2 as select k, v from rows_ where k <= 10", "select count(*) from seen2", "0A000"},
		{"create function f() returns bigint language sql stable as 'select count(*) from rows_'", "select f()", "0A000"},
		{"alter table rows_ add column w int default 5", "select sum(w) from rows_", "450"},
		{"alter table rows_ rename to lines", "select count(*) from seen", "0A000"},
		{"alter table rows_ rename to lines; create table rows_ (k int); insert into rows_ values (1), (2)", "select count(*) from rows_", "2"},
		{"alter table rows_ rename to lines; create table rows_ (k int); insert into rows_ values (1), (2)", "select count(*) from lines", "90"},
		{"alter table rows_ rename column k to id", "select v from rows_ where id = 5", "v5"},
		{"drop view seen; drop table rows_", "select count(*) from rows_", "42P01"},
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec} {
			mustExec(t, c, "begin; "+x.define)
			rows, err := c.Query(t.Context(), x.ask, mode)
			got := ""
			if err == nil {
				for rows.Next() {
					vals, _ := rows.Values()
					got += fmt.Sprint(vals...)
				}
				rows.Close()
				err = rows.Err()
			}
			if err != nil {
				got = pgCode(err)
			}
			if got != x.want {
				t.Errorf("%s; %s (%s): %q, %v, want %q", x.define, x.ask, mode, got, err, x.want)
			}
			mustExec(t, c, "rollback")
		}
	}
	// What was prepared by a view that is undone, and a plan that was made by it, are not used afterwards.
	mustExec(t, c, "begin")
	mustExec(t, c, "create or replace view seen as select k, v from rows_ where k <= 10")
	if _, err := c.Prepare(t.Context(), "by_view", "select k from seen where k = 50"); err != nil && pgCode(err) != "0A000" {
		t.Fatal(err)
	}
	if _, err := c.Prepare(t.Context(), "by_table", "select count(*) from apart.later"); err == nil || pgCode(err) != "42P01" {
		t.Errorf("%v", err)
	}
	mustExec(t, c, "rollback")
	if _, err := c.Prepare(t.Context(), "by_view", "select k from seen where k = 50"); err != nil {
		t.Fatal(err)
	}
	if got := queryOne[int](t, c, "by_view"); got != 50 {
		t.Errorf("the view that was brought back gives %d", got)
	}
	mustExec(t, c, "begin") // nor those by a view that no statement showed to be made
	mustExec(t, c, "do $$ begin create view hidden as select 1 as k; end $$")
	time.Sleep(250 * time.Millisecond) // the schema is not read anew more often
	if n := queryOne[int](t, c, "select count(*) from hidden"); n != 1 {
		t.Errorf("%d rows in a view of one", n)
	}
	mustExec(t, c, "rollback")
	mustExec(t, d.on(t, "defining", 0), "create view hidden as select k from rows_; grant select on hidden to app")
	time.Sleep(250 * time.Millisecond)
	if n := queryOne[int](t, c, "select count(*) from hidden"); n != 90 {
		t.Errorf("%d rows in a view of 90, by the plan for another of its name", n)
	}
	mustExec(t, c, "begin; create table frozen (n int)")
	if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("1\n2\n"), "copy frozen from stdin (freeze)"); err != nil {
		t.Errorf("COPY FREEZE behind its table: %v", err)
	}
	mustExec(t, c, "rollback")
	// A pipeline that is a transaction of its own.
	cfg := c.Config().Copy()
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	piped, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = piped.Close(t.Context()) }()
	for _, last := range []string{"select k from seen3 where k = 85", "insert into rows_ (k) values (500)"} {
		b := &pgx.Batch{}
		b.Queue("create view seen3 as select k from rows_ where k > 80")
		b.Queue("create table made (n int)")
		b.Queue("insert into made values (3)")
		b.Queue(last)
		err := piped.SendBatch(t.Context(), b).Close()
		if strings.HasPrefix(last, "select") {
			wantCode(t, err, "0A000")
		} else if err != nil {
			t.Errorf("%s: %v", last, err)
		}
	}
	if n := queryOne[int](t, c, "select (select count(*) from seen3) * 10 + n from made"); n != 113 {
		t.Errorf("afterwards %d", n)
	}
}

// A process whose map has not been told of another name refuses the table: on home there is a part of it only.
func TestUndeclaredPartIsRefused(t *testing.T) {
	t.Parallel()
	d, c := renameWorld(t, "undeclared")
	other := otherProcess(t, d)
	behind := connectTo(t, dsnFor("app", "app", other.Server.Addr(), "undeclared"))
	if n := queryOne[int](t, behind, "select count(*) from rows_"); n != 90 {
		t.Fatal(n)
	}
	mustExec(t, c, "alter table rows_ rename to lines")
	time.Sleep(250 * time.Millisecond)
	for _, sql := range []string{"select count(*) from lines", "insert into lines (k) values (1000)", "select count(*) from seen", "delete from lines", "copy lines to stdout", "truncate lines", "alter table lines add column x int", "drop table lines cascade", "create view more as select k from lines"} {
		_, err := behind.Exec(t.Context(), sql)
		if code := pgCode(err); code != "55000" && code != "42P01" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	// One that home made LIKE it, without the proxy, which leaves the constraint out.
	mustExec(t, d.on(t, "undeclared", 0), "create table copied (like lines including all); alter table copied owner to app")
	eventually(t, "it is known", func() bool {
		_, err := c.Exec(t.Context(), "select from copied")
		return pgCode(err) != "42P01"
	})
	_, err := c.Exec(t.Context(), "insert into copied (k) values (1)")
	wantRule(t, err, "undeclared", "55000")
	_, err = c.Exec(t.Context(), "alter table copied drop constraint pgmosaic_slot, add column x int")
	wantRule(t, err, "undeclared", "55000")
	mustExec(t, c, "alter table copied drop constraint pgmosaic_slot")
	mustExec(t, c, "insert into copied (k) select generate_series(1, 20)")
}
