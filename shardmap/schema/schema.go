// Package schema is what we know of a database's objects from pg_catalog of its home shard.
//
// A Snapshot is read as a whole and never changes. Where it is too old a server says so (42P01, 42703)
// and it is read again; it is never used to invent an answer, only to prove a route.
package schema

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pgmosaic/pgmosaic/proxy/nodeconn"
	"github.com/pgmosaic/pgmosaic/shardmap"
)

// Snapshot is the schema at one moment.
type Snapshot struct {
	Version  uint64 // grows with every change that was noticed
	Tables   map[shardmap.TableName]*Table
	Indexes  map[shardmap.TableName]shardmap.TableName // to the tables that they are of
	Funcs    map[string][]*Func                        // user functions by bare name, and where that is no word, as "Name" is none, by one of it
	Volatile map[string]bool                           // built-in functions by bare name, and whether one of the name is volatile
	Stable   map[string]bool                           // built-in functions of which all of the name are stable
	Takes    map[string]Takes                          // how built-in functions can be called as attributes, by bare name
	Fields   map[string]bool                           // names that composite types, and results of users' functions, have for their fields
	Aggs     map[string]bool                           // user aggregates
	Given    map[string]bool                           // aggregates of PostgreSQL's and of extensions'
	Unnamed  []string                                  // user functions that run where no statement names them: what is no function uses them
	Firing   []string                                  // those of triggers
	Varying  map[string]bool                           // domains with a default that varies, by bare name
	BytesOK  bool                                      // the database's default collation sorts text by its bytes
	Collations
	Comparisons
	Usage

	Fingerprint string    // see Watcher
	At          time.Time // when it was read, or later

	Doubts map[string]Doubt // by shard: whose types are not sure

	// StandIn names the shard that it was read from because home did not answer: what home alone has is not in it. Empty for home.
	StandIn string

	Maps   map[string]*TypeMap // by shard: between its OIDs and home's; what is missing needs no translation
	Asked  map[string]Asked    // the shards that were asked for their types
	Joined int                 // how many shards had joined when they were asked: see shardmap.DB

	memo *sync.Map // see Memo
}

// Doubt is why a shard's types are not sure.
type Doubt uint8

// The doubts.
const (
	Unread    Doubt = iota + 1 // nobody has told them: nothing can be translated, so nothing may be asked of the shard
	OfReplica                  // a replica has told them while there was no primary
)

// Asked is a shard that was asked for its types, as the map had it.
type Asked struct{ Ordinal, Adopted int }

// Ask notes that the shards of a database are asked for their types.
func (s *Snapshot) Ask(db *shardmap.DB) {
	s.Asked, s.Joined = map[string]Asked{}, db.Joined
	for _, sh := range db.Shards {
		s.Asked[sh.Name] = Asked{sh.Ordinal, sh.Adopted}
	}
}

// Knows says whether it was read when a database had the shards that it has: the types of others cannot be translated. One that has joined
// since may have the name and the place of one that was dropped.
func (s *Snapshot) Knows(db *shardmap.DB) bool {
	if len(db.Shards) == 1 {
		return true
	}
	if s.Joined < db.Joined {
		return false
	}
	for _, sh := range db.Shards {
		if o, asked := s.Asked[sh.Name]; !asked || o != (Asked{sh.Ordinal, sh.Adopted}) {
			return false
		}
	}
	return true
}

// Collations is what a database has of them beside its own.
type Collations struct {
	Sorted    bool // a column, a field of a row or a domain has one that does not sort by bytes
	Loose     bool // one has such by which unlike texts are equal
	LikeBytes bool // one of a user's is called like one of ByBytes
}

// Comparisons says which comparisons users have defined for values of PostgreSQL's own types: = is not equality then, nor < the order of a type.
type Comparisons struct{ Equals, Orders Defined }

// Defined says what users have defined under a name of PostgreSQL's.
type Defined uint8

// What they have defined.
const (
	Nothing Defined = iota
	Alike           // for types that PostgreSQL has one for as well, which is meant wherever pg_catalog comes first in the path
	Another         // for others: it is meant where PostgreSQL would have to convert its operands
)

// comparisonsSQL lists them, and says which PostgreSQL has as well. One for the very types of its operands comes before one that
// PostgreSQL would have to convert them for: https://www.postgresql.org/docs/current/typeconv-oper.html
const comparisonsSQL = `select distinct o.oprname::text, exists (select from pg_operator p where p.oid < 16384 and (p.oprname, p.oprleft, p.oprright) = (o.oprname, o.oprleft, o.oprright))
  from pg_operator o where o.oid >= 16384 and o.oprleft < 16384 and o.oprright < 16384 and o.oprname in ('=', '<', '<=', '>', '>=')`

// loadComparisons reads them.
func (s *Snapshot) loadComparisons(ctx context.Context, q queryer) error {
	var name string
	var alike bool
	rows, _ := q.Query(ctx, comparisonsSQL) // an error comes with the rows
	_, err := pgx.ForEachRow(rows, []any{&name, &alike}, func() error {
		of, is := &s.Orders, Another
		if name == "=" {
			of = &s.Equals
		}
		if alike {
			is = Alike
		}
		*of = max(*of, is)
		return nil
	})
	return err
}

// Table is a user table, view or sequence.
type Table struct {
	shardmap.TableName
	OID      uint32
	Kind     byte // relkind: r, p, v, m, f, S
	Columns  []Column
	Unique   [][]string           // column sets of unique indexes
	Primary  []string             // the columns of the primary key
	Reads    []shardmap.TableName // what a view is made of
	View     string               // a view's query; every name in it has its schema
	Invoker  bool                 // a view that reads with its user's rights
	RowRules bool                 // row-level security is on
	Triggers []string             // functions of its triggers
	On       []Events             // what each of these is for
	Rules    bool                 // it has rules besides that of a view which is its query
	Cascades bool                 // a foreign key elsewhere acts on the rows that refer to a deleted one
	Renames  bool                 // the same for one whose key is changed
	Unlogged bool
	Child    bool               // a partition or an inheritance child
	Root     shardmap.TableName // of a partition: the table at the top
	Parent   bool               // has children
	Children []shardmap.TableName
	Placed   bool     // it holds the rows of one shard only: it has the constraint that keeps the others out
	Code     Code     // what statements on it run unnamed
	Acts     []Act    // what foreign keys do when its rows change or go
	Drawers  []Drawer // of a sequence: the columns that it is for
}

// Drawer is a column that a sequence is for: one that owns it, an identity, or one whose default has to do with it.
type Drawer struct {
	shardmap.TableName
	Column string
	Owns   bool // pg_get_serial_sequence finds the sequence by it
	Draws  bool // its values come from the sequence
}

// Column is a column of a Table.
type Column struct {
	Name      string
	TypeOID   uint32
	Type      string // format_type
	Base      string // the same without a length or precision, to cast to: bpchar, where character would be one of 1; empty for bit
	NotNull   bool
	Default   string // the expression; empty for none
	Volatile  bool   // its default calls a function that is not immutable, or draws from a sequence
	Steady    bool   // Volatile, but with one value for a statement
	Generated bool
	Identity  bool
	Sequence  string // what its values are drawn from, as text for nextval; empty for none
	BytesOK   bool   // its collation sorts by bytes
	Collated  bool   // it has a collation, as what holds text has, a domain or an array of such too
	Rows      bool   // it may be a row, or be made of rows, in which there is text
	Determ    bool   // its collation is deterministic
}

// Func is a user function.
type Func struct {
	Schema, Name string
	Body         string // lower case, by what names are compared in
	Volatile     bool
	Immutable    bool
	Takes        Takes
	Lang         string
	Calls        []string // what it runs besides what its body says: names of Funcs

	words, spoken, beside, attributes said[map[string]bool] // of Body, which is not changed when they have been asked for
	tells                             said[bool]
}

// Partitions are the partitions of the schema's tables, with the table at the top of each.
func (s *Snapshot) Partitions() map[shardmap.TableName]shardmap.TableName {
	var out map[shardmap.TableName]shardmap.TableName
	for n, t := range s.Tables {
		if t.Root.Name != "" {
			if out == nil {
				out = map[shardmap.TableName]shardmap.TableName{}
			}
			out[n] = t.Root
		}
	}
	return out
}

// Column finds a column by name.
func (t *Table) Column(name string) (*Column, int) {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i], i
		}
	}
	return nil, -1
}

const tablesSQL = `
select c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence = 'u', c.relispartition or exists (select from pg_inherits i where i.inhrelid = c.oid),
       c.relhassubclass, exists (select from pg_rewrite r where r.ev_class = c.oid and r.rulename <> '_RETURN'), case when c.relkind = 'v' then pg_get_viewdef(c.oid) else '' end,
       coalesce(c.reloptions && '{security_invoker=true,security_invoker=on,security_invoker=1}', false), c.relrowsecurity,
       exists (select from pg_constraint f where f.contype = 'f' and f.confrelid = c.oid and f.confdeltype not in ('a', 'r')),
       exists (select from pg_constraint f where f.contype = 'f' and f.confrelid = c.oid and f.confupdtype not in ('a', 'r')),
       coalesce(g.funcs, '{}'), coalesce(g.events, '{}'),
       coalesce((select array_agg(distinct array[dn.nspname::text, dc.relname::text]) from pg_rewrite r join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
                  join pg_class dc on d.refclassid = 'pg_class'::regclass and dc.oid = d.refobjid join pg_namespace dn on dn.oid = dc.relnamespace
                 where r.ev_class = c.oid and dc.oid <> c.oid), '{}'),
       coalesce(rn.nspname::text, ''), coalesce(rc.relname::text, ''), exists (select from pg_constraint k where k.conrelid = c.oid and k.conname = 'pgmosaic_slot'),
       case when c.relkind = 'S' then (select array_agg(array[dn.nspname::text, dc.relname::text, a.attname::text, x.how]) from (
             select d.refobjid, d.refobjsubid, d.deptype::text from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
             union all select f.adrelid, f.adnum, 'n' from pg_depend d join pg_attrdef f on d.classid = 'pg_attrdef'::regclass and f.oid = d.objid where d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid) x (rel, att, how)
           join pg_class dc on dc.oid = x.rel join pg_namespace dn on dn.oid = dc.relnamespace join pg_attribute a on a.attrelid = x.rel and a.attnum = x.att) end
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  left join (select t.tgrelid, array_agg(p.proname::text order by t.oid) funcs, array_agg((t.tgtype | case when coalesce(t.tgoldtable, t.tgnewtable) is null then 0 else 256 end)::int2 order by t.oid) events from pg_trigger t join pg_proc p on p.oid = t.tgfoid
               where not t.tgisinternal and p.pronamespace is distinct from to_regnamespace('pgmosaic')::oid group by t.tgrelid) g on g.tgrelid = c.oid
  left join pg_class rc on c.relispartition and rc.oid = pg_partition_root(c.oid) left join pg_namespace rn on rn.oid = rc.relnamespace
 where c.relkind in ('r','p','v','m','f','S') and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmosaic')`

// ByBytes are PostgreSQL's collations that sort text by its bytes.
var ByBytes = []string{"C", "POSIX", "ucs_basic", "C.UTF-8", "C.utf8"}

const (
	byBytesSQL = `(co.collname in ('C', 'POSIX', 'ucs_basic', 'C.UTF-8', 'C.utf8') and co.collnamespace = 'pg_catalog'::regnamespace)`

	// collationsSQL reads by what text is sorted: of a database of ICU's it is not what datcollate says.
	collationsSQL = `
select case when to_jsonb(d) ->> 'datlocprovider' = 'i' then '' else d.datcollate::text end, coalesce(x.sorted, false), coalesce(x.loose, false),
       exists (select from pg_collation where collname in ('C', 'POSIX', 'ucs_basic', 'C.UTF-8', 'C.utf8') and collnamespace <> 'pg_catalog'::regnamespace)
  from pg_database d, (select bool_or(not ` + byBytesSQL + `), bool_or(not co.collisdeterministic) from (
         select a.attcollation from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
          where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c') and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmosaic')
         union select typcollation from pg_type where typtype = 'd' and typnamespace <> 'information_schema'::regnamespace) u (oid) join pg_collation co on co.oid = u.oid where co.oid <> 100) x (sorted, loose)
 where d.datname = current_database()`
)

const columnsSQL = `
select a.attrelid, a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod), case a.atttypid when 1560 then '' else format_type(a.atttypid, -1) end, a.attnotnull, coalesce(pg_get_expr(d.adbin, d.adrelid), pg_get_expr(dt.typdefaultbin, 0), ''),
       a.attgenerated <> '', a.attidentity <> '',
       case when a.attidentity <> '' then coalesce(pg_get_serial_sequence(quote_ident(n.nspname) || '.' || quote_ident(c.relname), a.attname), '')
            else coalesce(replace(substring(pg_get_expr(d.adbin, d.adrelid) from '^nextval\(''(.*)''::regclass\)$'), '''''', ''''), '') end,
       coalesce(` + byBytesSQL + `, false), a.attcollation = 100, coalesce(co.collisdeterministic, true), a.attcollation <> 0, a.attcollation = 0 and (pt.typtype in ('c', 'd') or coalesce(et.typtype in ('c', 'd'), false)),
       ` + variesSQL + `
  from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace join pg_type pt on pt.oid = a.atttypid left join pg_type et on et.oid = pt.typelem
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum left join pg_type dt on dt.oid = a.atttypid and dt.typtype = 'd' left join pg_collation co on co.oid = a.attcollation
 where a.attnum > 0 and not a.attisdropped and c.relkind in ('r','p','v','m','f') and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmosaic')
 order by a.attrelid, a.attnum`

// variesSQL is whether a default's expression is volatile (v), stable (s) or immutable (i). What it calls stands in its tree:
// pg_depend does not name PostgreSQL's own functions. A conversion by way of text may read 'now'.
const variesSQL = `case when coalesce(d.adbin, dt.typdefaultbin) is null then 'i' when d.adbin::text ~ 'NEXTVALUEEXPR' then 'v' else coalesce((
         select case when bool_or(p.provolatile = 'v') then 'v' when bool_or(p.provolatile = 's') then 's' end
           from regexp_matches(coalesce(d.adbin, dt.typdefaultbin)::text, ':(?:op)?funcid (\d+)', 'g') f join pg_proc p on p.oid = f[1]::oid where p.provolatile <> 'i'),
         case when coalesce(d.adbin, dt.typdefaultbin)::text ~ 'SQLVALUEFUNCTION|COERCEVIAIO' then 's' else 'i' end) end`

const uniqueSQL = `
select i.indrelid, array_agg(a.attname::text), i.indisprimary
  from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
  join lateral unnest(i.indkey) with ordinality k(n, ord) on k.ord <= i.indnkeyatts left join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.n
 where (i.indisunique or i.indisexclusion) and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmosaic') group by i.indexrelid, i.indrelid, i.indisprimary`

const funcsSQL = `
select n.nspname, p.proname, case when p.prosrc = '' and p.prokind <> 'a' then coalesce(pg_get_functiondef(p.oid), '') else p.prosrc end, p.provolatile::text, l.lanname, p.prokind = 'a', ` + takesSQL + `
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
 where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmosaic')
   and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')`

// queryer is what reads catalogs: a transaction, or what looks like one. It gets no parameters.
type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Reader reads what servers have defined. Any goroutine may use it.
type Reader struct {
	Conns *nodeconn.Kept                              // where connections are kept in between; nil: nowhere
	Whose func(database, shard string) nodeconn.Whose // asks a connection whether it is a shard's
}

// Server is where a shard's definitions are read.
type Server struct{ Database, Shard, DSN string }

// lend lends f a connection to a shard's server, which leaves nothing on it.
func (r *Reader) lend(ctx context.Context, at Server, f func(context.Context, *pgx.Conn) error) error {
	return r.Conns.Lend(ctx, at.DSN, nodeconn.Schema, r.Whose(at.Database, at.Shard), f)
}

// Load reads the schema of a shard's database in one transaction, over a connection of its own or one that is kept. version becomes the
// snapshot's. types says to read its user types as well: nil without.
func (r *Reader) Load(ctx context.Context, at Server, version uint64, types bool) (s *Snapshot, t *Types, err error) {
	err = r.lend(ctx, at, func(ctx context.Context, c *pgx.Conn) error {
		return pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			if s, err = read(ctx, tx, version); err == nil && types {
				t, err = readTypes(ctx, tx)
			}
			return err
		})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the schema: %w", err)
	}
	return s, t, nil
}

func read(ctx context.Context, q queryer, version uint64) (*Snapshot, error) {
	s := &Snapshot{Version: version, Tables: map[shardmap.TableName]*Table{}, Indexes: map[shardmap.TableName]shardmap.TableName{}, Funcs: map[string][]*Func{}, Volatile: map[string]bool{}, Stable: map[string]bool{}, Takes: map[string]Takes{}, Fields: map[string]bool{}, Aggs: map[string]bool{}, Given: map[string]bool{}, Usage: Usage{Schemas: map[string]bool{}}}
	var collate string
	rows, _ := q.Query(ctx, collationsSQL) // an error comes with the rows
	_, err := pgx.ForEachRow(rows, []any{&collate, &s.Sorted, &s.Loose, &s.LikeBytes}, func() error { return nil })
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	s.At = time.Now()
	s.BytesOK = collate == "C" || collate == "POSIX" || strings.EqualFold(collate, "C.UTF-8") || strings.EqualFold(collate, "C.UTF8")
	if s.Fingerprint, err = fingerprintOf(ctx, q); err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	var name string
	rows, _ = q.Query(ctx, "select nspname::text from pg_namespace")
	if _, err := pgx.ForEachRow(rows, []any{&name}, func() error { s.Schemas[name] = true; return nil }); err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	for _, load := range []func(context.Context, queryer) error{
		s.loadTables, s.loadIndexes, s.loadFuncs, s.loadFields, s.loadCode, s.loadCasts, s.loadComparisons, s.loadUsage, s.loadPolicies, s.loadAsking, s.loadActs, s.loadVarying, s.loadChildren, s.loadUnnamed,
	} {
		if err := load(ctx, q); err != nil {
			return nil, fmt.Errorf("read the schema: %w", err)
		}
	}
	return s, nil
}

func asIs(sql string) string { return sql }

func (s *Snapshot) loadTables(ctx context.Context, tx queryer) error {
	return s.readTables(ctx, tx, asIs)
}

// readTables reads the tables of the schemas that of picks.
func (s *Snapshot) readTables(ctx context.Context, tx queryer, of func(sql string) string) error {
	byOID := map[uint32]*Table{}
	rows, _ := tx.Query(ctx, of(tablesSQL))
	t, kind, reads, drawers := Table{}, "", [][]string(nil), [][]string(nil)
	_, err := pgx.ForEachRow(rows, []any{&t.OID, &t.Schema, &t.Name, &kind, &t.Unlogged, &t.Child, &t.Parent, &t.Rules, &t.View, &t.Invoker, &t.RowRules, &t.Cascades, &t.Renames, &t.Triggers, &t.On, &reads, &t.Root.Schema, &t.Root.Name, &t.Placed, &drawers}, func() error {
		n := t
		n.Kind = kind[0]
		n.Triggers, n.On = append([]string(nil), t.Triggers...), append([]Events(nil), t.On...)
		for _, r := range reads {
			n.Reads = append(n.Reads, shardmap.TableName{Schema: r[0], Name: r[1]})
		}
		for _, x := range drawers {
			n.Drawers = append(n.Drawers, Drawer{shardmap.TableName{Schema: x[0], Name: x[1]}, x[2], x[3] != "n", x[3] != "a"})
		}
		s.Tables[n.TableName], byOID[n.OID] = &n, &n
		t, reads, drawers = Table{}, nil, nil
		return nil
	})
	if err != nil {
		return err
	}
	rows, _ = tx.Query(ctx, of(columnsSQL))
	var rel uint32
	var c Column
	var dflt bool
	var varies string
	_, err = pgx.ForEachRow(rows, []any{&rel, &c.Name, &c.TypeOID, &c.Type, &c.Base, &c.NotNull, &c.Default, &c.Generated, &c.Identity, &c.Sequence, &c.BytesOK, &dflt, &c.Determ, &c.Collated, &c.Rows, &varies}, func() error {
		n := c
		n.BytesOK = n.BytesOK || dflt && s.BytesOK
		n.Volatile = varies != "i" || n.Identity
		n.Steady = varies == "s" && !n.Identity
		if t := byOID[rel]; t != nil {
			t.Columns = append(t.Columns, n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	rows, _ = tx.Query(ctx, of(uniqueSQL))
	var cols []*string
	var primary bool
	_, err = pgx.ForEachRow(rows, []any{&rel, &cols, &primary}, func() error {
		var set []string
		for _, c := range cols {
			if c != nil {
				set = append(set, *c)
			}
		}
		if t := byOID[rel]; t != nil {
			t.Unique = append(t.Unique, set)
			if primary {
				t.Primary = set
			}
		}
		return nil
	})
	return err
}

func (s *Snapshot) loadIndexes(ctx context.Context, tx queryer) error {
	rows, _ := tx.Query(ctx, `select n.nspname, i.relname, n.nspname, t.relname from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class t on t.oid = x.indrelid
		join pg_namespace n on n.oid = t.relnamespace where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmosaic')`)
	var index, table shardmap.TableName
	_, err := pgx.ForEachRow(rows, []any{&index.Schema, &index.Name, &table.Schema, &table.Name}, func() error { s.Indexes[index] = table; return nil })
	return err
}

// readFuncs reads the functions of the schemas that of picks.
func (s *Snapshot) readFuncs(ctx context.Context, tx queryer, of func(sql string) string) error {
	rows, _ := tx.Query(ctx, of(funcsSQL))
	var schema, name, body, vol, lang string
	var agg bool
	var takes Takes
	_, err := pgx.ForEachRow(rows, []any{&schema, &name, &body, &vol, &lang, &agg, &takes}, func() error {
		n := &Func{Schema: schema, Name: name, Body: strings.ToLower(body), Lang: lang, Takes: takes, Volatile: vol == "v", Immutable: vol == "i"}
		s.Funcs[n.Name] = append(s.Funcs[n.Name], n)
		if w := aWord(n.Name); w != n.Name {
			s.Funcs[w] = append(s.Funcs[w], n)
		}
		if agg {
			s.Aggs[n.Name] = true
		}
		return nil
	})
	return err
}

func (s *Snapshot) loadFuncs(ctx context.Context, tx queryer) error {
	if err := s.readFuncs(ctx, tx, asIs); err != nil {
		return err
	}
	rows, _ := tx.Query(ctx, "select p.proname::text, bool_or(p.provolatile = 'v'), bool_and(p.provolatile = 's'), bool_or(p.prokind = 'a'), bit_or("+takesSQL+") from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace "+
		"or exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e') group by p.proname")
	var name string
	var volatile, stable, agg bool
	var takes Takes
	s.Volatile["next_id"] = true // pgmosaic's own
	_, err := pgx.ForEachRow(rows, []any{&name, &volatile, &stable, &agg, &takes}, func() error {
		s.Volatile[name] = volatile
		if agg {
			s.Given[name] = true
		}
		if takes&(TakesRow|TakesValue) != 0 {
			s.Takes[name] = takes
		}
		if stable {
			s.Stable[name] = true
		}
		return nil
	})
	return err
}

// aWord is the word by which a function is found in bodies, where Words has no other: the longest of its name, in lower case.
func aWord(name string) (longest string) {
	for w := range (&Func{Body: strings.ToLower(name)}).Words() {
		if len(w) > len(longest) || len(w) == len(longest) && w < longest {
			longest = w
		}
	}
	return longest
}

// Names says whether words may be those of a table's or view's name.
func Names(words map[string]bool, name string) bool {
	name = strings.ToLower(name)
	if words[name] {
		return true
	}
	parts := (&Func{Body: name}).Words()
	for w := range parts {
		if !words[w] {
			return false
		}
	}
	return len(parts) > 0
}
