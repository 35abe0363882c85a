// Package merge makes one result out of the rows of several shards. It is pure: rows come from Sources and
// go to a function; there is no network, clock or goroutine here.
//
// The rule: values are compared and combined only where Go does exactly what PostgreSQL does, on binary
// values. Whatever is not in the tables below is refused by the caller before a row is sent.
package merge

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
)

// Compare orders two values in binary format as PostgreSQL's default operator class of their type does.
type Compare func(a, b []byte) int

// OIDs of the types that are compared or combined here.
const (
	Bool, Bytea, Char, Int8, Int2, Int4, Text, OID   = 16, 17, 18, 20, 21, 23, 25, 26
	Float4, Float8, Bpchar, Varchar, Date, Time      = 700, 701, 1042, 1043, 1082, 1083
	Timestamp, Timestamptz, Numeric, UUID, Name, LSN = 1114, 1184, 1700, 2950, 19, 3220
)

// ComparatorFor returns the comparison of a type. textByBytes says that the text's collation sorts by
// bytes. ok is false where Go cannot order as PostgreSQL does.
func ComparatorFor(oid uint32, textByBytes bool) (c Compare, ok bool) {
	switch oid {
	case Int2, Int4, Int8, Date, Time, Timestamp, Timestamptz:
		return func(a, b []byte) int { return cmp.Compare(signed(a), signed(b)) }, true
	case Bool, Bytea, UUID, OID, LSN: // big-endian unsigned or plain bytes
		return bytes.Compare, true
	case Float4, Float8:
		return func(a, b []byte) int { return compareFloat(float(a), float(b)) }, true
	case Text, Varchar, Name:
		return bytes.Compare, textByBytes
	case Numeric:
		return compareNumeric, true
	}
	return nil, false
}

// Groupable says whether equal values of a type are equal bytes after Canonical.
func Groupable(oid uint32) bool {
	switch oid {
	case Int2, Int4, Int8, Date, Time, Timestamp, Timestamptz, Bool, Bytea, UUID, OID, LSN, Text, Varchar, Name, Numeric, Float4, Float8:
		return true
	}
	return false
}

// Canonical is a form of a value that is the same for equal values: 1.0 and 1.00, 0 and -0, every NaN.
func Canonical(oid uint32, v []byte) []byte {
	switch oid {
	case Numeric:
		n, ok := DecodeNumeric(v)
		if !ok {
			return v
		}
		return n.canonical()
	case Float4, Float8:
		f := float(v)
		switch {
		case f == 0:
			f = 0
		case math.IsNaN(f):
			f = math.NaN()
		}
		return binary.BigEndian.AppendUint64(nil, math.Float64bits(f))
	}
	return v
}

func signed(b []byte) int64 {
	switch len(b) {
	case 2:
		return int64(int16(binary.BigEndian.Uint16(b)))
	case 4:
		return int64(int32(binary.BigEndian.Uint32(b)))
	case 8:
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func float(b []byte) float64 {
	switch len(b) {
	case 4:
		return float64(math.Float32frombits(binary.BigEndian.Uint32(b)))
	case 8:
		return math.Float64frombits(binary.BigEndian.Uint64(b))
	}
	return 0
}

// compareFloat sorts NaN behind everything and takes it as equal to itself.
func compareFloat(a, b float64) int {
	switch an, bn := math.IsNaN(a), math.IsNaN(b); {
	case an && bn:
		return 0
	case an:
		return 1
	case bn:
		return -1
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Key is one ORDER BY item over a row's values.
type Key struct {
	Column     int
	Desc       bool
	NullsFirst bool
	Compare    Compare
}

func compareRows(keys []Key, a, b [][]byte) int {
	for _, k := range keys {
		x, y := a[k.Column], b[k.Column]
		c := 0
		switch {
		case x == nil && y == nil:
			continue
		case x == nil:
			c = 1
			if k.NullsFirst {
				c = -1
			}
			return c
		case y == nil:
			c = -1
			if k.NullsFirst {
				c = 1
			}
			return c
		}
		if c = k.Compare(x, y); c != 0 {
			if k.Desc {
				return -c
			}
			return c
		}
	}
	return 0
}
