package copydata

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// split runs a splitter over data that comes in pieces of the given size.
func split(t testing.TB, g *shardmap.PlacementInfo, format Format, data []byte, size int) string {
	s := New(format, g, []Key{{Column: "k", At: 1}}, []int{0, 1})
	var out [2]bytes.Buffer
	send := func(i int, rows []byte) error {
		out[i].Write(rows)
		return nil
	}
	var err error
	for len(data) > 0 && err == nil {
		n := min(size, len(data))
		err = s.Add(data[:n:n], send)
		data = data[n:]
	}
	if err == nil {
		err = s.End(send)
	}
	if err != nil {
		return "error: " + err.Error()
	}
	if s.sent[0].last > s.line || s.sent[1].last > s.line {
		t.Fatal("a line behind the last")
	}
	return fmt.Sprintf("%q %q %d", out[0].Bytes(), out[1].Bytes(), s.line)
}

// COPY data may come in any pieces: the shards get the same.
func FuzzSplitter(f *testing.F) {
	f.Add([]byte("a\t1\nb\t2\n"), byte(0), byte(3))
	f.Add([]byte("a,1\n\"b\n\",\"2\"\nc,3"), byte(1), byte(1))
	f.Add([]byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01a\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07\xff\xff"), byte(2), byte(5))
	f.Add([]byte("x\t\\\\\\\n\\\t5\nb\t\\N\n\\.\n"), byte(3), byte(2))
	doc := &shardmap.Document{
		Databases: []*shardmap.Database{{Name: "d", Home: "a"}}, Shards: []*shardmap.Shard{{Database: "d", Name: "a"}, {Database: "d", Name: "b", Ordinal: 1}},
		Nodes:  []*shardmap.Node{{Database: "d", Shard: "a", Name: "a1"}, {Database: "d", Shard: "b", Name: "b1"}},
		Groups: []*shardmap.Group{{Database: "d", Name: "g", Scheme: shardmap.ByHash, Keys: []string{"bigint"}}},
	}
	doc.Placements = []*shardmap.Placement{{Database: "d", Group: "g", Slots: shardmap.SpreadSlots([]string{"a", "b"})}}
	snap, err := shardmap.Compile(doc)
	if err != nil {
		f.Fatal(err)
	}
	g := snap.Databases["d"].Placement(snap.Databases["d"].Groups["g"])
	f.Fuzz(func(t *testing.T, data []byte, format, size byte) {
		kind := FormatOf([]map[string]string{{}, {"format": "csv"}, {"format": "binary"}, {"header": "true"}, {"format": "csv", "escape": "\\", "header": "match"}}[format%5])
		whole, pieces := split(t, g, kind, data, max(len(data), 1)), split(t, g, kind, data, int(size)+1)
		if whole != pieces {
			t.Fatalf("in one piece: %s\nin pieces of %d: %s", whole, int(size)+1, pieces)
		}
	})
}
