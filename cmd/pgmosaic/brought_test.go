package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// joinFails has a CREATE SHARD of a fourth shard fail at its last step. meanwhile is done when the shard has what home has.
func joinFails(t *testing.T, d *demo, name string, meanwhile func(there *pgx.Conn), then ...func()) (there *pgx.Conn, again func() error) {
	t.Helper()
	home := d.on(t, name, 0)
	mustExec(t, home, "create table if not exists codes (v int); alter table codes owner to app")
	d.adminExec(t, "DISTRIBUTE TABLE "+name+".public.codes AS REFERENCE")
	a, err := stranger(t, mapOf(d, name))
	if err != nil {
		t.Fatal(err)
	}
	a.Mover.PauseTimeout = 500 * time.Millisecond
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, name+"_3")
	there = connectTo(t, node.DSN(name+"_3"))
	create := fmt.Sprintf("CREATE SHARD %s_s3 IN %[1]s NODE '%s' NAME %[1]s_n3", name, node.DSN(name+"_3"))
	hold, err := home.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Rollback(t.Context())
	if _, err := hold.Exec(t.Context(), "lock table codes in row exclusive mode"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := a.Admin.Exec(t.Context(), create, false)
		ended <- err
	}()
	for done := false; !done && len(ended) == 0; {
		done = queryOne[bool](t, there, "select to_regprocedure('plain()') is not null")
	}
	if meanwhile != nil {
		meanwhile(there)
	}
	if err = <-ended; err == nil || !strings.Contains(err.Error(), "holds a lock") || strings.Contains(err.Error(), "undone") {
		t.Fatalf("it ended with %v", err)
	}
	for _, f := range then {
		f()
	}
	if n := queryOne[int](t, there, "select count(*) from pgmosaic.brought"); n != 0 {
		t.Errorf("%d notes are left", n)
	}
	return there, func() error {
		_, err := a.Admin.Exec(t.Context(), create, false)
		return err
	}
}

// Members of an operator family that are of none of its classes go as well, out of a family of PostgreSQL's too.
func TestCreateShardThatFailsTakesMembersOfFamiliesAway(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "members")
	home := d.on(t, "members", 0)
	for _, sql := range []string{
		"create function plain() returns int language sql as 'select 1'", "create type mood as enum ('a', 'b')",
		"create function less(mood, int) returns bool immutable language sql as 'select true'", "create function cmp(mood, int) returns int immutable language sql as 'select 1'",
		"create operator <<< (function = less, leftarg = mood, rightarg = int)", `create operator family "odd of" using btree`,
		`alter operator family "odd of" using btree add operator 1 <<< (mood, int), function 1 (mood, int) cmp(mood, int)`,
		"alter operator family integer_ops using btree add operator 1 <<< (mood, int), function 1 (mood, int) cmp(mood, int)",
	} {
		mustExec(t, home, sql)
	}
	there, again := joinFails(t, d, "members", nil)
	const left = `select coalesce(string_agg(pg_describe_object(class, oid, 0), ', '), '') from (select 'pg_proc'::regclass, oid from pg_proc where pronamespace = 'public'::regnamespace union all select 'pg_operator'::regclass, oid from pg_operator
	  union all select 'pg_opfamily'::regclass, oid from pg_opfamily union all select 'pg_amop'::regclass, oid from pg_amop union all select 'pg_amproc'::regclass, oid from pg_amproc) x (class, oid) where oid >= 16384`
	if got := queryOne[string](t, there, left); got != "" {
		t.Errorf("left: %s", got)
	}
	if err := again(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// What somebody has changed on the shard since CREATE SHARD made it is theirs, and stays; so does what they have added to it.
func TestCreateShardThatFailsLeavesWhatOthersHaveChanged(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "theirs")
	home := d.on(t, "theirs", 0)
	for _, sql := range []string{
		"create function other() returns int language sql as 'select 1'", "create type mood as enum ('a', 'b')", "create domain small as int check (value < 10)", "create operator family fam using btree",
		"create operator class backwards for type int using btree family fam as operator 1 >, operator 2 >=, operator 3 =, operator 4 <=, operator 5 <, function 1 btint4cmp(int, int)",
		"create aggregate total(int) (sfunc = int4pl, stype = int, initcond = '0')", "create function plain() returns int language sql as 'select 1'",
	} {
		mustExec(t, home, sql)
	}
	there, _ := joinFails(t, d, "theirs", func(there *pgx.Conn) {
		for _, sql := range []string{
			"create or replace function plain() returns int language sql as 'select 42'", "alter type mood add value 'c'", "alter domain small add check (value > 0)",
			"create operator class own for type bigint using btree family fam as operator 1 >, operator 2 >=, operator 3 =, operator 4 <=, operator 5 <, function 1 btint8cmp(bigint, bigint)",
			"create or replace aggregate total(int) (sfunc = int4mul, stype = int, initcond = '1')",
		} {
			mustExec(t, there, sql)
		}
	})
	if got := queryOne[string](t, there, `select concat_ws(' ', (select prosrc from pg_proc where oid = to_regprocedure('plain()')), (select string_agg(enumlabel, '' order by enumsortorder) from pg_enum),
	  (select count(*) from pg_constraint where contypid = to_regtype('small')), (select string_agg(opcname, ',' order by opcname) from pg_opclass where oid >= 16384), (select agginitval from pg_aggregate where aggfnoid = to_regprocedure('total(int)')), to_regprocedure('other()'))`); got != "select 42 abc 2 own 1" {
		t.Errorf("there is %q", got)
	}
}

// While a function's lock is waited for, its owner renames it and makes another one of that name: that is not dropped.
func TestCreateShardThatFailsDropsNothingOfANameThatWasGiven(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "given")
	mustExec(t, d.on(t, "given", 0), "create function plain() returns int language sql as 'select 1'")
	done := make(chan error, 1)
	there, _ := joinFails(t, d, "given", func(there *pgx.Conn) {
		mustExec(t, there, "begin; alter function plain() rename to plainer; create function plain() returns int language sql as 'select 42'")
		other := connectTo(t, there.Config().ConnString())
		go func() {
			for waits, end := false, time.Now().Add(time.Minute); !waits && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if err := other.QueryRow(t.Context(), "select exists (select from pg_locks where not granted and database = (select oid from pg_database where datname = current_database()))").Scan(&waits); err != nil {
					done <- err
					return
				}
			}
			_, err := there.Exec(t.Context(), "commit")
			done <- err
		}()
	}, func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if got := queryOne[string](t, there, "select string_agg(proname || ' ' || prosrc, ', ' order by proname) from pg_proc where pronamespace = 'public'::regnamespace"); got != "plain select 42, plainer select 1" {
		t.Errorf("there is %s", got)
	}
}

// A process that is of an older version has joined a shard, and died before it cleared its notes away. What it made has no table of what
// was brought.
func TestNotesOfAnOlderVersionsShardAreClearedAway(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "olderjoin")
	mustExec(t, d.on(t, "olderjoin", 2), "drop table pgmosaic.brought")
	mustExec(t, d.on(t, "olderjoin", 2), "update pgmosaic.identity set attempt = 'died'")
	left := shardmap.Attempt{
		ID: "died", Database: "olderjoin", Statement: "CREATE SHARD olderjoin_s2", Shard: &shardmap.Shard{Database: "olderjoin", Name: "olderjoin_s2", Ordinal: 2, Marked: true}, Step: shardmap.Joined,
		Nodes: []*shardmap.Node{{Database: "olderjoin", Shard: "olderjoin_s2", Name: "olderjoin_n2", DSN: d.cluster.Node("s1-a").DSN("olderjoin_2")}},
	}
	if _, err := d.Catalog.Change(t.Context(), false, func(tx *shardmap.Tx) error { return tx.PutAttempt(left) }); err != nil {
		t.Fatal(err)
	}
	if err := d.Mover.Recover(t.Context()); err != nil {
		t.Errorf("it is not settled: %v", err)
	}
	for _, x := range d.Catalog.Current().Document.Attempts {
		if x.ID == "died" {
			t.Error("it is still in the map")
		}
	}
	if rows := d.adminExec(t, "VERIFY SCHEMA IN olderjoin"); len(rows) != 0 {
		t.Errorf("VERIFY SCHEMA: %v", rows)
	}
	d.adminExec(t, "DROP SHARD olderjoin_s2 IN olderjoin")
}
