package reshard

import (
	"context"
	"crypto/sha256"
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
// transaction that makes it. Of what fails it is dropped: home's may change, and what is left would not be what home has then. What somebody
// has changed there since, or others' objects need, is theirs and stays.
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
			_, err = tx.Exec(ctx, "INSERT INTO pgmosaic.brought (class, object, attempt, made) VALUES ($1, $2, $3, $4) ON CONFLICT (class, object) DO UPDATE SET attempt = excluded.attempt, made = excluded.made", o.Class, o.OID, attempt, madeBy(o))
		}
	}
	return err
}

// madeBy is by what an object's form is known again.
func madeBy(o object) []byte {
	sum := sha256.Sum256([]byte(o.SQL[0]))
	return sum[:]
}

// broughtBy is what is noted under an attempt on a shard, with its form. An older version has made no notes.
func broughtBy(ctx context.Context, q querier, attempt string) (map[node][]byte, error) {
	var noted bool
	if err := q.QueryRow(ctx, "SELECT to_regclass('pgmosaic.brought') IS NOT NULL").Scan(&noted); err != nil || !noted {
		return nil, err
	}
	out := map[node][]byte{}
	var n node
	var made []byte
	rows, _ := q.Query(ctx, "SELECT class, object, made FROM pgmosaic.brought WHERE attempt = $1", attempt) // an error comes with the rows
	_, err := pgx.ForEachRow(rows, []any{&n.Class, &n.OID, &made}, func() error { out[n] = slices.Clone(made); return nil })
	return out, err
}

// forgetObjects lets what an attempt has brought stay.
func forgetObjects(ctx context.Context, c *pgx.Conn, shard, attempt string) error {
	ours, err := broughtBy(ctx, c, attempt)
	if err == nil && len(ours) > 0 {
		_, err = c.Exec(ctx, "DELETE FROM pgmosaic.brought WHERE attempt = $1", attempt)
	}
	return ownOr(shard, err)
}

// dropBrought drops what is noted under an attempt on a shard, and nothing else. left is what others have changed, and what cannot be
// dropped, as what others have made needs it.
func dropBrought(ctx context.Context, c *pgx.Conn, shard, attempt string) (left []string, err error) {
	err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		ours, err := broughtBy(ctx, tx, attempt)
		if err != nil || len(ours) == 0 {
			return err
		}
		all, err := objects(ctx, tx)
		if err != nil {
			return err
		}
		var drop []object
		for _, o := range all {
			switch made, our := ours[o.node]; {
			case our && slices.Equal(made, madeBy(o)):
				drop = append(drop, o)
			case our:
				left = append(left, o.Name)
			}
		}
		if drop, err = dropObjects(ctx, tx, drop); err != nil {
			return err
		}
		for _, o := range drop {
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
			err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return dropObject(ctx, tx, o) })
			var pe *pgconn.PgError
			switch {
			case errors.Is(err, errTheirs), errors.As(err, &pe) && (pe.Code == pgsql.DependentObjectsStillExist || pe.Code == pgsql.InsufficientPrivilege):
				left = append(left, o)
			case err != nil && !(pe != nil && (pe.Code == pgsql.UndefinedObject || pe.Code == pgsql.UndefinedFunction)): // it has gone with another
				return nil, err
			}
		}
		slices.Reverse(left)
	}
	return left, nil
}

// errTheirs says that to drop an object would be to drop something of others.
var errTheirs = errors.New("others have something of it")

// partsSQL says whether a family has members, or a function or operator is one of a family: PostgreSQL drops these along with it,
// whosever they are.
const partsSQL = "SELECT EXISTS (SELECT FROM pg_depend WHERE refclassid = $1 AND refobjid = $2 AND deptype = 'a' AND classid IN ('pg_opclass'::regclass, 'pg_amop'::regclass, 'pg_amproc'::regclass))"

// dropObject drops an object. Who has renamed it, while its lock was waited for, may have given its name to another one: that stays.
func dropObject(ctx context.Context, tx pgx.Tx, o object) error {
	var theirs, there bool
	if err := tx.QueryRow(ctx, partsSQL, o.Class, o.OID).Scan(&theirs); err != nil {
		return err
	}
	if theirs {
		return errTheirs
	}
	drop := "DROP " + dropName(o.Name)
	if strings.HasPrefix(o.Name, "family member ") {
		err := tx.QueryRow(ctx, dropMemberSQL, o.Class, o.OID).Scan(&drop)
		if errors.Is(err, pgx.ErrNoRows) { // it has gone with its family
			return nil
		}
		if err != nil {
			return err
		}
	}
	if err := runBounded(ctx, tx, time.Minute, drop); err != nil {
		return err
	}
	err := tx.QueryRow(ctx, "SELECT pg_describe_object($1, $2, 0) IS NOT NULL", o.Class, o.OID).Scan(&there)
	if err == nil && there {
		err = errTheirs
	}
	return err
}

// dropMemberSQL takes a member of an operator family out of it.
const dropMemberSQL = `select format('ALTER OPERATOR FAMILY %I.%I USING %I DROP %s %s (%s, %s)', n.nspname, f.opfname, m.amname, x.kind, x.number, format_type(x.l, null), format_type(x.r, null))
  from (select 'pg_amop'::regclass, oid, 'OPERATOR', amopfamily, amopstrategy, amoplefttype, amoprighttype from pg_amop
    union all select 'pg_amproc'::regclass, oid, 'FUNCTION', amprocfamily, amprocnum, amproclefttype, amprocrighttype from pg_amproc) x (class, oid, kind, family, number, l, r)
  join pg_opfamily f on f.oid = x.family join pg_namespace n on n.oid = f.opfnamespace join pg_am m on m.oid = f.opfmethod where x.class = $1 and x.oid = $2`

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
	c, e := g.primary.connect(ctx)
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
