package exec

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// SQL's PREPARE and the protocol's Parse fill one map of names, as in PostgreSQL. A server knows a statement by
// a name of ours, and only when it has to run it.

func noStatement(name string) error {
	return &pgsql.Error{Code: pgsql.InvalidSQLStatementName, Message: fmt.Sprintf("prepared statement %q does not exist", name)}
}

// judge is the name that a PREPARE has on a server while its types are asked for.
const judge = "pgmosaic_0"

// prepareSQL runs PREPARE: a server judges the statement and infers the types of its parameters.
func (h *Handler) prepareSQL(ctx context.Context, s *sqlparse.Statement) error {
	if h.ext.named[s.Name] != nil {
		return &pgsql.Error{Code: pgsql.DuplicatePreparedStatement, Message: fmt.Sprintf("prepared statement %q already exists", s.Name)}
	}
	if len(h.ext.named) >= maxNamed {
		return &pgsql.Error{Code: pgsql.ProgramLimitExceeded, Message: fmt.Sprintf("a session may have %d prepared statements", maxNamed), Hint: "DEALLOCATE those that are no longer used."}
	}
	st := &stmt{name: s.Name, sql: s.Body, batch: h.ext.batches}
	if err := h.replan(ctx, st); err != nil {
		return err
	}
	p, done, err := h.borrow(ctx, h.describer(st.tmpl))
	if err != nil {
		return err
	}
	defer done()
	srv := p.Server
	srv.SendQuery(s.Text[:s.NameAt.Start] + judge + s.Text[s.NameAt.End:])
	srv.SendDescribe('S', judge)
	srv.SendSync()
	if err := srv.Flush(); err != nil {
		return h.lost(p, err)
	}
	if _, err := srv.ReadTag(); err != nil {
		_, _ = srv.ReadTag() // the Describe failed for the same reason
		return h.lost(p, err)
	}
	d, err := h.readDescription(p, false)
	if err = first(err, dropJudge(h, p)); err != nil {
		return err
	}
	learn(h, st, d)
	st.types = d.params
	h.keyed(st)
	if err := h.ext.fits(st); err != nil {
		return err
	}
	h.ext.set(s.Name, st)
	h.client.SendTag("PREPARE")
	return nil
}

// dropJudge has a server forget what a PREPARE was judged by, also where the transaction has failed since: the next PREPARE takes the name. Else nobody may have it.
func dropJudge(h *Handler, p *participant) error {
	if p.Server.Dirty {
		return nil
	}
	p.Server.SendClose('S', judge)
	p.Server.SendSync()
	err := p.Server.Flush()
	if err == nil {
		_, err = p.Server.ReadTag()
	}
	if err != nil {
		p.Lose()
		return h.lost(p, err)
	}
	return nil
}

// executeArgs are EXECUTE's arguments as text parameters. ok is false where one is computed, or would be
// coerced otherwise than a parameter is.
func executeArgs(s *sqlparse.Statement) (params [][]byte, ok bool) {
	ok = true
	for _, v := range s.Args {
		switch v.Kind {
		case sqlparse.ValNull:
			params = append(params, nil)
		case sqlparse.ValInt, sqlparse.ValString, sqlparse.ValBool:
			text := v.Text
			if v.Kind == sqlparse.ValInt {
				text, ok = plainInteger(text)
			}
			if v.Cast != "" || !ok {
				return nil, false
			}
			params = append(params, []byte(text))
		default:
			return nil, false
		}
	}
	return params, true
}

// plainInteger is an integer constant as PostgreSQL prints its value. ok is false for one that is not written in decimal digits alone.
func plainInteger(s string) (text string, ok bool) {
	digits, negative := strings.CutPrefix(s, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return "", false
	}
	digits = strings.TrimLeft(digits, "0")
	switch {
	case digits == "":
		return "0", true
	case negative:
		return "-" + digits, true
	}
	return digits, true
}

// mostExecutes is how many EXECUTEs may run one another. PostgreSQL's stack is full where there are a few thousand.
const mostExecutes = 1000

// tooManyExecutes refuses what runs itself, as PostgreSQL does when its stack is full.
func tooManyExecutes() error {
	return &pgsql.Error{
		Code: pgsql.StatementTooComplex, Message: "stack depth limit exceeded",
		Detail: fmt.Sprintf("More than %d EXECUTEs run one another.", mostExecutes),
		Hint:   "Prepare the statement that is to be run, and no EXECUTE of it.",
	}
}

// executed is what an EXECUTE runs at last, and the EXECUTE that names it: a client may have prepared an EXECUTE, even one of itself.
func executed(ctx context.Context, h *Handler, s *sqlparse.Statement) (*stmt, *sqlparse.Statement, error) {
	for range mostExecutes {
		st := h.ext.named[s.Name]
		if st == nil {
			return nil, nil, noStatement(s.Name)
		}
		if err := h.replan(ctx, st); err != nil {
			return nil, nil, err
		}
		if st.tmpl.Class == router.Control {
			if err := takes(s.Name, len(s.Args), st.params()); err != nil {
				return nil, nil, err
			}
		}
		if st.tmpl.Stmt.Kind != sqlparse.Execute {
			return st, s, nil
		}
		s = st.tmpl.Stmt
	}
	return nil, nil, tooManyExecutes()
}

// takes refuses an EXECUTE with more or fewer values than its statement takes. Of one that takes none PostgreSQL does not look at them.
func takes(name string, given, want int) error {
	if given == want || want == 0 {
		return nil
	}
	return &pgsql.Error{
		Code: pgsql.SyntaxError, Message: fmt.Sprintf("wrong number of parameters for prepared statement %q", name),
		Detail: fmt.Sprintf("Expected %d parameters but got %d.", want, given),
	}
}

// executeSQL runs EXECUTE in the simple protocol.
func (h *Handler) executeSQL(ctx context.Context, s *sqlparse.Statement) error {
	st, s, err := executed(ctx, h, s)
	if err != nil {
		return err
	}
	if st.tmpl.Class == router.Control {
		return h.control(ctx, st.tmpl.Stmt)
	}
	if h.ext.executing { // EXECUTE by the extended protocol is turned into a Bind before it gets here
		return router.Refuse(router.RulePrepare)
	}
	if len(h.planner.DB.Shards) == 1 {
		return h.executeOn(ctx, h.planner.DB.Home.Index, st, s)
	}
	params, ok := executeArgs(s)
	if !ok {
		return router.Refuse(router.RulePrepare)
	}
	d, err := h.describe(ctx, st)
	if err != nil {
		return err
	}
	if err := takes(s.Name, len(params), len(d.params)); err != nil {
		return err
	}
	params = params[:len(d.params)]
	a := router.Args{Params: params, Types: d.params, Text: []byte(st.sql)}
	if shard, ok := h.route(st.tmpl, &a); ok {
		return h.executeOn(ctx, shard, st, s)
	}
	plan, err := h.bind(ctx, st.tmpl, &a, nil)
	if err != nil {
		return err
	}
	if plan.Plain() {
		shard := plan.Shards[0]
		if plan.Any {
			shard = h.anyShard()
		}
		return h.executeOn(ctx, shard, st, s)
	}
	if d, err = asTold(ctx, h, st); err != nil {
		return err
	}
	if d.fields != nil {
		if err := h.client.Write(rowDescription(d.fields, nil)); err != nil {
			return clientError{err}
		}
	}
	h.ext.executing = true
	defer func() { h.ext.executing = false }()
	return h.run(ctx, plan, &a, &execution{&portal{stmt: st, plan: plan, args: a}})
}

// executeOn runs the client's EXECUTE on one shard, under the name that the server knows.
func (h *Handler) executeOn(ctx context.Context, shard int, st *stmt, s *sqlparse.Statement) error {
	params, _ := executeArgs(s)
	configs := configsOf(st.tmpl, &router.Args{Params: params})
	if err := mayConfigure(h, configs); err != nil {
		return err
	}
	return h.executeAs(ctx, shard, st.tmpl, st, s, configs)
}

// executeInside runs EXPLAIN EXECUTE and CREATE TABLE AS EXECUTE, on home.
func (h *Handler) executeInside(ctx context.Context, s *sqlparse.Statement) error {
	st := h.ext.named[s.Name]
	if st == nil {
		return noStatement(s.Name)
	}
	if err := h.replan(ctx, st); err != nil {
		return err
	}
	if len(h.planner.DB.Shards) > 1 && !st.tmpl.Home || st.tmpl.Stmt.Kind == sqlparse.Execute { // the server does not know what that names
		return router.Refuse(router.RulePrepare)
	}
	t := &router.Template{Class: router.Single, Stmt: s, DB: h.planner.DB, Home: true, Whole: true, DDL: s.Kind == sqlparse.CreateTableAs, Temp: s.Def.Temp, Hidden: st.tmpl.Hidden, Counts: st.tmpl.Counts}
	return h.executeAs(ctx, h.planner.DB.Home.Index, t, st, s, nil)
}

// executeAs relays text that runs st, with the client's name replaced by the server's. t says how to reach the server.
func (h *Handler) executeAs(ctx context.Context, shard int, t *router.Template, st *stmt, s *sqlparse.Statement, configs []setting) error {
	p, err := h.enlist(ctx, shard, t)
	if err != nil {
		return err
	}
	name, err := h.ensure(p, st)
	if err != nil {
		if h.tx.Idle() {
			h.finish(p)
		}
		return err
	}
	text := s.Text[:s.NameAt.Start] + name + s.Text[s.NameAt.End:]
	return h.relayText(ctx, p, t, []byte(text), configs)
}

// ensure makes a server know a statement, in a round trip of its own if need be.
func (h *Handler) ensure(p *participant, st *stmt) (string, error) {
	if st.formats != h.told.Formats() {
		h.keyed(st)
	}
	if name, ok := st.knownTo(p); ok {
		return name, nil
	}
	if err := h.ready(p); err != nil {
		return "", err
	}
	return h.parseOn(p, st, false)
}

// keyed gives a statement the key by which servers know it.
func (h *Handler) keyed(st *stmt) {
	st.key, st.formats = h.e.stmtKey(st.sql, st.types, h.meaning()), h.told.Formats()
}

// parseOn parses a statement on a server that does not know it, and compares what it returns there with what the
// client was told. open leaves the server's pipeline open.
func (h *Handler) parseOn(p *participant, st *stmt, open bool) (string, error) {
	h.count.ServerParses.Add(1)
	suspectParse(h, p)
	name, evict := "", ""
	if st.name != "" {
		name, evict = p.Server.Prepare(st.key)
	}
	if evict != "" {
		p.Server.SendClose('S', evict)
	}
	p.Server.SendParse(name, st.sql, h.typesFor(p.shard, st.typed()))
	p.Server.SendDescribe('S', name)
	if open {
		p.Server.SendFlush()
	} else {
		p.Server.SendSync()
	}
	if err := p.Server.Flush(); err != nil {
		return "", h.lost(p, err)
	}
	d, err := h.readDescription(p, open)
	if err != nil {
		p.Server.Forget(st.key)
		return "", err
	}
	if st.desc == nil {
		learn(h, st, d)
	}
	if st.desc.form != d.form && st.fixed() {
		p.Server.Drop(st.key)
		return "", errPlanChanged
	}
	p.Server.Note(st.key, d.form)
	st.likened = st.tmpl
	return name, nil
}

var errPlanChanged = &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "cached plan must not change result type", Routine: revalidates}

// revalidates is PostgreSQL's function that reports it. Drivers know the error by that, and prepare their statement again.
const revalidates = "RevalidateCachedQuery"

// compare reads the description of a statement that was asked for, and whose rows may be on their way. The client must not get them if they
// are not what it was told.
func (h *Handler) compare(p *participant, o *op) error {
	d, err := h.readDescription(p, true)
	if err != nil {
		p.Server.Drop(o.key)
		return err
	}
	s := o.parsed
	if s.desc == nil {
		learn(h, s, d)
	}
	if s.desc.form != d.form {
		p.Server.Drop(o.key)
		return errPlanChanged
	}
	p.Server.Note(o.key, d.form)
	return nil
}

// asBind turns EXECUTE by the extended protocol into a Bind of the statement that it names, which is there.
func (h *Handler) asBind(s *sqlparse.Statement, own *wire.BindParts) (*stmt, *wire.BindParts, error) {
	st := h.ext.named[s.Name]
	b := &wire.BindParts{Portal: own.Portal, Results: own.Results}
	if most := h.client.Max(); boundSize(s, own) > most {
		return nil, nil, &pgsql.Error{
			Code: pgsql.ProgramLimitExceeded, Message: fmt.Sprintf("the values of EXECUTE %s are longer than max_statement_size, %s", s.Name, pgsql.SizeText(int64(most))),
			Hint: "Bind the statement itself, or name a long parameter once.",
		}
	}
	for _, v := range s.Args {
		if v.Kind == sqlparse.ValParam && v.Param < 1 {
			return nil, nil, &pgsql.Error{Code: pgsql.UndefinedParameter, Message: fmt.Sprintf("there is no parameter $%d", v.Param)}
		}
		if v.Kind == sqlparse.ValParam && v.Cast == "" && v.Param <= len(own.Params) {
			format := int16(0)
			if len(own.Formats) == 1 {
				format = own.Formats[0]
			} else if v.Param <= len(own.Formats) {
				format = own.Formats[v.Param-1]
			}
			b.Params, b.Formats = append(b.Params, own.Params[v.Param-1]), append(b.Formats, format)
			continue
		}
		one, ok := executeArgs(&sqlparse.Statement{Args: []sqlparse.Value{v}})
		if !ok {
			return nil, nil, router.Refuse(router.RulePrepare)
		}
		b.Params, b.Formats = append(b.Params, one[0]), append(b.Formats, 0)
	}
	b.Rest = wire.BindRest(b)
	return st, b, nil
}

// boundSize is about how many bytes the values of an EXECUTE have that is bound: it may name a parameter many times.
func boundSize(s *sqlparse.Statement, own *wire.BindParts) (n int) {
	for _, v := range s.Args {
		if v.Kind == sqlparse.ValParam && v.Param >= 1 && v.Param <= len(own.Params) {
			n += len(own.Params[v.Param-1])
		}
	}
	return n
}

// deallocate runs DEALLOCATE.
func (h *Handler) deallocate(_ context.Context, s *sqlparse.Statement) error {
	if s.Name == "" {
		h.ext.forget()
		h.client.SendTag("DEALLOCATE ALL")
		return nil
	}
	if h.ext.named[s.Name] == nil {
		return noStatement(s.Name)
	}
	h.ext.mayReturn(h.ext.named[s.Name])
	h.ext.set(s.Name, nil)
	h.client.SendTag("DEALLOCATE")
	return nil
}

// borrow takes a server of a shard for questions about a statement: the transaction's if it is there, or the
// pinned one. done gives it back.
func (h *Handler) borrow(ctx context.Context, shard int) (p *participant, done func(), err error) {
	done = func() {}
	if h.tx.unseen.by != nil {
		if err := spreadTo(ctx, h, shard, nil); err != nil {
			return nil, nil, err
		}
	}
	for _, q := range h.tx.parts {
		if q.shard == shard {
			p = q
		}
	}
	if p == nil && h.pinned != nil && h.pinned.shard == shard {
		p = h.pinned
		done = func() { h.freeIfLost(p) }
		if err := h.adapt(p); err != nil {
			done()
			return nil, nil, err
		}
	}
	if p == nil {
		s, err := h.lease(ctx, shard)
		if err != nil {
			return nil, nil, err
		}
		p = &participant{Branch: branch.Branch{Server: s, Reads: true}, shard: shard, node: -1} // whatever is asked may be asked again
		done = func() {
			if h.tidy(p); p != h.pinned {
				h.free(p.Server)
			}
		}
		if err := h.adapt(p); err != nil {
			done()
			return nil, nil, err
		}
	}
	if err := h.ready(p); err != nil {
		done()
		return nil, nil, err
	}
	suspectParse(h, p)
	return p, done, nil
}

// readDescription reads the answer to a Describe of a statement: up to ReadyForQuery, or where the pipeline
// stays open to the description's end.
func (h *Handler) readDescription(p *participant, open bool) (*described, error) {
	d := &described{}
	a := h.answer(p)
	a.Open = open
	for {
		m, err := a.Next()
		switch {
		case a.Ended && a.Failed != nil:
			return d, a.Failed
		case a.Ended:
			d.form = formOf(h.e, d.params, d.fields)
			return d, nil
		case err != nil:
			return nil, h.unread(p, &a, err)
		}
		switch m.Type {
		case 't':
			if d.params, err = wire.ParseParameterTypes(m.Body()); err != nil {
				return nil, h.lost(p, err)
			}
			if types := h.typesOf(p.shard); types != nil {
				for i := range d.params {
					d.params[i] = types.TypeToHome(d.params[i])
				}
			}
		case 'T':
			if d.fields, err = wire.ParseRowDescription(m.Body()); err != nil {
				return nil, h.lost(p, err)
			}
			translateFields(h.typesOf(p.shard), d.fields)
		}
		if open && (m.Type == 'T' || m.Type == 'n') {
			d.form = formOf(h.e, d.params, d.fields)
			return d, nil
		}
	}
}
