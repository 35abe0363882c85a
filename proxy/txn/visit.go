package txn

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

// idleFor is how long a connection is kept that nobody needs: the resolver comes by more often.
const idleFor = time.Minute

// Conns keeps a connection to each shard between visits. Any number of goroutines may visit: who finds it in use opens another for
// the time of the visit. The zero value is ready for use.
type Conns struct {
	mu     sync.Mutex // guards the rest
	idle   map[string]idleConn
	closed bool // Run has ended: nothing is kept any more
}

type idleConn struct {
	c     *pgx.Conn
	since time.Time
}

// take returns the connection that is kept, or nil.
func (k *Conns) take(dsn string) *pgx.Conn {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	i := k.idle[dsn] // the zero value if there is none
	delete(k.idle, dsn)
	return i.c
}

// put keeps a connection, or returns the one that is too many.
func (k *Conns) put(dsn string, c *pgx.Conn) (over *pgx.Conn) {
	if k == nil {
		return c
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || c.IsClosed() || k.idle[dsn].c != nil {
		return c
	}
	if k.idle == nil {
		k.idle = map[string]idleConn{}
	}
	k.idle[dsn] = idleConn{c, time.Now()}
	return nil
}

// Drop closes the connection to a node, which is no longer to be trusted with work.
func (k *Conns) Drop(dsn string) { closeConn(k.take(dsn)) }

// Run closes connections that nobody needs, and when ctx ends all.
func (k *Conns) Run(ctx context.Context) error {
	tick := time.NewTicker(idleFor / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			k.mu.Lock()
			k.closed = true
			k.mu.Unlock()
			k.close(0)
			return nil
		case <-tick.C:
			k.close(idleFor)
		}
	}
}

// close closes those that have been idle for longer than a time.
func (k *Conns) close(longer time.Duration) {
	k.mu.Lock()
	var old []*pgx.Conn
	for dsn, i := range k.idle {
		if time.Since(i.since) >= longer {
			old = append(old, i.c)
			delete(k.idle, dsn)
		}
	}
	k.mu.Unlock()
	for _, c := range old {
		closeConn(c)
	}
}

// closeConn closes a connection that nobody uses.
func closeConn(c *pgx.Conn) {
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // nothing is left on it
}

// with lends f a connection to a shard. f's context ends with the visit. f leaves nothing on the connection, or fails.
func with(ctx context.Context, s Shard, f func(context.Context, *pgx.Conn) error) error {
	failed := func(err error) error { return &ShardError{s.Database, s.Name, s.Node, err} }
	if s.DSN == "" {
		return failed(errNoPrimary)
	}
	ctx, cancel := context.WithTimeout(ctx, shardTimeout)
	defer cancel()
	c := s.Conns.take(s.DSN)
	if c != nil && c.Ping(ctx) != nil { // it broke while nobody used it
		closeConn(c)
		c = nil
	}
	if c == nil {
		var err error
		if c, err = nodeconn.Open(ctx, s.DSN, nodeconn.Resolver); err != nil {
			return failed(err)
		}
		if s.Verify != nil {
			if err := s.Verify(ctx, c.PgConn()); err != nil {
				closeConn(c)
				return failed(err)
			}
		}
	}
	err := f(ctx, c)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		closeConn(c)
		return failed(err)
	}
	closeConn(s.Conns.put(s.DSN, c))
	return err
}

// inTx is with, in a transaction of its own at READ COMMITTED: what is set in it ends with it.
func inTx(ctx context.Context, s Shard, f func(context.Context, pgx.Tx) error) error {
	return with(ctx, s, func(ctx context.Context, c *pgx.Conn) error {
		return pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error { return f(ctx, tx) })
	})
}
