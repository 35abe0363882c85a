package admin

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// tok is one token of admin SQL.
type tok struct {
	kind byte // w word, q quoted name, s string, n number, p punctuation, 0 end
	text string
	pos  int // 1-based character position
}

// lex splits admin SQL into tokens; names and strings quote as in PostgreSQL. In an E'..' a backslash stands for nothing but itself
// and quotes.
func lex(s string) ([]tok, error) {
	var out []tok
	r := []rune(s)
	for i := 0; i < len(r); {
		c := r[i]
		start := i
		switch {
		case unicode.IsSpace(c):
			i++
			continue
		case c == '-' && i+1 < len(r) && r[i+1] == '-':
			for i < len(r) && r[i] != '\n' {
				i++
			}
			continue
		case c == '\'' || c == '"' || (c == 'E' || c == 'e') && i+1 < len(r) && r[i+1] == '\'':
			var b strings.Builder
			escapes := c == 'E' || c == 'e'
			if escapes {
				i++
				c = '\''
			}
			for i++; ; i++ {
				if i >= len(r) {
					return nil, syntaxAt(start+1, "unterminated quoted string")
				}
				if escapes && r[i] == '\\' {
					if i++; i >= len(r) || r[i] != '\\' && r[i] != '\'' {
						return nil, syntaxAt(i, "invalid escape: in E'..' a backslash stands before another one or a quote")
					}
					b.WriteRune(r[i])
					continue
				}
				if r[i] == c {
					if i+1 < len(r) && r[i+1] == c {
						i++
					} else {
						i++
						break
					}
				}
				b.WriteRune(r[i])
			}
			kind := byte('s')
			if c == '"' {
				kind = 'q'
			}
			out = append(out, tok{kind, b.String(), start + 1})
			continue
		case unicode.IsDigit(c) || c == '-' && i+1 < len(r) && unicode.IsDigit(r[i+1]):
			for i++; i < len(r) && (unicode.IsDigit(r[i]) || r[i] == '.'); i++ {
			}
			out = append(out, tok{'n', string(r[start:i]), start + 1})
			continue
		case unicode.IsLetter(c) || c == '_':
			for i < len(r) && (unicode.IsLetter(r[i]) || unicode.IsDigit(r[i]) || r[i] == '_' || r[i] == '$') {
				i++
			}
			out = append(out, tok{'w', strings.ToLower(string(r[start:i])), start + 1})
			continue
		}
		i++
		text := string(c)
		if i < len(r) && (c == '<' || c == '>' || c == '!') && (r[i] == '=' || r[i] == '>') {
			text += string(r[i])
			i++
		}
		out = append(out, tok{'p', text, start + 1})
	}
	return append(out, tok{0, "", len(r) + 1}), nil
}

func syntaxAt(pos int, format string, args ...any) *pgsql.Error {
	return &pgsql.Error{Code: pgsql.SyntaxError, Message: fmt.Sprintf(format, args...), Pos: pos, Hint: "HELP lists the statements, HELP verb shows one."}
}

// parser walks the tokens of one statement. The first mistake ends it: must and its kin panic with *Error,
// which Parse turns into its result.
type parser struct {
	toks []tok
	at   int
	text string
}

func (p *parser) peek() tok { return p.toks[p.at] }

func (p *parser) next() tok {
	t := p.toks[p.at]
	if t.kind != 0 {
		p.at++
	}
	return t
}

func (p *parser) fail(format string, args ...any) {
	panic(syntaxAt(p.peek().pos, format, args...))
}

func (p *parser) near() string {
	switch t := p.peek(); t.kind {
	case 0:
		return "end of statement"
	case 's':
		return fmt.Sprintf("%q", maskDSN(t.text)) // what init_sql says goes to the log
	default:
		return fmt.Sprintf("%q", t.text)
	}
}

// word takes the next token if it is this keyword.
func (p *parser) word(w string) bool {
	if t := p.peek(); t.kind == 'w' && t.text == w {
		p.at++
		return true
	}
	return false
}

// words takes a sequence of keywords, or nothing.
func (p *parser) words(ws ...string) bool {
	for i, w := range ws {
		if p.at+i >= len(p.toks) || p.toks[p.at+i].kind != 'w' || p.toks[p.at+i].text != w {
			return false
		}
	}
	p.at += len(ws)
	return true
}

func (p *parser) must(ws ...string) {
	for _, w := range ws {
		if !p.word(w) {
			p.fail("syntax error at %s: %s was expected", p.near(), strings.ToUpper(w))
		}
	}
}

func (p *parser) punct(s string) bool {
	if t := p.peek(); t.kind == 'p' && t.text == s {
		p.at++
		return true
	}
	return false
}

func (p *parser) mustPunct(s string) {
	if !p.punct(s) {
		p.fail("syntax error at %s: \"%s\" was expected", p.near(), s)
	}
}

func (p *parser) name(what string) string {
	t := p.peek()
	if t.kind != 'w' && t.kind != 'q' {
		p.fail("syntax error at %s: the name of a %s was expected", p.near(), what)
	}
	p.at++
	return t.text
}

func (p *parser) str(what string) string {
	t := p.peek()
	if t.kind != 's' {
		p.fail("syntax error at %s: %s in quotes was expected", p.near(), what)
	}
	p.at++
	return t.text
}

func (p *parser) end() {
	p.punct(";")
	if p.peek().kind != 0 {
		p.fail("syntax error at %s", p.near())
	}
}

// tableRef is database.schema.table, or database.table for schema public.
func (p *parser) tableRef() (db, schema, table string) {
	db = p.name("database")
	p.mustPunct(".")
	schema = p.name("schema")
	if p.punct(".") {
		return db, schema, p.name("table")
	}
	return db, "public", schema
}

// escapePrefix is what stands before the quote of a string with escapes.
var escapePrefix = regexp.MustCompile(`(^|[^\pL\pN_$])[Ee]$`)

// SplitStatements cuts at semicolons outside quotes. An empty text is one empty statement.
func SplitStatements(sql string) []string {
	var out []string
	start, quote, escapes := 0, byte(0), false
	for i := 0; i < len(sql); i++ {
		switch c := sql[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			} else if c == '\\' && escapes {
				i++
			}
		case c == '\'' || c == '"':
			quote = c
			escapes = c == '\'' && escapePrefix.MatchString(sql[start:i])
		case c == ';':
			out = append(out, sql[start:i])
			start = i + 1
		}
	}
	if rest := sql[start:]; strings.TrimSpace(rest) != "" || len(out) == 0 {
		out = append(out, rest)
	}
	return out
}
