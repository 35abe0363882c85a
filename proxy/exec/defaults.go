package exec

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

// A session keeps the settings that it has begun with, whatever ALTER ROLE, ALTER DATABASE or a node's own configuration make of
// servers that were opened later or elsewhere. While all servers begin alike nothing needs to be done for that.

// begun is what a session began with, as far as it is asked for only where servers begin otherwise.
type begun struct {
	defaults *pool.Settings // what servers report, and
	logins   uint32         // Engine.logins, then
	with     string         // the answer to beganSQL
	looked   uint32         // Engine.logins, when a server that began since was compared with that
	kept     bool           // see keepDefaults
	as       string         // who its statements run as while nobody has SET ROLE: ALTER ROLE may name another one
}

// logins are the changes of what sessions begin with.
type logins struct {
	times atomic.Uint32
	last  atomic.Pointer[time.Time]
}

// beganSQL asks what a server began with of all that anybody may SET, whatever it carries now, and which parameters ALTER ROLE or ALTER DATABASE have
// given anybody: others may be the server's own.
const beganSQL = `select pg_catalog.string_agg(x, pg_catalog.chr(1)) from (select pg_catalog.concat(name, '=', reset_val) from pg_catalog.pg_settings where context operator(pg_catalog.=) 'user' union all
 select pg_catalog.concat('=', pg_catalog.split_part(c, '=', 1)) from pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c where s.setdatabase operator(pg_catalog.=) any (array[0::pg_catalog.oid,
  (select d.oid from pg_catalog.pg_database d where d.datname operator(pg_catalog.=) pg_catalog.current_database())])) b (x)`

// keptNever are those that last for a transaction, or take effect when a server is opened only.
var keptNever = map[string]bool{"transaction_isolation": true, "transaction_read_only": true, "transaction_deferrable": true, "seed": true, "role": true, "session_authorization": true, "local_preload_libraries": true}

// keepDefaults has the session ask for what it began with by name, if a server begins otherwise, or may: what its client was
// told, how its rows are read and written, and where its names are looked up; behind ALTER ROLE or ALTER DATABASE, all that differs.
func (h *Handler) keepDefaults(s *pool.Server) {
	logins := h.e.logins.times.Load()
	if h.looked != logins {
		keepOthers(h, s, logins)
	}
	if h.kept || s.Defaults().Same(h.defaults) && logins == h.logins {
		return
	}
	h.kept = true
	keeps(h, h.began())
}

// keeps has the session ask for some settings, unless it has asked for others.
func keeps(h *Handler, began *pool.Settings) {
	keep := func(set *pool.Settings) *pool.Settings { return began.Over(set) }
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

// keepOthers finds what a server that was opened behind a change begins with otherwise than the session did. If it is not told, it asks again before
// its next statement.
func keepOthers(h *Handler, s *pool.Server, logins uint32) {
	if at := h.e.logins.last.Load(); at == nil || s.Dialed().Before(*at) {
		return
	}
	rows, err := s.Rows(beganSQL)
	if err != nil || len(rows) != 1 || len(rows[0]) != 1 {
		return
	}
	h.looked = logins
	was, given := beganWith(h.with)
	now, also := beganWith(string(rows[0][0]))
	set := pool.NoSettings
	for _, name := range append(given, also...) {
		old, known := was[name]
		if is, still := now[name]; known && still && old != is && !keptNever[name] {
			set = set.With(name, pgsql.SettingValue(name, old))
		}
	}
	if !set.Same(pool.NoSettings) {
		keeps(h, set)
	}
}

// beganWith reads the answer to beganSQL: the parameters, and the names of those that somebody is given.
func beganWith(answer string) (with map[string]string, given []string) {
	with = map[string]string{}
	for _, s := range strings.Split(answer, "\x01") {
		switch name, value, ok := strings.Cut(s, "="); {
		case !ok:
		case name == "":
			given = append(given, strings.ToLower(value))
		default:
			with[strings.ToLower(name)] = value
		}
	}
	return with, given
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
	now := time.Now()
	e.logins.last.Store(&now)
	e.logins.times.Add(1)
	e.Pools.Reconnect("")
	e.mu.Lock()
	e.welcome.clear()
	e.mu.Unlock()
}
