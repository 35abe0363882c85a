package pgsql

import "strings"

// CutIdent takes a quoted name off the front of a text. ok is false where there is none or it does not end.
func CutIdent(text string) (name, rest string, ok bool) { return cutQuoted(text, '"') }

// cutQuoted takes off what stands between two quotes, in which two of them are one.
func cutQuoted(text string, quote byte) (inside, rest string, ok bool) {
	if text == "" || text[0] != quote {
		return "", text, false
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		if text[i] != quote {
			b.WriteByte(text[i])
			continue
		}
		if i+1 == len(text) || text[i+1] != quote {
			return b.String(), text[i+1:], true
		}
		b.WriteByte(quote)
		i++
	}
	return "", text, false
}

// Names reads a list of names with commas between them, as PostgreSQL reads search_path: those without quotes in lower case.
func Names(text string) (names []string, ok bool) {
	text = strings.TrimLeft(text, spaces)
	if text == "" {
		return nil, true
	}
	for {
		name, rest, quoted := CutIdent(text)
		if !quoted {
			end := strings.IndexAny(text, ","+spaces)
			if end < 0 {
				end = len(text)
			}
			if end == 0 || text[0] == '"' {
				return nil, false
			}
			name, rest = strings.ToLower(text[:end]), text[end:]
		}
		names = append(names, name)
		rest = strings.TrimLeft(rest, spaces)
		if rest == "" {
			return names, true
		}
		if rest[0] != ',' {
			return nil, false
		}
		text = strings.TrimLeft(rest[1:], spaces)
	}
}

const spaces = " \t\n\r\f\v"

// Texts reads back what Literals wrote.
func Texts(sql string) (texts []string, ok bool) {
	for {
		escapes := strings.HasPrefix(sql, "E")
		body, rest, ok := cutQuoted(strings.TrimPrefix(sql, "E"), '\'')
		if !ok {
			return nil, false
		}
		if escapes {
			body = strings.ReplaceAll(body, `\\`, `\`)
		}
		texts = append(texts, body)
		if rest == "" {
			return texts, true
		}
		if sql, ok = strings.CutPrefix(rest, ", "); !ok {
			return nil, false
		}
	}
}
