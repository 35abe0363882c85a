package merge

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"sort"
	"strconv"
	"unsafe"
)

// Source gives the rows of one shard. Next returns the values of the next row, valid until the following
// call, and io.EOF behind the last.
type Source interface {
	Next() ([][]byte, error)
}

// Window is OFFSET and LIMIT.
type Window struct {
	Offset int64
	Limit  int64
	All    bool // no limit
}

// errDone ends a merge whose LIMIT is met.
var errDone = errors.New("limit")

func (w *Window) pass(emit func([][]byte) error, row [][]byte) error {
	if w.Offset > 0 {
		w.Offset--
		return nil
	}
	if !w.All {
		if w.Limit <= 0 {
			return errDone
		}
		w.Limit--
	}
	if err := emit(row); err != nil {
		return err
	}
	if !w.All && w.Limit == 0 {
		return errDone
	}
	return nil
}

func stop(err error) error {
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// Concat passes the rows of each source in turn.
func Concat(sources []Source, w Window, emit func([][]byte) error) error {
	for _, s := range sources {
		for {
			row, err := s.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				err = w.pass(emit, row)
			}
			if err != nil {
				return stop(err)
			}
		}
	}
	return nil
}

// Ordered merges sources that are sorted by keys. Rows that compare equal come in the sources' order.
func Ordered(sources []Source, keys []Key, w Window, emit func([][]byte) error) error {
	h := &heads{keys: keys}
	for i, s := range sources {
		row, err := s.Next()
		if errors.Is(err, io.EOF) {
			continue
		}
		if err != nil {
			return err
		}
		h.list = append(h.list, head{row, s, i})
	}
	heap.Init(h)
	for len(h.list) > 0 {
		top := &h.list[0]
		if err := w.pass(emit, top.row); err != nil {
			return stop(err)
		}
		row, err := top.src.Next()
		switch {
		case errors.Is(err, io.EOF):
			heap.Pop(h)
		case err != nil:
			return err
		default:
			top.row = row
			heap.Fix(h, 0)
		}
	}
	return nil
}

type head struct {
	row [][]byte
	src Source
	n   int
}

type heads struct {
	keys []Key
	list []head
}

func (h *heads) Len() int { return len(h.list) }
func (h *heads) Less(i, j int) bool {
	c := compareRows(h.keys, h.list[i].row, h.list[j].row)
	return c < 0 || c == 0 && h.list[i].n < h.list[j].n
}
func (h *heads) Swap(i, j int) { h.list[i], h.list[j] = h.list[j], h.list[i] }
func (h *heads) Push(x any)    { h.list = append(h.list, x.(head)) }
func (h *heads) Pop() any {
	x := h.list[len(h.list)-1]
	h.list = h.list[:len(h.list)-1]
	return x
}

// Column says how one visible column of an aggregate is made. Positions count all columns of a shard's row.
type Column struct {
	Func    Aggregate // nil for a grouping expression
	OID     uint32    // of the visible column as the shards send it
	Result  uint32    // of the column as the client gets it
	At      int       // the visible column
	Hidden  int       // its binary copy, or the first of its further parts; -1: none
	Binary  bool      // the client wants it in binary
	Compare Compare
}

// groupCost is about what a group costs beside its values, columnCost each of its columns, which is twice in the group's row, and madeCost a value that is
// made of the shards'.
const groupCost, columnCost, madeCost = 128, int(unsafe.Sizeof(Accumulator{}) + 2*unsafe.Sizeof([]byte{})), 64

// Groups combines the groups of all sources, sorts them by order (whose columns are visible ones, compared
// by what compare says) and passes them on. take is asked for every group's memory, in bytes; its error ends the merge.
func Groups(sources []Source, cols []Column, order []Key, w Window, take func(bytes int) error, emit func([][]byte) error) error {
	groups := map[string][]Accumulator{}
	var ordered []string
	var key []byte
	cost := groupCost + len(cols)*columnCost
	for _, c := range cols {
		if c.Func != nil && !c.Func.Compares() {
			cost += madeCost
		}
	}
	for _, s := range sources {
		for {
			row, err := s.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			key = key[:0]
			for _, c := range cols {
				if c.Func == nil {
					v := row[c.Hidden]
					if v == nil {
						key = append(key, 0xff, 0xff, 0xff, 0xff)
						continue
					}
					v = Canonical(c.OID, v)
					key = binary.BigEndian.AppendUint32(key, uint32(len(v)))
					key = append(key, v...)
				}
			}
			acc, ok := groups[string(key)]
			if !ok {
				size := cost + 2*len(key)
				for _, v := range row {
					size += len(v)
				}
				if err := take(size); err != nil {
					return err
				}
				acc = make([]Accumulator, len(cols))
				groups[string(key)] = acc
				ordered = append(ordered, string(key))
			}
			for i := range cols {
				switch c, a := &cols[i], &acc[i]; {
				case c.Func != nil:
					held := a.held()
					if err := c.Func.Add(a, c, row); err != nil {
						return err
					}
					if more := a.held() - held; ok && more > 0 { // what a new group holds is counted
						if err := take(more); err != nil {
							return err
						}
					}
				case !a.any:
					a.keep(c, row)
				}
			}
		}
	}
	return finish(groups, ordered, cols, order, w, emit)
}

func formatNumeric(d Decimal, bin bool) (b, out []byte) {
	b = d.Binary()
	if bin {
		return b, b
	}
	return b, []byte(d.Text())
}

func formatFloat(f float64, oid uint32, bin bool) (b, out []byte) {
	bits := 64
	if oid == Float4 {
		bits = 32
		b = binary.BigEndian.AppendUint32(nil, math.Float32bits(float32(f)))
	} else {
		b = binary.BigEndian.AppendUint64(nil, math.Float64bits(f))
	}
	if bin {
		return b, b
	}
	return b, []byte(FloatText(f, bits))
}

// FloatText prints a float as PostgreSQL does with extra_float_digits above 0: the shortest digits that
// read back the same, with an exponent outside 1e-4 to 1e15 (1e6 for float4).
func FloatText(f float64, bits int) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	e := strconv.FormatFloat(f, 'e', -1, bits)
	i := len(e) - 1
	for e[i] != 'e' {
		i--
	}
	exp, _ := strconv.Atoi(e[i+1:])
	limit := 15
	if bits == 32 {
		limit = 6
	}
	if exp < -4 || exp >= limit {
		return e
	}
	return strconv.FormatFloat(f, 'f', -1, bits)
}

func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

func finish(groups map[string][]Accumulator, ordered []string, cols []Column, order []Key, w Window, emit func([][]byte) error) error {
	type row struct{ bin, out [][]byte }
	rows := make([]row, len(ordered))
	for i, k := range ordered {
		r := row{make([][]byte, len(cols)), make([][]byte, len(cols))}
		for j := range cols {
			a, c := &groups[k][j], &cols[j]
			if c.Func == nil {
				r.bin[j], r.out[j] = a.binary, a.visible
			} else {
				r.bin[j], r.out[j] = c.Func.Result(a, c)
			}
		}
		rows[i] = r
	}
	if len(order) > 0 {
		sort.SliceStable(rows, func(i, j int) bool { return compareRows(order, rows[i].bin, rows[j].bin) < 0 })
	}
	for _, r := range rows {
		if err := w.pass(emit, r.out); err != nil {
			return stop(err)
		}
	}
	return nil
}
