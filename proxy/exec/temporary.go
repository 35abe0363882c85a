package exec

import (
	"context"

	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// What a session has of temporary objects is what its server says of them: they come and go with statements, with functions, and
// with the ends of transactions and savepoints. So nothing here keeps books. What may have changed them is noted, and before the
// next statement is planned the server is asked.

// mayChangeTemps notes, at the end of a transaction or savepoint, that the temporary objects may be others than before, or with
// altered that they may be what they were not.
func (h *Handler) mayChangeTemps(altered bool) {
	if h.hadTemps {
		h.tempsOld, h.tempsAltered = true, h.tempsAltered || altered
	}
}

// changesTemps says whether a statement may change the temporary objects of its session, as far as its text says.
func (h *Handler) changesTemps(t *router.Template) bool {
	return t.Temp || t.DDL && (h.pinned != nil || h.planner.Env.Temp != nil)
}

// forgetTemps is for a session that has no temporary objects, for the time being.
func (h *Handler) forgetTemps() {
	h.tempsOld, h.tempsAltered, h.tempsMark = false, false, ""
	if h.planner.Env.Temp != nil {
		h.planner.Env.Temp = nil
		h.temps++
		h.planner.Moved()
	}
}

// rereadTemps asks the session's server for its temporary objects, if they may have changed.
func (h *Handler) rereadTemps(ctx context.Context) error {
	if !h.tempsOld || h.tx.Failed() {
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
	p := h.tempsOn()
	if p == nil {
		h.forgetTemps()
		return nil
	}
	if err := h.ready(p); err != nil {
		return err
	}
	row, err := p.Server.Row(1, schema.TemporaryMark)
	if err != nil {
		return h.lost(p, err)
	}
	mark := string(row[0])
	if mark == "" {
		h.forgetTemps()
		return nil
	}
	if mark == h.tempsMark && !h.tempsAltered {
		h.tempsOld = false
		return nil
	}
	next, err := h.readTemps(ctx, p)
	if err != nil {
		return err
	}
	h.planner.Env.Temp, h.tempsMark, h.tempsOld, h.tempsAltered, h.hadTemps = next, mark, false, false, true
	h.temps++
	h.planner.Moved()
	return nil
}

// tempsOn is where the session's temporary objects are: on home, or on the server that it keeps.
func (h *Handler) tempsOn() *participant {
	for _, p := range h.tx.parts {
		if p == h.pinned || h.pinned == nil && p.shard == h.planner.DB.Home.Index {
			return p
		}
	}
	return h.pinned
}

// readTemps reads the temporary objects of a server.
func (h *Handler) readTemps(ctx context.Context, p *participant) (next *schema.Temporary, err error) {
	err = h.amongCatalogs(p, func() error {
		next, err = schema.ReadTemporary(ctx, h.asking(p))
		return err
	})
	return next, err
}

// amongCatalogs runs what only reads with the search_path pg_catalog: what is printed names schemas, and no operator is a user's. In a
// transaction that is open nothing is left of it.
func (h *Handler) amongCatalogs(p *participant, f func() error) (err error) {
	before, after := "SAVEPOINT pgmosaic_schema", "ROLLBACK TO SAVEPOINT pgmosaic_schema; RELEASE SAVEPOINT pgmosaic_schema"
	if p.Server.TxStatus == 'I' {
		before, after = "BEGIN", "COMMIT"
		defer p.Clear()
	}
	if _, err := p.Server.Exec(before + "; SET LOCAL search_path = pg_catalog, pg_temp"); err != nil {
		return h.lost(p, err)
	}
	failed := f()
	if _, err := p.Server.Exec(after); err != nil {
		return h.lost(p, err)
	}
	return failed
}

// asking has a server asked for the schema.
func (h *Handler) asking(p *participant) schema.Ask {
	return func(sql string) (types []uint32, rows [][][]byte, err error) {
		desc, rows, err := p.Server.Result(sql)
		for _, f := range desc {
			types = append(types, f.DataTypeOID)
		}
		return types, rows, err
	}
}
