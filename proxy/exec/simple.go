package exec

import (
	"context"
	"errors"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// Query implements session.Handler.
func (h *Handler) Query(ctx context.Context, sql []byte) error {
	if h.ext.skipping { // up to Sync
		return nil
	}
	h.beginRequest(len(sql))
	h.ext.copy = copying{}
	h.request.Choose(sql)
	idle := h.tx.Idle()
	err := h.joinPipeline(ctx)
	dropSuspended(h)
	h.ext.unnamed, h.ext.anonymous = nil, nil // a simple query drops the unnamed statement and portal
	joined := h.tx.Implicit
	if err == nil {
		err = h.query(ctx, sql)
	}
	if err = endPipeline(ctx, h, joined, err); err != nil {
		if err := h.report(err, string(h.request.Text())); err != nil {
			return err
		}
	}
	endRequest(h, idle)
	for range h.ext.copy.answered {
		h.client.SendReady(h.tx.Status().Byte())
	}
	return nil
}

// joinPipeline makes the statements of a pipeline that has not seen its Sync one transaction with the simple
// query behind them, as they are in PostgreSQL.
func (h *Handler) joinPipeline(ctx context.Context) error {
	x := &h.ext
	p := x.cur
	if p == nil {
		return nil
	}
	if h.tx.Idle() {
		err := h.drain(ctx, false)
		if err == nil {
			err = h.escalate(ctx, p)
		}
		if err != nil {
			x.post = x.post[:0]
		}
		return err
	}
	err := h.drain(ctx, true) // the transaction's end does not come with the pipeline's; what that has set is reported at a Sync
	if err != nil {           // the server, which may be lost, is the transaction's
		x.undone(p.Server)
		x.cur, x.post = nil, x.post[:0]
	}
	return err
}

// endPipeline ends the transaction of a pipeline that a request has joined, and that request with it.
func endPipeline(ctx context.Context, h *Handler, joined bool, err error) error {
	if joined && h.tx.Implicit && !h.tx.Idle() {
		if err != nil {
			h.rollback()
		} else {
			err = h.commitImplicit(ctx)
		}
	}
	h.ext.wrote = false
	h.ext.closePortalsIf(h.tx.Idle())
	return err
}

// endRequest ends a request that is not a part of a pipeline; idle says that no transaction was open when it began.
func endRequest(h *Handler, idle bool) {
	h.count.Queries.Add(1)
	h.timed(idle)
	h.signals = false
	h.held.End()
	h.sendReady()
}

// commitImplicit commits a transaction that we made.
func (h *Handler) commitImplicit(ctx context.Context) error {
	tag, err := h.commit(ctx)
	if err == nil && tag != "COMMIT" { // it had failed
		err = errRolledBack
	}
	return err
}

// timed counts a request's time; idle says that no transaction was open when it began.
func (h *Handler) timed(idle bool) {
	end := h.settled // the last server was given back a moment ago
	if end.Before(h.now) {
		end = time.Now()
	}
	d := end.Sub(h.now)
	h.count.QueryNanos.Add(int64(d))
	if idle && h.tx.Idle() {
		h.count.AutoNanos.Add(int64(d))
	}
	h.request.Done(end, d, (*observing)(h))
}

// sendReady ends an answer. What the session's own NOTIFY has brought comes before it, as from PostgreSQL.
func (h *Handler) sendReady() {
	h.hearOwn()
	if h.listen != nil && h.tx.Idle() {
		_ = h.Deliver()
	}
	for _, p := range h.tx.parts {
		if p.replayed && !p.Owes() && !p.Server.Dirty {
			h.resay(p)
		}
	}
	if !h.bound() { // also in a transaction that has done nothing yet
		h.planner.Done()
		if h.pinned != nil {
			h.pinned.Server.Park()
		} else if h.held.Any() {
			freeLost(h)
		}
	}
	h.client.SendReady(h.tx.Status().Byte())
}

func (h *Handler) query(ctx context.Context, sql []byte) error {
	if h.tx.Implicit {
		h.attempt.Repeatable = false // a pipeline's
	}
	for try := 0; ; try++ {
		if err := h.current(ctx); err != nil {
			return err
		}
		p, multi, err := h.plan(ctx, sql)
		if err != nil {
			if h.awaitMove(ctx, err) {
				continue
			}
			if h.tx.Failed() {
				return errFailedTx
			}
			return err
		}
		if multi != nil {
			h.attempt.Repeatable = false
			return h.several(ctx, multi)
		}
		if h.args == nil { // one for many statements, until the session rests
			h.args = new(router.Args)
		}
		*h.args = router.Args{Text: sql, Literals: p.Literals}
		err = h.simple(ctx, p.Template, h.args)
		if isAgain(err) {
			h.beginAgain()
			h.dropFailed()
			continue
		}
		if errors.Is(err, errReplan) && try < 3 && !keepsMap(h) && !h.tx.Failed() && unsent(h) {
			if err = h.refresh(ctx); err == nil { // also for a transaction that has no server yet
				unwrite(h, h.attempt.Out())
				continue
			}
		}
		return err
	}
}

// simple runs one statement of the simple protocol.
func (h *Handler) simple(ctx context.Context, t *router.Template, a *router.Args) error {
	if t.Class == router.Control {
		return h.control(ctx, t.Stmt)
	}
	if err := h.mayRun(t.Stmt); err != nil {
		return err
	}
	if p := h.cursorOn(t.Stmt); p != nil {
		if err := spreadTo(ctx, h, p.shard, nil); err != nil {
			return err
		}
		h.count.Single.Add(1)
		return h.relayText(ctx, p, t, a.Text, nil)
	}
	if shard, ok := h.route(t, a); ok {
		h.count.Single.Add(1)
		return h.single(ctx, shard, t, a)
	}
	p, err := h.bind(ctx, t, a, nil)
	if err != nil {
		return err
	}
	return h.run(ctx, p, a, nil)
}

// route is the short way to the shard of a statement: by its key. ok is false
// where the plan must be bound.
func (h *Handler) route(t *router.Template, a *router.Args) (shard int, ok bool) {
	h.key = 0
	if h.own.Shard == "" {
		shard, h.key, ok = t.Route(h.planner.DB, a)
	}
	return shard, ok
}

// cursorOn is where the cursor is that FETCH, MOVE, CLOSE or WHERE CURRENT OF names; nil for other statements and unknown
// cursors.
func (h *Handler) cursorOn(s *sqlparse.Statement) *participant {
	switch {
	case s.CurrentOf != "":
		return h.tx.cursors[s.CurrentOf]
	case s.Kind == sqlparse.Fetch:
		return h.tx.cursors[s.Name]
	}
	return nil
}

// run executes a bound plan whose text holds its values (simple protocol) or whose values are in a.
func (h *Handler) run(ctx context.Context, p *router.Plan, a *router.Args, x *execution) (err error) {
	defer func() {
		if errors.Is(err, errPlanChanged) {
			h.staleSchema(ctx)
		}
	}()
	if x == nil {
		if err := mayLock(h, p.Stmt); err != nil {
			return err
		}
	}
	switch {
	case p.Class == router.Copy:
		h.count.Copy.Add(1)
		return h.copy(ctx, p)
	case x == nil && p.Plain():
		h.count.Single.Add(1)
		shard := p.Shards[0]
		if p.Any {
			shard = h.anyShard()
		}
		return h.single(ctx, shard, p.Template, a)
	case p.Class == router.Scatter:
		h.count.Scatter.Add(1)
		return h.scatter(ctx, p, a, x)
	case p.Class == router.Gathered:
		h.count.Gather.Add(1)
		return h.gather(ctx, p, a, x)
	case p.Class == router.Explained:
		return h.explainShards(ctx, p)
	case p.Class == router.Rekey:
		h.count.Write.Add(1)
		return h.rekey(ctx, p, a, x)
	case p.Class == router.Moved:
		h.count.Split.Add(1)
		return h.move(ctx, p, a, x)
	case p.Class == router.Write:
		h.count.Write.Add(1)
		return h.writeMany(ctx, p, a, x)
	case p.Class == router.Split:
		h.count.Split.Add(1)
		return h.split(ctx, p, a, x)
	}
	return errors.New("exec: a plan that cannot run here: " + p.Class.String())
}

// anyShard is where a statement over reference tables runs: where the transaction is, else home.
func (h *Handler) anyShard() int {
	if len(h.tx.parts) > 0 {
		return h.tx.parts[0].shard
	}
	return h.planner.DB.Home.Index
}

// single sends the client's text to one shard and relays the answer.
func (h *Handler) single(ctx context.Context, shard int, t *router.Template, a *router.Args) error {
	configs := configsOf(t, a)
	if err := mayConfigure(h, configs); err != nil {
		return err
	}
	p, err := h.enlist(ctx, shard, t)
	if err != nil {
		return err
	}
	if err := h.showPrepared(p, t); err != nil {
		if h.tx.Idle() {
			h.finish(p)
		}
		return err
	}
	return h.relayText(ctx, p, t, a.Text, configs)
}

// relayText sends a text to a participant, relays the answer and settles what it entails.
func (h *Handler) relayText(ctx context.Context, p *participant, t *router.Template, text []byte, configs []setting) error {
	if t.Stmt.Signals {
		h.signalling(t.Stmt.Funcs)
	}
	if closesAll(t.Stmt) {
		if err := closeAll(h, p, nil); err != nil {
			return err
		}
	}
	h.tx.notifies = h.tx.notifies || notifies(t.Stmt)
	if cause := pinCauseOf(t); cause != "" {
		h.pin(p, cause)
	}
	h.client.Release()
	p.Server.SendQueryBytes(text)
	err := p.Server.Flush() // the server reads the whole text before it answers
	var r relayed
	if err != nil {
		err = h.lost(p, err)
	} else if err = h.prologue(p); err == nil {
		r, err = h.relay(p)
	}
	if err == nil && !r.failed {
		if err = h.configure(p, configs); err == nil {
			h.closed(p, t)
		}
	} else {
		failed(p.Server, configs)
		doubtPin(h, p)
	}
	return h.ended(ctx, p, t, r, err)
}

// ended settles a statement on one participant.
func (h *Handler) ended(ctx context.Context, p *participant, t *router.Template, r relayed, err error) error {
	if err == nil && r.failed {
		err = errRelayed
	}
	if h.tx.Idle() {
		h.count.Transactions.Add(1)
		h.endedAlone(p, err)
		if p.Server.TxStatus != 'I' && r.ready { // the text opened a transaction behind our back (DO, CALL)
			p.Lose()
		}
		h.finish(p)
	} else if p.Server.TxStatus == 'I' && r.ready && err == nil {
		// The text ended the transaction behind our back: what the others do no longer belongs to it.
		h.rollback()
	}
	if p.outdates(r.code) {
		h.staleSchema(ctx)
	}
	if err == nil {
		h.after(ctx, t, p.shard)
	}
	return err
}

// outdates says whether an error shows that our schema may be old.
func (p *participant) outdates(code string) bool {
	old := p.outdated || code == pgsql.UndefinedTable || code == pgsql.UndefinedColumn || code == pgsql.UndefinedFunction
	p.outdated = false
	return old
}

// endedAlone counts an autocommit statement that wrote.
func (h *Handler) endedAlone(p *participant, err error) {
	if !p.Wrote() {
		return
	}
	switch {
	case err == nil:
		h.count.Ended(1, metrics.Committed)
	case p.Server.Dirty:
		h.count.Ended(1, metrics.Unknown)
	default:
		h.count.Ended(1, metrics.RolledBack)
	}
}

// staleSchema reads the schema again, at most once in a while for each session.
func (h *Handler) staleSchema(ctx context.Context) {
	if time.Since(h.ext.reread) > time.Second {
		h.ext.reread = time.Now()
		h.client.Leave()
		if err := h.e.Planner.Schemas.Check(ctx, h.planner.DB); err != nil {
			h.e.Log.Warn("schema", "database", h.db, "error", err)
		}
	}
}

// after does what a successful statement entails for the session and the map.
func (h *Handler) after(ctx context.Context, t *router.Template, shard int) {
	if t.Stmt.Kind == sqlparse.Cursor && !h.tx.Idle() {
		for _, p := range h.tx.parts {
			if p.shard == shard {
				h.declared(t.Stmt.Name, p)
			}
		}
		return
	}
	if t.Stmt.Kind == sqlparse.Fetch && t.Stmt.Closes {
		delete(h.tx.cursors, t.Stmt.Name)
		return
	}
	if h.changesTemps(t) {
		h.tempsOld, h.tempsAltered = true, true
		if t.Temp {
			return
		}
	}
	if t.Defines() {
		if h.tx.Idle() {
			h.tx.defined = false
			h.afterDDL(ctx)
			if t.Stmt.Def.Logins {
				h.e.newLogins()
			}
		} else {
			h.tx.ddl, h.tx.defined, h.tx.logins = true, true, h.tx.logins || t.Stmt.Def.Logins
		}
	}
}

// closesAll says whether a statement is CLOSE ALL.
func closesAll(s *sqlparse.Statement) bool {
	return s.Kind == sqlparse.Fetch && s.Closes && s.Name == ""
}

// closeAll closes what CLOSE ALL does on the servers of the transaction that do not run it, and here: all cursors and portals, but the one by which it runs.
func closeAll(h *Handler, on *participant, but *portal) error {
	for _, p := range h.tx.parts {
		if p == on {
			continue
		}
		if err := h.ready(p); err != nil {
			return err
		}
		if _, err := p.Server.Exec("CLOSE ALL"); err != nil {
			return h.lost(p, err)
		}
	}
	clear(h.tx.cursors)
	x := &h.ext
	for name, pt := range x.portals {
		if pt != but {
			x.putPortal(name, nil)
		}
	}
	if x.anonymous != but {
		x.putPortal("", nil)
	}
	return nil
}

// mayLock refuses LOCK TABLE where nothing would hold the locks: the client has begun no transaction.
func mayLock(h *Handler, s *sqlparse.Statement) error {
	if s == nil || s.Kind != sqlparse.Lock || !h.outsideBlock() {
		return nil
	}
	return errLockOutside
}

var errLockOutside = &pgsql.Error{Code: pgsql.NoActiveSQLTransaction, Message: "LOCK TABLE can only be used in transaction blocks"}

// declared notes where a cursor is.
func (h *Handler) declared(name string, p *participant) {
	if h.tx.cursors == nil {
		h.tx.cursors = map[string]*participant{}
	}
	h.tx.cursors[name] = p
}

// several runs a string of several statements one by one in one implicit transaction. As in PostgreSQL, the last one is
// complete when that has committed.
func (h *Handler) several(ctx context.Context, stmts []*sqlparse.Statement) (err error) {
	defer func() { h.client.ReleaseTag(err == nil) }()
	if h.tx.Idle() {
		h.begin("BEGIN", sqlparse.Tx{}, true)
	}
	for i, s := range stmts {
		if h.tx.Idle() { // behind a COMMIT inside the string
			h.begin("BEGIN", sqlparse.Tx{}, true)
			if err := h.current(ctx); err != nil {
				return err
			}
		}
		if i == len(stmts)-1 {
			h.client.HoldTag()
		}
		if err := byNewerMap(ctx, h, func() error { return h.oneOfSeveral(ctx, s) }); err != nil {
			if h.tx.Implicit {
				h.rollback()
			}
			return err
		}
	}
	if !h.tx.Idle() && h.tx.Implicit {
		return h.commitImplicit(ctx)
	}
	return nil
}

// byNewerMap runs something, and again if the map has changed while that waited for its first server, and the client has seen nothing of it.
func byNewerMap(ctx context.Context, h *Handler, run func() error) error {
	sent, out := h.sentSoFar()
	err := run()
	for try := 0; errors.Is(err, errReplan) && try < 3 && !keepsMap(h) && !h.tx.Failed(); try++ {
		if now, _ := h.sentSoFar(); now != sent {
			break
		}
		if err = h.refresh(ctx); err == nil { // also for a transaction that has no server yet
			unwrite(h, out)
			err = run()
		}
	}
	return err
}

func (h *Handler) oneOfSeveral(ctx context.Context, s *sqlparse.Statement) error {
	p, err := h.planStatement(ctx, s)
	for h.awaitMove(ctx, err) {
		p, err = h.planStatement(ctx, s)
	}
	if err != nil {
		return err
	}
	if s.Def.NoTx && p.Template.Class != router.Control && s.Kind != sqlparse.Cursor && s.Kind != sqlparse.Explain {
		return &pgsql.Error{Code: pgsql.ActiveSQLTransaction, Message: "this statement cannot run inside a transaction block"}
	}
	return h.simple(ctx, p.Template, &router.Args{Text: []byte(s.Text)})
}
