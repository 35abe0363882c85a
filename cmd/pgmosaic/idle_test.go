package main

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// A session that keeps a server and is in no transaction holds up neither a change of the placement of keys nor PAUSE. It waits for
// RESUME like others when it wants to go on.
func TestIdleSessionsHoldNothingUp(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "idling")
	for _, sql := range []string{"create table keyed (k int primary key, v int)", "insert into keyed select i, i from generate_series(1, 50) i", "create table listed (k text primary key, v int)", "create table home (a int)"} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN idling KEY (int) BY HASH")
	d.adminExec(t, "CREATE GROUP l IN idling KEY (text) BY LIST (('a', 'b') ON idling_s0, ('c') ON idling_s1)")
	d.adminExec(t, "DISTRIBUTE TABLE idling.public.keyed IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE idling.public.listed IN GROUP l KEY (k)")
	dsn := dsnFor("app", "app", d.Server.Addr(), "idling")
	idle := connectTo(t, dsn)
	mustExec(t, idle, "create temporary table mine (a int)")
	stop, ended := make(chan struct{}), make(chan error, 1)
	writer := connectTo(t, dsn)
	go func() { // who writes these tables sees nothing of it
		for n := 0; ; n++ {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			_, err := writer.Exec(t.Context(), "insert into keyed values ($1, $2) on conflict (k) do update set v = excluded.v", n%50, n)
			if err == nil {
				_, err = writer.Exec(t.Context(), "insert into listed values ($1, $2) on conflict (k) do update set v = excluded.v", string(rune('a'+n%3)), n)
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	for range 3 {
		d.adminExec(t, "PIN KEY (1000) OF idling.g ON idling_s1")
		d.adminExec(t, "UNPIN KEY (1000) OF idling.g")
	}
	d.adminExec(t, "ALTER GROUP l IN idling ADD VALUES ('d') ON idling_s2")
	close(stop)
	if err := <-ended; err != nil {
		t.Errorf("beside changes of placement: %v", err)
	}
	mustExec(t, c, "insert into listed values ('d', 1)")
	d.adminFails(t, "PIN KEY (7) OF idling.g ON "+other(t, d, 7), "55006", "holds rows with this key")
	if left := d.Catalog.Current().Document.Attempts; len(left) != 0 {
		t.Errorf("the map has %v", left)
	}
	mustExec(t, c, "update keyed set v = 1 where k = 7")
	waits := func(pid uint32) bool {
		for _, x := range d.Clients() {
			if x.ID == pid && !x.Waiting.IsZero() {
				return true
			}
		}
		return false
	}
	for _, what := range []string{"idling", "idling SHARD idling_s0"} { // home's, which has the temporary tables
		first := connectTo(t, dsn)
		d.adminExec(t, "PAUSE "+what)
		done := make(chan error, 2)
		for _, x := range []struct {
			c   *pgx.Conn
			sql string
		}{{idle, "insert into mine values (1)"}, {first, "insert into home values (1)"}} {
			go func() {
				_, err := x.c.Exec(t.Context(), x.sql)
				done <- err
			}()
			eventually(t, "a session waits: "+x.sql, func() bool {
				if len(done) > 0 {
					t.Fatalf("%s ran beside PAUSE", x.sql)
				}
				return waits(x.c.PgConn().PID())
			})
		}
		d.adminExec(t, "RESUME "+what)
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		// A transaction is let end.
		mustExec(t, idle, "begin")
		mustExec(t, idle, "insert into mine values (2)")
		paused := make(chan error, 1)
		go func() {
			_, err := d.Admin.Exec(t.Context(), "PAUSE "+what, false)
			paused <- err
		}()
		eventually(t, "new work is held back", func() bool { return d.Pools.Paused("idling", "idling_s0") })
		mustExec(t, idle, "insert into mine values (3)")
		if len(paused) > 0 {
			t.Errorf("PAUSE %s did not wait for a transaction", what)
		}
		mustExec(t, idle, "commit")
		if err := <-paused; err != nil {
			t.Errorf("PAUSE %s: %v", what, err)
		}
		d.adminExec(t, "RESUME "+what)
	}
	if n := queryOne[int](t, idle, "select count(*) from mine"); n != 6 {
		t.Errorf("%d rows in the temporary table", n)
	}
	// What a crash has left in the middle of a change is undone by what the map says.
	home := d.on(t, "idling", 0)
	mustExec(t, home, "alter table keyed drop constraint pgmosaic_slot")
	if _, err := d.Catalog.Change(t.Context(), false, func(tx *shardmap.Tx) error {
		return tx.PutAttempt(shardmap.Attempt{ID: "5eed", Database: "idling", Statement: "PIN KEY g", Group: "g", Step: shardmap.Placing})
	}); err != nil {
		t.Fatal(err)
	}
	in := connectTo(t, dsn)
	mustExec(t, in, "begin; select from pg_class limit 0", pgx.QueryExecModeSimpleProtocol)
	_, err := in.Exec(t.Context(), "select * from keyed where k = 1")
	wantRule(t, err, "moving", "55006")
	if err := d.Mover.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := queryOne[int](t, home, "select count(*) from pg_constraint where conname = 'pgmosaic_slot' and conrelid = 'keyed'::regclass"); n != 1 {
		t.Error("home's constraint is missing")
	}
	mustExec(t, c, "update keyed set v = 2 where k = 7")
}

// other is a shard that a key is not on.
func other(t *testing.T, d *demo, key int) string {
	t.Helper()
	here := fmt.Sprint(d.adminExec(t, fmt.Sprintf("LOCATE KEY (%d) OF idling.g", key))[0][4])
	for _, s := range d.Catalog.Current().Databases["idling"].Shards {
		if s.Name != here {
			return s.Name
		}
	}
	t.Fatal("there is one shard")
	return ""
}
