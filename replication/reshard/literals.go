package reshard

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Literals that run code. PostgreSQL reads a literal where it parses a statement: that of an array, composite or range type by way of what
// the type is made of, and a domain among that judges it by its CHECKs then, as whoever defines. Nothing of it is evaluated, and no
// owner asked. So what is made on a shard as the role of its node has no literal of a type that an ordinary role can give such code.

// literalIn finds the types of the literals in an expression's tree. NULL is none.
const literalIn = `regexp_matches(tree, ':consttype ([0-9]+)(?: :const[a-z]+ [-a-z0-9]+)* :constisnull false', 'g') l where l[1]::oid >= 16384`

// objectLiteralsSQL has for objects that objectsSQL lists the types of the literals in them. What an aggregate begins with is one.
const objectLiteralsSQL = `with part (class, obj, tree) as (
  select 'pg_proc'::regclass::oid, p.oid, coalesce(p.proargdefaults::text, '') || coalesce(to_jsonb(p) ->> 'prosqlbody', '') from pg_proc p where p.oid >= 16384
  union all select 'pg_type'::regclass, oid, typdefaultbin::text from pg_type where oid >= 16384 and typdefaultbin is not null
  union all select 'pg_type'::regclass, contypid, conbin::text from pg_constraint where contypid >= 16384)
select class, obj, l[1]::oid from part, ` + literalIn + `
union select 'pg_proc'::regclass, aggfnoid::oid, aggtranstype from pg_aggregate where agginitval is not null and aggfnoid::oid >= 16384 and aggtranstype >= 16384
union select 'pg_proc'::regclass, aggfnoid::oid, aggmtranstype from pg_aggregate where aggminitval is not null and aggfnoid::oid >= 16384 and aggmtranstype >= 16384`

// tableLiteralsSQL has them for what a table and its partitions have and is made as the nodes' role; $2 says that the table itself is not.
// CHECKs, generated columns and what partitions are made by are made as the owner of what they depend on: see ownerOf.
const tableLiteralsSQL = `with tables (oid) as (select $1::text::regclass::oid union select relid::oid from pg_partition_tree($1::text::regclass)), part (name, tree) as (
  select format('the default of column %I', a.attname), d.adbin::text from tables t join pg_attrdef d on d.adrelid = t.oid join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum where a.attgenerated = '' and not $2
  union all select 'index ' || i.indexrelid::regclass, coalesce(i.indexprs::text, '') || coalesce(i.indpred::text, '') from tables t join pg_index i on i.indrelid = t.oid
  union all select format('statistics %I', s.stxname), coalesce(to_jsonb(s) ->> 'stxexprs', '') from tables t join pg_statistic_ext s on s.stxrelid = t.oid
  union all select format('trigger %I', g.tgname), g.tgqual::text from tables t join pg_trigger g on g.tgrelid = t.oid where not g.tgisinternal and g.tgqual is not null
  union all select format('policy %I', p.polname), coalesce(p.polqual::text, '') || coalesce(p.polwithcheck::text, '') from tables t join pg_policy p on p.polrelid = t.oid)
select distinct name, l[1]::oid from part, ` + literalIn + ` order by 1, 2`

// objectLiterals has the types of the literals in what users have defined.
func objectLiterals(ctx context.Context, q queryer) (map[node][]uint32, error) {
	out := map[node][]uint32{}
	var of node
	var typ uint32
	rows, err := q.Query(ctx, objectLiteralsSQL)
	if err != nil {
		return nil, err
	}
	_, err = pgx.ForEachRow(rows, []any{&of.Class, &of.OID, &typ}, func() error { out[of] = append(out[of], typ); return nil })
	return out, err
}

// inert is an error if a literal of one of some types runs code of a role that is not to be trusted. in is where it stands.
func inert(ctx context.Context, q queryer, in string, types ...uint32) error {
	for _, t := range types {
		code, err := strings1(ctx, q, foreignTypeSQL, t)
		if err != nil {
			return err
		}
		if len(code) > 0 {
			return &pgsql.Error{
				Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("%s holds a literal of a type made with %s, whose CHECKs would run on a shard as the role of its node", in, strings.Join(code, ", ")),
				Hint: "Write a value that is put together when it is used, ROW(..)::type or ARRAY[..]::type[], in place of the literal. What begins an aggregate can be NULL, if its function is not strict.",
			}
		}
	}
	return nil
}

// literalOwnerSQL is the ordinary role that an object belongs to.
const literalOwnerSQL = `select r.rolname::text from pg_roles r where r.oid in (select proowner from pg_proc where $1 = 'pg_proc'::regclass::oid and oid = $2 union select typowner from pg_type where $1 = 'pg_type'::regclass::oid and oid = $2)
   and not r.rolsuper and r.rolname <> current_user`

// literalOwner is the role as which an object with literals of some types is to be made; empty if they run nothing. It is an error if
// they run what the object's owner must not.
func literalOwner(ctx context.Context, home queryer, o object, types []uint32) (owner string, err error) {
	runs := inert(ctx, home, o.Name+", which home has,", types...)
	if runs == nil {
		return "", nil
	}
	owners, err := strings1(ctx, home, literalOwnerSQL, o.Class, o.OID)
	if err == nil && len(owners) == 0 {
		err = runs
	}
	return strings.Join(owners, ""), err
}

// asIts is asOwner where the proxy's schema may be missing yet: what is only tried is undone with it.
func asIts(ctx context.Context, tx querier, owner, sql string) error {
	if err := run(ctx, tx, []string{"CREATE SCHEMA IF NOT EXISTS pgmosaic"}); err != nil {
		return err
	}
	return asOwner(ctx, tx, owner, sql)
}

// inertTable is inert for what a table has and is made as the nodes' role. owner is ownerOf.
func inertTable(ctx context.Context, home queryer, n shardmap.TableName, owner string) error {
	rows, err := home.Query(ctx, tableLiteralsSQL, n.SQL(), owner != "")
	if err != nil {
		return err
	}
	type literal struct {
		In   string
		Type uint32
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[literal])
	for _, l := range list {
		if err == nil {
			err = inert(ctx, home, fmt.Sprintf("%s of table %s", l.In, n), l.Type)
		}
	}
	return err
}
