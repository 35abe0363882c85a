// Package access is who may enter and how: the configured users and rules, auth_query for the others, and what failures lead to.
package access

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/config"
)

// Access is what a configuration says of who may enter. It never changes.
type Access struct {
	// TLS is what clients are offered; nil: none.
	TLS *tls.Config
	// Page is the certificate of the page; nil: none.
	Page *tls.Certificate

	salts auth.Salts
	rules []auth.Rule
	users map[string]user
	admin map[string]bool
	stats map[string]bool

	proxied []netip.Prefix // whose connections begin with a PROXY protocol header
	trusted string         // who enters from loopback without a password; empty: nobody
	tries   int            // auth_failures
	query   string         // auth_query
}

type user struct {
	cred   auth.Credential
	server string // the password for the shards
}

// New reads the files and secrets that a configuration names. The key, which all processes of an installation share, makes the salts of
// users that have none.
func New(cfg *config.Config, key []byte) (*Access, error) {
	rules, err := cfg.Rules()
	if err != nil {
		return nil, err
	}
	list, err := cfg.AllUsers()
	if err != nil {
		return nil, err
	}
	for i := range rules {
		for k, name := range rules[i].Databases {
			if IsConsole(name) { // it has two names, and one is as good as the other
				rules[i].Databases[k] = Console
			}
		}
	}
	a := &Access{
		salts: auth.Salts{Key: key}, rules: rules, users: map[string]user{}, admin: map[string]bool{}, stats: map[string]bool{},
		trusted: cfg.Direct.User, tries: cfg.AuthTries, query: cfg.AuthQuery,
	}
	if a.TLS, err = clientTLS(cfg); err != nil {
		return nil, err
	}
	if a.Page, err = pageCertificate(cfg); err != nil {
		return nil, err
	}
	if a.proxied, err = cfg.Proxies(); err != nil {
		return nil, err
	}
	for _, u := range list {
		pw, err := u.Password.Reveal()
		if err != nil {
			return nil, fmt.Errorf("users: %s: %w", u.Name, err)
		}
		server, err := u.Server.Reveal()
		if err != nil {
			return nil, fmt.Errorf("users: %s: %w", u.Name, err)
		}
		if server == "" {
			server = pw
		}
		var cred auth.Credential
		if u.Verifier != "" {
			cred, err = auth.ParseVerifier(u.Verifier)
		} else {
			cred, err = a.salts.Credential(u.Name, pw)
		}
		if err != nil {
			return nil, fmt.Errorf("users: %s: %w", u.Name, err)
		}
		a.users[u.Name] = user{cred, server}
	}
	for _, n := range cfg.AdminUsers {
		a.admin[n] = true
	}
	for _, n := range cfg.StatsUsers {
		a.stats[n] = true
	}
	return a, nil
}

// Key is the key of the salts.
func (a *Access) Key() []byte { return a.salts.Key }

// Proxied says whether connections from an address begin with a PROXY protocol header.
func (a *Access) Proxied(from netip.Addr) bool {
	return slices.ContainsFunc(a.proxied, func(p netip.Prefix) bool { return p.Contains(from.WithZone("")) })
}

// Console is the admin console's name. It answers to PgBouncer's as well.
const Console = "pgmosaic"

// IsConsole says whether a database is the admin console.
func IsConsole(database string) bool { return database == Console || database == "pgbouncer" }

// Role is what a user may do on the console.
type Role int

// The roles, from the least.
const (
	None   Role = iota // it may not enter
	Reader             // it may look
	Admin              // it may do everything
)

// Console is what a user may do on the console once it has proved who it is. Who enters without a password may look.
func (a *Access) Console(user string) Role {
	switch {
	case a.admin[user]:
		return Admin
	case a.stats[user], user == a.trusted && user != "":
		return Reader
	}
	return None
}

// named says whether the configuration names a user as one of the console.
func (a *Access) named(user string) bool { return a.admin[user] || a.stats[user] }

// Kind says what a user is called in SHOW USERS: admin, stats or client.
func (a *Access) Kind(user string) string {
	switch {
	case a.admin[user]:
		return "admin"
	case a.stats[user]:
		return "stats"
	}
	return "client"
}

// Users are the names of the configured users, in no order.
func (a *Access) Users() (out []string) {
	for n := range a.users {
		out = append(out, n)
	}
	return out
}

// ServerPassword is what a role logs in to the shards with; empty: as its client did.
func (a *Access) ServerPassword(role string) string { return a.users[role].server }
