package main

import "testing"

// The server that a session keeps is in no transaction any more when that has failed at its end on another one.
func TestKeptServerLeavesAFailedCommit(t *testing.T) {
	t.Parallel()
	d, c := threeKeys(t, "leaves")
	mustExec(t, c, "create table late (s int, id int, constraint late_key unique (s, id) deferrable initially deferred)")
	d.adminExec(t, "DISTRIBUTE TABLE leaves.public.late IN GROUP g KEY (s)")
	for _, sql := range []string{"create temporary table mine (n int)", "begin", "select count(*) from own", "insert into late values (1, 1)", "insert into late values (1, 1)"} {
		mustExec(t, c, sql)
	}
	_, err := c.Exec(t.Context(), "commit")
	wantCode(t, err, "23505")
	mustExec(t, c, "insert into own values (1)")
	if n := queryOne[int](t, d.on(t, "leaves", 0), "select count(*) from own"); n != 1 {
		t.Errorf("%d rows are committed", n)
	}
	mustExec(t, c, "insert into mine select n from own")
	if n := queryOne[int](t, c, "select count(*) from mine"); n != 1 {
		t.Errorf("%d rows in the temporary table", n)
	}
}
