package main

import (
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
	"github.com/jackc/pgx/v5"
	"github.com/pgmosaic/pgmosaic/proxy/config"
)

// factors are the salt and the iterations that a proxy tells somebody who says that he is a user: before he proves anything.
func factors(t *testing.T, a *app, user, database string) string {
	t.Helper()
	nc, err := net.Dial("tcp", a.Server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	f := pgproto3.NewFrontend(pgproto3.NewChunkReader(nc), nc)
	for _, m := range []pgproto3.FrontendMessage{
		&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": user, "database": database}},
		&pgproto3.SASLInitialResponse{AuthMechanism: "SCRAM-SHA-256", Data: []byte("n,,n=,r=abcdefghijklmnopqrstuvwx")},
	} {
		if err := f.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	for {
		m, err := f.Receive()
		if err != nil {
			t.Fatalf("user %s: %v", user, err)
		}
		switch m := m.(type) {
		case *pgproto3.AuthenticationSASL:
		case *pgproto3.AuthenticationSASLContinue:
			_, rest, _ := strings.Cut(string(m.Data), ",s=")
			salt, _, _ := strings.Cut(rest, ",")
			if b, err := base64.StdEncoding.DecodeString(salt); err != nil || len(b) != 16 {
				t.Fatalf("user %s: salt %q", user, salt)
			}
			return rest
		default:
			t.Fatalf("user %s: %T", user, m)
		}
	}
}

// Nobody learns from salts which users exist: each name has one salt, in every process of an installation and after a restart, and
// another one in another installation.
func TestSaltsTellNothing(t *testing.T) {
	t.Parallel()
	d := shop(t)
	mustExec(t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "alter role postgres password '"+d.cluster.Password+"'") // by SCRAM
	dir := t.TempDir()
	config := func(store string) config.Config {
		cfg := config.Default()
		cfg.Store = store
		cfg.Users = []config.User{{Name: "app", Password: "app"}}
		cfg.AuthQuery = "select rolname, rolpassword from pg_authid where rolname = $1"
		cfg.Direct.Setup = []string{"CREATE DATABASE shop", fmt.Sprintf("CREATE SHARD s1 IN shop NODE '%s'", d.cluster.Node("s1-a").DSN("shop"))}
		return cfg
	}
	store := filepath.Join(dir, "map.json")
	one := startApp(t, config(store))
	two := startApp(t, config(store))
	other := startApp(t, config(filepath.Join(dir, "other.json")))
	for _, user := range []string{"app", "postgres", "nobody", "nobody2"} {
		first := factors(t, one, user, "shop")
		if again := factors(t, one, user, "shop"); again != first {
			t.Errorf("%s: %s, then %s", user, first, again)
		}
		if second := factors(t, two, user, "shop"); second != first {
			t.Errorf("%s: %s in one process, %s in the other", user, first, second)
		}
		if alien := factors(t, other, user, "shop"); alien == first && user != "postgres" {
			t.Errorf("%s: the same salt in another installation", user)
		}
		if !strings.HasSuffix(first, ",i=4096") {
			t.Errorf("%s: %s", user, first)
		}
		for _, elsewhere := range []string{"pgmosaic", "pgbouncer", "nosuch", "postgres"} { // where auth_query lets nobody in
			if there := factors(t, one, user, elsewhere); there != first {
				t.Errorf("%s: %s, and %s in database %s", user, first, there, elsewhere)
			}
		}
	}
	for _, elsewhere := range []string{"pgmosaic", "nosuch"} {
		if _, err := pgx.Connect(t.Context(), dsnFor("postgres", d.cluster.Password, one.Server.Addr(), elsewhere)); pgCode(err) != "28P01" {
			t.Errorf("a user of auth_query enters %s, or is told something: %v", elsewhere, err)
		}
	}
	before := factors(t, one, "nobody", "shop")
	one.stop(0)
	if after := factors(t, startApp(t, config(store)), "nobody", "shop"); after != before {
		t.Errorf("%s before a restart, %s after it", before, after)
	}
	// A map that an older version wrote gets its secret with the next change.
	b, err := os.ReadFile(store)
	if err != nil || !strings.Contains(string(b), `"secret"`) {
		t.Fatalf("the map has no secret: %v", err)
	}
	if _, err := two.Admin.Exec(t.Context(), "CREATE GROUP g IN shop KEY (bigint) BY HASH", false); err != nil {
		t.Fatal(err)
	}
	if after := factors(t, two, "nobody", "shop"); after != before {
		t.Errorf("%s before a change of the map, %s after it", before, after)
	}
}

// However many names somebody tries, each database is asked over one connection, and asked once for each name.
func TestAuthQueryUsesOneConnection(t *testing.T) {
	t.Parallel()
	d := shop(t)
	root := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	simply(t, root, `create table public.asked_for (name text); create function public.who(n text) returns table (name text, verifier text) language plpgsql as
		$$ begin insert into public.asked_for values (n); return query select rolname::text, rolpassword from pg_authid where rolname = n; end $$; create role asked2 login password 'question'`)
	defer func() {
		simply(t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "drop function public.who; drop table public.asked_for; drop role asked2")
	}()
	a := small(t, d, 2, func(c *config.Config) { c.AuthQuery, c.Users = "select * from public.who($1)", nil })
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, err := pgx.Connect(t.Context(), dsnFor("nobody"+strconv.Itoa(i%20), "x", a.Server.Addr(), "shop"))
			wantCode(t, err, "28P01")
		}()
	}
	wg.Wait()
	if n := simply(t, root, "select count(*) from pg_stat_activity where application_name = 'pgmosaic auth_query'"); n != "1" {
		t.Errorf("%s connections", n)
	}
	if n := simply(t, root, "select count(*) || ' ' || count(distinct name) from public.asked_for"); n != "20 20" {
		t.Errorf("asked for, in all and different: %s", n)
	}
	good := dsnFor("asked2", "question", a.Server.Addr(), "shop")
	connectTo(t, good)
	// A connection that broke while it was idle is nobody's trouble.
	simply(t, root, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgmosaic auth_query'")
	eventually(t, "it is gone", func() bool {
		return simply(t, root, "select count(*) from pg_stat_activity where application_name = 'pgmosaic auth_query'") == "0"
	})
	cfg := a.Config()
	cfg.AuthQuery = "select name, verifier from public.who($1)" // another question: what was answered is not known any more
	if err := a.Apply(&cfg); err != nil {
		t.Fatal(err)
	}
	connectTo(t, good)
}

// A role whose password was hashed more often than by default logs in, by auth_query too.
func TestAuthQueryOfOtherIterations(t *testing.T) {
	t.Parallel()
	d := shop(t)
	root := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	simply(t, root, "create role slowly login password '"+verifier(t, "slow", 5000)+"'")
	defer simply(t, root, "drop role slowly")
	a := small(t, d, 2, func(c *config.Config) {
		c.AuthQuery, c.Users = "select rolname, rolpassword from pg_authid where rolname = $1", nil
	})
	if got := factors(t, a, "slowly", "shop"); !strings.HasSuffix(got, ",i=5000") {
		t.Error(got)
	}
	mustExec(t, connectTo(t, dsnFor("slowly", "slow", a.Server.Addr(), "shop")), "select 1")
	_, err := pgx.Connect(t.Context(), dsnFor("slowly", "fast", a.Server.Addr(), "shop"))
	wantCode(t, err, "28P01")
}
