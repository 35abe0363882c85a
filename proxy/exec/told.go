package exec

import "github.com/pgmosaic/pgmosaic/proxy/wire"

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
	return h.told.Tell(string(name), string(value))
}

// sendParam writes a ParameterStatus to the client.
func (h *Handler) sendParam(name, value string) {
	h.client.SendFrame('S', []byte(name+"\x00"+value+"\x00"))
}

// unsay takes back what the client was told of settings since the transaction, or its last savepoint, began: it has failed.
func (h *Handler) unsay() {
	mark := h.tx.told
	if n := len(h.tx.saves); n > 0 {
		mark = h.tx.saves[n-1].told
	}
	h.told.Back(mark, h.sendParam)
}

// resay tells the client what a server that has joined its transaction has not.
func (h *Handler) resay(p *participant) {
	p.replayed = false
	h.told.Now(p.Server.Params, h.sendParam)
}
