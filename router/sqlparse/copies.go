package sqlparse

import (
	"errors"
	"fmt"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"google.golang.org/protobuf/proto"
)

// StandIn is what takes the place of a relation: a temporary table, the query of a view, or nothing.
type StandIn struct {
	Table  string
	View   *Statement
	Inside map[int]StandIn // of View
}

// Copied writes the statement with relations replaced: by gives, for the place of a relation's name in the text
// (Rel.Loc), what stands in for it. A relation at a place that by does not know is an error, so that none is forgotten.
// Their aliases stay what they were. For each SELECT that whole names stands SELECT * FROM that name.
func (s *Statement) Copied(by map[int]StandIn, whole map[*Query]string) (string, error) {
	root, err := s.copied(by, whole)
	if err != nil {
		return "", err
	}
	text, err := write(root)
	if err != nil || s.Kind == Select {
		return text, err
	}
	before, after, ok := s.wrap()
	if !ok {
		return "", errUnwritable
	}
	return before + " " + text + " " + after, nil
}

func (s *Statement) copied(by map[int]StandIn, whole map[*Query]string) (*pg.Node, error) {
	raw := s.inner()
	if raw.GetSelectStmt() == nil {
		return nil, errors.New("rewrite: no SELECT")
	}
	root := proto.Clone(raw).(*pg.Node)
	stubs, err := stubsIn(raw, root, whole)
	if err != nil {
		return nil, err
	}
	var failed error
	walk(root, func(m any) bool {
		switch x := m.(type) {
		case *pg.SelectStmt:
			if stub := stubs[x]; stub != nil {
				proto.Reset(x)
				proto.Merge(x, stub)
				return false
			}
		case *pg.Node:
			rv := x.GetRangeVar()
			if rv == nil {
				return failed == nil
			}
			in, ok := by[int(rv.Location)-s.base]
			if !ok {
				failed = fmt.Errorf("rewrite: relation %q is in an unusual place", rv.Relname)
				return false
			}
			if rv.Alias == nil && (in.Table != "" || in.View != nil) {
				rv.Alias = &pg.Alias{Aliasname: rv.Relname}
			}
			if in.View != nil {
				query, err := in.View.copied(in.Inside, nil)
				if err != nil {
					failed = err
					return false
				}
				x.Node = &pg.Node_RangeSubselect{RangeSubselect: &pg.RangeSubselect{Subquery: query, Alias: rv.Alias}}
				return false
			}
			if in.Table != "" {
				rv.Catalogname, rv.Schemaname, rv.Relname, rv.Inh = "", "pg_temp", in.Table, true
			}
		case *pg.IntoClause:
			failed = errors.New("rewrite: INTO")
			return false
		case *pg.ColumnRef: // schema.table.column: the alias has no schema
			if n := len(x.Fields); n > 2 {
				x.Fields = x.Fields[n-2:]
			}
		}
		return true
	})
	return root, failed
}

// stubsIn finds in a clone of a tree the SELECTs that are replaced as a whole, with what replaces them.
func stubsIn(raw, clone *pg.Node, whole map[*Query]string) (map[*pg.SelectStmt]*pg.SelectStmt, error) {
	stubs := map[*pg.SelectStmt]*pg.SelectStmt{}
	for q, name := range whole {
		tree, err := parseTree("SELECT * FROM " + name)
		if err != nil {
			return nil, fmt.Errorf("rewrite: %w", err)
		}
		stubs[q.tree] = tree.Stmts[0].GetStmt().GetSelectStmt()
	}
	out := map[*pg.SelectStmt]*pg.SelectStmt{}
	if len(stubs) > 0 {
		copies := selects(clone)
		for i, x := range selects(raw) {
			if stubs[x] != nil {
				out[copies[i]] = stubs[x]
			}
		}
	}
	return out, nil
}

// selects are the SELECTs of a tree, in an order that is its clones', too.
func selects(n *pg.Node) (out []*pg.SelectStmt) {
	walk(n, func(m any) bool {
		if x, ok := m.(*pg.SelectStmt); ok {
			out = append(out, x)
		}
		return true
	})
	return out
}

// Explains is the statement inside EXPLAIN.
func (s *Statement) Explains() (*Statement, error) {
	before, _, ok := s.wrap()
	if !ok || s.Params > 0 {
		return nil, errors.New("rewrite: no plain EXPLAIN")
	}
	stmts, err := Parse(s.Text[len(before):])
	if err != nil || len(stmts) != 1 {
		return nil, errors.New("rewrite: the text does not parse")
	}
	return stmts[0], nil
}

// ExplainFormat is the FORMAT of an EXPLAIN; empty where it says none.
func (s *Statement) ExplainFormat() (format string) {
	tree, err := parseTree(s.Text)
	if err != nil || len(tree.Stmts) != 1 {
		return ""
	}
	for _, o := range tree.Stmts[0].Stmt.GetExplainStmt().GetOptions() {
		if d := o.GetDefElem(); d.GetDefname() == "format" { // the last one counts
			format = d.GetArg().GetString_().GetSval()
		}
	}
	return format
}

// Explaining is the EXPLAIN with its options, of another statement. ok is false where its output is no plain text.
func (s *Statement) Explaining(sql string) (text string, ok bool) {
	before, _, found := s.wrap()
	format := s.ExplainFormat()
	return before + " " + sql, found && (format == "" || format == "text")
}

// LoadSQL writes the SELECT of some columns of a table. The rows wanted are those that meet every condition of one of
// the lists; an empty list wants all. The conditions' columns must all be the table's own.
func LoadSQL(table TableRef, columns []string, wanted [][]Cond) (string, error) {
	base := "SELECT " + pgsql.List(columns) + " FROM " + table.SQL()
	where := either(wanted)
	if where == nil {
		return base, nil
	}
	tree, err := parseTree("SELECT FROM t") // a node made by hand may lack what the deparser relies on
	if err != nil {
		return "", fmt.Errorf("rewrite: %w", err)
	}
	tree.Stmts[0].GetStmt().GetSelectStmt().WhereClause = where
	out, err := write(tree.Stmts[0].Stmt)
	if err != nil {
		return "", err
	}
	_, cond, ok := strings.Cut(out, " WHERE ")
	if !ok {
		return "", errors.New("rewrite: no condition")
	}
	return base + " WHERE " + cond, nil
}

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
			if or := ands[0].GetBoolExpr(); or != nil && or.Boolop == pg.BoolExprType_OR_EXPR { // flat, as the parser has it
				ors = append(ors, or.Args...)
			} else {
				ors = append(ors, ands[0])
			}
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
	walk(c, func(m any) bool {
		if ref, ok := m.(*pg.ColumnRef); ok && len(ref.Fields) > 1 {
			ref.Fields = ref.Fields[len(ref.Fields)-1:]
		}
		return true
	})
	return c
}
