package shardmap

import (
	"fmt"
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

	// Fingerprint is a number below 1<<48, and equal for maps of one installation that declare the same; others are most unlikely to have it.
	// Versions are equal, too, where two copies of a map have been changed apart. Nothing can be found out from it.
	Fingerprint uint64

	superseded chan struct{}
}

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

	tenants map[string]*GroupInfo // by schema
	safe    map[TableName]bool    // routines that are shard safe

	Version uint64 // the map's
	Shape   uint64 // see shape

	document *Document // the map's
}

// TableName names a table within a database.
type TableName struct{ Schema, Name string }

// String is the name for people: in messages, views and logs.
func (n TableName) String() string { return pgsql.PlainQualified(n.Schema, n.Name) }

// SQL is the name in a statement.
func (n TableName) SQL() string { return pgsql.Qualified(n.Schema, n.Name) }

// ShardInfo is a compiled shard. Index is its place in DB.Shards and in a group's Owner.
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
	return &TableInfo{TableName: n, Kind: Home, Group: &GroupInfo{Name: d.Home.Name, Scheme: ByTenant, fallback: d.Home.Index, all: []int{d.Home.Index}}}
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
	for _, s := range d.Shards {
		if s.Name == name {
			return s, true
		}
	}
	return nil, false
}

func invalid(code, hint, format string, args ...any) error {
	return &pgsql.Error{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Compile validates a document as a whole and builds its snapshot. Errors are *pgsql.Error.
func Compile(doc *Document) (*Snapshot, error) {
	s := &Snapshot{Version: doc.Version, Install: doc.Install, Document: doc, Databases: map[string]*DB{}}
	s.Fingerprint = s.fingerprint()
	for _, d := range doc.Databases {
		if _, dup := s.Databases[d.Name]; dup {
			return nil, invalid(pgsql.DuplicateDatabase, "", "database %q already exists", d.Name)
		}
		s.Databases[d.Name] = &DB{Name: d.Name, Joined: d.Shards, Groups: map[string]*GroupInfo{}, Tables: map[TableName]*TableInfo{}, Version: doc.Version, Shape: doc.Version, tenants: map[string]*GroupInfo{}, safe: map[TableName]bool{}, document: doc}
	}
	if err := compileShards(s, doc); err != nil {
		return nil, err
	}
	if err := compileGroups(s, doc); err != nil {
		return nil, err
	}
	if err := compileTenants(s, doc); err != nil {
		return nil, err
	}
	for _, r := range doc.Routines {
		db := s.Databases[r.Database]
		if db == nil {
			return nil, noDatabase(r.Database)
		}
		db.safe[TableName{r.Schema, r.Name}] = true
	}
	for _, x := range doc.Attempts {
		db := s.Databases[x.Database]
		switch {
		case db == nil:
		case x.Step == Joining:
			db.Joining = true
		case x.Step == Placing && db.Groups[x.Group] != nil:
			db.Groups[x.Group].Moving = true
		}
	}
	return s, compileTables(s, doc)
}

func compileShards(s *Snapshot, doc *Document) error {
	for _, sh := range doc.Shards {
		db := s.Databases[sh.Database]
		if db == nil {
			return noDatabase(sh.Database)
		}
		if _, dup := db.Shard(sh.Name); dup {
			return invalid(pgsql.DuplicateObject, "", "shard %q of database %q already exists", sh.Name, sh.Database)
		}
		db.Shards = append(db.Shards, &ShardInfo{Name: sh.Name, Index: len(db.Shards), Ordinal: sh.Ordinal, Primary: sh.Primary, Named: sh.Named, Marked: sh.Marked, System: sh.System, Adopted: sh.Adopted})
	}
	for _, n := range doc.Nodes {
		db := s.Databases[n.Database]
		if db == nil {
			return noDatabase(n.Database)
		}
		sh, ok := db.Shard(n.Shard)
		if !ok {
			return noShard(n.Shard, n.Database)
		}
		sh.Nodes = append(sh.Nodes, n)
	}
	for _, d := range doc.Databases {
		db := s.Databases[d.Name]
		for _, sh := range db.Shards {
			if len(sh.Nodes) == 0 {
				return invalid(pgsql.InvalidParameterValue, "Add NODE '<dsn>'.", "shard %q of database %q has no node", sh.Name, d.Name)
			}
		}
		if d.Home == "" {
			if len(db.Shards) > 0 {
				return invalid(pgsql.InvalidParameterValue, "", "database %q has shards and no home shard", d.Name)
			}
			continue
		}
		home, ok := db.Shard(d.Home)
		if !ok {
			return noShard(d.Home, d.Name)
		}
		db.Home = home
	}
	return nil
}

func compileTables(s *Snapshot, doc *Document) error {
	for _, t := range doc.Tables {
		db := s.Databases[t.Database]
		if db == nil {
			return noDatabase(t.Database)
		}
		info := &TableInfo{TableName: t.TableName(), Kind: t.Kind, Keys: t.Key, Moving: t.Moving, Made: t.Made, Lost: t.Lost}
		switch t.Kind {
		case Sharded:
			if info.Group = db.Groups[t.Group]; info.Group == nil {
				return noGroup(t.Group, t.Database)
			}
			info.Moving = info.Moving || info.Group.Moving
			if want := len(info.Group.Keys); len(t.Key) != want {
				return invalid(pgsql.InvalidParameterValue, fmt.Sprintf("Name %d key columns, in the group's order.", want), "table %s has %d key columns, group %q has %d", info.TableName, len(t.Key), t.Group, want)
			}
			if db.tenants[t.Schema] != nil {
				return invalid(pgsql.DuplicateObject, "UNDISTRIBUTE SCHEMA it first.", "schema %q of table %s lives on one shard", t.Schema, info.TableName)
			}
		case Reference:
		default:
			return invalid(pgsql.InvalidParameterValue, "", "table %s has the unknown kind %q", info.TableName, t.Kind)
		}
		db.Tables[info.TableName] = info
	}
	for _, t := range doc.Tables {
		if t.Renaming != nil {
			db := s.Databases[t.Database]
			db.rename(db.Tables[t.TableName()], t.Renaming)
		}
	}
	return nil
}

// rename declares a table under the name that it will have, too. Where that is the name of another table now, or the key has
// another, statements wait until it is settled.
func (d *DB) rename(t *TableInfo, r *Renaming) {
	if !slices.Equal(t.Keys, r.Key) {
		t.Moving = true
	}
	next := *t
	next.TableName, next.Keys = TableName{r.Schema, r.Name}, r.Key
	if next.TableName == t.TableName {
		return
	}
	if other := d.Tables[next.TableName]; other != nil {
		both := *other
		both.Moving = both.Moving || other.Kind != t.Kind || other.Group != t.Group || !slices.Equal(other.Keys, r.Key)
		next = both
	}
	d.Tables[next.TableName] = &next
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

func noDatabase(name string) error {
	return invalid(pgsql.InvalidCatalogName, "SHOW DATABASES lists them; CREATE DATABASE makes one.", "database %q does not exist", name)
}

func noShard(name, db string) error {
	return invalid(pgsql.UndefinedObject, "SHOW SHARDS lists them.", "shard %q does not exist in database %q", name, db)
}

func noGroup(name, db string) error {
	return invalid(pgsql.UndefinedObject, "SHOW GROUPS lists them; CREATE GROUP makes one.", "group %q does not exist in database %q", name, db)
}
