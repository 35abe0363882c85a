package exec

import (
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

// A session keeps the settings that it has begun with, whatever ALTER ROLE, ALTER DATABASE or a node's own configuration make of
// servers that were opened later or elsewhere. While all servers begin alike nothing needs to be done for that.

// keepDefaults has the session ask for what it began with by name, if a server begins otherwise, or may: what its client was
// told, how its rows are read and written, and where its names are looked up.
func (h *Handler) keepDefaults(s *pool.Server) {
	logins := h.e.logins.Load()
	if h.kept || s.Defaults().Same(h.defaults) && logins == h.logins {
		return
	}
	h.kept = true
	keep := func(set *pool.Settings) *pool.Settings { return h.began().Over(set) }
	h.login = keep(h.login)
	h.settings = keep(h.settings)
	if h.tx.before != nil {
		h.tx.before = keep(h.tx.before)
	}
	for i := range h.tx.saves {
		h.tx.saves[i].settings = keep(h.tx.saves[i].settings)
	}
	reckonAnew(h)
}

// began is what the session began with, as far as it matters to what it reads and is told.
func (h *Handler) began() *pool.Settings {
	set := pool.NoSettings
	for _, n := range pool.Formats {
		if v, ok := h.told.First(n); ok {
			set = set.With(strings.ToLower(n), pgsql.Literal(v))
		}
	}
	if len(h.firstPath) > 0 {
		set = set.With("search_path", pgsql.Literals(h.firstPath))
	}
	if iso := h.firstModes.isolation; iso != "" {
		set = set.With("default_transaction_isolation", pgsql.Literal(iso))
	}
	return set
}

// newLogins has sessions that begin from now on begin by what ALTER ROLE or ALTER DATABASE has just set: on servers that do, too.
func (e *Engine) newLogins() {
	e.logins.Add(1)
	e.Pools.Reconnect("")
	e.mu.Lock()
	e.welcome.clear()
	e.mu.Unlock()
}
