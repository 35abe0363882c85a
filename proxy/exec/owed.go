package exec

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// A commit that was decided while one of its shards was away is told to the client, and is finished there when that shard is back.
// No statement of this process's clients runs there before: nobody misses what was acknowledged.

// owed are the decided transactions that have to be finished on shards before anything else runs there.
type owed struct {
	any    atomic.Int32 // how many there are: nothing is locked while it is 0
	mu     sync.Mutex   // guards shards
	shards map[[2]string]*debt
}

// debt is that of one shard.
type debt struct {
	left atomic.Int32
	mu   sync.Mutex // guards gids, and has the others wait while one pays
	gids map[string]bool
}

// of is the debt of a shard; nil if it never had one.
func (o *owed) of(database, shard string) *debt {
	if o.any.Load() == 0 {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.shards[[2]string{database, shard}]
}

// owe notes that a decided transaction may have a part left on a shard.
func (o *owed) owe(database, shard, gid string) {
	key := [2]string{database, shard}
	o.mu.Lock()
	if o.shards == nil {
		o.shards = map[[2]string]*debt{}
	}
	d := o.shards[key]
	if d == nil {
		d = &debt{gids: map[string]bool{}}
		o.shards[key] = d
	}
	o.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.gids[gid] {
		d.gids[gid] = true
		d.left.Add(1)
		o.any.Add(1)
	}
}

// has says whether a shard is owed something.
func (o *owed) has(database, shard string) bool {
	d := o.of(database, shard)
	return d != nil && d.left.Load() > 0
}

// paid has what is owed on a shard finished before a statement runs there on a server that the session has already.
func paid(ctx context.Context, h *Handler, shard int) error {
	name := h.shards.Name(shard)
	if !h.e.owed.has(h.db, name) {
		return nil
	}
	h.client.Leave()
	return h.e.pay(ctx, h.db, name)
}

// owedTimeout bounds how long a statement waits for what has to be finished first.
const owedTimeout = 5 * time.Second

// pay finishes what is owed on a shard that answers, if there is anything.
func (e *Engine) pay(ctx context.Context, database, shard string) error {
	d := e.owed.of(database, shard)
	if d == nil || d.left.Load() == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, owedTimeout)
	defer cancel()
	for gid := range d.gids {
		if err := e.FinishOn(ctx, database, shard, gid); err != nil {
			e.Log.Warn("a committed transaction could not be finished on a shard", "gid", gid, "shard", shard, "error", err)
			return &pgsql.Error{Code: pgsql.CannotConnectNow, Message: fmt.Sprintf("shard %s has a committed transaction to finish first, and that failed", shard), Hint: "Try again. SHOW TRANSACTIONS on the admin database shows it: " + gid}
		}
		delete(d.gids, gid)
		d.left.Add(-1)
		e.owed.any.Add(-1)
	}
	return nil
}
