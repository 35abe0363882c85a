package sqlparse

import pg "github.com/pganalyze/pg_query_go/v5"

// Made is what a value is made of, but for what is inside of its aggregates.
type Made struct {
	Funcs, Ops, Types []string // what it calls and casts to, by bare name
	Cols              []Col    // of * the name is empty
	Clock             bool     // it reads the moment, or who is asking and where
	Attrs             bool     // a function may be called as an attribute
	Subs              bool     // of what is in a subquery, too
}

// Made is what an expression is made of.
func (e Expr) Made() Made { return made(e.node) }

func made(n *pg.Node) (m Made) {
	if n == nil {
		return m
	}
	walk(n, func(x any) bool {
		if isAggregate(x) {
			return false
		}
		m.add(x)
		_, sub := x.(*pg.SubLink)
		m.Subs = m.Subs || sub
		return !sub
	})
	return m
}

func (m *Made) add(x any) {
	if call, is := x.(*pg.FuncCall); is && lastName(call.Funcname) == "age" && len(call.Args) == 2 { // between two times, whatever the moment
		return
	}
	m.Clock = m.Clock || readsClock(x)
	switch x := x.(type) {
	case *pg.FuncCall:
		m.Funcs = append(m.Funcs, lastName(x.Funcname))
	case *pg.A_Expr:
		m.Ops = withName(m.Ops, x.Name)
	case *pg.TypeName:
		m.Types = withName(m.Types, x.Names)
	case *pg.A_Indirection:
		for _, i := range x.Indirection {
			m.Attrs = m.Attrs || i.GetString_() != nil
		}
	case *pg.ColumnRef:
		var names []string
		for _, f := range x.Fields {
			names = append(names, f.GetString_().GetSval()) // empty for *
		}
		if len(names) > 2 {
			m.Attrs = true
			return
		}
		col := Col{Name: names[len(names)-1]}
		if len(names) > 1 {
			col.Qual = names[0]
		}
		m.Cols = append(m.Cols, col)
	}
}
