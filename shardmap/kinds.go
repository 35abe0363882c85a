package shardmap

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	memdb "github.com/hashicorp/go-memdb"
)

// kinds are the kinds of objects that a document has lists of, and what is done with all of them alike.
var kinds = []kind{
	kindOf("databases", func(d *Document) *[]*Database { return &d.Databases }, func(p *part) *[]*Database { return &p.databases }, nil, "Name"),
	kindOf("shards", func(d *Document) *[]*Shard { return &d.Shards }, func(p *part) *[]*Shard { return &p.shards }, func(a, b *Shard) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.Ordinal, b.Ordinal))
	}, "Database", "Name"),
	kindOf("nodes", func(d *Document) *[]*Node { return &d.Nodes }, func(p *part) *[]*Node { return &p.nodes }, func(a, b *Node) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Ordinal, b.Ordinal))
	}, "Database", "Shard", "Name"),
	kindOf("groups", func(d *Document) *[]*Group { return &d.Groups }, func(p *part) *[]*Group { return &p.groups }, nil, "Database", "Name"),
	kindOf("placements", func(d *Document) *[]*Placement { return &d.Placements }, func(p *part) *[]*Placement { return &p.placements }, nil, "Database", "Group"),
	kindOf("tables", func(d *Document) *[]*Table { return &d.Tables }, func(p *part) *[]*Table { return &p.tables }, nil, "Database", "Schema", "Name"),
	kindOf("tenants", func(d *Document) *[]*Tenant { return &d.Tenants }, func(p *part) *[]*Tenant { return &p.tenants }, nil, "Database", "Schema"),
	kindOf("routines", func(d *Document) *[]*Routine { return &d.Routines }, func(p *part) *[]*Routine { return &p.routines }, nil, "Database", "Schema", "Name"),
	kindOf("attempts", func(d *Document) *[]*Attempt { return &d.Attempts }, func(p *part) *[]*Attempt { return &p.attempts }, nil, "ID"),
}

// object is a pointer to an object of the map.
type object[T any] interface {
	*T
	id() id
}

// id is what an object is called among those of its kind: first comes the database.
type id [3]string

func (x *Database) id() id  { return id{x.Name} }
func (x *Shard) id() id     { return id{x.Database, x.Name} }
func (x *Node) id() id      { return id{x.Database, x.Shard, x.Name} }
func (x *Group) id() id     { return id{x.Database, x.Name} }
func (x *Placement) id() id { return id{x.Database, x.Group} }
func (x *Table) id() id     { return id{x.Database, x.Schema, x.Name} }
func (x *Tenant) id() id    { return id{x.Database, x.Schema} }
func (x *Routine) id() id   { return id{x.Database, x.Schema, x.Name} }
func (x *Attempt) id() id   { return id{x.Database, x.ID} }

// kind is what is done with the objects of one kind.
type kind struct {
	table  string                                        // go-memdb's
	schema *memdb.TableSchema                            // of that
	share  func(doc, before *Document)                   // has doc share with before those that say the same
	write  func(txn *memdb.Txn, was, is *Document) error // makes the table say what is does, where it says what was did
	read   func(txn *memdb.Txn, doc *Document) error     // gives doc what the table says
	divide func(to parting, doc, before *Document)       // gives them to their databases
	alike  func(p, q *part) bool                         // says whether they say the same
}

// kindOf is a kind whose objects stand in a list of a document and of a part. A table gives them in the order of their names, which are in
// the fields, unless they have an order of their own.
func kindOf[T any, P object[T]](table string, list func(*Document) *[]P, of func(*part) *[]P, order func(a, b P) int, fields ...string) kind {
	var names []memdb.Indexer
	for _, f := range fields {
		names = append(names, &memdb.StringFieldIndex{Field: f})
	}
	return kind{
		table: table,
		schema: &memdb.TableSchema{Name: table, Indexes: map[string]*memdb.IndexSchema{
			"id": {Name: "id", Unique: true, Indexer: &memdb.CompoundIndex{Indexes: names}},
		}},
		share: func(doc, before *Document) { *list(doc) = shared[T](*list(doc), *list(before)) },
		write: func(txn *memdb.Txn, was, is *Document) error { return exchange[T](txn, table, *list(was), *list(is)) },
		read: func(txn *memdb.Txn, doc *Document) (err error) {
			if *list(doc), err = collect[P](txn, table); err == nil && order != nil {
				slices.SortStableFunc(*list(doc), order)
			}
			return err
		},
		divide: func(to parting, doc, before *Document) { divide[T](to, *list(doc), *list(before), of) },
		alike:  func(p, q *part) bool { return alike[T](*of(p), *of(q)) },
	}
}

// shared is a list with the objects of the one before in place of those that say the same.
func shared[T any, P object[T]](list, before []P) []P {
	switch {
	case len(list) == 0:
		return nil // as the tables have it: what is written does not depend on who has read it
	case same(list, before):
		return before
	}
	have := make(map[id]P, len(before))
	for _, x := range before {
		have[x.id()] = x
	}
	out := make([]P, len(list))
	for i, x := range list {
		if out[i] = x; have[x.id()] != nil && equal[T](have[x.id()], x) {
			out[i] = have[x.id()]
		}
	}
	return out
}

func exchange[T any, P object[T]](txn *memdb.Txn, table string, was, is []P) error {
	if same(was, is) {
		return nil
	}
	left := make(map[id]P, len(was))
	for _, x := range was {
		left[x.id()] = x
	}
	var errs error
	var fresh []P
	for _, x := range is {
		if left[x.id()] != x {
			fresh = append(fresh, x)
		}
		delete(left, x.id())
	}
	for _, x := range left {
		if err := txn.Delete(table, x); !errors.Is(err, memdb.ErrNotFound) { // a file that was written by hand may have two of a name, and the table has one
			errs = errors.Join(errs, err)
		}
	}
	for _, x := range fresh {
		errs = errors.Join(errs, txn.Insert(table, x))
	}
	return inTable(table, errs)
}

// collect are the objects of a table, in the order of their names.
func collect[P any](txn *memdb.Txn, table string) (out []P, err error) {
	it, err := txn.Get(table, "id")
	if err != nil {
		return nil, inTable(table, err)
	}
	for o := it.Next(); o != nil; o = it.Next() {
		out = append(out, o.(P))
	}
	return out, nil
}

func inTable(table string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("shard map table %s: %w", table, err)
}
