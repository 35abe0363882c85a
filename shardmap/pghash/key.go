package pghash

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
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

var types = map[Type]typeInfo{
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
	for t, info := range types {
		if info.name == name {
			return t, true
		}
		for _, a := range info.aliases {
			if a == name {
				return t, true
			}
		}
	}
	return TypeInvalid, false
}

// TypeByOID returns the key type with this type OID.
func TypeByOID(oid uint32) (Type, bool) {
	for t, info := range types {
		if info.oid == oid {
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

// SlotSQL is an SQL expression for the slot of a column of this type, made of immutable built-in
// functions only, so that it can stand in a CHECK constraint. ok is false where SQL cannot reach the
// type's hash function (bytea).
func (t Type) SlotSQL(column string) (expr string, ok bool) {
	info := types[t]
	if info.sql == "" {
		return "", false
	}
	var hash string
	if strings.Contains(info.sql, "%[1]s") {
		hash = fmt.Sprintf(info.sql, column)
	} else {
		hash = strings.Replace(info.sql, "%s", column, 1)
	}
	return fmt.Sprintf("((%s & 16383) + 10467) & 16383", hash), true
}

// HashText hashes a value written as text in PostgreSQL's input format. ok is false for what the server
// would reject or read by its own settings (DateStyle, TimeZone, 'today'): such a value tells nothing.
func HashText(t Type, s string) (hash uint64, ok bool) {
	switch t {
	case TypeInt2, TypeInt4, TypeInt8:
		v, err := strconv.ParseInt(trimSpace(s), 10, 64)
		if err != nil || !intFits(t, v) || strings.ContainsAny(s, "_") {
			return 0, false
		}
		return Int(v), true
	case TypeText, TypeVarchar:
		return Bytes([]byte(s)), true
	case TypeBpchar:
		return Bytes([]byte(strings.TrimRight(s, " "))), true
	case TypeUUID:
		b, ok := parseUUID(s)
		return Bytes(b), ok
	case TypeDate:
		if d, ok := parseDate(s); ok {
			return Int32(d), true
		}
	case TypeTimestamp:
		if v, ok := parseTimestamp(s, false); ok {
			return Int(v), true
		}
	case TypeTimestamptz:
		if v, ok := parseTimestamp(s, true); ok {
			return Int(v), true
		}
	case TypeBytea:
		if strings.HasPrefix(s, `\x`) {
			b, err := hex.DecodeString(s[2:])
			return Bytes(b), err == nil
		}
	case TypeNumeric:
		digits, weight, special, ok := parseNumeric(s)
		return Numeric(digits, weight, special), ok
	case TypeBool:
		switch strings.ToLower(trimSpace(s)) {
		case "t", "true", "y", "yes", "on", "1":
			return Int32(1), true
		case "f", "false", "n", "no", "off", "0":
			return Int32(0), true
		}
	}
	return 0, false
}

// HashBinary hashes a value in the type's binary wire format.
func HashBinary(t Type, b []byte) (hash uint64, ok bool) {
	switch t {
	case TypeInt2, TypeInt4, TypeInt8:
		v, ok := BinaryInt(b)
		return Int(v), ok
	case TypeText, TypeVarchar, TypeBytea:
		return Bytes(b), true
	case TypeBpchar:
		return Bytes([]byte(strings.TrimRight(string(b), " "))), true
	case TypeUUID:
		return Bytes(b), len(b) == 16
	case TypeDate:
		if len(b) == 4 {
			return Int32(int32(binary.BigEndian.Uint32(b))), true
		}
	case TypeTimestamp, TypeTimestamptz:
		if len(b) == 8 {
			return Int(int64(binary.BigEndian.Uint64(b))), true
		}
	case TypeNumeric:
		if len(b) >= 8 {
			n := int(binary.BigEndian.Uint16(b))
			if len(b) != 8+2*n {
				return 0, false
			}
			digits := make([]int16, n)
			for i := range digits {
				digits[i] = int16(binary.BigEndian.Uint16(b[8+2*i:]))
			}
			return Numeric(digits, int(int16(binary.BigEndian.Uint16(b[2:]))), binary.BigEndian.Uint16(b[4:])&0xC000 == 0xC000), true
		}
	case TypeBool:
		if len(b) == 1 {
			return Int32(int32(b[0])), true
		}
	}
	return 0, false
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
	}
	return true
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
func parseNumeric(s string) (digits []int16, weight int, special, ok bool) {
	s = trimSpace(s)
	switch strings.ToLower(s) {
	case "nan", "infinity", "+infinity", "-infinity", "inf", "+inf", "-inf":
		return nil, 0, true, true
	}
	s = strings.TrimLeft(s, "+-")
	exp := 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		e, err := strconv.Atoi(s[i+1:])
		if err != nil || e > 1000 || e < -1000 {
			return nil, 0, false, false
		}
		exp, s = e, s[:i]
	}
	whole, frac, _ := strings.Cut(s, ".")
	all := whole + frac
	if all == "" || strings.Trim(all, "0123456789") != "" || len(all) > 1000 {
		return nil, 0, false, false
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
		digits = append(digits, int16(d))
	}
	return digits, point/4 - 1, false, true
}
