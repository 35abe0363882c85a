package exec

import (
	"context"
	"slices"

	"github.com/pgmosaic/pgmosaic/proxy/exec/client"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// ownInTx is what becomes of the session's settings of our own when a transaction ends.
type ownInTx struct {
	before client.Settings // for ROLLBACK
	kept   client.Settings // for COMMIT: without SET LOCAL
}

// mayName refuses to name a shard to a user who may not.
func (h *Handler) mayName(o *client.Settings) error {
	if o.Shard == "" {
		return nil
	}
	if list := h.e.ShardUsers.Load(); list != nil && (slices.Contains(*list, "*") || slices.Contains(*list, h.role)) {
		return nil
	}
	return &pgsql.Error{Code: pgsql.InsufficientPrivilege, Message: `permission denied to set parameter "pgmosaic.shard"`, Hint: "The configuration's shard_users lists who may."}
}

// setOwn runs SET and RESET of one of our own settings.
func (h *Handler) setOwn(v sqlparse.Var, tag string) error {
	if v.Name == client.Horizon {
		return h.setHorizon(v, tag)
	}
	change := func(o *client.Settings) error {
		if v.Default {
			return o.Reset(v.Name, h.ownLogin)
		}
		return o.Set(v.Name, v.Plain)
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
		if h.tx.Idle() {
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
	if s.Var.Name == client.Horizon {
		v, err = h.horizonToken(ctx)
	} else {
		v, err = h.own.Show(s.Var.Name)
	}
	if err != nil {
		return err
	}
	h.table([]string{s.Var.Name}, [][]string{{v}}, "SHOW")
	return nil
}
