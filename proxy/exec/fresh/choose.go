package fresh

import (
	"time"

	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router"
)

// Read is a read that a node is sought for.
type Read struct {
	Level     replication.Level
	MaxLag    time.Duration
	Isolation string // as the session has set it; empty is READ COMMITTED
	Zone      string // of this process
	Now       time.Time
	Dice      uint32 // picks among equals

	Template *router.Template
	Key      uint64 // that it is tied to; 0 for none: see router.Template.Route
}

// Primary is the node of a Choice that is the primary, whichever that is.
const Primary = -1

// Choice is the node that is to answer. With Vouch the node is only known to have every write, but not all that this session has seen on
// the primary: it must give its word.
type Choice struct {
	Node   int
	Reason replication.Reason
	Vouch  bool
}

// Choose picks a node for a read, where there are several.
func (s *Shard) Choose(v *replication.View, r Read) Choice {
	if r.Level == replication.Strong || r.Isolation == "serializable" {
		return Choice{Primary, replication.ByLevel, false}
	}
	policy := s.from.Monitor.Policy()
	want := replication.Want{Level: r.Level, MaxLag: r.MaxLag, Prefer: -1, Zone: r.Zone, Load: s.loads(), Dice: r.Dice}
	if r.Level != replication.Causal && r.Level != replication.Session {
		node, reason := replication.Pick(v, want, r.Now, policy)
		return Choice{node, reason, false}
	}
	written := s.written(r)
	want.At = s.at
	want.Horizon = later(written, s.seen)
	want.Stay = written
	if !s.vouched {
		want.Stay = later(written, s.horizon)
	}
	if s.last >= 0 && s.last < len(v.Nodes) && v.Nodes[s.last].Epoch == s.epoch { // a restarted one may be behind itself
		want.Prefer = s.last
	}
	node, reason := replication.Pick(v, want, r.Now, policy)
	if node >= 0 || reason != replication.NotFresh || r.Now.Before(s.tryAt) {
		s.vouched = s.vouched && node >= 0 && node == want.Prefer
		return Choice{node, reason, false}
	}
	s.vouched = false
	want.Horizon, want.Prefer = written, -1
	node, reason = replication.Pick(v, want, r.Now, policy)
	return Choice{node, reason, node >= 0}
}

// written is when something was last written that the read must see: by anybody (causal), or by this session.
func (s *Shard) written(r Read) time.Time {
	h := s.from.Horizon
	written := h.Horizon(s.whole)
	if r.Isolation != "" { // what is read later, whatever it is, is read from the same snapshot
		written = later(written, h.Horizon(s.any))
	}
	s.keys = s.ReadKeys(s.keys[:0], r.Template, r.Key)
	for _, k := range s.keys {
		written = later(written, h.Horizon(k))
	}
	if r.Level == replication.Session { // the session's own writes are among them
		wrote := s.wrote
		if s.owed {
			wrote = later(wrote, h.Horizon(s.whole))
		}
		if wrote.Before(written) {
			written = wrote
		}
	}
	return later(written, s.floor)
}

// loads are the statements in flight at each node, of this process.
func (s *Shard) loads() []int32 {
	s.load = s.load[:0]
	for _, c := range s.Counts {
		s.load = append(s.load, c.Running.Load())
	}
	return s.load
}

// On notes that a replica answers, as the view has it.
func (s *Shard) On(v *replication.View, node int) { s.last, s.epoch = node, v.Nodes[node].Epoch }

// OnPrimary notes that the primary answers what could have been a replica's.
func (s *Shard) OnPrimary() { s.last, s.vouched = -1, false }

// Still has the replica asked for that the session reads already.
func (s *Shard) Still(node int) { s.last = node }

// Vouched notes that the replica which is to answer has given its word.
func (s *Shard) Vouched() { s.vouched = true }

// askAgain is how long no replica is asked for its word after one that could not give it.
const askAgain = 20 * time.Millisecond

// Behind notes that a replica could not give its word.
func (s *Shard) Behind(now time.Time) { s.tryAt = now.Add(askAgain) }
