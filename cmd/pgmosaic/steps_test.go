package main

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// A cancel request that comes between two steps of a write, when every server is idle and takes no notice, ends the statement all the same,
// and nothing of it is done.
func TestCancelBetweenSteps(t *testing.T) {
	d, c := temporaryWorld(t, "steps")
	mustExec(t, c, "create table drawn (k int, id uuid default gen_random_uuid())")
	d.adminExec(t, "DISTRIBUTE TABLE steps.public.drawn AS REFERENCE")
	var servers [3]*pgx.Conn
	for i := range servers {
		servers[i] = d.on(t, "steps", i)
	}
	mustExec(t, c, "delete from parts where k > 20")
	state := func() (all string) {
		t.Helper()
		for _, s := range servers {
			all += queryOne[string](t, s, `select concat_ws('|', (select md5(string_agg(p::text, ',' order by k)) from parts p), (select md5(string_agg(p::text, ',' order by code)) from codes p), (select count(*) from drawn),
				(select string_agg(relname || relnatts, ',' order by relname) from pg_class where relnamespace = 'public'::regnamespace), (select count(*) from pg_prepared_xacts where database = current_database()))`) + "\n"
		}
		return all
	}
	session, secret := d.Server.SessionOf(c.PgConn().PID()), binary.BigEndian.Uint32(c.PgConn().SecretKey())
	var left atomic.Int32 // steps until the cancel request
	panics.Provoke(t, func(stage string) {
		if stage == "step" && left.Load() > 0 && left.Add(-1) == 0 {
			var cancelled atomic.Bool
			go func() {
				session.Cancel(secret)
				cancelled.Store(true)
			}()
			for !cancelled.Load() { // to wait here would be to hold up the loop: the checking build says so
				runtime.Gosched()
			}
		}
	})
	run := func(sql string) error {
		if rows, ok := strings.CutPrefix(sql, "copy "); ok {
			table, data, _ := strings.Cut(rows, " ")
			_, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(data), "copy "+table+" from stdin")
			return err
		}
		_, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		return err
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("%d\t%d", 3000+i, i))
	}
	for i, sql := range []string{
		"insert into parts select k + 1000, i from parts", "insert into parts select k + 1000, i from parts returning k", "insert into parts values (2001, 1), (2002, 1), (2003, 1), (2004, 1)", "update parts set k = k + 5000",
		"delete from parts", "insert into codes values ('x')", "insert into drawn select k from parts", "copy parts " + strings.Join(many, "\n") + "\n", "copy codes a\nb\n", "copy drawn(k) 1\n2\n", "alter table parts add column x int",
	} {
		block := i%2 == 1
		before := state()
		n := 1
		for ; n < 200; n++ {
			if block {
				mustExec(t, c, "begin")
			}
			left.Store(int32(n))
			err := run(sql)
			fired := left.Swap(0) == 0
			if !fired {
				if err != nil {
					t.Errorf("%.60s: uncancelled: %v", sql, err)
				}
				break
			}
			if pgCode(err) != "57014" {
				t.Errorf("%.60s: cancelled at step %d, block %t: %v", sql, n, block, err)
			}
			if block {
				if _, err := c.Exec(t.Context(), "select 1"); pgCode(err) != "25P02" {
					t.Errorf("%.60s: behind it: %v", sql, err)
				}
				mustExec(t, c, "rollback")
			}
			if after := state(); after != before {
				t.Fatalf("%.60s: cancelled at step %d, block %t:\n%s\nit was\n%s", sql, n, block, after, before)
			}
		}
		if n < 3 {
			t.Errorf("%.60s has %d steps", sql, n-1)
		}
		if block {
			mustExec(t, c, "rollback")
			continue
		}
		if !strings.HasPrefix(sql, "alter") {
			mustExec(t, c, "delete from parts")
			mustExec(t, c, "delete from codes")
			mustExec(t, c, "delete from drawn")
			mustExec(t, c, "insert into codes values ('a1'), ('b1')")
			mustExec(t, c, "insert into parts select g, g from generate_series(1, 20) g")
		} else {
			mustExec(t, c, "alter table parts drop column x")
		}
	}
}
