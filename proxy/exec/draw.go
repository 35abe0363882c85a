package exec

import (
	"context"
	"fmt"
	"strconv"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
)

// draw takes values from a sequence on home, as the client's role, as an INSERT there would: what is drawn is not given back.
func (h *Handler) draw(ctx context.Context, d *router.Draw) ([]int64, error) {
	if h.ext.cur != nil { // what came before in the pipeline is answered first
		if err := h.drain(ctx, false); err != nil {
			return nil, err
		}
	}
	p, done, err := h.borrow(ctx, h.planner.DB.Home.Index)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := counts(ctx, h, p, drawsKey); err != nil {
		return nil, err
	}
	if err := h.ready(p); err != nil {
		return nil, err
	}
	call := router.NextID
	if d.Sequence != "" {
		call = "pg_catalog.nextval(" + pgsql.Literal(d.Sequence) + ")"
	}
	rows, err := p.Server.RowsOf(1, fmt.Sprintf("SELECT %s FROM pg_catalog.generate_series(1, %d)", call, d.Rows))
	if err != nil {
		return nil, h.lost(p, err)
	}
	out := make([]int64, len(rows))
	for i, r := range rows {
		if out[i], err = strconv.ParseInt(string(r[0]), 10, 64); err != nil {
			return nil, fmt.Errorf("exec: nextval: %w", err)
		}
	}
	if len(out) < d.Rows {
		return nil, fmt.Errorf("exec: %d of %d values were drawn", len(out), d.Rows)
	}
	return out, nil
}
