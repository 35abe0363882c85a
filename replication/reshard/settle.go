package reshard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// A statement that cannot end as it should, because the map's store cannot be written or a shard is away, leaves its attempt in the
// map. It is gone on with in the background until it is settled: tables that it was at are of use to nobody meanwhile.

// recoverPause is the time before the first try. The time before each further one is twice as long, up to the other: a try may wait for a lock, and others
// behind it.
const (
	recoverPause     = time.Second
	longRecoverPause = 15 * time.Second
)

// laterError is why something is left that keeps nothing else from being changed.
type laterError struct{ err error }

func (e *laterError) Error() string { return e.err.Error() }
func (e *laterError) Unwrap() error { return e.err }

// Unfinished is an attempt that a statement of this process has begun and that has not ended; nil if there is none.
func (mv *Mover) Unfinished() *shardmap.Attempt {
	for _, x := range mv.Catalog.Current().Document.Attempts {
		if _, mine := mv.begun.Load(x.ID); mine {
			return x
		}
	}
	return nil
}

// SettleLater has the background go on with what statements of this process have left.
func (mv *Mover) SettleLater() {
	if mv.settling.CompareAndSwap(false, true) {
		panics.Go(panics.Background, func() {
			for {
				settleOnce(mv)
				if mv.ctx.Err() != nil || mv.Unfinished() == nil || !mv.settling.CompareAndSwap(false, true) {
					return
				}
			}
		})
	}
}

// settleOnce is settleRest, behind which another may begin, after a panic too.
func settleOnce(mv *Mover) {
	defer mv.settling.Store(false)
	mv.settleRest(mv.ctx)
}

// settleRest tries until all is settled, or ctx ends. A statement that is just at work is let end.
func (mv *Mover) settleRest(ctx context.Context) {
	done := mv.Alone()
	x := mv.Unfinished()
	done()
	if x == nil {
		return
	}
	j := mv.begin(x.Database, "settle "+x.Statement)
	var err error
	defer j.close(&err)
	mv.Log.Warn("a statement has left something unfinished: the background goes on with it", "statement", x.Statement)
	pause := recoverPause
	for logged := ""; x != nil; x = mv.Unfinished() {
		select {
		case <-ctx.Done():
			err = ctx.Err()
			return
		case <-time.After(pause):
		}
		if err = mv.settle(ctx, x.Database); err == nil {
			pause = recoverPause
			continue
		}
		pause = min(2*pause, longRecoverPause)
		j.phase("waiting to try again: " + err.Error())
		if logged != err.Error() {
			logged = err.Error()
			mv.Log.Warn("what a statement has left cannot be settled yet", "statement", x.Statement, "error", err)
		}
	}
	err = nil
	mv.Log.Info("what a statement had left is settled", "statement", j.statement)
}

// lastStep is an error of a statement that home has decided: what it was to do is done, but for some tidying.
func lastStep(x shardmap.Attempt, err error) error {
	code := pgsql.SystemError
	var s interface{ SQLState() string }
	if errors.As(err, &s) {
		code = s.SQLState()
	}
	return &pgsql.Error{
		Code: code, Message: fmt.Sprintf("%s is decided and will be done, but its last step failed: %v", x.Statement, err),
		Hint: "The background goes on with it until it is done: SHOW JOBS.",
	}
}
