package shardmap

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	memdb "github.com/hashicorp/go-memdb"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Store keeps the document. Save succeeds only if the stored version is still prev (compare and swap);
// else it returns ErrConflict. Watch calls changed after every successful Save, by this process or
// another, until ctx ends; and with an error once for each state of the store that cannot be read.
type Store interface {
	Load(ctx context.Context) (*Document, error)
	Save(ctx context.Context, prev uint64, doc *Document) error
	Watch(ctx context.Context, changed func(*Document, error)) error
	History(ctx context.Context) ([]uint64, error)
}

// ErrConflict means that somebody else changed the map first: read it again and retry.
var ErrConflict = errors.New("the shard map was changed by another process")

// ErrChanged means that what a change was decided by is not what the map says any more: decide again.
var ErrChanged = errors.New("the shard map was changed meanwhile")

// ErrEnded means that another process has ended a statement's attempt, as it took its process for dead: what the map says is not the
// statement's to change any more.
var ErrEnded = errors.New("another process has ended the statement meanwhile: it took this one for dead")

// StoreError means that a map was not kept: the store has the one before it.
type StoreError struct {
	Full bool // there is no room for it
	Err  error
}

func (e *StoreError) Error() string { return e.Err.Error() }

func (e *StoreError) Unwrap() error { return e.Err }

// SQLState is PostgreSQL's disk_full, or io_error.
func (e *StoreError) SQLState() string {
	if e.Full {
		return pgsql.DiskFull
	}
	return pgsql.IOError
}

// ErrorHint says what to do.
func (e *StoreError) ErrorHint() string {
	return "The map is what it was. See that its folder can be written to, and run the statement again."
}

var schema = &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
	"databases": table("databases", "Name"),
	"shards":    table("shards", "Database", "Name"),
	"nodes":     table("nodes", "Database", "Shard", "Name"),
	"groups":    table("groups", "Database", "Name"),
	"slots":     partTable("slots", "From"),
	"ranges":    partTable("ranges", "Ordinal"),
	"lists":     partTable("lists", "Ordinal"),
	"pins":      partTable("pins", "Ordinal"),
	"tables":    table("tables", "Database", "Schema", "Name"),
	"tenants":   table("tenants", "Database", "Schema"),
	"routines":  table("routines", "Database", "Schema", "Name"),
	"attempts":  table("attempts", "ID"),
}}

// table is a memdb table whose id is the given string fields, in order.
func table(name string, fields ...string) *memdb.TableSchema {
	var ix []memdb.Indexer
	for _, f := range fields {
		ix = append(ix, &memdb.StringFieldIndex{Field: f})
	}
	return &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
		"id": {Name: "id", Unique: true, Indexer: &memdb.CompoundIndex{Indexes: ix}},
	}}
}

// partTable is a memdb table of the parts of groups, ordered by an integer field within a group.
func partTable(name, order string) *memdb.TableSchema {
	t := table(name, "Database", "Group")
	group := t.Indexes["id"].Indexer
	t.Indexes["id"].Indexer = &memdb.CompoundIndex{Indexes: []memdb.Indexer{
		&memdb.StringFieldIndex{Field: "Database"}, &memdb.StringFieldIndex{Field: "Group"}, &memdb.IntFieldIndex{Field: order},
	}}
	t.Indexes["group"] = &memdb.IndexSchema{Name: "group", Indexer: group}
	return t
}

// Catalog is the live map: go-memdb tables for changing it, a compiled Snapshot for reading it.
type Catalog struct {
	store   Store
	db      *memdb.MemDB
	current atomic.Pointer[Snapshot]

	mu        sync.Mutex // serialises apply; never held while the store is called
	listeners []func(*Snapshot)

	trouble   atomic.Pointer[error]
	OnTrouble func(error) // told of what Trouble says next, nil when it is over; set before Run
}

// Open loads the document, or begins an empty one with the given install id, and publishes it.
func Open(ctx context.Context, store Store, install string) (*Catalog, error) {
	db, err := memdb.NewMemDB(schema)
	if err != nil {
		return nil, fmt.Errorf("shard map tables: %w", err)
	}
	c := &Catalog{store: store, db: db}
	doc, err := store.Load(ctx)
	if err != nil {
		return nil, err
	}
	if doc == nil {
		doc = &Document{Install: install, Secret: newSecret()}
	}
	return c, c.apply(doc)
}

// Run follows the store until ctx ends.
func (c *Catalog) Run(ctx context.Context) error {
	return c.store.Watch(ctx, func(doc *Document, err error) {
		if err == nil {
			if err = c.apply(doc); err != nil {
				err = fmt.Errorf("version %d of the shard map cannot be taken into use: %w", doc.Version, err)
			}
		}
		if err == nil {
			err = c.older(ctx)
		}
		c.troubled(err)
	})
}

// older is an error if the store has gone back to a map before the one in force: no change of this process would be kept.
func (c *Catalog) older(ctx context.Context) error {
	cur := c.Current()
	doc, err := c.store.Load(ctx) // anew: a change may have been published since
	if err != nil || doc == nil || doc.Version >= cur.Version {
		return err
	}
	return fmt.Errorf("the store has version %d of the shard map, and version %d is in force: put that back, or, if the older one is right, restart all processes", doc.Version, cur.Version)
}

// Trouble is why the store's map is not the one in force: it cannot be read, or is wrong. nil: it is. Any goroutine may call it.
func (c *Catalog) Trouble() error {
	if p := c.trouble.Load(); p != nil {
		return *p
	}
	return nil
}

func (c *Catalog) troubled(err error) {
	was := c.Trouble()
	if err == nil && was == nil || err != nil && was != nil && err.Error() == was.Error() {
		return
	}
	c.trouble.Store(&err)
	if c.OnTrouble != nil {
		c.OnTrouble(err)
	}
}

// Current is the newest snapshot. It never blocks and the result never changes.
func (c *Catalog) Current() *Snapshot { return c.current.Load() }

// History lists the versions that the store still has.
func (c *Catalog) History(ctx context.Context) ([]uint64, error) { return c.store.History(ctx) }

// OnChange registers f to be called, in order, with every newly published snapshot and at once with
// the current one. f must not block.
func (c *Catalog) OnChange(f func(*Snapshot)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners = append(c.listeners, f)
	f(c.current.Load())
}

// Change runs edit on the tables in one transaction, validates the outcome whole, saves it and
// publishes it. With dryRun it stops before saving. It returns the snapshot that resulted.
func (c *Catalog) Change(ctx context.Context, dryRun bool, edit func(*Tx) error) (*Snapshot, error) {
	return c.change(ctx, dryRun, edit, c.Current().Document.Setup)
}

// SetUp notes how far the setting up of a new map is; nil: it is done.
func (c *Catalog) SetUp(ctx context.Context, s *Setup) error {
	_, err := c.change(ctx, false, func(*Tx) error { return nil }, s)
	return err
}

func (c *Catalog) change(ctx context.Context, dryRun bool, edit func(*Tx) error, setup *Setup) (*Snapshot, error) {
	base := c.Current()
	txn := c.db.Txn(true)
	defer txn.Abort()
	if err := edit(&Tx{txn}); err != nil {
		return nil, err
	}
	doc, err := document(txn)
	if err != nil {
		return nil, err
	}
	doc.Install, doc.Secret, doc.Version, doc.Setup = base.Install, base.Document.Secret, base.Version+1, setup
	if doc.Secret == "" {
		doc.Secret = newSecret()
	}
	snap, err := Compile(doc)
	if err != nil || dryRun {
		return snap, err
	}
	txn.Abort() // the store's word, not ours, decides what is published
	if err := c.store.Save(ctx, base.Version, doc); err != nil {
		if errors.Is(err, ErrConflict) {
			c.CatchUp(ctx)
		}
		return nil, err
	}
	return snap, c.apply(doc)
}

// CatchUp takes the store's map into use, so that who must know it need not wait for the watch. What is wrong with it the watch tells.
func (c *Catalog) CatchUp(ctx context.Context) {
	if doc, err := c.store.Load(ctx); err == nil && doc != nil {
		_ = c.apply(doc)
	}
}

// Retry is Change for an edit that may run again, because another change came first.
func (c *Catalog) Retry(ctx context.Context, edit func(*Tx) error) error {
	for wait := time.Millisecond; ; wait *= 2 {
		_, err := c.Change(ctx, false, edit)
		if !errors.Is(err, ErrConflict) || wait > time.Second {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// apply publishes doc unless something newer already is.
func (c *Catalog) apply(doc *Document) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cur := c.current.Load(); cur != nil && doc.Version <= cur.Version {
		return nil
	}
	snap, err := Compile(doc)
	if err != nil {
		return err
	}
	txn := c.db.Txn(true)
	defer txn.Abort()
	for name := range schema.Tables {
		if _, err := txn.DeleteAll(name, "id"); err != nil {
			return fmt.Errorf("shard map table %s: %w", name, err)
		}
	}
	tx := &Tx{txn}
	if err := errors.Join(put(tx, "databases", doc.Databases), put(tx, "shards", doc.Shards), put(tx, "nodes", doc.Nodes),
		put(tx, "groups", doc.Groups), put(tx, "slots", doc.Slots), put(tx, "ranges", doc.Ranges), put(tx, "lists", doc.Lists), put(tx, "pins", doc.Pins),
		put(tx, "tables", doc.Tables), put(tx, "tenants", doc.Tenants), put(tx, "routines", doc.Routines),
		put(tx, "attempts", doc.Attempts)); err != nil {
		return err
	}
	txn.Commit()
	snap.At, snap.superseded = time.Now(), make(chan struct{})
	was := c.current.Load()
	if was != nil {
		snap.keepShapes(was)
	}
	c.current.Store(snap)
	for _, f := range c.listeners {
		f(snap)
	}
	if was != nil {
		close(was.superseded)
	}
	return nil
}

// Tx is a change in progress. Objects handed in or out are never modified afterwards: older snapshots
// still read them, so a change inserts a new object under the same name.
type Tx struct{ txn *memdb.Txn }

func put[T any](tx *Tx, tbl string, objs []*T) error {
	for _, o := range objs {
		if err := tx.txn.Insert(tbl, o); err != nil {
			return fmt.Errorf("shard map table %s: %w", tbl, err)
		}
	}
	return nil
}

// Unchanged is ErrChanged unless the map says of a database what it said when d was compiled: whoever has decided by d may go on.
func (tx *Tx) Unchanged(d *DB) error {
	now, err := document(tx.txn)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(now.of(d.Name), d.document.of(d.Name)) {
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
func (tx *Tx) PutDatabase(d Database) error { return put(tx, "databases", []*Database{&d}) }

// PutShard inserts or replaces a shard.
func (tx *Tx) PutShard(s Shard) error { return put(tx, "shards", []*Shard{&s}) }

// PutNode inserts or replaces a node.
func (tx *Tx) PutNode(n Node) error { return put(tx, "nodes", []*Node{&n}) }

// PutGroup inserts or replaces a group.
func (tx *Tx) PutGroup(g Group) error { return put(tx, "groups", []*Group{&g}) }

// PutTable inserts or replaces a table.
func (tx *Tx) PutTable(t Table) error { return put(tx, "tables", []*Table{&t}) }

// Tables are the declared tables of a database.
func (tx *Tx) Tables(database string) (out []Table, err error) {
	var all []*Table
	collect(tx.txn, "tables", &all, &err)
	for _, t := range all {
		if t.Database == database {
			out = append(out, *t)
		}
	}
	return out, err
}

// Tenants are the schemas of a database that live on one shard.
func (tx *Tx) Tenants(database string) (out []Tenant, err error) {
	var all []*Tenant
	collect(tx.txn, "tenants", &all, &err)
	for _, t := range all {
		if t.Database == database {
			out = append(out, *t)
		}
	}
	return out, err
}

// PutTenant inserts or replaces a schema that lives on one shard.
func (tx *Tx) PutTenant(t Tenant) error { return put(tx, "tenants", []*Tenant{&t}) }

// PutRoutine says that a routine is shard safe.
func (tx *Tx) PutRoutine(r Routine) error { return put(tx, "routines", []*Routine{&r}) }

// PutAttempt notes a statement that begins.
func (tx *Tx) PutAttempt(a Attempt) error { return put(tx, "attempts", []*Attempt{&a}) }

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

// SetSlots replaces all slots of a group.
func (tx *Tx) SetSlots(db, group string, runs []SlotRun) error {
	return replace(tx, "slots", db, group, runs, func(r *SlotRun, _ int) { r.Database, r.Group = db, group })
}

// SetRanges replaces all ranges of a group; they are given in order.
func (tx *Tx) SetRanges(db, group string, ranges []Range) error {
	return replace(tx, "ranges", db, group, ranges, func(r *Range, i int) { r.Database, r.Group, r.Ordinal = db, group, i })
}

// SetLists replaces all lists of a group.
func (tx *Tx) SetLists(db, group string, lists []List) error {
	return replace(tx, "lists", db, group, lists, func(l *List, i int) { l.Database, l.Group, l.Ordinal = db, group, i })
}

// SetPins replaces all pins of keys of a group.
func (tx *Tx) SetPins(db, group string, pins []Pin) error {
	return replace(tx, "pins", db, group, pins, func(p *Pin, i int) { p.Database, p.Group, p.Ordinal = db, group, i })
}

func replace[T any](tx *Tx, tbl, db, group string, parts []T, name func(*T, int)) error {
	if _, err := tx.txn.DeleteAll(tbl, "group", db, group); err != nil {
		return fmt.Errorf("shard map table %s: %w", tbl, err)
	}
	for i := range parts {
		p := parts[i]
		name(&p, i)
		if err := put(tx, tbl, []*T{&p}); err != nil {
			return err
		}
	}
	return nil
}

// DropGroup removes a group with all its parts.
func (tx *Tx) DropGroup(db, group string) error {
	return errors.Join(tx.SetSlots(db, group, nil), tx.SetRanges(db, group, nil), tx.SetLists(db, group, nil), tx.SetPins(db, group, nil), tx.Delete("groups", db, group))
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

func document(txn *memdb.Txn) (*Document, error) {
	d := &Document{}
	var err error
	collect(txn, "databases", &d.Databases, &err)
	collect(txn, "shards", &d.Shards, &err)
	collect(txn, "nodes", &d.Nodes, &err)
	collect(txn, "groups", &d.Groups, &err)
	collect(txn, "slots", &d.Slots, &err)
	collect(txn, "ranges", &d.Ranges, &err)
	collect(txn, "lists", &d.Lists, &err)
	collect(txn, "pins", &d.Pins, &err)
	collect(txn, "tables", &d.Tables, &err)
	collect(txn, "tenants", &d.Tenants, &err)
	collect(txn, "routines", &d.Routines, &err)
	collect(txn, "attempts", &d.Attempts, &err)
	sort.SliceStable(d.Shards, func(i, j int) bool {
		a, b := d.Shards[i], d.Shards[j]
		return a.Database < b.Database || a.Database == b.Database && a.Ordinal < b.Ordinal
	})
	sort.SliceStable(d.Nodes, func(i, j int) bool {
		a, b := d.Nodes[i], d.Nodes[j]
		if c := strings.Compare(a.Database+"\x00"+a.Shard, b.Database+"\x00"+b.Shard); c != 0 {
			return c < 0
		}
		return a.Ordinal < b.Ordinal
	})
	return d, err
}

func collect[T any](txn *memdb.Txn, tbl string, out *[]*T, err *error) {
	it, e := txn.Get(tbl, "id")
	if e != nil {
		*err = errors.Join(*err, fmt.Errorf("shard map table %s: %w", tbl, e))
		return
	}
	for o := it.Next(); o != nil; o = it.Next() {
		*out = append(*out, o.(*T))
	}
}
