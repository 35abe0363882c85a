package main

import "testing"

// EXPLAIN EXECUTE is described with the type of its FORMAT, as sqlx relies on.
func TestExplainExecuteTellsItsType(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for _, dsn := range []string{d.cluster.Node("s1-a").DSN("shop"), d.shopDSN()} {
		c := connectTo(t, dsn)
		if _, err := c.Prepare(t.Context(), "q", "select name from settings where name = $1"); err != nil {
			t.Fatal(err)
		}
		for options, want := range map[string]uint32{"": 25, "(costs off, format text)": 25, "(verbose, format json)": 114, "(format xml)": 142, "(format xml, FORMAT JSON)": 114, "(format yaml)": 25} {
			s, err := c.Prepare(t.Context(), "", "explain "+options+" execute q(null)")
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Fields[0].DataTypeOID; got != want {
				t.Errorf("%s %s: type %d, want %d", dsn, options, got, want)
			}
		}
		var plans []struct{ Plan struct{ Output []string } }
		if err := c.QueryRow(t.Context(), "explain (verbose, format json) execute q(null)").Scan(&plans); err != nil || len(plans) != 1 || len(plans[0].Plan.Output) != 1 {
			t.Errorf("%s: %v, %v", dsn, plans, err)
		}
	}
}
