package nodeconn

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Whose a database is stands in pgmosaic.identity, which every role may read. It is looked at first whether that is a plain table:
// to read a view, or a table with policies, would run code of whoever made it.

const plainSQL = `select from pg_catalog.pg_class c where c.oid operator(pg_catalog.=) pg_catalog.to_regclass('pgmosaic.identity')
  and c.relkind operator(pg_catalog.=) 'r' and not c.relrowsecurity and not c.relhasrules and not c.relhassubclass`

// ownedSQL and trustedSQL are plainSQL for a connection of the proxy's own: nobody but its role, or a superuser, can put another thing in
// the place. The first is answered at once where the proxy's role has made it; to plan what looks at roles takes thrice as long.
const (
	ownedSQL   = plainSQL + ` and pg_catalog.pg_get_userbyid(c.relowner) operator(pg_catalog.=) current_user`
	trustedSQL = plainSQL + ` and exists (select from pg_catalog.pg_roles r where r.oid = c.relowner and (r.rolsuper or r.rolname = current_user))`
)

const identitySQL = "select installation, database, shard from pgmosaic.identity"

// StrangerError means that a database is not that of the shard which it was asked for.
type StrangerError = shardmap.StrangerError

// Ask runs a query that has no parameters, and returns the rows of its result.
type Ask func(sql string) ([][][]byte, error)

// IdentityOver asks the database of a client's server whose it is. One that does not say gives the zero value.
func IdentityOver(ask Ask) (shardmap.Identity, error) { return identity(ask, plainSQL) }

// Identify asks the same over a connection of the proxy's own.
func Identify(ctx context.Context, c *pgconn.PgConn) (shardmap.Identity, error) {
	return identity(func(sql string) (rows [][][]byte, err error) {
		res, err := c.Exec(ctx, sql).ReadAll()
		if err == nil && len(res) > 0 {
			rows = res[0].Rows
		}
		return rows, err
	}, ownedSQL, trustedSQL)
}

// identity asks whether the table may be read, each question only if the one before it did not say so, and then reads it.
func identity(ask Ask, mayRead ...string) (id shardmap.Identity, err error) {
	var rows [][][]byte
	for _, sql := range mayRead {
		if rows, err = ask(sql); err != nil || len(rows) > 0 {
			break
		}
	}
	if err == nil && len(rows) > 0 {
		rows, err = ask(identitySQL)
	}
	switch {
	case err != nil:
		return id, fmt.Errorf("ask whose database it is: %w", err)
	case len(rows) == 0:
		return id, nil
	case len(rows[0]) != 3:
		return id, fmt.Errorf("ask whose database it is: pgmosaic.identity has another form")
	}
	return shardmap.Identity{Install: string(rows[0][0]), Database: string(rows[0][1]), Shard: string(rows[0][2])}, nil
}
