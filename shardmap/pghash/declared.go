package pghash

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Declared is what a column's declared length, precision or scale makes of the values that it is given. The zero value leaves them as they are.
type Declared struct {
	of Type
	n  int // characters, or digits behind the point
}

// ParseDeclared reads a type as format_type writes it: character varying(3), numeric(5,2), timestamp(0) with time zone.
func ParseDeclared(typ string) Declared {
	before, rest, ok := strings.Cut(typ, "(")
	list, after, closed := strings.Cut(rest, ")")
	if !ok || !closed {
		return Declared{}
	}
	t, ok := TypeByName(before + after)
	_, scale, two := strings.Cut(list, ",")
	if t == TypeNumeric && two {
		list = scale
	}
	n, err := strconv.Atoi(list)
	switch {
	case !ok || err != nil:
		return Declared{}
	case t == TypeNumeric && !two: // numeric(5)
		n = 0
	}
	switch t {
	case TypeVarchar, TypeNumeric, TypeTimestamp, TypeTimestamptz:
		return Declared{t, n}
	default: // of character the blanks do not count
		return Declared{}
	}
}

// Held is the key of what the column holds of a value. What it cannot hold is left to the server to refuse.
func (d Declared) Held(k Key) Key {
	switch d.of {
	case TypeVarchar:
		return bytesKey(cutBlanks(k.bytes, d.n))
	case TypeTimestamp, TypeTimestamptz:
		return IntKey(roundMicroseconds(k.n, d.n))
	case TypeNumeric:
		if n, ok := k.num.round(d.n); ok {
			return Key{kind: kindNumeric, num: &n}
		}
	default: // nothing was declared
	}
	return k
}

// cutBlanks cuts a text to so many characters, if there are only blanks behind them.
func cutBlanks(b []byte, n int) []byte {
	end := 0
	for ; n > 0 && end < len(b); n-- {
		_, size := utf8.DecodeRune(b[end:])
		end += size
	}
	if strings.Trim(string(b[end:]), " ") != "" {
		return b
	}
	return b[:end]
}

// roundMicroseconds rounds a time to so many digits of its seconds, half of one away from zero, as PostgreSQL does.
func roundMicroseconds(v int64, digits int) int64 {
	if digits > 5 || v == math.MaxInt64 || v == math.MinInt64 {
		return v
	}
	scale := int64(1)
	for range 6 - digits {
		scale *= 10
	}
	if v < 0 {
		return -((-v + scale/2) / scale * scale)
	}
	return (v + scale/2) / scale * scale
}

// round rounds a number to so many digits behind the point, a half away from zero. ok is false where it stays as it is.
func (n *number) round(scale int) (out number, ok bool) {
	if n.sign&numNaN == numNaN {
		return out, false
	}
	var all []byte
	for _, d := range n.digits {
		all = append(all, byte('0'+d/1000), byte('0'+d/100%10), byte('0'+d/10%10), byte('0'+d%10))
	}
	point := (n.weight + 1) * 4
	cut := point + scale // the first digit that goes
	switch {
	case cut >= len(all):
		return out, false
	case cut < 0:
		return number{}, true
	}
	up := all[cut] >= '5'
	for i := cut - 1; up && i >= 0; i-- {
		if up = all[i] == '9'; up {
			all[i] = '0'
		} else {
			all[i]++
		}
	}
	digits := string(all[:cut])
	if up {
		digits, point = "1"+digits, point+1
	}
	out, ok = parseNumeric("0." + digits + "e" + strconv.Itoa(point))
	out.sign = n.sign
	return out, ok
}
