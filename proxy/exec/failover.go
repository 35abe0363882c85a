package exec

import (
	"context"
	"errors"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/exec/fresh"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/replication"
)

// Failover bounds what waits while a shard has no primary that answers.
type Failover = branch.Failover

// Waiting is the number of requests that wait for a shard's primary, and of their bytes. Any goroutine may call it.
func (e *Engine) Waiting(db, shard string) (requests, bytes int64) { return e.rooms.Waiting(db, shard) }

// awaiting is a session that waits for a shard's primary.
type awaiting struct {
	h  *Handler
	st *fresh.Shard
}

var _ branch.Waiter = awaiting{}

// View implements branch.Waiter, as do the others.
func (w awaiting) View() *replication.View { return w.st.View() }
func (w awaiting) Paused() bool            { return w.h.e.Pools.Paused(w.h.db, w.st.Info.Name) }
func (w awaiting) Superseded() bool        { return w.h.e.Catalog.Current() != w.h.planner.Map }
func (w awaiting) Waits(ctx context.Context) (context.Context, func()) {
	return w.h.held.Waits(ctx)
}

func (w awaiting) WhyEnded(ctx context.Context, err error) error {
	return w.h.held.WhyEnded(ctx, err)
}

// serving returns a shard's view once its primary serves, and has answered a probe that was sent after a moment.
func (h *Handler) serving(ctx context.Context, st *fresh.Shard, after, lost time.Time) (*replication.View, error) {
	if v := st.View(); v != nil && v.Serves() && v.Nodes[v.Primary].Sample.Sent.After(after) {
		return v, nil
	}
	back, idle := idles(h)
	h.client.Leave()
	need := branch.Need{Database: h.db, Shard: st.Info.Name, Size: int64(h.size), After: after, Lost: lost, Count: h.count}
	v, err := h.e.rooms.Await(ctx, h.e.Failover, need, awaiting{h, st})
	back()
	if err == nil && idle && h.e.Catalog.Current() != h.planner.Map {
		return nil, errReplan
	}
	return v, err
}

// fromPrimary leases a server of a shard's primary, from the pool that pick names. If the primary is gone it waits for the
// next one, within the bounds of Failover.
func (h *Handler) fromPrimary(ctx context.Context, shard int, pick func(st *fresh.Shard, node int) *pool.Pool) (*pool.Server, *replication.View, error) {
	st := h.shards.At(shard)
	var lost, after time.Time
	for {
		v, err := h.serving(ctx, st, after, lost)
		if err != nil {
			return nil, nil, err
		}
		s, err := h.leaseFrom(ctx, pick(st, v.Primary), v.Changed())
		switch {
		case err == nil && changed(v): // it is not that one any more, and its servers are cut one by one
			h.free(s)
			continue
		case err == nil:
			if err := paid(ctx, h, shard); err != nil {
				h.free(s)
				return nil, nil, err
			}
			return s, v, nil
		case errors.Is(err, pool.ErrMoved):
			continue
		case !branch.Gone(err) || h.e.Failover.Window == 0:
			return nil, nil, err
		}
		after = time.Now()
		if lost.IsZero() {
			lost = after
		}
	}
}

// changed says whether a shard has another primary by now than a view has, or none.
func changed(v *replication.View) bool {
	select {
	case <-v.Changed():
		return true
	default:
		return false
	}
}

// onNode is where fromPrimary takes servers from, but for gathering.
func onNode(st *fresh.Shard, node int) *pool.Pool { return st.Pools[node] }
