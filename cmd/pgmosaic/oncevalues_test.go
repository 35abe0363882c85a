package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// madeUp are values of types whose text is not all of them, or hangs on settings: what makes one, by the name of its column.
var madeUp = []struct{ name, typ, value string }{
	{"char_n", "char(8)", "'abcdefgh'::char(8)"},
	{"char_short", "char(8)", "'ab'::char(8)"},
	{"char_any", "bpchar", "'ab  '::bpchar"},
	{"char_in_text", "text", "'x' || 'ab'::char(4)::text"},
	{"chars", "char(4)[]", "array['abcd', 'e']::char(4)[]"},
	{"one_char", `"char"`, `'x'::"char"`},
	{"name", "name", "'some name'::name"},
	{"varchar_n", "varchar(8)", "'it''s \\ '::varchar(8)"},
	{"bits", "bit(8)", "B'10101010'"},
	{"varbits", "varbit(9)", "B'101'::varbit(9)"},
	{"bit_sets", "bit(3)[]", "array[B'101', B'110']::bit(3)[]"},
	{"stamptz", "timestamptz", "to_timestamp(1700000000.123456)"},
	{"stamptz_n", "timestamptz(2)", "to_timestamp(1700000000.126456)"},
	{"stamp", "timestamp", "make_timestamp(2026, 3, 4, 5, 6, 7.000001)"},
	{"old_stamp", "timestamptz", "make_timestamptz(-44, 3, 4, 5, 6, 7.5, 'UTC')"},
	{"long_ago", "timestamptz", "make_timestamptz(1850, 1, 2, 3, 4, 5, 'UTC')"},
	{"for_ever", "timestamptz", "'infinity'::timestamptz"},
	{"far", "date", "make_date(12345, 2, 3)"},
	{"day", "date", "make_date(2026, 3, 4)"},
	{"days", "date[]", "array[make_date(2026, 3, 4), null]::date[]"},
	{"clock", "time(0)", "make_time(1, 2, 3.6)"},
	{"clocktz", "timetz", "to_timestamp(1700000000.5)::timetz"},
	{"span", "interval", "make_interval(days => -1, mins => 123)"},
	{"span_mixed", "interval", "make_interval(years => 1, months => -14, days => 3, secs => -0.000001)"},
	{"span_minus", "interval", "make_interval(months => -1, days => -2, hours => -3)"},
	{"span_n", "interval(2)", "make_interval(secs => 1.236)"},
	{"spans", "interval[]", "array[make_interval(days => -1, mins => 123)]"},
	{"real", "real", "(1.0::float8 / 3)::real"},
	{"double", "float8", "1.0::float8 / 3"},
	{"minus_zero", "float8", "'-0'::float8"},
	{"no_number", "float8", "'NaN'::float8"},
	{"small", "float8", "5e-324::float8"},
	{"doubles", "float8[]", "array[1.0::float8 / 3, 'NaN']::float8[]"},
	{"numeric_n", "numeric(9,4)", "1.23456::numeric"},
	{"numeric_any", "numeric", "1.5000::numeric"},
	{"point", "point", "point(1.0::float8 / 3, -1.0::float8 / 7)"},
	{"poly", "polygon", "polygon(box(point(0.1, 0.2), point(1.0 / 3, 2)))"},
	{"bytes", "bytea", `decode('005c27ff4e554c4c', 'hex')`},
	{"byte_list", "bytea[]", `array[decode('5c78ff00', 'hex'), decode('61', 'hex')]`},
	{"money", "money", "(-1234.5)::numeric::money"},
	{"moneys", "money[]", "array[1234.5::numeric::money]"},
	{"texts", "text[]", `array['a', 'NULL', '', '"\', 'null', 'b c']`},
	{"grid", "int[]", "'[0:1][2:3]={{1,2},{3,4}}'::int[]"},
	{"none", "text[]", "'{}'::text[]"},
	{"nothing", "text", "null::text"},
	{"xml", "xml", "xmlelement(name a, 'b')"},
	{"xml_parts", "xml", "xmlconcat(xmlelement(name a), xmlelement(name b))"},
	{"xml_list", "xml[]", "array[xmlelement(name a, xmlattributes('1' as b))]"},
	{"json", "json", `' {"a" :  1, "a": 2.50}'::json`},
	{"jsonb", "jsonb", `'{"b": 1.50, "a": [null, "x"]}'::jsonb`},
	{"json_list", "json[]", `array['{"a":  1}']::json[]`},
	{"range", "tstzrange", "tstzrange(to_timestamp(1700000000), null, '(]')"},
	{"ranges", "tstzmultirange", "tstzmultirange(tstzrange(to_timestamp(0), to_timestamp(1)), tstzrange(to_timestamp(5), to_timestamp(6)))"},
	{"numbers", "numrange", "numrange(1.50, null)"},
	{"mood", "odd.mood", "'so so'::odd.mood"},
	{"moods", "odd.mood[]", "array['ok', 'so so']::odd.mood[]"},
	{"code", "odd.code", "'abc'::odd.code"},
	{"doc", "odd.doc", `'{"a": 1}'::odd.doc`},
	{"codes", "odd.code[]", "array['abc', 'd']::odd.code[]"},
	{"pair", "odd.pair", "row(to_timestamp(1700000000), array['a', 'b c'], 'xyz', make_interval(days => -1, mins => 5), 1.0::float8 / 3)::odd.pair"},
	{"pairs", "odd.pair[]", "array[row(null, null, 'xyz', null, null), null]::odd.pair[]"},
	{"empty_pair", "odd.pair", "row(null, null, null, null, null)::odd.pair"},
	{"class", "regclass", "('odd.th' || 'ing')::regclass"},
	{"class_in", "regclass[]", "array[('odd.th' || 'ing')::regclass]"},
	{"type", "regtype", "'odd.mood'::regtype"},
	{"proc", "regprocedure", "'pg_catalog.now()'::regprocedure"},
	{"net", "inet", "'10.1.2.3/32'::inet"},
	{"cidr", "cidr", "'10.1.0.0/16'::cidr"},
	{"words", "tsvector", "'a:1A fat:2,4'::tsvector"},
	{"tag", "odd.tag", "'v'::odd.tag"},
	{"long", "text", "repeat('ab''\\ ' || chr(8364), 3000)"},
	{"big", "numeric", "123456789012345678901234567890.000000000000000000001"},
	{"high", "timestamptz", "make_timestamptz(294276, 12, 31, 23, 59, 59.999999, 'UTC')"},
	{"low", "date", "'-infinity'::date"},
	{"midnight", "time", "'24:00'::time"},
	{"log", "pg_lsn", "'1/2F'::pg_lsn"},
	{"mac", "macaddr8[]", "array['08:00:2b:01:02:03:04:05'::macaddr8]"},
	{"asked", "tsquery", "'fat & (rat | cat:ab*)'::tsquery"},
	{"path", "jsonpath", "'$.a[*] ? (@ > 1.50)'::jsonpath"},
	{"vector", "int2vector", "'1 2'::int2vector"},
	{"role", "regrole", "'app'::regrole"},
	{"circle", "circle", "circle(point(1.0 / 3, 2), 0.1)"},
}

// evaluatedUnder are settings under which texts are written or read in another way.
var evaluatedUnder = []string{
	"select 1", "set datestyle = 'SQL, DMY'; set timezone = 'Asia/Kolkata'", "set datestyle = 'Postgres'; set timezone = 'Asia/Manila'", "set datestyle = 'German'; set timezone = 'Asia/Shanghai'; set extra_float_digits = -10",
	"set intervalstyle = 'sql_standard'; set bytea_output = 'escape'", "set intervalstyle = 'postgres_verbose'; set timezone = '<XX>-3:04'; set datestyle = SQL", "set intervalstyle = 'iso_8601'; set xmloption = document; set extra_float_digits = 0",
	"set quote_all_identifiers = on; set timezone = 'America/New_York'; set datestyle = 'Postgres, DMY'; set extra_float_digits = 3", "set search_path = odd, public", "set search_path = odd, pg_catalog", "set search_path = ''", "set xmlbinary = hex; set timezone = 'Australia/Sydney'; set datestyle = 'SQL, YMD'",
}

// stored is what a table holds, bit for bit: texts under settings of their own, and sizes. In arrays and composites the texts of what is in
// them.
func stored(t *testing.T, c *pgx.Conn, table string) map[string]string {
	t.Helper()
	out := map[string]string{}
	mustExec(t, c, "reset all; set datestyle = 'ISO, YMD'; set timezone = 'UTC'; set intervalstyle = postgres; set extra_float_digits = 3; set search_path = ''", pgx.QueryExecModeSimpleProtocol)
	for _, m := range madeUp {
		more := ""
		switch m.typ {
		case "xml":
			more = " || m." + m.name + "::text"
		case "float8":
			more = " || float8send(m." + m.name + ")::text"
		}
		rows, err := c.Query(t.Context(), fmt.Sprintf("select m.k, case when m.%[1]s is not distinct from null then 'nothing' else format('%%s', m.%[1]s) || ' of ' || pg_column_size(m.%[1]s)%[2]s end from %[3]s m", m.name, more, table))
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var k int
			var v string
			if err := rows.Scan(&k, &v); err != nil {
				t.Fatal(err)
			}
			out[fmt.Sprintf("%s of row %d", m.name, k)] = v
		}
		if rows.Err() != nil {
			t.Fatal(m.name, rows.Err())
		}
	}
	mustExec(t, c, "reset all")
	return out
}

// What is evaluated once is, on every copy, bit for bit what one PostgreSQL stores, whatever settings the client has.
func TestEvaluatedValuesAreThoseOfOnePostgreSQL(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "exact")
	freshDatabase(t, d.cluster.Node("s1-a"), "exact_alone")
	one := connectTo(t, d.cluster.Node("s1-a").DSN("exact_alone"))
	both := func(sql string) {
		t.Helper()
		mustExec(t, one, sql, pgx.QueryExecModeSimpleProtocol)
		mustExec(t, c, sql, pgx.QueryExecModeSimpleProtocol)
	}
	for _, sql := range []string{
		"create schema odd", "create table odd.thing (a int)", "create type odd.mood as enum ('ok', 'so so')", "create domain odd.code as char(4)", "create domain odd.doc as jsonb", "create domain odd.tag as text",
		"create type odd.pair as (at timestamptz, texts text[], code odd.code, span interval, f float8)",
		// what stands under the names of PostgreSQL's own, in a schema that may come first
		`create domain odd.bpchar as text`, `create domain odd."bit" as text`, `create domain odd.interval as text`, `create domain odd.timestamptz as text`,
		"create function odd.format(text, anyelement) returns text immutable language sql as 'select ''wrong''::text'", "create function odd.upper_of(text) returns text immutable language sql as 'select pg_catalog.upper($1)'",
		"create function odd.of_mood(odd.mood) returns text immutable language sql as 'select ''cast''::text'", "create cast (odd.mood as text) with function odd.of_mood(odd.mood) as assignment",
	} {
		both(sql)
	}
	var columns, names, volatile, stable []string
	for _, m := range madeUp {
		both(fmt.Sprintf("create function odd.v_%s() returns %s volatile language plpgsql as $f$ begin return %s; end $f$", m.name, m.typ, m.value))
		both(fmt.Sprintf("create function odd.s_%s() returns %s stable language plpgsql as $f$ begin return %s; end $f$", m.name, m.typ, m.value))
		columns = append(columns, fmt.Sprintf("%s %s default odd.v_%s()", m.name, m.typ, m.name))
		names = append(names, m.name)
		volatile = append(volatile, fmt.Sprintf("odd.v_%s()", m.name))
		stable = append(stable, fmt.Sprintf("odd.s_%s()", m.name))
	}
	both("create table odd.many (k int primary key, " + strings.Join(columns, ", ") + ")")
	d.adminExec(t, "DISTRIBUTE TABLE exact.odd.thing AS REFERENCE")
	d.adminExec(t, "DISTRIBUTE TABLE exact.odd.many AS REFERENCE")
	same := func(what string) {
		t.Helper()
		want := stored(t, one, "odd.many")
		for i := range 3 {
			got := stored(t, d.on(t, "exact", i), "odd.many")
			if len(got) != len(want) || len(got) == 0 {
				t.Errorf("%s: shard %d holds %d values, one PostgreSQL %d", what, i, len(got), len(want))
			}
			for at, v := range want {
				if got[at] != v {
					t.Errorf("%s: %s is %q on shard %d, %q in one PostgreSQL", what, at, got[at], i, v)
				}
			}
		}
	}
	list := func(list []string) string { return strings.Join(list, ", ") }
	for _, set := range evaluatedUnder {
		for _, sql := range []string{
			"insert into odd.many (k) values (1), (2)",
			"insert into odd.many (k, " + list(names) + ") values (3, " + list(volatile) + "), (4" + strings.Repeat(", default", len(names)) + ")",
			"insert into odd.many values (5, " + list(stable) + ")",
			"insert into odd.many (k) values (6)",
			"update odd.many set (" + list(names) + ") = row(" + list(stable) + ") where k = 6",
			"insert into odd.many (k) values (1) on conflict (k) do update set (" + list(names) + ") = row(" + list(stable) + ")",
		} {
			both(set)
			if _, err := one.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatalf("%s; %s: %v", set, sql, err)
			}
			if _, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Errorf("%s; %s: %v", set, sql, err)
			}
			mustExec(t, one, "reset all")
			mustExec(t, c, "reset all")
		}
		same(set)
		both("delete from odd.many")
	}
}

// What is evaluated, and what it calls, sees the settings of the client, which are the same afterwards; what it sets itself is set.
func TestEvaluatedExpressionsSeeTheClientsSettings(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "exactset")
	freshDatabase(t, d.cluster.Node("s1-a"), "exactset_alone")
	one := connectTo(t, d.cluster.Node("s1-a").DSN("exactset_alone"))
	both := func(sql string) {
		t.Helper()
		mustExec(t, one, sql, pgx.QueryExecModeSimpleProtocol)
		mustExec(t, c, sql, pgx.QueryExecModeSimpleProtocol)
	}
	const settings = "concat_ws('|', current_setting('datestyle'), current_setting('intervalstyle'), current_setting('timezone'), current_setting('extra_float_digits'), current_setting('bytea_output'), current_setting('search_path'), current_setting('array_nulls'), current_setting('xmloption'), (1.0 / 3)::float8::text)"
	for _, sql := range []string{
		"create schema odd", "create table odd.prefs (v text)", "insert into odd.prefs values ('of odd')", "create function odd.sees() returns text volatile language plpgsql as $f$ begin return " + settings + "; end $f$",
		"create function odd.pref() returns text volatile language plpgsql as 'begin return (select v from prefs); end'", "create function odd.other() returns text volatile language sql as 'select current_setting(''search_path'')'",
		"set search_path = odd", "create function odd.inlined() returns text volatile language sql as 'select other() || 1'", "create function odd.clock_timestamp() returns timestamptz immutable language sql as 'select ''2000-01-01 00:00:00+00''::timestamptz'", "create function odd.now() returns timestamptz immutable language sql as 'select ''2000-01-01 00:00:00+00''::timestamptz'",
		"create function odd.sets() returns text volatile language plpgsql as $f$ begin perform set_config('datestyle', 'German', true); return 'set'; end $f$",
		"create table odd.seen (k int primary key, s text default odd.sees(), p text default odd.pref(), i text default odd.inlined(), at timestamptz default now(), made timestamptz default clock_timestamp(), z text)",
	} {
		both(sql)
	}
	both("reset all")
	d.adminExec(t, "DISTRIBUTE TABLE exactset.odd.seen AS REFERENCE")
	for i, set := range []string{
		"set search_path = odd", "set search_path = odd, pg_catalog; set datestyle = 'SQL, DMY'", "set search_path = 'odd', public, pg_temp; set intervalstyle = iso_8601; set timezone = 'Asia/Kolkata'; set extra_float_digits = -3; set bytea_output = escape; set array_nulls = off; set xmloption = document",
		"set search_path = pg_catalog, odd; set datestyle = 'Postgres, YMD'",
	} {
		both(set)
		both("begin")
		both(fmt.Sprintf("insert into odd.seen (k, z) values (%d, odd.sees())", 10*i))
		both(fmt.Sprintf("insert into odd.seen (k, s, p, i, at, z) values (%d, 's', 'p', 'i', now(), odd.sets()), (%d, 's', 'p', 'i', now(), odd.sees())", 10*i+1, 10*i+2))
		rows := make([]string, 300) // more than are evaluated at once
		for r := range rows {
			rows[r] = fmt.Sprintf("(%d, 's', 'p', 'i', 'z')", 1000*(i+1)+r)
		}
		both("insert into odd.seen (k, s, p, i, z) values " + strings.Join(rows, ", "))
		for _, sql := range []string{"select min(made) > '2001-01-01' from odd.seen", "select " + settings, "select string_agg(concat_ws(' ', k, s, p, i, z), E'\\n' order by k) from odd.seen", "select extract(year from max(at)) > 2001 from odd.seen"} {
			if got, want := says(t, c, sql, pgx.QueryExecModeSimpleProtocol), says(t, one, sql, pgx.QueryExecModeSimpleProtocol); got != want {
				t.Errorf("%s: %s: %s; one PostgreSQL: %s", set, sql, got, want)
			}
		}
		both("commit")
		if got, want := says(t, c, "select "+settings, pgx.QueryExecModeSimpleProtocol), says(t, one, "select "+settings, pgx.QueryExecModeSimpleProtocol); got != want {
			t.Errorf("%s, afterwards: %s; one PostgreSQL: %s", set, got, want)
		}
		both("reset all")
	}
	if rows := d.adminExec(t, "VERIFY TABLE exactset.odd.seen"); len(rows) > 0 {
		t.Errorf("the copies differ: %v", rows)
	}
}

// A value whose text is not all of it is refused; nothing of the statement stays.
func TestValuesWithoutAnExactTextAreRefused(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "inexact")
	for _, sql := range []string{
		"create type pair as (a text[], b int)",
		"create function nulls() returns text[] volatile language plpgsql as $$ begin return array['a', null]; end $$", "create function paired() returns pair volatile language plpgsql as $$ begin return row(array['a', null], 1)::pair; end $$",
		`create function declared() returns xml volatile language plpgsql as $$ begin return '<?xml version="1.0"?><a/>'::xml; end $$`, "create table kept (k int primary key, a text[], p pair, doc xml)",
	} {
		mustExec(t, c, sql)
	}
	d.adminExec(t, "DISTRIBUTE TABLE inexact.public.kept AS REFERENCE")
	mustExec(t, c, "insert into kept values (1, nulls(), paired(), null)")
	mustExec(t, c, "set array_nulls = off; set datestyle = 'SQL, DMY'", pgx.QueryExecModeSimpleProtocol)
	for _, sql := range []string{"insert into kept (k, a) values (4, nulls())", "insert into kept (k, p) values (5, paired())", "insert into kept (k, doc) values (6, declared())"} {
		_, err := c.Exec(t.Context(), sql)
		wantRule(t, err, "inexact", "0A000")
	}
	if s := queryOne[string](t, c, "select current_setting('datestyle') || current_setting('array_nulls')"); s != "SQL, DMYoff" {
		t.Errorf("the settings are %s", s)
	}
	mustExec(t, c, "reset all")
	mustExec(t, c, "insert into kept (k, a, p) values (3, nulls(), paired())")
	for i, s := range copiesOf(t, d, "inexact", "kept") {
		if want := "(1,\"{a,NULL}\",\"(\"\"{a,NULL}\"\",1)\",)\n(3,\"{a,NULL}\",\"(\"\"{a,NULL}\"\",1)\",)"; s != want {
			t.Errorf("shard %d holds %s", i, s)
		}
	}
}
