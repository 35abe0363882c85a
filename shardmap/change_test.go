package shardmap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

// memory is a store in memory. With whole it hands out documents as a file would: what is read shares nothing with what was written.
type memory struct {
	doc   *Document
	whole bool
}

func (m *memory) Load(context.Context) (*Document, error) {
	if m.doc == nil || !m.whole {
		return m.doc, nil
	}
	b, err := json.Marshal(m.doc)
	if err != nil {
		return nil, err
	}
	out := &Document{}
	return out, json.Unmarshal(b, out)
}

func (m *memory) Save(_ context.Context, prev uint64, doc *Document) error {
	if m.doc != nil && m.doc.Version != prev {
		return ErrConflict
	}
	m.doc = doc
	return nil
}

func (m *memory) Watch(context.Context, func(*Document, error)) error { return nil }

func (m *memory) History(context.Context) ([]uint64, error) { return nil, nil }

// randomEdit is a change of a map, mostly one that may be.
func randomEdit(r *rand.Rand) func(*Tx) error {
	pick := func(prefix string, n int) string { return fmt.Sprint(prefix, r.IntN(n)) }
	db, shard, group, table, schema := pick("d", 2), pick("s", 3), pick("g", 3), pick("t", 6), []string{"public", "other"}[r.IntN(2)]
	flag := r.IntN(2) == 0
	switch r.IntN(24) {
	case 0:
		return func(tx *Tx) error {
			return errors.Join(tx.PutDatabase(Database{Name: db, Home: "s0", Shards: r.IntN(3)}), tx.PutShard(Shard{Database: db, Name: "s0"}), tx.PutNode(Node{Database: db, Shard: "s0", Name: "a"}))
		}
	case 1, 2, 3:
		return func(tx *Tx) error {
			return errors.Join(tx.PutShard(Shard{Database: db, Name: shard, Ordinal: r.IntN(4), Named: r.IntN(2), Marked: flag}), tx.PutNode(Node{Database: db, Shard: shard, Name: pick("n", 3), DSN: pick("x", 9)}))
		}
	case 4:
		return func(tx *Tx) error { return tx.SetSystem(db, shard, pick("sys", 3), flag) }
	case 5:
		return func(tx *Tx) error { return tx.Delete("nodes", db, shard, pick("n", 3)) }
	case 6:
		return func(tx *Tx) error {
			return errors.Join(tx.Delete("shards", db, shard), tx.Delete("nodes", db, shard, "n0"), tx.Delete("nodes", db, shard, "n1"), tx.Delete("nodes", db, shard, "n2"))
		}
	case 7, 8, 9:
		scheme := []Scheme{ByHash, ByRange, ByList}[r.IntN(3)]
		return func(tx *Tx) error {
			err := errors.Join(tx.DropGroup(db, group), tx.PutGroup(Group{Database: db, Name: group, Scheme: scheme, Keys: []string{"int4"}}))
			switch scheme {
			case ByHash:
				return errors.Join(err, tx.SetSlots(db, group, SpreadSlots([]string{"s0", shard})))
			case ByRange:
				return errors.Join(err, tx.SetRanges(db, group, []Range{{Shard: "s0"}, {From: []string{"7"}, Shard: shard}}))
			}
			return errors.Join(err, tx.SetLists(db, group, []List{{Values: []string{"1", "2"}, Shard: shard}, {Default: flag, Values: []string{"3"}, Shard: "s0"}}))
		}
	case 10, 11:
		cut := 1 + r.IntN(16382)
		return func(tx *Tx) error {
			return tx.SetSlots(db, group, []SlotRun{{0, cut - 1, shard}, {cut, 16383, "s0"}})
		}
	case 12:
		return func(tx *Tx) error { return tx.SetPins(db, group, []Pin{{Key: []string{pick("", 9)}, Shard: shard}}) }
	case 13:
		return func(tx *Tx) error { return tx.SetPins(db, group, nil) }
	case 14:
		return func(tx *Tx) error { return tx.DropGroup(db, group) }
	case 15, 16, 17:
		t := Table{Database: db, Schema: "public", Name: table, Kind: Reference, Moving: flag, Made: pick("m", 3)}
		if r.IntN(3) > 0 {
			t.Kind, t.Group, t.Key = Sharded, group, []string{pick("k", 2)}
		}
		if r.IntN(4) == 0 {
			t.Renaming = &Renaming{Schema: "public", Name: pick("t", 6), Key: t.Key}
		}
		return func(tx *Tx) error { return tx.PutTable(t) }
	case 18:
		return func(tx *Tx) error { return tx.Delete("tables", db, "public", table) }
	case 19:
		return func(tx *Tx) error {
			return tx.PutTenant(Tenant{Database: db, Schema: schema, Shard: shard, Moving: flag})
		}
	case 20:
		return func(tx *Tx) error { return tx.Delete("tenants", db, schema) }
	case 21:
		return func(tx *Tx) error {
			return tx.PutAttempt(Attempt{ID: pick("", 3), Database: db, Group: group, Step: []Step{Joining, Joined, Placing, ""}[r.IntN(4)]})
		}
	case 22:
		return func(tx *Tx) error { return tx.Delete("attempts", pick("", 3)) }
	}
	if flag {
		return func(tx *Tx) error { return tx.PutRoutine(Routine{Database: db, Schema: "public", Name: pick("f", 2)}) }
	}
	return func(tx *Tx) error { return tx.Delete("routines", db, "public", pick("f", 2)) }
}

// A snapshot that shares with the one before it is what the whole map makes, whoever changed it; and the tables say what it does.
func TestWhatIsSharedIsWhatTheWholeMapMakes(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		store := &memory{whole: true}
		var both [2]*Catalog
		for i := range both {
			var err error
			if both[i], err = Open(t.Context(), store, "i"); err != nil {
				t.Fatal(err)
			}
		}
		done, shapes := 0, map[string]string{}
		for step := range 300 {
			c := both[r.IntN(2)]
			edits := make([]func(*Tx) error, 1+r.IntN(3))
			for i := range edits {
				edits[i] = randomEdit(r)
			}
			before := c.Current().Document
			said, err := json.Marshal(before)
			if err != nil {
				t.Fatal(err)
			}
			dry, what := r.IntN(10) == 0, fmt.Sprintf("seed %d, step %d", seed, step)
			var edited *Document
			_, err = c.Change(t.Context(), dry, func(tx *Tx) error {
				for _, e := range edits {
					if err := e(tx); err != nil {
						return err
					}
				}
				edited = inTables(t, tx)
				return nil
			})
			if err == nil && !dry {
				says(t, what, edited, c.Current().Document)
				if now := c.Current().Document; len(now.Groups) > 0 && len(now.Nodes) > 1 {
					done++
				}
			}
			if now, err := json.Marshal(before); err != nil || string(now) != string(said) {
				t.Fatalf("%s: the map before has changed", what)
			}
			for i, c := range both {
				c.CatchUp(t.Context())
				isWhole(t, what, c)
				for name, d := range c.Current().Databases {
					at, says := fmt.Sprint(i, name, d.Shape), planned(t, d)
					if was, ok := shapes[at]; ok && was != says {
						t.Fatalf("%s: shape %d of %s was\n%s and is\n%s", what, d.Shape, name, was, says)
					}
					shapes[at] = says
				}
			}
		}
		if done < 50 {
			t.Errorf("seed %d: only %d changes of a map with groups and nodes", seed, done)
		}
	}
}

// planned is all that plans of a database are made of.
func planned(t *testing.T, d *DB) string {
	t.Helper()
	shards, has := []Shard{}, map[string][]int{}
	for _, s := range d.part.shards {
		s := *s
		s.Primary, s.Named = "", 0
		shards = append(shards, s)
	}
	for name, g := range d.Groups {
		has[name] = d.Placement(g).Shards()
	}
	b, err := json.Marshal([]any{d.part.databases, shards, has, d.part.groups, d.part.tables, d.part.tenants, d.part.routines, d.part.attempts})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// isWhole compares a catalog's snapshot and tables with what its document, read anew, makes.
func isWhole(t *testing.T, what string, c *Catalog) {
	t.Helper()
	s := c.Current()
	b, err := json.Marshal(s.Document)
	if err != nil {
		t.Fatal(err)
	}
	doc := &Document{}
	if err := json.Unmarshal(b, doc); err != nil {
		t.Fatal(err)
	}
	whole, err := Compile(doc)
	if err != nil {
		t.Fatalf("%s: a map in force is wrong: %v", what, err)
	}
	for name, db := range whole.Databases {
		got := *s.Databases[name]
		got.Shape = db.Shape
		if !alikeDatabases(&got, db) {
			t.Fatalf("%s: database %s is\n%+v, not\n%+v", what, name, got, *db)
		}
	}
	if len(whole.Databases) != len(s.Databases) {
		t.Fatalf("%s: %d databases, not %d", what, len(s.Databases), len(whole.Databases))
	}
	says(t, what, inTables(t, &Tx{txn: c.db.Txn(false)}), s.Document)
}

// inTables is what the tables say.
func inTables(t *testing.T, tx *Tx) *Document {
	t.Helper()
	d := &Document{}
	for _, k := range kinds {
		if err := k.read(tx.txn, d); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// says fails unless a map says what the tables do.
func says(t *testing.T, what string, tables, doc *Document) {
	t.Helper()
	is, want := doc.parts(&Document{}, nil), tables.parts(&Document{}, nil)
	if len(is) != len(want) {
		t.Fatalf("%s: the map has other databases than the tables", what)
	}
	for name, p := range want {
		for _, k := range kinds {
			if is[name] == nil || !k.alike(p, is[name]) {
				t.Fatalf("%s: the map says another thing of %s than the table %s", what, name, k.table)
			}
		}
	}
}

// alikeDatabases compares two compiled databases in full.
func alikeDatabases(a, b *DB) bool {
	x, y := *a, *b
	if !x.part.equals(y.part) {
		return false
	}
	x.part, y.part, x.shapes, y.shapes = nil, nil, nil, nil // which may differ in empty lists, and in what was
	return reflect.DeepEqual(unnamed(x), unnamed(y))
}

// unnamed is a database without what its objects were declared by, which may differ in empty lists.
func unnamed(d DB) DB {
	groups := map[string]*GroupInfo{}
	for n, g := range d.Groups {
		c := *g
		c.declared = nil
		groups[n] = &c
	}
	d.Groups = groups
	places := make([]*PlacementInfo, len(d.placements))
	for i, p := range d.placements {
		c := *p
		c.declared, c.Group = nil, groups[p.Group.Name]
		places[i] = &c
	}
	d.placements = places
	tables := map[TableName]*TableInfo{}
	for n, t := range d.Tables {
		c := *t
		if c.Group != nil {
			c.Group = groups[c.Group.Name]
		}
		tables[n] = &c
	}
	d.Tables = tables
	return d
}
