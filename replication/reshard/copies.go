package reshard

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// The copies of a reference table are written by statements that the proxy sends to all of them. A trigger on each copy, and on each of
// its partitions, refuses all others: see shardmap.CopyTrigger and docs/decisions, 24. It is made last, when the rows are there, and goes
// from home's table in the transaction that decides that it is home's alone again. On an only shard the table is written like others,
// by functions too: it gets the trigger when a second shard joins.

const watchedSQL = `select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where (c.oid = to_regclass($1) or c.oid in (select relid from pg_partition_tree(to_regclass($1)))) and $3 = exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgname = $2 and ` + proxysTrigger + ` and (t.tgenabled = 'O' or $3)) order by 1`

// proxysTrigger is whether a trigger t is the one that the proxy has made, and not a user's of that name.
const proxysTrigger = "t.tgfoid = to_regprocedure('pgmosaic.written()')"

// watchCopy gives a copy of a reference table, and its partitions, the trigger that they lack.
func watchCopy(ctx context.Context, tx querier, t *shardmap.TableInfo) error {
	if t.Kind != shardmap.Reference {
		return nil
	}
	lacking, err := strings1(ctx, tx, watchedSQL, t.SQL(), shardmap.CopyTriggerName, false)
	for _, name := range lacking {
		if err == nil {
			err = dropWatch(ctx, tx, name)
		}
		if err == nil {
			err = run(ctx, tx, []string{shardmap.CopyTrigger(name)})
		}
	}
	return err
}

// unwatchCopy takes it away.
func unwatchCopy(ctx context.Context, tx querier, n shardmap.TableName) error {
	having, err := strings1(ctx, tx, watchedSQL, n.SQL(), shardmap.CopyTriggerName, true)
	for _, name := range having {
		if err == nil {
			err = dropWatch(ctx, tx, name)
		}
	}
	return err
}

// dropWatch drops the trigger from one of them, if it is there: it may have been disabled.
func dropWatch(ctx context.Context, tx querier, name string) error {
	drop, err := strings1(ctx, tx, "select format('DROP TRIGGER %I ON %s', t.tgname, $1::text) from pg_trigger t where t.tgrelid = $1::text::regclass and t.tgname = $2 and "+proxysTrigger, name, shardmap.CopyTriggerName)
	if err == nil {
		err = run(ctx, tx, drop)
	}
	return err
}

// copied says whether a database has copies of a table that stay, by the distribution that made them.
func copied(d *shardmap.DB, t *shardmap.TableInfo) bool {
	if d == nil || len(d.Shards) < 2 {
		return false
	}
	now := d.Tables[t.TableName]
	return now != nil && now.Kind == shardmap.Reference && !now.Moving && now.Made == t.Made
}

// watchCopies gives the copies on a shard what an older version did not give them. Whoever uses a table for long holds it up: then it is
// tried again.
func (mv *Mover) watchCopies(ctx context.Context, d *shardmap.DB, c *pgx.Conn) error {
	for _, t := range d.SortedTables() {
		if !copied(d, t) {
			continue
		}
		if err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := bounded(ctx, tx, time.Second, func(ctx context.Context) error { return watchCopy(ctx, tx, t) }); err != nil {
				return err
			}
			if known, err := noted(ctx, tx, t); err != nil {
				return err
			} else if !known {
				return shardmap.ErrChanged
			}
			mv.Catalog.CatchUp(ctx) // under the table's lock: who takes the triggers away has told the map before, or looks once more
			if !copied(mv.Catalog.Current().Databases[d.Name], t) {
				return shardmap.ErrChanged
			}
			return nil
		}); errors.Is(err, shardmap.ErrChanged) {
			continue
		} else if err != nil {
			return err
		}
	}
	return nil
}

// noted says whether a server knows a table to be of the distribution that the map says. It does not where the map is an old one, as that of a
// process whose store was restored: the table may be home's alone by now. Older versions noted no distributions.
func noted(ctx context.Context, tx querier, t *shardmap.TableInfo) (known bool, err error) {
	if t.Made == "" {
		return true, nil
	}
	err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pgmosaic.placed WHERE relation = to_regclass($1) AND distribution = $2)
	  OR EXISTS (SELECT FROM pgmosaic.made WHERE relation = to_regclass($1) AND distribution = $2)`, t.SQL(), t.Made).Scan(&known)
	return known, err
}

// unwatchLast takes the triggers away from the tables on home, which is to be a database's only shard. again gives them back, if that
// comes to nothing.
func (mv *Mover) unwatchLast(ctx context.Context, d *shardmap.DB) (restore func() error, err error) {
	if !slices.ContainsFunc(d.SortedTables(), func(t *shardmap.TableInfo) bool { return t.Kind == shardmap.Reference }) {
		return func() error { return nil }, nil // home need not answer
	}
	err = mv.onHome(ctx, d, func(home *pgx.Conn) error {
		err := pgx.BeginFunc(ctx, home, func(tx pgx.Tx) error {
			for _, t := range d.SortedTables() {
				if t.Kind != shardmap.Reference {
					continue
				}
				if _, err := bounded(ctx, tx, 10*time.Second, func(ctx context.Context) error { return unwatchCopy(ctx, tx, t.TableName) }); err != nil {
					return err
				}
			}
			return nil
		})
		var pe *pgconn.PgError
		if errors.As(err, &pe) && pe.Code == pgsql.LockNotAvailable {
			return &pgsql.Error{Code: pgsql.ObjectInUse, Message: "a session uses a reference table on home, whose trigger is to go, for longer than 10s", Hint: "Wait until it has ended, or end it: pg_locks on home's node shows which. It may be another process's DROP SHARD."}
		}
		return err
	})
	return func() error {
		ctx := context.WithoutCancel(ctx)
		now, err := mv.Database(d.Name) // another process may have dropped the shard
		if err != nil {
			return err
		}
		return mv.onHome(ctx, now, func(home *pgx.Conn) error { return mv.watchCopies(ctx, now, home) })
	}, err
}

// onHome runs f on a connection to a database's home.
func (mv *Mover) onHome(ctx context.Context, d *shardmap.DB, f func(*pgx.Conn) error) error {
	home, err := mv.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return err
	}
	defer giveBack(ctx, mv.Conns, home)
	return ownOr(d.Home.Name, f(home))
}
