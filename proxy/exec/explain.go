package exec

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// ExplainRoute describes where each statement of a text would run. A statement with parameters is described
// as far as that goes without their values. typed, if not nil, gives the plan once a server has told the types of its
// columns.
func ExplainRoute(sql string, db *shardmap.DB, sch *schema.Snapshot, env router.Env, typed func(*router.Plan) (*router.Plan, error)) ([]string, error) {
	stmts, err := sqlparse.Parse(sql)
	if err != nil {
		var se *sqlparse.SyntaxError
		if errors.As(err, &se) {
			return nil, &router.Error{Code: "42601", Message: se.Message}
		}
		return nil, err
	}
	var out []string
	for _, s := range stmts {
		t, err := router.Analyze(s, db, sch, env)
		if err != nil {
			return nil, err
		}
		if s.Params > 0 {
			out = append(out, t.Class.String()+" by parameter values", "  Plan: "+t.Class.String())
			if t.Merge != nil {
				out = append(out, "  Shard: "+t.Merge.SQL)
			}
			continue
		}
		p, err := t.Bind(&router.Args{Text: []byte(s.Text)})
		if err != nil {
			return nil, err
		}
		if typed != nil {
			if p, err = typed(p); err != nil {
				return nil, err
			}
		}
		out = append(out, p.Lines()...)
	}
	return out, nil
}

// typed is a plan once the types of its columns are known: rows that Go does not compare as PostgreSQL does are gathered.
func (h *Handler) typed(ctx context.Context, p *router.Plan) (*router.Plan, error) {
	if p.Class != router.Scatter || len(p.Shards) == 1 {
		return p, nil
	}
	sh, err := h.shapeOf(ctx, p.Template, nil)
	if err != nil || sh.refused == nil {
		return p, err
	}
	t, err := p.Fallback(sh.refused)
	if err != nil {
		return nil, err
	}
	return &router.Plan{Template: t, Shards: p.Shards}, nil
}

// explainShards answers EXPLAIN of a statement over several shards: its route, and behind each shard's name the plan
// that the shard has for its part.
func (h *Handler) explainShards(ctx context.Context, p *router.Plan) error {
	inner, err := p.Inner.Bind(&router.Args{Text: []byte(p.Inner.Stmt.Text)})
	if err == nil {
		inner, err = h.typed(ctx, inner)
	}
	if err != nil {
		return err
	}
	var lines [][]string
	add := func(format string, args ...any) { lines = append(lines, []string{fmt.Sprintf(format, args...)}) }
	for _, l := range inner.Lines() {
		add("%s", l)
	}
	ask := func(shard int, sql, what string) error {
		text, ok := p.Stmt.Explaining(sql)
		if !ok {
			return router.Refuse("explain")
		}
		part, err := h.on(ctx, shard, &router.Template{Class: router.Single, Stmt: p.Stmt, DB: p.DB, Schema: p.Schema, Read: true, Tables: p.Inner.Tables})
		if err != nil {
			return err
		}
		if h.tx.status == 'I' {
			defer h.finish(part)
		}
		if err := h.ready(part); err != nil {
			return err
		}
		rows, err := part.srv.Rows(text)
		if err != nil {
			return h.lost(part, err)
		}
		add("Shard %s%s:", h.shards[shard].info.Name, what)
		for _, r := range rows {
			add("  %s", r[0])
		}
		return nil
	}
	switch {
	case inner.Class == router.Scatter:
		for _, s := range inner.Shards {
			if err := ask(s, inner.Merge.SQL, ""); err != nil {
				return err
			}
		}
	case inner.Class == router.Gathered:
		for i := range inner.Gather.Loads {
			l := &inner.Gather.Loads[i]
			shards, err := l.Shards(inner.Template, &router.Args{Text: []byte(p.Inner.Stmt.Text)})
			if err != nil {
				return err
			}
			for _, s := range shards {
				if err := ask(s, l.SQL, ", rows of "+l.Table.String()); err != nil {
					return err
				}
			}
		}
	case p.Stmt.Def.NoTx: // ANALYZE would run it
		return router.Refuse("explain")
	default:
		for _, s := range inner.Shards {
			if err := ask(s, p.Inner.Stmt.Text, ""); err != nil {
				return err
			}
		}
	}
	h.table([]string{"QUERY PLAN"}, lines, "EXPLAIN")
	return nil
}

// DefaultEnv is the circumstances of a session that has set nothing.
func DefaultEnv() router.Env { return router.Env{SearchPath: []string{"$user", "public"}} }
