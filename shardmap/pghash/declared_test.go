package pghash

import "testing"

// held is what a column of a type has of what it is given.
func TestDeclaredTypesHold(t *testing.T) {
	for _, c := range []struct{ key, typ, given, held string }{
		{"varchar", "character varying(3)", "q     ", "q  "},
		{"varchar", "character varying(3)", "éé  ", "éé "},
		{"varchar", "character varying(3)", "long", "long"},
		{"varchar", "character varying(3)", "", ""},
		{"varchar", "character varying", "q     ", "q     "},
		{"numeric", "numeric(5,2)", "1.005", "1.01"},
		{"numeric", "numeric(5,2)", "-1.005", "-1.01"},
		{"numeric", "numeric(5,2)", "1.0049", "1"},
		{"numeric", "numeric(5,2)", "9.995", "10"},
		{"numeric", "numeric(5,2)", "99999.995", "100000"},
		{"numeric", "numeric(5,2)", "0.004", "0"},
		{"numeric", "numeric(5,2)", "-0.005", "-0.01"},
		{"numeric", "numeric(5,2)", "0.00001", "0"},
		{"numeric", "numeric(5,2)", "123.40", "123.4"},
		{"numeric", "numeric(5,2)", "NaN", "NaN"},
		{"numeric", "numeric(5,0)", "0.5", "1"},
		{"numeric", "numeric(5)", "12345.5", "12346"},
		{"numeric", "numeric(5,-2)", "12350", "12400"},
		{"numeric", "numeric(5,-2)", "49", "0"},
		{"numeric", "numeric(5,-2)", "50", "100"},
		{"numeric", "numeric(5,-2)", "4", "0"},
		{"numeric", "numeric(30,10)", "12345678901234567890.12345678905", "12345678901234567890.1234567891"},
		{"numeric", "numeric", "1.005", "1.005"},
		{"timestamptz", "timestamp(0) with time zone", "2026-01-01 00:00:00.6+00", "2026-01-01 00:00:01+00"},
		{"timestamptz", "timestamp(0) with time zone", "1999-12-31 23:59:59.4+00", "1999-12-31 23:59:59+00"},
		{"timestamptz", "timestamp(0) with time zone", "1999-12-31 23:59:58.5+00", "1999-12-31 23:59:58+00"},
		{"timestamp", "timestamp(3) without time zone", "2026-01-01 00:00:00.0005", "2026-01-01 00:00:00.001"},
		{"timestamp", "timestamp(6) without time zone", "2026-01-01 00:00:00.000001", "2026-01-01 00:00:00.000001"},
		{"char", "character(3)", "q     ", "q"},
		{"text", "public.own(3)", "q     ", "q     "},
	} {
		kt, _ := TypeByName(c.key)
		given, ok1 := ParseText(kt, c.given)
		want, ok2 := ParseText(kt, c.held)
		if !ok1 || !ok2 {
			t.Fatal(c)
		}
		held := ParseDeclared(c.typ).Held(given)
		if held.Hash() != want.Hash() || string(held.AppendOrdered(nil)) != string(want.AppendOrdered(nil)) {
			t.Errorf("%s holds %q otherwise than %q", c.typ, c.given, c.held)
		}
	}
}
