package exec

import (
	"encoding/binary"

	"github.com/pgmosaic/pgmosaic/proxy/exec/pipeline"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// A client's unnamed portal that may be run in pieces. PostgreSQL destroys its unnamed portal at each simple query and each Bind of another, and the proxy has many
// of its own to send between two pieces: what SET sets, savepoints, questions about what code has set, copies. So such a portal has a name on its server.
// As the client's it goes by the next Bind of the unnamed one, by a simple query, by Close and with its transaction.

// suspendedPortal is that name.
const suspendedPortal = "pgmosaic suspended"

// behind is what stands behind the message of a client's batch that is handled.
type behind struct {
	msgs []wire.Message
	sync bool // then comes Sync
}

// first is the type of the message that comes next; 0 if none has come.
func (b *behind) first() byte {
	switch {
	case len(b.msgs) > 0:
		return b.msgs[0].Type
	case b.sync:
		return 'S'
	}
	return 0
}

// outlives says whether an unnamed portal that is bound now may be run, again or at all, behind messages that are not its own.
func outlives(h *Handler) bool {
	next := &h.ext.behind
	for i, m := range next.msgs {
		switch m.Type {
		case 'D':
		case 'E':
			if b := m.Body(); len(b) != 5 || b[0] != 0 || binary.BigEndian.Uint32(b[1:]) > 0 {
				return i < len(next.msgs)-1 || !next.sync || !h.tx.Idle()
			}
			return false // it runs to its end
		default:
			return true
		}
	}
	return !next.sync || !h.tx.Idle()
}

// sendBind gathers the Bind of a portal. m is the client's, without bytes where it is another one by now.
func (pt *portal) sendBind(h *Handler, p *participant, name string, b *wire.BindParts, m wire.Message) {
	if pt.name == "" {
		if p.suspends { // the one before goes
			p.Server.SendClose('P', suspendedPortal)
			h.ext.ops = append(h.ext.ops, op{kind: pipeline.Hidden})
			p.suspends = false
		}
		if pt.aside = outlives(h); pt.aside {
			p.suspends = true
			p.Server.SendClose('P', "") // that of BEGIN, or of one that has run to its end
			h.ext.ops = append(h.ext.ops, op{kind: pipeline.Hidden})
			p.Server.SendBind(suspendedPortal, name, b.Rest)
			return
		}
	}
	if name == pt.stmt.name && m.Raw != nil {
		p.Server.Gather(m.Raw)
	} else {
		p.Server.SendBind(string(b.Portal), name, b.Rest)
	}
}

// send gathers the client's Execute, Describe or Close of a portal.
func (pt *portal) send(m wire.Message) {
	s := pt.part.Server
	switch {
	case !pt.aside:
		s.Gather(m.Raw)
	case m.Type == 'E':
		body := m.Body() // an empty name and how many rows
		s.SendFrame('E', append(append([]byte(suspendedPortal), 0), body[1:]...))
	case m.Type == 'D':
		s.SendDescribe('P', suspendedPortal)
	default:
		s.SendClose('P', suspendedPortal)
	}
}

// dropSuspended closes the unnamed portal for a simple query, which would have. The server is told with what comes next.
func dropSuspended(h *Handler) {
	pt := h.ext.anonymous
	if pt == nil || !pt.aside || pt.state == pipeline.Dead || !pt.part.suspends || h.tx.Idle() || h.tx.Failed() || pt.part.Server.Dirty {
		return
	}
	pt.part.suspends = false
	pt.part.Closes(suspendedPortal)
}
