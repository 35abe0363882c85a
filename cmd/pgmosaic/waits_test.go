package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// Whoever holds a table, or what it draws from, past the proxy stops a move after the time that a move waits for clients.
func TestAMoveWaitsForNobodyWithoutEnd(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "awaited")
	for _, sql := range []string{"create table codes (code int primary key)", "insert into codes values (1)", "create table drawn (id int primary key, n serial)", "insert into drawn select generate_series(1, 9)"} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN awaited KEY (int) BY HASH")
	a, err := stranger(t, mapOf(d, "awaited"))
	if err != nil {
		t.Fatal(err)
	}
	a.Mover.PauseTimeout = 50 * time.Millisecond
	exec := func(sql string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, err := a.Admin.Exec(ctx, sql, false)
		return err
	}
	for _, x := range []struct{ hold, sql string }{
		{"select nextval('drawn_n_seq')", "DISTRIBUTE TABLE awaited.public.drawn IN GROUP g KEY (id)"},
		{"select nextval('drawn_n_seq')", "UNDISTRIBUTE TABLE awaited.public.drawn"},
		{"select count(*) from codes", "DISTRIBUTE TABLE awaited.public.codes AS REFERENCE"},
		{"select count(*) from codes", "UNDISTRIBUTE TABLE awaited.public.codes"},
	} {
		hold, err := d.on(t, "awaited", 0).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hold.Exec(t.Context(), x.hold); err != nil {
			t.Fatal(err)
		}
		err = exec(x.sql)
		var e interface{ SQLState() string }
		if !errors.As(err, &e) || e.SQLState() != "55006" || !strings.Contains(err.Error(), "holds a lock") {
			t.Errorf("%s beside %s: %v", x.sql, x.hold, err)
		}
		if err := hold.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := exec(x.sql); err != nil {
			t.Fatalf("%s: %v", x.sql, err)
		}
	}
}
