package lease

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

func open(waited func(time.Duration)) *Servers {
	l := &Servers{}
	l.Open(7, slog.New(slog.DiscardHandler), waited)
	return l
}

// A cancel request ends the wait that it meets, and none that begins later.
func TestCancelEndsTheWaitOfTheMoment(t *testing.T) {
	waits := 0
	l := open(func(time.Duration) { waits++ })
	if !l.Waiting().IsZero() {
		t.Error("it waits before it does")
	}
	ctx, done := l.Waits(t.Context())
	if l.Waiting().IsZero() {
		t.Error("it does not wait while it does")
	}
	l.Cancel()()
	if ctx.Err() == nil {
		t.Error("the wait goes on")
	}
	if err := l.WhyEnded(t.Context(), ctx.Err()); !errors.Is(err, ErrCancelled) {
		t.Errorf("the client is told %v", err)
	}
	done()
	if !l.Waiting().IsZero() || waits != 1 {
		t.Errorf("it waits since %s, %d waits were told", l.Waiting(), waits)
	}
	later, done := l.Waits(t.Context())
	defer done()
	if later.Err() != nil {
		t.Error("a wait that began later has ended")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.WhyEnded(gone, gone.Err()); !errors.Is(err, context.Canceled) {
		t.Errorf("of a session that ends the wait ended by %v", err)
	}
}

// What is told of a cancelled request is the reason, if there is one, and it is told once.
func TestReasonsOfCancels(t *testing.T) {
	l := open(func(time.Duration) {})
	if err := l.Stopped(); err != nil {
		t.Error(err)
	}
	l.Cancel()()
	if err := l.Stopped(); !errors.Is(err, ErrCancelled) {
		t.Errorf("a client's own cancel is told as %v", err)
	}
	l.Begin()
	if err := l.Stopped(); err != nil {
		t.Errorf("the next request is stopped: %v", err)
	}
	why := &pgsql.Error{Code: pgsql.AdminShutdown, Message: "why", Hint: "hint", Detail: "detail"}
	l.CancelBecause(why, true)()
	if err := l.Stopped(); !errors.Is(err, why) || !l.Ending() {
		t.Errorf("%v, ending %v", err, l.Ending())
	}
	other := &wire.ErrorResponse{Code: pgsql.DivisionByZero, Message: "x"}
	if l.Because(other) || other.Message != "x" {
		t.Errorf("another error became %+v", other)
	}
	e := &wire.ErrorResponse{Code: pgsql.QueryCanceled, Message: "canceling statement due to user request"}
	if !l.Because(e) || e.Code != why.Code || e.Message != "why" || e.Hint != "hint" || e.Detail != "detail" {
		t.Errorf("the server's word became %+v", e)
	}
	if e := (&wire.ErrorResponse{Code: pgsql.QueryCanceled, Message: "x"}); l.Because(e) || e.Message != "x" {
		t.Errorf("it is told twice: %+v", e)
	}
	l.CancelBecause(why, false)()
	l.End()
	if e := (&wire.ErrorResponse{Code: pgsql.QueryCanceled}); l.Because(e) {
		t.Error("a reason outlives its request")
	}
}

func TestWhyAServerIsKept(t *testing.T) {
	l := open(func(time.Duration) {})
	l.Keep("temporary table")
	if cause, since := l.Kept(); cause != "temporary table" || since.IsZero() {
		t.Errorf("%q since %s", cause, since)
	}
	l.Keep("")
	if cause, _ := l.Kept(); cause != "" || l.Any() || l.Count() != 0 || l.Link() != 0 || l.InUse() {
		t.Errorf("%q, %d servers", cause, l.Count())
	}
}

// A session that gives a server back which it does not hold any more is at fault: another session may have it by now.
func TestASessionGivesBackWhatItHolds(t *testing.T) {
	s := &pool.Server{Pool: &pool.Pool{Node: "n"}}
	l := open(func(time.Duration) {})
	defer func() {
		if recover() == nil {
			t.Error("a server that it does not hold was given back")
		}
		if st := s.State(); st != pool.Leased {
			t.Errorf("the other's server is %s", st)
		}
	}()
	l.Free(s, time.Time{})
}
