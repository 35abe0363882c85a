package exec

import (
	"context"
	"fmt"
	"slices"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// evaluated is the text of a write of a reference table in which all that would have another value on each copy has been evaluated
// on home, in the client's transaction.
func (h *Handler) evaluated(ctx context.Context, p *router.Plan, text string, a *router.Args) (string, error) {
	if p.Fills == nil {
		return text, nil
	}
	refuse := func(why string) error {
		return router.Refuse(router.RuleReferenceWrite, p.Target.TableName.String()+" ("+why+")")
	}
	for i, v := range a.Params {
		if p.Fills.Times && sqlparse.MayBeMoment(string(v)) { // in binary too, a text may be cast
			return "", refuse(fmt.Sprintf("parameter $%d may be another time on each shard", i+1))
		}
	}
	if i, err := namedParam(ctx, h, p, a); err != nil {
		return "", err
	} else if i >= 0 {
		return "", router.Refuse(router.RuleNamesObject, fmt.Sprintf("parameter $%d", i+1))
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
	values, err := h.valuesOf(p, home, edits)
	if err != nil {
		return "", err
	}
	return sqlparse.Apply(text, edits, values), nil
}

// namedParam finds a parameter that is, in binary, the OID of an object of users', for a table that holds such; -1 for none.
func namedParam(ctx context.Context, h *Handler, p *router.Plan, a *router.Args) (int, error) {
	if !hasBinary(a.Formats) || !slices.ContainsFunc(p.Fills.Columns, func(c sqlparse.Fill) bool { return c.Named }) {
		return -1, nil
	}
	whole, err := h.wholeOf(ctx, p.Template, a.Types)
	if err != nil {
		return -1, err
	}
	for i, v := range a.Params {
		if i < len(whole.params) && namesObjects[whole.params[i]] && formatOf(a.Formats, i) == 1 && namesUsers(v) {
			return i, nil
		}
	}
	return -1, nil
}

// valuesOf has a server evaluate the expressions of edits, of a write of a reference table: each by itself, but those that have one value
// for the statement.
func (h *Handler) valuesOf(plan *router.Plan, p *participant, edits []sqlparse.Edit) (values []string, err error) {
	if err := h.ready(p); err != nil {
		return nil, err
	}
	asked := map[bool][]string{} // defaults, and what the statement itself says
	type place struct {
		dflt bool
		at   int
	}
	var places []place // of each value
	steady := map[sqlparse.Part]int{}
	for _, e := range edits {
		for _, part := range e.Parts {
			if part.Expr == "" {
				continue
			}
			at, known := steady[part]
			if !known {
				at = len(asked[part.Default])
				asked[part.Default] = append(asked[part.Default], part.Expr)
			}
			if part.Steady {
				steady[part] = at
			}
			places = append(places, place{part.Default, at})
		}
	}
	hold := &holding{h: h}
	defer hold.release()
	got := map[bool][]string{}
	for _, defaults := range []bool{true, false} {
		if got[defaults], err = h.evaluate(p, plan.Target.TableName, asked[defaults], defaults, hold); err != nil {
			return nil, err
		}
	}
	for _, pl := range places {
		values = append(values, got[pl.dflt][pl.at])
	}
	return values, nil
}

// asPrinted runs f on a server, in a transaction, under the search_path with which the schema's expressions are printed: under the
// client's a name in them might be another function's.
func (h *Handler) asPrinted(p *participant, f func() error) error {
	row, err := p.Server.Row(1, "SELECT pg_catalog.current_setting('search_path')")
	if err == nil {
		_, err = p.Server.Exec("SET LOCAL search_path = pg_catalog, pg_temp")
	}
	if err != nil {
		return h.lost(p, err)
	}
	if err := f(); err != nil {
		return err
	}
	if _, err := p.Server.Exec("SELECT pg_catalog.set_config('search_path', " + pgsql.Literal(string(row[0])) + ", true)"); err != nil {
		return h.lost(p, err)
	}
	return nil
}
