package exec

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/exec/client"
	"github.com/pgmosaic/pgmosaic/proxy/exec/planner"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// plan finds or makes the template of a text with one statement. multi is returned instead when the
// text holds several.
func (h *Handler) plan(ctx context.Context, sql []byte) (p planner.Planned, multi []*sqlparse.Statement, err error) {
	if err := seesPath(ctx, h); err != nil {
		return planner.Planned{}, nil, err
	}
	if err := h.reread(ctx); err != nil {
		return planner.Planned{}, nil, err
	}
	if err := h.rereadTemps(ctx); err != nil {
		return planner.Planned{}, nil, err
	}
	p, multi, err = h.planner.Plan(ctx, (*planning)(h), sql)
	if err == nil && multi == nil {
		err = h.outdated(p.Template.Stmt)
	}
	return p, multi, err
}

// planning is a handler as the planner sees it.
type planning Handler

var _ planner.Circumstances = (*planning)(nil)

// Leave implements planner.Circumstances.
func (p *planning) Leave() { p.client.Leave() }

// Shared implements planner.Circumstances.
func (p *planning) Shared() bool { return (*Handler)(p).cacheable() }

// Analyze implements planner.Circumstances.
func (p *planning) Analyze(ctx context.Context, s *sqlparse.Statement) (*router.Template, error) {
	return (*Handler)(p).analyze(ctx, s)
}

// cacheable says whether equal texts mean the same in other sessions of the same plan space.
func (h *Handler) cacheable() bool {
	return h.planner.Env.Temp == nil && !h.tempsOld && h.tx.base.DB == nil
}

// moveWait is how long a statement waits for a table that is just being switched to its shards, or for a shard that joins.
const moveWait = 30 * time.Second

// awaitMove waits for the map to change, if err says that a table is moving or a shard joining, and takes the new one over. false: err stands. A
// transaction or pipeline that has servers, or portals that wait for them, keeps the map that it began with.
func (h *Handler) awaitMove(ctx context.Context, err error) bool {
	if err == nil {
		return false
	}
	var refused *router.Error
	if !errors.As(err, &refused) || refused.Rule != router.RuleMoving && refused.Rule != router.RuleJoining || keepsMap(h) {
		return false
	}
	h.client.Leave()
	late := time.NewTimer(moveWait)
	defer late.Stop()
	select {
	case <-h.planner.Map.Superseded():
		return h.refresh(ctx) == nil
	case <-late.C:
	case <-ctx.Done():
	}
	return false
}

// planStatement plans one statement of several, or of a text that is not worth caching.
func (h *Handler) planStatement(ctx context.Context, s *sqlparse.Statement) (planner.Planned, error) {
	if err := seesPath(ctx, h); err != nil {
		return planner.Planned{}, err
	}
	if err := h.reread(ctx); err != nil {
		return planner.Planned{}, err
	}
	if err := h.rereadTemps(ctx); err != nil {
		return planner.Planned{}, err
	}
	t, err := h.analyze(ctx, s)
	if err == nil {
		err = h.outdated(s)
	}
	return planner.Planned{Template: t}, err
}

// analyze plans a statement by the schema at hand, or by a newer one if that does not know what it names.
func (h *Handler) analyze(ctx context.Context, s *sqlparse.Statement) (*router.Template, error) {
	t, err := router.Analyze(s, h.planner.DB, h.planner.Schema, h.planner.Env)
	var refused *router.Error
	undeclared := errors.As(err, &refused) && refused.Rule == router.RuleUndeclared // UNDISTRIBUTE may just have ended
	if !undeclared && (err != nil || t.Known != router.NamesUnknown) {
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
	return router.Analyze(s, h.planner.DB, h.planner.Schema, h.planner.Env)
}

// bind finds the shards of a planned statement, asking a server for parameter types if they decide.
func (h *Handler) bind(ctx context.Context, t *router.Template, a *router.Args, describe func() ([]uint32, error)) (*router.Plan, error) {
	p, err := t.Bind(h.planner.DB, a)
	if errors.Is(err, router.ErrNeedTypes) && describe != nil {
		if a.Types, err = describe(); err != nil {
			return nil, err
		}
		p, err = t.Bind(h.planner.DB, a)
	}
	if errors.Is(err, router.ErrNeedValues) {
		if h.own.Shard == "" {
			if a.Drawn, err = h.draw(ctx, t.Draw); err != nil {
				return nil, err
			}
			p, err = t.Bind(h.planner.DB, a)
		} else {
			p, err = &router.Plan{Template: t}, nil // the client has named the shard
		}
	}
	if err != nil {
		return nil, err
	}
	if h.own.Shard != "" && t.Class != router.Control {
		return h.forced(p)
	}
	if h.own.Fanout != client.Scatter {
		if err := h.own.Fanout.Allows(p); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// forced sends a statement to the shard that pgmosaic.shard names.
func (h *Handler) forced(p *router.Plan) (*router.Plan, error) {
	sh, ok := h.planner.DB.Shard(h.own.Shard)
	if !ok {
		return nil, &pgsql.Error{Code: pgsql.UndefinedObject, Message: "pgmosaic.shard names shard \"" + h.own.Shard + "\", which does not exist", Hint: "SHOW SHARDS on the admin database lists them."}
	}
	if err := p.Template.OneShard(h.planner.DB, sh.Index, h.tx.Active() && h.readsOnly()); err != nil {
		return nil, err
	}
	return &router.Plan{Template: p.Template.Forced(), Shards: []int{sh.Index}, Narrow: true}, nil
}

// searchPathOf reads the SQL text of a search_path setting: names as literals.
func searchPathOf(value string) []string {
	names, _ := pgsql.Texts(value) // what the parser and SettingValue have written
	return names
}

// nameAge is how old the schema may be that does not know a name.
const nameAge = 200 * time.Millisecond

// learn has a statement that names what the schema does not know planned by one that is read anew: by the transaction's own eyes
// inside of one. What was read just now is not read again, unless it must. false: there is nothing newer.
func (h *Handler) learn(ctx context.Context, must bool) (newer bool, err error) {
	schema, db := h.planner.Schema, h.planner.DB
	if !must && time.Since(h.planner.SeenAt()) <= nameAge {
		return false, nil
	}
	if h.tx.Idle() && h.ext.cur == nil || len(h.tx.parts) == 0 && h.ext.cur == nil {
		h.client.Leave()
		if err := h.e.Planner.Schemas.Check(ctx, h.planner.DB); err != nil {
			return false, err
		}
		switch {
		case h.tx.base.DB != nil:
		case keepsMap(h):
			err = takeSchema(ctx, h)
		default:
			err = h.refresh(ctx)
		}
		return h.planner.Schema != schema || h.planner.DB != db, err // what was planned by the map before is not what runs by this one
	}
	h.tx.defined = true
	err = h.reread(ctx)
	return h.planner.Schema != schema || h.planner.DB != db, err
}
