package main

import (
	"go/ast"
	"go/token"
	"testing"
)

// readers are the places that look whether a message is ReadyForQuery, with the reason why each does so for itself. Whoever wants an answer reads it with pool.Answer.
var readers = map[string]string{
	"proxy/pool/answer.go Next":       "it is how answers are read",
	"proxy/pool/server.go Next":       "it counts what is owed, whoever reads",
	"proxy/pool/dial.go login":        "nothing was asked, and what comes before it is no answer: authentication, keys",
	"proxy/exec/relay.go relay":       "it passes messages on by their header, unread and in runs: Answer holds each whole",
	"proxy/wire/check.go CheckServer": "it says what its form is",
}

// An answer is read up to ReadyForQuery in one way, so that nothing of it is forgotten: the state of the transaction, parameters, the first error, and that it is read to
// its end.
func TestOnlyOneLoopReadsAnswers(t *testing.T) {
	t.Parallel()
	found := map[string]bool{}
	sources(t, func(path string, set *token.FileSet, f *ast.File) {
		for _, d := range f.Decls {
			name := path
			if fn, ok := d.(*ast.FuncDecl); ok {
				name += " " + fn.Name.Name
			}
			ready := func(x ast.Expr) {
				if l, ok := x.(*ast.BasicLit); !ok || l.Kind != token.CHAR || l.Value != "'Z'" {
					return
				}
				found[name] = true
				if readers[name] == "" {
					t.Errorf("%s: %s looks for ReadyForQuery itself: read with pool.Answer", set.Position(x.Pos()), name)
				}
			}
			ast.Inspect(d, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CaseClause:
					for _, x := range n.List {
						ready(x)
					}
				case *ast.BinaryExpr:
					if n.Op == token.EQL || n.Op == token.NEQ {
						ready(n.X)
						ready(n.Y)
					}
				}
				return true
			})
		}
	})
	for name := range readers {
		if !found[name] {
			t.Errorf("%s does not look for it: take it from the list", name)
		}
	}
}
