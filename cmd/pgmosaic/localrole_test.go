package main

import (
	"fmt"
	"testing"
)

// A part that was prepared under SET LOCAL ROLE is that role's: it is finished at once all the same, whatever becomes of the transaction.
func TestPartsUnderALocalRoleAreFinished(t *testing.T) {
	t.Parallel()
	d, c := threeKeys(t, "localrole")
	mustExec(t, c, "create table late (s int, id int, constraint late_key unique (s, id) deferrable initially deferred)")
	d.adminExec(t, "DISTRIBUTE TABLE localrole.public.late IN GROUP g KEY (s)")
	for _, n := range []string{"s1-a", "s2-a"} {
		su := connectTo(t, d.cluster.Node(n).DSN("postgres"))
		mustExec(t, su, "create role localrole_r; grant localrole_r to app")
		defer mustExec(t, su, "drop role localrole_r")
	}
	mustExec(t, c, "grant all on a, late to localrole_r")
	defer mustExec(t, c, "revoke all on a, late from localrole_r")
	other := d.on(t, "localrole", 1)
	for i, code := range []string{"23505", ""} {
		for _, sql := range []string{"begin", "set local role localrole_r", "insert into late values (0, 1)", fmt.Sprintf("insert into late values (0, %d)", 1+i), fmt.Sprintf("insert into a values (1, %d)", i)} {
			mustExec(t, c, sql)
		}
		if _, err := c.Exec(t.Context(), "commit"); code != "" {
			wantCode(t, err, code)
		} else if err != nil {
			t.Error(err)
		}
		if n := queryOne[int](t, other, "select count(*) from pg_prepared_xacts where database = current_database()"); n != 0 {
			t.Errorf("%d parts are left, COMMIT says %q", n, code)
		}
		if n := queryOne[int](t, other, "select count(*) from a"); n != i {
			t.Errorf("%d rows, COMMIT says %q", n, code)
		}
		for s := range 3 {
			if got := queryOne[string](t, c, "select current_user from b where s = $1 limit 1", s); got != "app" {
				t.Errorf("the session is %s on shard %d", got, s)
			}
		}
	}
}
