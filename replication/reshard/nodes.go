package reshard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// connect has a maintenance connection as the role of the node's connection string: one of those that a statement has opened before, or another.
// nil: another. whose says whose its database must be.
func connect(ctx context.Context, conns *nodeconn.Kept, name, dsn string, whose nodeconn.Whose) (*pgx.Conn, error) {
	cctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, _, err := conns.Borrow(cctx, dsn, nodeconn.Admin, whose)
	if err != nil {
		return nil, notConnected(name, err)
	}
	c.PgConn().CustomData()[whoseKey] = name
	return c, nil
}

// notConnected tells why there is no connection to a node.
func notConnected(name string, err error) error {
	if errors.Is(err, nodeconn.ErrString) {
		return &pgsql.Error{Code: pgsql.InvalidParameterValue, Message: fmt.Sprintf("the connection string of node %q cannot be read", name), Hint: "Use postgres://user@host:port/dbname or host=.. port=.. dbname=.."}
	}
	return ownOr(name, err)
}

// whoseKey is where a connection has the name by which errors tell of its server.
const whoseKey = "pgmosaic: whose"

// servedError is an error of one of several connections that work together.
type servedError struct {
	error
	name string
}

func (e *servedError) Unwrap() error { return e.error }

// of says that an error is a connection's; nil of none.
func of(c *pgx.Conn, err error) error {
	var e *servedError
	name, ok := c.PgConn().CustomData()[whoseKey].(string)
	if err == nil || !ok || errors.As(err, &e) {
		return err
	}
	return &servedError{err, name}
}

// nodeFailed tells of a node's failure without its connection string. An error that is known to be another's is told as that.
func nodeFailed(name string, err error) error {
	var of *servedError
	if errors.As(err, &of) {
		name, err = of.name, of.error
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return &pgsql.Error{Code: pe.Code, Message: fmt.Sprintf("node %q: %s", name, pe.Message), Hint: pe.Hint}
	}
	var ce *pgconn.ConnectError
	if errors.As(err, &ce) {
		return &pgsql.Error{Code: pgsql.UnableToConnect, Message: fmt.Sprintf("cannot connect to node %q", name), Hint: "Check that the server runs, its address and pg_hba.conf."}
	}
	if errors.Is(err, nodeconn.ErrSilent) {
		return &pgsql.Error{
			Code: pgsql.ConnectionFailure, Message: fmt.Sprintf("node %q has taken nothing, or has not been heard of, for as long as tcp_user_timeout of its connection string (a minute by default)", name),
			Hint: "Its server may be frozen, its disk slow or full, or the network cut. What this statement began is undone when the node answers: run it again then. Where a node is slow at times, give its connection string a longer tcp_user_timeout, in milliseconds.",
		}
	}
	return &pgsql.Error{Code: pgsql.ConnectionFailure, Message: fmt.Sprintf("node %q: %v", name, err)}
}

// facts are what a node says of itself.
type facts struct {
	system   string
	database string // as the server calls it
	recovery bool
	says     shardmap.Identity
}

func identify(ctx context.Context, conns *nodeconn.Kept, n shardmap.Node) (f facts, err error) {
	c, err := connect(ctx, conns, n.Name, n.DSN, nodeconn.Unasked("whose it is, is what is found out here"))
	if err != nil {
		return f, err
	}
	defer giveBack(ctx, conns, c)
	var enc string
	err = c.QueryRow(ctx, "select system_identifier::text, pg_is_in_recovery(), pg_encoding_to_char(encoding), datname from pg_control_system(), pg_database where datname = current_database()").
		Scan(&f.system, &f.recovery, &enc, &f.database)
	if err == nil {
		f.says, err = nodeconn.Identify(ctx, c.PgConn())
	}
	if err != nil {
		return f, nodeFailed(n.Name, err)
	}
	if enc != "UTF8" {
		return f, &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("database of node %q has encoding %s", n.Name, enc), Hint: "Shards must be UTF8."}
	}
	return f, nil
}

// checkShard asks every node who it is: one primary, all copies of the same cluster.
func checkShard(ctx context.Context, conns *nodeconn.Kept, nodes []shardmap.Node) (primary shardmap.Node, all []facts, err error) {
	found, system := 0, ""
	for _, n := range nodes {
		f, err := identify(ctx, conns, n)
		if err != nil {
			return primary, nil, err
		}
		if system != "" && f.system != system {
			return primary, nil, &pgsql.Error{Code: pgsql.InvalidParameterValue, Message: fmt.Sprintf("node %q is not a copy of the shard's other nodes: its system identifier is another", n.Name), Hint: "Make it with pg_basebackup from the primary."}
		}
		if len(all) > 0 && all[0].database != f.database {
			return primary, nil, otherDatabase(n.Name, f, nodes[0].Name, all[0])
		}
		system = f.system
		if !f.recovery {
			found++
			primary = n
		}
		all = append(all, f)
	}
	switch {
	case found == 0:
		return primary, nil, &pgsql.Error{Code: pgsql.InvalidParameterValue, Message: "none of the nodes is a primary: all are in recovery", Hint: "Name the primary as well, or promote one."}
	case found > 1:
		return primary, nil, &pgsql.Error{Code: pgsql.InvalidParameterValue, Message: "more than one of the nodes is a primary", Hint: "A shard has one primary; the others must be its standbys."}
	}
	return primary, all, nil
}

// checkMember asks a node that joins a shard whether it is a copy of it.
func (mv *Mover) checkMember(ctx context.Context, db string, s *shardmap.ShardInfo, n shardmap.Node) error {
	f, err := identify(ctx, nil, n)
	if err != nil {
		return err
	}
	if err := mv.checkClaim(db, s, n, f); err != nil {
		return err
	}
	if err := strange(n.Name, mv.Catalog.Current().Expected(db, s.Name).JudgeSystem(f.system)); err != nil {
		return err
	}
	for _, o := range s.Nodes {
		other, err := identify(ctx, nil, *o)
		if err == nil && other.system != f.system {
			return &pgsql.Error{Code: pgsql.InvalidParameterValue, Message: fmt.Sprintf("node %q is not a copy of node %q: its system identifier is another", n.Name, o.Name), Hint: "Make it with pg_basebackup from the primary."}
		}
		if err == nil && other.database != f.database {
			return otherDatabase(n.Name, f, o.Name, other)
		}
		if err == nil && !other.recovery && !f.recovery {
			return &pgsql.Error{Code: pgsql.InvalidParameterValue, Message: fmt.Sprintf("node %q is a primary, and so is node %q", n.Name, o.Name), Hint: "Add a standby."}
		}
	}
	return nil
}

// otherDatabase refuses a node whose database has another name than that of another node of the shard: a copy has the same.
func otherDatabase(node string, is facts, other string, has facts) error {
	return &pgsql.Error{
		Code: pgsql.InvalidParameterValue, Message: fmt.Sprintf("node %q is database %q, and node %q of the shard is %q", node, is.database, other, has.database),
		Hint: "The nodes of a shard are copies of one database: give each the same name in its connection string.",
	}
}

// primaryWait is how long a statement waits for a shard's primary to answer: as many probes may come late one after the other on a machine that is
// busy.
const primaryWait = 5 * time.Second

// primaryOf is the node that serves a shard's writes now.
func (mv *Mover) primaryOf(ctx context.Context, db string, s *shardmap.ShardInfo) (shardmap.Node, error) {
	n, _, err := mv.primaryAt(ctx, db, s)
	return n, err
}

// primaryAt is primaryOf, with the address where the monitor has found it.
func (mv *Mover) primaryAt(ctx context.Context, db string, s *shardmap.ShardInfo) (n shardmap.Node, addr string, err error) {
	if s == nil { // home, of a database that has none
		return n, "", &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("database %q has no shard", db), Hint: "CREATE SHARD first."}
	}
	ctx, cancel := context.WithTimeout(ctx, primaryWait)
	defer cancel()
	if mv.Monitor.Await(ctx, func() bool {
		v := mv.Monitor.View(db, s.Name)
		if v == nil || v.Primary < 0 || v.Primary >= len(s.Nodes) || !v.Up() {
			return false
		}
		n, addr = *s.Nodes[v.Primary], v.Nodes[v.Primary].Sample.Addr
		return true
	}) != nil {
		return n, "", &pgsql.Error{Code: pgsql.CannotConnectNow, Message: fmt.Sprintf("shard %s has no primary that answers", s.Name), Hint: "SHOW REPLICAS shows its nodes and why."}
	}
	return n, addr, nil
}

// openShard has a maintenance connection to a shard's primary. The caller closes it, or gives it back if he leaves nothing on it.
func (mv *Mover) openShard(ctx context.Context, db string, s *shardmap.ShardInfo) (*pgx.Conn, error) {
	n, addr, err := mv.primaryAt(ctx, db, s)
	if err != nil {
		return nil, err
	}
	c, err := borrow(ctx, mv.Conns, n, addr, mv.whose(db, s, n.Name))
	if err != nil {
		return nil, err
	}
	c.PgConn().CustomData()[whoseKey] = s.Name
	return c, nil
}

// borrow has a connection to a node, at the address where the monitor has found it if it is one that was kept: a name may be another
// server's by now.
func borrow(ctx context.Context, conns *nodeconn.Kept, n shardmap.Node, addr string, whose nodeconn.Whose) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, kept, err := conns.Borrow(ctx, n.DSN, nodeconn.Admin, whose)
	if kept && c.PgConn().Conn().RemoteAddr().String() != addr {
		_ = c.Close(ctx) // nothing is left on it
		c, err = nodeconn.Open(ctx, n.DSN, nodeconn.Admin, whose)
	}
	if err != nil {
		return nil, notConnected(n.Name, err)
	}
	return c, nil
}

// giveBack gives back what openShard and its like have given: its transactions have ended, or are to be undone. It is called by defer or when
// nothing can panic any more: a panic has the connection closed.
func giveBack(ctx context.Context, conns *nodeconn.Kept, c *pgx.Conn) {
	if p := recover(); p != nil {
		_ = c.Close(context.WithoutCancel(ctx))
		panic(p)
	}
	if conns == nil || ctx.Err() != nil || c.PgConn().TxStatus() != 'I' || strikeOff(ctx, c) != nil {
		_ = c.Close(context.WithoutCancel(ctx)) // which ends its transaction
		return
	}
	conns.Return(c)
}
