package metrics

import (
	"testing"
	"time"
)

func observe(h *[stages]Histogram, list ...time.Duration) {
	var r Recorder
	now := time.Now()
	for _, d := range list {
		r.Observe(Whole, d)
		r.End(h, now)
	}
	r.Flush(h, now)
}

func TestHistogramPutsADurationWhereItBelongs(t *testing.T) {
	for d, want := range map[time.Duration]int{
		0: 0, time.Nanosecond: 0, 16 * time.Microsecond: 0, 16*time.Microsecond + 1: 1, 32 * time.Microsecond: 1, 33 * time.Microsecond: 2, time.Hour: buckets - 1, -time.Second: 0,
	} {
		var h [stages]Histogram
		observe(&h, d)
		if s := h[Whole].State(); s[want] != 1 {
			t.Errorf("%s is in %v, not in bucket %d", d, s, want)
		}
	}
	var h [stages]Histogram
	for i := range 1000 {
		observe(&h, time.Duration(i+1)*100*time.Microsecond)
	}
	if q := h[Whole].State().Quantile(0.5, HistogramState{}); q < 50*time.Millisecond || q > 100*time.Millisecond {
		t.Errorf("the median of 0.1 to 100 ms is %s", q)
	}
	before := h[Whole].State()
	observe(&h, 3*time.Second)
	if q := h[Whole].State().Quantile(0.5, before); q < 3*time.Second {
		t.Errorf("of what came since: %s", q)
	}
	if s := h[Wait].State(); s != (HistogramState{}) {
		t.Errorf("another stage has %v", s)
	}
}

// What is gathered is handed on in time, whole, and without allocating.
func TestRecorderHandsOn(t *testing.T) {
	var h [stages]Histogram
	var r Recorder
	start := time.Now()
	r.since = start
	total := func() (n uint64) {
		for _, c := range h[Whole].State() {
			n += c
		}
		return n
	}
	for range gathered - 1 {
		r.Observe(Whole, time.Millisecond)
		r.End(&h, start)
	}
	if total() != 0 {
		t.Errorf("%d were handed on early", total())
	}
	r.Observe(Whole, time.Millisecond)
	r.End(&h, start)
	if total() != gathered {
		t.Errorf("%d of %d were handed on", total(), gathered)
	}
	r.Observe(Whole, time.Millisecond)
	r.End(&h, start.Add(gatherFor))
	if total() != gathered+1 || h[Whole].sum.Load() != int64((gathered+1)*time.Millisecond) {
		t.Errorf("after a while: %d, %s", total(), time.Duration(h[Whole].sum.Load()))
	}
	if a := testing.AllocsPerRun(1000, func() { r.Observe(Whole, time.Millisecond); r.End(&h, start) }); a > 0 {
		t.Errorf("%v allocations", a)
	}
}
