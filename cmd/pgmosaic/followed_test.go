package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// heldCopy runs an admin statement that makes a copy of a table in a shard's database, up to where it is about to: home's rows are as its snapshot has them by
// then. release lets it go on; what it ends with comes out of the channel.
func heldCopy(t *testing.T, d *demo, shard *pgx.Conn, table, sql string) (release func() <-chan error) {
	t.Helper()
	hold, err := shard.Begin(t.Context()) // a table of that name, not yet committed: the copy waits for it
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hold.Exec(t.Context(), "create table "+table+" (id int)"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), sql, false)
		done <- err
	}()
	watch := connectTo(t, shard.Config().ConnString())
	eventually(t, "the copy is about to be made", func() bool {
		if len(done) > 0 {
			t.Fatalf("%s ended with %v", sql, <-done)
		}
		return queryOne[bool](t, watch, "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query ~ 'CREATE TABLE')")
	})
	return func() <-chan error {
		_ = hold.Rollback(t.Context()) // its database may be gone
		return done
	}
}

// moving says whether the map says that a table is moving.
func (d *demo) moving(database, table string) bool {
	i := d.Catalog.Current().Databases[database].Tables[shardmap.TableName{Schema: "public", Name: table}]
	return i != nil && i.Moving
}

// rowsOf are the rows of a table as one text.
func rowsOf(t *testing.T, c *pgx.Conn, table string) string {
	t.Helper()
	return queryOne[string](t, c, "select coalesce(string_agg(x::text, E'\n' order by x::text), '') from "+table+" x")
}

// followed are tables whose rows are changed while they move. What is done to them is also done to one PostgreSQL.
var followed = []struct{ name, needs, as, rows, meanwhile string }{
	{
		"included", "", "(id int, note text, val int, primary key (id) include (note))", "select i, case when i % 3 > 0 then 'n' || i end, i from generate_series(1, 60) i",
		"insert into included select i, null, i from generate_series(61, 90) i; update included set val = -val where id % 2 = 0; update included set id = id + 1000 where id % 5 = 0; delete from included where id % 7 = 0",
	},
}

// Rows that clients change while their table moves are on its shards what one PostgreSQL has, whatever the primary key: it includes columns, its type is an
// extension's, a column of it is computed; and whatever the table is called. No client sees an error.
func TestWhatChangesWhileATableMovesIsFollowed(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "followed")
	freshDatabase(t, d.cluster.Node("s1-a"), "followed_one")
	t.Cleanup(func() { dropBehind(d.cluster.Node("s1-a").DSN("followed_one")) })
	one := connectTo(t, d.cluster.Node("s1-a").DSN("followed_one"))
	d.adminExec(t, "CREATE GROUP g IN followed KEY (int) BY HASH")
	for _, x := range followed {
		t.Run(x.name, func(t *testing.T) {
			for _, q := range []*pgx.Conn{c, one} {
				if x.needs != "" {
					mustExec(t, q, "create extension if not exists "+x.needs)
				}
				mustExec(t, q, "create table "+x.name+" "+x.as)
				into := x.name
				if x.name == "computed" {
					into += " (id)"
				}
				mustExec(t, q, "insert into "+into+" "+x.rows)
			}
			how := "IN GROUP g KEY (id)"
			if x.needs != "" {
				how = "AS REFERENCE" // no group has keys of such a type
			}
			release := heldCopy(t, d, d.on(t, "followed", 1), x.name, "DISTRIBUTE TABLE followed.public."+x.name+" "+how)
			ran := make(chan error, 1)
			go func() {
				for sql := range strings.SplitSeq(x.meanwhile, "; ") {
					if _, err := c.Exec(t.Context(), sql); err != nil {
						ran <- fmt.Errorf("%s: %w", sql, err)
						return
					}
				}
				ran <- nil
			}()
			eventually(t, "it is done, or waits for the move", func() bool { return len(ran) > 0 || d.moving("followed", x.name) })
			done := release()
			if err := <-ran; err != nil {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			mustExec(t, one, x.meanwhile, pgx.QueryExecModeSimpleProtocol)
			want := rowsOf(t, one, x.name)
			if got := rowsOf(t, c, x.name); got != want {
				t.Errorf("%s differs from what one PostgreSQL has:\n%s", x.name, diffLines(want+"\n", got+"\n"))
			}
			wantVerified(t, d, "followed.public."+x.name)
			d.adminExec(t, "UNDISTRIBUTE TABLE followed.public."+x.name)
			if got := rowsOf(t, d.on(t, "followed", 0), x.name); got != want {
				t.Errorf("%s is not whole at home again:\n%s", x.name, diffLines(want+"\n", got+"\n"))
			}
		})
	}
}

// So they are where a shard joins that gets a copy of their table.
func TestWhatChangesWhileAShardJoinsIsFollowed(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "joinkeys")
	mustExec(t, c, "create table codes (id int, note text, val int, primary key (id) include (note))")
	mustExec(t, c, "insert into codes select i, null, i from generate_series(1, 20) i")
	d.adminExec(t, "DISTRIBUTE TABLE joinkeys.public.codes AS REFERENCE")
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "joinkeys_3")
	release := heldCopy(t, d, connectTo(t, node.DSN("joinkeys_3")), "codes", "CREATE SHARD joinkeys_s3 IN joinkeys NODE '"+node.DSN("joinkeys_3")+"' NAME joinkeys_n3")
	for _, sql := range []string{"insert into codes values (21, null, 21)", "update codes set val = -val where id % 2 = 0", "delete from codes where id % 3 = 0"} {
		mustExec(t, c, sql)
	}
	if err := <-release(); err != nil {
		t.Fatal(err)
	}
	copies := copiesOf(t, d, "joinkeys", "codes")
	for i, s := range copies {
		if s != copies[0] {
			t.Errorf("shard %d differs from home:\n%s", i, diffLines(copies[0]+"\n", s+"\n"))
		}
	}
}
