// Command pgmosaic is many PostgreSQL servers behind one connection string.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"

	"github.com/jackc/pgx/v5"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/spf13/cobra"
)

var version = "0.1.0-dev"

func main() {
	if err := root().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "pgmosaic:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{Use: "pgmosaic", Short: "Many PostgreSQL servers, one database", SilenceUsage: true, SilenceErrors: true}
	cmd.AddCommand(serveCommand(), checkCommand(), demoCommand(), &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, Run: func(c *cobra.Command, _ []string) {
		fmt.Fprintln(c.OutOrStdout(), "pgmosaic "+version)
	}})
	return cmd
}

func serveCommand() *cobra.Command {
	var file, database, listen, web, profile string
	cmd := &cobra.Command{Use: "serve (-c pgmosaic.yaml | --database DSN)", Short: "Run the proxy", Args: cobra.NoArgs}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file")
	cmd.Flags().StringVar(&database, "database", "", "no file: a pass-through pooler for the database of this connection string")
	cmd.Flags().StringVar(&listen, "listen", "", "address for clients (default 127.0.0.1:6432)")
	cmd.Flags().StringVar(&web, "http", "", "address for the dashboard, \"off\" for none (default 127.0.0.1:8432)")
	cmd.Flags().StringVar(&profile, "cpuprofile", "", "write a CPU profile of the whole run to this file")
	cmd.RunE = func(c *cobra.Command, _ []string) error {
		sig := takeSignals()
		if profile != "" {
			f, err := os.Create(profile)
			if err != nil {
				return fmt.Errorf("--cpuprofile: %w", err)
			}
			defer f.Close()
			if err := pprof.StartCPUProfile(f); err != nil {
				return fmt.Errorf("--cpuprofile: %w", err)
			}
			defer pprof.StopCPUProfile()
		}
		cfg, err := serveConfig(file, database)
		if err != nil {
			return err
		}
		if listen != "" {
			cfg.Listen = listen
		}
		if web != "" {
			cfg.HTTP = web
		}
		return serve(c.Context(), cfg, sig)
	}
	return cmd
}

func serveConfig(file, database string) (config.Config, error) {
	switch {
	case file != "" && database != "":
		return config.Config{}, fmt.Errorf("use either -c or --database")
	case file != "":
		return config.Load(file)
	case database != "":
		return passThrough(database)
	}
	return config.Config{}, fmt.Errorf("-c pgmosaic.yaml or --database DSN is needed")
}

// passThrough is the configuration of a pooler for one database. The connection string's own user enters
// from loopback without a password; nobody else does.
func passThrough(dsn string) (config.Config, error) {
	pc, err := pgx.ParseConfig(dsn)
	if err != nil {
		return config.Config{}, fmt.Errorf("--database: the connection string cannot be read")
	}
	cfg := config.Default()
	cfg.Direct.User = pc.User
	dir, err := os.MkdirTemp("", "pgmosaic-serve-")
	if err != nil {
		return cfg, fmt.Errorf("--database: %w", err)
	}
	cfg.Store = dir + "/map.json"
	cfg.Direct.Folder = dir
	db := pgsql.Ident(pc.Database)
	cfg.Direct.Setup = []string{"CREATE DATABASE " + db, "CREATE SHARD main IN " + db + " NODE " + pgsql.Literal(dsn) + " NAME main"}
	return cfg, nil
}

func checkCommand() *cobra.Command {
	var file string
	var configOnly bool
	cmd := &cobra.Command{Use: "check -c pgmosaic.yaml", Short: "Validate the configuration and try every node of the map", Args: cobra.NoArgs}
	cmd.Flags().StringVarP(&file, "config", "c", "pgmosaic.yaml", "configuration file")
	cmd.Flags().BoolVar(&configOnly, "config-only", false, "only the file, and the files and secrets that it names: what a start needs")
	cmd.RunE = func(c *cobra.Command, _ []string) error {
		return check(c.Context(), file, configOnly, c.OutOrStdout())
	}
	return cmd
}

// demoCommand says where the demo is: the proxy has no PostgreSQL servers in it.
func demoCommand() *cobra.Command {
	return &cobra.Command{Use: "demo", Short: "Where the demo is", Hidden: true, Args: cobra.ArbitraryArgs, DisableFlagParsing: true, RunE: func(*cobra.Command, []string) error {
		return errors.New("the demo is a program of its own, pgmosaic-demo: `make demo` in the source's folder builds and runs it")
	}}
}
