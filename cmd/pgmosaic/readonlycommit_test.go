package main

import "testing"

// A READ ONLY transaction over several shards has nothing to decide, whatever it calls; and what was written before it was made READ ONLY commits.
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
		mustExec(t, c, "update customers set name = 'only ' || $1 where customer_id = $1", k)
	}
	mustExec(t, c, "set transaction read only")
	mustExec(t, c, "commit")
	if n := queryOne[int](t, c, "select count(*) from customers where name = 'only ' || customer_id"); n != 2 {
		t.Errorf("%d of two rows are there", n)
	}
}

// A part that cannot be prepared would have to carry the decision: where it can carry none, nothing is committed.
func TestReadOnlyBehindNotifyIsRefused(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	k1, k2 := keysOn(t, d, 2)
	for _, bound := range []string{"notify tried", "create temporary table tried (a int)"} {
		mustExec(t, c, "begin")
		mustExec(t, c, bound)
		for _, k := range []int{k1, k2} {
			mustExec(t, c, "update customers set name = 'torn' where customer_id = $1", k)
		}
		mustExec(t, c, "set transaction read only")
		_, err := c.Exec(t.Context(), "commit")
		wantRule(t, err, "bound-read-only", "0A000")
		if n := queryOne[int](t, c, "select count(*) from customers where name = 'torn'"); n != 0 {
			t.Errorf("%s: %d rows are there", bound, n)
		}
	}
}
