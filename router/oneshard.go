package router

import (
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// OneShard says why a statement may not run on one shard that its client names, past what the map says: it would change there what
// the shard has in common with others, or what is another's. Of functions that may write nobody can tell what they do. nil: it may.
// In a READ ONLY transaction the server sees to it.
func (t *Template) OneShard(env Env, shard int, readOnly bool) *Error {
	if len(t.DB.Shards) == 1 || readOnly {
		return nil
	}
	a := &analysis{stmt: t.Stmt, db: t.DB, sch: t.Schema, env: env, t: t}
	if what := a.inCommon(shard); what != "" {
		return Refuse("one-shard", what)
	}
	return nil
}

// inCommon names what a statement does that is not for one shard alone; empty for nothing.
func (a *analysis) inCommon(shard int) string {
	s := a.stmt
	for _, f := range s.Funcs {
		if what := a.writesUnseen(f); what != "" {
			return what
		}
	}
	switch s.Kind {
	case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Cursor:
		return a.writesElsewhere(s.Query, shard)
	case sqlparse.Explain:
		switch s.Query.Cmd {
		case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Cursor:
		default:
			return "EXPLAIN of a definition"
		}
		return a.writesElsewhere(s.Query, shard)
	case sqlparse.Copy:
		if s.Copy.From && s.Copy.Table != nil {
			return a.notItsOwn(*s.Copy.Table, shard)
		}
		if s.Query != nil {
			return a.writesElsewhere(s.Query, shard)
		}
		return ""
	case sqlparse.Truncate:
		if s.Def.Cascade || s.Def.Restart {
			return "TRUNCATE with CASCADE or RESTART IDENTITY"
		}
		for _, o := range s.Def.Objects {
			if what := a.notItsOwn(o, shard); what != "" {
				return what
			}
		}
		return ""
	case sqlparse.Show, sqlparse.Fetch, sqlparse.Vacuum, sqlparse.Lock, sqlparse.Load:
		return ""
	case sqlparse.Routine:
		return "DO or CALL"
	case sqlparse.Notify:
		return "NOTIFY"
	}
	return "a definition"
}

// writesUnseen names a function that may write what the statement does not name.
func (a *analysis) writesUnseen(f string) string {
	if f == "nextval" || f == "setval" || f == "pg_notify" || strings.HasPrefix(f, "lo_") {
		return "function " + f
	}
	for _, u := range a.userFuncs(f) {
		if u.Volatile {
			return "function " + f + ", which is VOLATILE,"
		}
	}
	return ""
}

// writesElsewhere names a table that a query, or one inside of it, writes, and that is not the shard's own.
func (a *analysis) writesElsewhere(q *sqlparse.Query, shard int) string {
	if q == nil {
		return ""
	}
	if q.Into {
		return "SELECT INTO"
	}
	if q.Target != nil {
		if what := a.notItsOwn(q.Target.Table, shard); what != "" {
			return what
		}
		if a.t.Draw != nil {
			return "an INSERT that draws a key from a sequence"
		}
	}
	for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves, {q.Source}} {
		for _, sub := range list {
			if what := a.writesElsewhere(sub, shard); what != "" {
				return what
			}
		}
	}
	for _, r := range q.Rels {
		if what := a.writesElsewhere(r.Sub, shard); what != "" {
			return what
		}
	}
	return ""
}

// notItsOwn names a table if the shard may not write it by itself: it may write rows of sharded tables that can be there, and home
// its own tables.
func (a *analysis) notItsOwn(ref sqlparse.TableRef, shard int) string {
	n, ok := a.env.find(a.db, a.sch, ref)
	info := a.info(n)
	switch {
	case ok && info != nil && info.Kind == shardmap.Reference:
		return "a write of the reference table " + n.String()
	case ok && info != nil:
		if !slices.Contains(info.Group.Shards(), shard) {
			return "a write of " + n.String() + ", whose rows are on other shards,"
		}
		return ""
	case shard == a.db.Home.Index:
		return ""
	}
	return "a write of " + ref.Name + ", which is home's,"
}
