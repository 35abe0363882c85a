// Package router decides where a statement runs: it proves the route, or refuses.
//
// Analyze is a function of the statement, the shard map, the schema and the few session settings that
// change meaning. It makes a Template, which Bind turns into a Plan for given values. Both are pure. Unclear
// never means "all shards" and never means "the first key found".
package router

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// Class is what is done with a statement.
type Class uint8

// The closed set of plans.
const (
	Control   Class = iota // transactions, settings, prepared statements: the session's own affair
	Single                 // the client's text on one shard
	Scatter                // a SELECT on several shards, rows merged
	Write                  // the same write on several shards, atomic
	Split                  // an INSERT whose rows belong to several shards
	Copy                   // COPY FROM STDIN split by key
	Gathered               // a SELECT on copies of the rows that it needs, on home
	Explained              // EXPLAIN of a statement over several shards
	Moved                  // INSERT ... SELECT: the rows are made on home, and sent to their shards
	Rekey                  // an UPDATE that changes keys: rows are deleted where they were and inserted where they belong
)

func (c Class) String() string {
	return [...]string{"Control", "Single", "Scatter", "Write", "Split", "Copy", "Gather", "Explain", "Move", "Rekey"}[c]
}

// Env is the session's part of a plan's meaning.
type Env struct {
	Role       string
	SearchPath []string          // as SHOW search_path lists it, "$user" included
	Temp       *schema.Temporary // the session's temporary objects; they hide others and live on home
}

// Template is what is known of a statement before its values. It is immutable and shared by sessions.
type Template struct {
	Class  Class
	Stmt   *sqlparse.Statement
	DB     *shardmap.DB
	Schema *schema.Snapshot

	Read    bool                 // a proved read: a replica may answer it
	Tables  []shardmap.TableName // what it reads or writes, for freshness
	Sharded int                  // how many of them, at the front, are sharded
	Whole   bool                 // what it touches is not known in full: freshness is kept for the whole shard
	Known   Known                // what the schema knows of what it names
	Home    bool                 // Single on the home shard, whatever the values
	Any     bool                 // Single on any shard: only reference tables or nothing
	Hidden  *Hidden              // how it may change its server where no parser sees it; nil: it does not
	Behind  []shardmap.TableName // of a read: tables of the views that it names
	Beyond  bool                 // of a read: it may read tables that are not named, as a function does
	Temp    bool                 // makes a temporary object: the session stays on its server
	OnTemp  bool                 // reads or writes temporary objects of the session
	Merge   *Merge               // of Scatter, and of Single templates that may turn out wider
	Gather  *Gather              // of Gathered, and of Moved: the SELECT
	Inner   *Template            // of Explained: the statement that is explained
	Target  *shardmap.TableInfo  // of Write, Split, Copy, Moved
	Apart   map[int]string       // of Write with Ref: what runs on the shards that do not get the statement itself
	Then    string               // of Write with Ref: what runs behind it on each shard
	Ref     bool                 // Write of a reference table or definition: every shard, home's tag counts
	NoTx    bool                 // Write that runs on each shard by itself (VACUUM)
	Made    *Made                // of Moved: the table is made first
	Shared  bool                 // Write of what every shard has, or may lack: see Definition.Alters
	Cluster bool                 // Shared, and once for each server: shards may be databases of one
	DDL     bool                 // changes the schema
	Drops   []shardmap.TableName // declared tables that go
	Renamed *Renamed             // a declared table that, or a key column of which, gets another name
	Exact   bool                 // holds only for this very text: literals shape the plan
	Key     []int                // of Copy and Moved: positions of the key columns in the row
	Draw    *Draw                // of Split: a key column takes its values from a sequence
	Names   []string             // of Copy and Moved: the columns in order
	Source  string               // of Moved: the SELECT's own text
	Tail    string               // of Moved: ON CONFLICT and RETURNING
	Fills   *sqlparse.Fills      // of what writes the copies of a reference table: what must be evaluated once
	Counts  Counts               // what it has to do with what its session has drawn from sequences

	Executors

	pins      []pin
	wide      *Error // why the statement may not run on more than one shard
	refShards []int  // of Write with Ref: the shards, where it is not all
	blind     bool   // of Gathered: its text runs on no shard as it is

	common common

	rekey *rekey // of an UPDATE that assigns a key

	fallback func(why *Error) (*Template, *Error) // of Scatter
}

// Known is what the schema knows of what a statement names and gives.
type Known uint8

// Known's values.
const (
	NamesKnown   Known = iota // all relations and functions
	NamesUnknown              // it names one that the schema does not know
	ColumnsKnown              // names, and all that it gives are columns of its tables: see GiveTheSame
)

// Executors is what the executor keeps with a template.
type Executors struct {
	Aux  sync.Map     // what a server said about the statement, for the next run
	Kept any          // where the template is kept
	Runs atomic.Int64 // what ran by a statement that was prepared before: looking the plan up counts the others
}

// Renamed is what a declared table and its key columns are called from now on.
type Renamed struct {
	From, To shardmap.TableName
	Keys     []string
}

// NextID is the function that gives ids which no other shard gives, as PostgreSQL prints its call.
const NextID = "pgmosaic.next_id()"

// Draw says that an INSERT leaves a key column to its sequence: the values are drawn on home first, and route the rows.
type Draw struct {
	Sequence string // as text for nextval; empty: from NextID
	Column   string
	At       int // its position in the column list; -1 where it is not named
	Rows     int // how many rows want a value
}

// rekey is the way out of an UPDATE that assigns a key, if a row leaves its shard.
type rekey struct {
	plan   *Template
	narrow *Error // why it may run on one shard only
}

// pin is what ties one sharded relation to key values.
type pin struct {
	group   *shardmap.GroupInfo // nil: home
	columns []string
	vals    [][]sqlparse.Value // of each key column: it has one of these; nil: any. Of an INSERT's row: the value is drawn
	bounds  []sqlparse.Bound   // of the first column with any value, in a group of ranges
	list    listing            // of a long list of keys
	held    []pghash.Declared  // what the key's columns make of values that are written; nil: nothing
	pinRole use
}

// use is what a pin stands for.
type use uint8

const (
	reads   use = iota // rows of a relation
	inserts            // one row of an INSERT: it must have a place
	assigns            // an assigned key, which must stay on the same shard
)

// tied says whether every key column has known values; one, whether it is a single key.
func (p *pin) tied() bool {
	return p.group != nil && !slices.ContainsFunc(p.vals, func(v []sqlparse.Value) bool { return v == nil })
}

func (p *pin) one() bool {
	return p.group != nil && !slices.ContainsFunc(p.vals, func(v []sqlparse.Value) bool { return len(v) != 1 || v[0].Array })
}

func (p *pin) same(o *pin) bool {
	return p.group == o.group && p.pinRole == o.pinRole && p.pinRole == reads && slices.EqualFunc(p.vals, o.vals, func(x, y []sqlparse.Value) bool { return slices.Equal(x, y) && (x == nil) == (y == nil) }) &&
		slices.Equal(p.bounds, o.bounds)
}

// key names the pin's columns in messages.
func (p *pin) key() string { return strings.Join(p.columns, ", ") }

// Merge says how the rows of several shards become one result.
type Merge struct {
	Mode   MergeMode
	SQL    string // what each shard runs
	Own    bool   // it is the client's own text: run the text that came, whose literals may be others
	Hidden int    // hidden columns at the right of each row
	Sorts  []SortKey
	Cols   []AggCol // of Aggregate: one for each visible column
	Limit  *sqlparse.Value
	Offset *sqlparse.Value
	Locks  bool // it locks rows: shards are asked one after the other, for no more rows than are wanted
}

// MergeMode is the kind of merge.
type MergeMode uint8

// The merges.
const (
	Concat MergeMode = iota
	Ordered
	Aggregate
)

func (m MergeMode) String() string { return [...]string{"concat", "ordered", "aggregate"}[m] }

// SortKey is one ORDER BY item. Column counts from the first hidden column for Ordered, and is an
// index of a visible column for Aggregate.
type SortKey struct {
	Column     int
	Desc       bool
	NullsFirst bool
	Bytes      bool // text may be compared by bytes
}

// AggCol is how one visible column of an aggregate is made.
type AggCol struct {
	Func   string // a name of merge.Aggregates; empty for a grouping expression
	Hidden int    // index of its first hidden column; -1 for none
	Bytes  bool   // text may be compared by bytes
}

// Plan is a template with its shards.
type Plan struct {
	*Template
	Shards []int   // ordered indices of DB.Shards
	Rows   []int   // of Split: the shard of each row
	Drawn  []int64 // of Draw
	Narrow bool    // a Scatter template that turned out to need one shard: runs as Single
	Shares *Shares // of a long list of keys; nil: each shard is sent the whole text

	by     *shardmap.DB // that it was bound by; nil: the template's
	places []int        // of the keys in a long list
}

// keyFits says whether a constant of this class and cast can be compared with a key of type t as the
// server would, by the equality of t's hash operator family.
func keyFits(t pghash.Type, v sqlparse.Value) bool {
	if v.Cast != "" {
		ct, ok := pghash.TypeByName(v.Cast)
		if !ok || family(ct) != family(t) || t == pghash.TypeBpchar {
			return false
		}
		if v.Kind == sqlparse.ValInt && !ct.IsInteger() && ct != pghash.TypeNumeric {
			return false
		}
		return v.Kind != sqlparse.ValNumber || ct == pghash.TypeNumeric
	}
	switch v.Kind {
	case sqlparse.ValInt:
		return t.IsInteger() || t == pghash.TypeNumeric
	case sqlparse.ValNumber:
		return t == pghash.TypeNumeric
	case sqlparse.ValBool:
		return t == pghash.TypeBool
	case sqlparse.ValString, sqlparse.ValParam, sqlparse.ValNull:
		return true
	case sqlparse.ValOther, sqlparse.ValDefault:
	}
	return false
}

// family groups the key types whose equality crosses: integers of all widths, text and varchar.
func family(t pghash.Type) pghash.Type {
	switch {
	case t.IsInteger():
		return pghash.TypeInt8
	case t == pghash.TypeVarchar:
		return pghash.TypeText
	}
	return t
}

// Defines says whether the statement changes what others are planned by.
func (t *Template) Defines() bool { return t.DDL && !t.Temp && t.Stmt.Kind != sqlparse.Routine }

// Forced is the template as it runs on a shard that the client has named: its text, there and nowhere else.
func (t *Template) Forced() *Template {
	return &Template{Class: Single, Stmt: t.Stmt, DB: t.DB, Schema: t.Schema, Read: t.Read, Tables: t.Tables, Behind: t.Behind, Beyond: t.Beyond, Whole: t.Whole, Temp: t.Temp, OnTemp: t.OnTemp, Hidden: t.Hidden, Counts: t.Counts}
}

// Part is the template of what is asked of a shard for the sake of this one: a read, or not, of its tables.
func (t *Template) Part(read bool) *Template {
	return &Template{Class: Single, Stmt: t.Stmt, DB: t.DB, Schema: t.Schema, Read: read, Tables: t.Tables, Behind: t.Behind, Beyond: t.Beyond, Whole: t.Whole && !read}
}

// ShardText is what each shard of a Scatter runs for these values.
func (t *Template) ShardText(a *Args) string {
	if t.Merge.Own && a.Text != nil {
		return string(a.Text)
	}
	return t.Merge.SQL
}

// Writes says whether the plan changes rows of several shards in one transaction. A COPY is one by itself.
func (p *Plan) Writes() bool {
	return (p.Class == Write || p.Class == Split || p.Class == Moved || p.Class == Rekey || p.Class == Copy && p.Stmt.Copy.From) && !p.NoTx
}

// Plain says whether the client's own text runs on one shard, and nothing else is to be done.
func (p *Plan) Plain() bool {
	switch p.Class {
	case Control, Copy, Explained, Moved, Rekey:
		return false
	case Write:
		if p.Ref {
			return false
		}
	case Single, Scatter, Split, Gathered:
	}
	return len(p.Shards) == 1 && p.Draw == nil && !p.blind
}

// Alias is the AS of an INSERT's target, or nothing.
func (p *Plan) Alias() string {
	if r := p.Stmt.Query.Target; r.Alias != "" {
		return " AS " + pgsql.Ident(r.Alias)
	}
	return ""
}

// Made is the table of CREATE TABLE AS: the statement that makes it, empty, and its name as SQL.
type Made struct{ SQL, Table string }
