package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Statements that are deep in themselves get PostgreSQL's answer, or an error of their own; the session, and those of
// others, go on. What PostgreSQL refuses for its depth is refused likewise, whoever does it.
func TestDeepStatementsHurtNobody(t *testing.T) {
	t.Parallel()
	d := shop(t)
	through, direct := connectTo(t, d.shopDSN()), connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	other := connectTo(t, d.shopDSN())
	chain := func(before, again, after string) func(int) string {
		return func(n int) string { return before + strings.Repeat(again, n) + after }
	}
	nested := func(open, inner, end string) func(int) string {
		return func(n int) string { return "select " + strings.Repeat(open, n) + inner + strings.Repeat(end, n) }
	}
	statements := map[string]func(int) string{
		"sum":           chain("select 1", "+1", ""),
		"concatenation": chain("select length('a'", "||'b'", ")"),
		"cast":          chain("select 1", "::int", ""),
		"is null":       chain("select 1", " is null", ""),
		"collate":       chain("select 'a'", ` collate "C"`, ""),
		"and":           chain("select true", " and true", ""),
		"union":         chain("select 1", " union select 1", ""),
		"not":           nested("not ", "true", ""),
		"call":          nested("abs(", "1", ")"),
		"case":          nested("case when true then ", "1", " end"),
		"parentheses":   nested("(1+", "1", ")"),
		"json path":     chain("select '{}'::jsonb", "->'a'", ""),
		"in list":       chain("select 1 in (1", ",1", ")"),
		"one shard":     chain("select name from customers where customer_id = 5 and 0 < 1", "+1", ""),
		"scatter":       chain("select count(*) from customers where 0 < 1", "+1", ""),
		"merged":        chain("select min(customer_id + 1", "+1", ") from customers"),
		"sorted":        chain("select customer_id from customers order by -customer_id", "+1", " limit 3"),
		"gathered":      chain("select count(distinct name) from customers where 0 < 1", "+1", ""),
	}
	ask := func(c *pgx.Conn, sql string) string {
		rows, err := c.Query(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		if err == nil {
			var out [][]any
			out, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) ([]any, error) { return r.Values() })
			if err == nil {
				return fmt.Sprint(out)
			}
		}
		var pe *pgconn.PgError
		if !errors.As(err, &pe) {
			t.Fatalf("the session is gone: %v", err)
		}
		return pe.Code
	}
	for name, f := range statements {
		for _, n := range []int{100, 2000, 5000, 40000, 1000000} {
			if n > 40000 && name == "and" || n > 5000 && strings.Contains(f(1), "union") {
				continue // PostgreSQL itself takes long over it
			}
			got := ask(through, f(n))
			if n <= 5000 {
				want := ask(direct, f(n))
				if strings.Contains(f(1), "customers") && strings.HasPrefix(want, "[") {
					want = ask(through, strings.Replace(f(1), "+1", fmt.Sprintf("+%d", n), 1)) // the server has a part of the rows
				}
				if got != want && (want != "54001" || strings.HasPrefix(got, "[")) {
					t.Errorf("%s, %d times: %.60s, PostgreSQL says %.60s", name, n, got, want)
				}
			} else if got != "54001" && got != "42601" && !strings.HasPrefix(got, "[") {
				t.Errorf("%s, %d times: %.60s", name, n, got)
			}
		}
		if got := ask(through, "select 1"); got != "[[1]]" {
			t.Errorf("after %s: %s", name, got)
		}
		if got := ask(other, "select 1"); got != "[[1]]" {
			t.Errorf("after %s, another session: %s", name, got)
		}
	}
	_, err := through.Exec(t.Context(), statements["sum"](40000), pgx.QueryExecModeSimpleProtocol)
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Message != "stack depth limit exceeded" || pe.Detail == "" || pe.Hint == "" {
		t.Errorf("the refusal is %+v", pe)
	}
	if _, err := through.Prepare(t.Context(), "deep", statements["sum"](40000)); !errors.As(err, &pe) || pe.Code != "54001" {
		t.Errorf("Parse: %v", err)
	}
}
