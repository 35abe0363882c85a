package exec

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/merge"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
)

// twoSteps is a plan with the types of its parts resolved: once for each plan.
type twoSteps struct {
	sent [][]wire.Field // of each load that is a part: what the shards send
	sql  string         // what runs on the copies; empty: the types do not allow it
}

// combination finds what stands for a combined count, sum or average in the final text of two steps.
var combination = regexp.MustCompile(`pgmosaic_(count|sum|avg)\(pgmosaic\.(\w+)(?:, pgmosaic\.(\w+))?\)`)

// noColumn are types that no column of a table can have, and output columns can: record, record[], void, cstring, cstring[].
var noColumn = map[uint32]bool{2249: true, 2287: true, 2278: true, 2275: true, 1263: true}

// interval is PostgreSQL's type of that name.
const interval = 1186

// resolve finds the types of what the shards send of each part, and with them the text that runs on the copies. Where the
// parts would not give the statement's own types, rows of tables are copied instead.
func (g *gathering) resolve(whole *described) error {
	for slices.ContainsFunc(g.plan.Loads, func(l router.Load) bool { return l.Part != nil }) {
		key := auxKey("steps of "+g.plan.SQL, g.types)
		s, ok := g.t.Aux.Load(key)
		if !ok {
			two, err := g.steps(whole)
			if err != nil {
				return err
			}
			s = two
			g.h.e.Planner.Learn(g.t, key, s)
		}
		two := s.(*twoSteps)
		if two.sql != "" && g.plan.No == nil {
			g.sent, g.sql = two.sent, two.sql
			return nil
		}
		g.plan = g.plan.Else
	}
	if g.plan.No != nil {
		return g.plan.No
	}
	g.sql = g.plan.SQL
	return nil
}

// steps asks the server of the copies about the texts, and runs none.
func (g *gathering) steps(whole *described) (*twoSteps, error) {
	two := &twoSteps{sql: g.plan.SQL, sent: make([][]wire.Field, len(g.plan.Loads))}
	inPlace := map[string]string{} // a copy to what it is made of
	for i := range g.plan.Loads {
		l := &g.plan.Loads[i]
		if l.Part == nil {
			inPlace[l.Name] = l.Table.SQL()
			continue
		}
		sent, err := g.describe(l.SQL)
		if sent == nil || slices.ContainsFunc(sent.fields, func(f wire.Field) bool { return noColumn[f.DataTypeOID] }) {
			return &twoSteps{}, err
		}
		two.sent[i], inPlace[l.Name] = sent.fields, "("+l.SQL+")"
		final := finalText(l.Part.Final, sent.fields)
		if final == "" {
			return &twoSteps{}, nil
		}
		names := ""
		if l.Part.Own != "" {
			own, err := g.describe(l.Part.Own)
			if own == nil {
				return &twoSteps{}, err
			}
			both, err := g.describe(strings.Replace(final, "pg_temp."+l.Name+" ", inPlace[l.Name]+" ", 1))
			if both == nil || !sameTypes(both, own) {
				return &twoSteps{}, err
			}
			list := make([]string, len(own.fields))
			for i, f := range own.fields {
				list[i] = string(f.Name)
			}
			names = " (" + pgsql.List(list) + ")"
		}
		two.sql = l.Stands(two.sql, final, names)
	}
	sql := two.sql
	for name, what := range inPlace {
		sql = strings.Replace(sql, "pg_temp."+name+" ", what+" ", -1)
	}
	both, err := g.describe(sql)
	if both == nil || !sameTypes(both, whole) {
		return &twoSteps{}, err
	}
	return two, nil
}

func sameTypes(a, b *described) bool {
	return slices.EqualFunc(a.fields, b.fields, func(a, b wire.Field) bool { return a.DataTypeOID == b.DataTypeOID })
}

// describe asks the server of the copies what rows a text gives; nil if it gives none there, for whatever reason.
func (g *gathering) describe(sql string) (*described, error) {
	s := g.on.Server
	s.SendParse("", sql, g.types)
	s.SendDescribe('S', "")
	s.SendSync()
	if err := s.Flush(); err != nil {
		return nil, g.h.lost(g.on, err)
	}
	d, err := g.h.readDescription(g.on, false)
	var se *pool.ServerError
	if !errors.As(err, &se) {
		return d, err
	}
	if err := g.exec("ROLLBACK"); err != nil {
		return nil, err
	}
	return nil, g.begin()
}

// finalText puts the combinations in. It is empty where a type has none.
func finalText(text string, fields []wire.Field) string {
	oids := map[string]uint32{}
	for _, f := range fields {
		oids[string(f.Name)] = f.DataTypeOID
	}
	ok := true
	out := combination.ReplaceAllStringFunc(text, func(call string) string {
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
		case oid == merge.Float8: // it begins with 0, and so is never -0
			return "((0::pg_catalog.float8 + " + sum + ") / pg_catalog.sum(pgmosaic." + m[3] + ")::pg_catalog.float8)"
		case oid == interval:
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

// partTable makes the table for what the shards send of a part, empty.
func (g *gathering) partTable(l *router.Load) error {
	s := g.on.Server
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
