package reshard

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// Who may use what is made on a shard, and what will be made there. On both PostgreSQL has default privileges bear: what the nodes' role makes
// on a shard may be given to others by them, and what is defined later is given to whom they say on that server alone.

// grantsSQL lists who may use routines, types and schemas, each as what gives the right, and what takes all rights to the object from that role. Of
// each there is an empty one besides. Rights to types and schemas that roles have which are not in $1, home's, are a server's own affair.
const grantsSQL = `with users (oid) as (select oid from pg_namespace where nspname !~ '^pg_' and nspname not in ('information_schema', 'pgmosaic')),
owned (class, obj) as (select classid, objid from pg_depend where deptype = 'e'), it (name, kind, of, owner, acl) as (
  select 'function ' || p.oid::regprocedure, 'ROUTINE', p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)) from pg_proc p join users n on n.oid = p.pronamespace
    where p.oid >= 16384 and not exists (select from owned where class = 'pg_proc'::regclass and obj = p.oid)
  union all select format('type %I.%I', n.nspname, t.typname), 'TYPE', format('%I.%I', n.nspname, t.typname), t.typowner, coalesce(t.typacl, acldefault('T', t.typowner)) from pg_type t join pg_namespace n on n.oid = t.typnamespace join users u on u.oid = n.oid
    where t.oid >= 16384 and (t.typtype in ('e', 'd', 'r') or t.typtype = 'c' and exists (select from pg_class c where c.oid = t.typrelid and c.relkind = 'c')) and not exists (select from owned where class = 'pg_type'::regclass and obj = t.oid)
  union all select 'schema ' || quote_ident(nspname), 'SCHEMA', quote_ident(nspname), nspowner, coalesce(nspacl, acldefault('n', nspowner)) from pg_namespace n join users u on u.oid = n.oid where not exists (select from owned where class = 'pg_namespace'::regclass and obj = n.oid))
select distinct it.name, format('GRANT %s ON %s %s TO %s%s', x.privilege_type, it.kind, it.of, g.name, case when x.is_grantable and x.grantee <> it.owner then ' WITH GRANT OPTION' else '' end), format('REVOKE ALL ON %s %s FROM %s', it.kind, it.of, g.name)
  from it, aclexplode(it.acl) x, lateral (select case when x.grantee = 0 then 'PUBLIC' else quote_ident(pg_get_userbyid(x.grantee)) end) g (name)
 where x.grantee = 0 or it.kind = 'ROUTINE' or pg_get_userbyid(x.grantee) = any($1)
union all select name, '', '' from it order by 1, 2`

// grant is a right to something, and what takes it away.
type grant struct{ Of, Give, Take string }

func grantsOf(ctx context.Context, q queryer, sql string, args ...any) ([]grant, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[grant])
}

// sameGrants has those use objects on a shard who may use them on home, and nobody else.
func sameGrants(ctx context.Context, home queryer, tx pgx.Tx, shard string) error {
	roles, err := strings1(ctx, home, "select rolname::text from pg_roles")
	if err != nil {
		return err
	}
	want, err := grantsOf(ctx, home, grantsSQL, roles)
	if err != nil {
		return err
	}
	have, err := grantsOf(ctx, tx, grantsSQL, roles)
	if err != nil {
		return err
	}
	homes, theirs := objectsOf(want), objectsOf(have)
	for _, g := range changes(want, have) {
		if g.Give == "" || !homes[g.Of] || !theirs[g.Of] { // of the last it was made on home since its objects were read, and is brought later
			continue
		}
		if err := run(ctx, tx, []string{g.Give}); err != nil {
			return notMade(g.Of, shard, err)
		}
	}
	return nil
}

// changes are what makes of the grants that there are those that are wanted: Give says what is to be run.
func changes(want, have []grant) (out []grant) {
	wanted, there, taken := setOf(want), setOf(have), map[string]bool{}
	for _, g := range have {
		if !wanted[g] && !taken[g.Take] {
			taken[g.Take] = true
			out = append(out, grant{g.Of, g.Take, g.Take})
		}
	}
	for _, g := range want {
		if taken[g.Take] || !there[g] {
			out = append(out, g)
		}
	}
	return out
}

// objectsOf are the objects that a list is about.
func objectsOf(list []grant) map[string]bool {
	set := map[string]bool{}
	for _, g := range list {
		set[g.Of] = true
	}
	return set
}

// setOf is a list to look things up in: a database may have many thousands of routines.
func setOf(list []grant) map[grant]bool {
	set := make(map[grant]bool, len(list))
	for _, g := range list {
		set[g] = true
	}
	return set
}

// defaultGrantsSQL lists default privileges: what is given that PostgreSQL does not give by itself, and what is not given that it does. Roles that are not in $1 are left out.
const defaultGrantsSQL = `with d as (select format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s ', r.rolname, ' IN SCHEMA ' || quote_ident(n.nspname)) as head, d.defaclobjtype as of, r.oid as owner, r.rolname, d.defaclacl as acl, d.defaclnamespace = 0 as whole,
    case d.defaclobjtype when 'r' then 'TABLES' when 'S' then 'SEQUENCES' when 'f' then 'FUNCTIONS' when 'T' then 'TYPES' else 'SCHEMAS' end as kind
  from pg_default_acl d join pg_roles r on r.oid = d.defaclrole left join pg_namespace n on n.oid = d.defaclnamespace where d.defaclobjtype in ('r', 'S', 'f', 'T', 'n') and r.rolname = any($1) and (n.oid is null or n.nspname !~ '^pg_' and n.nspname <> 'pgmosaic')),
has as (select d.*, x.grantee, x.privilege_type, x.is_grantable and x.grantee <> d.owner as grantable from d, aclexplode(d.acl) x),
base as (select d.*, x.grantee, x.privilege_type from d, aclexplode(acldefault(case of when 'S' then 's' else of end, owner)) x where d.whole),
named (oid, name) as (select 0::oid, 'PUBLIC' union all select oid, quote_ident(rolname) from pg_roles where rolname = any($1))
select head, format('%sGRANT %s ON %s TO %s%s', head, privilege_type, kind, name, case when grantable then ' WITH GRANT OPTION' else '' end), format('%sREVOKE %s ON %s FROM %s', head, privilege_type, kind, name) from has join named on named.oid = grantee
 where grantable or not exists (select from base b where b.head = has.head and b.kind = has.kind and b.grantee = has.grantee and b.privilege_type = has.privilege_type)
union select head, format('%sREVOKE %s ON %s FROM %s', head, privilege_type, kind, name), format('%sGRANT %s ON %s TO %s', head, privilege_type, kind, name) from base join named on named.oid = grantee
 where not exists (select from has h where h.head = base.head and h.kind = base.kind and h.grantee = base.grantee and h.privilege_type = base.privilege_type) order by 1, 2`

// sameDefaults has roles of home's that a shard's server has, too, give and keep what they define later as they do on home. What is defined while the shard
// joins waits, so this comes last.
func sameDefaults(ctx context.Context, home queryer, tx querier, shard string) error {
	list, _, err := otherDefaults(ctx, home, tx)
	for _, g := range list {
		if err == nil {
			err = notMade(g.Give, shard, run(ctx, tx, []string{g.Give}))
		}
	}
	return err
}

// otherDefaults are what makes a shard's default privileges those of home, of roles that both servers have.
func otherDefaults(ctx context.Context, home, shard queryer) (list []grant, roles []string, err error) {
	roles, err = strings1(ctx, home, "select rolname::text from pg_roles where rolname !~ '^pg_'")
	if err == nil {
		roles, err = strings1(ctx, shard, "select rolname::text from pg_roles where rolname = any($1)", roles)
	}
	if err != nil {
		return nil, nil, err
	}
	want, err := grantsOf(ctx, home, defaultGrantsSQL, roles)
	if err != nil {
		return nil, nil, err
	}
	have, err := grantsOf(ctx, shard, defaultGrantsSQL, roles)
	return changes(want, have), roles, err
}

// fitsDefaults is an error if a shard's default privileges are not home's and only somebody else can make them so: a superuser's are his.
func fitsDefaults(ctx context.Context, home, dst queryer, shard string) error {
	list, roles, err := otherDefaults(ctx, home, dst)
	if err != nil || len(list) == 0 {
		return err
	}
	others, err := strings1(ctx, dst, `select format('ALTER DEFAULT PRIVILEGES FOR ROLE %I ', rolname) from pg_roles
	 where rolname = any($1) and not pg_has_role(oid, case when current_setting('server_version_num')::int >= 160000 then 'USAGE' else 'MEMBER' end)`, roles)
	if err != nil {
		return err
	}
	var theirs []string
	for _, g := range list {
		if slices.ContainsFunc(others, func(head string) bool { return strings.HasPrefix(g.Of, head) }) {
			theirs = append(theirs, g.Give)
		}
	}
	if len(theirs) == 0 {
		return nil
	}
	return &pgsql.Error{
		Code: pgsql.InsufficientPrivilege, Message: fmt.Sprintf("default privileges on shard %q are not those of home, and are of roles in which the role of its connection string is not", shard),
		Hint: "As a superuser, in its database, where schemas may have to be made first as they are on home: " + strings.Join(theirs, "; ") + ". Nothing was changed.",
	}
}

// strayGrantsSQL takes away what default privileges of the proxy's role have given on the sequences of a table that it has just made: those that the table's
// columns have, and those that are named.
const strayGrantsSQL = `select distinct format('REVOKE ALL ON SEQUENCE %s FROM %s', c.oid::regclass, case when x.grantee = 0 then 'PUBLIC' else quote_ident(pg_get_userbyid(x.grantee)) end)
  from pg_class c, aclexplode(c.relacl) x where c.relkind = 'S' and x.grantee <> c.relowner
   and (c.oid in (select to_regclass(n)::oid from unnest($2::text[]) n) or c.oid in (select objid from pg_depend where classid = 'pg_class'::regclass and refclassid = 'pg_class'::regclass and refobjid = $1::text::regclass and deptype = 'i'))`
