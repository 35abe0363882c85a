package sqlparse

import (
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// InList finds the constants of x IN (1, 'a', NULL) in a text, by the place of its IN. ok is false where anything else stands there.
func InList(text string, at int) (items []Span, ok bool) {
	if at < 0 || at >= len(text) {
		return nil, false
	}
	return inList(&lexer{s: []byte(text), pos: at})
}

// inList reads the word IN and the list behind it.
func inList(l *lexer) (items []Span, ok bool) {
	is := func(t token, word string) bool {
		return t.kind == tokWord && strings.EqualFold(string(l.s[t.start:t.end]), word)
	}
	next := func() token {
		t := l.next()
		for t.kind == tokComment {
			t = l.next()
		}
		return t
	}
	if !is(next(), "in") {
		return nil, false
	}
	if t := next(); t.kind != tokSymbol || l.s[t.start] != '(' {
		return nil, false
	}
	depth, item := 0, Span{-1, -1}
	for {
		t := next()
		switch {
		case t.kind == tokInt, t.kind == tokNumber, t.kind == tokString, t.kind == tokOpaque, is(t, "null"):
		case t.kind != tokSymbol:
			return nil, false
		case l.s[t.start] == '-', l.s[t.start] == '+':
		case l.s[t.start] == '(':
			depth++
		case l.s[t.start] == ')' && depth > 0:
			depth--
		case (l.s[t.start] == ')' || l.s[t.start] == ',') && depth == 0 && item.Start >= 0:
			items = append(items, item)
			if l.s[t.start] == ')' {
				return items, true
			}
			item.Start = -1
			continue
		default:
			return nil, false
		}
		if item.Start < 0 {
			item.Start = t.start
		}
		item.End = t.end
	}
}

// FindInList finds the place of the IN of the only list in a text, written by a deparser, that has just these constants. ok is false where there is
// none, or more than one.
func FindInList(text string, vals []Value) (at int, ok bool) {
	for l := (lexer{s: []byte(text)}); ; {
		t := l.next()
		switch t.kind {
		case tokEOF:
			return at, ok
		case tokBad:
			return 0, false
		case tokWord:
			items, is := inList(&lexer{s: l.s, pos: t.start})
			if !is || len(items) != len(vals) {
				continue
			}
			for i := range vals {
				is = is && text[items[i].Start:items[i].End] == vals[i].written()
			}
			if is && ok {
				return 0, false
			}
			if is {
				at, ok = t.start, true
			}
		default: // passed over
		}
	}
}

// written is a constant as a deparser writes it.
func (v *Value) written() string {
	switch v.Kind {
	case ValNull:
		return "NULL"
	case ValString:
		return pgsql.Literal(v.Text)
	default:
		return v.Text
	}
}
