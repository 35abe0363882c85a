package sqlparse

import (
	"fmt"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/proto"
)

// Partial describes the statement that each shard runs for a merged SELECT.
type Partial struct {
	HideSorts  []HideSort // ORDER BY items to append as hidden columns
	Sorts      []SortBy   // more items of ORDER BY, which are appended as hidden columns too
	HideTarget []int      // output columns to append again as hidden columns, by index
	Parts      []Parts    // output columns that become parts of what they are
	DropOrder  bool       // sorting happens after the merge
	DropLimit  bool
	AddOffset  bool // LIMIT becomes LIMIT + OFFSET, OFFSET goes
}

// HideSort is an ORDER BY item, by its index. As is the column that its bare name means, where that is one of t.*.
type HideSort struct {
	Item int
	As   *Col
}

// SortBy is an item of ORDER BY that is a column.
type SortBy struct {
	Col              Col
	Desc, NullsFirst bool
}

func (s *SortBy) node() *pg.Node {
	dir, nulls := pg.SortByDir_SORTBY_ASC, pg.SortByNulls_SORTBY_NULLS_LAST
	if s.Desc {
		dir = pg.SortByDir_SORTBY_DESC
	}
	if s.NullsFirst {
		nulls = pg.SortByNulls_SORTBY_NULLS_FIRST
	}
	return pg.MakeSortByNode(s.Col.node(), dir, nulls, -1)
}

func (c *Col) node() *pg.Node {
	return pg.MakeColumnRefNode([]*pg.Node{pg.MakeStrNode(c.Qual), pg.MakeStrNode(c.Name)}, -1)
}

// Parts has an output column that is an aggregate become the first of these of the same argument; the others are appended as hidden columns.
type Parts struct {
	Target     int
	Aggregates []string
}

// longText is the length from which on a text that stays as it is, is not written anew.
const longText = 16 << 10

// changes says whether a SELECT is any other for a shard.
func (p *Partial) changes(x *pg.SelectStmt) bool {
	return len(p.HideSorts)+len(p.Sorts)+len(p.HideTarget)+len(p.Parts) > 0 || p.DropOrder && len(x.SortClause) > 0 ||
		(p.DropLimit || p.AddOffset) && (x.LimitCount != nil || x.LimitOffset != nil)
}

// Partial writes the text that a shard runs: hidden columns stand behind the visible ones, in the order
// HideSorts, Sorts, HideTarget, Parts. It is for plain SELECT statements.
func (s *Statement) Partial(p Partial) (string, error) {
	raw, ok := s.tree.(*pg.Node)
	if !ok || raw.GetSelectStmt() == nil {
		return "", fmt.Errorf("rewrite: not a SELECT")
	}
	if len(s.Text) > longText && !p.changes(raw.GetSelectStmt()) {
		return s.Text, nil
	}
	root := proto.Clone(raw).(*pg.Node)
	sel := root.GetSelectStmt()
	hide := func(n *pg.Node) {
		name := fmt.Sprintf("pgmosaic_%d", len(sel.TargetList))
		sel.TargetList = append(sel.TargetList, pg.MakeResTargetNodeWithNameAndVal(name, proto.Clone(n).(*pg.Node), -1))
	}
	visible := sel.TargetList
	for _, h := range p.HideSorts {
		if h.As != nil {
			hide(h.As.node())
			continue
		}
		hide(sortExpr(sel.SortClause[h.Item].GetSortBy().GetNode(), visible))
	}
	for i := range p.Sorts {
		hide(p.Sorts[i].Col.node())
		sel.SortClause = append(sel.SortClause, p.Sorts[i].node())
	}
	for _, i := range p.HideTarget {
		hide(visible[i].GetResTarget().GetVal())
	}
	for _, x := range p.Parts {
		t := visible[x.Target].GetResTarget()
		f := t.GetVal().GetFuncCall()
		if t.Name == "" {
			t.Name = strings.ToLower(lastName(f.Funcname))
		}
		for _, name := range x.Aggregates[1:] {
			part := proto.Clone(f).(*pg.FuncCall)
			setFuncName(part, name)
			hide(&pg.Node{Node: &pg.Node_FuncCall{FuncCall: part}})
		}
		setFuncName(f, x.Aggregates[0])
	}
	if p.DropOrder {
		sel.SortClause = nil
	}
	if p.AddOffset && sel.LimitOffset != nil {
		if sel.LimitCount != nil {
			sel.LimitCount = reach(sel.LimitCount, asBigint(sel.LimitOffset))
		} else {
			sel.LimitOption = pg.LimitOption_LIMIT_OPTION_DEFAULT
		}
		sel.LimitOffset = nil
	}
	if p.DropLimit {
		sel.LimitCount, sel.LimitOffset = nil, nil
		sel.LimitOption = pg.LimitOption_LIMIT_OPTION_DEFAULT
	}
	return write(root)
}

// reach is LIMIT and OFFSET, a bigint, together: how many rows of each shard may be wanted. What is more than there are numbers is all.
func reach(limit, offset *pg.Node) *pg.Node {
	op := func(name string, l, r *pg.Node) *pg.Node {
		return pg.MakeAExprNode(pg.A_Expr_Kind_AEXPR_OP, []*pg.Node{pg.MakeStrNode(name)}, l, r, -1)
	}
	limit = asBigint(limit)
	if OrdinalOf(limit.GetTypeCast().Arg.GetAConst()) == 0 { // a small constant is not too much
		most := &pg.Node{Node: &pg.Node_AConst{AConst: &pg.A_Const{Val: &pg.A_Const_Fval{Fval: &pg.Float{Fval: "9223372036854775807"}}, Location: -1}}}
		limit = &pg.Node{Node: &pg.Node_MinMaxExpr{MinMaxExpr: &pg.MinMaxExpr{
			Op: pg.MinMaxOp_IS_LEAST, Args: []*pg.Node{limit, op("-", most, proto.Clone(offset).(*pg.Node))}, Location: -1,
		}}}
	}
	return op("+", limit, offset)
}

func setFuncName(f *pg.FuncCall, name string) {
	f.Funcname = []*pg.Node{pg.MakeStrNode("pg_catalog"), pg.MakeStrNode(name)}
}

func asBigint(n *pg.Node) *pg.Node {
	t := &pg.TypeName{Names: []*pg.Node{pg.MakeStrNode("pg_catalog"), pg.MakeStrNode("int8")}, Typemod: -1}
	return &pg.Node{Node: &pg.Node_TypeCast{TypeCast: &pg.TypeCast{Arg: n, TypeName: t}}}
}

// sortExpr resolves an ordinal or an output name to its expression, as ORDER BY does.
func sortExpr(n *pg.Node, targets []*pg.Node) *pg.Node {
	if i := OrdinalOf(n.GetAConst()); i > 0 && i <= len(targets) {
		return targets[i-1].GetResTarget().GetVal()
	}
	if name := bareName(n); name != "" {
		if at, _ := named(targets, name); at > 0 {
			return targets[at-1].GetResTarget().GetVal()
		}
	}
	return n
}

// OrdinalOf is the position that a bare integer in ORDER BY means, or 0.
func OrdinalOf(a *pg.A_Const) int {
	if v, ok := a.GetVal().(*pg.A_Const_Ival); ok {
		return int(v.Ival.GetIval())
	}
	return 0
}
