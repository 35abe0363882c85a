package branch

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Debts are the decided transactions that have to be finished on shards before anything else runs there: a commit that was decided while one
// of its shards was away is told to the client, and is finished there when that shard is back. No statement of this process's clients runs there
// before: nobody misses what was acknowledged.
type Debts struct {
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
func (d *Debts) of(database, shard string) *debt {
	if d.any.Load() == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shards[[2]string{database, shard}]
}

// Owe notes that a decided transaction may have a part left on a shard.
func (d *Debts) Owe(database, shard, gid string) {
	key := [2]string{database, shard}
	d.mu.Lock()
	if d.shards == nil {
		d.shards = map[[2]string]*debt{}
	}
	of := d.shards[key]
	if of == nil {
		of = &debt{gids: map[string]bool{}}
		d.shards[key] = of
	}
	d.mu.Unlock()
	of.mu.Lock()
	defer of.mu.Unlock()
	if !of.gids[gid] {
		of.gids[gid] = true
		of.left.Add(1)
		d.any.Add(1)
	}
}

// Has says whether a shard is owed something.
func (d *Debts) Has(database, shard string) bool {
	of := d.of(database, shard)
	return of != nil && of.left.Load() > 0
}

// PayWithin bounds how long a statement waits for what has to be finished first.
const PayWithin = 5 * time.Second

// Pay has finish finish what is owed on a shard, if there is anything. gid is the transaction that could not be finished.
func (d *Debts) Pay(ctx context.Context, database, shard string, finish func(ctx context.Context, database, shard, gid string) error) (gid string, err error) {
	of := d.of(database, shard)
	if of == nil || of.left.Load() == 0 {
		return "", nil
	}
	of.mu.Lock()
	defer of.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, PayWithin)
	defer cancel()
	for gid := range of.gids {
		if err := finish(ctx, database, shard, gid); err != nil {
			return gid, err
		}
		delete(of.gids, gid)
		of.left.Add(-1)
		d.any.Add(-1)
	}
	return "", nil
}
