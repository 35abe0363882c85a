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
