package router

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// colID is one column of one range table entry.
type colID struct {
	rel  *sqlparse.Rel
	name string
}

// class is an equality class: columns that are equal in every row that the block needs.
type class struct {
	up     *class
	pins   [][]sqlparse.Value
	bounds []sqlparse.Bound
}

// join makes two classes one.
func (c *class) join(o *class) {
	if c != o {
		c.pins, c.bounds = append(c.pins, o.pins...), append(c.bounds, o.bounds...)
		o.up = c
	}
}

func (c *class) root() *class {
	for c.up != nil {
		c = c.up
	}
	return c
}

// block is a query level together with the plain subqueries in its FROM, which PostgreSQL would pull up:
// one set of rows, one set of facts. Sublinks, CTEs and other subqueries are blocks of their own, which
// may use the facts of the block around them, never the other way round.
type block struct {
	a       *analysis
	outer   *block
	query   *sqlparse.Query
	flat    []*sqlparse.Query // query and the subqueries pulled up
	rels    []*sqlparse.Rel   // tables of all of them
	subs    []*sqlparse.Query // blocks below
	stands  map[*sqlparse.Query]stand
	classes map[colID]*class
	scan    map[colID][][]sqlparse.Value // what an outer join's ON adds for the rows read
	above   map[*sqlparse.Query]above    // of those that were pulled up
	keyed   []unit                       // subqueries in FROM whose rows are each of one shard
}

// unit is what brings sharded rows into a block: a table, or a subquery in FROM that keeps each of its rows on the shard
// of a key (see keyed).
type unit struct {
	rels  []*sqlparse.Rel // the sharded tables in it, tied to one another by their keys
	outer *sqlparse.Rel   // where it stands in the block
	inner *block          // of a subquery
}

// units lists them.
func (b *block) units() []unit {
	var out []unit
	for _, r := range b.rels {
		if info := b.a.declared(r); info != nil && info.Kind == shardmap.Sharded {
			out = append(out, unit{rels: []*sqlparse.Rel{r}, outer: r})
		}
	}
	return append(out, b.keyed...)
}

// certain says whether the rows of one of a unit's tables are never blanked by an outer join.
func (b *block) certain(u unit, r *sqlparse.Rel) bool {
	if u.outer.Nullable || b.nullableAbove(u.outer) {
		return false
	}
	return u.inner == nil || !r.Nullable && !u.inner.nullableAbove(r)
}

// stand is where a query of a block below stands.
type stand struct {
	level *sqlparse.Query
	sees  bool // what is in the level's FROM, as a sublink or LATERAL subquery does; another one sees what is around the level
}

// above is the level that a pulled-up subquery stands in.
type above struct {
	level    *sqlparse.Query
	nullable bool // it, or a level above, is on the nullable side of an outer join
}

// nullableAbove says whether a relation stands in a subquery on the nullable side of an outer join.
func (b *block) nullableAbove(r *sqlparse.Rel) bool {
	for _, f := range b.flat {
		for _, x := range f.Rels {
			if x == r {
				return b.above[f].nullable
			}
		}
	}
	return true
}

func newBlock(a *analysis, q *sqlparse.Query, outer *block) *block {
	b := &block{a: a, outer: outer, query: q, stands: map[*sqlparse.Query]stand{}, classes: map[colID]*class{}, scan: map[colID][][]sqlparse.Value{}}
	b.pullUp(q)
	for _, f := range b.flat {
		for _, fact := range f.Facts {
			if fact.Into == nil {
				b.learn(f, fact)
			}
		}
		for _, bound := range f.Bounds {
			b.learnBound(f, bound)
		}
	}
	for range len(b.rels) + 1 { // an ON condition may build upon another
		for _, f := range b.flat {
			for _, fact := range f.Facts {
				if fact.Into != nil {
					b.learnDirected(f, fact)
				}
			}
		}
	}
	return b
}

func (b *block) pullUp(q *sqlparse.Query) {
	b.flat = append(b.flat, q)
	for _, r := range q.Rels {
		sub := b.a.sub(r)
		switch {
		case sub != nil && isFlat(sub):
			if b.above == nil {
				b.above = map[*sqlparse.Query]above{}
			}
			b.above[sub] = above{q, r.Nullable || b.above[q].nullable}
			b.pullUp(sub)
		case sub != nil:
			b.below(stand{q, r.Lateral}, sub)
			if inner := b.a.keyed(r, sub); inner != nil {
				u := unit{outer: r, inner: inner}
				for _, v := range inner.units() {
					u.rels = append(u.rels, v.rels...)
				}
				b.keyed = append(b.keyed, u)
			}
		case r.Kind == sqlparse.RelTable:
			b.rels = append(b.rels, r)
		}
	}
	b.below(stand{q, true}, q.Subs...)
	b.below(stand{q, false}, q.CTEs...)
	b.below(stand{q, false}, q.Leaves...)
	if q.Source != nil {
		b.below(stand{q, false}, q.Source)
	}
}

// below notes blocks below that stand at a place.
func (b *block) below(at stand, subs ...*sqlparse.Query) {
	for _, q := range subs {
		b.subs = append(b.subs, q)
		b.stands[q] = at
	}
}

// isFlat says whether a subquery in FROM only filters and joins, so that conditions move freely
// through it.
func isFlat(q *sqlparse.Query) bool {
	return q.Cmd == sqlparse.Select && !q.SetOp && q.Rows == nil && len(q.CTEs) == 0 && !q.Distinct && len(q.GroupBy) == 0 && !q.Having &&
		!q.Window && !q.Agg && q.Limit == nil && q.Offset == nil && !q.Locking && !q.SRF && !q.Into
}

// keyed is the block of a subquery in FROM, if each of its rows is made of rows of one shard and carries that shard's key:
// it filters and joins by key, or groups, is distinct or has windows by key. A condition on the key may go into it then,
// and its rows over all shards are those of the shards together. Nil for another.
func (a *analysis) keyed(r *sqlparse.Rel, q *sqlparse.Query) *block {
	if r.Kind != sqlparse.RelQuery || r.Lateral || a.views.used {
		return nil
	}
	return a.perShard(q)
}

// perShard is the block of a SELECT that gives over all shards what it gives on each of them together.
func (a *analysis) perShard(q *sqlparse.Query) *block {
	if b, known := a.keyedBlocks[q]; known {
		return b
	}
	var out *block
	if q.Cmd == sqlparse.Select && !q.SetOp && q.Rows == nil && len(q.CTEs) == 0 && q.Limit == nil && q.Offset == nil && !q.Locking && !q.SRF && !q.Into && !q.Grouping && q.Opaque == "" {
		b := newBlock(a, q, nil)
		grouped := q.Agg || len(q.GroupBy) > 0
		switch {
		case len(b.units()) == 0, a.unions(b) != nil:
		case q.Window && !a.windowsByKey(b), grouped && !a.groupsByKey(b), q.Distinct && !a.distinctByKey(b), q.Having && !grouped:
		default:
			out = b
		}
	}
	if a.keyedBlocks == nil {
		a.keyedBlocks = map[*sqlparse.Query]*block{}
	}
	a.keyedBlocks[q] = out
	return out
}

func (b *block) class(id colID) *class {
	c := b.classes[id]
	if c == nil {
		c = &class{}
		b.classes[id] = c
		for o := b.outer; o != nil; o = o.outer { // a column from outside brings what is known of it there
			if oc := o.classes[id]; oc != nil {
				c.pins = append(c.pins, oc.root().pins...)
				c.bounds = append(c.bounds, oc.root().bounds...)
			}
		}
	}
	return c.root()
}

// isEquality says whether = between a key's column and some values is PostgreSQL's own. Where users have defined others, it is certain only of integers
// and constants: PostgreSQL has one for their very types, which comes first.
func (b *block) isEquality(kt pghash.Type, vals []sqlparse.Value) bool {
	if !b.a.env.means(b.a.sch.Equals) {
		return true
	}
	return b.a.env.ownFirst() && kt.IsInteger() && !slices.ContainsFunc(vals, func(v sqlparse.Value) bool {
		return v.Kind != sqlparse.ValInt && v.Kind != sqlparse.ValString || v.Cast != "" || v.Array
	})
}

// learn uses an equality. Where users have defined an = of their own, it may be any condition.
func (b *block) learn(q *sqlparse.Query, f sqlparse.Fact) {
	f = b.constant(q, f)
	id, col, ok := b.resolve(q, f.L)
	if !ok {
		return
	}
	kt, ok := keyType(col)
	if !ok {
		return
	}
	switch {
	case f.In != nil:
		if allFit(kt, f.In) && b.isEquality(kt, f.In) {
			c := b.class(id)
			c.pins = append(c.pins, f.In)
		}
	case f.R.IsCol:
		rid, rcol, ok := b.resolve(q, f.R.Col)
		if !ok || b.a.env.means(b.a.sch.Equals) {
			return
		}
		if rt, ok := keyType(rcol); !ok || family(rt) != family(kt) {
			return
		}
		b.class(id).join(b.class(rid))
	default:
		if keyFits(kt, f.R.Val) && b.isEquality(kt, []sqlparse.Value{f.R.Val}) && !(isNull(f) && (id.rel.Nullable || b.nullableAbove(id.rel))) {
			c := b.class(id)
			c.pins = append(c.pins, []sqlparse.Value{f.R.Val})
		}
	}
}

// isNull says whether a fact is col = NULL. Under transform_null_equals that is col IS NULL, as it is in a row that an outer join has blanked; of
// others a key never is: https://www.postgresql.org/docs/current/runtime-config-compatible.html#GUC-TRANSFORM-NULL-EQUALS
func isNull(f sqlparse.Fact) bool {
	return f.In == nil && !f.R.IsCol && f.R.Val.Kind == sqlparse.ValNull
}

// learnBound uses an inequality, where the order of the column's values is that of their keys.
func (b *block) learnBound(q *sqlparse.Query, f sqlparse.Bound) {
	id, col, ok := b.resolve(q, f.Col)
	if !ok || b.a.env.means(b.a.sch.Orders) {
		return
	}
	kt, ok := keyType(col)
	if !ok || !keyFits(kt, f.Val) || kt == pghash.TypeBpchar || family(kt) == pghash.TypeText && !col.BytesOK {
		return
	}
	f.Col.In = nil // what it has seen is not needed any more, and would be kept with the plan
	c := b.class(id)
	c.bounds = append(c.bounds, f)
}

// learnDirected uses an equality of an outer join's ON for the rows read of the nullable side only.
func (b *block) learnDirected(q *sqlparse.Query, f sqlparse.Fact) {
	into := func(c sqlparse.Col) (*sqlparse.Rel, colID, pghash.Type, bool) {
		id, col, ok := b.resolve(q, c)
		if !ok {
			return nil, id, 0, false
		}
		kt, ok := keyType(col)
		if !ok {
			return nil, id, 0, false
		}
		for _, r := range f.Into {
			if r == b.atLevel(id.rel) {
				return r, id, kt, true
			}
		}
		return nil, id, kt, true
	}
	f = b.constant(q, f)
	l, lid, lt, ok := into(f.L)
	if !ok || isNull(f) || b.a.env.means(b.a.sch.Equals) {
		return
	}
	add := func(id colID, vals []sqlparse.Value) {
		if info := b.a.declared(id.rel); info != nil && info.IsKey(id.name) && len(b.scan[id]) < 8 {
			b.scan[id] = append(b.scan[id], vals)
		}
	}
	if !f.R.IsCol {
		vals := f.In
		if vals == nil {
			vals = []sqlparse.Value{f.R.Val}
		}
		if l != nil && allFit(lt, vals) {
			add(lid, vals)
		}
		return
	}
	r, rid, rt, ok := into(f.R.Col)
	if !ok || family(lt) != family(rt) {
		return
	}
	carry := func(toID, fromID colID) {
		for _, vals := range b.pinsOf(fromID) {
			add(toID, vals)
		}
	}
	if l != nil {
		carry(lid, rid)
	}
	if r != nil {
		carry(rid, lid)
	}
}

// pinsOf lists what is known of a column's values in the rows that are read of its relation.
func (b *block) pinsOf(id colID) [][]sqlparse.Value {
	out := append([][]sqlparse.Value(nil), b.class(id).pins...)
	for o := b; o != nil; o = o.outer { // those around know it by the same name, if they know it: see keyed
		out = append(out, o.scan[id]...)
	}
	return out
}

// atLevel is where a table stands in the block: itself, or the keyed subquery that it is in.
func (b *block) atLevel(r *sqlparse.Rel) *sqlparse.Rel {
	for _, u := range b.keyed {
		if slices.Contains(u.rels, r) {
			return u.outer
		}
	}
	return r
}

// pin is what is known of the key in the rows that are read of a sharded relation.
func (b *block) pin(r *sqlparse.Rel, info *shardmap.TableInfo) pin {
	p := pin{group: info.Group, columns: info.Keys, vals: make([][]sqlparse.Value, len(info.Keys))}
	known := true
	for i, k := range info.Keys {
		id := colID{r, k}
		p.vals[i] = best(b.pinsOf(id))
		if known && p.vals[i] == nil && info.Group.Scheme == shardmap.ByRange {
			p.bounds = b.class(id).bounds
		}
		known = known && p.vals[i] != nil
	}
	return p
}

// best picks the narrowest of several lists of values.
func best(pins [][]sqlparse.Value) []sqlparse.Value {
	var out []sqlparse.Value
	for _, p := range pins {
		if out == nil || len(p) < len(out) || len(p) == len(out) && len(p) == 1 && out[0].Array {
			out = p
		}
	}
	return out
}

func allFit(t pghash.Type, vals []sqlparse.Value) bool {
	for _, v := range vals {
		if !keyFits(t, v) {
			return false
		}
	}
	return len(vals) > 0
}

// keyType is the column's type as a key, if equal values of it surely hash alike.
func keyType(c *schema.Column) (pghash.Type, bool) {
	t, ok := pghash.TypeByOID(c.TypeOID)
	return t, ok && c.Determ
}
