//go:build attack

package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// One client sends 100,000 statements that differ, and prepares as many. What is held is bounded, nobody's statements are lost for it, and
// its own stay right.
func TestAttackManyStatementsOfOneClient(t *testing.T) {
	d := shop(t)
	m := &d.Engine.Memory
	heap := func() int64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	other := connectTo(t, d.shopDSN())
	if _, err := other.Prepare(t.Context(), "kept", "select customer_id + $1::int from customers where customer_id = 7"); err != nil {
		t.Fatal(err)
	}
	kept := func(i int) {
		t.Helper()
		if n := queryOne[int](t, other, "kept", i); n != 7+i {
			t.Fatalf("another's prepared statement gives %d, not %d", n, 7+i)
		}
	}
	kept(0)
	before, plans, prepared := heap(), m.Used(memory.Plans), m.Used(memory.Prepared)
	c := rawTo(t, d.shopDSN())
	_ = c.SetDeadline(time.Now().Add(10 * time.Minute))
	const n = 100_000
	for i := range n {
		c.SendQuery(fmt.Sprintf("select customer_id + %d as a%d from customers where customer_id = 7", i, i))
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		if got := c.until('Z'); !strings.Contains(got, fmt.Sprint(7+i)) {
			t.Fatalf("statement %d: %s", i, got)
		}
		if i%10000 == 0 {
			kept(i)
		}
	}
	t.Logf("%d simple statements: plans %d MB, heap %d MB more", n, (m.Used(memory.Plans)-plans)>>20, (heap()-before)>>20)
	if used := m.Used(memory.Plans); used > 64<<20 {
		t.Errorf("plans hold %d MB", used>>20)
	}
	if more := heap() - before; more > 160<<20 {
		t.Errorf("the heap has grown by %d MB", more>>20)
	}
	x := connectTo(t, d.shopDSN())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	have := 0
	var err error
	for ; have < n; have++ {
		if _, err = x.PgConn().Prepare(ctx, fmt.Sprint("s", have), fmt.Sprintf("select customer_id + %d + $1::int as b%d from customers where customer_id = 7", have, have), nil); err != nil {
			break
		}
	}
	t.Logf("%d statements by name, then: %v; prepared %d MB, heap %d MB more", have, err, (m.Used(memory.Prepared)-prepared)>>20, (heap()-before)>>20)
	if code := pgCode(err); have < n && code != "54000" && code != "53200" {
		t.Errorf("refused with %v", err)
	}
	if have < 10_000 {
		t.Errorf("only %d", have)
	}
	for i := 0; i < have; i += 97 {
		res := x.PgConn().ExecPrepared(ctx, fmt.Sprint("s", i), [][]byte{[]byte("1")}, nil, nil).Read()
		if res.Err != nil || len(res.Rows) != 1 || string(res.Rows[0][0]) != fmt.Sprint(8+i) {
			t.Fatalf("statement s%d: %v %v", i, res.Rows, res.Err)
		}
	}
	kept(5)
	mustExec(t, x, "deallocate all")
	if more := heap() - before; more > 200<<20 {
		t.Errorf("the heap has grown by %d MB", more>>20)
	}
	if used := m.Used(memory.Prepared) - prepared; used > 1<<20 {
		t.Errorf("%d bytes are counted for statements that are gone", used)
	}
}

// onShards starts the binary over the shop's two shards.
func onShards(t *testing.T, d *demo, lines string) *process {
	t.Helper()
	dir := t.TempDir()
	doc := mapOf(d, "shop")
	doc.Version = 1
	if err := filestore.New(dir+"/map.json").Save(t.Context(), 0, doc); err != nil {
		t.Fatal(err)
	}
	return launch(t, dir, lines)
}

// highest watches a process's memory until stopped.
func (p *process) highest(t *testing.T) (stop func() int64) {
	var top atomic.Int64
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			top.Store(max(top.Load(), p.rss(t)))
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	return func() int64 { close(done); wg.Wait(); return top.Load() }
}

// stream sends what write writes, and reads the answer without keeping it: how long its rows are in all, and its error.
func stream(t *testing.T, addr string, write func(io.Writer) error) (rows, bytes int64, e *wire.ErrorResponse, err error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, 0, nil, err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(5 * time.Minute))
	c := wire.New(nc, 1<<20)
	c.Send(&wire.Startup{ProtocolVersion: wire.Version3, Parameters: map[string]string{"user": "app", "database": "shop"}})
	if err := c.Flush(); err != nil {
		return 0, 0, nil, err
	}
	if err := toReady(c); err != nil {
		return 0, 0, nil, err
	}
	sent := make(chan error, 1)
	go func() { sent <- write(nc) }()
	var head [5]byte
	for {
		if _, err := io.ReadFull(nc, head[:]); err != nil {
			return rows, bytes, e, errors.Join(err, <-sent)
		}
		n := int64(binary.BigEndian.Uint32(head[1:])) - 4
		switch head[0] {
		case 'D':
			rows++
			bytes += n
			_, err = io.CopyN(io.Discard, nc, n)
		case 'E':
			b := make([]byte, n)
			_, err = io.ReadFull(nc, b)
			e = wire.ParseError(b)
		default:
			_, err = io.CopyN(io.Discard, nc, n)
		}
		if err != nil {
			return rows, bytes, e, err
		}
		if head[0] == 'Z' {
			return rows, bytes, e, <-sent
		}
	}
}

// askBig is a simple query, for stream.
func askBig(sql string) func(io.Writer) error {
	return func(w io.Writer) error {
		b := append(binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(len(sql)+5)), sql...)
		_, err := w.Write(append(b, 0))
		return err
	}
}

// bindBig is a statement with one parameter of n bytes, by the extended protocol.
func bindBig(sql string, n int) func(io.Writer) error {
	return func(w io.Writer) error {
		message := func(typ byte, parts ...string) []byte {
			body := strings.Join(parts, "")
			return append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4)), body...)
		}
		if _, err := w.Write(message('P', "\x00", sql, "\x00\x00\x00")); err != nil {
			return err
		}
		head := []byte("\x00\x00\x00\x00\x00\x01")
		head = binary.BigEndian.AppendUint32(head, uint32(n))
		if _, err := w.Write(append(binary.BigEndian.AppendUint32([]byte{'B'}, uint32(4+len(head)+n+2)), head...)); err != nil {
			return err
		}
		chunk := []byte(strings.Repeat("x", 1<<20))
		for left := n; left > 0; left -= len(chunk) {
			if _, err := w.Write(chunk[:min(left, len(chunk))]); err != nil {
				return err
			}
		}
		_, err := w.Write(append(append(append([]byte{0, 0}, message('D', "P\x00")...), message('E', "\x00\x00\x00\x00\x00")...), message('S')...))
		return err
	}
}

// literalBig is a simple query with a literal of n bytes, written in pieces.
func literalBig(n int) func(io.Writer) error {
	return func(w io.Writer) error {
		const before, after = "select length('", "')\x00"
		head := append(binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(before)+n+len(after))), before...)
		if _, err := w.Write(head); err != nil {
			return err
		}
		chunk := []byte(strings.Repeat("y", 1<<20))
		for left := n; left > 0; left -= len(chunk) {
			if _, err := w.Write(chunk[:min(left, len(chunk))]); err != nil {
				return err
			}
		}
		_, err := io.WriteString(w, after)
		return err
	}
}

// Values of nearly 1 GB, PostgreSQL's most: as a result of one shard, over shards, gathered, and as a parameter. The proxy passes them on in
// pieces or refuses them by name; it does not hold them, and others go on meanwhile.
func TestAttackValuesOfOneGigabyte(t *testing.T) {
	d := shop(t)
	const most = 1000 << 20
	for _, lines := range []string{"", "max_statement_size: 1GB\n", "max_statement_size: 1GB\nmemory_limit: 1GB\n"} {
		p := onShards(t, d, lines)
		large := int64(400) // MB that a message which is refused, or held, may cost
		if lines != "" {
			large = 3500 // the message, the buffer that it outgrew, and the copy for the server
		}
		var others atomic.Int64
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		x, err := pgx.Connect(t.Context(), "postgres://app:app@"+p.addr+"/shop")
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer x.Close(context.Background())
			for i := 1; ctx.Err() == nil; i++ {
				one, done := context.WithTimeout(context.Background(), 30*time.Second)
				var n int
				if err := x.QueryRow(one, "select count(*) from customers where customer_id = $1", 1+i%1000).Scan(&n); err != nil {
					t.Errorf("another client: %v", err)
					done()
					return
				}
				done()
				others.Add(1)
				time.Sleep(10 * time.Millisecond)
			}
		})
		for _, c := range []struct {
			what  string
			write func(io.Writer) error
			bytes int64  // of rows, at least; 0: it is refused
			codes string // with one of these
			limit int64  // of the proxy's memory, in MB
		}{
			{"a row of one shard", askBig(fmt.Sprintf("select repeat('x', %d) from customers where customer_id = 7", most)), most, "", 128},
			{"one more byte than there may be", askBig("select repeat('x', 1073741824)"), 0, "54000", 128},
			{"a row over shards", askBig(fmt.Sprintf("select repeat('x', %d), customer_id from customers where customer_id in (1, 2, 3) order by 2", most/2)), 0, "54000 53200", 400},
			{"rows over shards", askBig(fmt.Sprintf("select repeat('x', %d) from customers where customer_id in (1, 2, 3, 4, 5, 6)", most/8)), 0, "54000 53200", 400},
			{"a parameter", bindBig("select length($1::text)", most), 0, "54000 53200", large},
			{"a literal", literalBig(200 << 20), 0, "54000 53200", large},
			{"rows that are gathered", askBig("select a.x || b.y from (select repeat('x', 300000000) as x, customer_id as c from customers limit 1) a join (select repeat('y', 300000000) as y, order_id as c from orders limit 1) b on a.c < b.c + 1000000000"), 0, "54000 53200", large + 1000},
			{"a literal that PostgreSQL cannot read", literalBig(900 << 20), 0, "54000 53200 XX000", 2 * large},
			{"a message longer than any", literalBig(1100 << 20), 0, "54000 53200 08P01", 2 * large},
		} {
			runtime.GC()
			others.Store(0)
			highest := p.highest(t)
			began := time.Now()
			rows, bytes, e, err := stream(t, p.addr, c.write)
			top := highest() >> 20
			code, said := "", ""
			if e != nil {
				code, said = e.Code, e.Message
			}
			t.Logf("%s%s: %d rows, %d MB, %s %s %v, in %s; the proxy held %d MB at most; another client ran %d statements", lines, c.what, rows, bytes>>20, code, said, err, time.Since(began).Round(time.Millisecond), top, others.Load())
			if code == "" && err == nil && bytes < c.bytes || code != "" && !strings.Contains(c.codes, code) {
				t.Errorf("%s: %d bytes, %s %s", c.what, bytes, code, said)
			}
			if err != nil && code == "" {
				t.Errorf("%s: %v", c.what, err)
			}
			if top > c.limit {
				t.Errorf("%s: the proxy held %d MB", c.what, top)
			}
			if p.ProcessState != nil || syscall.Kill(p.Process.Pid, 0) != nil {
				t.Fatalf("%s: the proxy is dead", c.what)
			}
			before := others.Load()
			eventually(t, c.what+": the other client goes on", func() bool { return others.Load() > before+2 })
		}
		stop()
		wg.Wait()
	}
}

// 10,000 clients over TLS log in, are idle, and run a statement each. Each costs little, and a login in between takes its turn.
func TestAttackTenThousandClientsOverTLS(t *testing.T) {
	const n = 10_000
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	lim.Cur = lim.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil || lim.Cur < n+1000 {
		t.Fatalf("ulimit -n is %d: %v", lim.Cur, err)
	}
	cert, key := certificate(t, t.TempDir())
	p := overShop(t, shop(t), fmt.Sprintf("tls_cert_file: %s\ntls_key_file: %s\n", cert, key))
	base := p.rss(t)
	cfg := &tls.Config{InsecureSkipVerify: true}
	conns := make([]*wire.Conn, n)
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				_ = c.NetConn().Close()
			}
		}
	})
	login := func() (*wire.Conn, error) {
		nc, err := net.DialTimeout("tcp", p.addr, 30*time.Second)
		if err != nil {
			return nil, err
		}
		_ = nc.SetDeadline(time.Now().Add(3 * time.Minute))
		var one [1]byte
		if _, err := nc.Write(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), wire.SSLCode)); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(nc, one[:]); err != nil || one[0] != 'S' {
			return nil, fmt.Errorf("%q %w", one, err)
		}
		c := wire.New(tls.Client(nc, cfg), 1<<20)
		c.Frugal()
		c.Send(&wire.Startup{ProtocolVersion: wire.Version3, Parameters: map[string]string{"user": "app", "database": "shop"}})
		if err := c.Flush(); err != nil {
			return nil, err
		}
		return c, toReady(c)
	}
	each := func(what string, f func(i int) error) {
		t.Helper()
		began := time.Now()
		var next, failed atomic.Int64
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= n {
						return
					}
					if err := f(i); err != nil {
						if failed.Add(1) < 4 {
							t.Errorf("%s, client %d: %v", what, i, err)
						}
					}
				}
			})
		}
		wg.Wait()
		t.Logf("%s: %s for %d clients, %d failed; resident %d MB, %d kB for each", what, time.Since(began).Round(time.Millisecond), n, failed.Load(), p.rss(t)>>20, (p.rss(t)-base)>>10/n)
	}
	each("logins", func(i int) (err error) { conns[i], err = login(); return err })
	if t.Failed() {
		return
	}
	time.Sleep(5 * time.Second) // they are idle
	idle := (p.rss(t) - base) / n
	t.Logf("idle: %d kB for each", idle>>10)
	if idle > 64<<10 {
		t.Errorf("an idle client over TLS costs %d kB", idle>>10)
	}
	slow := time.Duration(0)
	done := make(chan struct{})
	var wg sync.WaitGroup
	logins := 0
	wg.Go(func() { // logins of others take their turn
		for {
			began := time.Now()
			c, err := login()
			if err != nil {
				t.Errorf("a login beside them: %v", err)
				return
			}
			slow = max(slow, time.Since(began))
			logins++
			_ = c.NetConn().Close()
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	each("one statement each", func(i int) error {
		_ = conns[i].SetDeadline(time.Now().Add(3 * time.Minute))
		return wireAsk(conns[i], fmt.Sprintf("select count(*) from customers where customer_id = %d", i))
	})
	close(done)
	wg.Wait()
	t.Logf("%d logins beside them, the slowest took %s", logins, slow.Round(time.Millisecond))
	if logins == 0 {
		t.Error("no login beside them")
	}
}
