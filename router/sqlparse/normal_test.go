package sqlparse

import "testing"

func TestNormalShowsNoLiteral(t *testing.T) {
	for in, want := range map[string]string{
		"select 1, 'a''b', x from t where y = -2.5e3":            "select $1, $2, x from t where y = -$3",
		"select $2, 'x' /* why */ -- because\nfrom \"T 1\"":      "select $2, $3 from \"T 1\"",
		"alter role app password 'secret'":                       "alter role app password $1",
		"create function f() returns int as $$ select 1 $$":      "create function f() returns int as $1",
		"select E'a\\'b', B'01', U&'x', t1.c2 from t1 limit 10":  "select $1, $2, $3, t1.c2 from t1 limit $4",
		"select 0x1F, 1_000, 5e3, .5, 7. from t":                 "select $1, $2, $3, $4, $5 from t",
		"set statement_timeout = 5000":                           "set statement_timeout = $1",
		"set session authorization 'bob'":                        "set session authorization $1",
		"alter role app connection limit 5 valid until '2030'":   "alter role app connection limit $1 valid until $2",
		"alter sequence s restart with 42 increment by -3":       "alter sequence s restart with $1 increment by -$2",
		"create table t (a varchar(20) default 'x')":             "create table t (a varchar($1) default $2)",
		"alter table t alter a type text using a || $tag$x$tag$": "alter table t alter a type text using a || $1",
		"declare c cursor with hold for select 7":                "declare c cursor with hold for select $1",
		"fetch 5 from c":                                              "fetch $1 from c",
		"prepare p as select 'x', $1":                                 "prepare p as select $2, $1",
		"execute p ('x', 41111111)":                                   "execute p ($1, $2)",
		"prepare transaction '4111'":                                  "prepare transaction $1",
		"copy t from '/tmp/x' with (delimiter '|')":                   "copy t from $1 with (delimiter $2)",
		"do language plpgsql $x$ begin perform 1; end $x$":            "do language plpgsql $1",
		"notify c, 'x'":                                               "notify c, $1",
		"comment on table t is N'x'":                                  "comment on table t is $1",
		"create subscription s connection 'password=x' publication p": "create subscription s connection $1 publication p",
		"explain (analyze, costs off) update t set a = 'x'":           "explain (analyze, costs off) update t set a = $1",
		"select 'not ended":                                           "(not shown)",
	} {
		if got := Normal(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}
