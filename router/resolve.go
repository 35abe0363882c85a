package router

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// resolve finds the table column that a name of query q means. ok is false where that is not certain.
func (b *block) resolve(q *sqlparse.Query, c sqlparse.Col) (colID, *schema.Column, bool) {
	id, col, found, known := b.among(q, c)
	if found || !known || blanked(c.In) {
		return id, col, found
	}
	return b.around(q, c)
}

// blanked says whether an outer join may blank all that a name sees in ON: what that demands of a row of the level around is not so for every
// one that counts.
func blanked(s *sqlparse.Sight) bool {
	return s != nil && !slices.ContainsFunc(s.Rels, func(r *sqlparse.Rel) bool { return !r.Nullable })
}

// around is resolve for a name that is surely not of query q: it is looked for where that stands.
func (b *block) around(q *sqlparse.Query, c sqlparse.Col) (colID, *schema.Column, bool) {
	if q != b.query || b.outer == nil { // of those that are pulled up only LATERAL sees its neighbours; not worth a proof
		return colID{}, nil, false
	}
	at, known := b.outer.stands[q]
	switch {
	case !known:
		return colID{}, nil, false
	case !at.sees:
		return b.outer.around(at.level, c)
	}
	c.In = q.In
	id, col, found, sure := b.outer.among(at.level, c)
	if found || !sure {
		return id, col, found
	}
	return b.outer.around(at.level, c)
}

// among looks a name up in what it sees of one query's FROM. known is false where it may be there all the same.
func (b *block) among(q *sqlparse.Query, c sqlparse.Col) (id colID, col *schema.Column, found, known bool) {
	from := seen(q, c.In)
	rels := from.Rels
	if of, is := from.Merged[c.Name]; is && c.Qual == "" {
		if of == "" {
			return colID{}, nil, false, false
		}
		c.Qual = of
	}
	if c.Qual != "" {
		rels = slices.DeleteFunc(slices.Clone(rels), func(r *sqlparse.Rel) bool { return r.Name() != c.Qual })
		if len(rels) > 1 { // two tables of one name in two schemas
			return colID{}, nil, false, false
		}
	}
	known = c.Qual == "" || len(rels) == 0
	for _, r := range rels {
		id, col, is, sure := b.column(r, c.Name)
		if is {
			return id, col, true, true
		}
		known = known && sure
	}
	return colID{}, nil, false, known
}

// seen is what a name sees of a query's FROM.
func seen(q *sqlparse.Query, s *sqlparse.Sight) *sqlparse.Sight {
	if s != nil {
		return s
	}
	return &q.Sight
}

// column looks a name up in one range table entry. known is false if its columns are not all known.
func (b *block) column(r *sqlparse.Rel, name string) (id colID, col *schema.Column, found, known bool) {
	sub := b.a.sub(r)
	switch {
	case r.Kind == sqlparse.RelTable && !r.CTE && sub == nil:
		t := b.a.tableOf(r)
		if t == nil {
			return colID{}, nil, false, false
		}
		if c, _ := t.Column(name); c != nil {
			return colID{r, name}, c, true, true
		}
		return colID{}, nil, false, !systemColumns[name]
	case sub != nil && isFlat(sub):
		return b.output(sub, name)
	}
	for _, u := range b.keyed {
		if u.outer == r {
			id, col, ok := keyColumn(u, name)
			return id, col, ok, ok
		}
	}
	return colID{}, nil, false, false
}

// output finds the table column that stands in the SELECT list of q under a name; x.* is that of x alone.
func (b *block) output(q *sqlparse.Query, name string) (id colID, col *schema.Column, found, known bool) {
	known = true
	for _, t := range q.Targets {
		switch {
		case t.Expr.Star:
			id, col, found, _ = b.among(q, sqlparse.Col{Qual: t.Expr.Of, Name: name})
			if found {
				return id, col, true, true
			}
			known = false
		case t.Name == name || t.Name == "" && t.Expr.Col != nil && t.Expr.Col.Name == name:
			if t.Expr.Col == nil {
				return colID{}, nil, false, false
			}
			id, col, found = b.resolve(q, *t.Expr.Col)
			return id, col, found, found
		case t.Name == "" && t.Expr.Col == nil: // PostgreSQL names it by what is in it
			known = false
		}
	}
	return colID{}, nil, false, known
}

// keyColumn finds the sharding key that an output column of a keyed subquery is. ok is false for another column.
func keyColumn(u unit, name string) (id colID, col *schema.Column, ok bool) {
	id, col, ok, _ = u.inner.output(u.inner.query, name)
	if !ok {
		return colID{}, nil, false
	}
	for _, v := range u.inner.units() {
		info := u.inner.a.declared(id.rel)
		if slices.Contains(v.rels, id.rel) && info != nil && info.IsKey(id.name) && u.inner.certain(v, id.rel) {
			return id, col, true
		}
	}
	return colID{}, nil, false
}
