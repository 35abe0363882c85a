package schema

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
)

// unnamedSQL lists the functions that something other than a function uses, and whether they are a trigger's. pg_depend has all of these uses:
// operators, casts, types, rules, policies, CHECKs, indexes, defaults, conditions of triggers, event triggers, aggregates.
const unnamedSQL = `select distinct p.proname::text, p.prorettype = 'trigger'::regtype from pg_depend d join pg_proc p on p.oid = d.refobjid join pg_namespace n on n.oid = p.pronamespace
 where d.refclassid = 'pg_proc'::regclass and d.refobjid >= 16384 and d.deptype <> 'e' and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'pgmosaic')
   and not (d.classid = 'pg_rewrite'::regclass and exists (select from pg_rewrite r where r.oid = d.objid and r.rulename = '_RETURN')) -- who uses a view names it
   and (d.classid <> 'pg_proc'::regclass or exists (select from pg_aggregate a where a.aggfnoid = d.objid))
   and not exists (select from pg_depend e where e.classid = 'pg_proc'::regclass and e.objid = p.oid and e.deptype = 'e')`

// loadUnnamed reads which functions run where no statement names them.
func (s *Snapshot) loadUnnamed(ctx context.Context, q queryer) error {
	var name string
	var trigger bool
	rows, _ := q.Query(ctx, unnamedSQL) // an error comes with the rows
	_, err := pgx.ForEachRow(rows, []any{&name, &trigger}, func() error {
		if trigger {
			s.Firing = append(s.Firing, name)
		} else {
			s.Unnamed = append(s.Unnamed, name)
		}
		return nil
	})
	s.memo = &sync.Map{}
	return err
}

// Memo keeps what was found out about a snapshot, under a key of the caller's own type. Two that ask at once may both find it out.
func (s *Snapshot) Memo(key any, find func() any) any {
	if s.memo == nil {
		return find()
	}
	if v, ok := s.memo.Load(key); ok {
		return v
	}
	v, _ := s.memo.LoadOrStore(key, find())
	return v
}
