package sqlparse

import (
	"errors"
	"fmt"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Copied writes the statement with relations replaced by temporary tables: names gives, for the place of a relation's
// name in the text (Rel.Loc), the table that stands in for it, or "" for one that stays. A relation at a place that
// names does not know is an error, so that none is forgotten. Their aliases stay what they were.
func (s *Statement) Copied(names map[int]string) (string, error) {
	raw, ok := s.tree.(*pg.Node)
	if !ok {
		return "", errors.New("rewrite: no statement")
	}
	root := proto.Clone(raw).(*pg.Node)
	var unknown error
	walk(root.ProtoReflect(), func(m protoreflect.Message) bool {
		switch x := m.Interface().(type) {
		case *pg.RangeVar:
			name, ok := names[int(x.Location)-s.base]
			if !ok {
				unknown = fmt.Errorf("rewrite: relation %q is in an unusual place", x.Relname)
				return false
			}
			if name == "" {
				return true
			}
			if x.Alias == nil {
				x.Alias = &pg.Alias{Aliasname: x.Relname}
			}
			x.Catalogname, x.Schemaname, x.Relname, x.Inh = "", "pg_temp", name, true
		case *pg.ColumnRef: // schema.table.column: the alias has no schema
			if n := len(x.Fields); n > 2 {
				x.Fields = x.Fields[n-2:]
			}
		}
		return true
	})
	if unknown != nil {
		return "", unknown
	}
	out, err := pg.Deparse(&pg.ParseResult{Stmts: []*pg.RawStmt{{Stmt: root}}})
	if err != nil {
		return "", fmt.Errorf("rewrite: %w", err)
	}
	return out, nil
}

// LoadSQL writes the SELECT of some columns of a table. The rows wanted are those that meet every condition of one of
// the lists; an empty list wants all. The conditions' columns must all be the table's own.
func LoadSQL(table TableRef, columns []string, wanted [][]Cond) (string, error) {
	quoted := make([]string, len(columns))
	for i, c := range columns {
		quoted[i] = quote(c)
	}
	base := "SELECT " + strings.Join(quoted, ", ") + " FROM " + quote(table.Schema) + "." + quote(table.Name)
	where := either(wanted)
	if where == nil {
		return base, nil
	}
	tree, err := pg.Parse("SELECT FROM t") // a node made by hand may lack what the deparser relies on
	if err != nil {
		return "", fmt.Errorf("rewrite: %w", err)
	}
	tree.Stmts[0].GetStmt().GetSelectStmt().WhereClause = where
	out, err := pg.Deparse(tree)
	if err != nil {
		return "", fmt.Errorf("rewrite: %w", err)
	}
	_, cond, ok := strings.Cut(out, " WHERE ")
	if !ok {
		return "", errors.New("rewrite: no condition")
	}
	return base + " WHERE " + cond, nil
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// either is the OR of ANDs, nil where everything is wanted.
func either(wanted [][]Cond) *pg.Node {
	var ors []*pg.Node
	for _, conds := range wanted {
		var ands []*pg.Node
		for _, c := range conds {
			ands = append(ands, unqualified(c.node.(*pg.Node)))
		}
		switch len(ands) {
		case 0:
			return nil
		case 1:
			ors = append(ors, ands[0])
		default:
			ors = append(ors, pg.MakeBoolExprNode(pg.BoolExprType_AND_EXPR, ands, -1))
		}
	}
	switch len(ors) {
	case 0:
		return nil
	case 1:
		return ors[0]
	}
	return pg.MakeBoolExprNode(pg.BoolExprType_OR_EXPR, ors, -1)
}

// unqualified is a copy of an expression whose columns are named without their relation.
func unqualified(n *pg.Node) *pg.Node {
	c := proto.Clone(n).(*pg.Node)
	walk(c.ProtoReflect(), func(m protoreflect.Message) bool {
		if ref, ok := m.Interface().(*pg.ColumnRef); ok && len(ref.Fields) > 1 {
			ref.Fields = ref.Fields[len(ref.Fields)-1:]
		}
		return true
	})
	return c
}
