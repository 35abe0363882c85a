package replication

import (
	"fmt"
	"time"
)

// View is what is known of a shard at one moment. It is immutable.
type View struct {
	Database, Shard string
	Primary         int // index in Nodes; -1 if none was ever seen or two claim to be it
	Fenced          string
	Nodes           []NodeView
}

// NodeView is one node of a View.
type NodeView struct {
	Name, DSN, Zone string
	Primary         bool
	Verdict         Verdict
	Sample          Sample
	FreshUntil      time.Time // it has every write acknowledged before this
	Lag             time.Duration
	LagKnown        bool
	LagBytes        int64
	PrimaryLSN      LSN
	LastSeen        time.Time
}

// Role is primary, replica or unknown.
func (n *NodeView) Role() string {
	switch {
	case n.LastSeen.IsZero():
		return "unknown"
	case n.Primary:
		return "primary"
	}
	return "replica"
}

// Up says whether the shard's primary answered its last probe.
func (v *View) Up() bool {
	return v.Primary >= 0 && v.Nodes[v.Primary].Sample.Err == nil && v.Fenced == ""
}

// Level is a promise about reads: pgmosaic.read_consistency.
type Level uint8

// The levels, weakest last.
const (
	Strong Level = iota
	Causal
	Session
	Bounded
	Eventual
)

var levelNames = [...]string{"strong", "causal", "session", "bounded", "eventual"}

func (l Level) String() string { return levelNames[l] }

// ParseLevel reads a level's name.
func ParseLevel(s string) (Level, error) {
	for i, n := range levelNames {
		if n == s {
			return Level(i), nil
		}
	}
	return 0, fmt.Errorf("invalid value for parameter \"pgmosaic.read_consistency\": %q", s)
}

// Want is what a read needs of a replica.
type Want struct {
	Level   Level
	Horizon time.Time     // it must have every write acknowledged up to then
	MaxLag  time.Duration // pgmosaic.max_staleness
	Prefer  int           // the node that answered this session last, or -1
	Stay    time.Time     // the horizon of the preferred node, which need not catch up with itself
	Dice    uint32        // chance, from the caller
}

// Reason says why a read went where it went.
type Reason uint8

// The reasons, as metrics name them.
const (
	ToReplica Reason = iota
	ByLevel
	NoReplica
	NotFresh
	NotARead
)

// ReasonNames are the labels of Reason.
var ReasonNames = [...]string{"replica", "level_strong", "no_eligible_replica", "not_fresh_enough", "not_a_read"}

// Pick chooses a node for a read: an index in Nodes, or -1 for the primary. It is pure and allocates
// nothing.
func Pick(v *View, w Want, now time.Time, p Policy) (int, Reason) {
	if w.Level == Strong {
		return -1, ByLevel
	}
	reason := NoReplica
	fit := func(i int, horizon time.Time) bool {
		n := &v.Nodes[i]
		if i == v.Primary || n.Primary {
			return false
		}
		if w.Level == Eventual {
			return n.Sample.Err == nil && n.LagKnown && n.Lag <= p.HardLimit && now.Sub(n.Sample.Sent) <= p.MaxAge
		}
		if n.Verdict.Health != Eligible || now.Sub(n.Sample.Sent) > p.MaxAge {
			return false
		}
		reason = NotFresh
		if w.MaxLag > 0 && now.Sub(n.FreshUntil) > w.MaxLag+p.Interval {
			return false
		}
		return w.Level == Bounded || n.FreshUntil.After(horizon)
	}
	if w.Prefer >= 0 && w.Prefer < len(v.Nodes) && fit(w.Prefer, w.Stay) {
		return w.Prefer, ToReplica
	}
	count := 0
	for i := range v.Nodes {
		if fit(i, w.Horizon) {
			count++
		}
	}
	if count == 0 {
		return -1, reason
	}
	k := int(w.Dice % uint32(count))
	for i := range v.Nodes {
		if fit(i, w.Horizon) {
			if k == 0 {
				return i, ToReplica
			}
			k--
		}
	}
	return -1, reason
}
