package sqlparse

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// deep makes, for each construct that can stand in itself, a statement with n of them.
var deep = map[string]func(n int) string{
	"sum":            around("select 1", "+1", ""),
	"concatenation":  around("select 'a'", "||'b'", ""),
	"json path":      around("select j", "->'a'", ""),
	"cast":           around("select 1", "::int", ""),
	"is null":        around("select 1", " is null", ""),
	"collate":        around("select a", ` collate "C"`, ""),
	"at time zone":   around("select a", " at time zone 'utc'", ""),
	"and":            around("select true", " and true", ""),
	"or":             around("select true", " or true", ""),
	"union":          around("select 1", " union select 1", ""),
	"except all":     around("select 1", " except all select 1", ""),
	"join":           around("select from t", " cross join t", ""),
	"join on":        around("select from t", " join t on true", ""),
	"natural join":   around("select from t", " natural join t", ""),
	"subscript":      around("select a", "[1]", ""),
	"field":          around("select (a)", ".b", ""),
	"between":        around("select 1", " between 1 and 2 is null", ""),
	"like":           around("select a", " like 'b' is null", ""),
	"in":             around("select 1", " in (1) is null", ""),
	"default":        around("create table t (a int default 1", "+1", ")"),
	"check":          around("alter table t add check (1", "+1", " > 0)"),
	"bound":          around("create table p partition of t for values from (1", "+1", ") to (9)"),
	"index":          around("create index on t ((1", "+1", "))"),
	"policy":         around("create policy p on t using (1", "+1", " > 0)"),
	"trigger":        around("create trigger g after insert on t for each row when (1", "+1", " > 0) execute function f()"),
	"copy":           around("copy (select 1", "+1", ") to stdout"),
	"prepare":        around("prepare p as select 1", "+1", ""),
	"explain":        around("explain select 1", "+1", ""),
	"execute":        around("execute p(1", "+1", ")"),
	"insert":         around("insert into t values (1", "+1", ")"),
	"update":         around("update t set a = 1", "+1", ""),
	"returning":      around("delete from t returning 1", "+1", ""),
	"limit":          around("select limit 1", "+1", ""),
	"values":         around("values (1", "+1", ")"),
	"order by":       around("select a from t order by 1", "+1", ""),
	"group by":       around("select from t group by 1", "+1", ""),
	"set":            around("select set_config('a', 'b'", "||'c'", ", true)"),
	"call":           around("call p(1", "+1", ")"),
	"view":           around("create view v as select 1", "+1", ""),
	"rule":           around("create rule r as on insert to t do instead select 1", "+1", ""),
	"function":       around("create function f() returns int return 1", "+1", ""),
	"frame":          around("select f() over (rows 1", "+1", " preceding)"),
	"prefix":         within("- ", "a", ""),
	"not":            within("not ", "true", ""),
	"parentheses":    within("(", "1", ")"),
	"parenthesised":  within("(1+", "1", ")"),
	"right sum":      within("1 + - ", "1", ""),
	"call in call":   within("f(", "1", ")"),
	"case":           within("case when ", "a", " then 1 end"),
	"else":           within("case when a then 1 else ", "1", " end"),
	"array":          within("array[", "1", "]"),
	"nested array":   around("select array", "[", strings.Repeat("]", 0)),
	"row":            within("row(", "1", ")"),
	"coalesce":       within("coalesce(", "1", ")"),
	"right and":      within("true and (", "true", ")"),
	"subquery":       within("(select ", "1", ")"),
	"exists":         within("exists (select ", "1", ")"),
	"in subquery":    within("a in (select ", "1", ")"),
	"scalar any":     within("a = any(", "1", ")"),
	"in in":          within("1 in (", "1", ")"),
	"subscripts":     within("a[", "1", "]"),
	"filter":         within("f() filter (where ", "true", ")"),
	"window":         within("f() over (partition by ", "1", ")"),
	"from":           around("select from ", "(select from ", "t"),
	"lateral":        within("(select a from lateral (select ", "1", ") x)"),
	"with":           around("", "with a as (", "select 1"),
	"grouping sets":  around("select from t group by ", "grouping sets (", "a"),
	"join in join":   around("select from ", "(t cross join ", "t"),
	"xml":            within("xmlconcat(", "a", ")"),
	"json":           within("json_object('a': ", "1", ")"),
	"cast of a call": within("cast(", "1", " as int)"),
	"begin atomic":   around("create function f() returns int language sql begin atomic ", "select 1; ", "end"),
	"grant":          func(n int) string { return "grant select on t" + strings.Repeat(", t", n) + " to a" },
	"in list":        func(n int) string { return "select 1 in (1" + strings.Repeat(", 1", n) + ")" },
	"rows":           func(n int) string { return "insert into t values (1)" + strings.Repeat(", (1)", n) },
	"statements":     func(n int) string { return strings.Repeat("select 1; ", n) },
	"names":          func(n int) string { return "select a" + strings.Repeat(".a", n) },
	"targets":        func(n int) string { return "select 1" + strings.Repeat(", 1", n) },
	"comment":        func(n int) string { return strings.Repeat("/*", n) + strings.Repeat("*/", n) + "select 1" },
	"columns":        func(n int) string { return "create table t (a int" + strings.Repeat(", a int", n) + ")" },
	"whens":          func(n int) string { return "select case" + strings.Repeat(" when true then 1", n+1) + " end" },
	"array bounds":   func(n int) string { return "select a::int" + strings.Repeat("[]", n) },
	"array literals": func(n int) string { return "select '" + strings.Repeat("{", n) + strings.Repeat("}", n) + "'" },
}

func around(before, again, after string) func(int) string {
	return func(n int) string {
		closing := strings.Count(again, "(") - strings.Count(again, ")") // nested FROM items and the like close
		tail := ""
		switch {
		case strings.HasSuffix(again, "(select from "):
			tail = strings.Repeat(") x", n)
		case again == "with a as (":
			tail = strings.Repeat(") select 1", n)
		case again == "[":
			tail = "1" + strings.Repeat("]", n)
		case closing > 0:
			tail = strings.Repeat(")", n)
		}
		return before + strings.Repeat(again, n) + after + tail
	}
}

func within(open, inner, end string) func(int) string {
	return func(n int) string {
		return "select " + strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
}

// A tree that is written in one pass has the library's own bytes: for what the golden files and the fuzzers know, and for
// each construct in itself.
func TestTreesAreTheLibrarys(t *testing.T) {
	var texts []string
	for _, pattern := range []string{"../testdata/*", "testdata/fuzz/*/*", "../../cmd/pgmosaic/testdata/*"} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				continue // a folder
			}
			for _, part := range strings.Split(string(b), "\n\n") {
				_, sql, _ := strings.Cut(part, "\n")
				sql, _, _ = strings.Cut(sql, "\n----")
				texts = append(texts, sql)
			}
			for _, line := range strings.Split(string(b), "\n") {
				texts = append(texts, line)
				if _, arg, ok := strings.Cut(line, "("); ok {
					if s, err := strconv.Unquote(strings.TrimSuffix(arg, ")")); err == nil {
						texts = append(texts, s)
					}
				}
			}
		}
	}
	for _, f := range deep {
		texts = append(texts, f(1), f(30))
	}
	tree := func(sql string, by int) (out []byte, err error) {
		slowest = by
		defer func() { slowest = 0 }()
		sql, _, _ = strings.Cut(sql, "\x00")
		err = treeOf(sql, func(b []byte) error { out = bytes.Clone(b); return nil })
		return out, err
	}
	parsed := 0
	for _, sql := range texts {
		want, err1 := tree(sql, 1)
		got, err2 := tree(sql, 0)
		if fmt.Sprint(err1) != fmt.Sprint(err2) || !bytes.Equal(want, got) {
			t.Errorf("%q: %d bytes and %v, the library says %d and %v", sql, len(got), err2, len(want), err1)
		}
		if err1 == nil {
			parsed++
		}
	}
	if parsed < 1000 {
		t.Errorf("only %d statements were compared", parsed)
	}
}

// Whatever the construct: PostgreSQL's answer or a refusal, at any depth, and what PostgreSQL takes by default is read.
func TestDeepStatementsAreReadOrRefused(t *testing.T) {
	sizes := []int{100, 4900, 40000}
	if !testing.Short() {
		sizes = append(sizes, 300000)
	}
	for name, f := range deep {
		for _, n := range sizes {
			if n > 5000 && testing.Short() && elsewhere(name) {
				continue
			}
			_, err := Parse(f(n))
			var deep *TooDeepError
			var syntax *SyntaxError
			switch {
			case err == nil && name == "sum" && n > 32768:
				t.Errorf("%s, %d times: it is let through", name, n)
			case err == nil, n > 5000 && errors.As(err, &deep):
			case n > 100 && errors.As(err, &syntax) && strings.HasPrefix(syntax.Message, "memory exhausted at or near"): // as PostgreSQL's own grammar
			default:
				t.Errorf("%s, %d times: %v", name, n, err)
			}
		}
	}
}

// deepest is the largest of f's statements that is let through.
func deepest(f func(int) string) int {
	n := 0
	for step := 4096; step >= 256; step /= 2 {
		if err := treeOf(f(n+step), func([]byte) error { return nil }); err == nil {
			n += step
		}
	}
	return n
}

// elsewhere says whether a construct is a sum at another place.
func elsewhere(name string) bool { return strings.Count(deep[name](7), "+1") == 7 && name != "sum" }

// The stack is several times what the deepest tree needs that is let through, to be read and to be written. It is measured
// with an eighth of the depth, of which an eighth of the stack must be enough.
func TestStacksAreLargeEnough(t *testing.T) {
	depth = maxDepth / 8
	defer func() { depth = maxDepth }()
	for name, f := range deep {
		if elsewhere(name) {
			continue
		}
		n := deepest(f)
		if n == 0 {
			n = 200
		}
		used := 0
		stackUsed = &used
		read := 0
		err := treeOf(f(n), func(tree []byte) error {
			read = used
			_, _ = textOf(tree)
			return nil
		})
		stackUsed = nil
		if err != nil {
			t.Errorf("%s, %d times: %v", name, n, err)
		}
		if used > 256<<20/8/3 {
			t.Errorf("%s, %d times: %d kB of stack to read it, %d at most", name, n, read>>10, used>>10)
		}
	}
}

// Where there is no large stack, as with a C library without contexts, less is let through, and nothing ends the process.
func TestDeepStatementsOnThreadsOwnStacks(t *testing.T) {
	ownStack = 1
	defer func() { ownStack = 0 }()
	for name, f := range deep {
		for _, n := range []int{100, 5000, 40000} {
			var deep *TooDeepError
			err := treeOf(f(n), func(tree []byte) error {
				_, _ = textOf(tree)
				return nil
			})
			if n == 100 && err != nil || n == 40000 && name == "sum" && !errors.As(err, &deep) {
				t.Errorf("%s, %d times: %v", name, n, err)
			}
		}
	}
}

// FuzzDeep repeats parts of statements: nothing ends the process.
func FuzzDeep(f *testing.F) {
	f.Add("select 1", "+1", "", uint16(40000))
	f.Add("select ", "f(1, ", "1", uint16(3000))
	f.Add("select from t", " join t on a=1", "", uint16(9000))
	f.Fuzz(func(t *testing.T, before, again, after string, n uint16) {
		if len(again) > 64 {
			again = again[:64]
		}
		stmts, err := Parse(strings.ToValidUTF8(before+strings.Repeat(again, int(n))+after, "?"))
		if err == nil && len(stmts) == 1 && stmts[0].Query != nil {
			_, _ = stmts[0].Query.Own()
		}
	})
}
