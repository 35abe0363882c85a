package copydata

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
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

// places is a group by a bigint over shards of these names.
func places(t testing.TB, shards ...string) *shardmap.PlacementInfo {
	t.Helper()
	doc := &shardmap.Document{
		Databases: []*shardmap.Database{{Name: "d", Home: shards[0]}},
		Groups:    []*shardmap.Group{{Database: "d", Name: "g", Scheme: shardmap.ByHash, Keys: []string{"bigint"}}},
	}
	for i, name := range shards {
		doc.Shards = append(doc.Shards, &shardmap.Shard{Database: "d", Name: name, Ordinal: i})
		doc.Nodes = append(doc.Nodes, &shardmap.Node{Database: "d", Shard: name, Name: name + "1"})
	}
	doc.Placements = []*shardmap.Placement{{Database: "d", Group: "g", Slots: shardmap.SpreadSlots(shards)}}
	snap, err := shardmap.Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	return snap.Databases["d"].Placement(snap.Databases["d"].Groups["g"])
}

// COPY data may come in any pieces: the shards get the same.
func FuzzSplitter(f *testing.F) {
	f.Add([]byte("a\t1\nb\t2\n"), byte(0), byte(3))
	f.Add([]byte("a,1\n\"b\n\",\"2\"\nc,3"), byte(1), byte(1))
	f.Add([]byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01a\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07\xff\xff"), byte(2), byte(5))
	f.Add([]byte("x\t\\\\\\\n\\\t5\nb\t\\N\n\\.\n"), byte(3), byte(2))
	g := places(f, "a", "b")
	f.Fuzz(func(t *testing.T, data []byte, format, size byte) {
		kind := FormatOf([]map[string]string{{}, {"format": "csv"}, {"format": "binary"}, {"header": "true"}, {"format": "csv", "escape": "\\", "header": "match"}}[format%5])
		whole, pieces := split(t, g, kind, data, max(len(data), 1)), split(t, g, kind, data, int(size)+1)
		if whole != pieces {
			t.Fatalf("in one piece: %s\nin pieces of %d: %s", whole, int(size)+1, pieces)
		}
	})
}

// A header is one record, of however many lines, and each shard gets it; behind \. nothing is a row.
func TestHeadersAndEndsOfWhatIsCopied(t *testing.T) {
	newer := []string{"18.1 (Debian 18.1-1)", "19beta2"}
	for _, c := range []struct {
		options    map[string]string
		data, rows string
		lines      int64
		servers    []string
	}{
		{map[string]string{"format": "csv", "header": "true"}, "\"a\nb\",k\nx,1\ny,1\n", "\"a\nb\",k\nx,1\ny,1\n", 4, nil},
		{map[string]string{"format": "csv", "header": "true"}, "a,k\nx,1\ny,1\n", "a,k\nx,1\ny,1\n", 3, nil},
		{map[string]string{"format": "csv"}, "x,1\n\\.\ny,1\n\"never ended", "x,1\n", 2, nil},
		{map[string]string{"format": "csv"}, "\\.,1\n", "\\.,1\n", 1, nil},
		{map[string]string{}, "x\t1\n\\.\ny\tbad\n", "x\t1\n", 2, nil},
		{map[string]string{}, "x\t1\\.\ny\tbad\n", "x\t1\\.\n", 1, nil},
		{map[string]string{"format": "csv"}, "x,1\n\\.\ny,1\n", "x,1\n", 2, []string{"17.6", "15.18 (Debian)"}},
		{map[string]string{"format": "csv"}, "x,1\n\\.,1\ny,1\n", "x,1\n\\.,1\ny,1\n", 3, newer},
		{map[string]string{"format": "csv", "header": "true"}, "\\.\ny,1\n", "\\.\ny,1\n", 2, newer},
		{map[string]string{}, "x\t1\n\\.\ny\tbad\n", "x\t1\n", 2, newer},
		{map[string]string{"header": "true"}, "\\.\ny\t1\n", "\\.\n", 1, nil},
	} {
		for _, size := range []int{1, 1000} {
			format := FormatOf(c.options)
			format.Mark = MarkOf(c.servers)
			s := New(format, places(t, "a"), []Key{{Column: "k", At: 1}}, []int{0})
			var out bytes.Buffer
			send := func(_ int, rows []byte) error {
				out.Write(rows)
				return nil
			}
			var err error
			for data := []byte(c.data); len(data) > 0 && err == nil; data = data[min(size, len(data)):] {
				n := min(size, len(data))
				err = s.Add(data[:n:n], send)
			}
			if err == nil {
				err = s.End(send)
			}
			if err != nil || out.String() != c.rows || s.line != c.lines {
				t.Errorf("%v %q: %q, %d lines, %v; want %q, %d", c.options, c.data, out.String(), s.line, err, c.rows, c.lines)
			}
			if line, ok := s.InputLine(0, s.line); strings.Count(c.rows, "\n") == int(s.line) && (!ok || line != s.line) {
				t.Errorf("%q: the last line is %d, %v", c.data, line, ok)
			}
		}
	}
}

// What follows a line that some servers take for the end is not dropped where others take it for a row: that is a row without a key then, or
// refused.
func TestALineThatEndsCSVForSomeServers(t *testing.T) {
	for _, c := range []struct {
		servers []string
		code    string
	}{
		{[]string{"18.0"}, pgsql.BadCopyFileFormat},
		{[]string{"18.0", "17.6"}, pgsql.FeatureNotSupported},
		{[]string{"17.6", "18.0"}, pgsql.FeatureNotSupported},
		{[]string{"devel"}, pgsql.FeatureNotSupported},
		{[]string{""}, pgsql.FeatureNotSupported},
		{[]string{"17.6"}, ""},
		{nil, ""},
	} {
		format := FormatOf(map[string]string{"format": "csv"})
		format.Mark = MarkOf(c.servers)
		s := New(format, places(t, "a"), []Key{{Column: "k", At: 1}}, []int{0})
		err := s.Add([]byte("x,1\n\\.\ny,1\n"), func(int, []byte) error { return nil })
		code := ""
		var pe *pgsql.Error
		if errors.As(err, &pe) {
			code = pe.Code
		}
		if code != c.code {
			t.Errorf("%v: %v, want %q", c.servers, err, c.code)
		}
	}
}

// A key that stands last in its row may end with what ends lines.
func TestLineEndsBehindABackslashAreAPartOfTheField(t *testing.T) {
	for _, c := range []struct{ row, key string }{
		{"1\tq\n", "q"}, {"1\tq\r\n", "q"}, {"1\tq\\\n\n", "q\n"}, {"1\tq\\\r\n", "q\r"}, {"1\tq\\\\\r\n", "q\\"}, {"1\tq\\\\\\\r\r\n", "q\\\r"}, {"1\tq\\\\\n", "q\\"}, {"1\t\\\r\n", "\r"},
	} {
		s := New(FormatOf(nil), nil, []Key{{Column: "k", At: 1}}, []int{0})
		if n := s.lineEnd([]byte(c.row)); n != len(c.row) {
			t.Errorf("%q ends at %d", c.row, n)
		}
		if s.fields(s.bare([]byte(c.row))); s.vals[0].text != c.key {
			t.Errorf("%q: key %q, want %q", c.row, s.vals[0].text, c.key)
		}
	}
}

// A long row costs what it is, in however many pieces it comes. It is counted while it is not whole, and may be refused.
func TestALongRowInManyPieces(t *testing.T) {
	const size, piece = 8 << 20, 512
	value := bytes.Repeat([]byte(`x"`+"\n"), size/3)
	for name, c := range map[string]struct {
		options map[string]string
		row     []byte
	}{
		"text":   {map[string]string{}, append(bytes.ReplaceAll(value, []byte("\n"), []byte("\\\n")), "\t1\n"...)},
		"csv":    {map[string]string{"format": "csv"}, append(append([]byte(`"`), bytes.ReplaceAll(value, []byte(`"`), []byte(`""`))...), "\",1\n"...)},
		"escape": {map[string]string{"format": "csv", "escape": `\`}, append(append([]byte(`"`), bytes.ReplaceAll(value, []byte(`"`), []byte(`\"`))...), "\",1\n"...)},
	} {
		s := New(FormatOf(c.options), places(t, "a"), []Key{{Column: "k", At: 1}}, []int{0})
		held, most, limit := int64(0), int64(0), int64(1<<40)
		s.Hold = func(n int64) error {
			if held+n > limit {
				return errors.New("too much")
			}
			held += n
			most = max(most, held)
			return nil
		}
		var out bytes.Buffer
		send := func(_ int, rows []byte) error {
			out.Write(rows)
			return nil
		}
		add := func() (err error) {
			for data := c.row; len(data) > 0 && err == nil; data = data[min(piece, len(data)):] {
				err = s.Add(data[:min(piece, len(data))], send)
			}
			return err
		}
		out.Grow(2 * len(c.row))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := errors.Join(add(), add()); err != nil {
			t.Fatal(name, err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 10*uint64(len(c.row)) {
			t.Errorf("%s: %d MB were allocated for two rows of %d MB", name, n>>20, len(c.row)>>20)
		}
		if !bytes.Equal(out.Bytes(), append(bytes.Clone(c.row), c.row...)) {
			t.Errorf("%s: the rows are others", name)
		}
		if held != 0 || most < int64(len(c.row)) || most > 3*int64(len(c.row)) {
			t.Errorf("%s: %d bytes are counted, there were %d", name, held, most)
		}
		if limit = size / 2; add() == nil {
			t.Errorf("%s: a row is longer than may be", name)
		}
		if s.Forget(); held != 0 {
			t.Errorf("%s: %d bytes are counted when the row is forgotten", name, held)
		}
	}
}
