package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A statement whose last step fails when home has decided is gone on with in the background, without another statement or a restart:
// what was out of use meanwhile is in use again, and the log and SHOW JOBS tell of it.
func TestLastStepThatFailsIsGoneOnWith(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "lasting")
	for _, sql := range []string{
		"create table codes (id int primary key, v int)", "create table keyed (k int primary key, v int)", "create table plain (v int)",
		"insert into codes select i, i from generate_series(1, 20) i", "insert into keyed select i, i from generate_series(1, 90) i", "insert into plain select generate_series(1, 5)",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN lasting KEY (int) BY HASH")
	log := &lockedBuffer{}
	a, err := strangerTelling(t, log, mapOf(d, "lasting"))
	if err != nil {
		t.Fatal(err)
	}
	app := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "lasting"))
	exec := func(sql string) {
		t.Helper()
		if _, err := a.Admin.Exec(t.Context(), sql, false); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec("DISTRIBUTE TABLE lasting.public.keyed IN GROUP g KEY (k)")
	exec("DISTRIBUTE TABLE lasting.public.plain AS REFERENCE")
	dir := filepath.Dir(a.cfg.Store)
	storeAway := func() {
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	storeBack := func() {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
	}
	on := []*pgx.Conn{d.on(t, "lasting", 0), d.on(t, "lasting", 1)}
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "lasting_3")
	on = append(on, connectTo(t, node.DSN("lasting_3")))
	waiting := func(c *pgx.Conn) (pid int) {
		return queryOne[int](t, c, "select coalesce(max(l.pid), 0) from pg_locks l join pg_stat_activity a using (pid) where not l.granted and a.application_name ~ 'pgmosaic' and a.datname = current_database()")
	}
	for _, x := range []struct {
		verb, hold, check string
		on                int // where the hold is, before what it holds up home has not decided
		cut               bool
	}{
		{"DISTRIBUTE TABLE lasting.public.codes AS REFERENCE", "lock table codes in access share mode", "select count(*) from codes where id <= 20", 0, false},
		{"CREATE SHARD lasting_s3 IN lasting NODE '" + node.DSN("lasting_3") + "' NAME lasting_n3", "create table plain (a int)", "update codes set v = v + 1 where id = 3", 2, false},
		{"UNDISTRIBUTE TABLE lasting.public.keyed", "lock table keyed in access share mode", "select count(*) from keyed", 1, true}, // a shard is away while copies are dropped
	} {
		hold, err := on[x.on].Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hold.Exec(t.Context(), x.hold); err != nil {
			t.Fatalf("%s: %v", x.hold, err)
		}
		watch := connectTo(t, on[x.on].Config().ConnString())
		done := make(chan error, 1)
		go func() {
			_, err := a.Admin.Exec(t.Context(), x.verb, false)
			done <- err
		}()
		eventually(t, x.verb+" is held up", func() bool {
			select {
			case err := <-done:
				t.Fatalf("%s ended with %v", x.verb, err)
			default:
			}
			return waiting(watch) != 0
		})
		if x.cut {
			mustExec(t, watch, "select pg_terminate_backend($1)", waiting(watch))
		} else {
			storeAway()
			if err := hold.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; err == nil || !strings.Contains(err.Error(), "is decided and will be done, but its last step failed") {
			t.Errorf("%s ended with %v", x.verb, err)
		}
		job := func() string { return fmt.Sprint(a.jobs("settle " + x.verb[:strings.Index(x.verb, " lasting")])) }
		eventually(t, "SHOW JOBS tells of it", func() bool {
			return strings.Contains(job(), "starting") || strings.Contains(job(), "waiting to try again")
		})
		if len(a.Catalog.Current().Document.Attempts) != 1 {
			t.Errorf("%s is settled", x.verb)
		}
		answer := make(chan error, 1)
		go func() { // by a client, which waits
			_, err := app.Exec(t.Context(), x.check)
			answer <- err
		}()
		if x.cut {
			if err := hold.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else {
			storeBack()
		}
		if err := <-answer; err != nil {
			t.Errorf("after %s: %s: %v", x.verb, x.check, err)
		}
		eventually(t, "it is settled", func() bool { return len(a.Catalog.Current().Document.Attempts) == 0 && strings.Contains(job(), "done") })
		mustExec(t, app, x.check)
	}
	said := log.take()
	for _, want := range []string{"a statement has left something unfinished", "what a statement had left is settled"} {
		if n := strings.Count(said, want); n != 3 {
			t.Errorf("the log says %d times: %s", n, want)
		}
	}
	exec("UNDISTRIBUTE TABLE lasting.public.plain")
	exec("UNDISTRIBUTE TABLE lasting.public.codes")
	exec("DROP SHARD lasting_s3 IN lasting")
}

// jobs are the states of a process's jobs of one statement.
func (a *app) jobs(statement string) (out []string) {
	res, err := a.Admin.Exec(context.Background(), "SHOW JOBS", true)
	if err != nil {
		return nil
	}
	for _, r := range res.Rows {
		if strings.HasPrefix(fmt.Sprint(r[2]), statement) {
			out = append(out, fmt.Sprint(r[3]))
		}
	}
	return out
}
