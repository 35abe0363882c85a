package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// ownSettings are pgmosaic.* of the session. Like PostgreSQL's they follow a transaction: see ownInTx.
type ownSettings struct {
	level      replication.Level
	maxLag     time.Duration
	shard      string // pgmosaic.shard
	gather     int64  // pgmosaic.gather_limit, in bytes
	fanout     fanout
	noFallback bool // pgmosaic.replica_fallback is error: reads that no replica is fit for are refused
	commit     Commit
	apart      bool // pgmosaic.multi_shard_isolation is per_shard: snapshots of shards may be taken apart
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
		return router.Refuse(router.RuleFanout, fmt.Sprintf("%d of %d shards, and pgmosaic.fanout is %s", n, all, fanouts[f]))
	}
	return nil
}

// ownInTx is what becomes of them when a transaction ends.
type ownInTx struct {
	before ownSettings // for ROLLBACK
	kept   ownSettings // for COMMIT: without SET LOCAL
}

// ownSetting is one setting of our own: how it is read, hint where it cannot be, and how it is taken over and shown.
type ownSetting struct {
	name string
	hint string
	set  func(o *ownSettings, value string) error
	copy func(o, from *ownSettings)
	show func(o *ownSettings) string
}

// oneOf reads a word of a list as its place there.
func oneOf(list []string, value string) (int, error) {
	i := slices.Index(list, strings.ToLower(value))
	if i < 0 {
		return 0, errors.New("no such word")
	}
	return i, nil
}

var (
	isolations = []string{"refuse", "per_shard"}
	fallbacks  = []string{"primary", "error"}
)

// Fallbacks are the values of replica_fallback, the default first.
func Fallbacks() []string { return fallbacks }

// ownList are the session settings of our own.
var ownList = []ownSetting{
	{
		"pgmosaic.fanout", "Use single, multi or scatter.",
		func(o *ownSettings, v string) error { i, err := oneOf(fanouts, v); o.fanout = fanout(i); return err },
		func(o, from *ownSettings) { o.fanout = from.fanout },
		func(o *ownSettings) string { return fanouts[o.fanout] },
	},
	{
		"pgmosaic.gather_limit", "Use a size such as 64MB or 1GB; 0 is no limit.",
		func(o *ownSettings, v string) (err error) { o.gather, err = pgsql.ParseSize(v); return err },
		func(o, from *ownSettings) { o.gather = from.gather },
		func(o *ownSettings) string { return pgsql.SizeText(o.gather) },
	},
	{
		"pgmosaic.max_staleness", "Use a time such as 500ms, 10s or 2min.",
		func(o *ownSettings, v string) (err error) {
			if o.maxLag, err = parseDuration(v); o.maxLag < 0 {
				err = errors.New("negative")
			}
			return err
		},
		func(o, from *ownSettings) { o.maxLag = from.maxLag },
		func(o *ownSettings) string { return o.maxLag.String() },
	},
	{
		"pgmosaic.multi_shard_commit", "Use two_phase, refuse or best_effort.",
		func(o *ownSettings, v string) error { i, err := oneOf(Commits, v); o.commit = Commit(i); return err },
		func(o, from *ownSettings) { o.commit = from.commit },
		func(o *ownSettings) string { return Commits[o.commit] },
	},
	{
		"pgmosaic.multi_shard_isolation", "Use refuse or per_shard.",
		func(o *ownSettings, v string) error { i, err := oneOf(isolations, v); o.apart = i == 1; return err },
		func(o, from *ownSettings) { o.apart = from.apart },
		func(o *ownSettings) string {
			if o.apart {
				return isolations[1]
			}
			return isolations[0]
		},
	},
	{
		"pgmosaic.read_consistency", "Use strong, causal, session, bounded or eventual.",
		func(o *ownSettings, v string) (err error) {
			o.level, err = replication.ParseLevel(strings.ToLower(v))
			return err
		},
		func(o, from *ownSettings) { o.level = from.level },
		func(o *ownSettings) string { return o.level.String() },
	},
	{
		"pgmosaic.replica_fallback", "Use primary or error.",
		func(o *ownSettings, v string) error { i, err := oneOf(fallbacks, v); o.noFallback = i == 1; return err },
		func(o, from *ownSettings) { o.noFallback = from.noFallback },
		func(o *ownSettings) string {
			if o.noFallback {
				return fallbacks[1]
			}
			return fallbacks[0]
		},
	},
	{
		"pgmosaic.shard", "",
		func(o *ownSettings, v string) error { o.shard = v; return nil },
		func(o, from *ownSettings) { o.shard = from.shard },
		func(o *ownSettings) string { return o.shard },
	},
}

// ownNamed finds a setting.
func ownNamed(name string) (*ownSetting, error) {
	for i := range ownList {
		if ownList[i].name == name {
			return &ownList[i], nil
		}
	}
	names := []string{horizonName}
	for _, s := range ownList {
		names = append(names, s.name)
	}
	return nil, &pgsql.Error{Code: pgsql.UndefinedObject, Message: fmt.Sprintf("unrecognized configuration parameter %q", name), Hint: "The settings are: " + strings.Join(names, ", ") + "."}
}

// set changes one of them. o is as it was if that fails.
func (o *ownSettings) set(name, value string) error {
	s, err := ownNamed(name)
	if err != nil {
		return err
	}
	next := *o
	if s.set(&next, value) != nil {
		return &pgsql.Error{Code: pgsql.InvalidParameterValue, Message: fmt.Sprintf("invalid value for parameter %q: %q", name, value), Hint: s.hint}
	}
	*o = next
	return nil
}

// reset gives one of them the value that it has in to.
func (o *ownSettings) reset(name string, to ownSettings) error {
	s, err := ownNamed(name)
	if err == nil {
		s.copy(o, &to)
	}
	return err
}

// show prints one of them.
func (o *ownSettings) show(name string) (string, error) {
	s, err := ownNamed(name)
	if err != nil {
		return "", err
	}
	return s.show(o), nil
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

// mayName refuses to name a shard to a user who may not.
func (h *Handler) mayName(o *ownSettings) error {
	if o.shard == "" {
		return nil
	}
	if list := h.e.ShardUsers.Load(); list != nil && (slices.Contains(*list, "*") || slices.Contains(*list, h.role)) {
		return nil
	}
	return &pgsql.Error{Code: pgsql.InsufficientPrivilege, Message: `permission denied to set parameter "pgmosaic.shard"`, Hint: "The configuration's shard_users lists who may."}
}

// setOwn runs SET and RESET of one of our own settings.
func (h *Handler) setOwn(v sqlparse.Var, tag string) error {
	if v.Name == horizonName {
		return h.setHorizon(v, tag)
	}
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
	if err := h.mayName(&now); err != nil {
		return err
	}
	switch {
	case v.Local:
		if h.outsideBlock() {
			h.warnLocal()
		}
		if h.tx.status == 'I' {
			now = h.own
		}
	default:
		_ = change(&kept) // as just now
	}
	h.own, h.tx.own.kept = now, kept
	h.client.SendTag(tag)
	return nil
}

// showOwn answers SHOW of one of our own settings.
func (h *Handler) showOwn(ctx context.Context, s *sqlparse.Statement) error {
	var v string
	var err error
	if s.Var.Name == horizonName {
		v, err = h.horizonToken(ctx)
	} else {
		v, err = h.own.show(s.Var.Name)
	}
	if err != nil {
		return err
	}
	h.table([]string{s.Var.Name}, [][]string{{v}}, "SHOW")
	return nil
}
