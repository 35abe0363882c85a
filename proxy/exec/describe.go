package exec

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"

	"github.com/pgmosaic/pgmosaic/proxy/exec/pipeline"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// describe asks a server, once for each statement, for its parameters and columns.
func (h *Handler) describe(ctx context.Context, s *stmt) (*described, error) {
	if s.desc != nil {
		return s.desc, nil
	}
	if err := h.drain(ctx, false); err != nil {
		return nil, err
	}
	if s.desc != nil { // by an answer to what came before
		return s.desc, nil
	}
	var d *described
	var err error
	if p := h.cursorOn(s.tmpl.Stmt); p != nil {
		d, err = h.describeOn(p, s.sql, s.types)
	} else {
		d, err = h.describeText(ctx, h.describer(s.tmpl), s.sql, s.types)
	}
	if err != nil {
		return nil, err
	}
	learn(h, s, d)
	return d, nil
}

// learn keeps what a server has said about a statement: the client knows it, or could have asked.
func learn(h *Handler, s *stmt, d *described) {
	s.desc, s.likened = d, s.tmpl
	h.ext.recount(s)
}

// asTold describes a statement that was planned just now. What it is about may be another than when the client was told of its columns: they
// must be the same.
func asTold(ctx context.Context, h *Handler, s *stmt) (*described, error) {
	d := s.desc
	switch {
	case d == nil:
		return h.describe(ctx, s)
	case d.fields == nil || s.likened == s.tmpl || !s.fixed():
		return d, nil
	}
	if err := h.drain(ctx, false); err != nil {
		return nil, err
	}
	now, err := h.wholeOf(ctx, s.tmpl, d.params)
	if err != nil {
		return nil, err
	}
	if now.form != d.form {
		return nil, errPlanChanged
	}
	s.likened = s.tmpl
	return d, nil
}

// fixed says whether a statement must give what it gave: PostgreSQL has each FETCH give what the cursor has that is of this name just now.
func (s *stmt) fixed() bool { return s.tmpl.Stmt.Kind != sqlparse.Fetch }

// formOf is the form of what a server has described, parameters and columns: where it is the same, so are they, as far as they must be. It is
// never zero. A parameter of a user's type is read from a text or from the same bytes, whatever number the type has.
func formOf(e *Engine, params []uint32, fields []wire.Field) pool.StmtKey {
	b := []byte{1}
	if fields == nil { // no columns is not the same as no rows
		b[0] = 0
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(params)))
	for _, t := range params {
		if schema.IsUser(t) {
			t = 0
		}
		b = binary.BigEndian.AppendUint32(b, t)
	}
	for i := range fields {
		f := &fields[i]
		b = append(append(b, f.Name...), 0)
		b = binary.BigEndian.AppendUint32(b, f.DataTypeOID)
		b = binary.BigEndian.AppendUint32(b, uint32(f.TypeModifier))
	}
	return pool.StmtKey{maphash.Bytes(e.seeds[0], b) | 1, maphash.Bytes(e.seeds[1], b)}
}

// describer is the shard that describes a statement: home, or while that is away another one, if the statement needs nothing
// that home alone has.
func (h *Handler) describer(t *router.Template) int {
	if t.Home || t.Gather != nil || t.Class == router.Moved {
		return h.planner.DB.Home.Index
	}
	return h.e.served(h.planner.DB).Index
}

// describeText parses and describes a text on a shard. It is no part of the client's transaction unless that
// is there already.
func (h *Handler) describeText(ctx context.Context, shard int, sql string, types []uint32) (*described, error) {
	if cur := h.ext.cur; cur != nil && cur.shard == shard {
		return h.describeOn(cur, sql, types)
	}
	p, done, err := h.borrow(ctx, shard)
	if err != nil {
		return nil, err
	}
	defer done()
	return h.describeOn(p, sql, types)
}

// describeOn asks a server that the session holds. If it is amid a pipeline, that stays open.
func (h *Handler) describeOn(p *participant, sql string, types []uint32) (*described, error) {
	open := p == h.ext.cur
	if err := h.ready(p); err != nil {
		return nil, err
	}
	suspectParse(h, p)
	p.Server.SendParse("", sql, h.typesFor(p.shard, types))
	p.Server.SendDescribe('S', "")
	if open {
		p.Server.SendFlush()
	} else {
		p.Server.SendSync()
	}
	if err := p.Server.Flush(); err != nil {
		return nil, h.lost(p, err)
	}
	return h.readDescription(p, open)
}

func (h *Handler) describeMsg(ctx context.Context, m wire.Message) error {
	x := &h.ext
	body := m.Body()
	if len(body) < 2 || body[len(body)-1] != 0 {
		return &pgsql.Error{Code: pgsql.ProtocolViolation, Message: "invalid Describe message"}
	}
	kind, name := body[0], body[1:len(body)-1]
	if kind == 'S' {
		return h.describeStatement(ctx, name)
	}
	name = portalName(name)
	pt := x.portal(name)
	if p := h.tx.cursors[string(name)]; pt == nil && p != nil { // DECLARE made it
		pt = &portal{part: p}
	}
	if pt == nil {
		return &pgsql.Error{Code: pgsql.InvalidCursorName, Message: fmt.Sprintf("portal %q does not exist", name)}
	}
	if (pt.state == pipeline.Dead || h.tx.Failed()) && (pt.part != nil || pt.stmt.desc != nil || describeLocal(pt.stmt.tmpl.Stmt) != nil) {
		return errFailedTx
	}
	if pt.part != nil {
		if err := h.switchTo(ctx, pt.part); err != nil {
			return err
		}
		pt.send(m)
		x.ops = append(x.ops, op{kind: pipeline.Described})
		return nil
	}
	fields, err := h.describeControl(ctx, pt.stmt.tmpl.Stmt)
	if err != nil {
		return err
	}
	if pt.stmt.desc != nil {
		fields = pt.stmt.desc.fields
	}
	h.local(rowDescription(fields, pt.res))
	return nil
}

// describeControl gives the columns of a statement of the session's own.
func (h *Handler) describeControl(ctx context.Context, s *sqlparse.Statement) ([]wire.Field, error) {
	if s.Kind != sqlparse.Execute {
		return describeLocal(s), nil
	}
	st := h.ext.named[s.Name]
	if st == nil { // its Execute will say so
		return nil, nil
	}
	d, err := h.describe(ctx, st)
	if err != nil {
		return nil, err
	}
	return d.fields, nil
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
		return &pgsql.Error{Code: pgsql.InvalidSQLStatementName, Message: fmt.Sprintf("prepared statement %q does not exist", name)}
	}
	if h.tx.Failed() && (s.tmpl.Class != router.Control || describeLocal(s.tmpl.Stmt) != nil) && (s.desc == nil || s.desc.fields != nil) {
		return errFailedTx // what gives no rows is described even then, if it is known
	}
	if s.tmpl.Class == router.Control {
		fields, err := h.describeControl(ctx, s.tmpl.Stmt)
		if err != nil {
			return err
		}
		h.local(wire.ParameterTypes(make([]uint32, s.tmpl.Stmt.Params)))
		h.local(rowDescription(fields, nil))
		return nil
	}
	if s.desc != nil && s.desc.fields != nil {
		if err := h.replan(ctx, s); err != nil {
			return err
		}
	}
	d, err := asTold(ctx, h, s)
	if err != nil {
		return err
	}
	if s.unanswered {
		h.parsed(s)
	}
	h.local(wire.ParameterTypes(d.params))
	h.local(rowDescription(d.fields, nil))
	return nil
}
