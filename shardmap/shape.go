package shardmap

import "reflect"

// shape is what the map says of a database, but for its nodes, and which of them is a shard's primary: all that statements are planned by.
// DB.Shape is the version of the map since which it has been the same, as far as this process has seen. Databases of one name and Shape
// differ in nothing that a plan is made of, so what was planned by the one is as good for the other.
type shape struct {
	database Database
	shards   []Shard
	groups   []*Group
	slots    []*SlotRun
	ranges   []*Range
	lists    []*List
	pins     []*Pin
	tables   []*Table
	tenants  []*Tenant
	routines []*Routine
	attempts []*Attempt
}

// shapes are those of all databases, by name.
func (d *Document) shapes() map[string]*shape {
	out := map[string]*shape{}
	for _, x := range d.Databases {
		out[x.Name] = &shape{database: *x}
	}
	for _, x := range d.Shards {
		if s := out[x.Database]; s != nil {
			sh := *x
			sh.Primary, sh.Named = "", 0
			s.shards = append(s.shards, sh)
		}
	}
	spread(out, d.Groups, func(x *Group) string { return x.Database }, func(s *shape) *[]*Group { return &s.groups })
	spread(out, d.Slots, func(x *SlotRun) string { return x.Database }, func(s *shape) *[]*SlotRun { return &s.slots })
	spread(out, d.Ranges, func(x *Range) string { return x.Database }, func(s *shape) *[]*Range { return &s.ranges })
	spread(out, d.Lists, func(x *List) string { return x.Database }, func(s *shape) *[]*List { return &s.lists })
	spread(out, d.Pins, func(x *Pin) string { return x.Database }, func(s *shape) *[]*Pin { return &s.pins })
	spread(out, d.Tables, func(x *Table) string { return x.Database }, func(s *shape) *[]*Table { return &s.tables })
	spread(out, d.Tenants, func(x *Tenant) string { return x.Database }, func(s *shape) *[]*Tenant { return &s.tenants })
	spread(out, d.Routines, func(x *Routine) string { return x.Database }, func(s *shape) *[]*Routine { return &s.routines })
	spread(out, d.Attempts, func(x *Attempt) string { return x.Database }, func(s *shape) *[]*Attempt { return &s.attempts })
	return out
}

// spread gives the parts of a kind to their databases.
func spread[T any](to map[string]*shape, parts []*T, of func(*T) string, list func(*shape) *[]*T) {
	for _, x := range parts {
		if s := to[of(x)]; s != nil {
			l := list(s)
			*l = append(*l, x)
		}
	}
}

// keepShapes gives the databases that are what they were in the snapshot before the Shape that they had there.
func (s *Snapshot) keepShapes(before *Snapshot) {
	was, is := before.Document.shapes(), s.Document.shapes()
	for name, db := range s.Databases {
		if old := before.Databases[name]; old != nil && reflect.DeepEqual(was[name], is[name]) {
			db.Shape = old.Shape
		}
	}
}
