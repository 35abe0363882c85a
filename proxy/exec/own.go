package exec

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// settingNames are the session settings of our own.
var settingNames = []string{"pgmosaic.gather_limit", "pgmosaic.max_staleness", "pgmosaic.read_consistency", "pgmosaic.shard"}

// ownSettings are pgmosaic.* of the session. Like PostgreSQL's they follow a transaction: see ownInTx.
type ownSettings struct {
	level  replication.Level
	maxLag time.Duration
	shard  string // pgmosaic.shard
	gather int64  // pgmosaic.gather_limit, in bytes
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
