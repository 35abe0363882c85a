package exec

import (
	"context"
	"errors"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// lockReference makes writers of one reference table, and definitions, take turns, home first, which knows whether the map is of the present: without it two of them could leave
// the copies different. What shows that it is the proxy that takes the turn is in no text, and what the server says of it goes to
// nobody, as for Decide.
func (h *Handler) lockReference(ctx context.Context, p *router.Plan, shards []int) error {
	if len(h.dbmap.Shards) == 1 {
		return nil
	}
	name := txn.Definitions
	if p.Target != nil {
		name = txn.TurnOf(p.Target.String())
	}
	for _, shard := range homeFirst(shards, h.dbmap.Home.Index) {
		part, err := h.join(ctx, shard, p.Template)
		if err != nil {
			return err
		}
		secret, err := h.secretOf(ctx, part)
		if err != nil {
			return err
		}
		sql, params := secret.Turn(name, part.srv.PID)
		if shard == h.dbmap.Home.Index {
			sql, params = secret.HomeTurn(name, part.srv.PID, h.dbmap.Joined)
		}
		part.srv.SendParse("", sql, nil)
		part.srv.SendBindParts("", nil, params, nil)
		part.srv.SendExecute()
		part.srv.SendSync()
		if err := part.srv.Flush(); err != nil {
			return h.lost(part, err)
		}
		if err := h.prologue(part); err != nil {
			return err
		}
		a := pool.Answer{Server: part.srv}
		if err := a.Read(part.transactionOf); errors.Is(err, errOlder) {
			return h.turnRefused(part, err)
		} else if err != nil {
			return h.turnRefused(part, h.lost(part, err))
		}
	}
	return nil
}

// transactionOf notes what taking a turn gives: the transaction's id, or nothing in one that cannot write.
func (p *participant) transactionOf(m wire.Message) error {
	if m.Type != 'D' {
		return nil
	}
	vals, err := wire.RowValues(nil, m.Body())
	if err != nil || len(vals) != 1 {
		return err
	}
	if p.xact = string(vals[0]); vals[0] != nil && p.xact == "" { // what an older version made gives nothing
		return errOlder
	}
	return nil
}

// errOlder is that a shard has what an older version has made there.
var errOlder = errors.New("made by an older version")

// turnRefused is what a client is told of a turn that it has not got.
func (h *Handler) turnRefused(part *participant, err error) error {
	name := h.shards[part.shard].info.Name
	lacking := &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: "shard " + name + " lacks what this version makes there", Hint: "It is made at the start, and tried again until it is there: see the log."}
	var se *pool.ServerError
	switch {
	case errors.Is(err, errOlder):
		return lacking
	case !errors.As(err, &se):
		return err
	}
	switch se.Response.Code {
	case pgsql.InsufficientPrivilege: // the shard is another one than before
		h.e.ForgetSecrets(h.db)
		return &pgsql.Error{Code: pgsql.SerializationFailure, Message: "shard " + name + " no longer knows this process: the transaction was rolled back", Hint: "Run the transaction again."}
	case pgsql.UndefinedFunction, pgsql.InvalidSchemaName:
		return lacking
	}
	se.Response.Where = "" // it may show what the call was made with
	return err
}

// marked is the text with which a plan's statement is sent to a shard: one that writes the copies of a reference table shows them that
// it does.
func (h *Handler) marked(ctx context.Context, p *router.Plan, part *participant, text string) (string, error) {
	if !p.Ref || len(h.dbmap.Shards) == 1 || !writesRows(p.Stmt.Kind) {
		return text, nil
	}
	secret, err := h.secretOf(ctx, part)
	if err != nil {
		return "", err
	}
	return secret.Marked(text, part.xact, part.srv.PID), nil
}

// writesRows says whether a statement of a kind may write rows of the tables that it names.
func writesRows(k sqlparse.Kind) bool {
	switch k {
	case sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Truncate, sqlparse.Copy:
		return true
	}
	return false
}
