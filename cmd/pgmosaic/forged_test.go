package main

import "testing"

// What a table's owner puts into the stage of an answer is no answer, and ends nothing but the statement.
func TestAnswersThatATablesOwnerForges(t *testing.T) {
	t.Parallel()
	d, _ := schemesWorld(t, "forged")
	d.adminExec(t, "CREATE GROUP g IN forged KEY (int) BY HASH")
	home := connectTo(t, asRole(d, d.on(t, "forged", 0), "app"))
	mustExec(t, home, `create schema priv; create function priv.g() returns void language plpgsql as $$ declare r oid; begin
		for r in select a.attrelid from pg_attribute a join pg_class c on c.oid = a.attrelid where c.relnamespace = 'pgmosaic'::regnamespace and c.relname ~ '^stage_' and a.attname = 'answer' loop
			execute format('insert into %s values (null)', r::regclass);
		end loop; exception when others then null; end $$;
		create function priv.f(int) returns int language plpgsql immutable as $$ begin perform priv.g(); return $1; end $$;
		create table priv.t (id int primary key, v int, n serial); create statistics priv.s on (v + priv.f(7)), v from priv.t; insert into priv.t select i, i from generate_series(1, 50) i`)
	d.adminFails(t, "DISTRIBUTE TABLE forged.priv.t IN GROUP g KEY (id)", "55000", "code of role \"app\" has written")
	mustExec(t, home, "create or replace function priv.g() returns void language sql as ''")
	d.adminExec(t, "DISTRIBUTE TABLE forged.priv.t IN GROUP g KEY (id)")
}
