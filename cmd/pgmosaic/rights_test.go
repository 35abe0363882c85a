package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Who may do what with a table is the same on all shards, also where it is said while the table moves.
func TestRightsThatChangeWhileATableMoves(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "rights")
	d.adminExec(t, "CREATE GROUP g IN rights KEY (int) BY HASH")
	for i, x := range []struct{ before, sql string }{
		{"", "alter table %s enable row level security"},
		{"", "alter table %s force row level security"},
		{"grant select on %s to public", "revoke select on %s from public"},
		{"", "grant update on %s to public"},
		{"", "grant select (val) on %s to public"},
		{"create policy p on %s using (true)", "alter policy p on %s to app"},
	} {
		table := fmt.Sprintf("busy_%d", i)
		mustExec(t, c, "create table "+table+" (id int primary key, val int not null)")
		mustExec(t, c, "insert into "+table+" select i, i from generate_series(1, 500) i")
		if x.before != "" {
			mustExec(t, c, fmt.Sprintf(x.before, table))
		}
		sql := fmt.Sprintf(x.sql, table)
		hold, err := d.on(t, "rights", 1).Begin(t.Context()) // a table of that name, not yet committed: the copy waits for it
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hold.Exec(t.Context(), "create table "+table+" (id int)"); err != nil {
			t.Fatal(err)
		}
		last := func() string {
			return fmt.Sprint(d.adminExec(t, "SHOW JOBS WHERE database = 'rights' ORDER BY id DESC LIMIT 1"))
		}
		before := last()
		done := make(chan error, 1)
		go func() {
			_, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE rights.public."+table+" IN GROUP g KEY (id)", false)
			done <- err
		}()
		eventually(t, "rows are copied", func() bool {
			job := last()
			return job != before && strings.Contains(job, "copying to shard")
		})
		copier := d.on(t, "rights", 1)
		eventually(t, "the copy waits", func() bool {
			return queryOne[bool](t, copier, "select exists (select from pg_locks where not granted)")
		})
		ran := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
			ran <- err
		}()
		eventually(t, "it has been sent", func() bool { return d.atWork(c) || len(ran) > 0 })
		if err := hold.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-ran; err != nil {
			t.Errorf("%s: %v", sql, err)
		}
		err = <-done
		t.Logf("%s: %v", sql, err)
		if err != nil {
			continue // it is on home as before
		}
		const rights = `select concat_ws(' ', relrowsecurity, relforcerowsecurity, (select string_agg(x.privilege_type, ',' order by x.privilege_type) from aclexplode(relacl) x where x.grantee = 0),
		  (select string_agg(a.attname || ':' || x.privilege_type, ',') from pg_attribute a, aclexplode(a.attacl) x where a.attrelid = c.oid),
		  (select string_agg(polroles::regrole[]::text, ',') from pg_policy where polrelid = c.oid)) from pg_class c where oid = $1::text::regclass`
		home := queryOne[string](t, d.on(t, "rights", 0), rights, table)
		for s := 1; s < 3; s++ {
			if got := queryOne[string](t, d.on(t, "rights", s), rights, table); got != home {
				t.Errorf("%s: on shard %d there is %q, on home %q", sql, s, got, home)
			}
		}
	}
}
