package main

import (
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Tests that are not parallel measure their process, or end what is in it. One by one they leave a processor idle, and all others wait for them. When the
// whole suite is asked for they are run by a second process, beside the parallel ones; what it has said is printed behind what this one says.

// sequential are the names of this package's tests that never call t.Parallel.
func sequential() (names []string, err error) {
	files, err := filepath.Glob("*_test.go")
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") && f.Name.Name != "TestMain" && !callsParallel(f.Body) {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names, err
}

// callsParallel says whether a test calls t.Parallel of its own, and not in a function that it hands to others.
func callsParallel(body *ast.BlockStmt) (found bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		if _, ok := n.(*ast.FuncLit); ok {
			return false
		}
		if call, ok := n.(*ast.CallExpr); ok {
			s, ok := call.Fun.(*ast.SelectorExpr)
			found = found || ok && s.Sel.Name == "Parallel"
		}
		return !found
	})
	return found
}

// beside is the second process.
type beside struct {
	cmd *exec.Cmd
	out *os.File
}

// startBeside starts it in an environment, and has this one leave its tests out. It is nil where less than the whole suite, or more than its tests, is asked for.
func startBeside(env []string) (*beside, error) {
	for _, name := range []string{"run", "skip", "list", "bench", "fuzz", "cpuprofile", "memprofile", "blockprofile", "mutexprofile", "coverprofile", "trace"} {
		if flag.Lookup("test."+name).Value.String() != "" {
			return nil, nil
		}
	}
	if testing.Short() || *rewrite {
		return nil, nil
	}
	names, err := sequential()
	if err != nil {
		return nil, err
	}
	out, err := os.CreateTemp("", "beside-")
	if err != nil {
		return nil, err
	}
	pattern := "^(" + strings.Join(names, "|") + ")$"
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(arg string) bool { return strings.HasPrefix(arg, "-test.testlogfile") }) // what is read is noted here
	cmd := exec.Command(os.Args[0], append([]string{"-test.run=" + pattern}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = env, out, out, diesWithUs()
	if err := errors.Join(flag.Set("test.skip", pattern), cmd.Start()); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return &beside{cmd, out}, nil
}

// wait returns the code with which the second process ended, once it has printed what that said.
func (b *beside) wait() int {
	if b == nil {
		return 0
	}
	err := b.cmd.Wait()
	said, e := os.ReadFile(b.out.Name())
	if err = errors.Join(err, e, b.out.Close()); err != nil {
		defer fmt.Fprintln(os.Stderr, "the tests that are not parallel:", err)
	}
	_, _ = os.Stdout.Write(said)
	if err != nil {
		return 1
	}
	return 0
}

func TestSequentialTestsAreFound(t *testing.T) {
	t.Parallel()
	names, err := sequential()
	if err != nil || !slices.Contains(names, "TestPanicEndsOneSession") || slices.Contains(names, t.Name()) || slices.Contains(names, "TestNotices") {
		t.Errorf("%v %v", names, err)
	}
}
