package exec

import (
	"context"
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// paid has what is owed on a shard that answers finished before a statement runs there, if there is anything: see branch.Debts. The client may
// cancel that.
func paid(ctx context.Context, h *Handler, shard int) error {
	name := h.shards.Name(shard)
	if !h.e.debts.Has(h.db, name) {
		return nil
	}
	h.client.Leave()
	wctx, done := h.held.Waits(ctx)
	defer done()
	gid, err := h.e.debts.Pay(wctx, h.db, name, h.e.FinishOn)
	switch {
	case err == nil:
		return nil
	case wctx.Err() != nil:
		return h.held.WhyEnded(ctx, err)
	}
	h.e.Log.Warn("a committed transaction could not be finished on a shard", "gid", gid, "shard", name, "error", err)
	return &pgsql.Error{Code: pgsql.CannotConnectNow, Message: fmt.Sprintf("shard %s has a committed transaction to finish first, and that failed", name), Hint: "Try again. SHOW TRANSACTIONS on the admin database shows it: " + gid}
}
