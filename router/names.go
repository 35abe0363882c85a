package router

import (
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// distributedIn says whether a schema holds tables that are not home's alone.
func (a *analysis) distributedIn(schema string) bool {
	if a.db.Tenant(schema) != nil {
		return true
	}
	for n := range a.db.Tables {
		if n.Schema == schema {
			return true
		}
	}
	return false
}

// names resolves every relation that the statement names anywhere.
func (a *analysis) names() error {
	if a.stmt.Private {
		return Refuse(RulePrivateSchema)
	}
	a.attrs, a.other = attributes(a)
	a.touched = changes(a)
	return a.resolveAll(a.stmt.Tables, map[shardmap.TableName]bool{})
}

func (a *analysis) resolveAll(refs []sqlparse.TableRef, seen map[shardmap.TableName]bool) error {
	for _, ref := range refs {
		if ref.Schema == "pgmosaic" {
			return Refuse(RulePrivateSchema)
		}
		name, ok := a.env.find(a.db, a.sch, ref)
		if !ok || seen[name] {
			continue
		}
		seen[name] = true
		if t := a.env.Temp.Table(name.Name); name.Schema == schema.TempSchema { // it is home's, unless it stands for what is not
			if err := a.temporary(t, seen); err != nil {
				return err
			}
			continue
		}
		info := a.info(name)
		switch {
		case info != nil && a.hidden(ref, name):
			return Refuse(RuleHomeAway, ref.Name)
		case info == nil && len(a.db.Shards) > 1 && !a.stmt.Def.Frees && a.undeclared(name, nil):
			return Refuse(RuleUndeclared, name)
		case info == nil:
			if t := a.sch.Tables[name]; t != nil && len(a.db.Shards) > 1 && t.Kind == 'v' && a.readsRows() && a.readsSharded(t, nil) {
				if err := a.view(t, seen); err != nil {
					return err
				}
				continue
			}
			a.home = append(a.home, name)
		case info.Moving:
			return Refuse(RuleMoving, name)
		case info.Kind == shardmap.Sharded:
			a.sharded = append(a.sharded, name)
		default:
			a.reference = append(a.reference, name)
		}
	}
	return nil
}

// resolve finds the user table that a name means. ok is false for catalogs, temporary tables, CTEs and
// names that do not exist: what they mean is the home shard's affair.
func (e Env) resolve(db *shardmap.DB, sch *schema.Snapshot, ref sqlparse.TableRef) (shardmap.TableName, bool) {
	n, ok := e.find(db, sch, ref)
	if n.Schema == schema.TempSchema {
		return shardmap.TableName{}, false
	}
	return n, ok
}

// find is resolve, and finds temporary tables as well, in schema.TempSchema.
func (e Env) find(db *shardmap.DB, sch *schema.Snapshot, ref sqlparse.TableRef) (shardmap.TableName, bool) {
	temp := shardmap.TableName{Schema: schema.TempSchema, Name: ref.Name}
	switch {
	case schema.IsTemp(ref.Schema):
		return temp, e.Temp.Table(ref.Name) != nil
	case ref.Schema != "":
		n := shardmap.TableName{Schema: ref.Schema, Name: ref.Name}
		return n, db.Table(n) != nil || sch.Tables[n] != nil
	case e.Temp.Table(ref.Name) != nil && !slices.Contains(e.SearchPath, schema.TempSchema): // else it is where the path says
		return temp, true
	}
	for _, s := range e.SearchPath {
		if s == "$user" {
			s = e.Role
		}
		n := shardmap.TableName{Schema: s, Name: ref.Name}
		if sch.Barred(s, e.Role) {
			continue
		}
		if sch.Tables[n] != nil || db.Tables[n] != nil || s == schema.TempSchema && e.Temp.Table(ref.Name) != nil {
			return n, true
		}
	}
	return shardmap.TableName{}, false
}

// means says whether an operator of PostgreSQL's may be one that users have defined.
func (e Env) means(d schema.Defined) bool {
	return d == schema.Another || d == schema.Alike && !e.ownFirst()
}

// ownFirst says whether PostgreSQL's own operators come before those that users have defined for the same types.
func (e Env) ownFirst() bool { return slices.Index(e.SearchPath, "pg_catalog") <= 0 }

// makesTemp says whether what is made under a name without a schema is temporary though nobody says so.
func (e Env) makesTemp() bool { return len(e.SearchPath) > 0 && e.SearchPath[0] == schema.TempSchema }

// table is what is known of a table, or of a temporary one.
func (a *analysis) table(n shardmap.TableName) *schema.Table {
	if n.Schema == schema.TempSchema {
		return a.env.Temp.Table(n.Name)
	}
	return a.sch.Tables[n]
}

// userFuncs are the functions of a name that are not the server's own.
func (a *analysis) userFuncs(name string) []*schema.Func {
	if temp := a.env.Temp.Func(name); len(temp) > 0 {
		return append(slices.Clone(temp), a.sch.Funcs[name]...)
	}
	return a.sch.Funcs[name]
}

// hidden says whether home, which was not asked, may know another table by a name: one in a schema that comes first in the path.
func (a *analysis) hidden(ref sqlparse.TableRef, found shardmap.TableName) bool {
	if a.sch.StandIn == "" || ref.Schema != "" {
		return false
	}
	for _, s := range a.env.SearchPath {
		if s == "$user" {
			s = a.env.Role
		}
		switch {
		case s == found.Schema:
			return false
		case a.sch.Barred(s, a.env.Role): // home's servers pass it over as well
		case a.sch.Schemas[s]:
			return true
		}
	}
	return false
}

// DeclaredSince says whether one of the names means a declared table to a newer map, and nothing to this one.
func (e Env) DeclaredSince(db *shardmap.DB, sch *schema.Snapshot, newer *shardmap.DB, refs []sqlparse.TableRef) bool {
	return slices.ContainsFunc(refs, func(r sqlparse.TableRef) bool {
		if _, known := e.resolve(db, sch, r); known {
			return false
		}
		_, declared := e.resolve(newer, &schema.Snapshot{}, r)
		return declared
	})
}

func (a *analysis) tableOf(r *sqlparse.Rel) *schema.Table {
	n, ok := a.env.find(a.db, a.sch, r.Table)
	if !ok || r.CTE {
		return nil
	}
	return a.table(n)
}

// declared is the map's word on a range table entry, nil for home tables and all that is no table.
func (a *analysis) declared(r *sqlparse.Rel) *shardmap.TableInfo {
	if r.Kind != sqlparse.RelTable || r.CTE {
		return nil
	}
	n, ok := a.env.resolve(a.db, a.sch, r.Table)
	if !ok {
		return nil
	}
	return a.info(n)
}

// info is the map's word on a table. What a schema that lives on one shard holds besides tables is home's, its views for one, but for the sequences
// that have gone along.
func (a *analysis) info(n shardmap.TableName) *shardmap.TableInfo {
	info := a.db.Table(n)
	if t := a.sch.Tables[n]; info != nil && t != nil && a.db.Tables[n] == nil && (t.Kind == 'v' || t.Kind == 'm' || t.Kind == 'S' && !goneAlong(a, t)) {
		return nil
	}
	return info
}

// readsSharded says whether a view, or one below it, reads sharded tables. Views may stand in a ring, by CREATE OR REPLACE: seen are those that were looked at.
func (a *analysis) readsSharded(t *schema.Table, seen map[*schema.Table]bool) bool {
	if seen[t] {
		return false
	}
	if seen == nil {
		seen = map[*schema.Table]bool{}
	}
	seen[t] = true
	for _, n := range t.Reads {
		if info := a.info(n); info != nil && info.Kind == shardmap.Sharded {
			return true
		}
		if sub := a.table(n); sub != nil && a.readsSharded(sub, seen) {
			return true
		}
	}
	return false
}

// undeclared says whether home has a part only of the rows of a table that the map does not declare, or of one that a view reads.
func (a *analysis) undeclared(n shardmap.TableName, seen map[*schema.Table]bool) bool {
	t := a.table(n)
	if t == nil || seen[t] || a.info(n) != nil {
		return false
	}
	if t.Placed || t.Kind != 'v' {
		return t.Placed
	}
	if seen == nil {
		seen = map[*schema.Table]bool{}
	}
	seen[t] = true
	return slices.ContainsFunc(t.Reads, func(r shardmap.TableName) bool { return a.undeclared(r, seen) })
}

// needsHome says whether the statement names something that only home has.
func (a *analysis) needsHome() bool {
	for _, n := range a.home {
		if a.sch.Tables[n] != nil {
			return true
		}
	}
	return a.namesCatalog()
}

// namesCatalog says whether a relation is neither declared nor a user table nor a CTE: a catalog, a
// temporary table or a mistake, all of them home's.
func (a *analysis) namesCatalog() bool {
	return a.namesUnknown(func(sqlparse.TableRef) bool { return true })
}

// unknown says whether the statement names a relation or function that is neither the user's, as far as the schema knows, nor the
// server's.
func (a *analysis) unknown() bool {
	for _, f := range a.stmt.Funcs {
		if _, known := a.sch.Volatile[f]; !known && len(a.userFuncs(f)) == 0 && !a.sch.Aggs[f] {
			return true
		}
	}
	return a.stmt.Query != nil && a.namesUnknown(func(r sqlparse.TableRef) bool {
		return !strings.HasPrefix(r.Name, "pg_") && !strings.HasPrefix(r.Schema, "pg_") && r.Schema != "information_schema" && a.env.Temp.Table(r.Name) == nil
	})
}

// namesUnknown says whether a relation of which that is to be told is neither declared nor a user table nor a CTE.
func (a *analysis) namesUnknown(tell func(sqlparse.TableRef) bool) bool {
	var any func(q *sqlparse.Query) bool
	any = func(q *sqlparse.Query) bool {
		for _, r := range q.Rels {
			if r.Kind == sqlparse.RelTable && !r.CTE && tell(r.Table) {
				if _, ok := a.env.resolve(a.db, a.sch, r.Table); !ok {
					return true
				}
			}
			if r.Sub != nil && any(r.Sub) {
				return true
			}
		}
		for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves} {
			for _, s := range list {
				if any(s) {
					return true
				}
			}
		}
		return q.Source != nil && any(q.Source)
	}
	return any(a.stmt.Query)
}

func joinNames(names []shardmap.TableName) string {
	var out []string
	for _, n := range names {
		out = append(out, n.String())
	}
	if len(out) == 0 {
		return "(a system catalog or a temporary table)"
	}
	return strings.Join(out, ", ")
}
