package exec

import (
	"context"
	"errors"
	"strconv"
	"time"
	"unsafe"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// planned is a statement ready to be bound.
type planned struct {
	tmpl *router.Template
	lits []sqlparse.Literal // of its text, when the template is shared with other texts
}

// plan finds or makes the template of a text with one statement. multi is returned instead when the
// text holds several.
func (h *Handler) plan(ctx context.Context, sql []byte) (p planned, multi []*sqlparse.Statement, err error) {
	if err := seesPath(ctx, h); err != nil {
		return planned{}, nil, err
	}
	if err := h.reread(ctx); err != nil {
		return planned{}, nil, err
	}
	if err := h.rereadTemps(ctx); err != nil {
		return planned{}, nil, err
	}
	p, multi, err = h.find(ctx, sql)
	if err == nil && multi == nil {
		err = h.outdated(p.tmpl.Stmt)
	}
	return p, multi, err
}

// cacheable says whether equal texts mean the same in other sessions of the same plan space.
func (h *Handler) cacheable() bool { return h.env.Temp == nil && !h.tempsOld && h.tx.base.db == nil }

func (h *Handler) find(ctx context.Context, sql []byte) (p planned, multi []*sqlparse.Statement, err error) {
	space := h.planSpace()
	key := append(h.strip[:0], space[:]...)
	lits := h.lits[:0]
	key, lits, ok := sqlparse.Strip(key, lits, sql)
	h.strip, h.lits = key, lits
	cacheable := ok && h.cacheable()
	if cacheable {
		e, hit := h.e.plans.GetIfPresent(unsafe.String(unsafe.SliceData(key), len(key)))
		if hit && e.exact {
			if t := h.exactly(space, sql); t != nil {
				return planned{tmpl: t}, nil, nil
			}
		} else if hit {
			h.count.PlanHits.Add(1)
			e.hits.Add(1)
			return planned{e.tmpl, lits}, nil, nil
		}
	}
	h.count.PlanMisses.Add(1)
	if len(sql) > longText {
		h.client.Leave() // to parse and plan it takes long
	}
	reading := int64(len(sql)) * treeCost
	if err := h.e.Memory.Take(Parsing, reading); err != nil {
		return planned{}, nil, err
	}
	defer h.e.Memory.Give(Parsing, reading)
	text := string(sql)
	stmts, err := h.parse(text)
	if err != nil {
		return planned{}, nil, err
	}
	if len(stmts) > 1 {
		return planned{}, stmts, nil
	}
	tmpl, err := h.analyze(ctx, stmts[0])
	if err != nil {
		return planned{}, nil, err
	}
	if !cacheable || !h.cacheable() || h.planSpace() != space { // it may have been planned by a newer schema
		return planned{tmpl: tmpl}, nil, nil
	}
	size := tmpl.Slim()
	if !tmpl.Exact && tmpl.NumberLiterals(lits) {
		h.e.keep(string(key), &entry{tmpl: tmpl}, size)
		return planned{tmpl, lits}, nil, nil
	}
	h.e.keep(string(key), &entry{exact: true}, 0)
	h.keepExactly(space, tmpl, size)
	return planned{tmpl: tmpl}, nil, nil
}

// exactly is the cached plan of this very text, nil if there is none.
func (h *Handler) exactly(space [8]byte, sql []byte) *router.Template {
	full := append(append(append(make([]byte, 0, len(sql)+10), space[:]...), 2), sql...)
	e, hit := h.e.plans.GetIfPresent(unsafe.String(unsafe.SliceData(full), len(full)))
	if !hit {
		return nil
	}
	h.count.PlanHits.Add(1)
	e.hits.Add(1)
	return e.tmpl
}

// keepExactly caches a plan for its own text only.
func (h *Handler) keepExactly(space [8]byte, t *router.Template, size int) {
	if len(t.Stmt.Text) < 8192 && t.Class != router.Control && t.Stmt.Kind != sqlparse.Insert {
		h.e.keep(string(space[:])+"\x02"+t.Stmt.Text, &entry{tmpl: t}, size)
	}
}

// planExactly plans a text whose plan is shared with other literals for its own: a prepared statement's values are its
// parameters. Sessions that prepare the same text share it.
func (h *Handler) planExactly(sql string) (*router.Template, error) {
	space := h.planSpace()
	if h.cacheable() {
		if t := h.exactly(space, unsafe.Slice(unsafe.StringData(sql), len(sql))); t != nil {
			return t, nil
		}
	}
	stmts, err := h.parse(sql)
	if err != nil {
		return nil, err
	}
	t, err := router.Analyze(stmts[0], h.dbmap, h.schema, h.env)
	if err != nil {
		return nil, err
	}
	if size := t.Slim(); h.cacheable() {
		h.keepExactly(space, t, size)
	}
	return t, nil
}

// treeCost is how many bytes of trees and facts, in C and here, a byte of text needs at most while it is planned.
const treeCost = 100

// longText is the length of a statement, in bytes, from which on it holds up others to plan it.
const longText = 1 << 10

// moveWait is how long a statement waits for a table that is just being switched to its shards, or for a shard that joins.
const moveWait = 30 * time.Second

// awaitMove waits for the map to change, if err says that a table is moving or a shard joining, and takes the new one over. false: err stands. A
// transaction or pipeline that has servers keeps the map that it began with.
func (h *Handler) awaitMove(ctx context.Context, err error) bool {
	if err == nil {
		return false
	}
	var refused *router.Error
	if !errors.As(err, &refused) || refused.Rule != router.RuleMoving && refused.Rule != router.RuleJoining || len(h.tx.parts) > 0 || h.ext.cur != nil {
		return false
	}
	h.client.Leave()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(moveWait); time.Now().Before(end); {
		if h.e.Catalog.Current() != h.snap {
			return h.refresh(ctx) == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return false
}

func (h *Handler) parse(text string) ([]*sqlparse.Statement, error) {
	panics.Point("planner")
	stmts, err := sqlparse.Parse(text)
	var se *sqlparse.SyntaxError
	if errors.As(err, &se) {
		if len(h.dbmap.Shards) == 1 { // newer syntax, or a mistake: the server knows
			return []*sqlparse.Statement{{Kind: sqlparse.Other, Text: text, Syntax: se}}, nil
		}
		return nil, &router.Error{Code: pgsql.SyntaxError, Message: se.Message, Pos: se.Position}
	}
	return stmts, err
}

// planStatement plans one statement of several, or of a text that is not worth caching.
func (h *Handler) planStatement(ctx context.Context, s *sqlparse.Statement) (planned, error) {
	if err := seesPath(ctx, h); err != nil {
		return planned{}, err
	}
	if err := h.reread(ctx); err != nil {
		return planned{}, err
	}
	if err := h.rereadTemps(ctx); err != nil {
		return planned{}, err
	}
	t, err := h.analyze(ctx, s)
	if err == nil {
		err = h.outdated(s)
	}
	return planned{tmpl: t}, err
}

// analyze plans a statement by the schema at hand, or by a newer one if that does not know what it names.
func (h *Handler) analyze(ctx context.Context, s *sqlparse.Statement) (*router.Template, error) {
	t, err := router.Analyze(s, h.dbmap, h.schema, h.env)
	var refused *router.Error
	undeclared := errors.As(err, &refused) && refused.Rule == router.RuleUndeclared // UNDISTRIBUTE may just have ended
	if !undeclared && (err != nil || !t.Unknown) {
		return t, err
	}
	if err := h.outdated(s); err != nil {
		return nil, err
	}
	newer, failed := h.learn(ctx, undeclared)
	switch {
	case failed != nil:
		return nil, failed
	case !newer:
		return t, err
	}
	return router.Analyze(s, h.dbmap, h.schema, h.env)
}

// bind finds the shards of a planned statement, asking a server for parameter types if they decide.
func (h *Handler) bind(ctx context.Context, t *router.Template, a *router.Args, describe func() ([]uint32, error)) (*router.Plan, error) {
	p, err := t.Bind(a)
	if errors.Is(err, router.ErrNeedTypes) && describe != nil {
		if a.Types, err = describe(); err != nil {
			return nil, err
		}
		p, err = t.Bind(a)
	}
	if errors.Is(err, router.ErrNeedValues) {
		if h.own.shard == "" {
			if a.Drawn, err = h.draw(ctx, t.Draw); err != nil {
				return nil, err
			}
			p, err = t.Bind(a)
		} else {
			p, err = &router.Plan{Template: t}, nil // the client has named the shard
		}
	}
	if err != nil {
		return nil, err
	}
	if h.own.shard != "" && t.Class != router.Control {
		return h.forced(p)
	}
	if h.own.fanout != fanScatter {
		if err := h.own.fanout.allows(p); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// forced sends a statement to the shard that pgmosaic.shard names.
func (h *Handler) forced(p *router.Plan) (*router.Plan, error) {
	sh, ok := h.dbmap.Shard(h.own.shard)
	if !ok {
		return nil, &pgsql.Error{Code: pgsql.UndefinedObject, Message: "pgmosaic.shard names shard \"" + h.own.shard + "\", which does not exist", Hint: "SHOW SHARDS on the admin database lists them."}
	}
	if err := p.Template.OneShard(sh.Index, h.tx.status == 'T' && h.readsOnly()); err != nil {
		return nil, err
	}
	return &router.Plan{Template: p.Template.Forced(), Shards: []int{sh.Index}, Narrow: true}, nil
}

// searchPathOf reads the SQL text of a search_path setting: names as literals.
func searchPathOf(value string) []string {
	names, _ := pgsql.Texts(value) // what the parser and SettingValue have written
	return names
}
