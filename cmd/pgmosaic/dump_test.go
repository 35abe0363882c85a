package main

import (
	"os"
	"os/exec"
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
