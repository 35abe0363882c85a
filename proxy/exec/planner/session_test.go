package planner

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/router"
	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
	"github.com/pgmosaic/pgmosaic/shardmap/schema"
)

// away are nodes that do not answer.
type away struct{}

var errAway = errors.New("away")

func (away) Teller(context.Context, *shardmap.DB) (*shardmap.ShardInfo, string, error) {
	return nil, "", errAway
}

func (away) PrimaryDSN(context.Context, *shardmap.DB, *shardmap.ShardInfo) (string, error) {
	return "", errAway
}

func (away) AnyDSN(context.Context, *shardmap.DB, *shardmap.ShardInfo) (string, bool, error) {
	return "", false, errAway
}

// A map that names a shard whose types cannot be read is not in use by halves: for a session that went on with it, the partitions of a
// distributed table would be tables of home's.
func TestAMapIsTakenWithItsSchemaOrNotAtAll(t *testing.T) {
	c, err := shardmap.Open(t.Context(), filestore.New(filepath.Join(t.TempDir(), "map.json")), "i")
	if err != nil {
		t.Fatal(err)
	}
	change := func(edit func(tx *shardmap.Tx) error) {
		t.Helper()
		if _, err := c.Change(t.Context(), false, edit); err != nil {
			t.Fatal(err)
		}
	}
	shard := func(tx *shardmap.Tx, name string, ordinal int) error {
		return errors.Join(tx.PutShard(shardmap.Shard{Database: "d", Name: name, Ordinal: ordinal}), tx.PutNode(shardmap.Node{Database: "d", Shard: name, Name: name, DSN: "postgres://127.0.0.1:1/" + name}))
	}
	change(func(tx *shardmap.Tx) error {
		return errors.Join(tx.PutDatabase(shardmap.Database{Name: "d", Home: "s1"}), shard(tx, "s1", 0),
			tx.PutGroup(shardmap.Group{Database: "d", Name: "g", Scheme: shardmap.ByHash, Keys: []string{"int4"}}),
			tx.SetSlots("d", "g", []shardmap.SlotRun{{From: 0, To: 16383, Shard: "s1"}}),
			tx.PutTable(shardmap.Table{Database: "d", Schema: "public", Name: "t", Kind: shardmap.Sharded, Group: "g", Key: []string{"id"}}))
	})
	p, err := New(Parts{Catalog: c, Nodes: away{}, Memory: &memory.Ledger{}})
	if err != nil {
		t.Fatal(err)
	}
	top, part := shardmap.TableName{Schema: "public", Name: "t"}, shardmap.TableName{Schema: "public", Name: "t_1"}
	p.Schemas.database("d").current.Store(&schema.Snapshot{Version: 1, Tables: map[shardmap.TableName]*schema.Table{top: {TableName: top}, part: {TableName: part, Root: top}}})
	s := p.Open("d", router.Env{}, &metrics.Database{})
	if err := s.TakeMap(c.Current()); err != nil {
		t.Fatal(err)
	}
	if err := s.TakeSchema(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	if !s.InUse(c.Current()) || s.DB.Table(part) == nil {
		t.Fatal("what was taken is not in use")
	}
	change(func(tx *shardmap.Tx) error { return shard(tx, "s2", 1) })
	if s.InUse(c.Current()) {
		t.Error("the map of before is in use as the newest")
	}
	if err := s.TakeMap(c.Current()); err != nil {
		t.Fatal(err)
	}
	if err := s.TakeSchema(t.Context(), func() {}); !errors.Is(err, errAway) {
		t.Fatalf("the types of a shard that is away: %v", err)
	}
	if s.InUse(c.Current()) {
		t.Errorf("a map is in use whose schema could not be read; it has the partition: %v", s.DB.Table(part) != nil)
	}
}

// slow is away, and says so when it is told to.
type slow struct {
	away
	asked   chan struct{}
	release chan struct{}
}

func (s slow) AnyDSN(context.Context, *shardmap.DB, *shardmap.ShardInfo) (string, bool, error) {
	s.asked <- struct{}{}
	<-s.release
	return "", false, errAway
}

// Many who want the types of one shard ask it together, not one after the other.
func TestWhoWaitsForTypesDoesNotAskAgain(t *testing.T) {
	nodes := slow{asked: make(chan struct{}, 100), release: make(chan struct{})}
	p, err := New(Parts{Nodes: nodes, Memory: &memory.Ledger{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	db := &shardmap.DB{Name: "d", Shards: []*shardmap.ShardInfo{{Name: "s2"}}}
	p.Schemas.database("d").current.Store(&schema.Snapshot{Version: 1, Doubts: map[string]schema.Doubt{"s2": schema.Unread}})
	var all sync.WaitGroup
	ask := func() {
		all.Go(func() {
			var e *pgsql.Error
			if err := p.Schemas.Resolve(t.Context(), db, "s2"); !errors.As(err, &e) || e.Code != pgsql.CannotConnectNow {
				t.Errorf("a shard that does not answer: %v", err)
			}
		})
	}
	ask()
	<-nodes.asked
	for range 10 {
		ask()
	}
	time.Sleep(50 * time.Millisecond) // that most of them wait
	close(nodes.release)
	all.Wait()
	if n := len(nodes.asked); n < 1 || n > 5 { // who came too late to wait asks, too
		t.Errorf("it was asked %d times by those who had waited", n)
	}
}
