package shardmap

import (
	"reflect"
	"slices"
)

// part is what the map says of one database.
type part struct {
	databases  []*Database // itself
	shards     []*Shard
	nodes      []*Node
	groups     []*Group
	placements []*Placement
	tables     []*Table
	tenants    []*Tenant
	routines   []*Routine
	attempts   []*Attempt
}

// parts are those of all databases, by name; that of an undeclared one is under its name, too. Lists that the document shares with
// another one need not be read again: was are that one's parts.
func (d *Document) parts(before *Document, was map[string]*part) map[string]*part {
	to := parting{make(map[string]*part, len(d.Databases)), was}
	for _, k := range kinds {
		k.divide(to, d, before)
	}
	return to.parts
}

// parting is a document on its way into parts, and the parts of the one before it.
type parting struct{ parts, was map[string]*part }

func (to parting) of(database string) *part {
	if to.parts[database] == nil {
		to.parts[database] = &part{}
	}
	return to.parts[database]
}

// divide gives the objects of a kind to their databases. Those of one database mostly stand together: then its list is a piece of the whole.
func divide[T any, P object[T]](to parting, all, before []P, list func(*part) *[]P) {
	if len(all) > 0 && len(all) == len(before) && &all[0] == &before[0] {
		for name, p := range to.was {
			if l := *list(p); len(l) > 0 {
				*list(to.of(name)) = l
			}
		}
		return
	}
	for from := 0; from < len(all); {
		name, end := all[from].id()[0], from+1
		for end < len(all) && all[end].id()[0] == name {
			end++
		}
		if l := list(to.of(name)); *l == nil {
			*l = all[from:end:end]
		} else {
			*l = append(*l, all[from:end]...)
		}
		from = end
	}
}

// same says whether two lists have the same objects. Objects are never changed: then they say the same.
func same[P comparable](a, b []P) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// alike says whether two lists say the same.
func alike[T any, P object[T]](a, b []P) bool {
	return same(a, b) || slices.EqualFunc(a, b, equal[T, P])
}

// equal says whether two objects say the same.
func equal[T any, P object[T]](a, b P) bool {
	if a == b {
		return true
	}
	p, ok := any(a).(*Placement)
	if !ok {
		return reflect.DeepEqual(a, b)
	}
	q := any(b).(*Placement) // may have thousands of runs
	return p.id() == q.id() && slices.Equal(p.Slots, q.Slots) && reflect.DeepEqual([]any{p.Ranges, p.Lists, p.Pins}, []any{q.Ranges, q.Lists, q.Pins})
}

// keysOf is what the map says of one group.
func (p *part) keysOf(group string) *part {
	out := &part{}
	for _, g := range p.groups {
		if g.Name == group {
			out.groups = append(out.groups, g)
		}
	}
	for _, x := range p.placements {
		if x.Group == group {
			out.placements = append(out.placements, x)
		}
	}
	return out
}

// equals says whether the map says the same of a database.
func (p *part) equals(q *part) bool { return p.alikeBut(q) }

// alikeBut says whether the map says the same of a database, but for some kinds of objects.
func (p *part) alikeBut(q *part, kindsBut ...string) bool {
	return !slices.ContainsFunc(kinds, func(k kind) bool { return !slices.Contains(kindsBut, k.table) && !k.alike(p, q) })
}
