package exec

import (
	"context"
	"sync"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// What others define, on a node itself or through another process, is noticed in two ways: by a look at home's catalogs every few
// seconds, and at once where a statement names something that nobody knows.

const (
	watchPeriod = 5 * time.Second
	watchMost   = time.Minute            // between two looks, however long one takes
	watchShare  = 50                     // of the time at most one part in so many is spent looking, short of watchMost
	nameAge     = 200 * time.Millisecond // how old the schema may be that does not know a name
)

// WatchSchemas looks for definitions that were made around this process until ctx ends. Each database is looked at by itself: many
// databases, a large one or one whose primary does not answer hold up nobody else's look.
func (e *Engine) WatchSchemas(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	watched := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range watched {
			stop()
		}
	}()
	for {
		dbs := e.Catalog.Current().Databases
		for name, stop := range watched {
			if dbs[name] == nil {
				stop()
				delete(watched, name)
			}
		}
		for name := range dbs {
			if watched[name] == nil {
				own, stop := context.WithCancel(ctx)
				watched[name] = stop
				all.Go(func() {
					_ = panics.Keep(own, "schema of "+name, func(ctx context.Context) error { e.watchSchema(ctx, name); return nil })
				})
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchPeriod):
		}
	}
}

// watchSchema looks for what others define in one database until ctx ends.
func (e *Engine) watchSchema(ctx context.Context, name string) {
	var took, before time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pauseAfter(took, before)):
		}
		db, known := e.Catalog.Current().Databases[name], e.schemaOf(name).current.Load()
		if db == nil || known == nil || len(db.Shards) < 2 {
			continue
		}
		panics.Point("schema watch")
		dsn, err := e.PrimaryDSN(ctx, db, db.Home)
		if err != nil {
			continue // its statements wait for a primary, too
		}
		begun := time.Now()
		fp, err := e.Schemas.Fingerprint(ctx, dsn)
		took, before = time.Since(begun), took
		if err == nil && (known.StandIn != "" || known.Partial || fp != known.Fingerprint) && e.schemaOf(name).current.Load() == known {
			_, err = e.RefreshSchema(ctx, db)
		}
		if err != nil && ctx.Err() == nil {
			e.Log.Warn("schema", "database", name, "error", err)
		}
	}
}

// pauseAfter is the time until the next look by what the last two took. One that was slow by chance delays nothing.
func pauseAfter(took, before time.Duration) time.Duration {
	return min(max(watchPeriod, watchShare*min(took, before)), watchMost)
}

// CheckSchema reads the schema anew if home's is another by now. One that is the same keeps its plans. Any goroutine may call it; its error is a
// client's to be told.
func (e *Engine) CheckSchema(ctx context.Context, db *shardmap.DB) error {
	s := e.schemaOf(db.Name)
	known := s.current.Load()
	dsn, err := e.PrimaryDSN(ctx, db, db.Home)
	if err != nil {
		return err
	}
	fp, err := e.Schemas.Fingerprint(ctx, dsn)
	if err != nil {
		return &nodeError{pgsql.ConnectionFailure, "cannot read the schema of database \"" + db.Name + "\" from shard " + db.Home.Name, err}
	}
	now := time.Now()
	s.checked.Store(&now)
	if known == nil || known.StandIn != "" || known.Partial || known.Fingerprint != fp {
		_, err = e.RefreshSchema(ctx, db)
	}
	return err
}

// learn has a statement that names what the schema does not know planned by one that is read anew: by the transaction's own eyes
// inside of one. What was read just now is not read again, unless it must. false: there is nothing newer.
func (h *Handler) learn(ctx context.Context, must bool) (newer bool, err error) {
	before := h.schema
	known := before.At
	if checked := h.e.schemaOf(h.db).checked.Load(); checked != nil {
		known = later(known, *checked)
	}
	if !must && time.Since(known) <= nameAge {
		return false, nil
	}
	if h.tx.status == 'I' && h.ext.cur == nil || len(h.tx.parts) == 0 && h.ext.cur == nil {
		h.client.Leave()
		if err := h.e.CheckSchema(ctx, h.dbmap); err != nil {
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
