package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// The resolver keeps its connection to each shard, and says once what it cannot do, where, and when that is over.
func TestTheResolverKeepsItsConnectionsAndDoesNotRepeatItself(t *testing.T) {
	t.Parallel()
	d := shop(t)
	nodes := [2]*cluster.Node{d.cluster.Node("s1-a"), d.cluster.Node("s2-a")}
	l := &lines{}
	cfg := config.Default()
	cfg.Store, cfg.Resolve = t.TempDir()+"/map.json", config.Duration(50*time.Millisecond)
	cfg.Users = []config.User{{Name: "app", Password: "app"}}
	cfg.Direct.Setup = []string{"CREATE DATABASE often"}
	for i, n := range nodes {
		freshDatabase(t, n, "often")
		cfg.Direct.Setup = append(cfg.Direct.Setup, fmt.Sprintf("CREATE SHARD o%d IN often NODE '%s' NAME on%d", i+1, n.DSN("often"), i+1))
	}
	t.Cleanup(func() { // runs when the proxy has ended
		for _, n := range nodes {
			if err := n.Exec(context.Background(), "postgres", "drop database often with (force)"); err != nil {
				t.Error(err)
			}
		}
	})
	startLogging(t, cfg, l)
	root := connectTo(t, nodes[1].DSN("often"))
	visits := func() (pid, at string) {
		f := strings.SplitN(simply(t, root, "select coalesce((select pid || ' ' || state_change from pg_stat_activity where application_name = 'pgmosaic resolver' and datname = 'often' order by backend_start desc limit 1), ' ')"), " ", 2)
		return f[0], f[1]
	}
	const few = 3 // two that look at once take one each, and one of these is closed
	// seen has looked until the resolver has come by so often, and counts its connections.
	seen := func(rounds int) int {
		pids, times := map[string]bool{}, map[string]bool{}
		eventually(t, "the resolver comes by", func() bool {
			pid, at := visits()
			if pid != "" {
				pids[pid], times[at] = true, true
			}
			return len(times) >= rounds
		})
		return len(pids)
	}
	if n := seen(10); n > few {
		t.Errorf("%d connections in ten rounds", n)
	}
	mustExec(t, root, "alter table pgmosaic.decision rename to hidden")
	seen(20)
	if got := l.with("resolver"); len(got) != 1 || got[0]["node"] != "on2" || got[0]["shard"] != "o2" || got[0]["database"] != "often" {
		t.Errorf("after some rounds that failed: %v", got)
	}
	mustExec(t, root, "alter table pgmosaic.hidden rename to decision")
	eventually(t, "it says that all is well", func() bool { return len(l.with("the resolver works on a shard again")) == 1 })
	if n := seen(10); n > few {
		t.Errorf("%d connections in ten rounds", n)
	}
	// A server that ends the connection beside us, as one that is restarted does, is no trouble.
	// One that ends in the middle of a question is told of, and may be hit: the question may begin once it was seen idle.
	for try, told := 0, len(l.with("resolver")); ; try++ {
		mustExec(t, root, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgmosaic resolver' and state = 'idle'")
		seen(10)
		got := l.with("resolver")
		if len(got) == told {
			break
		}
		if try == 5 {
			t.Fatalf("connections that had ended while they were idle: %v", got[1:])
		}
		told = len(got)
	}
}
