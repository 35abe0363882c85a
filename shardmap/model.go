// Package shardmap knows where data lives.
//
// The map is one small versioned Document. A Catalog holds it as go-memdb tables, changes it in one
// transaction, validates it whole and compiles it into an immutable Snapshot, which is what routing
// reads. Every change, our own included, arrives by the Store's watch: there is one publishing path.
package shardmap

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Kind says how a table's rows are placed.
type Kind string

// The kinds of tables. A table that nobody declared is a home table.
const (
	Home      Kind = "home"
	Sharded   Kind = "sharded"
	Reference Kind = "reference"
)

// Document is the whole map: plain data, ordered, with a version that only grows. What it holds is never changed once it is in use:
// the next one shares with it what is as it was.
type Document struct {
	Version    uint64
	Install    string // uuid of this installation, part of every two-phase gid
	Secret     string // of this installation: see Snapshot.Key
	Databases  []*Database
	Shards     []*Shard
	Nodes      []*Node
	Groups     []*Group
	Placements []*Placement
	Tables     []*Table
	Tenants    []*Tenant
	Routines   []*Routine
	Attempts   []*Attempt
	Setup      *Setup
}

// Setup is there while the statements that set up a new map are under way: until all are done, the map is not to be used.
type Setup struct {
	Done   int    `json:"done"`             // of them
	Text   string `json:"text"`             // a hash of those
	Before string `json:"before,omitempty"` // what the map said when the next began: see Document.Declared
	Next   string `json:"next,omitempty"`   // what Text is when that is done, too. Older processes have not noted it
	Moves  bool   `json:"moves,omitempty"`  // that is one which dropping what the map has does not take back

	// Loose says that dropping what the map has takes back all that is done: other statements may take their place.
	Loose bool `json:"loose,omitempty"`
	Undo  bool `json:"undo,omitempty"` // that has begun, and is to be done before anything else
}

// Declared is a hash of what statements have declared, and equal for maps that say the same. What a process notes by itself, how far it
// is or what it has found out of a server, is not in it.
func (d *Document) Declared() string {
	shards, nodes := make([]Shard, len(d.Shards)), make([]Node, len(d.Nodes))
	for i, s := range d.Shards {
		shards[i] = *s
		shards[i].Marked, shards[i].System, shards[i].Adopted = false, "", 0
	}
	for i, n := range d.Nodes {
		nodes[i] = *n
		nodes[i].Barred = false
	}
	p := flatten(d.Placements)
	h := sha256.New()
	for _, list := range []any{shards, nodes, listed(d.Databases), listed(d.Groups), listed(p.Slots), listed(p.Ranges), listed(p.Lists), listed(p.Pins), listed(d.Tables), listed(d.Tenants), listed(d.Routines)} {
		_ = json.NewEncoder(h).Encode(list) // a hash takes all, and these are what is stored
	}
	return hex.EncodeToString(h.Sum(nil))
}

// listed is a list, which is not nil if it is empty.
func listed[T any](list []*T) []*T { return append([]*T{}, list...) }

// Database is a logical database: what a client names in its DSN.
type Database struct {
	Name string `json:"name"`
	Home string `json:"home,omitempty"` // name of its home shard; empty until it has a shard

	// Shards counts those that have joined others, which home does, too: what all shards have in common is not written by a map
	// that does not know them all.
	Shards int `json:"shards,omitempty"`
}

// Shard is a primary with its replicas. Which node is the primary is observed, not declared,
// unless the admin has to decide.
type Shard struct {
	Database string `json:"database"`
	Name     string `json:"name"`
	Ordinal  int    `json:"ordinal"` // order of creation within the database; never reused, but where older versions have counted no shards

	// Primary is the node that the admin named last, when more than one claimed to be the primary; Named grows with it.
	Primary string `json:"primary,omitempty"`
	Named   int    `json:"named,omitempty"`

	Marked bool   `json:"marked,omitempty"` // its database has been told its Identity: one that does not say it is another
	System string `json:"system,omitempty"` // the system identifier of its servers: one with another is none of them. Empty for a map of an older version

	Adopted int `json:"adopted,omitempty"` // how often its database has become another: what had been asked of the one before is to be asked anew
}

// Node is one PostgreSQL server of a shard.
type Node struct {
	Database string `json:"database"`
	Shard    string `json:"shard"`
	Name     string `json:"name"`
	DSN      string `json:"dsn"` // may hold a password: the map's file is readable by its owner only
	Zone     string `json:"zone,omitempty"`
	Ordinal  int    `json:"ordinal"`
	Barred   bool   `json:"barred,omitempty"` // it claimed to be the primary when the admin named another; until it is a replica
}

// Scheme is how the key of a group decides the shard.
type Scheme string

// The schemes. Tenant is that of a schema whose tables live on one shard: its group has no key, and no declaration.
const (
	ByHash   Scheme = "hash"
	ByRange  Scheme = "range"
	ByList   Scheme = "list"
	ByTenant Scheme = "tenant"
)

// Group is a set of tables whose equal keys live on one shard.
type Group struct {
	Database string   `json:"database"`
	Name     string   `json:"name"`
	Scheme   Scheme   `json:"scheme"`
	Keys     []string `json:"keys"` // PostgreSQL's names of the types of the key columns
}

// Placement says which shard has which key of a group.
type Placement struct {
	Database, Group string

	Slots  []SlotRun // of a hash group, in order
	Ranges []Range   // of a range group, in order
	Lists  []List    // of a list group
	Pins   []Pin
}

// SlotRun gives the slots From..To, both included, of a hash group to a shard.
type SlotRun struct {
	From, To int
	Shard    string
}

// Range gives the keys of a range group from From, up to where the next range begins, to a shard. That leaves no gap and
// no overlap to check.
type Range struct {
	From  []string // a value for each key column; none in the first range, which begins at MINVALUE
	Shard string
}

// List gives keys of a list group to a shard. A shard may have several.
type List struct {
	Values  []string
	Default bool // and every key that no other list names
	Shard   string
}

// Pin sends one key of a group to a shard, whatever the group's scheme says of it.
type Pin struct {
	Key   []string
	Shard string
}

// Tenant is a schema whose tables all live on one shard.
type Tenant struct {
	Database string `json:"database"`
	Schema   string `json:"schema"`
	Shard    string `json:"shard"`
	Moving   bool   `json:"moving,omitempty"` // its tables travel to the shard from home; see Table
	Made     string `json:"made,omitempty"`   // as of a Table
}

// Table is a declared table.
type Table struct {
	Database string `json:"database"`
	Schema   string `json:"schema"`
	Name     string `json:"name"`
	Kind     Kind   `json:"kind"`
	Group    string `json:"group,omitempty"`

	Key []string `json:"key,omitempty"` // the key columns of a sharded table

	// LocalUnique is set where unique indexes without the key were allowed. Older processes have not noted it.
	LocalUnique bool `json:"local_unique,omitempty"`

	// Moving is set while the table's rows travel to the placement above. Until it is cleared the
	// rows are where From says, and statements that name the table are refused.
	Moving bool `json:"moving,omitempty"`
	From   Kind `json:"from,omitempty"`

	// Made is the id of the attempt that distributed the table: its copies are noted under it on their shards. Empty: an older
	// process distributed it.
	Made string `json:"made,omitempty"`

	Renaming *Renaming `json:"renaming,omitempty"`

	// Lost is set when a shard has been dropped of which is not known how far its sequences had come: home's stay in home's place.
	Lost bool `json:"lost,omitempty"`
}

// TableName is what the table is called within its database.
func (t *Table) TableName() TableName { return TableName{t.Schema, t.Name} }

// Renaming is set while a transaction that renames a table or a key column of it, or drops the table, may still commit. Both
// names are the table's meanwhile: its shards know which of them there is.
type Renaming struct {
	OID     uint32   `json:"oid"` // of home's table, which tells what became of it
	Schema  string   `json:"schema"`
	Name    string   `json:"name"`
	Key     []string `json:"key,omitempty"`
	Columns []int16  `json:"columns,omitempty"` // of the key, by number
}

// Routine is a function, trigger function or procedure, with all its overloads, of which the admin says that it is shard
// safe: run for a row of a sharded table, it touches rows of that row's shard only.
type Routine struct {
	Database string `json:"database"`
	Schema   string `json:"schema"`
	Name     string `json:"name"`
}

// Attempt is a statement that makes copies of tables on shards, or takes them away, from before it touches any of them until it
// is done or undone. Nobody can guess its id. What it makes is noted on its shard under the id, and nothing that is not may be
// undone in its name.
type Attempt struct {
	ID        string `json:"id"`
	Database  string `json:"database"`
	Statement string `json:"statement"` // for people

	Schema string `json:"schema,omitempty"` // of the table or schema that it distributes or brings home
	Name   string `json:"name,omitempty"`   // of the table
	Takes  string `json:"takes,omitempty"`  // the attempt whose copies it brings home; empty if it distributes

	Shard *Shard  `json:"shard,omitempty"` // that it creates
	Nodes []*Node `json:"nodes,omitempty"` // of the shard
	Count int     `json:"count,omitempty"` // what Database.Shards is then

	Group string `json:"group,omitempty"` // the keys of which it places anew

	// Step is how far it is, if it creates a shard or places keys.
	Step Step `json:"step,omitempty"`
}

// Step is how far an attempt is that creates a shard or places keys.
type Step string

// Steps that others must know of. While keys are placed, nobody uses the tables of their group. While a shard joins, nobody changes what all shards have in common: it gets the last of that. One
// that has joined is in the map, and no longer the attempt's; notes of the attempt are left to be cleared away.
const (
	Joining Step = "joining"
	Joined  Step = "joined"
	Placing Step = "placing"
)

// Steps lists the steps that may follow each; any may stay: docs/states.md is printed from it. A shard that has joined serves clients, so nobody who
// has been away takes that back.
var Steps = map[Step][]Step{
	"":      {Joining, Joined, Placing},
	Joining: {"", Joined},
	Joined:  {},
	Placing: {""},
}
