package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// busy writes a table by its key and by other columns until stopped, and knows what each of its rows must be. No statement
// may fail.
func busy(t *testing.T, ctx context.Context, dsn string, n int, done *atomic.Int64) (rows map[int]int) {
	rows = map[int]int{}
	c, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Error(err)
		return rows
	}
	defer c.Close(context.Background())
	rng := rand.New(rand.NewPCG(11, uint64(n)))
	modes := []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol}
	for ; ctx.Err() == nil; done.Add(1) {
		id := n*1_000_000 + rng.IntN(400) // each writer has ids of its own
		val := rng.IntN(1000)
		mode := modes[rng.IntN(3)]
		var err error
		switch rng.IntN(5) {
		case 0, 1:
			_, err = c.Exec(t.Context(), "insert into busy (id, val, note) values ($1, $2, 'new') on conflict (id) do update set val = excluded.val", mode, id, val)
			rows[id] = val
		case 2:
			_, err = c.Exec(t.Context(), "delete from busy where id = $1", mode, id)
			delete(rows, id)
		case 3: // the key changes
			if _, there := rows[id+400]; !there {
				if v, had := rows[id]; had {
					_, err = c.Exec(t.Context(), "update busy set id = $2 where id = $1", mode, id, id+500)
					delete(rows, id)
					rows[id+500] = v
				}
			}
			if err == nil {
				_, err = c.Exec(t.Context(), "delete from busy where id = $1", mode, id+500)
				delete(rows, id+500)
			}
		default:
			err = pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), "update busy set val = $2 where id = $1", mode, id, val); err != nil {
					return err
				}
				var got *int
				if err := tx.QueryRow(t.Context(), "select max(val) from busy where id = $1", mode, id).Scan(&got); err != nil {
					return err
				}
				if _, there := rows[id]; there != (got != nil) || there && *got != val {
					return fmt.Errorf("row %d: read %v, want %d (there: %t)", id, got, val, there)
				}
				return nil
			})
			if _, there := rows[id]; there {
				rows[id] = val
			}
		}
		if err != nil {
			t.Errorf("writer %d: %v", n, err)
			return rows
		}
	}
	return rows
}

// written waits until so many more statements of writers are done.
func written(t testing.TB, done *atomic.Int64, n int64) {
	t.Helper()
	end := done.Load() + n
	eventually(t, "the writers write", func() bool { return done.Load() >= end })
}

// A table is distributed while clients write it: nobody sees an error, and every row is what its last writer was told.
func TestDistributeATableInUse(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "in_use")
	mustExec(t, c, "create table busy (id int primary key, val int not null, note text, seq bigserial, doubled int generated always as (val * 2) stored)")
	mustExec(t, c, "create index on busy (val)")
	mustExec(t, c, "insert into busy (id, val) select 100000000 + i, i % 1000 from generate_series(1, 60000) i")
	d.adminExec(t, "CREATE GROUP g IN in_use KEY (int) BY HASH")
	for _, how := range []string{"IN GROUP g KEY (id)", "AS REFERENCE"} {
		if how == "AS REFERENCE" {
			mustExec(t, c, "alter table busy alter column seq drop default, alter column seq drop not null")
		}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var done atomic.Int64
		all := make([]map[int]int, 4)
		for n := range all {
			wg.Go(func() { all[n] = busy(t, ctx, dsnFor("app", "app", d.Server.Addr(), "in_use"), n+1, &done) })
		}
		written(t, &done, 200)
		d.adminExec(t, "DISTRIBUTE TABLE in_use.public.busy "+how)
		written(t, &done, 200)
		stop()
		wg.Wait()
		want := map[int]int{}
		for _, m := range all {
			for id, v := range m {
				want[id] = v
			}
		}
		got := map[int]int{}
		rows, _ := c.Query(t.Context(), "select id, val from busy where id < 100000000")
		var id, val int
		if _, err := pgx.ForEachRow(rows, []any{&id, &val}, func() error { got[id] = val; return nil }); err != nil {
			t.Fatal(err)
		}
		for id, v := range want {
			if g, there := got[id]; !there || g != v {
				t.Errorf("%s: row %d is %d (there: %t), want %d", how, id, g, there, v)
			}
		}
		if len(got) != len(want) || len(want) == 0 {
			t.Errorf("%s: %d rows of the writers, want %d", how, len(got), len(want))
		}
		if n := queryOne[int](t, c, "select count(*) from busy where id > 100000000 and doubled = val * 2"); n != 60000 {
			t.Errorf("%s: %d of the other rows, want 60000", how, n)
		}
		if n := queryOne[int](t, c, "select count(*) - count(distinct seq) from busy"); n != 0 && how != "AS REFERENCE" {
			t.Errorf("%d values of the sequence stand twice", n)
		}
		for i := range 3 {
			if n := queryOne[int](t, d.on(t, "in_use", i), "select (select count(*) from pg_trigger where tgname ~ '^pgmosaic' and tgname not in ('pgmosaic_copy', 'pgmosaic_kept')) + (select count(*) from pg_class where relname ~ '^changed_')"); n != 0 {
				t.Errorf("%s: %d things are left on shard %d", how, n, i)
			}
		}
		if jobs := fmt.Sprint(d.adminExec(t, "SHOW JOBS WHERE database = 'in_use'")); !strings.Contains(jobs, "DISTRIBUTE TABLE public.busy done") {
			t.Errorf("the job is not shown as done: %s", jobs)
		}
		d.adminExec(t, "UNDISTRIBUTE TABLE in_use.public.busy")
		mustExec(t, c, "delete from busy where id < 100000000")
	}
}

// A move that fails leaves the table on home and in use, and nothing behind. Those whose process dies are in attempts_test.go.
func TestDistributeATableInUseUndone(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "undone")
	mustExec(t, c, "create table busy (id int primary key, val int not null, note text)")
	mustExec(t, c, "insert into busy select i, i from generate_series(1, 20000) i")
	d.adminExec(t, "CREATE GROUP g IN undone KEY (int) BY HASH")
	mustExec(t, d.on(t, "undone", 2), "create table busy (id int, other text)") // empty, and not ours all the same
	_, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE undone.public.busy IN GROUP g KEY (id)", false)
	var e interface{ SQLState() string }
	if !errors.As(err, &e) || e.SQLState() != "55000" {
		t.Errorf("the failure is %v", err)
	}
	clean := func(what string) {
		t.Helper()
		if n := queryOne[int](t, d.on(t, "undone", 0), "select (select count(*) from pg_trigger where tgname ~ '^pgmosaic' and tgname not in ('pgmosaic_copy', 'pgmosaic_kept')) + (select count(*) from pg_class where relname ~ '^changed_')"); n != 0 {
			t.Errorf("%s: %d things are left on home", what, n)
		}
		if got := queryOne[*string](t, d.on(t, "undone", 1), "select to_regclass('public.busy')::text"); got != nil {
			t.Errorf("%s: the table is left on shard 1", what)
		}
		mustExec(t, c, "update busy set val = val + 1 where id = 7")
	}
	clean("after the failure")
	if jobs := fmt.Sprint(d.adminExec(t, "SHOW JOBS WHERE database = 'undone'")); !strings.Contains(jobs, `failed: table public.busy exists on shard "undone_s2"`) {
		t.Errorf("the job is not shown as failed: %s", jobs)
	}
	mustExec(t, d.on(t, "undone", 2), "drop table busy")
	d.adminExec(t, "DISTRIBUTE TABLE undone.public.busy IN GROUP g KEY (id)")
	if n := queryOne[int](t, c, "select count(*) from busy"); n != 20000 {
		t.Errorf("%d rows", n)
	}
}

// What empties or alters the table while it moves waits for the snapshot, and is not lost: an empty table is empty everywhere,
// an altered one stays on home.
func TestDistributeATableThatIsTruncatedOrAltered(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "emptied")
	mustExec(t, c, "create table busy (id int primary key, val int not null)")
	d.adminExec(t, "CREATE GROUP g IN emptied KEY (int) BY HASH")
	for _, sql := range []string{"truncate busy; insert into busy select i, -1 from generate_series(1, 30) i", "alter table busy add column more int default 5"} {
		mustExec(t, c, "truncate busy")
		mustExec(t, c, "insert into busy select i, i from generate_series(1, 5000) i")
		hold, err := d.on(t, "emptied", 1).Begin(t.Context()) // a table of that name, not yet committed: the copy waits for it
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hold.Exec(t.Context(), "create table busy (id int)"); err != nil {
			t.Fatal(err)
		}
		last := func() string { // the newest job: only so many are kept
			return fmt.Sprint(d.adminExec(t, "SHOW JOBS WHERE database = 'emptied' ORDER BY id DESC LIMIT 1"))
		}
		before := last()
		done := make(chan error, 1)
		go func() {
			_, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE emptied.public.busy IN GROUP g KEY (id)", false)
			done <- err
		}()
		eventually(t, "rows are copied", func() bool {
			job := last()
			return job != before && strings.Contains(job, "copying to shard")
		})
		ran := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
			ran <- err
		}()
		eventually(t, "it has been sent", func() bool { return d.atWork(c) })
		if err := hold.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		serr := <-ran
		err = <-done
		if serr != nil {
			t.Fatalf("%s: %v", sql, serr)
		}
		if strings.HasPrefix(sql, "alter") {
			if err == nil || !strings.Contains(err.Error(), "was altered while it moved") {
				t.Errorf("the move ended with %v", err)
			}
			if n := queryOne[int](t, c, "select count(*) from busy where more = 5"); n != 5000 {
				t.Errorf("%d rows", n)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := queryOne[string](t, c, "select count(*) || ' ' || sum(val) from busy"); got != "30 -30" {
			t.Errorf("after TRUNCATE: %s", got)
		}
		d.adminExec(t, "UNDISTRIBUTE TABLE emptied.public.busy")
	}
}

// A TRUNCATE is noted whatever the types of the key are: of a domain neither its default nor its constraints have a hand in it.
func TestDistributeATableWithADomainForAKeyThatIsTruncated(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "domains")
	for i, domain := range []string{"as int default 7", "as int not null", `as text collate "C" default 'x' check (value is not null)`} {
		home := d.on(t, "domains", 0)
		mustExec(t, home, fmt.Sprintf("create domain dom_%d %s", i, domain)) // of the role that the proxy has: its code is not a stranger's
		table := fmt.Sprintf("busy_%d", i)
		mustExec(t, c, fmt.Sprintf("create table %s (id dom_%d, more int, val int not null, primary key (id, more))", table, i))
		mustExec(t, c, fmt.Sprintf("insert into %s select i, i, i from generate_series(1, 500) i", table))
		hold, err := d.on(t, "domains", 1).Begin(t.Context()) // a table of that name, not yet committed: the copy waits for it
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hold.Exec(t.Context(), "create table "+table+" (id int)"); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE domains.public."+table+" AS REFERENCE", false)
			done <- err
		}()
		holding := connectTo(t, d.cluster.Node("s2-a").DSN("domains_1"))
		eventually(t, "rows are copied", func() bool {
			return queryOne[bool](t, holding, "select exists (select from pg_stat_activity where datname = 'domains_1' and wait_event_type = 'Lock' and query ~ 'CREATE TABLE')")
		})
		mustExec(t, home, "update "+table+" set val = -val where more = 1") // while the snapshot is held, which keeps TRUNCATE waiting
		ran := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), "truncate "+table)
			ran <- err
		}()
		eventually(t, "TRUNCATE waits", func() bool {
			return queryOne[bool](t, home, "select exists (select from pg_locks where relation = $1::text::regclass and mode = 'AccessExclusiveLock' and not granted)", table)
		})
		if err := hold.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-ran; err != nil {
			t.Errorf("%s: TRUNCATE: %v", domain, err)
		}
		if err := <-done; err != nil {
			t.Fatalf("%s: %v", domain, err)
		}
		mustExec(t, c, fmt.Sprintf("insert into %s values ('1', 1, 1)", table))
		for s, rows := range copiesOf(t, d, "domains", table) {
			if rows != "(1,1,1)" {
				t.Errorf("%s: shard %d holds %d rows: %.60s", domain, s, strings.Count(rows, "\n")+1, rows)
			}
		}
	}
}

// Only who uses an older map is waited for, and only statements on the table that moves wait: a session that keeps a server and is in
// no transaction holds nothing up, and one in a transaction not what others do.
func TestDistributeBesideOtherSessions(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "beside")
	for _, sql := range []string{
		"create table moving (id int primary key, v int)", "insert into moving select i, i from generate_series(1, 100) i", "create table held (id int primary key)", "insert into held values (1)",
		"create table others (id int primary key, v int)", "insert into others values (1, 1)",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN beside KEY (int) BY HASH")
	dsn := dsnFor("app", "app", d.Server.Addr(), "beside")
	idle := connectTo(t, dsn)
	mustExec(t, idle, "create temporary table mine (a int)")
	d.adminExec(t, "DISTRIBUTE TABLE beside.public.others IN GROUP g KEY (id)") // though a session keeps its server
	mustExec(t, idle, "insert into mine select count(*) from moving")
	isMoving := func() bool {
		i := d.Catalog.Current().Databases["beside"].Tables[shardmap.TableName{Schema: "public", Name: "moving"}]
		return i != nil && i.Moving
	}
	for _, verb := range []string{"DISTRIBUTE TABLE beside.public.moving IN GROUP g KEY (id)", "UNDISTRIBUTE TABLE beside.public.moving"} {
		early := connectTo(t, dsn) // a transaction that has done nothing yet is none that keeps a map
		mustExec(t, early, "begin")
		in := connectTo(t, dsn)
		mustExec(t, in, "begin")
		mustExec(t, in, "select * from held for update")
		done := make(chan error, 1)
		go func() {
			_, err := d.Admin.Exec(t.Context(), verb, false)
			done <- err
		}()
		eventually(t, "the table is announced", isMoving)
		for i := range 20 { // of other tables, by all protocols and in transactions
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
				if _, err := c.Exec(t.Context(), "update others set v = v + 1 where id = 1", mode); err != nil {
					t.Errorf("a statement on another table: %v", err)
				}
			}
			if err := pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), "insert into others values ($1, 0)", 100+i)
				if err == nil {
					_, err = tx.Exec(t.Context(), "delete from others where id >= 100")
				}
				return err
			}); err != nil {
				t.Errorf("a transaction on another table: %v", err)
			}
		}
		waits := connectTo(t, dsn)
		answer := make(chan error, 1)
		go func() {
			var n int
			err := waits.QueryRow(t.Context(), "select count(*) from moving").Scan(&n)
			if err == nil && n != 100 {
				err = fmt.Errorf("%d rows", n)
			}
			answer <- err
		}()
		began := connectTo(t, dsn)
		mustExec(t, began, "begin")
		if !isMoving() || len(done) > 0 {
			t.Errorf("%s was not held up by the transaction", verb)
		}
		mustExec(t, in, "select * from others")
		mustExec(t, in, "commit")
		if err := <-done; err != nil {
			t.Errorf("%s: %v", verb, err)
		}
		if err := <-answer; err != nil {
			t.Errorf("the statement that waited for %s: %v", verb, err)
		}
		for when, c := range map[string]*pgx.Conn{"before": early, "during": began} {
			if n := queryOne[int](t, c, "select count(*) from moving"); n != 100 {
				t.Errorf("a transaction that began %s %s reads %d rows", when, verb, n)
			}
			mustExec(t, c, "commit")
		}
	}
	if n := queryOne[int](t, idle, "select a from mine"); n != 100 {
		t.Errorf("the temporary table holds %d", n)
	}
}

// An admin statement that gives up says for whom it waited, and leaves the table in use.
func TestDistributeNamesTheClientsItWaitsFor(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "named")
	mustExec(t, c, "create table moving (id int, v int)")
	mustExec(t, c, "insert into moving select i, i from generate_series(1, 100) i")
	d.adminExec(t, "CREATE GROUP g IN named KEY (int) BY HASH")
	a, err := stranger(t, mapOf(d, "named"))
	if err != nil {
		t.Fatal(err)
	}
	a.Mover.PauseTimeout = 50 * time.Millisecond
	in := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "named"))
	mustExec(t, in, "begin")
	mustExec(t, in, "select count(*) from moving")
	for range 2 {
		_, err = a.Admin.Exec(t.Context(), "DISTRIBUTE TABLE named.public.moving IN GROUP g KEY (id)", false)
		var e interface{ SQLState() string }
		if want := fmt.Sprintf("client %d (app from 127.0.0.1:", in.PgConn().PID()); !errors.As(err, &e) || e.SQLState() != "55006" || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "in a transaction)") {
			t.Errorf("%v does not say %q", err, want)
		}
		if n := queryOne[int](t, in, "select count(*) from moving"); n != 100 {
			t.Errorf("%d rows", n)
		}
		other := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "named"))
		mustExec(t, other, "update moving set v = v + 1 where id = 1")
		if left := a.Catalog.Current().Document; len(left.Attempts) != 0 || len(left.Tables) != 0 {
			t.Errorf("the map has %v and %v", left.Attempts, left.Tables)
		}
	}
	mustExec(t, in, "commit")
}

// A portal is run by the map that its statement was planned by, and waited for: one that is bound and not run yet, in a pipeline or in a
// transaction that has no server yet.
func TestPortalsKeepTheirMap(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "portals")
	mustExec(t, c, "create table moving (id int primary key, v int)")
	mustExec(t, c, "insert into moving select i, i from generate_series(1, 100) i")
	d.adminExec(t, "CREATE GROUP g IN portals KEY (int) BY HASH")
	for _, inTransaction := range []bool{false, true} {
		d.adminExec(t, "DISTRIBUTE TABLE portals.public.moving IN GROUP g KEY (id)")
		r := rawTo(t, dsnFor("app", "app", d.Server.Addr(), "portals"))
		bound := "12"
		if inTransaction {
			r.SendQuery("begin")
			r.want('Z', "C<BEGIN>ZT")
		}
		r.SendParse("", "select count(*) from moving", nil)
		r.SendBind("p", "", []byte{0, 0, 0, 0, 0, 0})
		if inTransaction {
			r.SendSync()
			r.want('Z', bound+"ZT")
		} else {
			r.SendFlush()
			r.want('2', bound)
		}
		done := make(chan error, 1)
		go func() {
			_, err := d.Admin.Exec(t.Context(), "UNDISTRIBUTE TABLE portals.public.moving", false)
			done <- err
		}()
		eventually(t, "the table is announced", func() bool {
			i := d.Catalog.Current().Databases["portals"].Tables[shardmap.TableName{Schema: "public", Name: "moving"}]
			return i != nil && i.Moving
		})
		r.executeLimited("p", 0)
		r.SendFlush()
		r.want('C', "D(100)C<SELECT 1>")
		if left := d.Using("portals", d.Catalog.Current().Version); len(left) != 1 || len(done) > 0 {
			t.Errorf("in a transaction: %t: the portal is not waited for: %d clients, %d done", inTransaction, len(left), len(done))
		}
		r.SendSync()
		if inTransaction {
			r.want('Z', "ZT")
			r.SendQuery("commit")
			r.want('Z', "C<COMMIT>ZI")
		} else {
			r.want('Z', "ZI")
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if left := d.Using("portals", d.Catalog.Current().Version+1); len(left) != 0 {
			t.Errorf("%d clients at rest are told to use a map", len(left))
		}
	}
}

// Who owns a table cannot keep its changes from being noted for a while.
func TestTriggersThatWereDisabledForAWhile(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "disabled")
	mustExec(t, c, "create table busy (id int primary key, v int)")
	mustExec(t, c, "insert into busy select i, i from generate_series(1, 100) i")
	d.adminExec(t, "CREATE GROUP g IN disabled KEY (int) BY HASH")
	hold, err := d.on(t, "disabled", 1).Begin(t.Context()) // a table of that name, not yet committed: the copy waits for it
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hold.Exec(t.Context(), "create table busy (id int)"); err != nil {
		t.Fatal(err)
	}
	home, watch := d.on(t, "disabled", 0), d.on(t, "disabled", 0)
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE disabled.public.busy IN GROUP g KEY (id)", false)
		done <- err
	}()
	eventually(t, "it is watched", func() bool { return noted(t, watch) > 0 })
	eventually(t, "the copy is about to be made", func() bool {
		return len(done) > 0 || queryOne[bool](t, watch, "select exists (select from pg_locks where relation = 'busy'::regclass and mode = 'ShareUpdateExclusiveLock' and granted)")
	})
	ran := make(chan error, 1)
	go func() {
		_, err := home.Exec(t.Context(), `do $$ declare n name; begin
			alter table busy disable trigger user;
			update busy set v = v + 1000;
			for n in select tgname from pg_trigger where tgrelid = 'busy'::regclass and tgname ~ '^pgmosaic_' loop execute format('alter table busy enable always trigger %I', n); end loop;
			end $$`)
		ran <- err
	}()
	eventually(t, "the owner waits for the copy", func() bool {
		return len(ran) > 0 || queryOne[bool](t, watch, "select exists (select from pg_locks where relation = 'busy'::regclass and not granted)")
	})
	if err := hold.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "was altered while it moved") {
		t.Errorf("it ended with %v", err)
	}
	if got := queryOne[string](t, c, "select count(*) || ' ' || min(v) from busy"); got != "100 1001" {
		t.Errorf("the table holds %s", got)
	}
}
