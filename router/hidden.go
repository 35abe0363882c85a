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
	Path    bool     // it may set the search_path
}

// changers are words of a function's body that may change the server which runs it beyond the transaction.
var changers = map[string]bool{
	"set": true, "set_config": true, "reset": true, "execute": true, "prepare": true, "listen": true, "load": true, "setseed": true, "temp": true, "temporary": true,
	"create": true, "alter": true, "drop": true,
	"pg_advisory_lock": true, "pg_advisory_lock_shared": true, "pg_try_advisory_lock": true, "pg_try_advisory_lock_shared": true, "hold": true,
}

var (
	setConfig  = regexp.MustCompile(`\bset_config\s*\(\s*(?:'([^']*)'\s*,)?`)
	setCommand = regexp.MustCompile(`\bset\s+(?:session\s+|local\s+)?"?([a-z_][a-z0-9_]*\.[a-z0-9_.]+)"?\s*(?:=|to\b)`)
)

// look is the search through the bodies of what a statement calls.
type look struct {
	a       *analysis
	seen    map[string]bool
	vars    map[string]bool
	unknown bool
	changes bool
	path    bool
}

// hiddenState finds what a statement may leave behind unseen; nil for nothing.
func (a *analysis) hiddenState() *Hidden {
	l := look{a: a, seen: map[string]bool{}, vars: map[string]bool{}}
	switch a.stmt.Kind {
	case sqlparse.Routine:
		l.body(strings.ToLower(a.stmt.Text))
		l.changes = true
	case sqlparse.Other: // not even parsed
		l.changes = true
	case sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Truncate, sqlparse.Copy:
		for _, ref := range a.stmt.Tables {
			if n, ok := a.env.find(a.db, a.sch, ref); ok {
				for _, f := range a.table(n).Triggered() {
					l.function(f)
				}
				l.defaults(n)
			}
		}
	}
	for _, ref := range a.stmt.Tables {
		if n, ok := a.env.resolve(a.db, a.sch, ref); ok {
			l.view(n)
		}
	}
	for _, f := range a.stmt.Funcs {
		if f == "set_config" && a.stmt.Configs == nil { // a computed call: its session is tied to the server
			l.changes = true
		}
		l.function(f)
	}
	if !l.changes {
		return nil
	}
	h := &Hidden{Unknown: l.unknown, Path: l.path || l.unknown}
	for v := range l.vars {
		h.Vars = append(h.Vars, v)
	}
	sort.Strings(h.Vars)
	return h
}

// view looks at what a view calls, and what it reads.
func (l *look) view(n shardmap.TableName) {
	t := l.a.sch.Tables[n]
	if t == nil || t.View == "" || l.seen[t.View] {
		return
	}
	l.seen[t.View] = true
	l.body(strings.ToLower(t.View))
	for _, r := range t.Reads {
		l.view(r)
	}
}

// defaults looks at what a table's columns are filled with.
func (l *look) defaults(n shardmap.TableName) {
	if t := l.a.sch.Tables[n]; t != nil {
		for _, c := range t.Columns {
			if c.Default != "" {
				l.body(strings.ToLower(c.Default))
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
			l.body(f.Body)
		case f.Volatile: // nobody can tell what it does
			l.changes, l.unknown = true, true
		}
	}
}

// body looks at a function's body, in lower case.
func (l *look) body(body string) {
	for w := range (&schema.Func{Body: body}).Words() {
		l.changes = l.changes || changers[w]
		l.path = l.path || w == "search_path" || w == "execute"
		if len(l.a.userFuncs(w)) > 0 {
			l.function(w)
		}
	}
	for _, m := range setConfig.FindAllStringSubmatch(body, -1) {
		switch {
		case m[1] == "":
			l.unknown = true
		case strings.Contains(m[1], "."):
			l.vars[m[1]] = true
		}
	}
	for _, m := range setCommand.FindAllStringSubmatch(body, -1) {
		l.vars[m[1]] = true
	}
}
