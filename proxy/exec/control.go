package exec

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// control runs a statement that is the session's own affair and writes its answer, without ReadyForQuery.
func (h *Handler) control(ctx context.Context, s *sqlparse.Statement) error {
	if h.tx.Failed() {
		switch s.Kind {
		case sqlparse.Commit, sqlparse.Rollback, sqlparse.RollbackTo, sqlparse.Empty:
		default:
			return errFailedTx
		}
	}
	if err := mayControl(h, s); err != nil {
		return err
	}
	defer reckonKept(h)
	switch s.Kind {
	case sqlparse.Empty:
		h.client.SendFrame('I', nil)
		return nil
	case sqlparse.Begin:
		return h.beginClient(ctx, s)
	case sqlparse.Commit, sqlparse.Rollback:
		return h.end(ctx, s)
	case sqlparse.Savepoint, sqlparse.Release, sqlparse.RollbackTo:
		return h.savepoint(ctx, s)
	case sqlparse.Set:
		if err := spread(ctx, h, nil); err != nil { // it may say half of a value, and keep what a function has set
			return err
		}
		return h.set(ctx, s)
	case sqlparse.Show:
		return h.showOwn(ctx, s)
	case sqlparse.Explain:
		if s.NameAt.End > 0 {
			return h.executeInside(ctx, s)
		}
		return h.explainRoute(ctx, s)
	case sqlparse.Discard:
		return h.discard(ctx, s)
	case sqlparse.Deallocate:
		return h.deallocate(ctx, s)
	case sqlparse.Constraints:
		return putOff(ctx, h, s)
	case sqlparse.Listen, sqlparse.Unlisten:
		return h.listenTo(ctx, s)
	case sqlparse.Prepare:
		return h.prepareSQL(ctx, s)
	case sqlparse.Execute:
		return h.executeSQL(ctx, s)
	default: // others are no control statements by themselves
	}
	if s.NameAt.End > 0 {
		return h.executeInside(ctx, s)
	}
	return fmt.Errorf("exec: statement kind %d is not the session's", s.Kind)
}

var errFailedTx = &pgsql.Error{Code: pgsql.InFailedSQLTransaction, Message: "current transaction is aborted, commands ignored until end of transaction block"}

func (h *Handler) beginClient(ctx context.Context, s *sqlparse.Statement) error {
	tag := "BEGIN"
	if s.Tx.Start {
		tag = "START TRANSACTION"
	}
	if h.tx.Active() && !h.tx.Implicit {
		h.client.Send(&wire.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: pgsql.ActiveSQLTransaction, Message: "there is already a transaction in progress"})
		set := s.Tx.Set() // its modes count all the same
		if set != "" {
			if err := h.judgeInside(ctx); err != nil {
				return err
			}
		}
		switch {
		case set == "":
		case len(h.tx.parts) > 0:
			if err := h.everyPartQuiet(set); err != nil {
				return err
			}
			fallthrough
		default:
			h.tx.step(stepModes, "", set)
			h.tx.opts = h.tx.opts.With(s.Tx)
		}
		h.client.SendTag(tag)
		return nil
	}
	if h.tx.Active() { // BEGIN behind other statements of one string: theirs becomes the client's
		if set := s.Tx.Set(); set != "" {
			if err := h.everyPartQuiet(set); err != nil {
				return err
			}
			h.tx.step(stepModes, "", set)
			h.tx.opts = h.tx.opts.With(s.Tx)
		}
		h.tx.Implicit = false
		h.client.SendTag(tag)
		return nil
	}
	begin := strings.TrimSuffix(strings.TrimSpace(s.Text), ";")
	if strings.EqualFold(begin, "BEGIN") {
		begin = "BEGIN"
	} else {
		begin = strings.Clone(begin) // it may be a part of a long text
	}
	h.begin(begin, s.Tx, false)
	h.client.SendTag(tag)
	return nil
}

// mayChain refuses AND CHAIN where the client has begun no transaction.
func mayChain(h *Handler, s *sqlparse.Statement) error {
	if !s.Tx.Chain || !h.tx.Idle() && !h.tx.Implicit {
		return nil
	}
	return &pgsql.Error{Code: pgsql.NoActiveSQLTransaction, Message: endVerb(s) + " AND CHAIN can only be used in transaction blocks"}
}

// endVerb is the word that ends a transaction: the tag, too.
func endVerb(s *sqlparse.Statement) string {
	if s.Kind == sqlparse.Rollback {
		return "ROLLBACK"
	}
	return "COMMIT"
}

func (h *Handler) end(ctx context.Context, s *sqlparse.Statement) error {
	verb := endVerb(s)
	if err := mayChain(h, s); err != nil {
		return err
	}
	if h.tx.Idle() || h.tx.Implicit {
		h.client.Send(&wire.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: pgsql.NoActiveSQLTransaction, Message: "there is no transaction in progress"})
	}
	if h.tx.Idle() {
		h.client.SendTag(verb)
		return nil
	}
	var opts sqlparse.Tx
	if s.Tx.Chain {
		var err error
		if opts, err = chained(ctx, h); err != nil {
			return err
		}
	}
	tag := verb
	if s.Kind == sqlparse.Rollback {
		h.rollback()
	} else {
		var err error
		if tag, err = h.commit(ctx); err != nil {
			return err
		}
	}
	if s.Tx.Chain { // the next transaction begins at once, with the same modes
		h.begin("BEGIN"+strings.TrimPrefix(opts.Set(), "SET TRANSACTION"), opts, false)
		h.tx.inherited = opts
	}
	h.client.SendTag(tag)
	return nil
}

// outsideBlock says whether the client has begun no transaction, not even by a string of several statements.
func (h *Handler) outsideBlock() bool {
	return h.tx.Idle() || h.tx.Implicit && h.ext.executing
}

func (h *Handler) warnLocal() {
	h.client.Send(&wire.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: pgsql.NoActiveSQLTransaction, Message: "SET LOCAL can only be used in transaction blocks"})
}
