package main

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// A store that cannot be written to: the process goes on serving, says so, keeps the map, and goes on when it can.
func TestStoreThatCannotBeWrittenTo(t *testing.T) {
	t.Parallel()
	d := shop(t)
	node := d.cluster.Node("s2-a")
	var dsns []string
	for _, phys := range []string{"stuck_a", "stuck_b", "stuck_c"} {
		freshDatabase(t, node, phys)
		dsns = append(dsns, node.DSN(phys))
	}
	home, b := connectTo(t, dsns[0]), connectTo(t, dsns[1])
	mustExec(t, home, "create table codes (k int primary key, v text); insert into codes values (1, 'one'); alter table codes owner to app")
	a, err := stranger(t, nil, "CREATE DATABASE stuck", fmt.Sprintf("CREATE SHARD a IN stuck NODE '%s'", dsns[0]), fmt.Sprintf("CREATE SHARD b IN stuck NODE '%s'", dsns[1]))
	if err != nil {
		t.Fatal(err)
	}
	lock := a.cfg.Store + ".lock"
	broken := func() {
		t.Helper()
		if err := errors.Join(os.Remove(lock), os.Mkdir(lock, 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	well := func() {
		t.Helper()
		if err := os.Remove(lock); err != nil {
			t.Fatal(err)
		}
	}
	serves := func() {
		t.Helper()
		c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "stuck"))
		if v := queryOne[string](t, c, "select v from codes where k = 1"); v != "one" {
			t.Errorf("the row is %q", v)
		}
		_ = c.Close(t.Context())
	}
	was := a.Catalog.Current().Version
	broken()
	for _, sql := range []string{
		"CREATE DATABASE more", "CREATE GROUP g IN stuck KEY (int) BY HASH", "DROP SHARD b IN stuck", "ALTER ROUTINE stuck.public.f SHARD SAFE",
		"DISTRIBUTE TABLE stuck.public.codes AS REFERENCE", fmt.Sprintf("CREATE SHARD c IN stuck NODE '%s'", dsns[2]), "ALTER SHARD b IN stuck ADOPT",
	} {
		_, err := a.Admin.Exec(t.Context(), sql, false)
		wantState(t, sql, err, "58030")
	}
	if now := a.Catalog.Current().Version; now != was {
		t.Errorf("version %d of the map is in force, it was %d", now, was)
	}
	if n := queryOne[int](t, b, "select count(*) from pgmosaic.identity where shard = 'b'"); n != 1 {
		t.Error("the shard's database does not say any more that it is the shard's")
	}
	serves()
	well()
	// It breaks in the middle of a statement: that is undone as soon as it can be.
	hold, err := home.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hold.Exec(t.Context(), "lock table pgmosaic.placed in exclusive mode"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := a.Admin.Exec(t.Context(), "DISTRIBUTE TABLE stuck.public.codes AS REFERENCE", false)
		done <- err
	}()
	watch := connectTo(t, dsns[0])
	eventually(t, "the statement is under way", func() bool {
		return queryOne[bool](t, watch, "select exists (select from pg_locks where not granted and relation = 'pgmosaic.placed'::regclass)")
	})
	broken()
	if err := hold.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantState(t, "DISTRIBUTE TABLE", <-done, "58030")
	serves()
	well()
	eventually(t, "nothing is left of the statement", func() bool { return len(a.Catalog.Current().Document.Attempts) == 0 })
	serves()
	if _, err := a.Admin.Exec(t.Context(), "DISTRIBUTE TABLE stuck.public.codes AS REFERENCE", false); err != nil {
		t.Error(err)
	}
	if t1 := a.Catalog.Current().Databases["stuck"].Table(shardmap.TableName{Schema: "public", Name: "codes"}); t1 == nil || t1.Moving {
		t.Errorf("the table is %+v", t1)
	}
	serves()
}

// wantState wants an error of the admin's with an SQLSTATE.
func wantState(t *testing.T, what string, err error, code string) {
	t.Helper()
	var e interface{ SQLState() string }
	if !errors.As(err, &e) || e.SQLState() != code {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}
