package exec

import (
	"context"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// every is the name by which a step says that SET CONSTRAINTS is for ALL.
const every = "all"

// putOff runs SET CONSTRAINTS: on every server of the transaction, and on those that join it later. It takes no snapshot, and runs no code but what was put off
// before. Home has all constraints that have a name, other shards those of declared tables.
func putOff(ctx context.Context, h *Handler, s *sqlparse.Statement) error {
	const tag = "SET CONSTRAINTS"
	if h.tx.Idle() { // a server judges it, and warns that it is in vain
		if err := h.inVain(ctx, "", []string{s.Text}); err != nil {
			return err
		}
		h.client.SendTag(tag)
		return nil
	}
	if h.outsideBlock() {
		h.client.Send(&wire.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: pgsql.NoActiveSQLTransaction, Message: tag + " can only be used in transaction blocks"})
	}
	home := h.planner.DB.Home.Index
	if s.Name != every { // home judges the names
		if _, err := h.join(ctx, home, &router.Template{Read: true}); err != nil {
			return err
		}
	}
	for _, p := range h.tx.parts {
		if err := h.ready(p); err != nil {
			return err
		}
		if p.Wrote() && !s.Tx.Deferrable {
			if hidden := router.Fires(h.planner.Schema); hidden != nil {
				p.Server.Suspect(hidden.Vars, hidden.Unknown)
				maySet(h, p, nil)
			}
		}
		if _, err := h.exec(p, putOffOn(h, p, s.Text, s.Name)); err != nil {
			return unnumbered(err)
		}
	}
	h.tx.step(stepPutOff, s.Name, s.Text)
	h.client.SendTag(tag)
	return nil
}

// putOffOn is a SET CONSTRAINTS for one server. Where a constraint that it names need not be, that is no error.
func putOffOn(h *Handler, p *participant, sql, name string) string {
	if name == every || p.shard == h.planner.DB.Home.Index {
		return sql
	}
	return "DO " + pgsql.Literal("BEGIN "+sql+"; EXCEPTION WHEN undefined_object OR invalid_schema_name THEN NULL; END")
}
