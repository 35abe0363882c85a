package exec

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// horizonName is the setting that carries what a session has seen to another session, also one of another process.
const horizonName = "pgmosaic.horizon"

// mark is what a token says of one shard: who its primary was, and a position behind all that was seen.
type mark struct {
	shard    string
	system   string
	timeline uint32
	at       replication.LSN
}

// parseToken reads shard:system:timeline:position, separated by commas; shards are quoted like names in SQL.
func parseToken(s string) ([]mark, error) {
	var out []mark
	for s = strings.TrimSpace(s); s != ""; {
		var m mark
		if strings.HasPrefix(s, `"`) {
			var ok bool
			if m.shard, s, ok = pgsql.CutIdent(s); !ok {
				return nil, fmt.Errorf("unterminated name")
			}
		} else {
			i := strings.IndexByte(s, ':')
			if i < 0 {
				return nil, fmt.Errorf("no position")
			}
			m.shard, s = s[:i], s[i:]
		}
		rest, more, found := strings.Cut(s, ",")
		if found && more == "" {
			return nil, fmt.Errorf("ends with a comma")
		}
		s = more
		f := strings.Split(rest, ":")
		if len(f) != 4 || f[0] != "" {
			return nil, fmt.Errorf("four parts were expected")
		}
		line, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("no timeline")
		}
		if m.at, err = replication.ParseLSN(f[3]); err != nil {
			return nil, err
		}
		m.system, m.timeline = f[1], uint32(line)
		out = append(out, m)
	}
	return out, nil
}

func (m mark) String() string {
	name := m.shard
	if strings.ContainsAny(name, `":, `) {
		name = pgsql.Ident(name)
	}
	return fmt.Sprintf("%s:%s:%d:%s", name, m.system, m.timeline, m.at)
}

// horizonToken asks the primary of every shard that the session has had to do with for its position: all that the session
// has seen lies before.
func (h *Handler) horizonToken(ctx context.Context) (string, error) {
	var out []string
	for i := range h.shards.infos {
		if !h.shards.uses(i) {
			continue
		}
		st := h.shards.at(i)
		reads := slices.ContainsFunc(h.tx.parts, func(p *participant) bool { return p.shard == i })
		if st.seen.IsZero() && st.at == 0 && !reads {
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
		out = append(out, mark{st.info.Name, sample.SystemID, sample.Timeline, max(at, st.at)}.String())
	}
	return strings.Join(out, ","), nil
}

// takeHorizon makes the session see what a token says was seen. A position of another primary than the present one tells
// nothing: then everything up to now must be there.
func (h *Handler) takeHorizon(token string) error {
	marks, err := parseToken(token)
	if err != nil {
		return &pgsql.Error{Code: pgsql.InvalidParameterValue, Message: fmt.Sprintf("invalid value for parameter %q: %q", horizonName, token), Hint: "Use what SHOW pgmosaic.horizon printed."}
	}
	for _, m := range marks {
		known := false
		if sh, ok := h.planner.DB.Shard(m.shard); ok {
			st := h.shards.at(sh.Index)
			if v := h.viewOf(st); v != nil && v.Serves() {
				s := &v.Nodes[v.Primary].Sample
				if known = s.SystemID == m.system && s.Timeline == m.timeline; known {
					st.at = max(st.at, m.at)
				}
			}
		}
		if !known {
			h.shards.seeAll(time.Now())
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
