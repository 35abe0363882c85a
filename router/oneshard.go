package router

import (
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// common is what a statement does that is not for one shard alone, which its client names past what the map says: it would change
// there what the shard has in common with others, or what is another's. Of functions that may write nobody can tell what they do.
type common struct {
	always string                // what it does that is for no shard alone; empty for nothing
	home   string                // what it does that is for home alone
	rows   []*shardmap.GroupInfo // of the sharded tables that it writes: their rows are on the shards of these
	table  shardmap.TableName
}

// OneShard says why a statement may not run on one shard that its client names; nil: it may. In a READ ONLY transaction the server
// sees to it.
func (t *Template) OneShard(db *shardmap.DB, shard int, readOnly bool) *Error {
	c := &t.common
	switch {
	case len(t.DB.Shards) == 1 || readOnly:
	case c.always != "":
		return Refuse(RuleOneShard, c.always)
	case c.home != "" && shard != t.DB.Home.Index:
		return Refuse(RuleOneShard, c.home)
	case slices.ContainsFunc(c.rows, func(g *shardmap.GroupInfo) bool { return !slices.Contains(db.Placement(g).Shards(), shard) }):
		return Refuse(RuleOneShard, "a write of "+c.table.String()+", whose rows are on other shards,")
	}
	return nil
}

// inCommon finds what a statement does that is not for one shard alone.
func (a *analysis) inCommon() (c common) {
	s := a.stmt
	for _, f := range append(a.calls(), a.ranBy(s)...) {
		c.refuse(a.writesUnseen(f, map[string]bool{}))
	}
	for _, n := range a.t.Tables {
		if t := a.sch.Tables[n]; t != nil {
			for _, f := range append(append(slices.Clone(t.Code.Always), t.Code.Writes...), t.Code.Defaults...) {
				c.refuse(a.writesUnseen(f, map[string]bool{}))
			}
		}
	}
	for _, x := range a.touched { // by a foreign key, or below what is named
		for _, f := range slices.Concat(x.Code.Always, x.Code.Writes, x.Code.Defaults) {
			c.refuse(a.writesUnseen(f, map[string]bool{}))
		}
		a.noteWrite(sqlparse.TableRef(x.TableName), &c)
	}
	switch s.Kind {
	case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Cursor:
		a.noteWrites(s.Query, &c)
	case sqlparse.Explain:
		switch s.Query.Cmd {
		case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Cursor:
			a.noteWrites(s.Query, &c)
		default:
			c.refuse("EXPLAIN of a definition")
		}
	case sqlparse.Copy:
		if s.Copy.From && s.Copy.Table != nil {
			a.noteWrite(*s.Copy.Table, &c)
		}
		a.noteWrites(s.Query, &c)
	case sqlparse.Truncate:
		if s.Def.Cascade || s.Def.Restart {
			c.refuse("TRUNCATE with CASCADE or RESTART IDENTITY")
		}
		for _, o := range s.Def.Objects {
			a.noteWrite(o, &c)
		}
	case sqlparse.Show, sqlparse.Fetch, sqlparse.Vacuum, sqlparse.Lock, sqlparse.Load:
	case sqlparse.Routine:
		c.refuse("DO or CALL")
	case sqlparse.Notify:
		c.refuse("NOTIFY")
	default:
		c.refuse("a definition")
	}
	return c
}

// refuse notes the first thing that is for no shard alone.
func (c *common) refuse(what string) {
	if c.always == "" {
		c.always = what
	}
}

// writesUnseen names a function that may write what the statement does not name: itself, or by one that it calls, whatever it says of
// itself.
func (a *analysis) writesUnseen(f string, seen map[string]bool) string {
	if f == "nextval" || f == "setval" || f == "pg_notify" || strings.HasPrefix(f, "lo_") {
		return "function " + f
	}
	if seen[f] {
		return ""
	}
	seen[f] = true
	for _, u := range a.userFuncs(f) {
		if u.Volatile {
			return "function " + f + ", which is VOLATILE,"
		}
		calls := callsOf(a, u)
		for w := range u.Words() {
			if len(a.userFuncs(w)) > 0 {
				calls = append(calls, w)
			}
		}
		for _, called := range calls {
			if what := a.writesUnseen(called, seen); what != "" {
				return what
			}
		}
	}
	return ""
}

// noteWrites notes the tables that a query, or one inside of it, writes.
func (a *analysis) noteWrites(q *sqlparse.Query, c *common) {
	if q == nil {
		return
	}
	if q.Into {
		c.refuse("SELECT INTO")
	}
	if q.Target != nil {
		a.noteWrite(q.Target.Table, c)
		if a.t.Draw != nil {
			c.refuse("an INSERT that draws a key from a sequence")
		}
	}
	for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves, {q.Source}} {
		for _, sub := range list {
			a.noteWrites(sub, c)
		}
	}
	for _, r := range q.Rels {
		a.noteWrites(r.Sub, c)
	}
}

// noteWrite notes a table that is written: a shard may write rows of sharded tables that can be there, and home its own tables.
func (a *analysis) noteWrite(ref sqlparse.TableRef, c *common) {
	n, ok := a.env.find(a.db, a.sch, ref)
	info := a.info(n)
	switch {
	case !ok || info == nil:
		c.home = "a write of " + ref.Name + ", which is home's,"
	case info.Kind == shardmap.Reference:
		c.refuse("a write of the reference table " + n.String())
	default:
		c.rows, c.table = append(c.rows, info.Group), n
	}
}
