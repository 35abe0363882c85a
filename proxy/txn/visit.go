package txn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
)

// ShardError is a failure of a visit to a shard.
type ShardError struct {
	Database, Shard, Node string // Node is empty if none answers as the shard's primary
	Err                   error
}

func (e *ShardError) Error() string {
	if e.Node == "" {
		return fmt.Sprintf("shard %s: %v", e.Shard, e.Err)
	}
	return fmt.Sprintf("shard %s, node %s: %v", e.Shard, e.Node, e.Err)
}

func (e *ShardError) Unwrap() error { return e.Err }

var errNoPrimary = errors.New("no node answers as its primary")

// shardTimeout bounds one visit to a shard: one that is frozen, or that has a lock on what is asked for, holds up no other.
const shardTimeout = 10 * time.Second

// with lends f a connection to a shard. f's context ends with the visit. f leaves nothing on the connection, or fails.
func with(ctx context.Context, s Shard, f func(context.Context, *pgx.Conn) error) error {
	failed := func(err error) error { return &ShardError{s.Database, s.Name, s.Node, err} }
	if s.DSN == "" {
		return failed(errNoPrimary)
	}
	ctx, cancel := context.WithTimeout(ctx, shardTimeout)
	defer cancel()
	var nothing error
	err := s.Conns.Lend(ctx, s.DSN, nodeconn.Resolver, s.Whose, func(ctx context.Context, c *pgx.Conn) error {
		err := f(ctx, c)
		if errors.Is(err, pgx.ErrNoRows) { // which is an answer
			nothing, err = err, nil
		}
		return err
	})
	if err != nil {
		return failed(err)
	}
	return nothing
}

// inTx is with, in a transaction of its own at READ COMMITTED: what is set in it ends with it.
func inTx(ctx context.Context, s Shard, f func(context.Context, pgx.Tx) error) error {
	return with(ctx, s, func(ctx context.Context, c *pgx.Conn) error {
		return pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error { return f(ctx, tx) })
	})
}
