package reshard

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
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
const tableLiteralsSQL = `with tables (oid) as (select $1::text::regclass::oid union select relid::oid from pg_partition_tree($1::text::regclass)), part (name, tree) as (select x.name, x.tree from tables t, lateral (
  select format('the default of column %I', a.attname), d.adbin::text from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum where d.adrelid = t.oid and a.attgenerated = '' and not $2
  union all select 'index ' || i.indexrelid::regclass, coalesce(i.indexprs::text, '') || coalesce(i.indpred::text, '') from pg_index i where i.indrelid = t.oid
  union all select format('statistics %I', s.stxname), coalesce(to_jsonb(s) ->> 'stxexprs', '') from pg_statistic_ext s where s.stxrelid = t.oid
  union all select format('trigger %I', g.tgname), g.tgqual::text from pg_trigger g where g.tgrelid = t.oid and not g.tgisinternal and g.tgqual is not null
  union all select format('policy %I', p.polname), coalesce(p.polqual::text, '') || coalesce(p.polwithcheck::text, '') from pg_policy p where p.polrelid = t.oid) x (name, tree))
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

// objectVersionsSQL has for objects that objectsSQL lists, and that may hold literals or be the types of some, what changes as soon as anybody changes them, to and fro too.
const objectVersionsSQL = `select class, obj, string_agg(x, ' ' order by x) from (
  select 'pg_proc'::regclass::oid, p.oid, p.xmin::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.oid >= 16384 and n.nspname !~ '^pg_' and n.nspname <> 'pgmosaic'
  union all select 'pg_proc'::regclass, aggfnoid::oid, format('a %s', xmin) from pg_aggregate where aggfnoid::oid >= 16384
  union all select 'pg_type'::regclass, oid, xmin::text from pg_type t where oid >= 16384 and (typtype in ('d', 'r') or typtype = 'c' and exists (select from pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
  union all select 'pg_type'::regclass, contypid, format('c %s %s', oid, xmin) from pg_constraint where contypid >= 16384
  union all select 'pg_type'::regclass, rngtypid, format('r %s', xmin) from pg_range where rngtypid >= 16384
  union all select 'pg_type'::regclass, c.reltype, format('f %s %s', a.attnum, a.xmin) from pg_class c join pg_attribute a on a.attrelid = c.oid where c.relkind = 'c' and c.oid >= 16384) q (class, obj, x) group by 1, 2`

// newest is a connection that sees what home has now. One that is in a transaction of one snapshot sees older rows of catalogs, while PostgreSQL prints
// functions by those of the moment.
func newest(ctx context.Context, home *pgx.Conn) (c *pgx.Conn, done func(), err error) {
	done = func() {}
	if home.PgConn().TxStatus() == 'I' {
		return home, done, nil
	}
	isolation, err := strings1(ctx, home, "select current_setting('transaction_isolation')")
	if err != nil || slices.Contains(isolation, "read committed") {
		return home, done, err
	}
	if c, err = nodeconn.Beside(ctx, home); err != nil {
		return nil, nil, of(home, err)
	}
	return c, func() { _ = c.Close(context.WithoutCancel(ctx)) }, nil // nothing was done on it
}

// reading is what users have defined on home, as it was read for a shard.
type reading struct {
	home     *pgx.Conn
	all      []object
	there    map[string]object // of them, by name: what the shard has
	now      *pgx.Conn         // see newest; nil until the shard lacks something
	done     func()            // gives that up
	versions map[node]string   // before they were read
}

// objects reads them. Where the shard has them all nothing is to be made, and it does not matter whether somebody changes one meanwhile.
func (r *reading) objects(ctx context.Context, shard queryer, name string) (err error) {
	if err = r.read(ctx, shard, name); err != nil || r.whole() {
		return err
	}
	if r.now == nil {
		if r.now, r.done, err = newest(ctx, r.home); err != nil {
			return err
		}
	}
	if r.versions, err = objectVersions(ctx, r.now); err != nil {
		return err
	}
	return r.read(ctx, shard, name)
}

func (r *reading) read(ctx context.Context, shard queryer, name string) (err error) {
	if r.all, err = objects(ctx, r.home); err == nil {
		r.there, err = alike(ctx, r.all, shard, name)
	}
	return err
}

// whole says whether the shard has them all.
func (r *reading) whole() bool { return len(r.there) == len(r.all) }

func (r *reading) close() {
	if r.done != nil {
		r.done()
	}
}

// mostReads is how often definitions are read that change meanwhile.
const mostReads = 5

// owners has, of the objects that the shard is to be given, the role as which those are to be made whose literals run something. When it has been found out, they are what was read:
// else they are read again. Nothing of them has been made by then.
func (r *reading) owners(ctx context.Context, shard pgx.Tx, name string) (map[node]string, error) {
	for try := 1; ; try++ {
		if r.whole() { // by now
			return nil, nil
		}
		owners, err := literalOwners(ctx, r.home, r.now, r.all, r.there)
		if err != nil {
			return nil, err
		}
		changed, err := r.changed(ctx)
		switch {
		case err != nil:
			return nil, err
		case changed == "":
			return owners, nil
		case try == mostReads:
			return nil, &pgsql.Error{Code: pgsql.SerializationFailure, Message: changed + " was changed on home while its definition was read", Hint: "Nothing is left of the statement. Run it again."}
		}
		if err := r.objects(ctx, shard, name); err != nil {
			return nil, err
		}
		if err := bringPlaces(ctx, r.home, shard, name); err != nil { // of what has been added
			return nil, err
		}
	}
}

// changed names an object that is not what it was when its definition was read, and whose definition has something that is read as a literal, or is a type's.
func (r *reading) changed(ctx context.Context) (string, error) {
	versions, err := objectVersions(ctx, r.now)
	if err != nil {
		return "", err
	}
	for _, o := range r.all {
		if _, there := r.there[o.Name]; !there && versions[o.node] != r.versions[o.node] && holdsExpressions.MatchString(o.SQL[0]) {
			return o.Name, nil
		}
	}
	return "", nil
}

// holdsExpressions finds in what makes an object that it may hold one which is parsed as it is made. The words may be some body's.
var holdsExpressions = regexp.MustCompile(`^CREATE (DOMAIN|TYPE)|DEFAULT|BEGIN ATOMIC|(?m:^RETURN )|COND = `)

func objectVersions(ctx context.Context, q queryer) (map[node]string, error) {
	rows, err := q.Query(ctx, objectVersionsSQL)
	if err != nil {
		return nil, err
	}
	out := map[node]string{}
	var of node
	var version string
	_, err = pgx.ForEachRow(rows, []any{&of.Class, &of.OID, &version}, func() error { out[of] = version; return nil })
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

// literalOwners has, of objects that a shard is to be given, the role as which those are to be made whose literals run something. Some definitions are
// printed as home sees them, others as they are now, so the literals and types of both count.
func literalOwners(ctx context.Context, home, now *pgx.Conn, all []object, there map[string]object) (map[node]string, error) {
	views, literals, owners := slices.Compact([]*pgx.Conn{home, now}), map[node][]uint32{}, map[node]string{}
	for _, q := range views {
		more, err := objectLiterals(ctx, q)
		if err != nil {
			return nil, err
		}
		for of, types := range more {
			literals[of] = append(literals[of], types...)
		}
	}
	for _, o := range all {
		for _, q := range views {
			if _, has := there[o.Name]; has || owners[o.node] != "" || len(literals[o.node]) == 0 {
				continue
			}
			owner, err := literalOwner(ctx, q, o, literals[o.node])
			if err != nil {
				return nil, err
			}
			owners[o.node] = owner
		}
	}
	return owners, nil
}

// asIts is asOwner where the proxy's schema may be missing yet: what is only tried is undone with it.
func asIts(ctx context.Context, tx querier, owner, sql string) error {
	if err := run(ctx, tx, []string{"CREATE SCHEMA IF NOT EXISTS pgmosaic"}); err != nil {
		return err
	}
	return asOwner(ctx, tx, owner, sql)
}

// inertTable is inert for what a table has and is made as the nodes' role, by the types of home and those that a shard has by their names: these may be older. owner is ownerOf.
// A shard that is not asked yet is nil.
func inertTable(ctx context.Context, home, shard queryer, n shardmap.TableName, owner string) error {
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
		in := fmt.Sprintf("%s of table %s", l.In, n)
		if err == nil {
			err = inert(ctx, home, in, l.Type)
		}
		if err == nil && shard != nil {
			err = inertThere(ctx, home, shard, in, l.Type)
		}
	}
	return err
}

// inertThere is inert for the type of a shard that has the name of one of home's.
func inertThere(ctx context.Context, home, shard queryer, in string, typ uint32) error {
	names, err := strings1(ctx, home, "select format_type($1::oid, null)", typ)
	if err != nil {
		return err
	}
	rows, err := shard.Query(ctx, "select x::oid from unnest($1::text[]) name, to_regtype(name) x where x is not null", names)
	if err != nil {
		return err
	}
	types, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err != nil {
		return err
	}
	return inert(ctx, shard, in, types...)
}
