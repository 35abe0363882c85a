package pgsql

import (
	"slices"
	"testing"
)

func TestNamesAreQuoted(t *testing.T) {
	for _, x := range []struct{ got, want string }{
		{Ident("x"), `"x"`},
		{Ident("x.y"), `"x.y"`},
		{Ident(`a"b`), `"a""b"`},
		{Ident("Ünï cödé"), `"Ünï cödé"`},
		{Qualified("a.b", "c.d"), `"a.b"."c.d"`},
		{Qualified("", "c.d"), `"c.d"`},
		{List([]string{"a", "b.c"}), `"a", "b.c"`},
		{Setting("my.own"), `"my"."own"`},
		{Setting("work_mem"), `"work_mem"`},
		{Plain("orders_2"), "orders_2"},
		{Plain("odd.name"), `"odd.name"`},
		{Plain("Odd"), `"Odd"`},
		{Plain("2nd"), `"2nd"`},
		{Plain(""), `""`},
		{Literal("it's"), "'it''s'"},
		{Literal(`a\b'c`), `E'a\\b''c'`},
		{SettingValue("search_path", `"a,b", C ,"$user", "d""e"`), `'a,b', 'c', '$user', 'd"e'`},
		{SettingValue("search_path", `a, `), `'a, '`}, // the server says what is wrong with it
		{SettingValue("search_path", ""), `''`},
		{SettingValue("temp_tablespaces", `fast, "Slow"`), `'fast', 'Slow'`},
		{SettingValue("timezone", "a,b"), `'a,b'`},
		{Array([]string{"a", `b"c`, `d\e`, "f,g"}), `{"a","b\"c","d\\e","f,g"}`},
		{Array(nil), "{}"},
	} {
		if x.got != x.want {
			t.Errorf("%s, want %s", x.got, x.want)
		}
	}
}

func TestNamesAreReadBack(t *testing.T) {
	for _, name := range []string{"x", "x.y", `a"b`, "", `""`, " ", "ü,ö"} {
		got, rest, ok := CutIdent(Ident(name) + ":1")
		if got != name || rest != ":1" || !ok {
			t.Errorf("%q: %q, %q, %v", name, got, rest, ok)
		}
		list, ok := Names(List([]string{name, "z"}))
		if !ok || !slices.Equal(list, []string{name, "z"}) {
			t.Errorf("%q: %q", name, list)
		}
	}
	for _, bad := range []string{`"a`, `a,`, `,a`, `a b`, `"a"b`, `a,,b`} {
		if list, ok := Names(bad); ok {
			t.Errorf("%s: %q", bad, list)
		}
	}
	for _, texts := range [][]string{{"a"}, {""}, {"it's", `b\c`, `E'`, ", "}, {`\\`}} {
		if got, ok := Texts(Literals(texts)); !ok || !slices.Equal(got, texts) {
			t.Errorf("%q: %q", texts, got)
		}
	}
	for _, bad := range []string{"", "a", "'a", "'a' ", "'a',", "'a','b'"} {
		if got, ok := Texts(bad); ok {
			t.Errorf("%s: %q", bad, got)
		}
	}
}
