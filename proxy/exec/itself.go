package exec

import (
	"context"
	"errors"
	"io"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
)

// A statement over several shards is described before it runs: how its rows merge depends on their types. One whose rows are only passed on is
// spared that, a round trip and an analysis of its text, the first time that anybody runs it.

// describesItself says whether a statement of the simple protocol may run before its columns are known: its rows are passed on as text, one shard's
// after the other's.
func describesItself(t *router.Template, m *router.Merge) bool {
	return m.Mode == router.Concat && m.Hidden == 0 && !m.Locks && t.Stmt.Params == 0
}

// shapeBefore is the shape of a statement that is about to run. With self it is empty: the run tells it.
func shapeBefore(ctx context.Context, h *Handler, p *router.Plan, a *router.Args, x *execution) (sh *shape, self bool, err error) {
	if x == nil && len(p.Shards) > 0 && describesItself(p.Template, p.Merge) {
		if _, known := p.Aux.Load(auxKey(shapeKey, a.Types)); !known {
			return &shape{}, true, nil
		}
	}
	sh, err = h.shapeOf(ctx, p.Template, a.Types)
	return sh, false, err
}

// shapeFrom is the columns that the first shard tells before its rows, as home would tell them. The rows of all of them must have as many. They are
// kept for everybody only if they come from whom a Describe would ask: a replica may not have replayed a definition that the plan knows, and a transaction
// may have made one that nobody else sees.
func shapeFrom(h *Handler, t *router.Template, streams []*stream) (*shape, error) {
	fields, err := streams[0].columns()
	if err != nil {
		return nil, err
	}
	for _, s := range streams {
		s.wide = len(fields)
	}
	sh := &shape{visible: fields, shard: fields}
	if p := streams[0].p; p.shard == h.describer(t) && !p.Replica && !p.defines {
		h.e.Planner.Learn(t, auxKey(shapeKey, nil), sh)
	}
	return sh, nil
}

// columns reads until the server has told the columns of its rows, with home's numbers for types and tables.
func (s *stream) columns() ([]wire.Field, error) {
	if err := s.bound(); err != nil {
		return nil, err
	}
	for !s.done {
		m, err := s.answer.Next()
		switch {
		case s.answer.Ended:
			if err := s.over(); !errors.Is(err, io.EOF) {
				return nil, err
			}
		case err != nil:
			s.done = true
			return nil, s.h.unread(s.p, &s.answer, err)
		case m.Type == 'T':
			fields, err := wire.ParseRowDescription(m.Body())
			translateFields(s.h.typesOf(s.p.shard), fields)
			return fields, err
		}
	}
	return nil, errPlanChanged
}
