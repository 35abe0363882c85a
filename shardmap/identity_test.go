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
