package shardmap

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
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
	switch r.IntN(28) {
	case 0:
		return func(tx *Tx) error {
			return errors.Join(tx.PutDatabase(Database{Name: db, Home: "s0", Shards: r.IntN(3)}), tx.PutShard(Shard{Database: db, Name: "s0"}), tx.PutNode(Node{Database: db, Shard: "s0", Name: "a"}))
		}
	case 1, 2, 3:
		return func(tx *Tx) error {
			return errors.Join(tx.PutShard(Shard{Database: db, Name: shard, Ordinal: r.IntN(4), Named: r.IntN(2), Marked: flag}), tx.PutNode(Node{Database: db, Shard: shard, Name: pick("n", 3), DSN: pick("x", 9), Ordinal: r.IntN(3)}))
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
			case ByList, ByTenant:
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
		none := [][]Pin{nil, {}}[r.IntN(2)]
		return func(tx *Tx) error { return tx.SetPins(db, group, none) }
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
	case 23: // the group alone: its placement says what it did, of keys of another type
		g := Group{Database: db, Name: group, Scheme: []Scheme{ByHash, ByRange, ByList}[r.IntN(3)], Keys: []string{[]string{"int4", "text"}[r.IntN(2)]}}
		return func(tx *Tx) error { return tx.PutGroup(g) }
	case 24: // all that there may be, but for attempts
		if r.IntN(12) == 0 {
			return func(tx *Tx) error { return dropAll(tx, db) }
		}
		fallthrough
	case 25:
		return func(tx *Tx) error {
			return tx.PutShard(Shard{Database: db, Name: shard, Ordinal: r.IntN(4), Named: r.IntN(2), Primary: pick("n", 3)})
		}
	}
	if flag {
		return func(tx *Tx) error { return tx.PutRoutine(Routine{Database: db, Schema: "public", Name: pick("f", 2)}) }
	}
	return func(tx *Tx) error { return tx.Delete("routines", db, "public", pick("f", 2)) }
}

func dropAll(tx *Tx, db string) error {
	err := tx.Delete("databases", db)
	for _, k := range kinds[1:8] {
		all, e := collect[any](tx.txn, k.table)
		err = errors.Join(err, e)
		for _, x := range all {
			if o := x.(interface{ id() id }); o.id()[0] == db {
				err = errors.Join(err, tx.txn.Delete(k.table, x))
			}
		}
	}
	return err
}

// sayings are what a process was told of its databases lately, as the shapes have it, and since which version. The newest comes first.
type sayings map[string][]saying

type saying struct {
	text  string
	since uint64
}

// next is what the sayings are by the next map that the process uses.
func (was sayings) next(t *testing.T, s *Snapshot) sayings {
	is := sayings{}
	for name, d := range s.Databases {
		now := saying{said(t, s.Document, name, true), s.Version}
		for _, p := range d.placements {
			now.text += fmt.Sprintln(p.Group.Name, p.Shards())
		}
		is[name] = []saying{now}
		for _, x := range was[name] {
			switch {
			case x.text == now.text:
				is[name][0].since = x.since
			case len(is[name]) < mostShapes:
				is[name] = append(is[name], x)
			}
		}
	}
	return is
}

// said is what a document says of one database: all of it, or only what plans are made of.
func said(t *testing.T, doc *Document, name string, planned bool) string {
	t.Helper()
	d := &Document{}
	for _, x := range doc.Shards {
		c := *x
		if planned {
			c.Primary, c.Named = "", 0
		}
		if c.Database == name {
			d.Shards = append(d.Shards, &c)
		}
	}
	d.Databases, d.Groups, d.Tables = only(doc.Databases, name), only(doc.Groups, name), only(doc.Tables, name)
	d.Tenants, d.Routines, d.Attempts = only(doc.Tenants, name), only(doc.Routines, name), only(doc.Attempts, name)
	if !planned {
		d.Nodes, d.Placements = only(doc.Nodes, name), only(doc.Placements, name)
	}
	return written(t, d)
}

func only[T any, P object[T]](all []P, database string) (out []P) {
	for _, x := range all {
		if x.id()[0] == database {
			out = append(out, x)
		}
	}
	return out
}

func written(t *testing.T, d *Document) string {
	t.Helper()
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
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
		done, conflicts, unchanged := 0, 0, 0
		var told [2]sayings
		var past [][2]any // a snapshot, and one of its databases
		for step := range 400 {
			by := r.IntN(2)
			c := both[by]
			edits := make([]func(*Tx) error, 1+r.IntN(3))
			for i := range edits {
				edits[i] = randomEdit(r)
			}
			before := c.Current().Document
			stood := written(t, before)
			dry, what := r.IntN(10) == 0, fmt.Sprintf("seed %d, step %d", seed, step)
			var edited *Document
			_, err := c.Change(t.Context(), dry, func(tx *Tx) error {
				if len(past) > 0 {
					x := past[len(past)-1-r.IntN(min(len(past), 9))]
					s, d := x[0].(*Snapshot), x[1].(*DB)
					same := said(t, before, d.Name, false) == said(t, s.Document, d.Name, false)
					if err := tx.Unchanged(d); (err == nil) != same {
						t.Fatalf("%s: %s is the same since version %d: %v, and Unchanged says %v", what, d.Name, d.Version, same, err)
					}
					if same && s.Document != before {
						unchanged++
					}
				}
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
			if errors.Is(err, ErrConflict) {
				conflicts++
			}
			if written(t, before) != stood {
				t.Fatalf("%s: the map before has changed", what)
			}
			for i, c := range both {
				if i != by && r.IntN(2) == 0 {
					c.CatchUp(t.Context())
				}
				s := c.Current()
				if len(told[i]) == 0 || s.Version != told[i][""][0].since {
					told[i] = told[i].next(t, s)
					told[i][""] = []saying{{since: s.Version}}
				}
				isWhole(t, what, c)
				for name, d := range s.Databases {
					if d.Shape != told[i][name][0].since {
						t.Fatalf("%s: the shape of %s is %d, and it is so since %d", what, name, d.Shape, told[i][name][0].since)
					}
					past = append(past, [2]any{s, d})
				}
			}
		}
		if done < 30 || conflicts == 0 || unchanged < 9 {
			t.Errorf("seed %d: only %d changes of a map with groups and nodes, %d conflicts, %d databases of another map that are unchanged", seed, done, conflicts, unchanged)
		}
	}
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
		knowsItself(t, what, s.Databases[name])
		got := *s.Databases[name]
		got.Shape = db.Shape
		if !alikeDatabases(&got, db) {
			t.Fatalf("%s: database %s is\n%+v, not\n%+v", what, name, got, *db)
		}
	}
	if len(whole.Databases) != len(s.Databases) {
		t.Fatalf("%s: %d databases, not %d", what, len(s.Databases), len(whole.Databases))
	}
	if !slices.IsSortedFunc(s.Document.Shards, func(a, b *Shard) int { return cmp.Or(cmp.Compare(a.Database, b.Database), a.Ordinal-b.Ordinal) }) ||
		!slices.IsSortedFunc(s.Document.Nodes, func(a, b *Node) int {
			return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.Shard, b.Shard), a.Ordinal-b.Ordinal)
		}) {
		t.Fatalf("%s: shards or nodes are out of their order", what)
	}
	tables := inTables(t, &Tx{txn: c.db.Txn(false)})
	says(t, what, tables, s.Document)
	tables.Version, tables.Install, tables.Secret = s.Document.Version, s.Document.Install, s.Document.Secret
	if a, b := written(t, tables), written(t, s.Document); a != b {
		t.Fatalf("%s: what is written depends on who has read it:\n%s\n%s", what, a, b)
	}
}

// knowsItself fails if something of a database is of another one: of that before.
func knowsItself(t *testing.T, what string, d *DB) {
	t.Helper()
	for name, g := range d.Groups {
		if d.Placement(g).Group != g || g.Name != name {
			t.Fatalf("%s: the placement of group %s is another one's", what, name)
		}
	}
	for name, x := range d.Tables {
		if x.Group != nil && d.Groups[x.Group.Name] != x.Group {
			t.Fatalf("%s: the group of table %s is another one's", what, name)
		}
	}
	for i, s := range d.Shards {
		if found, _ := d.Shard(s.Name); found != s || s.Index != i {
			t.Fatalf("%s: shard %s is another one's", what, s.Name)
		}
	}
	if d.Home != nil && d.Home != d.Shards[d.Home.Index] {
		t.Fatalf("%s: home is another one's", what)
	}
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
	x.part, y.part, x.shapes, y.shapes = nil, nil, nil, nil // which may differ in empty lists
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

// A map that was compiled behind one that is not in force any more, as another came first, shares with that which is.
func TestAMapBehindAnotherThanTheOneInForceIsCompiledAnew(t *testing.T) {
	c, err := Open(t.Context(), &memory{doc: bigMap(2, 3, 2)}, "i")
	if err != nil {
		t.Fatal(err)
	}
	first := c.Current()
	third := *first.Document
	third.Version, third.Nodes = 3, third.Nodes[1:]
	late, err := compile(&third, first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Change(t.Context(), false, func(tx *Tx) error {
		return errors.Join(tx.Delete("tables", "d", "public", "t00002"), tx.PutTable(Table{Database: "d", Schema: "public", Name: "new", Kind: Reference}))
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.publish(late, first); err != nil {
		t.Fatal(err)
	}
	if d := c.Current().Databases["d"]; c.Current().Version != 3 || d.Shape != 1 || len(d.shapes) != 2 || len(d.Tables) != 3 { // the second had another
		t.Errorf("version %d, shapes %v, tables %v", c.Current().Version, d.shapes, d.Tables)
	}
	isWhole(t, "behind", c)
}

// What a hand has written into the file twice is there once, the last counts, and changes are taken into use as ever.
func TestOfTwoOfANameInTheFileTheLastCounts(t *testing.T) {
	doc := bigMap(2, 2, 2)
	again := *doc.Groups[3]
	doc.Groups = append(doc.Groups, &again)
	table := *doc.Tables[0]
	table.Lost = true
	doc.Tables = append(doc.Tables, &table)
	doc.Attempts = []*Attempt{{ID: "1", Database: "d"}, {ID: "1", Database: "other"}}
	c, err := Open(t.Context(), &memory{doc: doc, whole: true}, "i")
	if err != nil {
		t.Fatal(err)
	}
	if !c.Current().Databases["d"].Tables[table.TableName()].Lost {
		t.Error("the first table counts")
	}
	for i, edit := range []func(*Tx) error{
		func(tx *Tx) error { return tx.EndAttempt("1") },
		func(tx *Tx) error { return tx.SetSlots("d", "g3", SpreadSlots([]string{"s0001", "s0000"})) },
		func(tx *Tx) error {
			return errors.Join(tx.Delete("tables", "d", "public", "t00000"), tx.Delete("tables", "d", "public", "t00001"), tx.DropGroup("d", "g3"))
		},
	} {
		if _, err := c.Change(t.Context(), false, edit); err != nil || c.Current().Version != uint64(i)+2 {
			t.Fatalf("change %d: version %d, %v", i, c.Current().Version, err)
		}
	}
	isWhole(t, "two of a name", c)
	if d := c.Current().Databases["d"]; d.Groups["g3"] != nil || len(d.Tables) > 0 || len(c.Current().Document.Attempts) > 0 {
		t.Errorf("what was there twice is still there: %v, %v", d.Groups["g3"], d.Tables)
	}
}

// A map that is wrong in several ways has the same error each time: whoever waits for another one is not told anew.
func TestOfSeveralErrorsItIsAlwaysTheSame(t *testing.T) {
	doc := &Document{}
	for i := range 9 {
		doc.Databases = append(doc.Databases, &Database{Name: fmt.Sprint("d", i), Home: "none"})
	}
	for range 20 {
		if _, err := Compile(doc); err == nil || err.Error() != `shard "none" does not exist in database "d0"` {
			t.Fatal(err)
		}
	}
}

// How far the setting up is stays in the map, whatever is changed meanwhile, until it is done.
func TestTheSettingUpIsNotedUntilItIsDone(t *testing.T) {
	store := &memory{whole: true}
	c, err := Open(t.Context(), store, "i")
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []func() error{
		func() error { return c.SetUp(t.Context(), &Setup{Done: 1, Before: c.Current().Document.Declared()}) },
		func() error {
			_, err := c.Change(t.Context(), false, func(tx *Tx) error {
				return errors.Join(tx.PutDatabase(Database{Name: "d"}), tx.SetPins("d", "none", nil))
			})
			return err
		},
		func() error { return c.SetUp(t.Context(), nil) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		stored, err := store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if under := i < 2; (stored.Setup != nil) != under || (c.Current().Document.Setup != nil) != under {
			t.Errorf("step %d: the map has %+v, the store %+v", i, c.Current().Document.Setup, stored.Setup)
		}
	}
}

// An attempt goes on by its table of steps. Who has been away meanwhile takes no step back: a shard that has joined stays.
func TestAttemptsGoOnByTheirSteps(t *testing.T) {
	all := []Step{"", Joining, Joined, Placing}
	for _, from := range all {
		for _, to := range all {
			c, err := Open(t.Context(), &memory{}, "i")
			if err != nil {
				t.Fatal(err)
			}
			put := func(s Step) error {
				_, err := c.Change(t.Context(), false, func(tx *Tx) error { return tx.PutAttempt(Attempt{ID: "1", Database: "d", Step: s}) })
				return err
			}
			if _, err := c.Change(t.Context(), false, func(tx *Tx) error { return tx.PutDatabase(Database{Name: "d"}) }); err != nil {
				t.Fatal(err)
			}
			if err := put(from); err != nil {
				t.Fatal(err)
			}
			may := from == to || from == "" || to == "" && from != Joined || from == Joining && to == Joined
			if err := put(to); may != (err == nil) || err != nil && !errors.Is(err, ErrEnded) {
				t.Errorf("%q to %q: %v", from, to, err)
			}
		}
	}
}
