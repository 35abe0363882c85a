package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// oddLong and oddKey are names of 63 bytes.
const (
	oddLong = `"Ünï cödé, with spaces und «noch mehr» Buchstaben bis 63 B"`
	oddKey  = `"ключ с пробелами, ""кавычками"" и т.д.x"`
)

// diffSchema is made on one PostgreSQL and through the proxy. Keys sit on both shards, values hold NULLs,
// NaN, equal numerics of different scale, blanks and quotes.
var diffSchema = []string{
	`create table customers (customer_id bigint primary key, name text not null, country text, small smallint, big bigint, ratio double precision, day date)`,
	`create table orders (customer_id integer not null, order_id integer not null, total numeric, created_at timestamptz, primary key (customer_id, order_id))`,
	`create table texts (k text primary key, v int)`,
	`create table "Odd Table" ("Key" bigint primary key, "select" text)`,
	`create table countries (code text primary key, name text)`,
	`create table settings (name text primary key, value text)`,
	`create table marks (region text collate "C" not null, day date not null, n int not null, points int, primary key (region, day, n)) partition by range (day)`,
	`create table marks_early partition of marks for values from (minvalue) to ('2026-01-03') partition by list (region)`,
	`create table marks_early_de partition of marks_early for values in ('DE', '')`,
	`create table marks_early_rest partition of marks_early default`,
	`create table marks_late partition of marks default`,
	`create table medals (day date not null, area text collate "C" not null, medal text, primary key (day, area, medal))`,
	`create table padded (id bigint primary key, bp char(3))`,
	`create table short_keys (k varchar(3) primary key, v int)`,
	`create table round_keys (k numeric(5, 2) primary key, v int)`,
	`create table round_times (k timestamptz(0) primary key, v int)`,
	`create table things (id int primary key, name text)`,
	`create schema tenant`,
	`create table tenant.things (id int primary key, name text)`,
	`create table tenant.parts (id int primary key, thing int references tenant.things, customer int)`,
	`create schema "odd.schema"`,
	`create table "odd.schema"."odd.name" ("key.col" bigint primary key, "a.b" int, "it's ""said""" text, "group" text, "UPPER" date)`,
	`create table ` + oddLong + ` ("select" text collate "C" not null, ` + oddKey + ` bigint not null, "x y" int default 3, primary key (` + oddKey + `, "select"))`,
	`create table "ref.odd" ("co.de" text primary key, "na""me" text)`,
	`create table "home.odd" ("table" int primary key, "v.w" text)`,
	`create view "odd.schema"."odd.view" as select "key.col" as "k.v", "a.b" + 1 as "n.m" from "odd.schema"."odd.name" where "a.b" > 2`,
	`create view rich as select c.customer_id, c.country, c.small + 1 as n from customers c where c.small > 2`,
}

var diffRows = []string{
	`insert into countries values ('DE', 'Germany'), ('AT', 'Austria'), ('XX', 'Nowhere')`,
	`insert into settings values ('a', '1'), ('b', null)`,
	`insert into customers select i, 'n' || i, case i % 4 when 0 then 'DE' when 1 then 'AT' when 2 then 'FR' end, nullif(i % 7, 3), i * 460000000000000000,
	   case i % 5 when 0 then 'NaN'::float8 when 1 then null when 2 then -0.0 when 3 then 0.0 else i / 3.0 end, case when i % 3 > 0 then date '2026-01-01' + i % 3 end from generate_series(1, 20) i`,
	`insert into orders select 1 + i % 20, i, case when i % 6 > 0 then round(i / 7.0, i % 4) end, timestamptz '2026-01-01 00:00:00+00' + i * interval '1 hour' from generate_series(1, 70) i`,
	`insert into texts values ('a', 1), ('b ', 2), ('b', 3), ('007', 4), ('7', 5), ('é', 6), ('it''s', 7), ('A', 8), ('', 9)`,
	`insert into marks select (array['DE', 'AT', '', 'n3'])[1 + i % 4], date '2026-01-01' + i % 5, i, nullif(i % 9, 4) from generate_series(1, 40) i`,
	`insert into medals select date '2026-01-01' + i % 4, (array['DE', 'AT', 'x5'])[1 + i % 3], (array['gold', 'tin'])[1 + i % 2] from generate_series(1, 24) i on conflict do nothing`,
	`insert into padded values (1, 'a'), (2, 'b'), (5, ' b'), (14, null)`,
	`insert into things select i, 't' || i from generate_series(1, 9) i`,
	`insert into tenant.things select i, 'n' || i from generate_series(1, 12) i`,
	`insert into tenant.parts select i, nullif(i % 5, 0), i % 23 from generate_series(1, 25) i`,
	`insert into "Odd Table" select i, 'x' || i from generate_series(1, 9) i`,
	`insert into "odd.schema"."odd.name" select i, nullif(i % 7, 3), 'n' || i % 6, case i % 3 when 0 then 'DE' when 1 then 'AT' end, date '2026-01-01' + i % 3 from generate_series(1, 24) i`,
	`insert into ` + oddLong + ` select (array['DE', 'it''s', 'x5'])[1 + i % 3], 1 + i % 19, i from generate_series(1, 40) i on conflict do nothing`,
	`insert into "ref.odd" values ('DE', 'Germany'), ('AT', null), ('n3', 'three')`,
	`insert into "home.odd" select i, 'x' || i from generate_series(1, 6) i`,
}

// answer is what a statement gave, in a form that can be compared.
type answer struct {
	cols, tag, code string
	rows            []string
}

func ask2(t testing.TB, c *pgx.Conn, sql string, mode pgx.QueryExecMode) answer {
	t.Helper()
	rows, err := c.Query(t.Context(), sql, mode)
	var a answer
	if err == nil {
		for _, f := range rows.FieldDescriptions() {
			a.cols += column(f)
		}
		for rows.Next() {
			a.rows = append(a.rows, fmt.Sprintf("%q", rows.RawValues()))
		}
		rows.Close()
		err = rows.Err()
		a.tag = rows.CommandTag().String()
		if a.cols == "" && err == nil {
			for _, f := range rows.FieldDescriptions() {
				a.cols += column(f)
			}
		}
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		a = answer{code: pe.Code}
	} else if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return a
}

// column prints a result column. The types of users' own have other OIDs in each database.
func column(f pgconn.FieldDescription) string {
	if f.DataTypeOID >= 16384 {
		return f.Name + ":user "
	}
	return fmt.Sprintf("%s:%d ", f.Name, f.DataTypeOID)
}

// ordered says whether a statement orders its rows: ORDER BY outside of all parentheses.
func ordered(sql string) bool {
	depth := 0
	low := strings.ToLower(sql)
	for i := range low {
		switch {
		case low[i] == '(':
			depth++
		case low[i] == ')':
			depth--
		case depth == 0 && strings.HasPrefix(low[i:], "order by"):
			return true
		}
	}
	return false
}

// differs compares two answers: rows as a list where the statement orders them, else as a bag.
func differs(sql string, want, got answer) string {
	if want.code != got.code {
		return fmt.Sprintf("SQLSTATE %q, one PostgreSQL says %q", got.code, want.code)
	}
	if want.cols != got.cols {
		return fmt.Sprintf("columns %s, want %s", got.cols, want.cols)
	}
	a, b := append([]string(nil), want.rows...), append([]string(nil), got.rows...)
	if !ordered(sql) {
		sort.Strings(a)
		sort.Strings(b)
	}
	if strings.Join(a, "\n") != strings.Join(b, "\n") {
		return fmt.Sprintf("%d rows\n%s\nwant %d\n%s", len(b), strings.Join(b, "\n"), len(a), strings.Join(a, "\n"))
	}
	if want.tag != got.tag {
		return fmt.Sprintf("tag %q, want %q", got.tag, want.tag)
	}
	return ""
}

// diffWorld makes the diff schema over some shards, all of them databases of two servers.
func diffWorld(t *testing.T, d *demo, width int) *pgx.Conn {
	name := fmt.Sprintf("diff%d", width)
	t.Cleanup(func() { d.forget(t, name) })
	d.adminExec(t, "CREATE DATABASE "+name)
	for i := range width {
		node := d.cluster.Node([]string{"s1-a", "s2-a"}[i%2])
		phys := fmt.Sprintf("%s_%d", name, i)
		freshDatabase(t, node, phys)
		d.adminExec(t, fmt.Sprintf("CREATE SHARD %s_d%d IN %s NODE '%s' NAME %s_n%d", name, i, name, node.DSN(phys), name, i))
	}
	many := connectTo(t, dsnFor("app", "app", d.Server.Addr(), name))
	for _, sql := range append(append([]string{}, diffSchema...), diffRows...) {
		mustExec(t, many, sql)
	}
	for _, sql := range diffPlacement(name, width) {
		d.adminExec(t, sql)
	}
	tables := []string{"marks IN GROUP spots KEY (region, day)", "medals IN GROUP spots KEY (area, day)", "customers IN GROUP ids KEY (customer_id)", "orders IN GROUP ids KEY (customer_id)", "texts IN GROUP words KEY (k)", "padded IN GROUP ids KEY (id)", "things IN GROUP ids KEY (id)", "short_keys IN GROUP words KEY (k)", "round_keys IN GROUP numbers KEY (k)", "round_times IN GROUP times KEY (k)", `"Odd Table" IN GROUP ids KEY ("Key")`, "countries AS REFERENCE", `"ref.odd" AS REFERENCE`, oddLong + " IN GROUP ids KEY (" + oddKey + ")"}
	for _, x := range tables {
		d.adminExec(t, "DISTRIBUTE TABLE "+name+".public."+x)
	}
	d.adminExec(t, "DISTRIBUTE TABLE "+name+`."odd.schema"."odd.name" IN GROUP ids KEY ("key.col")`)
	d.adminExec(t, fmt.Sprintf("DISTRIBUTE SCHEMA %s.tenant ON %s_d%d", name, name, width-1))
	for _, sql := range diffLater {
		mustExec(t, many, sql)
	}
	return many
}

// diffWidths is what -diff.widths says.
func diffWidths(t *testing.T) (widths []int) {
	for _, w := range strings.Split(*diffWide, ",") {
		n, err := strconv.Atoi(w)
		if err != nil || n < 1 {
			t.Fatalf("-diff.widths %s", *diffWide)
		}
		widths = append(widths, n)
	}
	return widths
}

// diffPlacement places the keys of a diff database: by hash over 1 and 2 shards, by range and list over 3, by hash with
// pinned keys over 7.
func diffPlacement(name string, width int) []string {
	out := []string{"CREATE GROUP numbers IN " + name + " KEY (numeric) BY HASH", "CREATE GROUP times IN " + name + " KEY (timestamptz) BY HASH"}
	if width == 3 {
		return append(out,
			fmt.Sprintf("CREATE GROUP ids IN %s KEY (bigint) BY RANGE (MINVALUE TO (4) ON %[1]s_d2, (4) TO (11) ON %[1]s_d0, (11) TO (12) ON %[1]s_d2, (12) TO MAXVALUE ON %[1]s_d1)", name),
			fmt.Sprintf("CREATE GROUP words IN %s KEY (text) BY LIST (('a', 'b ', '') ON %[1]s_d1, ('007', 'it''s') ON %[1]s_d2, DEFAULT ON %[1]s_d0)", name),
			fmt.Sprintf("CREATE GROUP spots IN %s KEY (text, date) BY RANGE (MINVALUE TO ('AT', '2026-01-03') ON %[1]s_d0, ('AT', '2026-01-03') TO ('DE', '2026-01-02') ON %[1]s_d1, ('DE', '2026-01-02') TO MAXVALUE ON %[1]s_d2)", name),
		)
	}
	out = append(out, "CREATE GROUP ids IN "+name+" KEY (bigint) BY HASH", "CREATE GROUP words IN "+name+" KEY (text) BY HASH", "CREATE GROUP spots IN "+name+" KEY (text, date) BY HASH")
	if width == 7 {
		for i, pin := range []string{"(3) OF %[1]s.ids", "(19) OF %[1]s.ids", "('a') OF %[1]s.words", "('DE', '2026-01-02') OF %[1]s.spots"} {
			out = append(out, fmt.Sprintf("PIN KEY "+pin+" ON %[1]s_d%[2]d", name, i))
		}
	}
	return out
}

// diffLater is made when the tables are distributed already: a view of them, and functions of their rows.
var diffLater = []string{
	"create view spenders as select customer_id, sum(total) as total from orders group by customer_id",
	"create function titled(customers) returns text language sql immutable as $$select 'c ' || $1.name$$",
	"create function sort_of(anyelement) returns text language sql immutable as $$select 'any'::text$$",
	"create function sort_of(customers) returns text language sql immutable as $$select 'customer'::text$$",
}

// The same statements on one PostgreSQL with all the rows and over so many shards: equal, or refused. Those of
// testdata/diff come first, then random ones, of which a failing one is shrunk.
func TestSameAnswersAsOnePostgreSQL(t *testing.T) {
	t.Parallel()
	d := shop(t)
	freshDatabase(t, d.cluster.Node("s1-a"), "oracle")
	one := connectTo(t, strings.Replace(d.cluster.Node("s1-a").DSN("oracle"), "postgres:"+d.cluster.Password, "app:app", 1))
	for _, sql := range slices.Concat(diffSchema, diffRows, diffLater) {
		mustExec(t, one, sql)
	}
	widths := diffWidths(t)
	worlds := map[int]*pgx.Conn{}
	for _, w := range widths {
		worlds[w] = diffWorld(t, d, w)
	}
	modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec}
	asked, selects, refused, failed := 0, 0, 0, 0
	compare := func(sql string, mode pgx.QueryExecMode, want answer, width int) string {
		got := ask2(t, worlds[width], sql, mode)
		asked++
		read := !strings.HasPrefix(sql, "insert")
		if read && want.code == "" {
			selects++
		}
		if got.code == "0A000" && want.code != "0A000" || got.code == "23502" && !read {
			if read {
				refused++
				t.Logf("refused over %d shards: %s", width, sql)
			}
			return "" // clearly: nothing was done
		}
		return differs(sql, want, got)
	}
	var lines []string
	files, err := filepath.Glob("../../testdata/diff/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(string(b), "\n")...)
	}
	for n, sql := range lines {
		if sql = strings.TrimSpace(sql); sql == "" || strings.HasPrefix(sql, "--") {
			continue
		}
		read := strings.HasPrefix(sql, "select") // one that writes is done everywhere as often as on one PostgreSQL
		for m, mode := range modes {
			if !strings.HasPrefix(sql, "select") && !strings.HasPrefix(sql, "with") && ask2(t, worlds[widths[0]], "explain (route) "+sql, mode).code == "0A000" {
				continue // a write that is refused is done nowhere
			}
			want := ask2(t, one, sql, mode)
			for i, w := range widths {
				if read && m > 0 && i != (n+m)%len(widths) {
					continue // over all widths in one mode, and in each mode over one
				}
				if why := compare(sql, mode, want, w); why != "" {
					t.Errorf("%s (%s, %d shards): %s", sql, mode, w, why)
				}
			}
		}
	}
	hand := asked
	rng := rand.New(rand.NewPCG(42, *diffSeed))
	for i := range *diffN {
		mode, w := modes[i%len(modes)], widths[rng.IntN(len(widths))]
		if i%8 == 0 {
			sql := randomSelect(rng)
			if why := compare(sql, mode, ask2(t, one, sql, mode), w); why != "" {
				t.Errorf("%s (%s, %d shards): %s", sql, mode, w, why)
			}
			continue
		}
		c := &choices{rng: rng}
		sql := statement(c)
		why := compare(sql, mode, ask2(t, one, sql, mode), w)
		if why == "" {
			continue
		}
		small := shrink(c, func(sql string) bool { return compare(sql, mode, ask2(t, one, sql, mode), w) != "" })
		t.Errorf("%s (%s, %d shards): %s\nit was found in\n%s", small, mode, w, compare(small, mode, ask2(t, one, small, mode), w), sql)
		if failed++; failed >= 5 {
			t.Fatal("enough")
		}
	}
	t.Logf("%d statements by hand, %d in all; of %d SELECTs that PostgreSQL answers %d were refused", hand, asked, selects, refused)
	if refused*100 > selects {
		t.Errorf("%d of %d SELECTs were refused", refused, selects)
	}
}

// randomSelect makes a statement over the diff schema: filters, joins, groups and orders put together by chance.
func randomSelect(rng *rand.Rand) string {
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	num := func() string {
		return pick("1", "2", "3", "5", "7", "11", "19", "20", "21", "-1", "0", "null", "'4'", "3.0", "6::bigint")
	}
	cond := func(a string) string {
		return pick(a+".customer_id = "+num(), a+".customer_id in ("+num()+", "+num()+")", a+".customer_id > "+num(), a+".customer_id between 3 and "+num(),
			a+".customer_id = "+num()+" or "+a+".customer_id = "+num(), "not "+a+".customer_id = "+num(), a+".customer_id is not null")
	}
	from := pick("customers c", "customers c join orders o on o.customer_id = c.customer_id", "customers c left join orders o on o.customer_id = c.customer_id",
		"customers c join countries k on k.code = c.country", "customers c left join countries k on k.code = c.country and c.small > 2", "countries k left join customers c on c.country = k.code",
		"customers c join orders o on o.order_id = c.customer_id", "customers c join orders o using (customer_id)", "customers c, settings s",
		"customers c left join orders o on o.customer_id = c.customer_id and c.customer_id = "+num(), "(select * from customers where small > 1) c")
	where := ""
	for i := range rng.IntN(3) {
		where += []string{" where ", " and "}[min(i, 1)] + pick(cond("c"), cond("c"), "c.country = 'DE'", "c.small is null", "c.ratio > 1", "exists (select 1 from orders x where x.customer_id = c.customer_id)")
	}
	switch rng.IntN(3) {
	case 0:
		agg := pick("count(*)", "sum(c.small)", "avg(c.big)", "min(c.day)", "max(c.ratio)", "count(c.country)", "sum(c.big)", "avg(c.small)")
		g := pick("c.country", "c.small", "c.day", "c.customer_id", "c.ratio")
		if rng.IntN(2) == 0 {
			return "select " + agg + ", count(*) from " + from + where
		}
		return "select " + g + ", " + agg + " from " + from + where + " group by " + g + pick("", " order by 1", " order by 1 desc nulls last limit 3", " order by 1 offset 1")
	case 1:
		return "select c.customer_id, c.name, c.small from " + from + where + pick("", "", " order by c.customer_id, 1, 2, 3 limit 5", " order by c.small nulls first, c.customer_id", " order by c.ratio desc, c.customer_id offset 2", " order by c.day, c.customer_id limit 4")
	}
	return "select c.* from " + from + where
}
