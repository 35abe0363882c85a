package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/config"
)

// verified is what VERIFY TABLE says, a line for each difference.
func verified(t *testing.T, d *demo, table string) (out []string) {
	t.Helper()
	for _, r := range d.adminExec(t, "VERIFY TABLE "+table) {
		out = append(out, fmt.Sprintf("%v: %v: %v", r...))
	}
	return out
}

func wantVerified(t *testing.T, d *demo, table string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := verified(t, d, table); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("VERIFY TABLE %s:\n%q\nwant\n%q", table, got, want)
	}
}

// VERIFY TABLE finds every kind of difference between copies, says what it is, and finds none where others write.
func TestVerifyReferenceTables(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "copies")
	mustExec(t, c, `create table "odd.ref" (id int, "k.2" text, "v.1" text, at timestamptz default now(), primary key (id, "k.2"))`)
	mustExec(t, c, `insert into "odd.ref" select i, 'k' || i, 'v' from generate_series(1, 3000) i`)
	mustExec(t, c, "create table bare (a int, b text)")
	mustExec(t, c, "insert into bare select i / 2, 'b' from generate_series(1, 20) i")
	d.adminExec(t, `DISTRIBUTE TABLE copies.public."odd.ref" AS REFERENCE`)
	d.adminExec(t, "DISTRIBUTE TABLE copies.public.bare AS REFERENCE")
	wantVerified(t, d, `copies.public."odd.ref"`)
	wantVerified(t, d, "copies.bare")

	// Many write, with locks, conflicts and rollbacks; what differs for a moment is no difference.
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	turns := make(chan struct{}, 400)
	for n := range 4 {
		w := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "copies"))
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-turns:
				case <-ctx.Done():
					return
				}
				for _, sql := range []string{
					fmt.Sprintf(`update "odd.ref" set "v.1" = 'w%d-%d' where id %% 100 = %d`, n, i, i%100), fmt.Sprintf(`insert into "odd.ref" values (%d, 'new', 'x')`, 10000+n*100000+i),
					fmt.Sprintf(`delete from "odd.ref" where id = %d`, 10000+n*100000+i-5), fmt.Sprintf("insert into bare values (%d, 'new')", i),
				} {
					if _, err := w.Exec(context.Background(), sql); err != nil {
						t.Errorf("%s: %v", sql, err)
					}
				}
			}
		})
	}
	beside := 0
	for range 5 {
		for _, table := range []string{`copies.public."odd.ref"`, "copies.public.bare"} {
			for range 50 {
				turns <- struct{}{}
			}
			wantVerified(t, d, table)
			if len(turns) > 0 {
				beside++
			}
		}
	}
	stop()
	wg.Wait()
	if beside == 0 {
		t.Error("nobody wrote beside a whole comparison")
	}

	one, two := d.past(t, "copies", 1), d.past(t, "copies", 2)
	mustExec(t, one, `delete from "odd.ref" where id = 7`)
	mustExec(t, one, `update "odd.ref" set "v.1" = null, at = at + interval '1 second' where id = 8`)
	mustExec(t, two, `insert into "odd.ref" values (-1, 'it''s, here', 'x')`)
	mustExec(t, two, `delete from "odd.ref" where id = 7`)
	wantVerified(t, d, `copies.public."odd.ref"`, "copies_s2: -1, it's, here: home has no such row", "copies_s1: 7, k7: missing", "copies_s2: 7, k7: missing", `copies_s1: 8, k8: differs from home's row in "v.1", at`)
	mustExec(t, one, "insert into bare values (5, 'b'), (77, 'only here')")
	wantVerified(t, d, "copies.public.bare", "copies_s1: (5,b): there 3 times, on home 2 times", "copies_s1: (77,\"only here\"): home has no such row")
	mustExec(t, two, `truncate "odd.ref"`)
	if got := verified(t, d, `copies.public."odd.ref"`); len(got) != 1001 || got[1000] != ": : and more: the first 1000 are told of" {
		t.Errorf("%d differences, the last: %s", len(got), got[len(got)-1])
	}
	d.adminFails(t, "VERIFY TABLE copies.public.nothing", "42P01", "is not distributed")
	d.adminFails(t, "VERIFY TABLE nowhere.public.bare", "3D000", "does not exist")
	d.adminFails(t, "VERIFY bare", "42601", "TABLE or SCHEMA was expected")
	if got := fmt.Sprint(d.adminExec(t, "SHOW JOBS")); !strings.Contains(got, `VERIFY TABLE public."odd.ref" done`) {
		t.Errorf("SHOW JOBS: %s", got)
	}
}

// Of a sharded table it finds the rows that are on the wrong shard, and primary keys that two shards have.
func TestVerifyShardedTables(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "placed")
	mustExec(t, c, "create table rows_ (k int, n int, v text, primary key (k, n))")
	mustExec(t, c, "insert into rows_ select i, i % 3, 'v' from generate_series(1, 2000) i")
	mustExec(t, c, "create table loose (id int primary key, k int not null)")
	mustExec(t, c, "insert into loose select i, i from generate_series(1, 2000) i")
	mustExec(t, c, "create schema tenant; create table tenant.things (id int primary key)")
	mustExec(t, c, "insert into tenant.things values (1), (2)")
	d.adminExec(t, "CREATE GROUP g IN placed KEY (int) BY LIST ((1, 2, 3) ON placed_s1, (4, 5, 6) ON placed_s2, DEFAULT ON placed_s0)")
	d.adminExec(t, "DISTRIBUTE TABLE placed.public.rows_ IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE placed.public.loose IN GROUP g KEY (k) ALLOW LOCAL UNIQUE")
	d.adminExec(t, "DISTRIBUTE SCHEMA placed.tenant ON placed_s1")
	for _, table := range []string{"placed.public.rows_", "placed.public.loose", "placed.tenant.things"} {
		wantVerified(t, d, table)
	}
	home, one := d.on(t, "placed", 0), d.on(t, "placed", 1)
	mustExec(t, one, "alter table rows_ drop constraint pgmosaic_slot")
	mustExec(t, one, "insert into rows_ values (5, 2, 'twin'), (100000, 1, 'lost')")
	wantVerified(t, d, "placed.public.rows_", "placed_s1: : it has no constraint pgmosaic_slot", "placed_s1: 5, 2: belongs to shard placed_s2, and shard placed_s2 has one with the same primary key", "placed_s1: 100000, 1: belongs to shard placed_s0")
	mustExec(t, one, "insert into loose values (1500, 1)")
	mustExec(t, home, "insert into loose values (3, 777)")
	wantVerified(t, d, "placed.public.loose", "placed_s1: 3: shard placed_s0 has a row with the same primary key", "placed_s1: 1500: shard placed_s0 has a row with the same primary key")
	mustExec(t, home, "insert into tenant.things values (9)")
	wantVerified(t, d, "placed.tenant.things", "placed_s0: 9: belongs to shard placed_s1")
	for _, sql := range []string{"delete from rows_ where v in ('twin', 'lost')", "delete from loose where id = 1500 and k = 1"} { // else they cannot go back to home
		mustExec(t, one, sql)
	}
	mustExec(t, home, "delete from loose where id = 3; delete from tenant.things")
}

// Rows are found by their keys whatever the keys' types: padded ones, one that includes a column, and those of extensions, whose equality our search path does
// not find.
func TestVerifyFindsRowsByKeysOfAllTypes(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "keytypes")
	mustExec(t, c, "create extension citext; create extension ltree", pgx.QueryExecModeSimpleProtocol)
	d.adminExec(t, "CREATE GROUP g IN keytypes KEY (char(5)) BY LIST (('ab') ON keytypes_s1, DEFAULT ON keytypes_s2)")
	for i, x := range []struct{ key, one, other string }{
		{"id char(5) primary key", "ab", "cd"}, {"id bit(4) primary key", "1010", "0101"}, {"id int, note text, primary key (id) include (note)", "1", "2"}, {"id ltree primary key", "a.b", "c.d"}, {"id citext primary key", "Ab", "cd"},
	} {
		name := fmt.Sprintf("t_%d", i)
		mustExec(t, c, "create table "+name+" ("+x.key+")")
		mustExec(t, c, "alter table "+name+" add column v int")
		mustExec(t, c, fmt.Sprintf("insert into %s (id, v) values ('%s', 1), ('%s', 2)", name, x.one, x.other))
		d.adminExec(t, "DISTRIBUTE TABLE keytypes.public."+name+" AS REFERENCE")
		wantVerified(t, d, "keytypes.public."+name)
		there := d.past(t, "keytypes", 1)
		mustExec(t, there, fmt.Sprintf("update %s set v = 7 where id::text = '%s'", name, x.one))
		mustExec(t, there, fmt.Sprintf("delete from %s where id::text = '%s'", name, x.other))
		wantVerified(t, d, "keytypes.public."+name, "keytypes_s1: "+x.one+": differs from home's row in v", "keytypes_s1: "+x.other+": missing")
	}
	mustExec(t, c, "create table keyed (id char(5) primary key, v int)")
	mustExec(t, c, "insert into keyed values ('ab', 1), ('cd', 2)")
	d.adminExec(t, "DISTRIBUTE TABLE keytypes.public.keyed IN GROUP g KEY (id)")
	mustExec(t, d.on(t, "keytypes", 1), "alter table keyed drop constraint pgmosaic_slot; insert into keyed values ('cd', 3)")
	wantVerified(t, d, "keytypes.public.keyed", "keytypes_s1: : it has no constraint pgmosaic_slot", "keytypes_s1: cd: belongs to shard keytypes_s2, and shard keytypes_s2 has one with the same primary key")
}

// The copies are compared in the background: what differs is an event and a number, until it is repaired.
func TestReferenceTablesAreWatched(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "watched")
	mustExec(t, c, "create table codes (code text primary key, name text)")
	mustExec(t, c, "insert into codes values ('a', 'A'), ('b', 'B')")
	d.adminExec(t, "DISTRIBUTE TABLE watched.public.codes AS REFERENCE")
	cfg := crashConfig(t, mapOf(d, "watched"))
	cfg.Verify = config.Duration(100 * time.Millisecond)
	a := startApp(t, cfg)
	metric := func() string {
		for _, c := range a.Mover.Checks() {
			if c.Database == "watched" && c.Table.Name == "codes" {
				return fmt.Sprint(c.Differs)
			}
		}
		return ""
	}
	event := func() string {
		res, err := a.Admin.Exec(t.Context(), "SHOW EVENTS", true)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(res.Rows)
	}
	eventually(t, "the copies are compared", func() bool { return metric() == "0" })
	mustExec(t, d.past(t, "watched", 1), "update codes set name = 'wrong' where code = 'b'")
	eventually(t, "what differs is counted", func() bool { return metric() == "1" })
	if got := event(); !strings.Contains(got, "the copies of reference table public.codes differ in 1 rows row (b): differs from home's row in name; VERIFY TABLE lists them") {
		t.Errorf("SHOW EVENTS: %s", got)
	}
	mustExec(t, connectTo(t, dsnFor("app", "app", a.Server.Addr(), "watched")), "update codes set name = 'B' where code = 'b'")
	eventually(t, "it is repaired", func() bool { return metric() == "0" })
	if got := event(); !strings.Contains(got, "public.codes are equal again") {
		t.Errorf("SHOW EVENTS: %s", got)
	}
}
