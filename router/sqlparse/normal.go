package sqlparse

import (
	"strconv"
	"strings"
)

// Normal is a statement's text with its literals replaced by parameters, numbered behind those that it has, and without its
// comments; "(not shown)" for a text that cannot be read. Unlike PostgreSQL's own it leaves no literal of a utility
// statement, which may be a password.
func Normal(text string) string {
	const hidden = "(not shown)"
	s := []byte(text)
	n := 0
	for l := (lexer{s: s}); ; {
		t := l.next()
		if t.kind == tokBad {
			return hidden
		}
		if t.kind == tokEOF {
			break
		}
		if t.kind == tokParam {
			if i, err := strconv.Atoi(string(s[t.start+1 : t.end])); err == nil {
				n = max(n, i)
			}
		}
	}
	var b strings.Builder
	for l := (lexer{s: s}); ; {
		t := l.next()
		switch t.kind {
		case tokEOF:
			return strings.TrimSpace(b.String())
		case tokComment:
			if !strings.HasSuffix(b.String(), " ") {
				b.WriteByte(' ')
			}
		case tokInt, tokNumber, tokString, tokOpaque:
			n++
			b.WriteString("$" + strconv.Itoa(n))
		default:
			b.Write(s[t.start:t.end])
		}
	}
}
