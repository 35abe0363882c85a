package router

import (
	"slices"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// touched is a table or view whose rows a statement changes, and with it fires triggers and runs what its definition has. The statement
// names it, or what it names is a view above it, a table that it is a partition or child of, or one to which its foreign key refers. Whoever
// asks what a write runs goes through analysis.touched: of each its fires, and what stands in its Code.
type touched struct {
	*schema.Table
	events   schema.Events
	named    bool     // the statement names it, or a view that stands for it
	above    bool     // what was named is a table above it: triggers for each row fire
	defaults []string // columns that a foreign key sets to their defaults
}

// fires are the functions of the triggers that fire.
func (t *touched) fires() []string { return t.Fired(t.events, t.above) }

// changes lists what a statement changes, each table once. Nothing else than a statement's own text says what a function changes that it
// calls: see funcReaches.
func changes(a *analysis) []*touched {
	c := &closure{a: a}
	everyQuery(a.stmt.Query, func(q *sqlparse.Query) {
		if q.Target == nil {
			return
		}
		s := change{named: true, only: q.Target.Only}
		for _, x := range q.Sets {
			s.sets = append(s.sets, x.Column)
		}
		switch q.Cmd {
		case sqlparse.Insert:
			if s.events = schema.OnInsert; q.Conflict && len(q.Sets) > 0 {
				s.events |= schema.OnUpdate
			}
		case sqlparse.Update:
			s.events = schema.OnUpdate
		case sqlparse.Delete:
			s.events = schema.OnDelete
		default:
			s.events = schema.OnInsert | schema.OnUpdate | schema.OnDelete
		}
		c.ref(q.Target.Table, s)
	})
	switch s := a.stmt; s.Kind {
	case sqlparse.Copy:
		if s.Copy.From && s.Copy.Table != nil {
			c.ref(*s.Copy.Table, change{named: true, events: schema.OnInsert})
		}
	case sqlparse.Truncate:
		for _, o := range s.Def.Objects {
			c.ref(o, change{named: true, events: schema.OnTrunc, cascade: s.Def.Cascade})
		}
	default: // only its queries touch tables
	}
	return c.found
}

// changesOf is what changes with a table when anything is done to its rows.
func changesOf(a *analysis, n shardmap.TableName) []*touched {
	c := &closure{a: a}
	c.table(n, change{named: true, events: schema.AnyEvent, any: true, cascade: true})
	return c.found
}

// change is what happens to a table's rows.
type change struct {
	events      schema.Events
	moves       bool     // rows move between partitions
	sets        []string // the columns that an update gives values; see any
	any         bool     // it may give any
	only        bool     // what is below is not touched
	cascade     bool     // of TRUNCATE
	named       bool
	above       bool
	setsDefault []string
}

// closure collects what a change brings with it.
type closure struct {
	a     *analysis
	found []*touched
	seen  map[shardmap.TableName][]change
}

func (c *closure) ref(ref sqlparse.TableRef, s change) {
	if n, ok := c.a.env.find(c.a.db, c.a.sch, ref); ok {
		c.table(n, s)
	}
}

// known says whether a table has been visited for a change, or a larger one.
func (c *closure) known(n shardmap.TableName, s *change) bool {
	for _, was := range c.seen[n] {
		sets := was.any || !s.any && !slices.ContainsFunc(s.sets, func(k string) bool { return !slices.Contains(was.sets, k) })
		if was.events&s.events == s.events && sets && was.only == s.only && was.above == s.above && was.moves == s.moves && was.cascade == s.cascade && len(s.setsDefault) == 0 {
			return true
		}
	}
	if c.seen == nil {
		c.seen = map[shardmap.TableName][]change{}
	}
	c.seen[n] = append(c.seen[n], *s)
	return len(c.seen[n]) > 16 // enough of it
}

func (c *closure) table(n shardmap.TableName, s change) {
	t := c.a.table(n)
	if t == nil || c.known(n, &s) {
		return
	}
	events := s.events
	if s.moves || t.Kind == 'p' && events&schema.OnUpdate != 0 { // an update is a deletion and an insertion where a row moves to another partition
		events, s.moves = events|schema.OnInsert|schema.OnDelete, true
	}
	c.note(t, events, &s)
	if s.named && t.Child {
		c.parents(n)
	}
	if t.Kind == 'v' {
		c.view(t, s)
		return
	}
	if t.Rules && !s.above {
		c.all(t)
	}
	if !s.only {
		down := change{events: s.events, moves: s.moves, sets: s.sets, any: s.any, cascade: s.cascade, above: true}
		if t.Kind != 'p' {
			down.events &^= schema.OnInsert
		}
		for _, child := range t.Children {
			if down.events != 0 {
				c.table(child, down)
			}
		}
	}
	for i := range t.Acts {
		c.act(t, &t.Acts[i], &s)
	}
}

// parents notes the tables above a partition: rows must fit their keys, which may call functions.
func (c *closure) parents(n shardmap.TableName) {
	up := func(p *schema.Table) {
		if slices.Contains(p.Children, n) && !slices.ContainsFunc(c.found, func(x *touched) bool { return x.Table == p }) {
			c.note(p, 0, &change{above: true})
			c.parents(p.TableName)
		}
	}
	for _, p := range c.a.sch.Tables {
		up(p)
	}
	if c.a.env.Temp != nil {
		for _, p := range c.a.env.Temp.Tables {
			up(p)
		}
	}
}

// act follows a foreign key. A trigger before an update may change a key.
func (c *closure) act(t *schema.Table, act *schema.Act, s *change) {
	down := change{sets: act.Columns, setsDefault: act.Defaults, cascade: s.cascade}
	if s.events&schema.OnDelete != 0 {
		down.events |= act.Deleted
	}
	if s.events&schema.OnUpdate != 0 && (s.any || len(t.Fired(schema.OnUpdate, s.above)) > 0 || slices.ContainsFunc(s.sets, func(k string) bool { return slices.Contains(act.Keys, k) })) {
		down.events |= act.Renamed
	}
	if s.events&schema.OnTrunc != 0 && s.cascade {
		down.events |= schema.OnTrunc
	}
	if down.events != 0 {
		c.table(act.From, down)
	}
}

// view follows a view to the table or view in its FROM, as PostgreSQL does where no trigger is there instead.
func (c *closure) view(t *schema.Table, s change) {
	instead := schema.Events(0)
	for _, fires := range t.On {
		if fires&schema.InsteadOf != 0 {
			instead |= fires & schema.AnyEvent
		}
	}
	v := parseView(t)
	switch {
	case s.events&^instead == 0:
	case t.Rules || v == nil || v.Query == nil:
		c.all(t)
	case len(v.Query.Rels) == 1 && v.Query.Rels[0].Kind == sqlparse.RelTable:
		c.ref(v.Query.Rels[0].Table, change{events: s.events &^ instead, any: true, only: v.Query.Rels[0].Only, named: s.named})
	}
}

// all follows rules: they may do anything with what they name.
func (c *closure) all(t *schema.Table) {
	for _, n := range t.Reads {
		if n != t.TableName {
			c.table(n, change{events: schema.AnyEvent &^ schema.OnTrunc, any: true, named: true})
		}
	}
}

func (c *closure) note(t *schema.Table, events schema.Events, s *change) {
	i := slices.IndexFunc(c.found, func(x *touched) bool { return x.Table == t })
	if i < 0 {
		i = len(c.found)
		c.found = append(c.found, &touched{Table: t, above: true})
	}
	x := c.found[i]
	x.events, x.named, x.above = x.events|events, x.named || s.named, x.above && s.above
	for _, d := range s.setsDefault {
		if !slices.Contains(x.defaults, d) {
			x.defaults = append(x.defaults, d)
		}
	}
}
