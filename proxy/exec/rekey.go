package exec

import (
	"context"
	"fmt"
	"slices"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// rekey runs an UPDATE that changes keys: each shard deletes its rows and gives them back as they would be, and each row is
// inserted where it belongs now, in one transaction.
func (h *Handler) rekey(ctx context.Context, p *router.Plan, a *router.Args, x *execution) error {
	text := p.Stmt.Text
	if a.Text != nil {
		text = string(a.Text)
	}
	sql, ok := p.Rekeyed(text)
	if !ok {
		return router.Refuse(router.RuleKeyChange, p.Target.KeyList())
	}
	if _, err := h.wholeOf(ctx, p.Template, a.Types); err != nil { // home's word on the UPDATE itself
		return err
	}
	var tag string
	var desc []wire.Field
	var rows []returned
	err := h.atomically(ctx, func() (err error) {
		tag, desc, rows, err = h.moveKeys(ctx, p, sql.Delete, sql.Insert, a, x)
		return first(err, asReturned(x, desc))
	})
	if err != nil {
		return err
	}
	if err := h.writeReturned(desc, rows, x); err != nil {
		return err
	}
	h.client.SendTag(tag)
	return nil
}

func (h *Handler) moveKeys(ctx context.Context, p *router.Plan, del, insert string, a *router.Args, x *execution) (tag string, desc []wire.Field, out []returned, err error) {
	hold := &holding{h: h}
	defer hold.release()
	rows, err := h.deleted(ctx, p, del, a, x, hold)
	if err != nil {
		return "", nil, nil, err
	}
	cols := p.RekeyColumns()
	types := make([]uint32, len(cols))
	table := p.Schema.Tables[p.Target.TableName]
	at := make([]int, len(p.Target.Keys))
	for i, c := range cols {
		col, _ := table.Column(c.Name)
		types[i] = col.TypeOID
		if k := slices.Index(p.Target.Keys, c.Name); k >= 0 {
			at[k] = i
		}
	}
	for i, t := range types {
		if namesObjects[t] && slices.ContainsFunc(rows, func(r [][]byte) bool { return i < len(r) && namesUsers(r[i]) }) {
			return "", nil, nil, router.Refuse(router.RuleNamesObject, "column "+cols[i].Name)
		}
	}
	byShard, order, err := placeRows(h.planner.DB, p, at, rows)
	if err != nil {
		return "", nil, nil, err
	}
	var res []int16
	if x != nil {
		res = x.portal.res
	}
	for _, shard := range order {
		part, err := h.join(ctx, shard, p.Template)
		if err != nil {
			return "", nil, nil, err
		}
		for len(byShard[shard]) > 0 {
			if err := h.held.Stopped(); err != nil {
				return "", nil, nil, err
			}
			n := min(len(byShard[shard]), insertBurst)
			burst := make([][][]byte, n)
			for i, k := range byShard[shard][:n] {
				burst[i] = rows[k]
			}
			d, got, err := h.insertRows(part, insert, types, burst, res, hold)
			if err != nil {
				return "", nil, nil, err
			}
			desc, byShard[shard] = d, byShard[shard][n:]
			for _, r := range got {
				out = append(out, returned{r, len(out)})
			}
		}
	}
	if desc == nil && p.Stmt.Query.Returning { // no row: the columns all the same
		d, err := h.wholeOf(ctx, p.Template, a.Types)
		if err != nil {
			return "", nil, nil, err
		}
		desc = slices.Clone(d.fields)
		for i := range desc {
			desc[i].Format = formatOf(res, i)
		}
	}
	return fmt.Sprintf("UPDATE %d", len(rows)), desc, out, nil
}

// placeRows finds the shard of each row, in binary, whose key columns stand at the given positions, by a map. order has each shard once.
func placeRows(db *shardmap.DB, p *router.Plan, at []int, rows [][][]byte) (byShard map[int][]int, order []int, err error) {
	key, held := make([]pghash.Key, len(at)), router.HeldKeys(p.Template)
	byShard = map[int][]int{}
	for n, r := range rows {
		for k, i := range at {
			if r[i] == nil {
				return nil, nil, router.Refuse(router.RuleInsertKey, p.Target.Keys[k])
			}
			var ok bool
			if key[k], ok = pghash.ParseBinary(p.Target.Group.Keys[k], r[i]); !ok {
				return nil, nil, router.Refuse(router.RuleKeyUnreadable, p.Target.Keys[k])
			}
			if held != nil {
				key[k] = held[k].Held(key[k])
			}
		}
		shard, ok := db.Placement(p.Target.Group).Place(key)
		if !ok {
			return nil, nil, router.Refuse(router.RuleNoPlace, p.Target.KeyList())
		}
		if byShard[shard] == nil {
			order = append(order, shard)
		}
		byShard[shard] = append(byShard[shard], n)
	}
	return byShard, order, nil
}

// insertBurst is how many rows are sent before their answers are read: those must fit into the buffers between.
const insertBurst = 100

// deleted runs the DELETE on every shard and collects what it gives back, in binary and in home's OIDs.
func (h *Handler) deleted(ctx context.Context, p *router.Plan, del string, a *router.Args, x *execution, hold *holding) (rows [][][]byte, err error) {
	var types []uint32
	if x != nil {
		types = x.portal.stmt.types
		if d := x.portal.stmt.desc; d != nil {
			types = d.params
		}
	}
	parts, err := h.joinAll(ctx, p.Shards, p.Template)
	if err != nil {
		return nil, err
	}
	params := make([][][]byte, len(parts))
	for i, shard := range p.Shards { // before anything is sent
		if params[i], _, err = h.paramsFor(shard, types, a.Formats, a.Params); err != nil {
			return nil, err
		}
	}
	for i, shard := range p.Shards {
		s := parts[i].Server
		s.SendParse("", del, h.typesFor(shard, types))
		s.SendBindParts("", a.Formats, params[i], binaryAll)
		s.SendDescribe('P', "")
		s.SendExecute()
		s.SendSync()
	}
	for i := range parts {
		if err := parts[i].Server.Flush(); err != nil {
			unheard(parts)
			return nil, h.lost(parts[i], err)
		}
	}
	for _, part := range parts {
		if e := h.prologue(part); e != nil {
			err = first(err, e)
			continue
		}
		_, _, got, e := h.readPiece(part, false, hold)
		err = first(err, e)
		rows = append(rows, got...)
	}
	return rows, err
}

// insertRows inserts rows on one shard, and reads what the client wants returned.
func (h *Handler) insertRows(p *participant, sql string, types []uint32, rows [][][]byte, res []int16, hold *holding) (desc []wire.Field, got [][][]byte, err error) {
	s := p.Server
	s.SendParse("", sql, h.typesFor(p.shard, types))
	for _, r := range rows {
		params, _, err := h.paramsFor(p.shard, types, binaryAll, r)
		if err != nil {
			return nil, nil, err
		}
		s.SendBindParts("", binaryAll, params, res)
		s.SendDescribe('P', "")
		s.SendExecute()
	}
	s.SendSync()
	flushing, err := s.FlushAside() // rows may be returned while others are on their way
	if err != nil {
		return nil, nil, h.lost(p, err)
	}
	if err = h.prologue(p); err == nil {
		_, desc, got, err = h.readPiece(p, false, hold)
	}
	if flushing.Wait(err != nil) != nil {
		s.Dirty = true
	}
	return desc, got, err
}
