//go:build drivers

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
	"time"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// These need other languages' tools and packages: 'make test-drivers' installs them and sets DRIVERS to the folder
// that they are in.

func tools(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("DRIVERS")
	if dir == "" {
		t.Fatal("DRIVERS is not set: run make test-drivers")
	}
	return dir
}

// script runs a program on the drivers' demo; its last line must say that it is done.
func script(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = "../../testdata"
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "done") {
		t.Errorf("%s: %v\n%s", filepath.Base(args[0]), err, out)
	}
}

func TestDriversOfOtherLanguages(t *testing.T) {
	t.Parallel()
	dir := tools(t)
	d, _ := typedDemo(t, 2000)
	host, port, _ := net.SplitHostPort(d.Server.Addr())
	t.Run("psycopg", func(t *testing.T) { script(t, nil, dir+"/venv/bin/python", "drivers/psycopg_smoke.py", d.shopDSN()) })
	t.Run("asyncpg", func(t *testing.T) { script(t, nil, dir+"/venv/bin/python", "drivers/asyncpg_smoke.py", d.shopDSN()) })
	t.Run("node-postgres", func(t *testing.T) {
		script(t, []string{"NODE_PATH=" + dir + "/node_modules"}, "node", "drivers/node_smoke.js", d.shopDSN())
	})
	t.Run("pgjdbc", func(t *testing.T) {
		script(t, nil, "java", "-cp", dir+"/postgresql.jar", "drivers/java/Smoke.java", fmt.Sprintf("jdbc:postgresql://%s:%s/shop", host, port), "app", "app")
	})
	for _, name := range []string{"tokio-postgres", "sqlx", "diesel-async"} {
		t.Run(name, func(t *testing.T) { script(t, nil, dir+"/rust/debug/drivers", name, d.shopDSN()) })
	}
	eventually(t, "no driver left a session", func() bool { return len(d.Server.Sessions()) <= 1 })
}

func TestORMs(t *testing.T) {
	dir := tools(t)
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, Customers: 100, Orders: 100})
	host, port, _ := net.SplitHostPort(d.Server.Addr())
	env := []string{"DSN=" + d.shopDSN(), "PGHOST=" + host, "PGPORT=" + port, "NODE_PATH=" + dir + "/node_modules"}
	t.Run("SQLAlchemy and Alembic", func(t *testing.T) { script(t, env, dir+"/venv/bin/python", "orm/sqlalchemy_smoke.py") })
	t.Run("Django", func(t *testing.T) { script(t, env, dir+"/venv/bin/python", "orm/django_smoke.py") })
	t.Run("Sequelize", func(t *testing.T) { script(t, env, "node", "orm/sequelize_smoke.js") })
	program := func(name string) func(*testing.T) {
		return func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "go", "run", ".")
			cmd.Dir, cmd.Env = "../../testdata/orm/"+name, append(os.Environ(), env...)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "done") {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
	}
	t.Run("GORM", program("gorm"))
	t.Run("goose and golang-migrate", program("migrate"))
	t.Run("Hibernate", func(t *testing.T) {
		classes := t.TempDir() // its entities must be classes on the path
		if out, err := exec.CommandContext(t.Context(), "javac", "-d", classes, "-cp", dir+"/java/*", "../../testdata/orm/Hibernate.java").CombinedOutput(); err != nil {
			t.Fatalf("javac: %v\n%s", err, out)
		}
		script(t, env, "java", "-cp", classes+":"+dir+"/java/*", "Hibernate")
	})
}

var scratch = regexp.MustCompile(`/tmp/[A-Za-z0-9/_-]*`)

// verdicts runs pgx's own tests and returns pass, fail or skip for each.
func verdicts(t *testing.T, src, dsn string) (map[string]string, map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-p", "1", "-count", "1", "-timeout", "400s", "-json", "./...")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "PGX_TEST_DATABASE="+dsn, "PGX_TEST_TCP_CONN_STRING="+dsn, "GOFLAGS=-mod=mod")
	out, _ := cmd.Output() // failures are in the output
	got, said := map[string]string{}, map[string]string{}
	for _, line := range strings.Split(string(out), "\n") {
		var e struct{ Action, Package, Test, Output string }
		if json.Unmarshal([]byte(line), &e) != nil || e.Test == "" {
			continue
		}
		k := scratch.ReplaceAllString(strings.TrimPrefix(e.Package, "github.com/jackc/pgx/v5")+" "+e.Test, "")
		switch e.Action {
		case "pass", "fail", "skip":
			got[k] = e.Action
		case "output":
			said[k] += e.Output
		}
	}
	return got, said
}

// Every test of pgx's own suite that passes on a direct connection passes through the proxy, in transaction
// pooling, on a database of one shard.
func TestPgxsOwnSuite(t *testing.T) {
	dir := tools(t)
	d := newDemo(t, showcase.Options{Shards: 1, Replicas: 0, NoLoad: true})
	node := d.cluster.Node("s1-a")
	if err := node.Exec(t.Context(), "postgres", "create database pgx_test"); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"create extension hstore", "create extension ltree", "create domain uint64 as numeric(20,0)", `create user " tricky, ' } "" \\ test user " superuser password 'secret'`} {
		if err := node.Exec(t.Context(), "pgx_test", sql); err != nil {
			t.Fatal(err)
		}
	}
	direct := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password=%s dbname=pgx_test", node.Port, d.cluster.Password)
	cfg, err := passThrough(direct)
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(cfg.Direct.Folder)
	cfg.PoolSize = 100
	a := startApp(t, cfg)
	_, port, _ := net.SplitHostPort(a.Server.Addr())
	want, _ := verdicts(t, dir+"/pgx", direct)
	got, said := verdicts(t, dir+"/pgx", strings.Replace(direct, fmt.Sprintf("port=%d", node.Port), "port="+port, 1))
	var bad []string
	passed := 0
	for k, v := range want {
		if v != "pass" {
			continue
		}
		passed++
		if got[k] != "pass" {
			bad = append(bad, fmt.Sprintf("%s: %s\n%.600s", k, got[k], said[k]))
		}
	}
	sort.Strings(bad)
	t.Logf("%d tests pass on a direct connection, %d of them through the proxy; %d servers were found changed", passed, passed-len(bad), a.Pools.Strays())
	if passed < 2000 {
		t.Errorf("only %d tests ran", passed)
	}
	if len(bad) > 0 {
		t.Errorf("%d tests fail through the proxy only:\n%s", len(bad), strings.Join(bad, "\n"))
	}
	if p := pins(a); len(p) > 0 {
		t.Errorf("sessions are still pinned: %v", p)
	}
}
