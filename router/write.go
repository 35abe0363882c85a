package router

import (
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// insert finds the key of each row of an INSERT into a sharded table.
func (a *analysis) insert(q *sqlparse.Query) error {
	info := a.declared(q.Target)
	if info == nil || info.Kind != shardmap.Sharded {
		if info != nil {
			return Refuse("reference-write", info.TableName)
		}
		return nil
	}
	a.t.Target, a.t.insert = info, true
	t := a.sch.Tables[info.TableName]
	if t == nil {
		return nil // the server will say that it is gone
	}
	pos := -1
	if q.Columns == nil {
		_, pos = t.Column(info.Key)
	}
	for i, c := range q.Columns {
		if c == info.Key {
			pos = i
		}
	}
	if q.Conflict && len(q.ConfCols) > 0 && !contains(q.ConfCols, info.Key) {
		return Refuse("conflict-target", info.Key)
	}
	if q.Source != nil {
		return a.insertSelect(q, info, pos)
	}
	if pos < 0 || len(q.Rows) == 0 {
		return Refuse("insert-key", info.Key)
	}
	for _, row := range q.Rows {
		if pos >= len(row) || row[pos].Kind == sqlparse.ValNull || row[pos].Kind == sqlparse.ValDefault {
			return Refuse("insert-key", info.Key)
		}
		v := row[pos]
		if v.Kind == sqlparse.ValOther || !keyFits(info.Group.KeyType, v) {
			return Refuse("insert-key-expression", info.Key)
		}
		a.t.rows = append(a.t.rows, v)
	}
	a.t.KeyCol = pos
	a.t.pins = append(a.t.pins, pin{group: info.Group, column: info.Key, vals: a.t.rows})
	return nil
}

// insertSelect ties the inserted key when the SELECT list gives it as a constant; the pins of the source
// must then agree.
func (a *analysis) insertSelect(q *sqlparse.Query, info *shardmap.TableInfo, pos int) error {
	src := q.Source
	if pos < 0 {
		return Refuse("insert-key", info.Key)
	}
	if src.SetOp || len(src.Rows) > 0 || pos >= len(src.Targets) {
		return Refuse("insert-select", info.TableName)
	}
	for i := 0; i <= pos; i++ {
		if src.Targets[i].Expr.Star {
			return Refuse("insert-select", info.TableName)
		}
	}
	e := src.Targets[pos].Expr
	if e.Col == nil {
		return Refuse("insert-select", info.TableName)
	}
	b := newBlock(a, src, nil)
	id, _, ok := b.resolve(src, *e.Col)
	if !ok {
		return Refuse("insert-select", info.TableName)
	}
	vals := best(b.class(id).pins)
	if vals == nil {
		return Refuse("insert-select", info.TableName)
	}
	a.t.pins = append(a.t.pins, pin{group: info.Group, column: info.Key, vals: vals})
	a.t.insert = false
	return nil
}

// splitInsert says why an INSERT may not be split over shards; nil means that it may.
func (a *analysis) splitInsert(q *sqlparse.Query) *Error {
	switch {
	case q.Source != nil:
		return Refuse("insert-select", a.t.Target.TableName)
	case len(q.CTEs) > 0 || len(q.Subs) > 0:
		return Refuse("insert-split", "a subquery or CTE cannot be split")
	}
	if f, ok := a.firstVolatile(); ok {
		return Refuse("volatile", f)
	}
	if len(q.Rows) > 1 {
		spans, ok := sqlparse.ValuesRows(a.stmt.Text)
		if !ok || len(spans) != len(q.Rows) {
			return Refuse("insert-split", "the VALUES list could not be taken apart")
		}
	}
	a.t.Class = Split
	return nil
}

// wideWrite plans UPDATE and DELETE over several shards, and says why not.
func (a *analysis) wideWrite(b *block) *Error {
	q := b.query
	if len(b.rels) > 1 || len(b.subs) > 0 || len(b.flat) > 1 || len(q.Rels) > 1 {
		return Refuse("write-join", q.Target.Table.Name)
	}
	info := a.declared(q.Target)
	for _, s := range q.Sets {
		if s.Column == info.Key {
			return Refuse("key-change", info.Key)
		}
	}
	if f, ok := a.firstVolatile(); ok {
		return Refuse("volatile", f)
	}
	if c, ok := systemColumn(q); ok {
		return Refuse("system-column", c)
	}
	a.t.Class, a.t.Target = Write, info
	return nil
}

// referenceWrite plans a write of every copy of a reference table.
func (a *analysis) referenceWrite(q *sqlparse.Query) error {
	info := a.declared(q.Target)
	refuse := Refuse("reference-write", info.TableName)
	if len(q.Rels) > 1 || len(q.Subs) > 0 || len(q.CTEs) > 0 || q.Source != nil || q.Opaque != "" {
		return refuse
	}
	if _, ok := a.firstVolatile(); ok || len(a.home) > 0 {
		return refuse
	}
	t := a.sch.Tables[info.TableName]
	if t == nil {
		return nil
	}
	if len(t.Triggers) > 0 || t.Rules {
		return refuse
	}
	if q.Cmd == sqlparse.Insert {
		for i := range t.Columns {
			c := &t.Columns[i]
			given := q.Columns == nil && len(q.Rows) > 0 && i < len(q.Rows[0]) || contains(q.Columns, c.Name)
			if !given && c.Volatile {
				return Refuse("reference-write", info.TableName.String()+" (column "+c.Name+" has a default that differs with each call)")
			}
		}
		for _, row := range q.Rows {
			for _, v := range row {
				if v.Kind == sqlparse.ValDefault {
					return refuse
				}
			}
		}
	}
	if _, ok := systemColumn(q); ok || a.stmt.Clock {
		return refuse
	}
	for _, s := range q.Sets {
		if s.Value.Kind == sqlparse.ValDefault {
			return refuse
		}
	}
	a.t.Class, a.t.Target, a.t.Ref, a.t.Home = Write, info, true, false
	return nil
}

// copy plans COPY of a declared table.
func (a *analysis) copy() error {
	c := a.stmt.Copy
	if !c.Stdio {
		return Refuse("copy", "a file on the server")
	}
	if c.Table == nil { // COPY (query) TO
		return a.query()
	}
	n, _ := a.env.resolve(a.db, a.sch, *c.Table)
	info := a.db.Tables[n]
	if info.Kind == shardmap.Reference && !c.From {
		return nil // home's copy
	}
	if !c.From {
		if info.Kind == shardmap.Sharded && !plainCopyOut(c) {
			return Refuse("copy", "a sharded table TO STDOUT in this format")
		}
		a.t.Class, a.t.Target, a.t.Home = Copy, info, false
		return nil
	}
	if !c.Plain || c.Options["format"] != "" && c.Options["format"] != "text" && c.Options["format"] != "csv" {
		return Refuse("copy", "a distributed table in this format")
	}
	for o := range c.Options {
		switch o {
		case "format", "delimiter", "null", "header", "quote", "escape", "freeze":
		default:
			return Refuse("copy", "a distributed table with option "+o)
		}
	}
	if h := c.Options["header"]; h != "" && h != "true" && h != "false" {
		return Refuse("copy", "a distributed table with HEADER MATCH")
	}
	t := a.sch.Tables[n]
	if t == nil {
		return nil
	}
	if len(t.Triggers) > 0 && info.Kind == shardmap.Reference {
		return Refuse("reference-write", n)
	}
	names := c.Columns
	if names == nil {
		for _, col := range t.Columns {
			if !col.Generated {
				names = append(names, col.Name)
			}
		}
	}
	a.t.KeyCol = -1
	for i, name := range names {
		if name == info.Key {
			a.t.KeyCol = i
		}
	}
	if info.Kind == shardmap.Sharded && a.t.KeyCol < 0 {
		return Refuse("insert-key", info.Key)
	}
	if info.Kind == shardmap.Reference {
		for i := range t.Columns {
			if col := &t.Columns[i]; col.Volatile && !contains(names, col.Name) {
				return Refuse("reference-write", n)
			}
		}
	}
	a.t.Class, a.t.Target, a.t.Ref, a.t.Home, a.t.Names = Copy, info, info.Kind == shardmap.Reference, false, names
	return nil
}

func plainCopyOut(c sqlparse.CopyInfo) bool {
	if f := c.Options["format"]; f != "" && f != "text" && f != "csv" {
		return false
	}
	h := c.Options["header"]
	return c.Plain && (h == "" || h == "false")
}

func isDefinition(k sqlparse.Kind) bool {
	switch k {
	case sqlparse.CreateTable, sqlparse.AlterTable, sqlparse.Drop, sqlparse.CreateIndex, sqlparse.Rename, sqlparse.CreateView,
		sqlparse.CreateTableAs, sqlparse.DDL, sqlparse.Routine:
		return true
	}
	return false
}

func (a *analysis) declaredObjects() []shardmap.TableName {
	var out []shardmap.TableName
	for _, o := range a.stmt.Def.Objects {
		if n, ok := a.env.resolve(a.db, a.sch, o); ok && a.db.Tables[n] != nil {
			out = append(out, n)
		}
	}
	return out
}

// definition plans DDL and maintenance of declared tables: every shard, home first.
func (a *analysis) definition() error {
	s := a.stmt
	objects := a.declaredObjects()
	everywhere := func() error {
		if len(objects) != len(s.Def.Objects) || len(a.home) > 0 {
			if s.Kind != sqlparse.Vacuum || len(s.Def.Objects) > 0 {
				return Refuse("mixed-objects")
			}
		}
		a.t.Class, a.t.Ref, a.t.Home, a.t.NoTx = Write, true, false, s.Def.NoTx
		return nil
	}
	switch s.Kind {
	case sqlparse.Truncate:
		if s.Def.Cascade {
			return Refuse("ddl", "TRUNCATE ... CASCADE")
		}
		return everywhere()
	case sqlparse.Vacuum, sqlparse.Lock:
		return everywhere()
	case sqlparse.Drop:
		if !s.Def.TableDrop {
			return Refuse("ddl", "DROP of this object")
		}
		if len(s.Def.Objects) != len(objects) {
			// DROP TABLE IF EXISTS a, b with some that do not exist or are home's.
			if !s.Def.IfExists || len(a.home) > 0 {
				return Refuse("mixed-objects")
			}
		}
		a.t.Class, a.t.Ref, a.t.Home, a.t.Drops = Write, true, false, objects
		return nil
	case sqlparse.AlterTable:
		info := a.db.Tables[objects[0]]
		if s.Def.AlterUnsafe == "ADD CONSTRAINT" && contains(s.Def.Columns, "+"+info.Key) && info.Kind == shardmap.Sharded {
			return everywhere() // a key that holds the sharding key
		}
		if s.Def.AlterUnsafe != "" && !(info.Kind == shardmap.Reference && s.Def.AlterUnsafe == "ADD CONSTRAINT" && len(s.Def.Columns) > 0) {
			return Refuse("ddl", "ALTER TABLE ... "+s.Def.AlterUnsafe)
		}
		if info.Key != "" && contains(s.Def.Columns, info.Key) {
			return Refuse("key-column", info.Key)
		}
		return everywhere()
	case sqlparse.CreateView: // it is home's, and its query takes its place wherever it is named
		a.t.Home = true
		return nil
	case sqlparse.CreateIndex:
		if s.Def.Unique {
			return Refuse("ddl", "CREATE UNIQUE INDEX")
		}
		return everywhere()
	case sqlparse.CreateTable:
		if len(objects) == 1 && a.sch.Tables[objects[0]] != nil {
			a.t.Home = true // home will say that it exists
			return nil
		}
	case sqlparse.DDL:
		if len(s.Def.Objects) == 0 && s.Name == "" {
			a.t.Class, a.t.Ref, a.t.Home = Write, true, false
			if isGrant(s.Text) {
				return nil
			}
		}
	}
	return Refuse("ddl", "this statement")
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
