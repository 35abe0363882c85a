package shardmap

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
)

// A file may have the parts of placements in any order, and their numbers with gaps; what is written is in order, and has been for ever.
func TestPartsOfPlacementsAreReadInAnyOrder(t *testing.T) {
	doc := &Document{Version: 1, Install: "i", Placements: []*Placement{
		{Database: "d", Group: "h", Slots: []SlotRun{{0, 9, "a"}, {10, 99, "b"}, {100, 16383, "a"}}, Pins: []Pin{{[]string{"1"}, "a"}, {[]string{"2"}, "b"}}},
		{Database: "d", Group: "l", Lists: []List{{Values: []string{"x"}, Shard: "b"}, {Values: []string{"y"}, Default: true, Shard: "a"}}},
		{Database: "d", Group: "r", Ranges: []Range{{Shard: "a"}, {[]string{"5"}, "b"}, {[]string{"9"}, "a"}}},
		{Database: "e", Group: "h", Slots: []SlotRun{{0, 16383, "a"}}},
	}}
	const want = `{"version":1,"install":"i","databases":null,"shards":null,"nodes":null,"groups":null,"slots":[` +
		`{"database":"d","group":"h","from":0,"to":9,"shard":"a"},{"database":"d","group":"h","from":10,"to":99,"shard":"b"},` +
		`{"database":"d","group":"h","from":100,"to":16383,"shard":"a"},{"database":"e","group":"h","from":0,"to":16383,"shard":"a"}],"ranges":[` +
		`{"database":"d","group":"r","ordinal":0,"from":null,"shard":"a"},{"database":"d","group":"r","ordinal":1,"from":["5"],"shard":"b"},{"database":"d","group":"r","ordinal":2,"from":["9"],"shard":"a"}],"lists":[` +
		`{"database":"d","group":"l","ordinal":0,"values":["x"],"shard":"b"},{"database":"d","group":"l","ordinal":1,"values":["y"],"default":true,"shard":"a"}],"pins":[` +
		`{"database":"d","group":"h","ordinal":0,"key":["1"],"shard":"a"},{"database":"d","group":"h","ordinal":1,"key":["2"],"shard":"b"}],"tables":null}`
	if got := written(t, doc); got != want {
		t.Fatalf("what is written is\n%s\nnot\n%s", got, want)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		var file map[string]any
		if err := json.Unmarshal([]byte(want), &file); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"slots", "ranges", "lists", "pins"} {
			parts := file[kind].([]any)
			r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
			for _, p := range parts {
				if n, ok := p.(map[string]any)["ordinal"].(float64); ok {
					p.(map[string]any)["ordinal"] = 10*n + 3
				}
			}
		}
		b, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		got := &Document{}
		if err := json.Unmarshal(b, got); err != nil || !reflect.DeepEqual(got, doc) {
			t.Fatalf("%s\nis read as\n%s (%v)", b, written(t, got), err)
		}
	}
}

// Where a key is is the map's word that is asked, whichever map its group is of.
func TestAGroupOfAnotherMapStandsForTheOneOfItsName(t *testing.T) {
	c, err := Open(t.Context(), &memory{doc: bigMap(2, 2, 2)}, "i")
	if err != nil {
		t.Fatal(err)
	}
	was := c.Current().Databases["d"]
	if _, err := c.Change(t.Context(), false, func(tx *Tx) error {
		return errors.Join(tx.DropGroup("d", "g4"), tx.PutTenant(Tenant{Database: "d", Schema: "t", Shard: "s0001"}), tx.SetSlots("d", "g9", []SlotRun{{0, 16383, "s0001"}}))
	}); err != nil {
		t.Fatal(err)
	}
	is := c.Current().Databases["d"]
	for _, x := range [][2]*DB{{was, is}, {is, was}} {
		for name, g := range x[0].Groups {
			if own := x[1].Groups[name]; own != nil && (x[1].Placement(g) != x[1].Placement(own) || x[1].Placement(g).Group != own) {
				t.Errorf("group %s has the placement of %s", name, x[1].Placement(g).Group.Name)
			}
		}
	}
	if got := was.Placement(is.Tenant("t")).Shards(); !reflect.DeepEqual(got, []int{1}) {
		t.Errorf("the schema is on %v", got)
	}
}

// A map that an older version wrote gets its secret with the next change, and keeps it.
func TestAMapWithoutASecretGetsOne(t *testing.T) {
	doc := bigMap(1, 1, 1)
	doc.Secret = ""
	c, err := Open(t.Context(), &memory{doc: doc, whole: true}, "i")
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for range 2 {
		if err := c.SetUp(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		have = append(have, c.Current().Document.Secret)
	}
	if len(have[0]) != 64 || have[1] != have[0] || doc.Secret != "" {
		t.Errorf("%q, then %q", have[0], have[1])
	}
}
