package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// transaction_timeout, which PostgreSQL 17 has, ends transactions as it does there, on one shard and on several, whoever has set it; what
// several shards do together is done wholly or not at all, and no other client has what one has set.
func TestTransactionTimeout(t *testing.T) {
	t.Parallel()
	d := shop(t)
	if v := queryOne[int](t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "select current_setting('server_version_num')::int"); v < 170000 {
		c := connectTo(t, d.shopDSN()) // it is an unknown parameter there, and stays one
		_, err := c.Exec(t.Context(), "set transaction_timeout = '1s'")
		wantCode(t, err, "42704")
		mustExec(t, c, "select count(*) from customers")
		return
	}
	doc := mapOf(d, "shop")
	doc.Version = 1
	doc.Nodes = slices.DeleteFunc(doc.Nodes, func(n *shardmap.Node) bool { return strings.HasSuffix(n.Name, "-b") })
	a := small(t, d, 1, func(cfg *config.Config) {
		cfg.Direct.Setup = nil
		if err := filestore.New(cfg.Store).Save(t.Context(), 0, doc); err != nil {
			t.Fatal(err)
		}
	})
	nodes := []*pgx.Conn{connectTo(t, d.cluster.Node("s1-a").DSN("shop")), connectTo(t, d.cluster.Node("s2-a").DSN("shop"))}
	var keys []int // one of each shard
	for _, n := range nodes {
		keys = append(keys, queryOne[int](t, n, "select min(customer_id) from customers"))
	}
	both := fmt.Sprintf("select string_agg(name, ' ' order by customer_id) from customers where customer_id in (%d, %d)", keys[0], keys[1])
	update := func(i int) string {
		return fmt.Sprintf("update customers set name = 'late' where customer_id = %d", keys[i])
	}
	c, other := connectTo(t, a.dsn()), connectTo(t, a.dsn())
	before := queryOne[string](t, c, both)
	same := func(what string) {
		t.Helper()
		if got := queryOne[string](t, other, both); got != before {
			t.Errorf("%s: the rows are %s", what, got)
		}
		for _, shard := range []string{"s1", "s2"} {
			mustExec(t, other, "set pgmosaic.shard = '"+shard+"'")
			if got := simply(t, other, "show transaction_timeout"); got != "0" {
				t.Errorf("%s: another client's transaction_timeout is %s on %s", what, got, shard)
			}
			mustExec(t, other, "reset pgmosaic.shard")
		}
	}
	idle := func() { // the servers have been told when they are gone
		eventually(t, "the servers of the transaction have ended", func() bool {
			for _, n := range nodes {
				if queryOne[int](t, n, "select count(*) from pg_stat_activity where usename = 'app' and state = 'idle in transaction'") > 0 {
					return false
				}
			}
			return true
		})
	}
	for _, set := range []string{"set transaction_timeout = '400ms'", ""} {
		for _, shards := range [][]int{{0}, {1}, {0, 1}, {1, 0}} {
			for _, last := range []string{strings.Replace(update(shards[0]), "name = 'late'", "name = name", 1), update(shards[0]), "commit"} {
				what := fmt.Sprint(set, shards, last)
				begin := "begin"
				if set == "" {
					begin = "begin; set local transaction_timeout = '400ms'"
				} else {
					mustExec(t, c, set)
				}
				mustExec(t, c, begin, pgx.QueryExecModeSimpleProtocol)
				for _, i := range shards {
					mustExec(t, c, update(i))
				}
				idle()
				_, err := c.Exec(t.Context(), last)
				if code := pgCode(err); code != "25P04" && (last != "commit" || code != atCommit(len(shards))) {
					t.Errorf("%s: %v", what, err)
				}
				if c.IsClosed() {
					t.Fatalf("%s: the session has ended", what)
				}
				if s := c.PgConn().TxStatus(); s != 'I' {
					mustExec(t, c, "rollback")
				}
				mustExec(t, c, "reset transaction_timeout")
				same(what)
			}
		}
	}
	// While a part is prepared, and while the decider commits: a deferred trigger sleeps on one shard.
	for i, n := range nodes {
		mustExec(t, n, "create function doze() returns trigger language plpgsql as $$begin perform pg_sleep(1); return null; end$$")
		mustExec(t, n, "create constraint trigger doze after update on customers deferrable initially deferred for each row execute function doze()")
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
		mustExec(t, n, "drop trigger doze on customers; drop function doze()", pgx.QueryExecModeSimpleProtocol)
	}
	// Set on the server for the role.
	for _, n := range nodes {
		mustExec(t, n, "alter role app set transaction_timeout = '400ms'")
	}
	t.Cleanup(func() {
		for _, node := range []string{"s1-a", "s2-a"} {
			_ = d.cluster.Node(node).Exec(context.Background(), "shop", "alter role app reset transaction_timeout")
		}
	})
	if _, err := a.Admin.Exec(t.Context(), "RECONNECT", false); err != nil {
		t.Fatal(err)
	}
	c = connectTo(t, a.dsn())
	for _, shards := range [][]int{{0}, {0, 1}} {
		mustExec(t, c, "begin")
		for _, i := range shards {
			mustExec(t, c, update(i))
		}
		idle()
		if _, err := c.Exec(t.Context(), "commit"); pgCode(err) != "25P04" && pgCode(err) != atCommit(len(shards)) {
			t.Errorf("of the role, %v: %v", shards, err)
		}
	}
	if got := queryOne[string](t, c, both); got != before {
		t.Errorf("the rows are %s", got)
	}
	d.adminExec(t, "RECONNECT")
	eventually(t, "nothing is prepared", func() bool { return len(d.adminExec(t, "SHOW TRANSACTIONS")) == 0 })
}

// atCommit is what COMMIT says besides where a server has ended the transaction. One that does so at the last moment may have committed, and says
// the same, so the error itself proves nothing: over several shards it is found out, over one it cannot be.
func atCommit(shards int) string {
	if shards > 1 {
		return "40001"
	}
	return "08007"
}
