package planner

import (
	"testing"
	"time"
)

func TestOneSlowLookDelaysNoOther(t *testing.T) {
	for _, x := range []struct{ took, before, want time.Duration }{
		{0, 0, watchPeriod},
		{3 * time.Millisecond, 3 * time.Millisecond, watchPeriod},
		{9 * time.Second, 3 * time.Millisecond, watchPeriod},
		{200 * time.Millisecond, 300 * time.Millisecond, 10 * time.Second},
		{9 * time.Second, 9 * time.Second, watchMost},
	} {
		if got := pauseAfter(x.took, x.before); got != x.want {
			t.Errorf("after %s and %s: %s, want %s", x.took, x.before, got, x.want)
		}
	}
}
