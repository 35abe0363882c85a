package main

import (
	"fmt"
	"strings"
	"testing"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// A trigger that writes a sharded table is refused, until the admin says that it stays on its row's shard.
func TestShardSafeRoutine(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, NoLoad: true})
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "insert into countries values ('DE', 'Germany')")
	mustExec(t, c, "insert into customers select i, 'n' || i, 'e', 'DE', '2026-01-01' from generate_series(1, 30) i")
	mustExec(t, c, "create table changes (customer_id bigint, change bigint, was text, primary key (customer_id, change))")
	d.adminExec(t, "DISTRIBUTE TABLE shop.public.changes IN GROUP customers KEY (customer_id)")
	mustExec(t, c, `create function note_change() returns trigger language plpgsql as $$ begin
		insert into changes select new.customer_id, count(*) + 1, old.name from changes where customer_id = new.customer_id; return new; end $$`)
	mustExec(t, c, "create function changes_of(bigint) returns bigint stable language sql as 'select count(*) from changes where customer_id = $1'")
	mustExec(t, c, "create trigger note_change after update on customers for each row execute function note_change()")
	const update = "update customers set name = name || '!' where customer_id < 20"
	const read = "select sum(changes_of(customer_id)) from customers where customer_id < 20"
	_, err := c.Exec(t.Context(), update)
	wantRule(t, err, "trigger-body", "0A000")
	_, err = c.Exec(t.Context(), read)
	wantCode(t, err, "0A000")
	d.adminExec(t, "ALTER ROUTINE shop.public.note_change SHARD SAFE")
	d.adminExec(t, "ALTER ROUTINE shop.public.changes_of SHARD SAFE")
	mustExec(t, c, update)
	mustExec(t, c, update)
	if n := queryOne[int](t, c, read); n != 38 {
		t.Errorf("the function sees %d changes, want 38", n)
	}
	if n := queryOne[int](t, c, "select count(*) from changes join customers using (customer_id) where was <> name and change in (1, 2)"); n != 38 {
		t.Errorf("%d changes, want 38", n)
	}
	for _, sql := range []string{
		"select changes_of(5)", // on no row's shard
		"select changes_of(a.customer_id) from customers a join customers b on a.name = b.name", // on copies
	} {
		_, err = c.Exec(t.Context(), sql)
		wantCode(t, err, "0A000")
	}
	for _, x := range []struct{ rule, sql string }{ // copies are the way out for rows that do not merge by their types, and there is none here
		{rule: "group-type", sql: "select (changes_of(customer_id) || ' days')::interval, count(*) from customers group by 1"},
		{rule: "aggregate-type", sql: "select max((changes_of(customer_id) || ' days')::interval) from customers"},
		{rule: "order-type", sql: "select name from customers order by (changes_of(customer_id) || ' days')::interval"},
	} {
		_, err = c.Exec(t.Context(), x.sql)
		wantRule(t, err, x.rule, "0A000")
	}
	if m := fmt.Sprint(d.adminExec(t, "SHOW MAP AS SQL")); !strings.Contains(m, "ALTER ROUTINE shop.public.note_change SHARD SAFE;") {
		t.Errorf("the map does not say so:\n%s", m)
	}
	d.adminExec(t, "ALTER ROUTINE shop.public.note_change NOT SHARD SAFE")
	_, err = c.Exec(t.Context(), update)
	wantCode(t, err, "0A000")
}
