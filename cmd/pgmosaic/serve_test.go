package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgmosaic/pgmosaic/proxy/config"
)

func TestAdminConsoleOverTheWire(t *testing.T) {
	t.Parallel()
	d := shop(t)
	for name, mode := range map[string]pgx.QueryExecMode{"simple": pgx.QueryExecModeSimpleProtocol, "extended": pgx.QueryExecModeCacheDescribe, "exec": pgx.QueryExecModeExec} {
		t.Run(name, func(t *testing.T) {
			c := connectTo(t, d.adminDSN())
			rows, err := c.Query(t.Context(), "SHOW REPLICAS WHERE role = 'replica' ORDER BY node DESC LIMIT 1", mode)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for rows.Next() {
				n++
				if v, _ := rows.Values(); fmt.Sprint(v[2]) != "s2-b" {
					t.Errorf("row %v", v)
				}
			}
			if rows.Err() != nil || n != 1 {
				t.Errorf("%v, %d rows", rows.Err(), n)
			}
			_, err = c.Exec(t.Context(), "SHOW NONSENSE", mode)
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != "42704" || pe.Position != 6 || pe.Hint == "" {
				t.Errorf("error %+v", pe)
			}
			_, err = c.Exec(t.Context(), "FROB THE SHARDS", mode)
			wantCode(t, err, "42601")
			for _, sql := range []string{
				"EXPLAIN ROUTE IN shop select * from orders where customer_id = 42", "LOCATE KEY (42) OF shop.customers", "SHOW MAP AS SQL", "HELP", "SHOW HELP",
				"SELECT 1", "PAUSE shop", "RESUME shop", "RECONNECT shop", "",
			} {
				if _, err := c.Exec(t.Context(), sql, mode); err != nil {
					t.Errorf("%s: %v", sql, err)
				}
			}
			for view := range map[string]bool{
				"databases": true, "shards": true, "nodes": true, "groups": true, "tables": true, "slots": true, "map": true, "map history": true, "pools": true, "clients": true,
				"stats": true, "transactions": true, "refusals": true, "lists": true, "config": true, "users": true, "state": true, "version": true,
			} {
				if _, err := c.Exec(t.Context(), "SHOW "+view, mode); err != nil {
					t.Errorf("SHOW %s: %v", view, err)
				}
			}
		})
	}
	out := run(t, d, "psql", d.adminDSN(), "-c", "show nodes", "-c", "show map as sql", "-c", "show config")
	if strings.Contains(out, d.cluster.Password) || !strings.Contains(out, "xxxxx") {
		t.Error("the console shows a password")
	}
	victim := connectTo(t, d.shopDSN())
	id := victim.PgConn().PID()
	d.adminExec(t, fmt.Sprintf("KILL_CLIENT %d", id))
	eventually(t, "the client is gone", func() bool { _, err := victim.Exec(t.Context(), "select 1"); return err != nil })
}

// The statements that the admin console gives rebuild the same map, on servers that have the same tables and nothing else of it.
func TestMapAsSQLRebuildsTheMap(t *testing.T) {
	t.Parallel()
	d := shop(t)
	shards := func(name string) (out []string) {
		for i := range 2 {
			node := d.cluster.Node([]string{"s1-a", "s2-a"}[i])
			phys := fmt.Sprintf("%s_%d", name, i)
			freshDatabase(t, node, phys)
			out = append(out, fmt.Sprintf("CREATE SHARD rebuilt_s%d IN rebuilt NODE '%s' NAME rebuilt_n%[1]d", i, node.DSN(phys)))
		}
		c := connectTo(t, d.cluster.Node("s1-a").DSN(name+"_0"))
		for _, sql := range []string{
			"create table hashed (k bigint, at int, e text unique, primary key (k, at))", "create table dated (day date primary key)", "create table listed (kind text primary key)", "create table codes (id int primary key)",
			"create schema tenant", "create table tenant.one (k int)", "create function touch() returns int language sql as 'select 1'",
		} {
			mustExec(t, c, sql)
		}
		return out
	}
	begin := func(steps []string) *app {
		a, err := stranger(t, nil, steps...)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	told := func(a *app) (list []string) {
		res, err := a.Admin.Exec(t.Context(), "SHOW MAP AS SQL", false)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range res.Rows {
			list = append(list, r[0].(string))
		}
		return list
	}
	first := begin(append(append([]string{"CREATE DATABASE rebuilt"}, shards("rebuilt")...),
		"CREATE GROUP h IN rebuilt KEY (bigint, int) BY HASH", "PIN KEY (7, 8) OF rebuilt.h ON rebuilt_s1",
		"CREATE GROUP r IN rebuilt KEY (date) BY RANGE (MINVALUE TO ('2026-01-01') ON rebuilt_s0, ('2026-01-01') TO MAXVALUE ON rebuilt_s1)",
		"CREATE GROUP l IN rebuilt KEY (text) BY LIST (('a', 'it''s') ON rebuilt_s0, ('c') ON rebuilt_s1, DEFAULT ON rebuilt_s1)",
		"DISTRIBUTE TABLE rebuilt.public.hashed IN GROUP h KEY (k, at) ALLOW LOCAL UNIQUE", "DISTRIBUTE TABLE rebuilt.public.dated IN GROUP r KEY (day)", "DISTRIBUTE TABLE rebuilt.public.listed IN GROUP l KEY (kind)",
		"DISTRIBUTE TABLE rebuilt.public.codes AS REFERENCE", "DISTRIBUTE SCHEMA rebuilt.tenant ON rebuilt_s1", "ALTER ROUTINE rebuilt.public.touch SHARD SAFE"))
	want := told(first)
	for _, sql := range want {
		if strings.Contains(sql, d.cluster.Password) {
			t.Errorf("it shows a password: %s", sql)
		}
	}
	first.stop(0)
	shards("rebuiltagain")
	var steps []string
	for _, sql := range want {
		if strings.HasPrefix(sql, "CREATE SHARD") {
			sql = strings.NewReplacer("xxxxx", d.cluster.Password, "/rebuilt_", "/rebuiltagain_").Replace(sql)
		}
		steps = append(steps, sql)
	}
	for i, sql := range told(begin(steps)) {
		if sql = strings.ReplaceAll(sql, "/rebuiltagain_", "/rebuilt_"); i >= len(want) || sql != want[i] {
			t.Errorf("rebuilt, the map says %s, in place of what is in\n%s", sql, strings.Join(want, "\n"))
		}
	}
}

// startApp runs a proxy of its own until the test ends.
func startApp(t testing.TB, cfg config.Config) *app {
	t.Helper()
	return startLogging(t, cfg, io.Discard)
}

// startLogging is startApp with a log.
func startLogging(t testing.TB, cfg config.Config, log io.Writer) *app {
	t.Helper()
	cfg.Listen, cfg.HTTP = "127.0.0.1:0", "off"
	a, err := startWith(t.Context(), cfg, slog.New(slog.NewJSONHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.stop(time.Second) })
	return a
}

func TestPassThroughForOneDatabase(t *testing.T) {
	t.Parallel()
	d := shop(t)
	// An ordinary role that owns nothing will do.
	mustExec(t, connectTo(t, d.cluster.Node("s1-a").DSN("postgres")), "create role plain login password 'plain'")
	defer func() {
		mustExec(t, connectTo(t, d.cluster.Node("s1-a").DSN("postgres")), "drop role plain")
	}()
	plain, err := passThrough(strings.Replace(d.cluster.Node("s1-a").DSN("postgres"), "postgres:"+d.cluster.Password, "plain:plain", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(plain.Direct.Folder)
	p := connectTo(t, "postgres://plain@"+startApp(t, plain).Server.Addr()+"/postgres")
	if who := queryOne[string](t, p, "select current_user::text"); who != "plain" {
		t.Errorf("logged in as %s", who)
	}
	if _, err := p.Exec(t.Context(), "begin; select 1; commit", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Error(err)
	}
	cfg, err := passThrough(d.cluster.Node("s1-a").DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(cfg.Direct.Folder)
	a := startApp(t, cfg)
	c := connectTo(t, "postgres://postgres@"+a.Server.Addr()+"/postgres")
	if n := queryOne[int](t, c, "with x as (select row_number() over () from generate_series(1, 10)) select count(*) from x"); n != 10 {
		t.Errorf("%d", n)
	}
	mustExec(t, c, "create table if not exists passed (a serial primary key, b text)")
	defer func() { mustExec(t, c, "drop table passed") }()
	mustExec(t, c, "insert into passed (b) values ('x'), ('y')")
	console := connectTo(t, "postgres://postgres@"+a.Server.Addr()+"/pgmosaic?default_query_exec_mode=simple_protocol")
	mustExec(t, console, "show pools")
	_, err = console.Exec(t.Context(), "pause postgres")
	wantCode(t, err, "42501") // without a password nobody changes anything
	if _, err := pgx.Connect(t.Context(), "postgres://app:app@"+a.Server.Addr()+"/postgres"); err == nil {
		t.Error("a user that nobody named was let in")
	} else {
		wantCode(t, err, "28P01")
	}
	if _, err := pgx.Connect(t.Context(), "postgres://postgres@"+a.Server.Addr()+"/other"); err == nil {
		t.Error("another database was reached")
	} else {
		wantCode(t, err, "3D000")
	}
}

func TestAuthQueryAndTLS(t *testing.T) {
	t.Parallel()
	d := shop(t)
	mustExec(t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "create role asked login password 'question'")
	defer func() {
		mustExec(t, connectTo(t, d.cluster.Node("s1-a").DSN("shop")), "drop role asked")
	}()
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	cfg := config.Default()
	cfg.Store, cfg.TLSCert, cfg.TLSKey = filepath.Join(dir, "map.json"), cert, key
	cfg.AuthQuery = "select rolname, rolpassword from pg_authid where rolname = $1"
	cfg.AdminUsers = []string{"asked"}
	cfg.Direct.Setup = []string{"CREATE DATABASE shop", fmt.Sprintf("CREATE SHARD s1 IN shop NODE '%s'", d.cluster.Node("s1-a").DSN("shop"))}
	a := startApp(t, cfg)
	good := "postgres://asked:question@" + a.Server.Addr() + "/shop?sslmode=require"
	// The proxy knows no password of the role: it logs in to the shard with the keys that the client proved.
	if who := queryOne[string](t, connectTo(t, good), "select current_user::text"); who != "asked" {
		t.Errorf("logged in as %s", who)
	}
	_, err := pgx.Connect(t.Context(), strings.Replace(good, "question", "guess", 1))
	wantCode(t, err, "28P01")
	_, err = pgx.Connect(t.Context(), strings.Replace(good, "asked", "nobody", 1))
	wantCode(t, err, "28P01")
	_, err = pgx.Connect(t.Context(), strings.Replace(good, "/shop", "/pgmosaic", 1))
	wantCode(t, err, "28P01") // admin power comes from the configuration alone
	cfg.Store = filepath.Join(dir, "map2.json")
	cfg.Users = []config.User{{Name: "asked", Password: "question"}}
	b := startApp(t, cfg)
	for _, mode := range []string{"require", "disable"} {
		c := connectTo(t, "postgres://asked:question@"+b.Server.Addr()+"/shop?sslmode="+mode)
		if got := queryOne[string](t, c, "select current_user::text"); got != "asked" {
			t.Errorf("logged in as %s", got)
		}
		big := queryOne[int](t, c, "select length(string_agg(repeat('x', 1000), '')) from generate_series(1, 3000)")
		if big != 3000000 {
			t.Errorf("%d", big)
		}
		if s := queryOne[string](t, c, "select repeat('y', 2000000)"); len(s) != 2000000 {
			t.Errorf("%d bytes", len(s))
		}
	}
}

// certificate writes a self-signed one for 127.0.0.1.
func certificate(t *testing.T, dir string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	kb, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: kb}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
