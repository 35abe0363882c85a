package reshard

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// What keeps values from coming twice where shards go, and where tables draw from one sequence.

// passOn has home's sequences count on above what a shard that is about to be dropped has drawn, so that home does when it counts in ones
// again. lost are the tables of which that is not known: the shard, or home, does not answer, or nothing is left above.
func passOn(ctx context.Context, mv *Mover, d *shardmap.DB, s *shardmap.ShardInfo) (lost map[shardmap.TableName]bool) {
	lost = map[shardmap.TableName]bool{}
	home, err := mv.openShard(ctx, d.Name, d.Home)
	why := err
	if err == nil {
		defer giveBack(ctx, mv.Conns, home)
	}
	var src *pgx.Conn
	if err == nil && mv.Monitor.View(d.Name, s.Name).Up() {
		if c, err := mv.openShard(ctx, d.Name, s); err == nil {
			src = c
			defer giveBack(ctx, mv.Conns, src)
		}
	}
	for _, t := range d.SortedTables() {
		if t.Kind != shardmap.Sharded || t.Part {
			continue
		}
		if err == nil {
			known, failed := passOnTable(ctx, home, src, d, t)
			if known && failed == nil {
				continue
			}
			why = cmp.Or(failed, why)
		}
		lost[t.TableName] = true
	}
	if len(lost) > 0 {
		mv.Log.Warn("it is not known what values a dropped shard has drawn from the sequences of sharded tables", "database", d.Name, "shard", s.Name, "tables", len(lost), "hint", "home's will count on in steps when they are undistributed", "error", why)
	}
	return lost
}

// passOnTable does so for one table. src is nil if the shard does not answer.
func passOnTable(ctx context.Context, home, src *pgx.Conn, d *shardmap.DB, t *shardmap.TableInfo) (known bool, err error) {
	cols, err := drawnColumns(ctx, home, t.TableName, t.Keys)
	if err != nil {
		return false, err
	}
	for _, c := range cols {
		switch {
		case c.isKey:
			continue
		case src == nil:
			return false, nil
		}
		top, err := highest(ctx, t.TableName, c, src)
		if err != nil {
			return false, err
		}
		if top <= c.last {
			continue
		}
		next := firstValue(top, d.Home.Ordinal)
		if next > c.maximum {
			return false, nil
		}
		if err := pgx.BeginFunc(ctx, home, func(tx pgx.Tx) error { return raise(ctx, tx, c, next) }); err != nil {
			return false, err
		}
	}
	return true, nil
}

// raise has a sequence give next, unless it is above that already. Nobody draws from it meanwhile.
func raise(ctx context.Context, tx pgx.Tx, c drawn, next int64) error {
	if err := runBounded(ctx, tx, definitionWait, holdSequence(c)); err != nil {
		return err
	}
	if err := c.readLast(ctx, tx); err != nil || c.last >= next {
		return err
	}
	return run(ctx, tx, []string{fmt.Sprintf("ALTER SEQUENCE %s RESTART WITH %d", c.sequence, next)})
}

// holdSequence changes nothing of a sequence, and nobody draws from it until the transaction has ended.
func holdSequence(c drawn) string {
	return fmt.Sprintf("ALTER SEQUENCE %s INCREMENT BY %d", c.sequence, c.increment)
}

// holdDrawn has nobody draw from home's sequences of a sharded table until the transaction has ended, by hand neither: how far they have come is
// read behind it, and what was drawn between that and their restart would come again.
func holdDrawn(ctx context.Context, mv *Mover, d *shardmap.DB, tx pgx.Tx, t *shardmap.TableInfo) error {
	if t.Kind != shardmap.Sharded || len(t.Keys) == 0 {
		return nil
	}
	cols, err := drawnColumns(ctx, tx, t.TableName, t.Keys)
	if err != nil {
		return err
	}
	var hold []string
	for _, c := range cols {
		if !c.isKey {
			hold = append(hold, holdSequence(c))
		}
	}
	return runShortly(ctx, mv, tx, d, hold)
}

// checkHeld checks a table that is to be distributed, and holds its sequences.
func checkHeld(ctx context.Context, mv *Mover, d *shardmap.DB, tx pgx.Tx, t shardmap.Table, localUnique bool) error {
	if err := checkTable(ctx, tx.Conn(), d, t, localUnique); err != nil {
		return err
	}
	return ownOr(d.Home.Name, holdDrawn(ctx, mv, d, tx, d.Tables[t.TableName()]))
}

// markLost notes them in the map.
func markLost(tx *shardmap.Tx, doc *shardmap.Document, db string, lost map[shardmap.TableName]bool) error {
	for _, t := range doc.Tables {
		if t.Database == db && lost[t.TableName()] && !t.Lost {
			marked := *t
			marked.Lost = true
			if err := tx.PutTable(marked); err != nil {
				return err
			}
		}
	}
	return nil
}

// sharedSQL lists the columns of a table, or of its partitions, that draw from a sequence, or if $2 says so own one, and the columns of others that draw
// from the same one.
const sharedSQL = `with own (oid) as (select $1::text::regclass::oid union select relid::oid from pg_partition_tree($1::text::regclass)),
draws (rel, att, seq) as (select f.adrelid, f.adnum, s.seqrelid from pg_sequence s join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = s.seqrelid join pg_attrdef f on f.oid = d.objid
  union select d.refobjid, d.refobjsubid, s.seqrelid from pg_sequence s join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.seqrelid and d.refclassid = 'pg_class'::regclass and d.deptype = 'i'),
has as (select * from draws union select d.refobjid, d.refobjsubid, s.seqrelid from pg_sequence s join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.seqrelid and d.refclassid = 'pg_class'::regclass and d.deptype = 'a' where $2::bool)
select distinct a.attname::text, x.seq::regclass::text, n.nspname::text, c.relname::text, b.attname::text
  from has x join pg_attribute a on a.attrelid = x.rel and a.attnum = x.att join draws y on y.seq = x.seq join pg_attribute b on b.attrelid = y.rel and b.attnum = y.att
  join pg_class l on l.oid = y.rel join pg_class c on c.oid = coalesce(case when l.relispartition then pg_partition_root(l.oid) end, l.oid) join pg_namespace n on n.oid = c.relnamespace
 where x.rel in (select oid from own) and y.rel not in (select oid from own) order by 1, 2, 3, 4, 5`

// sharing is a column that draws from the sequence that a column of another table draws from.
type sharing struct {
	column, sequence string
	other            shardmap.TableName
	otherColumn      string
}

// shared finds a column of a table that draws from a sequence on other shards than home, or with owns has one, from which a column of another,
// distributed table draws; nil for none.
func shared(ctx context.Context, home queryer, d *shardmap.DB, t shardmap.Table, owns bool) (found *sharing, err error) {
	rows, _ := home.Query(ctx, sharedSQL, t.TableName().SQL(), owns) // an error comes with the rows
	var x sharing
	_, err = pgx.ForEachRow(rows, []any{&x.column, &x.sequence, &x.other.Schema, &x.other.Name, &x.otherColumn}, func() error {
		info := d.Table(x.other)
		if one := x; found == nil && !slices.Contains(t.Key, x.column) && info != nil && !info.IsKey(x.otherColumn) {
			found = &one
		}
		return nil
	})
	return found, err
}

// checkShared refuses to bring a table to other shards that draws from the sequence of another: on one shard one of them would begin anew, or
// one would count in ones while the other's shards are in their places.
func checkShared(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table) error {
	x, err := shared(ctx, home, d, t, false)
	if err != nil || x == nil {
		return nodeFailedOrNil(d.Home.Name, err)
	}
	return &pgsql.Error{
		Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("table %s cannot be brought to other shards: column %s draws from sequence %s, and so does column %s of table %s, which is distributed", t.TableName(), x.column, x.sequence, x.otherColumn, x.other),
		Hint: "Give each a sequence of its own: ALTER TABLE ... ALTER COLUMN ... SET DEFAULT nextval('...'), or DROP DEFAULT.",
	}
}

// checkSharedHome refuses to bring such a table home.
func checkSharedHome(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table) error {
	if t.Kind != shardmap.Sharded {
		return nil
	}
	x, err := shared(ctx, home, d, t, true)
	if err != nil || x == nil {
		return nodeFailedOrNil(d.Home.Name, err)
	}
	return &pgsql.Error{
		Code: pgsql.DependentObjectsStillExist, Message: fmt.Sprintf("table %s cannot be brought home: from sequence %s of its column %s column %s of table %s draws, too, which is distributed", t.TableName(), x.sequence, x.column, x.otherColumn, x.other),
		Hint: "Nothing was changed. Give one of them a sequence of its own, through this process: ALTER TABLE ... ALTER COLUMN ... SET DEFAULT nextval('...'), or DROP DEFAULT. Then run the statement again.",
	}
}

// countHome has home's sequences count in ones again, behind all that was drawn from those of a table, if that is known.
func countHome(ctx context.Context, mv *Mover, d *shardmap.DB, tx pgx.Tx, info *shardmap.TableInfo, others []*pgx.Conn) error {
	if t, ok := mv.declaredTable(d.Name, info.TableName); ok { // again: until the lock another table's default could be set
		if err := checkSharedHome(ctx, tx.Conn(), d, t); err != nil {
			return err
		}
	}
	if info.Lost {
		mv.Log.Warn("the sequences of a table count on in steps: a shard was dropped, and it is not known what it has drawn", "database", d.Name, "table", info.String(),
			"hint", "ALTER SEQUENCE .. INCREMENT BY 1 RESTART WITH a value above all that were ever seen")
		return nil
	}
	if err := holdDrawn(ctx, mv, d, tx, info); err != nil {
		return err
	}
	seqs, err := sequencesOn(ctx, tx.Conn(), info, d.Home.Ordinal, others...)
	if err != nil {
		return err
	}
	return runShortly(ctx, mv, tx, d, seqs.ones())
}

// placeHome has home's sequences count in home's place again, above all: while home was the only shard, nothing kept them there.
func placeHome(ctx context.Context, mv *Mover, d *shardmap.DB, tx pgx.Tx) error {
	for _, t := range d.SortedTables() {
		if err := holdDrawn(ctx, mv, d, tx, t); err != nil {
			return err
		}
		seqs, err := sequencesOn(ctx, tx.Conn(), t, d.Home.Ordinal)
		if err == nil {
			err = runShortly(ctx, mv, tx, d, seqs.strides())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
