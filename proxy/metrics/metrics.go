// Package metrics counts what the proxy does. One Metrics exists for each process and is passed by
// pointer; its counters are atomics, so that counting costs a few nanoseconds, and are read only when
// somebody looks.
package metrics

import (
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// Metrics is every counter of the process.
type Metrics struct {
	Started      time.Time
	Reasons      []string     // names the indices of Node.Reads; set before it is read
	SlowedLogins atomic.Int64 // because others failed before them
	FailedLogins atomic.Int64 // of all databases: a name that was given before login is not to be trusted

	mu        sync.Mutex // guards the maps; the values are atomics
	databases map[string]*Database
	nodes     map[nodeKey]*Node
	refusals  map[string]*Refusal
	gauges    []func(emit func(name, help string, value float64, labels ...string))
}

type nodeKey struct{ Database, Shard, Node string }

// Database counts the work of one logical database.
type Database struct {
	Queries, Transactions, Errors             atomic.Int64
	Single, Scatter, Gather                   atomic.Int64
	Write, Split, Copy                        atomic.Int64
	PlanHits, PlanMisses                      atomic.Int64
	TwoPhase, TwoPhaseAborted, InDoubt, Pins  atomic.Int64
	QueryNanos, XactNanos, WaitNanos, Connect atomic.Int64
	AutoNanos                                 atomic.Int64 // of transactions that were one statement
	Received, Sent                            atomic.Int64 // of clients that have left
	ClientParses, ServerParses, Binds         atomic.Int64
	Logins                                    atomic.Int64
	FailoverWaits, FailoverRefused, Repeated  atomic.Int64
	Stages                                    [stages]Histogram  // by Stage
	Widths                                    [3][4]atomic.Int64 // transactions by how many shards they wrote to (one, two, more) and Outcome
}

// Stage is a part of a request's time.
type Stage int

// The stages. Whole is all of it; the others add up to it but for merging, which is part of few.
const (
	Whole      Stage = iota // from the request's last byte to its answer's
	Wait                    // for a server, or for a shard's primary
	Route                   // until the plan is made and the first server asked for
	ServerTime              // until the servers have answered
	Merge                   // rows of several shards

	stages = iota
)

var stageNames = [...]string{"whole", "wait", "route", "server", "merge"}

// Outcome is how a transaction ended.
type Outcome int

// The outcomes.
const (
	Committed Outcome = iota
	RolledBack
	Aborted // by us or a shard, at COMMIT
	Unknown // to the client: it was told 08007
)

var outcomeNames = [...]string{"committed", "rolled_back", "aborted", "unknown"}

var widthNames = [...]string{"1", "2", "more"}

// Ended counts a transaction that wrote to so many shards; those that wrote nothing are not counted.
func (d *Database) Ended(width int, o Outcome) {
	if width > 0 {
		d.Widths[min(width, len(d.Widths))-1][o].Add(1)
	}
}

// Node counts the work of one node.
type Node struct {
	nodeKey
	Statements atomic.Int64
	Running    atomic.Int32    // reads in flight at a replica
	Reads      [8]atomic.Int64 // by reason of the choice
}

// Refusal counts the refusals of one rule.
type Refusal struct {
	Rule   string
	Count  int64
	Sample string
	Last   time.Time
}

// New returns empty metrics.
func New(now time.Time) *Metrics {
	return &Metrics{Started: now, databases: map[string]*Database{}, nodes: map[nodeKey]*Node{}, refusals: map[string]*Refusal{}}
}

// Database returns the counters of a database that exists: each name is kept for good. The pointer may be kept.
func (m *Metrics) Database(name string) *Database {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.databases[name]
	if d == nil {
		d = &Database{}
		m.databases[name] = d
	}
	return d
}

// Node returns the counters of a node. The pointer may be kept.
func (m *Metrics) Node(database, shard, node string) *Node {
	k := nodeKey{database, shard, node}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[k]
	if n == nil {
		n = &Node{nodeKey: k}
		m.nodes[k] = n
	}
	return n
}

// Refused counts a refusal with a sample of its statement, as it may be shown; it is cut short.
func (m *Metrics) Refused(rule, statement string, now time.Time) {
	if len(statement) > 200 {
		statement = statement[:200]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.refusals[rule]
	if r == nil {
		r = &Refusal{Rule: rule}
		m.refusals[rule] = r
	}
	r.Count++
	r.Sample, r.Last = statement, now
}

// Refusals lists the rules that refused something, the most frequent first.
func (m *Metrics) Refusals() []Refusal {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Refusal, 0, len(m.refusals))
	for _, r := range m.refusals {
		out = append(out, *r)
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Count > out[j].Count || out[i].Count == out[j].Count && out[i].Rule < out[j].Rule
	})
	return out
}

// Databases lists the names that have counters.
func (m *Metrics) Databases() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]string, 0, len(m.databases))
	for n := range m.databases {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// AddGauges registers a function that emits gauges when the metrics are read. labels are name, value
// pairs.
func (m *Metrics) AddGauges(f func(emit func(name, help string, value float64, labels ...string))) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gauges = append(m.gauges, f)
}

var stageDesc = prometheus.NewDesc("pgmosaic_request_duration_seconds", "Time of requests: all of it (whole), and by stage.", []string{"database", "stage"}, nil)

// Describe implements prometheus.Collector: the series depend on the map, so none is announced.
func (m *Metrics) Describe(chan<- *prometheus.Desc) {}

// label is a label's value: a name that is not UTF-8, as databases in other encodings have them, or has a backslash, as a string of Go.
func label(name string) string {
	if utf8.ValidString(name) && !strings.Contains(name, `\`) {
		return name
	}
	q := strconv.Quote(name)
	return q[1 : len(q)-1]
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	emit := func(kind prometheus.ValueType, name, help string, v float64, labels ...string) {
		var names, values []string
		for i := 0; i+1 < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, label(labels[i+1]))
		}
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("pgmosaic_"+name, help, names, nil), kind, v, values...)
	}
	counter := func(name, help string, v int64, labels ...string) {
		emit(prometheus.CounterValue, name, help, float64(v), labels...)
	}
	m.mu.Lock()
	dbs, nodes, gauges := make(map[string]*Database, len(m.databases)), make([]*Node, 0, len(m.nodes)), m.gauges
	for k, v := range m.databases {
		dbs[k] = v
	}
	for _, n := range m.nodes {
		nodes = append(nodes, n)
	}
	m.mu.Unlock()
	counter("slowed_logins_total", "Logins that had to wait a second, because many from their address, or with their administrator's name, had failed.", m.SlowedLogins.Load())
	for p, name := range panics.Parts {
		counter("panics_total", "Panics that were caught: of a session, of a request to the dashboard, or of work in the background.", int64(panics.Count(panics.Part(p))), "part", name)
	}
	counter("failed_logins_total", "Logins that were turned away: an unknown user or a wrong password.", m.FailedLogins.Load())
	for name, d := range dbs {
		l := []string{"database", name}
		counter("queries_total", "Statements answered.", d.Queries.Load(), l...)
		counter("transactions_total", "Transactions ended, single statements included.", d.Transactions.Load(), l...)
		counter("errors_total", "Errors sent to clients.", d.Errors.Load(), l...)
		counter("logins_total", "Clients that logged in.", d.Logins.Load(), l...)
		for _, p := range []struct {
			plan string
			n    *atomic.Int64
		}{{"single", &d.Single}, {"scatter", &d.Scatter}, {"gather", &d.Gather}, {"write", &d.Write}, {"split", &d.Split}, {"copy", &d.Copy}} {
			counter("plans_total", "Statements by the kind of their plan.", p.n.Load(), "database", name, "plan", p.plan)
		}
		counter("plan_cache_hits_total", "Statements whose plan was in the cache.", d.PlanHits.Load(), l...)
		counter("plan_cache_misses_total", "Statements that had to be planned.", d.PlanMisses.Load(), l...)
		counter("two_phase_commits_total", "Transactions committed over several shards.", d.TwoPhase.Load(), l...)
		counter("two_phase_aborts_total", "Commits over several shards that were rolled back.", d.TwoPhaseAborted.Load(), l...)
		counter("in_doubt_total", "Commits whose outcome was left to the resolver.", d.InDoubt.Load(), l...)
		counter("pins_total", "Sessions that had to keep a server.", d.Pins.Load(), l...)
		for w := range d.Widths {
			for o := range d.Widths[w] {
				counter("write_transactions_total", "Transactions that wrote, by how many shards they wrote to and how they ended.", d.Widths[w][o].Load(),
					"database", name, "shards", widthNames[w], "outcome", outcomeNames[o])
			}
		}
		counter("failover_waits_total", "Requests that waited for a shard's next primary.", d.FailoverWaits.Load(), l...)
		counter("failover_refused_total", "Requests that were told that a shard has no primary.", d.FailoverRefused.Load(), l...)
		counter("repeated_reads_total", "Reads that were run again on a primary, because their node was lost or refused them.", d.Repeated.Load(), l...)
		for i := range d.Stages {
			ch <- d.Stages[i].metric(stageDesc, name, stageNames[i])
		}
		emit(prometheus.CounterValue, "wait_seconds_total", "Time spent waiting for a server.", float64(d.WaitNanos.Load())/1e9, l...)
	}
	for _, n := range nodes {
		counter("node_statements_total", "Statements sent to a node.", n.Statements.Load(), "database", n.Database, "shard", n.Shard, "node", n.Node)
		for i, r := range m.Reasons {
			counter("node_reads_total", "Reads sent to a node, by the reason of the choice.", n.Reads[i].Load(),
				"database", n.Database, "shard", n.Shard, "node", n.Node, "reason", r)
		}
	}
	for _, r := range m.Refusals() {
		counter("refusals_total", "Statements refused, by rule.", r.Count, "rule", r.Rule)
	}
	for _, g := range gauges {
		g(func(name, help string, v float64, labels ...string) {
			emit(prometheus.GaugeValue, name, help, v, labels...)
		})
	}
}
