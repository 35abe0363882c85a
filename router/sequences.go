package router

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// What is done by hand to sequences from which columns draw on other shards than home: see docs/decisions, 10. A column of a sharded table that
// is no key draws from a sequence of its row's shard, and home's has one place among them: nextval there takes a value of that place, and setval would
// leave it. What tables of a schema that lives on one shard draw from is on that shard alone, and home's is at its end.

// elsewhere is a column that draws elsewhere than on home.
type elsewhere struct {
	schema.Drawer
	tenant *shardmap.GroupInfo // the table's schema, if it lives on one shard
}

// drawsElsewhere is a column that draws from a sequence on other shards than home; nil for none. That of a sharded table comes before that of a schema,
// whose sequence is on one shard alone.
func drawsElsewhere(a *analysis, seq *schema.Table) (found *elsewhere) {
	for _, d := range seq.Drawers {
		info := a.info(d.TableName)
		switch {
		case info == nil || info.Kind != shardmap.Sharded || info.IsKey(d.Column):
		case a.db.Tables[d.TableName] != nil:
			if d.Draws {
				return &elsewhere{d, nil}
			}
		case d.Schema == seq.Schema && goneAlong(a, seq):
			found = &elsewhere{d, info.Group}
		}
	}
	return found
}

// goneAlong says whether a sequence is on the shard of its schema, which lives on one: a column of the schema owns it, or draws from it.
func goneAlong(a *analysis, seq *schema.Table) bool {
	g := a.db.Tenant(seq.Schema)
	return g != nil && a.db.Placement(g).Shards()[0] != a.db.Home.Index && slices.ContainsFunc(seq.Drawers, func(d schema.Drawer) bool { return d.Schema == seq.Schema })
}

// lastDrawn refuses to drop the last column, or its default, that draws from a sequence on the shard of its schema which no column owns, or with CASCADE
// any of them: there it belongs to one, and home's would stay at its end.
func lastDrawn(a *analysis, objects []shardmap.TableName) error {
	columns, cascade := sqlparse.Undrawn(a.stmt)
	cascade = cascade || a.stmt.Def.Cascade
	taken := func(d schema.Drawer) bool {
		return slices.Contains(objects, d.TableName) && (a.stmt.Def.TableDrop || slices.Contains(columns, d.Column))
	}
	for _, seq := range a.sch.Tables {
		if seq.Kind != 'S' || !goneAlong(a, seq) || !slices.ContainsFunc(seq.Drawers, taken) || slices.ContainsFunc(seq.Drawers, func(d schema.Drawer) bool { return d.Owns }) {
			continue
		}
		if cascade || !slices.ContainsFunc(seq.Drawers, func(d schema.Drawer) bool { return d.Schema == seq.Schema && !taken(d) }) {
			return Refuse(RuleDdl, "DROP of the last column or default that draws from sequence "+seq.String())
		}
	}
	return nil
}

// anyElsewhere is a column of any table that draws on other shards than home; nil for none.
func anyElsewhere(a *analysis) (found *elsewhere) {
	if a.db.Plain() || len(a.db.Shards) == 1 {
		return nil
	}
	for _, t := range a.sch.Tables {
		if t.Kind != 'S' {
			continue
		}
		if e := drawsElsewhere(a, t); e != nil && (found == nil || e.String()+e.Column < found.String()+found.Column) {
			found = e
		}
	}
	return found
}

// counted is the sequence that a call means; nil if there is none such that home knows.
func counted(a *analysis, c *sqlparse.Counter) *schema.Table {
	n, ok := a.env.resolve(a.db, a.sch, c.Name)
	if !ok {
		return nil
	}
	if c.Column == "" {
		if t := a.sch.Tables[n]; t != nil && t.Kind == 'S' {
			return t
		}
		return nil
	}
	for _, t := range a.sch.Tables {
		if t.Kind == 'S' && slices.ContainsFunc(t.Drawers, func(d schema.Drawer) bool { return d.Owns && d.TableName == n && d.Column == c.Column }) {
			return t
		}
	}
	return nil
}

// hangsOnName says whether the plan of a statement hangs on which sequence a constant of it names.
func hangsOnName(a *analysis) bool {
	sets := slices.ContainsFunc(a.stmt.Counters, func(c sqlparse.Counter) bool { return c.Func == "setval" })
	return len(a.stmt.Counters) > 0 && (sets || len(a.db.Tenants()) > 0) && anyElsewhere(a) != nil
}

// byHand refuses what would take values, by hand, that others draw as well, and finds the shard of the sequences of a schema that lives on one.
func byHand(a *analysis) error {
	if len(a.stmt.Counters) == 0 {
		return nil
	}
	first := anyElsewhere(a)
	if first == nil {
		return nil
	}
	home := false
	beside := "" // what is on the shard of its schema
	for i := range a.stmt.Counters {
		c := &a.stmt.Counters[i]
		seq := counted(a, c)
		var e *elsewhere
		what := c.Func + " of a sequence by a name that is computed"
		if seq != nil {
			e, what = drawsElsewhere(a, seq), c.Func+" of sequence "+seq.String()
		} else if !c.Known {
			e = first
		}
		there := e != nil && e.tenant != nil && c.Known
		switch {
		case there && a.db.Table(e.TableName).Moving:
			return Refuse(RuleMoving, e.TableName)
		case e != nil && (c.Func == "setval" && !there || c.Func == "currval" && there):
			return Refuse(RuleSequence, what+", from which column "+e.Column+" of "+e.String()+" may draw on its shard,")
		case there && a.tenant != nil && a.tenant != e.tenant:
			home = true
		case there:
			a.tenant, beside = e.tenant, what
		default:
			home = true
		}
	}
	if a.tenant == nil || !runsAsQuery(a.stmt) { // what makes a table of it has home's, which gives nothing
		a.tenant = nil
		return nil
	}
	others := len(a.home)+len(a.reference)+len(a.temps) > 0 || slices.ContainsFunc(a.sharded, func(n shardmap.TableName) bool { return a.db.Table(n).Group != a.tenant })
	if home || others || a.namesCatalog() {
		return Refuse(RuleSequence, beside+", beside what is not on its shard,")
	}
	return nil
}

// runsAsQuery says whether a statement is a query by itself, or one that a cursor or EXPLAIN has: it makes nothing of what it gives.
func runsAsQuery(s *sqlparse.Statement) bool {
	switch s.Kind {
	case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Cursor:
	case sqlparse.Explain:
		switch s.Query.Cmd {
		case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge:
		default:
			return false
		}
	default:
		return false
	}
	return s.Query != nil && !makesTable(s.Query)
}

// onTenant plans a statement that names no table, and a sequence of a schema that lives on one shard: there.
func onTenant(a *analysis) {
	if a.tenant != nil {
		a.t.Home, a.t.pins = false, []pin{{group: a.tenant}}
	}
}

// setsSequence says whether words of a function's body may be those of one that sets a sequence from which columns draw on other shards: they name
// one, or none of home's, by itself or by the table that it belongs to.
func setsSequence(a *analysis, words map[string]bool) bool {
	if !words["setval"] {
		return false
	}
	named := false
	for n, t := range a.sch.Tables {
		if t.Kind != 'S' || !schema.Names(words, n.Name) && !slices.ContainsFunc(t.Drawers, func(d schema.Drawer) bool { return d.Owns && schema.Names(words, d.Name) }) {
			continue
		}
		if drawsElsewhere(a, t) != nil {
			return true
		}
		named = true
	}
	return !named && anyElsewhere(a) != nil
}

// isCounter says whether a function is one of those that Counters has.
func isCounter(f string) bool { return f == "nextval" || f == "currval" || f == "setval" }

// countsThere says whether all calls of such functions are of sequences of one schema, which lives on one shard, as are those of other code
// that the statement runs; or whether its tables are of such schemas on home.
func countsThere(a *analysis) bool {
	if len(a.sharded) > 0 && !slices.ContainsFunc(a.sharded, func(n shardmap.TableName) bool {
		g := a.db.Table(n).Group
		return g.Scheme != shardmap.ByTenant || a.db.Placement(g).Shards()[0] != a.db.Home.Index
	}) {
		return true
	}
	n := 0
	for _, f := range a.calls() {
		if isCounter(f) {
			n++
		}
	}
	return a.tenant != nil && n == len(a.stmt.Counters)
}
