package main

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/config"
)

// ALTER ROLE .. SET is for sessions that begin: one that runs keeps what it began with, on servers that are opened behind it too.
func TestSessionsKeepAllThatTheyBeganWith(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 4, func(cfg *config.Config) {
		cfg.Users = append(cfg.Users, config.User{Name: "postgres", Password: config.Secret(d.cluster.Password)})
	})
	super := connectTo(t, dsnFor("postgres", d.cluster.Password, a.Server.Addr(), "shop"))
	t.Cleanup(func() {
		c, err := pgx.Connect(context.Background(), d.cluster.Node("s1-a").DSN("postgres"))
		if err == nil {
			_, err = c.Exec(context.Background(), "alter role app reset all")
			_ = c.Close(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	const mode = pgx.QueryExecModeSimpleProtocol
	const ask = "select concat_ws(' ', ('{a,NULL}'::text[])[2] is null, current_setting('statement_timeout'), current_setting('enable_seqscan'))"
	asks := func(what string, c *pgx.Conn, want string) {
		t.Helper()
		if got := queryOne[string](t, c, ask, mode); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	old := connectTo(t, a.dsn())
	mustExec(t, old, "set enable_seqscan = off")
	asks("before", old, "t 0 off")
	mustExec(t, super, "alter role app set array_nulls = off")
	mustExec(t, super, "alter role app set statement_timeout = '7s'")
	mustExec(t, super, "alter role app set enable_seqscan = on")
	asks("behind ALTER ROLE", old, "t 0 off")
	later := connectTo(t, a.dsn())
	asks("a session that begins then", later, "f 7s on")
	mustExec(t, old, "begin")
	asks("in a transaction", old, "t 0 off")
	mustExec(t, old, "set local array_nulls = off")
	asks("SET LOCAL", old, "f 0 off")
	mustExec(t, old, "commit")
	mustExec(t, old, "reset enable_seqscan; reset array_nulls")
	asks("behind RESET", old, "t 0 on")
	mustExec(t, super, "alter role app reset array_nulls")
	asks("behind another ALTER ROLE", old, "t 0 on")
	asks("the other session", later, "f 7s on")
	mustExec(t, old, "discard all")
	asks("behind DISCARD ALL", old, "t 0 on")
	asks("a session that begins in the end", connectTo(t, a.dsn()), "t 7s on")
}
