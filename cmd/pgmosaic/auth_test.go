package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// peerSerial is the serial number of the certificate that a proxy shows.
func peerSerial(t testing.TB, a *app) string {
	t.Helper()
	cfg, err := pgconn.ParseConfig(a.consoleDSN() + "?sslmode=require")
	if err != nil {
		t.Fatal(err)
	}
	var serial string
	cfg.TLSConfig.VerifyConnection = func(s tls.ConnectionState) error {
		serial = fmt.Sprintf("%x", s.PeerCertificates[0].Signature)
		return nil
	}
	c, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close(t.Context())
	return serial
}

// authority makes a certificate authority, and files of client certificates for the names.
func authority(t *testing.T, dir string, names ...string) string {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	write := func(file, kind string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	write("ca.pem", "CERTIFICATE", der)
	for i, n := range names {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: n}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, &key.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		kb, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(n+".pem", "CERTIFICATE", der)
		write(n+".key", "PRIVATE KEY", kb)
	}
	return filepath.Join(dir, "ca.pem")
}

func TestWaysToLogIn(t *testing.T) {
	t.Parallel()
	d := shop(t)
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	ca := authority(t, dir, "app", "stranger")
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	hba := write("hba.conf", `# TYPE DATABASE USER ADDRESS METHOD
hostssl  shop      app   127.0.0.1/32  cert map=people   # certificates
hostssl  all       plain 127.0.0.1 255.255.255.255 password
hostnossl all      plain 127.0.0.1/32  reject
host     all       all   all           scram-sha-256
`)
	a := small(t, d, 2, func(c *config.Config) {
		c.TLSCert, c.TLSKey, c.TLSCA, c.AuthHBA = cert, key, ca, hba
		c.AuthIdent = write("ident.conf", "people app app\npeople other plain\n")
		c.AuthFile = write("users.txt", "\"plain\" \"pla\"\"in\" \"\"\n; a comment\n\"listed\" \"SCRAM-SHA-256$4096:AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"\n")
	})
	as := func(user, pw, db, more string) error {
		c, err := pgx.Connect(t.Context(), dsnFor(user, pw, a.Server.Addr(), db)+more)
		if err == nil {
			_ = c.Close(t.Context())
		}
		return err
	}
	clientCert := func(n string) string {
		return fmt.Sprintf("?sslmode=require&sslcert=%s/%s.pem&sslkey=%s/%s.key", dir, n, dir, n)
	}
	if err := as("app", "", "shop", clientCert("app")); err != nil {
		t.Errorf("by certificate: %v", err)
	}
	wantCode(t, as("app", "app", "shop", clientCert("stranger")), "28000")
	wantCode(t, as("app", "app", "shop", "?sslmode=require"), "28000") // no certificate
	if err := as("app", "app", "shop", "?sslmode=disable"); err != nil {
		t.Errorf("by SCRAM: %v", err)
	}
	// The password itself goes over TLS only. The shard does not know the role: the login is right if it says so.
	wantCode(t, as("plain", `pla"in`, "shop", "?sslmode=require"), "28P01") // from the node, as below
	if err := as("plain", `pla"in`, "shop", "?sslmode=require"); err == nil || !strings.Contains(err.Error(), "node") {
		t.Errorf("password over TLS: %v", err)
	}
	if err := as("plain", "wrong", "shop", "?sslmode=require"); err == nil || strings.Contains(err.Error(), "node") {
		t.Errorf("a wrong password over TLS: %v", err)
	}
	wantCode(t, as("plain", `pla"in`, "shop", "?sslmode=disable"), "28000")
	// Channel binding: required, and refused where the client says that it saw no offer.
	if err := as("admin", "admin", "pgmosaic", "?sslmode=require&channel_binding=require&default_query_exec_mode=simple_protocol"); err != nil {
		t.Errorf("SCRAM-SHA-256-PLUS: %v", err)
	}
	if err := as("admin", "admin", "pgmosaic", "?sslmode=disable&channel_binding=require"); err == nil {
		t.Error("channel binding without TLS")
	}
	wantCode(t, as("listed", "x", "shop", "?sslmode=disable"), "28P01")
}

// clientcert=verify-full asks for a certificate in the user's name, or in one that a map has for it, besides the method; verify-ca for any.
func TestACertificateBesidesIsTheUsers(t *testing.T) {
	t.Parallel()
	d := shop(t)
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	ca := authority(t, dir, "app", "stranger")
	hba, ident := filepath.Join(dir, "hba.conf"), filepath.Join(dir, "ident.conf")
	for file, text := range map[string]string{
		hba:   "hostssl shop app all scram-sha-256 clientcert=verify-full\nhostssl pgbouncer admin all scram-sha-256 clientcert=verify-full map=people\nhostssl all all all scram-sha-256 clientcert=verify-ca\n",
		ident: "people stranger admin\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := small(t, d, 2, func(c *config.Config) {
		c.TLSCert, c.TLSKey, c.TLSCA, c.AuthHBA, c.AuthIdent = cert, key, ca, hba, ident
	})
	for _, x := range []struct {
		user, db, cert, password string
		in                       bool
	}{
		{"app", "shop", "app", "app", true},
		{"app", "shop", "stranger", "app", false},
		{"app", "shop", "app", "wrong", false},
		{"admin", "pgmosaic", "stranger", "admin", true}, // by the map, and the console's other name
		{"admin", "pgmosaic", "app", "admin", false},
		{"admin", "pgbouncer", "app", "admin", false},
		{"admin", "nosuch", "stranger", "admin", true}, // any certificate will do
	} {
		c, err := pgx.Connect(t.Context(), dsnFor(x.user, x.password, a.Server.Addr(), x.db)+
			fmt.Sprintf("?sslmode=require&default_query_exec_mode=simple_protocol&sslcert=%[1]s/%[2]s.pem&sslkey=%[1]s/%[2]s.key", dir, x.cert))
		if err == nil {
			_ = c.Close(t.Context())
		}
		var pe *pgconn.PgError
		refused := errors.As(err, &pe) && strings.HasPrefix(pe.Code, "28")
		if x.in == refused || !x.in && err == nil {
			t.Errorf("%s in %s with the certificate of %s: %v", x.user, x.db, x.cert, err)
		}
	}
}

// Who brings many wrong passwords at once is judged when each comes, and not only when it was asked for.
func TestManyWrongPasswordsAtOnceAreTurnedAway(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, func(c *config.Config) { c.AuthTries = 3 })
	var all []*wire.Conn
	step := func(c *wire.Conn) wire.Message {
		t.Helper()
		m, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for range 12 {
		nc, err := net.Dial("tcp", a.Server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		c := wire.New(nc, 1<<20)
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		startup := "\x00\x03\x00\x00user\x00app\x00database\x00shop\x00\x00"
		first := "n,,n=,r=abcdefgh"
		packet := append(binary.BigEndian.AppendUint32(nil, uint32(len(startup)+4)), startup...)
		if err := errors.Join(c.Write(packet), c.Flush()); err != nil {
			t.Fatal(err)
		}
		step(c)
		c.SendFrame('p', append(binary.BigEndian.AppendUint32([]byte("SCRAM-SHA-256\x00"), uint32(len(first))), first...))
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		said, ok := strings.CutPrefix(string(step(c).Body()[4:]), "r=")
		if !ok {
			t.Fatalf("it says %s", said)
		}
		nonce, _, _ := strings.Cut(said, ",")
		c.SendFrame('p', []byte("c=biws,r="+nonce+",p="+strings.Repeat("A", 43)+"="))
		all = append(all, c)
	}
	codes := map[string]int{}
	for _, c := range all {
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		codes[wire.ParseError(step(c).Body()).Code]++
	}
	if codes["28P01"] != 3 || codes["28000"] != 9 {
		t.Errorf("with auth_failures = 3 they hear %v", codes)
	}
}

func TestTooManyFailedLoginsAreTurnedAway(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, func(c *config.Config) { c.AuthTries = 3 })
	for range 3 {
		_, err := pgx.Connect(t.Context(), dsnFor("app", "wrong", a.Server.Addr(), "shop"))
		wantCode(t, err, "28P01")
	}
	_, err := pgx.Connect(t.Context(), a.dsn())
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "28000" || !strings.Contains(pe.Message, "auth_failures = 3") {
		t.Errorf("%v", err)
	}
}

// What a stranger names before login, and what a user names that does not exist, is kept nowhere.
func TestNothingIsKeptUnderNamesThatDoNotExist(t *testing.T) {
	t.Parallel()
	d := shop(t)
	a := small(t, d, 2, nil)
	before := a.Metrics.FailedLogins.Load()
	for i := range 3 {
		name := fmt.Sprintf("nosuch%d", i)
		_, err := pgx.Connect(t.Context(), dsnFor("app", "wrong", a.Server.Addr(), name))
		wantCode(t, err, "28P01")
		_, err = pgx.Connect(t.Context(), dsnFor("app", "app", a.Server.Addr(), name))
		wantCode(t, err, "3D000")
	}
	if n := a.Metrics.FailedLogins.Load() - before; n != 3 {
		t.Errorf("%d failed logins counted", n)
	}
	for _, name := range a.Metrics.Databases() {
		if strings.HasPrefix(name, "nosuch") {
			t.Errorf("database %s has counters", name)
		}
	}
}

// Two processes on one port: a client's cancel request may reach the wrong one, which passes it on.
func TestCancelIsPassedOnBetweenProcesses(t *testing.T) {
	t.Parallel()
	d := shop(t)
	addrs := [2]string{freeAddress(t), freeAddress(t)}
	var apps [2]*app
	for i := range apps {
		apps[i] = small(t, d, 2, func(c *config.Config) {
			c.PeerID, c.PeerListen, c.ReusePort = i+1, addrs[i], true
			c.Peers = []config.Peer{{ID: 2 - i, Address: addrs[1-i]}}
		})
	}
	c := connectTo(t, apps[0].dsn())
	done := make(chan error, 1)
	go func() { _, err := c.Exec(t.Context(), "select pg_sleep(20)"); done <- err }()
	watcher := connectTo(t, d.cluster.Node("s1-a").DSN("shop"))
	eventually(t, "it runs", func() bool {
		return queryOne[int](t, watcher, "select count(*) from pg_stat_activity where query = 'select pg_sleep(20)' and state = 'active'") == 1
	})
	if err := wire.SendCancel(apps[1].Server.Addr(), c.PgConn().PID(), c.PgConn().SecretKey()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-done, "57014")
}

// startedLogin is a connection that has said who it is.
func startedLogin(t *testing.T, network, addr, user, database string) *wire.Conn {
	t.Helper()
	nc, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	c := wire.New(nc, 1<<20)
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	startup := "\x00\x03\x00\x00user\x00" + user + "\x00database\x00" + database + "\x00\x00"
	if err := errors.Join(c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(startup)+4)), startup...)), c.Flush()); err != nil {
		t.Fatal(err)
	}
	return c
}

// verifier is what PostgreSQL stores of a password that was hashed so often.
func verifier(t *testing.T, password string, iterations int) string {
	t.Helper()
	key, err := pbkdf2.Key(sha256.New, password, []byte("0123456789abcdef"), iterations, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	of := func(text string) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(of("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64([]byte("0123456789abcdef")), b64(stored[:]), b64(of("Server Key")))
}

// Of passwords that wait for a processor together no more are looked at than may fail, and the right one behind them is not.
func TestManyPasswordsAtOnceAreTurnedAway(t *testing.T) {
	t.Parallel()
	d := shop(t)
	dir := t.TempDir()
	hba := filepath.Join(dir, "hba.conf")
	if err := os.WriteFile(hba, []byte("local all all password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := small(t, d, 2, func(c *config.Config) {
		c.AuthTries, c.UnixDir, c.AuthHBA = 3, dir, hba
		c.Users = append(c.Users, config.User{Name: "slow", Verifier: verifier(t, "right", 100_000)})
	})
	_, port, _ := strings.Cut(a.Server.Addr(), ":")
	var all []*wire.Conn
	for i := range 16 {
		c := startedLogin(t, "unix", filepath.Join(dir, ".s.PGSQL."+port), "slow", "shop")
		if _, err := c.Next(); err != nil { // it asks for the password
			t.Fatal(err)
		}
		password := "wrong"
		if i == 15 {
			password = "right"
		}
		c.SendFrame('p', []byte(password+"\x00"))
		all = append(all, c)
	}
	for _, c := range all {
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	codes := map[string]int{}
	for _, c := range all {
		m, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		if m.Type == 'R' {
			codes["let in"]++
			continue
		}
		codes[wire.ParseError(m.Body()).Code]++
	}
	if codes["28P01"] > 3 || codes["28P01"]+codes["28000"]+codes["let in"] != 16 {
		t.Errorf("with auth_failures = 3 they hear %v", codes)
	}
}

// Wrong passwords of somebody else from the same address are nothing to who is not asked for one, and certificates that name others bar nobody.
func TestWhoNeedsNoPasswordIsNotTurnedAway(t *testing.T) {
	t.Parallel()
	d := shop(t)
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	ca := authority(t, dir, "app", "stranger")
	hba := filepath.Join(dir, "hba.conf")
	if err := os.WriteFile(hba, []byte("local shop app trust\nlocal all all scram-sha-256\nhostssl shop app all cert\nhost all all all scram-sha-256\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := small(t, d, 2, func(c *config.Config) {
		c.AuthTries, c.UnixDir, c.AuthHBA = 3, dir, hba
		c.TLSCert, c.TLSKey, c.TLSCA = cert, key, ca
	})
	_, port, _ := strings.Cut(a.Server.Addr(), ":")
	as := func(dsn string) error {
		c, err := pgx.Connect(t.Context(), dsn)
		if err == nil {
			_ = c.Close(t.Context())
		}
		return err
	}
	local := func(password, db string) error {
		return as(fmt.Sprintf("host=%s port=%s user=app password=%s dbname=%s", dir, port, password, db))
	}
	certified := func(name string) error {
		return as(dsnFor("app", "", a.Server.Addr(), "shop") + fmt.Sprintf("?sslmode=require&sslcert=%[1]s/%[2]s.pem&sslkey=%[1]s/%[2]s.key", dir, name))
	}
	for range 3 {
		wantCode(t, local("wrong", "pgmosaic"), "28P01")
		wantCode(t, as(dsnFor("app", "wrong", a.Server.Addr(), "pgmosaic")+"?sslmode=disable"), "28P01")
	}
	wantCode(t, local("wrong", "pgmosaic"), "28000")
	if err := local("any", "shop"); err != nil {
		t.Errorf("by trust: %v", err)
	}
	for range 4 {
		wantCode(t, certified("stranger"), "28000")
	}
	if err := certified("app"); err != nil {
		t.Errorf("by certificate: %v", err)
	}
}
