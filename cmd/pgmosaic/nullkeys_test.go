package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A row without a key belongs to no shard: no shard takes one that is written past the proxy, whatever the group places keys by.
func TestNoShardTakesRowsWithoutKey(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "keyless")
	groups := map[string]string{
		"hashed": "(int) BY HASH", "paired": "(int, text) BY HASH", "ranged": "(int) BY RANGE (MINVALUE TO (1000) ON keyless_s0, (1000) TO MAXVALUE ON keyless_s1)", "whole": "(int) BY RANGE (MINVALUE TO MAXVALUE ON keyless_s1)",
		"listed": "(int) BY LIST ((1) ON keyless_s1, DEFAULT ON keyless_s0)",
	}
	for name, how := range groups {
		mustExec(t, c, "create table "+name+" (id int, k int, v text)")
		mustExec(t, c, "insert into "+name+" select g, g, 'v' || g from generate_series(1, 50) g")
		d.adminExec(t, "CREATE GROUP "+name+" IN keyless KEY "+how)
		key := "(k)"
		if name == "paired" {
			key = "(k, v)"
		}
		d.adminExec(t, "DISTRIBUTE TABLE keyless.public."+name+" IN GROUP "+name+" KEY "+key)
		for i := range 3 {
			for _, row := range []string{"(id) values (-1)", "values (-1, null, 'v')", "values (-1, 1, null)", "values (-1, 5000, null)"} {
				got := says(t, d.on(t, "keyless", i), "insert into "+name+" "+row, pgx.QueryExecModeExec)
				if name != "paired" && strings.HasPrefix(row, "values (-1, ") && !strings.Contains(row, "null, 'v'") { // it has a key
					continue
				}
				if got != "23514" {
					t.Errorf("%s: shard %d says %s to %s", name, i, got, row)
				}
			}
		}
	}
	for _, i := range []int{0, 1, 2} { // those with a key
		for name := range groups {
			mustExec(t, d.on(t, "keyless", i), "delete from "+name+" where id = -1")
		}
	}

	// What an older version made lets them in: VERIFY TABLE says so, and a process that starts mends it.
	var want []string
	for i := range 3 {
		s := d.on(t, "keyless", i)
		def := queryOne[string](t, s, "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'hashed'::regclass and conname = 'pgmosaic_slot'")
		older := strings.Replace(def, " AND (k IS NOT NULL)", "", 1)
		if older == def {
			t.Fatalf("the constraint has another form: %s", def)
		}
		mustExec(t, s, "alter table hashed drop constraint pgmosaic_slot, add constraint pgmosaic_slot "+older)
		want = append(want, fmt.Sprintf("keyless_s%d: : its constraint pgmosaic_slot is an older version's, which lets rows without a key in", i))
	}
	mustExec(t, d.on(t, "keyless", 1), "insert into hashed (id) values (-2)")
	mustExec(t, d.on(t, "keyless", 2), "alter table listed drop constraint pgmosaic_slot")
	mustExec(t, d.on(t, "keyless", 2), "alter table ranged drop constraint pgmosaic_slot, add constraint pgmosaic_slot check (k is not null)")
	wantVerified(t, d, "keyless.public.hashed", append(slices.Clone(want), `keyless_s1: (-2,,): belongs to no shard`)...)
	wantVerified(t, d, "keyless.public.listed", "keyless_s2: : it has no constraint pgmosaic_slot")
	wantVerified(t, d, "keyless.public.ranged", "keyless_s2: : its constraint pgmosaic_slot is another than the map says")
	d.adminExec(t, "ALTER GROUP ranged IN keyless SPLIT AT (500)") // it wrote ranges of one shard that follow each other one by one
	mustExec(t, d.on(t, "keyless", 0), "alter table ranged drop constraint pgmosaic_slot, add constraint pgmosaic_slot check (k < 500 or k >= 500 and k < 1000)")
	wantVerified(t, d, "keyless.public.ranged", "keyless_s0: : its constraint pgmosaic_slot is an older version's, which lets rows without a key in", "keyless_s2: : its constraint pgmosaic_slot is another than the map says")
	startApp(t, crashConfig(t, mapOf(d, "keyless")))
	eventually(t, "the constraint behind SPLIT is brought up to date", func() bool {
		return says(t, d.on(t, "keyless", 0), "insert into ranged (id) values (-1)", pgx.QueryExecModeExec) == "23514"
	})
	for i := range 3 {
		eventually(t, "the constraint is brought up to date", func() bool {
			return queryOne[bool](t, d.on(t, "keyless", i), "select pg_get_constraintdef(oid) like '%k IS NOT NULL%' from pg_constraint where conrelid = 'hashed'::regclass and conname = 'pgmosaic_slot'")
		})
		if got := says(t, d.on(t, "keyless", i), "insert into hashed (id) values (-1)", pgx.QueryExecModeExec); got != "23514" {
			t.Errorf("shard %d says %s", i, got)
		}
	}
	wantVerified(t, d, "keyless.public.hashed", `keyless_s1: (-2,,): belongs to no shard`)
	mustExec(t, d.on(t, "keyless", 1), "delete from hashed where id = -2")
}

// A process that starts looks at constraints, and waits for nobody who has a table to itself: no admin statement would run until then.
func TestAnUpgradeHoldsUpNoAdminStatement(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "vacuumed")
	mustExec(t, c, "create table keyed (k int primary key)")
	d.adminExec(t, "CREATE GROUP g IN vacuumed KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE vacuumed.public.keyed IN GROUP g KEY (k)")
	alone, look := d.on(t, "vacuumed", 1), d.on(t, "vacuumed", 1)
	mustExec(t, alone, "begin; lock table keyed")
	ctx, stop := context.WithCancel(t.Context())
	var upgrade sync.WaitGroup
	upgrade.Go(func() { _ = d.Mover.RunUpgrade(ctx, time.Hour) })
	defer upgrade.Wait()
	defer stop()
	eventually(t, "it looks at the table", func() bool {
		return queryOne[bool](t, look, "select exists (select from pg_locks where not granted and relation = 'keyed'::regclass)")
	})
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), "CREATE GROUP other IN vacuumed KEY (int) BY HASH DRY RUN", false)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("an admin statement waits for a lock on a table that it has nothing to do with")
	}
	mustExec(t, alone, "rollback")
}
