package nodeconn

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// IdentitySQL asks a database whose it is. Every role may ask.
const IdentitySQL = "select installation, database, shard from pgmosaic.identity"

// ReadIdentity reads the answer to IdentitySQL. A database that lacks the table says nothing: that is no error.
func ReadIdentity(rows [][][]byte, err error) (id shardmap.Identity, _ error) {
	var s interface{ SQLState() string }
	switch {
	case errors.As(err, &s) && s.SQLState() == "42P01":
		return id, nil
	case err != nil:
		return id, fmt.Errorf("ask whose database it is: %w", err)
	case len(rows) == 0:
		return id, nil
	}
	return shardmap.Identity{Install: string(rows[0][0]), Database: string(rows[0][1]), Shard: string(rows[0][2])}, nil
}

// Identify asks the database of a connection whose it is.
func Identify(ctx context.Context, c *pgconn.PgConn) (shardmap.Identity, error) {
	return ReadIdentity(Ask(ctx, c))
}

// Ask runs IdentitySQL.
func Ask(ctx context.Context, c *pgconn.PgConn) (rows [][][]byte, err error) {
	res, err := c.Exec(ctx, IdentitySQL).ReadAll()
	if err == nil && len(res) > 0 {
		rows = res[0].Rows
	}
	return rows, err
}
