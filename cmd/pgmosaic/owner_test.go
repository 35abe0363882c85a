package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

type hostileTable struct{ name, sql string }

// hostile are tables of app's that run code of app's when rows are written, and some when a query is only planned. Each has the columns
// id and v.
var hostile = []hostileTable{
	{"indexed", "create table priv.indexed (id int primary key, v int); create index on priv.indexed (code.f(v))"},
	{"constant", "create table priv.constant (id int primary key, v int); create index on priv.constant ((v + code.f(7)))"},
	{"partial", "create table priv.partial (id int primary key, v int); create index on priv.partial (v) where code.f(v) > 0"},
	{"checked", "create table priv.checked (id int primary key, v int check (code.f(v) > 0), check (v < 100 + code.f(7)))"},
	{"generated", "create table priv.generated (id int primary key, v int, g int generated always as (code.f(v)) stored, h int generated always as (v + code.f(7)) stored)"},
	{"bounded", "create table priv.bounded (id int primary key, v code.positive)"},
	{"listed", "create table priv.listed (id int primary key, v int, l code.positive[] default '{1,2}')"},
	{"composed", "create table priv.composed (id int primary key, v int, p code.pair default '(1,2)', q code.pair[] default array['(1,2)'::code.pair])"},
	{"converted", "create table priv.converted (id int primary key, v int, s code.single default '(3)'); create index on priv.converted ((s::int))"},
	{"texts", "create table priv.texts (id int primary key, v int, w code.mood default 'good')"},
	{"operated", "create table priv.operated (id int primary key, v int); create index on priv.operated ((v operator(code.+) 1))"},
	{"parted", "create table priv.parted (id int, v int) partition by range (code.f(v), id); create table priv.parted_1 partition of priv.parted for values from (minvalue, minvalue) to (maxvalue, maxvalue)"},
	{"folded", "create table priv.folded (id int, v int) partition by range ((v + code.f(7))); create table priv.folded_1 partition of priv.folded for values from (minvalue) to (maxvalue)"},
	{"bounds", "create table priv.bounds (id int, v code.positive) partition by range (v); create table priv.bounds_1 partition of priv.bounds for values from (1) to (1000)"},
	{"described", "create table priv.described (id int primary key, v int); create statistics priv.described_stat on (code.f(v)), v from priv.described; create statistics priv.described_const on (v + code.f(7)), v from priv.described"},
	{"excluded", "create table priv.excluded (id int primary key, v int, exclude using btree (id with =, code.f(v) with =))"},
	{"watched", "create table priv.watched (id int primary key, v int); create trigger t before insert or delete on priv.watched for each row execute function code.t(); " +
		"create constraint trigger d after insert or delete on priv.watched deferrable initially deferred for each row execute function code.t()"},
	{"forced", "create table priv.forced (id int primary key, v int check (code.f(v) > 0)); alter table priv.forced enable row level security; alter table priv.forced force row level security; create policy p on priv.forced using (true)"},
	{"emptied", "create table priv.emptied (id int primary key, v int); create trigger t before truncate on priv.emptied execute function code.t(); create trigger u after truncate on priv.emptied execute function code.t()"},
	{"seen", "create table priv.seen (id int, v int) partition by range (id); create table priv.seen_1 partition of priv.seen for values from (minvalue) to (maxvalue); " +
		"create trigger t before insert or delete on priv.seen_1 for each row execute function code.t(); " +
		"create constraint trigger d after insert or delete on priv.seen_1 deferrable initially deferred for each row execute function code.t()"},
	{"queried", "create table priv.queried (id int primary key, v int check (query_to_xml('select code.f(1)', false, false, '') is not null))"},
	{"drawn", "create table priv.drawn (id int primary key, v int check (random() < 2 and current_user = 'app'))"}, // whoever else writes a row is refused
	{"plain", "create table priv.plain (id int primary key, v int)"},
}

// climb is what their code does: it becomes whoever it can be, and makes app a superuser.
const climb = `create function code.go() returns void language plpgsql as $$ begin
	begin reset role; exception when others then null; end;
	begin set session authorization default; exception when others then null; end;
	begin set role postgres; exception when others then null; end;
	begin alter role app superuser; exception when others then null; end;
	begin perform set_config('search_path', 'code', false), set_config('datestyle', 'SQL, DMY', false); exception when others then null; end;
	begin create temporary table pgmosaic_keys (id int); exception when others then null; end;
	begin perform code.wait(); exception when others then null; end;
end $$;
create function code.wait() returns void language plpgsql as $$ declare r oid; begin -- for whoever reads the answer
	for r in select oid from pg_class where relkind = 'm' and relname ~ '^as_owner_' loop
		execute format('create statistics code.s%s on (length(answer) + code.f(7)), answer from %s', r, r::regclass);
	end loop;
end $$;
create function code.put() returns void language plpgsql as $$ begin insert into code.later values (1); exception when others then null; end $$;
create function code.f(int) returns int language plpgsql immutable as $$ begin perform code.go(), code.put(); return $1; end $$;
create function code.t() returns trigger language plpgsql as $$ begin perform code.go(); return coalesce(new, old); end $$;
create table code.later (n int); create constraint trigger d after insert on code.later deferrable initially deferred for each row execute function code.t();
create type code.mood as enum ('good', 'bad'); create function code.said(code.mood) returns text language plpgsql immutable as $$ begin perform code.go(); return 'well'; end $$; create cast (code.mood as text) with function code.said(code.mood) as assignment;
create type code.single as (a int); create function code.number(code.single) returns int language sql immutable as 'select code.f($1.a)'; create cast (code.single as int) with function code.number(code.single);
create function code.plus(int, int) returns int language sql immutable as 'select code.f($1) + $2'; create operator code.+ (leftarg = int, rightarg = int, function = code.plus);`

// The owner of a table does not become more than it is when an admin statement moves, copies or looks at the table, whatever code
// the table brings along.
func TestAdminStatementsRunNothingOfATablesOwner(t *testing.T) {
	t.Parallel()
	runNothingOfTheOwner(t, "hostile1", hostile[:8])
}

func TestAdminStatementsRunNothingOfAPartitionedTablesOwner(t *testing.T) {
	t.Parallel()
	runNothingOfTheOwner(t, "hostile2", hostile[8:16])
}

func TestAdminStatementsRunNothingOfAnOwnersTriggers(t *testing.T) {
	t.Parallel()
	runNothingOfTheOwner(t, "hostile3", append(slices.Clone(hostile[16:]), hostile[1])) // with both tables of a foreign key
}

func runNothingOfTheOwner(t *testing.T, db string, tables []hostileTable) {
	t.Helper()
	d, _ := schemesWorld(t, db)
	d.adminExec(t, "CREATE GROUP g IN "+db+" KEY (int) BY HASH")
	node := d.cluster.Node("s2-a")
	asApp := func(c *pgx.Conn) *pgx.Conn {
		return connectTo(t, strings.Replace(c.Config().ConnString(), "postgres:"+d.cluster.Password, "app:app", 1))
	}
	home := asApp(d.on(t, db, 0))
	mustExec(t, home, "create schema priv")
	for i := range 3 { // operators and casts are not brought along
		mustExec(t, asApp(d.on(t, db, i)), "create schema code; "+climb)
	}
	d.adminExec(t, "ALTER ROUTINE "+db+".code.put SHARD SAFE") // which names a table of home's
	supers := []*pgx.Conn{connectTo(t, d.cluster.Node("s1-a").DSN("postgres")), connectTo(t, node.DSN("postgres"))}
	modest := func(what string) {
		t.Helper()
		for i, c := range supers {
			if queryOne[bool](t, c, "select rolsuper from pg_roles where rolname = 'app'") {
				t.Errorf("app is a superuser on server %d: %s", i+1, what)
				mustExec(t, c, "alter role app nosuperuser")
			}
		}
	}
	mustExec(t, home, "create domain code.positive as int check (code.f(value) > 0); create type code.pair as (a int, b code.positive)")
	var names []string
	for _, x := range tables {
		mustExec(t, home, x.sql)
		mustExec(t, home, fmt.Sprintf("insert into priv.%s (id, v) select i, i from generate_series(1, 30) i", x.name))
		names = append(names, "priv."+x.name)
	}
	modest("by its own statements")
	rows := func(table string) string {
		return queryOne[string](t, home, "select string_agg(x::text, ',' order by id) from "+table+" x")
	}
	want := map[string]string{}
	for _, n := range names {
		want[n] = rows(n)
	}
	do := func(sql string) {
		t.Helper()
		if _, err := d.Admin.Exec(t.Context(), sql, false); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
		modest(sql)
	}
	verify := func(n string) {
		t.Helper()
		if n != "priv.forced" { // no role can read it all but one that may not run its code
			do("VERIFY TABLE " + db + "." + n)
		}
	}
	for _, n := range names {
		do("DISTRIBUTE TABLE " + db + "." + n + " IN GROUP g KEY (id) ALLOW LOCAL UNIQUE")
	}
	for _, n := range names {
		verify(n)
	}
	do("PIN KEY (1000) OF " + db + ".g ON " + db + "_s1")
	do("UNPIN KEY (1000) OF " + db + ".g")
	freshDatabase(t, node, db+"_9")
	mustExec(t, asApp(connectTo(t, node.DSN(db+"_9"))), "create schema code; "+climb)
	do("CREATE SHARD " + db + "_s9 IN " + db + " NODE '" + node.DSN(db+"_9") + "' NAME " + db + "_n9")
	d.adminExec(t, "DROP SHARD "+db+"_s9 IN "+db)
	for _, n := range names {
		do("UNDISTRIBUTE TABLE " + db + "." + n)
		if got := rows(n); got != want[n] {
			t.Errorf("%s came home as %s, not %s", n, got, want[n])
		}
	}
	for _, n := range names {
		do("DISTRIBUTE TABLE " + db + "." + n + " AS REFERENCE")
		for i := range 3 {
			if got := queryOne[string](t, asApp(d.on(t, db, i)), "select string_agg(x::text, ',' order by id) from "+n+" x"); got != want[n] {
				t.Errorf("%s on shard %d is %s, not %s", n, i, got, want[n])
			}
		}
		verify(n)
		do("UNDISTRIBUTE TABLE " + db + "." + n)
	}
	if slices.Contains(names, "priv.plain") {
		do("DISTRIBUTE TABLE " + db + ".priv.constant AS REFERENCE")
		mustExec(t, home, "alter table priv.plain add foreign key (v) references priv.constant")
		modest("by app's own foreign key")
		do("DISTRIBUTE TABLE " + db + ".priv.plain IN GROUP g KEY (id)")
		do("UNDISTRIBUTE TABLE " + db + ".priv.plain")
		do("UNDISTRIBUTE TABLE " + db + ".priv.constant")
	}
	for _, n := range []string{"parted", "folded", "bounds", "seen"} {
		mustExec(t, home, "drop table if exists priv."+n) // partitioned tables do not live in such a schema
	}
	do("DISTRIBUTE SCHEMA " + db + ".priv ON " + db + "_s1")
	do("UNDISTRIBUTE SCHEMA " + db + ".priv")
	for _, n := range names {
		if !strings.Contains("priv.parted priv.folded priv.bounds priv.seen", n) {
			if got := rows(n); got != want[n] {
				t.Errorf("%s came home as %s, not %s", n, got, want[n])
			}
		}
	}
	for i := range 3 {
		if left := queryOne[int](t, d.on(t, db, i), "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'pgmosaic' and c.relname ~ '^(stage|as_owner|changed)_'"); left != 0 {
			t.Errorf("%d things are left in schema pgmosaic on shard %d", left, i)
		}
	}
}

// The copies of a table in use are the proxy's own until the table has moved: its owner can put nothing on them that the next rows
// would run, whatever default privileges say. In the end they are like home's.
func TestCopiesOfATableInUseAreNobodysElse(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "nobodys")
	mustExec(t, c, "create table busy (id int primary key, v int); insert into busy select i, i from generate_series(1, 100) i; grant select on busy to public")
	d.adminExec(t, "CREATE GROUP g IN nobodys KEY (int) BY HASH")
	copied := d.on(t, "nobodys", 1)
	mustExec(t, copied, "alter default privileges for role postgres grant all on tables to app")
	hold, err := d.on(t, "nobodys", 2).Begin(t.Context()) // a table of that name, not yet committed: the last copy waits for it
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hold.Exec(t.Context(), "create table busy (id int)"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin.Exec(t.Context(), "DISTRIBUTE TABLE nobodys.public.busy IN GROUP g KEY (id)", false)
		done <- err
	}()
	eventually(t, "a copy is made", func() bool { return queryOne[bool](t, copied, "select to_regclass('busy') is not null") })
	const rights = "select pg_get_userbyid(relowner) || ' ' || coalesce(array_to_string(relacl, ' '), '') from pg_class where oid = 'busy'::regclass"
	if got := queryOne[string](t, copied, rights); got != "postgres postgres=arwdDxt/postgres" && got != "postgres " {
		t.Errorf("the copy is open to others: %s", got)
	}
	if err := hold.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, want := queryOne[string](t, copied, rights), queryOne[string](t, d.on(t, "nobodys", 0), rights); got != want {
		t.Errorf("the copy's rights are %s, home's %s", got, want)
	}
}
