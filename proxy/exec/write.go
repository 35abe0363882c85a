package exec

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

const cancelTimeout = 5 * time.Second

// atomically runs f, which has several steps, in the client's transaction, or in one of our own that it commits. A cancel request that
// servers took no notice of between the steps is heard at their end.
func (h *Handler) atomically(ctx context.Context, f func() error) error {
	steps := func() error {
		if err := f(); err != nil {
			return err
		}
		return h.held.Stopped()
	}
	if !h.tx.Idle() {
		return steps()
	}
	h.begin("BEGIN", sqlparse.Tx{}, true)
	if err := steps(); err != nil {
		if !h.tx.Idle() {
			h.rollback()
		}
		return err
	}
	return h.commitImplicit(ctx)
}

// piece is what one shard does of a write.
type piece struct {
	shard int
	sql   string
	rows  []int // of a split INSERT: the rows in VALUES order
	copy  bool  // of what home has done already: its notices would be the same again
}

// returned is a row that RETURNING gave, with its place in VALUES order.
type returned struct {
	values [][]byte
	at     int
}

// writeMany runs the same write on several shards. Of a reference table every copy is written, home first,
// and home's answer counts.
func (h *Handler) writeMany(ctx context.Context, p *router.Plan, a *router.Args, x *execution) error {
	text := textOf(p, a)
	if p.NoTx {
		return h.oneByOne(ctx, p, text)
	}
	if p.Shared {
		return h.define(ctx, p, text)
	}
	var pieces []piece
	home := h.planner.DB.Home.Index
	if p.Ref {
		pieces = append(pieces, piece{shard: home, sql: text})
	}
	for _, s := range p.Shards {
		if !p.Ref || s != home {
			pieces = append(pieces, piece{shard: s, sql: p.TextOn(s, text), copy: p.Ref})
		}
	}
	var tag string
	var desc []wire.Field
	var rows []returned
	err := h.atomically(ctx, func() error {
		if p.Ref {
			shards := make([]int, len(pieces))
			for i, pc := range pieces {
				shards[i] = pc.shard
			}
			if err := h.lockReference(ctx, p, shards); err != nil {
				return err
			}
			once, err := h.evaluated(ctx, p, text, a)
			if err != nil {
				return err
			}
			for i := range pieces {
				pieces[i].sql = once
				if part, ok := p.Apart[pieces[i].shard]; ok {
					pieces[i].sql = part
				}
			}
			gone, err := h.toDrop(p.Drops)
			if err != nil {
				return err
			}
			names := namingsOf(p)
			if err := h.everyPiece(ctx, p, pieces, names.about); err != nil {
				return err
			}
			if tag, desc, rows, err = h.runPieces(ctx, p, pieces[:1], a, x); err != nil {
				return err
			}
			other, _, _, err := h.runPieces(ctx, p, pieces[1:], a, x)
			if err == nil {
				err = h.everyPiece(ctx, p, pieces, names.settle)
			}
			if err == nil && p.Then != "" {
				err = h.behind(ctx, p, pieces)
			}
			switch {
			case err != nil:
			case p.Renamed != nil:
				err = h.rename(ctx, p.Renamed)
			case len(gone) > 0:
				err = h.drop(ctx, gone)
			}
			if err == nil && other != "" && p.Target != nil && perShard(other, len(pieces)-1) != tag {
				return &pgsql.Error{
					Code: pgsql.DataCorrupted, Message: fmt.Sprintf("the copies of reference table %s differ: home answered %q, the others %q in all", p.Target.TableName, tag, other),
					Hint: "The statement was rolled back. VERIFY TABLE on the admin database says which rows differ.",
				}
			}
			return err
		}
		var err error
		tag, desc, rows, err = h.runPieces(ctx, p, pieces, a, x)
		return err
	})
	if err == nil {
		err = h.writeReturned(desc, rows, x)
	}
	if err != nil {
		return err
	}
	h.client.SendTag(tag)
	h.after(ctx, p.Template, h.planner.DB.Home.Index)
	return nil
}

// textOf is the text of a write: the request's own, if it has one, or the plan's.
func textOf(p *router.Plan, a *router.Args) string {
	if a.Text != nil {
		return string(a.Text)
	}
	return p.Stmt.Text
}

// everyPiece does something with the participant of every piece.
func (h *Handler) everyPiece(ctx context.Context, p *router.Plan, pieces []piece, f func(*Handler, *participant) error) error {
	for _, pc := range pieces {
		part, err := h.join(ctx, pc.shard, p.Template)
		if err != nil {
			return err
		}
		if err := f(h, part); err != nil {
			return err
		}
	}
	return nil
}

// behind runs, behind a definition, what it entails on each of its shards. A temporary table keeps its server.
func (h *Handler) behind(ctx context.Context, p *router.Plan, pieces []piece) error {
	for _, pc := range pieces {
		part, err := h.join(ctx, pc.shard, p.Template)
		if err != nil {
			return err
		}
		if cause := pinCauseOf(p.Template); cause != "" {
			h.pin(part, cause)
		}
		if _, err := part.Server.Exec(p.Then); err != nil {
			return h.lost(part, err)
		}
	}
	return nil
}

// perShard divides a sum of tags by the number of shards.
func perShard(tag string, n int) string {
	command, rows, ok := wire.TagRows(tag)
	if !ok || n == 0 || rows%int64(n) != 0 {
		return tag
	}
	return fmt.Sprintf("%s %d", command, rows/int64(n))
}

// runPieces sends every piece before it reads any answer. Rows of RETURNING are kept, and counted while they come.
func (h *Handler) runPieces(ctx context.Context, p *router.Plan, pieces []piece, a *router.Args, x *execution) (tag string, desc []wire.Field, rows []returned, err error) {
	shards := make([]int, len(pieces))
	for i, pc := range pieces {
		shards[i] = pc.shard
	}
	parts, err := h.joinAll(ctx, shards, p.Template)
	if err != nil {
		return "", nil, nil, err
	}
	flushing := make([]*wire.Flushing, len(pieces))
	defer func() {
		for i, f := range flushing {
			if f.Wait(err != nil) != nil {
				parts[i].Lose()
			}
		}
	}()
	var types []uint32
	var res []int16
	if x != nil {
		types, res = x.portal.stmt.types, x.portal.res
		if d := x.portal.stmt.desc; d != nil {
			types = d.params
		}
	}
	params := make([][][]byte, len(pieces))
	for i, pc := range pieces { // before anything is sent
		if params[i], _, err = h.paramsFor(pc.shard, types, a.Formats, a.Params); err != nil {
			return "", nil, nil, err
		}
	}
	texts := make([]string, len(pieces))
	for i, pc := range pieces {
		if texts[i], err = h.marked(ctx, p, parts[i], pc.sql); err != nil {
			return "", nil, nil, err
		}
	}
	for i, pc := range pieces {
		s := parts[i].Server
		s.SendParse("", texts[i], h.typesFor(pc.shard, types))
		s.SendBindParts("", a.Formats, params[i], res)
		s.SendDescribe('P', "")
		s.SendExecute()
		s.SendSync()
		if flushing[i], err = sendOff(s); err != nil {
			unheard(parts[:i])
			return "", nil, nil, h.lost(parts[i], err)
		}
	}
	var sum rowCount
	hold := &holding{h: h}
	defer hold.release()
	for i, pc := range pieces {
		if e := h.prologue(parts[i]); e != nil {
			err = first(err, e)
			continue
		}
		t, d, got, e := h.readPiece(parts[i], pc.copy, hold)
		if e != nil {
			err = first(err, inWhole(e, p.Shares, pc.shard))
			continue
		}
		sum.add(t)
		if d != nil {
			desc = d
		}
		for k, r := range got {
			at := len(rows)
			if len(got) == len(pc.rows) {
				at = pc.rows[k]
			}
			rows = append(rows, returned{r, at})
		}
	}
	if err == nil {
		err = asReturned(x, desc)
	}
	return sum.String(), desc, rows, err
}

// asReturned is an error where a write has returned other columns than the client was told of, so that it is undone: something was
// defined where nobody here knows of it. Their names may be others: what is evaluated once for all copies is called otherwise.
func asReturned(x *execution, desc []wire.Field) error {
	if x == nil || desc == nil || x.portal.stmt.desc == nil {
		return nil
	}
	if !slices.EqualFunc(desc, x.portal.stmt.desc.fields, func(a, b wire.Field) bool { return a.DataTypeOID == b.DataTypeOID }) {
		return errPlanChanged
	}
	return nil
}

// sendOff has a server get what is gathered for it: aside, unless that is long. A long parameter is held for one server at a time.
func sendOff(s *pool.Server) (*wire.Flushing, error) {
	if s.Out() > copyBurst {
		return nil, s.Flush()
	}
	return s.FlushAside()
}

// unheard gives servers up whose answers nobody will read.
func unheard(parts []*participant) {
	for _, p := range parts {
		p.Lose()
	}
}

// readPiece reads one answer to its ReadyForQuery. mute drops its notices. Its rows count in hold: what is more than that may have is read, and
// not kept.
func (h *Handler) readPiece(p *participant, mute bool, hold *holding) (tag string, desc []wire.Field, rows [][][]byte, err error) {
	answer := h.answer(p)
	if mute {
		answer.Hear = nil
	}
	err = answer.Read(func(m wire.Message) (err error) {
		switch m.Type {
		case 'T':
			if desc, err = wire.ParseRowDescription(m.Body()); err == nil {
				translateFields(h.typesOf(p.shard), desc)
				p.deep = deepOf(h.typesOf(p.shard), desc, func(i int) int16 { return desc[i].Format })
			}
		case 'D':
			var vals [][]byte
			if vals, err = wire.RowValues(nil, append([]byte(nil), m.Body()...)); err == nil && p.deep != nil {
				err = toHome(h.typesOf(p.shard), p.deep, vals)
			}
			if err == nil {
				err = hold.take(len(m.Body()) + 24*len(vals))
			}
			rows = append(rows, vals)
		case 'H': // it would be lost without a word
			err = &pgsql.Error{Code: pgsql.InternalError, Message: "a write copies what it returns"}
		}
		return err
	})
	return answer.Tag, desc, rows, h.unread(p, &answer, err)
}

func (h *Handler) writeReturned(desc []wire.Field, rows []returned, x *execution) error {
	if desc == nil {
		return nil
	}
	if x == nil {
		h.client.Send(&wire.RowDescription{Fields: desc})
	}
	ordered := make([][][]byte, len(rows))
	for _, r := range rows {
		if r.at >= len(ordered) || ordered[r.at] != nil { // some shard returned fewer rows than it was sent
			for i := range rows {
				ordered[i] = rows[i].values
			}
			break
		}
		ordered[r.at] = r.values
	}
	for _, r := range ordered {
		if h.client.SendRow(r); h.client.Out() >= 32<<10 {
			if err := h.client.Flush(); err != nil {
				return clientError{err}
			}
		}
	}
	return nil
}

// split divides the rows of an INSERT over their shards.
func (h *Handler) split(ctx context.Context, p *router.Plan, a *router.Args, x *execution) error {
	text := string(a.Text)
	spans, ok := sqlparse.ValuesRows(text)
	if !ok || len(spans) != len(p.Rows) {
		return router.Refuse(router.RuleInsertSplit, "the VALUES list could not be taken apart")
	}
	head, tail := text[:spans[0].Start], text[spans[len(spans)-1].End:]
	list := make([]string, len(spans))
	for i, s := range spans {
		list[i] = text[s.Start:s.End]
	}
	if d := p.Draw; d != nil {
		if head, list, ok = sqlparse.GiveColumn(head, list, pgsql.Ident(d.Column), d.At, p.Drawn); !ok {
			return router.Refuse(router.RuleInsertSplit, "the VALUES list could not be taken apart")
		}
	}
	var pieces []piece
	index := map[int]int{}
	var texts []*strings.Builder
	for i, shard := range p.Rows {
		at, ok := index[shard]
		if !ok {
			at = len(pieces)
			index[shard] = at
			pieces = append(pieces, piece{shard: shard})
			b := &strings.Builder{}
			b.Grow(len(text)/len(p.Shards) + len(text)/8)
			b.WriteString(head)
			texts = append(texts, b)
		} else {
			texts[at].WriteByte(',')
		}
		texts[at].WriteString(list[i])
		pieces[at].rows = append(pieces[at].rows, i)
	}
	for i := range pieces {
		texts[i].WriteString(tail)
		pieces[i].sql = texts[i].String()
	}
	var tag string
	var desc []wire.Field
	var rows []returned
	err := h.atomically(ctx, func() (err error) {
		tag, desc, rows, err = h.runPieces(ctx, p, pieces, a, x)
		return err
	})
	if err == nil {
		err = h.writeReturned(desc, rows, x)
	}
	if err != nil {
		return err
	}
	if _, n, ok := wire.TagRows(tag); ok {
		tag = fmt.Sprintf("INSERT 0 %d", n)
	}
	h.client.SendTag(tag)
	return nil
}

// homeFirst are shards with home in front, if it is among them: it chooses names, and its answer is the client's.
func homeFirst(shards []int, home int) []int {
	out := slices.Clone(shards)
	slices.SortStableFunc(out, func(a, b int) int {
		switch {
		case a == b:
			return 0
		case a == home:
			return -1
		case b == home:
			return 1
		}
		return 0
	})
	return out
}

// oneByOne runs what cannot run in a transaction on each shard in turn.
func (h *Handler) oneByOne(ctx context.Context, p *router.Plan, text string) error {
	if !h.tx.Idle() {
		return &pgsql.Error{Code: pgsql.ActiveSQLTransaction, Message: "this statement cannot run inside a transaction block"}
	}
	var tag string
	names := namingsOf(p)
	for i, shard := range homeFirst(p.Shards, h.planner.DB.Home.Index) {
		err := h.held.Stopped()
		if err != nil {
			return partly(err, h.shards.Name(shard), i, len(p.Shards))
		}
		part, err := h.enlist(ctx, shard, p.Template)
		if err != nil {
			return partly(err, h.shards.Name(shard), i, len(p.Shards))
		}
		if err := names.about(h, part); err != nil {
			h.finish(part)
			return partly(err, h.shards.Name(shard), i, len(p.Shards))
		}
		if i == 0 { // its notices are the client's
			tag, err = h.exec(part, text)
		} else {
			_, err = part.Server.Exec(text)
		}
		switch {
		case i > 0 && p.Shared && p.Stmt.Def.Alters && isAbsent(err):
			err = nil
		case err != nil:
			err = h.lost(part, err)
		default:
			err = names.settle(h, part)
		}
		h.finish(part)
		if err != nil {
			return partly(err, h.shards.Name(shard), i, len(p.Shards))
		}
	}
	h.client.SendTag(tag)
	h.after(ctx, p.Template, h.planner.DB.Home.Index)
	return nil
}

// partly says how far a statement came that runs on one shard after the other.
func partly(err error, shard string, done, all int) error {
	if done == 0 {
		return err
	}
	err = worded(err)
	return &pgsql.Error{Code: codeOf(err), Message: fmt.Sprintf("on shard %s: %v", shard, err), Hint: fmt.Sprintf("It is done on %d of %d shards. Run it again when the cause is gone.", done, all)}
}

func codeOf(err error) string {
	if s, ok := err.(interface{ SQLState() string }); ok { //nolint:errorlint // the outermost is meant
		return s.SQLState()
	}
	return pgsql.InternalError
}
