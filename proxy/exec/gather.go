package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/exec/fresh"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// gathering is one statement that runs on copies: see router.Gather. The copies are made on a server of its own, in a
// transaction that is rolled back in the end. It is not the client's: what touches a temporary object cannot be prepared
// for a commit over shards, and a client's transaction may be read only.
type gathering struct {
	h       *Handler
	t       *router.Template
	plan    *router.Gather
	args    *router.Args
	types   []uint32             // of the parameters, on home
	sql     string               // what runs on the copies
	columns []byte               // what the client is told of the rows, when they begin; nil: nothing
	only    string               // what makes their transaction READ ONLY before that, as the client's is; empty if it is not
	sent    [][]wire.Field       // of each load that is a part: what the shards send
	on      *participant         // where the copies are
	parts   map[int]*participant // where the rows come from
	tx      bool                 // those are in a transaction of ours
	asked   bool                 // those were sent something
	loads   []*loading
	sending []sending // what those may still be sent: a server that does not read on until its rows are read
	bytes   int64
	taken   []takenAs // the columns of the rows that were made; nil: as they are
}

// newGathering is the work on a bound plan: on home's tables as the transaction sees them, if it has used home.
func (h *Handler) newGathering(p *router.Plan, a *router.Args, types []uint32) *gathering {
	g := &gathering{h: h, t: p.Template, plan: p.Gather, args: a, types: types, parts: map[int]*participant{}}
	if h.usesHome() {
		g.plan = g.plan.Own
	}
	return g
}

// sending is what a server is sent while its rows are read.
type sending struct {
	*wire.Flushing
	to *participant
}

// loading is one copy being made.
type loading struct {
	*router.Load
	tmpl    *router.Template
	shards  []int
	streams []*stream
	rows    int64
}

// analyzeRows is from how many rows on a copy is worth an ANALYZE.
const analyzeRows = 500

// gather runs a SELECT on copies of the rows that it needs.
func (h *Handler) gather(ctx context.Context, p *router.Plan, a *router.Args, x *execution) (err error) {
	whole, err := h.wholeOf(ctx, p.Template, a.Types)
	if err != nil {
		return err
	}
	if h.tx.locks {
		return router.Refuse(router.RuleGatherLock)
	}
	g := h.newGathering(p, a, whole.params)
	cursor := p.Stmt.Kind == sqlparse.Cursor
	if cursor && (h.tx.Idle() || h.tx.Implicit) {
		return &pgsql.Error{Code: pgsql.NoActiveSQLTransaction, Message: "DECLARE CURSOR can only be used in transaction blocks"}
	}
	if cursor && h.tx.cursors[p.Stmt.Name] != nil { // perhaps on another server, which alone could tell
		return &pgsql.Error{Code: pgsql.DuplicateCursor, Message: fmt.Sprintf("cursor %q already exists", p.Stmt.Name)}
	}
	defer func() {
		if cursor && err == nil { // the copies stay until the transaction's end, for FETCH
			h.tx.held = append(h.tx.held, g)
			h.declared(p.Stmt.Name, g.on)
			return
		}
		g.end(err)
	}()
	if err := g.prepare(ctx, whole); err != nil {
		return err
	}
	if err := g.fetch(ctx); err != nil {
		return err
	}
	var res []int16
	if x != nil {
		res = x.portal.res
	} else if p.Stmt.Kind == sqlparse.Select {
		g.columns = rowDescription(whole.fields, nil)
	}
	return g.run(res)
}

// fetch makes the copies.
func (g *gathering) fetch(ctx context.Context) error {
	if err := g.start(ctx); err != nil {
		return err
	}
	for _, l := range g.loads {
		if err := g.h.held.Stopped(); err != nil {
			return err
		}
		if err := g.load(l); err != nil {
			return err
		}
	}
	if err := g.hasSent(); err != nil {
		return err
	}
	return g.release()
}

// hasSent waits until the servers of the rows have got what they were asked.
func (g *gathering) hasSent() (err error) {
	for _, s := range g.sending {
		if e := s.Wait(s.to.Server.Dirty); e != nil {
			err = first(err, g.h.lost(s.to, e))
		}
	}
	g.sending = nil
	return err
}

// wholeOf is what a server says of the client's own text.
func (h *Handler) wholeOf(ctx context.Context, t *router.Template, types []uint32) (*described, error) {
	return h.saidOf(ctx, t, "whole", t.Stmt.Text, types)
}

// saidOf is what a server says of a text of a template: it is asked once for each, under the name what.
func (h *Handler) saidOf(ctx context.Context, t *router.Template, what, sql string, types []uint32) (*described, error) {
	key := auxKey(what, types)
	if d, ok := t.Aux.Load(key); ok {
		return d.(*described), nil
	}
	d, err := h.describeText(ctx, h.describer(t), sql, types)
	if err == nil {
		h.e.Planner.Learn(t, key, d)
	}
	return d, err
}

// usesHome says whether what home holds must be read through the client's transaction: it may have written there, or
// it has one snapshot for all its statements.
func (h *Handler) usesHome() bool {
	if h.tx.Idle() {
		return false
	}
	if h.isolation() != "" {
		return true
	}
	return slices.ContainsFunc(h.tx.parts, func(p *participant) bool { return p.shard == h.planner.DB.Home.Index && p.Wrote() })
}

// prepare leases the server of the copies and makes them, empty. whole is what the statement's rows must be.
func (g *gathering) prepare(ctx context.Context, whole *described) error {
	if err := g.open(ctx); err != nil {
		return err
	}
	if err := g.resolve(whole); err != nil {
		return err
	}
	sql := ""
	for i := range g.plan.Loads {
		l := &g.plan.Loads[i]
		if l.Part != nil {
			if err := g.partTable(l); err != nil {
				return err
			}
			continue
		}
		sql += "CREATE TEMPORARY TABLE " + l.Name + " ON COMMIT DROP AS SELECT " + columnList(l) + " FROM " + l.Table.SQL() + " WITH NO DATA;"
	}
	if sql == "" {
		return nil
	}
	return g.exec(sql)
}

// begin opens the transaction of the copies. It is READ WRITE until they are made.
func (g *gathering) begin() error {
	const readOnly = "SET TRANSACTION READ ONLY"
	sql := "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
	if saidReadOnly(g.h, g.h.firstModes.only) {
		g.only = readOnly
	}
	for _, s := range g.h.tx.steps { // in their order: what was SET last counts
		switch s.kind {
		case stepSet, stepLocal:
			g.on.knows(s.name)
			sql += ";\n" + s.sql + "\n" // it may end with a comment
		case stepModes:
			if s.name == readOnlySetting {
				g.only = s.sql
			}
		case stepSeen:
			if s.seen.Value(readOnlySetting) == "on" {
				g.only = readOnly
			}
			if err := g.exec(sql); err != nil {
				return err
			}
			if err := follow(g.h, g.on, nil, s.seen.ReadWrite(), s.vars); err != nil {
				return err
			}
			sql = ""
		case stepSave, stepPutOff: // a connection of its own goes back to nothing, and puts nothing off
		}
	}
	if sql == "" {
		return nil
	}
	return g.exec(sql)
}

func columnList(l *router.Load) string {
	names := make([]string, len(l.Columns))
	for i, c := range l.Columns {
		names[i] = c.Name
	}
	return pgsql.List(names)
}

// open leases the server of the copies and begins its transaction.
func (g *gathering) open(ctx context.Context) error {
	h := g.h
	home := h.planner.DB.Home.Index
	s, _, err := h.fromPrimary(ctx, home, func(st *fresh.Shard, node int) *pool.Pool {
		n := st.Info.Nodes[node]
		return h.e.Pools.Gatherers(h.db, st.Info.Name, n.Name, n.DSN, h.role)
	})
	if err != nil {
		return err
	}
	g.on = &participant{Branch: branch.Of(s), shard: home, node: -1}
	h.keepDefaults(s)
	before := h.settings
	if !h.tx.Idle() {
		before = h.tx.before
	}
	if err := h.adaptTo(g.on, before); err != nil {
		return err
	}
	if err := spread(ctx, h, nil); err != nil {
		return err
	}
	if err := countsCopies(g); err != nil {
		return err
	}
	return g.begin()
}

// exec runs SQL of our own on the server of the copies.
func (g *gathering) exec(sql string) error {
	if err := g.h.held.Stopped(); err != nil {
		return err
	}
	_, err := g.on.Server.Exec(sql)
	var se *pool.ServerError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &se):
		return g.h.lost(g.on, err)
	}
	return g.refused(se)
}

// refused is what the client is told when its server of copies says no.
func (g *gathering) refused(se *pool.ServerError) error {
	if se.Response.Code == pgsql.InsufficientPrivilege && strings.Contains(se.Response.Message, "temporary tables") {
		return router.Refuse(router.RuleGatherRight, g.h.role)
	}
	se.Response.Position = 0 // of a text that the client does not know
	return se
}

// start asks every shard for its rows. Several copies are made of one snapshot of each shard, unless the client's
// transaction has its own.
func (g *gathering) start(ctx context.Context) error {
	h := g.h
	for i := range g.plan.Loads {
		l := &loading{Load: &g.plan.Loads[i]}
		l.tmpl = g.t.Part(l.Read)
		var err error
		if l.shards, err = l.Shards(g.t, g.h.planner.DB, g.args); err != nil {
			return err
		}
		g.loads = append(g.loads, l)
	}
	g.tx = h.tx.Idle() && len(g.loads) > 1
	for _, l := range g.loads { // all servers before one is asked
		for _, shard := range l.shards {
			if g.parts[shard] == nil {
				p, err := h.enlist(ctx, shard, l.tmpl)
				if err != nil {
					return err
				}
				g.parts[shard] = p
			}
			if _, _, err := h.paramsFor(shard, g.types, g.args.Formats, g.args.Params); err != nil {
				return err
			}
		}
	}
	if err := g.holdsParams(); err != nil {
		return err
	}
	g.asked = true
	if g.tx {
		for _, p := range g.parts {
			p.Begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
		}
	}
	for i, l := range g.loads {
		fields := make([]wire.Field, len(l.Columns))
		for j, c := range l.Columns {
			fields[j].DataTypeOID = c.TypeOID
		}
		if l.Part != nil {
			fields = g.sent[i]
		}
		for _, shard := range l.shards {
			s, err := h.ask(g.parts[shard], l.SQL, g.types, fields, g.args, binaryAll, 0)
			if err != nil {
				return err
			}
			l.streams = append(l.streams, s)
		}
	}
	for _, p := range g.parts { // whoever has rows to send for one copy does not read what is asked for the next
		f, err := p.Server.FlushAside()
		if err != nil {
			return h.lost(p, err)
		}
		g.sending = append(g.sending, sending{f, p})
	}
	for _, p := range g.parts {
		if err := h.prologue(p); err != nil {
			return err
		}
	}
	return nil
}

// holdsParams refuses a statement whose parameters would be too much: they go with each question for rows, to each shard.
func (g *gathering) holdsParams() error {
	size, times := 0, 0
	for _, v := range g.args.Params {
		size += len(v)
	}
	for _, l := range g.loads {
		times += len(l.shards)
	}
	hold := &holding{h: g.h}
	defer hold.release()
	return hold.take(size * max(0, times-1))
}

var binaryAll = []int16{1}

// copyHeader begins a binary COPY: signature, flags, no extension.
const copyHeader = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// load copies the rows of one table. A DataRow's body in binary is a tuple of COPY's binary format.
func (g *gathering) load(l *loading) error {
	s := g.on.Server
	s.SendQuery("COPY pg_temp." + l.Name + " FROM STDIN (FORMAT binary)")
	if err := s.Flush(); err != nil {
		return g.h.lost(g.on, err)
	}
	if err := g.copyReady(); err != nil {
		return err
	}
	s.SendFrame('d', []byte(copyHeader))
	for _, from := range l.streams {
		for {
			_, err := from.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				err = g.row(l, from.raw)
			}
			if err != nil {
				g.copyFail()
				return err
			}
		}
	}
	s.SendFrame('d', []byte{0xff, 0xff})
	s.SendFrame('c', nil)
	if err := s.Flush(); err != nil {
		return g.h.lost(g.on, err)
	}
	if _, err := s.ReadTag(); err != nil {
		return g.failed(err)
	}
	if len(l.Key) > 0 {
		if err := g.exec("ALTER TABLE pg_temp." + l.Name + " ADD PRIMARY KEY (" + pgsql.List(l.Key) + ")"); err != nil {
			return err
		}
	}
	if l.rows >= analyzeRows {
		return g.exec("ANALYZE pg_temp." + l.Name)
	}
	return nil
}

func (g *gathering) row(l *loading, tuple []byte) error {
	l.rows++
	g.bytes += int64(len(tuple))
	if limit := g.h.own.GatherLimit; limit > 0 && g.bytes > limit {
		return &pgsql.Error{
			Code:    pgsql.ProgramLimitExceeded,
			Message: fmt.Sprintf("the rows that this statement needs on one server are more than pgmosaic.gather_limit (%s); it stopped in %s", pgsql.SizeText(limit), l.Table),
			Hint:    "EXPLAIN (ROUTE) shows what is copied and why. Narrow the statement, join on the keys, or raise pgmosaic.gather_limit.",
		}
	}
	s := g.on.Server
	s.SendFrame('d', tuple)
	if s.Out() >= 32<<10 {
		if err := s.Flush(); err != nil {
			return g.h.lost(g.on, err)
		}
	}
	return nil
}

// copyReady reads up to CopyInResponse.
func (g *gathering) copyReady() error {
	a := pool.Answer{Server: g.on.Server}
	for {
		m, err := a.Next()
		switch {
		case err == nil && m.Type == 'G':
			return nil
		case a.Ended && a.Failed != nil:
			return g.failed(a.Failed)
		case err != nil:
			return g.h.lost(g.on, err)
		}
	}
}

// copyFail ends a COPY that will not be completed.
func (g *gathering) copyFail() {
	s := g.on.Server
	if s.Dirty {
		return
	}
	s.SendFrame('f', []byte("the rows could not be read\x00"))
	if err := s.Flush(); err != nil {
		s.Dirty = true
		return
	}
	_, _ = s.ReadTag() // an error, as it should be; a lost server is marked
}

func (g *gathering) failed(err error) error {
	return unnumbered(g.h.lost(g.on, err))
}

// release gives the servers of the rows back: the client's transaction keeps its own.
func (g *gathering) release() (err error) {
	for shard, p := range g.parts {
		if g.tx && !p.Server.Dirty {
			if _, e := p.Server.Exec("COMMIT"); e != nil { // it may have met a cancel request for the statement
				err = first(err, g.h.lost(p, e))
				p.Clear()
			}
		}
		if g.h.tx.Idle() {
			g.h.finish(p)
		}
		delete(g.parts, shard)
	}
	return err
}

// run runs the statement on the copies and passes its rows on.
func (g *gathering) run(res []int16) error {
	h, s := g.h, g.on.Server
	if err := h.held.Stopped(); err != nil {
		return err
	}
	if g.only != "" {
		g.on.First(g.only)
	}
	s.SendParse("", g.sql, g.types)
	s.SendBindParts("", g.args.Formats, g.args.Params, res)
	s.SendExecute()
	s.SendSync()
	if err := s.Flush(); err != nil {
		return h.lost(g.on, err)
	}
	if err := h.prologue(g.on); err != nil {
		return err
	}
	a := h.answer(g.on)
	for {
		typ, _, err := a.Peek()
		switch {
		case err != nil:
			return unnumbered(h.unread(g.on, &a, err))
		case typ == 'D' || typ == 'd':
			err = s.ForwardRun(h.client)
		case typ == 'C':
			err = h.relayTag(s)
		case typ == 'H' || typ == 'c':
			err = s.Forward(h.client)
		default:
			var m wire.Message
			m, err = a.Next()
			switch {
			case err != nil || m.Type == '1':
			case m.Type == '2':
				if err := h.client.Write(g.columns); err != nil {
					return clientError{err}
				}
			default:
				err = h.client.Write(m.Raw)
			}
		}
		switch {
		case a.Ended && a.Failed != nil:
			return unnumbered(a.Failed)
		case a.Ended:
			if h.tx.Idle() {
				h.count.Transactions.Add(1)
			}
			return nil
		case err != nil:
			return unnumbered(h.unread(g.on, &a, err))
		}
	}
}

// end leaves every server clean, whatever has happened.
func (g *gathering) end(err error) {
	h := g.h
	for _, l := range g.loads { // in the order in which the servers answer
		for _, s := range l.streams {
			h.endStream(s, isAgain(err))
		}
	}
	_ = g.hasSent() // who has not is lost
	for _, p := range g.parts {
		switch {
		case p.Server.Dirty:
		case !g.asked: // what the transaction has still to send goes with its next statement
		case p.Server.Out() > 0: // asked for rows, and never sent
			p.Lose()
		case g.tx:
			if _, e := p.Server.Exec("ROLLBACK"); branch.Cancelled(e) {
				p.Clear()
			} else if e != nil {
				p.Lose()
			}
		}
		if h.tx.Idle() {
			h.finish(p)
		}
	}
	if g.on == nil {
		return
	}
	var gone clientError
	if errors.As(err, &gone) {
		g.on.Lose()
	}
	g.close()
}

// close gives the server of the copies back, without them.
func (g *gathering) close() {
	s := g.on.Server
	if !s.Dirty {
		if _, e := s.Exec("ROLLBACK"); e != nil {
			s.Dirty = true
		}
	}
	g.on.forgetTold()
	g.h.settle(g.on)
	g.h.free(s)
}
