package txn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Shard is what the resolver needs of a shard.
type Shard struct{ Name, DSN string } // DSN of its primary

// Prepared is a prepared part found on a shard.
type Prepared struct {
	Shard, GID, Owner, Decider string
	Age                        time.Duration
	At                         time.Time
}

// Resolver finishes what a crash left prepared. Any number of processes may run one: the first writer of
// a decision row wins.
type Resolver struct {
	Install string
	Grace   time.Duration    // younger parts are left to the process that made them
	Shards  func() [][]Shard // the shards of each database, as of now
}

// Run resolves every period until ctx ends. onError is told of each failed round.
func (r *Resolver) Run(ctx context.Context, period time.Duration, onError func(error)) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			for _, db := range r.Shards() {
				if err := errors.Join(r.Resolve(ctx, db), r.Sweep(ctx, db)); err != nil && ctx.Err() == nil {
					onError(err)
				}
			}
		}
	}
}

// List finds the prepared parts of this installation on the shards of one database.
func (r *Resolver) List(ctx context.Context, shards []Shard) ([]Prepared, error) {
	var out []Prepared
	var errs []error
	for _, s := range shards {
		if s.DSN == "" {
			continue
		}
		err := with(ctx, s, func(c *pgx.Conn) error {
			rows, _ := c.Query(ctx, "select gid, owner::text, prepared, extract(epoch from clock_timestamp() - prepared)::float8 from pg_prepared_xacts where database = current_database() and gid like $1 order by prepared", "pgmosaic:"+r.Install+":%")
			var p Prepared
			var age float64
			_, err := pgx.ForEachRow(rows, []any{&p.GID, &p.Owner, &p.At, &age}, func() error {
				q := p
				q.Shard, q.Age = s.Name, time.Duration(age*float64(time.Second))
				_, q.Decider, _ = ParseGID(p.GID)
				out = append(out, q)
				return nil
			})
			return err
		})
		if err != nil {
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// Resolve finishes the old prepared parts of one database.
func (r *Resolver) Resolve(ctx context.Context, shards []Shard) error {
	parts, err := r.List(ctx, shards)
	byName := map[string]Shard{}
	for _, s := range shards {
		byName[s.Name] = s
	}
	for _, p := range parts {
		if p.Age < r.Grace {
			continue
		}
		decider, ok := byName[p.Decider]
		if !ok {
			err = errors.Join(err, fmt.Errorf("prepared transaction %s on shard %s: its deciding shard %q is not in the map", p.GID, p.Shard, p.Decider))
			continue
		}
		err = errors.Join(err, finishPart(ctx, p, decider, byName[p.Shard]))
	}
	return err
}

// mostSwept is how many decisions of a shard one round looks at.
const mostSwept = 10000

// Sweep deletes the decisions that nobody will ask for any more. One to commit is done with when no shard has a part of it:
// all parts were prepared before it could be seen. One to abort may still be met by its decider, as long as that is in the
// transaction that it was in: it stays until every transaction of before it has ended.
func (r *Resolver) Sweep(ctx context.Context, shards []Shard) error {
	seen := map[string][]string{}
	for _, s := range shards {
		if s.DSN == "" {
			return nil // a part may be there
		}
		if err := with(ctx, s, func(c *pgx.Conn) error {
			rows, _ := c.Query(ctx, `select gid from pgmosaic.decision d where outcome = 'commit' or not exists (select from pg_stat_activity
				where datname = current_database() and backend_type = 'client backend' and state <> 'idle' and pid <> pg_backend_pid() and coalesce(xact_start, '-infinity') <= d.at) limit $1`, mostSwept)
			gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
			seen[s.Name] = gids
			return err
		}); err != nil {
			return err
		}
		if len(seen[s.Name]) == 0 {
			delete(seen, s.Name)
		}
	}
	if len(seen) == 0 {
		return nil
	}
	parts, err := r.List(ctx, shards)
	if err != nil {
		return err
	}
	open := map[string]bool{}
	for _, p := range parts {
		open[Base(p.GID)] = true
	}
	for _, s := range shards {
		done := slices.DeleteFunc(seen[s.Name], func(gid string) bool { return open[gid] })
		if len(done) == 0 {
			continue
		}
		if err := with(ctx, s, func(c *pgx.Conn) error {
			_, err := c.Exec(ctx, "delete from pgmosaic.decision where gid = any($1)", done)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// Settle finds out at once what became of one transaction and finishes its parts on every shard that answers.
// committed tells the outcome; an error means that it could not be found out, or that a part is left.
func (r *Resolver) Settle(ctx context.Context, shards []Shard, gid string) (committed bool, err error) {
	_, name, _ := ParseGID(gid)
	for _, s := range shards {
		if s.Name == name && s.DSN != "" {
			outcome, err := decide(ctx, s, gid)
			if err != nil {
				return false, err
			}
			committed = outcome == "commit"
			parts, err := r.List(ctx, shards)
			for _, p := range parts {
				for _, at := range shards {
					if Base(p.GID) == gid && at.Name == p.Shard {
						err = errors.Join(err, finishAs(ctx, outcome, p.GID, at))
					}
				}
			}
			return committed, err
		}
	}
	return false, fmt.Errorf("shard %s, which decides about %s, does not answer", name, gid)
}

// finishPart acts on one prepared part as its decider says.
func finishPart(ctx context.Context, p Prepared, decider, at Shard) error {
	outcome, err := decide(ctx, decider, Base(p.GID))
	if err != nil {
		return err
	}
	return finishAs(ctx, outcome, p.GID, at)
}

// decide asks the decider what became of a transaction, deciding "abort" if nothing did. The insert waits for
// a decision in flight: it must see its outcome, so it runs at READ COMMITTED.
func decide(ctx context.Context, decider Shard, gid string) (outcome string, err error) {
	err = with(ctx, decider, func(c *pgx.Conn) error {
		for _, sql := range []string{"set lock_timeout = '5s'", "set synchronous_commit = on", "set default_transaction_isolation = 'read committed'"} {
			if _, err := c.Exec(ctx, sql); err != nil {
				return err
			}
		}
		if _, err := c.Exec(ctx, "insert into pgmosaic.decision (gid, outcome) values ($1, 'abort') on conflict do nothing", gid); err != nil {
			return err
		}
		return c.QueryRow(ctx, "select outcome from pgmosaic.decision where gid = $1", gid).Scan(&outcome)
	})
	if err != nil {
		return "", fmt.Errorf("ask shard %s about %s: %w", decider.Name, gid, err)
	}
	return outcome, nil
}

func finishAs(ctx context.Context, outcome, gid string, at Shard) error {
	verb := "ROLLBACK PREPARED "
	if outcome == "commit" {
		verb = "COMMIT PREPARED "
	}
	return with(ctx, at, func(c *pgx.Conn) error {
		if _, err := c.Exec(ctx, verb+quote(gid)); err != nil {
			return fmt.Errorf("%son shard %s: %w", verb, at.Name, err)
		}
		return nil
	})
}

func with(ctx context.Context, s Shard, f func(*pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, s.DSN)
	if err != nil {
		return fmt.Errorf("shard %s: %w", s.Name, err)
	}
	defer c.Close(context.WithoutCancel(ctx)) // nothing is left on it
	return f(c)
}
