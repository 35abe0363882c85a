package reshard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Columns of sharded tables that draw from a sequence. Each shard has a sequence of its own that counts in steps of stride,
// from a place that is its shard's alone: no two shards ever draw the same value, and nobody has to be asked. The values of
// a key column are drawn on home, before the row is routed: that sequence counts on as it did, and no other shard has it.

// stride is how many shards may draw without meeting. A shard's place is its ordinal in the map.
const stride = 64

// drawn is a column that draws from a sequence, as home has it.
type drawn struct {
	column, sequence string // the sequence as quoted in SQL
	value            string // the column's default; empty for an identity
	computed         bool   // the default is not a drawn value by itself
	identity         string // a, d or empty
	typ              string
	increment        int64
	minimum, maximum int64
	cache            int64
	cycles, called   bool
	last             int64
	isKey            bool
	whole            bool     // the column is an integer: others may hold what is no number
	parted           bool     // the table's rows are in partitions
	grants           []string // of the sequence
	alone            string   // of an identity in a schema that lives on one shard: how it counts there, as it does at home
}

// drawsSQL is whether a default, as text, is what a sequence gives and nothing else.
const drawsSQL = `~ '^\(?nextval\(''([^'']|'''')*''::regclass\)\)?(::(bigint|integer|smallint))?$'`

const drawnSQL = `
select a.attname, s.seqrelid::regclass::text, coalesce(pg_get_expr(f.adbin, f.adrelid), ''), coalesce(not pg_get_expr(f.adbin, f.adrelid) ` + drawsSQL + `, false), a.attidentity::text, format_type(s.seqtypid, null), s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle,
       (select coalesce(nullif(t.typbasetype, 0), t.oid) in (20, 21, 23) from pg_type t where t.oid = a.atttypid), (select c.relkind = 'p' from pg_class c where c.oid = a.attrelid),
       array(select format('GRANT %s ON SEQUENCE %s TO %s', x.privilege_type, s.seqrelid::regclass, case when x.grantee = 0 then 'PUBLIC' else quote_ident(pg_get_userbyid(x.grantee)) end)
               from pg_class q, aclexplode(q.relacl) x where q.oid = s.seqrelid and x.grantee <> q.relowner)
  from pg_attribute a left join pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum
  join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid and d.refclassid = 'pg_class'::regclass and d.deptype = 'n'
    or d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = a.attrelid and d.refobjsubid = a.attnum and d.deptype = 'i'
  join pg_sequence s on s.seqrelid = case when d.deptype = 'n' then d.refobjid else d.objid end
 where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum`

// drawnColumns lists the columns of a table that draw from sequences.
func drawnColumns(ctx context.Context, home queryer, n shardmap.TableName, keys []string) ([]drawn, error) {
	rows, _ := home.Query(ctx, drawnSQL, n.SQL())
	var d drawn
	var out []drawn
	if _, err := pgx.ForEachRow(rows, []any{&d.column, &d.sequence, &d.value, &d.computed, &d.identity, &d.typ, &d.increment, &d.minimum, &d.maximum, &d.cache, &d.cycles, &d.whole, &d.parted, &d.grants}, func() error {
		d.isKey = slices.Contains(keys, d.column)
		out = append(out, d)
		d.grants = nil
		return nil
	}); err != nil {
		return nil, err
	}
	for i := range out {
		if err := out[i].readLast(ctx, home); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// noViews has a session meet no view of a user's, or any again, on a server that knows how to: https://www.postgresql.org/docs/current/runtime-config-client.html.
const noViews = "select set_config('restrict_nonsystem_relation_kind', $1, false) where current_setting('restrict_nonsystem_relation_kind', true) is not null"

// readLast reads where a sequence is. Its owner could have its name mean a view by now, whose code would run as the proxy's role.
func (c *drawn) readLast(ctx context.Context, q queryer) error {
	if _, err := strings1(ctx, q, noViews, "view, foreign-table"); err != nil {
		return err
	}
	rows, _ := q.Query(ctx, "select last_value, is_called from "+c.sequence) // an error comes with the rows
	_, err := pgx.ForEachRow(rows, []any{&c.last, &c.called}, func() error { return nil })
	if _, resetErr := strings1(ctx, q, noViews, ""); err == nil {
		err = resetErr
	}
	return err
}

// checkDrawn finds out whether a table's sequences can be kept over shards.
func checkDrawn(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table) error {
	cols, err := drawnColumns(ctx, home, t.TableName(), t.Key)
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	if t.Kind == shardmap.Sharded {
		if err := checkComputed(ctx, home, d, t); err != nil {
			return err
		}
		if err := checkShared(ctx, home, d, t); err != nil {
			return err
		}
	}
	for _, c := range cols {
		refuse := func(what, hint string) error {
			return &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("table %s cannot be distributed: column %s %s", t.TableName(), c.column, what), Hint: hint}
		}
		switch {
		case t.Kind == kindTenant: // see checkSequences
		case t.Kind != shardmap.Sharded:
			return refuse("draws from a sequence, and its values would differ between copies", "ALTER TABLE ... ALTER COLUMN ... DROP DEFAULT (or DROP IDENTITY) and give the value in the INSERT, or use a uuid.")
		case c.increment != 1 || c.cycles:
			return refuse("draws from a sequence that does not count in ones, or cycles", "ALTER SEQUENCE ... INCREMENT BY 1 NO CYCLE RESTART WITH a value above all that were ever drawn, first.")
		case c.isKey && c.identity == "a":
			return refuse("is the key and GENERATED ALWAYS AS IDENTITY, which takes no value from outside", "ALTER TABLE ... ALTER COLUMN ... SET GENERATED BY DEFAULT first.")
		}
	}
	if t.Kind == shardmap.Reference {
		if err := checkGenerated(ctx, home, d, t.TableName()); err != nil {
			return err
		}
	}
	for _, s := range d.Shards {
		if t.Kind == shardmap.Sharded && len(cols) > 0 && s.Ordinal >= stride {
			return tooManyShards(s.Name)
		}
	}
	return nil
}

// computedSQL lists columns, of a table and its partitions, whose default calls a function of sequences otherwise than drawnSQL knows, with it. It goes by
// the catalogs' indexes, as nodesOf does: a server that expects thousands of partitions looks at the columns of all tables.
const computedSQL = `select x.name, x.says from (select $1::text::regclass::oid union select relid::oid from pg_partition_tree($1::text::regclass)) p (oid), lateral (
  select a.attname::text, coalesce(f.adbin, t.typdefaultbin)::text, coalesce(pg_get_expr(f.adbin, f.adrelid), pg_get_expr(t.typdefaultbin, 0)), f.adbin is not null
    from pg_attribute a left join pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum left join pg_type t on t.oid = a.atttypid and t.typtype = 'd'
   where a.attrelid = p.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' offset 0) x (name, tree, says, own)
 where exists (select from regexp_matches(x.tree, ':funcid (\d+)', 'g') m join pg_proc r on r.oid = m[1]::oid where r.pronamespace = 'pg_catalog'::regnamespace and r.proname in ('nextval', 'currval', 'lastval', 'setval'))
   and not (x.own and x.says ` + drawsSQL + `) order by 1, 2`

// checkComputed refuses a table with a default that does more with a sequence than to draw from it. Such values do not tell how far the sequences of
// a table's shards have come, and what a session has drawn before it may have drawn on another shard.
func checkComputed(ctx context.Context, home *pgx.Conn, d *shardmap.DB, t shardmap.Table) error {
	rows, _ := home.Query(ctx, computedSQL, t.TableName().SQL()) // an error comes with the rows
	var column, says string
	var refusal error
	if _, err := pgx.ForEachRow(rows, []any{&column, &says}, func() error {
		if refusal == nil && !slices.Contains(t.Key, column) { // nothing draws a key from such a default
			refusal = computedDefault(t.TableName(), column, says)
		}
		return nil
	}); err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	return refusal
}

func computedDefault(n shardmap.TableName, column, says string) error {
	return &pgsql.Error{
		Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("table %s cannot be brought to other shards: the default of column %s does more than to draw from a sequence: %s", n, column, says),
		Hint: "Let one column draw, DEFAULT nextval('...'), and compute the other from it: GENERATED ALWAYS AS (...) STORED.",
	}
}

// generatedSQL finds a generated column of a table, or of its partitions, and a function of a user's that it calls and that calls, by the
// words of its definition, what is not immutable. What it was said to be is not believed.
const generatedSQL = `select a.attname::text, p.oid::regprocedure::text from (select $1::text::regclass::oid union select relid::oid from pg_partition_tree($1::text::regclass)) t (oid)
  join pg_attribute a on a.attrelid = t.oid and a.attgenerated <> '' join pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
  left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid join pg_proc p on p.oid = case d.refclassid when 'pg_proc'::regclass then d.refobjid when 'pg_operator'::regclass then o.oprcode end
 where p.oid >= 16384 and p.prokind = 'f' and not exists (select from pg_depend e where e.classid = 'pg_proc'::regclass and e.objid = p.oid and e.deptype = 'e')
   and (p.provolatile <> 'i' or pg_get_functiondef(p.oid) ~* '\mcurrent_(date|time|timestamp)\M|\mlocaltime(stamp)?\M|''\s*(now|today|tomorrow|yesterday)\M' or exists (select from pg_proc b where b.pronamespace = 'pg_catalog'::regnamespace and (b.provolatile = 'v' or b.proname in ('now', 'transaction_timestamp', 'statement_timestamp'))
     and pg_get_functiondef(p.oid) ~* ('\m' || b.proname || '\s*\('))) order by 1, 2 limit 1`

// checkGenerated refuses a reference table with a generated column that each copy would fill with values of its own.
func checkGenerated(ctx context.Context, home *pgx.Conn, d *shardmap.DB, n shardmap.TableName) error {
	var column, function string
	err := home.QueryRow(ctx, generatedSQL, n.SQL()).Scan(&column, &function)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	return &pgsql.Error{
		Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("table %s cannot be distributed: generated column %s calls %s, which calls what is not immutable, and its values would differ between copies", n, column, function),
		Hint: "ALTER TABLE ... ALTER COLUMN ... DROP EXPRESSION and give the value in the INSERT, or write the function without it.",
	}
}

func tooManyShards(name string) error {
	return &pgsql.Error{Code: pgsql.ProgramLimitExceeded, Message: fmt.Sprintf("shard %q is past the first %d that the database has had: the sequences of sharded tables have no place for it", name, stride), Hint: "The place of a dropped shard is not given again. Use uuid columns, or give the values in the INSERT."}
}

// firstValue is where a shard's sequence begins, above everything that was drawn before.
func firstValue(above int64, ordinal int) int64 { return (above/stride+1)*stride + int64(ordinal) }

// strideSQL makes home's sequences count in the shard's place. above is a value that is larger than all that were drawn.
func strideSQL(c drawn, above int64, ordinal int) string {
	return fmt.Sprintf("ALTER SEQUENCE %s INCREMENT BY %d START WITH %d RESTART", c.sequence, stride, firstValue(above, ordinal))
}

// clause is a column's part of CREATE TABLE on a shard that is not home.
func (c drawn) clause(above int64, ordinal int) (clause, sequence string) {
	how := map[string]string{"a": "ALWAYS", "d": "BY DEFAULT"}[c.identity]
	if c.alone != "" {
		return fmt.Sprintf(" GENERATED %s AS IDENTITY (%s)", how, c.alone), ""
	}
	counts := fmt.Sprintf("INCREMENT BY %d MINVALUE %d MAXVALUE %d START WITH %d CACHE %d", stride, c.minimum, c.maximum, firstValue(above, ordinal), c.cache)
	switch {
	case c.isKey:
		return "", ""
	case c.identity != "":
		return fmt.Sprintf(" GENERATED %s AS IDENTITY (%s)", how, counts), ""
	}
	return " DEFAULT " + c.value, fmt.Sprintf("CREATE SEQUENCE IF NOT EXISTS %s AS %s %s", c.sequence, c.typ, counts)
}

// shardSequences is what a shard needs to know of a sharded table's sequences when the table is made there.
type shardSequences struct {
	ordinal int
	cols    []drawn
	above   []int64 // of each
}

// sequencesOn finds out where a table's sequences begin on a shard: above all rows of the given servers.
func sequencesOn(ctx context.Context, home *pgx.Conn, t *shardmap.TableInfo, ordinal int, others ...*pgx.Conn) (*shardSequences, error) {
	if t.Kind != shardmap.Sharded || len(t.Keys) == 0 {
		return nil, nil
	}
	cols, err := drawnColumns(ctx, home, t.TableName, t.Keys)
	if err != nil {
		return nil, err
	}
	p := &shardSequences{ordinal: ordinal, cols: cols}
	for _, c := range cols {
		top, err := highest(ctx, t.TableName, c, append([]*pgx.Conn{home}, others...)...)
		if err != nil {
			return nil, err
		}
		p.above = append(p.above, top)
	}
	return p, nil
}

// at is what another shard needs to know of them.
func (p *shardSequences) at(ordinal int) *shardSequences {
	if p == nil {
		return nil
	}
	return &shardSequences{ordinal, p.cols, p.above}
}

// clause is what a column's definition says of its sequence; ok is false for a column without. sequence makes it first,
// then ties it to the column and gives its grants.
func (p *shardSequences) clause(table, column string) (clause, sequence string, then []string, ok bool) {
	if p == nil {
		return "", "", nil, false
	}
	for i, c := range p.cols {
		if c.column == column {
			clause, sequence = c.clause(p.above[i], p.ordinal)
			if sequence != "" {
				then = append(then, fmt.Sprintf("ALTER SEQUENCE %s OWNED BY %s.%s", c.sequence, table, pgsql.Ident(column)))
				then = append(then, c.grants...)
			}
			return clause, sequence, then, true
		}
	}
	return "", "", nil, false
}

// drawAlone refuses a table whose default has come to do more than to draw: checkComputed had let the table in.
func (p *shardSequences) drawAlone(n shardmap.TableName) error {
	if p == nil {
		return nil
	}
	for _, c := range p.cols {
		if c.computed && !c.isKey {
			return computedDefault(n, c.column, c.value)
		}
	}
	return nil
}

// sequenceOf is the sequence that a column draws from.
func (p *shardSequences) sequenceOf(column string) string {
	for _, c := range p.cols {
		if c.column == column {
			return c.sequence
		}
	}
	return ""
}

// strides makes home's own sequences count in home's place.
func (p *shardSequences) strides() (out []string) {
	if p == nil {
		return nil
	}
	for i, c := range p.cols {
		if !c.isKey {
			out = append(out, strideSQL(c, p.above[i], p.ordinal))
		}
	}
	return out
}

// restarts makes the sequences of a shard that is not home begin anew, above all that was drawn by now.
func (p *shardSequences) restarts(table string) (out []string) {
	if p == nil {
		return nil
	}
	for i, c := range p.cols {
		switch first := firstValue(p.above[i], p.ordinal); {
		case c.isKey:
		case c.identity != "":
			out = append(out, fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET START WITH %d RESTART", table, pgsql.Ident(c.column), first))
		default:
			out = append(out, fmt.Sprintf("ALTER SEQUENCE %s START WITH %d RESTART", c.sequence, first))
		}
	}
	return out
}

// ones makes them count in ones again, behind all rows.
func (p *shardSequences) ones() (out []string) {
	if p == nil {
		return nil
	}
	for i, c := range p.cols {
		if c.isKey {
			continue
		}
		ones := fmt.Sprintf("ALTER SEQUENCE %s INCREMENT BY 1 START WITH %d RESTART WITH ", c.sequence, min(max(c.minimum, 1), c.maximum))
		if p.above[i] < c.maximum {
			out = append(out, ones+fmt.Sprint(p.above[i]+1))
		} else { // nothing is left of it
			out = append(out, ones+fmt.Sprint(c.maximum), fmt.Sprintf("SELECT setval(%s, %d)", pgsql.Literal(c.sequence), c.maximum))
		}
	}
	return out
}

// highest is a value that no row of a table on any of some servers is above, and none that their sequences have given: rows may be gone. Values with
// which a sequence would be at its end do not count, nor does what is no number: clients wrote them.
func highest(ctx context.Context, n shardmap.TableName, c drawn, conns ...*pgx.Conn) (int64, error) {
	top := c.last
	for _, q := range conns {
		v, err := ask(ctx, q, n, c.highestSQL(n))
		if err != nil {
			return 0, err
		}
		if v == nil {
			continue
		}
		most, err := strconv.ParseInt(*v, 10, 64)
		if err != nil {
			return 0, err
		}
		top = max(top, most)
	}
	return top, nil
}

// highestSQL is an expression for the highest value on one server; NULL if there is none.
func (c drawn) highestSQL(n shardmap.TableName) string {
	col, from, most := pgsql.Ident(c.column), "FROM ONLY "+n.SQL(), c.maximum-2*stride
	if c.parted {
		from = "FROM " + n.SQL()
	}
	var value string
	switch {
	case c.computed: // since it was distributed
		value = "NULL"
	case c.whole:
		value = fmt.Sprintf("SELECT max(%s)::bigint %s WHERE %[1]s <= %[3]d", col, from, most)
	default:
		value = fmt.Sprintf("SELECT max(CASE WHEN v <= %d THEN v END) FROM (SELECT CASE WHEN v ~ '^[0-9]{1,18}(\\.0*)?$' THEN split_part(v, '.', 1)::bigint END FROM (SELECT %s::text %s) x (v)) y (v)", most, col, from)
	}
	sequence := "to_regclass(" + pgsql.Literal(c.sequence) + ")"
	if c.identity != "" { // each server has named it: home's may be called as the table was before
		sequence = fmt.Sprintf("(SELECT d.objid FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i' AND d.refobjid = %s::regclass AND a.attname = %s)",
			pgsql.Literal(n.SQL()), pgsql.Literal(c.column))
	}
	return fmt.Sprintf("SELECT greatest((%s), (SELECT CASE WHEN s.relkind = 'S' THEN CASE WHEN has_sequence_privilege(s.oid, 'USAGE, SELECT') THEN pg_sequence_last_value(s.oid) END END FROM pg_class s WHERE s.oid = %s))", value, sequence)
}
