package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// What check says of a node that it cannot use is what the server said; what a start needs is the configuration alone.
func TestCheckRepeatsWhatTheServerSaid(t *testing.T) {
	t.Parallel()
	d := shop(t)
	dir := t.TempDir()
	cfg := crashConfig(t, mapOf(d, "shop"))
	nobody := freeAddress(t)
	b, err := os.ReadFile(cfg.Store)
	if err != nil {
		t.Fatal(err)
	}
	var doc shardmap.Document
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	for _, n := range doc.Nodes {
		switch n.Name {
		case "s1-b":
			n.DSN = strings.Replace(n.DSN, ":"+d.cluster.Password+"@", ":wrong-secret@", 1)
		case "s2-b":
			n.DSN = "postgres://postgres:secret@" + nobody + "/shop"
		case "s2-a":
			n.DSN = strings.Replace(n.DSN, "/shop", "/nosuch", 1)
		}
	}
	if b, err = json.Marshal(&doc); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Store, b, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pgmosaic.yaml")
	write := func(more string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(fmt.Sprintf("store: %s\n%s", cfg.Store, more)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, error) {
		cmd := root()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetArgs(append([]string{"check", "-c", file}, args...))
		err := cmd.Execute()
		return out.String(), err
	}
	write("")
	out, err := run()
	if err == nil {
		t.Error("three nodes cannot be used, and check is content")
	}
	for _, want := range []string{"shop/s1/s1-a: PostgreSQL", `password authentication failed for user "postgres"`, "28P01", `database "nosuch" does not exist`, "connection refused"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out+err.Error(), "secret") {
		t.Errorf("a password is shown:\n%s%v", out, err)
	}
	if out, err := run("--config-only"); err != nil || strings.Contains(out, "s1") {
		t.Errorf("the configuration alone: %v\n%s", err, out)
	}
	write("auth_file: " + dir + "/nosuch\n")
	if _, err := run("--config-only"); err == nil {
		t.Error("a file that is missing")
	}
	unit, err := os.ReadFile(filepath.Join("..", "..", "docs", "operating", "systemd", "pgmosaic.service"))
	if err != nil || !strings.Contains(string(unit), "check --config-only") {
		t.Errorf("the unit asks for more than a start needs: %v", err)
	}
}

// A map in the store that cannot be read, or not be used, is told of everywhere that one looks, and the one in force stays.
func TestAMapThatCannotBeUsedIsToldOf(t *testing.T) {
	t.Parallel()
	d := shop(t)
	cfg := crashConfig(t, mapOf(d, "shop"))
	cfg.Listen, cfg.HTTP = "127.0.0.1:0", "127.0.0.1:0"
	log := &lines{}
	a, err := startWith(t.Context(), cfg, slog.New(slog.NewJSONHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.stop(0) })
	good, err := os.ReadFile(cfg.Store)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(cfg.Store+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(cfg.Store+".new", cfg.Store); err != nil {
			t.Fatal(err)
		}
	}
	newer := mapOf(d, "shop")
	newer.Version = 2
	lost := *newer.Nodes[0] // a copy: the map in force has the node itself
	lost.Shard = "nosuch"
	newer.Nodes[0] = &lost
	wrong, err := json.Marshal(newer)
	if err != nil {
		t.Fatal(err)
	}
	show := func(sql string) string {
		t.Helper()
		res, err := a.Admin.Exec(t.Context(), sql, true)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(res.Rows)
	}
	for i, c := range []struct {
		file []byte
		want string
	}{{good[:len(good)/2], "is damaged at line"}, {wrong, "version 2 of the shard map cannot be taken into use"}, {nil, "is gone"}} {
		if c.file == nil {
			if err := os.Remove(cfg.Store); err != nil {
				t.Fatal(err)
			}
		} else {
			write(c.file)
		}
		eventually(t, "SHOW MAP says: "+c.want, func() bool { return strings.Contains(show("SHOW MAP"), c.want) })
		if s := show("SHOW EVENTS"); strings.Count(s, c.want) != 1 {
			t.Errorf("events: %s", s)
		}
		if n := len(log.with("the store's shard map cannot be used: the one in force stays")); n != i+1 {
			t.Errorf("%d lines of the log", n)
		}
		_, metrics, _ := get(t, "http://"+a.Page()+"/metrics")
		if !strings.Contains(metrics, "pgmosaic_map_trouble 1") {
			t.Error("no metric")
		}
		if n := queryOne[int](t, connectTo(t, a.dsn()), "select count(*) from countries"); n == 0 {
			t.Error("the map in force is not used any more")
		}
	}
	write(good)
	eventually(t, "the trouble is over", func() bool { return a.Catalog.Trouble() == nil })
	if s := show("SHOW EVENTS"); !strings.Contains(s, "is in use again") {
		t.Errorf("events: %s", s)
	}
}
