package router

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// A parameter that stands in a cast is read by its own type: as the literal that PostgreSQL makes of it, or not at all.
func TestACastParameterIsReadByItsOwnType(t *testing.T) {
	db, sch := world(t)
	env := Env{SearchPath: []string{"public"}}
	bind := func(sql string, a *Args) ([]int, error) {
		t.Helper()
		stmts, err := sqlparse.Parse(sql)
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := Analyze(stmts[0], db, sch, env)
		if err != nil {
			t.Fatal(err)
		}
		p, err := tmpl.Bind(db, a)
		if err != nil {
			return nil, err
		}
		return p.Shards, nil
	}
	const source, customer, day = "select * from events where source = ", "update customers set age = 1 where customer_id = ", "select * from days where day = "
	for _, c := range []struct {
		of, param, rest string
		oid             uint32
		value           string
		bin             bool
		as              string // the literal that it is; "refused", "asked", or "everywhere"
	}{
		{source, "$1::text", "", 23, "007", false, "'7'"},
		{source, "$1::text", "", 21, "-0", false, "'0'"},
		{source, "$1::varchar", "", 20, "-12", false, "'-12'"},
		{source, "$1::text", "", 23, "0x10", false, "refused"},
		{source, "$1::text", "", 23, " 7", false, "refused"},
		{source, "$1::text", "", 23, "\x00\x00\x00\x07", true, "'7'"},
		{source, "$1::text", "", 20, "\xff\xff\xff\xff\xff\xff\xff\xfe", true, "'-2'"},
		{source, "$1::text", "", 23, "\x07", true, "refused"},
		{source, "$1::text", "", 1700, "7", false, "refused"},
		{source, `$1::"char"`, "", 18, "abc", false, "everywhere"},
		{source, `$1::"char"`, "", 0, "abc", false, "everywhere"},
		{source, "$1::other.text", "", 0, "007", false, "everywhere"},
		{source, "$1::pg_catalog.text", "", 0, "007", false, "'007'"},
		{source, `$1::"TEXT"`, "", 0, "007", false, "everywhere"},
		{source, "$1::d.pg_catalog.text", "", 0, "007", false, "everywhere"},
		{customer, "$1::other.int8", "", 0, "1234", false, "everywhere"},
		{customer, `$1::"int"`, "", 0, "1234", false, "everywhere"},
		{customer, `$1::"bigint"`, "", 0, "1234", false, "everywhere"},
		{customer, "$1::pg_catalog.int8", "", 0, "1234", false, "1234"},
		{customer, "$1::bigint", "", 1700, "1234", false, "1234"},
		{customer, "$1::bigint", "", 1700, "\x00\x01\x00\x00\x00\x00\x00\x00\x04\xd2", true, "refused"},
		{source, "$1::text", "", 2950, "00000000000000000000000000000007", false, "refused"},
		{source, "$1::text", "", 1042, "007 ", false, "refused"},
		{source, "$1::text", "", 25, "007", false, "'007'"},
		{source, "$1::text", "", 1043, "007", true, "'007'"},
		{source, "$1::varchar", "", 25, "007", true, "'007'"},
		{source, "$1::text", "", 0, "007", false, "'007'"},
		{source, "$1::text", "", 705, "007", true, "'007'"},
		{source, "$1::text", " and payload = $1::text", 0, "007", false, "'007'"},
		{source, "$1::text", " and payload = $1", 0, "007", false, "asked"},
		{source, "$1::text", " and payload = $1", 25, "007", false, "'007'"},
		{customer, "$1::bigint", "", 25, "1234", true, "1234"},
		{customer, "$1::bigint", "", 1043, "1234", false, "1234"},
		{customer, "$1::bigint", "", 21, "\x04\xd2", true, "1234"},
		{customer, "$1::int", "", 20, "\x00\x00\x00\x00\x00\x00\x04\xd2", true, "1234"},
		{customer, "$1::bigint", "", 23, "1234", false, "1234"},
		{customer, "$1::bigint", "", 1700, "1234.4", false, "refused"},
		{customer, "$1::bigint", "", 701, "1234", false, "refused"},
		{customer, "$1::bigint", " and age = $1", 0, "1234", false, "asked"},
		{day, "$1::date", "", 25, "2026-01-02", true, "'2026-01-02'"},
		{day, "$1::date", "", 1114, "2026-01-02 23:00:00", false, "refused"},
	} {
		a := &Args{Params: [][]byte{[]byte(c.value)}, Types: []uint32{c.oid}}
		if c.bin {
			a.Formats = []int16{1}
		}
		got, err := bind(c.of+c.param+c.rest, a)
		var refused *Error
		ok := false
		switch c.as {
		case "asked":
			ok = errors.Is(err, ErrNeedTypes)
		case "everywhere": // it says nothing of the key
			ok = err == nil && len(got) == 4
		case "refused":
			ok = errors.As(err, &refused) && refused.Rule == RuleKeyUnreadable
		default:
			want, _ := bind(c.of+c.as, &Args{})
			ok = err == nil && len(want) == 1 && slices.Equal(got, want)
		}
		if !ok {
			t.Errorf("%s%s%s of type %d, %q: shards %v, %v; it is %s", c.of, c.param, c.rest, c.oid, c.value, got, err, c.as)
		}
	}
}

// So is that of LIMIT and OFFSET.
func TestALimitIsReadByItsOwnType(t *testing.T) {
	for _, c := range []struct {
		oid   uint32
		value string
		bin   bool
		want  int64 // -1: refused
	}{
		{0, "7", false, 7},
		{0, "\x00\x00\x00\x07", true, 7},
		{20, "\x00\x00\x00\x00\x00\x00\x00\x07", true, 7},
		{21, "\x00\x07", true, 7},
		{25, "0007", true, 7},
		{1043, "0007", false, 7},
		{701, "\x40\x08\x00\x00\x00\x00\x00\x00", true, -1},
		{1700, "\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07", true, -1},
		{1700, "7", false, 7},
		{1700, "6.6", false, -1},
	} {
		a := &Args{Params: [][]byte{[]byte(c.value)}, Types: []uint32{c.oid}}
		if c.bin {
			a.Formats = []int16{1}
		}
		n, null, err := a.Int64(&sqlparse.Value{Kind: sqlparse.ValParam, Param: 1})
		if null || (err != nil) != (c.want < 0) || err == nil && n != c.want {
			t.Errorf("%q of type %d: %d, %v, %v; want %d", c.value, c.oid, n, null, err, c.want)
		}
	}
}

// Around the elements of an array PostgreSQL passes over its own six blanks; all others are a part of a text.
func TestBlanksOfUnicodeAreAPartOfAnArraysElement(t *testing.T) {
	db, sch := world(t)
	for _, c := range []struct{ array, element string }{{"{\u00a0x}", "\u00a0x"}, {"{x\u3000}", "x\u3000"}, {"{\u0085}", "\u0085"}, {"{ \t\n\r\v\fx \t\n\r\v\f}", "x"}, {" {x}\f", "x"}} {
		for _, more := range []string{"", "a", "b", "c", "d", "e", "f", "g", "h"} {
			var got [2][]int
			for i, as := range []struct{ sql, value string }{
				{"select * from events where source = any($1)", strings.ReplaceAll(strings.ReplaceAll(c.array, "x", "x"+more), "\u0085", more+"\u0085")}, {"select * from events where source = $1", strings.ReplaceAll(strings.ReplaceAll(c.element, "x", "x"+more), "\u0085", more+"\u0085")},
			} {
				stmts, err := sqlparse.Parse(as.sql)
				if err != nil {
					t.Fatal(err)
				}
				tmpl, err := Analyze(stmts[0], db, sch, Env{SearchPath: []string{"public"}})
				if err != nil {
					t.Fatal(err)
				}
				p, err := tmpl.Bind(db, &Args{Params: [][]byte{[]byte(as.value)}})
				if err != nil {
					t.Fatal(err)
				}
				got[i] = p.Shards
			}
			if !slices.Equal(got[0], got[1]) {
				t.Errorf("%q %q: shards %v, its element has %v", c.array, more, got[0], got[1])
			}
		}
	}
}
