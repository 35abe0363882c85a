package reshard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// What a CREATE SHARD makes in the new shard's database beside tables, types and functions, is noted in pgmosaic.brought by OID, in the
// transaction that makes it. Of what fails it is dropped: home's may change, and what is left would not be what home has then.
// Schemas and extensions stay, as they are made only where there are none; and so do roles, which are a server's: others that found them
// there may count on them by now.

// noteObjects notes what the transaction has made, by the names of objects.
func noteObjects(ctx context.Context, tx querier, made []string, attempt string) error {
	if len(made) == 0 || attempt == "" {
		return nil
	}
	all, err := objects(ctx, tx)
	for _, o := range all {
		if err == nil && slices.Contains(made, o.Name) {
			_, err = tx.Exec(ctx, "INSERT INTO pgmosaic.brought VALUES ($1, $2, $3) ON CONFLICT (class, object) DO UPDATE SET attempt = excluded.attempt", o.Class, o.OID, attempt)
		}
	}
	return err
}

// forgetObjects lets what an attempt has brought stay.
func forgetObjects(ctx context.Context, c *pgx.Conn, shard, attempt string) error {
	_, err := c.Exec(ctx, "DELETE FROM pgmosaic.brought WHERE attempt = $1", attempt)
	return ownOr(shard, err)
}

// dropBrought drops what is noted under an attempt on a shard, and nothing else. left is what cannot be dropped, as what others have
// made needs it.
func dropBrought(ctx context.Context, c *pgx.Conn, shard, attempt string) (left []string, err error) {
	err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		var noted bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass('pgmosaic.brought') IS NOT NULL").Scan(&noted); err != nil || !noted {
			return err
		}
		ours := map[node]bool{}
		var n node
		rows, _ := tx.Query(ctx, "SELECT class, object FROM pgmosaic.brought WHERE attempt = $1", attempt) // an error comes with the rows
		if _, err := pgx.ForEachRow(rows, []any{&n.Class, &n.OID}, func() error { ours[n] = true; return nil }); err != nil || len(ours) == 0 {
			return err
		}
		all, err := objects(ctx, tx)
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(o object) bool { return !ours[o.node] })
		if all, err = dropObjects(ctx, tx, all); err != nil {
			return err
		}
		for _, o := range all {
			left = append(left, o.Name)
		}
		_, err = tx.Exec(ctx, "DELETE FROM pgmosaic.brought WHERE attempt = $1", attempt)
		return err
	})
	return left, ownOr(shard, err)
}

// dropObjects drops what nothing else needs, again and again, until nothing more can be dropped: that is left.
func dropObjects(ctx context.Context, tx pgx.Tx, all []object) (left []object, err error) {
	for len(all) > 0 && len(left) < len(all) {
		if left != nil {
			all = left
		}
		left = []object{}
		for _, o := range slices.Backward(all) { // the youngest first
			err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return runBounded(ctx, tx, time.Minute, "DROP "+dropName(o.Name)) })
			var pe *pgconn.PgError
			switch {
			case errors.As(err, &pe) && (pe.Code == pgsql.DependentObjectsStillExist || pe.Code == pgsql.InsufficientPrivilege):
				left = append(left, o)
			case err != nil && !(pe != nil && (pe.Code == pgsql.UndefinedObject || pe.Code == pgsql.UndefinedFunction)): // it has gone with another
				return nil, err
			}
		}
		slices.Reverse(left)
	}
	return left, nil
}

// dropName is what an object is called in DROP.
func dropName(name string) string {
	kind, rest, _ := strings.Cut(name, " ")
	switch {
	case kind == "function":
		return "ROUTINE " + rest
	case strings.HasPrefix(name, "operator class ") || strings.HasPrefix(name, "operator family "):
		if i := strings.LastIndex(name, " of "); i > 0 {
			return name[:i] + " USING " + name[i+len(" of "):]
		}
	}
	return name
}

// stays adds to a CREATE SHARD's error which roles have come to the shard's server since it began: they stay there.
func (g *joiner) stays(ctx context.Context, err error) error {
	c, e := connect(ctx, g.primary.conns, g.primary.Name, g.primary.DSN)
	if e != nil {
		return err
	}
	defer giveBack(ctx, g.primary.conns, c)
	there, e := strings1(ctx, c, "select quote_ident(rolname) from pg_roles where rolname = any($1) order by 1", g.roles)
	if e != nil || len(there) == 0 {
		return err
	}
	return errors.Join(err, fmt.Errorf("of what was made for shard %q the roles %s stay on its server: others there may count on them by now; DROP ROLE them if nobody does", g.x.Shard.Name, strings.Join(there, ", ")))
}
