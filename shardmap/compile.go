package shardmap

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Compile validates a document as a whole and builds its snapshot. Errors are *pgsql.Error.
func Compile(doc *Document) (*Snapshot, error) { return compile(doc, nil) }

// compile is Compile behind another snapshot, whose document is of the same installation: what is made of objects that both documents
// share is shared, too, so that the cost is that of what has changed.
func compile(doc *Document, before *Snapshot) (*Snapshot, error) {
	s := &Snapshot{Version: doc.Version, Install: doc.Install, Document: doc, Databases: make(map[string]*DB, len(doc.Databases))}
	s.fingerprint = sync.OnceValue(s.fingerprinted)
	if before == nil {
		before = &Snapshot{Document: &Document{}}
	}
	s.parts = doc.parts(before.Document, before.parts)
	for _, name := range slices.Sorted(maps.Keys(s.parts)) { // of several errors it is always the same
		p := s.parts[name]
		switch {
		case len(p.databases) > 1:
			return nil, invalid(pgsql.DuplicateDatabase, "", "database %q already exists", name)
		case len(p.databases) == 0 && p.equals(&part{attempts: p.attempts}): // what was begun on one that is dropped
			continue
		case len(p.databases) == 0:
			return nil, noDatabase(name)
		}
		var err error
		if s.Databases[name], err = compileDatabase(p, before.Databases[name], doc.Version); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// compileDatabase builds a database. was is what it was before; nil for nothing.
func compileDatabase(p *part, was *DB, version uint64) (*DB, error) {
	declared := p.databases[0]
	d := &DB{Name: declared.Name, Joined: declared.Shards, Version: version, part: p}
	if was == nil {
		was = &DB{part: &part{}}
	}
	if err := d.compileShards(was); err != nil {
		return nil, err
	}
	if err := d.compileHome(declared.Home); err != nil {
		return nil, err
	}
	for _, x := range p.attempts {
		d.Joining = d.Joining || x.Step == Joining
	}
	if err := d.compileGroups(was); err != nil {
		return nil, err
	}
	if err := d.compileTenants(was); err != nil {
		return nil, err
	}
	if d.safe = was.safe; d.safe == nil || !same(p.routines, was.part.routines) {
		d.safe = make(map[TableName]bool, len(p.routines))
		for _, r := range p.routines {
			d.safe[TableName{r.Schema, r.Name}] = true
		}
	}
	if err := d.compileTables(was); err != nil {
		return nil, err
	}
	d.shapes = shapesOf(d, was)
	d.Shape = d.shapes[0].number
	return d, nil
}

func (d *DB) compileShards(was *DB) error {
	p := d.part
	if was.byName != nil && same(p.shards, was.part.shards) && same(p.nodes, was.part.nodes) {
		d.Shards, d.byName = was.Shards, was.byName
		return nil
	}
	d.byName = make(map[string]*ShardInfo, len(p.shards))
	for _, x := range p.shards {
		if d.byName[x.Name] != nil {
			return invalid(pgsql.DuplicateObject, "", "shard %q of database %q already exists", x.Name, d.Name)
		}
		s := &ShardInfo{Name: x.Name, Index: len(d.Shards), Ordinal: x.Ordinal, Primary: x.Primary, Named: x.Named, Marked: x.Marked, System: x.System, Adopted: x.Adopted}
		d.Shards, d.byName[x.Name] = append(d.Shards, s), s
	}
	for _, n := range p.nodes {
		s := d.byName[n.Shard]
		if s == nil {
			return noShard(n.Shard, d.Name)
		}
		s.Nodes = append(s.Nodes, n)
	}
	for _, s := range d.Shards {
		if len(s.Nodes) == 0 {
			return invalid(pgsql.InvalidParameterValue, "Add NODE '<dsn>'.", "shard %q of database %q has no node", s.Name, d.Name)
		}
	}
	return nil
}

func (d *DB) compileHome(name string) error {
	switch home := d.byName[name]; {
	case home != nil:
		d.Home = home
	case name != "":
		return noShard(name, d.Name)
	case len(d.Shards) > 0:
		return invalid(pgsql.InvalidParameterValue, "", "database %q has shards and no home shard", d.Name)
	}
	return nil
}

// samePlaces says whether the shards of two databases are the same by name and place.
func (d *DB) samePlaces(was *DB) bool {
	return slices.EqualFunc(d.Shards, was.Shards, func(a, b *ShardInfo) bool { return a == b || a.Name == b.Name })
}

func (d *DB) compileGroups(was *DB) error {
	p, places := d.part, d.samePlaces(was)
	moving := map[string]bool{}
	for _, x := range p.attempts {
		moving[x.Group] = moving[x.Group] || x.Step == Placing
	}
	placed := make(map[string]*Placement, len(p.placements))
	for _, x := range p.placements {
		placed[x.Group] = x
	}
	d.Groups, d.placements = make(map[string]*GroupInfo, len(p.groups)), make([]*PlacementInfo, 0, len(p.groups))
	for _, x := range p.groups {
		g, old := was.Groups[x.Name], (*PlacementInfo)(nil)
		if g != nil {
			old = was.placements[g.index]
		}
		if g == nil || g.declared != x || g.index != len(d.placements) || g.Moving != moving[x.Name] {
			var err error
			if g, err = newGroup(x); err != nil {
				return err
			}
			g.index, g.Moving = len(d.placements), moving[x.Name]
		}
		pl := placed[x.Name]
		if pl == nil {
			pl = &Placement{}
		}
		if old == nil || old.Group != g || old.declared != pl || !places {
			var err error
			if old, err = d.compilePlacement(g, pl); err != nil {
				return err
			}
		}
		d.Groups[x.Name], d.placements = g, append(d.placements, old)
	}
	for _, x := range p.placements {
		if d.Groups[x.Group] == nil {
			return noGroup(x.Group, d.Name)
		}
	}
	return nil
}

func (d *DB) compileTenants(was *DB) error {
	p := d.part
	if was.tenants != nil && same(p.tenants, was.part.tenants) && d.samePlaces(was) {
		d.tenants = was.tenants
		return nil
	}
	d.tenants = make(map[string]*GroupInfo, len(p.tenants))
	for _, t := range p.tenants {
		s := d.byName[t.Shard]
		if s == nil {
			return noShard(t.Shard, d.Name)
		}
		d.tenants[t.Schema] = onOne(t.Schema, s.Index)
		d.tenants[t.Schema].Moving = t.Moving
	}
	return nil
}

func (d *DB) compileTables(was *DB) error {
	p := d.part
	if was.Tables != nil && same(p.tables, was.part.tables) && maps.Equal(d.Groups, was.Groups) && maps.Equal(d.tenants, was.tenants) {
		d.Tables = was.Tables
		return nil
	}
	d.Tables = make(map[TableName]*TableInfo, len(p.tables))
	for _, t := range p.tables {
		info := &TableInfo{TableName: t.TableName(), Kind: t.Kind, Keys: t.Key, Moving: t.Moving, Made: t.Made, Lost: t.Lost, LocalUnique: t.LocalUnique}
		switch t.Kind {
		case Sharded:
			if info.Group = d.Groups[t.Group]; info.Group == nil {
				return noGroup(t.Group, d.Name)
			}
			info.Moving = info.Moving || info.Group.Moving
			if want := len(info.Group.Keys); len(t.Key) != want {
				return invalid(pgsql.InvalidParameterValue, fmt.Sprintf("Name %d key columns, in the group's order.", want), "table %s has %d key columns, group %q has %d", info.TableName, len(t.Key), t.Group, want)
			}
			if d.tenants[t.Schema] != nil {
				return invalid(pgsql.DuplicateObject, "UNDISTRIBUTE SCHEMA it first.", "schema %q of table %s lives on one shard", t.Schema, info.TableName)
			}
		case Reference:
		default:
			return invalid(pgsql.InvalidParameterValue, "", "table %s has the unknown kind %q", info.TableName, t.Kind)
		}
		d.Tables[info.TableName] = info
	}
	for _, t := range p.tables {
		if t.Renaming != nil {
			d.rename(d.Tables[t.TableName()], t.Renaming)
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

func invalid(code, hint, format string, args ...any) error {
	return &pgsql.Error{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint}
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
