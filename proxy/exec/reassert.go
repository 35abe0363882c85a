package exec

import (
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// reassert gives a setting of the startup packet its value back that a function has RESET, or set to DEFAULT, in a transaction: there
// PostgreSQL goes back to what the packet said, of which a shared server knows nothing. tidy sees to it between transactions; in one, what follows is read by the
// setting at once, where it is one that servers report. It lasts as long as the transaction: then tidy looks.
func reassert(h *Handler, p *participant) error {
	if h.tx.Idle() || p.Server.TxStatus != 'T' || !p.Server.IsSuspect() {
		return nil
	}
	for name, told := range h.told.Since() {
		value, ok := h.login.Get(strings.ToLower(name))
		if was, known := h.told.First(name); !ok || !known || was == told || p.judged[name] == told {
			continue
		}
		if p.judged == nil {
			p.judged = map[string]string{}
		}
		p.judged[name] = told
		reset := false
		p.Server.SendQuery("SELECT source FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) " + pgsql.Literal(name))
		if err := p.Server.Flush(); err != nil {
			return h.lost(p, err)
		}
		if _, err := h.read(p, func(m wire.Message) error {
			if m.Type != 'D' {
				return nil
			}
			vals, err := wire.RowValues(nil, m.Body())
			reset = err == nil && len(vals) == 1 && string(vals[0]) != "session"
			return err
		}); err != nil {
			return err
		}
		if !reset {
			delete(p.resets, strings.ToLower(name))
			continue
		}
		if p.resets == nil {
			p.resets = map[string]string{}
		}
		p.resets[strings.ToLower(name)], _ = h.told.Value(name)
		if _, err := h.exec(p, "SET LOCAL "+pgsql.Setting(name)+" TO "+value); err != nil {
			return err
		}
	}
	return nil
}
