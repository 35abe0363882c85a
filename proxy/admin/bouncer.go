package admin

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
)

// The views of this file have the names, columns and order of PgBouncer 1.25's, so that exporters, dashboards
// and habits go on working. Columns of our own stand at the right.

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
	table("databases", "logical databases", showDatabases)
	table("pools", "clients and servers by database and user", showPools)
	table("node_pools", "the server pool of each node", showNodePools)
	table("clients", "client connections", showClients)
	table("servers", "server connections", showServers)
	stats := with(append([]string{"database"}, append(prefixed("total_", statNames), prefixed("avg_", averageNames())...)...),
		"errors", "plan_single", "plan_scatter", "plan_gather", "plan_write", "plan_split", "plan_copy", "plan_cache_hits", "plan_cache_misses", "two_phase", "in_doubt", "pins", "wait_us")
	view("stats", "work done by database", showStats, stats...)
	view("stats_totals", "work done by database since the start", func(a *Admin) [][]any { return a.statRows(false) }, append([]string{"database"}, plainNames()...)...)
	view("stats_averages", "work done by database, each second of the last minute", func(a *Admin) [][]any { return a.statRows(true) }, append([]string{"database"}, plainNames()...)...)
	table("totals", "work done in all since the start", showTotals)
	table("lists", "counts of internal things", showLists)
	table("config", "settings in force", func(a *Admin) []Setting { return a.Config() })
	table("users", "users that the proxy knows", showUsers)
	table("state", "the proxy's own state", showState)
	table("version", "the version", func(a *Admin) []versionRow {
		return []versionRow{{"PgBouncer 1.25.0 compatible: pgmosaic " + a.Version}}
	})
	table("dns_hosts", "names of nodes", showDNS)
}

type versionRow struct{ Version string }

// Setting is a setting in force, as SHOW CONFIG has it.
type Setting struct{ Key, Value, Default, Changeable string }

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

type databaseRow struct {
	Name, Host, Port, Database                                                         string
	ForceUser                                                                          any
	PoolSize, MinPoolSize, ReservePoolSize                                             int
	ServerLifetime                                                                     int64
	PoolMode                                                                           string
	LoadBalanceHosts                                                                   any
	MaxConnections, CurrentConnections, MaxClientConnections, CurrentClientConnections int
	Paused, Disabled                                                                   int
	Home                                                                               any
	Shards                                                                             int
	MapVersion                                                                         int64
}

func showDatabases(a *Admin) (out []databaseRow) {
	snap := a.Catalog.Current()
	o, l := a.Pools.Options(), a.Limits()
	host, port, _ := net.SplitHostPort(a.Addr())
	clients := map[string]int{}
	for _, c := range a.Clients() {
		clients[c.Database]++
	}
	row := func(name string) databaseRow {
		return databaseRow{
			Name: name, Host: host, Port: port, Database: name, PoolSize: o.Size, MinPoolSize: o.Min, ReservePoolSize: o.Reserve, ServerLifetime: int64(o.Lifetime.Seconds()),
			PoolMode: "transaction", MaxConnections: l.MaxDatabase, MaxClientConnections: l.MaxDatabaseClients, CurrentClientConnections: clients[name],
			Paused: b01(a.Pools.Paused(name, "")), Disabled: b01(a.Pools.Disabled(name)), MapVersion: int64(snap.Version),
		}
	}
	for _, d := range snap.SortedDatabases() {
		r := row(d.Name)
		r.Shards = len(d.Shards)
		if d.Home != nil {
			r.Home = d.Home.Name
		}
		for _, p := range a.Pools.All() {
			if p.Database == d.Name {
				r.CurrentConnections += len(p.Servers())
			}
		}
		out = append(out, r)
	}
	console := row("pgbouncer")
	console.PoolSize = 2
	console.CurrentClientConnections += clients["pgmosaic"]
	return append(out, console)
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

type poolRow struct {
	Database, User                                                               string
	ClActive, ClWaiting, ClActiveCancelReq, ClWaitingCancelReq                   int
	SvActive, SvActiveCancel, SvBeingCanceled, SvIdle, SvUsed, SvTested, SvLogin int
	Maxwait, MaxwaitUs                                                           int64
	PoolMode                                                                     string
	LoadBalanceHosts                                                             any
}

func showPools(a *Admin) (out []poolRow) {
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
	for k, s := range sums {
		out = append(out, poolRow{
			Database: k.database, User: k.user, ClActive: active[k], ClWaiting: waiting[k], SvActive: s.Active, SvBeingCanceled: s.Cancelling, SvIdle: s.Idle, SvTested: s.Testing,
			SvLogin: s.Dialing, Maxwait: int64(s.MaxWait.Seconds()), MaxwaitUs: s.MaxWait.Microseconds() % 1e6, PoolMode: "transaction",
		})
	}
	slices.SortFunc(out, func(a, b poolRow) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.User, b.User))
	})
	return out
}

type nodePoolRow struct {
	Database, User, Shard, Node                    string
	ClWaiting, SvActive, SvIdle, SvTested, SvLogin int
	Maxwait, MaxwaitUs                             int64
	Error                                          any
}

func showNodePools(a *Admin) (out []nodePoolRow) {
	for _, p := range a.Pools.All() {
		s := p.Stats()
		row := nodePoolRow{
			Database: p.Database, User: p.Role, Shard: p.Shard, Node: p.Node, ClWaiting: s.Waiting, SvActive: s.Active, SvIdle: s.Idle, SvTested: s.Testing, SvLogin: s.Dialing,
			Maxwait: int64(s.MaxWait.Seconds()), MaxwaitUs: s.MaxWait.Microseconds() % 1e6,
		}
		if s.LastError != nil {
			row.Error = s.LastError.Error()
		}
		out = append(out, row)
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

// socketRow is what clients and servers have in common.
type socketRow struct {
	Type, User, Database, Replication, State, Addr string
	Port                                           int
	LocalAddr                                      string
	LocalPort                                      int
	ConnectTime, RequestTime                       any
	Wait, WaitUs                                   int64
	CloseNeeded                                    int
	Ptr, Link                                      string
	RemotePid                                      int64
	TLS, ApplicationName                           string
	PreparedStatements                             int
	ID                                             int64
}

type clientRow struct {
	socketRow
	Servers    int
	Pin        string
	PinSeconds any
	Tx         string
}

func showClients(a *Admin) (out []clientRow) {
	now := time.Now()
	for _, c := range a.Clients() {
		row := clientRow{socketRow: socketRow{
			Type: "C", User: c.User, Database: c.Database, Replication: "none", State: "active", Addr: c.Addr, Port: c.Port, LocalAddr: c.LocalAddr, LocalPort: c.LocalPort,
			ConnectTime: stamp(c.Connected), RequestTime: stamp(c.Request), Ptr: fmt.Sprintf("0x%x", c.ID), TLS: tlsName(c.TLS), ApplicationName: c.Application,
			PreparedStatements: c.Prepared, ID: int64(c.ID),
		}, Servers: c.Servers, Pin: c.Pin, Tx: c.Tx}
		if !c.Waiting.IsZero() {
			wait := now.Sub(c.Waiting)
			row.State, row.Wait, row.WaitUs = "waiting", int64(wait.Seconds()), wait.Microseconds()%1e6
		} else if c.State == "startup" || c.State == "authenticating" {
			row.State = "login"
		}
		if c.Link != 0 {
			row.Link = fmt.Sprintf("0x%x", c.Link)
		}
		if c.Pin != "" {
			row.PinSeconds = int64(now.Sub(c.PinSince).Seconds())
		}
		out = append(out, row)
	}
	return out
}

type serverRow struct {
	socketRow
	Shard, Node string
	Client      any
}

func showServers(a *Admin) (out []serverRow) {
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
	for _, p := range a.Pools.All() {
		list := p.Servers()
		sort.Slice(list, func(i, j int) bool { return list[i].PID < list[j].PID })
		for _, s := range list {
			row := serverRow{socketRow: socketRow{
				Type: "S", User: s.Role, Database: s.Database, Replication: "none", State: s.State, ConnectTime: stamp(s.Connected), RequestTime: stamp(s.Since),
				CloseNeeded: b01(s.State == "old"), Ptr: fmt.Sprintf("0x%x", s.PID), RemotePid: int64(s.PID), TLS: tlsName(s.TLS), ApplicationName: names[s.Client],
				PreparedStatements: s.Prepared, ID: int64(s.PID),
			}, Shard: s.Shard, Node: s.Node}
			row.Addr, row.Port = addr(s.Remote)
			row.LocalAddr, row.LocalPort = addr(s.Local)
			if s.Client != 0 {
				row.Link, row.Client = fmt.Sprintf("0x%x", s.Client), int64(s.Client)
			}
			out = append(out, row)
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

type totalRow struct {
	Name  string
	Value int64
}

func showTotals(a *Admin) (out []totalRow) {
	total, avg := make([]int64, len(statNames)), make([]int64, len(statNames))
	for _, name := range a.Metrics.Databases() {
		for i, v := range a.totals(name) {
			total[i] += v
		}
		for i, v := range a.averages(name) {
			avg[i] += v
		}
	}
	for i, n := range prefixed("total_", statNames) {
		out = append(out, totalRow{n, total[i]})
	}
	for i, n := range prefixed("avg_", averageNames()) {
		out = append(out, totalRow{n, avg[i]})
	}
	return out
}

type userRow struct {
	Name                                                                                       string
	PoolSize, ReservePoolSize                                                                  int
	PoolMode                                                                                   string
	MaxUserConnections, CurrentConnections, MaxUserClientConnections, CurrentClientConnections int
	Role                                                                                       string
}

func showUsers(a *Admin) (out []userRow) {
	o, l := a.Pools.Options(), a.Limits()
	servers := map[string]int{}
	for _, p := range a.Pools.All() {
		servers[p.Role] += len(p.Servers())
	}
	for _, u := range a.Users() {
		out = append(out, userRow{
			Name: u.Name, PoolSize: o.Size, ReservePoolSize: o.Reserve, PoolMode: "transaction", MaxUserConnections: l.MaxUser, CurrentConnections: servers[u.Name],
			MaxUserClientConnections: l.MaxUserClients, CurrentClientConnections: u.Clients, Role: u.Role,
		})
	}
	return out
}

type listRow struct {
	List  string
	Items any
}

func showLists(a *Admin) []listRow {
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
	return []listRow{
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

type stateRow struct {
	Key   string
	Value any
}

func showState(a *Admin) []stateRow {
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
	return []stateRow{{"active", yes(!paused)}, {"paused", yes(paused)}, {"suspended", "no"}, {"uptime_seconds", int64(time.Since(a.Metrics.Started).Seconds())}}
}

type dnsRow struct {
	Hostname string
	TTL      int64
	Addrs    string
}

func showDNS(a *Admin) (out []dnsRow) {
	seen := map[string]bool{}
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
		out = append(out, dnsRow{name, int64(a.Pools.Options().DNSTTL.Seconds()), strings.Join(slices.Sorted(maps.Keys(addrs)), ",")})
	}
	return out
}
