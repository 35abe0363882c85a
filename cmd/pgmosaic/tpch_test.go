//go:build tpch

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TPC-H's tables, with rows drawn by the rules of the specification as far as its queries can tell: the same keys,
// ranges, words and correlations of dates, not the same text.
var tpchTables = []string{
	`create table region (r_regionkey int primary key, r_name char(25), r_comment varchar(152))`,
	`create table nation (n_nationkey int primary key, n_name char(25), n_regionkey int, n_comment varchar(152))`,
	`create table supplier (s_suppkey int primary key, s_name char(25), s_address varchar(40), s_nationkey int, s_phone char(15), s_acctbal numeric(15,2), s_comment varchar(101))`,
	`create table part (p_partkey int primary key, p_name varchar(55), p_mfgr char(25), p_brand char(10), p_type varchar(25), p_size int, p_container char(10), p_retailprice numeric(15,2), p_comment varchar(23))`,
	`create table partsupp (ps_partkey int, ps_suppkey int, ps_availqty int, ps_supplycost numeric(15,2), ps_comment varchar(199), primary key (ps_partkey, ps_suppkey))`,
	`create table customer (c_custkey int primary key, c_name varchar(25), c_address varchar(40), c_nationkey int, c_phone char(15), c_acctbal numeric(15,2), c_mktsegment char(10), c_comment varchar(117))`,
	`create table orders (o_orderkey int primary key, o_custkey int, o_orderstatus char(1), o_totalprice numeric(15,2), o_orderdate date, o_orderpriority char(15), o_clerk char(15), o_shippriority int, o_comment varchar(79))`,
	`create table lineitem (l_orderkey int, l_partkey int, l_suppkey int, l_linenumber int, l_quantity numeric(15,2), l_extendedprice numeric(15,2), l_discount numeric(15,2), l_tax numeric(15,2),
	   l_returnflag char(1), l_linestatus char(1), l_shipdate date, l_commitdate date, l_receiptdate date, l_shipinstruct char(25), l_shipmode char(10), l_comment varchar(44), primary key (l_orderkey, l_linenumber))`,
}

var tpchPlacement = []string{
	"region AS REFERENCE", "nation AS REFERENCE", "supplier AS REFERENCE", "part AS REFERENCE", "partsupp AS REFERENCE",
	"customer IN GROUP customers KEY (c_custkey)", "orders IN GROUP orders KEY (o_orderkey)", "lineitem IN GROUP orders KEY (l_orderkey)",
}

// tpchData writes the rows of every table in COPY's text format.
func tpchData(scale float64) map[string]*bytes.Buffer {
	rng := rand.New(rand.NewPCG(1, 9))
	out := map[string]*bytes.Buffer{}
	table := func(name string) *bytes.Buffer { out[name] = &bytes.Buffer{}; return out[name] }
	of := func(s string) string { l := strings.Split(s, ","); return l[rng.IntN(len(l))] }
	money := func(lo, hi int) string {
		n := lo + rng.IntN(hi-lo)
		return fmt.Sprintf("%d.%02d", n/100, max(n, -n)%100)
	}
	phone := func(nation int) string {
		return fmt.Sprintf("%d-%03d-%03d-%04d", nation+10, 100+rng.IntN(900), 100+rng.IntN(900), 1000+rng.IntN(9000))
	}
	words := strings.Fields("carefully express deposits sleep quickly bold special requests haggle furiously ironic packages wake blithely final accounts nag pending theodolites")
	comment := func(n int) string {
		w := make([]string, n)
		for i := range w {
			w[i] = words[rng.IntN(len(words))]
		}
		return strings.Join(w, " ")
	}
	day := func(n int) string {
		return time.Date(1992, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, n).Format(time.DateOnly)
	}
	w := table("region")
	for i, r := range strings.Split("AFRICA,AMERICA,ASIA,EUROPE,MIDDLE EAST", ",") {
		fmt.Fprintf(w, "%d\t%s\t%s\n", i, r, comment(4))
	}
	w = table("nation")
	for i, n := range strings.Split("ALGERIA 0,ARGENTINA 1,BRAZIL 1,CANADA 1,EGYPT 4,ETHIOPIA 0,FRANCE 3,GERMANY 3,INDIA 2,INDONESIA 2,IRAN 4,IRAQ 4,JAPAN 2,JORDAN 4,KENYA 0,MOROCCO 0,MOZAMBIQUE 0,PERU 1,CHINA 2,ROMANIA 3,SAUDI ARABIA 4,VIETNAM 2,RUSSIA 3,UNITED KINGDOM 3,UNITED STATES 1", ",") {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", i, n[:len(n)-2], n[len(n)-1:], comment(4))
	}
	suppliers, parts, customers, orders := int(10000*scale), int(200000*scale), int(150000*scale), int(1500000*scale)
	w = table("supplier")
	for i := 1; i <= suppliers; i++ {
		n := rng.IntN(25)
		c := comment(6)
		if i%200 == 7 {
			c = "the Customer has Complaints"
		}
		fmt.Fprintf(w, "%d\tSupplier#%09d\taddress %d\t%d\t%s\t%s\t%s\n", i, i, i, n, phone(n), money(-99999, 999999), c)
	}
	w = table("part")
	price := make([]int, parts+1)
	for i := 1; i <= parts; i++ {
		price[i] = 90000 + (i/10)%20001 + 100*(i%1000)
		m := 1 + rng.IntN(5)
		colours := "almond,azure,blue,chocolate,cornsilk,forest,green,lavender,navy,peach,rose,salmon,tan,white"
		fmt.Fprintf(w, "%d\t%s %s %s\tManufacturer#%d\tBrand#%d%d\t%s %s %s\t%d\t%s %s\t%d.%02d\t%s\n", i, of(colours), of(colours), of(colours), m, m, 1+rng.IntN(5),
			of("STANDARD,SMALL,MEDIUM,LARGE,ECONOMY,PROMO"), of("ANODIZED,BURNISHED,PLATED,POLISHED,BRUSHED"), of("TIN,NICKEL,BRASS,STEEL,COPPER"), 1+rng.IntN(50),
			of("SM,LG,MED,JUMBO,WRAP"), of("CASE,BOX,BAG,JAR,PKG,PACK,CAN,DRUM"), price[i]/100, price[i]%100, comment(1))
	}
	supplierOf := func(part, i int) int { return (part+i*(suppliers/4+(part-1)/suppliers))%suppliers + 1 }
	w = table("partsupp")
	for i := 1; i <= parts; i++ {
		for j := range 4 {
			fmt.Fprintf(w, "%d\t%d\t%d\t%s\t%s\n", i, supplierOf(i, j), 1+rng.IntN(9999), money(100, 100000), comment(8))
		}
	}
	w = table("customer")
	for i := 1; i <= customers; i++ {
		n := rng.IntN(25)
		fmt.Fprintf(w, "%d\tCustomer#%09d\taddress %d\t%d\t%s\t%s\t%s\t%s\n", i, i, i, n, phone(n), money(-99999, 999999), of("AUTOMOBILE,BUILDING,FURNITURE,MACHINERY,HOUSEHOLD"), comment(8))
	}
	o, l := table("orders"), table("lineitem")
	const last = 2557 - 151 // days from 1992-01-01
	for i := 1; i <= orders; i++ {
		key := (i-1)/8*32 + (i-1)%8 + 1
		cust := 1 + rng.IntN(customers)
		for cust%3 == 0 { // a third of the customers has no orders
			cust = 1 + rng.IntN(customers)
		}
		at := rng.IntN(last)
		open, n, total := 0, 1+rng.IntN(7), 0
		for line := 1; line <= n; line++ {
			part, qty, disc, tax := 1+rng.IntN(parts), 1+rng.IntN(50), rng.IntN(11), rng.IntN(9)
			ext := qty * price[part]
			ship, commit := at+1+rng.IntN(121), at+30+rng.IntN(61)
			receipt := ship + 1 + rng.IntN(30)
			flag, status := "N", "O"
			if receipt <= 1263 { // 1995-06-17
				flag = of("R,A")
			}
			if ship <= 1263 {
				status = "F"
			} else {
				open++
			}
			total += ext * (100 + tax) / 100 * (100 - disc) / 100
			fmt.Fprintf(l, "%d\t%d\t%d\t%d\t%d\t%d.%02d\t0.%02d\t0.%02d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", key, part, supplierOf(part, rng.IntN(4)), line, qty, ext/100, ext%100, disc, tax,
				flag, status, day(ship), day(commit), day(receipt), of("DELIVER IN PERSON,COLLECT COD,NONE,TAKE BACK RETURN"), of("REG AIR,AIR,RAIL,SHIP,TRUCK,MAIL,FOB,AIR REG"), comment(3))
		}
		status := "P"
		if open == n {
			status = "O"
		} else if open == 0 {
			status = "F"
		}
		fmt.Fprintf(o, "%d\t%d\t%s\t%d.%02d\t%s\t%s\tClerk#%09d\t0\t%s\n", key, cust, status, total/100, total%100, day(at), of("1-URGENT,2-HIGH,3-MEDIUM,4-NOT SPECIFIED,5-LOW"), 1+rng.IntN(1000), comment(5))
	}
	return out
}

// The 22 queries over two shards and on one PostgreSQL with all the rows: equal, with the time of each.
func TestTPCH(t *testing.T) {
	d := shop(t)
	ctx := context.Background()
	super := connectTo(t, d.cluster.Node("s1-a").DSN("postgres"))
	for i, n := range []string{"s1-a", "s2-a"} {
		mustExec(t, connectTo(t, d.cluster.Node(n).DSN("postgres")), fmt.Sprintf("create database tpch_%d owner app", i))
	}
	mustExec(t, super, "create database tpch_one owner app")
	d.adminExec(t, "CREATE DATABASE tpch")
	for i, n := range []string{"s1-a", "s2-a"} {
		d.adminExec(t, fmt.Sprintf("CREATE SHARD tpch_d%d IN tpch NODE '%s' NAME tpch_n%d", i, d.cluster.Node(n).DSN(fmt.Sprintf("tpch_%d", i)), i))
	}
	one := connectTo(t, strings.Replace(d.cluster.Node("s1-a").DSN("tpch_one"), "postgres:"+d.cluster.Password, "app:app", 1))
	many := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "tpch"))
	for _, c := range []*pgx.Conn{one, many} {
		for _, sql := range tpchTables {
			mustExec(t, c, sql)
		}
	}
	d.adminExec(t, "CREATE GROUP customers IN tpch KEY (integer) BY HASH")
	d.adminExec(t, "CREATE GROUP orders IN tpch KEY (integer) BY HASH")
	for _, p := range tpchPlacement {
		d.adminExec(t, "DISTRIBUTE TABLE tpch.public."+p)
	}
	data := tpchData(0.1)
	for _, c := range []*pgx.Conn{one, many} {
		for _, sql := range tpchTables {
			name := strings.Fields(sql)[2]
			if _, err := c.PgConn().CopyFrom(ctx, bytes.NewReader(data[name].Bytes()), "copy "+name+" from stdin"); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	mustExec(t, one, "analyze")
	for i, n := range []string{"s1-a", "s2-a"} {
		mustExec(t, connectTo(t, d.cluster.Node(n).DSN(fmt.Sprintf("tpch_%d", i))), "analyze")
	}
	mustExec(t, many, "set pgmosaic.gather_limit = '1GB'")
	f, err := os.Open("../../testdata/tpch/queries.sql")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	route := regexp.MustCompile(`^\w+`)
	for i, sql := range tpchQueries(t, f) {
		want, direct := timed(t, one, sql)
		got, ours := timed(t, many, sql)
		if why := differs(sql, want, got); why != "" {
			t.Errorf("Q%d: %s", i+1, why)
		}
		if len(want.rows) == 0 {
			t.Errorf("Q%d finds nothing", i+1)
		}
		how := ask2(t, many, "explain (route) "+sql, pgx.QueryExecModeSimpleProtocol)
		plan := strings.ToLower(route.FindString(strings.Trim(how.rows[0], `["`)))
		if strings.Contains(strings.Join(how.rows, ""), "Part: ") {
			plan = "two steps"
		}
		t.Logf("| Q%d | %s | %d rows | %.0f ms | %.0f ms | %.1f |", i+1, plan, len(got.rows), float64(direct)/1e6, float64(ours)/1e6, float64(ours)/float64(direct))
	}
}

func timed(t *testing.T, c *pgx.Conn, sql string) (answer, time.Duration) {
	ask2(t, c, sql, pgx.QueryExecModeSimpleProtocol) // warm
	start := time.Now()
	a := ask2(t, c, sql, pgx.QueryExecModeSimpleProtocol)
	return a, time.Since(start)
}

func tpchQueries(t *testing.T, r io.Reader) []string {
	var out []string
	var cur strings.Builder
	for s := bufio.NewScanner(r); s.Scan(); {
		if strings.HasPrefix(s.Text(), "--") {
			continue
		}
		cur.WriteString(strings.TrimSuffix(s.Text(), ";") + "\n")
		if strings.HasSuffix(s.Text(), ";") {
			out = append(out, cur.String())
			cur.Reset()
		}
	}
	if len(out) != 22 {
		t.Fatalf("%d queries", len(out))
	}
	return out
}
