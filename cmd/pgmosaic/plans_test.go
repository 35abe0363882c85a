package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// SHOW PLANS names the plans in use, counts how often they served, and shows no literal.
func TestShowPlans(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	for i := range 60 { // often enough to be among the busiest, whatever ran before
		for _, sql := range []string{"select name as shown from customers where customer_id = 90210 and name <> 'secret'", "select count(*) as shown from customers where name <> 'secret'"} {
			if _, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(i, err)
			}
		}
	}
	rows := d.adminExec(t, "SHOW PLANS WHERE database = 'shop'")
	routes := map[any]int64{}
	for _, r := range rows {
		statement := r[7].(string)
		if strings.Contains(statement, "secret") || strings.Contains(statement, "90210") {
			t.Errorf("a literal is shown: %s", statement)
		}
		if strings.Contains(statement, "shown") {
			routes[r[1]] += r[2].(int64)
		}
	}
	if routes["Single"] < 4 || routes["Scatter"] < 4 {
		t.Errorf("plans %v in %d rows", routes, len(rows))
	}
	// Texts that differ in their literals share a plan over several shards too, where what runs is the text itself.
	for i := range 10 {
		sql := fmt.Sprintf("select customer_id as several from customers where customer_id in (%d, %d, %d) limit %d", i+1, i+21, i+41, 1+i%3)
		got, err := pgx.CollectRows(must(c.Query(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)), pgx.RowTo[int64])
		if err != nil || len(got) != 1+i%3 {
			t.Errorf("%s: %v %v", sql, got, err)
		}
	}
	hits := int64(0)
	for _, r := range d.adminExec(t, "SHOW PLANS WHERE route = 'Scatter'") {
		if strings.Contains(r[7].(string), "several") {
			hits = max(hits, r[2].(int64))
		}
	}
	if hits < 9 {
		t.Errorf("the plan was used again %d times", hits)
	}
}

// The same text with parameters of other declared types is another statement, on one shard and over several.
func TestDeclaredTypesAreThePlans(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for _, sql := range []string{
		"select customer_id from customers where customer_id < $1 + 2", "select count(*) from customers where customer_id < $1 + 2",
		"select rank() over (order by name) from customers where customer_id < $1 + 2", "select count(distinct name) from customers where customer_id < $1 + 2",
		"select $1 + 0, customer_id from customers where customer_id < $1 + 2",
	} {
		for _, p := range []struct {
			oid   uint32
			value []byte
		}{{0, []byte{0, 0, 0, 3}}, {20, []byte{0, 0, 0, 0, 0, 0, 0, 3}}, {23, []byte{0, 0, 0, 3}}, {21, []byte{0, 3}}, {20, []byte{0, 0, 0, 0, 0, 0, 0, 3}}} {
			c := connectTo(t, d.shopDSN()).PgConn()
			r := c.ExecParams(t.Context(), sql, [][]byte{p.value}, []uint32{p.oid}, []int16{1}, nil).Read()
			if r.Err != nil {
				t.Errorf("%s with type %d: %v", sql, p.oid, r.Err)
			}
			if strings.HasPrefix(sql, "select $1") && p.oid != 0 {
				if got, want := r.FieldDescriptions[0].DataTypeOID, map[uint32]uint32{20: 20, 23: 23, 21: 23}[p.oid]; got != want {
					t.Errorf("%s with type %d: the result has type %d", sql, p.oid, got)
				}
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
