package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// tool finds a program that .ci/install brings.
func tool(t testing.TB, name, pkg string) string {
	t.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, p := range []string{"/usr/sbin/" + name, "../../.pgmosaic/tools/usr/bin/" + name} {
		if abs, err := filepath.Abs(p); err == nil {
			if _, err := os.Stat(abs); err == nil {
				return abs
			}
		}
	}
	t.Fatalf("%s is needed: run make deps, or install the package %s", name, pkg)
	return ""
}

// The alert rules load, fire when they should, speak of metrics that there are, and have a runbook each.
func TestAlertsAreWhatTheySeem(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "docs", "operating")
	b, err := os.ReadFile(filepath.Join(dir, "prometheus", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(b, &doc); err != nil || len(doc.Groups) != 1 || len(doc.Groups[0].Rules) < 10 {
		t.Fatal(err, len(doc.Groups))
	}
	books, err := os.ReadFile(filepath.Join(dir, "runbooks.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range doc.Groups[0].Rules {
		if !strings.Contains(string(books), "\n## "+r.Alert+"\n") || r.Annotations["runbook"] != "runbooks.md#"+strings.ToLower(r.Alert) {
			t.Errorf("%s has no runbook", r.Alert)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(string(books), -1) {
		if !strings.Contains(string(b), "alert: "+m[1]+"\n") {
			t.Errorf("the runbook %s has no alert", m[1])
		}
	}
	if testing.Short() {
		return
	}
	promtool := tool(t, "promtool", "prometheus")
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts.test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = filepath.Join(dir, "prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	d := shop(t)
	_, err = connectTo(t, d.shopDSN()).Exec(t.Context(), "select * from customers order by name limit 1 for update")
	wantCode(t, err, "0A000")                            // so that there is a refusal to count
	d.adminExec(t, "VERIFY TABLE shop.public.countries") // and a comparison
	_, metrics, _ := get(t, d.url("/metrics"))
	for _, r := range doc.Groups[0].Rules {
		for _, name := range regexp.MustCompile(`pgmosaic_[a-z_]+`).FindAllString(r.Expr, -1) {
			if !strings.Contains(metrics, "\n"+name+"{") && !strings.Contains(metrics, "\n"+name+" ") {
				t.Errorf("%s asks for %s, which is not measured", r.Alert, name)
			}
		}
	}
}
