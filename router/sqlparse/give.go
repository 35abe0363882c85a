package sqlparse

import (
	"strconv"
	"strings"
)

// GiveColumn gives an INSERT's rows the values of one more column, or those where DEFAULT stands in column at. head is the
// text up to the first row, with its column list; rows are the parenthesised rows. One value is taken for each row that
// wants one. ok is false where the text is not understood.
func GiveColumn(head string, rows []string, column string, at int, values []int64) (newHead string, newRows []string, ok bool) {
	next := func() (string, bool) {
		if len(values) == 0 {
			return "", false
		}
		v := strconv.FormatInt(values[0], 10)
		values = values[1:]
		return v, true
	}
	newRows = make([]string, len(rows))
	if at < 0 {
		open := listStart(head)
		if open < 0 {
			return "", nil, false
		}
		for i, r := range rows {
			v, ok := next()
			if !ok {
				return "", nil, false
			}
			newRows[i] = "(" + v + ", " + r[1:]
		}
		return head[:open+1] + column + ", " + head[open+1:], newRows, true
	}
	for i, r := range rows {
		newRows[i] = r
		items, ok := list(r[1 : len(r)-1])
		if !ok || at >= len(items) {
			return "", nil, false
		}
		s := Span{items[at].Start + 1, items[at].End + 1}
		if strings.EqualFold(strings.TrimSpace(r[s.Start:s.End]), "default") {
			v, ok := next()
			if !ok {
				return "", nil, false
			}
			newRows[i] = r[:s.Start] + " " + v + r[s.End:]
		}
	}
	return head, newRows, len(values) == 0
}

// listStart is where the parenthesis of the column list opens: the last one before VALUES at the outermost level.
func listStart(head string) int {
	l := lexer{s: []byte(head)}
	depth, start := 0, -1
	for {
		t := l.next()
		switch t.kind {
		case tokEOF:
			return start
		case tokBad:
			return -1
		case tokSymbol:
			switch head[t.start] {
			case '(':
				if depth == 0 {
					start = t.start
				}
				depth++
			case ')':
				depth--
			}
		default: // passed over
		}
	}
}
