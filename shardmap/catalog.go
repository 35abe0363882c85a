package shardmap

import (
	"context"
	"errors"
	"fmt"
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
	schema := memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, k := range kinds {
		schema.Tables[k.table] = k.schema
	}
	db, err := memdb.NewMemDB(&schema)
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
	tx := c.begin()
	base := tx.base
	defer tx.txn.Abort()
	if err := edit(tx); err != nil {
		return nil, err
	}
	doc, err := tx.document()
	if err != nil {
		return nil, err
	}
	doc.Version = base.Version + 1
	if doc.Secret == "" {
		doc.Secret = newSecret()
	}
	snap, err := compile(doc, base)
	if err != nil || dryRun {
		return snap, err
	}
	tx.txn.Abort() // the store's word, not ours, decides what is published
	if err := c.store.Save(ctx, base.Version, doc); err != nil {
		if errors.Is(err, ErrConflict) {
			c.CatchUp(ctx)
		}
		return nil, err
	}
	return snap, c.publish(snap, base)
}

// begin opens a change of the map in force.
func (c *Catalog) begin() *Tx {
	c.mu.Lock() // nothing is published between: the tables say what the map in force does
	defer c.mu.Unlock()
	txn := c.db.Txn(true)
	txn.TrackChanges()
	base := c.current.Load()
	return &Tx{txn: txn, base: base, setup: base.Document.Setup}
}

// SetUp notes how far the setting up of a new map is; nil: it is done.
func (c *Catalog) SetUp(ctx context.Context, s *Setup) error {
	_, err := c.Change(ctx, false, func(tx *Tx) error { tx.setup = s; return nil })
	return err
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
	was, before := c.current.Load(), &Document{}
	if was != nil {
		before = was.Document
	}
	if was != nil && doc.Version <= was.Version {
		return nil
	}
	snap, err := compile(doc.sharing(before), was)
	if err != nil {
		return err
	}
	return c.publish(snap, was)
}

// sharing is a document that shares with the one before it all objects that say the same.
func (d *Document) sharing(before *Document) *Document {
	out := *d
	for _, k := range kinds {
		k.share(&out, before)
	}
	return &out
}

// publish publishes a snapshot that was compiled behind another, which is nil for the first. Where that is not the one in force any more, it
// is compiled anew.
func (c *Catalog) publish(snap, behind *Snapshot) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, before := c.current.Load(), &Document{}
	if was != nil {
		before = was.Document
	}
	if was != nil && snap.Version <= was.Version {
		return nil
	}
	if was != behind {
		var err error
		if snap, err = compile(snap.Document.sharing(before), was); err != nil {
			return err
		}
	}
	doc, txn := snap.Document, c.db.Txn(true)
	defer txn.Abort()
	for _, k := range kinds {
		if err := k.write(txn, before, doc); err != nil {
			return err
		}
	}
	txn.Commit()
	snap.At, snap.superseded = time.Now(), make(chan struct{})
	c.current.Store(snap)
	for _, f := range c.listeners {
		f(snap)
	}
	if was != nil {
		close(was.superseded)
	}
	return nil
}
