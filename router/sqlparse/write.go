package sqlparse

import (
	"bytes"
	"errors"
	"fmt"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// errUnwritable means that a tree cannot be written as SQL that means the same.
var errUnwritable = errors.New("rewrite: the statement cannot be written back as SQL")

// write writes a tree as SQL, and reads it again: what the library writes of rare grammar is not always what was meant.
func write(root *pg.Node) (string, error) {
	writable(root)
	text, err := deparseTree(root)
	if err != nil {
		return "", fmt.Errorf("rewrite: %w", err)
	}
	reparsed, err := parseTree(text)
	if err != nil || len(reparsed.Stmts) != 1 || !bytes.Equal(meaning(nil, root, true), meaning(nil, reparsed.Stmts[0].Stmt, true)) {
		return "", errUnwritable
	}
	return text, nil
}

// writable has NULLIF in FROM, which the library cannot write there, stand in a COALESCE of its own: that is the same, under the name that the
// item has without an alias. Of several functions in one ROWS FROM each names a column: those stay as they are.
func writable(root *pg.Node) {
	walk(root, func(m any) bool {
		f, ok := m.(*pg.RangeFunction)
		if !ok || len(f.Functions) != 1 {
			return true
		}
		items := f.Functions[0].GetList().GetItems()
		if len(items) == 0 || items[0].GetAExpr().GetKind() != pg.A_Expr_Kind_AEXPR_NULLIF {
			return true
		}
		if f.Alias == nil {
			f.Alias = &pg.Alias{Aliasname: functionName(items[0])}
		}
		items[0] = &pg.Node{Node: &pg.Node_CoalesceExpr{CoalesceExpr: &pg.CoalesceExpr{Args: []*pg.Node{items[0]}}}}
		return true
	})
}

// WithPassword writes a CREATE or ALTER ROLE with another password.
func (s *Statement) WithPassword(password string) (string, error) {
	tree, err := parseTree(s.Text)
	if err != nil || len(tree.Stmts) != 1 {
		return "", errUnwritable
	}
	root := tree.Stmts[0].Stmt
	p := passwordOf(append(root.GetCreateRoleStmt().GetOptions(), root.GetAlterRoleStmt().GetOptions()...))
	if p == nil {
		return "", errUnwritable
	}
	p.Sval = password
	return write(root)
}
