package exec

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// participant is a server that the session holds for a statement or a transaction.
type participant struct {
	shard    int
	node     int // index in the shard's nodes; the primary's for a writer
	srv      *pool.Server
	prologue int          // simple queries whose answers must be swallowed first: BEGIN, savepoints
	wrote    bool         // some statement on it was no proved read
	open     bool         // in a transaction block
	deep     []deepColumn // of the rows that come: those with OIDs inside
	vals     [][]byte
	shown    bool // pg_prepared_statements was made to list the session's own
	keys     []uint32
	inFlight []uint32 // horizon keys marked as sent
}

// errReplan means that the map changed while the statement waited for a server: plan it again.
var errReplan = errors.New("the shard map changed")

// lease takes a server of a node, or of the primary for node -1, without making it part of anything.
func (h *Handler) lease(ctx context.Context, shard, node int) (*pool.Server, error) {
	st := &h.shards[shard]
	if node < 0 {
		v, err := h.viewOf(ctx, st)
		if err != nil {
			return nil, err
		}
		node = v.Primary
	}
	if node >= len(st.pools) {
		return nil, errReplan
	}
	p := st.pools[node]
	inTx := len(h.tx.parts) > 0
	s, waited := p.Try(h.settings, inTx, h.now), false
	if s == nil {
		var err error
		if s, waited, err = h.await(ctx, p, inTx); err != nil {
			return nil, err
		}
	}
	h.track(s)
	if waited && h.e.Catalog.Current() != h.snap {
		h.free(s)
		return nil, errReplan
	}
	st.counts[node].Statements.Add(1)
	return s, nil
}

// await waits for a server, unless the client cancels meanwhile.
func (h *Handler) await(ctx context.Context, p *pool.Pool, inTx bool) (*pool.Server, bool, error) {
	start := time.Now()
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.mu.Lock()
	h.waiting, h.since = cancel, start
	h.mu.Unlock()
	s, waited, err := p.Acquire(wctx, h.settings, inTx)
	h.mu.Lock()
	h.waiting = nil
	h.mu.Unlock()
	h.count.WaitNanos.Add(int64(time.Since(start)))
	if err != nil && wctx.Err() != nil && ctx.Err() == nil {
		err = errCancelled
		if why := h.why.Load(); why != nil {
			err = why
		}
	}
	return s, waited, err
}

var errCancelled = &wire.PgError{Code: "57014", Message: "canceling statement due to user request"}

func (h *Handler) viewOf(ctx context.Context, st *shardState) (*replication.View, error) {
	if st.view == nil {
		st.view = h.e.Monitor.Slot(h.db, st.info.Name)
	}
	if st.view != nil {
		if v := st.view.Load(); v != nil && v.Primary >= 0 && len(v.Nodes) == len(st.pools) {
			return v, nil
		}
	}
	v, err := h.e.view(ctx, h.db, st.info.Name)
	if err != nil {
		return nil, err
	}
	st.view = h.e.Monitor.Slot(h.db, st.info.Name)
	return v, nil
}

// forRead chooses who answers a read outside a transaction and leases a server there.
func (h *Handler) forRead(ctx context.Context, shard int, t *router.Template) (*participant, error) {
	st := &h.shards[shard]
	v, err := h.viewOf(ctx, st)
	if err != nil {
		return nil, err
	}
	node, reason, vouch := h.choose(v, st, shard, t)
	if node >= 0 {
		p, err := h.fromReplica(ctx, v, shard, node, vouch)
		if p != nil || err != nil {
			return p, err
		}
		reason = replication.NotFresh
	}
	s, err := h.lease(ctx, shard, -1)
	if err != nil {
		return nil, err
	}
	st.counts[v.Primary].Reads[reason].Add(1)
	st.last, st.vouched = -1, false
	return h.participant(shard, v.Primary, s), nil
}

// participant returns a fresh one, for an autocommit statement: the one that the last statement was done with,
// if there is one.
func (h *Handler) participant(shard, node int, s *pool.Server) *participant {
	p := h.spare
	if p == nil {
		p = &participant{}
	}
	h.spare = nil
	*p = participant{shard: shard, node: node, srv: s, keys: p.keys[:0], inFlight: p.inFlight[:0]}
	return p
}

// choose picks a node for a read: -1 is the primary. vouch says that the node is only known to have every
// write, but not all that this session has seen on the primary: it must give its word.
func (h *Handler) choose(v *replication.View, st *shardState, shard int, t *router.Template) (node int, reason replication.Reason, vouch bool) {
	if len(v.Nodes) < 2 || h.own.level == replication.Strong {
		return -1, replication.ByLevel, false
	}
	now := h.now
	want := replication.Want{Level: h.own.level, MaxLag: h.own.maxLag, Prefer: st.last, Dice: rand.Uint32()}
	var written time.Time // by anybody (causal) or by this session, to what is read
	switch h.own.level {
	case replication.Causal:
		written = h.e.Horizon.Horizon(st.whole)
		for _, k := range h.keysOf(shard, t) {
			written = later(written, h.e.Horizon.Horizon(k))
		}
	case replication.Session:
	default:
		return pick(v, want, now, h.e.Monitor.Policy())
	}
	written = later(written, st.wrote)
	want.Horizon = later(written, st.seen)
	want.Stay = written
	if !st.vouched {
		want.Stay = later(written, st.horizon)
	}
	policy := h.e.Monitor.Policy()
	if node, reason = replication.Pick(v, want, now, policy); node >= 0 || reason != replication.NotFresh || now.Before(st.tryAt) {
		st.vouched = st.vouched && node == st.last
		return node, reason, false
	}
	st.vouched = false
	want.Horizon, want.Prefer = written, -1
	node, reason = replication.Pick(v, want, now, policy)
	return node, reason, node >= 0
}

func pick(v *replication.View, w replication.Want, now time.Time, p replication.Policy) (int, replication.Reason, bool) {
	node, reason := replication.Pick(v, w, now, p)
	return node, reason, false
}

// fromReplica leases a server of a replica for a read. It returns nothing if the replica turns out not to
// be fresh enough. A server dialled after the node's last sample may belong to another postmaster, so its
// word is asked as well.
func (h *Handler) fromReplica(ctx context.Context, v *replication.View, shard, node int, vouch bool) (*participant, error) {
	st := &h.shards[shard]
	var lsn string
	if vouch {
		var err error
		if lsn, err = h.positionNow(ctx, shard); err != nil {
			return nil, err
		}
	}
	s, err := h.lease(ctx, shard, node)
	if err != nil {
		if errors.Is(err, errReplan) || ctx.Err() != nil {
			return nil, err
		}
		return nil, nil // the primary will do
	}
	if h.own.level < replication.Bounded && (vouch || !s.Dialed().Before(v.Nodes[node].Sample.Sent)) {
		if lsn == "" {
			if lsn, err = h.positionNow(ctx, shard); err != nil {
				h.free(s)
				return nil, err
			}
		}
		if !replayed(s, lsn) {
			st.tryAt = time.Now().Add(20 * time.Millisecond)
			h.free(s)
			return nil, nil
		}
		st.vouched = true
	}
	st.counts[node].Reads[replication.ToReplica].Add(1)
	st.last = node
	return &participant{shard: shard, node: node, srv: s}, nil
}

// positionNow is the primary's insert position: whatever anybody has seen on it lies before.
func (h *Handler) positionNow(ctx context.Context, shard int) (string, error) {
	s, err := h.lease(ctx, shard, -1)
	if err != nil {
		return "", err
	}
	defer h.free(s)
	rows, err := s.Rows("select pg_current_wal_insert_lsn()")
	if err != nil || len(rows) != 1 {
		return "", err
	}
	lsn, err := replication.ParseLSN(string(rows[0][0]))
	if err != nil {
		return "", err
	}
	return lsn.Round().String(), nil
}

// replayed asks a replica for its word that it has replayed a position, twice if it is just behind.
func replayed(s *pool.Server, lsn string) bool {
	for try := range 2 {
		rows, err := s.Rows("select pg_last_wal_replay_lsn() >= '" + lsn + "'::pg_lsn")
		if err != nil || len(rows) != 1 || len(rows[0]) != 1 {
			return false
		}
		if string(rows[0][0]) == "t" {
			return true
		}
		if try == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	return false
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// keysOf are the horizon keys of a template's tables on a shard.
func (h *Handler) keysOf(shard int, t *router.Template) []uint32 {
	name := h.shards[shard].info.Name
	h.ext.keys = h.ext.keys[:0]
	for _, n := range t.Tables {
		h.ext.keys = append(h.ext.keys, h.e.Horizon.Key(h.db, name, tableKey(n)))
	}
	return h.ext.keys
}

func tableKey(n shardmap.TableName) string { return n.Name } // equal names in two schemas share a slot

// writeKeys are the horizon keys that a write marks.
func (h *Handler) writeKeys(shard int, t *router.Template) []uint32 {
	keys := append([]uint32(nil), h.keysOf(shard, t)...)
	if t.Whole || len(keys) == 0 {
		keys = append(keys, h.shards[shard].whole)
	}
	return keys
}

// on returns the participant of a shard for a statement: the transaction's, the pinned one, or in
// autocommit a fresh lease that finish gives back.
func (h *Handler) on(ctx context.Context, shard int, t *router.Template) (*participant, error) {
	p, err := h.anyOn(ctx, shard, t)
	if err == nil && t.Hidden != nil {
		p.srv.Suspect(t.Hidden.Vars, t.Hidden.Unknown)
	}
	return p, err
}

func (h *Handler) anyOn(ctx context.Context, shard int, t *router.Template) (*participant, error) {
	if h.tx.status != 'I' {
		return h.join(ctx, shard, t)
	}
	if p := h.pinned; p != nil && p.shard == shard {
		h.markSent(p, t)
		if err := h.adapt(p); err != nil {
			h.freeIfLost(p)
			return nil, err
		}
		return p, nil
	}
	var p *participant
	var err error
	if t.Read && !t.Temp {
		p, err = h.forRead(ctx, shard, t)
	} else {
		var s *pool.Server
		if s, err = h.lease(ctx, shard, -1); err == nil {
			p = h.participant(shard, -1, s)
			h.markSent(p, t)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := h.adapt(p); err != nil {
		h.finish(p)
		return nil, err
	}
	return p, nil
}

// adapt gives a server the session's settings, outside a transaction.
func (h *Handler) adapt(p *participant) error {
	if p.srv.Settings() == h.settings || !p.srv.Adapt(h.settings) {
		return nil
	}
	if err := p.srv.Flush(); err != nil {
		return h.lost(p, err)
	}
	if err := p.srv.Settle(h.settings); err != nil {
		return h.lost(p, err)
	}
	return nil
}

func (h *Handler) markSent(p *participant, t *router.Template) {
	if t.Read {
		return
	}
	p.wrote = true
	for _, k := range h.writeKeys(p.shard, t) {
		h.e.Horizon.Sent(k)
		p.inFlight = append(p.inFlight, k)
	}
}

// settle notes that a participant's writes have an outcome.
func (h *Handler) settle(p *participant) {
	now := time.Now()
	h.settled = now
	for _, k := range p.inFlight {
		h.e.Horizon.Acked(k, now)
	}
	st := &h.shards[p.shard]
	st.seen = now // what was seen must be seen again, on whatever node
	if p.wrote {
		st.wrote = now
	}
	if p.wrote || p.node < 0 || h.isPrimary(p) {
		st.horizon, st.vouched = now, false
	}
	p.inFlight, p.wrote = p.inFlight[:0], false
}

func (h *Handler) isPrimary(p *participant) bool {
	v := h.shards[p.shard].view
	if v == nil {
		return true
	}
	view := v.Load()
	return view == nil || view.Primary == p.node
}

// finish ends an autocommit statement: its writes are acknowledged and its server is given back.
func (h *Handler) finish(p *participant) {
	h.settle(p)
	h.hidePrepared(p)
	h.tidy(p)
	h.unpin(p)
	if p == h.pinned {
		return
	}
	h.free(p.srv)
	if h.tx.status == 'I' && len(h.tx.parts) == 0 {
		h.spare = p
	}
}

// lost turns the failure of a server's connection into what the client is told.
func (h *Handler) lost(p *participant, err error) error {
	var se *pool.ServerError
	if errors.As(err, &se) {
		return err
	}
	p.srv.Dirty = true
	if h.pinned == p {
		h.pinned = nil
		h.setPin("")
		if h.tx.status == 'I' {
			h.settle(p)
		}
	}
	return &hintError{
		"08006", "the connection to shard " + h.shards[p.shard].info.Name + " (node " + p.srv.Pool.Node + ") was lost: " + shortError(err),
		"The outcome of the statement is not known if it wrote. Outside a transaction the session goes on.",
	}
}

// freeIfLost gives a pinned server up that turned out to be lost outside of a statement's own path.
func (h *Handler) freeIfLost(p *participant) {
	if p.srv.Dirty && p != h.pinned {
		h.finish(p)
	}
}

func shortError(err error) string {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err.Error()
	}
	return "server closed the connection unexpectedly"
}

func (h *Handler) setPin(cause string) {
	h.mu.Lock()
	h.pinCause, h.pinSince = cause, time.Now()
	h.mu.Unlock()
}

// pin keeps a server for the session: what it did cannot be replayed on another.
func (h *Handler) pin(p *participant, cause string) {
	if h.pinned == nil {
		h.pinned = p
		h.setPin(cause)
		h.count.Pins.Add(1)
		h.checkPin = h.tx.status != 'I' || cause == tryLock // the transaction's end may undo what ties it
	}
}

// tryLock is the cause of a pin for a lock that may not have been taken.
const tryLock = "advisory lock, tried"

// pinCauseOf says why a statement ties its session to its server, or "".
func pinCauseOf(s *sqlparse.Statement) string {
	switch s.Kind {
	case sqlparse.Load:
		return "LOAD"
	case sqlparse.Cursor:
		if s.Def.NoTx {
			return "WITH HOLD"
		}
	}
	if s.Def.Temp {
		return "temporary table"
	}
	for _, f := range s.Funcs {
		switch f {
		case "set_config":
			if s.Configs == nil {
				return "set_config"
			}
		case "pg_advisory_lock", "pg_advisory_lock_shared":
			return "advisory lock"
		case "pg_try_advisory_lock", "pg_try_advisory_lock_shared":
			return tryLock
		case "setseed":
			return "setseed"
		case "currval", "lastval":
			return "sequence state"
		}
	}
	return ""
}
