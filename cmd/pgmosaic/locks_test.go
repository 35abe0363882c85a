package main

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// locked counts the rows of customers that somebody has locked on all shards.
func locked(t *testing.T, d *demo) int {
	t.Helper()
	n := 0
	for _, node := range []string{"s1-a", "s2-a"} {
		c := connectTo(t, d.cluster.Node(node).DSN("shop"))
		n += queryOne[int](t, c, "select (select count(*) from customers) - (select count(*) from (select 1 from customers for update skip locked) x)")
	}
	return n
}

// FOR UPDATE over shards locks what it returns, no more, until the transaction ends.
func TestRowLocksOverShards(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a, b := connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN())
	for _, c := range []struct {
		sql  string
		rows int
	}{
		{"select customer_id from customers where customer_id <= 30 for update", 30},
		{"select customer_id from customers where customer_id <= 30 order by customer_id desc for no key update", 30},
		{"select customer_id from customers limit 7 for update", 7},
		{"select customer_id from customers where customer_id in (1, 2, 3, 4, 5) limit 3 offset 1 for update", 3},
		{"select c.customer_id from customers c join orders o using (customer_id) where c.customer_id between 10 and 20 for update of c", -1},
		{"select customer_id from customers limit 0 for update", 0},
		{"select customer_id from customers where customer_id <= 30 for update skip locked", 30},
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
			tx, err := a.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			rows, _ := tx.Query(t.Context(), c.sql, mode)
			got, err := pgx.CollectRows(rows, pgx.RowTo[int64])
			if err != nil {
				t.Fatalf("%s: %v", c.sql, err)
			}
			distinct := map[int64]bool{}
			for _, id := range got {
				distinct[id] = true
			}
			if c.rows >= 0 && len(got) != c.rows {
				t.Errorf("%s (%s): %d rows", c.sql, mode, len(got))
			}
			held := len(distinct)
			if c.rows == 3 { // OFFSET's rows are locked too, as in PostgreSQL
				held++
			}
			if n := locked(t, d); n != held {
				t.Errorf("%s (%s): %d rows are locked, %d were returned", c.sql, mode, n, len(distinct))
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := locked(t, d); n != 0 {
				t.Errorf("%s: %d rows are locked after the end", c.sql, n)
			}
		}
	}
	_, err := a.Exec(t.Context(), "select customer_id from customers order by customer_id limit 3 for update")
	wantCode(t, err, "0A000")

	// The second session waits for the first, then goes on; NOWAIT does not wait.
	tx, err := a.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select from customers where customer_id <= 10 for update"); err != nil {
		t.Fatal(err)
	}
	_, err = b.Exec(t.Context(), "select from customers where customer_id between 5 and 20 for update nowait")
	wantCode(t, err, "55P03")
	done := make(chan error, 1)
	go func() {
		_, err := b.Exec(t.Context(), "select from customers where customer_id between 5 and 20 for update")
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("the second session did not wait: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
