package router

import (
	"errors"
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// query plans SELECT, INSERT, UPDATE and DELETE that name a sharded or reference table.
func (a *analysis) query() error {
	q := a.stmt.Query
	if len(a.sharded) == 0 {
		return a.referenceOnly(q)
	}
	if q.Opaque != "" && q.Cmd != sqlparse.Select {
		return Refuse(RuleOpaque, q.Opaque)
	}
	a.t.Home = false
	a.t.Exact = a.t.Exact || usesOrdinals(q)
	if a.views.used {
		a.expand(q)
		return a.gatherBlind(newBlock(a, q, nil), Refuse(RuleView, a.views.first))
	}
	top := newBlock(a, q, nil)
	if info := a.target(q); info != nil && info.Kind == shardmap.Reference && q.Cmd != sqlparse.Insert { // a shard would write its own copy only
		return Refuse(RuleReferenceWrite, info.TableName)
	}
	if makesTable(q) { // it is home's
		return Refuse(RuleSelectInto, "SELECT INTO")
	}
	if q.Cmd == sqlparse.Insert {
		if err := a.insert(q); err != nil {
			return err
		}
	}
	untied, err := a.collect(top)
	if err != nil {
		return a.gatherBlind(top, err)
	}
	if err := a.mergeInserts(top); err != nil {
		return err
	}
	if err := a.assigns(top); err != nil {
		if a.rekeys(top) == nil {
			return err
		}
	} else if a.assignsKey(q) {
		a.rekeys(top)
	}
	needsHome := a.needsHome()
	if needsHome {
		a.t.wide = Refuse(RuleHomeJoin, joinNames(a.home))
		a.t.pins = append(a.t.pins, pin{}) // bound to the home shard
	}
	if f, ok := a.homeFunction(); ok {
		return Refuse(RuleHomeOnly, f)
	}
	if a.moved != nil {
		a.useMoved()
		return nil
	}
	if a.t.rekey != nil && needsHome {
		a.t.rekey = nil
		if a.t.Class == Rekey {
			return Refuse(RuleKeyChange, top.query.Target.Table.Name)
		}
	}
	if a.t.rekey != nil && len(untied) > 0 {
		a.t.Class = Rekey
	}
	if a.t.Class == Rekey {
		return nil
	}
	no := copiesWrite(a.stmt)
	if no != nil && (len(untied) > 0 || a.t.Draw != nil) {
		return no
	}
	if len(untied) == 0 {
		a.t.Class = Single
		switch {
		case q.Cmd == sqlparse.Select && !a.oneKey():
			a.t.wide = a.several(top, a.t.wide) // IN lists may turn out wider
		case needsHome || a.oneKey():
		case no != nil:
			a.t.wide = no
		case q.Cmd == sqlparse.Insert:
			a.t.wide = a.splitInsert(q)
		default:
			a.t.wide = a.wideWrite(top)
		}
		return nil
	}
	return overShards(a, top, needsHome, untied[0])
}

// overShards plans a statement that has sharded tables which nothing ties to a key, as one.
func overShards(a *analysis, top *block, needsHome bool, one shardmap.TableName) error {
	q := top.query
	switch {
	case q.Cmd == sqlparse.Select:
		if err := a.several(top, a.t.wide); err != nil {
			return err
		}
	case needsHome:
		return a.t.wide
	case q.Cmd == sqlparse.Insert && a.colocated && len(q.CTEs) == 0:
		if err := triggersForAll(a); err != nil {
			return err
		}
		a.t.Class = Write
	case q.Cmd == sqlparse.Insert:
		return Refuse(RuleInsertSelect, one)
	default:
		if err := a.wideWrite(top); err != nil {
			return err
		}
	}
	return nil
}

// useMoved makes the template one that moves rows.
func (a *analysis) useMoved() {
	m := a.moved
	a.t.Class, a.t.Exact, a.t.pins, a.t.wide, a.t.Home = Moved, true, nil, nil, false
	a.t.Gather, a.t.Target, a.t.Names, a.t.Key, a.t.Source, a.t.Tail, a.t.refShards, a.t.Ref, a.t.Made, a.t.Fills = m.Gather, m.Target, m.Names, m.Key, m.Source, m.Tail, m.refShards, m.Ref, m.Made, m.Fills
}

// copiesWrite says why a statement may not run on several shards where it is a COPY of what a write returns: what each of them copied would be nobody's. Nil where
// it is none.
func copiesWrite(s *sqlparse.Statement) *Error {
	if s.Kind != sqlparse.Copy || s.Query.Cmd == sqlparse.Select {
		return nil
	}
	return Refuse(RuleCopy, "a query that writes over several shards")
}

// makesTable says whether a SELECT is SELECT INTO.
func makesTable(q *sqlparse.Query) bool { return q.Into || slices.ContainsFunc(q.Leaves, makesTable) }

// usesOrdinals says whether a literal decides at some level what rows are grouped by.
func usesOrdinals(q *sqlparse.Query) bool {
	for _, list := range [][]sqlparse.Expr{q.GroupBy, q.DistinctOn} {
		if slices.ContainsFunc(list, func(e sqlparse.Expr) bool { return e.Ordinal > 0 }) {
			return true
		}
	}
	for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves} {
		if slices.ContainsFunc(list, usesOrdinals) {
			return true
		}
	}
	return slices.ContainsFunc(q.Rels, func(r *sqlparse.Rel) bool { return r.Sub != nil && usesOrdinals(r.Sub) }) || q.Source != nil && usesOrdinals(q.Source)
}

// several plans a SELECT that may need more than one shard: by merging what each one answers, else on copies. why is a
// reason against merging that is known already.
func (a *analysis) several(top *block, why *Error) *Error {
	if why == nil {
		why = a.scatter(top)
	}
	if why == nil {
		a.orGather(top)
		return nil
	}
	return a.toGather(top, why)
}

// gatherBlind plans a SELECT whose facts cannot be told, for err: on copies of whatever it names.
func (a *analysis) gatherBlind(top *block, err error) error {
	var why *Error
	if !errors.As(err, &why) || top.query.Cmd != sqlparse.Select || !a.gathers() {
		return err
	}
	a.t.pins, a.t.blind = nil, true
	for _, n := range a.sharded {
		group := a.db.Table(n).Group
		a.t.pins = append(a.t.pins, pin{group: group, vals: make([][]sqlparse.Value, len(group.Keys))})
	}
	if f, ok := a.homeFunction(); ok {
		return Refuse(RuleHomeOnly, f)
	}
	if why = a.toGather(top, why); why != nil {
		return why
	}
	return nil
}

// oneKey says whether the statement is tied to one key value, so that it can never need a second shard.
func (a *analysis) oneKey() bool { return len(a.t.pins) == 1 && a.t.pins[0].one() }

// collect gathers the pins of every sharded table of a block and of all blocks below it, and the names
// of those that nothing ties to a key.
func (a *analysis) collect(b *block) (untied []shardmap.TableName, err error) {
	for _, f := range b.flat {
		if f.Opaque != "" {
			return nil, Refuse(RuleOpaque, f.Opaque)
		}
		for _, l := range f.Locks {
			if n, ok := a.locksCopy(f, l); ok {
				return nil, Refuse(RuleLockingReference, n)
			}
		}
	}
	for _, r := range b.rels {
		info := a.declared(r)
		if info == nil || info.Kind != shardmap.Sharded {
			continue
		}
		p := b.pin(r, info)
		if !p.tied() {
			untied = append(untied, info.TableName)
		}
		if !slices.ContainsFunc(a.t.pins, func(o pin) bool { return o.same(&p) }) {
			a.t.pins = append(a.t.pins, p)
		}
	}
	for _, q := range b.subs {
		sub := newBlock(a, q, b)
		info := a.target(q)
		if info != nil && info.Kind == shardmap.Reference {
			return nil, Refuse(RuleReferenceWrite, info.TableName)
		}
		if info != nil && q.Cmd == sqlparse.Insert {
			if err := a.insertInside(q, info); err != nil {
				return nil, err
			}
		}
		below, err := a.collect(sub)
		if err != nil {
			return nil, err
		}
		if err := a.assigns(sub); err != nil {
			return nil, err
		}
		untied = append(untied, below...)
	}
	return untied, nil
}

// locksCopy says whether FOR UPDATE would lock rows of a reference table: on the shard where the statement runs, and on no
// other.
func (a *analysis) locksCopy(q *sqlparse.Query, l sqlparse.RowLock) (n shardmap.TableName, yes bool) {
	for _, r := range q.Rels {
		if !l.Strong || l.Of != nil && !slices.Contains(l.Of, r.Name()) {
			continue
		}
		if info := a.declared(r); info != nil && info.Kind == shardmap.Reference {
			return info.TableName, true
		}
		if r.Kind == sqlparse.RelQuery && r.Sub != nil {
			if n, yes = a.locksCopy(r.Sub, sqlparse.RowLock{Strong: true}); yes {
				return n, true
			}
		}
	}
	return n, false
}

// target is the map's word on the table that a query writes: nil for a home table, and for a SELECT.
func (a *analysis) target(q *sqlparse.Query) *shardmap.TableInfo {
	if q.Target == nil {
		return nil
	}
	return a.declared(q.Target)
}

// assigns ties the values given to a key column by SET to the statement's shard.
func (a *analysis) assigns(b *block) error {
	q := b.query
	if q.Target == nil {
		return nil
	}
	info := a.declared(q.Target)
	if info == nil || info.Kind != shardmap.Sharded {
		return nil
	}
	p := b.pin(q.Target, info) // columns that are not assigned stay as they are
	p.pinRole, p.bounds, p.held = assigns, nil, heldBy(a.sch.Tables[info.TableName], info)
	changes := false
	for _, s := range q.Sets {
		i := slices.Index(info.Keys, s.Column)
		if i < 0 {
			continue
		}
		if s.Value.Kind == sqlparse.ValOther || s.Value.Kind == sqlparse.ValDefault || s.Value.Kind == sqlparse.ValNull || !keyFits(info.Group.Keys[i], s.Value) {
			return Refuse(RuleKeyChange, s.Column)
		}
		p.vals[i], changes = []sqlparse.Value{s.Value}, true
	}
	if changes {
		if !p.tied() {
			return Refuse(RuleKeyChange, info.KeyList())
		}
		a.t.pins = append(a.t.pins, p)
	}
	return nil
}

// referenceOnly plans statements over reference tables, perhaps with home tables.
func (a *analysis) referenceOnly(q *sqlparse.Query) error {
	if q.Cmd == sqlparse.Select && pureQuery(q) {
		_, volatile := a.firstVolatile()
		if len(a.home) == 0 && !volatile && q.Opaque == "" && !a.namesCatalog() {
			a.t.Home, a.t.Any = false, true
		}
		return nil
	}
	if no := copiesWrite(a.stmt); no != nil && a.target(q) != nil {
		return no
	}
	writesReference := q.Target != nil && a.declared(q.Target) != nil
	if !writesReference {
		if q.Cmd != sqlparse.Select && len(q.CTEs) == 0 {
			return nil // a home table written from reference tables: home has a copy
		}
		if q.Cmd == sqlparse.Select && !q.Locking {
			return Refuse(RuleReferenceWrite, joinNames(a.reference))
		}
		return nil // row locks are taken on home's copy
	}
	return a.referenceWrite(q)
}
