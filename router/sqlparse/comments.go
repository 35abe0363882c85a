package sqlparse

import (
	"bytes"
	"slices"
	"unicode/utf8"
)

// PostgreSQL's scanner takes the longest run of operator characters there is, and gives back what belongs to a comment or to the next
// operator. It takes the square of the length of texts where comments touch or stand in each other, and of runs like +-+-+-.
const (
	fewComments = 8    // so many it gets as they are
	longestRun  = 1000 // of operator characters outside of comments
)

// scannable makes a text one that PostgreSQL's scanner reads in time that grows with its length: it blanks the comments of one that has
// many, in place. What comes of the text, and where, is the same: a comment is white space, but not between the parts of a string,
// which a newline joins: there it stays one.
func scannable(text []byte) error {
	if bytes.Count(text, []byte("/*")) <= fewComments && !hasRun(text) {
		return nil
	}
	run := 0
	for i := 0; i < len(text); {
		c := text[i]
		at := i
		switch {
		case c == '\'':
			i = behindString(text, i, false)
		case c == '"':
			_, i = quoted(text, i, '"', false)
		case c == '$':
			i = behindDollar(text, i)
		case isIdentStart(c):
			i = behindWord(text, i)
		case c == '-' && i+1 < len(text) && text[i+1] == '-':
			i = behindLine(text, i)
		case c == '/' && i+1 < len(text) && text[i+1] == '*':
			i = blankComments(text, i)
		default:
			i++
		}
		if run++; i != at+1 || !isOperator(c) {
			run = 0
		}
		if run > longestRun {
			return &SyntaxError{"operator too long", utf8.RuneCount(text[:at]) + 1}
		}
	}
	return nil
}

// hasRun says whether so many operator characters stand together, wherever that is.
func hasRun(text []byte) bool {
	run := 0
	for _, c := range text {
		if run++; !isOperator(c) {
			run = 0
		}
		if run > longestRun {
			return true
		}
	}
	return false
}

func isOperator(c byte) bool { return operators[c] }

var operators = func() (is [256]bool) {
	for _, c := range []byte("~!@#^&|`?+-*/%<>=") {
		is[c] = true
	}
	return is
}()

// blankComments blanks the comment at i, and those that touch it, and returns where they end.
func blankComments(text []byte, i int) int {
	kind, end := tokComment, i
	for kind == tokComment && end+1 < len(text) && text[end] == '/' && text[end+1] == '*' {
		kind, end = blockComment(text, end)
	}
	all := text[i:end]
	if kind != tokComment { // it does not end, which is an error from here on
		blank(all[2:])
		return len(text)
	}
	if beforeString(text, end) || slices.ContainsFunc(all, func(c byte) bool { return c >= 0x80 }) {
		blank(all[2 : len(all)-2])
		return end
	}
	blank(all)
	return end
}

func blank(b []byte) {
	for i, c := range b {
		if c < 0x80 { // characters are counted, too
			b[i] = ' '
		}
	}
}

// beforeString says whether a string follows, behind white space and comments.
func beforeString(text []byte, i int) bool {
	for i < len(text) {
		switch {
		case isSpace(text[i]):
			i++
		case text[i] == '-' && i+1 < len(text) && text[i+1] == '-':
			i = behindLine(text, i)
		default:
			return text[i] == '\'' || text[i] == '/' && i+1 < len(text) && text[i+1] == '*'
		}
	}
	return false
}

func behindLine(text []byte, i int) int {
	for i < len(text) && text[i] != '\n' && text[i] != '\r' {
		i++
	}
	return i
}

// behindString is where a string ends, with the parts that a newline joins to it.
func behindString(text []byte, i int, escapes bool) int {
	for {
		for i++; i < len(text) && text[i] != '\''; i++ {
			if escapes && text[i] == '\\' {
				i++
			}
		}
		if i++; i >= len(text) {
			return len(text)
		}
		next, line := i, false
		for next < len(text) {
			if text[next] == '-' && next+1 < len(text) && text[next+1] == '-' {
				next = behindLine(text, next)
			} else if isSpace(text[next]) {
				line = line || text[next] == '\n' || text[next] == '\r'
				next++
			} else {
				break
			}
		}
		if next >= len(text) || text[next] != '\'' || !line && next > i {
			return i
		}
		i = next // doubled, or joined
	}
}

// behindDollar is where a string in dollars ends, or the dollar.
func behindDollar(text []byte, i int) int {
	end := i + 1
	for end < len(text) && text[end] != '$' && isIdent(text[end]) && (end > i+1 || !isDigit(text[end])) {
		end++
	}
	if end >= len(text) || text[end] != '$' {
		return i + 1
	}
	tag := text[i : end+1]
	body := bytes.Index(text[end+1:], tag)
	if body < 0 {
		return len(text)
	}
	return end + 1 + body + len(tag)
}

// behindWord is where a word ends, or the string that it begins.
func behindWord(text []byte, i int) int {
	if i+1 < len(text) && text[i+1] == '\'' && bytes.IndexByte([]byte("eEbBxXnN"), text[i]) >= 0 {
		return behindString(text, i+1, text[i] == 'e' || text[i] == 'E')
	}
	for i < len(text) && isIdent(text[i]) {
		i++
	}
	return i
}
