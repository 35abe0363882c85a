package main

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A comparison that users define for types of PostgreSQL's own, as = of varchar that takes no notice of case, comes before PostgreSQL's, which is for text:
// then it says nothing of where a key is.
func TestUsersComparisonsSayNothingOfKeys(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "compared")
	freshDatabase(t, d.cluster.Node("s1-a"), "compared_one")
	one := connectTo(t, strings.Replace(d.cluster.Node("s1-a").DSN("compared_one"), "postgres:"+d.cluster.Password, "app:app", 1))
	both := func(sql string) {
		mustExec(t, c, sql)
		mustExec(t, one, sql)
	}
	both("create table words (k varchar(9) collate \"C\" primary key, v int)")
	both("create table notes (k varchar(9) collate \"C\", n int, primary key (k, n))")
	both("insert into words values ('abc', 1), ('ABC', 2), ('Abc', 3), ('aBc', 4), ('abC', 5), ('x', 6), ('X', 7), ('m', 8)")
	both("insert into notes select upper(k::text), v from words")
	d.adminExec(t, "CREATE GROUP words IN compared KEY (text) BY RANGE (MINVALUE TO ('B') ON compared_s0, ('B') TO ('ac') ON compared_s1, ('ac') TO MAXVALUE ON compared_s2)")
	d.adminExec(t, "DISTRIBUTE TABLE compared.public.words IN GROUP words KEY (k)")
	d.adminExec(t, "DISTRIBUTE TABLE compared.public.notes IN GROUP words KEY (k)")
	reads := []string{
		"select * from words where k = 'abc'", "select * from words where k in ('abc', 'X')", "select * from words where k > 'b' order by k", "select * from words where k between 'a' and 'b' order by k",
		"select w.v, n.n from words w join notes n on n.k = w.k", "select w.v, n.n from words w left join notes n on n.k = w.k", "select w.v, n.n from words w join notes n using (k)", "select v from words w where exists (select from notes n where n.k = w.k and n.n > w.v)",
		"select v from words where k in (select k from notes where n > 2)", "select k, count(*) from notes group by k order by k",
	}
	check := func(when string) {
		t.Helper()
		for _, sql := range append(reads, "update words set v = v + 10 where k = 'abc'", "delete from notes where k = 'x'", "update words w set v = v + n.n from notes n where n.k = w.k and n.n = 1", "select * from words", "select * from notes") {
			got := ask2(t, c, sql, pgx.QueryExecModeSimpleProtocol)
			if got.code == "0A000" && !strings.HasPrefix(sql, "select") {
				continue
			}
			if why := differs(sql, ask2(t, one, sql, pgx.QueryExecModeSimpleProtocol), got); why != "" {
				t.Errorf("%s: %s: %s", when, sql, why)
			}
		}
	}
	check("before")
	both("create function alike(varchar, varchar) returns boolean language sql immutable as 'select lower($1::text) operator(pg_catalog.=) lower($2::text)'")
	both("create operator = (leftarg = varchar, rightarg = varchar, function = alike)")
	check("with =")
	both("drop operator = (varchar, varchar)")
	both("create function alike(text, text) returns boolean language sql immutable as 'select lower($1) operator(pg_catalog.=) lower($2)'")
	both("create operator = (leftarg = text, rightarg = text, function = alike)") // PostgreSQL has one for these types, too
	check("with = for text")
	if route := simply(t, c, "explain (route) select * from words where k = 'abc'"); !strings.HasPrefix(route, "Single") {
		t.Errorf("a key has no shard because of an = that is not meant:\n%s", route)
	}
	both("set search_path = public, pg_catalog")
	check("with = for text, before PostgreSQL's")
	both("reset search_path")
	both("drop operator public.= (text, text)")
	both("create function above(varchar, varchar) returns boolean language sql immutable as 'select lower($1::text) operator(pg_catalog.>) lower($2::text)'")
	both("create operator > (leftarg = varchar, rightarg = varchar, function = above)")
	check("with >")
}
