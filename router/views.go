package router

import (
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// views are the views over sharded tables that a statement names. They are home's, and stand for their queries: each
// place where one is named has a query of its own, since facts of one say nothing of the other.
type views struct {
	first shardmap.TableName // one of them, for messages
	used  bool
	at    map[*sqlparse.Rel]*sqlparse.Statement
	funcs []string // that they call
}

// readsRows says whether a statement reads or writes rows, not definitions.
func (a *analysis) readsRows() bool {
	switch a.stmt.Kind {
	case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Copy, sqlparse.Explain, sqlparse.Cursor, sqlparse.CreateTableAs:
		return true
	default:
		return false
	}
}

// view notes a view over sharded tables and resolves what it is made of.
func (a *analysis) view(t *schema.Table, seen map[shardmap.TableName]bool) error {
	if a.rowRules(t, t.Invoker, 0) {
		return Refuse(RuleView, t.TableName) // its owner's rows are not its user's
	}
	s := parseView(t)
	if s == nil {
		return Refuse(RuleView, t.TableName)
	}
	if !a.views.used {
		a.views.used, a.views.first = true, t.TableName
	}
	a.views.funcs = append(append(a.views.funcs, a.ran(s)...), a.ranBy(s)...)
	return a.resolveAll(s.Tables, seen)
}

// temporary resolves what a temporary view is made of. Any other temporary object is home's, and so is all that it has.
func (a *analysis) temporary(t *schema.Table, seen map[shardmap.TableName]bool) error {
	if len(a.db.Shards) > 1 && t.Kind == 'v' {
		if a.undeclared(t.TableName, nil) {
			return Refuse(RuleUndeclared, t.TableName)
		}
		if a.readsRows() && a.readsSharded(t, nil) {
			return a.view(t, seen)
		}
	}
	a.temps, a.t.OnTemp = append(a.temps, t), true
	return nil
}

func parseView(t *schema.Table) *sqlparse.Statement {
	stmts, err := sqlparse.Parse(t.View)
	if err != nil || len(stmts) != 1 || stmts[0].Kind != sqlparse.Select {
		return nil
	}
	return stmts[0]
}

// rowRules says whether a view that reads with its owner's rights reaches a table with row-level security.
func (a *analysis) rowRules(t *schema.Table, invoker bool, depth int) bool {
	if depth > 32 || t.RowRules && !invoker {
		return true
	}
	for _, n := range t.Reads {
		if sub := a.table(n); sub != nil && a.rowRules(sub, invoker && (sub.Kind != 'v' || sub.Invoker), depth+1) {
			return true
		}
	}
	return false
}

// expand gives every place where a query names such a view the view's query.
func (a *analysis) expand(q *sqlparse.Query) {
	if a.views.at == nil {
		a.views.at = map[*sqlparse.Rel]*sqlparse.Statement{}
	}
	for _, r := range q.Rels {
		if r.Kind == sqlparse.RelTable && !r.CTE {
			if t := a.tableOf(r); t != nil && t.Kind == 'v' && a.readsSharded(t, nil) {
				if s := parseView(t); s != nil {
					a.views.at[r] = s
					a.expand(s.Query)
				}
			}
		}
		if r.Sub != nil {
			a.expand(r.Sub)
		}
	}
	for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves} {
		for _, s := range list {
			a.expand(s)
		}
	}
}

// sub is the query that a range table entry stands for; nil for a table.
func (a *analysis) sub(r *sqlparse.Rel) *sqlparse.Query {
	if s := a.views.at[r]; s != nil {
		return s.Query
	}
	return r.Sub
}

// copyUnder is the reference table that a write of a view changes, as PostgreSQL writes through views that have one table or view in
// their FROM. Of what is written there the other shards would know nothing.
func (a *analysis) copyUnder(t *schema.Table, depth int) (n shardmap.TableName, ok bool) {
	if t == nil || t.Kind != 'v' || depth > 32 {
		return n, false
	}
	s := parseView(t)
	if s == nil || s.Query == nil || len(s.Query.Rels) != 1 || s.Query.Rels[0].Kind != sqlparse.RelTable {
		return n, false
	}
	n, ok = a.env.find(a.db, a.sch, s.Query.Rels[0].Table)
	if info := a.info(n); !ok || info != nil {
		return n, ok && info.Kind == shardmap.Reference
	}
	return a.copyUnder(a.table(n), depth+1)
}

// writtenView names a view through which a query, or one inside of it, writes a reference table.
func (a *analysis) writtenView(q *sqlparse.Query) (n shardmap.TableName, ok bool) {
	if q == nil {
		return n, false
	}
	if q.Target != nil {
		if n, ok = a.env.find(a.db, a.sch, q.Target.Table); ok {
			if _, ok = a.copyUnder(a.table(n), 0); ok {
				return n, true
			}
		}
	}
	for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves, {q.Source}} {
		for _, sub := range list {
			if n, ok = a.writtenView(sub); ok {
				return n, true
			}
		}
	}
	for _, r := range q.Rels {
		if n, ok = a.writtenView(r.Sub); ok {
			return n, true
		}
	}
	return n, false
}
