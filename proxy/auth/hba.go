package auth

import (
	"fmt"
	"net/netip"
	"strings"
)

// HBAError is a mistake in a file of rules or maps.
type HBAError struct {
	Line    int // from 1
	Message string
}

func (e *HBAError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Message) }

// maxLine bounds a line of such a file, in bytes.
const maxLine = 10240

// ParseHBA reads rules in the format of pg_hba.conf: TYPE DATABASE USER [ADDRESS [MASK]] METHOD [OPTIONS], as
// PostgreSQL 15 documents it. Lists of names, quoted names, all, sameuser, networks, masks and the
// options clientcert and map are understood; what is not understood is an error. maps are the named maps of
// ParseIdent.
func ParseHBA(text string, maps map[string]map[string]string) ([]Rule, error) {
	var out []Rule
	for i, line := range strings.Split(text, "\n") {
		bad := func(format string, args ...any) error { return &HBAError{i + 1, fmt.Sprintf(format, args...)} }
		if len(line) > maxLine {
			return nil, bad("the line is longer than %d bytes", maxLine)
		}
		f, err := fieldsOf(line)
		if err != nil {
			return nil, bad("%v", err)
		}
		if len(f) == 0 {
			continue
		}
		r, err := parseRule(f, maps)
		if err != nil {
			return nil, bad("%v", err)
		}
		out = append(out, r)
	}
	return out, nil
}

var origins = map[string][]Origin{"local": {Local}, "host": {Plain, TLS}, "hostssl": {TLS}, "hostnossl": {Plain}}

func parseRule(f [][]string, maps map[string]map[string]string) (r Rule, err error) {
	next := func(what string) []string {
		if err == nil && len(f) == 0 {
			err = fmt.Errorf("%s is missing", what)
		}
		if err != nil {
			return []string{""}
		}
		v := f[0]
		f = f[1:]
		return v
	}
	kind := next("the connection type")[0]
	r.Origins = origins[kind]
	if r.Origins == nil {
		return r, fmt.Errorf("connection type %q is none of local, host, hostssl, hostnossl", kind)
	}
	r.Databases, r.Users = next("the database"), next("the user")
	for _, list := range [][]string{r.Databases, r.Users} {
		for _, n := range list {
			if strings.HasPrefix(n, "@") || strings.HasPrefix(n, "+") || n == "samerole" || n == "samegroup" {
				return r, fmt.Errorf("%q is not supported: name the databases and users", n)
			}
		}
	}
	if kind != "local" {
		if r.Network, err = parseNetwork(next("the address")[0], &f); err != nil {
			return r, err
		}
	}
	name := next("the method")[0]
	if err != nil {
		return r, err
	}
	m, ok := ParseMethod(name)
	if !ok {
		return r, fmt.Errorf("method %q is none of scram-sha-256, password, cert, trust, reject", name)
	}
	r.Method = m
	for _, opt := range f {
		key, val, _ := strings.Cut(opt[0], "=")
		switch {
		case key == "clientcert" && (val == "verify-full" || val == "verify-ca"):
			r.ClientCert, r.CertName = true, val == "verify-full"
		case key == "map" && maps[val] != nil:
			r.Map = maps[val]
		case key == "map":
			return r, fmt.Errorf("there is no map %q", val)
		default:
			return r, fmt.Errorf("option %q is not supported", opt[0])
		}
	}
	if m == Cert && kind != "hostssl" {
		return r, fmt.Errorf("method cert is for hostssl lines only")
	}
	if m == Password && kind != "hostssl" && kind != "local" {
		return r, fmt.Errorf("method password is for hostssl and local lines only: it sends the password itself")
	}
	return r, r.Check()
}

// Check refuses what would let everybody in.
func (r *Rule) Check() error {
	if r.Method == Trust && !(len(r.Origins) == 1 && r.Origins[0] == Local) && !(r.Network.IsValid() && r.Network.Addr().IsLoopback() && r.Network.Bits() >= 8) {
		return fmt.Errorf("method trust is for loopback addresses and local lines only")
	}
	return nil
}

func parseNetwork(s string, rest *[][]string) (netip.Prefix, error) {
	switch s {
	case "":
		return netip.Prefix{}, fmt.Errorf("the address is missing")
	case "all":
		return netip.Prefix{}, nil
	case "samehost", "samenet":
		return netip.Prefix{}, fmt.Errorf("%s is not supported: name the networks", s)
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("address %q is no network such as 10.0.0.0/8", s)
	}
	if len(*rest) > 1 { // an address and a mask
		if m, err := netip.ParseAddr((*rest)[0][0]); err == nil {
			*rest = (*rest)[1:]
			bits, ok := maskBits(m)
			if !ok || m.Is4() != a.Is4() {
				return netip.Prefix{}, fmt.Errorf("%q is no mask of an address", m)
			}
			return netip.PrefixFrom(a, bits).Masked(), nil
		}
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// maskBits counts the leading ones of a mask that has nothing else.
func maskBits(m netip.Addr) (int, bool) {
	n, ended := 0, false
	for _, b := range m.AsSlice() {
		for i := 7; i >= 0; i-- {
			one := b>>i&1 == 1
			if one && ended {
				return 0, false
			}
			if one {
				n++
			} else {
				ended = true
			}
		}
	}
	return n, true
}

// fieldsOf splits a line at white space; a field is a list at commas. Quotes keep both, # begins a comment.
func fieldsOf(line string) (out [][]string, err error) {
	var field []string
	var word strings.Builder
	in, quoted, had := false, false, false
	endWord := func() {
		if had && keywords[word.String()] {
			err = fmt.Errorf("%q in quotes, which is the name of something then, is not supported", word.String())
		}
		if in || had {
			field = append(field, word.String())
		}
		word.Reset()
		in, had = false, false
	}
	endField := func() {
		endWord()
		if len(field) > 0 {
			out = append(out, field)
			field = nil
		}
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"':
			quoted, had = !quoted, true
		case quoted:
			word.WriteByte(c)
			in = true
		case c == '#':
			endField()
			return out, err
		case c == ' ' || c == '\t' || c == '\r':
			if len(field) > 0 && !in && !had { // "a, b" goes on behind the comma
				continue
			}
			endField()
		case c == ',':
			endWord()
			if field == nil {
				field = []string{}
			}
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if quoted {
		return nil, fmt.Errorf("a quoted name is not closed")
	}
	endField()
	return out, err
}

// keywords are names that mean more than one thing. In quotes they are those of one only, which no rule here can tell from them.
var keywords = map[string]bool{"all": true, "sameuser": true}

// ParseIdent reads maps in the format of pg_ident.conf: MAPNAME SYSTEM-USERNAME PG-USERNAME, without regular
// expressions.
func ParseIdent(text string) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	for i, line := range strings.Split(text, "\n") {
		f, err := fieldsOf(line)
		if err == nil && len(f) > 0 {
			switch {
			case len(f) != 3 || len(line) > maxLine:
				err = fmt.Errorf("a map line has a map's name, a certificate's name and a user")
			case strings.HasPrefix(f[1][0], "/"):
				err = fmt.Errorf("regular expressions are not supported in maps")
			default:
				if out[f[0][0]] == nil {
					out[f[0][0]] = map[string]string{}
				}
				out[f[0][0]][f[1][0]] = f[2][0]
			}
		}
		if err != nil {
			return nil, &HBAError{i + 1, err.Error()}
		}
	}
	return out, nil
}

// ParseUserlist reads users in the format of PgBouncer's userlist.txt: "name" "verifier or password" on each
// line, a quote inside doubled, ; or # before a comment.
func ParseUserlist(text string) ([][2]string, error) {
	var out [][2]string
	for i, line := range strings.Split(text, "\n") {
		rest := strings.TrimSpace(line)
		if rest == "" || rest[0] == ';' || rest[0] == '#' {
			continue
		}
		var u [2]string
		for k := range u {
			v, tail, ok := quotedWord(rest)
			if !ok {
				return nil, &HBAError{i + 1, `expected "user name" "SCRAM verifier or password"`}
			}
			u[k], rest = v, strings.TrimLeft(tail, " \t")
		}
		if u[0] == "" || len(line) > maxLine {
			return nil, &HBAError{i + 1, "the user has no name"}
		}
		out = append(out, u) // what may follow is ignored, as PgBouncer does
	}
	return out, nil
}

func quotedWord(s string) (word, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		return b.String(), s[i+1:], true
	}
	return "", "", false
}
