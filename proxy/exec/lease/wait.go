package lease

import (
	"context"
	"errors"

	"github.com/pgmosaic/pgmosaic/proxy/loop"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

// Acquire waits for a server of a pool, unless the client cancels meanwhile, or moved is closed. It is not the session's yet: see Track.
func (l *Servers) Acquire(ctx context.Context, task *loop.Task, p *pool.Pool, set *pool.Settings, inTx bool, moved <-chan struct{}) (s *pool.Server, waited bool, err error) {
	err = l.awaits(ctx, task, func(w *pool.Wait) (err error) {
		s, waited, err = p.Acquire(ctx, set, inTx, w, moved)
		return err
	})
	return s, waited, err
}

// Unpark lets the session go on on the server that it keeps: like others that want one, it waits while there is a pause.
func (l *Servers) Unpark(ctx context.Context, task *loop.Task, s *pool.Server) error {
	for !s.Unpark() {
		if err := l.awaits(ctx, task, func(w *pool.Wait) error { return s.AwaitPause(ctx, w) }); err != nil {
			return err
		}
	}
	return nil
}

// awaits runs a wait, which the client's cancel request ends.
func (l *Servers) awaits(ctx context.Context, task *loop.Task, f func(*pool.Wait) error) error {
	if l.wait == nil {
		l.wait = pool.NewWait(task)
		l.stopWait = l.wait.Stop
	}
	l.wait.Begin()
	start := l.waitBegins(l.stopWait)
	err := f(l.wait)
	l.waitEnds(start)
	if err != nil && (errors.Is(err, pool.ErrStopped) || ctx.Err() != nil) {
		err = l.WhyEnded(ctx, err)
	}
	return err
}

// WhyEnded is what the client is told of a wait that was ended; ctx is the session's own.
func (l *Servers) WhyEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return l.reason()
}
