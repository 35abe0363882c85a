package schema

import (
	"regexp"
	"strings"
	"sync"
)

// What a function's body says is looked up by every statement that calls the function, and is found once. The time that takes grows
// with the body's length, whatever stands in it.

// said is something that is found once. It is nobody's to change.
type said[T any] struct {
	once sync.Once
	what T
}

func (s *said[T]) find(f func() T) T {
	s.once.Do(func() { s.what = f() })
	return s.what
}

// Words are the distinct identifiers of a function's body, for a conservative look at what it touches.
func (f *Func) Words() map[string]bool {
	return f.words.find(func() map[string]bool {
		out := map[string]bool{}
		words(f.Body, out)
		return out
	})
}

func words(body string, out map[string]bool) {
	for w := range strings.FieldsFuncSeq(body, func(r rune) bool {
		return !(r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r > 127)
	}) {
		out[w] = true
	}
}

// ofRow is a field of the row that a trigger fires for.
var ofRow = regexp.MustCompile(`\b(?:new|old)[ \t]*\.[ \t]*(?:"[^"]*"|[a-z0-9_\x{80}-\x{10ffff}]+)`)

// BesideRow are the Words of a trigger function's body but the fields of NEW and OLD, where these are no schemas.
func (f *Func) BesideRow() map[string]bool {
	return f.beside.find(func() map[string]bool {
		out := map[string]bool{}
		words(ofRow.ReplaceAllString(f.Body, " "), out)
		return out
	})
}

// tells is what gives the time, or the database's name, without being called.
var tells = regexp.MustCompile(`\b(?:current_(?:date|time|timestamp|catalog)|localtime(?:stamp)?)\b|'\s*(?:now|today|tomorrow|yesterday)\b`)

// Tells says whether a function's body has words by which its value may be another one whenever and wherever it is called.
func (f *Func) Tells() bool {
	return f.tells.find(func() bool { return tells.MatchString(f.Body) })
}

// Spoken are the words of an immutable function's body that stand where it would read a table or call a function: it may have
// the name of any for one of its own.
func (f *Func) Spoken() map[string]bool {
	return f.spoken.find(func() map[string]bool {
		out, _ := spokenWords(f.Body)
		return out
	})
}

// deepestRemark is how deep what looks like comments may be nested for the words between them to be told apart. Deeper down each word
// counts as spoken.
const deepestRemark = 8

// spokenWords finds the words, and says how many bytes it has looked at. What looks like a comment may stand in a string: words count
// with and without what looks so, of nested ones with and without the innermost, and so on.
func spokenWords(body string) (out map[string]bool, steps int) {
	out = map[string]bool{}
	for range deepestRemark + 1 {
		spoken(body, out)
		bare, looked := withoutRemarks(body)
		if steps += len(body) + looked; bare == body {
			return out, steps
		}
		body = bare
	}
	for w := range strings.FieldsFuncSeq(unmarked.Replace(body), betweenWords) {
		out[w] = true
	}
	words(body, out)
	return out, steps + 2*len(body)
}

// withoutRemarks is a text with a space for each of the innermost of what looks like comments in it, and how many bytes were looked at.
func withoutRemarks(s string) (bare string, steps int) {
	var b strings.Builder
	from, closed := 0, len(s) // no comment ends behind closed
	for i := 0; i+1 < len(s); steps++ {
		end := -1
		switch {
		case s[i] == '-' && s[i+1] == '-':
			if end = strings.IndexByte(s[i:], '\n'); end < 0 {
				end = len(s) - i
			}
			end += i
		case s[i] == '/' && s[i+1] == '*' && i < closed:
			at := nextMark(s, i+2)
			steps += at - i
			switch {
			case at == len(s):
				closed = i
			case s[at] == '*':
				end = at + 2
			}
		}
		if end < 0 {
			i++
			continue
		}
		steps += end - i
		b.WriteString(s[from:i])
		b.WriteByte(' ')
		from, i = end, end
	}
	if from == 0 {
		return s, steps
	}
	b.WriteString(s[from:])
	return b.String(), steps
}

// nextMark is where something that begins or ends a comment stands next; the text's end for nowhere.
func nextMark(s string, at int) int {
	for ; at+1 < len(s); at++ {
		if s[at] == '*' && s[at+1] == '/' || s[at] == '/' && s[at+1] == '*' {
			return at
		}
	}
	return len(s)
}

var (
	apart    = strings.NewReplacer("(", " ( ", ",", " , ", ".", " . ")
	unmarked = strings.NewReplacer("(", " ", ",", " ", ".", " ", "/*", " ", "*/", " ", "--", " ")
)

func betweenWords(r rune) bool {
	return r == '"' || r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == ';' || r == ')'
}

// spoken adds the words of a text that stand where a table or a function does.
func spoken(body string, out map[string]bool) {
	words := strings.FieldsFunc(apart.Replace(body), betweenWords)
	named := false // the words that follow name a table
	for i, w := range words {
		switch w {
		case "from", "join", "into", "update", "table", "truncate":
			named = true
			if w != "from" && w != "join" && w != "table" {
				out[w] = true
			}
			continue
		case "only", ".", ",":
			continue
		case "(":
			if i > 0 {
				out[words[i-1]] = true
			}
			named = false
			continue
		case "execute", "insert", "delete", "merge":
			out[w] = true
		}
		if named {
			out[w] = true
			named = i+1 < len(words) && (words[i+1] == "." || words[i+1] == ",")
		}
	}
}
