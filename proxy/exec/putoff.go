package exec

import (
	"context"
	"errors"
	"strings"
	"unsafe"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// puttingOff is a SET CONSTRAINTS.
type puttingOff struct {
	sql  string   // the client's
	each []string // the names in it, as SQL; none for ALL
	mode string
}

// puttingOffBy reads it.
func puttingOffBy(s *sqlparse.Statement) *puttingOff {
	o := &puttingOff{sql: strings.Clone(s.Text), mode: " IMMEDIATE"} // it may be a part of a long text
	if s.Tx.Deferrable {
		o.mode = " DEFERRED"
	}
	for _, n := range s.Def.Objects {
		o.each = append(o.each, n.SQL())
	}
	return o
}

// size is what it costs besides the client's text.
func (o *puttingOff) size() int64 {
	n := int64(unsafe.Sizeof(*o))
	for _, name := range o.each {
		n += 2*16 + int64(len(name)) // the list has room to grow
	}
	return n
}

// on runs it on a server. Home judges the names; another shard has some of the constraints only, and is asked which: a name of another's must not keep its own
// from being set, and nothing that their triggers say is taken for a missing name.
func (o *puttingOff) on(h *Handler, p *participant) error {
	if err := h.ready(p); err != nil {
		return err
	}
	sql := o.sql
	if len(o.each) > 0 && p.shard != h.planner.DB.Home.Index {
		var here []string
		for _, name := range o.each {
			has, err := hasConstraint(h, p, name)
			if err != nil {
				return err
			}
			if has {
				here = append(here, name)
			}
		}
		if len(here) == 0 {
			return nil
		}
		sql = "SET CONSTRAINTS " + strings.Join(here, ", ") + o.mode
	}
	_, err := h.exec(p, sql)
	return unnumbered(err)
}

// probe is the savepoint behind which a server is asked for a constraint.
const probe = "pgmosaic_probe"

// hasConstraint asks a server whether it has a constraint of this name, without a snapshot, behind which the transaction's isolation could not be set, and
// without running anything: to put it off does neither, and is taken back.
func hasConstraint(h *Handler, p *participant, name string) (bool, error) {
	const back = "ROLLBACK TO " + probe + "; RELEASE " + probe
	_, err := p.Server.Exec("SAVEPOINT " + probe + "; SET CONSTRAINTS " + name + " DEFERRED; " + back)
	if err == nil {
		return true, nil
	}
	var refused *pool.ServerError
	there := false
	if errors.As(err, &refused) {
		switch refused.SQLState() {
		case pgsql.WrongObjectType: // it cannot be put off
			there = true
			fallthrough
		case pgsql.UndefinedObject, pgsql.InvalidSchemaName:
			if _, err = p.Server.Exec(back); err == nil {
				return there, nil
			}
		}
	}
	return false, h.lost(p, err)
}

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
	off := puttingOffBy(s)
	if len(off.each) > 0 { // home judges the names
		if _, err := h.join(ctx, h.planner.DB.Home.Index, &router.Template{Read: true}); err != nil {
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
		if err := off.on(h, p); err != nil {
			return err
		}
	}
	h.tx.steps = append(h.tx.steps, step{kind: stepPutOff, sql: off.sql, off: off})
	h.client.SendTag(tag)
	return nil
}
