package metrics

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The buckets of a Histogram end at 16 us and at each power of two times that, up to 33 s. The last has no end.
const (
	firstBucket = 16 * time.Microsecond
	buckets     = 23
)

// Histogram counts durations, which Recorders hand on to it.
type Histogram struct {
	counts [buckets]atomic.Uint64
	sum    atomic.Int64
}

func bucketOf(d time.Duration) int {
	if d == 0 {
		return 0
	}
	return min(bits.Len64(uint64((d-1)/firstBucket)), buckets-1)
}

// Recorder gathers what one session observes and hands it on now and then: counters that every session writes to would
// cost more than what they count. The zero value is ready. One goroutine uses it.
type Recorder struct {
	n      int
	since  time.Time
	counts [stages][buckets]uint16
	sums   [stages]time.Duration
}

// A Recorder hands on after so many requests or so long, whichever comes first.
const (
	gathered  = 64
	gatherFor = 50 * time.Millisecond
)

// Observe notes one duration.
func (r *Recorder) Observe(s Stage, d time.Duration) {
	d = max(d, 0)
	r.counts[s][bucketOf(d)]++
	r.sums[s] += d
}

// End ends one request, and hands on if it is time.
func (r *Recorder) End(to *[stages]Histogram, now time.Time) {
	if r.n++; r.n >= gathered || now.Sub(r.since) >= gatherFor {
		r.Flush(to, now)
	}
}

// Flush hands on what was gathered.
func (r *Recorder) Flush(to *[stages]Histogram, now time.Time) {
	if r.n == 0 {
		return
	}
	for s := range r.counts {
		for i, n := range r.counts[s] {
			if n > 0 {
				to[s].counts[i].Add(uint64(n))
			}
		}
		if r.sums[s] > 0 {
			to[s].sum.Add(int64(r.sums[s]))
		}
	}
	*r = Recorder{since: now}
}

// HistogramState is a Histogram at one moment.
type HistogramState [buckets]uint64

// State reads the histogram.
func (h *Histogram) State() (s HistogramState) {
	for i := range s {
		s[i] = h.counts[i].Load()
	}
	return s
}

// Quantile is the duration below which a share of what was observed since an earlier state lies, to the end of its bucket;
// 0 if that is nothing.
func (s HistogramState) Quantile(q float64, since HistogramState) time.Duration {
	total := uint64(0)
	for i := range s {
		s[i] -= since[i]
		total += s[i]
	}
	if total == 0 {
		return 0
	}
	sum := uint64(0)
	for i, n := range s {
		if sum += n; float64(sum) >= q*float64(total) {
			return firstBucket << i
		}
	}
	return firstBucket << (buckets - 1)
}

// metric is the histogram as Prometheus reads it.
func (h *Histogram) metric(desc *prometheus.Desc, labels ...string) prometheus.Metric {
	ends := make(map[float64]uint64, buckets)
	total := uint64(0)
	for i := range buckets - 1 {
		total += h.counts[i].Load()
		ends[(firstBucket << i).Seconds()] = total
	}
	total += h.counts[buckets-1].Load()
	return prometheus.MustNewConstHistogram(desc, total, float64(h.sum.Load())/1e9, ends, labels...)
}
