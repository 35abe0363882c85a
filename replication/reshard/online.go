package reshard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// A table with a primary key moves while it is in use. A trigger notes the keys of rows that change; the rows are copied from
// one snapshot; then those that have changed meanwhile are copied again, round by round, until few are left. Only then does
// the map say that the table is moving: under home's lock the last changes follow, and home's commit decides (see
// distribute.go). Until then nothing but copies that do not count has been made: a failure leaves the table where it was.

// online is the move of one table while it is in use.
type online struct {
	mv    *Mover
	d     *shardmap.DB
	info  *shardmap.TableInfo
	job   *job
	id    string // of the distribution whose copies they are
	to    []copying
	hint  string   // what to do if the table is altered meanwhile
	name  string   // of the table, as SQL
	mark  string   // by which the attempt's notes of this table are called
	notes string   // of the table of changed keys, as SQL
	names []string // of the key columns
	key   []string // the same as SQL
	bare  string   // the key columns as SQL, in the types below domains: these have defaults and constraints
	cols  []string
	shape string                  // home's definition of the table when the copies were made
	marks string                  // its triggers as watch has made them: see watchingSQL
	late  map[string][]definition // by shard: what is made when all rows are there
}

// copying is a shard that gets a copy.
type copying struct {
	name    string
	ordinal int
	open    func(ctx context.Context) (*pgx.Conn, error)
	conns   *nodeconn.Kept // where what open has given is given back
}

// The rounds end when few keys are left, or do not get fewer.
const (
	fewKeys   = 500
	maxRounds = 30

	maxSwitches = 5 // tries to find a moment without a running transaction
)

// shapeSQL is all that a table and its partitions are, but for their rows. A column is also the transaction that has defined it: who gives it the type that
// it has writes all rows anew, by an expression of his own, and no trigger fires.
const shapeSQL = `with t (oid) as (select $1::text::regclass::oid union select relid::oid from pg_partition_tree($1::text::regclass))
select md5(coalesce(string_agg(oid || ' ' || x, E'\n' order by oid, x), '')) from t, lateral (
 select attname || ' ' || atttypid || ' ' || atttypmod || ' ' || attnotnull || attgenerated::text || attidentity::text || ' ' || coalesce(attacl::text, '')
   || concat_ws(' ', '', attstorage, to_jsonb(a) ->> 'attcompression', attstattarget, attoptions, attcollation, a.xmin) from pg_attribute a where attrelid = t.oid and attnum > 0
 union all select conname || ' ' || pg_get_constraintdef(c.oid) from pg_constraint c where conrelid = t.oid
 union all select pg_get_indexdef(indexrelid) || indisvalid from pg_index where indrelid = t.oid
 union all select pg_get_triggerdef(g.oid) || tgenabled::text from pg_trigger g where tgrelid = t.oid and not tgisinternal and ` + usersTrigger + `
 union all select concat_ws(' ', pg_get_statisticsobjdef(e.oid), stxowner, to_jsonb(e) ->> 'stxstattarget') from pg_statistic_ext e where stxrelid = t.oid
 union all select concat_ws(' ', relname, relam, relowner, relrowsecurity, relforcerowsecurity, relreplident, relacl, reloptions, (select o.reloptions from pg_class o where o.oid = c.reltoastrelid), reloftype, pg_get_expr(relpartbound, c.oid)) from pg_class c where c.oid = t.oid
 union all select pg_get_expr(adbin, adrelid) || adnum from pg_attrdef where adrelid = t.oid
 union all select polname || polcmd::text || polpermissive || polroles::text || coalesce(pg_get_expr(polqual, polrelid), '') || coalesce(pg_get_expr(polwithcheck, polrelid), '') from pg_policy where polrelid = t.oid) q (x)`

// newOnline prepares the move; nil if the table has no primary key by which changes can be noted, or is partitioned.
func (mv *Mover) newOnline(ctx context.Context, d *shardmap.DB, home *pgx.Conn, t shardmap.Table, x shardmap.Attempt, j *job) (*online, error) {
	info := &shardmap.TableInfo{TableName: t.TableName(), Kind: t.Kind, Keys: t.Key, Group: d.Groups[t.Group]}
	var to []copying
	for _, s := range d.Shards {
		if s != d.Home {
			to = append(to, copying{s.Name, s.Ordinal, func(ctx context.Context) (*pgx.Conn, error) { return mv.openFor(ctx, d, s, x.ID) }, mv.Conns})
		}
	}
	return mv.onlineTo(ctx, d, home, info, x.ID, markOf(x.ID), to, j)
}

// onlineTo is newOnline for the copies of a distribution on some shards.
func (mv *Mover) onlineTo(ctx context.Context, d *shardmap.DB, home *pgx.Conn, info *shardmap.TableInfo, distribution, mark string, to []copying, j *job) (*online, error) {
	o := &online{mv: mv, d: d, info: info, job: j, id: distribution, to: to, name: info.SQL(), mark: mark, notes: pgsql.Qualified("pgmosaic", mark), hint: "It is on home as before. Run DISTRIBUTE TABLE again.", late: map[string][]definition{}}
	var rows int64
	var err error
	o.names, err = notedKey(ctx, home, o.name)
	if err != nil || len(o.names) == 0 {
		return nil, err
	}
	for _, n := range o.names {
		o.key = append(o.key, pgsql.Ident(n))
	}
	if o.cols, err = copiedColumns(ctx, home, o.name); err != nil {
		return nil, err
	}
	if o.bare, err = bareColumns(ctx, home, o.name, o.names); err != nil {
		return nil, err
	}
	var partitioned bool
	if err := home.QueryRow(ctx, "select reltuples::bigint, relkind = 'p' from pg_class where oid = $1::text::regclass", o.name).Scan(&rows, &partitioned); err != nil {
		return nil, err
	}
	if partitioned { // its partitions may come and go meanwhile
		return nil, nil
	}
	if owner, err := ownerOf(ctx, home, o.name); err != nil || owner != "" { // what its owner's code needs is not for a table that is in use
		return nil, err
	}
	j.expect(rows)
	return o, home.QueryRow(ctx, shapeSQL, o.name).Scan(&o.shape)
}

// notedKey are the columns of a table's primary key; none where changes cannot be noted by it: there is none, a column of it is computed from others, or
// its values are equal by an operator that is not found for them.
func notedKey(ctx context.Context, home queryer, table string) (names []string, err error) {
	rows, err := home.Query(ctx, "select a.attname::text, a.attgenerated = '' and "+plainEqual+" "+primaryKey+" order by k.o", table)
	if err != nil {
		return nil, err
	}
	var name string
	var fit bool
	all := true
	_, err = pgx.ForEachRow(rows, []any{&name, &fit}, func() error { names, all = append(names, name), all && fit; return nil })
	if !all {
		names = nil
	}
	return names, err
}

// bareColumns are some columns of a table, in the types below their domains.
func bareColumns(ctx context.Context, home *pgx.Conn, table string, columns []string) (string, error) {
	all, err := stageColumns(ctx, home, table)
	var out []string
	for _, n := range columns {
		for _, c := range all {
			if c.name == pgsql.Ident(n) {
				out = append(out, c.name+"::"+c.typ+" AS "+c.name)
			}
		}
	}
	return strings.Join(out, ", "), err
}

// watch makes the trigger that notes changed keys. A TRUNCATE is a row of NULLs. It runs as the proxy's role, so it takes values of
// the types that it was made for only: others would be cast, by functions of the table's owner.
func (o *online) watch(ctx context.Context, home *pgx.Conn) error {
	types, err := strings1(ctx, home, "select a.atttypid::oid::text from unnest($2::text[]) with ordinality k (name, n) join pg_attribute a on a.attrelid = $1::text::regclass and a.attname = k.name order by k.n", o.name, o.names)
	if err != nil {
		return err
	}
	olds, news := make([]string, len(o.key)), make([]string, len(o.key))
	var oldTypes, newTypes []string
	for i, k := range o.key {
		olds[i], news[i] = "OLD."+k, "NEW."+k
		oldTypes, newTypes = append(oldTypes, "pg_typeof(OLD."+k+") <> "+types[i]), append(newTypes, "pg_typeof(NEW."+k+") <> "+types[i])
	}
	oldKey, newKey := strings.Join(olds, ", "), strings.Join(news, ", ")
	body := fmt.Sprintf(`BEGIN
		IF TG_OP = 'TRUNCATE' THEN INSERT INTO %[1]s DEFAULT VALUES; RETURN NULL; END IF;
		IF TG_OP <> 'INSERT' THEN IF %[4]s THEN RAISE %[6]s; END IF; END IF;
		IF TG_OP <> 'DELETE' THEN IF %[5]s THEN RAISE %[6]s; END IF; END IF;
		IF TG_OP <> 'INSERT' THEN INSERT INTO %[1]s VALUES (%[2]s); END IF;
		IF TG_OP = 'INSERT' THEN INSERT INTO %[1]s VALUES (%[3]s);
		ELSIF TG_OP = 'UPDATE' THEN IF (%[2]s) IS DISTINCT FROM (%[3]s) THEN INSERT INTO %[1]s VALUES (%[3]s); END IF; END IF;
		RETURN NULL; END`, o.notes, oldKey, newKey, strings.Join(oldTypes, " OR "), strings.Join(newTypes, " OR "),
		"EXCEPTION USING ERRCODE = '55006', MESSAGE = 'the primary key of a table that is being distributed was altered', HINT = 'Wait until DISTRIBUTE TABLE has ended: SHOW JOBS.'")
	changed, truncated := pgsql.Ident("pgmosaic_"+o.mark), pgsql.Ident("pgmosaic_truncated_"+o.mark)
	return pgx.BeginFunc(ctx, home, func(tx pgx.Tx) error {
		err := runBounded(
			ctx, tx, 10*time.Second,
			fmt.Sprintf("CREATE TABLE %s AS SELECT %s FROM %s WITH NO DATA", o.notes, o.bare, o.name),
			fmt.Sprintf("CREATE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %s", o.notes, pgsql.Literal(body)),
			fmt.Sprintf("REVOKE ALL ON FUNCTION %s() FROM PUBLIC", o.notes),
			fmt.Sprintf("CREATE TRIGGER %s AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION %s()", changed, o.name, o.notes),
			fmt.Sprintf("CREATE TRIGGER %s AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION %s()", truncated, o.name, o.notes),
			fmt.Sprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s, ENABLE ALWAYS TRIGGER %s", o.name, changed, truncated),
		)
		if err != nil {
			return err
		}
		return tx.QueryRow(ctx, watchingSQL, o.name, o.notes).Scan(&o.marks)
	})
}

// watchingSQL is what the triggers are that note a table's changes. Each is also the transaction that has defined it: the table's owner could disable one, change
// rows, and enable it again.
const watchingSQL = "select coalesce(string_agg(concat_ws(' ', oid, xmin, tgenabled), ', ' order by oid), '') from pg_trigger where tgrelid = $1::text::regclass and tgfoid = ($2 || '()')::text::regprocedure"

// markOf is what an attempt calls the table, and the function, with which it notes changed keys. The triggers have it in their names: those that another
// attempt has left are in nobody's way.
func markOf(attempt string) string { return "changed_" + attempt }

// unwatch are the statements that take away what watch has made for an attempt: its id is in the names, and the triggers go with the
// functions that only they have.
func unwatch(attempt string) []string {
	return []string{fmt.Sprintf(`DO $pgmosaic$ DECLARE n name; BEGIN
		FOR n IN SELECT proname FROM pg_proc WHERE pronamespace = to_regnamespace('pgmosaic') AND proname ~ '^changed_%[1]s' LOOP EXECUTE format('DROP FUNCTION pgmosaic.%%I() CASCADE', n); END LOOP;
		FOR n IN SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('pgmosaic') AND relkind = 'r' AND relname ~ '^changed_%[1]s' LOOP EXECUTE format('DROP TABLE pgmosaic.%%I', n); END LOOP;
		END $pgmosaic$`, attempt)}
}

// unwatchAll is unwatch in a transaction of its own. Who reads a table that is watched holds it up: it is not waited for, as others
// would wait behind.
func unwatchAll(ctx context.Context, home *pgx.Conn, attempt string) error {
	err := pgx.BeginFunc(ctx, home, func(tx pgx.Tx) error {
		return runBounded(ctx, tx, time.Second, append([]string{"SET LOCAL client_min_messages = warning"}, unwatch(attempt)...)...)
	})
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == pgsql.LockNotAvailable {
		return &pgsql.Error{Code: pgsql.ObjectInUse, Message: "the triggers that noted changes cannot be dropped from tables on home while sessions use these", Hint: "pg_locks on home's node shows which."}
	}
	return err
}

// copyAll makes the table on every other shard and copies its rows there, from one snapshot.
func (o *online) copyAll(ctx context.Context, home *pgx.Conn) error {
	tx, err := o.openSnapshot(ctx, home)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // it only reads
	// they begin anew in the last round
	seqs, err := sequencesOn(ctx, home, o.info, o.d.Home.Ordinal)
	if err != nil {
		return ownOr(o.d.Home.Name, err)
	}
	for _, s := range o.d.Shards {
		if s == o.d.Home {
			continue
		}
		o.job.phase("copying to shard " + s.Name)
		if o.late[s.Name], err = o.mv.fillShard(ctx, o.d, s, home, o.info, filling{o.id, seqs, o.job}); err != nil {
			return err
		}
	}
	return nil
}

// openSnapshot begins a transaction that sees one state of home, in which the table is what it was when the copies were made, and stays so.
func (o *online) openSnapshot(ctx context.Context, home *pgx.Conn) (pgx.Tx, error) {
	tx, err := frozenSince(ctx, home, o.info.TableName)
	if err != nil {
		return nil, ownOr(o.d.Home.Name, err)
	}
	if err := o.still(ctx, tx); err != nil {
		_ = tx.Rollback(context.WithoutCancel(ctx)) // nothing was done in it
		return nil, err
	}
	return tx, nil
}

// still makes sure, for home's transaction in which the table is frozen, that it is what it was, and has got nothing that its owner's code would be run for.
func (o *online) still(ctx context.Context, tx pgx.Tx) error {
	var shape string
	err := tx.QueryRow(ctx, shapeSQL, o.name).Scan(&shape)
	if err == nil && shape != o.shape {
		return o.altered()
	}
	if err == nil {
		var owner string
		if owner, err = ownerOf(ctx, tx, o.name); owner != "" {
			return o.altered()
		}
	}
	return ownOr(o.d.Home.Name, err)
}

func (o *online) altered() error { return altered(o.info.TableName, o.hint) }

func altered(n shardmap.TableName, hint string) error {
	return &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("table %s was altered while it moved", n), Hint: hint}
}

// catchUp copies again what has changed, until little is left.
func (o *online) catchUp(ctx context.Context, home *pgx.Conn) error {
	last := int64(1 << 62)
	for n := range maxRounds {
		o.job.phase(fmt.Sprintf("catching up, round %d", n+1))
		tx, err := o.openSnapshot(ctx, home)
		if err != nil {
			return err
		}
		keys, err := o.round(ctx, home, false, nil)
		if err == nil {
			err = nodeFailedOrNil(o.d.Home.Name, tx.Commit(ctx))
		}
		_ = tx.Rollback(context.WithoutCancel(ctx)) // nothing to do after COMMIT
		if err != nil {
			return err
		}
		if keys <= fewKeys || n > 3 && keys >= last {
			return nil
		}
		last = keys
	}
	return nil
}

func nodeFailedOrNil(name string, err error) error {
	if err == nil {
		return nil
	}
	return nodeFailed(name, err)
}

// round copies the rows of the keys noted so far, as home's open transaction sees both, and forgets the keys. In the last one
// each shard also gets what belongs to the whole table, and seqs are its sequences.
func (o *online) round(ctx context.Context, home *pgx.Conn, last bool, seqs *shardSequences) (keys int64, err error) {
	var all bool
	if !last {
		var some bool
		if err := home.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+o.notes+")").Scan(&some); err != nil || !some {
			return 0, nodeFailedOrNil(o.d.Home.Name, err)
		}
	}
	list := strings.Join(o.key, ", ")
	if _, err := home.Exec(ctx, fmt.Sprintf("CREATE TEMPORARY TABLE pgmosaic_keys ON COMMIT DROP AS SELECT DISTINCT %s FROM %s; DELETE FROM %[2]s; ANALYZE pgmosaic_keys", list, o.notes)); err != nil {
		return 0, nodeFailed(o.d.Home.Name, err)
	}
	if err := home.QueryRow(ctx, fmt.Sprintf("SELECT count(*), bool_or(%s IS NULL) IS TRUE FROM pgmosaic_keys", o.key[0])).Scan(&keys, &all); err != nil {
		return 0, nodeFailed(o.d.Home.Name, err)
	}
	for _, s := range o.to {
		if err := o.roundOn(ctx, home, s, all, last, seqs.at(s.ordinal)); err != nil {
			return 0, err
		}
	}
	o.job.add(keys)
	_, err = home.Exec(ctx, "DROP TABLE pg_temp.pgmosaic_keys") // another table's may follow in this transaction
	return keys, nodeFailedOrNil(o.d.Home.Name, err)
}

func (o *online) roundOn(ctx context.Context, home *pgx.Conn, s copying, all, last bool, seqs *shardSequences) error {
	dst, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer giveBack(ctx, s.conns, dst)
	list := strings.Join(o.key, ", ")
	remove, where := fmt.Sprintf("DELETE FROM %s AS pgmosaic_t USING pgmosaic_keys AS pgmosaic_k WHERE (%s) = (%s)", o.name, qualified("pgmosaic_t", o.key), qualified("pgmosaic_k", o.key)), "("+list+") IN (SELECT "+list+" FROM pgmosaic_keys)"
	if all {
		remove, where = "DELETE FROM "+o.name, "true"
	}
	if o.info.Kind == shardmap.Sharded {
		where += " AND " + placeWhere(o.d, o.info, s.name)
	}
	return ownOr(s.name, pgx.BeginFunc(ctx, dst, func(tx pgx.Tx) error {
		if err := named(ctx, tx, []string{"LOCK TABLE " + o.name + " IN ROW EXCLUSIVE MODE"}, o.info.TableName); err != nil {
			return err
		}
		if err := ours(ctx, tx, s.name, o.info.TableName, o.id); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf("CREATE TEMPORARY TABLE pgmosaic_keys ON COMMIT DROP AS SELECT %s FROM %s WITH NO DATA", o.bare, o.name)); err != nil {
			return err
		}
		if err := copyQuery(ctx, home, dst, "SELECT "+list+" FROM pgmosaic_keys WHERE "+o.key[0]+" IS NOT NULL", "pg_temp.pgmosaic_keys", list, nil); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, remove); err != nil {
			return err
		}
		cols := strings.Join(o.cols, ", ")
		if err := copyQuery(ctx, home, dst, "SELECT "+cols+" FROM ONLY "+o.name+" WHERE "+where, o.name, cols, nil); err != nil {
			return err
		}
		if !last {
			return nil
		}
		if err := run(ctx, tx, seqs.restarts(o.name)); err != nil {
			return err
		}
		if err := finish(ctx, home, tx, o.late[s.name], true, o.info.TableName); err != nil {
			return err
		}
		return watchCopy(ctx, tx, o.info)
	}))
}

func qualified(table string, cols []string) string {
	out := make([]string, len(cols))
	for i, c := range cols {
		out[i] = table + "." + c
	}
	return strings.Join(out, ", ")
}

// finish follows the last changes, under the lock that home's transaction holds. It holds the table's sequences, too.
func (o *online) finish(ctx context.Context, home *pgx.Conn, tx pgx.Tx, seqs *shardSequences) error {
	o.job.phase("switching")
	var marks string
	if err := tx.QueryRow(ctx, watchingSQL, o.name, o.notes).Scan(&marks); err != nil {
		return nodeFailed(o.d.Home.Name, err)
	}
	if marks != o.marks {
		return o.altered()
	}
	if err := frozen(ctx, tx, o.info.TableName); err != nil {
		return ownOr(o.d.Home.Name, err)
	}
	if err := o.still(ctx, tx); err != nil {
		return err
	}
	_, err := o.round(ctx, home, true, seqs)
	return err
}
