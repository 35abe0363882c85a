package exec

import (
	"slices"
	"strconv"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// relayNotice passes a notice on. A client knows itself and others by ids of ours, of which no server knows:
// where pg_terminate_backend or pg_cancel_backend warn that there is no such process, the client is ended or
// cancelled here, and the warning is dropped.
func (h *Handler) relayNotice(s *pool.Server) error {
	if !h.signals {
		return s.Forward(h.client)
	}
	m, err := s.Next()
	if err != nil {
		return err
	}
	return h.said(m)
}

// signalled does what a notice says that a server could not do.
func (h *Handler) signalled(body []byte) bool {
	if !h.signals || h.e.Signal == nil {
		return false
	}
	var n wire.NoticeResponse
	if err := n.Decode(body); err != nil || n.Code != pgsql.Warning {
		return false
	}
	for _, w := range strings.Fields(n.Message) {
		if pid, err := strconv.ParseUint(w, 10, 32); err == nil && h.e.Signal(uint32(pid), h.db, h.role, h.terminates) {
			return true
		}
	}
	return false
}

// signalling notes that a statement may signal other clients.
func (h *Handler) signalling(funcs []string) {
	h.signals = true
	h.terminates = slices.Contains(funcs, "pg_terminate_backend")
}
