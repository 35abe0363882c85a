package sqlparse

import (
	"maps"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// level is a query being read.
type level struct {
	*Query
	scope *Sight // of what is being read; nil: all of FROM
	keyed bool   // its expressions are compared with one another: it groups or sorts
}

func newLevel(q *Query) *level {
	q.Merged = map[string]string{}
	return &level{Query: q}
}

// within reads with names that see no more than a scope.
func (q *level) within(s *Sight, read func()) {
	around := q.scope
	q.scope = s
	read()
	q.scope = around
}

// before is what stands in FROM up to here.
func (q *level) before() *Sight { return &Sight{slices.Clone(q.Rels), maps.Clone(q.Merged)} }

func (c *converter) query(x *pg.SelectStmt) *Query {
	q := newLevel(&Query{Cmd: Select, tree: x})
	q.keyed = len(x.GroupClause)+len(x.SortClause) > 0
	defer c.scope()()
	c.with(q, x.WithClause)
	if x.Op != pg.SetOperation_SETOP_NONE {
		q.SetOp = true
		q.Leaves = []*Query{c.query(x.Larg), c.query(x.Rarg)}
		c.tail(q, x)
		return q.Query
	}
	for _, f := range x.FromClause {
		c.from(q, f)
	}
	c.where(q, x.WhereClause, nil)
	for _, row := range x.ValuesLists {
		var vals []Value
		for _, v := range row.GetList().GetItems() {
			vals = append(vals, c.value(v))
			c.scan(q, v)
		}
		q.Rows = append(q.Rows, vals)
	}
	q.Distinct = len(x.DistinctClause) > 0
	for _, d := range x.DistinctClause {
		if d.GetNode() != nil {
			q.DistinctOn = append(q.DistinctOn, c.expr(q, d))
		}
		c.scan(q, d)
	}
	if x.IntoClause != nil {
		q.Into = true
		c.makes(x.IntoClause.Rel)
		c.seen++ // its relation is made, not read
	}
	q.Targets = slices.Grow(q.Targets, len(x.TargetList))
	for _, t := range x.TargetList {
		rt := t.GetResTarget()
		c.scan(q, rt.GetVal())
		q.Targets = append(q.Targets, Target{c.expr(q, rt.GetVal()), rt.GetName()})
	}
	for _, g := range x.GroupClause {
		if g.GetGroupingSet() != nil {
			q.Grouping = true
		}
		c.scan(q, g)
		q.GroupBy = append(q.GroupBy, c.expr(q, g))
	}
	q.Having = x.HavingClause != nil
	c.scan(q, x.HavingClause)
	q.Window = q.Window || len(x.WindowClause) > 0
	for _, w := range x.WindowClause {
		c.scan(q, w)
		c.partition(q, w.GetWindowDef())
	}
	c.tail(q, x)
	return q.Query
}

// tail reads what a plain SELECT and a set operation share.
func (c *converter) tail(q *level, x *pg.SelectStmt) {
	for _, s := range x.SortClause {
		sb := s.GetSortBy()
		c.scan(q, sb.GetNode())
		desc := sb.GetSortbyDir() == pg.SortByDir_SORTBY_DESC
		first := sb.GetSortbyNulls() == pg.SortByNulls_SORTBY_NULLS_FIRST ||
			desc && sb.GetSortbyNulls() == pg.SortByNulls_SORTBY_NULLS_DEFAULT
		q.OrderBy = append(q.OrderBy, Sort{c.expr(q, sb.GetNode()), desc, first, len(sb.GetUseOp()) > 0})
	}
	if x.LimitCount != nil {
		v := c.value(x.LimitCount)
		q.Limit = &v
		c.scan(q, x.LimitCount)
	}
	if x.LimitOffset != nil {
		v := c.value(x.LimitOffset)
		q.Offset = &v
		c.scan(q, x.LimitOffset)
	}
	q.WithTies = x.LimitOption == pg.LimitOption_LIMIT_OPTION_WITH_TIES
	for _, l := range x.LockingClause {
		q.Locking = true
		k := l.GetLockingClause()
		c.seen += len(k.GetLockedRels())
		lock := RowLock{Strong: k.Strength == pg.LockClauseStrength_LCS_FORUPDATE || k.Strength == pg.LockClauseStrength_LCS_FORNOKEYUPDATE}
		for _, r := range k.GetLockedRels() {
			lock.Of = append(lock.Of, r.GetRangeVar().GetRelname())
		}
		q.Locks = append(q.Locks, lock)
	}
}

// scope remembers which CTE names are visible, and returns what forgets the newer ones.
func (c *converter) scope() func() {
	n := len(c.ctes)
	return func() { c.ctes = c.ctes[:n] }
}

func (c *converter) with(q *level, w *pg.WithClause) {
	if w == nil {
		return
	}
	if w.Recursive {
		for _, n := range w.Ctes {
			c.ctes = append(c.ctes, n.GetCommonTableExpr().GetCtename())
		}
	}
	for _, n := range w.Ctes {
		cte := n.GetCommonTableExpr()
		var sub *Query
		switch x := cte.GetCtequery().GetNode().(type) {
		case *pg.Node_SelectStmt:
			sub = c.query(x.SelectStmt)
		case *pg.Node_InsertStmt:
			sub = c.insert(x.InsertStmt)
		case *pg.Node_UpdateStmt:
			sub = c.update(x.UpdateStmt)
		case *pg.Node_DeleteStmt:
			sub = c.delete(x.DeleteStmt)
		default:
			sub = &Query{Cmd: Other, Opaque: "this kind of WITH query"}
		}
		if len(cte.GetAliascolnames()) == 0 {
			sub.Named = cte.GetCtename()
		}
		q.CTEs = append(q.CTEs, sub)
		if !w.Recursive {
			c.ctes = append(c.ctes, cte.GetCtename())
		}
	}
}

func (c *converter) rel(r *pg.RangeVar) *Rel {
	c.seen++
	rel := &Rel{Kind: RelTable, Table: TableRef{r.Schemaname, r.Relname}, Alias: r.GetAlias().GetAliasname(), Only: !r.Inh, Loc: c.loc(r.Location)}
	if r.Schemaname == "" {
		for _, n := range c.ctes {
			rel.CTE = rel.CTE || n == r.Relname
		}
	}
	return rel
}

// from adds one FROM item and returns what it brought.
func (c *converter) from(q *level, n *pg.Node) *Sight {
	var rel *Rel
	switch x := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		rel = c.rel(x.RangeVar)
		if len(x.RangeVar.GetAlias().GetColnames()) > 0 {
			q.Opaque = "an alias that renames columns"
		}
	case *pg.Node_RangeSubselect:
		rel = &Rel{Kind: RelQuery, Alias: x.RangeSubselect.GetAlias().GetAliasname(), Lateral: x.RangeSubselect.Lateral}
		rel.Sub = c.query(x.RangeSubselect.GetSubquery().GetSelectStmt())
		rel.Sub.In = q.before()
		if len(rel.Sub.Rows) > 0 {
			rel.Kind = RelValues
			for _, n := range x.RangeSubselect.GetAlias().GetColnames() {
				rel.Cols = append(rel.Cols, n.GetString_().GetSval())
			}
		} else if len(x.RangeSubselect.GetAlias().GetColnames()) > 0 {
			q.Opaque = "an alias that renames columns"
		}
	case *pg.Node_RangeFunction:
		rel = &Rel{Kind: RelFunction, Alias: x.RangeFunction.GetAlias().GetAliasname()}
		if rel.Alias == "" && len(x.RangeFunction.Functions) > 0 {
			rel.Alias = functionName(x.RangeFunction.Functions[0].GetList().GetItems()[0])
		}
		sets := q.SRF
		q.within(q.before(), func() {
			for _, f := range x.RangeFunction.Functions {
				c.scan(q, f)
			}
		})
		q.SRF = sets // there a set is rows like any other item's
	case *pg.Node_JoinExpr:
		return c.join(q, x.JoinExpr)
	case *pg.Node_RangeTableSample:
		q.Opaque = "TABLESAMPLE"
		return c.from(q, x.RangeTableSample.Relation)
	default:
		q.Opaque = "this kind of FROM item"
		c.scan(q, n)
		return &Sight{}
	}
	q.Rels = append(q.Rels, rel)
	return &Sight{Rels: []*Rel{rel}}
}

// functionName is what a function in FROM is called that has no alias. Of what cannot be a row it does not matter.
func functionName(n *pg.Node) string {
	switch x := n.GetNode().(type) {
	case *pg.Node_FuncCall:
		return lastName(x.FuncCall.Funcname)
	case *pg.Node_TypeCast:
		if name := functionName(x.TypeCast.Arg); name != "" {
			return name
		}
		return lastName(x.TypeCast.TypeName.GetNames())
	case *pg.Node_CoalesceExpr:
		return "coalesce"
	case *pg.Node_MinMaxExpr:
		return map[pg.MinMaxOp]string{pg.MinMaxOp_IS_GREATEST: "greatest", pg.MinMaxOp_IS_LEAST: "least"}[x.MinMaxExpr.Op]
	case *pg.Node_AExpr:
		if x.AExpr.Kind == pg.A_Expr_Kind_AEXPR_NULLIF {
			return "nullif"
		}
	}
	return ""
}

func (c *converter) join(q *level, j *pg.JoinExpr) *Sight {
	l, r := c.from(q, j.Larg), c.from(q, j.Rarg)
	left, right := l.Rels, r.Rels
	mark := func(rels []*Rel, nullable, kept bool) {
		for _, x := range rels {
			x.Nullable = x.Nullable || nullable
			x.Kept = x.Kept || kept
		}
	}
	var into []*Rel
	prefer := l
	switch j.Jointype {
	case pg.JoinType_JOIN_INNER:
	case pg.JoinType_JOIN_LEFT:
		mark(right, true, false)
		mark(left, false, true)
		into = right
	case pg.JoinType_JOIN_RIGHT:
		mark(left, true, false)
		mark(right, false, true)
		into, prefer = left, r
	default:
		mark(left, true, true)
		mark(right, true, true)
		q.FullJoin = true
		into = []*Rel{} // no facts at all
	}
	if j.IsNatural {
		q.Opaque, q.Star = "NATURAL JOIN", true
	}
	both := l.and(r)
	for _, u := range j.UsingClause {
		col := u.GetString_().GetSval()
		q.Words = append(q.Words, col)
		both.Merged[col] = ""
		if lq, rq := l.qualifier(col), r.qualifier(col); !q.FullJoin && lq != "" && rq != "" {
			q.Facts = append(q.Facts, Fact{L: Col{Qual: lq, Name: col}, R: Operand{IsCol: true, Col: Col{Qual: rq, Name: col}}, Into: into})
			both.Merged[col] = prefer.qualifier(col)
		}
		q.Merged[col] = both.Merged[col]
	}
	q.within(both, func() {
		if j.Jointype == pg.JoinType_JOIN_FULL {
			c.scan(q, j.Quals)
		} else {
			c.where(q, j.Quals, into)
		}
	})
	if j.GetAlias() != nil || j.GetJoinUsingAlias() != nil {
		q.Opaque = "an alias of a join"
	}
	return both
}

// and is what names see of two sides of a join. What USING merged on both is ambiguous.
func (s *Sight) and(r *Sight) *Sight {
	out := &Sight{slices.Concat(s.Rels, r.Rels), map[string]string{}}
	maps.Copy(out.Merged, s.Merged)
	for col, of := range r.Merged {
		if _, twice := out.Merged[col]; twice {
			of = ""
		}
		out.Merged[col] = of
	}
	return out
}

// qualifier is the relation whose column a name means that USING has; "" where that is none's or not known.
func (s *Sight) qualifier(col string) string {
	if len(s.Rels) == 1 {
		return s.Rels[0].Name()
	}
	return s.Merged[col]
}

// where adds the facts of a condition's conjuncts; into restricts them to an outer join's nullable side.
func (c *converter) where(q *level, n *pg.Node, into []*Rel) {
	if n == nil {
		return
	}
	if b := n.GetBoolExpr(); b != nil && b.Boolop == pg.BoolExprType_AND_EXPR {
		for _, a := range b.Args {
			c.where(q, a, into)
		}
		return
	}
	c.scan(q, n)
	q.Conds = append(q.Conds, c.cond(q, n, into))
	if e := n.GetAExpr(); e != nil && len(e.Name) == 1 {
		c.fact(q, e, into)
	}
}

// fact notes what a comparison says of columns.
func (c *converter) fact(q *level, e *pg.A_Expr, into []*Rel) {
	op := e.Name[0].GetString_().GetSval()
	if op != "=" {
		if into == nil {
			c.bound(q, e, op)
		}
		return
	}
	if lr := e.Lexpr.GetRowExpr(); lr != nil {
		c.rowFacts(q, e, lr.Args, into)
		return
	}
	l, r := c.operand(q, e.Lexpr), c.operand(q, e.Rexpr)
	switch e.Kind {
	case pg.A_Expr_Kind_AEXPR_OP, pg.A_Expr_Kind_AEXPR_NOT_DISTINCT:
		if e.Kind == pg.A_Expr_Kind_AEXPR_NOT_DISTINCT && (l.Val.Kind == ValNull || r.Val.Kind == ValNull || l.IsCol && r.IsCol ||
			l.Val.Kind == ValParam || r.Val.Kind == ValParam) {
			return // NULL would match here
		}
		if !l.IsCol {
			l, r = r, l
		}
		if l.IsCol {
			q.Facts = append(q.Facts, Fact{L: l.Col, R: r, Into: into})
		}
	case pg.A_Expr_Kind_AEXPR_IN:
		if l.IsCol {
			q.Facts = append(q.Facts, Fact{L: l.Col, In: c.values(e.Rexpr.GetList().GetItems()), At: c.loc(e.Location), Into: into})
		}
	case pg.A_Expr_Kind_AEXPR_OP_ANY:
		if !l.IsCol {
			return
		}
		if arr := e.Rexpr.GetAArrayExpr(); arr != nil {
			q.Facts = append(q.Facts, Fact{L: l.Col, In: c.values(arr.Elements), Into: into})
		} else if v := c.value(e.Rexpr); v.Kind == ValParam {
			v.Array = true
			q.Facts = append(q.Facts, Fact{L: l.Col, In: []Value{v}, Into: into})
		}
	}
}

// rowFacts takes (a, b) = (1, 2) apart, and of (a, b) IN ((1, 2), ..) what it says of each column.
func (c *converter) rowFacts(q *level, e *pg.A_Expr, left []*pg.Node, into []*Rel) {
	var rows [][]*pg.Node
	switch e.Kind {
	case pg.A_Expr_Kind_AEXPR_OP:
		rows = [][]*pg.Node{e.Rexpr.GetRowExpr().GetArgs()}
	case pg.A_Expr_Kind_AEXPR_IN:
		for _, n := range e.Rexpr.GetList().GetItems() {
			rows = append(rows, n.GetRowExpr().GetArgs())
		}
	}
	for _, r := range rows {
		if len(r) != len(left) {
			return
		}
	}
	for i, n := range left {
		l := c.operand(q, n)
		switch {
		case len(rows) == 1:
			r := c.operand(q, rows[0][i])
			if !l.IsCol {
				l, r = r, l
			}
			if l.IsCol {
				q.Facts = append(q.Facts, Fact{L: l.Col, R: r, Into: into})
			}
		case len(rows) > 1 && l.IsCol:
			var vals []Value
			for _, r := range rows {
				vals = append(vals, c.value(r[i]))
			}
			q.Facts = append(q.Facts, Fact{L: l.Col, In: vals, Into: into})
		}
	}
}

// bound notes an inequality.
func (c *converter) bound(q *level, e *pg.A_Expr, op string) {
	add := func(col Operand, upper bool, n *pg.Node) {
		if v := c.value(n); col.IsCol && v.Kind != ValOther {
			q.Bounds = append(q.Bounds, Bound{Col: col.Col, Val: v, Upper: upper})
		}
	}
	switch e.Kind {
	case pg.A_Expr_Kind_AEXPR_BETWEEN:
		if ends := e.Rexpr.GetList().GetItems(); len(ends) == 2 {
			l := c.operand(q, e.Lexpr)
			add(l, false, ends[0])
			add(l, true, ends[1])
		}
	case pg.A_Expr_Kind_AEXPR_OP:
		upper := op == "<" || op == "<="
		if !upper && op != ">" && op != ">=" {
			return
		}
		add(c.operand(q, e.Lexpr), upper, e.Rexpr)
		add(c.operand(q, e.Rexpr), !upper, e.Lexpr)
	}
}

func (c *converter) values(nodes []*pg.Node) []Value {
	out := make([]Value, len(nodes))
	for i, n := range nodes {
		out[i] = c.value(n)
	}
	return out
}

func (c *converter) operand(q *level, n *pg.Node) Operand {
	if ref := n.GetColumnRef(); ref != nil {
		if col, ok := c.column(q, ref); ok {
			return Operand{IsCol: true, Col: col}
		}
		return Operand{}
	}
	return Operand{Val: c.value(n)}
}

func (c *converter) column(q *level, ref *pg.ColumnRef) (Col, bool) {
	var names []string
	for _, f := range ref.Fields {
		s := f.GetString_()
		if s == nil {
			return Col{}, false
		}
		names = append(names, s.Sval)
	}
	switch len(names) {
	case 1:
		merged := q.Merged
		if q.scope != nil {
			merged = q.scope.Merged
		}
		of, is := merged[names[0]]
		return Col{of, names[0], q.scope}, !is || of != ""
	case 2:
		return Col{names[0], names[1], q.scope}, true
	}
	return Col{}, false
}

func (c *converter) value(n *pg.Node) Value {
	switch x := n.GetNode().(type) {
	case *pg.Node_AConst:
		a := x.AConst
		v := Value{Text: constText(a), Loc: c.loc(a.Location)}
		switch a.GetVal().(type) {
		case *pg.A_Const_Ival:
			v.Kind = ValInt
		case *pg.A_Const_Fval:
			v.Kind = ValNumber
			if !strings.ContainsAny(v.Text, ".eE") {
				v.Kind = ValInt // too wide for int4
			}
		case *pg.A_Const_Sval:
			v.Kind = ValString
		case *pg.A_Const_Boolval:
			v.Kind = ValBool
		case nil:
			v.Kind = ValNull
		default:
			v.Kind = ValOther
		}
		return v
	case *pg.Node_ParamRef:
		return Value{Kind: ValParam, Param: int(x.ParamRef.Number), Loc: c.loc(x.ParamRef.Location)}
	case *pg.Node_SetToDefault:
		return Value{Kind: ValDefault}
	case *pg.Node_TypeCast:
		v := c.value(x.TypeCast.Arg)
		if v.Kind == ValOther || v.Cast != "" {
			return Value{Kind: ValOther}
		}
		v.Cast = castName(x.TypeCast.TypeName)
		return v
	}
	return Value{Kind: ValOther}
}

// castName is the type's name in pg_catalog, or "?" where it may be another schema's and where a modifier or an array may change the value.
func castName(t *pg.TypeName) string {
	names := t.GetNames()
	name := lastName(names)
	if name == "" || len(t.Typmods) > 0 || len(t.ArrayBounds) > 0 || t.Setof || t.PctType || quotedOnly[name] || name != strings.ToLower(name) {
		return "?"
	}
	if len(names) > 2 || len(names) == 2 && names[0].GetString_().GetSval() != "pg_catalog" {
		return "?"
	}
	return name
}

// quotedOnly are names that mean another type in quotes than without, where the grammar has a name of pg_catalog for them: "char" is one
// byte, and the others are types of users.
var quotedOnly = map[string]bool{"char": true, "character": true, "character varying": true, "int": true, "integer": true, "smallint": true, "bigint": true, "boolean": true, "decimal": true}

// scan notes what an expression holds: sublinks, aggregates, windows.
func (c *converter) scan(q *level, n *pg.Node) {
	walkParts(n, func(m any) bool {
		if w := windowOf(m); w != nil {
			q.Window = true
			if w.Name == "" { // else it is one of the WINDOW clause
				c.partition(q, w)
			}
		}
		q.Agg = q.Agg || isAggregate(m)
		switch x := m.(type) {
		case *pg.SubLink:
			s := c.query(x.GetSubselect().GetSelectStmt())
			if ref := x.Testexpr.GetColumnRef(); ref != nil && x.SubLinkType == pg.SubLinkType_ANY_SUBLINK && isEquality(x.OperName) {
				if col, ok := c.column(q, ref); ok {
					s.InTest = &col
				}
			}
			s.In = q.scope
			s.Exists, s.Array = x.SubLinkType == pg.SubLinkType_EXISTS_SUBLINK, x.SubLinkType == pg.SubLinkType_ARRAY_SUBLINK
			q.Subs = append(q.Subs, s)
			c.scan(q, x.Testexpr)
			return false
		case *pg.FuncCall:
			q.SRF = q.SRF || setReturning[strings.ToLower(lastName(x.Funcname))]
		case *pg.ColumnRef:
			if col, ok := c.column(q, x); ok {
				q.RefCols = append(q.RefCols, col)
			}
			c.words(q, x)
		}
		return true
	})
}

func (c *converter) words(q *level, ref *pg.ColumnRef) {
	var names []string
	star := false
	for _, f := range ref.Fields {
		if s := f.GetString_(); s != nil {
			names = append(names, s.Sval)
		}
		star = star || f.GetAStar() != nil
	}
	switch {
	case !star && len(names) > 0:
		q.Words = append(q.Words, names[len(names)-1])
	case len(names) > 0:
		q.Stars = append(q.Stars, names[len(names)-1])
	default:
		q.Star = true
	}
}

// partition notes a window's PARTITION BY; a window that builds upon another has that one's.
func (c *converter) partition(q *level, w *pg.WindowDef) {
	if w.GetRefname() != "" {
		return
	}
	by := []Expr{}
	for _, n := range w.GetPartitionClause() {
		by = append(by, c.expr(q, n))
	}
	q.Partitions = append(q.Partitions, by)
}

// isEquality says whether the operator of a subquery's test is =, which IN leaves out.
func isEquality(op []*pg.Node) bool {
	return len(op) == 0 || len(op) == 1 && op[0].GetString_().GetSval() == "="
}

// cond notes a conjunct and what it hangs on.
func (c *converter) cond(q *level, n *pg.Node, into []*Rel) Cond {
	out := Cond{Into: into, Plain: true, node: n}
	walkParts(n, func(m any) bool {
		switch x := m.(type) {
		case *pg.SubLink, *pg.CurrentOfExpr, *pg.GroupingFunc:
			out.Plain = false
		case *pg.FuncCall:
			out.Funcs = append(out.Funcs, lastName(x.Funcname))
		case *pg.A_Indirection:
			out.attributes(m)
		case *pg.ColumnRef:
			out.attributes(m)
			col, ok := c.column(q, x)
			out.Cols = append(out.Cols, col)
			out.Plain = out.Plain && ok
		}
		out.Plain = out.Plain && !readsClock(m)
		return true
	})
	return out
}
