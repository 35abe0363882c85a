package replication

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/cond"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Monitor probes every node of the map over a connection of its own and publishes a View for each shard.
type Monitor struct {
	policy Policy
	events Events
	log    *slog.Logger

	mu     sync.Mutex // guards shards and the fields of watch
	shards map[shardKey]*watch
	views  atomic.Pointer[map[shardKey]*atomic.Pointer[View]]
	wake   chan *shardmap.Snapshot
	dials  chan struct{} // holds one for each node that is connected to at the moment

	published cond.Var // a view
}

// Events are told of what the monitor sees. None may block, and each may be nil.
type Events struct {
	// Left means that connections to a node must not be used any more. At once: it is no longer the primary, or claims to be
	// it beside another, and may still take what it is sent. Else it was restarted or has changed its role: what is in use
	// by now is in order.
	Left func(dsn string, atOnce bool)
	// Changed is told of each change that is logged.
	Changed func(database, shard string, c Change)
	// Rejoined means that a node that the admin had barred is a replica now.
	Rejoined func(database, shard, node string)
	// Primary means that a shard has another primary now; node is empty if it has none that answers.
	Primary func(database, shard, node string)
}

type shardKey struct{ database, shard string }

// watch is the state of one shard.
type watch struct {
	key     shardKey
	view    *atomic.Pointer[View]
	nodes   []*nodeWatch
	history History
	primary int      // -1 while there is none, or two claim to be it
	served  int      // the last that was elected; -1 for none
	rivals  []int    // those that claim to be it
	former  []string // connection strings of nodes that the map had, of the system that it has still
	named   int      // how often the admin has decided
	system  string
	line    uint32
	newer   uint32 // the timeline that replicas follow, while no node has served
	expect  atomic.Pointer[shardmap.Expected]
	dropped bool // the map has it no more
}

type nodeWatch struct {
	shardmap.Node
	stop       context.CancelFunc
	expect     *atomic.Pointer[shardmap.Expected]     // what it must say of itself
	means      atomic.Pointer[func(addr string) bool] // which addresses its name means, as it was looked up last; nil: never
	sample     Sample                                 // the last
	good       Sample                                 // the last without an error
	verdict    Verdict
	epoch      uint32
	rejoinedAt time.Time // when it was last told that it has rejoined
	came       time.Time // when the last sample without an error had come
	ahead      bool      // it has replayed what its primary had not written: see watch.compare
	doubt      doubt
}

// doubt is a timeline that two nodes have begun. Who was there then may follow either of them: their numbers are the same.
type doubt struct {
	system string
	line   uint32
	who    string
}

func (d doubt) about(s *Sample) bool {
	return d.line != 0 && d.line == s.Timeline && d.system == s.SystemID
}

// NewMonitor makes a monitor that follows the catalog once it runs, and logs what changes.
func NewMonitor(policy Policy, cat *shardmap.Catalog, events Events, log *slog.Logger) *Monitor {
	m := &Monitor{policy: policy, events: events, log: log, shards: map[shardKey]*watch{}, wake: make(chan *shardmap.Snapshot, 1), dials: make(chan struct{}, dialsAtOnce)}
	m.views.Store(&map[shardKey]*atomic.Pointer[View]{})
	cat.OnChange(func(s *shardmap.Snapshot) {
		select {
		case <-m.wake:
		default:
		}
		m.wake <- s
	})
	return m
}

// Policy is the policy in force.
func (m *Monitor) Policy() Policy { return m.policy }

// Slot returns the place where a shard's newest view is published, or nil before the monitor knows the
// shard. It may be kept: it is stable until the shard is dropped, and holds nil then.
func (m *Monitor) Slot(database, shard string) *atomic.Pointer[View] {
	return (*m.views.Load())[shardKey{database, shard}]
}

// View is a shard's newest view, or nil.
func (m *Monitor) View(database, shard string) *View {
	if s := m.Slot(database, shard); s != nil {
		return s.Load()
	}
	return nil
}

// Await waits until something holds of what is published, or the context ends: then it is an error. holds is called by the caller's
// goroutine, at first and after each sample.
func (m *Monitor) Await(ctx context.Context, holds func() bool) error {
	return m.published.Wait(ctx, holds)
}

// Since is a position that a replica of a shard must have replayed to have all that was acknowledged before a moment. ok is false
// if none is known yet.
func (m *Monitor) Since(database, shard string, t time.Time) (LSN, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.shards[shardKey{database, shard}]
	if w == nil {
		return 0, false
	}
	p, ok := w.history.Since(t)
	return p.LSN, ok
}

// Led means that the names of a node's connection string have been looked up, and mean certain addresses: a server at another one is probed no
// more. It does not block.
func (m *Monitor) Led(dsn string, means func(addr string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.shards {
		for _, n := range w.nodes {
			if n.DSN == dsn {
				n.means.Store(&means)
			}
		}
	}
}

// Run probes until ctx ends, and returns when every probe has ended.
func (m *Monitor) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case snap := <-m.wake:
			_ = panics.Keep(ctx, "nodes of the monitor", func(ctx context.Context) error { m.reconcile(ctx, &wg, snap); return nil })
		}
	}
}

// reconcile starts and stops probes so that they match the map.
func (m *Monitor) reconcile(ctx context.Context, wg *sync.WaitGroup, snap *shardmap.Snapshot) {
	changed := map[shardKey]news{}
	defer func() {
		for k, x := range changed {
			m.spread(k, x)
		}
	}()
	m.mu.Lock()
	defer m.mu.Unlock()
	views := map[shardKey]*atomic.Pointer[View]{}
	live := map[shardKey]bool{}
	for _, db := range snap.Databases {
		for _, sh := range db.Shards {
			k := shardKey{db.Name, sh.Name}
			live[k] = true
			w := m.shards[k]
			if w == nil {
				w = &watch{key: k, view: &atomic.Pointer[View]{}, primary: -1, served: -1, named: sh.Named}
				m.shards[k] = w
			}
			expected := snap.Expected(db.Name, sh.Name)
			before, primary, fenced := w.expect.Swap(&expected), w.node(w.primary), len(w.rivals) > 0
			x := news{prev: w.view.Load(), stale: m.reconcileNodes(ctx, wg, w, sh.Nodes)}
			if before != nil && before.System() != expected.System() && w.system != expected.System() { // the admin has adopted another
				w.system, w.line, w.served, w.primary = "", 0, -1, -1
				w.history.Reset()
				x.left = slices.DeleteFunc(w.disowned(expected.System()), func(dsn string) bool { return anothers(snap, k, dsn) })
			}
			if sh.Named != w.named { // the admin has decided, whatever the timelines say
				w.named, w.line = sh.Named, 0
				w.served = slices.IndexFunc(w.nodes, func(n *nodeWatch) bool { return n.Name == sh.Primary })
			}
			w.elect()
			x.left = append(x.left, w.deposed(primary, fenced)...)
			x.changes, x.next = m.publishLocked(w, time.Now()), w.view.Load()
			changed[k] = x
			views[k] = w.view
		}
	}
	for k, w := range m.shards {
		if !live[k] {
			x := news{}
			for _, n := range w.nodes {
				n.stop()
				x.stale = append(x.stale, n.DSN)
			}
			w.drop()
			changed[k] = x
			delete(m.shards, k)
		}
	}
	m.views.Store(&views)
}

// reconcileNodes gives a shard the nodes that the map has, and returns the connection strings that it has no more.
func (m *Monitor) reconcileNodes(ctx context.Context, wg *sync.WaitGroup, w *watch, nodes []*shardmap.Node) (gone []string) {
	old := map[string]*nodeWatch{}
	var served *nodeWatch
	for i, n := range w.nodes {
		old[n.Name+"\x00"+n.DSN] = n
		if i == w.served {
			served = n
		}
	}
	w.nodes, w.primary, w.served = nil, -1, -1
	for _, n := range nodes {
		id := n.Name + "\x00" + n.DSN
		nw := old[id]
		delete(old, id)
		if nw == nil {
			nctx, cancel := context.WithCancel(ctx)
			nw = &nodeWatch{Node: *n, stop: cancel, expect: &w.expect}
			wg.Add(1)
			go func() {
				defer wg.Done()
				_ = panics.Keep(nctx, "probes of node "+nw.Name, func(ctx context.Context) error { m.probeLoop(ctx, w, nw); return nil })
			}()
		}
		nw.Zone, nw.Barred = n.Zone, n.Barred
		if nw == served {
			w.served = len(w.nodes)
		}
		w.nodes = append(w.nodes, nw)
	}
	for _, n := range old {
		n.stop()
		gone = append(gone, n.DSN)
	}
	has := func(dsn string) bool {
		return slices.ContainsFunc(w.nodes, func(n *nodeWatch) bool { return n.DSN == dsn })
	}
	w.former = slices.DeleteFunc(append(w.former, gone...), has)
	slices.Sort(w.former)
	w.former = slices.Compact(w.former)
	return slices.DeleteFunc(gone, has)
}

// drop ends what is known of a shard that the map has no more. One that is made under its name has a place of its own.
func (w *watch) drop() {
	w.dropped = true
	if v := w.view.Swap(nil); v != nil {
		close(v.changed)
	}
}

// node is the shard's node of a number; nil for none.
func (w *watch) node(i int) *nodeWatch {
	if i < 0 || i >= len(w.nodes) {
		return nil
	}
	return w.nodes[i]
}

// deposed are the nodes that an election has taken work from, by connection string: that which was the primary until then, and all that claim to
// be it if they have not done so before. A node that the map has no more was not voted out: what is in use there ends by itself.
func (w *watch) deposed(primary *nodeWatch, fenced bool) (left []string) {
	if primary != nil && primary != w.node(w.primary) && slices.Contains(w.nodes, primary) {
		left = append(left, primary.DSN)
	}
	if !fenced {
		for _, i := range w.rivals {
			left = append(left, w.nodes[i].DSN)
		}
	}
	return left
}

// anothers says whether the map gives a connection string to another shard.
func anothers(snap *shardmap.Snapshot, k shardKey, dsn string) bool {
	for _, db := range snap.Databases {
		for _, sh := range db.Shards {
			if k != (shardKey{db.Name, sh.Name}) && slices.ContainsFunc(sh.Nodes, func(n *shardmap.Node) bool { return n.DSN == dsn }) {
				return true
			}
		}
	}
	return false
}

// disowned are the connection strings of all that has been the shard's and is not of the system that it is from now on: what is written
// there is lost, also by who has been at it since before the map forgot the node.
func (w *watch) disowned(system string) (left []string) {
	left, w.former = w.former, nil
	for _, n := range w.nodes {
		if !n.good.Sent.IsZero() && n.good.SystemID != system {
			left = append(left, n.DSN)
		}
	}
	return left
}

// tellAgain is how often a node that is still barred is said to have rejoined.
const tellAgain = 5 * time.Second

// news is what others are to be told of a sample, or of another map.
type news struct {
	stale, left []string // connection strings: of servers that are no longer those that they were, and that must not be used any more
	rejoined    bool
	changes     []Change
	prev, next  *View
}

// take takes one sample in and publishes what follows from it.
func (m *Monitor) take(w *watch, n *nodeWatch, s Sample) (out news) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.dropped { // the sample was on its way
		return out
	}
	if s.Err == nil {
		if g := &n.good; !g.Sent.IsZero() && (s.Primary != g.Primary || !s.Started.Equal(g.Started) || s.SystemID != g.SystemID) {
			n.epoch++
			n.ahead = false
			out.stale = append(out.stale, n.DSN)
		} else if s.First { // its servers may have crashed, and it may be behind itself
			n.epoch++
		}
		n.good, n.came = s, time.Now()
	}
	if s.Slow && n.sample.Alive && !n.sample.Slow { // once may be a busy machine's fault
		s.Alive = true
	}
	n.sample = s
	out.rejoined = n.Barred && s.Err == nil && !s.Primary && s.Sent.Sub(n.rejoinedAt) > tellAgain
	if out.rejoined {
		n.rejoinedAt = s.Sent
	}
	before, fenced := w.node(w.primary), len(w.rivals) > 0
	w.elect()
	out.left = w.deposed(before, fenced)
	if w.primary >= 0 && w.nodes[w.primary] == n && s.Err == nil && s.Primary {
		w.history.Add(Position{s.Sent, s.LSN})
		w.compare(&s)
	}
	panics.Point("monitor")
	out.prev = w.view.Load()
	out.changes = m.publishLocked(w, time.Now())
	out.next = w.view.Load()
	return out
}

// observe takes one sample in, and tells others what follows from it.
func (m *Monitor) observe(w *watch, n *nodeWatch, s Sample) {
	x := m.take(w, n, s)
	m.spread(w.key, x)
	if x.rejoined && m.events.Rejoined != nil {
		m.events.Rejoined(w.key.database, w.key.shard, n.Name)
	}
}

// spread tells others what they are to be told. It must be called without the monitor's lock.
func (m *Monitor) spread(k shardKey, x news) {
	m.tell(k, x.changes)
	if m.events.Left != nil {
		for _, dsn := range x.stale {
			m.events.Left(dsn, false)
		}
		for _, dsn := range x.left {
			m.events.Left(dsn, true)
		}
	}
	if m.events.Primary != nil && x.next != nil && x.prev.serving() != x.next.serving() {
		m.events.Primary(k.database, k.shard, x.next.serving())
	}
}

// compare finds the replicas that had replayed, before the primary was asked for its position, what lies behind that. They have
// another history, also when the primary has overtaken them, until they are started anew.
func (w *watch) compare(p *Sample) {
	for _, n := range w.nodes {
		g := &n.good
		if !g.Primary && g.Timeline == p.Timeline && g.SystemID == p.SystemID && g.LSN > p.LSN && n.came.Before(p.Sent) {
			n.ahead = true
		}
	}
}

// doubts notes timelines that two nodes have begun.
func (w *watch) doubts() {
	for i, a := range w.nodes {
		for _, b := range w.nodes[:i] {
			if !a.good.Primary || !b.good.Primary || a.good.Timeline != b.good.Timeline || a.good.SystemID != b.good.SystemID {
				continue
			}
			d := doubt{a.good.SystemID, a.good.Timeline, b.Name + " and " + a.Name}
			for _, n := range w.nodes {
				if n.doubt.line <= d.line || n.doubt.system != d.system {
					n.doubt = d
				}
			}
		}
	}
}

// expects says whether the map has a system's servers for the shard's. A sample may be older than that: see reconcile.
func (w *watch) expects(system string) bool {
	e := w.expect.Load()
	return e == nil || e.JudgeSystem(system) == nil
}

// elect finds the primary. It waits until every node has been asked once: who is asked first must not decide.
func (w *watch) elect() {
	nodes := make([]candidate, len(w.nodes))
	for i, n := range w.nodes {
		if n.sample.Sent.IsZero() && w.served < 0 {
			return
		}
		nodes[i] = candidate{
			Claims: n.sample.Err == nil && n.sample.Primary && w.expects(n.sample.SystemID), Barred: n.Barred, Timeline: n.sample.Timeline,
			Other: w.system != "" && n.sample.SystemID != w.system,
		}
	}
	if !slices.ContainsFunc(w.nodes, func(n *nodeWatch) bool { return n.good.SystemID == w.system }) {
		w.line = 0
		for i := range nodes { // nothing is left of the system that served
			nodes[i].Other = false
		}
	}
	w.doubts()
	w.newer = 0
	if w.served < 0 {
		w.newer = w.followed()
	}
	w.primary, w.rivals = elect(nodes, w.served, w.line, w.newer)
	if w.primary < 0 {
		return
	}
	if w.served != w.primary {
		w.history.Reset()
	}
	w.served = w.primary
	p := w.nodes[w.primary].sample
	if p.Err == nil && p.Primary && (w.system != p.SystemID || w.line != p.Timeline) {
		w.history.Reset()
		w.system, w.line = p.SystemID, p.Timeline
	}
}

// followed is the highest timeline that a replica is on, of a system that one of the claimants has too. While a node is barred
// it is 0: replicas may follow that one still.
func (w *watch) followed() (line uint32) {
	claimed := map[string]bool{}
	for _, n := range w.nodes {
		if n.Barred {
			return 0
		}
		claimed[n.good.SystemID] = claimed[n.good.SystemID] || n.good.Primary
	}
	for _, n := range w.nodes {
		if !n.good.Primary && claimed[n.good.SystemID] {
			line = max(line, n.good.Timeline)
		}
	}
	return line
}

// publishLocked publishes what is known of a shard now, and returns what is to be told of it.
func (m *Monitor) publishLocked(w *watch, now time.Time) []Change {
	v := &View{Database: w.key.database, Shard: w.key.shard, Primary: w.primary, Nodes: make([]NodeView, len(w.nodes))}
	newest, _ := w.history.Newest()
	for i, n := range w.nodes {
		nv := NodeView{
			Name: n.Name, DSN: n.DSN, Zone: n.Zone, Primary: n.good.Primary, Sample: n.sample, LastSeen: n.good.Sent, PrimaryLSN: newest.LSN, Epoch: n.epoch,
			Barred: n.Barred && n.good.Primary,
		}
		if n.good.Primary {
			n.verdict = Verdict{Reason: "primary"}
			switch {
			case n.sample.Err != nil:
				n.verdict = Verdict{Health: Unreachable, Reason: n.sample.Err.Error()}
			case nv.Barred:
				n.verdict = Verdict{Reason: "not the primary: ALTER SHARD SET PRIMARY named another node"}
			case i != w.primary && w.system != "" && n.good.SystemID != w.system:
				n.verdict = Verdict{Reason: "not the primary: it has another system identifier than the shard"}
			case w.primary < 0 && n.good.Timeline < w.newer:
				n.verdict = Verdict{Reason: fmt.Sprintf("an old primary, on timeline %d; a replica is on %d", n.good.Timeline, w.newer)}
			case w.primary < 0 && n.good.Timeline < w.line:
				n.verdict = Verdict{Reason: fmt.Sprintf("an old primary, on timeline %d; the last that served was on %d", n.good.Timeline, w.line)}
			case w.primary >= 0 && i != w.primary:
				n.verdict = Verdict{Reason: fmt.Sprintf("an old primary, on timeline %d; the primary is on %d", n.good.Timeline, w.line)}
			}
			nv.FreshUntil = n.good.Sent
		} else {
			nv.Lag, nv.LagKnown = w.history.Lag(n.good.LSN, now, m.policy.MaxAge)
			if n.good.Sent.IsZero() {
				nv.LagKnown = false
			}
			nv.LagBytes = max(0, int64(newest.LSN)-int64(n.good.LSN))
			n.verdict = Judge(n.verdict, Evidence{
				Sample: n.sample, SystemID: w.system, Timeline: w.line, Lag: nv.Lag, LagKnown: nv.LagKnown,
				Doubtful: n.doubt.about(&n.sample), Who: n.doubt.who, Ahead: n.ahead,
			}, now, m.policy)
			if at, ok := w.history.Reached(n.good.LSN); ok {
				nv.FreshUntil = at.Sent
			}
		}
		nv.Verdict = n.verdict
		v.Nodes[i] = nv
	}
	if len(w.rivals) > 0 {
		var who []string
		for _, i := range w.rivals {
			who = append(who, fmt.Sprintf("%s on timeline %d", w.nodes[i].Name, w.nodes[i].sample.Timeline))
		}
		v.Fenced = strings.Join(who, " and ") + " claim to be the primary"
	}
	old := w.view.Load()
	if old != nil && old.serving() == v.serving() && old.Fenced == v.Fenced {
		v.Since, v.changed = old.Since, old.changed
	} else {
		v.Since, v.changed = now, make(chan struct{})
	}
	w.view.Store(v)
	m.published.Changed()
	if old != nil && old.changed != v.changed {
		close(old.changed)
	}
	return Changes(old, v)
}
