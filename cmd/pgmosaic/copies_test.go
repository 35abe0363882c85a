package main

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
)

// What default privileges of the proxy's role give on a shard is not given on the copies of tables: who may not read the table
// would read the rows that are there.
func TestDefaultPrivilegesGiveNothingOnCopies(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "given")
	mustExec(t, c, "create table secrets (k int primary key, v text) ")
	mustExec(t, c, "create table sliced (k int primary key) partition by range (k)")
	mustExec(t, c, "create table slice partition of sliced for values from (0) to (100)")
	mustExec(t, c, "create table shown (k int primary key)")
	mustExec(t, d.on(t, "given", 1), "alter default privileges grant select, insert on tables to public; alter default privileges grant select, update on tables to app")
	mustExec(t, c, "grant select on shown to public")
	d.adminExec(t, "CREATE GROUP g IN given KEY (int) BY HASH")
	for _, n := range []string{"secrets IN GROUP g KEY (k)", "sliced IN GROUP g KEY (k)", "shown AS REFERENCE"} {
		d.adminExec(t, "DISTRIBUTE TABLE given.public."+n)
	}
	const acl = "select string_agg(concat_ws(' ', c.relname, c.relowner::regrole, x.grantee, x.privilege_type), ', ' order by c.relname, x.grantee, x.privilege_type) from pg_class c left join aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) x on x.grantee <> c.relowner where c.relname in ('secrets', 'sliced', 'slice', 'shown')"
	home, copies := queryOne[string](t, d.on(t, "given", 0), acl), queryOne[string](t, d.on(t, "given", 1), acl)
	if home != copies {
		t.Errorf("home:\n%s\nthe shard:\n%s", home, copies)
	}
}

// A table that another one takes the name of while DISTRIBUTE waits stays on home, and so does the other: what home notes would be
// about a table that has not moved.
func TestNameTakenWhileDistributeWaits(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "taken")
	mustExec(t, c, "create table keyless (k int, v text)")
	mustExec(t, c, "insert into keyless select g, 'old' from generate_series(1, 50) g")
	d.adminExec(t, "CREATE GROUP g IN taken KEY (int) BY HASH")
	home := d.on(t, "taken", 0)
	mustExec(t, c, "begin")
	mustExec(t, c, "select 1 from pg_class limit 1")
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(context.Background(), "DISTRIBUTE TABLE taken.public.keyless IN GROUP g KEY (k)", false)
		done <- err
	}()
	eventually(t, "DISTRIBUTE has taken the table", func() bool { return queryOne[bool](t, home, "select exists (select from pgmosaic.placed)") })
	for _, sql := range []string{"alter table keyless rename to older", "create table keyless (k int, v text)", "insert into keyless select g, 'new' from generate_series(1, 50) g", "commit"} {
		mustExec(t, c, sql)
	}
	err := <-done
	var e interface{ SQLState() string }
	if !errors.As(err, &e) || e.SQLState() != "55000" {
		t.Errorf("DISTRIBUTE: %v", err)
	}
	for _, n := range []string{"keyless", "older"} {
		if got := says(t, c, "select count(*) from "+n, pgx.QueryExecModeExec); got != "50" {
			t.Errorf("%s has %s rows", n, got)
		}
	}
	d.adminExec(t, "DISTRIBUTE TABLE taken.public.keyless IN GROUP g KEY (k)")
	d.adminExec(t, "UNDISTRIBUTE TABLE taken.public.keyless")
	if got := says(t, c, "select count(*) from keyless", pgx.QueryExecModeExec); got != "50" {
		t.Errorf("%s rows", got)
	}
}
