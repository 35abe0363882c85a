package sqlparse

import "strings"

// SourceOf is the SELECT of an INSERT ... SELECT without WITH, ON CONFLICT and RETURNING: the text from its first word on.
// ok is false where the text is not understood.
func SourceOf(sql string) (string, bool) {
	l := lexer{s: []byte(sql)}
	depth := 0
	for {
		t := l.next()
		switch t.kind {
		case tokEOF, tokBad:
			return "", false
		case tokWord:
			if depth == 0 {
				switch strings.ToLower(sql[t.start:t.end]) {
				case "select", "with", "table":
					return sql[t.start:], true
				case "values", "default":
					return "", false
				}
			}
		case tokSymbol:
			switch sql[t.start] {
			case '(':
				depth++
			case ')':
				depth--
			}
		}
	}
}
