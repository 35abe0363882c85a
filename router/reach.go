package router

import (
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// calls are the functions and operators that the statement calls, and those of the views that it names.
func (a *analysis) calls() []string {
	return append(a.ran(a.stmt), a.views.funcs...)
}

// ran are the functions that a statement calls, by name, as attributes and by operators. Of a view's own query PostgreSQL writes attributes
// as calls by name.
func (a *analysis) ran(s *sqlparse.Statement) []string {
	out := slices.Clone(s.Funcs)
	if s == a.stmt {
		out = append(out, a.attrs...)
	}
	for _, op := range s.Ops {
		if len(a.sch.Funcs[op]) > 0 {
			out = append(out, op)
		}
	}
	return out
}

// ranBy are what types run that a statement names. To define something of a type runs nothing of it.
func (a *analysis) ranBy(s *sqlparse.Statement) (out []string) {
	switch s.Kind {
	case sqlparse.CreateTable, sqlparse.CreateView, sqlparse.DDL, sqlparse.Drop, sqlparse.Rename:
		return nil
	default: // what it runs is looked at below
	}
	for _, n := range append(a.ran(s), s.TypeNames...) { // f(x) is a cast where f is a type
		if key := schema.TypeFunc(n); len(a.sch.Funcs[key]) > 0 {
			out = append(out, key)
		}
	}
	return out
}

func (a *analysis) isVolatile(name string) bool {
	if a.sch.Volatile[name] {
		return true
	}
	for _, f := range a.userFuncs(name) {
		if f.Volatile {
			return true
		}
	}
	return false
}

func (a *analysis) firstVolatile() (string, bool) {
	for _, f := range a.ran(a.stmt) {
		if a.isVolatile(f) {
			return f, true
		}
	}
	return "", false
}

// touchesUnknown says whether a write may reach tables that it does not name: triggers, rules, cascades, partitions.
func (a *analysis) touchesUnknown() bool {
	for _, n := range a.t.Tables {
		t := a.sch.Tables[n]
		if t == nil || len(t.Triggers) > 0 || t.Rules || t.Kind == 'v' || t.Cascades || t.Renames || t.Parent || t.Child || a.defaultsCall(t) {
			return true
		}
	}
	for _, x := range a.touched {
		if !x.named || slices.ContainsFunc(slices.Concat(x.Code.Always, x.Code.Writes), func(f string) bool { return a.isVolatile(f) }) {
			return true
		}
	}
	for _, t := range a.temps {
		if len(t.Triggers) > 0 || t.Rules || a.defaultsCall(t) {
			return true
		}
	}
	for _, f := range a.ran(a.stmt) {
		if len(a.userFuncs(f)) > 0 {
			return true
		}
	}
	return a.stmt.Kind == sqlparse.Truncate // CASCADE
}

// defaultsCall says whether a column's default calls a function of the user's, which may write elsewhere.
func (a *analysis) defaultsCall(t *schema.Table) bool {
	for _, c := range t.Columns {
		for name := range a.sch.Funcs {
			if c.Volatile && (strings.Contains(c.Default, name+"(") || strings.Contains(c.Default, name+`"(`)) {
				return true
			}
		}
	}
	return false
}

// readsBehind notes what a read may read besides the tables that it names: those of views, and whatever functions,
// policies and foreign tables do.
func (a *analysis) readsBehind() {
	for _, f := range a.calls() {
		for _, fn := range a.userFuncs(f) {
			a.t.Beyond = a.t.Beyond || !fn.Immutable
		}
	}
	seen := map[shardmap.TableName]bool{}
	var behind func(n shardmap.TableName, named bool)
	behind = func(n shardmap.TableName, named bool) {
		if seen[n] {
			return
		}
		seen[n] = true
		if !named {
			a.t.Behind = append(a.t.Behind, n)
		}
		t := a.sch.Tables[n]
		if t == nil || t.RowRules || t.Kind == 'f' {
			a.t.Beyond = true
			return
		}
		if t.Kind == 'v' {
			for _, f := range a.viewFuncs(t) {
				a.t.Beyond = a.t.Beyond || len(a.sch.Funcs[f]) > 0
			}
			for _, r := range t.Reads {
				behind(r, false)
			}
		}
	}
	for _, n := range a.t.Tables {
		behind(n, true)
	}
}

// viewFuncs are the functions that a view's own query calls.
func (a *analysis) viewFuncs(t *schema.Table) []string {
	if s := parseView(t); s != nil {
		return append(a.ran(s), a.ranBy(s)...)
	}
	return nil
}

// functions refuses routines and triggers whose bodies may reach distributed tables: run on one shard
// they would see a part of the rows.
func (a *analysis) functions() error {
	if a.db.Plain() {
		return nil
	}
	a.safe = len(a.sharded) > 0
	if a.stmt.Kind == sqlparse.Routine && a.stmt.Text != "" {
		body := &schema.Func{Body: strings.ToLower(a.stmt.Text)}
		words := body.Words()
		if a.wordsReach(words, map[string]bool{}) || words["execute"] || a.codeReaches(body, map[string]bool{}) {
			return Refuse(RuleFunctionBody, "DO or CALL")
		}
	}
	for _, f := range append(a.calls(), a.ranBy(a.stmt)...) {
		if runsSQL[f] || a.funcReaches(f, map[string]bool{}) {
			return Refuse(RuleFunctionBody, f)
		}
	}
	if f := a.tablesReach(); f != "" {
		return Refuse(RuleFunctionBody, f)
	}
	if err := policiesReach(a); err != nil {
		return err
	}
	safe := a.safe
	a.safe = false // a view of home's, or a temporary one, runs there
	for _, n := range a.home {
		if t := a.sch.Tables[n]; t != nil && a.readsRows() {
			if f := a.viewCalls(t, nil); f != "" {
				return Refuse(RuleFunctionBody, f)
			}
		}
	}
	for _, t := range a.temps {
		if f := a.viewCalls(t, nil); f != "" {
			return Refuse(RuleFunctionBody, f)
		}
	}
	a.safe = safe
	return triggersReach(a)
}

// triggersReach refuses triggers and defaults that may reach distributed tables, of whatever the statement changes, and those of sharded
// tables that may reach what home alone has.
func triggersReach(a *analysis) error {
	for _, x := range a.touched {
		info := a.info(x.TableName)
		a.safe = info != nil && info.Kind == shardmap.Sharded
		for _, f := range x.fires() {
			if a.funcReaches(f, map[string]bool{}) {
				return Refuse(RuleTriggerBody, x.TableName)
			}
		}
		if err := staysHere(a, x); err != nil {
			return err
		}
		if f := a.defaultReaches(x.Table); f != "" && info == nil && a.givesDefaults(x) {
			return Refuse(RuleFunctionBody, f)
		}
	}
	return nil
}

// triggersForAll refuses what would be done by several shards, each with its own rows, where a trigger reads all rows that the statement changes: by REFERENCING.
// Of a routine that is shard safe the operator has said that a shard's rows are enough. On one shard nothing is missing.
func triggersForAll(a *analysis) *Error {
	for _, x := range a.touched {
		if !x.named { // what a foreign key does is a statement for each row
			continue
		}
		for _, f := range x.FiredForAll(x.events, x.above) {
			if slices.ContainsFunc(a.userFuncs(f), func(u *schema.Func) bool { return !a.db.ShardSafe(u.Schema, u.Name) }) {
				return Refuse(RuleTriggerBody, x.TableName)
			}
		}
	}
	return nil
}

// runs says whether what a function changes of a table or view of home's, or what that brings with it, may reach distributed tables.
func runs(a *analysis, n shardmap.TableName, seen map[string]bool) bool {
	key := "table " + n.String()
	if seen[key] {
		return false
	}
	seen[key] = true
	return slices.ContainsFunc(changesOf(a, n), func(x *touched) bool {
		info := a.info(x.TableName)
		return info != nil || slices.ContainsFunc(slices.Concat(x.fires(), x.Code.Always, x.Code.Writes, x.Code.Defaults), func(f string) bool { return a.funcReaches(f, seen) })
	})
}

// writes says whether words of a function's body may be those of one that changes rows.
func writes(words map[string]bool) bool {
	return words["insert"] || words["update"] || words["delete"] || words["merge"] || words["truncate"] || words["copy"]
}

// tablesReach names what the definition of a table runs for the statement, a policy, type, CHECK, index or default, if that may reach
// distributed tables.
func (a *analysis) tablesReach() string {
	safe := a.safe
	defer func() { a.safe = safe }()
	for _, n := range a.t.Tables {
		t := a.sch.Tables[n]
		if t == nil {
			continue
		}
		info := a.info(n)
		a.safe = info != nil && info.Kind == shardmap.Sharded
		list := t.Code.Always
		if !a.t.Read && !a.readsRows() { // a definition; what is written comes below
			list = append(slices.Clone(list), t.Code.Writes...)
		}
		for _, f := range list {
			if a.funcReaches(f, map[string]bool{}) {
				return f
			}
		}
	}
	a.safe = false
	for _, t := range a.temps {
		for _, f := range t.Code.Policed {
			if a.funcReaches(f, map[string]bool{}) {
				return f
			}
		}
	}
	for _, x := range a.touched {
		if x.Rules && !x.above && slices.ContainsFunc(x.Reads, func(n shardmap.TableName) bool { return a.info(n) != nil && n != x.TableName }) {
			return "of a rule of table " + x.TableName.String()
		}
		info := a.info(x.TableName)
		a.safe = info != nil && info.Kind == shardmap.Sharded
		list := slices.Concat(x.Code.Always, x.Code.Writes)
		if a.givesDefaults(x) {
			list = append(list, x.Code.Defaults...)
		}
		for _, f := range list {
			if a.funcReaches(f, map[string]bool{}) {
				return f
			}
		}
	}
	return ""
}

// givesDefaults says whether a column of what is changed may get its default.
func (a *analysis) givesDefaults(x *touched) bool {
	return len(x.defaults) > 0 || x.named && x.events&(schema.OnInsert|schema.OnUpdate) != 0 && a.usesDefaults()
}

// usesDefaults says whether a write may give a column its default.
func (a *analysis) usesDefaults() bool {
	switch a.stmt.Kind {
	case sqlparse.Insert, sqlparse.Merge, sqlparse.Copy:
		return true
	default: // what its queries do is looked at below
	}
	uses := false
	everyQuery(a.stmt.Query, func(q *sqlparse.Query) {
		uses = uses || q.Target != nil && (q.Cmd == sqlparse.Insert || q.Cmd == sqlparse.Merge) || slices.ContainsFunc(q.Sets, func(s sqlparse.Assign) bool { return s.Value.Kind == sqlparse.ValDefault })
	})
	return uses
}

// viewCalls names a function that a view of home's calls, by itself or by another one, and that may reach distributed tables.
func (a *analysis) viewCalls(t *schema.Table, seen map[*schema.Table]bool) string {
	if t.Kind != 'v' || seen[t] {
		return ""
	}
	if seen == nil {
		seen = map[*schema.Table]bool{}
	}
	seen[t] = true
	for _, f := range a.viewFuncs(t) {
		if a.funcReaches(f, map[string]bool{}) {
			return f
		}
	}
	for _, n := range t.Reads {
		if sub := a.table(n); sub != nil {
			if f := a.viewCalls(sub, seen); f != "" {
				return f
			}
		}
	}
	return ""
}

// defaultReaches names a function that makes a column's default and may reach distributed tables.
func (a *analysis) defaultReaches(t *schema.Table) string {
	for _, c := range t.Columns {
		if c.Default == "" || c.Generated {
			continue
		}
		for w := range (&schema.Func{Body: strings.ToLower(c.Default)}).Words() {
			if len(a.userFuncs(w)) > 0 && a.funcReaches(w, map[string]bool{}) {
				return w
			}
		}
	}
	return ""
}

// runsSQL are PostgreSQL's own functions that read tables named in their arguments: a shard has a part of the rows.
var runsSQL = map[string]bool{
	"query_to_xml": true, "query_to_xmlschema": true, "query_to_xml_and_xmlschema": true, "table_to_xml": true, "table_to_xml_and_xmlschema": true, "schema_to_xml": true,
	"schema_to_xml_and_xmlschema": true, "database_to_xml": true, "database_to_xml_and_xmlschema": true, "ts_stat": true,
}

func (a *analysis) funcReaches(name string, seen map[string]bool) bool {
	if seen[name] {
		return false
	}
	seen[name] = true
	for _, f := range a.userFuncs(name) {
		if a.safe && a.db.ShardSafe(f.Schema, f.Name) {
			continue
		}
		if slices.ContainsFunc(callsOf(a, f), func(c string) bool { return len(a.userFuncs(c)) > 0 && a.funcReaches(c, seen) }) {
			return true
		}
		if f.Lang != "sql" && f.Lang != "plpgsql" && f.Lang != "c" && f.Lang != "internal" || strings.Contains(f.Body, `u&"`) { // a name in other letters
			return true
		}
		words := wordsOf(a, f)
		if a.codeReaches(f, seen) {
			return true
		}
		if words["execute"] && f.Lang == "plpgsql" {
			return true
		}
		if a.wordsReach(words, seen) {
			if a.away != nil && a.away.function == "" && a.away.uses.Name != "" {
				a.away.function = f.Name
			}
			return true
		}
	}
	return false
}

// codeReaches says whether operators and types in a function's body may reach distributed tables.
func (a *analysis) codeReaches(f *schema.Func, seen map[string]bool) bool {
	words := f.Words()
	for name := range a.sch.Funcs {
		typ, isType := strings.CutPrefix(name, schema.TypeFunc(""))
		isOp := strings.Trim(name, "+-*/<>=~!@#%^&|`?") == ""
		if (isType && words[strings.ToLower(typ)] || isOp && (strings.Contains(f.Body, name) || implies(words, name))) && a.funcReaches(name, seen) {
			return true
		}
	}
	return false
}

// implies says whether words of a body may stand for an operator.
func implies(words map[string]bool, op string) bool {
	switch op {
	case "=":
		return words["case"] || words["in"] || words["using"] || words["natural"] || words["nullif"] || words["distinct"]
	case ">=", "<=", "<", ">":
		return words["between"]
	}
	return false
}

func (a *analysis) wordsReach(words map[string]bool, seen map[string]bool) bool {
	if a.away != nil {
		return a.away.reached(a, words, seen)
	}
	if setsSequence(a, words) {
		return true
	}
	for n := range a.db.Tables {
		if schema.Names(words, n.Name) {
			return true
		}
	}
	for n := range a.sch.Tables {
		if a.db.Tenant(n.Schema) != nil && schema.Names(words, n.Name) {
			return true
		}
	}
	for w := range words {
		if len(a.userFuncs(w)) > 0 && a.funcReaches(w, seen) {
			return true
		}
		if t := a.env.Temp.Table(w); t != nil && t.Kind == 'v' && a.viewReaches(t) {
			return true
		}
	}
	changes := writes(words)
	for n, t := range a.sch.Tables {
		judged := t.Kind == 'v' || len(t.Code.Asking)+len(t.Code.Policed) > 0
		if !(judged || changes && a.info(n) == nil) || !schema.Names(words, n.Name) {
			continue
		}
		if t.Kind == 'v' && a.viewReaches(t) || changes && runs(a, n, seen) || judged && judgedApart(a, []shardmap.TableName{n}, seen) != nil {
			return true
		}
	}
	return false
}

// viewReaches says whether who uses a view may read a part of the rows, or write one copy of several.
func (a *analysis) viewReaches(t *schema.Table) bool {
	_, writes := a.copyUnder(t, 0)
	return writes || a.readsSharded(t, nil)
}

// homeFunction names a function that must run on home: sequences and advisory locks.
func (a *analysis) homeFunction() (string, bool) {
	there := countsThere(a)
	for _, f := range a.calls() {
		switch {
		case there && isCounter(f):
		case f == "nextval" || f == "currval" || f == "lastval" || f == "setval" || f == "pg_notify",
			strings.HasPrefix(f, "pg_advisory_") || strings.HasPrefix(f, "pg_try_advisory_"),
			strings.HasPrefix(f, "lo_") || f == "pg_cancel_backend" || f == "pg_terminate_backend":
			return f, true
		}
	}
	return "", false
}
