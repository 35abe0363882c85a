package exec

import (
	"context"
	"io"
	"math"

	"github.com/pgmosaic/pgmosaic/router"
)

// turns asks shards for rows that it locks, one after the other, and each for no more than are still wanted: two sessions
// that lock the same rows meet in the same order, and what is not returned is not locked.
type turns struct {
	left int64 // rows still wanted; negative: all
	ask  func(shard int, rows uint32) (*stream, error)
}

// turn is one shard's, as a merge.Source.
type turn struct {
	turns *turns
	shard int
	s     *stream
}

// Next implements merge.Source.
func (t *turn) Next() ([][]byte, error) {
	if t.s == nil {
		if t.turns.left == 0 {
			return nil, io.EOF
		}
		rows := uint32(0)
		if t.turns.left > 0 && t.turns.left <= math.MaxInt32 {
			rows = uint32(t.turns.left)
		}
		var err error
		if t.s, err = t.turns.ask(t.shard, rows); err != nil {
			return nil, err
		}
	}
	row, err := t.s.Next()
	if err == nil && t.turns.left > 0 {
		t.turns.left--
	}
	return row, err
}

// askOne sends the statement to one shard and waits until its answer begins.
func (h *Handler) askOne(ctx context.Context, p *router.Plan, shard int, sh *shape, a *router.Args, formats []int16, rows uint32) (*stream, error) {
	part, err := h.enlist(ctx, shard, p.Template)
	if err != nil {
		return nil, err
	}
	s, err := h.ask(part, p.TextOn(shard, p.ShardText(a)), sh.params, sh.shard, a, formats, rows)
	if err != nil {
		if h.tx.Idle() {
			h.finish(part)
		}
		return nil, err
	}
	s.shares = p.Shares
	if err := part.Server.Flush(); err != nil {
		s.done = true
		return s, h.lost(part, err)
	}
	return s, h.prologue(part)
}
