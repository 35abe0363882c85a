package shardmap

import (
	"strings"
	"testing"
)

func TestOnlyTheShardsOwnDatabaseIsTakenForIt(t *testing.T) {
	compile := func(marked bool, shards ...string) *Snapshot {
		doc := &Document{Install: "me", Databases: []*Database{{Name: "shop"}}}
		for i, s := range shards {
			doc.Shards = append(doc.Shards, &Shard{Database: "shop", Name: s, Ordinal: i, Marked: marked})
			doc.Nodes = append(doc.Nodes, &Node{Database: "shop", Shard: s, Name: s, DSN: "x"})
			doc.Databases[0].Home = shards[0]
		}
		snap, err := Compile(doc)
		if err != nil {
			t.Fatal(err)
		}
		return snap
	}
	for _, c := range []struct {
		name string
		snap *Snapshot
		says Identity
		want string // in the error; empty for none
	}{
		{"itself", compile(true, "s1", "s2"), Identity{"me", "shop", "s2"}, ""},
		{"another shard", compile(true, "s1", "s2"), Identity{"me", "shop", "s1"}, "it is shard s1 of database shop, not shard s2 of database shop"},
		{"another database", compile(true, "s1", "s2"), Identity{"me", "till", "s2"}, "it is shard s2 of database till, not"},
		{"another installation", compile(true, "s1", "s2"), Identity{"you", "shop", "s2"}, "of the installation you"},
		{"silence", compile(true, "s1", "s2"), Identity{}, "does not say"},
		{"silence before it was told", compile(false, "s1", "s2"), Identity{}, ""},
		{"another shard before it was told", compile(false, "s1", "s2"), Identity{"me", "shop", "s1"}, "it is shard s1"},
		{"the only shard", compile(true, "s2"), Identity{"you", "shop", "s1"}, ""},
	} {
		err := c.snap.Expected("shop", "s2").Judge(c.says)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// Maps that say the same have the same fingerprint, whatever their version is and a process has found out by itself; others have not.
func TestFingerprintIsWhatTheMapSays(t *testing.T) {
	of := func(edit func(*Document)) uint64 {
		doc := &Document{
			Version: 3, Install: "me", Secret: "s", Databases: []*Database{{Name: "shop", Home: "s1"}},
			Shards: []*Shard{{Database: "shop", Name: "s1"}}, Nodes: []*Node{{Database: "shop", Shard: "s1", Name: "s1-a", DSN: "x"}},
			Tables: []*Table{{Database: "shop", Schema: "public", Name: "t", Kind: Reference}},
		}
		edit(doc)
		snap, err := Compile(doc)
		if err != nil {
			t.Fatal(err)
		}
		return snap.Fingerprint()
	}
	want := of(func(*Document) {})
	if want == 0 || want >= 1<<48 || float64(want) != float64(int64(want)) {
		t.Errorf("%d", want)
	}
	for name, x := range map[string]struct {
		edit func(*Document)
		same bool
	}{
		"the version":          {func(d *Document) { d.Version = 9 }, true},
		"what was found out":   {func(d *Document) { d.Shards[0].System, d.Shards[0].Marked, d.Nodes[0].Barred = "7", true, true }, true},
		"empty lists":          {func(d *Document) { d.Tenants, d.Placements = []*Tenant{}, []*Placement{} }, true},
		"another table":        {func(d *Document) { d.Tables[0].Name = "u" }, false},
		"another node":         {func(d *Document) { d.Nodes[0].DSN = "y" }, false},
		"another installation": {func(d *Document) { d.Install = "you" }, false},
		"another secret":       {func(d *Document) { d.Secret = "z" }, false},
	} {
		if got := of(x.edit); (got == want) != x.same {
			t.Errorf("%s: %012x and %012x", name, got, want)
		}
	}
}
