package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// init_sql that cannot be done is not done by half: the process does not start, and the next start goes on where it stopped.
func TestInitSQLIsDoneWholly(t *testing.T) {
	t.Parallel()
	d := shop(t)
	node := d.cluster.Node("s2-a")
	freshDatabase(t, node, "setup_a")
	cfg := defaultConfig()
	cfg.Store, cfg.Listen, cfg.HTTP = t.TempDir()+"/map.json", "127.0.0.1:0", "off"
	cfg.AdminUsers, cfg.Users = []string{"admin"}, []UserConfig{{Name: "app", Password: "app"}, {Name: "admin", Password: "admin"}}
	cfg.InitSQL = fmt.Sprintf("CREATE DATABASE setup; CREATE SHARD a IN setup NODE '%s'; CREATE SHARD b IN setup NODE '%s'; CREATE GROUP g IN setup KEY (int) BY HASH;", node.DSN("setup_a"), node.DSN("setup_b"))
	open := func() (*app, error) {
		return start(t.Context(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	}
	for range 2 {
		if a, err := open(); err == nil {
			ok, why := a.ready()
			a.stop(0)
			t.Fatalf("it started without its second shard (ready: %t, %s)", ok, why)
		}
	}
	freshDatabase(t, node, "setup_b")
	was := cfg.InitSQL
	cfg.InitSQL = strings.Replace(was, "DATABASE setup;", "DATABASE another;", 1)
	if a, err := open(); err == nil || !strings.Contains(err.Error(), "are not what they were") {
		if a != nil {
			a.stop(0)
		}
		t.Errorf("another init_sql on the half of this one: %v", err)
	}
	cfg.InitSQL = was
	for range 2 { // the second finds it done
		a, err := open()
		if err != nil {
			t.Fatal(err)
		}
		db := a.catalog.Current().Databases["setup"]
		if db == nil || len(db.Shards) != 2 || db.Groups["g"] == nil || a.catalog.Current().Document.Setup != nil {
			t.Errorf("the map is %+v", a.catalog.Current().Document)
		}
		eventually(t, "it is ready", func() bool { ok, _ := a.ready(); return ok })
		a.stop(0)
	}
}

// A process whose databases have no shard is not ready: every client would be refused.
func TestDatabaseWithoutAShardIsNotReady(t *testing.T) {
	t.Parallel()
	needServers(t)
	a, err := stranger(t, nil, "CREATE DATABASE empty")
	if err != nil {
		t.Fatal(err)
	}
	if ok, why := a.ready(); ok || why != "database empty has no shard" {
		t.Errorf("ready: %t, %s", ok, why)
	}
}

func TestWhereInitSQLGoesOn(t *testing.T) {
	t.Parallel()
	steps := []string{"a", "b", "c"}
	for _, x := range []struct {
		setup   *shardmap.Setup
		version uint64
		want    int
		fails   bool
	}{
		{nil, 0, 0, false},
		{nil, 7, 3, false},
		{setupAt(steps, 0), 1, 0, false},
		{setupAt(steps, 2), 4, 2, false},
		{setupAt(steps, 3), 4, 3, false},
		{setupAt([]string{"a", "x"}, 2), 4, 0, true},
		{setupAt([]string{"a", "b", "c", "d"}, 4), 4, 0, true},
	} {
		if got, err := resume(x.setup, x.version, steps); got != x.want || (err != nil) != x.fails {
			t.Errorf("%+v, version %d: %d, %v", x.setup, x.version, got, err)
		}
	}
}
