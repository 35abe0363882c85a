package sqlparse

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/proto"
)

// Finish is a SELECT in two steps: each shard runs Shard, and its rows together are a table over which Final gives the
// statement's answer. In Final stand calls that only the types of Shard's columns can resolve: pgmosaic_count(c),
// pgmosaic_sum(c) and pgmosaic_avg(c, n), of counts and sums to be added up.
type Finish struct{ Shard, Final string }

// partial is the name of Shard's rows in Final. A statement that holds it anywhere is not split.
const partial = "pgmosaic"

// errNoFinish means that a SELECT does not fall into two steps.
var errNoFinish = errors.New("rewrite: no two steps")

// combined are aggregates that are their own combination.
var combined = map[string]bool{"min": true, "max": true, "bool_and": true, "bool_or": true, "every": true, "bit_and": true, "bit_or": true, "bit_xor": true}

// finisher takes a SELECT apart.
type finisher struct {
	sel   *pg.SelectStmt
	parts []*pg.Node        // Shard's output columns
	keys  map[string]string // a grouping expression to its column
	table string
	in    Inputs
	err   error
}

// Inputs is what is known of the columns of FROM.
type Inputs struct {
	Has  func(name string) bool       // whether a bare name is one of them
	Star func(qualifier string) []Col // those that * or qualifier.* stands for; nil if that is not known
	Type func(Col) uint32             // the OID of a column's type, 0 if that is not known
	Own  func(Made) bool              // whether each server may have a value of its own
}

// Finished splits a SELECT of the statement whose rows, before they are grouped, sorted and cut, are the union of the
// shards' rows. table is the temporary table that Final reads.
func (s *Statement) Finished(q *Query, table string, in Inputs) (*Finish, error) {
	if q.tree == nil || q.SetOp || strings.Contains(s.Text, partial) {
		return nil, errNoFinish
	}
	f := &finisher{sel: proto.Clone(q.tree).(*pg.SelectStmt), keys: map[string]string{}, table: table, in: in}
	if q.Exists && q.Limit == nil && q.Offset == nil {
		f.sel.LimitCount, f.sel.LimitOption = position(1), pg.LimitOption_LIMIT_OPTION_COUNT
	}
	if f.sel.WithClause != nil || f.sel.IntoClause != nil || len(f.sel.LockingClause) > 0 || f.distinctOn() {
		return nil, errNoFinish
	}
	if slices.ContainsFunc(f.sel.TargetList, func(t *pg.Node) bool { // it stands for several columns, of whatever names
		return t.GetResTarget().GetVal().GetAIndirection() != nil && expands(t.GetResTarget().GetVal())
	}) {
		return nil, errNoFinish
	}
	grouped := len(f.sel.GroupClause) > 0 || f.sel.HavingClause != nil
	for _, t := range f.sel.TargetList {
		grouped = grouped || holdsAggregate(t)
	}
	for _, o := range f.sel.SortClause {
		grouped = grouped || holdsAggregate(o)
	}
	switch {
	case grouped:
		return f.aggregates()
	case q.Agg: // by an aggregate in a subquery
		return nil, errNoFinish
	}
	return f.rows()
}

func (f *finisher) distinctOn() bool {
	return len(f.sel.DistinctClause) > 0 && f.sel.DistinctClause[0].GetNode() != nil
}

func holdsAggregate(n *pg.Node) bool {
	found := false
	walk(n, func(m any) bool {
		switch m.(type) {
		case *pg.SubLink:
			return false
		case *pg.GroupingFunc:
			found = true
		}
		found = found || isAggregate(m)
		return true
	})
	return found
}

// part adds an output column to Shard.
func (f *finisher) part(prefix string, n *pg.Node) string {
	name := fmt.Sprintf("%s%d", prefix, len(f.parts)+1)
	f.parts = append(f.parts, pg.MakeResTargetNodeWithNameAndVal(name, n, -1))
	return name
}

// column is a column of Shard in Final.
func column(name string) *pg.Node {
	return pg.MakeColumnRefNode([]*pg.Node{pg.MakeStrNode(partial), pg.MakeStrNode(name)}, -1)
}

// source is the FROM clause of Final.
func (f *finisher) source() ([]*pg.Node, error) {
	tree, err := parseTree("SELECT FROM pg_temp." + f.table + " " + partial)
	if err != nil {
		return nil, fmt.Errorf("rewrite: %w", err)
	}
	return tree.Stmts[0].GetStmt().GetSelectStmt().FromClause, nil
}

func text(sel *pg.SelectStmt) (string, error) {
	return write(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: sel}})
}

// both writes the two statements.
func (f *finisher) both(shard, final *pg.SelectStmt) (*Finish, error) {
	if f.err != nil {
		return nil, f.err
	}
	var err error
	if final.FromClause, err = f.source(); err != nil {
		return nil, err
	}
	final.WhereClause = nil
	out := &Finish{}
	if out.Shard, err = text(shard); err != nil {
		return nil, err
	}
	out.Final, err = text(final)
	return out, err
}

// rows splits a SELECT without aggregates: each shard gives its distinct rows, sorted and cut where the statement cuts.
func (f *finisher) rows() (*Finish, error) {
	shard := f.sel
	if len(shard.SortClause)+len(shard.DistinctClause) == 0 && len(shard.FromClause) == 1 && shard.FromClause[0].GetRangeSubselect() != nil && f.sorted() {
		return nil, errNoFinish // the rows come in the subquery's order
	}
	if err := f.expand(); err != nil {
		return nil, err
	}
	final := proto.Clone(shard).(*pg.SelectStmt)
	final.TargetList = nil
	visible := shard.TargetList
	for _, t := range visible {
		if windowed(t) || len(shard.DistinctClause) > 0 && f.in.Own(made(t)) {
			return nil, errNoFinish
		}
		out := pg.MakeResTargetNodeWithVal(column(f.part("c", t.GetResTarget().Val)), -1)
		final.TargetList = append(final.TargetList, out)
	}
	for i, o := range shard.SortClause {
		n := o.GetSortBy().Node
		if len(o.GetSortBy().UseOp) > 0 || windowed(o) {
			return nil, errNoFinish
		}
		at, sure := outputAt(n, visible)
		switch {
		case !sure, at == 0 && len(shard.DistinctClause) > 0: // of the latter an output column in another spelling
			return nil, errNoFinish
		case at > 0:
			final.SortClause[i].GetSortBy().Node = column(f.parts[at-1].GetResTarget().Name)
		default:
			final.SortClause[i].GetSortBy().Node = column(f.part("s", n))
			at = len(f.parts)
		}
		o.GetSortBy().Node = position(at) // the names have changed
	}
	if len(f.parts) == 0 {
		return nil, errNoFinish
	}
	shard.TargetList = f.parts
	switch {
	case shard.LimitCount == nil || isNull(shard.LimitCount):
		shard.LimitCount, shard.LimitOffset, shard.LimitOption = nil, nil, pg.LimitOption_LIMIT_OPTION_DEFAULT
		shard.SortClause = nil
	case shard.LimitOffset != nil:
		shard.LimitCount = reach(shard.LimitCount, asBigint(orZero(shard.LimitOffset)))
		shard.LimitOffset = nil
	}
	return f.both(shard, final)
}

// expand writes the columns that * stands for. Columns that USING merges would stand once, in another order.
func (f *finisher) expand() error {
	var out []*pg.Node
	for _, t := range f.sel.TargetList {
		fields := t.GetResTarget().GetVal().GetColumnRef().GetFields()
		if len(fields) == 0 || fields[len(fields)-1].GetAStar() == nil {
			out = append(out, t)
			continue
		}
		qualifier := ""
		if len(fields) == 2 {
			qualifier = fields[0].GetString_().GetSval()
		}
		cols := f.in.Star(qualifier)
		if cols == nil || len(fields) > 2 || qualifier == "" && f.merges() {
			return errNoFinish
		}
		for _, c := range cols {
			ref := pg.MakeColumnRefNode([]*pg.Node{pg.MakeStrNode(c.Qual), pg.MakeStrNode(c.Name)}, -1)
			out = append(out, pg.MakeResTargetNodeWithVal(ref, -1))
		}
	}
	f.sel.TargetList = out
	return nil
}

// merges says whether a join merges columns.
func (f *finisher) merges() bool {
	found := false
	for _, n := range f.sel.FromClause {
		walk(n, func(m any) bool {
			if j, ok := m.(*pg.JoinExpr); ok {
				found = found || j.IsNatural || len(j.UsingClause) > 0
			}
			return !found
		})
	}
	return found
}

// orZero is an OFFSET, of which NULL means none.
func orZero(n *pg.Node) *pg.Node {
	return &pg.Node{Node: &pg.Node_CoalesceExpr{CoalesceExpr: &pg.CoalesceExpr{Args: []*pg.Node{asBigint(n), asBigint(pg.MakeAConstIntNode(0, -1))}, Location: -1}}}
}

func isNull(n *pg.Node) bool { return n.GetAConst() != nil && n.GetAConst().GetIsnull() }

// Own writes a SELECT of the statement by itself.
func (q *Query) Own() (string, error) {
	if q.tree == nil {
		return "", errUnwritable
	}
	return text(proto.Clone(q.tree).(*pg.SelectStmt))
}

func position(at int) *pg.Node { return pg.MakeAConstIntNode(int64(at), -1) }

func windowed(n *pg.Node) bool {
	found := false
	walk(n, func(m any) bool {
		found = found || windowOf(m) != nil
		return !found
	})
	return found
}

// outputAt is the position of the output column that a bare ORDER BY item means, or 0. sure is false where only a server can tell.
func outputAt(n *pg.Node, visible []*pg.Node) (at int, sure bool) {
	if i := OrdinalOf(n.GetAConst()); i > 0 && i <= len(visible) {
		return i, true
	}
	if name := bareName(n); name != "" {
		if at, sure := named(visible, name); at > 0 || !sure {
			return at, sure
		}
	}
	key := canonical(n)
	for i, t := range visible {
		if canonical(t.GetResTarget().GetVal()) == key {
			return i + 1, true
		}
	}
	return 0, true
}

// aggregates splits a grouped SELECT: each shard gives partial aggregates of its groups.
func (f *finisher) aggregates() (*Finish, error) {
	final := f.sel
	for i := range final.GroupClause {
		f.key(final.GroupClause[i])
	}
	var by []*pg.Node
	visible := proto.Clone(&pg.SelectStmt{TargetList: final.TargetList}).(*pg.SelectStmt).TargetList
	for _, t := range final.TargetList {
		f.finish(t.GetResTarget().Val)
	}
	if final.HavingClause != nil {
		f.finish(final.HavingClause)
	}
	for _, w := range final.WindowClause {
		f.finish(w)
	}
	for _, o := range final.SortClause {
		at, sure := outputAt(o.GetSortBy().Node, visible)
		switch {
		case !sure:
			return nil, errNoFinish
		case at > 0:
			o.GetSortBy().Node = position(at)
		default:
			f.finish(o.GetSortBy().Node)
		}
	}
	for i := range f.parts {
		if name := f.parts[i].GetResTarget().Name; name[0] == 'g' || name[0] == 'd' {
			by = append(by, position(i+1))
		}
	}
	if len(f.parts) == 0 {
		return nil, errNoFinish
	}
	shard := &pg.SelectStmt{
		TargetList: f.parts, FromClause: final.FromClause, WhereClause: final.WhereClause, GroupClause: by,
		LimitOption: pg.LimitOption_LIMIT_OPTION_DEFAULT, Op: pg.SetOperation_SETOP_NONE,
	}
	return f.both(proto.Clone(shard).(*pg.SelectStmt), final)
}

// key makes a GROUP BY item, or the items of a grouping set, columns of Shard.
func (f *finisher) key(n *pg.Node) {
	if set := n.GetGroupingSet(); set != nil {
		for _, c := range set.Content {
			f.key(c)
		}
		return
	}
	if row := n.GetRowExpr(); row != nil { // (a, b) inside a grouping set
		for _, c := range row.Args {
			f.key(c)
		}
		return
	}
	e := n
	if i := OrdinalOf(n.GetAConst()); i > 0 {
		if i > len(f.sel.TargetList) {
			f.err = errNoFinish
			return
		}
		e = f.sel.TargetList[i-1].GetResTarget().Val
	} else if ref := n.GetColumnRef(); ref != nil && len(ref.Fields) == 1 {
		if name := ref.Fields[0].GetString_().GetSval(); !f.in.Has(name) {
			at, sure := outputAt(n, f.sel.TargetList)
			if at == 0 || !sure {
				f.err = errNoFinish
				return
			}
			e = f.sel.TargetList[at-1].GetResTarget().Val
		}
	}
	if holdsSubLink(e) || holdsAggregate(e) || windowed(e) || f.in.Own(made(e)) {
		f.err = errNoFinish
		return
	}
	k := canonical(e)
	name, ok := f.keys[k]
	if !ok {
		name = f.part("g", proto.Clone(e).(*pg.Node))
		f.keys[k] = name
	}
	n.Node = column(name).Node
}

func holdsSubLink(n *pg.Node) bool {
	found := false
	walk(n, func(m any) bool {
		_, ok := m.(*pg.SubLink)
		found = found || ok
		return !found
	})
	return found
}

// finish rewrites an expression of the grouped rows, in place, over Shard's columns.
func (f *finisher) finish(n *pg.Node) {
	walk(n, func(m any) bool {
		x, ok := m.(*pg.Node)
		if !ok || f.err != nil {
			return f.err == nil
		}
		if c := x.GetColumnRef(); c != nil && len(c.Fields) == 2 && c.Fields[0].GetString_().GetSval() == partial {
			return false // done already
		}
		if name, ok := f.keys[canonical(x)]; ok {
			x.Node = column(name).Node
			return false
		}
		switch y := x.Node.(type) {
		case *pg.Node_ColumnRef, *pg.Node_SubLink:
			f.err = errNoFinish // a column that hangs on the key of its group, or worse
			return false
		case *pg.Node_FuncCall:
			if isAggregate(y.FuncCall) {
				f.aggregate(x, y.FuncCall)
				return false
			}
		case *pg.Node_JsonArrayAgg, *pg.Node_JsonObjectAgg:
			f.err = errNoFinish // nothing combines what they make
			return false
		}
		return true
	})
}

// aggregate replaces a call by what combines its parts.
func (f *finisher) aggregate(at *pg.Node, call *pg.FuncCall) {
	name := strings.ToLower(lastName(call.Funcname))
	joins := name == "string_agg" && len(call.Args) == 2 && !call.AggDistinct
	if len(call.AggOrder) > 0 || call.AggWithinGroup || call.FuncVariadic || len(call.Args) > 1 && !joins || len(call.Funcname) > 2 {
		f.err = errNoFinish
		return
	}
	if len(call.Args) == 0 && (name != "count" || call.AggDistinct) { // wrong: a server says so
		f.err = errNoFinish
		return
	}
	whole := proto.Clone(call).(*pg.FuncCall)
	if call.AggDistinct {
		switch name {
		case "count", "sum", "avg", "min", "max":
		default:
			f.err = errNoFinish
			return
		}
		arg := whole.Args[0]
		if f.in.Own(made(arg)) {
			f.err = errNoFinish
			return
		}
		if call.AggFilter != nil { // NULL is what none of them counts
			arg = &pg.Node{Node: &pg.Node_CaseExpr{CaseExpr: &pg.CaseExpr{
				Args:     []*pg.Node{{Node: &pg.Node_CaseWhen{CaseWhen: &pg.CaseWhen{Expr: whole.AggFilter, Result: arg, Location: -1}}}},
				Location: -1,
			}}}
		}
		call.Args, call.AggFilter = []*pg.Node{column(f.part("d", arg))}, nil
		return
	}
	piece := func(fn string) string {
		c := proto.Clone(whole).(*pg.FuncCall)
		if fn != name {
			setFuncName(c, fn)
		}
		return f.part("a", &pg.Node{Node: &pg.Node_FuncCall{FuncCall: c}})
	}
	marker := func(fn string, cols ...string) {
		var args []*pg.Node
		for _, c := range cols {
			args = append(args, column(c))
		}
		at.Node = pg.MakeFuncCallNode([]*pg.Node{pg.MakeStrNode(fn)}, args, -1).Node
	}
	switch {
	case name == "count":
		marker("pgmosaic_count", piece(name))
	case name == "sum":
		marker("pgmosaic_sum", piece(name))
	case name == "avg":
		marker("pgmosaic_avg", piece("sum"), piece("count"))
	case combined[name] && len(call.Args) == 1:
		call.Args, call.AggFilter = []*pg.Node{column(piece(name))}, nil
	case joins && call.Args[1].GetAConst().GetSval() != nil && !f.sorted():
		call.Args[0], call.AggFilter = column(piece(name)), nil
	case spreads[name].root != "" && f.exact(whole.Args[0]):
		f.spread(at, whole, spreads[name])
	default:
		f.err = errNoFinish
	}
}
