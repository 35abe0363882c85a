package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgmosaic/pgmosaic/proxy/access"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/instance"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// check validates a configuration, its files and secrets, and unless it is to look at these only, asks every node of the map
// who it is.
func check(ctx context.Context, file string, configOnly bool, out io.Writer) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	if _, err := access.New(&cfg, nil); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: the configuration is valid\n", file)
	if w := instance.WarnOfPage(&cfg); w != "" {
		fmt.Fprintf(out, "warning: %s\n", w)
	}
	if configOnly {
		return nil
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
	snap, err := shardmap.Compile(doc)
	if err != nil {
		return fmt.Errorf("%s: %w", cfg.Store, err)
	}
	var bad []error
	for _, n := range doc.Nodes {
		what, err := ask(ctx, n.DSN, snap.Expected(n.Database, n.Shard))
		if err != nil {
			bad = append(bad, fmt.Errorf("node %s of shard %s cannot be used", n.Name, n.Shard))
			what = refusal(err)
		}
		fmt.Fprintf(out, "%s/%s/%s: %s\n", n.Database, n.Shard, n.Name, what)
	}
	return errors.Join(bad...)
}

// askWithin is how long a node may take to answer.
const askWithin = 5 * time.Second

// ask asks a node who it is, and whether its database is what the map expects.
func ask(ctx context.Context, dsn string, expected shardmap.Expected) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	conn, err := nodeconn.Open(ctx, dsn, nodeconn.Check, nodeconn.Asked(func(ctx context.Context, c *pgconn.PgConn) error {
		if !expected.Any() {
			return nil
		}
		says, err := nodeconn.Identify(ctx, c)
		if err == nil {
			err = expected.Judge(says)
		}
		return err
	}))
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx)) // only read
	var v, role, prepared, system string
	err = conn.QueryRow(ctx, "select current_setting('server_version'), case when pg_is_in_recovery() then 'replica' else 'primary' end, current_setting('max_prepared_transactions'), system_identifier::text from pg_control_system()").Scan(&v, &role, &prepared, &system)
	if err != nil {
		return "", err
	}
	if err := expected.JudgeSystem(system); err != nil {
		return "", err
	}
	s := fmt.Sprintf("PostgreSQL %s, %s", v, role)
	if prepared == "0" {
		s += "; max_prepared_transactions is 0: transactions that write to several shards will be refused"
	}
	return s, nil
}

// refusal says why a node cannot be used: in the server's own words, if it gave any. They hold no secret of ours.
func refusal(err error) string {
	var said *pgconn.PgError
	var network *net.OpError
	var stranger *shardmap.StrangerError
	switch {
	case errors.As(err, &stranger):
		return stranger.Message + "; " + stranger.Hint
	case errors.As(err, &said):
		s := fmt.Sprintf("%s: %s (SQLSTATE %s)", said.Severity, said.Message, said.Code)
		if said.Detail != "" {
			s += "; " + said.Detail
		}
		if said.Hint != "" {
			s += "; " + said.Hint
		}
		return s
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %s: check the address, firewalls and the server", askWithin)
	case errors.As(err, &network):
		return "does not answer: " + network.Error()
	}
	return "does not answer: " + err.Error()
}
