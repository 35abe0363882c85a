package router

import (
	"regexp"
	"sort"
	"strings"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// Hidden says how a statement may change its server beyond the transaction where no parser sees it: in a
// function, a trigger, a DO block. Such a server is looked at before anybody else gets it.
type Hidden struct {
	Vars    []string // custom parameters that it may set, which no catalog lists
	Unknown bool     // it may set custom parameters by names that are computed
	Path    bool     // it may set the search_path, or the role
	Modes   bool     // it may make the transaction READ ONLY
}

// changers are words of a function's body that may change the server which runs it beyond the transaction.
var changers = map[string]bool{
	"set": true, "set_config": true, "reset": true, "execute": true, "prepare": true, "listen": true, "load": true, "setseed": true, "temp": true, "temporary": true,
	"create": true, "alter": true, "drop": true, "deallocate": true,
	"pg_advisory_lock": true, "pg_advisory_lock_shared": true, "pg_try_advisory_lock": true, "pg_try_advisory_lock_shared": true, "hold": true,
}

var (
	setConfig  = regexp.MustCompile(`\bset_config\s*\(\s*(?:'([^']*)'\s*,)?`)
	setCommand = regexp.MustCompile(`\bset\s+(?:session\s+|local\s+)?"?([a-z_][a-z0-9_]*\.[a-z0-9_.]+)"?\s*(?:=|to\b)`)
)

// writers are words of a function's body that write or lock something. PostgreSQL lets a function do so only if it is volatile.
var writers = map[string]bool{
	"insert": true, "update": true, "delete": true, "merge": true, "truncate": true, "copy": true, "create": true, "alter": true, "drop": true, "execute": true, "call": true, "do": true, "lock": true, "share": true,
	"notify": true, "comment": true, "grant": true, "revoke": true, "refresh": true, "reindex": true,
}

// drawers are functions of PostgreSQL's that write something, whoever calls them.
var drawers = map[string]bool{
	"nextval": true, "setval": true, "pg_notify": true, "lo_create": true, "lo_creat": true, "lo_from_bytea": true, "lo_put": true, "lo_unlink": true, "lowrite": true,
}

// keepers are functions of extensions that keep something for the session which no catalog lists.
var keepers = map[string]bool{"dblink_connect": true, "dblink_connect_u": true}

// configures are functions of extensions that set a parameter.
var configures = map[string]string{"set_limit": "pg_trgm.similarity_threshold"}

// look is the search through the bodies of what a statement calls.
type look struct {
	a       *analysis
	seen    map[string]bool
	vars    map[string]bool
	unknown bool
	changes bool
	path    bool
	modes   bool
	writes  bool
	recalls bool // it may ask for values that were drawn
}

func newLook(a *analysis) *look {
	return &look{a: a, seen: map[string]bool{}, vars: map[string]bool{}}
}

// found is what the search has found; nil for nothing.
func (l *look) found() *Hidden {
	if !l.changes {
		return nil
	}
	h := &Hidden{Unknown: l.unknown, Path: l.path || l.unknown, Modes: l.modes || l.unknown}
	for v := range l.vars {
		h.Vars = append(h.Vars, v)
	}
	sort.Strings(h.Vars)
	return h
}

// add adds what another search has found.
func (l *look) add(h *Hidden) {
	if h == nil {
		return
	}
	l.changes, l.unknown, l.path, l.modes = true, l.unknown || h.Unknown, l.path || h.Path, l.modes || h.Modes
	for _, v := range h.Vars {
		l.vars[v] = true
	}
}

// unnamed is what code of a database may do where no statement names it: in operators, casts, types, policies, views, constraints, indexes,
// defaults. Which statement uses which of them, only the server knows, so it counts for all. fires is the same for triggers, which
// statements that write may fire by cascades, partitions and views.
type unnamed struct {
	hidden, fires *Hidden
	writes        bool // what only seems to read may write
	recalls       bool // it may ask for values that were drawn
	firesRecalls  bool
}

type unnamedKey struct{}

// RunsUnnamed is how what a schema has may change a server where no statement names it; nil: it does not.
func RunsUnnamed(sch *schema.Snapshot) *Hidden {
	if sch == nil {
		return nil
	}
	return unnamedOf(sch).hidden
}

// Fires is how code that triggers run may change a server where no statement names it; nil: it does not.
func Fires(sch *schema.Snapshot) *Hidden {
	if sch == nil {
		return nil
	}
	return unnamedOf(sch).fires
}

var noneUnnamed = &unnamed{}

type viewsKey struct{}

// viewsOf are a schema's views by their bare names, in lower case as bodies are.
func viewsOf(sch *schema.Snapshot) map[string][]shardmap.TableName {
	return sch.Memo(viewsKey{}, func() any {
		out := map[string][]shardmap.TableName{}
		for n, t := range sch.Tables {
			if t.Kind == 'v' {
				name := strings.ToLower(n.Name)
				out[name] = append(out[name], n)
			}
		}
		return out
	}).(map[string][]shardmap.TableName)
}

type writesKey struct{}

// CodeWrites says whether functions of a schema may write: then what only seems to read may write too.
func CodeWrites(sch *schema.Snapshot) bool {
	if sch == nil {
		return true
	}
	return sch.Memo(writesKey{}, func() any {
		l := newLook(&analysis{sch: sch})
		for name := range sch.Funcs {
			l.function(name)
		}
		return l.writes
	}).(bool)
}

// unnamedOf is found out once for a schema.
func unnamedOf(sch *schema.Snapshot) *unnamed {
	if len(sch.Unnamed) == 0 && len(sch.Firing) == 0 {
		return noneUnnamed
	}
	return sch.Memo(unnamedKey{}, func() any {
		all := &analysis{sch: sch}
		used, fired := newLook(all), newLook(all)
		for _, f := range sch.Unnamed {
			used.function(f)
		}
		for _, f := range sch.Firing {
			fired.function(f)
		}
		return &unnamed{used.found(), fired.found(), used.writes, used.recalls, fired.recalls}
	}).(*unnamed)
}

// mayWrite says whether a statement that seems to read may write: in what it calls, or in what runs unnamed.
func mayWrite(a *analysis) bool {
	l := newLook(a)
	for _, f := range a.calls() {
		l.function(f)
	}
	return l.writes || unnamedOf(a.sch).writes
}

// hiddenState finds what a statement may leave behind unseen; nil for nothing.
func (a *analysis) hiddenState() *Hidden {
	switch a.stmt.Kind {
	case sqlparse.Show, sqlparse.Lock, sqlparse.Notify: // they run nobody's code, and have no snapshot: the isolation may still be chosen behind them
		return nil
	default: // what they name is looked at
	}
	l, q := newLook(a), unnamedOf(a.sch)
	l.add(q.hidden)
	fires := false // triggers of tables that it does not name
	switch a.stmt.Kind {
	case sqlparse.Routine:
		l.body(&schema.Func{Body: strings.ToLower(a.stmt.Text), Volatile: true})
		l.changes = true
	case sqlparse.Other: // not even parsed
		l.changes, l.modes, fires = true, true, true
	case sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Truncate, sqlparse.Copy:
		for _, ref := range a.stmt.Tables {
			if n, ok := a.env.find(a.db, a.sch, ref); ok {
				l.defaults(n)
			}
		}
	case sqlparse.Explain:
		fires = a.stmt.Def.NoTx // ANALYZE, perhaps of a write
	default: // what it names and calls is looked at below
	}
	for _, ref := range a.stmt.Tables {
		if n, ok := a.env.resolve(a.db, a.sch, ref); ok {
			l.view(n)
		}
	}
	for _, t := range a.touched {
		for _, f := range t.fires() {
			l.function(f)
		}
	}
	for _, f := range a.ran(a.stmt) {
		if f == "set_config" && a.stmt.Configs == nil { // a computed call: its session is tied to the server
			l.changes, l.modes = true, true
		}
		l.keeps(f)
		l.function(f)
	}
	if fires || l.writes || q.writes {
		l.add(q.fires)
		l.recalls = l.recalls || q.firesRecalls
	}
	a.t.Counts = countsOf(a, l, q)
	return l.found()
}

// keeps looks whether a function is one of an extension's that keeps or sets something.
func (l *look) keeps(name string) {
	if keepers[name] {
		l.changes, l.unknown = true, true
	}
	if v := configures[name]; v != "" {
		l.changes, l.vars[v] = true, true
	}
}

// view looks at what a view calls, and what it reads.
func (l *look) view(n shardmap.TableName) {
	t := l.a.sch.Tables[n]
	if t == nil || t.View == "" || l.seen[t.View] {
		return
	}
	l.seen[t.View] = true
	l.body(&schema.Func{Body: strings.ToLower(t.View)})
	for _, r := range t.Reads {
		l.view(r)
	}
}

// defaults looks at what a table's columns are filled with.
func (l *look) defaults(n shardmap.TableName) {
	if t := l.a.sch.Tables[n]; t != nil {
		for _, c := range t.Columns {
			if c.Default != "" {
				l.body(&schema.Func{Body: strings.ToLower(c.Default)})
			}
		}
	}
}

func (l *look) function(name string) {
	if l.seen[name] {
		return
	}
	l.seen[name] = true
	for _, f := range l.a.userFuncs(name) {
		switch {
		case f.Lang == "sql" || f.Lang == "plpgsql":
			l.body(f)
		case f.Volatile && len(f.Calls) == 0: // nobody can tell what it does; of an aggregate, it is what that calls
			l.changes, l.unknown, l.writes, l.recalls = true, true, true, true
		case f.Lang != "c" && f.Lang != "internal":
			l.recalls = true
		}
		for _, c := range f.Calls {
			l.function(c)
		}
	}
}

// body looks at the body of a function, or of what is like one.
func (l *look) body(f *schema.Func) {
	views := viewsOf(l.a.sch)
	for w := range f.Words() {
		l.changes, l.writes = l.changes || changers[w], l.writes || drawers[w] || f.Volatile && writers[w]
		l.recalls = l.recalls || recallers[w] || w == "execute"
		l.keeps(w)
		l.path = l.path || w == "search_path" || w == "role" || w == "authorization" || w == "execute"
		l.modes = l.modes || w == "transaction_read_only" || w == "only" || w == "execute"
		if len(l.a.userFuncs(w)) > 0 {
			l.function(w)
		}
		for _, n := range views[w] {
			l.view(n)
		}
	}
	for _, m := range setConfig.FindAllStringSubmatch(f.Body, -1) {
		switch {
		case m[1] == "":
			l.unknown = true
		case strings.Contains(m[1], "."):
			l.vars[m[1]] = true
		}
	}
	for _, m := range setCommand.FindAllStringSubmatch(f.Body, -1) {
		l.vars[m[1]] = true
	}
}
