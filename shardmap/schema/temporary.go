package schema

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// TempSchema is what a session calls the schema of its temporary objects.
const TempSchema = "pg_temp"

// Temporary are the temporary objects of one session, by name. It never changes.
type Temporary struct {
	Tables map[string]*Table  // tables, views and sequences, in schema TempSchema
	Funcs  map[string][]*Func // functions
}

// Table finds a temporary table, view or sequence; nil if there is none. So has a nil Temporary none.
func (t *Temporary) Table(name string) *Table {
	if t == nil {
		return nil
	}
	return t.Tables[name]
}

// Func finds the temporary functions of a name.
func (t *Temporary) Func(name string) []*Func {
	if t == nil {
		return nil
	}
	return t.Funcs[name]
}

// usersSchemas is the condition by which the queries here pick the schemas of users.
const usersSchemas = "n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmosaic')"

// ofSession makes a query that reads users' schemas one that reads the temporary schema of the session.
func ofSession(sql string) string {
	return strings.Replace(sql, usersSchemas, "n.oid = pg_my_temp_schema()", 1)
}

// IsTemp says whether a schema's name means a session's temporary schema, as the session or as the catalog has it.
func IsTemp(schema string) bool {
	return schema == TempSchema || strings.HasPrefix(schema, TempSchema+"_")
}

// ReadTemporary reads the temporary objects of the session that answers. Its search_path is pg_catalog; so what is printed names
// every schema but the temporary one, which is visible always. Nil: it has none.
func ReadTemporary(ctx context.Context, ask Ask) (*Temporary, error) {
	s := &Snapshot{Tables: map[shardmap.TableName]*Table{}, Funcs: map[string][]*Func{}, Aggs: map[string]bool{}}
	if err := s.readTables(ctx, ask, ofSession); err != nil {
		return nil, fmt.Errorf("read the temporary objects: %w", err)
	}
	if err := s.readFuncs(ctx, ask, ofSession); err != nil {
		return nil, fmt.Errorf("read the temporary objects: %w", err)
	}
	if len(s.Tables) == 0 && len(s.Funcs) == 0 {
		return nil, nil
	}
	for _, t := range s.Tables {
		if !t.Cascades && !t.Renames && !t.Parent {
			continue
		}
		for _, load := range []func(context.Context, queryer) error{s.loadActs, s.loadChildren} {
			if err := load(ctx, ask); err != nil {
				return nil, fmt.Errorf("read the temporary objects: %w", err)
			}
		}
		break
	}
	if len(s.Tables) > 0 {
		if err := s.temporaryCode(ctx, ask); err != nil {
			return nil, fmt.Errorf("read the temporary objects: %w", err)
		}
	}
	out := &Temporary{Tables: map[string]*Table{}, Funcs: s.Funcs}
	for n, t := range s.Tables {
		t.Schema = TempSchema
		for i := range t.Reads {
			if IsTemp(t.Reads[i].Schema) {
				t.Reads[i].Schema = TempSchema
			}
		}
		for i := range t.Acts {
			t.Acts[i].From.Schema = TempSchema
		}
		for i := range t.Children {
			t.Children[i].Schema = TempSchema
		}
		out.Tables[n.Name] = t
	}
	return out, nil
}

// temporaryCodeSQL is tableCodeSQL for the session's temporary tables, with their columns' types by name: what these run stands in the schema.
var temporaryCodeSQL = tableCodeSQL + ` and x.rel in (select oid from pg_class where relnamespace = pg_my_temp_schema())
  union select a.attrelid, 'w', '` + TypeFunc("") + `' || t.typname, 0 from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_type t on t.oid = a.atttypid
 where c.relnamespace = pg_my_temp_schema() and a.attnum > 0 and not a.attisdropped and t.oid >= 16384`

// temporaryCode reads what statements on temporary tables run.
func (s *Snapshot) temporaryCode(ctx context.Context, ask queryer) error {
	byOID := s.byOID()
	var oid, typ uint32
	var kind, function string
	rows, _ := ask.Query(ctx, temporaryCodeSQL) // an error comes with the rows
	_, err := pgx.ForEachRow(rows, []any{&oid, &kind, &function, &typ}, func() error {
		if t := byOID[oid]; t != nil && function != "" {
			t.Code.note(kind, function)
		}
		return nil
	})
	return err
}

// TemporaryMark tells a session's temporary objects apart from those that it has had before, as far as their names go: what it
// gives changes with every object that comes, goes or gets another name. It runs with the session's search_path.
const TemporaryMark = `select pg_catalog.string_agg(pg_catalog.concat_ws('/', d.classid, d.objid, c.relname), ',' order by d.classid, d.objid)
  from pg_catalog.pg_depend d left join pg_catalog.pg_class c on d.classid operator(pg_catalog.=) 1259::pg_catalog.oid and c.oid operator(pg_catalog.=) d.objid
 where d.refclassid operator(pg_catalog.=) 2615::pg_catalog.oid and d.refobjid operator(pg_catalog.=) pg_catalog.pg_my_temp_schema() and d.refobjid operator(pg_catalog.<>) 0::pg_catalog.oid`
