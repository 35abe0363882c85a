package router

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// assignsKey says whether an UPDATE gives a key column of its sharded target a value.
func (a *analysis) assignsKey(q *sqlparse.Query) bool {
	if q.Cmd != sqlparse.Update {
		return false
	}
	info := a.declared(q.Target)
	return info != nil && info.Kind == shardmap.Sharded && slices.ContainsFunc(q.Sets, func(s sqlparse.Assign) bool { return info.IsKey(s.Column) })
}

// rekeys plans an UPDATE that changes keys, as a DELETE that gives the rows back as they would be, and an INSERT of these. It
// is nil where that is not the same: where a foreign key acts on what refers to a deleted row, and where what is returned
// is not the row's own, nor of what is on its new shard.
func (a *analysis) rekeys(top *block) *rekey {
	q := top.query
	var returned []*sqlparse.Query
	for _, sub := range q.Subs {
		if sub.Returned {
			returned = append(returned, sub)
		}
	}
	if !a.assignsKey(q) || a.stmt.Kind != sqlparse.Update || q.Opaque != "" || len(q.CTEs) > 0 || q.Returning && (len(q.Rels) > 1 || returnsBoth(a, q)) || behindRows(a, q.Target, returned, true) {
		return nil
	}
	info := a.declared(q.Target)
	t := a.sch.Tables[info.TableName]
	if t == nil || t.Cascades || t.Rules || t.RowRules || slices.ContainsFunc(a.touched, func(x *touched) bool { return len(x.Triggers) > 0 }) || t.Parent && t.Kind != 'p' || t.Child && t.Root.Name == "" {
		return nil
	}
	plan := &Template{Class: Rekey, Stmt: a.stmt, DB: a.db, Schema: a.sch, Tables: a.t.Tables, Target: info, Hidden: a.t.Hidden, Counts: a.t.Counts}
	if _, ok := plan.Rekeyed(a.stmt.Text); !ok {
		return nil
	}
	for _, p := range a.t.pins {
		if p.pinRole == reads {
			plan.pins = append(plan.pins, p)
		}
	}
	a.t.rekey = &rekey{plan: plan, narrow: a.unions(top)}
	if !slices.ContainsFunc(a.t.pins, func(p pin) bool { return p.pinRole == assigns }) { // the new key is no constant
		a.t.Class = Rekey
	}
	return a.t.rekey
}

// returnsBoth says whether RETURNING may give a row as it was beside the row as it is, by old and new: an INSERT has none that was. Source: PostgreSQL 18,
// https://www.postgresql.org/docs/18/dml-returning.html
func returnsBoth(a *analysis, q *sqlparse.Query) (yes bool) {
	t := a.tableOf(q.Target)
	is := func(name string) bool { return (name == "old" || name == "new") && name != q.Target.Name() }
	everyQuery(q, func(level *sqlparse.Query) {
		yes = yes || slices.ContainsFunc(level.Stars, is) || slices.ContainsFunc(level.RefCols, func(c sqlparse.Col) bool {
			return is(c.Qual) || c.Qual == "" && is(c.Name) && (t == nil || !hasColumn(t, c.Name))
		})
	})
	return yes
}

// RekeyColumns are the columns of a Rekey's rows: all but the generated ones.
func (t *Template) RekeyColumns() []sqlparse.RekeyColumn {
	var out []sqlparse.RekeyColumn
	for i := range t.Schema.Tables[t.Target.TableName].Columns {
		if c := &t.Schema.Tables[t.Target.TableName].Columns[i]; !c.Generated {
			out = append(out, sqlparse.RekeyColumn{Name: c.Name, Quoted: pgsql.Ident(c.Name), Type: c.Base})
		}
	}
	return out
}

// Rekeyed writes what a Rekey runs, for the text that runs.
func (t *Template) Rekeyed(text string) (sqlparse.Rekeyed, bool) {
	q := t.Stmt.Query
	table := t.Target.SQL()
	return sqlparse.Rekey(text, table, pgsql.Ident(q.Target.Name()), t.RekeyColumns(), q.Sets)
}
