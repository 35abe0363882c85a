package sqlparse

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// inner is the query inside a COPY, DECLARE or EXPLAIN, or the statement itself.
func (s *Statement) inner() *pg.Node {
	n, ok := s.tree.(*pg.Node)
	switch {
	case !ok:
		return nil
	case s.Kind == Copy:
		return n.GetCopyStmt().GetQuery()
	case s.Kind == Cursor:
		return n.GetDeclareCursorStmt().GetQuery()
	case s.Kind == Explain:
		return n.GetExplainStmt().GetQuery()
	}
	return n
}

// wrap gives the text around the query that stands in a COPY, DECLARE or EXPLAIN. It is cut out of the client's own text:
// the library's writer of those crashes on some options. ok is false where the query is not found.
func (s *Statement) wrap() (before, after string, ok bool) {
	l := lexer{s: []byte(s.Text)}
	word := func() (string, token) {
		t := l.next()
		for t.kind == tokComment {
			t = l.next()
		}
		return strings.ToLower(s.Text[t.start:t.end]), t
	}
	closing := func() (token, bool) { // behind an opening parenthesis
		for depth := 1; ; {
			w, t := word()
			switch {
			case t.kind == tokEOF || t.kind == tokBad:
				return t, false
			case w == "(":
				depth++
			case w == ")":
				if depth--; depth == 0 {
					return t, true
				}
			}
		}
	}
	first, last := word()
	switch {
	case s.Kind == Copy && first == "copy":
		if w, t := word(); w == "(" {
			end, ok := closing()
			return s.Text[:t.end], s.Text[end.start:], ok
		}
	case s.Kind == Cursor && first == "declare":
		for {
			w, t := word()
			if t.kind == tokEOF || t.kind == tokBad {
				return "", "", false
			}
			if w == "for" {
				return s.Text[:t.end], "", true
			}
		}
	case s.Kind == Explain && first == "explain":
		w, t := word()
		if w == "(" {
			end, ok := closing()
			return s.Text[:end.end], "", ok
		}
		for w == "analyze" || w == "analyse" || w == "verbose" {
			last = t
			w, t = word()
		}
		return s.Text[:last.end], "", true
	}
	return "", "", false
}
