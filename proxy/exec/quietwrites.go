package exec

import (
	"errors"

	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/router"
)

// wroteSQL says whether a transaction has written or locked something: it has a number then. And whether it may write.
const wroteSQL = "select pg_catalog.txid_current_if_assigned() is not null, pg_catalog.current_setting('transaction_read_only')"

// sides are the participants of a transaction that commits: those that have written, and the others.
func sides(h *Handler) (writers, readers []*participant, err error) {
	for _, p := range h.tx.parts {
		if err := h.ready(p); err != nil {
			return nil, nil, err
		}
	}
	if err := askParts(h); err != nil {
		return nil, nil, err
	}
	for _, p := range h.tx.parts {
		if h.tx.Writer(&p.Branch) {
			writers = append(writers, p)
		} else {
			readers = append(readers, p)
		}
	}
	return writers, readers, nil
}

// askParts asks the participants of a transaction over several shards what no parser sees. Those that only seem to have read, whether code of
// the database has written there: they commit with the others then, or not at all. Where no code of the database writes, they are not asked. And if the
// transaction may have been made READ ONLY, all of them whether they were, and have written before that: a row of ours can be written there no more.
func askParts(h *Handler) error {
	changes, quiet := h.tx.Changes, h.tx.Writes && router.CodeWrites(h.planner.Schema)
	modes := (quiet || changes) && (h.tx.Modes || saidReadOnly(h, h.firstModes.only))
	if len(h.tx.parts) < 2 || !quiet && !modes {
		return nil
	}
	var asked []*participant
	for _, p := range h.tx.parts {
		writer := p.Wrote() && changes
		if p.Replica || writer && !modes || !writer && !quiet {
			continue
		}
		p.Server.SendQuery(wroteSQL)
		if p.Server.Flush() != nil {
			p.Lose()
		}
		asked = append(asked, p)
	}
	var lost *participant
	var refused error // by a server that lives: the question was cancelled, or its time was over
	for _, p := range asked {
		wrote, err := false, error(nil)
		if !p.Server.Dirty {
			var rows [][][]byte
			if rows, err = p.Server.Answers(2); err == nil && len(rows) == 1 {
				wrote, p.Only = string(rows[0][0]) == "t", string(rows[0][1]) == "on"
			}
		}
		var se *pool.ServerError
		switch {
		case errors.As(err, &se):
			refused = err
			continue
		case err != nil || p.Server.Dirty:
			p.Server.Dirty, lost = true, p
			continue
		}
		if wrote && !(p.Wrote() && changes) {
			p.keys = h.shards.At(p.shard).UnseenKeys(p.keys)
			h.tx.Changes = true
		}
		if wrote {
			p.On(branch.Writes)
		} else if !p.Bound {
			p.On(branch.HasRead)
		}
	}
	if lost != nil {
		return &pgsql.Error{
			Code: pgsql.SerializationFailure, Message: "shard " + h.shards.Name(lost.shard) + " was lost before the commit: the transaction was rolled back",
			Hint: "Run the transaction again.",
		}
	}
	return refused
}
