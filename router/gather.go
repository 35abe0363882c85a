package router

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// Gather says how a SELECT is answered whose rows do not merge: the rows that it needs of each sharded table are copied
// into temporary tables of one server on home, and PostgreSQL runs the statement there.
type Gather struct {
	SQL   string // the statement over the copies
	Loads []Load
	Why   *Error  // the reason that its rows do not merge
	Else  *Gather // what is run where the types of its parts, if it has some, do not allow them
	No    *Error  // why the copies are no way out, as parts may be
	Own   *Gather // the same for a transaction that has used home: home's tables are copied too, as it sees them
}

// Load is one copy.
type Load struct {
	Table   shardmap.TableName
	Name    string // of the copy, in pg_temp
	SQL     string // what each shard is asked for
	Columns []*schema.Column
	Key     []string // the primary key that the copy must have, for GROUP BY
	Home    bool     // its rows are home's
	Read    bool     // a replica may give them
	Part    *Part    // it is no table's

	pins []pin // of each place where the statement names it, or of the tables of a part
}

// Part says that a copy holds what each shard makes of its rows: of the whole statement, or of a SELECT in it that
// stands by itself.
type Part struct {
	Own   string // the SELECT; empty: the whole statement
	Final string // what makes its rows of the copy's: see sqlparse.Finish
}

// Stands puts the final text of a part in its place in the statement over the copies. names are those of its columns, as a
// list in brackets.
func (l *Load) Stands(sql, final, names string) string {
	if l.Part.Own == "" {
		return final
	}
	return strings.Replace(sql, "FROM "+l.Name, "FROM ("+final+") AS "+l.Name+names, 1)
}

// reference is one place where a statement names a table, and what is known there.
type reference struct {
	rel   *sqlparse.Rel
	table *schema.Table
	info  *shardmap.TableInfo // nil: a home table
	level *sqlparse.Query
	block *block
}

// meaning is what a name at one place of a text means; nothing that is copied, if it is zero.
type meaning struct {
	table shardmap.TableName
	view  *sqlparse.Statement // the query of a view over sharded tables
}

// gatherPlan is the work on one statement.
type gatherPlan struct {
	a        *analysis
	meanings map[*sqlparse.Statement]map[int]meaning // of every relation's name, in the statement and in its views
	owner    map[*sqlparse.Rel]*sqlparse.Statement
	refs     map[shardmap.TableName][]reference
	order    []shardmap.TableName
	words    map[string]bool
	stars    map[string]bool
	whole    bool // no SELECT is copied as the shards make it
	all      bool // of every table every column
	vague    bool // conditions and keys prove nothing
	groups   bool
	parts    map[*sqlparse.Query]*Load // SELECTs that are copied as the shards make them
	listed   []*Load                   // those, in order
}

// gather plans a SELECT on copies. why is the reason that it does not scatter, which stands where gathering is no way
// out either.
func (a *analysis) gather(top *block, why *Error) (*Gather, *Error) {
	q := top.query
	if !a.gathers() || !pureQuery(q) || a.t.Temp {
		return nil, why
	}
	a.safe = false
	for _, f := range a.calls() {
		switch {
		case a.funcReaches(f, map[string]bool{}): // it would run on home
			return nil, Refuse(RuleFunctionBody, f)
		case f == "set_config" || f == "setseed": // they are for the session's own server
			return nil, Refuse(RuleHomeOnly, f)
		case a.isVolatile(f) && !harmless[f]: // what it writes would be rolled back with the copies
			return nil, Refuse(RuleVolatile, f)
		}
	}
	g := &gatherPlan{a: a, meanings: map[*sqlparse.Statement]map[int]meaning{}, owner: map[*sqlparse.Rel]*sqlparse.Statement{}, refs: map[shardmap.TableName][]reference{}, words: map[string]bool{}, stars: map[string]bool{}}
	g.survey(a.stmt, q)
	if err := g.visit(top); err != nil {
		return nil, err
	}
	for w := range g.words {
		if systemColumns[w] {
			return nil, Refuse(RuleSystemColumn, w)
		}
	}
	plan, err := g.both()
	if err == nil && len(g.listed) > 0 {
		g.parts, g.listed = nil, nil
		g.meanings, g.refs, g.order = map[*sqlparse.Statement]map[int]meaning{}, map[shardmap.TableName][]reference{}, nil
		g.whole = true
		if refused := g.visit(top); refused != nil {
			return nil, refused
		}
		plan.Else, err = g.both()
		plan.Own.Else = plan.Else.Own
	}
	if err != nil {
		return nil, Refuse(RuleOpaque, "a construct that cannot be written back as SQL")
	}
	plan.Why = why
	return plan, nil
}

// both are the two plans of a statement: see Gather.Own.
func (g *gatherPlan) both() (*Gather, error) {
	plan, err := g.build(false)
	if err == nil {
		plan.Own, err = g.build(true)
	}
	return plan, err
}

// statementPart plans a SELECT in two steps: each shard groups, or sorts and cuts, its own rows, and PostgreSQL finishes what
// they send. Nil where that cannot be.
func (a *analysis) statementPart(top *block) *Gather {
	if a.views.used || a.needsHome() || a.union(top) != nil {
		return nil
	}
	l := a.part(top, "pgmosaic_part_01")
	if l == nil {
		return nil
	}
	l.Part.Own = ""
	return &Gather{SQL: l.Part.Final, Loads: []Load{*l}}
}

// part plans what each shard sends of a SELECT whose rows, before they are grouped, sorted and cut, are those of the
// shards together. Nil where there is no such part.
func (a *analysis) part(b *block, name string) *Load {
	known := true
	in := sqlparse.Inputs{
		Has: func(name string) bool {
			for _, r := range b.query.Rels {
				cols, sure := a.outputs(r)
				if slices.Contains(cols, name) {
					return true
				}
				known = known && sure
			}
			return false
		},
		Star: func(qualifier string) (out []sqlparse.Col) {
			for _, r := range b.query.Rels {
				if qualifier != "" && qualifier != r.Name() {
					continue
				}
				cols, sure := a.outputs(r)
				known = known && sure && r.Name() != ""
				for _, c := range cols {
					out = append(out, sqlparse.Col{Qual: r.Name(), Name: c})
				}
			}
			return out
		},
		Type: func(c sqlparse.Col) uint32 {
			if _, col, ok := b.resolve(b.query, c); ok {
				return col.TypeOID
			}
			return 0
		},
		Own: func(m sqlparse.Made) bool { return isOwn(b, b.query, m) },
	}
	f, err := a.stmt.Finished(b.query, name, in)
	if err != nil || !known {
		return nil
	}
	own, err := b.query.Own()
	if err != nil {
		return nil
	}
	return a.partOf(b, Load{Name: name, SQL: f.Shard, Part: &Part{Own: own, Final: f.Final}})
}

// outputs are the columns of a range table entry, in order. sure is false if they are not all known.
func (a *analysis) outputs(r *sqlparse.Rel) (names []string, sure bool) {
	if t := a.tableOf(r); r.Kind == sqlparse.RelTable && t != nil {
		for _, c := range t.Columns {
			names = append(names, c.Name)
		}
		return names, true
	}
	if r.Kind != sqlparse.RelQuery || r.Sub == nil || r.Sub.SetOp {
		return nil, false
	}
	sure = true
	for _, t := range r.Sub.Targets {
		switch {
		case t.Name != "":
			names = append(names, t.Name)
		case t.Expr.Col != nil:
			names = append(names, t.Expr.Col.Name)
		default: // *, or whatever PostgreSQL calls it
			sure = false
		}
	}
	return names, sure
}

// whole plans a SELECT on home, in two steps if it can be.
func (a *analysis) whole(top *block, why *Error) (*Gather, *Error) {
	all, err := a.gather(top, why)
	if err != nil {
		return nil, err
	}
	p := a.statementPart(top)
	switch {
	case p == nil && all.No != nil:
		return nil, all.No
	case p == nil:
		return all, nil
	}
	p.Why, p.Else = why, all
	own := *p // what it falls back to copies home's tables too
	own.Else = all.Own
	p.Own = &own
	return p, nil
}

// toGather makes the template one that runs on copies.
func (a *analysis) toGather(top *block, why *Error) *Error {
	plan, err := a.whole(top, why)
	if err == nil {
		a.t.Class, a.t.Gather, a.t.Exact, a.t.wide = Gathered, plan, true, nil
	}
	return err
}

// orGather keeps the way to run a SELECT on copies in case that its rows turn out not to merge: only a server knows
// their types.
func (a *analysis) orGather(top *block) {
	if a.t.Merge.Own {
		return // nothing is compared
	}
	if a.why != nil {
		a.instead, a.lost = a.whole(top, a.why)
		return
	}
	var once sync.Once
	var out *Template
	var err *Error
	t, env := a.t, a.env // and not the work on the statement, with all that it knows: that is done again
	t.fallback = func(why *Error) (*Template, *Error) {
		once.Do(func() {
			var plan *Gather
			if plan, err = gatherInstead(t, env, why); err != nil {
				return
			}
			out = &Template{
				Class: Gathered, Stmt: t.Stmt, DB: t.DB, Schema: t.Schema, Read: t.Read, Tables: t.Tables, Behind: t.Behind, Beyond: t.Beyond, Whole: t.Whole, Hidden: t.Hidden, Counts: t.Counts, Gather: plan, Exact: true, pins: t.pins,
			}
		})
		return out, err
	}
}

// gatherInstead plans the statement of a Scatter template anew, on copies.
func gatherInstead(t *Template, env Env, why *Error) (*Gather, *Error) {
	stmts, err := sqlparse.Parse(t.Stmt.Text)
	if err != nil || len(stmts) != 1 {
		return nil, why
	}
	a := &analysis{stmt: stmts[0], db: t.DB, sch: t.Schema, env: env, t: &Template{Stmt: stmts[0], DB: t.DB, Schema: t.Schema}, why: why}
	if err := a.run(); err != nil || a.instead == nil {
		return nil, cmp.Or(a.lost, why)
	}
	return a.instead, nil
}

// Fallback is what runs in place of a Scatter template whose rows do not merge, for why.
func (t *Template) Fallback(why *Error) (*Template, error) {
	if t.fallback == nil {
		return nil, why
	}
	g, err := t.fallback(why)
	if err != nil {
		return nil, why
	}
	return g, nil
}

// harmless are volatile functions that change nothing.
var harmless = map[string]bool{
	"random": true, "random_normal": true, "gen_random_uuid": true, "clock_timestamp": true, "timeofday": true, "pg_sleep": true, "pg_sleep_for": true,
	"uuid_generate_v4": true, "uuid_generate_v1": true, "uuid_generate_v1mc": true, "gen_random_bytes": true,
}

// survey notes what names a level and those below it use.
func (g *gatherPlan) survey(of *sqlparse.Statement, q *sqlparse.Query) {
	for _, w := range q.Words {
		g.words[w] = true
	}
	for _, s := range q.Stars {
		g.stars[s] = true
	}
	g.groups = g.groups || len(q.GroupBy) > 0
	if q.Opaque != "" {
		g.all, g.vague = true, true
	}
	for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves} {
		for _, s := range list {
			g.survey(of, s)
		}
	}
	for _, r := range q.Rels {
		g.owner[r] = of
		if v := g.a.views.at[r]; v != nil {
			g.survey(v, v.Query)
		} else if r.Sub != nil {
			g.survey(of, r.Sub)
		}
	}
}

// visit lists the relations of a block and of those below it.
func (g *gatherPlan) visit(b *block) *Error {
	a := g.a
	for _, f := range b.flat {
		for _, r := range f.Rels {
			if r.Kind != sqlparse.RelTable {
				continue
			}
			at := g.meanings[g.owner[r]]
			if at == nil {
				at = map[int]meaning{}
				g.meanings[g.owner[r]] = at
			}
			at[r.Loc] = meaning{view: a.views.at[r]}
			if r.CTE || a.views.at[r] != nil {
				continue
			}
			if (r.Table.Schema == "" || schema.IsTemp(r.Table.Schema)) && a.env.Temp.Table(r.Table.Name) != nil {
				return Refuse(RuleGatherTemporary, r.Table.Name)
			}
			name, ok := a.env.resolve(a.db, a.sch, r.Table)
			if !ok {
				continue // a catalog, or a mistake: home's affair
			}
			t := a.sch.Tables[name]
			if t == nil {
				return Refuse(RuleOpaque, "a table that is not there yet")
			}
			if t.Kind == 'S' {
				continue
			}
			if r.Only && t.Parent {
				return Refuse(RuleOpaque, "ONLY")
			}
			at[r.Loc] = meaning{table: name}
			if g.refs[name] == nil {
				g.order = append(g.order, name)
			}
			g.refs[name] = append(g.refs[name], reference{r, t, a.db.Table(name), f, b})
		}
	}
	for _, q := range b.subs {
		if g.copiesWhole(q, b) {
			continue
		}
		if err := g.visit(newBlock(a, q, b)); err != nil {
			return err
		}
	}
	return nil
}

// build writes the plan. own says whether home's tables are copied as well.
func (g *gatherPlan) build(own bool) (*Gather, error) {
	out := &Gather{No: g.unfit(own)}
	whole := map[*sqlparse.Query]string{}
	for q, l := range g.parts {
		whole[q] = l.Name
	}
	for _, l := range g.listed {
		out.Loads = append(out.Loads, *l)
	}
	copies := map[shardmap.TableName]string{}
	for _, n := range g.order {
		refs := g.refs[n]
		sharded := refs[0].info != nil && refs[0].info.Kind == shardmap.Sharded
		if !sharded && !own {
			continue
		}
		l := Load{Table: n, Name: fmt.Sprintf("pgmosaic_gather_%d", len(out.Loads)+1), Home: !sharded, Read: !refs[0].table.Unlogged && refs[0].table.Kind != 'v'}
		l.Columns = g.columns(refs)
		l.Key = g.key(refs[0].table, l.Columns)
		var wanted [][]sqlparse.Cond
		for _, r := range refs {
			wanted = append(wanted, g.conds(r))
			if sharded {
				l.pins = append(l.pins, g.pinned(r))
			}
		}
		var names []string
		for _, c := range l.Columns {
			names = append(names, c.Name)
		}
		var err error
		if l.SQL, err = sqlparse.LoadSQL(sqlparse.TableRef{Schema: n.Schema, Name: n.Name}, names, wanted); err != nil {
			return nil, err
		}
		copies[n] = l.Name
		out.Loads = append(out.Loads, l)
	}
	var err error
	out.SQL, err = g.a.stmt.Copied(g.standIns(g.a.stmt, copies), whole)
	return out, err
}

// standIns says what stands in for each relation that a statement names.
func (g *gatherPlan) standIns(s *sqlparse.Statement, copies map[shardmap.TableName]string) map[int]sqlparse.StandIn {
	out := map[int]sqlparse.StandIn{}
	for loc, p := range g.meanings[s] {
		switch {
		case p.view != nil:
			out[loc] = sqlparse.StandIn{View: p.view, Inside: g.standIns(p.view, copies)}
		default:
			out[loc] = sqlparse.StandIn{Table: copies[p.table]}
		}
	}
	return out
}

// columns are those that the statement can reach, in the table's order; at least one.
func (g *gatherPlan) columns(refs []reference) []*schema.Column {
	t := refs[0].table
	all := g.all
	for _, r := range refs {
		name := r.rel.Name()
		all = all || r.level.Star || g.stars[name] || g.words[name] && !hasColumn(t, name) // the whole row
	}
	var out []*schema.Column
	for i := range t.Columns {
		if all || g.words[t.Columns[i].Name] {
			out = append(out, &t.Columns[i])
		}
	}
	if len(out) == 0 && len(t.Columns) > 0 {
		i := 0
		if info := refs[0].info; info != nil && info.Kind == shardmap.Sharded && len(info.Keys) > 0 {
			_, i = t.Column(info.Keys[0])
		}
		out = append(out, &t.Columns[max(i, 0)])
	}
	return out
}

func hasColumn(t *schema.Table, name string) bool {
	c, _ := t.Column(name)
	return c != nil
}

// key is the table's primary key, if the statement groups and the copy has all its columns.
func (g *gatherPlan) key(t *schema.Table, columns []*schema.Column) []string {
	if !g.groups {
		return nil
	}
	for _, k := range t.Primary {
		if !slices.ContainsFunc(columns, func(c *schema.Column) bool { return c.Name == k }) {
			return nil
		}
	}
	return t.Primary
}

// pinned is what is known of the key of the rows wanted at one place.
func (g *gatherPlan) pinned(r reference) pin {
	if g.vague {
		return pin{group: r.info.Group, columns: r.info.Keys, vals: make([][]sqlparse.Value, len(r.info.Keys))}
	}
	return r.block.pin(r.rel, r.info)
}

// conds are the conditions that rows must meet to matter at one place. A condition of WHERE says nothing of a table
// whose rows an outer join may replace by NULLs, and that of an outer join's ON only of a nullable side that is this table alone.
func (g *gatherPlan) conds(r reference) []sqlparse.Cond {
	if g.vague {
		return nil
	}
	var out []sqlparse.Cond
	for _, c := range r.level.Conds {
		switch {
		case !c.Plain || len(c.Cols) == 0:
		case c.Into == nil && r.rel.Nullable:
		case c.Into != nil && (len(c.Into) != 1 || c.Into[0] != r.rel):
		case g.ownOnly(r, r.level, c) && g.steady(c):
			out = append(out, c)
		}
	}
	if r.rel.Nullable {
		return out
	}
	for up, ok := r.block.above[r.level]; ok && !up.nullable; up, ok = r.block.above[up.level] { // a plain subquery's rows are the level's around it
		for _, c := range up.level.Conds {
			if c.Into == nil && c.Plain && len(c.Cols) > 0 && g.ownOnly(r, up.level, c) && g.steady(c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// ownOnly says whether a condition of a level names columns of this table alone, by their own names.
func (g *gatherPlan) ownOnly(r reference, level *sqlparse.Query, c sqlparse.Cond) bool {
	for _, col := range c.Cols {
		if col.Qual == "" && col.Name == r.rel.Name() { // a whole row
			return false
		}
		id, _, ok := r.block.resolve(level, col)
		if !ok || id.rel != r.rel || id.name != col.Name {
			return false
		}
	}
	return true
}

// steady says whether a condition gives the same answer wherever and whenever it is asked.
func (g *gatherPlan) steady(c sqlparse.Cond) bool {
	if len(g.a.attrs) > 0 && len(c.Attrs) > 0 {
		return false
	}
	for _, f := range c.Funcs {
		if g.a.isVolatile(f) || standbyFails[f] || f == "pg_backend_pid" {
			return false
		}
		for _, u := range g.a.sch.Funcs[f] {
			if !u.Immutable {
				return false
			}
		}
	}
	return true
}

// Shards are the shards that hold rows which a load wants, in order. Its error is that of Bind.
func (l *Load) Shards(t *Template, db *shardmap.DB, a *Args) ([]int, error) {
	if l.Home {
		return []int{t.DB.Home.Index}, nil
	}
	if l.Part != nil && l.Part.Own == "" {
		return t.shards(db, a, &Plan{})
	}
	hit := newHits(t.DB)
	for i := range l.pins {
		if err := t.eval(db, &l.pins[i], a, hit.add); err != nil {
			return nil, err
		}
	}
	return hit.list(), nil
}
