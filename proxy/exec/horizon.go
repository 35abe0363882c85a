package exec

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/exec/client"
	"github.com/pgmosaic/pgmosaic/proxy/exec/fresh"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// horizonToken asks the primary of every shard that the session has had to do with for its position: all that the session
// has seen lies before.
func (h *Handler) horizonToken(ctx context.Context) (string, error) {
	var out []string
	for i := range h.shards.Infos {
		if !h.shards.Uses(i) {
			continue
		}
		st := h.shards.At(i)
		reads := slices.ContainsFunc(h.tx.parts, func(p *participant) bool { return p.shard == i })
		reach, seen := st.Seen()
		if !seen && !reads {
			continue
		}
		v, err := h.serving(ctx, st, time.Time{}, time.Time{})
		if err != nil {
			return "", err
		}
		lsn, err := h.positionNow(ctx, i)
		if err != nil {
			return "", err
		}
		at, err := replication.ParseLSN(lsn)
		if err != nil {
			return "", err
		}
		sample := &v.Nodes[v.Primary].Sample
		out = append(out, fresh.Mark{Shard: st.Info.Name, System: sample.SystemID, Timeline: sample.Timeline, At: max(at, reach)}.String())
	}
	return strings.Join(out, ","), nil
}

// takeHorizon makes the session see what a token says was seen. A position of another primary than the present one tells
// nothing: then everything up to now must be there.
func (h *Handler) takeHorizon(token string) error {
	marks, err := fresh.ParseToken(token)
	if err != nil {
		return &pgsql.Error{Code: pgsql.InvalidParameterValue, Message: fmt.Sprintf("invalid value for parameter %q: %q", client.Horizon, token), Hint: "Use what SHOW pgmosaic.horizon printed."}
	}
	for _, m := range marks {
		known := false
		if sh, ok := h.planner.DB.Shard(m.Shard); ok {
			st := h.shards.At(sh.Index)
			if v := st.View(); v != nil && v.Serves() {
				s := &v.Nodes[v.Primary].Sample
				if known = s.SystemID == m.System && s.Timeline == m.Timeline; known {
					st.Reach(m.At)
				}
			}
		}
		if !known {
			h.shards.SeeAll(time.Now())
		}
	}
	return nil
}

// setHorizon runs SET pgmosaic.horizon. What a session has seen it cannot unsee: RESET changes nothing.
func (h *Handler) setHorizon(v sqlparse.Var, tag string) error {
	if !v.Default {
		if err := h.takeHorizon(v.Plain); err != nil {
			return err
		}
	}
	h.client.SendTag(tag)
	return nil
}
