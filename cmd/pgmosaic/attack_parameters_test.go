package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A message may have 65,535 parameters: over shards, in lists and in rows that are inserted. What is too much for one is refused as
// PostgreSQL does.
func TestAsManyParametersAsThereMayBe(t *testing.T) {
	t.Parallel()
	const most = 65535
	_, _, _, c, direct := limitsWorld(t, "parameters")
	list := func(n int, one func(i int) string) string {
		var all []string
		for i := 1; i <= n; i++ {
			all = append(all, one(i))
		}
		return strings.Join(all, ", ")
	}
	args := make([]any, most)
	for i := range args {
		args[i] = i
		if i%2 == 0 {
			args[i] = i / 2 % 2 // a shard, for rows
		}
	}
	rows := list((most-1)/2, func(i int) string { return fmt.Sprintf("($%d, $%d)", 2*i-1, 2*i) })
	tag, err := c.Exec(t.Context(), "insert into moves (shard, id) values "+rows, args[:most-1]...)
	if err != nil || tag.RowsAffected() != (most-1)/2 {
		t.Fatalf("%v %v", tag, err)
	}
	for i := range 2 {
		if n := queryOne[int](t, direct[i], "select count(*) from moves where shard = $1", i); n < 16000 {
			t.Errorf("shard %d has %d rows", i, n)
		}
	}
	for i := range args {
		args[i] = i
	}
	if n := queryOne[int](t, c, "select count(*) from moves where id in ("+list(most, func(i int) string { return fmt.Sprint("$", i) })+")", args...); n != (most-1)/2 {
		t.Errorf("a list by another column: %d rows", n)
	}
	keys := make([]any, most)
	for i := range keys {
		keys[i] = i % 2
	}
	sql := "select count(*) from moves where shard in (" + list(most, func(i int) string { return fmt.Sprint("$", i) }) + ")"
	for range 2 { // the second time it is planned already
		if n := queryOne[int](t, c, sql, keys...); n != (most-1)/2 {
			t.Errorf("a list of keys: %d rows", n)
		}
	}
	tag, err = c.Exec(t.Context(), "delete from moves where shard in (0, 1) and id in ("+list(most, func(i int) string { return fmt.Sprint("$", i) })+")", args...)
	if err != nil || tag.RowsAffected() != (most-1)/2 {
		t.Errorf("%v %v", tag, err)
	}
	// One more cannot be bound: its count has 16 bits. What PostgreSQL says, and then goes on.
	said := func(c *pgx.Conn) string {
		p := rawTo(t, c.Config().ConnString())
		p.SendParse("", "select count(*) from moves where id in ("+list(most+1, func(i int) string { return fmt.Sprintf("$%d::int", i) })+")", nil)
		p.SendBind("", "", []byte{0, 0, 0, 0, 0, 0})
		p.executeLimited("", 0)
		p.SendSync()
		first := p.until('Z')
		p.SendQuery("select 1")
		return first + " then " + p.until('Z')
	}
	if ours, theirs := said(c), said(direct[0]); ours != theirs {
		t.Errorf("one more: %s\nPostgreSQL: %s", ours, theirs)
	}
}
