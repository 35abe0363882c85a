package reshard

// sortedKinds lists what rows are sorted and found by: collations, access methods, operator families, their classes, and the members
// of a family that are of none of its classes, also of PostgreSQL's own families. Each is made as its superuser made it, or is refused.
const sortedKinds = `
union all
select 'pg_collation'::regclass, c.oid, format('collation %I.%I', n.name, c.collname), array[format('CREATE COLLATION %I.%I (PROVIDER = %s', n.name, c.collname, case c.collprovider when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end) ||
      case when c.collprovider = 'c' then format(', LC_COLLATE = %L, LC_CTYPE = %L', c.collcollate, c.collctype) else format(', LOCALE = %L', coalesce(j ->> 'colllocale', j ->> 'colliculocale', c.collcollate)) end ||
      case when c.collisdeterministic then '' else ', DETERMINISTIC = false' end || coalesce(', RULES = ' || quote_literal(j ->> 'collicurules'), '') || ')',
   format('ALTER COLLATION %I.%I OWNER TO %I', n.name, c.collname, pg_get_userbyid(c.collowner))]
  from pg_collation c join users n on n.oid = c.collnamespace, lateral to_jsonb(c) j where c.oid >= 16384 and not exists (select from owned where class = 'pg_collation'::regclass and obj = c.oid)
union all
select 'pg_am'::regclass, a.oid, format('access method %I', a.amname), array[format('CREATE ACCESS METHOD %I TYPE %s HANDLER %s', a.amname, case a.amtype when 'i' then 'INDEX' else 'TABLE' end, a.amhandler)]
  from pg_am a where a.oid >= 16384 and not exists (select from owned where class = 'pg_am'::regclass and obj = a.oid)
union all
select 'pg_opfamily'::regclass, f.oid, format('operator family %I.%I of %I', n.name, f.opfname, m.amname), array[format('CREATE OPERATOR FAMILY %I.%I USING %I', n.name, f.opfname, m.amname),
   format('ALTER OPERATOR FAMILY %I.%I USING %I OWNER TO %I', n.name, f.opfname, m.amname, pg_get_userbyid(f.opfowner))]
  from pg_opfamily f join users n on n.oid = f.opfnamespace join pg_am m on m.oid = f.opfmethod where f.oid >= 16384 and not exists (select from owned where class = 'pg_opfamily'::regclass and obj = f.oid)
union all
select 'pg_opclass'::regclass, o.oid, format('operator class %I.%I of %I', n.name, o.opcname, m.amname), array[format('CREATE OPERATOR CLASS %I.%I %sFOR TYPE %s USING %I FAMILY %I.%I AS STORAGE %s', n.name, o.opcname, case when o.opcdefault then 'DEFAULT ' else '' end,
      format_type(o.opcintype, null), m.amname, fn.nspname, f.opfname, format_type(coalesce(nullif(o.opckeytype, 0), o.opcintype), null)) ||
      coalesce((select string_agg(format(', OPERATOR %s %s%s', a.amopstrategy, a.amopopr::regoperator, (select format(' FOR ORDER BY %I.%I', sn.nspname, s.opfname) from pg_opfamily s join pg_namespace sn on sn.oid = s.opfnamespace where s.oid = a.amopsortfamily)), '' order by a.amopstrategy, a.amopopr::regoperator::text)
         from pg_amop a where exists (select from pg_depend d where d.classid = 'pg_amop'::regclass and d.objid = a.oid and d.refclassid = 'pg_opclass'::regclass and d.refobjid = o.oid)), '') ||
      coalesce((select string_agg(format(', FUNCTION %s (%s, %s) %s', a.amprocnum, format_type(a.amproclefttype, null), format_type(a.amprocrighttype, null), a.amproc::oid::regprocedure), '' order by a.amprocnum, a.amproc::oid::regprocedure::text)
         from pg_amproc a where exists (select from pg_depend d where d.classid = 'pg_amproc'::regclass and d.objid = a.oid and d.refclassid = 'pg_opclass'::regclass and d.refobjid = o.oid)), ''),
   format('ALTER OPERATOR CLASS %I.%I USING %I OWNER TO %I', n.name, o.opcname, m.amname, pg_get_userbyid(o.opcowner))]
  from pg_opclass o join users n on n.oid = o.opcnamespace join pg_am m on m.oid = o.opcmethod join pg_opfamily f on f.oid = o.opcfamily join pg_namespace fn on fn.oid = f.opfnamespace where o.oid >= 16384 and not exists (select from owned where class = 'pg_opclass'::regclass and obj = o.oid)
union all
select 'pg_amop'::regclass, a.oid, format('family member operator %s %s of %I.%I of %I', a.amopstrategy, a.amopopr::regoperator, n.nspname, f.opfname, m.amname),
   array[format('ALTER OPERATOR FAMILY %I.%I USING %I ADD OPERATOR %s %s%s', n.nspname, f.opfname, m.amname, a.amopstrategy, a.amopopr::regoperator, (select format(' FOR ORDER BY %I.%I', sn.nspname, s.opfname) from pg_opfamily s join pg_namespace sn on sn.oid = s.opfnamespace where s.oid = a.amopsortfamily))]
  from pg_amop a join pg_opfamily f on f.oid = a.amopfamily join pg_namespace n on n.oid = f.opfnamespace join pg_am m on m.oid = f.opfmethod
 where a.oid >= 16384 and not exists (select from owned where class = 'pg_opfamily'::regclass and obj = f.oid or class = 'pg_operator'::regclass and obj = a.amopopr) and not exists (select from pg_depend d where d.classid = 'pg_amop'::regclass and d.objid = a.oid and d.refclassid = 'pg_opclass'::regclass)
union all
select 'pg_amproc'::regclass, a.oid, format('family member function %s %s of %I.%I of %I', a.amprocnum, a.amproc::oid::regprocedure, n.nspname, f.opfname, m.amname),
   array[format('ALTER OPERATOR FAMILY %I.%I USING %I ADD FUNCTION %s (%s, %s) %s', n.nspname, f.opfname, m.amname, a.amprocnum, format_type(a.amproclefttype, null), format_type(a.amprocrighttype, null), a.amproc::oid::regprocedure)]
  from pg_amproc a join pg_opfamily f on f.oid = a.amprocfamily join pg_namespace n on n.oid = f.opfnamespace join pg_am m on m.oid = f.opfmethod
 where a.oid >= 16384 and not exists (select from owned where class = 'pg_opfamily'::regclass and obj = f.oid or class = 'pg_proc'::regclass and obj = a.amproc) and not exists (select from pg_depend d where d.classid = 'pg_amproc'::regclass and d.objid = a.oid and d.refclassid = 'pg_opclass'::regclass)`

// searchKinds lists what searches text. The options of a dictionary are kept as they are written.
const searchKinds = `
union all
select 'pg_ts_parser'::regclass, p.oid, format('text search parser %I.%I', n.name, p.prsname),
   array[format('CREATE TEXT SEARCH PARSER %I.%I (START = %s, GETTOKEN = %s, END = %s, LEXTYPES = %s', n.name, p.prsname, p.prsstart, p.prstoken, p.prsend, p.prslextype) || case when p.prsheadline::oid <> 0 then format(', HEADLINE = %s', p.prsheadline) else '' end || ')']
  from pg_ts_parser p join users n on n.oid = p.prsnamespace where p.oid >= 16384 and not exists (select from owned where class = 'pg_ts_parser'::regclass and obj = p.oid)
union all
select 'pg_ts_template'::regclass, t.oid, format('text search template %I.%I', n.name, t.tmplname), array[format('CREATE TEXT SEARCH TEMPLATE %I.%I (LEXIZE = %s', n.name, t.tmplname, t.tmpllexize) || case when t.tmplinit::oid <> 0 then format(', INIT = %s', t.tmplinit) else '' end || ')']
  from pg_ts_template t join users n on n.oid = t.tmplnamespace where t.oid >= 16384 and not exists (select from owned where class = 'pg_ts_template'::regclass and obj = t.oid)
union all
select 'pg_ts_dict'::regclass, d.oid, format('text search dictionary %I.%I', n.name, d.dictname), array[format('CREATE TEXT SEARCH DICTIONARY %I.%I (TEMPLATE = %I.%I', n.name, d.dictname, tn.nspname, t.tmplname) || coalesce(', ' || d.dictinitoption, '') || ')',
   format('ALTER TEXT SEARCH DICTIONARY %I.%I OWNER TO %I', n.name, d.dictname, pg_get_userbyid(d.dictowner))]
  from pg_ts_dict d join users n on n.oid = d.dictnamespace join pg_ts_template t on t.oid = d.dicttemplate join pg_namespace tn on tn.oid = t.tmplnamespace where d.oid >= 16384 and not exists (select from owned where class = 'pg_ts_dict'::regclass and obj = d.oid)
union all
select 'pg_ts_config'::regclass, c.oid, format('text search configuration %I.%I', n.name, c.cfgname), array[format('CREATE TEXT SEARCH CONFIGURATION %I.%I (PARSER = %I.%I)', n.name, c.cfgname, pn.nspname, p.prsname) ||
      coalesce((select string_agg(format('; ALTER TEXT SEARCH CONFIGURATION %I.%I ADD MAPPING FOR %I WITH %s', n.name, c.cfgname, k.alias, m.dicts), '' order by k.tokid)
         from ts_token_type(c.cfgparser) k join (select maptokentype, string_agg(format('%I.%I', dn.nspname, d.dictname), ', ' order by mapseqno) as dicts
            from pg_ts_config_map join pg_ts_dict d on d.oid = mapdict join pg_namespace dn on dn.oid = d.dictnamespace where mapcfg = c.oid group by maptokentype) m on m.maptokentype = k.tokid), ''),
   format('ALTER TEXT SEARCH CONFIGURATION %I.%I OWNER TO %I', n.name, c.cfgname, pg_get_userbyid(c.cfgowner))]
  from pg_ts_config c join users n on n.oid = c.cfgnamespace join pg_ts_parser p on p.oid = c.cfgparser join pg_namespace pn on pn.oid = p.prsnamespace where c.oid >= 16384 and not exists (select from owned where class = 'pg_ts_config'::regclass and obj = c.oid)`
