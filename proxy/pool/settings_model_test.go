package pool

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// apply is what a server has that had one set and was sent what diff says.
func apply(t *testing.T, have map[string]string, sql string) map[string]string {
	t.Helper()
	out := maps.Clone(have)
	for cmd := range strings.SplitSeq(strings.TrimSuffix(sql, ";"), ";") {
		switch {
		case cmd == "":
		case strings.HasPrefix(cmd, "RESET "):
			name := strings.ReplaceAll(cmd[len("RESET "):], `"`, "")
			if _, ok := out[name]; !ok {
				t.Errorf("%s of what is not set", cmd)
			}
			delete(out, name)
		default:
			name, value, ok := strings.Cut(strings.TrimPrefix(cmd, "SET "), " TO ")
			if name = strings.ReplaceAll(name, `"`, ""); !ok || out[name] == value {
				t.Errorf("%s for nothing", cmd)
			}
			out[name] = value
		}
	}
	return out
}

// A set is what a map of its values is, however it came about.
func TestSettingsAreAMap(t *testing.T) {
	t.Parallel()
	chance := rand.New(rand.NewPCG(1, 2))
	type pair struct {
		set *Settings
		is  map[string]string
	}
	all := []pair{{NoSettings, map[string]string{}}}
	for range 3000 {
		from := all[chance.IntN(len(all))]
		next := pair{from.set, maps.Clone(from.is)}
		for range 1 + chance.IntN(4) {
			name, value := fmt.Sprint("p.", chance.IntN(20)), fmt.Sprintf("'%s'", strings.Repeat("v", chance.IntN(3)*50))
			switch chance.IntN(8) {
			case 0, 1:
				next.set = next.set.Without(name)
				delete(next.is, name)
			case 2:
				other := all[chance.IntN(len(all))]
				next.set = next.set.Over(other.set)
				maps.Copy(next.is, other.is)
			default:
				next.set = next.set.With(name, value)
				next.is[name] = value
			}
		}
		all = append(all, next)
		if !slices.Equal(next.set.Names(), slices.Sorted(maps.Keys(next.is))) {
			t.Fatalf("%v of %v", next.set.Names(), next.is)
		}
		size := int64(0)
		for n, v := range next.is {
			if got, ok := next.set.Get(n); !ok || got != v || !next.set.Has(n, v) || next.set.booked().Has(n, v+" ") || !next.set.booked().Has(n, v) {
				t.Fatalf("%s is %q, %v, not %q", n, got, ok, v)
			}
			size += ParameterSize(n, v)
		}
		if next.set.Size() != size {
			t.Fatalf("%d bytes, not %d", next.set.Size(), size)
		}
		if again := SettingsOf(next.is); !again.Same(next.set) || !again.booked().Same(next.set) || again.Key() != next.set.Key() {
			t.Fatal("equal sets are not the same")
		}
		other := all[chance.IntN(len(all))]
		if other.set.Same(next.set) != maps.Equal(other.is, next.is) {
			t.Fatalf("%v and %v: %v", other.is, next.is, other.set.Same(next.set))
		}
		if got := apply(t, other.is, diff(other.set.booked(), next.set)); !maps.Equal(got, next.is) {
			t.Fatalf("from %v to %v: %v", other.is, next.is, got)
		}
		leaves := false
		for n := range other.is {
			if _, ok := next.is[n]; !ok {
				leaves = true
			}
		}
		if leavesCustom(other.set, next.set) != leaves {
			t.Fatalf("from %v to %v: %v", other.is, next.is, !leaves)
		}
		base := all[chance.IntN(len(all))]
		fresh := func(s map[string]string) (n int64) {
			for name, v := range s {
				if was, ok := base.is[name]; !ok || was != v {
					n += ParameterSize(name, v)
				}
			}
			return n
		}
		if got, want := other.set.More(next.set, base.set), fresh(next.is)-fresh(other.is); got != want {
			t.Fatalf("%d bytes more, not %d", got, want)
		}
	}
}

// What is set costs what it is, whatever else is set; and so does finding out what a server lacks.
func TestASettingCostsWhatItIs(t *testing.T) {
	s := NoSettings
	for i := range 20000 {
		s = s.With(fmt.Sprintf("app.p%d", i), "'some value'")
	}
	deep := 0
	var depth func(p *parameter, at int)
	depth = func(p *parameter, at int) {
		if p != nil {
			deep = max(deep, at)
			depth(p.left, at+1)
			depth(p.right, at+1)
		}
	}
	depth(s.root, 1)
	if deep > 80 {
		t.Errorf("20,000 parameters are %d deep", deep)
	}
	value := strings.Repeat("x", 1<<20)
	var next *Settings
	if n := testing.AllocsPerRun(20, func() { next = s.With("app.p777", value) }); n > 200 {
		t.Errorf("one of 20,000 parameters: %v allocations", n)
	}
	if n := testing.AllocsPerRun(20, func() { _ = diff(s, next) }); n > 200 {
		t.Errorf("what one server lacks of 20,000 parameters: %v allocations", n)
	}
	if booked := next.booked(); booked.root.find("app.p777").value != "" || booked.root.left != next.root.left && booked.root.right != next.root.right {
		t.Error("a server's books have a long value, or share nothing with the session's")
	}
}
