package main

import "testing"

// What was to tie a session to its server, and has come to nothing with its statement or pipeline, ties it no more.
func TestWhatCameToNothingTiesNoServer(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	direct := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	mustExec(t, direct, "create table once_each (n int unique deferrable initially deferred)")
	mustExec(t, direct, "grant all on once_each to public")
	mustExec(t, direct, "insert into once_each values (1)")
	defer mustExec(t, direct, "drop table once_each")
	for what, statements := range map[string][]string{
		"a statement of the pipeline fails": {"create temp table tied (n int)", "select 1/0"},
		"its commit fails":                  {"create temp table tied (n int)", "insert into once_each values (1)"},
	} {
		r := rawTo(t, a.dsn())
		for _, sql := range statements {
			r.run(sql)
		}
		r.SendSync()
		r.until('Z')
		if got := pins(a); len(got) > 0 {
			t.Errorf("%s: it is tied by %v", what, got)
		}
		r.Close()
	}
	r := rawTo(t, a.dsn())
	r.SendQuery("create temp table tied (n nosuchtype)")
	r.until('Z')
	if got := pins(a); len(got) > 0 {
		t.Errorf("a query that fails: it is tied by %v", got)
	}
	r.SendQuery("create temp table tied (n int)")
	r.until('Z')
	if got := pins(a); len(got) != 1 {
		t.Errorf("with a temporary table it is tied by %v", got)
	}
}
