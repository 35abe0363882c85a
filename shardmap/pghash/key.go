package pghash

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Type is a key type of a group.
type Type uint8

// The key types. Int16, Int32 and Int64 hash alike for equal values.
const (
	TypeInvalid Type = iota
	TypeInt2
	TypeInt4
	TypeInt8
	TypeText
	TypeVarchar
	TypeBpchar
	TypeUUID
	TypeDate
	TypeTimestamp
	TypeTimestamptz
	TypeBytea
	TypeNumeric
	TypeBool
)

type typeInfo struct {
	name    string
	aliases []string
	oid     uint32
	sql     string // the extended hash of column %s in SQL by immutable built-in functions; empty when there is none
}

const sqlSeed = "8816678312871386365"

var types = [...]typeInfo{
	TypeInt2:    {"smallint", []string{"int2"}, 21, "hashint8extended((%s)::bigint, " + sqlSeed + ")"},
	TypeInt4:    {"integer", []string{"int", "int4"}, 23, "hashint8extended((%s)::bigint, " + sqlSeed + ")"},
	TypeInt8:    {"bigint", []string{"int8"}, 20, "hashint8extended(%s, " + sqlSeed + ")"},
	TypeText:    {"text", nil, 25, "hashtextextended(%s, " + sqlSeed + ")"},
	TypeVarchar: {"character varying", []string{"varchar"}, 1043, "hashtextextended((%s)::text, " + sqlSeed + ")"},
	TypeBpchar:  {"character", []string{"char", "bpchar"}, 1042, "hashbpcharextended(%s, " + sqlSeed + ")"},
	TypeUUID:    {"uuid", nil, 2950, "uuid_hash_extended(%s, " + sqlSeed + ")"},
	TypeDate: {"date", nil, 1082, "hashint4extended(CASE WHEN isfinite(%[1]s) THEN %[1]s - '2000-01-01'::date" +
		" WHEN %[1]s > '2000-01-01'::date THEN 2147483647 ELSE '-2147483648'::integer END, " + sqlSeed + ")"},
	TypeTimestamp:   {"timestamp without time zone", []string{"timestamp"}, 1114, "timestamp_hash_extended(%s, " + sqlSeed + ")"},
	TypeTimestamptz: {"timestamp with time zone", []string{"timestamptz"}, 1184, "timestamp_hash_extended((%s AT TIME ZONE 'UTC'), " + sqlSeed + ")"},
	TypeBytea:       {"bytea", nil, 17, ""},
	TypeNumeric:     {"numeric", []string{"decimal"}, 1700, "hash_numeric_extended(%s, " + sqlSeed + ")"},
	TypeBool:        {"boolean", []string{"bool"}, 16, `hashcharextended((CASE WHEN %s THEN 1 ELSE 0 END)::"char", ` + sqlSeed + ")"},
}

// AllTypes lists every key type, in a fixed order.
func AllTypes() []Type {
	var out []Type
	for t := TypeInt2; t <= TypeBool; t++ {
		out = append(out, t)
	}
	return out
}

// TypeByName returns the key type that PostgreSQL's type name or one of its usual short names means.
func TypeByName(name string) (Type, bool) {
	name = strings.ToLower(strings.Join(strings.Fields(name), " "))
	for _, t := range AllTypes() {
		if types[t].name == name || slices.Contains(types[t].aliases, name) {
			return t, true
		}
	}
	return TypeInvalid, false
}

// TypeByOID returns the key type with this type OID.
func TypeByOID(oid uint32) (Type, bool) {
	for t := TypeInt2; t <= TypeBool; t++ {
		if types[t].oid == oid {
			return t, true
		}
	}
	return TypeInvalid, false
}

func (t Type) String() string { return types[t].name }

// OID is the type's OID, which is the same on every server.
func (t Type) OID() uint32 { return types[t].oid }

// IsInteger says whether values of the type hash by their integer value alone.
func (t Type) IsInteger() bool { return t >= TypeInt2 && t <= TypeInt8 }

// MaxColumns is how many columns a key may have. What SlotSQL computes of the first one needs 7 more bits for each
// further column, and must not reach the 54 bits from which hash_combine64 shifts into the slot.
const MaxColumns = 4

// SlotSQL is an SQL expression for the slot of key columns of these types, made of immutable built-in functions only, so
// that it can stand in a CHECK constraint. ok is false where SQL cannot reach a type's hash function (bytea). Each round
// keeps the bits of hash_combine64 that later rounds need: those of the slot, and 7 more for each column to come.
func SlotSQL(types []Type, columns []string) (expr string, ok bool) {
	var acc string
	for i, t := range types {
		hash, ok := t.hashSQL(columns[i])
		if !ok {
			return "", false
		}
		mask := uint64(1)<<(14+7*(len(types)-1-i)) - 1
		sum := fmt.Sprintf("(%s & %d) + %d", hash, mask, combine&mask)
		if i == 0 {
			acc = fmt.Sprintf("(%s) & %d", sum, mask)
			continue
		}
		acc = fmt.Sprintf("((%[1]s) & %[2]d) # ((%[3]s + ((%[1]s) >> 7)) & %[2]d)", acc, mask, sum)
	}
	return acc, true
}

func (t Type) hashSQL(column string) (expr string, ok bool) {
	info := types[t]
	switch {
	case info.sql == "":
		return "", false
	case strings.Contains(info.sql, "%[1]s"):
		return fmt.Sprintf(info.sql, column), true
	}
	return strings.Replace(info.sql, "%s", column, 1), true
}

// Key is one value of a key type, as PostgreSQL reads it. It may hold a part of what it was read from.
type Key struct {
	kind  kind
	n     int64
	bytes []byte
	num   *number
}

// kind is how a Key's value is held, hashed and ordered.
type kind uint8

const (
	kindInt64 kind = iota // integers, timestamps
	kindInt32             // date, boolean
	kindBytes
	kindNumeric
)

// number is a numeric as in the binary format: base-10000 digits and the weight of the first.
type number struct {
	digits []int16
	weight int
	sign   uint16
}

// The sign field of a numeric in binary format.
const (
	numPositive = 0x0000
	numNegative = 0x4000
	numNaN      = 0xC000
	numPosInf   = 0xD000
	numNegInf   = 0xF000
)

// IntKey is an integer of any width as a key.
func IntKey(v int64) Key { return Key{kind: kindInt64, n: v} }

func int32Key(v int32) Key  { return Key{kind: kindInt32, n: int64(v)} }
func bytesKey(b []byte) Key { return Key{kind: kindBytes, bytes: b} }

// Hash is the value's extended hash.
func (k *Key) Hash() uint64 {
	switch k.kind {
	case kindInt64:
		return Int(k.n)
	case kindInt32:
		return Int32(int32(k.n))
	case kindBytes:
		return Bytes(k.bytes)
	case kindNumeric:
	}
	return Numeric(k.num.digits, k.num.weight, k.num.sign&numNaN == numNaN)
}

// AppendOrdered appends a form of the value whose bytes compare as PostgreSQL compares values of the type (text: in the
// C collation). Equal values have equal forms, and none is the beginning of another, so the forms of several columns, one
// after the other, compare as rows do.
func (k *Key) AppendOrdered(dst []byte) []byte {
	switch k.kind {
	case kindInt64, kindInt32:
		return binary.BigEndian.AppendUint64(dst, uint64(k.n)^1<<63)
	case kindBytes:
		for _, c := range k.bytes {
			dst = append(dst, c)
			if c == 0 {
				dst = append(dst, 0xff)
			}
		}
		return append(dst, 0, 1)
	case kindNumeric:
	}
	digits, weight := k.num.trim()
	switch {
	case k.num.sign == numNegInf:
		return append(dst, 1)
	case k.num.sign == numPosInf:
		return append(dst, 5)
	case k.num.sign == numNaN:
		return append(dst, 6)
	case len(digits) == 0:
		return append(dst, 3)
	}
	flip := uint16(0)
	if k.num.sign == numNegative {
		dst, flip = append(dst, 2), 0xffff
	} else {
		dst = append(dst, 4)
	}
	w := uint32(int32(weight)) ^ 1<<31
	dst = binary.BigEndian.AppendUint16(dst, uint16(w>>16)^flip)
	dst = binary.BigEndian.AppendUint16(dst, uint16(w)^flip)
	for _, d := range digits {
		dst = binary.BigEndian.AppendUint16(dst, uint16(d+1)^flip)
	}
	return binary.BigEndian.AppendUint16(dst, flip)
}

// ParseText reads a value written as text in PostgreSQL's input format. ok is false for what the server
// would reject or read by its own settings (DateStyle, TimeZone, 'today'): such a value tells nothing.
func ParseText(t Type, s string) (k Key, ok bool) {
	switch t {
	case TypeInt2, TypeInt4, TypeInt8:
		v, err := strconv.ParseInt(trimSpace(s), 10, 64)
		if err != nil || !intFits(t, v) || strings.ContainsAny(s, "_") {
			return Key{}, false
		}
		return IntKey(v), true
	case TypeText, TypeVarchar:
		return bytesKey([]byte(s)), true
	case TypeBpchar:
		return bytesKey([]byte(strings.TrimRight(s, " "))), true
	case TypeUUID:
		b, ok := parseUUID(s)
		return bytesKey(b), ok
	case TypeDate:
		if d, ok := parseDate(s); ok {
			return int32Key(d), true
		}
	case TypeTimestamp:
		if v, ok := parseTimestamp(s, false); ok {
			return IntKey(v), true
		}
	case TypeTimestamptz:
		if v, ok := parseTimestamp(s, true); ok {
			return IntKey(v), true
		}
	case TypeBytea:
		if strings.HasPrefix(s, `\x`) {
			b, err := hex.DecodeString(s[2:])
			return bytesKey(b), err == nil
		}
	case TypeNumeric:
		n, ok := parseNumeric(s)
		return Key{kind: kindNumeric, num: &n}, ok
	case TypeBool:
		switch strings.ToLower(trimSpace(s)) {
		case "t", "true", "y", "yes", "on", "1":
			return int32Key(1), true
		case "f", "false", "n", "no", "off", "0":
			return int32Key(0), true
		}
	case TypeInvalid:
	}
	return Key{}, false
}

// ParseBinary reads a value in the type's binary wire format. The key holds a part of b.
func ParseBinary(t Type, b []byte) (k Key, ok bool) {
	switch t {
	case TypeInt2, TypeInt4, TypeInt8:
		v, ok := BinaryInt(b)
		return IntKey(v), ok
	case TypeText, TypeVarchar, TypeBytea:
		return bytesKey(b), true
	case TypeBpchar:
		return bytesKey(bytes.TrimRight(b, " ")), true
	case TypeUUID:
		return bytesKey(b), len(b) == 16
	case TypeDate:
		if len(b) == 4 {
			return int32Key(int32(binary.BigEndian.Uint32(b))), true
		}
	case TypeTimestamp, TypeTimestamptz:
		if len(b) == 8 {
			return IntKey(int64(binary.BigEndian.Uint64(b))), true
		}
	case TypeNumeric:
		if len(b) >= 8 {
			n := int(binary.BigEndian.Uint16(b))
			if len(b) != 8+2*n {
				return Key{}, false
			}
			digits := make([]int16, n)
			for i := range digits {
				digits[i] = int16(binary.BigEndian.Uint16(b[8+2*i:]))
			}
			return Key{kind: kindNumeric, num: &number{digits, int(int16(binary.BigEndian.Uint16(b[2:]))), binary.BigEndian.Uint16(b[4:])}}, true
		}
	case TypeBool:
		if len(b) == 1 {
			return int32Key(int32(b[0])), true
		}
	case TypeInvalid:
	}
	return Key{}, false
}

// BinaryInt reads an int2, int4 or int8 in binary format; the width tells which.
func BinaryInt(b []byte) (int64, bool) {
	switch len(b) {
	case 2:
		return int64(int16(binary.BigEndian.Uint16(b))), true
	case 4:
		return int64(int32(binary.BigEndian.Uint32(b))), true
	case 8:
		return int64(binary.BigEndian.Uint64(b)), true
	}
	return 0, false
}

func intFits(t Type, v int64) bool {
	switch t {
	case TypeInt2:
		return v == int64(int16(v))
	case TypeInt4:
		return v == int64(int32(v))
	default:
		return true
	}
}

func trimSpace(s string) string { return strings.Trim(s, " \t\n\r\f\v") }

func parseUUID(s string) ([]byte, bool) {
	if strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") {
		s = s[1 : len(s)-1]
	}
	if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		s = s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	}
	b, err := hex.DecodeString(s)
	return b, err == nil && len(b) == 16
}

var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// parseDate accepts the one form that every DateStyle reads alike.
func parseDate(s string) (int32, bool) {
	t, err := time.Parse("2006-01-02", s)
	if err != nil || len(s) != 10 || t.Year() < 1 {
		return 0, false
	}
	return int32(t.Unix()/86400 - epoch.Unix()/86400), true
}

// parseTimestamp accepts ISO 8601 with a blank or T; withZone demands an explicit offset.
func parseTimestamp(s string, withZone bool) (int64, bool) {
	zones := []string{""}
	if withZone {
		zones = []string{"Z07:00", "-07", "-0700"}
	}
	for _, sep := range []string{" ", "T"} {
		for _, z := range zones {
			t, err := time.Parse("2006-01-02"+sep+"15:04:05"+z, s)
			if err != nil {
				continue
			}
			if t.Year() < 1 || t.Nanosecond()%1000 != 0 {
				return 0, false
			}
			return (t.Unix()-epoch.Unix())*1e6 + int64(t.Nanosecond()/1000), true
		}
	}
	return 0, false
}

// parseNumeric turns plain decimal notation into base-10000 digits, as numeric_in does.
func parseNumeric(s string) (n number, ok bool) {
	s = trimSpace(s)
	switch strings.ToLower(s) {
	case "nan":
		return number{sign: numNaN}, true
	case "infinity", "+infinity", "inf", "+inf":
		return number{sign: numPosInf}, true
	case "-infinity", "-inf":
		return number{sign: numNegInf}, true
	}
	if s != "" && (s[0] == '-' || s[0] == '+') {
		if s[0] == '-' {
			n.sign = numNegative
		}
		s = s[1:]
	}
	exp := 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		e, err := strconv.Atoi(s[i+1:])
		if err != nil || e > 1000 || e < -1000 {
			return number{}, false
		}
		exp, s = e, s[:i]
	}
	whole, frac, _ := strings.Cut(s, ".")
	all := whole + frac
	if all == "" || strings.Trim(all, "0123456789") != "" || len(all) > 1000 {
		return number{}, false
	}
	point := len(whole) + exp // decimal digits before the point
	for point%4 != 0 {
		all, point = "0"+all, point+1
	}
	for len(all)%4 != 0 {
		all += "0"
	}
	for i := 0; i < len(all); i += 4 {
		d, _ := strconv.Atoi(all[i : i+4])
		n.digits = append(n.digits, int16(d))
	}
	n.weight = point/4 - 1
	return n, true
}

// trim leaves out the zeros at both ends.
func (n *number) trim() (digits []int16, weight int) { return trimZeros(n.digits, n.weight) }

func trimZeros(digits []int16, weight int) ([]int16, int) {
	for len(digits) > 0 && digits[0] == 0 {
		digits, weight = digits[1:], weight-1
	}
	for len(digits) > 0 && digits[len(digits)-1] == 0 {
		digits = digits[:len(digits)-1]
	}
	return digits, weight
}
