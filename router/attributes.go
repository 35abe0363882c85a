package router

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// attributes finds what a statement calls as t.f or (x).f. Whoever asks what a statement runs asks ran, which has them, and not the
// statement's Funcs, which has only what is called as f(..). Where in doubt, users' functions are called; PostgreSQL's own where nothing
// that is known has a column or field of the name.
func attributes(a *analysis) (calls []string, other string) {
	for _, at := range a.stmt.Attrs {
		need := schema.TakesRow
		if at.Row == "" {
			need = schema.TakesValue
		}
		users := taken(a, at.Name)
		own := a.sch.Takes[at.Name]
		if (users|own)&need == 0 {
			continue
		}
		if users&need == 0 && !lacksField(a, at) || at.Row != "" && isColumn(a, at) {
			continue
		}
		if !slices.Contains(calls, at.Name) {
			calls = append(calls, at.Name)
		}
		if (users|own)&schema.GivesOther != 0 && other == "" {
			other = at.Name
		}
	}
	return calls, other
}

// taken is how users' functions of a name can be called. A type's name stands for a cast, which may run what the type runs.
func taken(a *analysis, name string) (t schema.Takes) {
	for _, f := range a.userFuncs(name) {
		t |= f.Takes
	}
	if len(a.sch.Funcs[schema.TypeFunc(name)]) > 0 {
		t |= schema.TakesRow | schema.TakesValue
	}
	return t
}

// found says what is known of a name's columns where relations of one name stand in a statement.
type found struct{ have, lack, unknown bool }

// isColumn says whether t.f is surely a column: whatever is called t has one of the name.
func isColumn(a *analysis, at sqlparse.Attr) bool {
	f := find(a, at)
	return f.have && !f.lack && !f.unknown
}

// lacksField says whether t.f is surely no column, or of (x).f that no column of the statement's tables, and no field that is known, has
// the name.
func lacksField(a *analysis, at sqlparse.Attr) bool {
	if at.Row != "" {
		return find(a, at).lack
	}
	if a.sch.Fields[at.Name] {
		return false
	}
	for _, ref := range a.stmt.Tables {
		if n, ok := a.env.find(a.db, a.sch, ref); ok && a.table(n) != nil {
			if c, _ := a.table(n).Column(at.Name); c != nil {
				return false
			}
		}
	}
	return true
}

func find(a *analysis, at sqlparse.Attr) (f found) {
	if a.stmt.Query == nil { // of a definition only the tables are known: new.f, or t.f of a view's query
		for _, ref := range a.stmt.Tables {
			if n, ok := a.env.find(a.db, a.sch, ref); ok && a.table(n) != nil {
				c, _ := a.table(n).Column(at.Name)
				f.have = f.have || c != nil
			}
		}
		return f
	}
	everyQuery(a.stmt.Query, func(q *sqlparse.Query) {
		for _, r := range append(slices.Clone(q.Rels), q.Target) {
			if r == nil || r.Name() != at.Row {
				continue
			}
			has, known := columnOf(a, r, at.Name)
			known = known && q.Opaque == "" // an alias may rename columns
			f.have, f.lack, f.unknown = f.have || known && has, f.lack || known && !has, f.unknown || !known
		}
	})
	return f
}

// columnOf says whether what stands in FROM has a column of a name, as far as that is known.
func columnOf(a *analysis, r *sqlparse.Rel, name string) (has, known bool) {
	switch {
	case r.Kind == sqlparse.RelTable && !r.CTE:
		t := a.tableOf(r)
		if t == nil {
			return false, false
		}
		c, _ := t.Column(name)
		return c != nil || systemColumns[name], true
	case r.Sub == nil || r.Kind == sqlparse.RelValues || r.Sub.SetOp:
		return slices.Contains(r.Cols, name), slices.Contains(r.Cols, name)
	}
	known = true
	for _, t := range r.Sub.Targets {
		switch {
		case t.Name == name, t.Name == "" && t.Expr.Col != nil && t.Expr.Col.Name == name, t.Name == "" && name != "" && (t.Expr.Agg == name || t.Expr.Other == name):
			return true, true
		case t.Name == "" && t.Expr.Col == nil:
			known = false // * or an expression, which has some name
		}
	}
	return false, known
}

// everyQuery visits a query and those inside of it.
func everyQuery(q *sqlparse.Query, visit func(*sqlparse.Query)) {
	if q == nil {
		return
	}
	visit(q)
	for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves, {q.Source}} {
		for _, sub := range list {
			everyQuery(sub, visit)
		}
	}
	for _, r := range q.Rels {
		everyQuery(r.Sub, visit)
	}
}

// callsOf are the functions that a user's function calls besides those that its body has as f(..).
func callsOf(a *analysis, f *schema.Func) []string {
	out := slices.Clone(f.Calls)
	for w := range f.Attributes() {
		if taken(a, w) != 0 || a.sch.Volatile[w] && a.sch.Takes[w] != 0 {
			out = append(out, w)
		}
	}
	return out
}
