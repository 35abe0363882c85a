package exec

import (
	"maps"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// tell notes a ParameterStatus that is on its way to the client.
func (h *Handler) tell(body []byte) {
	name, rest, err := wire.CString(body)
	if err != nil {
		return
	}
	value, _, err := wire.CString(rest)
	if err != nil {
		return
	}
	if h.told == nil {
		h.told = map[string]string{}
	}
	h.told[string(name)] = string(value)
}

// retell takes back what the client was told since old was kept: a transaction, or a part of it, was rolled
// back, and its settings with it.
func (h *Handler) retell(old map[string]string) {
	if len(h.told) == 0 || maps.Equal(h.told, old) {
		return
	}
	for name, value := range h.told {
		was, ok := old[name]
		if !ok {
			was, ok = h.first[name]
		}
		if ok && was != value {
			h.client.SendFrame('S', []byte(name+"\x00"+was+"\x00"))
		}
	}
	h.told = maps.Clone(old)
}

// telling runs a simple query on a participant, and returns its last command tag; what it reports reaches the client.
func (h *Handler) telling(p *participant, sql string) (tag string, err error) {
	if err := h.ready(p); err != nil {
		return "", err
	}
	p.srv.SendQuery(sql)
	if err := p.srv.Flush(); err != nil {
		return "", h.lost(p, err)
	}
	var failed error
	for {
		typ, _, err := p.srv.Peek()
		if err != nil {
			return "", h.lost(p, err)
		}
		switch typ {
		case 'S':
			err = h.relayParam(p.srv)
		case 'N':
			err = h.relayNotice(p.srv)
		default:
			var m wire.Message
			if m, err = p.srv.Next(); err != nil {
				break
			}
			switch {
			case m.Type == 'C':
				tag = string(m.Body()[:len(m.Body())-1])
			case m.Type == 'E' && failed == nil:
				failed = &pool.ServerError{Response: wire.ParseError(m.Body())}
			case m.Type == 'Z':
				p.srv.TxStatus = m.Body()[0]
				return tag, failed
			}
		}
		if err != nil {
			return "", h.lostOrGone(p, err)
		}
	}
}
