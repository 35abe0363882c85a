package exec

import (
	"context"

	"github.com/pgmosaic/pgmosaic/proxy/copydata"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// copyOnce takes a COPY into a reference table whose rows leave columns to defaults that vary: the client's rows go to a table on
// home first, where the defaults get their values, and from there to every copy.
func (h *Handler) copyOnce(ctx context.Context, p *router.Plan) (rows int64, err error) {
	if p.Stmt.Copy.Where {
		return 0, router.Refuse(router.RuleCopy, "a reference table with WHERE and a default that differs with each copy")
	}
	g := &gathering{h: h, t: p.Template, args: &router.Args{}, parts: map[int]*participant{}}
	defer func() { g.end(err) }()
	if err := g.open(ctx); err != nil {
		return 0, err
	}
	every, err := g.movedTable(ctx, p, p.Names)
	if err != nil {
		return 0, err
	}
	if _, err := g.movedTypes(p, every); err != nil {
		return 0, err
	}
	text, ok := sqlparse.CopyInto(p.Stmt.Text, movedTable, pgsql.List(p.Names))
	if !ok {
		return 0, router.Refuse(router.RuleCopy, "a reference table, written in this way")
	}
	g.on.Server.SendQuery(text)
	if err := g.on.Server.Flush(); err != nil {
		return 0, h.lost(g.on, err)
	}
	said, err := h.awaitCopyIn(g.on)
	if err != nil {
		return 0, g.failed(err)
	}
	if err := asksForData(h, said); err != nil {
		return 0, err
	}
	sp := splitterOf(h.planner.DB, p, &p.Stmt.Copy, copydata.MarkEnds) // of one server, which is sent it as it is
	on := []*participant{g.on}
	if _, err := h.finishCopies(on, h.feed(p, sp, on), sp); err != nil {
		return 0, err
	}
	err = h.atomically(ctx, func() (err error) {
		if err := h.lockReference(ctx, p, p.Shards); err != nil {
			return err
		}
		rows, err = g.send(ctx, p, "COPY "+p.Target.SQL()+" ("+pgsql.List(every)+") FROM STDIN (FORMAT binary)")
		return err
	})
	return rows, err
}
