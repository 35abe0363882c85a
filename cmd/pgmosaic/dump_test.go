package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	showcase "github.com/pgmosaic/pgmosaic/proxy/demo"
)

// pg_dump through the proxy sees the whole database, and what it wrote goes in through the proxy again.
func TestDumpAndRestore(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, Customers: 200, Orders: 300})
	c := connectTo(t, d.shopDSN())
	mustExec(t, c, "create type dumped_mood as enum ('a', 'b')")
	mustExec(t, c, "alter table customers add column mood dumped_mood default 'b'")
	const sum = "select count(*) || ' ' || sum(hashtext(x::text)) from (select * from customers) x"
	want := queryOne[string](t, c, sum)
	run := func(stdin, name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, append(args, d.shopDSN())...)
		cmd.Stdin, cmd.Env = strings.NewReader(stdin), append(os.Environ(), "PGOPTIONS=-c pgmosaic.multi_shard_isolation=per_shard")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	dump := run("", "pg_dump", "--exclude-schema=pgmosaic", "--data-only")
	schema := run("", "pg_dump", "--exclude-schema=pgmosaic", "--schema-only")
	for _, w := range []string{"CREATE TABLE public.customers", "CREATE TYPE public.dumped_mood", "CREATE TABLE public.orders"} {
		if !strings.Contains(schema, w) {
			t.Errorf("%q is missing in the schema's dump", w)
		}
	}
	eventually(t, "every table is empty", func() bool { // those that are referred to come last
		left := 0
		for _, table := range queryOne[[]string](t, c, "select array_agg(relname::text) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace") {
			if _, err := c.Exec(t.Context(), "delete from "+table); err != nil {
				left++
			}
		}
		return left == 0
	})
	run(dump, "psql", "-q", "-v", "ON_ERROR_STOP=1", "-1")
	if got := queryOne[string](t, c, sum); got != want || strings.HasPrefix(got, "0") {
		t.Errorf("restored: %s, want %s", got, want)
	}
}

// withoutOurs is what docs/compatibility.md says to run on a plain PostgreSQL between a dump's definitions and its rows.
const withoutOurs = "do $$ declare t text; begin for t in select conrelid::regclass from pg_constraint where conname = 'pgmosaic_slot' and coninhcount = 0 loop execute 'alter table ' || t || ' drop constraint pgmosaic_slot'; end loop; end $$"

// What pg_dump took through the proxy goes into one plain PostgreSQL, all of it, by the steps that the documentation has; and what
// it took from there goes through the proxy: into an empty database as a whole, and into tables that are distributed as rows.
func TestDumpsGoBothWays(t *testing.T) {
	t.Parallel()
	d := newDemo(t, showcase.Options{Shards: 2, Replicas: 0, Customers: 200, Orders: 300})
	node := d.cluster.Node("s1-a")
	run := func(stdin, name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), client(t, name), args...)
		cmd.Stdin, cmd.Env = strings.NewReader(stdin), append(os.Environ(), "PGOPTIONS=-c pgmosaic.multi_shard_isolation=per_shard")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%.2000s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	load := func(sql, dsn string) { t.Helper(); run(sql, "psql", "-q", "-v", "ON_ERROR_STOP=1", "-1", dsn) }
	c := connectTo(t, d.shopDSN())
	tables := queryOne[[]string](t, c, "select array_agg(relname::text order by relname) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace")
	sums := func(dsn string) (out []string) {
		t.Helper()
		c := connectTo(t, dsn)
		for _, n := range tables {
			out = append(out, n+" "+queryOne[string](t, c, "select count(*) || ' ' || coalesce(sum(hashtext(x::text)), 0) from (select * from "+n+") x"))
		}
		return out
	}
	same := func(what, dsn string, want []string) {
		t.Helper()
		if got := sums(dsn); strings.Join(got, ", ") != strings.Join(want, ", ") {
			t.Errorf("%s:\n%s, want\n%s", what, strings.Join(got, ", "), strings.Join(want, ", "))
		}
	}
	want := sums(d.shopDSN())
	file := filepath.Join(t.TempDir(), "shop.dump")
	run("", "pg_dump", "--exclude-schema=pgmosaic", "--format=custom", "--file="+file, d.shopDSN())
	section := func(name string) string {
		return run("", "pg_restore", "--section="+name, "--no-owner", "--file=-", file)
	}
	freshDatabase(t, node, "plain")
	plain := node.DSN("plain")
	load(section("pre-data"), plain)
	load(withoutOurs, plain)
	load(section("data"), plain)
	var after []string
	for _, line := range strings.Split(section("post-data"), "\n") {
		if !strings.Contains(line, "pgmosaic_copy") {
			after = append(after, line)
		}
	}
	load(strings.Join(after, "\n"), plain)
	same("on a plain PostgreSQL", plain, want)
	if n := queryOne[int](t, connectTo(t, plain), "select count(*) from pg_constraint where conname = 'pgmosaic_slot'") + queryOne[int](t, connectTo(t, plain), "select count(*) from pg_trigger where tgname = 'pgmosaic_copy'"); n != 0 {
		t.Errorf("%d things of ours are left there", n)
	}

	d.adminExec(t, "CREATE DATABASE returned")
	for i, n := range []string{"s1-a", "s2-a"} {
		freshDatabase(t, d.cluster.Node(n), "returned")
		d.adminExec(t, "CREATE SHARD r"+itoa(i)+" IN returned NODE '"+d.cluster.Node(n).DSN("returned")+"' NAME rn"+itoa(i))
	}
	whole := run("", "pg_dump", "--no-owner", plain)
	returned := dsnFor("app", "app", d.Server.Addr(), "returned")
	load(whole, returned)
	same("through the proxy, as a whole", returned, want)
	rows := run("", "pg_dump", "--data-only", plain)
	eventually(t, "every table is empty", func() bool { // those that are referred to come last
		left := 0
		for _, table := range tables {
			if _, err := c.Exec(t.Context(), "delete from "+table); err != nil {
				left++
			}
		}
		return left == 0
	})
	load(rows, d.shopDSN())
	same("through the proxy, into tables that are distributed", d.shopDSN(), want)
}
