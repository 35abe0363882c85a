package main

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// Sums and averages of floats over shards have the digits that the session has asked for.
func TestSumsOfFloatsAreWrittenAsTheSessionSays(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "floatsums")
	one := connectTo(t, d.cluster.Node("s1-a").DSN("floatsums_0"))
	d.adminExec(t, "CREATE GROUP g IN floatsums KEY (bigint) BY RANGE (MINVALUE TO (2) ON floatsums_s1, (2) TO MAXVALUE ON floatsums_s2)")
	for conn, table := range map[*pgx.Conn]string{c: "sums", one: "oracle"} {
		mustExec(t, conn, "create table public."+table+" (k bigint primary key, x float8, r real)")
		mustExec(t, conn, "insert into "+table+" values (1, 0.1, 0.1), (2, 0.2, 0.2)") // of two, the order does not matter
	}
	d.adminExec(t, "DISTRIBUTE TABLE floatsums.public.sums IN GROUP g KEY (k)")
	for _, set := range []string{"reset extra_float_digits", "set extra_float_digits = 0", "set extra_float_digits to '-9'", "set extra_float_digits = 3", "begin; set local extra_float_digits = -3", "rollback"} {
		simply(t, c, set)
		simply(t, one, set)
		for _, what := range []string{"sum(x)", "avg(x)", "sum(r)", "avg(r)", "max(x)"} {
			if got, want := simply(t, c, "select "+what+" from sums"), simply(t, one, "select "+what+" from oracle"); got != want {
				t.Errorf("%s, %s: %s, want %s", set, what, got, want)
			}
		}
	}
}
