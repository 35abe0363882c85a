package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// moodsWorld has a reference table with a type of users', and looks at the type of what comes from one shard.
func moodsWorld(t *testing.T, name, shard string) (d *demo, c *pgx.Conn, from func(when string)) {
	t.Helper()
	d, c = schemesWorld(t, name)
	mustExec(t, c, "create type mood as enum ('sad', 'happy')")
	mustExec(t, c, "create table moods (id int primary key, m mood)")
	mustExec(t, c, "insert into moods values (1, 'sad')")
	d.adminExec(t, "DISTRIBUTE TABLE "+name+".public.moods AS REFERENCE")
	home := queryOne[uint32](t, c, "select 'mood'::regtype::oid")
	return d, c, func(when string) {
		t.Helper()
		mustExec(t, c, "set pgmosaic.shard = '"+shard+"'")
		all, err := c.PgConn().Exec(t.Context(), "select m from moods where id = 1").ReadAll()
		if err != nil || len(all) != 1 || len(all[0].Rows) != 1 {
			t.Fatalf("%s: %v, %v", when, all, err)
		}
		if oid := all[0].FieldDescriptions[0].DataTypeOID; oid != home {
			t.Errorf("%s: the column's type is %d, home's %d", when, oid, home)
		}
		mustExec(t, c, "reset pgmosaic.shard")
	}
}

// A shard is dropped, and another is made in its name and place, on another database, whose types have other OIDs. What comes from it has
// home's.
func TestTypesOfAShardThatIsMadeAgain(t *testing.T) {
	t.Parallel()
	d, c, from := moodsWorld(t, "madeagain", "madeagain_s2")
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
	d, _, from := moodsWorld(t, "redone", "redone_s1")
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

// A shard's node is another server while a transaction has not come to that shard: what it writes there goes to no node that is none of the
// shard's any more.
func TestATransactionWritesOnNoNodeThatHasGone(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "goneaway")
	mustExec(t, c, "create table rows_ (k int primary key, v text); insert into rows_ select i, 'old' from generate_series(1, 60) i")
	d.adminExec(t, "CREATE GROUP g IN goneaway KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE goneaway.public.rows_ IN GROUP g KEY (k)")
	node := d.cluster.Node("s2-a")
	for _, sql := range []string{
		"alter database goneaway_1 with allow_connections false", "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'goneaway_1'",
		"create database goneaway_9 template goneaway_1", "alter database goneaway_1 with allow_connections true",
	} {
		if err := node.Exec(t.Context(), "postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := node.Exec(context.Background(), "postgres", "drop database goneaway_9 with (force)"); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the shard is used", func() bool { return d.Monitor.View("goneaway", "goneaway_s1").Up() })
	old := connectTo(t, node.DSN("goneaway_1"))
	k0, k1 := queryOne[int](t, d.on(t, "goneaway", 0), "select min(k) from rows_"), queryOne[int](t, old, "select min(k) from rows_")
	mustExec(t, c, "begin")
	mustExec(t, c, fmt.Sprintf("update rows_ set v = 'new' where k = %d", k0))
	d.adminExec(t, "ALTER SHARD goneaway_s1 IN goneaway ALTER NODE goneaway_n1 '"+node.DSN("goneaway_9")+"'")
	eventually(t, "the other is used", func() bool { return d.Monitor.View("goneaway", "goneaway_s1").Up() })
	_, err := c.Exec(t.Context(), fmt.Sprintf("update rows_ set v = 'new' where k = %d", k1))
	wantCode(t, err, "40001")
	mustExec(t, c, "rollback")
	mustExec(t, c, fmt.Sprintf("update rows_ set v = 'new' where k = %d", k1))
	if v := queryOne[string](t, old, fmt.Sprintf("select v from rows_ where k = %d", k1)); v != "old" {
		t.Errorf("the node that has gone has the row %q", v)
	}
	if v := queryOne[string](t, connectTo(t, node.DSN("goneaway_9")), fmt.Sprintf("select v from rows_ where k = %d", k1)); v != "new" {
		t.Errorf("the node that has come has the row %q", v)
	}
}
