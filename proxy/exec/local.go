package exec

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// settingNames are the session settings of our own, with their defaults as SHOW prints them.
var settingNames = []string{"pgmosaic.gather_limit", "pgmosaic.max_staleness", "pgmosaic.read_consistency", "pgmosaic.shard"}

func (h *Handler) setOwn(name, value string) error {
	bad := func(hint string) error {
		return &wire.PgError{Code: "22023", Message: fmt.Sprintf("invalid value for parameter %q: %q", name, value), Hint: hint}
	}
	switch name {
	case "pgmosaic.read_consistency":
		l, err := replication.ParseLevel(strings.ToLower(value))
		if err != nil {
			return bad("Use strong, causal, session, bounded or eventual.")
		}
		h.own.level = l
	case "pgmosaic.max_staleness":
		d, err := parseDuration(value)
		if err != nil || d < 0 {
			return bad("Use a time such as 500ms, 10s or 2min.")
		}
		h.own.maxLag = d
	case "pgmosaic.shard":
		h.own.shard = value
	case "pgmosaic.gather_limit":
		n, err := ParseSize(value)
		if err != nil {
			return bad("Use a size such as 64MB or 1GB; 0 is no limit.")
		}
		h.own.gather = n
	default:
		return &wire.PgError{Code: "42704", Message: fmt.Sprintf("unrecognized configuration parameter %q", name), Hint: "The settings are: " + strings.Join(settingNames, ", ") + "."}
	}
	return nil
}

func parseDuration(s string) (time.Duration, error) {
	s = strings.ReplaceAll(strings.TrimSpace(s), " ", "")
	if strings.HasSuffix(s, "min") {
		s = strings.TrimSuffix(s, "in")
	}
	if s != "" && strings.Trim(s, "0123456789") == "" {
		s += "ms"
	}
	return time.ParseDuration(s)
}

func (h *Handler) resetOwn(name string) error {
	switch name {
	case "pgmosaic.read_consistency":
		h.own.level = h.e.Level
	case "pgmosaic.max_staleness":
		h.own.maxLag = h.e.MaxStaleness
	case "pgmosaic.shard":
		h.own.shard = ""
	case "pgmosaic.gather_limit":
		h.own.gather = h.e.GatherLimit
	default:
		return h.setOwn(name, "")
	}
	return nil
}

func (h *Handler) showOwn(s *sqlparse.Statement) error {
	var v string
	switch s.Var.Name {
	case "pgmosaic.read_consistency":
		v = h.own.level.String()
	case "pgmosaic.max_staleness":
		v = h.own.maxLag.String()
	case "pgmosaic.shard":
		v = h.own.shard
	case "pgmosaic.gather_limit":
		v = sizeText(h.own.gather)
	default:
		return h.setOwn(s.Var.Name, "")
	}
	h.table([]string{s.Var.Name}, [][]string{{v}}, "SHOW")
	return nil
}

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

// quoteSetting is the SQL text of a value that came as plain text. Lists are split where PostgreSQL's own
// start-up code would split them.
func quoteSetting(name, v string) string {
	if name == "search_path" {
		var parts []string
		for _, p := range strings.Split(v, ",") {
			parts = append(parts, quoteLiteral(strings.Trim(strings.TrimSpace(p), `"`)))
		}
		return strings.Join(parts, ", ")
	}
	return quoteLiteral(v)
}

func quoteLiteral(s string) string {
	if strings.Contains(s, `\`) {
		return "E'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", "''") + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
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
		err := h.setOwn(v.Name, v.Plain)
		if v.Default {
			err = h.resetOwn(v.Name)
		}
		if err != nil {
			return err
		}
		h.client.SendTag(tag)
		return nil
	}
	if len(h.dbmap.Shards) > 1 {
		if err := refuseSetting(v); err != nil {
			return err
		}
	}
	if v.Special {
		return h.setSpecial(ctx, s)
	}
	if v.Local {
		if h.tx.status == 'I' {
			h.client.Send(&wire.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "25P01", Message: "SET LOCAL can only be used in transaction blocks"})
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
	p, done, err := h.borrow(ctx)
	if err != nil {
		return err
	}
	defer done()
	if reset { // RESET means the startup packet's value, which the server does not know
		if sql = p.srv.Difference(next); sql == "" {
			return nil
		}
	}
	if err := h.telling(p, sql); err != nil {
		return err
	}
	p.srv.SetSettings(next)
	return nil
}

// everyPartTold runs a statement on every participant; the client is told what the first one reports.
func (h *Handler) everyPartTold(sql string) error {
	for i, p := range h.tx.parts {
		if i == 0 {
			if err := h.telling(p, sql); err != nil {
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
			if len(h.tx.parts) > 1 && s.Tx.Isolation != "read committed" {
				return router.Refuse("isolation", strings.ToUpper(s.Tx.Isolation))
			}
			h.tx.opts.Isolation = s.Tx.Isolation
		}
		h.tx.local = append(h.tx.local, s.Text)
		return h.everyPart(s.Text, "SET")
	case "session characteristics":
		next := h.settings
		if s.Tx.Isolation != "" {
			next = next.With("default_transaction_isolation", quoteLiteral(s.Tx.Isolation))
		}
		if s.Tx.ReadOnly || s.Tx.ReadWrite {
			next = next.With("default_transaction_read_only", quoteLiteral(fmt.Sprint(s.Tx.ReadOnly)))
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
		h.settings = h.login
		h.ext.forget()
		h.unlistenAll()
		h.env.Temp = nil
		if h.pinned != nil {
			h.cleanPinned()
		}
		h.env.SearchPath = h.searchPath()
		h.stale = true
	}
	if s.Name == "temp" {
		h.env.Temp = nil
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
	p, done, err := h.borrow(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := h.telling(p, s.Text); err != nil {
		return err
	}
	h.settings = h.settings.With("timezone", quoteLiteral(p.srv.Params["TimeZone"]))
	inTx := false
	for _, q := range h.tx.parts {
		if q == p {
			inTx = true
		} else if err := h.telling(q, s.Text); err != nil {
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
func (h *Handler) explainRoute(ctx context.Context, s *sqlparse.Statement) error {
	lines, err := ExplainRoute(innerText(s.Text), h.dbmap, h.schema, h.env, func(p *router.Plan) (*router.Plan, error) { return h.typed(ctx, p) })
	if err != nil {
		return err
	}
	rows := make([][]string, len(lines))
	for i, l := range lines {
		rows[i] = []string{l}
	}
	h.table([]string{"QUERY PLAN"}, rows, "EXPLAIN")
	return nil
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
