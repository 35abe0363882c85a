package replication

import (
	"fmt"
	"time"
)

// Health is whether a replica may answer reads.
type Health uint8

// The states of a replica. Only Judge changes them.
const (
	Unknown Health = iota
	Eligible
	Lagging
	Unreachable
)

func (h Health) String() string { return Healths[h].Name }

// Healths lists what each means, and the levels of reads that a replica in it may answer, each if what is known of it is as new as the read needs:
// docs/states.md is printed from it. From any a replica may get into any other but eligible at once, and into that by good samples in a row.
var Healths = [...]struct {
	Name, Means string
	Answers     [Eventual + 1]bool
}{
	Unknown:     {Name: "unknown", Means: "it was not probed yet, or nothing shows that it follows the shard's primary"},
	Eligible:    {Name: "eligible", Means: "it follows the primary, within max_lag", Answers: [...]bool{Causal: true, Session: true, Bounded: true, Eventual: true}},
	Lagging:     {Name: "lagging", Means: "it follows the primary, and is behind it by more than max_lag, or its replay is paused", Answers: [...]bool{Eventual: true}},
	Unreachable: {Name: "unreachable", Means: "its last probe failed, or is too old"},
}

// Answers says whether a replica of such health may answer reads of a level.
func (h Health) Answers(l Level) bool { return Healths[h].Answers[l] }

// Policy is when a replica is fit to read from.
type Policy struct {
	Interval  time.Duration // between probes
	MaxAge    time.Duration // of a sample
	MaxLag    time.Duration // leave at it, return below 80 % of it
	HardLimit time.Duration // beyond it not even eventual reads
}

// DefaultPolicy is what the configuration says when it says nothing.
func DefaultPolicy() Policy {
	return Policy{Interval: 100 * time.Millisecond, MaxAge: time.Second, MaxLag: 10 * time.Second, HardLimit: 5 * time.Minute}
}

// Verdict is a replica's health with its reason and how many good samples it has shown in a row.
type Verdict struct {
	Health Health
	Reason string
	good   int
}

// Evidence is what Judge looks at.
type Evidence struct {
	Sample   Sample
	SystemID string // of the shard; empty if not known
	Timeline uint32 // of the primary; 0 if not known
	Lag      time.Duration
	LagKnown bool // else Lag is what it is at least
	Doubtful bool // it is on a timeline that two nodes have begun
	Who      string
	Ahead    bool // it has replayed what its primary had not written
}

// Judge decides from the last verdict and new evidence. It is pure. A replica leaves at once and returns
// after two good samples in a row.
func Judge(prev Verdict, e Evidence, now time.Time, p Policy) Verdict {
	out := func(h Health, format string, args ...any) Verdict {
		return Verdict{Health: h, Reason: fmt.Sprintf(format, args...)}
	}
	s := e.Sample
	switch {
	case s.Err != nil:
		return out(Unreachable, "%v", s.Err)
	case s.Sent.IsZero():
		return out(Unknown, "not probed yet")
	case now.Sub(s.Sent) > p.MaxAge:
		return out(Unreachable, "last answer is %s old", now.Sub(s.Sent).Round(time.Millisecond))
	case e.SystemID != "" && s.SystemID != e.SystemID:
		return out(Unknown, "another system identifier than the primary")
	case e.Timeline != 0 && s.Timeline != 0 && s.Timeline != e.Timeline:
		return out(Unknown, "on timeline %d, the primary is on %d", s.Timeline, e.Timeline)
	case s.Paused:
		return out(Lagging, "replay is paused")
	case e.Doubtful:
		return out(Unknown, "%s have begun timeline %d: which it follows is not known. Rebuild it, and DROP NODE and ADD NODE it", e.Who, s.Timeline)
	case e.Ahead:
		return out(Unknown, "it is ahead of its primary, so it has another history: rebuild it")
	case !e.LagKnown && e.Lag == 0:
		return out(Unknown, "the primary's position is not known")
	case !e.LagKnown && e.Lag < p.MaxLag:
		return out(Unknown, "it is older than all that is known of the primary, by %s at least", e.Lag.Round(time.Millisecond))
	case e.Lag >= p.MaxLag:
		return out(Lagging, "lag %s is over the limit of %s", e.Lag.Round(time.Millisecond), p.MaxLag)
	case prev.Health == Lagging && e.Lag >= p.MaxLag*8/10:
		return out(Lagging, "lag %s is not yet below 80 %% of %s", e.Lag.Round(time.Millisecond), p.MaxLag)
	}
	if prev.Health == Eligible {
		return Verdict{Health: Eligible}
	}
	v := Verdict{Health: prev.Health, Reason: "coming back", good: prev.good + 1}
	if v.good >= 2 {
		return Verdict{Health: Eligible}
	}
	return v
}
