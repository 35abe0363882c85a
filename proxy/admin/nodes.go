package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// connect opens a maintenance connection as the role of the node's connection string.
func connect(ctx context.Context, name, dsn string) (*pgx.Conn, error) {
	cctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := nodeconn.Open(cctx, dsn, nodeconn.Admin)
	if errors.Is(err, nodeconn.ErrString) {
		return nil, &Error{Code: "22023", Message: fmt.Sprintf("the connection string of node %q cannot be read", name), Hint: "Use postgres://user@host:port/dbname or host=.. port=.. dbname=.."}
	}
	if err != nil {
		return nil, nodeFailed(name, err)
	}
	return c, nil
}

// nodeFailed tells of a node's failure without its connection string.
func nodeFailed(name string, err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return &Error{Code: pe.Code, Message: fmt.Sprintf("node %q: %s", name, pe.Message), Hint: pe.Hint}
	}
	var ce *pgconn.ConnectError
	if errors.As(err, &ce) {
		return &Error{Code: "08001", Message: fmt.Sprintf("cannot connect to node %q", name), Hint: "Check that the server runs, its address and pg_hba.conf."}
	}
	return &Error{Code: "08006", Message: fmt.Sprintf("node %q: %v", name, err)}
}

type identity struct {
	system   string
	recovery bool
}

func identify(ctx context.Context, n shardmap.Node) (id identity, err error) {
	c, err := connect(ctx, n.Name, n.DSN)
	if err != nil {
		return id, err
	}
	defer c.Close(context.WithoutCancel(ctx)) // nothing is left on it
	var enc, fsync string
	var prepared int
	err = c.QueryRow(ctx, "select system_identifier::text, pg_is_in_recovery(), pg_encoding_to_char(encoding), current_setting('fsync'), current_setting('max_prepared_transactions')::int "+
		"from pg_control_system(), pg_database where datname = current_database()").Scan(&id.system, &id.recovery, &enc, &fsync, &prepared)
	if err != nil {
		return id, nodeFailed(n.Name, err)
	}
	if enc != "UTF8" {
		return id, &Error{Code: "0A000", Message: fmt.Sprintf("database of node %q has encoding %s", n.Name, enc), Hint: "Shards must be UTF8."}
	}
	return id, nil
}

// checkShard asks every node who it is: one primary, all copies of the same cluster.
func checkShard(ctx context.Context, nodes []shardmap.Node) (primary shardmap.Node, err error) {
	found, system := 0, ""
	for _, n := range nodes {
		id, err := identify(ctx, n)
		if err != nil {
			return primary, err
		}
		if system != "" && id.system != system {
			return primary, &Error{Code: "22023", Message: fmt.Sprintf("node %q is not a copy of the shard's other nodes: its system identifier is another", n.Name), Hint: "Make it with pg_basebackup from the primary."}
		}
		system = id.system
		if !id.recovery {
			found++
			primary = n
		}
	}
	switch {
	case found == 0:
		return primary, &Error{Code: "22023", Message: "none of the nodes is a primary: all are in recovery", Hint: "Name the primary as well, or promote one."}
	case found > 1:
		return primary, &Error{Code: "22023", Message: "more than one of the nodes is a primary", Hint: "A shard has one primary; the others must be its standbys."}
	}
	return primary, nil
}

// checkMember asks a node that joins a shard whether it is a copy of it.
func checkMember(ctx context.Context, s *shardmap.ShardInfo, n shardmap.Node) error {
	id, err := identify(ctx, n)
	if err != nil {
		return err
	}
	for _, o := range s.Nodes {
		other, err := identify(ctx, *o)
		if err == nil && other.system != id.system {
			return &Error{Code: "22023", Message: fmt.Sprintf("node %q is not a copy of node %q: its system identifier is another", n.Name, o.Name), Hint: "Make it with pg_basebackup from the primary."}
		}
		if err == nil && !other.recovery && !id.recovery {
			return &Error{Code: "22023", Message: fmt.Sprintf("node %q is a primary, and so is node %q", n.Name, o.Name), Hint: "Add a standby."}
		}
	}
	return nil
}

// prepareShard makes what the proxy itself needs on a shard of an ordinal.
func prepareShard(ctx context.Context, primary shardmap.Node, ordinal int) error {
	c, err := connect(ctx, primary.Name, primary.DSN)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx)) // nothing is left on it
	if err := ownSchema(ctx, c, primary.Name); err != nil {
		return err
	}
	if _, err := c.Exec(ctx, txn.Schema(ordinal)); err != nil {
		return nodeFailed(primary.Name, err)
	}
	return nil
}

// ownSchema refuses a schema pgmosaic that somebody else has made: what is in it would run with the rights of the proxy's role.
func ownSchema(ctx context.Context, c *pgx.Conn, node string) error {
	var owner string
	err := c.QueryRow(ctx, `select r.rolname from pg_namespace n join pg_roles r on r.oid = n.nspowner
		where n.nspname = 'pgmosaic' and not r.rolsuper and r.rolname <> current_user`).Scan(&owner)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return nodeFailed(node, err)
	}
	return &Error{
		Code: "42939", Message: fmt.Sprintf("schema pgmosaic on node %q belongs to role %q", node, owner),
		Hint: "The proxy keeps its own things there, and must own it. If a user has made it: DROP SCHEMA pgmosaic CASCADE.",
	}
}

// Upgrade gives the shards of the map what an older process did not make there. It is called at the start, and changes nothing
// on a shard that has it all.
func (a *Admin) Upgrade(ctx context.Context) error {
	for _, d := range sortedDBs(a.Catalog.Current()) {
		for _, s := range d.Shards {
			if len(d.Shards) < 2 {
				continue
			}
			c, err := a.openShard(ctx, d.Name, s)
			if err == nil {
				var have bool
				if err = c.QueryRow(ctx, "select to_regprocedure('pgmosaic.next_id()') is not null").Scan(&have); err == nil && !have {
					_, err = c.Exec(ctx, txn.Schema(s.Ordinal))
				}
				_ = c.Close(context.WithoutCancel(ctx)) // nothing is left on it
			}
			if err != nil && ctx.Err() == nil {
				a.Log.Warn("a shard may lack what an older version did not make there; the next start tries again", "database", d.Name, "shard", s.Name, "error", err)
			}
		}
	}
	return nil
}

// primaryOf is the node that serves a shard's writes now.
func (a *Admin) primaryOf(db string, s *shardmap.ShardInfo) (shardmap.Node, error) {
	for range 100 {
		if v := a.Monitor.View(db, s.Name); v != nil && v.Primary >= 0 && v.Primary < len(s.Nodes) && v.Up() {
			return *s.Nodes[v.Primary], nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return shardmap.Node{}, &Error{Code: "57P03", Message: fmt.Sprintf("shard %s has no primary that answers", s.Name), Hint: "SHOW REPLICAS shows its nodes and why."}
}

// openShard opens a maintenance connection to a shard's primary.
func (a *Admin) openShard(ctx context.Context, db string, s *shardmap.ShardInfo) (*pgx.Conn, error) {
	n, err := a.primaryOf(db, s)
	if err != nil {
		return nil, err
	}
	return connect(ctx, n.Name, n.DSN)
}
