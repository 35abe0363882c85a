package schema

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Code is what statements on a table run without naming it, by the names of Funcs.
type Code struct {
	Always    []string // policies, and casts and constraints of its columns' types
	Writes    []string // CHECKs, indexes, generated columns, rules, keys of partitions, when triggers fire, and the query of a materialized view
	Generated []string // of these, what generated columns run
	Defaults  []string
	Casts     []string // what makes values of its columns' types: names by CastFunc
	Policies  []string // those that may say another thing on each server
	Policed   []string // what users' functions policies run
	Asking    []string // the conditions of policies that read other tables, each as SELECT FROM the table WHERE it, with a schema in every name
}

// CastFunc is the name in Funcs under which stands what makes a type's values from others, by casts that users have made.
func CastFunc(name string) string { return "cast " + name }

// TypeFunc is the name in Funcs under which stands what a type runs: the functions of its constraints, default and casts, and of the
// types that it is made of. Only types of users have an entry, and among them those that run something.
func TypeFunc(name string) string { return "type " + name }

// An operator stands in Funcs under its symbol. Operators of extensions call functions that are in nobody's way, and are left out as
// these are.
const operatorsSQL = `select n.nspname::text, o.oprname::text, p.proname::text, p.provolatile::text from pg_operator o join pg_proc p on p.oid = o.oprcode join pg_namespace n on n.oid = o.oprnamespace
 where o.oid >= 16384 and n.nspname !~ '^pg_' and not exists (select from pg_depend d where d.classid = 'pg_operator'::regclass and d.objid = o.oid and d.deptype = 'e')`

const aggregatesSQL = `select p.proname::text, bool_or(f.provolatile = 'v'), array_agg(distinct f.proname::text) from pg_aggregate a join pg_proc p on p.oid = a.aggfnoid
  join pg_proc f on f.oid in (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn) where p.oid >= 16384 group by p.oid, p.proname`

// typeCodeSQL has, for each type, the functions that it runs: its own, and those of the types behind it.
const typeCodeSQL = `with recursive direct (typ, class, obj) as (
    select k.contypid, d.refclassid, d.refobjid from pg_constraint k join pg_depend d on d.classid = 'pg_constraint'::regclass and d.objid = k.oid where k.contypid <> 0 and d.refobjid >= 16384
    union select t.oid, d.refclassid, d.refobjid from pg_type t join pg_depend d on d.classid = 'pg_type'::regclass and d.objid = t.oid where t.oid >= 16384 and d.refobjid >= 16384
    union select x.typ, 'pg_proc'::regclass, c.castfunc from pg_cast c, lateral (values (c.castsource), (c.casttarget)) x (typ) where c.castfunc >= 16384 and (x.typ >= 16384 or c.castsource < 16384 and c.casttarget < 16384)
    union select t.oid, 'pg_type'::regclass, t.typelem from pg_type t where t.typelem >= 16384
    union select t.oid, 'pg_type'::regclass, t.typbasetype from pg_type t where t.typbasetype >= 16384
    union select t.oid, 'pg_type'::regclass, a.atttypid from pg_type t join pg_attribute a on a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped where t.oid >= 16384 and a.atttypid >= 16384),
  closure (typ, part) as (select distinct typ, typ from direct union select c.typ, d.obj from closure c join direct d on d.typ = c.part and d.class = 'pg_type'::regclass)
select t.oid, t.typname::text, array_agg(distinct p.proname::text), bool_or(p.provolatile = 'v') from closure c join direct d on d.typ = c.part left join pg_operator o on d.class = 'pg_operator'::regclass and o.oid = d.obj
  join pg_proc p on p.oid = case d.class when 'pg_proc'::regclass then d.obj else o.oprcode end join pg_type t on t.oid = c.typ where p.oid >= 16384 group by t.oid, t.typname`

// tableCodeSQL has what tables' definitions depend on: functions by name, and types by OID.
const tableCodeSQL = `select x.rel, x.kind, coalesce(p.proname::text, ''), case x.refclassid when 'pg_type'::regclass then x.refobjid else 0 end from (
    select k.conrelid, 'w', d.refclassid, d.refobjid from pg_constraint k join pg_depend d on d.classid = 'pg_constraint'::regclass and d.objid = k.oid where k.conrelid <> 0
    union select i.indrelid, 'w', d.refclassid, d.refobjid from pg_index i join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
    union select f.adrelid, case a.attgenerated when '' then 'd' else 'g' end, d.refclassid, d.refobjid from pg_attrdef f join pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum
       join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
    union select r.ev_class, 'w', d.refclassid, d.refobjid from pg_rewrite r join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid where r.rulename <> '_RETURN' or exists (select from pg_class m where m.oid = r.ev_class and m.relkind = 'm')
    union select d.objid, 'w', d.refclassid, d.refobjid from pg_depend d where d.classid = 'pg_class'::regclass and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
    union select t.tgrelid, 'w', d.refclassid, d.refobjid from pg_trigger t join pg_depend d on d.classid = 'pg_trigger'::regclass and d.objid = t.oid where not t.tgisinternal and d.refobjid <> t.tgfoid
    union select l.polrelid, 'a', d.refclassid, d.refobjid from pg_policy l join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = l.oid) x (rel, kind, refclassid, refobjid)
  left join pg_operator o on x.refclassid = 'pg_operator'::regclass and o.oid = x.refobjid left join pg_proc p on p.oid = case x.refclassid when 'pg_proc'::regclass then x.refobjid else o.oprcode end
 where x.refobjid >= 16384 and (p.oid is not null or x.refclassid = 'pg_type'::regclass)`

// impliedSQL has what functions depend on: defaults of their arguments, and bodies that are no text.
const impliedSQL = `select p.proname::text, array_agg(distinct f.proname::text) from pg_depend d join pg_proc p on p.oid = d.objid left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
  join pg_proc f on f.oid = case d.refclassid when 'pg_proc'::regclass then d.refobjid else o.oprcode end where d.classid = 'pg_proc'::regclass and p.oid >= 16384 and f.oid >= 16384 group by p.proname`

// argumentsSQL has the types with which functions are called, and which they return.
const argumentsSQL = `select p.proname::text, array_agg(distinct x.typ) from pg_proc p, lateral (select p.prorettype union select unnest(p.proargtypes)) x (typ) where p.oid >= 16384 and x.typ >= 16384 group by p.proname`

// loadCode reads what is run without being called by name.
func (s *Snapshot) loadCode(ctx context.Context, q queryer) error {
	types := map[uint32]string{} // those that run something
	var schema, name, function, volatile, kind string
	var names []string
	var oid, typ uint32
	var writes bool
	rows, _ := q.Query(ctx, operatorsSQL) // an error comes with the rows
	_, err := pgx.ForEachRow(rows, []any{&schema, &name, &function, &volatile}, func() error {
		s.Funcs[name] = append(s.Funcs[name], &Func{Schema: schema, Name: name, Lang: "sql", Volatile: volatile == "v", Immutable: volatile == "i", Calls: []string{function}})
		return nil
	})
	if err != nil {
		return err
	}
	rows, _ = q.Query(ctx, aggregatesSQL)
	if _, err = pgx.ForEachRow(rows, []any{&name, &writes, &names}, func() error {
		for _, f := range s.Funcs[name] {
			if s.Aggs[name] {
				f.Volatile, f.Immutable, f.Calls = f.Volatile || writes, f.Immutable && !writes, append(f.Calls, names...)
			}
		}
		names = nil
		return nil
	}); err != nil {
		return err
	}
	if err = s.loadImplied(ctx, q); err != nil {
		return err
	}
	rows, _ = q.Query(ctx, typeCodeSQL)
	if _, err = pgx.ForEachRow(rows, []any{&oid, &name, &names, &writes}, func() error {
		key := TypeFunc(name)
		s.Funcs[key] = append(s.Funcs[key], &Func{Name: key, Lang: "sql", Volatile: writes, Calls: names})
		types[oid], names = key, nil
		return nil
	}); err != nil {
		return err
	}
	if len(types) > 0 {
		var oids []uint32
		rows, _ = q.Query(ctx, argumentsSQL)
		if _, err = pgx.ForEachRow(rows, []any{&name, &oids}, func() error {
			for _, f := range s.Funcs[name] {
				for _, o := range oids {
					if t := types[o]; t != "" {
						f.Calls = append(f.Calls, t)
					}
				}
			}
			oids = nil
			return nil
		}); err != nil {
			return err
		}
	}
	byOID := map[uint32]*Table{}
	for _, t := range s.Tables {
		byOID[t.OID] = t
		for i := range t.Columns {
			if key := types[t.Columns[i].TypeOID]; key != "" && !slices.Contains(t.Code.Always, key) {
				t.Code.Always = append(t.Code.Always, key)
			}
		}
	}
	rows, _ = q.Query(ctx, tableCodeSQL)
	_, err = pgx.ForEachRow(rows, []any{&oid, &kind, &function, &typ}, func() error {
		t := byOID[oid]
		if typ != 0 {
			function = types[typ]
		}
		if t != nil && len(s.Funcs[function]) > 0 {
			t.Code.note(kind, function)
		}
		return nil
	})
	return err
}

// loadImplied reads what functions run besides what their bodies say.
func (s *Snapshot) loadImplied(ctx context.Context, q queryer) error {
	var name string
	var names []string
	rows, _ := q.Query(ctx, impliedSQL) // an error comes with the rows
	_, err := pgx.ForEachRow(rows, []any{&name, &names}, func() error {
		for _, f := range s.Funcs[name] {
			f.Calls = append(f.Calls, names...)
		}
		names = nil
		return nil
	})
	return err
}

// note notes what tableCodeSQL has found under a kind.
func (c *Code) note(kind, function string) {
	switch kind {
	case "a":
		c.Policed = append(c.Policed, function)
		c.Always = append(c.Always, function)
	case "g":
		c.Generated = append(c.Generated, function)
		c.Writes = append(c.Writes, function)
	case "w":
		c.Writes = append(c.Writes, function)
	default:
		c.Defaults = append(c.Defaults, function)
	}
}

// policiesSQL lists policies that hang on chance, the moment, or what is another one on each server: by what functions of PostgreSQL's they call.
const policiesSQL = `select l.polrelid, l.polname::text from pg_policy l join pg_class c on c.oid = l.polrelid, lateral (select coalesce(l.polqual::text, '') || coalesce(l.polwithcheck::text, '')) x (tree)
 where c.relrowsecurity and (tree ~ '{SQLVALUEFUNCTION :op ([0-8]|13) ' or exists (select from regexp_matches(tree, ':(?:funcid|opfuncid) ([0-9]+)', 'g') f join pg_proc p on p.oid = f[1]::oid
    where p.oid < 16384 and (p.provolatile = 'v' or p.proname in ('now', 'transaction_timestamp', 'statement_timestamp', 'current_database', 'inet_server_addr', 'inet_server_port', 'pg_backend_pid', 'pg_postmaster_start_time', 'txid_current', 'pg_current_xact_id')))) order by 1, 2`

// loadPolicies reads which policies may say another thing on each server.
func (s *Snapshot) loadPolicies(ctx context.Context, q queryer) error {
	byOID := map[uint32]*Table{}
	for _, t := range s.Tables {
		byOID[t.OID] = t
	}
	var oid uint32
	var name string
	rows, _ := q.Query(ctx, policiesSQL) // an error comes with the rows
	_, err := pgx.ForEachRow(rows, []any{&oid, &name}, func() error {
		if t := byOID[oid]; t != nil {
			t.Code.Policies = append(t.Code.Policies, name)
		}
		return nil
	})
	return err
}

// askingSQL has the conditions of policies that read other tables than their own.
const askingSQL = `select l.polrelid, 'SELECT FROM ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) || ' WHERE ' || x.cond from pg_policy l join pg_class c on c.oid = l.polrelid join pg_namespace n on n.oid = c.relnamespace,
  lateral (values (pg_get_expr(l.polqual, l.polrelid)), (pg_get_expr(l.polwithcheck, l.polrelid))) x (cond) where c.relrowsecurity and x.cond is not null
   and exists (select from pg_depend d where d.classid = 'pg_policy'::regclass and d.objid = l.oid and d.refclassid = 'pg_class'::regclass and d.refobjid <> l.polrelid) order by 1, 2`

// loadAsking reads which policies read other tables.
func (s *Snapshot) loadAsking(ctx context.Context, q queryer) error {
	byOID := s.byOID()
	var oid uint32
	var cond string
	rows, _ := q.Query(ctx, askingSQL) // an error comes with the rows
	_, err := pgx.ForEachRow(rows, []any{&oid, &cond}, func() error {
		if t := byOID[oid]; t != nil {
			t.Code.Asking = append(t.Code.Asking, cond)
		}
		return nil
	})
	return err
}

const castsSQL = `select t.oid, t.typname::text, array_agg(distinct p.proname::text), bool_or(p.provolatile = 'v') from pg_cast c join pg_type t on t.oid = c.casttarget join pg_proc p on p.oid = c.castfunc where p.oid >= 16384 group by t.oid, t.typname`

// loadCasts reads which functions of users' make values of a type.
func (s *Snapshot) loadCasts(ctx context.Context, q queryer) error {
	keys := map[uint32]string{}
	var oid uint32
	var name string
	var names []string
	var writes bool
	rows, _ := q.Query(ctx, castsSQL) // an error comes with the rows
	_, err := pgx.ForEachRow(rows, []any{&oid, &name, &names, &writes}, func() error {
		key := CastFunc(name)
		s.Funcs[key] = append(s.Funcs[key], &Func{Name: key, Lang: "sql", Volatile: writes, Immutable: true, Calls: names})
		keys[oid], names = key, nil
		return nil
	})
	for _, t := range s.Tables {
		for i := range t.Columns {
			if key := keys[t.Columns[i].TypeOID]; key != "" && !slices.Contains(t.Code.Casts, key) {
				t.Code.Casts = append(t.Code.Casts, key)
			}
		}
	}
	return err
}
