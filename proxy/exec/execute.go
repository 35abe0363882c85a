package exec

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/exec/pipeline"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

func (h *Handler) executeMsg(ctx context.Context, m wire.Message) (err error) {
	x := &h.ext
	name, rest, err := wire.CString(m.Body())
	if err != nil || len(rest) != 4 {
		return &pgsql.Error{Code: pgsql.ProtocolViolation, Message: "invalid Execute message"}
	}
	pt := x.portal(portalName(name))
	if pt == nil {
		return &pgsql.Error{Code: pgsql.InvalidCursorName, Message: fmt.Sprintf("portal %q does not exist", name)}
	}
	if pt.state == pipeline.Dead || h.tx.Failed() && !endsTx(pt.stmt.tmpl.Stmt) {
		return errFailedTx
	}
	h.count.Queries.Add(1)
	h.request.About(bytesOf(pt.stmt.sql))
	pt.stmt.tmpl.Runs.Add(1)
	if pt.part != nil {
		return executeThere(ctx, h, pt, m)
	}
	h.key = 0 // that of the Bind that came last, not this portal's
	// Something of our own: all that came before must be answered first.
	if err := h.drain(ctx, !h.tx.Idle()); err != nil {
		return err
	}
	if pt.state == pipeline.Broken {
		return cannotRun(pt)
	}
	x.executing = true
	defer func() {
		x.executing = false
		if err != nil {
			pt.state.On(pipeline.Fails)
		}
	}()
	if pt.plan.Class == router.Control {
		return h.controlOnce(ctx, pt)
	}
	if x.cur != nil {
		if err := h.leave(ctx, pt.stmt.tmpl.Read); err != nil {
			return err
		}
		x.setPortal(pt.name, pt) // the end of what came before has closed it
	}
	if err := mayLock(h, pt.plan.Stmt); err != nil {
		return err
	}
	if h.tx.Idle() && pt.plan.Writes() { // it is undone if the pipeline fails behind it
		h.begin("BEGIN", sqlparse.Tx{}, true)
	}
	if x.anonymous != nil && x.anonymous.part != nil && !x.anonymous.aside { // its server is about to need its own unnamed one
		x.anonymous = nil
	}
	return h.runLimited(ctx, pt, int(int32(binary.BigEndian.Uint32(rest))))
}

// executeThere gathers an Execute for the server that has the portal.
func executeThere(ctx context.Context, h *Handler, pt *portal, m wire.Message) error {
	x := &h.ext
	if err := h.switchTo(ctx, pt.part); err != nil {
		return err
	}
	if err := outsideOurs(h, pt.stmt.tmpl.Stmt); err != nil {
		return err
	}
	if !pt.stmt.tmpl.Read && mayRefuse(x) { // it is skipped if that is another: a lock that it takes, or what it draws, nobody could undo
		if err := h.drain(ctx, false); err != nil {
			return err
		}
	}
	if len(pt.configs) > 0 {
		if err := mayConfigure(h, configuring(x, pt.configs)); err != nil {
			return err
		}
	}
	if closesAll(pt.stmt.tmpl.Stmt) && h.tx.Active() && !h.tx.Failed() {
		if err := closeAllBy(ctx, h, pt); err != nil {
			return err
		}
	}
	h.count.Single.Add(1)
	x.copy.executed = takesData(pt.stmt.tmpl.Stmt)
	pt.send(m)
	if binary.BigEndian.Uint32(m.Body()[len(m.Body())-4:]) == 0 {
		pt.state.On(pipeline.Runs)
	}
	h.tx.defined = h.tx.defined || pt.stmt.tmpl.Defines()
	if h.changesTemps(pt.stmt.tmpl) {
		h.tempsOld, h.tempsAltered = true, true
	}
	x.ops = append(x.ops, op{kind: pipeline.Executed, portal: pt, tmpl: pt.stmt.tmpl, configs: pt.configs, deep: pt.deep})
	return declaredAmid(ctx, h, pt)
}

// declaredAmid notes where the cursor is that a portal has just declared in a transaction: what comes in the pipeline may name it.
func declaredAmid(ctx context.Context, h *Handler, pt *portal) error {
	if pt.stmt.tmpl.Stmt.Kind != sqlparse.Cursor || h.tx.Idle() {
		return nil
	}
	if err := h.drain(ctx, false); err != nil {
		return err
	}
	h.declared(pt.stmt.tmpl.Stmt.Name, pt.part)
	return nil
}

// outsideOurs refuses, in a transaction that we have made, what PostgreSQL takes in one of the client's only: the server does not know that it is ours.
func outsideOurs(h *Handler, s *sqlparse.Statement) error {
	switch {
	case !h.tx.Implicit:
	case s.Kind == sqlparse.Cursor && !s.Def.NoTx:
		return &pgsql.Error{Code: pgsql.NoActiveSQLTransaction, Message: "DECLARE CURSOR can only be used in transaction blocks"}
	case s.Kind == sqlparse.Lock:
		return errLockOutside
	}
	return nil
}

// closeAllBy is closeAll for a portal that is about to run CLOSE ALL, when what came before it has been answered.
func closeAllBy(ctx context.Context, h *Handler, pt *portal) error {
	err := h.drain(ctx, false)
	if err == nil {
		err = closeAll(h, pt.part, pt)
	}
	if err == nil {
		err = h.switchTo(ctx, pt.part)
	}
	return err
}

// controlOnce runs a portal of the session's own, which can be run once. One with rows has none left then.
func (h *Handler) controlOnce(ctx context.Context, pt *portal) error {
	s := pt.stmt.tmpl.Stmt
	if err := h.mayRun(s); err != nil {
		return err
	}
	if pt.state.MayRun() || s.Kind == sqlparse.Empty {
		pt.state.On(pipeline.Runs)
		return h.controlInBatch(ctx, pt)
	}
	switch {
	case describeLocal(s) == nil:
		return cannotRun(pt)
	case s.Kind == sqlparse.Show:
		h.client.SendTag("SHOW")
	default:
		h.client.SendTag("EXPLAIN")
	}
	return nil
}

// controlInBatch runs a control statement amid a pipeline. As in PostgreSQL what came before it in the pipeline is ended by
// COMMIT and DISCARD ALL, unless they are refused, undone by ROLLBACK, becomes part of the transaction that BEGIN begins, and stays undecided at anything else.
func (h *Handler) controlInBatch(ctx context.Context, pt *portal) error {
	s := pt.stmt.tmpl.Stmt
	ends := s.Kind == sqlparse.Commit || s.Kind == sqlparse.Rollback || s.Kind == sqlparse.Discard && s.Name == "all"
	if ends {
		if err := mayChain(h, s); err != nil { // before what came before it is committed
			return err
		}
		defer h.ext.closePortals()
	}
	if h.ext.cur != nil && h.tx.Idle() && s.Kind != sqlparse.Empty {
		var err error
		if ends && s.Kind != sqlparse.Rollback || h.ext.cur.Replica {
			err = h.drain(ctx, true)
		} else {
			err = h.leave(ctx, h.ext.anonymous == nil || h.ext.anonymous == pt) // a portal that stays needs its transaction
		}
		if err != nil {
			return err
		}
		if !ends {
			h.ext.setPortal(pt.name, pt) // the end of what came before has closed it
		}
	}
	if h.tx.Idle() && (s.Kind == sqlparse.Set || s.Kind == sqlparse.Constraints || s.Kind == sqlparse.Listen || s.Kind == sqlparse.Unlisten) { // undone if the pipeline fails, and LOCAL holds to its end
		h.begin("BEGIN", sqlparse.Tx{}, true)
	}
	return h.control(ctx, s)
}

func (h *Handler) closeMsg(ctx context.Context, m wire.Message) error {
	x := &h.ext
	body := m.Body()
	if len(body) < 2 || body[len(body)-1] != 0 {
		return &pgsql.Error{Code: pgsql.ProtocolViolation, Message: "invalid Close message"}
	}
	name := body[1 : len(body)-1]
	if body[0] == 'S' {
		x.put(string(name), nil)
		h.local(closeComplete)
		return nil
	}
	name = portalName(name)
	pt := x.portal(name)
	x.putPortal(string(name), nil)
	if p := h.declaredOn(string(name)); pt == nil && p != nil {
		pt = &portal{part: p}
		delete(h.tx.cursors, string(name))
		h.checkPin = true
	}
	if pt != nil && pt.part != nil && pt.state != pipeline.Dead && (pt.part == x.cur || pt.part == h.pinned || h.tx.Active() || mayGoBack(h) && !pt.part.Server.Dirty) {
		if err := h.switchTo(ctx, pt.part); err != nil {
			return err
		}
		pt.send(m)
		x.ops = append(x.ops, op{kind: pipeline.Completed})
		return nil
	}
	h.local(closeComplete)
	return nil
}

// mayGoBack says that the transaction has failed, and what it had at a savepoint may come back.
func mayGoBack(h *Handler) bool { return h.tx.Failed() && len(h.tx.saves) > 0 }

// declaredOn is where a cursor is that SQL has declared; nil if there is none.
func (h *Handler) declaredOn(name string) *participant {
	if p := h.tx.cursors[name]; p != nil {
		return p
	}
	if name != "" && h.tx.Idle() {
		return h.pinned // whatever ties it: a function may have declared one
	}
	return nil
}
