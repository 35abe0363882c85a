package planner

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// View is a map and a schema that statements are planned by.
type View struct {
	DB     *shardmap.DB // nil in a View that is none
	Schema *schema.Snapshot
}

// Session is what one session plans by. The session's own goroutine uses it.
type Session struct {
	View                    // set by TakeMap and TakeSchema, or to what a transaction sees of its own
	Map  *shardmap.Snapshot // that the View is of
	Env  router.Env         // Moved is called when it is changed

	planner *Planner
	name    string // of the database
	known   *database
	count   *metrics.Database
	space   Space
	moved   bool
	whole   bool          // the schema was taken that goes with the map
	using   atomic.Uint64 // see Using

	// What the last lookup needed, to be used again.
	key      []byte
	literals []sqlparse.Literal
}

// Circumstances are what the planner asks of a session while it plans.
type Circumstances interface {
	Leave()                                                                       // what comes takes long
	Shared() bool                                                                 // equal texts mean the same in other sessions of the same Space
	Analyze(ctx context.Context, s *sqlparse.Statement) (*router.Template, error) // plans one statement
}

// Planned is a statement ready to be bound.
type Planned struct {
	Template *router.Template
	Literals []sqlparse.Literal // of its text, when the template is shared with other texts; good until the next statement is planned
}

// Open begins a session of a database that exists. It can plan once it has taken a map and a schema.
func (p *Planner) Open(database string, env router.Env, count *metrics.Database) Session {
	return Session{planner: p, name: database, Env: env, count: count, known: p.Schemas.database(database), moved: true}
}

// Moved says that Env or the View has changed: plans of before are not those of now.
func (s *Session) Moved() { s.moved = true }

// Rest lets go of what the next statement needs no more than the one before.
func (s *Session) Rest() { s.key, s.literals = nil, nil }

// NoDatabase is what a client is told whose database is not in the map.
func NoDatabase(name string) error {
	return &pgsql.Error{Code: pgsql.InvalidCatalogName, Message: "database \"" + name + "\" does not exist", Hint: "SHOW DATABASES on the admin database lists them."}
}

// ErrHomeBack ends the sessions that began while home was away.
var ErrHomeBack = &pgsql.Error{
	Code: pgsql.AdminShutdown, Message: "terminating connection: it began while home's shard was away, and the types that it was told of have other OIDs now that it is back",
	Hint: "Connect again.",
}

// TakeMap takes a map into use.
func (s *Session) TakeMap(m *shardmap.Snapshot) error {
	db := m.Databases[s.name]
	if db == nil {
		return NoDatabase(s.name)
	}
	if db.Home == nil {
		return router.Refuse(router.RuleNoShard)
	}
	s.Map, s.DB, s.moved, s.whole = m, db, true, false
	s.useNewer()
	return nil
}

// TakeSchema takes the newest schema into use, reading it if nobody has yet: leave is called before. A session that has been told of other
// types than the schema's gets ErrHomeBack.
func (s *Session) TakeSchema(ctx context.Context, leave func()) (err error) {
	db := s.Map.Databases[s.name]
	cur := s.Newest()
	if cur == nil {
		leave()
		if cur, err = s.planner.Schemas.Get(ctx, db); err != nil {
			return err
		}
	}
	if !cur.Knows(db) {
		leave()
		if cur, err = s.planner.Schemas.withAllTypes(ctx, db, cur); err != nil {
			return err
		}
	}
	if s.Schema != nil && s.Schema.StandIn != "" && cur.StandIn != s.Schema.StandIn {
		return ErrHomeBack
	}
	if cur != s.Schema {
		s.Schema, s.moved = cur, true
	}
	s.DB, s.whole = s.planner.Schemas.WithPartitions(db, cur), true
	return nil
}

// InUse says whether a map is what the session plans by, and the newest schema with it. A map is not whose schema could not be read: without
// it the partitions of distributed tables would be home's own.
func (s *Session) InUse(m *shardmap.Snapshot) bool {
	return m == s.Map && s.whole && s.Newest() == s.Schema
}

// Resolve asks for the types of shards that could not be asked before, if one of them is served again since then: served says since when,
// zero for one that is not. Without it such a shard is asked when a statement has a server of it, which may be too late to plan it again.
func (s *Session) Resolve(ctx context.Context, leave func(), served func(shard string) time.Time) {
	tried := s.known.tried.Load()
	for name, doubt := range s.Schema.Doubts {
		if tried == nil || doubt != schema.Unread || !served(name).After(*tried) {
			continue
		}
		leave()
		_ = s.planner.Schemas.Resolve(ctx, s.DB, "") // who needs them is told
		return
	}
}

// Newest is the newest schema of the session's database, nil if none has been read. It takes no lock.
func (s *Session) Newest() *schema.Snapshot { return s.known.current.Load() }

// SeenAt is when the session's schema was last found to be home's.
func (s *Session) SeenAt() time.Time {
	if checked := s.known.checked.Load(); checked != nil && checked.After(s.Schema.At) {
		return *checked
	}
	return s.Schema.At
}

// Space is that of the session's present circumstances.
func (s *Session) Space() Space {
	if s.moved {
		s.space = s.planner.cache.space(strings.Join([]string{
			s.name, s.Env.Role, strings.Join(s.Env.SearchPath, "\x01"),
			strconv.FormatUint(s.DB.Shape, 10), strconv.FormatUint(s.Schema.Version, 10),
		}, "\x00"))
		s.moved = false
	}
	return s.space
}

// treeCost is how many bytes of trees and facts, in C and here, a byte of text needs at most while it is planned.
const treeCost = 100

// longText is the length of a statement, in bytes, from which on it holds up others to plan it.
const longText = 1 << 10

// Plan finds or makes the plan of a text with one statement. several is returned instead when the text holds more.
func (s *Session) Plan(ctx context.Context, c Circumstances, sql []byte) (p Planned, several []*sqlparse.Statement, err error) {
	space := s.Space()
	key, lits, ok := sqlparse.Strip(append(s.key[:0], space[:]...), s.literals[:0], sql)
	s.key, s.literals = key, lits
	shared := ok && c.Shared()
	if shared {
		if p, hit := s.lookUp(space, sql); hit {
			return p, nil, nil
		}
	}
	s.count.PlanMisses.Add(1)
	if len(sql) > longText {
		c.Leave()
	}
	reading := int64(len(sql)) * treeCost
	if err := s.planner.memory.Take(memory.Parsing, reading); err != nil {
		return Planned{}, nil, err
	}
	defer s.planner.memory.Give(memory.Parsing, reading)
	stmts, err := s.parse(string(sql))
	if err != nil {
		return Planned{}, nil, err
	}
	if len(stmts) > 1 {
		return Planned{}, stmts, nil
	}
	t, err := c.Analyze(ctx, stmts[0])
	if err != nil {
		return Planned{}, nil, err
	}
	if !shared || !c.Shared() || s.Space() != space { // it may have been planned by a newer schema
		return Planned{Template: t}, nil, nil
	}
	size := t.Slim(mostPlan)
	if !t.Exact && t.NumberLiterals(lits) {
		s.planner.cache.keep(string(key), &entry{tmpl: t}, size)
		return Planned{t, lits}, nil, nil
	}
	s.planner.cache.keep(string(key), &entry{exact: true}, 0)
	s.keepExactly(space, t, size)
	return Planned{Template: t}, nil, nil
}

// lookUp finds the plan of a text whose key and literals are at hand.
func (s *Session) lookUp(space Space, sql []byte) (Planned, bool) {
	e, hit := s.planner.cache.find(s.key)
	switch {
	case !hit:
		return Planned{}, false
	case e.exact:
		t := s.exactly(space, sql)
		return Planned{Template: t}, t != nil
	}
	s.count.PlanHits.Add(1)
	e.hits.Add(1)
	return Planned{e.tmpl, s.literals}, true
}

// exactly is the cached plan of this very text, nil if there is none.
func (s *Session) exactly(space Space, sql []byte) *router.Template {
	full := append(append(append(make([]byte, 0, len(sql)+10), space[:]...), 2), sql...)
	e, hit := s.planner.cache.find(full)
	if !hit {
		return nil
	}
	s.count.PlanHits.Add(1)
	e.hits.Add(1)
	return e.tmpl
}

// keepExactly caches a plan for its own text only.
func (s *Session) keepExactly(space Space, t *router.Template, size int) {
	if len(t.Stmt.Text) < 8192 && t.Class != router.Control && t.Stmt.Kind != sqlparse.Insert {
		s.planner.cache.keep(string(space[:])+"\x02"+t.Stmt.Text, &entry{tmpl: t}, size)
	}
}

// PlanExactly plans a text whose plan is shared with other literals for its own: a prepared statement's values are its parameters. Sessions
// that prepare the same text share it.
func (s *Session) PlanExactly(c Circumstances, sql string) (*router.Template, error) {
	space := s.Space()
	if c.Shared() {
		if t := s.exactly(space, unsafe.Slice(unsafe.StringData(sql), len(sql))); t != nil {
			return t, nil
		}
	}
	stmts, err := s.parse(sql)
	if err != nil {
		return nil, err
	}
	t, err := router.Analyze(stmts[0], s.DB, s.Schema, s.Env)
	if err != nil {
		return nil, err
	}
	if size := t.Slim(mostPlan); c.Shared() {
		s.keepExactly(space, t, size)
	}
	return t, nil
}

func (s *Session) parse(text string) ([]*sqlparse.Statement, error) {
	panics.Point("planner")
	stmts, err := sqlparse.Parse(text)
	var se *sqlparse.SyntaxError
	if errors.As(err, &se) {
		if len(s.DB.Shards) == 1 { // newer syntax, or a mistake: the server knows
			return []*sqlparse.Statement{{Kind: sqlparse.Other, Text: text, Syntax: se}}, nil
		}
		return nil, &router.Error{Code: pgsql.SyntaxError, Message: se.Message, Pos: se.Position}
	}
	return stmts, err
}
