package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// A panic amid what takes several messages ends the one session, and all that it had begun: a pipeline before its Sync, a COPY, a cursor or portal in a
// transaction. Of a commit over two shards all is done or nothing, whichever of its steps it is. Its servers serve nobody any more, what it held is counted back.
func TestPanicAmidSeveralMessages(t *testing.T) {
	d := shop(t)
	f := provoke(t, d.app)
	k1, k2 := keysOn(t, d, 710000)
	const one, many = "update customers set name = name || ' amid' where customer_id = 1", "update customers set name = name || ' amid' where customer_id in (1, 2, 3, 4, 5, 6, 7, 8)"
	rows := fmt.Sprintf("%d\tsome amid\tx\tDE\t2026-01-01\n%d\tsome amid\tx\tDE\t2026-01-01\n", k1, k2)
	unseen := fmt.Sprintf("select name as amid%d from customers where customer_id = 1", time.Now().UnixNano()) // so that it is planned
	run := func(p *raw, sql string) {
		p.SendParse("", sql, nil)
		p.SendBindParts("", nil, nil, nil)
		p.SendExecute()
	}
	ask := func(p *raw, sql string) { t.Helper(); p.SendQuery(sql); noError(t, sql, p.until('Z')) }
	flushed := func(p *raw, end byte) { t.Helper(); p.SendFlush(); noError(t, "a pipeline", p.until(end)) }
	portal := func(p *raw, sql string) {
		ask(p, "begin")
		ask(p, one)
		p.SendParse("", sql, nil)
		p.SendBind("held", "", []byte{0, 0, 0, 0, 0, 0})
		p.executeLimited("held", 1)
		p.SendSync()
		noError(t, sql, p.until('Z'))
	}
	on := func(p *raw) { p.executeLimited("held", 1); p.SendSync() }
	copied := func(sql string) func(p *raw) {
		return func(p *raw) {
			p.SendQuery(sql)
			noError(t, sql, p.until('G'))
			p.SendFrame('d', []byte(rows))
		}
	}
	for _, x := range []struct {
		name         string
		begin        func(p *raw) // what comes before
		stage        string
		passed       int // how often the stage is passed before it panics
		end          func(p *raw)
		done, inPart int // rows that are written; parts that are left prepared
	}{
		{"a pipeline before its Execute", func(p *raw) { p.SendParse("", one, nil); p.SendBindParts("", nil, nil, nil); flushed(p, '2') }, "loop", 0, func(p *raw) { p.SendExecute(); p.SendSync() }, 0, 0},
		{"a pipeline before its Sync", func(p *raw) { run(p, one); flushed(p, 'C') }, "loop", 0, func(p *raw) { p.SendSync() }, 0, 0},
		{"a pipeline at its next Parse", func(p *raw) { run(p, one); flushed(p, 'C') }, "planner", 0, func(p *raw) { run(p, unseen); p.SendSync() }, 0, 0},
		{"a pipeline at its answers", func(p *raw) { run(p, one); flushed(p, 'C') }, "answers", 0, func(p *raw) { run(p, "select name from customers where customer_id = 1"); p.SendFlush() }, 0, 0},
		{"a pipeline over shards", func(p *raw) { run(p, many); flushed(p, 'C') }, "loop", 0, func(p *raw) { p.SendSync() }, 0, 0},
		{"a pipeline over shards at its commit", func(p *raw) { run(p, many); flushed(p, 'C') }, "prepared", 0, func(p *raw) { p.SendSync() }, 0, 1},
		{"COPY in", func(*raw) {}, "copy in", 1, copied("copy customers from stdin"), 0, 0},
		{"COPY in on a shard", func(p *raw) { ask(p, "set pgmosaic.shard = 's1'") }, "copy in", 1, copied(fmt.Sprintf("copy customers from stdin where customer_id = %d", k1)), 0, 0},
		{"COPY in amid a transaction", func(p *raw) { ask(p, "begin"); ask(p, one) }, "copy in", 1, copied("copy customers from stdin"), 0, 0},
		{"COPY out", func(p *raw) { ask(p, "begin"); ask(p, one) }, "copy out", 100, func(p *raw) { p.SendQuery("copy customers to stdout") }, 0, 0},
		{"COPY out of a shard", func(p *raw) { ask(p, "set pgmosaic.shard = 's1'"); ask(p, "begin") }, "copy out", 1, func(p *raw) { p.SendQuery("copy customers to stdout") }, 0, 0},
		{"a cursor", func(p *raw) {
			ask(p, "begin")
			ask(p, one)
			ask(p, "declare held cursor for select * from orders where customer_id = 1")
			ask(p, "fetch 1 from held")
		}, "executor", 0, func(p *raw) { p.SendQuery("fetch 1 from held") }, 0, 0},
		{"a portal", func(p *raw) { portal(p, "select * from orders where customer_id = 1") }, "answers", 0, on, 0, 0},
		{"a portal over shards", func(p *raw) { portal(p, "select order_id, status from orders") }, "loop", 0, on, 0, 0},
		{"a portal over shards, at its rows", func(p *raw) { ask(p, "begin"); ask(p, one) }, "merge", 2000, func(p *raw) {
			p.SendParse("", "select order_id, status from orders", nil)
			p.SendBind("held", "", []byte{0, 0, 0, 0, 0, 0})
			on(p)
		}, 0, 0},
		{"COMMIT over shards, before", func(p *raw) { ask(p, "begin"); ask(p, many) }, "commit", 0, func(p *raw) { p.SendQuery("commit") }, 0, 0},
		{"COMMIT over shards, prepared", func(p *raw) { ask(p, "begin"); ask(p, many) }, "prepared", 0, func(p *raw) { p.SendQuery("commit") }, 0, 1},
		{"COMMIT over shards, decided", func(p *raw) { ask(p, "begin"); ask(p, many) }, "decided", 0, func(p *raw) { p.SendQuery("commit") }, 8, 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			held := holds(d)
			other := connectTo(t, d.shopDSN())
			mustExec(t, other, "begin")
			mustExec(t, other, "update customers set name = name where customer_id = 100")
			p := rawTo(t, d.shopDSN())
			x.begin(p)
			servers, before := d.serversOf(p.pid), panics.Count(panics.Session)
			f.after(x.stage, x.passed)
			x.end(p)
			if said := p.until('E'); !strings.HasSuffix(said, "E[XX000]") {
				t.Errorf("the client is told %s", said)
			}
			if m, err := p.Next(); err == nil {
				t.Errorf("the session goes on: %c", m.Type)
			}
			f.happened(t, x.stage)
			if n := panics.Count(panics.Session); n != before+1 {
				t.Errorf("%d panics were counted", n-before)
			}
			eventually(t, "its servers are closed", func() bool { return d.goneFrom(servers) })
			if x.inPart > 0 {
				if n := partsPrepared(t, d); n != x.inPart {
					t.Errorf("%d parts are prepared, want %d: it was not the step that is meant", n, x.inPart)
				}
				r := d.Resolver()
				r.Grace = 200 * time.Millisecond // which also bounds its questions
				eventually(t, "no part is left", func() bool {
					err := r.Resolve(context.Background(), d.ShardsOf(d.Catalog.Current().Databases["shop"]))
					return err == nil && partsPrepared(t, d) == 0
				})
			}
			mustExec(t, other, "commit")
			if n := queryOne[int](t, other, "select count(*) from customers where name like '% amid'"); n != x.done {
				t.Errorf("%d rows are written, want %d", n, x.done)
			}
			mustExec(t, other, many) // no lock is left
			mustExec(t, other, "update customers set name = replace(name, ' amid', '') where customer_id in (1, 2, 3, 4, 5, 6, 7, 8)")
			_ = other.Close(context.Background())
			eventually(t, "what the session held is counted back", func() bool { return holds(d) == held })
		})
	}
	leaks(t, d.app)()
	c := connectTo(t, d.shopDSN())
	eventually(t, "replicas are read again: no write is on its way for ever", func() bool {
		before := readsOfReplicas(d)
		mustExec(t, c, "select name from customers where customer_id = 1")
		return readsOfReplicas(d) > before
	})
}

func noError(t *testing.T, what, said string) {
	t.Helper()
	if strings.Contains(said, "E[") {
		t.Fatalf("%s: %s", what, said)
	}
}

// holds is what is counted for the sessions of a demo.
func holds(d *demo) (n int64) {
	for _, c := range []memory.Consumer{memory.Prepared, memory.Merges, memory.Parsing, memory.Portals, memory.Settings, memory.Transactions, memory.Messages} {
		n += d.Engine.Memory.Used(c)
	}
	return n
}

// goneFrom says whether none of the servers is in a pool any more.
func (d *demo) goneFrom(servers map[string]bool) bool {
	for _, p := range d.Pools.All() {
		for _, s := range p.Servers() {
			if servers[fmt.Sprint(p.Node, s.PID)] {
				return false
			}
		}
	}
	return true
}

// partsPrepared counts what is prepared on the shards of the shop.
func partsPrepared(t *testing.T, d *demo) (n int) {
	t.Helper()
	for _, node := range []string{"s1-a", "s2-a"} {
		c := connectTo(t, d.cluster.Node(node).DSN("shop"))
		n += queryOne[int](t, c, "select count(*) from pg_prepared_xacts where database = 'shop'")
		_ = c.Close(context.Background())
	}
	return n
}
