// Command pgmosaic-demo starts PostgreSQL servers on this machine, with a sharded shop behind a proxy on them.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pgmosaic/pgmosaic/proxy/demo"
)

func main() {
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "pgmosaic-demo:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	o := demo.Default()
	o.Progress, o.Version = os.Stderr, "demo"
	cmd := &cobra.Command{Use: "pgmosaic-demo", Short: "Start real PostgreSQL servers here and a sharded shop on them", Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", o.Dir, "folder of the servers' data")
	f.StringVar(&o.Listen, "listen", o.Listen, "address for clients")
	f.StringVar(&o.HTTP, "http", o.HTTP, "address for the dashboard")
	f.IntVar(&o.Shards, "shards", o.Shards, "number of shards")
	f.IntVar(&o.Replicas, "replicas", o.Replicas, "streaming replicas of each shard")
	f.BoolVar(&o.Fresh, "fresh", false, "throw the data of an earlier demo away")
	f.BoolVar(&o.NoLoad, "no-load", false, "create the tables and leave them empty")
	f.IntVar(&o.Customers, "customers", o.Customers, "customers to make")
	f.IntVar(&o.Orders, "orders", o.Orders, "orders to make")
	cmd.RunE = func(c *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		d, err := demo.Start(ctx, o, c.OutOrStdout())
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		<-ctx.Done()
		fmt.Fprintln(c.OutOrStdout(), "stopping")
		return d.Stop()
	}
	return cmd
}
