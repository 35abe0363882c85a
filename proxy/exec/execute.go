package exec

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

func (h *Handler) executeMsg(ctx context.Context, m wire.Message) error {
	x := &h.ext
	name, rest, err := wire.CString(m.Body())
	if err != nil || len(rest) != 4 {
		return &wire.PgError{Code: "08P01", Message: "invalid Execute message"}
	}
	pt := x.portal(name)
	if pt == nil {
		return &wire.PgError{Code: "34000", Message: fmt.Sprintf("portal %q does not exist", name)}
	}
	h.count.Queries.Add(1)
	h.about(pt.stmt)
	pt.stmt.tmpl.Runs.Add(1)
	if pt.on != nil {
		if err := h.use(ctx, pt.on); err != nil {
			return err
		}
		h.count.Single.Add(1)
		pt.on.srv.Gather(m.Raw)
		h.tx.defined = h.tx.defined || pt.stmt.tmpl.Defines()
		x.ops = append(x.ops, op{kind: opExecute, tmpl: pt.stmt.tmpl, configs: pt.configs, deep: pt.deep})
		return nil
	}
	h.key = 0 // that of the Bind that came last, not this portal's
	// Something of our own: all that came before must be answered first.
	if err := h.drain(ctx, h.tx.status != 'I'); err != nil {
		return err
	}
	x.executing = true
	defer func() { x.executing = false }()
	if pt.plan.Class == router.Control {
		return h.controlInBatch(ctx, pt.stmt.tmpl.Stmt)
	}
	if x.cur != nil {
		if err := h.leave(ctx, pt.stmt.tmpl); err != nil {
			return err
		}
		x.register(pt) // the end of what came before has closed it
	}
	return h.runLimited(ctx, pt, int(int32(binary.BigEndian.Uint32(rest))))
}

// controlInBatch runs a control statement amid a pipeline. The server that the pipeline used so far must
// be done with it.
func (h *Handler) controlInBatch(ctx context.Context, s *sqlparse.Statement) error {
	x := &h.ext
	if p := x.cur; p != nil && h.tx.status == 'I' && s.Kind != sqlparse.Empty {
		if err := h.drain(ctx, true); err != nil { // BEGIN behind statements: those stand for themselves
			return err
		}
	}
	return h.control(ctx, s)
}

func (h *Handler) closeMsg(m wire.Message) error {
	x := &h.ext
	body := m.Body()
	if len(body) < 2 || body[len(body)-1] != 0 {
		return &wire.PgError{Code: "08P01", Message: "invalid Close message"}
	}
	name := body[1 : len(body)-1]
	if body[0] == 'S' {
		if len(name) == 0 {
			x.unnamed = nil
		} else {
			delete(x.named, string(name))
		}
		h.local(closeComplete)
		return nil
	}
	pt := x.portal(name)
	if len(name) == 0 {
		x.anonymous = nil
	} else {
		delete(x.portals, string(name))
	}
	if pt != nil && pt.on != nil && pt.on == x.cur {
		pt.on.srv.Gather(m.Raw)
		x.ops = append(x.ops, op{kind: opRelay})
		return nil
	}
	h.local(closeComplete)
	return nil
}
