package planner

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// Schemas are what is known of each database's definitions. They are read when the first session needs them, and again when something
// has changed them.
type Schemas struct {
	parts Parts

	mu sync.Mutex // guards of
	of map[string]*database
}

// database is the newest schema snapshot of a database, and the one flight that reads it anew.
type database struct {
	current atomic.Pointer[schema.Snapshot]
	mu      sync.Mutex // held while reading
	asked   atomic.Uint64
	home    *schema.Types             // what current translates to; guarded by mu
	tried   atomic.Pointer[time.Time] // when the shards were last asked for their types
	parts   atomic.Pointer[withParts]
	checked atomic.Pointer[time.Time] // when it was last found to be home's still; a number would follow a clock that jumps
}

// withParts is a database with the partitions that a schema has.
type withParts struct {
	db     *shardmap.DB
	schema *schema.Snapshot
	out    *shardmap.DB
}

// readTimeout bounds how long the schema of a database may take to be read.
const readTimeout = 30 * time.Second

func (s *Schemas) database(name string) *database {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.of[name]
	if d == nil {
		d = &database{}
		s.of[name] = d
	}
	return d
}

// WithPartitions is the database with the partitions of its declared tables. All sessions share it.
func (s *Schemas) WithPartitions(db *shardmap.DB, sch *schema.Snapshot) *shardmap.DB {
	d := s.database(db.Name)
	if p := d.parts.Load(); p != nil && p.db == db && p.schema == sch {
		return p.out
	}
	p := &withParts{db, sch, db.WithPartitions(sch.Partitions())}
	d.parts.Store(p)
	return p.out
}

// Get returns the schema of a database, reading it the first time: from home, or, while that is away, from another shard.
func (s *Schemas) Get(ctx context.Context, db *shardmap.DB) (*schema.Snapshot, error) {
	d := s.database(db.Name)
	if cur := d.current.Load(); cur != nil {
		return cur, nil
	}
	return s.read(ctx, db, d, 0)
}

// withAllTypes is the schema with the types of all shards of a database: some may have joined since known was read.
func (s *Schemas) withAllTypes(ctx context.Context, db *shardmap.DB, known *schema.Snapshot) (*schema.Snapshot, error) {
	d := s.database(db.Name)
	d.asked.CompareAndSwap(known.Version, known.Version+1)
	return s.read(ctx, db, d, known.Version+1)
}

// Refresh reads the schema anew, because something changed it.
func (s *Schemas) Refresh(ctx context.Context, db *shardmap.DB) (*schema.Snapshot, error) {
	d := s.database(db.Name)
	if s.parts.Changed != nil {
		s.parts.Changed()
	}
	return s.read(ctx, db, d, d.asked.Add(1))
}

// read reads unless somebody has read it since the caller asked.
func (s *Schemas) read(ctx context.Context, db *shardmap.DB, d *database, asked uint64) (*schema.Snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.current.Load()
	if known != nil && known.Version >= asked {
		return known, nil
	}
	return s.readAnew(ctx, db, d, known)
}

// readAnew reads all of it. The database's mu is held.
func (s *Schemas) readAnew(ctx context.Context, db *shardmap.DB, d *database, known *schema.Snapshot) (*schema.Snapshot, error) {
	if db.Home == nil {
		return nil, router.Refuse(router.RuleNoShard)
	}
	version := d.asked.Load()
	teller, dsn, err := s.teller(ctx, db, known)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	snap, types, err := s.parts.Reader.Load(ctx, schema.Server{Database: db.Name, Shard: teller.Name, DSN: dsn}, version, len(db.Shards) > 1)
	if err != nil {
		return nil, unread(db, teller, err)
	}
	if teller != db.Home {
		snap.StandIn = teller.Name
		s.parts.Log.Warn("home's shard is away: the schema was read from another", "database", db.Name, "home", db.Home.Name, "shard", teller.Name)
	}
	s.mapTypes(ctx, db, teller, types, snap)
	d.home = types
	d.current.Store(snap)
	return snap, nil
}

// teller is whom to ask: what home said is better than what another says now.
func (s *Schemas) teller(ctx context.Context, db *shardmap.DB, known *schema.Snapshot) (*shardmap.ShardInfo, string, error) {
	if known == nil || known.StandIn != "" {
		return s.parts.Nodes.Teller(ctx, db)
	}
	dsn, err := s.parts.Nodes.PrimaryDSN(ctx, db, db.Home)
	return db.Home, dsn, err
}

func unread(db *shardmap.DB, sh *shardmap.ShardInfo, err error) error {
	return &pgsql.Failure{Code: pgsql.ConnectionFailure, Message: fmt.Sprintf("cannot read the schema of database %q from shard %s", db.Name, sh.Name), Cause: err}
}

// mapTypes reads the user types of every shard, to be translated to home's, or those of the shard that stands in for it. A shard that
// cannot be reached stays in doubt.
func (s *Schemas) mapTypes(ctx context.Context, db *shardmap.DB, teller *shardmap.ShardInfo, home *schema.Types, snap *schema.Snapshot) {
	snap.Maps, snap.Doubts = map[string]*schema.TypeMap{}, map[string]schema.Doubt{}
	if len(db.Shards) < 2 {
		return
	}
	snap.Ask(db)
	var of []*shardmap.ShardInfo
	for _, sh := range db.Shards {
		if sh != teller {
			of = append(of, sh)
		}
	}
	for i, t := range s.typesOf(ctx, db, of, home) {
		t.into(snap, of[i].Name)
	}
}

// told are the types of a shard, and what is not sure of them.
type told struct {
	types *schema.TypeMap
	doubt schema.Doubt
}

// into puts them into a snapshot.
func (t told) into(snap *schema.Snapshot, shard string) {
	delete(snap.Maps, shard)
	delete(snap.Doubts, shard)
	if t.types != nil {
		snap.Maps[shard] = t.types
	}
	if t.doubt != 0 {
		snap.Doubts[shard] = t.doubt
	}
}

// typesOf translates the types of shards.
func (s *Schemas) typesOf(ctx context.Context, db *shardmap.DB, shards []*shardmap.ShardInfo, home *schema.Types) []told {
	now := time.Now()
	s.database(db.Name).tried.Store(&now)
	out := make([]told, len(shards))
	var wg sync.WaitGroup
	for i, sh := range shards {
		wg.Go(func() { out[i] = s.typesOfOne(ctx, db, sh, home) })
	}
	wg.Wait()
	return out
}

// typesOfOne translates the types of a shard.
func (s *Schemas) typesOfOne(ctx context.Context, db *shardmap.DB, sh *shardmap.ShardInfo, home *schema.Types) (t told) {
	err := panics.Catch(panics.Session, func() error {
		dsn, replica, err := s.parts.Nodes.AnyDSN(ctx, db, sh)
		if err != nil {
			return err
		}
		types, err := s.parts.Reader.LoadTypes(ctx, schema.Server{Database: db.Name, Shard: sh.Name, DSN: dsn})
		if err != nil {
			return err
		}
		t.types = schema.MapTypes(home, types)
		if replica {
			t.doubt = schema.OfReplica
		}
		return nil
	}, nil)
	if err != nil {
		s.parts.Log.Warn("the types of a shard could not be read", "database", db.Name, "shard", sh.Name, "error", err)
		return told{doubt: schema.Unread}
	}
	return t
}

// Resolve asks the shards again whose types are in doubt. What is known stays, and keeps its plans, if they say nothing new. The
// error names a shard whose types are wanted and are still not known. Any goroutine may call it.
func (s *Schemas) Resolve(ctx context.Context, db *shardmap.DB, wanted string) error {
	d, begun := s.database(db.Name), time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.current.Load()
	if known == nil || wanted != "" && known.Doubts[wanted] != schema.Unread {
		return nil
	}
	if tried := d.tried.Load(); wanted != "" && tried != nil && tried.After(begun) { // somebody else has, meanwhile
		return unresolved(wanted)
	}
	var of []*shardmap.ShardInfo
	for _, sh := range db.Shards {
		if known.Doubts[sh.Name] != 0 {
			of = append(of, sh)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	copied := *known
	next := &copied
	next.Maps, next.Doubts = maps.Clone(known.Maps), maps.Clone(known.Doubts)
	news := false
	for i, t := range s.typesOf(ctx, db, of, d.home) {
		name := of[i].Name
		was := known.Doubts[name]
		if t.doubt == schema.Unread && was != schema.Unread { // what a replica said is as good as before
			continue
		}
		news = news || t.doubt != was || !t.types.Equal(known.Maps[name])
		t.into(next, name)
	}
	switch {
	case !news:
	case d.asked.CompareAndSwap(known.Version, known.Version+1):
		next.Version++
		d.current.Store(next)
	default: // all of it is to be read anew, and whoever has asked for that may have failed
		var err error
		if next, err = s.readAnew(ctx, db, d, known); err != nil {
			return err
		}
	}
	if next.Doubts[wanted] == schema.Unread {
		return unresolved(wanted)
	}
	return nil
}

func unresolved(shard string) error {
	return &pgsql.Error{Code: pgsql.CannotConnectNow, Message: fmt.Sprintf("the types of shard %s are not known: it could not be asked", shard), Hint: "The log says why. SHOW REPLICAS on the admin database shows its nodes."}
}
