package main

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/pgmosaic/pgmosaic/proxy"
	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/dashboard"
	"github.com/pgmosaic/pgmosaic/proxy/exec"
	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/notify"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/peer"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/session"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// app is one running proxy: every object, built once.
type app struct {
	cfg     Config
	log     *slog.Logger
	catalog *shardmap.Catalog
	monitor *replication.Monitor
	pools   *pool.Manager
	engine  *exec.Engine
	admin   *admin.Admin
	server  *proxy.Server
	metrics *metrics.Metrics
	backend *backend
	http    *http.Server
	httpLis net.Listener
	board   *dashboard.Server
	traces  *tracing

	visits   txn.Conns                      // to the shards, of what works on commits and looks for deadlocks
	prepared atomic.Pointer[[]txn.Prepared] // what the resolver saw last

	config atomic.Pointer[Config] // what is in force since the last RELOAD
	level  *slog.LevelVar
	sink   atomic.Pointer[logSink] // of the log; nil where tests read it
	hub    *notify.Hub
	peers  net.Listener

	inherited *proxy.Inherited        // from a process that is there already
	listening map[string]net.Listener // by address, for the next one
	offered   atomic.Pointer[proxy.Offer]

	ended   chan struct{} // closed by SHUTDOWN
	endOnce sync.Once
	wait    atomic.Bool // SHUTDOWN WAIT_FOR_CLIENTS

	reloading sync.Mutex // one RELOAD at a time
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
}

// newLogger makes the log and what sets its level.
func newLogger(cfg Config, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	var l slog.Level
	if err := l.UnmarshalText([]byte(cfg.LogLevel)); err == nil {
		level.Set(l)
	}
	opts := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts)), level
	}
	return slog.New(slog.NewTextHandler(w, opts)), level
}

func newInstall() string {
	b := make([]byte, 16)
	_, _ = crand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// start builds a proxy, listens and serves in the background. The caller must call stop.
func start(ctx context.Context, cfg Config, log *slog.Logger) (*app, error) {
	maxStatement, err := exec.ParseSize(cfg.MaxStatement)
	if err != nil {
		return nil, err
	}
	gatherLimit, err := exec.ParseSize(cfg.GatherLimit)
	if err != nil {
		return nil, err
	}
	mergeMemory, err := exec.ParseSize(cfg.MergeMemory)
	if err != nil {
		return nil, err
	}
	memory, err := cfg.memoryLimit()
	if err != nil {
		return nil, err
	}
	sessionMemory, err := exec.ParseSize(cfg.SessionMemory)
	if err != nil {
		return nil, err
	}
	bufferSize, err := exec.ParseSize(cfg.BufferSize)
	if err != nil {
		return nil, err
	}
	level, err := replication.ParseLevel(cfg.Consistency)
	if err != nil {
		return nil, err
	}
	panics.LogTo(log)
	a := &app{cfg: cfg, log: log, metrics: metrics.New(time.Now()), ended: make(chan struct{}), listening: map[string]net.Listener{}}
	a.metrics.Reasons = replication.ReasonNames[:]
	a.config.Store(&cfg)
	if a.catalog, err = shardmap.Open(ctx, filestore.New(cfg.Store), newInstall()); err != nil {
		return nil, err
	}
	a.backend = newBackend(a)
	access, err := newAccess(&cfg, a.catalog.Current().Key(saltKey))
	if err != nil {
		return nil, err
	}
	a.backend.access.Store(access)
	opts := cfg.poolOptions()
	opts.Password, opts.Verify = a.backend.serverPassword, a.verify
	a.pools = pool.NewManager(opts)
	policy := replication.DefaultPolicy()
	policy.Interval, policy.MaxLag = time.Duration(cfg.Monitor), time.Duration(cfg.MaxLag)
	a.monitor = replication.NewMonitor(policy, a.catalog, replication.Events{Left: a.nodeLeft, Rejoined: a.nodeRejoined, Primary: a.primaryChanged, Changed: a.shardChanged}, log)
	a.engine = &exec.Engine{
		Catalog: a.catalog, Monitor: a.monitor, Horizon: replication.NewHorizons(time.Now()), Pools: a.pools, Metrics: a.metrics, Log: log,
		Fallback: cfg.Fallback == exec.Fallbacks()[0], Zone: cfg.Zone, Failover: exec.Failover{Window: time.Duration(cfg.Buffer), Requests: cfg.BufferRequests, Bytes: bufferSize},
		Level: level, MaxStaleness: time.Duration(cfg.MaxLag), GatherLimit: gatherLimit, Commit: exec.Commit(slices.Index(exec.Commits, cfg.Commit)), Signal: a.signal,
	}
	a.engine.MergeMemory.Store(mergeMemory)
	a.engine.Memory.Limit.Store(memory)
	a.engine.Memory.Session.Store(sessionMemory)
	if memory > 0 {
		debug.SetMemoryLimit(memory)
	}
	a.engine.Logging.Store(cfg.logging())
	a.engine.ShardUsers.Store(&cfg.ShardUsers)
	if a.traces, err = newTracing(ctx, &cfg); err != nil {
		return nil, err
	}
	if a.traces != nil {
		a.engine.Tracing = &exec.Tracing{Share: cfg.TraceShare, Record: a.traces.record}
	}
	a.hub = &notify.Hub{Shards: a.listenOn, Sender: a.pools.LastClient, Log: log}
	a.engine.Hub = a.hub
	a.engine.FinishOn = func(ctx context.Context, db, shard, gid string) error {
		for _, s := range a.shardsOf(a.catalog.Current().Databases[db]) {
			if s.Name == shard {
				return a.resolver().FinishOn(ctx, s, gid)
			}
		}
		return nil // the shard is gone from the map
	}
	secrets := &txn.Secrets{}
	a.engine.Secret = func(ctx context.Context, db, shard string) (txn.Secret, error) {
		if d := a.catalog.Current().Databases[db]; d != nil {
			if s, ok := d.Shard(shard); ok {
				if visited := a.shardOf(d, s); visited.DSN != "" {
					return secrets.Of(ctx, db, visited)
				}
			}
		}
		return txn.Secret{}, fmt.Errorf("shard %s has no primary", shard)
	}
	a.engine.ForgetSecrets = secrets.Forget
	a.catalog.OnChange(func(s *shardmap.Snapshot) {
		secrets.Retain(func(db, shard string) bool {
			d := s.Databases[db]
			if d == nil {
				return false
			}
			_, ok := d.Shard(shard)
			return ok
		})
	})
	a.engine.Settle = func(ctx context.Context, db, gid string) (bool, error) {
		return a.resolver().Settle(ctx, a.shardsOf(a.catalog.Current().Databases[db]), gid)
	}
	if err := a.engine.Init(); err != nil {
		return nil, err
	}
	a.inherit()
	defer a.inherited.Close()
	a.buildAdmin()
	a.engine.Renames = a.admin.Renames
	if err := a.buildServer(int(maxStatement)); err != nil {
		return nil, err
	}
	a.buildHTTP()
	if !cfg.ReusePort {
		if err := a.listenHTTP(); err != nil {
			a.server.Stop()
			if a.peers != nil {
				_ = a.peers.Close()
			}
			return nil, err
		}
	}
	a.run(ctx)
	if err := a.initialise(ctx); err != nil {
		a.stop(0)
		return nil, err
	}
	if cfg.ReusePort {
		a.awaitReady(ctx)
		if err := a.listenHTTP(); err != nil {
			a.stop(0)
			return nil, err
		}
	}
	a.serveHTTP()
	a.offer()
	return a, nil
}

func (a *app) buildServer(maxStatement int) error {
	cfg := &a.cfg
	a.server = &proxy.Server{
		Session: session.Config{Backend: a.backend, TLS: func() *tls.Config { return a.backend.access.Load().tls }, LoginTimeout: time.Duration(cfg.Login), MaxStatement: maxStatement, Log: a.log, Proxied: func(from netip.Addr) bool { return a.backend.access.Load().isProxied(from) }},
		Log:     a.log, Peer: cfg.PeerID, Others: func(id int) (string, bool) {
			for _, p := range a.config.Load().Peers {
				if p.ID == id {
					return p.Address, true
				}
			}
			return "", false
		},
		Owners:  a.owners,
		PeerKey: a.peerKey,
	}
	if a.server.Peer == 0 { // nobody knows us: only be unlike the others
		a.server.Peer = 1 + rand.IntN(proxy.Peers-1)
	}
	a.server.SetOptions(cfg.limits())
	if err := a.server.Listen(cfg.Listen, 0, a.share()); err != nil {
		return err
	}
	a.listening[cfg.Listen] = a.server.Listeners()[0]
	if cfg.UnixDir != "" {
		mode, err := cfg.unixMode()
		if err != nil {
			return err
		}
		_, port, err := net.SplitHostPort(a.server.Addr())
		if err != nil {
			return err
		}
		path := filepath.Join(cfg.UnixDir, ".s.PGSQL."+port)
		if err := a.server.Listen(path, mode, a.share()); err != nil {
			a.server.Stop()
			return err
		}
		a.listening[path] = a.server.Listeners()[1]
	}
	if cfg.PeerListen != "" {
		l, err := proxy.Listen(cfg.PeerListen, 0, a.share())
		if err != nil {
			a.server.Stop()
			return fmt.Errorf("peer_listen: %w", err)
		}
		a.peers, a.listening[cfg.PeerListen] = l, l
	}
	return nil
}

// listenOn lists the primaries of a database's shards, for the hub.
func (a *app) listenOn(ctx context.Context, db string) ([]notify.Shard, error) {
	d := a.catalog.Current().Databases[db]
	if d == nil {
		return nil, fmt.Errorf("database %q does not exist", db)
	}
	var out []notify.Shard
	for _, s := range d.Shards {
		dsn, err := a.engine.PrimaryDSN(ctx, d, s)
		if err != nil {
			return nil, err
		}
		out = append(out, notify.Shard{Name: s.Name, DSN: dsn})
	}
	return out, nil
}

// signal does for a client what pg_terminate_backend and pg_cancel_backend do for a server process. A role may
// do it to its own sessions.
func (a *app) signal(pid uint32, database, role string, terminate bool) bool {
	s := a.server.SessionOf(pid)
	if s == nil {
		return false
	}
	i := s.Info()
	if i.Login.User != role || i.Login.Database != database {
		return false
	}
	if terminate {
		s.Terminate(&wire.PgError{Code: "57P01", Message: "terminating connection due to administrator command"})
	} else if i.Handler != nil {
		i.Handler.Cancel()
	}
	return true
}

// verify asks a client's server whether it is a shard's.
func (a *app) verify(database, shard string, ask func(sql string) ([][][]byte, error)) error {
	return a.judge(database, shard, func() (shardmap.Identity, error) { return nodeconn.IdentityOver(ask) })
}

// isShards asks a connection of the proxy's own the same.
func (a *app) isShards(ctx context.Context, database, shard string, c *pgconn.PgConn) error {
	return a.judge(database, shard, func() (shardmap.Identity, error) { return nodeconn.Identify(ctx, c) })
}

func (a *app) judge(database, shard string, ask func() (shardmap.Identity, error)) error {
	expected := a.catalog.Current().Expected(database, shard)
	if !expected.Any() {
		return nil
	}
	says, err := ask()
	if err != nil {
		return err
	}
	return expected.Judge(says)
}

// saltKey is what the key is for that the salts of users are made with.
const saltKey = "scram salts"

// followSecret takes the map's secret into use: a process that began without a map may have got another's by now.
func (a *app) followSecret() {
	a.catalog.OnChange(func(s *shardmap.Snapshot) {
		if bytes.Equal(s.Key(saltKey), a.backend.access.Load().salts.Key) {
			return
		}
		a.background("salts", func(context.Context) error {
			a.reloading.Lock()
			defer a.reloading.Unlock()
			access, err := newAccess(a.config.Load(), a.catalog.Current().Key(saltKey))
			if err == nil {
				a.backend.access.Store(access)
			}
			return err
		})
	})
}

func (a *app) buildAdmin() {
	a.admin = &admin.Admin{
		Catalog: a.catalog, Monitor: a.monitor, Pools: a.pools, Metrics: a.metrics, Log: a.log, Version: version, PauseTimeout: 10 * time.Second,
		Clients: a.clients, Using: a.using, Users: a.backend.list, Config: func() [][]any { return a.config.Load().show() }, PlanCount: a.engine.PlanCount, Plans: a.plans, Explain: a.explain,
		Reload: a.reload, Shutdown: a.shutdown, Set: a.set, Listening: a.hub.Stats, Limits: a.adminLimits, Addr: func() string { return a.server.Addr() },
		Found: func() []txn.Prepared {
			if p := a.prepared.Load(); p != nil {
				return *p
			}
			return nil
		},
		SchemaChanged: func(ctx context.Context, db string) {
			if d := a.catalog.Current().Databases[db]; d != nil && d.Home != nil {
				if _, err := a.engine.RefreshSchema(ctx, d); err != nil {
					a.log.Warn("schema", "database", db, "error", err)
				}
			}
		},
		Prepared: func(ctx context.Context, db string) ([]txn.Prepared, error) {
			r := a.resolver()
			return r.List(ctx, a.shardsOf(a.catalog.Current().Databases[db]))
		},
	}
}

func (a *app) explain(ctx context.Context, db, sql string) ([]string, error) {
	d := a.catalog.Current().Databases[db]
	if d.Home == nil {
		return nil, errors.New("the database has no shard yet")
	}
	sch, err := a.engine.Schema(ctx, d)
	if err != nil {
		return nil, err
	}
	return exec.ExplainRoute(sql, a.engine.WithPartitions(d, sch), sch, exec.DefaultEnv(), nil)
}

func (a *app) shardsOf(d *shardmap.DB) []txn.Shard {
	if d == nil {
		return nil
	}
	out := make([]txn.Shard, len(d.Shards))
	for i, s := range d.Shards {
		out[i] = a.shardOf(d, s)
	}
	return out
}

// shardOf is a shard as it is visited, without a DSN where it has no primary.
func (a *app) shardOf(d *shardmap.DB, s *shardmap.ShardInfo) txn.Shard {
	whole := a.engine.Horizon.Slot(a.engine.Horizon.Shard(d.Name, s.Name), "", 0)
	t := txn.Shard{
		Database: d.Name, Name: s.Name, Ordinal: s.Ordinal, Conns: &a.visits,
		Verify: func(ctx context.Context, c *pgconn.PgConn) error { return a.isShards(ctx, d.Name, s.Name, c) },
		Writes: func() func() {
			a.engine.Horizon.Sent(whole)
			return func() { a.engine.Horizon.Acked(whole, time.Now()) }
		},
	}
	if v := a.monitor.View(d.Name, s.Name); v != nil && v.Up() {
		t.Node, t.DSN = v.Nodes[v.Primary].Name, v.Nodes[v.Primary].DSN
	}
	return t
}

// warnOfShard logs an error of a visit to a shard, with where it was.
func (a *app) warnOfShard(what string, err error) {
	attrs := []any{"error", err}
	var s *txn.ShardError
	if errors.As(err, &s) {
		attrs = append([]any{"database", s.Database, "shard", s.Shard, "node", s.Node}, attrs...)
	}
	a.log.Warn(what, attrs...)
}

func (a *app) resolver() *txn.Resolver {
	return &txn.Resolver{Install: a.catalog.Current().Install, Grace: time.Duration(a.cfg.Grace), Shards: func() (out [][]txn.Shard) {
		for _, d := range a.catalog.Current().Databases {
			if len(d.Shards) > 1 {
				out = append(out, a.shardsOf(d))
			}
		}
		return out
	}}
}

// deadlockPeriod is PostgreSQL's default deadlock_timeout. A deadlock over shards is broken after two to three of them.
const deadlockPeriod = time.Second

// deadlocks looks for deadlocks over shards among this process's clients.
func (a *app) deadlocks() *txn.Deadlocks {
	var names []string // of the databases of the last Shards
	find := func(id uint32) *session.Session {
		for _, s := range a.server.Sessions() {
			if s.Info().PID == id {
				return s
			}
		}
		return nil
	}
	elsewhere := map[uint32]time.Time{} // of clients of other processes, as of the last round
	since := func(id uint32) time.Time {
		if s := find(id); s != nil {
			return s.TxSince()
		}
		return elsewhere[id]
	}
	return &txn.Deadlocks{
		Shards: func() (out [][]txn.Shard) {
			names = names[:0]
			for _, d := range a.catalog.Current().Databases {
				if len(d.Shards) > 1 {
					names, out = append(names, d.Name), append(out, a.shardsOf(d))
				}
			}
			return out
		},
		Suspect: func() bool {
			wide, waiting := 0, 0
			for _, s := range a.server.Sessions() {
				i := s.Info()
				if h, ok := i.Handler.(*exec.Handler); ok && i.State == session.Busy && h.Servers() > 1 {
					wide++
					if time.Since(i.Request) > deadlockPeriod {
						waiting++
					}
				}
			}
			return waiting > 0 && (wide > 1 || len(a.peerAddresses()) > 0)
		},
		Client: func(database int, shard string, pid uint32) uint32 {
			return a.pools.ClientOf(names[database], shard, pid)
		},
		Others: func(ctx context.Context, list []txn.Server) []uint32 {
			procs := make([]peer.Process, len(list))
			for i, s := range list {
				procs[i] = peer.Process{Database: names[s.Database], Shard: s.Shard, PID: s.PID}
			}
			clear(elsewhere)
			out := make([]uint32, len(list))
			for i, o := range a.askPeers(ctx, procs) {
				out[i], elsewhere[o.Client] = o.Client, o.Since
			}
			return out
		},
		Younger: func(x, y uint32) bool {
			if c := since(x).Compare(since(y)); c != 0 {
				return c > 0
			}
			return x > y
		},
		Cancel: func(id uint32) {
			s := find(id)
			if s == nil {
				return
			}
			a.log.Info("deadlock over shards: the youngest transaction is cancelled", "client", id)
			if h, ok := s.Info().Handler.(*exec.Handler); ok {
				h.CancelBecause(&wire.PgError{Code: "40P01", Message: "deadlock detected", Detail: "The transaction waits for others on one shard, and they for it on another.", Hint: "Run the transaction again. Lock rows in the same order everywhere."}, false)()
			}
		},
	}
}

func (a *app) clients() []admin.Client {
	var out []admin.Client
	for _, s := range a.server.Sessions() {
		out = append(out, a.client(s))
	}
	return out
}

// using lists the clients of a database that run by a map older than a version.
func (a *app) using(database string, before uint64) (out []admin.Client) {
	for _, s := range a.server.Sessions() {
		i := s.Info()
		if h, ok := i.Handler.(*exec.Handler); ok && i.Login.Database == database {
			if v := h.Using(); v != 0 && v < before {
				out = append(out, a.client(s))
			}
		}
	}
	return out
}

func (a *app) client(s *session.Session) admin.Client {
	i := s.Info()
	c := admin.Client{
		ID: i.PID, User: i.Login.User, Database: i.Login.Database, State: i.State.String(), Connected: i.Connected, Request: i.Request, TLS: i.TLS,
		Application: i.Application, In: i.In, Out: i.Out, Tx: string(i.Tx), Addr: "unix", LocalAddr: "unix",
		Kill: func() {
			s.Terminate(&wire.PgError{Code: "57P01", Message: "admin forced disconnect: terminating connection due to administrator command"})
		},
	}
	if i.Login.Remote.IsValid() {
		c.Addr, c.Port = i.Login.Remote.Addr().Unmap().String(), int(i.Login.Remote.Port())
		c.LocalAddr, c.LocalPort = i.Login.Local.Addr().Unmap().String(), int(i.Login.Local.Port())
	}
	if h, ok := i.Handler.(*exec.Handler); ok {
		c.Pin, c.PinSince = h.Pinned()
		c.Servers, c.Link, c.Waiting, c.Prepared = h.Servers(), h.Link(), h.Waiting(), h.PreparedCount()
	}
	return c
}

func (a *app) buildHTTP() {
	if a.cfg.HTTP == "off" || a.cfg.HTTP == "" {
		return
	}
	reg := prometheus.NewRegistry()
	a.metrics.AddGauges(a.gauges)
	reg.MustRegister(a.metrics, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.board = &dashboard.Server{Admin: a.admin, Gatherer: reg, Ready: a.ready, Login: a.backend.webLogin, Open: dashboard.Loopback(a.cfg.HTTP), Bounds: dashboard.DefaultBounds()}
	var config *tls.Config
	if a.cfg.HTTPCert != "" {
		config = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return a.backend.access.Load().page, nil
		}}
	} else if a.cfg.pageIsPlain() {
		a.log.Warn(plainPage)
	}
	a.http = a.board.HTTP(config)
	a.http.ErrorLog = slog.NewLogLogger(a.log.Handler(), slog.LevelWarn)
}

// pageIsPlain says whether passwords for the page can be read on the way.
func (c *Config) pageIsPlain() bool {
	return c.HTTP != "off" && c.HTTP != "" && c.HTTPCert == "" && !dashboard.Loopback(c.HTTP)
}

// plainPage warns of a page whose passwords can be read on the way.
const plainPage = "http: names and passwords cross the network in plain: set http_tls_cert_file and http_tls_key_file, or listen on 127.0.0.1"

// listenHTTP opens the page's port.
func (a *app) listenHTTP() error {
	if a.http == nil {
		return nil
	}
	l, err := proxy.Listen(a.cfg.HTTP, 0, a.share())
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	a.httpLis, a.listening[a.cfg.HTTP] = l, l
	return nil
}

// serveHTTP answers on the page's port in the background.
func (a *app) serveHTTP() {
	if a.http == nil {
		return
	}
	a.background("dashboard", a.board.Run)
	a.background("http", func(context.Context) error {
		serve := a.http.Serve
		if a.http.TLSConfig != nil {
			serve = func(l net.Listener) error { return a.http.ServeTLS(l, "", "") }
		}
		if err := serve(a.httpLis); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
}

// ready says whether this process should be sent clients: it takes them, and reaches at least one shard. A shard that is away
// is away for every process alike: it is no reason to close this one. why says what is amiss in either case.
func (a *app) ready() (ok bool, why string) {
	if a.server.State() != proxy.Listening && a.offered.Load().Taken() { // who asks here now asks for the next process
		return true, ""
	}
	if a.server.State() != proxy.Listening {
		return false, "shutting down"
	}
	if a.catalog.Current().Document.Setup != nil {
		return false, "init_sql is not done"
	}
	var away []string
	shards := 0
	for _, d := range a.catalog.Current().Databases {
		if len(d.Shards) == 0 {
			away = append(away, fmt.Sprintf("database %s has no shard", d.Name))
			shards++
		}
		for _, s := range d.Shards {
			shards++
			if v := a.monitor.View(d.Name, s.Name); v == nil || !v.Up() {
				away = append(away, fmt.Sprintf("shard %s of database %s has no primary that answers", s.Name, d.Name))
			}
		}
	}
	sort.Strings(away)
	return shards == 0 || len(away) < shards, strings.Join(away, "\n")
}

func (a *app) gauges(emit func(name, help string, v float64, labels ...string)) {
	one := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	for _, d := range a.catalog.Current().Databases {
		for _, s := range d.Shards {
			v := a.monitor.View(d.Name, s.Name)
			sl := []string{"database", d.Name, "shard", s.Name}
			emit("shard_up", "Whether the shard has a primary that answers.", one(v != nil && v.Up()), sl...)
			emit("shard_fenced", "Whether more than one node claims to be the shard's primary, so that none is served.", one(v != nil && v.Fenced != ""), sl...)
			waiting, bytes := a.engine.Waiting(d.Name, s.Name)
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
	type poolName struct{ database, shard, node, role string }
	pools := map[poolName]pool.Stats{} // a node whose connection string was changed has a pool by the old one, too, until its servers are given back
	for _, p := range a.pools.All() {
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
	clients, strangers := a.server.Clients()
	emit("clients", "Client connections that have logged in.", float64(clients))
	emit("clients_logging_in", "Client connections that have not logged in yet.", float64(strangers))
	emit("clients_limit", "How many client connections may be open (max_client_conn).", float64(a.config.Load().MaxClients))
	open, damaged, oldest := 0, 0, time.Duration(0)
	if parts := a.prepared.Load(); parts != nil {
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
	for _, c := range a.admin.Checks() {
		emit("reference_rows_differ", "Rows of a reference table that are not the same on all shards, as the last comparison found.", float64(c.Differs), "database", c.Database, "table", c.Table.String())
		emit("reference_checked_timestamp_seconds", "When the copies of a reference table were compared last.", float64(c.At.Unix()), "database", c.Database, "table", c.Table.String())
	}
	emit("map_version", "Version of the shard map in force.", float64(a.catalog.Current().Version))
	emit("map_trouble", "Whether the store holds a map that cannot be read or used, so that an older one is in force.", one(a.catalog.Trouble() != nil))
	if sink := a.sink.Load(); sink != nil {
		emit("log_lines_lost", "Lines of the log that could not be written, since the start.", float64(sink.Lost()))
	}
	emit("plan_cache_entries", "Plans in the cache.", float64(a.engine.PlanCount()))
	for c, name := range exec.ConsumerNames {
		emit("memory_bytes", "What sessions hold, by what it is for.", float64(a.engine.Memory.Used(exec.Consumer(c))), "consumer", name)
	}
	emit("memory_limit_bytes", "How much memory the process may use (memory_limit); 0: no limit.", float64(a.engine.Memory.Limit.Load()))
}

// run starts what goes on in the background; stop waits for all of it.
func (a *app) run(ctx context.Context) {
	ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	a.ctx = ctx
	a.admin.Init(ctx)
	a.hub.Init(ctx)
	a.followSecret()
	a.catalog.OnTrouble = a.mapTrouble
	a.background("shard map", a.catalog.Run)
	a.background("auth_query", a.backend.questions.run)
	a.background("monitor", a.monitor.Run)
	a.background("pools", a.pools.Run)
	a.background("statistics", a.admin.Run)
	a.background("resolver", func(ctx context.Context) error {
		r := a.resolver()
		r.Seen = func(parts []txn.Prepared) {
			panics.Point("resolver")
			a.prepared.Store(&parts)
		}
		return r.Run(ctx, time.Duration(a.cfg.Resolve), func(err error) { a.warnOfShard("resolver", err) },
			func(s txn.ShardError) {
				a.log.Info("the resolver works on a shard again", "database", s.Database, "shard", s.Shard)
			})
	})
	a.background("visits", a.visits.Run)
	a.background("deadlocks", func(ctx context.Context) error {
		return a.deadlocks().Run(ctx, deadlockPeriod, func(err error) { a.warnOfShard("deadlocks", err) })
	})
	a.background("upgrade", func(ctx context.Context) error { return a.admin.RunUpgrade(ctx, recoverPause) })
	a.background("renames", a.admin.RunRenames)
	if every := time.Duration(a.cfg.Verify); every > 0 {
		a.background("reference tables", func(ctx context.Context) error { return a.admin.RunVerify(ctx, every) })
	}
	a.background("schemas", a.engine.WatchSchemas)
	a.background("notifications", a.hub.Run)
	a.background("clients", a.server.Serve)
	if a.peers != nil {
		a.background("peers", func(ctx context.Context) error { return a.server.ServePeers(ctx, a.peers) })
	}
}

// background runs f until stop. If it panics it begins again.
func (a *app) background(name string, f func(context.Context) error) {
	a.wg.Go(func() {
		if err := panics.Keep(a.ctx, name, f); err != nil && a.ctx.Err() == nil {
			a.log.Error(name, "error", err)
		}
	})
}

// plans are the rows of SHOW PLANS.
func (a *app) plans(limit int) [][]any {
	var out [][]any
	for _, p := range a.engine.Plans(limit) {
		out = append(out, []any{p.Database, p.Route, p.Hits, p.Exact, p.Bytes, int64(p.MapVersion), int64(p.SchemaVersion), p.Statement})
	}
	return out
}

// recoverPause is the time between two tries to settle what a crash left.
const recoverPause = 10 * time.Second

// initialise settles what a crash left and runs init_sql on an empty map, or the rest of it where a start has been cut short.
func (a *app) initialise(ctx context.Context) error {
	if err := a.admin.Recover(ctx); err != nil {
		a.log.Error("a table may still be moving; its statements are refused until its shards answer", "error", err)
		a.background("recovery", func(ctx context.Context) error { return a.admin.RunRecover(ctx, recoverPause) })
	}
	return a.setUp(ctx)
}

// stop drains the clients for at most timeout and ends everything. Metrics live to the end.
func (a *app) stop(timeout time.Duration) {
	a.offered.Load().Close()
	answered := func() {}
	if a.cfg.ReusePort && timeout > 0 {
		answered = a.handOver()
	}
	if a.wait.Load() {
		a.server.WaitForClients(context.Background())
	} else if timeout > 0 {
		a.server.Drain(context.Background(), timeout)
	} else {
		a.server.Stop()
	}
	answered()
	if a.http != nil {
		_ = a.http.Close()
	}
	a.cancel()
	a.wg.Wait()
	a.traces.stop()
}

func logTo(path string) (io.Writer, func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("log: %w", err)
	}
	return f, func() { _ = f.Close() }, nil
}
