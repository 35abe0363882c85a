package main

import (
	"fmt"
	"testing"
)

// An attempt stays held while its statement takes over what a dead one has left, though home's connection is of long ago: it may have served
// many statements. Servers cannot be made to have been connected to for two days, so here pgmosaic.holder says so.
func TestAnOldConnectionHoldsItsAttempt(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "oldconn")
	home := d.on(t, "oldconn", 0)
	d.adminExec(t, "CREATE GROUP g IN oldconn KEY (int) BY HASH")
	mustExec(t, c, "create table a (id int primary key)")
	for _, sql := range []string{
		"create function aged() returns trigger language plpgsql as $$ begin new.started = new.started - interval '2 days'; return new; end $$",
		"create trigger aged before insert or update on pgmosaic.holder for each row when (new.pid <> 0) execute function aged()",
		"create table forgotten (attempt text, sql text)",
		"create function notes() returns trigger language plpgsql as $$ begin insert into public.forgotten values (old.attempt, current_query()); return old; end $$",
		"create trigger notes after delete on pgmosaic.holder for each row when (old.attempt !~ '/') execute function notes()",
		"insert into pgmosaic.placed (relation, distribution, attempt, at) values ('a'::regclass, 'dead', 'dead', 'home')",
	} {
		mustExec(t, home, sql)
	}
	d.adminExec(t, "DISTRIBUTE TABLE oldconn.public.a IN GROUP g KEY (id)")
	if sql := queryOne[string](t, home, "select coalesce(string_agg(sql, '; '), '') from forgotten where sql ~ '1 day'"); sql != "" {
		t.Errorf("an attempt that was held was forgotten: %s", sql)
	}
	if n := queryOne[int](t, home, "select count(*) from forgotten"); n == 0 {
		t.Error("nothing was given up at the end: the test sees nothing")
	}
}

// A shard that was dropped, and one that was not made, hold their databases no longer: they can be dropped at once.
func TestDatabasesOfDroppedShardsCanBeDropped(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "letgo")
	mustExec(t, c, "create table codes (id int primary key)")
	for _, sql := range []string{"DISTRIBUTE TABLE letgo.public.codes AS REFERENCE", "VERIFY SCHEMA IN letgo", "UNDISTRIBUTE TABLE letgo.public.codes"} {
		d.adminExec(t, sql)
	}
	node := d.cluster.Node("s1-a")
	server := connectTo(t, node.DSN("postgres"))
	d.adminExec(t, "DROP SHARD letgo_s2 IN letgo")
	mustExec(t, server, "drop database letgo_2")
	freshDatabase(t, node, "letgo_2")
	create := fmt.Sprintf("CREATE SHARD letgo_s2 IN letgo NODE '%s' NAME letgo_n2", node.DSN("letgo_2"))
	there := connectTo(t, node.DSN("letgo_2"))
	mustExec(t, c, "create table own (id int primary key)")
	d.adminExec(t, "DISTRIBUTE TABLE letgo.public.own AS REFERENCE")
	mustExec(t, there, "create table own (a text)")
	d.adminFails(t, create, "55000", "exists")
	if err := there.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustExec(t, server, "drop database letgo_2")
	freshDatabase(t, node, "letgo_2")
	d.adminExec(t, create)
	d.adminExec(t, "UNDISTRIBUTE TABLE letgo.public.own")
	d.adminExec(t, "DROP SHARD letgo_s2 IN letgo")
	mustExec(t, server, "drop database letgo_2")
}
