// Package notify lets many sessions LISTEN over a few connections.
//
// There is one listening connection for each shard of a database in which somebody listens: a trigger on any
// shard may notify. LISTEN returns when all of them have it. When such a connection is lost, or a shard or its primary is
// another, notifications may have been missed, and every session that listens is told so by ending it: as it would be without us.
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
type Shard struct {
	Name, DSN string
	Whose     nodeconn.Whose
}

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
	// Shards lists where a database's shards are now, and waits a little for primaries that are not known.
	Shards func(ctx context.Context, database string) ([]Shard, error)
	// Now is Shards without a wait: a primary that is not known has no DSN. It takes no lock.
	Now func(database string) []Shard
	// Sender finds the client that last used the server process pid of a shard; 0 for nobody known.
	Sender func(database, shard string, pid uint32) uint32
	Log    *slog.Logger

	ctx context.Context
	wg  sync.WaitGroup

	ops     sync.Mutex // one change of what is listened to at a time
	mu      sync.Mutex // guards the rest; held for look-ups only, since a delivery needs it
	dbs     map[string]*database
	joining map[place]Shard
	busy    int            // how many may be about to keep a connection: see begin
	lefts   int            // how often Left was called
	left    map[string]int // connection strings of nodes that were let go while somebody was busy, by lefts
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
	h.dbs, h.joining, h.left = map[string]*database{}, map[place]Shard{}, map[string]int{}
}

// tries is how often a LISTEN looks anew where the shards are, if that changes while it connects.
const tries = 5

var errMoving = errors.New("the shards, or their primaries, change all the time")

// Listen adds a channel to a session and returns when every shard's connection listens to it.
func (h *Hub) Listen(ctx context.Context, db, channel string, s *Session) error {
	had := s.Has(channel)
	err := s.listens(channel)
	if err != nil {
		return err
	}
	done := false
	for try := 0; err == nil && !done; try++ {
		if done, err = h.listen(ctx, db, channel, s); err == nil && !done && try == tries {
			err = errMoving
		}
	}
	if err != nil && !had {
		s.unlisten(channel)
	}
	return err
}

// listen is one try of Listen. It is false if the shards were not where they had been.
func (h *Hub) listen(ctx context.Context, db, channel string, s *Session) (done bool, err error) {
	since := h.begin()
	defer h.finish()
	shards, err := h.Shards(ctx, db)
	if err != nil {
		return false, err
	}
	h.ops.Lock()
	defer h.ops.Unlock()
	defer h.shrink(db)
	for _, sh := range h.joiningTo(db, shards) {
		ok, err := h.reach(ctx, db, sh, channel, since)
		if err != nil {
			return false, fmt.Errorf("listen on shard %s: %w", sh.Name, err)
		}
		if !ok {
			return false, nil
		}
	}
	if !h.register(db, channel, s) {
		h.end(db, "", "shards, or their primaries, are others")
		return false, nil
	}
	return true, nil
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
	s.unlisten(channel)
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
	var all []ending
	if d := h.dbs[db]; d != nil && d.conns[c.shard] == c {
		all = append(all, h.endLocked(db, c.shard, fmt.Sprint("the connection that listens was lost: ", err)))
	}
	h.mu.Unlock()
	h.tell(all)
}

// conn is one listening connection. Its goroutine owns the PgConn; others ask it to run something.
type conn struct {
	shard string
	dsn   string
	addr  string // that the DSN has led to
	whose nodeconn.Whose
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
	c := &conn{shard: sh.Name, dsn: sh.DSN, whose: sh.Whose, ask: make(chan request), ended: make(chan struct{}), wake: make(chan struct{}, 1)}
	run, halt := context.WithCancel(h.ctx)
	c.halt = halt
	dctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	pc, err := nodeconn.OpenRaw(dctx, sh.DSN, nodeconn.Listen, sh.Whose, func(n *pgconn.Notification) { h.deliver(db, sh.Name, n) })
	if err != nil {
		halt()
		var pe *pgconn.PgError
		if errors.As(err, &pe) {
			return nil, pe
		}
		var stranger *nodeconn.StrangerError
		if errors.As(err, &stranger) {
			return nil, stranger
		}
		if errors.Is(err, nodeconn.ErrString) {
			return nil, err
		}
		return nil, errors.New("cannot connect")
	}
	c.addr = pc.Conn().RemoteAddr().String()
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
			_ = panics.Catch(panics.Background, func() error { h.broken(db, c, err); return nil }, nil)
		}
	}()
	return c, nil
}

// askEvery is how often a connection without anything else to do is asked whether the server is there still, and is the shard's. One that is
// lost without a word would bring nothing for as long as TCP takes to notice, and sessions would wait for what they have missed.
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
			err := command("")
			if err == nil {
				err = c.still(ctx, pc)
			}
			if err != nil {
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

// listen has the connection listen to a channel.
func (c *conn) listen(ctx context.Context, channel string) error {
	return c.exec(ctx, "LISTEN "+pgsql.Ident(channel))
}

// still asks whose the database is that the connection has led to so far: it may have been adopted by another since.
func (c *conn) still(ctx context.Context, pc *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	return c.whose.Ask(ctx, pc)
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
