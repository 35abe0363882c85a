package access

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

const (
	askedFor   = 10 * time.Second // how long an answer of auth_query is kept
	askedLimit = 10000            // of those that name a user, and of those that do not
	askTimeout = 10 * time.Second // of a look-up, the wait for its turn included
	askRetry   = time.Second      // how long a home that cannot be reached is left alone
	askIdle    = time.Minute      // how long a connection without work is kept
)

// questions are the look-ups of auth_query: who may log in is asked by anybody, before any authentication. So each database has one
// connection, on which one look-up goes after the other, and what was answered is remembered: names that do not exist by
// themselves, so that whoever tries many makes no other forgotten.
type questions struct {
	mu      sync.Mutex // guards the maps
	known   map[string]asked
	unknown map[string]asked
	askers  map[string]*asker // by database
	now     func() time.Time
	count   func(bytes int64) error
}

type asked struct {
	cred   auth.Credential
	until  time.Time
	weight int64
}

// askedWeight is what an answer holds besides its name and its salt.
const askedWeight = 400

// asker is a database's connection. Whoever has taken its turn owns the rest.
type asker struct {
	turn   chan struct{}
	conn   *pgx.Conn
	dsn    string
	used   time.Time
	failed error // of the last try to connect, until then
	until  time.Time
}

func newQuestions(now func() time.Time, count func(bytes int64) error) *questions {
	return &questions{now: now, count: count, known: map[string]asked{}, unknown: map[string]asked{}, askers: map[string]*asker{}}
}

func (q *questions) remembered(key string) (auth.Credential, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range []map[string]asked{q.known, q.unknown} {
		if a, ok := m[key]; ok && q.now().Before(a.until) {
			return a.cred, true
		}
	}
	return auth.Credential{}, false
}

func (q *questions) remember(key string, c auth.Credential, exists bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.unknown
	if exists {
		m = q.known
	}
	if len(m) >= askedLimit {
		q.dropLocked(m, q.now().Add(askedFor))
	}
	if old, ok := m[key]; ok {
		delete(m, key)
		_ = q.count(-old.weight)
	}
	weight := int64(len(key)+c.SaltBytes()) + askedWeight
	if q.count(weight) != nil {
		return // it is asked again
	}
	m[key] = asked{c, q.now().Add(askedFor), weight}
}

// forget forgets what was answered and holds for no longer than until then.
func (q *questions) forget(until time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropLocked(q.known, until)
	q.dropLocked(q.unknown, until)
}

func (q *questions) dropLocked(m map[string]asked, until time.Time) {
	for key, a := range m {
		if !a.until.After(until) {
			delete(m, key)
			_ = q.count(-a.weight) // never fails
		}
	}
}

func (q *questions) of(database string) *asker {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.askers[database]
	if a == nil {
		a = &asker{turn: make(chan struct{}, 1)}
		q.askers[database] = a
	}
	return a
}

// run closes connections without work, and all when ctx ends.
func (q *questions) run(ctx context.Context) error {
	tick := time.NewTicker(askIdle / 2)
	defer tick.Stop()
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-tick.C:
		}
		q.forget(q.now())
		q.mu.Lock()
		var all []*asker
		for _, a := range q.askers {
			all = append(all, a)
		}
		q.mu.Unlock()
		for _, a := range all {
			a.turn <- struct{}{} // a look-up ends by askTimeout
			if ended || q.now().Sub(a.used) > askIdle {
				a.close(ctx)
			}
			<-a.turn
		}
	}
	return nil
}

func (a *asker) close(ctx context.Context) {
	if a.conn != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = a.conn.Close(ctx) // it has only read
		a.conn = nil
	}
}

// query looks a user up on the home shard of its database, or on another while that is away: roles are the same on all. The
// connection has seen none of the client's parameters.
func (g *Gate) query(ctx context.Context, database, user string) (auth.Credential, error) {
	key := database + "\x00" + user
	if cred, ok := g.questions.remembered(key); ok {
		return cred, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	ask := g.questions.of(database)
	select {
	case ask.turn <- struct{}{}:
	case <-ctx.Done():
		return auth.Credential{}, &pgsql.Error{Code: pgsql.TooManyConnections, Message: "too many logins wait to be looked up", Hint: "Try again; users that the configuration names are not looked up."}
	}
	defer func() { <-ask.turn }()
	if cred, ok := g.questions.remembered(key); ok { // by who had the turn before
		return cred, nil
	}
	cred, exists, err := g.look(ctx, ask, database, user)
	if err != nil {
		g.log.Warn("auth_query", "database", database, "error", err)
		return auth.Credential{}, &pgsql.Error{Code: pgsql.ConnectionFailure, Message: "the user could not be looked up", Hint: "The proxy's log says why."}
	}
	g.questions.remember(key, cred, exists)
	return cred, nil
}

// look asks over a database's connection, of which the caller has the turn. One that broke while nobody used it is opened anew.
func (g *Gate) look(ctx context.Context, ask *asker, database, user string) (cred auth.Credential, exists bool, err error) {
	ask.used = g.now()
	fresh := ask.conn == nil || ask.conn.IsClosed() || g.ask.Moved(database, ask.dsn)
	for {
		if fresh {
			if err := g.reach(ctx, ask, database); err != nil {
				return cred, false, err
			}
		}
		cred, exists, err = g.askOn(ctx, ask.conn, user)
		if err == nil || fresh || !ask.conn.IsClosed() || ctx.Err() != nil {
			return cred, exists, err
		}
		fresh = true
	}
}

// reach connects. A server that could not be reached just now is not tried again for each login.
func (g *Gate) reach(ctx context.Context, ask *asker, database string) error {
	dsn, whose, err := g.ask.Server(ctx, database)
	if err != nil {
		return err
	}
	if ask.dsn == dsn && ask.failed != nil && g.now().Before(ask.until) {
		return ask.failed
	}
	ask.close(ctx)
	conn, err := nodeconn.Open(ctx, dsn, nodeconn.AuthQuery, whose)
	iterations := auth.Iterations
	if err == nil {
		err = conn.QueryRow(ctx, "select coalesce(current_setting('scram_iterations', true), $1::text)::int", fmt.Sprint(auth.Iterations)).Scan(&iterations)
	}
	if err != nil && conn != nil {
		_ = conn.Close(ctx) // nothing was done on it
		conn = nil
	}
	ask.conn, ask.dsn, ask.failed, ask.until = conn, dsn, err, g.now().Add(askRetry)
	if err == nil {
		g.iterations.Store(int64(iterations))
	}
	return err
}

func (g *Gate) askOn(ctx context.Context, conn *pgx.Conn, user string) (cred auth.Credential, exists bool, err error) {
	var name string
	var verifier *string
	err = conn.QueryRow(ctx, g.Access().query, user).Scan(&name, &verifier)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && (verifier == nil || name != user) {
		return g.fake(user), false, nil
	}
	if err != nil {
		return cred, false, err
	}
	if cred, err = auth.ParseVerifier(*verifier); err != nil {
		return cred, false, fmt.Errorf("user %q: %w", user, err)
	}
	var may bool
	err = conn.QueryRow(ctx, "select rolcanlogin and coalesce(rolvaliduntil > now(), true) from pg_roles where rolname = $1", user).Scan(&may)
	switch {
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return cred, false, err
	case err == nil && !may:
		return g.fake(user), false, nil
	}
	return cred, true, nil
}
