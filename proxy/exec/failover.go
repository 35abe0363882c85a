package exec

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/exec/fresh"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/replication"
)

// Failover bounds what waits while a shard has no primary that answers. Nothing of it has been sent to a server: it is new
// work, which goes to whichever node answers as the primary in the end.
type Failover struct {
	Window   time.Duration // how long after a shard's primary was lost its work may wait; 0: not at all
	Requests int           // of each shard
	Bytes    int64         // of their texts
}

// waitingRoom counts the requests that wait for one shard's primary.
type waitingRoom struct {
	requests atomic.Int64
	bytes    atomic.Int64
}

// room is the waiting room of a shard.
func (e *Engine) room(db, shard string) *waitingRoom {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := [2]string{db, shard}
	r := e.rooms[k]
	if r == nil {
		r = &waitingRoom{}
		e.rooms[k] = r
	}
	return r
}

// Waiting is the number of requests that wait for a shard's primary, and of their bytes. Any goroutine may call it.
func (e *Engine) Waiting(db, shard string) (requests, bytes int64) {
	r := e.room(db, shard)
	return r.requests.Load(), r.bytes.Load()
}

// serving returns a shard's view once its primary serves, and has answered a probe that was sent after a moment.
func (h *Handler) serving(ctx context.Context, st *fresh.Shard, after, lost time.Time) (*replication.View, error) {
	if v := st.View(); v != nil && v.Serves() && v.Nodes[v.Primary].Sample.Sent.After(after) {
		return v, nil
	}
	back, idle := idles(h)
	v, err := h.waitForPrimary(ctx, st, after, lost)
	back()
	if err == nil && idle && h.e.Catalog.Current() != h.planner.Map {
		return nil, errReplan
	}
	return v, err
}

// lookAgain is how often one that waits looks whether its primary has answered a newer probe.
const lookAgain = 20 * time.Millisecond

// waitForPrimary is serving's wait. lost is when the primary was found to be gone, zero if the monitor has seen that.
func (h *Handler) waitForPrimary(ctx context.Context, st *fresh.Shard, after, lost time.Time) (*replication.View, error) {
	h.client.Leave()
	f, m := h.e.Failover, h.count
	room := h.e.room(h.db, st.Info.Name)
	since := lost
	refused := func(why string) (*replication.View, error) {
		m.FailoverRefused.Add(1)
		return nil, noPrimary(st.Info.Name, st.View(), why)
	}
	size := int64(h.size)
	leave := func() {
		room.requests.Add(-1)
		room.bytes.Add(-size)
	}
	requests, bytes := room.requests.Add(1), room.bytes.Add(size)
	if requests > int64(f.Requests) || bytes > f.Bytes {
		leave()
		return refused(fmt.Sprintf("%d requests wait for it already (failover_buffer_requests, failover_buffer_size)", room.requests.Load()))
	}
	m.FailoverWaits.Add(1)
	defer leave()
	wctx, done := h.held.Waits(ctx)
	defer done()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		v := st.View()
		var changed <-chan struct{}
		if v != nil {
			if v.Serves() && v.Nodes[v.Primary].Sample.Sent.After(after) {
				return v, nil
			}
			if since.IsZero() && !v.Serves() {
				since = v.Since
			}
			changed = v.Changed()
		}
		if h.e.Pools.Paused(h.db, st.Info.Name) { // a switch-over in which the operator has the word
			since = time.Now()
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) >= f.Window {
			return refused(fmt.Sprintf("failover_buffer is %s", f.Window))
		}
		select {
		case <-wctx.Done():
			return nil, h.held.WhyEnded(ctx, wctx.Err())
		case <-changed:
		case <-tick.C:
			if h.e.Catalog.Current() != h.planner.Map { // the shard may have other nodes now
				return nil, errReplan
			}
		}
	}
}

// noPrimary is what the client is told. why says why it did not wait longer.
func noPrimary(shard string, v *replication.View, why string) error {
	reason := "no node of it has answered as a primary"
	if v != nil {
		if v.Fenced != "" {
			reason = v.Fenced
		}
		for _, n := range v.Nodes {
			switch {
			case n.Sample.Err != nil:
				reason += fmt.Sprintf("; node %s: %v", n.Name, n.Sample.Err)
			case n.Primary && v.Fenced == "":
				reason += fmt.Sprintf("; node %s: %s", n.Name, n.Verdict.Reason)
			}
		}
	}
	hint := "SHOW REPLICAS on the admin database shows its nodes."
	if v != nil && v.Fenced != "" {
		hint = "Stop the wrong one, or say which it is: ALTER SHARD .. SET PRIMARY on the admin database."
	}
	if why != "" {
		reason += "; " + why
	}
	return &pgsql.Error{Code: pgsql.CannotConnectNow, Message: fmt.Sprintf("shard %s has no primary: %s", shard, reason), Hint: hint}
}

// gone says whether an error means that a node is not there to work, rather than that it refused: nothing was sent to it.
func gone(err error) bool {
	var d *pool.DialError
	if !errors.As(err, &d) {
		return false
	}
	switch d.Code {
	case pgsql.ConnectionFailure, pgsql.UnableToConnect, pgsql.AdminShutdown, pgsql.CrashShutdown, pgsql.CannotConnectNow:
		return true
	}
	return false
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
		case err == nil:
			if h.e.owed.Has(h.db, st.Info.Name) {
				h.client.Leave()
			}
			if err := h.e.pay(ctx, h.db, st.Info.Name); err != nil {
				h.free(s)
				return nil, nil, err
			}
			return s, v, nil
		case errors.Is(err, pool.ErrMoved):
			continue
		case !gone(err) || h.e.Failover.Window == 0:
			return nil, nil, err
		}
		after = time.Now()
		if lost.IsZero() {
			lost = after
		}
	}
}

// onNode is where fromPrimary takes servers from, but for gathering.
func onNode(st *fresh.Shard, node int) *pool.Pool { return st.Pools[node] }
