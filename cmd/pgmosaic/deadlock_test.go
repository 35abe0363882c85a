package main

import (
	"fmt"
	"testing"
	"time"
)

// Transactions that wait for one another on different shards: the youngest is told of a deadlock, the others go on.
func TestDeadlockOverShards(t *testing.T) {
	d := shop(t)
	k1, k2 := keysOn(t, d, 700000)
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "insert into customers values ($1, 'a', 'x', 'DE', '2026-01-01'), ($2, 'b', 'x', 'DE', '2026-01-01')", k1, k2)
	defer mustExec(t, c, "delete from customers where customer_id in ($1, $2)", k1, k2)
	for _, stmt := range []string{
		"update customers set name = 'x' where customer_id = %d",
		"select name from customers where customer_id = %d for update",
		"update customers set name = name || 'y' where customer_id in (%d, 0) and customer_id > 5", // over both shards
	} {
		a, b := connectTo(t, d.shopDSN()), connectTo(t, d.shopDSN())
		mustExec(t, a, "begin")
		mustExec(t, a, fmt.Sprintf(stmt, k1))
		time.Sleep(1200 * time.Millisecond) // so that a is the older for sure
		mustExec(t, b, "begin")
		mustExec(t, b, fmt.Sprintf(stmt, k2))
		done := make(chan error, 1)
		go func() {
			_, err := a.Exec(t.Context(), fmt.Sprintf(stmt, k2))
			done <- err
		}()
		time.Sleep(100 * time.Millisecond)
		_, err := b.Exec(t.Context(), fmt.Sprintf(stmt, k1))
		wantCode(t, err, "40P01")
		mustExec(t, b, "rollback")
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the older transaction: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the older transaction still waits")
		}
		mustExec(t, a, "commit")
	}
}
