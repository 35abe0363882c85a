package sqlparse

import pg "github.com/pganalyze/pg_query_go/v5"

// Aggregated is what an aggregate of a level is made of.
type Aggregated struct {
	Cols  []Col // the columns that stand in it
	Below []Col // those that stand in subqueries in it
}

// Aggregated are the aggregates that stand at a level, and not in a level below.
func (q *Query) Aggregated() (out []Aggregated) {
	if q.tree == nil {
		return nil
	}
	walk(q.tree, func(m any) bool {
		if sub, ok := m.(*pg.SelectStmt); ok && sub != q.tree {
			return false
		}
		if isAggregate(m) {
			var x Aggregated
			x.note(m, &x.Cols)
			out = append(out, x)
		}
		return true
	})
	return out
}

// note adds the columns of an expression to a list, and those of its subqueries to Below.
func (x *Aggregated) note(m any, list *[]Col) {
	walk(m, func(m any) bool {
		switch y := m.(type) {
		case *pg.SelectStmt:
			if list != &x.Below {
				x.note(y, &x.Below)
				return false
			}
		case *pg.ColumnRef:
			if n := len(y.Fields); n > 1 && y.Fields[n-1].GetAStar() == nil {
				*list = append(*list, Col{Qual: y.Fields[n-2].GetString_().GetSval(), Name: y.Fields[n-1].GetString_().GetSval()})
			} else if name := y.Fields[0].GetString_().GetSval(); name != "" { // x, or x.*, which is all of x
				*list = append(*list, Col{Name: name})
			}
		}
		return true
	})
}
