package merge

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
)

// made is a source whose rows are made as they are asked for.
type made struct {
	n   int
	row func(i int) [][]byte
	i   int
}

func (m *made) Next() ([][]byte, error) {
	if m.i == m.n {
		return nil, io.EOF
	}
	m.i++
	return m.row(m.i - 1), nil
}

// last looks at the heap when the last group's value is asked for: all that the merge holds is there.
type last struct {
	Aggregate
	left  *int
	holds *int64
}

func (l last) Result(a *Accumulator, c *Column) (bin, out []byte) {
	bin, out = l.Aggregate.Result(a, c)
	if *l.left--; *l.left == 0 {
		*l.holds = lives()
	}
	return bin, out
}

func lives() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What groups are said to hold is what they hold, whatever they are made of: also of a value that grows behind the first.
func TestGroupsAreWeighedTruly(t *testing.T) {
	bytesOf := func(n int) []byte { return []byte(strings.Repeat("x", n)) }
	compare, _ := ComparatorFor(Bytea, false)
	key := Column{OID: Int8, At: 0, Hidden: 1}
	wide := Column{OID: Bytea, At: 0, Hidden: 1}
	of := func(name string, oid uint32) Column {
		return Column{Func: Aggregates[name], OID: oid, Result: oid, At: 2, Hidden: 3, Compare: compare}
	}
	numeric := FromInt(1234567890123).Binary()
	for _, x := range []struct {
		what string
		n    int
		cols []Column
		row  func(i int) [][]byte
	}{
		{"duplicates of a number", 50000, []Column{key, of("count", Int8)}, func(i int) [][]byte { return [][]byte{[]byte(fmt.Sprint(i)), int8of(int64(i)), int8of(1), nil} }},
		{"duplicates of long values", 3000, []Column{wide, of("count", Int8)}, func(i int) [][]byte {
			v := append(bytesOf(2000), fmt.Sprint(i)...)
			return [][]byte{v, v, int8of(1), nil}
		}},
		{"sums", 30000, []Column{key, of("sum", Numeric), of("sum", Numeric), of("sum", Int8)}, func(i int) [][]byte {
			return [][]byte{[]byte(fmt.Sprint(i)), int8of(int64(i)), numeric, nil}
		}},
		{"averages", 30000, []Column{key, of("avg", Numeric)}, func(i int) [][]byte {
			return [][]byte{[]byte(fmt.Sprint(i)), int8of(int64(i)), numeric, int8of(7)}
		}},
		{"one key, many columns", 10000, []Column{key, of("count", Int8), of("count", Int8), of("count", Int8), of("count", Int8), of("count", Int8), of("count", Int8), of("count", Int8), of("count", Int8)}, func(i int) [][]byte {
			return [][]byte{[]byte(fmt.Sprint(i)), int8of(int64(i)), int8of(1), nil}
		}},
		{"greatest values", 3000, []Column{key, of("max", Bytea)}, func(i int) [][]byte {
			return [][]byte{[]byte(fmt.Sprint(i)), int8of(int64(i)), bytesOf(1000), bytesOf(1000)}
		}},
		{"greatest values that grow", 3000, []Column{key, of("max", Bytea)}, func(i int) [][]byte {
			n := 1 + i/3000*1000 // of the second shard's
			return [][]byte{[]byte(fmt.Sprint(i % 3000)), int8of(int64(i % 3000)), bytesOf(n), bytesOf(n)}
		}},
	} {
		all := 0
		for i := range x.cols {
			if x.cols[i].Func != nil {
				all += x.n
			}
		}
		var holds int64
		for i := range x.cols {
			if x.cols[i].Func != nil {
				x.cols[i].Func = last{x.cols[i].Func, &all, &holds}
			}
		}
		rows := x.n
		if strings.HasSuffix(x.what, "grow") {
			rows *= 2
		}
		before, said, groups := lives(), int64(0), 0
		err := Groups([]Source{&made{n: rows, row: x.row}}, x.cols, nil, Window{All: true}, func(n int) error { said += int64(n); return nil }, func([][]byte) error { groups++; return nil })
		if err != nil || groups != x.n {
			t.Fatalf("%s: %d groups: %v", x.what, groups, err)
		}
		holds -= before
		t.Logf("%-26s hold %8d bytes, said %8d", x.what, holds, said)
		if said*3 < holds*2 || said*2 > holds*3 {
			t.Errorf("%s: %d groups hold %d bytes, and are said to hold %d", x.what, x.n, holds, said)
		}
	}
}
