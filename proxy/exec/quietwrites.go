package exec

import (
	"errors"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/router"
)

// wroteSQL says whether a transaction has written or locked something: it has a number then.
const wroteSQL = "select pg_catalog.txid_current_if_assigned() is not null"

// sides are the participants of a transaction that commits: those that have written, and the others.
func sides(h *Handler) (writers, readers []*participant, err error) {
	for _, p := range h.tx.parts {
		if err := h.ready(p); err != nil {
			return nil, nil, err
		}
		if !p.wrote || !h.tx.changes {
			readers = append(readers, p)
		}
	}
	if err := askReaders(h, readers); err != nil {
		return nil, nil, err
	}
	readers = readers[:0]
	for _, p := range h.tx.parts {
		if p.wrote && h.tx.changes {
			writers = append(writers, p)
		} else {
			readers = append(readers, p)
		}
	}
	return writers, readers, nil
}

// askReaders asks the participants that only seem to have read, of a transaction over several shards, whether code of the database has written
// there where no parser sees it: they commit with the others then, or not at all. Where no code of the database writes, it asks nobody.
func askReaders(h *Handler, readers []*participant) error {
	if len(h.tx.parts) < 2 || h.readsOnly() || !router.CodeWrites(h.planner.Schema) {
		return nil
	}
	var asked []*participant
	for _, p := range readers {
		if p.replica {
			continue
		}
		p.srv.SendQuery(wroteSQL)
		if p.srv.Flush() != nil {
			p.srv.Dirty = true
		}
		asked = append(asked, p)
	}
	var lost *participant
	var refused error // by a server that lives: the question was cancelled, or its time was over
	for _, p := range asked {
		wrote, err := false, error(nil)
		if !p.srv.Dirty {
			var rows [][][]byte
			if rows, err = p.srv.Answers(1); err == nil {
				wrote = len(rows) == 1 && string(rows[0][0]) == "t"
			}
		}
		var se *pool.ServerError
		switch {
		case errors.As(err, &se):
			refused = err
			continue
		case err != nil || p.srv.Dirty:
			p.srv.Dirty, lost = true, p
			continue
		}
		if wrote {
			p.wrote, h.tx.changes = true, true
			p.keys = h.shards.At(p.shard).UnseenKeys(p.keys)
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
