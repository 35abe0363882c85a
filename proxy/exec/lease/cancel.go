package lease

import (
	"context"
	"sync"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// ErrCancelled is what a client is told whose request it has cancelled itself.
var ErrCancelled = &pgsql.Error{Code: pgsql.QueryCanceled, Message: "canceling statement due to user request"}

// cancelTimeout bounds how long servers are asked to stop.
const cancelTimeout = 10 * time.Second

// Begin begins a request: a cancel request that came before is for none of its statements.
func (l *Servers) Begin() { l.asked.Store(false) }

// End ends a request: whatever it was cancelled for is of the past.
func (l *Servers) End() { l.why.Store(nil) }

// AllowCancel says whether cancel requests reach the servers. One that comes while they do not is for a statement that has ended.
func (l *Servers) AllowCancel(yes bool) {
	l.mu.Lock()
	l.noCancel = !yes
	l.mu.Unlock()
}

// Cancel settles which servers are asked to stop: those of now. send asks them, and waits; it must be called. Any goroutine may call both.
func (l *Servers) Cancel() (send func()) {
	l.mu.Lock()
	l.asked.Store(true)
	var begun []func(context.Context) error
	for _, s := range l.held {
		if !l.noCancel {
			begun = append(begun, s.BeginCancel())
		}
	}
	if l.waiting != nil {
		l.waiting()
	}
	l.mu.Unlock()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), cancelTimeout)
		defer cancel()
		var wg sync.WaitGroup
		for _, f := range begun {
			wg.Go(func() {
				if err := panics.Catch(panics.Session, func() error { return f(ctx) }, nil); err != nil {
					l.log.Warn("cancel", "error", err)
				}
			})
		}
		wg.Wait()
	}
}

// CancelBecause is Cancel with a reason. The client is told, in place of the server's words, unless the session ends anyway: then it is told
// by others. Any goroutine may call it.
func (l *Servers) CancelBecause(why *pgsql.Error, ends bool) (send func()) {
	l.why.Store(why)
	l.ending.Store(ends)
	return l.Cancel()
}

// Cut cuts the servers' connections off. Any goroutine may call it.
func (l *Servers) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.held {
		s.CutOff()
	}
}

// Ending says whether the session is being ended from outside.
func (l *Servers) Ending() bool { return l.ending.Load() }

// Stopped is an error if a cancel request has come since the request began. What runs several statements on servers asks between
// them, and before it commits: a server that is just idle takes no notice of the request. Whoever has a shard join a transaction
// has asked.
func (l *Servers) Stopped() error {
	panics.Point("step")
	if !l.asked.Load() {
		return nil
	}
	return l.reason()
}

func (l *Servers) reason() error {
	if why := l.why.Load(); why != nil {
		return why
	}
	return ErrCancelled
}

// Because gives a server's word that a statement was cancelled the reason that is known here, if it is one, and says whether it was.
func (l *Servers) Because(e *wire.ErrorResponse) bool {
	if e.Code != ErrCancelled.Code {
		return false
	}
	why := l.why.Swap(nil)
	if why == nil {
		return false
	}
	e.Code, e.Message, e.Hint, e.Detail = why.Code, why.Message, why.Hint, why.Detail
	return true
}
