package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

func replicaRow(t testing.TB, d *demo, node string) map[string]any {
	t.Helper()
	res, err := d.Admin.Exec(t.Context(), "SHOW REPLICAS WHERE node = '"+node+"'", true)
	if err != nil || len(res.Rows) != 1 {
		t.Fatalf("SHOW REPLICAS: %v, %d rows", err, len(res.Rows))
	}
	out := map[string]any{}
	for i, c := range res.Columns {
		out[c] = res.Rows[0][i]
	}
	return out
}

// replicaAnswers waits until a statement of a session is answered by a replica of the shop's: what was written before has arrived there, and
// that is known.
func replicaAnswers(t testing.TB, d *demo, c *pgx.Conn, sql string) {
	t.Helper()
	eventually(t, "a replica answers "+sql, func() bool {
		before := readsOfReplicas(d)
		mustExec(t, c, sql)
		return readsOfReplicas(d) > before
	})
}

// replayed waits until a replica has all that its primary has written up to now.
func replayed(t testing.TB, d *demo, primary, replica string) {
	t.Helper()
	p, r := connectTo(t, d.cluster.Node(primary).DSN("postgres")), connectTo(t, d.cluster.Node(replica).DSN("postgres"))
	end := queryOne[string](t, p, "select pg_current_wal_lsn()::text")
	eventually(t, replica+" has replayed "+end, func() bool { return queryOne[bool](t, r, "select pg_last_wal_replay_lsn() >= $1::pg_lsn", end) })
}

func TestPausedReplicaLeavesTheReadsAndShowsItsLag(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 1, Replicas: 1, NoLoad: true, Monitor: 300 * time.Millisecond}) // what a busy machine takes longer for is less than one
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "insert into settings values ('a', '1')")
	eventually(t, "the replica is eligible", func() bool { return replicaRow(t, d, "s1-b")["eligible"] == true })
	if err := d.cluster.Node("s1-b").PauseReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	interval := time.Duration(d.cfg.Monitor)
	for replicaRow(t, d, "s1-b")["eligible"] == true {
		if time.Since(start) > 20*interval {
			t.Fatal("a paused replica still answers reads")
		}
		time.Sleep(interval / 10)
	}
	// Three probe intervals, and one more for a busy machine: a probe itself takes time.
	if took := time.Since(start); took > 4*interval {
		t.Errorf("it took %s, more than three probe intervals of %s", took, interval)
	}
	for i := range 15 {
		mustExec(t, c, "insert into settings values ($1, '1')", fmt.Sprint("p", i))
		time.Sleep(20 * time.Millisecond)
	}
	eventually(t, "SHOW REPLICAS tells its lag", func() bool {
		row := replicaRow(t, d, "s1-b")
		lag, _ := row["lag_ms"].(int64)
		return lag >= 100 && row["lag_bytes"].(int64) > 0 && row["reason"] == "replay is paused"
	})
	if err := d.cluster.Node("s1-b").ResumeReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the replica comes back", func() bool { return replicaRow(t, d, "s1-b")["eligible"] == true })
	eventually(t, "its lag is zero again", func() bool { return replicaRow(t, d, "s1-b")["lag_ms"] == int64(0) })
}

// A client never misses a write that was acknowledged to it or to another client of this process, while one
// replica is paused and the other delayed; and a table that nobody writes is still read from replicas.
func TestNoStaleReadsUnderCausal(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 2, NoLoad: true})
	ctx := t.Context()
	setup := connectTo(t, d.shopDSN())
	mustExec(t, setup, "insert into countries values ('DE', 'Germany')")
	for i := 1; i <= 8; i++ {
		mustExec(t, setup, "insert into customers values ($1, '0', 'x', 'DE', '2026-01-01')", i)
	}
	for _, s := range []string{"s1", "s2"} {
		if err := d.cluster.Node(s + "-b").PauseReplay(ctx); err != nil {
			t.Fatal(err)
		}
		c := d.cluster.Node(s + "-c")
		if err := c.Set("recovery_min_apply_delay", "250ms"); err != nil {
			t.Fatal(err)
		}
		if err := c.Exec(ctx, "postgres", "select pg_reload_conf()"); err != nil {
			t.Fatal(err)
		}
	}
	const workers, pairs = 8, 1250
	errs := make(chan error, workers)
	for w := range workers {
		go func() { errs <- writeThenRead(ctx, d.shopDSN(), w+1, pairs) }()
	}
	for range workers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	before := d.Metrics.Node("shop", "s1", "s1-c").Reads[0].Load() + d.Metrics.Node("shop", "s2", "s2-c").Reads[0].Load()
	quiet := connectTo(t, d.shopDSN())
	for i := 1; i <= 8; i++ { // the delayed replicas replay what was written
		replicaAnswers(t, d, quiet, "select count(*) from orders where customer_id = "+fmt.Sprint(i))
	}
	for i := range 400 {
		if n := queryOne[int](t, quiet, "select count(*) from orders where customer_id = $1", 1+i%8); n != 0 {
			t.Fatal("the table is empty")
		}
	}
	after := d.Metrics.Node("shop", "s1", "s1-c").Reads[0].Load() + d.Metrics.Node("shop", "s2", "s2-c").Reads[0].Load()
	if after-before < 300 {
		t.Errorf("only %d of 400 reads of a quiet table went to the replicas", after-before)
	}
}

// writeThenRead writes one customer's name and reads it back, by turns on the same and on another connection.
func writeThenRead(ctx context.Context, dsn string, id, pairs int) error {
	writer, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer writer.Close(ctx)
	other, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer other.Close(ctx)
	for i := range pairs {
		want := fmt.Sprint(i)
		if i%5 == 0 { // a transaction now and then
			tx, err := writer.Begin(ctx)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "update customers set name = $2 where customer_id = $1", id, want); err != nil {
				return err
			}
			if err := tx.Commit(ctx); err != nil {
				return err
			}
		} else if _, err := writer.Exec(ctx, "update customers set name = $2 where customer_id = $1", id, want); err != nil {
			return err
		}
		reader := writer
		if i%2 == 1 {
			reader = other
		}
		var got string
		if err := reader.QueryRow(ctx, "select name from customers where customer_id = $1", id).Scan(&got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("customer %d: read %q after %q was acknowledged", id, got, want)
		}
	}
	return nil
}

func TestConsistencyLevelsChooseTheirNodes(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 1, Replicas: 1, NoLoad: true})
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "insert into settings values ('x', 'old')")
	eventually(t, "the replica is eligible", func() bool { return replicaRow(t, d, "s1-b")["eligible"] == true })
	onReplica := func(sql string) bool {
		t.Helper()
		rep, pri := d.Metrics.Node("shop", "s1", "s1-b"), d.Metrics.Node("shop", "s1", "s1-a")
		r, p := rep.Statements.Load(), pri.Statements.Load()
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		if rep.Statements.Load() == r && pri.Statements.Load() == p {
			t.Fatal("the statement went nowhere")
		}
		return rep.Statements.Load() > r && pri.Statements.Load() == p
	}
	eventually(t, "a causal read goes to the replica", func() bool { return onReplica("select * from settings") })
	mustExec(t, c, "set pgmosaic.read_consistency = strong")
	if onReplica("select * from settings") {
		t.Error("strong read a replica")
	}
	mustExec(t, c, "set pgmosaic.read_consistency = bounded")
	if !onReplica("select * from settings") {
		t.Error("bounded read the primary although the replica is fresh")
	}
	for _, sql := range []string{
		"select * from settings for update", "select random()", "with x as (insert into settings values ('w', '1') returning 1) select * from x",
		"select pg_advisory_xact_lock(1)", "delete from settings where name = 'w'", "begin", "select 1", "commit", "select nextval('s')",
	} {
		if sql == "select nextval('s')" {
			mustExec(t, c, "create sequence s")
		}
		if sql == "begin" || sql == "commit" {
			mustExec(t, c, sql)
			continue
		}
		if onReplica(sql) {
			t.Errorf("%s went to a replica", sql)
		}
	}
	if _, err := c.Exec(t.Context(), "set pgmosaic.read_consistency = maybe"); err == nil {
		t.Error("a level that does not exist was accepted")
	} else {
		wantCode(t, err, "22023")
	}
}
