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
	{
		"cited", "citext", "(id citext primary key, val int)", "select 'k' || i, i from generate_series(1, 60) i",
		"update cited set id = 'K' || substr(id, 2) where val % 2 = 0; update cited set val = -val where id = 'K3'; delete from cited where id = 'K5'",
	},
	{
		"treed", "ltree", "(id ltree primary key, val int)", "select ('a.b' || i)::ltree, i from generate_series(1, 60) i",
		"update treed set val = -val where id <@ 'a.b7'; update treed set id = id || 'c' where val = 8; delete from treed where id = 'a.b9'; insert into treed values ('z', 99)",
	},
	{
		"computed", "", "(id int, twice int generated always as (id * 2) stored, val int, primary key (id, twice))", "select i from generate_series(1, 60) i",
		"insert into computed (id) values (61), (62), (63); update computed set id = id + 1000 where id % 2 = 0; delete from computed where id % 7 = 0",
	},
	{
		"k", "", "(id int primary key, val int)", "select i, i from generate_series(1, 60) i",
		"insert into k select i, i from generate_series(61, 90) i; update k set val = -val where id % 2 = 0; delete from k where id % 7 = 0",
	},
	{
		"pgmosaic_keys", "", "(id int primary key, val int)", "select i, i from generate_series(1, 60) i",
		"insert into pgmosaic_keys values (61, 61); update pgmosaic_keys set val = -val where id % 2 = 0; delete from pgmosaic_keys where id % 7 = 0",
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

// What writes all rows of a table anew, and leaves its columns what they were, fires no trigger: a table for which that is done while it moves stays on home.
func TestATableThatIsWrittenAnewWhileItMovesStaysHome(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "rewritten")
	d.adminExec(t, "CREATE GROUP g IN rewritten KEY (int) BY HASH")
	for i, alter := range []string{"alter v type int using v * 2", "alter w type text collate \"C\""} {
		table := fmt.Sprintf("busy_%d", i)
		mustExec(t, c, "create table "+table+" (id int primary key, v int, w text)")
		mustExec(t, c, "insert into "+table+" select i, i, 'w' || i from generate_series(1, 300) i")
		release := heldCopy(t, d, d.on(t, "rewritten", 1), table, "DISTRIBUTE TABLE rewritten.public."+table+" IN GROUP g KEY (id)")
		mustExec(t, c, "update "+table+" set v = v + 1 where id <= 100") // which is noted
		home, ran := d.on(t, "rewritten", 0), make(chan error, 1)
		mustExec(t, home, "begin")
		go func() {
			_, err := home.Exec(t.Context(), "alter table "+table+" "+alter)
			ran <- err
		}()
		watch := d.on(t, "rewritten", 0)
		waits := func(mode string) func() bool {
			return func() bool {
				return queryOne[bool](t, watch, "select exists (select from pg_locks where relation = $1::text::regclass and mode = $2 and not granted)", table, mode)
			}
		}
		eventually(t, "ALTER TABLE waits for the snapshot", waits("AccessExclusiveLock"))
		done := release()
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
		eventually(t, "the move waits for ALTER TABLE, or has ended", func() bool { return len(done) > 0 || waits("ShareUpdateExclusiveLock")() })
		mustExec(t, home, "commit")
		if err := <-done; err == nil || !strings.Contains(err.Error(), "was altered while it moved") {
			t.Errorf("%s: the move ended with %v", alter, err)
		}
		want := []string{"300 90500", "300 45250"}[i]
		if got := queryOne[string](t, c, "select count(*) || ' ' || sum(v) from "+table); got != want {
			t.Errorf("%s: the table holds %s, want %s", alter, got, want)
		}
		d.adminExec(t, "DISTRIBUTE TABLE rewritten.public."+table+" IN GROUP g KEY (id)")
		if got := queryOne[string](t, c, "select count(*) || ' ' || sum(v) from "+table); got != want {
			t.Errorf("%s: distributed, the table holds %s, want %s", alter, got, want)
		}
	}
}

// A shard that joins while a reference table is written anew gets no copy from a snapshot that cannot see its rows.
func TestAShardJoinsBesideATableThatIsWrittenAnew(t *testing.T) {
	t.Parallel()
	d := shop(t)
	d.adminExec(t, "CREATE DATABASE anew")
	t.Cleanup(func() { d.forget(t, "anew") })
	shard := func(i int) string {
		node := d.cluster.Node([]string{"s1-a", "s2-a"}[i])
		return fmt.Sprintf("CREATE SHARD anew_s%d IN anew NODE '%s' NAME anew_n%[1]d", i, node.DSN(fmt.Sprintf("anew_%d", i)))
	}
	for i := range 2 {
		freshDatabase(t, d.cluster.Node([]string{"s1-a", "s2-a"}[i]), fmt.Sprintf("anew_%d", i))
	}
	d.adminExec(t, shard(0))
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "anew"))
	mustExec(t, c, "create table codes (id int primary key, v int)")
	mustExec(t, c, "insert into codes select i, i from generate_series(1, 50) i")
	mustExec(t, c, "create table counted (k int primary key, n serial)")
	d.adminExec(t, "CREATE GROUP g IN anew KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE anew.public.codes AS REFERENCE")
	d.adminExec(t, "DISTRIBUTE TABLE anew.public.counted IN GROUP g KEY (k)")
	sequence, home, watch := d.on(t, "anew", 0), d.on(t, "anew", 0), d.on(t, "anew", 0)
	mustExec(t, sequence, "begin; alter sequence counted_n_seq cache 1") // for which the statement waits between its triggers and its snapshot
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), shard(1), false)
		done <- err
	}()
	waits := func(relation string) func() bool {
		return func() bool {
			return len(done) > 0 || queryOne[bool](t, watch, "select exists (select from pg_locks where relation = $1::text::regclass and not granted)", relation)
		}
	}
	eventually(t, "the statement waits for the sequence", waits("counted_n_seq"))
	mustExec(t, home, "begin; alter table codes alter v type int using v * 2")
	mustExec(t, sequence, "commit")
	eventually(t, "the statement waits for ALTER TABLE", waits("codes"))
	mustExec(t, home, "commit")
	if err := <-done; err == nil || !strings.Contains(err.Error(), "was altered while it moved") {
		t.Errorf("CREATE SHARD ended with %v", err)
	}
	if len(d.Catalog.Current().Databases["anew"].Shards) == 1 {
		d.adminExec(t, shard(1))
	}
	for i, s := range copiesOf(t, d, "anew", "codes") {
		if n := strings.Count(s, "\n") + 1; n != 50 || !strings.Contains(s, "(7,14)") {
			t.Errorf("shard %d holds %d rows: %.60s", i, n, s)
		}
	}
}

// Which shards keys have is asked again where the map says that a table moves: its rows have gone where they had been.
func TestAGroupThatIsMadeAnewWhileATableMoves(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "regrouped")
	mustExec(t, c, "create table busy (id int primary key, v int)")
	mustExec(t, c, "insert into busy select i, i from generate_series(1, 100) i")
	d.adminExec(t, "CREATE GROUP g IN regrouped KEY (int) BY LIST ((1) ON regrouped_s1, DEFAULT ON regrouped_s2)")
	release := heldCopy(t, d, d.on(t, "regrouped", 1), "busy", "DISTRIBUTE TABLE regrouped.public.busy IN GROUP g KEY (id)")
	if err := d.Catalog.Retry(t.Context(), func(tx *shardmap.Tx) error { // as another process
		if err := tx.DropGroup("regrouped", "g"); err != nil {
			return err
		}
		if err := tx.PutGroup(shardmap.Group{Database: "regrouped", Name: "g", Scheme: shardmap.ByList, Keys: []string{"int"}}); err != nil {
			return err
		}
		return tx.SetLists("regrouped", "g", []shardmap.List{{Values: []string{"1"}, Shard: "regrouped_s2"}, {Default: true, Shard: "regrouped_s1"}})
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-release(); err == nil || !strings.Contains(err.Error(), "the shard map was changed meanwhile") {
		t.Errorf("the move ended with %v", err)
	}
	if n := queryOne[int](t, c, "select count(*) from busy"); n != 100 {
		t.Errorf("%d rows", n)
	}
	d.adminExec(t, "DISTRIBUTE TABLE regrouped.public.busy IN GROUP g KEY (id)")
	if n := queryOne[int](t, c, "select count(*) from busy"); n != 100 {
		t.Errorf("distributed, %d rows", n)
	}
	wantVerified(t, d, "regrouped.public.busy")
}
