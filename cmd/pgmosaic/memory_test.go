package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// heap is what lives.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what finalizers and pools let go
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// heapSettles waits until nothing more is let go of what was before, as by sessions that end.
func heapSettles(t *testing.T) {
	t.Helper()
	last := heap()
	eventually(t, "the heap is what it was", func() bool {
		was := last
		last = heap()
		return max(was-last, last-was) < 20<<10
	})
}

// wideSelect has n output columns, and is another statement for each tag.
func wideSelect(n int, tag, from string) string {
	var b strings.Builder
	b.WriteString("select ")
	for i := range n {
		fmt.Fprintf(&b, "total+%d as %s%d, ", i, tag, i)
	}
	return b.String() + "1 from " + from
}

// What SHOW PLANS and the limits say that a plan costs is what it costs.
func TestPlansAreWeighedTruly(t *testing.T) {
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	for name, sql := range map[string]func(i int) string{
		"one shard":     func(i int) string { return fmt.Sprintf("select name as n%d from customers where customer_id = 5", i) },
		"wide, a shard": func(i int) string { return wideSelect(300, fmt.Sprintf("w%d_", i), "orders where customer_id = 5") },
		"wide, all":     func(i int) string { return wideSelect(300, fmt.Sprintf("a%d_", i), "orders where customer_id < 0") },
		"merged": func(i int) string {
			return fmt.Sprintf("select count(*) as m%d, min(name), max(name) from customers", i)
		},
		"sorted": func(i int) string {
			return fmt.Sprintf("select customer_id as s%d, name from customers order by customer_id limit 2", i)
		},
		"gathered": func(i int) string {
			return fmt.Sprintf("select count(distinct name) as g%d from customers where customer_id < 9", i)
		},
		"write": func(i int) string {
			return fmt.Sprintf("update customers as u%d set name = name where customer_id < 0", i)
		},
		"insert of rows": func(i int) string {
			return fmt.Sprintf("insert into customers as i%d values (1, 'a', 'x', 'DE', '2026-01-01')%s on conflict do nothing", i, strings.Repeat(", (1, 'a', 'x', 'DE', '2026-01-01')", 1999))
		},
	} {
		n := 120 // a round
		switch {
		case strings.HasPrefix(name, "wide"):
			n = 20
		case strings.HasSuffix(name, "rows"):
			n = 3
		}
		run := func(from, to int) {
			for i := from; i < to; i++ {
				if _, err := c.Exec(t.Context(), sql(i), pgx.QueryExecModeSimpleProtocol); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		run(0, 5)
		said := d.Engine.Memory.Used(memory.Plans)
		// What servers' watchers and the like hold comes and goes, by megabytes where the machine is busy: the round in
		// the middle counts.
		var rounds []int64
		for from := 5; from < 5+5*n; from += n {
			before := heap()
			run(from, from+n)
			rounds = append(rounds, heap()-before)
		}
		slices.Sort(rounds)
		grown, more := rounds[2]/int64(n), (d.Engine.Memory.Used(memory.Plans)-said)/int64(5*n)
		t.Logf("%-14s %6d bytes a plan, accounted %6d, rounds %d", name, grown, more, rounds)
		const noise = 300 // bytes a plan
		if more*3 < (grown-noise)*2 || more*2 > (grown+noise)*3 {
			t.Errorf("%s: a plan holds %d bytes, and is said to hold %d", name, grown, more)
		}
		if grown > 80<<10 && n > 3 { // the parse tree of a wide one is 400 kB
			t.Errorf("%s: a plan holds %d bytes", name, grown)
		}
	}
}

// Prepared statements cost what they are said to cost; a second session that prepares the same shares their texts and plans.
func TestPreparedStatementsAreWeighedTruly(t *testing.T) {
	d := shop(t)
	m := &d.Engine.Memory
	prepare := func() *pgx.Conn {
		c := connectTo(t, d.shopDSN())
		for i := range 150 {
			if _, err := c.PgConn().Prepare(t.Context(), fmt.Sprint("p", i), wideSelect(250, fmt.Sprintf("p%d_", i), "orders where customer_id = $1"), nil); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	before, said := heap(), m.Used(memory.Plans)+m.Used(memory.Prepared)
	prepare()
	grown, more := heap()-before, m.Used(memory.Plans)+m.Used(memory.Prepared)-said
	t.Logf("150 statements hold %d bytes, accounted %d", grown, more)
	if more*3 < grown*2 || more*2 > grown*3 {
		t.Errorf("150 prepared statements hold %d bytes, and are said to hold %d", grown, more)
	}
	held := m.Used(memory.Prepared)
	second := prepare()
	if again := m.Used(memory.Prepared) - held; again > held*9/10 {
		t.Errorf("the same statements of another session cost %d more bytes, the first's %d", again, held)
	}
	mustExec(t, second, "deallocate all")
	if now := m.Used(memory.Prepared); now != held {
		t.Errorf("%d bytes are counted when the second session has forgotten its statements, %d before", now, held)
	}
}

// What would be too much is refused, for a session and for the process, says who uses what, and is had again when others
// have let go.
func TestMemoryLimits(t *testing.T) {
	t.Parallel()
	d := shop(t)
	m := &d.Engine.Memory
	limit, session := m.Limit.Load(), m.Session.Load()
	t.Cleanup(func() { m.Limit.Store(limit); m.Session.Store(session) })
	c := connectTo(t, d.shopDSN())
	refused := func(what string, err error, detail string) {
		t.Helper()
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "53200" || !strings.Contains(pe.Detail, detail) || pe.Hint == "" {
			t.Errorf("%s: %+v", what, err)
		}
	}
	m.Session.Store(100 << 10)
	count := 0
	var err error
	for ; err == nil && count < 100; count++ {
		_, err = c.PgConn().Prepare(t.Context(), fmt.Sprint("m", count), wideSelect(100, fmt.Sprintf("m%d_", count), "orders where customer_id = $1"), nil)
	}
	refused("a session's statements", err, "session_memory_limit")
	mustExec(t, c, "deallocate m0")
	if _, err := c.PgConn().Prepare(t.Context(), "", "select 1", nil); err != nil {
		t.Errorf("the unnamed statement: %v", err)
	}
	_, err = c.Exec(t.Context(), "prepare q as "+wideSelect(1600, "q", "orders"), pgx.QueryExecModeSimpleProtocol)
	refused("PREPARE", err, "session_memory_limit")

	m.Limit.Store(2 * (m.Used(memory.Plans) + m.Used(memory.Prepared) + 1<<20))
	long := fmt.Sprintf("select 1 in (1%s) as at%d", strings.Repeat(", 1", 20000), time.Now().UnixNano()) // in no cache
	_, err = c.Exec(t.Context(), long, pgx.QueryExecModeSimpleProtocol)
	refused("a long statement", err, "prepared statements")
	mustExec(t, c, "select 1 as still")
	m.Limit.Store(limit)
	mustExec(t, c, long)
	if n := m.Used(memory.Parsing); n != 0 {
		t.Errorf("%d bytes are counted for statements that have been planned", n)
	}
}

// The bytes of messages that have not wholly come count, too: many clients that send half of a long one do not use the process's memory up.
// Who is refused hears why, and goes on; so do the others.
func TestHalfSentMessagesAreCounted(t *testing.T) {
	t.Parallel()
	d := shop(t)
	m := &d.Engine.Memory
	limit := m.Limit.Load()
	t.Cleanup(func() { m.Limit.Store(limit) })
	if n := m.Used(memory.Messages); n != 0 {
		t.Fatalf("%d bytes are counted before", n)
	}
	m.Limit.Store(2 * (m.Used(memory.Plans) + m.Used(memory.Prepared) + 48<<20))
	const half = 10 << 20
	frame, err := (&wire.Bind{PreparedStatement: "p", Parameters: [][]byte{bytes.Repeat([]byte("v"), half)}}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	clients := make([]*raw, 8)
	for i := range clients {
		clients[i] = rawTo(t, d.shopDSN())
		clients[i].SendParse("p", "select length($1::text)", nil)
		clients[i].SendSync()
		clients[i].want('Z', "1ZI")
		if err := errors.Join(clients[i].Write(frame[:len(frame)-1]), clients[i].Flush()); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			eventually(t, "half a message is counted", func() bool { return m.Used(memory.Messages) >= half })
		}
	}
	mustExec(t, connectTo(t, d.shopDSN()), "select 1")
	refused := 0
	for i, c := range clients {
		if err := c.Write(frame[len(frame)-1:]); err != nil {
			t.Fatal(err)
		}
		c.SendExecute()
		c.SendSync()
		switch got := c.until('Z'); {
		case got == "E[53200]ZI" && i > 0: // the first has its room
			refused++
		case got != fmt.Sprintf("2D(%d)C<SELECT 1>ZI", half):
			t.Errorf("client %d: %s", i, got)
		}
		c.SendQuery("select 8")
		if got := c.until('Z'); !strings.Contains(got, "D(8)") {
			t.Errorf("behind it: %s", got)
		}
	}
	if refused == 0 {
		t.Error("nobody was refused")
	}
	gone := rawTo(t, d.shopDSN())
	if err := errors.Join(gone.Write(frame[:len(frame)-1]), gone.Flush()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "half a message is counted", func() bool { return m.Used(memory.Messages) >= half })
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is counted when nothing is kept", func() bool { return m.Used(memory.Messages) == 0 })
}

// What portals are said to hold is what they hold: the rows that are not fetched yet, and what they were bound with.
func TestPortalsAreWeighedTruly(t *testing.T) {
	d := shop(t)
	m := &d.Engine.Memory
	for what, x := range map[string]struct {
		sql   string
		n     int
		param int
		rows  uint32
	}{
		"rows":              {"select order_id, status from orders where status <> $1", 20, 1, 1},
		"few rows":          {"select order_id, status from orders where order_id < 20 and status <> $1", 500, 1, 1},
		"small, only bound": {"select order_id, status from orders where status <> $1", 1000, 1, 0},
		"long parameters":   {"select order_id, status from orders where order_id < 10 and status <> $1", 40, 200 << 10, 1},
		"only bound":        {"select order_id, status from orders where status <> $1", 40, 200 << 10, 0},
	} {
		heapSettles(t)
		p := rawTo(t, d.shopDSN())
		suspend := func(from, to int) {
			p.SendParse("s", x.sql, nil)
			param := strings.Repeat("x", x.param)
			rest := []byte{0, 0, 0, 1}
			rest = append(binary.BigEndian.AppendUint32(rest, uint32(len(param))), param...)
			for i := from; i < to; i++ {
				name := fmt.Sprint("p", i)
				p.SendBind(name, "s", append(rest, 0, 0))
				if x.rows > 0 {
					p.executeLimited(name, x.rows)
				}
				p.SendSync() // one by one: nothing else is held for long messages then
				noError(t, what, p.until('Z'))
			}
			p.SendClose('S', "s")
			p.SendSync()
			p.until('Z')
		}
		p.SendQuery("begin")
		p.until('Z')
		suspend(0, 3)
		before, said := heap(), m.Used(memory.Portals)
		suspend(3, 3+x.n)
		grown, more := heap()-before, m.Used(memory.Portals)-said
		t.Logf("%-16s %d portals hold %d bytes, accounted %d", what, x.n, grown, more)
		const noise = 100 << 10
		if more < 500<<10 || more*3 < (grown-noise)*2 || more*2 > (grown+noise)*3 {
			t.Errorf("%s: %d portals hold %d bytes, and are said to hold %d", what, x.n, grown, more)
		}
		_ = p.Close()
		eventually(t, "the session is gone", func() bool { return m.Used(memory.Portals) == 0 })
	}
}

// Rows that change their shard are counted as they come, not when all that a shard has are there.
func TestRowsThatChangeTheirShardAreCountedAsTheyCome(t *testing.T) {
	d, c := schemesWorld(t, "rekeyed")
	mustExec(t, c, "create table wide (k bigint primary key, v text)")
	d.adminExec(t, "CREATE GROUP g IN rekeyed KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE rekeyed.public.wide IN GROUP g KEY (k)")
	const rows, width = 12000, 7000 // which a server keeps compressed
	mustExec(t, c, fmt.Sprintf("insert into wide select g, repeat('x', %d) from generate_series(1, %d) g", width, rows))
	mustExec(t, c, "set pgmosaic.gather_limit = '1MB'")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := c.Exec(t.Context(), fmt.Sprintf("update wide set k = k + %d", rows))
	runtime.ReadMemStats(&after)
	wantCode(t, err, "54000")
	if n := after.TotalAlloc - before.TotalAlloc; n > rows*width/4 {
		t.Errorf("%d MB were allocated for rows of %d MB, of which 1 MB may be held", n>>20, rows*width>>20)
	}
	if n := d.Engine.Memory.Used(memory.Merges); n != 0 {
		t.Errorf("%d bytes are counted still", n)
	}
	if n := queryOne[int](t, c, "select count(*) from wide where k <= $1", rows); n != rows {
		t.Errorf("%d rows are there still", n)
	}
}

// Rows over shards that a client has not fetched yet, and what portals were bound with, count for the session and the process, and are counted back
// when their portals are gone, however they went.
func TestPortalsAreCounted(t *testing.T) {
	t.Parallel()
	d := shop(t)
	m := &d.Engine.Memory
	limit, session := m.Limit.Load(), m.Session.Load()
	t.Cleanup(func() { m.Limit.Store(limit); m.Session.Store(session) })
	p := rawTo(t, d.shopDSN())
	ask := func(sql string) string { p.SendQuery(sql); return p.until('Z') }
	suspend := func(name string, extra int) string {
		p.SendParse("", "select order_id, status from orders where total > -1 and status <> $1", nil)
		param := strings.Repeat("x", 1+extra)
		rest := []byte{0, 0, 0, 1}
		rest = append(binary.BigEndian.AppendUint32(rest, uint32(len(param))), param...)
		p.SendBind(name, "", append(rest, 0, 0))
		p.executeLimited(name, 1)
		p.SendSync()
		return p.until('Z')
	}
	empty := func(when string) {
		t.Helper()
		if n := m.Used(memory.Portals); n != 0 {
			t.Errorf("%s %d bytes are counted", when, n)
		}
	}
	fill := func(extra int) (n int, said string) {
		for n = range 100 {
			if said = suspend(fmt.Sprint("p", n), extra); strings.Contains(said, "E[") {
				return n, said
			}
		}
		return n, said
	}
	m.Session.Store(100 << 10)
	for what, end := range map[string]string{"ROLLBACK": "rollback", "COMMIT": "commit"} {
		for _, extra := range []int{0, 150 << 10} {
			ask("begin")
			n, said := fill(extra)
			if n < 1 || n > 40 || !strings.Contains(said, "E[53200]") {
				t.Errorf("%d portals, then %s", n, said)
			}
			ask(end)
			empty("after " + what)
		}
	}
	ask("begin")
	suspend("a", 0)
	one := m.Used(memory.Portals)
	if one < 10<<10 {
		t.Errorf("%d bytes are counted for a portal", one)
	}
	p.executeLimited("a", 0)
	p.SendSync()
	p.until('Z')
	if n := m.Used(memory.Portals); n < 100 || n > 2<<10 { // itself
		t.Errorf("when all was fetched %d bytes are counted", n)
	}
	suspend("b", 0)
	p.SendClose('P', "a")
	p.SendClose('P', "b")
	p.SendSync()
	p.until('Z')
	empty("after Close")
	suspend("", 0)
	one = m.Used(memory.Portals)
	suspend("", 0)
	if n := m.Used(memory.Portals); n != one {
		t.Errorf("the unnamed portal, bound twice: %d bytes are counted, and %d for one", n, one)
	}
	m.Session.Store(session)
	m.Limit.Store(2 * (m.Used(memory.Plans) + m.Used(memory.Prepared) + 3*one))
	if n, said := fill(0); n > 8 || !strings.Contains(said, "E[53200]") {
		t.Errorf("the process: %d portals, then %s", n, said)
	}
	m.Limit.Store(limit)
	_ = p.Close()
	eventually(t, "the session is gone, and its portals with it", func() bool { return m.Used(memory.Portals) == 0 })
}
