package exec

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/replication"
)

// againError means that a statement was lost, or refused by a replica, that only reads and of which the client has seen
// nothing: it is run again, once, on the primary.
type againError struct{ cause error }

func (e *againError) Error() string { return e.cause.Error() }
func (e *againError) Unwrap() error { return e.cause }

// isAgain says whether an error is such a one. Without an error it allocates nothing.
func isAgain(err error) bool {
	if err == nil {
		return false
	}
	var again *againError
	return errors.As(err, &again)
}

// mayRepeat says whether the request may begin anew unnoticed.
func (h *Handler) mayRepeat() bool {
	sent, _ := h.sentSoFar()
	return h.attempt.MayRepeat(sent)
}

// unsent says that nothing of the request's answer has gone to the client: it can be taken back.
func unsent(h *Handler) bool {
	sent, _ := h.sentSoFar()
	return h.attempt.Unsent(sent)
}

// runsAgain says whether a statement that failed with an error, or with its connection for nil, may be run again unnoticed.
func (h *Handler) runsAgain(p *participant, e *wire.ErrorResponse) bool {
	if p == h.pinned || !h.mayRepeat() {
		return false
	}
	switch p.Repeats(e) {
	case branch.Yes:
		return true
	case branch.IfItGoes:
		return h.nodeGoes(p, e)
	case branch.No:
	}
	return false
}

// onPrimaries has what reads a replica, and goes on to what that must not answer, run again on the primaries.
func (h *Handler) onPrimaries() error {
	err := &pgsql.Error{
		Code: pgsql.SerializationFailure, Message: "a transaction or pipeline has portals open on a replica and goes on to what that may not answer",
		Hint: "Run it again, or SET pgmosaic.read_consistency = strong.",
	}
	if h.mayRepeat() {
		return &againError{err}
	}
	return err
}

// nodeGoes says whether an error means that the node goes, and not just this one of its servers, or that a function raised it.
func (h *Handler) nodeGoes(p *participant, e *wire.ErrorResponse) bool {
	if !branch.Fatal(e) {
		return false
	}
	switch e.Code {
	case pgsql.CrashShutdown, pgsql.CannotConnectNow:
		return true
	case pgsql.AdminShutdown:
		return branch.Orphaned(e) || !h.stillUp(p)
	}
	return false
}

// orphans is how long the servers of a postmaster that was killed may go on to answer.
const orphans = 100 * time.Millisecond

// stillUp says whether a node goes on: then whoever ended one of its servers meant that one, and the statement must not
// come back. It waits for a sample of the node that only one with a postmaster answers.
func (h *Handler) stillUp(p *participant) bool {
	h.client.Leave()
	st, now, up := h.shards.At(p.shard), time.Now(), false
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return h.e.Monitor.Await(ctx, func() bool {
		v := st.View()
		if v == nil {
			return true
		}
		i := slices.IndexFunc(v.Nodes, func(n replication.NodeView) bool { return n.Name == p.Server.Pool.Node })
		if i < 0 {
			return true
		}
		s := &v.Nodes[i].Sample
		failed := s.Sent.After(now) && s.Err != nil
		up = !failed && s.Sent.After(now.Add(orphans))
		return failed || up
	}) == nil && up
}

// sentSoFar is what has gone to the client, and what is written to it and has not gone.
func (h *Handler) sentSoFar() (sent int64, out int) {
	_, sent = h.client.Traffic()
	return sent, h.client.Out()
}

// beginRequest notes that a request begins: until something has been sent to the client it may begin again.
func (h *Handler) beginRequest(size int) {
	h.now, h.size, h.key = time.Now(), size, 0
	h.attempt = branch.Attempted(h.sentSoFar())
	h.held.Begin()
	h.request.Begin(h.now)
}

// beginAgain takes back what was written to the client since the request began. Its reads go to primaries now.
func (h *Handler) beginAgain() {
	unwrite(h, h.attempt.Out())
	h.attempt.Repeat()
	h.count.Repeated.Add(1)
}

// unwrite takes back what was written to the client behind the first out bytes of what has not been sent.
func unwrite(h *Handler, out int) { h.client.Truncate(out) }

// dropFailed takes the replicas of the transaction, on which no statement has run yet, out of it: it begins again elsewhere.
func (h *Handler) dropFailed() {
	for i := len(h.tx.parts) - 1; i >= 0; i-- {
		if p := h.tx.parts[i]; p.Replica && !p.Used {
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
	p.keys = p.keys[:0]
	h.finish(p)
}
