package exec

import (
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Where names are looked up hangs on the search_path and, as "$user" is in it and schemas are that not everybody may use, on the role that SET ROLE names.

// lookUp has the session's names be looked up as its settings say.
func lookUp(h *Handler) {
	h.planner.Env.SearchPath, h.planner.Env.Role = h.searchPath(), roleOf(h)
	h.planner.Moved()
}

// lookUpBy has them be looked up by the value that a setting has for now; empty for that of RESET.
func lookUpBy(h *Handler, name, value string) {
	env := &h.planner.Env
	if value == "" {
		value, _ = h.login.Get(name)
	}
	switch {
	case name == "role" && value == "":
		env.Role = h.as
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

// roleOf is who the session's statements run as by its settings.
func roleOf(h *Handler) string {
	value, ok := h.settings.Get("role")
	if !ok {
		return h.as
	}
	user, _ := h.settings.Get("session_authorization")
	return roleNamed(value, roleNamed(user, h.role))
}

// roleNamed is the role that SET ROLE names by this value; the login for NONE.
func roleNamed(value, login string) string {
	if names, ok := pgsql.Texts(value); ok && len(names) == 1 && names[0] != "none" {
		return names[0]
	}
	return login
}
