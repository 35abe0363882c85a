package sqlparse

import (
	"strings"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// Counter is a call of nextval, currval or setval, and what its text says of the sequence.
type Counter struct {
	Func string

	// Name is the sequence, or with Column the table to whose column it belongs, as pg_get_serial_sequence finds it. Known is false where a
	// value tells which it is, or a number.
	Name   TableRef
	Column string
	Known  bool
}

// counts notes the call of a function of sequences.
func (c *Called) counts(x *pg.FuncCall) {
	name := lastName(x.Funcname)
	if name != "nextval" && name != "currval" && name != "setval" {
		return
	}
	n := Counter{Func: name}
	if len(x.Args) > 0 {
		arg := uncast(x.Args[0])
		if f := arg.GetFuncCall(); lastName(f.GetFuncname()) == "pg_get_serial_sequence" && len(f.Args) == 2 {
			table, ok := constantText(f.Args[0])
			column, is := constantText(f.Args[1])
			if n.Name, n.Known = readName(table); n.Known {
				n.Column, n.Known = column, ok && is && column != ""
			}
		} else if s, ok := constantText(arg); ok {
			n.Name, n.Known = readName(s)
		}
	}
	c.Counters = append(c.Counters, n)
}

// uncast is what is cast to a text or to the name of a relation, by itself.
func uncast(n *pg.Node) *pg.Node {
	for t := n.GetTypeCast(); t != nil; t = n.GetTypeCast() {
		switch name := lastName(t.TypeName.GetNames()); {
		case len(t.TypeName.Typmods) > 0: // which cuts it
			return n
		case name == "regclass" || name == "text" || name == "varchar":
			n = t.Arg
		default:
			return n
		}
	}
	return n
}

// constantText is the text that a constant is.
func constantText(n *pg.Node) (s string, ok bool) {
	c := uncast(n).GetAConst()
	if c.GetSval() == nil {
		return "", false
	}
	return c.GetSval().Sval, true
}

// readName reads the name of a relation as PostgreSQL reads a text as one: https://www.postgresql.org/docs/current/datatype-oid.html. ok is
// false for a number, and for what is no name.
func readName(s string) (ref TableRef, ok bool) {
	var parts []string
	for s = strings.TrimSpace(s); ; s = strings.TrimSpace(s[1:]) {
		var part string
		if strings.HasPrefix(s, `"`) {
			for s = s[1:]; ; {
				before, rest, closed := strings.Cut(s, `"`)
				if !closed {
					return ref, false
				}
				part += before
				if s = rest; !strings.HasPrefix(s, `"`) {
					break
				}
				part, s = part+`"`, s[1:]
			}
		} else {
			end := strings.IndexAny(s, ". \t\n\r\f\v\"")
			if end < 0 {
				end = len(s)
			}
			part, s = asciiLower(s[:end]), s[end:]
			if strings.Trim(part, "0123456789") == "" {
				return ref, false
			}
		}
		parts = append(parts, cut(part))
		if s = strings.TrimSpace(s); s == "" {
			break
		}
		if s[0] != '.' {
			return ref, false
		}
	}
	switch len(parts) {
	case 1:
		return TableRef{Name: parts[0]}, parts[0] != ""
	case 2:
		return TableRef{Schema: parts[0], Name: parts[1]}, parts[0] != "" && parts[1] != ""
	}
	return ref, false
}

// nameBytes is how much of a name PostgreSQL keeps.
const nameBytes = 63

// cut is what PostgreSQL keeps of a name that is too long.
func cut(name string) string {
	if len(name) <= nameBytes {
		return name
	}
	end := nameBytes
	for end > 0 && !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end]
}

// asciiLower folds the letters that PostgreSQL folds in every encoding.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// OwnedBy is the table that ALTER SEQUENCE has a sequence belong to; empty for none.
func OwnedBy(s *Statement) (ref TableRef) {
	for _, o := range s.inner().GetAlterSeqStmt().GetOptions() {
		d := o.GetDefElem()
		if names := d.GetArg().GetList().GetItems(); d.GetDefname() == "owned_by" && len(names) > 1 {
			ref.Name = names[len(names)-2].GetString_().GetSval()
			if len(names) > 2 {
				ref.Schema = names[len(names)-3].GetString_().GetSval()
			}
		}
	}
	return ref
}

// Undrawn are the columns that ALTER TABLE drops, or gives another default or none. cascade says that others' may go with one.
func Undrawn(s *Statement) (columns []string, cascade bool) {
	for _, n := range s.inner().GetAlterTableStmt().GetCmds() {
		c := n.GetAlterTableCmd()
		if c.GetSubtype() == pg.AlterTableType_AT_DropColumn || c.GetSubtype() == pg.AlterTableType_AT_ColumnDefault {
			columns, cascade = append(columns, c.Name), cascade || c.Behavior == pg.DropBehavior_DROP_CASCADE
		}
	}
	return columns, cascade
}
