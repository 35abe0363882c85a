// Package planner keeps what statements are planned by: the plans that sessions share, each database's schema, and the map and
// schema that a session has in use. It sends nothing to a session's servers and knows no transaction.
package planner

import (
	"context"
	"log/slog"

	"github.com/pgmosaic/pgmosaic/proxy/cond"
	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// Planner is what all sessions plan with. Its methods, and those of its parts, may be called by any goroutine.
type Planner struct {
	Schemas Schemas

	cache  *cache
	memory *memory.Ledger
	left   cond.Var // a session has left a map that is not the newest
}

// Nodes finds whom to ask about definitions.
type Nodes interface {
	// Teller is the shard to ask what all shards say alike, with the connection string of its primary: home, or, while that is
	// away, another one.
	Teller(ctx context.Context, db *shardmap.DB) (*shardmap.ShardInfo, string, error)

	// PrimaryDSN is the connection string of a shard's primary.
	PrimaryDSN(ctx context.Context, db *shardmap.DB, sh *shardmap.ShardInfo) (string, error)

	// AnyDSN is that of a shard's primary, or, while there is none, of a replica.
	AnyDSN(ctx context.Context, db *shardmap.DB, sh *shardmap.ShardInfo) (dsn string, replica bool, err error)
}

// Parts are what a planner is made of.
type Parts struct {
	Catalog *shardmap.Catalog
	Reader  *schema.Reader
	Nodes   Nodes
	Memory  *memory.Ledger
	Log     *slog.Logger

	// Changed is called before a schema is read again because something changed it; nil: nobody wants to know.
	Changed func()
}

// New makes a planner. Its plans count in the ledger from then on.
func New(p Parts) (*Planner, error) {
	c, err := newCache()
	if err != nil {
		return nil, err
	}
	p.Memory.CountPlans(c.weight)
	return &Planner{cache: c, memory: p.Memory, Schemas: Schemas{parts: p, of: map[string]*database{}}}, nil
}
