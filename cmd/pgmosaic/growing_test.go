package main

import (
	"fmt"
	"testing"
)

// A table that a client makes in a schema, just before the schema is said to move, is lost neither on home nor on the shard.
func TestTablesMadeWhileASchemaMoves(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "growing")
	mustExec(t, c, "create schema tenant")
	mustExec(t, c, "create table tenant.one (a int primary key)")
	mustExec(t, c, "insert into tenant.one select generate_series(1, 5)")
	super := d.on(t, "growing", 0)
	for i, sql := range []string{"DISTRIBUTE SCHEMA growing.tenant ON growing_s1", "UNDISTRIBUTE SCHEMA growing.tenant"} {
		hold, err := d.on(t, "growing", 0).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hold.Exec(t.Context(), "lock table pgmosaic.placed in share mode"); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := d.Admin.Exec(t.Context(), sql, false)
			done <- err
		}()
		eventually(t, "the statement is to begin", func() bool {
			return queryOne[bool](t, super, "select exists (select from pg_locks where not granted and relation = 'pgmosaic.placed'::regclass)")
		})
		late := fmt.Sprintf("tenant.late_%d", i)
		mustExec(t, c, "create table "+late+" (id int primary key)")
		mustExec(t, c, "insert into "+late+" values (1)")
		if err := hold.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Logf("%s: %v", sql, err)
			d.adminExec(t, sql) // with the table, it can be done
		}
		var n int
		if err := c.QueryRow(t.Context(), "select count(*) from "+late).Scan(&n); err != nil || n != 1 {
			t.Errorf("%s: %s has %d rows of 1: %v", sql, late, n, err)
		}
	}
	if n := queryOne[int](t, d.on(t, "growing", 1), "select count(*) from pg_class where relnamespace = to_regnamespace('tenant') and relkind = 'r'"); n != 0 {
		t.Errorf("%d tables are left on the shard", n)
	}
}

// Nor does a schema move with a table that has got what a table in such a schema cannot have.
func TestRulesMadeWhileASchemaMoves(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "ruling")
	for _, sql := range []string{"create schema tenant", "create table tenant.one (a int primary key)", "create table tenant.log (a int primary key)"} {
		mustExec(t, c, sql)
	}
	hold, err := d.on(t, "ruling", 0).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hold.Exec(t.Context(), "lock table pgmosaic.placed in share mode"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), "DISTRIBUTE SCHEMA ruling.tenant ON ruling_s1", false)
		done <- err
	}()
	super := d.on(t, "ruling", 0)
	eventually(t, "the statement is to begin", func() bool {
		return queryOne[bool](t, super, "select exists (select from pg_locks where not granted and relation = 'pgmosaic.placed'::regclass)")
	})
	mustExec(t, c, "create rule r as on insert to tenant.one do also insert into tenant.log values (new.a)")
	if err := hold.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("DISTRIBUTE SCHEMA: %v", <-done)
	mustExec(t, c, "insert into tenant.one values (1)")
	if n := queryOne[int](t, c, "select count(*) from tenant.log"); n != 1 {
		t.Errorf("the rule has written %d rows", n)
	}
}
