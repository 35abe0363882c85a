package session

import (
	"fmt"
	"time"

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

// Canceller is a handler that can be told why a statement is cancelled.
type Canceller interface {
	CancelBecause(why *wire.PgError, ends bool)
}

// Watch compares a session with the limits. It is called now and then from outside, so that a request costs
// nothing for it.
func (s *Session) Watch(now time.Time, l Limits) {
	since := func(ns int64) time.Duration { return now.Sub(time.Unix(0, ns)) }
	over := func(d, limit time.Duration) bool { return limit > 0 && d > limit }
	end := func(code, name string, limit time.Duration) {
		s.Terminate(&wire.PgError{Code: code, Message: fmt.Sprintf("%s: terminating connection (%s = %s)", words[name], name, limit)})
	}
	if b := s.began.Load(); b > 0 && over(since(b), l.Transaction) {
		end("25P04", "transaction_timeout", l.Transaction)
		return
	}
	switch State(s.state.Load()) {
	case Ready:
		idle := since(s.rested.Load())
		switch {
		case s.tx.Load() != 'I' && over(idle, l.IdleTransaction):
			end("25P03", "idle_transaction_timeout", l.IdleTransaction)
		case s.tx.Load() == 'I' && over(idle, l.ClientIdle):
			end("57P05", "client_idle_timeout", l.ClientIdle)
		}
	case Busy:
		began := s.request.Load()
		if over(since(began), l.Query) && s.timedOut.Swap(began) != began {
			s.mu.Lock()
			h := s.opened
			s.mu.Unlock()
			if c, ok := h.(Canceller); ok {
				c.CancelBecause(&wire.PgError{Code: "57014", Message: fmt.Sprintf("query_timeout: canceling statement (query_timeout = %s)", l.Query)}, false)
			}
		}
		if since(began) > vanishAfter && wire.Gone(s.conn.NetConn()) {
			s.mu.Lock()
			h := s.opened
			s.mu.Unlock()
			if h != nil {
				h.Cancel()
			}
			s.Kill()
		}
	}
}

// words are PgBouncer's, which people search their logs for.
var words = map[string]string{
	"client_idle_timeout":      "client_idle_timeout",
	"idle_transaction_timeout": "idle transaction timeout",
	"transaction_timeout":      "transaction timeout",
}
