package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var (
	dmlN    = flag.Int("dml.n", 40, "scripts of writes in the test that compares tables with one PostgreSQL")
	dmlSeed = flag.Uint64("dml.seed", 20261125, "seed of that test")
)

// writer makes scripts of writes: transactions with savepoints and mistakes, single statements.
type writer struct{ *rand.Rand }

func (w writer) of(list ...string) string { return list[w.IntN(len(list))] }

func (w writer) id() string { return fmt.Sprint(w.IntN(26)) }

func (w writer) text() string {
	return w.of("'DE'", "'AT'", "'FR'", "null", "'n3'", "'it''s'", "'x' || 1")
}

// cond is a condition on customers under the name t.
func (w writer) cond(t string) string {
	switch w.IntN(9) {
	case 0, 1, 2:
		return t + ".customer_id = " + w.id()
	case 3:
		return t + ".customer_id in (" + w.id() + ", " + w.id() + ", " + w.id() + ")"
	case 4:
		return t + ".customer_id between " + w.id() + " and " + w.id()
	case 5:
		return t + ".customer_id % 5 = " + fmt.Sprint(w.IntN(5))
	case 6:
		return t + ".customer_id > " + w.id() + " and " + t + ".customer_id < 14"
	}
	return t + ".customer_id <> " + w.id()
}

func (w writer) statement() string {
	switch w.IntN(36) {
	case 32, 33, 34, 35:
		return w.odd()
	case 28, 29, 30:
		return w.copyIn()
	case 31:
		return w.copyOut()
	case 25, 26:
		return w.merge()
	case 27:
		return w.with()
	case 0:
		return "insert into customers (customer_id, name, country) values (" + w.id() + ", " + w.of("'new'", "null") + ", " + w.text() + ")" + w.of("", " on conflict do nothing", " on conflict (customer_id) do update set name = excluded.name || customers.name returning name")
	case 1, 2:
		var rows []string
		for range 1 + w.IntN(5) {
			rows = append(rows, fmt.Sprintf("(%s, %d, %d)", w.id(), 100+w.IntN(40), w.IntN(50)))
		}
		return "insert into orders (customer_id, order_id, total) values " + strings.Join(rows, ", ") + w.of("", " on conflict do nothing", " on conflict do nothing returning order_id, total", " returning customer_id")
	case 3:
		return "insert into orders (order_id, customer_id, total) select 200 + c.small, c.customer_id, c.small from customers c where " + w.cond("c") + w.of("", " on conflict do nothing", " on conflict (customer_id, order_id) do update set total = orders.total + 1 returning order_id, total")
	case 23:
		return w.of(
			"insert into orders (customer_id, order_id, total) select c.small + 1, 400 + c.customer_id, c.big / 1e17 from customers c where "+w.cond("c"),
			"insert into orders select 1 + o.order_id % 20, 500 + o.order_id, total from orders o where order_id < 40 and "+w.cond("o"),
			"insert into orders (order_id, customer_id) select 600 + v, 7 from texts where v is not null order by v limit 3",
			"insert into orders (order_id, customer_id, total) select 700 + g, g, (select max(total) from orders where customer_id = g) from generate_series(1, 12) g",
			"insert into customers (customer_id, name) select max(customer_id) + 1, 'last' from customers",
			"insert into texts select name, max(customer_id) from customers where customer_id > 15 group by name"+w.of("", " returning v"),
			"insert into texts (v, k) select count(*), country from customers group by country",
			"insert into marks select 'DE', day, n + 100, points from marks where region <> 'DE' and n % 7 = "+fmt.Sprint(w.IntN(7)),
			"insert into customers (customer_id, name) select 30 + id, name from tenant.things where id < 4",
			"insert into texts select name, 1 from settings union all select code, 2 from countries"+w.of("", " on conflict do nothing", " on conflict (k) do update set v = texts.v + excluded.v returning k, v"),
			"insert into orders as o (customer_id, order_id, total) select 1 + order_id % 20, 100 + order_id % 7, 1 from orders where order_id < 30 on conflict (customer_id, order_id) do "+w.of("nothing", "nothing returning *", "update set total = coalesce(o.total, 0) + 1 returning o.order_id, o.total"),
			"insert into customers (customer_id, name) select customer_id + 2000, 'r' from customers t where "+w.cond("t")+" returning customer_id, name, small",
			"insert into settings select 's' || customer_id, country from customers t where "+w.cond("t")+w.of("", " on conflict do nothing", " on conflict (name) do update set value = settings.value || excluded.value returning name, value"),
			"insert into settings (value, name) select count(*), 'n' || count(*) from orders union all select name, code from countries",
			"insert into countries select 'c' || small, min(name) from customers where small is not null group by small",
			"insert into countries (name, code) select coalesce(value, '-'), name || '"+fmt.Sprint(w.IntN(1e6))+"' from settings",
			"insert into customers (customer_id, name) select customer_id, 'c' from orders t where "+w.cond("t")+" group by customer_id on conflict (customer_id) do update set small = "+w.behind("customers")+" returning customer_id, small",
			"insert into customers (customer_id, name) select customer_id, 'd' from orders t where "+w.cond("t")+" group by customer_id on conflict do nothing returning customer_id, "+w.behind("customers"),
			"insert into customers (customer_id, name) select order_id % 30, 'm' from orders where order_id between 2 and 9 on conflict (customer_id) do update set small = "+w.behind("customers")+" where customers.customer_id <> "+w.behind("customers")+" returning customer_id, small",
			"insert into settings select 'q' || customer_id, country from customers t where "+w.cond("t")+" on conflict (name) do update set value = "+w.behind("settings")+"::text returning name, "+w.behind("settings"),
			"insert into customers (customer_id, small, name) select 50 + order_id, total, 'x' from orders where order_id in (1, 2, 3, 60)",
		)
	case 4:
		return "insert into orders (customer_id, order_id, total) select customer_id, 300 + max(order_id), count(*) from orders t where " + w.cond("t") + " group by customer_id" + w.of(" on conflict do nothing", " returning total")
	case 5, 6:
		return "update customers t set " + w.of("name = name || 'u'", "small = small + 1", "country = 'AT', small = null", "day = day + 1") + " where " + w.cond("t") + w.of("", " returning customer_id, name", " and country = 'DE' returning t.*")
	case 7:
		return "update customers t set small = (select count(*) from orders o where o.customer_id = t.customer_id) where " + w.cond("t")
	case 8:
		return "update customers t set small = s.n from (select customer_id, count(*) as n from orders group by customer_id) s where s.customer_id = t.customer_id and " + w.cond("t") + w.of("", " returning t.customer_id, s.n")
	case 9:
		return "update orders t set total = total + 1 from customers c where c.customer_id = t.customer_id and c.country = " + w.of("'DE'", "'AT'") + " and " + w.cond("t")
	case 10:
		return "update customers t set name = k.name from countries k where k.code = t.country and " + w.cond("t")
	case 11: // to keys that no other row has: PostgreSQL fails where a row meets one that has not moved yet
		return w.of(
			"update customers t set customer_id = "+w.id()+" where customer_id = "+w.id()+w.of("", " returning *", " returning t.customer_id, name"),
			"update customers t set customer_id = customer_id + "+fmt.Sprint(1000+1000*w.IntN(1e6))+", name = 'moved', day = '2026-05-05' where "+w.cond("t")+w.of("", " returning customer_id, day"),
			"update customers t set customer_id = customer_id + "+fmt.Sprint(1000+1000*w.IntN(1e6))+" where customer_id = "+w.id()+" returning customer_id, "+w.behind("t"),
			"update customers set customer_id = customer_id - 1000, small = small + 1 where customer_id > 1000",
			"update orders t set customer_id = c.small + 2, order_id = order_id + "+fmt.Sprint(w.IntN(1e9))+", total = total * 2 from customers c where c.customer_id = t.customer_id and order_id > 60 and c.small is not null and "+w.cond("t"),
			"update orders o set order_id = o.order_id + 1000, customer_id = case when total is not distinct from 3 then 4 else 1 + order_id % 20 end where order_id between 1 and 9 and o.customer_id in ("+w.id()+", "+w.id()+")",
			"update texts set k = k || '"+fmt.Sprint(w.IntN(1e9))+"', v = v + 1 where k "+w.of("= 'a'", "> 'd'", "in ('b', '7')")+w.of("", " returning k, v"),
			"update marks set day = day + 1, n = n + 200 where region = 'DE' and n < 40 and day <> '2026-01-03'",
			"update customers set customer_id = "+w.id()+", name = 'loose' where name = 'n"+w.id()+"'"+w.of("", " returning customer_id"),
			"update customers set customer_id = null where customer_id = "+w.id(),
			"update customers set customer_id = customer_id / 0 where customer_id = "+w.id(),
			"update customers set customer_id = 'nonsense' where customer_id = "+w.id(),
			"update orders set customer_id = customer_id where customer_id = "+w.id(),
		)
	case 12, 13:
		return "delete from orders t where " + w.cond("t") + " and order_id > 60" + w.of("", " returning order_id")
	case 14:
		return "delete from orders t using customers c where c.customer_id = t.customer_id and c.small = " + fmt.Sprint(w.IntN(7)) + " and " + w.cond("t")
	case 15:
		return "delete from customers t where not exists (select from orders o where o.customer_id = t.customer_id) and " + w.cond("t")
	case 16:
		return "delete from texts where k " + w.of("= 'a'", "> 'c'", "in ('b', 'new', '7')") + w.of("", " returning *")
	case 17:
		return "insert into texts values (" + w.of("'new'", "'a'", "'zz'", "'007'") + ", " + w.id() + "), (" + w.of("'k1'", "'k2'", "'a'") + ", 1) on conflict (k) do update set v = texts.v + excluded.v"
	case 18:
		return "insert into marks values (" + w.of("'DE'", "'AT'", "''") + ", '2026-01-0" + fmt.Sprint(1+w.IntN(6)) + "', " + w.id() + ", 1), ('n3', '2026-01-02', " + w.id() + ", 2) on conflict do nothing"
	case 19:
		return "update " + w.of("marks", "marks", "marks_late", "marks_early") + " set points = points + n where " + w.of("region = 'DE'", "day > '2026-01-02'", "(region, day) = ('AT', '2026-01-03')", "region >= 'AT'")
	case 20:
		return "update countries set name = name || " + w.of("'!'", "'?'") + " where code " + w.of("= 'DE'", "<> 'XX'", "> 'A'")
	case 21:
		return "insert into countries values (" + w.of("'FR'", "'DE'", "'NL'") + ", 'Somewhere') on conflict (code) do " + w.of("nothing", "update set name = excluded.name")
	case 22:
		return w.of("update tenant.parts set customer = customer + 1 where id % 3 = 1", "insert into tenant.parts select id + 100, thing, customer from tenant.parts where id < 5 on conflict do nothing", "delete from tenant.parts where id > 100", "insert into tenant.things values (99, 'x') on conflict do nothing")
	}
	return w.of("select 1/0 from customers", "insert into customers values (1, 'dup')", "update settings set value = value || 'x' where name = 'a'", "update orders set total = total / 0 where customer_id = 3", "insert into tenant.parts values (500, 12345, 1)",
		"update customers set name = null where customer_id in (1, 2, 3, 4)", "delete from customers where customer_id = 1 / (small - small)")
}

// behind is a subquery of ON CONFLICT or RETURNING of a write of t.
func (w writer) behind(t string) string {
	return "(select count(*) from " + w.of("orders", "customers", "settings", "countries", "orders o where o.customer_id = "+w.id(), "orders o where o.customer_id = "+w.of(t, "excluded")+".customer_id", "orders o where o.customer_id = "+t+".customer_id and o.total > "+w.id()) + ")"
}

// odd is a write of a table whose names need quotes.
func (w writer) odd() string {
	t, k := `"odd.schema"."odd.name"`, `"key.col"`
	return w.of(
		`insert into `+t+` (`+k+`, "a.b", "it's ""said""") values (`+w.id()+`, 1, 'v'), (`+w.id()+`, 2, 'w'), (40, 3, 'x')`+w.of("", ` on conflict do nothing`, ` on conflict (`+k+`) do update set "a.b" = excluded."a.b" + "odd.name"."a.b" returning `+k+`, "a.b"`),
		`insert into `+t+` as "o.n" ("a.b", `+k+`) select "x y", `+oddKey+` + `+w.id()+` from `+oddLong+` where "select" = 'DE' on conflict (`+k+`) do `+w.of("nothing", `update set "group" = "o.n"."group" || 'x', "UPPER" = null returning "o.n"."group"`),
		`insert into `+oddLong+` ("select", `+oddKey+`) select 'm' || "a.b", "a.b" from `+t+` where `+k+` > `+w.id()+` and "a.b" is not null group by "a.b" `+w.of("on conflict do nothing", `on conflict (`+oddKey+`, "select") do update set "x y" = 9 returning *`),
		`update `+t+` set "a.b" = "a.b" + 1, "it's ""said""" = "group" where `+k+` `+w.of("= ", "> ", "<> ")+w.id()+w.of("", ` returning `+k+`, "it's ""said"""`),
		`update `+t+` "u.p" set `+k+` = `+k+` + `+fmt.Sprint(1000+1000*w.IntN(1e6))+`, "UPPER" = '2026-05-05' where "u.p".`+k+` in (`+w.id()+", "+w.id()+`) returning "u.p".*`,
		`update `+oddLong+` set `+oddKey+` = `+oddKey+` + 500, "select" = "select" || '`+fmt.Sprint(w.IntN(1e9))+`' where `+oddKey+` = `+w.id(),
		`update `+t+` "u.p" set "a.b" = "s.s"."n.n" from (select `+oddKey+` as "k.k", count(*) as "n.n" from `+oddLong+` group by `+oddKey+`) "s.s" where "s.s"."k.k" = "u.p".`+k,
		`delete from `+t+` where `+k+` > 24 and "a.b" = `+w.of("1", "2", "3")+w.of("", ` returning *`),
		`delete from `+t+` "d.d" using `+oddLong+` "l.l" where "l.l".`+oddKey+` = "d.d".`+k+` and "d.d".`+k+` = `+w.id(),
		`insert into "ref.odd" values (`+w.of("'FR'", "'DE'", "'NL'")+`, 'Somewhere') on conflict ("co.de") do `+w.of("nothing", `update set "na""me" = excluded."na""me" returning "na""me"`),
		`update "ref.odd" set "na""me" = "na""me" || '!' where "co.de" `+w.of("= 'DE'", "> 'A'"),
		`insert into "home.odd" select 100 + `+k+`, "group" from `+t+` where `+k+` < `+w.id()+w.of(" on conflict do nothing", ` on conflict ("table") do update set "v.w" = excluded."v.w" returning "v.w"`),
		`merge into `+t+` "m.m" using (values (`+w.id()+`, 'x')) "s.s" ("k.k", "v.v") on "m.m".`+k+` = "s.s"."k.k" when matched then update set "group" = "s.s"."v.v" when not matched then insert (`+k+`, "a.b") values ("s.s"."k.k", 5)`,
		`with "w.w" as (update `+t+` set "a.b" = 1 where `+k+` = 7 returning `+k+` as "k.k") select "k.k" from "w.w"`,
	)
}

// merge is a MERGE: for one key, over the shards, and of what no shard can tell.
func (w writer) merge() string {
	k := w.id()
	return w.of(
		"merge into customers t using (values ("+k+", 'm1', 3)) s (k, v, n) on t.customer_id = s.k when matched and s.n > coalesce(t.small, 0) then update set name = t.name || s.v when matched then delete when not matched then insert (customer_id, name, small) values (s.k, s.v, s.n)",
		"merge into customers t using (select "+k+" as k, 'm2'::text as v) s on s.k = t.customer_id when not matched then insert (name, customer_id) values (s.v, s.k) when matched then update set country = 'AT'",
		"merge into customers t using (values ("+k+", 'x'), ("+w.id()+", 'y'), ("+w.id()+", 'z')) s (k, v) on t.customer_id = s.k when matched then update set name = s.v",
		"merge into customers t using (select customer_id, count(*) as n, sum(total) as total from orders group by customer_id) s on s.customer_id = t.customer_id when matched then update set small = s.n when not matched then insert (customer_id, name, small) values (s.customer_id, 'found', s.n)",
		"merge into orders t using customers c on t.customer_id = c.customer_id and t.order_id = 900 + c.small when matched then update set total = coalesce(t.total, 0) + 1 when not matched and c.small is not null then insert (customer_id, order_id, total) values (c.customer_id, 900 + c.small, c.small)",
		"merge into orders t using customers c on t.customer_id = c.customer_id and c.customer_id = "+k+" when matched and t.order_id > 60 then delete when matched then do nothing",
		"merge into customers t using countries k on k.code = t.country and "+w.cond("t")+" when matched then update set name = k.name",
		"merge into customers t using orders o on o.customer_id = t.customer_id when matched then update set name = 'twice'", // a row is hit again
		"merge into customers t using countries k on k.code = t.country when not matched then insert (customer_id, name) values ("+k+", k.name)",
		"merge into texts t using (values ('a', 1), ('m"+k+"', 2)) s (k, v) on t.k = s.k when matched then update set v = t.v + s.v when not matched then insert values (s.k, s.v)",
	)
}

// with is a statement with a WITH query that writes.
func (w writer) with() string {
	k := w.id()
	return w.of(
		"with d as (delete from orders where customer_id = "+k+" and order_id > 50 returning *) insert into orders select customer_id, order_id + 2000, total, created_at from d",
		"with d as (delete from orders where customer_id = "+k+" and order_id > 60 returning customer_id as c, order_id) select c, order_id from d order by 2",
		"with i as (insert into customers (customer_id, name) values ("+k+", 'w') on conflict do nothing returning customer_id) insert into orders (customer_id, order_id) values ("+k+", 800) on conflict do nothing returning order_id",
		"with i as (insert into customers (customer_id, name) values ("+k+", 'w') returning customer_id) insert into orders (customer_id, order_id) select customer_id, 801 from i on conflict do nothing",
		"with u as (update customers set small = small + 1 where customer_id = "+k+" returning *) select u.customer_id, u.small, c.small from u join customers c using (customer_id)",
		"with u as (update customers set small = 1 where customer_id = "+k+" returning customer_id) delete from orders using u where orders.customer_id = "+k+" and u.customer_id = orders.customer_id and order_id > 65",
		"with d as (delete from orders where order_id > 68 returning *) select count(*) from d",
		"with d as (delete from texts where k = 'zz' returning *) update texts set v = 5 where k = 'zz'",
	)
}

// copyTables are tables with the columns that a COPY gives, in its order: n is a number, s a text, d a date, k a number that no row has, m a small one.
var copyTables = []struct{ table, columns, kinds string }{
	{"customers", "(customer_id, name, country, small, day)", "nsSmd"},
	{"customers", "(day, name, customer_id)", "dsk"},
	{"orders", "(total, order_id, customer_id)", "nkn"},
	{"texts", "", "sn"},
	{"marks", "(n, day, region)", "nds"},
	{"marks", "", "sdkn"},
	{"countries", "(name, code)", "ss"},
	{"settings", "", "ss"},
	{"tenant.parts", "(customer, id)", "nk"},
	{`"odd.schema"."odd.name"`, `("it's ""said""", "key.col", "a.b")`, "Skm"},
	{oddLong, `(` + oddKey + `, "select")`, "ks"},
	{`"ref.odd"`, "", "ss"},
}

// withData is COPY FROM STDIN with what is sent behind a NUL.
const withData = "\x00"

// copyIn is a COPY of a few lines, some with one mistake. Of several mistakes it is left to the server which it sees first: lines
// with one have keys that no row has.
func (w writer) copyIn() string {
	x := copyTables[w.IntN(len(copyTables))]
	mistake := w.IntN(12)
	csv := w.IntN(2) == 0
	null, sep, opts := `\N`, "\t", w.of("", " (format text)", " (null '\\N')")
	if csv {
		null, sep, opts = "", ",", w.of(" (format csv)", " csv", " with (format csv, delimiter ';')", " (format csv, header)", " (format csv, force_null ("+w.first(x.table)+"))", " (format csv, null 'DE', force_not_null ("+w.first(x.table)+"))", " (format csv, null 'AT', force_null ("+w.first(x.table)+"), force_not_null ("+w.first(x.table)+"))")
		if strings.Contains(opts, ";") {
			sep = ";"
		}
		if x.columns == "" {
			if head, _, forced := strings.Cut(opts, ", force"); forced {
				opts = head + ")"
			}
		}
	}
	var lines []string
	if strings.Contains(opts, "header") {
		lines = append(lines, "the names")
	}
	for i := range w.IntN(7) {
		var fields []string
		for _, kind := range x.kinds {
			v := w.of("DE", "AT", "x"+w.id(), "it's", "é")
			switch {
			case kind == 'k' || mistake < 3 && kind == 'n':
				v = fmt.Sprint(10_000_000 + 3001*w.IntN(3e5)) // nor comes to have by the thousands that keys are moved by
			case kind == 'n' || kind == 'm':
				v = w.id()
			case kind == 'd':
				v = "2026-02-0" + fmt.Sprint(1+w.IntN(9))
			case kind == 'S' && w.IntN(2) == 0:
				v = null
			case mistake < 3:
				v = "u" + fmt.Sprint(w.IntN(1e6))
			case csv && w.IntN(4) == 0:
				v = `"a` + sep + ` ""b""` + "\n" + `c"`
			case !csv && w.IntN(4) == 0:
				v = `a\tb\\\x41\101`
			}
			fields = append(fields, v)
		}
		if i == 1 {
			switch mistake {
			case 0:
				fields = fields[1:]
			case 1:
				fields[strings.IndexAny(x.kinds, "nks")] = null
			case 2:
				fields[len(fields)-1] = "an odd" + " word"
			}
		}
		lines = append(lines, strings.Join(fields, sep))
	}
	where := ""
	if w.IntN(6) == 0 && mistake > 2 && !strings.Contains(opts, "null '") { // a row without a key is refused before WHERE leaves it out
		where = " where " + w.of("true", "false", w.first(x.table)+" is null", w.first(x.table)+"::text > '4'")
	}
	end := w.of("\n", "\n", "\n\\.\n")
	if len(lines) == 0 {
		end = ""
	}
	return "copy " + x.table + " " + x.columns + " from stdin" + opts + where + withData + strings.Join(lines, "\n") + end
}

// first is a column of a table that copyIn fills.
func (w writer) first(table string) string {
	return map[string]string{"customers": "name", "orders": "order_id", "texts": "v", "marks": "region", "countries": "name", "settings": "value", "tenant.parts": "id", `"odd.schema"."odd.name"`: `"a.b"`, oddLong: `"select"`, `"ref.odd"`: `"na""me"`}[table]
}

// copyOut is a COPY of rows to the client.
func (w writer) copyOut() string {
	return "copy " + w.of("customers", "orders (order_id, total)", "texts", "marks (region, n)", "countries", "settings", "tenant.parts", `"odd.schema"."odd.name" ("group", "key.col")`, oddLong, `(select "co.de" from "ref.odd")`,
		"(select customer_id, name from customers t where "+w.cond("t")+")", "(select count(*) from orders)", "(select country, count(*) from customers group by country)",
		"(delete from orders where customer_id = "+w.id()+" and order_id > 65 returning order_id)") + " to stdout" + w.of("", " csv", " (format csv, force_quote *, null 'nil')", " (delimiter '|')")
}

// askCopy runs a COPY. Rows that come are compared as a bag of lines: none holds a line feed unquoted.
func askCopy(t testing.TB, c *pgx.Conn, sql string) (a answer) {
	t.Helper()
	head, data, in := strings.Cut(sql, withData)
	var tag pgconn.CommandTag
	var err error
	if in {
		tag, err = c.PgConn().CopyFrom(t.Context(), iotest.HalfReader(strings.NewReader(data)), head)
	} else {
		var out bytes.Buffer
		tag, err = c.PgConn().CopyTo(t.Context(), &out, head)
		a.rows = strings.Split(out.String(), "\n")
	}
	a.tag = tag.String()
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return answer{code: pe.Code}
	}
	if err != nil {
		t.Fatalf("%q: %v", sql, err)
	}
	return a
}

// script makes a few statements, most of them in a transaction.
func (w writer) script() []string {
	if w.IntN(3) == 0 {
		return []string{w.statement()}
	}
	out := []string{"begin"}
	saved := 0
	for range 1 + w.IntN(6) {
		switch n := w.IntN(8); {
		case n == 0:
			saved++
			out = append(out, fmt.Sprintf(`savepoint "s.%d"`, saved))
		case n == 1 && saved > 0:
			out = append(out, fmt.Sprintf(`rollback to "s.%d"`, saved))
		case n == 2 && saved > 0:
			out = append(out, fmt.Sprintf(`release "s.%d"`, saved))
			saved--
		default:
			out = append(out, w.statement())
			if saved > 0 && w.IntN(4) == 0 {
				out = append(out, fmt.Sprintf(`rollback to "s.%d"`, saved))
			}
		}
	}
	return append(out, w.of("commit", "commit", "commit", "rollback"))
}

// badData says whether an error is of a row's values.
func badData(code string) bool { return strings.HasPrefix(code, "22") || strings.HasPrefix(code, "23") }

// tableSums are what must be equal after each script.
var tableSums = []string{
	"select count(*), sum(hashtext(customer_id || name || coalesce(country, '-') || coalesce(small, -1) || coalesce(day::text, ''))) from customers",
	"select count(*), sum(hashtext(customer_id || ':' || order_id || ':' || coalesce(round(total, 3)::text, '-'))) from orders",
	"select count(*), sum(hashtext(k || ':' || coalesce(v, -1))) from texts", "select count(*), sum(hashtext(code || name)) from countries",
	"select count(*), sum(hashtext(region || day::text || n || coalesce(points, -1))) from marks", "select count(*), sum(hashtext(id || ':' || coalesce(thing, -1) || ':' || customer)) from tenant.parts",
	"select count(*), sum(hashtext(name || coalesce(value, '-'))) from settings",
	`select count(*), sum(hashtext("key.col" || coalesce("a.b", -1) || coalesce("it's ""said""", '-') || coalesce("group", '-') || coalesce("UPPER"::text, '-'))) from "odd.schema"."odd.name"`,
	`select count(*), sum(hashtext(` + oddKey + ` || "select" || coalesce("x y", -1))) from ` + oddLong, `select count(*), sum(hashtext("co.de" || coalesce("na""me", '-'))) from "ref.odd"`,
	`select count(*), sum(hashtext("table" || coalesce("v.w", '-'))) from "home.odd"`,
}

// Random scripts of writes on one PostgreSQL and over shards: every answer and, after each script, every table is equal,
// and the copies of reference tables are equal to one another.
func TestSameTablesAfterWrites(t *testing.T) {
	t.Parallel()
	d := shop(t)
	freshDatabase(t, d.cluster.Node("s1-a"), "written")
	one := connectTo(t, strings.Replace(d.cluster.Node("s1-a").DSN("written"), "postgres:"+d.cluster.Password, "app:app", 1))
	setUp := func(c *pgx.Conn, list ...string) {
		for _, sql := range list {
			mustExec(t, c, sql)
		}
	}
	modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec}
	for _, width := range diffWidths(t) {
		if width == 1 {
			continue // all is on one PostgreSQL
		}
		t.Run(fmt.Sprint(width), func(t *testing.T) {
			mustExec(t, one, `drop schema if exists tenant, "odd.schema" cascade`)
			mustExec(t, one, "drop schema public cascade")
			mustExec(t, one, "create schema public")
			setUp(one, slices.Concat(diffSchema, diffRows, diffLater)...)
			many := diffWorld(t, d, width)
			router := connectTo(t, many.Config().ConnString())
			w := writer{rand.New(rand.NewPCG(*dmlSeed, uint64(width)))}
			skipped, ran, failed, copies := 0, 0, 0, 0
			for n := range *dmlN {
				mode := modes[n%len(modes)]
				script := w.script()
				var log []string
				for _, sql := range script {
					if strings.ContainsAny(sql, "'=*") && !strings.HasPrefix(sql, "copy") && ask2(t, router, "explain (route) "+sql, pgx.QueryExecModeSimpleProtocol).code == "0A000" {
						skipped++
						continue
					}
					log = append(log, sql)
					ask := func(c *pgx.Conn) answer {
						if strings.HasPrefix(sql, "copy") {
							return askCopy(t, c, sql)
						}
						return ask2(t, c, sql, mode)
					}
					want, got := ask(one), ask(many)
					ran++
					if strings.HasPrefix(sql, "copy") {
						copies++
					}
					if want.code != "" {
						failed++
					}
					if len(want.code) == 5 && len(got.code) == 5 && (want.code[:2] == got.code[:2] || badData(want.code) && badData(got.code)) {
						continue // of several mistakes the row that comes first decides
					}
					if why := differs(sql, want, got); why != "" {
						t.Fatalf("script %d (%s): %s: %s\nin: %s", n, mode, sql, why, strings.Join(log, "; "))
					}
				}
				if one.PgConn().TxStatus() != 'I' || many.PgConn().TxStatus() != 'I' {
					t.Fatalf("script %d: a transaction is open: %s", n, strings.Join(log, "; "))
				}
				for _, sql := range tableSums {
					if why := differs(sql, ask2(t, one, sql, pgx.QueryExecModeSimpleProtocol), ask2(t, many, sql, pgx.QueryExecModeSimpleProtocol)); why != "" {
						t.Fatalf("script %d (%s): %s: %s\nafter: %s", n, mode, sql, why, strings.Join(log, "; "))
					}
				}
			}
			t.Logf("%d statements (%d COPY), %d of them failed on both sides, %d were not tried because they are refused", ran, copies, failed, skipped)
			sums := map[string]bool{}
			for i := range width {
				c := connectTo(t, d.cluster.Node([]string{"s1-a", "s2-a"}[i%2]).DSN(fmt.Sprintf("diff%d_%d", width, i)))
				sums[queryOne[string](t, c, "select count(*) || ':' || sum(hashtext(code || name)) from countries")] = true
			}
			if len(sums) != 1 {
				t.Errorf("the copies of countries differ: %v", sums)
			}
		})
	}
}

// What an UPDATE that changes keys must not do: act on what refers to the row, or take a comment for code.
func TestKeyChanges(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "rekeyed")
	mustExec(t, c, "create table parents (id int primary key, name varchar(5), price numeric(6,2), tags text[], n int generated always as (id * 2) stored)")
	mustExec(t, c, "create table children (id int not null references parents on delete cascade, line int, primary key (id, line))")
	mustExec(t, c, "alter table children drop constraint children_id_fkey")
	d.adminExec(t, "CREATE GROUP g IN rekeyed KEY (int) BY LIST ((1, 2) ON rekeyed_s0, (11, 12) ON rekeyed_s1, DEFAULT ON rekeyed_s2)")
	d.adminExec(t, "DISTRIBUTE TABLE rekeyed.public.parents IN GROUP g KEY (id)")
	d.adminExec(t, "DISTRIBUTE TABLE rekeyed.public.children IN GROUP g KEY (id)")
	mustExec(t, c, "insert into parents values (1, 'a', 1.25, '{x,y}'), (2, 'b', null, null)")
	mustExec(t, c, "insert into children values (1, 1)")
	_, err := c.Exec(t.Context(), "alter table children add foreign key (line) references parents")
	wantCode(t, err, "0A000")
	mustExec(t, c, "alter table children add constraint family foreign key (id) references parents on delete cascade")
	_, err = c.Exec(t.Context(), "insert into children values (12, 1)")
	wantCode(t, err, "23503")
	_, err = c.Exec(t.Context(), "update parents set id = 11 where id = 2")
	wantCode(t, err, "0A000") // ON DELETE CASCADE
	mustExec(t, c, "drop table children")
	for _, step := range []struct {
		sql  string
		args []any
		want string
	}{
		{"update parents set id = 11 where id = 2 returning id, n, name", nil, "[[11 22 b]]"},
		{"update /* set x = 1 */ parents -- where\n set id = id + 1 -- from here\n, name = $1 -- to there\n where id = $2 -- and no further\n", []any{"cc", 11}, "[]"},
		{"update parents as p set price = 7.255, id = $1::int + 4 where p.id = $1 returning p.*", []any{12}, "[[16 cc {725500 ...}"},
		{"update parents set id = id where id = 16", nil, "[]"},
		{"update parents set id = 1 where id = 99 returning name", nil, "[]"},
	} {
		rows, err := c.Query(t.Context(), step.sql, step.args...)
		if err != nil {
			t.Fatal(step.sql, err)
		}
		got, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) ([]any, error) { return r.Values() })
		if err != nil || len(got) > 0 != (step.want != "[]") {
			t.Errorf("%s: %v, %v", step.sql, got, err)
		}
	}
	for sql, code := range map[string]string{
		"update parents set id = 1 where id = 16": "23505", "update parents set id = 2, name = 'too long' where id = 16": "22001", "update parents set id = name where id = 16": "42804",
		"update parents set id = null where id = 16": "23502", "update parents set id = 2147483648 where id = 16": "22003",
	} {
		_, err := c.Exec(t.Context(), sql)
		wantCode(t, err, code)
	}
	if got := queryOne[string](t, c, "select string_agg(id || ' ' || n || ' ' || name || ' ' || coalesce(price::text, '-') || ' ' || coalesce(tags::text, '-'), ', ' order by id) from parents"); got != "1 2 a 1.25 {x,y}, 16 32 cc 7.26 -" {
		t.Error(got)
	}
	if n := queryOne[int](t, d.on(t, "rekeyed", 2), "select count(*) from parents where id = 16"); n != 1 {
		t.Errorf("%d rows where it belongs", n)
	}
}

// INSERT ... SELECT whose rows are made elsewhere, with parameters in both formats, and as Django and SQLAlchemy write it.
func TestInsertSelectOverShards(t *testing.T) {
	t.Parallel()
	d, c := schemesWorld(t, "moved")
	mustExec(t, c, "create table facts (k int primary key, name varchar(6), at timestamptz, tags text[], n numeric(6,2) default 7)")
	d.adminExec(t, "CREATE GROUP g IN moved KEY (int) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE moved.public.facts IN GROUP g KEY (k)")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec} {
		mustExec(t, c, "truncate facts")
		tag, err := c.Exec(t.Context(), "insert into facts (k, name, tags) select * from unnest($1::int[], $2::text[]) u(a, b), (values (array['x', 'y'])) v(t)", mode, []int32{1, 2, 3, 4, 5}, []string{"a", "b", "c", "d", "e"})
		if err != nil || tag.String() != "INSERT 0 5" {
			t.Fatalf("%s: %s, %v", mode, tag, err)
		}
		rows, _ := c.Query(t.Context(), "insert into facts (name, k) select name || $1, k + $2 from facts order by k returning k, name, n", mode, "!", int32(10))
		got, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (s string, err error) {
			var k int
			var name string
			var n float64
			err = r.Scan(&k, &name, &n)
			return fmt.Sprint(k, name, n), err
		})
		if err != nil || fmt.Sprint(got) != "[11a!7 12b!7 13c!7 14d!7 15e!7]" {
			t.Errorf("%s: %v, %v", mode, got, err)
		}
		rows, _ = c.Query(t.Context(), "insert into facts as f (k, name) select g, 'new' from generate_series(4, $1::int) g on conflict (k) do update set name = f.name || '+' returning k", mode, int32(17))
		ks, err := pgx.CollectRows(rows, pgx.RowTo[int32])
		if err != nil || len(ks) != 14 || ks[0] != 4 {
			t.Errorf("%s: %v, %v", mode, ks, err)
		}
		if s := queryOne[string](t, c, "select string_agg(name, ',' order by k) from facts where k in (4, 5, 6, 15, 17)"); s != "d+,e+,new,e!+,new" {
			t.Errorf("%s: %s", mode, s)
		}
		for sql, code := range map[string]string{
			"insert into facts (k, name) select k + 100, 'too long' from facts": "22001", "insert into facts (k) select name from facts": "42804", "insert into facts (k, name) select null, 'x' from facts": "23502",
			"insert into facts (k) select k + 1 from facts": "23505", "insert into facts (k, name) select 1 / (k - k), 'x' from facts": "22012", "insert into facts (k, name) select 900, 'x' from facts on conflict (k) do update set name = 'y'": "21000",
			"insert into facts (name) select name from facts": "23502",
		} {
			_, err := c.Exec(t.Context(), sql, mode)
			wantCode(t, err, code)
		}
		if n := queryOne[int](t, c, "select count(*) from facts"); n != 19-3+1 && n != 17 {
			t.Errorf("%s: %d rows", mode, n)
		}
	}
}
