package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
)

// outOfMemory says that an error is 53200, names what it is about, and says what to do.
func outOfMemory(t *testing.T, what string, err error, detail string) {
	t.Helper()
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "53200" || !strings.Contains(pe.Detail, detail) || pe.Hint == "" {
		t.Errorf("%s: %+v", what, err)
	}
}

// untilRefused runs statements until one is refused, at most n.
func untilRefused(t *testing.T, c *pgx.Conn, n int, sql func(i int) string) (ran int, err error) {
	t.Helper()
	for ran = range n {
		if _, err = c.Exec(t.Context(), sql(ran), pgx.QueryExecModeSimpleProtocol); err != nil {
			return ran, err
		}
	}
	return n, nil
}

// A session has settings of as many bytes as session_memory_limit says, however it came by them, and what it has until then.
func TestSettingsHaveALimit(t *testing.T) {
	d := shop(t)
	a := small(t, d, 2, nil)
	a.Engine.Memory.Session.Store(1 << 20)
	long := strings.Repeat("x", 100<<10)
	set := func(i int) string { return fmt.Sprintf("set app.a%d = '%s'", i, long) }
	config := func(i int) string { return fmt.Sprintf("select set_config('app.a%d', '%s', false)", i, long) }
	for what, sql := range map[string]func(i int) string{"SET": set, "set_config": config} {
		c := connectTo(t, a.dsn())
		n, err := untilRefused(t, c, 30, sql)
		if n < 8 || n > 10 {
			t.Errorf("%s: %d settings of 100 kB", what, n)
		}
		outOfMemory(t, what, err, "session_memory_limit")
		for i := range n {
			if got := queryOne[int](t, c, fmt.Sprintf("select length(current_setting('app.a%d'))", i)); got != len(long) {
				t.Errorf("%s: app.a%d has %d bytes", what, i, got)
			}
		}
		if got := queryOne[string](t, c, fmt.Sprintf("select coalesce(current_setting('app.a%d', true), '')", n)); got != "" {
			t.Errorf("%s: what was refused has %d bytes", what, len(got))
		}
		mustExec(t, c, set(0)) // in place of what it was
		mustExec(t, c, "set app.a1 = 'short'")
		mustExec(t, c, set(n))
		mustExec(t, c, "reset all")
		if n, _ := untilRefused(t, c, 8, set); n < 8 {
			t.Errorf("%s: %d settings after RESET ALL", what, n)
		}
	}
}

// kept are what sessions hold besides statements, portals and what runs.
var kept = []memory.Consumer{memory.Settings, memory.Transactions, memory.Notifications}

func keptBytes(m *memory.Ledger) (n int64) {
	for _, c := range kept {
		n += m.Used(c)
	}
	return n
}

// repeated is n statements in one text.
func repeated(n int, sql func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(sql(i) + ";")
	}
	return b.String()
}

// held is by how much the heap grows while a session runs all rounds but the first, and how much more it is said to hold then.
func held(t *testing.T, a *app, before string, rounds int, text func(round int) string, end string) (grown, more int64) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), a.dsn())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	run := func(sql string) {
		if sql != "" {
			mustExec(t, c, sql, pgx.QueryExecModeSimpleProtocol)
		}
	}
	run(before)
	var was, said int64
	for round := range rounds {
		run(text(round))
		run("show pgmosaic.shard") // the text before is not the last any more
		if round == 0 {
			was, said = heap(), keptBytes(&a.Engine.Memory)
		}
	}
	grown, more = heap()-was, keptBytes(&a.Engine.Memory)-said
	run(end)
	if n := a.Engine.Memory.Used(memory.Transactions); n != 0 {
		t.Errorf("after %q %d bytes are counted for transactions when there are none", end, n)
	}
	return grown, more
}

// What a session keeps costs what it is said to cost, and is counted back when it is not kept any more, however that ends.
func TestWhatSessionsKeepIsWeighedTruly(t *testing.T) {
	d := shop(t)
	a := small(t, d, 2, nil)
	m := &a.Engine.Memory
	long := func(n int) string { return strings.Repeat("x", n) }
	same := func(sql string) func(int) string { return func(int) string { return sql } }
	for _, x := range []struct {
		what         string
		before       string
		rounds, each int
		sql          func(i int) string
		end          string
	}{
		{"long settings", "", 10, 1, func(i int) string { return fmt.Sprintf("set app.a%d = '%s'", i, long(1<<20)) }, "reset all"},
		{"short settings", "", 10, 300, func(i int) string { return fmt.Sprintf("set app.short%d = 'on'", i) }, ""},
		{"one setting again and again", "", 10, 10, func(i int) string { return fmt.Sprintf("set app.same = '%d%s'", i, long(1<<20)) }, "reset all"},
		{"settings of a transaction", "begin", 10, 10, func(i int) string { return fmt.Sprintf("set app.t%d = '%s'", i, long(100<<10)) }, "rollback"},
		{"one setting of a transaction", "begin", 10, 10, func(i int) string { return fmt.Sprintf("set app.same = '%d%s'", i, long(100<<10)) }, "rollback"},
		{"SET LOCAL", "begin", 10, 1000, func(i int) string { return fmt.Sprintf("set local work_mem = '%dkB'", 4096+i%10) }, "rollback"},
		{"SET LOCAL, released", "begin; savepoint a", 10, 1000, func(i int) string { return fmt.Sprintf("set local work_mem = '%dkB'", 4096+i%10) }, "release a; commit"},
		{"savepoints", "begin", 10, 1000, same("savepoint s"), "rollback"},
		{"savepoints, gone back to", "begin", 10, 1000, func(i int) string { return fmt.Sprint("savepoint s", i) }, "rollback to s0; commit"},
		{"savepoints of settings", "begin", 10, 20, func(i int) string { return fmt.Sprintf("savepoint s; set app.same = '%d%s'", i, long(30<<10)) }, "commit"},
		{"savepoints that are released", "begin", 10, 300, func(i int) string {
			return fmt.Sprintf("savepoint s; set app.r%d = 'some value'; release s", i)
		}, "commit"},
		{"savepoints that are gone back to", "begin", 10, 100, func(i int) string {
			return fmt.Sprintf("savepoint s%d; set app.b = '%s'; rollback to s%d", i, long(1000), i)
		}, "commit"},
		{"savepoints of many cursors", "begin; " + repeated(100, func(i int) string { return fmt.Sprintf("declare c%d cursor for select 1", i) }), 10, 100, same("savepoint s"), "commit"},
		{"LISTEN in a transaction", "begin", 10, 1000, func(i int) string { return fmt.Sprintf("listen of_a_long_name_%d", i%10) }, "rollback"},
	} {
		// Something else of the process may come or go meanwhile, but not three times.
		for try := 1; ; try++ {
			grown, more := held(t, a, x.before, x.rounds, func(round int) string {
				return repeated(x.each, func(i int) string { return x.sql(round*x.each + i) })
			}, x.end)
			t.Logf("%-30s holds %9d bytes, accounted %9d", x.what, grown, more)
			const noise = 100 << 10
			if more*3 >= (grown-noise)*2 && more*2 <= (grown+noise)*3 {
				break
			}
			if try == 3 {
				t.Errorf("%s: the session holds %d bytes more, and is said to hold %d", x.what, grown, more)
				break
			}
		}
		eventually(t, x.what+": the session is gone, and what it kept with it", func() bool { return keptBytes(m) == 0 })
	}
}

// What functions set in a transaction over shards, and it keeps for those that join later, costs what it is said to cost.
func TestWhatFunctionsSetIsWeighedTruly(t *testing.T) {
	d, c := temporaryWorld(t, "keptbyfunctions")
	m := &d.Engine.Memory
	mustExec(t, c, "create function keeps(v text) returns text language plpgsql as $$ begin return set_config('datestyle', v, true); end $$")
	mustExec(t, c, "begin")
	run := func(n int) {
		for i := range n {
			mustExec(t, c, fmt.Sprintf("select keeps('%s')", []string{"ISO, DMY", "SQL, MDY"}[i%2]), pgx.QueryExecModeSimpleProtocol)
			mustExec(t, c, "savepoint s")
		}
	}
	run(2)
	before, said := heap(), m.Used(memory.Transactions)
	run(60)
	grown, more := heap()-before, m.Used(memory.Transactions)-said
	t.Logf("60 steps of functions hold %d bytes, accounted %d", grown, more)
	if more < 60*10000 || more*3 < grown*2 || more*2 > grown*3 {
		t.Errorf("60 steps of functions hold %d bytes, and are said to hold %d", grown, more)
	}
	mustExec(t, c, "rollback")
	if n := m.Used(memory.Transactions); n != 0 {
		t.Errorf("%d bytes are counted for transactions when there are none", n)
	}
}

// Settings of sessions that are gone are nobody's.
func TestSettingsGoWithTheirSessions(t *testing.T) {
	d := shop(t)
	a := small(t, d, 2, nil)
	round := func(s int) {
		c := connectTo(t, a.dsn())
		for i := range 20 {
			mustExec(t, c, fmt.Sprintf("set app.a%d = '%d%s'", i, s, strings.Repeat("x", 1<<20)), pgx.QueryExecModeSimpleProtocol)
		}
		mustExec(t, c, "select count(*) from orders")
		_ = c.Close(t.Context())
		eventually(t, "the session is gone", func() bool { return keptBytes(&a.Engine.Memory) == 0 })
	}
	round(0)
	before := heap()
	for s := range 3 {
		round(s + 1)
	}
	if grown := heap() - before; grown > 10<<20 {
		t.Errorf("three sessions of 20 settings of 1 MB leave %d bytes", grown)
	}
}

// What a transaction sets and saves has the limit of the session, and what all sessions keep that of the process. The session goes on.
func TestTransactionsHaveALimit(t *testing.T) {
	d := shop(t)
	a := small(t, d, 2, nil)
	m := &a.Engine.Memory
	limit := m.Limit.Load()
	for what, sql := range map[string]string{"SET LOCAL": "set local work_mem = '5MB'", "SAVEPOINT": "savepoint s", "LISTEN": "listen some_channel", "SET TRANSACTION": "set transaction read write", "set_config": "select set_config('app.x', 'some value', true)"} {
		c := connectTo(t, a.dsn())
		m.Session.Store(200 << 10)
		fill := func() (n int, err error) {
			mustExec(t, c, "begin")
			return untilRefused(t, c, 10000, func(int) string { return sql })
		}
		n, err := fill()
		if n < 200 || n > 6000 {
			t.Errorf("%s: %d times", what, n)
		}
		outOfMemory(t, what, err, "session_memory_limit")
		mustExec(t, c, "rollback")
		mustExec(t, c, "select count(*) from orders")
		m.Session.Store(0)
		m.Limit.Store(2 * (m.Used(memory.Plans) + m.Used(memory.Prepared) + 200<<10))
		_, err = fill()
		outOfMemory(t, what, err, "half of memory_limit")
		m.Limit.Store(limit)
		mustExec(t, c, "rollback")
		_ = c.Close(t.Context())
	}
}

// Notifications that wait for sessions in a transaction count for each of them and once for all, and end the sessions for which there are too many.
func TestNotificationsThatWaitAreCounted(t *testing.T) {
	d := shop(t)
	a := small(t, d, 5, nil)
	m := &a.Engine.Memory
	one, two, c := connectTo(t, a.dsn()), connectTo(t, a.dsn()), connectTo(t, a.dsn())
	for _, l := range []*pgx.Conn{one, two} {
		mustExec(t, l, "listen kept")
		mustExec(t, l, "begin")
		mustExec(t, l, "select 1")
	}
	channels := m.Used(memory.Notifications)
	if channels < 100 {
		t.Errorf("%d bytes are counted for two channels", channels)
	}
	send := func(n int) {
		if _, err := c.Exec(t.Context(), repeated(n, func(i int) string { return fmt.Sprintf("notify kept, '%d%s'", i, strings.Repeat("x", 7900)) }), pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
	}
	send(100)
	eventually(t, "the first are there", func() bool { return m.Used(memory.Notifications) > 100*7900 })
	before, said := heap(), m.Used(memory.Notifications)
	for range 4 {
		send(500)
	}
	eventually(t, "all are there", func() bool { return m.Used(memory.Notifications)-said > 2000*7900 })
	grown, more := heap()-before, m.Used(memory.Notifications)-said
	t.Logf("2,000 notifications hold %d bytes, accounted %d", grown, more)
	if more*3 < grown*2 || more*2 > grown*3 {
		t.Errorf("2,000 notifications for two sessions hold %d bytes, and are said to hold %d", grown, more)
	}
	mustExec(t, one, "commit")
	if now := m.Used(memory.Notifications); now < said+2000*7900 {
		t.Errorf("the other session's are not counted any more: %d bytes", now)
	}
	m.Session.Store(18 << 20)
	send(500)
	_, err := two.Exec(t.Context(), "select 1")
	outOfMemory(t, "a session in a transaction", err, "session_memory_limit")
	eventually(t, "what waited for it is gone", func() bool { return m.Used(memory.Notifications) == channels/2 })
	mustExec(t, one, "select 1")
	mustExec(t, one, "unlisten *")
	if n := m.Used(memory.Notifications); n != 0 {
		t.Errorf("%d bytes are counted when nobody listens", n)
	}
	m.Session.Store(2 << 10)
	_, err = untilRefused(t, one, 100, func(i int) string { return fmt.Sprint("listen kept_", i) })
	outOfMemory(t, "channels", err, "session_memory_limit")
	mustExec(t, one, "unlisten *")
	mustExec(t, one, "listen kept")
}

// What functions set is the session's as far as there is room for it: more ends the session, or in a transaction over shards the statement that
// would take it to another one.
func TestWhatFunctionsSetHasALimit(t *testing.T) {
	d, c := temporaryWorld(t, "limitedfunctions")
	m := &d.Engine.Memory
	limit := m.Session.Load()
	t.Cleanup(func() { m.Session.Store(limit) })
	for _, sql := range []string{
		"create function bloats(n int) returns int language plpgsql as $$ begin perform set_config('app.bloat', repeat('x', n), false); return n; end $$",
		"create function bloats_path(n int) returns int language plpgsql as $$ begin perform set_config('search_path', 'public, ' || array_to_string(array_fill('x'::text, array[n]), ', '), false); return n; end $$",
	} {
		mustExec(t, c, sql)
	}
	m.Session.Store(100 << 10)
	for _, f := range []string{"bloats", "bloats_path"} {
		s := connectTo(t, c.Config().ConnString())
		mustExec(t, s, "select "+f+"(3000)")
		for range 4 { // on whatever server
			if n := queryOne[int](t, s, "select length(current_setting($1))", map[string]string{"bloats": "app.bloat", "bloats_path": "search_path"}[f]); n < 3000 {
				t.Errorf("%s: %d bytes are left", f, n)
			}
		}
		mustExec(t, s, "begin")
		mustExec(t, s, "select "+f+"(200000)")
		_, err := s.Exec(t.Context(), "select count(*) from parts")
		outOfMemory(t, f+" in a transaction", err, "session_memory_limit")
		mustExec(t, s, "rollback")
		if n := queryOne[int](t, s, "select length(current_setting($1))", map[string]string{"bloats": "app.bloat", "bloats_path": "search_path"}[f]); n > 10000 {
			t.Errorf("%s: %d bytes are left of what was rolled back", f, n)
		}
		_, _ = s.Exec(t.Context(), "select "+f+"(200000)")
		_, err = s.Exec(t.Context(), "select 1")
		outOfMemory(t, f, err, "session_memory_limit")
	}
}

// What several statements of a pipeline set may be more together than the session may keep, and less by itself: then the pipeline is undone, and never is an error
// told of what is done.
func TestAPipelineThatSetsTooMuchIsUndone(t *testing.T) {
	d := shop(t)
	a := small(t, d, 2, nil)
	a.Engine.Memory.Session.Store(200 << 10)
	c := connectTo(t, a.dsn())
	mustExec(t, c, "create table set_too_much (a int)")
	defer mustExec(t, c, "drop table set_too_much")
	long := strings.Repeat("x", 120<<10)
	for i, flushes := range []bool{false, true} {
		r := rawTo(t, a.dsn())
		for j := range 2 {
			r.run(fmt.Sprintf("insert into set_too_much values (%d)", j))
			r.run(fmt.Sprintf("select set_config('app.much%d', '%s', false)", j, long))
			if flushes {
				r.SendFlush()
			}
		}
		r.SendSync()
		got := r.answer()
		if !strings.HasSuffix(got, "E[53200]ZI") {
			t.Errorf("with Flush %t: %d bytes end with %s", flushes, len(got), got[max(0, len(got)-30):])
		}
		if n := queryOne[int](t, c, "select count(*) from set_too_much"); n != 0 {
			t.Errorf("try %d: an error is told, and %d rows are there", i, n)
		}
		r.SendQuery("select coalesce(length(current_setting('app.much0', true)), 0)")
		if got := r.answer(); !strings.Contains(got, "D(0)") {
			t.Errorf("what is undone is set: %s", got)
		}
		_ = r.Close()
	}
}
