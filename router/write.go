package router

import (
	"cmp"
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// insert finds the key of each row of an INSERT into a sharded table. Into another table rows of sharded ones are moved.
func (a *analysis) insert(q *sqlparse.Query) error {
	info := a.declared(q.Target)
	if info == nil || info.Kind != shardmap.Sharded {
		if q.Source != nil && a.movesInto(q, info) || info == nil {
			return nil
		}
		return Refuse(RuleReferenceWrite, info.TableName)
	}
	a.t.Target = info
	t := a.sch.Tables[info.TableName]
	if t == nil {
		return nil // the server will say that it is gone
	}
	pos, err := a.keyPositions(q, info, t)
	if err != nil {
		return err
	}
	if q.Source != nil {
		return a.insertSelect(q, info, pos)
	}
	if len(q.Rows) == 0 && len(pos) > 0 {
		return Refuse(RuleInsertKey, info.Keys[0])
	}
	return a.insertRows(q, info, t, pos)
}

// keyPositions are the places of the key's columns among those that an INSERT fills; -1 where it leaves one out.
func (a *analysis) keyPositions(q *sqlparse.Query, info *shardmap.TableInfo, t *schema.Table) ([]int, error) {
	pos := make([]int, len(info.Keys))
	for i, k := range info.Keys {
		if q.Columns == nil {
			_, pos[i] = t.Column(k)
		} else {
			pos[i] = slices.Index(q.Columns, k)
		}
		if q.Conflict && len(q.ConfCols) > 0 && !contains(q.ConfCols, k) {
			return nil, Refuse(RuleConflictTarget, k)
		}
	}
	return pos, nil
}

// insertRows ties the statement to the shards of the rows of VALUES.
func (a *analysis) insertRows(q *sqlparse.Query, info *shardmap.TableInfo, t *schema.Table, pos []int) error {
	held := heldBy(t, info)
	for _, row := range q.Rows {
		p := pin{group: info.Group, columns: info.Keys, pinRole: inserts, vals: make([][]sqlparse.Value, len(pos)), held: held}
		for i, at := range pos {
			if at < 0 || at < len(row) && row[at].Kind == sqlparse.ValDefault {
				if !a.draws(t, info.Keys[i], at, q) {
					return Refuse(RuleInsertKey, info.Keys[i])
				}
				continue
			}
			if at >= len(row) || row[at].Kind == sqlparse.ValNull {
				return Refuse(RuleInsertKey, info.Keys[i])
			}
			if row[at].Kind == sqlparse.ValOther || !keyFits(info.Group.Keys[i], row[at]) {
				return Refuse(RuleInsertKeyExpression, info.Keys[i])
			}
			p.vals[i] = []sqlparse.Value{row[at]}
		}
		a.t.pins = append(a.t.pins, p)
	}
	if len(q.Rows) == 0 { // DEFAULT VALUES, into a schema that lives on one shard
		a.t.pins = append(a.t.pins, pin{group: info.Group, pinRole: inserts})
	}
	return nil
}

// draws notes that a row's key column is left to its sequence. ok is false where that cannot be done for it.
func (a *analysis) draws(t *schema.Table, key string, at int, q *sqlparse.Query) (ok bool) {
	col, _ := t.Column(key)
	kt, known := keyType(col)
	if col.Sequence == "" && col.Default != NextID || !known || !kt.IsInteger() || q.Columns == nil && at < 0 {
		return false
	}
	if a.t.Draw == nil {
		a.t.Draw = &Draw{Sequence: col.Sequence, Column: key, At: at}
	}
	a.t.Draw.Rows++
	return a.t.Draw.Column == key // of one column
}

// insertSelect ties the inserted key when the SELECT list gives it as a constant; the pins of the source
// must then agree.
func (a *analysis) insertSelect(q *sqlparse.Query, info *shardmap.TableInfo, pos []int) error {
	src := q.Source
	if b := a.perShard(src); b != nil && a.feeds(b, info, pos) && !behindRows(a, q.Target, q.Subs, true) {
		a.colocated = true // the source's own keys say on which shards
		return nil
	}
	p, err := a.constantKey(q, info, pos)
	if err == nil {
		a.t.pins = append(a.t.pins, p)
		return nil
	}
	if a.moves(q, info, pos) {
		return nil
	}
	return err
}

// constantKey ties the inserted key to what the SELECT gives it.
func (a *analysis) constantKey(q *sqlparse.Query, info *shardmap.TableInfo, pos []int) (pin, error) {
	src := q.Source
	refuse := Refuse(RuleInsertSelect, info.TableName)
	p := pin{group: info.Group, columns: info.Keys, vals: make([][]sqlparse.Value, len(pos)), held: heldBy(a.sch.Tables[info.TableName], info)}
	b := newBlock(a, src, nil)
	for i, at := range pos {
		if at < 0 {
			return p, Refuse(RuleInsertKey, info.Keys[i])
		}
		if p.vals[i] = a.handed(q, at); p.vals[i] != nil {
			continue
		}
		if src.SetOp || len(src.Rows) > 0 || at >= len(src.Targets) || a.starBefore(src, at+1) || src.Targets[at].Expr.Col == nil {
			return p, refuse
		}
		id, _, ok := b.resolve(src, *src.Targets[at].Expr.Col)
		if !ok {
			return p, refuse
		}
		if p.vals[i] = best(b.class(id).pins); p.vals[i] == nil {
			return p, refuse
		}
	}
	return p, nil
}

// moves says whether the rows of an INSERT ... SELECT can be made on home and sent to their shards. It notes that they are,
// unless it turns out that all is on one shard.
func (a *analysis) moves(q *sqlparse.Query, info *shardmap.TableInfo, pos []int) bool {
	t := a.sch.Tables[info.TableName]
	if len(q.CTEs) > 0 || slices.ContainsFunc(q.Sets, func(s sqlparse.Assign) bool { return info.IsKey(s.Column) }) || a.views.used || a.stmt.Kind != sqlparse.Insert || slices.Contains(pos, -1) || t.Rules || t.RowRules ||
		info.Kind != shardmap.Home && slices.ContainsFunc(a.touched, func(x *touched) bool { return len(x.fires()) > 0 }) {
		return false
	}
	text, tail, ok := sqlparse.SourceOf(a.stmt.Text)
	if !ok || sqlparse.HasParam(tail) || behindRows(a, q.Target, q.Subs, info.Kind != shardmap.Home) { // a statement of our own has parameters of its own
		return false
	}
	if info.Kind == shardmap.Reference && tail != "" {
		return false
	}
	stmts, err := sqlparse.Parse(text)
	if err != nil || len(stmts) != 1 || stmts[0].Kind != sqlparse.Select {
		return false
	}
	src := &analysis{stmt: stmts[0], db: a.db, sch: a.sch, env: a.env, t: &Template{Stmt: stmts[0], DB: a.db, Schema: a.sch}}
	if src.names() != nil || src.views.used {
		return false
	}
	src.t.Tables = a.t.Tables
	g, refused := src.gather(newBlock(src, stmts[0].Query, nil), Refuse(RuleInsertSelect, info.TableName))
	if refused != nil {
		return false
	}
	names := q.Columns
	if names == nil {
		for _, c := range t.Columns {
			if !c.Generated {
				names = append(names, c.Name)
			}
		}
	}
	key := make([]int, len(info.Keys))
	for i, k := range info.Keys {
		key[i] = slices.Index(names, k)
	}
	a.moved = &Template{Gather: g, Target: info, Names: names, Key: key, Source: text, Tail: tail, Ref: info.Kind == shardmap.Reference}
	if a.moved.Ref {
		a.moved.Fills = a.fills(t)
	}
	if info.Group != nil {
		a.moved.refShards = a.db.Placement(info.Group).Shards()
	}
	return !slices.Contains(key, -1)
}

// behindRows says whether one of the subqueries of ON CONFLICT or RETURNING would not see all of what it names where a statement's rows go: of
// sharded tables that is what is on the row's shard, and of home's own, where shards says that rows go to others, nothing.
func behindRows(a *analysis, target *sqlparse.Rel, subs []*sqlparse.Query, shards bool) bool {
	excluded := &sqlparse.Rel{Kind: sqlparse.RelTable, Table: target.Table, Alias: "excluded"} // ON CONFLICT finds a row by its key
	rows := newBlock(a, &sqlparse.Query{Cmd: sqlparse.Select, Sight: sqlparse.Sight{Rels: []*sqlparse.Rel{target, excluded}}, Subs: subs}, nil)
	return slices.ContainsFunc(subs, func(q *sqlparse.Query) bool {
		if _, sharded := a.anySharded(q); sharded {
			return !shards || !a.isLocal(rows, q)
		}
		return shards && anyAlone(a, q)
	})
}

// anyAlone says whether a query names a relation, at whatever level, that the map does not declare.
func anyAlone(a *analysis, q *sqlparse.Query) bool {
	return slices.ContainsFunc(q.Rels, func(r *sqlparse.Rel) bool {
		return r.Kind == sqlparse.RelTable && !r.CTE && a.declared(r) == nil || r.Sub != nil && anyAlone(a, r.Sub)
	}) || slices.ContainsFunc(slices.Concat(q.Subs, q.CTEs, q.Leaves), func(sub *sqlparse.Query) bool { return anyAlone(a, sub) })
}

// movesInto is moves for a table that is home's alone or on every shard; info is nil for the former.
func (a *analysis) movesInto(q *sqlparse.Query, info *shardmap.TableInfo) bool {
	if info == nil {
		n, ok := a.env.resolve(a.db, a.sch, q.Target.Table)
		if !ok || a.t.Temp {
			return false
		}
		info = a.db.HomeTable(n)
	}
	return a.sch.Tables[info.TableName] != nil && a.moves(q, info, nil)
}

// feeds says whether each row of a SELECT carries in the target's key columns the key of the shard that made it.
func (a *analysis) feeds(b *block, info *shardmap.TableInfo, pos []int) bool {
	q := b.query
	for _, u := range b.units() {
		for _, r := range u.rels {
			from := a.declared(r)
			fits := from.Group == info.Group && b.certain(u, r) && keepsKeys(a, from, info)
			for i := 0; fits && i < len(pos); i++ {
				at := pos[i]
				fits = at >= 0 && at < len(q.Targets) && !a.starBefore(q, at+1) && q.Targets[at].Expr.Col != nil
				if !fits {
					break
				}
				id, _, ok := b.resolve(q, *q.Targets[at].Expr.Col)
				fits = ok && b.class(id) == b.class(colID{r, from.Keys[i]}) && id.rel == r
			}
			if fits {
				return true
			}
		}
	}
	return false
}

// splitInsert says why an INSERT may not be split over shards; nil means that it may.
func (a *analysis) splitInsert(q *sqlparse.Query) *Error {
	if len(q.Rows) != 1 { // it is of one shard anyway
		if err := triggersForAll(a); err != nil {
			return err
		}
	}
	switch {
	case a.colocated && len(q.CTEs) == 0:
		a.t.Class = Write
		return nil
	case q.Source != nil:
		return Refuse(RuleInsertSelect, a.t.Target.TableName)
	case len(q.CTEs) > 0 || len(q.Subs) > 0:
		return Refuse(RuleInsertSplit, "a subquery or CTE cannot be split")
	}
	if len(q.Rows) > 1 || a.t.Draw != nil { // each row is evaluated on one shard, once: volatile functions may stand in it
		spans, ok := sqlparse.ValuesRows(a.stmt.Text)
		if !ok || len(spans) != len(q.Rows) {
			return Refuse(RuleInsertSplit, "the VALUES list could not be taken apart")
		}
	}
	a.t.Class = Split
	return nil
}

// wideWrite plans UPDATE and DELETE over several shards, and says why not.
func (a *analysis) wideWrite(b *block) *Error {
	q := b.query
	info := a.declared(q.Target)
	if info == nil || info.Kind != shardmap.Sharded {
		return Refuse(RuleReferenceWrite, q.Target.Table.Name)
	}
	if err := cmp.Or(triggersForAll(a), a.unions(b)); err != nil { // each shard finds its own rows, and all that they are joined with
		return err
	}
	for _, s := range q.Sets {
		if info.IsKey(s.Column) {
			return Refuse(RuleKeyChange, s.Column)
		}
	}
	for _, m := range q.Inserts {
		if !a.insertsOwn(b, info, m) {
			return Refuse(RuleMerge, info.TableName)
		}
	}
	a.t.Class, a.t.Target = Write, info
	return nil
}

// referenceWrite plans a write of every copy of a reference table.
func (a *analysis) referenceWrite(q *sqlparse.Query) error {
	info := a.declared(q.Target)
	refuse := func(why string) error {
		return Refuse(RuleReferenceWrite, info.TableName.String()+" ("+why+")")
	}
	t := a.sch.Tables[info.TableName]
	if t != nil {
		if why := partsCopies(a, t); why != "" {
			return refuse(why)
		}
	}
	if q.Cmd == sqlparse.Insert && q.Source != nil && a.movesInto(q, info) {
		a.useMoved()
		return nil
	}
	switch {
	case q.Opaque != "":
		return refuse("it uses " + q.Opaque)
	case len(q.Rels) > 1 || len(q.Subs) > 0 || len(q.CTEs) > 0 || q.Source != nil || len(a.home) > 0:
		return refuse("it takes values from a subquery or another table")
	}
	switch {
	case t == nil:
		return nil
	case len(t.Triggers) > 0:
		return refuse("it has triggers, whose work the application has to do")
	case t.Rules:
		return refuse("it has rules, whose work the application has to do")
	}
	if name, ok := systemColumn(q); ok {
		return refuse("system column " + name + " has another value on each")
	}
	a.t.Fills = a.fills(t)
	if why := a.differs(); why != "" {
		return refuse(why)
	}
	if _, why := a.stmt.Once(a.t.Fills); why != "" {
		return refuse(why)
	}
	a.t.Class, a.t.Target, a.t.Ref, a.t.Home = Write, info, true, false
	return nil
}

// copy plans COPY of a declared table.
func (a *analysis) copy() error {
	c := a.stmt.Copy
	if !c.Stdio {
		return Refuse(RuleCopy, "a file on the server")
	}
	if c.Table == nil { // COPY (query) TO
		return a.query()
	}
	n, _ := a.env.resolve(a.db, a.sch, *c.Table)
	info := a.db.Table(n)
	if info.Kind == shardmap.Reference && !c.From {
		return nil // home's copy
	}
	if info.Kind == shardmap.Sharded && len(info.Keys) == 0 { // the whole table is on one shard
		a.t.Home, a.t.pins = false, []pin{{group: info.Group}}
		return nil
	}
	if !c.From {
		a.t.Class, a.t.Target, a.t.Home, a.t.refShards = Copy, info, false, a.db.Placement(info.Group).Shards()
		return nil
	}
	if err := a.copyOptions(c, info); err != nil {
		return err
	}
	t := a.sch.Tables[n]
	if t == nil {
		return nil
	}
	if info.Kind == shardmap.Reference {
		switch why := partsCopies(a, t); {
		case why != "":
			return Refuse(RuleReferenceWrite, n.String()+" ("+why+")")
		case len(t.Triggers) > 0:
			return Refuse(RuleReferenceWrite, n.String()+" (it has triggers, whose work the application has to do)")
		}
	}
	names := c.Columns
	if names == nil {
		for _, col := range t.Columns {
			if !col.Generated {
				names = append(names, col.Name)
			}
		}
	}
	for _, k := range info.Keys {
		at := slices.Index(names, k)
		if at < 0 {
			return Refuse(RuleInsertKey, k)
		}
		a.t.Key = append(a.t.Key, at)
	}
	if info.Kind == shardmap.Reference {
		a.t.Fills = a.fills(t)
	}
	if info.Group != nil {
		a.t.refShards = a.db.Placement(info.Group).Shards()
		if err := triggersForAll(a); err != nil && len(a.t.refShards) > 1 {
			return err
		}
	}
	a.t.Class, a.t.Target, a.t.Ref, a.t.Home, a.t.Names = Copy, info, info.Kind == shardmap.Reference, false, names
	return nil
}

// copyOptions refuses the options of COPY FROM under which the proxy would read a row's key otherwise than the server.
func (a *analysis) copyOptions(c sqlparse.CopyInfo, info *shardmap.TableInfo) error {
	if !c.Plain {
		return Refuse(RuleCopy, "a distributed table with these options")
	}
	if _, volatile := a.firstVolatile(); c.Where && info.Kind == shardmap.Reference && (volatile || a.stmt.Clock) {
		return Refuse(RuleCopy, "a reference table with a WHERE that may differ on each shard")
	}
	for o, v := range c.Options {
		switch o {
		case "format", "delimiter", "null", "header", "quote", "escape", "freeze", "log_verbosity":
		case "default":
			if info.Kind == shardmap.Reference { // a default may differ on each shard
				return Refuse(RuleCopy, "a reference table with DEFAULT")
			}
		case "force_null", "force_not_null":
		case "encoding":
			if e := strings.ToLower(strings.ReplaceAll(v, "-", "")); e != "utf8" && e != "unicode" {
				return Refuse(RuleCopy, "a distributed table in encoding "+v)
			}
		default:
			return Refuse(RuleCopy, "a distributed table with option "+o)
		}
	}
	return nil
}
