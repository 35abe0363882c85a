package main

import (
	"testing"
)

// formsOf is what copies of tables are beside what VERIFY SCHEMA has always compared.
const formsOf = `select string_agg(concat_ws(' ', c.relname, (select amname from pg_am where oid = c.relam), c.reloptions, o.reloptions, c.reloftype::regtype, c.relacl,
   (select string_agg(tgname || tgenabled::text, ',' order by tgname) from pg_trigger where tgrelid = c.oid and not tgisinternal), (select string_agg(attname || attnotnull, ',' order by attnum) from pg_attribute where attrelid = c.oid and attnum > 0)), E'\n' order by c.relname)
 from pg_class c left join pg_class o on o.oid = c.reltoastrelid where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')`

// What is set for one partition alone, for what a table keeps apart, or by an owner against himself, copies have, too.
func TestCopiesHaveWhatOnlyAPartOfATableHas(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "forms")
	home := d.on(t, "forms", 0)
	for _, sql := range []string{
		"create table parted (k int not null, v text, w text) partition by range (k)",
		"create table parted_1 partition of parted for values from (0) to (100)",
		"create table parted_2 partition of parted for values from (100) to (200)",
		"alter table parted_1 alter v set not null",
		"create function pass() returns trigger language plpgsql as 'begin return new; end'",
		"create trigger pass before insert on parted for each row execute function pass()",
		"alter table parted disable trigger pass", "alter table parted_1 enable trigger pass",
		"insert into parted select i, 'v' from generate_series(1, 150) i",
		"create table toasted (k int primary key, v text) with (toast.autovacuum_enabled = false, fillfactor = 50)",
		"create table kept (k int primary key, v text)", "revoke update, delete on kept from app", "grant select on kept to public",
		"create type form as (k int, v text)", "create table typed of form (primary key (k))",
	} {
		mustExec(t, c, sql)
	}
	mustExec(t, home, "create access method heap2 type table handler heap_tableam_handler; create table other (k int primary key) using heap2; alter table other owner to app")
	d.adminExec(t, "CREATE GROUP g IN forms KEY (int) BY HASH")
	for _, n := range []string{"parted", "toasted", "kept", "typed", "other"} {
		d.adminExec(t, "DISTRIBUTE TABLE forms.public."+n+" IN GROUP g KEY (k)")
	}
	want := queryOne[string](t, home, formsOf)
	for i := 1; i < 3; i++ {
		if is := queryOne[string](t, d.on(t, "forms", i), formsOf); is != want {
			t.Errorf("home has\n%s\nshard %d\n%s", want, i, is)
		}
	}
	if rows := d.adminExec(t, "VERIFY SCHEMA IN forms"); len(rows) > 0 {
		t.Errorf("VERIFY SCHEMA: %v", rows)
	}
	// A type's table gets its type's attributes, on all shards.
	mustExec(t, c, "alter type form add attribute x int cascade")
	mustExec(t, c, "insert into typed select i, 'v', i from generate_series(1, 20) i")
	if n := queryOne[int](t, c, "select count(x) from typed"); n != 20 {
		t.Errorf("%d of 20 rows have the new attribute", n)
	}
	// What a copy has not is told of.
	shard := d.on(t, "forms", 1)
	mustExec(t, shard, "alter table toasted set (toast.autovacuum_enabled = true); alter table typed not of")
	if rows := d.adminExec(t, "VERIFY SCHEMA IN forms"); len(rows) != 2 {
		t.Errorf("VERIFY SCHEMA: %v", rows)
	}
	mustExec(t, c, "create table ruled (k int) partition by range (k)")
	mustExec(t, c, "create table ruled_1 partition of ruled for values from (0) to (100)")
	mustExec(t, c, "create rule off as on insert to ruled_1 do instead nothing")
	d.adminFails(t, "DISTRIBUTE TABLE forms.public.ruled IN GROUP g KEY (k)", "0A000", "it has rules")
	mustExec(t, c, "drop rule off on ruled_1")
	mustExec(t, c, "create unique index ruled_k on only ruled (k)")
	mustExec(t, c, "insert into ruled values (1), (1)")
	d.adminFails(t, "DISTRIBUTE TABLE forms.public.ruled IN GROUP g KEY (k)", "55000", "index public.ruled_k of table public.ruled is not on all of its partitions")
	mustExec(t, c, "drop index ruled_k")
	d.adminExec(t, "DISTRIBUTE TABLE forms.public.ruled IN GROUP g KEY (k)")
}

// Constraints that are put off to the end of a transaction are judged when the rows have moved: what follows defines something of the table.
func TestTablesMoveWithConstraintsThatArePutOff(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "putoff")
	for _, sql := range []string{
		"create table words (id int primary key)", "insert into words select generate_series(1, 10)",
		"create table said (k int primary key, w int references words deferrable initially deferred, t text)",
		"create function touch() returns trigger language plpgsql as 'begin new.t := tg_op; return new; end'",
		"create trigger touch before insert or update on said for each row execute function touch()",
		"insert into said select i, i % 10 + 1 from generate_series(1, 50) i",
		"create table tree (k int, id int, up int, primary key (k, id), foreign key (k, up) references tree deferrable initially deferred)",
		"insert into tree select i, n, nullif(n - 1, 0) from generate_series(1, 50) i, generate_series(1, 2) n",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "CREATE GROUP g IN putoff KEY (int) BY HASH")
	for _, sql := range []string{
		"DISTRIBUTE TABLE putoff.public.words AS REFERENCE", "DISTRIBUTE TABLE putoff.public.said IN GROUP g KEY (k)", "DISTRIBUTE TABLE putoff.public.tree IN GROUP g KEY (k)",
		"UNDISTRIBUTE TABLE putoff.public.said", "UNDISTRIBUTE TABLE putoff.public.tree",
	} {
		d.adminExec(t, sql)
		for sql, want := range map[string]int{"select count(*) from said where w is not null": 50, "select count(*) from tree": 100} {
			if n := queryOne[int](t, c, sql); n != want {
				t.Errorf("%s: %d, want %d", sql, n, want)
			}
		}
	}
	const deferred = "select string_agg(conname || condeferred, ', ' order by conname) from pg_constraint where contype = 'f'"
	if s := queryOne[string](t, c, deferred); s != "said_w_fkeytrue, tree_k_up_fkeytrue" {
		t.Errorf("the keys are %s", s)
	}
}
