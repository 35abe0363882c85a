package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// transaction_timeout, which PostgreSQL 17 has, ends transactions as it does there, on one shard and on several, whoever has set it; what
// several shards do together is done wholly or not at all, and no other client has what one has set.
func TestTransactionTimeout(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "timedout")
	mustExec(t, c, "create table people (id int primary key, name text)")
	mustExec(t, c, "insert into people select i, 'n' || i from generate_series(1, 50) i")
	d.adminExec(t, "CREATE GROUP g IN timedout KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE timedout.public.people IN GROUP g KEY (id)")
	nodes := []*pgx.Conn{d.on(t, "timedout", 0), d.on(t, "timedout", 1)}
	doc, timeout := mapOf(d, "timedout"), "transaction_timeout"
	newer := queryOne[int](t, nodes[0], "select current_setting('server_version_num')::int") >= 170000
	if !newer { // it is an unknown parameter there, and stays one
		_, err := c.Exec(t.Context(), "set transaction_timeout = '1s'")
		wantCode(t, err, "42704")
		mustExec(t, c, "select count(*) from people")
		timeout = asIn17(t, doc)
	}
	cfg := crashConfig(t, doc)
	cfg.PoolSize = 1
	a := startApp(t, cfg)
	dsn := dsnFor("app", "app", a.Server.Addr(), "timedout")
	var keys []int // one of each shard
	for _, n := range nodes {
		keys = append(keys, queryOne[int](t, n, "select min(id) from people"))
	}
	both := fmt.Sprintf("select string_agg(name, ' ' order by id) from people where id in (%d, %d)", keys[0], keys[1])
	update := func(i int) string {
		return fmt.Sprintf("update people set name = 'late' where id = %d", keys[i])
	}
	c, other := connectTo(t, dsn), connectTo(t, dsn)
	before := queryOne[string](t, c, both)
	same := func(what string) {
		t.Helper()
		if got := queryOne[string](t, other, both); got != before {
			t.Errorf("%s: the rows are %s", what, got)
		}
		for _, shard := range []string{"timedout_s0", "timedout_s1"} {
			mustExec(t, other, "set pgmosaic.shard = '"+shard+"'")
			if got := simply(t, other, "show "+timeout); got != "0" {
				t.Errorf("%s: another client's %s is %s on %s", what, timeout, got, shard)
			}
			mustExec(t, other, "reset pgmosaic.shard")
		}
	}
	idle := func() { // the servers have been told when they are gone
		eventually(t, "the servers of the transaction have ended", func() bool {
			for _, n := range nodes {
				if queryOne[int](t, n, "select count(*) from pg_stat_activity where datname = current_database() and usename = 'app' and state = 'idle in transaction'") > 0 {
					return false
				}
			}
			return true
		})
	}
	// A transaction writes and is ended. Where the machine is slow it is so before its last statement, which is told as well.
	ended := func(what string, shards []int, last string) {
		t.Helper()
		statement, err := "", error(nil)
		for _, i := range shards {
			if statement = update(i); err == nil {
				_, err = c.Exec(t.Context(), statement)
			}
		}
		if err == nil {
			idle()
			statement = last
			_, err = c.Exec(t.Context(), last)
		}
		if code := pgCode(err); code != "25P04" && (statement != "commit" || code != atCommit(len(shards))) {
			t.Errorf("%s, %v, %s: %v", what, shards, statement, err)
		}
		if c.IsClosed() {
			t.Fatalf("%s: the session has ended", what)
		}
		if c.PgConn().TxStatus() != 'I' {
			mustExec(t, c, "rollback")
		}
	}
	ways := [][]int{{0}, {1}, {0, 1}, {1, 0}}
	if !newer { // each waits
		ways = ways[1:3]
	}
	for _, set := range []string{"set " + timeout + " = '400ms'", ""} {
		for _, shards := range ways {
			for _, last := range []string{strings.Replace(update(shards[0]), "name = 'late'", "name = name", 1), update(shards[0]), "commit"} {
				what := fmt.Sprint(set, shards, last)
				begin := "begin"
				if set == "" {
					begin = "begin; set local " + timeout + " = '400ms'"
				} else {
					mustExec(t, c, set)
				}
				mustExec(t, c, begin, pgx.QueryExecModeSimpleProtocol)
				ended(what, shards, last)
				mustExec(t, c, "reset "+timeout)
				same(what)
			}
		}
	}
	if newer {
		// While a part is prepared, and while the decider commits: a deferred trigger sleeps on one shard.
		for i, n := range nodes {
			mustExec(t, n, "create function doze() returns trigger language plpgsql as $$begin perform pg_sleep(1); return null; end$$")
			mustExec(t, n, "create constraint trigger doze after update on people deferrable initially deferred for each row execute function doze()")
			for _, first := range []int{0, 1} {
				mustExec(t, c, "set transaction_timeout = '400ms'")
				mustExec(t, c, "begin")
				mustExec(t, c, update(first))
				mustExec(t, c, update(1-first))
				_, err := c.Exec(t.Context(), "commit")
				if code := pgCode(err); code != "25P04" && code != atCommit(2) {
					t.Errorf("commit, %d is slow, %d was first: %v", i, first, err)
				}
				mustExec(t, c, "reset transaction_timeout")
				same(fmt.Sprintf("commit, %d is slow", i))
			}
			mustExec(t, n, "drop trigger doze on people; drop function doze()", pgx.QueryExecModeSimpleProtocol)
		}
	} else {
		t.Log("what ends a transaction that is busy was not tried: that takes PostgreSQL 17")
	}
	// Set on the server for the role.
	for i, n := range nodes {
		mustExec(t, n, fmt.Sprintf("alter role app in database timedout_%d set %s = '400ms'", i, timeout))
	}
	if _, err := a.Admin.Exec(t.Context(), "RECONNECT", false); err != nil {
		t.Fatal(err)
	}
	c = connectTo(t, dsn)
	for _, shards := range [][]int{{0}, {0, 1}} {
		mustExec(t, c, "begin")
		ended("of the role", shards, "commit")
	}
	for i, n := range nodes { // of a machine that is slow, the role's setting would end a statement over both
		if got, want := queryOne[string](t, n, "select name from people where id = $1", keys[i]), fmt.Sprintf("n%d", keys[i]); got != want {
			t.Errorf("%d is %s", keys[i], got)
		}
	}
	eventually(t, "nothing is prepared", func() bool {
		for _, n := range nodes {
			if queryOne[int](t, n, "select count(*) from pg_prepared_xacts where database = current_database()") > 0 {
				return false
			}
		}
		return true
	})
}

// asIn17 has the nodes of a map, which know no transaction_timeout, answer as those do that have it: what ends a transaction that idles is
// told as PostgreSQL 17 tells that one takes too long. It returns what sets that.
func asIn17(t *testing.T, doc *shardmap.Document) (parameter string) {
	t.Helper()
	for i, n := range doc.Nodes {
		cfg, err := pgx.ParseConfig(n.DSN)
		if err != nil {
			t.Fatal(err)
		}
		moved := *n
		moved.DSN = dsnFor(cfg.User, cfg.Password, renaming(t, net.JoinHostPort(cfg.Host, itoa(int(cfg.Port))), "C25P03\x00", "C25P04\x00"), cfg.Database) + "?sslmode=disable"
		doc.Nodes[i] = &moved
	}
	return "idle_in_transaction_session_timeout"
}

// renaming stands before a node, and returns where. In the errors that the node tells it writes one text in the place of another, of the same
// length.
func renaming(t *testing.T, node, old, now string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	pass := func(to io.Writer, from io.Reader) error {
		head := make([]byte, 5)
		if _, err := io.ReadFull(from, head); err != nil {
			return err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(from, body); err != nil {
			return err
		}
		if head[0] == 'E' {
			body = bytes.ReplaceAll(body, []byte(old), []byte(now))
		}
		_, err := to.Write(append(head, body...))
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", node)
			if err != nil {
				_ = c.Close()
				continue
			}
			go func() { _, _ = io.Copy(s, c); _ = s.Close() }()
			go func() {
				for pass(c, s) == nil {
				}
				_, _ = c.Close(), s.Close()
			}()
		}
	}()
	return l.Addr().String()
}

// atCommit is what COMMIT says besides where a server has ended the transaction. One that does so at the last moment may have committed, and says
// the same, so the error itself proves nothing: over several shards it is found out, over one it cannot be.
func atCommit(shards int) string {
	if shards > 1 {
		return "40001"
	}
	return "08007"
}
