package router

import (
	"fmt"
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// constants are the values that a column of VALUES, or of a SELECT of constants, in FROM can have: one for each row. Nil for
// another column. A bare string is text there, whatever it is compared with, and so is a bare parameter of no declared type:
// with a key of another type the statement is a mistake that any server can tell.
func (b *block) constants(q *sqlparse.Query, c sqlparse.Col) []sqlparse.Value {
	var found []sqlparse.Value
	rels := seen(q, c.In).Rels
	for _, r := range rels {
		if c.Qual != "" && c.Qual != r.Name() {
			continue
		}
		vals, known := constantsOf(r, c.Name)
		switch {
		case vals != nil && found == nil:
			found = vals
		case vals != nil || !known && c.Qual == "" && r.Kind != sqlparse.RelTable: // perhaps another's column
			return nil
		}
	}
	if c.Qual == "" && slices.ContainsFunc(rels, func(r *sqlparse.Rel) bool {
		t := b.a.tableOf(r)
		return r.Kind == sqlparse.RelTable && (t == nil || hasColumn(t, c.Name))
	}) {
		return nil
	}
	return found
}

func constantsOf(r *sqlparse.Rel, name string) (vals []sqlparse.Value, known bool) {
	switch {
	case r.Kind == sqlparse.RelValues && r.Sub != nil:
		at := slices.Index(r.Cols, name)
		if at < 0 {
			for i := len(r.Cols); i < len(r.Sub.Rows[0]); i++ {
				if name == fmt.Sprintf("column%d", i+1) {
					at = i
				}
			}
		}
		if at < 0 || len(r.Sub.CTEs) > 0 {
			return nil, true
		}
		for _, row := range r.Sub.Rows {
			if at >= len(row) || !standsAlone(row[at]) {
				return nil, true
			}
			vals = append(vals, row[at])
		}
		return vals, true
	case r.Kind == sqlparse.RelQuery && r.Sub != nil && isFlat(r.Sub) && len(r.Sub.Rels) == 0:
		for _, t := range r.Sub.Targets {
			if t.Name == name && standsAlone(t.Expr.Val) {
				return []sqlparse.Value{t.Expr.Val}, true
			}
		}
		return nil, true
	}
	return nil, false
}

// standsAlone says whether a value has a type of its own, or that of text.
func standsAlone(v sqlparse.Value) bool {
	switch v.Kind {
	case sqlparse.ValOther, sqlparse.ValDefault, sqlparse.ValNull:
		return false
	case sqlparse.ValInt, sqlparse.ValNumber, sqlparse.ValString, sqlparse.ValBool, sqlparse.ValParam:
	}
	return true
}

// constant turns an equality with a column of constants into one with these.
func (b *block) constant(q *sqlparse.Query, f sqlparse.Fact) sqlparse.Fact {
	if !f.R.IsCol || f.In != nil {
		return f
	}
	for _, side := range [2][2]sqlparse.Col{{f.L, f.R.Col}, {f.R.Col, f.L}} {
		vals := b.constants(q, side[1])
		if vals == nil {
			continue
		}
		_, col, ok := b.resolve(q, side[0])
		if !ok {
			continue
		}
		text := col.TypeOID == 25 || col.TypeOID == 1043
		if col.TypeOID == 1042 || !text && slices.ContainsFunc(vals, func(v sqlparse.Value) bool { return v.Kind == sqlparse.ValString && v.Cast == "" }) {
			continue
		}
		return sqlparse.Fact{L: side[0], In: vals, Into: f.Into}
	}
	return f
}
