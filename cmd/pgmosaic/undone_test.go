package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A CREATE SHARD that fails at its last step takes away what it has made in the new shard's database, and nothing else; of roles, which
// are a server's and others may count on by now, it says that they are left.
func TestCreateShardThatFailsLateLeavesNothing(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "undone")
	home := d.on(t, "undone", 0)
	for _, sql := range []string{
		"create table codes (v int)", "create function plain() returns int language sql as 'select 1'", "create function shared() returns int language sql as 'select 2'", "create type mood as enum ('a', 'b')", "create domain small as int check (value < plain())",
		"create function of_mood(mood) returns small language sql as 'select 0::small'", "create aggregate total(int) (sfunc = int4pl, stype = int, initcond = '0')", "create type span as range (subtype = int)", "create function needed() returns int language sql as 'select 3'",
	} {
		mustExec(t, c, sql)
	}
	for _, sql := range []string{
		"create operator <+> (function = int4pl, leftarg = int, rightarg = int)", "create cast (mood as small) with function of_mood(mood)", "create collation plain_c from \"C\"", "create text search dictionary words (template = simple)",
		"create operator class backwards for type int using btree as operator 1 >, operator 2 >=, operator 3 =, operator 4 <=, operator 5 <, function 1 btint4cmp(int, int)",
	} {
		mustExec(t, home, sql)
	}
	d.adminExec(t, "DISTRIBUTE TABLE undone.public.codes AS REFERENCE")
	mustExec(t, home, "create role undone_clerk; grant execute on function needed() to undone_clerk")
	a, err := stranger(t, mapOf(d, "undone"))
	if err != nil {
		t.Fatal(err)
	}
	a.Mover.PauseTimeout = 50 * time.Millisecond
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "undone_3")
	there := connectTo(t, node.DSN("undone_3"))
	const shared = "create function shared() returns int language sql as 'select 2'; alter function shared() owner to app"
	mustExec(t, there, shared) // which the statement does not make
	const has = `select coalesce(string_agg(x, ', ' order by x), '') from (
		select oid::regprocedure::text from pg_proc where oid >= 16384 and pronamespace = 'public'::regnamespace union all select oid::regtype::text from pg_type where typnamespace = 'public'::regnamespace
		union all select oprname::text from pg_operator where oid >= 16384 union all select 'cast' from pg_cast where oid >= 16384 union all select collname::text from pg_collation where oid >= 16384
		union all select dictname::text from pg_ts_dict where oid >= 16384 union all select opcname::text from pg_opclass where oid >= 16384 union all select relname::text from pg_class where relnamespace = 'public'::regnamespace) o (x)`
	before := queryOne[string](t, there, has)
	create := fmt.Sprintf("CREATE SHARD undone_s3 IN undone NODE '%s' NAME undone_n3", node.DSN("undone_3"))
	fails := func() {
		t.Helper()
		hold, err := home.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer hold.Rollback(t.Context())
		if _, err := hold.Exec(t.Context(), "lock table codes in row exclusive mode"); err != nil {
			t.Fatal(err)
		}
		_, err = a.Admin.Exec(t.Context(), create, false)
		if err == nil || !strings.Contains(err.Error(), "holds a lock") || !strings.Contains(err.Error(), "the roles undone_clerk stay on its server") {
			t.Fatalf("it ended with %v", err)
		}
	}
	fails()
	if got := queryOne[string](t, there, has); got != before {
		t.Errorf("%s is left, where %s was", got, before)
	}
	mustExec(t, c, "create or replace function plain() returns int language sql as 'select 11'")
	if _, err := a.Admin.Exec(t.Context(), create, false); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if n := queryOne[int](t, connectTo(t, there.Config().ConnString()), "select plain()", pgx.QueryExecModeSimpleProtocol); n != 11 {
		t.Errorf("the function gives %d", n)
	}
	if n := queryOne[int](t, there, "select count(*) from pgmosaic.brought"); n != 0 {
		t.Errorf("%d notes are left", n)
	}
	for _, x := range []*pgx.Conn{home, there} {
		mustExec(t, x, "drop owned by undone_clerk; drop role undone_clerk")
	}
}
