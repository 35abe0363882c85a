package exec

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// Turns is what turns, and decisions, need beside a client's servers.
type Turns struct {
	// Secret is what a shard tells the proxy's own calls by. It is read once, and again after Forget; leave is called before.
	Secret func(ctx context.Context, database, shard string, leave func()) (txn.Secret, error)
	Forget func(database string)
	// Holder says in words who has a turn on a shard; empty if nobody knows.
	Holder func(ctx context.Context, database, shard, name string) string
	// Wait is how long a definition waits for others if its client has set no lock_timeout.
	Wait atomic.Int64 // nanoseconds
}

// lockReference makes writers of one reference table, and definitions, take turns, home first, which knows whether the map is of the present: without it two of them could leave
// the copies different. What shows that it is the proxy that takes the turn is in no text, and what the server says of it goes to
// nobody, as for Decide.
func (h *Handler) lockReference(ctx context.Context, p *router.Plan, shards []int) error {
	if len(h.planner.DB.Shards) == 1 {
		return nil
	}
	name := txn.Definitions
	if p.Target != nil {
		name = txn.TurnOf(p.Target.String())
	}
	for _, shard := range homeFirst(shards, h.planner.DB.Home.Index) {
		part, err := h.join(ctx, shard, p.Template)
		if err != nil {
			return err
		}
		secret, err := h.secretOf(ctx, part)
		if err != nil {
			return err
		}
		sql, params := secret.Turn(name, part.Server.PID)
		if shard == h.planner.DB.Home.Index {
			sql, params = secret.HomeTurn(name, part.Server.PID, h.planner.DB.Joined)
		}
		if err := takeTurn(h, part, name, sql, params); err != nil {
			return h.turnRefused(ctx, part, name, err)
		}
	}
	return nil
}

// takeTurn runs the statement that takes a turn. Definitions have one turn for all of a database, so what holds it up need have nothing to do with
// the statement: no client waits for ever, as it would on PostgreSQL for one lock only.
func takeTurn(h *Handler, part *participant, name, sql string, params [][]byte) error {
	bounded := false
	if name == txn.Definitions {
		if err := h.ready(part); err != nil {
			return err
		}
		row, err := part.Server.Row(1, "SELECT pg_catalog.current_setting('lock_timeout')")
		if bounded = err == nil && string(row[0]) == "0"; bounded {
			_, err = part.Server.Exec(fmt.Sprintf("SET LOCAL lock_timeout = %d", time.Duration(h.e.Turns.Wait.Load()).Milliseconds()))
		}
		if err != nil {
			return h.lost(part, err)
		}
	}
	part.Server.SendParse("", sql, nil)
	part.Server.SendBindParts("", nil, params, nil)
	part.Server.SendExecute()
	part.Server.SendSync()
	if err := part.Server.Flush(); err != nil {
		return h.lost(part, err)
	}
	if err := h.prologue(part); err != nil {
		return err
	}
	a := pool.Answer{Server: part.Server}
	if err := a.Read(part.transactionOf); errors.Is(err, errOlder) {
		return err
	} else if err != nil {
		return h.lost(part, err)
	}
	if bounded {
		if _, err := part.Server.Exec("SET LOCAL lock_timeout = 0"); err != nil {
			return h.lost(part, err)
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
func (h *Handler) turnRefused(ctx context.Context, part *participant, turn string, err error) error {
	name := h.shards.Name(part.shard)
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
		h.e.Turns.Forget(h.db)
		return &pgsql.Error{Code: pgsql.SerializationFailure, Message: "shard " + name + " no longer knows this process: the transaction was rolled back", Hint: "Run the transaction again."}
	case pgsql.UndefinedFunction, pgsql.InvalidSchemaName:
		return lacking
	case pgsql.LockNotAvailable:
		return turnHeld(ctx, h, name, turn, se)
	}
	se.Response.Where = "" // it may show what the call was made with
	return err
}

// turnHeld is what who has waited long enough for a turn is told.
func turnHeld(ctx context.Context, h *Handler, shard, turn string, se *pool.ServerError) error {
	h.client.Leave()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	e := &pgsql.Error{Code: se.Response.Code, Message: se.Response.Message, Hint: "SHOW CLIENTS on the admin console shows who is in a transaction, and KILL_CLIENT ends it. idle_in_transaction_session_timeout bounds how long one may be left open."}
	what := "Another transaction that has written the table has not ended"
	if turn == txn.Definitions {
		what = "Another transaction that has defined something has not ended: definitions of what all shards have take turns"
	}
	e.Detail = what + "."
	if who := h.e.Turns.Holder(ctx, h.db, shard, turn); who != "" {
		e.Detail = what + ". It is that of " + who + "."
	}
	return e
}

// marked is the text with which a plan's statement is sent to a shard: one that writes the copies of a reference table shows them that
// it does.
func (h *Handler) marked(ctx context.Context, p *router.Plan, part *participant, text string) (string, error) {
	if !p.Ref || len(h.planner.DB.Shards) == 1 || !writesRows(p.Stmt.Kind) {
		return text, nil
	}
	secret, err := h.secretOf(ctx, part)
	if err != nil {
		return "", err
	}
	return secret.Marked(text, part.xact, part.Server.PID), nil
}

// writesRows says whether a statement of a kind may write rows of the tables that it names.
func writesRows(k sqlparse.Kind) bool {
	switch k {
	case sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Truncate, sqlparse.Copy:
		return true
	default:
		return false
	}
}
