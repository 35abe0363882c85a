package router

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pgmosaic/pgmosaic/router/sqlparse"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// bindText plans a text as the planner does, by the plan of another one with the same literals if there is one, and binds it.
func bindText(t *testing.T, db *shardmap.DB, sch *schema.Snapshot, shared map[string]*Template, sql string) *Plan {
	t.Helper()
	key, lits, ok := sqlparse.Strip(nil, nil, []byte(sql))
	a := &Args{Text: []byte(sql)}
	tmpl := shared[string(key)]
	if tmpl == nil || !ok {
		stmts, err := sqlparse.Parse(sql)
		if err != nil || len(stmts) != 1 {
			t.Fatalf("%s: %v", sql, err)
		}
		if tmpl, err = Analyze(stmts[0], db, sch, Env{SearchPath: []string{"public"}}); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if ok && !tmpl.Exact && tmpl.NumberLiterals(lits) {
			shared[string(key)], a.Literals = tmpl, lits
		}
	} else {
		a.Literals = lits
	}
	p, err := tmpl.Bind(db, a)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return p
}

// listIn are the constants of the only long list of a statement, with what stands for NULL.
func listIn(t *testing.T, sql string) (out []string) {
	t.Helper()
	stmts, err := sqlparse.Parse(sql)
	if err != nil || len(stmts) != 1 {
		t.Fatalf("%s: %v", sql, err)
	}
	for _, f := range stmts[0].Query.Facts {
		if f.At > 0 {
			for _, v := range f.In {
				out = append(out, fmt.Sprint(v.Kind, v.Text))
			}
		}
	}
	return out
}

// Lists of keys by chance, in texts whose plans are shared: each shard's text is the client's without what is another's alone, every key is
// sent to its own shard, and places are those of the client.
func TestEachShardIsSentItsOwnKeys(t *testing.T) {
	db, sch := world(t)
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	shared := map[string]*Template{}
	divided := 0
	for range 400 {
		text := rng.IntN(2) == 0
		key, from := "customer_id", "customers"
		switch {
		case text:
			key, from = "source", "events"
		case rng.IntN(4) == 0:
			key, from = "region", "offices"
		}
		one := func() string {
			switch {
			case rng.IntN(12) == 0:
				return pick("NULL", "null")
			case key == "region":
				return pick("'eu'", "'us'", "'uk'", "'none'")
			case text:
				return pick("'a'", "'it''s'", "'é'", "''", "'-- x'", "'), ('", "'/*'", fmt.Sprintf("'%d'", rng.IntN(99)))
			}
			return pick("424242", "-7", "- 5", "(3)", fmt.Sprint(rng.IntN(99)), fmt.Sprint(rng.Int64N(1e17)), "((-12))", "/* (1, */ 8")
		}
		n := []int{2, 15, 16, 17, 40, 200}[rng.IntN(6)]
		list := make([]string, n)
		for i := range list {
			list[i] = one()
		}
		in := pick(" in (", " IN (", "/* é */ In(\n", " in ( -- (7, 8)\n") + strings.Join(list, pick(",", ", ", " ,\n", ", -- 'é', (\n", " /* , */, ")) + pick(")", " )", "/* ) */)")
		sql := pick("select 'é', 1 from %s where %s%s", "select * from %s where 3 > 2 and %s%s and 'ü' <> 'x'", "delete from %s where %s%s returning 'é'", "select count(*), 'é' from %s where %s%s",
			"select %[2]s from %[1]s where %[2]s%[3]s order by %[2]s limit 3", "select * from %s where %s%s for update")
		sql = fmt.Sprintf(sql, from, key, in)
		p := bindText(t, db, sch, shared, sql)
		whole := sql
		if p.Merge != nil {
			whole = p.ShardText(&Args{Text: []byte(sql)})
		}
		all := listIn(t, whole)
		seen := map[string]bool{}
		for _, shard := range p.Shards {
			got := p.TextOn(shard, whole)
			if n < longList && got != whole {
				t.Fatalf("%s: %s is sent %s", sql, db.Shards[shard].Name, got)
			}
			var want []string
			for i, c := range list {
				own := bindText(t, db, sch, shared, fmt.Sprintf("select %[1]s from %[2]s where %[1]s = %[3]s", key, from, strings.ReplaceAll(c, "/* (1, */ ", "")))
				none := strings.EqualFold(c, "null") || c == "'none'"
				if none || p.Shares == nil || len(own.Shards) == 1 && own.Shards[0] == shard {
					want = append(want, all[i])
					seen[all[i]] = true
				}
			}
			if kept := listIn(t, got); !slices.Equal(kept, want) {
				t.Fatalf("%s: %s is sent %s: %q, want %q", sql, db.Shards[shard].Name, got, kept, want)
			}
			if p.Shares == nil {
				continue
			}
			divided++
			at := 0
			for i, c := range got { // each character is the client's, in its order, up to the last one
				place := p.Shares.Place(shard, utf8.RuneCountInString(got[:i])+1)
				if r := []rune(whole)[place-1]; r != c || place <= at {
					t.Fatalf("%s: %s is sent %s: character %d is %q, place %d of the whole, where %q is", sql, db.Shards[shard].Name, got, i, c, place, r)
				}
				at = place
			}
			if end := p.Shares.Place(shard, utf8.RuneCountInString(got)+1); end != utf8.RuneCountInString(whole)+1 {
				t.Fatalf("%s: its end is at %d", sql, end)
			}
		}
		for _, v := range all {
			if !seen[v] {
				t.Fatalf("%s: nobody is sent %s", sql, v)
			}
		}
	}
	if divided < 300 {
		t.Errorf("only %d texts were divided", divided)
	}
}

// What a list may not be divided in: each shard is sent all.
func TestOtherListsStayWhole(t *testing.T) {
	db, sch := world(t)
	ints := make([]string, 40)
	for i := range ints {
		ints[i] = fmt.Sprint(i)
	}
	list := strings.Join(ints, ", ")
	quoted := "'" + strings.Join(ints, "', '") + "'"
	for _, x := range []struct {
		sql     string
		divided bool
	}{
		{"select * from customers where customer_id in (" + list + ")", true},
		{"select * from customers where customer_id in (" + quoted + ")", true},
		{"select * from customers c join orders o using (customer_id) where o.customer_id in (" + list + ") and o.total > 3", true},
		{"select * from customers c left join orders o using (customer_id) where c.customer_id in (" + list + ")", true},
		{"select s.n from (select customer_id, name as n from customers) s where customer_id in (" + list + ")", true},
		{"update customers set age = 1 where customer_id in (" + list + ") and age in (" + list + ")", true},
		{"select * from customers where customer_id in (" + list + ") order by name collate \"C\"", true},
		{"select count(*) from customers where customer_id in (" + list + ") or age = 3", false},
		{"select * from customers where not customer_id in (" + list + ")", false},
		{"select * from customers where customer_id not in (" + list + ")", false},
		{"select * from customers where (customer_id in (" + list + ")) is not false", false},
		{"select customer_id in (" + list + ") from customers", false},
		{"select * from customers where age in (" + list + ")", false},
		{"select * from customers where customer_id in (" + list + ", '7')", false},
		{"select * from customers where customer_id in (" + list + ", 7::bigint)", false},
		{"select * from customers where customer_id in (" + list + ", 7.0)", false},
		{"select * from customers where customer_id in (" + list + ", 3 + 4)", false},
		{"select * from customers where customer_id in (" + list + ", 99999999999999999999)", false},
		{"select * from customers where customer_id in (" + quoted + ", 'x')", false},
		{"select * from customers where customer_id in (" + list + ") and customer_id in (1, 2, 3)", false},
		{"select * from cells where x in (" + list + ")", false},
		{"select * from customers where customer_id in (" + list + ") order by customer_id in (" + list + ")", false},
		{"select *, rank() over (order by age) from customers where customer_id in (" + list + ")", false},
		{"select * from countries k left join customers c on c.country = k.code and c.customer_id in (" + list + ")", false},
		{"select * from customers c left join orders o on o.customer_id = c.customer_id and o.customer_id in (" + list + ")", false},
		{"select * from customers c where exists (select from orders o where o.customer_id = c.customer_id and o.customer_id in (" + list + "))", false},
		{"update customers set customer_id = 5 where customer_id in (" + list + ")", false},
	} {
		stmts, err := sqlparse.Parse(x.sql)
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := Analyze(stmts[0], db, sch, Env{SearchPath: []string{"public"}})
		if err != nil {
			t.Fatalf("%s: %v", x.sql, err)
		}
		p, err := tmpl.Bind(db, &Args{})
		if err != nil {
			t.Fatalf("%s: %v", x.sql, err)
		}
		if (p.Shares != nil) != x.divided {
			t.Errorf("%s: divided %t, want %t: %s", x.sql, p.Shares != nil, x.divided, strings.Join(p.Lines(), "; "))
		}
	}
}

// A column may be narrower than the keys of its group: a string that is none of its values is an error that no shard may be spared.
func TestStringsOfAnotherWidthStayWhole(t *testing.T) {
	db, sch := world(t)
	for _, x := range []struct {
		last    string
		divided bool
	}{{"3", true}, {"30000000000", false}} {
		sch.Tables[shardmap.TableName{Schema: "public", Name: "orders"}].Columns[0].TypeOID = 23
		sql := "select * from orders where customer_id in (" + strings.Repeat("'1', '2', ", 20) + "'" + x.last + "') limit 1"
		p := bindText(t, db, sch, map[string]*Template{}, sql)
		if (p.Shares != nil) != x.divided {
			t.Errorf("%s: divided %t, want %t", sql, p.Shares != nil, x.divided)
		}
	}
}
