package exec

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// A declared table that gets another name is declared under both from the moment that home has renamed it, inside of the
// transaction, until that has ended: the shards know which of the names there is, and no statement can take the new one for
// a table of home's. What became of the transaction is read from home, and then the map has one name again. A process that
// dies in between leaves that to the next start. Of a dropped table the declaration is kept in the same way. See
// docs/decisions, 14.

// settleRenameTimeout bounds how long the end of a transaction waits for the map to have one name again.
const settleRenameTimeout = 5 * time.Second

var errTxMapChanged = &pgsql.Error{Code: pgsql.SerializationFailure, Message: "the shard map changed during the transaction", Hint: "Run the transaction again."}

// rename tells the map what the open transaction, which has done it, calls a table or its key columns from now on.
func (h *Handler) rename(ctx context.Context, r *router.Renamed) error {
	p, err := h.partOnHome()
	if err != nil {
		return err
	}
	next, err := h.identify(p, r.To, r.Keys)
	if err != nil {
		return err
	}
	if err := h.undecided(ctx, []doubtful{{r.From, next}}); err != nil {
		return err
	}
	h.planner.DB = h.planner.DB.Renamed(r.From, r.To, r.Keys)
	return nil
}

// doubtful is a table of which the end of the transaction decides what it is called, and whether it is there.
type doubtful struct {
	name shardmap.TableName
	next *shardmap.Renaming
}

// toDrop are the declared tables among those that the open transaction is about to drop.
func (h *Handler) toDrop(tables []shardmap.TableName) (out []doubtful, err error) {
	for _, n := range tables {
		info := h.planner.DB.Tables[n]
		if info == nil {
			continue
		}
		p, err := h.partOnHome()
		if err != nil {
			return nil, err
		}
		next, err := h.identify(p, n, info.Keys)
		if err != nil {
			return nil, err
		}
		if next.OID != 0 { // DROP IF EXISTS
			out = append(out, doubtful{n, next})
		}
	}
	return out, nil
}

// drop tells the map that the open transaction has dropped tables.
func (h *Handler) drop(ctx context.Context, gone []doubtful) error {
	if err := h.undecided(ctx, gone); err != nil {
		return err
	}
	names := make([]shardmap.TableName, len(gone))
	for i, g := range gone {
		names[i] = g.name
	}
	h.planner.DB = h.planner.DB.Without(names)
	return nil
}

// undecided marks tables in the map. Home holds locks on them for the transaction, so nobody else has marked them, but one that
// has just ended.
func (h *Handler) undecided(ctx context.Context, list []doubtful) error {
	err := h.e.Catalog.Retry(ctx, func(tx *shardmap.Tx) error {
		tables, err := tx.Tables(h.db)
		if err != nil {
			return err
		}
		for _, d := range list {
			i := slices.IndexFunc(tables, func(t shardmap.Table) bool {
				if t.Renaming == nil {
					return t.Schema == d.name.Schema && t.Name == d.name.Name && !t.Moving
				}
				return t.Renaming.OID == d.next.OID && slices.Contains(h.tx.oids, d.next.OID)
			})
			if i < 0 {
				return errTxMapChanged
			}
			tables[i].Renaming = d.next
			if err := tx.PutTable(tables[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	h.keepBase()
	for _, d := range list {
		h.tx.oids = append(h.tx.oids, d.next.OID)
	}
	return nil
}

func (h *Handler) partOnHome() (*participant, error) {
	for _, p := range h.tx.parts {
		if p.shard == h.planner.DB.Home.Index {
			return p, h.ready(p)
		}
	}
	return nil, errors.New("home has no part in the transaction")
}

// identify asks home, inside of the transaction, for what tells a table and its key later whatever they are called. No OID: there
// is no such table.
func (h *Handler) identify(p *participant, n shardmap.TableName, keys []string) (*shardmap.Renaming, error) {
	out := &shardmap.Renaming{Schema: n.Schema, Name: n.Name, Key: keys}
	table := "pg_catalog.to_regclass(" + pgsql.Literal(n.SQL()) + ")"
	sql := "SELECT " + table + "::pg_catalog.oid"
	for _, k := range keys {
		sql += ", (SELECT attnum FROM pg_catalog.pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) " + table + " AND attname OPERATOR(pg_catalog.=) " + pgsql.Literal(k) + ")"
	}
	row, err := p.Server.Row(1+len(keys), sql)
	if err != nil {
		return nil, h.lost(p, err)
	}
	if row[0] == nil {
		return out, nil
	}
	oid, err := strconv.ParseUint(string(row[0]), 10, 32)
	if err != nil {
		return nil, err
	}
	out.OID = uint32(oid)
	for _, v := range row[1:] {
		n, err := strconv.ParseInt(string(v), 10, 16)
		if err != nil {
			return nil, err
		}
		out.Columns = append(out.Columns, int16(n))
	}
	return out, nil
}

// forgetDDL ends the transaction's own view of map and schema, and has the map learn what became of the tables that it renamed
// or dropped.
func (h *Handler) forgetDDL() {
	b := h.tx.base
	if b.DB == nil {
		return
	}
	h.planner.DB, h.planner.Schema = b.DB, b.Schema
	if len(h.tx.oids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleRenameTimeout)
	defer cancel()
	h.client.Leave()
	if err := h.e.Renames(ctx, h.db); err != nil {
		h.e.Log.Warn("a renamed table is declared under both names until home has said which it has", "database", h.db, "error", err)
	}
}

// outdated refuses, in a transaction that keeps an older map, a statement that names a table which is declared since: for the
// older map it would be a table of home's.
func (h *Handler) outdated(s *sqlparse.Statement) error {
	cur := h.e.Catalog.Current()
	if cur == h.planner.Map || h.tx.Idle() || s == nil {
		return nil
	}
	db, b := cur.Databases[h.db], h.tx.base
	if db == nil || !h.planner.Env.DeclaredSince(h.planner.DB, h.planner.Schema, db, s.Tables) || b.DB != nil && !h.planner.Env.DeclaredSince(b.DB, b.Schema, db, s.Tables) {
		return nil
	}
	return errTxMapChanged
}
