// Package dashboard serves the page, the metrics and the health checks over HTTP.
//
// The page draws what the admin views say and nothing else, and changes nothing but by admin SQL, which it shows first. It
// asks for nothing outside its own address, and for a login unless it listens on loopback.
package dashboard

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

//go:embed web
var web embed.FS

// Server is the HTTP side. Its fields are set before Handler.
type Server struct {
	Admin    *admin.Admin
	Gatherer prometheus.Gatherer
	// Ready says whether the process should be sent clients, and what is amiss, also if it should.
	Ready func() (bool, string)
	// Login checks a user, and says whether it is an admin, and the mark of the standing that it was let in by.
	Login func(ctx context.Context, from netip.AddrPort, user, password string) (isAdmin bool, mark string, err error)
	// Standing is what a user who has logged in may do now, and a mark that is another one when it must log in again.
	Standing func(user string) (isAdmin, may bool, mark string)
	// Open lets anybody look without a login: for addresses that only this machine reaches.
	Open   bool
	Bounds Bounds

	conns   conns
	ending  chan struct{} // closed by Finish
	mu      sync.Mutex    // guards the rest
	lines   map[string]*line
	reads   map[string]int64
	traffic map[string][]admin.Traffic
	sampled time.Time
	watch   map[chan []byte]bool
	visits  map[string]visit
	streams [2]int // of those who have not logged in, and of those who have
}

// files are the page's, which hold nothing that a login protects.
var files = map[string]string{
	"GET /{$}": "index.html", "GET /style.css": "style.css",
	"GET /vendor/uplot.js": "vendor/uPlot.iife.min.js", "GET /vendor/uplot.css": "vendor/uPlot.min.css",
}

// Handler is the routes.
func (s *Server) Handler() http.Handler {
	s.lines, s.reads, s.traffic = map[string]*line{}, map[string]int64{}, map[string][]admin.Traffic{}
	s.ending = make(chan struct{})
	s.watch, s.visits = map[chan []byte]bool{}, map[string]visit{}
	open, rest := http.NewServeMux(), http.NewServeMux()
	open.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	open.HandleFunc("GET /readyz", s.readyz)
	open.Handle("/", s.local(rest))
	rest.Handle("GET /metrics", s.guard(promhttp.HandlerFor(s.Gatherer, promhttp.HandlerOpts{}).ServeHTTP))
	rest.Handle("GET /api/me", s.guard(func(w http.ResponseWriter, r *http.Request) { writeJSON(w, http.StatusOK, viewerOf(r)) }))
	rest.Handle("GET /api/events", s.guard(s.events))
	rest.Handle("GET /api/history", s.guard(s.history))
	rest.Handle("GET /api/view/{view}", s.guard(s.view))
	rest.Handle("POST /api/exec", s.guard(s.exec))
	rest.HandleFunc("POST /api/login", s.login)
	rest.HandleFunc("POST /api/logout", s.logout)
	serve := func(route string, name func(*http.Request) string) {
		rest.HandleFunc(route, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-cache")
			http.ServeFileFS(w, r, web, "web/"+name(r))
		})
	}
	for route, name := range files {
		serve(route, func(*http.Request) string { return name })
	}
	serve("GET /js/{name}", func(r *http.Request) string { return "js/" + r.PathValue("name") })
	return secured(caught(open))
}

func secured(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		h.ServeHTTP(w, r)
	})
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

// Run takes a sample each second for the lines, and pushes the state to the pages that are open, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		s.second(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// pushed are the views that every page needs, every second.
var pushed = []string{"shards", "node_pools", "jobs", "events", "refusals", "databases"}

// mostPushed bounds the rows of those that only grow.
const mostPushed = 50

func (s *Server) second(now time.Time) {
	replicas := s.table("replicas")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sampleLocked(now, replicas)
	if len(s.watch) == 0 {
		return
	}
	newest := s.documentLocked(now, replicas, false)
	for ch := range s.watch {
		select {
		case ch <- newest:
		default: // a slow page misses a second
		}
	}
}

// documentLocked is all that the overview needs. With small it has the small lines too.
func (s *Server) documentLocked(now time.Time, replicas *table, small bool) []byte {
	ready, why := s.Ready()
	doc := map[string]any{"at": now.UnixMilli(), "ready": ready, "reason": why, "version": s.Admin.Version, "replicas": replicas, "doubt": s.Admin.Doubt()}
	for _, v := range pushed {
		t := s.table(v)
		if v != "shards" && v != "databases" && v != "node_pools" && len(t.Rows) > mostPushed {
			t.Rows = t.Rows[:mostPushed]
		}
		doc[v] = t
	}
	values, lines := map[string]*float64{}, map[string][]*float64{}
	for k, l := range s.lines {
		values[k] = l.last()
		if small {
			lines[k] = l.small()
		}
	}
	doc["now"] = values
	if small {
		doc["lines"] = lines
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return []byte("{}") // views hold plain values only
	}
	return b
}

// watched has ch sent what the pages are told each second, and returns the first of it.
func (s *Server) watched(ch chan []byte) []byte {
	replicas := s.table("replicas")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch[ch] = true
	return s.documentLocked(time.Now(), replicas, true)
}

// events is the stream of states, one each second. The first has the lines as well. It ends with the login that it came by.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	leave, ok := s.stream(viewerOf(r))
	if !ok {
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	defer leave()
	lasting(w)
	rc := http.NewResponseController(w)
	ch := make(chan []byte, 2)
	defer func() {
		s.mu.Lock()
		delete(s.watch, ch)
		s.mu.Unlock()
	}()
	b := s.watched(ch)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	for {
		_ = rc.SetWriteDeadline(time.Now().Add(s.Bounds.Request)) // what cannot keep a deadline has none
		if _, err := fmt.Fprintf(w, "data: %s\n\n", b); err != nil {
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.ending:
			return
		case b = <-ch:
		}
		if !s.stillIn(r) {
			return
		}
	}
}

// stream takes one of the streams, if there is one left for such a viewer. leave gives it back.
func (s *Server) stream(v viewer) (leave func(), ok bool) {
	known, most := 1, s.Bounds.Streams
	if v.User == "" {
		known, most = 0, s.Bounds.Streams/2
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[0]+s.streams[1] >= s.Bounds.Streams || s.streams[known] >= most {
		return nil, false
	}
	s.streams[known]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.streams[known]--
	}, true
}

// history is the last 15 minutes of some lines, a value for each second, the newest last.
func (s *Server) history(w http.ResponseWriter, r *http.Request) {
	at, lines := s.linesOf(r.URL.Query()["key"])
	writeJSON(w, http.StatusOK, map[string]any{"at": at.UnixMilli(), "lines": lines})
}

func (s *Server) linesOf(keys []string) (at time.Time, lines map[string][]*float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines = map[string][]*float64{}
	for _, key := range keys {
		if l := s.lines[key]; l != nil && isLine(key) {
			lines[key] = l.whole()
		}
	}
	return s.sampled, lines
}

// mostRows bounds what a view gives to the page.
const mostRows = 1000

// view is a view's rows: those that hold every word of q in some column, in the order of a column.
func (s *Server) view(w http.ResponseWriter, r *http.Request) {
	name, q := strings.ReplaceAll(r.PathValue("view"), "_history", " history"), r.URL.Query()
	if admin.Views[name] == nil {
		http.Error(w, "there is no such view", http.StatusNotFound)
		return
	}
	if name == "config" && viewerOf(r).User == "" { // it names files and hosts
		http.Error(w, "log in to see this", http.StatusForbidden)
		return
	}
	t := s.table(name)
	total := len(t.Rows)
	if words := strings.Fields(strings.ToLower(q.Get("q"))); len(words) > 0 {
		t.Rows = slices.DeleteFunc(t.Rows, func(row []any) bool {
			text := strings.ToLower(fmt.Sprintln(row...))
			return slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
		})
	}
	if by := t.column(q.Get("by")); by >= 0 {
		slices.SortStableFunc(t.Rows, func(a, b []any) int {
			c := admin.Compare(a[by], b[by])
			if q.Get("desc") != "" {
				c = -c
			}
			return c
		})
	}
	found := len(t.Rows)
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil || limit < 1 || limit > mostRows {
		limit = mostRows
	}
	if found > limit {
		t.Rows = t.Rows[:limit]
	}
	writeJSON(w, http.StatusOK, map[string]any{"columns": t.Columns, "rows": t.Rows, "found": found, "total": total})
}

// forAnybody is what the page asks for those who have not logged in.
var forAnybody = regexp.MustCompile(`(?i)^\s*(explain\s+route|show\s+map\s+as\s+sql\s*$)`)

// exec runs one statement of admin SQL: for those who may only look, one that changes nothing.
func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	var in struct{ SQL string }
	if !readJSON(w, r, &in) {
		return
	}
	lasting(w)
	v := viewerOf(r)
	if v.User == "" && !forAnybody.MatchString(in.SQL) {
		writeJSON(w, http.StatusForbidden, map[string]string{"code": pgsql.InsufficientPrivilege, "message": "permission denied: log in to run this", "hint": "Use a name of admin_users or stats_users."})
		return
	}
	res, err := s.Admin.Exec(r.Context(), in.SQL, !v.Admin)
	if err != nil {
		out := map[string]any{"message": err.Error()}
		var e interface{ SQLState() string }
		if errors.As(err, &e) {
			out["code"] = e.SQLState()
		}
		var h interface{ ErrorHint() string }
		if errors.As(err, &h) {
			out["hint"] = h.ErrorHint()
		}
		writeJSON(w, http.StatusUnprocessableEntity, out)
		return
	}
	if v.Admin {
		s.Admin.Log.Info("admin SQL from the dashboard", "user", v.User, "statement", res.Tag)
	}
	if res.Rows == nil {
		res.Rows = [][]any{}
	}
	writeJSON(w, http.StatusOK, map[string]any{"columns": res.Columns, "rows": res.Rows, "tag": res.Tag})
}
