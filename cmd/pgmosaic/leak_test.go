package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var (
	lateN    = flag.Int("late.n", 60, "statements, of a session with cancel requests on their way, that must be let through in the test of late ones")
	leakN    = flag.Int("leak.n", 250, "statements of each session in the test of leaks between clients")
	leakSeed = flag.Uint64("leak.seed", 0, "seed of that test; 0: a fixed one")
)

// model is what one session must see, whoever else uses the same servers.
type model struct {
	name     string
	rng      *rand.Rand
	dsn      string
	c        *pgx.Conn
	target   atomic.Pointer[pgx.Conn] // c, for the one who cancels
	tx       byte                     // I, T, E
	set      map[string]string
	before   map[string]string // at BEGIN
	temp     int               // rows of the temporary table; -1: there is none
	tempWas  int
	prepared map[string]bool
	lock     bool
	heard    int // notifications on the session's own channel
	expect   int
	drawn    string       // what it has drawn last; empty: nothing, and notKnown
	inTx     bool         // it was in the transaction that runs
	cancels  atomic.Int64 // cancel requests that were sent for it so far
	log      []string
}

func clone(m map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

func (m *model) connect(ctx context.Context) error {
	cfg, err := pgx.ParseConfig(m.dsn)
	if err != nil {
		return err
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	cfg.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) {
		if n.Channel != m.name || n.Payload != m.name {
			m.heard = 1 << 30
		}
		m.heard++
	}
	if m.c, err = pgx.ConnectConfig(ctx, cfg); err != nil {
		return err
	}
	m.target.Store(m.c)
	m.tx, m.set, m.temp, m.prepared, m.lock, m.heard, m.expect, m.drawn, m.inTx = 'I', map[string]string{}, -1, map[string]bool{}, false, 0, 0, "", false
	_, err = m.c.Exec(ctx, "listen "+m.name)
	return err
}

// step runs one random statement and compares its outcome with the model.
func (m *model) step(ctx context.Context) error {
	sql, want, then := m.next()
	m.log = append(m.log, sql)
	if sql == "" { // the session ends and another one takes its place
		if m.rng.IntN(2) == 0 {
			_ = m.c.PgConn().Conn().Close() // without a word
		} else {
			_ = m.c.Close(ctx)
		}
		return m.connect(ctx)
	}
	var got string
	res, err := m.c.PgConn().Exec(ctx, sql).ReadAll()
	if err == nil && len(res) > 0 && len(res[len(res)-1].Rows) > 0 {
		got = string(res[len(res)-1].Rows[0][0])
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		got = pe.Code
	} else if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	if got == "57014" && want == anyValue {
		m.drawn = notKnown
	}
	if got == "57014" && want != "57014" {
		if m.cancels.Load() == 0 {
			return fmt.Errorf("%s: cancelled, and nobody had asked for it", sql)
		}
		if m.tx == 'T' {
			m.tx = 'E'
		}
		if strings.Contains(sql, "advisory") { // locks are not transactional: it may be taken or free
			for {
				_, err := m.c.Exec(ctx, "select pg_advisory_unlock_all()")
				if err == nil {
					break
				}
				if ctx.Err() != nil {
					return err
				}
			}
			m.lock = false
		}
		return nil
	}
	switch {
	case want == anyValue && err == nil:
		m.drawn, m.inTx, want = got, m.tx == 'T', got
	case want == ownValue && (m.drawn != "" && (got == m.drawn || m.drawn == notKnown) || got == "55000" && !m.inTx): // what nobody else has drawn, or nothing
		want = got
	}
	if got != want {
		var tags []string
		for _, r := range res {
			tags = append(tags, fmt.Sprintf("%s (%d rows)", r.CommandTag, len(r.Rows)))
		}
		return fmt.Errorf("%s: got %q, want %q; tags %v, error %v", sql, got, want, tags, err)
	}
	if then != nil && (err == nil || want == got) {
		then()
	}
	if err != nil && m.tx == 'T' {
		m.tx = 'E'
	}
	if m.heard > m.expect {
		return fmt.Errorf("%s: %d notifications came, %d were sent", sql, m.heard, m.expect)
	}
	return nil
}

// What next says of values that are drawn: any, and the last that the session has drawn itself.
const anyValue, ownValue, notKnown = "a value", "its own value", "not known"

var names = []string{"app.a", "app.b", "work_mem", "application_name"}

// next picks a statement, what it must answer, and what it changes.
func (m *model) next() (sql, want string, then func()) {
	r := m.rng
	if m.tx == 'E' {
		switch r.IntN(3) {
		case 0:
			return "rollback", "", m.undo
		case 1:
			return "commit", "", m.undo
		}
		return "select 1", "25P02", nil
	}
	name := names[r.IntN(len(names))]
	value := fmt.Sprintf("%s%d", m.name, r.IntN(5))
	if name == "work_mem" {
		value = fmt.Sprintf("%dMB", 2+r.IntN(60))
	}
	switch r.IntN(25) {
	case 0, 1:
		return fmt.Sprintf("set %s = '%s'", name, value), "", func() { m.set[name] = value }
	case 2:
		if !strings.Contains(name, ".") {
			break
		}
		return fmt.Sprintf("select set_config('%s', '%s', false)", name, value), value, func() { m.set[name] = value }
	case 3, 4, 5, 6:
		return m.show(name)
	case 7:
		if m.tx == 'T' {
			return fmt.Sprintf("set local statement_timeout = %d", 100000+r.IntN(1000)), "", nil
		}
		return "show statement_timeout", "0", nil
	case 8, 9:
		if m.tx == 'I' {
			return "begin", "", func() { m.tx, m.before, m.tempWas, m.inTx = 'T', clone(m.set), m.temp, false }
		}
		return "commit", "", func() { m.tx, m.inTx = 'I', false }
	case 10:
		if m.tx == 'T' {
			return "rollback", "", m.undo
		}
	case 11:
		return "select 1/0", "22012", nil
	case 12:
		if m.temp < 0 {
			return "create temp table mine (a int)", "", func() { m.temp = 0 }
		}
		return "insert into mine values (1)", "", func() { m.temp++ }
	case 13:
		if m.temp >= 0 {
			if r.IntN(3) == 0 {
				return "drop table mine", "", func() { m.temp = -1 }
			}
			return "select count(*) from mine", fmt.Sprint(m.temp), nil
		}
		return "select count(*) from mine", "42P01", nil
	case 14:
		p := fmt.Sprintf("p%d", r.IntN(3))
		if m.prepared[p] {
			return "prepare " + p + " as select 1", "42P05", nil
		}
		return fmt.Sprintf("prepare %s as select '%s' || $1::text", p, m.name), "", func() { m.prepared[p] = true }
	case 15:
		p := fmt.Sprintf("p%d", r.IntN(3))
		if m.prepared[p] {
			return "execute " + p + "('x')", m.name + "x", nil
		}
		return "execute " + p + "('x')", "26000", nil
	case 16:
		p := fmt.Sprintf("p%d", r.IntN(3))
		if m.prepared[p] {
			return "deallocate " + p, "", func() { delete(m.prepared, p) }
		}
	case 17:
		if m.tx == 'I' {
			return fmt.Sprintf("notify %s, '%s'", m.name, m.name), "", func() { m.expect++ }
		}
	case 18:
		if m.tx != 'I' {
			break
		}
		key := m.key()
		if m.lock {
			return "select pg_advisory_unlock(" + key + ")", "t", func() { m.lock = false }
		}
		return "select pg_advisory_unlock(" + key + ")", "f", nil
	case 19:
		if m.tx == 'I' && !m.lock {
			return "select pg_try_advisory_lock(" + m.key() + ")", "t", func() { m.lock = true }
		}
	case 20:
		if m.tx == 'I' && r.IntN(3) == 0 {
			return "select 42", "42", nil
		}
	case 21:
		if r.IntN(4) == 0 {
			return "", "", nil
		}
	case 22:
		return "select nextval('leak_s')", anyValue, nil
	case 23:
		return "insert into leak_rows (v) values ('x') returning id", anyValue, nil
	case 24:
		return "select leak_last()", ownValue, nil // lastval by itself would have each session keep a server
	}
	return m.show(name)
}

// key is the session's lock: another one for each connection, since a server that is closed lets go a little later.
func (m *model) key() string { return fmt.Sprintf("hashtext('%s-%d')", m.name, m.c.PgConn().PID()) }

func (m *model) show(name string) (sql, want string, then func()) {
	want = m.set[name]
	if want == "" {
		want = map[string]string{"work_mem": "4MB"}[name]
	}
	return "select coalesce(current_setting('" + name + "', true), '')", want, nil
}

// undo is what ROLLBACK does to the session. Prepared statements and session locks stay.
func (m *model) undo() { m.tx, m.set, m.temp, m.inTx = 'I', m.before, m.tempWas, false }

func TestNothingLeaksBetweenClients(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 9, nil)
	owner := connectTo(t, a.dsn())
	mustExec(t, owner, "create sequence leak_s; create table leak_rows (id bigint default nextval('leak_s'), v text); create function leak_last() returns bigint language sql as 'select lastval()'")
	t.Cleanup(func() {
		if _, err := owner.Exec(context.Background(), "drop function leak_last; drop table leak_rows; drop sequence leak_s"); err != nil {
			t.Error(err)
		}
	})
	seed := *leakSeed
	if seed == 0 {
		seed = 20261125
	}
	const sessions = 12 // on 9 servers, of which pinned sessions hold some
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*leakN)*100*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for i := range sessions {
		m := &model{name: fmt.Sprintf("s%d", i), rng: rand.New(rand.NewPCG(seed, uint64(i))), dsn: a.dsn() + "?application_name="}
		if err := m.connect(ctx); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		if i%3 == 0 {
			wg.Add(1)
			go func() { // cancels at random moments
				defer wg.Done()
				rng := rand.New(rand.NewPCG(seed, uint64(1000+i)))
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(rng.IntN(4000)) * time.Microsecond):
						m.cancels.Add(1)
						_ = m.target.Load().PgConn().CancelRequest(ctx)
					}
				}
			}()
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer close(stop)
			for n := range *leakN {
				if i%3 != 0 && n%50 == 49 && m.tx == 'I' { // DISCARD ALL, as poolers of applications send it
					if _, err := m.c.Exec(ctx, "discard all"); err != nil {
						t.Errorf("%s: discard all: %v", m.name, err)
						return
					}
					if _, err := m.c.Exec(ctx, "listen "+m.name); err != nil {
						t.Errorf("%s: %v", m.name, err)
						return
					}
					m.set, m.temp, m.prepared, m.lock, m.drawn = map[string]string{}, -1, map[string]bool{}, false, ""
				}
				if err := m.step(ctx); err != nil {
					t.Errorf("seed %d, session %s, step %d: %v\nbefore: %s", seed, m.name, n, err, strings.Join(m.log[max(0, len(m.log)-12):], "; "))
					return
				}
			}
			_ = m.c.Close(ctx)
		}()
	}
	wg.Wait()
	if n := a.Pools.Strays(); n > 0 {
		t.Errorf("%d servers were found changed", n)
	}
}

// A cancel request that comes late must hit nobody else who uses the server by then.
func TestCancelRace(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 1, nil)
	c, victim := connectTo(t, a.dsn()), connectTo(t, a.dsn())
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := victim.Exec(context.Background(), "select pg_sleep(0.0002)"); err != nil {
				done <- err
				return
			}
		}
	}()
	hit := 0
	for i := range 1000 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		sent := make(chan error, 1)
		go func() {
			time.Sleep(time.Duration(i%50) * 100 * time.Microsecond)
			sent <- c.PgConn().CancelRequest(ctx)
		}()
		_, err := c.PgConn().Exec(ctx, fmt.Sprintf("select pg_sleep(%g)", float64(i%40)/10000)).ReadAll()
		var pe *pgconn.PgError
		switch {
		case errors.As(err, &pe) && pe.Code == "57014":
			hit++
		case err != nil:
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("another client was hit: %v", err)
	}
	if hit == 0 {
		t.Error("no cancel request came in time: the test tests nothing")
	}
	t.Logf("%d of 1000 cancel requests came in time", hit)
}

// leaks compares goroutines, servers and sessions with what they were before a test.
func leaks(t *testing.T, a *app) func() {
	t.Helper()
	before, _ := goroutines()
	return func() {
		t.Helper()
		eventually(t, "sessions end", func() bool { return len(a.Server.Sessions()) == 0 })
		eventually(t, "servers come back", func() bool {
			for _, p := range a.Pools.All() {
				if p.Busy() != 0 {
					return false
				}
			}
			return true
		})
		end := time.Now().Add(10 * time.Second)
		for {
			n, stacks := goroutines()
			if n <= before+5 {
				return
			}
			if time.Now().After(end) {
				t.Errorf("%d goroutines, %d before:\n%s", n, before, stacks)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// goroutines counts those of the process, but for a middleman's or a silencer's: it has two for each connection, and some are made anew.
func goroutines() (n int, stacks string) {
	buf := make([]byte, 4<<20)
	var list []string
	for _, s := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if !strings.Contains(s, "(*middleman)") && !strings.Contains(s, "(*silencer)") {
			list = append(list, s)
		}
	}
	return len(list), strings.Join(list, "\n\n")
}

// processMemory is what the process holds of the system's memory after a collection, in bytes.
func processMemory() int64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased)
}

// A cancel request that comes while the proxy looks at a server, behind a statement that has ended, must not cost the
// session what the server holds of it: a temporary table, or a setting that a function has made.
func TestLateCancelLosesNothing(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for _, pinned := range []bool{false, true} {
		c := connectTo(t, d.shopDSN())
		mustExec(t, c, "do $$ begin end $$") // so that a server is open
		if pinned {
			mustExec(t, c, "create temp table mine (a int)")
			mustExec(t, c, "insert into mine values (1)")
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				for i := 0; ; i++ {
					pause := time.Duration(i*7919%20000) * time.Microsecond // with more of them each statement is cancelled before its end, and none late
					select {
					case <-stop:
						return
					case <-time.After(pause):
						_ = c.PgConn().CancelRequest(t.Context())
					}
				}
			})
		}
		uncancelled := func(sql string) (out string) {
			eventually(t, sql+" is let through", func() bool {
				err := c.QueryRow(t.Context(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&out)
				if err != nil && pgCode(err) != "57014" {
					t.Fatal(err)
				}
				return err == nil
			})
			return out
		}
		done, deadline := 0, time.Now().Add(time.Minute+time.Duration(*lateN)*4*time.Second)
		for i := 0; done < *lateN && time.Now().Before(deadline); i++ {
			_, err := c.Exec(t.Context(), fmt.Sprintf("do $$ begin perform set_config('app.late', '%d', false); end $$", i), pgx.QueryExecModeSimpleProtocol)
			if err != nil && pgCode(err) != "57014" {
				t.Error(err)
			}
			if err == nil {
				done++
				if got := uncancelled("select current_setting('app.late', true)"); got != fmt.Sprint(i) {
					t.Fatalf("pinned %v: the setting is %q behind a statement that set it to %d", pinned, got, i)
				}
			}
		}
		close(stop)
		wg.Wait()
		if pinned && uncancelled("select count(*)::text from mine") != "1" {
			t.Error("the temporary table is gone")
		}
		if done < *lateN {
			t.Errorf("pinned %v: only %d of %d statements were let through", pinned, done, *lateN)
		}
	}
}
