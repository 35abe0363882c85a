package demo

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// The shop: customers with their orders and items live together, products and countries are everywhere,
// settings is a home table that nobody declared.
var shopTables = []string{
	`CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL)`,
	`CREATE TABLE products (product_id integer PRIMARY KEY, name text NOT NULL, price numeric(10,2) NOT NULL)`,
	`CREATE TABLE settings (name text PRIMARY KEY, value text)`,
	`CREATE TABLE customers (customer_id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL, country text NOT NULL REFERENCES countries, created_at timestamptz NOT NULL)`,
	`CREATE TABLE orders (customer_id bigint NOT NULL, order_id bigint NOT NULL, status text NOT NULL, total numeric(12,2) NOT NULL, created_at timestamptz NOT NULL, PRIMARY KEY (customer_id, order_id))`,
	`CREATE TABLE order_items (customer_id bigint NOT NULL, order_id bigint NOT NULL, line integer NOT NULL, product_id integer NOT NULL REFERENCES products, quantity integer NOT NULL, price numeric(10,2) NOT NULL, PRIMARY KEY (customer_id, order_id, line))`,
}

var shopPlacement = []string{
	"DISTRIBUTE TABLE shop.public.countries AS REFERENCE",
	"DISTRIBUTE TABLE shop.public.products AS REFERENCE",
	"DISTRIBUTE TABLE shop.public.customers IN GROUP customers KEY (customer_id)",
	"DISTRIBUTE TABLE shop.public.orders IN GROUP customers KEY (customer_id)",
	"DISTRIBUTE TABLE shop.public.order_items IN GROUP customers KEY (customer_id)",
}

var shopCountries = []string{
	"AT Austria", "BR Brazil", "CA Canada", "CH Switzerland", "CZ Czechia", "DE Germany", "DK Denmark", "ES Spain", "FI Finland", "FR France",
	"GB United Kingdom", "IE Ireland", "IN India", "IT Italy", "JP Japan", "KE Kenya", "MX Mexico", "NL Netherlands", "NO Norway", "PL Poland", "PT Portugal", "SE Sweden", "US United States",
}

var (
	firstNames = strings.Fields("Ada Alan Barbara Bjarne Carol Dennis Donald Edsger Frances Grace Hedy Jean John Ken Leslie Linus Margaret Niklaus Radia Rob Shafi Tim Tony Vint")
	lastNames  = strings.Fields("Allen Backus Berners Codd Dijkstra Hamilton Hoare Hopper Kernighan Knuth Lamport Liskov Lovelace Perlman Pike Ritchie Stonebraker Thompson Turing Wirth")
	things     = strings.Fields("Anvil Basket Chair Desk Easel Funnel Globe Hammer Inkwell Jug Kettle Lamp Mirror Notebook Oar Pencil Quilt Ruler Spade Table Umbrella Vase Wrench Yarn Zither")
	colours    = strings.Fields("Amber Black Blue Coral Green Grey Ivory Olive Red Silver Teal White")
)

// loadShop loads the shop through the proxy: rows by COPY, which the proxy takes apart by key.
func loadShop(ctx context.Context, c *pgx.Conn, o Options, out io.Writer) error {
	rng := rand.New(rand.NewPCG(1, 2))
	start := time.Now()
	var rows strings.Builder
	for i, s := range shopCountries {
		if i > 0 {
			rows.WriteByte(',')
		}
		fmt.Fprintf(&rows, "('%s', '%s')", s[:2], s[3:])
	}
	if _, err := c.Exec(ctx, "INSERT INTO countries VALUES "+rows.String()); err != nil {
		return fmt.Errorf("countries: %w", err)
	}
	prices := make([]int, len(things)*len(colours)+1)
	rows.Reset()
	for i := 1; i < len(prices); i++ {
		prices[i] = 100 + rng.IntN(20000)
		if i > 1 {
			rows.WriteByte(',')
		}
		fmt.Fprintf(&rows, "(%d, '%s %s', %d.%02d)", i, colours[i%len(colours)], things[i%len(things)], prices[i]/100, prices[i]%100)
	}
	if _, err := c.Exec(ctx, "INSERT INTO products VALUES "+rows.String()); err != nil {
		return fmt.Errorf("products: %w", err)
	}
	if _, err := c.Exec(ctx, "INSERT INTO settings VALUES ('currency', 'EUR'), ('opened', '2026-01-01')"); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	bar := &progress{w: o.Progress, total: o.Customers + o.Orders}
	if err := copyText(ctx, c, "customers", o.Customers, bar, func(w io.Writer, i int) {
		id := i + 1
		name := firstNames[rng.IntN(len(firstNames))] + " " + lastNames[rng.IntN(len(lastNames))]
		fmt.Fprintf(w, "%d\t%s\tcustomer%d@example.com\t%s\t%s\n", id, name, id, shopCountries[rng.IntN(len(shopCountries))][:2], day(rng, 0))
	}); err != nil {
		return err
	}
	items := &strings.Builder{}
	count := 0
	if err := copyText(ctx, c, "orders", o.Orders, bar, func(w io.Writer, i int) {
		customer, order, total := 1+rng.IntN(max(o.Customers, 1)), i+1, 0
		for line := 1; line <= 1+rng.IntN(3); line++ {
			p, q := 1+rng.IntN(len(prices)-1), 1+rng.IntN(4)
			total += prices[p] * q
			fmt.Fprintf(items, "%d\t%d\t%d\t%d\t%d\t%d.%02d\n", customer, order, line, p, q, prices[p]/100, prices[p]%100)
			count++
		}
		fmt.Fprintf(w, "%d\t%d\t%s\t%d.%02d\t%s\n", customer, order, [...]string{"new", "paid", "sent", "done", "done", "done"}[rng.IntN(6)], total/100, total%100, day(rng, 1))
	}); err != nil {
		return err
	}
	if _, err := c.PgConn().CopyFrom(ctx, strings.NewReader(items.String()), "COPY order_items FROM STDIN"); err != nil {
		return fmt.Errorf("order_items: %w", err)
	}
	if _, err := c.Exec(ctx, "ANALYZE customers, orders, order_items, products, countries"); err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	bar.done()
	fmt.Fprintf(out, "loaded %d customers, %d orders and %d items in %.1f s\n", o.Customers, o.Orders, count, time.Since(start).Seconds())
	return nil
}

// day is a moment of 2025 or later, in ISO 8601.
func day(rng *rand.Rand, year int) string {
	return time.Date(2025+year, 1, 1, 0, 0, rng.IntN(300*86400), 0, time.UTC).Format("2006-01-02 15:04:05+00")
}

// copyText streams n rows in COPY's text format.
func copyText(ctx context.Context, c *pgx.Conn, table string, n int, bar *progress, row func(io.Writer, int)) error {
	r, w := io.Pipe()
	go func() {
		var b strings.Builder
		for i := range n {
			row(&b, i)
			if b.Len() > 64<<10 || i == n-1 {
				if _, err := io.WriteString(w, b.String()); err != nil {
					return // the reader has failed and says why
				}
				b.Reset()
			}
			bar.add(1)
		}
		_ = w.Close()
	}()
	_, err := c.PgConn().CopyFrom(ctx, r, "COPY "+table+" FROM STDIN")
	_ = r.CloseWithError(io.ErrClosedPipe)
	if err != nil {
		return fmt.Errorf("%s: %w", table, err)
	}
	return nil
}

// progress draws a bar where somebody can see it move.
type progress struct {
	w     io.Writer
	total int
	n     int
	shown int
}

func (p *progress) add(n int) {
	p.n += n
	if p.w == nil || p.total == 0 {
		return
	}
	if pct := 100 * p.n / p.total; pct != p.shown && (isTerminal(p.w) || pct%25 == 0) {
		p.shown = pct
		end := "\n"
		if isTerminal(p.w) {
			end = "\r"
		}
		fmt.Fprintf(p.w, "loading [%-40s] %3d %%%s", strings.Repeat("#", 40*pct/100), pct, end)
	}
}

func (p *progress) done() {
	if p.w != nil && isTerminal(p.w) {
		fmt.Fprintln(p.w)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}
