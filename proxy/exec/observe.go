package exec

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"
	"unsafe"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// Logging is which statements the log has a line for. Their literals and parameters are hidden unless Parameters is set.
type Logging struct {
	Slow       time.Duration // those that take at least so long; 0: none
	Failed     bool          // those that end with an error
	Refused    bool          // those that no plan can answer
	Parameters bool
}

// Trace is one statement that was chosen to be traced, with the shards that took part.
type Trace struct {
	Database, Role, Statement string // without literals
	Start, End                time.Time
	Code                      string // SQLSTATE, empty for success
	Parent                    string // a W3C traceparent that the statement carried in a comment, or empty
	Parts                     []TracePart
}

// TracePart is a shard's part in it.
type TracePart struct {
	Shard, Node string
	Start, End  time.Time
}

// Tracing chooses statements to trace and takes them. Those that carry a traceparent with the sampled flag always are.
type Tracing struct {
	Share  float64
	Record func(Trace) // must not block
}

// observed is what is known of the present request while it runs.
type observed struct {
	routed  time.Time     // when its plan was made and the first server was asked for
	waited  time.Duration // for servers and primaries
	merged  time.Duration // merging rows, without waiting for them
	blocked time.Duration // waiting for rows to merge
	code    string        // of the first error
	message string
	refused string // the rule
	parts   []observedPart
	binds   int
	trace   bool
	parent  string
}

type observedPart struct {
	shard, node int
	start, end  time.Time
}

// watch begins to observe a request. sql is its text, as far as it is known.
func (h *Handler) watch() {
	h.seen = observed{parts: h.seen.parts[:0]}
	h.text = nil
}

// traced decides whether a statement is traced, when its text is known.
func (h *Handler) traced(sql []byte) {
	h.text = sql
	t := h.e.Tracing
	if t == nil || h.seen.trace {
		return
	}
	if h.seen.parent = traceparent(sql); h.seen.parent != "" {
		h.seen.trace = h.seen.parent[len(h.seen.parent)-1]&1 == 1
	}
	h.seen.trace = h.seen.trace || t.Share > 0 && rand.Float64() < t.Share
}

// about notes which statement of a pipeline what follows is about.
func (h *Handler) about(s *stmt) {
	h.text = unsafe.Slice(unsafe.StringData(s.sql), len(s.sql)) // only read
}

// keepText makes the statement's text our own, before more is read from the client: until then it is where it came.
func (h *Handler) keepText() { h.text = bytes.Clone(h.text) }

// traceparent finds the trace context of sqlcommenter in a statement's comment: traceparent='00-<trace>-<span>-<flags>',
// https://google.github.io/sqlcommenter/spec and https://www.w3.org/TR/trace-context.
func traceparent(sql []byte) string {
	_, rest, ok := bytes.Cut(sql, []byte("traceparent='"))
	const size = 55
	if !ok || len(rest) <= size || rest[size] != '\'' {
		return ""
	}
	p := string(rest[:size])
	f := strings.Split(p, "-")
	if len(f) != 4 || len(f[0]) != 2 || len(f[1]) != 32 || len(f[2]) != 16 || len(f[3]) != 2 {
		return ""
	}
	for _, x := range f {
		if _, err := hex.DecodeString(x); err != nil {
			return ""
		}
	}
	return p
}

// asks notes that a server of a shard is asked for.
func (h *Handler) asks() {
	if h.seen.routed.IsZero() {
		h.seen.routed = time.Now()
	}
}

// took notes that a server takes part in the present request.
func (h *Handler) took(p *participant) {
	if len(h.seen.parts) >= 256 { // a pipeline may have any number of statements
		return
	}
	part := observedPart{shard: p.shard, node: p.node}
	if h.seen.trace {
		part.start = time.Now()
	}
	h.seen.parts = append(h.seen.parts, part)
}

// did notes that a server is done with the present request.
func (h *Handler) did(p *participant) {
	if !h.seen.trace {
		return
	}
	for i := range h.seen.parts {
		if x := &h.seen.parts[i]; x.shard == p.shard && x.end.IsZero() {
			x.end = h.settled
		}
	}
}

// failed notes the error that the client is told.
func (h *Handler) failed(code, message string) {
	if h.seen.code == "" {
		h.seen.code, h.seen.message = code, message
	}
}

// failedBy is failed for an error of our own.
func (h *Handler) failedBy(err error) {
	var s interface{ SQLState() string }
	code := pgsql.InternalError
	if errors.As(err, &s) {
		code = s.SQLState()
	}
	h.failed(code, err.Error())
	var re *router.Error
	if errors.As(err, &re) {
		h.seen.refused = string(re.Rule)
	}
}

// done ends the observation of a request that took d and ended at end.
func (h *Handler) done(end time.Time, d time.Duration) {
	o, s := &h.seen, &h.times
	s.Observe(metrics.Whole, d)
	if !o.routed.IsZero() {
		route := o.routed.Sub(h.now)
		s.Observe(metrics.Route, route)
		s.Observe(metrics.Wait, o.waited)
		s.Observe(metrics.ServerTime, d-route-o.waited-o.merged)
		if o.merged > 0 {
			s.Observe(metrics.Merge, o.merged)
		}
	}
	s.End(&h.count.Stages, end)
	l := h.e.Logging.Load()
	var kind string
	level := slog.LevelWarn
	switch {
	case l == nil:
	case o.refused != "" && l.Refused:
		kind = "a statement was refused"
	case o.code != "" && l.Failed:
		kind = "a statement failed"
	case l.Slow > 0 && d >= l.Slow:
		kind, level = "a statement was slow", slog.LevelInfo
	}
	if kind != "" {
		h.log(kind, level, d, l.Parameters)
	}
	if o.trace {
		h.record(end)
	}
}

// maxLogged bounds a statement in the log, in bytes.
const maxLogged = 2000

// sample is a statement as SHOW REFUSALS and the page show it: without its literals, unless log_parameters is on.
func (e *Engine) sample(sql string) string {
	if l := e.Logging.Load(); l != nil && l.Parameters {
		return sql
	}
	return sqlparse.Normal(sql)
}

func (h *Handler) shown(parameters bool) string {
	text := string(h.text)
	if !parameters {
		text = sqlparse.Normal(text)
	}
	if len(text) > maxLogged {
		text = text[:maxLogged] + "..."
	}
	return text
}

func (h *Handler) log(kind string, level slog.Level, d time.Duration, parameters bool) {
	o := &h.seen
	attrs := []slog.Attr{
		slog.String("database", h.db), slog.String("role", h.role), slog.Uint64("client", uint64(h.pid)), slog.Float64("ms", float64(d.Microseconds())/1000),
		slog.Float64("wait_ms", float64(o.waited.Microseconds())/1000),
	}
	if shards := h.shardsSeen(); shards != "" {
		attrs = append(attrs, slog.String("shards", shards))
	}
	if o.code != "" {
		attrs = append(attrs, slog.String("sqlstate", o.code))
		if parameters || o.refused != "" { // a server's message may quote values
			attrs = append(attrs, slog.String("error", o.message))
		}
	}
	if o.refused != "" {
		attrs = append(attrs, slog.String("rule", o.refused))
	}
	attrs = append(attrs, slog.String("statement", h.shown(parameters)))
	if parameters {
		if p := h.parametersSeen(); p != "" {
			attrs = append(attrs, slog.String("parameters", p))
		}
	}
	h.e.Log.LogAttrs(context.Background(), level, kind, attrs...)
}

func (h *Handler) shardsSeen() string {
	var names []string
	seen := map[int]bool{}
	for _, p := range h.seen.parts {
		if !seen[p.shard] && p.shard < len(h.shards.Infos) {
			seen[p.shard] = true
			names = append(names, h.shards.Name(p.shard))
		}
	}
	return strings.Join(names, ",")
}

// parametersSeen prints the parameters of the request's Bind; of several it is not known whose they are.
func (h *Handler) parametersSeen() string {
	if h.seen.binds != 1 || h.ext.bound == nil {
		return ""
	}
	var out []string
	a := &h.ext.bound.args
	for i, v := range a.Params {
		switch {
		case v == nil:
			out = append(out, "NULL")
		case formatOf(a.Formats, i) == 1:
			out = append(out, `\x`+hex.EncodeToString(v[:min(len(v), 64)]))
		default:
			out = append(out, pgsql.Literal(string(v[:min(len(v), 200)])))
		}
	}
	return strings.Join(out, ", ")
}

func (h *Handler) record(end time.Time) {
	t := Trace{Database: h.db, Role: h.role, Statement: h.shown(false), Start: h.now, End: end, Code: h.seen.code, Parent: h.seen.parent}
	for _, p := range h.seen.parts {
		if p.start.IsZero() || p.shard >= len(h.shards.Infos) {
			continue
		}
		part := TracePart{Shard: h.shards.Name(p.shard), Start: p.start, End: p.end}
		node := p.node
		if v := h.shards.At(p.shard).View(); node < 0 && v != nil {
			node = v.Primary
		}
		if nodes := h.shards.Infos[p.shard].Nodes; node >= 0 && node < len(nodes) {
			part.Node = nodes[node].Name
		}
		if part.End.IsZero() {
			part.End = end
		}
		t.Parts = append(t.Parts, part)
	}
	h.e.Tracing.Record(t)
}
