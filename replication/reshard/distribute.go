package reshard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/pghash"
)

// How a table moves: the map first says that it is moving, which holds statements off. Rows are copied to
// the other shards and committed there; they do not count yet. Then one transaction on home deletes what has
// moved, adds the CHECK that home's rows belong there, and says in pgmosaic.placed that the rows count on the shards. That commit
// decides: Recover reads it and finishes, or undoes. At last the map says that the table is distributed.

// Distribute puts the rows of a home table on the shards that own their keys, or a copy of all of them on each.
func (mv *Mover) Distribute(ctx context.Context, t shardmap.Table, localUnique, dry bool) (snap *shardmap.Snapshot, err error) {
	defer mv.Alone()()
	d, err := mv.settled(ctx, t.Database)
	if err != nil {
		return nil, err
	}
	if d.Home == nil {
		return nil, &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("database %q has no shard", d.Name), Hint: "CREATE SHARD first."}
	}
	n := t.TableName()
	if d.Table(n) != nil {
		return nil, &pgsql.Error{Code: pgsql.DuplicateObject, Message: fmt.Sprintf("table %s is already distributed", n), Hint: "UNDISTRIBUTE TABLE it first."}
	}
	home, err := mv.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return nil, err
	}
	defer giveBack(ctx, mv.Conns, home)
	if err := idle(ctx, home, d.Home.Name, n); err != nil {
		return nil, err
	}
	if err := checkTable(ctx, home, d, t, localUnique); err != nil {
		return nil, err
	}
	if t.Kind == shardmap.Sharded {
		if err := mv.Homebound(ctx, d, []shardmap.TableName{n}); err != nil {
			return nil, err
		}
	}
	if dry {
		if _, err := mv.look(ctx, d, home, []shardmap.TableName{n}, d.Shards); err != nil {
			return nil, err
		}
		return mv.Change(ctx, "DISTRIBUTE TABLE", true, d, func(tx *shardmap.Tx) error { return tx.PutTable(t) })
	}
	j := mv.begin(d.Name, fmt.Sprintf("DISTRIBUTE TABLE %s", n))
	defer j.close(&err)
	ready, err := mv.look(ctx, d, home, []shardmap.TableName{n}, d.Shards)
	if err != nil {
		return nil, err
	}
	x := newAttempt(shardmap.Attempt{Database: d.Name, Statement: j.statement, Schema: t.Schema, Name: t.Name})
	t.Made, t.LocalUnique = x.ID, localUnique
	if err = mv.start(ctx, d, home, x, ready); err == nil {
		err = mv.distributeTable(ctx, d, home, t, localUnique, x, j)
	}
	if err != nil {
		_ = home.Close(context.WithoutCancel(ctx)) // which gives up the attempt
		return nil, errors.Join(err, mv.recoverLocked(context.WithoutCancel(ctx), d.Name))
	}
	if err = mv.end(ctx, x, func(tx *shardmap.Tx) error { return declare(tx, t) }); err != nil {
		return nil, lastStep(x, err)
	}
	mv.SchemaChanged(ctx, d.Name)
	return mv.done("DISTRIBUTE TABLE"), nil
}

// distributeTable does what DISTRIBUTE TABLE does up to the deciding commit on home.
func (mv *Mover) distributeTable(ctx context.Context, d *shardmap.DB, home *pgx.Conn, t shardmap.Table, localUnique bool, x shardmap.Attempt, j *job) error {
	if err := beginPlacing(ctx, home, "relation", t.TableName().SQL(), "table "+t.TableName().String(), x); err != nil {
		return ownOr(d.Home.Name, err)
	}
	o, err := mv.newOnline(ctx, d, home, t, x, j)
	if err != nil {
		return ownOr(d.Home.Name, err)
	}
	if o != nil {
		if err := o.watch(ctx, home); err != nil {
			return nodeFailed(d.Home.Name, err)
		}
		if err := o.copyAll(ctx, home); err != nil {
			return err
		}
		if err := o.catchUp(ctx, home); err != nil {
			return err
		}
	}
	moving := t
	moving.Moving, moving.From = true, shardmap.Home
	switched := func(tx *shardmap.Tx) error { // rows have gone where d says
		return cmp.Or(tx.SameKeys(d, t.Group), declare(tx, moving))
	}
	for try := 1; ; try++ { // transactions that run for long hold the switch back: the copies need not be made anew
		if err = mv.announce(ctx, x, switched, func(tx *shardmap.Tx) error { return settleMap(tx, x, true) }); err == nil {
			break
		}
		if o == nil || try == maxSwitches || errors.Is(err, shardmap.ErrChanged) {
			return err
		}
		if err := o.catchUp(ctx, home); err != nil {
			return err
		}
	}
	return mv.move(ctx, d.Name, home, moving, localUnique, x, o, j)
}

// announce tells the map that tables are moving, and waits until nobody runs by a map that does not say so. Statements on these tables
// wait meanwhile, others do not. If a client runs for too long, back has the map say what it said before.
func (mv *Mover) announce(ctx context.Context, x shardmap.Attempt, edit, back func(*shardmap.Tx) error) error {
	under := func(edit func(*shardmap.Tx) error) func(*shardmap.Tx) error {
		return func(tx *shardmap.Tx) error { return cmp.Or(tx.Under(x.ID), edit(tx)) }
	}
	edit, back = under(edit), under(back)
	if err := mv.Catalog.Retry(ctx, edit); err != nil {
		return err
	}
	version := mv.Catalog.Current().Version
	waiting, cancel := context.WithTimeout(ctx, mv.PauseTimeout)
	defer cancel()
	var users []string
	switch err := mv.AwaitLeft(waiting, func() bool { users = mv.Using(x.Database, version); return len(users) == 0 }); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.Join(&pgsql.Error{Code: pgsql.QueryCanceled, Message: "canceling statement due to user request"}, mv.Catalog.Retry(context.WithoutCancel(ctx), back))
	default:
		err := &pgsql.Error{
			Code: pgsql.ObjectInUse, Message: "the tables could not be taken out of use within " + mv.PauseTimeout.String() + ": " + describe(users),
			Hint: "Wait until what they run has ended, or end it: KILL_CLIENT, or pg_terminate_backend for their servers.",
		}
		return errors.Join(err, mv.Catalog.Retry(ctx, back))
	}
}

// lockHome locks tables on home for their move. Whoever holds them longer than the announcement would wait, a client of another
// process or one without, stops it.
func (mv *Mover) lockHome(ctx context.Context, tx pgx.Tx, d *shardmap.DB, tables []shardmap.TableName, mode string) error {
	if len(tables) == 0 {
		return nil
	}
	var super bool
	if err := tx.QueryRow(ctx, "select "+superSQL).Scan(&super); err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	return runShortly(ctx, mv, tx, d, append(nameHeld(super, tables), "LOCK TABLE "+sanitizeAll("", tables)+" IN "+mode+" MODE"))
}

// shortly does on home what waits for those who use what moves. Whoever uses it longer than the announcement would wait stops the move.
func shortly(ctx context.Context, mv *Mover, tx pgx.Tx, d *shardmap.DB, f func(context.Context) error) error {
	_, err := bounded(ctx, tx, mv.PauseTimeout, f)
	return usedOr(mv, d, err)
}

// runShortly is shortly for some statements.
func runShortly(ctx context.Context, mv *Mover, tx pgx.Tx, d *shardmap.DB, list []string) error {
	return usedOr(mv, d, runBounded(ctx, tx, mv.PauseTimeout, list...))
}

// usedOr tells of an error on home, and of who uses what moves if it is that.
func usedOr(mv *Mover, d *shardmap.DB, err error) error {
	if lockHeld(err) {
		return &pgsql.Error{
			Code: pgsql.ObjectInUse, Message: fmt.Sprintf("a session on node of shard %q holds a lock on a table that is to move, or on its sequence, for longer than %s", d.Home.Name, mv.PauseTimeout),
			Hint: "pg_locks on it shows which: a client of another process, or of none.",
		}
	}
	return nodeFailedOrNil(d.Home.Name, err)
}

// described is how many clients a message names.
const described = 5

// describe lists who is in the way.
func describe(clients []string) string {
	out := slices.Clone(clients[:min(len(clients), described)])
	if n := len(clients) - described; n > 0 {
		out = append(out, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(out, ", ")
}

const checkSQL = `select c.relkind::text, c.relpersistence::text, c.relispartition or exists (select from pg_inherits where inhrelid = c.oid or inhparent = c.oid and c.relkind <> 'p'),
   exists (select from pg_rewrite where ev_class = c.oid or ev_class in (select relid from pg_partition_tree(c.oid))), exists (select from pg_partition_tree(c.oid) t join pg_class p on p.oid = t.relid where p.relkind not in ('r', 'p') or p.relpersistence <> 'p')
  from pg_class c where c.oid = to_regclass($1)`

// checkTable finds out whether a table can be distributed as asked, before anything is touched.
func checkTable(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table, localUnique bool) error {
	name := t.TableName().SQL()
	label := t.TableName().String()
	var kind, persistence string
	var inherits, rules, odd bool
	err := home.QueryRow(ctx, checkSQL, name).Scan(&kind, &persistence, &inherits, &rules, &odd)
	if errors.Is(err, pgx.ErrNoRows) {
		return &pgsql.Error{Code: pgsql.UndefinedTable, Message: fmt.Sprintf("table %s does not exist on the home shard of database %q", label, d.Name), Hint: "CREATE TABLE it through the database first."}
	}
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	refuse := func(what, hint string) error {
		return &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("table %s cannot be distributed: %s", label, what), Hint: hint}
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
	err = owned(ctx, home, t.TableName())
	if err == nil {
		err = wholeIndexes(ctx, home, t.TableName())
	}
	if err != nil {
		return ownOr(d.Home.Name, err)
	}
	if err := checkDrawn(ctx, home, d, t); err != nil {
		return err
	}
	if gone, moves := map[shardmap.Kind]string{shardmap.Sharded: "delete", shardmap.Reference: ""}[t.Kind]; moves {
		if err := checkReplicated(ctx, home, d, t.TableName(), gone); err != nil {
			return err
		}
	}
	if t.Kind == shardmap.Sharded {
		if err := checkKey(ctx, home, d, t, localUnique); err != nil {
			return err
		}
	}
	return checkForeignKeys(ctx, home, d, t)
}

// wholeIndexes refuses a table with an index that not all of its partitions have yet: a copy's would have it, and keep out rows that home lets in.
func wholeIndexes(ctx context.Context, home queryer, n shardmap.TableName) error {
	part, err := strings1(ctx, home, `select i.indexrelid::regclass::text from pg_index i join pg_class c on c.oid = i.indexrelid and c.relkind = 'I'
	  where not i.indisvalid and (i.indrelid = $1::text::regclass or i.indrelid in (select relid from pg_partition_tree($1::text::regclass))) order by 1`, n.SQL())
	if err == nil && len(part) > 0 {
		err = &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("index %s of table %s is not on all of its partitions", part[0], n), Hint: "CREATE INDEX it on each that lacks it, and ALTER INDEX ... ATTACH PARTITION; or DROP it."}
	}
	return err
}

// checkKey finds out whether the key columns can decide the shard of a table's rows.
func checkKey(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table, localUnique bool) error {
	name := t.TableName().SQL()
	label := t.TableName().String()
	g, err := GroupOf(d, t.Group)
	if err != nil {
		return err
	}
	if len(t.Key) != len(g.Keys) {
		return &pgsql.Error{Code: pgsql.DatatypeMismatch, Message: fmt.Sprintf("the key of group %q has %d columns (%s), %d were named", g.Name, len(g.Keys), g.TypeList(), len(t.Key)), Hint: "Name as many, in the group's order."}
	}
	for i, key := range t.Key {
		if slices.Contains(t.Key[:i], key) {
			return &pgsql.Error{Code: pgsql.DuplicateColumn, Message: fmt.Sprintf("column %q stands twice in the key", key)}
		}
		if err := checkKeyColumn(ctx, home, d, t, key, g.Keys[i]); err != nil {
			return err
		}
	}
	if localUnique {
		return nil
	}
	rows, _ := home.Query(ctx, apartSQL, name, t.Key) // an error comes with the rows
	var index string
	var contains bool
	var refused error
	if _, err := pgx.ForEachRow(rows, []any{&index, &contains}, func() error {
		how := "does not contain key column"
		if contains {
			how = "does not tell rows by plain equality of key column"
		}
		refused = cmp.Or[error](refused, &pgsql.Error{
			Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("unique index %s of table %s %s %q: no shard could enforce it", index, label, how, strings.Join(t.Key, ", ")),
			Hint: "Add the key to it, or say ALLOW LOCAL UNIQUE to have it enforced on each shard only.",
		})
		return nil
	}); err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	return refused
}

// apartSQL lists the indexes of a table, and of its partitions, that may forbid two rows of unlike keys beside each other, and says whether all key columns are
// in them: not by equality, as an exclusion constraint may, or by that of a collation to which unlike bytes are equal.
const apartSQL = `select i.indexrelid::regclass::text, $2::text[] <@ array(select a.attname::text ` + indexed + `)
 from pg_index i where (i.indrelid = $1::text::regclass or i.indrelid in (select relid from pg_partition_tree($1::text::regclass))) and (i.indisunique or i.indisexclusion)
  and not $2::text[] <@ array(select a.attname::text ` + indexed + ` and coalesce((select collisdeterministic from pg_collation where oid = i.indcollation[k.o::int - 1]), true)
   and (not i.indisexclusion or exists (select from pg_constraint c join pg_amop m on m.amopopr = c.conexclop[k.o::int] and m.amopstrategy = 3 join pg_am y on y.oid = m.amopmethod and y.amname = 'btree'
     where c.conindid = i.indexrelid and c.contype = 'x')))`

// indexed is where it has the columns by which an index i tells rows apart.
const indexed = "from unnest(i.indkey) with ordinality k (n, o) join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.n where k.o <= i.indnkeyatts"

func checkKeyColumn(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table, key string, want pghash.Type) error {
	name := t.TableName().SQL()
	label := t.TableName().String()
	var oid uint32
	var typeName string
	var deterministic bool
	err := home.QueryRow(ctx, "select a.atttypid, format_type(a.atttypid, a.atttypmod), coalesce(c.collisdeterministic, true) from pg_attribute a left join pg_collation c on c.oid = a.attcollation "+
		"where a.attrelid = $1::text::regclass and a.attname = $2 and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''", name, key).Scan(&oid, &typeName, &deterministic)
	if errors.Is(err, pgx.ErrNoRows) {
		return &pgsql.Error{Code: pgsql.UndefinedColumn, Message: fmt.Sprintf("column %q of table %s does not exist", key, label), Hint: "KEY names the column whose value decides the shard; it cannot be a generated column."}
	}
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	if kt, ok := pghash.TypeByOID(oid); !ok || !sameKey(kt, want) {
		return &pgsql.Error{
			Code: pgsql.DatatypeMismatch, Message: fmt.Sprintf("key column %q of table %s has type %s, group %q has keys of type %s", key, label, typeName, t.Group, d.Groups[t.Group].TypeList()),
			Hint: "Equal keys must be placed alike: create a group with KEY (" + typeName + ").",
		}
	}
	if !deterministic {
		return &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("key column %q has a nondeterministic collation", key), Hint: "Use a deterministic collation: equal keys must be equal bytes."}
	}
	nulls, err := ask(ctx, home, t.TableName(), fmt.Sprintf("EXISTS (SELECT FROM %s WHERE %s IS NULL)", name, pgsql.Ident(key)))
	if err != nil {
		return ownOr(d.Home.Name, err)
	}
	if nulls != nil && *nulls == "true" {
		return &pgsql.Error{Code: pgsql.NotNullViolation, Message: fmt.Sprintf("key column %q of table %s holds NULL: such a row has no shard", key, label), Hint: "Give these rows a key, or delete them."}
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
		places = append(places, placeWhere(d, info, s.Name))
	}
	value, err := ask(ctx, home, t.TableName(), fmt.Sprintf("SELECT %s::text FROM %s WHERE NOT (%s) LIMIT 1", pgsql.Ident(t.Key[0]), t.TableName().SQL(), strings.Join(places, " OR ")))
	if err != nil {
		return ownOr(d.Home.Name, err)
	}
	if value == nil {
		return nil
	}
	return &pgsql.Error{
		Code: pgsql.CheckViolation, Message: fmt.Sprintf("table %s holds rows with the key %q, which no list of group %q names", t.TableName(), *value, g.Name),
		Hint: "ALTER GROUP ... ADD VALUES, or give the group a DEFAULT.",
	}
}

func sameKey(a, b pghash.Type) bool {
	text := func(t pghash.Type) bool { return t == pghash.TypeText || t == pghash.TypeVarchar }
	return a == b || a.IsInteger() && b.IsInteger() || text(a) && text(b)
}

// declaredKeysSQL lists the foreign keys that somebody has given to a table or to one of its partitions, or that refer to one of these, with the other table,
// of a partition the one at the top. PostgreSQL has more of them itself where partitions are.
const declaredKeysSQL = `with own (oid) as (select $1::text::regclass::oid union select relid::oid from pg_partition_tree($1::text::regclass))
select c.conname, c.conrelid in (select oid from own), n.nspname, r.relname,
    array(select a1.attname || ' ' || a2.attname from unnest(c.conkey, c.confkey) k(x, y)
       join pg_attribute a1 on a1.attrelid = c.conrelid and a1.attnum = k.x join pg_attribute a2 on a2.attrelid = c.confrelid and a2.attnum = k.y)
  from pg_constraint c join pg_class l on l.oid = case when c.conrelid in (select oid from own) then c.confrelid else c.conrelid end
  join pg_class r on r.oid = coalesce(case when l.relispartition then pg_partition_root(l.oid) end, l.oid) join pg_namespace n on n.oid = r.relnamespace
 where c.contype = 'f' and c.conparentid = 0 and (c.conrelid in (select oid from own) or c.confrelid in (select oid from own))
 order by c.conname, n.nspname, r.relname`

// checkForeignKeys allows sharded to co-located sharded on the key, sharded to reference and reference to
// reference.
func checkForeignKeys(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table) error {
	name := t.TableName().SQL()
	rows, _ := home.Query(ctx, declaredKeysSQL, name) // an error comes with the rows
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
		return &pgsql.Error{
			Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("foreign key %q of table %s %s %s table %s cannot be kept over shards", f.name, t.TableName(), dir, kind, other),
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
func (mv *Mover) move(ctx context.Context, db string, home *pgx.Conn, t shardmap.Table, localUnique bool, x shardmap.Attempt, o *online, j *job) error {
	d, err := mv.Database(db)
	if err != nil {
		return err
	}
	info := d.Tables[t.TableName()]
	tx, err := home.Begin(ctx)
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // nothing to do after COMMIT
	if err := mv.lockHome(ctx, tx, d, []shardmap.TableName{info.TableName}, "ACCESS EXCLUSIVE"); err != nil {
		return err
	}
	if err := sameTable(ctx, tx, info.TableName, x); err != nil {
		return ownOr(d.Home.Name, err)
	}
	if err := checkHeld(ctx, mv, d, tx, t, localUnique); err != nil { // again: until the lock its owner could give it rules, heirs, references and rows without a place
		return err
	}
	seqs, err := sequencesOn(ctx, home, info, d.Home.Ordinal) // nobody draws from them any more
	if err != nil {
		return ownOr(d.Home.Name, err)
	}
	if o != nil {
		if err := o.finish(ctx, home, tx, seqs); err != nil {
			return err
		}
		if err := run(ctx, tx, unwatch(x.ID)); err != nil {
			return nodeFailed(d.Home.Name, err)
		}
	}
	for _, s := range d.Shards {
		if s == d.Home || o != nil {
			continue
		}
		j.phase("copying to shard " + s.Name)
		if _, err := mv.fillShard(ctx, d, s, home, info, filling{x.ID, seqs, nil}); err != nil {
			return err
		}
	}
	if err := runShortly(ctx, mv, tx, d, seqs.strides()); err != nil {
		return err
	}
	if info.Kind == shardmap.Sharded {
		if err := keepOwn(ctx, tx, d, info); err != nil {
			return ownOr(d.Home.Name, err)
		}
	}
	if len(d.Shards) > 1 {
		if err := watchCopy(ctx, tx, info); err != nil {
			return nodeFailed(d.Home.Name, err)
		}
	}
	release, err := mv.guard(ctx, d, d.Shards, []shardmap.TableName{info.TableName}, x)
	if err != nil {
		return err
	}
	defer release()
	if err := decide(ctx, tx, x, "shards", "table "+info.String()); err != nil {
		return ownOr(d.Home.Name, err)
	}
	if err := tx.Commit(ctx); err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	return nil
}

// keepOwn leaves home the rows that belong there, of a table whose others are on their shards.
func keepOwn(ctx context.Context, tx pgx.Tx, d *shardmap.DB, info *shardmap.TableInfo) error {
	name := info.SQL()
	after, err := disableTriggers(ctx, tx, name)
	if err != nil {
		return err
	}
	owner, err := ownerOf(ctx, tx, name)
	if err != nil {
		return err
	}
	if err := asDefined(ctx, tx, owner, fmt.Sprintf("DELETE FROM %s WHERE %s AND NOT %s", name, keyed(info), placeWhere(d, info, d.Home.Name))); err != nil { // the constraint refuses what has no key, and is on no shard
		return err
	}
	return run(ctx, tx, append([]string{settleConstraints, placeCheck(d, info, d.Home.Name)}, after...))
}

// filling is what is known of a table that is about to be copied: who does it, and where its sequences begin. With a job, the table is in use.
type filling struct {
	attempt string
	seqs    *shardSequences
	job     *job
}

// fillShard makes the table on one shard and copies the rows there that belong to it. Of a table in use, late is what is to be made when all rows
// are there.
func (mv *Mover) fillShard(ctx context.Context, d *shardmap.DB, s *shardmap.ShardInfo, home *pgx.Conn, info *shardmap.TableInfo, f filling) (late []definition, err error) {
	dst, err := mv.openFor(ctx, d, s, f.attempt)
	if err != nil {
		return nil, err
	}
	defer giveBack(ctx, mv.Conns, dst)
	err = bring(ctx, home, dst, s.Name, "", func(tx pgx.Tx) error {
		err := definesOn(ctx, tx, s.Name, func() (err error) {
			if late, err = bringTable(ctx, home, tx, info.TableName, f.seqs.at(s.Ordinal), f.job != nil); err != nil {
				return err
			}
			return noteCopy(ctx, tx, info.TableName, f.attempt, f.attempt)
		})
		if err != nil {
			return err
		}
		where := ""
		if info.Kind == shardmap.Sharded {
			where = placeWhere(d, info, s.Name)
			if _, err := tx.Exec(ctx, placeCheck(d, info, s.Name)); err != nil {
				return err
			}
		}
		if err := fill(ctx, home, dst, info.TableName, where, f.job); err != nil || f.job != nil {
			return err
		}
		if err := finish(ctx, home, tx, late, false, info.TableName); err != nil {
			return err
		}
		return watchCopy(ctx, tx, info)
	})
	return late, err
}

// Undistribute brings a table's rows back to home. Home's commit, which drops the CHECK, decides.
func (mv *Mover) Undistribute(ctx context.Context, db, sch, tbl string, dry bool) (snap *shardmap.Snapshot, err error) {
	defer mv.Alone()()
	d, err := mv.settled(ctx, db)
	if err != nil {
		return nil, err
	}
	n := shardmap.TableName{Schema: sch, Name: tbl}
	t, ok := mv.declaredTable(db, n)
	if !ok {
		return nil, &pgsql.Error{Code: pgsql.UndefinedTable, Message: fmt.Sprintf("table %s is not distributed", n), Hint: "SHOW TABLES lists the distributed ones."}
	}
	home, err := mv.openShard(ctx, d.Name, d.Home)
	if err != nil {
		return nil, err
	}
	defer giveBack(ctx, mv.Conns, home)
	if t.Made == "" && !dry {
		if t, err = mv.noteOlder(ctx, d, home, t); err == nil {
			d, err = mv.Database(db)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := placedAs(ctx, home, d.Home.Name, "relation", n.SQL(), "table "+n.String(), t.Made); err != nil && t.Made != "" {
		return nil, err
	}
	if err := cmp.Or(checkTies(ctx, home, d, t), checkSharedHome(ctx, home, d, t)); err != nil {
		return nil, err
	}
	if err := owned(ctx, home, n); err != nil {
		return nil, ownOr(d.Home.Name, err)
	}
	ready, err := mv.droppable(ctx, d, d.Shards, []shardmap.TableName{n})
	if err != nil {
		return nil, err
	}
	if dry {
		return mv.Change(ctx, "UNDISTRIBUTE TABLE", true, d, func(tx *shardmap.Tx) error { return tx.Delete("tables", db, sch, tbl) })
	}
	j := mv.begin(d.Name, fmt.Sprintf("UNDISTRIBUTE TABLE %s", n))
	defer j.close(&err)
	x := newAttempt(shardmap.Attempt{Database: db, Statement: j.statement, Schema: sch, Name: tbl, Takes: t.Made})
	moving := t
	moving.Moving, moving.From = true, t.Kind
	if err = mv.start(ctx, d, home, x, ready); err == nil {
		err = mv.takeHome(ctx, d, home, x, d.Shards, []shardmap.TableName{n}, func(tx *shardmap.Tx) error { return replaceTable(tx, t, moving) }, func(tx *shardmap.Tx) error { return settleMap(tx, x, false) })
	}
	back := &held{}
	defer back.release(ctx)
	if err == nil {
		err = mv.gatherHome(ctx, d, home, d.Tables[n], x, back)
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
	return mv.done("UNDISTRIBUTE TABLE"), nil
}

// declare has the map say something of a table that it may know by the same distribution, and by no other: a transaction may have given its name to one that
// the map has, whose rows would be out of reach.
func declare(tx *shardmap.Tx, t shardmap.Table) error {
	all, err := tx.Tables(t.Database)
	if err == nil && slices.ContainsFunc(all, func(x shardmap.Table) bool { return x.TableName() == t.TableName() && x.Made != t.Made }) {
		err = shardmap.ErrChanged
	}
	return cmp.Or(err, tx.PutTable(t))
}

// replaceTable has the map say another thing of a table, if it says still what a statement has found: a transaction may have begun to rename the table.
func replaceTable(tx *shardmap.Tx, was, is shardmap.Table) error {
	all, err := tx.Tables(was.Database)
	if err == nil && !slices.ContainsFunc(all, func(t shardmap.Table) bool { return reflect.DeepEqual(t, was) }) {
		err = shardmap.ErrChanged
	}
	return cmp.Or(err, tx.PutTable(is))
}

// checkTies refuses to take away copies that foreign keys of other copies refer to, and to bring home a table whose own foreign keys refer to rows that stay
// on their shards.
func checkTies(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table) error {
	n := t.TableName()
	rows, _ := home.Query(ctx, declaredKeysSQL, n.SQL()) // an error comes with the rows
	const together = "Drop the constraint, bring both tables home, and add it again."
	var name string
	var other shardmap.TableName
	var outgoing bool
	var columns []string
	var refused error
	_, err := pgx.ForEachRow(rows, []any{&name, &outgoing, &other.Schema, &other.Name, &columns}, func() error {
		info := d.Table(other)
		switch {
		case other == n:
		case info == nil || outgoing && info.Kind != shardmap.Sharded:
		case outgoing:
			refused = &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("table %s cannot be brought home: its foreign key %q refers to table %s, whose rows are on their shards", n, name, other), Hint: together}
		case info.Kind == shardmap.Sharded && t.Kind == shardmap.Sharded:
			refused = &pgsql.Error{Code: pgsql.DependentObjectsStillExist, Message: fmt.Sprintf("table %s cannot be brought home: foreign key %q of table %s, which is distributed, refers to it", n, name, other), Hint: together}
		default:
			refused = &pgsql.Error{Code: pgsql.DependentObjectsStillExist, Message: fmt.Sprintf("table %s cannot be brought home: foreign key %q of table %s, which is distributed, refers to it", n, name, other), Hint: "UNDISTRIBUTE that table first, or drop the constraint."}
		}
		return nil
	})
	if err != nil {
		return ownOr(d.Home.Name, err)
	}
	return refused
}

// takeHome says on home and on the shards that an attempt brings home what a distribution has put there, and then tells the map.
func (mv *Mover) takeHome(ctx context.Context, d *shardmap.DB, home *pgx.Conn, x shardmap.Attempt, shards []*shardmap.ShardInfo, tables []shardmap.TableName, moving, back func(*shardmap.Tx) error) error {
	before, err := strings1(ctx, home, "SELECT attempt FROM pgmosaic.placed WHERE distribution = $1 AND at = 'shards' AND attempt <> $1", x.Takes)
	for _, id := range before { // of a process that died, unless it is held: then it is kept below
		if err == nil {
			_, err = claim(ctx, home, id)
		}
	}
	if err != nil {
		return ownOr(d.Home.Name, err)
	}
	tag, err := home.Exec(ctx, "UPDATE pgmosaic.placed SET attempt = $2 WHERE distribution = $1 AND at = 'shards' AND (attempt = $1 OR NOT "+heldBy("attempt")+")", x.Takes, x.ID)
	if err != nil {
		return ownOr(d.Home.Name, err)
	}
	if tag.RowsAffected() == 0 {
		return &pgsql.Error{Code: pgsql.ObjectInUse, Message: "another process is bringing it home: " + x.Statement, Hint: "Wait until it has ended: SHOW JOBS there."}
	}
	for _, s := range shards {
		if s == d.Home {
			continue
		}
		c, err := mv.openFor(ctx, d, s, x.ID)
		if err != nil {
			return err
		}
		err = takeAway(ctx, c, s.Name, tables, x)
		giveBack(ctx, mv.Conns, c)
		if err != nil {
			return err
		}
	}
	return mv.announce(ctx, x, moving, back)
}

// gatherHome brings the rows of a sharded table home. What a reference table has, home has already.
func (mv *Mover) gatherHome(ctx context.Context, d *shardmap.DB, home *pgx.Conn, info *shardmap.TableInfo, x shardmap.Attempt, back *held) error {
	ctx, cancel := context.WithTimeout(ctx, 24*time.Hour)
	defer cancel()
	name := info.SQL()
	return ownOr(d.Home.Name, pgx.BeginFunc(ctx, home, func(tx pgx.Tx) error {
		if err := decide(ctx, tx, x, "home", "table "+info.String()); err != nil {
			return err
		}
		if info.Kind != shardmap.Sharded {
			return shortly(ctx, mv, tx, d, func(ctx context.Context) error { return unwatchCopy(ctx, tx, info.TableName) })
		}
		if err := mv.lockHome(ctx, tx, d, []shardmap.TableName{info.TableName}, "ACCESS EXCLUSIVE"); err != nil {
			return err
		}
		if err := run(ctx, tx, []string{"ALTER TABLE " + name + " DROP CONSTRAINT pgmosaic_slot"}); err != nil {
			return err
		}
		was, err := meanings(ctx, tx, info.TableName)
		if err != nil {
			return err
		}
		restore, err := unmet(ctx, tx, name)
		if err != nil {
			return err
		}
		keys, err := unmetKeys(ctx, mv, d, tx, name)
		if err != nil {
			return err
		}
		restore = append(restore, keys...)
		after, err := disableTriggers(ctx, tx, name)
		if err != nil {
			return err
		}
		var others []*pgx.Conn
		for _, s := range d.Shards {
			if s == d.Home {
				continue
			}
			src, err := mv.holdBack(ctx, d, s, []shardmap.TableName{info.TableName}, x, back)
			if err != nil {
				return err
			}
			others = append(others, src)
			if err := fill(ctx, src, home, info.TableName, "", nil); err != nil {
				return ownOr(s.Name, err)
			}
		}
		if err := countHome(ctx, mv, d, tx, info, others); err != nil {
			return err
		}
		if err := redefine(ctx, tx, restore, was); err != nil {
			return err
		}
		return run(ctx, tx, after)
	}))
}

// held are transactions on shards that hold copies against changes, from before their rows are copied home until home has
// committed and they are dropped.
type held struct {
	names []string
	txs   []pgx.Tx
}

// holdBack begins such a transaction on one shard.
func (mv *Mover) holdBack(ctx context.Context, d *shardmap.DB, s *shardmap.ShardInfo, tables []shardmap.TableName, x shardmap.Attempt, back *held) (*pgx.Conn, error) {
	src, err := mv.openFor(ctx, d, s, x.ID)
	if err != nil {
		return nil, err
	}
	tx, err := src.Begin(ctx)
	if err != nil {
		_ = src.Close(context.WithoutCancel(ctx))
		return nil, nodeFailed(s.Name, err)
	}
	back.names, back.txs = append(back.names, s.Name), append(back.txs, tx)
	if len(tables) == 0 {
		return src, nil
	}
	if err := runBounded(ctx, tx, time.Minute, "LOCK TABLE "+sanitizeAll("", tables)+" IN SHARE MODE"); err != nil {
		return nil, ownOr(s.Name, err)
	}
	for _, n := range tables {
		if err := ours(ctx, tx, s.Name, n, x.Takes); err != nil {
			return nil, ownOr(s.Name, err)
		}
	}
	return src, nil
}

// drop drops the copies that are held, which an attempt has taken away, ends the transactions and gives their connections back.
func (h *held) drop(ctx context.Context, attempt string, conns *nodeconn.Kept) error {
	var errs []error
	for i, tx := range h.txs {
		err := dropNoted(ctx, tx, attempt)
		if err == nil {
			err = tx.Commit(ctx)
		}
		giveBack(ctx, conns, tx.Conn())
		errs = append(errs, ownOr(h.names[i], err))
	}
	h.names, h.txs = nil, nil
	return errors.Join(errs...)
}

// release ends the transactions that have not ended.
func (h *held) release(ctx context.Context) {
	for _, tx := range h.txs {
		_ = tx.Conn().Close(context.WithoutCancel(ctx)) // which ends the transaction
	}
}

// placedAs is an error unless home says that the rows of a table or schema are on the shards, by this map's distribution of it.
func placedAs(ctx context.Context, home *pgx.Conn, node, column, value, label, distribution string) error {
	have, err := placedElsewhere(ctx, home, fmt.Sprintf("SELECT distribution FROM pgmosaic.placed WHERE %s = $1::%s AND at = 'shards'", column, noteType(column)), value)
	if err == nil && (len(have) == 0 || have[0] != distribution) {
		return &pgsql.Error{
			Code: pgsql.ObjectNotInPrerequisiteState, Message: label + " is not distributed as this map says: the map, or home, is not of the present",
			Hint: "Nothing was changed. Compare SHOW TABLES of all processes, and give each the newest map: docs/operating/several.md.",
		}
	}
	return ownOr(node, err)
}

// noteOlder gives a table that an older version distributed what proves which copies are its own.
func (mv *Mover) noteOlder(ctx context.Context, d *shardmap.DB, home *pgx.Conn, t shardmap.Table) (shardmap.Table, error) {
	name := t.TableName().SQL()
	for _, s := range d.Shards {
		if err := mv.noteful(ctx, d, s); err != nil {
			return t, err
		}
	}
	made, err := olderID(ctx, mv, d, home, name)
	if err != nil {
		return t, err
	}
	t.Made = made
	for _, s := range d.Shards {
		if s == d.Home {
			continue
		}
		c, err := mv.openShard(ctx, d.Name, s)
		if err != nil {
			return t, err
		}
		_, err = c.Exec(ctx, "UPDATE pgmosaic.made SET distribution = $2, attempt = $2 WHERE relation = to_regclass($1) AND distribution = ''", name, t.Made)
		giveBack(ctx, mv.Conns, c)
		if err != nil {
			return t, nodeFailed(s.Name, err)
		}
	}
	if _, err := home.Exec(ctx, "INSERT INTO pgmosaic.placed (relation, distribution, attempt, at) VALUES ($1::text::regclass, $2, $2, 'shards') ON CONFLICT DO NOTHING", name, t.Made); err != nil {
		return t, nodeFailed(d.Home.Name, err)
	}
	return t, mv.Catalog.Retry(ctx, func(tx *shardmap.Tx) error { return errors.Join(tx.Unchanged(d), tx.PutTable(t)) })
}

// olderID is the id under which such a table is noted: that of a statement which has noted it in part, and has failed, or a new one.
func olderID(ctx context.Context, mv *Mover, d *shardmap.DB, home *pgx.Conn, name string) (string, error) {
	ids, err := strings1(ctx, home, "SELECT distribution FROM pgmosaic.placed WHERE relation = to_regclass($1) AND at = 'shards'", name)
	if err != nil {
		return "", nodeFailed(d.Home.Name, err)
	}
	for _, s := range d.Shards {
		if s == d.Home {
			continue
		}
		c, err := mv.openShard(ctx, d.Name, s)
		if err != nil {
			return "", err
		}
		more, err := strings1(ctx, c, "SELECT distribution FROM pgmosaic.made WHERE relation = to_regclass($1) AND distribution <> '' AND attempt = distribution", name)
		giveBack(ctx, mv.Conns, c)
		if err != nil {
			return "", nodeFailed(s.Name, err)
		}
		ids = append(ids, more...)
	}
	slices.Sort(ids)
	switch ids = slices.Compact(ids); len(ids) {
	case 0:
		return newID(), nil
	case 1:
		return ids[0], nil
	}
	return "", &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("table %s is noted on its shards under %d distributions, and this map has none", name, len(ids)), Hint: otherMap}
}
