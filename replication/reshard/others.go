package reshard

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// A table of a superuser's, or of the nodes' own role, that runs code of a role that is neither. As its owner that code could do all
// that a superuser may, and there is nobody else to run it as. So such a table is refused, before anything is touched.

// trustedTablesSQL lists the tables of trusted roles among a table, its partitions and those that foreign keys tie to it.
const trustedTablesSQL = linked + `, ` + wholly + `
select format('%I.%I', n.nspname, c.relname) from tables t join pg_class c on c.oid = t.oid join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
 where r.rolsuper or r.rolname = current_user order by c.oid <> $1::text::regclass, 1`

// othersSQL finds code of a role that is not to be trusted which a table of a trusted one runs as its owner: what it has itself, and what
// tables have that it refers to, or will, since to check a key plans a query over both.
const (
	othersSQL = `with recursive linked (oid) as (select $1::text::regclass::oid union select confrelid from pg_constraint where contype = 'f' and conrelid = $1::text::regclass union select x::regclass::oid from unnest($2::text[]) x), ` +
		wholly + nodesOf + codeBehind
	othersCodeSQL = ` select what, pg_get_userbyid(owner), pg_get_userbyid(c.relowner) from code, (select relowner from pg_class where oid = $1::text::regclass) c` + untrusted +
		" and exists (select from pg_roles r where r.oid = c.relowner and (r.rolsuper or r.rolname = current_user)) order by 1 limit 1"
)

// The kinds of types that are code: where values are made, and also where they become text, by casts that the type's owner may have.
const (
	declaredKinds = "'d', 'c'"
	allKinds      = "'d', 'c', 'e', 'r', 'm', 'b'"
)

// othersCode is an error if a table, or one that foreign keys tie to it, is a trusted role's and runs code of one that is not.
func othersCode(ctx context.Context, q queryer, table string) error {
	tables, err := strings1(ctx, q, trustedTablesSQL, table)
	for _, t := range tables {
		if err == nil {
			err = othersCodeOf(ctx, q, t, declaredKinds)
		}
	}
	return err
}

// othersCodeOf is othersCode for one table, which may be about to refer to others.
func othersCodeOf(ctx context.Context, q queryer, table, kinds string, refers ...string) error {
	rows, err := q.Query(ctx, othersSQL+kinds+codeOwned+othersCodeSQL, table, refers)
	if err != nil {
		return err
	}
	type code struct{ What, Owner, Table string }
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[code])
	if err != nil || len(found) == 0 {
		return err
	}
	c := found[0]
	return &pgsql.Error{
		Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("table %s of role %q uses %s of role %q, whose code would run with the rights of the former", table, c.Table, c.What, c.Owner),
		Hint: "ALTER TABLE " + table + " OWNER TO " + pgsql.Ident(c.Owner) + ", or another ordinary role. Nothing was touched.",
	}
}
