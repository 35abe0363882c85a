package exec

import (
	"context"
	"fmt"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// paid has what is owed on a shard finished before a statement runs there on a server that the session has already.
func paid(ctx context.Context, h *Handler, shard int) error {
	name := h.shards.Name(shard)
	if !h.e.owed.Has(h.db, name) {
		return nil
	}
	h.client.Leave()
	return h.e.pay(ctx, h.db, name)
}

// pay finishes what is owed on a shard that answers, if there is anything: see branch.Debts.
func (e *Engine) pay(ctx context.Context, database, shard string) error {
	gid, err := e.owed.Pay(ctx, database, shard, e.FinishOn)
	if err == nil {
		return nil
	}
	e.Log.Warn("a committed transaction could not be finished on a shard", "gid", gid, "shard", shard, "error", err)
	return &pgsql.Error{Code: pgsql.CannotConnectNow, Message: fmt.Sprintf("shard %s has a committed transaction to finish first, and that failed", shard), Hint: "Try again. SHOW TRANSACTIONS on the admin database shows it: " + gid}
}
