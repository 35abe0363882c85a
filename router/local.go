package router

import (
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// isLocal says whether a subquery of a block gives the same answer for a row on the row's own shard as over all rows:
// each sharded table in it, at whatever level, is tied to the key of a sharded table outside, so that every row that
// counts lives where that one does. What the subquery does with the rows does not matter then. A subquery over reference
// tables alone is the same everywhere, unless LIMIT leaves its choice open.
func (a *analysis) isLocal(b *block, sub *sqlparse.Query) bool {
	if sub.Opaque != "" || !pureQuery(sub) {
		return false
	}
	sb := newBlock(a, sub, b)
	sb.test(b)
	for _, f := range sb.flat {
		if f.Opaque != "" {
			return false
		}
		if _, ok := systemColumn(f); ok {
			return false
		}
		for _, r := range f.Rels {
			if r.CTE || r.Kind == sqlparse.RelTable && a.declared(r) == nil {
				return false
			}
		}
	}
	sharded := false
	for _, u := range sb.units() {
		sharded = true
		if u.inner == nil && !a.tied(sb, u.outer, a.declared(u.outer)) {
			return false
		}
	}
	if !sharded && (sub.Limit != nil || sub.Offset != nil || sub.Distinct || sub.Window || a.ordersRows() || sub.Array && len(sub.OrderBy) == 0 && readsTables(sub)) {
		return false
	}
	for _, s := range sb.subs {
		if !a.isLocal(sb, s) && !sb.tiedUnit(s) {
			return false
		}
	}
	return true
}

// readsTables says whether a query reads rows of tables, at whatever level.
func readsTables(q *sqlparse.Query) (yes bool) {
	everyQuery(q, func(level *sqlparse.Query) {
		yes = yes || slices.ContainsFunc(level.Rels, func(r *sqlparse.Rel) bool { return r.Kind == sqlparse.RelTable && !r.CTE })
	})
	return yes
}

// ordersRows says whether the statement calls an aggregate whose value hangs on the order of its rows, which may differ
// between the copies of a reference table.
func (a *analysis) ordersRows() bool {
	for _, f := range a.stmt.Funcs {
		switch f {
		case "array_agg", "string_agg", "xmlagg", "json_arrayagg", "json_objectagg":
			return true
		}
		if strings.HasPrefix(f, "json_agg") || strings.HasPrefix(f, "jsonb_agg") || strings.HasPrefix(f, "json_object_agg") || strings.HasPrefix(f, "jsonb_object_agg") {
			return true
		}
	}
	return false
}

// tiedUnit says whether a keyed subquery's rows that count are those of the outer row's shard.
func (b *block) tiedUnit(sub *sqlparse.Query) bool {
	return slices.ContainsFunc(b.keyed, func(u unit) bool {
		return u.inner.query == sub && slices.ContainsFunc(u.rels, func(r *sqlparse.Rel) bool { return b.a.tied(b, r, b.a.declared(r)) })
	})
}

// tied says whether a sharded table's key equals that of a sharded table in a block around.
func (a *analysis) tied(b *block, r *sqlparse.Rel, info *shardmap.TableInfo) bool {
	for o := b.outer; o != nil; o = o.outer {
		for _, u := range o.units() {
			for _, s := range u.rels {
				outer := a.declared(s)
				tied := s != r && outer.Group == info.Group // a keyed subquery's tables are units of the block around it too
				for i := 0; tied && i < len(info.Keys); i++ {
					oid := colID{s, outer.Keys[i]}
					tied = b.classes[oid] != nil && b.class(oid) == b.class(colID{r, info.Keys[i]})
				}
				if tied {
					return true
				}
			}
		}
	}
	return false
}

// test adds what col IN (subquery) says of the subquery's rows, if rows with another value cannot change the answer: it
// filters and joins only, or groups by what is tested. A NULL on either side would make the answer hang on whether there
// are other rows, on whatever shard; a key that no outer join blanks has none.
func (b *block) test(outer *block) {
	q := b.query
	if b.a.env.means(b.a.sch.Equals) || q.InTest == nil || len(q.Targets) != 1 || q.Targets[0].Expr.Col == nil || !filters(q) {
		return
	}
	inner, ic, ok1 := b.resolve(q, *q.Targets[0].Expr.Col)
	tested, tc, ok2 := outer.resolve(outer.stands[q].level, *q.InTest)
	if !ok1 || !ok2 || !b.filled(inner) || !outer.filled(tested) {
		return
	}
	it, ok1 := keyType(ic)
	tt, ok2 := keyType(tc)
	if !ok1 || !ok2 || family(it) != family(tt) {
		return
	}
	b.class(inner).join(b.class(tested))
}

// filled says whether a column holds no NULL in any row of the block, or of the one around it that it is of: a sharding key that no outer
// join can blank, wherever its table stands.
func (b *block) filled(id colID) bool {
	info := b.a.declared(id.rel)
	if info == nil || !info.IsKey(id.name) {
		return false
	}
	for o := b; o != nil; o = o.outer {
		for _, u := range o.units() {
			if slices.Contains(u.rels, id.rel) {
				return o.certain(u, id.rel)
			}
		}
	}
	return false
}

// filters says whether a query only filters and joins, or groups by its one output column.
func filters(q *sqlparse.Query) bool {
	if isFlat(q) {
		return true
	}
	plain := q.Cmd == sqlparse.Select && !q.SetOp && q.Rows == nil && len(q.CTEs) == 0 && len(q.DistinctOn) == 0 && !q.Window && q.Limit == nil && q.Offset == nil && !q.Locking && !q.SRF && !q.Into && !q.Grouping
	if !plain || len(q.GroupBy) > 1 || q.Agg && len(q.GroupBy) == 0 || q.Having && len(q.GroupBy) == 0 {
		return false
	}
	if len(q.GroupBy) == 0 {
		return q.Distinct // of one column
	}
	return q.GroupBy[0].Ordinal == 1 || q.GroupBy[0].Key == q.Targets[0].Expr.Key
}
