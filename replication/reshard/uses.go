package reshard

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// What the words of a definition mean on a shard. They name schemas, and the types of what they give to functions, and still they can mean
// something else where somebody has added a function, operator or cast that fits better than home's, one for integers beside one for any
// type. On home nothing changes by that: what is defined keeps what it meant. A copy would run the new one, as a role that nobody has
// considered for it (see owner.go), or keep rows that home refuses. So what copies depend on is compared with what home's depend on.

// usedSQL is the end of such a question: of each node what it depends on, by names that are the same on all servers.
const usedSQL = `
select distinct n.class::regclass || ' ' || (pg_identify_object(n.class, n.obj, 0)).identity, (select type || ' ' || identity from pg_identify_object(d.refclassid, d.refobjid, 0))
  from node n, lateral (select refclassid, refobjid from pg_depend where classid = n.class and objid = n.obj and refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass,
   'pg_collation'::regclass, 'pg_ts_config'::regclass, 'pg_ts_dict'::regclass) offset 0) d order by 1, 2` // offset 0: by the index, for one node after the other

// tableUsesSQL asks it of a table, its partitions and all that they have.
const tableUsesSQL = `with tables (oid) as (select $1::text::regclass::oid union select relid::oid from pg_partition_tree($1::text::regclass)),
node (class, obj) as (select 'pg_class'::regclass::oid, oid from tables union all select x.class, x.obj from tables t, lateral (
  select 'pg_constraint'::regclass::oid, oid from pg_constraint where conrelid = t.oid and conname !~ '^pgmosaic_'
  union all select 'pg_attrdef'::regclass, oid from pg_attrdef where adrelid = t.oid
  union all select 'pg_class'::regclass, indexrelid from pg_index where indrelid = t.oid
  union all select 'pg_policy'::regclass, oid from pg_policy where polrelid = t.oid
  union all select 'pg_trigger'::regclass, oid from pg_trigger where tgrelid = t.oid and not tgisinternal and tgname !~ '^pgmosaic_'
  union all select 'pg_statistic_ext'::regclass, oid from pg_statistic_ext where stxrelid = t.oid) x (class, obj))` + usedSQL

// objectUsesSQL asks it of what users have defined and is of no table.
const objectUsesSQL = `with own (class, obj) as (select classid, objid from pg_depend where deptype = 'e'), node (class, obj) as (
  select 'pg_constraint'::regclass::oid, c.oid from pg_constraint c where c.contypid >= 16384 and not exists (select from own where class = 'pg_type'::regclass and obj = c.contypid)
  union all select 'pg_type'::regclass, oid from pg_type where oid >= 16384 and typtype in ('d', 'r') except select class, obj from own
  union all select 'pg_proc'::regclass, oid from pg_proc where oid >= 16384 except select class, obj from own
  union all select 'pg_operator'::regclass, oid from pg_operator where oid >= 16384 except select class, obj from own)` + usedSQL

// sameUses is an error if a node of a shard's depends on something that home's of that name does not, or, if home has none of that name
// and it is of a table, that nothing of the table does.
func sameUses(ctx context.Context, home queryer, shard querier, sql string, table ...any) error {
	want, err := uses(ctx, home, sql, table...)
	if err != nil {
		return err
	}
	have, err := uses(ctx, shard, sql, table...)
	if err != nil {
		return err
	}
	all := map[string]bool{}
	for _, of := range want {
		maps.Copy(all, of)
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		meant := want[name]
		if meant == nil {
			if len(table) == 0 {
				continue // home has it not
			}
			meant = all
		}
		for _, used := range slices.Sorted(maps.Keys(have[name])) {
			if !meant[used] {
				return &pgsql.Error{
					Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("%s on a shard uses %s, which home's does not, by the same words", strings.TrimPrefix(name, "pg_"), used),
					Detail: "On home it uses " + strings.Join(slices.Sorted(maps.Keys(meant)), ", ") + ".", Hint: "DROP or rename what home's does not use, if it was added later: on all shards, or on the one that alone has it. Nothing is left of the statement.",
				}
			}
		}
	}
	return nil
}

// uses has for each node's name what it depends on.
func uses(ctx context.Context, q queryer, sql string, args ...any) (map[string]map[string]bool, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	out := map[string]map[string]bool{}
	var of, used string
	_, err = pgx.ForEachRow(rows, []any{&of, &used}, func() error {
		if out[of] == nil {
			out[of] = map[string]bool{}
		}
		out[of][used] = true
		return nil
	})
	return out, err
}

// finish makes what tables get when their rows are there. The types of its literals may have been changed on the shard since they were asked.
func finish(ctx context.Context, home *pgx.Conn, tx querier, late []definition, tables ...shardmap.TableName) error {
	for _, n := range tables {
		owner, err := ownerOf(ctx, home, n.SQL())
		if err == nil {
			err = inertTable(ctx, home, tx, n, owner)
		}
		if err != nil {
			return err
		}
	}
	if err := define(ctx, tx, late); err != nil {
		return err
	}
	for _, n := range tables {
		if err := sameUses(ctx, home, tx, tableUsesSQL, n.SQL()); err != nil {
			return err
		}
	}
	return nil
}
