package main

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy"
	"github.com/pgmosaic/pgmosaic/proxy/config"
)

// What one user gets wrong keeps no other out that comes from the same address, and the right password of an administrator
// gets in whatever was tried before it.
func TestWrongPasswordsOfOneLockOutNobodyElse(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, func(c *config.Config) { c.AuthTries = 3 })
	as := func(user, pw, db string) error {
		c, err := pgx.Connect(t.Context(), dsnFor(user, pw, a.Server.Addr(), db)+"?sslmode=disable&default_query_exec_mode=simple_protocol")
		if err == nil {
			_ = c.Close(t.Context())
		}
		return err
	}
	for _, user := range []string{"nobody", "admin"} {
		for range 3 {
			wantCode(t, as(user, "wrong", "shop"), "28P01")
		}
	}
	if err := as("app", "app", "shop"); err != nil {
		t.Errorf("another user from the same address: %v", err)
	}
	wantCode(t, as("nobody", "wrong", "shop"), "28000")
	wantCode(t, as("nobody", "wrong", "pgmosaic"), "28000") // the console is no way round
	before := a.Metrics.SlowedLogins.Load()
	if err := as("admin", "admin", "pgmosaic"); err != nil {
		t.Errorf("the administrator: %v", err)
	}
	isAdmin, mark, err := a.Gate.WebLogin(t.Context(), netip.MustParseAddrPort("127.0.0.1:1"), "admin", "admin")
	if err != nil || !isAdmin {
		t.Errorf("the administrator on the dashboard: %v", err)
	}
	if _, _, now := a.Gate.Standing("admin"); mark != now || mark == "" {
		t.Errorf("the mark of its login is %q, and %q now", mark, now)
	}
	wantCode(t, as("admin", "wrong", "pgmosaic"), "28P01")
	if n := a.Metrics.SlowedLogins.Load() - before; n != 3 {
		t.Errorf("%d logins were slowed down", n)
	}
	wantCode(t, as("admin", "admin", "shop"), "28000")
}

// Who has not logged in keeps nobody out who does, and beyond max_client_conn there is room for administrators.
func TestConnectionsWithoutALoginTakeNobodysPlace(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 4, func(c *config.Config) { c.MaxClients = 3 })
	silent := func() net.Conn {
		nc, err := net.Dial("tcp", a.Server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		return nc
	}
	plain, console := a.dsn()+"?sslmode=disable", a.consoleDSN()+"?sslmode=disable"
	first := silent()
	for range 20 {
		silent()
	}
	for range 3 {
		connectTo(t, plain)
	}
	_, err := pgx.Connect(t.Context(), plain)
	wantCode(t, err, "53300")
	for range proxy.AdminReserve {
		connectTo(t, console)
	}
	_, err = pgx.Connect(t.Context(), console)
	wantCode(t, err, "53300")
	// The oldest makes way for the newest.
	for range 2 * proxy.MostStrangers {
		silent()
	}
	_ = first.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the oldest is there still: %v", err)
	}
	_, err = pgx.Connect(t.Context(), console) // it is asked who it is
	wantCode(t, err, "53300")
	eventually(t, "only so many are there", func() bool {
		return len(a.Server.Sessions()) <= 3+proxy.AdminReserve+proxy.MostStrangers
	})
}
