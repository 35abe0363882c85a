package sqlparse

import "strings"

// CopyInto is a COPY FROM of another table, with other columns: table and columns are as they are written in SQL. ok is false
// where the text is not understood.
func CopyInto(sql, table, columns string) (text string, ok bool) {
	l := lexer{s: []byte(sql)}
	depth, begun := 0, false
	for {
		t := l.next()
		switch t.kind {
		case tokEOF, tokBad:
			return "", false
		case tokWord:
			w := strings.ToLower(sql[t.start:t.end])
			switch {
			case !begun && w != "copy":
				return "", false
			case !begun:
				begun = true
			case depth == 0 && w == "from":
				return "COPY " + table + " (" + columns + ") " + sql[t.start:], true
			}
		case tokSymbol:
			switch sql[t.start] {
			case '(':
				depth++
			case ')':
				depth--
			}
		default: // passed over
		}
	}
}
