package reshard

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Who works on a shard for an attempt. Home's connection says that an attempt is alive; what its process does on the shards goes over
// others. When home's is gone these may be there still, of a process that was stopped and will go on, with a transaction open: what it
// has made is seen by nobody yet, and would be there as soon as it commits. So every connection that changes something on a shard for an
// attempt is noted there first, in pgmosaic.holder, and who takes the attempt over dismisses them all before it looks at what was made.
// From then on there is no other: each says that it is there and then looks whether it is dismissed, and who dismisses says so and then
// looks who is there.

// enlistSQL notes a connection; the names behind the attempt's id are server processes. Those that are gone are of no use.
const enlistSQL = `WITH gone AS (DELETE FROM pgmosaic.holder h WHERE h.attempt ~ '/' AND h.pid <> pg_backend_pid() AND (h.pid <> 0 OR h.started < now() - interval '1 day')
    AND NOT EXISTS (SELECT FROM pg_stat_get_activity(NULL) s WHERE s.pid = h.pid AND coalesce(s.backend_start, h.started) = h.started))
INSERT INTO pgmosaic.holder SELECT $1 || '/' || pid, pid, backend_start FROM pg_stat_get_activity(pg_backend_pid()) ON CONFLICT (attempt) DO UPDATE SET pid = excluded.pid, started = excluded.started`

// enlist has a connection to a shard work for an attempt; ErrEnded if another process has taken that over.
func enlist(ctx context.Context, c *pgx.Conn, attempt string) error {
	c.PgConn().CustomData()[enlistedKey] = true
	if _, err := c.Exec(ctx, enlistSQL, attempt); err != nil {
		return err
	}
	var dismissed bool
	err := c.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pgmosaic.holder WHERE attempt = $1 || '/')", attempt).Scan(&dismissed)
	if err == nil && dismissed {
		err = shardmap.ErrEnded
	}
	return err
}

// enlistedKey is where a connection has that pgmosaic.holder names it.
const enlistedKey = "pgmosaic: enlisted"

// strikeOff has a connection hold no attempt, and work for none, any more: what ends that one's has nothing to end here. Nor does it have
// what a trusted role's code has left on it, with a definition or a row. No transaction is open on it.
func strikeOff(ctx context.Context, c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	noted := ""
	if c.PgConn().CustomData()[enlistedKey] != nil {
		noted = "DELETE FROM pgmosaic.holder WHERE pid = pg_backend_pid()"
	}
	delete(c.PgConn().CustomData(), enlistedKey)
	return nodeconn.Refresh(ctx, c, noted)
}

// openFor is openShard for what an attempt changes there.
func (mv *Mover) openFor(ctx context.Context, d *shardmap.DB, s *shardmap.ShardInfo, attempt string) (*pgx.Conn, error) {
	c, err := mv.openShard(ctx, d.Name, s)
	if err != nil {
		return nil, err
	}
	return enlisted(ctx, c, s.Name, attempt)
}

// enlisted takes a connection over: it gives it back enlisted, or closed and an error.
func enlisted(ctx context.Context, c *pgx.Conn, node, attempt string) (*pgx.Conn, error) {
	err := enlist(ctx, c, attempt)
	if err == nil {
		return c, nil
	}
	_ = c.Close(context.WithoutCancel(ctx)) // nothing was done on it
	return nil, ownOr(node, err)
}

// dismiss ends all connections that work on a shard for an attempt, and lets none begin but this one. The caller holds the attempt, by
// its connection to home. Who takes that over later finds this one: it is noted first, and only then it is asked whether home's is alive.
func dismiss(ctx context.Context, home, c *pgx.Conn, attempt string) error {
	var have bool
	if err := c.QueryRow(ctx, "SELECT to_regclass('pgmosaic.holder') IS NOT NULL").Scan(&have); err != nil || !have {
		return err // nothing could be noted there
	}
	c.PgConn().CustomData()[enlistedKey] = true
	if _, err := c.Exec(ctx, enlistSQL, attempt); err != nil {
		return err
	}
	if err := home.Ping(ctx); err != nil {
		return of(home, err)
	}
	if _, err := c.Exec(ctx, "INSERT INTO pgmosaic.holder VALUES ($1 || '/', 0, now()) ON CONFLICT (attempt) DO UPDATE SET started = now()", attempt); err != nil {
		return err
	}
	for begun := time.Now(); ; {
		var there int
		if err := c.QueryRow(ctx, `SELECT count(pg_terminate_backend(s.pid)) FROM pgmosaic.holder h JOIN pg_stat_get_activity(NULL) s ON s.pid = h.pid AND coalesce(s.backend_start, h.started) = h.started
		  WHERE starts_with(h.attempt, $1 || '/') AND h.pid <> pg_backend_pid()`, attempt).Scan(&there); err != nil || there == 0 {
			return err
		}
		if time.Since(begun) > holdWait {
			return &pgsql.Error{Code: pgsql.ObjectInUse, Message: fmt.Sprintf("%d server processes that worked for the statement do not end", there), Hint: "pg_stat_activity shows them: pgmosaic.holder has their numbers."}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// dismissed opens a shard for who takes an attempt over: nobody else works for it there.
func dismissed(ctx context.Context, mv *Mover, home *pgx.Conn, d *shardmap.DB, s *shardmap.ShardInfo, attempt string) (*pgx.Conn, error) {
	c, err := mv.openShard(ctx, d.Name, s)
	if err != nil {
		return nil, err
	}
	if err := dismiss(ctx, home, c, attempt); err != nil {
		_ = c.Close(context.WithoutCancel(ctx)) // nothing was done on it
		return nil, ownOr(s.Name, err)
	}
	return c, nil
}
