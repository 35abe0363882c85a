package shardmap

import (
	"bytes"
	"slices"
	"sort"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// GroupInfo is a compiled group: which shard owns which key. Shards are indices of DB.Shards.
type GroupInfo struct {
	Name   string
	Scheme Scheme
	Keys   []pghash.Type
	Moving bool // of a schema that lives on one shard: it travels; of another: keys get other shards

	Runs   []SlotRun // of hash: which slots are whose, in order
	Ranges []Range   // of range, ordered
	Lists  []List    // of list
	Pins   []Pin

	ends     []int          // of hash: the last slot of each run; few words, which stay in the cache
	starts   [][]byte       // of range: where each range after the first begins, in ordered form
	owners   []int          // of hash and range: of each
	values   map[string]int // of list, by ordered form
	fallback int            // of list: the owner of other keys; -1: nobody. Of a tenant: the owner
	pins     map[string]int // by ordered form
	all      []int
}

// Place finds the shard of one complete key. ok is false for a key that no list names.
func (g *GroupInfo) Place(key []pghash.Key) (shard int, ok bool) {
	if g.Scheme == ByHash && g.pins == nil {
		return g.ownerOf(slotOf(key)), true
	}
	var buf [128]byte
	form := buf[:0]
	for i := range key {
		form = key[i].AppendOrdered(form)
	}
	if s, ok := g.pins[string(form)]; ok {
		return s, true
	}
	switch g.Scheme {
	case ByHash:
		return g.ownerOf(slotOf(key)), true
	case ByRange:
		return g.owners[g.rangeAt(form)], true
	case ByList:
		if s, ok := g.values[string(form)]; ok {
			return s, true
		}
	}
	return g.fallback, g.fallback >= 0
}

// ownerOf is the shard of a slot.
func (g *GroupInfo) ownerOf(slot int) int {
	i, _ := slices.BinarySearch(g.ends, slot)
	return g.owners[i]
}

// Slot is the slot of a key of a hash group.
func (g *GroupInfo) Slot(key []pghash.Key) int { return slotOf(key) }

func slotOf(key []pghash.Key) int {
	row := uint64(0)
	for i := range key {
		row = pghash.Combine(row, key[i].Hash())
	}
	return int(row & (pghash.Slots - 1))
}

// rangeAt is the index of the range that holds a key in ordered form.
func (g *GroupInfo) rangeAt(form []byte) int {
	return sort.Search(len(g.starts), func(i int) bool { return bytes.Compare(g.starts[i], form) > 0 })
}

// Between calls add with every shard that may hold keys from low to high, both included, in ordered form; either may end
// before the last column. Nil is no bound.
func (g *GroupInfo) Between(low, high []byte, add func(shard int)) {
	above := func(form []byte) bool {
		return high != nil && bytes.Compare(form, high) > 0 && !bytes.HasPrefix(form, high)
	}
	first := 0
	if low != nil {
		first = g.rangeAt(low)
	}
	last := sort.Search(len(g.starts), func(i int) bool { return above(g.starts[i]) })
	for i := first; i <= last; i++ {
		add(g.owners[i])
	}
	for form, s := range g.pins {
		if form >= string(low) && !above([]byte(form)) {
			add(s)
		}
	}
}

// Shards are those that may hold rows of the group, in order. The slice is the group's.
func (g *GroupInfo) Shards() []int { return g.all }

func (g *GroupInfo) shards() []int {
	seen := map[int]bool{}
	switch g.Scheme {
	case ByHash, ByRange:
		for _, o := range g.owners {
			seen[o] = true
		}
	default:
		for _, o := range g.values {
			seen[o] = true
		}
		if g.fallback >= 0 {
			seen[g.fallback] = true
		}
	}
	for _, o := range g.pins {
		seen[o] = true
	}
	var out []int
	for s := range seen {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// RangeOf is the index of the range that holds a key.
func (g *GroupInfo) RangeOf(vals []string) (int, error) {
	form, err := g.form(vals)
	return g.rangeAt([]byte(form)), err
}

// PinOf is the index of the pin of a key; -1 for none.
func (g *GroupInfo) PinOf(vals []string) (int, error) {
	want, err := g.form(vals)
	if err != nil {
		return -1, err
	}
	return slices.IndexFunc(g.Pins, func(p Pin) bool {
		form, err := g.form(p.Key)
		return err == nil && form == want
	}), nil
}

// TypeList is the key types as they are written in SQL and in messages.
func (g *GroupInfo) TypeList() string {
	var out []string
	for _, t := range g.Keys {
		out = append(out, t.String())
	}
	return strings.Join(out, ", ")
}

// ParseKey reads the values of a key given as text. The error is an *InvalidError.
func (g *GroupInfo) ParseKey(vals []string) ([]pghash.Key, error) {
	if len(vals) != len(g.Keys) {
		return nil, invalid(pgsql.InvalidParameterValue, "", "a key of group %q has %d columns, %d values were given", g.Name, len(g.Keys), len(vals))
	}
	out := make([]pghash.Key, len(vals))
	for i, v := range vals {
		var ok bool
		if out[i], ok = pghash.ParseText(g.Keys[i], v); !ok {
			return nil, invalid(pgsql.InvalidTextRepresentation, "Write dates and timestamps in ISO 8601, with an offset for timestamptz.", "invalid input syntax for type %s: %q", g.Keys[i], v)
		}
	}
	return out, nil
}

func (g *GroupInfo) form(vals []string) (string, error) {
	key, err := g.ParseKey(vals)
	if err != nil {
		return "", err
	}
	var out []byte
	for i := range key {
		out = key[i].AppendOrdered(out)
	}
	return string(out), nil
}

func compileGroups(s *Snapshot, doc *Document) error {
	for _, g := range doc.Groups {
		db := s.Databases[g.Database]
		if db == nil {
			return noDatabase(g.Database)
		}
		info, err := newGroup(g)
		if err != nil {
			return err
		}
		db.Groups[g.Name] = info
	}
	covered := map[*GroupInfo]int{}
	if err := compileSlots(s, doc, covered); err != nil {
		return err
	}
	if err := compileRanges(s, doc); err != nil {
		return err
	}
	if err := compileLists(s, doc); err != nil {
		return err
	}
	if err := compilePins(s, doc); err != nil {
		return err
	}
	for _, db := range s.Databases {
		for _, g := range db.Groups {
			switch {
			case g.Scheme == ByHash && covered[g] != pghash.Slots:
				return invalid(pgsql.InvalidParameterValue, "", "group %q gives an owner to %d of %d slots", g.Name, covered[g], pghash.Slots)
			case g.Scheme == ByRange && len(g.owners) == 0, g.Scheme == ByList && len(g.Lists) == 0:
				return invalid(pgsql.InvalidParameterValue, "", "group %q gives an owner to no key", g.Name)
			}
			g.all = g.shards()
		}
	}
	return nil
}

func newGroup(g *Group) (*GroupInfo, error) {
	info := &GroupInfo{Name: g.Name, Scheme: g.Scheme, fallback: -1}
	for _, name := range g.Keys {
		kt, ok := pghash.TypeByName(name)
		if !ok {
			return nil, invalid(pgsql.FeatureNotSupported, "Use one of: integer, bigint, smallint, text, varchar, char(n), uuid, date, timestamp, timestamptz, numeric, boolean.",
				"type %q cannot be the key of a group", name)
		}
		if _, ok := pghash.SlotSQL([]pghash.Type{kt}, []string{"k"}); !ok && g.Scheme == ByHash {
			return nil, invalid(pgsql.FeatureNotSupported, "Use a uuid, a text or an integer key.", "type %s cannot be the key of a hash group: SQL cannot check the place of its rows", kt)
		}
		info.Keys = append(info.Keys, kt)
	}
	switch {
	case len(info.Keys) == 0 || len(info.Keys) > pghash.MaxColumns:
		return nil, invalid(pgsql.TooManyColumns, "", "the key of group %q has %d columns: 1 to %d are possible", g.Name, len(info.Keys), pghash.MaxColumns)
	case g.Scheme == ByList && len(info.Keys) > 1:
		return nil, invalid(pgsql.InvalidTableDefinition, "Use one column, or BY HASH or BY RANGE.", "cannot use \"list\" with more than one key column")
	case g.Scheme == ByHash:
	case g.Scheme != ByRange && g.Scheme != ByList:
		return nil, invalid(pgsql.InvalidParameterValue, "", "group %q has the unknown scheme %q", g.Name, g.Scheme)
	}
	return info, nil
}

// member finds the group and shard that a part of a group's placement names.
func member(s *Snapshot, database, group, shard string, scheme Scheme) (*GroupInfo, int, error) {
	db := s.Databases[database]
	if db == nil {
		return nil, 0, noDatabase(database)
	}
	g := db.Groups[group]
	if g == nil {
		return nil, 0, noGroup(group, database)
	}
	if scheme != "" && g.Scheme != scheme {
		return nil, 0, invalid(pgsql.WrongObjectType, "SHOW GROUPS shows the scheme of each group.", "group %q is placed by %s, not by %s", group, g.Scheme, scheme)
	}
	sh, ok := db.Shard(shard)
	if !ok {
		return nil, 0, noShard(shard, database)
	}
	return g, sh.Index, nil
}

func compileSlots(s *Snapshot, doc *Document, covered map[*GroupInfo]int) error {
	runs := append([]*SlotRun(nil), doc.Slots...)
	sort.SliceStable(runs, func(i, j int) bool { return runs[i].From < runs[j].From })
	for _, r := range runs {
		g, shard, err := member(s, r.Database, r.Group, r.Shard, ByHash)
		if err != nil {
			return err
		}
		if r.From != covered[g] || r.To < r.From || r.To >= pghash.Slots {
			return invalid(pgsql.InvalidParameterValue, "", "slots %d-%d of group %q overlap others, leave a gap or are out of range", r.From, r.To, r.Group)
		}
		covered[g] = r.To + 1
		g.ends, g.owners = append(g.ends, r.To), append(g.owners, shard)
		g.Runs = append(g.Runs, *r)
	}
	return nil
}

func compileRanges(s *Snapshot, doc *Document) error {
	ranges := append([]*Range(nil), doc.Ranges...)
	sort.SliceStable(ranges, func(i, j int) bool { return ranges[i].Ordinal < ranges[j].Ordinal })
	for _, r := range ranges {
		g, shard, err := member(s, r.Database, r.Group, r.Shard, ByRange)
		if err != nil {
			return err
		}
		if len(g.owners) == 0 {
			if len(r.From) > 0 {
				return invalid(pgsql.InvalidParameterValue, "Begin with MINVALUE.", "the ranges of group %q leave a gap below (%s)", r.Group, strings.Join(r.From, ", "))
			}
		} else {
			form, err := g.form(r.From)
			if err != nil {
				return err
			}
			if n := len(g.starts); n > 0 && string(g.starts[n-1]) >= form {
				return invalid(pgsql.InvalidObjectDefinition, "Give the ranges in ascending order.", "the ranges of group %q overlap or are empty at (%s)", r.Group, strings.Join(r.From, ", "))
			}
			g.starts = append(g.starts, []byte(form))
		}
		g.owners = append(g.owners, shard)
		g.Ranges = append(g.Ranges, *r)
	}
	return nil
}

func compileLists(s *Snapshot, doc *Document) error {
	for _, l := range doc.Lists {
		g, shard, err := member(s, l.Database, l.Group, l.Shard, ByList)
		if err != nil {
			return err
		}
		if g.values == nil {
			g.values = map[string]int{}
		}
		for _, v := range l.Values {
			form, err := g.form([]string{v})
			if err != nil {
				return err
			}
			if _, dup := g.values[form]; dup {
				return invalid(pgsql.InvalidObjectDefinition, "", "value %q of group %q is listed twice", v, l.Group)
			}
			g.values[form] = shard
		}
		if l.Default {
			if g.fallback >= 0 {
				return invalid(pgsql.InvalidObjectDefinition, "", "group %q has two default shards", l.Group)
			}
			g.fallback = shard
		}
		g.Lists = append(g.Lists, *l)
	}
	return nil
}

func compilePins(s *Snapshot, doc *Document) error {
	for _, p := range doc.Pins {
		g, shard, err := member(s, p.Database, p.Group, p.Shard, "")
		if err != nil {
			return err
		}
		form, err := g.form(p.Key)
		if err != nil {
			return err
		}
		if g.pins == nil {
			g.pins = map[string]int{}
		}
		if _, dup := g.pins[form]; dup {
			return invalid(pgsql.DuplicateObject, "UNPIN KEY it first.", "key (%s) of group %q is pinned already", strings.Join(p.Key, ", "), p.Group)
		}
		g.pins[form] = shard
		g.Pins = append(g.Pins, *p)
	}
	return nil
}

func compileTenants(s *Snapshot, doc *Document) error {
	for _, t := range doc.Tenants {
		db := s.Databases[t.Database]
		if db == nil {
			return noDatabase(t.Database)
		}
		sh, ok := db.Shard(t.Shard)
		if !ok {
			return noShard(t.Shard, t.Database)
		}
		db.tenants[t.Schema] = &GroupInfo{Name: t.Schema, Scheme: ByTenant, Moving: t.Moving, fallback: sh.Index, all: []int{sh.Index}}
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
