package main

import (
	"fmt"
	"strings"
	"testing"
)

// The condition of a trigger means on a shard what it means on home.
func TestTriggersAskTheSameOnAllShards(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "asked")
	d.adminExec(t, "CREATE GROUP g IN asked KEY (int) BY HASH")
	for _, sql := range []string{
		"create function ok(anyelement) returns bool language sql immutable as 'select true'",
		"create function stamp() returns trigger language plpgsql as $$ begin new.v := 100; return new; end $$",
		"create table t (id int primary key, v int)",
		"create trigger tr before insert on t for each row when (ok(new.v)) execute function stamp()",
		"create function ok(int) returns bool language sql immutable as 'select false'",
	} {
		mustExec(t, c, sql)
	}
	if _, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE asked.public.t IN GROUP g KEY (id)", false); err != nil {
		t.Log(err)
	}
	var rows []string
	for i := range 30 {
		rows = append(rows, fmt.Sprintf("(%d, 0)", i))
	}
	mustExec(t, c, "insert into t values "+strings.Join(rows, ", "))
	if n := queryOne[int](t, c, "select count(*) from t where v = 100"); n != 30 {
		t.Errorf("the trigger ran for %d rows of 30", n)
	}
}
