// Package reshard changes what stands where: it declares databases, shards, nodes and groups in the map, moves tables and schemas between
// shards while they are in use, and looks whether rows and definitions are where and what they have to be. It speaks no SQL of the admin
// console, and knows no client.
package reshard

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Mover changes the map and moves data. Its fields are set once, before use; it may be used by any goroutine.
type Mover struct {
	Catalog      *shardmap.Catalog
	Monitor      *replication.Monitor
	Conns        *nodeconn.Kept // where connections to shards are kept between statements; nil: nowhere
	Log          *slog.Logger
	PauseTimeout time.Duration // how long a move waits for those who use what moves

	// Using describes the clients of a database that run by a map of an older version.
	Using func(database string, before uint64) []string
	// AwaitLeft waits until holds is true, or the context ends: then it is an error. It asks again whenever a client has left an older map.
	AwaitLeft func(ctx context.Context, holds func() bool) error
	// SchemaChanged is told when a database's tables have changed their places.
	SchemaChanged func(ctx context.Context, database string)
	// Homebound refuses tables that run code on the shards of their rows which uses what home alone has. They go together.
	Homebound func(ctx context.Context, database *shardmap.DB, tables []shardmap.TableName) error
	// Joins is told that a shard is about to be in the map, and calls done when it is, or is not to be; nil: nobody wants to know.
	Joins func(ctx context.Context, database, shard, dsn string, whose nodeconn.Whose) (done func())
	// Tell is told what has happened by itself. level is that of a log.
	Tell func(level slog.Level, database, shard, what, reason string)

	ctx      context.Context
	changing sync.Mutex
	jobs     jobs
	checks   sync.Map // of checkOf: Checked
	begun    sync.Map // ids of the attempts that this process has begun
	settling atomic.Bool
	renaming sync.Map // of databases: chan struct{} of one, which Renames holds
}

// Init makes the mover ready; ctx bounds what it does in the background.
func (mv *Mover) Init(ctx context.Context) { mv.ctx = ctx }

// Alone waits until nobody else changes the map in this process. done lets the next one.
func (mv *Mover) Alone() (done func()) {
	mv.changing.Lock()
	return mv.changing.Unlock
}

// Database is one of the map.
func (mv *Mover) Database(name string) (*shardmap.DB, error) {
	d := mv.Catalog.Current().Databases[name]
	if d == nil {
		return nil, &pgsql.Error{Code: pgsql.InvalidCatalogName, Message: fmt.Sprintf("database %q does not exist", name), Hint: "SHOW DATABASES lists them; CREATE DATABASE makes one."}
	}
	return d, nil
}

// Change changes the map, if it says of the database still what d says: the change was decided by that. d may be nil.
func (mv *Mover) Change(ctx context.Context, tag string, dry bool, d *shardmap.DB, edit func(*shardmap.Tx) error) (*shardmap.Snapshot, error) {
	s, err := mv.Catalog.Change(ctx, dry, func(tx *shardmap.Tx) error {
		if d != nil {
			if err := tx.Unchanged(d); err != nil {
				return err
			}
		}
		return edit(tx)
	})
	if err != nil {
		return nil, err
	}
	if !dry {
		mv.Log.Info("map changed", "statement", tag, "version", s.Version)
	}
	return s, nil
}

// done is the map as it is when a statement has changed it in parts.
func (mv *Mover) done(tag string) *shardmap.Snapshot {
	s := mv.Catalog.Current()
	mv.Log.Info("map changed", "statement", tag, "version", s.Version)
	return s
}
