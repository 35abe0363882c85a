package replication

import (
	"context"
	"log/slog"
)

// Change is one thing about a shard that an operator should hear of.
type Change struct {
	Level  slog.Level
	What   string
	Node   string
	Reason string // empty if What says it all
}

// Changes compares two views of one shard that follow each other; prev is nil for the first. It is pure. Lag that
// only grows is no change, nor is a reason that is put otherwise.
func Changes(prev, next *View) []Change {
	var out []Change
	was := map[string]*NodeView{}
	var primary, fenced string
	if prev != nil {
		primary, fenced = prev.primaryName(), prev.Fenced
		for i := range prev.Nodes {
			was[prev.Nodes[i].Name] = &prev.Nodes[i]
		}
	}
	if next.Fenced != "" && fenced == "" {
		out = append(out, Change{slog.LevelError, "a shard is not served", "", next.Fenced})
	}
	if p := next.primaryName(); p != "" && p != primary {
		out = append(out, Change{slog.LevelInfo, "a node is the primary", p, ""})
	}
	for i := range next.Nodes {
		n := &next.Nodes[i]
		before, strange := Unknown, false
		if o := was[n.Name]; o != nil && o.DSN == n.DSN {
			before, strange = o.Verdict.Health, o.Stranger()
		}
		now := n.Verdict.Health
		switch {
		case n.Stranger():
			if !strange {
				out = append(out, Change{slog.LevelError, "a node is not the shard's, and is not used", n.Name, n.Verdict.Reason})
			}
		case now == before, n.Primary && before == Eligible && now == Unknown: // a replica that was promoted
		case now == Unreachable:
			out = append(out, Change{slog.LevelWarn, "a node does not answer", n.Name, n.Verdict.Reason})
		case now == Eligible:
			out = append(out, Change{slog.LevelInfo, "a replica answers reads", n.Name, ""})
		case before == Unreachable:
			out = append(out, Change{slog.LevelInfo, "a node answers again", n.Name, n.Verdict.Reason})
		default:
			out = append(out, Change{slog.LevelWarn, "a replica is out of the reads", n.Name, n.Verdict.Reason})
		}
	}
	return out
}

func (v *View) primaryName() string {
	if v.Primary < 0 {
		return ""
	}
	return v.Nodes[v.Primary].Name
}

// tell logs changes. It must be called without the monitor's lock: a log may be slow.
func (m *Monitor) tell(k shardKey, changes []Change) {
	for _, c := range changes {
		if m.events.Changed != nil {
			m.events.Changed(k.database, k.shard, c)
		}
		attrs := []slog.Attr{slog.String("database", k.database), slog.String("shard", k.shard)}
		if c.Node != "" {
			attrs = append(attrs, slog.String("node", c.Node))
		}
		if c.Reason != "" {
			attrs = append(attrs, slog.String("reason", c.Reason))
		}
		m.log.LogAttrs(context.Background(), c.Level, c.What, attrs...)
	}
}
