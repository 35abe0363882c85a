package router

import (
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// Counts is what a statement has to do with what a server knows of the sequences that its session has drawn from. What it may do in code
// that no parser sees it counts as doing.
type Counts uint8

const (
	Draws   Counts = 1 << iota // it draws a value, or sets one
	Recalls                    // it asks for a value that was drawn
	Asks                       // it does that in its own words
)

// recallers are the functions that ask for a value that was drawn.
var recallers = map[string]bool{"currval": true, "lastval": true}

// countsOf finds it out, of a statement whose code was looked through.
func countsOf(a *analysis, l *look, q *unnamed) (c Counts) {
	s := a.stmt
	c = fills(a)
	switch s.Kind {
	case sqlparse.AlterTable, sqlparse.CreateTableAs, sqlparse.Other: // rows that are there are filled, or made, or nobody knows
		c |= Draws
	case sqlparse.Explain:
		if s.Def.NoTx { // ANALYZE
			c |= Draws
		}
	case sqlparse.DDL:
		if s.Def.Refresh || strings.Contains(strings.ToLower(s.Text), "extension") { // which may have a script
			c |= Draws
		}
	default: // what it writes has been looked at
	}
	if l.writes || q.writes {
		c |= Draws
	}
	if l.recalls || q.recalls || s.Kind == sqlparse.Other {
		c |= Recalls
	}
	for _, f := range a.calls() {
		switch {
		case recallers[f]:
			c |= Recalls | Asks
		case a.sch.Volatile[f] && len(a.userFuncs(f)) == 0 && !idle[f] && !strings.HasPrefix(f, "pg_"):
			c |= Draws
		}
	}
	return c
}

// idle are volatile functions, of PostgreSQL or of extensions, that are called often and draw nothing.
var idle = map[string]bool{
	"random": true, "setseed": true, "clock_timestamp": true, "timeofday": true, "gen_random_uuid": true, "gen_random_bytes": true, "gen_salt": true, "uuid_generate_v1": true, "uuid_generate_v4": true,
	"set_config": true, "txid_current": true,
}

// fills is what defaults that a statement fills columns of a row by have to do with it, and rules, which may do anything.
func fills(a *analysis) (c Counts) {
	all, says := a.stmt.Kind == sqlparse.Copy && a.stmt.Copy.From, strings.Contains(strings.ToLower(a.stmt.Text), "default")
	everyQuery(a.stmt.Query, func(q *sqlparse.Query) {
		all = all || q.Target != nil && (q.Cmd != sqlparse.Update && q.Cmd != sqlparse.Delete || says)
	})
	if all && len(a.touched) == 0 { // of a table that nobody knows
		return Draws
	}
	for _, x := range a.touched {
		if x.Rules {
			c |= Draws | Recalls
		}
		if slices.ContainsFunc(x.fires(), func(f string) bool { return len(a.userFuncs(f)) == 0 }) { // of an extension
			c |= Draws
		}
		for i := range x.Columns {
			if all || len(x.defaults) > 0 {
				c |= filledBy(&x.Columns[i])
			}
		}
	}
	return c
}

// filledBy is what a column's default has to do with it. What a user's function does for it is code that runs unnamed.
func filledBy(col *schema.Column) (c Counts) {
	has := func(name string) bool { return strings.Contains(col.Default, name) }
	if col.Identity || has("nextval") || has("setval") || has("next_id") {
		c |= Draws
	}
	if has("currval") || has("lastval") {
		c |= Recalls
	}
	return c
}
