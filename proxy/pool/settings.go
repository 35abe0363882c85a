package pool

import (
	"cmp"
	"hash/maphash"
	"strings"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Settings is a set of run-time parameters. It never changes. A set that was made of another shares with it what they have in common: a
// change costs what is changed, and not what is there.
//
// Two of them say who the session is. As in PostgreSQL, SET SESSION AUTHORIZATION sets the role to none, and RESET
// SESSION AUTHORIZATION resets it.
type Settings struct {
	root *parameter
	user string // session_authorization, as a server reports it; empty for the role that logged in
}

const (
	userSetting = "session_authorization"
	roleSetting = "role"
	noRole      = "'none'"
	// unknownUser is no SQL text, so that no session asks for it.
	unknownUser = ""
)

// NoSettings is the empty set: what a fresh server carries.
var NoSettings = &Settings{}

// SettingsOf returns the set with these values: SQL texts behind TO, by names in lower case.
func SettingsOf(vals map[string]string) *Settings {
	var root *parameter
	for n, v := range vals {
		root = root.put(newParameter(n, v))
	}
	return of(root)
}

func of(root *parameter) *Settings {
	if root == nil {
		return NoSettings
	}
	s := &Settings{root: root}
	if p := root.find(userSetting); p != nil {
		if user, ok := pgsql.Texts(p.value); ok && len(user) == 1 {
			s.user = user[0]
		}
	}
	return s
}

// Same says whether two sets are equal, at the cost of comparing two numbers.
func (s *Settings) Same(o *Settings) bool { return s == o || s.root.mark() == o.root.mark() }

// Key is equal for equal sets.
func (s *Settings) Key() [2]uint64 { return s.root.mark() }

// Size is how many bytes the set holds, as if it shared nothing with others.
func (s *Settings) Size() int64 { return s.root.size() }

// ParameterSize is how many bytes of a set one parameter is.
func ParameterSize(name, value string) int64 { return parameterCost + int64(len(name)+len(value)) }

// More is how many bytes more next holds than s of what base has not.
func (s *Settings) More(next, base *Settings) (bytes int64) {
	if s == next {
		return 0
	}
	count := func(p *parameter) int64 {
		if p == nil {
			return 0
		}
		if has := base.root.find(p.name); has != nil && has.own == p.own {
			return 0
		}
		return ParameterSize(p.name, p.value)
	}
	compare(s.root, next.root, func(was, is *parameter) { bytes += count(is) - count(was) })
	return bytes
}

// Get returns the SQL text of a parameter's value.
func (s *Settings) Get(name string) (string, bool) {
	if p := s.root.find(name); p != nil {
		return p.value, true
	}
	return "", false
}

// Has says whether a parameter has a value.
func (s *Settings) Has(name, value string) bool {
	p := s.root.find(name)
	return p != nil && p.own == markOf(name, value)
}

// With returns the set with one value added or replaced.
func (s *Settings) With(name, value string) *Settings {
	next := s.root.put(newParameter(name, value))
	if name == userSetting {
		next = next.put(newParameter(roleSetting, noRole))
	}
	if next.mark() == s.root.mark() {
		return s
	}
	return of(next)
}

// Without returns the set with one value removed.
func (s *Settings) Without(name string) *Settings {
	next := s.root.without(name)
	if name == userSetting {
		next = next.without(roleSetting)
	}
	if next == s.root {
		return s
	}
	return of(next)
}

// Who is the part of the set that says who the session is: what RESET ALL leaves alone.
func (s *Settings) Who() *Settings {
	var root *parameter
	for _, n := range []string{userSetting, roleSetting} {
		if p := s.root.find(n); p != nil {
			root = root.put(p.alone())
		}
	}
	return of(root)
}

// Others is the set without Who.
func (s *Settings) Others() *Settings {
	next := s.root.without(userSetting).without(roleSetting)
	if next == s.root {
		return s
	}
	return of(next)
}

func isWho(name string) bool { return name == userSetting || name == roleSetting }

// Over returns the set with the values of another one added, which win.
func (s *Settings) Over(other *Settings) *Settings {
	next := s.root
	other.root.each(func(p *parameter) { next = next.put(p.alone()) })
	if next.mark() == s.root.mark() {
		return s
	}
	return of(next)
}

// Names lists the parameters of the set, in order.
func (s *Settings) Names() (out []string) {
	s.root.each(func(p *parameter) { out = append(out, p.name) })
	return out
}

// booked is the set as it stands in a server's books, where it may outlive its session by long: of long values only what tells them from others.
func (s *Settings) booked() *Settings {
	if s.root == nil || s.root.short == s.root {
		return s
	}
	return &Settings{root: s.root.short, user: s.user}
}

// diff is the SQL that turns what a server carries into what a session wants. Who the session is comes last, and is taken
// back first: only the role that logged in may set all that was set.
func diff(have, want *Settings) string {
	if have.Same(want) {
		return ""
	}
	var b, set strings.Builder
	switch {
	case have.root.find(userSetting) != nil:
		b.WriteString("RESET session_authorization;RESET role;")
	case have.root.find(roleSetting) != nil:
		b.WriteString("RESET role;")
	}
	compare(have.root, want.root, func(was, is *parameter) {
		switch {
		case is == nil && !isWho(was.name):
			b.WriteString("RESET " + pgsql.Setting(was.name) + ";")
		case is != nil && !isWho(is.name):
			set.WriteString(setting(is.name, is.value))
		}
	})
	b.WriteString(set.String())
	for _, n := range []string{userSetting, roleSetting} {
		if v, ok := want.Get(n); ok {
			b.WriteString(setting(n, v))
		}
	}
	return b.String()
}

func setting(name, value string) string { return "SET " + pgsql.Setting(name) + " TO " + value + ";" }

// leavesCustom says whether moving from have to want would RESET a custom parameter, which then reads
// ” and no longer NULL: row-level security policies notice.
func leavesCustom(have, want *Settings) (leaves bool) {
	if !have.Same(want) {
		compare(have.root, want.root, func(was, is *parameter) { leaves = leaves || is == nil && strings.Contains(was.name, ".") })
	}
	return leaves
}

// parameter is one of a set, and the root of a part of it: of a tree that is ordered by names, and by ranks from the root down. Ranks
// hang on names alone and cannot be foretold, so that equal sets are equal trees, as flat as those of chance. It never changes.
type parameter struct {
	name, value string
	own, all    mark // of name and value; of the part
	bytes       int64
	left, right *parameter
	short       *parameter // the part without its long values; itself where it has none
}

// parameterCost is what a parameter costs besides its name and its value, and longValue the longest value that books have.
const (
	parameterCost = 112
	longValue     = 64
)

// mostBooked is how many bytes of settings, long values aside, a server's books may have that nobody uses. It is closed otherwise: books
// outlive their sessions, and count for none.
const mostBooked = 1 << 20

// mark tells sets apart: the sum of hashes of what is in them. Equal ones mean equal sets.
type mark [2]uint64

func (m mark) plus(o mark) mark { return mark{m[0] + o[0], m[1] + o[1]} }

var marks = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

func markOf(name, value string) (m mark) {
	for i, seed := range marks {
		var h maphash.Hash
		h.SetSeed(seed)
		_, _ = h.WriteString(name)
		_ = h.WriteByte(0)
		_, _ = h.WriteString(value)
		m[i] = h.Sum64()
	}
	return m
}

func newParameter(name, value string) *parameter {
	return (&parameter{name: name, value: value, own: markOf(name, value)}).over(nil, nil)
}

// alone is the parameter as a set of its own.
func (p *parameter) alone() *parameter { return p.over(nil, nil) }

// over is the parameter as the root of two parts.
func (p *parameter) over(left, right *parameter) *parameter {
	n := &parameter{name: p.name, value: p.value, own: p.own, left: left, right: right}
	n.sum()
	n.short = n
	if long := len(n.value) > longValue && !isWho(n.name); long || left.books() != left || right.books() != right {
		n.short = &parameter{name: p.name, value: p.value, own: p.own, left: left.books(), right: right.books()}
		if long {
			n.short.value = ""
		}
		n.short.sum()
		n.short.short = n.short
	}
	return n
}

func (p *parameter) sum() {
	p.all = p.own.plus(p.left.mark()).plus(p.right.mark())
	p.bytes = ParameterSize(p.name, p.value) + p.left.size() + p.right.size()
}

func (p *parameter) mark() mark {
	if p == nil {
		return mark{}
	}
	return p.all
}

func (p *parameter) size() int64 {
	if p == nil {
		return 0
	}
	return p.bytes
}

func (p *parameter) books() *parameter {
	if p == nil {
		return nil
	}
	return p.short
}

// above says whether a parameter stands nearer to the root than another.
func (p *parameter) above(o *parameter) bool {
	a, b := maphash.String(marks[0], p.name), maphash.String(marks[0], o.name)
	return a > b || a == b && p.name < o.name
}

func (p *parameter) find(name string) *parameter {
	for p != nil {
		switch c := cmp.Compare(name, p.name); {
		case c == 0:
			return p
		case c < 0:
			p = p.left
		default:
			p = p.right
		}
	}
	return nil
}

// split parts what comes before a name from what comes behind it.
func (p *parameter) split(name string) (before, same, behind *parameter) {
	if p == nil {
		return nil, nil, nil
	}
	switch c := cmp.Compare(name, p.name); {
	case c == 0:
		return p.left, p, p.right
	case c < 0:
		before, same, behind = p.left.split(name)
		return before, same, p.over(behind, p.right)
	default:
		before, same, behind = p.right.split(name)
		return p.over(p.left, before), same, behind
	}
}

// put is the part with a parameter, which is alone, in it, in place of what had its name.
func (p *parameter) put(x *parameter) *parameter {
	switch {
	case p == nil:
		return x
	case p.name == x.name:
		return x.over(p.left, p.right)
	case x.above(p):
		before, _, behind := p.split(x.name)
		return x.over(before, behind)
	case x.name < p.name:
		return p.over(p.left.put(x), p.right)
	}
	return p.over(p.left, p.right.put(x))
}

// without is the part without what has a name; itself if there is none.
func (p *parameter) without(name string) *parameter {
	if p == nil {
		return nil
	}
	switch c := cmp.Compare(name, p.name); {
	case c == 0:
		return join(p.left, p.right)
	case c < 0:
		if left := p.left.without(name); left != p.left {
			return p.over(left, p.right)
		}
	default:
		if right := p.right.without(name); right != p.right {
			return p.over(p.left, right)
		}
	}
	return p
}

// join is one part of two, of which the one comes before the other.
func join(before, behind *parameter) *parameter {
	switch {
	case before == nil:
		return behind
	case behind == nil:
		return before
	case before.above(behind):
		return before.over(before.left, join(before.right, behind))
	}
	return behind.over(join(before, behind.left), behind.right)
}

// each calls f for all, in order.
func (p *parameter) each(f func(p *parameter)) {
	for ; p != nil; p = p.right {
		p.left.each(f)
		f(p)
	}
}

// compare calls f, in order, for what two sets have not alike; nil for what the one has not. What they share is passed over.
func compare(was, is *parameter, f func(was, is *parameter)) {
	switch {
	case was == is || was.mark() == is.mark():
	case was == nil:
		is.each(func(p *parameter) { f(nil, p) })
	case is == nil:
		was.each(func(p *parameter) { f(p, nil) })
	case was.name == is.name || was.above(is):
		before, same, behind := is.split(was.name)
		compare(was.left, before, f)
		if same == nil || same.own != was.own {
			f(was, same)
		}
		compare(was.right, behind, f)
	default:
		before, _, behind := was.split(is.name) // that has no such: it would stand above
		compare(before, is.left, f)
		f(nil, is)
		compare(behind, is.right, f)
	}
}
