package pool

import (
	"sort"
	"strings"
	"sync"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Settings is an interned set of run-time parameters: equal sets are one pointer, so that comparing a
// session's wish with what a server carries costs nothing.
type Settings struct {
	vals map[string]string // lower case name to SQL text behind TO
	key  string
}

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
	s := &Settings{vals: make(map[string]string, len(vals)), key: key}
	for n, v := range vals {
		s.vals[n] = v
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
	if v, ok := s.vals[name]; ok && v == value {
		return s
	}
	m := make(map[string]string, len(s.vals)+1)
	for n, v := range s.vals {
		m[n] = v
	}
	m[name] = value
	return Intern(m)
}

// Without returns the set with one value removed.
func (s *Settings) Without(name string) *Settings {
	if _, ok := s.vals[name]; !ok {
		return s
	}
	m := make(map[string]string, len(s.vals))
	for n, v := range s.vals {
		if n != name {
			m[n] = v
		}
	}
	return Intern(m)
}

// diff is the SQL that turns what a server carries into what a session wants.
func diff(have, want *Settings) string {
	if have == want || have.key == want.key {
		return ""
	}
	var b strings.Builder
	for _, n := range sortedNames(have.vals) {
		if _, ok := want.vals[n]; !ok {
			b.WriteString("RESET " + pgsql.Setting(n) + ";")
		}
	}
	for _, n := range sortedNames(want.vals) {
		if v, ok := have.vals[n]; !ok || v != want.vals[n] {
			b.WriteString("SET " + pgsql.Setting(n) + " TO " + want.vals[n] + ";")
		}
	}
	return b.String()
}

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
