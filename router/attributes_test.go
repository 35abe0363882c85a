package router

import (
	"errors"
	"slices"
	"testing"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// Whether t.f and (x).f are calls hangs on what t and x may be.
func TestAttributesAreToldFromColumns(t *testing.T) {
	db, sch := world(t)
	value, row := schema.TakesValue, schema.TakesValue|schema.TakesRow
	sch.Takes = map[string]schema.Takes{"count": row | schema.GivesOther, "abs": value, "age": value, "pg_advisory_lock": value, "pg_relation_size": value}
	sch.Volatile["pg_relation_size"] = true
	sch.Fields = map[string]bool{"size": true}
	for name, takes := range map[string]schema.Takes{"spent": row, "total": row, "half": value} {
		sch.Funcs[name] = []*schema.Func{{Schema: "public", Name: name, Body: "select count(*) from orders", Lang: "sql", Takes: takes}}
	}
	for _, x := range []struct {
		sql   string
		calls []string
		rule  Rule
	}{
		{"select s.spent from settings s", []string{"spent"}, RuleFunctionBody},
		{"select public.settings.spent from settings", []string{"spent"}, RuleFunctionBody},
		{"select (s).spent from settings s", []string{"spent"}, RuleFunctionBody},
		{"select (5).half", []string{"half"}, RuleFunctionBody},
		{"select s.half from settings s", nil, ""}, // it takes no row
		{"select o.total from orders o", nil, ""},  // a column
		{"select orders.total from orders", nil, ""},
		{"select o.total from settings o", []string{"total"}, RuleFunctionBody},
		{"select o.total from orders o where exists (select from settings o where o.total > 1)", []string{"total"}, RuleFunctionBody},
		{"select q.total from (select total from orders) q", nil, ""},
		{"select q.total from (select name from settings) q", []string{"total"}, RuleFunctionBody},
		{"select q.total from (select * from settings) q", []string{"total"}, RuleFunctionBody}, // it may be
		{"select o.x from orders o (x, y) where o.total > 1", []string{"total"}, RuleFunctionBody},
		{"insert into settings as s values ('a') on conflict do nothing returning s.spent", []string{"spent"}, RuleFunctionBody},
		{"insert into settings values ('a') on conflict (name) do update set value = excluded.spent", []string{"spent"}, RuleFunctionBody},
		{"select c.count from customers c", []string{"count"}, ""}, // on copies
		{"delete from customers c where (c.age).count = 1", []string{"count"}, RuleOpaque},
		{"select c.count from customers c where customer_id = 7", []string{"count"}, ""},
		{"select q.count from (select count(*) from customers) q", nil, ""},
		{"with q as (select count(*) from customers) select q.count from q", nil, ""},
		{"select c.age from customers c", nil, ""},
		{"select (c.customer_id).abs from customers c where c.age > 1", []string{"abs"}, ""},
		{"select (4711).pg_advisory_lock", []string{"pg_advisory_lock"}, ""},
		{"update countries set name = ('countries'::regclass).pg_relation_size", []string{"pg_relation_size"}, RuleReferenceWrite},
		{"select (f(1)).size", nil, ""},
		{"create trigger x after insert on orders for each row when (new.total > 1) execute function audit()", nil, ""},
		{"create trigger x after insert on settings for each row when (new.total > 1) execute function audit()", []string{"total"}, RuleFunctionBody},
		{"select (a)[1], (b).*, c.* from settings a, settings b, settings c", nil, ""},
	} {
		stmts, err := sqlparse.Parse(x.sql)
		if err != nil {
			t.Fatal(x.sql, err)
		}
		env := Env{SearchPath: []string{"public"}}
		a := &analysis{stmt: stmts[0], db: db, sch: sch, env: env, t: &Template{}}
		if calls, _ := attributes(a); !slices.Equal(calls, x.calls) {
			t.Errorf("%s: calls %v, want %v", x.sql, calls, x.calls)
		}
		_, err = Analyze(stmts[0], db, sch, env)
		var re *Error
		if errors.As(err, &re); re == nil && x.rule != "" || re != nil && re.Rule != x.rule {
			t.Errorf("%s: %v, want rule %q", x.sql, err, x.rule)
		}
	}
}
