package exec

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// describeLocal gives the columns of a control statement that returns rows, nil for the others.
func describeLocal(s *sqlparse.Statement) []wire.Field {
	switch s.Kind {
	case sqlparse.Show:
		return textFields([]string{s.Var.Name})
	case sqlparse.Explain:
		out := textFields([]string{"QUERY PLAN"})
		switch s.ExplainFormat() {
		case "json":
			out[0].DataTypeOID = jsonOID
		case "xml":
			out[0].DataTypeOID = xmlOID
		}
		return out
	default:
		return nil
	}
}

func textFields(names []string) []wire.Field {
	out := make([]wire.Field, len(names))
	for i, n := range names {
		out[i] = wire.Field{Name: []byte(n), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1}
	}
	return out
}

// table writes a small result of our own. In the extended protocol its description was sent before.
func (h *Handler) table(cols []string, rows [][]string, tag string) {
	if !h.ext.executing {
		h.client.Send(&wire.RowDescription{Fields: textFields(cols)})
	}
	for _, r := range rows {
		vals := make([][]byte, len(r))
		for i, v := range r {
			vals[i] = []byte(v)
		}
		h.client.SendRow(vals)
	}
	h.client.SendTag(tag)
}

// searchPath is the session's, from its settings or else the role's.
func (h *Handler) searchPath() []string {
	if v, ok := h.settings.Get("search_path"); ok {
		return searchPathOf(v)
	}
	return h.firstPath
}

// set runs SET and RESET. What a server accepted becomes the session's, and follows it to other servers.
func (h *Handler) set(ctx context.Context, s *sqlparse.Statement) error {
	v := s.Var
	tag := "SET"
	if v.Default && strings.HasPrefix(strings.ToLower(strings.TrimSpace(s.Text)), "reset") {
		tag = "RESET"
	}
	if strings.HasPrefix(v.Name, "pgmosaic.") {
		return h.setOwn(v, tag)
	}
	if len(h.planner.DB.Shards) > 1 {
		if err := refuseSetting(v); err != nil {
			return err
		}
	}
	if v.Special && v.Name != "timezone" { // an interval, of which the server makes a zone that any server takes
		return h.setSpecial(ctx, s)
	}
	kind, local := stepLocal, v.Local
	if ofTransactions[v.Name] {
		v.Local, kind = true, stepModes
		modesUnseen(h)
	}
	sql := []string{s.Text}
	if v.Default {
		sql = resets(v, h.login)
	}
	if v.Local {
		if h.tx.Idle() { // a server judges it, and warns that it is in vain
			if err := h.inVain(ctx, v.Name, sql); err != nil {
				return err
			}
			h.client.SendTag(tag)
			return nil
		}
		if local && h.outsideBlock() {
			h.warnLocal()
		}
		if len(h.tx.parts) == 0 { // nobody has judged it yet
			if _, err := h.join(ctx, h.planner.DB.Home.Index, &router.Template{Read: true}); err != nil {
				return err
			}
		}
		if err := h.everyPartTold(v.Name, sql...); err != nil {
			return err
		}
		h.tx.step(kind, v.Name, sql...)
		lookUpBy(h, v.Name, v.Value)
		h.client.SendTag(tag)
		return nil
	}
	var next *pool.Settings
	switch {
	case v.Default:
		next = afterReset(v.Name, h.settings, h.login)
	default:
		next = h.settings.With(v.Name, v.Value)
	}
	if len(h.tx.parts) == 0 {
		var err error
		if next, err = h.trySetting(ctx, s.Text, next, v); err != nil {
			return err
		}
	} else {
		if err := h.everyPartTold(v.Name, sql...); err != nil {
			return err
		}
		if !v.Default {
			next = reported(h.tx.parts[0].Server, next, v.Name)
		}
	}
	adopt(h, next)
	h.tx.step(stepSet, v.Name, sql...)
	h.tx.who = h.tx.who || v.Name == "session_authorization"
	if v.Name == "all" {
		h.own, h.tx.own.kept = h.ownLogin, h.ownLogin
	}
	lookUp(h)
	h.client.SendTag(tag)
	return nil
}

func refuseSetting(v sqlparse.Var) error {
	switch v.Name {
	case "client_encoding":
		enc := strings.Map(func(r rune) rune { // PostgreSQL looks at letters and digits alone
			if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' {
				return r
			}
			return -1
		}, strings.ToUpper(v.Plain))
		if !v.Default && enc != "UTF8" && enc != "UNICODE" {
			return router.Refuse(router.RuleEncoding, v.Plain)
		}
	case "standard_conforming_strings":
		if !v.Default && strings.ToLower(v.Plain) != "on" && strings.ToLower(v.Plain) != "true" {
			return router.Refuse(router.RuleStrings)
		}
	case "session_authorization":
		return router.Refuse(router.RuleSessionState, "SET SESSION AUTHORIZATION")
	}
	return nil
}

// trySetting lets a server of home judge new settings, and returns them as the server has them; its ParameterStatus reaches
// the client. The server is no part of a transaction for it.
func (h *Handler) trySetting(ctx context.Context, sql string, next *pool.Settings, v sqlparse.Var) (*pool.Settings, error) {
	p, done, err := h.borrow(ctx, h.planner.DB.Home.Index)
	if err != nil {
		return nil, err
	}
	defer done()
	switch {
	case v.Default && p == h.pinned: // it may carry what only a function has set
		sql = strings.Join(resets(v, h.login), ";")
	case v.Default: // RESET means the startup packet's value, which the server does not know
		if sql = p.Server.Difference(next); sql == "" {
			return next, nil
		}
	}
	if _, err := h.exec(p, sql); err != nil {
		return nil, err
	}
	if !v.Default {
		next = reported(p.Server, next, v.Name)
	}
	p.Server.SetSettings(next)
	return next, nil
}

// inVain runs SET LOCAL outside a transaction.
func (h *Handler) inVain(ctx context.Context, name string, sql []string) error {
	p, done, err := h.borrow(ctx, h.planner.DB.Home.Index)
	if err != nil {
		return err
	}
	defer done()
	for _, s := range sql {
		if _, err := h.exec(p, s); err != nil {
			return err
		}
	}
	p.Server.SetSettings(emptied(p.Server.Settings(), name))
	adopt(h, emptied(h.settings, name))
	return nil
}

// everyPartTold runs statements that set a parameter on every participant; the client is told what the first one reports.
func (h *Handler) everyPartTold(name string, sql ...string) error {
	for i, p := range h.tx.parts {
		p.knows(name)
		for _, s := range sql {
			if i == 0 {
				if _, err := h.exec(p, s); err != nil {
					return err
				}
				continue
			}
			if err := h.ready(p); err != nil {
				return err
			}
			if _, err := p.Server.Exec(s); err != nil {
				return h.lost(p, err)
			}
		}
	}
	return nil
}

// everyPartQuiet runs a statement on every participant of the transaction, or on none where one is lost.
func (h *Handler) everyPartQuiet(sql string) error {
	_, err := everyPartDoes(h, sql)
	return err
}

// everyPartDoes is everyPartQuiet that says with an error whether some have run it.
func everyPartDoes(h *Handler, sql string) (some bool, err error) {
	for _, p := range h.tx.parts {
		if err := h.ready(p); err != nil {
			return false, err
		}
	}
	for i, p := range h.tx.parts {
		if _, err := p.Server.Exec(sql); err != nil {
			return i > 0, h.lost(p, err)
		}
	}
	return false, nil
}

// setSpecial runs SET TRANSACTION and SET SESSION CHARACTERISTICS.
func (h *Handler) setSpecial(ctx context.Context, s *sqlparse.Statement) error {
	switch s.Var.Name {
	case "transaction":
		if h.outsideBlock() {
			h.client.Send(&wire.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: pgsql.NoActiveSQLTransaction, Message: "SET TRANSACTION can only be used in transaction blocks"})
		}
		if h.tx.Idle() {
			h.client.SendTag("SET")
			return nil
		}
		if s.Tx.Isolation != "" {
			if len(h.tx.parts) > 1 && s.Tx.Isolation != "read committed" && !h.own.Apart {
				return router.Refuse(router.RuleIsolation, strings.ToUpper(s.Tx.Isolation))
			}
		}
		if err := h.judgeInside(ctx); err != nil {
			return err
		}
		if err := h.everyPartTold("", s.Text); err != nil {
			return err
		}
		h.tx.step(stepModes, "", s.Text)
		h.tx.opts = h.tx.opts.With(s.Tx)
		h.client.SendTag("SET")
		return nil
	case "session characteristics":
		next := h.settings
		if s.Tx.Isolation != "" {
			next = next.With("default_transaction_isolation", pgsql.Literal(s.Tx.Isolation))
		}
		if s.Tx.ReadOnly || s.Tx.ReadWrite {
			next = next.With("default_transaction_read_only", pgsql.Literal(fmt.Sprint(s.Tx.ReadOnly)))
		}
		if s.Tx.Deferrable || s.Tx.NotDeferrable {
			next = next.With("default_transaction_deferrable", pgsql.Literal(fmt.Sprint(s.Tx.Deferrable)))
		}
		if err := h.everyPartTold("", s.Text); err != nil {
			return err
		}
		h.tx.step(stepSet, "", s.Text)
		adopt(h, next)
		h.client.SendTag("SET")
		return nil
	}
	return router.Refuse(router.RuleSessionState, "this form of SET")
}

// judgeInside sees to it that a server judges the modes of a transaction that has savepoints: behind one, some are errors.
func (h *Handler) judgeInside(ctx context.Context) error {
	if len(h.tx.saves) == 0 || len(h.tx.parts) > 0 {
		return nil
	}
	_, err := h.join(ctx, h.planner.DB.Home.Index, &router.Template{Read: true})
	return err
}

// discard drops the session's state.
func (h *Handler) discard(ctx context.Context, s *sqlparse.Statement) error {
	if s.Name == "all" {
		if !h.tx.Idle() {
			return &pgsql.Error{Code: pgsql.ActiveSQLTransaction, Message: "DISCARD ALL cannot run inside a transaction block"}
		}
		adopt(h, afterReset("all", h.settings.Others(), h.login))
		h.own = h.ownLogin
		h.told.Back(nil, h.sendParam)
		h.ext.forget()
		h.unlistenAll()
		h.forgetTemps()
		if h.pinned != nil {
			h.cleanPinned()
		}
		lookUp(h)
	}
	if s.Name == "temp" {
		if err := joinPinned(ctx, h, s); err != nil {
			return err
		}
		h.forgetTemps()
	}
	if s.Name == "all" || s.Name == "sequences" {
		h.drawn = anew(h.drawn)
	}
	if h.pinned != nil {
		p := h.pinned
		if _, err := h.exec(p, s.Text); err != nil {
			if h.tx.Idle() {
				h.freeIfLost(p)
			}
			return err
		}
		if s.Name == "sequences" {
			p.Server.Forgotten()
		}
		h.checkPin = true
		h.unpin(p)
		if h.pinned == nil {
			h.free(p.Server)
		}
	}
	h.client.SendTag("DISCARD " + strings.ToUpper(s.Name))
	return nil
}

// joinPinned has the server that the session keeps join the transaction, if one is open: its end decides whether what comes is undone there.
func joinPinned(ctx context.Context, h *Handler, s *sqlparse.Statement) error {
	if h.pinned == nil || !h.tx.Active() {
		return nil
	}
	h.hadTemps = true // its end may bring them back
	_, err := h.join(ctx, h.pinned.shard, &router.Template{Class: router.Single, Stmt: s, DB: h.planner.DB, Home: true, Temp: true})
	return err
}

// cleanPinned makes the pinned server forget the session, now: its locks must be free when the client is told. The
// server goes back to the pool, unless it carries a custom parameter: those cannot be unset.
func (h *Handler) cleanPinned() {
	p := h.pinned
	h.pinned = nil
	h.setPin("")
	if _, err := p.Server.Exec("DISCARD ALL"); err != nil {
		p.Lose()
	}
	for _, n := range p.Server.Settings().Names() {
		p.Server.Dirty = p.Server.Dirty || isCustom(n)
	}
	p.Server.ForgetAll()
	p.Server.Forgotten()
	p.Server.SetSettings(pool.NoSettings)
	if p.Server.IsSuspect() {
		p.Lose()
	}
	h.settle(p)
	h.free(p.Server)
}

// innerText cuts EXPLAIN (...) off.
func innerText(s string) string {
	if i := strings.IndexByte(s, '('); i >= 0 {
		if j := strings.IndexByte(s[i:], ')'); j >= 0 {
			return strings.TrimSpace(s[i+j+1:])
		}
	}
	return s
}
