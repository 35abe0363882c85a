package exec

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
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
func (h *Handler) serving(ctx context.Context, st *shardState, after, lost time.Time) (*replication.View, error) {
	if v := h.viewOf(st); v != nil && v.Serves() && v.Nodes[v.Primary].Sample.Sent.After(after) {
		return v, nil
	}
	return h.waitForPrimary(ctx, st, after, lost)
}

// viewOf is a shard's newest view, nil while there is none that fits the map in use.
func (h *Handler) viewOf(st *shardState) *replication.View {
	if st.view == nil {
		if st.view = h.e.Monitor.Slot(h.db, st.info.Name); st.view == nil {
			return nil
		}
	}
	if v := st.view.Load(); v != nil && len(v.Nodes) == len(st.pools) {
		return v
	}
	return nil
}

// lookAgain is how often one that waits looks whether its primary has answered a newer probe.
const lookAgain = 20 * time.Millisecond

// waitForPrimary is serving's wait. lost is when the primary was found to be gone, zero if the monitor has seen that.
func (h *Handler) waitForPrimary(ctx context.Context, st *shardState, after, lost time.Time) (*replication.View, error) {
	f, m := h.e.Failover, h.count
	room := h.e.room(h.db, st.info.Name)
	since := lost
	refused := func(why string) (*replication.View, error) {
		m.FailoverRefused.Add(1)
		return nil, noPrimary(st.info.Name, h.viewOf(st), why)
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
	wctx, done := h.waits(ctx)
	defer done()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		v := h.viewOf(st)
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
		if h.e.Pools.Paused(h.db, st.info.Name) { // a switch-over in which the operator has the word
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
			return nil, h.whyEnded(ctx, wctx.Err())
		case <-changed:
		case <-tick.C:
			if h.e.Catalog.Current() != h.snap { // the shard may have other nodes now
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
	return &hintError{"57P03", fmt.Sprintf("shard %s has no primary: %s", shard, reason), hint}
}

// gone says whether an error means that a node is not there to work, rather than that it refused: nothing was sent to it.
func gone(err error) bool {
	var d *pool.DialError
	if !errors.As(err, &d) {
		return false
	}
	switch d.Code {
	case "08006", "08001", "57P01", "57P02", "57P03":
		return true
	}
	return false
}

// errMoved means that the wait for a server was given up, because its node is no longer the primary.
var errMoved = errors.New("the node is no longer the primary")

// fromPrimary leases a server of a shard's primary, from the pool that pick names. If the primary is gone it waits for the
// next one, within the bounds of Failover.
func (h *Handler) fromPrimary(ctx context.Context, shard int, pick func(st *shardState, node int) *pool.Pool) (*pool.Server, *replication.View, error) {
	st := &h.shards[shard]
	var lost, after time.Time
	for {
		v, err := h.serving(ctx, st, after, lost)
		if err != nil {
			return nil, nil, err
		}
		s, err := h.leaseFrom(ctx, pick(st, v.Primary), v.Changed())
		if err == nil {
			return s, v, nil
		}
		if errors.Is(err, errMoved) {
			continue
		}
		if !gone(err) || h.e.Failover.Window == 0 {
			return nil, nil, err
		}
		after = time.Now()
		if lost.IsZero() {
			lost = after
		}
	}
}

// onNode is where fromPrimary takes servers from, but for gathering.
func onNode(st *shardState, node int) *pool.Pool { return st.pools[node] }

// againError means that a statement was lost, or refused by a replica, that only reads and of which the client has seen
// nothing: it is run again, once, on the primary.
type againError struct{ cause error }

func (e *againError) Error() string { return e.cause.Error() }
func (e *againError) Unwrap() error { return e.cause }

// mayRepeat says whether the request may begin anew unnoticed.
func (h *Handler) mayRepeat() bool {
	sent, _ := h.sentSoFar()
	return h.repeatable && !h.repeated && sent == h.begunAt.sent
}

// again says whether a statement that failed with a code, or with its connection for "", may be run again unnoticed.
func (h *Handler) again(p *participant, code string) bool {
	if p == h.pinned || p.wrote || !h.mayRepeat() {
		return false
	}
	mine := p.reads || p.replica && !p.used
	switch code {
	case "57P01":
		return mine && !h.stillUp(p)
	case "", "57P02", "57P03":
		return mine
	case "25006", "0A000", "40001", "40P01", "55000": // what recovery forbids, and its conflicts
		return p.replica && (p.reads || !p.used)
	}
	return false
}

// onPrimaries has what reads a replica, and goes on to what that must not answer, run again on the primaries.
func (h *Handler) onPrimaries() error {
	err := &wire.PgError{
		Code: "40001", Message: "a transaction or pipeline has portals open on a replica and goes on to what that may not answer",
		Hint: "Run it again, or SET pgmosaic.read_consistency = strong.",
	}
	if h.mayRepeat() {
		return &againError{err}
	}
	return err
}

// stillUp says whether a node goes on: then whoever ended one of its servers meant that one, and the statement must not
// come back. It waits for the node's next sample.
func (h *Handler) stillUp(p *participant) bool {
	st, now := &h.shards[p.shard], time.Now()
	for time.Since(now) < time.Second {
		v := h.viewOf(st)
		if v == nil || p.node < 0 || p.node >= len(v.Nodes) {
			return false
		}
		if s := &v.Nodes[p.node].Sample; s.Sent.After(now) {
			return s.Err == nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return false
}

// outputMark is a place in what is written to the client.
type outputMark struct {
	sent int64
	out  int
}

func (h *Handler) sentSoFar() (sent int64, out int) {
	_, sent = h.client.Traffic()
	return sent, h.client.Out()
}

// beginRequest notes that a request begins: until something has been sent to the client it may begin again.
func (h *Handler) beginRequest(size int) {
	h.now, h.size, h.key = time.Now(), size, 0
	h.begunAt.sent, h.begunAt.out = h.sentSoFar()
	h.repeatable, h.repeated = true, false
	h.watch()
}

// beginAgain takes back what was written to the client since the request began. Its reads go to primaries now.
func (h *Handler) beginAgain() {
	h.client.Truncate(h.begunAt.out)
	h.repeated = true
	h.count.Repeated.Add(1)
}

// dropFailed takes the replicas of the transaction, on which no statement has run yet, out of it: it begins again elsewhere.
func (h *Handler) dropFailed() {
	for i := len(h.tx.parts) - 1; i >= 0; i-- {
		if p := h.tx.parts[i]; p.replica && !p.used {
			h.leaveReplica(p)
		}
	}
}

// leaveReplica takes a replica out of the transaction: it read there, and goes on elsewhere.
func (h *Handler) leaveReplica(p *participant) {
	h.abort(p)
	for i, q := range h.tx.parts {
		if q == p {
			h.tx.parts = append(h.tx.parts[:i], h.tx.parts[i+1:]...)
			break
		}
	}
	p.keys, p.open = p.keys[:0], false
	h.finish(p)
}
