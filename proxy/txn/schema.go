package txn

import (
	"fmt"
	"strings"
)

// Schema is what is created on a shard of an ordinal, owned by the role of the node's connection string; joined is how many shards the map says
// have joined, see Counted, or Unknown: then they are not counted yet. It may run again where some or all of it is there, of this version or an older one.
func Schema(ordinal, joined int) string {
	parts := []string{"SET LOCAL search_path = pg_catalog, pg_temp", "CREATE SCHEMA IF NOT EXISTS pgmosaic", owned, tables, older, retired}
	if ordinal < mostIDs {
		parts = append(parts, ids(ordinal))
	}
	parts = append(parts, functions, turns)
	if joined != Unknown {
		parts = append(parts, count(joined))
	}
	return strings.Join(append(parts, privileges, closed), ";\n")
}

// Unknown is how many shards have joined where that is not known.
const Unknown = -1

// Complete asks a shard whether it has all that Schema makes, and nothing there is open to anybody who should not have it.
const Complete = `select (select count(*) from (` + ownFunctions + `) f where form in (` + present + `)) = 6 and not exists (` + formerFunctions + `)
  and to_regclass('pgmosaic.secret') is not null and to_regclass('pgmosaic.identity') is not null and to_regclass('pgmosaic.copy') is null and to_regclass('pgmosaic.tenant') is null
  and exists (select from pg_catalog.pg_attribute where attrelid = to_regclass('pgmosaic.identity') and attname = 'attempt') and to_regclass('pgmosaic.made') is not null and to_regclass('pgmosaic.placed') is not null
  and exists (` + Counted + `) and to_regclass('pgmosaic.holder') is not null and to_regclass('pgmosaic.brought') is not null
  and not exists (` + tooMuch + `) and not exists (` + open + `)`

// present are the forms of the functions that Schema makes, but for home's count.
const present = `'decide(gid text, outcome text, parts text[], token bytea) void', 'next_id() bigint', 'shown(said bytea, purpose text, token bytea) boolean',
  'take_turn(name text, token bytea) xid8', 'take_turn(name text, token bytea, shards integer) xid8', 'written() trigger'`

// ownFunctions are the functions of those names, and of those that older versions had, with their forms.
const ownFunctions = `select oid, proname || '(' || pg_get_function_identity_arguments(oid) || ') ' || pg_get_function_result(oid) as form
  from pg_catalog.pg_proc where pronamespace = pg_catalog.to_regnamespace('pgmosaic') and proname in ('decide', 'forget', 'next_id', 'shown', 'take_turn', 'written')`

// formerFunctions are what older versions have made, with other parameters or results, and this one does not replace.
const formerFunctions = `select oid from (` + ownFunctions + `) f where form not in (` + present + `)`

// retired takes away what stands in the way of what is made now, or would do without a token what that wants one for. Anybody can name
// what others have made, in a view or as a type, without a right to it: then it can only be renamed. Who might call it is taken that right: see privileges.
const retired = `
DO $$
DECLARE former record;
BEGIN
  FOR former IN ` + formerFunctions + ` LOOP
    BEGIN
      EXECUTE format('DROP FUNCTION %s', former.oid::regprocedure);
    EXCEPTION WHEN dependent_objects_still_exist THEN
      EXECUTE format('ALTER FUNCTION %s RENAME TO %I', former.oid::regprocedure, 'older_' || former.oid);
    END;
  END LOOP;
END $$`

// owned refuses a schema that somebody else has made, or has made something in: what it holds is trusted. It looks when the schema is
// there: nobody can make one between the look and the first use.
const owned = `
DO $$
DECLARE theirs text;
BEGIN
  SELECT string_agg(o.what || ' of ' || o.owner::regrole, ', ') INTO theirs FROM (
    SELECT 'schema ' || nspname, nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'pgmosaic' UNION ALL
    SELECT relname, relowner FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.to_regnamespace('pgmosaic') UNION ALL
    SELECT proname, proowner FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.to_regnamespace('pgmosaic')) o (what, owner)
  WHERE owner <> (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user) AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = owner AND r.rolsuper);
  IF theirs IS NOT NULL THEN
    RAISE EXCEPTION 'schema pgmosaic is kept for pgmosaic, and holds what belongs to others: %', theirs
      USING ERRCODE = '42939', HINT = 'If none of it is of use, DROP SCHEMA pgmosaic CASCADE; if the role of the node''s connection string has changed, REASSIGN OWNED BY the old one.';
  END IF;
END $$`

// drawn is half of a secret, by chance.
const drawn = `sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))`

const tables = `
CREATE TABLE IF NOT EXISTS pgmosaic.decision (gid text PRIMARY KEY, outcome text NOT NULL, parts text[], at timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS pgmosaic.made (relation regclass PRIMARY KEY, distribution text NOT NULL, attempt text NOT NULL);
CREATE TABLE IF NOT EXISTS pgmosaic.brought (class oid, object oid, attempt text NOT NULL, made bytea NOT NULL, PRIMARY KEY (class, object));
CREATE TABLE IF NOT EXISTS pgmosaic.placed (relation regclass UNIQUE, schema text UNIQUE, shard text, distribution text NOT NULL, attempt text NOT NULL, at text NOT NULL CHECK (at IN ('home', 'shards')),
  CHECK (num_nonnulls(relation, schema, shard) = 1));
CREATE TABLE IF NOT EXISTS pgmosaic.holder (attempt text PRIMARY KEY, pid integer NOT NULL, started timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS pgmosaic.identity (one boolean PRIMARY KEY DEFAULT true CHECK (one), installation text NOT NULL, database text NOT NULL, shard text NOT NULL, attempt text);
CREATE TABLE IF NOT EXISTS pgmosaic.secret (one bool PRIMARY KEY DEFAULT true CHECK (one), inner_key bytea NOT NULL, outer_key bytea NOT NULL);
REVOKE ALL ON pgmosaic.secret FROM PUBLIC;
INSERT INTO pgmosaic.secret (inner_key, outer_key) SELECT ` + drawn + `, ` + drawn + ` ON CONFLICT DO NOTHING;
DO $$
DECLARE before text := current_setting('lock_timeout');
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = 'pgmosaic.identity'::regclass AND attname = 'attempt') THEN
    PERFORM set_config('lock_timeout', '200ms', true); -- every new connection and the monitor ask it, and wait behind this; a pg_dump, or anybody's transaction, may hold it up for hours
    ALTER TABLE pgmosaic.identity ADD COLUMN attempt text;
    PERFORM set_config('lock_timeout', before, true);
  END IF;
EXCEPTION WHEN lock_not_available THEN -- only a new shard needs it: whoever runs this next tries again
END $$;
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conrelid = 'pgmosaic.decision'::regclass AND conname = 'decision_form') THEN
    PERFORM set_config('lock_timeout', '200ms', true); -- transactions over shards wait behind this, and a prepared one may hold it up for long
    ALTER TABLE pgmosaic.decision ADD CONSTRAINT decision_form
      CHECK (octet_length(gid) <= 200 AND outcome ~ '^(commit|part|abort|done|damaged: .{1,200})$' AND cardinality(parts) <= 1024) NOT VALID;
  END IF;
EXCEPTION WHEN lock_not_available THEN -- whoever runs this next tries again; the function checks in any case
END $$`

// older takes over the notes of versions that knew no attempts: theirs is the empty one.
const older = `
DO $$
DECLARE before text := current_setting('lock_timeout');
  former regclass;
BEGIN
  PERFORM set_config('lock_timeout', '200ms', true);
  IF to_regclass('pgmosaic.copy') IS NOT NULL THEN
    INSERT INTO pgmosaic.made SELECT to_regclass(format('%I.%I', schema, name)), '', '' FROM pgmosaic.copy WHERE to_regclass(format('%I.%I', schema, name)) IS NOT NULL ON CONFLICT DO NOTHING;
  END IF;
  IF to_regclass('pgmosaic.tenant') IS NOT NULL THEN
    INSERT INTO pgmosaic.placed (schema, distribution, attempt, at) SELECT schema, '', '', 'shards' FROM pgmosaic.tenant ON CONFLICT DO NOTHING;
  END IF;
  FOR former IN SELECT oid FROM pg_class WHERE oid IN (to_regclass('pgmosaic.copy'), to_regclass('pgmosaic.tenant')) LOOP
    BEGIN
      EXECUTE format('DROP TABLE %s', former);
    EXCEPTION WHEN dependent_objects_still_exist THEN -- see retired
      EXECUTE format('ALTER TABLE %s RENAME TO %I', former, 'older_' || former::oid);
    END;
  END LOOP;
  PERFORM set_config('lock_timeout', before, true);
EXCEPTION WHEN lock_not_available THEN -- whoever runs this next tries again
END $$`

// functions are what clients' own transactions run. Whoever calls decide must know the shard's secret: its token is computed from
// that, and holds for one transaction, outcome and server process. A wrong one changes nothing.
const functions = `
CREATE OR REPLACE FUNCTION pgmosaic.decide(gid text, outcome text, parts text[], token bytea) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  said text := octet_length($1) || ':' || $1 || octet_length($2) || ':' || $2 || pg_backend_pid() || ':';
BEGIN
  said := said || coalesce((SELECT string_agg(octet_length(p.name) || ':' || p.name, '' ORDER BY p.n) FROM unnest($3) WITH ORDINALITY p (name, n)), '');
  IF NOT coalesce((SELECT sha256($4) = sha256(sha256(s.outer_key || sha256(s.inner_key || convert_to(said, 'UTF8')))) FROM pgmosaic.secret s), false) THEN
    RAISE EXCEPTION 'only pgmosaic decides about its transactions' USING ERRCODE = '42501';
  END IF;
  IF $2 NOT IN ('commit', 'part') THEN
    RAISE EXCEPTION 'a transaction has no outcome %', quote_literal($2) USING ERRCODE = '22023';
  END IF;
  IF $2 = 'commit' AND current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  INSERT INTO pgmosaic.decision (gid, outcome, parts) VALUES ($1, $2, $3);
END $$;
CREATE OR REPLACE FUNCTION pgmosaic.kept() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'only pgmosaic says whose the database is' USING ERRCODE = '42501';
END $$`

// mostIDs is how many shards may give ids.
const mostIDs = 1 << 10

// ids is what makes pgmosaic.next_id() on a shard, by the shard's number: ids of 63 bits that no other shard gives, in the order
// of time by the second. From above: 31 bits of seconds since 2020, 10 of the shard, 22 of a sequence that begins anew: four
// million ids a second and shard are unique.
func ids(shard int) string {
	return fmt.Sprintf(`
CREATE SEQUENCE IF NOT EXISTS pgmosaic.ids MINVALUE 0 MAXVALUE 4194303 CYCLE;
CREATE OR REPLACE FUNCTION pgmosaic.next_id() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'SELECT ((floor(extract(epoch from clock_timestamp()))::bigint - 1577836800) << 32) | (%d::bigint << 22) | nextval(''pgmosaic.ids'')'`, shard)
}

// tooMuch finds the privileges that others than the owner have on what is in the schema and should not have: all but the use of
// the schema, whose the database is, the functions by which the proxy works as its clients, and, for a role to which somebody has granted it by name, to
// read; and the right to hand on any of it. Default privileges of the owner give more than was meant. PostgreSQL's own functions, which all
// have smaller OIDs, are not looked through.
const tooMuch = `select o.what, x.grantee, case when m.may then 'GRANT OPTION FOR ' else '' end || x.privilege_type as privilege from (
    select 'SCHEMA pgmosaic', n.nspowner, n.nspacl, 'n' from pg_catalog.pg_namespace n where n.nspname = 'pgmosaic' union all
    select case when c.relkind = 'S' then 'SEQUENCE ' else 'TABLE ' end || c.oid::regclass, c.relowner, c.relacl, case c.relname when 'secret' then 's' when 'identity' then 'i' else c.relkind::text end
      from pg_catalog.pg_class c where c.relnamespace = pg_catalog.to_regnamespace('pgmosaic') and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') union all
    select 'FUNCTION ' || p.oid::regprocedure, p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), case when p.proname in ('decide', 'next_id', 'take_turn', 'written') then 'f' else 'p' end
      from pg_catalog.pg_proc p where p.oid >= 16384 and p.pronamespace = pg_catalog.to_regnamespace('pgmosaic')) o (what, owner, acl, kind)
  cross join pg_catalog.aclexplode(o.acl) x
  cross join lateral (select o.kind = 'n' and x.privilege_type = 'USAGE' or o.kind = 'f' and x.privilege_type = 'EXECUTE' or o.kind = 'i' and x.privilege_type = 'SELECT'
    or o.kind in ('r', 'S') and x.grantee <> 0 and x.privilege_type = 'SELECT') m (may)
 where x.grantee <> o.owner and (not m.may or x.is_grantable)`

// privileges takes away what others should not have, and what they have given others of it, and gives all what they need.
const privileges = `
DO $$
DECLARE given record;
BEGIN
  FOR given IN ` + tooMuch + ` LOOP
    EXECUTE format('REVOKE %s ON %s FROM %s CASCADE', given.privilege, given.what, CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END);
  END LOOP;
END $$;
GRANT USAGE ON SCHEMA pgmosaic TO PUBLIC;
GRANT SELECT ON pgmosaic.identity TO PUBLIC;
GRANT EXECUTE ON FUNCTION pgmosaic.decide(text, text, text[], bytea), pgmosaic.take_turn(text, bytea), pgmosaic.take_turn(text, bytea, int), pgmosaic.written() TO PUBLIC`

// open finds the schema's tables that roles may still read or write to whom PostgreSQL gives all tables, whatever is granted there: members of
// pg_read_all_data and pg_write_all_data. These do not get past row level security, and the owner does, who has functions of ours
// run as itself: so each table has that, with no policy for the secret, and for the others one that lets those read who may, and nobody write. The table
// that says whose a database is must stay a plain one, which all can read, also older versions (see nodeconn): a trigger refuses to have it written. It asks for a
// privilege that only the owner and superusers have.
const open = `select c.oid, c.oid::regclass::text as name, c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspowner = c.relowner
 where n.nspname = 'pgmosaic' and c.relkind in ('r', 'p') and case c.relname when 'identity' then not exists (select from pg_catalog.pg_trigger t where t.tgrelid = c.oid and t.tgname = 'pgmosaic_kept' and t.tgenabled = 'A')
   else not c.relrowsecurity or coalesce((select string_agg(p.polname || ' ' || p.polcmd::text, ',') from pg_catalog.pg_policy p where p.polrelid = c.oid), '') <> case c.relname when 'secret' then '' else 'granted r' end end`

// closed closes them. What an older version has made waits for nobody here, or others would wait behind it: who has a table in use keeps it
// open, and whoever runs this next tries again. A secret that could be read is another one from then on: a process that knows the
// old one is refused once, and asks for it again.
const closed = `
DO $$
DECLARE
  before text := current_setting('lock_timeout');
  x record;
  policy name;
  readable bool;
BEGIN
  FOR x IN ` + open + ` ORDER BY c.relname <> 'secret' LOOP
    BEGIN
      PERFORM set_config('lock_timeout', '200ms', true);
      IF x.relname = 'identity' THEN -- who reads does not stand in the way
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', x.name);
        IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = x.oid AND tgname = 'pgmosaic_kept') THEN
          EXECUTE format('CREATE TRIGGER pgmosaic_kept BEFORE INSERT OR UPDATE OR DELETE ON %1$s FOR EACH STATEMENT WHEN (NOT has_table_privilege(%1$L::regclass, ''TRUNCATE'')) EXECUTE FUNCTION pgmosaic.kept()', x.name);
        END IF;
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER pgmosaic_kept', x.name);
      ELSE
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', x.name);
        SELECT NOT relrowsecurity INTO readable FROM pg_class WHERE oid = x.oid; -- another process may have been here
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', x.name);
        FOR policy IN SELECT polname FROM pg_policy WHERE polrelid = x.oid LOOP
          EXECUTE format('DROP POLICY %I ON %s', policy, x.name);
        END LOOP;
        IF x.relname <> 'secret' THEN
          EXECUTE format('CREATE POLICY granted ON %s FOR SELECT USING (true)', x.name);
        ELSIF readable THEN
          UPDATE pgmosaic.secret SET inner_key = ` + drawn + `, outer_key = ` + drawn + `;
        END IF;
      END IF;
    EXCEPTION WHEN lock_not_available THEN
    END;
    PERFORM set_config('lock_timeout', before, true);
  END LOOP;
END $$`
