package admin

import (
	"fmt"
	"net"
	"sort"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

// The views of this file have the names, columns and order of PgBouncer 1.25's, so that exporters, dashboards
// and habits go on working. Columns of our own stand at the right.

var socketColumns = []string{
	"type", "user", "database", "replication", "state", "addr", "port", "local_addr", "local_port", "connect_time", "request_time", "wait", "wait_us", "close_needed", "ptr", "link",
	"remote_pid", "tls", "application_name", "prepared_statements", "id",
}

var statNames = []string{
	"server_assignment_count", "xact_count", "query_count", "received", "sent", "xact_time", "query_time", "wait_time", "client_parse_count", "server_parse_count", "bind_count",
	"client_login_count",
}

func prefixed(prefix string, names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = prefix + n
	}
	return out
}

func with(list []string, more ...string) []string {
	return append(append([]string(nil), list...), more...)
}

func init() {
	view("databases", "logical databases", showDatabases, "name", "host", "port", "database", "force_user", "pool_size", "min_pool_size", "reserve_pool_size",
		"server_lifetime", "pool_mode", "load_balance_hosts", "max_connections", "current_connections", "max_client_connections", "current_client_connections",
		"paused", "disabled", "home", "shards", "map_version")
	view("pools", "clients and servers by database and user", showPools, "database", "user", "cl_active", "cl_waiting", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active",
		"sv_active_cancel", "sv_being_canceled", "sv_idle", "sv_used", "sv_tested", "sv_login", "maxwait", "maxwait_us", "pool_mode", "load_balance_hosts")
	view("node_pools", "the server pool of each node", showNodePools, "database", "user", "shard", "node", "cl_waiting", "sv_active", "sv_idle", "sv_tested", "sv_login", "maxwait", "maxwait_us", "error")
	view("clients", "client connections", showClients, with(socketColumns, "servers", "pin", "pin_seconds", "tx")...)
	view("servers", "server connections", showServers, with(socketColumns, "shard", "node", "client")...)
	stats := with(append([]string{"database"}, append(prefixed("total_", statNames), prefixed("avg_", averageNames())...)...),
		"errors", "plan_single", "plan_scatter", "plan_gather", "plan_write", "plan_split", "plan_copy", "plan_cache_hits", "plan_cache_misses", "two_phase", "in_doubt", "pins", "wait_us")
	view("stats", "work done by database", showStats, stats...)
	view("stats_totals", "work done by database since the start", func(a *Admin) [][]any { return a.statRows(false) }, append([]string{"database"}, plainNames()...)...)
	view("stats_averages", "work done by database, each second of the last minute", func(a *Admin) [][]any { return a.statRows(true) }, append([]string{"database"}, plainNames()...)...)
	view("totals", "work done in all since the start", showTotals, "name", "value")
	view("lists", "counts of internal things", showLists, "list", "items")
	view("config", "settings in force", func(a *Admin) [][]any { return a.Config() }, "key", "value", "default", "changeable")
	view("users", "users that the proxy knows", showUsers, "name", "pool_size", "reserve_pool_size", "pool_mode", "max_user_connections", "current_connections",
		"max_user_client_connections", "current_client_connections", "role")
	view("state", "the proxy's own state", showState, "key", "value")
	view("version", "the version", func(a *Admin) [][]any { return [][]any{{"PgBouncer 1.25.0 compatible: pgmosaic " + a.Version}} }, "version")
	view("dns_hosts", "names of nodes", showDNS, "hostname", "ttl", "addrs")
}

// averageNames are the names behind avg_, which PgBouncer shortens.
func averageNames() []string {
	out := append([]string(nil), statNames...)
	for i, n := range out {
		if n == "received" {
			out[i] = "recv"
		}
	}
	return out
}

// plainNames are the names of SHOW STATS_TOTALS.
func plainNames() []string {
	out := append([]string(nil), statNames...)
	for i, n := range out {
		if n == "received" || n == "sent" {
			out[i] = "bytes_" + n
		}
	}
	return out
}

// User is a user that the proxy knows, for SHOW USERS.
type User struct {
	Name, Role string
	Clients    int
}

// Limits are the configured limits, for the views that show them; 0 is none.
type Limits struct{ MaxDatabase, MaxUser, MaxDatabaseClients, MaxUserClients int }

func showDatabases(a *Admin) [][]any {
	var out [][]any
	snap := a.Catalog.Current()
	o, l := a.Pools.Options(), a.Limits()
	host, port, _ := net.SplitHostPort(a.Addr())
	row := func(name string, size int, servers, clients int, more ...any) {
		r := []any{
			name, host, port, name, nil, size, o.Min, o.Reserve, int64(o.Lifetime.Seconds()), "transaction", nil, l.MaxDatabase, servers, l.MaxDatabaseClients, clients,
			b01(a.Pools.Paused(name, "")), b01(a.Pools.Disabled(name)),
		}
		out = append(out, append(r, more...))
	}
	clients := map[string]int{}
	for _, c := range a.Clients() {
		clients[c.Database]++
	}
	for _, d := range snap.SortedDatabases() {
		home := any(nil)
		if d.Home != nil {
			home = d.Home.Name
		}
		servers := 0
		for _, p := range a.Pools.All() {
			if p.Database == d.Name {
				servers += len(p.Servers())
			}
		}
		row(d.Name, o.Size, servers, clients[d.Name], home, len(d.Shards), int64(snap.Version))
	}
	row("pgbouncer", 2, 0, clients["pgbouncer"]+clients["pgmosaic"], nil, 0, int64(snap.Version))
	return out
}

type pair struct{ database, user string }

// clientCounts counts clients by database and user: those that wait, and the others.
func (a *Admin) clientCounts() (active, waiting map[pair]int) {
	active, waiting = map[pair]int{}, map[pair]int{}
	for _, c := range a.Clients() {
		k := pair{c.Database, c.User}
		if !c.Waiting.IsZero() {
			waiting[k]++
		} else if c.State != "startup" && c.State != "authenticating" {
			active[k]++
		}
	}
	return active, waiting
}

func showPools(a *Admin) [][]any {
	active, waiting := a.clientCounts()
	sums := map[pair]*pool.Stats{}
	for _, p := range a.Pools.All() {
		k := pair{p.Database, p.Role}
		sum := sums[k]
		if sum == nil {
			sum = &pool.Stats{}
			sums[k] = sum
		}
		s := p.Stats()
		sum.Active += s.Active
		sum.Idle += s.Idle
		sum.Testing += s.Testing
		sum.Dialing += s.Dialing
		sum.Cancelling += s.Cancelling
		sum.MaxWait = max(sum.MaxWait, s.MaxWait)
	}
	for k := range active {
		if sums[k] == nil {
			sums[k] = &pool.Stats{}
		}
	}
	var out [][]any
	for k, s := range sums {
		out = append(out, []any{
			k.database, k.user, active[k], waiting[k], 0, 0, s.Active, 0, s.Cancelling, s.Idle, 0, s.Testing, s.Dialing, int64(s.MaxWait.Seconds()), s.MaxWait.Microseconds() % 1e6,
			"transaction", nil,
		})
	}
	sort.Slice(out, func(i, j int) bool {
		return fmt.Sprint(out[i][0], "\x00", out[i][1]) < fmt.Sprint(out[j][0], "\x00", out[j][1])
	})
	return out
}

func showNodePools(a *Admin) [][]any {
	var out [][]any
	for _, p := range a.Pools.All() {
		s := p.Stats()
		var failed any
		if s.LastError != nil {
			failed = s.LastError.Error()
		}
		out = append(out, []any{
			p.Database, p.Role, p.Shard, p.Node, s.Waiting, s.Active, s.Idle, s.Testing, s.Dialing, int64(s.MaxWait.Seconds()), s.MaxWait.Microseconds() % 1e6, failed,
		})
	}
	return out
}

// stamp prints a moment as PgBouncer does; one that never was is NULL.
func stamp(t time.Time) any {
	if t.IsZero() || t.Unix() == 0 {
		return nil
	}
	return t.Format("2006-01-02 15:04:05 MST")
}

func tlsName(yes bool) string {
	if yes {
		return "TLS"
	}
	return ""
}

func showClients(a *Admin) [][]any {
	now := time.Now()
	var out [][]any
	for _, c := range a.Clients() {
		state, wait, link, pinned := "active", time.Duration(0), "", any(nil)
		if !c.Waiting.IsZero() {
			state, wait = "waiting", now.Sub(c.Waiting)
		} else if c.State == "startup" || c.State == "authenticating" {
			state = "login"
		}
		if c.Link != 0 {
			link = fmt.Sprintf("0x%x", c.Link)
		}
		if c.Pin != "" {
			pinned = int64(now.Sub(c.PinSince).Seconds())
		}
		out = append(out, []any{
			"C", c.User, c.Database, "none", state, c.Addr, c.Port, c.LocalAddr, c.LocalPort, stamp(c.Connected), stamp(c.Request), int64(wait.Seconds()), wait.Microseconds() % 1e6, 0,
			fmt.Sprintf("0x%x", c.ID), link, 0, tlsName(c.TLS), c.Application, c.Prepared, int64(c.ID), c.Servers, c.Pin, pinned, c.Tx,
		})
	}
	return out
}

func showServers(a *Admin) [][]any {
	names := map[uint32]string{}
	for _, c := range a.Clients() {
		names[c.ID] = c.Application
	}
	addr := func(x net.Addr) (string, int) {
		if t, ok := x.(*net.TCPAddr); ok {
			return t.IP.String(), t.Port
		}
		return "unix", 0
	}
	var out [][]any
	for _, p := range a.Pools.All() {
		list := p.Servers()
		sort.Slice(list, func(i, j int) bool { return list[i].PID < list[j].PID })
		for _, s := range list {
			ra, rp := addr(s.Remote)
			la, lp := addr(s.Local)
			link, client := "", any(nil)
			if s.Client != 0 {
				link, client = fmt.Sprintf("0x%x", s.Client), int64(s.Client)
			}
			out = append(out, []any{
				"S", s.Role, s.Database, "none", s.State, ra, rp, la, lp, stamp(s.Connected), stamp(s.Since), 0, 0, b01(s.State == "old"), fmt.Sprintf("0x%x", s.PID), link,
				int64(s.PID), tlsName(s.TLS), names[s.Client], s.Prepared, int64(s.PID), s.Shard, s.Node, client,
			})
		}
	}
	return out
}

// totals are a database's counters in the order of statNames.
func (a *Admin) totals(name string) []int64 {
	d := a.Metrics.Database(name)
	in, sent := d.Received.Load(), d.Sent.Load()
	for _, c := range a.Clients() {
		if c.Database == name {
			in += c.In
			sent += c.Out
		}
	}
	var assigned int64
	for _, p := range a.Pools.All() {
		if p.Database == name {
			assigned += int64(p.Stats().Served)
		}
	}
	return []int64{
		assigned, d.Transactions.Load(), d.Queries.Load(), in, sent, (d.XactNanos.Load() + d.AutoNanos.Load()) / 1000, d.QueryNanos.Load() / 1000, d.WaitNanos.Load() / 1000,
		d.ClientParses.Load(), d.ServerParses.Load(), d.Binds.Load(), d.Logins.Load(),
	}
}

// period is PgBouncer's stats_period.
const period = time.Minute

// sampleStats keeps the counters of now, for the averages.
func (a *Admin) sampleStats(now time.Time) {
	next := statSample{at: now, totals: map[string][]int64{}}
	for _, n := range a.Metrics.Databases() {
		next.totals[n] = a.totals(n)
	}
	a.sampling.Lock()
	defer a.sampling.Unlock()
	a.older, a.newer = a.newer, next
}

type statSample struct {
	at     time.Time
	totals map[string][]int64
}

// averages are a database's counters for each second of the last period; times are for each transaction,
// query or wait.
func (a *Admin) averages(name string) []int64 {
	out := make([]int64, len(statNames))
	a.sampling.Lock()
	older, newer := a.older, a.newer
	a.sampling.Unlock()
	was, now := older.totals[name], newer.totals[name]
	if now == nil {
		return out
	}
	if was == nil {
		was = make([]int64, len(now))
	}
	secs := newer.at.Sub(older.at).Seconds()
	if older.at.IsZero() {
		secs = newer.at.Sub(a.Metrics.Started).Seconds()
	}
	if secs <= 0 {
		return out
	}
	for i, n := range statNames {
		d := now[i] - was[i]
		switch n {
		case "xact_time":
			d /= max(1, now[1]-was[1])
		case "query_time":
			d /= max(1, now[2]-was[2])
		default:
			d = int64(float64(d) / secs)
		}
		out[i] = d
	}
	return out
}

func cells(list []int64) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

func (a *Admin) statRows(average bool) [][]any {
	var out [][]any
	for _, name := range a.Metrics.Databases() {
		v := a.totals(name)
		if average {
			v = a.averages(name)
		}
		out = append(out, append([]any{name}, cells(v)...))
	}
	return out
}

func showStats(a *Admin) [][]any {
	var out [][]any
	for _, name := range a.Metrics.Databases() {
		d := a.Metrics.Database(name)
		row := append([]any{name}, cells(a.totals(name))...)
		row = append(row, cells(a.averages(name))...)
		out = append(out, append(row,
			d.Errors.Load(), d.Single.Load(), d.Scatter.Load(), d.Gather.Load(), d.Write.Load(), d.Split.Load(), d.Copy.Load(),
			d.PlanHits.Load(), d.PlanMisses.Load(), d.TwoPhase.Load(), d.InDoubt.Load(), d.Pins.Load(), d.WaitNanos.Load()/1000))
	}
	return out
}

func showTotals(a *Admin) [][]any {
	total, avg := make([]int64, len(statNames)), make([]int64, len(statNames))
	for _, name := range a.Metrics.Databases() {
		for i, v := range a.totals(name) {
			total[i] += v
		}
		for i, v := range a.averages(name) {
			avg[i] += v
		}
	}
	var out [][]any
	for i, n := range prefixed("total_", statNames) {
		out = append(out, []any{n, total[i]})
	}
	for i, n := range prefixed("avg_", averageNames()) {
		out = append(out, []any{n, avg[i]})
	}
	return out
}

func showUsers(a *Admin) [][]any {
	o, l := a.Pools.Options(), a.Limits()
	servers := map[string]int{}
	for _, p := range a.Pools.All() {
		servers[p.Role] += len(p.Servers())
	}
	var out [][]any
	for _, u := range a.Users() {
		out = append(out, []any{u.Name, o.Size, o.Reserve, "transaction", l.MaxUser, servers[u.Name], l.MaxUserClients, u.Clients, u.Role})
	}
	return out
}

func showLists(a *Admin) [][]any {
	login, used, prepared := 0, 0, 0
	for _, c := range a.Clients() {
		if c.State == "startup" || c.State == "authenticating" {
			login++
		} else {
			used++
		}
		prepared += c.Prepared
	}
	active, idle := 0, 0
	for _, p := range a.Pools.All() {
		s := p.Stats()
		active += s.Active + s.Testing + s.Dialing
		idle += s.Idle
	}
	conns, channels := a.Listening()
	return [][]any{
		{"databases", len(a.Catalog.Current().Databases)},
		{"users", len(a.Users())},
		{"peers", 0},
		{"pools", len(a.Pools.All())},
		{"peer_pools", 0},
		{"free_clients", 0},
		{"used_clients", used},
		{"login_clients", login},
		{"free_servers", idle},
		{"used_servers", active},
		{"dns_names", len(showDNS(a))},
		{"dns_zones", 0},
		{"dns_queries", 0},
		{"dns_pending", 0},
		{"plans", a.PlanCount()},
		{"prepared_statements", prepared},
		{"listen_connections", conns},
		{"listen_channels", channels},
		{"stray_servers", a.Pools.Strays()},
	}
}

func showState(a *Admin) [][]any {
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	paused := len(a.Catalog.Current().Databases) > 0
	for n := range a.Catalog.Current().Databases {
		paused = paused && a.Pools.Paused(n, "")
	}
	return [][]any{{"active", yes(!paused)}, {"paused", yes(paused)}, {"suspended", "no"}, {"uptime_seconds", int64(time.Since(a.Metrics.Started).Seconds())}}
}

func showDNS(a *Admin) [][]any {
	seen := map[string]bool{}
	var out [][]any
	for _, p := range a.Pools.All() {
		name := p.Host()
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		addrs := map[string]bool{}
		for _, s := range p.Servers() {
			if t, ok := s.Remote.(*net.TCPAddr); ok {
				addrs[t.IP.String()] = true
			}
		}
		list := ""
		for x := range addrs {
			if list != "" {
				list += ","
			}
			list += x
		}
		out = append(out, []any{name, int64(a.Pools.Options().DNSTTL.Seconds()), list})
	}
	return out
}
