package main

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
)

// choices is what makes one statement of the generator: its draws, kept, so that a failing one can be shrunk by
// leaving some out. A draw of 0 is the simplest way on, and so is what lies behind the end.
type choices struct {
	drawn []int
	at    int
	rng   *rand.Rand // nil: only what was drawn before
}

func (c *choices) pick(n int) int {
	v := 0
	switch {
	case c.at < len(c.drawn):
		v = c.drawn[c.at] % n
	case c.rng != nil:
		v = c.rng.IntN(n)
		c.drawn = append(c.drawn, v)
	}
	c.at++
	return v
}

func (c *choices) of(list ...string) string { return list[c.pick(len(list))] }

// The generator's types: values of one can be compared. Numerics are rounded where they are put out, since equal ones
// may print differently and either is right.
type kind int

var namesColumn = regexp.MustCompile(`\bt\d+\.`)

const (
	kInt kind = iota
	kText
	kNum
	kDate
	kFloat
	kBig
	kinds
)

type genCol struct {
	expr string
	kind kind
}

// gen writes one statement over the diff schema. It knows the types, so that what it writes mostly runs.
type gen struct {
	*choices
	names int
	ctes  []genRel
}

type genRel struct {
	name string
	cols []genCol // bare names
}

var genTables = []genRel{
	{"customers", []genCol{{"customer_id", kInt}, {"name", kText}, {"country", kText}, {"small", kInt}, {"big", kBig}, {"ratio", kFloat}, {"day", kDate}}},
	{"orders", []genCol{{"customer_id", kInt}, {"order_id", kInt}, {"total", kNum}}},
	{"texts", []genCol{{"k", kText}, {"v", kInt}}},
	{`"Odd Table"`, []genCol{{`"Key"`, kInt}, {`"select"`, kText}}},
	{"marks", []genCol{{"region", kText}, {"day", kDate}, {"n", kInt}, {"points", kInt}}},
	{"medals", []genCol{{"area", kText}, {"day", kDate}, {"medal", kText}}},
	{"tenant.things", []genCol{{"id", kInt}, {"name", kText}}},
	{"tenant.parts", []genCol{{"id", kInt}, {"thing", kInt}, {"customer", kInt}}},
	{"countries", []genCol{{"code", kText}, {"name", kText}}},
	{"settings", []genCol{{"name", kText}, {"value", kText}}},
	{`"odd.schema"."odd.name"`, []genCol{{`"key.col"`, kInt}, {`"a.b"`, kInt}, {`"it's ""said"""`, kText}, {`"group"`, kText}, {`"UPPER"`, kDate}}},
	{oddLong, []genCol{{oddKey, kInt}, {`"select"`, kText}, {`"x y"`, kInt}}},
	{`"ref.odd"`, []genCol{{`"co.de"`, kText}, {`"na""me"`, kText}}},
	{`"home.odd"`, []genCol{{`"table"`, kInt}, {`"v.w"`, kText}}},
	{`"odd.schema"."odd.view"`, []genCol{{`"k.v"`, kInt}, {`"n.m"`, kInt}}},
	{"rich", []genCol{{"customer_id", kInt}, {"country", kText}, {"n", kInt}}},
	{"spenders", []genCol{{"customer_id", kInt}, {"total", kNum}}},
}

func (g *gen) alias() string {
	g.names++
	return fmt.Sprintf("t%d", g.names)
}

// rel writes one FROM item and says what columns it has.
func (g *gen) rel(depth int) (sql, alias string, cols []genCol) {
	alias = g.alias()
	var r genRel
	switch n := g.pick(12); {
	case n < 4:
		r = genTables[0]
	case n < 6:
		r = genTables[1]
	case n < 8:
		r = genTables[2+g.pick(len(genTables)-2)]
	case n == 8 && len(g.ctes) > 0:
		r = g.ctes[g.pick(len(g.ctes))]
	case n == 9:
		return "generate_series(1, " + g.of("3", "25") + ") " + alias + "(g)", alias, []genCol{{alias + ".g", kInt}}
	case n == 10:
		return "(" + g.overlap() + ") " + alias, alias, prefixedCols(alias, []genCol{{"x", kInt}, {"y", kInt}, {"z", kInt}})
	case depth > 0:
		q, out := g.query(depth-1, false)
		sql = "(" + q + ") " + alias
		for i, k := range out {
			cols = append(cols, genCol{fmt.Sprintf("%s.c%d", alias, i), k})
		}
		return sql, alias, cols
	default:
		r = genTables[1]
	}
	for _, c := range r.cols {
		cols = append(cols, genCol{alias + "." + c.expr, c.kind})
	}
	return r.name + " " + alias, alias, cols
}

// overlapping are queries whose z is the key; so is the x of one and the y of another, so that a name that is looked for in the wrong place is
// found there.
var overlapping = []string{
	"(select customer_id as x, small as y, customer_id as z from customers)", "(select order_id as x, customer_id as y, customer_id as z from orders)",
	`(select "Key" as x, "Key" as y, "Key" as z from "Odd Table")`, "(select small as x, customer_id as y, customer_id as z from customers)",
}

// overlap writes a query with columns x, y and z of which tables that it joins have several.
func (g *gen) overlap() string {
	a, b := g.of(overlapping...)+" a", g.of(overlapping...)+" b"
	other := g.of(`(select "Key" as w from "Odd Table") o`, "(select customer_id as w from orders) o")
	switch g.pick(4) {
	case 1: // the sublink means b's x
		test := g.of("x in (select w from "+other+")", "x not in (select w from "+other+")", "exists (select 1 from "+other+" where w = x)", "exists (select 1 from "+other+", lateral (select w as v limit 1) l where v = x)")
		return "select a.x, c.y, c.z from " + a + " join (select y, z from " + b + " where " + test + ") c on c.z = a.z"
	case 2: // and so does ON
		return "select a.x, b.y, b.z from " + a + ", " + b + g.of(" join ", " left join ") + other + " on o.w = b.z and x" + g.of(" = ", " < ") + g.literal(kInt) + " where a.z = b.z"
	case 3:
		return "select b.x, a.y, a.z from " + a + g.of(" join ", " left join ") + "(" + b + " join " + other + " on w = z and y = " + g.literal(kInt) + ") on b.z = a.z"
	}
	return "select " + g.of("b.*", "a.*") + " from " + a + g.of(" join ", " left join ") + b + " on b.z = a.z"
}

// among tests a number by rows of which an outer join blanks some, or DISTINCT ON leaves some.
func (g *gen) among() string {
	return g.of(" not in ", " in ") + g.of("(select q.z from countries k left join (select customer_id as z, country from customers where small = "+g.literal(kInt)+") q on q.country = k.code where k.code = 'DE')",
		"(select distinct on (y) z from "+g.of(overlapping...)+" q order by y, z desc)")
}

// narrow writes little around such a query, so that its rows are tied to shards, grouped and merged.
func (g *gen) narrow() string {
	by := g.of("t.x", "t.y", "t.z")
	from := " from (" + g.overlap() + ") t" + g.of("", " where "+g.of("t.x", "t.y", "t.z")+g.of(" = ", " < ")+g.literal(kInt), " where t.z"+g.among())
	switch g.pick(6) {
	case 5: // rows as values
		row := g.of("row("+by+")", "row(t.x, t.z)", "array[row("+by+")]")
		return g.of("select distinct "+row+" as c0"+from, "select count(distinct "+row+") as c0"+from, "select "+row+" as c0, count(*) as c1"+from+" group by 1", "select "+row+" as c0"+from+" order by 1 limit 3")
	case 1:
		return "select " + by + " as c0, count(*) as c1, sum(t.z) as c2" + from + " group by " + g.of("1", by)
	case 2:
		return "select distinct " + by + " as c0" + from
	case 3:
		return "select " + by + " as c0, count(*) over (partition by " + by + ") as c1" + from
	case 4:
		first := g.of("x", "y", "z")
		return "select distinct on (" + first + ") " + g.of("t.x, t.y, t.z as n", "t.y as x, t.x as y, t.z", "t.*") + from + " order by " + first + ", t.z, t.x, t.y"
	}
	return "select t.x as c0, t.y as c1, t.z as c2" + from
}

// from writes FROM with up to three relations.
func (g *gen) from(depth int, outer []genCol) (string, []genCol) {
	sql, _, cols := g.rel(depth)
	for range g.pick(3) {
		right, _, rc := g.rel(depth)
		join := g.of("join", "left join", "right join", "full join", "left join", "join")
		on := g.equal(cols, rc)
		if join != "full join" && g.pick(3) == 1 {
			on += " and " + g.cond(0, append(append([]genCol(nil), cols...), rc...))
		}
		sql += " " + join + " " + right + " on " + on
		cols = append(append([]genCol(nil), cols...), rc...)
	}
	return sql, cols
}

// equal joins two relations on columns of one kind; the first pair is most often the keys.
func (g *gen) equal(left, right []genCol) string {
	for range 4 {
		l, r := left[g.pick(len(left))], right[g.pick(len(right))]
		if l.kind == r.kind {
			return r.expr + " = " + l.expr
		}
	}
	for _, l := range left {
		for _, r := range right {
			if l.kind == r.kind {
				return r.expr + " = " + l.expr
			}
		}
	}
	return left[0].expr + " is not null and " + right[0].expr + " is not null"
}

func (g *gen) literal(k kind) string {
	switch k {
	case kInt:
		return g.of("3", "1", "5", "7", "11", "19", "20", "0", "-1", "62", "null::int", "'4'::int")
	case kText:
		return g.of("'DE'", "'n3'", "'a'", "'x5'", "''", "'FR'", "'it''s'", "'AT'::varchar")
	case kNum:
		return g.of("1", "2.5", "0.71", "3.0", "100")
	case kDate:
		return g.of("date '2026-01-02'", "date '2026-01-03'")
	case kFloat:
		return g.of("1.5", "0", "'NaN'::float8")
	case kBig:
		return g.of("460000000000000000", "0", "9200000000000000000")
	default:
		panic("no such kind")
	}
}

func (g *gen) column(k kind, cols []genCol) string {
	var of []string
	for _, c := range cols {
		if c.kind == k {
			of = append(of, c.expr)
		}
	}
	if len(of) == 0 {
		return g.literal(k)
	}
	return g.of(of...)
}

// expr writes an expression of a kind.
func (g *gen) expr(depth int, k kind, cols []genCol) string {
	n := g.pick(8)
	if depth <= 0 || n < 4 {
		return g.column(k, cols)
	}
	a := g.expr(depth-1, k, cols)
	switch {
	case n == 4 && k == kInt:
		return "(" + a + " " + g.of("+", "-") + " " + g.expr(depth-1, k, cols) + ")"
	case n == 4 && k == kText:
		return "(" + a + " || " + g.literal(k) + ")"
	case n == 5 && k == kInt:
		return "length(" + g.expr(depth-1, kText, cols) + ")"
	case n == 5 && k == kText:
		return "upper(" + a + ")"
	case n == 6:
		return "case when " + g.cond(depth-1, cols) + " then " + a + " else " + g.expr(depth-1, k, cols) + " end"
	case n == 7 && (k == kInt || k == kDate):
		from, inner := g.from(0, cols)
		return "(select " + g.of("max", "min") + "(" + g.column(k, inner) + ") from " + from + " where " + g.cond(0, append(append([]genCol(nil), inner...), cols...)) + ")"
	}
	return "coalesce(" + a + ", " + g.literal(k) + ")"
}

// cond writes a condition.
func (g *gen) cond(depth int, cols []genCol) string {
	k := cols[g.pick(len(cols))].kind
	col := g.column(k, cols)
	n := g.pick(12)
	if depth <= 0 && n > 6 {
		n -= 6
	}
	switch n {
	case 1:
		return col + " " + g.of("<", ">", "<=", ">=", "<>") + " " + g.literal(k)
	case 2:
		return col + " in (" + g.literal(k) + ", " + g.literal(k) + ")"
	case 3:
		return col + " between " + g.literal(k) + " and " + g.literal(k)
	case 4:
		return col + " is " + g.of("", "not ") + "null"
	case 5:
		return col + " = " + g.column(k, cols)
	case 6:
		return "(" + col + " = " + g.literal(k) + " or " + g.cond(0, cols) + ")"
	case 7, 8:
		from, inner := g.from(depth-1, cols)
		return g.of("", "not ") + "exists (select 1 from " + from + " where " + g.equal(cols, inner) + " and " + g.cond(depth-1, inner) + ")"
	case 9:
		if k == kInt && g.pick(3) == 1 {
			return col + g.among()
		}
		from, inner := g.from(depth-1, cols)
		return col + g.of(" in ", " not in ") + "(select " + g.column(k, inner) + " from " + from + " where " + g.cond(depth-1, inner) + ")"
	case 10:
		return "not (" + g.cond(depth-1, cols) + ")"
	case 11:
		return "(" + g.cond(depth-1, cols) + " and " + g.cond(depth-1, cols) + ")"
	}
	return col + " = " + g.literal(k)
}

// exact is an output expression whose equal values print alike.
func exact(sql string, k kind) string {
	if k == kNum {
		return "round(" + sql + ", 3)"
	}
	return sql
}

// outKind draws the kind of an output column; floats and their sums are left to other tests: -0 equals 0.
func (g *gen) outKind() kind { return kind([]int{0, 1, 2, 3, 5}[g.pick(5)]) }

func (g *gen) where(depth int, cols []genCol) string {
	out := ""
	for i := range g.pick(3) {
		out += []string{" where ", " and "}[min(i, 1)] + g.cond(depth, cols)
	}
	return out
}

// query writes a SELECT and says of what kinds its columns are. They are named c0, c1 and so on.
func (g *gen) query(depth int, top bool) (string, []kind) {
	if top && g.pick(6) == 1 {
		return g.unnamed(depth), nil
	}
	with := ""
	known := len(g.ctes)
	if depth > 0 && g.pick(5) == 1 {
		q, out := g.query(depth-1, false)
		r := genRel{name: "w" + g.alias()}
		for i, k := range out {
			r.cols = append(r.cols, genCol{fmt.Sprintf("c%d", i), k})
		}
		with = "with " + r.name + " as " + g.of("", "materialized ", "") + "(" + q + ") "
		g.ctes = append(g.ctes, r)
	}
	var sql string
	var out []kind
	switch g.pick(8) {
	case 1, 2:
		sql, out = g.grouped(depth)
	case 3:
		sql, out = g.windowed(depth)
	case 4:
		if depth > 0 {
			sql, out = g.setOperation(depth)
			break
		}
		fallthrough
	default:
		sql, out = g.plain(depth)
	}
	g.ctes = g.ctes[:known]
	if top || g.pick(4) == 1 {
		sql += g.tail(len(out), top)
	}
	return with + sql, out
}

// tail writes ORDER BY over all columns, so that what LIMIT leaves is certain.
func (g *gen) tail(n int, top bool) string {
	if g.pick(3) == 0 {
		return ""
	}
	var by []string
	first := g.pick(n)
	for i := range n {
		by = append(by, fmt.Sprintf("%d%s", 1+(i+first)%n, g.of("", " desc", " nulls first", " desc nulls last")))
	}
	return " order by " + strings.Join(by, ", ") + g.of("", " limit 3", " offset 2", " limit 4 offset 1")
}

func (g *gen) plain(depth int) (string, []kind) {
	from, cols := g.from(depth, nil)
	var list []string
	var out []kind
	for i := range 1 + g.pick(3) {
		k := g.outKind()
		list = append(list, fmt.Sprintf("%s as c%d", exact(g.expr(depth, k, cols), k), i))
		out = append(out, k)
	}
	return "select " + g.of("", "", "", "distinct ") + strings.Join(list, ", ") + " from " + from + g.where(depth, cols), out
}

// unnamed writes a SELECT whose output columns have the names that PostgreSQL gives them, and sorts by these.
func (g *gen) unnamed(depth int) string {
	from, cols := g.from(depth, nil)
	if g.pick(4) == 1 {
		return g.starred(from, cols, depth)
	}
	var list, by []string
	for range 1 + g.pick(3) {
		c := cols[g.pick(len(cols))]
		_, name, _ := strings.Cut(c.expr, ".")
		e := c.expr
		switch how := g.pick(4); {
		case c.kind == kFloat:
			continue
		case c.kind == kNum:
			e, name = exact(e, kNum), "round"
		case how == 1:
			e += "::text"
		case how == 2 && c.kind == kText:
			e += ` collate "C"`
		case how == 2 && (c.kind == kInt || c.kind == kBig):
			e += "::numeric"
		case how == 3 && c.kind == kText:
			e, name = "upper("+e+` collate "C")`, "upper"
		case how == 3 && c.kind == kInt:
			e = "case when " + g.cond(0, cols) + " then 0 else " + e + " end"
		}
		if !slices.ContainsFunc(by, func(b string) bool { return strings.HasPrefix(b, name+" ") }) {
			list, by = append(list, e), append(by, name+" "+g.of("asc", "desc", "asc nulls first"))
		}
	}
	if len(list) == 0 {
		return "select count(*) from " + from + " order by count"
	}
	where := g.where(depth, cols)
	if g.pick(5) == 1 {
		return "select " + strings.Join(list, ", ") + ", count(*) from " + from + where + " group by " + strings.Join(list, ", ") + " order by " + strings.Join(by, ", ")
	}
	sql := "select " + strings.Join(list, ", ") + " from " + from + where + " order by " + strings.Join(by, ", ")
	if g.pick(4) == 1 { // the order is kept
		sql = "select * from (" + sql + ") s"
	}
	return sql + g.of("", " limit 3", " limit 4 offset 1")
}

// starred writes a SELECT of all columns of one relation, sorted by their names, which others may have too.
func (g *gen) starred(from string, cols []genCol, depth int) string {
	alias, _, _ := strings.Cut(cols[g.pick(len(cols))].expr, ".")
	var by []string
	for _, c := range cols {
		if of, name, _ := strings.Cut(c.expr, "."); of == alias {
			by = append(by, name+g.of("", " desc"))
		}
	}
	return "select " + alias + ".* from " + from + g.where(depth, cols) + " order by " + strings.Join(by, ", ") + g.of("", " limit 3")
}

// aggregate writes an aggregate whose value does not hang on the order of rows.
func (g *gen) aggregate(depth int, cols []genCol) (string, kind) {
	filter := ""
	if g.pick(4) == 1 {
		filter = " filter (where " + g.cond(0, cols) + ")"
	}
	switch g.pick(9) {
	case 8:
		for _, c := range cols {
			if c.kind == kInt || c.kind == kNum {
				return g.of("variance", "var_pop", "stddev", "stddev_pop") + "(" + c.expr + ")" + filter, kNum
			}
		}
	case 1:
		return "sum(" + g.of("", "distinct ") + g.expr(depth, kInt, cols) + ")" + filter, kInt
	case 2:
		return "avg(" + g.expr(depth, kInt, cols) + ")" + filter, kNum
	case 3:
		k := g.outKind()
		return g.of("min", "max") + "(" + exact(g.expr(depth, k, cols), k) + ")" + filter, k
	case 4:
		return "count(" + g.of("", "distinct ") + g.expr(depth, g.outKind(), cols) + ")" + filter, kInt
	case 5:
		x := g.expr(depth, kText, cols)
		return "string_agg(" + x + ", '-' order by " + x + ")" + filter, kText
	case 6:
		return "sum(" + g.expr(depth, kNum, cols) + ")" + filter, kNum
	case 7:
		return "bool_or(" + g.cond(0, cols) + ")::int" + filter, kInt
	}
	return "count(*)" + filter, kInt
}

func (g *gen) grouped(depth int) (string, []kind) {
	from, cols := g.from(depth, nil)
	var list, by []string
	var out []kind
	for i := range g.pick(3) {
		k := g.outKind()
		e := exact(g.expr(min(depth, 1), k, cols), k)
		if !namesColumn.MatchString(e) { // PostgreSQL forgets to sort by constants that a grouping set leaves out
			k = cols[0].kind
			e = exact(cols[0].expr, k)
		}
		list = append(list, fmt.Sprintf("%s as c%d", e, i))
		by = append(by, fmt.Sprint(i+1))
		out = append(out, k)
	}
	having := ""
	for range 1 + g.pick(2) {
		a, k := g.aggregate(min(depth, 1), cols)
		if strings.HasSuffix(a, "::int") || !strings.Contains(a, "::int filter") {
			list = append(list, fmt.Sprintf("%s as c%d", exact(a, k), len(out)))
		} else { // a cast behind FILTER
			a = strings.Replace(a, "::int filter", " filter", 1) + "::int"
			list = append(list, fmt.Sprintf("%s as c%d", a, len(out)))
		}
		out = append(out, k)
	}
	sql := "select " + strings.Join(list, ", ") + " from " + from + g.where(depth, cols)
	if len(by) > 0 {
		how := g.of("", "", "", "rollup ")
		if len(by) == 2 { // nor does it sort by what it takes for constant or equal before a grouping set makes it NULL
			how = ""
		}
		sql += " group by " + how + "(" + strings.Join(by, ", ") + ")"
	}
	if g.pick(4) == 1 {
		having = " having count(*) > " + g.of("1", "2", "0")
	}
	return sql + having, out
}

func (g *gen) windowed(depth int) (string, []kind) {
	a := g.alias()
	k := g.outKind()
	part := g.of("", "partition by country ", "partition by customer_id ", "partition by small ")
	fn := g.of("row_number()", "rank()", "sum(small)", "count(*)", "lag(customer_id)", "max(customer_id)")
	return fmt.Sprintf("select %s as c0, %s over (%sorder by customer_id)::int as c1 from customers %s%s",
		exact(g.expr(0, k, prefixedCols(a, genTables[0].cols)), k), fn, part, a, g.where(depth, prefixedCols(a, genTables[0].cols))), []kind{k, kInt}
}

func prefixedCols(alias string, cols []genCol) []genCol {
	out := make([]genCol, len(cols))
	for i, c := range cols {
		out[i] = genCol{alias + "." + c.expr, c.kind}
	}
	return out
}

func (g *gen) setOperation(depth int) (string, []kind) {
	k := []kind{g.outKind(), g.outKind()}[:1+g.pick(2)]
	leaf := func() string {
		from, cols := g.from(depth-1, nil)
		var list []string
		for i, k := range k {
			list = append(list, fmt.Sprintf("%s as c%d", exact(g.expr(depth-1, k, cols), k), i))
		}
		return "select " + strings.Join(list, ", ") + " from " + from + g.where(depth-1, cols)
	}
	return leaf() + " " + g.of("union all", "union", "intersect", "except", "except all", "intersect all") + " " + leaf(), k
}

// statement makes a statement from choices.
func statement(c *choices) string {
	c.at = 0
	g := &gen{choices: c}
	if g.pick(5) == 1 {
		return g.narrow()
	}
	sql, _ := g.query(2, true)
	return sql
}

// shrink makes a failing statement smaller while it fails.
func shrink(c *choices, fails func(sql string) bool) string {
	best := append([]int(nil), c.drawn...)
	try := func(d []int) bool {
		if sql := statement(&choices{drawn: d}); len(sql) > 0 && fails(sql) {
			best = d
			return true
		}
		return false
	}
	budget := 400
	for size := len(best) / 2; size > 0 && budget > 0; size /= 2 {
		for at := 0; at+size <= len(best) && budget > 0; {
			budget--
			if d := append(append([]int(nil), best[:at]...), best[at+size:]...); !try(d) {
				at += size
			}
		}
	}
	for i := 0; i < len(best) && budget > 0; i++ {
		if best[i] != 0 {
			budget--
			d := append([]int(nil), best...)
			d[i] = 0
			try(d)
		}
	}
	return statement(&choices{drawn: best})
}
