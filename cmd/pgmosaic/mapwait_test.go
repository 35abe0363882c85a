package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// pausedAt holds the work of a shard back, has a client send something and wait, changes the map, and lets the work go on.
func (d *demo) pausedAt(t *testing.T, database, what string, r *raw) {
	t.Helper()
	d.adminExec(t, "PAUSE "+what)
	d.waits(t, r)
	d.adminExec(t, fmt.Sprintf("CREATE GROUP g%d IN %s KEY (int) BY HASH", d.Catalog.Current().Version, database))
	d.adminExec(t, "RESUME "+what)
}

// waits sends what a client has gathered, and returns once its session waits for a server.
func (d *demo) waits(t *testing.T, r *raw) {
	t.Helper()
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client waits", func() bool {
		for _, c := range d.Clients() {
			if c.ID == r.pid && !c.Waiting.IsZero() {
				return true
			}
		}
		return false
	})
}

// A statement that waits amid its work while the map changes begins anew only if nothing of its answer has gone to the client, and of its work
// nothing is done: else rows came twice, and an index was made twice.
func TestAnAnswerThatHasBegunDoesNotBeginAnew(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "begun")
	d.adminExec(t, "CREATE GROUP g IN begun KEY (int) BY HASH")
	for _, table := range []string{"thin", "wide"} {
		mustExec(t, c, "create table "+table+" (id int primary key, v text)")
		d.adminExec(t, "DISTRIBUTE TABLE begun.public."+table+" IN GROUP g KEY (id)")
	}
	mustExec(t, c, "insert into thin select i, 'v' from generate_series(1, 30) i")
	mustExec(t, c, "insert into wide select i, repeat('v', 20000) from generate_series(1, 30) i")
	r := rawTo(t, dsnFor("app", "app", d.Server.Addr(), "begun"))
	r.SendQuery("copy thin to stdout")
	d.pausedAt(t, "begun", "begun SHARD begun_s1", r)
	r.want('Z', "H"+strings.Repeat("d", 30)+"cC<COPY 30>ZI")

	r.SendQuery("copy wide to stdout")
	d.pausedAt(t, "begun", "begun SHARD begun_s1", r)
	if got := r.until('Z'); strings.Count(got, "H") != 1 || strings.Count(got, "d") >= 30 || !strings.HasSuffix(got, "E[40001]ZI") {
		t.Errorf("a copy of which rows have gone: %s", got)
	}
	r.SendQuery("prepare p as select count(*) from thin")
	r.want('Z', "C<PREPARE>ZI")
	r.SendQuery("execute p")
	d.pausedAt(t, "begun", "begun", r)
	r.want('Z', "TD(30)C<SELECT 1>ZI")

	r.SendQuery("select id from thin for update")
	d.pausedAt(t, "begun", "begun", r)
	if got := r.until('Z'); strings.Count(got, "T") != 2 || strings.Count(got, "D(") != 30 || !strings.HasSuffix(got, "C<SELECT 30>ZI") { // one of the tag
		t.Errorf("rows that are locked: %s", got)
	}
	r.SendQuery("create index concurrently on thin (v)")
	d.pausedAt(t, "begun", "begun SHARD begun_s1", r)
	r.want('Z', "E[40001]ZI")
	if n := queryOne[int](t, d.on(t, "begun", 0), "select count(*) from pg_index where indrelid = 'thin'::regclass"); n != 2 {
		t.Errorf("home has %d indexes on the table", n)
	}
}

// What waits while the map changes, and has nothing that was found by the map before, is planned by the new one: a Parse that another message is
// behind, and a Describe.
func TestWhatWaitsIsPlannedByTheNewMap(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "waited")
	d.adminExec(t, "CREATE GROUP g IN waited KEY (int) BY HASH")
	mustExec(t, c, "create table h (id int primary key, v int)")
	d.adminExec(t, "DISTRIBUTE TABLE waited.public.h IN GROUP g KEY (id)")
	mustExec(t, c, "insert into h select i, i from generate_series(1, 30) i")
	r := rawTo(t, dsnFor("app", "app", d.Server.Addr(), "waited"))
	r.SendParse("b", "select v from h where id = 7", nil)
	r.SendSync()
	r.want('Z', "1ZI")
	r.SendParse("a", "select count(*) from h", nil)
	r.SendBindParts("b", nil, nil, nil)
	r.SendExecute()
	r.SendSync()
	d.pausedAt(t, "waited", "waited", r)
	r.want('Z', "12D(7)C<SELECT 1>ZI")
	r.SendBindParts("a", nil, nil, nil)
	r.SendExecute()
	r.SendSync()
	r.want('Z', "2D(30)C<SELECT 1>ZI")
	r.SendParse("d", "select v from h", nil)
	r.SendFrame('D', []byte("Sd\x00"))
	r.SendSync()
	d.pausedAt(t, "waited", "waited", r)
	r.want('Z', "1tTZI")
	r.SendParse("d", "select count(v) from h", nil) // the name is taken, which is said when a server has judged it
	r.SendSync()
	d.pausedAt(t, "waited", "waited", r)
	r.want('Z', "E[42P05]ZI")
	r.SendQuery("set work_mem = '5MB'; select count(*) from h; select v from h where id = 7")
	d.pausedAt(t, "waited", "waited", r)
	r.want('Z', "C<SET>TD(30)C<SELECT 1>TD(7)C<SELECT 1>ZI")
	r.SendQuery("select v from h where id = 7; select count(*) from h")
	d.pausedAt(t, "waited", "waited", r)
	r.want('Z', "TD(7)C<SELECT 1>TD(30)C<SELECT 1>ZI")
	r.call(absInt4, "-1")
	d.pausedAt(t, "waited", "waited", r)
	r.want('Z', "VZI")
}

// Nobody who changes the map waits for a client that waits itself, for the end of a pause, or that has only begun a transaction.
func TestNobodyWaitsForWhoUsesNoMap(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "unused")
	d.adminExec(t, "CREATE GROUP g IN unused KEY (int) BY LIST ((1000) ON unused_s0, DEFAULT ON unused_s1)")
	mustExec(t, c, "create table h (id int primary key, v int)")
	d.adminExec(t, "DISTRIBUTE TABLE unused.public.h IN GROUP g KEY (id)")
	mustExec(t, c, "insert into h values (1000, 1), (2000, 2)")
	r := rawTo(t, dsnFor("app", "app", d.Server.Addr(), "unused"))
	for i, sql := range []string{"select v from h where id = 2000", "select count(*) from h", "update h set v = v where id = 2000"} {
		d.adminExec(t, "PAUSE unused")
		r.SendQuery(sql)
		d.waits(t, r)
		if _, err := d.Admin.Exec(t.Context(), fmt.Sprintf("PIN KEY (%d) OF unused.g ON unused_s2", 3000+i), false); err != nil {
			t.Errorf("%s waits: %v", sql, err)
		}
		d.adminExec(t, "RESUME unused")
		r.want('Z', []string{"TD(2)C<SELECT 1>ZI", "TD(2)C<SELECT 1>ZI", "C<UPDATE 1>ZI"}[i])
	}
	r.SendParse("", "begin", nil)
	r.SendBindParts("", nil, nil, nil)
	r.SendExecute()
	r.SendSync()
	r.want('Z', "12C<BEGIN>ZT")
	if _, err := d.Admin.Exec(t.Context(), "PIN KEY (4000) OF unused.g ON unused_s2", false); err != nil {
		t.Errorf("a transaction that has only begun: %v", err)
	}
	r.SendQuery("select v from h where id = 2000")
	r.want('Z', "TD(2)C<SELECT 1>ZT")
	r.SendQuery("commit")
	r.want('Z', "C<COMMIT>ZI")
}

// A server that a session keeps is known by its shard, whichever number that has in the map: shards that are dropped give theirs to others.
func TestAKeptServerIsItsShardsInTheNextMap(t *testing.T) {
	t.Parallel()
	d, admin := schemesWorld(t, "repinned")
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "repinned"))
	lock := func(c *pgx.Conn, shard string) {
		t.Helper()
		for _, sql := range []string{"set pgmosaic.shard = '" + shard + "'", "select pg_advisory_lock(7)", "reset pgmosaic.shard"} {
			mustExec(t, c, sql, pgx.QueryExecModeSimpleProtocol)
		}
	}
	lock(c, "repinned_s2")
	gone := rawTo(t, dsnFor("app", "app", d.Server.Addr(), "repinned"))
	for _, sql := range []string{"set pgmosaic.shard = 'repinned_s1'", "select pg_advisory_lock(7)", "reset pgmosaic.shard"} {
		gone.SendQuery(sql)
		gone.until('Z')
	}
	d.adminExec(t, "DROP SHARD repinned_s1 IN repinned")
	freshDatabase(t, d.cluster.Node("s2-a"), "repinned_3")
	d.adminExec(t, "CREATE SHARD repinned_s3 IN repinned NODE '"+d.cluster.Node("s2-a").DSN("repinned_3")+"' NAME repinned_n3")
	d.adminExec(t, "CREATE GROUP g IN repinned KEY (int) BY LIST ((1) ON repinned_s0, (2) ON repinned_s2, DEFAULT ON repinned_s3)")
	mustExec(t, admin, "create table u (id int primary key, v int)")
	d.adminExec(t, "DISTRIBUTE TABLE repinned.public.u IN GROUP g KEY (id)")
	mustExec(t, admin, "insert into u values (1, 1), (2, 2), (3, 3)")
	for id := 1; id <= 3; id++ {
		if n := queryOne[int](t, c, fmt.Sprintf("select count(*) from u where id = %d", id)); n != 1 {
			t.Errorf("row %d is there %d times", id, n)
		}
		mustExec(t, c, fmt.Sprintf("update u set v = v where id = %d", id))
	}
	mustExec(t, c, "set pgmosaic.shard = 'repinned_s2'", pgx.QueryExecModeSimpleProtocol)
	if !queryOne[bool](t, c, "select pg_advisory_unlock(7)") {
		t.Error("its lock is not there any more")
	}
	mustExec(t, c, "reset pgmosaic.shard", pgx.QueryExecModeSimpleProtocol)
	mustExec(t, c, "discard all", pgx.QueryExecModeSimpleProtocol)

	gone.SendQuery("select 1")
	if err := gone.Flush(); err != nil {
		t.Fatal(err)
	}
	if m, err := gone.Next(); err != nil || m.Type != 'E' || !strings.Contains(string(m.Raw), "57P01") || !strings.Contains(string(m.Raw), "advisory lock") {
		t.Errorf("who kept a server of a shard that is gone hears %q, %v", m.Raw, err)
	}
}
