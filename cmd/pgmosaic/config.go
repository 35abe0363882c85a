package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/pgmosaic/pgmosaic/proxy"
	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/exec"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/session"
	"github.com/pgmosaic/pgmosaic/replication"
)

// Config is pgmosaic.yaml. The shard map is not in it: that is changed by SQL. Names and defaults are PgBouncer's
// where it has the same setting. RELOAD and SIGHUP take every change into use but those marked "restart".
type Config struct {
	Listen     string       `yaml:"listen"`             // where clients connect; restart
	UnixDir    string       `yaml:"unix_socket_dir"`    // none: no Unix socket; restart
	UnixMode   string       `yaml:"unix_socket_mode"`   // of the Unix socket; restart
	ReusePort  bool         `yaml:"so_reuseport"`       // a process that starts beside this one, with the same file, takes the ports and the Unix socket over: nobody is refused; restart
	PeerID     int          `yaml:"peer_id"`            // this process's number among peers, 1 to 1023; default: one drawn by chance; restart
	PeerListen string       `yaml:"peer_listen"`        // address on which peers pass cancel requests on; restart
	Peers      []PeerConfig `yaml:"peers"`              // the other processes
	PeerKey    string       `yaml:"peer_key"`           // what they share, 16 characters or more, or file: or env: reference: with it they find deadlocks over processes
	HTTP       string       `yaml:"http"`               // dashboard, /metrics, /healthz, /readyz; "off" for none; asks for a login unless on loopback; restart
	HTTPCert   string       `yaml:"http_tls_cert_file"` // with http_tls_key_file: the page, its API and /metrics are served over TLS only; to begin or end with it: restart
	HTTPKey    string       `yaml:"http_tls_key_file"`  // the key of http_tls_cert_file
	TLSCert    string       `yaml:"tls_cert_file"`      // with tls_key_file: clients may use TLS
	TLSKey     string       `yaml:"tls_key_file"`       // the key of tls_cert_file
	Proxied    []string     `yaml:"proxy_protocol"`     // addresses and networks, of balancers, whose connections all begin with a PROXY protocol header, version 1 or 2: it says where the client is
	TLSCA      string       `yaml:"tls_ca_file"`        // whose client certificates are trusted
	Store      string       `yaml:"store"`              // the shard map's file; it may hold the nodes' passwords; restart

	AdminUsers []string     `yaml:"admin_users"`     // may change the map
	StatsUsers []string     `yaml:"stats_users"`     // may SHOW
	ShardUsers []string     `yaml:"shard_users"`     // may set pgmosaic.shard, which sends statements to one shard; "*": everybody
	Users      []UserConfig `yaml:"users"`           // users that the proxy itself checks
	AuthFile   string       `yaml:"auth_file"`       // more users, in the format of PgBouncer's userlist.txt
	AuthQuery  string       `yaml:"auth_query"`      // for users not listed: SELECT name, verifier FROM ... WHERE name = $1, run on home, or on another shard while home is away, with the search_path pg_catalog, over one connection; answers are kept for 10 s
	AuthRules  []RuleConfig `yaml:"auth_rules"`      // first match decides; default: scram-sha-256 from anywhere
	AuthHBA    string       `yaml:"auth_hba_file"`   // in place of auth_rules: rules in the format of pg_hba.conf
	AuthIdent  string       `yaml:"auth_ident_file"` // maps for method cert, in the format of pg_ident.conf
	AuthTries  int          `yaml:"auth_failures"`   // failed logins of one user from one address within a minute before it is turned away; an address that fails ten times as often, and administrators on their console, wait a second instead; 0: no limit
	InitSQL    string       `yaml:"init_sql"`        // admin SQL, run once when the map is empty

	PoolSize     int      `yaml:"default_pool_size"`           // servers for each node, database and role
	MinPool      int      `yaml:"min_pool_size"`               // servers kept open while anybody uses the pool
	GatherPool   int      `yaml:"gather_pool_size"`            // servers on home for statements that gather rows, for each database and role
	Reserve      int      `yaml:"reserve_pool_size"`           // servers beyond default_pool_size for clients that waited too long
	ReserveAfter duration `yaml:"reserve_pool_timeout"`        // how long a client waits before the reserve is used
	MaxDB        int      `yaml:"max_db_connections"`          // 0: servers of one database, over all nodes and roles
	MaxUser      int      `yaml:"max_user_connections"`        // 0: servers of one role
	MaxClients   int      `yaml:"max_client_conn"`             // clients that have logged in; ten administrators more are let in all the same
	MaxDBClient  int      `yaml:"max_db_client_connections"`   // 0: clients of one database
	MaxUsrClient int      `yaml:"max_user_client_connections"` // 0: clients of one user
	MaxPrepared  int      `yaml:"max_prepared_statements"`     // kept for each server connection
	MaxStatement string   `yaml:"max_statement_size"`          // longest message that a client may send, but for COPY data; restart

	QueryWait   duration `yaml:"query_wait_timeout"`       // how long a statement waits for a server
	Connect     duration `yaml:"server_connect_timeout"`   // for opening a server connection, login included
	Lifetime    duration `yaml:"server_lifetime"`          // age at which an idle server connection is replaced; never all at once
	Idle        duration `yaml:"server_idle_timeout"`      // how long an unused server connection is kept
	LoginRetry  duration `yaml:"server_login_retry"`       // how long a refused login to a server is remembered
	DNSTTL      duration `yaml:"dns_max_ttl"`              // how often nodes' names are looked up; connections to an address that is gone are replaced
	Login       duration `yaml:"client_login_timeout"`     // for a client to log in; restart
	ClientIdle  duration `yaml:"client_idle_timeout"`      // outside a transaction; 0: no limit, as the three below
	IdleTx      duration `yaml:"idle_transaction_timeout"` // inside one, between statements
	Transaction duration `yaml:"transaction_timeout"`      // for a whole transaction
	Query       duration `yaml:"query_timeout"`            // for one request: it is cancelled, the session lives on; its servers are cut off if they have not stopped after 10 s, and a session whose client does not take its rows ends after 20 s
	Drain       duration `yaml:"drain_timeout"`            // for running transactions at shutdown
	Monitor     duration `yaml:"monitor_interval"`         // how often nodes are probed; restart

	MaxLag         duration `yaml:"max_staleness"`              // lag at which a replica leaves the reads; restart
	Consistency    string   `yaml:"read_consistency"`           // strong, causal, session, bounded, eventual; restart
	Fallback       string   `yaml:"replica_fallback"`           // primary, error: where a read goes that no replica is fit for; restart
	Zone           string   `yaml:"zone"`                       // where this process is: replicas of this zone are read first; restart
	Buffer         duration `yaml:"failover_buffer"`            // how long after a shard's primary was lost new work for it waits for the next, up to 30s; 0: not at all; restart
	BufferRequests int      `yaml:"failover_buffer_requests"`   // how many requests of a shard may wait so; restart
	BufferSize     string   `yaml:"failover_buffer_size"`       // bytes of their statements; restart
	Hook           string   `yaml:"failover_hook"`              // shell command that is told when a shard loses its primary or has another: PGMOSAIC_EVENT (primary_lost, primary), PGMOSAIC_DATABASE, PGMOSAIC_SHARD, PGMOSAIC_NODE
	GatherLimit    string   `yaml:"gather_limit"`               // bytes of rows that one statement may gather on home, or hold in a merge; 0: no limit; restart
	MergeMemory    string   `yaml:"merge_memory"`               // bytes that the merges of all sessions may hold; 0: no limit; restart
	Memory         string   `yaml:"memory_limit"`               // bytes of the process: near it garbage is collected harder, and what would make plans, prepared statements, merges and parsing hold more than half of it is refused (53200); empty: three quarters of the machine's or cgroup's; 0: no limit; restart
	SessionMemory  string   `yaml:"session_memory_limit"`       // bytes that the prepared statements of one session may hold; 0: no limit; restart
	Commit         string   `yaml:"multi_shard_commit"`         // two_phase, refuse, best_effort: sessions may SET pgmosaic.multi_shard_commit; restart
	Resolve        duration `yaml:"resolver_interval"`          // how often what a crash left prepared is looked for; restart
	Grace          duration `yaml:"resolver_grace"`             // how long that is left to its own process; outcomes are kept for six times that; restart
	Verify         duration `yaml:"verify_interval"`            // how often the copies of each reference table are compared in the background; 0: never. restart
	LogLevel       string   `yaml:"log_level"`                  // debug, info, warn, error
	LogFormat      string   `yaml:"log_format"`                 // text, json; restart
	LogSlow        duration `yaml:"log_min_duration_statement"` // statements that take at least so long are logged; 0: none
	LogFailed      bool     `yaml:"log_failed_statements"`      // statements that end with an error are logged
	LogRefused     bool     `yaml:"log_refused_statements"`     // statements that no plan can answer are logged, with the rule
	LogParams      bool     `yaml:"log_parameters"`             // with their literals and parameters, which may be secrets, in SHOW REFUSALS and on the page too; false: hidden
	Traces         string   `yaml:"otlp_endpoint"`              // URL of an OpenTelemetry collector that takes OTLP over HTTP, such as http://127.0.0.1:4318; empty: no traces; restart
	TraceShare     float64  `yaml:"trace_sample_ratio"`         // share of the statements that are traced, besides those that carry a sampled traceparent; restart

	file string // where it was read from; empty for none

	// Of serve --database only.
	trustUser string   // the DSN's own user, who enters from loopback without a password
	initSteps []string // admin SQL that makes the map
	scratch   string   // a temporary folder to remove at the end
}

// PeerConfig is another process that shares this one's clients.
type PeerConfig struct {
	ID      int    `yaml:"id"`      // the other's peer_id
	Address string `yaml:"address"` // its peer_listen
}

// UserConfig is a user that the proxy itself checks.
type UserConfig struct {
	Name     string `yaml:"name"`            // the user
	Password string `yaml:"password"`        // the password, or file: or env: reference
	Verifier string `yaml:"scram_verifier"`  // instead of the password: SCRAM-SHA-256$...
	Server   string `yaml:"server_password"` // what the shards are told; default: password
}

// RuleConfig is one authentication rule.
type RuleConfig struct {
	Database string `yaml:"database"` // a name; default: all
	User     string `yaml:"user"`     // a name; default: all
	Address  string `yaml:"address"`  // a network such as 10.0.0.0/8; default: all
	TLS      bool   `yaml:"tls"`      // only over TLS
	Local    bool   `yaml:"local"`    // only over the Unix socket
	Method   string `yaml:"method"`   // scram-sha-256, password, cert, trust, reject
}

// duration reads 500ms, 10s, 2min.
type duration time.Duration

// UnmarshalYAML implements yaml's interface for bytes.
func (d *duration) UnmarshalYAML(b []byte) error {
	s := strings.Trim(strings.TrimSpace(string(b)), `"'`)
	v, err := time.ParseDuration(strings.Replace(s, "min", "m", 1))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no time: write 500ms, 10s or 2min", s)
	}
	*d = duration(v)
	return nil
}

func defaultConfig() Config {
	return Config{
		Listen: "127.0.0.1:6432", HTTP: "127.0.0.1:8432", ShardUsers: []string{"*"}, Store: "pgmosaic.map.json", PoolSize: 20, GatherPool: 5, GatherLimit: "64MB", MergeMemory: "512MB", SessionMemory: "64MB", MaxClients: 10000, MaxStatement: "64MB", UnixMode: "0777", AuthTries: 20, MaxPrepared: 200,
		ReserveAfter: duration(5 * time.Second), QueryWait: duration(120 * time.Second), Connect: duration(15 * time.Second), Lifetime: duration(time.Hour),
		Idle: duration(10 * time.Minute), LoginRetry: duration(15 * time.Second), DNSTTL: duration(15 * time.Second),
		Login: duration(60 * time.Second), Drain: duration(30 * time.Second), Monitor: duration(100 * time.Millisecond), MaxLag: duration(10 * time.Second),
		Fallback: "primary", Buffer: duration(10 * time.Second), BufferRequests: 1000, BufferSize: "64MB",
		Consistency: "causal", Commit: "two_phase", Resolve: duration(2 * time.Second), Grace: duration(10 * time.Second), Verify: duration(6 * time.Hour), LogRefused: true, TraceShare: 0.01, LogLevel: "info", LogFormat: "text",
	}
}

// loadConfig reads a file strictly: an unknown key is an error with its place and the nearest known key.
func loadConfig(path string) (Config, error) {
	c := defaultConfig()
	c.file = path
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	if err := decodeYAML(b, &c); err != nil && len(bytes.TrimSpace(b)) > 0 {
		return c, fmt.Errorf("%s: %s", path, explainYAML(err))
	}
	return c, c.validate()
}

// decodeYAML reads a document strictly. The decoder panics on some malformed tags: that is an error like others.
func decodeYAML(b []byte, c *Config) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not valid YAML: %v", p)
		}
	}()
	return yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(c)
}

var unknownField = regexp.MustCompile(`unknown field "([^"]+)"`)

// explainYAML adds the nearest known key to the decoder's message, which has line and column.
func explainYAML(err error) string {
	msg := yaml.FormatError(err, false, true)
	m := unknownField.FindStringSubmatch(msg)
	if m == nil {
		return msg
	}
	best, dist := "", 1<<30
	for _, k := range knownKeys() {
		if d := distance(m[1], k); d < dist {
			best, dist = k, d
		}
	}
	return msg + fmt.Sprintf("\nDid you mean %q?", best)
}

func knownKeys() []string {
	var out []string
	for _, t := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[UserConfig](), reflect.TypeFor[RuleConfig](), reflect.TypeFor[PeerConfig]()} {
		for i := range t.NumField() {
			if tag := t.Field(i).Tag.Get("yaml"); tag != "" {
				out = append(out, tag)
			}
		}
	}
	return out
}

// distance is the edit distance of two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			prev, row[j] = row[j], min(row[j]+1, row[j-1]+1, prev+cost)
		}
	}
	return row[len(b)]
}

// maxSocketPath is how long the path of a Unix socket may be, in bytes: Linux has room for that and a zero.
const maxSocketPath = 107

func (c *Config) validate() error {
	var errs []error
	bad := func(key, format string, args ...any) { errs = append(errs, fmt.Errorf(key+": "+format, args...)) }
	if _, err := replication.ParseLevel(c.Consistency); err != nil {
		bad("read_consistency", "%q is none of strong, causal, session, bounded, eventual", c.Consistency)
	}
	if !slices.Contains(exec.Fallbacks(), c.Fallback) {
		bad("replica_fallback", "%q is none of %s", c.Fallback, strings.Join(exec.Fallbacks(), ", "))
	}
	if time.Duration(c.Buffer) > 30*time.Second {
		bad("failover_buffer", "must be at most 30s: clients should not wait longer")
	}
	if _, err := exec.ParseSize(c.BufferSize); err != nil {
		bad("failover_buffer_size", "%v", err)
	}
	if !slices.Contains(exec.Commits, c.Commit) {
		bad("multi_shard_commit", "%q is none of %s", c.Commit, strings.Join(exec.Commits, ", "))
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		bad("tls_cert_file", "it needs tls_key_file, and the other way round")
	}
	if (c.HTTPCert == "") != (c.HTTPKey == "") {
		bad("http_tls_cert_file", "it needs http_tls_key_file, and the other way round")
	}
	if n, err := exec.ParseSize(c.MaxStatement); err != nil {
		bad("max_statement_size", "%v", err)
	} else if n < 1024 || n > 1<<30 {
		bad("max_statement_size", "must be from 1kB to 1GB")
	}
	if c.GatherPool < 1 {
		bad("gather_pool_size", "must be at least 1")
	}
	if _, err := exec.ParseSize(c.GatherLimit); err != nil {
		bad("gather_limit", "%v", err)
	}
	if _, err := exec.ParseSize(c.MergeMemory); err != nil {
		bad("merge_memory", "%v", err)
	}
	if _, err := c.memoryLimit(); err != nil {
		bad("memory_limit", "%v", err)
	}
	if _, err := exec.ParseSize(c.SessionMemory); err != nil {
		bad("session_memory_limit", "%v", err)
	}
	if c.PoolSize < 1 {
		bad("default_pool_size", "must be at least 1")
	}
	for _, n := range []struct {
		name string
		v    int
	}{
		{"min_pool_size", c.MinPool},
		{"reserve_pool_size", c.Reserve},
		{"max_db_connections", c.MaxDB},
		{"max_user_connections", c.MaxUser},
		{"max_client_conn", c.MaxClients},
		{"max_db_client_connections", c.MaxDBClient},
		{"max_user_client_connections", c.MaxUsrClient},
		{"max_prepared_statements", c.MaxPrepared},
		{"auth_failures", c.AuthTries},
		{"failover_buffer_requests", c.BufferRequests},
	} {
		if n.v < 0 {
			bad(n.name, "must not be negative")
		}
	}
	if c.PeerID < 0 || c.PeerID >= proxy.Peers {
		bad("peer_id", "must be between 1 and %d", proxy.Peers-1)
	}
	for i, p := range c.Peers {
		if p.ID < 1 || p.ID >= proxy.Peers || p.Address == "" {
			bad("peers", "entry %d needs an id between 1 and %d and an address", i+1, proxy.Peers-1)
		}
	}
	if key, err := secret(c.PeerKey); err != nil {
		bad("peer_key", "%v", err)
	} else if key != "" && len(key) < 16 {
		bad("peer_key", "must have 16 characters or more")
	}
	if len(c.Peers) > 0 && c.PeerID == 0 {
		bad("peers", "they need peer_id, so that the others know this process")
	}
	if c.TraceShare < 0 || c.TraceShare > 1 {
		bad("trace_sample_ratio", "must be from 0 to 1")
	}
	if _, err := c.proxied(); err != nil {
		bad("proxy_protocol", "%v", err)
	}
	if _, err := c.unixMode(); err != nil {
		bad("unix_socket_mode", "%v", err)
	}
	if longest := filepath.Join(c.UnixDir, ".s.PGSQL.65535~"); c.UnixDir != "" && len(longest) > maxSocketPath {
		bad("unix_socket_dir", "the socket's path in it would be too long (maximum %d bytes): use a shorter one", maxSocketPath)
	}
	if c.AuthHBA != "" && len(c.AuthRules) > 0 {
		bad("auth_hba_file", "use either this or auth_rules")
	}
	if time.Duration(c.Monitor) < 10*time.Millisecond {
		bad("monitor_interval", "must be at least 10ms")
	}
	if v := time.Duration(c.Verify); v != 0 && v < 100*time.Millisecond {
		bad("verify_interval", "must be 0 or at least 100ms")
	}
	if time.Duration(c.Grace) < 100*time.Millisecond { // outcomes would be forgotten before anybody could act on them
		bad("resolver_grace", "must be at least 100ms")
	}
	for i, u := range c.Users {
		if u.Name == "" {
			bad("users", "entry %d has no name", i+1)
		}
		if u.Verifier != "" {
			if _, err := auth.ParseVerifier(u.Verifier); err != nil {
				bad("users", "%s: scram_verifier: %v", u.Name, err)
			}
		} else if u.Password == "" {
			bad("users", "%s has neither password nor scram_verifier", u.Name)
		}
	}
	if _, err := c.rules(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *Config) logging() *exec.Logging {
	return &exec.Logging{Slow: time.Duration(c.LogSlow), Failed: c.LogFailed, Refused: c.LogRefused, Parameters: c.LogParams}
}

func (c *Config) unixMode() (os.FileMode, error) {
	n, err := strconv.ParseUint(c.UnixMode, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("%q is no mode such as 0770", c.UnixMode)
	}
	return os.FileMode(n), nil
}

// proxied are the networks of proxy_protocol.
func (c *Config) proxied() (out []netip.Prefix, err error) {
	for _, s := range c.Proxied {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return nil, fmt.Errorf("%q is no address and no network such as 10.0.0.0/8", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// rules turns auth_rules or the file of rules into what the sessions check.
func (c *Config) rules() ([]auth.Rule, error) {
	out, err := c.ownRules()
	if err != nil {
		return nil, err
	}
	if c.AuthHBA != "" {
		return c.hba()
	}
	if c.trustUser != "" {
		for _, n := range []string{"127.0.0.0/8", "::1/128"} {
			out = append(out, auth.Rule{Users: []string{c.trustUser}, Network: netip.MustParsePrefix(n), Method: auth.Trust})
		}
		out = append(out, auth.Rule{Users: []string{c.trustUser}, Origins: []auth.Origin{auth.Local}, Method: auth.Trust})
	}
	if len(c.AuthRules) == 0 {
		out = append(out, auth.Rule{Method: auth.SCRAM})
	}
	return out, nil
}

func (c *Config) ownRules() ([]auth.Rule, error) {
	var out []auth.Rule
	maps, err := c.ident()
	if err != nil {
		return nil, err
	}
	for i, r := range c.AuthRules {
		bad := func(format string, args ...any) error {
			return fmt.Errorf("auth_rules: entry %d: %s", i+1, fmt.Sprintf(format, args...))
		}
		var rule auth.Rule
		if r.Database != "" {
			rule.Databases = []string{r.Database}
		}
		if r.User != "" {
			rule.Users = []string{r.User}
		}
		switch {
		case r.TLS && r.Local:
			return nil, bad("tls and local exclude each other")
		case r.TLS:
			rule.Origins = []auth.Origin{auth.TLS}
		case r.Local:
			rule.Origins = []auth.Origin{auth.Local}
		}
		if r.Address != "" {
			p, err := netip.ParsePrefix(r.Address)
			if err != nil {
				return nil, bad("address %q is no network such as 10.0.0.0/8", r.Address)
			}
			rule.Network = p
		}
		m, ok := auth.ParseMethod(r.Method)
		rule.Method = m
		switch {
		case !ok:
			return nil, bad("method %q is none of scram-sha-256, password, cert, trust, reject", r.Method)
		case m == auth.Trust && !r.Local && (!rule.Network.IsValid() || !rule.Network.Addr().IsLoopback()):
			return nil, bad("method trust is for loopback addresses and the Unix socket only")
		case (m == auth.Password || m == auth.Cert) && !r.TLS && !(m == auth.Password && r.Local):
			return nil, bad("method %s needs tls: true", r.Method)
		case m == auth.Cert:
			rule.Map = maps["pgmosaic"]
		}
		out = append(out, rule)
	}
	return out, nil
}

func (c *Config) ident() (map[string]map[string]string, error) {
	if c.AuthIdent == "" {
		return nil, nil
	}
	b, err := os.ReadFile(c.AuthIdent)
	if err != nil {
		return nil, fmt.Errorf("auth_ident_file: %w", err)
	}
	maps, err := auth.ParseIdent(string(b))
	if err != nil {
		return nil, fmt.Errorf("auth_ident_file: %s: %w", c.AuthIdent, err)
	}
	return maps, nil
}

func (c *Config) hba() ([]auth.Rule, error) {
	maps, err := c.ident()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(c.AuthHBA)
	if err != nil {
		return nil, fmt.Errorf("auth_hba_file: %w", err)
	}
	rules, err := auth.ParseHBA(string(b), maps)
	if err != nil {
		return nil, fmt.Errorf("auth_hba_file: %s: %w", c.AuthHBA, err)
	}
	return rules, nil
}

// userList is users and those of auth_file.
func (c *Config) userList() ([]UserConfig, error) {
	out := append([]UserConfig(nil), c.Users...)
	if c.AuthFile == "" {
		return out, nil
	}
	b, err := os.ReadFile(c.AuthFile)
	if err != nil {
		return nil, fmt.Errorf("auth_file: %w", err)
	}
	list, err := auth.ParseUserlist(string(b))
	if err != nil {
		return nil, fmt.Errorf("auth_file: %s: %w", c.AuthFile, err)
	}
	for _, u := range list {
		x := UserConfig{Name: u[0]}
		switch {
		case strings.HasPrefix(u[1], "SCRAM-SHA-256$"):
			x.Verifier = u[1]
		case u[1] == "":
			continue // PgBouncer's way to say that the user may not log in
		case strings.HasPrefix(u[1], "md5") && len(u[1]) == 35:
			return nil, fmt.Errorf("auth_file: %s: user %q has an MD5 hash: use a SCRAM verifier or the password", c.AuthFile, u[0])
		default:
			x.Password = u[1]
		}
		out = append(out, x)
	}
	return out, nil
}

func (c *Config) tls() (*tls.Config, error) {
	if c.TLSCert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("tls_cert_file: %w", err)
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, fmt.Errorf("tls_cert_file: %w", err)
		}
	}
	t := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"postgresql"}}
	if c.TLSCA != "" {
		pem, err := os.ReadFile(c.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("tls_ca_file: %w", err)
		}
		t.ClientCAs = x509.NewCertPool()
		if !t.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca_file: %s holds no certificate", c.TLSCA)
		}
		t.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return t, nil
}

// pageCert is the certificate of the page; nil for none.
func (c *Config) pageCert() (*tls.Certificate, error) {
	if c.HTTPCert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.HTTPCert, c.HTTPKey)
	if err != nil {
		return nil, fmt.Errorf("http_tls_cert_file: %w", err)
	}
	return &cert, nil
}

func (c *Config) limits() proxy.Options {
	return proxy.Options{MaxClients: c.MaxClients, Limits: session.Limits{
		ClientIdle: time.Duration(c.ClientIdle), IdleTransaction: time.Duration(c.IdleTx), Transaction: time.Duration(c.Transaction), Query: time.Duration(c.Query),
	}}
}

func (c *Config) poolOptions() pool.Options {
	return pool.Options{
		Size: c.PoolSize, Gather: c.GatherPool, Min: c.MinPool, Reserve: c.Reserve, ReserveAfter: time.Duration(c.ReserveAfter), MaxDatabase: c.MaxDB, MaxUser: c.MaxUser, MaxPrepared: c.MaxPrepared,
		WaitTimeout: time.Duration(c.QueryWait), ConnectTimeout: time.Duration(c.Connect), Lifetime: time.Duration(c.Lifetime), IdleTimeout: time.Duration(c.Idle),
		LoginRetry: time.Duration(c.LoginRetry), DNSTTL: time.Duration(c.DNSTTL),
	}
}

// secret resolves file: and env: references.
func secret(s string) (string, error) {
	if name, ok := strings.CutPrefix(s, "env:"); ok {
		v, set := os.LookupEnv(name)
		if !set {
			return "", fmt.Errorf("environment variable %s is not set", name)
		}
		return v, nil
	}
	if name, ok := strings.CutPrefix(s, "file:"); ok {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("secret: %w", err)
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	return s, nil
}
