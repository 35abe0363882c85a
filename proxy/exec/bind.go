package exec

import (
	"context"
	"fmt"
	"slices"

	"github.com/pgmosaic/pgmosaic/proxy/exec/pipeline"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// target finds the participant for a shard: the one in use, the transaction's, or a fresh one. A pipeline
// that wrote on one server and needs another becomes a transaction.
func (h *Handler) target(ctx context.Context, shard int, t *router.Template) (*participant, error) {
	x := &h.ext
	if cur := x.cur; cur != nil {
		if cur.shard == shard && (!cur.Replica || t.Read && (h.isolation() != "" || h.stillFit(cur, t))) {
			if err := paid(ctx, h, shard); err != nil {
				return nil, err
			}
			if h.tx.unseen.by != nil {
				if err := spreadTo(ctx, h, shard, t); err != nil {
					return nil, err
				}
			}
			if t.Hidden != nil {
				cur.Server.Suspect(t.Hidden.Vars, t.Hidden.Unknown)
				maySet(h, cur, t)
			}
			if !h.tx.Idle() {
				if err := h.mayWrite(cur, t); err != nil {
					return nil, err
				}
			} else {
				h.markSent(cur, t)
				x.wrote = x.wrote || !t.Read
			}
			return cur, counts(ctx, h, cur, t)
		}
		if err := h.leave(ctx, t.Read); err != nil {
			return nil, err
		}
	}
	p, err := h.enlist(ctx, shard, t)
	if err != nil {
		return nil, err
	}
	x.cur = p
	x.wrote = x.wrote || !t.Read
	return p, nil
}

// leave ends the work on the present server, because another one is needed, or the session itself, for what may only read or
// write too.
func (h *Handler) leave(ctx context.Context, reads bool) error {
	x := &h.ext
	p := x.cur
	if !h.tx.Idle() {
		return h.drain(ctx, true)
	}
	if p.Replica && h.holdsPortal(p) {
		if err := h.drain(ctx, false); err != nil { // perhaps it has run to its end
			return err
		}
		if h.holdsPortal(p) {
			return h.onPrimaries()
		}
	}
	if !x.wrote && reads && len(x.portals) == 0 && h.isolation() == "" { // reads on both sides need no transaction
		return h.drain(ctx, true)
	}
	if err := h.drain(ctx, false); err != nil {
		return err
	}
	if p.Replica { // it was only read: let it go
		return h.drain(ctx, true)
	}
	return h.escalate(ctx, p)
}

// ensurePrepared makes sure that the server has the statement, as the client knows it, and returns its name there.
func (h *Handler) ensurePrepared(ctx context.Context, p *participant, s *stmt) (string, error) {
	x := &h.ext
	if s.name == "" {
		return "", parseUnnamed(ctx, h, p, s)
	}
	if s.formats != h.told.Formats() {
		h.keyed(s)
	}
	if name, ok := s.knownTo(p); ok {
		if s.unanswered {
			h.parsed(s)
		}
		if s.desc == nil && s.asked != x.batches {
			ask(h, p, s, name)
		}
		return name, nil
	}
	if s.desc != nil && (s.likened != s.tmpl || s.desc.fields != nil && !s.tmpl.Read) { // to write first and compare then would be late
		return h.knowAgain(ctx, p, s)
	}
	h.count.ServerParses.Add(1)
	name, evict := p.Server.Prepare(s.key)
	if evict != "" {
		p.Server.SendClose('S', evict)
		x.ops = append(x.ops, op{kind: pipeline.Hidden, closes: evict})
	}
	if s.desc != nil {
		p.Server.Note(s.key, s.desc.form)
	}
	p.Server.SendParse(name, s.sql, h.typesFor(p.shard, s.typed()))
	h.parseOp(s, s.key)
	ask(h, p, s, name)
	return name, nil
}

// knownTo is the name of a statement on a server that has it. One that gives there what the client was not told of is dropped: others
// have prepared it before or after something was defined, or with another search_path.
func (s *stmt) knownTo(p *participant) (name string, ok bool) {
	name, form, ok := p.Server.Prepared(s.key)
	if !ok || s.desc == nil || form == s.desc.form || !s.fixed() {
		return name, ok
	}
	p.Server.Drop(s.key)
	return "", false
}

// typed are the types of a statement's parameters: they stay what they were when it was prepared. A user's type that the client has not
// named is left to the server, which may have it by a number that is not known here yet.
func (s *stmt) typed() []uint32 {
	if s.desc == nil {
		return s.types
	}
	types := slices.Clone(s.desc.params)
	for i, t := range types {
		if schema.IsUser(t) {
			types[i] = 0
			if i < len(s.types) {
				types[i] = s.types[i]
			}
		}
	}
	return types
}

// ask has a server describe a statement amid the pipeline. Whether the client was told of its columns, or will have seen them by Describe of a
// portal, from now on it must give them. They may have been changed where nobody here knows of it.
func ask(h *Handler, p *participant, s *stmt, name string) {
	if !s.fixed() {
		return
	}
	s.asked = h.ext.batches
	p.Server.SendDescribe('S', name)
	h.ext.ops = append(h.ext.ops, op{kind: pipeline.Compared, parsed: s, key: s.key})
	if s.desc != nil {
		h.ext.compared = len(h.ext.ops)
	}
}

// parseUnnamed has a server parse an unnamed statement. It is relayed as it came, and lives until the next Parse. What was parsed before this
// pipeline, or before a definition in it, must be what it was.
func parseUnnamed(ctx context.Context, h *Handler, p *participant, s *stmt) error {
	before := s.batch != h.ext.batches
	shows := (before || h.tx.defined) && s.desc != nil && s.desc.fields != nil && s.fixed()
	switch {
	case shows && (s.likened != s.tmpl || !s.tmpl.Read): // to write first and compare then would be late
		_, err := h.knowAgain(ctx, p, s)
		return err
	case before && s.desc == nil && s.likened != s.tmpl && h.cacheable() && !h.tx.defined && s.selects():
		if !router.GiveTheSame(s.likened, s.tmpl) {
			return errPlanChanged // perhaps: nobody knows what it gave
		}
		s.likened = s.tmpl
	}
	h.count.ServerParses.Add(1)
	p.Server.SendParse("", s.sql, h.typesFor(p.shard, s.typed()))
	h.parseOp(s, pool.StmtKey{})
	if shows {
		ask(h, p, s, "")
	}
	return nil
}

// selects says whether a statement gives rows of tables.
func (s *stmt) selects() bool {
	q := s.tmpl.Stmt.Query
	return s.tmpl.Stmt.Kind == sqlparse.Select || q != nil && q.Returning
}

// knowAgain parses a statement on a server and compares what it returns now with what the client was told. It
// takes a round trip, before anything of the statement runs.
func (h *Handler) knowAgain(ctx context.Context, p *participant, s *stmt) (string, error) {
	if err := h.drain(ctx, false); err != nil {
		return "", err
	}
	if err := h.ready(p); err != nil {
		return "", err
	}
	name, err := h.parseOn(p, s, true)
	if err == nil && s.unanswered {
		h.parsed(s)
	}
	return name, err
}

func (h *Handler) parseOp(s *stmt, key pool.StmtKey) {
	o := op{kind: pipeline.Hidden, key: key}
	if s.unanswered {
		o.kind, o.parsed, s.unanswered = pipeline.Completed, s, false
	}
	h.ext.ops = append(h.ext.ops, o)
}

func (h *Handler) bindMsg(ctx context.Context, m wire.Message) error {
	x := &h.ext
	h.count.Binds.Add(1)
	h.request.Binds++
	if x.bound == nil {
		x.bound = new(bound)
	}
	b := &x.bound.parts
	if err := b.Decode(m.Body()); err != nil {
		return &pgsql.Error{Code: pgsql.ProtocolViolation, Message: err.Error()}
	}
	s := x.statement(b.Statement)
	if s == nil {
		return &pgsql.Error{Code: pgsql.InvalidSQLStatementName, Message: fmt.Sprintf("prepared statement %q does not exist", b.Statement)}
	}
	if n := len(b.Formats); n > 1 && n != len(b.Params) {
		return h.afterParse(ctx, wrongFormats("bind message has %d parameter formats but %d parameters", n, len(b.Params)))
	}
	want := s.params()
	exact := s.tmpl.Class == router.Control || s.desc != nil
	if s.desc != nil {
		want = len(s.desc.params)
	}
	if len(b.Params) < want || exact && len(b.Params) > want {
		return h.afterParse(ctx, wrongCount(b, s, want)) // before it is routed by what is not there
	}
	if h.tx.Failed() && s.tmpl.Stmt.Kind == sqlparse.Empty {
		return errFailedTx
	}
	if err := h.mayRun(s.tmpl.Stmt); err != nil {
		return err
	}
	h.request.About(bytesOf(s.sql))
	if h.e.Observer.Tracing != nil {
		h.request.Choose(h.request.Text())
	}
	if err := h.replan(ctx, s); err != nil {
		return err
	}
	name := portalName(b.Portal)
	if s.tmpl.Stmt.Kind == sqlparse.Execute && x.named[s.tmpl.Stmt.Name] != nil { // else its Execute says that there is none
		var err error
		if s, b, want, err = executedBy(ctx, h, s, b); err != nil {
			return err
		}
		m.Raw = nil // it is another Bind now
	}
	a := &x.bound.args
	*a = router.Args{Params: b.Params, Formats: b.Formats, Types: s.types}
	if s.desc != nil {
		a.Types = s.desc.params
	}
	var pt *portal
	if len(name) == 0 {
		if x.own == nil || len(x.ops) > 0 && (x.anonymous != nil || len(x.changes) > 0) { // the one before stays if this Bind is skipped
			x.own = new(portal)
		}
		if len(x.ops) == 0 {
			x.anonymous = nil
		}
		pt = x.own
		*pt = portal{stmt: s, level: len(h.tx.saves)}
	} else {
		pt = &portal{stmt: s, level: len(h.tx.saves)}
		if x.portals[string(name)] != nil {
			if len(b.Params) > want && s.tmpl.Stmt.Query != nil {
				return h.afterParse(ctx, wrongCount(b, s, want))
			}
			return h.afterParse(ctx, &pgsql.Error{Code: pgsql.DuplicateCursor, Message: fmt.Sprintf("cursor %q already exists", name)})
		}
		pt.name = string(name)
	}
	p := h.cursorOn(s.tmpl.Stmt)
	shard, ok := h.route(s.tmpl, a)
	if !ok && p == nil {
		plan, err := h.bind(ctx, s.tmpl, a, func() ([]uint32, error) {
			d, err := h.describe(ctx, s)
			if err != nil {
				return nil, err
			}
			return d.params, nil
		})
		if err != nil {
			return h.afterParse(ctx, err)
		}
		if !plan.Plain() {
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
	var err error
	if p != nil {
		err = h.switchTo(ctx, p)
	} else {
		p, err = h.target(ctx, shard, s.tmpl)
	}
	if err != nil {
		return err
	}
	if cause := pinCauseOf(s.tmpl); cause != "" {
		h.pin(p, cause)
	}
	if readsPrepared(s.tmpl) { // what came before must be answered first
		if err := h.drain(ctx, false); err != nil {
			return err
		}
		if err := h.showPrepared(p, s.tmpl); err != nil {
			return err
		}
	}
	if s.tmpl.Stmt.Signals {
		h.signalling(s.tmpl.Stmt.Funcs)
	}
	if notifies(s.tmpl.Stmt) {
		h.tx.notifies = true
	}
	pt.configs = configsOf(s.tmpl, &router.Args{Params: b.Params})
	b, err = h.translateBind(ctx, p, pt, s, b, &m)
	if err != nil {
		return h.afterParse(ctx, err)
	}
	known, err := h.ensurePrepared(ctx, p, s)
	if err != nil {
		return err
	}
	pt.sendBind(h, p, known, b, m)
	pt.part = p
	x.putPortal(pt.name, pt) // now that nothing that its Bind needs can end the transaction of the portals before
	x.ops = append(x.ops, op{kind: pipeline.Completed})
	return nil
}

// executedBy is what an EXECUTE that is bound runs at last, its Bind, and how many values it takes. What runs itself is left to its Execute, which refuses it.
func executedBy(ctx context.Context, h *Handler, s *stmt, b *wire.BindParts) (_ *stmt, _ *wire.BindParts, want int, err error) {
	for n := 0; n < mostExecutes && s.tmpl.Stmt.Kind == sqlparse.Execute && h.ext.named[s.tmpl.Stmt.Name] != nil; n++ {
		if s.unanswered {
			h.parsed(s)
		}
		if s, b, err = h.asBind(s.tmpl.Stmt, b); err != nil {
			return nil, nil, 0, err
		}
		if err := h.replan(ctx, s); err != nil {
			return nil, nil, 0, err
		}
		want = s.params()
		if s.tmpl.Class != router.Control {
			d, err := h.describe(ctx, s)
			if err != nil {
				return nil, nil, 0, err
			}
			want = len(d.params)
		}
		if err := takes(s.name, len(b.Params), want); err != nil {
			return nil, nil, 0, err
		}
		if want == 0 && len(b.Params) > 0 {
			b.Params, b.Formats = nil, nil
			b.Rest = wire.BindRest(b)
		}
	}
	return s, b, want, nil
}

// translateBind gives a Bind, which sets no more than the session may keep, the shard's OIDs, and notes which columns of its rows must be translated back.
func (h *Handler) translateBind(ctx context.Context, p *participant, pt *portal, s *stmt, b *wire.BindParts, m *wire.Message) (*wire.BindParts, error) {
	if err := mayConfigure(h, pt.configs); err != nil {
		return nil, err
	}
	types := h.typesOf(p.shard)
	if types == nil || !hasBinary(b.Formats) && !hasBinary(b.Results) {
		return b, nil
	}
	d, err := h.describe(ctx, s)
	if err != nil {
		return nil, err
	}
	pt.deep = deepOf(types, d.fields, func(i int) int16 { return formatOf(b.Results, i) })
	params, changed, err := h.paramsFor(p.shard, d.params, b.Formats, b.Params)
	if err != nil || !changed {
		return b, err
	}
	other := *b
	other.Params = params
	other.Rest = wire.BindRest(&other)
	m.Raw = nil // it is another Bind now
	return &other, nil
}

// afterParse refuses a Bind, once the Parse before it is answered.
func (h *Handler) afterParse(ctx context.Context, err error) error {
	if e := h.judgeParsed(ctx); e != nil {
		return e
	}
	return err
}

// params is how many parameters a statement has at least. $1 in what a definition or PREPARE holds is not the statement's own.
func (s *stmt) params() int {
	switch s.tmpl.Stmt.Kind {
	case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Execute:
		return max(s.tmpl.Stmt.Params, len(s.types))
	default:
		return len(s.types)
	}
}

func wrongCount(b *wire.BindParts, s *stmt, want int) error {
	return &pgsql.Error{Code: pgsql.ProtocolViolation, Message: fmt.Sprintf("bind message supplies %d parameters, but prepared statement %q requires %d", len(b.Params), s.name, want)}
}

// mayFormat refuses a Bind that gives formats for more or fewer columns than there are.
func mayFormat(b *wire.BindParts, plan *router.Plan, s *stmt) error {
	var fields []wire.Field
	if plan.Class == router.Control {
		fields = describeLocal(s.tmpl.Stmt)
	} else if s.desc != nil {
		fields = s.desc.fields
	}
	if n := len(b.Results); fields != nil && n > 1 && n != len(fields) {
		return wrongFormats("bind message has %d result formats but query has %d columns", n, len(fields))
	}
	return nil
}

func wrongFormats(format string, n, want int) error {
	return &pgsql.Error{Code: pgsql.ProtocolViolation, Message: fmt.Sprintf(format, n, want)}
}

// knowTypes asks for the types of the shards that a plan needs, where nobody could tell them before and somebody serves the shard by now: the
// statement is planned again then. When its portal runs that would be too late. One that is still not known is an error when it is met.
func knowTypes(ctx context.Context, h *Handler, plan *router.Plan) error {
	sch := h.planner.Schema
	if sch == nil || len(sch.Doubts) == 0 {
		return nil
	}
	for _, sh := range h.planner.DB.Shards {
		needed := plan.Gather != nil || slices.Contains(plan.Shards, sh.Index)
		if v := h.e.Monitor.View(h.db, sh.Name); needed && sch.Doubts[sh.Name] == schema.Unread && v != nil && v.Serves() {
			h.client.Leave()
			if h.e.Planner.Schemas.Resolve(ctx, h.planner.DB, sh.Name) == nil {
				return errReplan
			}
		}
	}
	return nil
}

// bindHere keeps a portal that no single server can run.
func (h *Handler) bindHere(ctx context.Context, pt *portal, plan *router.Plan, b *wire.BindParts) error {
	if plan.Class != router.Control {
		if err := knowTypes(ctx, h, plan); err != nil {
			return err
		}
		if _, err := asTold(ctx, h, pt.stmt); err != nil {
			return err
		}
	}
	if pt.stmt.unanswered {
		h.parsed(pt.stmt)
	}
	if d := pt.stmt.desc; d != nil && len(b.Params) != len(d.params) {
		return wrongCount(b, pt.stmt, len(d.params))
	}
	if err := mayFormat(b, plan, pt.stmt); err != nil {
		return err
	}
	size := 0
	for _, v := range b.Params {
		size += len(v)
	}
	x := &h.ext
	if pt.name != "" {
		size += namedPortal + len(pt.stmt.sql) + 24*len(b.Params)
	}
	if size > smallPortal || pt.name != "" {
		if err := x.holds(pt, int64(size)); err != nil {
			return err
		}
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
	x.putPortal(pt.name, pt)
	h.local(bindComplete)
	return nil
}
