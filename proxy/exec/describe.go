package exec

import (
	"context"
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
)

// describe asks a server, once for each statement, for its parameters and columns.
func (h *Handler) describe(ctx context.Context, s *stmt) (*described, error) {
	if s.desc != nil {
		return s.desc, nil
	}
	if err := h.drain(ctx, false); err != nil {
		return nil, err
	}
	d, err := h.describeText(ctx, s.sql, s.types)
	if err != nil {
		return nil, err
	}
	s.desc = d
	return d, nil
}

// describeText parses and describes a text on home. It is no part of the client's transaction unless that
// is there already.
func (h *Handler) describeText(ctx context.Context, sql string, types []uint32) (*described, error) {
	home := h.dbmap.Home.Index
	var p *participant
	mine := false
	for _, q := range h.tx.parts {
		if q.shard == home {
			p = q
		}
	}
	if p == nil && h.ext.cur != nil && h.ext.cur.shard == home && h.tx.status == 'I' {
		p = h.ext.cur
	}
	if p == nil && h.pinned != nil && h.pinned.shard == home {
		p = h.pinned
	}
	if p == nil {
		s, err := h.lease(ctx, home, -1)
		if err != nil {
			return nil, err
		}
		p = &participant{shard: home, srv: s}
		mine = true
		defer func() {
			if mine {
				h.free(p.srv)
			}
		}()
		if err := h.adapt(p); err != nil {
			return nil, err
		}
	}
	s := p.srv
	if err := h.ready(p); err != nil {
		return nil, err
	}
	s.SendParse("", sql, types)
	s.SendDescribe('S', "")
	if p == h.ext.cur {
		s.SendFlush() // its pipeline is still open
	} else {
		s.SendSync()
	}
	if err := s.Flush(); err != nil {
		return nil, h.lost(p, err)
	}
	d := &described{}
	var failed error
	for {
		m, err := s.Next()
		if err != nil {
			return nil, h.lost(p, err)
		}
		switch m.Type {
		case 't':
			if d.params, err = wire.ParseParameterTypes(m.Body()); err != nil {
				return nil, h.lost(p, err)
			}
		case 'T':
			if d.fields, err = wire.ParseRowDescription(m.Body()); err != nil {
				return nil, h.lost(p, err)
			}
		case 'E':
			failed = &pool.ServerError{Response: wire.ParseError(m.Body())}
		case 'S':
			s.NoteParam(m.Body())
		case 'Z':
			s.TxStatus = m.Body()[0]
			return d, failed
		}
		if p == h.ext.cur && (m.Type == 'T' || m.Type == 'n' || m.Type == 'E') {
			return d, failed
		}
	}
}

func (h *Handler) describeMsg(ctx context.Context, m wire.Message) error {
	x := &h.ext
	body := m.Body()
	if len(body) < 2 || body[len(body)-1] != 0 {
		return &wire.PgError{Code: "08P01", Message: "invalid Describe message"}
	}
	kind, name := body[0], body[1:len(body)-1]
	if kind == 'S' {
		return h.describeStatement(ctx, name)
	}
	pt := x.portal(name)
	if shard, ok := h.tx.cursors[string(name)]; pt == nil && ok { // DECLARE made it
		for _, p := range h.tx.parts {
			if p.shard == shard {
				pt = &portal{on: p}
			}
		}
	}
	if pt == nil {
		return &wire.PgError{Code: "34000", Message: fmt.Sprintf("portal %q does not exist", name)}
	}
	if pt.on != nil {
		if err := h.use(ctx, pt.on); err != nil {
			return err
		}
		pt.on.srv.Gather(m.Raw)
		x.ops = append(x.ops, op{kind: opDescribe})
		return nil
	}
	fields := describeLocal(pt.stmt.tmpl.Stmt)
	if pt.stmt.desc != nil {
		fields = pt.stmt.desc.fields
	}
	h.local(rowDescription(fields, pt.res))
	return nil
}

// rowDescription encodes columns with the formats that a Bind asked for.
func rowDescription(fields []wire.Field, formats []int16) []byte {
	if fields == nil {
		return noData
	}
	out := append([]wire.Field(nil), fields...)
	for i := range out {
		out[i].Format = formatOf(formats, i)
	}
	b, err := (&wire.RowDescription{Fields: out}).Encode(nil)
	if err != nil {
		return noData
	}
	return b
}

func formatOf(formats []int16, i int) int16 {
	switch {
	case len(formats) == 1:
		return formats[0]
	case i < len(formats):
		return formats[i]
	}
	return 0
}

func (h *Handler) describeStatement(ctx context.Context, name []byte) error {
	x := &h.ext
	s := x.statement(name)
	if s == nil {
		return &wire.PgError{Code: "26000", Message: fmt.Sprintf("prepared statement %q does not exist", name)}
	}
	if h.tx.status == 'E' && !endsTx(s.tmpl.Stmt) {
		return errFailedTx
	}
	if s.tmpl.Class == router.Control {
		h.local([]byte{'t', 0, 0, 0, 6, 0, 0})
		h.local(rowDescription(describeLocal(s.tmpl.Stmt), nil))
		return nil
	}
	d, err := h.describe(ctx, s)
	if err != nil {
		return err
	}
	if s.owed {
		s.owed = false
		h.local(parseComplete)
	}
	b, err := (&wire.ParameterDescription{ParameterOIDs: d.params}).Encode(nil)
	if err != nil {
		return err
	}
	h.local(b)
	h.local(rowDescription(d.fields, nil))
	return nil
}
