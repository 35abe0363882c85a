package reshard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// What users have defined and is of no table: types, routines, operators, casts, operator classes, collations, what searches text. Tables and statements need them on every
// shard. They are made in the order in which they depend on each other, and those that are alike in that in the order in which home
// made them: a domain may call a function that is younger, and be called by another.

// objectsSQL lists them all. The parts are named for what they list.
const objectsSQL = definedKinds + sortedKinds + searchKinds + " order by 2"

// definedKinds lists types, routines, operators and casts: the catalog and the OID, by which name servers tell it from others, what makes it, and what gives it to its
// owner. What belongs to an extension comes with that. Multiranges are there since PostgreSQL 14. What PostgreSQL brings, some hundreds or thousands of each kind, has OIDs below 16384.
const definedKinds = `with users (oid, name) as (select oid, nspname from pg_namespace where nspname !~ '^pg_' and nspname not in ('information_schema', 'pgmosaic')),
owned (class, obj) as (select classid, objid from pg_depend where deptype = 'e')
select 'pg_type'::regclass::oid, t.oid, format('type %I.%I', n.name, t.typname), array[case t.typtype
    when 'e' then format('CREATE TYPE %I.%I AS ENUM (%s)', n.name, t.typname, (select string_agg(quote_literal(enumlabel), ', ' order by enumsortorder) from pg_enum where enumtypid = t.oid))
    when 'c' then format('CREATE TYPE %I.%I AS (%s)', n.name, t.typname, (select string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)) ||
        case when a.attcollation not in (0, at.typcollation) then ' COLLATE ' || a.attcollation::regcollation else '' end, ', ' order by a.attnum)
        from pg_attribute a join pg_type at on at.oid = a.atttypid where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped))
    when 'r' then (select format('CREATE TYPE %I.%I AS RANGE (SUBTYPE = %s, SUBTYPE_OPCLASS = %I.%I', n.name, t.typname, format_type(r.rngsubtype, null), (select nspname from pg_namespace where oid = o.opcnamespace), o.opcname) || coalesce(', MULTIRANGE_TYPE_NAME = ' || (to_jsonb(r) ->> 'rngmultitypid')::regtype, '') ||
        case when r.rngcollation <> 0 then ', COLLATION = ' || r.rngcollation::regcollation else '' end || case when r.rngsubdiff::oid <> 0 then ', SUBTYPE_DIFF = ' || r.rngsubdiff else '' end || case when r.rngcanonical::oid <> 0 then ', CANONICAL = ' || r.rngcanonical else '' end || ')' from pg_range r join pg_opclass o on o.oid = r.rngsubopc where r.rngtypid = t.oid)
    else format('CREATE DOMAIN %I.%I AS %s%s%s%s%s', n.name, t.typname, format_type(t.typbasetype, t.typtypmod), case when t.typcollation <> b.typcollation then ' COLLATE ' || t.typcollation::regcollation else '' end, coalesce(' DEFAULT ' || coalesce(pg_get_expr(t.typdefaultbin, 0), quote_literal(t.typdefault)), ''), case when t.typnotnull then ' NOT NULL' else '' end,
        coalesce((select string_agg(format(' CONSTRAINT %I %s', c.conname, pg_get_constraintdef(c.oid)), '' order by c.conname) from pg_constraint c where c.contypid = t.oid and c.contype = 'c'), '')) end,
   format('ALTER TYPE %I.%I OWNER TO %I', n.name, t.typname, pg_get_userbyid(t.typowner))]
  from pg_type t join users n on n.oid = t.typnamespace left join pg_type b on b.oid = t.typbasetype
 where t.oid >= 16384 and (t.typtype in ('e', 'd', 'r') or t.typtype = 'c' and exists (select from pg_class c where c.oid = t.typrelid and c.relkind = 'c')) and not exists (select from owned where class = 'pg_type'::regclass and obj = t.oid)
union all
select 'pg_proc'::regclass, p.oid, format('function %s', p.oid::regprocedure), array[case p.prokind when 'a' then format('CREATE AGGREGATE %I.%I(%s) (SFUNC = %s, STYPE = %s', n.name, p.proname, coalesce(nullif(pg_get_function_identity_arguments(p.oid), ''), '*'), g.aggtransfn, format_type(g.aggtranstype, null)) ||
      case when g.aggfinalfn::oid <> 0 then format(', FINALFUNC = %s', g.aggfinalfn) || case when g.aggfinalextra then ', FINALFUNC_EXTRA' else '' end else '' end || coalesce(', INITCOND = ' || quote_literal(g.agginitval), '') ||
      format(', FINALFUNC_MODIFY = %s', case g.aggfinalmodify when 'r' then 'READ_ONLY' when 's' then 'SHAREABLE' else 'READ_WRITE' end) || coalesce(', SSPACE = ' || nullif(g.aggtransspace, 0), '') ||
      case when g.aggcombinefn::oid <> 0 then format(', COMBINEFUNC = %s', g.aggcombinefn) else '' end || case when g.aggserialfn::oid <> 0 then format(', SERIALFUNC = %s, DESERIALFUNC = %s', g.aggserialfn, g.aggdeserialfn) else '' end ||
      case when g.aggmtransfn::oid <> 0 then format(', MSFUNC = %s, MINVFUNC = %s, MSTYPE = %s', g.aggmtransfn, g.aggminvtransfn, format_type(g.aggmtranstype, null)) || coalesce(', MINITCOND = ' || quote_literal(g.aggminitval), '') ||
        format(', MFINALFUNC_MODIFY = %s', case g.aggmfinalmodify when 'r' then 'READ_ONLY' when 's' then 'SHAREABLE' else 'READ_WRITE' end) || coalesce(', MSSPACE = ' || nullif(g.aggmtransspace, 0), '') ||
        case when g.aggmfinalfn::oid <> 0 then format(', MFINALFUNC = %s', g.aggmfinalfn) || case when g.aggmfinalextra then ', MFINALFUNC_EXTRA' else '' end else '' end else '' end ||
      case when g.aggsortop <> 0 then (select format(', SORTOP = OPERATOR(%I.%s)', x.nspname, w.oprname) from pg_operator w join pg_namespace x on x.oid = w.oprnamespace where w.oid = g.aggsortop) else '' end || case p.proparallel when 's' then ', PARALLEL = SAFE' when 'r' then ', PARALLEL = RESTRICTED' else '' end || case g.aggkind when 'h' then ', HYPOTHETICAL' else '' end || ')'
    else regexp_replace(pg_get_functiondef(p.oid), '^CREATE OR REPLACE', 'CREATE') end, format('ALTER ROUTINE %s OWNER TO %I', p.oid::regprocedure, pg_get_userbyid(p.proowner))]
  from pg_proc p join users n on n.oid = p.pronamespace left join pg_aggregate g on g.aggfnoid = p.oid
 where p.oid >= 16384 and not exists (select from owned where class = 'pg_proc'::regclass and obj = p.oid) and not exists (select from pg_depend d join pg_range r on r.rngtypid = d.refobjid or (to_jsonb(r) ->> 'rngmultitypid')::oid = d.refobjid where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.refclassid = 'pg_type'::regclass and d.deptype = 'i')
union all
select 'pg_operator'::regclass, o.oid, format('operator %s', o.oid::regoperator), array[format('CREATE OPERATOR %I.%s (FUNCTION = %s', n.name, o.oprname, o.oprcode) ||
      case when o.oprleft <> 0 then ', LEFTARG = ' || format_type(o.oprleft, null) else '' end || case when o.oprright <> 0 then ', RIGHTARG = ' || format_type(o.oprright, null) else '' end ||
      coalesce((select format(', COMMUTATOR = OPERATOR(%I.%s)', x.nspname, c.oprname) from pg_operator c join pg_namespace x on x.oid = c.oprnamespace where c.oid = o.oprcom), '') ||
      coalesce((select format(', NEGATOR = OPERATOR(%I.%s)', x.nspname, c.oprname) from pg_operator c join pg_namespace x on x.oid = c.oprnamespace where c.oid = o.oprnegate), '') ||
      case when o.oprrest::oid <> 0 then ', RESTRICT = ' || o.oprrest else '' end || case when o.oprjoin::oid <> 0 then ', JOIN = ' || o.oprjoin else '' end || case when o.oprcanhash then ', HASHES' else '' end || case when o.oprcanmerge then ', MERGES' else '' end || ')',
   format('ALTER OPERATOR %s OWNER TO %I', o.oid::regoperator, pg_get_userbyid(o.oprowner))]
  from pg_operator o join users n on n.oid = o.oprnamespace where o.oid >= 16384 and o.oprcode::oid <> 0 and not exists (select from owned where class = 'pg_operator'::regclass and obj = o.oid)
union all
select 'pg_cast'::regclass, c.oid, format('cast (%s AS %s)', format_type(c.castsource, null), format_type(c.casttarget, null)),
   array[format('CREATE CAST (%s AS %s) %s%s', format_type(c.castsource, null), format_type(c.casttarget, null), case c.castmethod when 'f' then 'WITH FUNCTION ' || c.castfunc::regprocedure when 'i' then 'WITH INOUT' else 'WITHOUT FUNCTION' end,
     case c.castcontext when 'a' then ' AS ASSIGNMENT' when 'i' then ' AS IMPLICIT' else '' end)]
  from pg_cast c where c.oid >= 16384 and not exists (select from owned where class = 'pg_cast'::regclass and obj = c.oid)
   and not exists (select from pg_depend d join pg_range r on r.rngtypid = d.refobjid or (to_jsonb(r) ->> 'rngmultitypid')::oid = d.refobjid where d.classid = 'pg_cast'::regclass and d.objid = c.oid and d.refclassid = 'pg_type'::regclass and d.deptype = 'i')
`

// needsSQL has what such objects depend on. A domain is also what its constraints are, a composite type what its columns are, an
// array what its elements are, and an operator class what its members are.
const needsSQL = `with part (class, obj, of_class, of) as (
  select 'pg_constraint'::regclass::oid, oid, 'pg_type'::regclass::oid, contypid from pg_constraint where contypid <> 0
  union all select 'pg_class'::regclass, typrelid, 'pg_type'::regclass, oid from pg_type where typtype = 'c'
  union all select 'pg_type'::regclass, typarray, 'pg_type'::regclass, oid from pg_type where typarray <> 0
  union all select 'pg_type'::regclass, (to_jsonb(r) ->> 'rngmultitypid')::oid, 'pg_type'::regclass, rngtypid from pg_range r where to_jsonb(r) ? 'rngmultitypid'
  union all select classid, objid, refclassid, refobjid from pg_depend where classid in ('pg_amop'::regclass, 'pg_amproc'::regclass) and refclassid = 'pg_opclass'::regclass)
select distinct coalesce(p.of_class, d.classid), coalesce(p.of, d.objid), coalesce(q.of_class, d.refclassid), coalesce(q.of, d.refobjid)
  from pg_depend d left join part p on p.class = d.classid and p.obj = d.objid left join part q on q.class = d.refclassid and q.obj = d.refobjid
 where (d.deptype = 'n' or d.classid in ('pg_opclass'::regclass, 'pg_amop'::regclass, 'pg_amproc'::regclass)) and d.refobjid >= 16384 and d.refclassid in ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_class'::regclass,
   'pg_am'::regclass, 'pg_opfamily'::regclass, 'pg_opclass'::regclass, 'pg_collation'::regclass, 'pg_ts_parser'::regclass, 'pg_ts_template'::regclass, 'pg_ts_dict'::regclass, 'pg_ts_config'::regclass)`

// node names an object of a database.
type node struct{ Class, OID uint32 }

// object is one of them, and what makes it.
type object struct {
	node
	Name string
	SQL  []string // the first makes it, the second says whose it is, if it is anybody's; who may use it, see grants.go
}

// anyObjectSQL says whether there may be such an object: most databases have none, and to list them takes a server long.
const anyObjectSQL = `select exists (select from pg_proc where oid >= 16384 and pronamespace is distinct from to_regnamespace('pgmosaic')::oid)
  or exists (select from pg_type where oid >= 16384 and (typtype in ('e', 'd', 'r') or typtype = 'c' and exists (select from pg_class c where c.oid = typrelid and c.relkind = 'c')))
  or exists (select from pg_operator where oid >= 16384) or exists (select from pg_cast where oid >= 16384) or exists (select from pg_collation where oid >= 16384) or exists (select from pg_am where oid >= 16384)
  or exists (select from pg_opfamily where oid >= 16384) or exists (select from pg_opclass where oid >= 16384) or exists (select from pg_amop where oid >= 16384) or exists (select from pg_amproc where oid >= 16384)
  or exists (select from pg_ts_parser where oid >= 16384) or exists (select from pg_ts_template where oid >= 16384) or exists (select from pg_ts_dict where oid >= 16384) or exists (select from pg_ts_config where oid >= 16384)`

// objects lists what a server has; nil if it has not even one that comes with an extension. Where home has none there is nothing to compare on
// shards, nor to bring.
func objects(ctx context.Context, q queryer) ([]object, error) {
	if some, err := anyObject(ctx, q); err != nil || !some {
		return nil, err
	}
	rows, err := q.Query(ctx, objectsSQL)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (o object, err error) {
		return o, r.Scan(&o.Class, &o.OID, &o.Name, &o.SQL)
	})
}

// anyObject says whether there may be one.
func anyObject(ctx context.Context, q queryer) (bool, error) {
	rows, err := q.Query(ctx, anyObjectSQL)
	if err != nil {
		return false, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
}

// bringObjects gives a server home's schemas, extensions and what users have defined, where it has them not. What it has already must
// be what home has: bounds, indexes and CHECKs are made with it. made are the names of the objects that it had not.
func bringObjects(ctx context.Context, home *pgx.Conn, tx pgx.Tx, shard string) (made []string, err error) {
	read := &reading{home: home}
	defer read.close()
	if err := read.objects(ctx, tx, shard); err != nil {
		return nil, err
	}
	if err := bringPlaces(ctx, home, tx, shard); err != nil {
		return nil, err
	}
	if read.all == nil {
		return nil, sameGrants(ctx, home, tx, shard)
	}
	var owners map[node]string
	needs := map[node][]node{}
	if !read.whole() {
		if _, err := tx.Exec(ctx, "set local check_function_bodies = off"); err != nil {
			return nil, err
		}
		if owners, err = read.owners(ctx, tx, shard); err != nil {
			return nil, err
		}
		var of, needed node
		rows, _ := home.Query(ctx, needsSQL)
		if _, err := pgx.ForEachRow(rows, []any{&of.Class, &of.OID, &needed.Class, &needed.OID}, func() error { needs[of] = append(needs[of], needed); return nil }); err != nil {
			return nil, err
		}
	}
	for _, o := range inOrder(read.all, needs) {
		if _, there := read.there[o.Name]; there {
			continue
		}
		sql := o.SQL
		if owner := owners[o.node]; owner != "" {
			if err := asIts(ctx, tx, owner, sql[0]); err != nil {
				return nil, notMade(o.Name, shard, notTheirs(ctx, home, err))
			}
			sql = sql[1:]
		}
		if err := run(ctx, tx, sql); err != nil {
			return nil, notMade(o.Name, shard, notTheirs(ctx, home, err))
		}
		made = append(made, o.Name)
	}
	if err := sameGrants(ctx, home, tx, shard); err != nil {
		return nil, err
	}
	return made, sameUses(ctx, home, tx, objectUsesSQL)
}

// bringPlaces gives a server home's schemas and extensions. What it has already is not said again: PostgreSQL would write a schema's rights anew, and all
// sessions of the database, clients' too, plan all that they have prepared anew for that.
func bringPlaces(ctx context.Context, home *pgx.Conn, tx pgx.Tx, shard string) error {
	wanted, err := strings1(ctx, home, placesSQL)
	if err != nil {
		return err
	}
	has, err := strings1(ctx, tx, placesSQL)
	if err != nil {
		return err
	}
	if err := run(ctx, tx, slices.DeleteFunc(wanted, func(sql string) bool { return slices.Contains(has, sql) })); err != nil {
		return err
	}
	return bringExtensions(ctx, home, tx, shard)
}

func bringExtensions(ctx context.Context, home *pgx.Conn, tx pgx.Tx, shard string) error {
	rows, _ := home.Query(ctx, extensionsSQL)
	type extension struct{ Name, SQL string }
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[extension])
	for _, e := range list {
		if err == nil {
			err = notMade("extension "+e.Name, shard, run(ctx, tx, []string{e.SQL}))
		}
	}
	return err
}

// notMade names what a server refuses to make. Errors of the moment, a lock's for one, are left as they are.
func notMade(name, shard string, err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || slices.ContainsFunc([]string{"08", "40", "55", "57"}, func(class string) bool { return strings.HasPrefix(pe.Code, class) }) && pe.Code != pgsql.ObjectNotInPrerequisiteState {
		return err
	}
	return &pgsql.Error{
		Code: pe.Code, Message: fmt.Sprintf("%s, which home has, cannot be made on shard %q: %s", name, shard, pe.Message), Detail: pe.Detail,
		Hint: strings.TrimSpace(pe.Hint + " Make it there as it is on home, with the rights and files that it needs, or DROP it on home. Nothing is left of the statement."),
	}
}

// fits is an error if a server cannot have what home's tables and statements need: what it has already is not what home has, or what it
// has not cannot be made there. That is tried, and undone.
func fits(ctx context.Context, home *pgx.Conn, defined []object, dst *pgx.Conn, shard string) error {
	if err := sameRights(ctx, home, dst); err != nil {
		return lostFirst(home, err)
	}
	there, err := alike(ctx, defined, dst, shard)
	if err == nil && defined != nil {
		err = sameUses(ctx, home, dst, objectUsesSQL)
	}
	lacks := len(there) < len(defined)
	if err == nil && !lacks {
		lacks, err = lacking(ctx, home, dst)
	}
	if err != nil || !lacks {
		return lostFirst(home, err)
	}
	tx, err := dst.BeginTx(ctx, given(definesWait/2)) // it holds names
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // it was a try
	return lostFirst(home, definesOn(ctx, tx, shard, func() error {
		err := bringRoles(ctx, home, tx)
		if err == nil {
			_, err = bringObjects(ctx, home, tx, shard)
			err = notTheirs(ctx, home, err)
		}
		return err
	}))
}

// namesSQL lists what is brought beside objects, by name.
const namesSQL = `select 'role ' || rolname from pg_roles where $1 or not rolsuper and rolname !~ '^pg_'
union all select 'schema ' || nspname from pg_namespace where $1 or nspname !~ '^pg_' and nspname <> 'pgmosaic' union all select 'extension ' || extname from pg_extension`

// lacking says whether a server has not all of home's roles, schemas and extensions.
func lacking(ctx context.Context, home, dst queryer) (bool, error) {
	has, err := strings1(ctx, dst, namesSQL, true)
	if err != nil {
		return false, err
	}
	wanted, err := strings1(ctx, home, namesSQL, false)
	return slices.ContainsFunc(wanted, func(n string) bool { return !slices.Contains(has, n) }), err
}

// alike gives those of home's objects that a shard has, as it has them, by their names. It is an error if one of them is not what home has.
func alike(ctx context.Context, home []object, shard queryer, name string) (there map[string]object, err error) {
	if len(home) == 0 {
		return nil, nil
	}
	list, err := objects(ctx, shard)
	if err != nil {
		return nil, err
	}
	theirs := map[string]object{}
	for _, o := range list {
		theirs[o.Name] = o
	}
	there = map[string]object{}
	for _, o := range home {
		t, ok := theirs[o.Name]
		if !ok {
			continue
		}
		there[o.Name] = t
		for i := range min(len(o.SQL), 2) {
			if t.SQL[i] != o.SQL[i] {
				return nil, &pgsql.Error{
					Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("%s on shard %q is not what home has: there it is made by %s; on home by %s", o.Name, name, t.SQL[i], o.SQL[i]),
					Hint: "What tables have would be made with it. Make it there what it is on home, or DROP it there: VERIFY SCHEMA compares all that shards have in common.",
				}
			}
		}
	}
	return there, nil
}

// inOrder sorts objects such that each comes behind those that it needs, and else by OID, as they were made.
func inOrder(all []object, needs map[node][]node) []object {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(x, y object) int { return cmp.Compare(x.OID, y.OID) })
	byNode := map[node]object{}
	for _, o := range all {
		byNode[o.node] = o
	}
	var out []object
	seen := map[node]bool{}
	var visit func(o object)
	visit = func(o object) {
		if seen[o.node] {
			return
		}
		seen[o.node] = true
		needed := slices.Clone(needs[o.node])
		slices.SortFunc(needed, func(x, y node) int { return cmp.Compare(x.OID, y.OID) })
		for _, n := range needed {
			if other, ours := byNode[n]; ours {
				visit(other)
			}
		}
		out = append(out, o)
	}
	for _, o := range all {
		visit(o)
	}
	return out
}
