package main

import (
	"testing"
)

// What runs as a table's owner finds the schema that was made for it closed, though the owner has the database: it makes nothing there, and
// takes nothing out, renames or gives away nothing of it. The schema is gone with the statement.
func TestAnOwnersCodeHasNothingOfThePlaceMadeForIt(t *testing.T) {
	t.Parallel()
	d, nodes := modestWorld(t, "ownplace")
	for _, c := range nodes {
		mustExec(t, c, "create table seen (what text); alter table seen owner to app; alter default privileges for role ownplace_proxy grant usage on schemas to app")
	}
	mustExec(t, nodes[0], `set role app; create function tries(int) returns bool language plpgsql as $$ declare s text; q text; begin
	  for s in select nspname from pg_catalog.pg_namespace where nspname ~ '^pgmosaic_' loop
	    foreach q in array array['grant create on schema %I to app', 'create table %I.mine (a int)', 'create function %I.mine() returns int language sql as ''select 1''', 'alter schema %I rename to mine', 'alter schema %I owner to app', 'drop schema %I cascade', 'alter table public.seen set schema %I',
	      'set role ownplace_proxy', 'reset role', 'set session authorization ownplace_proxy'] loop
	      begin
	        execute replace(q, '%I', pg_catalog.quote_ident(s)); insert into public.seen values ('done: ' || q);
	      exception when others then insert into public.seen values (sqlstate);
	      end;
	    end loop;
	  end loop; return true; end $$;
	  create table slow (k int primary key, v int check (tries(v))); insert into slow select g, g from generate_series(1, 20) g`)
	d.adminExec(t, "CREATE GROUP g IN ownplace KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE ownplace.public.slow IN GROUP g KEY (k)")
	if rows := d.adminExec(t, "VERIFY TABLE ownplace.public.slow"); len(rows) != 0 {
		t.Errorf("VERIFY: %v", rows)
	}
	const warned = "done: grant create on schema %I to app" // to who has some right, PostgreSQL says only in a warning that nothing was given
	for i, c := range nodes {
		seen := queryOne[string](t, c, "select coalesce(string_agg(distinct what, ', ' order by what), '') from seen")
		if n := queryOne[int](t, c, "select count(*) from seen where what ~ '^done' and what <> $1", warned); n > 0 {
			t.Errorf("shard %d: the owner's code has %s", i, seen)
		}
		if left := queryOne[string](t, c, "select coalesce(string_agg(nspname, ', '), '') from pg_namespace where nspname ~ '^pgmosaic_|mine'"); left != "" {
			t.Errorf("shard %d: schemas %s are left", i, left)
		}
	}
	if n := queryOne[int](t, nodes[1], "select count(*) from seen"); n == 0 {
		t.Error("the code has seen no such schema: nothing was tried")
	}
}
