package exec

import (
	"errors"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
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

// commits runs COMMIT and its kin. The client hears of it if it can, and is not asked.
func (h *Handler) commits(s *pool.Server, sql string) (tag string, err error) {
	s.SendQuery(sql)
	if err := s.Flush(); err != nil {
		s.Dirty = true
		return "", err
	}
	return h.committed(s)
}

func (h *Handler) committed(s *pool.Server) (tag string, err error) {
	a := pool.Answer{Server: s, Hear: h.saidAnyway}
	err = a.Read(nil)
	if err != nil && !a.Ended && a.Failed != nil && endedIdle(a.Failed.Response) {
		e := a.Failed.Response
		e.Severity, e.SeverityUnlocalized = "ERROR", "ERROR"
		if e.Detail == "" {
			e.Detail = "This came from shard " + s.Pool.Shard + " (node " + s.Pool.Node + ")."
		}
		return "", a.Failed
	}
	return a.Tag, err
}

// endedIdle says whether a server had ended before it read what it was sent, so that it has not done it: its timeouts for idle
// clients, and a standby's recovery, end it only then.
func endedIdle(e *wire.ErrorResponse) bool {
	switch e.Code {
	case pgsql.IdleInTransactionSessionTimeout, pgsql.IdleSessionTimeout, pgsql.SerializationFailure:
		return isFatal(e)
	}
	return false
}

// unnumbered is an error about a text that is not the client's: places in it mean nothing to the client.
func unnumbered(err error) error {
	var se *pool.ServerError
	if errors.As(err, &se) {
		se.Response.Position = 0
	}
	return err
}
