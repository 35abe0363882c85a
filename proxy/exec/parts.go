package exec

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/merge"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
)

// twoSteps is a statement in two steps with its types resolved: once for each plan.
type twoSteps struct {
	shard []wire.Field // what the shards send
	final string       // what finishes it; empty: the types do not allow it
}

// combination finds what stands for a combined count, sum or average in the final text of two steps.
var combination = regexp.MustCompile(`pgmosaic_(count|sum|avg)\(pgmosaic\.(\w+)(?:, pgmosaic\.(\w+))?\)`)

// interval is PostgreSQL's type of that name.
const interval = 1186

// resolve finds the types of what the shards send, and with them the final text. Where both steps together would not give
// the statement's own types, the rows themselves are gathered.
func (g *gathering) resolve(ctx context.Context, whole *described) error {
	key := told("steps", g.types)
	s, ok := g.t.Aux.Load(key)
	if !ok {
		two, err := g.h.steps(ctx, g.plan, g.types, whole)
		if err != nil {
			return err
		}
		s = two
		g.t.Aux.Store(key, s)
	}
	two := s.(*twoSteps)
	if two.final == "" {
		g.plan = g.plan.Else
		return nil
	}
	g.shard, g.sql = two.shard, two.final
	return nil
}

// steps asks home about both texts, and runs neither.
func (h *Handler) steps(ctx context.Context, plan *router.Gather, types []uint32, whole *described) (*twoSteps, error) {
	l := &plan.Loads[0]
	part, err := h.describeText(ctx, l.SQL, types)
	if err != nil {
		return nil, err
	}
	two := &twoSteps{shard: part.fields, final: finalText(plan, part.fields)}
	if two.final == "" {
		return two, nil
	}
	both, err := h.describeText(ctx, strings.Replace(two.final, "pg_temp."+l.Name, "("+l.SQL+")", 1), types)
	if err != nil {
		return nil, err
	}
	if !slices.EqualFunc(both.fields, whole.fields, func(a, b wire.Field) bool { return a.DataTypeOID == b.DataTypeOID }) {
		two.final = ""
	}
	return two, nil
}

// finalText puts the combinations in. It is empty where a type has none.
func finalText(plan *router.Gather, fields []wire.Field) string {
	oids := map[string]uint32{}
	for _, f := range fields {
		oids[string(f.Name)] = f.DataTypeOID
	}
	ok := true
	out := combination.ReplaceAllStringFunc(plan.SQL, func(call string) string {
		m := combination.FindStringSubmatch(call)
		sum := "pg_catalog.sum(pgmosaic." + m[2] + ")"
		switch oid := oids[m[2]]; {
		case m[1] == "count":
			return "COALESCE(" + sum + ", 0)::pg_catalog.int8"
		case m[1] == "sum" && oid == merge.Int8: // of a narrower type: the sum of sums is wider
			return "(" + sum + ")::pg_catalog.int8"
		case m[1] == "sum":
			return sum
		case oid == merge.Int8, oid == merge.Numeric:
			return "(" + sum + "::pg_catalog.numeric / pg_catalog.sum(pgmosaic." + m[3] + ")::pg_catalog.numeric)"
		case oid == merge.Float8, oid == interval:
			return "(" + sum + " / pg_catalog.sum(pgmosaic." + m[3] + ")::pg_catalog.float8)"
		}
		ok = false
		return call
	})
	if !ok {
		return ""
	}
	return out
}

// partsTable makes the table for what the shards send, empty.
func (g *gathering) partsTable() error {
	l := &g.plan.Loads[0]
	s := g.on.srv
	s.SendParse("", "CREATE TEMPORARY TABLE "+l.Name+" ON COMMIT DROP AS "+l.SQL+" WITH NO DATA", g.types)
	s.SendBindParts("", g.args.Formats, g.args.Params, nil)
	s.SendExecute()
	s.SendSync()
	if err := s.Flush(); err != nil {
		return g.h.lost(g.on, err)
	}
	_, err := s.ReadTag()
	var se *pool.ServerError
	if errors.As(err, &se) {
		return g.refused(se)
	}
	if err != nil {
		return g.h.lost(g.on, err)
	}
	return nil
}
