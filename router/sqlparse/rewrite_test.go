package sqlparse

import (
	"os"
	"strings"
	"testing"
)

// places lists where a query names relations.
func places(q *Query, out map[int]StandIn) {
	for _, r := range q.Rels {
		if r.Kind == RelTable {
			out[r.Loc] = StandIn{}
			if !r.CTE {
				out[r.Loc] = StandIn{Table: "copy"}
			}
		}
		if r.Sub != nil {
			places(r.Sub, out)
		}
	}
	for _, list := range [][]*Query{q.Subs, q.CTEs, q.Leaves} {
		for _, s := range list {
			places(s, out)
		}
	}
}

// FuzzRewrite writes statements in all the ways that shards are asked in: the parser's library must not crash on a tree of
// its own that we have changed, and what it writes must be SQL again.
func FuzzRewrite(f *testing.F) {
	for _, file := range []string{"../../testdata/diff/traps.sql", "../../testdata/tpch/queries.sql"} {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		sep := "\n"
		if strings.Contains(file, "tpch") {
			sep = ";"
		}
		for _, sql := range strings.Split(string(b), sep) {
			f.Add(sql)
		}
	}
	for _, sql := range []string{
		"explain (analyze, format text) select * from t where a = $1", "declare c cursor for select a, b from t order by 1", "copy (select * from t) to stdout (format csv, header)",
		"select a[1], (b).c, d::int[], e at time zone 'utc', x'1f', b'01', interval '1' day, f is distinct from g, array[1,2] || h, row(1, a), $2, current_user from only s.t as t(a, b) tablesample system (10)",
		"select count(*) filter (where a > 1), sum(distinct b), grouping(a), max(c) over w from t group by grouping sets ((a, b), rollup (c), cube (d, e), ()) having count(*) > 1 window w as (partition by a order by b rows between 1 preceding and unbounded following exclude ties) order by 1 using < fetch first 3 rows with ties",
		"select * from t, lateral (select * from u where u.a = t.a) x, rows from (generate_series(1, 2), unnest(t.z)) with ordinality as r(p, q), xmltable('/a' passing b columns c int path 'd') y for update of t skip locked",
		"with recursive a as materialized (select 1 union all select n + 1 from a) search depth first by n set o cycle n set c using p select * from a natural full join b", "values (1, 'a'), (default, null) order by 1 limit all offset 2",
	} {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		stmts, err := Parse(sql)
		if err != nil {
			return
		}
		for _, s := range stmts {
			if s.Query == nil {
				continue
			}
			written := func(what, text string, err error) {
				if err != nil {
					return
				}
				if _, err := Parse(text); err != nil {
					t.Errorf("%s of %q is no SQL: %q: %v", what, sql, text, err)
				}
			}
			at := map[int]StandIn{}
			places(s.Query, at)
			text, err := s.Copied(at, nil)
			written("the copy", text, err)
			if fin, err := s.Finished(s.Query, "copy", Inputs{Has: func(string) bool { return true }, Star: func(string) []Col { return []Col{{Qual: "t", Name: "a"}, {Qual: "t", Name: "b"}} }, Type: func(Col) uint32 { return 23 }, Own: func(Made) bool { return false }}); err == nil {
				written("the first step", fin.Shard, nil)
				written("the second step", fin.Final, nil)
			}
			if s.Kind == Select {
				text, err = s.Partial(Partial{DropOrder: true, DropLimit: true})
				written("the part", text, err)
				for _, c := range s.Query.Conds {
					text, err = LoadSQL(TableRef{"s", "t"}, []string{"a"}, [][]Cond{{c}, {c, c}})
					written("the load", text, err)
				}
			}
			if s.Kind == Explain {
				if inner, err := s.Explains(); err == nil {
					written("what is explained", inner.Text, nil)
				}
				if text, ok := s.Explaining("select 1 from x"); ok {
					written("the explanation", text, nil)
				}
			}
		}
	})
}
