package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	admins "github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// A statement over shards that waits for a server when a pause begins neither keeps the pause from coming about nor is let through by it: it has
// none of its servers, and waits for RESUME, or one of them, and gets the other.
func TestPauseAmidTheLeasesOfAStatement(t *testing.T) {
	t.Parallel()
	d := shop(t)
	doc := mapOf(d, "shop")
	doc.Version = 1
	doc.Nodes = slices.DeleteFunc(doc.Nodes, func(n *shardmap.Node) bool { return strings.HasSuffix(n.Name, "-b") })
	for _, shard := range []string{"s1", "s2"} {
		for _, sql := range []string{"select count(*) from customers", "update customers set name = name where customer_id in (1, 2, 3, 4, 5, 6, 7, 8)"} {
			t.Run(fmt.Sprintf("%s is busy, %.6s", shard, sql), func(t *testing.T) {
				a := small(t, d, 1, func(cfg *config.Config) {
					cfg.Direct.Setup = nil
					if err := filestore.New(cfg.Store).Save(t.Context(), 0, doc); err != nil {
						t.Fatal(err)
					}
				})
				holder, waiter := connectTo(t, a.dsn()), connectTo(t, a.dsn())
				mustExec(t, holder, "set pgmosaic.shard = '"+shard+"'")
				mustExec(t, holder, "begin")
				mustExec(t, holder, "select 1")
				done := make(chan error, 1)
				go func() { _, err := waiter.Exec(context.Background(), sql); done <- err }()
				eventually(t, "it waits", func() bool {
					for _, c := range a.Clients() {
						if c.ID == waiter.PgConn().PID() && !c.Waiting.IsZero() {
							return true
						}
					}
					return false
				})
				paused := make(chan error, 1)
				go func() { _, err := a.Admin.Exec(context.Background(), "PAUSE shop", false); paused <- err }()
				eventually(t, "the pause begins", func() bool { return a.Pools.Paused("shop", "") })
				mustExec(t, holder, "commit")
				if err := <-paused; err != nil {
					t.Errorf("PAUSE: %v", err)
				}
				for _, p := range a.Pools.All() {
					if n := p.Busy(); p.Database == "shop" && n > 0 {
						t.Errorf("%d leases of %s during the pause", n, p.Node)
					}
				}
				if _, err := a.Admin.Exec(t.Context(), "RESUME shop", false); err != nil {
					t.Error(err)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A server that a session keeps is off the books once the session has ended, however KILL, RESUME and the session's end come about.
func TestKilledServersThatWereKept(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 3, nil)
	admin := func(sql string) {
		t.Helper()
		if _, err := a.Admin.Exec(t.Context(), sql, false); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	for _, keeps := range []string{"create temporary table mine (i int)", "begin; declare held cursor with hold for select g from generate_series(1, 100000) g; commit"} {
		for _, goes := range []string{"", "select 1", "fetch 1 from held", "begin; select 1", "insert into mine values (1)", "discard all"} {
			for _, kill := range []string{"KILL shop", "RECONNECT shop", "PAUSE shop"} {
				c := connectTo(t, a.dsn())
				mustExec(t, c, keeps, pgx.QueryExecModeSimpleProtocol)
				admin(kill)
				waits := make(chan struct{})
				go func() {
					defer close(waits)
					if goes != "" {
						_, _ = c.Exec(context.Background(), goes, pgx.QueryExecModeSimpleProtocol) // whatever it says
					}
				}()
				if goes != "" && kill != "RECONNECT shop" {
					eventually(t, "it waits, or has been told", func() bool {
						select {
						case <-waits:
							return true
						default:
							return slices.ContainsFunc(a.Clients(), func(x admins.Client) bool { return !x.Waiting.IsZero() })
						}
					})
				}
				admin("RESUME shop")
				<-waits
				_ = c.Close(t.Context())
				eventually(t, keeps+", "+kill+", "+goes+": no lease is left", func() bool {
					for _, p := range a.Pools.All() {
						if s := p.Stats(); s.Active+s.Dialing+s.Testing > 0 {
							return false
						}
					}
					return true
				})
			}
		}
	}
}
