package main

import "testing"

// A foreign key of a partition's is one of the table's, also one that refers to a partition: as a table's rows move, home deletes them, and
// what cascades from that would be lost.
func TestForeignKeysOfPartitionsKeepTablesAway(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "partkeys")
	for _, sql := range []string{
		"create table events (k int, at int, primary key (k, at)) partition by range (at)",
		"create table events_1 partition of events for values from (0) to (100)",
		"create table events_2 partition of events for values from (100) to (200)",
		"insert into events select i, i from generate_series(1, 150) i",
		"create table notes (id int primary key, k int, at int, constraint to_part foreign key (k, at) references events_1 on delete cascade)",
		"insert into notes select i, i, i from generate_series(1, 50) i",
		"create table days (at int primary key)",
		"insert into days select generate_series(0, 200)",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN partkeys KEY (int) BY HASH")
	const distribute = "DISTRIBUTE TABLE partkeys.public.events IN GROUP g KEY (k)"
	for _, dry := range []string{" DRY RUN", ""} {
		d.adminFails(t, distribute+dry, "0A000", `foreign key "to_part" of table public.events from home table public.notes cannot be kept over shards`)
	}
	if n := queryOne[int](t, c, "select count(*) from notes"); n != 50 {
		t.Errorf("%d of 50 notes are left", n)
	}
	mustExec(t, c, "alter table notes drop constraint to_part")
	mustExec(t, c, "alter table events_2 add constraint of_part foreign key (at) references days")
	d.adminFails(t, distribute, "0A000", `foreign key "of_part" of table public.events to home table public.days cannot be kept over shards`)
	d.adminExec(t, "DISTRIBUTE TABLE partkeys.public.days AS REFERENCE")
	d.adminExec(t, distribute)
	for i := range 3 {
		if s := queryOne[string](t, d.on(t, "partkeys", i), "select string_agg(concat_ws(' ', conrelid::regclass, conname, confrelid::regclass), ', ') from pg_constraint where contype = 'f'"); s != "events_2 of_part days" {
			t.Errorf("shard %d has the foreign keys %s", i, s)
		}
	}
	d.adminFails(t, "UNDISTRIBUTE TABLE partkeys.public.days", "2BP01", `foreign key "of_part" of table public.events`)
	d.adminExec(t, "UNDISTRIBUTE TABLE partkeys.public.events")
	if n := queryOne[int](t, c, "select count(*) from events"); n != 150 {
		t.Errorf("%d of 150 events came home", n)
	}
}
