package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }

func TestLagIsTheAgeOfWhatWasReplayed(t *testing.T) {
	var h History
	for i := range 10 {
		h.Add(Position{at(100 * i), LSN(1000 * min(i, 7))}) // idle from 700 ms on
	}
	for _, c := range []struct {
		replayed LSN
		now      int
		want     time.Duration
	}{
		{7000, 950, 0},                        // all of it: an idle primary makes no lag
		{9999, 950, 0},                        //
		{6999, 950, 350 * time.Millisecond},   // the position of 600 ms is the newest reached
		{0, 950, 950 * time.Millisecond},      //
		{7000, 3000, 2100 * time.Millisecond}, // a silent primary: lag grows from its last sample
	} {
		if got, ok := h.Lag(c.replayed, at(c.now), time.Second); !ok || got != c.want {
			t.Errorf("replayed %v at %d ms: lag %v, want %v", c.replayed, c.now, got, c.want)
		}
	}
	late := History{list: []Position{{at(100), 1000}}}
	if got, ok := late.Lag(999, at(950), time.Second); ok || got != 850*time.Millisecond {
		t.Errorf("older than all that is remembered: lag %v, known: %t; it is at least 850 ms", got, ok)
	}
	if _, ok := (&History{}).Lag(1, t0, time.Second); ok {
		t.Error("without a history the lag is known")
	}
	h.Add(Position{at(2000), 10})
	if n, _ := h.Newest(); n.LSN != 10 || len(h.list) != 1 {
		t.Error("positions of another timeline were kept")
	}
}

func TestInsertPositionIsRoundedAtPages(t *testing.T) {
	for in, want := range map[LSN]LSN{0x5000028: 0x5000000, 0x5002018: 0x5002000, 0x5002019: 0x5002019, 0x5000018: 0x5000000, 0x5002028: 0x5002028} {
		if got := in.Round(); got != want {
			t.Errorf("%v rounds to %v, want %v", in, got, want)
		}
	}
	if l, err := ParseLSN("16/B374D848"); err != nil || l.String() != "16/B374D848" {
		t.Error(l, err)
	}
}

func TestJudge(t *testing.T) {
	p := DefaultPolicy()
	good := Evidence{Sample: Sample{Sent: t0, SystemID: "a", Timeline: 1}, SystemID: "a", Timeline: 1, LagKnown: true}
	with := func(f func(*Evidence)) Evidence { e := good; f(&e); return e }
	eligible := Verdict{Health: Eligible}
	for _, c := range []struct {
		name string
		prev Verdict
		e    Evidence
		want Health
	}{
		{"stays", eligible, good, Eligible},
		{"needs two good samples", Verdict{Health: Lagging}, good, Lagging},
		{"never probed", Verdict{}, with(func(e *Evidence) { e.Sample.Sent = time.Time{} }), Unknown},
		{"no answer", eligible, with(func(e *Evidence) { e.Sample.Err = errors.New("x") }), Unreachable},
		{"old sample", eligible, with(func(e *Evidence) { e.Sample.Sent = t0.Add(-2 * time.Second) }), Unreachable},
		{"paused", eligible, with(func(e *Evidence) { e.Sample.Paused = true }), Lagging},
		{"unknown lag is not zero", eligible, with(func(e *Evidence) { e.LagKnown = false }), Unknown},
		{"at the limit", eligible, with(func(e *Evidence) { e.Lag = 10 * time.Second }), Lagging},
		{"below the limit", eligible, with(func(e *Evidence) { e.Lag = 9 * time.Second }), Eligible},
		{"not yet far enough below", Verdict{Health: Lagging}, with(func(e *Evidence) { e.Lag = 9 * time.Second }), Lagging},
		{"more than the limit at least", eligible, with(func(e *Evidence) { e.Lag, e.LagKnown = 11*time.Second, false }), Lagging},
		{"follows one of two that began its timeline", eligible, with(func(e *Evidence) { e.Doubtful = true }), Unknown},
		{"has what the primary has not", eligible, with(func(e *Evidence) { e.Ahead = true }), Unknown},
		{"a stranger", eligible, with(func(e *Evidence) { e.Sample.SystemID = "b" }), Unknown},
		{"another timeline", eligible, with(func(e *Evidence) { e.Sample.Timeline = 2 }), Unknown},
	} {
		if got := Judge(c.prev, c.e, t0, p); got.Health != c.want || got.Health != Eligible && got.Reason == "" {
			t.Errorf("%s: %+v, want %s", c.name, got, c.want)
		}
	}
	v := Judge(Verdict{Health: Lagging}, good, t0, p)
	if v = Judge(v, good, t0, p); v.Health != Eligible {
		t.Errorf("after two good samples: %+v", v)
	}
}

func TestPick(t *testing.T) {
	now := at(1000)
	node := func(fresh int, h Health) NodeView {
		return NodeView{Verdict: Verdict{Health: h}, Sample: Sample{Sent: at(990)}, FreshUntil: at(fresh), LagKnown: true}
	}
	v := &View{Primary: 0, Nodes: []NodeView{{Primary: true, Sample: Sample{Sent: at(990)}}, node(900, Eligible), node(500, Eligible), node(990, Lagging)}}
	p := DefaultPolicy()
	for _, c := range []struct {
		name string
		w    Want
		node int
		why  Reason
	}{
		{"strong", Want{Level: Strong, Prefer: -1}, -1, ByLevel},
		{"causal, nothing written", Want{Level: Causal, Prefer: -1}, 1, ToReplica},
		{"causal, by chance the other", Want{Level: Causal, Prefer: -1, Dice: 1}, 2, ToReplica},
		{"causal, written at 600", Want{Level: Causal, Horizon: at(600), Prefer: -1, Dice: 1}, 1, ToReplica},
		{"causal, written at the probe itself", Want{Level: Causal, Horizon: at(900), Prefer: -1}, -1, NotFresh},
		{"a session stays where it was", Want{Level: Causal, Horizon: at(600), Prefer: 2}, 2, ToReplica},
		{"but not if it wrote since", Want{Level: Causal, Horizon: at(600), Prefer: 2, Stay: at(600)}, 1, ToReplica},
		{"a position that none has replayed", Want{Level: Causal, At: 7, Prefer: -1}, -1, NotFresh},
		{"never to a lagging one", Want{Level: Causal, Horizon: at(950), Prefer: 3, Stay: at(0)}, -1, NotFresh},
		{"bounded by 200 ms", Want{Level: Bounded, MaxLag: 200 * time.Millisecond, Prefer: 2, Dice: 1}, 1, ToReplica},
		{"eventual takes the lagging one", Want{Level: Eventual, Prefer: 3}, 3, ToReplica},
	} {
		if n, why := Pick(v, c.w, now, p); n != c.node || why != c.why {
			t.Errorf("%s: node %d, reason %d; want %d, %d", c.name, n, why, c.node, c.why)
		}
	}
	strangers := &View{Primary: 0, Nodes: []NodeView{v.Nodes[0], node(990, Unknown), node(990, Unreachable)}}
	if n, why := Pick(strangers, Want{Level: Eventual, Prefer: 1}, now, p); n != -1 || why != NoReplica {
		t.Errorf("eventual, strangers: %d %d", n, why)
	}
	if n, why := Pick(v, Want{Level: Causal, Prefer: -1}, at(5000), p); n != -1 || why != NoReplica {
		t.Errorf("old samples: %d %d", n, why)
	}
	if a := testing.AllocsPerRun(100, func() { Pick(v, Want{Level: Causal, Prefer: -1}, now, p) }); a > 0 {
		t.Errorf("%v allocations", a)
	}
}

func TestHorizonsKnowWritesInFlight(t *testing.T) {
	h := NewHorizons(t0)
	k := h.Slot(h.Shard("d", "s"), "t", 0)
	if h.Horizon(k) != t0 {
		t.Error("the horizon does not begin at the start")
	}
	h.Sent(k)
	if !h.Horizon(k).After(at(1 << 30)) {
		t.Error("a write in flight does not hold reads back")
	}
	h.Sent(k)
	h.Acked(k, at(50))
	h.Acked(k, at(40))
	if got := h.Horizon(k); !got.Equal(at(50)) {
		t.Errorf("horizon %v", got.Sub(t0))
	}
}

func TestElection(t *testing.T) {
	p := func(line uint32) candidate { return candidate{Claims: true, Timeline: line} }
	r, barred := candidate{}, candidate{Claims: true, Barred: true, Timeline: 2}
	other := func(line uint32) candidate { return candidate{Claims: true, Other: true, Timeline: line} }
	for _, c := range []struct {
		name   string
		nodes  []candidate
		served int
		least  uint32
		want   int
		rivals []int
	}{
		{"the only one", []candidate{r, p(1)}, -1, 0, 1, nil},
		{"none claims: the last known stays", []candidate{r, r}, 0, 1, 0, nil},
		{"promoted while the old one is down", []candidate{r, p(2)}, 0, 1, 1, nil},
		{"promoted while the old one answers: both are fenced", []candidate{p(1), p(2)}, 0, 1, -1, []int{1, 0}},
		{"and stay fenced", []candidate{p(1), p(2), r}, 0, 1, -1, []int{1, 0}},
		{"until the old one is gone", []candidate{r, p(2)}, 0, 1, 1, nil},
		{"or the new one", []candidate{p(1), r}, 0, 1, 0, nil},
		{"or the admin has said which", []candidate{p(1), barred}, 0, 0, 0, nil},
		{"two on one timeline", []candidate{p(1), p(1)}, -1, 0, -1, []int{0, 1}},
		{"two that nobody knows", []candidate{p(1), p(2)}, -1, 0, -1, []int{1, 0}},
		{"an old primary that comes back is ignored", []candidate{p(1), p(2)}, 1, 2, 1, nil},
		{"also while the new one is down", []candidate{p(1), r}, 1, 2, 1, nil},
		{"the address of the one that served leads to an old primary", []candidate{p(1), r}, 0, 2, -1, nil},
		{"another system beside the one that serves", []candidate{p(1), other(1)}, 0, 1, 0, nil},
		{"on a higher timeline, too", []candidate{p(1), other(7)}, 0, 1, 0, nil},
		{"while the one that serves is down", []candidate{r, other(7)}, 0, 1, 0, nil},
		{"beside a promotion", []candidate{r, other(7), p(2)}, 0, 1, 2, nil},
		{"in the place of the one that served: it was restored", []candidate{other(1), r}, 0, 3, 0, nil},
		{"three, two of them new", []candidate{p(1), p(2), p(3)}, 0, 1, -1, []int{2, 0}},
	} {
		got, rivals := elect(c.nodes, c.served, c.least, 0)
		if got != c.want || !slices.Equal(rivals, c.rivals) {
			t.Errorf("%s: primary %d, rivals %v; want %d, %v", c.name, got, rivals, c.want, c.rivals)
		}
	}
}

func TestPickPrefersTheZoneThenTheLessLoaded(t *testing.T) {
	now := at(1000)
	v := &View{Primary: 0, Nodes: []NodeView{{Primary: true, Sample: Sample{Sent: at(990)}}}}
	for _, zone := range []string{"a", "a", "b", "b", "b"} {
		v.Nodes = append(v.Nodes, NodeView{Zone: zone, Verdict: Verdict{Health: Eligible}, Sample: Sample{Sent: at(990)}, FreshUntil: at(900), LagKnown: true})
	}
	count := func(w Want) map[int]int {
		out := map[int]int{}
		rng := rand.New(rand.NewPCG(1, 2))
		for range 3000 {
			w.Dice = rng.Uint32()
			w.Level, w.Prefer = Causal, -1
			n, _ := Pick(v, w, now, DefaultPolicy())
			out[n]++
		}
		return out
	}
	if got := count(Want{Zone: "a"}); got[1]+got[2] != 3000 || got[1] < 1300 || got[2] < 1300 {
		t.Errorf("zone a: %v", got)
	}
	if got := count(Want{Zone: "c"}); len(got) != 5 {
		t.Errorf("a zone without a replica: %v", got)
	}
	// Of two picked by chance the idle one wins: a busy one is read only where both are busy.
	if got := count(Want{Zone: "b", Load: []int32{0, 0, 0, 9, 0, 9}}); got[4] < 1900 || got[3]+got[5] < 800 || got[3]+got[5] > 1200 {
		t.Errorf("loads 9, 0, 9: %v", got)
	}
	if got := count(Want{Zone: "a", Load: []int32{0, 5, 1, 0, 0, 0}}); got[2] != 3000 {
		t.Errorf("the less loaded of two: %v", got)
	}
	w := Want{Level: Causal, Prefer: -1, Zone: "b", Load: []int32{0, 0, 0, 9, 0, 9}, Dice: 12345}
	if a := testing.AllocsPerRun(100, func() { Pick(v, w, now, DefaultPolicy()) }); a > 0 {
		t.Errorf("%v allocations", a)
	}
}

// feed gives a monitor's shard samples, one after the other, and returns its view.
type feed struct {
	m *Monitor
	w *watch
	t time.Time
}

func newFeed(nodes int) *feed {
	f := &feed{m: &Monitor{policy: DefaultPolicy()}, w: &watch{view: &atomic.Pointer[View]{}, primary: -1, served: -1}, t: time.Now().Add(-time.Minute)}
	for i := range nodes {
		f.w.nodes = append(f.w.nodes, &nodeWatch{Node: shardmap.Node{Name: fmt.Sprint("n", i)}})
	}
	return f
}

func (f *feed) sample(node int, s Sample) *View {
	if s.Sent.IsZero() {
		f.t = f.t.Add(time.Millisecond)
		s.Sent = f.t
	}
	if s.SystemID == "" {
		s.SystemID = "a"
	}
	s.Alive = s.Err == nil
	return f.m.take(f.w, f.w.nodes[node], s).next
}

// fresh is how a sample says that it is of now.
func fresh(s Sample) Sample {
	s.Sent = time.Now()
	return s
}

// Two replicas were promoted by accident, both to timeline 2. Who follows the loser is on the primary's timeline, too, and is no
// replica of it.
func TestTwoThatBeganOneTimeline(t *testing.T) {
	f := newFeed(4)
	f.sample(0, Sample{Primary: true, Timeline: 1, LSN: 100})
	for n := 1; n < 4; n++ {
		f.sample(n, Sample{Timeline: 1, LSN: 100})
	}
	f.sample(0, Sample{Err: errors.New("dead")})
	f.sample(1, Sample{Primary: true, Timeline: 2, LSN: 200})
	if v := f.sample(2, Sample{Primary: true, Timeline: 2, LSN: 300}); v.Fenced == "" {
		t.Fatal("two primaries, and no fence")
	}
	f.w.nodes[2].Barred = true
	for range 3 {
		f.sample(1, fresh(Sample{Primary: true, Timeline: 2, LSN: 210}))
		f.sample(3, fresh(Sample{Timeline: 2, LSN: 210}))
	}
	v := f.w.view.Load()
	if n := v.Nodes[3]; v.Primary != 1 || n.Verdict.Health == Eligible || !strings.Contains(n.Verdict.Reason, "n1 and n2") {
		t.Errorf("primary %d, the follower is %s: %s", v.Primary, n.Verdict.Health, n.Verdict.Reason)
	}
	// The loser comes as a replica, but has not been rebuilt.
	f.w.nodes[2].Barred = false
	for range 3 {
		f.sample(1, fresh(Sample{Primary: true, Timeline: 2, LSN: 410}))
		f.sample(2, fresh(Sample{Timeline: 2, LSN: 300, Started: at(7)}))
	}
	if n := f.w.view.Load().Nodes[2]; n.Verdict.Health == Eligible {
		t.Error("the loser answers reads")
	}
	// The next promotion ends it: nobody else is on that timeline.
	f.sample(1, fresh(Sample{Timeline: 2, LSN: 500}))
	for range 3 {
		f.sample(3, fresh(Sample{Primary: true, Timeline: 3, LSN: 510}))
		f.sample(1, fresh(Sample{Timeline: 3, LSN: 510}))
	}
	if n := f.w.view.Load().Nodes[1]; n.Verdict.Health != Eligible {
		t.Errorf("after the next promotion: %s", n.Verdict.Reason)
	}
}

// A replica cannot have what its primary has not.
func TestReplicaAheadOfItsPrimary(t *testing.T) {
	f := newFeed(2)
	f.sample(1, fresh(Sample{Timeline: 1, LSN: 90}))
	f.sample(0, fresh(Sample{Primary: true, Timeline: 1, LSN: 100}))
	for range 3 {
		f.sample(1, fresh(Sample{Timeline: 1, LSN: 150}))
	}
	if v := f.w.view.Load(); v.Nodes[1].Verdict.Health != Eligible { // the primary's position is older than the replica's
		t.Fatal(v.Nodes[1].Verdict.Reason)
	}
	f.sample(0, fresh(Sample{Primary: true, Timeline: 1, LSN: 150}))
	if v := f.w.view.Load(); v.Nodes[1].Verdict.Health != Eligible {
		t.Fatal(v.Nodes[1].Verdict.Reason)
	}
	f.sample(1, fresh(Sample{Timeline: 1, LSN: 170}))
	for range 3 {
		f.sample(0, fresh(Sample{Primary: true, Timeline: 1, LSN: 160}))
		f.sample(1, fresh(Sample{Timeline: 1, LSN: 170}))
	}
	if n := f.w.view.Load().Nodes[1]; n.Verdict.Health == Eligible || !strings.Contains(n.Verdict.Reason, "ahead") {
		t.Errorf("%s: %s", n.Verdict.Health, n.Verdict.Reason)
	}
	f.sample(0, fresh(Sample{Primary: true, Timeline: 1, LSN: 900})) // the primary overtakes it: it still has other rows
	for range 3 {
		f.sample(1, fresh(Sample{Timeline: 1, LSN: 170}))
	}
	if n := f.w.view.Load().Nodes[1]; n.Verdict.Health == Eligible {
		t.Error("it was forgotten")
	}
}

// Positions of one primary say nothing of another's, though it is on the same timeline.
func TestPositionsAreOnePrimarys(t *testing.T) {
	f := newFeed(2)
	f.sample(1, fresh(Sample{Timeline: 1, LSN: 90}))
	f.sample(0, fresh(Sample{Primary: true, Timeline: 2, LSN: 100}))
	f.sample(0, fresh(Sample{Err: errors.New("dead")}))
	f.sample(1, fresh(Sample{Primary: true, Timeline: 2, LSN: 120}))
	if at, ok := f.w.history.Reached(110); ok {
		t.Errorf("the dead one's position of %s is kept", at.LSN)
	}
}

// A standby whose servers have crashed is behind itself, though its postmaster is the same.
func TestEpochGrowsWithEachConnection(t *testing.T) {
	f := newFeed(2)
	f.sample(0, fresh(Sample{Primary: true, Timeline: 1, LSN: 100}))
	f.sample(1, fresh(Sample{Timeline: 1, LSN: 100, First: true}))
	before := f.sample(1, fresh(Sample{Timeline: 1, LSN: 100})).Nodes[1].Epoch
	if now := f.sample(1, fresh(Sample{Timeline: 1, LSN: 90, First: true})).Nodes[1].Epoch; now == before {
		t.Error("nobody learns of it")
	}
}

// The system that served a shard keeps it while one of its nodes is there.
func TestAnotherSystemIsNotElected(t *testing.T) {
	f := newFeed(3)
	f.sample(2, fresh(Sample{Err: errors.New("away")}))
	f.sample(0, fresh(Sample{Primary: true, Timeline: 1, LSN: 100}))
	f.sample(1, fresh(Sample{Timeline: 1, LSN: 100}))
	v := f.sample(2, fresh(Sample{Primary: true, Timeline: 5, LSN: 900, SystemID: "b"}))
	if v.Primary != 0 || v.Fenced != "" || !strings.Contains(v.Nodes[2].Verdict.Reason, "another system") {
		t.Errorf("primary %d, %q, %q", v.Primary, v.Fenced, v.Nodes[2].Verdict.Reason)
	}
	f.sample(0, fresh(Sample{Err: errors.New("dead")}))
	if v = f.sample(2, fresh(Sample{Primary: true, Timeline: 5, LSN: 900, SystemID: "b"})); v.Primary != 0 {
		t.Errorf("primary %d", v.Primary)
	}
	if v = f.sample(1, fresh(Sample{Primary: true, Timeline: 2, LSN: 100})); v.Primary != 1 {
		t.Errorf("primary %d", v.Primary)
	}
	// The admin drops what was of it: then what is left was restored.
	f.w.nodes, f.w.served, f.w.primary = f.w.nodes[2:], -1, -1
	if v = f.sample(0, fresh(Sample{Primary: true, Timeline: 1, LSN: 900, SystemID: "b"})); v.Primary != 0 {
		t.Errorf("primary %d", v.Primary)
	}
}

// What replicas follow tells of a newer primary than the one that claims to be it, also to a monitor that has just started.
func TestReplicasKnowOfANewerPrimary(t *testing.T) {
	node := func(primary bool, line uint32) *nodeWatch {
		s := Sample{Sent: t0, Primary: primary, Timeline: line, SystemID: "a", Alive: true}
		return &nodeWatch{sample: s, good: s}
	}
	dead := &nodeWatch{sample: Sample{Sent: t0, Err: errors.New("x")}}
	stranger := node(false, 9)
	stranger.good.SystemID = "b"
	barred := node(true, 2)
	barred.Barred = true
	for _, c := range []struct {
		name   string
		nodes  []*nodeWatch
		served int
		want   int
	}{
		{"an old primary, the new one is dead", []*nodeWatch{node(true, 1), dead, node(false, 2)}, -1, -1},
		{"nobody knows better", []*nodeWatch{node(true, 1), dead, node(false, 1)}, -1, 0},
		{"a replica of something else", []*nodeWatch{node(true, 1), stranger}, -1, 0},
		{"the one that serves goes on", []*nodeWatch{node(true, 1), dead, node(false, 2)}, 0, 0},
		{"the admin has decided", []*nodeWatch{node(true, 1), barred, node(false, 2)}, -1, 0},
		{"a replica that follows one of two that claim decides nothing", []*nodeWatch{node(true, 1), node(true, 2), node(false, 2)}, 0, -1},
		{"nor to a monitor that has just started", []*nodeWatch{node(true, 1), node(true, 2), node(false, 2)}, -1, -1},
		{"one has not been asked yet", []*nodeWatch{node(true, 1), {}}, -1, -1},
	} {
		w := &watch{nodes: c.nodes, served: c.served, primary: -1}
		w.elect()
		if w.primary != c.want {
			t.Errorf("%s: primary %d, want %d", c.name, w.primary, c.want)
		}
	}
}

// The admin adopts another system while the monitor has seen the old primary alive just now: that is not elected once more, which would
// keep the new one out for good.
func TestAnAdoptedSystemIsElected(t *testing.T) {
	f := newFeed(2)
	f.w.key = shardKey{"db", "s"}
	f.m.log, f.m.shards = slog.New(slog.DiscardHandler), map[shardKey]*watch{f.w.key: f.w}
	adopt := func(system string) {
		doc := &shardmap.Document{Install: "i", Databases: []*shardmap.Database{{Name: "db", Home: "s"}}, Shards: []*shardmap.Shard{{Database: "db", Name: "s", System: system}}}
		for _, n := range f.w.nodes {
			doc.Nodes = append(doc.Nodes, &shardmap.Node{Database: "db", Shard: "s", Name: n.Name})
		}
		snap, err := shardmap.Compile(doc)
		if err != nil {
			t.Fatal(err)
		}
		f.m.reconcile(t.Context(), nil, snap)
	}
	adopt("a")
	f.sample(1, fresh(Sample{Err: errors.New("another system")}))
	if v := f.sample(0, fresh(Sample{Primary: true, Timeline: 1, LSN: 100})); v.Primary != 0 {
		t.Fatalf("primary %d", v.Primary)
	}
	adopt("b")
	f.sample(0, fresh(Sample{Err: errors.New("another system")}))
	if v := f.sample(1, fresh(Sample{Primary: true, Timeline: 1, LSN: 100, SystemID: "b"})); v.Primary != 1 || !v.Up() {
		t.Errorf("primary %d: %s", v.Primary, v.Nodes[1].Verdict.Reason)
	}
}

// Whatever takes a shard from a node, a sample or the admin's word, those who are at it are told: what they write there is lost.
func TestWhoIsAtADeposedNodeIsTold(t *testing.T) {
	type words struct {
		system, primary string
		named           int
		barred          string
		nodes           []string // name=connection string
	}
	snap := func(m words) *shardmap.Snapshot {
		doc := &shardmap.Document{Install: "i", Databases: []*shardmap.Database{{Name: "db", Home: "s"}}, Shards: []*shardmap.Shard{{Database: "db", Name: "s", System: m.system, Primary: m.primary, Named: m.named}}}
		for _, n := range m.nodes {
			name, dsn, _ := strings.Cut(n, "=")
			doc.Nodes = append(doc.Nodes, &shardmap.Node{Database: "db", Shard: "s", Name: name, DSN: dsn, Barred: name == m.barred})
		}
		s, err := shardmap.Compile(doc)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	begun := words{system: "a", nodes: []string{"n0=0", "n1=1"}}
	for _, c := range []struct {
		name    string
		before  []words
		after   words
		want    []string
		primary string
	}{
		{"another system is adopted", nil, words{system: "b", nodes: begun.nodes}, []string{"cut 0", "cut 1"}, ""},
		{"by a map in which its node is another's", nil, words{system: "b", nodes: []string{"n0=2", "n1=1"}}, []string{"cut 0", "cut 1", "drop 0"}, ""},
		{"after the map has forgotten it", []words{{system: "a", nodes: []string{"n0=2", "n1=1"}}}, words{system: "b", nodes: []string{"n0=2", "n1=1"}}, []string{"cut 0", "cut 1"}, ""},
		{"and had it once more", []words{{system: "a", nodes: []string{"n0=2", "n1=1"}}, begun}, words{system: "a", nodes: begun.nodes}, nil, ""},
		{"the admin names another", nil, words{system: "a", nodes: begun.nodes, named: 1, primary: "n1", barred: "n0"}, []string{"cut 0"}, ""},
		{"its connection string is another's: what runs there ends", nil, words{system: "a", nodes: []string{"n0=2", "n1=1"}}, []string{"drop 0"}, ""},
		{"it stays", nil, begun, nil, "n0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFeed(0)
			f.w.key = shardKey{"db", "s"}
			f.m.log, f.m.shards = slog.New(slog.DiscardHandler), map[shardKey]*watch{f.w.key: f.w}
			var told []string
			served := ""
			f.m.events = Events{
				Left: func(dsn string, atOnce bool) {
					told = append(told, map[bool]string{true: "cut ", false: "drop "}[atOnce]+dsn)
				},
				Primary: func(_, _, node string) { served = node },
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // nobody is asked
			var wg sync.WaitGroup
			f.m.reconcile(ctx, &wg, snap(begun))
			f.sample(1, fresh(Sample{Timeline: 1, LSN: 100}))
			f.m.observe(f.w, f.w.nodes[0], Sample{Sent: time.Now(), Primary: true, Alive: true, Timeline: 1, LSN: 100, SystemID: "a"})
			if f.w.primary != 0 || served != "n0" {
				t.Fatalf("primary %d, told of %q", f.w.primary, served)
			}
			for _, m := range c.before {
				f.m.reconcile(ctx, &wg, snap(m))
			}
			told = nil
			f.m.reconcile(ctx, &wg, snap(c.after))
			slices.Sort(told)
			if !slices.Equal(slices.Compact(told), c.want) {
				t.Errorf("told %q, want %q", told, c.want)
			}
			if served != c.primary {
				t.Errorf("the shard is said to be served by %q, want %q", served, c.primary)
			}
			wg.Wait()
		})
	}
}

// Who waits for a shard's primary learns that the shard is dropped: one that is made under its name has a place of its own.
func TestWhoWaitsForADroppedShardIsTold(t *testing.T) {
	snap := func(shards ...string) *shardmap.Snapshot {
		doc := &shardmap.Document{Install: "i", Databases: []*shardmap.Database{{Name: "db", Home: "home"}}}
		for i, name := range append([]string{"home"}, shards...) {
			doc.Shards = append(doc.Shards, &shardmap.Shard{Database: "db", Name: name, Ordinal: i})
			doc.Nodes = append(doc.Nodes, &shardmap.Node{Database: "db", Shard: name, Name: "n", DSN: name})
		}
		s, err := shardmap.Compile(doc)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	f := newFeed(0)
	f.m.log, f.m.shards = slog.New(slog.DiscardHandler), map[shardKey]*watch{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody is asked
	var wg sync.WaitGroup
	defer wg.Wait()
	f.m.reconcile(ctx, &wg, snap("s"))
	slot := f.m.Slot("db", "s")
	waits := slot.Load()
	if waits.Serves() {
		t.Fatal("a shard is served that nobody has asked")
	}
	f.m.reconcile(ctx, &wg, snap())
	select {
	case <-waits.Changed():
	default:
		t.Error("who waits for the shard goes on to wait")
	}
	if slot.Load() != nil {
		t.Error("the dropped shard has a view still")
	}
	f.m.reconcile(ctx, &wg, snap("s"))
	if next := f.m.Slot("db", "s"); next == slot || next.Load() == nil {
		t.Error("the new shard is not seen in a place of its own")
	}
}

// A connection string that the map gives another shard is that shard's: who is there is not cut off because the shard that had it is
// another system from then on.
func TestAnotherShardsNodeIsNotCutOff(t *testing.T) {
	snap := func(system string, nodes ...string) *shardmap.Snapshot {
		doc := &shardmap.Document{Install: "i", Databases: []*shardmap.Database{{Name: "db", Home: "s"}}}
		for i, s := range []string{"s", "r"} {
			doc.Shards = append(doc.Shards, &shardmap.Shard{Database: "db", Name: s, Ordinal: i, System: map[string]string{"s": system}[s]})
		}
		for _, n := range nodes {
			part := strings.Split(n, "=")
			doc.Nodes = append(doc.Nodes, &shardmap.Node{Database: "db", Shard: part[0], Name: part[1], DSN: part[2]})
		}
		s, err := shardmap.Compile(doc)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	f := newFeed(0)
	f.w.key = shardKey{"db", "s"}
	f.m.log, f.m.shards = slog.New(slog.DiscardHandler), map[shardKey]*watch{f.w.key: f.w}
	var told []string
	f.m.events = Events{Left: func(dsn string, atOnce bool) {
		if atOnce {
			told = append(told, dsn)
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody is asked
	var wg sync.WaitGroup
	f.m.reconcile(ctx, &wg, snap("a", "s=n0=0", "s=n1=1", "r=m0=2"))
	f.m.reconcile(ctx, &wg, snap("a", "s=n0=0", "r=m0=2"))
	f.m.reconcile(ctx, &wg, snap("a", "s=n0=0", "r=m0=2", "r=m1=1"))
	f.m.reconcile(ctx, &wg, snap("b", "s=n0=0", "r=m0=2", "r=m1=1"))
	if len(told) > 0 {
		t.Errorf("cut off: %q", told)
	}
	wg.Wait()
}

// A map of many nodes is not connected to all at once.
func TestNodesAreConnectedToInTurn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var now, most, all atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				buf := make([]byte, 1024)
				_, _ = c.Read(buf)
				time.Sleep(20 * time.Millisecond)
				now.Add(-1)
				const full = "SFATAL\x00C53300\x00Mtoo many clients already\x00\x00"
				_, _ = c.Write(append(binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(full)+4)), full...))
				all.Add(1)
			}()
		}
	}()
	doc := &shardmap.Document{Version: 1, Databases: []*shardmap.Database{{Name: "db", Home: "s"}}, Shards: []*shardmap.Shard{{Database: "db", Name: "s", Ordinal: 1}}}
	for i := range 3 * dialsAtOnce {
		doc.Nodes = append(doc.Nodes, &shardmap.Node{Database: "db", Shard: "s", Name: fmt.Sprint("n", i), Ordinal: i, DSN: fmt.Sprintf("postgres://u@%s/db?sslmode=disable&connect_timeout=%d", l.Addr(), 100+i)})
	}
	snap, err := shardmap.Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	m := &Monitor{policy: Policy{Interval: time.Hour, MaxAge: time.Minute}, log: slog.New(slog.DiscardHandler), shards: map[shardKey]*watch{}, dials: make(chan struct{}, dialsAtOnce)}
	m.views.Store(&map[shardKey]*atomic.Pointer[View]{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	m.reconcile(ctx, &wg, snap)
	for all.Load() < 3*dialsAtOnce && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	cancel()
	wg.Wait()
	if n := most.Load(); n > dialsAtOnce || n < dialsAtOnce/2 {
		t.Errorf("%d connections at once, want %d", n, dialsAtOnce)
	}
}
