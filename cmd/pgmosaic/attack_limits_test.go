package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// limitsWorld is a database over two servers that a proxy of its own reaches through taps, with a client, and each shard reached directly.
func limitsWorld(t *testing.T, name string) (d *demo, nodes []*cluster.Node, ts *taps, c *pgx.Conn, direct []*pgx.Conn) {
	d = shop(t)
	nodes = []*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a"), d.cluster.Node("s1-a")}
	doc, ts := crashWorld(t, d, name, nodes)
	t.Cleanup(func() { d.forget(t, name) })
	for i := range 3 {
		direct = append(direct, connectTo(t, nodes[i].DSN(fmt.Sprintf("%s_%d", name, i))))
	}
	c = connectTo(t, dsnFor("app", "app", startApp(t, crashConfig(t, doc)).Server.Addr(), name))
	return d, nodes, ts, c, direct
}

// settled waits until the first two shards have nothing prepared and no server of clients in a transaction, and returns how many rows have an id.
func settled(t *testing.T, what string, direct []*pgx.Conn, id int) (found int) {
	t.Helper()
	eventually(t, what+": nothing is prepared, and no server is left in a transaction", func() bool {
		n := 0
		for _, s := range direct {
			n += queryOne[int](t, s, `select (select count(*) from pg_prepared_xacts where gid like 'pgmosaic:%' and database = current_database())
				+ (select count(*) from pg_stat_activity where usename = 'app' and datname = current_database() and xact_start is not null)`)
		}
		return n == 0
	})
	for i, s := range direct {
		found += queryOne[int](t, s, "select count(*) from moves where shard = $1 and id = $2", i, id)
	}
	return found
}

// writeBoth begins a transaction that has written to two shards.
func writeBoth(t *testing.T, c *pgx.Conn, id int) {
	t.Helper()
	mustExec(t, c, "begin")
	mustExec(t, c, "insert into moves values (0, $1)", id)
	mustExec(t, c, "insert into moves values (1, $1)", id)
}

// A server that has no place for one more prepared transaction undoes the commit on every shard, and says what is used up; with
// a place again, the same client commits.
func TestPreparedTransactionsUsedUp(t *testing.T) {
	t.Parallel()
	_, nodes, _, c, direct := limitsWorld(t, "usedup")
	writeBoth(t, c, 1)
	other := connectTo(t, nodes[1].DSN("postgres"))
	most := queryOne[int](t, other, "select current_setting('max_prepared_transactions')::int")
	var taken []string
	free := func() {
		for _, gid := range taken {
			if _, err := other.Exec(context.Background(), "rollback prepared '"+gid+"'"); err != nil {
				t.Error(err)
			}
		}
		taken = nil
	}
	defer free()
	for i := range most + 1 {
		gid := fmt.Sprintf("takes a place %d", i)
		mustExec(t, other, "begin")
		if _, err := other.Exec(t.Context(), "prepare transaction '"+gid+"'"); err != nil {
			wantCode(t, err, "53200")
			break
		}
		taken = append(taken, gid)
	}
	_, err := c.Exec(t.Context(), "commit")
	wantCode(t, err, "53200")
	if !strings.Contains(fmt.Sprint(err), "maximum number of prepared transactions reached") {
		t.Errorf("the client is told %v", err)
	}
	if c.PgConn().TxStatus() != 'I' {
		t.Errorf("the client is in state %c", c.PgConn().TxStatus())
	}
	if n := settled(t, "used up", direct, 1); n != 0 {
		t.Errorf("%d rows of what was rolled back", n)
	}
	free()
	writeBoth(t, c, 2)
	mustExec(t, c, "commit")
	if n := settled(t, "with places again", direct, 2); n != 2 {
		t.Errorf("%d rows", n)
	}
}

// A server lets nobody in any more while a commit is told to its parts: it is committed, nobody reads around it, and it is
// finished when there is room.
func TestConnectionsUsedUpInACommit(t *testing.T) {
	t.Parallel()
	_, nodes, ts, c, direct := limitsWorld(t, "fullhouse")
	for i, s := range []step{{"commit prepared", 1}} {
		what, node := fmt.Sprint(s), nodes[s.shard]
		writeBoth(t, c, i)
		var crowd []*pgx.Conn
		leave := func() {
			for _, x := range crowd {
				_ = x.Close(context.Background())
			}
			crowd = nil
		}
		defer leave()
		enter := func() bool {
			for {
				x, err := pgx.Connect(t.Context(), node.DSN("postgres"))
				if err != nil {
					return pgCode(err) == "53300"
				}
				crowd = append(crowd, x)
			}
		}
		full := make(chan bool, 1)
		ts.arm(s, during, func(int) bool { full <- enter(); return false })
		_, err := c.Exec(t.Context(), "commit")
		if !<-full {
			t.Fatalf("%s: the server is not full", what)
		}
		enter() // the place of the connection that was cut
		t.Logf("%s, with %d in the way: %v", what, len(crowd), err)
		var at int
		switch code := pgCode(err); {
		case err == nil:
			at = 2
		case code == "40001" || code == "53300":
		case code == "08007":
			at = -1
		default:
			t.Errorf("%s: %v", what, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		var n int
		if err := c.QueryRow(ctx, "select count(*) from moves where id = $1", i).Scan(&n); err == nil && at >= 0 && n != at {
			t.Errorf("%s: a read while it is full sees %d rows", what, n)
		} else {
			t.Logf("%s: a read while it is full: %d %v", what, n, err)
		}
		cancel()
		leave()
		if n := settled(t, what, direct, i); n != 0 && n != 2 || at >= 0 && n != at {
			t.Errorf("%s: %d rows, and the client was told %v", what, n, err)
		}
		c = connectTo(t, c.Config().ConnString())
		eventually(t, what+": its clients are served again", func() bool {
			_, err := c.Exec(t.Context(), "select count(*) from moves")
			return err == nil
		})
	}
}

// Timeouts that an administrator sets for the role on a server hit in a commit over shards: all of it is undone,
// PostgreSQL's own code is told, and no server is left in a transaction.
func TestServersTimeoutsInACommit(t *testing.T) {
	t.Parallel()
	_, nodes, _, c, direct := limitsWorld(t, "timeouts")
	id := 0
	for _, x := range []struct {
		name, setting string
		shard         int // where the setting is
		arrange       func(shard int) (undo func())
		codes         string
	}{
		{"statement_timeout at a decision", "statement_timeout", 0, lockDecisions(t, nodes, "timeouts"), "57014"},
		{"statement_timeout at a part", "statement_timeout", 1, lockDecisions(t, nodes, "timeouts"), "57014"},
		{"lock_timeout at a decision", "lock_timeout", 0, lockDecisions(t, nodes, "timeouts"), "55P03"},
		{"lock_timeout at a part", "lock_timeout", 1, lockDecisions(t, nodes, "timeouts"), "55P03"},
	} {
		t.Run(x.name, func(t *testing.T) {
			id++
			db := fmt.Sprintf("timeouts_%d", x.shard)
			mustExec(t, direct[x.shard], "alter role app in database "+db+" set "+x.setting+" = '1s'")
			defer mustExec(t, direct[x.shard], "alter role app in database "+db+" reset "+x.setting)
			// Servers that the pool has are of before.
			for _, s := range direct {
				mustExec(t, s, "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app' and datname like 'timeouts%'")
			}
			c := c
			eventually(t, "the proxy has new servers", func() bool {
				var err error
				if c, err = pgx.Connect(t.Context(), c.Config().ConnString()); err != nil {
					return false
				}
				_, err = c.Exec(t.Context(), "select count(*) from moves")
				return err == nil
			})
			defer c.Close(context.Background())
			undo := x.arrange(x.shard)
			writeBoth(t, c, id)
			_, err := c.Exec(t.Context(), "commit")
			undo()
			if err == nil || !strings.Contains(x.codes, pgCode(err)) {
				t.Errorf("the client is told %v", err)
			}
			t.Logf("told: %v", err)
			if n := settled(t, x.name, direct, id); n != 0 {
				t.Errorf("%d rows of what was rolled back", n)
			}
			writeBoth(t, c, id+1000)
			mustExec(t, c, "commit")
			if n := settled(t, x.name, direct, id+1000); n != 2 {
				t.Errorf("%d rows of the transaction after it", n)
			}
		})
	}
}

// lockDecisions keeps everybody from writing a decision on a shard.
func lockDecisions(t *testing.T, nodes []*cluster.Node, name string) func(int) func() {
	return func(shard int) func() {
		hold := connectTo(t, nodes[shard].DSN(fmt.Sprintf("%s_%d", name, shard)))
		mustExec(t, hold, "begin")
		mustExec(t, hold, "lock table pgmosaic.decision in exclusive mode")
		return func() { mustExec(t, hold, "rollback") }
	}
}

// A server cuts a client off that is idle, amid a transaction over shards or outside of one. The client is told on its next statement,
// whatever that is, nothing is committed in part, and its session goes on.
func TestServersIdleTimeouts(t *testing.T) {
	t.Parallel()
	_, _, _, c, direct := limitsWorld(t, "idlers")
	freshServers := func() {
		for _, s := range direct {
			mustExec(t, s, "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app' and datname like 'idlers%'")
		}
		eventually(t, "the proxy has new servers", func() bool {
			x, err := pgx.Connect(t.Context(), c.Config().ConnString())
			if err != nil {
				return false
			}
			defer x.Close(context.Background())
			_, err = x.Exec(t.Context(), "select count(*) from moves")
			return err == nil
		})
	}
	gone := func(shard int) {
		t.Helper()
		eventually(t, "the server has cut it off", func() bool {
			return queryOne[int](t, direct[shard], "select count(*) from pg_stat_activity where usename = 'app' and datname = current_database() and state like 'idle in transaction%'") == 0
		})
	}
	const shard = 1
	mustExec(t, direct[shard], "alter role app in database idlers_1 set idle_in_transaction_session_timeout = '300ms'")
	freshServers()
	for id, x := range []struct {
		next, code string
		one        bool // the transaction has written to the server that is cut off, only
	}{
		{"commit", "40001", false},
		{"commit", "25P03", true},
		{"insert into moves values (0, 1000)", "", false}, // it needs another server: the COMMIT is told
		{"insert into moves values (1, 1000)", "25P03", false},
		{"select count(*) from moves", "25P03", false},
		{"rollback", "", false},
	} {
		what := fmt.Sprintf("%s, one shard: %t", x.next, x.one)
		c := connectTo(t, c.Config().ConnString()+[]string{"", "?default_query_exec_mode=simple_protocol"}[id%2])
		if x.one {
			mustExec(t, c, "begin")
			mustExec(t, c, "insert into moves values (1, $1)", id)
		} else {
			writeBoth(t, c, id)
		}
		gone(shard)
		_, err := c.Exec(t.Context(), x.next)
		if err != nil && pgCode(err) != x.code || err == nil && x.code != "" {
			t.Errorf("%s: told %v", what, err)
		}
		if strings.HasPrefix(x.next, "insert") && err == nil {
			_, err := c.Exec(t.Context(), "commit")
			wantCode(t, err, "40001")
		}
		if c.PgConn().TxStatus() != 'I' {
			mustExec(t, c, "rollback")
		}
		if n := settled(t, what, direct, id) + settled(t, what, direct, 1000); n != 0 {
			t.Errorf("%s: %d rows of what was cut off", what, n)
		}
		mustExec(t, c, "insert into moves values (0, $1)", id+2000)
	}
	mustExec(t, direct[shard], "alter role app in database idlers_1 reset idle_in_transaction_session_timeout")
	// Outside of a transaction nobody hears of it, but a session that keeps its server.
	mustExec(t, direct[0], "alter role app in database idlers_0 set idle_session_timeout = '300ms'")
	defer mustExec(t, direct[0], "alter role app in database idlers_0 reset idle_session_timeout")
	freshServers()
	x, pinned := connectTo(t, c.Config().ConnString()), connectTo(t, c.Config().ConnString())
	mustExec(t, pinned, "create temporary table mine (n int)")
	for i := range 3 {
		mustExec(t, x, "select count(*) from moves")
		eventually(t, "idle servers are cut off", func() bool {
			return queryOne[int](t, direct[0], "select count(*) from pg_stat_activity where usename = 'app' and datname = current_database()") == 0
		})
		if _, err := x.Exec(t.Context(), "insert into moves values (0, $1)", 9000+i); err != nil { // the server may go while the statement is on its way
			wantCode(t, err, "57P05")
			mustExec(t, x, "insert into moves values (0, $1)", 9000+i)
		}
	}
	_, err := pinned.Exec(t.Context(), "select count(*) from mine")
	if code := pgCode(err); code != "57P05" && code != "08006" {
		t.Errorf("a session that keeps its server: %v", err)
	}
	mustExec(t, pinned, "select count(*) from moves")
}
