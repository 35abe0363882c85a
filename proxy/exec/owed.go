package exec

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A commit that was decided while one of its shards was away is told to the client, and is finished there when that shard is back.
// No statement of this process's clients runs there before: nobody misses what was acknowledged.

// owed are the decided transactions that have to be finished on shards before anything else runs there.
type owed struct {
	any  atomic.Int32 // how many there are: nothing is locked while it is 0
	mu   sync.Mutex   // guards gids, and lets one finish while the others wait for it
	gids map[[2]string]map[string]bool
}

// owe notes that a decided transaction may have a part left on a shard.
func (o *owed) owe(database, shard, gid string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gids == nil {
		o.gids = map[[2]string]map[string]bool{}
	}
	key := [2]string{database, shard}
	if o.gids[key] == nil {
		o.gids[key] = map[string]bool{}
	}
	if !o.gids[key][gid] {
		o.gids[key][gid] = true
		o.any.Add(1)
	}
}

// has says whether a shard is owed something.
func (o *owed) has(database, shard string) bool {
	if o.any.Load() == 0 {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.gids[[2]string{database, shard}]) > 0
}

// owedTimeout bounds how long a statement waits for what has to be finished first.
const owedTimeout = 5 * time.Second

// pay finishes what is owed on a shard that answers.
func (e *Engine) pay(ctx context.Context, database, shard string) error {
	o := &e.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	key := [2]string{database, shard}
	ctx, cancel := context.WithTimeout(ctx, owedTimeout)
	defer cancel()
	for gid := range o.gids[key] {
		if err := e.FinishOn(ctx, database, shard, gid); err != nil {
			e.Log.Warn("a committed transaction could not be finished on a shard", "gid", gid, "shard", shard, "error", err)
			return &hintError{"57P03", fmt.Sprintf("shard %s has a committed transaction to finish first, and that failed", shard), "Try again. SHOW TRANSACTIONS on the admin database shows it: " + gid}
		}
		delete(o.gids[key], gid)
		o.any.Add(-1)
	}
	return nil
}
