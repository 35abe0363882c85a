package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Who waits for the row of an attempt while another takes it sees that the other lives, though it has connected since.
func TestClaimSeesWhoCameMeanwhile(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "claims")
	home := d.on(t, "claims", 0)
	mustExec(t, home, "insert into pgmosaic.holder values ('seen', 0, '-infinity'), ('old', 1, now() - interval '2 days')")
	mustExec(t, home, "begin")
	mustExec(t, home, "select from pgmosaic.holder where attempt = 'seen' for update")
	x := shardmap.Attempt{ID: "seen", Database: "claims", Schema: "public", Name: "nothing", Statement: "DISTRIBUTE nothing"}
	if err := d.Catalog.Retry(t.Context(), func(tx *shardmap.Tx) error { return tx.PutAttempt(x) }); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(context.Background(), "DISTRIBUTE TABLE claims.public.nothing AS REFERENCE", false)
		done <- err
	}()
	watcher := d.on(t, "claims", 0)
	eventually(t, "the attempt is waited for", func() bool {
		select {
		case err := <-done:
			t.Fatal(err)
		default:
		}
		return queryOne[bool](t, watcher, "select exists (select from pg_stat_activity where datname = 'claims_0' and wait_event_type = 'Lock' and query like '%pgmosaic.holder%')")
	})
	late := d.on(t, "claims", 0)
	pid := queryOne[int](t, late, "select pg_backend_pid()")
	mustExec(t, home, fmt.Sprintf("update pgmosaic.holder set pid = %d, started = (select backend_start from pg_stat_activity where pid = %[1]d) where attempt = 'seen'; commit", pid))
	err := <-done
	if pgCodeOf(err) != "55006" {
		t.Errorf("while another has it: %v", err)
	}
	if n := queryOne[int](t, watcher, "select pid from pgmosaic.holder where attempt = 'seen'"); n != pid {
		t.Errorf("process %d has it, not %d", n, pid)
	}
	_ = late.Close(t.Context())
	if _, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE claims.public.nothing AS REFERENCE", false); pgCodeOf(err) != "42P01" {
		t.Errorf("when it has ended: %v", err)
	}
	if left := d.Catalog.Current().Document.Attempts; len(left) != 0 {
		t.Errorf("%d attempts are left", len(left))
	}
}

func pgCodeOf(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return fmt.Sprint(err)
}
