//go:build !linux

package sqlparse

import (
	"errors"
	"strings"

	pgparser "github.com/pganalyze/pg_query_go/v5/parser"
)

// maxDepth bounds how deep a message is read: what is deeper was refused.
const maxDepth = 1 << 20

// maxNesting is how many words and operators a text may have between two commas. Without the large stacks and the exact
// measure of tree_linux.c that many could stand in one another.
const maxNesting = 1000

// treeOf gives a text's tree, as bytes, to read, which must keep nothing of them.
func treeOf(sql string, read func(tree []byte) error) error {
	l, n := lexer{s: []byte(sql)}, 0
	for t := l.next(); t.kind != tokEOF && t.kind != tokBad; t = l.next() {
		switch {
		case t.kind == tokSymbol && strings.IndexByte(",;", sql[t.start]) >= 0:
			n = 0
		case t.kind == tokSymbol || t.kind == tokWord:
			n++
		}
		if n > maxNesting {
			return &TooDeepError{}
		}
	}
	text := []byte(sql)
	if err := scannable(text); err != nil {
		return err
	}
	tree, err := pgparser.ParseToProtobuf(string(text))
	if err != nil {
		return syntaxError(err)
	}
	return read(tree)
}

// textOf writes a tree as SQL.
func textOf(tree []byte) (string, error) {
	text, err := pgparser.DeparseFromProtobuf(tree)
	if err != nil {
		return "", syntaxError(err)
	}
	return text, nil
}

func syntaxError(err error) error {
	var pe *pgparser.Error
	if errors.As(err, &pe) {
		return &SyntaxError{pe.Message, pe.Cursorpos}
	}
	return &SyntaxError{Message: err.Error()}
}
