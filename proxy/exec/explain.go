package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
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
			return nil, &router.Error{Code: pgsql.SyntaxError, Message: se.Message}
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
		if t.Draw != nil {
			out = append(out, fmt.Sprintf("Split by %d values of nextval(%s) for key column %s", t.Draw.Rows, pgsql.Literal(t.Draw.Sequence), t.Draw.Column))
			continue
		}
		p, err := t.Bind(db, &router.Args{Text: []byte(s.Text)})
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
	inner, err := p.Inner.Bind(h.planner.DB, &router.Args{Text: []byte(p.Inner.Stmt.Text)})
	if errors.Is(err, router.ErrNeedValues) { // of a sequence: an EXPLAIN draws none
		return router.Refuse(router.RuleExplain)
	}
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
	parts, err := h.shardParts(inner)
	if err != nil {
		return err
	}
	if parts == nil {
		if p.Stmt.Def.NoTx { // ANALYZE would run it
			return router.Refuse(router.RuleExplain)
		}
		if inner.Class != router.Moved && inner.Class != router.Rekey { // those do not run their own text
			for _, s := range inner.Shards {
				parts = append(parts, shardPart{shard: s, sql: inner.TextOn(s, p.Inner.Stmt.Text)})
			}
		}
	} else if p.Stmt.Def.NoTx && inner.Class == router.Moved {
		return router.Refuse(router.RuleExplain)
	}
	for _, part := range parts {
		text, ok := p.Stmt.Explaining(part.sql)
		if !ok {
			return router.Refuse(router.RuleExplain)
		}
		rows, err := h.askShard(ctx, p.Inner, part.shard, text)
		if err != nil {
			return err
		}
		add("Shard %s%s:", h.shards.Name(part.shard), part.what)
		for _, r := range rows {
			add("  %s", r[0])
		}
	}
	h.table([]string{"QUERY PLAN"}, lines, "EXPLAIN")
	return nil
}

// shardPart is what one shard does for a SELECT.
type shardPart struct {
	shard     int
	sql, what string
}

// shardParts are what the shards do for a SELECT over several of them; nil for another statement.
func (h *Handler) shardParts(p *router.Plan) ([]shardPart, error) {
	var out []shardPart
	switch {
	case len(p.Shards) == 1 && p.Read && (p.Class == router.Single || p.Narrow):
		out = append(out, shardPart{p.Shards[0], p.Stmt.Text, ""})
	case p.Class == router.Scatter:
		for _, s := range p.Shards {
			out = append(out, shardPart{s, p.TextOn(s, p.Merge.SQL), ""})
		}
	case p.Class == router.Gathered, p.Class == router.Moved:
		for i := range p.Gather.Loads {
			l := &p.Gather.Loads[i]
			shards, err := l.Shards(p.Template, h.planner.DB, &router.Args{Text: []byte(p.Stmt.Text)})
			if err != nil {
				return nil, err
			}
			for _, s := range shards {
				out = append(out, shardPart{s, l.SQL, ", rows of " + l.Table.String()})
			}
		}
	}
	return out, nil
}

// askShard runs an EXPLAIN of a read on one shard.
func (h *Handler) askShard(ctx context.Context, t *router.Template, shard int, text string) ([][][]byte, error) {
	part, err := h.enlist(ctx, shard, t.Part(true))
	if err != nil {
		return nil, err
	}
	if h.tx.Idle() {
		defer h.finish(part)
	}
	if err := h.ready(part); err != nil {
		return nil, err
	}
	rows, err := part.Server.RowsOf(1, text)
	if err != nil {
		return nil, h.lost(part, err)
	}
	return rows, nil
}

// explainRoute answers EXPLAIN (ROUTE), with ANALYZE also how many rows each shard gave and how long it took: the server's
// own time, and the time until its answer was here.
func (h *Handler) explainRoute(ctx context.Context, s *sqlparse.Statement) error {
	var last *router.Plan
	text := innerText(s.Text)
	lines, err := ExplainRoute(text, h.planner.DB, h.planner.Schema, h.planner.Env, func(p *router.Plan) (*router.Plan, error) {
		var err error
		last, err = h.typed(ctx, p)
		return last, err
	})
	if err != nil {
		return err
	}
	if s.Def.NoTx {
		if last == nil {
			return router.Refuse(router.RuleExplain)
		}
		parts, err := h.shardParts(last)
		if err != nil {
			return err
		}
		if len(parts) == 0 || last.Class == router.Moved {
			return router.Refuse(router.RuleExplain)
		}
		for _, part := range parts {
			start := time.Now()
			rows, err := h.askShard(ctx, last.Template, part.shard, "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "+part.sql)
			if err != nil {
				return err
			}
			n, ms, err := measured(rows)
			if err != nil {
				return err
			}
			lines = append(lines, fmt.Sprintf("  Shard %s%s: %d rows in %.3f ms, %.3f ms with the way there and back", h.shards.Name(part.shard), part.what, n, ms, float64(time.Since(start).Microseconds())/1000))
		}
	}
	rows := make([][]string, len(lines))
	for i, l := range lines {
		rows[i] = []string{l}
	}
	h.table([]string{"QUERY PLAN"}, rows, "EXPLAIN")
	return nil
}

// measured reads the rows and the time, in milliseconds, of an EXPLAIN ANALYZE in JSON.
func measured(rows [][][]byte) (n int64, ms float64, err error) {
	var plans []struct {
		Plan struct {
			Rows float64 `json:"Actual Rows"`
		}
		Time float64 `json:"Execution Time"`
	}
	if len(rows) == 0 {
		return 0, 0, &pgsql.Error{Code: pgsql.InternalError, Message: "EXPLAIN ANALYZE gave no row"}
	}
	if err := json.Unmarshal(rows[0][0], &plans); err != nil || len(plans) != 1 {
		return 0, 0, &pgsql.Error{Code: pgsql.InternalError, Message: "EXPLAIN ANALYZE gave no plan in JSON"}
	}
	return int64(plans[0].Plan.Rows), plans[0].Time, nil
}

// DefaultEnv is the circumstances of a session that has set nothing.
func DefaultEnv() router.Env { return router.Env{SearchPath: []string{"$user", "public"}} }
