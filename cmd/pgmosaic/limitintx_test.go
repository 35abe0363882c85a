package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// threeKeys is a database of three shards that have one key each, 0, 1 and 2, in tables a, which is empty, and b, of 30 rows; own is home's.
func threeKeys(t *testing.T, name string) (*demo, *pgx.Conn) {
	d, c := schemesWorld(t, name)
	for _, sql := range []string{
		"create table a (s int not null, id int not null, primary key (s, id))", "create table b (s int not null, id int not null, primary key (s, id))", "create table own (n int)",
		"insert into b select i % 3, i from generate_series(0, 29) i",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, fmt.Sprintf("CREATE GROUP g IN %[1]s KEY (int) BY LIST ((0) ON %[1]s_s0, (1) ON %[1]s_s1, (2) ON %[1]s_s2)", name))
	for _, table := range []string{"a", "b"} {
		d.adminExec(t, "DISTRIBUTE TABLE "+name+".public."+table+" IN GROUP g KEY (s)")
	}
	return d, c
}

// In a transaction a SELECT with LIMIT waits also for shards whose rows are not needed any more: what was written or SET there stays, and an
// error that they have is told.
func TestLimitInATransactionUndoesNothing(t *testing.T) {
	t.Parallel()
	d, c := threeKeys(t, "limited")
	home, other := d.on(t, "limited", 0), d.on(t, "limited", 1)
	const lock = "begin; lock table b in access exclusive mode"
	for _, x := range []struct {
		steps []string
		sql   string
		args  []any
	}{
		{[]string{"begin", "insert into a values (1, 1)"}, "select * from b limit 1", nil},
		{[]string{"begin", "set work_mem = '7MB'", "insert into a values (0, 1)"}, "select * from b limit $1", []any{1}},
	} {
		for _, sql := range x.steps {
			mustExec(t, c, sql)
		}
		mustExec(t, other, lock)
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), x.sql, x.args...)
			done <- err
		}()
		eventually(t, "it is done, or waits for a shard", func() bool {
			return len(done) > 0 || queryOne[bool](t, other, "select exists (select from pg_locks where not granted and relation = 'b'::regclass)")
		})
		mustExec(t, other, "rollback")
		if err := <-done; err != nil {
			t.Errorf("%s: %v", x.sql, err)
		}
		if tag, err := c.Exec(t.Context(), "commit"); err != nil || tag.String() != "COMMIT" {
			t.Errorf("behind %s: %s, %v", x.sql, tag, err)
		}
	}
	if h, o := queryOne[int](t, home, "select count(*) from a"), queryOne[int](t, other, "select count(*) from a"); h != 1 || o != 1 {
		t.Errorf("%d rows on home, %d on the other shard", h, o)
	}
	for s := range 3 {
		if got := queryOne[string](t, c, "select current_setting('work_mem') from b where s = $1 limit 1", s); got != "7MB" {
			t.Errorf("work_mem is %s on shard %d", got, s)
		}
	}
	for _, sql := range []string{"begin", "insert into a values (1, 2)", "set local lock_timeout = '10ms'"} {
		mustExec(t, c, sql)
	}
	mustExec(t, other, lock)
	simplyFails(t, c, "select * from b limit 1", "55P03")
	mustExec(t, other, "rollback")
	simplyFails(t, c, "select 1", "25P02")
	mustExec(t, c, "rollback")
}

// aborter passes on what a server is sent, with ABORT in place of COMMIT: it answers as one does whose transaction has failed.
type aborter struct{ io.Writer }

func (a aborter) Write(b []byte) (int, error) {
	if _, err := a.Writer.Write(bytes.ReplaceAll(b, []byte("COMMIT\x00"), []byte("ABORT \x00"))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// changing stands before the node of a map, which it moves there: what that is sent passes wrap.
func changing(t *testing.T, doc *shardmap.Document, node int, wrap func(io.Writer) io.Writer) {
	t.Helper()
	moved := *doc.Nodes[node]
	cfg, err := pgx.ParseConfig(moved.DSN)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", net.JoinHostPort(cfg.Host, itoa(int(cfg.Port))))
			if err != nil {
				_ = c.Close()
				continue
			}
			go func() { _, _ = io.Copy(wrap(s), c); _ = s.Close() }()
			go func() { _, _ = io.Copy(c, s); _ = c.Close() }()
		}
	}()
	moved.DSN = dsnFor(cfg.User, cfg.Password, l.Addr().String(), cfg.Database) + "?sslmode=disable"
	doc.Nodes[node] = &moved
}

// Whose server answers COMMIT with ROLLBACK, though nobody was told of an error, is told at COMMIT; one on which the transaction has only read is not
// taken for one that has kept what was SET.
func TestCommitsThatAServerHasNotDone(t *testing.T) {
	t.Parallel()
	d, _ := threeKeys(t, "undoing")
	doc := mapOf(d, "undoing")
	changing(t, doc, 1, func(to io.Writer) io.Writer { return aborter{to} })
	a := startApp(t, crashConfig(t, doc))
	c := connectTo(t, dsnFor("app", "app", a.Server.Addr(), "undoing"))
	for _, x := range []struct{ sql, code string }{
		{"begin; insert into a values (1, 1)", "40000"},
		{"begin; select from b where s = 1", "40000"},
		{"set pgmosaic.multi_shard_commit = best_effort; begin; insert into a values (1, 1); insert into a values (0, 1)", "40000"},
		{"begin; set work_mem = '7MB'; insert into a values (0, 2); select from b where s = 1", ""},
	} {
		mustExec(t, c, x.sql)
		if _, err := c.Exec(t.Context(), "commit"); x.code != "" {
			wantCode(t, err, x.code)
		} else if err != nil {
			t.Errorf("%s: %v", x.sql, err)
		}
		if s := c.PgConn().TxStatus(); s != 'I' {
			t.Fatalf("%s: the session is in state %c", x.sql, s)
		}
	}
	if h, o := queryOne[int](t, d.on(t, "undoing", 0), "select count(*) from a"), queryOne[int](t, d.on(t, "undoing", 1), "select count(*) from a"); h != 1 || o != 0 {
		t.Errorf("%d rows on home, %d on the other shard", h, o)
	}
	for s := range 3 {
		if got := queryOne[string](t, c, "select current_setting('work_mem') from b where s = $1 limit 1", s); got != "7MB" {
			t.Errorf("work_mem is %s on shard %d", got, s)
		}
	}
}
