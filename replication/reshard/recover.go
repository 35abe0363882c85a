package reshard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Recover finishes or undoes what a crash left moving, in every database. It is called at the start. A database whose shards do
// not answer keeps no other from being settled.
func (mv *Mover) Recover(ctx context.Context) error {
	var errs []error
	for _, d := range mv.Catalog.Current().SortedDatabases() {
		if err := mv.settle(ctx, d.Name); err != nil {
			errs = append(errs, fmt.Errorf("database %s: %w", d.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Settle is Recover for who changes the map next: what only remains to be cleared away is no error, and is left to the background.
func (mv *Mover) Settle(ctx context.Context) error {
	defer mv.Alone()()
	for _, d := range mv.Catalog.Current().SortedDatabases() {
		if err := mv.recoverLocked(ctx, d.Name); err != nil {
			return err
		}
	}
	return nil
}

// RunRecover tries again after every pause until all is settled, or ctx ends.
func (mv *Mover) RunRecover(ctx context.Context, pause time.Duration) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		if mv.Recover(ctx) == nil {
			return nil
		}
	}
}

func (mv *Mover) settle(ctx context.Context, db string) error {
	defer mv.Alone()()
	return mv.recoverAll(ctx, db, nil)
}

// settled is a database in which nothing is left moving. The caller has the map to itself (Alone).
func (mv *Mover) settled(ctx context.Context, db string) (*shardmap.DB, error) {
	if err := mv.recoverLocked(ctx, db); err != nil {
		return nil, err
	}
	return mv.Database(db)
}

// settledWithout is settled for who drops a shard that owns nothing, where why has kept it from being so. What unfinished statements have made on that shard is let
// go if its server does not answer: it may be gone for good. The caller has the map to itself (Alone).
func settledWithout(ctx context.Context, mv *Mover, db, shard string, dry bool, why error) (*shardmap.DB, error) {
	d, err := mv.Database(db)
	if err != nil {
		return nil, err
	}
	s, ok := d.Shard(shard)
	if !ok || s == d.Home || mv.Monitor.View(db, shard).Up() || mayDrop(d, nil, "shard", shard) != nil {
		return nil, why
	}
	if dry {
		return d, nil
	}
	mv.Log.Warn("what unfinished statements have made on a shard that is dropped stays on its server, which does not answer", "database", db, "shard", shard)
	var later *laterError
	if err := mv.recoverAll(ctx, db, s); err != nil && !errors.As(err, &later) {
		return nil, err
	}
	return mv.Database(db)
}

// recoverLocked is recoverAll for who only wants to change something else. The caller has the map to itself (Alone).
func (mv *Mover) recoverLocked(ctx context.Context, db string) error {
	err := mv.recoverAll(ctx, db, nil)
	var later *laterError
	if errors.As(err, &later) {
		mv.Log.Warn("what a statement has left cannot be settled yet", "error", later)
		return nil
	}
	return err
}

// recoverAll settles the attempts of a database that have not ended. One that another process is at is left alone: that is an error,
// a laterError if it keeps nothing else from being changed. A shard that is gone, if there is one, is not asked. The caller has the map to itself (Alone).
func (mv *Mover) recoverAll(ctx context.Context, db string, gone *shardmap.ShardInfo) error {
	var later *laterError
	d, err := mv.Database(db)
	if err != nil {
		return err
	}
	if err := mv.renamesSettled(ctx, db); err != nil {
		return err
	}
	for _, x := range mv.Catalog.Current().Document.Attempts {
		if x.Database == db {
			if err := mv.recoverAttempt(ctx, d, gone, *x); err != nil && !errors.As(err, &later) {
				return err
			}
		}
	}
	for _, t := range mv.Catalog.Current().Document.Tables {
		if t.Database == db && t.Moving && t.Made == "" {
			if err := mv.recoverOlder(ctx, d, *t); err != nil {
				return err
			}
		}
	}
	for _, t := range mv.Catalog.Current().Document.Tenants {
		if t.Database == db && t.Moving && t.Made == "" {
			if err := mv.recoverOlderSchema(ctx, d, *t); err != nil {
				return err
			}
		}
	}
	if later != nil {
		return later
	}
	return nil
}

// recoverAttempt finishes or undoes an attempt, as home says.
func (mv *Mover) recoverAttempt(ctx context.Context, d *shardmap.DB, gone *shardmap.ShardInfo, x shardmap.Attempt) error {
	if err := mv.noteful(ctx, d, d.Home); err != nil {
		return err
	}
	home, err := mv.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return err
	}
	defer giveBack(ctx, mv.Conns, home)
	if err := hold(ctx, home, x); err != nil {
		return ownOr(d.Home.Name, err)
	}
	mv.Catalog.CatchUp(ctx) // another process may have been at it, and this one have slept
	all := mv.Catalog.Current().Document.Attempts
	i := slices.IndexFunc(all, func(y *shardmap.Attempt) bool { return y.ID == x.ID })
	if i < 0 {
		return nil // it has ended while it was waited for
	}
	x = *all[i]
	if d, err = mv.Database(x.Database); err != nil {
		return err
	}
	shards := d.Shards
	if gone != nil {
		shards = slices.DeleteFunc(slices.Clone(shards), func(s *shardmap.ShardInfo) bool { return s.Name == gone.Name })
	}
	if x.Group != "" {
		return mv.recoverPlaces(ctx, d, shards, home, x)
	}
	if x.Step == shardmap.Joined {
		return mv.shardClear(ctx, home, x)
	}
	if x.Shard == nil {
		if err := unwatchAll(ctx, home, x.ID); err != nil {
			return ownOr(d.Home.Name, err)
		}
	}
	var at string
	err = home.QueryRow(ctx, "SELECT at FROM pgmosaic.placed WHERE distribution = $1", cmp.Or(x.Takes, x.ID)).Scan(&at)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return ownOr(d.Home.Name, err)
	}
	switch {
	case x.Shard != nil:
		return mv.recoverShard(ctx, d, home, x, at == "shards")
	case at == "" && x.Takes != "":
		return &pgsql.Error{
			Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("home has no record of the distribution that %q was to undo", x.Statement),
			Hint: "Home may have been restored to an older state. Nothing was dropped: compare the table on all shards, and restore the map that belongs to them.",
		}
	case at == "shards":
		return mv.settleOnShards(ctx, d, shards, home, x)
	}
	return mv.settleOnHome(ctx, d, shards, home, x)
}

// settleOnShards ends an attempt whose rows count on the shards: it has distributed them, or not brought them home.
func (mv *Mover) settleOnShards(ctx context.Context, d *shardmap.DB, shards []*shardmap.ShardInfo, home *pgx.Conn, x shardmap.Attempt) error {
	for _, s := range shards {
		if s == d.Home {
			continue
		}
		c, err := dismissed(ctx, mv, home, d, s, x.ID)
		if err == nil {
			if x.Takes != "" {
				err = leave(ctx, c, s.Name, x.ID)
			}
			giveBack(ctx, mv.Conns, c)
		}
		if err != nil && x.Takes != "" { // else all that was made has been committed
			return err
		}
	}
	if x.Takes != "" {
		if _, err := home.Exec(ctx, "UPDATE pgmosaic.placed SET attempt = distribution WHERE attempt = $1", x.ID); err != nil {
			return ownOr(d.Home.Name, err)
		}
	}
	gone, err := goneWith(ctx, home, x)
	if err != nil {
		return ownOr(d.Home.Name, err)
	}
	err = mv.end(ctx, x, func(tx *shardmap.Tx) error {
		if gone {
			tables, err := tx.Tables(x.Database)
			if err != nil || !slices.ContainsFunc(tables, func(t shardmap.Table) bool { return isOf(x, t.Made, false) }) {
				return err // the map has been told by who has dropped it
			}
		}
		return settleMap(tx, x, false)
	})
	mv.Log.Warn("an interrupted statement was settled: the rows are on the shards", "statement", x.Statement, "dropped", gone)
	return err
}

// goneWith says whether the table that an attempt was at has been dropped on home.
func goneWith(ctx context.Context, home *pgx.Conn, x shardmap.Attempt) (gone bool, err error) {
	err = home.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pgmosaic.placed WHERE distribution = $1 AND relation IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class WHERE oid = relation))", cmp.Or(x.Takes, x.ID)).Scan(&gone)
	return gone, err
}

// settleOnHome ends an attempt whose rows count at home: it has brought them there, or not distributed them. What it made, or was
// taking away, is dropped.
func (mv *Mover) settleOnHome(ctx context.Context, d *shardmap.DB, shards []*shardmap.ShardInfo, home *pgx.Conn, x shardmap.Attempt) error {
	if err := mv.clear(ctx, d, shards, home, x); err != nil {
		return err
	}
	mv.Log.Warn("an interrupted statement was settled: the rows are on home", "statement", x.Statement)
	return nil
}

// clear drops what an attempt has made or taken away on some shards, whose rows count at home, and forgets it.
func (mv *Mover) clear(ctx context.Context, d *shardmap.DB, shards []*shardmap.ShardInfo, home *pgx.Conn, x shardmap.Attempt) error {
	for _, s := range shards {
		if s == d.Home {
			continue
		}
		c, err := dismissed(ctx, mv, home, d, s, x.ID)
		if err != nil {
			return err
		}
		err = dropMade(ctx, c, s.Name, x.ID)
		giveBack(ctx, mv.Conns, c)
		if err != nil {
			return err
		}
	}
	if err := mv.end(ctx, x, func(tx *shardmap.Tx) error { return settleMap(tx, x, true) }); err != nil {
		return err
	}
	_, err := home.Exec(ctx, "DELETE FROM pgmosaic.placed WHERE attempt = $1 AND at = 'home'", x.ID)
	return ownOr(d.Home.Name, err)
}

// end has the map say what an attempt has come to, which home has decided, and forgets the attempt. If another process has done so,
// the map is left as it is: more may have happened since.
func (mv *Mover) end(ctx context.Context, x shardmap.Attempt, edit func(*shardmap.Tx) error) error {
	err := mv.Catalog.Retry(ctx, func(tx *shardmap.Tx) error { return cmp.Or(tx.EndAttempt(x.ID), edit(tx)) })
	if errors.Is(err, shardmap.ErrEnded) {
		return nil
	}
	return err
}

// settleMap has the map say where the rows are that an attempt was at: at home, or on the shards.
func settleMap(tx *shardmap.Tx, x shardmap.Attempt, home bool) error {
	if x.Name == "" {
		all, err := tx.Tenants(x.Database)
		i := slices.IndexFunc(all, func(t shardmap.Tenant) bool { return isOf(x, t.Made, t.Schema == x.Schema) })
		switch {
		case err != nil || i < 0:
			return errors.Join(err, unsettled(home, "schema "+x.Schema))
		case home:
			return tx.Delete("tenants", all[i].Database, all[i].Schema)
		}
		all[i].Moving = false
		return tx.PutTenant(all[i])
	}
	all, err := tx.Tables(x.Database)
	n := shardmap.TableName{Schema: x.Schema, Name: x.Name}
	i := slices.IndexFunc(all, func(t shardmap.Table) bool { return isOf(x, t.Made, t.TableName() == n) })
	if err != nil || i < 0 {
		return errors.Join(err, unsettled(home, "table "+n.String()))
	}
	t := all[i]
	if home {
		return tx.Delete("tables", t.Database, t.Schema, t.Name)
	}
	t.Moving, t.From = false, ""
	return tx.PutTable(t)
}

// isOf says whether what the map says was distributed as made is what an attempt was at. It may have another name by now, and something else that name: only
// what older versions, which knew no attempts, have left is known by it.
func isOf(x shardmap.Attempt, made string, named bool) bool {
	if x.ID == "" {
		return made == "" && named
	}
	return made != "" && made == cmp.Or(x.Takes, x.ID)
}

// unsettled is an error for what the map does not know, though its rows are on the shards.
func unsettled(home bool, label string) error {
	if home {
		return nil
	}
	return &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: label + " was distributed by a process with a newer map", Hint: otherMap}
}

// recoverShard finishes or undoes a CREATE SHARD. What it made on a node that does not answer stays for now: the shard serves
// nobody, and keeps nothing else from being changed.
func (mv *Mover) recoverShard(ctx context.Context, d *shardmap.DB, home *pgx.Conn, x shardmap.Attempt, decided bool) error {
	if decided {
		err := mv.shardDone(ctx, d, home, x)
		mv.Log.Warn("an interrupted statement was settled: it is done", "statement", x.Statement)
		return err
	}
	if x.Step == shardmap.Joining { // nobody need wait any more
		x.Step = ""
		if err := mv.Catalog.Retry(ctx, func(tx *shardmap.Tx) error { return errors.Join(tx.Under(x.ID), tx.PutAttempt(x)) }); err != nil {
			return err
		}
	}
	nodes := make([]shardmap.Node, len(x.Nodes))
	for i, n := range x.Nodes {
		nodes[i] = *n
	}
	err := unwatchAll(ctx, home, x.ID) // first: the shard's server may be gone for good
	var primary shardmap.Node
	if err == nil {
		primary, _, err = checkShard(ctx, nil, nodes)
	}
	var c *pgx.Conn
	if err == nil {
		c, err = connect(ctx, nil, primary.Name, primary.DSN, nodeconn.Unasked("what it was told has the attempt's id, as all that is undone"))
	}
	if err == nil {
		if err = ownOr(primary.Name, dismiss(ctx, home, c, x.ID)); err == nil {
			err = dropMade(ctx, c, primary.Name, x.ID)
		}
		var left []string
		if err == nil {
			left, err = dropBrought(ctx, c, primary.Name, x.ID)
		}
		if len(left) > 0 {
			mv.Log.Warn("what an undone statement has made is left on the shard: others need it there", "statement", x.Statement, "objects", left)
		}
		if err == nil {
			err = settleMark(ctx, c, primary.Name, "DELETE FROM pgmosaic.identity WHERE attempt = $1", x.ID)
		}
		_ = c.Close(context.WithoutCancel(ctx)) // nothing is left on it
	}
	if err != nil {
		return &laterError{fmt.Errorf("what %s has made cannot be undone: %w", x.Statement, err)}
	}
	if err := mv.Catalog.Retry(ctx, func(tx *shardmap.Tx) error { return tx.Delete("attempts", x.ID) }); err != nil {
		return err
	}
	_, err = home.Exec(ctx, "DELETE FROM pgmosaic.placed WHERE attempt = $1 AND at = 'home'", x.ID)
	mv.Log.Warn("an interrupted statement was undone", "statement", x.Statement)
	return err
}

// forsake gives up a CREATE SHARD that could not be undone, as the new shard's server does not answer. What it has made there stays.
func forsake(ctx context.Context, mv *Mover, d *shardmap.DB, x shardmap.Attempt, dry bool) (*shardmap.Snapshot, error) {
	forget := func(tx *shardmap.Tx) error { return tx.Delete("attempts", x.ID) }
	if dry || d.Home == nil {
		return mv.Change(ctx, "DROP SHARD", dry, d, forget)
	}
	home, err := mv.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return nil, err
	}
	defer giveBack(ctx, mv.Conns, home)
	var joined []string
	if err = hold(ctx, home, x); err == nil {
		joined, err = strings1(ctx, home, "SELECT attempt FROM pgmosaic.placed WHERE attempt = $1 AND at = 'shards'", x.ID)
	}
	if err == nil && len(joined) > 0 {
		err = &pgsql.Error{Code: pgsql.ObjectInUse, Message: fmt.Sprintf("home has decided that %s is done, and the map does not say so yet", x.Statement), Hint: "Run the statement again."}
	}
	if err == nil {
		err = unwatchAll(ctx, home, x.ID)
	}
	if err != nil {
		return nil, ownOr(d.Home.Name, err)
	}
	if err := mv.Catalog.Retry(ctx, forget); err != nil {
		return nil, err
	}
	if _, err := home.Exec(ctx, "DELETE FROM pgmosaic.placed WHERE attempt = $1", x.ID); err != nil {
		return nil, nodeFailed(d.Home.Name, err)
	}
	mv.Log.Warn("what a CREATE SHARD has made stays on its server, which does not answer", "database", d.Name, "shard", x.Shard.Name)
	return mv.done("DROP SHARD"), nil
}

// recoverOlder settles a table that an older version, which knew no attempts, left moving. Nothing proves what it made on the
// shards: that stays.
func (mv *Mover) recoverOlder(ctx context.Context, d *shardmap.DB, t shardmap.Table) error {
	home, err := mv.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return err
	}
	defer giveBack(ctx, mv.Conns, home)
	var checked bool
	if err := home.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass($1) AND conname = 'pgmosaic_slot')", t.TableName().SQL()).Scan(&checked); err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	x := shardmap.Attempt{Database: t.Database, Schema: t.Schema, Name: t.Name}
	onHome := !checked || t.Kind == shardmap.Reference
	mv.Log.Warn("a table that an older version left moving was settled; what it made on the other shards stays", "table", t.TableName(), "distributed", !onHome)
	return mv.Catalog.Retry(ctx, func(tx *shardmap.Tx) error { return settleMap(tx, x, onHome) })
}

// recoverOlderSchema is recoverOlder for a schema. Of these, an older version told home.
func (mv *Mover) recoverOlderSchema(ctx context.Context, d *shardmap.DB, t shardmap.Tenant) error {
	if err := mv.noteful(ctx, d, d.Home); err != nil { // which reads what an older version noted
		return err
	}
	home, err := mv.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return err
	}
	defer giveBack(ctx, mv.Conns, home)
	placed, err := strings1(ctx, home, "SELECT schema FROM pgmosaic.placed WHERE schema = $1 AND at = 'shards'", t.Schema)
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	onHome := len(placed) == 0
	mv.Log.Warn("a schema that an older version left moving was settled; what it made on the other shards stays", "schema", t.Schema, "distributed", !onHome)
	return mv.Catalog.Retry(ctx, func(tx *shardmap.Tx) error {
		return settleMap(tx, shardmap.Attempt{Database: t.Database, Schema: t.Schema}, onHome)
	})
}
