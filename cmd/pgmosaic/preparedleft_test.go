package main

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A PREPARE that is cancelled when its server has it already leaves nothing there that the next PREPARE would meet.
func TestAPrepareThatIsStoppedHalfWayLeavesNothing(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 1, nil)
	c, holder, taker := connectTo(t, a.dsn()), connectTo(t, d.cluster.Node("s1-a").DSN("shop")), connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	mustExec(t, c, "create table half_way (a int)")
	defer func() {
		for _, x := range []*pgx.Conn{taker, holder} {
			_, _ = x.Exec(t.Context(), "rollback") // of a test that has failed
		}
		mustExec(t, holder, "drop table half_way")
	}()
	waiting := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d wait for the table", n), func() bool {
			return queryOne[int](t, holder, "select count(*) from pg_locks where relation = 'half_way'::regclass and not granted") == n
		})
	}
	mustExec(t, holder, "begin")
	mustExec(t, holder, "lock table half_way in access exclusive mode")
	said := make(chan error, 1)
	go func() {
		_, err := c.PgConn().Exec(t.Context(), "prepare p as select a from half_way").ReadAll()
		said <- err
	}()
	waiting(1)
	taken := make(chan error, 1)
	go func() {
		_, err := taker.PgConn().Exec(t.Context(), "begin; lock table half_way in access exclusive mode").ReadAll()
		taken <- err
	}()
	waiting(2) // behind the PREPARE: its Describe waits for this one
	mustExec(t, holder, "commit")
	if err := <-taken; err != nil {
		t.Fatal(err)
	}
	waiting(1)
	if err := c.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-said, "57014")
	mustExec(t, taker, "rollback")
	for range 2 {
		if got := simply(t, connectTo(t, a.dsn()), "prepare p as select 8; execute p"); got != "8" {
			t.Errorf("the next PREPARE gives %q", got)
		}
	}
}

// DEALLOCATE ALL in a function or DO block takes the statements of other sessions, too, which are prepared again where they were.
func TestStatementsThatAFunctionDeallocatesArePreparedAgain(t *testing.T) {
	t.Parallel()
	a := small(t, shop(t), 1, nil)
	c, other := connectTo(t, a.dsn()), connectTo(t, a.dsn())
	mustExec(t, c, "create function deallocates() returns void language plpgsql as $$ begin deallocate all; end $$")
	defer mustExec(t, c, "drop function deallocates()")
	if _, err := c.PgConn().Prepare(t.Context(), "mine", "select 7", nil); err != nil {
		t.Fatal(err)
	}
	mine := func() (string, error) {
		res := c.PgConn().ExecPrepared(t.Context(), "mine", nil, nil, nil).Read()
		if res.Err != nil {
			return "", res.Err
		}
		return string(res.Rows[0][0]), nil
	}
	for _, sql := range []string{"do $$ begin deallocate all; end $$", "select deallocates()", "begin; select deallocates(); rollback"} {
		if _, err := mine(); err != nil {
			t.Fatal(err)
		}
		simply(t, other, sql)
		if got, err := mine(); got != "7" || err != nil {
			t.Errorf("behind %s: %q, %v", sql, got, err)
		}
	}
	// Within the transaction that has done it nothing has been looked at yet: the statement is told to be gone, once.
	simply(t, c, "begin; select deallocates()")
	if _, err := mine(); pgCode(err) != "26000" && err != nil {
		t.Errorf("in the same transaction: %v", err)
	}
	simply(t, c, "rollback")
	if got, err := mine(); got != "7" || err != nil {
		t.Errorf("behind that transaction: %q, %v", got, err)
	}
}
