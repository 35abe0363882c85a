package planner

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/memory"
	"github.com/pgmosaic/pgmosaic/proxy/metrics"
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
