package pipeline

import (
	"slices"
	"strings"
	"testing"
)

// Each message of a server's, by its type, belongs to some answers and is the last of some: all others are faults.
func TestWhatAnswersAreMadeOf(t *testing.T) {
	for a := range answersEnd {
		for typ := range 256 {
			typ := byte(typ)
			belongs, last := a.Takes(typ)
			want := strings.ContainsRune("NSAE", rune(typ))
			switch a {
			case Completed, Hidden:
				want = want || strings.ContainsRune("123", rune(typ))
			case Described:
				want = want || strings.ContainsRune("Tn", rune(typ))
			case Executed:
				want = want || strings.ContainsRune("DGHdcCIs", rune(typ))
			case Compared:
				want = want || typ == 't'
			case Own, answersEnd:
			}
			if belongs != want || last && !belongs {
				t.Errorf("%s takes %q: %v, %v", a, typ, belongs, last)
			}
			if strings.ContainsRune("NSADGHdcZRKWvV", rune(typ)) && last {
				t.Errorf("%q ends what is %s", typ, a)
			}
		}
	}
}

// From whatever state, a portal that has died stays so, and one that has failed is not run again. Each way through four events is gone.
func TestPortalsAreRunWhereTheyMayBe(t *testing.T) {
	var walk func(s State, seen []Event)
	walk = func(s State, seen []Event) {
		if dead := slices.Contains(seen, Dies); dead != (s == Dead) {
			t.Errorf("%v: %s", seen, s)
		}
		if s.MayRun() != (len(seen) == 0) {
			t.Errorf("%v: it may run: %v", seen, s.MayRun())
		}
		if len(seen) == 4 {
			return
		}
		for e := range eventsEnd {
			next := s
			if _, ok := States[s][e]; !ok {
				if s != Broken || e == Dies {
					t.Errorf("%s: %s is no event", s, e)
				}
				continue
			}
			next.On(e)
			walk(next, append(slices.Clip(seen), e))
		}
	}
	walk(Ready, nil)
	defer func() {
		if recover() == nil {
			t.Error("one that has failed was run")
		}
	}()
	s := Broken
	s.On(Runs)
}
