// Package client is what a session has of its client's wishes, without any server: its settings of our own, and what it has been told.
package client

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router"
)

// Settings are pgmosaic.* of a session. They are a value: a transaction keeps those that it goes back to.
type Settings struct {
	Level       replication.Level
	MaxLag      time.Duration
	Shard       string // pgmosaic.shard
	GatherLimit int64  // pgmosaic.gather_limit, in bytes
	Fanout      Fanout
	NoFallback  bool // pgmosaic.replica_fallback is error: reads that no replica is fit for are refused
	Commit      Commit
	Apart       bool // pgmosaic.multi_shard_isolation is per_shard: snapshots of shards may be taken apart
}

// Fanout is the widest route that a session allows its statements.
type Fanout uint8

// The fanouts. Scatter is the default.
const (
	Scatter Fanout = iota // every shard
	Multi                 // several, which the statement's keys name
	Single                // one
)

var fanouts = []string{"scatter", "multi", "single"}

// Allows says whether a plan is as narrow as the session wants. Definitions and writes of reference tables are for every
// shard, always.
func (f Fanout) Allows(p *router.Plan) error {
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
	if f == Single && n > 1 || f == Multi && n > 1 && n == all {
		return router.Refuse(router.RuleFanout, fmt.Sprintf("%d of %d shards, and pgmosaic.fanout is %s", n, all, fanouts[f]))
	}
	return nil
}

// setting is one setting of our own: how it is read, hint where it cannot be, and how it is taken over and shown.
type setting struct {
	name string
	hint string
	set  func(o *Settings, value string) error
	copy func(o, from *Settings)
	show func(o *Settings) string
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

// Horizon is the setting that carries what a session has seen to another session, also one of another process. It is no value of a
// session's: SHOW asks the servers.
const Horizon = "pgmosaic.horizon"

// Commit is how a transaction commits that has written to several shards.
type Commit uint8

// The ways. Two-phase is the default.
const (
	CommitTwoPhase   Commit = iota // atomically
	CommitRefuse                   // not at all: a second writing shard is refused
	CommitBestEffort               // one shard after the other
)

// Commits are the names of the ways, as multi_shard_commit has them.
var Commits = []string{"two_phase", "refuse", "best_effort"}

// Fallbacks are the values of replica_fallback, the default first.
func Fallbacks() []string { return fallbacks }

// list are the session settings of our own.
var list = []setting{
	{
		"pgmosaic.fanout", "Use single, multi or scatter.",
		func(o *Settings, v string) error { i, err := oneOf(fanouts, v); o.Fanout = Fanout(i); return err },
		func(o, from *Settings) { o.Fanout = from.Fanout },
		func(o *Settings) string { return fanouts[o.Fanout] },
	},
	{
		"pgmosaic.gather_limit", "Use a size such as 64MB or 1GB; 0 is no limit.",
		func(o *Settings, v string) (err error) { o.GatherLimit, err = pgsql.ParseSize(v); return err },
		func(o, from *Settings) { o.GatherLimit = from.GatherLimit },
		func(o *Settings) string { return pgsql.SizeText(o.GatherLimit) },
	},
	{
		"pgmosaic.max_staleness", "Use a time such as 500ms, 10s or 2min.",
		func(o *Settings, v string) (err error) {
			if o.MaxLag, err = ParseDuration(v); o.MaxLag < 0 {
				err = errors.New("negative")
			}
			return err
		},
		func(o, from *Settings) { o.MaxLag = from.MaxLag },
		func(o *Settings) string { return o.MaxLag.String() },
	},
	{
		"pgmosaic.multi_shard_commit", "Use two_phase, refuse or best_effort.",
		func(o *Settings, v string) error { i, err := oneOf(Commits, v); o.Commit = Commit(i); return err },
		func(o, from *Settings) { o.Commit = from.Commit },
		func(o *Settings) string { return Commits[o.Commit] },
	},
	{
		"pgmosaic.multi_shard_isolation", "Use refuse or per_shard.",
		func(o *Settings, v string) error { i, err := oneOf(isolations, v); o.Apart = i == 1; return err },
		func(o, from *Settings) { o.Apart = from.Apart },
		func(o *Settings) string {
			if o.Apart {
				return isolations[1]
			}
			return isolations[0]
		},
	},
	{
		"pgmosaic.read_consistency", "Use strong, causal, session, bounded or eventual.",
		func(o *Settings, v string) (err error) {
			o.Level, err = replication.ParseLevel(strings.ToLower(v))
			return err
		},
		func(o, from *Settings) { o.Level = from.Level },
		func(o *Settings) string { return o.Level.String() },
	},
	{
		"pgmosaic.replica_fallback", "Use primary or error.",
		func(o *Settings, v string) error { i, err := oneOf(fallbacks, v); o.NoFallback = i == 1; return err },
		func(o, from *Settings) { o.NoFallback = from.NoFallback },
		func(o *Settings) string {
			if o.NoFallback {
				return fallbacks[1]
			}
			return fallbacks[0]
		},
	},
	{
		"pgmosaic.shard", "",
		func(o *Settings, v string) error { o.Shard = v; return nil },
		func(o, from *Settings) { o.Shard = from.Shard },
		func(o *Settings) string { return o.Shard },
	},
}

// named finds a setting.
func named(name string) (*setting, error) {
	for i := range list {
		if list[i].name == name {
			return &list[i], nil
		}
	}
	names := []string{Horizon}
	for _, s := range list {
		names = append(names, s.name)
	}
	return nil, &pgsql.Error{Code: pgsql.UndefinedObject, Message: fmt.Sprintf("unrecognized configuration parameter %q", name), Hint: "The settings are: " + strings.Join(names, ", ") + "."}
}

// Set changes one of them. o is as it was if that fails.
func (o *Settings) Set(name, value string) error {
	s, err := named(name)
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

// Reset gives one of them the value that it has in to.
func (o *Settings) Reset(name string, to Settings) error {
	s, err := named(name)
	if err == nil {
		s.copy(o, &to)
	}
	return err
}

// Show prints one of them.
func (o *Settings) Show(name string) (string, error) {
	s, err := named(name)
	if err != nil {
		return "", err
	}
	return s.show(o), nil
}

// ParseDuration reads a time as settings have it: 500ms, 10s, 2min; a bare number is milliseconds.
func ParseDuration(s string) (time.Duration, error) {
	s = strings.ReplaceAll(strings.TrimSpace(s), " ", "")
	if strings.HasSuffix(s, "min") {
		s = strings.TrimSuffix(s, "in")
	}
	if s != "" && strings.Trim(s, "0123456789") == "" {
		s += "ms"
	}
	return time.ParseDuration(s)
}
