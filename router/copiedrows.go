package router

import (
	"maps"
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// unfit says why a statement cannot run on copies: where it hangs on what only the tables have, their names and the types of their rows. own
// says whether home's tables are copied as well.
func (g *gatherPlan) unfit(own bool) *Error {
	copied := func(refs []reference) bool {
		return own || refs[0].info != nil && refs[0].info.Kind == shardmap.Sharded
	}
	rows := map[string]bool{}
	types := map[string]bool{}
	for _, n := range g.order {
		if !copied(g.refs[n]) {
			continue
		}
		for _, r := range g.refs[n] {
			for _, x := range r.level.Rels { // the alias of the copy has no schema
				if x != r.rel && r.rel.Alias == "" && x.Alias == "" && x.Kind == sqlparse.RelTable && x.Table.Name == r.rel.Table.Name && x.Table.Schema != r.rel.Table.Schema {
					return Refuse(RuleOpaque, "two tables of one name in one FROM without an alias: "+n.String())
				}
			}
			if !hasColumn(r.table, r.rel.Name()) {
				rows[r.rel.Name()] = true
			}
		}
		types[n.Name] = true
	}
	if name, ok := g.mistaken(); ok {
		return Refuse(RuleOpaque, "a column by the schema of its table where something else is called "+name)
	}
	if len(rows) == 0 {
		return nil
	}
	statements := map[*sqlparse.Statement]bool{g.a.stmt: true}
	for _, of := range g.owner {
		statements[of] = true
	}
	for s := range statements {
		uses, named := s.RowUses()
		reached := passedOn(rows, named)
		for _, u := range uses {
			if slices.ContainsFunc(u.Names, func(n string) bool { return reached[n] }) && tellsRows(g.a, u, types) {
				return Refuse(RuleOpaque, "a whole row of a table where its type matters, as its copy has another one")
			}
		}
	}
	return nil
}

// mistaken names what schema.table.column would find in another table, or in a subquery, of the table's name: copies have no schema.
func (g *gatherPlan) mistaken() (name string, yes bool) {
	for rel, of := range g.owner {
		for _, ref := range of.Schemed() {
			n, ok := g.a.env.find(g.a.db, g.a.sch, rel.Table)
			own := rel.Kind == sqlparse.RelTable && !rel.CTE && rel.Alias == "" && ok && n == (shardmap.TableName{Schema: ref.Schema, Name: ref.Name})
			if rel.Name() == ref.Name && !own {
				return ref.Name, true
			}
		}
	}
	return "", false
}

// passedOn are names of rows, and those of the output columns that have such rows as values.
func passedOn(rows map[string]bool, named map[string][]string) map[string]bool {
	out := maps.Clone(rows)
	for more := true; more; {
		more = false
		for name, of := range named {
			if !out[name] && slices.ContainsFunc(of, func(n string) bool { return out[n] }) {
				out[name], more = true, true
			}
		}
	}
	return out
}

// tellsRows says whether rows of one type may give something else there than those of another one. types are those of the tables.
func tellsRows(a *analysis, u sqlparse.RowUse, types map[string]bool) bool {
	for _, t := range u.Types {
		if types[t] || len(a.sch.Funcs[schema.TypeFunc(t)]) > 0 {
			return true
		}
	}
	if u.Attr && !slices.Contains(a.attrs, u.Func) {
		return false
	}
	return u.Func == "pg_typeof" || len(a.userFuncs(u.Func)) > 0
}
