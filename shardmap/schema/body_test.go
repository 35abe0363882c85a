package schema

import (
	"maps"
	"regexp"
	"strings"
	"testing"
)

// remarks are the innermost of what looks like comments, in a form that can be read at a glance.
var remarks = regexp.MustCompile(`/\*(?:[^*/]|\*+[^*/]|/+[^*/])*\*+/|--[^\n]*`)

// levels are a text and what is left of it when the innermost of what looks like comments is taken out, until nothing is.
func levels(body string) (out []string) {
	for was := ""; body != was || len(out) == 0; {
		out = append(out, body)
		was, body = body, remarks.ReplaceAllString(body, " ")
	}
	return out
}

// nasty are texts in which comments are deep, many, open, or none.
func nasty(n int) map[string]string {
	rep := strings.Repeat
	return map[string]string{
		"nested":             "select 1 " + rep("/*", n) + rep("*/", n),
		"nested with words":  "select f /* a " + rep("/* b (", n) + rep("*/", n) + "*/ (1)",
		"open":               rep("/*", n),
		"open, with lines":   rep("/* --\n", n),
		"closed":             rep("*/", n),
		"closed first":       rep("*/", n) + rep("/*", n),
		"pairs":              rep("/* a */ f(", n),
		"lines":              rep("-- a\n", n),
		"one line":           rep("--", n),
		"an open one, lines": "/* a " + rep("-- b\n", n),
		"half marks":         rep("/*/", n),
		"stars":              "/*" + rep("*", n) + "/" + rep("*", n),
		"slashes":            rep("/", n) + "*" + rep("/", n),
		"minus":              rep("-", n),
		"names":              "select 1 from " + rep("a, ", n),
		"lines that close":   rep("/* a", n) + rep("-- */\n", n) + rep("*/", n),
		"brackets":           rep("f(", n),
	}
}

// The time that a body takes grows with its length.
func TestBodiesAreReadInTimeThatTheirLengthBounds(t *testing.T) {
	const perByte = 5 * (deepestRemark + 2)
	for what, body := range nasty(20000) {
		out, steps := spokenWords(body)
		if steps > perByte*len(body) {
			t.Errorf("%s: %d bytes, %d steps, %d for a byte", what, len(body), steps, steps/len(body))
		}
		if len(out) > len(body) {
			t.Errorf("%s: %d words in %d bytes", what, len(out), len(body))
		}
	}
	if out, _ := spokenWords(nasty(20000)["nested with words"]); !out["f"] || !out["b"] {
		t.Errorf("of nested comments: %d words, f is not among them", len(out))
	}
}

func TestWordsAreFoundOnceForAFunction(t *testing.T) {
	f := &Func{Body: "select a from b where c(1) <-> 2"}
	for what, find := range map[string]func() map[string]bool{"words": f.Words, "spoken": f.Spoken} {
		if n := testing.AllocsPerRun(10, func() { find() }); n > 1 {
			t.Errorf("%s: %v allocations, when they are known", what, n)
		}
	}
	if !maps.Equal(f.Spoken(), map[string]bool{"b": true, "c": true}) {
		t.Errorf("%v", f.Spoken())
	}
}

// FuzzSpoken compares with what takes the innermost comments out one by one, as often as there are any. Deeper than deepestRemark more words may
// count, and all do that may name something.
func FuzzSpoken(f *testing.F) {
	for _, body := range nasty(deepestRemark + 2) {
		f.Add(body)
	}
	for _, body := range nasty(3) {
		f.Add(body)
	}
	f.Add("select '/* ' || f /* inner */ (x) || ' */' from only a . b, -- c\n d")
	f.Add("perform g/**/(1); execute 'x'; truncate \"T\", t2")
	f.Add("from /*/* /*a*/ b*/ x/*/ y */ ,z")
	f.Fuzz(func(t *testing.T, body string) {
		all := levels(body)
		for i, at := range all {
			want := at
			if i+1 < len(all) {
				want = all[i+1]
			}
			if got, _ := withoutRemarks(at); got != want {
				t.Fatalf("%q without comments is %q, not %q", at, got, want)
			}
		}
		old := map[string]bool{}
		for _, at := range all {
			spoken(at, old)
		}
		got, _ := spokenWords(body)
		if len(all) <= deepestRemark+1 && !maps.Equal(got, old) {
			t.Fatalf("%q: %v, want %v", body, got, old)
		}
		for w := range old {
			if !got[w] && !strings.ContainsAny(w, "(,.") && !strings.Contains(w, "/*") && !strings.Contains(w, "*/") && !strings.Contains(w, "--") {
				t.Fatalf("%q: %q is not found", body, w)
			}
		}
	})
}
