package sqlparse

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// RowUse is a place where it may matter of what type a row is.
type RowUse struct {
	Func  string   // a function or operator that is called with it; empty for none
	Attr  bool     // it is called as an attribute
	Types []string // types that it is made, or stands beside values of
	Names []string // what may be the rows: bare names, and t of t.*
}

// RowUses are those of the SELECT that a statement has, and the output columns that may be rows, with what they may be.
func (s *Statement) RowUses() (uses []RowUse, named map[string][]string) {
	named = map[string][]string{}
	root := s.inner()
	if root == nil {
		return nil, named
	}
	walk(root, func(m any) bool {
		var use RowUse
		switch x := m.(type) {
		case *pg.ResTarget:
			if names := rowNames(x.Val); x.Name != "" && len(names) > 0 {
				named[x.Name] = append(named[x.Name], names...)
			}
		case *pg.FuncCall:
			use = RowUse{Func: lastName(x.Funcname), Names: rowNames(slices.Concat(x.Args, x.AggOrder)...)}
		case *pg.A_Expr:
			use = RowUse{Func: lastName(x.Name), Names: rowNames(x.Lexpr, x.Rexpr)}
		case *pg.TypeCast:
			use = RowUse{Types: []string{lastName(x.TypeName.GetNames())}, Names: rowNames(x.Arg)}
		case *pg.CoalesceExpr:
			use = RowUse{Types: typesIn(x.Args), Names: rowNames(x.Args...)}
		case *pg.CaseExpr:
			use = RowUse{Types: typesIn(append(slices.Clip(x.Args), x.Defresult)), Names: rowNames(append(slices.Clip(x.Args), x.Defresult)...)}
		case *pg.A_ArrayExpr:
			use = RowUse{Types: typesIn(x.Elements), Names: rowNames(x.Elements...)}
		case *pg.ColumnRef:
			if name := lastName(x.Fields); len(x.Fields) == 2 && name != "" {
				use = RowUse{Func: name, Attr: true, Names: []string{x.Fields[0].GetString_().GetSval()}}
			}
		case *pg.A_Indirection:
			for _, f := range x.Indirection {
				if name := f.GetString_().GetSval(); name != "" {
					uses = append(uses, RowUse{Func: name, Attr: true, Names: rowNames(x.Arg)})
				}
			}
		}
		if len(use.Names) > 0 {
			uses = append(uses, use)
		}
		return true
	})
	return uses, named
}

// Schemed are the tables by whose schemas columns of the SELECT are named: schema.table.column.
func (s *Statement) Schemed() (out []TableRef) {
	if root := s.inner(); root != nil {
		walk(root, func(m any) bool {
			if x, ok := m.(*pg.ColumnRef); ok && len(x.Fields) > 2 {
				n := len(x.Fields)
				out = append(out, TableRef{x.Fields[n-3].GetString_().GetSval(), x.Fields[n-2].GetString_().GetSval()})
			}
			return true
		})
	}
	return out
}

// passesRows are PostgreSQL's own functions that give what they are given, or an array or set of it.
var passesRows = map[string]bool{
	"array_agg": true, "array_append": true, "array_prepend": true, "array_cat": true, "array_remove": true, "array_fill": true, "unnest": true, "any_value": true, "min": true, "max": true,
	"lag": true, "lead": true, "first_value": true, "last_value": true, "nth_value": true, "mode": true, "percentile_disc": true,
}

// rowNames are the names in expressions whose rows may be their values.
func rowNames(nodes ...*pg.Node) (names []string) {
	for _, n := range nodes {
		if n == nil {
			continue
		}
		walk(n, func(m any) bool {
			switch x := m.(type) {
			case *pg.FuncCall:
				return passesRows[strings.ToLower(lastName(x.Funcname))]
			case *pg.A_Expr, *pg.BoolExpr, *pg.NullTest, *pg.TypeCast, *pg.A_Indirection:
				return false
			case *pg.ColumnRef:
				if n := len(x.Fields); n == 1 || n == 2 && x.Fields[1].GetAStar() != nil {
					if name := x.Fields[0].GetString_().GetSval(); name != "" {
						names = append(names, name)
					}
				}
			}
			return true
		})
	}
	return names
}

// typesIn are the types that stand in expressions.
func typesIn(nodes []*pg.Node) (types []string) {
	for _, n := range nodes {
		if n == nil {
			continue
		}
		walk(n, func(m any) bool {
			if t, ok := m.(*pg.TypeName); ok {
				types = withName(types, t.Names)
			}
			return true
		})
	}
	return types
}
