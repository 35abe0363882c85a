package shardmap

import (
	"fmt"
	"sort"

	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// Snapshot is the compiled map. It is immutable; the cost of a look-up does not grow with its size.
type Snapshot struct {
	Version   uint64
	Install   string
	Document  *Document // what it was compiled from; read only
	Databases map[string]*DB
}

// DB is a compiled logical database.
type DB struct {
	Name   string
	Home   *ShardInfo // nil until the first shard
	Shards []*ShardInfo
	Groups map[string]*GroupInfo
	Tables map[TableName]*TableInfo

	Version uint64 // the map's version: part of every plan's key
}

// TableName names a table within a database.
type TableName struct{ Schema, Name string }

func (n TableName) String() string { return n.Schema + "." + n.Name }

// ShardInfo is a compiled shard. Index is its place in DB.Shards and in a group's Owner.
type ShardInfo struct {
	Name  string
	Index int
	Nodes []*Node
}

// GroupInfo is a compiled hash group.
type GroupInfo struct {
	Name    string
	KeyType pghash.Type
	Owner   [pghash.Slots]uint16 // index of the shard that owns each slot
	Runs    []SlotRun            // the same, as ordered runs
}

// TableInfo is a compiled declared table.
type TableInfo struct {
	TableName
	Kind   Kind
	Key    string
	Group  *GroupInfo
	Moving bool
}

// ShardOfHash is the index of the shard that owns a key with this extended hash.
func (g *GroupInfo) ShardOfHash(h uint64) int { return int(g.Owner[pghash.SlotOf(h)]) }

// Shard finds a shard by name.
func (d *DB) Shard(name string) (*ShardInfo, bool) {
	for _, s := range d.Shards {
		if s.Name == name {
			return s, true
		}
	}
	return nil, false
}

// InvalidError says what is wrong with a map, in the words of SQL.
type InvalidError struct{ Code, Message, Hint string }

func (e *InvalidError) Error() string { return e.Message }

func invalid(code, hint, format string, args ...any) error {
	return &InvalidError{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Compile validates a document as a whole and builds its snapshot. Errors are *InvalidError.
func Compile(doc *Document) (*Snapshot, error) {
	s := &Snapshot{Version: doc.Version, Install: doc.Install, Document: doc, Databases: map[string]*DB{}}
	for _, d := range doc.Databases {
		if _, dup := s.Databases[d.Name]; dup {
			return nil, invalid("42P04", "", "database %q already exists", d.Name)
		}
		s.Databases[d.Name] = &DB{Name: d.Name, Groups: map[string]*GroupInfo{}, Tables: map[TableName]*TableInfo{}, Version: doc.Version}
	}
	if err := compileShards(s, doc); err != nil {
		return nil, err
	}
	if err := compileGroups(s, doc); err != nil {
		return nil, err
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
			return invalid("42710", "", "shard %q of database %q already exists", sh.Name, sh.Database)
		}
		db.Shards = append(db.Shards, &ShardInfo{Name: sh.Name, Index: len(db.Shards)})
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
				return invalid("22023", "Add NODE '<dsn>'.", "shard %q of database %q has no node", sh.Name, d.Name)
			}
		}
		if d.Home == "" {
			if len(db.Shards) > 0 {
				return invalid("22023", "", "database %q has shards and no home shard", d.Name)
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

func compileGroups(s *Snapshot, doc *Document) error {
	covered := map[*GroupInfo]int{}
	for _, g := range doc.Groups {
		db := s.Databases[g.Database]
		if db == nil {
			return noDatabase(g.Database)
		}
		kt, ok := pghash.TypeByName(g.KeyType)
		if !ok {
			return invalid("0A000", "Use one of: integer, bigint, smallint, text, varchar, char(n), uuid, date, timestamp, timestamptz, numeric, boolean.",
				"type %q cannot be the key of a hash group", g.KeyType)
		}
		if _, ok := kt.SlotSQL("k"); !ok {
			return invalid("0A000", "Use a uuid, a text or an integer key.",
				"type %s cannot be the key of a hash group: SQL cannot check the place of its rows", kt)
		}
		db.Groups[g.Name] = &GroupInfo{Name: g.Name, KeyType: kt}
	}
	runs := append([]*SlotRun(nil), doc.Slots...)
	sort.SliceStable(runs, func(i, j int) bool { return runs[i].From < runs[j].From })
	for _, r := range runs {
		db := s.Databases[r.Database]
		if db == nil {
			return noDatabase(r.Database)
		}
		g := db.Groups[r.Group]
		if g == nil {
			return noGroup(r.Group, r.Database)
		}
		sh, ok := db.Shard(r.Shard)
		if !ok {
			return noShard(r.Shard, r.Database)
		}
		if r.From != covered[g] || r.To < r.From || r.To >= pghash.Slots {
			return invalid("22023", "", "slots %d-%d of group %q overlap others, leave a gap or are out of range", r.From, r.To, r.Group)
		}
		covered[g] = r.To + 1
		for i := r.From; i <= r.To; i++ {
			g.Owner[i] = uint16(sh.Index)
		}
		g.Runs = append(g.Runs, *r)
	}
	for _, db := range s.Databases {
		for _, g := range db.Groups {
			if covered[g] != pghash.Slots {
				return invalid("22023", "", "group %q gives an owner to %d of %d slots", g.Name, covered[g], pghash.Slots)
			}
		}
	}
	return nil
}

func compileTables(s *Snapshot, doc *Document) error {
	for _, t := range doc.Tables {
		db := s.Databases[t.Database]
		if db == nil {
			return noDatabase(t.Database)
		}
		info := &TableInfo{TableName: TableName{t.Schema, t.Name}, Kind: t.Kind, Key: t.Key, Moving: t.Moving}
		switch t.Kind {
		case Sharded:
			if info.Group = db.Groups[t.Group]; info.Group == nil {
				return noGroup(t.Group, t.Database)
			}
			if t.Key == "" {
				return invalid("22023", "", "sharded table %s has no key column", info.TableName)
			}
		case Reference:
		default:
			return invalid("22023", "", "table %s has the unknown kind %q", info.TableName, t.Kind)
		}
		db.Tables[info.TableName] = info
	}
	return nil
}

func noDatabase(name string) error {
	return invalid("3D000", "SHOW DATABASES lists them; CREATE DATABASE makes one.", "database %q does not exist", name)
}

func noShard(name, db string) error {
	return invalid("42704", "SHOW SHARDS lists them.", "shard %q does not exist in database %q", name, db)
}

func noGroup(name, db string) error {
	return invalid("42704", "SHOW GROUPS lists them; CREATE GROUP makes one.", "group %q does not exist in database %q", name, db)
}

// SpreadSlots divides all slots evenly over the named shards, in order, as contiguous runs.
func SpreadSlots(shards []string) []SlotRun {
	var runs []SlotRun
	from := 0
	for i, name := range shards {
		to := pghash.Slots*(i+1)/len(shards) - 1
		runs = append(runs, SlotRun{From: from, To: to, Shard: name})
		from = to + 1
	}
	return runs
}
