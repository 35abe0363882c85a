//go:build tpcc

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	tpccFor        = flag.Duration("tpcc.for", 30*time.Second, "how long each side of TPC-C runs")
	tpccWarehouses = flag.Int("tpcc.warehouses", 8, "warehouses of TPC-C")
	tpccClients    = flag.Int("tpcc.clients", 16, "clients of TPC-C")
)

// The sizes of TPC-C's tables are a tenth of the specification's, so that they load in seconds.
const (
	tpccItems     = 10000
	tpccCustomers = 300 // a district
	tpccOrders    = 300 // a district, the last 90 of them new
	tpccDistricts = 10
)

var tpccTables = []string{
	"create table item (i_id int primary key, i_im_id int, i_name varchar(24), i_price numeric(5,2), i_data varchar(50))",
	"create table warehouse (w_id int primary key, w_name varchar(10), w_tax numeric(4,4), w_ytd numeric(12,2))",
	"create table district (d_w_id int, d_id int, d_name varchar(10), d_tax numeric(4,4), d_ytd numeric(12,2), d_next_o_id int, primary key (d_w_id, d_id))",
	`create table customer (c_w_id int, c_d_id int, c_id int, c_first varchar(16), c_last varchar(16), c_credit char(2), c_discount numeric(4,4), c_balance numeric(12,2), c_ytd_payment numeric(12,2),
	   c_payment_cnt int, c_delivery_cnt int, c_data varchar(500), primary key (c_w_id, c_d_id, c_id))`,
	"create index customer_name on customer (c_w_id, c_d_id, c_last, c_first)",
	"create table history (h_c_id int, h_c_d_id int, h_c_w_id int, h_d_id int, h_w_id int, h_date timestamptz, h_amount numeric(6,2), h_data varchar(24))",
	"create table orders (o_w_id int, o_d_id int, o_id int, o_c_id int, o_entry_d timestamptz, o_carrier_id int, o_ol_cnt int, o_all_local int, primary key (o_w_id, o_d_id, o_id))",
	"create index orders_customer on orders (o_w_id, o_d_id, o_c_id, o_id)",
	"create table new_order (no_w_id int, no_d_id int, no_o_id int, primary key (no_w_id, no_d_id, no_o_id))",
	`create table order_line (ol_w_id int, ol_d_id int, ol_o_id int, ol_number int, ol_i_id int, ol_supply_w_id int, ol_delivery_d timestamptz, ol_quantity int, ol_amount numeric(6,2), ol_dist_info char(24),
	   primary key (ol_w_id, ol_d_id, ol_o_id, ol_number))`,
	"create table stock (s_w_id int, s_i_id int, s_quantity int, s_dist char(24), s_ytd numeric(8,0), s_order_cnt int, s_remote_cnt int, s_data varchar(50), primary key (s_w_id, s_i_id))",
}

var tpccPlacement = []string{
	"item AS REFERENCE", "warehouse IN GROUP w KEY (w_id)", "district IN GROUP w KEY (d_w_id)", "customer IN GROUP w KEY (c_w_id)", "history IN GROUP w KEY (h_w_id)",
	"orders IN GROUP w KEY (o_w_id)", "new_order IN GROUP w KEY (no_w_id)", "order_line IN GROUP w KEY (ol_w_id)", "stock IN GROUP w KEY (s_w_id)",
}

// tpccConditions are the consistency conditions of the specification (3.3.2): each query gives the rows that break one.
var tpccConditions = []string{
	"select w_id from warehouse join (select d_w_id, sum(d_ytd) as ytd from district group by 1) d on d_w_id = w_id where w_ytd <> ytd",
	"select d_w_id, d_id from district join (select o_w_id, o_d_id, max(o_id) as last from orders group by 1, 2) o on o_w_id = d_w_id and o_d_id = d_id where d_next_o_id - 1 <> last",
	"select d_w_id, d_id from district join (select no_w_id, no_d_id, max(no_o_id) as last from new_order group by 1, 2) n on no_w_id = d_w_id and no_d_id = d_id where d_next_o_id - 1 <> last",
	"select no_w_id, no_d_id from new_order group by 1, 2 having max(no_o_id) - min(no_o_id) + 1 <> count(*)",
	`select o_w_id, o_d_id from (select o_w_id, o_d_id, sum(o_ol_cnt) as n from orders group by 1, 2) o join (select ol_w_id, ol_d_id, count(*) as m from order_line group by 1, 2) l
	   on ol_w_id = o_w_id and ol_d_id = o_d_id where n <> m`,
	"select o_w_id, o_d_id, o_id from orders left join new_order on no_w_id = o_w_id and no_d_id = o_d_id and no_o_id = o_id where (o_carrier_id is null) <> (no_o_id is not null)",
	"select o_w_id, o_d_id, o_id from orders o where o_ol_cnt <> (select count(*) from order_line l where ol_w_id = o_w_id and ol_d_id = o_d_id and ol_o_id = o_id)",
	"select o_w_id, o_d_id, o_id from orders join order_line on ol_w_id = o_w_id and ol_d_id = o_d_id and ol_o_id = o_id where (ol_delivery_d is null) <> (o_carrier_id is null)",
	"select w_id from warehouse join (select h_w_id, sum(h_amount) as ytd from history group by 1) h on h_w_id = w_id where w_ytd <> ytd",
	"select d_w_id, d_id from district join (select h_w_id, h_d_id, sum(h_amount) as ytd from history group by 1, 2) h on h_w_id = d_w_id and h_d_id = d_id where d_ytd <> ytd",
	`select c_w_id, c_d_id, c_id from customer left join (select h_c_w_id, h_c_d_id, h_c_id, sum(h_amount) as paid from history group by 1, 2, 3) h on h_c_w_id = c_w_id and h_c_d_id = c_d_id and h_c_id = c_id
	   left join (select o_w_id, o_d_id, o_c_id, sum(ol_amount) as got from orders join order_line on ol_w_id = o_w_id and ol_d_id = o_d_id and ol_o_id = o_id where ol_delivery_d is not null group by 1, 2, 3) o
	     on o_w_id = c_w_id and o_d_id = c_d_id and o_c_id = c_id where c_balance <> coalesce(got, 0) - coalesce(paid, 0)`,
	`select c_w_id, c_d_id, c_id from customer left join (select o_w_id, o_d_id, o_c_id, sum(ol_amount) as got from orders join order_line on ol_w_id = o_w_id and ol_d_id = o_d_id and ol_o_id = o_id
	     where ol_delivery_d is not null group by 1, 2, 3) o on o_w_id = c_w_id and o_d_id = c_d_id and o_c_id = c_id where c_balance + c_ytd_payment <> coalesce(got, 0)`,
}

// tpcc is TPC-C's terminal: its five transactions, without the times to think.
type tpcc struct {
	*rand.Rand
	c  *pgx.Conn
	of int // warehouses

	remote int // transactions that touched another warehouse
}

var tpccNames = strings.Fields("BAR OUGHT ABLE PRI PRES ESE ANTI CALLY ATION EING")

func lastName(n int) string { return tpccNames[n/100] + tpccNames[n/10%10] + tpccNames[n%10] }

// nu is the specification's non-uniform number of lo..hi.
func (t *tpcc) nu(a, lo, hi int) int { return ((t.IntN(a+1)|(lo+t.IntN(hi-lo+1)))+42)%(hi-lo+1) + lo }

func (t *tpcc) customer() int { return t.nu(255, 1, tpccCustomers) }

// elsewhere is another warehouse than w, if there is one.
func (t *tpcc) elsewhere(w int) int {
	if t.of == 1 {
		return w
	}
	return (w+t.IntN(t.of-1))%t.of + 1
}

// tpccLoad gives the rows of every table, in COPY's text format, for some warehouses.
func tpccLoad(warehouses int) map[string]*bytes.Buffer {
	t := &tpcc{Rand: rand.New(rand.NewPCG(3, 14)), of: warehouses}
	out := map[string]*bytes.Buffer{}
	add := func(table, format string, args ...any) {
		if out[table] == nil {
			out[table] = &bytes.Buffer{}
		}
		fmt.Fprintf(out[table], format+"\n", args...)
	}
	for i := 1; i <= tpccItems; i++ {
		add("item", "%d\t%d\titem %d\t%d.%02d\toriginal", i, t.IntN(10000), i, 1+t.IntN(99), t.IntN(100))
	}
	for w := 1; w <= warehouses; w++ {
		add("warehouse", "%d\tw%d\t0.%04d\t%d.00", w, w, t.IntN(2001), 10*tpccDistricts*tpccCustomers)
		for i := 1; i <= tpccItems; i++ {
			add("stock", "%d\t%d\t%d\t%024d\t0\t0\t0\tstock", w, i, 10+t.IntN(91), i)
		}
		for d := 1; d <= tpccDistricts; d++ {
			add("district", "%d\t%d\td%d\t0.%04d\t%d.00\t%d", w, d, d, t.IntN(2001), 10*tpccCustomers, tpccOrders+1)
			for c := 1; c <= tpccCustomers; c++ {
				credit := "GC"
				if t.IntN(10) == 0 {
					credit = "BC"
				}
				add("customer", "%d\t%d\t%d\tfirst%d\t%s\t%s\t0.%04d\t-10.00\t10.00\t1\t0\tdata", w, d, c, t.IntN(1000), lastName((c-1)%1000), credit, t.IntN(5001))
				add("history", "%d\t%d\t%d\t%d\t%d\t2026-01-01 00:00:00+00\t10.00\tfirst", c, d, w, d, w)
			}
			for i, c := range t.Perm(tpccCustomers)[:tpccOrders] {
				o, lines := i+1, 5+t.IntN(11)
				carrier, delivered := fmt.Sprint(1+t.IntN(10)), "2026-01-02 00:00:00+00"
				if o > tpccOrders*7/10 {
					carrier, delivered = `\N`, `\N`
					add("new_order", "%d\t%d\t%d", w, d, o)
				}
				add("orders", "%d\t%d\t%d\t%d\t2026-01-02 00:00:00+00\t%s\t%d\t1", w, d, o, c+1, carrier, lines)
				for l := 1; l <= lines; l++ {
					amount := "0.00"
					if carrier == `\N` {
						amount = fmt.Sprintf("%d.%02d", t.IntN(9999), t.IntN(100))
					}
					add("order_line", "%d\t%d\t%d\t%d\t%d\t%d\t%s\t5\t%s\t%024d", w, d, o, l, 1+t.IntN(tpccItems), w, delivered, amount, l)
				}
			}
		}
	}
	return out
}

// errBack is the one new order of a hundred that is rolled back: its last item is unknown.
var errBack = errors.New("rolled back")

func (t *tpcc) newOrder(ctx context.Context, tx pgx.Tx) error {
	w, d, c, lines := 1+t.IntN(t.of), 1+t.IntN(tpccDistricts), t.customer(), 5+t.IntN(11)
	back := t.IntN(100) == 0
	type line struct{ item, from, quantity int }
	var list []line
	local := 1
	for range lines {
		l := line{t.nu(8191, 1, tpccItems), w, 1 + t.IntN(10)}
		if t.IntN(100) == 0 {
			if l.from = t.elsewhere(w); l.from != w {
				local = 0
			}
		}
		list = append(list, l)
	}
	if local == 0 {
		t.remote++
	}
	var wTax, dTax, discount float64
	var o int
	if err := tx.QueryRow(ctx, "select w_tax from warehouse where w_id = $1", w).Scan(&wTax); err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, "update district set d_next_o_id = d_next_o_id + 1 where d_w_id = $1 and d_id = $2 returning d_tax, d_next_o_id - 1", w, d).Scan(&dTax, &o); err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, "select c_discount from customer where c_w_id = $1 and c_d_id = $2 and c_id = $3", w, d, c).Scan(&discount); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "insert into orders values ($1, $2, $3, $4, now(), null, $5, $6)", w, d, o, c, lines, local); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "insert into new_order values ($1, $2, $3)", w, d, o); err != nil {
		return err
	}
	for n, l := range list {
		if back && n == len(list)-1 {
			l.item = 0
		}
		var price float64
		err := tx.QueryRow(ctx, "select i_price::float8 from item where i_id = $1", l.item).Scan(&price)
		if errors.Is(err, pgx.ErrNoRows) {
			return errBack
		}
		if err != nil {
			return err
		}
		var info string
		remote := 0
		if l.from != w {
			remote = 1
		}
		if err := tx.QueryRow(ctx, `update stock set s_quantity = case when s_quantity >= $3 + 10 then s_quantity - $3 else s_quantity - $3 + 91 end, s_ytd = s_ytd + $3, s_order_cnt = s_order_cnt + 1,
			s_remote_cnt = s_remote_cnt + $4 where s_w_id = $1 and s_i_id = $2 returning s_dist`, l.from, l.item, l.quantity, remote).Scan(&info); err != nil {
			return err
		}
		amount := fmt.Sprintf("%.2f", float64(l.quantity)*price*(1+wTax+dTax)*(1-discount))
		if _, err := tx.Exec(ctx, "insert into order_line values ($1, $2, $3, $4, $5, $6, null, $7, $8, $9)", w, d, o, n+1, l.item, l.from, l.quantity, amount, info); err != nil {
			return err
		}
	}
	return nil
}

// byName gives the customer in the middle of those of a name.
func (t *tpcc) byName(ctx context.Context, tx pgx.Tx, w, d int) (int, error) {
	name := lastName(t.nu(255, 0, min(tpccCustomers, 1000)-1))
	rows, err := tx.Query(ctx, "select c_id from customer where c_w_id = $1 and c_d_id = $2 and c_last = $3 order by c_first", w, d, name)
	if err != nil {
		return 0, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err == nil && len(ids) == 0 {
		err = fmt.Errorf("nobody is called %s", name)
	}
	if err != nil {
		return 0, err
	}
	return ids[len(ids)/2], nil
}

func (t *tpcc) payment(ctx context.Context, tx pgx.Tx) (err error) {
	w, d, amount := 1+t.IntN(t.of), 1+t.IntN(tpccDistricts), fmt.Sprintf("%d.%02d", 1+t.IntN(4999), t.IntN(100))
	cw, cd := w, d
	if t.IntN(100) < 15 {
		cw, cd = t.elsewhere(w), 1+t.IntN(tpccDistricts)
		if cw != w {
			t.remote++
		}
	}
	if _, err := tx.Exec(ctx, "update warehouse set w_ytd = w_ytd + $2 where w_id = $1", w, amount); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "update district set d_ytd = d_ytd + $3 where d_w_id = $1 and d_id = $2", w, d, amount); err != nil {
		return err
	}
	c := t.customer()
	if t.IntN(100) < 60 {
		if c, err = t.byName(ctx, tx, cw, cd); err != nil {
			return err
		}
	}
	var credit string
	if err := tx.QueryRow(ctx, "update customer set c_balance = c_balance - $4, c_ytd_payment = c_ytd_payment + $4, c_payment_cnt = c_payment_cnt + 1 where c_w_id = $1 and c_d_id = $2 and c_id = $3 returning c_credit",
		cw, cd, c, amount).Scan(&credit); err != nil {
		return err
	}
	if credit == "BC" {
		if _, err := tx.Exec(ctx, "update customer set c_data = left($4::text || c_data, 500) where c_w_id = $1 and c_d_id = $2 and c_id = $3", cw, cd, c, fmt.Sprint(c, cd, cw, d, w, amount)); err != nil {
			return err
		}
	}
	_, err = tx.Exec(ctx, "insert into history values ($1, $2, $3, $4, $5, now(), $6, 'paid')", c, cd, cw, d, w, amount)
	return err
}

func (t *tpcc) orderStatus(ctx context.Context, tx pgx.Tx) (err error) {
	w, d, c := 1+t.IntN(t.of), 1+t.IntN(tpccDistricts), t.customer()
	if t.IntN(100) < 60 {
		if c, err = t.byName(ctx, tx, w, d); err != nil {
			return err
		}
	}
	var o int
	err = tx.QueryRow(ctx, "select o_id from orders where o_w_id = $1 and o_d_id = $2 and o_c_id = $3 order by o_id desc limit 1", w, d, c).Scan(&o)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "select ol_i_id, ol_supply_w_id, ol_quantity, ol_amount, ol_delivery_d from order_line where ol_w_id = $1 and ol_d_id = $2 and ol_o_id = $3", w, d, o)
	return err
}

func (t *tpcc) delivery(ctx context.Context, tx pgx.Tx) error {
	w, carrier := 1+t.IntN(t.of), 1+t.IntN(10)
	for d := 1; d <= tpccDistricts; d++ {
		var o, c int
		err := tx.QueryRow(ctx, "select no_o_id from new_order where no_w_id = $1 and no_d_id = $2 order by no_o_id limit 1 for update", w, d).Scan(&o)
		if errors.Is(err, pgx.ErrNoRows) {
			continue
		}
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, "delete from new_order where no_w_id = $1 and no_d_id = $2 and no_o_id = $3", w, d, o)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 { // another delivery was faster
			continue
		}
		if err := tx.QueryRow(ctx, "update orders set o_carrier_id = $4 where o_w_id = $1 and o_d_id = $2 and o_id = $3 returning o_c_id", w, d, o, carrier).Scan(&c); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "update order_line set ol_delivery_d = now() where ol_w_id = $1 and ol_d_id = $2 and ol_o_id = $3", w, d, o); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `update customer set c_balance = c_balance + (select sum(ol_amount) from order_line where ol_w_id = $1 and ol_d_id = $2 and ol_o_id = $4), c_delivery_cnt = c_delivery_cnt + 1
			where c_w_id = $1 and c_d_id = $2 and c_id = $3`, w, d, c, o); err != nil {
			return err
		}
	}
	return nil
}

func (t *tpcc) stockLevel(ctx context.Context, tx pgx.Tx) error {
	w, d := 1+t.IntN(t.of), 1+t.IntN(tpccDistricts)
	var low int
	return tx.QueryRow(ctx, `select count(distinct s_i_id) from district join order_line on ol_w_id = d_w_id and ol_d_id = d_id and ol_o_id >= d_next_o_id - 20 and ol_o_id < d_next_o_id
		join stock on s_w_id = d_w_id and s_i_id = ol_i_id where d_w_id = $1 and d_id = $2 and s_quantity < $3`, w, d, 10+t.IntN(11)).Scan(&low)
}

// tpccRun lets terminals work for a while, and gives the new orders of a minute, the share of transactions that reached
// another warehouse, and how many were given up for a deadlock.
func tpccRun(t *testing.T, dsn string) (tpm float64, remote float64, deadlocks int64) {
	ctx, stop := context.WithTimeout(t.Context(), *tpccFor)
	defer stop()
	var orders, all, far, dead atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for n := range *tpccClients {
		wg.Go(func() {
			c, err := pgx.Connect(t.Context(), dsn)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close(context.Background())
			x := &tpcc{Rand: rand.New(rand.NewPCG(2026, uint64(n))), c: c, of: *tpccWarehouses}
			for ctx.Err() == nil {
				f := x.newOrder
				switch k := x.IntN(100); {
				case k < 43:
					f = x.payment
				case k < 47:
					f = x.orderStatus
				case k < 51:
					f = x.delivery
				case k < 55:
					f = x.stockLevel
				default:
					orders.Add(1)
				}
				err := pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error { return f(t.Context(), tx) })
				all.Add(1)
				switch {
				case err == nil, errors.Is(err, errBack):
				case pgCode(err) == "40P01":
					dead.Add(1)
				default:
					t.Errorf("terminal %d: %v", n, err)
					return
				}
			}
			far.Add(int64(x.remote))
		})
	}
	wg.Wait()
	return float64(orders.Load()) / time.Since(begin).Minutes(), float64(far.Load()) / float64(all.Load()), dead.Load()
}

func TestTPCC(t *testing.T) {
	d, c := schemesWorld(t, "tpcc")
	data := tpccLoad(*tpccWarehouses)
	freshDatabase(t, d.cluster.Node("s1-a"), "tpcc_one")
	oneDSN := strings.Replace(d.cluster.Node("s1-a").DSN("tpcc_one"), "postgres:"+d.cluster.Password, "app:app", 1)
	one := connectTo(t, oneDSN)
	for _, db := range []*pgx.Conn{c, one} {
		for _, sql := range tpccTables {
			mustExec(t, db, sql)
		}
	}
	d.adminExec(t, "CREATE GROUP w IN tpcc KEY (int) BY HASH")
	for _, p := range tpccPlacement {
		d.adminExec(t, "DISTRIBUTE TABLE tpcc.public."+p)
	}
	for _, db := range []*pgx.Conn{c, one} {
		for table, rows := range data {
			if _, err := db.PgConn().CopyFrom(t.Context(), bytes.NewReader(rows.Bytes()), "copy "+table+" from stdin"); err != nil {
				t.Fatalf("%s: %v", table, err)
			}
		}
		mustExec(t, db, "vacuum analyze")
	}
	check := func(what string, db *pgx.Conn) {
		for i, sql := range tpccConditions {
			rows, err := db.Query(t.Context(), sql)
			if err != nil {
				t.Fatalf("%s, condition %d: %v", what, i+1, err)
			}
			broken, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) ([]any, error) { return r.Values() })
			if err != nil || len(broken) > 0 {
				t.Errorf("%s, condition %d is broken by %d rows: %v %v", what, i+1, len(broken), broken[:min(3, len(broken))], err)
			}
		}
	}
	check("loaded", c)
	for _, side := range []struct {
		name, dsn string
		db        *pgx.Conn
	}{{"one PostgreSQL", oneDSN, one}, {"over 3 shards", dsnFor("app", "app", d.Server.Addr(), "tpcc"), c}} {
		tpm, remote, dead := tpccRun(t, side.dsn)
		check(side.name, side.db)
		t.Logf("%s: %.0f new orders a minute with %d warehouses and %d clients; %.1f %% of the transactions reached another warehouse, %d ended by a deadlock", side.name, tpm, *tpccWarehouses, *tpccClients, 100*remote, dead)
	}
	for i := range 3 {
		if n := queryOne[int](t, d.on(t, "tpcc", i), "select count(*) from pg_prepared_xacts where database = current_database()"); n > 0 {
			t.Errorf("shard %d has %d prepared transactions left", i, n)
		}
	}
}
