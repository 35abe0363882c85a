package exec

import (
	"errors"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router"
)

// answer is a participant's answer, whose notices and parameters reach the client.
func (h *Handler) answer(p *participant) pool.Answer {
	if h.hearing == nil {
		h.hearing = h.said
	}
	return pool.Answer{Server: p.Server, Hear: h.hearing}
}

// said passes on what a server says beside its answer.
func (h *Handler) said(m wire.Message) error {
	if m.Type == 'S' && !h.tell(m.Body()) || m.Type == 'N' && h.signalled(m.Body()) {
		return nil
	}
	if err := h.client.Write(m.Raw); err != nil {
		return &wire.PeerError{Err: err}
	}
	return nil
}

// saidAnyway is said for what is read to its end even if the client is gone.
func (h *Handler) saidAnyway(m wire.Message) error {
	if m.Type == 'S' && h.tx.unseen.base != nil {
		return nil // what a server was told for the transaction's length ends; outcome says what the session has
	}
	_ = h.said(m) // the client's loss shows when it is next written to
	return nil
}

// read reads a participant's answer to its end: see pool.Answer.Read.
func (h *Handler) read(p *participant, each func(m wire.Message) error) (tag string, err error) {
	a := h.answer(p)
	err = a.Read(each)
	return a.Tag, h.unread(p, &a, err)
}

// unread tells what keeps an answer from being read from what is in it.
func (h *Handler) unread(p *participant, a *pool.Answer, err error) error {
	switch {
	case err == nil || a.Ended:
		return err
	case a.Failed != nil && h.fatal(p, a.Failed.Response): // nothing follows
		return a.Failed
	}
	return h.lostOrGone(p, err)
}

// exec runs a simple query on a participant, and returns its last command tag; what is said beside it reaches the client.
func (h *Handler) exec(p *participant, sql string) (tag string, err error) {
	if err := h.ready(p); err != nil {
		return "", err
	}
	p.Server.SendQuery(sql)
	if err := p.Server.Flush(); err != nil {
		return "", h.lost(p, err)
	}
	return h.read(p, nil)
}

// unnumbered is an error about a text that is not the client's: places in it mean nothing to the client.
func unnumbered(err error) error {
	var se *pool.ServerError
	if errors.As(err, &se) {
		se.Response.Position = 0
	}
	return err
}

// inWhole is an error about what a shard was sent of a text: places in it become those of the whole. It is told once of each.
func inWhole(err error, shares *router.Shares, shard int) error {
	var se *pool.ServerError
	if shares != nil && errors.As(err, &se) && se.Response.Position > 0 {
		se.Response.Position = int32(shares.Place(shard, int(se.Response.Position)))
	}
	return err
}
