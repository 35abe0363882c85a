package exec

import (
	"errors"
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// evaluated is the text of a write of a reference table in which all that would have another value on each copy has been evaluated
// on home, in the client's transaction.
func (h *Handler) evaluated(p *router.Plan, text string, a *router.Args) (string, error) {
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
	var inexact inexactError
	switch {
	case errors.As(err, &inexact):
		return "", refuse(inexact.Error())
	case err != nil:
		return "", err
	}
	return sqlparse.Apply(text, edits, values), nil
}

// valuesOf has a server evaluate the expressions of edits: each by itself, but those that have one value for the statement.
func (h *Handler) valuesOf(p *participant, edits []sqlparse.Edit) ([]string, error) {
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
	got := map[bool][]string{}
	if len(asked[true]) > 0 {
		if err := h.asWritten(p, func(path string) (err error) {
			got[true], err = h.evaluate(p, asked[true], &path)
			return err
		}); err != nil {
			return nil, err
		}
	}
	var err error
	if got[false], err = h.evaluate(p, asked[false], nil); err != nil {
		return nil, err
	}
	values := make([]string, len(places))
	for i, pl := range places {
		values[i] = got[pl.dflt][pl.at]
	}
	return values, nil
}

// asPrinted runs f on a server, in a transaction, under the search_path with which the schema's expressions are printed: under the
// client's a name in them might be another function's.
func (h *Handler) asPrinted(p *participant, f func() error) error {
	row, err := p.srv.Row(1, "SELECT pg_catalog.current_setting('search_path')")
	if err == nil {
		_, err = p.srv.Exec("SET LOCAL search_path = pg_catalog, pg_temp")
	}
	if err != nil {
		return h.lost(p, err)
	}
	if err := f(); err != nil {
		return err
	}
	if _, err := p.srv.Exec("SELECT pg_catalog.set_config('search_path', " + pgsql.Literal(string(row[0])) + ", true)"); err != nil {
		return h.lost(p, err)
	}
	return nil
}
