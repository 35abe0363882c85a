package exec

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/exec/client"
	"github.com/pgmosaic/pgmosaic/proxy/exec/planner"
	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// transaction is the client's transaction over the shards that it has reached so far. BEGIN is answered at
// once and sent to a shard only with the first statement that needs it.
type transaction struct {
	branch.Tx

	begin     string
	opts      sqlparse.Tx
	inherited sqlparse.Tx // by AND CHAIN
	parts     []*participant
	saves     []savepoint
	steps     []step                  // for those who come late
	before    *pool.Settings          // at BEGIN
	cursors   map[string]*participant // where each SQL cursor is
	held      []*gathering            // whose copies a cursor reads
	ddl       bool
	logins    bool        // ALTER ROLE or ALTER DATABASE .. SET
	locks     bool        // it may hold locks that shut even readers out, or made what others cannot see
	listens   []listening // LISTEN and UNLISTEN, done at COMMIT
	notifies  bool        // it may have sent notifications
	since     time.Time
	told      map[string]string // what the client had been told before it
	own       ownInTx
	who       bool         // it has changed who the session is
	base      planner.View // what everybody sees, if the transaction has defined something
	oids      []uint32     // of the declared tables that it has renamed or dropped
	defined   bool         // something, since the schema was read
	unseen    unseen
}

// begin opens a transaction without telling any server.
func (h *Handler) begin(sql string, opts sqlparse.Tx, implicit bool) {
	next := h.tx.Tx
	next.Begin(implicit)
	h.tx = transaction{Tx: next, begin: sql, opts: opts, before: h.settings, parts: h.tx.parts[:0], since: h.now, told: h.told.Mark(), notifies: h.tx.notifies, own: ownInTx{h.own, h.own}}
	reckonAnew(h)
}

// join returns the transaction's participant on a shard, making it one if need be.
func (h *Handler) join(ctx context.Context, shard int, t *router.Template) (*participant, error) {
	if h.tx.unseen.by != nil {
		if err := spreadTo(ctx, h, shard, t); err != nil {
			return nil, err
		}
	}
	p, err := joined(ctx, h, shard, t)
	if err == nil && t.Hidden != nil {
		p.Server.Suspect(t.Hidden.Vars, t.Hidden.Unknown)
		maySet(h, p, t)
	}
	if err == nil && t.Counts != 0 {
		err = counts(ctx, h, p, t)
	}
	return p, err
}

func joined(ctx context.Context, h *Handler, shard int, t *router.Template) (*participant, error) {
	if err := h.held.Stopped(); err != nil {
		return nil, err
	}
	if err := paid(ctx, h, shard); err != nil {
		return nil, err
	}
	for _, p := range h.tx.parts {
		if p.shard == shard {
			if p.Server.Dirty {
				return nil, lostBefore(h, p)
			}
			if stays, err := h.staysOnReplica(p, t); err != nil {
				return nil, err
			} else if !stays {
				h.leaveReplica(p)
				break
			}
			if err := h.mayWrite(p, t); err != nil {
				return nil, err
			}
			p.On(branch.Runs)
			p.Used = true
			return p, nil
		}
	}
	if len(h.tx.parts) > 0 && !h.own.Apart {
		if iso := h.isolation(); iso != "" {
			return nil, router.Refuse(router.RuleIsolation, strings.ToUpper(iso))
		}
	}
	var p *participant
	if h.pinned != nil && h.pinned.shard == shard {
		p = h.pinned
	} else {
		var err error
		if t.Read && h.readsOnly() {
			if p, err = h.forReader(ctx, shard, t); err == nil && !p.Replica {
				p.node = -1
			}
		} else {
			var s *pool.Server
			s, err = h.lease(ctx, shard)
			p = &participant{Branch: branch.Of(s), shard: shard, node: -1}
		}
		if err != nil {
			if errors.Is(err, errReplan) && len(h.tx.parts) > 0 {
				return nil, errTxMapChanged
			}
			return nil, err
		}
	}
	drop := func() {
		if p != h.pinned {
			h.free(p.Server)
			h.unload(p)
		}
	}
	if err := h.mayWrite(p, t); err != nil {
		drop()
		return nil, err
	}
	h.keepDefaults(p.Server)
	if err := h.adaptTo(p, h.tx.before); err != nil {
		drop()
		return nil, err
	}
	p.Begin(h.tx.begin)
	h.tx.parts = append(h.tx.parts, p)
	return p, lead(h, p)
}

// isolation is the transaction's level if all its statements see one snapshot: what BEGIN says, else the session's
// default. Empty for READ COMMITTED.
func (h *Handler) isolation() string {
	iso := h.tx.opts.Isolation
	if iso == "" {
		iso = defaultIn(foundByTx(h), "default_transaction_isolation", h.firstModes.isolation)
	}
	if iso == "serializable" || iso == "repeatable read" {
		return iso
	}
	return ""
}

// mayWrite marks a participant as a writer, unless the statement is a read. A second writer needs
// two-phase commit.
func (h *Handler) mayWrite(p *participant, t *router.Template) error {
	p.Bound = p.Bound || t.Temp || t.OnTemp || t.Stmt != nil && (notifies(t.Stmt) || holdsCursor(t.Stmt))
	h.tx.Writes = h.tx.Writes || !h.readsOnly()
	if t.Read {
		return nil
	}
	if !p.Wrote() {
		for _, o := range h.tx.parts {
			if o != p && o.Wrote() && h.own.Commit == client.CommitRefuse {
				return router.Refuse(router.RuleNoTwoPhase, "pgmosaic.multi_shard_commit is refuse")
			}
		}
	}
	p.On(branch.Writes)
	h.tx.Changes = h.tx.Changes || !h.readsOnly() || p.Bound
	p.mayDefine(t)
	h.tx.locks = h.tx.locks || t.DDL && !t.Temp || t.Stmt.Kind == sqlparse.Truncate || t.Stmt.Kind == sqlparse.Lock
	p.keys = h.shards.At(p.shard).WriteKeys(p.keys, t, h.key)
	return nil
}

// joinAll has every shard of a statement join the transaction before anything is sent to one of them: a shard that cannot
// join leaves no answer behind that nobody reads.
func (h *Handler) joinAll(ctx context.Context, shards []int, t *router.Template) ([]*participant, error) {
	parts := make([]*participant, len(shards))
	for i, shard := range shards {
		var err error
		if parts[i], err = h.join(ctx, shard, t); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// ready sends BEGIN and its kin to a participant that joined for a statement which was never sent. One that was given up is in no transaction any
// more, and may have answers to come that nobody has read: nothing is asked of it.
func (h *Handler) ready(p *participant) error {
	if p.Server.Dirty {
		return lostBefore(h, p)
	}
	if !p.Owes() {
		return nil
	}
	p.Server.SendFlush()
	if err := p.Server.Flush(); err != nil {
		return h.lost(p, err)
	}
	return h.prologue(p)
}

// lostBefore is what the client is told where its transaction cannot go on, for want of a server that it has lost.
func lostBefore(h *Handler, p *participant) error {
	return &pgsql.Error{
		Code: pgsql.ConnectionFailure, Message: "the transaction has lost its connection to shard " + h.shards.Name(p.shard) + " (node " + p.Server.Pool.Node + ")",
		Hint: "ROLLBACK, and run the transaction again.",
	}
}

// prologue swallows the answers to BEGIN and its kin: see branch.Branch.Answered.
func (h *Handler) prologue(p *participant) error {
	if !p.Owes() {
		return nil
	}
	if err := p.Answered(); err != nil {
		return h.lost(p, err)
	}
	return nil
}

// rollback ends the transaction everywhere. Servers that do not answer are closed.
func (h *Handler) rollback() {
	writers := 0
	for _, p := range h.tx.parts {
		if p.Wrote() {
			writers++
		}
		h.abort(p)
		if h.tx.who { // some releases of PostgreSQL do not bring the role back
			p.Server.Suspect(nil, false)
		}
	}
	h.count.Ended(writers, metrics.RolledBack)
	if h.tx.before != nil {
		takeBack(h)
	}
	h.count.Transactions.Add(1)
	h.mayChangeTemps(true)
	h.endTx()
}

// letGo rolls a transaction that has failed back where it did not: as on one PostgreSQL it holds no locks any more, whenever
// its client ends it. With savepoints it may go on, and keeps what it has.
func (h *Handler) letGo() {
	if h.tx.Implicit || len(h.tx.saves) > 0 && !h.tx.saves[0].torn {
		return
	}
	asked := make([]*participant, 0, 8)
	for _, p := range h.tx.parts {
		s := p.Server
		if s.Dirty || s.TxStatus != 'T' || p.Owes() || p == h.ext.cur || s.Out() > 0 || s.Pending() > 0 {
			continue // the client's ROLLBACK ends it
		}
		if p.AskRollback() {
			asked = append(asked, p)
		}
	}
	for _, p := range asked {
		p.RolledBack()
	}
}

func (h *Handler) abort(p *participant) {
	switch {
	case p.Over():
	case h.ready(p) != nil:
		p.Lose()
	default:
		p.Rollback()
	}
}

// endTx gives the transaction's servers back. None is left in it, also where it has failed at its end: the session may keep one.
func (h *Handler) endTx() {
	if !h.tx.since.IsZero() {
		h.count.XactNanos.Add(int64(time.Since(h.tx.since)))
	}
	h.over()
	h.forgetDDL()
	adopt(h, emptied(h.settings, h.tx.unseen.customs.list...))
	inTurn(h)
	for _, g := range h.tx.held {
		g.close()
	}
	for i, p := range h.tx.parts {
		p.keys, p.Ending, p.judged = p.keys[:0], branch.Ending{}, nil
		p.forgetTold()
		p.Clear()
		if i == len(h.tx.parts)-1 {
			outcome(h, p)
		}
		if p.Server.Dirty && p == h.pinned {
			h.pinned = nil
			h.setPin("")
		}
		h.finish(p)
		p.resets = nil
	}
	h.mayChangeTemps(false)
	next := h.tx.Tx
	next.End()
	h.tx = transaction{Tx: next, parts: h.tx.parts[:0]}
	reckonAnew(h)
	h.ext.closePortals()
	lookUp(h)
}

// abandon rolls back for a client that is gone.
func (h *Handler) abandon() {
	if !h.tx.Idle() {
		h.rollback()
	}
}

// beginPortal is the portal of a BEGIN amid a client's pipeline.
const beginPortal = "pgmosaic begin"

// escalate makes a transaction of the autocommit pipeline on p, which needs a second shard or an answer in between: BEGIN amid a
// pipeline keeps the statements before it. p is given back if that fails, and the transaction's else, also where an error comes behind it.
func (h *Handler) escalate(ctx context.Context, p *participant) error {
	h.ext.cur = nil
	s := p.Server
	s.SendParse("", "BEGIN", nil)
	s.SendBind(beginPortal, "", []byte{0, 0, 0, 0, 0, 0}) // the unnamed portal may be the client's
	s.SendFrame('E', append([]byte(beginPortal), 0, 0, 0, 0, 0))
	s.SendSync()
	err := s.Flush()
	if err == nil {
		_, err = s.ReadTag()
	}
	if err != nil {
		err = h.lost(p, err)
		s.Dirty = true
		h.finish(p)
		return err
	}
	h.begin("BEGIN", sqlparse.Tx{}, true)
	p.On(branch.Joins)
	doubtPin(h, p)                         // its end may undo what ties it
	p.keys = append(p.keys, p.inFlight...) // they are sent already; commit counts them once more, and ends both
	h.tx.parts, h.tx.Changes, h.tx.Writes = append(h.tx.parts, p), p.Wrote(), true
	if s.IsSuspect() {
		maySet(h, p, nil)
	}
	post := h.ext.post
	if err := h.configured(p, post); err != nil { // it is the transaction's by now
		h.ext.undone(s)
		return err
	}
	h.afterwards(ctx, p, post)
	return nil
}

// afterDDL makes this and other sessions see a changed schema, and waits for no replica.
func (h *Handler) afterDDL(ctx context.Context) {
	h.client.Leave()
	if _, err := h.e.Planner.Schemas.Refresh(ctx, h.planner.DB); err != nil {
		h.e.Log.Warn("schema", "database", h.db, "error", err)
	}
	now := time.Now()
	for i := range h.shards.Infos {
		slot := h.shards.Whole(i)
		h.e.Horizon.Sent(slot)
		h.e.Horizon.Acked(slot, now)
	}
}
