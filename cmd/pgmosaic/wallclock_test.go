package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// wallClock is where time is taken off this process's monotonic clock, by function, and why a clock that jumps does no harm there.
var wallClock = map[string]string{
	"proxy/instance/gauges.go gauges":             "a metric that is a time",
	"proxy/instance/deadlocks.go younger":         "all processes compare the same stamps, whatever they are",
	"proxy/admin/bouncer.go stamp":                "shown",
	"proxy/dashboard/dashboard.go documentLocked": "shown",
	"proxy/dashboard/dashboard.go history":        "shown",
	"proxy/exec/copyin.go awaitClient":            "a deadline in the past ends a wait",
	"proxy/exec/lease.go originOf":                "a server's start, which is only compared with itself",
	"proxy/exec/repeat.go unwrite":                "bytes are cut off, no time is",
	"proxy/pool/verify.go whenDone":               "a deadline in the past ends a wait",
	"proxy/session/session.go TxSince":            "which of two transactions is the younger is asked of stamps, which all processes compare alike: see younger",
	"proxy/session/session.go loop":               "such a stamp",
	"proxy/session/session.go more":               "a deadline in the past ends a wait",
	"proxy/session/session.go over":               "such a stamp",
	"proxy/session/session.go Terminate":          "a deadline in the past ends a wait",
	"proxy/session/session.go wake":               "a deadline in the past ends a wait",
	"proxy/wire/duplex.go Watch":                  "a deadline in the past ends a wait",
	"replication/cluster/cluster.go own":          "a file is cut off",
	"replication/cluster/template.go copyFile":    "a file is cut off",
	"replication/probe.go probe":                  "a server's start, which is only compared with itself",
	"shardmap/pghash/key.go parseDate":            "a client's value",
	"shardmap/pghash/key.go parseTimestamp":       "a client's value",
}

// Nothing is decided by a wall clock, ours or another's: durations are those of the monotonic clock, which a time.Time has until it is
// turned into a number or a text, or is rounded. Each place that does so is known.
func TestNoDecisionTakesWallTime(t *testing.T) {
	t.Parallel()
	strips := map[string]bool{"Unix": true, "UnixNano": true, "UnixMicro": true, "UnixMilli": true, "UTC": true, "Local": true, "In": true, "Truncate": true, "AddDate": true, "MarshalBinary": true}
	used := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel("../..", path) // path is below it
		for _, d := range file.Decls {
			in := name
			if f, ok := d.(*ast.FuncDecl); ok {
				in += " " + f.Name.Name
			}
			ast.Inspect(d, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				f, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || !strips[f.Sel.Name] && !(f.Sel.Name == "Round" && len(call.Args) == 1 && isZero(call.Args[0])) {
					return true
				}
				switch {
				case wallClock[in] != "":
					used[in] = true
				default:
					t.Errorf("%s: .%s takes a time off the monotonic clock: keep the time.Time, or say here why a clock that jumps does no harm", in, f.Sel.Name)
				}
				return true
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for in := range wallClock {
		if !used[in] {
			t.Errorf("%s does so no more", in)
		}
	}
}

func isZero(e ast.Expr) bool {
	l, ok := e.(*ast.BasicLit)
	return ok && l.Value == "0"
}
