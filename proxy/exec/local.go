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
		return textFields([]string{"QUERY PLAN"})
	}
	return nil
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
	if len(h.dbmap.Shards) > 1 {
		if err := refuseSetting(v); err != nil {
			return err
		}
	}
	if v.Special {
		return h.setSpecial(ctx, s)
	}
	if h.tx.status != 'I' && strings.HasPrefix(v.Name, "transaction_") { // the transaction's own, LOCAL or not
		v.Local = true
		h.tx.opts.ReadOnly, h.tx.opts.ReadWrite = false, true // a replica could not undo READ ONLY
	}
	if v.Local {
		if h.outsideBlock() {
			h.warnLocal()
		}
		if h.tx.status == 'I' {
			h.client.SendTag("SET")
			return nil
		}
		h.tx.local = append(h.tx.local, s.Text)
		if v.Name == "search_path" {
			h.env.SearchPath = searchPathOf(v.Value)
			h.stale = true
		}
		if len(h.tx.parts) == 0 { // nobody has judged it yet
			h.tx.local = h.tx.local[:len(h.tx.local)-1]
			if _, err := h.join(ctx, h.dbmap.Home.Index, &router.Template{Read: true}); err != nil {
				return err
			}
			h.tx.local = append(h.tx.local, s.Text)
		}
		return h.everyPart(s.Text, tag)
	}
	var next *pool.Settings
	switch {
	case v.Name == "all":
		next = h.login
	case v.Default:
		next = h.settings.Without(v.Name)
		if lv, ok := h.login.Get(v.Name); ok {
			next = next.With(v.Name, lv)
		}
	default:
		next = h.settings.With(v.Name, v.Value)
	}
	if len(h.tx.parts) == 0 {
		if err := h.trySetting(ctx, s.Text, next, v.Name == "all" || v.Default); err != nil {
			return err
		}
	} else if err := h.everyPartTold(s.Text); err != nil {
		return err
	}
	h.settings = next
	if v.Name == "all" {
		h.own, h.tx.own.kept = h.ownLogin, h.ownLogin
	}
	h.env.SearchPath = h.searchPath()
	h.stale = true
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
			return router.Refuse("encoding", v.Plain)
		}
	case "standard_conforming_strings":
		if !v.Default && strings.ToLower(v.Plain) != "on" && strings.ToLower(v.Plain) != "true" {
			return router.Refuse("strings")
		}
	case "session_authorization":
		return router.Refuse("session-state", "SET SESSION AUTHORIZATION")
	}
	return nil
}

// trySetting lets a server of home judge the new value; its ParameterStatus reaches the client. The server is no
// part of a transaction for it.
func (h *Handler) trySetting(ctx context.Context, sql string, next *pool.Settings, reset bool) error {
	p, done, err := h.borrow(ctx, h.dbmap.Home.Index)
	if err != nil {
		return err
	}
	defer done()
	if reset { // RESET means the startup packet's value, which the server does not know
		if sql = p.srv.Difference(next); sql == "" {
			return nil
		}
	}
	if _, err := h.telling(p, sql); err != nil {
		return err
	}
	p.srv.SetSettings(next)
	return nil
}

// everyPartTold runs a statement on every participant; the client is told what the first one reports.
func (h *Handler) everyPartTold(sql string) error {
	for i, p := range h.tx.parts {
		if i == 0 {
			if _, err := h.telling(p, sql); err != nil {
				return err
			}
			continue
		}
		if err := h.ready(p); err != nil {
			return err
		}
		if _, err := p.srv.Exec(sql); err != nil {
			return h.lost(p, err)
		}
	}
	return nil
}

// everyPartQuiet runs a statement on every participant of the transaction.
func (h *Handler) everyPartQuiet(sql string) error {
	for _, p := range h.tx.parts {
		if err := h.ready(p); err != nil {
			return err
		}
		if _, err := p.srv.Exec(sql); err != nil {
			return h.lost(p, err)
		}
	}
	return nil
}

func (h *Handler) everyPart(sql, tag string) error {
	if err := h.everyPartTold(sql); err != nil {
		return err
	}
	h.client.SendTag(tag)
	return nil
}

// setSpecial runs SET TRANSACTION and SET SESSION CHARACTERISTICS.
func (h *Handler) setSpecial(ctx context.Context, s *sqlparse.Statement) error {
	switch s.Var.Name {
	case "transaction":
		if h.tx.status == 'I' {
			h.client.Send(&wire.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "25P01", Message: "SET TRANSACTION can only be used in transaction blocks"})
			h.client.SendTag("SET")
			return nil
		}
		if s.Tx.Isolation != "" {
			if len(h.tx.parts) > 1 && s.Tx.Isolation != "read committed" && !h.own.apart {
				return router.Refuse("isolation", strings.ToUpper(s.Tx.Isolation))
			}
			h.tx.opts.Isolation = s.Tx.Isolation
		}
		if s.Tx.ReadOnly || s.Tx.ReadWrite {
			h.tx.opts.ReadOnly, h.tx.opts.ReadWrite = s.Tx.ReadOnly, s.Tx.ReadWrite
		}
		h.tx.local = append(h.tx.local, s.Text)
		return h.everyPart(s.Text, "SET")
	case "session characteristics":
		next := h.settings
		if s.Tx.Isolation != "" {
			next = next.With("default_transaction_isolation", pgsql.Literal(s.Tx.Isolation))
		}
		if s.Tx.ReadOnly || s.Tx.ReadWrite {
			next = next.With("default_transaction_read_only", pgsql.Literal(fmt.Sprint(s.Tx.ReadOnly)))
		}
		h.settings = next
		h.client.SendTag("SET")
		return nil
	}
	if s.Var.Name == "timezone" && !s.Var.Local {
		return h.setZone(ctx, s)
	}
	return router.Refuse("session-state", "this form of SET")
}

// discard drops the session's state.
func (h *Handler) discard(_ context.Context, s *sqlparse.Statement) error {
	if s.Name == "all" {
		if h.tx.status != 'I' {
			return &wire.PgError{Code: "25001", Message: "DISCARD ALL cannot run inside a transaction block"}
		}
		h.settings, h.own = h.login, h.ownLogin
		h.ext.forget()
		h.unlistenAll()
		h.forgetTemps()
		if h.pinned != nil {
			h.cleanPinned()
		}
		h.env.SearchPath = h.searchPath()
		h.stale = true
	}
	if s.Name == "temp" {
		h.forgetTemps()
	}
	if h.pinned != nil {
		p := h.pinned
		if _, err := p.srv.Exec(s.Text); err != nil {
			err = h.lost(p, err)
			h.freeIfLost(p)
			return err
		}
		h.checkPin = true
		h.unpin(p)
		if h.pinned == nil {
			h.free(p.srv)
		}
	}
	h.client.SendTag("DISCARD " + strings.ToUpper(s.Name))
	return nil
}

// cleanPinned makes the pinned server forget the session, now: its locks must be free when the client is told. The
// server goes back to the pool, unless it carries a custom parameter: those cannot be unset.
func (h *Handler) cleanPinned() {
	p := h.pinned
	h.pinned = nil
	h.setPin("")
	if _, err := p.srv.Exec("DISCARD ALL"); err != nil {
		p.srv.Dirty = true
	}
	for _, n := range p.srv.Settings().Names() {
		p.srv.Dirty = p.srv.Dirty || strings.Contains(n, ".")
	}
	p.srv.ForgetAll()
	p.srv.SetSettings(pool.NoSettings)
	if p.srv.IsSuspect() {
		p.srv.Dirty = true
	}
	h.settle(p)
	h.free(p.srv)
}

// setZone runs SET TIME ZONE with an interval. What the server makes of it is a name that any server takes.
func (h *Handler) setZone(ctx context.Context, s *sqlparse.Statement) error {
	p, done, err := h.borrow(ctx, h.dbmap.Home.Index)
	if err != nil {
		return err
	}
	defer done()
	if _, err := h.telling(p, s.Text); err != nil {
		return err
	}
	h.settings = h.settings.With("timezone", pgsql.Literal(p.srv.Params["TimeZone"]))
	inTx := false
	for _, q := range h.tx.parts {
		if q == p {
			inTx = true
		} else if _, err := h.telling(q, s.Text); err != nil {
			return err
		}
	}
	if !inTx {
		p.srv.SetSettings(h.settings)
	}
	h.stale = true
	h.client.SendTag("SET")
	return nil
}

// explainRoute prints where a statement would run.
// innerText cuts EXPLAIN (...) off.
func innerText(s string) string {
	if i := strings.IndexByte(s, '('); i >= 0 {
		if j := strings.IndexByte(s[i:], ')'); j >= 0 {
			return strings.TrimSpace(s[i+j+1:])
		}
	}
	return s
}
