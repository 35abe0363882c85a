package branch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/metrics"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/replication"
)

// ErrReplan means that the map changed while the statement waited for a server: plan it again.
var ErrReplan = errors.New("the shard map changed")

// Failover bounds what waits while a shard has no primary that answers. Nothing of it has been sent to a server: it is new
// work, which goes to whichever node answers as the primary in the end.
type Failover struct {
	Window   time.Duration // how long after a shard's primary was lost its work may wait; 0: not at all
	Requests int           // of each shard
	Bytes    int64         // of their texts
}

// Rooms are where requests wait for shards' primaries.
type Rooms struct {
	mu sync.Mutex // guards of
	of map[[2]string]*room
}

// room counts the requests that wait for one shard's primary.
type room struct {
	requests atomic.Int64
	bytes    atomic.Int64
}

// room is the one of a shard.
func (r *Rooms) room(database, shard string) *room {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := [2]string{database, shard}
	if r.of == nil {
		r.of = map[[2]string]*room{}
	}
	w := r.of[k]
	if w == nil {
		w = &room{}
		r.of[k] = w
	}
	return w
}

// Waiting is the number of requests that wait for a shard's primary, and of their bytes. Any goroutine may call it.
func (r *Rooms) Waiting(database, shard string) (requests, bytes int64) {
	w := r.room(database, shard)
	return w.requests.Load(), w.bytes.Load()
}

// Need is a request that needs a shard's primary.
type Need struct {
	Database, Shard string
	Size            int64     // of the request, in bytes
	After           time.Time // the primary must have answered a probe that was sent behind it
	Lost            time.Time // when the primary was found to be gone; zero if the monitor has seen that
	Count           *metrics.Database
}

// Waiter is the session that waits.
type Waiter interface {
	// View is the shard's newest one.
	View() *replication.View
	// Paused says that an operator has paused the shard, for a switch-over in which he has the word.
	Paused() bool
	// Superseded says that there is a newer map: the shard may have other nodes now.
	Superseded() bool
	// Waits gives a context that ends with what may end the wait, and WhyEnded what the client is told then.
	Waits(ctx context.Context) (_ context.Context, done func())
	WhyEnded(ctx context.Context, err error) error
}

// LookAgain is how often one that waits looks whether its primary has answered a newer probe.
const LookAgain = 20 * time.Millisecond

// Await returns a shard's view once its primary serves, and has answered a probe that was sent behind a moment: within the bounds of f.
func (r *Rooms) Await(ctx context.Context, f Failover, n Need, w Waiter) (*replication.View, error) {
	in, since := r.room(n.Database, n.Shard), n.Lost
	refused := func(why string) (*replication.View, error) {
		n.Count.FailoverRefused.Add(1)
		return nil, NoPrimary(n.Shard, w.View(), why)
	}
	leave := func() {
		in.requests.Add(-1)
		in.bytes.Add(-n.Size)
	}
	requests, bytes := in.requests.Add(1), in.bytes.Add(n.Size)
	if requests > int64(f.Requests) || bytes > f.Bytes {
		leave()
		return refused(fmt.Sprintf("%d requests wait for it already (failover_buffer_requests, failover_buffer_size)", in.requests.Load()))
	}
	n.Count.FailoverWaits.Add(1)
	defer leave()
	wctx, done := w.Waits(ctx)
	defer done()
	tick := time.NewTicker(LookAgain)
	defer tick.Stop()
	for {
		v := w.View()
		var changed <-chan struct{}
		if v != nil {
			if v.Serves() && v.Nodes[v.Primary].Sample.Sent.After(n.After) {
				return v, nil
			}
			if since.IsZero() && !v.Serves() {
				since = v.Since
			}
			changed = v.Changed()
		}
		if w.Paused() {
			since = time.Now()
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) >= f.Window {
			return refused(fmt.Sprintf("failover_buffer is %s", f.Window))
		}
		select {
		case <-wctx.Done():
			return nil, w.WhyEnded(ctx, wctx.Err())
		case <-changed:
		case <-tick.C:
			if w.Superseded() {
				return nil, ErrReplan
			}
		}
	}
}

// NoPrimary is what the client is told. why says why it did not wait longer.
func NoPrimary(shard string, v *replication.View, why string) error {
	reason := "no node of it has answered as a primary"
	if v != nil {
		if v.Fenced != "" {
			reason = v.Fenced
		}
		for _, n := range v.Nodes {
			switch {
			case n.Sample.Err != nil:
				reason += fmt.Sprintf("; node %s: %v", n.Name, n.Sample.Err)
			case n.Primary && v.Fenced == "":
				reason += fmt.Sprintf("; node %s: %s", n.Name, n.Verdict.Reason)
			}
		}
	}
	hint := "SHOW REPLICAS on the admin database shows its nodes."
	if v != nil && v.Fenced != "" {
		hint = "Stop the wrong one, or say which it is: ALTER SHARD .. SET PRIMARY on the admin database."
	}
	if why != "" {
		reason += "; " + why
	}
	return &pgsql.Error{Code: pgsql.CannotConnectNow, Message: fmt.Sprintf("shard %s has no primary: %s", shard, reason), Hint: hint}
}

// Gone says whether an error means that a node is not there to work, rather than that it refused: nothing was sent to it.
func Gone(err error) bool {
	var d *pool.DialError
	if !errors.As(err, &d) {
		return false
	}
	switch d.Code {
	case pgsql.ConnectionFailure, pgsql.UnableToConnect, pgsql.AdminShutdown, pgsql.CrashShutdown, pgsql.CannotConnectNow:
		return true
	}
	return false
}
