package main

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// What is defined on one partition while a shard joins is on the new shard, too, or the shard does not join.
func TestPartitionsThatChangeWhileAShardJoins(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "parted")
	for _, sql := range []string{
		"create table parts (k int, at int, primary key (k, at)) partition by range (at)", "create table parts_1 partition of parts for values from (0) to (50)",
		"create table zz (code int primary key)", "insert into zz values (1)", "create function twice(int) returns int language sql as 'select 2 * $1'", "grant execute on function twice to pg_monitor",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN parted KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE parted.public.parts IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE parted.public.zz AS REFERENCE")
	node := d.cluster.Node("s2-a")
	home := d.on(t, "parted", 0)
	for i, sql := range []string{"create unique index small on parts_1 (k, at) where at < 10", "alter table parts_1 add constraint known check (at <> 13)", "revoke execute on function twice from pg_monitor"} {
		phys := fmt.Sprintf("parted_%d", 7+i)
		freshDatabase(t, node, phys)
		there := connectTo(t, node.DSN(phys))
		hold, err := connectTo(t, node.DSN(phys)).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hold.Exec(t.Context(), "create table zz (a int)"); err != nil {
			t.Fatal(err)
		}
		done, did := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := d.Admin.Exec(t.Context(), fmt.Sprintf("CREATE SHARD parted_s9 IN parted NODE '%s' NAME parted_n9", node.DSN(phys)), false)
			done <- err
		}()
		eventually(t, "a copy waits", func() bool {
			return queryOne[bool](t, there, "select exists (select from pg_locks where not granted)")
		})
		go func() {
			_, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
			did <- err
		}()
		eventually(t, "it is done or waits", func() bool { return len(did) > 0 || d.atWork(c) })
		if err := hold.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-did; err != nil {
			t.Errorf("%s: %v", sql, err)
		}
		if err := <-done; err != nil {
			t.Logf("%s: CREATE SHARD: %v", sql, err)
			continue
		}
		const form = `select concat_ws('; ', (select string_agg(indexrelid::regclass::text, ',' order by indexrelid::regclass::text) from pg_index where indrelid = 'parts_1'::regclass), (select string_agg(conname, ',' order by conname) from pg_constraint where conrelid = 'parts_1'::regclass and conname !~ '^pgmosaic_'), has_function_privilege('pg_monitor', 'twice(int)', 'execute'),
		  (select string_agg(grantee::text, ',' order by grantee) from pg_proc p, aclexplode(p.proacl) where p.oid = 'twice'::regproc))`
		if got, want := queryOne[string](t, there, form), queryOne[string](t, home, form); got != want {
			t.Errorf("%s: on the new shard there is %s, on home %s", sql, got, want)
		}
		d.adminExec(t, "DROP SHARD parted_s9 IN parted")
	}
}
