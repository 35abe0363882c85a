package fresh

import (
	"slices"
	"strings"
	"testing"
)

func TestTokensAreReadAsTheyArePrinted(t *testing.T) {
	for _, in := range []string{
		"", "s1:7412345678901234567:1:0/5000028", `s1:7:1:16/B374D848,"a ""b"", c:d":8:4294967295:FFFFFFFF/FFFFFFFF`,
	} {
		marks, err := ParseToken(in)
		var out []string
		for _, m := range marks {
			out = append(out, m.String())
		}
		if got := strings.Join(out, ","); err != nil || got != in {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"s1", "s1:", "s1:1:1", "s1:1:1:0", "s1:1:-1:0/0", "s1:1:4294967296:0/0", "s1:1:1:0/0,", `"s1:1:1:0/0`, `"s1"1:1:0/0`, "s1:1:1:0/0:1"} {
		if m, err := ParseToken(in); err == nil {
			t.Errorf("%q was read as %v", in, m)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add(`s1:7:1:16/B374D848,"a ""b"", c:d":8:2:0/1`)
	f.Fuzz(func(t *testing.T, s string) {
		marks, err := ParseToken(s)
		if err != nil {
			return
		}
		var out []string
		for _, m := range marks {
			out = append(out, m.String())
		}
		again, err := ParseToken(strings.Join(out, ","))
		if err != nil || !slices.Equal(again, marks) {
			t.Fatalf("%q: %v printed and read again: %v, %v", s, marks, again, err)
		}
	})
}
