package sqlparse

import (
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v5"
)

var lexSeeds = []string{
	"select * from t where a = 5", "select 'it''s', E'a\\'b', \"x\"\"y\", $$a 'b'$$, $q$ $$ $q$, U&'\\0041', b'01', x'1F', n'x'", "select /* a /* nested */ 'b' */ 1 -- 'c'\n + 2",
	"select 1.5, .5, 1., 1e5, 1.5e-3, 1..2, 0x1F, 1_000, 123456789012345678901", "select $1, $2::int, a$b, _x1, é from \"T\"", "insert into t values (1,'a'),(-2,'b') on conflict do nothing returning *",
	"select a->>'b', c @> '{1}'::int[], d ? 'e'", "select 'unterminated", "select \"unterminated", "/* open", "$a$ open", "select 1;select 2", "select 1a", "select $1a", "select 'a'\n'b'", "0$B'00'",
	"select 1$x$ 'a' $x$", "B''\r''", "select E'a' -- x\n 'b\\'c'", "select E'a\\'", "select 1_000.5, 1_0e+5",
}

// check compares what Strip takes for literals with the scanner of PostgreSQL itself.
func check(t *testing.T, sql string) {
	t.Helper()
	key, lits, ok := Strip(nil, nil, []byte(sql))
	scan, err := pg.Scan(sql)
	if err != nil || !ok || strings.ContainsRune(sql, 0) {
		return // one of them gives the text up: it is not cached
	}
	type span struct{ start, end int }
	want := map[span]pg.Token{}
	for _, tok := range scan.Tokens {
		want[span{int(tok.Start), int(tok.End)}] = tok.Token
	}
	for _, l := range lits {
		tok, found := want[span{l.Start, l.End}]
		right := map[ValueKind][]pg.Token{ValInt: {pg.Token_ICONST, pg.Token_FCONST}, ValNumber: {pg.Token_FCONST}, ValString: {pg.Token_SCONST}}[l.Kind]
		good := false
		for _, r := range right {
			good = good || found && tok == r
		}
		if !good {
			t.Errorf("%q: %q is no literal to PostgreSQL (key %q)", sql, sql[l.Start:l.End], key)
		}
	}
}

func TestStripFindsWhatPostgreSQLFinds(t *testing.T) {
	for _, s := range lexSeeds {
		check(t, s)
	}
}

func FuzzStrip(f *testing.F) {
	for _, s := range lexSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) { check(t, sql) })
}

func TestEqualKeysDifferInLiteralsOnly(t *testing.T) {
	key := func(s string) string {
		k, _, ok := Strip(nil, nil, []byte(s))
		if !ok {
			t.Fatalf("%q", s)
		}
		return string(k)
	}
	for _, same := range [][2]string{{"select 1", "select 22"}, {"select 'a'", "select 'b''c'"}, {"where a = 1.5", "where a = 2.5"}} {
		if key(same[0]) != key(same[1]) {
			t.Errorf("%q and %q do not share a plan", same[0], same[1])
		}
	}
	for _, differ := range [][2]string{
		{"select 1", "select 1.0"},
		{"select 1", "select '1'"},
		{"select 1", "select 3000000000"},
		{"select E'a'", "select E'b'"},
		{"select 1", "select 12345678901234567890"},
		{"select a", "select b"},
		{"select 1 -- x", "select 1 -- y"},
		{"select $1", "select $2"},
	} {
		if key(differ[0]) == key(differ[1]) {
			t.Errorf("%q and %q share a plan", differ[0], differ[1])
		}
	}
	if _, _, ok := Strip(nil, nil, []byte("select \x01i")); ok {
		t.Error("a text with our own mark was accepted")
	}
}

func TestValuesRows(t *testing.T) {
	for _, c := range []struct {
		sql  string
		rows []string
	}{
		{"insert into t values (1, 'a)'), (2, '(b')", []string{"(1, 'a)')", "(2, '(b')"}},
		{"insert into t (\"values\", b) values (f(1, 2), (3))  on conflict (a) do nothing", []string{"(f(1, 2), (3))"}},
		{"insert into t values /* (0) */ (1) -- (2)\n, (3) returning (4)", []string{"(1)", "(3)"}},
		{"insert into t select 1", nil},
		{"insert into t values (1", nil},
	} {
		spans, _ := ValuesRows(c.sql)
		var got []string
		for _, s := range spans {
			got = append(got, c.sql[s.Start:s.End])
		}
		if strings.Join(got, "|") != strings.Join(c.rows, "|") {
			t.Errorf("%s: %q", c.sql, got)
		}
	}
}

func TestNothingHidesATable(t *testing.T) {
	for _, sql := range []string{
		"select * from a tablesample system (10)", "select * from xmltable('/x' passing (select x from a) columns c text)",
		"with recursive r as (select 1 union all select * from a) select * from r", "select array(select x from a)", "select * from rows from (f((select x from a)))",
		"update b set (x, y) = (select x, y from a)", "insert into b values ((select x from a))", "select row(1, (select x from a)) from b order by (select x from a) limit (select 1 from a)",
	} {
		stmts, err := Parse(sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		found := false
		for _, r := range stmts[0].Tables {
			found = found || r.Name == "a"
		}
		if !found {
			t.Errorf("%s: table a is not in the inventory %v", sql, stmts[0].Tables)
		}
		if q := stmts[0].Query; q != nil && q.Opaque == "" && !reaches(q, "a") {
			t.Errorf("%s: the facts miss table a and do not say so", sql)
		}
	}
}

func reaches(q *Query, name string) bool {
	for _, r := range q.Rels {
		if r.Table.Name == name || r.Sub != nil && reaches(r.Sub, name) {
			return true
		}
	}
	for _, list := range [][]*Query{q.Subs, q.CTEs, q.Leaves} {
		for _, s := range list {
			if reaches(s, name) {
				return true
			}
		}
	}
	return q.Source != nil && reaches(q.Source, name)
}
