package auth

import (
	"net/netip"
)

// Method is how a login is checked.
type Method uint8

// The methods.
const (
	Reject Method = iota
	Trust
	SCRAM
	Password // the password itself, over TLS or a Unix socket only
	Cert     // a verified client certificate names the user
)

// methods are the methods by the names that they have in pg_hba.conf.
var methods = map[string]Method{"reject": Reject, "trust": Trust, "scram-sha-256": SCRAM, "password": Password, "cert": Cert}

// ParseMethod reads a method's name.
func ParseMethod(s string) (Method, bool) {
	m, ok := methods[s]
	return m, ok
}

// Origin is how a client has connected.
type Origin uint8

// The origins, in pg_hba.conf's words: local, hostnossl, hostssl.
const (
	Local Origin = iota
	Plain
	TLS
)

// Rule is one line of the rules: the first that matches decides.
type Rule struct {
	Origins    []Origin     // none: all
	Databases  []string     // none, or "all": all; "sameuser": the user's name
	Users      []string     // none, or "all": all
	Network    netip.Prefix // not valid: all
	Method     Method
	ClientCert bool              // a verified certificate is needed besides
	CertName   bool              // and its name must be the user's: see CertUser
	Map        map[string]string // a certificate's name to the user; nil: they are equal
}

// Attempt is what the rules look at.
type Attempt struct {
	Database, User string
	From           netip.Addr
	Origin         Origin
}

// Match finds the rule for a login. Without a matching one it is a Reject.
func Match(rules []Rule, a Attempt) Rule {
	for _, r := range rules {
		if r.matches(a) {
			return r
		}
	}
	return Rule{Method: Reject}
}

func (r *Rule) matches(a Attempt) bool {
	if len(r.Origins) > 0 {
		ok := false
		for _, o := range r.Origins {
			ok = ok || o == a.Origin
		}
		if !ok {
			return false
		}
	}
	if r.Network.IsValid() && (a.Origin == Local || !r.Network.Contains(a.From.Unmap().WithZone(""))) {
		return false
	}
	return named(r.Users, a.User, "") && named(r.Databases, a.Database, a.User)
}

func named(list []string, name, user string) bool {
	if len(list) == 0 {
		return true
	}
	for _, n := range list {
		if n == "all" || n == name || n == "sameuser" && user != "" && user == name {
			return true
		}
	}
	return false
}

// CertUser says whether the name in a certificate may log in as a user.
func (r *Rule) CertUser(name, user string) bool {
	if r.Map != nil {
		return name != "" && r.Map[name] == user
	}
	return name != "" && name == user
}
