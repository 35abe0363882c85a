// Package dashboard serves the page, the metrics and the health checks over HTTP.
//
// The page draws what the admin views say and nothing else. It asks for nothing outside its own address,
// and for a login unless it listens on loopback.
package dashboard

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
)

//go:embed web
var web embed.FS

// history is how long the lines on the page reach back: 15 minutes, a point each second.
const history = 900

// Server is the HTTP side. Its fields are set before Handler.
type Server struct {
	Admin    *admin.Admin
	Gatherer prometheus.Gatherer
	// Ready says whether the process should be sent clients, and what is amiss, also if it should.
	Ready func() (bool, string)
	// Login checks a user; nil admits everybody.
	Login func(user, password string) bool

	mu     sync.Mutex // guards the rest
	lag    map[string]*series
	rate   map[string]*series
	last   map[string]int64
	lastAt time.Time
	watch  map[chan []byte]bool
}

// series is a ring of recent values; nil is unknown.
type series struct{ points []*float64 }

func (s *series) add(v *float64) {
	if len(s.points) >= history {
		s.points = append(s.points[:0], s.points[1:]...)
	}
	s.points = append(s.points, v)
}

// Handler is the routes.
func (s *Server) Handler() http.Handler {
	s.lag, s.rate, s.last, s.watch = map[string]*series{}, map[string]*series{}, map[string]int64{}, map[chan []byte]bool{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", s.guard(promhttp.HandlerFor(s.Gatherer, promhttp.HandlerOpts{})))
	mux.Handle("GET /api/state", s.guard(http.HandlerFunc(s.state)))
	mux.Handle("GET /api/events", s.guard(http.HandlerFunc(s.events)))
	files := map[string]string{"GET /{$}": "index.html", "GET /app.js": "app.js", "GET /style.css": "style.css"}
	for route, name := range files {
		mux.Handle(route, s.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.file(w, r, name) })))
	}
	return secured(mux)
}

func secured(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		h.ServeHTTP(w, r)
	})
}

func (s *Server) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.Login != nil {
			user, pw, ok := r.BasicAuth()
			if !ok || !s.Login(user, pw) {
				w.Header().Set("WWW-Authenticate", `Basic realm="pgmosaic"`)
				http.Error(w, "log in as one of admin_users or stats_users", http.StatusUnauthorized)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

func (s *Server) file(w http.ResponseWriter, r *http.Request, name string) {
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, web, "web/"+name)
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	ok, why := s.Ready()
	if !ok {
		http.Error(w, why, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
	if why != "" {
		fmt.Fprintln(w, why)
	}
}

// Run samples once a second for the lines, and pushes the state to the pages that are open, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			s.sample(now)
			s.push()
		}
	}
}

func (s *Server) rows(view string) []map[string]any {
	v := admin.Views[view]
	out := []map[string]any{}
	for _, r := range v.Rows(s.Admin) {
		m := make(map[string]any, len(v.Columns))
		for i, c := range v.Columns {
			m[c] = r[i]
		}
		out = append(out, m)
	}
	return out
}

func (s *Server) sample(now time.Time) {
	replicas, stats := s.rows("replicas"), s.rows("stats")
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range replicas {
		if r["role"] == "primary" {
			continue
		}
		var v *float64
		if ms, ok := r["lag_ms"].(int64); ok {
			f := float64(ms)
			v = &f
		}
		s.seriesLocked(s.lag, fmt.Sprint(r["database"], "/", r["node"])).add(v)
	}
	for _, r := range stats {
		name := fmt.Sprint(r["database"])
		n, _ := r["total_query_count"].(int64)
		if old, ok := s.last[name]; ok && now.After(s.lastAt) {
			f := float64(n-old) / now.Sub(s.lastAt).Seconds()
			s.seriesLocked(s.rate, name).add(&f)
		}
		s.last[name] = n
	}
	s.lastAt = now
}

func (s *Server) seriesLocked(m map[string]*series, key string) *series {
	x := m[key]
	if x == nil {
		x = &series{}
		m[key] = x
	}
	return x
}

// document is all that the page needs.
func (s *Server) document(lines bool) []byte {
	ok, why := s.Ready()
	doc := map[string]any{"at": time.Now().UnixMilli(), "ready": ok, "reason": why, "version": s.Admin.Version}
	for _, v := range []string{"shards", "replicas", "node_pools", "stats", "refusals", "tables", "slots"} {
		doc[v] = s.rows(v)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	tail := func(m map[string]*series) map[string][]*float64 {
		out := map[string][]*float64{}
		for k, x := range m {
			p := x.points
			if !lines && len(p) > 1 {
				p = p[len(p)-1:]
			}
			out[k] = append([]*float64{}, p...)
		}
		return out
	}
	doc["lag"], doc["rate"], doc["whole"] = tail(s.lag), tail(s.rate), lines
	b, err := json.Marshal(doc)
	if err != nil {
		return []byte("{}") // views hold plain values only
	}
	return b
}

func (s *Server) state(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(s.document(true))
}

func (s *Server) push() {
	s.mu.Lock()
	idle := len(s.watch) == 0
	s.mu.Unlock()
	if idle {
		return
	}
	b := s.document(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.watch {
		select {
		case ch <- b:
		default: // a slow page misses a second
		}
	}
}

// events is the stream of states: the whole first, then the newest points each second.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	flush, ok := w.(http.Flusher)
	if !ok {
		http.Error(w, "no streaming", http.StatusInternalServerError)
		return
	}
	ch := make(chan []byte, 2)
	s.mu.Lock()
	s.watch[ch] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watch, ch)
		s.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	b := s.document(true)
	for {
		if _, err := fmt.Fprintf(w, "data: %s\n\n", b); err != nil {
			return
		}
		flush.Flush()
		select {
		case <-r.Context().Done():
			return
		case b = <-ch:
		}
	}
}

// Loopback says whether an address can be reached from this machine only.
func Loopback(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if _, err := strconv.Atoi(port); err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
