// Package observe is what is known of a session's requests besides their answers: how long their stages took, and who is told of those
// that are slow, fail or are refused: the log, and a tracer.
package observe

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

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

// Observer is whom all sessions tell. Its fields other than Logging are set before the first session.
type Observer struct {
	Logging atomic.Pointer[Logging] // nil: nothing is logged
	Tracing *Tracing                // nil: off
	Log     *slog.Logger
}

// Sample is a statement as SHOW REFUSALS and the page show it: without its literals, unless log_parameters is on.
func (o *Observer) Sample(sql string) string {
	if l := o.Logging.Load(); l != nil && l.Parameters {
		return sql
	}
	return sqlparse.Normal(sql)
}

// Client is whose requests a Session's are.
type Client struct {
	Database, Role string
	PID            uint32
	Count          *metrics.Database
}

// Request is what is known of one request while it runs. A session has one, for the request of the moment; its own goroutine uses it.
type Request struct {
	present

	by     *Observer
	client Client
	text   []byte           // of its last statement
	times  metrics.Recorder // of this and earlier requests
}

// present is what begins anew with each request.
type present struct {
	Waited  time.Duration // for servers and primaries
	Merged  time.Duration // merging rows, without waiting for them
	Blocked time.Duration // waiting for rows to merge
	Binds   int

	began   time.Time
	routed  time.Time // when its plan was made and the first server was asked for
	code    string    // of the first error
	message string
	refused string // the rule
	parts   []part
	trace   bool
	parent  string
}

// part is a server's in it.
type part struct {
	shard, node int // -1: the node that is the primary when it is asked for
	start, end  time.Time
}

// mostParts is how many parts are kept: a pipeline may have any number of statements.
const mostParts = 256

// Open begins to observe a session.
func (o *Observer) Open(c Client) Request { return Request{by: o, client: c} }

// Begin begins to observe a request that came now.
func (r *Request) Begin(now time.Time) {
	r.present, r.text = present{parts: r.parts[:0], began: now}, nil
}

// Rest lets go of what the next request needs no more than the one before, and hands its times on.
func (r *Request) Rest(now time.Time) {
	r.Flush(now)
	r.text = nil
}

// Flush hands on what was measured.
func (r *Request) Flush(now time.Time) { r.times.Flush(&r.client.Count.Stages, now) }

// About notes which statement what follows is about. The text is only read, until KeepText or the next one.
func (r *Request) About(sql []byte) { r.text = sql }

// KeepText makes the statement's text its own, before more is read from the client: until then it is where it came.
func (r *Request) KeepText() { r.text = append([]byte(nil), r.text...) }

// Text is the statement that the request is about.
func (r *Request) Text() []byte { return r.text }

// Choose decides whether the request is traced, when its first text is known.
func (r *Request) Choose(sql []byte) {
	r.text = sql
	t := r.by.Tracing
	if t == nil || r.trace {
		return
	}
	if r.parent = traceparent(sql); r.parent != "" {
		r.trace = r.parent[len(r.parent)-1]&1 == 1
	}
	r.trace = r.trace || t.Share > 0 && rand.Float64() < t.Share
}

// Asks notes that a server of a shard is asked for.
func (r *Request) Asks() {
	if r.routed.IsZero() {
		r.routed = time.Now()
	}
}

// Joined notes that a server takes part in the request.
func (r *Request) Joined(shard, node int) {
	if len(r.parts) >= mostParts {
		return
	}
	p := part{shard: shard, node: node}
	if r.trace {
		p.start = time.Now()
	}
	r.parts = append(r.parts, p)
}

// Left notes that the servers of a shard are done with the request.
func (r *Request) Left(shard int, at time.Time) {
	if !r.trace {
		return
	}
	for i := range r.parts {
		if p := &r.parts[i]; p.shard == shard && p.end.IsZero() {
			p.end = at
		}
	}
}

// Failed notes the error that the client is told.
func (r *Request) Failed(code, message string) {
	if r.code == "" {
		r.code, r.message = code, message
	}
}

// FailedBy is Failed for an error of our own.
func (r *Request) FailedBy(err error) {
	var s interface{ SQLState() string }
	code := pgsql.InternalError
	if errors.As(err, &s) {
		code = s.SQLState()
	}
	r.Failed(code, err.Error())
	var re *router.Error
	if errors.As(err, &re) {
		r.refused = string(re.Rule)
	}
}

// Places names the parts of a request.
type Places interface {
	Shard(i int) string       // empty if there is none any more
	Node(shard, i int) string // -1: the primary
	Parameters() string       // those of its Bind, for the log
}

// Done ends the observation of a request that took d and ended at end.
func (r *Request) Done(end time.Time, d time.Duration, places Places) {
	t := &r.times
	t.Observe(metrics.Whole, d)
	if !r.routed.IsZero() {
		route := r.routed.Sub(r.began)
		t.Observe(metrics.Route, route)
		t.Observe(metrics.Wait, r.Waited)
		t.Observe(metrics.ServerTime, d-route-r.Waited-r.Merged)
		if r.Merged > 0 {
			t.Observe(metrics.Merge, r.Merged)
		}
	}
	t.End(&r.client.Count.Stages, end)
	if l := r.by.Logging.Load(); l != nil {
		if kind, level := r.worth(l, d); kind != "" {
			r.log(kind, level, d, l.Parameters, places)
		}
	}
	if r.trace {
		r.record(end, places)
	}
}

// worth is what the log says of a request; nothing of most.
func (r *Request) worth(l *Logging, d time.Duration) (kind string, level slog.Level) {
	switch {
	case r.refused != "" && l.Refused:
		return "a statement was refused", slog.LevelWarn
	case r.code != "" && l.Failed:
		return "a statement failed", slog.LevelWarn
	case l.Slow > 0 && d >= l.Slow:
		return "a statement was slow", slog.LevelInfo
	}
	return "", 0
}

// maxLogged bounds a statement in the log, in bytes.
const maxLogged = 2000

// Statement is the statement that the request is about, cut where it is long; without its literals unless those are wanted.
func (r *Request) Statement(literals bool) string {
	text := string(r.text)
	if !literals {
		text = sqlparse.Normal(text)
	}
	if len(text) > maxLogged {
		text = text[:maxLogged] + "..."
	}
	return text
}

func (r *Request) log(kind string, level slog.Level, d time.Duration, parameters bool, places Places) {
	attrs := []slog.Attr{
		slog.String("database", r.client.Database), slog.String("role", r.client.Role), slog.Uint64("client", uint64(r.client.PID)), slog.Float64("ms", ms(d)),
		slog.Float64("wait_ms", ms(r.Waited)),
	}
	if shards := r.shards(places); shards != "" {
		attrs = append(attrs, slog.String("shards", shards))
	}
	if r.code != "" {
		attrs = append(attrs, slog.String("sqlstate", r.code))
		if parameters || r.refused != "" { // a server's message may quote values
			attrs = append(attrs, slog.String("error", r.message))
		}
	}
	if r.refused != "" {
		attrs = append(attrs, slog.String("rule", r.refused))
	}
	attrs = append(attrs, slog.String("statement", r.Statement(parameters)))
	if parameters {
		if p := places.Parameters(); p != "" {
			attrs = append(attrs, slog.String("parameters", p))
		}
	}
	r.by.Log.LogAttrs(context.Background(), level, kind, attrs...)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// shards are the names of those that took part, each once.
func (r *Request) shards(places Places) string {
	var names []string
	seen := map[int]bool{}
	for _, p := range r.parts {
		if name := places.Shard(p.shard); !seen[p.shard] && name != "" {
			seen[p.shard] = true
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// record hands the request to the tracer.
func (r *Request) record(end time.Time, places Places) {
	t := Trace{Database: r.client.Database, Role: r.client.Role, Statement: r.Statement(false), Start: r.began, End: end, Code: r.code, Parent: r.parent}
	for _, p := range r.parts {
		shard := places.Shard(p.shard)
		if p.start.IsZero() || shard == "" {
			continue
		}
		if p.end.IsZero() {
			p.end = end
		}
		t.Parts = append(t.Parts, TracePart{Shard: shard, Node: places.Node(p.shard, p.node), Start: p.start, End: p.end})
	}
	r.by.Tracing.Record(t)
}
