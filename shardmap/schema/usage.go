package schema

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Usage is which schemas there are and who may use them: a search_path passes over those that the role may not.
type Usage struct {
	Schemas    map[string]bool            // all that there are
	Closed     map[string]map[string]bool // the schemas that not everybody may use, and the roles that were given them
	In         map[string][]string        // of a role those whose rights it has as their member, as far as Closed needs it
	Everywhere map[string]bool            // the roles that may use all
}

// Barred says whether names are not looked up in a schema for a role.
func (u *Usage) Barred(schema, role string) bool {
	given, closed := u.Closed[schema]
	if !closed || u.Everywhere[role] {
		return false
	}
	who, seen := []string{role}, map[string]bool{role: true}
	for len(who) > 0 {
		r := who[len(who)-1]
		if who = who[:len(who)-1]; given[r] {
			return false
		}
		for _, group := range u.In[r] {
			if !seen[group] {
				seen[group] = true
				who = append(who, group)
			}
		}
	}
	return true
}

// inheritsSQL has which role may do what another one may: who is in it, and, of pg_database_owner, who owns the database. Since PostgreSQL 16 that is a
// matter of each membership, before of the member.
const inheritsSQL = `m (role, member) as (select m.roleid, m.member from pg_auth_members m join pg_roles r on r.oid = m.member where coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, r.rolinherit)
    union all select o.oid, d.datdba from pg_roles o, pg_database d join pg_roles r on r.oid = d.datdba where o.rolname = 'pg_database_owner' and d.datname = current_database() and (r.rolinherit or current_setting('server_version_num')::int >= 160000))`

// givenSQL has the roles, of everybody 0, that were given the use of each schema.
const givenSQL = `n as (select oid, nspname, nspowner, nspacl from pg_namespace where nspname !~ '^pg_' and nspname not in ('information_schema', 'pgmosaic')),
  given (ns, role) as (select n.oid, x.grantee from n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) x where x.privilege_type = 'USAGE')`

// Schemas and members are listed by themselves: a group of thousands of roles may have been given thousands of schemas.
const (
	closedSQL = `with ` + givenSQL + ` select n.nspname::text, coalesce(array_agg(r.rolname::text order by 1) filter (where r.oid is not null), '{}') from n left join given g on g.ns = n.oid left join pg_roles r on r.oid = g.role
 where n.oid not in (select ns from given where role = 0) group by n.nspname`
	membersSQL = `with recursive ` + inheritsSQL + `, ` + givenSQL + `, g (role) as (select role from given union select m.member from g join m on m.role = g.role)
select b.rolname::text, array_agg(r.rolname::text order by 1) from m join g on g.role = m.role join pg_roles r on r.oid = m.role join pg_roles b on b.oid = m.member group by 1`
	everywhereSQL = `with recursive ` + inheritsSQL + `, g (role) as (select oid from pg_roles where rolname in ('pg_read_all_data', 'pg_write_all_data') union select m.member from g join m on m.role = g.role)
select rolname::text from pg_roles where rolsuper or oid in (select role from g)`
)

// usageSQL changes with what is read here, and not with other roles of the server: those are made for other databases, too.
const usageSQL = `(select sum(hashtextextended(x::text, 0)) from (` + closedSQL + `) x), (select sum(hashtextextended(x::text, 0)) from (` + membersSQL + `) x where exists (select from (` + closedSQL + `) y)),
  (select sum(hashtextextended(x::text, 0)) from (` + everywhereSQL + `) x where exists (select from (` + closedSQL + `) y))`

// loadUsage reads it.
func (s *Snapshot) loadUsage(ctx context.Context, q queryer) error {
	s.Closed, s.In, s.Everywhere = map[string]map[string]bool{}, map[string][]string{}, map[string]bool{}
	var name string
	var roles []string
	rows, _ := q.Query(ctx, closedSQL) // an error comes with the rows
	if _, err := pgx.ForEachRow(rows, []any{&name, &roles}, func() error {
		may := make(map[string]bool, len(roles))
		for _, r := range roles {
			may[r] = true
		}
		s.Closed[name], roles = may, nil
		return nil
	}); err != nil {
		return err
	}
	rows, _ = q.Query(ctx, membersSQL)
	if _, err := pgx.ForEachRow(rows, []any{&name, &roles}, func() error { s.In[name], roles = roles, nil; return nil }); err != nil {
		return err
	}
	rows, _ = q.Query(ctx, everywhereSQL)
	_, err := pgx.ForEachRow(rows, []any{&name}, func() error { s.Everywhere[name] = true; return nil })
	return err
}
