package dashboard

import (
	"math"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
)

// The lines on the page reach back 15 minutes, a point each second. The small ones have a point for each 15 seconds.
const (
	history = 900
	coarse  = 15
	points  = history / coarse
)

// quantileSpan is over how many seconds the quantiles of times are taken.
const quantileSpan = 10

// line is the recent values of one thing, the newest last; NaN is unknown.
type line struct{ vals []float32 }

func (l *line) add(v float64) {
	if len(l.vals) >= history {
		copy(l.vals, l.vals[1:])
		l.vals = l.vals[:history-1]
	}
	l.vals = append(l.vals, float32(v))
}

func (l *line) last() *float64 { return known(l.vals[len(l.vals)-1]) }

func known(v float32) *float64 {
	if math.IsNaN(float64(v)) {
		return nil
	}
	f := math.Round(float64(v)*1000) / 1000
	return &f
}

// whole is every value, nil for unknown.
func (l *line) whole() []*float64 {
	out := make([]*float64, len(l.vals))
	for i, v := range l.vals {
		out[i] = known(v)
	}
	return out
}

// small is the largest value of every 15 seconds.
func (l *line) small() []*float64 {
	out := make([]*float64, 0, points)
	for from := len(l.vals) % coarse; from < len(l.vals); from += coarse {
		most := float32(math.NaN())
		for _, v := range l.vals[from : from+coarse] {
			if most != most || v > most {
				most = v
			}
		}
		out = append(out, known(most))
	}
	return out
}

// sampleLocked takes one second's values. The caller holds mu.
func (s *Server) sampleLocked(now time.Time, replicas *table) {
	seen := map[string]bool{}
	put := func(key string, v float64) {
		seen[key] = true
		l := s.lines[key]
		if l == nil {
			l = &line{}
			s.lines[key] = l
		}
		l.add(v)
	}
	database, node, role, lag, reads := replicas.column("database"), replicas.column("node"), replicas.column("role"), replicas.column("lag_ms"), replicas.column("reads")
	span := now.Sub(s.sampled).Seconds()
	for _, r := range replicas.Rows {
		key, _ := r[database].(string)
		name, _ := r[node].(string)
		key += "/" + name
		if r[role] != "primary" {
			v := math.NaN()
			if ms, ok := r[lag].(int64); ok {
				v = float64(ms)
			}
			put("lag:"+key, v)
		}
		n, _ := r[reads].(int64)
		if was, ok := s.reads[key]; ok && span > 0 {
			put("reads:"+key, float64(n-was)/span)
		}
		s.reads[key] = n
	}
	for _, db := range s.Admin.Databases() {
		t := s.Admin.Traffic(db)
		past := s.traffic[db]
		if len(past) > 0 && span > 0 {
			last := past[len(past)-1]
			put("rate:"+db, float64(t.Queries-last.Queries)/span)
			put("errors:"+db, float64(t.Errors-last.Errors)/span)
			old := past[0]
			put("p50:"+db, ms(t.Quantile(0.5, old)))
			put("p99:"+db, ms(t.Quantile(0.99, old)))
			share := math.NaN()
			if n := t.ReadsByChoice - old.ReadsByChoice; n > 0 {
				share = 100 * float64(t.ReplicaReads-old.ReplicaReads) / float64(n)
			}
			put("share:"+db, share)
		}
		if past = append(past, t); len(past) > quantileSpan {
			past = past[1:]
		}
		s.traffic[db] = past
	}
	for key := range s.lines { // of nodes and databases that are gone
		if !seen[key] && span > 0 {
			delete(s.lines, key)
		}
	}
	s.sampled = now
}

// ms is a time in milliseconds, NaN for none.
func ms(d time.Duration) float64 {
	if d == 0 {
		return math.NaN()
	}
	return float64(d.Microseconds()) / 1000
}

// table is a view with its rows.
type table struct {
	Columns []string `json:"columns"`
	Rows    [][]any  `json:"rows"`
}

func (t *table) column(name string) int {
	for i, c := range t.Columns {
		if c == name {
			return i
		}
	}
	return -1
}

func (s *Server) table(view string) *table {
	v := admin.Views[view]
	rows := v.Rows(s.Admin)
	if rows == nil {
		rows = [][]any{}
	}
	return &table{v.Columns, rows}
}

// isLine says whether a key is one of a line, as the page asks for it.
func isLine(key string) bool {
	kind, _, ok := strings.Cut(key, ":")
	if !ok {
		return false
	}
	switch kind {
	case "lag", "reads", "rate", "errors", "p50", "p99", "share":
		return true
	}
	return false
}
