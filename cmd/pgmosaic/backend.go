package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/exec"
	"github.com/pgmosaic/pgmosaic/proxy/session"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// access is who may enter and how, as of the last RELOAD. It never changes.
type access struct {
	salts auth.Salts
	rules []auth.Rule
	users map[string]user
	admin map[string]bool
	stats map[string]bool
	tls   *tls.Config // nil for none

	page    *tls.Certificate // of the page; nil for none
	proxied []netip.Prefix   // whose connections begin with a PROXY protocol header
}

type user struct {
	cred   auth.Credential
	server string // the password for the shards
}

// newAccess makes it from a configuration, and the key that all processes share.
func newAccess(cfg *Config, key []byte) (*access, error) {
	rules, err := cfg.rules()
	if err != nil {
		return nil, err
	}
	list, err := cfg.userList()
	if err != nil {
		return nil, err
	}
	a := &access{salts: auth.Salts{Key: key}, rules: rules, users: map[string]user{}, admin: map[string]bool{}, stats: map[string]bool{}}
	if a.tls, err = cfg.tls(); err != nil {
		return nil, err
	}
	if a.page, err = cfg.pageCert(); err != nil {
		return nil, err
	}
	if a.proxied, err = cfg.proxied(); err != nil {
		return nil, err
	}
	for _, u := range list {
		pw, err := secret(u.Password)
		if err != nil {
			return nil, fmt.Errorf("users: %s: %w", u.Name, err)
		}
		server, err := secret(u.Server)
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

// backend checks logins and opens sessions.
type backend struct {
	app    *app
	access atomic.Pointer[access]
	checks chan struct{} // one for each password being derived

	tries auth.Tries
	now   func() time.Time

	questions  *questions
	iterations atomic.Int64 // with which new passwords are hashed, as far as is known
}

// slowLogin is how long a login waits that is slowed down.
const slowLogin = time.Second

func newBackend(a *app) *backend {
	b := &backend{app: a, questions: newQuestions(), now: time.Now, checks: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)))}
	b.iterations.Store(auth.Iterations)
	return b
}

func isConsole(database string) bool { return database == "pgmosaic" || database == "pgbouncer" }

// Admin implements session.Backend.
func (b *backend) Admin(l session.Login) bool {
	return isConsole(l.Database) && b.access.Load().admin[l.User]
}

// isProxied says whether connections from an address begin with a PROXY protocol header.
func (a *access) isProxied(from netip.Addr) bool {
	return slices.ContainsFunc(a.proxied, func(p netip.Prefix) bool { return p.Contains(from) })
}

// mayConsole says whether a user may enter the admin console, if only to look.
func (a *access) mayConsole(user string) bool { return a.admin[user] || a.stats[user] }

// Admit implements session.Backend. What it tells is the same for users and databases that do not exist.
func (b *backend) Admit(ctx context.Context, l session.Login) error {
	from, limit := l.Remote.Addr().Unmap(), b.app.config.Load().AuthTries
	if !from.IsValid() {
		return nil
	}
	always := isConsole(l.Database) && b.access.Load().mayConsole(l.User)
	switch b.tries.Judge(b.now(), from, l.User, limit, always) {
	case auth.Barred:
		return &wire.PgError{
			Code: "28000", Message: fmt.Sprintf("too many failed logins of user %q from %s (auth_failures = %d within %s)", l.User, from, limit, auth.TryWindow),
			Hint: "Wait a minute and use the right password.",
		}
	case auth.Slow:
		b.app.metrics.SlowedLogins.Add(1)
		select {
		case <-time.After(slowLogin):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Failed implements session.Backend.
func (b *backend) Failed(l session.Login) {
	b.app.metrics.FailedLogins.Add(1)
	if from := l.Remote.Addr(); from.IsValid() {
		b.tries.Failed(b.now(), from, l.User)
	}
}

// Rule implements session.Backend.
func (b *backend) Rule(l session.Login) auth.Rule {
	r := auth.Match(b.access.Load().rules, auth.Attempt{Database: l.Database, User: l.User, From: l.Remote.Addr(), Origin: l.Origin()})
	if r.Method == auth.Trust && isConsole(l.Database) && l.User != b.app.cfg.trustUser {
		r.Method = auth.SCRAM // admin power needs a password
	}
	return r
}

// Credential implements session.Backend: configured users first, then auth_query.
func (b *backend) Credential(ctx context.Context, l session.Login) (auth.Credential, error) {
	if u, ok := b.access.Load().users[l.User]; ok {
		return u.cred, nil
	}
	if b.app.config.Load().AuthQuery == "" || isConsole(l.Database) {
		return b.fake(l.User), nil
	}
	return b.query(ctx, l)
}

// fake is the credential of a user that does not exist.
func (b *backend) fake(user string) auth.Credential {
	return b.access.Load().salts.Fake(user, int(b.iterations.Load()))
}

// Check implements session.Backend. Deriving takes milliseconds of a processor, so only so many do it at once.
func (b *backend) Check(ctx context.Context, c auth.Credential, password string) (bool, error) {
	select {
	case b.checks <- struct{}{}:
		defer func() { <-b.checks }()
		return c.Check(password), nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (b *backend) serverPassword(_, role string) (string, error) {
	return b.access.Load().users[role].server, nil
}

// Open implements session.Backend.
func (b *backend) Open(ctx context.Context, l session.Login, client session.Client) (session.Handler, map[string]string, error) {
	if isConsole(l.Database) {
		acc := b.access.Load()
		full := acc.admin[l.User]
		if !acc.mayConsole(l.User) && (l.User != b.app.cfg.trustUser || l.User == "") { // who enters without a password may look
			return nil, nil, &admin.Error{Code: "42501", Message: fmt.Sprintf("user %q may not use the admin console", l.User), Hint: "admin_users and stats_users in the configuration name who may."}
		}
		params := map[string]string{
			"server_version": "15.0 (pgmosaic " + version + ")", "client_encoding": "UTF8", "server_encoding": "UTF8", "DateStyle": "ISO, MDY",
			"TimeZone": "UTC", "integer_datetimes": "on", "standard_conforming_strings": "on", "application_name": l.Params["application_name"],
		}
		return admin.NewConsole(b.app.admin, client.Conn, !full), params, nil
	}
	if err := b.room(l); err != nil {
		return nil, nil, err
	}
	s := b.app.server.SessionOf(client.PID)
	h, params, err := b.app.engine.Open(ctx, l.Database, l.User, l.Params, exec.Client{
		Conn: client.Conn, PID: client.PID, Wake: client.Wake, Keys: l.Keys, Lost: s.Terminate,
	})
	if err != nil {
		return nil, nil, err
	}
	return h, params, nil
}

// room refuses a client of a database or user that has its number already, or whose database is disabled.
func (b *backend) room(l session.Login) error {
	if b.app.pools.Disabled(l.Database) {
		return &wire.PgError{Code: "57P03", Message: fmt.Sprintf("database %q is disabled", l.Database), Hint: "ENABLE on the admin database lets clients in again."}
	}
	cfg := b.app.config.Load()
	if cfg.MaxDBClient == 0 && cfg.MaxUsrClient == 0 {
		return nil
	}
	db, usr := 0, 0
	for _, s := range b.app.server.Sessions() {
		i := s.Info()
		if i.Handler == nil || isConsole(i.Login.Database) {
			continue
		}
		if i.Login.Database == l.Database {
			db++
		}
		if i.Login.User == l.User {
			usr++
		}
	}
	full := func(what string, limit int) error {
		return &wire.PgError{Code: "53300", Message: fmt.Sprintf("client connections exceeded (%s = %d)", what, limit), Hint: "SHOW CLIENTS on the admin database shows who is connected."}
	}
	if cfg.MaxDBClient > 0 && db >= cfg.MaxDBClient {
		return full("max_db_client_connections", cfg.MaxDBClient)
	}
	if cfg.MaxUsrClient > 0 && usr >= cfg.MaxUsrClient {
		return full("max_user_client_connections", cfg.MaxUsrClient)
	}
	return nil
}

// webLogin checks a user of the dashboard. Failures count like those of other logins.
func (b *backend) webLogin(ctx context.Context, from netip.AddrPort, name, password string) (isAdmin bool, err error) {
	l := session.Login{User: name, Database: "pgmosaic", Remote: from}
	if err := b.Admit(ctx, l); err != nil {
		return false, err
	}
	acc := b.access.Load()
	u, ok := acc.users[name]
	cred := u.cred
	if !ok {
		cred = b.fake(name)
	}
	fits, err := b.Check(ctx, cred, password)
	if err != nil {
		return false, err
	}
	if fits && ok && acc.mayConsole(name) {
		return acc.admin[name], nil
	}
	b.Failed(l)
	return false, errors.New("wrong name or password, or the user is none of admin_users and stats_users")
}

func (b *backend) list() []admin.User {
	acc := b.access.Load()
	clients := map[string]int{}
	for _, s := range b.app.server.Sessions() {
		clients[s.Info().Login.User]++
	}
	names := map[string]bool{}
	for n := range acc.users {
		names[n] = true
	}
	for _, p := range b.app.pools.All() {
		names[p.Role] = true
	}
	var out []admin.User
	for n := range names {
		role := "client"
		if acc.admin[n] {
			role = "admin"
		} else if acc.stats[n] {
			role = "stats"
		}
		out = append(out, admin.User{Name: n, Role: role, Clients: clients[n]})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

var errNoFile = errors.New("there is no configuration file to read again: the proxy was started with --database")
