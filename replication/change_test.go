package replication

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

func TestChanges(t *testing.T) {
	v := func(primary int, fenced string, health ...Health) *View {
		out := &View{Primary: primary, Fenced: fenced}
		for i, h := range health {
			out.Nodes = append(out.Nodes, NodeView{Name: fmt.Sprint("n", i), Verdict: Verdict{Health: h, Reason: "why"}})
		}
		return out
	}
	moved := v(0, "", Unknown, Eligible)
	moved.Nodes[1].DSN = "elsewhere"
	alien := func(h Health) *View {
		out := v(0, "", Unknown, h)
		out.Nodes[1].Sample.Err = &shardmap.StrangerError{Message: "it is another"}
		return out
	}
	strange := []Change{{slog.LevelError, "a node is not the shard's, and is not used", "n1", "why"}}
	promoted := v(1, "", Unreachable, Unknown)
	promoted.Nodes[1].Primary = true
	for _, c := range []struct {
		name       string
		prev, next *View
		want       []Change
	}{
		{"nothing known yet", nil, v(-1, "", Unknown, Unknown), nil},
		{"found", nil, v(0, "", Unknown, Eligible), []Change{{slog.LevelInfo, "a node is the primary", "n0", ""}, {slog.LevelInfo, "a replica answers reads", "n1", ""}}},
		{"no change", v(0, "", Unknown, Eligible), v(0, "", Unknown, Eligible), nil},
		{"still lagging", v(0, "", Unknown, Lagging), v(0, "", Unknown, Lagging), nil},
		{"lags", v(0, "", Unknown, Eligible), v(0, "", Unknown, Lagging), []Change{{slog.LevelWarn, "a replica is out of the reads", "n1", "why"}}},
		{"the primary dies", v(0, "", Unknown, Eligible), v(0, "", Unreachable, Eligible), []Change{{slog.LevelWarn, "a node does not answer", "n0", "why"}}},
		{"the primary is back", v(0, "", Unreachable, Eligible), v(0, "", Unknown, Eligible), []Change{{slog.LevelInfo, "a node answers again", "n0", "why"}}},
		{"a failover", v(0, "", Unreachable, Eligible), promoted, []Change{{slog.LevelInfo, "a node is the primary", "n1", ""}}},
		{"a split", v(0, "", Unknown), v(-1, "two", Unknown), []Change{{slog.LevelError, "a shard is not served", "", "two"}}},
		{"still split", v(-1, "two", Unknown), v(-1, "two", Unknown), nil},
		{"a stranger", v(0, "", Unknown, Eligible), alien(Unreachable), strange},
		{"a stranger in the place of one that was away", v(0, "", Unknown, Unreachable), alien(Unreachable), strange},
		{"still a stranger", alien(Unreachable), alien(Unreachable), nil},
		{"no stranger any more", alien(Unreachable), v(0, "", Unknown, Eligible), []Change{{slog.LevelInfo, "a replica answers reads", "n1", ""}}},
		{"a node was replaced", v(0, "", Unknown, Eligible), moved, []Change{{slog.LevelInfo, "a replica answers reads", "n1", ""}}},
	} {
		if got := Changes(c.prev, c.next); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
