package exec

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// extended is the session's side of the extended protocol.
type extended struct {
	named     map[string]*stmt
	unnamed   *stmt
	portals   map[string]*portal
	anonymous *portal // the unnamed portal

	cur       *participant       // the server that holds messages not yet answered
	ops       []op               // what its answers are, in order
	owed      *stmt              // parsed, and ParseComplete is not sent yet
	post      []*router.Template // executed: what they entail is done at the pipeline's end
	copied    bool               // a COPY swallowed the Sync: the client sends another
	wrote     bool               // this pipeline, so far in autocommit, ran something that was no read
	skipping  bool               // after an error, to the next Sync
	executing bool               // a result of our own has been described already

	bind    wire.BindParts
	args    router.Args
	keys    []uint32
	schemas *dbSchema
	reread  time.Time
}

// stmt is a client's prepared statement. Servers know it by a name of ours, or not yet.
type stmt struct {
	name  string
	sql   string
	types []uint32
	key   pool.StmtKey
	tmpl  *router.Template
	space [8]byte
	owed  bool // ParseComplete has not been sent to the client
	desc  *described
}

// described is what a server said about a statement.
type described struct {
	params []uint32
	fields []wire.Field // nil: no rows
}

// portal is a bound statement: on a server, or waiting here for Execute.
type portal struct {
	stmt *stmt
	on   *participant // where the server's portal is
	plan *router.Plan // else what Execute runs
	args router.Args
	res  []int16
}

// op is one expected answer.
type op struct {
	kind  opKind
	local []byte // for opLocal: what is written to the client at this place
	tmpl  *router.Template
	key   pool.StmtKey // of a hidden Parse
}

type opKind uint8

const (
	opRelay    opKind = iota // one completion message: Parse, Bind, Close
	opHidden                 // the same, kept from the client
	opDescribe               // up to RowDescription or NoData
	opExecute                // up to CommandComplete, EmptyQuery or PortalSuspended
	opLocal                  // no answer of the server: bytes of our own
)

func (x *extended) init() {
	x.named, x.portals = map[string]*stmt{}, map[string]*portal{}
}

func (x *extended) forget() {
	clear(x.named)
	x.unnamed = nil
}

func (x *extended) closePortals() {
	if len(x.portals) > 0 {
		clear(x.portals)
	}
	x.anonymous = nil
}

func (x *extended) statement(name []byte) *stmt {
	if len(name) == 0 {
		return x.unnamed
	}
	return x.named[string(name)]
}

func (x *extended) portal(name []byte) *portal {
	if len(name) == 0 {
		return x.anonymous
	}
	return x.portals[string(name)]
}

// Messages of one fixed answer.
var (
	parseComplete = []byte{'1', 0, 0, 0, 4}
	bindComplete  = []byte{'2', 0, 0, 0, 4}
	closeComplete = []byte{'3', 0, 0, 0, 4}
	noData        = []byte{'n', 0, 0, 0, 4}
)

// Batch implements session.Handler.
func (h *Handler) Batch(ctx context.Context, msgs []wire.Message, sync bool) error {
	x := &h.ext
	start := time.Now()
	x.copied = false
	if !x.skipping {
		if err := h.batch(ctx, msgs, sync); err != nil {
			if err := h.failBatch(ctx, err); err != nil {
				return err
			}
		}
	}
	h.count.QueryNanos.Add(int64(time.Since(start)))
	if !sync || x.copied && !x.skipping {
		return nil
	}
	x.skipping, x.wrote = false, false
	if h.tx.status == 'T' && h.tx.implicit {
		if tag, err := h.commit(ctx); err != nil || tag != "COMMIT" {
			if err == nil {
				err = &wire.PgError{Code: "40000", Message: "the transaction was rolled back by a shard"}
			}
			if err := h.report(err, ""); err != nil {
				return err
			}
		}
	}
	h.client.SendReady(h.tx.status)
	return nil
}

// failBatch tells the client and makes every server ready again; the rest of the pipeline is skipped.
func (h *Handler) failBatch(ctx context.Context, err error) error {
	x := &h.ext
	sql := ""
	if x.unnamed != nil {
		sql = x.unnamed.sql
	}
	relayed := errors.Is(err, errRelayed)
	if !relayed && x.cur != nil && !x.cur.srv.Dirty { // what came before the mistake is answered first
		if e := h.drain(ctx, false); e != nil {
			err, relayed = e, errors.Is(e, errRelayed)
		}
	}
	if err := h.report(err, sql); err != nil {
		return err
	}
	x.skipping, x.owed, x.post = true, nil, x.post[:0]
	if p := x.cur; p != nil {
		x.cur, x.ops = nil, x.ops[:0]
		if !p.srv.Dirty {
			if !relayed { // the pipeline is one transaction: make the server fail it as well
				p.srv.SendBindParts("pgmosaic: the pipeline failed", nil, nil, nil)
			}
			p.srv.SendSync()
			if e := p.srv.Flush(); e != nil {
				p.srv.Dirty = true
			} else if _, e := p.srv.ReadTag(); e != nil {
				var se *pool.ServerError
				if !errors.As(e, &se) {
					p.srv.Dirty = true
				}
			}
		}
		if h.tx.status == 'I' {
			h.finish(p)
		}
	}
	if h.tx.implicit {
		h.rollback()
	}
	return nil
}

func (h *Handler) batch(ctx context.Context, msgs []wire.Message, sync bool) error {
	x := &h.ext
	if x.cur == nil {
		if err := h.current(ctx); err != nil {
			return err
		}
	}
	for _, m := range msgs {
		err := h.payFirst(ctx, m)
		if err == nil {
			err = h.message(ctx, m)
		}
		if errors.Is(err, errReplan) {
			err = &wire.PgError{Code: "40001", Message: "the shard map changed while the statement waited", Hint: "Run it again."}
		}
		if err != nil {
			return err
		}
	}
	if err := h.pay(ctx); err != nil {
		return err
	}
	return h.drain(ctx, sync)
}

func (h *Handler) message(ctx context.Context, m wire.Message) error {
	switch m.Type {
	case 'P':
		return h.parseMsg(m.Body())
	case 'B':
		return h.bindMsg(ctx, m)
	case 'D':
		return h.describeMsg(ctx, m)
	case 'E':
		return h.executeMsg(ctx, m)
	}
	return h.closeMsg(m)
}

// parseMsg plans a statement. A server sees it when it is bound or described, or at the batch's end.
func (h *Handler) parseMsg(body []byte) error {
	pp, err := wire.DecodeParse(body)
	if err != nil {
		return &wire.PgError{Code: "08P01", Message: err.Error()}
	}
	x := &h.ext
	if pp.Name != "" && x.named[pp.Name] != nil {
		return &wire.PgError{Code: "42P05", Message: fmt.Sprintf("prepared statement %q already exists", pp.Name)}
	}
	s := &stmt{name: pp.Name, sql: pp.SQL, types: pp.Types, owed: true, key: h.e.stmtKey(pp.SQL, pp.Types)}
	if err := h.replan(s); err != nil {
		return err
	}
	if h.tx.status == 'E' && !endsTx(s.tmpl.Stmt) {
		return errFailedTx
	}
	if pp.Name == "" {
		x.unnamed = s
	} else {
		x.named[pp.Name] = s
	}
	if s.tmpl.Class == router.Control {
		h.local(parseComplete)
		s.owed = false
		return nil
	}
	x.owed = s
	return nil
}

func endsTx(s *sqlparse.Statement) bool {
	return s.Kind == sqlparse.Commit || s.Kind == sqlparse.Rollback || s.Kind == sqlparse.RollbackTo || s.Kind == sqlparse.Empty
}

// replan plans a statement for the session's present circumstances, which is two compares if they are
// those of last time.
func (h *Handler) replan(s *stmt) error {
	space := h.planSpace()
	if s.tmpl != nil && s.space == space && len(h.env.Temp) == 0 {
		return nil
	}
	p, multi, err := h.plan([]byte(s.sql))
	if err != nil {
		return err
	}
	if multi != nil {
		return &wire.PgError{Code: "42601", Message: "cannot insert multiple commands into a prepared statement"}
	}
	// The statement keeps its own text; a template shared with other literals would need them numbered.
	if p.lits != nil {
		t, err := router.Analyze(p.tmpl.Stmt, h.dbmap, h.schema, h.env)
		if err != nil || p.tmpl.Stmt.Text != s.sql {
			stmts, perr := h.parse(s.sql)
			if perr != nil {
				return perr
			}
			if t, err = router.Analyze(stmts[0], h.dbmap, h.schema, h.env); err != nil {
				return err
			}
		}
		p.tmpl = t
	}
	s.tmpl, s.space = p.tmpl, space
	return nil
}

// local queues bytes of our own at this place of the answer.
func (h *Handler) local(b []byte) {
	if h.ext.cur == nil && len(h.ext.ops) == 0 {
		_ = h.client.Write(b) // an error shows at the next flush
		return
	}
	h.ext.ops = append(h.ext.ops, op{kind: opLocal, local: b})
}

// use makes p the server of what follows, ending the work of another one first.
func (h *Handler) use(ctx context.Context, p *participant) error {
	x := &h.ext
	if x.cur != nil && x.cur != p {
		if err := h.drain(ctx, h.tx.status != 'I'); err != nil {
			return err
		}
	}
	x.cur = p
	return nil
}

// target finds the participant for a shard: the one in use, the transaction's, or a fresh one. A pipeline
// that wrote on one server and needs another becomes a transaction.
func (h *Handler) target(ctx context.Context, shard int, t *router.Template) (*participant, error) {
	x := &h.ext
	if cur := x.cur; cur != nil {
		if cur.shard == shard && (h.tx.status != 'I' || t.Read || cur.node < 0 || h.isPrimary(cur)) {
			if h.tx.status != 'I' {
				if err := h.mayWrite(cur, t); err != nil {
					return nil, err
				}
			} else {
				h.markSent(cur, t)
				x.wrote = x.wrote || !t.Read
			}
			return cur, nil
		}
		if err := h.leave(ctx, t); err != nil {
			return nil, err
		}
	}
	p, err := h.on(ctx, shard, t)
	if err != nil {
		return nil, err
	}
	x.cur = p
	x.wrote = x.wrote || !t.Read
	return p, nil
}

// leave ends the work on the present server, because another one is needed.
func (h *Handler) leave(ctx context.Context, t *router.Template) error {
	x := &h.ext
	p := x.cur
	if h.tx.status != 'I' {
		return h.drain(ctx, true)
	}
	if !x.wrote && t.Read { // reads on both sides need no transaction
		return h.drain(ctx, true)
	}
	if err := h.drain(ctx, false); err != nil {
		return err
	}
	if !h.isPrimary(p) && p.node >= 0 { // reads of a replica: let it go
		return h.drain(ctx, true)
	}
	x.cur = nil
	if err := h.escalate(p); err != nil {
		p.srv.Dirty = true
		h.finish(p)
		return err
	}
	return nil
}

// know makes sure that the server has the statement and returns its name there.
func (h *Handler) know(p *participant, s *stmt) string {
	x := &h.ext
	if s.name == "" { // relayed as it came; an unnamed statement lives until the next Parse
		p.srv.SendParse("", s.sql, s.types)
		h.parseOp(s, pool.StmtKey{})
		return ""
	}
	if name, ok := p.srv.Prepared(s.key); ok {
		if s.owed {
			s.owed = false
			x.ops = append(x.ops, op{kind: opLocal, local: parseComplete})
		}
		return name
	}
	name, evict := p.srv.Prepare(s.key)
	if evict != "" {
		p.srv.SendClose('S', evict)
		x.ops = append(x.ops, op{kind: opHidden})
	}
	p.srv.SendParse(name, s.sql, s.types)
	h.parseOp(s, s.key)
	return name
}

func (h *Handler) parseOp(s *stmt, key pool.StmtKey) {
	kind := opHidden
	if s.owed {
		kind, s.owed = opRelay, false
	}
	h.ext.ops = append(h.ext.ops, op{kind: kind, key: key})
}

func (h *Handler) bindMsg(ctx context.Context, m wire.Message) error {
	x := &h.ext
	b := &x.bind
	if err := b.Decode(m.Body()); err != nil {
		return &wire.PgError{Code: "08P01", Message: err.Error()}
	}
	s := x.statement(b.Statement)
	if s == nil {
		return &wire.PgError{Code: "26000", Message: fmt.Sprintf("prepared statement %q does not exist", b.Statement)}
	}
	if h.tx.status == 'E' && !endsTx(s.tmpl.Stmt) {
		return errFailedTx
	}
	if err := h.replan(s); err != nil {
		return err
	}
	a := &x.args
	*a = router.Args{Params: b.Params, Formats: b.Formats, Types: s.types}
	if s.desc != nil {
		a.Types = s.desc.params
	}
	pt := &portal{stmt: s}
	if len(b.Portal) == 0 {
		x.anonymous = pt
	} else {
		if x.portals[string(b.Portal)] != nil {
			return &wire.PgError{Code: "42P03", Message: fmt.Sprintf("cursor %q already exists", b.Portal)}
		}
		x.portals[string(b.Portal)] = pt
	}
	shard, ok := h.route(s.tmpl, a)
	if !ok {
		plan, err := h.bind(ctx, s.tmpl, a, func() ([]uint32, error) {
			d, err := h.describe(ctx, s)
			if err != nil {
				return nil, err
			}
			return d.params, nil
		})
		if err != nil {
			return err
		}
		single := plan.Class != router.Control && len(plan.Shards) == 1 && plan.Class != router.Copy && !(plan.Class == router.Write && plan.Ref)
		if !single {
			return h.bindHere(ctx, pt, plan, b)
		}
		shard = plan.Shards[0]
		if plan.Any {
			shard = h.anyShard()
			if x.cur != nil {
				shard = x.cur.shard
			}
		}
	}
	p, err := h.target(ctx, shard, s.tmpl)
	if err != nil {
		return err
	}
	if cause := pinCauseOf(s.tmpl.Stmt); cause != "" {
		h.pin(p, cause)
	}
	name := h.know(p, s)
	if name == s.name {
		p.srv.Gather(m.Raw)
	} else {
		p.srv.SendBind(string(b.Portal), name, b.Rest)
	}
	x.ops = append(x.ops, op{kind: opRelay})
	pt.on = p
	return nil
}

// bindHere keeps a portal that no single server can run.
func (h *Handler) bindHere(ctx context.Context, pt *portal, plan *router.Plan, b *wire.BindParts) error {
	if plan.Class != router.Control {
		if _, err := h.describe(ctx, pt.stmt); err != nil {
			return err
		}
	}
	if pt.stmt.owed {
		pt.stmt.owed = false
		h.local(parseComplete)
	}
	pt.plan = plan
	pt.res = append([]int16(nil), b.Results...)
	pt.args = router.Args{Formats: append([]int16(nil), b.Formats...), Text: []byte(pt.stmt.sql)}
	for _, v := range b.Params {
		if v != nil {
			v = append([]byte{}, v...)
		}
		pt.args.Params = append(pt.args.Params, v)
	}
	if pt.stmt.desc != nil {
		pt.args.Types = pt.stmt.desc.params
	}
	h.local(bindComplete)
	return nil
}

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
	if p.prologue > 0 {
		if err := s.Flush(); err != nil {
			return nil, h.lost(p, err)
		}
		if err := h.prologue(p); err != nil {
			return nil, err
		}
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

// payFirst keeps answers in order: a Parse is answered before whatever is not about its statement.
func (h *Handler) payFirst(ctx context.Context, m wire.Message) error {
	s := h.ext.owed
	if s == nil {
		return nil
	}
	if !s.owed {
		h.ext.owed = nil
		return nil
	}
	if m.Type == 'B' {
		if _, rest, err := wire.CString(m.Body()); err == nil {
			if name, _, err := wire.CString(rest); err == nil && string(name) == s.name {
				return nil
			}
		}
	}
	return h.pay(ctx)
}

// pay lets a server judge a statement that was parsed and not used yet.
func (h *Handler) pay(ctx context.Context) error {
	x := &h.ext
	s := x.owed
	x.owed = nil
	if s == nil || !s.owed {
		return nil
	}
	if _, err := h.describe(ctx, s); err != nil {
		if s.name != "" {
			delete(x.named, s.name)
		} else {
			x.unnamed = nil
		}
		return err
	}
	s.owed = false
	h.local(parseComplete)
	return nil
}

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
	if pt.on != nil {
		if err := h.use(ctx, pt.on); err != nil {
			return err
		}
		h.count.Single.Add(1)
		pt.on.srv.Gather(m.Raw)
		x.ops = append(x.ops, op{kind: opExecute, tmpl: pt.stmt.tmpl})
		return nil
	}
	// Something of our own: all that came before must be answered first.
	if err := h.drain(ctx, h.tx.status != 'I'); err != nil {
		return err
	}
	x.executing = true
	defer func() { x.executing = false }()
	if pt.plan.Class == router.Control {
		return h.controlInBatch(ctx, pt.stmt.tmpl.Stmt)
	}
	if p := x.cur; p != nil { // the pipeline's first server joins a transaction with the others
		x.cur = nil
		if err := h.escalate(p); err != nil {
			p.srv.Dirty = true
			h.finish(p)
			return err
		}
	}
	return h.run(ctx, pt.plan, &pt.args, &execution{portal: pt})
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

// drain sends what was gathered for the present server and passes the answers on. With end set the
// pipeline is closed: by Sync, and in autocommit the server is given back.
func (h *Handler) drain(ctx context.Context, end bool) error {
	x := &h.ext
	p := x.cur
	if p == nil {
		for _, o := range x.ops {
			_ = h.client.Write(o.local)
		}
		x.ops = x.ops[:0]
		return nil
	}
	if !end && len(x.ops) == 0 {
		return nil
	}
	if end {
		p.srv.SendSync()
	} else {
		p.srv.SendFlush()
	}
	if err := p.srv.FlushDuplex(); err != nil {
		return h.lost(p, err)
	}
	if err := h.prologue(p); err != nil {
		return err
	}
	code, err := h.answers(p)
	if code == "42P01" || code == "42703" || code == "42883" {
		h.staleSchema(ctx)
	}
	if err != nil {
		if errors.Is(err, errRelayed) && end { // the Sync is on its way already
			if _, e := p.srv.ReadTag(); e != nil {
				p.srv.Dirty = true
			}
			x.cur = nil
			if h.tx.status == 'I' {
				h.finish(p)
			}
		}
		return err
	}
	if !end || x.copied {
		return nil
	}
	m, err := p.srv.Next()
	for err == nil && m.Type != 'Z' {
		switch m.Type {
		case 'E': // a deferred constraint at the implicit commit
			e := wire.ParseError(m.Body())
			h.client.Send(e)
			err = errRelayed
		case 'S':
			p.srv.NoteParam(m.Body())
			fallthrough
		default:
			if werr := h.client.Write(m.Raw); werr != nil {
				p.srv.Dirty = true
				return clientError{werr}
			}
		}
		failed := err
		if m, err = p.srv.Next(); err == nil && failed != nil && m.Type == 'Z' {
			p.srv.TxStatus = m.Body()[0]
			x.cur = nil
			if h.tx.status == 'I' {
				h.finish(p)
			}
			return failed
		}
	}
	if err != nil {
		return h.lost(p, err)
	}
	p.srv.TxStatus = m.Body()[0]
	x.cur = nil
	if h.tx.status == 'I' {
		h.count.Transactions.Add(1)
		if p.srv.TxStatus != 'I' {
			p.srv.Dirty = true
		}
		h.ext.closePortals()
		h.finish(p)
	}
	for _, t := range x.post {
		h.after(ctx, t, p.shard)
	}
	x.post = x.post[:0]
	return nil
}

// answers passes on what the queue of expected answers says.
func (h *Handler) answers(p *participant) (code string, err error) {
	x := &h.ext
	s := p.srv
	done := x.ops
	x.ops = x.ops[:0]
	for i := 0; i < len(done); i++ {
		o := &done[i]
		if o.kind == opLocal {
			if err := h.client.Write(o.local); err != nil {
				return "", clientError{err}
			}
			continue
		}
		for answered := false; !answered; {
			typ, _, err := s.Peek()
			if err != nil {
				return "", h.lostOrGone(p, err)
			}
			hide := false
			switch typ {
			case '1', '2', '3':
				answered, hide = true, o.kind == opHidden
			case 'T', 'n':
				answered = o.kind == opDescribe
			case 'C', 'I', 's':
				answered = true
				if t := o.tmpl; typ == 'C' && t != nil && (t.DDL || t.Temp || len(t.Drops) > 0 || t.Stmt.Kind == sqlparse.Cursor) {
					x.post = append(x.post, t)
				}
			case 'E':
				if o.key != (pool.StmtKey{}) {
					s.Forget(o.key)
				}
				for _, rest := range done[i:] { // what was to be parsed behind it is not
					if rest.key != (pool.StmtKey{}) {
						s.Forget(rest.key)
					}
				}
				code, err := h.relayError(s)
				if err != nil {
					return "", h.lost(p, err)
				}
				return code, errRelayed
			case 'S':
				if err := h.relayParam(s); err != nil {
					return "", h.lost(p, err)
				}
				continue
			case 'G':
				if err := s.Forward(h.client); err != nil {
					return "", h.lostOrGone(p, err)
				}
				if err := h.copyIn(p); err != nil {
					return "", err
				}
				x.copied = true // a Sync sent before was swallowed: the client sends another
				s.SendFlush()
				if err := s.Flush(); err != nil {
					return "", h.lost(p, err)
				}
				continue
			}
			if hide {
				err = s.Skip()
			} else {
				err = s.Forward(h.client)
			}
			if err != nil {
				return "", h.lostOrGone(p, err)
			}
		}
	}
	return "", nil
}
