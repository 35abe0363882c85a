package exec

import (
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

// Where names are looked up hangs on the search_path and, as "$user" is in it and schemas are that not everybody may use, on the role that SET ROLE names.

// lookUp has the session's names be looked up as its settings say.
func lookUp(h *Handler) {
	h.planner.Env.SearchPath, h.planner.Env.Role = h.searchPath(), roleOf(h.settings, h.role)
	h.planner.Moved()
}

// lookUpBy has them be looked up by the value that a setting has for now; empty for that of RESET.
func lookUpBy(h *Handler, name, value string) {
	env := &h.planner.Env
	if value == "" {
		value, _ = h.login.Get(name)
	}
	switch {
	case name == "role":
		env.Role = roleNamed(value, h.role)
	case name != "search_path":
		return
	case value == "":
		env.SearchPath = h.firstPath
	default:
		env.SearchPath = searchPathOf(value)
	}
	h.planner.Moved()
}

// roleOf is who the statements of a session with these settings run as.
func roleOf(s *pool.Settings, login string) string {
	value, _ := s.Get("role")
	return roleNamed(value, login)
}

// roleNamed is the role that SET ROLE names by this value; the login for NONE.
func roleNamed(value, login string) string {
	if names, ok := pgsql.Texts(value); ok && len(names) == 1 && names[0] != "none" {
		return names[0]
	}
	return login
}
