package sqlparse

import (
	"fmt"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/proto"
)

// spreadOf is an aggregate of the variance family.
type spreadOf struct {
	less int    // what is taken from the number of values: 1 of a sample
	root string // what is done with the variance, as a format
}

const (
	asIs = "%[1]s"
	// The root is rounded to the variance's own scale, as PostgreSQL does (numeric_stddev_internal): its sqrt() gives at
	// least as many digits as it is given.
	rooted = "pg_catalog.round(pg_catalog.sqrt(pg_catalog.round(%[1]s, pg_catalog.scale(%[1]s) + 20)), pg_catalog.scale(%[1]s))"
)

var spreads = map[string]spreadOf{
	"variance": {1, asIs}, "var_samp": {1, asIs}, "var_pop": {0, asIs},
	"stddev": {1, rooted}, "stddev_samp": {1, rooted}, "stddev_pop": {0, rooted},
}

// exact says whether an expression is a column of a type whose sums are exact. Those of floats are not: what is put
// together of parts could be a small number where PostgreSQL finds 0.
func (f *finisher) exact(n *pg.Node) bool {
	fields := n.GetColumnRef().GetFields()
	var names []string
	for _, x := range fields {
		if x.GetString_() != nil {
			names = append(names, x.GetString_().Sval)
		}
	}
	var c Col
	switch {
	case len(names) != len(fields):
		return false
	case len(names) == 1:
		c.Name = names[0]
	case len(names) == 2:
		c = Col{Qual: names[0], Name: names[1]}
	default:
		return false
	}
	switch f.in.Type(c) {
	case 20, 21, 23, 1700: // int8, int2, int4, numeric
		return true
	}
	return false
}

// spread makes a variance of the number of values, their sum and that of their squares, by the formula and in the order
// of PostgreSQL's numeric_stddev_internal, so that the digits are the same.
func (f *finisher) spread(at *pg.Node, call *pg.FuncCall, of spreadOf) {
	piece := func(fn, arg string) string {
		tree, err := parseTree("SELECT pg_catalog." + fn + "(" + arg + ") FROM t")
		if err != nil {
			f.err = errNoFinish
			return ""
		}
		n := tree.Stmts[0].GetStmt().GetSelectStmt().TargetList[0].GetResTarget().Val
		walk(n, func(m any) bool {
			if x, ok := m.(*pg.Node); ok && x.GetColumnRef() != nil {
				x.Node = proto.Clone(call.Args[0]).(*pg.Node).Node
				return false
			}
			return true
		})
		if call.AggFilter != nil {
			n.GetFuncCall().AggFilter = proto.Clone(call.AggFilter).(*pg.Node)
		}
		return f.part("a", n)
	}
	sum := func(col string) string { return "pg_catalog.sum(" + partial + "." + col + ")" }
	n, sx, sxx := sum(piece("count", "x")), sum(piece("sum", "x::numeric")), sum(piece("sum", "x::numeric * x::numeric"))
	over := n
	if of.less > 0 {
		over = fmt.Sprintf("(%s - %d)", n, of.less)
	}
	num := fmt.Sprintf("(%s * %s - %s * %s)", n, sxx, sx, sx)
	v := fmt.Sprintf("(%s / (%s * %s))", num, n, over)
	tree, err := parseTree(fmt.Sprintf("SELECT CASE WHEN %[1]s > %[2]d THEN CASE WHEN %[3]s <= 0 THEN 0::numeric WHEN %[3]s = 'NaN' THEN 'NaN'::numeric ELSE %[4]s END END",
		n, of.less, num, fmt.Sprintf(of.root, v)))
	if err != nil {
		f.err = errNoFinish
		return
	}
	at.Node = tree.Stmts[0].GetStmt().GetSelectStmt().TargetList[0].GetResTarget().Val.Node
}

// sorted says whether a subquery in FROM puts its rows in order, which an aggregate may show.
func (f *finisher) sorted() bool {
	found := false
	for _, n := range f.sel.FromClause {
		walk(n, func(m any) bool {
			if x, ok := m.(*pg.SelectStmt); ok && len(x.SortClause) > 0 {
				found = true
			}
			return !found
		})
	}
	return found
}
