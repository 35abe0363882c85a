package replication

import (
	"errors"
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
	k := h.Key("d", "s", "t")
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

func view(primary int, nodes ...Sample) (*Monitor, *watch) {
	m := &Monitor{policy: DefaultPolicy()}
	w := &watch{primary: primary}
	for _, s := range nodes {
		w.nodes = append(w.nodes, &nodeWatch{sample: s, good: s})
	}
	return m, w
}

func TestElection(t *testing.T) {
	p := func(line uint32) Sample { return Sample{Sent: t0, Primary: true, Timeline: line} }
	r := Sample{Sent: t0, Timeline: 1}
	down := Sample{Sent: t0, Err: errors.New("x"), Primary: true, Timeline: 1}
	for _, c := range []struct {
		name   string
		before int
		nodes  []Sample
		want   int
	}{
		{"the only one", -1, []Sample{r, p(1)}, 1},
		{"none answers: the last known stays", 0, []Sample{down, r}, 0},
		{"promoted while the old one is down", 0, []Sample{down, p(2)}, 1},
		{"promoted while the old one answers: both are fenced", 0, []Sample{p(1), p(2)}, -1},
		{"two on one timeline", -1, []Sample{p(1), p(1)}, -1},
		{"an old primary that comes back is ignored", 1, []Sample{p(1), p(2)}, 1},
	} {
		m, w := view(c.before, c.nodes...)
		m.electLocked(w)
		if w.primary != c.want {
			t.Errorf("%s: primary %d, want %d", c.name, w.primary, c.want)
		}
	}
}
