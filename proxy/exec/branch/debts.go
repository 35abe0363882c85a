package branch

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
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

	mu     sync.Mutex // guards the rest; held for assignments only
	gids   map[string]bool
	paying *payment // that is under way; nil: none is
}

// payment is one of all that was owed when it began. Who needs it waits for it; nobody's leave ends it.
type payment struct {
	done chan struct{} // closed when the rest is set
	gid  string        // the transaction that could not be finished
	err  error
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

// PayWithin bounds how long a statement waits for what has to be finished first, and how long that is tried at once.
const PayWithin = 5 * time.Second

// Finish finishes a decided transaction on a shard.
type Finish func(ctx context.Context, database, shard, gid string) error

// Pay has finish finish what is owed on a shard, if there is anything. gid is the transaction that could not be finished. Whoever comes while others
// pay waits for that, as long as he likes.
func (d *Debts) Pay(ctx context.Context, database, shard string, finish Finish) (gid string, err error) {
	of := d.of(database, shard)
	if of == nil || of.left.Load() == 0 {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, PayWithin)
	defer cancel()
	for of.left.Load() > 0 {
		p := of.payment(func(p *payment, gids []string) {
			d.pay(of, p, gids, func(ctx context.Context, gid string) error { return finish(ctx, database, shard, gid) })
		})
		select {
		case <-p.done:
		case <-ctx.Done():
			return of.one(), ctx.Err()
		}
		if p.err != nil {
			return p.gid, p.err
		}
	}
	return "", nil
}

// payment is the one that is under way, or one that it begins.
func (of *debt) payment(pay func(p *payment, gids []string)) *payment {
	of.mu.Lock()
	defer of.mu.Unlock()
	p := of.paying
	if p == nil {
		p = &payment{done: make(chan struct{})}
		of.paying = p
		gids := slices.Collect(maps.Keys(of.gids))
		panics.Go(panics.Background, func() { pay(p, gids) }) // ends by PayWithin
	}
	return p
}

// one is a transaction that is owed; empty if none is.
func (of *debt) one() string {
	of.mu.Lock()
	defer of.mu.Unlock()
	for gid := range of.gids {
		return gid
	}
	return ""
}

var errNotPaid = errors.New("it was not finished")

// pay finishes some transactions in turn, up to one that it cannot.
func (d *Debts) pay(of *debt, p *payment, gids []string, finish func(ctx context.Context, gid string) error) {
	ctx, cancel := context.WithTimeout(context.Background(), PayWithin)
	defer cancel()
	gid, err := "", errNotPaid // should it panic
	defer func() {
		of.mu.Lock()
		of.paying = nil
		of.mu.Unlock()
		p.gid, p.err = gid, err
		close(p.done)
	}()
	for _, gid = range gids {
		if e := finish(ctx, gid); e != nil {
			err = e
			return
		}
		of.mu.Lock()
		delete(of.gids, gid)
		of.left.Add(-1)
		d.any.Add(-1)
		of.mu.Unlock()
	}
	gid, err = "", nil
}
