package reshard

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// The sequences that tables of a schema on one shard own or draw from go with it: they count on there as they did. Home's are at their end
// meanwhile, so that nothing that is run there, seen or unseen, gives a value that the shard gives. Others of the schema's are called by
// hand, and stay home's.

// ownSequence is such a sequence, as the server has it that holds it.
type ownSequence struct {
	drawn
	start int64
	table shardmap.TableName // whose column it goes with
	owner string             // of the table
}

// ownSequencesSQL lists the sequences of a schema that columns of its tables own, or draw from: with the owner, else with the first that draws.
const ownSequencesSQL = `
select format('%I.%I', n.nspname, s.relname), format_type(q.seqtypid, null), q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, q.seqcycle, n.nspname::text, t.relname::text, a.attname::text, case when o.how = 'i' then a.attidentity::text else '' end, pg_get_userbyid(t.relowner)::text,
       array(select format('GRANT %s ON SEQUENCE %I.%I TO %s%s', x.privilege_type, n.nspname, s.relname, case when x.grantee = 0 then 'PUBLIC' else quote_ident(pg_get_userbyid(x.grantee)) end, case when x.is_grantable then ' WITH GRANT OPTION' end)
               from aclexplode(s.relacl) x where x.grantee <> s.relowner)
  from pg_namespace n join pg_class s on s.relnamespace = n.oid join pg_sequence q on q.seqrelid = s.oid,
  lateral (select * from (select d.refobjid, d.refobjsubid, d.deptype::text from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = s.oid and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
     union all (select f.adrelid, f.adnum, 'n' from pg_depend d join pg_attrdef f on d.classid = 'pg_attrdef'::regclass and f.oid = d.objid where d.refclassid = 'pg_class'::regclass and d.refobjid = s.oid order by 1, 2)) x (rel, att, how)
    where exists (select from pg_class c where c.oid = x.rel and c.relnamespace = n.oid) limit 1) o
  join pg_class t on t.oid = o.rel join pg_attribute a on a.attrelid = o.rel and a.attnum = o.att
 where n.nspname = $1 order by 1`

// ownSequences reads them with where they are.
func ownSequences(ctx context.Context, c queryer, schema string) (out []ownSequence, err error) {
	rows, _ := c.Query(ctx, ownSequencesSQL, schema) // an error comes with the rows
	var s ownSequence
	if _, err = pgx.ForEachRow(rows, []any{&s.sequence, &s.typ, &s.start, &s.increment, &s.minimum, &s.maximum, &s.cache, &s.cycles, &s.table.Schema, &s.table.Name, &s.column, &s.identity, &s.owner, &s.grants}, func() error {
		out = append(out, s)
		s.grants = nil
		return nil
	}); err != nil {
		return nil, err
	}
	for i := range out {
		if err := out[i].readLast(ctx, c); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// holdSequences has nobody draw from them until the transaction ends, and reads them then.
func holdSequences(ctx context.Context, tx pgx.Tx, schema string) ([]ownSequence, error) {
	list, err := ownSequences(ctx, tx, schema)
	for _, s := range list {
		if err == nil {
			err = run(ctx, tx, []string{holdSequence(s.drawn)})
		}
	}
	if err != nil {
		return nil, err
	}
	return ownSequences(ctx, tx, schema)
}

// shape is how it counts, in the words of CREATE and ALTER SEQUENCE.
func (s *ownSequence) shape() string {
	return fmt.Sprintf("INCREMENT BY %d MINVALUE %d MAXVALUE %d START WITH %d CACHE %d", s.increment, s.minimum, s.maximum, s.start, s.cache)
}

// setval has it go on from where it is.
func (s *ownSequence) setval() string {
	return fmt.Sprintf("SELECT pg_catalog.setval(%s, %d, %t)", pgsql.Literal(s.sequence), s.last, s.called)
}

// ended has home's give nothing more.
func (s *ownSequence) ended() []string {
	end := s.maximum
	if s.increment < 0 {
		end = s.minimum
	}
	return []string{
		fmt.Sprintf("ALTER SEQUENCE %s START WITH %d RESTART", s.sequence, end), // of a transaction, as setval by itself is not
		fmt.Sprintf("SELECT pg_catalog.setval(%s, %d)", pgsql.Literal(s.sequence), end),
	}
}

// restart has home's count as the shard's does.
func (s *ownSequence) restart() []string {
	return []string{fmt.Sprintf("ALTER SEQUENCE %s %s RESTART", s.sequence, s.shape()), s.setval()}
}

// makeFirst makes on the shard what its tables' defaults name.
func makeFirst(ctx context.Context, tx pgx.Tx, list []ownSequence) error {
	var names, made []string
	for _, s := range list {
		names = append(names, s.sequence)
		if s.identity == "" {
			made = append(made, fmt.Sprintf("CREATE SEQUENCE %s AS %s %s", s.sequence, s.typ, s.shape()))
		}
	}
	if err := freeSequences(ctx, tx, names); err != nil {
		return err
	}
	return run(ctx, tx, made)
}

// identities are the identity columns of one of the schema's tables, for CREATE TABLE.
func identities(list []ownSequence, table shardmap.TableName) *shardSequences {
	p := &shardSequences{}
	for _, s := range list {
		if s.table == table && s.identity != "" {
			s.drawn.alone = "SEQUENCE NAME " + s.sequence + " " + s.shape()
			p.cols, p.above = append(p.cols, s.drawn), append(p.above, 0)
		}
	}
	return p
}

// makeLast ties the shard's sequences to their columns, with which they will be dropped, and has them go on from home's place.
func makeLast(ctx context.Context, tx pgx.Tx, list []ownSequence) error {
	for _, s := range list {
		sql, err := strings1(ctx, tx, straysSQL, s.sequence)
		if err != nil {
			return err
		}
		sql = append(sql, s.grants...)
		if s.identity == "" {
			sql = append(sql, "ALTER SEQUENCE "+s.sequence+" OWNER TO "+pgsql.Ident(s.owner), fmt.Sprintf("ALTER SEQUENCE %s OWNED BY %s.%s", s.sequence, s.table.SQL(), pgsql.Ident(s.column)))
		}
		if err := run(ctx, tx, append([]string{s.setval()}, sql...)); err != nil {
			return err
		}
	}
	return nil
}

// takeSequences has home's sequences count on as those of the shard do, which nobody draws from any more.
func takeSequences(ctx context.Context, tx, there pgx.Tx, schema string) error {
	list, err := holdSequences(ctx, there, schema)
	if err != nil {
		return err
	}
	for _, s := range list {
		var known bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", s.sequence).Scan(&known); err != nil {
			return err
		}
		if !known {
			return &pgsql.Error{Code: pgsql.ObjectNotInPrerequisiteState, Message: fmt.Sprintf("sequence %s, from which column %s of table %s draws on its shard, is not on home", s.sequence, s.column, s.table), Hint: "CREATE SEQUENCE it there, as the default of the column wants it. Nothing was changed."}
		}
		if err := run(ctx, tx, s.restart()); err != nil {
			return err
		}
	}
	return nil
}

// schemaDrawsSQL lists the columns that own, or draw from, a sequence of a schema, and those of the schema's tables that do so from any.
const schemaDrawsSQL = `with draws (rel, att, seq) as (select d.refobjid, d.refobjsubid, d.objid from pg_depend d join pg_sequence s on s.seqrelid = d.objid where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
  union select f.adrelid, f.adnum, s.seqrelid from pg_sequence s join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = s.seqrelid join pg_attrdef f on f.oid = d.objid)
select n.nspname::text, c.relname::text, a.attname::text, sn.nspname::text, s.relname::text, q.seqcycle, s.relowner <> c.relowner
  from draws x join pg_class c on c.oid = x.rel join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = x.rel and a.attnum = x.att
  join pg_class s on s.oid = x.seq join pg_namespace sn on sn.oid = s.relnamespace join pg_sequence q on q.seqrelid = x.seq
 where $1 in (n.nspname, sn.nspname) order by n.nspname = $1 desc, 1, 2, 3, 4, 5`

// checkSequences finds out whether the sequences of a schema can go to another shard with it.
func checkSequences(ctx context.Context, home *pgx.Conn, d *shardmap.DB, schema string, tables []shardmap.TableName) error {
	refuse := func(n shardmap.TableName, column, what, hint string) error {
		return &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: fmt.Sprintf("schema %q cannot live on another shard: column %s of table %s %s", schema, column, n, what), Hint: hint}
	}
	rows, _ := home.Query(ctx, schemaDrawsSQL, schema) // an error comes with the rows
	var n, seq shardmap.TableName
	var column string
	var cycles, others bool
	var refused error
	goes := map[string]bool{}
	if _, err := pgx.ForEachRow(rows, []any{&n.Schema, &n.Name, &column, &seq.Schema, &seq.Name, &cycles, &others}, func() error {
		switch {
		case refused != nil:
		case n.Schema == schema && seq.Schema != schema:
			refused = refuse(n, column, "draws from sequence "+seq.String()+", which is of another schema", "ALTER SEQUENCE ... SET SCHEMA, or give the column a sequence of its own.")
		case n.Schema == schema && cycles:
			refused = refuse(n, column, "has a sequence that cycles: home's could not be held at its end meanwhile", "ALTER SEQUENCE ... NO CYCLE first.")
		case n.Schema == schema && others: // who would own it there
			refused = refuse(n, column, "draws from sequence "+seq.String()+", which has another owner than the table", "ALTER SEQUENCE ... OWNER TO that of the table, and GRANT who had it the rights to it.")
		case n.Schema == schema:
			goes[seq.Name] = true
		case goes[seq.Name]:
			refused = refuse(n, column, "draws from sequence "+seq.String()+", which would go with it", "Give that column a sequence of its own.")
		}
		return nil
	}); err != nil {
		return nodeFailed(d.Home.Name, err)
	}
	for _, t := range tables {
		rows, _ := home.Query(ctx, computedSQL, t.SQL())
		var says string
		if _, err := pgx.ForEachRow(rows, []any{&column, &says}, func() error {
			if calls := strings.Count(says, "nextval(") + strings.Count(says, "currval(") + strings.Count(says, "setval("); refused == nil && calls > strings.Count(says, "'::regclass") {
				refused = refuse(t, column, "names a sequence by a text that is read with each row: "+says, "Write nextval('...'), whose constant is read once.")
			}
			return nil
		}); err != nil {
			return nodeFailed(d.Home.Name, err)
		}
	}
	return refused
}
