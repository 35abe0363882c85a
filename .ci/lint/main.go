// Command lint is what go vet runs in make lint: vet's own analyzers and those of staticcheck, errcheck, go-errorlint and
// exhaustive, so that each package is loaded once for all of them, and again only when it has changed.
package main

import (
	_ "embed"
	"encoding/json"
	"go/token"
	"log"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/kisielk/errcheck/errcheck"
	"github.com/nishanths/exhaustive/passes/exhaustive"
	"github.com/polyfloyd/go-errorlint/errorlint"
	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/suite/vet"
	"golang.org/x/tools/go/analysis/unitchecker"
	"golang.org/x/tools/go/packages"
	"honnef.co/go/tools/analysis/lint"
	"honnef.co/go/tools/simple"
	"honnef.co/go/tools/staticcheck"
	"honnef.co/go/tools/stylecheck"
	"honnef.co/go/tools/unused"
)

// handled lists functions whose errors nobody needs to look at. It is part of the program: go vet would not see a change of a
// file that the program reads.
//
//go:embed errcheck.txt
var handled string

func main() {
	debug.SetGCPercent(400) // one package, and it ends
	set(exhaustive.Analyzer, "d", "true")
	set(exhaustive.Analyzer, "typeonly", "pgmosaic")
	analyzers := slices.Concat(vet.Suite, defaults(simple.Analyzers), defaults(staticcheck.Analyzers), defaults(stylecheck.Analyzers),
		[]*analysis.Analyzer{errorlint.NewAnalyzer(), exhaustive.Analyzer, unchecked, unneeded})
	for _, a := range analyzers {
		nameIt(a)
	}
	if len(os.Args) > 1 && factsOnly(os.Args[len(os.Args)-1]) {
		analyzers = withFacts(analyzers)
	}
	unitchecker.Main(analyzers...)
}

// set sets a flag of an analyzer as its own command would.
func set(a *analysis.Analyzer, flag, value string) {
	if err := a.Flags.Set(flag, value); err != nil {
		log.Fatal(err)
	}
}

// defaults returns what staticcheck's command runs where nobody asks for more.
func defaults(from []*lint.Analyzer) []*analysis.Analyzer {
	var analyzers []*analysis.Analyzer
	for _, a := range from {
		if !a.Doc.NonDefault {
			analyzers = append(analyzers, a.Analyzer)
		}
	}
	return analyzers
}

// nameIt has each finding of an analyzer end with its name: the rule that is broken, to look it up by.
func nameIt(a *analysis.Analyzer) {
	run := a.Run
	a.Run = func(pass *analysis.Pass) (any, error) {
		report := pass.Report
		pass.Report = func(d analysis.Diagnostic) {
			d.Message += " (" + a.Name + ")"
			report(d)
		}
		return run(pass)
	}
}

// factsOnly says whether go vet asks, by its file about a package, only for what those that import the package must know of it.
func factsOnly(file string) bool {
	if !strings.HasSuffix(file, ".cfg") {
		return false
	}
	text, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	var unit unitchecker.Config
	if err := json.Unmarshal(text, &unit); err != nil {
		log.Fatal(err)
	}
	return unit.VetxOnly
}

// withFacts returns those of the analyzers, and of what they require, that leave facts for packages that import this one.
// unitchecker would run whatever uses facts, too, on all libraries, and throw its findings away.
func withFacts(analyzers []*analysis.Analyzer) []*analysis.Analyzer {
	var found []*analysis.Analyzer
	seen := map[*analysis.Analyzer]bool{}
	var visit func([]*analysis.Analyzer)
	visit = func(analyzers []*analysis.Analyzer) {
		for _, a := range analyzers {
			if seen[a] {
				continue
			}
			seen[a] = true
			if len(a.FactTypes) > 0 {
				found = append(found, a)
			}
			visit(a.Requires)
		}
	}
	visit(analyzers)
	return found
}

// unchecked is errcheck with the exclusions of its command and ours. Its own analyzer does not say which call it means.
var unchecked = &analysis.Analyzer{
	Name: "errcheck",
	Doc:  "errors that nobody looks at",
	Run: func(pass *analysis.Pass) (any, error) {
		checker := errcheck.Checker{Exclusions: errcheck.Exclusions{BlankAssignments: true, TypeAssertions: true, Symbols: append(strings.Fields(handled), errcheck.DefaultExcludedSymbols...)}}
		found := checker.CheckPackage(&packages.Package{Fset: pass.Fset, Syntax: pass.Files, TypesInfo: pass.TypesInfo})
		for _, e := range found.Unique().UncheckedErrors {
			pass.Reportf(at(pass, e.Pos), "unchecked error: %s", e.Line)
		}
		return nil, nil
	},
}

// unneeded reports what staticcheck finds unused. Go vet shows it a package with its tests, so nothing else can use what it cannot see used.
var unneeded = &analysis.Analyzer{
	Name:     unused.Analyzer.Analyzer.Name,
	Doc:      "what nothing uses",
	Requires: []*analysis.Analyzer{unused.Analyzer.Analyzer},
	Run: func(pass *analysis.Pass) (any, error) {
		found := pass.ResultOf[unused.Analyzer.Analyzer].(unused.Result)
		// Something with type parameters is found once for each of its instances.
		type place struct {
			file, name string
			line       int
		}
		where := func(o unused.Object) place {
			return place{filepath.Base(o.Position.Filename), o.Name, o.Position.Line}
		}
		used := map[place]bool{}
		for _, o := range found.Used {
			used[where(o)] = true
		}
		for _, o := range found.Unused {
			if !used[where(o)] {
				pass.Reportf(at(pass, o.Position), "%s %s is unused", o.Kind, o.Name)
			}
		}
		return nil, nil
	},
}

// at returns the place in a pass's files that p describes.
func at(pass *analysis.Pass, p token.Position) token.Pos {
	for _, f := range pass.Files {
		if file := pass.Fset.File(f.FileStart); file.Name() == p.Filename {
			return file.Pos(p.Offset)
		}
	}
	return token.NoPos
}
