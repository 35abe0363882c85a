package sqlparse

import (
	"bytes"
	"strings"
)

// tokenKind is what the lexer tells apart. It knows just enough of PostgreSQL's scan.l to find where
// literals, comments and quoted names begin and end.
type tokenKind uint8

const (
	tokEOF tokenKind = iota
	tokWord
	tokQuotedName
	tokInt     // decimal digits only
	tokNumber  // with a point or an exponent
	tokString  // '...' with no prefix
	tokOpaque  // E'', B'', X'', U&'', N'', dollar quotes, 0x1F, 1_000: left as they are
	tokParam   // $1
	tokSymbol  // one operator or punctuation byte
	tokComment // or white space
	tokBad     // unterminated, or a byte that no statement of ours holds
)

type token struct {
	kind       tokenKind
	start, end int
}

// lexer walks SQL text under standard_conforming_strings = on. Source: PostgreSQL's "Lexical
// Structure" chapter; a fuzz test compares it with the server's own scanner.
type lexer struct {
	s   []byte
	pos int
}

func (l *lexer) next() token {
	s, i := l.s, l.pos
	if i >= len(s) {
		return token{tokEOF, i, i}
	}
	kind, end := tokSymbol, i+1
	c := s[i]
	switch {
	case isSpace(c):
		for end < len(s) && isSpace(s[end]) {
			end++
		}
		kind = tokComment
	case c == '-' && end < len(s) && s[end] == '-':
		for end < len(s) && s[end] != '\n' && s[end] != '\r' {
			end++
		}
		kind = tokComment
	case c == '/' && end < len(s) && s[end] == '*':
		kind, end = blockComment(s, i)
	case c == '\'':
		kind, end = quoted(s, i, '\'', false)
		if kind == tokQuotedName {
			kind = tokString
		}
	case c == '"':
		kind, end = quoted(s, i, '"', false)
	case c == '$':
		kind, end = dollar(s, i)
	case isDigit(c) || c == '.' && end < len(s) && isDigit(s[end]):
		kind, end = number(s, i)
	case isIdentStart(c):
		kind, end = word(s, i)
	case c == '.' && end < len(s) && s[end] == '.': // PL/pgSQL's range: no SQL of ours
		kind = tokBad
	case c < ' ' || c == 0x7f:
		kind = tokBad
	}
	l.pos = end
	return token{kind, i, end}
}

func isSpace(c byte) bool {
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'
}
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isIdentStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}
func isIdent(c byte) bool { return isIdentStart(c) || isDigit(c) || c == '$' }

func blockComment(s []byte, i int) (tokenKind, int) {
	depth := 0
	for i < len(s) {
		switch {
		case s[i] == '/' && i+1 < len(s) && s[i+1] == '*':
			depth++
			i += 2
		case s[i] == '*' && i+1 < len(s) && s[i+1] == '/':
			depth--
			i += 2
			if depth == 0 {
				return tokComment, i
			}
		default:
			i++
		}
	}
	return tokBad, i
}

// quoted ends at an undoubled quote. With escapes, a backslash protects the byte behind it.
func quoted(s []byte, i int, q byte, escapes bool) (tokenKind, int) {
	for i++; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] == q && i+1 < len(s) && s[i+1] == q:
			i++
		case s[i] == q:
			if q == '\'' && continues(s, i+1) {
				return tokBad, len(s)
			}
			return tokQuotedName, i + 1
		}
	}
	return tokBad, len(s)
}

// continues says whether a string goes on behind i: white space with a newline, and a quote. Nobody writes that, so it
// is enough to know it.
func continues(s []byte, i int) bool {
	line := false
	for i < len(s) {
		switch {
		case isSpace(s[i]):
			line = line || s[i] == '\n' || s[i] == '\r'
			i++
		case s[i] == '-' && i+1 < len(s) && s[i+1] == '-':
			for i < len(s) && s[i] != '\n' && s[i] != '\r' {
				i++
			}
		default:
			return line && s[i] == '\''
		}
	}
	return false
}

func dollar(s []byte, i int) (tokenKind, int) {
	end := i + 1
	if end < len(s) && isDigit(s[end]) {
		for end < len(s) && isDigit(s[end]) {
			end++
		}
		if end < len(s) && isIdent(s[end]) {
			return tokBad, end
		}
		return tokParam, end
	}
	for end < len(s) && s[end] != '$' && isIdent(s[end]) {
		end++
	}
	if end >= len(s) || s[end] != '$' {
		return tokBad, end
	}
	tag := s[i : end+1]
	body := bytes.Index(s[end+1:], tag)
	if body < 0 {
		return tokBad, len(s)
	}
	return tokOpaque, end + 1 + body + len(tag)
}

func number(s []byte, i int) (tokenKind, int) {
	end, kind := i, tokInt
	for end < len(s) && isDigit(s[end]) {
		end++
	}
	if end < len(s) && s[end] == '.' && (end+1 >= len(s) || s[end+1] != '.') {
		kind = tokNumber
		for end++; end < len(s) && isDigit(s[end]); end++ {
		}
	}
	if end < len(s) && (s[end] == 'e' || s[end] == 'E') {
		j := end + 1
		if j < len(s) && (s[j] == '+' || s[j] == '-') {
			j++
		}
		if j < len(s) && isDigit(s[j]) {
			kind = tokNumber
			for end = j; end < len(s) && isDigit(s[end]); end++ {
			}
		}
	}
	if end < len(s) && isIdent(s[end]) { // 0x1F, 1_000, 1abc: the server decides what that is
		for end < len(s) && s[end] != '$' && isIdent(s[end]) {
			end++
		}
		if end < len(s) && strings.IndexByte("$.+-", s[end]) >= 0 { // 1_000.5, 1_0e+5, and what no statement holds
			return tokBad, end
		}
		return tokOpaque, end
	}
	return kind, end
}

func word(s []byte, i int) (tokenKind, int) {
	if i+1 < len(s) && s[i+1] == '\'' {
		switch s[i] {
		case 'e', 'E':
			return opaque(quoted(s, i+1, '\'', true))
		case 'b', 'B', 'x', 'X', 'n', 'N':
			return opaque(quoted(s, i+1, '\'', false))
		}
	}
	if i+2 < len(s) && (s[i] == 'u' || s[i] == 'U') && s[i+1] == '&' && (s[i+2] == '\'' || s[i+2] == '"') {
		return opaque(quoted(s, i+2, s[i+2], false))
	}
	end := i
	for end < len(s) && isIdent(s[end]) {
		end++
	}
	return tokWord, end
}

func opaque(kind tokenKind, end int) (tokenKind, int) {
	if kind == tokQuotedName {
		kind = tokOpaque
	}
	return kind, end
}

// Literal is a literal that Strip took out of the text.
type Literal struct {
	Kind       ValueKind // ValInt, ValNumber or ValString
	Start, End int
}

// Strip appends sql to key with its plain literals replaced by a mark of their class, and the literals
// to lits. Two texts with the same key parse to the same tree but for the values. ok is false for text
// that must not share a plan: then key and lits mean nothing. Other forms of literal stay in the key.
func Strip(key []byte, lits []Literal, sql []byte) (outKey []byte, outLits []Literal, ok bool) {
	l := lexer{s: sql}
	for {
		t := l.next()
		switch t.kind {
		case tokEOF:
			return key, lits, true
		case tokBad:
			return key, lits, false
		case tokInt:
			if t.end-t.start > 18 {
				key = append(key, sql[t.start:t.end]...)
				continue
			}
			key = append(key, 1, 'i')
			lits = append(lits, Literal{ValInt, t.start, t.end})
			// The class must say whether the server reads int4 or int8.
			if t.end-t.start > 9 {
				key[len(key)-1] = 'I'
			}
		case tokNumber:
			key = append(key, 1, 'n')
			lits = append(lits, Literal{ValNumber, t.start, t.end})
		case tokString:
			key = append(key, 1, 's')
			lits = append(lits, Literal{ValString, t.start, t.end})
		default:
			key = append(key, sql[t.start:t.end]...)
		}
	}
}

// Value is the literal's value as the server reads it.
func (l Literal) Value(sql []byte) string {
	b := sql[l.Start:l.End]
	if l.Kind != ValString {
		return string(b)
	}
	return strings.ReplaceAll(string(b[1:len(b)-1]), "''", "'")
}

// Span is a part of a statement's text.
type Span struct{ Start, End int }

// ValuesRows finds the parenthesised rows behind the first VALUES outside parentheses. ok is false
// where the text holds no such list or something that the lexer does not know.
func ValuesRows(sql string) (rows []Span, ok bool) {
	l := lexer{s: []byte(sql)}
	depth, seen, start := 0, false, 0
	for {
		t := l.next()
		switch t.kind {
		case tokEOF:
			return rows, len(rows) > 0
		case tokBad:
			return nil, false
		case tokComment:
		case tokWord:
			if depth == 0 && !seen {
				seen = strings.EqualFold(sql[t.start:t.end], "values")
			} else if depth == 0 && seen {
				return rows, len(rows) > 0 // ON CONFLICT, RETURNING
			}
		case tokSymbol:
			switch sql[t.start] {
			case '(':
				if depth == 0 {
					start = t.start
				}
				depth++
			case ')':
				depth--
				if depth == 0 && seen {
					rows = append(rows, Span{start, t.end})
				}
			case ';':
				if depth == 0 {
					return rows, len(rows) > 0
				}
			}
		default:
			if depth == 0 && seen {
				return nil, false
			}
		}
	}
}
