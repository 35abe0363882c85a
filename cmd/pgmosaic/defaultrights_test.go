package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// rightsOf is who may use what is of no table, and sequences, and what roles give of what they will define.
const rightsOf = `select string_agg(x, E'\n' order by x) from (
  select concat_ws(' ', p.oid::regprocedure, array(select x::text from aclexplode(coalesce(proacl, acldefault('f', proowner))) x (a, b, c, d), lateral (values (concat_ws(' ', b::regrole, c, d))) y (x) order by 1)) from pg_proc p where pronamespace = 'public'::regnamespace
  union all select concat_ws(' ', t.oid::regtype, array(select x::text from aclexplode(coalesce(typacl, acldefault('T', typowner))) x (a, b, c, d), lateral (values (concat_ws(' ', b::regrole, c, d))) y (x) order by 1)) from pg_type t where typname in ('kind', 'span')
  union all select concat_ws(' ', c.relname, array(select x::text from aclexplode(coalesce(relacl, acldefault('s', relowner))) x (a, b, c, d), lateral (values (concat_ws(' ', b::regrole, c, d))) y (x) order by 1)) from pg_class c where relkind = 'S' and relnamespace = 'public'::regnamespace
  union all select concat_ws(' ', nspname, array(select x::text from aclexplode(coalesce(nspacl, acldefault('n', nspowner))) x (a, b, c, d), lateral (values (concat_ws(' ', b::regrole, c, d))) y (x) order by 1)) from pg_namespace where nspname in ('public', 'apart', 'shut')
  union all select concat_ws(' ', defaclrole::regrole, defaclnamespace::regnamespace, defaclobjtype, defaclacl) from pg_default_acl
  union all select concat_ws(' ', aggfnoid, aggfinalmodify, aggtransspace, aggsortop::regoperator) from pg_aggregate where aggfnoid >= 16384) q (x)`

// A shard that joins has home's default privileges: what is defined later is nobody's there whose it is not on home. What default privileges of the
// proxy's role, or others that the database had, would give on what is brought, is not given.
func TestDefaultPrivilegesComeWithAShard(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "hereafter")
	node := d.cluster.Node("s2-a")
	for _, n := range []string{"s1-a", "s2-a"} {
		su := connectTo(t, d.cluster.Node(n).DSN("postgres"))
		mustExec(t, su, "create role after_reader")
		t.Cleanup(func() { _, _ = su.Exec(context.Background(), "drop role after_reader") })
	}
	for _, sql := range []string{
		"alter default privileges revoke execute on functions from public", "alter default privileges in schema public grant select on tables to after_reader", "alter default privileges revoke insert on tables from app",
		"create function acc(int[], int) returns int[] language sql as 'select $1 || $2'", "create function fin(int[]) returns int language sql as 'select cardinality($1)'",
		"create aggregate gathered(int) (sfunc = acc, stype = int[], initcond = '{}', finalfunc = fin, finalfunc_modify = read_write, sspace = 100)",
		"create aggregate largest(int) (sfunc = int4larger, stype = int, sortop = >)",
		"create type kind as enum ('a', 'b')", "revoke usage on type kind from public", "create type span as range (subtype = text, collation = \"C\")",
		"revoke all on function fin(int[]) from app", "grant execute on function acc(int[], int) to after_reader with grant option",
		"create schema apart", "create schema shut", "revoke all on schema shut from app", "create table drawn (k int primary key, n serial, i int generated always as identity)",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN hereafter KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE hereafter.public.drawn IN GROUP g KEY (k)")
	freshDatabase(t, node, "hereafter_3")
	shard := connectTo(t, node.DSN("hereafter_3"))
	mustExec(t, shard, "alter default privileges grant all on functions to after_reader; alter default privileges grant all on sequences to after_reader; alter default privileges grant all on types to after_reader; alter default privileges grant all on tables to after_reader; alter default privileges grant all on schemas to after_reader; grant all on schema public to after_reader")
	d.adminExec(t, "CREATE SHARD hereafter_s3 IN hereafter NODE '"+node.DSN("hereafter_3")+"' NAME hereafter_n3")
	mustExec(t, c, "create function later() returns int language sql as 'select 1'")
	want := queryOne[string](t, d.on(t, "hereafter", 0), rightsOf)
	for i, on := range []string{"hereafter_1", "hereafter_2", "hereafter_3"} {
		if is := queryOne[string](t, connectTo(t, d.cluster.Node([]string{"s2-a", "s1-a", "s2-a"}[i]).DSN(on)), rightsOf); is != want {
			t.Errorf("home has\n%s\n%s\n%s", want, on, is)
		}
	}
	if rows := d.adminExec(t, "VERIFY SCHEMA IN hereafter"); len(rows) > 0 {
		t.Errorf("VERIFY SCHEMA: %v", rows)
	}
	mustExec(t, shard, "alter default privileges for role app grant execute on functions to public")
	if rows := d.adminExec(t, "VERIFY SCHEMA IN hereafter"); len(rows) != 1 {
		t.Errorf("VERIFY SCHEMA: %v", rows)
	}
}

// What a superuser gives by default only a superuser can have a shard give as well. It is said before anything is made, and with what is to be run.
func TestASuperusersDefaultPrivileges(t *testing.T) {
	t.Parallel()
	d, shards := modestWorld(t, "foregiven")
	c := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "foregiven"))
	mustExec(t, c, "create table codes (k int primary key)")
	d.adminExec(t, "DISTRIBUTE TABLE foregiven.public.codes AS REFERENCE")
	mustExec(t, shards[0], "alter default privileges in schema public grant select on tables to app")
	node := d.cluster.Node("s2-a")
	su := connectTo(t, node.DSN("postgres"))
	for _, sql := range []string{"drop database if exists foregiven_3 with (force)", "create database foregiven_3 owner app", "grant create on database foregiven_3 to foregiven_proxy"} {
		mustExec(t, su, sql)
	}
	drop := func() {
		if c, err := pgx.Connect(context.Background(), node.DSN("postgres")); err == nil {
			_, _ = c.Exec(context.Background(), "drop database if exists foregiven_3 with (force)")
			_ = c.Close(context.Background())
		}
	}
	t.Cleanup(drop)
	create := fmt.Sprintf("CREATE SHARD foregiven_s3 IN foregiven NODE 'postgres://foregiven_proxy:modest@127.0.0.1:%d/foregiven_3?sslmode=disable' NAME foregiven_n3", node.Port)
	const sql = "ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT SELECT ON TABLES TO app"
	for _, dry := range []string{" DRY RUN", ""} {
		d.adminFails(t, create+dry, "42501", "default privileges on shard")
		_, err := d.Admin.Exec(t.Context(), create+dry, false)
		if e := new(pgsql.Error); !errors.As(err, &e) || !strings.Contains(e.Hint, sql) {
			t.Errorf("%+v", err)
		}
	}
	mustExec(t, connectTo(t, node.DSN("foregiven_3")), sql)
	d.adminExec(t, create)
	d.adminExec(t, "DROP SHARD foregiven_s3 IN foregiven")
}
