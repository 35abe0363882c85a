package exec

import (
	"context"
	"time"

	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// What others define, on a node itself or through another process, is noticed in two ways: by a look at home's catalogs every few
// seconds, and at once where a statement names something that nobody knows.

const (
	watchPeriod = 5 * time.Second
	watchShare  = 50                     // of the time at most one part in so many is spent looking
	nameAge     = 200 * time.Millisecond // how old the schema may be that does not know a name
)

// WatchSchemas looks for definitions that were made around this process until ctx ends.
func (e *Engine) WatchSchemas(ctx context.Context) error {
	watchers := map[string]*schema.Watcher{}
	defer func() {
		for _, w := range watchers {
			w.Close(ctx)
		}
	}()
	wait := watchPeriod
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		begun := time.Now()
		for name, db := range e.Catalog.Current().Databases {
			known := e.schemaOf(name).current.Load()
			if known == nil || len(db.Shards) < 2 {
				continue
			}
			if watchers[name] == nil {
				watchers[name] = &schema.Watcher{}
			}
			dsn, err := e.PrimaryDSN(ctx, db, db.Home)
			if err != nil {
				continue // its statements wait for a primary, too
			}
			fp, err := watchers[name].Fingerprint(ctx, dsn)
			if err == nil && (known.Partial || fp != known.Fingerprint) && e.schemaOf(name).current.Load() == known {
				_, err = e.RefreshSchema(ctx, db)
			}
			if err != nil && ctx.Err() == nil {
				e.Log.Warn("schema", "database", name, "error", err)
			}
		}
		for name, w := range watchers {
			if e.Catalog.Current().Databases[name] == nil {
				w.Close(ctx)
				delete(watchers, name)
			}
		}
		wait = max(watchPeriod, watchShare*time.Since(begun))
	}
}

// checkSchema reads the schema anew if home's is another by now. One that is the same keeps its plans.
func (e *Engine) checkSchema(ctx context.Context, db *shardmap.DB) error {
	s := e.schemaOf(db.Name)
	known := s.current.Load()
	dsn, err := e.PrimaryDSN(ctx, db, db.Home)
	if err != nil {
		return err
	}
	var w schema.Watcher
	defer w.Close(ctx)
	fp, err := w.Fingerprint(ctx, dsn)
	if err != nil {
		return &nodeError{"08006", "cannot read the schema of database \"" + db.Name + "\" from shard " + db.Home.Name, err}
	}
	s.checked.Store(time.Now().UnixNano())
	if known == nil || known.Partial || known.Fingerprint != fp {
		_, err = e.RefreshSchema(ctx, db)
	}
	return err
}

// learn has a statement that names what the schema does not know planned by one that is read anew: by the transaction's own eyes
// inside of one. What was read just now is not read again, unless it must. false: there is nothing newer.
func (h *Handler) learn(ctx context.Context, must bool) (newer bool, err error) {
	before := h.schema
	if checked := time.Unix(0, h.e.schemaOf(h.db).checked.Load()); !must && time.Since(later(before.At, checked)) <= nameAge {
		return false, nil
	}
	if h.tx.status == 'I' && h.ext.cur == nil || len(h.tx.parts) == 0 && h.ext.cur == nil {
		if err := h.e.checkSchema(ctx, h.dbmap); err != nil {
			return false, err
		}
		if h.tx.base.db == nil {
			err = h.refresh(ctx)
		}
		return h.schema != before, err
	}
	h.tx.defined = true
	err = h.reread(ctx)
	return h.schema != before, err
}
