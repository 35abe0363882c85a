package sqlparse

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// Called is what a statement runs, as far as its text tells.
type Called struct {
	Funcs     []string  // every function called as f(..), by its last name
	Attrs     []Attr    // what may be the call of another one
	Ops       []string  // every operator, by its symbol, once, and those that stand behind keywords
	TypeNames []string  // every type that is named, by its last name, once
	Counters  []Counter // the calls of Funcs that are of sequences
}

// Attr is t.f or (x).f. It is a column of the row or a field of the value, if that has one of the name; else PostgreSQL calls the function
// of the name with it: https://www.postgresql.org/docs/current/rowtypes.html#ROWTYPES-USAGE. Which of them, only who knows the
// tables and the functions can tell.
type Attr struct {
	Row  string // what t.f is of, by its last name; empty for (x).f
	Name string
}

// attributes notes what a node has of them.
func (c *Called) attributes(m any) {
	switch x := m.(type) {
	case *pg.ColumnRef:
		if n := len(x.Fields); n > 1 {
			if name := lastName(x.Fields); name != "" { // else t.*
				c.Attrs = append(c.Attrs, Attr{x.Fields[n-2].GetString_().GetSval(), name})
			}
		}
	case *pg.A_Indirection:
		for _, n := range x.Indirection {
			if name := n.GetString_().GetSval(); name != "" { // else a subscript, or *
				c.Attrs = append(c.Attrs, Attr{"", name})
			}
		}
	}
}

// unmistakable says whether (x).f is taken for a call of one of PostgreSQL's own functions whatever x is: no field has such a name, and
// what it does ties a session to its server, or is for home alone.
func unmistakable(f string) bool {
	switch f {
	case "nextval", "currval", "setseed", "pg_terminate_backend", "pg_cancel_backend":
		return true
	}
	return strings.HasPrefix(f, "pg_advisory_") || strings.HasPrefix(f, "pg_try_advisory_") || strings.HasPrefix(f, "lo_")
}

// AsAttr is how a function stands in Fills.Varies that is called as an attribute: a column of its name is something else.
func AsAttr(f string) string { return "." + f }

// implied notes the operators that stand behind a kind of expression, besides the one that it names.
func (c *Called) implied(kind pg.A_Expr_Kind) {
	switch kind {
	case pg.A_Expr_Kind_AEXPR_BETWEEN, pg.A_Expr_Kind_AEXPR_BETWEEN_SYM:
		c.op(">=")
		c.op("<=")
	case pg.A_Expr_Kind_AEXPR_NOT_BETWEEN, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		c.op("<")
		c.op(">")
	}
}

func (c *Called) op(name string) {
	if !slices.Contains(c.Ops, name) {
		c.Ops = append(c.Ops, name)
	}
}
