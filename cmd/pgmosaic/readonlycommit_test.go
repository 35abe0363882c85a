package main

import "testing"

// A READ ONLY transaction over several shards has nothing to decide, whatever it calls.
func TestReadOnlyTransactionsOverShardsCommit(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	for _, begin := range [][]string{{"begin", "set transaction read only"}, {"begin read only"}, {"set default_transaction_read_only = on", "begin"}} {
		for _, sql := range append(begin, "select customer_id, current_setting('work_mem') from customers", "select count(*) from orders where total > 0 and pg_sleep(0) is not null", "commit", "reset all") {
			mustExec(t, c, sql)
		}
	}
	k1, k2 := keysOn(t, d, 2)
	mustExec(t, c, "begin")
	for _, k := range []int{k1, k2} {
		if _, err := c.Exec(t.Context(), "update customers set name = name where customer_id = $1", k); err != nil {
			t.Fatal(err)
		}
	}
	mustExec(t, c, "set transaction read only")
	if _, err := c.Exec(t.Context(), "commit"); err != nil && pgCodeOf(err) != "25006" {
		t.Errorf("what was written before READ ONLY: %v", err)
	}
}
