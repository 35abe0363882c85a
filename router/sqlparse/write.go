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
	text, err := deparseTree(root)
	if err != nil {
		return "", fmt.Errorf("rewrite: %w", err)
	}
	again, err := parseTree(text)
	if err != nil || len(again.Stmts) != 1 || !bytes.Equal(meaning(nil, root, true), meaning(nil, again.Stmts[0].Stmt, true)) {
		return "", errUnwritable
	}
	return text, nil
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
