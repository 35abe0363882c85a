package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// quotings are how SQL is put together by hand. Names are quoted by proxy/pgsql and nobody else: who quotes for himself forgets
// the name with a dot, or the value with a backslash. exempt are files that write something else than SQL, with what.
var quotings = []struct {
	what   string
	sign   *regexp.Regexp
	exempt map[string]string
}{
	{"doubles quotes", regexp.MustCompile(`(ReplaceAll|Replace|NewReplacer)\([^\n]*("'"|` + "`[\"']`" + `|"\\"")`), map[string]string{"router/sqlparse/lexer.go": "reads tokens"}},
	{"quotes with another library", regexp.MustCompile(`pgx\.Identifier|\.Sanitize\(\)|QuoteIdentifier\(|QuoteLiteral\(`), nil},
	{"puts a value between quotes", regexp.MustCompile(`'%s'|[^\\]'" ?\+|\+ ?"'`), map[string]string{
		"replication/cluster/node.go": "a configuration file", "cmd/benchmark/main.go": "addresses of its own", "proxy/demo/shop.go": "constants", "proxy/demo/demo.go": "commands for a shell",
	}},
	{"joins names by a dot", regexp.MustCompile(`\+ ?"\." ?\+`), map[string]string{
		"proxy/merge/numeric.go": "a decimal point", "router/sqlparse/spread.go": "names of its own", "router/sqlparse/rekey.go": "names that are quoted",
		"replication/reshard/online.go": "names that are quoted", "proxy/admin/admin.go": "names that are quoted",
	}},
	{"prints a schema and a name with a dot", regexp.MustCompile(`%s\.%s[^\n]*\.Schema, ?\w+\.Name`), nil},
	{"takes names apart at dots", regexp.MustCompile(`strings\.(Split|SplitN|Cut|Index|LastIndex|IndexByte)\([^\n]*(, "\."|, '\.')`), map[string]string{"shardmap/pghash/key.go": "a decimal point"}},
	{"joins names by a dot in SQL", regexp.MustCompile(`(nspname|relname|typname|proname|schemaname|tablename)(::text)? \|\| '\.'`), nil},
}

func TestOnlyOnePackageQuotes(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		name := strings.TrimPrefix(filepath.ToSlash(path), "../../")
		if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "proxy/pgsql/") || strings.HasPrefix(name, "testdata/") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(b), "\n") {
			for _, q := range quotings {
				if !q.sign.MatchString(line) {
					continue
				}
				used[q.what+name] = true
				if _, ok := q.exempt[name]; !ok {
					t.Errorf("%s:%d %s: that is for proxy/pgsql to do\n%s", name, i+1, q.what, strings.TrimSpace(line))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range quotings {
		for name := range q.exempt {
			if !used[q.what+name] {
				t.Errorf("%s no longer %s: take it off the list", name, q.what)
			}
		}
	}
}
