package main

import "testing"

// A user's trigger is one whatever it is called: it comes to the copies, VERIFY compares it, and what it does is looked at before a statement runs.
func TestTriggersThatAreCalledLikeOurs(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "likeours")
	for _, sql := range []string{
		"create table sharded (k int primary key, x int)", "insert into sharded select i, i from generate_series(1, 60) i",
		"create function seven() returns trigger language plpgsql as 'begin new.x := 7; return new; end'", "create trigger pgmosaic_seven before insert on sharded for each row execute function seven()",
		"create table codes (k int primary key, x int)", "create function chance() returns trigger language plpgsql as 'begin new.x := random() * 1000000; return new; end'",
		"create table named (k int primary key, x int)", "create trigger pgmosaic_copy before insert on named for each row execute function seven()",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN likeours KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE likeours.public.sharded IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE likeours.public.codes AS REFERENCE")
	for k := 101; k <= 120; k++ {
		mustExec(t, c, "insert into sharded values ($1, 1)", k)
	}
	if n := queryOne[int](t, c, "select count(*) from sharded where k > 100 and x = 7"); n != 20 {
		t.Errorf("the trigger has fired for %d of 20 rows", n)
	}
	mustExec(t, c, "create trigger pgmosaic_chance before insert on codes for each row execute function chance()")
	_, err := c.Exec(t.Context(), "insert into codes values (1, 1)")
	wantCode(t, err, "0A000")
	d.adminFails(t, "DISTRIBUTE TABLE likeours.public.named AS REFERENCE", "42710", "pgmosaic_copy")
	if n := queryOne[int](t, d.on(t, "likeours", 0), "select count(*) from pg_trigger where tgrelid = 'named'::regclass and tgfoid = 'seven'::regproc"); n != 1 {
		t.Error("a user's trigger is gone")
	}
	mustExec(t, d.on(t, "likeours", 1), "drop trigger pgmosaic_seven on sharded")
	if rows := d.adminExec(t, "VERIFY SCHEMA IN likeours"); len(rows) != 1 {
		t.Errorf("VERIFY SCHEMA: %v", rows)
	}
	d.adminExec(t, "UNDISTRIBUTE TABLE likeours.public.codes")
	if n := queryOne[int](t, d.on(t, "likeours", 0), "select count(*) from pg_trigger where tgrelid = 'codes'::regclass and not tgisinternal"); n != 1 {
		t.Errorf("codes has %d triggers at home", n)
	}
}
