package sqlparse

import "testing"

func TestNormalShowsNoLiteral(t *testing.T) {
	for in, want := range map[string]string{
		"select 1, 'a''b', x from t where y = -2.5e3":           "select $1, $2, x from t where y = -$3",
		"select $2, 'x' /* why */ -- because\nfrom \"T 1\"":     "select $2, $3 from \"T 1\"",
		"alter role app password 'secret'":                      "alter role app password $1",
		"create function f() returns int as $$ select 1 $$":     "create function f() returns int as $1",
		"select E'a\\'b', B'01', U&'x', t1.c2 from t1 limit 10": "select $1, $2, $3, t1.c2 from t1 limit $4",
		"select 'not ended":                                     "(not shown)",
	} {
		if got := Normal(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}
