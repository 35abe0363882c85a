package instance

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy"
	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/exec/client"
	"github.com/pgmosaic/pgmosaic/replication"
)

// What a key may be is said by its tag: what uses it must know the same words, in the same order.
func TestWordsOfKeysAreKnown(t *testing.T) {
	t.Parallel()
	words := func(field string) []string {
		f, ok := reflect.TypeFor[config.Config]().FieldByName(field)
		if !ok {
			t.Fatalf("there is no %s", field)
		}
		return strings.Fields(f.Tag.Get("oneof"))
	}
	if got := words("Fallback"); !slices.Equal(got, client.Fallbacks()) {
		t.Errorf("replica_fallback: %v, %v", got, client.Fallbacks())
	}
	if got := words("Commit"); !slices.Equal(got, client.Commits) {
		t.Errorf("multi_shard_commit: %v, %v", got, client.Commits)
	}
	for i, w := range words("Consistency") {
		if l, err := replication.ParseLevel(w); err != nil || int(l) != i {
			t.Errorf("read_consistency %s: %d, %v", w, l, err)
		}
	}
	if config.MaxPeer != proxy.Peers-1 {
		t.Errorf("peer_id up to %d, %d peers", config.MaxPeer, proxy.Peers)
	}
}
