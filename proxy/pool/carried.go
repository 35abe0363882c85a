package pool

import (
	"maps"
	"slices"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Carried is what a server has in the midst of a transaction, as far as a session may set it: what another server must have, too, to
// be the same session's.
type Carried struct {
	settings   map[string]carried // by names in lower case
	user, role string             // whom it takes itself for
}

type carried struct {
	value string // in its base unit
	set   bool   // by the session, or a function
}

// carriedSQL lists that. It runs with what a function has left: all of its names have a schema, as in inspectSQL.
var carriedSQL = `select ` + foundSQL("case when source operator(pg_catalog.=) 'session' then 's' else 'd' end", "name", "setting") + ` from pg_catalog.pg_settings where context operator(pg_catalog.=) 'user' or context operator(pg_catalog.=) 'superuser'
 union all select pg_catalog.concat('u', session_user) union all select pg_catalog.concat('r', pg_catalog.current_setting('role'))`

// ownOfTransactions are settings that each BEGIN gives a server, and that cannot be given another value later.
var ownOfTransactions = map[string]bool{"transaction_isolation": true, "transaction_deferrable": true}

// Vars are the custom parameters that a suspect server may have set.
func (s *Server) Vars() []string { return s.vars }

// Carries asks for what the server has. vars are custom parameters, which no catalog lists. There are more than most bytes with ErrTooMuch.
func (s *Server) Carries(vars []string, most int64) (*Carried, error) {
	rows, err := s.find(carriedSQL+varSQL(vars), most)
	if err != nil {
		return nil, err
	}
	c := &Carried{settings: make(map[string]carried, len(rows))}
	for _, r := range rows {
		switch r[0] {
		case 'u':
			c.user = r[1:]
		case 'r':
			c.role = r[1:]
		default:
			name, value, _ := strings.Cut(r[1:], "=")
			if name = strings.ToLower(name); !ownOfTransactions[name] {
				c.settings[name] = carried{value, r[0] == 's'}
			}
		}
	}
	return c, nil
}

// Size is about how many bytes it holds.
func (c *Carried) Size() int64 {
	n := int64(len(c.user) + len(c.role) + 100)
	for name, v := range c.settings {
		n += 80 + int64(len(name)+len(v.value))
	}
	return n
}

// ReadWrite is it without the transaction's being READ ONLY.
func (c *Carried) ReadWrite() *Carried {
	if c.settings["transaction_read_only"].value != "on" {
		return c
	}
	next := *c
	next.settings = maps.Clone(c.settings)
	delete(next.settings, "transaction_read_only")
	return &next
}

// Who is who its statements run as.
func (c *Carried) Who() string {
	if c.role == "none" {
		return c.user
	}
	return c.role
}

// Value is what a setting is.
func (c *Carried) Value(name string) string { return c.settings[name].value }

// Over returns base with what is another on c: what has been set on c since it had base.
func (c *Carried) Over(was, base *Carried) *Carried {
	next := &Carried{settings: maps.Clone(base.settings), user: base.user, role: base.role}
	for n, v := range c.settings {
		if v != was.settings[n] {
			next.settings[n] = v
		}
	}
	for n := range was.settings {
		if _, ok := c.settings[n]; !ok {
			delete(next.settings, n)
		}
	}
	if c.user != was.user || c.role != was.role {
		next.user, next.role = c.user, c.role
	}
	return next
}

// Same says whether two servers are the same session's.
func (c *Carried) Same(o *Carried) bool {
	return c.user == o.user && c.role == o.role && maps.Equal(c.settings, o.settings)
}

// Change is a statement that brings a server nearer to what another one has.
type Change struct {
	Name string // of the parameter
	SQL  string
}

// Changes is what makes a server that has c have want for the rest of its transaction. What want has not set goes back to login, the
// startup packet's, of which servers know nothing. Who the server is comes last, and is taken back first, as between transactions.
func (s *Server) Changes(c, want *Carried, login *Settings) (out []Change) {
	local := func(name, value string) {
		out = append(out, Change{name, "SET LOCAL " + pgsql.Setting(name) + " TO " + value})
	}
	var names []string
	for n, have := range c.settings {
		if _, ok := want.settings[n]; !ok && have.set && have.value != "" && strings.Contains(n, ".") { // not what only an extension has that is loaded
			names = append(names, n)
		}
	}
	for n, v := range want.settings {
		have, ok := c.settings[n]
		_, packet := login.Get(n)
		if ok && have.value == v.value || !v.set && (packet || !have.set) || n == "transaction_read_only" && v.value != "on" {
			continue
		}
		names = append(names, n)
	}
	slices.Sort(names)
	user, role := c.user, c.role
	if len(names) > 0 && (user != s.role || role != "none") {
		local(userSetting, pgsql.Literal(s.role))
		local(roleSetting, noRole)
		user, role = s.role, "none"
	}
	for _, n := range names {
		local(n, pgsql.SettingValue(n, want.settings[n].value))
	}
	if user != want.user {
		local(userSetting, pgsql.Literal(want.user))
		role = ""
	}
	if role != want.role {
		local(roleSetting, pgsql.Literal(want.role))
	}
	return out
}
