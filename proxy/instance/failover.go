package instance

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/notify"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/replication"
)

// nodeLeft closes the connections to a node that is no longer to be trusted with work: clients', the proxy's own, and those that listen. The
// monitor must not wait for it.
func (in *Instance) nodeLeft(dsn string, atOnce bool) {
	in.hub.Left(dsn)
	panics.Go(panics.Background, func() {
		if atOnce {
			in.Pools.CutNode(dsn)
		} else {
			in.Pools.DropNode(dsn)
		}
	})
	panics.Go(panics.Background, func() { in.conns.Drop(dsn) })
}

// nodeLed closes the connections, besides clients', to a node whose name means another address by now, where its old server may live on.
func nodeLed(in *Instance, dsn string, means func(addr string) bool) {
	in.Monitor.Led(dsn, means)
	in.hub.Led(dsn, means)
	panics.Go(panics.Background, func() { in.conns.Led(dsn, means) })
}

// shardJoins has those who listen in a database hear a shard before anybody is sent there.
func shardJoins(ctx context.Context, in *Instance, database, shard, dsn string, whose nodeconn.Whose) (done func()) {
	done, err := in.hub.Join(ctx, database, notify.Shard{Name: shard, DSN: dsn, Whose: whose})
	if err != nil {
		in.log.Warn("a shard that joins cannot be listened to: the sessions that listen will be ended", "database", database, "shard", shard, "error", err)
	}
	return done
}

// shardChanged remembers what is logged, for SHOW EVENTS.
func (in *Instance) shardChanged(database, shard string, c replication.Change) {
	in.Admin.Note(admin.Event{At: time.Now(), Level: strings.ToLower(c.Level.String()), Database: database, Shard: shard, Node: c.Node, What: c.What, Reason: c.Reason})
}

// nodeRejoined notes that a node that the admin had barred is a replica now.
func (in *Instance) nodeRejoined(database, shard, node string) {
	panics.Go(panics.Background, func() { // a change of the map, which the monitor must not wait for
		if err := in.Mover.Rejoined(context.Background(), database, shard, node); err != nil {
			in.log.Warn("a node that is a replica now could not be let in again", "database", database, "shard", shard, "node", node, "error", err)
		}
	})
}

// hookTimeout bounds a failover_hook.
const hookTimeout = 30 * time.Second

// primaryChanged tells those who listen, and failover_hook, that a shard has lost its primary (node is empty) or has one.
func (in *Instance) primaryChanged(database, shard, node string) {
	in.hub.Follow()
	hook := in.config.Load().Hook
	if hook == "" {
		return
	}
	event := "primary"
	if node == "" {
		event = "primary_lost"
	}
	in.wg.Add(1)
	panics.Go(panics.Background, func() {
		defer in.wg.Done()
		ctx, cancel := context.WithTimeout(in.ctx, hookTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", hook)
		cmd.Env = append(os.Environ(), "PGMOSAIC_EVENT="+event, "PGMOSAIC_DATABASE="+database, "PGMOSAIC_SHARD="+shard, "PGMOSAIC_NODE="+node)
		cmd.WaitDelay = time.Second
		out, err := cmd.CombinedOutput()
		out = bytes.TrimSpace(out)
		if len(out) > 1000 {
			out = out[:1000]
		}
		if err != nil {
			in.log.Warn("failover_hook failed", "event", event, "database", database, "shard", shard, "node", node, "error", err, "output", string(out))
			return
		}
		in.log.Info("failover_hook has run", "event", event, "database", database, "shard", shard, "node", node, "output", string(out))
	})
}

// mapTrouble tells of a map in the store that cannot be used, and of its end.
func (in *Instance) mapTrouble(err error) {
	e := admin.Event{At: time.Now(), Level: "info", What: "the store's shard map is in use again"}
	if err != nil {
		e.Level, e.What, e.Reason = "error", "the store's shard map cannot be used: the one in force stays", err.Error()
		in.log.Error(e.What, "error", err)
	} else {
		in.log.Info(e.What)
	}
	in.Admin.Note(e)
}
