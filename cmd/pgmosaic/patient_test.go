package main

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// What runs as a table's owner for long holds nobody else up, where the role of the nodes' connection strings is an ordinary one.
func TestAnOrdinaryRolesStatementsDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	d, nodes := modestWorld(t, "patient")
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "patient"))
	for _, sql := range []string{
		"create function waits(int) returns bool language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(77); return true; end $$",
		"create table slow (k int primary key, v int check (waits(v)))", "create table quick (k int primary key, v int)", "insert into slow select g, g from generate_series(1, 50) g", "insert into quick select g, g from generate_series(1, 50) g",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN patient KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE patient.public.quick IN GROUP g KEY (k)")
	mustExec(t, nodes[1], "select pg_advisory_lock(77)")
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE patient.public.slow IN GROUP g KEY (k)", false)
		done <- err
	}()
	eventually(t, "the other shard's CHECK waits", func() bool {
		return queryOne[bool](t, nodes[1], "select exists (select from pg_locks where locktype = 'advisory' and not granted)")
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := d.Admin.Exec(ctx, "VERIFY TABLE patient.public.quick", false); err != nil {
		t.Errorf("VERIFY beside it: %v", err)
	}
	select {
	case err := <-done:
		t.Errorf("DISTRIBUTE has ended: %v", err)
	default:
	}
	mustExec(t, nodes[1], "select pg_advisory_unlock(77)")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := queryOne[int](t, c, "select count(*) from slow", pgx.QueryExecModeSimpleProtocol); n != 50 {
		t.Errorf("%d rows", n)
	}
	for i, n := range nodes {
		if left := queryOne[string](t, n, "select coalesce(string_agg(nspname, ','), '') from pg_namespace where nspname ~ '^pgmosaic.' or nspname = 'pgmosaic' and nspacl::text ~ 'app='"); left != "" {
			t.Errorf("%s is left on shard %d", left, i)
		}
	}
}
