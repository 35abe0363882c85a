package sqlparse

import (
	"fmt"
	"strings"
)

// Rekeyed is an UPDATE as the DELETE that gives back its rows as they would be, and the INSERT that takes them.
type Rekeyed struct {
	Delete, Insert string
}

// RekeyColumn is a column of the table that is updated: quoted, and the type that a value for it is cast to.
type RekeyColumn struct{ Name, Quoted, Type string }

// Rekey writes them. table is the table's name as it is quoted, target what qualifies its columns. ok is false where the
// text is not understood: WITH, an assignment of several columns or of DEFAULT.
func Rekey(sql, table, target string, columns []RekeyColumn, sets []Assign) (out Rekeyed, ok bool) {
	c, ok := clauses(sql)
	if !ok {
		return out, false
	}
	set := sql[c["set"].Start:c["set"].End]
	items, ok := list(set)
	if !ok || len(items) != len(sets) {
		return out, false
	}
	given := map[string]string{}
	for i, it := range items {
		expr, ok := assigned(set[it.Start:it.End])
		if !ok || given[sets[i].Column] != "" {
			return out, false
		}
		given[sets[i].Column] = expr
	}
	var returning, names, params []string
	for i, col := range columns {
		names, params = append(names, col.Quoted), append(params, fmt.Sprintf("$%d", i+1))
		expr := target + "." + col.Quoted
		if e, set := given[col.Name]; set {
			if col.Type == "" {
				return out, false
			}
			if strings.Contains(e, "--") { // perhaps a comment, which a line end ends
				e += "\n"
			}
			expr = "CAST((" + e + ") AS " + col.Type + ")"
		}
		if col.Type == "xml" { // which in binary would lose its declaration
			expr = "CAST(" + expr + " AS pg_catalog.text)"
		}
		returning = append(returning, expr)
	}
	out.Delete = "DELETE FROM " + sql[c["update"].Start:c["update"].End]
	if s, has := c["from"]; has {
		out.Delete += " USING " + sql[s.Start:s.End]
	}
	if s, has := c["where"]; has {
		out.Delete += " WHERE " + sql[s.Start:s.End]
	}
	out.Delete += "\nRETURNING " + strings.Join(returning, ", ")
	out.Insert = "INSERT INTO " + table + " AS " + target + " (" + strings.Join(names, ", ") + ") OVERRIDING SYSTEM VALUE VALUES (" + strings.Join(params, ", ") + ")"
	if s, has := c["returning"]; has {
		out.Insert += " RETURNING " + sql[s.Start:s.End]
	}
	return out, true
}

// clauses finds the parts of an UPDATE: behind UPDATE, SET, FROM, WHERE and RETURNING. Those of an expression stand in
// parentheses, but for IS DISTINCT FROM.
func clauses(sql string) (map[string]Span, bool) {
	l := lexer{s: []byte(sql)}
	out := map[string]Span{}
	depth, now, before := 0, "", ""
	end := func(at int) {
		if now != "" {
			s := out[now]
			s.End = at
			out[now] = s
		}
	}
	for {
		t := l.next()
		switch t.kind {
		case tokEOF:
			end(t.start)
			return out, out["update"] != (Span{}) && out["set"] != (Span{})
		case tokBad:
			return nil, false
		case tokWord:
			w := strings.ToLower(sql[t.start:t.end])
			if depth == 0 {
				switch {
				case now == "" && w != "update", w == "current" && before == "where":
					return nil, false
				case w == "update" && now == "", w == "set" && now == "update", w == "where" && now != "update", w == "returning" && now != "update",
					w == "from" && now == "set" && before != "distinct":
					end(t.start)
					now = w
					out[w] = Span{Start: t.end}
				}
			}
			before = w
		case tokComment:
		case tokSymbol:
			before = ""
			switch sql[t.start] {
			case '(', '[':
				depth++
			case ')', ']':
				depth--
			case ';':
				if depth == 0 {
					end(t.start)
					return out, out["set"] != (Span{})
				}
			}
		default:
			before = ""
		}
	}
}

// list takes text apart at its outermost commas.
func list(text string) (out []Span, ok bool) {
	l := lexer{s: []byte(text)}
	depth, start := 0, 0
	for {
		t := l.next()
		switch t.kind {
		case tokEOF:
			return append(out, Span{start, len(text)}), depth == 0
		case tokBad:
			return nil, false
		case tokSymbol:
			switch text[t.start] {
			case '(', '[':
				depth++
			case ')', ']':
				depth--
			case ',':
				if depth == 0 {
					out, start = append(out, Span{start, t.start}), t.end
				}
			}
		default: // passed over
		}
	}
}

// assigned is the expression of column = expression.
func assigned(item string) (string, bool) {
	l := lexer{s: []byte(item)}
	seen := false
	for {
		t := l.next()
		switch t.kind {
		case tokEOF, tokBad:
			return "", false
		case tokComment:
		case tokSymbol:
			if item[t.start] != '=' || !seen {
				return "", false
			}
			expr := strings.TrimSpace(item[t.end:])
			return expr, expr != "" && !strings.EqualFold(expr, "default")
		case tokWord, tokQuotedName:
			if seen {
				return "", false
			}
			seen = true
		default:
			return "", false
		}
	}
}
