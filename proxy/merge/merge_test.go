package merge

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"
)

// list is a source that overwrites the row it gave, as a network buffer would.
type list struct {
	rows [][][]byte
	last [][]byte
}

func (l *list) Next() ([][]byte, error) {
	for _, v := range l.last {
		for i := range v {
			v[i] = 0xAA
		}
	}
	if len(l.rows) == 0 {
		return nil, io.EOF
	}
	var row [][]byte
	for _, v := range l.rows[0] {
		row = append(row, clone(v))
	}
	l.rows, l.last = l.rows[1:], row
	return row, nil
}

func int8of(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func TestOrderedEqualsSorting(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 200 {
		keys := []Key{{Column: 0, Desc: round%2 == 1, NullsFirst: round%3 == 0}, {Column: 1, Desc: round%5 == 0}}
		for i := range keys {
			keys[i].Compare, _ = ComparatorFor(Int8, false)
		}
		var all [][][]byte
		sources := make([]*list, 1+rng.IntN(5))
		for i := range sources {
			sources[i] = &list{}
			for range rng.IntN(30) {
				row := [][]byte{int8of(int64(rng.IntN(7) - 3)), int8of(int64(rng.IntN(100)))}
				if rng.IntN(5) == 0 {
					row[0] = nil
				}
				sources[i].rows = append(sources[i].rows, row)
				all = append(all, row)
			}
			sort.SliceStable(sources[i].rows, func(a, b int) bool { return compareRows(keys, sources[i].rows[a], sources[i].rows[b]) < 0 })
		}
		sort.SliceStable(all, func(a, b int) bool { return compareRows(keys, all[a], all[b]) < 0 })
		w := Window{Offset: int64(rng.IntN(5)), Limit: int64(rng.IntN(40)), All: rng.IntN(2) == 0}
		want := all[min(int(w.Offset), len(all)):]
		if !w.All {
			want = want[:min(int(w.Limit), len(want))]
		}
		var src []Source
		for _, s := range sources {
			src = append(src, s)
		}
		n := 0
		err := Ordered(src, keys, w, func(row [][]byte) error {
			if n >= len(want) || compareRows(keys, row, want[n]) != 0 {
				t.Fatalf("round %d: row %d differs", round, n)
			}
			n++
			return nil
		})
		if err != nil || n != len(want) {
			t.Fatalf("round %d: %v, %d rows of %d", round, err, n, len(want))
		}
	}
}

func TestFloatsAndNumericsCompareAsInPostgreSQL(t *testing.T) {
	f, _ := ComparatorFor(Float8, false)
	b := func(x float64) []byte { return binary.BigEndian.AppendUint64(nil, math.Float64bits(x)) }
	order := []float64{math.Inf(-1), -1, 0, 1, math.Inf(1), math.NaN()}
	for i := range order {
		for j := range order {
			want := sign(i - j)
			if got := f(b(order[i]), b(order[j])); got != want {
				t.Errorf("%v <=> %v = %d", order[i], order[j], got)
			}
		}
	}
	if f(b(0), b(math.Copysign(0, -1))) != 0 || string(Canonical(Float8, b(0))) != string(Canonical(Float8, b(math.Copysign(0, -1)))) {
		t.Error("0 and -0 differ")
	}
	one, two := dec("1.0"), dec("1.00")
	if string(Canonical(Numeric, one.Binary())) != string(Canonical(Numeric, two.Binary())) || compareNumeric(one.Binary(), two.Binary()) != 0 {
		t.Error("1.0 and 1.00 differ")
	}
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

// dec reads plain decimal notation.
func dec(s string) Decimal {
	scale := 0
	if i := strings.IndexByte(s, '.'); i >= 0 {
		scale = len(s) - i - 1
		s = s[:i] + s[i+1:]
	}
	n, ok := new(big.Int).SetString(s, 10)
	if !ok {
		panic(s)
	}
	return Decimal{Unscaled: n, Scale: scale}
}

func FuzzNumeric(f *testing.F) {
	f.Add(int64(-12345), uint8(2), int64(7))
	f.Add(int64(0), uint8(0), int64(1))
	f.Add(int64(99999999), uint8(4), int64(3))
	f.Fuzz(func(t *testing.T, n int64, scale uint8, by int64) {
		d := Decimal{Unscaled: big.NewInt(n), Scale: int(scale % 40)}
		back, ok := DecodeNumeric(d.Binary())
		if !ok || back.Text() != d.Text() {
			t.Fatalf("%s became %s", d.Text(), back.Text())
		}
		if by == 0 {
			return
		}
		q := d.DivInt(by)
		err := new(big.Int).Sub(new(big.Int).Mul(q.Unscaled, big.NewInt(by)), d.at(max(q.Scale, d.Scale)))
		if q.Scale >= d.Scale && new(big.Int).Abs(err.Lsh(err, 1)).Cmp(new(big.Int).Abs(big.NewInt(by))) > 0 {
			t.Fatalf("%s / %d = %s is not the nearest", d.Text(), by, q.Text())
		}
	})
}

// The scales are those that PostgreSQL 15 printed.
func TestDivisionHasPostgreSQLsScale(t *testing.T) {
	for _, c := range []struct {
		a    string
		n    int64
		want string
	}{
		{"10", 3, "3.3333333333333333"},
		{"1", 3, "0.33333333333333333333"},
		{"1000000", 3, "333333.333333333333"},
		{"0", 7, "0.00000000000000000000"},
		{"2.50", 2, "1.25000000000000000000"},
		{"-1", 6, "-0.16666666666666666667"},
		{"123456789012345678901234567890", 7, "17636684144620811271604938270"},
	} {
		if got := dec(c.a).DivInt(c.n).Text(); got != c.want {
			t.Errorf("%s / %d = %s, want %s", c.a, c.n, got, c.want)
		}
	}
}

func TestAggregateCombinesPartialResults(t *testing.T) {
	cmp, _ := ComparatorFor(Int8, false)
	cols := []Column{
		{OID: Text, At: 0, Hidden: 5},
		{Func: Aggregates["count"], OID: Int8, At: 1, Hidden: -1},
		{Func: Aggregates["sum"], OID: Numeric, At: 2, Hidden: -1},
		{Func: Aggregates["max"], OID: Int8, At: 3, Hidden: 6, Compare: cmp},
		{Func: Aggregates["avg"], OID: Int8, At: 4, Hidden: 7},
	}
	row := func(g string, count int64, sum string, maxText string, maxVal int64, s, n int64) [][]byte {
		return [][]byte{[]byte(g), int8of(count), dec(sum).Binary(), []byte(maxText), int8of(s), []byte(g), int8of(maxVal), int8of(n)}
	}
	a := &list{rows: [][][]byte{row("x", 2, "1.50", "9", 9, 10, 2), row("y", 1, "1", "1", 1, 1, 1)}}
	b := &list{rows: [][][]byte{row("x", 3, "0.5", "12", 12, 5, 3)}}
	b.rows = append(b.rows, [][]byte{nil, int8of(4), nil, nil, nil, nil, nil, int8of(0)})
	var got []string
	text, _ := ComparatorFor(Text, true)
	err := Groups([]Source{a, b}, cols, []Key{{Column: 0, Compare: text}}, Window{All: true}, func(int) error { return nil }, func(r [][]byte) error {
		var s []string
		for _, v := range r {
			if v == nil {
				s = append(s, "null")
			} else {
				s = append(s, string(v))
			}
		}
		got = append(got, strings.Join(s, " "))
		return nil
	})
	want := "[x 5 2.00 12 3.0000000000000000 y 1 1 1 1.00000000000000000000 null 4 null null null]"
	if err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v\n%v\nwant %s", err, got, want)
	}
}

// PostgreSQL takes the first value of a sum as it is, and begins an average with 0.
func TestZerosKeepTheirSignInSums(t *testing.T) {
	minus := math.Copysign(0, -1)
	for _, oid := range []uint32{Float4, Float8} {
		value := func(f float64) []byte {
			if oid == Float4 {
				return binary.BigEndian.AppendUint32(nil, math.Float32bits(float32(f)))
			}
			return binary.BigEndian.AppendUint64(nil, math.Float64bits(f))
		}
		for _, c := range []struct {
			of       []float64
			sum, avg bool // negative
		}{{[]float64{minus}, true, false}, {[]float64{minus, minus, minus}, true, false}, {[]float64{minus, 0}, false, false}, {[]float64{0, minus}, false, false}, {[]float64{minus, -2}, true, true}} {
			var s, v Accumulator
			column := &Column{At: 0, Hidden: 1, OID: oid, Binary: true}
			for _, f := range c.of {
				row := [][]byte{value(f), int8of(1)}
				if err := Aggregates["sum"].Add(&s, column, row); err != nil {
					t.Fatal(err)
				}
				if err := Aggregates["avg"].Add(&v, column, row); err != nil {
					t.Fatal(err)
				}
			}
			sum, _ := Aggregates["sum"].Result(&s, column)
			if math.Signbit(float(sum)) != c.sum {
				t.Errorf("the sum of %v of type %d is %v", c.of, oid, float(sum))
			}
			if oid == Float4 { // whose average is not made of sums
				continue
			}
			if avg, _ := Aggregates["avg"].Result(&v, column); math.Signbit(float(avg)) != c.avg {
				t.Errorf("the average of %v is %v", c.of, float(avg))
			}
		}
	}
}
