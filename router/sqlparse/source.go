package sqlparse

import (
	"regexp"
	"strings"
)

// SourceOf takes an INSERT ... SELECT without WITH apart: its SELECT, and the tail, which begins with ON CONFLICT or RETURNING
// and may be empty. ok is false where the text is not understood.
func SourceOf(sql string) (source, tail string, ok bool) {
	l := lexer{s: []byte(sql)}
	depth, start, conflictAt := 0, -1, -1
	for {
		t := l.next()
		switch t.kind {
		case tokEOF:
			if start < 0 {
				return "", "", false
			}
			return sql[start:], "", true
		case tokBad:
			return "", "", false
		case tokComment:
		case tokWord:
			if depth > 0 {
				continue
			}
			w := strings.ToLower(sql[t.start:t.end])
			switch {
			case start < 0 && (w == "select" || w == "with" || w == "table"):
				start = t.start
			case start < 0 && (w == "values" || w == "default"):
				return "", "", false
			case start >= 0 && w == "returning":
				return sql[start:t.start], sql[t.start:], true
			case start >= 0 && w == "conflict" && conflictAt >= 0:
				return sql[start:conflictAt], sql[conflictAt:], true
			}
			conflictAt = -1
			if w == "on" {
				conflictAt = t.start
			}
		case tokSymbol:
			conflictAt = -1
			switch sql[t.start] {
			case '(':
				depth++
			case ')':
				depth--
			}
		default:
			conflictAt = -1
		}
	}
}

// HasParam says whether a parameter stands in a text.
func HasParam(sql string) bool {
	l := lexer{s: []byte(sql)}
	for {
		switch t := l.next(); t.kind {
		case tokEOF:
			return false
		case tokParam, tokBad:
			return true
		default: // passed over
		}
	}
}

var withData = regexp.MustCompile(`(?is)\s+with\s+(no\s+)?data\s*$`)

// MadeAs takes CREATE TABLE .. AS SELECT .. apart: what stands before the SELECT, and the SELECT.
func MadeAs(sql string) (head, source string, ok bool) {
	sql = withData.ReplaceAllString(strings.TrimRight(strings.TrimSpace(sql), "; \t\r\n"), "")
	l := lexer{s: []byte(sql)}
	for depth := 0; ; {
		t := l.next()
		switch {
		case t.kind == tokEOF || t.kind == tokBad:
			return "", "", false
		case t.kind == tokSymbol && sql[t.start] == '(':
			depth++
		case t.kind == tokSymbol && sql[t.start] == ')':
			depth--
		case t.kind == tokWord && depth == 0 && strings.EqualFold(sql[t.start:t.end], "as"):
			return sql[:t.end], sql[t.end:], true
		}
	}
}
