package router

import (
	"errors"
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// analysis is the work on one statement.
type analysis struct {
	stmt *sqlparse.Statement
	db   *shardmap.DB
	sch  *schema.Snapshot
	env  Env
	t    *Template

	sharded, reference, home []shardmap.TableName // what the statement names, by kind
	views                    views
	keyedBlocks              map[*sqlparse.Query]*block
	fed                      bool // the INSERT's rows are made on the shards where they belong
	moved                    *Template
}

// Analyze plans a statement. The error, if any, is an *Error.
func Analyze(stmt *sqlparse.Statement, db *shardmap.DB, sch *schema.Snapshot, env Env) (*Template, error) {
	a := &analysis{stmt: stmt, db: db, sch: sch, env: env, t: &Template{Stmt: stmt, DB: db, Schema: sch}}
	if err := a.run(); err != nil {
		return nil, err
	}
	if a.t.Class == Control || a.t.Class == Copy { // their literals are settings and options
		a.t.Exact = true
	}
	return a.t, nil
}

func (a *analysis) run() error {
	s := a.stmt
	switch s.Kind {
	case sqlparse.Begin, sqlparse.Commit, sqlparse.Rollback, sqlparse.Savepoint, sqlparse.Release, sqlparse.RollbackTo,
		sqlparse.Set, sqlparse.Discard, sqlparse.Prepare, sqlparse.Execute, sqlparse.Deallocate, sqlparse.Empty, sqlparse.Listen, sqlparse.Unlisten:
		return nil // Control
	case sqlparse.TwoPhase:
		return Refuse("two-phase")
	case sqlparse.Show:
		if strings.HasPrefix(s.Var.Name, "pgmosaic.") {
			return nil
		}
	case sqlparse.Explain:
		if s.Name == "route" {
			return nil
		}
	}
	if s.NameAt != (sqlparse.Span{}) { // EXPLAIN EXECUTE, CREATE TABLE AS EXECUTE
		return nil
	}
	if err := a.names(); err != nil {
		return err
	}
	a.t.Hidden = a.hiddenState()
	a.t.Exact = s.Configs != nil
	a.t.Tables = append(append(append([]shardmap.TableName(nil), a.sharded...), a.reference...), a.home...)
	a.t.Class, a.t.Home = Single, true
	a.t.Read = a.isRead() && a.t.Hidden == nil // what a server keeps, a replica must not
	a.t.Temp = s.Def.Temp
	a.t.DDL = isDefinition(s.Kind)
	a.t.Whole = !a.t.Read && (a.t.DDL || s.Kind == sqlparse.Routine || s.Kind == sqlparse.Select || s.Kind == sqlparse.Other || a.touchesUnknown())
	if len(a.db.Shards) == 1 {
		return a.oneShard()
	}
	for _, schema := range s.Def.Schemas {
		if a.distributedIn(schema) {
			return Refuse("ddl", "DROP or RENAME of schema "+schema)
		}
	}
	if a.views.used && !a.gathers() {
		return Refuse("view", a.views.first)
	}
	if err := a.functions(); err != nil {
		return err
	}
	if len(a.sharded) == 0 && len(a.reference) == 0 {
		return nil
	}
	switch s.Kind {
	case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete:
		return a.query()
	case sqlparse.Cursor:
		return a.query()
	case sqlparse.Explain:
		return a.explain()
	case sqlparse.Merge:
		return Refuse("merge")
	case sqlparse.Copy:
		return a.copy()
	}
	return a.definition()
}

// distributedIn says whether a schema holds tables that are not home's alone.
func (a *analysis) distributedIn(schema string) bool {
	if a.db.Tenant(schema) != nil {
		return true
	}
	for n := range a.db.Tables {
		if n.Schema == schema {
			return true
		}
	}
	return false
}

// gathers says whether the statement's rows may be gathered on home: it only reads, and home can do with them what it asks.
func (a *analysis) gathers() bool {
	s := a.stmt
	switch s.Kind {
	case sqlparse.Select:
		return true
	case sqlparse.Cursor:
		return !s.Def.NoTx // its server is held by the transaction, not by the session
	case sqlparse.Copy:
		return s.Copy.Table == nil && !s.Copy.From && s.Copy.Stdio
	}
	return false
}

// explain plans EXPLAIN: on the statement's own shard, or for one over several a report of what each is asked.
func (a *analysis) explain() error {
	if err := a.query(); err == nil && a.t.Class == Single && a.t.wide == nil {
		return nil
	}
	inner, err := a.stmt.Explains()
	if err != nil {
		return Refuse("explain")
	}
	t, err := Analyze(inner, a.db, a.sch, a.env)
	if err != nil {
		return err
	}
	a.t.Class, a.t.Inner, a.t.Exact, a.t.wide, a.t.pins = Explained, t, true, nil, nil
	return nil
}

func (a *analysis) refuseWide() *Error {
	switch a.stmt.Kind {
	case sqlparse.Cursor:
		return Refuse("cursor")
	case sqlparse.Copy:
		return Refuse("copy", "a query over several shards")
	}
	return Refuse("explain")
}

// oneShard is the fate of every statement of a database with one shard: it goes there.
func (a *analysis) oneShard() error {
	if a.stmt.Kind == sqlparse.Drop {
		a.t.Drops = a.declaredObjects()
	}
	return nil
}

// names resolves every relation that the statement names anywhere.
func (a *analysis) names() error {
	if a.stmt.Private {
		return Refuse("private-schema")
	}
	return a.resolveAll(a.stmt.Tables, map[shardmap.TableName]bool{})
}

func (a *analysis) resolveAll(refs []sqlparse.TableRef, seen map[shardmap.TableName]bool) error {
	for _, ref := range refs {
		if ref.Schema == "pgmosaic" {
			return Refuse("private-schema")
		}
		name, ok := a.env.resolve(a.db, a.sch, ref)
		if !ok || seen[name] {
			continue
		}
		seen[name] = true
		info := a.info(name)
		switch {
		case info == nil:
			if t := a.sch.Tables[name]; t != nil && len(a.db.Shards) > 1 && t.Kind == 'v' && a.readsRows() && a.readsSharded(t, 0) {
				if err := a.view(t, seen); err != nil {
					return err
				}
				continue
			}
			a.home = append(a.home, name)
		case info.Moving:
			return Refuse("moving", name)
		case info.Kind == shardmap.Sharded:
			a.sharded = append(a.sharded, name)
		default:
			a.reference = append(a.reference, name)
		}
	}
	return nil
}

// resolve finds the user table that a name means. ok is false for catalogs, temporary tables, CTEs and
// names that do not exist: what they mean is the home shard's affair.
func (e Env) resolve(db *shardmap.DB, sch *schema.Snapshot, ref sqlparse.TableRef) (shardmap.TableName, bool) {
	if ref.Schema != "" {
		n := shardmap.TableName{Schema: ref.Schema, Name: ref.Name}
		return n, db.Table(n) != nil || sch.Tables[n] != nil
	}
	if e.Temp[ref.Name] {
		return shardmap.TableName{}, false
	}
	for _, s := range e.SearchPath {
		if s == "$user" {
			s = e.Role
		}
		n := shardmap.TableName{Schema: s, Name: ref.Name}
		if sch.Tables[n] != nil || db.Tables[n] != nil {
			return n, true
		}
	}
	return shardmap.TableName{}, false
}

func (a *analysis) tableOf(r *sqlparse.Rel) *schema.Table {
	n, ok := a.env.resolve(a.db, a.sch, r.Table)
	if !ok || r.CTE {
		return nil
	}
	return a.sch.Tables[n]
}

// declared is the map's word on a range table entry, nil for home tables and all that is no table.
func (a *analysis) declared(r *sqlparse.Rel) *shardmap.TableInfo {
	if r.Kind != sqlparse.RelTable || r.CTE {
		return nil
	}
	n, ok := a.env.resolve(a.db, a.sch, r.Table)
	if !ok {
		return nil
	}
	return a.info(n)
}

// info is the map's word on a table. What a schema that lives on one shard holds besides tables is home's: its views.
func (a *analysis) info(n shardmap.TableName) *shardmap.TableInfo {
	info := a.db.Table(n)
	if t := a.sch.Tables[n]; info != nil && t != nil && a.db.Tables[n] == nil && (t.Kind == 'v' || t.Kind == 'm' || t.Kind == 'S') {
		return nil
	}
	return info
}

func (a *analysis) readsSharded(t *schema.Table, depth int) bool {
	for _, n := range t.Reads {
		if info := a.info(n); info != nil && info.Kind == shardmap.Sharded {
			return true
		}
		if sub := a.sch.Tables[n]; sub != nil && depth < 32 && a.readsSharded(sub, depth+1) {
			return true
		}
	}
	return false
}

// standbyFails are functions that are not volatile by pg_proc and yet need a primary.
var standbyFails = map[string]bool{
	"txid_current": true, "pg_current_xact_id": true, "pg_current_wal_lsn": true, "pg_current_wal_insert_lsn": true,
	"pg_current_wal_flush_lsn": true, "pg_walfile_name": true, "pg_export_snapshot": true, "pg_last_wal_replay_lsn": true, "pg_is_in_recovery": true,
}

// isRead says whether a replica could answer: nothing written, locked, drawn or kept.
func (a *analysis) isRead() bool {
	s := a.stmt
	switch s.Kind {
	case sqlparse.Select, sqlparse.Show:
	case sqlparse.Explain:
		if s.Def.NoTx {
			return false
		}
	case sqlparse.Copy:
		if s.Copy.From || !s.Copy.Stdio {
			return false
		}
	default:
		return false
	}
	if s.Query != nil && !pureQuery(s.Query) || s.Def.Temp {
		return false
	}
	for _, f := range a.calls() {
		if a.isVolatile(f) || standbyFails[f] {
			return false
		}
	}
	for _, ref := range s.Tables {
		if ref.Schema == "" && a.env.Temp[ref.Name] {
			return false
		}
		if n, ok := a.env.resolve(a.db, a.sch, ref); ok {
			if t := a.sch.Tables[n]; t != nil && (t.Unlogged || t.Kind == 'S') {
				return false
			}
		}
	}
	return true
}

func pureQuery(q *sqlparse.Query) bool {
	if q.Cmd != sqlparse.Select || q.Locking || q.Into {
		return false
	}
	for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves} {
		for _, s := range list {
			if !pureQuery(s) {
				return false
			}
		}
	}
	for _, r := range q.Rels {
		if r.Sub != nil && !pureQuery(r.Sub) {
			return false
		}
	}
	return true
}

// calls are the functions that the statement calls, and those of the views that it names.
func (a *analysis) calls() []string {
	if len(a.views.funcs) == 0 {
		return a.stmt.Funcs
	}
	return append(append([]string(nil), a.stmt.Funcs...), a.views.funcs...)
}

func (a *analysis) isVolatile(name string) bool {
	if a.sch.Volatile[name] {
		return true
	}
	for _, f := range a.sch.Funcs[name] {
		if f.Volatile {
			return true
		}
	}
	return false
}

func (a *analysis) firstVolatile() (string, bool) {
	for _, f := range a.stmt.Funcs {
		if a.isVolatile(f) {
			return f, true
		}
	}
	return "", false
}

// touchesUnknown says whether a write may reach tables that it does not name: triggers, rules, cascades.
func (a *analysis) touchesUnknown() bool {
	for _, n := range a.t.Tables {
		if t := a.sch.Tables[n]; t != nil && (len(t.Triggers) > 0 || t.Rules || t.Kind == 'v') {
			return true
		}
	}
	if len(a.stmt.Funcs) > 0 {
		for _, f := range a.stmt.Funcs {
			if len(a.sch.Funcs[f]) > 0 {
				return true
			}
		}
	}
	return a.stmt.Kind == sqlparse.Delete || a.stmt.Kind == sqlparse.Update || a.stmt.Kind == sqlparse.Truncate // ON DELETE CASCADE
}

// functions refuses routines and triggers whose bodies may reach distributed tables: run on one shard
// they would see a part of the rows.
func (a *analysis) functions() error {
	if a.db.Plain() {
		return nil
	}
	if a.stmt.Kind == sqlparse.Routine && a.stmt.Text != "" {
		words := (&schema.Func{Body: strings.ToLower(a.stmt.Text)}).Words()
		if a.wordsReach(words, map[string]bool{}) || words["execute"] {
			return Refuse("function-body", "DO or CALL")
		}
	}
	for _, f := range a.calls() {
		if runsSQL[f] || a.funcReaches(f, map[string]bool{}) {
			return Refuse("function-body", f)
		}
	}
	switch a.stmt.Kind {
	case sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Truncate, sqlparse.Copy:
		for _, n := range a.t.Tables {
			if t := a.sch.Tables[n]; t != nil {
				for _, f := range t.Triggers {
					if a.funcReaches(f, map[string]bool{}) {
						return Refuse("trigger-body", n)
					}
				}
			}
		}
	}
	return nil
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
	for _, f := range a.sch.Funcs[name] {
		if f.Immutable {
			continue
		}
		if f.Lang != "sql" && f.Lang != "plpgsql" && f.Lang != "c" && f.Lang != "internal" {
			return true
		}
		words := f.Words()
		if words["execute"] && f.Lang == "plpgsql" || a.wordsReach(words, seen) {
			return true
		}
	}
	return false
}

func (a *analysis) wordsReach(words map[string]bool, seen map[string]bool) bool {
	for n := range a.db.Tables {
		if words[strings.ToLower(n.Name)] {
			return true
		}
	}
	for n := range a.sch.Tables {
		if a.db.Tenant(n.Schema) != nil && words[strings.ToLower(n.Name)] {
			return true
		}
	}
	for w := range words {
		if len(a.sch.Funcs[w]) > 0 && a.funcReaches(w, seen) {
			return true
		}
	}
	for n, t := range a.sch.Tables {
		if t.Kind == 'v' && words[strings.ToLower(n.Name)] && a.readsSharded(t, 0) {
			return true
		}
	}
	return false
}

// query plans SELECT, INSERT, UPDATE and DELETE that name a sharded or reference table.
func (a *analysis) query() error {
	q := a.stmt.Query
	if len(a.sharded) == 0 {
		return a.referenceOnly(q)
	}
	if q.Opaque != "" && q.Cmd != sqlparse.Select {
		return Refuse("opaque", q.Opaque)
	}
	a.t.Home = false
	a.t.Exact = a.t.Exact || usesOrdinals(q)
	if a.views.used {
		a.expand(q)
		return a.gatherBlind(newBlock(a, q, nil), Refuse("view", a.views.first))
	}
	top := newBlock(a, q, nil)
	if q.Cmd == sqlparse.Insert {
		if err := a.insert(q); err != nil {
			return err
		}
	}
	loose, err := a.collect(top)
	if err != nil {
		return a.gatherBlind(top, err)
	}
	if err := a.assigns(top); err != nil {
		if a.rekeys(top) == nil {
			return err
		}
	} else if a.assignsKey(q) {
		a.rekeys(top)
	}
	needsHome := a.needsHome()
	if needsHome {
		a.t.wide = Refuse("home-join", joinNames(a.home))
		a.t.pins = append(a.t.pins, pin{}) // bound to the home shard
	}
	if f, ok := a.homeFunction(); ok {
		return Refuse("home-only", f)
	}
	if m := a.moved; m != nil {
		a.t.Class, a.t.Exact, a.t.pins = Moved, true, nil
		a.t.Gather, a.t.Target, a.t.Names, a.t.Key, a.t.Source, a.t.Tail, a.t.on = m.Gather, m.Target, m.Names, m.Key, m.Source, m.Tail, m.on
		return nil
	}
	if a.t.rekey != nil && needsHome {
		a.t.rekey = nil
		if a.t.Class == Rekey {
			return Refuse("key-change", top.query.Target.Table.Name)
		}
	}
	if a.t.rekey != nil && len(loose) > 0 {
		a.t.Class = Rekey
	}
	if a.t.Class == Rekey {
		return nil
	}
	if len(loose) == 0 {
		a.t.Class = Single
		switch {
		case q.Cmd == sqlparse.Select && !a.oneKey():
			a.t.wide = a.several(top, a.t.wide) // IN lists may turn out wider
		case needsHome || a.oneKey():
		case q.Cmd == sqlparse.Insert:
			a.t.wide = a.splitInsert(q)
		default:
			a.t.wide = a.wideWrite(top)
		}
		return nil
	}
	switch {
	case q.Cmd == sqlparse.Select:
		if err := a.several(top, a.t.wide); err != nil {
			return err
		}
	case needsHome:
		return a.t.wide
	case q.Cmd == sqlparse.Insert && a.fed && len(q.CTEs) == 0:
		a.t.Class = Write
	case q.Cmd == sqlparse.Insert:
		return Refuse("insert-select", loose[0])
	default:
		if err := a.wideWrite(top); err != nil {
			return err
		}
	}
	return nil
}

// usesOrdinals says whether a literal decides at some level what rows are grouped by.
func usesOrdinals(q *sqlparse.Query) bool {
	for _, list := range [][]sqlparse.Expr{q.GroupBy, q.DistinctOn} {
		if slices.ContainsFunc(list, func(e sqlparse.Expr) bool { return e.Ordinal > 0 }) {
			return true
		}
	}
	for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves} {
		if slices.ContainsFunc(list, usesOrdinals) {
			return true
		}
	}
	return slices.ContainsFunc(q.Rels, func(r *sqlparse.Rel) bool { return r.Sub != nil && usesOrdinals(r.Sub) }) || q.Source != nil && usesOrdinals(q.Source)
}

// several plans a SELECT that may need more than one shard: by merging what each one answers, else on copies. why is a
// reason against merging that is known already.
func (a *analysis) several(top *block, why *Error) *Error {
	if why == nil {
		why = a.scatter(top)
	}
	if why == nil {
		a.orGather(top)
		return nil
	}
	return a.toGather(top, why)
}

// gatherBlind plans a SELECT whose facts cannot be told, for err: on copies of whatever it names.
func (a *analysis) gatherBlind(top *block, err error) error {
	var why *Error
	if !errors.As(err, &why) || top.query.Cmd != sqlparse.Select || !a.gathers() {
		return err
	}
	a.t.pins, a.t.blind = nil, true
	for _, n := range a.sharded {
		group := a.db.Table(n).Group
		a.t.pins = append(a.t.pins, pin{group: group, vals: make([][]sqlparse.Value, len(group.Keys))})
	}
	if f, ok := a.homeFunction(); ok {
		return Refuse("home-only", f)
	}
	if why = a.toGather(top, why); why != nil {
		return why
	}
	return nil
}

// oneKey says whether the statement is tied to one key value, so that it can never need a second shard.
func (a *analysis) oneKey() bool { return len(a.t.pins) == 1 && a.t.pins[0].one() }

// collect gathers the pins of every sharded table of a block and of all blocks below it, and the names
// of those that nothing ties to a key.
func (a *analysis) collect(b *block) (loose []shardmap.TableName, err error) {
	for _, f := range b.flat {
		if f.Opaque != "" {
			return nil, Refuse("opaque", f.Opaque)
		}
	}
	for _, r := range b.rels {
		info := a.declared(r)
		if info == nil || info.Kind != shardmap.Sharded {
			continue
		}
		p := b.pin(r, info)
		if !p.tied() {
			loose = append(loose, info.TableName)
		}
		if !slices.ContainsFunc(a.t.pins, func(o pin) bool { return o.same(&p) }) {
			a.t.pins = append(a.t.pins, p)
		}
	}
	for _, q := range b.subs {
		sub := newBlock(a, q, b)
		if q.Cmd == sqlparse.Insert && q.Target != nil {
			if info := a.declared(q.Target); info != nil {
				return nil, Refuse("opaque", "an INSERT inside WITH")
			}
		}
		below, err := a.collect(sub)
		if err != nil {
			return nil, err
		}
		if err := a.assigns(sub); err != nil {
			return nil, err
		}
		if q.Target != nil {
			if info := a.declared(q.Target); info != nil && info.Kind == shardmap.Reference {
				return nil, Refuse("reference-write", info.TableName)
			}
		}
		loose = append(loose, below...)
	}
	return loose, nil
}

// assigns ties the values given to a key column by SET to the statement's shard.
func (a *analysis) assigns(b *block) error {
	q := b.query
	if q.Target == nil {
		return nil
	}
	info := a.declared(q.Target)
	if info == nil || info.Kind != shardmap.Sharded {
		return nil
	}
	p := b.pin(q.Target, info) // columns that are not assigned stay as they are
	p.use, p.bounds = assigns, nil
	changes := false
	for _, s := range q.Sets {
		i := slices.Index(info.Keys, s.Column)
		if i < 0 {
			continue
		}
		if s.Value.Kind == sqlparse.ValOther || s.Value.Kind == sqlparse.ValDefault || s.Value.Kind == sqlparse.ValNull || !keyFits(info.Group.Keys[i], s.Value) {
			return Refuse("key-change", s.Column)
		}
		p.vals[i], changes = []sqlparse.Value{s.Value}, true
	}
	if changes {
		if !p.tied() {
			return Refuse("key-change", info.KeyList())
		}
		a.t.pins = append(a.t.pins, p)
	}
	return nil
}

// needsHome says whether the statement names something that only home has.
func (a *analysis) needsHome() bool {
	for _, n := range a.home {
		if a.sch.Tables[n] != nil {
			return true
		}
	}
	return a.namesCatalog()
}

// homeFunction names a function that must run on home: sequences and advisory locks.
func (a *analysis) homeFunction() (string, bool) {
	for _, f := range a.calls() {
		switch {
		case f == "nextval" || f == "currval" || f == "lastval" || f == "setval" || f == "pg_notify",
			strings.HasPrefix(f, "pg_advisory_") || strings.HasPrefix(f, "pg_try_advisory_"),
			strings.HasPrefix(f, "lo_") || f == "pg_cancel_backend" || f == "pg_terminate_backend":
			return f, true
		}
	}
	return "", false
}

// namesCatalog says whether a relation is neither declared nor a user table nor a CTE: a catalog, a
// temporary table or a mistake, all of them home's.
func (a *analysis) namesCatalog() bool {
	var any func(q *sqlparse.Query) bool
	any = func(q *sqlparse.Query) bool {
		for _, r := range q.Rels {
			if r.Kind == sqlparse.RelTable && !r.CTE {
				if _, ok := a.env.resolve(a.db, a.sch, r.Table); !ok {
					return true
				}
			}
			if r.Sub != nil && any(r.Sub) {
				return true
			}
		}
		for _, list := range [][]*sqlparse.Query{q.Subs, q.CTEs, q.Leaves} {
			for _, s := range list {
				if any(s) {
					return true
				}
			}
		}
		return q.Source != nil && any(q.Source)
	}
	return any(a.stmt.Query)
}

func joinNames(names []shardmap.TableName) string {
	var out []string
	for _, n := range names {
		out = append(out, n.String())
	}
	if len(out) == 0 {
		return "(a system catalog or a temporary table)"
	}
	return strings.Join(out, ", ")
}

// referenceOnly plans statements over reference tables, perhaps with home tables.
func (a *analysis) referenceOnly(q *sqlparse.Query) error {
	if q.Cmd == sqlparse.Select && pureQuery(q) {
		_, volatile := a.firstVolatile()
		if len(a.home) == 0 && !volatile && q.Opaque == "" && !a.namesCatalog() {
			a.t.Home, a.t.Any = false, true
		}
		return nil
	}
	writesReference := q.Target != nil && a.declared(q.Target) != nil
	if !writesReference {
		if q.Cmd != sqlparse.Select && len(q.CTEs) == 0 {
			return nil // a home table written from reference tables: home has a copy
		}
		if q.Cmd == sqlparse.Select && !q.Locking {
			return Refuse("reference-write", joinNames(a.reference))
		}
		return nil // row locks are taken on home's copy
	}
	return a.referenceWrite(q)
}
