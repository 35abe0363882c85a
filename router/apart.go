package router

import (
	"maps"
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// partsCopies says what would make copies of reference tables different where a statement writes one, whatever it writes there: what the
// table has of its own, and what the statement changes besides it. Empty for nothing.
func partsCopies(a *analysis, t *schema.Table) string {
	if why := apart(a, t); why != "" {
		return why
	}
	if why := policed(a, t); why != "" {
		return why
	}
	for _, x := range a.touched {
		if info := a.info(x.TableName); x.Table == t || info == nil || info.Kind != shardmap.Reference {
			continue
		}
		for _, name := range x.defaults {
			if c, _ := x.Column(name); c != nil && (c.Volatile || c.Default != "" && varying(a, slices.Concat(x.Code.Defaults, x.Code.Always)) != "") {
				return "a foreign key of table " + x.TableName.String() + " sets column " + name + " to a default that differs on each shard"
			}
		}
		if why := apart(a, x.Table); why != "" {
			return "of table " + x.TableName.String() + ", which it changes as well, " + why
		}
		if x.Rules && !x.above {
			return "table " + x.TableName.String() + ", which it changes as well, has rules"
		}
		for _, f := range x.fires() {
			if unsteady(a, f, map[string]bool{}) {
				return "trigger function " + f + "() of table " + x.TableName.String() + ", which it changes as well, may do another thing on each shard"
			}
		}
	}
	return ""
}

// harmlessTriggers are PostgreSQL's own trigger functions that do the same everywhere.
var harmlessTriggers = map[string]bool{"suppress_redundant_updates_trigger": true, "tsvector_update_trigger": true, "tsvector_update_trigger_column": true}

// ofServer are words that give what is another one on each server.
var ofServer = []string{"tg_relid", "tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"}

// unsteady says whether a function may do another thing on each shard with the same rows. What it was said to be is no matter: trigger
// functions are VOLATILE where nobody says otherwise.
func unsteady(a *analysis, name string, seen map[string]bool) bool {
	if seen[name] {
		return false
	}
	seen[name] = true
	funcs := a.userFuncs(name)
	for _, f := range funcs {
		all := f.Words()
		if f.Lang != "sql" && f.Lang != "plpgsql" || f.Tells() || slices.ContainsFunc(ofServer, func(w string) bool { return all[w] }) {
			return true
		}
		spoken := f.Spoken()
		for _, w := range append(slices.Collect(maps.Keys(spoken)), callsOf(a, f)...) {
			if w == "execute" || w == "age" || len(a.userFuncs(w)) > 0 && unsteady(a, w, seen) || !settled[w] && (a.sch.Volatile[w] || a.sch.Stable[w] || byOID[w]) {
				return true
			}
		}
		for n := range a.sch.Tables { // home's, which others do not have
			if a.info(n) == nil && schema.Names(spoken, n.Name) {
				return true
			}
		}
	}
	return len(funcs) == 0 && !harmlessTriggers[name] && a.constancy(name) == sqlparse.Volatile
}

// chance says whether a user's function, by the words of its body, hangs on chance, the moment or the server. What it was said to be is no
// matter: few say of what reads a setting that it is stable.
func chance(a *analysis, name string, seen map[string]bool) bool {
	seen[name] = true
	for _, f := range a.userFuncs(name) {
		if f.Tells() {
			return true
		}
		for _, w := range append(slices.Collect(maps.Keys(f.Spoken())), callsOf(a, f)...) {
			if a.sch.Volatile[w] && w != "set_config" || !seen[w] && chance(a, w, seen) {
				return true
			}
		}
	}
	return false
}
