// Package demo runs real PostgreSQL servers on this machine with a sharded shop on them, and a proxy before them. It is what
// pgmosaic-demo shows, and what most tests run on.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/instance"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// Options say what to run.
type Options struct {
	Dir       string // folder of the servers' data; it is kept
	Listen    string // address for clients
	HTTP      string // address for the dashboard, "off" for none
	Shards    int    // 1 to 64
	Replicas  int    // streaming replicas of each shard, 0 to 8
	Fresh     bool   // throw the data of an earlier demo away
	NoLoad    bool   // create the tables and leave them empty
	Customers int
	Orders    int
	Progress  io.Writer     // where the loading tells how far it is; nil: nowhere
	Monitor   time.Duration // monitor_interval; 0: the default
	PoolSize  int           // default_pool_size
	Version   string        // of the proxy

	Servers cluster.Options // how the servers are made; their folders are the demo's
}

// Default is what pgmosaic-demo runs without flags.
func Default() Options {
	return Options{Dir: ".pgmosaic/demo", Listen: "127.0.0.1:6432", HTTP: "127.0.0.1:8432", Shards: 2, Replicas: 1, Customers: 10000, Orders: 100000, PoolSize: 20}
}

// Demo is a running demonstration: a cluster and a proxy.
type Demo struct {
	*instance.Instance
	Cluster *cluster.Cluster
	Dir     string

	closers []func()
}

// Stop ends the proxy and the servers.
func (d *Demo) Stop() error {
	if d.Instance != nil {
		d.Instance.Stop(2 * time.Second)
	}
	for _, f := range d.closers {
		f()
	}
	return d.Cluster.Close()
}

// Start runs a demo, over the data of an earlier one if there is any, and prints to out how to use it. The caller must Stop it.
func Start(ctx context.Context, o Options, out io.Writer) (d *Demo, err error) {
	if o.Shards < 1 || o.Shards > 64 || o.Replicas < 0 || o.Replicas > 8 {
		return nil, errors.New("--shards must be 1 to 64, --replicas 0 to 8")
	}
	instance.Tune()
	if o.Fresh {
		if err := removeDemo(ctx, o.Dir); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	servers := o.Servers
	servers.Dir, servers.CacheDir = filepath.Join(o.Dir, "nodes"), filepath.Join(o.Dir, "cache")
	cl, err := cluster.Open(ctx, servers)
	if err != nil {
		return nil, err
	}
	d = &Demo{Cluster: cl, Dir: o.Dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Stop())
		}
	}()
	fresh := len(cl.Nodes()) == 0
	fmt.Fprintf(out, "starting %d PostgreSQL servers in %s\n", o.Shards*(1+o.Replicas), cl.Dir)
	if err := startNodes(ctx, cl, o); err != nil {
		return d, err
	}
	w, closeLog, err := logTo(filepath.Join(o.Dir, "pgmosaic.log"))
	if err != nil {
		return d, err
	}
	d.closers = append(d.closers, closeLog)
	cfg := config.Default()
	cfg.Listen, cfg.HTTP, cfg.Store = o.Listen, o.HTTP, filepath.Join(o.Dir, "map.json")
	cfg.AdminUsers, cfg.PoolSize = []string{"admin"}, o.PoolSize
	cfg.Users = []config.User{{Name: "app", Password: "app"}, {Name: "admin", Password: "admin"}}
	if o.Monitor > 0 {
		cfg.Monitor = config.Duration(o.Monitor)
	}
	log, _ := instance.NewLog(&cfg, w)
	in, err := instance.New(ctx, cfg, instance.Options{Log: log, Version: o.Version})
	if err == nil {
		err = in.Start(ctx)
	}
	if err != nil {
		return d, err
	}
	d.Instance = in
	if fresh {
		if err := d.createShop(ctx, o, out); err != nil {
			return d, err
		}
	}
	d.announce(out)
	return d, nil
}

// removeDemo throws an earlier demo's folder away, with what still runs in it.
func removeDemo(ctx context.Context, dir string) error {
	cl, err := cluster.Open(ctx, cluster.Options{Dir: filepath.Join(dir, "nodes")})
	if err != nil {
		return err
	}
	if err := cl.Destroy(); err != nil {
		return fmt.Errorf("--fresh: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("--fresh: %w", err)
	}
	return nil
}

func primaryName(i int) string    { return fmt.Sprintf("s%d-a", i+1) }
func replicaName(i, r int) string { return fmt.Sprintf("s%d-%c", i+1, 'b'+r) }

// startNodes makes the nodes of a new demo, or starts those of an earlier one.
func startNodes(ctx context.Context, cl *cluster.Cluster, o Options) error {
	if nodes := cl.Nodes(); len(nodes) > 0 {
		if len(nodes) != o.Shards*(1+o.Replicas) {
			return fmt.Errorf("folder %s holds a demo with %d servers: use the same --shards and --replicas, or --fresh", o.Dir, len(nodes))
		}
		for _, n := range nodes {
			if err := n.Start(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range o.Shards {
		p, err := cl.Primary(ctx, primaryName(i))
		if err != nil {
			return err
		}
		for _, sql := range []string{"CREATE ROLE app LOGIN PASSWORD 'app'", "CREATE DATABASE shop OWNER app"} {
			if err := p.Exec(ctx, "postgres", sql); err != nil {
				return fmt.Errorf("node %s: %w", p.Name, err)
			}
		}
		for r := range o.Replicas {
			if _, err := cl.Replica(ctx, p, replicaName(i, r), 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// createShop declares the shop by admin SQL and loads it through the proxy, as a user would.
func (d *Demo) createShop(ctx context.Context, o Options, out io.Writer) error {
	admin, err := pgx.Connect(ctx, DSN("admin", "admin", d.Addr(), "pgmosaic")+"?default_query_exec_mode=simple_protocol")
	if err != nil {
		return fmt.Errorf("admin console: %w", err)
	}
	defer admin.Close(context.WithoutCancel(ctx)) // only talk
	steps := []string{"CREATE DATABASE shop"}
	for i := range o.Shards {
		var b strings.Builder
		fmt.Fprintf(&b, "CREATE SHARD s%d IN shop", i+1)
		names := []string{primaryName(i)}
		for r := range o.Replicas {
			names = append(names, replicaName(i, r))
		}
		for _, n := range names {
			fmt.Fprintf(&b, " NODE %s NAME %s", pgsql.Literal(d.Cluster.Node(n).DSN("shop")), pgsql.Plain(n))
		}
		steps = append(steps, b.String())
	}
	steps = append(steps, "CREATE GROUP customers IN shop KEY (bigint) BY HASH")
	if err := execAll(ctx, admin, steps); err != nil {
		return err
	}
	app, err := pgx.Connect(ctx, DSN("app", "app", d.Addr(), "shop"))
	if err != nil {
		return fmt.Errorf("shop: %w", err)
	}
	defer app.Close(context.WithoutCancel(ctx)) // only talk
	for _, s := range shopTables {
		if _, err := app.Exec(ctx, s); err != nil {
			return fmt.Errorf("shop: %w", err)
		}
	}
	if err := execAll(ctx, admin, shopPlacement); err != nil {
		return err
	}
	if o.NoLoad {
		return nil
	}
	return loadShop(ctx, app, o, out)
}

func execAll(ctx context.Context, c *pgx.Conn, list []string) error {
	for _, s := range list {
		if _, err := c.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", strings.SplitN(s, " NODE", 2)[0], err)
		}
	}
	return nil
}

func (d *Demo) announce(out io.Writer) {
	shop, admin := DSN("app", "app", d.Addr(), "shop"), DSN("admin", "admin", d.Addr(), "pgmosaic")
	fmt.Fprintf(out, `
  the shop      %s
  the admin     %s
  the dashboard http://%s/
  the log       %s

Three commands worth trying:
  psql '%s' -c 'select c.country, count(*), avg(o.total) from customers c join orders o using (customer_id) group by c.country order by 2 desc limit 5'
  psql '%s' -c 'explain (route) select * from orders where customer_id = 42'
  psql '%s' -c 'show replicas'

ready: clients at %s, stop with Ctrl-C
`, shop, admin, d.Page(), filepath.Join(d.Dir, "pgmosaic.log"), shop, shop, admin, d.Addr())
}

// DSN is a connection string as people write it.
func DSN(user, password, addr, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: addr, Path: "/" + database}
	return u.String()
}

func logTo(path string) (io.Writer, func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("log: %w", err)
	}
	return f, func() { _ = f.Close() }, nil
}
