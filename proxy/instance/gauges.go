package instance

import (
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// gauges are the metrics of how things stand now.
func (in *Instance) gauges(emit func(name, help string, v float64, labels ...string)) {
	one := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	for _, d := range in.Catalog.Current().Databases {
		for _, s := range d.Shards {
			v := in.Monitor.View(d.Name, s.Name)
			sl := []string{"database", d.Name, "shard", s.Name}
			emit("shard_up", "Whether the shard has a primary that answers.", one(v != nil && v.Up()), sl...)
			emit("shard_fenced", "Whether more than one node claims to be the shard's primary, so that none is served.", one(v != nil && v.Fenced != ""), sl...)
			waiting, bytes := in.Engine.Waiting(d.Name, s.Name)
			emit("failover_waiting_requests", "Requests that wait for the shard's next primary.", float64(waiting), sl...)
			emit("failover_waiting_bytes", "Bytes of the requests that wait for the shard's next primary.", float64(bytes), sl...)
			if v == nil {
				continue
			}
			for i := range v.Nodes {
				n := &v.Nodes[i]
				l := []string{"database", d.Name, "shard", s.Name, "node", n.Name}
				emit("node_up", "Whether the node answered its last probe.", one(n.Sample.Err == nil && !n.Sample.Sent.IsZero()), l...)
				emit("node_primary", "Whether the node is the shard's primary.", one(v.Serves() && i == v.Primary), l...)
				emit("node_timeline", "The node's timeline: each promotion begins a new one.", float64(n.Sample.Timeline), l...)
				if n.Primary {
					continue
				}
				emit("replica_eligible", "Whether the replica may answer reads.", one(n.Verdict.Health == replication.Eligible), l...)
				if n.LagKnown || n.Lag > 0 {
					emit("replica_lag_seconds", "How old the replica's state is.", n.Lag.Seconds(), l...)
					emit("replica_lag_bytes", "How much write-ahead log the replica has still to replay.", float64(n.LagBytes), l...)
				}
			}
		}
	}
	poolGauges(in, emit)
	clients, strangers := in.Server.Clients()
	emit("clients", "Client connections that have logged in.", float64(clients))
	emit("clients_logging_in", "Client connections that have not logged in yet.", float64(strangers))
	emit("clients_limit", "How many client connections may be open (max_client_conn).", float64(in.config.Load().MaxClients))
	open, damaged, oldest := 0, 0, time.Duration(0)
	if parts := in.prepared.Load(); parts != nil {
		for _, p := range *parts {
			if p.Damage != "" {
				damaged++
				continue
			}
			open++
			oldest = max(oldest, p.Age)
		}
	}
	emit("prepared_transactions", "Parts of commits over shards that are prepared and not yet finished.", float64(open))
	emit("prepared_transactions_oldest_seconds", "Age of the oldest of them.", oldest.Seconds())
	emit("damaged_transactions", "Committed transactions that have lost a part.", float64(damaged))
	for _, c := range in.Mover.Checks() {
		emit("reference_rows_differ", "Rows of a reference table that are not the same on all shards, as the last comparison found.", float64(c.Differs), "database", c.Database, "table", c.Table.String())
		emit("reference_checked_timestamp_seconds", "When the copies of a reference table were compared last.", float64(c.At.Unix()), "database", c.Database, "table", c.Table.String())
	}
	mapGauges(in.Catalog.Current(), emit)
	emit("map_trouble", "Whether the store holds a map that cannot be read or used, so that an older one is in force.", one(in.Catalog.Trouble() != nil))
	if in.opts.Lost != nil {
		emit("log_lines_lost", "Lines of the log that could not be written, since the start.", float64(in.opts.Lost()))
	}
	emit("plan_cache_entries", "Plans in the cache.", float64(in.Engine.Planner.PlanCount()))
	for c, name := range memory.Names {
		emit("memory_bytes", "What sessions hold, by what it is for.", float64(in.Engine.Memory.Used(memory.Consumer(c))), "consumer", name)
	}
	emit("memory_limit_bytes", "How much memory the process may use (memory_limit); 0: no limit.", float64(in.Engine.Memory.Limit.Load()))
}

// poolGauges tell what the servers of each node are at.
func poolGauges(in *Instance, emit func(name, help string, v float64, labels ...string)) {
	type poolName struct{ database, shard, node, role string }
	pools := map[poolName]pool.Stats{} // a node whose connection string was changed has a pool by the old one, too, until its servers are given back
	for _, p := range in.Pools.All() {
		name, st := poolName{p.Database, p.Shard, p.Node, p.Role}, p.Stats()
		sum := pools[name]
		sum.Active, sum.Idle, sum.Waiting = sum.Active+st.Active, sum.Idle+st.Idle, sum.Waiting+st.Waiting
		pools[name] = sum
	}
	for p, st := range pools {
		l := []string{"database", p.database, "shard", p.shard, "node", p.node, "role", p.role}
		emit("pool_servers_active", "Servers in use.", float64(st.Active), l...)
		emit("pool_servers_idle", "Servers ready for use.", float64(st.Idle), l...)
		emit("pool_clients_waiting", "Clients that wait for a server.", float64(st.Waiting), l...)
	}
}

// mapGauges tell which map is in force.
func mapGauges(m *shardmap.Snapshot, emit func(name, help string, v float64, labels ...string)) {
	emit("map_version", "Version of the shard map in force.", float64(m.Version))
	emit("map_fingerprint", "A number that proxies with the same shard map share, as SHOW MAP has it in hexadecimal.", float64(m.Fingerprint()))
}
