package reshard

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// What may be dropped. Every statement that makes copies of tables on shards, or takes them away, is an attempt with an id that
// nobody can guess. Four records say what it may undo, each older than what it speaks of:
//
//   - the map has the attempt (shardmap.Attempt) from before it touches a shard until it is done or undone;
//   - pgmosaic.holder on home has the server process of the statement's connection to it: when that is gone, nobody is at it, and its
//     last transaction has ended;
//   - pgmosaic.placed on home says of each table whether its rows count at home or on the shards, and which attempt is at it.
//     The transaction that deletes or brings home the rows changes that, and decides;
//   - pgmosaic.made on each other shard has the OID of each copy, the distribution that it belongs to, and the last attempt that
//     made or is taking it away. It is written in the transaction that makes the copy.
//
// A copy is dropped if its OID is noted under the id of an attempt that home's row says is undone, or has brought the rows home.
// A table that has only the name of one is nobody's to drop. See docs/decisions, 18.

// newAttempt gives a statement its id.
func newAttempt(x shardmap.Attempt) shardmap.Attempt {
	x.ID = newID()
	return x
}

// newID is an id that nobody can guess.
func newID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// start has an attempt known before it touches anything: home's connection holds it, and the map notes it, unless that says something
// else of the database by now. From then on no other process begins a move there, or changes who owns which key. Of the shards that ready
// names the statement has just seen that they have what it needs.
func (mv *Mover) start(ctx context.Context, d *shardmap.DB, home *pgx.Conn, x shardmap.Attempt, ready map[string]bool) error {
	for _, s := range d.Shards {
		have, err := ready[s.Name], error(nil)
		if s == d.Home {
			have, err = hasAll(ctx, home, s.Name)
		}
		if err == nil && !have {
			err = mv.noteful(ctx, d, s)
		}
		if err != nil {
			return err
		}
	}
	if err := hold(ctx, home, x); err != nil {
		return ownOr(d.Home.Name, err)
	}
	mv.begun.Store(x.ID, true)
	return mv.Catalog.Retry(ctx, func(tx *shardmap.Tx) error { return errors.Join(tx.Unchanged(d), tx.PutAttempt(x)) })
}

// noteful makes what this version needs on a shard that an older one has prepared.
func (mv *Mover) noteful(ctx context.Context, d *shardmap.DB, s *shardmap.ShardInfo) error {
	n, addr, err := mv.primaryAt(ctx, d.Name, s)
	if err != nil {
		return err
	}
	c, err := borrow(ctx, mv.Conns, n, addr, mv.whose(d.Name, s, n.Name))
	if err != nil {
		return err
	}
	defer giveBack(ctx, mv.Conns, c)
	have, err := hasAll(ctx, c, n.Name)
	if err != nil || have {
		return err
	}
	return mv.prepareShard(ctx, c, n.Name, identityOf(mv, d.Name, s.Name), s.Ordinal, len(d.Shards) > 1)
}

// holdWait is how long an attempt that somebody holds is waited for: the connection of a process that has died may take a moment to end.
const holdWait = 5 * time.Second

// heldSQL says whether another server process holds an attempt: the one that pgmosaic.holder names lives still. Locks would not do: what
// lasts as long as a connection are advisory locks, and those everybody can take. It asks what pg_stat_activity asks: that view names roles and
// databases besides, which takes a new connection longer than all the rest.
const heldSQL = `EXISTS (SELECT FROM pgmosaic.holder h JOIN pg_stat_get_activity(NULL) s ON s.pid = h.pid AND coalesce(s.backend_start, h.started) = h.started WHERE h.attempt = %s AND h.pid <> pg_backend_pid())`

// heldBy is heldSQL for the attempt that an expression gives.
func heldBy(attempt string) string { return fmt.Sprintf(heldSQL, attempt) }

// hold takes an attempt until a connection to home is given back, or has ended. Who cannot have it must leave the attempt alone.
func hold(ctx context.Context, home *pgx.Conn, x shardmap.Attempt) error {
	for begun := time.Now(); ; {
		if ok, err := claim(ctx, home, x.ID); ok || err != nil {
			return err
		}
		if time.Since(begun) > holdWait {
			return &pgsql.Error{Code: pgsql.ObjectInUse, Message: "another process is at it still: " + x.Statement, Hint: "Wait until it has ended: SHOW JOBS there."}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// claim is hold without waiting. Of two that claim an attempt at once, the second sees the first: it looks who lives when it has the
// row's lock. What runs on the connection meanwhile, a table's owner's code too, can give nothing up. Rows of long ago that nobody holds
// are of no use. A connection that has served many statements is of long ago, too, and may hold another attempt itself.
func claim(ctx context.Context, home *pgx.Conn, attempt string) (ok bool, err error) {
	home.PgConn().CustomData()[enlistedKey] = true
	err = pgx.BeginFunc(ctx, home, func(tx pgx.Tx) error {
		var all pgx.Batch
		for _, sql := range []string{
			"DELETE FROM pgmosaic.holder WHERE attempt <> $1 AND pid <> pg_backend_pid() AND started < now() - interval '1 day' AND NOT " + heldBy("holder.attempt"),
			"INSERT INTO pgmosaic.holder VALUES ($1, 0, '-infinity') ON CONFLICT DO NOTHING",
			"SELECT FROM pgmosaic.holder WHERE attempt = $1 FOR UPDATE",
		} {
			all.Queue(sql, attempt)
		}
		all.Queue("SELECT pg_stat_clear_snapshot()") // who lives, as of now: a transaction looks once
		all.Queue("UPDATE pgmosaic.holder SET pid = s.pid, started = s.backend_start FROM pg_stat_get_activity(pg_backend_pid()) s WHERE attempt = $1 AND NOT "+heldBy("$1"), attempt).
			Exec(func(tag pgconn.CommandTag) error { ok = tag.RowsAffected() == 1; return nil })
		return tx.SendBatch(ctx, &all).Close()
	})
	return ok, err
}

// beginPlacing takes a table or schema for an attempt that will put its rows on the shards. Nobody else may be at it, and its rows
// must be on home. column and value name it in pgmosaic.placed.
func beginPlacing(ctx context.Context, home *pgx.Conn, column, value, label string, x shardmap.Attempt) error {
	taken := &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: label + " is distributed already, or being so, by a process with another map", Hint: otherMap}
	before, err := strings1(ctx, home, fmt.Sprintf("SELECT attempt FROM pgmosaic.placed WHERE %s = $1::%s AND at = 'home'", column, noteType(column)), value)
	if err != nil {
		return err
	}
	for _, id := range before { // whose process died
		if ok, err := claim(ctx, home, id); err != nil || !ok {
			return cmp.Or[error](err, taken)
		}
	}
	return pgx.BeginFunc(ctx, home, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, forgetGoneSQL); err != nil {
			return err
		}
		var other string
		err := tx.QueryRow(ctx, fmt.Sprintf("SELECT attempt FROM pgmosaic.placed WHERE %s = $1::%s FOR UPDATE", column, noteType(column)), value).Scan(&other)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		tag, err := tx.Exec(ctx, fmt.Sprintf(`INSERT INTO pgmosaic.placed AS p (%s, distribution, attempt, at) VALUES ($1::%s, $2, $2, 'home')
			ON CONFLICT (%[1]s) DO UPDATE SET distribution = $2, attempt = $2 WHERE p.at = 'home' AND NOT `+heldBy("p.attempt"), column, noteType(column)), value, x.ID)
		if err == nil && tag.RowsAffected() == 0 {
			return taken
		}
		if err == nil && other != "" {
			err = run(ctx, tx, unwatch(other)) // it died, and its map may be lost
		}
		return err
	})
}

// forgetGoneSQL forgets tables that are gone. What a statement is at, or was and nobody has settled, stays: who settles it looks there, and may have
// another map.
const forgetGoneSQL = `DELETE FROM pgmosaic.placed p WHERE relation IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class WHERE oid = relation)
  AND attempt = distribution AND NOT EXISTS (SELECT FROM pgmosaic.holder h WHERE h.attempt = p.attempt)`

const otherMap = "Give this process the map of the one that did it: docs/operating/several.md."

// noteType is the type of a column of pgmosaic.placed, as a parameter.
func noteType(column string) string {
	if column == "relation" {
		return "text::regclass"
	}
	return "text"
}

// sameTable is an error if a table's name means another table than when an attempt took it. The caller has locked what it means.
func sameTable(ctx context.Context, tx pgx.Tx, n shardmap.TableName, x shardmap.Attempt) error {
	var same bool
	err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pgmosaic.placed WHERE attempt = $1 AND relation = to_regclass($2))", x.ID, n.SQL()).Scan(&same)
	if err == nil && !same {
		return &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("table %s is another one than when the statement began", n), Hint: "Its rows are on home. Run the statement again."}
	}
	return err
}

// decide says, in the transaction that moves home's rows, where the rows of what an attempt has taken count from now on.
func decide(ctx context.Context, tx pgx.Tx, x shardmap.Attempt, at, label string) error {
	tag, err := tx.Exec(ctx, "UPDATE pgmosaic.placed SET at = $2 WHERE attempt = $1 AND at <> $2", x.ID, at)
	if err == nil && tag.RowsAffected() != 1 {
		return &pgsql.Error{Code: pgsql.ObjectInUse, Message: label + " was taken by another process meanwhile", Hint: "Its rows are where they were. Look at SHOW TABLES there, and run the statement again."}
	}
	return err
}

// noteCopy notes a table that the transaction has just made on a shard.
func noteCopy(ctx context.Context, tx pgx.Tx, n shardmap.TableName, distribution, attempt string) error {
	var both pgx.Batch
	both.Queue("DELETE FROM pgmosaic.made WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = relation)")
	both.Queue("INSERT INTO pgmosaic.made VALUES ($1::text::regclass, $2, $3)", n.SQL(), distribution, attempt)
	return tx.SendBatch(ctx, &both).Close()
}

// ours is an error unless a table on a shard that is not home is the copy that a distribution made there.
func ours(ctx context.Context, q pgx.Tx, shard string, n shardmap.TableName, distribution string) error {
	var yes bool
	err := q.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pgmosaic.made WHERE relation = to_regclass($1) AND distribution = $2)", n.SQL(), distribution).Scan(&yes)
	if err == nil && !yes {
		return &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("table %s on shard %q is not what this map's distribution of it has made there", n, shard), Hint: otherMap}
	}
	return err
}

// guard locks the copies of an attempt on the other shards against changes, and makes sure that they are there, until release:
// home may delete the rows that they have.
func (mv *Mover) guard(ctx context.Context, d *shardmap.DB, shards []*shardmap.ShardInfo, tables []shardmap.TableName, x shardmap.Attempt) (release func(), err error) {
	var txs []pgx.Tx
	release = func() {
		for _, tx := range txs {
			if tx.Rollback(ctx) == nil {
				giveBack(ctx, mv.Conns, tx.Conn())
			} else {
				_ = tx.Conn().Close(context.WithoutCancel(ctx)) // which ends the transaction
			}
		}
	}
	for _, s := range shards {
		if s == d.Home || len(tables) == 0 {
			continue
		}
		c, err := mv.openFor(ctx, d, s, x.ID)
		if err != nil {
			release()
			return nil, err
		}
		tx, err := c.Begin(ctx)
		if err != nil {
			_ = c.Close(context.WithoutCancel(ctx)) // nothing was done on it
			release()
			return nil, ownOr(s.Name, err)
		}
		txs = append(txs, tx)
		err = func() error {
			if err := runBounded(ctx, tx, 10*time.Second, "LOCK TABLE "+sanitizeAll("", tables)+" IN SHARE MODE"); err != nil {
				return err
			}
			for _, n := range tables {
				if err := ours(ctx, tx, s.Name, n, x.ID); err != nil {
					return err
				}
			}
			return nil
		}()
		if err != nil {
			release()
			return nil, ownOr(s.Name, err)
		}
	}
	return release, nil
}

// takeAway notes, on a shard, that an attempt takes away the copies that a distribution has made there. In a schema that lives
// there, tables that clients have made since belong to it: what they hold is brought home like what the others do.
func takeAway(ctx context.Context, c *pgx.Conn, shard string, tables []shardmap.TableName, x shardmap.Attempt) error {
	return ownOr(shard, pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		for _, n := range tables {
			name := n.SQL()
			if x.Name == "" {
				if _, err := tx.Exec(ctx, "INSERT INTO pgmosaic.made SELECT to_regclass($1), $2, $2 WHERE to_regclass($1) IS NOT NULL ON CONFLICT DO NOTHING", name, x.Takes); err != nil {
					return err
				}
			}
			if err := ours(ctx, tx, shard, n, x.Takes); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "UPDATE pgmosaic.made SET attempt = $2 WHERE relation = to_regclass($1)", name, x.ID); err != nil {
				return err
			}
		}
		return nil
	}))
}

// leave undoes takeAway.
func leave(ctx context.Context, c *pgx.Conn, shard, attempt string) error {
	_, err := c.Exec(ctx, "UPDATE pgmosaic.made SET attempt = distribution WHERE attempt = $1", attempt)
	return ownOr(shard, err)
}

// dropMade drops the copies that are noted under an attempt on a shard, and nothing else.
func dropMade(ctx context.Context, c *pgx.Conn, shard, attempt string) error {
	return ownOr(shard, pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error { return dropNoted(ctx, tx, attempt) }))
}

// dropNoted is dropMade in a transaction.
func dropNoted(ctx context.Context, tx pgx.Tx, attempt string) error {
	var noted bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass('pgmosaic.made') IS NOT NULL").Scan(&noted); err != nil || !noted {
		return err
	}
	list := func() ([]string, error) {
		return strings1(ctx, tx, "SELECT format('%I.%I', n.nspname, c.relname) FROM pgmosaic.made m JOIN pg_class c ON c.oid = m.relation JOIN pg_namespace n ON n.oid = c.relnamespace WHERE m.attempt = $1 ORDER BY 1", attempt)
	}
	names, err := list()
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if err := runBounded(ctx, tx, time.Minute, "LOCK TABLE "+strings.Join(names, ", ")+" IN ACCESS EXCLUSIVE MODE"); err != nil {
			return err
		}
		now, err := list() // one may have been renamed before it was locked
		if err != nil {
			return err
		}
		if strings.Join(now, ", ") != strings.Join(names, ", ") {
			return &pgsql.Error{Code: pgsql.ObjectInUse, Message: "a table was renamed while it was to be dropped", Hint: "Run the statement again."}
		}
		if err := runBounded(ctx, tx, time.Minute, "DROP TABLE "+strings.Join(names, ", ")); err != nil {
			return err
		}
	}
	_, err = tx.Exec(ctx, "DELETE FROM pgmosaic.made WHERE attempt = $1 OR NOT EXISTS (SELECT FROM pg_class WHERE oid = relation)", attempt)
	return err
}

// look refuses tables that are not home's alone, before anything is touched: such that another map distributes, and such whose name
// is taken on one of the shards that are to get a copy. What users have defined there must be what it is on home. ready are those of the
// shards that have what an attempt needs there: see start.
func (mv *Mover) look(ctx context.Context, d *shardmap.DB, home *pgx.Conn, tables []shardmap.TableName, shards []*shardmap.ShardInfo) (ready map[string]bool, err error) {
	ready = map[string]bool{}
	for _, n := range tables {
		name := n.SQL()
		taken, err := strings1(ctx, home, "SELECT conname FROM pg_constraint WHERE conrelid = to_regclass($1) AND conname = 'pgmosaic_slot'", name)
		if err == nil && len(taken) == 0 {
			taken, err = placedElsewhere(ctx, home, "SELECT attempt FROM pgmosaic.placed WHERE relation = to_regclass($1) AND at = 'shards'", name)
		}
		if err != nil {
			return nil, ownOr(d.Home.Name, err)
		}
		if len(taken) > 0 {
			return nil, &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("table %s is distributed already, by a process with another map", n), Hint: otherMap}
		}
		owner, err := ownerOf(ctx, home, name)
		if err == nil {
			err = inertTable(ctx, home, nil, n, owner)
		}
		if err != nil {
			return nil, ownOr(d.Home.Name, err)
		}
	}
	defined, err := objects(ctx, home)
	if err != nil {
		return nil, ownOr(d.Home.Name, err)
	}
	for _, s := range shards {
		if s == d.Home {
			continue
		}
		c, err := mv.openShard(ctx, d.Name, s)
		if err != nil {
			return nil, err
		}
		if err = vacant(ctx, c, s.Name, tables); err == nil {
			err = ownOr(s.Name, fits(ctx, home, defined, c, s.Name))
		}
		if err == nil {
			ready[s.Name], err = hasAll(ctx, c, s.Name)
		}
		giveBack(ctx, mv.Conns, c)
		if err != nil {
			return nil, err
		}
	}
	return ready, nil
}

// idle is an error while another process is at one of some tables: it may hold locks on them for as long as their rows travel.
func idle(ctx context.Context, home *pgx.Conn, node string, tables ...shardmap.TableName) error {
	var have bool
	if err := home.QueryRow(ctx, "SELECT to_regclass('pgmosaic.holder') IS NOT NULL").Scan(&have); err != nil || !have {
		return ownOr(node, err)
	}
	for _, n := range tables {
		at, err := placedElsewhere(ctx, home, "SELECT attempt FROM pgmosaic.placed WHERE relation = to_regclass($1) AND "+heldBy("attempt"), n.SQL())
		if err != nil {
			return ownOr(node, err)
		}
		if len(at) > 0 {
			return &pgsql.Error{Code: pgsql.ObjectInUse, Message: fmt.Sprintf("another process is at table %s", n), Hint: "Wait until it has ended: SHOW JOBS there. " + otherMap}
		}
	}
	return nil
}

// placedElsewhere runs a query over pgmosaic.placed, which an old installation may lack.
func placedElsewhere(ctx context.Context, home *pgx.Conn, sql string, args ...any) ([]string, error) {
	var have bool
	if err := home.QueryRow(ctx, "SELECT to_regclass('pgmosaic.placed') IS NOT NULL").Scan(&have); err != nil || !have {
		return nil, err
	}
	return strings1(ctx, home, sql, args...)
}

// vacant is an error if a shard has something of the name of one of these tables.
func vacant(ctx context.Context, c *pgx.Conn, shard string, tables []shardmap.TableName) error {
	for _, n := range tables {
		var there bool
		if err := c.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", n.SQL()).Scan(&there); err != nil {
			return ownOr(shard, err)
		}
		if there {
			return &pgsql.Error{
				Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("table %s exists on shard %q, and this statement has not made it", n, shard),
				Hint: "If another map distributes it, give this process that map: docs/operating/several.md. Else move its rows away and DROP it there.",
			}
		}
	}
	return nil
}

// declaredTable is what the map says of a table, word by word.
func (mv *Mover) declaredTable(db string, n shardmap.TableName) (t shardmap.Table, ok bool) {
	for _, t := range mv.Catalog.Current().Document.Tables {
		if t.Database == db && t.Schema == n.Schema && t.Name == n.Name {
			return *t, true
		}
	}
	return t, false
}
