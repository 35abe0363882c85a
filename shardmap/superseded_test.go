package shardmap_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// Who waits for a newer map than the one at hand gets to the newest, whoever has changed it: no change is missed.
func TestWhoWaitsForANewerMapMissesNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map.json")
	c, err := shardmap.Open(t.Context(), filestore.New(path), "i")
	if err != nil {
		t.Fatal(err)
	}
	other, err := shardmap.Open(t.Context(), filestore.New(path), "i")
	if err != nil {
		t.Fatal(err)
	}
	const changes = 15
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for at := c.Current(); at.Version < 2*changes; {
				select {
				case <-at.Superseded():
				case <-ctx.Done():
					t.Errorf("somebody still waits at version %d", at.Version)
					return
				}
				next := c.Current()
				if next.Version <= at.Version {
					t.Errorf("version %d is superseded by %d", at.Version, next.Version)
					return
				}
				at = next
			}
		})
	}
	for i, by := range []*shardmap.Catalog{c, other} {
		wg.Go(func() {
			for j := range changes {
				if err := by.Retry(ctx, func(tx *shardmap.Tx) error {
					return tx.PutDatabase(shardmap.Database{Name: fmt.Sprintf("d%d_%d", i, j)})
				}); err != nil {
					t.Error(err)
				}
				c.CatchUp(ctx)
			}
		})
	}
	wg.Wait()
}
