package sqlparse

import (
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Constancy says for how long an expression has one value, wherever it is evaluated.
type Constancy uint8

// The constancies.
const (
	Constant Constancy = iota
	Steady             // for the length of a statement, on one server
	Volatile           // not even so long
)

// Fills is what has to be known of a table all of whose copies are written alike.
type Fills struct {
	Columns []Fill               // those that can be written, in order
	Times   bool                 // some are dates or times, as which 'now' is no constant
	Varies  map[string]Constancy // the functions that the statement calls, by name or AsAttr; a Constant one need not be there
}

// Fill is a column with the default that fills it where a statement does not.
type Fill struct {
	Name, Default string
	Varies        Constancy // of the default
	Text          bool      // it holds texts
	Timed         bool      // a text that is put there may be read as a time, alone or inside of a value
	Named         bool      // it holds OIDs that are written as names
}

// Column finds a column.
func (f *Fills) Column(name string) Fill {
	if i := slices.IndexFunc(f.Columns, func(c Fill) bool { return c.Name == name }); i >= 0 {
		return f.Columns[i]
	}
	return Fill{Name: name}
}

// Left are the columns that would get another value on each copy, were they left to their defaults as all are but those given.
func (f *Fills) Left(given []string) (out []Fill) {
	for _, c := range f.Columns {
		if c.Varies != Constant && !slices.Contains(given, c.Name) {
			out = append(out, c)
		}
	}
	return out
}

// ReadsTimes says whether texts that are put into some columns may be read as times.
func (f *Fills) ReadsTimes(columns []string) bool {
	return slices.ContainsFunc(columns, func(n string) bool { return f.Column(n).Timed })
}

// Edit puts values that are made once in the place of what each copy would make for itself.
type Edit struct {
	At    Span
	Parts []Part
}

// Part is text, or an expression whose value stands there.
type Part struct {
	Text, Expr string
	Steady     bool // the expression has one value for the whole statement
	Default    bool // the expression is a column's default, as it is printed where search_path is pg_catalog
}

// Once finds in an INSERT, UPDATE or DELETE what would have another value on each copy of its table. why says what keeps it
// from being evaluated once; empty: nothing does.
func (s *Statement) Once(f *Fills) (edits []Edit, why string) {
	o := &once{s: s, f: f}
	switch x := s.inner().GetNode().(type) {
	case *pg.Node_InsertStmt:
		o.insert(x.InsertStmt)
		o.returning(x.InsertStmt.ReturningList)
	case *pg.Node_UpdateStmt:
		o.assigned(x.UpdateStmt.TargetList)
		o.calls(x.UpdateStmt.WhereClause, false)
		o.returning(x.UpdateStmt.ReturningList)
	case *pg.Node_DeleteStmt:
		o.calls(x.DeleteStmt.WhereClause, false)
		o.returning(x.DeleteStmt.ReturningList)
	default:
		o.why = "the statement is not understood"
	}
	if o.why != "" {
		return nil, o.why
	}
	slices.SortStableFunc(o.edits, func(a, b Edit) int {
		if a.At.Start != b.At.Start {
			return a.At.Start - b.At.Start
		}
		return a.At.End - b.At.End
	})
	return o.edits, ""
}

// Apply writes a text with edits. values are those of the expressions, in order, as SQL.
func Apply(text string, edits []Edit, values []string) string {
	var b strings.Builder
	at := 0
	for _, e := range edits {
		b.WriteString(text[at:e.At.Start])
		for _, p := range e.Parts {
			if p.Expr == "" {
				b.WriteString(p.Text)
				continue
			}
			b.WriteString(" " + values[0] + " ")
			values = values[1:]
		}
		at = e.At.End
	}
	return b.String() + text[at:]
}

type once struct {
	s     *Statement
	f     *Fills
	edits []Edit
	why   string
	gets  string // the column whose value is being looked at
}

func (o *once) cannot(format string, args ...any) {
	if o.why != "" {
		return
	}
	o.why = fmt.Sprintf(format, args...)
	if o.gets != "" {
		o.why = "column " + o.gets + ": " + o.why
	}
}

func (o *once) insert(x *pg.InsertStmt) {
	sel := x.SelectStmt.GetSelectStmt()
	var given []string
	for _, c := range x.Cols {
		given = append(given, c.GetResTarget().GetName())
	}
	if sel == nil {
		if left := o.left(nil); len(left) > 0 {
			o.defaultValues(left)
		}
		return
	}
	rows, ok := ValuesRows(o.s.Text)
	if !ok || len(rows) != len(sel.ValuesLists) {
		o.cannot("its VALUES are not understood")
		return
	}
	named := given != nil
	if !named {
		for i := range sel.ValuesLists[0].GetList().GetItems() {
			if i < len(o.f.Columns) {
				given = append(given, o.f.Columns[i].Name)
			}
		}
	}
	left := o.left(given)
	if len(left) > 0 {
		o.head(left, given, named, rows[0].Start)
	}
	for i, r := range sel.ValuesLists {
		if len(left) > 0 {
			e := Edit{At: Span{rows[i].Start + 1, rows[i].Start + 1}}
			for _, c := range left {
				e.Parts = append(e.Parts, Part{Expr: c.Default, Steady: c.Varies == Steady, Default: true}, Part{Text: ", "})
			}
			o.edits = append(o.edits, e)
		}
		for j, item := range r.GetList().GetItems() {
			switch d := item.GetSetToDefault(); {
			case d == nil:
				column := ""
				if j < len(given) {
					column = given[j]
				}
				o.value(item, column, true)
			case j < len(given):
				o.defaulted(d, given[j], true)
			}
		}
	}
	o.assigned(x.OnConflictClause.GetTargetList())
	o.calls(x.OnConflictClause.GetWhereClause(), false)
}

// left are the columns that are left to defaults which vary.
func (o *once) left(given []string) []Fill {
	left := o.f.Left(given)
	for _, c := range left {
		if c.Default == "" {
			o.cannot("column %s draws from a sequence of each shard's own", c.Name)
		}
	}
	return left
}

// head adds columns to an INSERT's list of them, or writes that list.
func (o *once) head(left []Fill, given []string, named bool, rows int) {
	names := make([]string, len(left))
	for i, c := range left {
		names[i] = c.Name
	}
	head := o.s.Text[:rows]
	if named {
		open := listStart(head)
		if open < 0 {
			o.cannot("its column list is not understood")
			return
		}
		o.edits = append(o.edits, Edit{At: Span{open + 1, open + 1}, Parts: []Part{{Text: pgsql.List(names) + ", "}}})
		return
	}
	at := wordAt(head, "overriding", "values")
	if at < 0 {
		o.cannot("its VALUES are not understood")
		return
	}
	o.edits = append(o.edits, Edit{At: Span{at, at}, Parts: []Part{{Text: "(" + pgsql.List(append(names, given...)) + ") "}}})
}

func (o *once) defaultValues(left []Fill) {
	at := wordAt(o.s.Text, "default")
	end := -1
	if at >= 0 {
		end = wordAt(o.s.Text[at:], "values")
	}
	if end < 0 {
		o.cannot("its DEFAULT VALUES are not understood")
		return
	}
	names := make([]string, len(left))
	e := Edit{At: Span{at, at + end + len("values")}}
	for i, c := range left {
		names[i] = c.Name
	}
	e.Parts = append(e.Parts, Part{Text: "(" + pgsql.List(names) + ") VALUES ("})
	for i, c := range left {
		if i > 0 {
			e.Parts = append(e.Parts, Part{Text: ", "})
		}
		e.Parts = append(e.Parts, Part{Expr: c.Default, Steady: c.Varies == Steady, Default: true})
	}
	e.Parts = append(e.Parts, Part{Text: ")"})
	o.edits = append(o.edits, e)
}

// assigned looks at column = expression, of UPDATE and of ON CONFLICT: it is evaluated for each row.
func (o *once) assigned(targets []*pg.Node) {
	for _, t := range targets {
		r := t.GetResTarget()
		val := r.GetVal()
		if m := val.GetMultiAssignRef(); m != nil { // (a, b) = source: each column has all of it
			row := m.Source.GetRowExpr().GetArgs()
			switch at := int(m.Colno) - 1; {
			case at < len(row):
				val = row[at]
			case at > 0:
				continue
			default:
				val = m.Source
			}
		}
		if d := val.GetSetToDefault(); d != nil {
			o.defaulted(d, r.Name, false)
			continue
		}
		o.value(val, r.Name, false)
	}
}

// value looks at what a column gets: of a constant it is known what it is read as.
func (o *once) value(n *pg.Node, column string, inRow bool) {
	o.gets = column
	defer func() { o.gets = "" }()
	c := n.GetAConst()
	switch {
	case c == nil:
		o.calls(n, inRow)
	case o.f.Column(column).Timed && IsMoment(c.GetSval().GetSval()):
		o.cannot("%s may be another time on each shard", pgsql.Literal(c.GetSval().GetSval()))
	}
}

// defaulted is DEFAULT for a column. In VALUES it is evaluated once, elsewhere for each row.
func (o *once) defaulted(d *pg.SetToDefault, column string, inRow bool) {
	c := o.f.Column(column)
	switch {
	case c.Varies == Constant:
	case c.Default == "":
		o.cannot("column %s draws from a sequence of each shard's own", column)
	case c.Varies == Volatile && !inRow:
		o.cannot("the default of column %s has another value for each row", column)
	default:
		start := int(d.Location) - o.s.base
		end := start + len("default")
		if end > len(o.s.Text) || !strings.EqualFold(o.s.Text[start:end], "default") {
			o.cannot("DEFAULT stands in an unusual place")
			return
		}
		o.edits = append(o.edits, Edit{At: Span{start, end}, Parts: []Part{{Expr: c.Default, Steady: c.Varies == Steady, Default: true}}})
	}
}

// returning is evaluated by each copy, and home's answer counts: only what has effects must not stand there.
func (o *once) returning(list []*pg.Node) {
	for _, n := range list {
		walk(n, func(m any) bool {
			if x, ok := m.(*pg.FuncCall); ok && o.f.Varies[lastName(x.Funcname)] == Volatile {
				o.cannot("%s() stands in RETURNING", lastName(x.Funcname))
			} else if name := o.varying(m, Steady); name != "" {
				o.cannot("%s, which is called as an attribute, stands in RETURNING", name)
			}
			return true
		})
	}
}

// calls looks for calls of functions whose value varies. inRow: in a row of VALUES, where each is evaluated once.
func (o *once) calls(n *pg.Node, inRow bool) {
	if n == nil {
		return
	}
	walk(n, func(m any) bool {
		switch x := m.(type) {
		case *pg.FuncCall:
			name := lastName(x.Funcname)
			v := o.f.Varies[name]
			if v == Constant {
				o.castByName(name, x.Args)
				return true
			}
			switch end := callEnd(o.s.Text, int(x.Location)-o.s.base, name); {
			case v == Volatile && !inRow:
				o.cannot("%s() has another value for each row", name)
			case !standsAlone(x):
				o.cannot("%s() is called with a column, a parameter or a subquery, and may give another value on each shard", name)
			case end < 0:
				o.cannot("the call of %s() is not understood", name)
			default:
				o.put(int(x.Location)-o.s.base, end, v)
			}
			return false
		case *pg.ColumnRef, *pg.A_Indirection:
			if name := o.varying(m, Constant); name != "" {
				o.cannot("%s, which is called as an attribute, may give another value on each shard", name)
			}
			if x, ok := m.(*pg.A_Indirection); ok {
				for _, f := range x.Indirection {
					o.castByName(f.GetString_().GetSval(), []*pg.Node{x.Arg})
				}
			}
		case *pg.SQLValueFunction: // CURRENT_TIMESTAMP and its kin
			start := int(x.Location) - o.s.base
			if end := keywordEnd(o.s.Text, start); end > 0 {
				o.put(start, end, Steady)
			} else {
				o.cannot("a keyword like CURRENT_TIMESTAMP is not understood")
			}
		case *pg.A_Const:
			if o.f.Times && MayBeMoment(x.GetSval().GetSval()) {
				o.cannot("%s may be another time on each shard", pgsql.Literal(x.GetSval().GetSval()))
			}
		case *pg.TypeCast:
			t := lastName(x.TypeName.GetNames())
			if inner := x.Arg.GetTypeCast(); inner != nil && byName(lastName(inner.TypeName.GetNames())) && (t == "text" || t == "varchar") {
				return false // the name is the same everywhere
			}
			if byName(t) && !o.f.Column(o.gets).Named {
				o.cannot("%s is another OID on each shard", t)
			}
			switch c := x.Arg.GetAConst(); {
			case c != nil && (MayBeMoment(c.GetSval().GetSval()) || timed[t] && IsMoment(c.GetSval().GetSval())):
				o.cannot("%s may be another time on each shard", pgsql.Literal(c.GetSval().GetSval()))
			case c == nil && timed[t] && (o.madeUp(x.Arg) || holdsMoment(x.Arg)):
				o.cannot("a text that is read as a time may be another one on each shard")
			}
		}
		return true
	})
}

// castByName looks at f(x) and (x).f where f is a type of times: these are casts, which may read the present moment.
func (o *once) castByName(f string, args []*pg.Node) {
	if timed[f] && len(args) == 1 && (o.madeUp(args[0]) || holdsMoment(args[0])) {
		o.cannot("a text that is read as a time may be another one on each shard")
	}
}

// varying names an attribute of a node that is a call whose value varies more than some; empty for none.
func (o *once) varying(m any, than Constancy) string {
	var c Called
	c.attributes(m)
	for _, at := range c.Attrs {
		if o.f.Varies[AsAttr(at.Name)] > than {
			return at.Name
		}
	}
	return ""
}

func (o *once) put(start, end int, v Constancy) {
	o.edits = append(o.edits, Edit{At: Span{start, end}, Parts: []Part{{Expr: o.s.Text[start:end], Steady: v == Steady}}})
}

// byName says whether a type's values are OIDs that are written as names.
func byName(t string) bool { return strings.HasPrefix(t, "reg") && len(t) > len("reg") }

// IsMoment says whether a text, read as a date or time, hangs on the present moment or day.
func IsMoment(text string) bool {
	if len(text) > 100 {
		return false
	}
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return r < 'a' || r > 'z' })
	return slices.ContainsFunc(words, func(w string) bool { return w == "now" || w == "today" || w == "tomorrow" || w == "yesterday" })
}

// beside are words that stand beside those of a moment.
var beside = map[string]bool{"now": true, "today": true, "tomorrow": true, "yesterday": true, "am": true, "pm": true, "utc": true, "gmt": true, "z": true, "t": true, "allballs": true, "infinity": true}

// MayBeMoment is IsMoment for a text of which it is not known what it is read as: one that would make no sense as a time is none.
func MayBeMoment(text string) bool {
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return r < 'a' || r > 'z' })
	return IsMoment(text) && !slices.ContainsFunc(words, func(w string) bool { return !beside[w] })
}

// timed are the types whose values may hang on the present moment when they are read from a text.
var timed = map[string]bool{"date": true, "time": true, "timetz": true, "timestamp": true, "timestamptz": true, "abstime": true, "tsrange": true, "tstzrange": true, "daterange": true, "tsmultirange": true, "tstzmultirange": true, "datemultirange": true}

// texts are functions that give texts, as which a moment may be made up.
var texts = map[string]bool{"concat": true, "concat_ws": true, "format": true, "lower": true, "upper": true, "initcap": true, "btrim": true, "ltrim": true, "rtrim": true, "substring": true, "substr": true, "left": true, "right": true, "replace": true, "overlay": true, "reverse": true, "repeat": true, "lpad": true, "rpad": true, "split_part": true, "translate": true, "regexp_replace": true, "string_agg": true, "array_to_string": true, "convert_from": true}

// holdsMoment says whether a text in an expression hangs on the present moment, once it is read as a time.
func holdsMoment(n *pg.Node) (yes bool) {
	walk(n, func(m any) bool {
		c, ok := m.(*pg.A_Const)
		yes = yes || ok && IsMoment(c.GetSval().GetSval())
		return !yes
	})
	return yes
}

// madeUp says whether an expression may be a text whose value is not known here.
func (o *once) madeUp(n *pg.Node) (yes bool) {
	walk(n, func(m any) bool {
		switch x := m.(type) {
		case *pg.A_Expr:
			yes = yes || lastName(x.Name) == "||"
		case *pg.FuncCall:
			yes = yes || texts[lastName(x.Funcname)]
		case *pg.ColumnRef:
			yes = yes || o.f.Column(lastName(x.Fields)).Text
		case *pg.TypeCast:
			t := lastName(x.TypeName.GetNames())
			yes = yes || (t == "text" || t == "varchar" || t == "bpchar") && x.Arg.GetAConst() == nil && x.Arg.GetParamRef() == nil
		}
		return !yes
	})
	return yes
}

// standsAlone says whether a call's value hangs on nothing around it.
func standsAlone(x *pg.FuncCall) bool {
	alone := x.Over == nil && x.AggFilter == nil && !x.AggStar && !x.AggDistinct && len(x.AggOrder) == 0
	walk(x, func(m any) bool {
		switch m.(type) {
		case *pg.ColumnRef, *pg.ParamRef, *pg.SubLink, *pg.RangeVar:
			alone = false
		}
		return alone
	})
	return alone
}

// callEnd is where a call of a function ends that begins at a place; -1 where it is written in another way than name(..).
func callEnd(text string, start int, name string) int {
	if start < 0 || start > len(text) {
		return -1
	}
	l := lexer{s: []byte(text), pos: start}
	depth, last := 0, ""
	for {
		t := l.next()
		switch t.kind {
		case tokEOF, tokBad:
			return -1
		case tokComment:
		case tokWord, tokQuotedName:
			if depth == 0 {
				last = text[t.start:t.end]
				if in, _, ok := pgsql.CutIdent(last); ok {
					last = in
				} else {
					last = strings.ToLower(last)
				}
			}
		case tokSymbol:
			switch text[t.start] {
			case '(':
				if depth == 0 && last != name {
					return -1
				}
				depth++
			case ')':
				if depth--; depth == 0 {
					return t.end
				}
			case '.':
			default:
				if depth == 0 {
					return -1
				}
			}
		default:
			if depth == 0 {
				return -1
			}
		}
	}
}

// keywordEnd is where a keyword ends that begins at a place, with its precision.
func keywordEnd(text string, start int) int {
	if start < 0 || start > len(text) {
		return -1
	}
	l := lexer{s: []byte(text), pos: start}
	t := l.next()
	if t.kind != tokWord {
		return -1
	}
	end := t.end
	if t = l.next(); t.kind == tokComment {
		t = l.next()
	}
	if t.kind == tokSymbol && text[t.start] == '(' {
		for t.kind != tokEOF && t.kind != tokBad {
			if t.kind == tokSymbol && text[t.start] == ')' {
				return t.end
			}
			t = l.next()
		}
		return -1
	}
	return end
}

// wordAt is where the first of some words stands outside of all parentheses; -1 for nowhere.
func wordAt(text string, words ...string) int {
	l := lexer{s: []byte(text)}
	depth := 0
	for {
		t := l.next()
		switch t.kind {
		case tokEOF, tokBad:
			return -1
		case tokWord:
			if depth == 0 && slices.Contains(words, strings.ToLower(text[t.start:t.end])) {
				return t.start
			}
		case tokSymbol:
			switch text[t.start] {
			case '(':
				depth++
			case ')':
				depth--
			}
		default: // passed over
		}
	}
}
