package txn

import (
	"slices"
	"testing"
)

func TestVictims(t *testing.T) {
	younger := func(a, b uint32) bool { return a > b }
	for name, c := range map[string]struct {
		waits []Wait
		want  []uint32
	}{
		"nothing":               {nil, nil},
		"a chain":               {[]Wait{{"a", 1, 2}, {"b", 2, 3}, {"a", 3, 4}}, nil},
		"two over two shards":   {[]Wait{{"a", 1, 2}, {"b", 2, 1}}, []uint32{2}},
		"two on one shard":      {[]Wait{{"a", 1, 2}, {"a", 2, 1}}, nil},
		"three":                 {[]Wait{{"a", 1, 3}, {"b", 3, 2}, {"c", 2, 1}}, []uint32{3}},
		"a queue behind a ring": {[]Wait{{"a", 9, 1}, {"a", 8, 1}, {"a", 1, 2}, {"b", 2, 1}}, []uint32{2}},
		"two rings":             {[]Wait{{"a", 1, 2}, {"b", 2, 1}, {"a", 5, 6}, {"c", 6, 5}}, []uint32{2, 6}},
		"rings that share one":  {[]Wait{{"a", 1, 2}, {"b", 2, 1}, {"a", 3, 2}, {"b", 2, 3}}, []uint32{2}},
		"two holders":           {[]Wait{{"a", 1, 7}, {"a", 1, 2}, {"b", 2, 1}}, []uint32{2}},
		"local within a wide":   {[]Wait{{"a", 1, 2}, {"a", 2, 1}, {"b", 2, 3}, {"c", 3, 1}}, nil}, // its shard breaks the one; the next round looks at what is left
	} {
		got := Victims(c.waits, younger)
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestOnlyUnbrokenWaitsLast(t *testing.T) {
	w, back := Wait{"a", 1, 2}, Wait{"b", 2, 1}
	before := []seen{{w, "10 9 8"}, {back, "11 9 8"}}
	for name, c := range map[string]struct {
		now  []seen
		want []Wait
	}{
		"both go on":                 {before, []Wait{w, back}},
		"one is another wait":        {[]seen{{w, "10 9 8"}, {back, "12 9 8"}}, []Wait{w}},
		"for another transaction":    {[]seen{{w, "10 9 8"}, {back, "11 9 9"}}, []Wait{w}},
		"one has just begun":         {[]seen{{w, "9 8"}, {back, "11 9 8"}}, []Wait{back}},
		"one has come":               {[]seen{{Wait{"a", 3, 1}, "1 1 1"}, {w, "10 9 8"}}, []Wait{w}},
		"the same at another server": {[]seen{{Wait{"b", 1, 2}, "10 9 8"}}, nil},
	} {
		if got := lasting(before, c.now); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
