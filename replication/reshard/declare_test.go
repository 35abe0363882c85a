package reshard

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// A table that is about to move takes the name of no other that the map has by now.
func TestATableIsDeclaredUnderNoOthersName(t *testing.T) {
	c, err := shardmap.Open(t.Context(), filestore.New(filepath.Join(t.TempDir(), "map.json")), "i")
	if err != nil {
		t.Fatal(err)
	}
	table := func(made string, moving bool) shardmap.Table {
		return shardmap.Table{Database: "d", Schema: "public", Name: "t", Kind: shardmap.Reference, Made: made, Moving: moving}
	}
	if err := c.Retry(t.Context(), func(tx *shardmap.Tx) error {
		return errors.Join(tx.PutDatabase(shardmap.Database{Name: "d", Home: "a"}), tx.PutShard(shardmap.Shard{Database: "d", Name: "a"}), tx.PutNode(shardmap.Node{Database: "d", Shard: "a", Name: "a1", DSN: "x"}), declare(tx, table("1", true)))
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.Retry(t.Context(), func(tx *shardmap.Tx) error { return declare(tx, table("2", true)) }); !errors.Is(err, shardmap.ErrChanged) {
		t.Errorf("another one: %v", err)
	}
	if err := c.Retry(t.Context(), func(tx *shardmap.Tx) error {
		return settleMap(tx, shardmap.Attempt{ID: "2", Database: "d", Schema: "public", Name: "t"}, true)
	}); err != nil {
		t.Errorf("undone: %v", err)
	}
	if err := c.Retry(t.Context(), func(tx *shardmap.Tx) error { return declare(tx, table("1", false)) }); err != nil {
		t.Errorf("itself: %v", err)
	}
	if all := c.Current().Document.Tables; len(all) != 1 || all[0].Made != "1" || all[0].Moving {
		t.Errorf("the map has %+v", all)
	}
}
