package main

import "testing"

// A transaction keeps its map while another process pins a key: what it writes where the key was is refused there, and its next one knows.
func TestTransactionKeepsItsMapUnderAnothersPin(t *testing.T) {
	t.Parallel()
	w := newTwoAdmins(t, "pintx")
	if err := w.exec(t, 0, "DISTRIBUTE TABLE %s.public.keyed IN GROUP g KEY (k)"); err != nil {
		t.Fatal(err)
	}
	w.agree(t)
	c := connectTo(t, dsnFor("app", "app", w.apps[0].Server.Addr(), w.name))
	mustExec(t, c, "delete from keyed where k = 5")
	const put = "insert into keyed values (5, 'again')"
	mustExec(t, c, "begin")
	mustExec(t, c, "select from codes")
	if err := w.exec(t, 1, "PIN KEY (5) OF %s.g ON a"); err != nil {
		t.Fatal(err)
	}
	w.agree(t)
	if n := queryOne[int](t, c, "select count(*) from keyed"); n != 5 {
		t.Errorf("%d rows", n)
	}
	if _, err := c.Exec(t.Context(), put); pgCode(err) != "23514" {
		t.Errorf("%s by the older map: %v", put, err)
	}
	mustExec(t, c, "rollback")
	mustExec(t, c, "begin")
	mustExec(t, c, put)
	mustExec(t, c, "commit")
	if n := queryOne[int](t, w.shards[0], "select count(*) from keyed where k = 5"); n != 1 {
		t.Errorf("%d rows where the key is", n)
	}
	if n := queryOne[int](t, w.shards[1], "select count(*) from keyed where k = 5"); n != 0 {
		t.Errorf("%d rows where the key was", n)
	}
}
