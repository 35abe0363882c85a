package exec

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/router/sqlparse"
)

// copying is a COPY FROM STDIN amid a pipeline. What its client sends behind the Execute is for the COPY, as far as that reads: what comes before the
// data, a Sync apart, ends the session, and a Sync is passed over, unless the COPY has failed by itself before it got there.
type copying struct {
	executed bool // the last message was an Execute of one
	behind   byte // the message that had come behind that by then; 0 for none
	begun    bool // a server has asked for the data
	syncs    int  // of the client's that the server was sent meanwhile; of a COPY over shards, those that came before any data
	answered int  // of those: it had not read them when it failed
}

// takesData says whether a statement may be such a COPY. A text that only its server can read may be anything.
func takesData(s *sqlparse.Statement) bool {
	return s.Kind == sqlparse.Copy && s.Copy.From && s.Copy.Stdio || s.Syntax != nil
}

// takeCopy has the COPY run that was just executed, before anything is made of the messages behind it: it reads on from the client, and their bytes
// are not valid behind it.
func takeCopy(ctx context.Context, h *Handler) error {
	x := &h.ext
	c, p := &x.copy, x.cur
	c.executed, c.behind = false, x.behind.first()
	err := h.drain(ctx, false)
	switch {
	case c.syncs == 0:
	case err == nil:
		p.Server.Swallowed(c.syncs)
	case errors.Is(err, errRelayed) && !p.Server.Dirty:
		n, lost := unreadSyncs(h, p, c.syncs)
		if lost != nil {
			break // the client knows that its COPY has failed
		}
		x.cur, c.answered = nil, n
		if h.tx.Idle() {
			h.finish(p)
		}
	}
	return err
}

// asksForData tells the client to send the data of a COPY that goes to several servers, or to one of ours. Amid a pipeline a Sync that has come along with it is
// passed over, and nothing that comes reaches a server.
func asksForData(h *Handler, said []byte) error {
	h.client.SendFrame('G', said)
	if err := h.client.Flush(); err != nil {
		return clientError{err}
	}
	c := &h.ext.copy
	if !h.ext.executing {
		return nil
	}
	c.begun, c.behind = true, h.ext.behind.first()
	if c.behind == 'S' {
		c.syncs++
	}
	return nil
}

// unreadSyncs says how many of the Syncs that a server was sent amid a COPY, which has failed, it had not read by then: those it answers. All that it
// says is read, and its pipeline has ended.
func unreadSyncs(h *Handler, p *participant, syncs int) (unread int, err error) {
	p.Server.SendSync()
	p.Server.SendClose('S', judge) // there is none, and that is no error
	p.Server.SendSync()
	if err := p.Server.Flush(); err != nil {
		return 0, h.lost(p, err)
	}
	ready := 0
	for known := false; !known; ready++ {
		if _, err := h.read(p, func(m wire.Message) error { known = known || m.Type == '3'; return nil }); err != nil {
			p.Lose()
			return 0, err
		}
	}
	unread = ready - 2
	p.Server.Swallowed(syncs - unread)
	return unread, nil
}

// settleSyncs is for the Syncs that a server was sent amid a COPY of a simple query, which has ended. One that has failed by itself answers those
// that it had not read by then, and so the client is answered as often behind the query.
func settleSyncs(h *Handler, p *participant, r *relayed) error {
	if r.syncs == 0 || !r.failed {
		p.Server.Swallowed(r.syncs)
		return nil
	}
	n, err := unreadSyncs(h, p, r.syncs)
	h.ext.copy.answered += n
	return err
}

// takeData passes the data of a COPY amid a pipeline on.
func takeData(h *Handler, p *participant) (end copyEnd, code string, err error) {
	c := &h.ext.copy
	c.begun = true
	switch c.behind {
	case 0:
	case 'S':
		c.syncs++
		p.Server.SendSync()
		if err := p.Server.Flush(); err != nil {
			return 0, "", h.lost(p, err)
		}
	default:
		c.begun = false // what has come is read when the COPY is over
		return amiss(h, p, c.behind)
	}
	return h.copyIn(p, &c.syncs)
}

// passOver takes a Flush or Sync amid a COPY's data.
func passOver(h *Handler, p *participant, typ byte, syncs *int) error {
	if typ == 'S' && syncs != nil {
		*syncs++
		p.Server.SendSync()
	}
	return h.client.Skip()
}

// readsOn gives up the messages that the client has sent: more is read from it within the request.
func readsOn(h *Handler) {
	h.request.KeepText()
	h.request.Binds = 0 // the parameters are not there any more
	h.client.Release()
}

// outOfCopy ends a session whose client has sent what no COPY FROM STDIN takes: like PostgreSQL, which does not know where the next message begins.
func outOfCopy(h *Handler, typ byte) error {
	unexpected := &pgsql.Error{Code: pgsql.ProtocolViolation, Message: fmt.Sprintf("unexpected message type 0x%02X during COPY from stdin", typ)}
	h.client.Send(wire.ErrorFor("ERROR", unexpected))
	h.client.Send(wire.ErrorFor("FATAL", &pgsql.Error{Code: pgsql.ProtocolViolation, Message: "terminating connection because protocol synchronization was lost"}))
	_ = h.client.Flush() // the session ends anyway
	return clientError{unexpected}
}

// notData is what a server is told in place of what no COPY takes.
const notData = "pgmosaic: what has come is no data"

// toldNotData says whether a server's COPY has failed because it was told so, and not by itself.
func toldNotData(e *wire.ErrorResponse) bool {
	return e.Code == pgsql.QueryCanceled && strings.Contains(e.Message, notData)
}

// amissError is a message that no COPY FROM STDIN takes: see amiss.
type amissError struct{ typ byte }

func (e *amissError) Error() string { return notData }

// amiss is for a message that no COPY FROM STDIN takes. A COPY that has failed by itself does not read it, and it is a request like any other; one that
// would read it ends the session. Which of the two it is only the server knows: it is told to fail, and says why it has.
func amiss(h *Handler, p *participant, typ byte) (end copyEnd, code string, err error) {
	s := p.Server
	s.SendFrame('f', append([]byte(notData), 0))
	if err := s.Flush(); err != nil {
		return 0, "", h.lost(p, err)
	}
	for {
		says, _, err := s.Peek()
		if err != nil {
			return 0, "", h.lost(p, err)
		}
		switch says {
		case 'E':
			m, err := s.Next()
			if err != nil {
				return 0, "", h.lost(p, err)
			}
			if toldNotData(wire.ParseError(m.Body())) {
				s.Dirty = true
				return 0, "", outOfCopy(h, typ)
			}
			if code, err = passError(h, p, m); err != nil {
				return 0, code, h.lostOrGone(p, err)
			}
			return copyRefused, code, nil
		case 'S':
			err = h.relayParam(s)
		case 'N', 'A':
			err = s.Forward(h.client)
		default:
			err = wire.ErrMalformed
		}
		if err != nil {
			return 0, "", h.lostOrGone(p, err)
		}
	}
}

// takeEnd gathers the message by which the client ends a COPY.
func takeEnd(h *Handler, p *participant) error {
	if err := mayEnd(h); err != nil {
		p.Lose()
		return err
	}
	if err := h.client.Pieces(func(b []byte) error { p.Server.Gather(b); return nil }); err != nil {
		return h.copyFailed(p, err)
	}
	return nil
}

// mayEnd ends a session whose client sends a longer message than PostgreSQL reads amid a COPY's data, where that is none.
func mayEnd(h *Handler) error {
	typ, n, err := h.client.Peek()
	switch {
	case err != nil:
		return clientError{err}
	case n-1 <= longestShort:
		return nil
	}
	long := &pgsql.Error{Code: pgsql.ProtocolViolation, Message: fmt.Sprintf("invalid message length: %d bytes of type 0x%02X during COPY from stdin", n-1, typ)}
	h.client.Send(wire.ErrorFor("FATAL", long))
	_ = h.client.Flush() // the session ends anyway
	return clientError{long}
}

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
// still sends. Amid a pipeline the server gets the client's Syncs, too, which are counted.
func (h *Handler) copyIn(p *participant, syncs *int) (end copyEnd, code string, err error) {
	if err := h.client.Flush(); err != nil {
		p.Lose()
		return 0, "", clientError{err}
	}
	readsOn(h)
	h.client.Leave()
	refused := false
	said := func() error {
		typ, _, err := p.Server.Peek()
		if err != nil {
			return err
		}
		switch typ {
		case 'E':
			code, err = h.relayError(p)
			refused = true
		case 'S':
			err = h.relayParam(p.Server)
		case 'N', 'A':
			err = p.Server.Forward(h.client)
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
		if err := p.Server.FlushWatching(said); err != nil {
			return h.lostOrGone(p, err)
		}
		return nil
	}
	for {
		typ, heard, err := h.awaitClient(p)
		if heard {
			if p.Server.Quiet() {
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
			p.Lose()
			return 0, code, clientError{err}
		}
		switch typ {
		case 'd':
			var lost error
			err = h.client.Pieces(func(b []byte) error {
				if lost != nil {
					return nil // the message is read to its end all the same: the client's next one begins behind it
				}
				if p.Server.Gather(b); p.Server.Out() >= copyBurst {
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
			if err := takeEnd(h, p); err != nil {
				return 0, code, err
			}
			if err := p.Server.Flush(); err != nil { // small, and the server reads on whatever it says
				return 0, code, h.lost(p, err)
			}
			return copySent, "", nil
		case 'H', 'S': // PostgreSQL ignores them here
			if err := passOver(h, p, typ, syncs); err != nil {
				return 0, code, h.copyFailed(p, err)
			}
		default:
			return amiss(h, p, typ)
		}
		if p.Server.Out() > 0 && (refused || h.client.Pending() == 0) { // the client pauses: what it sent is on its way
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
	panics.Point("copy in")
	if p.Server.Pending() > 0 { // read along with what was said before
		return 0, true, nil
	}
	if !h.client.Quiet() { // it is not silent: no need to watch
		typ, _, err = h.client.Peek()
		return typ, false, err
	}
	var spoke atomic.Bool
	nc := h.client.NetConn()
	stop := p.Server.Watch(func() {
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
	p.Lose()
	return clientError{err}
}
