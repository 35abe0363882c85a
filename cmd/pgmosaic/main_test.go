package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

var (
	rewrite  = flag.Bool("rewrite", false, "rewrite the generated pages")
	diffN    = flag.Int("diff.n", 200, "random statements of the differential test")
	diffSeed = flag.Uint64("diff.seed", 1, "their seed")
	diffWide = flag.String("diff.widths", "2,1,3", "over how many shards: keys go by hash over 1 and 2, by range and list over 3, by hash with pinned ones over 7")
)

// servesEnv makes this binary the proxy, for tests that kill one.
const servesEnv = "PGMOSAIC_TEST_SERVES"

// keepsEnv makes it a process that starts a proxy with the configuration that is named, as a test does, and waits.
const keepsEnv = "PGMOSAIC_TEST_KEEPS"

// serving is a proxy with a configuration, as a process that ends with this one.
func serving(config string, log io.Writer) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "serve", "-c", config)
	cmd.Env, cmd.Stderr, cmd.SysProcAttr = append(os.Environ(), servesEnv+"=1"), log, diesWithUs()
	return cmd
}

// keep is what a process with keepsEnv does. It has what the proxy says on its standard output.
func keep(config string) {
	cmd := serving(config, os.Stdout)
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("pid", cmd.Process.Pid)
	_ = cmd.Wait()
}

func TestMain(m *testing.M) {
	if os.Getenv(servesEnv) != "" {
		main()
		return
	}
	if config := os.Getenv(keepsEnv); config != "" {
		keep(config)
		return
	}
	flag.Parse()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // to collect garbage was most of this process's own work; the servers of the tests have more of it
	}
	env := os.Environ()
	giveBack, err := ownTemp()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	others, err := startBeside(env)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := max(m.Run(), others.wait())
	if err := errors.Join(stopWorlds(), giveBack()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// ownTemp gives this process a temporary folder of its own, which nothing of the tests outlives, and removes those of tests that crashed. It
// returns how the folder is given back.
func ownTemp() (func() error, error) {
	const pattern = "pgmosaic-tests-*"
	if inMemory() {
		if err := os.Setenv("TMPDIR", ram); err != nil {
			return nil, err
		}
	}
	stale, _ := filepath.Glob(filepath.Join(os.TempDir(), pattern, "lock")) // the pattern is well-formed
	for _, name := range stale {
		lock, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			continue // it has just been removed
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil { // its owner is dead
			dir := filepath.Dir(name)
			cluster.RemoveStale(filepath.Join(dir, "*", "nodes"))
			_ = os.RemoveAll(dir) // what stays is tried again
		}
		_ = lock.Close()
	}
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		return nil, err
	}
	lock, err := os.Create(filepath.Join(dir, "lock.new"))
	if err != nil {
		return nil, err
	}
	err = errors.Join(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX), os.Rename(lock.Name(), filepath.Join(dir, "lock")),
		os.Chmod(dir, 0o755), os.Setenv("TMPDIR", dir)) // the servers' user gets there
	return func() error { return errors.Join(os.RemoveAll(dir), lock.Close()) }, err
}

// testDir is a folder that the server's user can reach.
func testDir() (string, error) {
	dir, err := os.MkdirTemp("", "demo-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

func cleanTestDir(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func needServers(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts servers, and -short was asked for")
	}
}

// testServers is how the tests' servers are made. What a server that is killed has written is the system's to keep; only the system never
// dies here. Their superuser's password, with which tests and proxies open many thousand connections, is checked by md5: SCRAM takes longer
// than all else of a connection; roles that are made later have it all the same. Memory that they share is in their own folders: what one that is
// killed has elsewhere, nobody removes. Their databases do not live long enough to be vacuumed.
func testServers() cluster.Options {
	return cluster.Options{
		Settings: []string{
			"fsync = off", "autovacuum = off", "full_page_writes = off", "dynamic_shared_memory_type = 'mmap'",
			"wal_init_zero = off", "wal_recycle = off", "wal_keep_size = '64MB'", "max_wal_size = '96MB'", "min_wal_size = '32MB'", // their files may be in memory
		},
		Auth:     "md5",
		Template: filepath.Join(os.TempDir(), "template"), // this process's own, as ownTemp has it
	}
}

// newDemo starts a demo of this test's own, which it may break.
func newDemo(t testing.TB, o showcase.Options) *demo {
	t.Helper()
	needServers(t)
	dir, err := testDir()
	if err != nil {
		t.Fatal(err)
	}
	o.Dir, o.Listen, o.HTTP, o.Servers = dir, "127.0.0.1:0", "127.0.0.1:0", testServers()
	if o.PoolSize == 0 {
		o.PoolSize = 20
	}
	d, err := startCopy(t.Context(), o)
	if err != nil {
		cleanTestDir(dir)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.stop() // nodes that the test killed complain
		_ = d.cluster.Destroy()
		cleanTestDir(dir)
	})
	return d
}

func (d *demo) shopDSN() string  { return dsnFor("app", "app", d.Server.Addr(), "shop") }
func (d *demo) adminDSN() string { return dsnFor("admin", "admin", d.Server.Addr(), "pgmosaic") }

// freeAddress is an address on this machine that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	port, err := cluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func connectTo(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// adminExec runs admin SQL and fails the test if it fails.
func (d *demo) adminExec(t testing.TB, sql string) [][]any {
	t.Helper()
	res, err := d.Admin.Exec(t.Context(), sql, false)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return res.Rows
}

func mustExec(t testing.TB, c *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// freshDatabase makes an empty database on a server, owned by the application's role.
func freshDatabase(t testing.TB, n *cluster.Node, name string) {
	t.Helper()
	c := connectTo(t, n.DSN("postgres"))
	mustExec(t, c, "drop database if exists "+name+" with (force)")
	mustExec(t, c, "create database "+name+" owner app")
}

func queryOne[T any](t testing.TB, c *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := c.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// client finds a PostgreSQL client program.
func client(t testing.TB, name string) string {
	t.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) > 0 {
		return found[len(found)-1]
	}
	t.Fatalf("%s is needed: install postgresql-client and postgresql-contrib", name)
	return ""
}

// run runs a program against the shop and returns what it printed.
func run(t testing.TB, d *demo, name string, args ...string) string {
	t.Helper()
	host, port, _ := strings.Cut(d.Server.Addr(), ":")
	cmd := exec.CommandContext(t.Context(), client(t, name), args...)
	cmd.Env = append(os.Environ(), "PGHOST="+host, "PGPORT="+port, "PGUSER=app", "PGPASSWORD=app", "PGDATABASE=shop", "PSQLRC=/dev/null", "PAGER=cat", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// begun waits until a statement that holds a text runs on a server.
func begun(t testing.TB, server *pgx.Conn, what, text string) {
	t.Helper()
	eventually(t, what+" runs", func() bool {
		return queryOne[bool](t, server, "select exists (select from pg_stat_activity where query like '%' || $1 || '%' and state = 'active' and pid <> pg_backend_pid())", text)
	})
}

// eventually waits for a condition that takes the system some time.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	within(t, time.Minute, what, cond)
}

// within waits for a condition. The span is for a machine with much else to do: nothing is proved by it.
func within(t testing.TB, span time.Duration, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(span)
	for !cond() {
		if time.Now().After(end) {
			t.Fatalf("it did not happen within %s: %s", span, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
