package sqlparse

import (
	"fmt"
	"strings"
	"testing"
)

func TestWhatVariesIsPutInOnce(t *testing.T) {
	f := &Fills{
		Times: true,
		Columns: []Fill{
			{Name: "id"}, {Name: "key", Default: "gen_random_uuid()", Varies: Volatile}, {Name: "na.me", Default: "'x'"}, {Name: "at", Default: "now()", Varies: Steady, Timed: true},
		},
		Varies: map[string]Constancy{"now": Steady, "random": Volatile, "gen_random_uuid": Volatile, "lower": Constant, "Odd": Volatile},
	}
	for _, x := range []struct{ sql, want string }{
		{`insert into t (id, key, at) values (1, 'k', null)`, `insert into t (id, key, at) values (1, 'k', null)`},
		{`insert into t (id) values (1), ($1)`, `insert into t ("key", "at", id) values ( <gen_random_uuid()> ,  <now()!> , 1), ( <gen_random_uuid()> ,  <now()!> , $1)`},
		{`insert into t values (1)`, `insert into t ("key", "at", "id") values ( <gen_random_uuid()> ,  <now()!> , 1)`},
		{`insert into t as x overriding user value values (1, 'k')`, `insert into t as x ("at", "id", "key") overriding user value values ( <now()!> , 1, 'k')`},
		{`insert into t values (1, DEFAULT, default, now())`, `insert into t values (1,  <gen_random_uuid()> , default,  <now()!> )`},
		{`insert into t default values returning id`, `insert into t ("key", "at") VALUES ( <gen_random_uuid()> ,  <now()!> ) returning id`},
		{
			`insert into t (id, key, "at") values (random() * 5, lower(GEN_RANDOM_UUID ( )), pg_catalog.now() - interval '1 day')`,
			`insert into t (id, key, "at") values ( <random()>  * 5, lower( <GEN_RANDOM_UUID ( )> ),  <pg_catalog.now()!>  - interval '1 day')`,
		},
		{`insert into t (id, key, at) values (1, "Odd"(2, ')'), current_timestamp(3))`, `insert into t (id, key, at) values (1,  <"Odd"(2, ')')> ,  <current_timestamp(3)!> )`},
		{
			`insert into t (id, key, at) values (1, 'k', current_date) on conflict (id) do update set at = now(), key = excluded.key where t.at < localtimestamp returning now()`,
			`insert into t (id, key, at) values (1, 'k',  <current_date!> ) on conflict (id) do update set at =  <now()!> , key = excluded.key where t.at <  <localtimestamp!>  returning now()`,
		},
		{`update t set at = default, "na.me" = default where at < now() - $1`, `update t set at =  <now()!> , "na.me" = default where at <  <now()!>  - $1`},
		{`update t set (at, id, "na.me") = (default, 1, now()::text) where id = 1`, `update t set (at, id, "na.me") = ( <now()!> , 1,  <now()!> ::text) where id = 1`},
		{`update t set (at, id) = row(now(), 2), key = 'k'`, `update t set (at, id) = row( <now()!> , 2), key = 'k'`},
		{`update t set (at, key) = (now(), default)`, "the default of column key has another value for each row"},
		{`update t set (id, at) = (1, 'now')`, "column at: 'now' may be another time"},
		{`update t set (at, id) = (select now(), 2)`, `update t set (at, id) = (select  <now()!> , 2)`},
		{`delete from t where at < now()`, `delete from t where at <  <now()!> `},
		{`insert into t (id, key, at) values (1, 'k', 'now')`, "column at: 'now' may be another time"},
		{`insert into t (id, key, at) values (1, 'now', null)`, `insert into t (id, key, at) values (1, 'now', null)`}, // no time is read from it
		{`update t set id = 't'::regclass::int`, "column id: regclass is another OID on each shard"},
		{`update t set key = 't'::regclass::text`, `update t set key = 't'::regclass::text`},
		{`update t set at = date 'today'`, "column at: 'today' may be another time"},
		{`update t set id = random()`, "column id: random() has another value for each row"},
		{`update t set key = default`, "the default of column key has another value for each row"},
		{`insert into t (id, key, at) values (1, 'k', null) on conflict (id) do update set key = default`, "the default of column key has another value for each row"},
		{`insert into t (id, key, at) values (1, "Odd"($1), null)`, "column key: Odd() is called with a column, a parameter or a subquery"},
		{`delete from t where at = any (array[now(), random()])`, "random() has another value for each row"},
		{`insert into t (id, key, at) values (1, 'k', null) returning random()`, "random() stands in RETURNING"},
	} {
		stmts, err := Parse(x.sql)
		if err != nil {
			t.Fatal(x.sql, err)
		}
		edits, why := stmts[0].Once(f)
		var values []string
		for _, e := range edits {
			for _, p := range e.Parts {
				if p.Expr != "" {
					values = append(values, fmt.Sprintf("<%s%s>", p.Expr, map[bool]string{true: "!"}[p.Steady]))
				}
			}
		}
		if got := Apply(x.sql, edits, values); why == "" && got != x.want || why != "" && !strings.HasPrefix(why, x.want) {
			t.Errorf("%s\n   %s%s\nwant %s", x.sql, got, why, x.want)
		}
	}
}

func TestCopyInto(t *testing.T) {
	for sql, want := range map[string]string{
		`copy t from stdin`: `COPY "x" ("a") from stdin`,
		`COPY "S"."from" ("from", b) /* from */ FROM stdin (format csv, null 'from')`: `COPY "x" ("a") FROM stdin (format csv, null 'from')`,
		`select 1`: ``,
	} {
		if got, _ := CopyInto(sql, `"x"`, `"a"`); got != want {
			t.Errorf("%s: %s", sql, got)
		}
	}
}
