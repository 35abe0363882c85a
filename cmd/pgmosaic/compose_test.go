package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/pgmosaic/pgmosaic/proxy/config"
)

// The compose set-up is not run by tests: its files must parse, name files that exist, and speak of settings
// and metrics that exist.
func TestComposeFilesAreWhatTheySeem(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	b, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	services, _ := doc["services"].(map[string]any)
	for _, s := range []string{"s1a", "s1b", "s2a", "s2b", "pgmosaic", "prometheus", "grafana"} {
		if services[s] == nil {
			t.Errorf("there is no service %s", s)
		}
	}
	for _, m := range regexp.MustCompile(`\./(docs/[^:" ]+)`).FindAllStringSubmatch(string(b), -1) {
		if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
			t.Error(err)
		}
	}
	if _, err := config.Load(filepath.Join(root, "docs/operating/compose/pgmosaic.yaml")); err != nil {
		t.Error(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	b, err = os.ReadFile(filepath.Join(root, "docs/operating/compose/grafana/dashboards/pgmosaic.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &board); err != nil || len(board.Panels) < 10 {
		t.Fatal(err, len(board.Panels))
	}
	if testing.Short() {
		return
	}
	d := shop(t)
	mustExec(t, connectTo(t, d.shopDSN()), "select 1")
	_, err = connectTo(t, d.shopDSN()).Exec(t.Context(), "select * from customers order by name limit 1 for update")
	wantCode(t, err, "0A000") // so that there is a refusal to count
	code, metrics, _ := get(t, d.url("/metrics"))
	if code != 200 {
		t.Fatalf("/metrics: %d %.1000s", code, metrics)
	}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			for _, name := range regexp.MustCompile(`(pgmosaic|process)_[a-z_]+`).FindAllString(target.Expr, -1) {
				if !strings.Contains(metrics, "\n"+name+"{") && !strings.Contains(metrics, "\n"+name+" ") {
					t.Errorf("panel %q asks for %s, which is not measured", p.Title, name)
				}
			}
		}
	}
}

// The unit and the manifests are not run by tests: they must parse, name flags and settings that exist, and probe what is served.
func TestManifestsAreWhatTheySeem(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "docs", "operating")
	b, err := os.ReadFile(filepath.Join(dir, "kubernetes", "pgmosaic.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, part := range strings.Split(string(b), "\n---\n") {
		var doc map[string]any
		if err := yaml.Unmarshal([]byte(part), &doc); err != nil {
			t.Fatal(err)
		}
		kind, _ := doc["kind"].(string)
		kinds[kind] = true
		if kind == "Secret" {
			data, _ := doc["stringData"].(map[string]any)
			text, _ := data["pgmosaic.yaml"].(string)
			file := filepath.Join(t.TempDir(), "pgmosaic.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := config.Load(file); err != nil {
				t.Error(err)
			}
		}
	}
	for _, k := range []string{"Secret", "StatefulSet", "Service"} {
		if !kinds[k] {
			t.Errorf("there is no %s", k)
		}
	}
	if one := strings.Contains(string(b), "replicas: 1\n"); !one || strings.Contains(string(b), "emptyDir: {") {
		t.Error("pods with a map of their own, or one that ends with its pod, disagree about where rows live")
	}
	for _, path := range regexp.MustCompile(`path: (/\w+)`).FindAllStringSubmatch(string(b), -1) {
		if path[1] != "/readyz" && path[1] != "/healthz" {
			t.Errorf("%s is not served", path[1])
		}
	}
	unit, err := os.ReadFile(filepath.Join(dir, "systemd", "pgmosaic.service"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`/usr/bin/pgmosaic (\w+) (--\w+)`).FindAllStringSubmatch(string(unit), -1) {
		cmd, _, err := root().Find([]string{m[1]})
		if err != nil || cmd.Flags().Lookup(strings.TrimPrefix(m[2], "--")) == nil {
			t.Errorf("pgmosaic %s %s does not exist", m[1], m[2])
		}
	}
}
