package main

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
)

// heapPeak is how much more is on the heap, at most, while f runs, than before it. Little of that is garbage.
func heapPeak(f func()) int64 {
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	now := func() int64 { metrics.Read(sample); return int64(sample[0].Value.Uint64()) }
	before := heap()
	var peak atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			peak.Store(max(peak.Load(), now()))
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	f()
	close(stop)
	<-done
	return peak.Load() - before
}

// A short message may stand for a long one: an unnamed statement's text goes to the server with each Bind, and a Describe is answered with all columns. A
// pipeline of such is passed on by and by, and not gathered.
func TestWhatShortMessagesStandForIsNotGathered(t *testing.T) {
	d := shop(t)
	for name, x := range map[string]struct {
		sql  string
		send func(r *raw)
	}{
		"Bind":     {"select 1 -- " + strings.Repeat("x", 100<<10), func(r *raw) { r.SendBindParts("", nil, nil, nil); r.SendExecute() }},
		"Describe": {"select " + strings.Repeat("1, ", 1500) + "1", func(r *raw) { r.SendDescribe('S', "") }},
	} {
		r := rawTo(t, d.shopDSN())
		r.SendParse("", x.sql, nil)
		r.SendSync()
		r.want('Z', "1ZI")
		const times = 4000
		answers := 0
		grown := heapPeak(func() {
			r.SendBindParts("", nil, nil, nil)
			for range times {
				x.send(r)
			}
			r.SendSync()
			sent := make(chan error, 1)
			go func() { sent <- r.Flush() }()
			for {
				typ, _, err := r.Peek()
				if err != nil {
					t.Fatal(err)
				}
				if typ == 'E' {
					m, _ := r.Next()
					t.Fatalf("%s: %q", name, m.Body())
				}
				if err := r.Skip(); err != nil {
					t.Fatal(err)
				}
				if typ == 'C' || typ == 't' {
					answers++
				}
				if typ == 'Z' {
					break
				}
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%s: %d MB", name, grown>>20)
		if answers != times {
			t.Errorf("%s: %d answers", name, answers)
		}
		if grown > 256<<20 {
			t.Errorf("%s: %d MB are held at once", name, grown>>20)
		}
	}
}

// A pipeline that has not seen its Sync may be as long as its client likes. What is kept of it is what counts in the end.
func TestAnOpenPipelineKeepsLittle(t *testing.T) {
	d := shop(t)
	for name, x := range map[string]struct {
		sql    string
		portal string
		value  string
	}{
		"set_config":   {"select set_config('long.value', $1, false)", "", strings.Repeat("x", 1<<20)},
		"portal names": {"select $1::text", strings.Repeat("p", 1<<20), ""},
	} {
		r := rawTo(t, d.shopDSN())
		r.SendParse("s", x.sql, nil)
		r.SendFlush()
		r.want('1', "1")
		before := heap()
		const times = 200
		rest := append(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 1}, uint32(len(x.value))), x.value...)
		for i := range times {
			portal := ""
			if x.portal != "" {
				portal = fmt.Sprint(i, x.portal)
			}
			r.SendBind(portal, "s", append(rest, 0, 0))
			end := "2"
			if portal == "" {
				r.executeLimited("", 0)
				end = "C<SELECT 1>"
			}
			r.SendFlush()
			if told := r.toldUpTo(end); strings.Contains(told, "E[") || strings.Contains(told, ended) {
				t.Fatalf("%s: %s", name, told)
			}
		}
		grown := heap() - before
		t.Logf("%s: %d MB", name, grown>>20)
		if grown > 64<<20 {
			t.Errorf("%s: %d MB are kept", name, grown>>20)
		}
		r.SendSync()
		r.until('Z')
	}
}

// Names of portals are cut as PostgreSQL cuts them.
func TestLongNamesOfPortals(t *testing.T) {
	t.Parallel()
	d := shop(t)
	long := strings.Repeat("p", 63)
	for name, dsn := range map[string]string{"PostgreSQL": d.cluster.Node("s1-a").DSN("shop"), "two shards": d.shopDSN()} {
		for _, sql := range []string{"select 1", "select count(*) > 0 from orders", "show application_name", "declare " + long + " cursor for select 1"} {
			r := rawTo(t, dsn)
			_ = r.SetDeadline(time.Now().Add(30 * time.Second))
			r.SendQuery("begin")
			r.until('Z')
			r.SendParse("", sql, nil)
			bind := long
			if strings.HasPrefix(sql, "declare") {
				bind = ""
			} else {
				bind += "one"
			}
			r.SendBind(bind, "", []byte{0, 0, 0, 0, 0, 0})
			r.executeLimited(bind, 0)
			if bind == "" { // what SQL declares is known from the pipeline's end on
				r.SendSync()
			}
			r.SendDescribe('P', long+"another")
			r.SendFlush()
			told := r.toldUpTo("T")
			if !strings.HasPrefix(told, "12") || strings.Contains(told, "E[") {
				t.Errorf("%s, %s: %s", name, sql, told)
			}
			r.SendClose('P', long+"a third")
			r.SendDescribe('P', long)
			r.SendSync()
			if got := strings.TrimPrefix(r.toldUpTo("ZE"), "T"); got != "3E[34000]ZE" { // T: of what SQL declares
				t.Errorf("%s, %s: closed: %s", name, sql, got)
			}
			r.SendQuery("rollback")
			if got := r.toldUpTo("ZI"); got != "C<ROLLBACK>ZI" {
				t.Errorf("%s, %s: %s", name, sql, got)
			}
		}
	}
	r := rawTo(t, d.shopDSN())
	for _, n := range []int{9995, 20000} { // which ends a session of PostgreSQL's
		r.run("select 1")
		r.SendDescribe('P', strings.Repeat("p", n))
		r.SendSync()
		r.want('Z', "12D(1)C<SELECT 1>E[08P01]ZI")
	}
	r.SendQuery("begin")
	r.until('Z')
	r.SendParse("", "select 1", nil)
	r.SendBind(long, "", []byte{0, 0, 0, 0, 0, 0})
	r.SendDescribe('P', long+strings.Repeat("p", 9995-len(long)))
	r.SendSync()
	r.want('Z', "12E[08P01]ZE")
}

// The last message of a COPY's data is as short as PostgreSQL wants it.
func TestALongCopyFailIsNotKept(t *testing.T) {
	d := shop(t)
	r := rawTo(t, d.shopDSN())
	r.SendQuery("create temp table copied (a text)")
	r.until('Z')
	r.SendQuery("copy copied from stdin")
	r.until('G')
	const size = 300 << 20
	grown := heapPeak(func() {
		head := binary.BigEndian.AppendUint32([]byte{'f'}, size+4)
		_ = r.Write(head)
		piece := []byte(strings.Repeat("x", 1<<20))
		for range size / len(piece) {
			if err := r.Write(piece); err != nil {
				return
			}
		}
		_ = r.Flush()
		for {
			if _, err := r.Next(); err != nil {
				break
			}
			if r.Pending() == 0 {
				break
			}
		}
	})
	t.Logf("%d MB", grown>>20)
	if grown > 64<<20 {
		t.Errorf("%d MB are held at once", grown>>20)
	}
}

// A long row of a COPY over shards counts while it is not whole, and is refused where there is no memory for it: the session goes on, and so it does where
// its client sends much in one message.
func TestLongRowsOfCopyAreCounted(t *testing.T) {
	d := shop(t)
	m := &d.Engine.Memory
	limit := m.Limit.Load()
	admin := connectTo(t, d.shopDSN())
	mustExec(t, admin, "create table longrows (k int primary key, v text)")
	d.adminExec(t, "CREATE GROUP longrows IN shop KEY (int) BY HASH")
	defer func() {
		m.Limit.Store(limit)
		mustExec(t, admin, "drop table longrows")
		d.adminExec(t, "DROP GROUP longrows IN shop")
	}()
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.longrows IN GROUP longrows KEY (k)")
	r := rawTo(t, d.shopDSN())
	const size = 70 << 20
	row := func(k int, pieces int) string {
		r.SendQuery("copy longrows from stdin")
		r.toldUpTo("G")
		line := []byte(fmt.Sprint(k, "\t", strings.Repeat("x", size), "\n"))
		sent := make(chan error, 1)
		go func() {
			for ; pieces > 1; pieces-- {
				n := len(line) / pieces
				r.SendFrame('d', line[:n])
				_ = r.Flush()
				line = line[n:]
			}
			r.SendFrame('d', line)
			r.SendFrame('c', nil)
			sent <- r.Flush()
		}()
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		return r.toldUpTo("ZI")
	}
	for k, pieces := range []int{1, 500} {
		if got := row(k, pieces); got != "C<COPY 1>ZI" {
			t.Errorf("in %d pieces: %s", pieces, got)
		}
	}
	if n := queryOne[int](t, admin, "select sum(length(v)) from longrows"); n != 2*size {
		t.Errorf("%d characters", n)
	}
	if n := m.Used(memory.Messages); n != 0 {
		t.Errorf("%d bytes are counted still", n)
	}
	m.Limit.Store(2 * (m.Used(memory.Plans) + m.Used(memory.Prepared) + 32<<20))
	if got := row(3, 500); got != "E[53200]ZI" {
		t.Errorf("without memory for it: %s", got)
	}
	if n := m.Used(memory.Messages); n != 0 {
		t.Errorf("%d bytes are counted still", n)
	}
	if got := r.messages("Sync", ""); !strings.Contains(got, "the end") {
		t.Error(got)
	}
}

// A long parameter of a statement over many shards is held for one of their servers at a time.
func TestALongParameterIsNotHeldForEachShard(t *testing.T) {
	d := shop(t)
	const shards, most = 12, 7 // whatever the number of shards is
	d.adminExec(t, "CREATE DATABASE longest")
	defer d.forget(t, "longest")
	ranges := "MINVALUE TO (1) ON l0"
	for i := range shards {
		node, phys := d.cluster.Node([]string{"s1-a", "s2-a"}[i%2]), fmt.Sprintf("longest_%d", i)
		freshDatabase(t, node, phys)
		d.adminExec(t, fmt.Sprintf("CREATE SHARD l%d IN longest NODE '%s'", i, node.DSN(phys)))
		if i > 0 {
			ranges += fmt.Sprintf(", (%d) TO (%d) ON l%d", i, i+1, i)
		}
	}
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "longest"))
	mustExec(t, c, "create table texts (k int primary key, n int)")
	d.adminExec(t, "CREATE GROUP g IN longest KEY (int) BY RANGE ("+ranges+fmt.Sprintf(", (%d) TO MAXVALUE ON l0)", shards))
	d.adminExec(t, "DISTRIBUTE TABLE longest.public.texts IN GROUP g KEY (k)")
	mustExec(t, c, "insert into texts select g, 0 from generate_series(0, 20) g")
	const size = 16 << 20
	long := []byte(strings.Repeat("x", size))
	for _, sql := range []string{"select k from texts where length($1) > k", "update texts set n = length($1) where n >= 0"} {
		run := func() {
			if tag, err := c.PgConn().ExecParams(t.Context(), sql, [][]byte{long}, []uint32{25}, nil, nil).Close(); err != nil || tag.RowsAffected() != 21 {
				t.Fatalf("%s: %v %v", sql, tag, err)
			}
		}
		if times := float64(heapPeak(run)) / size; times > most {
			t.Errorf("%s: %.1f times the parameter is held", sql, times)
		} else {
			t.Logf("%s: %.1f times the parameter is held", sql, times)
		}
	}
}
