package merge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Aggregate is an aggregate that the groups of several shards are combined for. Those that there are stand in Aggregates: another one is a type
// that implements this, and a row there.
type Aggregate interface {
	// Parts are the aggregates that a shard computes of the same argument. The value of the first stands where the aggregate's would; those
	// of the others come in hidden columns.
	Parts() []string
	// Compares says whether values are compared. Then a shard sends the value twice: as the client gets it, and in a hidden column in binary.
	Compares() bool
	// Combines says whether the shards' values can be combined that have this type.
	Combines(oid uint32) bool
	// Add takes a shard's row of a group into the group's value.
	Add(a *Accumulator, c *Column, row [][]byte) error
	// Result is the group's value in binary, and in the format that the client wants.
	Result(a *Accumulator, c *Column) (bin, out []byte)
}

// Aggregates are all that there are, by name.
var Aggregates = map[string]Aggregate{
	"count": count{}, "sum": sum{}, "avg": average{}, "min": extreme{less: -1}, "max": extreme{less: 1},
}

// ErrOverflow and ErrFloatOverflow mean that a sum left its type.
var (
	ErrOverflow      = errors.New("bigint out of range")
	ErrFloatOverflow = errors.New("value out of range: overflow")
)

// Accumulator is the value of one column in one group, as far as it is known.
type Accumulator struct {
	visible []byte // what the client gets
	binary  []byte // the same in binary
	sum     Decimal
	float   float64
	n       int64
	any     bool // a value has come
}

// keep takes a shard's value as it is.
func (a *Accumulator) keep(c *Column, row [][]byte) {
	a.any = true
	a.visible, a.binary = clone(row[c.At]), clone(row[c.Hidden])
}

// held is how many bytes of shards' values it holds.
func (a *Accumulator) held() int { return len(a.visible) + len(a.binary) }

// count adds up.
type count struct{}

func (count) Parts() []string      { return []string{"count"} }
func (count) Compares() bool       { return false }
func (count) Combines(uint32) bool { return true }

func (count) Add(a *Accumulator, c *Column, row [][]byte) error {
	a.n += signed(row[c.At])
	return nil
}

func (count) Result(a *Accumulator, c *Column) (bin, out []byte) { return formatInt(a.n, c.Binary) }

// extreme is min (-1) or max (1).
type extreme struct{ less int }

func (e extreme) Parts() []string {
	if e.less < 0 {
		return []string{"min"}
	}
	return []string{"max"}
}
func (extreme) Compares() bool       { return true }
func (extreme) Combines(uint32) bool { return true }

func (e extreme) Add(a *Accumulator, c *Column, row [][]byte) error {
	if v := row[c.Hidden]; v != nil && (!a.any || c.Compare(v, a.binary)*e.less > 0) {
		a.keep(c, row)
	}
	return nil
}

func (extreme) Result(a *Accumulator, _ *Column) (bin, out []byte) { return a.binary, a.visible }

// sum adds up in the type that a shard's sum has.
type sum struct{}

func (sum) Parts() []string          { return []string{"sum"} }
func (sum) Compares() bool           { return false }
func (sum) Combines(oid uint32) bool { return adds(oid) }

func (sum) Add(a *Accumulator, c *Column, row [][]byte) error {
	v := row[c.At]
	if v == nil {
		return nil
	}
	switch {
	case (c.OID == Float4 || c.OID == Float8) && !a.any: // -0 stays what it is, as 0 + -0 would not
		a.float, a.any = float(v), true
		return nil
	case c.OID != Int8:
		return a.add(c.OID, v)
	}
	n := signed(v)
	s := a.n + n
	if n > 0 && s < a.n || n < 0 && s > a.n {
		return ErrOverflow
	}
	a.n, a.any = s, true
	return nil
}

func (sum) Result(a *Accumulator, c *Column) (bin, out []byte) {
	switch {
	case !a.any:
		return nil, nil
	case c.OID == Int8:
		return formatInt(a.n, c.Binary)
	case c.OID == Float4 || c.OID == Float8:
		return formatFloat(a.float, c.OID, c.Binary)
	}
	return formatNumeric(a.sum, c.Binary)
}

// average divides the sum of the sums by that of the counts.
type average struct{}

func (average) Parts() []string { return []string{"sum", "count"} }
func (average) Compares() bool  { return false }

// Combines is false of float4, whose average PostgreSQL makes of a sum in float8: the shards' sums have lost its digits.
func (average) Combines(oid uint32) bool { return adds(oid) && oid != Float4 }

func (average) Add(a *Accumulator, c *Column, row [][]byte) error {
	v := row[c.At]
	if v == nil {
		return nil
	}
	a.n += signed(row[c.Hidden])
	return a.add(c.OID, v)
}

func (average) Result(a *Accumulator, c *Column) (bin, out []byte) {
	switch {
	case !a.any || a.n == 0:
		return nil, nil
	case c.OID == Float8:
		return formatFloat(a.float/float64(a.n), Float8, c.Binary)
	}
	return formatNumeric(a.sum.DivInt(a.n), c.Binary)
}

// adds says whether values of a type are added up here as PostgreSQL does.
func adds(oid uint32) bool { return oid == Int8 || oid == Float4 || oid == Float8 || oid == Numeric }

// add adds a value up without a bound.
func (a *Accumulator) add(oid uint32, v []byte) error {
	var d Decimal
	switch oid {
	case Float4, Float8:
		return a.addFloat(oid, float(v))
	case Int8:
		d = FromInt(signed(v))
	case Numeric:
		var ok bool
		if d, ok = DecodeNumeric(v); !ok {
			return errors.New("merge: a numeric that cannot be read")
		}
	default:
		return fmt.Errorf("merge: sum of type %d", oid)
	}
	if a.any {
		d = a.sum.Add(d)
	}
	a.sum, a.any = d, true
	return nil
}

// addFloat adds a float up in its type. Finite ones whose sum is not are too much, as for PostgreSQL.
func (a *Accumulator) addFloat(oid uint32, f float64) error {
	sum := a.float + f
	if oid == Float4 {
		sum = float64(float32(sum))
	}
	if math.IsInf(sum, 0) && !math.IsInf(a.float, 0) && !math.IsInf(f, 0) {
		return ErrFloatOverflow
	}
	a.float, a.any = sum, true
	return nil
}

func formatInt(n int64, bin bool) (b, out []byte) {
	b = binary.BigEndian.AppendUint64(nil, uint64(n))
	if bin {
		return b, b
	}
	return b, strconv.AppendInt(nil, n, 10)
}
