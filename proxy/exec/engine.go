// Package exec is the query path: it plans a client's statements, leases servers, sends, relays or merges
// the answers, and keeps the client's transaction.
//
// One goroutine runs the whole path of a session. A server that is leased is either given back clean or
// closed; every way out of a statement goes through release.
package exec

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/notify"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// Engine is what all sessions share.
type Engine struct {
	Catalog *shardmap.Catalog
	Monitor *replication.Monitor
	Horizon *replication.Horizons
	Pools   *pool.Manager
	Schemas *schema.Reader
	Metrics *metrics.Metrics
	Log     *slog.Logger

	// Defaults of the session settings.
	Level        replication.Level
	MaxStaleness time.Duration
	GatherLimit  int64         // bytes that one statement may gather, or hold in a merge
	MergeMemory  atomic.Int64  // bytes that the merges of all may hold; 0: no limit
	Commit       Commit        // how a transaction that has written to several shards commits
	Primary      time.Duration // how long work of our own waits for a shard's primary, 2 s
	Fallback     bool          // reads that no replica is fit for go to the primary; false: they are refused
	Zone         string        // where this process is: replicas of the same zone are read first
	Failover     Failover
	Logging      atomic.Pointer[Logging]
	Tracing      *Tracing // nil: off

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

	plans *otter.Cache[string, *entry]
	seeds [2]maphash.Seed

	Memory Memory // what sessions hold; its Limit is set before Init
	texts  texts
	owed   owed

	mu      sync.Mutex // guards schemas and welcomes
	schemas map[string]*dbSchema
	welcome welcomes
	logins  atomic.Uint32 // grows with what sessions begin with
	spaces  map[[2]uint64]uint64
	nextID  uint64
	rooms   map[[2]string]*waitingRoom
}

// entry is a cached plan. Exact means that the stripped text shares no plan: look under the full text.
type entry struct {
	tmpl  *router.Template
	exact bool
	key   string
	cost  atomic.Uint32
	hits  atomic.Int64
}

// entryCost is what the cache needs for an entry, besides its key and what hangs on its template.
const entryCost = 150

// keep puts a plan into the cache, unless it would push many others out. size is what hangs on its template.
func (e *Engine) keep(key string, x *entry, size int) {
	if size > planCacheBytes/64 {
		return
	}
	x.key = key
	x.cost.Store(uint32(min(size+len(key)+entryCost, 1<<31)))
	if x.tmpl != nil {
		x.tmpl.Kept = x
	}
	e.plans.Set(key, x)
}

// learn keeps what a server said about a template with it, and with the plan's size.
func (e *Engine) learn(t *router.Template, key, value any) {
	t.Aux.Store(key, value)
	x, cached := t.Kept.(*entry)
	if !cached {
		return
	}
	x.cost.Add(uint32(min(router.SizeOf(value)+entryCost, 1<<30)))
	if now, ok := e.plans.GetIfPresent(x.key); ok && now == x {
		e.plans.Set(x.key, x) // it is weighed again
	}
}

// runs is how often the plan was used.
func (e *entry) runs() int64 { return e.hits.Load() + e.tmpl.Runs.Load() }

// dbSchema is the newest schema snapshot of a database, and the one flight that reads it anew.
type dbSchema struct {
	current atomic.Pointer[schema.Snapshot]
	mu      sync.Mutex // held while reading
	asked   atomic.Uint64
	parts   atomic.Pointer[withParts]
	checked atomic.Pointer[time.Time] // when it was last found to be home's still; a number would follow a clock that jumps
}

// withParts is a database with the partitions that a schema has.
type withParts struct {
	db     *shardmap.DB
	schema *schema.Snapshot
	out    *shardmap.DB
}

// WithPartitions is the database with the partitions of its declared tables. All sessions share it.
func (e *Engine) WithPartitions(db *shardmap.DB, sch *schema.Snapshot) *shardmap.DB {
	s := e.schemaOf(db.Name)
	if p := s.parts.Load(); p != nil && p.db == db && p.schema == sch {
		return p.out
	}
	p := &withParts{db, sch, db.WithPartitions(sch.Partitions())}
	s.parts.Store(p)
	return p.out
}

const planCacheBytes = 64 << 20

// Init makes the engine ready. The exported fields must be set before and stay as they are.
func (e *Engine) Init() error {
	c, err := otter.New(&otter.Options[string, *entry]{
		MaximumWeight: planCacheBytes,
		Weigher:       func(_ string, v *entry) uint32 { return v.cost.Load() },
	})
	if err != nil {
		return fmt.Errorf("plan cache: %w", err)
	}
	e.plans = c
	e.Memory.plans = func() int64 { return int64(c.WeightedSize()) }
	e.texts.shared = map[string]*sharedText{}
	e.seeds[0], e.seeds[1] = maphash.MakeSeed(), maphash.MakeSeed()
	e.schemas, e.welcome.of, e.spaces = map[string]*dbSchema{}, map[welcomeKey]*welcome{}, map[[2]uint64]uint64{}
	e.rooms = map[[2]string]*waitingRoom{}
	if e.Primary == 0 {
		e.Primary = 2 * time.Second
	}
	return nil
}

// PlanCount is the number of cached plans, for SHOW LISTS.
func (e *Engine) PlanCount() int { return e.plans.EstimatedSize() }

// PlanInfo describes a cached plan. Its statement has no literals, which may be secrets.
type PlanInfo struct {
	Database, Route, Statement string
	Exact                      bool // it serves one text only: its literals shape the plan
	Hits                       int64
	Bytes                      int64
	MapVersion, SchemaVersion  uint64
}

// Plans are the cached plans, those used most often first, at most limit of them.
func (e *Engine) Plans(limit int) []PlanInfo {
	var all []*entry
	for _, x := range e.plans.All() {
		if x.tmpl != nil {
			all = append(all, x)
		}
	}
	slices.SortStableFunc(all, func(a, b *entry) int { return cmp.Compare(b.runs(), a.runs()) })
	var out []PlanInfo
	for _, x := range all[:min(limit, len(all))] {
		t := x.tmpl
		out = append(out, PlanInfo{
			Database: t.DB.Name, Route: t.Class.String(), Statement: sqlparse.Normal(t.Stmt.Text), Exact: t.Exact,
			Hits: x.runs(), Bytes: int64(x.cost.Load()), MapVersion: t.DB.Version, SchemaVersion: t.Schema.Version,
		})
	}
	return out
}

func (e *Engine) schemaOf(db string) *dbSchema {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.schemas[db]
	if s == nil {
		s = &dbSchema{}
		e.schemas[db] = s
	}
	return s
}

// Schema returns the schema of a database, reading it the first time: from home, or, while that is away, from another shard.
func (e *Engine) Schema(ctx context.Context, db *shardmap.DB) (*schema.Snapshot, error) {
	s := e.schemaOf(db.Name)
	if cur := s.current.Load(); cur != nil {
		return cur, nil
	}
	return e.readSchema(ctx, db, s, 0)
}

// schemaWith is the schema with the types of all shards of a database: some may have joined since it was read.
func (e *Engine) schemaWith(ctx context.Context, db *shardmap.DB, known *schema.Snapshot) (*schema.Snapshot, error) {
	s := e.schemaOf(db.Name)
	s.asked.CompareAndSwap(known.Version, known.Version+1)
	return e.readSchema(ctx, db, s, known.Version+1)
}

// RefreshSchema reads the schema anew, because something changed it.
func (e *Engine) RefreshSchema(ctx context.Context, db *shardmap.DB) (*schema.Snapshot, error) {
	s := e.schemaOf(db.Name)
	e.mu.Lock()
	e.welcome.clear() // ALTER ROLE and ALTER DATABASE change what new sessions begin with
	e.mu.Unlock()
	return e.readSchema(ctx, db, s, s.asked.Add(1))
}

// readSchema reads unless somebody has read it since the caller asked.
func (e *Engine) readSchema(ctx context.Context, db *shardmap.DB, s *dbSchema, asked uint64) (*schema.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cur := s.current.Load(); cur != nil && cur.Version >= asked {
		return cur, nil
	}
	if db.Home == nil {
		return nil, router.Refuse(router.RuleNoShard)
	}
	version := s.asked.Load()
	ask := e.Teller
	if known := s.current.Load(); known != nil && known.StandIn == "" { // what home said is better than what another says now
		ask = func(ctx context.Context, db *shardmap.DB) (*shardmap.ShardInfo, string, error) {
			dsn, err := e.PrimaryDSN(ctx, db, db.Home)
			return db.Home, dsn, err
		}
	}
	teller, dsn, err := ask(ctx, db)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	snap, types, err := e.Schemas.Load(ctx, dsn, version, len(db.Shards) > 1)
	if err != nil {
		return nil, &nodeError{pgsql.ConnectionFailure, fmt.Sprintf("cannot read the schema of database %q from shard %s", db.Name, teller.Name), err}
	}
	if teller != db.Home {
		snap.StandIn = teller.Name
		e.Log.Warn("home's shard is away: the schema was read from another", "database", db.Name, "home", db.Home.Name, "shard", teller.Name)
	}
	e.mapTypes(ctx, db, teller, types, snap)
	s.current.Store(snap)
	return snap, nil
}

// mapTypes reads the user types of every shard, to be translated to home's, or those of the shard that stands in for it. A shard that cannot be reached has no translation until the
// schema is read again, which its first statement with an unknown type brings about.
func (e *Engine) mapTypes(ctx context.Context, db *shardmap.DB, teller *shardmap.ShardInfo, home *schema.Types, snap *schema.Snapshot) {
	snap.Maps, snap.Asked = map[string]*schema.TypeMap{}, map[string]int{}
	if len(db.Shards) < 2 {
		return
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, sh := range db.Shards {
		if sh == teller {
			continue
		}
		snap.Asked[sh.Name] = sh.Ordinal
		wg.Add(1)
		go func() {
			defer wg.Done()
			var m *schema.TypeMap
			err := panics.Catch(panics.Session, func() error {
				dsn, err := e.PrimaryDSN(ctx, db, sh)
				if err != nil {
					return err
				}
				types, err := e.Schemas.LoadTypes(ctx, dsn)
				if err != nil {
					return err
				}
				m = schema.MapTypes(home, types)
				return nil
			}, nil)
			if err != nil {
				e.Log.Warn("the types of a shard could not be read", "database", db.Name, "shard", sh.Name, "error", err)
				mu.Lock()
				snap.Partial = true
				mu.Unlock()
				return
			}
			if m != nil {
				mu.Lock()
				snap.Maps[sh.Name] = m
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
}

// nodeError is a failure of a node that a client is told of.
type nodeError struct {
	code, message string
	cause         error
}

func (e *nodeError) Error() string { return e.message }
func (e *nodeError) Unwrap() error { return e.cause }

// SQLState is the error's SQLSTATE.
func (e *nodeError) SQLState() string { return e.code }

// ErrorDetail is the cause, as far as it holds no secret.
func (e *nodeError) ErrorDetail() string {
	var s interface{ SQLState() string }
	if errors.As(e.cause, &s) {
		return "SQLSTATE " + s.SQLState()
	}
	return ""
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
	v, err := e.view(ctx, db.Name, sh.Name)
	if err != nil {
		return "", err
	}
	return v.Nodes[v.Primary].DSN, nil
}

// view returns the shard's view once it has a primary that serves.
func (e *Engine) view(ctx context.Context, db, shard string) (*replication.View, error) {
	deadline := time.Now().Add(e.Primary)
	for {
		v := e.Monitor.View(db, shard)
		if v != nil && v.Serves() {
			return v, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, noPrimary(shard, v, "")
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// space numbers a plan's circumstances: database, role, search path, map and schema version. Equal ones
// share plans.
func (e *Engine) space(key string) [8]byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	sum := [2]uint64{maphash.String(e.seeds[0], key), maphash.String(e.seeds[1], key)} // a search_path may be long
	id, ok := e.spaces[sum]
	if !ok {
		if len(e.spaces) > 10000 { // old map and schema versions
			clear(e.spaces)
		}
		e.nextID++
		id = e.nextID
		e.spaces[sum] = id
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], id)
	return b
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
