package exec

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/copydata"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// copy runs COPY of a distributed table, one COPY for each shard.
func (h *Handler) copy(ctx context.Context, p *router.Plan) error {
	if !p.Stmt.Copy.From {
		return h.copyOut(ctx, p)
	}
	if err := namedInBinary(p); err != nil {
		return err
	}
	var rows int64
	if p.Fills != nil && (len(p.Fills.Left(p.Names)) > 0 || p.Fills.ReadsTimes(p.Names) && p.Stmt.Copy.Options["format"] != "binary") {
		rows, err := h.copyOnce(ctx, p)
		if err == nil {
			h.client.SendTag(fmt.Sprintf("COPY %d", rows))
		}
		return err
	}
	err := h.atomically(ctx, func() (err error) {
		if p.Ref {
			if err := h.lockReference(ctx, p, p.Shards); err != nil {
				return err
			}
		}
		rows, err = h.copySplit(ctx, p)
		return err
	})
	if err != nil {
		return err
	}
	h.client.SendTag(fmt.Sprintf("COPY %d", rows))
	return nil
}

// copyOut passes the rows of each shard on in turn.
func (h *Handler) copyOut(ctx context.Context, p *router.Plan) error {
	out := copyOutput{binary: p.Stmt.Copy.Options["format"] == "binary"}
	if out.binary {
		out.fields = copiedFields(p)
	}
	for _, shard := range p.Shards {
		part, err := h.enlist(ctx, shard, p.Template)
		if err != nil {
			return err
		}
		err = h.copyOutOf(part, p.Stmt, &out)
		if h.tx.Idle() {
			h.finish(part)
		}
		if err != nil {
			return err
		}
	}
	if out.binary {
		h.client.SendFrame('d', out.behindHeader(copydata.Trailer))
	}
	h.client.SendFrame('c', nil)
	h.client.SendTag(out.total.String())
	return nil
}

// copyOutput is how far COPY TO over several shards is.
type copyOutput struct {
	opened bool // a shard has begun
	total  rowCount

	binary bool
	header []byte       // until it goes out with what follows it
	fields []wire.Field // the columns, by home's types
}

// copyOutOf passes one shard's rows on. The header is the first shard's, the trailer of the binary format comes at the end.
func (h *Handler) copyOutOf(p *participant, s *sqlparse.Statement, out *copyOutput) error {
	o := s.Copy.Options["header"]
	headerSent := out.opened                        // another shard has sent the header
	begins := out.binary || o != "" && o != "false" // the next message holds the header
	p.deep = deepOf(h.typesOf(p.shard), out.fields, func(int) int16 { return 1 })
	defer func() { p.deep = nil }()
	p.Server.SendQuery(s.Text)
	if err := p.Server.Flush(); err != nil {
		return h.lost(p, err)
	}
	if err := h.prologue(p); err != nil {
		return err
	}
	a := h.answer(p)
	for {
		panics.Point("copy out")
		typ, _, err := a.Peek()
		if err != nil {
			return h.unread(p, &a, err)
		}
		if typ == 'd' && !out.binary && !(begins && headerSent) || typ == 'H' && !out.opened {
			out.opened = true
			if err := p.Server.Forward(h.client); err != nil {
				return h.lostOrGone(p, err)
			}
			continue
		}
		m, err := a.Next()
		switch {
		case a.Ended && a.Failed != nil:
			return a.Failed
		case a.Ended:
			out.total.add(a.Tag)
			return nil
		case err != nil:
			return h.unread(p, &a, err)
		case m.Type == 'd':
			if out.binary {
				if err := h.sendBinary(p, out, m.Body(), begins, headerSent); err != nil {
					return h.lost(p, err)
				}
			}
			begins = false
			if h.client.Out() >= 32<<10 {
				if err := h.client.Flush(); err != nil {
					return clientError{err}
				}
			}
		}
	}
}

// copySplit takes the client's rows apart and sends each to its shard, or all to every copy.
func (h *Handler) copySplit(ctx context.Context, p *router.Plan) (rows int64, err error) {
	parts, said, err := h.openCopies(ctx, p, p.Stmt.Text)
	if err != nil {
		return 0, err
	}
	if err := asksForData(h, said); err != nil { // the columns are the same on all
		return 0, err
	}
	versions := make([]string, len(parts))
	for i := range parts {
		versions[i] = parts[i].Server.Params["server_version"]
	}
	sp := splitterOf(h.planner.DB, p, &p.Stmt.Copy, copydata.MarkOf(versions))
	feed := h.feed(p, sp, parts)
	ends, ferr := h.finishCopies(parts, feed, sp)
	if ferr != nil {
		return 0, ferr
	}
	for i, n := range ends {
		if !p.Ref || p.Shards[i] == h.planner.DB.Home.Index {
			rows += n
		}
	}
	return rows, nil
}

// openCopies begins the same COPY FROM STDIN on every shard of a plan. said is the body of a CopyInResponse.
func (h *Handler) openCopies(ctx context.Context, p *router.Plan, text string) (parts []*participant, said []byte, err error) {
	if parts, err = h.joinAll(ctx, p.Shards, p.Template); err != nil {
		return nil, nil, err
	}
	texts := make([]string, len(parts))
	for i := range parts {
		if texts[i], err = h.marked(ctx, p, parts[i], text); err != nil {
			return nil, nil, err
		}
	}
	for i := range parts {
		parts[i].Server.SendQuery(texts[i])
		if err := parts[i].Server.Flush(); err != nil {
			h.closeCopies(parts[:i], nil)
			return nil, nil, h.lost(parts[i], err)
		}
	}
	for i, part := range parts {
		if err = h.prologue(part); err == nil {
			said, err = h.awaitCopyIn(part)
		}
		if err != nil {
			h.closeCopies(parts[i+1:], parts[:i])
			return nil, nil, err
		}
	}
	return parts, said, nil
}

// awaitCopyIn reads up to CopyInResponse, whose body it returns.
func (h *Handler) awaitCopyIn(p *participant) ([]byte, error) {
	a := h.answer(p)
	for {
		m, err := a.Next()
		switch {
		case err == nil && m.Type == 'G':
			return slices.Clone(m.Body()), nil
		case a.Ended && a.Failed != nil:
			return nil, a.Failed
		case err != nil:
			return nil, h.unread(p, &a, err)
		}
	}
}

// closeCopies fails the copies that are open, so that their servers are ready for ROLLBACK.
func (h *Handler) closeCopies(unread, open []*participant) {
	for _, p := range unread {
		if p.Server.Dirty || h.prologue(p) != nil {
			continue
		}
		if _, err := h.awaitCopyIn(p); err != nil {
			continue
		}
		open = append(open, p)
	}
	for _, p := range open {
		p.Server.SendFrame('f', []byte("another shard failed\x00"))
		if p.Server.Flush() != nil {
			p.Lose()
			continue
		}
		if _, err := p.Server.ReadTag(); err != nil {
			var se *pool.ServerError
			if !errors.As(err, &se) {
				p.Lose()
			}
		}
	}
}

// copySender sends data of a COPY to the parts, in bursts.
func (h *Handler) copySender(parts []*participant) func(i int, rows []byte) error {
	return func(i int, rows []byte) error {
		s := parts[i].Server
		for len(rows) > 0 { // a message may end amid a row
			n := min(len(rows), copyBurst)
			s.SendFrame('d', rows[:n])
			rows = rows[n:]
			if s.Out() < copyBurst {
				continue
			}
			if err := s.Flush(); err != nil {
				return h.lost(parts[i], err)
			}
		}
		return nil
	}
}

// feed reads the client's data to its end and passes the rows on. The error is the client's CopyFail, a
// row that cannot be placed, or an amissError.
func (h *Handler) feed(p *router.Plan, sp *copydata.Splitter, parts []*participant) error {
	var failed error
	send := h.copySender(parts)
	sp.Hold = h.ext.countMessage
	defer sp.Forget()
	add := func(data []byte) {
		switch {
		case failed != nil:
		case p.Ref:
			for i := range parts {
				failed = first(failed, send(i, data))
			}
		default:
			if failed = sp.Add(data, send); failed != nil {
				sp.Forget()
			}
		}
	}
	if typ := h.ext.copy.behind; typ != 0 && typ != 'S' {
		h.ext.copy.begun = false // what has come is read when the COPY is over
		return &amissError{typ}
	}
	readsOn(h)
	for {
		panics.Point("copy in")
		typ, _, err := h.client.Peek()
		switch {
		case err != nil:
			return clientError{err}
		case typ == 'd':
			h.ext.copy.syncs = 0 // those before it have been passed over
			if err := eachPiece(h.client, add); err != nil {
				return clientError{err}
			}
			continue
		case !strings.ContainsRune("cfHS", rune(typ)): // it stays unread
			return cmp.Or[error](failed, &amissError{typ})
		}
		if err := mayEnd(h); err != nil {
			return err
		}
		m, err := h.client.Next()
		if err != nil {
			return clientError{err}
		}
		switch m.Type {
		case 'S':
			h.ext.copy.syncs++
		case 'c':
			if failed == nil && !p.Ref { // whose data has gone as it came
				failed = sp.End(send)
			}
			return failed
		case 'f':
			msg, _, _ := wire.CString(m.Body())
			return cmp.Or[error](failed, &pgsql.Error{Code: pgsql.QueryCanceled, Message: "COPY from stdin failed: " + string(msg)})
		}
	}
}

// eachPiece hands the next message's body to f as its bytes come.
func eachPiece(c *wire.Conn, f func([]byte)) error {
	const header = 5
	behind := 0
	return c.Pieces(func(b []byte) error {
		n := min(len(b), header-behind)
		if behind += n; n < len(b) {
			f(b[n:])
		}
		return nil
	})
}

// finishCopies ends the copies on all shards: with failed set, in vain.
func (h *Handler) finishCopies(parts []*participant, failed error, sp *copydata.Splitter) (rows []int64, err error) {
	for _, p := range parts {
		if p.Server.Dirty {
			continue
		}
		if failed != nil {
			p.Server.SendFrame('f', []byte(notData+"\x00"))
		} else {
			p.Server.SendFrame('c', nil)
		}
		if e := p.Server.Flush(); e != nil {
			err = first(err, h.lost(p, e))
		}
	}
	rows = make([]int64, len(parts))
	for i, p := range parts {
		if p.Server.Dirty {
			continue
		}
		tag, e := h.read(p, nil)
		var told *pool.ServerError
		switch {
		case e != nil && failed != nil && errors.As(e, &told) && toldNotData(told.Response):
			continue
		case e != nil:
			err = first(err, located(sp, i, e))
			continue
		}
		_, rows[i], _ = wire.TagRows(tag)
	}
	var amiss *amissError
	var gone clientError
	switch {
	case errors.As(failed, &amiss) && err == nil: // they would have read it
		return nil, outOfCopy(h, amiss.typ)
	case amiss != nil: // and so are the Syncs that came before it, if no data did
		c := &h.ext.copy
		c.begun, c.answered = false, c.answered+c.syncs
	case failed != nil && (err == nil || errors.As(failed, &gone)): // else a server has failed by what came before that
		return nil, failed
	}
	return rows, err
}

// splitterOf splits the rows of a COPY of a plan's table. A list of FORCE_NULL that is * names all columns.
func splitterOf(db *shardmap.DB, p *router.Plan, c *sqlparse.CopyInfo, mark copydata.Mark) *copydata.Splitter {
	forced := func(option, key string) bool {
		return slices.Contains(c.Lists[option], key) || slices.Contains(c.Lists[option], "*")
	}
	var keys []copydata.Key
	held := router.HeldKeys(p.Template)
	for i, at := range p.Key {
		name := p.Target.Keys[i]
		k := copydata.Key{Column: name, At: at, ForceNull: forced("force_null", name), ForceNotNull: forced("force_not_null", name)}
		if held != nil {
			k.Held = held[i]
		}
		keys = append(keys, k)
	}
	var places *shardmap.PlacementInfo // of a reference table: none
	if p.Target.Group != nil {
		places = db.Placement(p.Target.Group)
	}
	format := copydata.FormatOf(c.Options)
	format.Mark = mark
	return copydata.New(format, places, keys, p.Shards)
}
