package shardmap

import (
	"bytes"
	"slices"
	"sort"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// PlacementInfo is a compiled placement: which shard has which key of a group. Shards are indices of DB.Shards.
type PlacementInfo struct {
	Group  *GroupInfo
	Slots  []SlotRun // as declared, as are the others
	Ranges []Range
	Lists  []List
	Pins   []Pin

	declared *Placement
	ends     []int32        // of hash: the last slot of each run; few words, which stay in the cache
	starts   [][]byte       // of range: where each range after the first begins, in ordered form
	owners   []int32        // of hash and range: of each
	values   map[string]int // of list, by ordered form
	fallback int            // of list: the owner of other keys; -1: nobody. Of what lives on one shard: the owner
	pins     map[string]int // by ordered form
	all      []int
}

// Placement is that of a group. One of another map stands for the group of its name, which there must be.
func (d *DB) Placement(g *GroupInfo) *PlacementInfo {
	switch {
	case g.fixed != nil:
		return g.fixed
	case g.index < len(d.placements) && d.placements[g.index].Group.Name == g.Name:
		return d.placements[g.index]
	}
	return d.placements[d.Groups[g.Name].index]
}

// Place finds the shard of one complete key. ok is false for a key that no list names.
func (p *PlacementInfo) Place(key []pghash.Key) (shard int, ok bool) {
	if p.Group.Scheme == ByHash && p.pins == nil {
		return p.ownerOf(slotOf(key)), true
	}
	var buf [128]byte
	form := buf[:0]
	for i := range key {
		form = key[i].AppendOrdered(form)
	}
	if s, ok := p.pins[string(form)]; ok {
		return s, true
	}
	switch p.Group.Scheme {
	case ByHash:
		return p.ownerOf(slotOf(key)), true
	case ByRange:
		return int(p.owners[p.rangeAt(form)]), true
	case ByList:
		if s, ok := p.values[string(form)]; ok {
			return s, true
		}
	case ByTenant:
	}
	return p.fallback, p.fallback >= 0
}

// ownerOf is the shard of a slot.
func (p *PlacementInfo) ownerOf(slot int) int {
	i, _ := slices.BinarySearch(p.ends, int32(slot))
	return int(p.owners[i])
}

// rangeAt is the index of the range that holds a key in ordered form.
func (p *PlacementInfo) rangeAt(form []byte) int {
	return sort.Search(len(p.starts), func(i int) bool { return bytes.Compare(p.starts[i], form) > 0 })
}

// Between calls add with every shard that may hold keys from low to high, both included, in ordered form; either may end
// before the last column. Nil is no bound.
func (p *PlacementInfo) Between(low, high []byte, add func(shard int)) {
	above := func(form []byte) bool {
		return high != nil && bytes.Compare(form, high) > 0 && !bytes.HasPrefix(form, high)
	}
	first := 0
	if low != nil {
		first = p.rangeAt(low)
	}
	last := sort.Search(len(p.starts), func(i int) bool { return above(p.starts[i]) })
	for i := first; i <= last; i++ {
		add(int(p.owners[i]))
	}
	for form, s := range p.pins {
		if form >= string(low) && !above([]byte(form)) {
			add(s)
		}
	}
}

// Shards are those that may hold rows of the group, in order. The slice is the placement's.
func (p *PlacementInfo) Shards() []int { return p.all }

func (p *PlacementInfo) shards(d *DB) (out []int) {
	has := make([]bool, len(d.Shards))
	for _, o := range p.owners {
		has[o] = true
	}
	for _, owners := range []map[string]int{p.values, p.pins} {
		for _, o := range owners {
			has[o] = true
		}
	}
	if p.fallback >= 0 {
		has[p.fallback] = true
	}
	for i, there := range has {
		if there {
			out = append(out, i)
		}
	}
	return out
}

// RangeOf is the index of the range that holds a key.
func (p *PlacementInfo) RangeOf(vals []string) (int, error) {
	form, err := p.Group.form(vals)
	return p.rangeAt([]byte(form)), err
}

// PinOf is the index of the pin of a key; -1 for none.
func (p *PlacementInfo) PinOf(vals []string) (int, error) {
	want, err := p.Group.form(vals)
	if err != nil {
		return -1, err
	}
	return slices.IndexFunc(p.Pins, func(x Pin) bool {
		form, err := p.Group.form(x.Key)
		return err == nil && form == want
	}), nil
}

// compilePlacement builds the placement of a group.
func (d *DB) compilePlacement(g *GroupInfo, x *Placement) (*PlacementInfo, error) {
	p := &PlacementInfo{Group: g, Slots: x.Slots, Ranges: x.Ranges, Lists: x.Lists, Pins: x.Pins, declared: x, fallback: -1}
	for _, part := range []struct {
		scheme Scheme
		any    bool
		build  func(*DB) error
	}{{ByHash, len(x.Slots) > 0, p.placeSlots}, {ByRange, len(x.Ranges) > 0, p.placeRanges}, {ByList, len(x.Lists) > 0, p.placeLists}} {
		if part.any && part.scheme != g.Scheme {
			return nil, invalid(pgsql.WrongObjectType, "SHOW GROUPS shows the scheme of each group.", "group %q is placed by %s, not by %s", g.Name, g.Scheme, part.scheme)
		}
		if part.scheme == g.Scheme {
			if err := part.build(d); err != nil {
				return nil, err
			}
		}
	}
	if err := p.placePins(d); err != nil {
		return nil, err
	}
	p.all = p.shards(d)
	return p, nil
}

// owner is the place of a shard that is named.
func (d *DB) owner(name string) (int, error) {
	if s := d.byName[name]; s != nil {
		return s.Index, nil
	}
	return 0, noShard(name, d.Name)
}

func (p *PlacementInfo) placeSlots(d *DB) error {
	covered := 0
	p.ends, p.owners = make([]int32, 0, len(p.Slots)), make([]int32, 0, len(p.Slots))
	for _, r := range p.Slots {
		shard, err := d.owner(r.Shard)
		if err != nil {
			return err
		}
		if r.From != covered || r.To < r.From || r.To >= pghash.Slots {
			return invalid(pgsql.InvalidParameterValue, "", "slots %d-%d of group %q overlap others, leave a gap or are out of range", r.From, r.To, p.Group.Name)
		}
		covered = r.To + 1
		p.ends, p.owners = append(p.ends, int32(r.To)), append(p.owners, int32(shard))
	}
	if covered != pghash.Slots {
		return invalid(pgsql.InvalidParameterValue, "", "group %q gives an owner to %d of %d slots", p.Group.Name, covered, pghash.Slots)
	}
	return nil
}

func (p *PlacementInfo) placeRanges(d *DB) error {
	if len(p.Ranges) == 0 {
		return p.placesNone()
	}
	for i, r := range p.Ranges {
		shard, err := d.owner(r.Shard)
		if err != nil {
			return err
		}
		if i == 0 {
			if len(r.From) > 0 {
				return invalid(pgsql.InvalidParameterValue, "Begin with MINVALUE.", "the ranges of group %q leave a gap below (%s)", p.Group.Name, strings.Join(r.From, ", "))
			}
		} else {
			form, err := p.Group.form(r.From)
			if err != nil {
				return err
			}
			if n := len(p.starts); n > 0 && string(p.starts[n-1]) >= form {
				return invalid(pgsql.InvalidObjectDefinition, "Give the ranges in ascending order.", "the ranges of group %q overlap or are empty at (%s)", p.Group.Name, strings.Join(r.From, ", "))
			}
			p.starts = append(p.starts, []byte(form))
		}
		p.owners = append(p.owners, int32(shard))
	}
	return nil
}

func (p *PlacementInfo) placesNone() error {
	return invalid(pgsql.InvalidParameterValue, "", "group %q gives an owner to no key", p.Group.Name)
}

func (p *PlacementInfo) placeLists(d *DB) error {
	if len(p.Lists) == 0 {
		return p.placesNone()
	}
	p.values = map[string]int{}
	for _, l := range p.Lists {
		shard, err := d.owner(l.Shard)
		if err != nil {
			return err
		}
		for _, v := range l.Values {
			form, err := p.Group.form([]string{v})
			if err != nil {
				return err
			}
			if _, dup := p.values[form]; dup {
				return invalid(pgsql.InvalidObjectDefinition, "", "value %q of group %q is listed twice", v, p.Group.Name)
			}
			p.values[form] = shard
		}
		if l.Default {
			if p.fallback >= 0 {
				return invalid(pgsql.InvalidObjectDefinition, "", "group %q has two default shards", p.Group.Name)
			}
			p.fallback = shard
		}
	}
	return nil
}

func (p *PlacementInfo) placePins(d *DB) error {
	for _, x := range p.Pins {
		shard, err := d.owner(x.Shard)
		if err != nil {
			return err
		}
		form, err := p.Group.form(x.Key)
		if err != nil {
			return err
		}
		if p.pins == nil {
			p.pins = map[string]int{}
		}
		if _, dup := p.pins[form]; dup {
			return invalid(pgsql.DuplicateObject, "UNPIN KEY it first.", "key (%s) of group %q is pinned already", strings.Join(x.Key, ", "), p.Group.Name)
		}
		p.pins[form] = shard
	}
	return nil
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
