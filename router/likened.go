package router

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// GiveTheSame says whether two plans of one text are known to take the same parameters and to give the same columns, though something was defined between
// them or the search_path is another: all that the text gives are columns of tables that both plans have found, and found alike. False says nothing.
func GiveTheSame(was, is *Template) bool {
	return was != nil && is != nil && was.Known == ColumnsKnown && is.Known == ColumnsKnown && slices.Equal(was.Tables, is.Tables) && slices.Equal(was.Schema.Unnamed, is.Schema.Unnamed) &&
		!slices.ContainsFunc(is.Tables, func(n shardmap.TableName) bool {
			return !slices.Equal(was.Schema.Tables[n].Columns, is.Schema.Tables[n].Columns)
		})
}

// givesColumns says whether all that a statement gives are columns of tables which the schema has, and it calls nothing of a user's.
func givesColumns(a *analysis) bool {
	q := a.stmt.Query
	if q == nil || q.Opaque != "" || q.SetOp || len(q.Subs) > 0 || len(q.CTEs) > 0 || q.Source != nil || a.t.Known == NamesUnknown || slices.ContainsFunc(a.stmt.Funcs, func(f string) bool { return len(a.sch.Funcs[f]) > 0 }) {
		return false
	}
	if slices.ContainsFunc(a.t.Tables, func(n shardmap.TableName) bool { return a.sch.Tables[n] == nil }) {
		return false
	}
	rels := q.Rels
	if q.Target != nil {
		rels = append(slices.Clone(rels), q.Target)
	}
	if slices.ContainsFunc(rels, func(r *sqlparse.Rel) bool {
		return r.Kind != sqlparse.RelTable || r.CTE || !slices.ContainsFunc(a.t.Tables, func(n shardmap.TableName) bool { return n.Name == r.Table.Name })
	}) {
		return false
	}
	given := q.Targets
	if q.Returning {
		given = q.Outputs
	}
	return len(given) > 0 && !slices.ContainsFunc(given, func(t sqlparse.Target) bool {
		return !t.Expr.Star && (t.Expr.Col == nil || !slices.ContainsFunc(a.t.Tables, func(n shardmap.TableName) bool { return hasColumn(a.sch.Tables[n], t.Expr.Col.Name) }))
	})
}
