package main

import "testing"

// What a superuser's or the node role's own code leaves for its session, while an admin statement's connection runs it, is not there for
// the next statement.
func TestKeptConnectionsAreAsNew(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "asnew")
	d.adminExec(t, "CREATE GROUP g IN asnew KEY (int) BY HASH")
	mustExec(t, c, "create function of_public(int) returns int language sql as 'select 1'")
	home, shard := d.on(t, "asnew", 0), d.on(t, "asnew", 1)
	for _, sql := range []string{
		`create function leaves(int) returns bool language plpgsql as $$ begin
		  set search_path = public; set DateStyle = 'SQL, DMY'; set role app; reset role; perform pg_advisory_lock(4711); create temporary table if not exists left_over (a int); listen something; return true; end $$`,
		"create table leaving (id int primary key, v int check (leaves(v)))", "insert into leaving select g, g from generate_series(1, 50) g",
		"create table dates (id int primary key, d date)", "insert into dates select g, '2026-02-01' from generate_series(1, 50) g",
	} {
		mustExec(t, home, sql)
	}
	d.adminExec(t, "DISTRIBUTE TABLE asnew.public.leaving IN GROUP g KEY (id)")
	if res, err := d.Admin.Exec(t.Context(), "VERIFY SCHEMA IN asnew", false); err != nil || len(res.Rows) != 0 {
		t.Errorf("VERIFY SCHEMA: %v, %v", res.Rows, err)
	}
	if n := queryOne[int](t, shard, "select count(*) from pg_locks l join pg_stat_activity a using (pid) where l.locktype = 'advisory' and a.application_name = 'pgmosaic admin' and a.state = 'idle' and a.datname = 'asnew_1'"); n != 0 {
		t.Errorf("%d advisory locks are held by connections that are kept", n)
	}
	if n := queryOne[int](t, shard, "select count(*) from pg_class where relname = 'left_over'"); n != 0 {
		t.Errorf("%d temporary tables are left by connections that are kept", n)
	}
	d.adminExec(t, "DISTRIBUTE TABLE asnew.public.dates IN GROUP g KEY (id)")
	d.adminExec(t, "UNDISTRIBUTE TABLE asnew.public.dates")
	if n := queryOne[int](t, home, "select count(*) from dates where d = '2026-02-01'"); n != 50 {
		t.Errorf("%d dates are what they were", n)
	}
}
