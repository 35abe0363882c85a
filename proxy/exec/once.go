package exec

import (
	"fmt"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// onceBatch is how many expressions one statement evaluates.
const onceBatch = 400

// evaluated is the text of a write of a reference table in which all that would have another value on each copy has been evaluated
// on home, in the client's transaction.
func (h *Handler) evaluated(p *router.Plan, text string, a *router.Args) (string, error) {
	if p.Fills == nil {
		return text, nil
	}
	refuse := func(why string) error {
		return router.Refuse("reference-write", p.Target.TableName.String()+" ("+why+")")
	}
	for i, v := range a.Params {
		binary := len(a.Formats) == 1 && a.Formats[0] == 1 || i < len(a.Formats) && a.Formats[i] == 1
		if !binary && p.Fills.Times && sqlparse.IsMoment(string(v)) {
			return "", refuse(fmt.Sprintf("parameter $%d may be another time on each shard", i+1))
		}
	}
	stmts, err := sqlparse.Parse(text) // the plan's own statement may have other literals
	if err != nil {
		return "", err
	}
	edits, why := stmts[0].Once(p.Fills)
	if why != "" {
		return "", refuse(why)
	}
	if len(edits) == 0 {
		return text, nil
	}
	home, err := h.partOnHome()
	if err != nil {
		return "", err
	}
	values, err := h.valuesOf(home, edits)
	if err != nil {
		return "", err
	}
	return sqlparse.Apply(text, edits, values), nil
}

// valuesOf has a server evaluate the expressions of edits: each by itself, but those that have one value for the statement.
func (h *Handler) valuesOf(p *participant, edits []sqlparse.Edit) (values []string, err error) {
	if err := h.ready(p); err != nil {
		return nil, err
	}
	var asked []string
	var which []int // of each value: the expression
	steady := map[string]int{}
	for _, e := range edits {
		for _, part := range e.Parts {
			if part.Expr == "" {
				continue
			}
			at, known := steady[part.Expr]
			if !known || !part.Steady {
				at = len(asked)
				asked = append(asked, part.Expr)
			}
			if part.Steady {
				steady[part.Expr] = at
			}
			which = append(which, at)
		}
	}
	var got []string
	for len(asked) > 0 {
		some := asked[:min(len(asked), onceBatch)]
		asked = asked[len(some):]
		list := make([]string, len(some))
		for i, expr := range some { // OFFSET keeps the expression from being evaluated twice
			list[i] = fmt.Sprintf("SELECT %d AS n, pg_catalog.format_type(pg_catalog.pg_typeof(v), NULL), v::pg_catalog.text FROM (SELECT (%s\n) AS v OFFSET 0) AS once", i, expr)
		}
		rows, err := p.srv.Rows(strings.Join(list, " UNION ALL ") + " ORDER BY n")
		if err != nil {
			return nil, h.lost(p, err)
		}
		if len(rows) != len(some) {
			return nil, fmt.Errorf("exec: %d of %d expressions have a value", len(rows), len(some))
		}
		for _, r := range rows {
			v := "NULL"
			if r[2] != nil {
				v = pgsql.Literal(string(r[2]))
			}
			got = append(got, "CAST("+v+" AS "+string(r[1])+")")
		}
	}
	for _, at := range which {
		values = append(values, got[at])
	}
	return values, nil
}
