package exec

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/exec/client"
	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// hidden is why a session keeps a server that a function has changed.
const hidden = "state left by a function"

// verifiable are the pins whose end a server can tell.
var verifiable = map[string]bool{"temporary table": true, "advisory lock": true, tryLock: true, "WITH HOLD": true, hidden: true}

// tidy looks at a server that ran something which may have changed it unseen, at the end of the statement or
// transaction: settings become the session's, and what cannot be replayed ties the session to the server.
func (h *Handler) tidy(p *participant) {
	s := p.Server
	if !s.IsSuspect() || s.Dirty || s.TxStatus != 'I' || s.Pending() > 0 || s.Out() > 0 {
		return
	}
	carried := s.Settings() // not the session's, where a transaction that SET something was rolled back
	s.Suspect(customNames(carried), false)
	left, err := s.Left(h.ext.most())
	if branch.Cancelled(err) { // a cancel request that comes late, for the statement before, is not for this one
		h.held.AllowCancel(false)
		h.client.Leave()
		s.AwaitCancels()
		for range 5 {
			if left, err = s.Left(h.ext.most()); !branch.Cancelled(err) {
				break
			}
		}
		h.held.AllowCancel(true)
	}
	switch {
	case branch.Cancelled(err) && p == h.pinned:
		return // what it holds is the session's: it is looked at again after the next statement
	case err != nil:
		if s.Dirty = true; errors.Is(err, pool.ErrTooMuch) {
			h.dismiss(setTooMuch(ended))
		}
		return
	}
	for n, v := range p.resets { // what SET LOCAL had covered counts as set
		if left.Settings[n] == v {
			delete(left.Settings, n)
		}
	}
	next, has := h.settings, carried.Others() // Left has made the server the role that logged in
	for _, n := range has.Names() {
		if _, ok := left.Settings[n]; !ok && !isCustom(n) { // a function has reset it
			next, has = afterReset(n, next, h.login), has.Without(n)
			if _, ok := h.login.Get(n); ok {
				h.told.Reset(n, h.sendParam)
			}
		}
	}
	for n, v := range left.Settings {
		if v := pgsql.SettingValue(n, v); !carried.Has(n, v) {
			next, has = next.With(n, v), has.With(n, v)
		}
	}
	if who := left.Who(); !who.Same(carried.Who()) {
		next = next.Others().Over(who)
	}
	if err := h.ext.mayKeep(memory.Settings, next.Size()-h.settings.Size()); err != nil {
		s.Dirty = true
		h.dismiss(setTooMuch(ended))
		return
	}
	if !next.Same(h.settings) {
		adopt(h, next)
		lookUp(h)
	}
	s.SetSettings(has)
	switch {
	case !left.State:
		s.Trust()
	case h.pinned == nil:
		h.pin(p, hidden)
		h.tempsOld, h.tempsAltered = true, true
	case h.pinned != p:
		s.Dirty = true // one server is tied already; this one's state is lost, as on any disconnect
	}
}

// customNames are the custom parameters among some settings: RESET ALL in a function resets them too, and no catalog lists them.
func customNames(s *pool.Settings) (names []string) {
	for _, n := range s.Names() {
		if isCustom(n) {
			names = append(names, n)
		}
	}
	return names
}

// closed notes that a statement on the pinned server may have ended what ties it.
func (h *Handler) closed(p *participant, t *router.Template) {
	if p == h.pinned && t.Stmt.Closes {
		h.checkPin = true
	}
}

// unpin gives the pinned server up if what tied it has ended.
func (h *Handler) unpin(p *participant) {
	if !h.checkPin || p != h.pinned || p.Server.Dirty || p.Server.TxStatus != 'I' {
		return
	}
	h.checkPin = false
	if cause, _ := h.Pinned(); !verifiable[cause] {
		return
	}
	holds, err := p.Server.Holds()
	if err != nil || holds {
		return
	}
	h.pinned = nil
	h.setPin("")
	h.forgetTemps()
}

// doubtPin has the pinned server looked at behind a pipeline that failed: what was to tie it may not have come about.
func doubtPin(h *Handler, p *participant) { h.checkPin = h.checkPin || p == h.pinned }

// setting is what a set_config call sets.
type setting struct {
	name, value string
	local       bool
	reset       bool // its value is NULL
}

// configsOf reads the set_config calls of a statement with its values.
func configsOf(t *router.Template, a *router.Args) []setting {
	if t.Stmt.Configs == nil {
		return nil
	}
	var out []setting
	text := func(v sqlparse.Value) (string, bool) {
		if v.Kind != sqlparse.ValParam {
			return v.Text, true
		}
		i := v.Param - 1 // $0 is no mistake of the parser's
		if i < 0 || i >= len(a.Params) || a.Params[i] == nil {
			return "", false
		}
		b := a.Params[i]
		if len(b) == 1 && b[0] <= 1 { // a boolean in binary
			return []string{"false", "true"}[b[0]], true
		}
		return string(b), true
	}
	for _, c := range t.Stmt.Configs {
		name, ok := text(c.Name)
		if !ok {
			continue // it is an error
		}
		value, given := text(c.Value)
		local, _ := text(c.Local)
		l := strings.ToLower(local)
		out = append(out, setting{
			name: strings.ToLower(name), value: value, reset: !given,
			local: strings.HasPrefix(l, "t") || strings.HasPrefix(l, "y") || l == "on" || l == "1",
		})
	}
	return out
}

// configuring is what a pipeline will have set when a statement has run that is to set some more: the last of each parameter.
func configuring(x *extended, more []setting) (all []setting) {
	add := func(list []setting) {
		for _, c := range list {
			if i := slices.IndexFunc(all, func(o setting) bool { return o.name == c.name && o.local == c.local }); i >= 0 {
				all[i] = c
			} else {
				all = append(all, c)
			}
		}
	}
	for i := range x.post {
		add(x.post[i].configs)
	}
	for i := range x.ops {
		add(x.ops[i].configs)
	}
	add(more)
	return all
}

// configure takes what set_config has set on one server into the session, and to its other servers. Whether the session may keep it was asked before it
// ran; where others have taken the room since, and it is committed by now, that is no error of the statement: the session ends, as with what a function has set.
func (h *Handler) configure(p *participant, list []setting) error {
	if err := mayConfigure(h, list); err != nil {
		if !h.tx.Idle() {
			return err
		}
		p.Server.Dirty = true
		h.dismiss(setTooMuch(ended))
		return nil
	}
	for _, c := range list {
		if c.reset {
			p.Server.Suspect([]string{c.name}, false) // to its own value, not to the startup packet's
			maySet(h, p, nil)
			continue
		}
		value := pgsql.SettingValue(c.name, c.value)
		sql, kind := "SET "+pgsql.Setting(c.name)+" TO "+value, stepSet
		if c.local {
			if h.tx.Idle() { // it ended with its statement
				adopt(h, emptied(h.settings, c.name))
				p.Server.SetSettings(emptied(p.Server.Settings(), c.name))
				continue
			}
			sql, kind = "SET LOCAL"+sql[3:], stepLocal
		} else if !ofTransactions[c.name] {
			adopt(h, reported(p.Server, h.settings.With(c.name, value), c.name))
			if h.tx.Idle() {
				p.Server.SetSettings(h.settings)
			}
		}
		if ofTransactions[c.name] {
			kind, h.tx.Modes = stepModes, true
		}
		h.tx.step(kind, c.name, sql)
		reckonKept(h)
		h.tx.who = h.tx.who || c.name == "session_authorization"
		lookUpBy(h, c.name, value)
		h.planner.Moved()
		for _, o := range h.tx.parts {
			o.knows(c.name)
			if o == p {
				continue
			}
			if err := h.ready(o); err != nil {
				return err
			}
			if _, err := o.Server.Exec(sql); err != nil {
				return h.lost(o, err)
			}
		}
	}
	return nil
}

// failed notes that a statement which sets parameters has failed, perhaps behind that: of custom ones something may be left.
func failed(s *pool.Server, list []setting) {
	for _, c := range list {
		if isCustom(c.name) {
			s.Suspect([]string{c.name}, false)
		}
	}
}

// readsPrepared says whether a statement reads pg_prepared_statements.
func readsPrepared(t *router.Template) bool {
	for _, ref := range t.Stmt.Tables {
		if ref.Name == "pg_prepared_statements" {
			return true
		}
	}
	return false
}

// showPrepared makes pg_prepared_statements on a server list the session's own statements, and nobody else's,
// for a statement that reads it. It is part of the pipeline or transaction that the statement belongs to.
func (h *Handler) showPrepared(p *participant, t *router.Template) error {
	if !readsPrepared(t) || h.tx.Failed() {
		return nil
	}
	if err := h.ready(p); err != nil {
		return err
	}
	p.shown = true
	s := p.Server
	s.ForgetAll()
	branch.SendAside(s, "DEALLOCATE ALL")
	answers := 4
	for name, st := range h.ext.named {
		if st.tmpl != nil && st.tmpl.Class != router.Control {
			pool.Taken(s, name)
			s.SendParse(name, st.sql, h.typesFor(p.shard, st.types))
			answers++
		}
	}
	s.SendFlush()
	if err := s.Flush(); err != nil {
		return h.lost(p, err)
	}
	a := pool.Answer{Server: s, Open: true}
	for answers > 0 {
		m, err := a.Next()
		switch {
		case a.Ended && a.Failed != nil:
			if p != h.ext.cur { // else the pipeline's end does it
				p.Resync()
			}
			return a.Failed
		case err != nil:
			return h.lost(p, err)
		case m.Type == '1' || m.Type == '2' || m.Type == 'C' || m.Type == '3':
			answers--
		}
	}
	return nil
}

// hidePrepared undoes showPrepared.
func (h *Handler) hidePrepared(p *participant) {
	if !p.shown {
		return
	}
	p.shown = false
	if p.Server.Dirty || p.Server.TxStatus != 'I' {
		p.Lose()
		return
	}
	if _, err := p.Server.Exec("DEALLOCATE ALL"); err != nil {
		p.Lose()
	}
	p.Server.ForgetAll()
}

// overdue says whether the client has let statement_timeout pass between the messages of a pipeline. A server
// would have counted that time, but it has not seen the messages yet.
func (h *Handler) overdue(waited time.Duration) error {
	if waited < time.Millisecond {
		return nil
	}
	v, ok := h.settings.Get("statement_timeout")
	if !ok {
		return nil
	}
	limit, err := client.ParseDuration(strings.Trim(v, "'"))
	if err != nil || limit <= 0 || waited < limit {
		return nil
	}
	return errStatementTimeout
}

var errStatementTimeout = &pgsql.Error{Code: pgsql.QueryCanceled, Message: "canceling statement due to statement timeout"}
