package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/pgmosaic/pgmosaic/proxy/auth"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/replication"
)

// Config is pgmosaic.yaml. Only what cannot change while it runs: the shard map is changed by SQL.
type Config struct {
	Listen       string       `yaml:"listen"`        // 127.0.0.1:6432
	HTTP         string       `yaml:"http"`          // 127.0.0.1:8432; "off" for none
	TLSCert      string       `yaml:"tls_cert_file"` // with tls_key_file: clients may use TLS
	TLSKey       string       `yaml:"tls_key_file"`
	Store        string       `yaml:"store"`       // file of the shard map: pgmosaic.map.json
	AdminUsers   []string     `yaml:"admin_users"` // may change the map
	StatsUsers   []string     `yaml:"stats_users"` // may SHOW
	Users        []UserConfig `yaml:"users"`
	AuthQuery    string       `yaml:"auth_query"` // for users not listed: SELECT name, verifier FROM ... WHERE name = $1, run on home
	AuthRules    []RuleConfig `yaml:"auth_rules"` // first match decides; default: scram-sha-256 from anywhere
	InitSQL      string       `yaml:"init_sql"`   // admin SQL, run once when the map is empty
	PoolSize     int          `yaml:"pool_size"`  // 20
	MaxClients   int          `yaml:"max_client_conn"`
	MaxStatement string       `yaml:"max_statement_size"` // 64MB
	QueryWait    duration     `yaml:"query_wait_timeout"` // 120s
	Connect      duration     `yaml:"server_connect_timeout"`
	Lifetime     duration     `yaml:"server_lifetime"`
	Idle         duration     `yaml:"server_idle_timeout"`
	Login        duration     `yaml:"client_login_timeout"` // 60s
	Drain        duration     `yaml:"drain_timeout"`        // 30s
	Monitor      duration     `yaml:"monitor_interval"`     // 100ms
	MaxLag       duration     `yaml:"max_staleness"`        // 10s
	Consistency  string       `yaml:"read_consistency"`     // causal
	Commit       string       `yaml:"multi_shard_commit"`   // two_phase, refuse
	Resolve      duration     `yaml:"resolver_interval"`    // 2s
	Grace        duration     `yaml:"resolver_grace"`       // 10s
	LogLevel     string       `yaml:"log_level"`            // info
	LogFormat    string       `yaml:"log_format"`           // text, json

	// Of serve --database only.
	trustUser string   // the DSN's own user, who enters from loopback without a password
	initSteps []string // admin SQL that makes the map
	scratch   string   // a temporary folder to remove at the end
}

// UserConfig is a user that the proxy itself checks.
type UserConfig struct {
	Name     string `yaml:"name"`
	Password string `yaml:"password"`        // the password, or file: or env: reference
	Verifier string `yaml:"scram_verifier"`  // instead of the password: SCRAM-SHA-256$...
	Server   string `yaml:"server_password"` // what the shards are told; default: password
}

// RuleConfig is one authentication rule.
type RuleConfig struct {
	Database string `yaml:"database"`
	User     string `yaml:"user"`
	Address  string `yaml:"address"` // a network such as 10.0.0.0/8; default: all
	TLS      bool   `yaml:"tls"`     // only over TLS
	Method   string `yaml:"method"`  // scram-sha-256, trust, reject
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
		Listen: "127.0.0.1:6432", HTTP: "127.0.0.1:8432", Store: "pgmosaic.map.json", PoolSize: 20, MaxClients: 10000, MaxStatement: "64MB",
		Login: duration(60 * time.Second), Drain: duration(30 * time.Second), Monitor: duration(100 * time.Millisecond), MaxLag: duration(10 * time.Second),
		Consistency: "causal", Commit: "two_phase", Resolve: duration(2 * time.Second), Grace: duration(10 * time.Second), LogLevel: "info", LogFormat: "text",
	}
}

// loadConfig reads a file strictly: an unknown key is an error with its place and the nearest known key.
func loadConfig(path string) (Config, error) {
	c := defaultConfig()
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	if err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(&c); err != nil && len(bytes.TrimSpace(b)) > 0 {
		return c, fmt.Errorf("%s: %s", path, explainYAML(err))
	}
	return c, c.validate()
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
	for _, t := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[UserConfig](), reflect.TypeFor[RuleConfig]()} {
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

func (c *Config) validate() error {
	var errs []error
	bad := func(key, format string, args ...any) { errs = append(errs, fmt.Errorf(key+": "+format, args...)) }
	if _, err := replication.ParseLevel(c.Consistency); err != nil {
		bad("read_consistency", "%q is none of strong, causal, session, bounded, eventual", c.Consistency)
	}
	if c.Commit != "two_phase" && c.Commit != "refuse" {
		bad("multi_shard_commit", "%q is none of two_phase, refuse", c.Commit)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		bad("tls_cert_file", "it needs tls_key_file, and the other way round")
	}
	if _, err := parseSize(c.MaxStatement); err != nil {
		bad("max_statement_size", "%v", err)
	}
	if c.PoolSize < 1 {
		bad("pool_size", "must be at least 1")
	}
	if time.Duration(c.Monitor) < 10*time.Millisecond {
		bad("monitor_interval", "must be at least 10ms")
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

// rules turns auth_rules into what the sessions check.
func (c *Config) rules() ([]auth.Rule, error) {
	var out []auth.Rule
	for i, r := range c.AuthRules {
		rule := auth.Rule{Database: r.Database, User: r.User, TLSOnly: r.TLS}
		if r.Address != "" {
			p, err := netip.ParsePrefix(r.Address)
			if err != nil {
				return nil, fmt.Errorf("auth_rules: entry %d: address %q is no network such as 10.0.0.0/8", i+1, r.Address)
			}
			rule.Network = p
		}
		switch r.Method {
		case "scram-sha-256":
			rule.Method = auth.SCRAM
		case "trust":
			if !rule.Network.IsValid() || !rule.Network.Addr().IsLoopback() {
				return nil, fmt.Errorf("auth_rules: entry %d: method trust is for loopback addresses only", i+1)
			}
			rule.Method = auth.Trust
		case "reject":
		default:
			return nil, fmt.Errorf("auth_rules: entry %d: method %q is none of scram-sha-256, trust, reject", i+1, r.Method)
		}
		out = append(out, rule)
	}
	if c.trustUser != "" {
		for _, n := range []string{"127.0.0.0/8", "::1/128"} {
			out = append(out, auth.Rule{User: c.trustUser, Network: netip.MustParsePrefix(n), Method: auth.Trust})
		}
	}
	if len(c.AuthRules) == 0 {
		out = append(out, auth.Rule{Method: auth.SCRAM})
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
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"postgresql"}}, nil
}

func (c *Config) poolOptions() pool.Options {
	return pool.Options{Size: c.PoolSize, WaitTimeout: time.Duration(c.QueryWait), ConnectTimeout: time.Duration(c.Connect), Lifetime: time.Duration(c.Lifetime), IdleTimeout: time.Duration(c.Idle)}
}

// parseSize reads 64MB.
func parseSize(s string) (int, error) {
	var n int
	var unit string
	if _, err := fmt.Sscanf(s, "%d%s", &n, &unit); err != nil || n < 1 {
		return 0, fmt.Errorf("%q is no size: write 64MB", s)
	}
	switch strings.ToUpper(unit) {
	case "KB":
		return n << 10, nil
	case "MB":
		return n << 20, nil
	case "GB":
		return n << 30, nil
	}
	return 0, fmt.Errorf("%q is no size: write 64MB", s)
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

// show lists the settings for SHOW CONFIG, without secrets.
func (c *Config) show() [][]any {
	def := defaultConfig()
	v, d := reflect.ValueOf(*c), reflect.ValueOf(def)
	var out [][]any
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag.Get("yaml")
		if tag == "" || tag == "users" || tag == "auth_rules" || tag == "init_sql" {
			continue
		}
		text := func(x reflect.Value) string {
			if dur, ok := x.Interface().(duration); ok {
				return time.Duration(dur).String()
			}
			return fmt.Sprint(x.Interface())
		}
		out = append(out, []any{tag, text(v.Field(i)), text(d.Field(i)), "no"})
	}
	return out
}
