// Package exec is the query path: it plans a client's statements, leases servers, sends, relays or merges
// the answers, and keeps the client's transaction.
//
// One goroutine runs the whole path of a session. A server that is leased is either given back clean or
// closed; every way out of a statement goes through release.
package exec

import (
	"context"
	"hash/maphash"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/exec/client"
	"github.com/pgmosaic/pgmosaic/proxy/exec/fresh"
	"github.com/pgmosaic/pgmosaic/proxy/exec/observe"
	"github.com/pgmosaic/pgmosaic/proxy/exec/planner"
	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/notify"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// Engine is what all sessions share.
type Engine struct {
	Catalog *shardmap.Catalog
	Monitor *replication.Monitor
	Horizon *replication.Horizons
	Pools   *pool.Manager
	Reader  *schema.Reader // of definitions
	Metrics *metrics.Metrics
	Log     *slog.Logger

	// Defaults of the session settings.
	Level        replication.Level
	MaxStaleness time.Duration
	GatherLimit  int64         // bytes that one statement may gather, or hold in a merge
	MergeMemory  atomic.Int64  // bytes that the merges of all may hold; 0: no limit
	Commit       client.Commit // how a transaction that has written to several shards commits
	Primary      time.Duration // how long work of our own waits for a shard's primary, 2 s
	SettleWithin time.Duration // how long a client waits for what became of a commit whose answer was lost, 5 s
	Fallback     bool          // reads that no replica is fit for go to the primary; false: they are refused
	Zone         string        // where this process is: replicas of the same zone are read first
	Failover     Failover
	Observer     observe.Observer

	Turns Turns

	// Settle finds out what became of a two-phase commit whose answer was lost, and finishes it.
	Settle func(ctx context.Context, database, gid string) (committed bool, err error)

	// FinishOn commits what a decided transaction has left prepared on a shard.
	FinishOn func(ctx context.Context, database, shard, gid string) error

	// Renames finds out what became of the tables of a database that a transaction was renaming, and tells the map.
	Renames func(ctx context.Context, database string) error

	// Hub delivers notifications to sessions that LISTEN.
	Hub *notify.Hub
	// Signal ends another client (terminate) or cancels what it does, for a role that may. It is false for a
	// pid that is no client's.
	Signal func(pid uint32, database, role string, terminate bool) bool

	ShardUsers atomic.Pointer[[]string] // who may set pgmosaic.shard; "*" for everybody

	seeds [2]maphash.Seed

	Planner *planner.Planner // made by Init
	fresh   fresh.Sources
	Memory  memory.Ledger // what sessions hold; its Limit is set before Init
	texts   texts
	debts   branch.Debts
	rooms   branch.Rooms

	mu      sync.Mutex // guards welcome
	welcome welcomes
	logins  logins
}

// Init makes the engine ready. The exported fields must be set before and stay as they are.
func (e *Engine) Init() error {
	p, err := planner.New(planner.Parts{Catalog: e.Catalog, Reader: e.Reader, Nodes: e, Memory: &e.Memory, Log: e.Log, Changed: e.forgetWelcomes})
	if err != nil {
		return err
	}
	e.Planner = p
	e.Observer.Log = e.Log
	e.fresh = fresh.Sources{Horizon: e.Horizon, Monitor: e.Monitor, Pools: e.Pools, Metrics: e.Metrics}
	e.texts.shared = map[string]*sharedText{}
	e.seeds[0], e.seeds[1] = maphash.MakeSeed(), maphash.MakeSeed()
	e.welcome.of, e.welcome.with = map[welcomeKey]*welcome{}, map[[2]string]string{}
	if e.Primary == 0 {
		e.Primary = 2 * time.Second
	}
	if e.SettleWithin == 0 {
		e.SettleWithin = 5 * time.Second
	}
	return nil
}

// Teller is the shard to ask what all shards say alike, roles and settings for instance, with the connection string of its
// primary: home, which is waited for a little, or else the first that is served.
func (e *Engine) Teller(ctx context.Context, db *shardmap.DB) (*shardmap.ShardInfo, string, error) {
	dsn, err := e.PrimaryDSN(ctx, db, db.Home)
	if err == nil {
		return db.Home, dsn, nil
	}
	if sh := e.served(db); sh != db.Home {
		dsn, err = e.PrimaryDSN(ctx, db, sh)
		return sh, dsn, err
	}
	return nil, "", err
}

// served is home, or another shard if home is not served now and the other is.
func (e *Engine) served(db *shardmap.DB) *shardmap.ShardInfo {
	serves := func(sh *shardmap.ShardInfo) bool {
		v := e.Monitor.View(db.Name, sh.Name)
		return v != nil && v.Serves()
	}
	if i := slices.IndexFunc(db.Shards, serves); i >= 0 && !serves(db.Home) {
		return db.Shards[i]
	}
	return db.Home
}

// PrimaryDSN is the connection string of a shard's primary, waiting a little for it to be known.
func (e *Engine) PrimaryDSN(ctx context.Context, db *shardmap.DB, sh *shardmap.ShardInfo) (string, error) {
	v, err := e.servingView(ctx, db.Name, sh.Name)
	if err != nil {
		return "", err
	}
	return v.Nodes[v.Primary].DSN, nil
}

// AnyDSN is the connection string of a shard's primary, or, while it has none, of a healthy replica.
func (e *Engine) AnyDSN(ctx context.Context, db *shardmap.DB, sh *shardmap.ShardInfo) (dsn string, replica bool, err error) {
	if v := e.Monitor.View(db.Name, sh.Name); v != nil && !v.Serves() {
		for i := range v.Nodes {
			if n := &v.Nodes[i]; !n.Primary && i != v.Primary && n.Verdict.Health == replication.Eligible {
				return n.DSN, true, nil
			}
		}
	}
	dsn, err = e.PrimaryDSN(ctx, db, sh)
	return dsn, false, err
}

// servingView returns the shard's view once it has a primary that serves.
func (e *Engine) servingView(ctx context.Context, db, shard string) (*replication.View, error) {
	late := time.NewTimer(e.Primary)
	defer late.Stop()
	for {
		v := e.Monitor.View(db, shard)
		var changed <-chan struct{}
		var joins <-chan time.Time
		switch {
		case v == nil: // the monitor has not taken the map over that names it
			joins = time.After(branch.LookAgain)
		case v.Serves():
			return v, nil
		default:
			changed = v.Changed()
		}
		select {
		case <-changed:
		case <-joins:
		case <-late.C:
			return nil, branch.NoPrimary(shard, v, "")
		case <-ctx.Done():
			return nil, branch.NoPrimary(shard, v, "")
		}
	}
}

// stmtKey identifies a statement on servers: equal keys mean the same. meaning is the session's, see there.
func (e *Engine) stmtKey(sql string, types []uint32, meaning string) pool.StmtKey {
	sql += "\x00" + meaning
	if len(types) > 0 {
		for _, t := range types {
			sql += "\x00" + strconv.Itoa(int(t))
		}
	}
	return pool.StmtKey{maphash.String(e.seeds[0], sql), maphash.String(e.seeds[1], sql)}
}
