package router

import (
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// What a sharded table runs for its rows, triggers, CHECKs and defaults, is run on their shards. Home's own tables, views and sequences are not
// there; if something of such a name is, it is another thing. So code that names one is refused. Which names a body speaks of is told by
// its words: one that is a variable's is taken for the table's, until the admin says that the routine is shard safe.

// away is a search for what code names that home alone has. What else it reaches is no concern of the search.
type away struct {
	own      func(*schema.Table) bool // it is on the shards as well, or will be
	function string                   // that names it; empty: nothing was found
	uses     shardmap.TableName
}

// homebound is the refusal of code that a table runs on its shards and that uses what home alone has; nil if none does.
func homebound(a *analysis, t *schema.Table, code []string, own func(*schema.Table) bool) *Error {
	a.away, a.safe = &away{own: own}, true
	defer func() { a.away = nil }()
	for _, f := range code {
		if a.funcReaches(f, map[string]bool{}) && a.away.function != "" {
			return Refuse(RuleHomebound, "function "+a.away.function+", which table "+t.TableName.String()+" runs on the shards of its rows, may use "+a.away.uses.String())
		}
	}
	return nil
}

// Homebound refuses to distribute tables that run code which uses what home alone has. The tables go together.
func Homebound(db *shardmap.DB, sch *schema.Snapshot, tables []shardmap.TableName) *Error {
	a := &analysis{db: db, sch: sch}
	going := func(t *schema.Table) bool {
		return slices.Contains(tables, t.TableName) || slices.Contains(tables, t.Root)
	}
	own := func(t *schema.Table) bool { return going(t) || a.info(t.TableName) != nil }
	for _, n := range tables {
		for _, x := range changesOf(a, n) {
			if !going(x.Table) {
				continue
			}
			if err := homebound(a, x.Table, slices.Concat(x.fires(), x.Code.Always, x.Code.Writes, x.Code.Defaults), own); err != nil {
				return err
			}
		}
	}
	return nil
}

// staysHere refuses a change of a table whose rows are on other shards than home, where it runs code that uses what home alone has.
func staysHere(a *analysis, x *touched) error {
	info := a.info(x.TableName)
	if info == nil || info.Kind != shardmap.Sharded || !slices.ContainsFunc(a.db.Placement(info.Group).Shards(), func(i int) bool { return i != a.db.Home.Index }) {
		return nil
	}
	code := slices.Concat(x.fires(), x.Code.Always, x.Code.Writes)
	if a.givesDefaults(x) {
		code = append(code, x.Code.Defaults...)
	}
	if err := homebound(a, x.Table, code, func(t *schema.Table) bool { return a.info(t.TableName) != nil }); err != nil {
		return err
	}
	return nil
}

// homeAlone says whether what a body names is home's alone: it is none of what the shards have, no sequence of a column there, and
// nothing there is called like it, which the body may mean as well.
func (w *away) homeAlone(sch *schema.Snapshot, t *schema.Table) bool {
	if w.own(t) {
		return false
	}
	for _, x := range sch.Tables {
		drawn := t.Kind == 'S' && slices.ContainsFunc(x.Columns, func(c schema.Column) bool { return c.Sequence == t.SQL() || c.Sequence == t.String() })
		if (drawn || x.Name == t.Name) && w.own(x) {
			return false
		}
	}
	return true
}

// reached says whether words of a function's body, or what they call, name what home alone has.
func (w *away) reached(a *analysis, words, seen map[string]bool) bool {
	found := false
	for n, t := range a.sch.Tables {
		if (!found || strings.Compare(n.String(), w.uses.String()) < 0) && schema.Names(words, n.Name) && w.homeAlone(a.sch, t) {
			found, w.uses = true, n
		}
	}
	if found {
		return true
	}
	for f := range words {
		if len(a.userFuncs(f)) > 0 && a.funcReaches(f, seen) {
			return true
		}
	}
	return false
}

// wordsOf are the words by which it is told what a function reaches. Whoever looks for what home alone has leaves the fields of NEW
// and OLD out, if no schema has these names.
func wordsOf(a *analysis, f *schema.Func) map[string]bool {
	switch {
	case f.Immutable:
		return f.Spoken()
	case a.away != nil && !a.sch.Schemas["new"] && !a.sch.Schemas["old"]:
		return f.BesideRow()
	}
	return f.Words()
}
