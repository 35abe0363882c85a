package reshard

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// ErrRenaming means that a transaction which renames a table is still under way, or in doubt.
var ErrRenaming = errors.New("a transaction is renaming a table")

// Renames finds out what became of the tables of a database that transactions were renaming: home knows each by its OID. The
// map then has one name for each; the notes on the shards know them by their OIDs. Tables that are being renamed still are
// left as they are, with ErrRenaming. Any goroutine may call it.
func (mv *Mover) Renames(ctx context.Context, db string) error {
	done, err := mv.oneRename(ctx, db)
	if err != nil {
		return err
	}
	defer done()
	snap := mv.Catalog.Current()
	d := snap.Databases[db]
	var pending []shardmap.Table
	for _, t := range snap.Document.Tables {
		if t.Database == db && t.Renaming != nil {
			pending = append(pending, *t)
		}
	}
	if d == nil || len(pending) == 0 {
		return nil
	}
	home, err := mv.openShard(ctx, db, d.Home)
	if err != nil {
		return err
	}
	defer giveBack(ctx, mv.Conns, home)
	var errs error
	was, is := []shardmap.Table{}, []*shardmap.Table{}
	for _, t := range pending {
		now, err := renamedOn(ctx, home, t)
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		was, is = append(was, t), append(is, now)
	}
	err = mv.Catalog.Retry(ctx, func(tx *shardmap.Tx) error {
		have, err := tx.Tables(db)
		if err != nil {
			return err
		}
		var names []shardmap.Table
		for i, t := range was {
			for _, h := range have {
				if !reflect.DeepEqual(h, t) { // another transaction renames it by now
					continue
				}
				if err := tx.Delete("tables", db, t.Schema, t.Name); err != nil {
					return err
				}
				if is[i] != nil {
					names = append(names, *is[i])
				}
			}
		}
		for _, t := range names { // when all old ones are gone: tables may change names with one another
			if err := tx.PutTable(t); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		mv.noteNames(was, is)
	}
	return errors.Join(errs, err)
}

// oneRename waits for its turn: of two that settle the names of a database at once, one would ask home in vain.
func (mv *Mover) oneRename(ctx context.Context, db string) (done func(), err error) {
	got, _ := mv.renaming.LoadOrStore(db, make(chan struct{}, 1))
	turn := got.(chan struct{})
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// noteNames logs what became of tables; nothing of those that are what they were.
func (mv *Mover) noteNames(was []shardmap.Table, is []*shardmap.Table) {
	for i, t := range was {
		name := t.TableName()
		switch now := is[i]; {
		case now == nil:
			mv.Log.Info("map changed: a table was dropped", "database", t.Database, "table", name)
		case now.TableName() != name || !slices.Equal(now.Key, t.Key):
			mv.Log.Info("map changed: a table or its key was renamed", "database", t.Database, "table", name, "now", now.TableName(), "key", strings.Join(now.Key, ", "))
		}
	}
}

const renamedSQL = `select n.nspname, c.relname, array(select a.attname::text from unnest($2::int2[]) with ordinality k(n, o) join pg_attribute a on a.attrelid = c.oid and a.attnum = k.n order by k.o)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = $1`

// renamedOn is what home calls a table now; nil if it has dropped it.
func renamedOn(ctx context.Context, home *pgx.Conn, t shardmap.Table) (now *shardmap.Table, err error) {
	for range 5 {
		out := t
		out.Renaming = nil
		read := func(q interface {
			QueryRow(context.Context, string, ...any) pgx.Row
		}, into *shardmap.Table,
		) error {
			return q.QueryRow(ctx, renamedSQL, t.Renaming.OID, t.Renaming.Columns).Scan(&into.Schema, &into.Name, &into.Key)
		}
		err = read(home, &out)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		same := out
		err = pgx.BeginFunc(ctx, home, func(tx pgx.Tx) error { // whoever renames holds a lock until it is decided
			if _, err := tx.Exec(ctx, "LOCK TABLE ONLY "+out.TableName().SQL()+" IN ACCESS SHARE MODE NOWAIT"); err != nil {
				return err
			}
			return read(tx, &same)
		})
		var pe *pgconn.PgError
		switch {
		case errors.As(err, &pe) && pe.Code == pgsql.LockNotAvailable:
			return nil, ErrRenaming
		case err == nil && reflect.DeepEqual(same, out):
			if t.Kind == shardmap.Reference {
				out.Key = t.Key
			}
			return &out, nil
		case err != nil && !errors.Is(err, pgx.ErrNoRows) && (pe == nil || pe.Code != pgsql.UndefinedTable && pe.Code != pgsql.InvalidSchemaName):
			return nil, err
		}
	}
	return nil, ErrRenaming
}

// RunRenames finishes what the ends of transactions and other processes have left, until ctx ends.
func (mv *Mover) RunRenames(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			for _, d := range mv.Catalog.Current().SortedDatabases() {
				if err := mv.renamesWithin(ctx, d.Name); err != nil && !errors.Is(err, ErrRenaming) && ctx.Err() == nil {
					mv.Log.Warn("a renamed table is declared under both names still", "database", d.Name, "error", err)
				}
			}
		}
	}
}

// renameTimeout bounds a look at one database's home: one that is frozen holds up no other database.
const renameTimeout = 10 * time.Second

func (mv *Mover) renamesWithin(ctx context.Context, db string) error {
	ctx, cancel := context.WithTimeout(ctx, renameTimeout)
	defer cancel()
	return mv.Renames(ctx, db)
}

// renamesSettled is an error while a table of a database is being renamed.
func (mv *Mover) renamesSettled(ctx context.Context, db string) error {
	err := mv.Renames(ctx, db)
	if errors.Is(err, ErrRenaming) {
		return &pgsql.Error{Code: pgsql.ObjectInUse, Message: fmt.Sprintf("a transaction is renaming a table of database %q", db), Hint: "Try again when it has ended: SHOW CLIENTS shows who is in a transaction."}
	}
	return err
}
