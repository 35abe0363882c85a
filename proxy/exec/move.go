package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/copydata"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// movedTable holds the rows of an INSERT ... SELECT on the server of the copies, with the target's types: PostgreSQL makes
// the assignments' casts as it fills it.
const movedTable = "pg_temp.pgmosaic_moved"

// move runs an INSERT ... SELECT whose rows belong to other shards than those that make them: the SELECT runs on copies, as
// a gathered one does, and its rows are taken apart by key, as those of a COPY are.
func (h *Handler) move(ctx context.Context, p *router.Plan, a *router.Args, x *execution) (err error) {
	whole, err := h.wholeOf(ctx, p.Template, a.Types) // home's word on the INSERT itself
	if err != nil {
		return err
	}
	if h.tx.locks {
		return router.Refuse(router.RuleGatherLock)
	}
	source, err := h.saidOf(ctx, p.Template, "source", p.Source, whole.params)
	if err != nil {
		return err
	}
	if p.Made != nil {
		return h.make(ctx, p, a, whole, source)
	}
	names := p.Names[:min(len(p.Names), len(source.fields))]
	for i, k := range p.Key {
		if k >= len(names) {
			return router.Refuse(router.RuleInsertKey, p.Target.Keys[i])
		}
	}
	list := pgsql.List(names)
	g := h.newGathering(p, a, whole.params)
	defer func() { g.end(err) }()
	if err := g.prepare(ctx, source); err != nil {
		return err
	}
	every, err := g.movedTable(ctx, p, names)
	if err != nil {
		return err
	}
	if err := g.fetch(ctx); err != nil {
		return err
	}
	if err := g.fill("INSERT INTO " + movedTable + " (" + list + ") " + g.sql); err != nil {
		return err
	}
	names, list = every, pgsql.List(every)
	types, err := g.movedTypes(p, names)
	if err != nil {
		return err
	}
	var rows int64
	var desc []wire.Field
	var out []returned
	err = h.atomically(ctx, func() (err error) {
		if p.Ref {
			if err := h.lockReference(ctx, p, p.Shards); err != nil {
				return err
			}
		}
		if p.Tail == "" {
			rows, err = g.send(ctx, p, "COPY "+p.Target.SQL()+" ("+list+") FROM STDIN (FORMAT binary)")
			return err
		}
		var res []int16
		if x != nil {
			res = x.portal.res
		}
		rows, desc, out, err = g.insert(ctx, p, list, types, res)
		return first(err, asReturned(x, desc))
	})
	if err != nil {
		return err
	}
	if p.Stmt.Query.Returning {
		if desc == nil { // no row: the columns all the same
			desc = formatted(whole.fields, x)
		}
		if err := h.writeReturned(desc, out, x); err != nil {
			return err
		}
	}
	h.client.SendTag(fmt.Sprintf("INSERT 0 %d", rows))
	return nil
}

// formatted are columns in the formats that the client wants.
func formatted(fields []wire.Field, x *execution) []wire.Field {
	out := slices.Clone(fields)
	for i := range out {
		out[i].Format = 0
		if x != nil {
			out[i].Format = formatOf(x.portal.res, i)
		}
	}
	return out
}

// make runs a CREATE TABLE AS: the rows are made on copies and go into the new table on home.
func (h *Handler) make(ctx context.Context, p *router.Plan, a *router.Args, whole, source *described) (err error) {
	g := h.newGathering(p, a, whole.params)
	defer func() { g.end(err) }()
	if err := g.prepare(ctx, source); err != nil {
		return err
	}
	if err := g.fetch(ctx); err != nil {
		return err
	}
	names := make([]string, len(source.fields)) // the SELECT's own may be twice the same
	for i, f := range source.fields {
		names[i] = fmt.Sprintf("c%d", i)
		g.taken = append(g.taken, takenAs{name: names[i], xml: f.DataTypeOID == xmlOID})
	}
	head := "CREATE TEMPORARY TABLE " + movedTable[len("pg_temp."):]
	if len(names) > 0 {
		head += " (" + pgsql.List(names) + ")"
	}
	if err := g.fill(head + " ON COMMIT DROP AS " + g.sql); err != nil {
		return err
	}
	var rows int64
	if err := h.atomically(ctx, func() error {
		home, err := h.join(ctx, h.planner.DB.Home.Index, p.Template)
		if err != nil {
			return err
		}
		if err := h.ready(home); err != nil {
			return err
		}
		if _, err := h.exec(home, p.Made.SQL); err != nil {
			return err
		}
		if cause := pinCauseOf(p.Template); cause != "" {
			h.pin(home, cause)
		}
		rows, err = g.send(ctx, p, "COPY "+p.Made.Table+" FROM STDIN (FORMAT binary)")
		return err
	}); err != nil {
		return err
	}
	h.client.SendTag(fmt.Sprintf("SELECT %d", rows))
	h.after(ctx, p.Template, h.planner.DB.Home.Index)
	return nil
}

// maxParams is how many parameters a statement may have.
const maxParams = 65535

// insert takes the rows that were made to their shards by INSERT, with what the client wants of conflicts and rows returned.
func (g *gathering) insert(ctx context.Context, p *router.Plan, list string, types []uint32, res []int16) (n int64, desc []wire.Field, out []returned, err error) {
	h := g.h
	hold := &holding{h: h}
	defer hold.release()
	var rows [][][]byte
	if err := g.each(func(body []byte) error {
		vals, err := wire.RowValues(nil, append([]byte(nil), body...))
		rows = append(rows, vals)
		return errors.Join(err, hold.take(len(body)+24*len(vals)))
	}); err != nil {
		return 0, nil, nil, err
	}
	byShard, order, err := placeRows(h.planner.DB, p, p.Key, rows)
	if err != nil {
		return 0, nil, nil, err
	}
	most := maxParams / max(len(types), 1)
	for _, shard := range order {
		part, err := h.join(ctx, shard, p.Template)
		if err != nil {
			return 0, nil, nil, err
		}
		which := byShard[shard]
		if len(which) > most && len(p.Stmt.Query.Sets) > 0 { // a row that is updated twice must be seen
			return 0, nil, nil, &pgsql.Error{
				Code: pgsql.ProgramLimitExceeded, Message: fmt.Sprintf("INSERT ... SELECT with ON CONFLICT DO UPDATE takes at most %d rows of %d columns to a shard, there are %d", most, len(types), len(which)),
				Hint: "Insert fewer rows at once.",
			}
		}
		for len(which) > 0 {
			if err := h.held.Stopped(); err != nil {
				return 0, nil, nil, err
			}
			some := which[:min(len(which), most)]
			which = which[len(some):]
			tag, d, got, err := h.insertMany(part, [2]string{"INSERT INTO " + p.Target.SQL() + p.Alias() + " (" + list + ") OVERRIDING SYSTEM VALUE VALUES ", p.Tail}, types, rows, some, res, hold)
			if err != nil {
				return 0, nil, nil, err
			}
			_, k, _ := wire.TagRows(tag)
			n += k
			desc = d
			for i, r := range got {
				at := len(rows) // somewhere: fewer came back than were sent
				if len(got) == len(some) {
					at = some[i]
				}
				out = append(out, returned{r, at})
			}
		}
	}
	return n, desc, out, nil
}

// insertMany inserts rows on one shard by one statement: around is what stands before its VALUES and behind them.
func (h *Handler) insertMany(p *participant, around [2]string, types []uint32, rows [][][]byte, which []int, res []int16, hold *holding) (tag string, desc []wire.Field, got [][][]byte, err error) {
	var b strings.Builder
	b.WriteString(around[0])
	var params [][]byte
	var all []uint32
	for i, n := range which {
		if i > 0 {
			b.WriteByte(',')
		}
		for k := range types {
			sep := ","
			if k == 0 {
				sep = "("
			}
			fmt.Fprintf(&b, "%s$%d", sep, len(params)+k+1)
		}
		b.WriteByte(')')
		vals, _, err := h.paramsFor(p.shard, types, binaryAll, rows[n])
		if err != nil {
			return "", nil, nil, err
		}
		params, all = append(params, vals...), append(all, types...)
	}
	b.WriteString(" " + around[1])
	s := p.Server
	s.SendParse("", b.String(), h.typesFor(p.shard, all))
	s.SendBindParts("", binaryAll, params, res)
	s.SendDescribe('P', "")
	s.SendExecute()
	s.SendSync()
	flushing, err := s.FlushAside()
	if err != nil {
		return "", nil, nil, h.lost(p, err)
	}
	if err = h.prologue(p); err == nil {
		tag, desc, got, err = h.readPiece(p, false, hold)
	}
	if flushing.Wait(err != nil) != nil {
		s.Dirty = true
	}
	return tag, desc, got, err
}

// fill runs the statement, with its parameters, on the copies.
func (g *gathering) fill(sql string) error {
	s := g.on.Server
	s.SendParse("", sql, g.types)
	s.SendBindParts("", g.args.Formats, g.args.Params, nil)
	s.SendExecute()
	s.SendSync()
	if err := s.Flush(); err != nil {
		return g.h.lost(g.on, err)
	}
	if _, err := s.ReadTag(); err != nil {
		return g.failed(err)
	}
	return nil
}

// send takes the rows that were made to their shards by COPY.
func (g *gathering) send(ctx context.Context, p *router.Plan, sql string) (rows int64, err error) {
	h := g.h
	parts, _, err := h.openCopies(ctx, p, sql)
	if err != nil {
		return 0, err
	}
	sp := splitterOf(h.planner.DB, p, &sqlparse.CopyInfo{Options: map[string]string{"format": "binary"}}, copydata.MarkEnds)
	failed := g.take(sp, h.copySender(parts))
	counts, err := h.finishCopies(parts, failed, sp)
	for i, n := range counts {
		if !p.Ref || p.Shards[i] == h.planner.DB.Home.Index {
			rows += n
		}
	}
	return rows, err
}

// take reads the rows that were made and splits them.
func (g *gathering) take(sp *copydata.Splitter, send func(int, []byte) error) error {
	if err := sp.Add([]byte(copyHeader), send); err != nil {
		return err
	}
	err := g.each(func(row []byte) error {
		err := sp.AddBinaryRow(row)
		if err == nil && sp.Held() > 32<<10 {
			err = sp.Flush(send)
		}
		return err
	})
	if err != nil {
		return err
	}
	return sp.End(send)
}
