package main

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
	"github.com/pgmosaic/pgmosaic/proxy/instance"
	"github.com/pgmosaic/pgmosaic/replication/cluster"
)

// app is a proxy of a test.
type app struct {
	*instance.Instance
	cfg config.Config
	log *slog.Logger
}

// startWith starts a proxy. The caller must stop it.
func startWith(ctx context.Context, cfg config.Config, log *slog.Logger) (*app, error) {
	in, err := start(ctx, cfg, instance.Options{Log: log, Version: version})
	if err != nil {
		return nil, err
	}
	return &app{in, cfg, log}, nil
}

func (a *app) stop(timeout time.Duration) { a.Stop(timeout) }

// demo is a running demonstration: a cluster and a proxy.
type demo struct {
	*app
	cluster *cluster.Cluster
	whole   *showcase.Demo
}

func startDemo(ctx context.Context, o showcase.Options, out io.Writer) (*demo, error) {
	d, err := showcase.Start(ctx, o, out)
	if err != nil {
		return nil, err
	}
	return &demo{&app{d.Instance, d.Config(), nil}, d.Cluster, d}, nil
}

func (d *demo) stop() error { return d.whole.Stop() }

// dsnFor is a connection string as people write it.
func dsnFor(user, password, addr, database string) string {
	return showcase.DSN(user, password, addr, database)
}
