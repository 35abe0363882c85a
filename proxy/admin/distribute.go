package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// How a table moves: the map first says that it is moving, which holds statements off. Rows are copied to
// the other shards and committed there; they do not count yet. Then one transaction on home deletes what has
// moved and adds the CHECK that home's rows belong there. That commit decides: Recover looks for the CHECK
// and finishes, or undoes. At last the map says that the table is distributed.

func (a *Admin) parseDistribute(p *parser) action {
	db, sch, tbl := p.tableRef()
	t := shardmap.Table{Database: db, Schema: sch, Name: tbl, Kind: shardmap.Reference}
	local := false
	if p.words("as", "reference") {
		dry := p.dryRun()
		return func(ctx context.Context) (*Result, error) { return a.distribute(ctx, t, false, dry) }
	}
	p.must("in", "group")
	t.Kind, t.Group = shardmap.Sharded, p.name("group")
	p.must("key")
	p.mustPunct("(")
	t.Key = []string{p.name("column")}
	for p.punct(",") {
		t.Key = append(t.Key, p.name("column"))
	}
	p.mustPunct(")")
	if p.words("allow", "local", "unique") {
		local = true
	}
	dry := p.dryRun()
	return func(ctx context.Context) (*Result, error) { return a.distribute(ctx, t, local, dry) }
}

func (a *Admin) distribute(ctx context.Context, t shardmap.Table, localUnique, dry bool) (res *Result, err error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	d, err := a.settled(ctx, t.Database)
	if err != nil {
		return nil, err
	}
	if d.Home == nil {
		return nil, &Error{Code: "55000", Message: fmt.Sprintf("database %q has no shard", d.Name), Hint: "CREATE SHARD first."}
	}
	if cur := d.Table(t.TableName()); cur != nil {
		return nil, &Error{Code: "42710", Message: fmt.Sprintf("table %s is already distributed", t.TableName()), Hint: "UNDISTRIBUTE TABLE it first."}
	}
	home, err := a.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return nil, err
	}
	defer home.Close(context.WithoutCancel(ctx)) // the transaction has ended
	if err := checkTable(ctx, home, d, t, localUnique); err != nil {
		return nil, err
	}
	if dry {
		return a.change(ctx, "DISTRIBUTE TABLE", true, func(tx *shardmap.Tx) error { return tx.PutTable(t) })
	}
	j := a.begin(d.Name, fmt.Sprintf("DISTRIBUTE TABLE %s", t.TableName()))
	defer j.close(&err)
	o, err := a.newOnline(ctx, d, home, t, j)
	if err != nil {
		return nil, nodeFailed(d.Home.Name, err)
	}
	if o != nil {
		defer func() {
			if err == nil {
				return
			}
			if failed := o.undo(ctx); failed != nil {
				err = errors.Join(err, failed)
			}
		}()
		if err := o.watch(ctx, home); err != nil {
			return nil, nodeFailed(d.Home.Name, err)
		}
		if err := o.copyAll(ctx, home); err != nil {
			return nil, err
		}
		if err := o.catchUp(ctx, home); err != nil {
			return nil, err
		}
	}
	moving := t
	moving.Moving, moving.From = true, shardmap.Home
	for try := 1; ; try++ { // transactions that run for long hold the switch back: the copies need not be made anew
		if err = a.announce(ctx, d.Name, func(tx *shardmap.Tx) error { return tx.PutTable(moving) }); err == nil {
			break
		}
		if o == nil || try == maxSwitches {
			return nil, err
		}
		if err := o.catchUp(ctx, home); err != nil {
			return nil, err
		}
	}
	if err := a.move(ctx, d.Name, home, moving, o, j); err != nil {
		return nil, errors.Join(err, a.recoverLocked(context.WithoutCancel(ctx), d.Name))
	}
	res, err = a.change(ctx, "DISTRIBUTE TABLE", false, func(tx *shardmap.Tx) error { return tx.PutTable(t) })
	a.SchemaChanged(ctx, d.Name)
	return res, err
}

// announce tells the map that tables are moving, while no transaction runs that was planned without that.
func (a *Admin) announce(ctx context.Context, db string, edit func(*shardmap.Tx) error) error {
	pctx, cancel := context.WithTimeout(ctx, a.PauseTimeout)
	defer cancel()
	if err := a.Pools.Pause(pctx, db, ""); err != nil {
		return &Error{Code: "55006", Message: err.Error(), Hint: "Wait for them or end them: SHOW CLIENTS shows who is in a transaction."}
	}
	defer a.Pools.Resume(db, "")
	_, err := a.Catalog.Change(ctx, false, edit)
	return err
}

const checkSQL = `select c.relkind::text, c.relpersistence::text, c.relispartition or exists (select from pg_inherits where inhrelid = c.oid or inhparent = c.oid and c.relkind <> 'p'),
   exists (select from pg_rewrite where ev_class = c.oid), exists (select from pg_partition_tree(c.oid) t join pg_class p on p.oid = t.relid where p.relkind not in ('r', 'p') or p.relpersistence <> 'p')
  from pg_class c where c.oid = to_regclass($1)`

// checkTable finds out whether a table can be distributed as asked, before anything is touched.
func checkTable(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table, localUnique bool) error {
	name := t.TableName().SQL()
	label := t.TableName().String()
	var kind, persistence string
	var inherits, rules, odd bool
	err := home.QueryRow(ctx, checkSQL, name).Scan(&kind, &persistence, &inherits, &rules, &odd)
	if errors.Is(err, pgx.ErrNoRows) {
		return &Error{Code: "42P01", Message: fmt.Sprintf("table %s does not exist on the home shard of database %q", label, d.Name), Hint: "CREATE TABLE it through the database first."}
	}
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	refuse := func(what, hint string) error {
		return &Error{Code: "0A000", Message: fmt.Sprintf("table %s cannot be distributed: %s", label, what), Hint: hint}
	}
	switch {
	case kind == "p" && t.Kind == kindTenant:
		return refuse("it is partitioned, and its schema is to live on one shard", "Distribute the table by itself.")
	case kind != "r" && kind != "p":
		return refuse("it is not an ordinary table", "Distribute the tables that hold the rows.")
	case odd:
		return refuse("one of its partitions is a foreign, unlogged or temporary table", "Detach that partition first.")
	case persistence != "p":
		return refuse("it is temporary or unlogged", "ALTER TABLE ... SET LOGGED first.")
	case inherits:
		return refuse("it is a partition, or inherits", "Distribute the partitioned table as a whole.")
	case rules:
		return refuse("it has rules", "Remove them first.")
	}
	if err := checkDrawn(ctx, home, d, t); err != nil {
		return err
	}
	if t.Kind == shardmap.Sharded {
		if err := checkKey(ctx, home, d, t, localUnique); err != nil {
			return err
		}
	}
	return checkForeignKeys(ctx, home, d, t)
}

// checkKey finds out whether the key columns can decide the shard of a table's rows.
func checkKey(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table, localUnique bool) error {
	name := t.TableName().SQL()
	label := t.TableName().String()
	g, err := groupOf(d, t.Group)
	if err != nil {
		return err
	}
	if len(t.Key) != len(g.Keys) {
		return &Error{Code: "42804", Message: fmt.Sprintf("the key of group %q has %d columns (%s), %d were named", g.Name, len(g.Keys), g.TypeList(), len(t.Key)), Hint: "Name as many, in the group's order."}
	}
	for i, key := range t.Key {
		if slices.Contains(t.Key[:i], key) {
			return &Error{Code: "42701", Message: fmt.Sprintf("column %q stands twice in the key", key)}
		}
		if err := checkKeyColumn(ctx, home, d, t, key, g.Keys[i]); err != nil {
			return err
		}
	}
	if localUnique {
		return nil
	}
	bad, err := strings1(ctx, home, `select i.indexrelid::regclass::text from pg_index i where (i.indrelid = $1::text::regclass or i.indrelid in (select relid from pg_partition_tree($1::text::regclass))) and (i.indisunique or i.indisexclusion)
	   and not $2::text[] <@ array(select a.attname::text from unnest(i.indkey) with ordinality k(n, o) join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.n where k.o <= i.indnkeyatts)`, name, t.Key)
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	if len(bad) > 0 {
		return &Error{
			Code: "0A000", Message: fmt.Sprintf("unique index %s of table %s does not contain key column %q: no shard could enforce it", bad[0], label, strings.Join(t.Key, ", ")),
			Hint: "Add the key to it, or say ALLOW LOCAL UNIQUE to have it enforced on each shard only.",
		}
	}
	return nil
}

func checkKeyColumn(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table, key string, want pghash.Type) error {
	name := t.TableName().SQL()
	label := t.TableName().String()
	var oid uint32
	var typeName string
	var deterministic bool
	err := home.QueryRow(ctx, "select a.atttypid, format_type(a.atttypid, a.atttypmod), coalesce(c.collisdeterministic, true) from pg_attribute a left join pg_collation c on c.oid = a.attcollation "+
		"where a.attrelid = $1::text::regclass and a.attname = $2 and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''", name, key).Scan(&oid, &typeName, &deterministic)
	if errors.Is(err, pgx.ErrNoRows) {
		return &Error{Code: "42703", Message: fmt.Sprintf("column %q of table %s does not exist", key, label), Hint: "KEY names the column whose value decides the shard; it cannot be a generated column."}
	}
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	if kt, ok := pghash.TypeByOID(oid); !ok || !sameKey(kt, want) {
		return &Error{
			Code: "42804", Message: fmt.Sprintf("key column %q of table %s has type %s, group %q has keys of type %s", key, label, typeName, t.Group, d.Groups[t.Group].TypeList()),
			Hint: "Equal keys must be placed alike: create a group with KEY (" + typeName + ").",
		}
	}
	if !deterministic {
		return &Error{Code: "0A000", Message: fmt.Sprintf("key column %q has a nondeterministic collation", key), Hint: "Use a deterministic collation: equal keys must be equal bytes."}
	}
	var nulls bool
	if err := home.QueryRow(ctx, fmt.Sprintf("select exists (select from %s where %s is null)", name, pgsql.Ident(key))).Scan(&nulls); err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	if nulls {
		return &Error{Code: "23502", Message: fmt.Sprintf("key column %q of table %s holds NULL: such a row has no shard", key, label), Hint: "Give these rows a key, or delete them."}
	}
	return checkPlaces(ctx, home, d, t)
}

// checkPlaces finds rows whose key no list of the group names.
func checkPlaces(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table) error {
	g := d.Groups[t.Group]
	if g.Scheme != shardmap.ByList {
		return nil
	}
	info := &shardmap.TableInfo{TableName: t.TableName(), Kind: t.Kind, Keys: t.Key, Group: g}
	var places []string
	for _, s := range d.Shards {
		places = append(places, placeWhere(info, s.Name))
	}
	var value string
	err := home.QueryRow(ctx, fmt.Sprintf("select %s::text from %s where not (%s) limit 1", pgsql.Ident(t.Key[0]), t.TableName().SQL(), strings.Join(places, " OR "))).Scan(&value)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	return &Error{
		Code: "23514", Message: fmt.Sprintf("table %s holds rows with the key %q, which no list of group %q names", t.TableName(), value, g.Name),
		Hint: "ALTER GROUP ... ADD VALUES, or give the group a DEFAULT.",
	}
}

func sameKey(a, b pghash.Type) bool {
	text := func(t pghash.Type) bool { return t == pghash.TypeText || t == pghash.TypeVarchar }
	return a == b || a.IsInteger() && b.IsInteger() || text(a) && text(b)
}

// checkForeignKeys allows sharded to co-located sharded on the key, sharded to reference and reference to
// reference.
func checkForeignKeys(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table) error {
	name := t.TableName().SQL()
	rows, _ := home.Query(ctx, `select c.conname, c.conrelid = $1::text::regclass, n.nspname, r.relname,
	    array(select a1.attname || ' ' || a2.attname from unnest(c.conkey, c.confkey) k(x, y)
	       join pg_attribute a1 on a1.attrelid = c.conrelid and a1.attnum = k.x join pg_attribute a2 on a2.attrelid = c.confrelid and a2.attnum = k.y)
	  from pg_constraint c join pg_class r on r.oid = case when c.conrelid = $1::text::regclass then c.confrelid else c.conrelid end join pg_namespace n on n.oid = r.relnamespace
	 where c.contype = 'f' and (c.conrelid = $1::text::regclass or c.confrelid = $1::text::regclass)`, name)
	type fk struct {
		name, schema, table string
		outgoing            bool
		columns             []string // pairs: of the table that has the key, of the one that it refers to
	}
	var f fk
	var list []fk
	_, err := pgx.ForEachRow(rows, []any{&f.name, &f.outgoing, &f.schema, &f.table, &f.columns}, func() error { list = append(list, f); f.columns = nil; return nil })
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	for _, f := range list {
		other := shardmap.TableName{Schema: f.schema, Name: f.table}
		if t.Kind == kindTenant && other.Schema == t.Schema {
			continue
		}
		if other.Schema == t.Schema && other.Name == t.Name {
			if t.Kind == shardmap.Reference || onKey(f.columns, t.Key, t.Key) {
				continue
			}
		}
		info := d.Table(other)
		kind := shardmap.Home
		if info != nil {
			kind = info.Kind
		}
		switch {
		case f.outgoing && kind == shardmap.Reference:
			continue
		case f.outgoing && t.Kind == shardmap.Sharded && kind == shardmap.Sharded && info.Group.Name == t.Group && onKey(f.columns, t.Key, info.Keys):
			continue
		case !f.outgoing && t.Kind == shardmap.Reference && kind != shardmap.Home:
			continue
		case !f.outgoing && t.Kind == shardmap.Reference: // home keeps a whole copy
			continue
		}
		dir := "to"
		if !f.outgoing {
			dir = "from"
		}
		return &Error{
			Code: "0A000", Message: fmt.Sprintf("foreign key %q of table %s %s %s table %s cannot be kept over shards", f.name, t.TableName(), dir, kind, other),
			Hint: "Drop the constraint, or distribute the other table first: as a reference table, or in the same group with the key in the constraint.",
		}
	}
	return nil
}

// onKey says whether the columns of a foreign key pair each key column of one table with that of the other.
func onKey(columns, from, to []string) bool {
	for i := range from {
		if i >= len(to) || !slices.Contains(columns, from[i]+" "+to[i]) {
			return false
		}
	}
	return true
}

// move does the work of DISTRIBUTE TABLE up to the deciding commit on home. With o the copies are there already.
func (a *Admin) move(ctx context.Context, db string, home *pgx.Conn, t shardmap.Table, o *online, j *job) error {
	d, err := a.database(db)
	if err != nil {
		return err
	}
	info := d.Tables[t.TableName()]
	name := t.TableName().SQL()
	tx, err := home.Begin(ctx)
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // nothing to do after COMMIT
	if _, err := tx.Exec(ctx, "LOCK TABLE "+name+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	if o != nil {
		if err := o.finish(ctx, home, tx); err != nil {
			return err
		}
	}
	for _, s := range d.Shards {
		if s == d.Home || o != nil {
			continue
		}
		j.phase("copying to shard " + s.Name)
		if _, err := a.fillShard(ctx, d, s, home, info, nil); err != nil {
			return err
		}
	}
	seqs, err := placeOn(ctx, home, info, d.Home.Ordinal)
	if err == nil {
		err = run(ctx, tx, seqs.strides())
	}
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	if info.Kind == shardmap.Sharded {
		after, err := quiet(ctx, tx, name)
		if err != nil {
			return nodeFailed(d.Home.Name, err)
		}
		if err := run(ctx, tx, append([]string{fmt.Sprintf("DELETE FROM %s WHERE NOT %s", name, placeWhere(info, d.Home.Name)), placeCheck(info, d.Home.Name)}, after...)); err != nil {
			return nodeFailed(d.Home.Name, err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	return nil
}

// fillShard makes the table on one shard and copies the rows there that belong to it. With a job, the table is in use: late is
// what is to be made when all rows are there.
func (a *Admin) fillShard(ctx context.Context, d *shardmap.DB, s *shardmap.ShardInfo, home *pgx.Conn, info *shardmap.TableInfo, j *job) (late []string, err error) {
	dst, err := a.openShard(ctx, d.Name, s)
	if err != nil {
		return nil, err
	}
	defer dst.Close(context.WithoutCancel(ctx)) // the transaction has ended
	err = bring(ctx, home, dst, s.Name, func(tx pgx.Tx) error {
		seqs, err := placeOn(ctx, home, info, s.Ordinal)
		if err != nil {
			return err
		}
		if late, err = bringTable(ctx, home, tx, info.TableName, seqs); err != nil {
			return err
		}
		// What was made here may be dropped again, and nothing else: see dropOn.
		if _, err := tx.Exec(ctx, "INSERT INTO pgmosaic.copy VALUES ($1, $2) ON CONFLICT DO NOTHING", info.Schema, info.Name); err != nil {
			return err
		}
		where := ""
		if info.Kind == shardmap.Sharded {
			where = placeWhere(info, s.Name)
			if _, err := tx.Exec(ctx, placeCheck(info, s.Name)); err != nil {
				return err
			}
		}
		if _, err := copyRows(ctx, home, dst, info.TableName, where, j); err != nil || j != nil {
			return err
		}
		return run(ctx, tx, late)
	})
	return late, err
}

// Recover finishes or undoes what a crash left moving, in every database. It is called at the start. A database whose shards do
// not answer keeps no other from being settled.
func (a *Admin) Recover(ctx context.Context) error {
	var errs []error
	for _, d := range sortedDBs(a.Catalog.Current()) {
		if err := a.settle(ctx, d.Name); err != nil {
			errs = append(errs, fmt.Errorf("database %s: %w", d.Name, err))
		}
	}
	return errors.Join(errs...)
}

// recoverPause is the time until what a panic has left is settled, and between two tries.
const recoverPause = time.Second

// RunRecover tries again after every pause until all is settled, or ctx ends.
func (a *Admin) RunRecover(ctx context.Context, pause time.Duration) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		if a.Recover(ctx) == nil {
			return nil
		}
	}
}

func (a *Admin) settle(ctx context.Context, db string) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	return a.recoverLocked(ctx, db)
}

// settled is a database in which nothing is left moving. The caller holds a.changing.
func (a *Admin) settled(ctx context.Context, db string) (*shardmap.DB, error) {
	if err := a.recoverLocked(ctx, db); err != nil {
		return nil, err
	}
	return a.database(db)
}

func (a *Admin) recoverLocked(ctx context.Context, db string) error {
	d, err := a.database(db)
	if err != nil {
		return err
	}
	if err := a.renamesSettled(ctx, db); err != nil {
		return err
	}
	if err := a.recoverOnline(ctx, d); err != nil {
		return err
	}
	for _, t := range a.Catalog.Current().Document.Tables {
		if t.Database == db && t.Moving {
			if err := a.recoverTable(ctx, d, *t); err != nil {
				return err
			}
		}
	}
	for _, t := range a.Catalog.Current().Document.Tenants {
		if t.Database == db && t.Moving {
			if err := a.recoverTenant(ctx, d, *t); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *Admin) recoverTable(ctx context.Context, d *shardmap.DB, t shardmap.Table) error {
	home, err := a.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return err
	}
	defer home.Close(context.WithoutCancel(ctx)) // only read
	var checked bool
	err = home.QueryRow(ctx, "select exists (select from pg_constraint where conrelid = to_regclass($1) and conname = 'pgmosaic_slot')",
		t.TableName().SQL()).Scan(&checked)
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	done := t
	done.Moving, done.From = false, ""
	if t.Kind == shardmap.Sharded && checked {
		// Distributing: home has decided. Undistributing: it has not.
		_, err := a.Catalog.Change(ctx, false, func(tx *shardmap.Tx) error { return tx.PutTable(done) })
		a.Log.Warn("an interrupted DISTRIBUTE or UNDISTRIBUTE was settled: the table is distributed", "table", t.TableName())
		return err
	}
	for _, s := range d.Shards {
		if s != d.Home {
			if err := a.dropOn(ctx, d, s, t); err != nil {
				return err
			}
		}
	}
	_, err = a.Catalog.Change(ctx, false, func(tx *shardmap.Tx) error { return tx.Delete("tables", t.Database, t.Schema, t.Name) })
	a.Log.Warn("an interrupted DISTRIBUTE or UNDISTRIBUTE was settled: the table is on home", "table", t.TableName())
	return err
}

func (a *Admin) dropOn(ctx context.Context, d *shardmap.DB, s *shardmap.ShardInfo, t shardmap.Table) error {
	c, err := a.openShard(ctx, d.Name, s)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx)) // nothing is left on it
	err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "DELETE FROM pgmosaic.copy WHERE schema = $1 AND name = $2", t.Schema, t.Name)
		if err != nil || tag.RowsAffected() == 0 {
			return err // a table of that name is not ours
		}
		_, err = tx.Exec(ctx, "DROP TABLE IF EXISTS "+t.TableName().SQL())
		return err
	})
	if err != nil {
		return nodeFailed(s.Name, err)
	}
	return nil
}

// undistribute brings a table's rows back to home. Home's commit, which drops the CHECK, decides.
func (a *Admin) undistribute(ctx context.Context, db, sch, tbl string, dry bool) (*Result, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	d, err := a.settled(ctx, db)
	if err != nil {
		return nil, err
	}
	info := d.Tables[shardmap.TableName{Schema: sch, Name: tbl}]
	if info == nil {
		return nil, &Error{Code: "42P01", Message: fmt.Sprintf("table %s is not distributed", shardmap.TableName{Schema: sch, Name: tbl}), Hint: "SHOW TABLES lists the distributed ones."}
	}
	i := slices.IndexFunc(a.Catalog.Current().Document.Tables, func(t *shardmap.Table) bool {
		return t.Database == db && t.Schema == sch && t.Name == tbl
	})
	t := *a.Catalog.Current().Document.Tables[i]
	remove := func(tx *shardmap.Tx) error { return tx.Delete("tables", db, sch, tbl) }
	if dry {
		return a.change(ctx, "UNDISTRIBUTE TABLE", true, remove)
	}
	moving := t
	moving.Moving, moving.From = true, t.Kind
	if err := a.announce(ctx, db, func(tx *shardmap.Tx) error { return tx.PutTable(moving) }); err != nil {
		return nil, err
	}
	if err := a.gatherHome(ctx, d, info); err != nil {
		return nil, errors.Join(err, a.recoverLocked(context.WithoutCancel(ctx), d.Name))
	}
	for _, s := range d.Shards {
		if s != d.Home {
			if err := a.dropOn(ctx, d, s, t); err != nil {
				return nil, err // the next change, or start, goes on from here
			}
		}
	}
	res, err := a.change(ctx, "UNDISTRIBUTE TABLE", false, remove)
	a.SchemaChanged(ctx, db)
	return res, err
}

func (a *Admin) gatherHome(ctx context.Context, d *shardmap.DB, info *shardmap.TableInfo) error {
	if info.Kind != shardmap.Sharded {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 24*time.Hour)
	defer cancel()
	home, err := a.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return err
	}
	defer home.Close(context.WithoutCancel(ctx)) // the transaction has ended
	name := info.SQL()
	err = pgx.BeginFunc(ctx, home, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "ALTER TABLE "+name+" DROP CONSTRAINT pgmosaic_slot"); err != nil {
			return err
		}
		after, err := quiet(ctx, tx, name)
		if err != nil {
			return err
		}
		for _, s := range d.Shards {
			if s == d.Home {
				continue
			}
			src, err := a.openShard(ctx, d.Name, s)
			if err != nil {
				return err
			}
			_, err = copyRows(ctx, src, home, info.TableName, "", nil)
			_ = src.Close(context.WithoutCancel(ctx))
			if err != nil {
				return err
			}
		}
		seqs, err := placeOn(ctx, home, info, d.Home.Ordinal)
		if err != nil {
			return err
		}
		return run(ctx, tx, append(seqs.ones(), after...))
	})
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	return nil
}
