package config

import (
	"os"
	"path/filepath"
	"testing"
)

func FuzzConfig(f *testing.F) {
	f.Add("listen: 127.0.0.1:1\nusers: [{name: a, password: b}]\nquery_timeout: 10s\n")
	f.Add("auth_rules: [{address: 10.0.0.0/8, method: trust}]\npeers: [{id: 1, address: x}]\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(dir, "fuzz.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := Load(file)
		if err != nil {
			return
		}
		_, _ = cfg.Rules()
		_ = cfg.Settings()
	})
}
