// Package sqlparse turns SQL text into the facts that routing needs.
//
// It is the one place that knows the parser's tree. What it does not understand it says so: Query.Opaque
// is set wherever a table could be read in a way that the facts do not describe, and Statement.Tables
// lists every relation named anywhere, found by a walk that knows no grammar. So nothing can hide a table.
package sqlparse

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Kind is what a statement does.
type Kind uint8

// The kinds of statements that are told apart.
const (
	Other Kind = iota
	Empty
	Select
	Insert
	Update
	Delete
	Merge
	Begin
	Commit
	Rollback
	Savepoint
	Release
	RollbackTo
	TwoPhase // PREPARE TRANSACTION and its kin
	Set
	Show
	Discard
	Prepare
	Execute
	Deallocate
	Cursor // DECLARE
	Fetch  // FETCH, MOVE, CLOSE
	Copy
	Explain
	Listen
	Unlisten
	Load
	Notify
	Truncate
	Vacuum // VACUUM, ANALYZE
	Lock
	Constraints // SET CONSTRAINTS
	CreateTable
	AlterTable
	Drop
	CreateIndex
	Rename
	CreateView
	CreateTableAs
	Routine // DO, CALL
	DDL     // any other definition
)

// Statement is one parsed statement.
type Statement struct {
	Kind      Kind
	Text      string       // its own text, without the semicolon
	Query     *Query       // of Select, Insert, Update, Delete and what wraps one: Explain, Copy, Cursor, Prepare
	Tables    []TableRef   // every relation named anywhere in it
	Called                 // what it runs
	Tx        Tx           // of the transaction kinds
	Var       Var          // of Set and Show
	Copy      CopyInfo     // of Copy
	Def       Definition   // of the definition kinds
	Name      string       // of Prepare, Execute, Deallocate, Savepoint, Cursor
	Params    int          // highest $n
	Clock     bool         // reads the clock: its value differs with each server
	Private   bool         // calls a function of the proxy's own schema
	Args      []Value      // of Execute
	Body      string       // of Prepare: the statement behind AS
	NameAt    Span         // of Prepare and Execute, in whatever wraps it: where the name stands
	Configs   []Config     // of a SELECT of nothing but set_config calls
	Signals   bool         // calls pg_terminate_backend or pg_cancel_backend
	CurrentOf string       // the cursor that WHERE CURRENT OF names
	Syntax    *SyntaxError // why it could not be read, of a text that is left to its server
	Collates  []string     // the collations that COLLATE names in it
	Closes    bool         // may end what ties a session to its server: an unlock, DROP, CLOSE, DISCARD

	paramUse []paramUse
	tree     any
	base     int // offset of Text in the parsed text
}

// Slim forgets the parse tree, and of the query all but what running it needs: a plan that is kept is a tenth of the size.
// The statement cannot be planned again.
func (s *Statement) Slim() {
	s.tree, s.Attrs, s.Collates = nil, nil, nil
	q := s.Query
	if q == nil {
		return
	}
	s.Query = &Query{Cmd: q.Cmd, Sets: q.Sets, Returning: q.Returning}
	if r := q.Target; r != nil {
		s.Query.Target = &Rel{Kind: r.Kind, Table: r.Table, Alias: r.Alias, Only: r.Only, Loc: r.Loc}
	}
}

// ParamUses says how often $n stands in the statement.
func (s *Statement) ParamUses(n int) int {
	if n < 1 || n > len(s.paramUse) {
		return 0
	}
	return s.paramUse[n-1].all
}

// ParamAlwaysCast says whether $n stands nowhere but in casts to one type, which is then its own, if none is declared.
func (s *Statement) ParamAlwaysCast(n int) bool {
	return n >= 1 && n <= len(s.paramUse) && s.paramUse[n-1].cast == s.paramUse[n-1].all
}

// paramUse is how often a parameter stands in a statement.
type paramUse struct {
	all, cast int    // cast: in a cast to the type of the first
	to        string // that type
}

// Tx is what a transaction statement asks for.
type Tx struct {
	ReadOnly, ReadWrite       bool
	Deferrable, NotDeferrable bool
	Isolation                 string // lower case, or empty
	Chain                     bool
	Start                     bool // START TRANSACTION, as BEGIN but for its tag
}

// Set is the SET TRANSACTION with these modes, empty for none.
func (t Tx) Set() string {
	out := ""
	if t.Isolation != "" {
		out += " ISOLATION LEVEL " + strings.ToUpper(t.Isolation)
	}
	if t.ReadOnly {
		out += " READ ONLY"
	}
	if t.ReadWrite {
		out += " READ WRITE"
	}
	if t.Deferrable {
		out += " DEFERRABLE"
	}
	if t.NotDeferrable {
		out += " NOT DEFERRABLE"
	}
	if out == "" {
		return ""
	}
	return "SET TRANSACTION" + out
}

// With is what holds when more modes have been asked for.
func (t Tx) With(more Tx) Tx {
	if more.Isolation != "" {
		t.Isolation = more.Isolation
	}
	if more.ReadOnly || more.ReadWrite {
		t.ReadOnly, t.ReadWrite = more.ReadOnly, more.ReadWrite
	}
	if more.Deferrable || more.NotDeferrable {
		t.Deferrable, t.NotDeferrable = more.Deferrable, more.NotDeferrable
	}
	return t
}

// Var is a SET, RESET or SHOW.
type Var struct {
	Name    string // lower case; "all" for RESET ALL and SHOW ALL
	Value   string // SQL text behind TO, ready to be sent again; empty for DEFAULT and RESET
	Plain   string // the value itself when it is one constant
	Default bool   // RESET or TO DEFAULT
	Local   bool
	Special bool // SET TRANSACTION, SET SESSION CHARACTERISTICS, FROM CURRENT
}

// Config is a call of set_config: what it sets, to what, and whether for the transaction only.
type Config struct{ Name, Value, Local Value }

// CopyInfo describes a COPY.
type CopyInfo struct {
	Table   *TableRef
	Columns []string
	From    bool
	Stdio   bool
	Freeze  bool
	Options map[string]string   // lower case names; a bare flag is "true"
	Lists   map[string][]string // of options that name columns; "*" for all
	Where   bool                // COPY FROM ... WHERE
	Plain   bool                // every option was understood
}

// Definition describes DDL.
type Definition struct {
	Scope     Scope
	Objects   []TableRef // the tables, or indexes, that it creates, alters or drops, or what hangs on them
	Alters    bool       // it alters or drops what is there: what is not on a shard needs nothing
	Temp      bool       // what it makes, alters or drops is said to be temporary
	Bare      bool       // what it makes has no schema in its name
	Chooses   bool       // PostgreSQL may choose names of what it makes
	Makes     []TableRef // types that it makes or alters, where it chooses names
	Like      []TableRef // tables whose CHECKs or identities CREATE TABLE (LIKE ..) takes along
	Unique    bool       // CREATE UNIQUE INDEX, ADD PRIMARY KEY or UNIQUE
	NoTx      bool       // cannot run in a transaction block
	IfExists  bool
	TableDrop bool         // DROP TABLE
	Cascade   bool         //
	Restart   bool         // TRUNCATE .. RESTART IDENTITY
	Parent    bool         // PARTITION OF, INHERITS
	Partition bool         // PARTITION OF, without columns or constraints of its own
	Serial    bool         // CREATE TABLE with a column that draws from a sequence
	Unsafe    string       // the first command that could break placement, in SQL's words
	Frees     bool         // ALTER TABLE that drops the placement's own constraint, and does nothing else
	Columns   []string     // columns that ALTER TABLE drops or retypes
	Fills     []string     // functions, and Moment, in what fills a column of the rows that are there: ADD COLUMN .. DEFAULT, ALTER COLUMN .. USING
	Renamed   Renaming     // of RENAME and SET SCHEMA of a table or of its column
	Keys      [][]string   // the columns of each index or key that it makes
	Foreign   []ForeignKey // those that it adds
	Refresh   bool         // REFRESH MATERIALIZED VIEW
	NoData    bool         // CREATE TABLE AS .. WITH NO DATA
	View      bool         // CREATE MATERIALIZED VIEW
	Owned     bool         // DROP OWNED
	Schemas   []string     // that DROP SCHEMA drops, or ALTER SCHEMA renames
	Types     []TableRef   // that a definition of OnDatabase names
	Password  string       // that it gives to a role
	Logins    bool         // ALTER ROLE or ALTER DATABASE .. SET: sessions begin otherwise from then on
}

// Moment stands among the functions of Definition.Fills for CURRENT_TIMESTAMP, 'now' and their kin.
const Moment = "CURRENT_TIMESTAMP"

// Renaming says what a table and a column of it are called from now on; what stays as it is, is empty.
type Renaming struct{ Schema, Table, Column, NewColumn string }

// ForeignKey is what a table's columns refer to; no Refs means the primary key.
type ForeignKey struct {
	Columns []string
	Table   TableRef
	Refs    []string
}

// TableRef names a relation as the statement does: an empty Schema means the search path.
type TableRef struct{ Schema, Name string }

// SQL is the name in a statement.
func (r TableRef) SQL() string { return pgsql.Qualified(r.Schema, r.Name) }

// ValueKind is the class of a constant.
type ValueKind uint8

// The classes of constants. ValOther is an expression that is no constant.
const (
	ValOther ValueKind = iota
	ValNull
	ValInt
	ValNumber
	ValString
	ValBool
	ValParam
	ValDefault
)

// Value is a constant, a parameter or neither.
type Value struct {
	Kind  ValueKind
	Text  string // of a constant
	Param int    // 1-based, of ValParam
	Cast  string // type name of a cast around it, "?" for one that tells nothing
	Loc   int    // byte offset in the statement's text
	Array bool   // the right side of = ANY: an array of values
}

// Col is a column as the statement names it.
type Col struct {
	Qual, Name string
	In         *Sight // among what it is looked for first; nil: all of its level's FROM
}

// Sight is what names see at a place of a level where they do not see all of its FROM: in the ON of a join its two sides, in a function or a
// LATERAL subquery what stands before.
type Sight struct {
	Rels   []*Rel
	Merged map[string]string // a column that USING merged: the relation whose column it is; "" when it is neither's
}

// Operand is one side of an equality: a column or a value.
type Operand struct {
	Col   Col
	IsCol bool
	Val   Value
}

// Fact is an equality that holds for every row which a level emits, or, with Into set, only for the
// rows that are read of the relations in Into (the nullable side of an outer join).
type Fact struct {
	L    Col
	R    Operand
	In   []Value // L IN (..) or = ANY(..); R is unused
	At   int     // of L IN (..): byte offset of the word in the statement's text
	Into []*Rel  // directed: says nothing about other relations
}

// Bound is an inequality between a column and a value that holds for every row which a level emits.
type Bound struct {
	Col   Col
	Val   Value
	Upper bool // the value is not below the column's, else not above it
}

// Cond is a condition that every row which a level emits meets, or with Into set, every row of those relations
// that is joined to another.
type Cond struct {
	Into   []*Rel
	Cols   []Col // the columns that it names
	Called       // the functions that it calls, and what may be others
	Plain  bool  // it holds no subquery, clock or anything else that hangs on more than its columns

	node any
}

// RelKind is what stands in FROM.
type RelKind uint8

// The kinds of range table entries.
const (
	RelTable RelKind = iota
	RelQuery
	RelFunction
	RelValues
)

// Rel is a range table entry.
type Rel struct {
	Kind     RelKind
	Table    TableRef
	Alias    string
	Sub      *Query
	Lateral  bool
	Nullable bool     // on the nullable side of an outer join
	Kept     bool     // on the preserved side of an outer join
	CTE      bool     // the name is that of a CTE in scope
	Cols     []string // of VALUES: the names that its alias gives to the columns
	Only     bool     // ONLY: without the tables that inherit from it
	Loc      int      // byte offset of the name in the statement's text
}

// Name is what qualifies the relation's columns.
func (r *Rel) Name() string {
	if r.Alias != "" {
		return r.Alias
	}
	return r.Table.Name
}

// Query is one level: a SELECT, or a data-modifying statement with its FROM.
type Query struct {
	Cmd    Kind
	Target *Rel // of Insert, Update, Delete; also in Rels for the latter two
	Sight       // all of FROM
	Facts  []Fact
	Bounds []Bound
	Subs   []*Query // sublinks, in any clause
	CTEs   []*Query // of this level's WITH
	Leaves []*Query // of a set operation

	Columns   []string  // of Insert; nil when none were named
	Rows      [][]Value // of VALUES
	Source    *Query    // of INSERT ... SELECT
	Sets      []Assign  // of UPDATE and DO UPDATE
	Conflict  bool
	ConfCols  []string // inferred conflict target; nil with Conflict means no target or a constraint
	ConfNamed bool     // ON CONSTRAINT
	Returning bool

	Targets    []Target
	GroupBy    []Expr
	OrderBy    []Sort
	Limit      *Value
	Offset     *Value
	Distinct   bool
	DistinctOn []Expr // what DISTINCT ON names
	Having     bool
	Window     bool
	Partitions [][]Expr // what each window partitions by
	Agg        bool
	Grouping   bool // GROUPING SETS, ROLLUP, CUBE
	WithTies   bool
	Locking    bool
	Locks      []RowLock
	SetOp      bool
	Into       bool
	SRF        bool // may return sets from its target list
	FullJoin   bool
	RefCols    []Col    // every column reference of this level
	Words      []string // the last name of each, and those of USING
	Star       bool     // * stands somewhere, or NATURAL JOIN
	Stars      []string // the qualifiers of t.*
	Conds      []Cond   // the conjuncts of WHERE and of joins

	// Opaque names a construct that these facts do not describe.
	Opaque string

	Named   string        // of a CTE: its name, if it does not rename columns
	Outputs []Target      // of RETURNING
	Inserts []MergeInsert // of MERGE

	Around
	tree *pg.SelectStmt // nil for other commands
}

// Around is what a subquery has to do with the level around it.
type Around struct {
	In       *Sight // of a sublink or LATERAL subquery: what it sees of that level; nil: all of its FROM
	InTest   *Col   // the bare column that is tested by col = ANY (subquery), IN or NOT IN
	Exists   bool   // it stands in EXISTS, which asks for one row
	Array    bool   // it stands in ARRAY, which keeps the order of its rows
	Returned bool   // it stands in RETURNING
}

// MergeInsert is what MERGE inserts for a row of its source that is not matched.
type MergeInsert struct {
	Columns []string // nil when none were named
	Values  []Expr
}

// Assign is one assignment of UPDATE.
type Assign struct {
	Column string
	Value  Value
}

// RowLock is a FOR clause.
type RowLock struct {
	Strong bool     // FOR UPDATE and FOR NO KEY UPDATE
	Of     []string // the relations that OF names; nil: all
}

// Target is an output column.
type Target struct {
	Expr Expr
	Name string // AS name
}

// Expr is an expression as far as merging needs it.
type Expr struct {
	Key     string // canonical text: equal keys are equal expressions; of a query that neither groups nor sorts, none has one
	Col     *Col   // a bare column
	Star    bool   // * or t.*
	Of      string // of t.*: t
	Ordinal int    // a bare integer constant (ORDER BY 1)
	Agg     string // one of merge.Aggregates, called plainly
	AggStar bool
	HasAgg  bool   // an aggregate stands somewhere inside
	Const   bool   // no column in it
	Val     Value  // what it is, if it is a constant or parameter
	Collate string // an explicit COLLATE at the top
	Other   string // an aggregate that has no merge, by name

	node *pg.Node
}

// Sort is one ORDER BY item.
type Sort struct {
	Expr       Expr
	Desc       bool
	NullsFirst bool
	Using      bool
}
