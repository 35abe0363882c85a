package planner

import (
	"context"
	"sync"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// What others define, on a node itself or through another process, is noticed in two ways: by a look at home's catalogs every few
// seconds, and at once where a statement names something that nobody knows.

const (
	watchPeriod = 5 * time.Second
	watchMost   = time.Minute // between two looks, however long one takes
	watchShare  = 50          // of the time at most one part in so many is spent looking, short of watchMost
)

// Watch looks for definitions that were made around this process until ctx ends. Each database is looked at by itself: many
// databases, a large one or one whose primary does not answer hold up nobody else's look.
func (s *Schemas) Watch(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	watched := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range watched {
			stop()
		}
	}()
	for {
		dbs := s.parts.Catalog.Current().Databases
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
					_ = panics.Keep(own, "schema of "+name, func(ctx context.Context) error { s.watch(ctx, name); return nil })
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

// watch looks for what others define in one database until ctx ends.
func (s *Schemas) watch(ctx context.Context, name string) {
	var last, before time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pauseAfter(last, before)):
		}
		db, known := s.parts.Catalog.Current().Databases[name], s.database(name).current.Load()
		if db == nil || known == nil || len(db.Shards) < 2 {
			continue
		}
		panics.Point("schema watch")
		dsn, err := s.parts.Nodes.PrimaryDSN(ctx, db, db.Home)
		if err != nil {
			continue // its statements wait for a primary, too
		}
		begun := time.Now()
		fp, err := s.parts.Reader.Fingerprint(ctx, schema.Server{Database: db.Name, Shard: db.Home.Name, DSN: dsn})
		last, before = time.Since(begun), last
		switch now := s.database(name).current.Load(); {
		case err != nil || now != known:
		case known.StandIn != "" || fp != known.Fingerprint:
			_, err = s.Refresh(ctx, db)
		case len(known.Doubts) > 0:
			err = s.Resolve(ctx, db, "")
		}
		if err != nil && ctx.Err() == nil {
			s.parts.Log.Warn("schema", "database", name, "error", err)
		}
	}
}

// pauseAfter is the time until the next look by what the last two took. One that was slow by chance delays nothing.
func pauseAfter(last, before time.Duration) time.Duration {
	return min(max(watchPeriod, watchShare*min(last, before)), watchMost)
}

// Check reads the schema anew if home's is another by now. One that is the same keeps its plans. Any goroutine may call it; its error is a
// client's to be told.
func (s *Schemas) Check(ctx context.Context, db *shardmap.DB) error {
	d := s.database(db.Name)
	known := d.current.Load()
	dsn, err := s.parts.Nodes.PrimaryDSN(ctx, db, db.Home)
	if err != nil {
		return err
	}
	fp, err := s.parts.Reader.Fingerprint(ctx, schema.Server{Database: db.Name, Shard: db.Home.Name, DSN: dsn})
	if err != nil {
		return unread(db, db.Home, err)
	}
	now := time.Now()
	d.checked.Store(&now)
	switch {
	case known == nil || known.StandIn != "" || known.Fingerprint != fp:
		_, err = s.Refresh(ctx, db)
	case len(known.Doubts) > 0:
		err = s.Resolve(ctx, db, "")
	}
	return err
}
