package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// SHOW PLANS names the plans in use, counts how often they served, and shows no literal.
func TestShowPlans(t *testing.T) {
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	for i := range 5 {
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
}
