package metrics

import (
	"testing"
	"time"
)

func TestHistogramPutsADurationWhereItBelongs(t *testing.T) {
	for d, want := range map[time.Duration]int{
		0: 0, time.Nanosecond: 0, 16 * time.Microsecond: 0, 16*time.Microsecond + 1: 1, 32 * time.Microsecond: 1, 33 * time.Microsecond: 2, time.Hour: buckets - 1, -time.Second: 0,
	} {
		var h Histogram
		h.Observe(d)
		if s := h.State(); s[want] != 1 {
			t.Errorf("%s is in %v, not in bucket %d", d, s, want)
		}
	}
	var h Histogram
	for i := range 100 {
		h.Observe(time.Duration(i+1) * time.Millisecond)
	}
	if q := h.State().Quantile(0.5, HistogramState{}); q < 50*time.Millisecond || q > 100*time.Millisecond {
		t.Errorf("the median of 1 to 100 ms is %s", q)
	}
	before := h.State()
	h.Observe(3 * time.Second)
	if q := h.State().Quantile(0.5, before); q < 3*time.Second {
		t.Errorf("of what came since: %s", q)
	}
	if a := testing.AllocsPerRun(100, func() { h.Observe(time.Millisecond) }); a > 0 {
		t.Errorf("%v allocations", a)
	}
}
