package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

type demoOptions struct {
	dir, listen, http string
	shards, replicas  int
	fresh, noLoad     bool
	customers, orders int
	progress          io.Writer
	monitor           time.Duration
	poolSize          int
	settings          []string // more lines for the servers' configuration
}

func demoCommand() *cobra.Command {
	o := demoOptions{customers: 10000, orders: 100000, poolSize: 20}
	cmd := &cobra.Command{Use: "demo", Short: "Start real PostgreSQL servers here and a sharded shop on them", Args: cobra.NoArgs}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", ".pgmosaic/demo", "folder of the servers' data")
	f.StringVar(&o.listen, "listen", "127.0.0.1:6432", "address for clients")
	f.StringVar(&o.http, "http", "127.0.0.1:8432", "address for the dashboard")
	f.IntVar(&o.shards, "shards", 2, "number of shards")
	f.IntVar(&o.replicas, "replicas", 1, "streaming replicas of each shard")
	f.BoolVar(&o.fresh, "fresh", false, "throw the data of an earlier demo away")
	f.BoolVar(&o.noLoad, "no-load", false, "create the tables and leave them empty")
	f.IntVar(&o.customers, "customers", o.customers, "customers to make")
	f.IntVar(&o.orders, "orders", o.orders, "orders to make")
	cmd.RunE = func(c *cobra.Command, _ []string) error {
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
		ctx, cancel := context.WithCancel(c.Context())
		defer cancel()
		stop := make(chan struct{})
		go func() { <-signals; close(stop); cancel() }()
		o.progress = os.Stderr
		d, err := startDemo(ctx, o, c.OutOrStdout())
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		<-stop
		fmt.Fprintln(c.OutOrStdout(), "stopping")
		return d.stop()
	}
	return cmd
}

// demo is a running demonstration: a cluster and a proxy.
type demo struct {
	*app
	cluster *cluster.Cluster
	closers []func()
	dir     string
}

func (d *demo) stop() error {
	if d.app != nil {
		d.app.stop(2 * time.Second)
	}
	for _, f := range d.closers {
		f()
	}
	return d.cluster.Close()
}

func startDemo(ctx context.Context, o demoOptions, out io.Writer) (d *demo, err error) {
	if o.shards < 1 || o.shards > 64 || o.replicas < 0 || o.replicas > 8 {
		return nil, errors.New("--shards must be 1 to 64, --replicas 0 to 8")
	}
	tune()
	if o.fresh {
		if err := removeDemo(o.dir); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	cl, err := cluster.Open(cluster.Options{Dir: filepath.Join(o.dir, "nodes"), CacheDir: filepath.Join(o.dir, "cache"), Settings: o.settings})
	if err != nil {
		return nil, err
	}
	d = &demo{cluster: cl, dir: o.dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
		}
	}()
	fresh := len(cl.Nodes()) == 0
	fmt.Fprintf(out, "starting %d PostgreSQL servers in %s\n", o.shards*(1+o.replicas), cl.Dir)
	if err := startNodes(ctx, cl, o); err != nil {
		return d, err
	}
	w, closeLog, err := logTo(filepath.Join(o.dir, "pgmosaic.log"))
	if err != nil {
		return d, err
	}
	d.closers = append(d.closers, closeLog)
	cfg := defaultConfig()
	cfg.Listen, cfg.HTTP, cfg.Store = o.listen, o.http, filepath.Join(o.dir, "map.json")
	cfg.AdminUsers, cfg.PoolSize = []string{"admin"}, o.poolSize
	cfg.Users = []UserConfig{{Name: "app", Password: "app"}, {Name: "admin", Password: "admin"}}
	if o.monitor > 0 {
		cfg.Monitor = duration(o.monitor)
	}
	log, _ := newLogger(cfg, w)
	if d.app, err = start(ctx, cfg, log); err != nil {
		return d, err
	}
	if fresh {
		if err := d.createShop(ctx, o, out); err != nil {
			return d, err
		}
	}
	d.announce(out)
	return d, nil
}

// removeDemo throws an earlier demo's folder away, with what still runs in it.
func removeDemo(dir string) error {
	cl, err := cluster.Open(cluster.Options{Dir: filepath.Join(dir, "nodes")})
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
func startNodes(ctx context.Context, cl *cluster.Cluster, o demoOptions) error {
	if nodes := cl.Nodes(); len(nodes) > 0 {
		if len(nodes) != o.shards*(1+o.replicas) {
			return fmt.Errorf("folder %s holds a demo with %d servers: use the same --shards and --replicas, or --fresh", o.dir, len(nodes))
		}
		for _, n := range nodes {
			if err := n.Start(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range o.shards {
		p, err := cl.Primary(ctx, primaryName(i))
		if err != nil {
			return err
		}
		for _, sql := range []string{"CREATE ROLE app LOGIN PASSWORD 'app'", "CREATE DATABASE shop OWNER app"} {
			if err := p.Exec(ctx, "postgres", sql); err != nil {
				return fmt.Errorf("node %s: %w", p.Name, err)
			}
		}
		for r := range o.replicas {
			if _, err := cl.Replica(ctx, p, replicaName(i, r), 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// createShop declares the shop by admin SQL and loads it through the proxy, as a user would.
func (d *demo) createShop(ctx context.Context, o demoOptions, out io.Writer) error {
	admin, err := pgx.Connect(ctx, dsnFor("admin", "admin", d.server.Addr(), "pgmosaic")+"?default_query_exec_mode=simple_protocol")
	if err != nil {
		return fmt.Errorf("admin console: %w", err)
	}
	defer admin.Close(context.WithoutCancel(ctx)) // only talk
	steps := []string{"CREATE DATABASE shop"}
	for i := range o.shards {
		var b strings.Builder
		fmt.Fprintf(&b, "CREATE SHARD s%d IN shop", i+1)
		names := []string{primaryName(i)}
		for r := range o.replicas {
			names = append(names, replicaName(i, r))
		}
		for _, n := range names {
			fmt.Fprintf(&b, " NODE %s NAME %s", pgsql.Literal(d.cluster.Node(n).DSN("shop")), pgsql.Plain(n))
		}
		steps = append(steps, b.String())
	}
	steps = append(steps, "CREATE GROUP customers IN shop KEY (bigint) BY HASH")
	if err := execAll(ctx, admin, steps); err != nil {
		return err
	}
	app, err := pgx.Connect(ctx, dsnFor("app", "app", d.server.Addr(), "shop"))
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
	if o.noLoad {
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

func (d *demo) announce(out io.Writer) {
	shop, admin := dsnFor("app", "app", d.server.Addr(), "shop"), dsnFor("admin", "admin", d.server.Addr(), "pgmosaic")
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
`, shop, admin, d.httpLis.Addr(), filepath.Join(d.dir, "pgmosaic.log"), shop, shop, admin, d.server.Addr())
}
