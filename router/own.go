package router

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// naming are the types of which a value is an object's number.
var naming = map[string]bool{
	"regclass": true, "regproc": true, "regprocedure": true, "regoper": true, "regoperator": true, "regtype": true, "regrole": true, "regnamespace": true, "regconfig": true, "regdictionary": true, "regcollation": true,
}

// isOwn says whether each server may have a value of its own for an expression of a query in a block, whatever the row: the moment, the name of its
// database, the number of an object of users'. Values that are compared have to be made on one server then.
func isOwn(b *block, q *sqlparse.Query, m sqlparse.Made) bool {
	a := b.a
	named := slices.ContainsFunc(m.Types, func(n string) bool { return naming[n] })
	if m.Clock || named || m.Attrs && varying(a, a.attrs) != "" || ownCalls(a, m) || m.Subs && callsOwn(a) {
		return true
	}
	for _, c := range m.Cols {
		if isOwnColumn(b, q, c, len(m.Types) > 0) {
			return true
		}
	}
	return false
}

// ownCalls says whether what a value calls may give another one on each server. Of a routine that is shard safe the operator has said that it gives
// what it would give on one.
func ownCalls(a *analysis, m sqlparse.Made) bool {
	return varying(a, slices.DeleteFunc(slices.Concat(m.Funcs, m.Ops), func(n string) bool { return shardSafe(a, n) })) != "" || slices.ContainsFunc(m.Types, func(n string) bool { return varying(a, []string{schema.CastFunc(n)}) != "" })
}

// isOwnColumn is isOwn for what a name stands for. cast says that it is made another type.
func isOwnColumn(b *block, q *sqlparse.Query, c sqlparse.Col, cast bool) bool {
	if _, col, ok := b.resolve(q, c); ok {
		return cast && naming[col.Base]
	}
	known := c.Name == "" // of * it is asked of each column
	for _, r := range q.Rels {
		sub := b.a.sub(r)
		switch {
		case c.Qual != "" && c.Qual != r.Name():
		case sub == nil || len(sub.Targets) == 0:
			known = known && r.Kind == sqlparse.RelTable && !r.CTE
		default:
			for i, t := range sub.Targets {
				name, sure := sub.OutputName(i)
				switch {
				case c.Name == "":
					if isOwn(b, sub, t.Expr.Made()) {
						return true
					}
				case sure && name == c.Name:
					return isOwn(b, sub, t.Expr.Made())
				}
			}
		}
	}
	if known {
		return false
	}
	return callsOwn(b.a)
}

// callsOwn says whether a statement calls, wherever, what may give another value on each server.
func callsOwn(a *analysis) bool {
	return a.stmt.Clock || ownCalls(a, sqlparse.Made{Funcs: slices.DeleteFunc(a.calls(), sqlparse.IsAggregate), Types: a.stmt.TypeNames})
}

// shardSafe says whether all users' functions of a name are shard safe, and there is one.
func shardSafe(a *analysis, name string) bool {
	all := a.userFuncs(name)
	return a.safe && len(all) > 0 && !slices.ContainsFunc(all, func(f *schema.Func) bool { return !a.db.ShardSafe(f.Schema, f.Name) })
}
