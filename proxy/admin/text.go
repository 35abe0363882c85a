package admin

import (
	"strings"
	"unicode"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Check parses a statement and runs nothing. moves says that, once it has been run, dropping what the map then has does not take back what it
// has done: it moves data, or tells a server that it is another's from now on.
func Check(a *Admin, sql string) (moves bool, err error) {
	toks, err := lex(sql)
	if err != nil {
		return false, err
	}
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(*pgsql.Error)
			if !ok {
				panic(r)
			}
			err = e
		}
	}()
	a.statement(&parser{toks: toks, text: sql})
	for _, verb := range [][]string{{"distribute"}, {"undistribute"}} {
		if (&parser{toks: toks}).words(verb...) {
			return true, nil
		}
	}
	const adopt = 5 // of ALTER SHARD s IN db ADOPT
	return (&parser{toks: toks}).words("alter", "shard") && (&parser{toks: toks, at: adopt}).word("adopt"), nil
}

// Shown is a statement as a log may have it: on one line, without comments and passwords. One that cannot be read ends where its strings begin.
func Shown(sql string) string {
	toks, err := lex(sql)
	if err != nil {
		head, _, _ := strings.Cut(sql, "'")
		head, _, _ = strings.Cut(head, "--")
		return strings.Join(strings.Fields(head), " ") + " .."
	}
	r := []rune(sql)
	var b strings.Builder
	setting := len(toks) > 0 && toks[0].text == "set"
	for i, t := range toks[:len(toks)-1] {
		part := string(r[t.pos-1 : toks[i+1].pos-1])
		end := strings.IndexFunc(part, unicode.IsSpace)
		if comment := strings.Index(part, "--"); end < 0 || comment >= 0 && comment < end {
			end = comment
		}
		spaced := strings.TrimRightFunc(part, unicode.IsSpace) != part
		switch {
		case t.kind == 's' && setting:
			part = "'xxxxx'"
		case t.kind == 's':
			part = pgsql.Literal(maskDSN(t.text))
		case t.kind == 'q':
			part = pgsql.Ident(t.text)
		case end >= 0:
			part = part[:end]
		}
		b.WriteString(part)
		if spaced && i+2 < len(toks) {
			b.WriteByte(' ')
		}
	}
	return b.String()
}
