//go:build load

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// Ten million rows merged in order cost the proxy no memory to speak of.
func TestLoadMergeOfTenMillionRows(t *testing.T) {
	d := shop(t)
	dir := t.TempDir()
	b, err := os.ReadFile(d.whole.Dir + "/map.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/map.json", b, 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, dir, "")
	w := rawTo(t, "postgres://app:app@"+p.addr+"/shop")
	w.SendQuery("select a.customer_id from customers a, generate_series(1, 5000) g order by a.customer_id")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	began, rows, last, peak := time.Now(), 0, "", int64(0)
	for {
		m, err := w.Next()
		if err != nil {
			t.Fatal(err)
		}
		if m.Type == 'E' {
			t.Fatal(wire.ParseError(m.Body()).Message)
		}
		if m.Type == 'Z' {
			break
		}
		if m.Type != 'D' {
			continue
		}
		v := string(m.Body()[6:])
		if len(v) < len(last) || len(v) == len(last) && v < last {
			t.Fatalf("%s comes behind %s", v, last)
		}
		last = v
		if rows++; rows%500000 == 0 {
			peak = max(peak, p.rss(t))
		}
	}
	t.Logf("%d rows in %s, resident memory at most %d MB", rows, time.Since(began).Round(time.Millisecond), peak>>20)
	if rows != 10_000_000 {
		t.Errorf("%d rows", rows)
	}
	if peak > 64<<20 {
		t.Errorf("resident memory is %d MB", peak>>20)
	}
}

// What a statement over 16 shards costs beside the same statements sent to the shards themselves, side by side. The
// figures are logged and stand in docs/benchmarks.md.
func TestLoadStatementsOverSixteenShards(t *testing.T) {
	d := shop(t)
	const n = 16
	d.adminExec(t, "CREATE DATABASE wide")
	var dsns []string
	for i := range n {
		node := d.cluster.Node([]string{"s1-a", "s2-a"}[i%2])
		phys := fmt.Sprintf("wide_%d", i)
		freshDatabase(t, node, phys)
		d.adminExec(t, fmt.Sprintf("CREATE SHARD wide_s%d IN wide NODE '%s' NAME wide_n%d", i, node.DSN(phys), i))
		dsns = append(dsns, strings.Replace(node.DSN(phys), "postgres:"+d.cluster.Password, "app:app", 1))
	}
	many := connectTo(t, dsnFor("app", "app", d.Server.Addr(), "wide"))
	mustExec(t, many, "create table facts (k bigint primary key, v int, w numeric)")
	d.adminExec(t, "CREATE GROUP facts IN wide KEY (bigint) BY HASH")
	d.adminExec(t, "DISTRIBUTE TABLE wide.public.facts IN GROUP facts KEY (k)")
	var rows strings.Builder
	for i := range 320000 {
		fmt.Fprintf(&rows, "%d\t%d\t%d.5\n", i, i%1000, i)
	}
	if _, err := many.PgConn().CopyFrom(t.Context(), strings.NewReader(rows.String()), "copy facts from stdin"); err != nil {
		t.Fatal(err)
	}
	direct := make([]*pgx.Conn, n)
	for i, dsn := range dsns {
		direct[i] = connectTo(t, dsn)
		mustExec(t, direct[i], "analyze facts")
	}
	ask := func(c *pgx.Conn, sql string) time.Duration {
		began := time.Now()
		if _, err := c.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Error(err)
		}
		return time.Since(began)
	}
	for _, sql := range []string{"select count(*) from facts", "select sum(w), max(v) from facts", "select * from facts order by k limit 10"} {
		var ours, sideBySide, slowest []time.Duration
		for i := range 60 {
			o := ask(many, sql)
			one := make([]time.Duration, n)
			var wg sync.WaitGroup
			began := time.Now()
			for j, c := range direct {
				wg.Go(func() { one[j] = ask(c, sql) })
			}
			wg.Wait()
			all := time.Since(began)
			if i >= 10 {
				ours, sideBySide, slowest = append(ours, o), append(sideBySide, all), append(slowest, quantile(one, 1))
			}
		}
		o, s, l := quantile(ours, 0.5), quantile(sideBySide, 0.5), quantile(slowest, 0.5)
		t.Logf("%s: %s; 16 direct statements side by side %s (%.2f), the slowest of them %s (%.2f)", sql, o, s, float64(o)/float64(s), l, float64(o)/float64(l))
	}
	d.adminExec(t, "UNDISTRIBUTE TABLE wide.public.facts")
	d.adminExec(t, "DROP GROUP facts IN wide")
	for i := n - 1; i >= 0; i-- {
		d.adminExec(t, fmt.Sprintf("DROP SHARD wide_s%d IN wide", i))
	}
	d.adminExec(t, "DROP DATABASE wide")
}
