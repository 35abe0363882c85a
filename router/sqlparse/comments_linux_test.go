package sqlparse

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Comments that touch or stand in each other, and runs of operators, do not take the square of their length: a minute would not do for
// these.
func TestManyComments(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	const n = 200000
	go func() {
		defer close(done)
		for name, sql := range map[string]string{
			"nested": "select 1 " + strings.Repeat("/*", n) + strings.Repeat("*/", n), "nested oddly": "select 1 " + strings.Repeat("/*/", n) + " " + strings.Repeat("*/", n), "touching": "select 1 " + strings.Repeat("/**/", n),
			"with an operator": "select 1 " + strings.Repeat("/**/;", n), "open": "select 1 " + strings.Repeat("/*", n), "filled": "select 1 " + strings.Repeat("/*+-*/", n), "with letters": "select 1 " + strings.Repeat("/*é*/", n),
			"behind a joined string": "select 'a'\n'b' " + strings.Repeat("/*", n) + strings.Repeat("*/", n), "run": "select 1 " + strings.Repeat("+-", n) + "1", "touching, with operators": "select 1 " + strings.Repeat("+/**/", 3000) + strings.Repeat("/*", n) + strings.Repeat("*/", n) + "1",
			"before strings": "select 1 " + strings.Repeat("/**/ /**/'a',", 1000) + strings.Repeat("/*", n),
		} {
			err := treeOf(sql, func([]byte) error { return nil })
			var syntax *SyntaxError
			if wrong := name == "open" || name == "run" || name == "before strings"; wrong != errors.As(err, &syntax) && !errors.Is(err, &TooDeepError{}) {
				t.Errorf("%s: %.200v", name, err)
			}
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatal("it takes the square of the length")
	}
}

// looksAhead are words behind which PostgreSQL's parser looks at the next one.
var looksAhead = regexp.MustCompile(`(?i)u&|uescape|not|nulls|with|without|format`)

// FuzzComments compares what comes of texts with comments, and of what is made of these.
func FuzzComments(f *testing.F) {
	many := strings.Repeat("/*+*/", fewComments+1)
	for _, s := range []string{
		"select 1 " + many, "select 'a' " + many + "\n'b'", "select 'a'\n" + many + "'b'", "select 'a'\n'/*' " + many, "select E'a\\'/*' " + many, "select e'a'\n'\\'/*' " + many + ", 2", "select $a$/*$a$ " + many, "select a$b$/*c" + many + "*/",
		"select U&'/*' " + many + " uescape '!'", "select \"/*\" " + many, "select 1 -- /*\n" + many, "select 1+" + many + "2", "select 1" + many + "-2", "select a.b" + many + "as c", "select /*/**/é*/ x from y where z = '*/' " + many + "and ü > 1 +", many + "select $1" + many + "::int", "select 1 " + many + "/*",
		"select 'a' --x\n'b/*' " + many, "select 1*/**/2" + many, "select n'/*' x'/*' b'/*'" + many, "select 1//**/2" + many, "select $1$/*$" + many,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		if len(sql) > 2000 || strings.ContainsRune(sql, 0) {
			return
		}
		tree := func(text []byte) (out []byte, err error) {
			err = asItIs(text, func(b []byte) error { out = bytes.Clone(b); return nil })
			return out, err
		}
		before, was := tree([]byte(sql))
		text := []byte(sql)
		if scannable(text) != nil {
			return
		}
		after, is := tree(text)
		var a, b *SyntaxError
		if errors.As(was, &a); errors.As(is, &b) && a != nil { // which is first is chance, where the parser looks ahead
			return
		}
		if (a == nil) != (b == nil) && looksAhead.MatchString(sql) { // the library takes no comment there, as PostgreSQL does
			return
		}
		if a != nil || b != nil || !bytes.Equal(before, after) {
			t.Errorf("%q\n%q\n%v, %v\n%q\n%q", sql, text, was, is, before, after)
		}
	})
}
