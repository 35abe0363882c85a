package exec

import (
	"errors"
	"io"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/exec/branch"
	"github.com/pgmosaic/pgmosaic/proxy/exec/lease"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// relayed is what came back while a server's answer was passed on.
type relayed struct {
	failed bool // an ErrorResponse was passed on
	code   string
	ready  bool // ReadyForQuery came
	syncs  int  // of the client's, which the server was sent amid a COPY
}

// relay passes a server's answer on to the client up to ReadyForQuery, which it keeps to itself.
func (h *Handler) relay(p *participant) (r relayed, err error) {
	panics.Point("executor")
	s := p.Server
	for {
		typ, _, err := s.Peek()
		if err != nil {
			return r, h.lostOrGone(p, err)
		}
		switch typ {
		case 'Z':
			m, err := s.Next()
			if err != nil {
				return r, h.lost(p, err)
			}
			s.TxStatus = m.Body()[0]
			r.ready = true
			if err := settleSyncs(h, p, &r); err != nil {
				return r, err
			}
			return r, reassert(h, p)
		case 'E':
			if r.code, err = h.relayError(p); isAgain(err) {
				if !s.Dirty {
					if _, err := s.ReadTag(); err != nil {
						s.Dirty = true
					}
				}
				return r, err
			}
			if err != nil {
				return r, h.lostOrGone(p, err)
			}
			r.failed = true
			if s.Dirty { // FATAL: nothing follows
				return r, errRelayed
			}
		case 'G':
			if err := s.Forward(h.client); err != nil {
				return r, h.lostOrGone(p, err)
			}
			switch end, code, err := h.copyIn(p, &r.syncs); {
			case err != nil:
				return r, err
			case end == copyRefused:
				r.failed, r.code = true, code
			}
		case 'N':
			if err := h.relayNotice(s); err != nil {
				return r, h.lostOrGone(p, err)
			}
		case 'T':
			if err := h.relayDescription(p); err != nil {
				return r, h.lostOrGone(p, err)
			}
		case 'D':
			if err := h.relayRows(p); err != nil {
				return r, h.lostOrGone(p, err)
			}
		case 'd':
			panics.Point("copy out")
			if err := s.ForwardRun(h.client); err != nil {
				return r, h.lostOrGone(p, err)
			}
		case 'S':
			if err := h.relayParam(s); err != nil {
				return r, h.lost(p, err)
			}
		case 'C':
			if err := h.relayTag(s); err != nil {
				return r, h.lostOrGone(p, err)
			}
		default:
			if err := s.Forward(h.client); err != nil {
				return r, h.lostOrGone(p, err)
			}
		}
	}
}

// lostOrGone tells the client's failure from the server's.
func (h *Handler) lostOrGone(p *participant, err error) error {
	var torn *wire.TornError
	if errors.As(err, &torn) {
		p.Lose()
		return clientError{err}
	}
	var pe *wire.PeerError
	if errors.As(err, &pe) {
		p.Lose()
		p.Server.Running(true) // nobody will read the rest: it is told to stop
		return clientError{err}
	}
	return h.lost(p, err)
}

// relayError passes an ErrorResponse on. A server that says FATAL goes, but the session stays. An againError means that
// nothing was passed on.
func (h *Handler) relayError(p *participant) (code string, err error) {
	m, err := p.Server.Next()
	if err != nil {
		return "", err
	}
	return passError(h, p, m)
}

// passError is relayError for one that was read.
func passError(h *Handler, p *participant, m wire.Message) (code string, err error) {
	s, e := p.Server, wire.ParseError(m.Body())
	if h.runsAgain(p, e) {
		s.Dirty = s.Dirty || branch.Fatal(e)
		return e.Code, &againError{&pool.ServerError{Response: e}}
	}
	h.request.Failed(e.Code, e.Message)
	switch {
	case e.Routine == revalidates, e.Code == pgsql.InternalError && strings.HasPrefix(e.Message, "cache lookup failed"):
		s.DropSince(0) // else whoever prepares them again gets the same answer
		p.outdated = true
	case e.Code == pgsql.InvalidSQLStatementName && strings.Contains(e.Message, "pgmosaic_"): // a function has deallocated it
		s.DropSince(0)
	}
	if e.Code == lease.ErrCancelled.Code && h.held.Ending() {
		s.Dirty = true
		return e.Code, &wire.PeerError{Err: io.EOF}
	}
	if h.held.Because(e) {
		h.client.Send(e)
		return e.Code, nil
	}
	if h.signals && e.Code == pgsql.AdminShutdown { // it has ended its own server, as it would have ended its session
		s.Dirty = true
		h.client.Send(e)
		if err := h.client.Flush(); err != nil {
			return e.Code, &wire.PeerError{Err: err}
		}
		return e.Code, &wire.PeerError{Err: io.EOF}
	}
	if h.fatal(p, e) {
		h.client.Send(e)
		return e.Code, nil
	}
	return e.Code, h.client.Write(m.Raw)
}

// fatal says whether a server goes with an error, behind which nothing follows. Then the error becomes what the client is told,
// whose session stays.
func (h *Handler) fatal(p *participant, e *wire.ErrorResponse) bool {
	if !branch.Fatal(e) {
		return false
	}
	pool, goes := p.Server.Pool, h.nodeGoes(p, e) // which asks for the severity that the server gave it
	p.Lose()
	e.Severity, e.SeverityUnlocalized = "ERROR", "ERROR"
	if goes {
		pool.Suspect()
		e.Code, e.Detail, e.Hint = pgsql.ConnectionFailure, "Node "+pool.Node+" of shard "+pool.Shard+" went away.", lostHint
	}
	if e.Detail == "" {
		e.Detail = "This came from shard " + pool.Shard + " (node " + pool.Node + ")."
	}
	return true
}

// relayTag passes a CommandComplete on, unless it is kept back.
func (h *Handler) relayTag(s *pool.Server) error {
	if !h.client.HoldsTag() {
		return s.Forward(h.client)
	}
	m, err := s.Next()
	if err == nil {
		h.client.SendTag(string(m.Body()[:len(m.Body())-1]))
	}
	return err
}

func (h *Handler) relayParam(s *pool.Server) error {
	m, err := s.Next()
	if err != nil {
		return err
	}
	s.NoteParam(m.Body())
	return h.said(m)
}
