package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// check validates a configuration, its files and secrets, and asks every node of the map who it is.
func check(ctx context.Context, file string, out io.Writer) error {
	cfg, err := loadConfig(file)
	if err != nil {
		return err
	}
	if _, err := cfg.tls(); err != nil {
		return err
	}
	if _, err := cfg.pageCert(); err != nil {
		return err
	}
	for _, u := range cfg.Users {
		for _, s := range []string{u.Password, u.Server} {
			if _, err := secret(s); err != nil {
				return fmt.Errorf("users: %s: %w", u.Name, err)
			}
		}
	}
	fmt.Fprintf(out, "%s: the configuration is valid\n", file)
	if cfg.pageIsPlain() {
		fmt.Fprintf(out, "warning: %s\n", plainPage)
	}
	doc, err := filestore.New(cfg.Store).Load(ctx)
	if err != nil {
		return err
	}
	if doc == nil {
		fmt.Fprintf(out, "%s: no shard map yet\n", cfg.Store)
		return nil
	}
	fmt.Fprintf(out, "%s: map version %d, %d databases, %d shards, %d nodes\n", cfg.Store, doc.Version, len(doc.Databases), len(doc.Shards), len(doc.Nodes))
	var bad []error
	for _, n := range doc.Nodes {
		what, err := ask(ctx, n.DSN)
		if err != nil {
			bad = append(bad, fmt.Errorf("node %s of shard %s does not answer", n.Name, n.Shard))
			what = "does not answer: check the address, the server and pg_hba.conf"
		}
		fmt.Fprintf(out, "%s/%s/%s: %s\n", n.Database, n.Shard, n.Name, what)
	}
	return errors.Join(bad...)
}

func ask(ctx context.Context, dsn string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := nodeconn.Open(ctx, dsn, nodeconn.Check)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx)) // only read
	var v, role, prepared string
	err = conn.QueryRow(ctx, "select current_setting('server_version'), case when pg_is_in_recovery() then 'replica' else 'primary' end, current_setting('max_prepared_transactions')").Scan(&v, &role, &prepared)
	if err != nil {
		return "", err
	}
	s := fmt.Sprintf("PostgreSQL %s, %s", v, role)
	if prepared == "0" {
		s += "; max_prepared_transactions is 0: transactions that write to several shards will be refused"
	}
	return s, nil
}
