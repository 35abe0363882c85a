package reshard

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// VERIFY TABLE looks whether a distributed table's rows are what and where they have to be: the copies of a reference table alike,
// those of a sharded one on the shard that owns their key, and none on two. It reads hashes, takes no lock while it looks, and looks
// again at what differed, since others write meanwhile.

// MaxDifferences is how many differences are told of.
const MaxDifferences = 1000

// Difference is a row of a shard that is not as it has to be.
type Difference struct {
	Shard string
	Key   []string // its primary key; of a table without, the whole row
	How   string
}

// VerifyTable lists the rows of a distributed table that are not as they have to be, in order; more than MaxDifferences means that there may be more yet.
func (mv *Mover) VerifyTable(ctx context.Context, db string, n shardmap.TableName) ([]Difference, error) {
	d, err := mv.Database(db)
	if err != nil {
		return nil, err
	}
	info := d.Table(n)
	if info == nil {
		return nil, &pgsql.Error{Code: pgsql.UndefinedTable, Message: fmt.Sprintf("table %s is not distributed", n), Hint: "SHOW TABLES lists the distributed ones. A table of home's is PostgreSQL's own affair."}
	}
	if info.Moving {
		return nil, &pgsql.Error{Code: pgsql.ObjectInUse, Message: fmt.Sprintf("table %s is moving", n), Hint: "SHOW JOBS says how far it is."}
	}
	j := mv.begin(d.Name, fmt.Sprintf("VERIFY TABLE %s", n))
	defer func() { j.end(err) }()
	v, err := mv.openVerify(ctx, d, info, j)
	if err != nil {
		return nil, err
	}
	defer v.close(ctx)
	found, err := v.look(ctx)
	if err != nil {
		return nil, err
	}
	if info.Kind == shardmap.Reference {
		mv.noteCheck(d, info, found)
	}
	slices.SortStableFunc(found, func(a, b Difference) int { return cmp.Or(slices.Compare(a.Key, b.Key), cmp.Compare(a.Shard, b.Shard)) })
	return found, nil
}

// copyOf is a table as one shard has it.
type copyOf struct {
	shard *shardmap.ShardInfo
	c     *pgx.Conn
	owner string // as whom it is read, if not as the role of the connection: see owner.go
}

// verify is one look at a table.
type verify struct {
	job     *job
	db      *shardmap.DB
	table   *shardmap.TableInfo
	copies  []copyOf // home's is the first
	columns []string
	key     []string // the primary key; none: rows are told apart by all that they hold
	types   []string // as which the key's columns are compared: their own, or text
	locked  bool     // the copies, in transactions that are open
}

// primaryKey is where a question finds the columns of a table's primary key, as a, and their places in it, as k.o. What the key merely includes is
// none of it.
const primaryKey = "from pg_index i, unnest(i.indkey) with ordinality k (n, o) join pg_attribute a on a.attnum = k.n where i.indrelid = $1::text::regclass and i.indisprimary and k.o <= i.indnkeyatts and a.attrelid = i.indrelid"

// plainEqual is whether such a column's values are equal, for the key's index, by an operator of PostgreSQL's. An extension's is not found by our
// search path: there is no other, or one of another type is taken for it.
const plainEqual = `exists (select from pg_opclass c join pg_amop m on m.amopfamily = c.opcfamily and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype and m.amopstrategy = 3
  join pg_operator e on e.oid = m.amopopr where c.oid = i.indclass[k.o::int - 1] and c.opcmethod = (select oid from pg_am where amname = 'btree') and e.oprnamespace = 'pg_catalog'::regnamespace)`

const verifiedSQL = `select array(select attname::text from pg_attribute where attrelid = $1::text::regclass and attnum > 0 and not attisdropped order by attnum),
 array(select a.attname::text ` + primaryKey + ` order by k.o),
 array(select case when ` + plainEqual + ` then format_type(a.atttypid, a.atttypmod) else 'text' end ` + primaryKey + ` order by k.o)`

// openVerify connects to all shards that have the table. close ends it.
func (mv *Mover) openVerify(ctx context.Context, d *shardmap.DB, info *shardmap.TableInfo, j *job) (v *verify, err error) {
	v = &verify{job: j, db: d, table: info}
	defer func() {
		if err != nil {
			v.close(ctx)
		}
	}()
	shards := []*shardmap.ShardInfo{d.Home}
	for _, s := range d.Shards {
		if s != d.Home {
			shards = append(shards, s)
		}
	}
	for _, s := range shards {
		c, err := mv.openShard(ctx, d.Name, s)
		if err != nil {
			return v, err
		}
		v.copies = append(v.copies, copyOf{shard: s, c: c})
		// Rows of one shard wait until the others have sorted theirs: that nobody reads them does not mean that the proxy is gone.
		if _, err := c.Exec(ctx, "set tcp_user_timeout = 0"); err != nil {
			return v, nodeFailed(s.Name, err)
		}
		var there bool
		if err := c.QueryRow(ctx, "select to_regclass($1) is not null", info.SQL()).Scan(&there); err != nil {
			return v, nodeFailed(s.Name, err)
		}
		switch owner := len(info.Keys) > 0 || info.Kind == shardmap.Reference || d.Placement(info.Group).Shards()[0] == s.Index; {
		case !there && owner:
			return v, &pgsql.Error{Code: pgsql.UndefinedTable, Message: fmt.Sprintf("table %s does not exist on shard %s", info.TableName, s.Name), Hint: "It was dropped there by other means than this proxy. UNDISTRIBUTE TABLE or restore it."}
		case !there:
			v.copies = v.copies[:len(v.copies)-1]
			_ = c.Close(context.WithoutCancel(ctx)) // nothing was done on it
		default:
			if v.copies[len(v.copies)-1].owner, err = readAs(ctx, c, info.SQL()); err != nil {
				return v, ownOr(s.Name, err)
			}
			if v.columns != nil {
				continue
			}
			if err := c.QueryRow(ctx, verifiedSQL, info.SQL()).Scan(&v.columns, &v.key, &v.types); err != nil {
				return v, nodeFailed(s.Name, err)
			}
		}
	}
	return v, nil
}

func (v *verify) close(ctx context.Context) {
	for _, c := range v.copies {
		_ = c.c.Close(context.WithoutCancel(ctx)) // only read
	}
}

// readAs is the role as which a table is read: its owner, unless that may do what the role of the connection may. Texts of values are
// made by whatever casts a user has for his types, and queries are planned with what he has put into indexes. A table whose policies
// hold for its owner is read as the role of the connection, if it has only types and functions of PostgreSQL's. One whose owner may do
// what the role of the connection may is read if it has none of a role that may not.
func readAs(ctx context.Context, c *pgx.Conn, table string) (owner string, err error) {
	var bound, plain bool
	err = c.QueryRow(ctx, `select case when r.rolsuper or r.rolname = current_user then '' else r.rolname end, t.relforcerowsecurity,
	    not exists (select from pg_attribute a where a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped and a.atttypid >= 16384)
	  from pg_class t join pg_roles r on r.oid = t.relowner where t.oid = $1::text::regclass`, table).Scan(&owner, &bound, &plain)
	if err == nil && owner == "" {
		return "", othersCodeOf(ctx, c, table, allKinds)
	}
	if err != nil || !bound {
		return owner, err
	}
	foreign, err := strings1(ctx, c, foreignSQL, table)
	if err == nil && (len(foreign) > 0 || !plain) {
		return "", &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("table %s cannot be verified: its policies hold for its owner, and it has types or functions of users", table), Hint: "ALTER TABLE ... NO FORCE ROW LEVEL SECURITY."}
	}
	return "", err
}

// ask runs a query over a copy, which has so many columns. The rows are to be read before the next query.
func (v *verify) ask(ctx context.Context, c copyOf, columns int, order, sql string) (pgx.Rows, error) {
	if c.owner == "" {
		return c.c.Query(ctx, sql+order)
	}
	if !v.locked {
		if err := c.begin(ctx); err != nil {
			return nil, err
		}
	}
	stage, names := pgsql.Qualified("pgmosaic", "stage_"+newID()), make([]string, columns)
	for i := range names {
		names[i] = fmt.Sprintf("c%d", i)
	}
	err := run(ctx, c.c, []string{
		fmt.Sprintf("CREATE UNLOGGED TABLE %s (%s) AS %s WITH NO DATA", stage, pgsql.List(names), sql),
		"GRANT INSERT ON " + stage + " TO " + pgsql.Ident(c.owner),
	})
	if err == nil {
		err = asOwner(ctx, c.c, c.owner, "INSERT INTO "+stage+" "+sql)
	}
	if err != nil {
		return nil, err
	}
	return c.c.Query(ctx, "SELECT * FROM "+stage+order)
}

// begin begins a transaction that is never committed, in the place of the last.
func (c copyOf) begin(ctx context.Context) error {
	if c.c.PgConn().TxStatus() != 'I' {
		if _, err := c.c.Exec(ctx, "rollback"); err != nil {
			return err
		}
	}
	_, err := c.c.Exec(ctx, "begin")
	return err
}

func (v *verify) look(ctx context.Context) ([]Difference, error) {
	switch {
	case v.table.Kind == shardmap.Reference:
		return v.compare(ctx)
	case len(v.table.Keys) == 0:
		return v.strayed(ctx)
	}
	return v.places(ctx)
}

// row and keyText are what a row and its key are told by.
func (v *verify) row() string { return "ROW(" + pgsql.List(v.columns) + ")::text" }

func (v *verify) keyText() string {
	if len(v.key) == 0 {
		return v.row()
	}
	return "ROW(" + pgsql.List(v.key) + ")::text"
}

// keyArray is the key's columns as texts.
func (v *verify) keyArray() string {
	if len(v.key) == 0 {
		return "ARRAY[left(" + v.row() + ", 500)]"
	}
	return "ARRAY[" + casts(v.key) + "]"
}

func casts(columns []string) string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = pgsql.Ident(c) + "::text"
	}
	return strings.Join(out, ", ")
}

// hashed is a hash of a text, in SQL: 48 bits, the same on all servers.
func hashed(text string) string {
	return "('x' || encode(substring(sha256(convert_to(" + text + ", 'UTF8')) from 1 for 6), 'hex'))::bit(48)::bigint"
}
