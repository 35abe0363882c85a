package exec

import (
	"maps"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// tell notes a ParameterStatus that is on its way to the client. news is false for what the client knows: a server reports
// what is new to it.
func (h *Handler) tell(body []byte) (news bool) {
	name, rest, err := wire.CString(body)
	if err != nil {
		return true
	}
	value, _, err := wire.CString(rest)
	if err != nil {
		return true
	}
	was, known := h.told[string(name)]
	if !known {
		was, known = h.first[string(name)]
	}
	if known && was == string(value) {
		return false
	}
	if h.told == nil {
		h.told = map[string]string{}
	}
	h.told[string(name)], h.formats = string(value), ""
	return true
}

// retellOne tells the client the value that a parameter of its startup packet has again. A server has told it its own.
func (h *Handler) retellOne(name string) {
	if _, ok := h.login.Get(name); !ok {
		return
	}
	for n, value := range h.told {
		if was, ok := h.first[n]; ok && strings.EqualFold(n, name) && was != value {
			h.told[n], h.formats = was, ""
			h.client.SendFrame('S', []byte(n+"\x00"+was+"\x00"))
		}
	}
}

// unsay takes back what the client was told of settings since the transaction, or its last savepoint, began: it has failed.
func (h *Handler) unsay() {
	old := h.tx.told
	if n := len(h.tx.saves); n > 0 {
		old = h.tx.saves[n-1].told
	}
	h.retell(old)
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
	h.told, h.formats = maps.Clone(old), ""
}

// resay tells the client what a server that has joined its transaction has not: it was led through settings that the client had
// been told of by another, and reports what is new to itself.
func (h *Handler) resay(p *participant) {
	p.replayed = false
	for name, value := range h.told {
		if now, ok := p.srv.Params[name]; ok && now != value {
			h.told[name], h.formats = now, ""
			h.client.SendFrame('S', []byte(name+"\x00"+now+"\x00"))
		}
	}
}

// formatsNow is by what constants in a text are read, as the client was told last. A statement that was prepared by others is
// another statement.
func (h *Handler) formatsNow() string {
	if h.formats != "" {
		return h.formats
	}
	for _, n := range []string{"DateStyle", "IntervalStyle", "TimeZone"} {
		value, ok := h.told[n]
		if !ok {
			value = h.first[n]
		}
		h.formats += value + "\x01"
	}
	return h.formats
}
