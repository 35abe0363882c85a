package main

import (
	"strings"
	"testing"
)

// A cursor is there for what comes behind its DECLARE in the pipeline, on whichever shard it is.
func TestCursorsOfAPipeline(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for name, dsn := range map[string]string{"s1": d.cluster.Node("s1-a").DSN("shop"), "s2": d.cluster.Node("s2-a").DSN("shop"), "two shards": d.shopDSN()} {
		ids := []string{"5"}
		if name == "two shards" { // on either shard
			ids = nil
			for id := range 12 {
				ids = append(ids, itoa(id+1))
			}
		}
		for _, id := range ids {
			r := rawTo(t, dsn)
			r.run("begin")
			for range 2 {
				r.run("declare c cursor for select 'it' from (values (1), (2)) v where 0 <= (select count(*) from customers where customer_id = " + id + ")")
				r.run("fetch c")
				r.SendDescribe('P', "c")
				r.run("close c")
			}
			r.run("declare c cursor for select 'it' from (values (1), (2)) v where 0 <= (select count(*) from customers where customer_id = " + id + ")")
			r.run("move c")
			r.run("fetch all from c")
			r.SendClose('P', "c")
			r.run("commit")
			r.SendSync()
			want := "12C<BEGIN>" + strings.Repeat("12C<DECLARE CURSOR>12D(it)C<FETCH 1>T12C<CLOSE CURSOR>", 2) + "12C<DECLARE CURSOR>12C<MOVE 1>12D(it)C<FETCH 1>312C<COMMIT>ZI"
			if got := r.toldUpTo("ZI"); got != want {
				t.Errorf("%s, customer %s:\ngot  %s\nwant %s", name, id, got, want)
			}
			_ = r.Close()
		}
	}
}

// $0 and numbers beyond what counts are no parameters, and no end of the session.
func TestParametersThatThereAreNot(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for _, number := range []string{"$0", "$4294967295", "$2147483648", "$65536"} {
		for _, sql := range []string{"select set_config('a.b', $, false)", "select set_config($, 'x', false)", "select set_config('a.b', 'x', $)", "execute q($)", "select name from customers where customer_id = $", "select name from customers limit $"} {
			r := rawTo(t, d.shopDSN())
			r.SendQuery("prepare q(int) as select $1")
			r.toldUpTo("ZI")
			r.SendParse("", strings.ReplaceAll(sql, "$", number), nil)
			r.SendBindParts("", nil, nil, nil)
			r.SendExecute()
			r.SendSync()
			if got := strings.TrimLeft(r.toldUpTo("ZI"), "12"); got != "E[42P02]ZI" && got != "E[42P18]ZI" && got != "E[42601]ZI" && got != "E[08P01]ZI" && got != "E[0A000]ZI" {
				t.Errorf("%s, %s: %s", sql, number, got)
			}
			_ = r.Close()
		}
	}
}
