package router

import (
	"cmp"
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
	temps                    []*schema.Table      // and what is temporary, but views over sharded tables
	views                    views
	attrs                    []string // the functions that the statement calls as attributes
	other                    string   // of these, one that gives more or less than a value for each row
	touched                  []*touched
	keyedBlocks              map[*sqlparse.Query]*block
	colocated                bool // the INSERT's rows are made on the shards where they belong
	moved                    *Template
	safe                     bool                // it runs where the rows are, and so do routines that are shard safe
	tenant                   *shardmap.GroupInfo // the schema, on one shard, of the sequences that the statement names
	away                     *away               // instead of distributed tables, it looks for what home alone has

	why     *Error // asked again: its rows do not merge, for this reason
	instead *Gather
	lost    *Error // there is no way out
}

// Analyze plans a statement. The error, if any, is an *Error.
func Analyze(stmt *sqlparse.Statement, db *shardmap.DB, sch *schema.Snapshot, env Env) (*Template, error) {
	a := &analysis{stmt: stmt, db: db, sch: sch, env: env, t: &Template{Stmt: stmt, DB: db, Schema: sch}}
	if err := a.run(); err != nil {
		return nil, err
	}
	if db.Joining && a.everywhere() {
		return nil, Refuse(RuleJoining)
	}
	if a.t.Class == Control || a.t.Class == Copy { // their literals are settings and options
		a.t.Exact = true
	}
	if len(db.Shards) > 1 && a.t.Class != Control {
		a.t.common = a.inCommon()
		noteList(a)
	}
	return a.t, nil
}

// marked says whether a text ends as those do that the proxy shows copies of reference tables: seen on a server, and sent again, it would
// write one of them.
func marked(text string) bool {
	at := strings.LastIndex(text, "/* pgmosaic:")
	return at >= 0 && strings.HasSuffix(text, "*/") && !strings.Contains(text[at:len(text)-2], "*/")
}

// isControl says whether a statement is about the session, or names one that is prepared: it keeps the Class Control.
func isControl(s *sqlparse.Statement) bool {
	switch s.Kind {
	case sqlparse.Begin, sqlparse.Commit, sqlparse.Rollback, sqlparse.Savepoint, sqlparse.Release, sqlparse.RollbackTo,
		sqlparse.Set, sqlparse.Discard, sqlparse.Prepare, sqlparse.Execute, sqlparse.Deallocate, sqlparse.Empty, sqlparse.Listen, sqlparse.Unlisten, sqlparse.Constraints:
		return true
	case sqlparse.Show:
		if strings.HasPrefix(s.Var.Name, "pgmosaic.") {
			return true
		}
	case sqlparse.Explain:
		if s.Name == "route" {
			return true
		}
	default: // only by what it names
	}
	return s.NameAt != (sqlparse.Span{}) // EXPLAIN EXECUTE, CREATE TABLE AS EXECUTE
}

func (a *analysis) run() error {
	s := a.stmt
	if s.Kind == sqlparse.TwoPhase {
		return Refuse(RuleTwoPhase)
	}
	if isControl(s) {
		return nil
	}
	if len(a.db.Shards) > 1 && marked(s.Text) {
		return Refuse(RulePrivateSchema)
	}
	if err := a.names(); err != nil {
		return err
	}
	if len(a.db.Shards) > 1 && a.unknown() {
		a.t.Known = NamesUnknown
	}
	a.t.Hidden = a.hiddenState()
	a.t.Exact = s.Configs != nil || hangsOnName(a)
	a.t.Tables = append(append(append([]shardmap.TableName(nil), a.sharded...), a.reference...), a.home...)
	a.t.Class, a.t.Home = Single, true
	if givesColumns(a) {
		a.t.Known = ColumnsKnown
	}
	a.t.Read = a.isRead() && a.t.Hidden == nil && !mayWrite(a) // what a server keeps, a replica must not
	a.t.Temp = s.Def.Temp || s.Def.Bare && a.env.makesTemp() || a.definesTemp()
	a.t.DDL = isDefinition(s.Kind)
	a.t.Sharded = len(a.sharded)
	if a.t.Read {
		a.readsBehind()
	}
	a.t.Whole = !a.t.Read && (a.t.DDL || s.Kind == sqlparse.Routine || s.Kind == sqlparse.Select || s.Kind == sqlparse.Other || a.touchesUnknown())
	if len(a.db.Shards) == 1 {
		return a.oneShard()
	}
	if n, ok := a.writtenView(s.Query); ok {
		return Refuse(RuleViewWrite, n)
	}
	for _, schema := range s.Def.Schemas {
		if a.distributedIn(schema) {
			return Refuse(RuleDdl, "DROP or RENAME of schema "+schema)
		}
	}
	if a.shared() {
		return nil
	}
	if err := a.wholeDatabase(); err != nil || a.t.Class == Write {
		return err
	}
	if ok, err := a.indexed(); ok {
		return err
	}
	for _, n := range a.home {
		if t := a.sch.Tables[n]; s.Def.Refresh && t != nil && a.readsSharded(t, nil) { // home has a part of the rows
			return Refuse(RuleDdl, "REFRESH MATERIALIZED VIEW, as it reads one,")
		}
	}
	if a.views.used && !a.gathers() {
		return Refuse(RuleView, a.views.first)
	}
	if err := cmp.Or(a.functions(), byHand(a)); err != nil {
		return err
	}
	if len(a.sharded) == 0 && len(a.reference) == 0 {
		err := cmp.Or(drawnFrom(a), intoSchema(a.db, s, a.home))
		onTenant(a)
		return err
	}
	aggregatesOutside(a, s.Query, nil)
	switch s.Kind {
	case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Cursor:
		return a.query()
	case sqlparse.Explain:
		return a.explain()
	case sqlparse.Copy:
		return a.copy()
	default:
		return a.definition()
	}
}

// everywhere says whether a statement changes what every shard has: a definition, or the rows of a reference table.
func (a *analysis) everywhere() bool {
	if len(a.db.Shards) > 1 {
		return a.t.Ref
	}
	return a.t.DDL && !a.t.Temp || !a.t.Read && len(a.reference) > 0
}

// definesTemp says whether a definition is about temporary objects though it does not say so: it names nothing else, or makes a
// view of one, which is temporary then.
func (a *analysis) definesTemp() bool {
	switch a.stmt.Kind {
	case sqlparse.CreateView:
		return len(a.temps) > 0
	case sqlparse.AlterTable, sqlparse.Drop, sqlparse.Rename, sqlparse.CreateIndex:
		return len(a.temps) > 0 && len(a.sharded)+len(a.reference)+len(a.home) == 0
	default:
		return false
	}
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
	default:
		return false
	}
}

// explain plans EXPLAIN: on the statement's own shard, or for one over several a report of what each is asked.
func (a *analysis) explain() error {
	if err := a.query(); err == nil && a.t.Class == Single && a.t.wide == nil {
		return nil
	}
	inner, err := a.stmt.Explains()
	if err != nil {
		return Refuse(RuleExplain)
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
		return Refuse(RuleCursor)
	case sqlparse.Copy:
		return Refuse(RuleCopy, "a query over several shards")
	default:
		return Refuse(RuleExplain)
	}
}

// oneShard is the fate of every statement of a database with one shard: it goes there.
func (a *analysis) oneShard() error {
	switch a.stmt.Kind {
	case sqlparse.Drop:
		if a.t.Drops = a.mapped(a.declaredObjects()); len(a.t.Drops) > 0 && a.stmt.Def.TableDrop {
			a.t.Class, a.t.Ref, a.t.Home = Write, true, false
		}
	case sqlparse.Rename:
		if o := a.mapped(a.declaredObjects()); len(o) == 1 {
			if a.t.Renamed = renamedTo(&a.stmt.Def.Renamed, o[0], a.db.Tables[o[0]]); a.t.Renamed != nil {
				a.t.Class, a.t.Ref, a.t.Home = Write, true, false
			}
		}
	default: // the map says nothing of what others define
	}
	return nil
}
