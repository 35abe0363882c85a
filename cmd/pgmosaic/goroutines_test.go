package main

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// uncaughtBy are the functions that start what does more than wait outside of proxy/panics, and why that ends no process that serves.
var uncaughtBy = map[string]string{
	"proxy/exec/planner/schemas.go typesOf": "typesOfOne catches what it does",
	"proxy/loop/loop_linux.go":              "the loops and their guard: what a loop runs is a task, which catches, and nobody could go on with one that is broken",
	"proxy/loop/loop_linux.go guard":        "a loop, in the place of one whose task blocks",
	"proxy/loop/side_linux.go setDeadline":  "it wakes who waits",
	"proxy/wire/duplex.go Watch":            "it asks the socket, and catches what it calls",
	"proxy/loop/task.go run":                "the coroutine catches what it runs",
	"proxy/loop/watched.go caught":          "in a build for tests alone, where it is to end the process",
	"proxy/server.go accept":                "Session.Run catches all that it does",
}

// servesNobody are the packages whose goroutines run in no process that serves, with the reason.
var servesNobody = map[string]string{
	"cmd/benchmark":       "a client",
	"proxy/demo":          "it loads the shop, before anybody is served",
	"replication/cluster": "local servers, of demos and tests",
	"shardmap/storetest":  "a test of stores",
}

// harmless are calls that do not panic where they are right, and that goroutines make around what they catch.
var harmless = []string{
	"append", "close", "len", "make", "max", "min",
	"Add", "Background", "CompareAndSwap", "Done", "Err", "Is", "Load", "Lock", "Now", "Store", "Swap", "Unlock", "WithTimeout",
	"Close", "CloseWithError", "SetReadDeadline", "SetWriteDeadline", "Error", "Info", "Warn",
	"cancel", "halt", "stop",
}

// Whatever runs by itself catches its panics: every goroutine, what a WaitGroup runs, and what is called when a time or a context has ended. One that does not ends
// the process, and with it all sessions.
func TestWhateverRunsByItselfCatchesItsPanics(t *testing.T) {
	t.Parallel()
	started, used := 0, map[string]bool{}
	sources(t, func(file string, set *token.FileSet, f *ast.File) {
		if dir := path.Dir(file); servesNobody[dir] != "" || strings.HasPrefix(file, "testdata/") {
			used[dir] = true
			return
		}
		for _, d := range f.Decls {
			in := file
			if fn, ok := d.(*ast.FuncDecl); ok {
				in += " " + fn.Name.Name
			}
			ast.Inspect(d, func(n ast.Node) bool {
				run := runsByItself(n)
				if run == nil || file == "proxy/panics/panics.go" {
					return true
				}
				started++
				for _, what := range uncaught(run) {
					if used[in] = true; uncaughtBy[in] == "" {
						t.Errorf("%s: %s: %s runs by itself, and nothing catches its panic: use panics.Go, Catch or Keep", set.Position(n.Pos()), in, what)
					}
				}
				return true
			})
		}
	})
	if started < 20 {
		t.Errorf("only %d places start something: the search finds too little", started)
	}
	for in := range uncaughtBy {
		if !used[in] {
			t.Errorf("%s does so no more", in)
		}
	}
	for dir := range servesNobody {
		if !used[dir] {
			t.Errorf("there is no package %s", dir)
		}
	}
}

// runsByItself is what a node starts, if it starts something that nobody catches for it.
func runsByItself(n ast.Node) ast.Expr {
	switch n := n.(type) {
	case *ast.GoStmt:
		return n.Call.Fun
	case *ast.CallExpr:
		s, ok := n.Fun.(*ast.SelectorExpr)
		if !ok || len(n.Args) == 0 || ofPanics(n) {
			return nil
		}
		if s.Sel.Name == "Go" || s.Sel.Name == "AfterFunc" {
			return n.Args[len(n.Args)-1]
		}
	}
	return nil
}

// ofPanics says whether a call is one of proxy/panics.
func ofPanics(call *ast.CallExpr) bool {
	s, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == "panics"
}

// uncaught are the calls, and what else may panic, of what runs by itself that it does not catch. A function that stands elsewhere is taken to catch nothing.
func uncaught(run ast.Expr) (out []string) {
	f, ok := run.(*ast.FuncLit)
	if !ok {
		return []string{name(run)}
	}
	ast.Inspect(f.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			return false // looked at by itself
		case *ast.CallExpr:
			if ofPanics(n) {
				return false
			}
			if !slices.Contains(harmless, name(n.Fun)) {
				out = append(out, name(n.Fun))
			}
		case *ast.IndexExpr, *ast.SliceExpr, *ast.TypeAssertExpr:
			out = append(out, "an index or assertion")
		}
		return true
	})
	return out
}

// name is the last name of what is called.
func name(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return x.Sel.Name
	case *ast.FuncLit:
		return "a function"
	}
	return "what it makes"
}
