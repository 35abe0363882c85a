package router

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// maxParts is how many SELECTs of one statement are copied as the shards make them.
const maxParts = 99

// copiesWhole says whether a SELECT inside a gathered one is copied as the shards make it, and notes it: it stands by
// itself, its rows are those of the shards together, and they are fewer or wider than those of the tables that it reads.
func (g *gatherPlan) copiesWhole(q *sqlparse.Query, outer *block) bool {
	a := g.a
	if g.whole || g.vague || len(g.listed) == maxParts || a.views.used || a.stmt.Kind != sqlparse.Select || q.Cmd != sqlparse.Select || q.SetOp || q.Locking || len(q.Rows) > 0 || len(q.CTEs) > 0 || q.Into ||
		strings.Contains(a.stmt.Text, "pgmosaic") { // names of ours are found in the text
		return false
	}
	if takesType(a, q, outer) {
		return false
	}
	b := newBlock(a, q, nil)
	reduces := q.Agg || len(q.GroupBy) > 0 || q.Distinct || q.Limit != nil || q.Exists || len(b.rels)+len(b.keyed) > 1
	if !reduces || len(b.units()) == 0 || !a.closed(b) || a.unions(b) != nil {
		return false
	}
	if !q.Exists && slices.ContainsFunc(q.Targets, func(t sqlparse.Target) bool { return isOwn(b, q, t.Expr.Made()) }) { // the statement may compare them
		return false
	}
	name := fmt.Sprintf("pgmosaic_part_%02d", len(g.listed)+1) // of one length: names are found in texts
	ways := []func(*block, string) *Load{a.finalPart, a.part}
	if q.Exists { // one row of each shard will do
		slices.Reverse(ways)
	}
	l := ways[0](b, name)
	if l == nil {
		l = ways[1](b, name)
	}
	if l == nil {
		return false
	}
	l.pins = newBlock(a, q, outer).shardedPins() // conditions from outside may go into it
	if g.parts == nil {
		g.parts = map[*sqlparse.Query]*Load{}
	}
	g.parts[q] = l
	g.listed = append(g.listed, l)
	return true
}

// takesType says whether a SELECT is one of a set operation, and a constant in it takes its type, or a column its collation, from those beside
// it: https://www.postgresql.org/docs/current/typeconv-union-case.html. By itself such a constant is text.
func takesType(a *analysis, q *sqlparse.Query, outer *block) bool {
	if outer == nil || !slices.Contains(outer.query.Leaves, q) {
		return false
	}
	for outer.outer != nil && slices.Contains(outer.outer.query.Leaves, outer.query) {
		outer = outer.outer
	}
	for i, t := range q.Targets {
		if t.Expr.Collate != "" || untyped(t.Expr.Val) && (a.starBefore(q, i) || !isTextAt(a, outer.query, i)) {
			return true
		}
	}
	return false
}

// untyped says whether a value is a constant without a type. A parameter has the one that it has in the whole statement.
func untyped(v sqlparse.Value) bool {
	return v.Cast == "" && (v.Kind == sqlparse.ValString || v.Kind == sqlparse.ValNull)
}

// isTextAt says whether each SELECT of a set operation surely gives text, or a constant without a type, at a place of its list.
func isTextAt(a *analysis, q *sqlparse.Query, at int) bool {
	if q.SetOp {
		return !slices.ContainsFunc(q.Leaves, func(leaf *sqlparse.Query) bool { return !isTextAt(a, leaf, at) })
	}
	if at >= len(q.Targets) || a.starBefore(q, at+1) {
		return false
	}
	e := q.Targets[at].Expr
	if e.Col == nil {
		return untyped(e.Val) || e.Val.Cast == "text"
	}
	_, col, ok := newBlock(a, q, nil).resolve(q, *e.Col)
	return ok && col.TypeOID == 25
}

// finalPart plans a SELECT of which each shard makes whole rows, whatever is in it: see perShard.
func (a *analysis) finalPart(b *block, name string) *Load {
	q := b.query
	if a.perShard(q) == nil || len(q.OrderBy) > 0 || len(q.Targets) == 0 || a.starBefore(q, len(q.Targets)) {
		return nil
	}
	own, err := q.Own()
	if err != nil {
		return nil
	}
	cols := make([]string, len(q.Targets))
	for i := range cols {
		cols[i] = fmt.Sprintf("c%d", i+1)
	}
	return a.partOf(b, Load{Name: name, SQL: "SELECT * FROM (" + own + ") AS pgmosaic (" + strings.Join(cols, ", ") + ")", Part: &Part{Own: own, Final: "SELECT * FROM pg_temp." + name + " pgmosaic"}})
}

// partOf completes the load of a part.
func (a *analysis) partOf(b *block, l Load) *Load {
	l.Table, l.Read = a.declared(b.units()[0].rels[0]).TableName, a.t.Read
	return &l
}

// shardedPins are what is known of the keys of a block's sharded tables.
func (b *block) shardedPins() (out []pin) {
	for _, u := range b.units() {
		for _, r := range u.rels {
			out = append(out, b.pin(r, b.a.declared(r)))
		}
	}
	return out
}

// mayName says whether a name can be one of a level's own.
func (a *analysis) mayName(q *sqlparse.Query, c sqlparse.Col) bool {
	rels := seen(q, c.In).Rels
	if c.Qual != "" {
		return slices.ContainsFunc(rels, func(r *sqlparse.Rel) bool { return r.Name() == c.Qual })
	}
	for _, r := range rels {
		if cols, sure := a.outputs(r); !sure || slices.Contains(cols, c.Name) {
			return true
		}
	}
	return slices.ContainsFunc(q.Targets, func(t sqlparse.Target) bool { return t.Name == c.Name })
}

// closed says whether a SELECT, and what is in it, names nothing from outside. It need not be sure: the text by itself is
// shown to a server before it is used, and PostgreSQL looks for a name inside first.
func (a *analysis) closed(b *block) bool {
	for _, f := range b.flat {
		for _, r := range f.Rels {
			if r.CTE || r.Kind == sqlparse.RelTable && a.declared(r) == nil {
				return false
			}
		}
		for _, c := range f.RefCols {
			if _, _, ok := b.resolve(f, c); !ok && !a.mayName(f, c) {
				return false
			}
		}
	}
	return !slices.ContainsFunc(b.subs, func(q *sqlparse.Query) bool { return !a.closed(newBlock(a, q, b)) })
}
