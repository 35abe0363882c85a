package exec

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/router"
)

// unseen is what a transaction knows of settings that functions make, where no parser sees them. Before a statement goes to another
// server, that one is made to have them as well.
type unseen struct {
	by    []*participant   // which may have set something since all were alike; who did last is last
	of    *router.Template // of the statement that was last to run on one of them
	base  *pool.Carried    // what all had when they were last alike
	times int              // that a server was added to by
	path  bool             // one of by may have set the search_path

	customs customs // custom parameters that the transaction has set in the open: see emptied
}

// maySet notes that a statement that may set something unseen is about to run on a participant of the transaction.
func maySet(h *Handler, p *participant, t *router.Template) {
	if h.tx.Idle() || len(h.planner.DB.Shards) == 1 {
		return
	}
	u := &h.tx.unseen
	u.by = append(slices.DeleteFunc(u.by, func(o *participant) bool { return o == p }), p)
	u.times++
	u.of, p.setAt, u.path = t, u.times, u.path || t == nil || t.Hidden.Path
	h.tx.Modes = h.tx.Modes || t == nil || t.Hidden.Modes
}

// suspectParse notes that a statement is parsed on a server: a literal of a composite type or array has the checks of its parts run then.
func suspectParse(h *Handler, p *participant) {
	if hidden := router.RunsUnnamed(h.planner.Schema); hidden != nil {
		p.Server.Suspect(hidden.Vars, hidden.Unknown)
	}
}

// seesPath has what comes planned by the search_path that a function has set.
func seesPath(ctx context.Context, h *Handler) error {
	if !h.tx.unseen.path {
		return nil
	}
	return spread(ctx, h, nil)
}

// spreadTo makes the servers of the transaction alike before a statement goes to one of them, or to a new one; t is its template, if it
// is one that may set something itself.
func spreadTo(ctx context.Context, h *Handler, shard int, t *router.Template) error {
	if u := &h.tx.unseen; u.by == nil || len(u.by) == 1 && u.by[0].shard == shard {
		return nil
	}
	return spread(ctx, h, t)
}

// spread makes the servers of the transaction alike: what functions have set on some is told to all, and to those that join later.
// What a function has set lasts as long as the transaction on the others; tidy finds what stays.
func spread(ctx context.Context, h *Handler, t *router.Template) error {
	u := &h.tx.unseen
	if len(u.by) == 0 || !h.tx.Active() {
		return nil
	}
	if cur := h.ext.cur; cur != nil && len(h.ext.ops) > 0 {
		if err := h.drain(ctx, false); err != nil {
			return err
		}
	}
	vars := customNames(h.settings)
	for _, p := range u.by {
		vars = append(vars, p.Server.Vars()...)
	}
	seen := map[*participant]*pool.Carried{}
	for _, p := range u.by {
		var err error
		if seen[p], err = carries(h, p, vars); err != nil {
			return err
		}
	}
	want := seen[u.by[len(u.by)-1]]
	if len(u.by) > 1 && u.base != nil {
		want = u.base
		for _, p := range u.by {
			want = seen[p].Over(u.base, want)
		}
	}
	for _, p := range h.tx.parts {
		if err := follow(h, p, seen[p], want, vars); err != nil {
			return err
		}
	}
	if last := len(h.tx.steps) - 1; last < 0 || h.tx.steps[last].kind != stepSeen || !h.tx.steps[last].seen.Same(want) {
		h.tx.steps = append(h.tx.steps, step{kind: stepSeen, seen: want, vars: vars})
		reckonKept(h)
	}
	if path, ok := pgsql.Names(want.Value("search_path")); ok && !slices.Equal(path, h.planner.Env.SearchPath) {
		h.planner.Env.SearchPath = path
		h.planner.Moved()
	}
	if role := want.Who(); role != h.planner.Env.Role {
		h.planner.Env.Role = role
		h.planner.Moved()
	}
	u.base, u.path = want, false
	if t == nil || t.Hidden == nil || t != u.of { // else it may be the same statement, which goes to several shards at once
		u.by = nil
	}
	return nil
}

// carries asks a participant what it has.
func carries(h *Handler, p *participant, vars []string) (*pool.Carried, error) {
	if err := h.ready(p); err != nil {
		return nil, err
	}
	c, err := p.Server.Carries(vars, h.ext.most())
	if errors.Is(err, pool.ErrTooMuch) {
		return nil, setTooMuch("")
	}
	if err != nil {
		return nil, h.lost(p, err)
	}
	return c, nil
}

// follow makes a participant, or a server beside the transaction, have what others have. have is what it has now, if that is known.
func follow(h *Handler, p *participant, have, want *pool.Carried, vars []string) (err error) {
	if have == nil {
		if have, err = carries(h, p, vars); err != nil {
			return err
		}
	}
	for _, c := range p.Server.Changes(have, want, h.login) {
		p.knows(c.Name)
		h.tx.who = h.tx.who || c.Name == "session_authorization" || c.Name == "role"
		_, err := p.Server.Exec(c.SQL)
		var se *pool.ServerError
		switch {
		case errors.As(err, &se):
			return &pgsql.Error{
				Code:    pgsql.FeatureNotSupported,
				Message: fmt.Sprintf("what a function has set of %q cannot be set on shard %s: %s", c.Name, h.shards.Name(p.shard), se.Response.Message),
				Hint:    "Set it where the session may set it itself, or stay on one shard in this transaction.",
			}
		case err != nil:
			return h.lost(p, err)
		}
	}
	return nil
}

// lead gives a participant that joins what the transaction has set so far, and its savepoints.
func lead(h *Handler, p *participant) error {
	for _, s := range h.tx.steps {
		p.replayed = true
		if s.kind == stepSeen {
			if err := follow(h, p, nil, s.seen, s.vars); err != nil {
				return err
			}
			continue
		}
		if s.kind == stepPutOff {
			if len(s.off.each) == 0 {
				p.First(s.sql)
			} else if err := s.off.on(h, p); err != nil {
				return err
			}
			continue
		}
		p.knows(s.name)
		p.First(s.sql)
	}
	return nil
}

// knows notes that a participant is told of a parameter, if it is a custom one.
func (p *participant) knows(name string) {
	p.customs.add(name)
}

// outcome tells the client what became of the settings of a transaction in which functions have set some. last is the participant whose
// word counts; the others are done with.
func outcome(h *Handler, last *participant) {
	if h.tx.unseen.base == nil || last.Server.Dirty || last.Server.TxStatus != 'I' {
		return
	}
	h.hidePrepared(last)
	h.tidy(last)
	if last.Server.Dirty && h.pinned != nil { // what cannot be replayed is on the one that the session keeps
		last = h.pinned
	}
	if last.Server.Dirty || h.adapt(last) != nil {
		return
	}
	h.resay(last)
}

// inTurn puts the participants in the order in which they may have set something: when the transaction has ended, the last one's word
// counts.
func inTurn(h *Handler) {
	if h.tx.unseen.times > 0 {
		slices.SortStableFunc(h.tx.parts, func(a, b *participant) int { return cmp.Compare(a.setAt, b.setAt) })
	}
}

// forgetTold ends what a participant was told of custom parameters, and what it may have set unseen.
func (p *participant) forgetTold() {
	p.Server.SetSettings(emptied(p.Server.Settings(), p.customs.list...))
	p.customs, p.setAt = customs{}, 0
}
