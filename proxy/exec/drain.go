package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pgmosaic/pgmosaic/proxy/exec/pipeline"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// drain sends what was gathered for the present server and passes the answers on. With end set the
// pipeline is closed: by Sync, and in autocommit the server is given back.
func (h *Handler) drain(ctx context.Context, end bool) error {
	x := &h.ext
	x.locals = 0
	p := x.cur
	if p == nil {
		tellOwn(h)
		return nil
	}
	if !end && len(x.ops) == 0 {
		return nil
	}
	if end {
		p.Server.SendSync()
	} else {
		p.Server.SendFlush()
	}
	sending, err := p.Server.FlushAside()
	if err != nil {
		return h.lost(p, err)
	}
	var code string
	if err = h.prologue(p); err == nil {
		panics.Point("answers")
		code, err = h.answers(p)
	}
	x.changes = x.changes[:0]
	if e := sending.Wait(err != nil && !errors.Is(err, errRelayed)); e != nil {
		p.Lose()
		err = first(err, h.lost(p, e))
	}
	if p.outdates(code) {
		h.staleSchema(ctx)
	}
	if err != nil {
		brokenOff(h, p, end && answered(p, err))
		return err
	}
	if !end {
		return nil
	}
	_, err = h.read(p, func(m wire.Message) error {
		if err := h.client.Write(m.Raw); err != nil {
			return &wire.PeerError{Err: err}
		}
		return nil
	})
	x.cur = nil
	var se *pool.ServerError
	if errors.As(err, &se) { // a deferred constraint at the implicit commit
		h.client.Send(se.Response)
		x.undone(p.Server)
		doubtPin(h, p)
		if h.tx.Idle() {
			h.finish(p)
		}
		return errRelayed
	}
	if err == nil {
		err = h.configured(p, x.post)
	}
	if err != nil {
		if h.tx.Idle() { // nobody else gives it back
			h.finish(p)
		}
		return err
	}
	if h.tx.Idle() {
		h.count.Transactions.Add(1)
		h.endedAlone(p, nil)
		if p.Server.TxStatus != 'I' {
			p.Lose()
		}
		h.ext.closePortals()
		h.finish(p)
	}
	h.afterwards(ctx, p, x.post)
	return nil
}

// tellOwn tells the client what is gathered for it where no server is to answer anything.
func tellOwn(h *Handler) {
	x := &h.ext
	for _, o := range x.ops {
		_ = h.client.Write(o.local)
	}
	x.ops, x.changes = x.ops[:0], x.changes[:0]
}

// brokenOff ends what a server was sent of a pipeline that has failed. closed says that the Sync is on its way already, and to be answered.
func brokenOff(h *Handler, p *participant, closed bool) {
	doubtPin(h, p)
	p.suspends = true // a Close of that portal may have been skipped
	if closed {
		restOf(p)
		h.ext.cur = nil
		if h.tx.Idle() {
			h.finish(p)
		}
	}
}

// answered says whether an error is of what a server has said: the rest of its answer is still to come.
func answered(p *participant, err error) bool {
	var se *pool.ServerError
	return errors.Is(err, errRelayed) || isAgain(err) || !p.Server.Dirty && (errors.Is(err, errPlanChanged) || errors.As(err, &se))
}

// restOf reads what a server still says of a pipeline that was closed. A loss marks it.
func restOf(p *participant) {
	if !p.Server.Dirty {
		_, _ = p.Server.ReadTag()
	}
}

// entails says whether a statement's end is more to the session than what set_config has set in it.
func entails(t *router.Template) bool {
	return t.DDL || t.Temp || t.Stmt.Kind == sqlparse.Cursor || t.Stmt.Closes
}

// renewed is what was executed in a pipeline, without what is set anew by now: a pipeline may set the same time and again, and its end counts.
func renewed(list []post, by []setting) []post {
	anew := func(c setting) bool {
		return slices.ContainsFunc(by, func(o setting) bool { return o.name == c.name && o.local == c.local && o.reset == c.reset })
	}
	kept := list[:0]
	for _, p := range list {
		if slices.ContainsFunc(p.configs, anew) {
			p.configs = slices.DeleteFunc(slices.Clone(p.configs), anew) // the portal has them, too
			if len(p.configs) == 0 && !entails(p.tmpl) {
				continue
			}
		}
		kept = append(kept, p)
	}
	clear(list[len(kept):])
	return kept
}

// configured takes over what the statements of a pipeline have set on their server.
func (h *Handler) configured(p *participant, list []post) error {
	if err := reassert(h, p); err != nil {
		return err
	}
	for _, t := range list {
		if err := h.configure(p, t.configs); err != nil {
			return err
		}
		h.closed(p, t.tmpl)
	}
	return nil
}

// afterwards does what statements of a pipeline entail, when they are done.
func (h *Handler) afterwards(ctx context.Context, p *participant, list []post) {
	for _, t := range list {
		h.after(ctx, t.tmpl, p.shard)
	}
	h.ext.post = h.ext.post[:0]
}

// stray is the fault of a server that says what nobody has asked it.
func stray(p *participant, typ byte, expected pipeline.Answer) error {
	return &pool.ProtocolError{Shard: p.Server.Pool.Shard, Node: p.Server.Pool.Node, Cause: fmt.Errorf("%w: a message of type %q, where something that is %s was expected", wire.ErrMalformed, typ, expected)}
}

// answers passes on what the queue of expected answers says.
func (h *Handler) answers(p *participant) (code string, err error) {
	x := &h.ext
	s := p.Server
	done := x.ops
	x.ops = x.ops[:0]
	for i := 0; i < len(done); i++ {
		o := &done[i]
		if o.kind == pipeline.Own {
			if err := h.client.Write(o.local); err != nil {
				return "", clientError{err}
			}
			continue
		}
		for answered := false; !answered; {
			typ, _, err := s.Peek()
			if err != nil {
				return "", h.lostOrGone(p, err)
			}
			belongs, last := o.kind.Takes(typ)
			if !belongs {
				return "", h.lost(p, stray(p, typ, o.kind))
			}
			answered = last
			switch typ {
			case 't': // what the proxy has asked for
				if err := h.compare(p, o); err != nil {
					x.skipped(s, done, i)
					return "", err
				}
				continue
			case 'C':
				if o.portal != nil {
					o.portal.state.On(pipeline.Runs)
				}
				if t := o.tmpl; t != nil && (entails(t) || t.Stmt.Configs != nil) {
					x.post = append(renewed(x.post, o.configs), post{t, o.configs})
				}
			case 'E':
				x.skipped(s, done, i)
				for _, rest := range done[i:] { // the statement that it is of
					if rest.tmpl != nil {
						h.request.About(bytesOf(rest.tmpl.Stmt.Text))
						break
					}
				}
				code, err := h.relayError(p)
				if isAgain(err) {
					return "", err
				}
				if err != nil {
					return "", h.lostOrGone(p, err)
				}
				return code, errRelayed
			case 'S':
				if err := h.relayParam(s); err != nil {
					return "", h.lost(p, err)
				}
				continue
			case 'N':
				if err := h.relayNotice(s); err != nil {
					return "", h.lostOrGone(p, err)
				}
				continue
			case 'G':
				if err := s.Forward(h.client); err != nil {
					return "", h.lostOrGone(p, err)
				}
				switch end, code, err := takeData(h, p); {
				case err != nil:
					return "", err
				case end == copyRefused:
					x.skipped(s, done, i)
					return code, errRelayed
				}
				s.SendFlush()
				if err := s.Flush(); err != nil {
					return "", h.lost(p, err)
				}
				continue
			}
			switch {
			case o.kind == pipeline.Hidden && last:
				err = s.Skip()
			case typ == 'T':
				err = h.relayDescription(p)
			case typ == 'D':
				if o.kind == pipeline.Executed {
					p.deep = o.deep
				}
				err = h.relayRows(p)
			default:
				err = s.Forward(h.client)
			}
			if err != nil {
				return "", h.lostOrGone(p, err)
			}
		}
	}
	return "", nil
}
