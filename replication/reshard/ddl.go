package reshard

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// The statements below rebuild, on a shard, what home has. They are read from home's catalog with
// PostgreSQL's own functions that print definitions.

const rolesSQL = `select rolname, case when rolcanlogin then ' LOGIN' else '' end || case when rolinherit then '' else ' NOINHERIT' end || case when rolcreaterole then ' CREATEROLE' else '' end || case when rolcreatedb then ' CREATEDB' else '' end
    || case when rolbypassrls then ' BYPASSRLS' else '' end || case when rolconnlimit >= 0 then ' CONNECTION LIMIT ' || rolconnlimit else '' end || coalesce(' VALID UNTIL ' || quote_literal(rolvaliduntil), '')
  from pg_roles where rolname !~ '^pg_' and not rolsuper`

// membersSQL are the grants of roles, to roles or by name, that some have on home. What the role of home's connection string is in, that of the
// shard's is to be in: it works in these roles' names. It needs no right to hand them on. Since PostgreSQL 16 a membership says what its
// member has of it: that is said where it is not the default, which older servers know nothing of. Grants of several grantors are one.
const membersSQL = `select 'GRANT ' || quote_ident(r.rolname) || ' TO ' || case when m.rolname = current_user then 'CURRENT_USER' else quote_ident(m.rolname) || coalesce(' WITH ' || nullif(concat_ws(', ',
      case when bool_or(a.admin_option) then 'ADMIN OPTION' end,
      case when bool_or((to_jsonb(a) ->> 'inherit_option')::bool) <> m.rolinherit then 'INHERIT ' || case when m.rolinherit then 'FALSE' else 'TRUE' end end,
      case when not bool_or((to_jsonb(a) ->> 'set_option')::bool) then 'SET FALSE' end), ''), '') end
  from pg_auth_members a join pg_roles r on r.oid = a.roleid join pg_roles m on m.oid = a.member where r.rolname !~ '^pg_' and not r.rolsuper and not m.rolsuper and (r.rolname = any($1) or m.rolname = any($1))
 group by r.rolname, m.rolname, m.rolinherit`

const verifierSQL = `select case when rolpassword is null then '' else ' PASSWORD ' || quote_literal(rolpassword) end from pg_authid where rolname = $1`

// placesSQL makes schemas, and says who may do what in each.
const placesSQL = `select sql from (
  select 1, format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I', nspname, pg_get_userbyid(nspowner)) from pg_namespace
   where nspname !~ '^pg_' and nspname not in ('information_schema', 'public', 'pgmosaic')
  union all select 2, format('GRANT %s ON SCHEMA %I TO %s', x.privilege_type, n.nspname, case when x.grantee = 0 then 'PUBLIC' else quote_ident(pg_get_userbyid(x.grantee)) end)
    from pg_namespace n, aclexplode(n.nspacl) x where nspname !~ '^pg_' and nspname not in ('information_schema', 'pgmosaic')) x (step, sql) order by step, sql`

const extensionsSQL = `select quote_ident(e.extname), format('CREATE EXTENSION IF NOT EXISTS %I SCHEMA %I', e.extname, n.nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname <> 'plpgsql' order by e.oid`

// bring gives a server home's roles, and in one transaction home's other objects and what f makes. Objects are noted under an attempt that
// will drop them if it fails; of other attempts, whose shards should have them in any case, it is empty.
func bring(ctx context.Context, home, dst *pgx.Conn, shard, attempt string, f func(pgx.Tx) error) error {
	if err := bringRoles(ctx, home, dst); err != nil {
		return ownOr(shard, lostFirst(home, err))
	}
	err := pgx.BeginFunc(ctx, dst, func(tx pgx.Tx) error {
		err := definesOn(ctx, tx, shard, func() error {
			made, err := bringObjects(ctx, home, tx, shard)
			if err == nil {
				err = noteObjects(ctx, tx, made, attempt)
			}
			return err
		})
		if err == nil {
			err = f(tx)
		}
		return lostFirst(home, err)
	})
	return ownOr(shard, notTheirs(ctx, home, err))
}

// notTheirs says whose a shard's database should be, if somebody lacks a right there that home's owner has.
func notTheirs(ctx context.Context, home *pgx.Conn, err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != pgsql.InsufficientPrivilege || pe.Hint != "" {
		return err
	}
	var owner string
	if home.QueryRow(ctx, "select quote_ident(pg_get_userbyid(datdba)) from pg_database where datname = current_database()").Scan(&owner) == nil {
		pe.Hint = "Home's database belongs to " + owner + ", which may make what is wanted there: ALTER DATABASE .. OWNER TO " + owner + " on the shard, or GRANT the right that is missing. Bring the role first if it is not there: nothing is left of those that the statement made."
	}
	return err
}

// lostFirst says that an error amid the work of two connections is this one's, if it is gone.
func lostFirst(c *pgx.Conn, err error) error {
	if err != nil && c.IsClosed() {
		return of(c, err)
	}
	return err
}

// querier is a connection, or its transaction.
type querier interface {
	queryer
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

func run(ctx context.Context, tx querier, list []string) error {
	for _, s := range list {
		if _, err := tx.Exec(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// beginner is a connection, or a transaction in which another begins.
type beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

func bringRoles(ctx context.Context, home *pgx.Conn, dst beginner) error {
	rows, _ := home.Query(ctx, rolesSQL)
	roles, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (out [2]string, err error) {
		err = r.Scan(&out[0], &out[1])
		return out, err
	})
	if err != nil {
		return err
	}
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = r[0]
	}
	return pgx.BeginFunc(ctx, dst, func(tx pgx.Tx) error { // a role that is there is believed to be as home's is: all of it, or nothing
		if err := sameRights(ctx, home, tx); err != nil {
			return err
		}
		lacks, err := strings1(ctx, tx, lackedSQL, names)
		if err != nil {
			return err
		}
		var made []string
		for _, r := range roles {
			if !slices.Contains(lacks, r[0]) {
				continue
			}
			password, err := verifierOf(ctx, home, r[0])
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "CREATE ROLE "+pgsql.Ident(r[0])+r[1]+password); err != nil {
				return err
			}
			made = append(made, r[0])
		}
		if len(made) == 0 {
			return nil
		}
		grants, err := strings1(ctx, home, membersSQL, made)
		if err != nil {
			return err
		}
		if err := run(ctx, tx, grants); err != nil {
			return err
		}
		return sameRights(ctx, home, tx) // those that were made, too: home's role of the proxy may be more than that here
	})
}

// reach is how far a role r gets on a server, by however many steps: 3 is all, as a superuser, or who may run programs there or write its files;
// 2 is nearly that, by CREATEROLE, which before PostgreSQL 16 gives its holder any role but a superuser; 1 what the role may that works there for the proxy.
const reach = `case when exists (select from pg_roles s where (s.rolsuper or s.rolname in ('pg_execute_server_program', 'pg_write_server_files')) and pg_has_role(r.oid, s.oid, 'MEMBER')) then 3
    when current_setting('server_version_num')::int < 160000 and exists (select from pg_roles s where s.rolcreaterole and pg_has_role(r.oid, s.oid, 'MEMBER')) then 2
    when pg_has_role(r.oid, current_user, 'MEMBER') then 1 else 0 end`

// The first lists home's roles, and the second those of them that a shard's server has, with how far each gets there.
const (
	homeReachSQL  = "select rolname::text, " + reach + " from pg_roles r where rolname !~ '^pg_' and rolname <> current_user"
	shardReachSQL = "select rolname::text, " + reach + " from pg_roles r where rolname = any($1) order by 1"
)

// reaching is a role, and how far it gets on a server.
type reaching struct {
	Role string
	Far  int
}

func reachesOf(ctx context.Context, q queryer, sql string, args ...any) ([]reaching, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[reaching])
}

// sameRights is an error if one of home's roles gets further on a shard's server than on home. Whoever is in it on home would be a superuser
// there, and what it owns would run with a superuser's rights.
func sameRights(ctx context.Context, home, dst queryer) error {
	roles, err := reachesOf(ctx, home, homeReachSQL)
	if err != nil {
		return err
	}
	may, names := map[string]int{}, make([]string, len(roles))
	for i, r := range roles {
		may[r.Role], names[i] = r.Far, r.Role
	}
	there, err := reachesOf(ctx, dst, shardReachSQL, names)
	if err != nil {
		return err
	}
	var more []string
	for far := 3; far > 0 && len(more) == 0; far-- { // the one that gets furthest is told of
		for _, r := range there {
			if r.Far >= far && may[r.Role] < far {
				more = append(more, r.Role)
			}
		}
	}
	if len(more) == 0 {
		return nil
	}
	return &pgsql.Error{
		Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("role %q is an ordinary role on home, and on the shard's server it is a superuser, the role of the node's connection string, one that runs programs, writes files or, before PostgreSQL 16, makes roles there, or in such a role", more[0]),
		Hint: "Roles of one name count as one: who may act as it on home could do all on the shard. Rename it on one of the servers, or make it the same on both. Nothing was touched.",
	}
}

// lackedRoles are the roles that home has and a server has not.
func lackedRoles(ctx context.Context, home, dst queryer) (out []string, err error) {
	wanted, err := strings1(ctx, home, "select rolname::text from pg_roles where rolname !~ '^pg_' and not rolsuper")
	if err != nil {
		return nil, err
	}
	return strings1(ctx, dst, lackedSQL, wanted)
}

// lackedSQL are those of some roles that a server has not.
const lackedSQL = "select x from unnest($1::text[]) x where not exists (select from pg_roles where rolname = x)"

// roleFormSQL is what a role may by itself.
const roleFormSQL = "select rolcanlogin, rolinherit, rolcreaterole, rolcreatedb, rolbypassrls, rolconnlimit, coalesce(rolvaliduntil::text, 'infinity') from pg_roles where rolname = $1 and not rolsuper"

type roleForm struct {
	Login, Inherit, CreateRole, CreateDB, BypassRLS bool
	Limit                                           int
	Until                                           string
}

func roleFormOf(ctx context.Context, q queryer, role string) (roleForm, error) {
	rows, err := q.Query(ctx, roleFormSQL, role)
	if err != nil {
		return roleForm{}, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[roleForm])
}

// takenSQL takes away the memberships that a statement has given with the roles that it made.
const takenSQL = `select distinct format('REVOKE %I FROM %I', r.rolname, m.rolname) from pg_auth_members a join pg_roles r on r.oid = a.roleid join pg_roles m on m.oid = a.member
 where (r.rolname = any($1) or m.rolname = any($1)) and m.rolname <> current_user and r.rolname !~ '^pg_'`

// alignRoles makes roles that a statement has made what they are on home by now. Of what is as it was nothing is said: to say it may take a right.
func alignRoles(ctx context.Context, home *pgx.Conn, tx pgx.Tx, made []string) error {
	for _, role := range made {
		is, err := roleFormOf(ctx, home, role)
		if errors.Is(err, pgx.ErrNoRows) {
			return &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("role %q was dropped on home while the shard joined, or is a superuser there by now", role), Hint: "DROP or ALTER it on the shard's server, too, and run CREATE SHARD again."}
		}
		var was roleForm
		if err == nil {
			was, err = roleFormOf(ctx, tx, role)
		}
		if err != nil {
			return err
		}
		sql := "ALTER ROLE " + pgsql.Ident(role)
		for _, x := range []struct {
			was, is bool
			word    string
		}{
			{was.Login, is.Login, "LOGIN"}, {was.Inherit, is.Inherit, "INHERIT"}, {was.CreateRole, is.CreateRole, "CREATEROLE"}, {was.CreateDB, is.CreateDB, "CREATEDB"}, {was.BypassRLS, is.BypassRLS, "BYPASSRLS"},
		} {
			switch {
			case x.is && !x.was:
				sql += " " + x.word
			case x.was && !x.is:
				sql += " NO" + x.word
			}
		}
		if was.Limit != is.Limit {
			sql += fmt.Sprintf(" CONNECTION LIMIT %d", is.Limit)
		}
		if was.Until != is.Until {
			sql += " VALID UNTIL " + pgsql.Literal(is.Until)
		}
		password, err := verifierOf(ctx, home, role)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, sql+cmp.Or(password, " PASSWORD NULL")); err != nil {
			return err
		}
	}
	taken, err := strings1(ctx, tx, takenSQL, made)
	if err != nil {
		return err
	}
	given, err := strings1(ctx, home, membersSQL, made)
	if err != nil {
		return err
	}
	return run(ctx, tx, append(taken, given...))
}

// verifierOf is what CREATE ROLE says of a role's password.
func verifierOf(ctx context.Context, home *pgx.Conn, role string) (password string, err error) {
	err = home.QueryRow(ctx, verifierSQL, role).Scan(&password)
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == pgsql.InsufficientPrivilege {
		return "", &pgsql.Error{
			Code: pgsql.InsufficientPrivilege, Message: fmt.Sprintf("role %q is missing on the shard, and home's connection string has a role that may not read its password", role),
			Hint: "Bring the roles yourself: pg_dumpall --roles-only on home, and run it there. Or GRANT SELECT ON pg_authid TO the role of home's connection string.",
		}
	}
	return password, err
}

type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func strings1(ctx context.Context, q queryer, sql string, args ...any) ([]string, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

const columnDefsSQL = `select a.attname, quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod) || case when a.attcollation <> t.typcollation and a.attcollation <> 0 then ' COLLATE ' || (select quote_ident(n.nspname) || '.' || quote_ident(c.collname) from pg_collation c join pg_namespace n on n.oid = c.collnamespace where c.oid = a.attcollation) else '' end
   , case when a.attgenerated = 's' then ' GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ') STORED' when d.adbin is not null then ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) else '' end
   , case when a.attnotnull then ' NOT NULL' else '' end
  from pg_attribute a join pg_type t on t.oid = a.atttypid left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
 where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum`

// tableDefsSQL has what a table has besides columns, with its rank. How a column's values are kept and counted, whether a partition's may be NULL, and
// when a partition's trigger fires is said where it is not what the column has from its type, or what the table above has. What an owner may not do himself comes last.
const tableDefsSQL = `
select format('ALTER TABLE %s ALTER COLUMN %I %s', $1::text, a.attname, x.what), 0 from pg_attribute a join pg_type y on y.oid = a.atttypid
  left join pg_class c on c.oid = a.attrelid and c.relispartition left join pg_inherits h on h.inhrelid = c.oid left join pg_attribute p on p.attrelid = h.inhparent and p.attname = a.attname,
  lateral (select to_jsonb(a) ->> 'attcompression' own, coalesce(to_jsonb(p) ->> 'attcompression', '') above) k, lateral (values
    (case when a.attnotnull and not p.attnotnull then 'SET NOT NULL' end),
    (case when a.attstorage <> coalesce(p.attstorage, y.typstorage) then 'SET STORAGE ' || case a.attstorage when 'p' then 'PLAIN' when 'e' then 'EXTERNAL' when 'm' then 'MAIN' else 'EXTENDED' end end),
    (case when own <> above then 'SET COMPRESSION ' || case own when 'p' then 'pglz' when 'l' then 'lz4' else 'default' end end),
    (case when a.attstattarget >= 0 then 'SET STATISTICS ' || a.attstattarget end),
    ('SET (' || (select string_agg(format('%I = %L', option_name, option_value), ', ') from pg_options_to_table(a.attoptions)) || ')')) x (what)
 where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped and x.what is not null
union all
select format('ALTER TABLE %s ADD CONSTRAINT %I %s', $1::text, c.conname, pg_get_constraintdef(c.oid)), case when c.contype <> 'c' then 1 when c.convalidated then 2 else 9 end
  from pg_constraint c where c.conrelid = $1::text::regclass and c.contype in ('p', 'u', 'c', 'x') and c.conname <> 'pgmosaic_slot' and c.coninhcount = 0
union all
select pg_get_indexdef(i.indexrelid), 3 from pg_index i where i.indrelid = $1::text::regclass and ` + serves + ` and not exists (select from pg_constraint c where c.conindid = i.indexrelid and c.contype in ('p', 'u', 'x'))
   and not exists (select from pg_inherits h where h.inhrelid = i.indexrelid)
union all
select format('ALTER TABLE %s OWNER TO %I', $1::text, pg_get_userbyid(c.relowner)), 4 from pg_class c where c.oid = $1::text::regclass
union all
select format('GRANT %s ON %s TO %s%s', x.privilege_type, $1::text, case when x.grantee = 0 then 'PUBLIC' else quote_ident(pg_get_userbyid(x.grantee)) end, case when x.is_grantable then ' WITH GRANT OPTION' end), 5 from pg_class c, aclexplode(c.relacl) x where c.oid = $1::text::regclass and x.grantee <> c.relowner
union all
select format('GRANT %s (%I) ON %s TO %s%s', x.privilege_type, a.attname, $1::text, case when x.grantee = 0 then 'PUBLIC' else quote_ident(pg_get_userbyid(x.grantee)) end, case when x.is_grantable then ' WITH GRANT OPTION' end), 5
  from pg_class c join pg_attribute a on a.attrelid = c.oid and not a.attisdropped, aclexplode(a.attacl) x where c.oid = $1::text::regclass and x.grantee <> c.relowner
union all
select format('ALTER TABLE %s SET (%s)', $1::text, (select string_agg(format('%I = %L', option_name, option_value), ', ') from pg_options_to_table(c.reloptions))), 3 from pg_class c where c.oid = $1::text::regclass and c.reloptions <> '{}'
union all
select format('ALTER TABLE %s SET (%s)', $1::text, (select string_agg(format('toast.%I = %L', option_name, option_value), ', ') from pg_options_to_table(o.reloptions))), 3
  from pg_class c join pg_class o on o.oid = c.reltoastrelid where c.oid = $1::text::regclass and o.reloptions <> '{}'
union all
select format('ALTER TABLE %s OF %s', $1::text, c.reloftype::regtype), 3 from pg_class c where c.oid = $1::text::regclass and c.reloftype <> 0
union all
select format('ALTER TABLE %s REPLICA IDENTITY %s', $1::text, case c.relreplident when 'f' then 'FULL' when 'n' then 'NOTHING' else (select format('USING INDEX %I', i.relname) from pg_index x join pg_class i on i.oid = x.indexrelid where x.indrelid = c.oid and x.indisreplident) end), 8
  from pg_class c where c.oid = $1::text::regclass and (c.relreplident in ('f', 'n') or c.relreplident = 'i' and exists (select from pg_index x where x.indrelid = c.oid and x.indisreplident))
union all
select format('ALTER TABLE %s CLUSTER ON %I', $1::text, i.relname), 8 from pg_index x join pg_class i on i.oid = x.indexrelid where x.indrelid = $1::text::regclass and x.indisclustered
union all
select format('ALTER INDEX %s ALTER COLUMN %s SET STATISTICS %s', a.attrelid::regclass, a.attnum, a.attstattarget), 8 from pg_index i join pg_attribute a on a.attrelid = i.indexrelid where i.indrelid = $1::text::regclass and ` + serves + ` and a.attstattarget >= 0
union all
select format('ALTER STATISTICS %s.%I SET STATISTICS %s', s.stxnamespace::regnamespace, s.stxname, to_jsonb(s) ->> 'stxstattarget'), 7 from pg_statistic_ext s where s.stxrelid = $1::text::regclass and (to_jsonb(s) ->> 'stxstattarget')::int >= 0
union all
select format('ALTER STATISTICS %s.%I OWNER TO %I', s.stxnamespace::regnamespace, s.stxname, pg_get_userbyid(s.stxowner)), 7 from pg_statistic_ext s where s.stxrelid = $1::text::regclass
union all
select pg_get_statisticsobjdef(s.oid), 6 from pg_statistic_ext s where s.stxrelid = $1::text::regclass
union all
select pg_get_triggerdef(t.oid), 10 from pg_trigger t where t.tgrelid = $1::text::regclass and not t.tgisinternal and t.tgparentid = 0 and ` + usersTrigger + `
union all
select format('ALTER TABLE %s %s TRIGGER %I', $1::text, ` + triggerState + `, t.tgname), 11 from pg_trigger t where t.tgrelid = $1::text::regclass and (not t.tgisinternal or t.tgparentid <> 0 and t.tgfoid >= 16384) and ` + usersTrigger + `
   and t.tgenabled <> coalesce((select a.tgenabled from pg_trigger a where a.oid = t.tgparentid), 'O')
union all
select format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', p.polname, $1::text, case when p.polpermissive then 'PERMISSIVE' else 'RESTRICTIVE' end,
     case p.polcmd when 'r' then 'SELECT' when 'a' then 'INSERT' when 'w' then 'UPDATE' when 'd' then 'DELETE' else 'ALL' end,
     (select string_agg(case when r = 0 then 'PUBLIC' else quote_ident(pg_get_userbyid(r)) end, ', ') from unnest(p.polroles) r))
   || coalesce(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', '') || coalesce(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', ''), 12
  from pg_policy p where p.polrelid = $1::text::regclass
union all
select format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', $1::text), 13 from pg_class c where c.oid = $1::text::regclass and c.relrowsecurity
union all
select format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', $1::text), 13 from pg_class c where c.oid = $1::text::regclass and c.relforcerowsecurity
union all
select format('REVOKE %s ON %s FROM %I', x.privilege_type, $1::text, pg_get_userbyid(c.relowner)), 14 from pg_class c, aclexplode(acldefault('r', c.relowner)) x
 where c.oid = $1::text::regclass and not exists (select from aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) h where h.grantee = c.relowner and h.privilege_type = x.privilege_type)
order by 2, 1`

// serves is whether an index i is more than what a CREATE INDEX CONCURRENTLY that has failed has left: the rows may not be what it asks for. One of a partitioned table has
// no rows itself.
const serves = "(i.indisvalid or exists (select from pg_class p where p.oid = i.indexrelid and p.relkind = 'I'))"

// usersTrigger is whether a trigger is none of the proxy's own, whatever it is called.
const usersTrigger = "not exists (select from pg_proc u where u.oid = tgfoid and u.pronamespace = to_regnamespace('pgmosaic'))"

// triggerState is the word that puts a trigger into the state that it is in.
const triggerState = "case t.tgenabled when 'O' then 'ENABLE' when 'A' then 'ENABLE ALWAYS' when 'R' then 'ENABLE REPLICA' else 'DISABLE' end"

// disableTriggers switches off the triggers that users have put on a table and on its partitions, and the policies that hold for its owner, while
// its rows travel, and says what switches them on again.
func disableTriggers(ctx context.Context, tx pgx.Tx, name string) (after []string, err error) {
	rows, err := tx.Query(ctx, "select format('ALTER TABLE ONLY %I.%I DISABLE TRIGGER %I', n.nspname, c.relname, t.tgname), format('ALTER TABLE ONLY %I.%I %s TRIGGER %I', n.nspname, c.relname, "+triggerState+
		", t.tgname) from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace"+
		" where (c.oid = $1::text::regclass or c.oid in (select relid from pg_partition_tree($1::text::regclass))) and (not t.tgisinternal or t.tgparentid <> 0 and t.tgfoid >= 16384) and t.tgenabled <> 'D' order by c.oid, t.tgname", name)
	if err != nil {
		return nil, err
	}
	var off, on string
	var before []string
	if _, err := pgx.ForEachRow(rows, []any{&off, &on}, func() error { before, after = append(before, off), append(after, on); return nil }); err != nil {
		return nil, err
	}
	free, bound, err := forced(ctx, tx, name)
	if err != nil {
		return nil, err
	}
	return append(after, bound...), run(ctx, tx, append(before, free...))
}

// unmet takes away the CHECKs of a table, and of its partitions, that rows which were there need not meet, and gives what brings them back: rows that come are new
// ones to them.
func unmet(ctx context.Context, tx pgx.Tx, name string) (restore []definition, err error) {
	owner, err := ownerOf(ctx, tx, name)
	if err != nil {
		return nil, err
	}
	rows, _ := tx.Query(ctx, `select format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, c.relname, k.conname), format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s', n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid))
	  from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace where (c.oid = $1::text::regclass or c.oid in (select relid from pg_partition_tree($1::text::regclass)))
	   and k.contype = 'c' and not k.convalidated and k.coninhcount = 0 and k.conname <> 'pgmosaic_slot' order by c.oid, k.conname`, name) // an error comes with the rows
	var off, on string
	var before []string
	if _, err := pgx.ForEachRow(rows, []any{&off, &on}, func() error {
		before, restore = append(before, off), append(restore, definition{sql: on, owner: owner})
		return nil
	}); err != nil {
		return nil, err
	}
	return restore, run(ctx, tx, before)
}

// unmetKeys is unmet for foreign keys. To take one away PostgreSQL locks the table that it refers to, too.
func unmetKeys(ctx context.Context, mv *Mover, d *shardmap.DB, tx pgx.Tx, name string) (restore []definition, err error) {
	tables, err := strings1(ctx, tx, "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = $1::text::regclass or c.oid in (select relid from pg_partition_tree($1::text::regclass)) order by c.oid", name)
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		keys, err := foreignKeys(ctx, tx.Conn(), t)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			if k.Valid {
				continue
			}
			if err := runShortly(ctx, mv, tx, d, []string{"ALTER TABLE " + k.Table + " DROP CONSTRAINT " + k.Name}); err != nil {
				return nil, err
			}
			restore = append(restore, definition{key: &k})
		}
	}
	return restore, nil
}

// definition is a statement that defines something of a table on a shard. With an owner it may run what that role has made, and runs as it.
type definition struct {
	sql, owner string
	key        *foreignKey // instead of sql
}

// bringTable makes an empty table like home's. Nobody changes home's meanwhile. late is what is made when all tables and rows are there:
// foreign keys, triggers and policies, and of a table in use all by which others could do something to it.
func bringTable(ctx context.Context, home *pgx.Conn, tx pgx.Tx, n shardmap.TableName, seqs *shardSequences, inUse bool) (late []definition, err error) {
	if late, err = makeTable(ctx, home, tx, n, seqs, inUse); err == nil {
		err = sameUses(ctx, home, tx, tableUsesSQL, n.SQL()) // before it has a row
	}
	return late, err
}

func makeTable(ctx context.Context, home *pgx.Conn, tx pgx.Tx, n shardmap.TableName, seqs *shardSequences, inUse bool) (late []definition, err error) {
	name := n.SQL()
	if err := seqs.drawAlone(n); err != nil {
		return nil, err
	}
	owner, err := ownerOfMoving(ctx, home, name, inUse)
	if err == nil {
		err = inertTable(ctx, home, tx, n, owner)
	}
	if err == nil {
		err = wholeIndexes(ctx, home, n)
	}
	if err != nil {
		return nil, err
	}
	rows, _ := home.Query(ctx, columnDefsSQL, name)
	var column, def, value, notNull string
	var cols, before, after, drawnFrom []string
	if _, err := pgx.ForEachRow(rows, []any{&column, &def, &value, &notNull}, func() error {
		clause, sequence, then, drawn := seqs.clause(name, column)
		if drawn {
			value = clause
		}
		if sequence != "" {
			before = append(before, sequence)
			if owner != "" { // the table's, from the beginning
				after = append(after, "ALTER SEQUENCE "+seqs.sequenceOf(column)+" OWNER TO "+pgsql.Ident(owner))
			}
			after = append(after, then...)
			drawnFrom = append(drawnFrom, seqs.sequenceOf(column))
		}
		cols = append(cols, def+value+notNull)
		return nil
	}); err != nil {
		return nil, err
	}
	if err := named(ctx, tx, nil, n); err != nil {
		return nil, err
	}
	if err := freeSequences(ctx, tx, drawnFrom); err != nil {
		return nil, err
	}
	if owner != "" {
		if err := mayCreate(ctx, tx, n, owner); err != nil {
			return nil, err
		}
	}
	parts, err := strings1(ctx, home, "select ' PARTITION BY ' || pg_get_partkeydef(partrelid) from pg_partitioned_table where partrelid = $1::text::regclass", name)
	var method []string
	if err == nil {
		method, err = strings1(ctx, home, "select format(' USING %I', m.amname) from pg_class c join pg_am m on m.oid = c.relam where c.oid = $1::text::regclass", name)
	}
	if err == nil {
		err = run(ctx, tx, before)
	}
	if err == nil {
		err = asDefined(ctx, tx, owner, "CREATE TABLE "+name+" ("+strings.Join(cols, ", ")+")"+strings.Join(parts, "")+strings.Join(method, ""))
	}
	var strays []string
	if err == nil {
		strays, err = strings1(ctx, tx, strayGrantsSQL, name, drawnFrom)
	}
	if err == nil {
		err = run(ctx, tx, append(strays, after...))
	}
	if err != nil {
		return nil, err
	}
	if late, err = bringDefs(ctx, home, tx, name, owner, inUse); err != nil || len(parts) == 0 {
		return late, err
	}
	more, err := makePartitions(ctx, home, tx, name, owner, inUse)
	return append(late, more...), err
}

// makePartitions makes the partitions of a table that is made, like home's.
func makePartitions(ctx context.Context, home *pgx.Conn, tx pgx.Tx, name, owner string, inUse bool) (late []definition, err error) {
	rows, err := home.Query(ctx, partitionsSQL, name)
	if err != nil {
		return nil, err
	}
	type partition struct{ Name, SQL string }
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[partition])
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		if err := asDefined(ctx, tx, owner, p.SQL); err != nil {
			return nil, err
		}
		own, err := strings1(ctx, home, ownDefaultsSQL, p.Name)
		if err != nil {
			return nil, err
		}
		if len(own) > 0 {
			err = asDefined(ctx, tx, owner, own...)
		}
		if err != nil {
			return nil, err
		}
		more, err := bringDefs(ctx, home, tx, p.Name, owner, inUse)
		if err != nil {
			return nil, err
		}
		late = append(late, more...)
	}
	return late, nil
}

// mayCreate is an error if a role cannot make a table on a shard that runs what the role has made.
func mayCreate(ctx context.Context, tx pgx.Tx, n shardmap.TableName, owner string) error {
	var may bool
	err := tx.QueryRow(ctx, "select has_schema_privilege($1, $2, 'CREATE')", owner, n.Schema).Scan(&may)
	if err == nil && !may {
		return &pgsql.Error{
			Code: pgsql.InsufficientPrivilege, Message: fmt.Sprintf("table %s runs functions, or has types, of its owner's, and role %q may not create tables in schema %q", n, owner, n.Schema),
			Hint: "The copy is made by that role, so that its code runs with its rights only. GRANT CREATE ON SCHEMA " + pgsql.Ident(n.Schema) + " TO " + pgsql.Ident(owner) + " for the time of the statement.",
		}
	}
	return err
}

// freeSequences is an error if a shard has a sequence of one of these names that no copy there has brought: it would be changed, and
// dropped with the copy.
func freeSequences(ctx context.Context, tx pgx.Tx, names []string) error {
	if len(names) == 0 {
		return nil
	}
	taken, err := strings1(ctx, tx, `select x from unnest($1::text[]) x where to_regclass(x) is not null and not exists
	  (select from pg_depend d join pgmosaic.made m on m.relation = d.refobjid where d.classid = 'pg_class'::regclass and d.objid = to_regclass(x) and d.refclassid = 'pg_class'::regclass and d.deptype = 'a')`, names)
	if err == nil && len(taken) > 0 {
		return &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("sequence %s exists on the shard, and pgmosaic has not made it", taken[0]), Hint: "Rename or DROP it there."}
	}
	return err
}

// partitionsSQL has the partitions of a table, those above first, and what makes each.
const partitionsSQL = `select format('%I.%I', n.nspname, c.relname), format('CREATE TABLE %I.%I PARTITION OF %I.%I %s', n.nspname, c.relname, pn.nspname, p.relname, pg_get_expr(c.relpartbound, c.oid))
   || coalesce(' PARTITION BY ' || pg_get_partkeydef(k.partrelid), '') || coalesce((select format(' USING %I', amname) from pg_am where oid = c.relam), '')
  from pg_partition_tree($1::text::regclass) t join pg_class c on c.oid = t.relid join pg_namespace n on n.oid = c.relnamespace join pg_class p on p.oid = t.parentrelid join pg_namespace pn on pn.oid = p.relnamespace
  left join pg_partitioned_table k on k.partrelid = c.oid where t.level > 0 order by t.level, c.oid`

// ownDefaultsSQL gives a partition the defaults that are not those of the table above it.
const ownDefaultsSQL = `select format('ALTER TABLE %s ALTER COLUMN %I ', $1::text, a.attname) || coalesce('SET DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), 'DROP DEFAULT')
  from pg_inherits i join pg_attribute a on a.attrelid = i.inhrelid join pg_attribute pa on pa.attrelid = i.inhparent and pa.attname = a.attname
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum left join pg_attrdef pd on pd.adrelid = pa.attrelid and pd.adnum = pa.attnum
 where i.inhrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and pg_get_expr(d.adbin, d.adrelid) is distinct from pg_get_expr(pd.adbin, pd.adrelid)`

// straysSQL takes away what default privileges of the proxy's role have given on a table that it has just made.
const straysSQL = `select distinct format('REVOKE ALL ON %s FROM %s', $1::text, case when x.grantee = 0 then 'PUBLIC' else quote_ident(pg_get_userbyid(x.grantee)) end)
  from pg_class c, aclexplode(c.relacl) x where c.oid = $1::text::regclass and x.grantee <> c.relowner`

// bringDefs gives a table what home's has besides columns. What it inherits it has already.
func bringDefs(ctx context.Context, home *pgx.Conn, tx pgx.Tx, name, owner string, inUse bool) (late []definition, err error) {
	strays, err := strings1(ctx, tx, straysSQL, name)
	if err == nil {
		err = run(ctx, tx, strays)
	}
	if err != nil {
		return nil, err
	}
	rows, err := home.Query(ctx, tableDefsSQL, name)
	if err != nil {
		return nil, err
	}
	var sql string
	var rank int
	var now []definition
	_, err = pgx.ForEachRow(rows, []any{&sql, &rank}, func() error {
		d := definition{sql: sql}
		if rank == checkRank || rank == lateRank {
			d.owner = owner
		}
		if rank >= lateRank || inUse && rank >= ownerRank {
			late = append(late, d)
		} else {
			now = append(now, d)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	keys, err := foreignKeys(ctx, home, name)
	for _, k := range keys {
		late = append(late, definition{key: &k})
	}
	if err != nil {
		return nil, err
	}
	return late, define(ctx, tx, now)
}

// Ranks of tableDefsSQL. PostgreSQL builds an index as the table's owner; a CHECK is for us to see to.
const (
	checkRank = 2
	ownerRank = 4 // the owner, and what others may do
	lateRank  = 9 // a CHECK that the rows need not meet, and what follows
)

// define makes what definitions say.
func define(ctx context.Context, tx querier, list []definition) error {
	for _, d := range list {
		var err error
		if d.key != nil {
			err = d.key.add(ctx, tx)
		} else {
			err = asDefined(ctx, tx, d.owner, d.sql)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// foreignKey is a foreign key as home has it.
type foreignKey struct {
	Table, Name, Definition, Refers string
	Valid, Partitioned              bool
}

func foreignKeys(ctx context.Context, home *pgx.Conn, table string) ([]foreignKey, error) {
	rows, err := home.Query(ctx, `select $1::text, quote_ident(c.conname), pg_get_constraintdef(c.oid), format('%I.%I', n.nspname, r.relname), c.convalidated, t.relkind = 'p'
	  from pg_constraint c join pg_class t on t.oid = c.conrelid join pg_class r on r.oid = c.confrelid join pg_namespace n on n.oid = r.relnamespace
	 where c.conrelid = $1::text::regclass and c.contype = 'f' and c.coninhcount = 0 order by c.conname`, table)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[foreignKey])
}

// add adds it on a shard. Checking the rows plans a query over both tables, which may run what they have.
func (k *foreignKey) add(ctx context.Context, tx querier) error {
	sql := "ALTER TABLE " + k.Table + " ADD CONSTRAINT " + k.Name + " " + k.Definition
	if err := boundedLock(ctx, tx, k.Table+", "+k.Refers, "SHARE ROW EXCLUSIVE"); err != nil { // as adding it does
		return err
	}
	owner, err := ownerOf(ctx, tx, k.Table)
	if err == nil && owner == "" {
		if owner, err = ownerOf(ctx, tx, k.Refers); owner != "" {
			owner, err = tableOwner(ctx, tx, k.Table)
		}
	}
	if err == nil && owner != "" {
		err = othersCodeOf(ctx, tx, k.Table, declaredKinds, k.Refers)
	}
	switch {
	case err != nil:
		return err
	case owner == "" || !k.Valid:
		return run(ctx, tx, []string{sql})
	case k.Partitioned: // it cannot be added without a look at the rows
		return asOwner(ctx, tx, owner, sql)
	}
	if err := run(ctx, tx, []string{sql + " NOT VALID"}); err != nil {
		return err
	}
	return asOwner(ctx, tx, owner, "ALTER TABLE "+k.Table+" VALIDATE CONSTRAINT "+k.Name)
}

// copyRows streams the rows of a table that satisfy where from one server to another, in text, because the OIDs of user types
// differ between servers. Both tables may run nothing that is not to be trusted: see fill.
func copyRows(ctx context.Context, from, to *pgx.Conn, n shardmap.TableName, where string, progress *job) error {
	cols, err := copiedColumns(ctx, from, n.SQL())
	if err != nil {
		return err
	}
	list := strings.Join(cols, ", ")
	if where != "" {
		return copyQuery(ctx, from, to, "SELECT "+list+" FROM "+n.SQL()+" WHERE "+where, n.SQL(), list, progress)
	}
	return copyWhole(ctx, from, to, n.SQL(), n.SQL(), list, progress)
}

// copyWhole streams all rows of a table, partition by partition: without a query, so that nothing is planned and nothing of the
// table's is evaluated.
func copyWhole(ctx context.Context, from, to *pgx.Conn, table, into, cols string, progress *job) error {
	leaves, err := strings1(ctx, from, `select format('%I.%I', n.nspname, c.relname) from (select $1::text::regclass::oid union select relid::oid from pg_partition_tree($1::text::regclass)) t (oid)
	  join pg_class c on c.oid = t.oid join pg_namespace n on n.oid = c.relnamespace where c.relkind <> 'p' order by 1`, table)
	if err != nil {
		return of(from, err)
	}
	for _, leaf := range leaves {
		if err := copyBetween(ctx, from, to, "COPY "+leaf+" ("+cols+") TO STDOUT", into, cols, progress); err != nil {
			return err
		}
	}
	return nil
}

// copiedColumns are the columns of a table that are not generated.
func copiedColumns(ctx context.Context, from queryer, table string) ([]string, error) {
	return strings1(ctx, from, "select quote_ident(attname) from pg_attribute where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attgenerated = '' order by attnum", table)
}

// copyQuery streams the rows of a query on one server into a table of another. progress, if there is one, is told of them.
func copyQuery(ctx context.Context, from, to *pgx.Conn, query, table, cols string, progress *job) error {
	return copyBetween(ctx, from, to, "COPY ("+query+") TO STDOUT", table, cols, progress)
}

func copyBetween(ctx context.Context, from, to *pgx.Conn, out, table, cols string, progress *job) error {
	return pipe(func(w *pipeEnd) error {
		_, err := from.PgConn().CopyTo(ctx, &counting{w, progress}, out)
		return of(from, err)
	}, func(r *pipeEnd) error {
		_, err := to.PgConn().CopyFrom(ctx, r, "COPY "+table+" ("+cols+") FROM STDIN")
		return of(to, err)
	})
}

// counting tells a job of the rows that pass: a server sends one with each write.
type counting struct {
	io.Writer
	job *job
}

func (c *counting) Write(b []byte) (int, error) {
	if c.job != nil {
		c.job.add(int64(bytes.Count(b, []byte{'\n'})))
	}
	return c.Writer.Write(b)
}

var errPipe = errors.New("the other side of the copy ended")
