package exec

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/exec/fresh"
	"github.com/pgmosaic/pgmosaic/proxy/exec/lease"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// participant is a server that the session holds for a statement or a transaction.
type participant struct {
	branch.Branch

	shard    int
	node     int          // index in the shard's nodes; the primary's for a writer
	deep     []deepColumn // of the rows that come: those with OIDs inside
	vals     [][]byte
	shown    bool // pg_prepared_statements was made to list the session's own
	keys     []uint32
	inFlight []uint32          // horizon keys marked as sent
	judged   map[string]string // reported parameters of the startup packet that were looked at: see reassert
	resets   map[string]string // those of them that a function has reset, with the server's own values
	replayed bool              // it has joined a transaction that had set something, and not been heard since
	defines  bool              // it may have made or changed what statements are about
	mark     uint64            // when it began to
	xact     string            // the id of the server's transaction, as the last turn that it took has said
	outdated bool              // a statement turned out to be about what is not there any more
	setAt    int               // when a statement was last run on it that may set something unseen: see maySet
	customs  customs           // custom parameters that it was told of in the transaction: see emptied
	suspends bool              // it may have a portal that is called suspendedPortal
}

// errReplan means that the map changed while the statement waited for a server: plan it again.
var errReplan = branch.ErrReplan

// errMapChanged is what the client is told where that cannot be done.
var errMapChanged = &pgsql.Error{Code: pgsql.SerializationFailure, Message: "the shard map changed while the statement waited", Hint: "Run it again."}

// lease takes a server of a shard's primary, without making it part of anything.
func (h *Handler) lease(ctx context.Context, shard int) (*pool.Server, error) {
	s, v, err := h.fromPrimary(ctx, shard, onNode)
	if err == nil {
		h.shards.At(shard).Counts[v.Primary].Statements.Add(1)
	}
	return s, err
}

// leaseFrom takes a server of a pool. It gives up when moved is closed; nil never is.
func (h *Handler) leaseFrom(ctx context.Context, p *pool.Pool, moved <-chan struct{}) (*pool.Server, error) {
	inTx := len(h.tx.parts) > 0 || h.held.InUse()
	s, waited := (*pool.Server)(nil), false
	if last := h.drawn.asked; last != 0 {
		s = p.TryKnowing(h.settings, h.drawn.by, last, inTx, h.now)
	} else {
		s = p.Try(h.settings, inTx, h.now)
	}
	if s == nil {
		back, idle := func() {}, false
		if !inTx && p.Paused() {
			back, idle = idles(h)
		}
		var err error
		s, waited, err = h.held.Acquire(ctx, h.client.Task(), p, h.settings, inTx, moved)
		back()
		if err != nil {
			return nil, err
		}
		waited = waited || idle
	}
	h.held.Track(s, h.client.Task())
	if waited && h.e.Catalog.Current() != h.planner.Map {
		h.free(s)
		return nil, errReplan
	}
	if sch := h.planner.Schema; sch != nil && sch.Doubts[p.Shard] == schema.Unread { // the shard answers by now
		h.free(s)
		h.client.Leave()
		if err := h.e.Planner.Schemas.Resolve(ctx, h.planner.DB, p.Shard); err != nil {
			return nil, err
		}
		return nil, errReplan
	}
	return s, nil
}

// idles says that a session which is about to wait for its first server uses no map meanwhile: nobody who changes the map waits for it. back ends
// that, behind the wait; where idle is true, the map may be another by then.
func idles(h *Handler) (back func(), idle bool) {
	if keepsMap(h) || h.held.Any() {
		return func() {}, false
	}
	return h.planner.Idle()
}

// repin finds the server that the session keeps in a newer map. A session whose server the map no longer has ends, with what it had there.
func repin(h *Handler) error {
	p := h.pinned
	if p == nil {
		return nil
	}
	for i, info := range h.shards.Infos {
		if info.Name != p.Server.Pool.Shard {
			continue
		}
		if node := slices.IndexFunc(info.Nodes, func(n *shardmap.Node) bool { return p.Server.Pool.To(n.DSN) }); node >= 0 {
			p.shard = i
			if p.node >= 0 {
				p.node = node
			}
			return nil
		}
	}
	cause, _ := h.held.Kept()
	p.Lose()
	h.pinned = nil
	h.setPin("") // freeLost ends it
	err := &pgsql.Error{
		Code: pgsql.AdminShutdown, Message: "terminating connection: it kept a server of node " + p.Server.Pool.Node + " of shard " + p.Server.Pool.Shard + " (" + cause + "), which the shard map no longer has",
		Hint: "Connect again. What the session had there is gone, and its last statement was not run.",
	}
	h.dismiss(err)
	return err
}

// forRead chooses who answers a read outside a transaction and leases a server there.
func (h *Handler) forRead(ctx context.Context, shard int, t *router.Template) (*participant, error) {
	p, err := h.forReader(ctx, shard, t)
	if err == nil {
		p.Reads = true
	}
	return p, err
}

// forReader is forRead for what reads more than one statement, too.
func (h *Handler) forReader(ctx context.Context, shard int, t *router.Template) (*participant, error) {
	st := h.shards.At(shard)
	reason := replication.NoReplica
	if v := st.View(); v != nil && v.Primary >= 0 && !h.e.debts.Has(h.db, st.Info.Name) {
		c := h.choose(v, shard, t)
		reason = c.Reason
		if c.Node >= 0 {
			p, err := h.fromReplica(ctx, v, shard, c)
			if p != nil || err != nil {
				return p, err
			}
			reason = replication.NotFresh
		}
	}
	if h.own.NoFallback && reason != replication.ByLevel {
		return nil, &pgsql.Error{Code: pgsql.CannotConnectNow, Message: "no replica of shard " + h.shards.Name(shard) + " may answer: " + replication.ReasonNames[reason], Hint: "pgmosaic.replica_fallback is error. SHOW REPLICAS on the admin database shows why each is out."}
	}
	s, v, err := h.fromPrimary(ctx, shard, onNode)
	if err != nil {
		return nil, err
	}
	st.Counts[v.Primary].Statements.Add(1)
	st.Counts[v.Primary].Reads[reason].Add(1)
	st.OnPrimary()
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
	*p = participant{Branch: branch.Of(s), shard: shard, node: node, keys: p.keys[:0], inFlight: p.inFlight[:0]}
	return p
}

// choose picks a node for a read.
func (h *Handler) choose(v *replication.View, shard int, t *router.Template) fresh.Choice {
	switch {
	case h.attempt.Repeated():
		return fresh.Choice{Node: fresh.Primary, Reason: replication.Retried}
	case len(v.Nodes) < 2: // there is nothing to choose
		return fresh.Choice{Node: fresh.Primary, Reason: replication.ByLevel}
	}
	return h.shards.At(shard).Choose(v, fresh.Read{
		Level: h.own.Level, MaxLag: h.own.MaxLag, Isolation: h.isolation(), Zone: h.e.Zone, Now: h.now, Dice: rand.Uint32(), Template: t, Key: h.key,
	})
}

// unload notes that a replica is done with what it was leased for.
func (h *Handler) unload(p *participant) {
	if p.Replica {
		p.Replica = false
		h.shards.At(p.shard).Counts[p.node].Running.Add(-1)
		h.clear(p)
	}
}

// fromReplica leases a server of a replica for a read. It returns nothing if the replica turns out not to
// be fresh enough. A server that is not of the postmaster that the monitor watches is asked for its word as well: the name of a node may
// mean several servers, or another one by now. So is one dialled after the node's last sample that has not replayed what that says: servers that
// crash are started anew by the same postmaster, and are behind what it had replayed.
func (h *Handler) fromReplica(ctx context.Context, v *replication.View, shard int, c fresh.Choice) (*participant, error) {
	st, node := h.shards.At(shard), c.Node
	var lsn string
	if c.Vouch {
		var err error
		if lsn, err = h.positionNow(ctx, shard); err != nil {
			return nil, h.unlessLost(err)
		}
	}
	s, err := h.leaseFrom(ctx, st.Pools[node], nil)
	if err != nil {
		if errors.Is(err, errReplan) || errors.Is(err, lease.ErrCancelled) || ctx.Err() != nil {
			return nil, err
		}
		return nil, nil // the primary will do
	}
	sample := &v.Nodes[node].Sample
	of, err := h.originOf(s)
	if err != nil || of.System != "" && of.System != sample.SystemID { // it is lost, or no replica of this shard's
		s.Dirty = true
		h.free(s)
		return nil, nil
	}
	unsure := s.Addr() != sample.Addr || !of.Started.Equal(sample.Started)
	if of.System == "" { // it would not say whose it is
		unsure = s.Addr() != sample.Addr || !s.Dialed().Before(sample.Sent)
	}
	if !unsure && !c.Vouch && h.own.Level != replication.Eventual && !s.Dialed().Before(sample.Sent) { // its postmaster may have had to start its servers anew since
		h.client.Leave()
		unsure = !replayed(s, sample.LSN.String())
	}
	switch {
	case h.own.Level == replication.Eventual || !c.Vouch && !unsure:
	case h.own.Level == replication.Bounded:
		at, ok := h.e.Monitor.Since(h.db, st.Info.Name, h.now.Add(-h.own.MaxLag-h.e.Monitor.Policy().Interval))
		h.client.Leave()
		if !ok || !replayed(s, at.String()) {
			h.free(s)
			return nil, nil
		}
	default:
		if lsn == "" {
			if lsn, err = h.positionNow(ctx, shard); err != nil {
				h.free(s)
				return nil, h.unlessLost(err)
			}
		}
		h.client.Leave()
		if !replayed(s, lsn) {
			st.Behind(time.Now())
			h.free(s)
			return nil, nil
		}
		st.Vouched()
	}
	count := st.Counts[node]
	count.Statements.Add(1)
	count.Reads[replication.ToReplica].Add(1)
	count.Running.Add(1)
	st.On(v, node)
	p := h.participant(shard, node, s)
	p.Replica = true
	h.owe(p)
	return p, nil
}

// originOf is which postmaster a replica's server belongs to, which it is asked once.
func (h *Handler) originOf(s *pool.Server) (pool.Origin, error) {
	if o := s.Origin(); o.Asked {
		return o, nil
	}
	h.client.Leave()
	o := pool.Origin{Asked: true}
	rows, err := s.Rows("select (extract(epoch from pg_catalog.pg_postmaster_start_time()) operator(pg_catalog.*) 1000000)::pg_catalog.int8, (select system_identifier::pg_catalog.text from pg_catalog.pg_control_system())")
	var refused *pool.ServerError
	if err != nil && !errors.As(err, &refused) {
		return o, err
	}
	if err == nil && len(rows) == 1 && len(rows[0]) == 2 {
		if micros, err := strconv.ParseInt(string(rows[0][0]), 10, 64); err == nil {
			o.Started, o.System = time.UnixMicro(micros), string(rows[0][1])
		}
	}
	s.SetOrigin(o)
	return o, nil
}

// unlessLost is nil for a primary that was lost while it was asked for its position: then the read goes there, and waits for
// the next one if need be.
func (h *Handler) unlessLost(err error) error {
	var n *pgsql.Failure
	if errors.As(err, &n) {
		return nil
	}
	return err
}

// positionNow is the primary's insert position: whatever anybody has seen on it lies before. A pgsql.Failure means that the
// primary was lost while it was asked.
func (h *Handler) positionNow(ctx context.Context, shard int) (string, error) {
	s, err := h.lease(ctx, shard)
	if err != nil {
		return "", err
	}
	defer h.free(s)
	row, err := s.Row(1, "select pg_catalog.pg_current_wal_insert_lsn()")
	if err != nil {
		s.Dirty = true
		s.Pool.Suspect()
		return "", &pgsql.Failure{Code: pgsql.ConnectionFailure, Message: "the connection to shard " + s.Pool.Shard + " (node " + s.Pool.Node + ") was lost", Cause: err}
	}
	lsn, err := replication.ParseLSN(string(row[0]))
	if err != nil {
		return "", err
	}
	return lsn.Round().String(), nil
}

// replayed asks a replica for its word that it has replayed a position, again if it is just behind.
func replayed(s *pool.Server, lsn string) bool {
	const tries = 3
	for try := range tries {
		rows, err := s.Rows("select pg_catalog.pg_last_wal_replay_lsn() operator(pg_catalog.>=) " + pgsql.Literal(lsn) + "::pg_catalog.pg_lsn")
		if err != nil || len(rows) != 1 || len(rows[0]) != 1 {
			return false
		}
		if string(rows[0][0]) == "t" {
			return true
		}
		if try < tries-1 {
			time.Sleep(time.Millisecond)
		}
	}
	return false
}

// enlist returns the participant of a shard for a statement: the transaction's, the pinned one, or in
// autocommit a fresh lease that finish gives back.
func (h *Handler) enlist(ctx context.Context, shard int, t *router.Template) (*participant, error) {
	h.request.Asks()
	if t.Counts&router.Recalls != 0 {
		h.drawn.asked = h.shards.At(shard).Drawn
	}
	p, err := h.anyOn(ctx, shard, t)
	h.drawn.asked = 0
	if err == nil {
		h.request.Joined(p.shard, p.node)
	}
	if err == nil && t.Hidden != nil && h.tx.Idle() {
		p.Server.Suspect(t.Hidden.Vars, t.Hidden.Unknown)
	}
	if err == nil && t.Counts != 0 && h.tx.Idle() {
		if err = counts(ctx, h, p, t); err != nil && p != h.pinned {
			h.finish(p)
		}
	}
	return p, err
}

func (h *Handler) anyOn(ctx context.Context, shard int, t *router.Template) (*participant, error) {
	if !h.tx.Idle() {
		return h.join(ctx, shard, t)
	}
	if p := h.pinned; p != nil && p.shard == shard {
		if err := paid(ctx, h, shard); err != nil {
			return nil, err
		}
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
		if s, err = h.lease(ctx, shard); err == nil {
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
	h.keepDefaults(p.Server)
	return h.adaptTo(p, h.settings)
}

// adaptTo is adapt for settings that the session had, or will have.
func (h *Handler) adaptTo(p *participant, want *pool.Settings) error {
	if p.Server.Settings().Same(want) || !p.Server.Adapt(want) {
		return nil
	}
	if err := p.Server.Flush(); err != nil {
		return h.lost(p, err)
	}
	err := p.Server.Settle(want)
	if err == nil {
		return nil
	}
	if err = h.lost(p, err); p == h.pinned { // it has refused them all, and has what it had
		p.Server.Dirty = false
	}
	return err
}

func (h *Handler) markSent(p *participant, t *router.Template) {
	if t.Read {
		return
	}
	p.On(branch.Writes)
	p.mayDefine(t)
	from := len(p.inFlight)
	p.inFlight = h.shards.At(p.shard).WriteKeys(p.inFlight, t, h.key)
	h.sending(p, from)
}

// sending notes that the writes behind the first from of a participant's are on their way.
func (h *Handler) sending(p *participant, from int) {
	if from < len(p.inFlight) {
		h.owe(p)
	}
	for _, k := range p.inFlight[from:] {
		h.e.Horizon.Sent(k)
	}
}

// mayDefine notes that a statement may make or change what others are about, in the open or inside a function. Whether it stays
// is known at the transaction's end: what is prepared from here on is prepared again then.
func (p *participant) mayDefine(t *router.Template) {
	if !p.defines && (t.DDL || t.Hidden != nil) {
		p.defines, p.mark = true, p.Server.Mark()
	}
}

// defined ends that.
func (p *participant) defined() {
	if p.defines {
		p.Server.DropSince(p.mark)
		p.defines = false
	}
}

// settle notes that a participant's writes have an outcome.
func (h *Handler) settle(p *participant) {
	now := time.Now()
	h.settled = now
	h.acknowledge(p, now)
	h.shards.At(p.shard).Settled(now, p.Wrote(), p.Replica)
	p.On(branch.Settles)
}

// acknowledge ends what sending has begun.
func (h *Handler) acknowledge(p *participant, now time.Time) {
	if len(p.inFlight) == 0 {
		return
	}
	for _, k := range p.inFlight {
		h.e.Horizon.Acked(k, now)
	}
	p.inFlight = p.inFlight[:0]
	h.clear(p)
}

// owe notes that what a participant does is counted somewhere, and clear that it is not any more.
func (h *Handler) owe(p *participant) {
	if !slices.Contains(h.unsettled, p) {
		h.unsettled = append(h.unsettled, p)
	}
}

func (h *Handler) clear(p *participant) {
	if i := slices.Index(h.unsettled, p); i >= 0 && !p.Replica && len(p.inFlight) == 0 {
		h.unsettled = slices.Delete(h.unsettled, i, i+1)
	}
}

// finish ends an autocommit statement: its writes are acknowledged and its server is given back.
func (h *Handler) finish(p *participant) {
	h.settle(p)
	h.request.Left(p.shard, h.settled)
	h.unload(p)
	h.hidePrepared(p)
	p.defined()
	h.tidy(p)
	h.unpin(p)
	if p == h.pinned && p.Server.Dirty { // what it still has to say is no answer to the next statement
		h.pinned = nil
		h.setPin("")
	}
	p.On(branch.Returns)
	if p == h.pinned {
		return
	}
	h.free(p.Server)
	if h.tx.Idle() && len(h.tx.parts) == 0 {
		h.spare = p
	}
}

// lost turns the failure of a server's connection into what the client is told.
func (h *Handler) lost(p *participant, err error) error {
	var se *pool.ServerError
	if errors.As(err, &se) {
		return err
	}
	p.Lose()
	wide := errors.Is(err, wire.ErrTooLarge) // nothing is wrong with the node
	var broken *pool.ProtocolError
	garbled := errors.As(err, &broken) // it would say the same again
	if !wide && !garbled {
		p.Server.Pool.Suspect() // its others may be dead as well
		if h.runsAgain(p, nil) {
			return &againError{err}
		}
	}
	if h.pinned == p {
		h.pinned = nil
		h.setPin("")
		if h.tx.Idle() {
			h.settle(p)
		}
	}
	if wide {
		return &pgsql.Error{Code: pgsql.ProgramLimitExceeded, Message: "a row of shard " + h.shards.Name(p.shard) + " is too wide to be merged or gathered: " + err.Error(), Hint: "Read it from the one shard that has it."}
	}
	if garbled {
		return &pgsql.Error{Code: pgsql.ProtocolViolation, Message: broken.Error(), Hint: lostHint}
	}
	return &pgsql.Error{
		Code: pgsql.ConnectionFailure, Message: "the connection to shard " + h.shards.Name(p.shard) + " (node " + p.Server.Pool.Node + ") was lost: " + shortError(err),
		Hint: lostHint,
	}
}

const lostHint = "The outcome of the statement is not known if it wrote. Outside a transaction the session goes on."

// freeIfLost gives a pinned server up that turned out to be lost outside of a statement's own path.
func (h *Handler) freeIfLost(p *participant) {
	if p.Server.Dirty && p != h.pinned {
		h.finish(p)
	}
}

// freeLost gives up what a session that is bound to no server still has: a server that it kept, and that turned out to be lost when it was
// asked for the session's own sake, before a statement. Nobody else would: it would count as in use for ever.
func freeLost(h *Handler) {
	for _, s := range h.held.All() {
		if h.pinned == nil || s != h.pinned.Server {
			s.Dirty = true
			h.free(s)
		}
	}
}

func shortError(err error) string {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err.Error()
	}
	return "server closed the connection unexpectedly"
}

func (h *Handler) setPin(cause string) {
	h.held.Keep(cause)
	if cause == "" && h.hadTemps {
		h.tempsOld, h.hadTemps = true, false
	}
}

// pin keeps a server for the session: what it did cannot be replayed on another.
func (h *Handler) pin(p *participant, cause string) {
	if h.pinned == nil {
		h.pinned = p
		h.setPin(cause)
		h.count.Pins.Add(1)
		h.checkPin = !h.tx.Idle() || cause == tryLock // the transaction's end may undo what ties it
	}
}

// tryLock is the cause of a pin for a lock that may not have been taken.
const tryLock = "advisory lock, tried"

// holdsCursor says whether a statement makes a cursor WITH HOLD, with which PostgreSQL prepares no transaction.
func holdsCursor(s *sqlparse.Statement) bool { return s.Kind == sqlparse.Cursor && s.Def.NoTx }

// pinCauseOf says why a statement ties its session to its server, or "".
func pinCauseOf(t *router.Template) string {
	s := t.Stmt
	switch s.Kind {
	case sqlparse.Load:
		return "LOAD"
	case sqlparse.Cursor:
		if holdsCursor(s) {
			return "WITH HOLD"
		}
	default: // what it names decides
	}
	if t.Temp {
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
