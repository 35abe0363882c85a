package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// defined is what a server holds of the objects of TestDefinitionsReachEveryShard, as one text.
const defined = `select coalesce(string_agg(x, E'\n' order by x), '') from (
	select 'type ' || typname || ' ' || (select string_agg(enumlabel, ',' order by enumsortorder) from pg_enum where enumtypid = t.oid) from pg_type t where typname like 'x\_%' and typtype = 'e'
	union all select 'function ' || proname || ' ' || prosrc || ' ' || coalesce(proacl::text, '') from pg_proc where proname like 'x\_%'
	union all select 'schema ' || nspname from pg_namespace where nspname like 'x\_%'
	union all select 'extension ' || extname from pg_extension where extname <> 'plpgsql'
	union all select 'index ' || relname || ' ' || pg_get_indexdef(oid) from pg_class where relkind = 'i' and relname like 'x\_%'
	union all select 'trigger ' || pg_get_triggerdef(oid) || ' ' || tgenabled::text from pg_trigger where tgname like 'x\_%'
	union all select 'policy ' || polname || pg_get_expr(polqual, polrelid) from pg_policy
	union all select 'constraint ' || conname || pg_get_constraintdef(oid) from pg_constraint where conname like 'x\_%'
	union all select 'column ' || attname || ' ' || format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'customers'::regclass and attnum > 0 and not attisdropped
	union all select 'security ' || relrowsecurity::text || relforcerowsecurity from pg_class where oid = 'customers'::regclass
	union all select 'statistics ' || pg_get_statisticsobjdef(oid) from pg_statistic_ext) q (x)`

// What is no relation, and what hangs on a distributed table, is on every shard, also on one that comes later, and goes from
// every shard.
func TestDefinitionsReachEveryShard(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, NoLoad: true})
	c := connectTo(t, d.shopDSN())
	servers := map[string]*pgx.Conn{}
	for _, n := range []string{"s1-a", "s2-a"} {
		servers[n] = connectTo(t, d.cluster.Node(n).DSN("shop"))
	}
	same := func(what string) string {
		t.Helper()
		home := queryOne[string](t, servers["s1-a"], defined)
		for n, s := range servers {
			if got := queryOne[string](t, s, defined); got != home {
				t.Errorf("%s: %s has\n%s\nhome has\n%s", what, n, got, home)
			}
		}
		return home
	}
	for _, sql := range []string{
		"create type x_mood as enum ('low', 'high')",
		"alter type x_mood add value 'mid' before 'high'",
		"create schema x_apart",
		"create function x_home() returns bigint stable language sql as 'select count(*) from settings'",
		"create function x_stamp() returns trigger language plpgsql as $$ begin new.name := upper(new.name); return new; end $$",
		"create or replace function x_stamp() returns trigger language plpgsql as $$ begin new.name := lower(new.name); return new; end $$",
		"create function x_gone() returns int language sql as 'select 1'",
		"revoke execute on function x_gone() from public",
		"drop function x_gone()",
		"begin; alter table customers add column mood x_mood; alter table customers rename column mood to humour; commit",
		"alter table customers add constraint x_short check (length(name) < 100), add constraint x_pair unique (customer_id, name)",
		"alter table customers drop constraint x_pair",
		"create index x_names on customers (name)",
		"alter index x_names rename to x_names2",
		"create index x_gone on customers (email)",
		"drop index x_gone",
		"create index concurrently x_late on customers (email)",
		"reindex index concurrently x_late",
		"create trigger x_lower before insert or update on customers for each row execute function x_stamp()",
		"create trigger x_off before insert on customers for each row execute function x_stamp()",
		"alter table customers disable trigger x_off",
		"create policy x_all on customers using (name <> 'hidden')",
		"alter table customers enable row level security",
		"create statistics x_stat on name, email from customers",
	} {
		mustExec(t, c, sql)
	}
	had := same("made")
	for _, want := range []string{"type x_mood low,mid,high", "column humour x_mood", "index x_names2", "trigger CREATE TRIGGER x_off", "policy x_all", "security true", "statistics CREATE"} {
		if !strings.Contains(had, want) {
			t.Errorf("%q is missing in\n%s", want, had)
		}
	}
	k1, k2 := keysOn(t, d, 1)
	mustExec(t, c, "insert into countries values ('DE', 'Germany')")
	for _, k := range []int{k1, k2} {
		mustExec(t, c, "insert into customers (customer_id, name, email, country, created_at, humour) values ($1, 'BIG', 'x', 'DE', '2026-01-01', 'mid')", k)
		if got := queryOne[string](t, c, "select name || humour from customers where customer_id = $1", k); got != "bigmid" {
			t.Errorf("key %d: %s", k, got)
		}
	}
	if got := queryOne[int](t, c, "select x_home()"); got != 0 {
		t.Errorf("the function of home gives %d", got)
	}
	// A definition that a shard cannot take is undone everywhere.
	mustExec(t, servers["s2-a"], "create type x_taken as enum ('other')")
	_, err := c.Exec(t.Context(), "create type x_taken as enum ('a')")
	wantCode(t, err, "42710")
	if !strings.Contains(fmt.Sprint(err), "on shard s2") {
		t.Errorf("it does not say where: %v", err)
	}
	mustExec(t, servers["s2-a"], "drop type x_taken")
	same("after the failure")
	// A new shard gets all of it.
	late := d.cluster.Node("s2-a")
	mustExec(t, connectTo(t, late.DSN("postgres")), "create database late")
	d.adminExec(t, "CREATE SHARD s3 IN shop NODE '"+late.DSN("late")+"'")
	servers["s3"] = connectTo(t, late.DSN("late"))
	same("with a new shard")
	for _, sql := range []string{
		"drop trigger x_lower on customers", "drop trigger if exists x_none on customers", "drop policy x_all on customers", "alter table customers disable row level security",
		"drop index x_names2, x_late", "alter table customers drop constraint x_short", "drop statistics x_stat", "alter table customers drop column humour",
		"drop type x_mood", "drop function x_stamp() cascade", "drop schema x_apart",
	} {
		mustExec(t, c, sql)
	}
	if left := same("dropped"); strings.Contains(left, "x_mood") || strings.Contains(left, "trigger") {
		t.Errorf("left:\n%s", left)
	}
}

// CREATE TABLE AS over shards makes a table of home's, temporary or not, in a transaction or not, and nothing if it fails.
func TestCreateTableAs(t *testing.T) {
	t.Parallel()
	d := shop(t)
	c := connectTo(t, d.shopDSN())
	defer func() {
		_, _ = c.Exec(t.Context(), "rollback")
		mustExec(t, c, "drop table if exists made, made2, made3")
	}()
	want := queryOne[string](t, c, "select count(*) || ' ' || sum(customer_id) from customers")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		mustExec(t, c, "drop table if exists made")
		tag, err := c.Exec(t.Context(), "create table made (id, \"Label\") as select customer_id, name || '!' from customers with data", mode)
		if err != nil || !strings.HasPrefix(want, strings.TrimPrefix(tag.String(), "SELECT ")) {
			t.Fatal(tag, err)
		}
		if got := queryOne[string](t, c, "select count(*) || ' ' || sum(id) from made where \"Label\" like '%!'"); got != want {
			t.Errorf("%s: made %s, want %s", mode, got, want)
		}
	}
	mustExec(t, c, "create temp table sums as select country, count(*) as n from customers group by country; select 1")
	if got := queryOne[int](t, c, "select sum(n) from sums"); fmt.Sprint(got) != strings.Fields(want)[0] {
		t.Errorf("the temporary table holds %d", got)
	}
	mustExec(t, c, "drop table sums")
	mustExec(t, c, "begin")
	mustExec(t, c, "create table made2 as select a.customer_id, count(b.customer_id) as n from customers a left join customers b on a.name = b.name group by a.customer_id")
	if got := queryOne[int](t, c, "select count(*) from made2"); fmt.Sprint(got) != strings.Fields(want)[0] {
		t.Errorf("inside the transaction it holds %d", got)
	}
	mustExec(t, c, "rollback")
	for sql, code := range map[string]string{
		"create table made2 as select 1 / (customer_id - customer_id) from customers": "22012", "create table made as select customer_id from customers": "42P07",
		"create table made2 (a, b) as select customer_id from customers": "42601", "create materialized view made2 as select * from customers": "0A000",
		"select * into made2 from customers where customer_id = 5": "0A000",
	} {
		_, err := c.Exec(t.Context(), sql)
		wantCode(t, err, code)
	}
	mustExec(t, c, "create table if not exists made as select customer_id from customers")
	mustExec(t, c, "create table made2 as select * from customers with no data")
	mustExec(t, c, "create table made3 as select * from countries")
	if n := queryOne[int](t, c, "select (select count(*) from made2) + (select count(*) from made3) - (select count(*) from countries)"); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// What runs on every shard tells its client what home reports, once.
func TestNoticesOfDefinitionsComeOnce(t *testing.T) {
	t.Parallel()
	d, plain := schemesWorld(t, "noticed")
	for _, sql := range []string{
		"create table rows_ (k int primary key, v text)", "create table codes (code text primary key)",
	} {
		mustExec(t, plain, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN noticed KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE noticed.public.rows_ IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE noticed.public.codes AS REFERENCE")
	cfg := plain.Config().Copy()
	var heard []string
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { heard = append(heard, n.Message) }
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(t.Context()) }()
	for _, x := range []struct{ sql, want string }{
		{"create schema if not exists public", `schema "public" already exists, skipping`},
		{"alter table codes drop column if exists nothing", `column "nothing" of relation "codes" does not exist, skipping`},
		{"drop type if exists nothing", `type "nothing" does not exist, skipping`},
		{"alter table rows_ drop column if exists nothing", `column "nothing" of relation "rows_" does not exist, skipping`},
		{"create index if not exists rows__pkey on rows_ (v)", `relation "rows__pkey" already exists, skipping`},
		{"create index concurrently if not exists rows__pkey on rows_ (v)", `relation "rows__pkey" already exists, skipping`},
		{"begin; create schema if not exists public; rollback", `schema "public" already exists, skipping`},
		{"create function gone() returns int language sql as 'select 1'", ""},
		{"drop function if exists gone(), gone2()", "function gone2() does not exist, skipping"},
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			if mode == pgx.QueryExecModeExec && (strings.Contains(x.sql, "gone") || strings.Contains(x.sql, "; ")) {
				continue
			}
			heard = nil
			if _, err := c.Exec(t.Context(), x.sql, mode); err != nil {
				t.Fatal(x.sql, err)
			}
			if got := strings.Join(heard, "; "); got != x.want {
				t.Errorf("%s (%s) told %q, want %q", x.sql, mode, got, x.want)
			}
		}
	}
}
