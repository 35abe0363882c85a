package sqlparse

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// What output columns are called, and which of them a bare name means. Source: FigureColname in parse_target.c and findTargetlistEntrySQL92 in
// parse_clause.c of PostgreSQL.

// anonymous is what an output column is called for which there is no name.
const anonymous = "?column?"

// expands says whether an output column is written as those of a row: *, t.* or (x).*.
func expands(n *pg.Node) bool {
	fields := n.GetColumnRef().GetFields()
	if x := n.GetAIndirection(); x != nil {
		fields = x.Indirection
	}
	return len(fields) > 0 && fields[len(fields)-1].GetAStar() != nil
}

// targetName is what an output column is called that does not expand. sure is false where only a server can tell.
func targetName(t *pg.ResTarget) (name string, sure bool) {
	if t.GetName() != "" {
		return t.GetName(), true
	}
	name, _, sure = figure(t.GetVal())
	if name == "" {
		name = anonymous
	}
	return name, sure
}

// figure is the name that an expression gives to an output column, if it gives one. firm is false of one that a cast around it takes the place of.
func figure(n *pg.Node) (name string, firm, sure bool) {
	switch x := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		name = lastString(x.ColumnRef.Fields)
	case *pg.Node_AIndirection:
		if name = lastString(x.AIndirection.Indirection); name == "" {
			return figure(x.AIndirection.Arg)
		}
	case *pg.Node_TypeCast:
		if name, firm, sure = figure(x.TypeCast.Arg); firm || !sure {
			return name, firm, sure
		}
		return lastString(x.TypeCast.TypeName.GetNames()), false, true
	case *pg.Node_CaseExpr:
		if name, firm, sure = figure(x.CaseExpr.Defresult); firm || !sure {
			return name, firm, sure
		}
		return "case", false, true
	case *pg.Node_CollateClause:
		return figure(x.CollateClause.Arg)
	case *pg.Node_SubLink:
		return sublinkName(x.SubLink)
	case *pg.Node_XmlExpr, *pg.Node_XmlSerialize, *pg.Node_JsonObjectConstructor, *pg.Node_JsonArrayConstructor, *pg.Node_JsonArrayQueryConstructor, *pg.Node_JsonObjectAgg, *pg.Node_JsonArrayAgg:
		return "", false, false // it hangs on the server's version
	default:
		name = callName(n)
	}
	return name, name != "", true
}

// callName is the name of what is called, or is written as if it were.
func callName(n *pg.Node) string {
	switch x := n.GetNode().(type) {
	case *pg.Node_FuncCall:
		return lastString(x.FuncCall.Funcname)
	case *pg.Node_AExpr:
		if x.AExpr.Kind == pg.A_Expr_Kind_AEXPR_NULLIF {
			return "nullif"
		}
	case *pg.Node_GroupingFunc:
		return "grouping"
	case *pg.Node_AArrayExpr:
		return "array"
	case *pg.Node_RowExpr:
		return "row"
	case *pg.Node_CoalesceExpr:
		return "coalesce"
	case *pg.Node_MinMaxExpr:
		return strings.ToLower(strings.TrimPrefix(x.MinMaxExpr.Op.String(), "IS_"))
	case *pg.Node_SqlvalueFunction:
		return strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(x.SqlvalueFunction.Op.String(), "SVFOP_"), "_N"))
	}
	return ""
}

// sublinkName is figure for a subquery in an expression: one that is a value has its column's name.
func sublinkName(x *pg.SubLink) (name string, firm, sure bool) {
	switch x.SubLinkType {
	case pg.SubLinkType_EXISTS_SUBLINK:
		return "exists", true, true
	case pg.SubLinkType_ARRAY_SUBLINK:
		return "array", true, true
	case pg.SubLinkType_EXPR_SUBLINK:
	default:
		return "", false, true
	}
	sel := x.Subselect.GetSelectStmt()
	for sel.GetLarg() != nil {
		sel = sel.Larg
	}
	switch {
	case len(sel.GetValuesLists()) > 0:
		return "column1", true, true
	case len(sel.GetTargetList()) == 0 || expands(sel.TargetList[0].GetResTarget().GetVal()):
		return "", false, false
	}
	name, sure = targetName(sel.TargetList[0].GetResTarget())
	return name, true, sure
}

// lastString is the last name of several, * and subscripts left out.
func lastString(names []*pg.Node) (last string) {
	for _, n := range names {
		if s := n.GetString_(); s != nil {
			last = s.Sval
		}
	}
	return last
}

// bareName is the name that an expression is, or nothing.
func bareName(n *pg.Node) string {
	if fields := n.GetColumnRef().GetFields(); len(fields) == 1 {
		return fields[0].GetString_().GetSval()
	}
	return ""
}

// named is which output column a bare name means in ORDER BY and DISTINCT ON, from 1; 0 for none, where it may still be one of those that * stands for. sure is
// false where another one may be called so too, which PostgreSQL takes for a mistake unless both are the same expression.
func named(targets []*pg.Node, name string) (at int, sure bool) {
	sure = true
	for i, t := range targets {
		if expands(t.GetResTarget().GetVal()) {
			continue
		}
		called, certain := targetName(t.GetResTarget())
		switch {
		case !certain:
			sure = false
		case called != name:
		case at == 0:
			at = i + 1
		default:
			sure = sure && canonical(t.GetResTarget().GetVal()) == canonical(targets[at-1].GetResTarget().GetVal())
		}
	}
	return at, sure
}

// OutputAt is named of a SELECT's output columns.
func (q *Query) OutputAt(name string) (at int, sure bool) {
	return named(q.tree.GetTargetList(), name)
}

// SortName is the bare name that an item of ORDER BY is, or nothing.
func (q *Query) SortName(i int) string {
	return bareName(q.tree.GetSortClause()[i].GetSortBy().GetNode())
}

// DistinctName is the bare name that an item of DISTINCT ON is, or nothing.
func (q *Query) DistinctName(i int) string { return bareName(q.tree.GetDistinctClause()[i]) }

// OutputName is what an output column of a SELECT is called. sure is false where only a server can tell, as it is of what stands for several.
func (q *Query) OutputName(i int) (name string, sure bool) {
	t := q.tree.GetTargetList()[i].GetResTarget()
	if expands(t.GetVal()) {
		return "", false
	}
	return targetName(t)
}

// Expands says whether an output column of a SELECT is written as those of a row. qualifier is that of t.*; plain is false of (x).* and of longer names.
func (q *Query) Expands(i int) (qualifier string, plain, expanded bool) {
	n := q.tree.GetTargetList()[i].GetResTarget().GetVal()
	fields := n.GetColumnRef().GetFields()
	if len(fields) == 2 {
		qualifier = fields[0].GetString_().GetSval()
	}
	return qualifier, len(fields) == 1 || len(fields) == 2, expands(n)
}
