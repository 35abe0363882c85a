package main

import (
	"context"
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/replication"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// BenchmarkMonitor reports what watching 16 nodes at the default interval costs of one processor, this process's part.
func BenchmarkMonitor(b *testing.B) {
	d := shop(b)
	cat, err := shardmap.Open(b.Context(), filestore.New(b.TempDir()+"/map.json"), "bench")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := cat.Change(b.Context(), false, func(tx *shardmap.Tx) error {
		if err := tx.PutDatabase(shardmap.Database{Name: "x", Home: "s0"}); err != nil {
			return err
		}
		for i := range 8 {
			s := fmt.Sprint("s", i)
			if err := tx.PutShard(shardmap.Shard{Database: "x", Name: s, Ordinal: i}); err != nil {
				return err
			}
			for j, n := range []string{"s1-a", "s1-b"} {
				if err := tx.PutNode(shardmap.Node{Database: "x", Shard: s, Name: fmt.Sprintf("%s_%d", s, j), DSN: d.cluster.Node(n).DSN("shop") + fmt.Sprintf("&connect_timeout=%d", 10+i), Ordinal: j}); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	cpu := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	const span = 3 * time.Second
	time.Sleep(time.Second)
	idle := cpu()
	time.Sleep(span)
	idle = cpu() - idle
	m := replication.NewMonitor(replication.DefaultPolicy(), cat, replication.Events{}, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	time.Sleep(time.Second)
	for i := range 8 {
		if v := m.View("x", fmt.Sprint("s", i)); v == nil || !v.Up() || v.Nodes[1].Verdict.Health != replication.Eligible {
			b.Fatalf("shard %d is not watched", i)
		}
	}
	for range b.N {
		used := cpu()
		time.Sleep(span)
		used = cpu() - used
		b.ReportMetric(100*float64(used-idle)/float64(span), "%core")
	}
	stop()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
