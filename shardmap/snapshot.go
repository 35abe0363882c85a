package shardmap

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Snapshot is the compiled map. It is immutable; the cost of a look-up does not grow with its size.
type Snapshot struct {
	Version   uint64
	Install   string
	Document  *Document // what it was compiled from; read only
	At        time.Time // when this process took it into use: what it says was so on every primary by then
	Databases map[string]*DB

	parts       map[string]*part // of the document
	fingerprint func() uint64
	superseded  chan struct{}
}

// Fingerprint is a number below 1<<48, and equal for maps of one installation that declare the same; others are most unlikely to have it.
// Versions are equal, too, where two copies of a map have been changed apart. Nothing can be found out from it. Its first call reads
// the whole map.
func (s *Snapshot) Fingerprint() uint64 { return s.fingerprint() }

// Superseded is closed when a newer map is in use. Of a snapshot that was never in use it is nil.
func (s *Snapshot) Superseded() <-chan struct{} { return s.superseded }

// DB is a compiled logical database.
type DB struct {
	Name   string
	Home   *ShardInfo // nil until the first shard
	Shards []*ShardInfo
	Groups map[string]*GroupInfo
	Tables map[TableName]*TableInfo // those that are declared one by one: ask Table

	Joined  int  // how many shards have joined others: see Database.Shards
	Joining bool // a shard gets the last of what all shards have in common, which nobody changes meanwhile

	placements []*PlacementInfo      // by GroupInfo.index
	tenants    map[string]*GroupInfo // by schema
	safe       map[TableName]bool    // routines that are shard safe
	byName     map[string]*ShardInfo

	Version uint64 // the map's
	Shape   uint64 // see shape

	part   *part   // of the map's document
	shapes []shape // that it had lately: first comes Shape
}

// TableName names a table within a database.
type TableName struct{ Schema, Name string }

// String is the name for people: in messages, views and logs.
func (n TableName) String() string { return pgsql.PlainQualified(n.Schema, n.Name) }

// SQL is the name in a statement.
func (n TableName) SQL() string { return pgsql.Qualified(n.Schema, n.Name) }

// ShardInfo is a compiled shard. Index is its place in DB.Shards, by which placements name it.
type ShardInfo struct {
	Name    string
	Index   int
	Ordinal int    // as declared: it stays while others come and go
	Primary string // the node that the admin named last
	Named   int    // how often that was
	Marked  bool   // its database has been told its Identity
	System  string // the system identifier of its servers; empty if not known
	Adopted int    // how often its database has become another
	Nodes   []*Node
}

// TableInfo is a compiled declared table, or one of a schema that lives on one shard.
type TableInfo struct {
	TableName
	Kind   Kind
	Keys   []string // the key columns, as many as Group.Keys: none in a schema that lives on one shard
	Group  *GroupInfo
	Moving bool
	Made   string // the attempt that distributed it
	Part   bool   // a partition of a declared table: the map does not name it
	Lost   bool   // see Table

	LocalUnique bool // likewise
}

// IsKey says whether a column is one of the table's key columns.
func (t *TableInfo) IsKey(column string) bool { return slices.Contains(t.Keys, column) }

// KeyList is the key columns as they are written in admin SQL and in messages.
func (t *TableInfo) KeyList() string {
	out := make([]string, len(t.Keys))
	for i, k := range t.Keys {
		out[i] = pgsql.Plain(k)
	}
	return strings.Join(out, ", ")
}

// Table is what the map says of a table: nil for a home table.
func (d *DB) Table(n TableName) *TableInfo {
	if t := d.Tables[n]; t != nil {
		return t
	}
	if g := d.tenants[n.Schema]; g != nil {
		return &TableInfo{TableName: n, Kind: Sharded, Group: g, Moving: g.Moving}
	}
	return nil
}

// Tenant is the group of a schema that lives on one shard; nil for another.
func (d *DB) Tenant(schema string) *GroupInfo { return d.tenants[schema] }

// HomeTable describes a table that is home's alone as one whose rows all go there.
func (d *DB) HomeTable(n TableName) *TableInfo {
	return &TableInfo{TableName: n, Kind: Home, Group: onOne(d.Home.Name, d.Home.Index)}
}

// Tenants are the groups of all schemas that live on one shard, by name.
func (d *DB) Tenants() []*GroupInfo {
	return slices.SortedFunc(maps.Values(d.tenants), func(a, b *GroupInfo) int { return strings.Compare(a.Name, b.Name) })
}

// SortedTables are the distributed tables by name.
func (d *DB) SortedTables() []*TableInfo {
	return slices.SortedFunc(maps.Values(d.Tables), func(a, b *TableInfo) int { return strings.Compare(a.String(), b.String()) })
}

// SortedDatabases are the databases by name.
func (s *Snapshot) SortedDatabases() []*DB {
	return slices.SortedFunc(maps.Values(s.Databases), func(a, b *DB) int { return strings.Compare(a.Name, b.Name) })
}

// ShardSafe says whether the admin has declared a routine to touch only the shard of the row that it runs for.
func (d *DB) ShardSafe(schema, name string) bool { return d.safe[TableName{schema, name}] }

// ShardSafes are the routines that are declared so, in order.
func (d *DB) ShardSafes() []TableName {
	return slices.SortedFunc(maps.Keys(d.safe), func(a, b TableName) int { return strings.Compare(a.String(), b.String()) })
}

// Plain says whether all rows are on home: nothing is declared.
func (d *DB) Plain() bool { return len(d.Tables) == 0 && len(d.tenants) == 0 }

// Shard finds a shard by name.
func (d *DB) Shard(name string) (*ShardInfo, bool) {
	s := d.byName[name]
	return s, s != nil
}

// WithPartitions is the database with the partitions of declared tables, which are what the tables at their tops are.
func (d *DB) WithPartitions(roots map[TableName]TableName) *DB {
	parts := map[TableName]*TableInfo{}
	for n, root := range roots {
		if t, own := d.Tables[root], d.Tables[n]; t != nil && (own == nil || own.Part) {
			part := *t
			part.TableName, part.Part = n, true
			parts[n] = &part
		}
	}
	if len(parts) == 0 {
		return d
	}
	out := *d
	out.Tables = maps.Clone(d.Tables)
	maps.Copy(out.Tables, parts)
	return &out
}

// Without is the database as the transaction sees it that has dropped tables.
func (d *DB) Without(tables []TableName) *DB {
	out := *d
	out.Tables = maps.Clone(d.Tables)
	for _, n := range tables {
		delete(out.Tables, n)
	}
	return &out
}

// Renamed is the database as the transaction sees it that has given a table another name, or other names to its key columns.
func (d *DB) Renamed(from, to TableName, keys []string) *DB {
	out := *d
	out.Tables = maps.Clone(d.Tables)
	next := *d.Tables[from]
	next.TableName, next.Keys = to, keys
	delete(out.Tables, from)
	out.Tables[to] = &next
	return &out
}
