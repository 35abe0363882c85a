package replication

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
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
