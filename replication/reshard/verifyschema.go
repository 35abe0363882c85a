package reshard

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// defined is one definition that a shard holds.
type defined struct {
	kind, object string
	of           shardmap.TableName   // the table that it is of, of a partition the one at the top; none for what is of no table
	column       string               // of that table, for what is of one
	needs        []shardmap.TableName // tables that it cannot be without
	says         string
}

// definedSQL lists what users have defined in a database, each with the words by which it is compared. What extensions bring is told by
// their version. What places rows is the map's affair, and so is where sequences count. What needs no tables has the OID 0, under which PostgreSQL 13 has what it needs itself.
const definedSQL = `
with users as (select oid, nspname, nspowner, nspacl from pg_namespace n where nspname !~ '^pg_' and nspname not in ('information_schema', 'pgmosaic')),
own (oid) as (select objid from pg_depend where deptype = 'e'),
rel as (select c.*, n.nspname, format('%I.%I', n.nspname, c.relname) as name, rn.nspname as root_schema, r.relname as root
  from pg_class c join users n on n.oid = c.relnamespace join pg_class r on r.oid = coalesce(case when c.relispartition then pg_partition_root(c.oid) end, c.oid) join pg_namespace rn on rn.oid = r.relnamespace
 where c.relkind in ('r', 'p', 'f') and c.oid not in (select oid from own)),
seq as (select s.oid, s.relname, s.relowner, s.relacl, n.nspname, q.*, r.root_schema, r.root, a.attname, r.name from pg_class s join users n on n.oid = s.relnamespace join pg_sequence q on q.seqrelid = s.oid
  left join lateral (select o.refobjid, o.refobjsubid from pg_depend o where o.classid = 'pg_class'::regclass and o.objid = s.oid and o.refclassid = 'pg_class'::regclass and o.deptype in ('a', 'i')
    union all (select f.adrelid, f.adnum from pg_depend o join pg_attrdef f on o.classid = 'pg_attrdef'::regclass and o.objid = f.oid where o.refclassid = 'pg_class'::regclass and o.refobjid = s.oid order by f.adrelid, f.adnum) limit 1) d on true -- a shard's is of the column that draws from it
  left join rel r on r.oid = d.refobjid left join pg_attribute a on a.attrelid = r.oid and a.attnum = d.refobjsubid)
select kind, object, coalesce(sch, ''), coalesce(tab, ''), coalesce(col, ''), array(select unnest(array[tn.nspname, t.relname]) from pg_depend d left join pg_type y on d.refclassid = 'pg_type'::regclass and y.oid = d.refobjid
    left join pg_type e on e.oid = y.typelem join pg_class t on t.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and t.oid = case when d.refclassid = 'pg_class'::regclass then d.refobjid else coalesce(nullif(y.typrelid, 0), e.typrelid) end
    join pg_namespace tn on tn.oid = t.relnamespace where tab is null and id <> 0 and d.classid = class and d.objid = id), says
from (
  select 'table', name, root_schema, root, null, 0::oid, 0::oid, concat_ws(' ', relkind, relpersistence, reloptions, 'toast ' || (select o.reloptions from pg_class o where o.oid = rel.reltoastrelid)::text, 'of ' || nullif(reloftype, 0)::regtype, (select amname from pg_am where oid = relam), case when relrowsecurity then 'row security' end, case when relforcerowsecurity then 'forced' end, relreplident, pg_get_partkeydef(oid), pg_get_expr(relpartbound, oid)) from rel
  union all select 'owner', name, root_schema, root, null, 0, 0, relowner::regrole::text from rel
  union all select 'grants', name, root_schema, root, null, 0, 0, acl(relacl, 'r', relowner) from rel
  union all select 'column', format('%s.%I', name, attname), root_schema, root, attname, 0, 0, concat_ws(' ', format_type(atttypid, atttypmod), case when attnotnull then 'not null' end, attgenerated, nullif(attcollation::regcollation::text, '-'), attacl,
      'storage ' || nullif(attstorage, typstorage)::text, 'compression ' || nullif(to_jsonb(a) ->> 'attcompression', ''), 'statistics ' || nullif(attstattarget, -1), attoptions)
    from rel join pg_attribute a on a.attrelid = rel.oid join pg_type y on y.oid = atttypid where attnum > 0 and not attisdropped
  union all select 'default', format('%s.%I', name, attname), root_schema, root, attname, 0, 0, concat_ws(' ', nullif(attidentity, ''), pg_get_expr(adbin, adrelid)) from rel join pg_attribute a on a.attrelid = rel.oid left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
   where attnum > 0 and not attisdropped and (adbin is not null or attidentity <> '')
  union all select 'index', format('%I.%I', nspname, i.relname), root_schema, root, null, 0, 0, pg_get_indexdef(i.oid) || case when indisvalid then '' else ' invalid' end || case when indisclustered then ' clustered' else '' end || case when indisreplident then ' replica identity' else '' end
      || coalesce((select string_agg(' statistics ' || attnum || ' ' || attstattarget, '' order by attnum) from pg_attribute where attrelid = i.oid and attstattarget >= 0), '')
    from rel join pg_index x on x.indrelid = rel.oid join pg_class i on i.oid = x.indexrelid
  union all select 'constraint', format('%s.%I', name, conname), root_schema, root, null, 0, 0, pg_get_constraintdef(k.oid) || case when convalidated then '' else ' not valid' end from rel join pg_constraint k on k.conrelid = rel.oid where conname !~ '^pgmosaic_' and contype <> 't'
  union all select 'trigger', format('%s.%I', name, tgname), root_schema, root, null, 0, 0, pg_get_triggerdef(t.oid) || ' ' || tgenabled::text from rel join pg_trigger t on t.tgrelid = rel.oid where not tgisinternal and ` + usersTrigger + `
  union all select 'policy', format('%s.%I', name, polname), root_schema, root, null, 0, 0, concat_ws(' ', polcmd, polpermissive, (select string_agg(case r when 0 then 'public' else r::regrole::text end, ',' order by r::regrole::text) from unnest(polroles) r), pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) from rel join pg_policy p on p.polrelid = rel.oid
  union all select 'rule', format('%s.%I', name, rulename), root_schema, root, null, 0, 0, pg_get_ruledef(w.oid) || ' ' || ev_enabled::text from rel join pg_rewrite w on w.ev_class = rel.oid
  union all select 'statistics', format('%I.%I', n.nspname, stxname), root_schema, root, null, 0, 0, pg_get_statisticsobjdef(s.oid) || coalesce(' statistics ' || nullif(to_jsonb(s) ->> 'stxstattarget', '-1'), '') from rel join pg_statistic_ext s on s.stxrelid = rel.oid join pg_namespace n on n.oid = s.stxnamespace
  union all select 'sequence', format('%I.%I', nspname, relname), root_schema, root, attname, 0, 0, concat_ws(' ', seqtypid::regtype, case when seqcycle then 'cycle' end, 'of', name, attname, relowner::regrole, acl(relacl, 's', relowner)) from seq where root is not null
  union all select 'view', format('%I.%I', n.nspname, c.relname), null, null, null, 'pg_class'::regclass, c.oid, concat_ws(' ', pg_get_viewdef(c.oid), reloptions, relowner::regrole, acl(relacl, 'r', relowner)) from pg_class c join users n on n.oid = c.relnamespace where relkind in ('v', 'm') and c.oid not in (select oid from own)
  union all select 'function', p.oid::regprocedure::text, null, null, null, 'pg_proc'::regclass, p.oid, concat_ws(' ', case prokind when 'a' then (select concat_ws(' ', 'aggregate', aggtransfn, aggfinalfn, aggcombinefn, aggtranstype::regtype, agginitval, aggsortop) from pg_aggregate where aggfnoid = p.oid) else pg_get_functiondef(p.oid) end, proowner::regrole, acl(proacl, 'f', proowner))
    from pg_proc p join users n on n.oid = p.pronamespace where p.oid not in (select oid from own)
  union all select 'type', format('%I.%I', n.nspname, typname), null, null, null, 'pg_type'::regclass, t.oid, concat_ws(' ', typtype, typarray::regtype, (select string_agg(enumlabel, ',' order by enumsortorder) from pg_enum where enumtypid = t.oid), case when typbasetype <> 0 then format_type(typbasetype, typtypmod) end, case when typnotnull then 'not null' end, coalesce(pg_get_expr(typdefaultbin, 0), typdefault),
      (select string_agg(conname || ' ' || pg_get_constraintdef(k.oid), ', ' order by conname) from pg_constraint k where contypid = t.oid), (select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum) from pg_attribute where attrelid = typrelid and typrelid <> 0 and attnum > 0 and not attisdropped),
      (select concat_ws(' ', rngsubtype::regtype, (to_jsonb(r) ->> 'rngmultitypid')::regtype) from pg_range r where rngtypid = t.oid), typowner::regrole, acl(typacl, 'T', typowner))
    from pg_type t join users n on n.oid = t.typnamespace where (typrelid = 0 or exists (select from pg_class where oid = typrelid and relkind = 'c')) and typtype <> 'm' and not exists (select from pg_type e where e.typarray = t.oid) and t.oid not in (select oid from own)
  union all select 'schema', quote_ident(nspname), null, null, null, 0, 0, concat_ws(' ', nspowner::regrole, acl(nspacl, 'n', nspowner)) from users where oid not in (select oid from own)
  union all select 'default privileges', concat_ws(' ', defaclrole::regrole, 'in ' || quote_ident(n.nspname), 'on', case defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' when 'T' then 'types' else 'schemas' end), null, null, null, 0, 0,
      acl(defaclacl, 'r', defaclrole) from pg_default_acl d join pg_roles o on o.oid = d.defaclrole left join pg_namespace n on n.oid = d.defaclnamespace where not o.rolsuper and o.rolname <> current_user and (n.oid is null or n.nspname !~ '^pg_' and n.nspname <> 'pgmosaic')
  union all select 'extension', quote_ident(extname), null, null, null, 0, 0, extversion from pg_extension
) q (kind, object, sch, tab, col, class, id, says) order by 1, 2`

// aclSQL prints privileges in an order of their own: that in which they were granted says nothing.
const aclSQL = `(select string_agg(coalesce(nullif(x.grantee, 0)::regrole::text, 'public') || '=' || x.privilege_type || case when x.is_grantable then '*' else '' end, ',' order by x.grantee::regrole::text, x.privilege_type) from aclexplode(coalesce($1, acldefault('$2', $3))) x)`

// writtenOut replaces what definedSQL writes as acl(list, kind, owner).
func writtenOut(sql string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(sql, "acl(")
		if !found || strings.HasSuffix(before, "_") {
			b.WriteString(before)
			return b.String()
		}
		args, after, _ := strings.Cut(rest, ")")
		a := strings.Split(args, ", ")
		b.WriteString(before + strings.NewReplacer("$1", a[0], "'$2'", a[1], "$3", a[2]).Replace(aclSQL))
		sql = after
	}
}

// definitions reads what a shard holds.
func definitions(ctx context.Context, c *pgx.Conn) (out []defined, err error) {
	rows, _ := c.Query(ctx, writtenOut(definedSQL))
	var d defined
	var needs []string
	_, err = pgx.ForEachRow(rows, []any{&d.kind, &d.object, &d.of.Schema, &d.of.Name, &d.column, &needs, &d.says}, func() error {
		n := d
		n.needs = nil
		for i := 0; i+1 < len(needs); i += 2 {
			n.needs = append(n.needs, shardmap.TableName{Schema: needs[i], Name: needs[i+1]})
		}
		out = append(out, n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	more, err := objects(ctx, c)
	at := map[string]int{}
	for i, o := range out {
		at[o.kind+" "+o.object] = i
	}
	for _, o := range more {
		if i, has := at[o.Name]; has { // types and aggregates have more than that
			if !strings.HasPrefix(o.SQL[0], "CREATE FUNCTION ") && !strings.HasPrefix(o.SQL[0], "CREATE PROCEDURE ") {
				out[i].says += "; " + o.SQL[0]
			}
			continue
		}
		for _, kind := range otherKinds {
			if name, is := strings.CutPrefix(o.Name, kind+" "); is {
				out = append(out, defined{kind: kind, object: name, says: strings.Join(o.SQL, "; ")})
				break
			}
		}
	}
	return out, err
}

// otherKinds are those of objects that definedSQL has not.
var otherKinds = []string{"operator class", "operator family", "family member", "operator", "cast", "collation", "access method", "text search parser", "text search template", "text search dictionary", "text search configuration"}

// Defect is a definition that is not on a shard what it is on home; a nil text: it is not there.
type Defect struct {
	Shard, Kind, Object string
	Home, Theirs        *string
}

// belongs says whether a shard that is not home should have what home has: what is of a table if the map has that on the shard, and what
// is of none if it can be without tables of home's alone. Views are home's.
func belongs(d *shardmap.DB, shard int, o defined) bool {
	has := func(n shardmap.TableName) bool {
		if g := d.Tenant(n.Schema); g != nil {
			return slices.Contains(d.Placement(g).Shards(), shard)
		}
		return d.Tables[n] != nil
	}
	switch {
	case o.kind == "view":
		return false
	case o.of.Name == "":
		return !slices.ContainsFunc(o.needs, func(n shardmap.TableName) bool { return !has(n) })
	case !has(o.of):
		return false
	}
	info := d.Table(o.of)
	return o.column == "" || o.kind == "column" || info == nil || !info.IsKey(o.column) // keys are drawn on home
}

// defects compares a shard's definitions with home's. What a shard has of tables that the map has not there is listed, too.
func defects(d *shardmap.DB, shard *shardmap.ShardInfo, home, theirs []defined) (out []Defect) {
	type key struct{ kind, object string }
	there := map[key]*defined{}
	for i, o := range theirs {
		there[key{o.kind, o.object}] = &theirs[i]
	}
	for _, o := range home {
		k := key{o.kind, o.object}
		t := there[k]
		delete(there, k)
		switch {
		case t == nil && belongs(d, shard.Index, o):
			out = append(out, Defect{shard.Name, o.kind, o.object, &o.says, nil})
		case t != nil && t.says != o.says && (belongs(d, shard.Index, o) || o.of.Name == ""):
			out = append(out, Defect{shard.Name, o.kind, o.object, &o.says, &t.says})
		}
	}
	for _, t := range theirs {
		if there[key{t.kind, t.object}] != nil {
			out = append(out, Defect{shard.Name, t.kind, t.object, nil, &t.says})
		}
	}
	return out
}

// VerifySchema lists the definitions that shards should have in common and have not. What has changed between two looks was being
// defined, and is no difference.
func (mv *Mover) VerifySchema(ctx context.Context, db string) ([]Defect, error) {
	d, err := mv.Database(db)
	if err != nil {
		return nil, err
	}
	found, err := mv.compareSchemas(ctx, d)
	if err == nil && len(found) > 0 {
		var second []Defect
		if second, err = mv.compareSchemas(ctx, d); err == nil {
			found = slices.DeleteFunc(found, func(x Defect) bool {
				return !slices.ContainsFunc(second, func(y Defect) bool { return x.Shard == y.Shard && x.Kind == y.Kind && x.Object == y.Object })
			})
		}
	}
	return found, err
}

func (mv *Mover) compareSchemas(ctx context.Context, d *shardmap.DB) (out []Defect, err error) {
	var home []defined
	for _, s := range homeFirst(d) {
		c, err := mv.openShard(ctx, d.Name, s)
		if err != nil {
			return nil, err
		}
		has, err := definitions(ctx, c)
		giveBack(ctx, mv.Conns, c)
		if err != nil {
			return nil, nodeFailed(s.Name, err)
		}
		if s == d.Home {
			home = has
			continue
		}
		out = append(out, defects(d, s, home, has)...)
	}
	return out, nil
}

// homeFirst are the shards of a database with home in front.
func homeFirst(d *shardmap.DB) []*shardmap.ShardInfo {
	if d.Home == nil {
		return nil
	}
	out := []*shardmap.ShardInfo{d.Home}
	for _, s := range d.Shards {
		if s != d.Home {
			out = append(out, s)
		}
	}
	return out
}
