package exec

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// copyEnd is how a COPY FROM STDIN of one server ended.
type copyEnd uint8

const (
	copySent    copyEnd = iota // the client sent CopyDone or CopyFail, and the server has it
	copyRefused                // the server reported an error first; the client has been told
)

// copyBurst is how much of the client's data goes to a server in one write.
const copyBurst = 64 << 10

// copyIn passes the client's COPY data on until it ends. What the server says meanwhile reaches the client at
// once: an error ends the COPY there and then, as PostgreSQL would, and the session discards what the client
// still sends.
func (h *Handler) copyIn(p *participant) (end copyEnd, code string, err error) {
	if err := h.client.Flush(); err != nil {
		p.srv.Dirty = true
		return 0, "", clientError{err}
	}
	h.request.KeepText()
	h.client.Release()
	h.client.Leave()
	refused := false
	said := func() error {
		typ, _, err := p.srv.Peek()
		if err != nil {
			return err
		}
		switch typ {
		case 'E':
			code, err = h.relayError(p)
			refused = true
		case 'S':
			err = h.relayParam(p.srv)
		case 'N', 'A':
			err = p.srv.Forward(h.client)
		default:
			err = wire.ErrMalformed
		}
		if err != nil {
			return err
		}
		if err := h.client.Flush(); err != nil {
			return &wire.PeerError{Err: err}
		}
		if refused {
			return wire.ErrEnough
		}
		return nil
	}
	flush := func() error { // what has begun is finished, even if the server wants no more of it
		if err := p.srv.FlushWatching(said); err != nil {
			return h.lostOrGone(p, err)
		}
		return nil
	}
	for {
		typ, heard, err := h.awaitClient(p)
		if heard {
			if p.srv.Quiet() {
				continue
			}
			if err := said(); err != nil && !errors.Is(err, wire.ErrEnough) {
				return 0, code, h.lostOrGone(p, err)
			}
			if refused {
				return copyRefused, code, nil
			}
			continue
		}
		if err != nil {
			p.srv.Dirty = true
			return 0, code, clientError{err}
		}
		switch typ {
		case 'd':
			var lost error
			err = h.client.Pieces(func(b []byte) error {
				if lost != nil {
					return nil // the message is read to its end all the same: the client's next one begins behind it
				}
				if p.srv.Gather(b); p.srv.Out() >= copyBurst {
					lost = flush()
				}
				return nil
			})
			if lost != nil {
				return 0, code, lost
			}
			if err != nil {
				return 0, code, h.copyFailed(p, err)
			}
		case 'c', 'f':
			if err := h.client.Pieces(func(b []byte) error { p.srv.Gather(b); return nil }); err != nil {
				return 0, code, h.copyFailed(p, err)
			}
			if err := p.srv.Flush(); err != nil { // small, and the server reads on whatever it says
				return 0, code, h.lost(p, err)
			}
			return copySent, "", nil
		case 'H', 'S': // PostgreSQL ignores them here
			if err := h.client.Skip(); err != nil {
				return 0, code, h.copyFailed(p, err)
			}
		default:
			p.srv.Dirty = true
			return 0, code, clientError{&pgsql.Error{Code: pgsql.ProtocolViolation, Message: "unexpected message type during COPY from stdin"}}
		}
		if p.srv.Out() > 0 && (refused || h.client.Pending() == 0) { // the client pauses: what it sent is on its way
			if err := flush(); err != nil {
				return 0, code, err
			}
		}
		if refused {
			return copyRefused, code, nil
		}
	}
}

// awaitClient waits for the client's next message. While the client is silent the server may speak: then heard is
// true, and nothing was read.
func (h *Handler) awaitClient(p *participant) (typ byte, heard bool, err error) {
	if p.srv.Pending() > 0 { // read along with what was said before
		return 0, true, nil
	}
	if !h.client.Quiet() { // it is not silent: no need to watch
		typ, _, err = h.client.Peek()
		return typ, false, err
	}
	var spoke atomic.Bool
	nc := h.client.NetConn()
	stop := p.srv.Watch(func() {
		spoke.Store(true)
		_ = nc.SetReadDeadline(time.Unix(1, 0)) // ends the wait
	})
	typ, _, err = h.client.Peek()
	stop()
	if !spoke.Load() {
		return typ, false, err
	}
	if h.held.Ending() { // the session is being ended: its deadline stays
		return typ, false, err
	}
	_ = nc.SetReadDeadline(time.Time{})
	return typ, wire.IsTimeout(err), err
}

// copyFailed tells a client that is gone from a server that is lost: the latter is a named error already.
func (h *Handler) copyFailed(p *participant, err error) error {
	if _, ok := err.(interface{ SQLState() string }); ok { //nolint:errorlint // the outermost is meant
		return err
	}
	p.srv.Dirty = true
	return clientError{err}
}
