package exec

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// Rows that were made on home travel in binary, which no setting changes. What in binary is not the whole value, or hangs on the server,
// is dealt with here: xml loses its declaration, and what names an object of a user's is another number on each shard.

// movedTable makes the table of the rows that will be moved, for the columns that are given and for those whose defaults would
// give another value on each copy: here they give one. In a transaction that has begun, what has one value for it has that.
func (g *gathering) movedTable(ctx context.Context, p *router.Plan, given []string) (columns []string, err error) {
	columns = slices.Clone(given)
	var left []sqlparse.Fill
	if p.Fills != nil {
		left = p.Fills.Left(given)
	}
	for _, c := range left {
		if c.Default == "" {
			return nil, router.Refuse(router.RuleReferenceWrite, p.Target.TableName.String()+" (column "+c.Name+" draws from a sequence of each shard's own)")
		}
		columns = append(columns, c.Name)
	}
	if err := g.exec("CREATE TEMPORARY TABLE " + movedTable[len("pg_temp."):] + " ON COMMIT DROP AS SELECT " + pgsql.List(columns) + " FROM " + p.Target.SQL() + " WITH NO DATA"); err != nil {
		return nil, err
	}
	if len(left) == 0 {
		return columns, nil
	}
	values, err := g.oneValued(ctx, p, left)
	if err != nil {
		return nil, err
	}
	var defaults []string
	for _, c := range left {
		dflt := c.Default
		if c.Varies == sqlparse.Steady && len(values) > 0 {
			dflt, values = values[0], values[1:]
		}
		defaults = append(defaults, "ALTER COLUMN "+pgsql.Ident(c.Name)+" SET DEFAULT "+dflt)
	}
	return columns, g.h.asPrinted(g.on, func() error { return g.exec("ALTER TABLE " + movedTable + " " + strings.Join(defaults, ", ")) })
}

// oneValued are the values of the defaults that have one for the statement, as home has them in the client's transaction; none where that
// begins with the statement.
func (g *gathering) oneValued(ctx context.Context, p *router.Plan, left []sqlparse.Fill) ([]string, error) {
	var e sqlparse.Edit
	for _, c := range left {
		if c.Varies == sqlparse.Steady {
			e.Parts = append(e.Parts, sqlparse.Part{Expr: c.Default, Steady: true, Default: true})
		}
	}
	if g.h.tx.Idle() || len(e.Parts) == 0 {
		return nil, nil
	}
	home, err := g.h.join(ctx, g.h.planner.DB.Home.Index, p.Template)
	if err != nil {
		return nil, err
	}
	return g.h.valuesOf(p, home, []sqlparse.Edit{e})
}

// movedTypes are the types of the rows that were made. Values that hold OIDs which differ on a shard are refused.
func (g *gathering) movedTypes(p *router.Plan, names []string) ([]uint32, error) {
	refuse := func(what string) error {
		if p.Ref {
			return router.Refuse(router.RuleReferenceWrite, p.Target.TableName.String()+" (it has columns of "+what+", whose rows cannot be made once: give them in VALUES)")
		}
		return router.Refuse(router.RuleInsertSelect, p.Target.TableName.String()+" (it has columns of "+what+", whose rows cannot be made on home: give them in VALUES)")
	}
	fields := make([]wire.Field, len(names))
	types := make([]uint32, len(names))
	for i, n := range names {
		if c, _ := p.Schema.Tables[p.Target.TableName].Column(n); c != nil {
			fields[i].DataTypeOID, types[i] = c.TypeOID, c.TypeOID
		}
	}
	for _, shard := range p.Shards {
		if deepOf(g.h.typesOf(shard), fields, func(int) int16 { return 1 }) != nil {
			return nil, refuse("composite or array types of users'")
		}
	}
	roots, err := g.roots(types)
	if err != nil {
		return nil, err
	}
	g.taken = make([]takenAs, len(names))
	for i, n := range names {
		g.taken[i] = takenAs{name: n, xml: roots[i] == xmlOID, named: namesObjects[roots[i]]}
		if what := inArrays[roots[i]]; what != "" {
			return nil, refuse("type " + what)
		}
	}
	return types, nil
}

// roots are types without the domains that are made of them.
func (g *gathering) roots(types []uint32) ([]uint32, error) {
	out := slices.Clone(types)
	for i, t := range types {
		if !schema.IsUser(t) {
			continue
		}
		row, err := g.on.Server.Row(1, fmt.Sprintf(`WITH RECURSIVE r (oid, typ, base) AS (SELECT t.oid, t.typtype, t.typbasetype FROM pg_catalog.pg_type t WHERE t.oid OPERATOR(pg_catalog.=) %d
 UNION ALL SELECT t.oid, t.typtype, t.typbasetype FROM r JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) r.base) SELECT oid FROM r WHERE typ OPERATOR(pg_catalog.<>) 'd'`, t))
		if err != nil {
			return nil, g.h.lost(g.on, err)
		}
		oid, err := strconv.ParseUint(string(row[0]), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("exec: the OID of a type: %w", err)
		}
		out[i] = uint32(oid)
	}
	return out, nil
}

// namesObjects are the types, by OID, whose values are OIDs of what has a name: regproc, regprocedure, regoper, regoperator, regclass, regtype,
// regrole, regnamespace, regconfig, regdictionary, regcollation.
var namesObjects = map[uint32]bool{24: true, 2202: true, 2203: true, 2204: true, 2205: true, 2206: true, 4096: true, 4089: true, 3734: true, 3769: true, 4191: true}

// inArrays are the arrays of these, and of xml.
var inArrays = map[uint32]string{
	143: "xml[]", 1008: "regproc[]", 2207: "regprocedure[]", 2208: "regoper[]", 2209: "regoperator[]", 2210: "regclass[]", 2211: "regtype[]", 4097: "regrole[]", 4090: "regnamespace[]",
	3735: "regconfig[]", 3770: "regdictionary[]", 4192: "regcollation[]",
}

// namesUsers says whether a value of these, in binary, is an object that PostgreSQL has not come with.
func namesUsers(v []byte) bool { return len(v) == 4 && schema.IsUser(binary.BigEndian.Uint32(v)) }

// namedInBinary refuses a binary COPY of what names objects: the client's numbers are home's.
func namedInBinary(p *router.Plan) error {
	if p.Stmt.Copy.Options["format"] != "binary" {
		return nil
	}
	for _, n := range p.Names {
		if c, _ := p.Schema.Tables[p.Target.TableName].Column(n); c != nil && (namesObjects[c.TypeOID] || strings.HasPrefix(inArrays[c.TypeOID], "reg")) {
			return router.Refuse(router.RuleNamesObject, "column "+n)
		}
	}
	return nil
}

// takenAs is how a column of the rows that were made is read.
type takenAs struct {
	name  string
	xml   bool // as text: so it is whole, and read as xml it is the same
	named bool // it holds OIDs of what has a name
}

// list is by what the rows that were made are read.
func (g *gathering) list() string {
	if g.taken == nil {
		return "*"
	}
	out := make([]string, len(g.taken))
	for i, c := range g.taken {
		out[i] = pgsql.Ident(c.name)
		if c.xml {
			out[i] += "::pg_catalog.text"
		}
	}
	return strings.Join(out, ", ")
}

// each calls f with every row that was made, in binary. The first error is returned when all are read.
func (g *gathering) each(f func(row []byte) error) error {
	s := g.on.Server
	s.SendParse("", "SELECT "+g.list()+" FROM "+movedTable, nil)
	s.SendBindParts("", nil, nil, binaryAll)
	s.SendExecute()
	s.SendSync()
	if err := s.Flush(); err != nil {
		return g.h.lost(g.on, err)
	}
	names := slices.ContainsFunc(g.taken, func(c takenAs) bool { return c.named })
	var vals [][]byte
	_, err := g.h.read(g.on, func(m wire.Message) (err error) {
		if m.Type != 'D' {
			return nil
		}
		if names {
			if vals, err = wire.RowValues(vals, m.Body()); err != nil {
				return err
			}
			for i, v := range vals {
				if i < len(g.taken) && g.taken[i].named && namesUsers(v) {
					return router.Refuse(router.RuleNamesObject, "column "+g.taken[i].name)
				}
			}
		}
		return f(m.Body())
	})
	return err
}
