package exec

import (
	"context"

	"github.com/pgmosaic/pgmosaic/proxy/exec/planner"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// keepBase notes what the transaction saw before it began to define. From then on its plans are its own.
func (h *Handler) keepBase() {
	if h.tx.base.DB == nil {
		h.tx.base = h.planner.View
	}
}

// ownView is what the transaction plans by, if that is its own: else it is everybody's, which may be replaced by a newer one.
func (h *Handler) ownView() planner.View {
	if h.tx.base.DB == nil {
		return planner.View{}
	}
	return h.planner.View
}

// backTo has the transaction plan by what it planned by at a savepoint.
func (h *Handler) backTo(v planner.View) {
	if v.DB == nil {
		v = h.tx.base
	}
	if v.DB != nil {
		h.planner.View = v
	}
}

// reread reads the schema by the transaction's own eyes, if it has defined something since the last time: a view or function
// that only it knows must not be taken for one of home's alone.
func (h *Handler) reread(ctx context.Context) error {
	if !h.tx.defined || h.tx.Failed() {
		return nil
	}
	if len(h.planner.DB.Shards) == 1 || h.tx.Idle() && h.ext.cur == nil {
		h.tx.defined = false
		return nil
	}
	if err := h.drain(ctx, false); err != nil {
		return err
	}
	if p := h.ext.cur; p != nil && h.tx.Idle() { // a simple query would end a pipeline's transaction
		if err := h.escalate(ctx, p); err != nil {
			return err
		}
	}
	p, err := h.partOnHome()
	if p == nil { // it has defined nothing there
		h.client.Leave()
		err := h.e.Planner.Schemas.Check(ctx, h.planner.DB)
		if err == nil {
			h.plansBy(h.planner.Newest())
		}
		return err
	}
	if err != nil {
		return err
	}
	if _, err := p.Server.Exec("SAVEPOINT pgmosaic_schema; SET LOCAL search_path = pg_catalog, pg_temp"); err != nil { // what is printed names schemas
		return h.lost(p, err)
	}
	next, failed := schema.ReadBy(ctx, h.asking(p), h.planner.Schema.Version)
	if _, err := p.Server.Exec("ROLLBACK TO SAVEPOINT pgmosaic_schema; RELEASE SAVEPOINT pgmosaic_schema"); err != nil {
		return h.lost(p, err)
	}
	if failed != nil {
		return failed
	}
	known := h.planner.Schema
	next.Maps, next.Doubts, next.Asked, next.Joined = known.Maps, known.Doubts, known.Asked, known.Joined
	h.plansBy(next)
	return nil
}

// plansBy has the rest of the transaction planned by a schema that is newer than that of its beginning.
func (h *Handler) plansBy(next *schema.Snapshot) {
	h.keepBase()
	h.planner.Schema, h.tx.defined = next, false
	h.planner.DB = h.planner.DB.WithPartitions(next.Partitions())
}
