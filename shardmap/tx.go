package shardmap

import (
	"errors"
	"slices"

	memdb "github.com/hashicorp/go-memdb"
)

// Tx is a change in progress. Objects handed in or out are never modified afterwards: older snapshots
// still read them, so a change inserts a new object under the same name.
type Tx struct {
	txn   *memdb.Txn
	base  *Snapshot // of the map that is changed
	setup *Setup
}

func (tx *Tx) put(tbl string, o any) error { return inTable(tbl, tx.txn.Insert(tbl, o)) }

// Unchanged is ErrChanged unless the map says of a database what it said when d was compiled: whoever has decided by d may go on.
func (tx *Tx) Unchanged(d *DB) error {
	doc, err := tx.document()
	if err != nil {
		return err
	}
	if now := doc.parts(tx.base.Document, tx.base.parts)[d.Name]; now == nil || !now.equals(d.part) {
		return ErrChanged
	}
	return nil
}

// SameKeys is ErrChanged unless a group places its keys as it did when d was compiled. Without a name there is none, and nothing has changed.
func (tx *Tx) SameKeys(d *DB, group string) error {
	doc, err := tx.document()
	if err != nil {
		return err
	}
	now := doc.parts(tx.base.Document, tx.base.parts)[d.Name]
	if group != "" && (now == nil || !now.keysOf(group).equals(d.part.keysOf(group))) {
		return ErrChanged
	}
	return nil
}

// HasDatabase says whether a database is declared.
func (tx *Tx) HasDatabase(name string) (bool, error) {
	o, err := tx.txn.First("databases", "id", name)
	return o != nil, err
}

// MarkShard notes that a shard's database has been told whose it is. One that is not there stays away.
func (tx *Tx) MarkShard(database, name string) error {
	o, err := tx.txn.First("shards", "id", database, name)
	if err != nil || o == nil {
		return err
	}
	s := *o.(*Shard)
	s.Marked = true
	return tx.PutShard(s)
}

// SetSystem notes the system identifier of a shard's servers. A shard that is not there stays away; one that has another keeps it, unless
// it is the admin's word.
func (tx *Tx) SetSystem(database, name, system string, adopted bool) error {
	o, err := tx.txn.First("shards", "id", database, name)
	if err != nil || o == nil {
		return err
	}
	s := *o.(*Shard)
	if s.System == "" || adopted {
		s.System = system
	}
	if adopted {
		s.Adopted++
	}
	return tx.PutShard(s)
}

// PutDatabase and its siblings insert an object or replace the one with the same names.
func (tx *Tx) PutDatabase(d Database) error { return tx.put("databases", &d) }

// PutShard inserts or replaces a shard.
func (tx *Tx) PutShard(s Shard) error { return tx.put("shards", &s) }

// PutNode inserts or replaces a node.
func (tx *Tx) PutNode(n Node) error { return tx.put("nodes", &n) }

// PutGroup inserts or replaces a group.
func (tx *Tx) PutGroup(g Group) error { return tx.put("groups", &g) }

// PutTable inserts or replaces a table.
func (tx *Tx) PutTable(t Table) error { return tx.put("tables", &t) }

// Tables are the declared tables of a database.
func (tx *Tx) Tables(database string) (out []Table, err error) {
	all, err := collect[*Table](tx.txn, "tables")
	for _, t := range all {
		if t.Database == database {
			out = append(out, *t)
		}
	}
	return out, err
}

// Tenants are the schemas of a database that live on one shard.
func (tx *Tx) Tenants(database string) (out []Tenant, err error) {
	all, err := collect[*Tenant](tx.txn, "tenants")
	for _, t := range all {
		if t.Database == database {
			out = append(out, *t)
		}
	}
	return out, err
}

// PutTenant inserts or replaces a schema that lives on one shard.
func (tx *Tx) PutTenant(t Tenant) error { return tx.put("tenants", &t) }

// PutRoutine says that a routine is shard safe.
func (tx *Tx) PutRoutine(r Routine) error { return tx.put("routines", &r) }

// PutAttempt notes a statement that begins.
//
// One that is there goes on by Steps only: ErrEnded means that another process has gone further.
func (tx *Tx) PutAttempt(a Attempt) error {
	o, err := tx.txn.First("attempts", "id", a.ID)
	if err != nil {
		return err
	}
	if was, ok := o.(*Attempt); ok && was.Step != a.Step && !slices.Contains(Steps[was.Step], a.Step) {
		return ErrEnded
	}
	return tx.put("attempts", &a)
}

// Under is ErrEnded unless the map has an attempt: nobody else has ended it.
func (tx *Tx) Under(attempt string) error {
	o, err := tx.txn.First("attempts", "id", attempt)
	if err == nil && o == nil {
		err = ErrEnded
	}
	return err
}

// EndAttempt forgets an attempt; ErrEnded if another process has done so.
func (tx *Tx) EndAttempt(attempt string) error {
	return errors.Join(tx.Under(attempt), tx.Delete("attempts", attempt))
}

// SetSlots replaces all slots of a group. They are the map's from now on.
func (tx *Tx) SetSlots(db, group string, runs []SlotRun) error {
	return tx.editPlacement(db, group, func(p *Placement) { p.Slots = orNone(runs) })
}

// SetRanges replaces all ranges of a group; they are given in order.
func (tx *Tx) SetRanges(db, group string, ranges []Range) error {
	return tx.editPlacement(db, group, func(p *Placement) { p.Ranges = orNone(ranges) })
}

// SetLists replaces all lists of a group.
func (tx *Tx) SetLists(db, group string, lists []List) error {
	return tx.editPlacement(db, group, func(p *Placement) { p.Lists = orNone(lists) })
}

// SetPins replaces all pins of keys of a group.
func (tx *Tx) SetPins(db, group string, pins []Pin) error {
	return tx.editPlacement(db, group, func(p *Placement) { p.Pins = orNone(pins) })
}

// orNone is a list, or nil if it is empty: that is how it is read from a file, too.
func orNone[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}

// editPlacement changes the placement of a group. One that places nothing is none.
func (tx *Tx) editPlacement(db, group string, edit func(*Placement)) error {
	o, err := tx.txn.First("placements", "id", db, group)
	if err != nil {
		return err
	}
	p := Placement{Database: db, Group: group}
	if o != nil {
		p = *o.(*Placement)
	}
	if edit(&p); len(p.Slots)+len(p.Ranges)+len(p.Lists)+len(p.Pins) == 0 {
		return tx.Delete("placements", db, group)
	}
	return tx.put("placements", &p)
}

// DropGroup removes a group with its placement.
func (tx *Tx) DropGroup(db, group string) error {
	return errors.Join(tx.Delete("placements", db, group), tx.Delete("groups", db, group))
}

// Delete removes the object of a table ("databases", "shards", "nodes", "tables", "tenants", "routines", "attempts")
// with the given names; what is not there is no error, because Compile judges the outcome.
func (tx *Tx) Delete(tbl string, names ...string) error {
	args := make([]any, len(names))
	for i, n := range names {
		args[i] = n
	}
	_, err := tx.txn.DeleteAll(tbl, "id", args...)
	return err
}

// document is what the tables say now. It shares with the map that is changed the lists of those that the change has not touched.
func (tx *Tx) document() (*Document, error) {
	out := *tx.base.Document
	out.Setup = tx.setup
	touched := map[string]bool{}
	for _, c := range tx.txn.Changes() {
		touched[c.Table] = true
	}
	for _, k := range kinds {
		if touched[k.table] {
			if err := k.read(tx.txn, &out); err != nil {
				return nil, err
			}
		}
	}
	return &out, nil
}
