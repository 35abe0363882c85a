package reshard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// A schema that lives on one shard: its tables' rows are there, and home keeps an empty copy of each table, which describes
// it. How it moves is how a table moves (see distribute.go); what decides is home's row in pgmosaic.placed.

// DistributeSchema has a schema of home live on one shard.
func (mv *Mover) DistributeSchema(ctx context.Context, t shardmap.Tenant, dry bool) (snap *shardmap.Snapshot, err error) {
	defer mv.Alone()()
	d, err := mv.settled(ctx, t.Database)
	if err != nil {
		return nil, err
	}
	to, ok := d.Shard(t.Shard)
	if !ok {
		return nil, NoShard(t.Shard, t.Database)
	}
	if t.Schema == "public" || strings.HasPrefix(t.Schema, "pg_") || t.Schema == "pgmosaic" || t.Schema == "information_schema" {
		return nil, &pgsql.Error{Code: pgsql.ReservedName, Message: fmt.Sprintf("schema %q cannot live on one shard", t.Schema), Hint: "Give each tenant a schema of its own."}
	}
	if d.Tenant(t.Schema) != nil {
		return nil, &pgsql.Error{Code: pgsql.DuplicateObject, Message: fmt.Sprintf("schema %q already lives on one shard", t.Schema), Hint: "UNDISTRIBUTE SCHEMA it first."}
	}
	home, err := mv.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return nil, err
	}
	defer giveBack(ctx, mv.Conns, home)
	tables, err := checkSchema(ctx, home, d, t)
	if err == nil && to != d.Home {
		err = mv.Homebound(ctx, d, tables)
	}
	if err != nil {
		return nil, err
	}
	look := func() (map[string]bool, error) { return mv.lookSchema(ctx, d, home, t.Schema, tables, to) }
	if dry {
		if _, err := look(); err != nil {
			return nil, err
		}
		return mv.Change(ctx, "DISTRIBUTE SCHEMA", true, d, func(tx *shardmap.Tx) error { return tx.PutTenant(t) })
	}
	j := mv.begin(d.Name, fmt.Sprintf("DISTRIBUTE SCHEMA %s", t.Schema))
	defer j.close(&err)
	ready, err := look()
	if err != nil {
		return nil, err
	}
	x := newAttempt(shardmap.Attempt{Database: d.Name, Statement: j.statement, Schema: t.Schema})
	t.Made = x.ID
	moving := t
	moving.Moving = true
	if err = mv.start(ctx, d, home, x, ready); err == nil {
		err = ownOr(d.Home.Name, beginPlacing(ctx, home, "schema", t.Schema, "schema "+t.Schema, x))
	}
	if err == nil {
		err = mv.announce(ctx, x, func(tx *shardmap.Tx) error { return tx.PutTenant(moving) }, func(tx *shardmap.Tx) error { return tx.Delete("tenants", t.Database, t.Schema) })
	}
	if err == nil {
		err = mv.moveSchema(ctx, d, to, home, tables, x)
	}
	if err != nil {
		_ = home.Close(context.WithoutCancel(ctx)) // which gives up the attempt
		return nil, errors.Join(err, mv.recoverLocked(context.WithoutCancel(ctx), d.Name))
	}
	if err = mv.end(ctx, x, func(tx *shardmap.Tx) error { return tx.PutTenant(t) }); err != nil {
		return nil, lastStep(x, err)
	}
	mv.SchemaChanged(ctx, d.Name)
	return mv.done("DISTRIBUTE SCHEMA"), nil
}

// lookSchema refuses a schema that another map has placed, and one of whose tables cannot be made on its shard. ready is that of look.
func (mv *Mover) lookSchema(ctx context.Context, d *shardmap.DB, home *pgx.Conn, schema string, tables []shardmap.TableName, to *shardmap.ShardInfo) (ready map[string]bool, err error) {
	taken, err := placedElsewhere(ctx, home, "SELECT schema FROM pgmosaic.placed WHERE schema = $1 AND at = 'shards'", schema)
	if err != nil {
		return nil, ownOr(d.Home.Name, err)
	}
	if len(taken) > 0 {
		return nil, &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("schema %q lives on one shard already, by a process with another map", schema), Hint: otherMap}
	}
	return mv.look(ctx, d, home, tables, []*shardmap.ShardInfo{to})
}

// checkSchema lists a schema's tables and finds out whether they can live on one shard.
func checkSchema(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Tenant) ([]shardmap.TableName, error) {
	var there bool
	if err := home.QueryRow(ctx, "select exists (select from pg_namespace where nspname = $1)", t.Schema).Scan(&there); err != nil {
		return nil, nodeFailed(d.Home.Name, err)
	}
	if !there {
		return nil, &pgsql.Error{Code: pgsql.InvalidSchemaName, Message: fmt.Sprintf("schema %q does not exist on the home shard of database %q", t.Schema, d.Name), Hint: "CREATE SCHEMA it through the database first."}
	}
	tables, err := schemaTables(ctx, home, t.Schema)
	if err != nil {
		return nil, nodeFailed(d.Home.Name, err)
	}
	for _, n := range tables {
		if d.Tables[n] != nil {
			return nil, &pgsql.Error{Code: pgsql.ObjectInUse, Message: fmt.Sprintf("table %s is distributed by itself", n), Hint: "UNDISTRIBUTE TABLE it first."}
		}
		if err := checkTable(ctx, home, d, shardmap.Table{Database: t.Database, Schema: n.Schema, Name: n.Name, Kind: kindTenant}, true); err != nil {
			return nil, err
		}
	}
	if t.Shard == d.Home.Name {
		return tables, nil
	}
	for _, n := range tables {
		if err := checkReplicated(ctx, home, d, n, "truncate"); err != nil {
			return nil, err
		}
	}
	return tables, checkSequences(ctx, home, d, t.Schema, tables)
}

// kindTenant marks a table of such a schema while it is checked; the map knows the schema, not the table.
const kindTenant shardmap.Kind = "tenant"

func schemaTables(ctx context.Context, q queryer, schema string) ([]shardmap.TableName, error) {
	names, err := strings1(ctx, q, "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relkind in ('r', 'p', 'f') order by 1", schema)
	var out []shardmap.TableName
	for _, n := range names {
		out = append(out, shardmap.TableName{Schema: schema, Name: n})
	}
	return out, err
}

// sameTables is an error if a schema has other tables than were found when its move began. Nobody who runs by the map makes one any more.
func sameTables(schema string, tables, now []shardmap.TableName) error {
	if slices.Equal(tables, now) {
		return nil
	}
	return &pgsql.Error{Code: pgsql.ObjectInUse, Message: fmt.Sprintf("tables of schema %q were made or dropped while it was about to move", schema), Hint: "Its rows are where they were. Run the statement again."}
}

// sanitizeAll lists tables as SQL does, each behind prefix.
func sanitizeAll(prefix string, tables []shardmap.TableName) string {
	var out []string
	for _, n := range tables {
		out = append(out, prefix+n.SQL())
	}
	return strings.Join(out, ", ")
}

// moveSchema copies the tables to their shard and empties them on home; home's commit decides.
func (mv *Mover) moveSchema(ctx context.Context, d *shardmap.DB, to *shardmap.ShardInfo, home *pgx.Conn, tables []shardmap.TableName, x shardmap.Attempt) error {
	release := func() {}
	defer func() { release() }()
	err := pgx.BeginFunc(ctx, home, func(tx pgx.Tx) (err error) {
		if err := mv.lockHome(ctx, tx, d, tables, "ACCESS EXCLUSIVE"); err != nil {
			return err
		}
		if to != d.Home {
			now, err := checkSchema(ctx, home, d, shardmap.Tenant{Database: d.Name, Schema: x.Schema, Shard: to.Name}) // again: until the lock their owner could give tables rules, heirs and references
			if err == nil {
				err = sameTables(x.Schema, tables, now)
			}
			if err != nil {
				return err
			}
			var seqs []ownSequence
			if err := shortly(ctx, mv, tx, d, func(ctx context.Context) (err error) { seqs, err = holdSequences(ctx, tx, x.Schema); return err }); err != nil {
				return err
			}
			if err := mv.fillSchema(ctx, d, to, tx, tables, schemaMove{x, seqs}); err != nil {
				return err
			}
			if release, err = mv.guard(ctx, d, []*shardmap.ShardInfo{to}, tables, x); err != nil {
				release = func() {}
				return err
			}
			if len(tables) > 0 {
				var after []string
				for _, n := range tables {
					more, err := disableTriggers(ctx, tx, n.SQL())
					if err != nil {
						return err
					}
					after = append(after, more...)
				}
				for _, s := range seqs {
					after = append(after, s.ended()...)
				}
				if err := run(ctx, tx, append([]string{"TRUNCATE " + sanitizeAll("ONLY ", tables)}, after...)); err != nil {
					return err
				}
			}
		}
		return decide(ctx, tx, x, "shards", "schema "+x.Schema)
	})
	return ownOr(d.Home.Name, err)
}

// ownOr leaves errors that are told already as they are.
func ownOr(name string, err error) error {
	var own *pgsql.Error
	if err == nil || errors.As(err, &own) || errors.Is(err, shardmap.ErrEnded) {
		return err
	}
	return nodeFailed(name, err)
}

// schemaMove is the attempt that moves a schema, and the schema's sequences.
type schemaMove struct {
	shardmap.Attempt
	sequences []ownSequence
}

func (mv *Mover) fillSchema(ctx context.Context, d *shardmap.DB, to *shardmap.ShardInfo, held pgx.Tx, tables []shardmap.TableName, x schemaMove) error {
	home := held.Conn()
	dst, err := mv.openFor(ctx, d, to, x.ID)
	if err != nil {
		return err
	}
	defer giveBack(ctx, mv.Conns, dst)
	return bring(ctx, home, dst, to.Name, "", func(tx pgx.Tx) error {
		if err := makeFirst(ctx, tx, x.sequences); err != nil {
			return err
		}
		var late []definition
		for _, n := range tables {
			keys, err := bringTable(ctx, home, tx, n, identities(x.sequences, n), false)
			if err != nil {
				return err
			}
			late = append(late, keys...)
			if err := noteCopy(ctx, tx, n, x.ID, x.ID); err != nil {
				return err
			}
			if err := fill(ctx, home, dst, n, "", nil); err != nil {
				return err
			}
		}
		if err := makeLast(ctx, tx, x.sequences); err != nil {
			return err
		}
		return finish(ctx, home, tx, late, false, tables...)
	})
}

// UndistributeSchema brings a schema back to home. Home's commit decides.
func (mv *Mover) UndistributeSchema(ctx context.Context, db, schema string, dry bool) (snap *shardmap.Snapshot, err error) {
	defer mv.Alone()()
	d, err := mv.settled(ctx, db)
	if err != nil {
		return nil, err
	}
	all := mv.Catalog.Current().Document.Tenants
	i := slices.IndexFunc(all, func(t *shardmap.Tenant) bool { return t.Database == db && t.Schema == schema })
	if i < 0 {
		return nil, &pgsql.Error{Code: pgsql.InvalidSchemaName, Message: fmt.Sprintf("schema %q of database %q does not live on one shard", schema, db), Hint: "SHOW TENANTS lists those that do."}
	}
	t := *all[i]
	home, err := mv.openShard(ctx, db, d.Home)
	if err != nil {
		return nil, err
	}
	defer giveBack(ctx, mv.Conns, home)
	if t.Made == "" && !dry {
		if t, err = mv.noteOlderSchema(ctx, d, home, t); err == nil {
			d, err = mv.Database(db)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := placedAs(ctx, home, d.Home.Name, "schema", schema, "schema "+schema, t.Made); err != nil && t.Made != "" {
		return nil, err
	}
	tables, err := schemaTables(ctx, home, schema)
	if err == nil {
		err = owned(ctx, home, tables...)
	}
	if err != nil {
		return nil, ownOr(d.Home.Name, err)
	}
	var from []*shardmap.ShardInfo
	if shard, ok := d.Shard(t.Shard); ok {
		from = append(from, shard)
	}
	ready, err := mv.droppable(ctx, d, from, tables)
	if err != nil {
		return nil, err
	}
	if dry {
		return mv.Change(ctx, "UNDISTRIBUTE SCHEMA", true, d, func(tx *shardmap.Tx) error { return tx.Delete("tenants", db, schema) })
	}
	j := mv.begin(d.Name, fmt.Sprintf("UNDISTRIBUTE SCHEMA %s", schema))
	defer j.close(&err)
	x := newAttempt(shardmap.Attempt{Database: db, Statement: j.statement, Schema: schema, Takes: t.Made})
	moving := t
	moving.Moving = true
	if err = mv.start(ctx, d, home, x, ready); err == nil {
		err = mv.takeHome(ctx, d, home, x, from, tables, func(tx *shardmap.Tx) error { return tx.PutTenant(moving) }, func(tx *shardmap.Tx) error { return tx.PutTenant(t) })
	}
	back := &held{}
	defer back.release(ctx)
	if err == nil {
		err = mv.schemaHome(ctx, d, home, t, tables, x, back)
	}
	if err != nil {
		back.release(ctx)
		_ = home.Close(context.WithoutCancel(ctx)) // which gives up the attempt
		return nil, errors.Join(err, mv.recoverLocked(context.WithoutCancel(ctx), d.Name))
	}
	if err = errors.Join(back.drop(ctx, x.ID, mv.Conns), mv.clear(ctx, d, d.Shards, home, x)); err != nil {
		return nil, lastStep(x, err)
	}
	mv.SchemaChanged(ctx, db)
	return mv.done("UNDISTRIBUTE SCHEMA"), nil
}

// noteOlderSchema is noteOlder for a schema that lives on one shard.
func (mv *Mover) noteOlderSchema(ctx context.Context, d *shardmap.DB, home *pgx.Conn, t shardmap.Tenant) (shardmap.Tenant, error) {
	if err := mv.noteful(ctx, d, d.Home); err != nil {
		return t, err
	}
	noted, err := strings1(ctx, home, "SELECT distribution FROM pgmosaic.placed WHERE schema = $1 AND at = 'shards' AND attempt = distribution", t.Schema) // by one that has failed since
	if err != nil {
		return t, ownOr(d.Home.Name, err)
	}
	t.Made = cmp.Or(strings.Join(noted, ""), newID())
	if _, err := home.Exec(ctx, "UPDATE pgmosaic.placed SET distribution = $2, attempt = $2 WHERE schema = $1 AND distribution = ''", t.Schema, t.Made); err != nil {
		return t, ownOr(d.Home.Name, err)
	}
	return t, mv.Catalog.Retry(ctx, func(tx *shardmap.Tx) error { return errors.Join(tx.Unchanged(d), tx.PutTenant(t)) })
}

func (mv *Mover) schemaHome(ctx context.Context, d *shardmap.DB, home *pgx.Conn, t shardmap.Tenant, tables []shardmap.TableName, x shardmap.Attempt, back *held) error {
	err := pgx.BeginFunc(ctx, home, func(tx pgx.Tx) error {
		if err := decide(ctx, tx, x, "home", "schema "+t.Schema); err != nil {
			return err
		}
		shard, ok := d.Shard(t.Shard)
		if !ok || shard == d.Home {
			return nil
		}
		src, err := mv.holdBack(ctx, d, shard, tables, x, back)
		if err == nil {
			err = mv.lockHome(ctx, tx, d, tables, "ACCESS EXCLUSIVE")
		}
		var now []shardmap.TableName
		if err == nil {
			now, err = schemaTables(ctx, home, t.Schema)
		}
		if err == nil {
			err = sameTables(t.Schema, tables, now)
		}
		if err != nil {
			return err
		}
		// before the rows: a CHECK may draw, and home's are at their end
		if err := shortly(ctx, mv, tx, d, func(ctx context.Context) error { return takeSequences(ctx, tx, back.txs[len(back.txs)-1], t.Schema) }); err != nil {
			return err
		}
		was, err := meanings(ctx, tx, tables...)
		if err != nil {
			return err
		}
		drop, add, err := foreignKeysOf(ctx, home, tables)
		if err != nil {
			return err
		}
		if err := run(ctx, tx, drop); err != nil {
			return err
		}
		for _, n := range tables {
			restore, err := unmet(ctx, tx, n.SQL())
			if err != nil {
				return err
			}
			add = append(add, restore...)
			after, err := disableTriggers(ctx, tx, n.SQL())
			if err != nil {
				return err
			}
			if err := fill(ctx, src, tx.Conn(), n, "", nil); err != nil {
				return err
			}
			for _, sql := range after {
				add = append(add, definition{sql: sql})
			}
		}
		return redefine(ctx, tx, add, was)
	})
	return ownOr(d.Home.Name, err)
}

// foreignKeysOf are the foreign keys of a schema's tables, and what drops them: rows may come before those that they refer to.
func foreignKeysOf(ctx context.Context, home *pgx.Conn, tables []shardmap.TableName) (drop []string, add []definition, err error) {
	for _, n := range tables {
		keys, err := foreignKeys(ctx, home, n.SQL())
		if err != nil {
			return nil, nil, err
		}
		for _, k := range keys {
			drop, add = append(drop, "ALTER TABLE "+k.Table+" DROP CONSTRAINT "+k.Name), append(add, definition{key: &k})
		}
	}
	return drop, add, nil
}
