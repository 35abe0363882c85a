package router

import (
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/merge"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

var systemColumns = map[string]bool{"ctid": true, "xmin": true, "xmax": true, "cmin": true, "cmax": true, "tableoid": true}

func systemColumn(q *sqlparse.Query) (string, bool) {
	for _, c := range q.RefCols {
		if systemColumns[c.Name] {
			return c.Name, true
		}
	}
	return "", false
}

func isGrant(text string) bool {
	f := strings.Fields(strings.ToLower(text))
	return len(f) > 0 && (f[0] == "grant" || f[0] == "revoke" || f[0] == "comment")
}

// union says whether the rows of a SELECT, before they are grouped, sorted and cut, are those of the shards together;
// nil means that they are.
func (a *analysis) union(b *block) *Error {
	q := b.query
	switch {
	case a.stmt.Kind != sqlparse.Select: // EXPLAIN, DECLARE or COPY around it
		return a.refuseWide()
	case q.SetOp:
		return Refuse(RuleSetOperation)
	case q.Into:
		return Refuse(RuleSelectInto, "SELECT INTO")
	case q.Locking && (q.Limit != nil || q.Offset != nil) && (len(q.OrderBy) > 0 || ordersInside(a, q)): // which rows are locked hangs on all shards'
		return Refuse(RuleLocking)
	case len(q.Rows) > 0:
		return Refuse(RuleOpaque, "VALUES")
	}
	return a.unions(b)
}

// unions is union for a block by itself, whatever stands around it.
func (a *analysis) unions(b *block) *Error {
	if a.other != "" {
		return Refuse(RuleOpaque, "a function of sets that is called as an attribute, "+a.other)
	}
	for _, sub := range b.subs {
		if a.writes(sub) {
			return Refuse(RuleWritingWith)
		}
		if b.isKeyed(sub) || b.perRow(sub) && a.isLocal(b, sub) {
			continue
		}
		if n, ok := a.anySharded(sub); ok {
			return Refuse(RuleSubquery, n)
		}
		if len(sub.Rels) > 0 || len(sub.Leaves) > 0 || len(sub.CTEs) > 0 {
			return Refuse(RuleSubquery, "of this statement")
		}
	}
	for _, f := range b.flat {
		switch {
		case f.Opaque != "":
			return Refuse(RuleOpaque, f.Opaque)
		case f.SRF:
			return Refuse(RuleSetReturning)
		case f.FullJoin:
			return Refuse(RuleFullJoin, a.shardedNames(b))
		}
		if c, ok := systemColumn(f); ok {
			return Refuse(RuleSystemColumn, c)
		}
	}
	if f, ok := a.firstVolatile(); ok {
		return Refuse(RuleVolatile, f)
	}
	for _, f := range a.ran(a.stmt) {
		if a.sch.Aggs[f] || a.sch.Given[f] && !sqlparse.IsAggregate(f) || sqlparse.IsAggregate(f) && len(a.userFuncs(f)) > 0 { // of the second no query says that it aggregates, and the last may not
			return Refuse(RuleAggregate, f)
		}
	}
	return a.coLocated(b)
}

// scatter plans a SELECT whose union over shards, with a merge, is the answer; nil means that it is.
func (a *analysis) scatter(b *block) *Error {
	if err := a.union(b); err != nil {
		return err
	}
	q := b.query
	switch {
	case q.WithTies:
		return Refuse(RuleWithTies)
	case q.Window && (!a.windowsByKey(b) || (q.Agg || len(q.GroupBy) > 0) && !a.groupsByKey(b)):
		return Refuse(RuleWindow)
	case q.Distinct && !a.distinctByKey(b):
		return Refuse(RuleDistinct)
	case q.Having && !a.groupsByKey(b):
		return Refuse(RuleHaving)
	case q.Grouping:
		return Refuse(RuleGroupingSets)
	}
	m, err := a.merge(b)
	if err != nil {
		return err
	}
	a.t.Class, a.t.Merge = Scatter, m
	a.t.Exact = a.t.Exact || !m.Own
	return nil
}

// writes says whether a query in WITH writes.
func (a *analysis) writes(q *sqlparse.Query) bool {
	return q.Target != nil || slices.ContainsFunc(q.CTEs, a.writes)
}

// perRow says whether a query is evaluated for each row of the block: it stands in an expression, or is LATERAL.
func (b *block) perRow(sub *sqlparse.Query) bool {
	for _, f := range b.flat {
		if slices.Contains(f.Subs, sub) || slices.ContainsFunc(f.Rels, func(r *sqlparse.Rel) bool { return r.Sub == sub && r.Lateral }) {
			return true
		}
	}
	return false
}

func (b *block) isKeyed(sub *sqlparse.Query) bool {
	return slices.ContainsFunc(b.keyed, func(u unit) bool { return u.inner.query == sub })
}

func (a *analysis) shardedNames(b *block) string {
	var names []shardmap.TableName
	for _, u := range b.units() {
		for _, r := range u.rels {
			names = append(names, a.declared(r).TableName)
		}
	}
	return joinNames(names)
}

func (a *analysis) anySharded(q *sqlparse.Query) (shardmap.TableName, bool) {
	for _, r := range q.Rels {
		if info := a.declared(r); info != nil && info.Kind == shardmap.Sharded {
			return info.TableName, true
		}
		if r.Sub != nil {
			if n, ok := a.anySharded(r.Sub); ok {
				return n, true
			}
		}
	}
	for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves} {
		for _, s := range list {
			if n, ok := a.anySharded(s); ok {
				return n, true
			}
		}
	}
	return shardmap.TableName{}, false
}

// coLocated checks that everything sharded in the block is tied to the rest by its key, and that no outer join keeps rows
// that every shard has.
func (a *analysis) coLocated(b *block) *Error {
	units := b.units()
	for _, u := range units[min(1, len(units)):] {
		if a.declared(u.rels[0]).Group != a.declared(units[0].rels[0]).Group {
			return Refuse(RuleCrossShardJoin, a.shardedNames(b))
		}
	}
	for _, f := range b.flat {
		for _, r := range f.Rels {
			flat := r.Sub != nil && isFlat(r.Sub)
			if flat && (r.Kept || r.Nullable) {
				return Refuse(RuleOpaque, "an outer join with a subquery")
			}
			if r.Kept && !flat && !slices.ContainsFunc(units, func(u unit) bool { return u.outer == r }) {
				return Refuse(RuleOuterReference, r.Name())
			}
		}
	}
	// Follow key equalities from a table whose rows are never blanked. An outer join's ON leads to the side that it may blank,
	// and not back: two tables that are tied to a third only where that one has a row are not tied to one another.
	reached := map[int]bool{}
	for i, u := range units {
		if len(reached) == 0 && !u.outer.Nullable && !b.nullableAbove(u.outer) {
			reached[i] = true
		}
	}
	for changed := true; changed; {
		changed = false
		for i := range units {
			for j := range reached {
				if !reached[i] && a.follows(b, units[i], units[j]) {
					reached[i], changed = true, true
				}
			}
		}
	}
	for i := range units {
		if !reached[i] {
			return Refuse(RuleCrossShardJoin, a.shardedNames(b))
		}
	}
	return nil
}

// follows says whether each row of u that the block joins to one of v is on that one's shard: by the whole key.
func (a *analysis) follows(b *block, u, v unit) bool {
	for _, r := range u.rels {
		for _, s := range v.rels {
			rk, sk := a.declared(r).Keys, a.declared(s).Keys
			equal := len(rk) == len(sk)
			for i := 0; equal && i < len(rk); i++ {
				equal = b.equal(u.outer, v.outer, colID{r, rk[i]}, colID{s, sk[i]})
			}
			if equal {
				return true
			}
		}
	}
	return false
}

// equal says whether a column of r equals one of s in every row that joins them, or in every row of s to which an outer join
// finds one of r.
func (b *block) equal(r, s *sqlparse.Rel, rid, sid colID) bool {
	if b.class(rid) == b.class(sid) {
		return true
	}
	for _, f := range b.flat {
		for _, fact := range f.Facts {
			if fact.Into == nil || !fact.R.IsCol || b.a.env.means(b.a.sch.Equals) {
				continue
			}
			l, _, ok1 := b.resolve(f, fact.L)
			x, _, ok2 := b.resolve(f, fact.R.Col)
			if ok1 && ok2 && (l == rid && x == sid || l == sid && x == rid) && in(fact.Into, r) && !in(fact.Into, s) {
				return true
			}
		}
	}
	return false
}

func in(list []*sqlparse.Rel, r *sqlparse.Rel) bool {
	for _, x := range list {
		if x == r {
			return true
		}
	}
	return false
}

// merge chooses how the shards' rows become one result and writes the text that each shard runs.
func (a *analysis) merge(b *block) (*Merge, *Error) {
	q := b.query
	m := &Merge{Limit: q.Limit, Offset: q.Offset}
	for _, v := range []*sqlparse.Value{q.Limit, q.Offset} {
		if v != nil && v.Kind != sqlparse.ValInt && v.Kind != sqlparse.ValParam && v.Kind != sqlparse.ValNull {
			return nil, Refuse(RuleLimitExpression)
		}
	}
	for _, s := range q.OrderBy {
		if s.Using {
			return nil, Refuse(RuleOrderUsing)
		}
	}
	if (q.Agg || len(q.GroupBy) > 0) && !a.groupsByKey(b) {
		return a.mergeGroups(b, m)
	}
	inner, known := keptOrder(a, q)
	if !known {
		return nil, Refuse(RuleOrderInside)
	}
	if m.Locks = q.Locking; !m.Locks && len(q.OrderBy)+len(inner) == 0 && q.Offset == nil {
		m.Own, m.SQL = true, a.stmt.Text
		return m, nil
	}
	p := sqlparse.Partial{AddOffset: true, DropLimit: q.Locking, Sorts: inner}
	for i, s := range q.OrderBy {
		e, ofStar, err := a.sortTarget(q, s.Expr, q.SortName(i))
		if err != nil {
			return nil, err
		}
		h := sqlparse.HideSort{Item: i}
		if ofStar {
			h.As = e.Col
		}
		p.HideSorts = append(p.HideSorts, h)
		if err := sortBy(b, m, e, s.Desc, s.NullsFirst); err != nil {
			return nil, err
		}
	}
	for _, s := range inner {
		if err := sortBy(b, m, sqlparse.Expr{Col: &s.Col}, s.Desc, s.NullsFirst); err != nil {
			return nil, err
		}
	}
	return m, a.partial(m, p)
}

// sortBy adds a hidden column by which the shards' rows are sorted and merged.
func sortBy(b *block, m *Merge, e sqlparse.Expr, desc, nullsFirst bool) *Error {
	bytes := b.a.bytesOrder(b, e)
	if !bytes && b.a.isText(b, e) {
		return Refuse(RuleOrderCollation)
	}
	m.Mode = Ordered
	m.Sorts = append(m.Sorts, SortKey{Column: m.Hidden, Desc: desc, NullsFirst: nullsFirst, Bytes: bytes})
	m.Hidden++
	return nil
}

func (a *analysis) partial(m *Merge, p sqlparse.Partial) *Error {
	text, err := a.stmt.Partial(p)
	if err != nil {
		return Refuse(RuleOpaque, "a construct that cannot be written back as SQL")
	}
	m.SQL = text
	return nil
}

// sortTarget is the expression that an ORDER BY item means: an ordinal or an output name stands for its output column. name is the item's bare name, if it
// is one. ofStar: the name is that of a column of t.*, which the expression says with its table.
func (a *analysis) sortTarget(q *sqlparse.Query, e sqlparse.Expr, name string) (target sqlparse.Expr, ofStar bool, err *Error) {
	switch {
	case e.Ordinal > 0 && a.starBefore(q, min(e.Ordinal, len(q.Targets))):
		return e, false, Refuse(RuleOrderStar)
	case e.Ordinal > len(q.Targets):
		return e, false, &Error{Code: pgsql.InvalidColumnReference, Message: "ORDER BY position is not in select list"}
	case e.Ordinal > 0:
		return q.Targets[e.Ordinal-1].Expr, false, nil
	case name == "":
		return e, false, nil
	}
	at, sure := q.OutputAt(name)
	switch {
	case at > 0: // if it is another's name too, the servers say so
		return q.Targets[at-1].Expr, false, nil
	case !sure:
		return e, false, Refuse(RuleOrderStar)
	}
	for i := range q.Targets {
		qualifier, plain, expanded := q.Expands(i)
		switch {
		case !expanded, plain && qualifier == "": // what a bare name means among all columns it means in an expression
			continue
		case !plain:
			return e, false, Refuse(RuleOrderStar)
		}
		names, sure := starNames(a, q, qualifier)
		switch {
		case !sure:
			return e, false, Refuse(RuleOrderStar)
		case slices.Contains(names, name):
			return sqlparse.Expr{Col: &sqlparse.Col{Qual: qualifier, Name: name}}, true, nil
		}
	}
	return e, false, nil
}

// groupsByKey says whether every group's rows are on one shard: it groups by the key of a sharded table whose rows no
// outer join can blank. What a shard makes of its groups is final then, whatever the aggregates and HAVING.
func (a *analysis) groupsByKey(b *block) bool {
	q := b.query
	if q.Grouping {
		return false
	}
	var by []sqlparse.Expr
	for _, g := range q.GroupBy {
		switch {
		case g.Ordinal > 0 && g.Ordinal <= len(q.Targets) && !a.starBefore(q, g.Ordinal):
			g = q.Targets[g.Ordinal-1].Expr
		case g.Col != nil && g.Col.Qual == "":
			g = a.groupName(b, q, g)
		}
		by = append(by, g)
	}
	return a.holdsKey(b, by)
}

// windowsByKey says whether every window's rows are on one shard: it partitions by the key.
func (a *analysis) windowsByKey(b *block) bool {
	return !slices.ContainsFunc(b.query.Partitions, func(by []sqlparse.Expr) bool { return !a.holdsKey(b, by) })
}

// distinctByKey says whether equal output rows are on one shard: a key is among the columns.
func (a *analysis) distinctByKey(b *block) bool {
	q := b.query
	if q.Agg || len(q.GroupBy) > 0 {
		return false
	}
	if len(q.DistinctOn) > 0 { // its names mean what those of ORDER BY mean
		var by []sqlparse.Expr
		for i, e := range q.DistinctOn {
			e, _, err := a.sortTarget(q, e, q.DistinctName(i))
			if err != nil {
				return false
			}
			by = append(by, e)
		}
		return a.holdsKey(b, by)
	}
	var out []sqlparse.Expr
	for _, t := range q.Targets {
		out = append(out, t.Expr)
	}
	return a.holdsKey(b, out)
}

// starBefore says whether one of so many output columns stands for several.
func (a *analysis) starBefore(q *sqlparse.Query, ordinal int) bool {
	for i := range q.Targets[:ordinal] {
		if expands(q, i) {
			return true
		}
	}
	return false
}

func expands(q *sqlparse.Query, i int) bool {
	_, _, expanded := q.Expands(i)
	return expanded
}

// holdsKey says whether the whole key of a sharded table of the block, which no outer join can blank, is among the
// expressions: rows that agree in all of them are on one shard.
func (a *analysis) holdsKey(b *block, list []sqlparse.Expr) bool {
	held := map[colID]bool{}
	for _, e := range list {
		if e.Col != nil {
			if id, _, ok := b.resolve(b.query, *e.Col); ok {
				held[id] = true
			}
		}
	}
	for _, u := range b.units() {
		for _, r := range u.rels {
			if b.certain(u, r) && !slices.ContainsFunc(a.declared(r).Keys, func(k string) bool { return !held[colID{r, k}] }) {
				return true
			}
		}
	}
	return false
}

// isText says whether an expression is surely text: a column of such a type.
func (a *analysis) isText(b *block, e sqlparse.Expr) bool {
	if e.Col == nil {
		return false
	}
	_, col, ok := b.resolve(b.query, *e.Col)
	return ok && (col.TypeOID == 25 || col.TypeOID == 1043 || col.TypeOID == 1042)
}

// bytesOrder says whether text values of the expression may be sorted by their bytes.
func (a *analysis) bytesOrder(b *block, e sqlparse.Expr) bool {
	if e.Collate != "" {
		return byBytes(a, e.Collate)
	}
	if e.Col != nil {
		if _, col, ok := b.resolve(b.query, *e.Col); ok {
			return col.BytesOK
		}
		return false
	}
	// An expression takes the collation of what it is made of: sure only if nothing in the statement and its
	// tables has another one.
	if !a.sch.BytesOK || collates(a) {
		return false
	}
	for _, n := range a.t.Tables {
		if t := a.sch.Tables[n]; t != nil {
			for _, c := range t.Columns {
				if c.Collated && !c.BytesOK { // a domain's or array's, too
					return false
				}
			}
		}
	}
	return !a.sch.Sorted || !hidesText(a)
}

// hidesText says whether a statement may take text out of what shows no collation: a row, or what a user's function gives.
func hidesText(a *analysis) bool {
	return slices.ContainsFunc(a.calls(), func(f string) bool { return len(a.userFuncs(f)) > 0 }) || slices.ContainsFunc(a.t.Tables, func(n shardmap.TableName) bool {
		t := a.sch.Tables[n]
		return t != nil && slices.ContainsFunc(t.Columns, func(c schema.Column) bool { return c.Rows })
	})
}

// byBytes says whether a collation sorts text by its bytes.
func byBytes(a *analysis, collation string) bool {
	name, sure := strings.CutPrefix(collation, "pg_catalog.")
	return (sure || !a.sch.LikeBytes) && slices.Contains(schema.ByBytes, name)
}

// collates says whether the statement itself may give text another collation than that of columns: by COLLATE, or by a cast to a user's type.
func collates(a *analysis) bool {
	return slices.ContainsFunc(a.stmt.Collates, func(c string) bool { return !byBytes(a, c) }) ||
		slices.ContainsFunc(a.stmt.TypeNames, func(n string) bool { return !builtin[n] })
}

// builtin are PostgreSQL's own types that statements name most. Text of none of them is compared but by its bytes or by the database's collation.
var builtin = func() map[string]bool {
	m := map[string]bool{}
	for _, n := range strings.Fields("bool bytea char name int8 int2 int4 text oid json jsonb xml point float4 float8 money inet cidr macaddr varchar bpchar date time timestamp timestamptz " +
		"interval timetz bit varbit numeric uuid regclass regtype regproc record tsvector tsquery int4range int8range numrange daterange tsrange tstzrange") {
		m[n] = true
	}
	return m
}()

// mergeGroups plans aggregates in two phases.
func (a *analysis) mergeGroups(b *block, m *Merge) (*Merge, *Error) {
	q := b.query
	m.Mode = Aggregate
	p := sqlparse.Partial{DropOrder: true, DropLimit: true}
	for _, n := range a.t.Tables {
		if t := a.sch.Tables[n]; t != nil {
			for _, c := range t.Columns {
				if !c.Determ {
					return nil, Refuse(RuleGroupType, "text in a nondeterministic collation")
				}
			}
		}
	}
	groups := map[string]bool{}
	for _, g := range q.GroupBy {
		e := g
		if g.Ordinal > 0 {
			if g.Ordinal > len(q.Targets) {
				return nil, &Error{Code: pgsql.InvalidColumnReference, Message: "GROUP BY position is not in select list"}
			}
			e = q.Targets[g.Ordinal-1].Expr
		} else if g.Col != nil && g.Col.Qual == "" {
			e = a.groupName(b, q, g)
		}
		column := false
		if e.Col != nil {
			_, _, column = b.resolve(q, *e.Col)
		}
		if err := groupsAlike(b, e, column); err != nil {
			return nil, err
		}
		groups[e.Key] = false
	}
	for i, t := range q.Targets {
		e := t.Expr
		col := AggCol{Hidden: -1, Bytes: a.bytesOrder(b, e)}
		if e.Agg != "" { // text below an aggregate: only a plain known order will do
			col.Bytes = a.bytesOrder(b, sqlparse.Expr{})
		}
		_, grouped := groups[e.Key]
		switch {
		case expands(q, i):
			return nil, Refuse(RuleAggregateExpression, "*")
		case grouped:
			groups[e.Key] = true
			col.Hidden = m.Hidden
			p.HideTarget = append(p.HideTarget, i)
			m.Hidden++
		case e.Agg != "" && merge.Aggregates[e.Agg].Compares():
			col.Func, col.Hidden = e.Agg, m.Hidden
			p.HideTarget = append(p.HideTarget, i)
			m.Hidden++
		case e.Agg != "":
			col.Func = e.Agg
			if parts := merge.Aggregates[e.Agg].Parts(); len(parts) > 1 {
				p.Parts = append(p.Parts, sqlparse.Parts{Target: i, Aggregates: parts})
			}
		case e.Other != "":
			return nil, Refuse(RuleAggregate, e.Other)
		default:
			return nil, Refuse(RuleAggregateExpression, outputName(t, i))
		}
		m.Cols = append(m.Cols, col)
	}
	for _, shown := range groups {
		if !shown { // groups that are not in the output need their key all the same
			return nil, Refuse(RuleAggregateExpression, "every GROUP BY expression must be selected")
		}
	}
	for _, x := range p.Parts { // behind the copies
		m.Cols[x.Target].Hidden = m.Hidden
		m.Hidden += len(x.Aggregates) - 1
	}
	if err := a.groupOrder(b, m); err != nil {
		return nil, err
	}
	return m, a.partial(m, p)
}

// groupsAlike says why the shards' groups by an expression may not be put together by its values; nil means that they may. column says that it is a table's.
func groupsAlike(b *block, e sqlparse.Expr, column bool) *Error {
	switch a := b.a; {
	case isOwn(b, b.query, e.Made()):
		return Refuse(RuleGroupType, "any, of values that are each server's own,")
	case !column && collates(a): // perhaps in such a one
		return Refuse(RuleGroupType, "text in a collation of the statement's own")
	case !column && a.sch.Loose && hidesText(a):
		return Refuse(RuleGroupType, "text in a nondeterministic collation")
	default:
		return nil
	}
}

// groupName resolves a bare name in GROUP BY: an input column first, else an output name.
func (a *analysis) groupName(b *block, q *sqlparse.Query, g sqlparse.Expr) sqlparse.Expr {
	if _, _, ok := b.resolve(q, *g.Col); ok {
		return g
	}
	for _, r := range q.Rels {
		if names, sure := columnsOf(a, r); !sure || slices.Contains(names, g.Col.Name) {
			return g
		}
	}
	if at, sure := q.OutputAt(g.Col.Name); at > 0 && sure {
		return q.Targets[at-1].Expr
	}
	return g
}

func (a *analysis) groupOrder(b *block, m *Merge) *Error {
	q := b.query
	for i, s := range q.OrderBy {
		e, _, err := a.sortTarget(q, s.Expr, q.SortName(i))
		if err != nil {
			return err
		}
		if at, sure := q.OutputAt(q.SortName(i)); at > 0 && !sure { // it may be two columns' name, and no shard is asked to sort
			return Refuse(RuleOrderGroup)
		}
		at := slices.IndexFunc(q.Targets, func(t sqlparse.Target) bool { return t.Expr.Key == e.Key })
		if s.Expr.Ordinal > 0 {
			at = s.Expr.Ordinal - 1
		}
		if at < 0 {
			return Refuse(RuleOrderGroup)
		}
		if t := q.Targets[at].Expr; !m.Cols[at].Bytes && a.isText(b, t) {
			return Refuse(RuleOrderCollation)
		}
		m.Sorts = append(m.Sorts, SortKey{Column: at, Desc: s.Desc, NullsFirst: s.NullsFirst, Bytes: m.Cols[at].Bytes})
	}
	return nil
}

func outputName(t sqlparse.Target, i int) string {
	if t.Name != "" {
		return t.Name
	}
	return "column " + string(rune('1'+i%9))
}
