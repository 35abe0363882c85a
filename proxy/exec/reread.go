package exec

import (
	"context"

	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// view is a map and a schema that statements are planned by.
type view struct {
	db     *shardmap.DB
	schema *schema.Snapshot
}

// keepBase notes what the transaction saw before it began to define. From then on its plans are its own.
func (h *Handler) keepBase() {
	if h.tx.base.db == nil {
		h.tx.base = view{h.dbmap, h.schema}
	}
}

// ownView is what the transaction plans by, if that is its own: else it is everybody's, which may be replaced by a newer one.
func (h *Handler) ownView() view {
	if h.tx.base.db == nil {
		return view{}
	}
	return view{h.dbmap, h.schema}
}

// backTo has the transaction plan by what it planned by at a savepoint.
func (h *Handler) backTo(v view) {
	if v.db == nil {
		v = h.tx.base
	}
	if v.db != nil {
		h.dbmap, h.schema = v.db, v.schema
	}
}

// reread reads the schema by the transaction's own eyes, if it has defined something since the last time: a view or function
// that only it knows must not be taken for one of home's alone.
func (h *Handler) reread(ctx context.Context) error {
	if !h.tx.defined || h.tx.status == 'E' {
		return nil
	}
	if len(h.dbmap.Shards) == 1 || h.tx.status == 'I' && h.ext.cur == nil {
		h.tx.defined = false
		return nil
	}
	if err := h.drain(ctx, false); err != nil {
		return err
	}
	if p := h.ext.cur; p != nil && h.tx.status == 'I' { // a simple query would end a pipeline's transaction
		if err := h.escalate(ctx, p); err != nil {
			return err
		}
	}
	p, err := h.partOnHome()
	if p == nil { // it has defined nothing there
		h.client.Leave()
		err := h.e.CheckSchema(ctx, h.dbmap)
		if err == nil {
			h.plansBy(h.e.schemaOf1(h))
		}
		return err
	}
	if err != nil {
		return err
	}
	if _, err := p.srv.Exec("SAVEPOINT pgmosaic_schema; SET LOCAL search_path = pg_catalog, pg_temp"); err != nil { // what is printed names schemas
		return h.lost(p, err)
	}
	next, failed := schema.ReadBy(ctx, h.asking(p), h.schema.Version)
	if _, err := p.srv.Exec("ROLLBACK TO SAVEPOINT pgmosaic_schema; RELEASE SAVEPOINT pgmosaic_schema"); err != nil {
		return h.lost(p, err)
	}
	if failed != nil {
		return failed
	}
	next.Maps, next.Asked = h.schema.Maps, h.schema.Asked
	h.plansBy(next)
	return nil
}

// plansBy has the rest of the transaction planned by a schema that is newer than that of its beginning.
func (h *Handler) plansBy(next *schema.Snapshot) {
	h.keepBase()
	h.schema, h.tx.defined = next, false
	h.dbmap = h.dbmap.WithPartitions(next.Partitions())
}
