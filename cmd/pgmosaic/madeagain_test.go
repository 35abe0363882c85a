package main

import (
	"fmt"
	"testing"
)

// A shard is dropped, and another is made in its name and place, on another database, whose types have other OIDs. What comes from it has
// home's.
func TestTypesOfAShardThatIsMadeAgain(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "madeagain")
	mustExec(t, c, "create type mood as enum ('sad', 'happy')")
	mustExec(t, c, "create table moods (id int primary key, m mood)")
	mustExec(t, c, "insert into moods values (1, 'sad')")
	d.adminExec(t, "DISTRIBUTE TABLE madeagain.public.moods AS REFERENCE")
	home := queryOne[uint32](t, c, "select 'mood'::regtype::oid")
	from := func(when string) {
		t.Helper()
		mustExec(t, c, "set pgmosaic.shard = 'madeagain_s2'")
		res := c.PgConn().Exec(t.Context(), "select m from moods where id = 1")
		all, err := res.ReadAll()
		if err != nil || len(all) != 1 || len(all[0].Rows) != 1 {
			t.Fatalf("%s: %v, %v", when, all, err)
		}
		if oid := all[0].FieldDescriptions[0].DataTypeOID; oid != home {
			t.Errorf("%s: the column's type is %d, home's %d", when, oid, home)
		}
		mustExec(t, c, "reset pgmosaic.shard")
	}
	from("before")
	d.adminExec(t, "DROP SHARD madeagain_s2 IN madeagain")
	mustExec(t, c, "select count(*) from moods")
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "madeagain_3")
	d.adminExec(t, fmt.Sprintf("CREATE SHARD madeagain_s2 IN madeagain NODE '%s' NAME madeagain_n3", node.DSN("madeagain_3")))
	from("made again")
}

// A shard is restored from a dump: what it was asked for its types it is asked again when it is adopted, also if its server is the same.
func TestTypesOfAShardThatIsRestored(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "redone")
	mustExec(t, c, "create type mood as enum ('sad', 'happy')")
	mustExec(t, c, "create table moods (id int primary key, m mood)")
	mustExec(t, c, "insert into moods values (1, 'sad')")
	d.adminExec(t, "DISTRIBUTE TABLE redone.public.moods AS REFERENCE")
	home := queryOne[uint32](t, c, "select 'mood'::regtype::oid")
	from := func(when string) {
		t.Helper()
		mustExec(t, c, "set pgmosaic.shard = 'redone_s1'")
		all, err := c.PgConn().Exec(t.Context(), "select m from moods where id = 1").ReadAll()
		if err != nil || len(all) != 1 || len(all[0].Rows) != 1 {
			t.Fatalf("%s: %v, %v", when, all, err)
		}
		if oid := all[0].FieldDescriptions[0].DataTypeOID; oid != home {
			t.Errorf("%s: the column's type is %d, home's %d", when, oid, home)
		}
		mustExec(t, c, "reset pgmosaic.shard")
	}
	from("before")
	node := d.cluster.Node("s2-a")
	if err := node.Exec(t.Context(), "postgres", "drop database redone_1 with (force)"); err != nil {
		t.Fatal(err)
	}
	freshDatabase(t, node, "redone_1")
	shard := connectTo(t, node.DSN("redone_1"))
	mustExec(t, shard, "create type filler as enum ('x'); create type mood as enum ('sad', 'happy'); create table moods (id int primary key, m mood); insert into moods values (1, 'sad'); alter table moods owner to app; alter type mood owner to app")
	d.adminExec(t, "ALTER SHARD redone_s1 IN redone ADOPT")
	eventually(t, "it is used", func() bool { return d.Monitor.View("redone", "redone_s1").Up() })
	from("restored")
}
