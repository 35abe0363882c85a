package main

import (
	"context"
	"strings"
	"testing"
	"time"
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

// A query is one text: what stands behind its end is no part of it, and no query.
func TestQueriesWithANulAmidThem(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for name, dsn := range map[string]string{"PostgreSQL": d.cluster.Node("s1-a").DSN("shop"), "two shards": d.shopDSN()} {
		r := rawTo(t, dsn)
		for _, body := range []string{"select 1\x00x\x00", "begin\x00; select 1\x00", "set application_name = 'x'\x00'y'\x00", "select 1", "\x00\x00", ""} {
			r.SendFrame('Q', []byte(body))
			if got := r.toldUpTo("ZI"); got != "E[08P01]ZI" {
				t.Errorf("%s, %q: %s", name, body, got)
			}
		}
	}
}

// What an EXECUTE is bound with may be named many times, and be no longer than any other statement all the same.
func TestALongValueThatExecuteNamesManyTimes(t *testing.T) {
	d := shop(t)
	r := rawTo(t, d.shopDSN())
	r.SendQuery("prepare q(text) as select length($1)")
	r.until('Z')
	r.SendParse("", "execute q($1"+strings.Repeat(", $1", 999)+")", nil)
	r.SendBindParts("", nil, [][]byte{[]byte(strings.Repeat("x", 1<<20))}, nil)
	r.SendExecute()
	r.SendSync()
	grown := heapPeak(func() {
		if got := r.toldUpTo("ZI"); got != "1E[54000]ZI" {
			t.Error(got)
		}
	})
	if grown > 256<<20 {
		t.Errorf("%d MB are held at once", grown>>20)
	}
	r.SendQuery("select 'goes on'")
	if got := r.toldUpTo("ZI"); got != "TD(goes on)C<SELECT 1>ZI" {
		t.Error(got)
	}
}

// Values that are evaluated once for all copies of a reference table are held by the proxy meanwhile: no more of them than a statement may hold.
func TestValuesThatAreEvaluatedOnceAreBounded(t *testing.T) {
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "create table onceheld (k int primary key, v text)")
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.onceheld AS REFERENCE")
	mustExec(t, c, "create function onceheld_long(n int) returns text language sql volatile as $$ select repeat(random()::text, n) $$")
	defer func() { mustExec(t, c, "drop table onceheld"); mustExec(t, c, "drop function onceheld_long") }()
	var rows []string
	for k := range 20 {
		rows = append(rows, "("+itoa(k+1)+", onceheld_long(500000))")
	}
	grown := heapPeak(func() {
		_, err := c.Exec(t.Context(), "insert into onceheld values "+strings.Join(rows, ", "))
		wantCode(t, err, "54000")
	})
	t.Logf("%d MB", grown>>20)
	if grown > 400<<20 {
		t.Errorf("%d MB are held at once", grown>>20)
	}
	mustExec(t, c, "insert into onceheld values (1, random()::text), (2, onceheld_long(100000))")
	if n := queryOne[int](t, c, "select count(*) from onceheld"); n != 2 {
		t.Errorf("%d rows", n)
	}
}

// A gathered statement with long parameters asks a shard for the rows of several tables: the shard does not read the second question before its rows for
// the first are read.
func TestGatheringWithLongParametersGoesOn(t *testing.T) {
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	d.adminExec(t, "CREATE GROUP gatheredlong IN shop KEY (int) BY HASH")
	for _, name := range []string{"gatheredlong", "gatheredmore"} {
		mustExec(t, c, "create table "+name+" (k int primary key, v text)")
		d.adminExec(t, "DISTRIBUTE TABLE shop.public."+name+" IN GROUP gatheredlong KEY (k)")
	}
	defer func() {
		mustExec(t, c, "drop table gatheredlong, gatheredmore")
		d.adminExec(t, "DROP GROUP gatheredlong IN shop")
	}()
	mustExec(t, c, "set pgmosaic.gather_limit = '400MB'")
	for _, name := range []string{"gatheredlong", "gatheredmore"} {
		mustExec(t, c, "insert into "+name+" select g, repeat(md5(g::text), 500) from generate_series(1, 3000) g")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var n, more int
	const sql = "select count(distinct a.v), (select count(distinct m.v) from gatheredmore m where m.v <> $1) from gatheredlong a where a.v <> $1"
	if err := c.QueryRow(ctx, sql, strings.Repeat("x", 20<<20)).Scan(&n, &more); err != nil || n != 3000 || more != 3000 {
		t.Fatalf("%d %d %v", n, more, err)
	}
	mustExec(t, c, "set pgmosaic.gather_limit = '64MB'")
	_, err := c.Exec(ctx, sql, strings.Repeat("x", 40<<20))
	wantCode(t, err, "54000")
}
