package pool

import (
	"maps"
	"sort"
	"strings"
	"sync"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Settings is an interned set of run-time parameters: equal sets are one pointer, so that comparing a
// session's wish with what a server carries costs nothing.
//
// Two of them say who the session is. As in PostgreSQL, SET SESSION AUTHORIZATION sets the role to none, and RESET
// SESSION AUTHORIZATION resets it.
type Settings struct {
	vals map[string]string // lower case name to SQL text behind TO
	key  string
	user string // session_authorization, as a server reports it; empty for the role that logged in
}

const (
	userSetting = "session_authorization"
	roleSetting = "role"
	noRole      = "'none'"
	// unknownUser is no SQL text, so that no session asks for it.
	unknownUser = ""
)

var (
	internMu sync.Mutex
	interned = map[string]*Settings{}
	// NoSettings is the empty set: what a fresh server carries.
	NoSettings = Intern(nil)
)

// maxInterned bounds the table: past it, sets are no longer shared, only slower.
const maxInterned = 10000

// Intern returns the set with these values. vals is copied.
func Intern(vals map[string]string) *Settings {
	names := make([]string, 0, len(vals))
	for n := range vals {
		names = append(names, n)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, n := range names {
		b.WriteString(n + "\x00" + vals[n] + "\x00")
	}
	key := b.String()
	internMu.Lock()
	defer internMu.Unlock()
	if s := interned[key]; s != nil {
		return s
	}
	s := &Settings{vals: maps.Clone(vals), key: key}
	if user, ok := pgsql.Texts(vals[userSetting]); ok && len(user) == 1 {
		s.user = user[0]
	}
	if len(interned) < maxInterned {
		interned[key] = s
	}
	return s
}

// Get returns the SQL text of a parameter's value.
func (s *Settings) Get(name string) (string, bool) {
	v, ok := s.vals[name]
	return v, ok
}

// With returns the set with one value added or replaced.
func (s *Settings) With(name, value string) *Settings {
	v, ok := s.vals[name]
	if ok && v == value && name != userSetting {
		return s
	}
	m := make(map[string]string, len(s.vals)+1)
	maps.Copy(m, s.vals)
	m[name] = value
	if name == userSetting {
		m[roleSetting] = noRole
	}
	return Intern(m)
}

// Without returns the set with one value removed.
func (s *Settings) Without(name string) *Settings {
	_, ok := s.vals[name]
	_, role := s.vals[roleSetting]
	if !ok && !(role && name == userSetting) {
		return s
	}
	m := maps.Clone(s.vals)
	delete(m, name)
	if name == userSetting {
		delete(m, roleSetting)
	}
	return Intern(m)
}

// Who is the part of the set that says who the session is: what RESET ALL leaves alone.
func (s *Settings) Who() *Settings {
	return s.only(isWho)
}

// Others is the set without Who.
func (s *Settings) Others() *Settings {
	return s.only(func(name string) bool { return !isWho(name) })
}

func isWho(name string) bool { return name == userSetting || name == roleSetting }

func (s *Settings) only(keep func(name string) bool) *Settings {
	m := make(map[string]string, len(s.vals))
	for n, v := range s.vals {
		if keep(n) {
			m[n] = v
		}
	}
	if len(m) == len(s.vals) {
		return s
	}
	return Intern(m)
}

// Over returns the set with the values of another one added, which win.
func (s *Settings) Over(other *Settings) *Settings {
	if len(other.vals) == 0 {
		return s
	}
	m := make(map[string]string, len(s.vals)+len(other.vals))
	maps.Copy(m, s.vals)
	maps.Copy(m, other.vals)
	return Intern(m)
}

// diff is the SQL that turns what a server carries into what a session wants. Who the session is comes last, and is taken
// back first: only the role that logged in may set all that was set.
func diff(have, want *Settings) string {
	if have == want || have.key == want.key {
		return ""
	}
	var b strings.Builder
	_, user := have.vals[userSetting]
	_, role := have.vals[roleSetting]
	switch {
	case user:
		b.WriteString("RESET session_authorization;RESET role;")
	case role:
		b.WriteString("RESET role;")
	}
	for _, n := range sortedNames(have.vals) {
		if _, ok := want.vals[n]; !ok && !isWho(n) {
			b.WriteString("RESET " + pgsql.Setting(n) + ";")
		}
	}
	for _, n := range sortedNames(want.vals) {
		if v, ok := have.vals[n]; (!ok || v != want.vals[n]) && !isWho(n) {
			b.WriteString(setting(n, want.vals[n]))
		}
	}
	for _, n := range []string{userSetting, roleSetting} {
		if v, ok := want.vals[n]; ok {
			b.WriteString(setting(n, v))
		}
	}
	return b.String()
}

func setting(name, value string) string { return "SET " + pgsql.Setting(name) + " TO " + value + ";" }

// leavesCustom says whether moving from have to want would RESET a custom parameter, which then reads
// ” and no longer NULL: row-level security policies notice.
func leavesCustom(have, want *Settings) bool {
	if have == want {
		return false
	}
	for n := range have.vals {
		if strings.Contains(n, ".") {
			if _, ok := want.vals[n]; !ok {
				return true
			}
		}
	}
	return false
}

func sortedNames(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for n := range m {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// Key is equal for equal sets.
func (s *Settings) Key() string { return s.key }

// Names lists the parameters of the set, in order.
func (s *Settings) Names() []string { return sortedNames(s.vals) }
