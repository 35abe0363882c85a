package shardmap_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
	"github.com/pgmosaic/pgmosaic/shardmap/filestore"
)

// What statements are planned by is what it was while nodes change, and other databases; whatever else changes is another shape.
func TestShapeIsAllButTheNodes(t *testing.T) {
	c, err := shardmap.Open(t.Context(), filestore.New(filepath.Join(t.TempDir(), "map.json")), "i")
	if err != nil {
		t.Fatal(err)
	}
	change := func(what string, edit func(tx *shardmap.Tx) error) *shardmap.DB {
		t.Helper()
		s, err := c.Change(t.Context(), false, edit)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if s.Version != c.Current().Version {
			t.Fatalf("%s: version %d was not taken into use", what, s.Version)
		}
		return c.Current().Databases["d"]
	}
	node := func(shard, name string) shardmap.Node {
		return shardmap.Node{Database: "d", Shard: shard, Name: name, DSN: "postgres://127.0.0.1/" + name}
	}
	shard := shardmap.Shard{Database: "d", Name: "s1"}
	change("a database", func(tx *shardmap.Tx) error {
		if err := tx.PutDatabase(shardmap.Database{Name: "d", Home: "s1"}); err != nil {
			return err
		}
		if err := tx.PutShard(shard); err != nil {
			return err
		}
		return tx.PutNode(node("s1", "a"))
	})
	group := shardmap.Group{Database: "d", Name: "g", Scheme: shardmap.ByHash, Keys: []string{"int4"}}
	for _, x := range []struct {
		what string
		same bool
		edit func(tx *shardmap.Tx) error
	}{
		{"a node", true, func(tx *shardmap.Tx) error { return tx.PutNode(node("s1", "b")) }},
		{"another DSN", true, func(tx *shardmap.Tx) error { n := node("s1", "b"); n.DSN += "x"; return tx.PutNode(n) }},
		{"a named primary", true, func(tx *shardmap.Tx) error { s := shard; s.Primary, s.Named = "b", 1; return tx.PutShard(s) }},
		{"another database", true, func(tx *shardmap.Tx) error { return tx.PutDatabase(shardmap.Database{Name: "e"}) }},
		{"another system", false, func(tx *shardmap.Tx) error { s := shard; s.System = "7"; return tx.PutShard(s) }},
		{"a shard", false, func(tx *shardmap.Tx) error {
			if err := tx.PutShard(shardmap.Shard{Database: "d", Name: "s2", Ordinal: 1}); err != nil {
				return err
			}
			return tx.PutNode(node("s2", "c"))
		}},
		{"a group", false, func(tx *shardmap.Tx) error {
			if err := tx.PutGroup(group); err != nil {
				return err
			}
			return tx.SetSlots("d", "g", []shardmap.SlotRun{{From: 0, To: 16383, Shard: "s1"}})
		}},
		{"slots", false, func(tx *shardmap.Tx) error {
			return tx.SetSlots("d", "g", []shardmap.SlotRun{{From: 0, To: 9, Shard: "s1"}, {From: 10, To: 16383, Shard: "s2"}})
		}},
		{"slots that one of these shards gives the other", true, func(tx *shardmap.Tx) error {
			return tx.SetSlots("d", "g", []shardmap.SlotRun{{From: 0, To: 16000, Shard: "s1"}, {From: 16001, To: 16383, Shard: "s2"}})
		}},
		{"a pin to one of them", true, func(tx *shardmap.Tx) error {
			return tx.SetPins("d", "g", []shardmap.Pin{{Key: []string{"1"}, Shard: "s2"}})
		}},
		{"the last slots of a shard", true, func(tx *shardmap.Tx) error { // it has the pin
			return tx.SetSlots("d", "g", []shardmap.SlotRun{{From: 0, To: 16383, Shard: "s1"}})
		}},
		{"its pin", false, func(tx *shardmap.Tx) error { return tx.SetPins("d", "g", nil) }},
		{"a table", false, func(tx *shardmap.Tx) error {
			return tx.PutTable(shardmap.Table{Database: "d", Schema: "public", Name: "t", Kind: shardmap.Sharded, Group: "g", Key: []string{"id"}})
		}},
		{"a table that moves", false, func(tx *shardmap.Tx) error {
			return tx.PutTable(shardmap.Table{Database: "d", Schema: "public", Name: "t", Kind: shardmap.Sharded, Group: "g", Key: []string{"id"}, Moving: true})
		}},
		{"a schema on one shard", false, func(tx *shardmap.Tx) error {
			return tx.PutTenant(shardmap.Tenant{Database: "d", Schema: "t", Shard: "s2"})
		}},
		{"a routine", false, func(tx *shardmap.Tx) error {
			return tx.PutRoutine(shardmap.Routine{Database: "d", Schema: "public", Name: "f"})
		}},
		{"an attempt", false, func(tx *shardmap.Tx) error {
			return tx.PutAttempt(shardmap.Attempt{ID: "1", Database: "d", Step: shardmap.Joining})
		}},
		{"the end of an attempt", false, func(tx *shardmap.Tx) error { return tx.EndAttempt("1") }},
	} {
		before := c.Current().Databases["d"].Shape
		db := change(x.what, x.edit)
		if same := db.Shape == before; same != x.same {
			t.Errorf("%s: the shape is the same: %v, want %v", x.what, same, x.same)
		}
		if db.Version != c.Current().Version || db.Shape > db.Version {
			t.Errorf("%s: version %d, shape %d", x.what, db.Version, db.Shape)
		}
	}

	// What is announced and over leads back to the plans from before.
	before := c.Current().Databases["d"].Shape
	placing := change("keys are placed", func(tx *shardmap.Tx) error {
		return tx.PutAttempt(shardmap.Attempt{ID: "2", Database: "d", Group: "g", Step: shardmap.Placing})
	})
	if !placing.Tables[shardmap.TableName{Schema: "public", Name: "t"}].Moving || placing.Shape == before {
		t.Error("a table whose keys are placed is planned as before")
	}
	placed := change("they are placed", func(tx *shardmap.Tx) error {
		return errors.Join(tx.EndAttempt("2"), tx.SetPins("d", "g", []shardmap.Pin{{Key: []string{"1"}, Shard: "s1"}}))
	})
	if placed.Shape != before {
		t.Errorf("the shape is %d, and was %d before", placed.Shape, before)
	}
}
