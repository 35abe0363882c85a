package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// foreign are names in comments that PostgreSQL, its protocol, or others have given.
var foreign = words(`
	AuthMessage AuthenticationOk ClientKey ClientProof ClientSignature CommandComplete CopyDone CopyFail CopyInResponse EmptyQuery FunctionCall ParseComplete
	PortalSuspended ReadyForQuery ControlFileData CopyReadAttributesCSV CopyReadLineText FigureColname FirstNormalObjectId NextCopyFrom XLogLongPageHeaderData
	findTargetlistEntrySQL92 ClientHello JavaScript pgSQL OpenTelemetry ResponseController SplitMix64`)

// known are methods that mean the same everywhere.
var known = words("Error Unwrap String")

func words(s string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(s) {
		m[w] = true
	}
	return m
}

var (
	word  = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)
	mixed = regexp.MustCompile(`[a-z][A-Z]`)
	aFile = regexp.MustCompile(`[A-Za-z0-9_]+\.go\b`)
	aLink = regexp.MustCompile(`https?://\S+`)
)

// allSources parses every file, tests too, with its comments. names are the identifiers of all of them, and the words of their texts: a key of
// the configuration stands in one, and SQL.
func allSources(t *testing.T) (set *token.FileSet, files map[string]*ast.File, names map[string]bool) {
	t.Helper()
	set, files, names = token.NewFileSet(), map[string]*ast.File{}, map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		f, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files[path] = f
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				names[n.Name] = true
			case *ast.BasicLit:
				if n.Kind == token.STRING {
					for _, w := range word.FindAllString(n.Value, -1) {
						names[w] = true
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources are found: %v", err)
	}
	return set, files, names
}

// A comment that names what is not there any more misleads whoever looks for it. What is exported, and each function that has a comment, is
// introduced by its name: so a comment is found, and one that was left behind is seen.
func TestCommentsNameWhatExists(t *testing.T) {
	t.Parallel()
	set, files, names := allSources(t)
	bases := map[string]bool{}
	for path := range files {
		bases[filepath.Base(path)] = true
	}
	for path, f := range files {
		for _, g := range f.Comments {
			for _, c := range g.List {
				text := aLink.ReplaceAllString(c.Text, "")
				for _, w := range word.FindAllString(text, -1) {
					if mixed.MatchString(w) && !names[w] && !foreign[w] {
						t.Errorf("%s: %s is nowhere", set.Position(c.Pos()), w)
					}
				}
				for _, w := range aFile.FindAllString(text, -1) {
					if !bases[w] {
						t.Errorf("%s: there is no file %s", set.Position(c.Pos()), w)
					}
				}
			}
		}
		if strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "_other.go") { // what another system has in its place is introduced there
			continue
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				must := d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d.Recv.List[0].Type)) && !known[d.Name.Name])
				introduced(t, set, d.Pos(), d.Name.Name, d.Doc, must)
			case *ast.GenDecl:
				commented(t, set, d)
			}
		}
	}
}

// commented wants comments of what a declaration exports: of each type, and of constants and variables of each, or of all together.
func commented(t *testing.T, set *token.FileSet, d *ast.GenDecl) {
	t.Helper()
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			doc := s.Doc
			if doc == nil && !d.Lparen.IsValid() {
				doc = d.Doc
			}
			introduced(t, set, s.Pos(), s.Name.Name, doc, s.Name.IsExported() && d.Doc == nil)
		case *ast.ValueSpec:
			if d.Doc == nil && s.Doc == nil && s.Comment == nil && s.Names[0].IsExported() {
				t.Errorf("%s: %s has no comment", set.Position(s.Pos()), s.Names[0].Name)
			}
		}
	}
}

// introduced wants a comment to begin with the name of what it is about, behind an article at most.
func introduced(t *testing.T, set *token.FileSet, at token.Pos, name string, doc *ast.CommentGroup, must bool) {
	t.Helper()
	text := doc.Text()
	if text == "" {
		if must {
			t.Errorf("%s: %s has no comment", set.Position(at), name)
		}
		return
	}
	for _, article := range []string{"A ", "An ", "The "} {
		text = strings.TrimPrefix(text, article)
	}
	if word.FindString(text) != name {
		t.Errorf("%s: the comment of %s begins with %q", set.Position(at), name, strings.SplitN(text, "\n", 2)[0])
	}
}

// Two pages lead through the code: what they name in it is there.
func TestDocsNameWhatExists(t *testing.T) {
	t.Parallel()
	_, files, names := allSources(t)
	bases := map[string]bool{}
	for path := range files {
		bases[filepath.Base(path)] = true
	}
	quoted, aPath := regexp.MustCompile("`[^`\n]+`"), regexp.MustCompile(`^[a-z]+(/[a-zA-Z0-9_.-]+)+$`)
	for _, page := range []string{"where.md", "life-of-a-query.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range quoted.FindAllString(string(text), -1) {
			q = strings.Trim(q, "`")
			switch {
			case aPath.MatchString(q):
				if !slices.ContainsFunc([]string{"", "proxy", "docs"}, func(in string) bool {
					_, err := os.Stat(filepath.Join("..", "..", in, q))
					return err == nil
				}) {
					t.Errorf("docs/%s: there is no %s", page, q)
				}
			case aFile.FindString(q) == q:
				if !bases[q] {
					t.Errorf("docs/%s: there is no file %s", page, q)
				}
			default:
				for _, w := range word.FindAllString(q, -1) {
					if !names[w] {
						t.Errorf("docs/%s: %s is nowhere", page, w)
					}
				}
			}
		}
	}
}

// Each library that the code uses by itself was decided about.
func TestDocsNameEachDependency(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/decisions/0003-dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	direct, _, _ := strings.Cut(string(mod), "// indirect")
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(direct, -1) {
		name := strings.TrimPrefix(regexp.MustCompile(`/v\d+$`).ReplaceAllString(m[1], ""), "github.com/")
		owner, _, _ := strings.Cut(name, "/")
		if !strings.Contains(string(page), name) && (owner == "golang.org" || !strings.Contains(string(page), owner)) {
			t.Errorf("%s is not on the page of dependencies", m[1])
		}
	}
}
