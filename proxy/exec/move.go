package exec

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
)

// movedTable holds the rows of an INSERT ... SELECT on the server of the copies, with the target's types: PostgreSQL makes
// the assignments' casts as it fills it.
const movedTable = "pg_temp.pgmosaic_moved"

// move runs an INSERT ... SELECT whose rows belong to other shards than those that make them: the SELECT runs on copies, as
// a gathered one does, and its rows are taken apart by key, as those of a COPY are.
func (h *Handler) move(ctx context.Context, p *router.Plan, a *router.Args) (err error) {
	whole, err := h.wholeOf(ctx, p.Template, a.Types) // home's word on the INSERT itself
	if err != nil {
		return err
	}
	if h.tx.locks {
		return router.Refuse("gather-lock")
	}
	width, err := h.describeText(ctx, p.Source, whole.params)
	if err != nil {
		return err
	}
	names := p.Names[:min(len(p.Names), len(width.fields))]
	for i, k := range p.Key {
		if k >= len(names) {
			return router.Refuse("insert-key", p.Target.Keys[i])
		}
	}
	cols := make([]string, len(names))
	for i, n := range names {
		cols[i] = pool.QuoteName(n)
	}
	list := strings.Join(cols, ", ")
	g := &gathering{h: h, t: p.Template, plan: p.Gather, args: a, types: whole.params, parts: map[int]*participant{}}
	if h.usesHome() {
		g.plan = g.plan.Own
	}
	defer func() { g.end(err) }()
	if err := g.prepare(ctx); err != nil {
		return err
	}
	if err := g.exec("CREATE TEMPORARY TABLE " + movedTable[len("pg_temp."):] + " ON COMMIT DROP AS SELECT " + list + " FROM " + tableName(p.Target.TableName) + " WITH NO DATA"); err != nil {
		return err
	}
	if err := g.start(ctx); err != nil {
		return err
	}
	for _, l := range g.loads {
		if err := g.load(l); err != nil {
			return err
		}
	}
	if err := g.release(); err != nil {
		return err
	}
	if err := g.fill("INSERT INTO " + movedTable + " (" + list + ") " + g.plan.SQL); err != nil {
		return err
	}
	var rows int64
	err = h.atomically(ctx, func() (err error) {
		rows, err = g.send(ctx, p, names, "COPY "+tableName(p.Target.TableName)+" ("+list+") FROM STDIN (FORMAT binary)")
		return err
	})
	if err != nil {
		return err
	}
	h.client.SendTag(fmt.Sprintf("INSERT 0 %d", rows))
	return nil
}

// fill runs the statement, with its parameters, on the copies.
func (g *gathering) fill(sql string) error {
	s := g.on.srv
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

// send takes the rows that were made to their shards.
func (g *gathering) send(ctx context.Context, p *router.Plan, names []string, sql string) (rows int64, err error) {
	h := g.h
	fields := make([]wire.Field, len(names))
	for i, n := range names {
		if c, _ := p.Schema.Tables[p.Target.TableName].Column(n); c != nil {
			fields[i].DataTypeOID = c.TypeOID
		}
	}
	for _, shard := range p.Shards {
		if deepOf(h.typesOf(shard), fields, func(int) int16 { return 1 }) != nil { // OIDs inside the values differ
			return 0, router.Refuse("insert-select", p.Target.TableName)
		}
	}
	parts, _, err := h.openCopies(ctx, p, sql)
	if err != nil {
		return 0, err
	}
	sp := newSplitter(p.Target, p.Key, map[string]string{"format": "binary"}, p.Shards)
	failed := g.take(sp, h.copySender(parts))
	counts, err := h.finishCopies(parts, failed, sp)
	for _, n := range counts {
		rows += n
	}
	return rows, err
}

// take reads the rows that were made and splits them.
func (g *gathering) take(sp *splitter, send func(int, []byte) error) error {
	s := g.on.srv
	if err := sp.add([]byte(copyHeader), send); err != nil {
		return err
	}
	s.SendParse("", "SELECT * FROM "+movedTable, nil)
	s.SendBindParts("", nil, nil, binaryAll)
	s.SendExecute()
	s.SendSync()
	if err := s.Flush(); err != nil {
		return g.h.lost(g.on, err)
	}
	var failed error
	for {
		m, err := s.Next()
		if err != nil {
			return g.h.lost(g.on, err)
		}
		switch m.Type {
		case 'D':
			if failed != nil {
				continue
			}
			if failed = sp.rowBinary(m.Body()); failed == nil && sp.held() > 32<<10 {
				failed = sp.flush(send)
			}
		case 'E':
			failed = first(failed, error(&pool.ServerError{Response: wire.ParseError(m.Body())}))
		case 'S':
			s.NoteParam(m.Body())
		case 'Z':
			s.TxStatus = m.Body()[0]
			if failed == nil {
				failed = sp.end(send)
			}
			return failed
		}
	}
}
