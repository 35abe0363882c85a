package shardmap_test

import (
	"context"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// Changes by several statements of two processes, while others look, try changes and take maps into use: each that is said to be done is
// done once, and whoever listens hears of the maps in their order.
func TestChangesAtOnceAreEachDoneOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map.json")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var both [2]*shardmap.Catalog
	for i := range both {
		c, err := shardmap.Open(ctx, filestore.New(path), "i")
		if err != nil {
			t.Fatal(err)
		}
		both[i] = c
		if i == 0 {
			_, err = c.Change(ctx, false, func(tx *shardmap.Tx) error {
				return firstErr(tx.PutDatabase(shardmap.Database{Name: "d", Home: "a"}), putShard(tx, "a", 0), putShard(tx, "b", 1),
					tx.PutGroup(shardmap.Group{Database: "d", Name: "g", Scheme: shardmap.ByHash, Keys: []string{"int4"}}), tx.SetSlots("d", "g", shardmap.SpreadSlots([]string{"a", "b"})),
					tx.PutTable(shardmap.Table{Database: "d", Schema: "public", Name: "t", Kind: shardmap.Sharded, Group: "g", Key: []string{"k"}, Made: "0"}))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func(tx *shardmap.Tx) error { // one more, in the table and in the placement of its group
		tables, err := tx.Tables("d")
		if err != nil {
			return err
		}
		n, _ := strconv.Atoi(tables[0].Made)
		tables[0].Made = strconv.Itoa(n + 1)
		return firstErr(tx.PutTable(tables[0]), tx.SetSlots("d", "g", []shardmap.SlotRun{{From: 0, To: n, Shard: "a"}, {From: n + 1, To: 16383, Shard: "b"}}))
	}
	fits := func(s *shardmap.Snapshot) { // all that one change has made is of one map
		d := s.Databases["d"]
		info := d.Tables[shardmap.TableName{Schema: "public", Name: "t"}]
		if n, _ := strconv.Atoi(info.Made); n > 0 && (d.Placement(info.Group).Slots[0].To != n-1 || s.Version != uint64(n)+1) {
			t.Errorf("version %d has %s changes and %v", s.Version, info.Made, d.Placement(info.Group).Slots)
		}
		s.Fingerprint()
	}
	var done atomic.Int64
	var writers, others sync.WaitGroup
	over := make(chan struct{})
	for _, c := range both {
		for range 2 {
			writers.Go(func() {
				for range 12 {
					if err := c.Retry(ctx, count); err == nil {
						done.Add(1)
					}
				}
			})
		}
		again := func(f func()) {
			others.Go(func() {
				for {
					select {
					case <-over:
						return
					case <-time.After(time.Millisecond):
						f()
					}
				}
			})
		}
		last := uint64(0)
		c.OnChange(func(s *shardmap.Snapshot) {
			if s.Version <= last {
				t.Errorf("version %d after %d", s.Version, last)
			}
			last = s.Version
		})
		again(func() { fits(c.Current()) })
		again(func() { c.CatchUp(ctx); fits(c.Current()) })
		again(func() { c.OnChange(fits) })
		again(func() {
			d := c.Current().Databases["d"]
			_, _ = c.Change(ctx, true, func(tx *shardmap.Tx) error {
				return firstErr(tx.Unchanged(d), count(tx), tx.SetPins("d", "g", []shardmap.Pin{{Key: []string{"7"}, Shard: "b"}}), tx.PutRoutine(shardmap.Routine{Database: "d", Schema: "public", Name: "f"}))
			})
		})
	}
	writers.Wait()
	close(over)
	others.Wait()
	for i, c := range both {
		c.CatchUp(ctx)
		fits(c.Current())
		d := c.Current().Databases["d"]
		if made := d.Tables[shardmap.TableName{Schema: "public", Name: "t"}].Made; made != strconv.Itoa(int(done.Load())) || done.Load() < 20 || len(d.Placement(d.Groups["g"]).Pins) > 0 {
			t.Errorf("process %d: %d changes were done, and the map has %s of them", i, done.Load(), made)
		}
	}
}

func putShard(tx *shardmap.Tx, name string, ordinal int) error {
	return firstErr(tx.PutShard(shardmap.Shard{Database: "d", Name: name, Ordinal: ordinal}), tx.PutNode(shardmap.Node{Database: "d", Shard: name, Name: name + "1", DSN: "x"}))
}

func firstErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
