package branch

import (
	"errors"
	"slices"
	"testing"
)

// Who decides is not prepared, and can be written to if anyone can; the others stay in their order.
func TestWhoDecides(t *testing.T) {
	kinds := []Ending{{}, {Bound: true}, {Only: true}, {Bound: true, Only: true}}
	for is := range 64 {
		came := []*Branch{{Ending: kinds[is%4]}, {Ending: kinds[is/4%4]}, {Ending: kinds[is/16]}}
		bound := slices.DeleteFunc(slices.Clone(came), func(b *Branch) bool { return !b.Bound })
		free := slices.DeleteFunc(slices.Clone(came), func(b *Branch) bool { return b.Only })
		writers := slices.Clone(came)
		err := DecidesFirst(writers)
		refused, decider := error(nil), came[0]
		switch {
		case len(bound) > 1:
			refused = ErrTwoBound
		case len(bound) == 1 && bound[0].Only:
			refused = ErrBoundReadOnly
		case len(bound) == 1:
			decider = bound[0]
		case len(free) > 0:
			decider = free[0]
		}
		switch {
		case refused != nil:
			if !errors.Is(err, refused) {
				t.Errorf("%d: %v, not %v", is, err, refused)
			}
			continue
		case err != nil || writers[0] != decider:
			t.Errorf("%d: %v, %+v decides", is, err, writers[0].Ending)
		}
		left := slices.DeleteFunc(slices.Clone(writers[1:]), func(b *Branch) bool { return b.Only })
		if want := slices.DeleteFunc(slices.Clone(came), func(b *Branch) bool { return b.Only || b == decider }); !slices.Equal(left, want) {
			t.Errorf("%d: the others are in another order", is)
		}
	}
}
