package session

import (
	"fmt"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// Limits are how long a client may take. Zero means for ever. The names are PgBouncer's.
type Limits struct {
	ClientIdle      time.Duration // client_idle_timeout: outside a transaction
	IdleTransaction time.Duration // idle_transaction_timeout: inside one, between statements
	Transaction     time.Duration // transaction_timeout: for the whole of one
	Query           time.Duration // query_timeout: for one request
}

// vanishAfter is how long a request runs before its client is looked at: it may have left.
const vanishAfter = time.Second

// cancelAgain is how long a statement of a session that ends may run before it is cancelled once more, and cutAfter how long before its servers are
// cut off: a function may catch each cancel request, and a node may not answer.
const (
	cancelAgain = time.Second
	cutAfter    = 10 * time.Second
)

// restAfter is how long a session is idle before it gives up what its work needed.
const restAfter = time.Second

// Canceller is a handler that can be told why a statement is cancelled.
type Canceller interface {
	CancelBecause(why *pgsql.Error, ends bool) (send func())
	// Cut closes the connections of the servers in use. Any goroutine may call it.
	Cut()
}

// errVanished is why a session ends whose client has left in the middle of a request.
var errVanished = &pgsql.Error{Code: pgsql.ConnectionFailure, Message: "connection to client lost"}

// seen is what Watch saw of a session, and when it saw it first: these times cost a request no look at a clock,
// and are right to the period of Watch.
type seen struct {
	requests, txs uint64
	state         State
	tx            byte
	requestAt     time.Time // the present or last request
	stateAt       time.Time // the present state, of that request
	txAt          time.Time // the transaction
	lateAt        time.Time // query_timeout has cancelled the request first
	askedAt       time.Time // and last
	endsAt        time.Time // it has been told to end
	cancelledAt   time.Time // its last statement, because it was told to
	rested        bool      // it was told to rest since its last request
}

func (s *Session) look(now time.Time) seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &s.seen
	requests, txs, state, tx := s.requests.Load(), s.txs.Load(), State(s.state.Load()), byte(s.tx.Load())
	if n.stateAt.IsZero() || requests != n.requests {
		n.requests, n.requestAt, n.stateAt, n.lateAt, n.askedAt, n.rested = requests, now, now, time.Time{}, time.Time{}, requests == 0
	} else if state != n.state {
		n.stateAt = now
	}
	if txs != n.txs || tx != 'I' && n.tx == 'I' {
		n.txs, n.txAt = txs, now
	}
	n.state, n.tx = state, tx
	return *n
}

// Watch compares a session with the limits. It is called now and then from outside. worked says that a request
// has run since the last time.
func (s *Session) Watch(now time.Time, l Limits) (worked bool) {
	n := s.look(now)
	worked = n.state != Ready || n.requestAt.Equal(now) && n.requests > 0
	if why := s.doomed.Load(); why != nil {
		resend, cut := s.lingers(now)
		if resend { // what runs had not begun when it was cancelled, or the cancel request got lost
			panics.Go(panics.Session, func() { s.stop(why) })
		}
		if cut {
			panics.Go(panics.Session, s.cut)
		}
		return worked
	}
	over := func(since time.Time, limit time.Duration) bool { return limit > 0 && now.Sub(since) > limit }
	end := func(code, name string, limit time.Duration) {
		why := &pgsql.Error{Code: code, Message: fmt.Sprintf("%s: terminating connection (%s = %s)", words[name], name, limit)}
		panics.Go(panics.Session, func() { s.Terminate(why) })
	}
	if n.tx != 'I' && over(n.txAt, l.Transaction) {
		end(pgsql.TransactionTimeout, "transaction_timeout", l.Transaction)
		return worked
	}
	switch n.state {
	case Ready:
		switch {
		case n.tx != 'I' && over(n.stateAt, l.IdleTransaction):
			end(pgsql.IdleInTransactionSessionTimeout, "idle_transaction_timeout", l.IdleTransaction)
		case n.tx == 'I' && over(n.stateAt, l.ClientIdle):
			end(pgsql.IdleSessionTimeout, "client_idle_timeout", l.ClientIdle)
		case !n.rested && over(n.stateAt, restAfter):
			s.mu.Lock()
			s.seen.rested = true
			s.mu.Unlock()
			s.resting.Store(true)
			s.wake()
		}
	case Busy:
		if over(n.requestAt, l.Query) {
			s.overdue(now, l.Query)
		}
		if over(n.requestAt, vanishAfter) && wire.Gone(wire.Socket(s.conn)) {
			s.Kill()
			panics.Go(panics.Session, func() { s.Terminate(errVanished) }) // a node that does not answer must not hold up the watch of the others
		}
	case Startup, Authenticating, Closed:
	}
	return worked
}

// overdue cancels a request that takes too long, once in each cancelAgain: a cancel request may get lost. If its servers do not stop
// within cutAfter they are cut off. If that does not end it either, the client does not take what it was sent: the session ends.
func (s *Session) overdue(now time.Time, limit time.Duration) {
	s.mu.Lock()
	n, h := &s.seen, s.opened
	if n.lateAt.IsZero() {
		n.lateAt = now
	}
	ask, late := now.Sub(n.askedAt) >= cancelAgain, now.Sub(n.lateAt)
	if ask {
		n.askedAt = now
	}
	s.mu.Unlock()
	c, ok := h.(Canceller)
	if !ask || !ok {
		return
	}
	switch {
	case late >= 2*cutAfter:
		why := &pgsql.Error{Code: pgsql.QueryCanceled, Message: fmt.Sprintf("query_timeout: terminating connection (query_timeout = %s)", limit)}
		panics.Go(panics.Session, func() { s.Terminate(why) })
	case late >= cutAfter:
		panics.Go(panics.Session, c.Cut)
	default:
		why := &pgsql.Error{Code: pgsql.QueryCanceled, Message: fmt.Sprintf("query_timeout: canceling statement (query_timeout = %s)", limit)}
		panics.Go(panics.Session, c.CancelBecause(why, false)) // begun now, for this request; a node that does not answer holds up no other session
	}
}

// lingers says, once in each cancelAgain, that a session which was told to end is still there, and whether it is to be cut off.
func (s *Session) lingers(now time.Time) (resend, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &s.seen
	if n.endsAt.IsZero() {
		n.endsAt, n.cancelledAt = now, now
	}
	if now.Sub(n.cancelledAt) < cancelAgain {
		return false, false
	}
	n.cancelledAt = now
	return true, now.Sub(n.endsAt) >= cutAfter
}

// cut has the handler give up the servers that do not stop.
func (s *Session) cut() {
	s.mu.Lock()
	h := s.opened
	s.mu.Unlock()
	if c, ok := h.(Canceller); ok {
		c.Cut()
	}
}

// words are PgBouncer's, which people search their logs for.
var words = map[string]string{
	"client_idle_timeout":      "client_idle_timeout",
	"idle_transaction_timeout": "idle transaction timeout",
	"transaction_timeout":      "transaction timeout",
}
