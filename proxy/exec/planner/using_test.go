package planner

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// Who has published a map and waits until nobody runs anything by an older one hears of a session that ends what it runs, and of one that
// takes the newer map while it runs something.
func TestWhoLeavesAnOlderMapIsHeard(t *testing.T) {
	for name, leaves := range map[string]func(s *Session, newest *shardmap.Snapshot) error{
		"it has ended":       func(s *Session, _ *shardmap.Snapshot) error { s.Done(); return nil },
		"it takes the newer": func(s *Session, newest *shardmap.Snapshot) error { return s.TakeMap(newest) },
	} {
		t.Run(name, func(t *testing.T) {
			c, err := shardmap.Open(t.Context(), filestore.New(filepath.Join(t.TempDir(), "map.json")), "i")
			if err != nil {
				t.Fatal(err)
			}
			change := func(edit func(tx *shardmap.Tx) error) *shardmap.Snapshot {
				t.Helper()
				if _, err := c.Change(t.Context(), false, edit); err != nil {
					t.Fatal(err)
				}
				return c.Current()
			}
			first := change(func(tx *shardmap.Tx) error {
				return errors.Join(tx.PutDatabase(shardmap.Database{Name: "d", Home: "s1"}), tx.PutShard(shardmap.Shard{Database: "d", Name: "s1"}),
					tx.PutNode(shardmap.Node{Database: "d", Shard: "s1", Name: "n1", DSN: "postgres://127.0.0.1:1/s1"}))
			})
			p, err := New(Parts{Catalog: c, Nodes: away{}, Memory: &memory.Ledger{}})
			if err != nil {
				t.Fatal(err)
			}
			s := p.Open("d", router.Env{}, &metrics.Database{})
			if err := s.TakeMap(first); err != nil {
				t.Fatal(err)
			}
			if s.Using() != 0 {
				t.Fatal("it uses a map that it has only taken")
			}
			s.Use()
			newest := change(func(tx *shardmap.Tx) error { return tx.PutDatabase(shardmap.Database{Name: "other"}) })
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			looked, done := make(chan bool, 100), make(chan error, 1)
			go func() {
				done <- p.AwaitLeft(ctx, func() bool {
					u := s.Using()
					looked <- true
					return u == 0 || u >= newest.Version
				})
			}()
			<-looked
			if err := leaves(&s, newest); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
