package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// A schema that lives on one shard: its tables' rows are there, and home keeps an empty copy of each table, which describes
// it. How it moves is how a table moves (see distribute.go); what decides is home's row in pgmosaic.tenant.

func (p *parser) schemaRef() (db, schema string) {
	db = p.name("database")
	p.mustPunct(".")
	return db, p.name("schema")
}

func (a *Admin) parseDistributeSchema(p *parser) action {
	db, schema := p.schemaRef()
	p.must("on")
	t := shardmap.Tenant{Database: db, Schema: schema, Shard: p.name("shard")}
	dry := p.dryRun()
	return func(ctx context.Context) (*Result, error) { return a.distributeSchema(ctx, t, dry) }
}

// tenants are the schemas that live on one shard, by name.
func tenants(d *shardmap.DB) []*shardmap.GroupInfo {
	out := d.Tenants()
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

func (a *Admin) distributeSchema(ctx context.Context, t shardmap.Tenant, dry bool) (*Result, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	d, err := a.settled(ctx, t.Database)
	if err != nil {
		return nil, err
	}
	to, ok := d.Shard(t.Shard)
	if !ok {
		return nil, noShard(t.Shard, t.Database)
	}
	if t.Schema == "public" || strings.HasPrefix(t.Schema, "pg_") || t.Schema == "pgmosaic" || t.Schema == "information_schema" {
		return nil, &Error{Code: "42939", Message: fmt.Sprintf("schema %q cannot live on one shard", t.Schema), Hint: "Give each tenant a schema of its own."}
	}
	if d.Tenant(t.Schema) != nil {
		return nil, &Error{Code: "42710", Message: fmt.Sprintf("schema %q already lives on one shard", t.Schema), Hint: "UNDISTRIBUTE SCHEMA it first."}
	}
	home, err := a.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return nil, err
	}
	defer home.Close(context.WithoutCancel(ctx)) // the transaction has ended
	tables, err := checkSchema(ctx, home, d, t)
	if err != nil {
		return nil, err
	}
	if dry {
		return a.change(ctx, "DISTRIBUTE SCHEMA", true, func(tx *shardmap.Tx) error { return tx.PutTenant(t) })
	}
	moving := t
	moving.Moving = true
	if err := a.announce(ctx, d.Name, func(tx *shardmap.Tx) error { return tx.PutTenant(moving) }); err != nil {
		return nil, err
	}
	if err := a.moveSchema(ctx, d, to, home, t.Schema, tables); err != nil {
		return nil, errors.Join(err, a.recoverLocked(context.WithoutCancel(ctx), d.Name))
	}
	res, err := a.change(ctx, "DISTRIBUTE SCHEMA", false, func(tx *shardmap.Tx) error { return tx.PutTenant(t) })
	a.SchemaChanged(ctx, d.Name)
	return res, err
}

// checkSchema lists a schema's tables and finds out whether they can live on one shard.
func checkSchema(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Tenant) ([]shardmap.TableName, error) {
	var there bool
	if err := home.QueryRow(ctx, "select exists (select from pg_namespace where nspname = $1)", t.Schema).Scan(&there); err != nil {
		return nil, nodeFailed(d.Home.Name, err)
	}
	if !there {
		return nil, &Error{Code: "3F000", Message: fmt.Sprintf("schema %q does not exist on the home shard of database %q", t.Schema, d.Name), Hint: "CREATE SCHEMA it through the database first."}
	}
	tables, err := schemaTables(ctx, home, t.Schema)
	if err != nil {
		return nil, nodeFailed(d.Home.Name, err)
	}
	for _, n := range tables {
		if d.Tables[n] != nil {
			return nil, &Error{Code: "55006", Message: fmt.Sprintf("table %s is distributed by itself", n), Hint: "UNDISTRIBUTE TABLE it first."}
		}
		if err := checkTable(ctx, home, d, shardmap.Table{Database: t.Database, Schema: n.Schema, Name: n.Name, Kind: kindTenant}, true); err != nil {
			return nil, err
		}
	}
	return tables, nil
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

// sanitizeAll lists tables as SQL does, each behind prefix.
func sanitizeAll(prefix string, tables []shardmap.TableName) string {
	var out []string
	for _, n := range tables {
		out = append(out, prefix+n.SQL())
	}
	return strings.Join(out, ", ")
}

// moveSchema copies the tables to their shard and empties them on home; home's commit decides.
func (a *Admin) moveSchema(ctx context.Context, d *shardmap.DB, to *shardmap.ShardInfo, home *pgx.Conn, schema string, tables []shardmap.TableName) error {
	for _, s := range []*shardmap.ShardInfo{d.Home, to} { // pgmosaic.tenant is younger than some installations
		n, err := a.primaryOf(d.Name, s)
		if err != nil {
			return err
		}
		if err := a.prepareShard(ctx, n, d.Name, s.Name, s.Ordinal, true); err != nil {
			return err
		}
	}
	err := pgx.BeginFunc(ctx, home, func(tx pgx.Tx) error {
		if len(tables) > 0 {
			if _, err := tx.Exec(ctx, "LOCK TABLE "+sanitizeAll("", tables)+" IN ACCESS EXCLUSIVE MODE"); err != nil {
				return err
			}
		}
		if to != d.Home {
			if err := a.fillSchema(ctx, d, to, home, tables); err != nil {
				return err
			}
			if len(tables) > 0 {
				if _, err := tx.Exec(ctx, "TRUNCATE "+sanitizeAll("ONLY ", tables)); err != nil {
					return err
				}
			}
		}
		_, err := tx.Exec(ctx, "INSERT INTO pgmosaic.tenant VALUES ($1) ON CONFLICT DO NOTHING", schema)
		return err
	})
	return ownOr(d.Home.Name, err)
}

// ownOr leaves errors that are told already as they are.
func ownOr(name string, err error) error {
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	return nodeFailed(name, err)
}

func (a *Admin) fillSchema(ctx context.Context, d *shardmap.DB, to *shardmap.ShardInfo, home *pgx.Conn, tables []shardmap.TableName) error {
	dst, err := a.openShard(ctx, d.Name, to)
	if err != nil {
		return err
	}
	defer dst.Close(context.WithoutCancel(ctx)) // the transaction has ended
	return bring(ctx, home, dst, to.Name, func(tx pgx.Tx) error {
		var late []string
		for _, n := range tables {
			keys, err := bringTable(ctx, home, tx, n, nil)
			if err != nil {
				return err
			}
			late = append(late, keys...)
			if _, err := copyRows(ctx, home, dst, n, "", nil); err != nil {
				return err
			}
		}
		return run(ctx, tx, late)
	})
}

// recoverTenant finishes or undoes a move that was cut short.
func (a *Admin) recoverTenant(ctx context.Context, d *shardmap.DB, t shardmap.Tenant) error {
	home, err := a.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return err
	}
	defer home.Close(context.WithoutCancel(ctx)) // only read
	var decided bool
	if err := home.QueryRow(ctx, "select to_regclass('pgmosaic.tenant') is not null").Scan(&decided); err == nil && decided {
		err = home.QueryRow(ctx, "select exists (select from pgmosaic.tenant where schema = $1)", t.Schema).Scan(&decided)
		if err != nil {
			return nodeFailed(d.Home.Name, err)
		}
	} else if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	if decided { // distributing: home has decided. Undistributing: it has not.
		t.Moving = false
		_, err := a.Catalog.Change(ctx, false, func(tx *shardmap.Tx) error { return tx.PutTenant(t) })
		a.Log.Warn("an interrupted DISTRIBUTE or UNDISTRIBUTE was settled: the schema lives on its shard", "schema", t.Schema, "shard", t.Shard)
		return err
	}
	if err := a.dropSchemaOn(ctx, d, home, t); err != nil {
		return err
	}
	_, err = a.Catalog.Change(ctx, false, func(tx *shardmap.Tx) error { return tx.Delete("tenants", t.Database, t.Schema) })
	a.Log.Warn("an interrupted DISTRIBUTE or UNDISTRIBUTE was settled: the schema is on home", "schema", t.Schema)
	return err
}

// dropSchemaOn drops, on the shard, the tables that home has in the schema.
func (a *Admin) dropSchemaOn(ctx context.Context, d *shardmap.DB, home *pgx.Conn, t shardmap.Tenant) error {
	shard, ok := d.Shard(t.Shard)
	if !ok || shard == d.Home {
		return nil
	}
	tables, err := schemaTables(ctx, home, t.Schema)
	if err != nil || len(tables) == 0 {
		return ownOr(d.Home.Name, err)
	}
	c, err := a.openShard(ctx, d.Name, shard)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx)) // nothing is left on it
	_, err = c.Exec(ctx, "DROP TABLE IF EXISTS "+sanitizeAll("", tables))
	return ownOr(shard.Name, err)
}

// undistributeSchema brings a schema back to home. Home's commit, which forgets the schema, decides.
func (a *Admin) undistributeSchema(ctx context.Context, db, schema string, dry bool) (*Result, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	d, err := a.settled(ctx, db)
	if err != nil {
		return nil, err
	}
	all := a.Catalog.Current().Document.Tenants
	i := slices.IndexFunc(all, func(t *shardmap.Tenant) bool { return t.Database == db && t.Schema == schema })
	if i < 0 {
		return nil, &Error{Code: "3F000", Message: fmt.Sprintf("schema %q of database %q does not live on one shard", schema, db), Hint: "SHOW TENANTS lists those that do."}
	}
	t := *all[i]
	remove := func(tx *shardmap.Tx) error { return tx.Delete("tenants", db, schema) }
	if dry {
		return a.change(ctx, "UNDISTRIBUTE SCHEMA", true, remove)
	}
	moving := t
	moving.Moving = true
	if err := a.announce(ctx, db, func(tx *shardmap.Tx) error { return tx.PutTenant(moving) }); err != nil {
		return nil, err
	}
	home, err := a.openShard(ctx, db, d.Home)
	if err != nil {
		return nil, err
	}
	defer home.Close(context.WithoutCancel(ctx)) // the transaction has ended
	if err := a.schemaHome(ctx, d, home, t); err != nil {
		return nil, errors.Join(err, a.recoverLocked(context.WithoutCancel(ctx), d.Name))
	}
	if err := a.dropSchemaOn(ctx, d, home, t); err != nil {
		return nil, err // the next change, or start, goes on from here
	}
	res, err := a.change(ctx, "UNDISTRIBUTE SCHEMA", false, remove)
	a.SchemaChanged(ctx, db)
	return res, err
}

func (a *Admin) schemaHome(ctx context.Context, d *shardmap.DB, home *pgx.Conn, t shardmap.Tenant) error {
	err := pgx.BeginFunc(ctx, home, func(tx pgx.Tx) error {
		if shard, ok := d.Shard(t.Shard); ok && shard != d.Home {
			src, err := a.openShard(ctx, d.Name, shard)
			if err != nil {
				return err
			}
			defer src.Close(context.WithoutCancel(ctx)) // only read
			tables, err := schemaTables(ctx, tx, t.Schema)
			if err != nil {
				return err
			}
			drop, add, err := foreignKeysOf(ctx, tx, t.Schema)
			if err != nil {
				return err
			}
			if err := run(ctx, tx, drop); err != nil {
				return err
			}
			for _, n := range tables {
				after, err := quiet(ctx, tx, n.SQL())
				if err != nil {
					return err
				}
				if _, err := copyRows(ctx, src, tx.Conn(), n, "", nil); err != nil {
					return err
				}
				add = append(add, after...)
			}
			if err := run(ctx, tx, add); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "DELETE FROM pgmosaic.tenant WHERE schema = $1", t.Schema)
		return err
	})
	return ownOr(d.Home.Name, err)
}

// foreignKeysOf writes what drops and makes the foreign keys of a schema's tables: rows may come before those that they
// refer to.
func foreignKeysOf(ctx context.Context, tx pgx.Tx, schema string) (drop, add []string, err error) {
	rows, _ := tx.Query(ctx, `select format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, r.relname, c.conname), format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s', n.nspname, r.relname, c.conname, pg_get_constraintdef(c.oid))
	  from pg_constraint c join pg_class r on r.oid = c.conrelid join pg_namespace n on n.oid = r.relnamespace where c.contype = 'f' and n.nspname = $1`, schema)
	var d, a string
	_, err = pgx.ForEachRow(rows, []any{&d, &a}, func() error {
		drop, add = append(drop, d), append(add, a)
		return nil
	})
	return drop, add, err
}
