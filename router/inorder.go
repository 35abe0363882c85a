package router

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// keptOrder is the ORDER BY of a subquery whose order PostgreSQL's answer has: the query takes its rows from there alone, and neither sorts them nor makes others
// of them. known is false where it is not by columns that the query can name.
func keptOrder(a *analysis, q *sqlparse.Query) (by []sqlparse.SortBy, known bool) {
	if len(q.OrderBy) > 0 || len(q.Rels) != 1 || q.Distinct || q.Agg || len(q.GroupBy) > 0 || q.Having || q.Window {
		return nil, true
	}
	r := q.Rels[0]
	sub := a.sub(r)
	if sub == nil || r.Kind != sqlparse.RelQuery {
		return nil, true
	}
	if len(sub.OrderBy) == 0 {
		deeper, known := keptOrder(a, sub)
		return nil, known && len(deeper) == 0
	}
	cols, sure := listed(a, sub)
	if !sure || r.Name() == "" {
		return nil, false
	}
	items := sub.OrderBy
	if n := len(sub.DistinctOn); n > 0 && n < len(items) { // no two rows agree in those
		items = items[:n]
	}
	for i, s := range items {
		name := sortedAs(sub, i, cols)
		if name == "" || s.Using || count(cols, name) != 1 {
			return nil, false
		}
		by = append(by, sqlparse.SortBy{Col: sqlparse.Col{Qual: r.Name(), Name: name}, Desc: s.Desc, NullsFirst: s.NullsFirst})
	}
	return by, true
}

// ordersInside says whether a query's rows may have the order of a subquery: see keptOrder.
func ordersInside(a *analysis, q *sqlparse.Query) bool {
	by, known := keptOrder(a, q)
	return len(by) > 0 || !known
}

// sortedAs is the output column that an item of ORDER BY is, by its name; nothing where it is none.
func sortedAs(q *sqlparse.Query, i int, cols []outputColumn) string {
	e, name := q.OrderBy[i].Expr, q.SortName(i)
	switch {
	case e.Ordinal > 0 && e.Ordinal <= len(cols):
		return cols[e.Ordinal-1].name
	case e.Ordinal > 0:
		return ""
	case name != "" && count(cols, name) > 0:
		return name
	}
	for j, t := range q.Targets {
		if called, sure := q.OutputName(j); sure && t.Expr.Key == e.Key {
			return called
		}
	}
	if name == "" && e.Col != nil && len(q.Rels) == 1 && slices.Contains(cols, outputColumn{e.Col.Name, true}) {
		return e.Col.Name
	}
	return ""
}

func count(cols []outputColumn, name string) (n int) {
	for _, c := range cols {
		if c.name == name {
			n++
		}
	}
	return n
}
