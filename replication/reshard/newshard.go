package reshard

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// How a shard joins others that are in use. It gets home's definitions, and the rows of reference tables as one snapshot has them;
// those that change meanwhile follow, as they do where a table moves while in use (see online.go). Then the map says that a shard is
// joining: statements that change what all shards have in common wait, the others do not, and the last changes follow. Home's commit
// decides. Reference tables that cannot be copied while in use, as they have no primary key or run code of their owner's, are copied
// whole in that last step.

// joiner is what one CREATE SHARD knows.
type joiner struct {
	mv      *Mover
	d       *shardmap.DB
	home    *pgx.Conn
	primary newcomer
	x       shardmap.Attempt
	job     *job

	tables []*shardmap.TableInfo                 // declared ones
	online map[shardmap.TableName]*online        // those that are copied while in use
	shapes map[shardmap.TableName]string         // home's definitions when they were brought
	keys   map[shardmap.TableName]([]definition) // what is made when all rows are there
	roles  []string                              // that home has and the shard's server had not
}

// join gives a new shard all that shards have in common, up to home's commit.
func (mv *Mover) join(ctx context.Context, d *shardmap.DB, home *pgx.Conn, primary newcomer, x shardmap.Attempt, j *job) (err error) {
	g := &joiner{
		mv: mv, d: d, home: home, primary: primary, x: x, job: j, tables: d.SortedTables(),
		online: map[shardmap.TableName]*online{}, shapes: map[shardmap.TableName]string{}, keys: map[shardmap.TableName][]definition{},
	}
	defer func() {
		if err != nil {
			err = g.stays(context.WithoutCancel(ctx), err)
		}
	}()
	if err := g.mark(ctx); err != nil {
		return err
	}
	if err := g.watch(ctx); err != nil {
		return ownOr(d.Home.Name, err)
	}
	if len(d.Shards) == 1 {
		if err := pgx.BeginFunc(ctx, home, func(tx pgx.Tx) error { return placeHome(ctx, mv, d, tx) }); err != nil {
			return ownOr(d.Home.Name, err)
		}
	}
	j.phase("copying to shard " + x.Shard.Name)
	if err := g.first(ctx); err != nil {
		return err
	}
	for try := 1; ; try++ {
		for _, t := range g.tables {
			if o := g.online[t.TableName]; o != nil {
				if err := o.catchUp(ctx, home); err != nil {
					return err
				}
			}
		}
		if err := mv.announce(ctx, g.x, g.step(shardmap.Joining), g.step("")); err == nil {
			break
		} else if try == maxSwitches {
			return err
		}
	}
	j.phase("switching")
	return g.last(ctx)
}

// step notes in the map how far the attempt is.
func (g *joiner) step(s shardmap.Step) func(*shardmap.Tx) error {
	x := g.x
	x.Step = s
	return func(tx *shardmap.Tx) error { return tx.PutAttempt(x) }
}

// watch has the changes of reference tables noted.
func (g *joiner) watch(ctx context.Context) error {
	to := []copying{{g.x.Shard.Name, g.x.Shard.Ordinal, g.open, g.primary.conns}}
	for i, t := range g.tables {
		if t.Kind != shardmap.Reference {
			continue
		}
		o, err := g.mv.onlineTo(ctx, g.d, g.home, t, t.Made, markOf(fmt.Sprintf("%s_%d", g.x.ID, i)), to, g.job)
		if err == nil && o != nil {
			o.hint = "Run CREATE SHARD again."
			g.online[t.TableName] = o
			err = o.watch(ctx, g.home)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *joiner) open(ctx context.Context) (*pgx.Conn, error) {
	c, err := g.primary.connect(ctx)
	if err != nil {
		return nil, err
	}
	return enlisted(ctx, c, g.primary.Name, g.x.ID)
}

// mark tells the shard's database whose it is.
func (g *joiner) mark(ctx context.Context) error {
	c, err := g.open(ctx)
	if err != nil {
		return err
	}
	defer giveBack(ctx, g.primary.conns, c)
	if g.roles, err = lackedRoles(ctx, g.home, c); err != nil {
		return ownOr(g.x.Shard.Name, err)
	}
	return tell(ctx, c, g.primary.Name, identityOf(g.mv, g.d.Name, g.x.Shard.Name), &g.x.ID)
}

// first makes all that can be made while the tables are in use.
func (g *joiner) first(ctx context.Context) error {
	ordinal := g.x.Shard.Ordinal
	var others []*pgx.Conn
	for _, s := range g.d.Shards {
		if s != g.d.Home {
			c, err := g.mv.openShard(ctx, g.d.Name, s)
			if err != nil {
				return err
			}
			defer giveBack(ctx, g.mv.Conns, c)
			others = append(others, c)
		}
	}
	still, err := frozenSince(ctx, g.home, namesOf(g.tables)...)
	if err != nil {
		return ownOr(g.d.Home.Name, err)
	}
	defer still.Rollback(context.WithoutCancel(ctx)) // it only reads
	return g.bring(ctx, func(dst *pgx.Conn, tx pgx.Tx) error {
		for _, t := range g.tables {
			if t.Kind == shardmap.Reference && g.online[t.TableName] == nil {
				continue
			}
			var shape string
			if err := still.QueryRow(ctx, shapeSQL, t.SQL()).Scan(&shape); err != nil {
				return nodeFailed(g.d.Home.Name, err)
			}
			g.shapes[t.TableName] = shape
			if declared, ok := g.mv.declaredTable(g.d.Name, t.TableName); ok && t.Kind == shardmap.Sharded {
				if err := checkShared(ctx, g.home, g.d, declared); err != nil {
					return err
				}
			}
			seqs, err := sequencesOn(ctx, g.home, t, ordinal, others...)
			if err != nil {
				return err
			}
			if seqs != nil && len(seqs.cols) > 0 && ordinal >= stride {
				return tooManyShards(g.x.Shard.Name)
			}
			o := g.online[t.TableName]
			if o != nil {
				if err := o.still(ctx, still); err != nil {
					return err
				}
			}
			if err := g.table(ctx, tx, t, seqs, o != nil); err != nil {
				return err
			}
			if o == nil {
				if _, err := tx.Exec(ctx, placeCheck(g.d, t, g.x.Shard.Name)); err != nil {
					return err
				}
				continue
			}
			if err := fill(ctx, g.home, dst, t.TableName, "", g.job); err != nil {
				return err
			}
		}
		return nil
	})
}

// table makes a table on the shard and notes it.
func (g *joiner) table(ctx context.Context, tx pgx.Tx, t *shardmap.TableInfo, seqs *shardSequences, inUse bool) (err error) {
	if g.keys[t.TableName], err = bringTable(ctx, g.home, tx, t.TableName, seqs, inUse); err != nil {
		return err
	}
	return noteCopy(ctx, tx, t.TableName, t.Made, g.x.ID)
}

// bring is bring to the shard.
func (g *joiner) bring(ctx context.Context, f func(*pgx.Conn, pgx.Tx) error) error {
	dst, err := g.open(ctx)
	if err != nil {
		return err
	}
	defer giveBack(ctx, g.primary.conns, dst)
	return bring(ctx, g.home, dst, g.x.Shard.Name, g.x.ID, func(tx pgx.Tx) error { return f(dst, tx) })
}

// align has the roles that were made on the shard's server follow what was said of them since: there it was said to nobody.
func (g *joiner) align(ctx context.Context) error {
	dst, err := g.open(ctx)
	if err != nil {
		return err
	}
	defer giveBack(ctx, g.primary.conns, dst)
	return ownOr(g.x.Shard.Name, lostFirst(g.home, pgx.BeginFunc(ctx, dst, func(tx pgx.Tx) error { return alignRoles(ctx, g.home, tx, g.roles) })))
}

// last brings what is left while nobody changes what shards have in common, and has home decide.
func (g *joiner) last(ctx context.Context) error {
	var written []shardmap.TableName
	for _, t := range g.tables {
		if t.Kind == shardmap.Reference {
			written = append(written, t.TableName)
		}
	}
	return ownOr(g.d.Home.Name, pgx.BeginFunc(ctx, g.home, func(tx pgx.Tx) error {
		err := runBounded(ctx, tx, g.mv.PauseTimeout, txn.Recount(g.primary.counted, g.x.Count)...)
		if lockHeld(err) {
			return &pgsql.Error{Code: pgsql.ObjectInUse, Message: fmt.Sprintf("a transaction on the node of shard %q has changed what all shards have in common, for longer than %s", g.d.Home.Name, g.mv.PauseTimeout), Hint: "pg_locks on it shows which holds pgmosaic.turn: a client of another process."}
		}
		if err != nil {
			return err
		}
		if err := g.mv.lockHome(ctx, tx, g.d, written, "SHARE ROW EXCLUSIVE"); err != nil { // of those who do not ask the map
			return err
		}
		if err := frozen(ctx, tx, namesOf(g.tables)...); err != nil {
			return err
		}
		for _, t := range g.tables {
			if o := g.online[t.TableName]; o != nil {
				if err := o.finish(ctx, g.home, tx, nil); err != nil {
					return err
				}
			} else if err := g.same(ctx, tx, t.TableName); err != nil {
				return err
			}
		}
		if err := g.align(ctx); err != nil {
			return err
		}
		if err := g.bring(ctx, func(dst *pgx.Conn, there pgx.Tx) error { return g.rest(ctx, dst, there) }); err != nil {
			return err
		}
		for _, t := range g.tables {
			if err := watchCopy(ctx, tx, t); err != nil { // home was the only shard
				return err
			}
		}
		return decide(ctx, tx, g.x, "shards", "shard "+g.x.Shard.Name)
	}))
}

// same is an error if a table's definition is not the one that was brought.
func (g *joiner) same(ctx context.Context, tx pgx.Tx, n shardmap.TableName) error {
	was, brought := g.shapes[n]
	if !brought {
		return nil
	}
	var shape string
	err := tx.QueryRow(ctx, shapeSQL, n.SQL()).Scan(&shape)
	if err == nil && shape != was {
		return altered(n, "Run CREATE SHARD again.")
	}
	return err
}

// rest makes the tables that could not be copied while in use, and what hangs on all rows being there.
func (g *joiner) rest(ctx context.Context, dst *pgx.Conn, there pgx.Tx) error {
	for _, t := range g.tables {
		if t.Kind != shardmap.Reference || g.online[t.TableName] != nil {
			continue
		}
		if err := g.table(ctx, there, t, nil, false); err != nil {
			return err
		}
		if err := fill(ctx, g.home, dst, t.TableName, "", nil); err != nil {
			return err
		}
	}
	for _, t := range g.tables {
		if err := ours(ctx, there, g.x.Shard.Name, t.TableName, t.Made); err != nil {
			return err
		}
		if err := finish(ctx, g.home, there, g.keys[t.TableName], g.online[t.TableName] != nil, t.TableName); err != nil {
			return err
		}
		if err := watchCopy(ctx, there, t); err != nil {
			return err
		}
	}
	return sameDefaults(ctx, g.home, there, g.x.Shard.Name)
}

func namesOf(tables []*shardmap.TableInfo) []shardmap.TableName {
	out := make([]shardmap.TableName, len(tables))
	for i, t := range tables {
		out[i] = t.TableName
	}
	return out
}

// shardDone adds a shard to the map that home has decided to be one, and clears the notes of it away.
func (mv *Mover) shardDone(ctx context.Context, d *shardmap.DB, home *pgx.Conn, x shardmap.Attempt) error {
	x.Step = shardmap.Joined
	err := mv.Catalog.Retry(ctx, func(tx *shardmap.Tx) error {
		return errors.Join(tx.Under(x.ID), putShard(tx, x), tx.PutDatabase(shardmap.Database{Name: x.Database, Home: d.Home.Name, Shards: x.Count}), tx.MarkShard(x.Database, d.Home.Name), tx.PutAttempt(x))
	})
	if errors.Is(err, shardmap.ErrEnded) { // another process has done the same
		return nil
	}
	if err != nil {
		return err
	}
	return mv.shardClear(ctx, home, x)
}

// shardClear clears away what is noted of a shard that the map has. Its copies are no attempt's to drop any more; until that is noted,
// home's row says so. Nothing depends on it: an error is a laterError.
func (mv *Mover) shardClear(ctx context.Context, home *pgx.Conn, x shardmap.Attempt) error {
	if err := mv.shardCleared(ctx, home, x); err != nil {
		return &laterError{fmt.Errorf("what %s has noted cannot be cleared away: %w", x.Statement, err)}
	}
	return nil
}

func (mv *Mover) shardCleared(ctx context.Context, home *pgx.Conn, x shardmap.Attempt) error {
	if err := unwatchAll(ctx, home, x.ID); err != nil {
		return ownOr(x.Shard.Name, err)
	}
	if d := mv.Catalog.Current().Databases[x.Database]; d != nil {
		if s, ok := d.Shard(x.Shard.Name); ok { // it may have been dropped since
			c, err := mv.openShard(ctx, d.Name, s)
			if err != nil {
				return err
			}
			defer giveBack(ctx, mv.Conns, c)
			if err = leave(ctx, c, s.Name, x.ID); err == nil {
				err = forgetObjects(ctx, c, s.Name, x.ID)
			}
			if err == nil {
				err = settleMark(ctx, c, s.Name, "UPDATE pgmosaic.identity SET attempt = NULL WHERE attempt = $1", x.ID)
			}
			if err != nil {
				return err
			}
		}
	}
	if _, err := home.Exec(ctx, "DELETE FROM pgmosaic.placed WHERE attempt = $1", x.ID); err != nil {
		return ownOr(x.Shard.Name, err)
	}
	return mv.Catalog.Retry(ctx, func(tx *shardmap.Tx) error { return tx.Delete("attempts", x.ID) })
}
