package exec

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// settingNames are the session settings of our own.
var settingNames = []string{"pgmosaic.fanout", "pgmosaic.gather_limit", "pgmosaic.max_staleness", "pgmosaic.read_consistency", "pgmosaic.shard"}

// ownSettings are pgmosaic.* of the session. Like PostgreSQL's they follow a transaction: see ownInTx.
type ownSettings struct {
	level  replication.Level
	maxLag time.Duration
	shard  string // pgmosaic.shard
	gather int64  // pgmosaic.gather_limit, in bytes
	fanout fanout
}

// fanout is the widest route that a session allows its statements.
type fanout uint8

// The fanouts. Scatter is the default.
const (
	fanScatter fanout = iota // every shard
	fanMulti                 // several, which the statement's keys name
	fanSingle                // one
)

var fanouts = []string{"scatter", "multi", "single"}

// allows says whether a plan is as narrow as the session wants. Definitions and writes of reference tables are for every
// shard, always.
func (f fanout) allows(p *router.Plan) error {
	switch p.Class {
	case router.Scatter, router.Gathered, router.Split, router.Moved:
	case router.Write, router.Rekey:
		if p.Ref {
			return nil
		}
	default:
		return nil
	}
	n, all := len(p.Shards), len(p.DB.Shards)
	if f == fanSingle && n > 1 || f == fanMulti && n > 1 && n == all {
		return router.Refuse("fanout", fmt.Sprintf("%d of %d shards, and pgmosaic.fanout is %s", n, all, fanouts[f]))
	}
	return nil
}

// ownInTx is what becomes of them when a transaction ends.
type ownInTx struct {
	before ownSettings // for ROLLBACK
	kept   ownSettings // for COMMIT: without SET LOCAL
}

// set changes one of them.
func (o *ownSettings) set(name, value string) error {
	bad := func(hint string) error {
		return &wire.PgError{Code: "22023", Message: fmt.Sprintf("invalid value for parameter %q: %q", name, value), Hint: hint}
	}
	switch name {
	case "pgmosaic.read_consistency":
		l, err := replication.ParseLevel(strings.ToLower(value))
		if err != nil {
			return bad("Use strong, causal, session, bounded or eventual.")
		}
		o.level = l
	case "pgmosaic.max_staleness":
		d, err := parseDuration(value)
		if err != nil || d < 0 {
			return bad("Use a time such as 500ms, 10s or 2min.")
		}
		o.maxLag = d
	case "pgmosaic.shard":
		o.shard = value
	case "pgmosaic.gather_limit":
		n, err := ParseSize(value)
		if err != nil {
			return bad("Use a size such as 64MB or 1GB; 0 is no limit.")
		}
		o.gather = n
	case "pgmosaic.fanout":
		i := slices.Index(fanouts, strings.ToLower(value))
		if i < 0 {
			return bad("Use single, multi or scatter.")
		}
		o.fanout = fanout(i)
	default:
		return unknownSetting(name)
	}
	return nil
}

// reset gives one of them the value that it has in to.
func (o *ownSettings) reset(name string, to ownSettings) error {
	switch name {
	case "pgmosaic.read_consistency":
		o.level = to.level
	case "pgmosaic.max_staleness":
		o.maxLag = to.maxLag
	case "pgmosaic.shard":
		o.shard = to.shard
	case "pgmosaic.gather_limit":
		o.gather = to.gather
	case "pgmosaic.fanout":
		o.fanout = to.fanout
	default:
		return unknownSetting(name)
	}
	return nil
}

// show prints one of them.
func (o *ownSettings) show(name string) (string, error) {
	switch name {
	case "pgmosaic.read_consistency":
		return o.level.String(), nil
	case "pgmosaic.max_staleness":
		return o.maxLag.String(), nil
	case "pgmosaic.shard":
		return o.shard, nil
	case "pgmosaic.gather_limit":
		return sizeText(o.gather), nil
	case "pgmosaic.fanout":
		return fanouts[o.fanout], nil
	}
	return "", unknownSetting(name)
}

func unknownSetting(name string) error {
	return &wire.PgError{Code: "42704", Message: fmt.Sprintf("unrecognized configuration parameter %q", name), Hint: "The settings are: " + strings.Join(settingNames, ", ") + "."}
}

func parseDuration(s string) (time.Duration, error) {
	s = strings.ReplaceAll(strings.TrimSpace(s), " ", "")
	if strings.HasSuffix(s, "min") {
		s = strings.TrimSuffix(s, "in")
	}
	if s != "" && strings.Trim(s, "0123456789") == "" {
		s += "ms"
	}
	return time.ParseDuration(s)
}

// setOwn runs SET and RESET of one of our own settings.
func (h *Handler) setOwn(v sqlparse.Var, tag string) error {
	change := func(o *ownSettings) error {
		if v.Default {
			return o.reset(v.Name, h.ownLogin)
		}
		return o.set(v.Name, v.Plain)
	}
	now, kept := h.own, h.tx.own.kept
	if err := change(&now); err != nil {
		return err
	}
	switch {
	case v.Local && h.tx.status == 'I':
		h.client.Send(&wire.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "25P01", Message: "SET LOCAL can only be used in transaction blocks"})
		now = h.own
	case !v.Local:
		_ = change(&kept) // as just now
	}
	h.own, h.tx.own.kept = now, kept
	h.client.SendTag(tag)
	return nil
}

// showOwn answers SHOW of one of our own settings.
func (h *Handler) showOwn(s *sqlparse.Statement) error {
	v, err := h.own.show(s.Var.Name)
	if err != nil {
		return err
	}
	h.table([]string{s.Var.Name}, [][]string{{v}}, "SHOW")
	return nil
}
