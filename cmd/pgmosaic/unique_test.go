package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// mostTimes is how many times as long as on PostgreSQL a statement may take whose plan is in no cache.
const mostTimes = 2

// BenchmarkUnique runs statements whose plans are in no cache, through pgmosaic and on one of its servers, turn by turn:
// times-pg is how many times as long they take through pgmosaic, which times-pg-bound is the most that we allow ourselves.
func BenchmarkUnique(b *testing.B) {
	d := shop(b)
	through, direct := connectTo(b, d.shopDSN()), connectTo(b, d.cluster.Node("s1-a").DSN("shop"))
	list := func(column string, n int) func(int) string {
		var s strings.Builder
		for i := range n {
			fmt.Fprintf(&s, ", %d", i)
		}
		return func(i int) string {
			return fmt.Sprintf("select count(*) from orders where %s in (%d%s)", column, i, s.String())
		}
	}
	serial := 0
	for _, x := range []struct {
		name string
		sql  func(i int) string
	}{
		{"4kB-one-shard", func(i int) string { return wideSelect(200, fmt.Sprintf("u%d_", i), "orders where customer_id = 5") }},
		{"4kB-all-shards", func(i int) string { return wideSelect(200, fmt.Sprintf("v%d_", i), "orders where total < 0") }},
		{"in-200000-keys", list("customer_id", 200000)},
		{"in-200000-others", list("total", 200000)},
	} {
		b.Run(x.name, func(b *testing.B) {
			var took [2]time.Duration
			for b.Loop() {
				serial++
				for i, c := range []*pgx.Conn{through, direct} {
					begin := time.Now()
					if _, err := c.Exec(b.Context(), x.sql(serial), pgx.QueryExecModeSimpleProtocol); err != nil {
						b.Fatal(err)
					}
					took[i] += time.Since(begin)
				}
			}
			b.ReportMetric(float64(took[0].Microseconds())/float64(b.N), "µs/op")
			b.ReportMetric(float64(took[0])/float64(took[1]), "times-pg")
			b.ReportMetric(mostTimes, "times-pg-bound")
		})
	}
}
