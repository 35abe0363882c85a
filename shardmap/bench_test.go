package shardmap

import (
	"fmt"
	"slices"
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// bigMap is a map of ten hash groups, over which the tables are spread, with three nodes a shard.
func bigMap(shards, tables, runs int) *Document {
	doc := &Document{Version: 1, Install: "i", Secret: "s", Databases: []*Database{{Name: "d", Home: "s0000"}}}
	for i := range shards {
		name := fmt.Sprintf("s%04d", i)
		doc.Shards = append(doc.Shards, &Shard{Database: "d", Name: name, Ordinal: i})
		for j := range 3 {
			doc.Nodes = append(doc.Nodes, &Node{Database: "d", Shard: name, Name: fmt.Sprint(name, j), DSN: "postgres://pgmosaic:secret@" + name + ".example:5432/d", Ordinal: j})
		}
	}
	for g := range 10 {
		p := &Placement{Database: "d", Group: fmt.Sprint("g", g)}
		for i := range runs {
			p.Slots = append(p.Slots, SlotRun{i * pghash.Slots / runs, (i+1)*pghash.Slots/runs - 1, fmt.Sprintf("s%04d", i%shards)})
		}
		doc.Groups = append(doc.Groups, &Group{Database: "d", Name: p.Group, Scheme: ByHash, Keys: []string{"bigint"}})
		doc.Placements = append(doc.Placements, p)
	}
	for i := range tables {
		doc.Tables = append(doc.Tables, &Table{Database: "d", Schema: "public", Name: fmt.Sprintf("t%05d", i), Kind: Sharded, Group: fmt.Sprint("g", i%10), Key: []string{"id"}})
	}
	return doc
}

// One run of slots gets another shard: from the edit to the snapshot that is in use, but for what the store does. Its cost is that of the
// group, whatever the map has besides.
func BenchmarkMapChange(b *testing.B) {
	for _, size := range []struct{ shards, tables, runs int }{{10, 100, 10}, {1000, 1000, 1000}, {1000, 10000, 1000}, {1000, 10000, pghash.Slots}} {
		b.Run(fmt.Sprintf("shards=%d/tables=%d/runs=%d", size.shards, size.tables, size.runs), func(b *testing.B) {
			c, err := Open(b.Context(), &memory{doc: bigMap(size.shards, size.tables, size.runs)}, "i")
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d := c.Current().Databases["d"]
				runs := slices.Clone(d.Placement(d.Groups["g3"]).Slots)
				runs[i%len(runs)].Shard = fmt.Sprintf("s%04d", i*7%size.shards)
				if _, err := c.Change(b.Context(), false, func(tx *Tx) error { return tx.SetSlots("d", "g3", runs) }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
