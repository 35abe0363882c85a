package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// raw is a connection that is logged in and then spoken to message by message.
type raw struct {
	t testing.TB
	*wire.Conn
	pid uint32 // that its session goes by
}

func rawTo(t testing.TB, dsn string) *raw {
	t.Helper()
	pc, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := pc.SyncConn(t.Context()); err != nil {
		t.Fatal(err)
	}
	h, err := pc.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	r := &raw{t, wire.New(h.Conn, 1<<30), h.PID}
	_ = r.SetDeadline(time.Now().Add(3 * time.Minute))
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// until reads messages to one of the given type and returns the types seen, with errors' codes in brackets and
// the text of rows' first column.
func (r *raw) until(end byte) string {
	r.t.Helper()
	if err := r.Flush(); err != nil {
		r.t.Fatal(err)
	}
	var b strings.Builder
	for {
		m, err := r.Next()
		if err != nil {
			r.t.Fatalf("%v, behind %q", err, b.String())
		}
		b.WriteByte(m.Type)
		switch m.Type {
		case 'E':
			b.WriteString("[" + wire.ParseError(m.Body()).Code + "]")
		case 'D':
			if vals, err := wire.RowValues(nil, m.Body()); err == nil && len(vals) > 0 {
				b.WriteString("(" + string(vals[0]) + ")")
			}
		case 'C':
			b.WriteString("<" + strings.TrimRight(string(m.Body()), "\x00") + ">")
		case 'Z':
			b.WriteByte(m.Body()[0])
		}
		if m.Type == end {
			return b.String()
		}
	}
}

func (r *raw) want(end byte, want string) {
	r.t.Helper()
	if got := r.until(end); got != want {
		r.t.Errorf("got  %s\nwant %s", got, want)
	}
}

func (r *raw) run(sql string) {
	r.SendParse("", sql, nil)
	r.SendBindParts("", nil, nil, nil)
	r.SendExecute()
}

func (r *raw) executeLimited(portal string, n uint32) {
	b := append([]byte(portal), 0)
	r.SendFrame('E', binary.BigEndian.AppendUint32(b, n))
}

// What a session may do with messages, each on one server and over shards.
func TestProtocolByHand(t *testing.T) {
	t.Parallel()
	d := shop(t)
	one := small(t, d, 3, nil)
	for name, dsn := range map[string]string{"PostgreSQL": d.cluster.Node("s1-a").DSN("shop"), "one shard": one.dsn(), "two shards": d.shopDSN()} {
		t.Run(name, func(t *testing.T) {
			r := rawTo(t, dsn)
			r.SendQuery("")
			r.want('Z', "IZI")
			r.SendQuery("select; select 1")
			r.want('Z', "TDC<SELECT 1>TD(1)C<SELECT 1>ZI")
			r.SendQuery("select 1; select nosuch; select 2")
			if got := r.until('Z'); !strings.HasSuffix(got, "E[42703]ZI") {
				t.Error(got)
			}

			// Flush gives partial results, and invents no Sync.
			r.run("select 1")
			r.SendFlush()
			r.want('C', "12D(1)C<SELECT 1>")
			r.run("select 2")
			r.SendSync()
			r.want('Z', "12D(2)C<SELECT 1>ZI")

			// What a session asks of itself leaves the answers around it in place.
			r.run("select 1")
			r.run("select name from pg_prepared_statements where name = 'nosuch'")
			r.run("select 3")
			r.SendSync()
			r.want('Z', "12D(1)C<SELECT 1>12C<SELECT 0>12D(3)C<SELECT 1>ZI")

			// After an error everything is skipped up to Sync, and no further.
			r.run("select 1/0")
			r.run("select 3")
			r.SendSync()
			r.run("select 4")
			r.SendSync()
			r.want('Z', "1E[22012]ZI")
			r.want('Z', "12D(4)C<SELECT 1>ZI")

			// A pipeline is one transaction.
			r.run("create table if not exists piped (a int)")
			r.SendSync()
			r.until('Z')
			r.run("insert into piped values (1)")
			r.run("select 1/0")
			r.SendSync()
			r.want('Z', "12C<INSERT 0 1>1E[22012]ZI")
			r.SendQuery("select count(*) from piped")
			r.want('Z', "TD(0)C<SELECT 1>ZI")

			// A simple query behind a pipeline without Sync belongs to its transaction.
			r.run("insert into piped values (1)")
			r.SendFlush()
			r.want('C', "12C<INSERT 0 1>")
			r.SendQuery("select 1/0")
			r.want('Z', "E[22012]ZI")
			r.SendQuery("select count(*) from piped")
			r.want('Z', "TD(0)C<SELECT 1>ZI")
			r.SendQuery("drop table piped")
			r.until('Z')

			// Errors that leave the session open.
			r.SendBindParts("nosuch", nil, nil, nil)
			r.SendSync()
			r.want('Z', "E[26000]ZI")
			r.executeLimited("nosuch", 0)
			r.SendSync()
			r.want('Z', "E[34000]ZI")
			r.SendParse("twice", "select 1", nil)
			r.SendParse("twice", "select 2", nil)
			r.SendSync()
			r.want('Z', "1E[42P05]ZI")
			r.SendClose('S', "never there")
			r.SendClose('S', "twice")
			r.SendSync()
			r.want('Z', "33ZI")

			// The unnamed statement, parsed again with the same text: with other types, while a portal of it is open, and where
			// the text means something else by now. A Parse that fails leaves none.
			for _, oid := range []uint32{23, 25, 25} {
				r.SendParse("", "select pg_typeof($1)", []uint32{oid})
				r.SendBindParts("", nil, [][]byte{[]byte("1")}, nil)
				r.SendExecute()
				r.SendSync()
				r.want('Z', map[uint32]string{23: "12D(integer)C<SELECT 1>ZI", 25: "12D(text)C<SELECT 1>ZI"}[oid])
			}
			r.SendParse("", "select pg_typeof($1)", []uint32{25})
			r.SendParse("", "select pg_typeof($1)", []uint32{25})
			r.SendSync()
			r.want('Z', "11ZI")
			r.SendQuery("begin")
			r.until('Z')
			for _, portal := range []string{"open", ""} {
				r.SendParse("", "select generate_series(1, 3)", nil)
				r.SendBind(portal, "", []byte{0, 0, 0, 0, 0, 0})
				r.executeLimited(portal, 2)
			}
			r.executeLimited("open", 2)
			r.executeLimited("", 2)
			r.SendSync()
			r.want('Z', "12D(1)D(2)s12D(1)D(2)sD(3)C<SELECT 1>D(3)C<SELECT 1>ZT")
			r.SendQuery("commit; create table again (a int)")
			r.until('Z')
			r.run("select a from again")
			r.SendSync()
			r.want('Z', "12C<SELECT 0>ZI")
			r.SendParse("renames", "alter table again rename a to b", nil)
			r.SendBind("", "renames", []byte{0, 0, 0, 0, 0, 0})
			r.SendExecute()
			r.SendSync()
			r.want('Z', "12C<ALTER TABLE>ZI")
			r.run("select a from again")
			r.SendSync()
			r.want('Z', "E[42703]ZI")
			r.SendBindParts("", nil, nil, nil)
			r.SendSync()
			r.want('Z', "E[26000]ZI")
			for _, sql := range []string{"select 1", "selec 1"} {
				r.SendParse("", sql, nil)
				r.SendSync()
				r.want('Z', map[string]string{"select 1": "1ZI", "selec 1": "E[42601]ZI"}[sql])
			}
			r.SendBindParts("", nil, nil, nil)
			r.SendSync()
			r.want('Z', "E[26000]ZI")
			r.SendQuery("drop table again")
			r.until('Z')

			// A named statement whose Parse failed, or was skipped behind an error, does not exist and can be parsed anew; the
			// one before the error exists.
			r.SendParse("before", "select 1", nil)
			r.run("select 1/0")
			r.SendParse("skipped", "select 3", nil)
			r.SendBind("", "skipped", []byte{0, 0, 0, 0, 0, 0})
			r.SendExecute()
			r.SendParse("begins", "begin", nil)
			r.SendSync()
			r.want('Z', "11E[22012]ZI")
			r.SendParse("failed", "select nosuch", nil)
			r.SendBind("", "failed", []byte{0, 0, 0, 0, 0, 0})
			r.SendExecute()
			r.SendSync()
			r.want('Z', "E[42703]ZI")
			for name, sql := range map[string]string{"skipped": "select 3", "failed": "select 4", "begins": "select 5"} {
				r.SendBind("", name, []byte{0, 0, 0, 0, 0, 0})
				r.SendSync()
				r.want('Z', "E[26000]ZI")
				r.SendParse(name, sql, nil)
				r.SendBind("", name, []byte{0, 0, 0, 0, 0, 0})
				r.SendExecute()
				r.SendSync()
				r.want('Z', "12D("+sql[7:]+")C<SELECT 1>ZI")
			}
			r.SendBind("", "before", []byte{0, 0, 0, 0, 0, 0})
			r.SendExecute()
			r.SendSync()
			r.want('Z', "2D(1)C<SELECT 1>ZI")

			// What cannot run in a transaction block cannot run behind other statements of its pipeline either.
			r.run("set timezone = 'UTC'")
			r.run("vacuum customers")
			r.SendSync()
			if got := strings.ReplaceAll(r.until('Z'), "S", ""); got != "12C<ET>12E[25001]ZI" {
				t.Error(got)
			}

			// A $1 inside a definition or PREPARE is no parameter of the statement.
			for sql, tag := range map[string]string{
				"create function plus_one(int) returns int language sql immutable return $1 + 1": "CREATE FUNCTION",
				"prepare with_one as select $1::int":                                             "PREPARE",
			} {
				r.run(sql)
				r.SendSync()
				r.want('Z', "12C<"+tag+">ZI")
			}
			r.SendQuery("drop function plus_one; deallocate with_one")
			r.until('Z')

			// A SET is undone with its pipeline, also where a server judges what failed.
			r.run("set application_name = 'undone'")
			r.run("selec 1")
			r.SendSync()
			r.until('Z')
			r.SendQuery("select current_setting('application_name')")
			r.want('Z', "TD()C<SELECT 1>ZI")

			// A portal of a transaction that has failed does not run, though it is one that would end it.
			r.SendQuery("begin")
			r.until('Z')
			r.SendParse("", "commit", nil)
			r.SendBind("ends", "", []byte{0, 0, 0, 0, 0, 0})
			r.run("select 1/0")
			r.SendSync()
			r.want('Z', "121E[22012]ZE")
			r.executeLimited("ends", 0)
			r.SendSync()
			r.want('Z', "E[25P02]ZE")
			r.SendQuery("rollback")
			r.until('Z')

			// Portals with row limits.
			for _, sql := range []string{"select generate_series(1, 5)", "select customer_id from customers where customer_id between 1 and 5 order by customer_id"} {
				if strings.Contains(sql, "between") && name != "two shards" {
					continue
				}
				r.SendQuery("begin")
				r.until('Z')
				r.SendParse("", sql, nil)
				r.SendBind("pp", "", []byte{0, 0, 0, 0, 0, 0})
				r.executeLimited("pp", 2)
				r.SendSync()
				r.want('Z', "12D(1)D(2)sZT")
				r.executeLimited("pp", 2)
				r.SendFlush()
				r.want('s', "D(3)D(4)s")
				r.executeLimited("pp", 0)
				r.executeLimited("pp", 0)
				r.SendSync()
				r.want('Z', "D(5)C<SELECT 1>C<SELECT 0>ZT")
				r.SendQuery("commit")
				r.want('Z', "C<COMMIT>ZI")
			}
			r.SendBind("pp", "", []byte{0, 0, 0, 0, 0, 0}) // a portal ends with its transaction
			r.SendSync()
			r.until('Z')
			r.executeLimited("pp", 0)
			r.SendSync()
			r.want('Z', "E[34000]ZI")

			// The fast path: abs(int4) is function 1397.
			call := binary.BigEndian.AppendUint32(nil, 1397)
			call = append(call, 0, 1, 0, 0, 0, 1, 0, 0, 0, 3)
			call = append(call, "-42"...)
			r.SendFrame('F', append(call, 0, 0))
			r.want('Z', "VZI")

			// COPY data that nobody asked for is dropped.
			r.SendFrame('d', []byte("x\n"))
			r.SendFrame('c', nil)
			r.SendQuery("select 6")
			r.want('Z', "TD(6)C<SELECT 1>ZI")
			r.SendQuery("begin; select 1/0")
			if got := r.until('Z'); !strings.HasSuffix(got, "E[22012]ZE") {
				t.Error(got)
			}
			r.SendQuery("select 1")
			r.want('Z', "E[25P02]ZE")
			r.SendQuery("commit and chain")
			r.want('Z', "C<ROLLBACK>ZT")
			r.SendQuery("rollback")
			r.want('Z', "C<ROLLBACK>ZI")
			r.SendQuery("rollback and chain")
			r.want('Z', "E[25P01]ZI")
			r.SendFrame('~', nil)
			if got := r.until('E'); got != "E[08P01]" {
				t.Error(got)
			}
			if _, err := r.Next(); err == nil {
				t.Error("the session went on behind an unknown message")
			}
		})
	}
}

func TestCopyErrorReachesTheClientAtOnce(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	r := rawTo(t, a.dsn())
	r.SendQuery("create temp table ct (a int)")
	r.until('Z')
	for _, extended := range []bool{false, true} {
		if extended {
			r.run("copy ct from stdin")
			r.SendSync()
			r.want('G', "12G")
		} else {
			r.SendQuery("copy ct from stdin")
			r.want('G', "G")
		}
		r.SendFrame('d', []byte("1\nnonsense\n"))
		if extended {
			r.want('E', "E[22P02]")
			r.SendFrame('d', []byte("2\n")) // what was on its way is swallowed
			r.SendFrame('c', nil)
			r.SendSync()
			r.want('Z', "ZI")
		} else {
			r.want('Z', "E[22P02]ZI")
			r.SendFrame('d', []byte("2\n"))
			r.SendFrame('c', nil)
		}
		r.SendQuery("select count(*) from ct")
		r.want('Z', "TD(0)C<SELECT 1>ZI")
	}
	r.SendQuery("copy ct from stdin")
	r.want('G', "G")
	r.SendFrame('f', []byte("I changed my mind\x00"))
	r.want('Z', "E[57014]ZI")
	r.SendQuery("copy ct from stdin")
	r.want('G', "G")
	r.SendFrame('d', []byte("1\n2\n"))
	r.SendFlush() // ignored, as PostgreSQL does
	r.SendFrame('d', []byte("3\n"))
	r.SendFrame('c', nil)
	r.want('Z', "C<COPY 3>ZI")
}

// A client that sends 64 MB of statements while 64 MB of results come back: nobody may wait for anybody for
// ever, and nothing of that size may be kept in memory.
func TestBigPipelineAndBigResults(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	r := rawTo(t, a.dsn())
	const n, size = 640, 100 << 10
	done := make(chan error, 1)
	go func() {
		pad := strings.Repeat("x", size)
		for range n {
			r.SendParse("", "select $1::text || 'y'", nil)
			r.SendBindParts("", nil, [][]byte{[]byte(pad)}, nil)
			r.SendExecute()
			if r.Out() > 1<<20 {
				if err := r.Flush(); err != nil {
					done <- err
					return
				}
			}
		}
		r.SendSync()
		done <- r.Flush()
	}()
	rows, bytes := 0, 0
	in := wire.New(r.NetConn(), 1<<30)
	for {
		typ, n, err := in.Peek()
		if err != nil {
			t.Fatal(err)
		}
		if typ == 'D' {
			rows++
			bytes += n
		}
		if typ == 'E' {
			m, _ := in.Next()
			t.Fatal(wire.ParseError(m.Body()).Message)
		}
		if err := in.Skip(); err != nil {
			t.Fatal(err)
		}
		if typ == 'Z' {
			break
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if rows != n || bytes < n*size {
		t.Errorf("%d rows, %d bytes", rows, bytes)
	}
}

func TestHugeRowsAndHugeCopies(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, small(t, d, 2, nil).dsn())
	if n := queryOne[int](t, c, "select length($1)", strings.Repeat("é", 20<<20)); n != 20<<20 {
		t.Errorf("a parameter of 40 MB came as %d characters", n)
	}
	var got string
	if err := c.QueryRow(t.Context(), "select repeat('x', 200000000)").Scan(&got); err != nil || len(got) != 200000000 {
		t.Errorf("a row of 200 MB: %d bytes, %v", len(got), err)
	}
	got = ""
	_, err := c.Exec(t.Context(), "select 1 -- "+strings.Repeat("x", 65<<20))
	wantCode(t, err, "54000") // max_statement_size
	mustExec(t, c, "create temp table big (a text)")
	pr, pw := io.Pipe()
	go func() {
		line := []byte(strings.Repeat("y", 99) + "\n")
		for range 1 << 20 {
			if _, err := pw.Write(line); err != nil {
				return
			}
		}
		_ = pw.Close()
	}()
	if tag, err := c.PgConn().CopyFrom(t.Context(), pr, "copy big from stdin"); err != nil || tag.RowsAffected() != 1<<20 {
		t.Fatalf("%v %v", tag, err)
	}
	if tag, err := c.PgConn().CopyTo(t.Context(), io.Discard, "copy big to stdout"); err != nil || tag.RowsAffected() != 1<<20 {
		t.Errorf("%v %v", tag, err)
	}
}

func TestNotices(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for _, dsn := range []string{small(t, d, 2, nil).dsn(), d.shopDSN()} {
		cfg, err := pgconn.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		var notices []string
		cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message) }
		c, err := pgconn.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close(context.Background()) }()
		if _, err := c.Exec(t.Context(), "do $$ begin for i in 1..3 loop raise notice 'n%', i; end loop; end $$; drop table if exists nosuch; commit").ReadAll(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(notices, "|"); !strings.Contains(got, "n1|n2|n3|") || !strings.Contains(got, "does not exist, skipping") {
			t.Errorf("notices %q", got)
		}
		if _, err := c.Exec(t.Context(), "set application_name = 'told'; set datestyle = 'SQL, DMY'").ReadAll(); err != nil {
			t.Fatal(err)
		}
		if a, s := c.ParameterStatus("application_name"), c.ParameterStatus("DateStyle"); a != "told" || s != "SQL, DMY" {
			t.Errorf("parameters %q %q", a, s)
		}
	}
}

func TestUnixSocketAndDirectTLS(t *testing.T) {
	t.Parallel()
	d := shop(t)
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	a := small(t, d, 2, func(c *config.Config) {
		c.UnixDir, c.TLSCert, c.TLSKey = dir, cert, key
		c.AuthRules = []config.Rule{{Local: true, User: "app", Method: "trust"}, {Method: "scram-sha-256"}}
	})
	_, port, err := net.SplitHostPort(a.Server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c := connectTo(t, fmt.Sprintf("host=%s port=%s user=app dbname=shop", dir, port)) // no password
	if got := queryOne[string](t, c, "select current_user::text"); got != "app" {
		t.Error(got)
	}
	if _, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%s user=admin dbname=pgmosaic", dir, port)); err == nil {
		t.Error("an administrator came in without a password")
	}
	mode, err := os.Stat(filepath.Join(dir, ".s.PGSQL."+port))
	if err != nil || mode.Mode().Perm() != 0o777 {
		t.Errorf("%v %v", mode, err)
	}
	d2 := connectTo(t, a.dsn()+"?sslmode=require&sslnegotiation=direct")
	if got := queryOne[int](t, d2, "select 42"); got != 42 {
		t.Error(got)
	}
	// TLS from the first byte needs PostgreSQL's name by ALPN.
	tc, err := tls.Dial("tcp", a.Server.Addr(), &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		_ = tc.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err = tc.Read(make([]byte, 1)); err == nil {
			t.Error("a direct connection without ALPN was let in")
		}
		_ = tc.Close()
	}
}

func TestVersionNegotiation(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nc, err := net.Dial("tcp", d.Server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	for _, code := range []uint32{wire.GSSCode, wire.SSLCode} { // each once, in this order too
		if err := wire.WriteAll(nc, binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, code)); err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		if _, err := io.ReadFull(nc, b[:]); err != nil || b[0] != 'N' {
			t.Fatalf("%q %v", b, err)
		}
	}
	c := wire.New(nc, 1<<20)
	c.Send(&wire.Startup{ProtocolVersion: 3<<16 | 9999, Parameters: map[string]string{"user": "app", "database": "shop", "_pq_.fancy": "1", "_pq_.other": "2"}})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	m, err := c.Next()
	if err != nil || m.Type != 'v' {
		t.Fatalf("%q %v", m.Type, err)
	}
	if b := m.Body(); binary.BigEndian.Uint32(b) != wire.Version3 || binary.BigEndian.Uint32(b[4:]) != 2 || string(b[8:]) != "_pq_.fancy\x00_pq_.other\x00" {
		t.Errorf("%q", b)
	}
	if m, err = c.Next(); err != nil || m.Type != 'R' { // exactly one, and the login goes on
		t.Errorf("%q %v", m.Type, err)
	}
}

func TestBeginHasItsModesHoweverItComes(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, small(t, d, 2, nil).dsn())
	for _, sql := range []string{
		"begin isolation level repeatable read read only; select current_setting('transaction_isolation') || current_setting('transaction_read_only')",
		"begin; set transaction isolation level repeatable read read only; select current_setting('transaction_isolation') || current_setting('transaction_read_only')",
		"begin isolation level repeatable read read only; commit and chain; select current_setting('transaction_isolation') || current_setting('transaction_read_only')",
	} {
		if got := simply(t, c, sql); got != "repeatable readon" {
			t.Errorf("%s: %s", sql, got)
		}
		simply(t, c, "rollback")
	}
}

func TestStatementTimeoutCountsTheClientsPauses(t *testing.T) {
	t.Parallel()
	d := shop(t)
	r := rawTo(t, small(t, d, 2, nil).dsn())
	r.SendQuery("set statement_timeout = '100ms'")
	r.until('Z')
	r.SendParse("late", "select 1", nil)
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	r.SendBindParts("late", nil, nil, nil)
	r.SendExecute()
	r.SendSync()
	r.want('Z', "1E[57014]ZI")
	r.SendBindParts("late", nil, nil, nil) // the statement was prepared before the pause
	r.SendExecute()
	r.SendSync()
	r.want('Z', "2D(1)C<SELECT 1>ZI")
}

// ends terminates a server's session and waits until it is gone.
func ends(t testing.TB, killer *pgx.Conn, pid int) {
	t.Helper()
	if !queryOne[bool](t, killer, "select pg_terminate_backend($1, 60000)", pid) {
		t.Fatalf("the session of process %d does not end", pid)
	}
}

func TestErrorOfALostServerAndTheSessionLivesOn(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	c, killer := connectTo(t, a.dsn()), connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	pid := queryOne[int](t, c, "select pg_backend_pid()")
	ends(t, killer, pid)
	mustExec(t, c, "select 1") // it was idle: nobody need know
	done := make(chan error, 1)
	go func() { _, err := c.Exec(context.Background(), "select pg_sleep(20)"); done <- err }()
	eventually(t, "it sleeps", func() bool {
		return queryOne[int](t, killer, "select count(pg_terminate_backend(pid)) from pg_stat_activity where query = 'select pg_sleep(20)' and state = 'active'") == 1
	})
	wantCode(t, <-done, "57P01") // the server's own word
	mustExec(t, c, "select 1")
	mustExec(t, c, "begin")
	pid = queryOne[int](t, c, "select pg_backend_pid()")
	ends(t, killer, pid)
	_, err := c.Exec(t.Context(), "select 1")
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "57P01" && pe.Code != "08006" {
		t.Errorf("%v", err)
	}
	simplyFails(t, c, "select 1", "25P02")
	mustExec(t, c, "rollback")
	mustExec(t, c, "select 1")
}

// A server that is lost while a session is pinned to it is given up by whatever statement finds it gone.
func TestAPinnedServerThatIsLostIsGivenUp(t *testing.T) {
	d := shop(t)
	a := small(t, d, 2, nil)
	killer := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	check := leaks(t, a)
	for _, found := range []string{"select 1", "set work_mem = '5MB'", "discard all", "discard temp", "begin", "deallocate all"} {
		c, err := pgx.Connect(t.Context(), a.dsn())
		if err != nil {
			t.Fatal(err)
		}
		mustExec(t, c, "create temp table mine (a int)")
		pid := queryOne[int](t, c, "select pg_backend_pid()")
		mustExec(t, killer, "select pg_terminate_backend($1)", pid)
		eventually(t, "it is gone", func() bool {
			return queryOne[int](t, killer, fmt.Sprintf("select count(*)::int from pg_stat_activity where pid = %d", pid)) == 0
		})
		_, err = c.Exec(t.Context(), found)
		t.Logf("%s: %v", found, err)
		_ = c.Close(context.Background())
	}
	check()
}

// A client that says goodbye before anything else, or nothing that is a startup packet, gets no answer, as from PostgreSQL.
func TestGoodbyeBeforeStartup(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 1, nil)
	for _, addr := range []string{hostOf(t, d.cluster.Node("s1-a").DSN("shop")), a.Server.Addr()} {
		for _, said := range []string{"X\x00\x00\x00\x04", "GET / HTTP/1.1\r\n\r\n"} {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
			if _, err := nc.Write([]byte(said)); err != nil {
				t.Fatal(err)
			}
			if answer, err := io.ReadAll(nc); len(answer) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s answers %q to %q: %v", addr, answer, said, err)
			}
			_ = nc.Close()
		}
	}
}

func hostOf(t testing.TB, dsn string) string {
	t.Helper()
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(cfg.Host, itoa(int(cfg.Port)))
}

// What the startup packet names itself wins over its options, whatever the letters of the name.
func TestOptionsLoseAgainstParameters(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 1, nil)
	for _, dsn := range []string{d.cluster.Node("s1-a").DSN("shop"), a.dsn()} {
		cfg, err := pgconn.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		cfg.RuntimeParams = map[string]string{
			"options": "-c application_name=a -c datestyle=german -c work_mem=1MB -c work_mem=2MB", "application_name": "b", "DateStyle": "SQL, DMY",
		}
		c, err := pgconn.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Exec(t.Context(), "select current_setting('application_name') || ', ' || current_setting('datestyle') || ', ' || current_setting('work_mem')").ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if got := string(res[0].Rows[0][0]) + ", " + c.ParameterStatus("DateStyle"); got != "b, SQL, DMY, 2MB, SQL, DMY" {
			t.Errorf("%s: %s", dsn, got)
		}
		_ = c.Close(context.Background())
	}
}

// The limit of prepared statements is of those with a name.
func TestUnnamedStatementsHaveNoLimit(t *testing.T) {
	t.Parallel()
	d := shop(t)
	r := rawTo(t, small(t, d, 1, nil).dsn())
	const limit = 20000
	for i := range limit {
		r.SendParse("s"+itoa(i), "begin", nil)
		if i%1000 == 999 {
			r.SendSync()
			if got := r.until('Z'); got != strings.Repeat("1", 1000)+"ZI" {
				t.Fatal(got[len(got)-40:])
			}
		}
	}
	r.SendParse("more", "select 1", nil)
	r.SendSync()
	r.want('Z', "E[54000]ZI")
	r.run("select 1")
	r.SendSync()
	r.want('Z', "12D(1)C<SELECT 1>ZI")
}

// An error in a pipeline reaches a client that has sent no Sync and waits, and so does what came before it.
func TestErrorInAPipelineComesAtOnce(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	for _, dsn := range []string{d.cluster.Node("s1-a").DSN("shop"), a.dsn(), d.shopDSN()} {
		r := rawTo(t, dsn)
		r.SendParse("", "selec 1", nil)
		r.want('E', "E[42601]")
		r.SendSync()
		r.want('Z', "ZI")
		r.run("select 7")
		r.run("select 1/0")
		r.run("select 8")
		r.want('E', "12D(7)C<SELECT 1>1E[22012]")
		r.SendSync()
		r.want('Z', "ZI")
		r.run("select 9")
		r.SendSync()
		r.want('Z', "12D(9)C<SELECT 1>ZI")
	}
}

// Drivers know by the routine that they may prepare their statement again, and then it has the new columns at once.
func TestChangedResultIsToldAsPostgreSQLTellsIt(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 3, nil)
	c := connectTo(t, a.dsn())
	mustExec(t, c, "create table reshaped (a int)")
	defer func() { mustExec(t, c, "drop table reshaped") }()
	direct := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	for i, ddl := range []*pgx.Conn{c, direct} { // known here, and behind the proxy's back
		r := rawTo(t, a.dsn())
		routine := func() string {
			r.Send(&wire.Bind{PreparedStatement: "s"})
			r.SendExecute()
			r.SendSync()
			if err := r.Flush(); err != nil {
				t.Fatal(err)
			}
			var out string
			for {
				m, err := r.Next()
				if err != nil {
					t.Fatal(err)
				}
				switch m.Type {
				case 'E':
					e := wire.ParseError(m.Body())
					out = e.Code + " " + e.Routine
				case 'Z':
					return out
				}
			}
		}
		prepare := func() string {
			r.SendClose('S', "s")
			r.SendParse("s", "select * from reshaped", nil)
			r.SendDescribe('S', "s")
			r.SendSync()
			return r.until('Z')
		}
		if got := prepare(); got != "31tTZI" {
			t.Fatal(got)
		}
		if got := routine(); got != "" {
			t.Fatal(got)
		}
		mustExec(t, ddl, fmt.Sprintf("alter table reshaped add column x%d int", i))
		for range 3 { // on a server that knows the statement, and on others
			if got := routine(); got != "0A000 RevalidateCachedQuery" {
				t.Errorf("by %d: %q", i, got)
			}
			rotate(t, a, 2)
		}
		for range 3 {
			if got := prepare(); got != "31tTZI" {
				t.Fatal(got)
			}
			if got := routine(); got != "" {
				t.Errorf("by %d, prepared again: %q", i, got)
			}
			rotate(t, a, 2)
		}
	}
}

// What triggers say reaches the client from every shard: of a COPY in and out, at COMMIT, at a commit in two phases.
func TestNoticesOfEveryShard(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "create table noisy (k int primary key, n int)")
	d.adminExec(t, "CREATE GROUP noisy IN shop KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.noisy IN GROUP noisy KEY (k)")
	defer func() {
		mustExec(t, c, "drop table noisy")
		mustExec(t, c, "drop function say()")
		d.adminExec(t, "DROP GROUP noisy IN shop")
	}()
	mustExec(t, c, "create function say() returns trigger language plpgsql as $$begin raise notice '% %', tg_name, new.k; return new; end$$")
	mustExec(t, c, "create trigger soon before insert on noisy for each row execute function say()")
	mustExec(t, c, "create constraint trigger late after insert on noisy deferrable initially deferred for each row execute function say()")
	cfg, err := pgconn.ParseConfig(d.shopDSN())
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { said = append(said, n.Message) }
	pc, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close(context.Background()) }()
	heard := func(what string, want ...string) {
		t.Helper()
		slices.Sort(said)
		slices.Sort(want)
		if !slices.Equal(said, want) {
			t.Errorf("%s: %q, want %q", what, said, want)
		}
		said = nil
	}
	all := func(from, to int) (out []string) {
		for k := from; k <= to; k++ {
			out = append(out, fmt.Sprintf("soon %d", k), fmt.Sprintf("late %d", k))
		}
		return out
	}
	if _, err := pc.CopyFrom(t.Context(), strings.NewReader("1,1\n2,2\n3,3\n4,4\n5,5\n6,6\n"), "copy noisy from stdin csv"); err != nil {
		t.Fatal(err)
	}
	heard("COPY", all(1, 6)...)
	for what, sql := range map[string]string{
		"INSERT": "insert into noisy values (11,1), (12,1), (13,1), (14,1), (15,1), (16,1)",
		"COMMIT": "begin; insert into noisy values (21,1); insert into noisy values (22,1); insert into noisy values (23,1); insert into noisy values (24,1); insert into noisy values (25,1); insert into noisy values (26,1); commit",
		"single": "insert into noisy values (31,1)",
	} {
		if _, err := pc.Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
		switch what {
		case "INSERT":
			heard(what, all(11, 16)...)
		case "COMMIT":
			heard(what, all(21, 26)...)
		default:
			heard(what, all(31, 31)...)
		}
	}
	mustExec(t, c, "create function tell(k int) returns int language plpgsql immutable as $$begin raise notice 'out %', k; return k; end$$")
	defer mustExec(t, c, "drop function tell(int)")
	if _, err := pc.CopyTo(t.Context(), io.Discard, "copy (select tell(k) from noisy where k between 11 and 16) to stdout"); err != nil {
		t.Fatal(err)
	}
	heard("COPY of a query", "out 11", "out 12", "out 13", "out 14", "out 15", "out 16")

	// Of the table itself, where a policy speaks.
	for _, sql := range []string{"create policy spoken on noisy using (k not between 11 and 16 or tell(k) > 0)", "alter table noisy enable row level security, force row level security"} {
		mustExec(t, c, sql)
	}
	defer mustExec(t, c, "drop policy spoken on noisy")
	if _, err := pc.CopyTo(t.Context(), io.Discard, "copy noisy to stdout"); err != nil {
		t.Fatal(err)
	}
	heard("COPY of the table", "out 11", "out 12", "out 13", "out 14", "out 15", "out 16")
}
