package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/session"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

const (
	askedFor   = 10 * time.Second // how long an answer of auth_query is kept
	askedLimit = 10000
)

// query looks a user up on the home shard of its database, or on another while that is away: roles are the same on all, on a connection that has seen none of the
// client's parameters and whose search_path is fixed.
func (b *backend) query(ctx context.Context, l session.Login) (auth.Credential, error) {
	key := l.Database + "\x00" + l.User
	b.mu.Lock()
	hit, ok := b.asked[key]
	b.mu.Unlock()
	if ok && time.Now().Before(hit.until) {
		return hit.cred, nil
	}
	d := b.app.catalog.Current().Databases[l.Database]
	if d == nil || d.Home == nil {
		return auth.Fake(l.User), nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	failed := func(err error) (auth.Credential, error) {
		b.app.log.Warn("auth_query", "database", l.Database, "error", err)
		return auth.Credential{}, &wire.PgError{Code: "08006", Message: "the user could not be looked up", Hint: "The proxy's log says why."}
	}
	_, dsn, err := b.app.engine.Teller(ctx, d)
	if err != nil {
		return failed(err)
	}
	conn, err := nodeconn.Open(ctx, dsn, nodeconn.AuthQuery)
	if err != nil {
		return failed(err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) // only read
	var name string
	var verifier *string
	err = conn.QueryRow(ctx, b.app.config.Load().AuthQuery, l.User).Scan(&name, &verifier)
	cred := auth.Fake(l.User)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return failed(err)
	case verifier != nil && name == l.User:
		if cred, err = auth.ParseVerifier(*verifier); err != nil {
			return failed(fmt.Errorf("user %q: %w", l.User, err))
		}
		var may bool
		err := conn.QueryRow(ctx, "select rolcanlogin and coalesce(rolvaliduntil > now(), true) from pg_roles where rolname = $1", l.User).Scan(&may)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return failed(err)
		}
		if err == nil && !may {
			cred = auth.Fake(l.User)
		}
	}
	b.mu.Lock()
	if len(b.asked) > askedLimit {
		clear(b.asked)
	}
	b.asked[key] = asked{cred: cred, until: time.Now().Add(askedFor)}
	b.mu.Unlock()
	return cred, nil
}
