package router

import (
	"cmp"
	"slices"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

func isDefinition(k sqlparse.Kind) bool {
	switch k {
	case sqlparse.CreateTable, sqlparse.AlterTable, sqlparse.Drop, sqlparse.CreateIndex, sqlparse.Rename, sqlparse.CreateView,
		sqlparse.CreateTableAs, sqlparse.DDL, sqlparse.Routine:
		return true
	default:
		return false
	}
}

func (a *analysis) declaredObjects() []shardmap.TableName {
	var out []shardmap.TableName
	for _, o := range a.stmt.Def.Objects {
		if n, ok := a.env.resolve(a.db, a.sch, o); ok && a.info(n) != nil {
			out = append(out, n)
		}
	}
	return out
}

// mapped are those that the map names.
func (a *analysis) mapped(objects []shardmap.TableName) (out []shardmap.TableName) {
	for _, n := range objects {
		if t := a.db.Tables[n]; t != nil && !t.Part {
			out = append(out, n)
		}
	}
	return out
}

// placesOf are the shards that have tables, where these are home, with an empty copy that describes them, and those of the
// schemas which live on one shard. Nil: all.
func (a *analysis) placesOf(objects []shardmap.TableName) []int {
	hit := newHits(a.db)
	hit.add(a.db.Home.Index)
	for _, o := range objects {
		g := a.db.Tenant(o.Schema)
		if g == nil || a.db.Tables[o] != nil {
			return nil
		}
		hit.add(a.db.Placement(g).Shards()[0])
	}
	if len(objects) == 0 {
		return nil
	}
	return hit.list()
}

// keepsForeign says whether each shard can keep a foreign key by itself: what is referred to is everywhere, or on the
// row's own shard, by its whole key.
func (a *analysis) keepsForeign(from *shardmap.TableInfo, f *sqlparse.ForeignKey) bool {
	n, ok := a.env.resolve(a.db, a.sch, f.Table)
	if !ok {
		return false
	}
	to := a.db.Table(n)
	switch {
	case to == nil:
		return false
	case to.Kind == shardmap.Reference:
		return true
	case from.Kind == shardmap.Reference || to.Group != from.Group:
		return false
	}
	refs := f.Refs
	if len(refs) == 0 && a.sch.Tables[n] != nil {
		refs = a.sch.Tables[n].Primary
	}
	for i, k := range from.Keys {
		at := slices.Index(f.Columns, k)
		if at < 0 || at >= len(refs) || refs[at] != to.Keys[i] {
			return false
		}
	}
	return true
}

// enforceable says whether each shard can enforce by itself the uniqueness that a definition asks for: its columns hold the
// table's sharding key, or every shard has all the rows.
func (a *analysis) enforceable(info *shardmap.TableInfo) bool {
	for _, key := range a.stmt.Def.Keys {
		if slices.ContainsFunc(info.Keys, func(k string) bool { return !contains(key, k) }) {
			return false
		}
	}
	return true
}

// shared plans the definition of what is no relation: home first, then every shard, so that tables find there what they
// need whenever they are distributed. ok is false for other statements.
func (a *analysis) shared() (ok bool) {
	s := a.stmt
	d := &s.Def
	if d.Scope == sqlparse.OnCluster {
		a.t.Class, a.t.Ref, a.t.Home, a.t.Shared, a.t.Cluster = Write, true, false, true, true
		return true
	}
	if d.Scope != sqlparse.OnDatabase || a.t.Temp {
		return false
	}
	for _, list := range [][]sqlparse.TableRef{s.Tables, d.Types} { // what hangs on home's tables is home's
		for _, ref := range list {
			n, found := a.env.resolve(a.db, a.sch, ref)
			if found && (a.info(n) == nil || a.db.Tenant(n.Schema) != nil) {
				return false
			}
		}
	}
	if schema := d.Schemas; len(schema) > 0 && slices.ContainsFunc(schema, a.distributedIn) {
		return false
	}
	a.t.Class, a.t.Ref, a.t.Home, a.t.Shared = Write, true, false, true
	return true
}

// wholeDatabase plans what is for all tables: each shard has its own to look after. What would drop home's part of a
// distributed table is refused.
func (a *analysis) wholeDatabase() error {
	d := &a.stmt.Def
	switch {
	case a.stmt.Kind == sqlparse.Vacuum && len(d.Objects) == 0:
		a.t.Class, a.t.Ref, a.t.Home, a.t.NoTx = Write, true, false, d.NoTx
	case d.Owned && !a.db.Plain():
		return Refuse(RuleDdl, "DROP OWNED")
	}
	return nil
}

// indexed plans the change of indexes of declared tables: wherever these are. ok is false for other statements.
func (a *analysis) indexed() (ok bool, err error) {
	d := &a.stmt.Def
	if d.Scope != sqlparse.OnIndex {
		return false, nil
	}
	var tables []shardmap.TableName
	for _, o := range d.Objects {
		if t, ok := a.env.index(a.sch, o); ok && a.db.Table(t) != nil {
			tables = append(tables, t)
		}
	}
	switch {
	case len(tables) == 0:
		return false, nil
	case len(tables) < len(d.Objects) && !d.IfExists:
		return true, Refuse(RuleMixedObjects)
	case d.Unsafe != "":
		return true, Refuse(RuleDdl, "ALTER INDEX ... "+d.Unsafe)
	}
	a.t.Class, a.t.Ref, a.t.Home, a.t.Shared, a.t.NoTx, a.t.refShards = Write, true, false, true, d.NoTx, a.placesOf(tables)
	return true, nil
}

// index finds the table of an index.
func (e Env) index(sch *schema.Snapshot, ref sqlparse.TableRef) (shardmap.TableName, bool) {
	path := e.SearchPath
	if ref.Schema != "" {
		path = []string{ref.Schema}
	}
	for _, s := range path {
		if s == "$user" {
			s = e.Role
		}
		if t, ok := sch.Indexes[shardmap.TableName{Schema: s, Name: ref.Name}]; ok && (ref.Schema != "" || !sch.Barred(s, e.Role)) {
			return t, true
		}
	}
	return shardmap.TableName{}, false
}

// definition plans DDL and maintenance of declared tables: every shard, home first.
func (a *analysis) definition() error {
	s := a.stmt
	objects := a.declaredObjects()
	everywhere := func() error {
		if len(objects) != len(s.Def.Objects) || len(a.home) > 0 {
			if s.Kind != sqlparse.Vacuum || len(s.Def.Objects) > 0 {
				return Refuse(RuleMixedObjects)
			}
		}
		a.t.Class, a.t.Ref, a.t.Home, a.t.NoTx, a.t.refShards = Write, true, false, s.Def.NoTx, a.placesOf(objects)
		return nil
	}
	switch s.Kind {
	case sqlparse.Truncate:
		if s.Def.Cascade {
			return Refuse(RuleDdl, "TRUNCATE ... CASCADE")
		}
		return everywhere()
	case sqlparse.Vacuum, sqlparse.Lock:
		return everywhere()
	case sqlparse.Drop:
		return a.dropped(objects, everywhere)
	case sqlparse.AlterTable, sqlparse.Rename:
		return a.altered(objects, everywhere)
	case sqlparse.CreateView: // it is home's, and its query takes its place wherever it is named
		a.t.Home = true
		return nil
	case sqlparse.CreateIndex:
		if s.Def.Unique && slices.ContainsFunc(objects, func(o shardmap.TableName) bool { return !a.enforceable(a.db.Table(o)) }) {
			return Refuse(RuleDdl, "CREATE UNIQUE INDEX without the key")
		}
		return everywhere()
	case sqlparse.CreateTable:
		return a.created(objects, everywhere)
	case sqlparse.CreateTableAs:
		return a.madeAs(objects)
	case sqlparse.DDL:
		if s.Def.Scope == sqlparse.OnTable {
			return everywhere()
		}
		if len(s.Def.Objects) == 0 && s.Name == "" && isGrant(s.Text) {
			a.t.Class, a.t.Ref, a.t.Home = Write, true, false
			a.granted()
			return nil
		}
	default: // no definition
	}
	return Refuse(RuleDdl, "this statement")
}

// granted gives each shard the part of a GRANT or REVOKE that is about the tables which it has: home has all.
func (a *analysis) granted() {
	var shards []int
	apart := map[int]string{}
	for i := range a.db.Shards {
		text, some, ok := a.stmt.GrantedOn(func(ref sqlparse.TableRef) bool {
			n, found := a.env.resolve(a.db, a.sch, ref)
			if i == a.db.Home.Index {
				return true
			}
			places := a.placesOf([]shardmap.TableName{n})
			return found && a.info(n) != nil && (places == nil || slices.Contains(places, i))
		})
		switch {
		case !ok:
			return
		case some:
			shards, apart[i] = append(shards, i), text
		}
	}
	a.t.refShards, a.t.Apart = shards, apart
}

// partition plans CREATE TABLE .. PARTITION OF a declared table: every shard has it. One with an index or column of its own could
// break what the key is for, and what inherits otherwise has rows that the map knows nothing of.
func (a *analysis) partition() error {
	d := &a.stmt.Def
	of := append(append([]shardmap.TableName(nil), a.sharded...), a.reference...)
	switch {
	case !d.Partition || a.t.Temp || len(of) != 1 || len(a.home) > 0 || a.db.Tables[of[0]] == nil:
		return Refuse(RuleDdl, "a partition with columns or constraints of its own, or a child,")
	case a.db.Tenant(d.Objects[0].Schema) != nil:
		return Refuse(RuleDdl, "a partition in a schema that lives on one shard")
	}
	a.t.Class, a.t.Ref, a.t.Home = Write, true, false
	if a.db.Tables[of[0]].Kind == shardmap.Reference {
		a.t.Then = shardmap.CopyTrigger(d.Objects[0].SQL())
	}
	return nil
}

// dropped plans DROP of declared tables, or of what hangs on them.
func (a *analysis) dropped(objects []shardmap.TableName, everywhere func() error) error {
	d := &a.stmt.Def
	switch {
	case d.Scope == sqlparse.OnTable:
		return everywhere()
	case !d.TableDrop:
		return Refuse(RuleDdl, "DROP of this object")
	case len(d.Objects) != len(objects) && (!d.IfExists || len(a.home) > 0): // DROP TABLE IF EXISTS a, b with some that do not exist or are home's
		return Refuse(RuleMixedObjects)
	}
	a.t.Class, a.t.Ref, a.t.Home, a.t.Drops, a.t.refShards = Write, true, false, a.mapped(objects), a.placesOf(objects)
	return lastDrawn(a, objects)
}

// altered plans ALTER TABLE and RENAME.
func (a *analysis) altered(objects []shardmap.TableName, everywhere func() error) error {
	s := a.stmt
	d := &s.Def
	if len(objects) == 0 { // a home table, which names a declared one
		for i := range d.Foreign {
			if !a.homeKeeps(&d.Foreign[i]) {
				return Refuse(RuleForeignKey)
			}
		}
		if len(d.Foreign) == 0 {
			return Refuse(RuleDdl, "this statement")
		}
		return nil
	}
	info := a.db.Table(objects[0])
	switch {
	case d.Renamed != sqlparse.Renaming{} && d.Unsafe == "":
		return a.renamed(objects[0], info, everywhere)
	case s.Kind == sqlparse.Rename && d.Scope != sqlparse.OnTable:
		return Refuse(RuleDdl, "RENAME")
	case d.Unsafe != "":
		return Refuse(RuleDdl, "ALTER TABLE ... "+d.Unsafe)
	case info.Kind == shardmap.Reference && a.fillsApart():
		return Refuse(RuleReferenceFill, info.TableName)
	case slices.ContainsFunc(d.Foreign, func(f sqlparse.ForeignKey) bool { return !a.keepsForeign(info, &f) }):
		return Refuse(RuleForeignKey)
	case d.Unique && !a.enforceable(info):
		return Refuse(RuleDdl, "ALTER TABLE ... ADD CONSTRAINT without the key")
	}
	if i := slices.IndexFunc(info.Keys, func(k string) bool { return contains(d.Columns, k) }); i >= 0 {
		return Refuse(RuleKeyColumn, info.Keys[i])
	}
	return cmp.Or(lastDrawn(a, objects), everywhere())
}

// fillsApart says whether ALTER TABLE fills a column with values that each copy makes up for itself.
func (a *analysis) fillsApart() bool {
	d := &a.stmt.Def
	return slices.ContainsFunc(d.Fills, func(f string) bool { return f == sqlparse.Moment || a.constancy(f) != sqlparse.Constant }) ||
		slices.ContainsFunc(a.stmt.Ops, func(op string) bool { return a.constancy(op) != sqlparse.Constant }) ||
		slices.ContainsFunc(a.stmt.TypeNames, func(t string) bool { return a.sch.Varying[t] })
}

// renamed plans RENAME and SET SCHEMA of a declared table, and RENAME of its columns.
func (a *analysis) renamed(n shardmap.TableName, info *shardmap.TableInfo, everywhere func() error) error {
	switch schema := a.stmt.Def.Renamed.Schema; {
	case schema == "pgmosaic":
		return Refuse(RulePrivateSchema)
	case schema != "" && schema != n.Schema && (a.db.Tables[n] == nil || a.db.Tenant(schema) != nil):
		return Refuse(RuleDdl, "SET SCHEMA to or from a schema that lives on one shard")
	case a.db.Tables[n] != nil && !info.Part: // else the map does not name it
		a.t.Renamed = renamedTo(&a.stmt.Def.Renamed, n, info)
	}
	return everywhere()
}

// intoSchema is an error if a statement puts a home table into a schema whose rows are looked for on another shard.
func intoSchema(db *shardmap.DB, s *sqlparse.Statement, home []shardmap.TableName) error {
	if len(home) > 0 && db.Tenant(s.Def.Renamed.Schema) != nil {
		return Refuse(RuleDdl, "SET SCHEMA to or from a schema that lives on one shard")
	}
	return nil
}

// drawnFrom is an error if a statement changes home's sequence of a column that draws on other shards: it counts in home's place, as each shard's does in
// its own, or is at its end. That of a key is home's alone.
func drawnFrom(a *analysis) error {
	s := a.stmt
	if s.Def.Unsafe != sqlparse.AlterSequence && s.Kind != sqlparse.Rename && s.Kind != sqlparse.Drop {
		return nil
	}
	if n, ok := a.env.resolve(a.db, a.sch, sqlparse.OwnedBy(s)); ok && a.db.Tenant(n.Schema) != nil && a.db.Placement(a.db.Tenant(n.Schema)).Shards()[0] != a.db.Home.Index {
		return Refuse(RuleDdl, "OWNED BY, which would tie a sequence of home to table "+n.String()+" of another shard,")
	}
	for _, n := range a.home {
		seq := a.sch.Tables[n]
		if seq == nil || seq.Kind != 'S' {
			continue
		}
		if e := drawsElsewhere(a, seq); e != nil {
			return Refuse(RuleDdl, "a change of sequence "+n.String()+", from which column "+e.Column+" of "+e.String()+" draws on each shard,")
		}
	}
	return nil
}

// renamedTo is what a table is called from now on; nil if that is nothing new to the map.
func renamedTo(d *sqlparse.Renaming, n shardmap.TableName, info *shardmap.TableInfo) *Renamed {
	r := &Renamed{From: n, To: n, Keys: slices.Clone(info.Keys)}
	if d.Table != "" {
		r.To.Name = d.Table
	}
	if d.Schema != "" {
		r.To.Schema = d.Schema
	}
	if i := slices.Index(r.Keys, d.Column); i >= 0 {
		r.Keys[i] = d.NewColumn
	}
	if r.To == n && slices.Equal(r.Keys, info.Keys) {
		return nil
	}
	return r
}

// madeAs plans CREATE TABLE AS: a table of home's, which is made empty and then filled with rows that are made as those of an
// INSERT .. SELECT are.
func (a *analysis) madeAs(objects []shardmap.TableName) error {
	d := &a.stmt.Def
	refuse := Refuse(RuleSelectInto, "CREATE TABLE AS")
	switch {
	case d.View:
		return Refuse(RuleDdl, "CREATE MATERIALIZED VIEW, as it reads one,")
	case len(objects) > 0:
		return refuse
	case len(a.sharded) == 0 || d.NoData: // home has all that it reads
		return nil
	case a.views.used || a.stmt.Params > 0 || len(d.Objects) != 1:
		return refuse
	}
	name := d.Objects[0]
	if _, there := a.env.resolve(a.db, a.sch, name); there || a.env.Temp.Table(name.Name) != nil {
		return nil // home will say so
	}
	head, source, ok := sqlparse.MadeAs(a.stmt.Text)
	stmts, err := sqlparse.Parse(source)
	if !ok || err != nil || len(stmts) != 1 || stmts[0].Kind != sqlparse.Select {
		return refuse
	}
	src := &analysis{stmt: stmts[0], db: a.db, sch: a.sch, env: a.env, t: &Template{Stmt: stmts[0], DB: a.db, Schema: a.sch}}
	if src.names() != nil || src.views.used {
		return refuse
	}
	src.t.Tables = a.t.Tables
	g, why := src.gather(newBlock(src, stmts[0].Query, nil), refuse)
	if why != nil {
		return why
	}
	table := name.SQL()
	if a.t.Temp {
		table = "pg_temp." + pgsql.Ident(name.Name)
	}
	a.moved = &Template{
		Gather: g, Target: a.db.HomeTable(shardmap.TableName{Schema: name.Schema, Name: name.Name}), Source: source, refShards: []int{a.db.Home.Index},
		Made: &Made{SQL: head + " " + source + "\nWITH NO DATA", Table: table},
	}
	a.useMoved()
	return nil
}

// homeKeeps says whether home can keep a foreign key of a home table: it has all the rows that are referred to.
func (a *analysis) homeKeeps(f *sqlparse.ForeignKey) bool {
	n, ok := a.env.resolve(a.db, a.sch, f.Table)
	if !ok {
		return true // home will say so
	}
	to := a.db.Table(n)
	return to == nil || to.Kind == shardmap.Reference
}

// created plans CREATE TABLE: of a name that is declared, or of a home table that names declared ones.
func (a *analysis) created(objects []shardmap.TableName, everywhere func() error) error {
	d := &a.stmt.Def
	if len(objects) == 0 {
		for i := range d.Foreign {
			if !a.homeKeeps(&d.Foreign[i]) {
				return Refuse(RuleForeignKey)
			}
		}
		if d.Parent {
			return a.partition()
		}
		if a.likesPlaced() {
			a.t.Class, a.t.Ref, a.t.Home, a.t.Then, a.t.refShards = Write, true, false, unplaced(d.Objects[0]), []int{a.db.Home.Index}
		}
		return nil
	}
	if a.sch.Tables[objects[0]] != nil {
		a.t.Home = true // home will say that it exists
		return nil
	}
	if a.db.Tenant(objects[0].Schema) != nil && !d.Parent {
		if d.Serial || likesIdentity(a) && a.db.Placement(a.db.Tenant(objects[0].Schema)).Shards()[0] != a.db.Home.Index { // home's would not be at its end
			return Refuse(RuleDdl, "a column that draws from a sequence")
		}
		if a.likesPlaced() {
			a.t.Then = unplaced(d.Objects[0])
		}
		return everywhere()
	}
	return Refuse(RuleDdl, "this statement")
}

// likesPlaced says whether CREATE TABLE (LIKE ..) would take along the constraint that keeps a table's rows on their shard.
func (a *analysis) likesPlaced() bool {
	return slices.ContainsFunc(a.stmt.Def.Like, func(ref sqlparse.TableRef) bool {
		n, ok := a.env.resolve(a.db, a.sch, ref)
		return ok && (a.sch.Tables[n] != nil && a.sch.Tables[n].Placed || a.db.Table(n) != nil && a.db.Table(n).Kind == shardmap.Sharded)
	})
}

// likesIdentity says whether CREATE TABLE (LIKE ..) may take an identity along.
func likesIdentity(a *analysis) bool {
	return slices.ContainsFunc(a.stmt.Def.Like, func(ref sqlparse.TableRef) bool {
		n, ok := a.env.resolve(a.db, a.sch, ref)
		return ok && a.sch.Tables[n] != nil && slices.ContainsFunc(a.sch.Tables[n].Columns, func(c schema.Column) bool { return c.Identity })
	})
}

// unplaced takes from a table that was just made the constraint that another one's rows are kept on their shard by.
func unplaced(name sqlparse.TableRef) string {
	return "ALTER TABLE " + name.SQL() + " DROP CONSTRAINT IF EXISTS pgmosaic_slot"
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
