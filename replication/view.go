package replication

import (
	"errors"
	"fmt"
	"time"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// View is what is known of a shard at one moment. It is immutable.
type View struct {
	Database, Shard string
	Primary         int // index in Nodes; -1 if none was ever seen or two claim to be it
	Fenced          string
	Since           time.Time // since when the shard is served, or is not: see Serves
	Nodes           []NodeView

	changed chan struct{} // closed when a later view differs in that
}

// NodeView is one node of a View.
type NodeView struct {
	Name, DSN, Zone string
	Primary         bool
	Verdict         Verdict
	Sample          Sample
	FreshUntil      time.Time // it has every write acknowledged before this
	Lag             time.Duration
	LagKnown        bool // else Lag is what it is at least
	LagBytes        int64
	PrimaryLSN      LSN
	LastSeen        time.Time
	Epoch           uint32 // grows when the node is another server than before: restarted, promoted, replaced
	Barred          bool   // it claims to be the primary, and the admin has said that it is not
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

// Stranger says whether the node's database says that it is not the shard's.
func (n *NodeView) Stranger() bool {
	var s *shardmap.StrangerError
	return errors.As(n.Sample.Err, &s)
}

// Up says whether the shard's primary answered its last probe.
func (v *View) Up() bool {
	return v.serving() != "" && v.Nodes[v.Primary].Sample.Err == nil
}

// Serves says whether work may be sent to the shard's primary: there is one, and its last probe did not show it gone.
func (v *View) Serves() bool {
	return v.serving() != ""
}

// serving is the primary that work may be sent to; empty for none.
func (v *View) serving() string {
	if v == nil || v.Primary < 0 || v.Fenced != "" || !v.Nodes[v.Primary].Primary || !v.Nodes[v.Primary].Sample.Alive {
		return ""
	}
	return v.Nodes[v.Primary].Name
}

// Changed is closed when the shard is served where it was not, or no longer, or by another node, or is dropped.
func (v *View) Changed() <-chan struct{} { return v.changed }

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
	At      LSN           // and must have replayed this, if it is not 0
	MaxLag  time.Duration // pgmosaic.max_staleness
	Prefer  int           // the node that answered this session last, or -1
	Stay    time.Time     // the horizon of the preferred node, which need not catch up with itself
	Zone    string        // nodes of this zone come first; empty for none
	Load    []int32       // statements in flight at each node; nil if not known
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
	Retried
)

// ReasonNames are the labels of Reason.
var ReasonNames = [...]string{"replica", "level_strong", "no_eligible_replica", "not_fresh_enough", "retried"}

// Pick chooses a node for a read: an index in Nodes, or -1 for the primary. Among those that are fit it prefers the
// zone, then the less loaded of two picked by chance (Mitzenmacher, The Power of Two Choices, 2001). It is pure and
// allocates nothing.
func Pick(v *View, w Want, now time.Time, p Policy) (int, Reason) {
	if w.Level == Strong {
		return -1, ByLevel
	}
	if w.Prefer >= 0 && w.Prefer < len(v.Nodes) && fit(v, &w, w.Prefer, w.Stay, now, p) == ToReplica {
		return w.Prefer, ToReplica
	}
	all, near, reason := 0, 0, NoReplica
	for i := range v.Nodes {
		switch fit(v, &w, i, w.Horizon, now, p) {
		case ToReplica:
			all++
			if w.Zone != "" && v.Nodes[i].Zone == w.Zone {
				near++
			}
		case NotFresh:
			reason = NotFresh
		default: // that it is no replica, or too far behind, is known already
		}
	}
	if all == 0 {
		return -1, reason
	}
	zone, count := "", all
	if near > 0 {
		zone, count = w.Zone, near
	}
	a := nth(v, &w, int(w.Dice%uint32(count)), zone, now, p)
	if count > 1 && len(w.Load) == len(v.Nodes) {
		second := (w.Dice>>16)%uint32(count-1) + 1 // another one than the first
		b := nth(v, &w, int((w.Dice%uint32(count)+second)%uint32(count)), zone, now, p)
		if w.Load[b] < w.Load[a] {
			a = b
		}
	}
	return a, ToReplica
}

// nth is the k-th node that is fit, counted within a zone unless that is empty.
func nth(v *View, w *Want, k int, zone string, now time.Time, p Policy) int {
	for i := range v.Nodes {
		if (zone == "" || v.Nodes[i].Zone == zone) && fit(v, w, i, w.Horizon, now, p) == ToReplica {
			if k == 0 {
				return i
			}
			k--
		}
	}
	return -1
}

// fit says whether a node may answer: ToReplica, NotFresh, or NoReplica for one that is no healthy replica.
func fit(v *View, w *Want, i int, horizon time.Time, now time.Time, p Policy) Reason {
	n := &v.Nodes[i]
	if i == v.Primary || n.Primary || now.Sub(n.Sample.Sent) > p.MaxAge {
		return NoReplica
	}
	if !n.Verdict.Health.Answers(w.Level) { // a stranger, or one of another history, is unknown
		return NoReplica
	}
	if w.Level == Eventual {
		if n.Sample.Err == nil && n.LagKnown && n.Lag <= p.HardLimit {
			return ToReplica
		}
		return NoReplica
	}
	switch {
	case w.MaxLag > 0 && now.Sub(n.FreshUntil) > w.MaxLag+p.Interval:
		return NotFresh
	case w.Level != Bounded && (!n.FreshUntil.After(horizon) || n.Sample.LSN < w.At):
		return NotFresh
	}
	return ToReplica
}
