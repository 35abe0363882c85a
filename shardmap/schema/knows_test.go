package schema

import (
	"testing"

	"github.com/pgmosaic/pgmosaic/shardmap"
)

// A shard whose types were read is known as long as it is that one: another of its name and place has other types, and so has one that was
// adopted.
func TestTypesAreThoseOfTheShardThatWasAsked(t *testing.T) {
	db := func(joined, adopted int, shards ...string) *shardmap.DB {
		d := &shardmap.DB{Name: "d", Joined: joined, Home: &shardmap.ShardInfo{Name: "home"}}
		d.Shards = append(d.Shards, d.Home)
		for i, s := range shards {
			d.Shards = append(d.Shards, &shardmap.ShardInfo{Name: s, Index: i + 1, Ordinal: i + 1, Adopted: adopted})
		}
		return d
	}
	restored := db(3, 1, "a", "b")
	restored.Home.Adopted = 1
	s := &Snapshot{}
	s.Ask(db(3, 1, "a", "b"))
	for _, x := range []struct {
		what string
		db   *shardmap.DB
		want bool
	}{
		{"the same", db(3, 1, "a", "b"), true},
		{"one less", db(3, 1, "a"), true},
		{"none but home", db(3, 0), true},
		{"one more", db(4, 1, "a", "b", "c"), false},
		{"the last was dropped and made again", db(4, 1, "a", "b"), false},
		{"another database was adopted", db(3, 2, "a", "b"), false},
		{"home was restored", restored, false},
		{"by an older map", db(2, 1, "a"), true},
	} {
		if got := s.Knows(x.db); got != x.want {
			t.Errorf("%s: %v, want %v", x.what, got, x.want)
		}
	}
}
