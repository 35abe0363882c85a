// Package notify lets many sessions LISTEN over a few connections.
//
// There is one listening connection for each shard of a database in which somebody listens: a trigger on any
// shard may notify. LISTEN returns when all of them have it. When such a connection is lost, notifications may
// have been missed, and every session that listens is told so by ending it: as it would be without us.
package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Notification is one message to one session.
type Notification struct {
	PID uint32 // of the sender, as its client knows itself where that is known
	*Message
}

// Shard is where to listen.
type Shard struct{ Name, DSN string }

// maxQueued bounds what waits for one session that is in a transaction.
const maxQueued = 10000

// Session is one session's share: its channels and what came for it.
type Session struct {
	wake   func()
	lost   func(why error)
	memory Memory

	mu       sync.Mutex // guards the rest
	channels map[string]bool
	queue    []Notification
	held     int64 // bytes of both
	closed   bool
}

// NewSession makes a session that listens to nothing. wake is called when something came, lost when
// something may have been missed, with the reason if it is the session's own; neither may block. What the session holds is counted in memory.
func NewSession(wake func(), lost func(why error), memory Memory) *Session {
	return &Session{wake: wake, lost: lost, memory: memory, channels: map[string]bool{}}
}

// Take returns what came since the last call.
func (s *Session) Take() []Notification {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeLocked()
}

// Listens says whether the session listens to anything.
func (s *Session) Listens() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.channels) > 0
}

// Channels lists what the session listens to.
func (s *Session) Channels() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, 0, len(s.channels))
	for c := range s.channels {
		out = append(out, c)
	}
	sort.Strings(out)
	return out
}

func (s *Session) offer(n Notification) {
	if why := s.queued(n); why != nil {
		s.lost(why)
		return
	}
	s.wake()
}

// Hub owns the listening connections.
type Hub struct {
	// Shards lists where a database's shards are now.
	Shards func(ctx context.Context, database string) ([]Shard, error)
	// Sender finds the client that last used the server process pid of a shard; 0 for nobody known.
	Sender func(database, shard string, pid uint32) uint32
	Log    *slog.Logger

	ctx context.Context
	wg  sync.WaitGroup

	ops sync.Mutex // one change of what is listened to at a time
	mu  sync.Mutex // guards the maps; held for look-ups only, since a delivery needs it
	dbs map[string]*database
}

type database struct {
	sessions map[string]map[*Session]bool // by channel
	conns    map[string]*conn             // by shard
}

// Run ends with ctx, when every connection is closed. Nothing may be called before Run or after it.
func (h *Hub) Run(ctx context.Context) error {
	<-ctx.Done()
	h.wg.Wait()
	return nil
}

// Init makes the hub ready; ctx bounds its connections.
func (h *Hub) Init(ctx context.Context) {
	h.ctx = ctx
	h.dbs = map[string]*database{}
}

// Listen adds a channel to a session and returns when every shard's connection listens to it.
func (h *Hub) Listen(ctx context.Context, db, channel string, s *Session) error {
	shards, err := h.Shards(ctx, db)
	if err != nil {
		return err
	}
	h.ops.Lock()
	defer h.ops.Unlock()
	for _, sh := range shards {
		c, others := h.connOf(db, sh.Name)
		if c == nil || c.dead() {
			if c, err = h.open(ctx, db, sh); err != nil {
				h.shrink(db)
				return fmt.Errorf("listen on shard %s: %w", sh.Name, err)
			}
			h.keep(db, c)
		} else if others[channel] {
			continue
		} else {
			others = map[string]bool{}
		}
		others[channel] = true
		for name := range others {
			if err := c.exec(ctx, "LISTEN "+pgsql.Ident(name)); err != nil {
				h.shrink(db)
				return fmt.Errorf("listen on shard %s: %w", sh.Name, err)
			}
		}
	}
	if err := s.listens(channel); err != nil {
		h.shrink(db)
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.databaseLocked(db)
	if d.sessions[channel] == nil {
		d.sessions[channel] = map[*Session]bool{}
	}
	d.sessions[channel][s] = true
	return nil
}

func (h *Hub) databaseLocked(db string) *database {
	d := h.dbs[db]
	if d == nil {
		d = &database{sessions: map[string]map[*Session]bool{}, conns: map[string]*conn{}}
		h.dbs[db] = d
	}
	return d
}

// connOf returns a shard's connection, if there is one, and the channels that are listened to.
func (h *Hub) connOf(db, shard string) (*conn, map[string]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.databaseLocked(db)
	names := map[string]bool{}
	for n := range d.sessions {
		names[n] = true
	}
	return d.conns[shard], names
}

func (h *Hub) keep(db string, c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.databaseLocked(db).conns[c.shard] = c
}

// Unlisten takes a channel, or for "" every one, from a session.
func (h *Hub) Unlisten(ctx context.Context, db, channel string, s *Session) {
	names := []string{channel}
	if channel == "" {
		names = s.Channels()
	}
	if len(names) == 0 {
		return
	}
	h.ops.Lock()
	defer h.ops.Unlock()
	for _, n := range names {
		for _, c := range h.remove(db, n, s) {
			if !c.dead() {
				_ = c.exec(ctx, "UNLISTEN "+pgsql.Ident(n)) // a channel too many does no harm
			}
		}
	}
	h.shrink(db)
}

// remove takes a channel from a session and returns the connections that need no longer listen to it.
func (h *Hub) remove(db, channel string, s *Session) []*conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.deaf(channel)
	d := h.dbs[db]
	if d == nil || d.sessions[channel] == nil {
		return nil
	}
	delete(d.sessions[channel], s)
	if len(d.sessions[channel]) > 0 {
		return nil
	}
	delete(d.sessions, channel)
	if len(d.sessions) == 0 {
		return nil // the connections go as a whole
	}
	var out []*conn
	for _, c := range d.conns {
		out = append(out, c)
	}
	return out
}

// shrink closes a database's connections when nobody listens any more.
func (h *Hub) shrink(db string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.dbs[db]
	if d == nil || len(d.sessions) > 0 {
		return
	}
	for _, c := range d.conns {
		c.stop()
	}
	delete(h.dbs, db)
}

// Barrier returns when every notification that was committed before the call has been handed to its sessions.
func (h *Hub) Barrier(ctx context.Context, db string) {
	h.mu.Lock()
	var conns []*conn
	if d := h.dbs[db]; d != nil {
		for _, c := range d.conns {
			conns = append(conns, c)
		}
	}
	h.mu.Unlock()
	for _, c := range conns {
		if !c.dead() {
			_ = c.exec(ctx, "") // it is lost: its sessions are told
		}
	}
}

// Stats counts the listening connections and the channels, for SHOW LISTS.
func (h *Hub) Stats() (conns, channels int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.dbs {
		conns += len(d.conns)
		channels += len(d.sessions)
	}
	return conns, channels
}

func (h *Hub) deliver(db, shard string, n *pgconn.Notification) {
	panics.Point("notify")
	pid := n.PID
	if c := h.Sender(db, shard, pid); c != 0 {
		pid = c
	}
	m := &Message{Channel: n.Channel, Payload: n.Payload}
	for _, s := range h.listeners(db, n.Channel) {
		s.offer(Notification{PID: pid, Message: m})
	}
}

func (h *Hub) listeners(db, channel string) []*Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*Session
	if d := h.dbs[db]; d != nil {
		for s := range d.sessions[channel] {
			out = append(out, s)
		}
	}
	return out
}

// broken tells everybody who listens in a database that a connection was lost.
func (h *Hub) broken(db string, c *conn, err error) {
	h.mu.Lock()
	d := h.dbs[db]
	if d == nil || d.conns[c.shard] != c {
		h.mu.Unlock()
		return
	}
	delete(d.conns, c.shard)
	seen := map[*Session]bool{}
	for _, set := range d.sessions {
		for s := range set {
			seen[s] = true
		}
	}
	h.mu.Unlock()
	h.Log.Warn("the connection that listens for notifications was lost: the sessions that listen are ended", "database", db, "shard", c.shard, "sessions", len(seen), "error", err)
	for s := range seen {
		s.lost(nil)
	}
}

// conn is one listening connection. Its goroutine owns the PgConn; others ask it to run something.
type conn struct {
	shard string
	ask   chan request
	ended chan struct{}
	wake  chan struct{} // interrupts the wait for notifications
	halt  context.CancelFunc
}

type request struct {
	sql  string
	done chan error
}

// commandTimeout bounds one command on a listening connection.
const commandTimeout = 10 * time.Second

func (h *Hub) open(ctx context.Context, db string, sh Shard) (*conn, error) {
	c := &conn{shard: sh.Name, ask: make(chan request), ended: make(chan struct{}), wake: make(chan struct{}, 1)}
	run, halt := context.WithCancel(h.ctx)
	c.halt = halt
	dctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	pc, err := nodeconn.OpenRaw(dctx, sh.DSN, nodeconn.Listen, func(n *pgconn.Notification) { h.deliver(db, sh.Name, n) })
	if err != nil {
		halt()
		var pe *pgconn.PgError
		if errors.As(err, &pe) {
			return nil, pe
		}
		if errors.Is(err, nodeconn.ErrString) {
			return nil, err
		}
		return nil, errors.New("cannot connect")
	}
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		err := panics.Catch(panics.Background, func() error { return c.run(run, pc) }, func() []any { return []any{"task", "listen on " + sh.Name, "database", db} })
		stopped := run.Err() != nil
		halt()
		close(c.ended)
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = pc.Close(closing)
		if !stopped {
			h.broken(db, c, err)
		}
	}()
	return c, nil
}

// askEvery is how often a connection without anything else to do is asked whether the server is there still. One that is lost without a
// word would bring nothing for as long as TCP takes to notice, and sessions would wait for what they have missed.
const askEvery = 10 * time.Second

// run waits for notifications and runs what it is asked to in between.
func (c *conn) run(ctx context.Context, pc *pgconn.PgConn) error {
	for {
		wait, stop := context.WithTimeout(ctx, askEvery)
		watching := make(chan struct{})
		go func() { // ends with wait
			defer close(watching)
			select {
			case <-c.wake:
				stop()
			case <-wait.Done():
			}
		}()
		err := pc.WaitForNotification(wait)
		idle := errors.Is(wait.Err(), context.DeadlineExceeded)
		stop()
		<-watching
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && pc.IsClosed() {
			return err
		}
		command := func(sql string) error {
			ctx, cancel := context.WithTimeout(ctx, commandTimeout)
			defer cancel()
			_, err := pc.Exec(ctx, sql).ReadAll()
			return err
		}
		if idle {
			if err := command(""); pc.IsClosed() {
				return err
			}
		}
		for more := true; more; {
			select {
			case r := <-c.ask:
				err := command(r.sql)
				r.done <- err
				if pc.IsClosed() {
					return err
				}
			default:
				more = false
			}
		}
	}
}

var errLost = errors.New("the connection was lost")

// exec runs a command on the connection's goroutine. Notifications that had come before are delivered first.
func (c *conn) exec(ctx context.Context, sql string) error {
	r := request{sql, make(chan error, 1)}
	for {
		select {
		case c.wake <- struct{}{}:
		default:
		}
		select {
		case c.ask <- r:
			select {
			case err := <-r.done:
				return err
			case <-c.ended:
				return errLost
			}
		case <-c.ended:
			return errLost
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond): // it was busy when it was woken: wake it again
		}
	}
}

func (c *conn) dead() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

func (c *conn) stop() { c.halt() }

// Has says whether the session listens to a channel.
func (s *Session) Has(channel string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.channels[channel]
}
