package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/session"
)

// Gate checks logins, by the Access in force. Any goroutine may use it.
type Gate struct {
	metrics *metrics.Metrics
	log     *slog.Logger
	ask     Asking
	now     func() time.Time

	inForce    atomic.Pointer[Access]
	checks     chan struct{} // one for each password being derived
	tries      auth.Tries
	questions  *questions
	iterations atomic.Int64 // with which new passwords are hashed, as far as is known
}

// Asking is how auth_query reaches a database.
type Asking struct {
	// Exists says whether there is such a database, with a shard.
	Exists func(database string) bool
	// Memory counts bytes that answers hold, or fewer; an error: there are none for more.
	Memory func(bytes int64) error
	// First is the first database by name that exists; empty if none does.
	First func() string
	// Moved says whether home's primary answers and is another server than the one of a connection string.
	Moved func(database, dsn string) bool
	// Server is where to ask, and how to see that the server there is the one that it should be.
	Server func(ctx context.Context, database string) (dsn string, whose nodeconn.Whose, err error)
}

// slowLogin is how long a login waits that is slowed down.
const slowLogin = time.Second

// NewGate makes a gate with the Access in force. now is the clock.
func NewGate(a *Access, ask Asking, m *metrics.Metrics, log *slog.Logger, now func() time.Time) *Gate {
	g := &Gate{metrics: m, log: log, ask: ask, now: now, questions: newQuestions(now, ask.Memory), checks: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)))}
	g.iterations.Store(auth.Iterations)
	g.inForce.Store(a)
	return g
}

// Access is what is in force.
func (g *Gate) Access() *Access { return g.inForce.Load() }

// Use brings another Access in force. Who has logged in stays. What another auth_query has answered is forgotten.
func (g *Gate) Use(a *Access) {
	if old := g.inForce.Swap(a); old.query != a.query {
		g.questions.forget(g.now().Add(askedFor))
	}
}

// Run closes connections of auth_query that have no work, and all when ctx ends.
func (g *Gate) Run(ctx context.Context) error { return g.questions.run(ctx) }

// Admin implements session.Backend.
func (g *Gate) Admin(l session.Login) bool {
	return IsConsole(l.Database) && g.Access().Console(l.User) == Admin
}

// origin is the address that a login's failures are counted under. Those by the Unix socket have one in common.
func origin(l session.Login) (from netip.Addr, called string) {
	if a := l.Remote.Addr(); a.IsValid() {
		return a.Unmap(), a.Unmap().String()
	}
	return netip.IPv6Unspecified(), "[local]"
}

// judge is what the failures of before make of a login. barred is what it is told that is turned away.
func (g *Gate) judge(l session.Login) (v auth.Verdict, barred error) {
	a := g.Access()
	from, _ := origin(l)
	v = g.tries.Judge(g.now(), from, l.User, a.tries, a.always(l))
	return v, a.barred(v, l)
}

// always says whether a login gets in by the right password whatever was tried before.
func (a *Access) always(l session.Login) bool { return IsConsole(l.Database) && a.named(l.User) }

// barred is what a login is told that is turned away; nil for others.
func (a *Access) barred(v auth.Verdict, l session.Login) error {
	if v != auth.Barred {
		return nil
	}
	_, called := origin(l)
	return &pgsql.Error{
		Code: pgsql.InvalidAuthorizationSpecification, Message: fmt.Sprintf("too many failed logins of user %q from %s (auth_failures = %d within %s)", l.User, called, a.tries, auth.TryWindow),
		Hint: "Wait a minute and use the right password.",
	}
}

// Admit implements session.Backend. What it tells is the same for users and databases that do not exist.
func (g *Gate) Admit(ctx context.Context, l session.Login) error {
	switch v, barred := g.judge(l); v {
	case auth.Barred:
		return barred
	case auth.Slow:
		g.metrics.SlowedLogins.Add(1)
		select {
		case <-time.After(slowLogin):
		case <-ctx.Done():
			return ctx.Err()
		}
	case auth.Welcome:
	}
	return nil
}

// Tried implements session.Backend. Who brings many passwords at once would have been judged before any of them had failed.
func (g *Gate) Tried(l session.Login, right bool) error {
	a := g.Access()
	from, _ := origin(l)
	barred := a.barred(g.tries.Tried(g.now(), from, l.User, a.tries, a.always(l), right), l)
	if barred == nil && !right {
		g.Failed(l)
	}
	return barred
}

// Failed implements session.Backend. What nobody guesses turns nobody away.
func (g *Gate) Failed(session.Login) { g.metrics.FailedLogins.Add(1) }

// Rule implements session.Backend.
func (g *Gate) Rule(l session.Login) auth.Rule {
	a := g.Access()
	database := l.Database
	if IsConsole(database) {
		database = Console
	}
	r := auth.Match(a.rules, auth.Attempt{Database: database, User: l.User, From: l.Remote.Addr(), Origin: l.Origin()})
	if r.Method == auth.Trust && IsConsole(l.Database) && l.User != a.trusted {
		r.Method = auth.SCRAM // admin power needs a password
	}
	return r
}

// Credential implements session.Backend: configured users first, then auth_query. Where that lets nobody in, on the console and in databases
// that do not exist, a name is told the salt that it has in the first database that does: else two salts of one name would tell that somebody has it.
func (g *Gate) Credential(ctx context.Context, l session.Login) (auth.Credential, error) {
	if u, ok := g.Access().users[l.User]; ok {
		return u.cred, nil
	}
	if g.Access().query == "" || len(l.User) > longestName {
		return g.fake(l.User), nil
	}
	if !IsConsole(l.Database) && g.ask.Exists(l.Database) {
		return g.query(ctx, l.Database, l.User)
	}
	other := g.ask.First()
	if other == "" {
		return g.fake(l.User), nil
	}
	cred, err := g.query(ctx, other, l.User)
	return cred.Unknown(), err
}

// longestName is the longest that a role of PostgreSQL's can have, in bytes.
const longestName = 63

// fake is the credential of a user that does not exist.
func (g *Gate) fake(user string) auth.Credential {
	return g.Access().salts.Fake(user, int(g.iterations.Load()))
}

// Check implements session.Backend. Deriving takes milliseconds of a processor, so only so many do it at once, and none for who is turned away by now.
func (g *Gate) Check(ctx context.Context, l session.Login, c auth.Credential, password string) (bool, error) {
	return g.check(ctx, l, func() bool { return password != "" && c.Check(password) })
}

func (g *Gate) check(ctx context.Context, l session.Login, fits func() bool) (right bool, err error) {
	select {
	case g.checks <- struct{}{}:
		defer func() { <-g.checks }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if _, barred := g.judge(l); barred != nil {
		return false, barred
	}
	right = fits()
	return right, g.Tried(l, right)
}

// WebLogin checks a user of the dashboard, and gives the mark of Standing that it was let in by: it may be another one by now. Failures count like those of
// other logins.
func (g *Gate) WebLogin(ctx context.Context, from netip.AddrPort, name, password string) (isAdmin bool, mark string, err error) {
	l := session.Login{User: name, Database: "pgmosaic", Remote: from}
	if err := g.Admit(ctx, l); err != nil {
		return false, "", err
	}
	acc := g.Access()
	u, ok := acc.users[name]
	cred := u.cred
	if !ok {
		cred = g.fake(name)
	}
	in, err := g.check(ctx, l, func() bool { return cred.Check(password) && ok && acc.named(name) })
	if err == nil && !in {
		err = errors.New("wrong name or password, or the user is none of admin_users and stats_users")
	}
	if err != nil {
		return false, "", err
	}
	isAdmin, _, mark = acc.standing(name)
	return isAdmin, mark, nil
}

// Standing is what a user of the dashboard may do now, and a mark that is another one when its password is: a login that was let in by
// another password, or in another place, is over.
func (g *Gate) Standing(user string) (isAdmin, may bool, mark string) {
	return g.Access().standing(user)
}

func (a *Access) standing(user string) (isAdmin, may bool, mark string) {
	u, ok := a.users[user]
	if !ok || !a.named(user) {
		return false, false, ""
	}
	sum := sha256.Sum256([]byte(u.cred.Verifier()))
	return a.admin[user], true, hex.EncodeToString(sum[:])
}
