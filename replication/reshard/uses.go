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
// type. On home nothing changes by that: what is defined keeps what it meant, unless it is taken away and made anew (see meaning). A copy would
// run the new one, as a role that nobody has considered for it (see owner.go), or keep rows that home refuses. So what copies depend on is compared with what
// home's depend on.

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
  union all select 'pg_trigger'::regclass, oid from pg_trigger where tgrelid = t.oid and not tgisinternal and ` + usersTrigger + `
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
	name, used, meant := strayUse(want, have, len(table) > 0)
	if name == "" {
		return nil
	}
	return &pgsql.Error{
		Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("%s on a shard uses %s, which home's does not, by the same words", name, used),
		Detail: "On home it uses " + meant + ".", Hint: "DROP or rename what home's does not use, if it was added later: on all shards, or on the one that alone has it. Nothing is left of the statement.",
	}
}

// strayUse finds a node that depends on something that the one of its name should not; none if name is empty. Of a table nodes are looked at that have no such
// namesake, too.
func strayUse(want, have map[string]map[string]bool, ofTable bool) (name, used, meant string) {
	all := map[string]bool{}
	for _, of := range want {
		maps.Copy(all, of)
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		may := want[name]
		if may == nil {
			if !ofTable {
				continue // home has it not
			}
			may = all
		}
		for _, used := range slices.Sorted(maps.Keys(have[name])) {
			if !may[used] {
				return strings.TrimPrefix(name, "pg_"), used, strings.Join(slices.Sorted(maps.Keys(may)), ", ")
			}
		}
	}
	return "", "", ""
}

// meaning is what a table's definitions on home depend on, and what is said of them, before some of them are taken away to be made anew by the same words.
type meaning struct {
	table    shardmap.TableName
	uses     map[string]map[string]bool
	comments []string
}

// meanings are those of some tables, whose definitions nobody else changes.
func meanings(ctx context.Context, tx pgx.Tx, tables ...shardmap.TableName) (out []meaning, err error) {
	for _, n := range tables {
		m := meaning{table: n}
		if m.uses, err = uses(ctx, tx, tableUsesSQL, n.SQL()); err == nil {
			m.comments, err = strings1(ctx, tx, `select format('COMMENT ON CONSTRAINT %I ON %I.%I IS %L', k.conname, n.nspname, c.relname, d.description) from pg_constraint k join pg_class c on c.oid = k.conrelid
			  join pg_namespace n on n.oid = c.relnamespace join pg_description d on d.classoid = 'pg_constraint'::regclass and d.objoid = k.oid
			 where (c.oid = $1::text::regclass or c.oid in (select relid from pg_partition_tree($1::text::regclass))) and k.coninhcount = 0 and k.conname <> 'pgmosaic_slot' order by 1`, n.SQL())
		}
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// settleConstraints judges rows that have moved now by the constraints that are put off to the end: a table with something put off takes no definition.
const settleConstraints = "SET CONSTRAINTS ALL IMMEDIATE"

// redefine makes what was taken away. It must mean what it did: somebody may have added a function since that fits its words better.
func redefine(ctx context.Context, tx pgx.Tx, list []definition, was []meaning) error {
	if err := run(ctx, tx, []string{settleConstraints}); err != nil {
		return err
	}
	if err := define(ctx, tx, list); err != nil {
		return err
	}
	for _, m := range was {
		have, err := uses(ctx, tx, tableUsesSQL, m.table.SQL())
		if err != nil {
			return err
		}
		if name, used, meant := strayUse(m.uses, have, true); name != "" {
			return &pgsql.Error{
				Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("%s is made anew on home, and would use %s, which it does not now, by the same words", name, used),
				Detail: "It uses " + meant + ".", Hint: "DROP or rename on home what it does not use, if that was added later. Nothing was changed.",
			}
		}
		if err := run(ctx, tx, m.comments); err != nil {
			return err
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
func finish(ctx context.Context, home *pgx.Conn, tx querier, late []definition, inUse bool, tables ...shardmap.TableName) error {
	for _, n := range tables {
		owner, err := ownerOfMoving(ctx, home, n.SQL(), inUse)
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
