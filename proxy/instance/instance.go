// Package instance is one running pgmosaic: every object, built once. It can be run inside another program.
//
//	in, err := instance.New(ctx, cfg, instance.Options{Log: log})
//	if err != nil { .. }
//	defer in.Stop(cfg.Drain.Value())
//	err = in.Start(ctx)
package instance

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy"
	"github.com/pgmosaic/pgmosaic/proxy/access"
	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/exec"
	"github.com/pgmosaic/pgmosaic/proxy/exec/client"
	"github.com/pgmosaic/pgmosaic/proxy/exec/observe"
	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/notify"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/replication/reshard"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// Instance is one running proxy. The objects that it names may be used by whoever embeds it, as their own comments allow; they are
// set by New and never change.
type Instance struct {
	Catalog *shardmap.Catalog
	Monitor *replication.Monitor
	Pools   *pool.Manager
	Engine  *exec.Engine
	Admin   *admin.Admin
	Mover   *reshard.Mover
	Server  *proxy.Server
	Metrics *metrics.Metrics
	Gate    *access.Gate

	cfg    config.Config                 // of the start
	config atomic.Pointer[config.Config] // what is in force since the last RELOAD
	opts   Options
	log    *slog.Logger
	hub    *notify.Hub
	traces *tracing

	conns    nodeconn.Kept                  // to the shards, of what works on commits, looks for deadlocks and reads schemas
	prepared atomic.Pointer[[]txn.Prepared] // what the resolver saw last

	door  *door
	page  *page
	peers *peers

	ending ending

	reloading sync.Mutex // one RELOAD at a time
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
}

// ending is what SHUTDOWN asked for.
type ending struct {
	asked chan struct{} // closed by it
	once  sync.Once
	wait  atomic.Bool // for clients to leave
}

// Options are what an instance is given by its process.
type Options struct {
	Log     *slog.Logger
	Level   *slog.LevelVar // of the log; nil: RELOAD does not change it
	Lost    func() int     // how many lines of the log could not be written; nil: not known
	Version string         // as clients and the console are told it
}

// New builds an instance, opens the shard map and listens. It serves nobody before Start. After an error nothing is left to stop.
func New(ctx context.Context, cfg config.Config, opts Options) (*Instance, error) {
	level, err := replication.ParseLevel(cfg.Consistency)
	if err != nil {
		return nil, err
	}
	panics.LogTo(opts.Log)
	in := &Instance{cfg: cfg, opts: opts, log: opts.Log, Metrics: metrics.New(time.Now()), ending: ending{asked: make(chan struct{})}}
	in.Metrics.Reasons = replication.ReasonNames[:]
	in.config.Store(&cfg)
	if in.Catalog, err = shardmap.Open(ctx, filestore.New(cfg.Store), newInstall()); err != nil {
		return nil, err
	}
	who, err := access.New(&cfg, in.Catalog.Current().Key(saltKey))
	if err != nil {
		return nil, err
	}
	in.Gate = access.NewGate(who, in.asking(), in.Metrics, in.log, time.Now)
	in.Pools = pool.NewManager(in.poolOptions(&cfg))
	policy := replication.DefaultPolicy()
	policy.Interval, policy.MaxLag = cfg.Monitor.Value(), cfg.MaxLag.Value()
	in.Monitor = replication.NewMonitor(policy, in.Catalog, replication.Events{Left: in.nodeLeft, Rejoined: in.nodeRejoined, Primary: in.primaryChanged, Changed: in.shardChanged}, in.log)
	if in.traces, err = newTracing(ctx, &cfg, opts.Version); err != nil {
		return nil, err
	}
	in.hub = &notify.Hub{Shards: in.listenOn, Now: func(db string) []notify.Shard { return listenNow(in, db) }, Sender: in.Pools.LastClient, Log: in.log}
	if err := in.buildEngine(level); err != nil {
		return nil, err
	}
	in.door = openDoor(cfg.ReusePort, cfg.Listen)
	in.peers = &peers{config: in.config.Load, log: in.log, pools: in.Pools}
	in.buildAdmin()
	in.Engine.Renames = in.Mover.Renames
	if err := in.listen(); err != nil {
		in.door.inherited.Close()
		return nil, err
	}
	return in, nil
}

// listen opens the ports. Beside another process the page's is opened when this one is ready: see Start.
func (in *Instance) listen() error {
	if err := in.buildServer(); err != nil {
		return err
	}
	in.page = in.newPage()
	if in.cfg.ReusePort {
		return nil
	}
	if err := in.page.listen(in.door, in.cfg.HTTP); err != nil {
		in.Server.Stop()
		in.peers.close()
		return err
	}
	return nil
}

// buildEngine makes what plans and runs statements.
func (in *Instance) buildEngine(level replication.Level) error {
	cfg := &in.cfg
	in.Engine = &exec.Engine{
		Catalog: in.Catalog, Monitor: in.Monitor, Horizon: replication.NewHorizons(time.Now()), Pools: in.Pools, Reader: &schema.Reader{Conns: &in.conns, Whose: in.whose}, Metrics: in.Metrics, Log: in.log, Hub: in.hub,
		Fallback: cfg.Fallback == client.Fallbacks()[0], Zone: cfg.Zone, Failover: exec.Failover{Window: cfg.Buffer.Value(), Requests: cfg.BufferRequests, Bytes: int64(cfg.BufferSize)},
		Level: level, MaxStaleness: cfg.MaxLag.Value(), GatherLimit: int64(cfg.GatherLimit), Commit: client.Commit(slices.Index(client.Commits, cfg.Commit)), Signal: in.signal,
		FinishOn: in.finishOn, Settle: in.settle,
	}
	in.Engine.MergeMemory.Store(int64(cfg.MergeMemory))
	in.Engine.Memory.Session.Store(int64(cfg.SessionMemory))
	memory := cfg.MemoryLimit()
	in.Engine.Memory.Limit.Store(memory)
	if memory > 0 {
		debug.SetMemoryLimit(memory)
	}
	in.Engine.Observer.Logging.Store(logging(cfg))
	in.Engine.ShardUsers.Store(&cfg.ShardUsers)
	if in.traces != nil {
		in.Engine.Observer.Tracing = &observe.Tracing{Share: cfg.TraceShare, Record: in.traces.record}
	}
	in.shareSecrets()
	in.followMap()
	return in.Engine.Init()
}

// Start serves clients: it starts what goes on in the background, settles what a crash left, runs init_sql on an empty map, and returns
// when that is done. After an error the instance has been stopped.
func (in *Instance) Start(ctx context.Context) error {
	defer in.door.inherited.Close()
	in.run(ctx)
	if err := in.initialise(ctx); err != nil {
		in.Stop(0)
		return err
	}
	if in.cfg.ReusePort {
		in.awaitReady(ctx)
		if err := in.page.listen(in.door, in.cfg.HTTP); err != nil {
			in.Stop(0)
			return err
		}
	}
	if in.page != nil {
		in.background("dashboard", in.page.board.Run)
		in.background("http", in.page.serve)
	}
	in.door.offer(in.log)
	return nil
}

// newInstall is the name of a new installation.
func newInstall() string {
	b := make([]byte, 16)
	_, _ = crand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// run starts what goes on in the background; Stop waits for all of it.
func (in *Instance) run(ctx context.Context) {
	ctx, in.cancel = context.WithCancel(context.WithoutCancel(ctx))
	in.ctx = ctx
	in.Admin.Init(ctx)
	in.hub.Init(ctx)
	in.followSecret()
	in.Catalog.OnTrouble = in.mapTrouble
	in.background("shard map", in.Catalog.Run)
	in.background("auth_query", in.Gate.Run)
	in.background("monitor", in.Monitor.Run)
	in.background("pools", in.Pools.Run)
	in.background("statistics", in.Admin.Run)
	in.background("resolver", in.resolve)
	in.background("connections", in.conns.Run)
	in.background("deadlocks", func(ctx context.Context) error {
		return in.deadlocks().Run(ctx, deadlockPeriod, func(err error) { in.warnOfShard("deadlocks", err) })
	})
	in.background("upgrade", func(ctx context.Context) error { return in.Mover.RunUpgrade(ctx, recoverPause) })
	in.background("renames", in.Mover.RunRenames)
	if every := in.cfg.Verify.Value(); every > 0 {
		in.background("reference tables", func(ctx context.Context) error { return in.Mover.RunVerify(ctx, every) })
	}
	in.background("schemas", in.Engine.Planner.Schemas.Watch)
	in.background("notifications", in.hub.Run)
	in.background("clients", in.Server.Serve)
	if in.peers.lis != nil {
		in.background("peers", func(ctx context.Context) error { return in.Server.ServePeers(ctx, in.peers.lis) })
	}
}

// background runs f until Stop. If it panics it begins again.
func (in *Instance) background(name string, f func(context.Context) error) {
	in.wg.Go(func() {
		if err := panics.Keep(in.ctx, name, f); err != nil && in.ctx.Err() == nil {
			in.log.Error(name, "error", err)
		}
	})
}

// recoverPause is the time between two tries to settle what a crash left.
const recoverPause = 10 * time.Second

// initialise settles what a crash left and runs init_sql on an empty map, or the rest of it where a start has been cut short.
func (in *Instance) initialise(ctx context.Context) error {
	if err := in.Mover.Recover(ctx); err != nil {
		in.log.Error("a table may still be moving; its statements are refused until its shards answer", "error", err)
		in.background("recovery", func(ctx context.Context) error { return in.Mover.RunRecover(ctx, recoverPause) })
	}
	return in.setUp(ctx)
}

// Stop drains the clients for at most timeout and ends everything; 0 waits for nobody. Metrics live to the end. It is called once, after Start.
func (in *Instance) Stop(timeout time.Duration) {
	in.door.close()
	answered := func() {}
	if in.cfg.ReusePort && timeout > 0 {
		answered = in.handOver()
	}
	if in.ending.wait.Load() {
		in.Server.WaitForClients(context.Background())
	} else if timeout > 0 {
		in.Server.Drain(context.Background(), timeout)
	} else {
		in.Server.Stop()
	}
	answered()
	in.page.close()
	in.cancel()
	in.wg.Wait()
	in.traces.stop()
}

// StopWaiting has a Stop that goes on wait for no client any more. Any goroutine may call it.
func (in *Instance) StopWaiting() { in.Server.Stop() }

// Ended is closed by SHUTDOWN on the console: whoever started the instance should stop it.
func (in *Instance) Ended() <-chan struct{} { return in.ending.asked }

// WaitsForClients says whether SHUTDOWN asked to wait for clients without a bound.
func (in *Instance) WaitsForClients() bool { return in.ending.wait.Load() }

// Addr is where clients connect.
func (in *Instance) Addr() string { return in.Server.Addr() }

// Page is where the dashboard is; empty for none.
func (in *Instance) Page() string { return in.page.addr() }
