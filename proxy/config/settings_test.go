package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBoundsOfKeys(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"default_pool_size: 0":                                "default_pool_size: must be at least 1",
		"min_pool_size: -1":                                   "min_pool_size: must not be negative",
		"peer_id: 1024":                                       "peer_id: must be from 0 to 1023",
		"max_statement_size: 1":                               "max_statement_size: must be from 1kB to 1GB",
		"max_statement_size: 2GB":                             "max_statement_size: must be from 1kB to 1GB",
		"failover_buffer: 31s":                                "failover_buffer: must be at most 30s",
		"tcp_keepidle: 10h":                                   "tcp_keepidle: must be at most 32767s", // what Linux takes: else each client would be closed as it comes
		"tcp_keepintvl: 32768s":                               "tcp_keepintvl: must be at most 32767s",
		"tcp_keepcnt: 128":                                    "tcp_keepcnt: must be from 0 to 127",
		"tcp_user_timeout: 600h":                              "tcp_user_timeout: must be at most 596h",
		"monitor_interval: 9ms":                               "monitor_interval: must be at least 10ms",
		"verify_interval: 1ms":                                "verify_interval: must be 0 or at least 100ms",
		"verify_interval: 0s":                                 "",
		"trace_sample_ratio: 1.5":                             "trace_sample_ratio: must be from 0 to 1",
		"trace_sample_ratio: -0.5":                            "trace_sample_ratio: must be from 0 to 1",
		"read_consistency: good":                              `read_consistency: "good" is none of strong, causal, session, bounded, eventual`,
		"log_level: loud":                                     `log_level: "loud" is none of debug, info, warn, error`,
		"log_level: INFO":                                     "", // as before there was a list
		"memory_limit: \"\"":                                  "",
		"memory_limit: 0":                                     "",
		"gather_limit: \"\"":                                  "is no size",
		"memory_limit: lots":                                  "is no size",
		"query_timeout: -1s":                                  "is no time",
		"peers: [{id: 3, address: x}]":                        "peers: they need peer_id",
		"peers: [{id: 3}]\npeer_id: 1":                        "entry 1 needs an id between 1 and 1023 and an address",
		"peer_key: short":                                     "peer_key: must have 16 characters or more",
		"default_pool_sise: 1":                                `Did you mean "default_pool_size"?`,
		"unix_socket_dir: /" + strings.Repeat("x", 100):       "unix_socket_dir: the socket's path in it would be too long",
		"users: [{name: a}]":                                  "users: a has neither password nor scram_verifier",
		"auth_rules: [{method: trust}]":                       "method trust is for loopback addresses",
		"default_pool_size: 0\nmin_pool_size: -1\npeer_id: 9": "default_pool_size: must be at least 1\nmin_pool_size: must not be negative",
	} {
		file := filepath.Join(t.TempDir(), "pgmosaic.yaml")
		if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(file)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

func TestDefaultsAreWithinTheirBounds(t *testing.T) {
	t.Parallel()
	c := Default()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestSetOfKeys(t *testing.T) {
	t.Parallel()
	c := Default()
	for _, x := range []struct {
		name, value string
		refused     Reason // -1: it is done
	}{
		{"default_pool_size", "7", -1},
		{"query_timeout", "3", -1}, // seconds
		{"query_timeout", "3min", -1},
		{"log_level", "debug", -1},
		{"default_pool_size", "0", Invalid},
		{"default_pool_size", "many", Invalid},
		{"log_level", "loud", Invalid},
		{"listen", "127.0.0.1:1", Fixed},
		{"users", "[]", Fixed},
		{"auth_query", "select 1", Fixed},
		{"failover_hook", "true", Fixed},
		{"peer_key", "0123456789abcdef", Fixed},
		{"pool_size", "7", Unknown},
	} {
		got, err := c.With(x.name, x.value)
		var why *SettingError
		switch {
		case x.refused < 0 && err != nil, x.refused >= 0 && !errors.As(err, &why):
			t.Errorf("%s = %s: %v", x.name, x.value, err)
		case x.refused >= 0 && why.Reason != x.refused:
			t.Errorf("%s = %s: reason %d, want %d: %v", x.name, x.value, why.Reason, x.refused, err)
		case x.refused < 0 && len(Diff(&c, &got)) != 1:
			t.Errorf("%s = %s changes %v", x.name, x.value, Diff(&c, &got))
		}
	}
	if got, _ := c.With("query_timeout", "3"); got.Query.Value() != 3*time.Second {
		t.Errorf("3 is %s", got.Query)
	}
}

func TestWhatDiffers(t *testing.T) {
	t.Parallel()
	a, b := Default(), Default()
	b.PoolSize, b.Listen, b.AdminUsers = 1, "x", []string{"root"}
	if got := Diff(&a, &b); !slices.Equal(got, []Change{{"listen", true}, {"admin_users", false}, {"default_pool_size", false}}) {
		t.Error(got)
	}
}

// A secret is printed by nothing but Reveal.
func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	c := Default()
	c.PeerKey, c.Users = "hush-hush-hush-hush", []User{{Name: "a", Password: "hush", Server: "hush"}}
	for _, s := range []string{fmt.Sprint(c.Settings()), fmt.Sprintf("%v", c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), c.PeerKey.String()} {
		if strings.Contains(s, "hush") {
			t.Error(s)
		}
	}
	c.Hook, c.AuthQuery, c.Traces = "curl -H 'Authorization: hush' http://pager", "select * from dblink('password=hush', '..') x (a text, b text) where a = $1", "http://u:hush@collector:4318"
	shown := map[string]string{}
	for _, s := range c.Settings() {
		shown[s.Name] = s.Value
		if strings.Contains(s.Value, "hush") {
			t.Errorf("SHOW CONFIG has %s: %s", s.Name, s.Value)
		}
	}
	for _, name := range []string{"failover_hook", "auth_query", "otlp_endpoint"} {
		if shown[name] != "********" {
			t.Errorf("%s is there, and shown as %q", name, shown[name])
		}
	}
	if s, err := c.PeerKey.Reveal(); err != nil || s != "hush-hush-hush-hush" {
		t.Error(s, err)
	}
}

// What a mistake is about is told by its key and place: the lines of a file may hold passwords.
func TestMistakesShowNoSecrets(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"users:\n  - name: app\n    pasword: hunter2\n":                          `Did you mean "password"?`,
		"users:\n  - name: app\n    password: hunter2\npool_size: [many]\n":      "[4:1]",
		"peer_key: hunter2\nlisten: [1\n":                                        "[2:",
		"peer_key: hunter2-hunter2-hunter2\nmin_pool_size: [1]\nlisten: x:1\n":   "min_pool_size: [2:",
		"init_sql: |\n  NODE 'postgres://u:hunter2@h/d'\nlisten: {a: hunter2}\n": "listen: [3:",
	} {
		file := filepath.Join(t.TempDir(), "pgmosaic.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(file)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
