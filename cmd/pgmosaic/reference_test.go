package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// copiesOf are the rows of a table on each of a database's shards, as one text each.
func copiesOf(t *testing.T, d *demo, database, table string) (out []string) {
	t.Helper()
	for i := range d.Catalog.Current().Databases[database].Shards {
		out = append(out, queryOne[string](t, d.on(t, database, i), "select coalesce(string_agg(x::text, E'\n' order by x::text), '') from "+table+" x"))
	}
	return out
}

// Whatever a statement leaves to the server to make up is made up once: the copies of a reference table stay equal.
func TestCopiesGetTheSameValues(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "alike")
	mustExec(t, c, "create domain stamp as timestamptz default clock_timestamp()")
	mustExec(t, c, "create function code() returns text language sql volatile as $$select 'c' || floor(random() * 1e9)$$")
	mustExec(t, c, "create table items (id uuid primary key default gen_random_uuid(), name text, dice float8 default random(), at timestamptz default now(), day date default current_date, "+
		"clock timestamptz default clock_timestamp(), st stamp, code text default code(), fixed int default 7, doubled int generated always as (fixed * 2) stored)")
	mustExec(t, c, "create table home (name text)")
	mustExec(t, c, "insert into home select 'h' || i from generate_series(1, 5) i")
	mustExec(t, c, "create table spread (k int primary key, name text)")
	mustExec(t, c, "insert into spread select i, 's' || i from generate_series(1, 9) i")
	mustExec(t, c, "insert into items (name) values ('before')")
	d.adminExec(t, "CREATE GROUP g IN alike KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE alike.public.spread IN GROUP g KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE alike.public.items AS REFERENCE")
	equal := func(what string, rows int) {
		t.Helper()
		all := copiesOf(t, d, "alike", "items")
		for i, s := range all[1:] {
			if s != all[0] {
				t.Fatalf("%s: shard %d holds\n%s\nhome\n%s", what, i+1, s, all[0])
			}
		}
		if n := strings.Count(all[0], "\n") + 1; n != rows {
			t.Errorf("%s: %d rows, want %d", what, n, rows)
		}
	}
	equal("DISTRIBUTE", 1)
	rows := 1
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec} {
		for _, x := range []struct {
			sql  string
			args []any
			adds int
		}{
			{"insert into items (name) values ($1)", []any{"one"}, 1},
			{"insert into items (name) values ($1), ('second') returning id, dice, at, clock", []any{"first"}, 2},
			{"insert into items values (default, $1, default, default, default, default, default)", []any{"defaults"}, 1},
			{"insert into items values (gen_random_uuid(), $1)", []any{"short"}, 1},
			{"insert into items default values", nil, 1},
			{"insert into items (id, name, dice, at, day) values (gen_random_uuid(), upper($1), random() * 100, now() - interval '1 day', current_date + 1)", []any{"calls"}, 1},
			{"insert into items (name, at, code) values ($1, current_timestamp(2), code()) on conflict (id) do update set at = now()", []any{"conflict"}, 1},
			{"insert into items (name) select name || $1 from home", []any{"!"}, 5},
			{"insert into items (name, dice) select name, random() from spread where name <> $1", []any{""}, 9},
			{"update items set at = now(), day = current_date, name = name || $1 where at <= now()", []any{"u"}, 0},
			{"update items set at = default, fixed = default where name like $1", []any{"one%"}, 0},
			{"delete from items where at > now() + interval '1 day' and name = $1", []any{"x"}, 0},
		} {
			rows += x.adds
			tag, err := c.Exec(t.Context(), x.sql, append([]any{mode}, x.args...)...)
			if err != nil {
				t.Fatalf("%s (%s): %v", x.sql, mode, err)
			}
			if x.adds > 0 && tag.RowsAffected() != int64(x.adds) {
				t.Errorf("%s (%s): %s", x.sql, mode, tag)
			}
			equal(fmt.Sprintf("%s (%s)", x.sql, mode), rows)
		}
	}
	for _, x := range []struct{ sql, data string }{
		{"copy items (name) from stdin", "a\nb\nc\n"}, {"copy public.items (fixed, name) from stdin (format csv, header)", "n,from\n1,a\n2,\"b, c\"\n3,d\n"},
	} {
		tag, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(x.data), x.sql)
		if err != nil || tag.String() != "COPY 3" {
			t.Fatalf("%s: %s, %v", x.sql, tag, err)
		}
		rows += 3
		equal(x.sql, rows)
	}
	if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("x\ty\n"), "copy items (name) from stdin"); pgCode(err) != "22P04" {
		t.Errorf("a COPY with a bad row: %v", err)
	}
	mustExec(t, c, "begin")
	first := queryOne[string](t, c, "insert into items (name) values ('tx') returning at::text")
	if second := queryOne[string](t, c, "insert into items (name) values ('tx') returning at::text"); second != first {
		t.Errorf("now() in one transaction is %s, then %s", first, second)
	}
	mustExec(t, c, "savepoint s")
	mustExec(t, c, "insert into items (name) values ('gone')")
	mustExec(t, c, "rollback to s")
	mustExec(t, c, "commit")
	rows += 2
	equal("a transaction", rows)
	many := make([]string, 500)
	for i := range many {
		many[i] = fmt.Sprintf("('m%d', random())", i)
	}
	mustExec(t, c, "insert into items (name, dice) values "+strings.Join(many, ", "))
	rows += len(many)
	equal("many rows", rows)
	if n := queryOne[int](t, c, "select count(distinct dice) from items where name like 'm%'"); n < 499 {
		t.Errorf("%d values of random() in 500 rows", n)
	}
	mustExec(t, c, "prepare p (text) as insert into items (name) values ($1)")
	mustExec(t, c, "execute p('prepared')")
	mustExec(t, c, "insert into items (name) values ('a'); insert into items (name) values ('b'), ('c')", pgx.QueryExecModeSimpleProtocol)
	b := &pgx.Batch{}
	for i := range 4 {
		b.Queue("insert into items (name) values ($1)", fmt.Sprint("batch ", i))
		b.Queue("update items set at = now() where name = $1", fmt.Sprint("batch ", i))
	}
	if err := c.SendBatch(t.Context(), b).Close(); err != nil {
		t.Error(err)
	}
	rows += 8
	equal("prepared, several, a pipeline", rows)
	mustExec(t, c, "create schema mine; create function mine.now() returns timestamptz language sql immutable as $$select timestamptz '2000-01-01 00:00:00+00'$$; create function mine.random() returns float8 language sql immutable as 'select 7::float8'", pgx.QueryExecModeSimpleProtocol)
	mustExec(t, c, "set search_path = mine, public, pg_catalog")
	mustExec(t, c, "insert into items (name, day) values ('path', mine.now())")
	mustExec(t, c, "insert into items (name) select 'path' from home limit 1")
	if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("path\n"), "copy items (name) from stdin"); err != nil {
		t.Fatal(err)
	}
	rows += 3
	equal("another search_path", rows)
	if n := queryOne[int](t, c, "select count(*) from items where name = 'path' and at > '2001-01-01' and dice < 1"); n != 3 {
		t.Errorf("%d of 3 rows have what the table's own defaults give", n)
	}
	if s := queryOne[string](t, c, "select current_setting('search_path')"); s != "mine, public, pg_catalog" {
		t.Errorf("search_path is %s", s)
	}
	mustExec(t, c, "reset search_path")
	for sql, code := range map[string]string{
		"update items set dice = random()": "0A000", "update items set id = default": "0A000", "insert into items (name, at) values ('x', 'now')": "0A000", "update items set at = 'today'::timestamptz": "0A000",
		"alter table items add column k uuid default gen_random_uuid()": "0A000", "alter table items add column k timestamptz default now()": "0A000",
		"alter table items alter column name type text using name || random()": "0A000", "insert into items (name, dice) values ('x', 1 / (random() * 0))": "22012",
		"insert into items (name) values ('x') returning random()": "0A000", "delete from items where dice > random()": "0A000", "alter table items add column n bigserial": "0A000",
	} {
		_, err := c.Exec(t.Context(), sql)
		wantCode(t, err, code)
	}
	_, err := c.Exec(t.Context(), "insert into items (name, at) values ('x', $1)", pgx.QueryExecModeExec, "now")
	wantCode(t, err, "0A000")
	mustExec(t, c, "alter table items add column k text default 'k', alter column fixed set default 8, alter column name set default gen_random_uuid()::text")
	mustExec(t, c, "insert into items (code) values ('altered')")
	equal("definitions", rows+1)
}

// What has another value on each copy is refused, or made up once, wherever it hides: VERIFY finds the copies alike after all of it.
func TestCopiesStayAlike(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "likewise")
	for _, sql := range []string{
		"create domain stamp as timestamptz default clock_timestamp()", "create function dice(a int, b int) returns int language plpgsql as $$ begin return random() * 1e9; end $$",
		"create function fair(a int, b int) returns int immutable language sql as 'select a + b'", "create function lying() returns float8 immutable language sql as 'select random()'", "create function slug(a text) returns text immutable language sql as 'select lower(a)'",
		"create operator <+> (function = dice, leftarg = int, rightarg = int)", "create operator <*> (function = fair, leftarg = int, rightarg = int)",
		"create table kinds (k int primary key, name text)", "create table things (k int primary key, kind int default (random() * 1e9)::int references kinds on delete set default, name text, at timestamptz, day date, days date[], span tstzrange, i int)",
		"create table pets (k int primary key, kind int default 1 references kinds on delete set default, name text)", "insert into kinds values (1, 'now'), (2, 'b'), (3, 'c')",
		"create table loose (k int, kind int references kinds on delete cascade, name text)",
	} {
		mustExec(t, c, sql)
	}
	for _, n := range []string{"kinds", "things", "pets", "loose"} {
		d.adminExec(t, "DISTRIBUTE TABLE likewise.public."+n+" AS REFERENCE")
	}
	alike := func(what string, tables ...string) {
		t.Helper()
		for _, n := range tables {
			if rows := d.adminExec(t, "VERIFY TABLE likewise.public."+n); len(rows) > 0 {
				t.Fatalf("%s: %s differs: %v", what, n, rows)
			}
		}
	}
	for _, x := range []struct {
		sql string
		may bool // else it is refused
	}{
		{"insert into things (k, kind, name, i) values (1, 1, 'today is fine', 1), (2, 2, 'now', 2), (3, 2, null, 3)", true},
		{"update things set i = i <*> 1", true},
		{"update things set name = slug(name)", true},
		{"insert into loose values (1, 2, 'x')", true},
		{"insert into pets (k, kind) values (1, 2)", true},
		{"insert into things (k, kind, day) values (10, 1, '2020-01-01')", true},
		{"insert into things (k, kind, days) values (11, 1, '{2020-01-01}')", true},
		{"insert into things (k, kind, i) values (12, 1, lying())", true},
		{"update things set day = at::date, at = day::timestamptz where k > 5", true},
		{"delete from loose where k = 1", true},
		{"delete from pets where name = 'now'", true},
		{"update things set i = dice(1, 2)", false},
		{"update things set i = 1 <+> 2", false},
		{"update things set i = i <+> 2", false},
		{"insert into things (k, i) values (20, 1 <+> 2)", false},
		{"delete from things where i <+> 1 > 5", false},
		{"update things set i = lying() * k", true},
		{"delete from kinds where k = 2", false},
		{"update things set i = random()", false},
		{"insert into things (k, at) values (21, 'now')", false},
		{"insert into things (k, at) values (21, ' Today 12:00')", false},
		{"insert into things (k, days) values (21, '{now}')", false},
		{"insert into things (k, span) values (21, '[now,)')", false},
		{"insert into things (k, at) values (21, ('no' || 'w')::timestamptz)", false},
		{"insert into things (k, at) values (21, concat('no', 'w')::timestamptz)", false},
		{"update things set at = name::timestamptz where k = 2", false},
		{"update things set at = 'tomorrow 10:00' where k = 2", false},
		{"update things set at = 'now'::text::timestamptz where k = 2", false},
		{"insert into things (k, name) values (21, 'now'::timestamptz::text)", false},
		{"alter table things add column st stamp", false},
		{"alter table things add column r int default (1 <+> 2)", false},
		{"alter table things alter column i type int using i <+> 1", false},
		{"alter table things add column plain int default (1 <*> 2)", true},
	} {
		_, err := c.Exec(t.Context(), x.sql, pgx.QueryExecModeSimpleProtocol)
		if x.may && err != nil || !x.may && pgCode(err) != "0A000" {
			t.Errorf("%s: %v", x.sql, err)
		}
		if x.may {
			alike(x.sql, "things")
		}
	}
	for _, value := range []string{"now", "yesterday 04:05", "NOW"} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
			if _, err := c.Exec(t.Context(), "insert into things (k, at) values (30, $1::text::timestamptz)", mode, value); pgCode(err) != "0A000" {
				t.Errorf("%s as a parameter: %v", value, err)
			}
		}
	}
	for i, x := range []struct{ sql, data string }{
		{"copy things (k, kind, at, day, name) from stdin", "100\t1\tnow\ttoday\tnow\n101\t1\t2020-01-01\tyesterday\tx\n"}, {"copy things (k, kind, days, span) from stdin (format csv)", "102,1,\"{now,tomorrow}\",\"[today,)\"\n"},
	} {
		if _, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(x.data), x.sql); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		alike(x.sql, "things")
	}
	if n := queryOne[int](t, c, "select count(*) from things where k in (100, 101, 102)"); n != 3 {
		t.Errorf("%d rows copied", n)
	}
	mustExec(t, c, "prepare ins (text) as insert into kinds values (50, $1)")
	mustExec(t, c, "execute ins('today')")
	mustExec(t, c, "insert into things (k, kind, at, name) values ($1, 1, now(), $2)", pgx.QueryExecModeExec, 60, "today is fine")
	alike("all of it", "kinds", "things", "pets", "loose")
	mustExec(t, c, "drop table pets, loose, things, kinds")
}

// GRANT and REVOKE may name tables of every kind: each shard gets what is about its own.
func TestGrantOnTablesOfEveryKind(t *testing.T) {
	t.Parallel()
	d, c := temporaryWorld(t, "granting")
	for _, sql := range []string{"create schema tenant", "create table tenant.things (a int)", `create table "odd, name" (a int)`} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "DISTRIBUTE SCHEMA granting.tenant ON granting_s1")
	may := func(i int, table string) string {
		return queryOne[string](t, d.on(t, "granting", i), `select coalesce((select string_agg(x.privilege_type, ',' order by 1) from pg_class c, aclexplode(c.relacl) x where c.oid = to_regclass($1) and x.grantee = 0), '')`, table)
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		for _, x := range []struct{ sql, want string }{
			{`grant select, insert on table parts, "odd, name", public . codes /* x */, local, tenant.things to public`, "INSERT,SELECT"}, {`revoke all on local, parts, tenant.things, "odd, name", codes from public`, ""},
		} {
			mustExec(t, c, x.sql, mode)
			for table, shards := range map[string][]int{"parts": {0, 1, 2}, "codes": {0, 1, 2}, "local": {0}, `"odd, name"`: {0}, "tenant.things": {0, 1}} {
				for _, i := range shards {
					if got := may(i, table); got != x.want {
						t.Errorf("%s: on shard %d %s has %q", x.sql, i, table, got)
					}
				}
			}
		}
	}
	if _, err := c.Exec(t.Context(), "grant select on parts, nowhere to public"); pgCode(err) != "42P01" {
		t.Errorf("a table that is not there: %v", err)
	}
	if got := may(0, "parts"); got != "" {
		t.Errorf("half of it was done: %s", got)
	}
}
