package main

import "testing"

// A part that has been prepared keeps what its transaction has SET, for PostgreSQL, also when the commit comes to nothing: the server's next client
// has none of it.
func TestSettingsOfACommitThatFailedStayBehind(t *testing.T) {
	t.Parallel()
	d := shop(t)
	k1, k2 := keysOn(t, d, 705000)
	su := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "begin")
	for _, k := range []int{k1, k2} {
		mustExec(t, c, insertCustomer, k, "kept")
	}
	mustExec(t, c, "set statement_timeout = '500ms'")
	mustExec(t, c, "set work_mem = '9MB'")
	mustExec(t, su, "begin")
	mustExec(t, su, "lock table pgmosaic.decision in share mode")
	_, err := c.Exec(t.Context(), "commit")
	wantCode(t, err, "57014")
	mustExec(t, su, "rollback")
	_ = c.Close(t.Context())
	for range 20 {
		n := connectTo(t, d.shopDSN())
		for _, k := range []int{1, 2, 3, 4, 5, 6, 7, 8} {
			if got := queryOne[string](t, n, "select current_setting('statement_timeout') || ' ' || current_setting('work_mem') from customers where customer_id = $1", k); got != "0 4MB" {
				t.Fatalf("the next client has %s", got)
			}
		}
	}
}
