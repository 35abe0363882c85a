package main

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// A policy says which rows a statement sees. One that hangs on chance, the moment or the server says another thing on each copy of a
// reference table, so that the same statement would write other rows there.
func TestPoliciesMakeNoCopiesDiffer(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "policed")
	mustExec(t, c, "create table rows (k int primary key, who text, note text)")
	mustExec(t, c, "create function flips(int) returns boolean language sql as 'select random() < 0.5'")
	mustExec(t, c, "create function seen(int) returns boolean language plpgsql as $$ begin return coalesce(current_setting('app.tenant', true), '') = ''; end $$")
	mustExec(t, c, "insert into rows select i, 'policed_' || i % 3, 'a' from generate_series(1, 60) i")
	mustExec(t, c, "alter table rows enable row level security")
	mustExec(t, c, "alter table rows force row level security")
	mustExec(t, c, "create policy all_rows on rows using (true)")
	d.adminExec(t, "DISTRIBUTE TABLE policed.public.rows AS REFERENCE")
	for _, x := range []struct {
		policy string
		fine   bool
	}{
		{"random() < 0.5", false},
		{"who = current_database()", false},
		{"who = current_catalog", false},
		{"k % 2 = extract(microseconds from now())::int % 2", false},
		{"k % 2 = extract(microseconds from current_timestamp)::int % 2", false},
		{"k % 2 = pg_backend_pid() % 2", false},
		{"flips(k)", false},
		{"seen(k)", true},
		{"k < 100 and current_user = 'app' and coalesce(current_setting('app.tenant', true), '') = ''", true},
	} {
		mustExec(t, c, "drop policy if exists narrow on rows")
		mustExec(t, c, "create policy narrow on rows as restrictive using ("+x.policy+")")
		for _, sql := range []string{"update rows set note = note || 'b'", "delete from rows where k = 1", "insert into rows values (1, 'policed_1', 'a') on conflict (k) do update set note = 'c'"} {
			_, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
			if x.fine && err != nil || !x.fine && pgCode(err) != "0A000" {
				t.Errorf("%s: %s: %v", x.policy, sql, err)
			}
		}
		q := "select string_agg(r::text, E'\n' order by k) from rows r"
		home := queryOne[string](t, d.on(t, "policed", 0), q)
		for i := 1; i < 3; i++ {
			if has := queryOne[string](t, d.on(t, "policed", i), q); has != home {
				t.Fatalf("%s: on shard %d the rows differ", x.policy, i)
			}
		}
	}
}
