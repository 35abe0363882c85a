package sqlparse

import (
	"fmt"

	pg "github.com/pganalyze/pg_query_go/v5"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"google.golang.org/protobuf/proto"
)

// TooDeepError is what Parse says of a statement that is nested too deep to be walked over.
type TooDeepError struct{}

func (*TooDeepError) Error() string { return "stack depth limit exceeded" }

// SQLState is the error's SQLSTATE.
func (*TooDeepError) SQLState() string { return pgsql.StatementTooComplex }

// ErrorDetail says what is too deep.
func (*TooDeepError) ErrorDetail() string {
	return "The statement's expressions stand deeper in one another than pgmosaic's parser goes."
}

// ErrorHint says how to succeed.
func (*TooDeepError) ErrorHint() string {
	return "Nest less: pass a long list as an array, and split a long chain of operators, joins or set operations."
}

// TooLargeError is what Parse says where there is no memory for a statement's tree.
type TooLargeError struct{}

func (*TooLargeError) Error() string { return "out of memory" }

// SQLState is the error's SQLSTATE.
func (*TooLargeError) SQLState() string { return pgsql.OutOfMemory }

// ErrorDetail says what the memory was wanted for.
func (*TooLargeError) ErrorDetail() string { return "There is none for the statement's parse tree." }

// parseTree reads a text as PostgreSQL does. The error is a *SyntaxError, a *TooDeepError or a *TooLargeError.
func parseTree(sql string) (*pg.ParseResult, error) {
	tree := &pg.ParseResult{}
	err := treeOf(sql, func(b []byte) error {
		if decode(b, tree) {
			return nil
		}
		err := proto.UnmarshalOptions{RecursionLimit: maxDepth}.Unmarshal(b, tree) // how deep it is, is bounded already
		if err != nil {
			return &SyntaxError{Message: err.Error()} // its encoding is wrong
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return tree, nil
}

// deparseTree writes a tree as SQL.
func deparseTree(root *pg.Node) (string, error) {
	b, err := proto.Marshal(&pg.ParseResult{Stmts: []*pg.RawStmt{{Stmt: root}}})
	if err != nil {
		return "", fmt.Errorf("rewrite: %w", err)
	}
	text, err := textOf(b)
	if err != nil {
		return "", fmt.Errorf("rewrite: %w", err)
	}
	return text, nil
}
